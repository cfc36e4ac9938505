//! `[mqtt]`: where the door listens and which topics carry readings.

use std::{net::SocketAddr, time::Duration};

use toml::Spanned;

use super::{
    check::{Checker, Span, Words},
    metrics::{self, Asked},
    raw,
};
use crate::{
    decode::Format,
    source::mqtt::{Level, Settings, TopicReadings},
};

/// The bounds that the engine keeps, whatever the source.
pub(super) struct Limits {
    pub max_devices: usize,
    pub max_metrics: usize,
    pub forget_after: Duration,
}

const DAY: Duration = Duration::from_hours(24);

pub(super) fn limits(raw: Option<&raw::Mqtt>, checker: &mut Checker<'_>) -> Limits {
    let (devices, metrics) = raw.map_or((None, None), |raw| {
        (raw.max_devices.as_ref(), raw.max_metrics.as_ref())
    });
    Limits {
        max_devices: checker
            .whole_in("[mqtt]", "max-devices", devices, &(1..=1_000_000))
            .unwrap_or(2000),
        max_metrics: checker
            .whole_in("[mqtt]", "max-metrics", metrics, &(1..=100_000))
            .unwrap_or(100),
        forget_after: checker
            .duration_in(
                "[mqtt]",
                "forget-after",
                raw.and_then(|raw| raw.forget_after.as_ref()),
                DAY..=DAY * 3650,
            )
            .unwrap_or(DAY * 90),
    }
}

pub(super) fn door(raw: &raw::Mqtt, checker: &mut Checker<'_>) -> Settings {
    let who = "[mqtt]";
    let packet = checker
        .size_in(who, "max-packet", raw.max_packet.as_ref(), 1024..=(16 << 20))
        .unwrap_or(64 << 10);
    let readings: Vec<TopicReadings> = raw
        .readings
        .iter()
        .map(|table| readings(table, checker))
        .collect();
    shadowed(raw, &readings, checker);
    Settings {
        listen: listen(raw, checker),
        max_packet: usize::try_from(packet).unwrap_or(64 << 10),
        max_connections: checker
            .whole_in(
                who,
                "max-connections",
                raw.max_connections.as_ref(),
                &(1..=100_000),
            )
            .unwrap_or(1000),
        max_inflight: checker
            .whole_in(who, "max-inflight", raw.max_inflight.as_ref(), &(1..=65_535))
            .unwrap_or(64),
        readings,
        renamed: std::collections::HashMap::new(),
    }
}

fn listen(raw: &raw::Mqtt, checker: &mut Checker<'_>) -> Vec<SocketAddr> {
    let Some(list) = &raw.listen else {
        return vec![SocketAddr::from(([127, 0, 0, 1], 1883))];
    };
    if list.get_ref().is_empty() {
        checker.wrong(
            list.span(),
            "[mqtt]: listen = [] is a door without an opening; name an address or leave [mqtt] out",
        );
    }
    let mut addresses = Vec::new();
    for written in list.get_ref() {
        let text = written.get_ref();
        let Ok(address) = text.parse::<SocketAddr>() else {
            let form = "must be an address and a port, like \"127.0.0.1:1883\" or \"[::1]:1883\"";
            checker.wrong(written.span(), format!("[mqtt]: listen = {text:?} {form}"));
            continue;
        };
        if !address.ip().to_canonical().is_loopback() && !raw.allow_anonymous {
            checker.wrong(
                written.span(),
                format!(
                    "[mqtt]: listen = {text:?} lets every machine that reaches it send readings, and passwords for \
                     devices are not supported yet; listen on 127.0.0.1, or write allow-anonymous = true if \
                     everybody on that network may"
                ),
            );
        }
        // Port 0 is any free port: two of them are two doors.
        if address.port() != 0 && addresses.contains(&address) {
            checker.wrong(
                written.span(),
                format!("[mqtt]: listen names {text:?} twice; drop one"),
            );
        }
        addresses.push(address);
    }
    addresses
}

fn readings(table: &Spanned<raw::Readings>, checker: &mut Checker<'_>) -> TopicReadings {
    let raw = table.get_ref();
    let who = match &raw.topic {
        Some(topic) => format!("mqtt.readings {:?}", topic.get_ref()),
        None => "[[mqtt.readings]]".to_owned(),
    };
    let form = "say which topics carry readings, like \"thermostats/{device}/state\"";
    let topic = match checker.required(&who, "topic", &raw.topic, &table.span(), form) {
        Some(topic) => levels(topic, checker),
        None => Vec::new(),
    };
    let asked = Asked {
        who: &who,
        span: table.span(),
        formats: Words {
            now: &[("json", Format::Json), ("number", Format::Number)],
            later: &["cbor", "senml-json", "senml-cbor", "sparkplug-b"],
        },
        format: &raw.format,
        time: &raw.time,
        device_at: &None,
        metrics: &raw.metric,
        captured: topic.contains(&Level::Metric),
    };
    let decoder = metrics::decoder(&asked, checker);
    TopicReadings { topic, decoder }
}

fn levels(topic: &Spanned<String>, checker: &mut Checker<'_>) -> Vec<Level> {
    let text = topic.get_ref();
    let mut wrong =
        |span: Span, message: &str| checker.wrong(span, format!("mqtt.readings {text:?}: {message}"));
    if text.is_empty() || text.contains('\0') || text.len() > 1024 {
        wrong(topic.span(), "a topic has 1 to 1024 bytes and no NUL");
        return Vec::new();
    }
    if text.split('/').next() == Some("tidegate") {
        wrong(
            topic.span(),
            "topics under tidegate/ belong to the gateway, nobody can publish there; take another",
        );
    }
    let mut levels = Vec::new();
    let count = text.split('/').count();
    for (index, level) in text.split('/').enumerate() {
        levels.push(match level {
            "{device}" => Level::Device,
            "{metric}" => Level::Metric,
            "+" => Level::Any,
            "#" => {
                if index + 1 < count {
                    wrong(
                        topic.span(),
                        "# stands for all the rest and must be the last level; for one level write +",
                    );
                }
                Level::Rest
            }
            literal => {
                if literal.contains(['+', '#']) {
                    wrong(
                        topic.span(),
                        "+ and # stand for whole levels and must be alone between slashes",
                    );
                } else if literal.contains("{device}") || literal.contains("{metric}") {
                    wrong(
                        topic.span(),
                        "{device} and {metric} stand for whole levels and must be alone between slashes",
                    );
                } else if literal.contains(['{', '}']) {
                    wrong(topic.span(), "of braces only {device} and {metric} are known");
                }
                Level::Literal(literal.to_owned())
            }
        });
    }
    let times = |wanted: &Level| levels.iter().filter(|level| *level == wanted).count();
    match times(&Level::Device) {
        0 => wrong(
            topic.span(),
            "it does not say whose the readings are; write {device} in place of one level",
        ),
        1 => {}
        _ => wrong(
            topic.span(),
            "{device} may stand only once; write + for the other levels",
        ),
    }
    if times(&Level::Metric) > 1 {
        wrong(
            topic.span(),
            "{metric} may stand only once; write + for the other levels",
        );
    }
    levels
}

/// The first match decides, so the second of two that match the same is never asked.
fn shadowed(raw: &raw::Mqtt, readings: &[TopicReadings], checker: &mut Checker<'_>) {
    let matches = |topic: &[Level]| -> Vec<Level> {
        let any = |level: &Level| match level {
            Level::Device | Level::Metric => Level::Any,
            other => other.clone(),
        };
        topic.iter().map(any).collect()
    };
    let mut seen: Vec<(Vec<Level>, Span)> = Vec::new();
    for (table, built) in raw.readings.iter().zip(readings) {
        let Some(topic) = &table.get_ref().topic else {
            continue;
        };
        let shape = matches(&built.topic);
        if let Some((_, first)) = seen.iter().find(|(earlier, _)| *earlier == shape) {
            let line = checker.line(first);
            let why =
                format!("line {line} already takes all of these topics, this table is never asked; drop one");
            checker.wrong(
                topic.span(),
                format!("mqtt.readings {:?}: {why}", topic.get_ref()),
            );
        } else {
            seen.push((shape, topic.span()));
        }
    }
}
