//! The file as it is written: plain tables, every value with its place. No defaults, no meaning.
//!
//! Only live keys: the others were refused by `shape`. No enums and no flattening, they would lose the line.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::{Spanned, Value};

use super::condition::{Keys, WindowKeys};
use crate::event::Labels;

pub(super) type Text = Option<Spanned<String>>;
pub(super) type Texts = Option<Spanned<Vec<Spanned<String>>>>;
pub(super) type Numbers = Option<Spanned<Vec<f64>>>;
type List<T> = Vec<Spanned<T>>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    /// Followed before (`include`); here only so that it is no unknown key.
    pub include: Texts,
    pub gateway: Gateway,
    pub journal: Journal,
    pub events: Events,
    pub mqtt: Option<Mqtt>,
    pub serial: List<Serial>,
    pub device: List<Device>,
    pub rule: List<Rule>,
    pub r#override: List<Override>,
    pub sink: Sinks,
    pub period: BTreeMap<String, Spanned<Period>>,
    pub recorder: Option<Spanned<Recorder>>,
    #[serde(skip)]
    pub periods: Vec<(String, Spanned<Period>)>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Gateway {
    pub id: Text,
    pub source: Text,
    pub labels: Labels,
    pub timezone: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(super) struct Journal {
    pub dir: Text,
    pub max_bytes: Text,
    pub max_age: Text,
    pub when_full: Text,
    pub checkpoint: Text,
    pub state_delay: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(super) struct Events {
    pub type_prefix: Text,
    pub off: Texts,
    pub offline_after: Text,
    pub heartbeat: Text,
    pub max_clock_skew: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(super) struct Mqtt {
    pub listen: Texts,
    pub allow_anonymous: bool,
    pub max_packet: Text,
    pub max_connections: Option<Spanned<i64>>,
    pub max_inflight: Option<Spanned<i64>>,
    pub max_devices: Option<Spanned<i64>>,
    pub max_metrics: Option<Spanned<i64>>,
    pub forget_after: Text,
    pub readings: List<Readings>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Readings {
    pub topic: Text,
    pub format: Text,
    pub time: Text,
    pub metric: List<Metric>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Metric {
    pub name: Text,
    pub at: Option<Spanned<Value>>,
    pub unit: Text,
    pub scale: Option<Spanned<f64>>,
    pub offset: Option<Spanned<f64>>,
    pub ignore: Numbers,
    pub valid: Numbers,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(super) struct Serial {
    pub name: Text,
    pub port: Text,
    pub baud: Option<Spanned<i64>>,
    pub data_bits: Option<Spanned<i64>>,
    pub parity: Text,
    pub stop_bits: Option<Spanned<i64>>,
    pub flow_control: Text,
    pub framing: Text,
    pub max_frame: Text,
    pub format: Text,
    pub device: Text,
    pub device_at: Text,
    pub metric: List<Metric>,
    pub poll: List<Poll>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Poll {
    pub send: Text,
    pub every: Text,
    pub device: Text,
    pub timeout: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Device {
    pub id: Text,
    pub name: Text,
    pub labels: Labels,
    pub from: Texts,
    pub expects: Texts,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Period {
    pub from: Text,
    pub to: Text,
    pub days: Texts,
    pub between: Texts,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(super) struct Recorder {
    pub max_bytes: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(super) struct Rule {
    pub event: Text,
    pub name: Text,
    pub metric: Text,
    pub devices: Texts,
    pub r#where: Option<Spanned<Labels>>,
    pub above: Option<Spanned<f64>>,
    pub below: Option<Spanned<f64>>,
    pub outside: Numbers,
    pub inside: Numbers,
    pub equals: Option<Spanned<Value>>,
    pub not_equals: Option<Spanned<Value>>,
    pub rises_by: Option<Spanned<f64>>,
    pub falls_by: Option<Spanned<f64>>,
    pub within: Text,
    pub silent_for: Text,
    pub all: Option<Spanned<List<Part>>>,
    pub any: Option<Spanned<List<Part>>>,
    pub clear: Option<Spanned<f64>>,
    pub margin: Option<Spanned<f64>>,
    pub hold: Text,
    pub clear_hold: Text,
    pub severity: Text,
    pub of: Text,
    pub over: Text,
    pub window_min: Option<Spanned<i64>>,
    pub window_max: Option<Spanned<i64>>,
    pub unless: Option<Spanned<Part>>,
    pub unless_after: Text,
    pub during: Texts,
    pub stale_after: Text,
    pub remind_every: Text,
    pub max_raises: Text,
    pub cleared_event: Text,
    pub summary: Text,
    pub runbook: Text,
    pub labels: Labels,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(super) struct Part {
    pub metric: Text,
    pub device: Text,
    pub above: Option<Spanned<f64>>,
    pub below: Option<Spanned<f64>>,
    pub outside: Numbers,
    pub inside: Numbers,
    pub equals: Option<Spanned<Value>>,
    pub not_equals: Option<Spanned<Value>>,
    pub rises_by: Option<Spanned<f64>>,
    pub falls_by: Option<Spanned<f64>>,
    pub within: Text,
    pub clear: Option<Spanned<f64>>,
    pub margin: Option<Spanned<f64>>,
    pub of: Text,
    pub over: Text,
    pub window_min: Option<Spanned<i64>>,
    pub window_max: Option<Spanned<i64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(super) struct Override {
    pub rule: Text,
    pub devices: Texts,
    pub above: Option<Spanned<f64>>,
    pub below: Option<Spanned<f64>>,
    pub outside: Numbers,
    pub inside: Numbers,
    pub equals: Option<Spanned<Value>>,
    pub not_equals: Option<Spanned<Value>>,
    pub rises_by: Option<Spanned<f64>>,
    pub falls_by: Option<Spanned<f64>>,
    pub within: Text,
    pub silent_for: Text,
    pub clear: Option<Spanned<f64>>,
    pub margin: Option<Spanned<f64>>,
    pub hold: Text,
    pub clear_hold: Text,
    pub severity: Text,
    pub remind_every: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Sinks {
    pub mqtt: List<SinkMqtt>,
    pub http: List<SinkHttp>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(super) struct SinkMqtt {
    pub name: Text,
    pub url: Text,
    pub topic: Text,
    pub status_topic: Text,
    pub version: Text,
    pub encoding: Text,
    pub mode: Text,
    pub client_id: Text,
    pub username: Text,
    pub password_file: Text,
    pub ca: Text,
    pub cert: Text,
    pub key: Text,
    pub inflight: Option<Spanned<i64>>,
    pub ack_timeout: Text,
    pub max_attempts: Option<Spanned<i64>>,
    pub required: Option<bool>,
    pub from: Text,
    pub events: Texts,
    pub min_severity: Text,
    pub devices: Texts,
    pub drain_rate: Text,
    pub partition_by: Text,
    pub schema: Option<Spanned<i64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(super) struct SinkHttp {
    pub name: Text,
    pub url: Text,
    pub mode: Text,
    pub batch: Option<Spanned<i64>>,
    pub timeout: Text,
    pub bearer_file: Text,
    pub signing_key_file: Text,
    pub ca: Text,
    pub headers: Option<Spanned<BTreeMap<String, String>>>,
    pub compression: Text,
    pub max_attempts: Option<Spanned<i64>>,
    pub required: Option<bool>,
    pub from: Text,
    pub events: Texts,
    pub min_severity: Text,
    pub devices: Texts,
    pub drain_rate: Text,
    pub partition_by: Text,
    pub schema: Option<Spanned<i64>>,
}

/// The keys that every sink's table has.
#[derive(Debug)]
pub(super) struct SinkKeys<'f> {
    pub name: &'f Text,
    pub max_attempts: Option<&'f Spanned<i64>>,
    pub required: Option<bool>,
    pub from: Option<&'f Spanned<String>>,
    pub events: &'f Texts,
    pub min_severity: Option<&'f Spanned<String>>,
    pub devices: &'f Texts,
    pub drain_rate: Option<&'f Spanned<String>>,
    pub partition_by: Option<&'f Spanned<String>>,
    pub schema: Option<&'f Spanned<i64>>,
}

macro_rules! sink_keys {
    ($table:ident) => {
        impl $table {
            pub fn keys(&self) -> SinkKeys<'_> {
                SinkKeys {
                    name: &self.name,
                    max_attempts: self.max_attempts.as_ref(),
                    required: self.required,
                    from: self.from.as_ref(),
                    events: &self.events,
                    min_severity: self.min_severity.as_ref(),
                    devices: &self.devices,
                    drain_rate: self.drain_rate.as_ref(),
                    partition_by: self.partition_by.as_ref(),
                    schema: self.schema.as_ref(),
                }
            }
        }
    };
}

sink_keys!(SinkMqtt);
sink_keys!(SinkHttp);

impl File {
    /// Adds what an included file says: only tables of which there may be many.
    pub fn absorb(&mut self, included: Self) {
        self.device.extend(included.device);
        self.rule.extend(included.rule);
        self.r#override.extend(included.r#override);
        self.periods.extend(included.periods);
    }

    /// Two files may each have a period of one name: which is a mistake, and must still be there to be told.
    pub fn list_periods(mut self) -> Self {
        self.periods = std::mem::take(&mut self.period).into_iter().collect();
        self
    }
}

/// The keys of a condition, which three tables share.
macro_rules! condition_keys {
    ($table:ident, |$raw:ident| $window:expr) => {
        impl $table {
            pub fn keys(&self) -> Keys<'_> {
                let $raw = self;
                Keys {
                    above: $raw.above.as_ref(),
                    below: $raw.below.as_ref(),
                    outside: $raw.outside.as_ref(),
                    inside: $raw.inside.as_ref(),
                    equals: $raw.equals.as_ref(),
                    not_equals: $raw.not_equals.as_ref(),
                    rises_by: $raw.rises_by.as_ref(),
                    falls_by: $raw.falls_by.as_ref(),
                    within: $raw.within.as_ref(),
                    clear: $raw.clear.as_ref(),
                    margin: $raw.margin.as_ref(),
                    window: $window,
                }
            }
        }
    };
}

/// The keys of a window.
macro_rules! window_keys {
    ($raw:ident) => {
        WindowKeys {
            of: $raw.of.as_ref(),
            over: $raw.over.as_ref(),
            min: $raw.window_min.as_ref(),
            max: $raw.window_max.as_ref(),
        }
    };
}

condition_keys!(Rule, |raw| window_keys!(raw));
condition_keys!(Part, |raw| window_keys!(raw));
condition_keys!(Override, |raw| WindowKeys::default());
