//! The thread: waits for something to write, writes it, tells.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use crate::{
    event::{Event, Position, Sequence},
    rule::state::Outcome,
    time::EngineTime,
};

use super::{
    CURSOR_DELAY, CURSOR_EVENTS, CURSOR_PAUSE, End, Error, Health, Shared,
    writer::{Commit, Writer},
};

/// How long the thread sleeps at most: its pulse.
const PULSE: Duration = Duration::from_secs(1);
/// How often old segments are looked for.
const EXPIRY: Duration = Duration::from_mins(1);

/// Why the thread woke, and with what.
#[derive(Default)]
struct Work {
    commits: VecDeque<(Position, Outcome)>,
    cursors: bool,
    end: Option<End>,
}

impl Work {
    /// New sinks' cursors and what opening has to tell do not wait for company.
    fn first() -> Self {
        Self {
            cursors: true,
            ..Self::default()
        }
    }
}

/// Runs until the journal is closed, abandoned or has failed.
pub(super) fn run(mut turns: Turns) -> Result<(), Error> {
    let mut work = Work::first();
    while turns.turn(work)? {
        work = wait(&turns.writer.shared);
    }
    Ok(())
}

/// What the thread does each time it wakes, and what it keeps in between.
#[derive(Debug)]
pub(super) struct Turns {
    writer: Writer,
    health: watch::Sender<Health>,
    pulse: u64,
    expired: Option<EngineTime>,
}

impl Turns {
    /// None taken yet.
    pub fn new(writer: Writer, health: watch::Sender<Health>) -> Self {
        Self {
            writer,
            health,
            pulse: 0,
            expired: None,
        }
    }

    /// `Ok(false)`: it was the last one.
    fn turn(&mut self, work: Work) -> Result<bool, Error> {
        let writer = &mut self.writer;
        take(writer, work.commits);
        let current = writer.catalog.clone();
        for damage in current.take_damage() {
            writer.set_copy_aside(&damage.file);
            writer.tell_damage(&damage, current.epoch);
        }
        for old in writer.shared.archives() {
            for damage in old.catalog.take_damage() {
                writer.tell_damage(&damage, old.catalog.epoch);
            }
        }
        // Parked, the cursors ride on what is written first when there is room.
        let parked = !writer.write(work.cursors || work.end == Some(End::Close))?;
        writer.shared.queue().parked = parked;
        self.pulse += 1;
        self.health.send_replace(writer.health(self.pulse, parked));
        match work.end {
            Some(End::Close) => return writer.close().map(|()| false),
            Some(End::Abandon) => return Ok(false),
            None => {}
        }
        writer.drop_archives()?;
        let now = writer.shared.clock.now();
        if let Some(max_age) = writer.settings.max_age
            && self.expired.is_none_or(|at| now.since(at) >= EXPIRY)
        {
            self.expired = Some(now);
            writer.expire(max_age)?;
        }
        Ok(true)
    }
}

/// A journal whose turns its owner takes, instead of a thread: for a simulation.
#[doc(hidden)]
#[derive(Debug)]
pub struct Stepped {
    turns: Turns,
    /// When the last turn ended; none was taken yet.
    woken: Option<EngineTime>,
}

impl Stepped {
    pub(super) fn new(turns: Turns) -> Self {
        Self { turns, woken: None }
    }

    /// When the thread would take its next turn, if nothing comes before that.
    #[must_use]
    pub fn due(&self) -> EngineTime {
        let shared = &self.turns.writer.shared;
        self.woken.map_or(EngineTime(i64::MIN), |woken| {
            shared.queue().due(woken, shared.state_delay)
        })
    }

    /// Takes the turn. `Ok(false)`: it was the last one.
    ///
    /// # Errors
    ///
    /// As [`super::Running`] says it: after this nothing is believed.
    pub fn turn(&mut self) -> Result<bool, Error> {
        let shared = Arc::clone(&self.turns.writer.shared);
        let work = match self.woken {
            Some(_) => shared.queue().take(shared.clock.now(), shared.state_delay),
            None => Work::first(),
        };
        let goes_on = self.turns.turn(work)?;
        self.woken = Some(shared.clock.now());
        Ok(goes_on)
    }
}

fn take(writer: &mut Writer, commits: VecDeque<(Position, Outcome)>) {
    let (origin, recorded) = (writer.shared.origin(), writer.shared.clock.moment());
    for commit in &mut writer.pending {
        commit.restamp(recorded);
    }
    for (ticket, Outcome { events, state, .. }) in commits {
        let stamp = |draft| Event {
            draft,
            origin: Arc::clone(&origin),
            recorded,
        };
        let events: Vec<Event> = events.into_iter().map(stamp).collect();
        writer.pending.push_back(Commit::new(ticket, &events, state));
    }
}

/// Waits until there is something to do, at most a pulse.
fn wait(shared: &Shared) -> Work {
    let mut queue = shared.queue();
    let woken = shared.clock.now();
    loop {
        let now = shared.clock.now();
        let due = queue.due(woken, shared.state_delay);
        if now >= due {
            return queue.take(now, shared.state_delay);
        }
        let (guard, _) = shared
            .wake
            .wait_timeout(queue, due.since(now))
            .unwrap_or_else(PoisonError::into_inner);
        queue = guard;
    }
}

impl super::Queue {
    /// When there is something to do for who has waited since `woken`: then or before if there is already.
    fn due(&self, woken: EngineTime, state_delay: Duration) -> EngineTime {
        let freed = self.parked && self.moves > 0;
        if self.urgent || self.end.is_some() || freed {
            return woken;
        }
        let shared = self.since.map(|since| since.after(state_delay));
        let moved = self.moved_since.map(|since| since.after(self.cursor_delay()));
        let pulse = woken.after(PULSE);
        shared.into_iter().chain(moved).fold(pulse, EngineTime::min)
    }

    /// A cursor has moved past so many events. Whether the thread must look when it is to be written.
    pub(super) fn moved(&mut self, events: u64, now: EngineTime) -> bool {
        let before = self.moves;
        // One that has passed none has moved all the same.
        self.moves = before.saturating_add(events.max(1));
        self.moved_since.get_or_insert(now);
        // More of them change nothing about when they are due.
        self.parked || (before < CURSOR_EVENTS && self.moves >= CURSOR_EVENTS)
    }

    /// How long moves of cursors wait for a commit that they can ride on.
    fn cursor_delay(&self) -> Duration {
        if self.moves >= CURSOR_EVENTS {
            CURSOR_PAUSE
        } else {
            CURSOR_DELAY
        }
    }

    /// What there is to do.
    fn take(&mut self, now: EngineTime, state_delay: Duration) -> Work {
        let has_passed =
            |since: Option<EngineTime>, delay| since.is_some_and(|since| now >= since.after(delay));
        // Who wakes the thread with so many does not wait.
        let asked = self.urgent && self.moves >= CURSOR_EVENTS;
        let cursors = asked || has_passed(self.moved_since, self.cursor_delay());
        let all = self.urgent || self.end.is_some() || has_passed(self.since, state_delay);
        self.urgent = false;
        let commits = if all {
            self.since = None;
            std::mem::take(&mut self.commits)
        } else {
            VecDeque::new()
        };
        // Before they are taken, not when they are written: what moves in between waits for the next turn. Those that
        // ride on a commit are written as well, and what moves after it begins to wait anew.
        let written = cursors || !commits.is_empty();
        if written || self.parked {
            self.moves = 0;
        }
        if written {
            self.moved_since = None;
        }
        Work {
            commits,
            cursors,
            end: self.end,
        }
    }
}

impl Writer {
    /// What the status line, heartbeats and the watchdog want to know.
    pub fn health(&self, pulse: u64, parked: bool) -> Health {
        let slowest = self.slowest().map(|cursor| cursor.position);
        let old = self.shared.archives();
        let owed = |after| {
            let old: u64 = old.iter().map(|archive| archive.catalog.bytes_after(after)).sum();
            old + self.catalog.bytes_after(after)
        };
        let segments = self.catalog.segments();
        Health {
            pulse,
            parked,
            last: Sequence(self.catalog.last_sequence()),
            gone: segments
                .first()
                .map_or(Sequence(0), |oldest| oldest.header.after_sequence),
            undelivered_bytes: slowest.map_or(0, owed),
            room_bytes: self.room(),
            used_bytes: self.total(),
            refused: self.shared.queue().refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Queue;

    #[test]
    fn what_moves_while_the_cursors_are_written_is_written_by_the_next_turn() {
        let mut queue = Queue {
            moves: CURSOR_EVENTS,
            urgent: true,
            ..Queue::default()
        };
        let mut turn = |moves| {
            let work = queue.take(EngineTime(0), Duration::ZERO);
            queue.moves += moves;
            queue.urgent = moves > 0;
            work.cursors
        };
        assert!(
            turn(CURSOR_EVENTS),
            "and one is forgotten before the turn has ended"
        );
        assert!(turn(0), "which this one writes");
        assert!(!turn(0), "once");
    }

    #[test]
    fn however_fast_cursors_move_they_are_written_four_times_a_second() {
        let mut queue = Queue::default();
        let mut written = 0;
        for millisecond in 0..10_000 {
            let now = EngineTime(0).after(Duration::from_millis(millisecond));
            queue.moved(30, now);
            written +=
                u32::from(queue.due(now, Duration::ZERO) <= now && queue.take(now, Duration::ZERO).cursors);
        }
        assert_eq!(written, 39, "ten seconds, the first after the first pause");
    }

    #[test]
    fn a_few_events_behind_cursors_wait_for_company_but_not_a_batch() {
        let start = EngineTime(0);
        let is_written = |queue: &mut Queue, after| {
            let now = start.after(after);
            queue.due(now, Duration::ZERO) <= now && queue.take(now, Duration::ZERO).cursors
        };
        let mut few = Queue::default();
        assert!(!few.moved(CURSOR_EVENTS - 1, start), "the thread may sleep");
        assert!(!is_written(&mut few, CURSOR_PAUSE));
        assert!(is_written(&mut few, CURSOR_DELAY), "however few they are");

        let mut batch = Queue::default();
        assert!(!batch.moved(1, start));
        assert!(batch.moved(CURSOR_EVENTS, start), "acknowledged at once");
        assert!(is_written(&mut batch, CURSOR_PAUSE));
    }

    #[test]
    fn cursors_that_rode_on_a_commit_are_not_written_once_more() {
        let mut queue = Queue {
            moves: CURSOR_EVENTS - 1,
            moved_since: Some(EngineTime(0)),
            urgent: true,
            commits: VecDeque::from([(Position(1), Outcome::default())]),
            ..Queue::default()
        };
        let late = EngineTime(0).after(CURSOR_DELAY);
        assert_eq!(queue.take(EngineTime(0), Duration::ZERO).commits.len(), 1);
        assert!(
            !queue.take(late, Duration::ZERO).cursors,
            "nothing has moved since"
        );
        queue.moved(1, late);
        assert!(
            !queue.take(late, Duration::ZERO).cursors,
            "that one waits from now on"
        );
        assert!(queue.take(late.after(CURSOR_DELAY), Duration::ZERO).cursors);
    }
}
