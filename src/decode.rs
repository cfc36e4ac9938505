//! Bytes to values: json, number, csv, key-value. Pure; no panic on any bytes.
//!
//! A decoder knows neither topics nor ports: a source gives it a payload and gets named, converted,
//! checked values back, or the reason why not.

use std::sync::Arc;

use crate::reading::{Metric, Value};

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
    /// SenML unit.
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

/// What a payload held.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// Named by the payload, if `device_at` asks.
    pub device: Option<String>,
    /// The device's own time: microseconds since the Unix epoch.
    pub time: Option<crate::time::Timestamp>,
    /// The values, in the payload's (or the tables') order. The metric is none where the whole payload is
    /// the value and no table names it (the `{metric}` capture does).
    pub values: Vec<(Option<Metric>, Value, Option<Arc<str>>)>,
    /// Values rejected: ignored, invalid, not finite, unusable names.
    pub rejected: usize,
}

/// A payload that is not what its table says.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("the payload cannot be decoded")]
pub struct DecodeError;

impl Decoder {
    /// (being written)
    #[expect(clippy::missing_errors_doc, reason = "being written")]
    pub fn decode(&self, payload: &[u8]) -> Result<Decoded, DecodeError> {
        let value = std::str::from_utf8(payload).ok().and_then(|text| text.trim().parse::<f64>().ok());
        let value = value.filter(|value| value.is_finite()).ok_or(DecodeError)?;
        Ok(Decoded { values: vec![(None, Value::Number(value), None)], ..Decoded::default() })
    }
}
