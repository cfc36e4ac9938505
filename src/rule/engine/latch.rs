//! The life of one rule on one device: Normal, Pending, Active, Clearing.
//!
//! A slot is told what its condition says, and that time passes, and answers with at most one [`Effect`]. It knows
//! no journal and no other slot. There may be a million of them: what only an episode or a window needs is boxed.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{basis::Fingerprint, look::Wide, plan::Plan, queue::Place};
use crate::{
    event::{Position, Reason, Severity},
    rule::Verdict,
    time::EngineTime,
};

/// Before all times: never, not yet.
pub(super) const NEVER: EngineTime = EngineTime(i64::MIN);
/// After all times: no deadline.
pub(super) const NO_DEADLINE: EngineTime = EngineTime(i64::MAX);

/// In place of a watch: several metrics decide.
pub(super) const NO_WATCH: u32 = u32::MAX;

/// The readings since the condition became true.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Run {
    pub since: EngineTime,
    /// No number while there was none.
    pub min: f64,
    pub max: f64,
    pub readings: u64,
}

impl Run {
    fn started(since: EngineTime, look: &Look) -> Self {
        let mut run = Self {
            since,
            min: f64::NAN,
            max: f64::NAN,
            readings: 0,
        };
        run.add(look);
        run
    }

    fn add(&mut self, look: &Look) {
        self.readings = self.readings.saturating_add(u64::from(look.entered));
        if let Some(number) = look.number {
            self.min = self.min.min(number);
            self.max = self.max.max(number);
        }
    }

    pub(super) fn min(&self) -> Option<f64> {
        (!self.min.is_nan()).then_some(self.min)
    }

    pub(super) fn max(&self) -> Option<f64> {
        (!self.max.is_nan()).then_some(self.max)
    }
}

/// What an episode was raised as. It stays so, so that a filter treats its events alike.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Names {
    pub severity: Severity,
    pub type_prefix: Arc<str>,
    pub event: Arc<str>,
    pub cleared_event: Arc<str>,
}

/// What was raised.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Episode {
    /// Of this epoch.
    pub number: u64,
    pub run: Run,
    pub raised_at: EngineTime,
    /// When it was said last, by a raise or a reminder.
    pub said_at: EngineTime,
    pub reminders: u32,
    pub flaps: u32,
    pub names: Arc<Names>,
}

/// On what terms an episode goes on. Beside its pointer, where there is room: an episode is smaller by them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Terms {
    /// By what it was last judged, if the rule has other numbers now.
    pub judged_by: Option<Fingerprint>,
    /// It could have ended but for `max-raises`: from then on only quiet ends it.
    pub throttled: bool,
}

/// Where in its life a slot is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Latch {
    #[default]
    Normal,
    Pending(Box<Run>),
    Active(Box<Episode>, Terms),
    Clearing(Box<Episode>, Terms),
}

/// What a slot did.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Effect {
    /// Nothing worth a commit.
    None,
    /// Another state, no event.
    Moved,
    Raised,
    Changed,
    Reminded,
    Cleared(Box<Episode>, Reason),
}

/// What a slot's condition says at some time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// None: nobody knows.
    pub verdict: Option<Verdict>,
    /// The value, if it is one number.
    pub number: Option<f64>,
    /// Whether a reading entered; else time passed.
    pub entered: bool,
}

/// When, by which numbers, and what stands against a raise.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now<'a> {
    pub at: EngineTime,
    pub plan: &'a Plan,
    /// It must not raise: muted, out of its periods, suppressed.
    pub hushed: bool,
    /// The number of the next episode.
    pub next_episode: u64,
}

/// One rule on one device.
#[derive(Debug)]
pub(super) struct Slot {
    pub plan: u32,
    pub device: u32,
    /// Of the rule's own metric; [`NO_WATCH`] for `all` and `any`.
    pub watch: u32,
    /// Where in the engine's queue it waits, if it does.
    pub place: Place,
    pub latch: Latch,
    /// When all raises will have been paid for, at one per `per / count`: `max-raises` as a leaky bucket,
    /// so that any rate is remembered in one number.
    pub paid: EngineTime,
    /// When the state was entered: nothing happens before what already happened.
    pub entered: EngineTime,
    /// What `silent-for` counts from; [`NEVER`] for other rules.
    pub heard: EngineTime,
    /// The last commit that touched it.
    pub committed: Position,
    /// What more than the last value it looks at.
    pub wide: Option<Box<Wide>>,
}

/// There may be eight thousand rules and a thousand devices.
const _: () = assert!(size_of::<Slot>() <= 72 && size_of::<Episode>() <= 72 && size_of::<Run>() <= 32);

impl Slot {
    /// Judges what the condition says.
    pub(super) fn judge(&mut self, look: &Look, now: &Now<'_>) -> Effect {
        let at = now.at.max(self.entered);
        let verdict = look.verdict;
        match &mut self.latch {
            Latch::Normal if verdict == Some(Verdict::Holds) => {
                let run = Run::started(at, look);
                if now.plan.hold.is_zero() && !now.hushed && self.raise_from(now.plan) <= at {
                    return self.raise(run, at, now);
                }
                self.enter(Latch::Pending(Box::new(run)), at);
                Effect::Moved
            }
            Latch::Normal => Effect::None,
            Latch::Pending(run) if verdict == Some(Verdict::Holds) => {
                run.add(look);
                Effect::None
            }
            // Also if nobody knows: the condition must be known to hold all the time.
            Latch::Pending(_) => {
                self.enter(Latch::Normal, at);
                Effect::Moved
            }
            Latch::Active(episode, _) => {
                episode.run.add(look);
                match verdict {
                    None => Effect::None,
                    Some(Verdict::Clears) => self.quieten(at, now),
                    Some(Verdict::Holds | Verdict::Between) => self.stay_active(at, Effect::None),
                }
            }
            Latch::Clearing(episode, _) => {
                episode.run.add(look);
                if verdict == Some(Verdict::Clears) {
                    return Effect::None;
                }
                if verdict.is_some() {
                    episode.flaps = episode.flaps.saturating_add(1);
                }
                let Latch::Clearing(episode, terms) = std::mem::take(&mut self.latch) else {
                    return Effect::None;
                };
                self.enter(Latch::Active(episode, terms), at);
                if verdict.is_some() {
                    self.stay_active(at, Effect::Moved)
                } else {
                    Effect::Moved
                }
            }
        }
    }

    /// Does what is due by now, whatever the condition said last: call [`Slot::judge`] first.
    pub(super) fn elapse(&mut self, now: &Now<'_>) -> Effect {
        let at = now.at.max(self.entered);
        match std::mem::take(&mut self.latch) {
            Latch::Pending(run)
                if !now.hushed && run.since.after(now.plan.hold).max(self.raise_from(now.plan)) <= at =>
            {
                self.raise(*run, at, now)
            }
            Latch::Clearing(episode, terms) if quiet_from(terms, self.entered, now.plan) <= at => {
                self.clear(episode, terms, at)
            }
            Latch::Active(mut episode, terms) if is_reminder_due(&episode, now.plan, at) => {
                remind(&mut episode, at);
                self.latch = Latch::Active(episode, terms);
                Effect::Reminded
            }
            Latch::Clearing(mut episode, terms) if is_reminder_due(&episode, now.plan, at) => {
                remind(&mut episode, at);
                self.latch = Latch::Clearing(episode, terms);
                Effect::Reminded
            }
            unmoved => {
                self.latch = unmoved;
                Effect::None
            }
        }
    }

    /// Something stands against it from now on: an open episode ends. That its condition is true goes on, if it does:
    /// the next look tells.
    pub(super) fn hush(&mut self, reason: Reason, at: EngineTime) -> Effect {
        match std::mem::take(&mut self.latch) {
            Latch::Active(episode, _) | Latch::Clearing(episode, _) => {
                let run = Box::new(episode.run.clone());
                self.enter(Latch::Pending(run), at.max(self.entered));
                Effect::Cleared(episode, reason)
            }
            unmoved => {
                self.latch = unmoved;
                Effect::None
            }
        }
    }

    /// When the state ends or says something by itself.
    pub(super) fn due(&self, plan: &Plan) -> EngineTime {
        let reminder = |episode: &Episode| {
            plan.remind_every
                .map_or(NO_DEADLINE, |every| episode.said_at.after(every))
        };
        match &self.latch {
            Latch::Normal => NO_DEADLINE,
            Latch::Active(episode, _) => reminder(episode),
            Latch::Pending(run) => run.since.after(plan.hold).max(self.raise_from(plan)),
            Latch::Clearing(episode, terms) => quiet_from(*terms, self.entered, plan).min(reminder(episode)),
        }
    }

    pub(super) fn episode(&self) -> Option<&Episode> {
        match &self.latch {
            Latch::Active(episode, _) | Latch::Clearing(episode, _) => Some(episode),
            Latch::Normal | Latch::Pending(_) => None,
        }
    }

    fn enter(&mut self, latch: Latch, at: EngineTime) {
        self.latch = latch;
        self.entered = at;
    }

    fn raise(&mut self, run: Run, at: EngineTime, now: &Now<'_>) -> Effect {
        self.paid = self.paid.max(at).after(now.plan.raise_interval());
        let episode = Episode {
            number: now.next_episode,
            run,
            raised_at: at,
            said_at: at,
            reminders: 0,
            flaps: 0,
            names: Arc::clone(&now.plan.basis.names),
        };
        self.enter(Latch::Active(Box::new(episode), Terms::default()), at);
        Effect::Raised
    }

    /// The clear condition became true.
    fn quieten(&mut self, at: EngineTime, now: &Now<'_>) -> Effect {
        let out_of_raises = self.raise_from(now.plan) > at.after(now.plan.clear_hold);
        let Latch::Active(episode, mut terms) = std::mem::take(&mut self.latch) else {
            return Effect::None;
        };
        terms.throttled |= out_of_raises;
        if quiet_from(terms, at, now.plan) <= at {
            return self.clear(episode, terms, at);
        }
        self.enter(Latch::Clearing(episode, terms), at);
        Effect::Moved
    }

    fn stay_active(&mut self, at: EngineTime, otherwise: Effect) -> Effect {
        let Latch::Active(_, terms) = &mut self.latch else {
            return otherwise;
        };
        if terms.judged_by.take().is_none() {
            return otherwise;
        }
        self.entered = at;
        Effect::Changed
    }

    fn clear(&mut self, episode: Box<Episode>, terms: Terms, at: EngineTime) -> Effect {
        self.enter(Latch::Normal, at);
        let reason = if terms.judged_by.is_some() {
            Reason::RuleChanged
        } else {
            Reason::BackToNormal
        };
        Effect::Cleared(episode, reason)
    }

    /// From when on a raise keeps `max-raises`.
    fn raise_from(&self, plan: &Plan) -> EngineTime {
        let burst = plan.rule.max_raises.per.saturating_sub(plan.raise_interval());
        let micros = i64::try_from(burst.as_micros()).unwrap_or(i64::MAX);
        self.paid.shifted(micros.saturating_neg())
    }
}

fn is_reminder_due(episode: &Episode, plan: &Plan, at: EngineTime) -> bool {
    plan.remind_every
        .is_some_and(|every| episode.said_at.after(every) <= at)
}

fn remind(episode: &mut Episode, at: EngineTime) {
    episode.said_at = at;
    episode.reminders = episode.reminders.saturating_add(1);
}

/// When an episode may end whose clear condition is true since it is Clearing: after `clear-hold`, and if it is throttled not before
/// the time of one raise was quiet.
fn quiet_from(terms: Terms, since: EngineTime, plan: &Plan) -> EngineTime {
    let hold = if terms.throttled {
        plan.clear_hold.max(plan.raise_interval())
    } else {
        plan.clear_hold
    };
    since.after(hold)
}
