//! The state as the journal keeps it: CBOR under a key per slot, with the moment it was saved at, so that its
//! times mean something after a reboot.

use std::sync::Arc;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::latch::{Latch, Slot};
use crate::{
    event::RuleFacts,
    reading::{DeviceId, Metric, Value},
    rule::state::StateChange,
    time::{ClockQuality, EngineTime, Moment},
};

/// Holds the number of the last episode.
pub(super) const COUNTER: &[u8] = b"engine";
/// What the journal takes at most, with room to spare.
const MAX_VALUE: usize = 4_000;

/// One slot. Written complete on every change.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedSlot {
    pub at: Moment,
    pub metric: Metric,
    /// The rule as it last decided: tells an edited rule, and speaks for a removed one.
    pub rule: Arc<RuleFacts>,
    pub latch: Latch,
    pub paid: EngineTime,
    pub entered: EngineTime,
    pub value: Option<Value>,
    pub unit: Option<Arc<str>>,
    /// The newest stamp of the metric: what was late before a restart is late after it.
    pub stamp: Option<(EngineTime, Value)>,
}

/// The newest stamp of a metric whose slots have nothing to remember; written by a clean stop only.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedStamp {
    pub at: Moment,
    pub stamp: (EngineTime, Value),
    /// What the device's stamps are shifted by since its clock went back.
    #[serde(default)]
    pub offset: i64,
}

impl SavedSlot {
    pub(super) fn of(slot: &Slot, at: Moment, metric: &Metric, stamp: Option<(EngineTime, Value)>) -> Self {
        Self {
            at,
            metric: metric.clone(),
            rule: Arc::clone(&slot.plan.facts),
            latch: slot.latch.clone(),
            paid: slot.paid,
            entered: slot.entered,
            value: slot.value.clone(),
            unit: slot.unit.clone(),
            stamp,
        }
    }

    /// As CBOR. Labels and runbook only decorate: they go before the state does.
    pub(super) fn encode(mut self) -> Vec<u8> {
        let bytes = encode(&self);
        if bytes.len() <= MAX_VALUE {
            return bytes;
        }
        let facts = Arc::make_mut(&mut self.rule);
        facts.labels.clear();
        facts.runbook = None;
        encode(&self)
    }

    /// Moves all times onto the boot clock of `now`.
    pub(super) fn rebased(mut self, now: &Moment) -> Self {
        let by = shift(&self.at, now);
        match &mut self.latch {
            Latch::Normal => {}
            Latch::Pending(run) => run.since = run.since.shifted(by),
            Latch::Active(episode) => {
                episode.run.since = episode.run.since.shifted(by);
                episode.raised_at = episode.raised_at.shifted(by);
            }
            Latch::Clearing(episode, since) => {
                episode.run.since = episode.run.since.shifted(by);
                episode.raised_at = episode.raised_at.shifted(by);
                *since = since.shifted(by);
            }
        }
        self.paid = self.paid.shifted(by);
        self.entered = self.entered.shifted(by);
        self.stamp = self
            .stamp
            .and_then(|(at, value)| Some((rebased_stamp(at, &self.at, now)?, value)));
        self
    }
}

/// A stamp on the boot clock of `now`; none if nobody knows how the two boots lie to each other: a stamp put
/// too late would make what is new look late.
pub(super) fn rebased_stamp(stamp: EngineTime, saved: &Moment, now: &Moment) -> Option<EngineTime> {
    (saved.boot_id == now.boot_id || both_synchronised(saved, now)).then(|| stamp.shifted(shift(saved, now)))
}

/// What to add to times of `saved`'s boot clock. Across a reboot the time that passed counts only if both
/// ends are known to be right; otherwise none passed, so that no timer fires early.
fn shift(saved: &Moment, now: &Moment) -> i64 {
    if saved.boot_id == now.boot_id {
        return 0;
    }
    let passed = if both_synchronised(saved, now) {
        now.wall.0.saturating_sub(saved.wall.0).max(0)
    } else {
        0
    };
    now.boot.0.saturating_sub(passed).saturating_sub(saved.boot.0)
}

fn both_synchronised(saved: &Moment, now: &Moment) -> bool {
    saved.quality == ClockQuality::Synchronised && now.quality == ClockQuality::Synchronised
}

/// `r/<rule>/<device>`.
pub(super) fn slot_key(rule: &str, device: &DeviceId) -> Vec<u8> {
    format!("r/{rule}/{device}").into_bytes()
}

/// The rule and the device of a [`slot_key`]. A device's name has no slash, a rule's may.
pub(super) fn parse_slot_key(key: &[u8]) -> Option<(&str, DeviceId)> {
    let (rule, device) = std::str::from_utf8(key)
        .ok()?
        .strip_prefix("r/")?
        .rsplit_once('/')?;
    Some((rule, DeviceId::new(device).ok()?))
}

/// `l/<device>/<metric>`.
pub(super) fn stamp_key(device: &DeviceId, metric: &Metric) -> Vec<u8> {
    format!("l/{device}/{metric}").into_bytes()
}

/// The device and the metric of a [`stamp_key`].
pub(super) fn parse_stamp_key(key: &[u8]) -> Option<(DeviceId, Metric)> {
    let (device, metric) = std::str::from_utf8(key)
        .ok()?
        .strip_prefix("l/")?
        .split_once('/')?;
    Some((DeviceId::new(device).ok()?, Metric::new(metric).ok()?))
}

/// A change that forgets a key.
pub(super) fn forget(key: &[u8]) -> StateChange {
    StateChange {
        key: key.to_vec(),
        value: None,
    }
}

pub(super) fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("plain structures into memory always encode");
    bytes
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    ciborium::from_reader(bytes).ok()
}
