//! What a sink's receiver is told of the numbers that it will not get: for each sink its own, and no more than that.
//!
//! Who gives events up tells the sinks that had yet to come to them. A sink that comes to a gap tells the rest: what its
//! filter left out right before the gap, which no `previoussequence` explains any more, and numbers that were not told
//! to it because it had passed them (and was moved back), or was not there. That is on the disk in one commit with
//! the move of its cursor past the gap, so it is told whatever happens, and nothing waits for it.
//!
//! An event that is set aside for a sink is never named to it: it can still be sent again.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::event::{Entry, Epoch, Position, Sequence, SinkName};

use super::{
    CURSOR_EVENTS, Cursor, Journal, Shared,
    frame::{self, Kind, Note},
    read::Catalog,
    writer::{Commit, Writer},
};

/// From and to, both in it.
pub(super) type Range = (u64, u64);

/// Numbers of an epoch.
type Numbers = (Epoch, Range);

/// What is remembered of what was told to a sink: what was told last. What is forgotten may be told twice.
const REMEMBERED: usize = 64;

/// What is owed to a sink, less what it is told otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owed {
    /// As soon as the sink's cursor is there.
    at: Position,
    epoch: Epoch,
    range: Range,
    /// What the filter left out before the epoch ended: only if something was lost with the end.
    if_lost: bool,
}

/// Gaps that sinks came to.
#[derive(Debug, Default)]
pub(super) struct Gaps(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Named to a sink since the journal was opened, or about to be: in the order in which it was.
    told: BTreeMap<SinkName, VecDeque<Numbers>>,
    untold: BTreeMap<SinkName, Vec<Owed>>,
}

impl Gaps {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These are named to a sink.
    pub fn tell(&self, sink: &SinkName, epoch: Epoch, ranges: &[Range]) {
        let mut known = self.known();
        let told = known.told.entry(sink.clone()).or_default();
        for &(mut from, mut to) in ranges {
            told.retain(|(of, range)| {
                let meets =
                    *of == epoch && range.0 <= to.saturating_add(1) && from <= range.1.saturating_add(1);
                if meets {
                    (from, to) = (from.min(range.0), to.max(range.1));
                }
                !meets
            });
            told.push_back((epoch, (from, to)));
        }
        let forgotten = told.len().saturating_sub(REMEMBERED);
        told.drain(..forgotten);
    }

    /// What is owed to a sink whose cursor is there.
    fn owed(&self, sink: &SinkName, at: Position) -> Vec<Owed> {
        let known = self.known();
        let owed = known.untold.get(sink).into_iter().flatten();
        owed.filter(|owed| owed.at <= at).copied().collect()
    }

    /// A range without what is named to a sink.
    fn without(&self, sink: &SinkName, epoch: Epoch, range: Range) -> Vec<Range> {
        let known = self.known();
        let told = known.told.get(sink).into_iter().flatten();
        let mut left = vec![range];
        for (_, (first, last)) in told.filter(|(of, _)| *of == epoch) {
            let around = |(from, to): Range| {
                let below = (from, to.min(first.saturating_sub(1)));
                let above = (from.max(last.saturating_add(1)), to);
                // One that lies aside is whole on one side of it, and on the other there is nothing.
                [below, above].into_iter().filter(|(from, to)| from <= to)
            };
            left = left.into_iter().flat_map(around).collect();
        }
        left
    }

    /// Whether anything of an epoch is named to a sink.
    fn tells(&self, sink: &SinkName, epoch: Epoch) -> bool {
        let known = self.known();
        let mut told = known.told.get(sink).into_iter().flatten();
        told.any(|(of, _)| *of == epoch)
    }

    /// Whether a sink whose cursor is there has yet to be told of a gap.
    fn owes(&self, sink: &SinkName, at: Position) -> bool {
        let known = self.known();
        let mut owed = known.untold.get(sink).into_iter().flatten();
        owed.any(|owed| owed.at <= at)
    }

    /// That is on the disk.
    pub fn are_told(&self, sink: &SinkName, at: Position) {
        if let Some(untold) = self.known().untold.get_mut(sink) {
            untold.retain(|owed| owed.at > at);
        }
    }

    /// The sink is no more.
    pub fn forget(&self, sink: &SinkName) {
        let mut known = self.known();
        known.told.remove(sink);
        known.untold.remove(sink);
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

    /// How many events a cursor's move passes: so many are sent again if it is not written. What it leaves behind in
    /// an old epoch does not count. A move past a gap that its sink is to be told of does not wait for company.
    pub(super) fn weight(&self, current: Epoch, sink: &SinkName, before: Cursor, through: Cursor) -> u64 {
        if self.gaps.owes(sink, through.position) {
            return CURSOR_EVENTS;
        }
        let epoch_of = |cursor: Cursor| self.epoch_of(current, cursor.position);
        let stays = epoch_of(before) == epoch_of(through);
        let from = if stays { before.behind_it() } else { 0 };
        through.behind_it().saturating_sub(from)
    }
}

impl Journal {
    /// A sink that stands at `before` came to `next`, and not every number between them is there. Its receiver is told
    /// in one commit with the move of its cursor to `next` or further.
    pub fn came_to(&self, sink: &SinkName, before: Cursor, next: &Entry) {
        let shared = &self.0.shared;
        let new = (before.sequence == Sequence(0)).then_some(next.epoch);
        let old = new.or_else(|| shared.epoch_of(self.0.catalog.epoch, before.position));
        let from = before.unexplained_from();
        let owed = |epoch, range, if_lost| Owed {
            at: next.position,
            epoch,
            range,
            if_lost,
        };
        let last = next.sequence.0 - 1;
        let here = if old == Some(next.epoch) { from } else { 1 };
        let tail = old.filter(|old| *old != next.epoch);
        let tail = tail.map(|old| owed(old, (from, before.sequence.0), true));
        let mut known = shared.gaps.known();
        let untold = known.untold.entry(sink.clone()).or_default();
        // It reads on from there: what it came to further on, it comes to again, or to something else.
        untold.retain(|owed| owed.at <= before.position);
        let owed = tail.into_iter().chain([owed(next.epoch, (here, last), false)]);
        untold.extend(owed.filter(|owed| owed.range.0 <= owed.range.1));
    }
}

impl Writer {
    /// What tells a sink of the gaps that its cursor has passed, and is not on the disk yet.
    pub fn gaps(&self, sink: &SinkName, cursor: &Cursor) -> Vec<(Epoch, Note)> {
        let gaps = &self.shared.gaps;
        let mut notes: BTreeMap<u64, Note> = BTreeMap::new();
        for Owed {
            epoch,
            range,
            if_lost,
            ..
        } in gaps.owed(sink, cursor.position)
        {
            if if_lost && !self.tells_a_loss(sink, epoch) {
                continue;
            }
            let note = || Note::of(vec![sink.clone()], "gap");
            let untold = gaps.without(sink, epoch, range).into_iter();
            let ranges = untold.flat_map(|range| self.shared.dead.without(sink, epoch, range));
            notes.entry(epoch.0).or_insert_with(note).add(ranges);
        }
        let told = notes.into_iter().filter(|(_, note)| !note.ranges.is_empty());
        told.map(|(epoch, note)| (Epoch(epoch), note)).collect()
    }

    /// Whether a loss of an epoch was told, to anybody, that this sink may have been told of.
    pub fn tells_a_loss(&self, sink: &SinkName, epoch: Epoch) -> bool {
        self.known.iter().any(|told| told.0 == epoch.0) || self.shared.gaps.tells(sink, epoch)
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

    /// Tells the sinks that keep a place and are not configured what they lose with an old epoch: once it is gone nobody
    /// knows what that was. `true`: that has yet to come to the disk.
    pub fn tells_absent(&mut self, old: &Catalog) -> bool {
        let mut absent = self.written.clone();
        for plan in self.shared.plans().iter() {
            absent.remove(&plan.name);
        }
        let mut frames = Vec::new();
        for (sink, cursor) in absent.iter().filter(|(_, at)| at.position < old.last()) {
            let stands = cursor.position > old.oldest_after();
            let from = if stands { cursor.unexplained_from() } else { 1 };
            let Shared { gaps, dead, .. } = &*self.shared;
            let untold = gaps.without(sink, old.epoch, (from, old.last_sequence()));
            let untold = untold.into_iter().filter(|(from, to)| from <= to);
            let ranges: Vec<Range> = untold
                .flat_map(|range| dead.without(sink, old.epoch, range))
                .collect();
            if !ranges.is_empty() {
                let note = Note::of(vec![sink.clone()], "gap");
                frames.extend(self.tell(old.epoch, &Note { ranges, ..note }));
            }
        }
        if !frames.is_empty() {
            self.tell_first(Commit {
                frames,
                ..Commit::new(Position(0), &[], Vec::new())
            });
        }
        !self.pending.is_empty()
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
    pub fn passed_of(&self, epoch: Epoch, cursor: Cursor) -> u64 {
        if epoch == self.catalog.epoch {
            let is_here = cursor.position > self.shared.base;
            return if is_here { cursor.behind_it() } else { 0 };
        }
        let archives = self.shared.archives();
        let Some(old) = archives.iter().find(|old| old.catalog.epoch == epoch) else {
            return 0;
        };
        if cursor.position >= old.catalog.last() {
            old.catalog.last_sequence()
        } else if cursor.position > old.catalog.oldest_after() {
            cursor.behind_it()
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::event::Data;
    use crate::journal::{Handle, Limit, Stepped, storage::simulated::Simulated, trial};

    /// A machine's journal on a disk, with nine events more in it than before.
    fn opened(disk: &Simulated, machine: &str, sink: &SinkName) -> (Journal, Stepped) {
        let (journal, mut steps) = trial::open(disk.mount(), machine, Some(sink));
        steps.turn().unwrap();
        for number in 0..9 {
            journal.record(trial::event(number));
        }
        steps.turn().unwrap();
        (journal, steps)
    }

    const NINE: Limit = Limit {
        entries: 9,
        bytes: usize::MAX,
    };

    #[test]
    fn a_sink_that_is_away_while_more_and_more_goes_is_owed_one_gap() {
        let sink: SinkName = "cloud".parse().unwrap();
        let (journal, _steps) = opened(&Simulated::default(), "m", &sink);
        let there = journal.read_after_blocking(Cursor::default(), NINE).unwrap();
        let before = Cursor::behind(&there[0]);
        // The oldest that is kept is another one each time that it tries.
        for next in &there[2..] {
            journal.came_to(&sink, before, next);
        }
        let owed = || journal.0.shared.gaps.known().untold[&sink].clone();
        assert_eq!(owed().len(), 1, "{:?}", owed());
        assert_eq!(owed()[0].range, (2, 8));
        // What it has passed stays owed until that is on the disk.
        journal.came_to(
            &sink,
            Cursor::behind(&there[8]),
            &Entry {
                sequence: Sequence(12),
                position: Position(there[8].position.0 + 3),
                ..there[8].clone()
            },
        );
        assert_eq!(owed().len(), 2);
    }

    #[test]
    fn a_cursors_move_counts_the_events_of_its_own_epoch_and_chain_that_it_passes() {
        let sink: SinkName = "cloud".parse().unwrap();
        let disk = Simulated::default();
        let (journal, steps) = opened(&disk, "m", &sink);
        let there = journal.read_after_blocking(Cursor::default(), NINE).unwrap();
        let last = Cursor::behind(&there[8]);
        let weighs = |journal: &Journal, before, through| {
            let Handle { shared, catalog, .. } = &*journal.0;
            shared.weight(catalog.epoch, &sink, before, through)
        };
        assert_eq!(weighs(&journal, Cursor::behind(&there[0]), last), 8);
        // A chain that begins there: what is below is not its business.
        let began = Cursor::start_behind(there[6].position, there[6].sequence);
        assert_eq!(weighs(&journal, began, last), 2);
        drop((journal, steps));

        let (journal, _steps) = opened(&disk, "another", &sink);
        let new = journal.read_after_blocking(last, NINE).unwrap();
        assert_ne!(new[3].epoch, there[8].epoch);
        assert_eq!(weighs(&journal, last, Cursor::behind(&new[3])), 4);
    }

    #[test]
    fn a_gap_is_told_without_waiting_for_company() {
        let sink: SinkName = "cloud".parse().unwrap();
        let (journal, _steps) = opened(&Simulated::default(), "m", &sink);
        let there = journal.read_after_blocking(Cursor::default(), NINE).unwrap();
        let moves = || journal.0.shared.queue().moves;
        journal.acknowledge(&sink, Cursor::behind(&there[0]));
        assert_eq!(moves(), 1);
        // It comes to the gap, and is not behind it yet.
        journal.came_to(&sink, Cursor::behind(&there[1]), &there[3]);
        journal.acknowledge(&sink, Cursor::behind(&there[1]));
        assert_eq!(moves(), 2);
        journal.acknowledge(&sink, Cursor::behind(&there[3]));
        assert_eq!(moves(), 2 + CURSOR_EVENTS);
    }

    #[test]
    fn a_sink_that_is_not_configured_is_told_what_it_loses_with_an_old_epoch() {
        let sink: SinkName = "cloud".parse().unwrap();
        let disk = Simulated::default();
        let (journal, mut steps) = opened(&disk, "m", &sink);
        let there = journal.read_after_blocking(Cursor::default(), NINE).unwrap();
        journal.acknowledge(&sink, Cursor::behind(&there[2]));
        // The cursor rides on it.
        journal.record(trial::event(9));
        steps.turn().unwrap();
        drop((journal, steps));
        let old = Path::new("/journal").join(format!("epoch-{}", there[0].epoch));
        let is_kept = || disk.mount().list(&old).is_ok_and(|names| !names.is_empty());

        let (journal, mut steps) = trial::open(disk.mount(), "another", None);
        assert!(is_kept());
        for _ in 0..4 {
            steps.turn().unwrap();
        }
        assert!(!is_kept(), "nobody reads it");
        let told = journal.read_after_blocking(Cursor::default(), NINE).unwrap();
        let Data::Gateway(told) = &told[0].event.draft.data else {
            panic!("{told:?}");
        };
        assert_eq!(told["sinks"], serde_json::json!(["cloud"]));
        assert_eq!(told["epoch"], there[0].epoch.to_string());
        assert_eq!(told["ranges"], serde_json::json!([[4, 10]]));
    }

    #[test]
    fn what_is_told_is_taken_out_wherever_it_lies() {
        let (gaps, sink) = (Gaps::default(), "cloud".parse().unwrap());
        let left = |range| gaps.without(&sink, Epoch(1), range);
        gaps.tell(&sink, Epoch(1), &[(5, 6), (10, 12)]);
        gaps.tell(&sink, Epoch(2), &[(1, 100)]);
        assert_eq!(left((1, 20)), [(1, 4), (7, 9), (13, 20)]);
        assert_eq!(left((6, 11)), [(7, 9)]);
        assert_eq!(left((10, 12)), []);
        assert_eq!(left((20, 30)), [(20, 30)]);
        gaps.tell(&sink, Epoch(1), &[(7, 9)]);
        assert_eq!(gaps.known().told[&sink].len(), 2, "those that touch are one");
        for number in 0..100 {
            gaps.tell(&sink, Epoch(0), &[(number * 2, number * 2)]);
        }
        assert_eq!(left((1, 20)), [(1, 20)], "the oldest is forgotten first");
    }
}
