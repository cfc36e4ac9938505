//! What docs/rules.md says, as plainly and as slowly as it can be said.
//!
//! Every reading is kept for ever, and every value is computed anew from all of them whenever it is looked at:
//! windows, silence, staleness, statistics, the budget of raises. Time goes by in whole seconds, and at each of
//! them every rule is asked on every device: no deadline is ever computed. What is carried along is what the
//! drawing in rules.md carries: for each (rule, device) one of four states, and since when.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tidegate::{
    reading::{DeviceId, Reading},
    rule::{DeviceFacts, Rule, engine::Skipped},
};

use super::told::Told;

mod arrival;
mod gates;
mod life;
mod restart;
mod values;

use arrival::Clocks;
use gates::Mute;
use life::{Slot, any_matches};
pub use restart::Restart;
use restart::{Absence, metric};
use values::{Kept, listens, part_listens};

/// A second of the story. It goes on over reboots.
pub type Second = i64;

/// A rule's name, and the device.
type Key = (Arc<str>, DeviceId);

pub struct Reference {
    rules: Vec<Arc<Rule>>,
    devices: Vec<DeviceFacts>,
    /// In the order they came.
    readings: Vec<Kept>,
    /// Of them, so many count in an episode's figures.
    counted: usize,
    slots: BTreeMap<Key, Slot>,
    clocks: Clocks,
    mutes: Vec<Mute>,
    /// Rules that are outside of their periods.
    out: BTreeSet<Arc<str>>,
    /// When it was last looked what may speak.
    opened: Second,
    episodes: u64,
    /// What the wall clock is ahead of the story; none while it is not synchronised.
    wall: Option<Second>,
    absences: Vec<Absence>,
    pub told: Vec<Told>,
}

impl Reference {
    pub fn new(rules: Vec<Arc<Rule>>, devices: Vec<DeviceFacts>, wall: Option<Second>) -> Self {
        let mut reference = Self {
            rules,
            devices,
            readings: Vec::new(),
            counted: 0,
            slots: BTreeMap::new(),
            clocks: Clocks::default(),
            mutes: Vec::new(),
            out: BTreeSet::new(),
            opened: Second::MIN,
            episodes: 0,
            wall,
            absences: Vec::new(),
            told: Vec::new(),
        };
        reference.make_slots(0, 0);
        reference.out = reference.outside(0);
        reference
    }

    /// "Deadlines before a reading fire before it, deadlines at its very time after it."
    pub fn observe(&mut self, reading: &Reading, at: Second, now: Second) -> Result<(), Skipped> {
        let at = self.place(reading, at, now)?;
        self.until(at - 1);
        let number = self.readings.len();
        self.readings.push(Kept {
            number,
            device: reading.device.clone(),
            metric: reading.metric.clone(),
            value: reading.value.clone(),
            at,
            heard: at,
            stamped: reading.stamped,
            forgotten: false,
        });
        self.counted = self.readings.len();
        self.make_slots(at, number);
        for key in self.listening() {
            let slot = self.slots.get_mut(&key).unwrap();
            (slot.last, slot.asked) = (at, at - 1);
            self.read(&key, at);
        }
        self.until(at);
        Ok(())
    }

    /// Goes through every second up to `limit` that was not gone through.
    pub fn until(&mut self, limit: Second) {
        let first = self.slots.values().map(|slot| slot.asked + 1).min();
        for second in first.unwrap_or(limit)..=limit {
            self.open_and_close(second);
            for key in self.in_order() {
                if self.slots[&key].asked < second {
                    let slot = self.slots.get_mut(&key).unwrap();
                    let last = std::mem::replace(&mut slot.last, second);
                    slot.asked = second;
                    self.tick(&key, last, second);
                }
            }
        }
    }

    /// Something other than a reading happened: this second is gone through again.
    fn until_again(&mut self, now: Second) {
        for slot in self.slots.values_mut() {
            slot.asked = slot.asked.min(now - 1);
        }
        self.until(now);
    }

    /// How many episodes are open.
    pub fn open(&self) -> usize {
        self.slots
            .values()
            .filter(|slot| slot.episode().is_some())
            .count()
    }

    /// A rule is about every matching device that was heard of; if it is about one metric, of that metric.
    fn make_slots(&mut self, now: Second, from: usize) {
        let heard_of = |rule: &Arc<Rule>, device: &DeviceId| {
            let metric = metric(&rule.condition);
            let mut sent = self
                .readings
                .iter()
                .filter(|kept| kept.device == *device && !kept.forgotten);
            let mut facts = self
                .devices
                .iter()
                .filter(|facts| *facts.id.0 == *device.as_str());
            match metric {
                Some(metric) => {
                    // What speaks against it is remembered from the first.
                    let plan = life::Plan::new(rule, device);
                    sent.any(|kept| kept.metric == *metric || values::speaks_against(&plan, device, kept))
                        || facts.any(|facts| facts.expects.contains(metric))
                }
                None => {
                    sent.next().is_some()
                        || facts.any(|facts| !facts.expects.is_empty())
                        || self.is_named(device)
                }
            }
        };
        let mut new = Vec::new();
        for rule in &self.rules {
            for device in self.all_devices() {
                let key = (Arc::clone(&rule.name), device.clone());
                let matches = any_matches(&rule.devices, &device);
                if matches && !self.slots.contains_key(&key) && heard_of(rule, &device) {
                    new.push(key);
                }
            }
        }
        self.slots
            .extend(new.into_iter().map(|key| (key, Slot::new(now, from))));
    }

    /// Whether some rule about several metrics names this device.
    pub(super) fn is_named(&self, device: &DeviceId) -> bool {
        let mut composite = self.rules.iter().filter(|rule| metric(&rule.condition).is_none());
        composite.any(|rule| rule.devices.iter().any(|pattern| *pattern.0 == *device.as_str()))
    }

    fn all_devices(&self) -> BTreeSet<DeviceId> {
        let sent = self.readings.iter().map(|kept| kept.device.clone());
        let named = self
            .devices
            .iter()
            .map(|facts| DeviceId::new(&facts.id.0).unwrap());
        let patterns = self.rules.iter().flat_map(|rule| &rule.devices);
        let patterns = patterns.filter(|pattern| &*pattern.0 != "*");
        let patterns = patterns.map(|pattern| DeviceId::new(&pattern.0).unwrap());
        sent.chain(named).chain(patterns).collect()
    }

    /// All (rule, device) to which the newest reading says something.
    fn listening(&self) -> Vec<Key> {
        let newest = self.readings.last().expect("one was taken");
        let listens = |(rule, device): &Key| {
            let plan = self.plan(&(Arc::clone(rule), device.clone()));
            let mut unless = plan.rule.unless.iter().map(|unless| &unless.part);
            listens(&plan.condition, device, newest) || unless.any(|part| part_listens(part, device, newest))
        };
        self.in_order().into_iter().filter(listens).collect()
    }

    /// By rule, then by device: the order of what happens at one time.
    fn in_order(&self) -> Vec<Key> {
        let mut keys = Vec::new();
        for rule in &self.rules {
            keys.extend(self.slots.keys().filter(|(name, _)| *name == rule.name).cloned());
        }
        keys
    }
}
