//! Looking into a journal's directory: of a dead card, or while a gateway uses it. Read-only: without its lock, and
//! nothing is made, repaired or moved.
//!
//! What is found is what the next start would find, by the same code ([`recover`] on a storage that only pretends to
//! write). While a gateway writes, the newest may be missed, and cursors are as old as the disk's; what is given up
//! meanwhile is passed over.

use std::{
    fs, io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use crate::{
    event::{Entry, Epoch, Event, Position, Sequence, SinkName},
    time::Timestamp,
};

use super::{
    Boots, Cursor, DeadLetter, Error, Trays,
    frame::{Header, Kind},
    identity::{self, Identity},
    opening::VERSION,
    recovery::{Damage, Image, at, before, recover},
    segment::{FRAMES, Segment, SegmentHeader, Step},
    storage::{self, Storage, looking::Looking},
};

mod check;

pub use check::{Check, Checked, Fault};

/// How often a directory in use is looked at before what seems damaged is believed to be.
const LOOKS: usize = 3;

/// A journal's directory as it was when it was looked at.
#[derive(Debug)]
pub struct Inspection {
    /// Where.
    pub dir: PathBuf,
    /// The process that uses it, if one does on this machine.
    pub in_use: Option<String>,
    /// Oldest first. The last one is the current one, if there is one.
    pub epochs: Vec<Kept>,
    /// What else lies there, and its bytes: what was moved or copied aside.
    pub beside: Vec<(String, u64)>,
    boots: Boots,
}

/// One epoch's directory.
#[derive(Debug)]
pub struct Kept {
    /// The directory, under the journal's: `current`, `epoch-…`.
    pub name: String,
    /// Which epoch.
    pub epoch: Epoch,
    /// Whose it is, as far as that can be read: gateway, machine id, board serial, and when it was begun.
    pub owner: Option<Owned>,
    /// Why nothing of it can be read, if that is so.
    pub unreadable: Option<String>,
    dir: PathBuf,
    image: Option<Image>,
}

/// Whose journal it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// The gateway's id.
    pub gateway: String,
    /// Of the machine that wrote it.
    pub machine_id: String,
    /// Of its board.
    pub board_serial: String,
    /// When the epoch began, as far as the clock was right.
    pub created: Timestamp,
}

/// One segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFacts {
    /// The file.
    pub file: String,
    /// Counts uses of all files.
    pub number: u64,
    /// The first and the last event, if it has any.
    pub events: Option<(Sequence, Sequence)>,
    /// When its first event was stored, or it was begun.
    pub since: Timestamp,
    /// Bytes that are filled, and the file's.
    pub filled: u64,
    /// The file's length.
    pub size: u64,
}

/// Where a sink stands, as the disk has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkFacts {
    /// Its name.
    pub name: SinkName,
    /// Its cursor.
    pub cursor: Cursor,
    /// The newest event at or before the cursor; none if that is no longer kept, or if it has none.
    pub newest: Option<(Epoch, Sequence)>,
    /// Events behind it that are kept.
    pub events: u64,
    /// Bytes of frames behind it.
    pub bytes: u64,
}

/// A stretch that does not verify, met while reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// Of which epoch.
    pub epoch: Epoch,
    /// The file, under the journal's directory.
    pub file: String,
    /// From which byte.
    pub from: usize,
    /// To which.
    pub to: usize,
    /// The events that stood there, as far as the neighbours tell.
    pub lost: Option<(u64, u64)>,
}

/// An event with its place.
#[derive(Clone, Debug)]
pub struct Found {
    /// The event, its times as right as they are known to be.
    pub entry: Entry,
    /// The file, under the journal's directory.
    pub file: String,
    /// Where its frame begins.
    pub offset: usize,
    /// How long the frame is.
    pub length: usize,
}

/// A point in a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// An event, of the current epoch if none is named.
    Event(Option<Epoch>, Sequence),
    /// When something was stored.
    Stored(Timestamp),
}

/// What a walk over a segment comes upon.
enum Seen<'a> {
    Frame(usize, Header, &'a [u8]),
    Bad(Unread),
}

impl Inspection {
    /// Looks at the journal in `dir`; also at one epoch's directory alone (`unreadable`, say).
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the directory cannot be read or holds no journal. What is damaged is no error.
    pub fn look(dir: &Path) -> Result<Self, Error> {
        let mut seen = Self::look_once(dir)?;
        let mut looks = 1;
        // What is written while we look may seem damaged; what is, is so again.
        while looks < LOOKS && seen.in_use.is_some() && seen.damages().next().is_some() {
            let before: Vec<_> = seen.damages().map(|damage| damage.place).collect();
            seen = Self::look_once(dir)?;
            for image in seen.epochs.iter_mut().filter_map(|kept| kept.image.as_mut()) {
                image.damages.retain(|damage| before.contains(&damage.place));
            }
            looks += 1;
        }
        Ok(seen)
    }

    fn look_once(dir: &Path) -> Result<Self, Error> {
        let names = Looking.list(dir).map_err(at("list", dir))?;
        let is_epoch = |name: &str| name == "current" || name.starts_with("epoch-");
        let mut dirs: Vec<(String, PathBuf)> = names
            .iter()
            .filter(|name| is_epoch(name) && dir.join(name).is_dir())
            .map(|name| (name.clone(), dir.join(name)))
            .collect();
        let is_one = |name: &String| name == identity::NAME || has_ending(name, "seg");
        if dirs.is_empty() && names.iter().any(is_one) {
            dirs.push((String::new(), dir.to_owned()));
        } else if dirs.is_empty() && !names.iter().any(|name| name == "lock" || name == "unreadable") {
            let none = io::Error::new(io::ErrorKind::NotFound, "there is none");
            return Err(at("find a journal in", dir)(none));
        }
        let mut epochs = Vec::new();
        for (name, path) in dirs {
            epochs.extend(Kept::load(name, path)?);
        }
        epochs.sort_by_key(|kept| (kept.name == "current", kept.begins()));
        let boots = Boots::kept(epochs.iter().filter_map(|kept| kept.image.as_ref()));
        let beside = names
            .iter()
            .filter(|name| !is_epoch(name) && !is_one(name) && !has_ending(name, "snap") && *name != "lock");
        Ok(Self {
            in_use: user(&dir.join("lock")),
            beside: beside
                .map(|name| (name.clone(), bytes(&dir.join(name))))
                .collect(),
            epochs,
            boots,
            dir: dir.to_owned(),
        })
    }

    fn damages(&self) -> impl Iterator<Item = &Damage> {
        let images = self.epochs.iter().filter_map(|kept| kept.image.as_ref());
        images.flat_map(|image| &image.damages)
    }

    /// Everything that the directory occupies.
    #[must_use]
    pub fn occupied(&self) -> u64 {
        storage::occupied(&Looking, &self.dir)
    }

    /// What the snapshots of the current epoch occupy.
    #[must_use]
    pub fn snapshot_bytes(&self) -> u64 {
        let dir = self.epochs.last().map(|kept| kept.dir.clone());
        let slots = ["a.snap", "b.snap"];
        dir.map_or(0, |dir| slots.iter().map(|slot| bytes(&dir.join(slot))).sum())
    }

    /// The sinks that the journal knows of, configured or not.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the disk cannot be read.
    pub fn sinks(&self) -> Result<Vec<SinkFacts>, Error> {
        let mut images: Vec<_> = self
            .epochs
            .iter()
            .filter_map(|kept| kept.image.as_ref())
            .collect();
        let newest = images.pop();
        let cursors = newest.map(|image| image.cursors_over(images.into_iter()));
        let mut facts = Vec::new();
        for (name, cursor) in cursors.unwrap_or_default() {
            let mut fact = SinkFacts {
                name,
                cursor,
                newest: None,
                events: 0,
                bytes: 0,
            };
            for kept in &self.epochs {
                for segment in kept.segments() {
                    kept.measure(segment, &mut fact)?;
                }
            }
            facts.push(fact);
        }
        Ok(facts)
    }

    /// Gives every event behind `after` to `take`, in order, until that breaks. What does not verify is passed over
    /// and answered.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the disk cannot be read.
    pub fn events(
        &self,
        after: Position,
        mut take: impl FnMut(Found) -> ControlFlow<()>,
    ) -> Result<Vec<Unread>, Error> {
        let mut unread = Vec::new();
        for kept in &self.epochs {
            for segment in kept.segments() {
                if segment.filled().1 <= after {
                    continue;
                }
                let whole = kept.walk(segment, |seen| match seen {
                    Seen::Bad(bad) => {
                        unread.push(bad);
                        ControlFlow::Continue(())
                    }
                    Seen::Frame(offset, header, payload) => {
                        if header.kind != Kind::EVENT || header.position <= after {
                            return ControlFlow::Continue(());
                        }
                        // A good frame with an event that cannot be read was written by a later version.
                        let Some(event) = Event::decode(payload) else {
                            return ControlFlow::Continue(());
                        };
                        let mut entry = Entry {
                            position: header.position,
                            epoch: kept.epoch,
                            sequence: header.sequence,
                            event: Arc::new(event),
                        };
                        self.boots.correct(&mut entry);
                        take(Found {
                            entry,
                            file: kept.path_of(segment),
                            offset,
                            length: header.whole(),
                        })
                    }
                })?;
                if !whole {
                    return Ok(unread);
                }
            }
        }
        Ok(unread)
    }

    /// One event; none if it is not there.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the disk cannot be read.
    pub fn find(&self, epoch: Epoch, sequence: Sequence) -> Result<Option<Found>, Error> {
        let Some(after) = self.before(epoch, sequence) else {
            return Ok(None);
        };
        let mut found = None;
        self.events(after, |event| {
            let here = event.entry.epoch == epoch;
            if here && event.entry.sequence == sequence {
                found = Some(event);
                return ControlFlow::Break(());
            }
            if here && event.entry.sequence > sequence {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// The first event that is kept from there on.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the disk cannot be read.
    pub fn first(&self, start: Start) -> Result<Option<Found>, Error> {
        let place = |epoch| self.epochs.iter().position(|kept| kept.epoch == epoch);
        let named = match start {
            Start::Event(Some(epoch), _) => place(epoch),
            _ => self.epochs.len().checked_sub(1),
        };
        let Some(named) = named else { return Ok(None) };
        let mut found = None;
        let after = match start {
            Start::Event(_, sequence) => {
                let epoch = self.epochs.get(named).map(|kept| kept.epoch);
                epoch.and_then(|epoch| self.before(epoch, sequence))
            }
            Start::Stored(_) => None,
        };
        self.events(after.unwrap_or_default(), |event| {
            let entry = &event.entry;
            let is_it = match start {
                Start::Event(_, sequence) => (place(entry.epoch), entry.sequence) >= (Some(named), sequence),
                Start::Stored(time) => entry.event.recorded.wall >= time,
            };
            if !is_it {
                return ControlFlow::Continue(());
            }
            found = Some(event);
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// The dead letters, by sink and in the order of their events.
    #[must_use]
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        // The newest epoch has taken over what those before it had.
        let newest = self.epochs.iter().rev().find_map(|kept| kept.image.as_ref());
        let mut letters = Trays::of(newest.iter().flat_map(|image| &image.state)).letters();
        for letter in &mut letters {
            self.boots.correct(&mut letter.entry);
        }
        letters
    }

    /// A position before this event, and behind what stands in earlier segments; none if nobody kept it.
    #[must_use]
    pub fn before(&self, epoch: Epoch, sequence: Sequence) -> Option<Position> {
        let kept = self.epochs.iter().find(|kept| kept.epoch == epoch)?;
        let holds = |segment: &&Arc<Segment>| {
            segment.header.after_sequence < sequence && sequence <= segment.filled().2
        };
        let segment = kept.segments().iter().find(holds)?;
        Some(segment.header.after)
    }

    /// The segments of one epoch, oldest first.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the disk cannot be read.
    pub fn segments(&self, kept: &Kept) -> Result<Vec<SegmentFacts>, Error> {
        let mut facts = Vec::new();
        for segment in kept.segments() {
            let header = &segment.header;
            let (end, _, last) = segment.filled();
            let mut since = header.begun;
            kept.walk(segment, |seen| match seen {
                Seen::Frame(_, header, payload) if header.kind == Kind::EVENT => {
                    if let Some(event) = Event::decode(payload) {
                        since = self.boots.corrected(event.recorded).wall;
                    }
                    ControlFlow::Break(())
                }
                Seen::Frame(..) => ControlFlow::Continue(()),
                Seen::Bad(_) => ControlFlow::Break(()),
            })?;
            facts.push(SegmentFacts {
                file: segment.name.clone(),
                number: header.number,
                events: (header.after_sequence < last)
                    .then_some((Sequence(header.after_sequence.0 + 1), last)),
                since,
                filled: end as u64,
                size: segment.size as u64,
            });
        }
        Ok(facts)
    }
}

impl Kept {
    /// None if there is nothing in it.
    fn load(name: String, dir: PathBuf) -> Result<Option<Self>, Error> {
        let mut kept = Self {
            name,
            epoch: Epoch(0),
            owner: None,
            unreadable: None,
            image: None,
            dir,
        };
        let dir = &kept.dir;
        let identity = Identity::read(&Looking, dir).map_err(at("read the identity of", dir))?;
        let after = identity.as_ref().map_or(Position(0), |identity| identity.after);
        if let Some(identity) = identity {
            kept.epoch = identity.epoch;
            kept.owner = Some(Owned {
                gateway: identity.gateway,
                machine_id: identity.machine_id,
                board_serial: identity.board_serial,
                created: identity.created,
            });
            if identity.version != VERSION {
                let version = identity.version;
                kept.unreadable = Some(format!(
                    "its format is version {version}, this is version {VERSION}: look at it with the tidegate that wrote it"
                ));
                return Ok(Some(kept));
            }
        } else if let Some(epoch) = epoch_of_segments(dir).map_err(at("read the segments of", dir))? {
            kept.epoch = epoch;
        } else {
            kept.unreadable = Some("nothing in it verifies".to_owned());
            return Ok(Some(kept));
        }
        match recover(&Looking, dir, kept.epoch, after) {
            Ok(image) => kept.image = Some(image),
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::InvalidData => {
                kept.unreadable = Some(source.to_string());
            }
            // Delivered meanwhile, and gone.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        Ok(Some(kept))
    }

    fn segments(&self) -> &[Arc<Segment>] {
        self.image.as_ref().map_or(&[], |image| &image.segments)
    }

    fn begins(&self) -> Position {
        let first = self.segments().first();
        first.map_or(Position(0), |first| first.header.after)
    }

    /// The first and the last event that is kept; the first is behind the last if there is none.
    #[must_use]
    pub fn events(&self) -> (Sequence, Sequence) {
        let first = self.segments().first();
        let last = self.image.as_ref().map_or(Sequence(0), |image| image.sequence);
        let first = first.map_or(last, |first| first.header.after_sequence);
        (Sequence(first.0 + 1), last)
    }

    /// Whether its last frame says that it was closed by a clean stop.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.image.as_ref().is_some_and(|image| image.clean)
    }

    /// Files that hold nothing, ready to be segments.
    #[must_use]
    pub fn spares(&self) -> usize {
        self.image.as_ref().map_or(0, |image| image.spares.len())
    }

    fn path_of(&self, segment: &Segment) -> String {
        let path = Path::new(&self.name).join(&segment.name);
        path.to_string_lossy().into_owned()
    }

    /// Walks one segment until `see` breaks; answers whether it came to the end.
    fn walk(
        &self,
        segment: &Segment,
        mut see: impl FnMut(Seen<'_>) -> ControlFlow<()>,
    ) -> Result<bool, Error> {
        let path = self.dir.join(&segment.name);
        let (end, _, newest) = segment.filled();
        let mut walk = segment.walk(FRAMES, end);
        let mut last = before(&segment.header);
        loop {
            let flow = match walk.next().map_err(at("read", &path))? {
                Step::End => return Ok(true),
                Step::Frame(offset, header) => {
                    last = header;
                    see(Seen::Frame(offset, header, walk.payload(&header)))
                }
                Step::Bad(bad) => {
                    if is_given_up(&path, &segment.header) {
                        return Ok(true);
                    }
                    let survivors = walk.survivors(bad, &last).map_err(at("read", &path))?;
                    let (to, lost_to) = match survivors.good.first() {
                        Some((to, next)) => (*to, super::recovery::lost_before(next)),
                        None => (end, newest),
                    };
                    walk.go_to(to);
                    let first = last.sequence.0 + 1;
                    see(Seen::Bad(Unread {
                        epoch: self.epoch,
                        file: self.path_of(segment),
                        from: bad,
                        to,
                        lost: (first <= lost_to.0).then_some((first, lost_to.0)),
                    }))
                }
            };
            if flow.is_break() {
                return Ok(false);
            }
        }
    }

    /// Adds what a sink has, and has not, of one segment.
    fn measure(&self, segment: &Segment, fact: &mut SinkFacts) -> Result<(), Error> {
        let (end, last, newest) = segment.filled();
        let cursor = fact.cursor.position;
        let after = segment.header.after_sequence;
        if last <= cursor {
            if newest > Sequence(0) {
                fact.newest = Some((self.epoch, newest));
            }
            return Ok(());
        }
        let (mut has, mut from) = (after, FRAMES);
        if segment.header.after < cursor {
            self.walk(segment, |seen| {
                let Seen::Frame(offset, header, _) = seen else {
                    return ControlFlow::Continue(());
                };
                if header.position > cursor {
                    return ControlFlow::Break(());
                }
                (has, from) = (header.sequence, offset + header.whole());
                ControlFlow::Continue(())
            })?;
            if has > Sequence(0) {
                fact.newest = Some((self.epoch, has));
            }
        }
        fact.events += newest.0.saturating_sub(has.0);
        fact.bytes += end.saturating_sub(from) as u64;
        Ok(())
    }
}

/// Whether the file has become something else since it was looked at.
fn is_given_up(path: &Path, header: &SegmentHeader) -> bool {
    let now = || -> io::Result<Option<SegmentHeader>> {
        let file = Looking.open(path)?;
        SegmentHeader::read(&*file, usize::try_from(file.size()?).unwrap_or(0))
    };
    matches!(now(), Ok(Some(now)) if (now.number, now.salt) != (header.number, header.salt))
}

fn has_ending(name: &str, ending: &str) -> bool {
    Path::new(name).extension().is_some_and(|it| it == ending)
}

/// Whose the segments say that they are, where the identity says nothing.
fn epoch_of_segments(dir: &Path) -> io::Result<Option<Epoch>> {
    for name in Looking.list(dir)?.iter().filter(|name| has_ending(name, "seg")) {
        let file = Looking.open(&dir.join(name))?;
        let size = usize::try_from(file.size()?).unwrap_or(0);
        if let Some(header) = SegmentHeader::read(&*file, size)? {
            return Ok(Some(Epoch(header.epoch)));
        }
    }
    Ok(None)
}

/// The process that uses the journal in `dir`, if one does on this machine.
#[must_use]
pub fn in_use_by(dir: &Path) -> Option<String> {
    user(&dir.join("lock"))
}

/// The process that holds the lock, as the kernel lists it: to ask for the lock would be to take it.
fn user(lock: &Path) -> Option<String> {
    let found = statx(CWD, lock, AtFlags::empty(), StatxFlags::INO | StatxFlags::MNT_ID).ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let (major, minor) = device(
        &mounts,
        found.stx_mnt_id,
        (found.stx_dev_major, found.stx_dev_minor),
    );
    let locks = fs::read_to_string("/proc/locks").ok()?;
    holder(&locks, &format!("{major:02x}:{minor:02x}:{}", found.stx_ino))
}

/// The filesystem's device. Not the file's `own` (`st_dev`), because on btrfs `/proc/locks` shows another one; but
/// kernels before 5.8 and qemu's user emulation do not tell which mount a file is on.
fn device(mounts: &str, id: u64, own: (u32, u32)) -> (u32, u32) {
    let told = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        if fields.next()?.parse() != Ok(id) {
            return None;
        }
        let (major, minor) = fields.nth(1)?.split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    });
    told.unwrap_or(own)
}

fn holder(locks: &str, file: &str) -> Option<String> {
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields.as_slice() {
            [_, "FLOCK", _, _, pid, locked, ..] if *locked == file => Some((*pid).to_owned()),
            _ => None,
        }
    })
}

fn bytes(path: &Path) -> u64 {
    if path.is_dir() {
        return storage::occupied(&Looking, path);
    }
    fs::metadata(path).map_or(0, |found| found.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_by_whoever_holds_that_file_and_none_of_its_number_elsewhere() {
        let mounts = "21 1 254:1 / / rw shared:1 - ext4 /dev/root rw\n\
                      30 21 0:26 / /var/lib rw - btrfs /dev/sda rw\n";
        assert_eq!(device(mounts, 21, (254, 1)), (254, 1));
        assert_eq!(device(mounts, 30, (0, 45)), (0, 26));
        assert_eq!(device(mounts, 0, (254, 2)), (254, 2), "the kernel does not tell");

        let locks = "1: POSIX  ADVISORY  WRITE 7 fe:01:42 0 EOF\n\
                     1: -> FLOCK  ADVISORY  WRITE 8 fe:01:42 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 9 00:1a:42 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 10 fe:01:142 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE 11 fe:01:42 0 EOF\n";
        assert_eq!(holder(locks, "fe:01:42").as_deref(), Some("11"));
        assert_eq!(holder(locks, "00:1a:42").as_deref(), Some("9"));
        assert_eq!(holder(locks, "00:1a:43"), None);
    }
}
