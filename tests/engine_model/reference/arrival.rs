//! "Time" in docs/rules.md: when a reading happened, and which ones are ignored.

use std::collections::BTreeMap;

use tidegate::{
    reading::{DeviceId, Reading},
    rule::engine::Skipped,
};

use super::{Reference, Second};

/// A device that has been only late for so long has set its clock back.
const REANCHOR_AFTER: Second = 30;

#[derive(Default)]
pub struct Clocks {
    /// Since when all that came of a device was late.
    late_since: BTreeMap<DeviceId, Second>,
    /// What is added to the stamps of a device that was re-anchored.
    behind: BTreeMap<DeviceId, Second>,
    /// Readings before this one are no measure for stamps: nobody knows how the boots lie to each other.
    pub known_from: usize,
}

impl Clocks {
    pub fn forget(&mut self, device: &DeviceId) {
        self.late_since.remove(device);
        self.behind.remove(device);
    }
}

impl Reference {
    /// When the reading happened.
    pub(super) fn place(&mut self, reading: &Reading, at: Second, now: Second) -> Result<Second, Skipped> {
        let device = &reading.device;
        if !reading.stamped {
            self.clocks.late_since.remove(device);
            return Ok(at);
        }
        let behind = self.clocks.behind.entry(device.clone()).or_default();
        if *behind > 0 && at + *behind > now {
            // It was set forward again: stamps must not run ahead of the gateway's own clock.
            *behind = (now - at).max(0);
        }
        let placed = at + *behind;
        let mut stamped = self.readings[self.clocks.known_from..].iter().rev();
        let last = stamped.find(|it| it.stamped && it.is(device, &reading.metric));
        match last {
            // "Equal stamp and equal value: a duplicate." With another value: evaluated.
            Some(last) if placed == last.at && reading.value == last.value => return Err(Skipped::Duplicate),
            // "Earlier than the last one's of its (device, metric): late: counted, ignored."
            Some(last) if placed < last.at => {
                let since = *self.clocks.late_since.entry(device.clone()).or_insert(now);
                if now - since < REANCHOR_AFTER {
                    return Err(Skipped::Late);
                }
                // "Only late for 30 s: its clock went back: it is re-anchored to arrival."
                *behind = (now - at).max(0);
            }
            _ => {}
        }
        let placed = at + *behind;
        self.clocks.late_since.remove(device);
        Ok(placed)
    }
}
