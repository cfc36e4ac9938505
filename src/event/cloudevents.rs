//! An event as the CloudEvents 1.0 JSON that subscribers read (docs/events.md), and the topic it goes to.
//!
//! Rendered at send, so that times can be corrected until then. The same entry always renders to the same
//! bytes but for its times, their quality and `previoussequence`. Nothing here reads a clock or can fail.

use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::{
    ConditionFacts, Data, Entry, EpisodeFacts, Event, Labels, Reason, RuleData, Sequence, Severity,
    Transition, gateway,
};
use crate::{
    reading::{Metric, Value},
    time::{ClockQuality, EngineTime, Timestamp},
};

/// The media type of what [`render`] returns.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// `dataschema` of a rule's event.
const RULE_SCHEMA: &str = "urn:tidegate:schema:rule-event:1";
/// `dataschema` of the gateway's own.
const GATEWAY_SCHEMA: &str = "urn:tidegate:schema:gateway-event:1";
/// What stands in a topic for a metric or a transition that an event has not: an empty level would be lost
/// on many a reader.
const ABSENT: &str = "none";

/// The event in structured JSON mode. `previous` is the sequence that this sink was given before it.
#[must_use]
#[expect(
    clippy::missing_panics_doc,
    reason = "maps with string keys and numbers always serialise"
)]
pub fn render(entry: &Entry, previous: Sequence) -> Vec<u8> {
    let event = &*entry.event;
    let draft = &event.draft;
    let (severitytext, severitynumber) = severity(draft.severity);
    let envelope = Envelope {
        specversion: "1.0",
        id: format!("{}-{}", entry.epoch, entry.sequence),
        source: &event.origin.source,
        kind: &draft.kind,
        subject: &draft.subject,
        time: wall(event, draft.at),
        recordedtime: event.recorded.wall.to_string(),
        clockquality: event.recorded.quality,
        datacontenttype: "application/json",
        dataschema: match draft.data {
            Data::Rule(_) => RULE_SCHEMA,
            Data::Gateway(_) => GATEWAY_SCHEMA,
        },
        gateway: &event.origin.gateway,
        epoch: entry.epoch.to_string(),
        sequence: entry.sequence.to_string(),
        previoussequence: previous.to_string(),
        partitionkey: &event.origin.gateway,
        severitytext,
        severitynumber,
        transition: draft.transition,
        correlationid: draft.correlation.as_deref(),
        data: match &draft.data {
            Data::Rule(data) => Body::Rule(Box::new(rule_body(event, data))),
            Data::Gateway(map) => Body::Gateway(gateway::with_times(map, &|at| wall(event, at))),
        },
    };
    serde_json::to_vec(&envelope).expect("maps with string keys and numbers always serialise")
}

/// The topic of an event: `{gateway} {event} {device} {metric} {severity} {transition}` filled in. What a
/// topic cannot hold (`/`, `+`, `#`, control characters) becomes `_`, so a name is always exactly one level.
#[must_use]
pub fn topic(template: &str, entry: &Entry) -> String {
    let mut topic = String::with_capacity(template.len() + 64);
    let mut rest = template;
    while let Some((literal, tail)) = rest.split_once('{') {
        topic.push_str(literal);
        let Some((key, after)) = tail.split_once('}') else {
            // Not a placeholder after all: the configuration has refused this already.
            rest = tail;
            continue;
        };
        push_level(&mut topic, placeholder(key, &entry.event));
        rest = after;
    }
    topic.push_str(rest);
    if topic.starts_with('$') {
        // `$…` belongs to the broker: a device called `$SYS` must not write there.
        topic.replace_range(..1, "_");
    }
    topic
}

fn placeholder<'a>(key: &str, event: &'a Event) -> &'a str {
    let draft = &event.draft;
    match key {
        "gateway" => &event.origin.gateway,
        "event" => &draft.name,
        "device" => &draft.about,
        "metric" => match &draft.data {
            Data::Rule(data) => data.metric.as_ref().map_or(ABSENT, Metric::as_str),
            Data::Gateway(_) => ABSENT,
        },
        "severity" => match draft.severity {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
            Severity::Critical => "critical",
        },
        "transition" => match draft.transition {
            Some(Transition::Raised) => "raised",
            Some(Transition::Reminded) => "reminded",
            Some(Transition::Changed) => "changed",
            Some(Transition::Cleared) => "cleared",
            None => ABSENT,
        },
        // The configuration has refused any other key.
        _ => "",
    }
}

fn push_level(topic: &mut String, level: &str) {
    if level.is_empty() {
        topic.push('_');
    }
    for character in level.chars() {
        let illegal = character.is_control() || matches!(character, '/' | '+' | '#');
        topic.push(if illegal { '_' } else { character });
    }
}

/// Text and number as in the CloudEvents severity extension's table.
fn severity(severity: Severity) -> (&'static str, u8) {
    match severity {
        Severity::Info => ("INFO", 9),
        Severity::Warning => ("WARN", 13),
        Severity::Error => ("ERROR", 17),
        Severity::Critical => ("FATAL", 21),
    }
}

fn wall(event: &Event, at: EngineTime) -> String {
    event.recorded.wall_of(at).max(Timestamp(0)).to_string()
}

/// The attributes, in the order of the contract's example.
#[derive(Serialize)]
struct Envelope<'a> {
    specversion: &'static str,
    id: String,
    source: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    subject: &'a str,
    time: String,
    recordedtime: String,
    clockquality: ClockQuality,
    datacontenttype: &'static str,
    dataschema: &'static str,
    gateway: &'a str,
    epoch: String,
    sequence: String,
    previoussequence: String,
    partitionkey: &'a str,
    severitytext: &'static str,
    severitynumber: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    transition: Option<Transition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlationid: Option<&'a str>,
    data: Body<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Body<'a> {
    Rule(Box<RuleBody<'a>>),
    Gateway(Map<String, Json>),
}

#[derive(Serialize)]
struct RuleBody<'a> {
    summary: &'a str,
    gateway: GatewayBody<'a>,
    device: DeviceBody<'a>,
    metric: Option<&'a str>,
    unit: Option<&'a str>,
    #[serde(flatten)]
    value: ValueBody<'a>,
    rule: &'a super::RuleFacts,
    episode: EpisodeBody,
    window: Option<WindowBody<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    conditions: Vec<ConditionBody<'a>>,
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
        value: value_body(data.value.as_ref()),
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        event::{Draft, EpisodeId, Epoch, Origin, Position, RuleFacts},
        reading::DeviceId,
        time::{BootId, Moment},
    };

    /// 2026-11-21T10:00:30.004Z at 100 s after boot.
    const RECORDED: Moment = Moment {
        boot_id: BootId(1),
        boot: EngineTime(100_000_000),
        wall: Timestamp(1_795_255_230_004_000),
        quality: ClockQuality::Synchronised,
    };

    fn object(json: Json) -> Map<String, Json> {
        match json {
            Json::Object(map) => map,
            other => panic!("not an object: {other}"),
        }
    }

    fn entry(data: Data) -> Entry {
        let origin = Origin {
            gateway: "plantroom-1".into(),
            source: "urn:tidegate:gateway:plantroom-1".into(),
            labels: Labels::from([("site".to_owned(), "hq".to_owned())]),
            version: "0.1.0".into(),
        };
        let of_rule = matches!(data, Data::Rule(_));
        let draft = Draft {
            kind: "io.tidegate.rule.HighTemperature".into(),
            name: "HighTemperature".into(),
            subject: "thermostat-7/temperature".into(),
            about: "thermostat-7".into(),
            severity: Severity::Warning,
            at: EngineTime(99_996_000),
            transition: of_rule.then_some(Transition::Raised),
            correlation: of_rule.then(|| format!("{}-e17", Epoch(42)).into()),
            data,
        };
        Entry {
            position: Position(1000),
            epoch: Epoch(42),
            sequence: Sequence(42),
            event: Arc::new(Event {
                draft,
                origin: Arc::new(origin),
                recorded: RECORDED,
            }),
        }
    }

    fn rule_data(value: Option<Value>) -> Data {
        Data::Rule(Box::new(RuleData {
            summary: "thermostat-7: temperature is 31.2 Cel, above 30".to_owned(),
            device: DeviceId::new("thermostat-7").unwrap(),
            device_name: Some("Living room".into()),
            device_labels: Arc::new(Labels::from([("room".to_owned(), "living".to_owned())])),
            metric: Some(Metric::new("temperature").unwrap()),
            unit: Some("Cel".into()),
            value,
            rule: Arc::new(RuleFacts {
                name: "high-temperature".into(),
                kind: "above".into(),
                params: object(serde_json::json!({"above": 30.0, "clear": 28.0, "hold_s": 30})),
                labels: Labels::new(),
                runbook: None,
            }),
            episode: EpisodeFacts {
                id: EpisodeId {
                    epoch: Epoch(42),
                    number: 17,
                },
                since: EngineTime(69_996_000),
                raised_at: EngineTime(99_996_000),
                duration_ms: 30_000,
                min: Some(31.0),
                max: Some(31.4),
                readings: 3,
                reminder: 0,
                flaps: 0,
                reason: None,
            },
            window: None,
            conditions: Vec::new(),
        }))
    }

    fn text(entry: &Entry) -> String {
        String::from_utf8(render(entry, Sequence(entry.sequence.0 - 1))).unwrap()
    }

    #[test]
    fn a_rule_event_is_byte_for_byte_the_contracts_example() {
        let expected = concat!(
            r#"{"specversion":"1.0","id":"000000000001a-00000000000000000042","#,
            r#""source":"urn:tidegate:gateway:plantroom-1","type":"io.tidegate.rule.HighTemperature","#,
            r#""subject":"thermostat-7/temperature","time":"2026-11-21T10:00:30.000Z","#,
            r#""recordedtime":"2026-11-21T10:00:30.004Z","clockquality":"synchronised","#,
            r#""datacontenttype":"application/json","dataschema":"urn:tidegate:schema:rule-event:1","#,
            r#""gateway":"plantroom-1","epoch":"000000000001a","sequence":"00000000000000000042","#,
            r#""previoussequence":"00000000000000000041","partitionkey":"plantroom-1","#,
            r#""severitytext":"WARN","severitynumber":13,"transition":"raised","#,
            r#""correlationid":"000000000001a-e17","data":{"#,
            r#""summary":"thermostat-7: temperature is 31.2 Cel, above 30","#,
            r#""gateway":{"id":"plantroom-1","labels":{"site":"hq"},"version":"0.1.0"},"#,
            r#""device":{"id":"thermostat-7","name":"Living room","labels":{"room":"living"}},"#,
            r#""metric":"temperature","unit":"Cel","value":31.2,"#,
            r#""rule":{"name":"high-temperature","kind":"above","#,
            r#""params":{"above":30.0,"clear":28.0,"hold_s":30},"labels":{},"runbook":null},"#,
            r#""episode":{"id":"000000000001a-e17","since":"2026-11-21T10:00:00.000Z","#,
            r#""raised_at":"2026-11-21T10:00:30.000Z","duration_ms":30000,"min":31.0,"max":31.4,"#,
            r#""readings":3,"reminder":0,"flaps":0,"reason":null},"window":null}}"#,
        );
        assert_eq!(text(&entry(rule_data(Some(Value::Number(31.2))))), expected);
    }

    #[test]
    fn a_value_that_is_no_number_never_stands_in_value() {
        let json = |value| {
            let whole: Json = serde_json::from_str(&text(&entry(rule_data(value)))).unwrap();
            object(whole["data"].clone())
        };
        let on = json(Some(Value::Bool(true)));
        assert_eq!((on.get("value"), &on["value_bool"]), (None, &Json::Bool(true)));
        let open = json(Some(Value::Text("open".into())));
        assert_eq!(
            (open.get("value"), &open["value_text"]),
            (None, &Json::from("open"))
        );
        assert_eq!(json(None)["value"], Json::Null);
    }

    #[test]
    fn a_gateway_event_carries_its_map_and_neither_transition_nor_correlation() {
        let map = object(serde_json::json!({"reason": "start"}));
        let json: Json = serde_json::from_str(&text(&entry(Data::Gateway(map)))).unwrap();
        assert_eq!(json["dataschema"], "urn:tidegate:schema:gateway-event:1");
        assert_eq!(json["data"], serde_json::json!({"reason": "start"}));
        assert_eq!((json.get("transition"), json.get("correlationid")), (None, None));
    }

    #[test]
    fn severities_are_those_of_the_severity_extension() {
        let all = [
            Severity::Info,
            Severity::Warning,
            Severity::Error,
            Severity::Critical,
        ];
        assert_eq!(
            all.map(severity),
            [("INFO", 9), ("WARN", 13), ("ERROR", 17), ("FATAL", 21)]
        );
    }

    #[test]
    fn a_topic_has_one_level_for_every_name_whatever_the_name_holds() {
        let mut entry = entry(rule_data(None));
        let template = "tidegate/{gateway}/events/{event}/{device}/{metric}/{severity}/{transition}";
        assert_eq!(
            topic(template, &entry),
            "tidegate/plantroom-1/events/HighTemperature/thermostat-7/temperature/warning/raised"
        );
        Arc::get_mut(&mut entry.event).unwrap().draft.about = "a/b+c#{event}\u{0}".into();
        assert_eq!(topic("x/{device}", &entry), "x/a_b_c_{event}_");
        Arc::get_mut(&mut entry.event).unwrap().draft.about = "$SYS".into();
        assert_eq!(topic("{device}/x", &entry), "_SYS/x");
    }

    #[test]
    fn what_a_gateway_event_has_not_is_no_empty_level() {
        let entry = entry(Data::Gateway(Map::new()));
        assert_eq!(topic("{metric}/{transition}", &entry), "none/none");
    }
}
