//! From what was kept back to a running engine, after a start as after another configuration. Edited rules keep their
//! episodes, removed ones end them.

use std::sync::Arc;

use super::{
    Engine, MuteTarget,
    checkpoint::Unsaved,
    kept::{Kept, KeptSlot, KeptWatch, KeptWindow, OnDisk},
    latch::{Latch, NEVER, NO_WATCH},
    look::{Input, Quiet},
    plan::About,
    saved::{Question, forget, run_key, slot_key, watch_key},
    slot::SavedSlot,
    speak::Report,
    watch::Keep,
};
use crate::{
    event::{EpisodeId, Reason, Transition},
    reading::DeviceId,
    rule::{Condition, Verdict, Watched, state::Outcome},
    time::EngineTime,
};

impl Engine {
    /// Takes all of it in.
    pub(super) fn take(&mut self, kept: Kept, out: &mut Outcome) {
        for watch in kept.watches {
            self.take_watch(&watch, out);
            out.may_end();
        }
        let mut crashed = Vec::new();
        for slot in kept.slots {
            let until = slot.crashed;
            let index = self.take_slot(slot, out);
            crashed.extend(index.zip(until));
            out.may_end();
        }
        for window in kept.windows {
            self.take_window(window, out);
            out.may_end();
        }
        self.trust_holds(&crashed, out);
        self.offer_bases(out);
    }

    /// After all was taken in: judges periods, mutes and what speaks against a rule, and fires what fell due while nobody ran.
    pub(super) fn settle(&mut self, out: &mut Outcome) {
        let at = self.now;
        self.settled = true;
        let changed = self.hushes.look(&self.saved_at());
        let muted: Vec<MuteTarget> = self.hushes.mutes.keys().cloned().collect();
        for target in muted {
            self.apply_mute(&target, true, at, out);
        }
        self.follow(&changed, at, out);
        for index in 0..self.slots.len() {
            // It may have been heard of before the slot was, or may be forgotten since. What leaves its window now is
            // a deadline like others.
            let slot = &self.slots[index];
            let quiet = slot.wide.as_ref().and_then(|wide| wide.unless.as_deref());
            let asks = |quiet: &Quiet| !quiet.on || self.watches[quiet.input.watch].seen() == NEVER;
            if quiet.is_some_and(asks) && slot.quiet_leaves(&self.plans[slot.plan]) > at {
                self.listen(index, at, out);
            }
            self.schedule(index, at);
            out.may_end();
        }
        self.advance(at, out);
    }

    /// After a crash nobody knows when what a hold waits for was heard of last: what was not stale may have been heard
    /// of until the crash, at most a checkpoint after what is `known`, and counts so. From then on it is as old as it
    /// is, whatever the outage lasted.
    fn trust_holds(&mut self, known: &[(u32, EngineTime)], out: &mut Outcome) {
        let mut heard = Vec::new();
        for (index, known) in known.iter().copied() {
            let slot = &mut self.slots[index];
            let plan = &self.plans[slot.plan];
            let wanted = match &slot.latch {
                Latch::Pending(_) => Verdict::Holds,
                Latch::Clearing(..) => Verdict::Clears,
                Latch::Normal | Latch::Active(..) => continue,
            };
            if !plan.is_composite() {
                continue;
            }
            slot.pass(plan, known);
            let inputs = slot.wide.iter().flat_map(|wide| &wide.inputs);
            // When it was heard of was saved a checkpoint ago at most.
            let stale = plan.rule.stale_after.saturating_add(self.checkpoint);
            for (input, (_, watched)) in inputs.zip(plan.inputs()) {
                if input.verdict(watched, &self.watches, known, stale) == Some(wanted) {
                    heard.push((input.watch, known.after(self.checkpoint).min(self.now)));
                }
            }
        }
        for (watch, at) in heard {
            self.watches[watch].trust(at);
            self.save_watch(watch, out);
            out.may_end();
        }
    }

    fn take_watch(&mut self, kept: &KeptWatch, out: &mut Outcome) {
        let device = self.know(&kept.device);
        self.see(device, self.now);
        let known = &mut self.devices[device];
        known.offset = known.offset.max(kept.saved.offset);
        known.late_since = known.late_since.max(kept.saved.late_since);
        let watch = self.watch(device, &kept.metric, self.now);
        let row = &mut self.watches[watch];
        row.restore(&kept.saved.watch);
        if !row.is_of_note() {
            out.state.push(forget(&watch_key(&kept.device, &kept.metric)));
        } else if kept.on_disk == OnDisk::OtherBoot {
            self.save_watch(watch, out);
        } else if kept.on_disk == OnDisk::Older && row.keep != Keep::Nothing && !row.queued {
            row.queued = true;
            self.unsaved.push_back(Unsaved::Watch(watch));
        }
    }

    fn take_slot(&mut self, kept: KeptSlot, out: &mut Outcome) -> Option<u32> {
        let was_other_boot = kept.on_disk == OnDisk::OtherBoot;
        let taken = self.accept(&kept.rule, &kept.device, kept.saved, out);
        let Some(index) = taken.filter(|index| !self.slots[*index].is_plain(self.now)) else {
            out.state.push(forget(&slot_key(&kept.rule, &kept.device)));
            return None;
        };
        self.slots[index].committed = kept.committed;
        if was_other_boot {
            self.save(index, out);
        }
        Some(index)
    }

    fn take_window(&mut self, kept: KeptWindow, out: &mut Outcome) {
        let KeptWindow {
            rule,
            device,
            place,
            question,
            window,
            on_disk,
        } = kept;
        let own = self.know(&device);
        let number = self.rule_numbers.get(&rule).copied();
        if number.is_some() && !window.is_empty() {
            // It has readings, so its metric was heard of.
            let whose = match question.device() {
                Some(other) => self.know(other),
                None => own,
            };
            self.see(whose, self.now);
            self.watch(whose, question.metric(), self.now);
        }
        let fitting = number
            .and_then(|number| self.find(number, own))
            .and_then(|index| {
                let slot = &mut self.slots[index];
                let plan = &self.plans[slot.plan];
                let asked = Question::of(plan, place)?;
                let (input, _) = nth_input(slot, plan, place)?;
                let fits = question.fits(&asked, window.is_summed()) && input.window.is_some();
                fits.then_some((index, input))
            });
        let Some((index, input)) = fitting else {
            for number in window.log.numbers() {
                out.state.push(forget(&run_key(&rule, &device, place, number)));
                out.may_end();
            }
            return;
        };
        let window = input.window.insert(window);
        match on_disk {
            OnDisk::Same => {}
            OnDisk::Older => self.queue_windows(index),
            OnDisk::OtherBoot => {
                window.save_anew();
                self.save_runs(index, out);
            }
        }
    }

    /// Gives what was kept back to the slot, if there still is one; else ends the episode.
    pub(super) fn accept(
        &mut self,
        rule: &str,
        device: &DeviceId,
        mut saved: SavedSlot,
        out: &mut Outcome,
    ) -> Option<u32> {
        let at = self.now;
        let void = saved.epoch != self.epoch;
        match &saved.latch {
            // A lost counter must not name two episodes alike.
            Latch::Active(episode, _) | Latch::Clearing(episode, _) if !void => {
                self.episodes = self.episodes.max(episode.number);
            }
            Latch::Normal | Latch::Pending(_) => {}
            // An older epoch's episodes are void: what still holds is raised anew.
            Latch::Active(..) | Latch::Clearing(..) => saved.latch = Latch::Normal,
        }
        // The device's name is known even if no rule watches it any more: it counts towards max-devices.
        let number = self.know(device);
        self.see(number, at);
        let Some(rule) = self.rule_numbers.get(rule).copied() else {
            self.end(number, &saved, Reason::RuleRemoved, out);
            return None;
        };
        if let Some(metric) = &saved.basis.metric {
            let was_sent = saved.watch.as_ref().is_some_and(|state| state.seen != NEVER);
            let watch = self.watch(number, metric, if was_sent { at } else { NEVER });
            if let Some(state) = saved.watch.take() {
                self.watches[watch].restore(&state);
            }
        }
        let Some(index) = self.find(rule, number).filter(|index| {
            let plan = &self.plans[self.slots[*index].plan];
            plan.facts.kind == saved.basis.rule.facts.kind
                && plan.condition.metric() == saved.basis.metric.as_ref()
        }) else {
            self.end(number, &saved, Reason::RuleChanged, out);
            return None;
        };
        let slot = &mut self.slots[index];
        let plan = &self.plans[slot.plan];
        // What spoke against it by another question says nothing now, nor after the next restart.
        let asks_anew = !plan.basis.rule.asks_as(&saved.basis.rule);
        slot.latch = saved.latch;
        slot.paid = saved.paid;
        slot.entered = saved.entered;
        if let Latch::Active(episode, terms) | Latch::Clearing(episode, terms) = &mut slot.latch {
            if episode.names == plan.basis.names {
                // One for all.
                episode.names = Arc::clone(&plan.basis.names);
            }
            let last = terms.judged_by.unwrap_or(saved.basis.rule.judges);
            terms.judged_by = (last != plan.basis.rule.judges).then_some(last);
            self.active = self.active.saturating_add(1);
        }
        if let Condition::Silent { after, .. } = &plan.condition {
            match (&slot.latch, saved.heard) {
                (_, Some(heard)) => slot.heard = heard,
                (Latch::Active(episode, _), None) => {
                    let micros = i64::try_from(after.as_micros()).unwrap_or(i64::MAX);
                    slot.heard = episode.run.since.shifted(micros.saturating_neg());
                }
                // Nobody knows how long it really was: it starts anew.
                (Latch::Pending(_), None) => slot.latch = Latch::Normal,
                (Latch::Normal | Latch::Clearing(..), None) => {}
            }
        }
        if let Some(wide) = &mut slot.wide {
            let unless = saved.unless.filter(|_| !asks_anew);
            if let (Some(quiet), Some((on, until))) = (&mut wide.unless, unless) {
                quiet.on = on;
                quiet.until = until;
                if let (true, Some(unless)) = (on, &plan.rule.unless) {
                    let seen = self.watches[quiet.input.watch].seen();
                    let known_until = seen.after(plan.rule.stale_after).after(unless.after);
                    quiet.until = until.max(known_until);
                }
            }
        }
        if asks_anew {
            self.save(index, out);
        }
        Some(index)
    }

    /// The slot of a rule on a device.
    pub(super) fn find(&self, rule: u32, device: u32) -> Option<u32> {
        let slots = &self.devices[device].slots;
        let number = |slot: &u32| self.plans[self.slots[*slot].plan].number;
        let place = slots.binary_search_by_key(&rule, number).ok()?;
        slots.get(place).copied()
    }

    /// Ends an episode whose rule no longer speaks for it.
    fn end(&self, device: u32, saved: &SavedSlot, reason: Reason, out: &mut Outcome) {
        let (Latch::Active(episode, _) | Latch::Clearing(episode, _)) = &saved.latch else {
            return;
        };
        let about: &Arc<About> = &self.devices[device].about;
        let state = saved.watch.as_ref();
        let kept = saved.basis.metric.as_ref().and_then(|metric| {
            let watch = self.devices[device].watch(*self.metrics.get(metric)?)?;
            Some(&self.watches[watch])
        });
        let last = kept.and_then(super::watch::Watch::last);
        let report = Report {
            about,
            metric: saved.basis.metric.as_ref(),
            unit: state
                .and_then(|state| state.unit.as_ref())
                .or_else(|| kept?.unit.as_ref()),
            value: state.and_then(|state| state.value.clone()).or(last),
            facts: &saved.basis.rule.facts,
            plan: None,
            episode,
            id: EpisodeId {
                epoch: saved.epoch,
                number: episode.number,
            },
            transition: Transition::Cleared,
            reason: Some(reason),
            at: self.now.max(saved.entered),
            window: None,
            conditions: Vec::new(),
        };
        out.events.push(report.draft());
    }
}

/// An input by its place, `unless` after the condition's own, and what it looks for.
pub(super) fn nth_input<'a>(
    slot: &'a mut super::latch::Slot,
    plan: &'a super::plan::Plan,
    place: usize,
) -> Option<(&'a mut Input, &'a Watched)> {
    debug_assert!(slot.watch == NO_WATCH || plan.condition.metric().is_some());
    let wide = slot.wide.as_mut()?;
    let own = wide.inputs.len();
    if place < own {
        let (_, watched) = plan.inputs().nth(place)?;
        return Some((wide.inputs.get_mut(place)?, watched));
    }
    let unless = plan.rule.unless.as_ref()?;
    (place == own).then_some(())?;
    Some((&mut wide.unless.as_mut()?.input, &unless.part.watched))
}
