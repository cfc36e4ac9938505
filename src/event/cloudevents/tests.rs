use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value as Json};

use super::*;
use crate::{
    event::{Draft, EpisodeFacts, EpisodeId, Epoch, Labels, Origin, Position, RuleData, RuleFacts, gateway},
    reading::{DeviceId, Metric, Value},
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
        raised_as: None,
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

const CBOR: Form = Form {
    encoding: Encoding::Cbor,
    mode: Mode::Structured,
};

fn binary(encoding: Encoding) -> Form {
    Form {
        encoding,
        mode: Mode::Binary,
    }
}

/// One of each kind, with every type that `data` can hold.
fn entries() -> Vec<Entry> {
    let values = [
        None,
        Some(Value::Number(31.2)),
        Some(Value::Bool(true)),
        Some(Value::Text("é".into())),
    ];
    let mut entries: Vec<_> = values.map(|value| entry(rule_data(value))).into();
    let discarded = gateway::EventsDiscarded {
        epoch: "7q3k9x2m4t8vw".to_owned(),
        sinks: vec!["cloud".to_owned()],
        ranges: vec![(17, u64::MAX)],
        count: u64::MAX - 16,
        reason: "max-age".to_owned(),
    };
    entries.push(entry(
        gateway::draft(&discarded, "plantroom-1", EngineTime(0)).data,
    ));
    entries
}

fn parsed(bytes: &[u8], encoding: Encoding) -> Json {
    match encoding {
        Encoding::Json => serde_json::from_slice(bytes).unwrap(),
        Encoding::Cbor => ciborium::from_reader(bytes).unwrap(),
    }
}

#[test]
fn structured_cbor_is_the_same_event_with_data_as_a_cbor_item() {
    for entry in entries() {
        let message = message(&entry, Sequence(41), CBOR);
        assert_eq!(message.content_type, "application/cloudevents+cbor");
        assert!(message.attributes.is_empty());
        let mut expected = parsed(&render(&entry, Sequence(41)), Encoding::Json);
        // Otherwise the format's decoders would take `data` for encoded text.
        expected["datacontenttype"] = "application/cbor".into();
        assert_eq!(parsed(&message.payload, Encoding::Cbor), expected);
    }
}

#[test]
fn binary_mode_has_every_attribute_beside_the_payload_and_the_data_alone_in_it() {
    for (encoding, content_type) in [
        (Encoding::Json, "application/json"),
        (Encoding::Cbor, "application/cbor"),
    ] {
        for entry in entries() {
            let message = message(&entry, Sequence(41), binary(encoding));
            assert_eq!(message.content_type, content_type);
            let mut structured = object(parsed(&render(&entry, Sequence(41)), Encoding::Json));
            let data = structured.remove("data").unwrap();
            assert_eq!(parsed(&message.payload, encoding), data);
            structured.remove("datacontenttype");
            let expected: BTreeMap<_, _> = structured
                .into_iter()
                .map(|(name, value)| {
                    (
                        name,
                        value.as_str().map_or_else(|| value.to_string(), str::to_owned),
                    )
                })
                .collect();
            assert_eq!(message.attributes.len(), expected.len(), "no name twice");
            assert_eq!(
                message.attributes.into_iter().collect::<BTreeMap<_, _>>(),
                expected
            );
        }
    }
}

#[test]
fn attribute_names_are_ones_that_cloudevents_allows() {
    for entry in entries() {
        for (name, _) in message(&entry, Sequence(0), binary(Encoding::Json)).attributes {
            let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            assert!(name.len() <= 20 && name.chars().all(lower), "{name}");
        }
    }
}
