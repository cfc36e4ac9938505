//! The writer: one write, one flush, then everybody may know. Owned by the journal's thread.
//!
//! A write group lies in one segment and is written only after the group before it is on the disk. What is
//! taken over stays `pending`, already encoded, until its group is durable: when there is no room, the same
//! commits are written later, in order, with the time at which they are.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt, io,
    path::PathBuf,
    sync::Arc,
};

use tokio::sync::watch;

use crate::{
    event::{
        Draft, Epoch, Event, Position, Sequence, SinkName,
        gateway::{self, EventsDiscarded, Recorded, StorageDamaged},
    },
    rule::state::StateChange,
    time::Moment,
};

use super::{
    Cursor, Error, Settings, Shared,
    frame::{self, Blob, Change, Header, Kind, Move, Note, Skipped, Told},
    read::Catalog,
    recovery::{Damage, Spare, at, before},
    segment::{FRAMES, Segment, SegmentHeader, TRAILER},
    snapshot::{Slots, Snapshot, pack},
    storage::Storage,
};

/// What a commit must leave free in a segment, so that a clean stop and the cursors still fit.
pub(super) const RESERVE: usize = 4096;

/// A commit, encoded: what is written when there is room.
#[derive(Debug)]
pub(super) struct Commit {
    /// The ticket, as the position before its first event.
    pub ticket: Position,
    pub frames: Vec<(Kind, Vec<u8>)>,
    /// What it changes in the state, once it is on the disk.
    pub state: Vec<StateChange>,
    pub tells: Tells,
}

/// What a commit tells, so that it is not told again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Tells {
    /// Nothing of the journal's own.
    #[default]
    Nothing,
    /// This damage.
    Damage(Told),
    /// All numbers that were skipped so far.
    Skipped,
}

impl Commit {
    /// Encodes events and changes of state.
    pub fn new(ticket: Position, events: &[Event], state: Vec<StateChange>) -> Self {
        let mut frames: Vec<(Kind, Vec<u8>)> = events
            .iter()
            .map(|event| (Kind::EVENT, frame::encode(event)))
            .collect();
        frames.extend(state.iter().map(|change| {
            let value = change.value.clone().map(Blob);
            (
                Kind::STATE,
                frame::encode(&Change(Blob(change.key.clone()), value)),
            )
        }));
        Self {
            ticket,
            frames,
            state,
            tells: Tells::Nothing,
        }
    }

    /// What has waited for room is recorded when it is stored, not when it was decided.
    pub fn restamp(&mut self, recorded: Moment) {
        for (kind, payload) in &mut self.frames {
            if *kind == Kind::EVENT
                && let Some(event) = Event::decode(payload)
            {
                *payload = frame::encode(&Event { recorded, ..event });
            }
        }
    }

    pub fn bytes(&self) -> usize {
        self.frames
            .iter()
            .map(|(_, payload)| frame::HEADER + payload.len())
            .sum()
    }
}

/// A cursor's move, and what its sink is told of gaps that it passes.
#[derive(Debug)]
pub(super) struct Moved {
    kind: Kind,
    to: Move,
    /// What is named, and the event that does.
    told: Vec<(Epoch, Note, Vec<u8>)>,
}

impl Moved {
    fn frames(&self) -> impl Iterator<Item = (Kind, Vec<u8>)> + '_ {
        let told = self.told.iter().map(|(.., event)| (Kind::EVENT, event.clone()));
        [(self.kind, frame::encode(&self.to))].into_iter().chain(told)
    }
}

/// What moves of cursors take.
pub(super) fn bytes_of(moved: &[Moved]) -> usize {
    let frames = moved.iter().flat_map(Moved::frames);
    frames.map(|(_, payload)| frame::HEADER + payload.len()).sum()
}

/// The segment that is being filled.
#[derive(Debug)]
pub(super) struct Active {
    pub segment: Arc<Segment>,
    pub end: usize,
    /// Commits go into another one, if there is room for one.
    pub sealed: bool,
}

/// Keeps other processes out.
pub(super) struct Lock {
    _held: Box<dyn Any + Send>,
}

impl Lock {
    /// Holds what the storage gave.
    pub fn new(held: Box<dyn Any + Send>) -> Self {
        Self { _held: held }
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Lock")
    }
}

/// Everything that only the journal's thread touches.
#[derive(Debug)]
pub(super) struct Writer {
    /// Declared first, so dropped first: whoever hears of the thread's end finds the directory free.
    pub lock: Option<Lock>,
    pub storage: Arc<dyn Storage>,
    pub root: PathBuf,
    pub dir: PathBuf,
    pub settings: Settings,
    pub shared: Arc<Shared>,
    pub catalog: Arc<Catalog>,
    pub durable: watch::Sender<Position>,
    pub active: Option<Active>,
    pub spares: Vec<Spare>,
    pub slots: Slots,
    pub state: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The cursors that are written next.
    pub taken: BTreeMap<SinkName, Cursor>,
    /// The cursors as the disk has them.
    pub written: BTreeMap<SinkName, Cursor>,
    pub pending: VecDeque<Commit>,
    pub last: Position,
    pub sequence: Sequence,
    pub group: u32,
    pub settled: Position,
    /// Damage that is told, durably.
    pub known: BTreeSet<Told>,
    /// Numbers that torn tails took back and that are not told, durably.
    pub skipped: Vec<(u64, u64)>,
    /// What lies in the directory besides this epoch.
    pub aside: u64,
    pub segment_size: usize,
    /// No new segment has this number or a lower one.
    pub newest_number: u64,
}

/// A write group being put together.
pub(super) struct Batch {
    pub target: Target,
    salt: u64,
    base: usize,
    offset: usize,
    limit: usize,
    buffer: Vec<u8>,
    newest: Option<usize>,
    last: Position,
    sequence: Sequence,
    group: u32,
    taken: usize,
    marks: Vec<(Position, usize)>,
    cursors: Vec<Moved>,
    through: Position,
}

/// Where a group goes.
pub(super) enum Target {
    /// Behind what is there.
    Active,
    /// Into a spare; then these segments are given up.
    Spare {
        spare: Spare,
        header: SegmentHeader,
        give_up: Vec<Arc<Segment>>,
    },
}

impl Batch {
    /// Whether so many bytes more go into this group's segment.
    pub fn takes(&self, bytes: usize) -> bool {
        self.offset + self.buffer.len() - self.base + bytes <= self.limit
    }

    fn push(&mut self, kind: Kind, position: Position, ends_commit: bool, payload: &[u8]) {
        let at = self.offset + self.buffer.len() - self.base;
        self.marks.push((self.last, at));
        if kind == Kind::EVENT {
            self.sequence = Sequence(self.sequence.0 + 1);
            self.last = Position(self.last.0 + 1).max(position);
        } else {
            self.last = self.last.max(position);
        }
        self.newest = Some(self.buffer.len());
        let header = Header {
            kind,
            ends_commit,
            ends_group: false,
            length: payload.len(),
            group: self.group,
            position: self.last,
            sequence: self.sequence,
        };
        frame::push(&mut self.buffer, self.salt, &header, payload);
    }

    pub fn push_commit(&mut self, commit: &Commit) {
        let mut position = commit.ticket;
        for (index, (kind, payload)) in commit.frames.iter().enumerate() {
            if *kind == Kind::EVENT {
                position = Position(position.0 + 1);
            }
            self.push(*kind, position, index + 1 == commit.frames.len(), payload);
        }
        self.taken += 1;
    }

    /// One commit: who is past a gap was told of it.
    pub fn push_cursor(&mut self, moved: Moved) {
        let mut frames = moved.frames().peekable();
        while let Some((kind, payload)) = frames.next() {
            self.push(kind, Position(0), frames.peek().is_none(), &payload);
        }
        drop(frames);
        self.cursors.push(moved);
    }

    /// A note that all up to there was delivered: nobody is told anything.
    pub fn push_settled(&mut self, through: Position, reason: &str) {
        let note = Note {
            through,
            ..Note::of(Vec::new(), reason)
        };
        self.push(Kind::DISCARD, Position(0), true, &frame::encode(&note));
        self.through = self.through.max(through);
    }

    /// A note and the event that tells it: one commit.
    pub fn push_note(&mut self, through: Position, [note, event]: [(Kind, Vec<u8>); 2]) {
        self.push(note.0, Position(0), false, &note.1);
        self.push(event.0, Position(0), true, &event.1);
        self.through = self.through.max(through);
    }
}

impl Writer {
    /// Writes what is pending, and with `cursors` the cursors' moves even if nothing else is. `Ok(false)`:
    /// there is no room, the rest is still pending.
    pub fn write(&mut self, cursors: bool) -> Result<bool, Error> {
        loop {
            self.take_cursors();
            let moved = self.moved();
            if self.pending.is_empty() && (!cursors || moved.is_empty()) {
                return Ok(true);
            }
            let need = self.pending.front().map_or(0, Commit::bytes);
            let Some(mut batch) = self.room_for(need + bytes_of(&moved))? else {
                return Ok(false);
            };
            let cursors = bytes_of(&moved);
            let mut waiting = self.pending.iter().peekable();
            // What a gap's event leaves out because it is told stands before it. But an epoch begins with its cursors.
            if !self.written.is_empty() {
                let is_own = |commit: &&Commit| commit.ticket == Position(0);
                while let Some(commit) =
                    waiting.next_if(|commit| is_own(commit) && batch.takes(commit.bytes() + cursors))
                {
                    batch.push_commit(commit);
                }
            }
            for moved in moved {
                batch.push_cursor(moved);
            }
            while let Some(commit) = waiting.next_if(|commit| batch.takes(commit.bytes())) {
                batch.push_commit(commit);
            }
            if !self.flush(batch)? {
                return Ok(false);
            }
        }
    }

    /// A group with room for so many bytes; none if there is no room.
    pub fn room_for(&mut self, bytes: usize) -> Result<Option<Batch>, Error> {
        let here = |writer: &Self| writer.batch_here(RESERVE).filter(|batch| batch.takes(bytes));
        if self.active.as_ref().is_some_and(|active| active.sealed) {
            // One that is sealed goes on where there is no other.
            return Ok(self.roll(bytes)?.or_else(|| here(self)));
        }
        match here(self) {
            Some(batch) => Ok(Some(batch)),
            None => self.roll(bytes),
        }
    }

    /// A group behind what is there.
    pub fn batch_here(&self, reserve: usize) -> Option<Batch> {
        let active = self.active.as_ref()?;
        let limit = active.segment.size.saturating_sub(TRAILER + reserve);
        Some(self.batch(Target::Active, active.segment.header.salt, active.end, limit))
    }

    /// A group that begins a segment in a spare.
    pub fn batch_in(&self, spare: Spare, header: SegmentHeader, give_up: Vec<Arc<Segment>>) -> Batch {
        let limit = spare.size.saturating_sub(TRAILER + RESERVE);
        let salt = header.salt;
        let mut batch = self.batch(
            Target::Spare {
                spare,
                header,
                give_up,
            },
            salt,
            FRAMES,
            limit,
        );
        batch.base = FRAMES;
        batch.buffer.extend_from_slice(&header.encode());
        batch.buffer.resize(FRAMES, 0);
        batch
    }

    fn batch(&self, target: Target, salt: u64, offset: usize, limit: usize) -> Batch {
        Batch {
            target,
            salt,
            base: 0,
            offset,
            limit,
            buffer: Vec::new(),
            newest: None,
            last: self.last,
            sequence: self.sequence,
            group: self.group.wrapping_add(1),
            taken: 0,
            marks: Vec::new(),
            cursors: Vec::new(),
            through: self.settled,
        }
    }

    /// One write, one flush. `Ok(false)`: the disk is full, nothing has happened.
    pub fn flush(&mut self, mut batch: Batch) -> Result<bool, Error> {
        let newest = batch
            .newest
            .expect("a group is made with room for something, and that is put in");
        frame::end_group(batch.buffer.get_mut(newest..).unwrap_or_default(), batch.salt);
        let (file, name) = match (&batch.target, &self.active) {
            (Target::Spare { spare, .. }, _) => (Arc::clone(&spare.file), spare.name.clone()),
            (Target::Active, Some(active)) => (Arc::clone(&active.segment.file), active.segment.name.clone()),
            (Target::Active, None) => return Ok(true),
        };
        let path = self.dir.join(&name);
        let start = batch.offset - batch.base;
        let mut written = file.write_all_at(&batch.buffer, start as u64);
        if let (Ok(()), Target::Spare { spare, header, .. }) = (&written, &batch.target) {
            written = file.write_all_at(&header.encode(), (spare.size - TRAILER) as u64);
        }
        if let Err(error) = written {
            if error.kind() == io::ErrorKind::StorageFull {
                if let Target::Spare { spare, .. } = batch.target {
                    self.spares.push(spare);
                }
                return Ok(false);
            }
            return Err(at("write", &path)(error));
        }
        file.sync_data().map_err(at("flush", &path))?;
        if let Target::Spare { header, .. } = &batch.target {
            // Before anybody knows of what stands in it: if its file vanishes, it is missed.
            self.write_snapshot(header.number, FRAMES, before(header))?;
        }
        self.apply(batch, start)?;
        Ok(true)
    }

    /// A group is on the disk: everybody may know.
    fn apply(&mut self, batch: Batch, start: usize) -> Result<(), Error> {
        let end = start + batch.buffer.len();
        let (last, sequence) = (batch.last, batch.sequence);
        let mut given_up = Vec::new();
        if let Target::Spare {
            spare,
            header,
            give_up,
        } = batch.target
        {
            let Spare { name, file, size } = spare;
            let segment = Arc::new(Segment::new(name, file, size, header, end));
            self.active = Some(Active {
                segment,
                end,
                sealed: false,
            });
            given_up = give_up;
        }
        if let Some(active) = &mut self.active {
            active.end = end;
            active.segment.extend(end, last, sequence);
            for (before, offset) in batch.marks {
                active.segment.mark(before, offset);
            }
            if active.segment.header.number > self.catalog.newest() {
                self.catalog.push(Arc::clone(&active.segment));
            }
        }
        (self.last, self.sequence, self.group) = (last, sequence, batch.group);
        self.settled = batch.through;
        for commit in self.pending.drain(..batch.taken) {
            match commit.tells {
                Tells::Nothing => {}
                Tells::Damage(told) => {
                    self.known.insert(told);
                }
                Tells::Skipped => self.skipped.clear(),
            }
            for StateChange { key, value } in commit.state {
                self.shared.boots.learn(&key, value.as_deref());
                self.shared.dead.learn(&key, value.as_deref());
                match value {
                    Some(value) => self.state.insert(key, value),
                    None => self.state.remove(&key),
                };
            }
        }
        for Moved { kind, to, told } in batch.cursors {
            let (sink, cursor) = to.parts();
            for (epoch, note, _) in told {
                self.shared.gaps.tell(&sink, epoch, &note.ranges);
            }
            if kind == Kind::FORGOTTEN {
                self.written.remove(&sink);
            } else {
                self.shared.gaps.are_told(&sink, cursor.position);
                self.written.insert(sink, cursor);
            }
        }
        self.durable.send_replace(last);
        self.give_up(given_up)
    }

    /// The cursors as they are now. What goes for being delivered goes by these, not by newer ones: the disk has
    /// them first.
    pub fn take_cursors(&mut self) {
        self.taken = self.shared.cursors().clone();
    }

    /// The cursors taken that have moved, on or back, since they were last written, and those that are no more.
    pub fn moved(&self) -> Vec<Moved> {
        let moved = self.taken.iter().filter_map(|(sink, cursor)| {
            let kind = match self.written.get(sink) {
                Some(written) if written == cursor => return None,
                Some(written) if written > cursor => Kind::REPLAY,
                _ => Kind::CURSOR,
            };
            let gaps = self.gaps(sink, cursor).into_iter();
            let told = gaps.map(|(epoch, note)| {
                let event = frame::encode(&self.discarded(&note, epoch));
                (epoch, note, event)
            });
            let told = told.collect();
            let to = Move::new(sink, cursor);
            Some(Moved { kind, to, told })
        });
        let forgotten = self
            .written
            .keys()
            .filter(|sink| !self.taken.contains_key(*sink))
            .map(|sink| Moved {
                kind: Kind::FORGOTTEN,
                to: Move::new(sink, &Cursor::default()),
                told: Vec::new(),
            });
        moved.chain(forgotten).collect()
    }

    /// Writes a snapshot as of now. On a full disk there is none: the older ones stay, and what they need.
    pub fn snapshot(&mut self) -> Result<(), Error> {
        let Some(active) = &self.active else { return Ok(()) };
        let (number, end) = (active.segment.header.number, active.end);
        let now = Header {
            group: self.group,
            position: self.last,
            sequence: self.sequence,
            ..before(&active.segment.header)
        };
        self.write_snapshot(number, end, now)
    }

    /// A crash may have come between a segment's first group and the snapshot that names it.
    pub fn certify_active(&mut self) -> Result<(), Error> {
        let Some(active) = &self.active else { return Ok(()) };
        let header = active.segment.header;
        if self.slots.newest_from() >= header.number {
            return Ok(());
        }
        self.write_snapshot(header.number, FRAMES, before(&header))
    }

    /// From there on frames are applied to the state that is here now; those that are in it already change
    /// nothing.
    fn write_snapshot(&mut self, segment: u64, offset: usize, at_point: Header) -> Result<(), Error> {
        let (epoch, oldest) = (self.catalog.epoch.0, self.catalog.oldest());
        let archives = self.shared.archives();
        let is_kept = |told: &Told| {
            // What was told of a file that is gone is not met again.
            (told.0 == epoch && (told.1 == 0 || told.1 >= oldest))
                || archives.iter().any(|archive| archive.catalog.epoch.0 == told.0)
        };
        self.known.retain(is_kept);
        let snapshot = Snapshot {
            epoch,
            segment,
            offset: offset as u64,
            position: at_point.position,
            sequence: at_point.sequence,
            group: at_point.group,
            settled: self.settled,
            cursors: self
                .written
                .iter()
                .map(|(sink, at)| Move::new(sink, at))
                .collect(),
            state: pack(&self.state),
            told: self.known.iter().copied().collect(),
            skipped: self
                .skipped
                .iter()
                .map(|(from, to)| Skipped(*from, *to))
                .collect(),
            written: Some(self.shared.clock.moment()),
        };
        match self.slots.write(&snapshot) {
            Err(error) if error.kind() != io::ErrorKind::StorageFull => {
                Err(at("write a snapshot in", &self.dir)(error))
            }
            _ => Ok(()),
        }
    }

    /// Writes `closed`, alone in its group: what stands before it is on the disk already.
    pub fn close(&mut self) -> Result<(), Error> {
        self.take_cursors();
        if let Some(mut batch) = self.batch_here(0) {
            // Where there is no room for commits, the reserve takes the cursors.
            for moved in self.moved() {
                if batch.takes(frame::HEADER + bytes_of(std::slice::from_ref(&moved))) {
                    batch.push_cursor(moved);
                }
            }
            if batch.newest.is_some() && !self.flush(batch)? {
                return Ok(());
            }
        }
        // So that a file that vanishes while the gateway is off is missed, and its numbers are not used again.
        self.snapshot()?;
        if let Some(mut batch) = self.batch_here(0)
            && batch.takes(frame::HEADER)
        {
            batch.push(Kind::CLOSED, Position(0), true, &[]);
            self.flush(batch)?;
        }
        Ok(())
    }

    /// Tells what damage was found, and what was lost by it; and notes that it is told.
    pub fn tell_damage(&mut self, damage: &Damage, epoch: Epoch) {
        let damaged = StorageDamaged {
            file: damage.file.clone(),
            from: damage.from as u64,
            to: damage.to as u64,
        };
        let draft = self.draft(&damaged);
        let event = self.stamp(draft);
        let mut commit = Commit::new(Position(0), &[event], Vec::new());
        if let Some((segment, from)) = damage.place {
            let told = Told(epoch.0, segment, from);
            commit.frames.insert(0, (Kind::TOLD, frame::encode(&told)));
            commit.tells = Tells::Damage(told);
        }
        if let Some(lost) = damage.lost {
            commit.frames.extend(self.loss(&[lost], epoch, "damaged"));
        }
        self.tell_first(commit);
    }

    /// What the journal itself has to tell stands before what waits.
    pub fn tell_first(&mut self, commit: Commit) {
        let own = |commit: &&Commit| commit.ticket == Position(0);
        let at = self.pending.iter().take_while(own).count();
        self.pending.insert(at, commit);
    }

    /// Tells that ranges of sequences will not come.
    pub fn tell_lost(&mut self, lost: &[(u64, u64)], epoch: Epoch, reason: &str, tells: Tells) {
        let mut frames = self.loss(lost, epoch, reason);
        if frames.is_empty() {
            let nobody = Note::of(Vec::new(), reason);
            frames.push((Kind::DISCARD, frame::encode(&nobody)));
        }
        if let Tells::Damage(told) = tells {
            frames.insert(0, (Kind::TOLD, frame::encode(&told)));
        }
        self.tell_first(Commit {
            ticket: Position(0),
            frames,
            state: Vec::new(),
            tells,
        });
    }

    /// The event that tells a note.
    pub fn discarded(&self, note: &Note, epoch: Epoch) -> Event {
        self.stamp(self.draft(&EventsDiscarded {
            epoch: epoch.to_string(),
            sinks: note.sinks.iter().map(ToString::to_string).collect(),
            ranges: note.ranges.clone(),
            count: note.count(),
            reason: note.reason.clone(),
        }))
    }

    fn draft<F: Recorded>(&self, fact: &F) -> Draft {
        gateway::draft(fact, &self.shared.origin().gateway, self.shared.clock.now())
    }

    /// Completes an event as it is stored.
    pub fn stamp(&self, draft: Draft) -> Event {
        Event {
            draft,
            origin: self.shared.origin(),
            recorded: self.shared.clock.moment(),
        }
    }
}
