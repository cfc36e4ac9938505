//! What a valid rule is. Pure: no clock, no I/O, no async, no logging. The meaning is docs/rules.md.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value as Json, json};

use crate::{
    event::{Labels, Severity},
    reading::{DeviceId, Metric, Value},
};

pub mod engine;
pub mod period;
pub mod state;

/// One watch over one metric of every matching device.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Unique; episodes survive an edit if it stays.
    pub name: Arc<str>,
    /// The event's name, CamelCase: `HighTemperature`.
    pub event: Arc<str>,
    /// The name of its end: `HighTemperatureCleared`.
    pub cleared_event: Arc<str>,
    /// What stands before the event's name in its type: `io.tidegate.rule.`.
    pub type_prefix: Arc<str>,
    /// What it watches.
    pub metric: Metric,
    /// Patterns of device ids (`*` any run of characters); at least one must match.
    pub devices: Vec<Pattern>,
    /// Labels the device must have.
    pub labels_required: Labels,
    /// When it holds and when it ends.
    pub condition: Condition,
    /// How long the condition must hold before it is raised; zero: at once.
    pub hold: Duration,
    /// How long the clear condition must hold before it ends; zero: at once.
    pub clear_hold: Duration,
    /// Of all its events.
    pub severity: Severity,
    /// Raises per device and hour beyond which an episode stays active until quiet.
    pub max_raises: MaxRaises,
    /// With `{device}`, `{metric}`, `{value}`, `{unit}`, `{threshold}`; none: the default text.
    pub summary: Option<String>,
    /// Copied into the event.
    pub runbook: Option<String>,
    /// Copied into the event.
    pub labels: Labels,
    /// Other numbers for some devices; the last that matches decides, per key.
    pub overrides: Vec<Override>,
}

/// At most `count` raises in `per`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxRaises {
    /// How many.
    pub count: u32,
    /// In how long.
    pub per: Duration,
}

/// The same rule, other numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Override {
    /// For which devices.
    pub devices: Vec<Pattern>,
    /// The condition, complete: the configuration has merged the keys (the kind never differs).
    pub condition: Option<Condition>,
    /// Another hold.
    pub hold: Option<Duration>,
    /// Another clear-hold.
    pub clear_hold: Option<Duration>,
    /// Another severity.
    pub severity: Option<Severity>,
}

/// A pattern of device ids: `*` stands for any run of characters, all else for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(pub Arc<str>);

/// A condition with its clear point already computed, so that `clear` and `margin` are one thing here.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// `v > threshold`; ends at `v <= clear`.
    Above {
        /** Over this. */
        threshold: f64,
        /** Ends at or under this. */
        clear: f64,
    },
    /// `v < threshold`; ends at `v >= clear`.
    Below {
        /** Under this. */
        threshold: f64,
        /** Ends at or over this. */
        clear: f64,
    },
    /// `v < lo or v > hi`; ends within `margin` of neither.
    Outside {
        /** Low end. */
        lo: f64,
        /** High end. */
        hi: f64,
        /** Hysteresis. */
        margin: f64,
    },
    /// `lo <= v <= hi`; ends further than `margin` outside.
    Inside {
        /** Low end. */
        lo: f64,
        /** High end. */
        hi: f64,
        /** Hysteresis. */
        margin: f64,
    },
    /// `v == value`.
    Equals(Value),
    /// `v != value`.
    NotEquals(Value),
}

/// What the configuration knows of a device: its name, labels and the names it has on the wire.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceFacts {
    /// The id or a pattern of ids; the first that matches decides name, all that match give labels.
    pub id: Pattern,
    /// A display name.
    pub name: Option<Arc<str>>,
    /// Its labels.
    pub labels: Labels,
    /// Names it has on the wire.
    pub from: Vec<DeviceId>,
}

impl DeviceFacts {
    /// A device of which nothing but its id is known.
    #[must_use]
    pub fn of(id: &str) -> Self {
        Self {
            id: Pattern(id.into()),
            name: None,
            labels: Labels::new(),
            from: Vec::new(),
        }
    }
}

/// What one value says about a condition. Never both ends: a clear point lies on the far side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The condition is true.
    Holds,
    /// Neither: within the hysteresis.
    Between,
    /// The clear condition is true.
    Clears,
}

impl Rule {
    /// Whether it watches a device of this name and with these labels.
    #[must_use]
    pub fn watches(&self, device: &str, labels: &Labels) -> bool {
        self.devices.iter().any(|pattern| pattern.matches(device))
            && self
                .labels_required
                .iter()
                .all(|(key, value)| labels.get(key) == Some(value))
    }
}

impl Pattern {
    /// Whether `name` matches, all of it. Takes at most (length of the pattern) * (length of the name) steps.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else {
            return false;
        };
        let Some(last) = parts.next_back() else {
            return rest.is_empty();
        };
        // The earliest place for each part leaves the most room for those that follow.
        for part in parts {
            match rest.split_once(part) {
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

impl Condition {
    /// What `value` says; none if it is of a kind that cannot be compared (a text with `above`).
    #[must_use]
    pub fn judge(&self, value: &Value) -> Option<Verdict> {
        let number = match value {
            Value::Number(number) => Some(*number),
            Value::Bool(_) | Value::Text(_) => None,
        };
        let (holds, clears) = match self {
            Self::Above { threshold, clear } => (number? > *threshold, number? <= *clear),
            Self::Below { threshold, clear } => (number? < *threshold, number? >= *clear),
            Self::Outside { lo, hi, margin } => {
                let v = number?;
                (v < *lo || v > *hi, v >= lo + margin && v <= hi - margin)
            }
            Self::Inside { lo, hi, margin } => {
                let v = number?;
                (v >= *lo && v <= *hi, v < lo - margin || v > hi + margin)
            }
            Self::Equals(wanted) => (value == wanted, value != wanted),
            Self::NotEquals(wanted) => (value != wanted, value == wanted),
        };
        Some(match (holds, clears) {
            (true, _) => Verdict::Holds,
            (false, true) => Verdict::Clears,
            (false, false) => Verdict::Between,
        })
    }

    /// Whether the condition is true for `value`.
    #[must_use]
    pub fn holds(&self, value: &Value) -> bool {
        self.judge(value) == Some(Verdict::Holds)
    }

    /// Whether the clear condition is true for `value`.
    #[must_use]
    pub fn clears(&self, value: &Value) -> bool {
        self.judge(value) == Some(Verdict::Clears)
    }

    /// The configuration's key, as written.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Above { .. } => "above",
            Self::Below { .. } => "below",
            Self::Outside { .. } => "outside",
            Self::Inside { .. } => "inside",
            Self::Equals(_) => "equals",
            Self::NotEquals(_) => "not-equals",
        }
    }

    /// Its numbers as an event quotes them, under `snake_case` names.
    #[must_use]
    pub fn params(&self) -> Map<String, Json> {
        let quoted = match self {
            Self::Above { threshold, clear } => json!({ "above": threshold, "clear": clear }),
            Self::Below { threshold, clear } => json!({ "below": threshold, "clear": clear }),
            Self::Outside { lo, hi, margin } => json!({ "outside": [lo, hi], "margin": margin }),
            Self::Inside { lo, hi, margin } => json!({ "inside": [lo, hi], "margin": margin }),
            Self::Equals(value) => json!({ "equals": value }),
            Self::NotEquals(value) => json!({ "not_equals": value }),
        };
        match quoted {
            Json::Object(map) => map,
            _ => Map::new(),
        }
    }
}
