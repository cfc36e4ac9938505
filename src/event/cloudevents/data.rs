//! What stands in `data`.

use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::wall;
use crate::{
    event::{Data, EpisodeFacts, Event, Labels, Reason, RuleData, RuleFacts, gateway},
    reading::Value,
};

#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Body<'a> {
    Rule(Box<RuleBody<'a>>),
    Gateway(Map<String, Json>),
}

#[derive(Serialize)]
pub(super) struct RuleBody<'a> {
    summary: &'a str,
    gateway: GatewayBody<'a>,
    device: DeviceBody<'a>,
    metric: &'a str,
    unit: Option<&'a str>,
    #[serde(flatten)]
    value: ValueBody<'a>,
    rule: &'a RuleFacts,
    episode: EpisodeBody,
    /// What a windowed condition computed from; the conditions of today have none.
    window: Option<()>,
}

#[derive(Serialize)]
struct GatewayBody<'a> {
    id: &'a str,
    labels: &'a Labels,
    version: &'a str,
}

#[derive(Serialize)]
struct DeviceBody<'a> {
    id: &'a str,
    name: Option<&'a str>,
    labels: &'a Labels,
}

/// Exactly one member, so that a reader's `value` is a number or null and never another type.
#[derive(Serialize)]
enum ValueBody<'a> {
    #[serde(rename = "value")]
    Number(Option<f64>),
    #[serde(rename = "value_bool")]
    Bool(bool),
    #[serde(rename = "value_text")]
    Text(&'a str),
}

#[derive(Serialize)]
struct EpisodeBody {
    id: String,
    since: String,
    raised_at: String,
    duration_ms: u64,
    min: Option<f64>,
    max: Option<f64>,
    readings: u64,
    reminder: u32,
    flaps: u32,
    reason: Option<Reason>,
}

impl<'a> Body<'a> {
    /// The content of `event`.
    pub(super) fn of(event: &'a Event) -> Self {
        match &event.draft.data {
            Data::Rule(data) => Self::Rule(Box::new(rule_body(event, data))),
            Data::Gateway(map) => Self::Gateway(gateway::with_times(map, &|at| wall(event, at))),
        }
    }
}

fn rule_body<'a>(event: &'a Event, data: &'a RuleData) -> RuleBody<'a> {
    RuleBody {
        summary: &data.summary,
        gateway: GatewayBody {
            id: &event.origin.gateway,
            labels: &event.origin.labels,
            version: &event.origin.version,
        },
        device: DeviceBody {
            id: data.device.as_str(),
            name: data.device_name.as_deref(),
            labels: &data.device_labels,
        },
        metric: data.metric.as_str(),
        unit: data.unit.as_deref(),
        value: match &data.value {
            None => ValueBody::Number(None),
            Some(Value::Number(number)) => ValueBody::Number(Some(*number)),
            Some(Value::Bool(bool)) => ValueBody::Bool(*bool),
            Some(Value::Text(text)) => ValueBody::Text(text),
        },
        rule: &data.rule,
        episode: episode_body(event, &data.episode),
        window: None,
    }
}

fn episode_body(event: &Event, episode: &EpisodeFacts) -> EpisodeBody {
    EpisodeBody {
        id: episode.id.to_string(),
        since: wall(event, episode.since),
        raised_at: wall(event, episode.raised_at),
        duration_ms: episode.duration_ms,
        min: episode.min,
        max: episode.max,
        readings: episode.readings,
        reminder: episode.reminder,
        flaps: episode.flaps,
        reason: episode.reason,
    }
}
