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
    CURSOR_DELAY, CURSOR_EVENTS, End, Error, Health, Shared,
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

/// Runs until the journal is closed, abandoned or has failed.
pub(super) fn run(mut writer: Writer, health: &watch::Sender<Health>) -> Result<(), Error> {
    let mut pulse = 0;
    let mut expired: Option<EngineTime> = None;
    let mut first = true;
    loop {
        // New sinks' cursors and what opening has to tell do not wait for company.
        let work = if std::mem::take(&mut first) {
            Work {
                cursors: true,
                ..Work::default()
            }
        } else {
            wait(&writer.shared)
        };
        take(&mut writer, work.commits);
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
        let parked = !writer.write(work.cursors || work.end == Some(End::Close))?;
        if work.cursors {
            writer.shared.queue().moved(parked);
        }
        writer.shared.queue().parked = parked;
        pulse += 1;
        health.send_replace(writer.health(pulse, parked));
        match work.end {
            Some(End::Close) => return writer.close(),
            Some(End::Abandon) => return Ok(()),
            None => {}
        }
        writer.drop_archives()?;
        let now = writer.shared.clock.now();
        if let Some(max_age) = writer.settings.max_age
            && expired.is_none_or(|at| now.since(at) >= EXPIRY)
        {
            expired = Some(now);
            writer.expire(max_age)?;
        }
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
        let mut due = woken.after(PULSE);
        if let Some(since) = queue.since {
            due = due.min(since.after(shared.state_delay));
        }
        if let Some(since) = queue.moved_since {
            due = due.min(since.after(CURSOR_DELAY));
        }
        let cursors =
            queue.moves >= CURSOR_EVENTS || queue.moved_since.is_some_and(|at| now >= at.after(CURSOR_DELAY));
        let freed = queue.parked && queue.moves > 0;
        if queue.urgent || queue.end.is_some() || cursors || freed || now >= due {
            let waited = queue
                .since
                .is_some_and(|since| now >= since.after(shared.state_delay));
            let all = queue.urgent || queue.end.is_some() || waited;
            queue.urgent = false;
            if freed {
                queue.moves = 0;
            }
            let commits = if all {
                std::mem::take(&mut queue.commits)
            } else {
                VecDeque::new()
            };
            if all {
                queue.since = None;
            }
            return Work {
                commits,
                cursors,
                end: queue.end,
            };
        }
        let (guard, _) = shared
            .wake
            .wait_timeout(queue, due.since(now))
            .unwrap_or_else(PoisonError::into_inner);
        queue = guard;
    }
}

impl super::Queue {
    /// The cursors were written, unless there was no room.
    fn moved(&mut self, parked: bool) {
        self.moves = 0;
        self.moved_since = None;
        if parked {
            // They ride on what is written first when there is room.
            self.parked = true;
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
        Health {
            pulse,
            parked,
            last: Sequence(self.catalog.last_sequence()),
            undelivered_bytes: slowest.map_or(0, owed),
            used_bytes: self.total(),
            refused: self.shared.queue().refused,
        }
    }
}
