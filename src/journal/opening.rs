//! Opening: whose directory it is, what is in it, where every sink goes on.
//!
//! ```text
//! lock            the process that has it
//! current/        this epoch: identity, a.snap, b.snap, *.seg
//! epoch-<epoch>/  an epoch before, until its events are delivered
//! unreadable/     what could not be read, the last of it
//! gone/           an epoch that is delivered, while it is removed
//! damaged-*       a copy of the first damaged file
//! ```
//! A directory becomes `current` by one rename: there is never half an epoch.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, RwLock},
};

use tokio::sync::watch;

use crate::{
    event::{Epoch, Position, Sequence, SinkName},
    rule::state::StateChange,
    time::{Clock, ClockQuality},
};

use super::{
    Archive, Boots, Cursor, Error, Gaps, Owner, Queue, Recovered, Room, Settings, Shared, Trays, boots, dead,
    frame::{TORN_TAIL, Told},
    identity::Identity,
    read::Catalog,
    recovery::{Damage, Image, at, recover},
    retention::segment_size,
    snapshot::Slots,
    storage::{self, Storage},
    writer::{Active, Commit, Tells, Writer},
};

pub(super) const VERSION: u32 = 1;
/// An epoch's directory is renamed before it is removed: a power cut never leaves half of it under its name.
const GONE: &str = "gone";

/// Where the random number comes from that an epoch is.
pub(super) type Draw = fn() -> io::Result<u64>;

/// A directory that was read: whose it is, and what it holds.
struct Found {
    identity: Identity,
    image: Image,
}

/// Reads, recovers, and makes what is missing. The writer's first words are `pending` already.
pub(super) fn open(
    storage: Arc<dyn Storage>,
    settings: &Settings,
    owner: Owner,
    clock: Clock,
    draw: Draw,
) -> Result<(Writer, Recovered), Error> {
    let root = settings.dir.clone();
    let mut findings = Vec::new();
    let disk = &*storage;
    clear(disk, &root)?;
    let mut unreadable = Vec::new();
    let mut archives = Vec::new();
    for name in names(disk, &root)?
        .into_iter()
        .filter(|name| name.starts_with("epoch-"))
    {
        match load(disk, &root.join(&name)) {
            Ok(found) => archives.push(found),
            Err(error) if is_passing(&error) => return Err(error),
            Err(error) => {
                let said = set_aside(disk, &root, &name)?;
                unreadable.push(name);
                findings.push(format!("an old epoch could not be read ({error}): {said}"));
            }
        }
    }
    archives.sort_by_key(|found| found.identity.after);
    let mut found = None;
    if disk.is_dir(&root.join("current")) {
        match load(disk, &root.join("current")) {
            Ok(current) if current.image.unprovable => {
                findings.extend(current.image.findings.iter().cloned());
                findings.push("which numbers were given out cannot be proved: a new epoch".to_owned());
                archives.push(archive(disk, &root, current)?);
            }
            Ok(current) if current.identity.is_of(&owner) => found = Some(current),
            Ok(current) => {
                findings.push("another machine, board or gateway: a new epoch".to_owned());
                archives.push(archive(disk, &root, current)?);
            }
            Err(error) if is_passing(&error) => return Err(error),
            Err(error) => {
                let said = set_aside(disk, &root, "current")?;
                unreadable.push("current".to_owned());
                findings.push(format!(
                    "the journal could not be read ({error}): {said}, a new epoch"
                ));
            }
        }
    }
    let mut found = match found {
        Some(found) => found,
        None => found_epoch(disk, &root, &owner, &clock, &archives, draw)?,
    };
    findings.append(&mut found.image.findings);
    let whole = |file| Damage {
        place: None,
        file,
        from: 0,
        to: 0,
        lost: None,
    };
    found.image.damages.extend(unreadable.into_iter().map(whole));
    let cursors = places(&owner, &archives, &found);
    let (writer, first) = assemble(storage, settings, owner, clock, archives, &mut found, cursors)?;
    let unread = writer.shared.dead.unread();
    if unread > 0 {
        findings.push(format!(
            "{unread} dead letters cannot be read: a later version wrote them, install that one again"
        ));
    }
    let clock = &writer.shared.clock;
    let stored = found.image.stored.iter().rev();
    let unsynchronised = stored
        .copied()
        .find(|stored| stored.boot_id == clock.boot_id())
        .filter(|stored| stored.quality != ClockQuality::Synchronised);
    let state = found.image.state.into_iter();
    let recovered = Recovered {
        state: state.filter(|(key, _)| !is_the_journals(key)).collect(),
        epoch: found.identity.epoch,
        first,
        last: found.image.sequence,
        end: found.image.last,
        clean: found.image.clean,
        findings,
        unsynchronised,
    };
    Ok((writer, recovered))
}

fn names(storage: &dyn Storage, dir: &Path) -> Result<Vec<String>, Error> {
    storage.list(dir).map_err(at("list", dir))
}

/// Removes what an earlier opening left half done. What whoever was killed did to names may only be seen, and not be on
/// the disk: now it is, before anything is built on it.
fn clear(storage: &dyn Storage, root: &Path) -> Result<(), Error> {
    for half in ["current.new", GONE].map(|name| root.join(name)) {
        if storage.is_dir(&half) {
            storage.remove_dir(&half).map_err(at("remove", &half))?;
        }
    }
    for dir in [root, &root.join("current")] {
        if storage.is_dir(dir) {
            storage.sync_dir(dir).map_err(at("flush", dir))?;
        }
    }
    Ok(())
}

/// Whether an error says nothing about what the directory holds.
fn is_passing(error: &Error) -> bool {
    use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    matches!(error, Error::Io { source, .. } if !matches!(source.kind(), InvalidData | NotFound | UnexpectedEof))
}

fn load(storage: &dyn Storage, dir: &Path) -> Result<Found, Error> {
    let identity = Identity::read(storage, dir).map_err(at("read the identity of", dir))?;
    let unreadable =
        |why: String| at("read the identity of", dir)(io::Error::new(io::ErrorKind::InvalidData, why));
    let identity = identity.ok_or_else(|| unreadable("it is missing or damaged".to_owned()))?;
    if identity.version != VERSION {
        let version = identity.version;
        return Err(unreadable(format!(
            "its format is version {version}, this is version {VERSION}"
        )));
    }
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let strayed = name
        .strip_prefix("epoch-")
        .is_some_and(|epoch| !epoch.starts_with(&identity.epoch.to_string()));
    if strayed {
        return Err(unreadable("it is another epoch's".to_owned()));
    }
    let image = recover(storage, dir, identity.epoch, identity.after)?;
    Ok(Found { identity, image })
}

/// Moves a directory out of the way, whole. What lay there before goes: one is kept at most.
fn set_aside(storage: &dyn Storage, root: &Path, name: &str) -> Result<String, Error> {
    let (from, to) = (root.join(name), root.join("unreadable"));
    if storage.is_dir(&to) {
        storage.remove_dir(&to).map_err(at("remove", &to))?;
    }
    storage.rename(&from, &to).map_err(at("move aside", &from))?;
    storage.sync_dir(root).map_err(at("flush", root))?;
    Ok(format!("it was moved to {}", to.display()))
}

/// Ends the current epoch: the next start begins another one. None if there is no epoch to end.
pub(super) fn end_epoch(storage: &dyn Storage, root: &Path) -> Result<Option<Epoch>, Error> {
    let current = root.join("current");
    if !storage.is_dir(&current) {
        return Ok(None);
    }
    let identity = Identity::read(storage, &current).map_err(at("read the identity of", &current))?;
    // Without one the next start moves the directory aside and begins another epoch anyway.
    let Some(Identity { epoch, .. }) = identity else {
        return Ok(None);
    };
    put_by(storage, root, epoch)?;
    Ok(Some(epoch))
}

/// Another's journal: what it still owes is delivered under its own epoch.
fn archive(storage: &dyn Storage, root: &Path, mut current: Found) -> Result<Found, Error> {
    current.image.dir = put_by(storage, root, current.identity.epoch)?;
    Ok(current)
}

/// The current epoch's directory becomes an old one's; answers where it is now.
fn put_by(storage: &dyn Storage, root: &Path, epoch: Epoch) -> Result<PathBuf, Error> {
    let from = root.join("current");
    let mut to = root.join(format!("epoch-{epoch}"));
    while storage.is_dir(&to) {
        to.as_mut_os_string().push("-again");
    }
    storage.rename(&from, &to).map_err(at("rename", &from))?;
    storage.sync_dir(root).map_err(at("flush", root))?;
    Ok(to)
}

/// A new epoch: all of it is written before its name says so.
fn found_epoch(
    storage: &dyn Storage,
    root: &Path,
    owner: &Owner,
    clock: &Clock,
    archives: &[Found],
    draw: Draw,
) -> Result<Found, Error> {
    let random = draw().map_err(at("draw an epoch for", root))?;
    let identity = Identity {
        version: VERSION,
        epoch: Epoch(random),
        machine_id: owner.machine_id.clone(),
        board_serial: owner.board_serial.clone(),
        gateway: owner.origin.gateway.to_string(),
        created: clock.moment().wall,
        after: archives
            .iter()
            .map(|found| found.image.last)
            .max()
            .unwrap_or_default(),
    };
    let (new, current) = (root.join("current.new"), root.join("current"));
    storage.create_dir(&new).map_err(at("make", &new))?;
    identity
        .write(storage, &new)
        .map_err(at("write the identity of", &new))?;
    let mut opened = Slots::open(storage, &new, identity.epoch).map_err(at("make the snapshots of", &new))?;
    opened
        .slots
        .prepare()
        .map_err(at("make the snapshots of", &new))?;
    storage.sync_dir(&new).map_err(at("flush", &new))?;
    storage.rename(&new, &current).map_err(at("rename", &new))?;
    storage.sync_dir(root).map_err(at("flush", root))?;
    let image = recover(storage, &current, identity.epoch, identity.after)?;
    Ok(Found { identity, image })
}

impl Image {
    /// No event of it was ever stored.
    pub fn is_new(&self) -> bool {
        self.last <= self.base
    }

    /// Where all sinks stand, if this is the current epoch and `archives` are the ones before. The first commit of an
    /// epoch brings all cursors with it: what is not among them was forgotten, whatever an old epoch says.
    pub fn cursors_over<'a>(&self, archives: impl Iterator<Item = &'a Self>) -> BTreeMap<SinkName, Cursor> {
        let mut cursors = BTreeMap::new();
        if self.cursors_lost || (self.is_new() && self.cursors.is_empty()) {
            cursors.extend(archives.flat_map(|old| old.cursors.clone()));
        }
        // The newest word counts, also where it is a move back.
        cursors.extend(self.cursors.clone());
        cursors
    }
}

/// Where every sink goes on. With a new journal before the first event; one that is new to the journal at
/// its end, or at the oldest event. One that is no longer configured keeps its place.
fn places(owner: &Owner, archives: &[Found], found: &Found) -> BTreeMap<SinkName, Cursor> {
    let image = &found.image;
    let mut cursors = image.cursors_over(archives.iter().map(|old| &old.image));
    let is_new = image.is_new();
    let oldest = image
        .segments
        .first()
        .map_or(Cursor::start(found.identity.after), |first| {
            Cursor::start_behind(first.header.after, first.header.after_sequence)
        });
    for plan in &owner.sinks {
        // Where a cursor may have been lost, duplicates are better than a loss.
        let lost = archives.iter().any(|old| old.image.cursors_lost);
        let start = if is_new && (archives.is_empty() || lost) {
            Cursor::start(Position(0))
        } else if is_new || plan.from_oldest || image.cursors_lost {
            oldest
        } else {
            Cursor::start_behind(image.last, image.sequence)
        };
        cursors.entry(plan.name.clone()).or_insert(start);
    }
    cursors
}

/// Keys that are no rule's.
fn is_the_journals(key: &[u8]) -> bool {
    [boots::PREFIX, dead::PREFIX, dead::TOLD]
        .iter()
        .any(|prefix| key.starts_with(prefix))
}

/// What an epoch that just begins takes over from those before: their dead letters are still to be sent or dropped.
fn carried(archives: &[Found], image: &Image, identity: &Identity) -> BTreeMap<Vec<u8>, Vec<u8>> {
    if image.last > identity.after {
        return BTreeMap::new();
    }
    let letters = archives.iter().flat_map(|old| &old.image.state);
    letters
        .filter(|(key, _)| key.starts_with(dead::PREFIX) || key.starts_with(dead::TOLD))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// The commit that takes them over; none if there are none.
fn take_over(carried: BTreeMap<Vec<u8>, Vec<u8>>) -> Option<Commit> {
    let state = carried.into_iter().map(|(key, value)| StateChange {
        key,
        value: Some(value),
    });
    let state: Vec<_> = state.collect();
    (!state.is_empty()).then(|| Commit::new(Position(0), &[], state))
}

fn assemble(
    storage: Arc<dyn Storage>,
    settings: &Settings,
    owner: Owner,
    clock: Clock,
    archives: Vec<Found>,
    found: &mut Found,
    cursors: BTreeMap<SinkName, Cursor>,
) -> Result<(Writer, Sequence), Error> {
    let Found { identity, image } = found;
    let boots = Boots::of(archives.iter().map(|old| &old.image).chain([&*image]), &clock);
    let segments = std::mem::take(&mut image.segments);
    let first = segments
        .first()
        .map_or(Sequence(1), |first| Sequence(first.header.after_sequence.0 + 1));
    let active = segments.last().map(|segment| Active {
        segment: Arc::clone(segment),
        end: segment.filled().0,
        sealed: segment.is_cut(),
    });
    let newest = segments
        .last()
        .map_or(0, |segment| segment.header.number)
        .max(image.slots.newest_from());
    let catalog = Arc::new(Catalog::new(identity.epoch, segments));
    let carried = carried(&archives, image, identity);
    let told = &image.told;
    let mut untold = Vec::new();
    for old in &archives {
        untold.push(Untold::of(&old.image, old.identity.epoch, told));
    }
    let own = Untold::of(image, identity.epoch, told);
    let archives = archives
        .into_iter()
        .map(|old| {
            let epoch = old.identity.epoch;
            let catalog = Arc::new(Catalog::new(epoch, old.image.segments));
            know(&catalog, told, &old.image.damages);
            Archive {
                dir: old.image.dir,
                catalog,
            }
        })
        .collect();
    know(&catalog, told, &image.damages);
    let shared = Arc::new(Shared {
        origin: RwLock::new(owner.origin),
        clock,
        boots,
        gaps: Gaps::default(),
        dead: Trays::of(carried.iter().chain(&image.state)),
        max_bytes: settings.max_bytes,
        sinks: RwLock::new(owner.sinks.into()),
        base: identity.after,
        state_delay: settings.state_delay,
        cursors: Mutex::new(cursors),
        archives: RwLock::new(archives),
        queue: Mutex::new(Queue {
            ticket: image.last.0 >> 16,
            newest: image.last,
            room: Room::new(settings.max_bytes, &image.state),
            ..Queue::default()
        }),
        wake: Condvar::new(),
    });
    let mut writer = Writer {
        lock: None,
        root: settings.dir.clone(),
        dir: image.dir.clone(),
        settings: settings.clone(),
        shared,
        catalog,
        durable: watch::Sender::new(image.last),
        active,
        spares: std::mem::take(&mut image.spares),
        slots: image.slots.clone(),
        state: image.state.clone(),
        taken: image.cursors.clone(),
        written: image.cursors.clone(),
        pending: std::collections::VecDeque::new(),
        last: image.last,
        sequence: image.sequence,
        group: image.group,
        settled: image.settled,
        known: image.told.clone(),
        skipped: image.torn.clone(),
        aside: 0,
        segment_size: segment_size(settings.max_bytes),
        newest_number: newest,
        storage,
    };
    writer.pending.extend(take_over(carried));
    writer.measure_aside();
    writer.drop_spares()?;
    if writer.spares.is_empty() && writer.total() + writer.segment_size as u64 <= writer.settings.max_bytes {
        writer.make_spare(writer.segment_size)?;
    }
    writer.certify_active()?;
    for damage in &own.damages {
        writer.set_copy_aside(&damage.file);
    }
    for found in untold.into_iter().chain([own]) {
        let epoch = found.epoch;
        for damage in &found.damages {
            writer.tell_damage(damage, epoch);
        }
        if found.torn.is_empty() {
            continue;
        }
        // An old epoch's log takes no more notes: that it is told stands in this one's.
        let tells = if epoch == identity.epoch {
            Tells::Skipped
        } else {
            Tells::Damage(found.torn_told())
        };
        writer.tell_lost(&found.torn, epoch, TORN_TAIL, tells);
    }
    Ok((writer, first))
}

/// The place by which an old epoch's torn tail is known.
const TORN: u64 = u64::MAX - 1;

/// What recovery found in an epoch and nobody has told yet.
#[derive(Debug)]
struct Untold {
    epoch: Epoch,
    damages: Vec<Damage>,
    torn: Vec<(u64, u64)>,
}

impl Untold {
    fn of(image: &Image, epoch: Epoch, told: &BTreeSet<Told>) -> Self {
        let is_told = |(segment, from)| told.contains(&Told(epoch.0, segment, from));
        let damages = image
            .damages
            .iter()
            .filter(|damage| !damage.place.is_some_and(is_told));
        let mut untold = Self {
            epoch,
            damages: damages.cloned().collect(),
            torn: image.torn.clone(),
        };
        if told.contains(&untold.torn_told()) {
            untold.torn.clear();
        }
        untold
    }

    fn torn_told(&self) -> Told {
        Told(self.epoch.0, TORN, self.torn.last().map_or(0, |(_, to)| *to))
    }
}

/// What is told, or is about to be, is not told again by who reads there.
fn know(catalog: &Catalog, told: &BTreeSet<Told>, damages: &[Damage]) {
    let epoch = catalog.epoch.0;
    for Told(_, segment, from) in told.iter().filter(|told| told.0 == epoch) {
        catalog.know(*segment, *from);
    }
    for (segment, from) in damages.iter().filter_map(|damage| damage.place) {
        catalog.know(segment, from);
    }
}

impl Writer {
    /// Measures what lies in the directory besides this epoch.
    pub fn measure_aside(&mut self) {
        let all = storage::occupied(&*self.storage, &self.root);
        let own = storage::occupied(&*self.storage, &self.dir);
        self.aside = all.saturating_sub(own);
    }

    /// Keeps a copy of a damaged file for `tidegate journal fsck`: of the first one only, and only if there
    /// is room. It is a courtesy: that it cannot be made stops nothing.
    pub fn set_copy_aside(&mut self, file: &str) {
        let names = self.storage.list(&self.root).unwrap_or_default();
        if names.iter().any(|name| name.starts_with("damaged-")) {
            return;
        }
        let from: PathBuf = self.dir.join(file);
        if !self
            .storage
            .list(&self.dir)
            .unwrap_or_default()
            .iter()
            .any(|name| name == file)
        {
            return;
        }
        let copied = (|| -> io::Result<()> {
            let source = self.storage.open(&from)?;
            let size = source.size()?;
            if self.total() + size > self.settings.max_bytes {
                let why = "the journal would take more than max-bytes";
                return Err(io::Error::new(io::ErrorKind::StorageFull, why));
            }
            let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
            let count = source.read_at(&mut bytes, 0)?;
            bytes.truncate(count);
            self.storage
                .open(&self.root.join(format!("damaged-{file}")))?
                .write_all_at(&bytes, 0)
        })();
        if let Err(error) = copied {
            tracing::warn!(file, reason = %error, "could not keep a copy of the damaged file");
        }
        self.measure_aside();
    }

    /// An old epoch's directory goes when nobody is owed anything of it any more: events, that its filter left out
    /// the last of them before what was lost with the epoch's end, or, where a sink is not configured, what it loses.
    pub fn drop_archives(&mut self) -> Result<(), Error> {
        let archives = self.shared.archives();
        for Archive { dir, catalog } in archives {
            let mut owed = false;
            for plan in self.shared.plans().iter() {
                let cursor = self.written.get(&plan.name).copied().unwrap_or_default();
                let one = super::Limit { entries: 1, bytes: 1 };
                owed |= !catalog.read(&dir, cursor.position, one)?.is_empty();
                let stands = cursor.position > catalog.oldest_after() && cursor.position <= catalog.last();
                owed |= stands && cursor.leaves_out() && self.tells_a_loss(&plan.name, catalog.epoch);
            }
            // That nothing more can be read may be damage that was found just now.
            owed |= catalog.has_damage();
            if !owed && !self.tells_absent(&catalog) {
                self.shared.forget_archive(catalog.epoch);
                let gone = self.root.join(GONE);
                self.storage.rename(&dir, &gone).map_err(at("rename", &dir))?;
                self.storage
                    .sync_dir(&self.root)
                    .map_err(at("flush", &self.root))?;
                self.storage.remove_dir(&gone).map_err(at("remove", &gone))?;
                self.storage
                    .sync_dir(&self.root)
                    .map_err(at("flush", &self.root))?;
                self.measure_aside();
            }
        }
        Ok(())
    }
}
