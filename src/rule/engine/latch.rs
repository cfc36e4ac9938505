//! The life of one rule on one device: Normal, Pending, Active, Clearing.
//!
//! A slot is told readings and deadlines and answers with at most one [`Effect`]. It knows no journal and no
//! other slot.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::plan::{About, Plan};
use crate::{
    event::{EpisodeId, Position, Reason, Severity},
    reading::Value,
    rule::Verdict,
    time::EngineTime,
};

/// The readings since the condition became true.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
    pub since: EngineTime,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub readings: u64,
}

impl Run {
    fn started(since: EngineTime, value: &Value) -> Self {
        let mut run = Self {
            since,
            min: None,
            max: None,
            readings: 0,
        };
        run.add(value);
        run
    }

    fn add(&mut self, value: &Value) {
        self.readings = self.readings.saturating_add(1);
        if let Value::Number(number) = value {
            self.min = Some(self.min.map_or(*number, |min| min.min(*number)));
            self.max = Some(self.max.map_or(*number, |max| max.max(*number)));
        }
    }
}

/// What was raised. Names and severity stay as they were then, so that a filter treats its events alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Episode {
    pub id: EpisodeId,
    pub run: Run,
    pub raised_at: EngineTime,
    pub flaps: u32,
    /// The rule has other numbers than those it was last judged by.
    pub edited: bool,
    /// It could have ended but for `max-raises`: from then on only quiet ends it.
    pub throttled: bool,
    pub severity: Severity,
    pub type_prefix: Arc<str>,
    pub event: Arc<str>,
    pub cleared_event: Arc<str>,
}

/// Where in its life a slot is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) enum Latch {
    #[default]
    Normal,
    Pending(Run),
    Active(Episode),
    /// Since when the clear condition has been true.
    Clearing(Episode, EngineTime),
}

/// What a reading or a deadline did.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Effect {
    /// Nothing worth a commit.
    None,
    /// Another state, no event.
    Moved,
    Raised(Episode),
    Changed(Episode),
    Cleared(Episode, Reason),
}

/// One rule on one device.
#[derive(Debug)]
pub(super) struct Slot {
    pub rule: usize,
    pub plan: Arc<Plan>,
    pub about: Arc<About>,
    pub latch: Latch,
    /// When all raises will have been paid for, at one per `per / count`: `max-raises` as a leaky bucket,
    /// so that any rate is remembered in one number.
    pub paid: EngineTime,
    /// The last value that could be judged.
    pub value: Option<Value>,
    pub unit: Option<Arc<str>>,
    /// When the state was entered: nothing happens before what already happened.
    pub entered: EngineTime,
    /// As it stands in the engine's queue.
    pub deadline: Option<EngineTime>,
    /// The last commit that touched it.
    pub committed: Position,
    /// Decided, not yet committed.
    pub touched: bool,
}

impl Slot {
    pub(super) fn new(rule: usize, plan: Arc<Plan>, about: Arc<About>) -> Self {
        Self {
            rule,
            plan,
            about,
            latch: Latch::Normal,
            paid: EngineTime(i64::MIN),
            value: None,
            unit: None,
            entered: EngineTime(i64::MIN),
            deadline: None,
            committed: Position::default(),
            touched: false,
        }
    }

    /// When the state ends by itself.
    pub(super) fn due(&self) -> Option<EngineTime> {
        match &self.latch {
            Latch::Normal | Latch::Active(_) => None,
            Latch::Pending(run) => Some(run.since.after(self.plan.hold)),
            Latch::Clearing(episode, since) => Some(self.quiet_from(episode, *since)),
        }
    }

    /// Takes a reading. `id` names the episode that it may raise.
    pub(super) fn reading(
        &mut self,
        at: EngineTime,
        value: &Value,
        unit: Option<&Arc<str>>,
        id: EpisodeId,
    ) -> Effect {
        let Some(verdict) = self.plan.condition.judge(value) else {
            return Effect::None;
        };
        let at = at.max(self.entered);
        self.value = Some(value.clone());
        self.unit = unit.cloned();
        match std::mem::take(&mut self.latch) {
            Latch::Normal if verdict == Verdict::Holds => {
                let run = Run::started(at, value);
                if self.plan.hold.is_zero() {
                    return self.raise(run, at, id);
                }
                self.enter(Latch::Pending(run), at);
                Effect::Moved
            }
            Latch::Normal => Effect::None,
            Latch::Pending(mut run) if verdict == Verdict::Holds => {
                run.add(value);
                self.latch = Latch::Pending(run);
                Effect::None
            }
            Latch::Pending(_) => {
                self.enter(Latch::Normal, at);
                Effect::Moved
            }
            Latch::Active(mut episode) => {
                episode.run.add(value);
                if verdict != Verdict::Clears {
                    return self.stay_active(episode, at, Effect::None);
                }
                episode.throttled |= self.is_out_of_raises(at.after(self.plan.clear_hold));
                if self.quiet_from(&episode, at) <= at {
                    return self.clear(episode, at);
                }
                self.enter(Latch::Clearing(episode, at), at);
                Effect::Moved
            }
            Latch::Clearing(mut episode, since) => {
                episode.run.add(value);
                if verdict == Verdict::Clears {
                    self.latch = Latch::Clearing(episode, since);
                    return Effect::None;
                }
                episode.flaps = episode.flaps.saturating_add(1);
                self.entered = at;
                self.stay_active(episode, at, Effect::Moved)
            }
        }
    }

    /// Takes the deadline that [`Slot::due`] named. An edited rule judges the last value by its new numbers.
    pub(super) fn deadline(&mut self, at: EngineTime, id: EpisodeId) -> Effect {
        let verdict = self
            .value
            .as_ref()
            .and_then(|value| self.plan.condition.judge(value));
        match std::mem::take(&mut self.latch) {
            Latch::Pending(run) if verdict == Some(Verdict::Holds) => self.raise(run, at, id),
            Latch::Pending(_) => {
                self.enter(Latch::Normal, at);
                Effect::Moved
            }
            Latch::Clearing(episode, _) if verdict == Some(Verdict::Clears) => self.clear(episode, at),
            Latch::Clearing(episode, _) => {
                self.entered = at;
                self.stay_active(episode, at, Effect::Moved)
            }
            unmoved @ (Latch::Normal | Latch::Active(_)) => {
                self.latch = unmoved;
                Effect::None
            }
        }
    }

    /// Whether nothing has to be remembered.
    pub(super) fn is_plain(&self, now: EngineTime) -> bool {
        self.latch == Latch::Normal && self.paid <= now
    }

    fn enter(&mut self, latch: Latch, at: EngineTime) {
        self.latch = latch;
        self.entered = at;
    }

    fn raise(&mut self, run: Run, at: EngineTime, id: EpisodeId) -> Effect {
        self.paid = self.paid.max(at).after(self.plan.raise_interval());
        let rule = &self.plan.rule;
        let episode = Episode {
            id,
            run,
            raised_at: at,
            flaps: 0,
            edited: false,
            throttled: false,
            severity: self.plan.severity,
            type_prefix: Arc::clone(&rule.type_prefix),
            event: Arc::clone(&rule.event),
            cleared_event: Arc::clone(&rule.cleared_event),
        };
        self.enter(Latch::Active(episode.clone()), at);
        Effect::Raised(episode)
    }

    fn stay_active(&mut self, mut episode: Episode, at: EngineTime, otherwise: Effect) -> Effect {
        if !std::mem::take(&mut episode.edited) {
            self.latch = Latch::Active(episode);
            return otherwise;
        }
        self.enter(Latch::Active(episode.clone()), at);
        Effect::Changed(episode)
    }

    fn clear(&mut self, episode: Episode, at: EngineTime) -> Effect {
        self.enter(Latch::Normal, at);
        let reason = if episode.edited {
            Reason::RuleChanged
        } else {
            Reason::BackToNormal
        };
        Effect::Cleared(episode, reason)
    }

    /// When an episode may end whose clear condition became true at `since`: after `clear-hold`, and if it is
    /// throttled not before the time of one raise was quiet.
    fn quiet_from(&self, episode: &Episode, since: EngineTime) -> EngineTime {
        let held = since.after(self.plan.clear_hold);
        if episode.throttled {
            held.max(since.after(self.plan.raise_interval()))
        } else {
            held
        }
    }

    /// Whether a raise at `at` would break `max-raises`.
    fn is_out_of_raises(&self, at: EngineTime) -> bool {
        self.paid
            > at.after(
                self.plan
                    .rule
                    .max_raises
                    .per
                    .saturating_sub(self.plan.raise_interval()),
            )
    }
}
