//! What a slot looks at besides the last value of its metric: windows, sub-conditions, silence, `unless`.

use std::time::Duration;

use super::{
    latch::{Latch, Look, NEVER, NO_DEADLINE, Slot},
    plan::Plan,
    table::Table,
    watch::{Watch, is_comparable},
    window::Window,
};
use crate::{
    reading::Value,
    rule::{Aggregate, Condition, Verdict, Watched},
    time::EngineTime,
};

/// What a slot needs that looks at more than the last value of one metric.
#[derive(Debug)]
pub(super) struct Wide {
    /// In the order of [`Plan::inputs`].
    pub inputs: Box<[Input]>,
    pub unless: Option<Box<Quiet>>,
    /// What its inputs said then was heeded.
    pub looked: EngineTime,
    /// Its windows wait to be saved.
    pub queued: bool,
}

/// A metric that a condition looks at.
#[derive(Debug)]
pub(super) struct Input {
    pub watch: u32,
    /// What its last value said.
    pub judged: Option<Verdict>,
    pub window: Option<Box<Window>>,
}

/// The state of `unless`.
#[derive(Debug)]
pub(super) struct Quiet {
    pub input: Input,
    /// It holds, and did not clear since.
    pub on: bool,
    /// Until then it does not raise; while `on`, as far as is known now.
    pub until: EngineTime,
}

impl Input {
    pub(super) fn new(watch: u32, watched: &Watched) -> Self {
        Self {
            watch,
            judged: None,
            window: watched.window.is_some().then(Box::default),
        }
    }

    /// Takes a reading of its metric. False if its condition can do nothing with it.
    pub(super) fn enter(&mut self, watched: &Watched, at: EngineTime, value: &Value) -> bool {
        let (Some(window), Some(spec)) = (&mut self.window, &watched.window) else {
            return is_comparable(&watched.test, value);
        };
        match value {
            Value::Number(number) => window.enter(spec, at, *number),
            // What is counted need not be a number.
            _ if spec.of == Aggregate::Count => window.enter(spec, at, 0.0),
            _ => return false,
        }
        true
    }

    pub(super) fn pass(&mut self, watched: &Watched, at: EngineTime) {
        if let (Some(window), Some(spec)) = (&mut self.window, &watched.window) {
            window.pass(spec, at);
        }
    }

    pub(super) fn leaves(&self, watched: &Watched) -> EngineTime {
        match (&self.window, &watched.window) {
            (Some(window), Some(spec)) => window.leaves(spec).unwrap_or(NO_DEADLINE),
            _ => NO_DEADLINE,
        }
    }

    /// The value it looks at; none if that is unknown.
    pub(super) fn value(&self, watched: &Watched, watches: &Table<Watch>) -> Option<Value> {
        match (&self.window, &watched.window) {
            (Some(window), Some(spec)) => window.value(spec).map(Value::Number),
            _ => watches[self.watch].for_test(&watched.test),
        }
    }

    /// What the value says at `at`; none if nothing was heard for `stale`.
    pub(super) fn verdict(
        &self,
        watched: &Watched,
        watches: &Table<Watch>,
        at: EngineTime,
        stale: Duration,
    ) -> Option<Verdict> {
        if is_stale(&watches[self.watch], at, stale) {
            return None;
        }
        watched.test.judge(&self.value(watched, watches)?)
    }
}

pub(super) fn is_stale(watch: &Watch, at: EngineTime, stale: Duration) -> bool {
    watch.seen() == NEVER || watch.seen().after(stale) <= at
}

impl Slot {
    /// What its condition says at `at`.
    pub(super) fn look(&self, plan: &Plan, watches: &Table<Watch>, at: EngineTime, entered: bool) -> Look {
        let (verdict, number) = match &plan.condition {
            Condition::Value(watched) => match self.value(plan, watches) {
                Some(value) => (watched.test.judge(&value), number(&value)),
                None => (None, None),
            },
            Condition::Silent { after, .. } => {
                let is_silent = self.heard.after(*after) <= at;
                let verdict = if is_silent {
                    Verdict::Holds
                } else {
                    Verdict::Clears
                };
                let number = watches[self.watch]
                    .last()
                    .filter(|_| entered)
                    .and_then(|value| number(&value));
                // What was never sent, and is not expected, cannot fall silent.
                ((self.heard != NEVER).then_some(verdict), number)
            }
            Condition::All(_) => (self.composed(plan, watches, at, Verdict::Holds), None),
            Condition::Any(_) => (self.composed(plan, watches, at, Verdict::Clears), None),
        };
        Look {
            verdict,
            number,
            entered,
        }
    }

    /// The value its rule is about; none for `all` and `any`, and if it is unknown.
    pub(super) fn value(&self, plan: &Plan, watches: &Table<Watch>) -> Option<Value> {
        match &plan.condition {
            Condition::Value(watched) => match self.wide.as_ref().and_then(|wide| wide.inputs.first()) {
                Some(input) => input.value(watched, watches),
                None => watches[self.watch].for_test(&watched.test),
            },
            Condition::Silent { .. } => watches[self.watch].last(),
            Condition::All(_) | Condition::Any(_) => None,
        }
    }

    /// `all` says `every` if every part says so, and the opposite as soon as one does; `any` the other way round.
    fn composed(
        &self,
        plan: &Plan,
        watches: &Table<Watch>,
        at: EngineTime,
        every: Verdict,
    ) -> Option<Verdict> {
        let inputs = self.wide.as_ref()?.inputs.iter().zip(plan.inputs());
        let mut unknown = false;
        let mut between = false;
        for (input, (_, watched)) in inputs {
            match input.verdict(watched, watches, at, plan.rule.stale_after) {
                None => unknown = true,
                Some(Verdict::Between) => between = true,
                Some(verdict) if verdict != every => return Some(verdict),
                Some(_) => {}
            }
        }
        if unknown {
            None
        } else if between {
            Some(Verdict::Between)
        } else {
            Some(every)
        }
    }

    /// Lets time go on in all its windows.
    pub(super) fn pass(&mut self, plan: &Plan, at: EngineTime) {
        let Some(wide) = &mut self.wide else { return };
        for (input, (_, watched)) in wide.inputs.iter_mut().zip(plan.inputs()) {
            input.pass(watched, at);
        }
        if let (Some(quiet), Some(unless)) = (&mut wide.unless, &plan.rule.unless) {
            quiet.input.pass(&unless.part.watched, at);
        }
    }

    /// Whether `unless` looks at a window, which changes without a reading.
    pub(super) fn has_quiet_window(&self) -> bool {
        let quiet = self.wide.as_ref().and_then(|wide| wide.unless.as_ref());
        quiet.is_some_and(|quiet| quiet.input.window.is_some())
    }

    /// When what it looks at changes by itself.
    pub(super) fn looks_again(&self, plan: &Plan, watches: &Table<Watch>) -> EngineTime {
        let silence = match &plan.condition {
            Condition::Silent { after, .. } if self.awaits_silence() && self.heard != NEVER => {
                self.heard.after(*after)
            }
            _ => NO_DEADLINE,
        };
        let Some(wide) = &self.wide else {
            return silence;
        };
        let inputs = wide.inputs.iter().zip(plan.inputs());
        let leaves = inputs.map(|(input, (_, watched))| input.leaves(watched));
        let unless = self.quiet_leaves(plan);
        // What is unknown ends a hold.
        let waits = plan.is_composite() && matches!(self.latch, Latch::Pending(_) | Latch::Clearing(..));
        let stale = wide.inputs.iter().filter(|_| waits).map(|input| {
            let seen = watches[input.watch].seen();
            let stale_at = seen.after(plan.rule.stale_after);
            if seen != NEVER && stale_at > wide.looked {
                stale_at
            } else {
                NO_DEADLINE
            }
        });
        leaves
            .chain(stale)
            .chain([unless, silence])
            .min()
            .unwrap_or(NO_DEADLINE)
    }

    /// When something leaves the window of its `unless`.
    pub(super) fn quiet_leaves(&self, plan: &Plan) -> EngineTime {
        let quiet = self.wide.as_ref().and_then(|wide| wide.unless.as_ref());
        match (quiet, &plan.rule.unless) {
            (Some(quiet), Some(unless)) => quiet.input.leaves(&unless.part.watched),
            _ => NO_DEADLINE,
        }
    }

    /// Whether the beginning of a silence would tell it anything.
    fn awaits_silence(&self) -> bool {
        match &self.latch {
            Latch::Normal | Latch::Clearing(..) => true,
            Latch::Pending(_) => false,
            Latch::Active(_, terms) => terms.judged_by.is_some(),
        }
    }
}

pub(super) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => Some(*number),
        Value::Bool(_) | Value::Text(_) => None,
    }
}
