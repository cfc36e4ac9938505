//! The state as the journal keeps it: CBOR under a key per slot, watch, mute and run of a window, with the moment it
//! was saved at, so that its times mean something after a reboot. Slots are `slot.rs`.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};

use super::{Engine, MuteTarget, latch::NEVER, plan::Plan, window::Extract};
use crate::{
    reading::{DeviceId, Metric, Value},
    rule::{Sliding, state::StateChange},
    time::{ClockQuality, EngineTime, Moment},
};

/// Holds the number of the last episode.
pub(super) const COUNTER: &[u8] = b"engine";
/// Holds the number of the last mute.
pub(super) const MUTE_COUNTER: &[u8] = b"engine/mute";
/// Holds how far the boot clock is known to have come, so that across a reboot the time that passed in a boot counts
/// whoever was saved when.
pub(super) const MOMENT: &[u8] = b"engine/moment";
/// Holds the moment of a clean stop; gone once the engine runs again.
pub(super) const STOPPED: &[u8] = b"engine/stopped";
/// What is known of a metric.
#[derive(Clone, Debug)]
pub(super) struct WatchState {
    pub seen: EngineTime,
    /// What the last reading said.
    pub value: Option<Value>,
    /// The last number, where something else came after it.
    pub number: Option<f64>,
    pub unit: Option<Arc<str>>,
    /// The newest stamp, and what it said: what was late before a restart is late after it.
    pub stamp: Option<(EngineTime, Value)>,
}

impl Serialize for WatchState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.seen, &self.value, self.number, &self.unit, &self.stamp).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for WatchState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (seen, value, number, unit, stamp) = Deserialize::deserialize(deserializer)?;
        Ok(Self {
            seen,
            value,
            number,
            unit,
            stamp,
        })
    }
}

/// A watch by itself.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedWatch {
    pub at: Moment,
    pub watch: WatchState,
    /// What the device's stamps are shifted by since its clock went back.
    pub offset: i64,
    /// Since when all that came of the device was late.
    pub late_since: EngineTime,
}

/// A run of a window.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedRun {
    pub at: Moment,
    /// Always there; taken out when it is read.
    pub question: Option<Question>,
    pub extract: Extract,
}

/// What a window was asked, by which kind of rule about what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Question {
    /// None: the rule's own.
    device: Option<DeviceId>,
    metric: Metric,
    pub window: Option<Sliding>,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    subject: Option<Metric>,
}

impl Question {
    /// That of the input at a place, `unless` after the condition's own.
    pub(super) fn of(plan: &Plan, place: usize) -> Option<Self> {
        let unless = plan.rule.unless.iter().map(|unless| &unless.part);
        let unless = unless.map(|part| (part.device.as_ref(), &part.watched));
        let own = plan.inputs().filter(|_| !plan.is_plain());
        let (device, watched) = own.chain(unless).nth(place)?;
        Some(Self {
            device: device.cloned(),
            metric: watched.metric.clone(),
            window: watched.window,
            kind: plan.condition.kind().to_owned(),
            subject: plan.condition.metric().cloned(),
        })
    }

    /// Whether what was kept for it answers `new`. Readings do for any; summaries are made for one length and one
    /// aggregate.
    pub(super) fn fits(&self, new: &Self, is_summed: bool) -> bool {
        let is_same = (&self.device, &self.metric, &self.kind, &self.subject)
            == (&new.device, &new.metric, &new.kind, &new.subject);
        is_same && (!is_summed || self.window == new.window)
    }

    /// Whose metric, if not the rule's own device's.
    pub(super) fn device(&self) -> Option<&DeviceId> {
        self.device.as_ref()
    }

    pub(super) fn metric(&self) -> &Metric {
        &self.metric
    }

    pub(super) fn is_about(&self, device: &DeviceId) -> bool {
        self.device.as_ref() == Some(device)
    }
}

/// A mute.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedMute {
    pub at: Moment,
    pub number: u64,
    pub until: EngineTime,
    pub reason: Arc<str>,
}

impl Engine {
    pub(super) fn keep_watch(&self, watch: u32) -> WatchState {
        let row = &self.watches[watch];
        let value = row.last();
        let is_number = matches!(value, Some(Value::Number(_)));
        WatchState {
            seen: row.seen(),
            value,
            number: row.number().filter(|_| !is_number),
            unit: row.unit.clone(),
            stamp: row.stamped(),
        }
    }
}

impl WatchState {
    pub(super) fn rebase(&mut self, saved: &Moment, now: &Moment) {
        move_by(&mut self.seen, shift(saved, now));
        self.stamp = self
            .stamp
            .take()
            .and_then(|(at, value)| Some((rebased_stamp(at, saved, now)?, value)));
    }
}

impl SavedRun {
    /// Moves all times onto the boot clock of `now`; its boot is known up to `end`.
    pub(super) fn rebased(mut self, end: &Moment, now: &Moment) -> Extract {
        let by = shift(end, now);
        let times = self.extract.samples.iter_mut().chain(&mut self.extract.steps);
        times.for_each(|(at, _)| move_by(at, by));
        self.extract
            .passed
            .iter_mut()
            .for_each(|passed| move_by(passed, by));
        for bucket in &mut self.extract.buckets {
            move_by(&mut bucket.from, by);
            move_by(&mut bucket.to, by);
        }
        self.extract
    }
}

/// What never was stays so.
pub(super) fn move_by(time: &mut EngineTime, by: i64) {
    if *time != NEVER {
        *time = time.shifted(by);
    }
}

/// A stamp on the boot clock of `now`; none if nobody knows how the two boots lie to each other: a stamp put
/// too late would make what is new look late.
fn rebased_stamp(stamp: EngineTime, saved: &Moment, now: &Moment) -> Option<EngineTime> {
    (saved.boot_id == now.boot_id || both_synchronised(saved, now)).then(|| stamp.shifted(shift(saved, now)))
}

/// What to add to times of `saved`'s boot clock. Across a reboot the time that passed counts only if both
/// ends are known to be right; otherwise none passed, so that no timer fires early.
pub(super) fn shift(saved: &Moment, now: &Moment) -> i64 {
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
    [b"r/", rule.as_bytes(), b"/", device.as_str().as_bytes()].concat()
}

/// The rule and the device of a [`slot_key`]. A device's name has no slash, a rule's may.
pub(super) fn parse_slot_key(key: &[u8]) -> Option<(&str, DeviceId)> {
    let (rule, device) = text(key, "r/")?.rsplit_once('/')?;
    Some((rule, DeviceId::new(device).ok()?))
}

/// `l/<device>/<metric>`.
pub(super) fn watch_key(device: &DeviceId, metric: &Metric) -> Vec<u8> {
    format!("l/{device}/{metric}").into_bytes()
}

/// The device and the metric of a [`watch_key`].
pub(super) fn parse_watch_key(key: &[u8]) -> Option<(DeviceId, Metric)> {
    let (device, metric) = text(key, "l/")?.split_once('/')?;
    Some((DeviceId::new(device).ok()?, Metric::new(metric).ok()?))
}

/// `w/<rule>/<device>/<input>/<number>`.
pub(super) fn run_key(rule: &str, device: &DeviceId, input: usize, number: u32) -> Vec<u8> {
    format!("w/{rule}/{device}/{input}/{number}").into_bytes()
}

/// The rule, the device, the input and the number of a [`run_key`].
pub(super) fn parse_run_key(key: &[u8]) -> Option<(&str, DeviceId, usize, u32)> {
    let (rest, number) = text(key, "w/")?.rsplit_once('/')?;
    let (rest, input) = rest.rsplit_once('/')?;
    let (rule, device) = rest.rsplit_once('/')?;
    Some((
        rule,
        DeviceId::new(device).ok()?,
        input.parse().ok()?,
        number.parse().ok()?,
    ))
}

/// `m/d/<device>`, `m/r/<rule>`.
pub(super) fn mute_key(target: &MuteTarget) -> Vec<u8> {
    match target {
        MuteTarget::Device(device) => format!("m/d/{device}").into_bytes(),
        MuteTarget::Rule(rule) => format!("m/r/{rule}").into_bytes(),
    }
}

/// The target of a [`mute_key`].
pub(super) fn parse_mute_key(key: &[u8]) -> Option<MuteTarget> {
    let (kind, name) = text(key, "m/")?.split_once('/')?;
    match kind {
        "d" => Some(MuteTarget::Device(DeviceId::new(name).ok()?)),
        "r" => Some(MuteTarget::Rule(name.into())),
        _ => None,
    }
}

fn text<'a>(key: &'a [u8], prefix: &str) -> Option<&'a str> {
    std::str::from_utf8(key).ok()?.strip_prefix(prefix)
}

/// A change that forgets a key.
pub(super) fn forget(key: &[u8]) -> StateChange {
    StateChange {
        key: key.to_vec(),
        value: None,
    }
}

pub(super) fn encode(value: &impl Serialize) -> Vec<u8> {
    // Most are smaller: growing in steps costs more than encoding does.
    let mut bytes = Vec::with_capacity(512);
    ciborium::into_writer(value, &mut bytes).expect("plain structures into memory always encode");
    bytes
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    ciborium::from_reader(bytes).ok()
}
