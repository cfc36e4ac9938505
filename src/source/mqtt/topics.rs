//! Topics: which names and filters are legal, and which table a topic's readings belong to. Pure.
//!
//! Any UTF-8 is a legal topic (`é/x`, `日本`): nothing here cuts text at a byte.

use std::sync::Arc;

use super::{Level, Settings, TopicReadings};
use crate::{
    decode::Decoded,
    reading::{DeviceId, Metric, Reading},
    time::EngineTime,
};

/// Levels of one filter: the tree of subscriptions is as deep as its deepest filter.
pub const MAX_LEVELS: usize = 64;

/// The first level of the gateway's own topics: only it publishes there.
const OWN: &str = "tidegate";

/// Whether a publish may name `topic`.
#[must_use]
pub fn is_topic(topic: &str) -> bool {
    !topic.is_empty() && !topic.contains(['+', '#', '\0'])
}

/// Whether a subscription may name `filter`: wildcards fill whole levels, `#` is the last.
#[must_use]
pub fn is_filter(filter: &str) -> bool {
    if filter.is_empty() || filter.contains('\0') || filter.split('/').count() > MAX_LEVELS {
        return false;
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let fills = level.len() == 1 || !level.contains(['+', '#']);
        if !fills || (level == "#" && levels.peek().is_some()) {
            return false;
        }
    }
    true
}

/// Why no client may publish to `topic`, if none may: it is the gateway's (`tidegate`, `tidegate/...`) or a
/// server's (`$...`).
#[must_use]
pub fn reserved(topic: &str) -> Option<&'static str> {
    if topic.split('/').next() == Some(OWN) {
        return Some("a publish to a topic that is the gateway's own");
    }
    topic
        .starts_with('$')
        .then_some("a publish to a topic that begins with $, as only a server's own do")
}

/// The table a topic belongs to, and what the topic itself tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Match<'a> {
    /// The table.
    pub table: &'a TopicReadings,
    /// What stood for `{device}`.
    pub device: Option<&'a str>,
    /// What stood for `{metric}`.
    pub metric: Option<&'a str>,
}

/// The first table whose topic matches.
#[must_use]
pub fn find<'a>(tables: &'a [TopicReadings], topic: &'a str) -> Option<Match<'a>> {
    tables.iter().find_map(|table| captures(table, topic))
}

fn captures<'a>(table: &'a TopicReadings, topic: &'a str) -> Option<Match<'a>> {
    let mut found = Match {
        table,
        device: None,
        metric: None,
    };
    let mut names = topic.split('/');
    let wild_first = !matches!(table.topic.first(), Some(Level::Literal(_)));
    if topic.starts_with('$') && wild_first {
        return None;
    }
    for level in &table.topic {
        if *level == Level::Rest {
            return Some(found);
        }
        let name = names.next()?;
        match level {
            Level::Literal(literal) if literal != name => return None,
            Level::Device => found.device = Some(name),
            Level::Metric => found.metric = Some(name),
            Level::Literal(_) | Level::Any | Level::Rest => {}
        }
    }
    names.next().is_none().then_some(found)
}

/// Which device has this name on the wire (`[[device]] from`). `None`: it is no usable name.
#[must_use]
pub fn device(settings: &Settings, name: &str) -> Option<DeviceId> {
    match settings.renamed.get(name) {
        Some(device) => Some(device.clone()),
        None => DeviceId::new(name).ok(),
    }
}

/// The readings of a decoded payload, and how many of its values could not be one. `None`: nobody knows a
/// usable name of the device.
///
/// The device is what the topic says, else the payload, else `user`; then `[[device]] from` renames it.
#[must_use]
pub fn readings(
    settings: &Settings,
    found: &Match<'_>,
    user: Option<&str>,
    decoded: Decoded,
    (at, stamped): (EngineTime, bool),
) -> Option<(Vec<Reading>, usize)> {
    let device = device(settings, found.device.or(decoded.device.as_deref()).or(user)?)?;
    let captured = found.metric.and_then(|metric| Metric::new(metric).ok());
    let mut rejected = decoded.rejected;
    let mut readings = Vec::with_capacity(decoded.values.len());
    for (metric, value, unit) in decoded.values {
        let Some(metric) = metric.or_else(|| captured.clone()) else {
            rejected = rejected.saturating_add(1);
            continue;
        };
        let unit: Option<Arc<str>> = unit;
        readings.push(Reading {
            device: device.clone(),
            metric,
            value,
            unit,
            at,
            stamped,
        });
    }
    Some((readings, rejected))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        decode::{Decoder, Format},
        reading::Value,
    };

    fn table(levels: &[Level]) -> TopicReadings {
        let decoder = Decoder {
            format: Format::Json,
            time: None,
            device_at: None,
            metrics: Vec::new(),
        };
        TopicReadings {
            topic: levels.to_vec(),
            decoder,
        }
    }

    fn literal(text: &str) -> Level {
        Level::Literal(text.to_owned())
    }

    fn settings() -> Settings {
        let renamed = [("tasmota_1".to_owned(), DeviceId::new("kitchen").unwrap())].into();
        Settings {
            listen: Vec::new(),
            max_packet: 65_536,
            max_connections: 10,
            max_inflight: 64,
            readings: Vec::new(),
            renamed,
        }
    }

    #[test]
    fn any_text_is_a_topic_but_wildcards_nul_and_nothing() {
        for topic in ["a", "é/x", "日本", "/", "a//b", "a b"] {
            assert!(is_topic(topic), "{topic}");
        }
        for topic in ["", "+", "a/#", "a\0b"] {
            assert!(!is_topic(topic), "{topic:?}");
        }
    }

    #[test]
    fn the_gateways_own_topics_begin_with_its_name_as_a_level() {
        for topic in ["tidegate", "tidegate/", "tidegate/g/status", "$SYS/x", "$"] {
            assert!(reserved(topic).is_some(), "{topic}");
        }
        for topic in ["tidegateway", "x/tidegate", "a$"] {
            assert!(reserved(topic).is_none(), "{topic}");
        }
    }

    #[test]
    fn a_wildcard_fills_a_level_and_a_hash_is_the_last() {
        for filter in ["#", "+", "+/+", "a/+/b/#", "é/#", "/", "+/"] {
            assert!(is_filter(filter), "{filter}");
        }
        let deep = "a/".repeat(MAX_LEVELS);
        for filter in ["", "a#", "#/a", "a+/b", "++", "a/\0", deep.as_str()] {
            assert!(!is_filter(filter), "{filter:?}");
        }
    }

    #[test]
    fn the_first_table_that_matches_decides() {
        let tables = [
            table(&[literal("t"), Level::Device, literal("state")]),
            table(&[literal("t"), Level::Rest]),
        ];
        let first = find(&tables, "t/é-1/state").unwrap();
        assert_eq!((first.device, first.table), (Some("é-1"), &tables[0]));
        assert_eq!(find(&tables, "t/x/other").unwrap().table, &tables[1]);
        assert_eq!(
            find(&tables, "t").unwrap().table,
            &tables[1],
            "# matches its parent too"
        );
        assert_eq!(find(&tables, "u/x/state"), None);
    }

    #[test]
    fn a_capture_takes_exactly_one_level() {
        let tables = [table(&[Level::Device, Level::Metric])];
        let found = find(&tables, "d/m").unwrap();
        assert_eq!((found.device, found.metric), (Some("d"), Some("m")));
        assert_eq!(find(&tables, "d"), None);
        assert_eq!(find(&tables, "d/m/x"), None);
        assert_eq!(find(&tables, "$SYS/m"), None, "a wildcard never takes a $ level");
    }

    #[test]
    fn a_device_is_named_by_topic_then_payload_then_user_and_renamed_last() {
        let table = table(&[]);
        let named = |topic: Option<&'static str>, payload: Option<&str>, user: Option<&str>| {
            let found = Match {
                table: &table,
                device: topic,
                metric: Some("m"),
            };
            let decoded = Decoded {
                device: payload.map(str::to_owned),
                values: vec![(None, Value::Bool(true), None)],
                ..Decoded::default()
            };
            let (readings, _) = readings(&settings(), &found, user, decoded, (EngineTime(1), false))?;
            Some((readings[0].device.to_string(), readings[0].metric.to_string()))
        };
        assert_eq!(
            named(Some("a"), Some("b"), Some("c")),
            Some(("a".into(), "m".into()))
        );
        assert_eq!(named(None, Some("b"), Some("c")), Some(("b".into(), "m".into())));
        assert_eq!(
            named(None, None, Some("tasmota_1")),
            Some(("kitchen".into(), "m".into()))
        );
        assert_eq!(named(None, None, None), None);
        assert_eq!(named(Some(""), None, None), None, "an empty level names nobody");
    }

    #[test]
    fn a_value_without_a_metric_is_rejected_and_counted() {
        let table = table(&[]);
        let found = Match {
            table: &table,
            device: Some("d"),
            metric: None,
        };
        let decoded = Decoded {
            values: vec![(None, Value::Bool(true), None)],
            rejected: 1,
            ..Decoded::default()
        };
        assert_eq!(
            readings(&settings(), &found, None, decoded, (EngineTime(1), false)),
            Some((Vec::new(), 2))
        );
    }
}
