//! What a rule looks at, and what it makes of it: each time anew from all readings there ever were.

use std::time::Duration;

use tidegate::{
    reading::{DeviceId, Metric, Value},
    rule::{Aggregate, Condition, Part, Rule, Test, Watched},
};

use super::{
    Second,
    life::{Plan, any_matches},
};

/// A reading that was evaluated.
#[derive(Clone, Debug)]
pub struct Kept {
    /// How many came before it.
    pub number: usize,
    pub device: DeviceId,
    pub metric: Metric,
    pub value: Value,
    pub at: Second,
    /// From when on it is not stale.
    pub heard: Second,
    pub stamped: bool,
    /// Its device was forgotten.
    pub forgotten: bool,
}

impl Kept {
    pub fn is(&self, device: &DeviceId, metric: &Metric) -> bool {
        self.device == *device && self.metric == *metric && !self.forgotten
    }
}

/// What a value says about a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say {
    Holds,
    Between,
    Clears,
}

/// The table of conditions, row by row: (true when, clear condition).
pub fn judge(test: &Test, value: &Value) -> Option<Say> {
    let number = || number(value);
    let (holds, clears) = match test {
        // v > x | v <= clear
        Test::Above { threshold, clear } => (number()? > *threshold, number()? <= *clear),
        // v < x | v >= clear
        Test::Below { threshold, clear } => (number()? < *threshold, number()? >= *clear),
        // v < lo or v > hi | lo + margin <= v <= hi - margin
        Test::Outside { lo, hi, margin } => {
            let v = number()?;
            (v < *lo || v > *hi, lo + margin <= v && v <= hi - margin)
        }
        // lo <= v <= hi | v < lo - margin or v > hi + margin
        Test::Inside { lo, hi, margin } => {
            let v = number()?;
            (*lo <= v && v <= *hi, v < lo - margin || v > hi + margin)
        }
        // v == x, v != x (numbers, booleans, strings) | the opposite
        Test::Equals(x) => (value == x, value != x),
        Test::NotEquals(x) => (value != x, value == x),
        // v - min over the last d >= x | rise over the last d < x - margin; likewise the fall
        Test::RisesBy { by, clear } | Test::FallsBy { by, clear } => (number()? >= *by, number()? < *clear),
    };
    Some(match (holds, clears) {
        (true, _) => Say::Holds,
        (false, true) => Say::Clears,
        (false, false) => Say::Between,
    })
}

pub fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => Some(*number),
        Value::Bool(_) | Value::Text(_) => None,
    }
}

/// All readings of this metric up to `at`, in the order they came.
pub fn readings<'a>(
    all: &'a [Kept],
    device: &DeviceId,
    metric: &Metric,
    at: Second,
) -> impl Iterator<Item = &'a Kept> {
    let (device, metric) = (device.clone(), metric.clone());
    all.iter()
        .filter(move |kept| kept.is(&device, &metric) && kept.at <= at)
}

/// The value that a rule looks at; none if it is unknown.
pub fn looked_at(
    all: &[Kept],
    from: usize,
    device: &DeviceId,
    watched: &Watched,
    at: Second,
) -> Option<Value> {
    let Some(sliding) = &watched.window else {
        // A value that the condition cannot be asked about says nothing.
        return readings(all, device, &watched.metric, at)
            .filter(|kept| judge(&watched.test, &kept.value).is_some())
            .last()
            .map(|kept| kept.value.clone());
    };
    // A sliding window of event time (t - d, t].
    let window: Vec<f64> = readings(all, device, &watched.metric, at)
        .filter(|kept| kept.number >= from && kept.at > at - seconds(sliding.over))
        .filter_map(|kept| match sliding.of {
            Aggregate::Count => Some(1.0),
            _ => number(&kept.value),
        })
        .collect();
    // An empty window is unknown; window-min is the fewest readings.
    let (Some(oldest), Some(newest)) = (window.first(), window.last()) else {
        return None;
    };
    if window.len() < sliding.min {
        return None;
    }
    let (sum, count) = (window.iter().sum::<f64>(), window.len() as f64);
    let min = window.iter().copied().fold(f64::INFINITY, f64::min);
    let max = window.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    Some(Value::Number(match sliding.of {
        Aggregate::Mean => sum / count,
        Aggregate::Min => min,
        Aggregate::Max => max,
        Aggregate::Sum => sum,
        Aggregate::Count => count,
        Aggregate::Delta => newest - oldest,
        Aggregate::Rise => newest - min,
        Aggregate::Fall => max - newest,
    }))
}

/// What a sub-condition says. One whose metric was never seen, or not for `stale-after`, is unknown.
pub fn part(
    all: &[Kept],
    from: usize,
    own: &DeviceId,
    part: &Part,
    stale_after: Duration,
    at: Second,
) -> Option<Say> {
    let device = of(part, own);
    let last = readings(all, device, &part.watched.metric, at).last()?;
    if at - last.heard >= seconds(stale_after) {
        return None;
    }
    judge(
        &part.watched.test,
        &looked_at(all, from, device, &part.watched, at)?,
    )
}

/// `all`: every sub-condition holds; ends with the negation, each sub-condition with its own clear point.
pub fn all_of(parts: &[Option<Say>]) -> Option<Say> {
    let every = |wanted| parts.iter().all(|said| *said == Some(wanted));
    if parts.contains(&Some(Say::Clears)) {
        Some(Say::Clears)
    } else if parts.contains(&None) {
        None
    } else if every(Say::Holds) {
        Some(Say::Holds)
    } else {
        Some(Say::Between)
    }
}

/// `any`: some sub-condition holds.
pub fn any_of(parts: &[Option<Say>]) -> Option<Say> {
    let every = |wanted| parts.iter().all(|said| *said == Some(wanted));
    if parts.contains(&Some(Say::Holds)) {
        Some(Say::Holds)
    } else if parts.contains(&None) {
        None
    } else if every(Say::Clears) {
        Some(Say::Clears)
    } else {
        Some(Say::Between)
    }
}

/// Whether a reading left the window since `last`.
pub fn has_left(
    all: &[Kept],
    from: usize,
    device: &DeviceId,
    watched: &Watched,
    last: Second,
    at: Second,
) -> bool {
    let Some(sliding) = &watched.window else {
        return false;
    };
    let over = seconds(sliding.over);
    readings(all, device, &watched.metric, at)
        .filter(|kept| kept.number >= from && is_understood(watched, kept))
        .any(|kept| last < kept.at + over && kept.at + over <= at)
}

pub fn of<'a>(part: &'a Part, own: &'a DeviceId) -> &'a DeviceId {
    part.device.as_ref().unwrap_or(own)
}

/// All times here are whole seconds.
pub fn seconds(duration: Duration) -> Second {
    assert_eq!(duration.subsec_nanos(), 0, "stories have whole seconds");
    Second::try_from(duration.as_secs()).unwrap()
}

/// A text or a boolean under `above` is not: it is as if it had not come.
fn is_understood(watched: &Watched, kept: &Kept) -> bool {
    match watched.window {
        None => judge(&watched.test, &kept.value).is_some(),
        Some(sliding) => sliding.of == Aggregate::Count || number(&kept.value).is_some(),
    }
}

/// Whether a reading says anything to a condition.
pub fn listens(condition: &Condition, own: &DeviceId, kept: &Kept) -> bool {
    match condition {
        Condition::Value(watched) => kept.is(own, &watched.metric) && is_understood(watched, kept),
        Condition::Silent { metric, .. } => kept.is(own, metric),
        Condition::All(parts) | Condition::Any(parts) => {
            parts.iter().any(|part| part_listens(part, own, kept))
        }
    }
}

pub fn part_listens(part: &Part, own: &DeviceId, kept: &Kept) -> bool {
    kept.is(of(part, own), &part.watched.metric) && is_understood(&part.watched, kept)
}

/// Whether a rule on a device looks at the metric of this reading.
pub fn watches(plan: &Plan, own: &DeviceId, kept: &Kept) -> bool {
    let by_part = |part: &Part| kept.is(of(part, own), &part.watched.metric);
    let by_condition = match &plan.condition {
        Condition::Value(Watched { metric, .. }) | Condition::Silent { metric, .. } => kept.is(own, metric),
        Condition::All(parts) | Condition::Any(parts) => parts.iter().any(by_part),
    };
    let mut unless = plan.rule.unless.iter().map(|unless| &unless.part);
    any_matches(&plan.rule.devices, own) && (by_condition || unless.any(by_part))
}

/// Whether it is of what suppresses the rule: remembered also before the rule's own metric comes.
pub fn speaks_against(plan: &Plan, own: &DeviceId, kept: &Kept) -> bool {
    let by_own = |part: &Part| part.device.is_none() && kept.is(own, &part.watched.metric);
    matches!(plan.condition, Condition::Value(_))
        && plan.rule.unless.iter().any(|unless| by_own(&unless.part))
}

/// Whether the rule names this device and metric itself, whatever devices it is about.
pub fn names(rule: &Rule, kept: &Kept) -> bool {
    let parts = rule.condition.parts();
    let unless = rule.unless.iter().map(|unless| &unless.part);
    let named = |part: &Part| {
        part.device
            .as_ref()
            .is_some_and(|it| kept.is(it, &part.watched.metric))
    };
    parts.iter().chain(unless).any(named)
}
