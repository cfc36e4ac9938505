//! An event of each kind, as it might come. Rendered like any other.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value as Json, json};

use crate::{
    config::Config,
    event::{
        ConditionFacts, Data, Draft, Entry, EpisodeFacts, EpisodeId, Epoch, Event, Labels, Origin, Position,
        Reason, RuleData, RuleFacts, Sequence, Transition, WindowFacts,
        gateway::{self, At, Fact, Field, Shape},
    },
    reading::{DeviceId, Metric, Value},
    rule::{Condition, Rule, summary::Summary},
    time::{BootId, ClockQuality, EngineTime, Moment, Timestamp},
};

/// `7q3k9x2m4t8vw`, as in docs/events.md.
const EPOCH: Epoch = Epoch(0x7b8e_69e8_a84d_237c);

/// 2026-11-21T10:00:30.004Z, an hour after boot.
const RECORDED: Moment = Moment {
    boot_id: BootId(0x1d2c_3b4a_5968_7786_a5b4_c3d2_e1f0_0f1e),
    boot: EngineTime(3_600_000_000),
    wall: Timestamp(1_795_255_230_004_000),
    quality: ClockQuality::Synchronised,
};

/// Four milliseconds before it was stored.
const HAPPENED: EngineTime = EngineTime(3_599_996_000);

fn entry(config: &Config, draft: Draft) -> Entry {
    let origin = Origin {
        gateway: Arc::clone(&config.gateway.id),
        source: Arc::clone(&config.gateway.source),
        labels: config.gateway.labels.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
    };
    Entry {
        position: Position(0),
        epoch: EPOCH,
        sequence: Sequence(42),
        event: Arc::new(Event {
            draft,
            origin: Arc::new(origin),
            recorded: RECORDED,
        }),
    }
}

/// A gateway event with every field. `subject` is the one that says what it is about.
pub(super) fn gateway(config: &Config, fact: &Fact, subject: Option<&str>) -> Entry {
    let data = members(config, fact.fields);
    let about: Arc<str> = subject
        .and_then(|subject| data.get(subject)?.as_str())
        .map_or_else(|| Arc::clone(&config.gateway.id), Into::into);
    let draft = Draft {
        kind: format!("{}{}", gateway::PREFIX, fact.name).into(),
        name: fact.name.into(),
        subject: Arc::clone(&about),
        about: Arc::clone(&about),
        severity: fact.severity,
        at: HAPPENED,
        transition: None,
        correlation: gateway::PAIRED
            .contains(&fact.name)
            .then(|| correlation(fact.name, &about)),
        data: Data::Gateway(data),
    };
    entry(config, draft)
}

/// As the gateway calls what belongs together.
fn correlation(name: &str, about: &str) -> Arc<str> {
    match name {
        "ClockSynchronised" | "ClockLost" => format!("clock-{:032x}", RECORDED.boot_id.0),
        "AlarmMuted" | "AlarmUnmuted" => format!("{EPOCH}-m3"),
        _ => format!("{EPOCH}-{about}-{}", HAPPENED.0),
    }
    .into()
}

fn members(config: &Config, fields: &[Field]) -> Map<String, Json> {
    let each = fields
        .iter()
        .map(|field| (field.name.to_owned(), value(config, field.name, field.shape)));
    each.collect()
}

fn value(config: &Config, name: &str, shape: Shape) -> Json {
    match shape {
        Shape::Text => text(config, name).into(),
        Shape::Whole => match name {
            "part" | "parts" | "count" | "first_sequence" => 1,
            "max_bytes" => 268_435_456,
            "room_bytes" => 255_852_544,
            "undelivered_bytes" => 204_690_432,
            "from" => 4096,
            "to" => 8192,
            _ => 17,
        }
        .into(),
        Shape::Number => json!(31.2),
        Shape::Flag => json!(false),
        Shape::Time => serde_json::to_value(At(HAPPENED)).unwrap_or_default(),
        Shape::List(Shape::List(_)) => json!([[17, 17]]),
        Shape::List(Shape::Object(fields)) => json!([members(config, fields)]),
        Shape::List(_) if name == "sinks" => json!([text(config, "sink")]),
        Shape::List(_) => json!([]),
        Shape::Maybe(one) if matches!(name, "metric" | "value" | "device") => value(config, name, *one),
        Shape::Maybe(_) => Json::Null,
        Shape::Object(fields) => members(config, fields).into(),
    }
}

fn text(config: &Config, name: &str) -> String {
    let rule = config.rules.first();
    let given = match name {
        "device" => Some(rule.map_or_else(|| "thermostat-7".to_owned(), |rule| device(config, rule))),
        "sink" => config.sinks.terms().next().map(|sink| sink.name.to_string()),
        "source" => config.serial.first().map(|line| line.name.clone()),
        "port" => config.serial.first().map(|line| line.port.display().to_string()),
        "rule" => rule.map(|rule| rule.name.to_string()),
        "event" => rule.map(|rule| rule.event.to_string()),
        "metric" => rule
            .and_then(|rule| rule.metric())
            .map(|metric| metric.as_str().to_owned()),
        "version" => Some(env!("CARGO_PKG_VERSION").to_owned()),
        "epoch" => Some(EPOCH.to_string()),
        "boot_id" => Some(format!("{:032x}", RECORDED.boot_id.0)),
        "configuration_sha256" | "new_sha256" => Some(config.sha256.clone()),
        _ => None,
    };
    given.unwrap_or_else(|| {
        match name {
            "id" => "7q3k9x2m4t8vw-e17",
            "sink" => "cloud",
            "source" => "boiler",
            "port" => "/dev/boiler-bus",
            "rule" => "high-temperature",
            "event" => "HighTemperature",
            "metric" => "temperature",
            "severity" => "warning",
            "file" => "0007.seg",
            "report" => "gateway.toml:31: rule \"high-temperature\": clear = 33 is above the threshold 30",
            "used" => "the last configuration that loaded",
            "when_full" => "drop-oldest",
            "old_sha256" => "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9",
            "reason" => "see the log",
            _ => "text",
        }
        .to_owned()
    })
}

/// The rule's event as it might come from its first device.
pub(super) fn rule(config: &Config, rule: &Rule, cleared: bool) -> Entry {
    let device = device(config, rule);
    let metric = rule.metric();
    let unit = metric.and_then(|metric| unit(config, metric));
    let value = metric.and_then(|_| value_of(&params(rule), cleared));
    let (name, transition) = if cleared {
        (&rule.cleared_event, Transition::Cleared)
    } else {
        (&rule.event, Transition::Raised)
    };
    let known = config.devices.iter().filter(|facts| facts.id.matches(&device));
    let episode = EpisodeId {
        epoch: EPOCH,
        number: 17,
    };
    let since = EngineTime(
        HAPPENED
            .0
            .saturating_sub(micros(rule.hold.max(Duration::from_secs(1)))),
    );
    let number = match value {
        Some(Value::Number(number)) => Some(number),
        _ => None,
    };
    let id = DeviceId::new(&device).unwrap_or_else(|_| unreachable!("a device's id, or a pattern without *"));
    let reason = cleared.then_some(Reason::BackToNormal);
    let conditions = conditions(config, rule, &device, cleared);
    let summary = Summary {
        device: &id,
        rule: &rule.name,
        condition: Some(&rule.condition),
        template: rule.summary.as_deref(),
        metric,
        unit: unit.as_deref(),
        value: value.as_ref(),
        transition,
        reason,
        conditions: &conditions,
    };
    let data = RuleData {
        summary: summary.text(),
        device: id.clone(),
        device_name: known.clone().find_map(|facts| facts.name.clone()),
        device_labels: Arc::new(known.flat_map(|facts| facts.labels.clone()).collect::<Labels>()),
        metric: metric.cloned(),
        unit,
        value,
        rule: Arc::new(RuleFacts {
            name: Arc::clone(&rule.name),
            kind: rule.condition.kind().into(),
            params: params(rule),
            labels: rule.labels.clone(),
            runbook: rule.runbook.clone(),
        }),
        episode: EpisodeFacts {
            id: episode,
            since,
            raised_at: HAPPENED,
            duration_ms: u64::try_from(HAPPENED.since(since).as_millis()).unwrap_or(u64::MAX),
            min: number,
            max: number,
            readings: 3,
            reminder: 0,
            flaps: 0,
            reason,
        },
        window: window(rule),
        conditions,
        raised_as: cleared.then(|| Arc::clone(&rule.event)),
    };
    let draft = Draft {
        kind: format!("{}{name}", rule.type_prefix).into(),
        name: Arc::clone(name),
        subject: metric
            .map_or_else(
                || device.clone(),
                |metric| format!("{device}/{}", metric.as_str()),
            )
            .into(),
        about: device.into(),
        severity: rule.severity,
        at: HAPPENED,
        transition: Some(transition),
        correlation: Some(episode.to_string().into()),
        data: Data::Rule(Box::new(data)),
    };
    entry(config, draft)
}

fn window(rule: &Rule) -> Option<WindowFacts> {
    let Condition::Value(watched) = &rule.condition else {
        return None;
    };
    let sliding = watched.window.as_ref()?;
    let over_ms = u64::try_from(sliding.over.as_millis()).unwrap_or(u64::MAX);
    Some(WindowFacts {
        of: sliding.of.key().into(),
        over_ms,
        count: u64::try_from(sliding.min.max(3)).unwrap_or(u64::MAX),
        span_ms: over_ms / 2,
        approximate: false,
    })
}

fn conditions(config: &Config, rule: &Rule, device: &str, cleared: bool) -> Vec<ConditionFacts> {
    let (Condition::All(parts) | Condition::Any(parts)) = &rule.condition else {
        return Vec::new();
    };
    let facts = parts.iter().filter_map(|part| {
        let metric = &part.watched.metric;
        Some(ConditionFacts {
            device: part.device.clone().or_else(|| DeviceId::new(device).ok())?,
            metric: metric.clone(),
            value: value_of(&part.params(), cleared),
            unit: unit(config, metric),
            holds: Some(!cleared),
        })
    });
    facts.collect()
}

/// The rule's numbers as its events quote them.
pub(super) fn params(rule: &Rule) -> Map<String, Json> {
    rule.params(&rule.condition, rule.hold, rule.clear_hold, rule.remind_every)
}

/// One that the rule's numbers judge so; none where readings alone do not say it.
fn value_of(params: &Map<String, Json>, cleared: bool) -> Option<Value> {
    let number = |key: &str| params.get(key).and_then(Json::as_f64);
    let ends = |key: &str| {
        Some((
            params.get(key)?.get(0)?.as_f64()?,
            params.get(key)?.get(1)?.as_f64()?,
        ))
    };
    if cleared && let Some(clear) = number("clear") {
        return Some(Value::Number(clear));
    }
    let beyond = if let Some(threshold) = number("above") {
        Some(threshold + 1.0)
    } else if let Some(threshold) = number("below") {
        Some(threshold - 1.0)
    } else if let Some((lo, hi)) = ends("outside") {
        Some(if cleared { f64::midpoint(lo, hi) } else { hi + 1.0 })
    } else if let Some((lo, hi)) = ends("inside") {
        let margin = number("margin").unwrap_or(0.0);
        Some(if cleared {
            hi + margin + 1.0
        } else {
            f64::midpoint(lo, hi)
        })
    } else {
        number("rises_by").or(number("falls_by"))
    };
    beyond.map(Value::Number).or_else(|| {
        let wanted = params.get("equals").map(|value| (value, !cleared));
        let (value, same) = wanted.or_else(|| Some((params.get("not_equals")?, cleared)))?;
        Some(match value {
            Json::Bool(on) => Value::Bool(*on == same),
            Json::Number(number) => Value::Number(number.as_f64()? + if same { 0.0 } else { 1.0 }),
            Json::String(text) if same => Value::Text(text.as_str().into()),
            _ => Value::Text("other".into()),
        })
    })
}

/// A device that the rule watches: one that is configured, else one that its pattern would match.
fn device(config: &Config, rule: &Rule) -> String {
    let labels = |id: &str| -> Labels {
        let known = config.devices.iter().filter(|facts| facts.id.matches(id));
        known.flat_map(|facts| facts.labels.clone()).collect()
    };
    let named = config.devices.iter().map(|facts| facts.id.0.to_string());
    let lines = config
        .serial
        .iter()
        .filter_map(|line| Some(line.device.as_ref()?.as_str().to_owned()));
    let watched = named
        .chain(lines)
        .map(|id| id.replace('*', "7"))
        .find(|id| id != "7" && rule.watches(id, &labels(id)));
    watched.unwrap_or_else(|| match rule.devices.first() {
        Some(pattern) if &*pattern.0 != "*" => pattern.0.replace('*', "7"),
        _ => "device-7".to_owned(),
    })
}

/// What the configuration says that the metric is in.
fn unit(config: &Config, metric: &Metric) -> Option<Arc<str>> {
    let topics = config.mqtt.iter().flat_map(|door| &door.readings);
    let decoders = topics
        .map(|readings| &readings.decoder)
        .chain(config.serial.iter().map(|line| &line.decoder));
    let mut plans = decoders.flat_map(|decoder| &decoder.metrics);
    plans.find(|plan| plan.name == *metric)?.unit.clone()
}

fn micros(length: Duration) -> i64 {
    i64::try_from(length.as_micros()).unwrap_or(i64::MAX)
}
