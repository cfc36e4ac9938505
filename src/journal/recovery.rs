//! What a journal's directory holds after whatever happened: the newest good snapshot, the frames after it.
//!
//! A bad byte is *damage* if a good frame of a later write group stands behind it (group n+1 is written only
//! after group n is on the disk), or a `closed` frame does; else the tail is *torn*, and nobody was ever told
//! of what it held. No bytes found here make it panic. A sealed segment without replay is not read at all.
//!
//! Nothing is said durable in a segment before a snapshot names that segment, and segments say how long they
//! are and which is the oldest kept: so a file that vanished or was cut is missed. If it is the newest, nobody
//! knows which numbers it gave out, and the epoch ends ([`Image::unprovable`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    event::{Epoch, Event, Position, Sequence, SinkName},
    time::Moment,
};

use super::{
    Cursor, Error,
    frame::{self, Blob, Change, Header, Kind, Move, Note, Skipped, TORN_TAIL, Told},
    retention::segment_size,
    segment::{FRAMES, Segment, SegmentHeader, Step},
    snapshot::{Opened, Slots, Snapshot},
    storage::{File, Storage, read_around},
};

/// A file that holds nothing of worth, ready to become a segment.
#[derive(Debug)]
pub(super) struct Spare {
    pub name: String,
    pub file: Arc<dyn File>,
    pub size: usize,
}

/// The newest events are gone, and nobody knows how many: no event takes less than this.
const LEAST_EVENT: u64 = 128;
/// The place of damage in the snapshots, as a segment's number: one of them, or both.
const ONE_SLOT: u64 = 0;
const BOTH_SLOTS: u64 = u64::MAX;

/// A stretch of a file that does not verify, or a file that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Damage {
    /// Segment and offset, by which it is known again; none for what is moved aside and not met again.
    pub place: Option<(u64, u64)>,
    pub file: String,
    pub from: usize,
    pub to: usize,
    /// The sequences that stood there, as far as their neighbours tell.
    pub lost: Option<(u64, u64)>,
}

/// What is known of a journal's directory.
#[derive(Debug)]
pub(super) struct Image {
    pub dir: PathBuf,
    pub segments: Vec<Arc<Segment>>,
    pub spares: Vec<Spare>,
    pub slots: Slots,
    pub state: BTreeMap<Vec<u8>, Vec<u8>>,
    pub cursors: BTreeMap<SinkName, Cursor>,
    /// The last position of the epoch before.
    pub base: Position,
    pub last: Position,
    pub sequence: Sequence,
    pub group: u32,
    pub settled: Position,
    /// The last frame says that the journal was closed, or there is none.
    pub clean: bool,
    /// The sequences that torn tails took back and that are not told.
    pub torn: Vec<(u64, u64)>,
    /// Damage that is told, here and in older epochs.
    pub told: BTreeSet<Told>,
    /// The newest events are missing: which numbers they had cannot be proved.
    pub unprovable: bool,
    /// A sink without a cursor may have had one.
    pub cursors_lost: bool,
    pub damages: Vec<Damage>,
    pub findings: Vec<String>,
    /// A torn tail was cut: in which file, from which byte.
    pub tail: Option<(String, usize)>,
    /// When the snapshot was written, and the newest event that was replayed was stored.
    pub stored: Vec<Moment>,
    /// That event's payload.
    newest_event: Vec<u8>,
}

/// An error of the system as one that names the act and the thing.
pub(super) fn at<'a>(act: &'static str, path: &'a Path) -> impl Fn(io::Error) -> Error + 'a {
    move |source| Error::Io {
        act,
        path: path.to_owned(),
        source,
    }
}

/// Reads a directory, cuts a torn tail, and puts on the disk what is believed.
pub(super) fn recover(
    storage: &dyn Storage,
    dir: &Path,
    epoch: Epoch,
    after: Position,
) -> Result<Image, Error> {
    let opened = Slots::open(storage, dir, epoch).map_err(at("read the snapshots of", dir))?;
    let Opened {
        slots,
        newest: snapshot,
        bad,
        gone,
        stray,
    } = opened;
    slots.certify().map_err(at("rewrite the snapshot in", dir))?;
    let mut image = Image {
        dir: dir.to_owned(),
        segments: Vec::new(),
        spares: Vec::new(),
        slots,
        state: BTreeMap::new(),
        cursors: BTreeMap::new(),
        base: after,
        last: after,
        sequence: Sequence(0),
        group: 0,
        settled: Position(0),
        clean: true,
        torn: Vec::new(),
        told: BTreeSet::new(),
        unprovable: false,
        cursors_lost: false,
        damages: Vec::new(),
        findings: Vec::new(),
        tail: None,
        stored: Vec::new(),
        newest_event: Vec::new(),
    };
    let headers = image.find_segments(storage, epoch)?;
    image.link(headers)?;
    let whole = image
        .segments
        .first()
        .is_none_or(|first| first.header.number <= 1);
    let (known, no_snapshot) = (image.known(), snapshot.is_none());
    image.replay(snapshot.unwrap_or_default(), stray)?;
    let newest = Event::decode(&std::mem::take(&mut image.newest_event));
    image.stored.extend(newest.map(|newest| newest.recorded));
    image.miss_oldest();
    let missing = image.damages.iter().filter(|damage| damage.to == 0);
    let missing: Vec<String> = missing
        .map(|damage| format!("missing: {}", damage.file))
        .collect();
    image.findings.extend(missing);
    // Torn by a crash is no damage: the other one was whole before this one was begun.
    let never_made = image.segments.is_empty() || (whole && image.group <= 1);
    if no_snapshot && !never_made {
        image.cursors_lost = !whole;
        let lost = if whole {
            "nothing is"
        } else {
            "rule state older than the journal's events is"
        };
        image.say(format!("no snapshot could be read: {lost} lost"));
        image.miss("a.snap, b.snap".to_owned(), (BOTH_SLOTS, known), None);
    } else if gone || (bad && image.clean) {
        let generation = image.slots.generation();
        image.say("a snapshot slot is damaged: the other one was used".to_owned());
        if !never_made {
            image.miss("a.snap or b.snap".to_owned(), (ONE_SLOT, generation), None);
        }
    } else if bad {
        image.say("a snapshot slot did not verify: the other one was used".to_owned());
    }
    let nothing = image.segments.is_empty() && no_snapshot && (bad || gone);
    if nothing {
        let nothing = io::Error::new(io::ErrorKind::InvalidData, "nothing in it verifies");
        return Err(at("read", dir)(nothing));
    }
    image.cursors_lost |= !image.damages.is_empty();
    Ok(image)
}

/// A segment file and what its header says.
struct Found {
    name: String,
    file: Arc<dyn File>,
    size: usize,
    header: SegmentHeader,
}

impl Found {
    /// Whether the group that its header came with is all there.
    fn has_whole_group(&self) -> io::Result<bool> {
        let (name, file) = (self.name.clone(), Arc::clone(&self.file));
        let segment = Segment::new(name, file, self.size, self.header, FRAMES);
        let mut walk = segment.walk(FRAMES, segment.limit());
        while let Step::Frame(_, header) = walk.next()? {
            if header.ends_group {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Image {
    /// All segment files; those that hold nothing of worth become spares.
    fn find_segments(&mut self, storage: &dyn Storage, epoch: Epoch) -> Result<Vec<Found>, Error> {
        let mut found: Vec<Found> = Vec::new();
        for name in storage.list(&self.dir).map_err(at("list", &self.dir))? {
            if Path::new(&name)
                .extension()
                .is_none_or(|extension| extension != "seg")
            {
                continue;
            }
            let path = self.dir.join(&name);
            let file = storage.open(&path).map_err(at("open", &path))?;
            let size = usize::try_from(file.size().map_err(at("measure", &path))?).unwrap_or(0);
            let header = SegmentHeader::read(&*file, size).map_err(at("read", &path))?;
            match header {
                Some(header)
                    if header.epoch == epoch.0
                        && found.iter().all(|other| other.header.number != header.number) =>
                {
                    found.push(Found {
                        name,
                        file,
                        size,
                        header,
                    });
                }
                _ => self.spares.push(Spare { name, file, size }),
            }
        }
        found.sort_by_key(|found| found.header.number);
        self.untear(&mut found)?;
        let oldest = found.last().map_or(0, |newest| newest.header.oldest);
        self.settled = found.last().map_or(Position(0), |newest| newest.header.settled);
        let kept = found.partition_point(|found| found.header.number < oldest);
        for Found { name, file, size, .. } in found.drain(..kept) {
            self.spares.push(Spare { name, file, size });
        }
        Ok(found)
    }

    /// A header may be on the disk without the note that stood in the same write: then nothing was given up, and
    /// the newest segment keeps what the one before it kept. That is on the disk before anything else is done.
    fn untear(&self, found: &mut [Found]) -> Result<(), Error> {
        let [.., before, newest] = found else {
            return Ok(());
        };
        let path = self.dir.join(&newest.name);
        if newest.header.number <= self.slots.newest_from()
            || newest.has_whole_group().map_err(at("read", &path))?
        {
            return Ok(());
        }
        newest.header = SegmentHeader {
            oldest: before.header.oldest,
            oldest_after: before.header.oldest_after,
            settled: before.header.settled,
            ..newest.header
        };
        newest
            .header
            .write(&*newest.file, newest.size)
            .and_then(|()| newest.file.sync_data())
            .map_err(at("write", &path))
    }

    /// Tells from each segment's header where the one before it ends; a missing one is damage.
    fn link(&mut self, found: Vec<Found>) -> Result<(), Error> {
        let mut found = found.into_iter().peekable();
        while let Some(Found {
            name,
            file,
            size,
            header,
        }) = found.next()
        {
            let segment = Segment::new(name, file, size, header, FRAMES);
            match found.peek().map(|next| next.header) {
                Some(next) if next.number == header.number + 1 => {
                    if size < next.previous_end {
                        let newest = self.walk_to_the_end(&segment)?;
                        let from = segment.filled().0;
                        self.damaged(
                            &segment,
                            from,
                            next.previous_end,
                            newest.sequence,
                            next.after_sequence,
                        );
                    }
                    segment.extend(next.previous_end, next.after, next.after_sequence);
                }
                Some(next) => {
                    let newest = self.walk_to_the_end(&segment)?;
                    let gone = (newest.sequence.0 + 1, next.after_sequence.0);
                    let (from, to) = (header.number + 1, next.number - 1);
                    let lost = (gone.0 <= gone.1).then_some(gone);
                    self.miss(format!("segments {from} to {to}"), (from, 0), lost);
                }
                None => {}
            }
            self.segments.push(Arc::new(segment));
        }
        Ok(())
    }

    fn say(&mut self, finding: String) {
        self.findings.push(finding);
    }

    /// A file is missing.
    fn miss(&mut self, file: String, place: (u64, u64), lost: Option<(u64, u64)>) {
        self.damages.push(Damage {
            place: Some(place),
            file,
            from: 0,
            to: 0,
            lost,
        });
    }

    /// The newest segment that is known of.
    fn known(&self) -> u64 {
        let newest = self.segments.last().map_or(0, |segment| segment.header.number);
        newest.max(self.slots.newest_from())
    }

    /// The oldest segments that the newest one says are kept, and that are missing; and those that are still
    /// there though it was told that they go: the power went in between.
    fn miss_oldest(&mut self) {
        let Some(newest) = self.segments.last().map(|newest| newest.header) else {
            return;
        };
        let settled = self.settled;
        let followers = self.segments.iter().skip(1);
        let kept = followers
            .take_while(|next| settled > Position(0) && next.header.after <= settled)
            .count();
        for gone in self.segments.drain(..kept) {
            self.spares.push(Spare {
                name: gone.name.clone(),
                file: Arc::clone(&gone.file),
                size: gone.size,
            });
        }
        let Some(first) = self.segments.first().map(|first| first.header) else {
            return;
        };
        self.damages.retain(|damage| {
            damage
                .place
                .is_none_or(|(segment, _)| kept == 0 || segment >= first.number)
        });
        if first.number <= newest.oldest || first.after <= settled {
            return;
        }
        let lost = (newest.oldest_after.0 + 1, first.after_sequence.0);
        let (from, to) = (newest.oldest, first.number - 1);
        let lost = (lost.0 <= lost.1).then_some(lost);
        self.miss(format!("segments {from} to {to}"), (to, 0), lost);
    }

    /// A segment whose successor is missing, so that nobody says where its frames end: behind the last good one.
    fn walk_to_the_end(&self, segment: &Segment) -> Result<Header, Error> {
        let path = self.dir.join(&segment.name);
        let mut walk = segment.walk(FRAMES, segment.limit());
        let mut last = before(&segment.header);
        loop {
            match walk.next().map_err(at("read", &path))? {
                Step::Frame(_, header) => last = header,
                // What is bad between is found, and told, by whoever reads it.
                Step::Bad(bad) => {
                    let survivors = walk.survivors(bad, &last).map_err(at("read", &path))?;
                    let Some((next, _)) = survivors.good.first() else {
                        break;
                    };
                    walk.go_to(*next);
                }
                Step::End => break,
            }
        }
        segment.extend(walk.offset(), last.position, last.sequence);
        Ok(last)
    }

    /// Applies the snapshot and every frame after it.
    fn replay(&mut self, snapshot: Snapshot, stray: u64) -> Result<(), Error> {
        let Snapshot {
            epoch: _,
            segment,
            offset,
            position,
            sequence,
            group,
            settled,
            cursors,
            state,
            told,
            skipped,
            written,
        } = snapshot;
        self.stored.extend(written);
        self.told = told.into_iter().collect();
        self.torn = skipped.into_iter().map(|Skipped(from, to)| (from, to)).collect();
        self.state = state
            .into_iter()
            .map(|(Blob(key), Blob(value))| (key, value))
            .collect();
        for moved in cursors {
            self.move_cursor(moved);
        }
        (self.sequence, self.group) = (sequence, group);
        self.settled = self.settled.max(settled);
        self.last = self.last.max(position);
        let point = Header {
            kind: Kind::CLOSED,
            ends_commit: true,
            ends_group: true,
            length: 0,
            group,
            position,
            sequence,
        };
        let segments = self.segments.clone();
        let mut newest = point;
        for (index, current) in segments.iter().enumerate() {
            if current.header.number < segment {
                continue;
            }
            let offset = usize::try_from(offset).unwrap_or(FRAMES).max(FRAMES);
            let (start, last) = if current.header.number == segment {
                (offset, point)
            } else {
                (FRAMES, before(&current.header))
            };
            newest = if index + 1 == segments.len() {
                self.replay_last(current, start, last)?
            } else {
                self.replay_sealed(current, start, last)?
            };
        }
        self.settle(&segments, newest, (segment.max(stray), sequence))
    }

    /// Numbers go on above everything that anybody may claim.
    fn settle(
        &mut self,
        segments: &[Arc<Segment>],
        newest: Header,
        (segment, snapshot): (u64, Sequence),
    ) -> Result<(), Error> {
        let last = segments.last();
        let is_gone = last.map_or(0, |last| last.header.number) < segment;
        if is_gone && let Some(last) = last {
            // It was not replayed.
            self.walk_to_the_end(last)?;
        }
        let kept = last.map_or(Sequence(0), |last| last.filled().2);
        if is_gone {
            let largest = segments.iter().map(|segment| segment.size);
            let largest = largest.chain(self.spares.iter().map(|spare| spare.size)).max();
            // Where no file tells, the largest that is made.
            let room = largest.unwrap_or_else(|| segment_size(u64::MAX));
            self.end_unprovable(segment, 0, kept, snapshot, room);
        }
        self.sequence = self.sequence.max(newest.sequence).max(kept);
        self.last = self.last.max(newest.position);
        // One that still stands in an older epoch says nothing of this one's numbers.
        let base = self.base;
        for cursor in self.cursors.values().filter(|cursor| cursor.position > base) {
            self.sequence = self.sequence.max(cursor.sequence);
            self.last = self.last.max(cursor.position);
        }
        for (_, to) in &self.torn {
            self.sequence = self.sequence.max(Sequence(*to));
        }
        self.group = if frame::later(newest.group, self.group) {
            newest.group
        } else {
            self.group
        };
        Ok(())
    }

    /// The newest events are gone, and with them the proof of which numbers they had: `room` bytes held them.
    fn end_unprovable(&mut self, segment: u64, from: usize, kept: Sequence, claimed: Sequence, room: usize) {
        let most = kept.max(claimed).0 + room as u64 / LEAST_EVENT;
        self.say(format!(
            "the newest events are missing: those after {}, at most up to {most}, are lost",
            kept.0
        ));
        self.unprovable = true;
        self.clean = false;
        self.damages.push(Damage {
            place: Some((segment, from as u64)),
            file: format!("segment {segment}"),
            from,
            to: from,
            lost: Some((kept.0 + 1, most)),
        });
    }

    /// A segment that another one follows: what is bad in it is damaged.
    fn replay_sealed(&mut self, segment: &Segment, start: usize, mut last: Header) -> Result<Header, Error> {
        let path = self.dir.join(&segment.name);
        let (end, position, sequence) = segment.filled();
        let mut walk = segment.walk(start, end);
        loop {
            match walk.next().map_err(at("read", &path))? {
                Step::Frame(_, header) => {
                    self.apply(header, walk.payload(&header));
                    last = header;
                }
                Step::Bad(bad) => {
                    let survivors = walk.survivors(bad, &last).map_err(at("read", &path))?;
                    let next = survivors.good.first();
                    let (to, lost_to) =
                        next.map_or((end, sequence), |(at, header)| (*at, lost_before(header)));
                    self.damaged(segment, bad, to, last.sequence, lost_to);
                    walk.go_to(to);
                }
                Step::End => break,
            }
        }
        Ok(Header {
            position,
            sequence,
            ..last
        })
    }

    /// The segment that was being written: its tail may be torn.
    fn replay_last(&mut self, segment: &Segment, start: usize, mut last: Header) -> Result<Header, Error> {
        let path = self.dir.join(&segment.name);
        let end = segment.limit();
        let mut walk = segment.walk(start, end);
        // What stands behind the last whole commit waits here until its commit is whole, too.
        let mut waiting: Vec<(Header, Vec<u8>)> = Vec::new();
        let mut cut = start;
        let mut newest = last;
        let mut rest = None;
        // Frames went on where the file now ends.
        let mut cut_off = segment.is_cut();
        loop {
            match walk.next().map_err(at("read", &path))? {
                Step::Frame(_, header) => {
                    waiting.push((header, walk.payload(&header).to_vec()));
                    last = header;
                    if header.ends_commit {
                        self.apply_all(&mut waiting);
                        cut = walk.offset();
                        newest = header;
                    }
                }
                Step::Bad(bad) => {
                    let survivors = walk.survivors(bad, &last).map_err(at("read", &path))?;
                    let torn_group = if last.ends_group {
                        last.group.wrapping_add(1)
                    } else {
                        last.group
                    };
                    let proof = |header: &Header| {
                        header.kind == Kind::CLOSED || frame::later(header.group, torn_group)
                    };
                    match survivors.good.first() {
                        Some((to, next)) if survivors.good.iter().any(|(_, header)| proof(header)) => {
                            self.damaged(segment, bad, *to, last.sequence, lost_before(next));
                            self.apply_all(&mut waiting);
                            walk.go_to(*to);
                        }
                        _ => {
                            cut_off &= walk.reaches_the_end(bad).map_err(at("read", &path))?;
                            rest = Some(survivors);
                            break;
                        }
                    }
                }
                Step::End => break,
            }
        }
        let mut claimed = waiting
            .iter()
            .map(|(header, _)| header.sequence)
            .max()
            .unwrap_or_default();
        let mut tail = !waiting.is_empty();
        let unreadable = rest.as_ref().is_some_and(|rest| rest.unreadable);
        if let Some(rest) = rest {
            claimed = claimed.max(rest.claimed);
            claimed = rest
                .good
                .iter()
                .map(|(_, header)| header.sequence)
                .fold(claimed, Sequence::max);
            tail |= rest.begun || !rest.good.is_empty();
        }
        if segment.is_cut() {
            let to = segment.header.size;
            if cut_off {
                let number = segment.header.number;
                self.end_unprovable(number, cut, newest.sequence, claimed, to - cut);
            } else {
                self.damaged(segment, segment.size, to, newest.sequence, newest.sequence);
            }
        }
        if unreadable && !self.unprovable {
            // Whole groups may have stood there.
            let number = segment.header.number;
            self.end_unprovable(number, cut, newest.sequence, claimed, end - cut);
        }
        let mut skipped = None;
        if tail && !self.unprovable {
            self.tail = Some((segment.name.clone(), cut));
            self.findings.push(format!(
                "the tail of {} was torn at byte {cut}: cut there",
                segment.name
            ));
            if claimed > newest.sequence {
                self.torn.push((newest.sequence.0 + 1, claimed.0));
                skipped = Some(Skipped(newest.sequence.0 + 1, claimed.0));
            }
        }
        self.clean = !tail && !segment.is_cut() && newest.kind == Kind::CLOSED;
        let (cut, newest) = rewrite(segment, start, cut, tail && !self.unprovable, newest, skipped)
            .map_err(at("rewrite the tail of", &path))?;
        segment.extend(cut, newest.position, newest.sequence);
        Ok(newest)
    }

    fn damaged(&mut self, segment: &Segment, from: usize, to: usize, last: Sequence, lost_to: Sequence) {
        let place = Some((segment.header.number, from as u64));
        if self.damages.iter().any(|damage| damage.place == place) {
            return;
        }
        let gone = (last < lost_to).then_some((last.0 + 1, lost_to.0));
        self.findings
            .push(format!("{} is damaged from byte {from} to {to}", segment.name));
        self.damages.push(Damage {
            place,
            file: segment.name.clone(),
            from,
            to,
            lost: gone,
        });
    }

    fn apply_all(&mut self, frames: &mut Vec<(Header, Vec<u8>)>) {
        for (header, payload) in frames.drain(..) {
            self.apply(header, &payload);
        }
    }

    fn apply(&mut self, header: Header, payload: &[u8]) {
        if header.kind == Kind::EVENT {
            self.newest_event.clear();
            self.newest_event.extend_from_slice(payload);
        } else if header.kind == Kind::STATE
            && let Some(Change(Blob(key), value)) = frame::decode(payload)
        {
            match value {
                Some(Blob(value)) => self.state.insert(key, value),
                None => self.state.remove(&key),
            };
        } else if header.kind == Kind::CURSOR
            && let Some(moved) = frame::decode(payload)
        {
            self.move_cursor(moved);
        } else if header.kind == Kind::REPLAY
            && let Some(moved) = frame::decode::<Move>(payload)
        {
            let (sink, cursor) = moved.parts();
            self.cursors.insert(sink, cursor);
        } else if header.kind == Kind::FORGOTTEN
            && let Some(Move(sink, ..)) = frame::decode(payload)
        {
            self.cursors.remove(&sink);
        } else if header.kind == Kind::DISCARD
            && let Some(note) = frame::decode::<Note>(payload)
        {
            self.settled = self.settled.max(note.through);
            if note.reason == TORN_TAIL {
                // All that were skipped before it are in it.
                self.torn.clear();
            }
        } else if header.kind == Kind::TOLD
            && let Some(told) = frame::decode::<Told>(payload)
        {
            self.told.insert(told);
        } else if header.kind == Kind::SKIPPED
            && let Some(Skipped(from, to)) = frame::decode(payload)
        {
            self.torn.push((from, to));
        }
    }

    fn move_cursor(&mut self, moved: Move) {
        let (sink, to) = moved.parts();
        let cursor = self.cursors.entry(sink).or_default();
        *cursor = (*cursor).max(to);
    }
}

/// The highest sequence that is gone if this is the first good frame behind bad ones.
pub(super) fn lost_before(next: &Header) -> Sequence {
    if next.kind == Kind::EVENT {
        Sequence(next.sequence.0.saturating_sub(1))
    } else {
        next.sequence
    }
}

/// What stood before a segment's first frame.
pub(super) fn before(header: &SegmentHeader) -> Header {
    Header {
        kind: Kind(0),
        ends_commit: true,
        ends_group: true,
        length: 0,
        group: header.group,
        position: header.after,
        sequence: header.after_sequence,
    }
}

/// Puts on the disk what was read, since it may have come from the page cache only; and takes care that
/// nothing behind the cut can ever line up with new frames. The numbers that the tail took back are noted where
/// it was cut: the next start knows them even if this one gets no further. Answers where frames end now.
fn rewrite(
    segment: &Segment,
    start: usize,
    cut: usize,
    tail: bool,
    newest: Header,
    skipped: Option<Skipped>,
) -> io::Result<(usize, Header)> {
    let mut used = vec![0; cut - start];
    let (count, _) = read_around(&*segment.file, &mut used, start as u64)?;
    if count < used.len() {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    let salt = segment.header.salt;
    if !newest.ends_group {
        // The rest of its group was cut away.
        let from = used.len().saturating_sub(newest.whole());
        frame::end_group(used.get_mut(from..).unwrap_or_default(), salt);
    }
    let mut newest = Header {
        ends_group: true,
        ..newest
    };
    let mut end = cut;
    if let Some(skipped) = skipped {
        let payload = frame::encode(&skipped);
        let header = Header {
            kind: Kind::SKIPPED,
            ends_commit: true,
            ends_group: true,
            length: payload.len(),
            group: newest.group.wrapping_add(1),
            position: newest.position,
            sequence: Sequence(skipped.1),
        };
        if cut + header.whole() <= segment.limit() {
            frame::push(&mut used, salt, &header, &payload);
            end = cut + header.whole();
            newest = header;
        }
    }
    if tail {
        let zeros = segment.limit().saturating_sub(end);
        used.resize(used.len() + zeros, 0);
    }
    segment.file.write_all_at(&used, start as u64)?;
    segment.header.write(&*segment.file, segment.size)?;
    segment.file.sync_data()?;
    Ok((end, newest))
}
