//! What is saved without a commit of its own: windows and when metrics were last heard of, a little at a time; and
//! all of it at a clean stop.

use std::sync::Arc;

use super::{
    Engine,
    latch::{NO_DEADLINE, Slot},
    look::Input,
    saved::{MOMENT, Question, STOPPED, SavedRun, SavedWatch, encode, forget, run_key, watch_key},
    window::{Chunk, Window},
};
use crate::{
    rule::{
        Rule,
        state::{Outcome, StateChange},
    },
    time::{ClockQuality, Moment},
};

/// What [`Engine::save_windows`] writes at most in one call, in bytes, about: what is more comes the next time.
const CHECKPOINT_BYTES: usize = 64 * 1024;
/// A run that is shorter is written again with what came, so that slow windows have few of them.
const SHORT_RUN: usize = 20;

/// What waits to be saved.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unsaved {
    /// The windows of a slot.
    Slot(u32),
    /// The last value of a metric.
    Watch(u32),
}

impl Engine {
    /// What windows took in since the last call, and what sub-conditions and silences rest on, within a bound of
    /// bytes. Call it every `checkpoint`.
    pub fn save_windows(&mut self, out: &mut Outcome) {
        let mut budget = CHECKPOINT_BYTES;
        if self.rests_on_time() {
            self.vouched = self.moment.quality == ClockQuality::Synchronised;
            out.state.push(StateChange {
                key: MOMENT.to_vec(),
                value: Some(encode(&self.saved_at())),
            });
        }
        // What is queued meanwhile belongs to the next call.
        for _ in 0..self.unsaved.len() {
            if budget == 0 {
                return;
            }
            let Some(unsaved) = self.unsaved.pop_front() else {
                return;
            };
            let before = out.state.len();
            match unsaved {
                Unsaved::Watch(watch) => {
                    self.watches[watch].queued = false;
                    self.save_watch(watch, out);
                }
                Unsaved::Slot(slot) => self.save_runs(slot, out),
            }
            for change in out.state.iter().skip(before) {
                let bytes = change.key.len() + change.value.as_ref().map_or(0, Vec::len);
                budget = budget.saturating_sub(bytes);
            }
        }
    }

    /// Whether what is saved would decide something else after a power cut if the time since then were not known. Else
    /// a gateway where nothing happens leaves its disk alone, whatever alarms are open.
    fn rests_on_time(&self) -> bool {
        // What was saved before anybody vouched for the clock is told apart from this boot's time once somebody does.
        let is_right = self.moment.quality == ClockQuality::Synchronised && !self.vouched;
        let needs = |slot: &Slot| slot.waits(self.now) || (is_right && !slot.is_plain(self.now));
        let asks = |rule: &Arc<Rule>| rule.unless.is_some() || rule.metric().is_none();
        !self.unsaved.is_empty()
            || !self.hushes.mutes.is_empty()
            || self.queue.first() != NO_DEADLINE
            || self.rules.iter().any(asks)
            || self.slots.iter().any(needs)
    }

    /// All that a clean stop saves beyond what was committed: with it a restart changes no event.
    pub fn checkpoint(&mut self, out: &mut Outcome) {
        self.save_slots(out);
        self.save_inputs(out);
        self.vouch(out);
    }

    /// The first part of [`Engine::checkpoint`]: without it there is no third.
    pub fn save_slots(&mut self, out: &mut Outcome) {
        for index in 0..self.slots.len() {
            if self.must_keep(index) {
                self.touch(index);
                self.put_slot(index, true, out);
                out.may_end();
            }
        }
    }

    /// The second part: windows and the last values of metrics. What of it is missing is forgotten as by a crash.
    pub fn save_inputs(&mut self, out: &mut Outcome) {
        for index in 0..self.slots.len() {
            if let Some(wide) = &mut self.slots[index].wide {
                let unless = wide.unless.iter_mut().map(|quiet| &mut quiet.input);
                let inputs = wide.inputs.iter_mut().chain(unless);
                inputs
                    .filter_map(|input| input.window.as_mut())
                    .for_each(|window| window.reopen());
                self.save_runs(index, out);
                out.may_end();
            }
        }
        for watch in 0..self.watches.len() {
            if self.watches[watch].is_of_note() {
                self.save_watch(watch, out);
                out.may_end();
            }
        }
    }

    /// The third part: vouches for the saved slots up to now.
    pub fn vouch(&self, out: &mut Outcome) {
        out.state.push(StateChange {
            key: STOPPED.to_vec(),
            value: Some(encode(&self.saved_at())),
        });
    }

    /// The windows of a slot wait to be saved.
    pub(super) fn queue_windows(&mut self, index: u32) {
        if let Some(wide) = &mut self.slots[index].wide
            && !std::mem::replace(&mut wide.queued, true)
        {
            self.unsaved.push_back(Unsaved::Slot(index));
        }
    }

    /// Adds the last value of a metric to what is committed.
    pub(super) fn save_watch(&mut self, watch: u32, out: &mut Outcome) {
        let row = &self.watches[watch];
        if row.seen() == super::latch::NEVER {
            return;
        }
        let device = &self.devices[row.device];
        let value = SavedWatch {
            at: self.saved_at(),
            watch: self.keep_watch(watch),
            offset: device.offset,
            late_since: device.late_since,
        };
        out.state.push(StateChange {
            key: watch_key(&device.about.device, &self.metric_names[row.metric]),
            value: Some(encode(&value)),
        });
    }

    /// Adds what the windows of a slot took in to what is committed.
    pub(super) fn save_runs(&mut self, index: u32, out: &mut Outcome) {
        let at = self.saved_at();
        let slot = &mut self.slots[index];
        let plan = &*self.plans[slot.plan];
        let device = &self.devices[slot.device].about.device;
        let Some(wide) = &mut slot.wide else { return };
        wide.queued = false;
        let quiet = wide.unless.iter_mut().map(|quiet| &mut quiet.input);
        for (input, place) in wide.inputs.iter_mut().chain(quiet).zip(0..) {
            if let Input {
                window: Some(window), ..
            } = input
            {
                let save = Save {
                    at,
                    question: &|| Question::of(plan, place),
                    key: &|number| run_key(&plan.rule.name, device, place, number),
                };
                save.window(window, out);
            }
        }
    }
}

/// How a window is saved.
struct Save<'a> {
    at: Moment,
    question: &'a dyn Fn() -> Option<Question>,
    key: &'a dyn Fn(u32) -> Vec<u8>,
}

impl Save<'_> {
    fn window(&self, window: &mut Window, out: &mut Outcome) {
        for void in std::mem::take(&mut window.log.void) {
            out.state.push(forget(&(self.key)(void)));
        }
        // What has left the window whole goes.
        while let Some(oldest) = window.log.chunks.front()
            && window.oldest().is_none_or(|left| oldest.newest < left)
        {
            out.state.push(forget(&(self.key)(oldest.number)));
            window.log.chunks.pop_front();
        }
        if window.log.unsaved == 0 {
            return;
        }
        let mut number = 0;
        if let Some(last) = window.log.chunks.back().copied() {
            number = last.number;
            if last.len < SHORT_RUN {
                window.log.chunks.pop_back();
                window.log.unsaved = window.log.unsaved.saturating_add(last.len).min(window.len());
            } else {
                number = number.wrapping_add(1);
            }
        }
        let mut skip = window.len().saturating_sub(window.log.unsaved);
        while skip < window.len() {
            let extract = window.extract(skip);
            let len = extract.samples.len().max(extract.buckets.len());
            let newest = extract
                .samples
                .last()
                .map(|(at, _)| *at)
                .or(extract.buckets.last().map(|bucket| bucket.to));
            let Some(newest) = newest else { break };
            let run = SavedRun {
                at: self.at,
                question: (self.question)(),
                extract,
            };
            out.state.push(StateChange {
                key: (self.key)(number),
                value: Some(encode(&run)),
            });
            out.may_end();
            window.log.chunks.push_back(Chunk { number, newest, len });
            number = number.wrapping_add(1);
            skip += len.max(1);
        }
        window.log.unsaved = 0;
    }
}
