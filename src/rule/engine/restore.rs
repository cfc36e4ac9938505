//! From what was kept back to a running engine: after a start from what the journal has, after another
//! configuration from memory. Edited rules keep their episodes, removed ones end them, damaged state is dropped and
//! counted.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Engine, MuteTarget,
    checkpoint::Unsaved,
    hush::Muted,
    latch::{Latch, NEVER, NO_WATCH},
    look::Input,
    plan::About,
    saved::{
        COUNTER, MUTE_COUNTER, Question, STOPPED, SavedMute, SavedRun, SavedSlot, SavedWatch, decode, encode,
        forget, move_by, parse_mute_key, parse_run_key, parse_slot_key, parse_watch_key, relative_to, shift,
        slot_key,
    },
    speak::Report,
    window::Chunk,
};
use crate::{
    event::{EpisodeId, Position, Reason, Transition},
    reading::DeviceId,
    rule::{
        Condition, Watched, judge_alike,
        state::{Outcome, StateChange},
    },
    time::Moment,
};

type Entry<'a> = (&'a [u8], &'a [u8]);
/// The saved runs of one window, by number.
type Runs<'a> = BTreeMap<(u32, DeviceId, usize), BTreeMap<u32, Entry<'a>>>;

impl Engine {
    /// Takes all saved keys in.
    pub(super) fn take_in(&mut self, saved: &[(Vec<u8>, Vec<u8>)], now: &Moment, out: &mut Outcome) {
        let entries: Vec<Entry<'_>> = saved.iter().map(|(key, bytes)| (&**key, &**bytes)).collect();
        let of = |prefix: &'static [u8]| entries.iter().filter(move |(key, _)| key.starts_with(prefix));
        let mut stopped = None;
        for (key, bytes) in of(b"engine") {
            let readable = match *key {
                COUNTER => decode(bytes).map(|number: u64| self.episodes = self.episodes.max(number)),
                MUTE_COUNTER => decode(bytes).map(|number: u64| self.mute_number = number),
                STOPPED => {
                    stopped = decode(bytes);
                    // From now on only another clean stop vouches for it.
                    out.state.push(forget(key));
                    stopped.map(|_: Moment| ())
                }
                // Another's key.
                _ => Some(()),
            };
            self.check(readable, key, out);
        }
        for (key, bytes) in of(b"m/") {
            let readable = self.take_mute(key, bytes, now, stopped.as_ref(), out);
            self.check(readable, key, out);
            out.may_end();
        }
        for (key, bytes) in of(b"l/") {
            let readable = self.take_watch(key, bytes, now, stopped.as_ref(), out);
            self.check(readable, key, out);
            out.may_end();
        }
        for (key, bytes) in of(b"r/") {
            let readable = self.take_slot(key, bytes, now, stopped.as_ref(), out);
            self.check(readable, key, out);
            out.may_end();
        }
        let mut runs = Runs::new();
        for (key, bytes) in of(b"w/") {
            let readable = parse_run_key(key).map(|(rule, device, input, number)| {
                match self.rule_numbers.get(rule).copied() {
                    Some(rule) => {
                        let window = runs.entry((rule, device, input)).or_default();
                        window.insert(number, (key, bytes));
                    }
                    None => out.state.push(forget(key)),
                }
            });
            self.check(readable, key, out);
            out.may_end();
        }
        for ((rule, device, input), runs) in runs {
            self.take_runs((rule, &device, input), &runs, now, stopped.as_ref(), out);
            out.may_end();
        }
    }

    /// After all was taken in: judges periods and mutes, and fires what fell due while nobody ran.
    pub(super) fn settle(&mut self, out: &mut Outcome) {
        let at = self.now;
        let moment = self.saved_at();
        let changed = self.hushes.look(&moment);
        for index in 0..self.slots.len() {
            // It may have been heard of before the slot was.
            let quiet = self.slots[index]
                .wide
                .as_ref()
                .and_then(|wide| wide.unless.as_ref());
            if quiet.is_some_and(|quiet| !quiet.on) {
                self.listen(index, at, out);
            }
            self.schedule(index, at);
            out.may_end();
        }
        let muted: Vec<MuteTarget> = self.hushes.mutes.keys().cloned().collect();
        for target in muted {
            self.apply_mute(&target, true, at, out);
        }
        self.follow(&changed, at, out);
        self.advance(at, out);
    }

    fn check(&mut self, readable: Option<()>, key: &[u8], out: &mut Outcome) {
        if readable.is_none() {
            self.counts.unreadable = self.counts.unreadable.saturating_add(1);
            out.state.push(forget(key));
        }
    }

    fn take_mute(
        &mut self,
        key: &[u8],
        bytes: &[u8],
        now: &Moment,
        stopped: Option<&Moment>,
        out: &mut Outcome,
    ) -> Option<()> {
        let target = parse_mute_key(key)?;
        let mut saved: SavedMute = decode(bytes)?;
        move_by(&mut saved.until, shift(&relative_to(saved.at, stopped), now));
        if saved.at.boot_id != now.boot_id {
            saved.at = *now;
            out.state.push(StateChange {
                key: key.to_vec(),
                value: Some(encode(&saved)),
            });
        }
        self.mute_number = self.mute_number.max(saved.number);
        let muted = Muted {
            number: saved.number,
            // What ended while nobody ran ends now.
            until: saved.until.max(now.boot),
            reason: saved.reason,
        };
        self.hushes.mute(target, muted);
        Some(())
    }

    fn take_watch(
        &mut self,
        key: &[u8],
        bytes: &[u8],
        now: &Moment,
        stopped: Option<&Moment>,
        out: &mut Outcome,
    ) -> Option<()> {
        let (device, metric) = parse_watch_key(key)?;
        let mut saved: SavedWatch = decode(bytes)?;
        saved.at = relative_to(saved.at, stopped);
        saved.watch.rebase(&saved.at, now);
        move_by(&mut saved.late_since, shift(&saved.at, now));
        let device = self.know(&device);
        let was_seen = saved.watch.seen != NEVER;
        if was_seen {
            self.see(device, now.boot);
        }
        let known = &mut self.devices[device];
        known.offset = known.offset.max(saved.offset);
        known.late_since = known.late_since.max(saved.late_since);
        let watch = if was_seen {
            self.watch(device, &metric, now.boot)
        } else {
            self.bare_watch(device, &metric)
        };
        let row = &mut self.watches[watch];
        if row.slots.is_empty() {
            out.state.push(forget(key));
        }
        row.restore(&saved.watch);
        row.unit = saved.watch.unit.or_else(|| row.unit.take());
        if saved.at.boot_id != now.boot_id {
            // Otherwise the next kill would take it for newer than what came since.
            self.save_watch(watch, out);
        }
        Some(())
    }

    fn take_slot(
        &mut self,
        key: &[u8],
        bytes: &[u8],
        now: &Moment,
        stopped: Option<&Moment>,
        out: &mut Outcome,
    ) -> Option<()> {
        let (rule, device) = parse_slot_key(key)?;
        let mut saved: SavedSlot = decode(bytes)?;
        saved.at = relative_to(saved.at, stopped);
        let was_other_boot = saved.at.boot_id != now.boot_id;
        // The gateway's own absence is no silence of the device.
        let heard = stopped.and_then(|stopped| {
            let mut heard = saved.heard?;
            move_by(&mut heard, now.boot.0.saturating_sub(stopped.boot.0));
            Some(heard)
        });
        let saved = SavedSlot {
            heard,
            ..saved.rebased(now)
        };
        if let Some(index) = self.accept(rule, &device, saved, out) {
            if self.slots[index].is_plain(now.boot) {
                out.state.push(forget(key));
            } else if was_other_boot {
                // Otherwise the next kill would take this boot's time from it as well.
                self.save(index, out);
            }
        } else {
            out.state.push(forget(key));
        }
        Some(())
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
            Latch::Active(episode) | Latch::Clearing(episode) if !void => {
                self.episodes = self.episodes.max(episode.number);
            }
            Latch::Normal | Latch::Pending(_) => {}
            // An older epoch's episodes are void: what still holds is raised anew.
            Latch::Active(_) | Latch::Clearing(_) => saved.latch = Latch::Normal,
        }
        // The device's name is known even if no rule watches it any more: it counts towards max-devices.
        let number = self.know(device);
        self.see(number, at);
        let Some(rule) = self.rule_numbers.get(rule).copied() else {
            self.end(number, &saved, Reason::RuleRemoved, out);
            return None;
        };
        if let Some(metric) = &saved.metric {
            let was_sent = saved.watch.as_ref().is_some_and(|state| state.seen != NEVER);
            let watch = self.watch(number, metric, if was_sent { at } else { NEVER });
            if let Some(state) = saved.watch.take() {
                let row = &mut self.watches[watch];
                row.restore(&state);
                row.unit = state.unit.or_else(|| row.unit.take());
            }
        }
        let Some(index) = self.find(rule, number).filter(|index| {
            let plan = &self.plans[self.slots[*index].plan];
            plan.facts.kind == saved.rule.kind && plan.condition.metric() == saved.metric.as_ref()
        }) else {
            self.end(number, &saved, Reason::RuleChanged, out);
            return None;
        };
        let slot = &mut self.slots[index];
        let plan = &self.plans[slot.plan];
        let edited = !judge_alike(&plan.facts.params, &saved.rule.params);
        slot.latch = saved.latch;
        slot.paid = saved.paid;
        slot.entered = saved.entered;
        if let Latch::Active(episode) | Latch::Clearing(episode) = &mut slot.latch {
            episode.edited |= edited;
            self.active = self.active.saturating_add(1);
        }
        if let Some(wide) = &mut slot.wide {
            if let Condition::Silent { after, .. } = &plan.condition {
                match (&slot.latch, saved.heard) {
                    (_, Some(heard)) => wide.heard = heard,
                    (Latch::Active(episode), None) => {
                        let micros = i64::try_from(after.as_micros()).unwrap_or(i64::MAX);
                        wide.heard = episode.run.since.shifted(micros.saturating_neg());
                    }
                    // Nobody knows how long it really was: it starts anew.
                    (Latch::Pending(_), None) => slot.latch = Latch::Normal,
                    (Latch::Normal | Latch::Clearing(_), None) => {}
                }
            }
            if let (Some(quiet), Some((on, until))) = (&mut wide.unless, saved.unless) {
                quiet.on = on;
                quiet.until = until;
                if let (true, Some(unless)) = (on, &plan.rule.unless) {
                    let seen = self.watches[quiet.input.watch].seen;
                    let known_until = seen.after(plan.rule.stale_after).after(unless.after);
                    quiet.until = until.max(known_until);
                }
            }
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

    fn take_runs(
        &mut self,
        (rule, device, place): (u32, &DeviceId, usize),
        runs: &BTreeMap<u32, Entry<'_>>,
        now: &Moment,
        stopped: Option<&Moment>,
        out: &mut Outcome,
    ) {
        let device = self.know(device);
        self.see(device, now.boot);
        let mut save_anew = false;
        // It has windows because its own metric was heard of.
        let own = self
            .rules
            .get(rule as usize)
            .and_then(|rule| rule.metric().cloned());
        if let Some(own) = own {
            self.watch(device, &own, now.boot);
        }
        for (number, (key, bytes)) in runs {
            let Some(mut run) = decode::<SavedRun>(bytes) else {
                self.check(None, key, out);
                continue;
            };
            let question = std::mem::take(&mut run.question);
            let found = self.find(rule, device);
            save_anew |= run.at.boot_id != now.boot_id;
            run.at = relative_to(run.at, stopped);
            let extract = run.rebased(now);
            let kept = found.and_then(|index| {
                let slot = &mut self.slots[index];
                let plan = &self.plans[slot.plan];
                let asked = Question::of(plan, place)?;
                let (input, watched) = nth_input(slot, plan, place)?;
                let spec = watched.window.as_ref()?;
                let window = input.window.as_mut()?;
                if !question?.fits(&asked, !extract.buckets.is_empty()) {
                    return None;
                }
                let len = extract.samples.len().max(extract.buckets.len());
                save_anew |= window.take_back(spec, extract);
                let newest = window.newest()?;
                window.log.chunks.push_back(Chunk {
                    number: *number,
                    newest,
                    len,
                });
                Some(())
            });
            if kept.is_none() {
                out.state.push(forget(key));
            }
        }
        // Of another boot: else the next restart would take this boot's time from them as well.
        if let Some(index) = self.find(rule, device).filter(|_| save_anew) {
            let slot = &mut self.slots[index];
            let window =
                nth_input(slot, &self.plans[slot.plan], place).and_then(|(input, _)| input.window.as_mut());
            if let Some(window) = window {
                window.save_anew();
                self.save_runs(index, out);
            }
        }
    }

    /// Ends an episode whose rule no longer speaks for it.
    fn end(&self, device: u32, saved: &SavedSlot, reason: Reason, out: &mut Outcome) {
        let (Latch::Active(episode) | Latch::Clearing(episode)) = &saved.latch else {
            return;
        };
        let about: &Arc<About> = &self.devices[device].about;
        let state = saved.watch.as_ref();
        let kept = saved.metric.as_ref().and_then(|metric| {
            let watch = self.devices[device].watch(*self.metrics.get(metric)?)?;
            Some(&self.watches[watch])
        });
        let last = kept.and_then(super::watch::Watch::last);
        let report = Report {
            about,
            metric: saved.metric.as_ref(),
            unit: state
                .and_then(|state| state.unit.as_ref())
                .or_else(|| kept?.unit.as_ref()),
            value: state.and_then(|state| state.value.clone()).or(last),
            facts: &saved.rule,
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

    /// Moves what another configuration leaves as it was. `before` is the engine as it ran until now.
    pub(super) fn inherit(&mut self, before: &mut Self, forgotten: Option<u32>, out: &mut Outcome) {
        self.episodes = before.episodes;
        self.mute_number = before.mute_number;
        self.counts = before.counts;
        self.hushes.inherit(&mut before.hushes);
        // What was refused is waited for by its own slots only, as before.
        let written = |position: &Position| *position < Position::NEVER;
        let committed = before
            .slots
            .iter()
            .map(|slot| slot.committed)
            .filter(written)
            .max();
        self.rests_on = before.rests_on.max(committed.unwrap_or_default());
        for (number, device) in (0..).zip(before.devices.iter()) {
            if forgotten == Some(number) {
                continue;
            }
            if device.seen {
                let new = self.know(&device.about.device);
                self.see(new, self.now);
                self.devices[new].offset = device.offset;
                self.devices[new].late_since = device.late_since;
            }
            for (metric, watch) in &device.watches {
                let row = &before.watches[*watch];
                if row.seen == super::latch::NEVER {
                    continue;
                }
                let new = self.know(&device.about.device);
                let new = self.watch(new, &before.metric_names[*metric], self.now);
                let state = before.keep_watch(*watch);
                let row = &mut self.watches[new];
                row.restore(&state);
                row.unit = state.unit;
            }
        }
        for index in before.slots_where(|_, device| forgotten != Some(device)) {
            let mut saved = before.keep_slot(index);
            let plan = Arc::clone(&before.plans[before.slots[index].plan]);
            let device = before.devices[before.slots[index].device].about.device.clone();
            let rule = self.rule_numbers.get(&plan.rule.name);
            let edited = rule.and_then(|number| self.rules.get(*number as usize));
            let asks_anew = edited.is_some_and(|edited| edited.unless != plan.rule.unless);
            if asks_anew {
                // What spoke against it by another question says nothing now.
                saved.unless = None;
            }
            let new = self.accept(&plan.rule.name, &device, saved, out);
            if new.is_none() {
                // A clean stop saves also slots that have nothing to remember.
                out.state.push(forget(&slot_key(&plan.rule.name, &device)));
            }
            if let Some(new) = new {
                self.slots[new].committed = before.slots[index].committed;
                if asks_anew {
                    // Or it would speak against it again after a restart.
                    self.save(new, out);
                }
            }
            self.inherit_windows(&mut before.slots[index], &plan, &device, new, out);
            out.may_end();
        }
        for watch in 0..self.watches.len() {
            let row = &mut self.watches[watch];
            if row.keep != super::watch::Keep::Nothing && !row.queued {
                row.queued = true;
                self.unsaved.push_back(Unsaved::Watch(watch));
            }
        }
    }

    fn inherit_windows(
        &mut self,
        before: &mut super::latch::Slot,
        plan: &super::plan::Plan,
        device: &DeviceId,
        new: Option<u32>,
        out: &mut Outcome,
    ) {
        for place in 0.. {
            let Some((input, _)) = nth_input(before, plan, place) else {
                break;
            };
            let Some(window) = input.window.take() else {
                continue;
            };
            let target = new.and_then(|index| {
                let slot = &mut self.slots[index];
                let asked = Question::of(&self.plans[slot.plan], place)?;
                let (input, _) = nth_input(slot, &self.plans[slot.plan], place)?;
                let fits = Question::of(plan, place)?.fits(&asked, window.is_summed());
                (fits && input.window.is_some()).then_some((index, input))
            });
            if let Some((index, input)) = target {
                input.window = Some(window);
                if let Some(wide) = &mut self.slots[index].wide
                    && !std::mem::replace(&mut wide.queued, true)
                {
                    self.unsaved.push_back(Unsaved::Slot(index));
                }
                continue;
            }
            for number in window.log.numbers() {
                out.state.push(forget(&super::saved::run_key(
                    &plan.rule.name,
                    device,
                    place,
                    number,
                )));
                out.may_end();
            }
        }
    }
}

/// An input by its place, `unless` after the condition's own, and what it looks for.
fn nth_input<'a>(
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
