//! What was heard of devices: for each metric the last value, and who looks at it.

use std::sync::Arc;

use super::{latch::NEVER, plan::About, saved::WatchState};
use crate::{reading::Value, rule::Test, time::EngineTime};

/// A device that was seen, or that a rule names.
#[derive(Debug)]
pub(super) struct Device {
    pub about: Arc<About>,
    /// (metric, watch), by metric.
    pub watches: Vec<(u32, u32)>,
    /// Its slots, by rule.
    pub slots: Vec<u32>,
    /// Since when all that came was late.
    pub late_since: EngineTime,
    /// What is added to its stamps since its clock went back.
    pub offset: i64,
    /// It has sent something; else only the configuration speaks of it.
    pub seen: bool,
    pub muted: bool,
}

impl Device {
    pub(super) fn watch(&self, metric: u32) -> Option<u32> {
        let place = self
            .watches
            .binary_search_by_key(&metric, |(metric, _)| *metric)
            .ok()?;
        self.watches.get(place).map(|(_, watch)| *watch)
    }
}

/// A metric of a device.
#[derive(Debug)]
pub(super) struct Watch {
    /// When the last reading counted; [`NEVER`] if none came.
    seen: EngineTime,
    /// What the last reading said.
    last: Scalar,
    /// What else must be known, which is seldom.
    odd: Option<Box<Odd>>,
    pub unit: Option<Arc<str>>,
    pub device: u32,
    pub metric: u32,
    /// Who looks at it; [`NOBODY`], and of several the first: all are with what is odd.
    slot: u32,
    /// What must be saved of it and when.
    pub keep: Keep,
    /// Waits to be saved.
    pub queued: bool,
    /// It was sent or is expected, so the rules about it have their slots; else it is only a part of others'.
    pub staffed: bool,
    /// The last reading's time is the newest stamp; else that is with what is odd.
    is_stamp: bool,
}

/// In place of a slot.
const NOBODY: u32 = u32::MAX;

/// Whether the last value must be on the disk, so that a crash loses no more than the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Keep {
    /// No.
    Nothing,
    /// That it was seen at all, for `silent-for`.
    Once,
    /// Each time: a sub-condition or `unless` looks at it.
    Always,
}

/// A [`Value`] in half the room.
#[derive(Debug, PartialEq)]
enum Scalar {
    Bool(bool),
    Number(f64),
    // A thin pointer: texts are rare, watches are many.
    Text(Box<Arc<str>>),
}

#[derive(Debug)]
struct Odd {
    /// The last number, where something else came after it.
    number: Option<f64>,
    /// What the newest stamp said, where an arrival came after it.
    stamped: Option<Value>,
    /// The newest stamp, where that is not the last reading's time.
    stamp: EngineTime,
    /// Who looks at it, where they are several: by rule, then device.
    slots: Box<[u32]>,
}

impl Default for Odd {
    fn default() -> Self {
        Self {
            number: None,
            stamped: None,
            stamp: NEVER,
            slots: Box::default(),
        }
    }
}

const _: () = assert!(size_of::<Watch>() <= 64);

impl Watch {
    pub(super) fn new(device: u32, metric: u32) -> Self {
        Self {
            device,
            metric,
            seen: NEVER,
            last: Scalar::Bool(false),
            odd: None,
            unit: None,
            slot: NOBODY,
            keep: Keep::Nothing,
            queued: false,
            staffed: false,
            is_stamp: false,
        }
    }

    /// Who looks at it: by rule, then device.
    pub(super) fn slots(&self) -> &[u32] {
        match &self.odd {
            _ if self.slot == NOBODY => &[],
            Some(odd) if !odd.slots.is_empty() => &odd.slots,
            _ => std::slice::from_ref(&self.slot),
        }
    }

    pub(super) fn set_slots(&mut self, slots: Vec<u32>) {
        self.slot = slots.first().copied().unwrap_or(NOBODY);
        if slots.len() > 1 {
            self.odd.get_or_insert_default().slots = slots.into();
        }
    }

    /// When the last reading counted; [`NEVER`] if none came.
    pub(super) fn seen(&self) -> EngineTime {
        self.seen
    }

    /// It counts as heard of then at least. What its device says of that time may still come.
    pub(super) fn trust(&mut self, at: EngineTime) {
        let stamp = self.stamp();
        self.seen = self.seen.max(at);
        self.set_stamp(stamp);
    }

    /// The newest stamp of the device's own.
    pub(super) fn stamp(&self) -> EngineTime {
        if self.is_stamp {
            return self.seen;
        }
        self.odd.as_ref().map_or(NEVER, |odd| odd.stamp)
    }

    /// To be called last: the last reading's time is looked at.
    fn set_stamp(&mut self, stamp: EngineTime) {
        self.is_stamp = stamp != NEVER && stamp == self.seen;
        if stamp != NEVER && !self.is_stamp {
            self.odd.get_or_insert_default().stamp = stamp;
        }
    }

    /// Whether anybody asks for it; else it is forgotten over a restart.
    pub(super) fn is_of_note(&self) -> bool {
        self.keep != Keep::Nothing || !self.slots().is_empty()
    }

    /// Takes a reading that counts.
    pub(super) fn hear(&mut self, at: EngineTime, value: &Value, stamped: bool) {
        let new = Scalar::of(value);
        if let (Scalar::Number(number), true) = (&self.last, self.seen != NEVER)
            && !matches!(new, Scalar::Number(_))
        {
            self.odd.get_or_insert_default().number = Some(*number);
        }
        let mut stamp = self.stamp();
        if stamped {
            stamp = at;
            if let Some(odd) = &mut self.odd {
                odd.stamped = None;
            }
        } else if stamp != NEVER && self.odd.as_ref().is_none_or(|odd| odd.stamped.is_none()) {
            let said = self.last.value();
            self.odd.get_or_insert_default().stamped = Some(said);
        }
        self.last = new;
        self.seen = self.seen.max(at);
        self.set_stamp(stamp);
    }

    /// Restores what was known, if it is newer than what is.
    pub(super) fn restore(&mut self, saved: &WatchState) {
        let mut stamp = self.stamp();
        if saved.seen > self.seen
            && let Some(value) = &saved.value
        {
            self.seen = saved.seen;
            self.last = Scalar::of(value);
            self.unit.clone_from(&saved.unit);
            if let Some(odd) = &mut self.odd {
                (odd.number, odd.stamped) = (None, None);
            }
            if let Some(number) = saved.number {
                self.odd.get_or_insert_default().number = Some(number);
            }
        }
        if let Some((at, said)) = &saved.stamp
            && *at > stamp
        {
            stamp = *at;
            if self.seen == NEVER {
                self.last = Scalar::of(said);
                self.seen = *at;
            } else if self.last.value() != *said {
                self.odd.get_or_insert_default().stamped = Some(said.clone());
            }
        }
        self.set_stamp(stamp);
    }

    /// The last value; none if none came.
    pub(super) fn last(&self) -> Option<Value> {
        (self.seen != NEVER).then(|| self.last.value())
    }

    /// The newest stamp and what it said.
    pub(super) fn stamped(&self) -> Option<(EngineTime, Value)> {
        let stamp = self.stamp();
        (stamp != NEVER).then(|| {
            let said = self.odd.as_ref().and_then(|odd| odd.stamped.clone());
            (stamp, said.unwrap_or_else(|| self.last.value()))
        })
    }

    /// Whether a reading repeats what the newest stamp said.
    pub(super) fn repeats(&self, value: &Value) -> bool {
        match self.odd.as_ref().and_then(|odd| odd.stamped.as_ref()) {
            Some(said) => said == value,
            None => self.last == *value,
        }
    }

    /// The last value that `test` can judge.
    pub(super) fn for_test(&self, test: &Test) -> Option<Value> {
        if matches!(test, Test::Equals(_) | Test::NotEquals(_)) {
            return self.last();
        }
        self.number().map(Value::Number)
    }

    /// The last number.
    pub(super) fn number(&self) -> Option<f64> {
        match &self.last {
            Scalar::Number(number) if self.seen != NEVER => Some(*number),
            _ => self.odd.as_ref()?.number,
        }
    }
}

impl Scalar {
    fn of(value: &Value) -> Self {
        match value {
            Value::Bool(on) => Self::Bool(*on),
            Value::Number(number) => Self::Number(*number),
            Value::Text(text) => Self::Text(Box::new(Arc::clone(text))),
        }
    }

    fn value(&self) -> Value {
        match self {
            Self::Bool(on) => Value::Bool(*on),
            Self::Number(number) => Value::Number(*number),
            Self::Text(text) => Value::Text(Arc::clone(text)),
        }
    }
}

impl PartialEq<Value> for Scalar {
    fn eq(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Bool(a), Value::Bool(b)) => a == b,
            (Self::Number(a), Value::Number(b)) => a == b,
            (Self::Text(a), Value::Text(b)) => ***a == **b,
            _ => false,
        }
    }
}

/// Whether readings of this value mean something to `test`.
pub(super) fn is_comparable(test: &Test, value: &Value) -> bool {
    matches!(value, Value::Number(_)) || matches!(test, Test::Equals(_) | Test::NotEquals(_))
}
