//! Who must be looked at when.

use std::{cmp::Ordering, sync::Arc};

use super::{
    latch::{NO_DEADLINE, Slot},
    plan::Plan,
    table::Table,
};
use crate::time::EngineTime;

/// The deadlines of all slots, by time, then rule: the order of a tie does not depend on who was seen first.
///
/// A binary heap in which each slot knows its place: twelve bytes for a slot that waits, none for the others.
#[derive(Debug, Default)]
pub(super) struct Queue {
    times: Vec<EngineTime>,
    /// Whose, by the same places.
    slots: Vec<u32>,
}

/// Where in the queue a slot stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

impl Default for Place {
    /// Nowhere.
    fn default() -> Self {
        Self(u32::MAX)
    }
}

/// What the queue must know of its slots.
struct Rows<'a> {
    slots: &'a mut Table<Slot>,
    plans: &'a Table<Arc<Plan>>,
}

impl Queue {
    pub(super) fn first(&self) -> EngineTime {
        self.time(0)
    }

    /// When the slot is due.
    pub(super) fn deadline(&self, slot: &Slot) -> EngineTime {
        self.time(slot.place.0 as usize)
    }

    /// Moves a slot to another time.
    pub(super) fn shift(
        &mut self,
        slot: u32,
        to: EngineTime,
        slots: &mut Table<Slot>,
        plans: &Table<Arc<Plan>>,
    ) {
        let mut rows = Rows { slots, plans };
        let place = rows.slots[slot].place;
        if place != Place::default() {
            self.remove(place.0 as usize, &mut rows);
        }
        if to != NO_DEADLINE {
            self.times.push(to);
            self.slots.push(slot);
            self.rise(self.slots.len() - 1, &mut rows);
        }
    }

    /// Takes out the slots of one rule whose time has come first.
    pub(super) fn pop(&mut self, slots: &mut Table<Slot>, plans: &Table<Arc<Plan>>, popped: &mut Vec<u32>) {
        popped.clear();
        let mut rows = Rows { slots, plans };
        let at = self.first();
        while let Some(slot) = self.slots.first().copied()
            && self.first() == at
            && popped
                .first()
                .is_none_or(|other| rows.rule(*other) == rows.rule(slot))
        {
            self.remove(0, &mut rows);
            popped.push(slot);
        }
    }

    fn time(&self, place: usize) -> EngineTime {
        self.times.get(place).copied().unwrap_or(NO_DEADLINE)
    }

    fn remove(&mut self, place: usize, rows: &mut Rows<'_>) {
        let slot = self.slots.swap_remove(place);
        self.times.swap_remove(place);
        rows.slots[slot].place = Place::default();
        if place < self.slots.len() {
            // The last one took its place: it may belong further up or further down.
            self.rise(place, rows);
            self.sink(place, rows);
        }
    }

    fn rise(&mut self, mut place: usize, rows: &mut Rows<'_>) {
        while place > 0 {
            let above = (place - 1) / 2;
            if self.order(above, place, rows).is_le() {
                break;
            }
            self.swap(above, place, rows);
            place = above;
        }
        self.settle(place, rows);
    }

    fn sink(&mut self, mut place: usize, rows: &mut Rows<'_>) {
        loop {
            let below = 2 * place + 1;
            if below >= self.slots.len() {
                break;
            }
            let other = below + 1;
            let first = if other < self.slots.len() && self.order(other, below, rows).is_lt() {
                other
            } else {
                below
            };
            if self.order(place, first, rows).is_le() {
                break;
            }
            self.swap(place, first, rows);
            place = first;
        }
        self.settle(place, rows);
    }

    fn order(&self, a: usize, b: usize, rows: &Rows<'_>) -> Ordering {
        let rule = |place: usize| self.slots.get(place).map(|slot| rows.rule(*slot));
        self.time(a)
            .cmp(&self.time(b))
            .then_with(|| rule(a).cmp(&rule(b)))
    }

    fn swap(&mut self, a: usize, b: usize, rows: &mut Rows<'_>) {
        self.times.swap(a, b);
        self.slots.swap(a, b);
        self.settle(a, rows);
        self.settle(b, rows);
    }

    /// Tells the slot at a place where it stands.
    fn settle(&self, place: usize, rows: &mut Rows<'_>) {
        if let Some(slot) = self.slots.get(place) {
            rows.slots[*slot].place = Place(u32::try_from(place).expect("no more wait than there are rows"));
        }
    }
}

impl Rows<'_> {
    fn rule(&self, slot: u32) -> u32 {
        self.plans[self.slots[slot].plan].number
    }
}
