//! Space: where the next segment comes from, and what goes for it.
//!
//! One spare segment is always kept. A roll takes it; what will be lost is written first in it, and only when
//! that is on the disk the oldest segments are given up, one of them as the new spare. So nothing is ever
//! lost untold, whenever the power goes.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use crate::{
    event::{Epoch, Position, SinkName},
    time::{ClockQuality, Timestamp},
};

use super::{
    Cursor, Error, Limit, WhenFull,
    frame::{self, Kind, Note},
    recovery::{Spare, at},
    segment::{FRAMES, Segment, SegmentHeader, TRAILER},
    writer::{Batch, Commit, RESERVE, Tells, Writer, bytes_of},
};

/// The smallest and the largest segment that is made, an oversized commit aside. No configuration leads to less than
/// 256 KiB: smaller ones are for a simulation that shall roll them.
const SEGMENT: (u64, u64) = (16 * 1024, 4 * 1024 * 1024);
/// What an epoch may use at least, whatever lies beside it; if all of `max-bytes` is less, that.
const LEAST: u64 = 8 * 1024 * 1024;
/// For the identity and the lock file.
const SMALL_FILES: u64 = 8192;
/// Zeros are written in pieces of this size.
const ZEROS: usize = 256 * 1024;
/// What a note takes that tells nobody anything.
const SETTLED: usize = 256;
/// What a note and its event take, ranges around letters and what every event has aside.
const NOTE: usize = 1024;
/// What a range takes in both.
const RANGE: usize = 40;

/// How large segments are made under this bound.
/// What undelivered events can use of a journal of this size whose snapshots occupy so many bytes: what the spare
/// segment and the end of the newest leave.
#[must_use]
pub fn room_for_events(max_bytes: u64, snapshots: u64) -> u64 {
    max_bytes.saturating_sub(snapshots + SMALL_FILES + 2 * segment_size(max_bytes) as u64)
}

pub(super) fn segment_size(max_bytes: u64) -> usize {
    usize::try_from((max_bytes / 32).clamp(SEGMENT.0, SEGMENT.1) / 4096 * 4096).unwrap_or(FRAMES)
}

/// Why a segment shall go.
#[derive(Clone, Copy, Debug)]
enum Why {
    /// Its room is wanted, if all of it is delivered.
    Room,
    /// The journal is full: `when-full` says what may go.
    Full,
    /// It is older than `max-age`: delivered or not.
    Expired,
}

/// What goes to make room.
#[derive(Debug, Default)]
struct Plan {
    give_up: Vec<Arc<Segment>>,
    losses: Losses,
}

/// What each sink loses, and of which epoch.
type Losses = BTreeMap<(SinkName, u64), Note>;

/// Who loses the same is told in one.
fn grouped(losses: &Losses) -> Vec<(Epoch, Note)> {
    let mut notes: Vec<(Epoch, Note)> = Vec::new();
    for ((sink, epoch), note) in losses {
        let same = |(of, it): &&mut (Epoch, Note)| {
            of.0 == *epoch && it.ranges == note.ranges && it.reason == note.reason
        };
        match notes.iter_mut().find(same) {
            Some((_, it)) => {
                it.sinks.push(sink.clone());
                it.through = it.through.max(note.through);
            }
            None => notes.push((Epoch(*epoch), note.clone())),
        }
    }
    notes
}

impl Writer {
    /// Everything in the directory.
    pub fn total(&self) -> u64 {
        let kept: u64 = self
            .catalog
            .segments()
            .iter()
            .map(|segment| segment.size as u64)
            .sum();
        let spare: u64 = self.spares.iter().map(|spare| spare.size as u64).sum();
        kept + spare + self.slots.bytes() + SMALL_FILES + self.aside
    }

    /// What events can use of it: not what the state's two slots, the spare and what lies aside take, nor the end of
    /// the newest segment.
    pub fn room(&self) -> u64 {
        let spare: u64 = self.spares.iter().map(|spare| spare.size as u64).sum();
        let segment = self.segment_size as u64;
        let others = self.slots.bytes() + SMALL_FILES + self.aside;
        self.bound().saturating_sub(others + spare.max(segment) + segment)
    }

    fn bound(&self) -> u64 {
        let most = self.settings.max_bytes;
        most.max(LEAST.min(most) + self.aside)
    }

    /// A group at the beginning of a new segment, with room for so many bytes; none if there is no room.
    pub fn roll(&mut self, bytes: usize) -> Result<Option<Batch>, Error> {
        let whole = FRAMES + bytes + self.notes() + RESERVE + TRAILER;
        if whole > self.segment_size && !self.make_oversized(whole.next_multiple_of(4096))? {
            return Ok(None);
        }
        let mut losses = Vec::new();
        if self.spares.is_empty() {
            // Only after somebody lowered max-bytes or took the spare away.
            let Some(plan) = self.plan(self.segment_size, true)? else {
                return Ok(None);
            };
            if plan.losses.is_empty() && !self.settle_here(&plan.give_up)? {
                return Ok(None);
            }
            losses.push(plan.losses);
            self.give_up(plan.give_up)?;
            if self.spares.is_empty() && !self.make_spare(self.segment_size)? {
                return Ok(None);
            }
        }
        // No spare is smaller than a usual segment: opening drops those.
        let fits = |spare: &Spare| whole <= self.segment_size || spare.size >= whole;
        let Some(index) = self.spares.iter().position(fits) else {
            return Ok(None);
        };
        let mut plan = Plan::default();
        if self.spares.len() < 2 {
            let room = self.total() + self.segment_size as u64 <= self.bound();
            if !(room && self.make_spare(self.segment_size)?) {
                // A full disk never drops what is undelivered: it parks.
                match self.plan(self.segment_size, !room)? {
                    Some(found) if !found.give_up.is_empty() => plan = found,
                    _ => return Ok(None),
                }
            }
        }
        losses.push(plan.losses);
        let spare = self.spares.remove(index);
        Ok(Some(self.begin(spare, plan.give_up, &losses)))
    }

    /// The group that begins a segment, with its notes.
    fn begin(&self, spare: Spare, give_up: Vec<Arc<Segment>>, losses: &[Losses]) -> Batch {
        let active = self.active.as_ref();
        let number = self.catalog.newest().max(self.newest_number) + 1;
        let kept = self.catalog.segments();
        let oldest = kept
            .get(give_up.len())
            .map_or(number, |segment| segment.header.number);
        let settled = give_up
            .iter()
            .map(|segment| segment.filled().1)
            .fold(self.settled, Position::max);
        let header = SegmentHeader {
            number,
            salt: fastrand::u64(..),
            after: self.last,
            after_sequence: self.sequence,
            oldest,
            settled,
            begun: self.shared.clock.moment().wall,
            previous_end: active.map_or(0, |active| active.end),
            group: self.group,
            size: spare.size,
            oldest_after: kept
                .get(give_up.len())
                .map_or(self.sequence, |segment| segment.header.after_sequence),
            epoch: self.catalog.epoch.0,
        };
        let mut batch = self.batch_in(spare, header, give_up);
        for (epoch, note) in losses.iter().flat_map(grouped) {
            batch.push_note(note.through, self.tell(epoch, &note));
        }
        batch
    }

    /// What the notes that begin a segment take, and their events: each letter may split a range.
    fn notes(&self) -> usize {
        let plans = self.shared.plans();
        let sinks = plans.iter().map(|plan| plan.name.clone()).collect();
        let event = self.discarded(&Note::of(sinks, "journal-full"), self.catalog.epoch);
        let each = frame::encode(&event).len() + NOTE;
        NOTE.max(each * plans.len() + RANGE * self.shared.dead.count())
    }

    /// Which of the oldest segments go, so that `bytes` more fit; none if none may.
    fn plan(&mut self, bytes: usize, may_drop: bool) -> Result<Option<Plan>, Error> {
        let mut plan = Plan::default();
        let over = if may_drop {
            (self.total() + bytes as u64).saturating_sub(self.bound())
        } else {
            bytes as u64
        };
        let segments = self.catalog.segments();
        let active = self.active.as_ref().map(|active| active.segment.header.number);
        let mut freed = 0;
        for segment in segments {
            if freed >= over {
                break;
            }
            if Some(segment.header.number) == active || !self.unpin(segment.header.number)? {
                return Ok(None);
            }
            let why = if may_drop { Why::Full } else { Why::Room };
            if !self.may_go(&segment, why, &mut plan.losses)? {
                return Ok(None);
            }
            freed += segment.size as u64;
            plan.give_up.push(segment);
        }
        self.keep_letters(&mut plan.losses);
        Ok((freed >= over).then_some(plan))
    }

    /// What is set aside for a sink can still be sent again to it.
    fn keep_letters(&self, losses: &mut Losses) {
        losses.retain(|(sink, epoch), note| {
            let ranges = note.ranges.iter();
            note.ranges = ranges
                .flat_map(|range| self.shared.dead.without(sink, Epoch(*epoch), *range))
                .collect();
            !note.ranges.is_empty()
        });
    }

    /// Whether a segment may go; what each sink loses with it is added to its losses.
    fn may_go(&self, segment: &Segment, why: Why, losses: &mut Losses) -> Result<bool, Error> {
        let path = self.dir.join(&segment.name);
        let current = self.catalog.epoch;
        for plan in self.shared.plans().iter() {
            let cursor = self.taken.get(&plan.name).copied().unwrap_or_default();
            let contents = self
                .catalog
                .contents(segment, cursor.position, &plan.name)
                .map_err(at("read", &path))?;
            let Some(events) = contents.events else { continue };
            let refuses = self.settings.when_full == WhenFull::Refuse && plan.required;
            let reason = match why {
                Why::Expired => "max-age",
                Why::Full if !refuses => "journal-full",
                Why::Full | Why::Room => return Ok(false),
            };
            let through = segment.filled().1;
            let note = || Note::of(vec![plan.name.clone()], reason);
            // What was named to it in what goes now is named again.
            for (epoch, range) in contents.told {
                let of_it = losses.entry((plan.name.clone(), epoch.0));
                of_it.or_insert_with(note).add([range]);
            }
            let lost = losses.entry((plan.name.clone(), current.0)).or_insert_with(note);
            lost.through = lost.through.max(through);
            // All that is not behind it, up to here, goes now or has gone before: one range, however long it goes on.
            let behind = self.passed_of(current, cursor);
            let ahead = lost.ranges.iter().filter(|(_, to)| *to > behind);
            let from = ahead.map(|(from, _)| (*from).max(behind + 1)).min();
            let from = from.map_or(events.0, |from| from.min(events.0));
            lost.add([(from, events.1)]);
        }
        Ok(true)
    }

    /// Whether a segment's frames are all in both snapshots; takes snapshots to make it so.
    fn unpin(&mut self, number: u64) -> Result<bool, Error> {
        for _ in 0..2 {
            if number >= self.slots.needed_from() {
                self.snapshot()?;
            }
        }
        Ok(number < self.slots.needed_from())
    }

    /// Lets go of segments: one becomes the spare if none is there, the others' files go.
    pub fn give_up(&mut self, segments: Vec<Arc<Segment>>) -> Result<(), Error> {
        let mut removed = false;
        for segment in segments {
            self.catalog.remove(segment.header.number);
            if self.spares.is_empty() && segment.size == self.segment_size {
                let (name, file) = (segment.name.clone(), Arc::clone(&segment.file));
                self.spares.push(Spare {
                    name,
                    file,
                    size: segment.size,
                });
                continue;
            }
            let path = self.dir.join(&segment.name);
            self.storage.remove_file(&path).map_err(at("remove", &path))?;
            removed = true;
        }
        if removed {
            self.storage.sync_dir(&self.dir).map_err(at("flush", &self.dir))?;
        }
        if self.spares.is_empty() && self.total() + self.segment_size as u64 <= self.bound() {
            self.make_spare(self.segment_size)?;
        }
        Ok(())
    }

    /// Makes a file full of zeros, durably. `Ok(false)`: the disk is full.
    pub fn make_spare(&mut self, size: usize) -> Result<bool, Error> {
        let used = self.storage.list(&self.dir).map_err(at("list", &self.dir))?;
        let names = (1_u32..).map(|number| format!("{number:04}.seg"));
        let Some(name) = names.into_iter().find(|name| !used.contains(name)) else {
            return Ok(false);
        };
        let path = self.dir.join(&name);
        match self.zeros(&name, size) {
            Ok(spare) => {
                self.storage.sync_dir(&self.dir).map_err(at("flush", &self.dir))?;
                self.spares.push(spare);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                if self
                    .storage
                    .list(&self.dir)
                    .map_err(at("list", &self.dir))?
                    .contains(&name)
                {
                    self.storage.remove_file(&path).map_err(at("remove", &path))?;
                }
                Ok(false)
            }
            Err(error) => Err(at("make", &path)(error)),
        }
    }

    fn zeros(&self, name: &str, size: usize) -> io::Result<Spare> {
        let file = self.storage.open(&self.dir.join(name))?;
        let zeros = vec![0; ZEROS.min(size)];
        let mut at = 0;
        while at < size {
            let piece = zeros.get(..ZEROS.min(size - at)).unwrap_or(&zeros);
            file.write_all_at(piece, at as u64)?;
            at += piece.len();
        }
        file.sync_data()?;
        Ok(Spare {
            name: name.to_owned(),
            file,
            size,
        })
    }

    /// A commit that no segment holds gets one of its own.
    fn make_oversized(&mut self, size: usize) -> Result<bool, Error> {
        if self.spares.iter().any(|spare| spare.size >= size) {
            return Ok(true);
        }
        if size as u64 > self.bound() / 2 || size > frame::MAX_PAYLOAD {
            return Err(Error::Stopped(format!(
                "a commit of {size} bytes does not fit: raise `[journal] max-bytes`"
            )));
        }
        // One of those that go stays, as the spare.
        let Some(plan) = self.plan(size + self.segment_size, true)? else {
            return Ok(false);
        };
        if !plan.losses.is_empty() {
            // What goes is told first, in a segment of the usual size.
            let Some(spare) = self.spares.pop() else {
                return Ok(false);
            };
            let batch = self.begin(spare, plan.give_up, &[plan.losses]);
            if !self.flush(batch)? {
                return Ok(false);
            }
        } else if self.settle_here(&plan.give_up)? {
            self.give_up(plan.give_up)?;
        } else {
            return Ok(false);
        }
        self.make_spare(size)
    }

    /// Says on the disk, in what commits leave free, that all that goes was delivered: else it would be missed
    /// after a crash. `Ok(false)`: the disk is full.
    fn settle_here(&mut self, give_up: &[Arc<Segment>]) -> Result<bool, Error> {
        let Some(through) = give_up.last().map(|segment| segment.filled().1) else {
            return Ok(true);
        };
        // The cursors by which it is delivered come with it.
        let moved = self.moved();
        let room = SETTLED + bytes_of(&moved);
        let Some(mut batch) = self.batch_here(0).filter(|batch| batch.takes(room)) else {
            return Ok(true);
        };
        for moved in moved {
            batch.push_cursor(moved);
        }
        batch.push_settled(through, "room");
        self.flush(batch)
    }

    /// Spares of another size than is made now are of no use.
    pub fn drop_spares(&mut self) -> Result<(), Error> {
        let size = self.segment_size;
        let (kept, dropped): (Vec<Spare>, Vec<Spare>) =
            self.spares.drain(..).partition(|spare| spare.size == size);
        self.spares = kept;
        for spare in dropped {
            let path = self.dir.join(&spare.name);
            self.storage.remove_file(&path).map_err(at("remove", &path))?;
        }
        Ok(())
    }

    /// Segments whose newest event is older than `max-age` go, delivered or not. What is lost is told, and that
    /// it is told is on the disk first. One that is being filled for so long is sealed: its events live twice
    /// as long at most.
    pub fn expire(&mut self, max_age: Duration) -> Result<(), Error> {
        let now = self.shared.clock.moment();
        let age = i64::try_from(max_age.as_micros()).unwrap_or(i64::MAX);
        let limit = Timestamp(now.wall.0.saturating_sub(age));
        self.take_cursors();
        let segments = self.catalog.segments();
        let mut old = Vec::new();
        let mut losses = Losses::new();
        let mut before = Position(0);
        for (segment, next) in segments.iter().zip(segments.iter().skip(1)) {
            let behind = std::mem::replace(&mut before, segment.filled().1);
            if next.header.begun > limit
                || !self.is_older(behind, segment, limit, now.quality)?
                || !self.unpin(segment.header.number)?
            {
                break;
            }
            self.may_go(segment, Why::Expired, &mut losses)?;
            old.push(Arc::clone(segment));
        }
        if let Some(active) = &mut self.active
            && active.segment.header.begun <= limit
        {
            active.sealed = true;
        }
        let Some(through) = old.last().map(|segment| segment.filled().1) else {
            return Ok(());
        };
        self.keep_letters(&mut losses);
        let settled = Note {
            through,
            ..Note::of(Vec::new(), "max-age")
        };
        let mut frames = vec![(Kind::DISCARD, frame::encode(&settled))];
        let told = grouped(&losses).into_iter();
        frames.extend(told.flat_map(|(epoch, note)| self.tell(epoch, &note)));
        let commit = Commit {
            ticket: Position(0),
            frames,
            state: Vec::new(),
            tells: Tells::Nothing,
        };
        let moved = self.moved();
        let bytes = commit.bytes() + bytes_of(&moved);
        // Where there is no room for commits, the reserve takes it: it makes room. It stands before what waits.
        let batch = self.room_for(bytes)?;
        let Some(mut batch) = batch.or_else(|| self.batch_here(0).filter(|batch| batch.takes(bytes))) else {
            return Ok(());
        };
        for moved in moved {
            batch.push_cursor(moved);
        }
        batch.push_commit(&commit);
        self.pending.push_front(commit);
        if !self.flush(batch)? {
            self.pending.pop_front();
            return Ok(());
        }
        self.settled = self.settled.max(through);
        let kept = self.catalog.segments();
        let still_kept = |old: &Arc<Segment>| kept.iter().any(|it| Arc::ptr_eq(it, old));
        self.give_up(old.into_iter().filter(still_kept).collect())
    }

    /// Whether what stands behind a segment was stored before `limit`, as far as anybody knows by now. What was
    /// stored while nobody knew the time looks too old as soon as somebody does: it stays until its room is needed.
    /// `before` is where the segment before it ends.
    fn is_older(
        &self,
        before: Position,
        segment: &Segment,
        limit: Timestamp,
        now: ClockQuality,
    ) -> Result<bool, Error> {
        let one = Limit { entries: 1, bytes: 1 };
        let mut next = self.catalog.read(&self.dir, segment.filled().1, one)?;
        if next.is_empty() {
            // Only state came since: the segment's own newest event tells.
            let all = Limit {
                entries: usize::MAX,
                bytes: usize::MAX,
            };
            next = self.catalog.read(&self.dir, before, all)?;
        }
        let Some(next) = next.last() else {
            return Ok(true);
        };
        let stored = self.shared.boots.corrected(next.event.recorded);
        let known = stored.quality != ClockQuality::Unknown || now == ClockQuality::Unknown;
        Ok(known && stored.wall <= limit)
    }

    /// The place that the slowest configured sink has reached.
    pub fn slowest(&self) -> Option<Cursor> {
        let cursors = self.shared.cursors();
        self.shared
            .plans()
            .iter()
            .map(|plan| cursors.get(&plan.name).copied().unwrap_or_default())
            .min()
    }
}
