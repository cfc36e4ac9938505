//! What a rule looks at and when that holds. Clear points are already computed, so that `clear` and `margin` are
//! one thing here.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

use crate::reading::{DeviceId, Metric, Value};

/// When a rule holds and when it ends.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// One metric, as it comes or over a window.
    Value(Watched),
    /// `silent-for`: no valid reading of the metric for so long; ends with the next one.
    Silent {
        /** Of this. */
        metric: Metric,
        /** For so long. */
        after: Duration,
    },
    /// Every part holds; ends when the clear condition of one is true.
    All(Vec<Part>),
    /// Some part holds; ends when the clear conditions of all are true.
    Any(Vec<Part>),
}

/// A metric, as it comes or over a window, and the test on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Watched {
    /// What is measured.
    pub metric: Metric,
    /// Over which window; none: each value by itself.
    pub window: Option<Sliding>,
    /// What is asked of it.
    pub test: Test,
}

/// One sub-condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Whose metric; none: the rule's own device.
    pub device: Option<DeviceId>,
    /// What of it.
    pub watched: Watched,
}

/// A sliding window of event time: the readings of (t - `over`, t].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sliding {
    /// What is computed from them.
    pub of: Aggregate,
    /// How long.
    pub over: Duration,
    /// With fewer readings it is unknown; an empty one always is.
    pub min: usize,
    /// Beyond so many readings it is kept as summaries of neighbours.
    pub max: usize,
}

/// What a window says. All but `Count` look at numbers only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Aggregate {
    /// The mean.
    Mean,
    /// The smallest.
    Min,
    /// The largest.
    Max,
    /// The sum.
    Sum,
    /// How many readings.
    Count,
    /// The newest minus the oldest.
    Delta,
    /// The newest minus the smallest: `rises-by`.
    Rise,
    /// The largest minus the newest: `falls-by`.
    Fall,
}

/// What is asked of a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
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
    /// The rise is `by` or more; ends when it is less than `clear`.
    RisesBy {
        /** At least so much. */
        by: f64,
        /** Ends under this. */
        clear: f64,
    },
    /// The fall is `by` or more; ends when it is less than `clear`.
    FallsBy {
        /** At least so much. */
        by: f64,
        /** Ends under this. */
        clear: f64,
    },
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

impl Condition {
    /// One metric as it comes.
    #[must_use]
    pub fn of(metric: Metric, test: Test) -> Self {
        Self::Value(Watched {
            metric,
            window: None,
            test,
        })
    }

    /// The one metric it is about; none for `all` and `any`.
    #[must_use]
    pub fn metric(&self) -> Option<&Metric> {
        match self {
            Self::Value(watched) => Some(&watched.metric),
            Self::Silent { metric, .. } => Some(metric),
            Self::All(_) | Self::Any(_) => None,
        }
    }

    /// Its sub-conditions.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        match self {
            Self::Value(_) | Self::Silent { .. } => &[],
            Self::All(parts) | Self::Any(parts) => parts,
        }
    }

    /// The configuration's key, as written.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Value(watched) => watched.test.kind(),
            Self::Silent { .. } => "silent-for",
            Self::All(_) => "all",
            Self::Any(_) => "any",
        }
    }

    /// Its numbers as an event quotes them, under `snake_case` names.
    #[must_use]
    pub fn params(&self) -> Map<String, Json> {
        match self {
            Self::Value(watched) => watched.params(),
            Self::Silent { after, .. } => map(json!({ "silent_for_s": seconds(*after) })),
            Self::All(parts) => map(json!({ "all": quoted(parts) })),
            Self::Any(parts) => map(json!({ "any": quoted(parts) })),
        }
    }
}

impl Watched {
    /// Its numbers as an event quotes them.
    #[must_use]
    pub fn params(&self) -> Map<String, Json> {
        let mut params = self.test.params();
        if let Some(window) = &self.window {
            match window.of {
                Aggregate::Rise | Aggregate::Fall => {
                    params.insert("within_s".to_owned(), seconds(window.over));
                }
                of => {
                    params.insert("of".to_owned(), of.key().into());
                    params.insert("over_s".to_owned(), seconds(window.over));
                }
            }
            if window.min > 1 {
                params.insert("window_min".to_owned(), window.min.into());
            }
        }
        params
    }
}

impl Part {
    /// Its metric, device and numbers as an event quotes them.
    #[must_use]
    pub fn params(&self) -> Map<String, Json> {
        let mut params = self.watched.params();
        params.insert("metric".to_owned(), self.watched.metric.as_str().into());
        if let Some(device) = &self.device {
            params.insert("device".to_owned(), device.as_str().into());
        }
        params
    }
}

fn quoted(parts: &[Part]) -> Vec<Map<String, Json>> {
    parts.iter().map(Part::params).collect()
}

fn map(quoted: Json) -> Map<String, Json> {
    match quoted {
        Json::Object(map) => map,
        _ => Map::new(),
    }
}

/// As events quote durations: whole seconds as an integer, others as a fraction.
#[must_use]
pub fn seconds(duration: Duration) -> Json {
    if duration.subsec_nanos() == 0 {
        json!(duration.as_secs())
    } else {
        json!(duration.as_secs_f64())
    }
}

impl Aggregate {
    /// As `of` names it; a rise and a fall have keys of their own.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Min => "min",
            Self::Max => "max",
            Self::Sum => "sum",
            Self::Count => "count",
            Self::Delta => "delta",
            Self::Rise => "rise",
            Self::Fall => "fall",
        }
    }
}

impl Test {
    /// What `value` says; none if it is of a kind that cannot be compared (a text with `above`).
    #[must_use]
    pub fn judge(&self, value: &Value) -> Option<Verdict> {
        let (holds, clears) = match self {
            Self::Equals(wanted) => (value == wanted, value != wanted),
            Self::NotEquals(wanted) => (value != wanted, value == wanted),
            _ => match value {
                Value::Number(number) => self.sides(*number),
                Value::Bool(_) | Value::Text(_) => return None,
            },
        };
        Some(match (holds, clears) {
            (true, _) => Verdict::Holds,
            (false, true) => Verdict::Clears,
            (false, false) => Verdict::Between,
        })
    }

    /// Whether it is true and whether its clear condition is.
    fn sides(&self, v: f64) -> (bool, bool) {
        match self {
            Self::Above { threshold, clear } => (v > *threshold, v <= *clear),
            Self::Below { threshold, clear } => (v < *threshold, v >= *clear),
            Self::Outside { lo, hi, margin } => (v < *lo || v > *hi, v >= lo + margin && v <= hi - margin),
            Self::Inside { lo, hi, margin } => (v >= *lo && v <= *hi, v < lo - margin || v > hi + margin),
            Self::RisesBy { by, clear } | Self::FallsBy { by, clear } => (v >= *by, v < *clear),
            // Judged by value, of any kind.
            Self::Equals(_) | Self::NotEquals(_) => (false, false),
        }
    }

    /// Whether it is true for `value`.
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
            Self::RisesBy { .. } => "rises-by",
            Self::FallsBy { .. } => "falls-by",
        }
    }

    /// Its numbers as an event quotes them, under `snake_case` names.
    #[must_use]
    pub fn params(&self) -> Map<String, Json> {
        map(match self {
            Self::Above { threshold, clear } => json!({ "above": threshold, "clear": clear }),
            Self::Below { threshold, clear } => json!({ "below": threshold, "clear": clear }),
            Self::Outside { lo, hi, margin } => json!({ "outside": [lo, hi], "margin": margin }),
            Self::Inside { lo, hi, margin } => json!({ "inside": [lo, hi], "margin": margin }),
            Self::Equals(value) => json!({ "equals": value }),
            Self::NotEquals(value) => json!({ "not_equals": value }),
            Self::RisesBy { by, clear } => json!({ "rises_by": by, "clear": clear }),
            Self::FallsBy { by, clear } => json!({ "falls_by": by, "clear": clear }),
        })
    }
}
