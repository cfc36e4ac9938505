//! The state as the journal keeps it: CBOR under a key per slot, watch, mute and run of a window, with the moment it
//! was saved at, so that its times mean something after a reboot.
//!
//! A slot is written at every change, by rules that flap thousands of times an hour: it is an array, its fields have
//! no names, and what never changes is encoded once.

use std::sync::Arc;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, Error},
};
use sha2::{Digest, Sha256};

use super::{
    Engine, MuteTarget,
    latch::{Latch, NEVER, Slot},
    plan::Plan,
    window::Extract,
};
use crate::{
    event::{Epoch, RuleFacts},
    reading::{DeviceId, Metric, Value},
    rule::{Condition, Sliding, judged_by, state::StateChange},
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
/// A reading may come with a stamp of its own that is so old, `max-clock-skew` by default: it asks how it was then.
const OLDEST_STAMP: std::time::Duration = std::time::Duration::from_mins(10);
/// The form of a saved slot. Another one's cannot be read and is dropped.
const FORM: u8 = 2;
/// What of a slot's value the rule's facts take at most, in bytes: the rest is far below 1 KiB, a value at most 4.
const MAX_FACTS: usize = 3_000;

/// Writes a structure as the array of these fields, and reads it back.
macro_rules! as_array {
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                ($(&self.$field,)*).serialize(serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let ($($field,)*) = serde::Deserialize::deserialize(deserializer)?;
                Ok(Self { $($field),* })
            }
        }
    };
}
pub(super) use as_array;

/// What never changes, with its encoding.
#[derive(Clone, Debug)]
pub(super) struct Encoded<T> {
    value: T,
    bytes: Arc<[u8]>,
}

impl<T: Serialize> Encoded<T> {
    pub(super) fn new(value: T) -> Self {
        let bytes = encode(&value).into();
        Self { value, bytes }
    }
}

impl<T> std::ops::Deref for Encoded<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> PartialEq for Encoded<T> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl<T> Serialize for Encoded<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.bytes)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Encoded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Vec::deserialize(deserializer)?;
        let value = decode(&bytes).ok_or_else(|| D::Error::custom("not what it was encoded from"))?;
        let bytes = bytes.into();
        Ok(Self { value, bytes })
    }
}

/// The first bytes of a hash: tells whether something was edited.
pub(super) type Fingerprint = [u8; 4];

/// A rule as it decides: tells an edited rule, and speaks for a removed one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Decides {
    /// Without what would not fit: first labels and runbook, which only decorate, then the numbers.
    pub facts: Arc<RuleFacts>,
    /// Of what it judges values by.
    pub judges: Fingerprint,
    /// Of its `unless`.
    asks: Fingerprint,
}

impl Decides {
    pub(super) fn new(facts: &Arc<RuleFacts>) -> Encoded<Self> {
        let unless = ["unless", "unless_after_s"].map(|key| facts.params.get(key));
        let mut decides = Self {
            facts: Arc::clone(facts),
            judges: digest(&judged_by(&facts.params)),
            asks: digest(&unless),
        };
        let whole = Encoded::new(decides.clone());
        if whole.bytes.len() <= MAX_FACTS {
            return whole;
        }
        let facts = Arc::make_mut(&mut decides.facts);
        facts.labels.clear();
        facts.runbook = None;
        let bare = Encoded::new(decides.clone());
        if bare.bytes.len() <= MAX_FACTS {
            return bare;
        }
        Arc::make_mut(&mut decides.facts).params.clear();
        Encoded::new(decides)
    }

    /// Whether its `unless` asks what the other's does.
    pub(super) fn asks_as(&self, other: &Self) -> bool {
        self.asks == other.asks
    }
}

fn digest(value: &impl Serialize) -> Fingerprint {
    let whole = Sha256::digest(encode(value));
    std::array::from_fn(|place| whole.get(place).copied().unwrap_or_default())
}

/// One slot. Written complete on every change.
#[derive(Debug)]
pub(super) struct SavedSlot {
    pub at: Moment,
    pub epoch: Epoch,
    /// None: several.
    pub metric: Option<Metric>,
    /// The rule as it last decided.
    pub rule: Encoded<Decides>,
    pub latch: Latch,
    pub paid: EngineTime,
    pub entered: EngineTime,
    /// The last reading of its metric.
    pub watch: Option<WatchState>,
    /// What `silent-for` counts from; counts only after a clean stop.
    pub heard: Option<EngineTime>,
    /// Whether `unless` holds, and until when it counts.
    pub unless: Option<(bool, EngineTime)>,
}

impl Serialize for SavedSlot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let at = (self.at.boot_id, self.at.boot, self.at.wall, self.at.quality);
        let rule = (self.epoch, &self.metric, &self.rule);
        let life = (&self.latch, self.paid, self.entered);
        (FORM, at, rule, life, &self.watch, self.heard, self.unless).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SavedSlot {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (form, at, rule, life, watch, heard, unless): (u8, _, _, _, _, _, _) =
            Deserialize::deserialize(deserializer)?;
        if form != FORM {
            return Err(D::Error::custom("another form"));
        }
        let (boot_id, boot, wall, quality) = at;
        let (epoch, metric, rule) = rule;
        let (latch, paid, entered) = life;
        Ok(Self {
            at: Moment {
                boot_id,
                boot,
                wall,
                quality,
            },
            epoch,
            metric,
            rule,
            latch,
            paid,
            entered,
            watch,
            heard,
            unless,
        })
    }
}

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

as_array!(WatchState {
    seen,
    value,
    number,
    unit,
    stamp
});

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

impl Slot {
    /// Whether nothing has to be remembered.
    pub(super) fn is_plain(&self, now: EngineTime) -> bool {
        let quiet = self.wide.as_ref().and_then(|wide| wide.unless.as_ref());
        let over = |time: EngineTime| time.after(OLDEST_STAMP) <= now;
        self.latch == Latch::Normal
            && over(self.paid)
            && quiet.is_none_or(|quiet| !quiet.on && over(quiet.until))
    }
}

impl Engine {
    /// All that must be known of a slot.
    pub(super) fn keep_slot(&self, index: u32) -> SavedSlot {
        let slot = &self.slots[index];
        let plan = &self.plans[slot.plan];
        let wide = slot.wide.as_ref();
        SavedSlot {
            at: self.saved_at(),
            epoch: self.epoch,
            metric: plan.condition.metric().cloned(),
            rule: plan.decides.clone(),
            latch: slot.latch.clone(),
            paid: slot.paid,
            entered: slot.entered,
            watch: plan.condition.metric().map(|_| self.keep_watch(slot.watch)),
            heard: matches!(plan.condition, Condition::Silent { .. }).then_some(slot.heard),
            unless: wide
                .and_then(|wide| wide.unless.as_ref())
                .map(|quiet| (quiet.on, quiet.until)),
        }
    }

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

    pub(super) fn saved_slot(&self, index: u32) -> StateChange {
        let slot = &self.slots[index];
        let name = &self.plans[slot.plan].rule.name;
        StateChange {
            key: slot_key(name, &self.devices[slot.device].about.device),
            value: Some(encode(&self.keep_slot(index))),
        }
    }
}

impl SavedSlot {
    /// Moves all times onto the boot clock of `now`; its boot is known up to `end`.
    pub(super) fn rebased(mut self, end: &Moment, now: &Moment) -> Self {
        let by = shift(end, now);
        match &mut self.latch {
            Latch::Normal => {}
            Latch::Pending(run) => move_by(&mut run.since, by),
            Latch::Active(episode, _) | Latch::Clearing(episode, _) => {
                for time in [
                    &mut episode.run.since,
                    &mut episode.raised_at,
                    &mut episode.said_at,
                ] {
                    move_by(time, by);
                }
            }
        }
        move_by(&mut self.paid, by);
        move_by(&mut self.entered, by);
        if let Some((_, until)) = &mut self.unless {
            move_by(until, by);
        }
        if let Some(watch) = &mut self.watch {
            watch.rebase(end, now);
        }
        self
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
