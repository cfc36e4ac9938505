//! Every event that a test gets is held against the contract here: the schemas that the catalog prints, taken
//! strictly, so that a member which no schema describes fails too. `tests/tidy.rs` sees to it that no test forgets.

#![expect(
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    reason = "a test fails by panicking, and not every test gets drafts"
)]

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use jsonschema::Validator;
use serde_json::{Value, json};
use tidegate::{
    event::{
        Draft, Entry, Epoch, Event, Labels, Origin, Position, Sequence,
        cloudevents::{self, GATEWAY_SCHEMA, RULE_SCHEMA},
        gateway::{FACTS, PAIRED},
        schema,
    },
    time::{BootId, ClockQuality, Moment, Timestamp},
};

static ATTRIBUTES: LazyLock<Validator> = LazyLock::new(|| strict(schema::attributes()));
static RULE_DATA: LazyLock<Validator> = LazyLock::new(|| strict(schema::rule_data()));
static GATEWAY_DATA: LazyLock<HashMap<&str, Validator>> = LazyLock::new(|| {
    let each = FACTS
        .iter()
        .map(|fact| (fact.name, strict(schema::gateway_data(fact))));
    each.collect()
});

/// A structured JSON event as a subscriber gets it.
pub(crate) fn check(event: &Value) {
    let mut attributes = event.clone();
    let data = attributes.as_object_mut().and_then(|event| event.remove("data"));
    let data = data.unwrap_or_else(|| panic!("an event without data: {event}"));
    assert_valid(&ATTRIBUTES, &attributes, event);
    let text = |name: &str| event[name].as_str().unwrap_or_default();
    assert_eq!(text("id"), format!("{}-{}", text("epoch"), text("sequence")));
    match text("dataschema") {
        RULE_SCHEMA => {
            assert_valid(&RULE_DATA, &data, event);
            assert_eq!(event["correlationid"], data["episode"]["id"], "{event}");
            assert!(event["transition"].is_string(), "{event}");
        }
        GATEWAY_SCHEMA => {
            let name = text("type")
                .strip_prefix("io.tidegate.gateway.")
                .unwrap_or_default();
            let schema = GATEWAY_DATA.get(name);
            let schema = schema.unwrap_or_else(|| panic!("{name} is not in event/gateway.rs: {event}"));
            assert_valid(schema, &data, event);
            assert_eq!(
                event["correlationid"].is_string(),
                PAIRED.contains(&name),
                "{event:#}"
            );
            let about = ["device", "source", "sink", "rule"].map(|name| data[name].as_str());
            let about = about.into_iter().flatten().next();
            assert_eq!(text("subject"), about.unwrap_or(text("gateway")), "{event:#}");
        }
        other => panic!("{other:?} is no schema of ours: {event}"),
    }
}

/// An event of an earlier version: right by today's schemas, which take more than they describe.
pub(crate) fn check_earlier(event: &Value) {
    let data = match event["dataschema"].as_str() {
        Some(RULE_SCHEMA) => schema::rule_data(),
        _ => {
            let name = event["type"].as_str().and_then(|kind| kind.rsplit('.').next());
            let fact = FACTS.iter().find(|fact| Some(fact.name) == name);
            schema::gateway_data(fact.unwrap_or_else(|| panic!("{name:?} is no event any more")))
        }
    };
    for (schema, value) in [(schema::attributes(), event), (data, &event["data"])] {
        let schema = jsonschema::draft7::new(&schema).unwrap_or_else(|error| panic!("{error}"));
        assert_valid(&schema, value, event);
    }
}

/// An event as the engine says it.
pub(crate) fn check_draft(draft: &Draft) {
    let origin = Origin {
        gateway: "gw".into(),
        source: "urn:tidegate:gateway:gw".into(),
        labels: Labels::new(),
        version: "0.1.0".into(),
    };
    let recorded = Moment {
        boot_id: BootId(1),
        boot: draft.at,
        wall: Timestamp(1_800_000_000_000_000),
        quality: ClockQuality::Synchronised,
    };
    let entry = Entry {
        position: Position(1),
        epoch: Epoch(7),
        sequence: Sequence(1),
        event: Arc::new(Event {
            draft: draft.clone(),
            origin: Arc::new(origin),
            recorded,
        }),
    };
    let event = serde_json::from_slice(&cloudevents::render(&entry, Sequence(0)));
    check(&event.unwrap_or_else(|error| panic!("not JSON: {error}")));
}

/// The official CloudEvents JSON schema, as the official JavaScript SDK ships it.
pub(crate) fn official() -> Validator {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/target/tools/node/node_modules/cloudevents/dist/schema/v1.js"
    );
    let text = std::fs::read_to_string(file)
        .unwrap_or_else(|error| panic!("{file}: {error} (./test installs the official SDKs)"));
    let line = text.lines().find_map(|line| {
        let (name, schema) = line.split_once(" = ")?;
        (name.starts_with("const schema") && schema.contains("CloudEvents Specification JSON Schema"))
            .then_some(schema)
    });
    let line = line.unwrap_or_else(|| panic!("{file} does not hold the schema any more"));
    let schema: Value =
        serde_json::from_str(line.trim_end_matches(';')).unwrap_or_else(|error| panic!("{error}"));
    let options = jsonschema::draft7::options().should_validate_formats(true);
    options.build(&schema).unwrap_or_else(|error| panic!("{error}"))
}

fn assert_valid(schema: &Validator, value: &Value, event: &Value) {
    let wrong: Vec<_> = schema
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}\nin {event:#}");
}

/// The schema, with nothing allowed that it does not describe.
pub(crate) fn strict(mut schema: Value) -> Validator {
    close(&mut schema);
    let options = jsonschema::draft7::options().should_validate_formats(true);
    options
        .build(&schema)
        .unwrap_or_else(|error| panic!("not a schema: {error}\n{schema:#}"))
}

fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if members.contains_key("properties") && !members.contains_key("additionalProperties") {
                members.insert("additionalProperties".to_owned(), json!(false));
            }
            members.values_mut().for_each(close);
        }
        Value::Array(each) => each.iter_mut().for_each(close),
        _ => {}
    }
}
