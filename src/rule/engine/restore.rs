//! From what the journal kept back to a running engine: edited rules keep their episodes, removed ones end
//! them, damaged state is dropped and counted.

use std::sync::Arc;

use super::{
    About, Engine,
    latch::{Episode, Latch},
    saved::{COUNTER, SavedSlot, SavedStamp, decode, forget, parse_slot_key, parse_stamp_key, rebased_stamp},
    speak::Report,
};
use crate::{
    event::{Reason, Transition},
    reading::DeviceId,
    rule::state::Outcome,
    time::{EngineTime, Moment},
};

impl Engine {
    /// Takes all saved keys in, then fires what fell due while nobody ran.
    pub(super) fn take_in(&mut self, saved: &[(Vec<u8>, Vec<u8>)], now: &Moment, out: &mut Outcome) {
        for (key, bytes) in saved {
            let readable = if key == COUNTER {
                self.take_counter(bytes)
            } else if key.starts_with(b"r/") {
                self.take_slot(key, bytes, now, out)
            } else if key.starts_with(b"l/") {
                self.take_stamp(key, bytes, now, out)
            } else {
                // Another's key.
                Some(())
            };
            if readable.is_none() {
                self.counts.unreadable = self.counts.unreadable.saturating_add(1);
                out.state.push(forget(key));
            }
        }
        self.advance(now.boot, out);
    }

    fn take_counter(&mut self, bytes: &[u8]) -> Option<()> {
        self.episodes = self.episodes.max(decode(bytes)?);
        Some(())
    }

    fn take_slot(&mut self, key: &[u8], bytes: &[u8], now: &Moment, out: &mut Outcome) -> Option<()> {
        let (rule, device) = parse_slot_key(key)?;
        let mut saved = decode::<SavedSlot>(bytes)?.rebased(now);
        let at = now.boot;
        match &mut saved.latch {
            Latch::Active(episode) | Latch::Clearing(episode, _) if episode.id.epoch == self.epoch => {
                // A lost counter must not name two episodes alike.
                self.episodes = self.episodes.max(episode.id.number);
            }
            Latch::Normal | Latch::Pending(_) => {}
            // An older epoch's episodes are void: what still holds is raised anew.
            latch => *latch = Latch::Normal,
        }
        let found = self.rules.iter().position(|known| known.name.as_ref() == rule);
        // The device's name is known even if no rule watches it any more: it counts towards max-devices.
        self.know(&device);
        let Some(rule) = found else {
            self.end(&device, &saved, Reason::RuleRemoved, at, out);
            out.state.push(forget(key));
            return Some(());
        };
        self.watch(&device, &saved.metric);
        let slots = self
            .known
            .get(&device)
            .and_then(|known| known.watches.get(&saved.metric));
        let index = slots
            .into_iter()
            .flat_map(|watch| watch.slots.iter().copied())
            .find(|index| {
                self.slots
                    .get(*index)
                    .is_some_and(|slot| slot.rule == rule && slot.plan.facts.kind == saved.rule.kind)
            });
        let Some(index) = index else {
            self.end(&device, &saved, Reason::RuleChanged, at, out);
            out.state.push(forget(key));
            return Some(());
        };
        if let Some(watch) = self
            .known
            .get_mut(&device)
            .and_then(|known| known.watches.get_mut(&saved.metric))
        {
            let newer = saved
                .stamp
                .filter(|(at, _)| watch.stamp.as_ref().is_none_or(|(old, _)| at > old));
            watch.stamp = newer.or_else(|| watch.stamp.take());
        }
        let slot = self.slots.get_mut(index)?;
        let edited = slot.plan.facts.params != saved.rule.params;
        slot.latch = saved.latch;
        if let Latch::Active(episode) | Latch::Clearing(episode, _) = &mut slot.latch {
            episode.edited |= edited;
            self.active = self.active.saturating_add(1);
        }
        slot.paid = saved.paid;
        slot.entered = saved.entered;
        slot.value = saved.value;
        slot.unit = saved.unit;
        if slot.is_plain(at) {
            out.state.push(forget(key));
        } else if saved.at.boot_id != now.boot_id {
            // Otherwise the next kill would take this boot's time from it as well.
            self.save(index, out);
        }
        self.schedule(index, at);
        Some(())
    }

    fn take_stamp(&mut self, key: &[u8], bytes: &[u8], now: &Moment, out: &mut Outcome) -> Option<()> {
        let (device, metric) = parse_stamp_key(key)?;
        let saved = decode::<SavedStamp>(bytes)?;
        let (at, value) = saved.stamp;
        let Some(at) = rebased_stamp(at, &saved.at, now) else {
            out.state.push(forget(key));
            return Some(());
        };
        let known = self.know(&device);
        known.offset = known.offset.max(saved.offset);
        self.watch(&device, &metric);
        let watch = self.known.get_mut(&device)?.watches.get_mut(&metric)?;
        if watch.slots.is_empty() {
            out.state.push(forget(key));
        }
        if watch.stamp.as_ref().is_none_or(|(old, _)| at > *old) {
            watch.stamp = Some((at, value));
        }
        Some(())
    }

    /// Ends an episode whose rule no longer speaks for it.
    fn end(&self, device: &DeviceId, saved: &SavedSlot, reason: Reason, at: EngineTime, out: &mut Outcome) {
        let (Latch::Active(episode) | Latch::Clearing(episode, _)) = &saved.latch else {
            return;
        };
        let episode: &Episode = episode;
        let about = match self.known.get(device) {
            Some(known) => Arc::clone(&known.about),
            None => Arc::new(About::new(device, &self.facts)),
        };
        let report = Report {
            about: &about,
            metric: &saved.metric,
            unit: saved.unit.as_ref(),
            value: saved.value.as_ref(),
            facts: &saved.rule,
            plan: None,
            episode,
            transition: Transition::Cleared,
            reason: Some(reason),
            at: at.max(saved.entered),
        };
        out.events.push(report.draft());
    }
}
