//! "State survives" in docs/rules.md: restarts, edits, and what is forgotten.

use std::{mem::discriminant, sync::Arc, time::Duration};

use tidegate::{
    event::Reason,
    reading::{DeviceId, Metric},
    rule::{Condition, Rule, Watched, engine::MuteTarget},
};

use super::{
    Key, Reference, Second,
    life::{Plan, State, any_matches},
    values::{self, Say},
};

/// The gateway was gone and is back.
#[derive(Clone, Debug)]
pub struct Restart {
    /// In order, not killed.
    pub clean: bool,
    pub gone_at: Second,
    pub back_at: Second,
    /// How often it is saved when something was heard of.
    pub checkpoint: Duration,
    /// The same boot, or both ends synchronised: it is known how old everything is that is remembered.
    pub known: bool,
    /// What the wall clock is ahead of the story; none if it is not synchronised.
    pub wall: Option<Second>,
    pub rules: Vec<Arc<Rule>>,
}

/// From when to when nobody ran after a clean stop.
pub struct Absence {
    pub gone_at: Second,
    pub back_at: Second,
    /// So many readings came before it.
    pub after: usize,
}

impl Reference {
    pub fn restart(&mut self, restart: Restart) {
        self.wall = restart.wall;
        if !restart.known {
            self.clocks.known_from = self.readings.len();
        }
        if restart.clean {
            self.absences.push(Absence {
                gone_at: restart.gone_at,
                back_at: restart.back_at,
                after: self.readings.len(),
            });
        } else {
            self.kill(&restart);
        }
        // Nobody ran meanwhile: what fell due happens now.
        for slot in self.slots.values_mut() {
            slot.asked = restart.back_at - 1;
        }
        self.edit(&restart.rules, restart.back_at);
    }

    /// "After kill -9 [..] `silent-for` starts anew."
    fn kill(&mut self, restart: &Restart) {
        self.trust_holds(restart);
        let (back_at, known) = (restart.back_at, self.readings.len());
        for key in self.slots.keys().cloned().collect::<Vec<_>>() {
            let is_silence = matches!(self.plan(&key).condition, Condition::Silent { .. });
            let slot = self.slots.get_mut(&key).unwrap();
            if is_silence && !matches!(slot.state, State::Active(_)) {
                slot.silent_from = (back_at, known);
            }
            if is_silence && matches!(slot.state, State::Pending(_)) {
                slot.state = State::Normal;
            }
        }
    }

    /// "A hold goes on": what it waits for may have been heard of until the next checkpoint after what was saved, or
    /// until now, unless it was stale a checkpoint before.
    fn trust_holds(&mut self, restart: &Restart) {
        let gone_at = restart.gone_at;
        let latest = restart.back_at.min(gone_at + values::seconds(restart.checkpoint));
        let mut heard = Vec::new();
        for (key, slot) in &self.slots {
            let wanted = match &slot.state {
                State::Pending(_) => Say::Holds,
                State::Clearing(..) => Say::Clears,
                State::Normal | State::Active(_) => continue,
            };
            let plan = self.plan(key);
            let stale = plan.rule.stale_after + restart.checkpoint;
            for part in plan.condition.parts() {
                let said = values::part(&self.readings, slot.from, &key.1, part, stale, gone_at);
                let device = values::of(part, &key.1);
                let mut readings = self.readings.iter().rev();
                let last = readings.find(|kept| kept.is(device, &part.watched.metric));
                heard.extend(last.filter(|_| said == Some(wanted)).map(|last| last.number));
            }
        }
        for number in heard {
            let kept = &mut self.readings[number];
            kept.heard = kept.heard.max(latest);
        }
    }

    /// "An edited rule keeps its episodes if its name stays." Another metric or another kind of condition starts
    /// anew; a removed rule clears with `rule-removed`.
    pub fn edit(&mut self, rules: &[Arc<Rule>], now: Second) {
        self.forget_what_nobody_looks_at();
        for key in self.slots.keys().cloned().collect::<Vec<_>>() {
            let before = self.plan(&key);
            let after = rules.iter().find(|rule| rule.name == key.0);
            let after = after.map(|rule| Plan::new(rule, &key.1));
            match after {
                None => self.end(&key, Reason::RuleRemoved, now),
                Some(after) if !is_same(&before, &after, &key.1) => self.end(&key, Reason::RuleChanged, now),
                Some(after) => {
                    if let Some(episode) = self.slots.get_mut(&key).unwrap().episode_mut() {
                        let last = episode.judged_by.take().unwrap_or(Box::new(before));
                        episode.judged_by = (last.numbers() != after.numbers()).then_some(last);
                    }
                }
            }
        }
        self.rules = rules.to_vec();
        self.out = self.outside(now);
        self.go_on(now);
    }

    /// What stands against a rule is looked at anew, also for what was not there before.
    fn go_on(&mut self, now: Second) {
        self.begin_anew(now);
        for mute in self.mutes.clone() {
            self.hush(&mute.target, now);
        }
        for name in self.out.clone() {
            self.leave_period(&name, now);
        }
        self.until_again(now);
    }

    /// Nothing is kept over a restart or an edit of what no rule looks at.
    fn forget_what_nobody_looks_at(&mut self) {
        for index in 0..self.readings.len() {
            let kept = &self.readings[index];
            let by = |rule: &Arc<Rule>, own: &DeviceId| {
                let plan = Plan::new(rule, own);
                let has_slot = self.slots.contains_key(&(Arc::clone(&rule.name), own.clone()));
                (has_slot || values::speaks_against(&plan, own, kept)) && values::watches(&plan, own, kept)
            };
            let devices = self.all_devices();
            let watched = self
                .rules
                .iter()
                .any(|rule| values::names(rule, kept) || devices.iter().any(|own| by(rule, own)));
            self.readings[index].forgotten |= !watched;
        }
        for device in self.all_devices() {
            if !self
                .readings
                .iter()
                .any(|kept| kept.device == device && !kept.forgotten)
            {
                self.clocks.forget(&device);
            }
        }
    }

    /// What was not there before has heard no silence yet.
    fn begin_anew(&mut self, now: Second) {
        let before: Vec<Key> = self.slots.keys().cloned().collect();
        let known = self.readings.len();
        self.make_slots(now, known);
        for (_, slot) in self.slots.iter_mut().filter(|(key, _)| !before.contains(key)) {
            slot.silent_from = (now, known);
        }
    }

    /// `tidegate device forget ID`.
    pub fn forget(&mut self, device: &DeviceId, now: Second) {
        let mut sent = self.readings.iter();
        let mut facts = self.devices.iter();
        let was_known = sent.any(|kept| kept.device == *device && !kept.forgotten)
            || self.slots.keys().any(|(_, it)| it == device)
            || facts.any(|facts| *facts.id.0 == *device.as_str() && !facts.expects.is_empty())
            || self.is_named(device);
        if !was_known {
            return;
        }
        for key in self
            .slots
            .keys()
            .filter(|(_, it)| it == device)
            .cloned()
            .collect::<Vec<_>>()
        {
            self.end(&key, Reason::DeviceRemoved, now);
        }
        for kept in self.readings.iter_mut().filter(|kept| kept.device == *device) {
            kept.forgotten = true;
        }
        self.clocks.forget(device);
        self.forget_what_nobody_looks_at();
        self.mutes
            .retain(|mute| mute.target != MuteTarget::Device(device.clone()));
        self.go_on(now);
    }

    fn end(&mut self, key: &Key, reason: Reason, now: Second) {
        let at = now.max(self.slots[key].entered);
        self.clear(key, at, Some(reason));
        self.slots.remove(key);
    }
}

/// Whether an edited rule speaks of the same thing.
fn is_same(before: &Plan, after: &Plan, device: &DeviceId) -> bool {
    kind(&before.condition) == kind(&after.condition)
        && metric(&before.condition) == metric(&after.condition)
        && any_matches(&after.rule.devices, device)
}

/// The key it has in the configuration.
fn kind(condition: &Condition) -> String {
    match condition {
        Condition::Value(watched) => format!("{:?}", discriminant(&watched.test)),
        Condition::Silent { .. } => "silent-for".to_owned(),
        Condition::All(_) => "all".to_owned(),
        Condition::Any(_) => "any".to_owned(),
    }
}

pub fn metric(condition: &Condition) -> Option<&Metric> {
    match condition {
        Condition::Value(Watched { metric, .. }) | Condition::Silent { metric, .. } => Some(metric),
        Condition::All(_) | Condition::Any(_) => None,
    }
}
