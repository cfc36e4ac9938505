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
    pub seen: EngineTime,
    /// The newest stamp of the device's own.
    pub stamp: EngineTime,
    /// What the last reading said.
    last: Scalar,
    /// What else must be known, which is seldom.
    odd: Option<Box<Odd>>,
    pub unit: Option<Arc<str>>,
    pub device: u32,
    pub metric: u32,
    /// Who looks at it: by rule, then device.
    pub slots: Slots,
    /// What must be saved of it and when.
    pub keep: Keep,
    /// Waits to be saved.
    pub queued: bool,
    /// It was sent or is expected, so the rules about it have their slots; else it is only a part of others'.
    pub staffed: bool,
}

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

/// Slots by number; mostly it is one.
#[derive(Debug)]
pub(super) enum Slots {
    One(u32),
    Some(Box<[u32]>),
}

impl Default for Slots {
    fn default() -> Self {
        Self::Some(Box::default())
    }
}

impl From<Vec<u32>> for Slots {
    fn from(slots: Vec<u32>) -> Self {
        match slots.as_slice() {
            [one] => Self::One(*one),
            _ => Self::Some(slots.into()),
        }
    }
}

impl std::ops::Deref for Slots {
    type Target = [u32];
    fn deref(&self) -> &[u32] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Some(slots) => slots,
        }
    }
}

/// A [`Value`] in half the room.
#[derive(Debug, PartialEq)]
enum Scalar {
    Bool(bool),
    Number(f64),
    // A thin pointer: texts are rare, watches are many.
    Text(Box<Arc<str>>),
}

#[derive(Debug, Default)]
struct Odd {
    /// The last number, where something else came after it.
    number: Option<f64>,
    /// What the newest stamp said, where an arrival came after it.
    stamped: Option<Value>,
}

const _: () = assert!(size_of::<Watch>() <= 88);

impl Watch {
    pub(super) fn new(device: u32, metric: u32) -> Self {
        Self {
            device,
            metric,
            seen: NEVER,
            stamp: NEVER,
            last: Scalar::Bool(false),
            odd: None,
            unit: None,
            slots: Slots::default(),
            keep: Keep::Nothing,
            queued: false,
            staffed: false,
        }
    }

    /// Whether anybody asks for it; else it is forgotten over a restart.
    pub(super) fn is_of_note(&self) -> bool {
        self.keep != Keep::Nothing || !self.slots.is_empty()
    }

    /// Takes a reading that counts.
    pub(super) fn hear(&mut self, at: EngineTime, value: &Value, stamped: bool) {
        let new = Scalar::of(value);
        if let (Scalar::Number(number), true) = (&self.last, self.seen != NEVER)
            && !matches!(new, Scalar::Number(_))
        {
            self.odd.get_or_insert_default().number = Some(*number);
        }
        if stamped {
            self.stamp = at;
            if let Some(odd) = &mut self.odd {
                odd.stamped = None;
            }
        } else if self.stamp != NEVER && self.odd.as_ref().is_none_or(|odd| odd.stamped.is_none()) {
            let said = self.last.value();
            self.odd.get_or_insert_default().stamped = Some(said);
        }
        self.last = new;
        self.seen = self.seen.max(at);
    }

    /// Restores what was known, if it is newer than what is.
    pub(super) fn restore(&mut self, saved: &WatchState) {
        if saved.seen > self.seen
            && let Some(value) = &saved.value
        {
            self.seen = saved.seen;
            self.last = Scalar::of(value);
            self.odd = None;
            if let (Some(number), false) = (saved.number, matches!(value, Value::Number(_))) {
                self.odd.get_or_insert_default().number = Some(number);
            }
        }
        if let Some((at, said)) = &saved.stamp
            && *at > self.stamp
        {
            self.stamp = *at;
            if self.seen == NEVER {
                self.last = Scalar::of(said);
                self.seen = *at;
            } else if self.last.value() != *said {
                self.odd.get_or_insert_default().stamped = Some(said.clone());
            }
        }
    }

    /// The last value; none if none came.
    pub(super) fn last(&self) -> Option<Value> {
        (self.seen != NEVER).then(|| self.last.value())
    }

    /// The newest stamp and what it said.
    pub(super) fn stamped(&self) -> Option<(EngineTime, Value)> {
        (self.stamp != NEVER).then(|| {
            let said = self.odd.as_ref().and_then(|odd| odd.stamped.clone());
            (self.stamp, said.unwrap_or_else(|| self.last.value()))
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
