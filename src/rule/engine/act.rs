//! What happens when a reading comes or time passes: each slot that is concerned judges, speaks, is saved and put
//! into the queue again.

use std::sync::Arc;

use super::{
    Engine,
    latch::{Effect, Latch, Look, NEVER, NO_DEADLINE, Now},
    look::{Quiet, is_stale},
    saved::{COUNTER, encode, forget, slot_key},
    table::Table,
    watch::{Keep, Watch},
};
use crate::{
    event::{Reason, Transition},
    reading::{Reading, Value},
    rule::{
        Condition, Unless, Verdict,
        state::{Outcome, StateChange},
    },
    time::{EngineTime, Moment},
};

impl Engine {
    /// Takes a reading that counts.
    pub(super) fn enter(&mut self, watch: u32, at: EngineTime, reading: &Reading, out: &mut Outcome) {
        let count = self.watches[watch].slots().len();
        let row = &mut self.watches[watch];
        let before = row.seen();
        row.hear(at, &reading.value, reading.stamped);
        if row.unit != reading.unit {
            row.unit.clone_from(&reading.unit);
        }
        if row.keep == Keep::Always && !row.queued {
            row.queued = true;
            self.unsaved.push_back(super::checkpoint::Unsaved::Watch(watch));
        }
        let is_first = before == NEVER && row.keep == Keep::Once;
        if is_first {
            // Its silence counts from here on: the sender may forget the reading once this is durable.
            self.save_watch(watch, out);
            out.may_end();
        }
        for place in 0..count {
            if let Some(slot) = self.watches[watch].slots().get(place).copied() {
                if is_first {
                    self.touch(slot);
                }
                self.receive(slot, watch, at, before, &reading.value, out);
                out.may_end();
            }
        }
    }

    /// A reading came of a metric that the slot looks at, after one at `before`.
    fn receive(
        &mut self,
        index: u32,
        watch: u32,
        at: EngineTime,
        before: EngineTime,
        value: &Value,
        out: &mut Outcome,
    ) {
        let slot = &mut self.slots[index];
        let plan = &*self.plans[slot.plan];
        let mut entered = slot.watch == watch
            && match &plan.condition {
                Condition::Value(watched) => {
                    watched.window.is_none() && super::watch::is_comparable(&watched.test, value)
                }
                Condition::Silent { .. } => {
                    slot.heard = slot.heard.max(at);
                    true
                }
                Condition::All(_) | Condition::Any(_) => false,
            };
        let Some(wide) = &mut slot.wide else {
            if entered {
                self.look(index, at, true, out);
            }
            return;
        };
        let stale_after = plan.rule.stale_after;
        let mut flipped = false;
        let mut windowed = false;
        for (input, (_, watched)) in wide.inputs.iter_mut().zip(plan.inputs()) {
            if input.watch != watch || !input.enter(watched, at, value) {
                continue;
            }
            entered = true;
            if input.window.is_some() {
                windowed = true;
            } else if plan.is_composite() {
                let says = watched.test.judge(value);
                flipped |= says != input.judged || before.after(stale_after) <= at;
                input.judged = says;
            }
        }
        let mut unless_heard = false;
        if let (Some(quiet), Some(unless)) = (&mut wide.unless, &plan.rule.unless)
            && quiet.input.watch == watch
            && quiet.input.enter(&unless.part.watched, at, value)
        {
            unless_heard = true;
            windowed |= quiet.input.window.is_some();
        }
        if windowed {
            self.queue_windows(index);
        }
        if unless_heard {
            self.listen(index, at, out);
        }
        if flipped {
            self.save_watch(watch, out);
            self.touch(index);
        }
        if entered || unless_heard {
            self.look(index, at, entered, out);
        }
    }

    /// Looks at `unless` again.
    pub(super) fn listen(&mut self, index: u32, at: EngineTime, out: &mut Outcome) {
        let slot = &mut self.slots[index];
        let plan = Arc::clone(&self.plans[slot.plan]);
        let (Some(wide), Some(unless)) = (&mut slot.wide, &plan.rule.unless) else {
            return;
        };
        let Some(quiet) = &mut wide.unless else { return };
        // It held, but nobody had heard of it for too long.
        let (was_set, was_on) = (quiet.on, quiet.on && at < quiet.until);
        quiet.listen(unless, &self.watches, at, plan.rule.stale_after);
        let (is_on, watch) = (quiet.on, quiet.input.watch);
        // Saved also if only the memory changes: what had gone stale would hold again after a restart.
        if is_on != was_set || is_on != was_on {
            self.save(index, out);
            // A restart asks again, and must hear the same.
            self.save_watch(watch, out);
        }
        if is_on == was_on {
            return;
        }
        if is_on {
            self.quell(index, Reason::Suppressed, at, out);
        }
    }

    /// Something stands against the slot from now on.
    fn quell(&mut self, index: u32, reason: Reason, at: EngineTime, out: &mut Outcome) {
        let effect = self.slots[index].hush(reason, at);
        if effect != Effect::None {
            self.take_effect(index, effect, at, out);
        }
        // What still holds waits for the end of the hush.
        self.turn(index, at, out);
    }

    /// What stands against a raise.
    fn hushed(&self, index: u32, at: EngineTime) -> Option<Reason> {
        let slot = &self.slots[index];
        if self.devices[slot.device].muted {
            return Some(Reason::Muted);
        }
        let by_time = || {
            let quiet = slot.wide.as_ref()?.unless.as_ref()?;
            (at < quiet.until).then_some(Reason::Suppressed)
        };
        self.hushes.of_rule(self.plans[slot.plan].number).or_else(by_time)
    }

    /// Lets a slot judge what it sees at `at`, and do what is due then.
    pub(super) fn turn(&mut self, index: u32, at: EngineTime, out: &mut Outcome) {
        let look = self.look(index, at, false, out);
        self.elapse(index, at.max(self.slots[index].entered), &look, out);
        self.schedule(index, at);
    }

    /// Lets a slot judge what it sees at `at`. What is due then waits for its turn.
    fn look(&mut self, index: u32, at: EngineTime, entered: bool, out: &mut Outcome) -> Look {
        // Nothing is asked about before what already happened.
        let at = at.max(self.slots[index].entered);
        self.refused.remove(&index);
        let is_windowed = |quiet: &Quiet| quiet.input.window.is_some();
        let unless = self.slots[index]
            .wide
            .as_ref()
            .and_then(|wide| wide.unless.as_deref());
        if unless.is_some_and(is_windowed) {
            // What leaves its window may end it.
            let plan = Arc::clone(&self.plans[self.slots[index].plan]);
            self.slots[index].pass(&plan, at);
            self.listen(index, at, out);
        }
        let hushed = self.hushed(index, at).is_some();
        let slot = &mut self.slots[index];
        let plan = &*self.plans[slot.plan];
        if let Some(wide) = &mut slot.wide {
            wide.looked = at;
        }
        slot.pass(plan, at);
        let look = slot.look(plan, &self.watches, at, entered);
        let now = Now {
            at,
            plan,
            hushed,
            next_episode: self.episodes.saturating_add(1),
        };
        let effect = slot.judge(&look, &now);
        if effect != Effect::None {
            self.take_effect(index, effect, at, out);
        }
        self.schedule(index, at);
        look
    }

    fn elapse(&mut self, index: u32, at: EngineTime, look: &Look, out: &mut Outcome) {
        let hushed = self.hushed(index, at).is_some();
        let slot = &mut self.slots[index];
        // Nobody knows whether the clear condition still holds: `judge` has left no timer running.
        debug_assert!(
            look.verdict.is_some() || !matches!(slot.latch, Latch::Pending(_) | Latch::Clearing(..))
        );
        let now = Now {
            at,
            plan: &self.plans[slot.plan],
            hushed,
            next_episode: self.episodes.saturating_add(1),
        };
        let effect = slot.elapse(&now);
        if effect != Effect::None {
            self.take_effect(index, effect, at, out);
        }
    }

    /// Fires what is due, in the order of time; at the same time first what concerns whole rules and devices.
    pub(super) fn fire(&mut self, due: impl Fn(EngineTime) -> bool, out: &mut Outcome) {
        let mut slots = Vec::new();
        loop {
            let (slot, hush) = (self.queue.first(), self.hushes.next());
            let at = slot.min(hush);
            if at == NO_DEADLINE || !due(at) {
                return;
            }
            if hush <= slot {
                self.turn_hushes(hush, out);
                continue;
            }
            self.queue.pop(&mut self.slots, &self.plans, &mut slots);
            if slots.len() > 1 {
                slots.sort_by(|a, b| self.order(*a).cmp(&self.order(*b)));
            }
            for index in slots.iter().copied() {
                // Another of the group may have put it off.
                if self.queue.deadline(&self.slots[index]) != NO_DEADLINE {
                    continue;
                }
                if self.due(index, at) > at {
                    // Readings have come since it was put into the queue.
                    self.schedule(index, at);
                    continue;
                }
                let slot = &mut self.slots[index];
                if slot.has_quiet_window() {
                    slot.pass(&self.plans[slot.plan], at);
                    self.listen(index, at, out);
                }
                self.turn(index, at, out);
                out.may_end();
            }
        }
    }

    /// Periods and mutes whose time has come.
    fn turn_hushes(&mut self, at: EngineTime, out: &mut Outcome) {
        self.now = self.now.max(at);
        while let Some(target) = self.hushes.ended(at) {
            self.end_mute(&target, "the time was over", at, out);
        }
        let moment = Moment {
            boot: at,
            wall: self.moment.wall_of(at),
            ..self.moment
        };
        let changed = self.hushes.turn(&moment);
        self.follow(&changed, at, out);
    }

    /// Rules went out of their periods, or came in again.
    pub(super) fn follow(&mut self, changed: &[(u32, bool)], at: EngineTime, out: &mut Outcome) {
        for (rule, is_out) in changed {
            for slot in self.slots_where(|plan, _| plan == *rule) {
                if *is_out {
                    self.quell(slot, Reason::OutOfPeriod, at, out);
                } else {
                    self.turn(slot, at, out);
                }
                out.may_end();
            }
        }
    }

    /// The slots of some (rule, device), in their order.
    pub(super) fn slots_where(&self, which: impl Fn(u32, u32) -> bool) -> Vec<u32> {
        let mut found: Vec<u32> = (0..self.slots.len())
            .filter(|index| {
                let slot = &self.slots[*index];
                which(self.plans[slot.plan].number, slot.device)
            })
            .collect();
        found.sort_by(|a, b| self.order(*a).cmp(&self.order(*b)));
        found
    }

    /// Mutes or unmutes slots.
    pub(super) fn follow_mute(&mut self, slots: &[u32], muted: bool, at: EngineTime, out: &mut Outcome) {
        for slot in slots.iter().copied() {
            if muted {
                self.quell(slot, Reason::Muted, at, out);
            } else {
                self.turn(slot, at, out);
            }
            out.may_end();
        }
    }

    /// Says and saves what a slot did.
    pub(super) fn take_effect(&mut self, index: u32, effect: Effect, at: EngineTime, out: &mut Outcome) {
        let (transition, ended) = match effect {
            Effect::None => return,
            Effect::Moved => {
                let begins = matches!(self.slots[index].latch, Latch::Pending(_));
                self.save_as(index, begins, out);
                return;
            }
            Effect::Raised => {
                self.episodes = self.episodes.saturating_add(1);
                self.active = self.active.saturating_add(1);
                out.state.push(StateChange {
                    key: COUNTER.to_vec(),
                    value: Some(encode(&self.episodes)),
                });
                (Transition::Raised, None)
            }
            Effect::Changed => (Transition::Changed, None),
            Effect::Reminded => (Transition::Reminded, None),
            Effect::Cleared(episode, reason) => {
                self.active = self.active.saturating_sub(1);
                (Transition::Cleared, Some((episode, reason)))
            }
        };
        out.events.extend(self.draft(index, transition, ended, at));
        self.save_as(index, transition == Transition::Raised, out);
    }

    /// When the slot must be looked at again.
    fn due(&self, index: u32, at: EngineTime) -> EngineTime {
        if self.refused.contains(&index) {
            return NO_DEADLINE;
        }
        let slot = &self.slots[index];
        let plan = &*self.plans[slot.plan];
        let mut due = slot.due(plan);
        if due != NO_DEADLINE && matches!(slot.latch, Latch::Pending(_)) {
            due = match self.hushed(index, at.max(due)) {
                None => due,
                Some(Reason::Suppressed) => slot
                    .wide
                    .as_ref()
                    .and_then(|wide| wide.unless.as_ref())
                    .map_or(due, |quiet| due.max(quiet.until)),
                // Its end looks at the slot.
                Some(_) => NO_DEADLINE,
            };
        }
        due.min(slot.looks_again(plan, &self.watches))
    }

    /// Puts a slot's deadline into the queue, never before `floor`: what fell due earlier happens then.
    pub(super) fn schedule(&mut self, index: u32, floor: EngineTime) {
        let mut due = self.due(index, floor);
        if due != NO_DEADLINE {
            due = due.max(floor);
        }
        let slot = &self.slots[index];
        let deadline = self.queue.deadline(slot);
        // What readings put off again and again stays in its place and is put off when that comes.
        let is_put_off = slot.wide.is_some() || slot.heard != NEVER;
        let early = is_put_off && deadline <= due && deadline != NO_DEADLINE;
        if deadline != due && !early {
            self.queue.shift(index, due, &mut self.slots, &self.plans);
        }
    }

    /// The slot's state rests on the next commit.
    pub(super) fn touch(&mut self, index: u32) {
        if self.touched.last() != Some(&index) {
            self.touched.push(index);
        }
    }

    /// Adds the slot's state to what is committed.
    pub(super) fn save(&mut self, index: u32, out: &mut Outcome) {
        self.save_as(index, false, out);
    }

    fn save_as(&mut self, index: u32, begins: bool, out: &mut Outcome) {
        self.touch(index);
        let slot = &self.slots[index];
        let plan = &self.plans[slot.plan];
        let device = &self.devices[slot.device].about.device;
        if slot.is_plain(self.now) {
            out.state.push(forget(&slot_key(&plan.rule.name, device)));
        } else {
            self.put_slot(index, begins, out);
        }
    }
}

impl Quiet {
    /// Judges again, at `at`.
    pub(super) fn listen(
        &mut self,
        unless: &Unless,
        watches: &Table<Watch>,
        at: EngineTime,
        stale_after: std::time::Duration,
    ) {
        // It held, but then nobody knew for a while.
        let was_on = self.on && at.after(unless.after) <= self.until;
        let row = &watches[self.input.watch];
        match self.input.verdict(&unless.part.watched, watches, at, stale_after) {
            Some(Verdict::Holds) => self.on = true,
            Some(Verdict::Between) => self.on = was_on,
            Some(Verdict::Clears) => {
                if self.on {
                    self.until = self.until.min(at.after(unless.after));
                }
                self.on = false;
            }
            None => {
                // What was forgotten is not stale.
                if self.on && (row.seen() == NEVER || !is_stale(row, at, stale_after)) {
                    self.until = self.until.min(at.after(unless.after));
                }
                self.on = false;
            }
        }
        if self.on {
            self.until = row.seen().after(stale_after).after(unless.after);
        }
    }
}
