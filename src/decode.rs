//! Bytes to values: json, number, csv, key-value. Pure; no panic on any bytes.
//!
//! A decoder knows neither topics nor ports: a source gives it a payload and gets named, converted,
//! checked values back, or the reason why not.

use std::sync::Arc;

use crate::{
    reading::{Metric, Value},
    time::Timestamp,
};

mod json;
mod text;

/// The longest text that is a value, in bytes.
pub const MAX_TEXT: usize = 64;

/// A payload that is not of its format: nothing of it is believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Text formats are UTF-8.
    #[error("the payload is not UTF-8 text")]
    NotUtf8,
    /// Nothing but white space.
    #[error("the payload is empty")]
    Empty,
    /// What the parser said, with line and column.
    #[error("the payload is not JSON: {0}")]
    NotJson(String),
    /// `number` means one number.
    #[error("the payload is not one number")]
    NotANumber,
    /// csv is one line.
    #[error("the payload has more than one line of columns")]
    SeveralLines,
    /// csv has no quoting here: a quoted comma would shift all columns behind it.
    #[error("the payload has quoted columns, which csv does not support here")]
    Quoted,
    /// key-value without a single pair.
    #[error("the payload has no key=value or key: value pair")]
    NoPairs,
}

/// How one source's payloads become values: the table's `format`, `time` and `[[..metric]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoder {
    /// The shape of the payload.
    pub format: Format,
    /// JSON Pointer of the reading's own time (json).
    pub time: Option<String>,
    /// Where the device's name stands (json pointer, key-value key), if the payload tells it.
    pub device_at: Option<String>,
    /// The configured metrics; empty: every number, boolean and short string, nested names joined by '.'
    /// (json, key-value); for `number` and `csv` the configuration requires them (or a `{metric}` capture).
    pub metrics: Vec<MetricPlan>,
}

/// The shape of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A JSON object (or a bare number or boolean when a metric has no `at`).
    Json,
    /// One number as text.
    Number,
    /// Comma-separated columns, numbered from 1.
    Csv,
    /// `key=value` pairs separated by white space, comma or semicolon.
    KeyValue,
}

/// One `[[..metric]]` table.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricPlan {
    /// What it is called.
    pub name: Metric,
    /// Where it stands: JSON Pointer, column number or key, by format; none: the whole payload.
    pub at: Option<String>,
    /// `SenML` unit.
    pub unit: Option<Arc<str>>,
    /// value = raw * scale + offset.
    pub scale: f64,
    /// Added after scaling.
    pub offset: f64,
    /// Raw values that say nothing.
    pub ignore: Vec<f64>,
    /// Both ends included, after conversion.
    pub valid: Option<(f64, f64)>,
}

/// When a device says that it measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnTime {
    /// A point in time.
    Utc(Timestamp),
    /// What the clock on its wall shows, wherever that is.
    Local(jiff::civil::DateTime),
}

/// What a payload held.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// Named by the payload, if `device_at` asks.
    pub device: Option<String>,
    /// The device's own time.
    pub time: Option<OwnTime>,
    /// The values, in the payload's (or the tables') order. The metric is none where the whole payload is
    /// the value and no table names it (the `{metric}` capture does).
    pub values: Vec<(Option<Metric>, Value, Option<Arc<str>>)>,
    /// Values rejected: ignored, invalid, not finite, unusable names.
    pub rejected: usize,
}

impl Decoder {
    /// Decodes one payload. Values that are missing, null or rejected are left out; the rest stands.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the payload is not of the format at all.
    pub fn decode(&self, payload: &[u8]) -> Result<Decoded, DecodeError> {
        match self.format {
            Format::Json => json::decode(self, payload),
            Format::Number => text::number(self, payload),
            Format::Csv => text::csv(self, payload),
            Format::KeyValue => text::key_value(self, payload),
        }
    }
}

impl Decoded {
    /// Converts and checks a value for a configured metric.
    fn take(&mut self, plan: &MetricPlan, raw: Option<Value>) {
        match raw.and_then(|raw| plan.converted(raw)) {
            Some(value) => self
                .values
                .push((Some(plan.name.clone()), value, plan.unit.clone())),
            None => self.rejected += 1,
        }
    }

    /// Takes a value under the name that the payload gives it.
    fn take_named(&mut self, name: &str, raw: Option<Value>) {
        match (Metric::new(name), raw) {
            (Ok(name), Some(value)) => self.values.push((Some(name), value, None)),
            _ => self.rejected += 1,
        }
    }

    /// Takes the whole payload as a value that nobody named.
    fn take_nameless(&mut self, raw: Option<Value>) {
        match raw {
            Some(value) => self.values.push((None, value, None)),
            None => self.rejected += 1,
        }
    }
}

impl MetricPlan {
    /// The converted value; none if it is to be ignored, not valid or not finite.
    fn converted(&self, raw: Value) -> Option<Value> {
        let Value::Number(raw) = raw else { return Some(raw) };
        if self.ignore.contains(&raw) {
            return None;
        }
        let value = raw * self.scale + self.offset;
        let valid = self.valid.is_none_or(|(lo, hi)| lo <= value && value <= hi);
        (value.is_finite() && valid).then_some(Value::Number(value))
    }
}

/// What a text says: a number if it is one, else itself. None if too long or a number that is not finite.
fn value_of(text: &str) -> Option<Value> {
    match text.trim().parse::<f64>() {
        Ok(number) => number.is_finite().then_some(Value::Number(number)),
        Err(_) => (text.len() <= MAX_TEXT).then(|| Value::Text(text.into())),
    }
}

#[cfg(test)]
mod tests;
