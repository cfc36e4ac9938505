//! The engine's task: readings and time in, commits out. It decides nothing and never waits for the disk.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use super::{absence::Absence, announce::Announcer};
use crate::{
    event::{Epoch, Position},
    reading::{DeviceId, Reading},
    recorder::Recorder,
    rule::{
        engine::{ActiveEpisode, Counts, Engine, Mute, MuteTarget, Refused, Setup, Skipped},
        state::Outcome,
    },
    source::{Answer, Delivery, INTAKE_LEN},
    time::{Clock, EngineTime},
};

/// How the engine stands.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Grows while the engine lives: the watchdog looks at it.
    pub pulse: u64,
    /// Episodes active now.
    pub active: usize,
    /// What it counted.
    pub counts: Counts,
    /// When the last reading was evaluated.
    pub heard: Option<EngineTime>,
    /// Whose reading was the last that `max-devices` or `max-metrics` left no room for.
    pub refused: Option<DeviceId>,
}

/// What may be asked of the engine, between two batches of readings. An answer with a position says what to wait for.
#[derive(Debug)]
pub enum Asked {
    /// Go on with another configuration; devices that are silent for so long are forgotten.
    Reconfigure(Box<Setup>, Duration, oneshot::Sender<Position>),
    /// Which of these there are.
    Known(Vec<MuteTarget>, oneshot::Sender<Vec<MuteTarget>>),
    /// Which rule has this event.
    RuleOf(String, oneshot::Sender<Option<Arc<str>>>),
    /// Mute for so long, and why.
    Mute(MuteTarget, Duration, String, oneshot::Sender<Position>),
    /// End a mute.
    Unmute(MuteTarget, oneshot::Sender<Position>),
    /// Forget a device; none: it was never seen.
    Forget(DeviceId, oneshot::Sender<Option<Position>>),
    /// What is open.
    Episodes(oneshot::Sender<Open>),
    /// The same, and record it as `ActiveAlarms` of this epoch. Only the engine's task can: nothing comes between the
    /// list and the events before and behind it. The position is where the list stands, if it is recorded at all.
    List(Epoch, oneshot::Sender<(Open, Option<Position>)>),
}

/// What is open, and what is muted.
#[derive(Clone, Debug, Default)]
pub struct Open {
    /// The open episodes.
    pub episodes: Vec<ActiveEpisode>,
    /// The mutes that go on.
    pub mutes: Vec<Mute>,
    /// Devices that were heard and not forgotten.
    pub devices: usize,
}

/// Questions that may wait for the engine; who asks waits.
pub const QUESTIONS: usize = 16;

/// How often the pulse beats at rest.
const PULSE: Duration = Duration::from_secs(1);
/// Deliveries taken between two looks at the journal.
const BATCH: usize = 64;

/// What the engine's task is connected to.
#[derive(Debug)]
pub struct House {
    /// Where it commits to, and what of it is off.
    pub announcer: Announcer,
    /// Keeps readings; none: nobody does.
    pub recorder: Option<Recorder>,
    /// The clocks.
    pub clock: Clock,
    /// How often windows are saved.
    pub checkpoint: Duration,
    /// Who is silent for how long.
    pub absence: Absence,
}

/// Drives the engine until every source has hung up. Every `checkpoint` what its windows took in is saved, and who has
/// been silent for too long is forgotten.
pub async fn evaluate(
    mut engine: Engine,
    mut intake: mpsc::Receiver<Delivery>,
    mut asked: mpsc::Receiver<Asked>,
    house: House,
    status: watch::Sender<Status>,
) {
    let House {
        announcer,
        recorder,
        clock,
        mut checkpoint,
        mut absence,
    } = house;
    let mut health = announcer.journal().health();
    let mut batch = Vec::with_capacity(BATCH);
    let mut saved = clock.now();
    // Since when no batch has emptied the intake, and how much was taken since.
    let mut flood: Option<(EngineTime, usize)> = None;
    loop {
        beat(&status, &engine);
        while health.borrow_and_update().parked {
            status.send_modify(|status| status.pulse = status.pulse.wrapping_add(1));
            // While anything is parked the engine takes no delivery and fires no timer. People are few, so they are
            // answered: a reload may be the remedy. The journal's pulse comes at least once a second.
            tokio::select! {
                Some(question) = asked.recv() => answer(&mut engine, question, (&mut checkpoint, &mut absence), &announcer, &clock),
                // There will be no room for what it decides any more: the journal has stopped, or all else does.
                // Dropping the intake answers every waiting ticket "never".
                changed = health.changed() => if changed.is_err() { return },
            }
            if intake.is_closed() {
                return;
            }
        }
        if health.has_changed().is_err() {
            return;
        }
        let now = clock.now();
        if now.since(saved) >= checkpoint {
            saved = now;
            let mut outcome = Outcome::default();
            engine.set_moment(clock.moment());
            engine.save_windows(&mut outcome);
            let due = absence.look(now, engine.heard(), &mut outcome);
            commit(&mut engine, outcome, &announcer);
            for device in due {
                forget(&mut engine, &device, &announcer);
                info!(%device, "not heard from for [mqtt] forget-after: forgotten, its alarms are cleared");
            }
        }
        let idle = engine
            .next_deadline()
            .map_or(PULSE, |deadline| deadline.since(now).min(PULSE));
        // All are cancel-safe: `recv` and `recv_many` take nothing unless they are the one that completes.
        tokio::select! {
            biased;
            Some(question) = asked.recv() => answer(&mut engine, question, (&mut checkpoint, &mut absence), &announcer, &clock),
            taken = intake.recv_many(&mut batch, BATCH) => {
                if taken == 0 {
                    // A clean stop remembers what a crash may forget, so that a clean restart changes no event.
                    let mut outcome = Outcome::default();
                    engine.set_moment(clock.moment());
                    engine.advance(clock.now(), &mut outcome);
                    absence.save(clock.now(), &mut outcome);
                    commit(&mut engine, outcome, &announcer);
                    save_all(&mut engine, &announcer);
                    info!("every source has ended; the engine stops");
                    return;
                }
                engine.set_moment(clock.moment());
                for delivery in batch.drain(..) {
                    let evaluated = take(&mut engine, delivery, &announcer, &status);
                    if !evaluated.is_empty() {
                        status.send_modify(|status| status.heard = Some(now));
                    }
                    if let Some(recorder) = &recorder {
                        recorder.record(evaluated, now);
                    }
                }
                // Once the intake was emptied, or all was taken that fits it, no reading that was there at that time
                // is still in it: devices that send only late readings hold nobody's deadline back.
                let (since, count) = flood.take().unwrap_or((now, 0));
                if taken < BATCH {
                    advance(&mut engine, now, &announcer);
                } else if count + taken > INTAKE_LEN {
                    advance(&mut engine, since, &announcer);
                } else {
                    flood = Some((since, count + taken));
                }
            }
            () = pin!(tokio::time::sleep(idle)) => {
                engine.set_moment(clock.moment());
                advance(&mut engine, clock.now(), &announcer);
            }
        }
    }
}

fn advance(engine: &mut Engine, now: EngineTime, announcer: &Announcer) {
    let mut outcome = Outcome::default();
    engine.advance(now, &mut outcome);
    commit(engine, outcome, announcer);
}

/// Answers with what was evaluated.
fn take(
    engine: &mut Engine,
    delivery: Delivery,
    announcer: &Announcer,
    status: &watch::Sender<Status>,
) -> Vec<Reading> {
    let mut outcome = Outcome::default();
    let mut evaluated = delivery.readings;
    let came = evaluated.len();
    let mut refused = 0;
    evaluated.retain(|reading| match engine.observe(reading, &mut outcome) {
        Ok(()) => true,
        Err(skipped) => {
            if skipped == Skipped::OverLimit {
                refused += 1;
                status.send_modify(|status| status.refused = Some(reading.device.clone()));
            }
            false
        }
    });
    let depends_on = outcome.depends_on;
    let committed = commit(engine, outcome, announcer).unwrap_or_default();
    // What was evaluated, changing something or not, rests on the disk; only a delivery of which nothing was
    // evaluated is answered at once, and one that has no room for all that it decided.
    delivery.ticket.answer(
        if committed == Position::NEVER || (refused > 0 && refused == came) {
            Answer::OverLimit
        } else {
            Answer::AfterDurable(committed.max(depends_on))
        },
    );
    evaluated
}

/// Hands what was decided to the journal, if anything was, and tells the engine where it stands. What is much goes in
/// pieces: a journal takes no commit of half its size. What it has no room for the engine takes back, and the position
/// is [`Position::NEVER`].
pub fn commit(engine: &mut Engine, mut outcome: Outcome, announcer: &Announcer) -> Option<Position> {
    announcer.drop_what_is_off(&mut outcome);
    let (mut position, mut refused, mut is_refused) = (None, Refused::default(), false);
    for piece in outcome.pieces() {
        let offered = if refused.is_empty() {
            offer(piece, announcer)
        } else {
            Err(piece)
        };
        let piece = match offered {
            Ok(at) => {
                position = position.max(at);
                continue;
            }
            Err(piece) => piece,
        };
        for part in piece.smallest() {
            // No clear without its raise.
            let offered = if refused.concerns(&part) {
                Err(part)
            } else {
                offer(part, announcer)
            };
            match offered {
                Ok(at) => position = position.max(at),
                Err(part) => {
                    refused.add(&part);
                    is_refused = true;
                }
            }
        }
    }
    if is_refused {
        let mut back = Outcome::default();
        engine.take_back(&refused, &mut back);
        let parts = back.smallest().filter_map(|part| offer(part, announcer).ok()?);
        engine.committed(parts.max().max(position).unwrap_or_default());
        return Some(Position::NEVER);
    }
    engine.committed(position?);
    position
}

/// What is refused comes back.
fn offer(piece: Outcome, announcer: &Announcer) -> Result<Option<Position>, Outcome> {
    if piece.events.is_empty() && piece.state.is_empty() {
        return Ok(None);
    }
    announcer.journal().offer(piece).map(Some)
}

/// What a clean stop saves. Where the state has no room for all of it, windows and last values stay out; that it was
/// clean is said last, and only if every slot is saved: it vouches for them.
fn save_all(engine: &mut Engine, announcer: &Announcer) {
    let fits = |outcome: Outcome| {
        let mut pieces = outcome.pieces();
        pieces.all(|piece| offer(piece, announcer).is_ok())
    };
    let mut slots = Outcome::default();
    engine.save_slots(&mut slots);
    if !fits(slots) {
        error!(name: "StateFull", "the state has no room for all rules: the next start goes on as after a crash");
        return;
    }
    let mut inputs = Outcome::default();
    engine.save_inputs(&mut inputs);
    if !fits(inputs) {
        warn!("the state has no room for all windows and last values: the next start lacks some");
    }
    let mut vouched = Outcome::default();
    engine.vouch(&mut vouched);
    fits(vouched);
}

fn beat(status: &watch::Sender<Status>, engine: &Engine) {
    status.send_modify(|status| {
        status.pulse = status.pulse.wrapping_add(1);
        status.active = engine.active();
        status.counts = engine.counts();
    });
}

/// Does what is asked.
fn answer(
    engine: &mut Engine,
    asked: Asked,
    (checkpoint, absence): (&mut Duration, &mut Absence),
    announcer: &Announcer,
    clock: &Clock,
) {
    engine.set_moment(clock.moment());
    let mut outcome = Outcome::default();
    match asked {
        Asked::Reconfigure(setup, forget_after, answer) => {
            *checkpoint = setup.checkpoint;
            absence.reconfigure(&setup.devices, forget_after);
            engine.reconfigure(*setup, &mut outcome);
            let position = commit(engine, outcome, announcer).unwrap_or_default();
            reply(answer, position);
        }
        Asked::Known(candidates, answer) => {
            let known = candidates.into_iter().filter(|target| engine.knows(target));
            reply(answer, known.collect());
        }
        Asked::RuleOf(event, answer) => reply(answer, engine.rule_of(&event)),
        Asked::Mute(target, length, reason, answer) => {
            engine.mute(target, length, &reason, &mut outcome);
            let position = commit(engine, outcome, announcer).unwrap_or_default();
            reply(answer, position);
        }
        Asked::Unmute(target, answer) => {
            engine.unmute(&target, &mut outcome);
            let position = commit(engine, outcome, announcer).unwrap_or_default();
            reply(answer, position);
        }
        Asked::Forget(device, answer) => {
            reply(answer, forget(engine, &device, announcer));
        }
        Asked::Episodes(answer) => reply(answer, open(engine)),
        Asked::List(epoch, answer) => {
            let open = open(engine);
            let position = announcer.active_alarms(epoch, &open.episodes);
            reply(answer, (open, position));
        }
    }
}

/// Where it stands that a device is forgotten; none: it was never seen.
fn forget(engine: &mut Engine, device: &DeviceId, announcer: &Announcer) -> Option<Position> {
    let mut outcome = Outcome::default();
    let known = engine.forget(device, &mut outcome);
    let position = commit(engine, outcome, announcer).unwrap_or_default();
    known.then_some(position)
}

fn open(engine: &Engine) -> Open {
    Open {
        episodes: engine.episodes().collect(),
        mutes: engine.mutes().collect(),
        devices: engine.devices_seen(),
    }
}

/// Who asked may have gone away meanwhile: it is done all the same.
fn reply<T>(answer: oneshot::Sender<T>, what: T) {
    _ = answer.send(what).is_ok();
}
