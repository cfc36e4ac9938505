//! The engine's task: readings and time in, commits out. It decides nothing and never waits for the disk.

use std::{pin::pin, time::Duration};

use tokio::sync::{mpsc, watch};
use tracing::info;

use crate::{
    event::Position,
    journal::{Health, Journal},
    reading::Reading,
    recorder::Recorder,
    rule::{
        engine::{Counts, Engine, Skipped},
        state::Outcome,
    },
    source::{Answer, Delivery},
    time::{Clock, EngineTime},
};

/// How the engine stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Status {
    /// Grows while the engine lives: the watchdog looks at it.
    pub pulse: u64,
    /// Episodes active now.
    pub active: usize,
    /// What it counted.
    pub counts: Counts,
}

/// How often the pulse beats at rest.
const PULSE: Duration = Duration::from_secs(1);
/// Deliveries taken between two looks at the journal.
const BATCH: usize = 64;

/// Drives the engine until every source has hung up.
pub async fn evaluate(
    mut engine: Engine,
    mut intake: mpsc::Receiver<Delivery>,
    journal: Journal,
    recorder: Option<Recorder>,
    clock: Clock,
    status: watch::Sender<Status>,
) {
    let mut health = journal.health();
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        beat(&status, &engine);
        if !wait_while_parked(&mut health, &status, &intake).await {
            return; // Dropping the intake answers every waiting ticket "never".
        }
        let now = clock.now();
        let idle = engine
            .next_deadline()
            .map_or(PULSE, |deadline| deadline.since(now).min(PULSE));
        // Both are cancel-safe: `recv_many` takes nothing unless it is the one that completes.
        tokio::select! {
            biased;
            taken = intake.recv_many(&mut batch, BATCH) => {
                if taken == 0 {
                    // A clean stop remembers what a crash may forget, so that a clean restart changes no event.
                    let mut outcome = Outcome::default();
                    engine.set_moment(clock.moment());
                    engine.advance(clock.now(), &mut outcome);
                    engine.checkpoint(&mut outcome);
                    commit(&mut engine, outcome, &journal);
                    info!("every source has ended; the engine stops");
                    return;
                }
                engine.set_moment(clock.moment());
                for delivery in batch.drain(..) {
                    let evaluated = take(&mut engine, delivery, &journal);
                    if let Some(recorder) = &recorder {
                        recorder.record(evaluated, now);
                    }
                }
                // The intake was emptied after `now` was read, so no earlier reading is still in it: a device
                // that sends only late readings holds nobody's deadline back.
                if taken < BATCH {
                    advance(&mut engine, now, &journal);
                }
            }
            () = pin!(tokio::time::sleep(idle)) => {
                engine.set_moment(clock.moment());
                advance(&mut engine, clock.now(), &journal);
            }
        }
    }
}

fn advance(engine: &mut Engine, now: EngineTime, journal: &Journal) {
    let mut outcome = Outcome::default();
    engine.advance(now, &mut outcome);
    commit(engine, outcome, journal);
}

/// Answers with what was evaluated.
fn take(engine: &mut Engine, delivery: Delivery, journal: &Journal) -> Vec<Reading> {
    let mut outcome = Outcome::default();
    let mut evaluated = delivery.readings;
    let came = evaluated.len();
    let mut refused = 0;
    evaluated.retain(|reading| match engine.observe(reading, &mut outcome) {
        Ok(()) => true,
        Err(skipped) => {
            refused += usize::from(skipped == Skipped::OverLimit);
            false
        }
    });
    let depends_on = outcome.depends_on;
    let committed = commit(engine, outcome, journal);
    // What was evaluated, changing something or not, rests on the disk; only a delivery of which nothing was
    // evaluated is answered at once.
    delivery.ticket.answer(if refused > 0 && refused == came {
        Answer::OverLimit
    } else {
        Answer::AfterDurable(committed.map_or(depends_on, |position| position.max(depends_on)))
    });
    evaluated
}

/// Hands what was decided to the journal, if anything was, and tells the engine where it stands.
pub(super) fn commit(engine: &mut Engine, outcome: Outcome, journal: &Journal) -> Option<Position> {
    if outcome.events.is_empty() && outcome.state.is_empty() {
        return None;
    }
    let position = journal.append(outcome);
    engine.committed(position);
    Some(position)
}

fn beat(status: &watch::Sender<Status>, engine: &Engine) {
    status.send_modify(|status| {
        status.pulse = status.pulse.wrapping_add(1);
        status.active = engine.active();
        status.counts = engine.counts();
    });
}

/// While anything is parked the engine takes no delivery and fires no timer. False: there will be no room for what
/// it decides any more, because the journal has stopped or everything else does.
async fn wait_while_parked(
    health: &mut watch::Receiver<Health>,
    status: &watch::Sender<Status>,
    intake: &mpsc::Receiver<Delivery>,
) -> bool {
    while health.borrow_and_update().parked {
        status.send_modify(|status| status.pulse = status.pulse.wrapping_add(1));
        // The journal's pulse comes at least once a second.
        if intake.is_closed() || health.changed().await.is_err() {
            return false;
        }
    }
    health.has_changed().is_ok()
}
