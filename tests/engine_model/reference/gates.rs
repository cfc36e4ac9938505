//! "Suppression, periods, muting" in docs/rules.md: when a rule may not speak, whatever its condition says.

use std::{collections::BTreeSet, sync::Arc};

use tidegate::{
    event::Reason,
    rule::{Period, Rule, engine::MuteTarget},
};

use super::{
    Key, Reference, Second,
    life::Plan,
    values::{self, Say, seconds},
};

#[derive(Clone, Debug)]
pub struct Mute {
    pub target: MuteTarget,
    pub until: Second,
}

/// What `unless` does to a rule on a device.
#[derive(Clone, Debug, Default)]
pub struct Suppression {
    /// It holds, and has not cleared since.
    on: bool,
    /// When it last ended.
    ended: Option<Second>,
    /// When it last went stale.
    stale: Option<Second>,
}

impl Reference {
    /// Why the rule may not speak at this time; none: it may.
    pub(super) fn closed(&self, key: &Key, plan: &Plan, at: Second) -> Option<Reason> {
        let unless = &self.slots[key].unless;
        if self.mutes.iter().any(|mute| silences(&mute.target, key)) {
            Some(Reason::Muted)
        } else if self.out.contains(&plan.rule.name) {
            Some(Reason::OutOfPeriod)
        } else if unless.is_on(plan, at) {
            Some(Reason::Suppressed)
        } else {
            None
        }
    }

    pub fn mute(&mut self, target: MuteTarget, now: Second, until: Second) {
        self.until(now);
        self.mutes.retain(|mute| mute.target != target);
        self.mutes.push(Mute {
            target: target.clone(),
            until,
        });
        self.mutes.sort_by_key(|mute| format!("{:?}", mute.target));
        self.hush(&target, now);
    }

    pub(super) fn hush(&mut self, target: &MuteTarget, now: Second) {
        for key in self.in_order() {
            if silences(target, &key) {
                self.close(&key, Reason::Muted, now, false);
            }
        }
    }

    /// Whether it was muted. "Raised again at the end if they still hold."
    pub fn unmute(&mut self, target: &MuteTarget, now: Second) -> bool {
        let before = self.mutes.len();
        self.mutes.retain(|mute| mute.target != *target);
        if self.mutes.len() == before {
            return false;
        }
        for key in self.in_order() {
            if silences(target, &key) {
                self.speak_again(&key, now);
            }
        }
        true
    }

    fn speak_again(&mut self, key: &Key, now: Second) {
        let plan = self.plan(key);
        self.suppress(key, &plan, now, false);
        self.turn(key, now, false);
    }

    /// What concerns whole rules and devices comes before what concerns one of them.
    pub(super) fn open_and_close(&mut self, now: Second) {
        if now < self.opened {
            return;
        }
        self.opened = now;
        while let Some(over) = self.mutes.iter().find(|mute| mute.until <= now).cloned() {
            self.unmute(&over.target, now);
        }
        for rule in self.rules.clone() {
            let is_out = !self.is_in_period(&rule, now);
            if self.out.contains(&rule.name) == is_out {
                continue;
            }
            if is_out {
                self.out.insert(Arc::clone(&rule.name));
                self.leave_period(&rule.name, now);
                continue;
            }
            self.out.remove(&rule.name);
            for key in self.in_order().into_iter().filter(|(name, _)| *name == rule.name) {
                self.speak_again(&key, now);
            }
        }
    }

    /// The rules that are outside of their periods.
    pub(super) fn outside(&self, now: Second) -> BTreeSet<Arc<str>> {
        let rules = self.rules.iter().filter(|rule| !self.is_in_period(rule, now));
        rules.map(|rule| Arc::clone(&rule.name)).collect()
    }

    pub(super) fn leave_period(&mut self, rule: &Arc<str>, now: Second) {
        for key in self.in_order().into_iter().filter(|(name, _)| name == rule) {
            self.close(&key, Reason::OutOfPeriod, now, false);
        }
    }

    /// "Inside any of them counts"; "with an unknown clock it counts as inside".
    pub(super) fn is_in_period(&self, rule: &Rule, at: Second) -> bool {
        let Some(ahead) = self.wall else { return true };
        rule.during.is_empty() || rule.during.iter().any(|period| contains(period, at + ahead))
    }

    /// Looks at `unless` again: when it begins to hold, "an active episode is cleared with reason `suppressed`".
    pub(super) fn suppress(&mut self, key: &Key, plan: &Plan, at: Second, by_reading: bool) {
        let Some(unless) = &plan.rule.unless else { return };
        let from = self.slots[key].from;
        let said = values::part(
            &self.readings,
            from,
            &key.1,
            &unless.part,
            plan.rule.stale_after,
            at,
        );
        let device = values::of(&unless.part, &key.1);
        let last = values::readings(&self.readings, device, &unless.part.watched.metric, at).last();
        let stale_at = last.map_or(at, |kept| kept.at + seconds(plan.rule.stale_after));
        let suppression = &mut self.slots.get_mut(key).unwrap().unless;
        match said {
            Some(Say::Holds) if !suppression.on => {
                suppression.on = true;
                self.close(key, Reason::Suppressed, at, by_reading);
            }
            // "A reading that comes at the very end of `stale-after` is still in time."
            Some(Say::Between) if !suppression.on && suppression.stale == Some(at) => {
                suppression.on = true;
                self.close(key, Reason::Suppressed, at, by_reading);
            }
            Some(Say::Holds | Say::Between) => {}
            Some(Say::Clears) | None => {
                if std::mem::take(&mut suppression.on) {
                    suppression.stale = said.is_none().then_some(stale_at);
                    // If it is unknown because it is stale: when that began.
                    suppression.ended = Some(at.min(stale_at));
                }
            }
        }
    }
}

impl Suppression {
    /// "While it holds and `unless-after` longer."
    fn is_on(&self, plan: &Plan, at: Second) -> bool {
        let after = plan
            .rule
            .unless
            .as_ref()
            .map_or(0, |unless| seconds(unless.after));
        self.on || self.ended.is_some_and(|ended| at < ended + after)
    }
}

fn silences(target: &MuteTarget, key: &Key) -> bool {
    match target {
        MuteTarget::Device(device) => *device == key.1,
        MuteTarget::Rule(name) => *name == key.0,
    }
}

/// The periods of these stories are hours in UTC, named for what they are: `10:00..10:05`, to not included.
fn contains(period: &Arc<Period>, wall: Second) -> bool {
    let minute = |text: &str| {
        let (hours, minutes) = text.split_once(':').unwrap();
        hours.parse::<Second>().unwrap() * 60 + minutes.parse::<Second>().unwrap()
    };
    let (from, to) = period.name.split_once("..").unwrap();
    let (from, to) = (minute(from), minute(to));
    let now = wall.rem_euclid(86_400) / 60;
    if from <= to {
        from <= now && now < to
    } else {
        from <= now || now < to
    }
}
