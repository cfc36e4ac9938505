//! The file as it is written: plain tables, every value with its place. No defaults, no meaning.
//!
//! Only live keys: the others were refused by `shape`. No enums and no flattening, they would lose the line.

use serde::Deserialize;
use toml::{Spanned, Value};

use crate::event::Labels;

pub(super) type Text = Option<Spanned<String>>;
pub(super) type Texts = Option<Spanned<Vec<Spanned<String>>>>;
pub(super) type Numbers = Option<Spanned<Vec<f64>>>;
type List<T> = Vec<Spanned<T>>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub gateway: Gateway,
    pub journal: Journal,
    pub events: Events,
    pub mqtt: Option<Mqtt>,
    pub serial: List<Serial>,
    pub device: List<Device>,
    pub rule: List<Rule>,
    pub r#override: List<Override>,
    pub sink: Sinks,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Gateway {
    pub id: Text,
    pub source: Text,
    pub labels: Labels,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(super) struct Journal {
    pub dir: Text,
    pub max_bytes: Text,
    pub max_age: Text,
    pub when_full: Text,
    pub state_delay: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(super) struct Events {
    pub type_prefix: Text,
    pub off: Texts,
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
    pub clear: Option<Spanned<f64>>,
    pub margin: Option<Spanned<f64>>,
    pub hold: Text,
    pub clear_hold: Text,
    pub severity: Text,
    pub max_raises: Text,
    pub cleared_event: Text,
    pub summary: Text,
    pub runbook: Text,
    pub labels: Labels,
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
    pub clear: Option<Spanned<f64>>,
    pub margin: Option<Spanned<f64>>,
    pub hold: Text,
    pub clear_hold: Text,
    pub severity: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Sinks {
    pub mqtt: List<SinkMqtt>,
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
    pub partition_by: Text,
    pub schema: Option<Spanned<i64>>,
}
