//! Who must be looked at when.

use std::collections::BTreeSet;

use super::latch::NO_DEADLINE;
use crate::time::EngineTime;

/// The deadlines of all slots, by time, then rule: the order of a tie does not depend on who was seen first.
#[derive(Debug, Default)]
pub(super) struct Queue(BTreeSet<(EngineTime, u32, u32)>);

impl Queue {
    pub(super) fn first(&self) -> EngineTime {
        self.0.first().map_or(NO_DEADLINE, |(at, ..)| *at)
    }

    /// Moves a slot of a rule from one time to another.
    pub(super) fn shift(&mut self, rule: u32, slot: u32, from: EngineTime, to: EngineTime) {
        if from != NO_DEADLINE {
            self.0.remove(&(from, rule, slot));
        }
        if to != NO_DEADLINE {
            self.0.insert((to, rule, slot));
        }
    }

    /// Takes out the slots of one rule whose time has come first.
    pub(super) fn pop(&mut self, slots: &mut Vec<u32>) {
        slots.clear();
        let Some((at, rule, slot)) = self.0.pop_first() else {
            return;
        };
        slots.push(slot);
        while let Some((next, of, slot)) = self.0.first().copied()
            && (next, of) == (at, rule)
        {
            self.0.pop_first();
            slots.push(slot);
        }
    }
}
