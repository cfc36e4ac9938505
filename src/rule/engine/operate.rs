//! What people do to a running engine: mute, forget, another configuration, a look at what is open.

use std::{sync::Arc, time::Duration};

use super::{
    ActiveEpisode, Engine, Mute, MuteTarget, Setup,
    hush::Muted,
    latch::{Effect, NEVER},
    saved::{MUTE_COUNTER, SavedMute, encode, forget, mute_key, run_key, slot_key, watch_key},
};
use crate::{
    event::{
        Draft, EpisodeId, Reason,
        gateway::{self, AlarmMuted, AlarmUnmuted, At, Recorded},
    },
    reading::DeviceId,
    rule::{
        DeviceFacts,
        state::{Outcome, StateChange},
    },
    time::EngineTime,
};

/// The longest reason of a mute that is kept, in bytes.
const MAX_REASON: usize = 512;

impl Engine {
    /// Whether there is such a rule, or a device that was seen or is configured by its name.
    pub fn knows(&self, target: &MuteTarget) -> bool {
        match target {
            MuteTarget::Rule(name) => self.rules.iter().any(|rule| rule.name == *name),
            MuteTarget::Device(device) => {
                let configured = |facts: &DeviceFacts| *facts.id.0 == *device.as_str();
                self.devices.find(device).is_some() || self.facts.iter().any(configured)
            }
        }
    }

    /// The name of the rule that raises or clears by this event.
    #[must_use]
    pub fn rule_of(&self, event: &str) -> Option<Arc<str>> {
        let rule = self
            .rules
            .iter()
            .find(|rule| *rule.event == *event || *rule.cleared_event == *event)?;
        Some(Arc::clone(&rule.name))
    }

    /// Mutes a device or a rule: its open episodes end with `muted`, and until the end it raises none. What then
    /// still holds, and has held for `hold`, is raised at once. A second mute takes the place of the first.
    pub fn mute(&mut self, target: MuteTarget, length: Duration, reason: &str, out: &mut Outcome) {
        let at = self.now;
        let number = match self.hushes.mutes.get(&target) {
            Some(muted) => muted.number,
            None => {
                self.mute_number = self.mute_number.saturating_add(1);
                out.state.push(StateChange {
                    key: MUTE_COUNTER.to_vec(),
                    value: Some(encode(&self.mute_number)),
                });
                self.mute_number
            }
        };
        let reason = reason.split_at(reason.floor_char_boundary(MAX_REASON)).0;
        let muted = Muted {
            number,
            until: at.after(length),
            reason: reason.into(),
        };
        let saved = SavedMute {
            at: self.saved_at(),
            number,
            until: muted.until,
            reason: Arc::clone(&muted.reason),
        };
        out.state.push(StateChange {
            key: mute_key(&target),
            value: Some(encode(&saved)),
        });
        let (device, rule) = names(&target);
        let fact = AlarmMuted {
            device,
            rule,
            until: At(muted.until),
            reason: reason.to_owned(),
        };
        out.events.push(self.of_mute(&fact, &target, number, at));
        out.may_end();
        self.apply_mute(&target, true, at, out);
        self.hushes.mute(target, muted);
    }

    /// Ends a mute before its time; false if there was none.
    pub fn unmute(&mut self, target: &MuteTarget, out: &mut Outcome) -> bool {
        let is_muted = self.hushes.mutes.contains_key(target);
        if is_muted {
            self.end_mute(target, "unmuted", self.now, out);
        }
        is_muted
    }

    /// What is muted.
    pub fn mutes(&self) -> impl Iterator<Item = Mute> {
        self.hushes.mutes.iter().map(|(target, muted)| Mute {
            target: target.clone(),
            until: muted.until,
            reason: muted.reason.as_ref().to_owned(),
        })
    }

    /// Forgets a device: its episodes end with `device-removed`, and nothing is known of it any more. False if it
    /// was never seen.
    pub fn forget(&mut self, device: &DeviceId, out: &mut Outcome) -> bool {
        let Some(number) = self
            .devices
            .find(device)
            .filter(|number| self.devices[*number].seen)
        else {
            return false;
        };
        let at = self.now;
        for index in self.devices[number].slots.clone() {
            let slot = &mut self.slots[index];
            let name = Arc::clone(&self.plans[slot.plan].rule.name);
            if let Effect::Cleared(episode, reason) = slot.hush(Reason::DeviceRemoved, at) {
                let ended = Some((episode, reason));
                let transition = crate::event::Transition::Cleared;
                out.events.extend(self.draft(index, transition, ended, at));
            }
            out.state.push(forget(&slot_key(&name, device)));
            if let Some(wide) = &self.slots[index].wide {
                let unless = wide.unless.iter().map(|quiet| &quiet.input);
                for (input, place) in wide.inputs.iter().chain(unless).zip(0..) {
                    let numbers = input.window.iter().flat_map(|window| window.log.numbers());
                    out.state
                        .extend(numbers.map(|number| forget(&run_key(&name, device, place, number))));
                    out.may_end();
                }
            }
            out.may_end();
        }
        for (metric, _) in &self.devices[number].watches {
            out.state
                .push(forget(&watch_key(device, &self.metric_names[*metric])));
            out.may_end();
        }
        let setup = Setup {
            rules: self.rules.clone(),
            devices: self.facts.clone(),
            epoch: self.epoch,
            max_devices: self.max_devices,
            max_metrics: self.max_metrics,
            checkpoint: self.checkpoint,
        };
        self.become_anew(setup, Some(number), out);
        let target = MuteTarget::Device(device.clone());
        if self.hushes.mutes.contains_key(&target) {
            self.end_mute(&target, "the device was forgotten", at, out);
        }
        true
    }

    /// All devices that sent something, when each was last heard of (long ago: never), and whether it is muted.
    pub fn heard(&self) -> impl Iterator<Item = (&DeviceId, EngineTime, bool)> {
        self.devices.iter().filter(|device| device.seen).map(|device| {
            let seen = device
                .watches
                .iter()
                .map(|(_, watch)| self.watches[*watch].seen());
            (&device.about.device, seen.max().unwrap_or(NEVER), device.muted)
        })
    }

    /// Takes another configuration as a clean restart would: rules that did not change keep everything.
    pub fn reconfigure(&mut self, setup: Setup, out: &mut Outcome) {
        self.become_anew(setup, None, out);
    }

    /// All open episodes, by rule and device.
    pub fn episodes(&self) -> impl Iterator<Item = ActiveEpisode> {
        let mut open: Vec<u32> = (0..self.slots.len())
            .filter(|index| self.slots[*index].episode().is_some())
            .collect();
        open.sort_by(|a, b| self.order(*a).cmp(&self.order(*b)));
        open.into_iter().filter_map(|index| {
            let slot = &self.slots[index];
            let plan = &self.plans[slot.plan];
            let episode = slot.episode()?;
            Some(ActiveEpisode {
                id: EpisodeId {
                    epoch: self.epoch,
                    number: episode.number,
                },
                rule: Arc::clone(&plan.rule.name),
                event: Arc::clone(&episode.names.event),
                device: self.devices[slot.device].about.device.clone(),
                metric: plan.condition.metric().cloned(),
                severity: episode.names.severity,
                since: episode.run.since,
                raised_at: episode.raised_at,
                value: slot.value(plan, &self.watches),
            })
        })
    }

    fn become_anew(&mut self, setup: Setup, forgotten: Option<u32>, out: &mut Outcome) {
        let mut anew = Self::new(setup, self.saved_at());
        let kept = self.keep(forgotten, out);
        anew.episodes = self.episodes;
        anew.mute_number = self.mute_number;
        anew.counts = self.counts;
        anew.vouched = self.vouched;
        anew.hushes.inherit(&mut self.hushes);
        let written = self.slots.iter().map(|slot| slot.committed).max();
        anew.rests_on = self.rests_on.max(written.unwrap_or_default());
        anew.take_bases(self.kept_bases());
        anew.take(kept, out);
        *self = anew;
        self.settle(out);
    }

    /// The end of a mute.
    pub(super) fn end_mute(&mut self, target: &MuteTarget, why: &str, at: EngineTime, out: &mut Outcome) {
        let Some(muted) = self.hushes.unmute(target) else {
            return;
        };
        out.state.push(forget(&mute_key(target)));
        let (device, rule) = names(target);
        let fact = AlarmUnmuted {
            device,
            rule,
            reason: why.to_owned(),
        };
        out.events.push(self.of_mute(&fact, target, muted.number, at));
        self.apply_mute(target, false, at, out);
    }

    /// Lets the slots that a mute concerns know of it.
    pub(super) fn apply_mute(&mut self, target: &MuteTarget, muted: bool, at: EngineTime, out: &mut Outcome) {
        let slots = match target {
            MuteTarget::Device(name) => {
                let Some(device) = self.devices.find(name) else {
                    return;
                };
                self.devices[device].muted = muted;
                self.devices[device].slots.clone()
            }
            MuteTarget::Rule(name) => {
                let Some(rule) = self.rule_numbers.get(name).copied() else {
                    return;
                };
                self.hushes.set_muted(rule, muted);
                self.slots_where(|number, _| number == rule)
            }
        };
        self.follow_mute(&slots, muted, at, out);
    }

    /// A pair of mute and unmute shares the correlation.
    fn of_mute<F: Recorded>(&self, fact: &F, target: &MuteTarget, number: u64, at: EngineTime) -> Draft {
        let subject = match target {
            MuteTarget::Device(device) => device.as_str(),
            MuteTarget::Rule(rule) => rule,
        };
        Draft {
            correlation: Some(format!("{}-m{number}", self.epoch).into()),
            ..gateway::draft(fact, subject, at)
        }
    }
}

/// The device or the rule, for an event.
fn names(target: &MuteTarget) -> (Option<String>, Option<String>) {
    match target {
        MuteTarget::Device(device) => (Some(device.as_str().to_owned()), None),
        MuteTarget::Rule(rule) => (None, Some(rule.as_ref().to_owned())),
    }
}
