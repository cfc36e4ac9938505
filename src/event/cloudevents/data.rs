//! What stands in `data`.

use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::{Shown, wall};
use crate::{
    event::{
        ConditionFacts, Data, EpisodeFacts, EpisodeId, Event, Labels, Reason, RuleData, RuleFacts, gateway,
    },
    reading::{Metric, Value},
    time::Timestamp,
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
    metric: Option<&'a str>,
    unit: Option<&'a str>,
    #[serde(skip_serializing_if = "Number::is_no_number")]
    value: Number,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_bool: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_text: Option<&'a str>,
    rule: &'a RuleFacts,
    episode: EpisodeBody,
    window: Option<WindowBody<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    conditions: Vec<ConditionBody<'a>>,
}

/// `value`: a number or null, and absent where the value is none.
#[derive(Serialize)]
#[serde(untagged)]
enum Number {
    Is(Option<f64>),
    IsNone,
}

impl Number {
    fn is_no_number(&self) -> bool {
        matches!(self, Self::IsNone)
    }
}

#[derive(Serialize)]
struct WindowBody<'a> {
    of: &'a str,
    over_s: Json,
    count: u64,
    span_s: Json,
    approximate: bool,
}

#[derive(Serialize)]
struct ConditionBody<'a> {
    device: &'a str,
    metric: &'a str,
    unit: Option<&'a str>,
    #[serde(flatten)]
    value: ValueBody<'a>,
    holds: Option<bool>,
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
    id: Shown<EpisodeId>,
    since: Shown<Timestamp>,
    raised_at: Shown<Timestamp>,
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
            Data::Gateway(map) => {
                Self::Gateway(gateway::with_times(map, &|at| wall(event, at).0.to_string()))
            }
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
        metric: data.metric.as_ref().map(Metric::as_str),
        unit: data.unit.as_deref(),
        value: match &data.value {
            None => Number::Is(None),
            Some(Value::Number(number)) => Number::Is(Some(*number)),
            Some(_) => Number::IsNone,
        },
        value_bool: match &data.value {
            Some(Value::Bool(value)) => Some(*value),
            _ => None,
        },
        value_text: match &data.value {
            Some(Value::Text(value)) => Some(value),
            _ => None,
        },
        rule: &data.rule,
        episode: episode_body(event, &data.episode),
        window: data.window.as_ref().map(|window| WindowBody {
            of: &window.of,
            over_s: seconds(window.over_ms),
            count: window.count,
            span_s: seconds(window.span_ms),
            approximate: window.approximate,
        }),
        conditions: data.conditions.iter().map(condition_body).collect(),
    }
}

fn condition_body(condition: &ConditionFacts) -> ConditionBody<'_> {
    ConditionBody {
        device: condition.device.as_str(),
        metric: condition.metric.as_str(),
        unit: condition.unit.as_deref(),
        value: value_body(condition.value.as_ref()),
        holds: condition.holds,
    }
}

fn value_body(value: Option<&Value>) -> ValueBody<'_> {
    match value {
        None => ValueBody::Number(None),
        Some(Value::Number(number)) => ValueBody::Number(Some(*number)),
        Some(Value::Bool(bool)) => ValueBody::Bool(*bool),
        Some(Value::Text(text)) => ValueBody::Text(text),
    }
}

/// Whole seconds as an integer, others as a fraction.
fn seconds(millis: u64) -> Json {
    if millis.is_multiple_of(1000) {
        Json::from(millis / 1000)
    } else {
        Json::from(std::time::Duration::from_millis(millis).as_secs_f64())
    }
}

fn episode_body(event: &Event, episode: &EpisodeFacts) -> EpisodeBody {
    EpisodeBody {
        id: Shown(episode.id),
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
