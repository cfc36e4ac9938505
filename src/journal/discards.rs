//! What a sink's receiver is told of the numbers that it will not get: for each sink its own, and no more than that.
//!
//! Who gives events up tells the sinks that had yet to come to them. A sink that comes to a gap tells the rest: what its
//! filter left out right before the gap, which no `previoussequence` explains any more, and numbers that were not told
//! to it because it had passed them (and was moved back), or was not there. That is on the disk in one commit with
//! the move of its cursor past the gap, so it is told whatever happens, and nothing waits for it.
//!
//! An event that is set aside for a sink is never named to it: it can still be sent again.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::event::{Entry, Epoch, Event, Position, Sequence, SinkName};

use super::{
    Cursor, Journal, Shared,
    frame::{self, Kind, Note},
    writer::Writer,
};

/// From and to, both in it.
pub(super) type Range = (u64, u64);

/// Numbers of an epoch.
type Numbers = (Epoch, Range);

/// What is remembered of what was told to a sink: the newest of it. What is forgotten may be told twice.
const REMEMBERED: usize = 64;

/// Gaps that sinks came to.
#[derive(Debug, Default)]
pub(super) struct Gaps(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Named to a sink since the journal was opened.
    told: BTreeMap<SinkName, Vec<(u64, Range)>>,
    /// To be told as soon as the sink's cursor is there.
    untold: BTreeMap<SinkName, Vec<(Position, Numbers)>>,
}

impl Gaps {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These are named to a sink.
    pub fn tell(&self, sink: &SinkName, epoch: Epoch, ranges: &[Range]) {
        let mut known = self.known();
        let told = known.told.entry(sink.clone()).or_default();
        for &range in ranges {
            told.push((epoch.0, range));
            told.sort_unstable();
            told.dedup_by(|next, kept| {
                let meets = next.0 == kept.0 && next.1.0 <= kept.1.1.saturating_add(1);
                if meets {
                    kept.1.1 = kept.1.1.max(next.1.1);
                }
                meets
            });
        }
        let forgotten = told.len().saturating_sub(REMEMBERED);
        told.drain(..forgotten);
    }

    /// What is to be told when a sink's cursor is there.
    pub fn untold(&self, sink: &SinkName, at: Position) -> Vec<Numbers> {
        let known = self.known();
        let untold = known.untold.get(sink).into_iter().flatten();
        let due = untold.filter(|(place, _)| *place <= at);
        due.map(|(_, numbers)| *numbers).collect()
    }

    /// That is on the disk.
    pub fn are_told(&self, sink: &SinkName, at: Position) {
        if let Some(untold) = self.known().untold.get_mut(sink) {
            untold.retain(|(place, _)| *place > at);
        }
    }

    /// The sink is no more.
    pub fn forget(&self, sink: &SinkName) {
        let mut known = self.known();
        known.told.remove(sink);
        known.untold.remove(sink);
    }
}

impl Known {
    fn is_told(&self, sink: &SinkName, (epoch, (from, to)): Numbers) -> bool {
        let told = self.told.get(sink).into_iter().flatten();
        let mut in_it = told.filter(|(of, range)| *of == epoch.0 && range.0 <= from && to <= range.1);
        in_it.next().is_some()
    }
}

impl Shared {
    /// In which epoch something stands, if that is still there.
    fn epoch_of(&self, current: Epoch, position: Position) -> Option<Epoch> {
        if position > self.base {
            return Some(current);
        }
        let archives = self.archives();
        let old = archives.iter().find(|old| position <= old.catalog.last())?;
        Some(old.catalog.epoch)
    }
}

impl Journal {
    /// A sink that stands at `before` came to `next`, and not every number between them is there. Its receiver is told
    /// in one commit with the move of its cursor to `next` or further.
    pub fn came_to(&self, sink: &SinkName, before: Cursor, next: &Entry) {
        let shared = &self.0.shared;
        let new = (before.sequence == Sequence(0)).then_some(next.epoch);
        let old = new.or_else(|| shared.epoch_of(self.0.catalog.epoch, before.position));
        let mut known = shared.gaps.known();
        let mut owed = Vec::new();
        let (passed, read) = (before.passed.0, before.sequence.0);
        let last = next.sequence.0 - 1;
        if old == Some(next.epoch) {
            let is_told = known.is_told(sink, (next.epoch, (read + 1, last)));
            owed.push((next.epoch, (passed + 1, if is_told { read } else { last })));
        } else {
            owed.extend(old.map(|old| (old, (passed + 1, read))));
            owed.push((next.epoch, (1, last)));
            owed.retain(|numbers| !known.is_told(sink, *numbers));
        }
        let untold = known.untold.entry(sink.clone()).or_default();
        for (epoch, (from, to)) in owed {
            let owed = (next.position, (epoch, (from, to)));
            if from <= to && !untold.contains(&owed) {
                untold.push(owed);
            }
        }
    }
}

impl Writer {
    /// The events that tell a sink of the gaps that its cursor has passed, and are not on the disk yet.
    pub fn gaps(&self, sink: &SinkName, cursor: &Cursor) -> Vec<Event> {
        let mut notes: BTreeMap<u64, Note> = BTreeMap::new();
        for (epoch, range) in self.shared.gaps.untold(sink, cursor.position) {
            let note = || Note::of(vec![sink.clone()], "gap");
            let ranges = self.shared.dead.without(sink, epoch, range);
            notes.entry(epoch.0).or_insert_with(note).add(ranges);
        }
        let told = notes.into_iter().filter(|(_, note)| !note.ranges.is_empty());
        told.map(|(epoch, note)| self.discarded(&note, Epoch(epoch)))
            .collect()
    }

    /// Notes and their events: that ranges of sequences will not come, to each sink that has yet to come to them what it
    /// loses of them. Nothing where nobody loses anything.
    pub fn loss(&self, lost: &[Range], epoch: Epoch, reason: &str) -> Vec<(Kind, Vec<u8>)> {
        let cursors = self.shared.cursors().clone();
        // Those that lose the same are told in one.
        let mut losers: BTreeMap<Vec<Range>, Vec<SinkName>> = BTreeMap::new();
        for plan in self.shared.plans().iter() {
            let cursor = cursors.get(&plan.name).copied().unwrap_or_default();
            let next = self.passed_of(epoch, cursor) + 1;
            let ahead = lost.iter().map(|(from, to)| (next.max(*from), *to));
            let ahead = ahead.filter(|(from, to)| from <= to);
            let ranges: Vec<Range> = ahead
                .flat_map(|range| self.shared.dead.without(&plan.name, epoch, range))
                .collect();
            if !ranges.is_empty() {
                losers.entry(ranges).or_default().push(plan.name.clone());
            }
        }
        let told = losers.into_iter().flat_map(|(ranges, sinks)| {
            let note = Note {
                ranges,
                ..Note::of(sinks, reason)
            };
            self.tell(epoch, &note)
        });
        told.collect()
    }

    /// A note and its event.
    pub fn tell(&self, epoch: Epoch, note: &Note) -> [(Kind, Vec<u8>); 2] {
        for sink in &note.sinks {
            self.shared.gaps.tell(sink, epoch, &note.ranges);
        }
        let event = self.discarded(note, epoch);
        [
            (Kind::DISCARD, frame::encode(note)),
            (Kind::EVENT, frame::encode(&event)),
        ]
    }

    /// All of an epoch that is kept up to here is behind a cursor.
    fn passed_of(&self, epoch: Epoch, cursor: Cursor) -> u64 {
        if epoch == self.catalog.epoch {
            let is_here = cursor.position > self.shared.base;
            return if is_here { cursor.sequence.0 } else { 0 };
        }
        let archives = self.shared.archives();
        let Some(old) = archives.iter().find(|old| old.catalog.epoch == epoch) else {
            return 0;
        };
        if cursor.position >= old.catalog.last() {
            old.catalog.last_sequence()
        } else if cursor.position > old.catalog.oldest_after() {
            cursor.sequence.0
        } else {
            0
        }
    }
}
