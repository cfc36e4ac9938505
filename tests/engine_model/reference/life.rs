//! The drawing of docs/rules.md: Normal, Pending, Active, Clearing.

use std::sync::Arc;

use tidegate::{
    event::{Reason, Severity, Transition},
    reading::{DeviceId, Metric, Value},
    rule::{Condition, Override, Part, Pattern, Rule},
};

use super::{
    Key, Reference, Second,
    gates::Suppression,
    values::{self, Kept, Say, seconds},
};
use crate::told::{Figures, Told};

/// A rule as it is for one device: of the overrides, the last that matches decides, per key.
#[derive(Clone, Debug)]
pub struct Plan {
    pub rule: Arc<Rule>,
    pub condition: Condition,
    pub hold: Second,
    pub clear_hold: Second,
    pub severity: Severity,
    pub remind_every: Option<Second>,
}

impl Plan {
    pub fn new(rule: &Arc<Rule>, device: &DeviceId) -> Self {
        fn last<'a, T: Clone + 'a>(
            mut overrides: impl Iterator<Item = &'a Override>,
            key: fn(&Override) -> Option<&T>,
        ) -> Option<T> {
            overrides.find_map(key).cloned()
        }
        let matching = || {
            rule.overrides
                .iter()
                .rev()
                .filter(|it| any_matches(&it.devices, device))
        };
        Self {
            rule: Arc::clone(rule),
            condition: last(matching(), |it| it.condition.as_ref()).unwrap_or_else(|| rule.condition.clone()),
            hold: seconds(last(matching(), |it| it.hold.as_ref()).unwrap_or(rule.hold)),
            clear_hold: seconds(last(matching(), |it| it.clear_hold.as_ref()).unwrap_or(rule.clear_hold)),
            severity: last(matching(), |it| it.severity.as_ref()).unwrap_or(rule.severity),
            remind_every: last(matching(), |it| it.remind_every.as_ref())
                .or(rule.remind_every)
                .map(seconds),
        }
    }

    /// What an event quotes of it: an edit that changes none of it goes unnoticed.
    pub fn numbers(&self) -> (&Condition, Second, Second, Option<Second>) {
        (&self.condition, self.hold, self.clear_hold, self.remind_every)
    }

    /// The time that one raise costs.
    pub fn raise_interval(&self) -> Second {
        seconds(self.rule.max_raises.per) / Second::from(self.rule.max_raises.count)
    }
}

/// The patterns of these stories are `*` or a whole name.
pub fn any_matches(patterns: &[Pattern], device: &DeviceId) -> bool {
    patterns
        .iter()
        .any(|it| &*it.0 == "*" || &*it.0 == device.as_str())
}

/// One rule on one device.
#[derive(Clone, Debug)]
pub struct Slot {
    pub state: State,
    /// Since when it is in this state: nothing happens before what already happened.
    pub entered: Second,
    /// Every second up to this one was gone through.
    pub asked: Second,
    /// The last one at which somebody looked.
    pub last: Second,
    /// Its windows hold no reading before this one.
    pub from: usize,
    /// When it was raised, ever, and what a raise cost then.
    pub raises: Vec<(Second, Second)>,
    /// After a kill `silent-for` starts anew: when, and how many readings were known then.
    pub silent_from: (Second, usize),
    pub unless: Suppression,
    /// The values it was judged by since its condition became true.
    pub looks: Vec<Value>,
}

#[derive(Clone, Debug)]
pub enum State {
    Normal,
    Pending(Run),
    Active(Episode),
    /// Since when the clear condition has been true.
    Clearing(Episode, Second),
}

/// Since when the condition is true, and with which of all readings that began.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub since: Second,
    pub first: usize,
}

#[derive(Clone, Debug)]
pub struct Episode {
    pub number: u64,
    pub run: Run,
    pub raised_at: Second,
    /// The last raise or reminder.
    pub said_at: Second,
    pub reminder: u32,
    pub flaps: u32,
    /// Names and severity stay what they were when it was raised.
    pub rule: Arc<Rule>,
    pub severity: Severity,
    /// It could have ended but for `max-raises`.
    pub throttled: bool,
    /// The rule as it was when it was last judged, if it has other numbers now.
    pub judged_by: Option<Box<Plan>>,
}

impl Slot {
    pub fn new(at: Second, from: usize) -> Self {
        Self {
            state: State::Normal,
            from,
            entered: Second::MIN,
            asked: at - 1,
            last: at,
            raises: Vec::new(),
            silent_from: (Second::MIN / 2, 0),
            unless: Suppression::default(),
            looks: Vec::new(),
        }
    }

    pub fn episode(&self) -> Option<&Episode> {
        match &self.state {
            State::Active(episode) | State::Clearing(episode, _) => Some(episode),
            State::Normal | State::Pending(_) => None,
        }
    }

    pub fn episode_mut(&mut self) -> Option<&mut Episode> {
        match &mut self.state {
            State::Active(episode) | State::Clearing(episode, _) => Some(episode),
            State::Normal | State::Pending(_) => None,
        }
    }

    /// Whether a raise at `at` would be one more than `max-raises`: a bucket that leaks one raise per interval.
    fn is_out_of_raises(&self, plan: &Plan, at: Second) -> bool {
        let mut paid = Second::MIN;
        for (raise, cost) in &self.raises {
            paid = paid.max(*raise) + cost;
        }
        paid > at + seconds(plan.rule.max_raises.per) - plan.raise_interval()
    }

    /// When an episode ends whose clear condition became true at `since`: after `clear-hold`; a throttled one
    /// not before it has been quiet for the time of one raise.
    fn quiet_from(episode: &Episode, plan: &Plan, since: Second) -> Second {
        let quiet = if episode.throttled {
            plan.raise_interval()
        } else {
            0
        };
        since + plan.clear_hold.max(quiet)
    }

    fn is_reminder_due(&self, plan: &Plan, at: Second) -> bool {
        let due = |episode: &Episode| {
            plan.remind_every
                .is_some_and(|every| episode.said_at + every <= at)
        };
        self.episode().is_some_and(due)
    }
}

impl Reference {
    /// A reading of something that the rule looks at has come.
    pub(super) fn read(&mut self, key: &Key, at: Second) {
        let plan = self.plan(key);
        let newest = self.readings.last().expect("one was taken");
        let by_reading = values::listens(&plan.condition, &key.1, newest);
        // What suppresses it is not judged by it before.
        self.counted = self.readings.len() - 1;
        self.suppress(key, &plan, at, by_reading);
        self.counted = self.readings.len();
        self.judge(key, &plan, at, by_reading);
    }

    /// A second has come, the next one after `last` at which somebody looked: what is due?
    pub(super) fn tick(&mut self, key: &Key, last: Second, at: Second) {
        let plan = self.plan(key);
        if at < self.slots[key].entered {
            return;
        }
        self.suppress(key, &plan, at, false);
        if self.is_due(key, &plan, last, at) {
            self.turn(key, at, false);
        }
    }

    /// The rule is asked, and does what is due.
    pub(super) fn turn(&mut self, key: &Key, at: Second, by_reading: bool) {
        let plan = self.plan(key);
        self.judge(key, &plan, at, by_reading);
        self.elapse(key, &plan, at);
    }

    fn is_due(&self, key: &Key, plan: &Plan, last: Second, at: Second) -> bool {
        let slot = &self.slots[key];
        let by_state = match &slot.state {
            State::Normal | State::Active(_) => false,
            State::Pending(run) => run.since + plan.hold <= at && self.may_raise(key, plan, at),
            State::Clearing(episode, since) => Slot::quiet_from(episode, plan, *since) <= at,
        };
        // What it looks at changes by itself: a silence begins, a reading leaves its window or is stale.
        let by_itself = match &plan.condition {
            Condition::Silent { .. } => {
                !matches!(slot.state, State::Pending(_)) && self.say(plan, key, at) == Some(Say::Holds)
            }
            Condition::Value(watched) => {
                values::has_left(&self.readings, slot.from, &key.1, watched, last, at)
            }
            Condition::All(parts) | Condition::Any(parts) => {
                let left = |part: &Part| {
                    values::has_left(
                        &self.readings,
                        slot.from,
                        values::of(part, &key.1),
                        &part.watched,
                        last,
                        at,
                    )
                };
                parts.iter().any(left) || self.say(plan, key, last) != self.say(plan, key, at)
            }
        };
        let mut unless = plan.rule.unless.iter().map(|unless| &unless.part);
        let by_unless = unless.any(|part| {
            let device = values::of(part, &key.1);
            values::has_left(&self.readings, slot.from, device, &part.watched, last, at)
        });
        by_state || by_itself || by_unless || slot.is_reminder_due(plan, at)
    }

    /// One step in the drawing.
    fn judge(&mut self, key: &Key, plan: &Plan, at: Second, by_reading: bool) {
        let at = at.max(self.slots[key].entered);
        let said = self.say(plan, key, at);
        let may_raise = self.may_raise(key, plan, at);
        let run = Run {
            since: at,
            first: self.readings.len() - usize::from(by_reading),
        };
        let value = match &plan.condition {
            Condition::Value(watched) => {
                values::looked_at(&self.readings, self.slots[key].from, &key.1, watched, at)
            }
            Condition::Silent { .. } | Condition::All(_) | Condition::Any(_) => None,
        };
        let slot = self.slots.get_mut(key).unwrap();
        if matches!(slot.state, State::Normal) {
            slot.looks.clear();
        }
        slot.looks.extend(value);
        match (&mut slot.state, said) {
            (State::Normal, Some(Say::Holds)) => {
                if plan.hold == 0 && may_raise {
                    self.raise(key, plan, run, at);
                } else {
                    self.enter(key, State::Pending(run), at);
                }
            }
            (State::Normal, _) | (State::Pending(_), Some(Say::Holds)) => {}
            // Also if it is unknown: that it holds must be known all the time.
            (State::Pending(_), _) => self.enter(key, State::Normal, at),
            // What is unknown neither raises nor clears.
            (State::Active(_), None) | (State::Clearing(..), Some(Say::Clears)) => {}
            (State::Clearing(episode, _), None) => {
                let episode = episode.clone();
                self.enter(key, State::Active(episode), at);
            }
            (State::Active(episode), Some(Say::Clears)) => {
                let mut episode = episode.clone();
                episode.throttled |= slot.is_out_of_raises(plan, at + plan.clear_hold);
                let ends = Slot::quiet_from(&episode, plan, at);
                self.enter(key, State::Clearing(episode, at), at);
                if ends <= at {
                    self.clear(key, at, None);
                }
            }
            (State::Active(_), Some(_)) => self.still_holds(key, at),
            // A reading that breaks the clear condition goes back to Active: a flap.
            (State::Clearing(episode, _), Some(_)) => {
                let mut episode = episode.clone();
                episode.flaps += 1;
                self.enter(key, State::Active(episode), at);
                self.still_holds(key, at);
            }
        }
    }

    /// What is due by now.
    fn elapse(&mut self, key: &Key, plan: &Plan, at: Second) {
        let at = at.max(self.slots[key].entered);
        match &self.slots[key].state {
            State::Pending(run) if run.since + plan.hold <= at && self.may_raise(key, plan, at) => {
                self.raise(key, plan, *run, at);
            }
            State::Clearing(episode, since) if Slot::quiet_from(episode, plan, *since) <= at => {
                self.clear(key, at, None);
            }
            // One raise per episode; `remind-every` adds reminders.
            _ if self.slots[key].is_reminder_due(plan, at) => {
                let episode = self.slots.get_mut(key).unwrap().episode_mut().unwrap();
                episode.reminder += 1;
                episode.said_at = at;
                let episode = episode.clone();
                self.tell(key, &episode, Transition::Reminded, None, at);
            }
            _ => {}
        }
    }

    fn may_raise(&self, key: &Key, plan: &Plan, at: Second) -> bool {
        self.closed(key, plan, at).is_none() && !self.slots[key].is_out_of_raises(plan, at)
    }

    /// The rule may not speak from now on: an open episode ends. What still holds waits.
    pub(super) fn close(&mut self, key: &Key, reason: Reason, at: Second, by_reading: bool) {
        let at = at.max(self.slots[key].entered);
        let run = self.slots[key].episode().map(|episode| episode.run);
        self.clear(key, at, Some(reason));
        if let Some(run) = run {
            // `since`: when the condition became true, whatever speaks against the alarm meanwhile.
            self.enter(key, State::Pending(run), at);
        }
        self.turn(key, at, by_reading);
    }

    /// What the rule's condition says at this time; none if it is unknown.
    fn say(&self, plan: &Plan, key: &Key, at: Second) -> Option<Say> {
        let from = self.slots[key].from;
        let device = &key.1;
        let all = |parts: &[Part]| -> Vec<Option<Say>> {
            let part = |part| values::part(&self.readings, from, device, part, plan.rule.stale_after, at);
            parts.iter().map(part).collect()
        };
        match &plan.condition {
            Condition::Value(watched) => values::judge(
                &watched.test,
                &values::looked_at(&self.readings, from, device, watched, at)?,
            ),
            Condition::Silent { metric, after } => {
                let silent = self.silence(key, metric, at)? >= seconds(*after);
                Some(if silent { Say::Holds } else { Say::Clears })
            }
            Condition::All(parts) => values::all_of(&all(parts)),
            Condition::Any(parts) => values::any_of(&all(parts)),
        }
    }

    /// How long no reading of the metric has come; none from a device that never sent it nor is expected to.
    fn silence(&self, key: &Key, metric: &Metric, at: Second) -> Option<Second> {
        let device = &key.1;
        let sent = values::readings(&self.readings, device, metric, at).last();
        let mut facts = self.devices.iter();
        let is_expected =
            facts.any(|facts| *facts.id.0 == *device.as_str() && facts.expects.contains(metric));
        // "The gateway's own absence does not count", if it came after.
        let since = |from: Second, known: usize| {
            let absences = self.absences.iter();
            let absences = absences.filter(|it| known <= it.after && from <= it.back_at);
            let absent = absences.map(|it| it.back_at - it.gone_at.max(from));
            at - from - absent.sum::<Second>()
        };
        let sent = sent.map(|kept| since(kept.at, kept.number + 1));
        let (anew, known) = self.slots[key].silent_from;
        Some(sent.or(is_expected.then(|| since(0, 0)))?.min(since(anew, known)))
    }
}

impl Reference {
    fn enter(&mut self, key: &Key, state: State, at: Second) {
        let slot = self.slots.get_mut(key).unwrap();
        slot.state = state;
        slot.entered = at;
    }

    fn raise(&mut self, key: &Key, plan: &Plan, run: Run, at: Second) {
        self.episodes += 1;
        let episode = Episode {
            number: self.episodes,
            run,
            raised_at: at,
            said_at: at,
            reminder: 0,
            flaps: 0,
            rule: Arc::clone(&plan.rule),
            severity: plan.severity,
            throttled: false,
            judged_by: None,
        };
        let raise = (at, plan.raise_interval());
        self.slots.get_mut(key).unwrap().raises.push(raise);
        self.enter(key, State::Active(episode.clone()), at);
        self.tell(key, &episode, Transition::Raised, None, at);
    }

    /// Cleared; because the rule was edited if it has not been judged since.
    pub(super) fn clear(&mut self, key: &Key, at: Second, reason: Option<Reason>) {
        let Some(episode) = self.slots[key].episode().cloned() else {
            return;
        };
        let reason = reason.unwrap_or(if episode.judged_by.is_some() {
            Reason::RuleChanged
        } else {
            Reason::BackToNormal
        });
        self.enter(key, State::Normal, at);
        self.tell(key, &episode, Transition::Cleared, Some(reason), at);
    }

    /// `changed`: the rule's numbers were edited while it was active, and it still holds.
    fn still_holds(&mut self, key: &Key, at: Second) {
        let slot = self.slots.get_mut(key).unwrap();
        let Some(episode) = slot.episode_mut().filter(|episode| episode.judged_by.is_some()) else {
            return;
        };
        episode.judged_by = None;
        let episode = episode.clone();
        slot.entered = at;
        self.tell(key, &episode, Transition::Changed, None, at);
    }

    /// What an episode is told with: the value now, and all that was looked at since the condition became true.
    fn figures(&self, key: &Key, episode: &Episode, at: Second) -> Figures {
        let plan = self.plan(key);
        let (device, from) = (&key.1, self.slots[key].from);
        let came: Vec<usize> = (episode.run.first..self.counted)
            .filter(|index| {
                let remembered = Kept {
                    forgotten: false,
                    ..self.readings[*index].clone()
                };
                values::listens(&plan.condition, device, &remembered)
            })
            .collect();
        let value = match &plan.condition {
            Condition::Value(watched) => values::looked_at(&self.readings, from, device, watched, at),
            Condition::Silent { metric, .. } => values::readings(&self.readings, device, metric, at)
                .last()
                .map(|kept| kept.value.clone()),
            Condition::All(_) | Condition::Any(_) => None,
        };
        let looks: Vec<Value> = match &plan.condition {
            Condition::Value(_) => self.slots[key].looks.clone(),
            Condition::Silent { .. } => came
                .iter()
                .map(|index| self.readings[*index].value.clone())
                .collect(),
            Condition::All(_) | Condition::Any(_) => Vec::new(),
        };
        let numbers = || looks.iter().filter_map(values::number);
        Figures {
            value,
            min: numbers().reduce(f64::min),
            max: numbers().reduce(f64::max),
            readings: came.len() as u64,
        }
    }

    pub(super) fn plan(&self, key: &Key) -> Plan {
        let rule = self.rules.iter().find(|rule| rule.name == key.0);
        Plan::new(rule.expect("a slot has a rule"), &key.1)
    }

    fn tell(
        &mut self,
        key: &Key,
        episode: &Episode,
        transition: Transition,
        reason: Option<Reason>,
        at: Second,
    ) {
        let (rule, device) = key.clone();
        let name = match transition {
            Transition::Cleared => &episode.rule.cleared_event,
            Transition::Raised | Transition::Reminded | Transition::Changed => &episode.rule.event,
        };
        self.told.push(Told {
            at,
            transition,
            reason,
            name: name.to_string(),
            rule: rule.to_string(),
            figures: self.figures(key, episode, at),
            device,
            episode: episode.number,
            severity: episode.severity,
            since: episode.run.since,
            raised_at: episode.raised_at,
            reminder: if transition == Transition::Reminded {
                episode.reminder
            } else {
                0
            },
            flaps: episode.flaps,
        });
    }
}
