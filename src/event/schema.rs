//! What an event looks like, as JSON Schema (draft 7): the attributes, and what stands in `data`.
//!
//! A schema says what is there today. It allows more: within a version fields are added, and receivers ignore what
//! they do not know (docs/events.md, "Versions").

use serde_json::{Map, Value as Json, json};

use super::gateway::{Fact, Field, Shape};

/// The context attributes of every event, as they stand in structured mode.
#[must_use]
pub fn attributes() -> Json {
    object(&members())
}

/// The same as user properties, in binary mode: all of them text, and `datacontenttype` is not among them.
#[must_use]
pub fn user_properties() -> Json {
    let mut members = members();
    members.retain(|(name, ..)| *name != "datacontenttype");
    for (name, schema, _) in &mut members {
        if *name == "severitynumber" {
            *schema = json!({ "enum": ["9", "13", "17", "21"] });
        }
    }
    object(&members)
}

fn members() -> Vec<(&'static str, Json, &'static str)> {
    vec![
        (
            "specversion",
            json!({ "const": "1.0" }),
            "The CloudEvents version.",
        ),
        (
            "id",
            matching("^[0-9a-z]{13}-[0-9]{20}$"),
            "`epoch`-`sequence`: the same id is the same event.",
        ),
        (
            "source",
            json!({ "type": "string", "format": "uri-reference", "minLength": 1 }),
            "The gateway, as a URI.",
        ),
        (
            "type",
            name(),
            "What happened; the catalog has one entry for each.",
        ),
        (
            "subject",
            name(),
            "What it is about: the device and the metric, the device, the source, the sink, or the gateway's id.",
        ),
        ("time", time(), "When it happened."),
        ("recordedtime", time(), "When the gateway stored it."),
        (
            "clockquality",
            json!({ "enum": ["synchronised", "corrected", "unknown"] }),
            "Whether the times can be believed; unknown: they are estimates.",
        ),
        (
            "datacontenttype",
            json!({ "enum": ["application/json", "application/cbor"] }),
            "How `data` is encoded: as the sink's `encoding` says.",
        ),
        (
            "dataschema",
            json!({ "enum": [super::cloudevents::RULE_SCHEMA, super::cloudevents::GATEWAY_SCHEMA] }),
            "Which schema `data` has, with its version.",
        ),
        ("gateway", name(), "The gateway's id."),
        (
            "epoch",
            matching("^[0-9a-z]{13}$"),
            "Which run of numbers `sequence` belongs to.",
        ),
        (
            "sequence",
            matching("^[0-9]{20}$"),
            "Grows by one with every event of this source and epoch; a gap is a loss until it is explained.",
        ),
        (
            "previoussequence",
            matching("^[0-9]{20}$"),
            "The event that this receiver was to get before this one; zeros: none.",
        ),
        (
            "partitionkey",
            name(),
            "Events of one key stay in order in partitioned systems.",
        ),
        (
            "severitytext",
            json!({ "enum": ["INFO", "WARN", "ERROR", "FATAL"] }),
            "How bad.",
        ),
        (
            "severitynumber",
            json!({ "enum": [9, 13, 17, 21] }),
            "How bad, as OpenTelemetry counts.",
        ),
        (
            "transition?",
            json!({ "enum": ["raised", "reminded", "changed", "cleared"] }),
            "Of rule events: where in the alarm's life it stands.",
        ),
        (
            "correlationid?",
            name(),
            "What belongs together: the events of one episode, or a pair.",
        ),
    ]
}

/// `data` of a rule's event, `urn:tidegate:schema:rule-event:1`.
#[must_use]
pub fn rule_data() -> Json {
    let mut schema = object(&[
        ("summary", name(), "One line for people."),
        (
            "gateway",
            object(&[
                ("id", name(), "Its id."),
                ("labels", labels(), "Its labels."),
                (
                    "version",
                    name(),
                    "The version of the daemon that stored the event.",
                ),
            ]),
            "The gateway.",
        ),
        (
            "device",
            object(&[
                ("id", name(), "Its id."),
                ("name", or_null("string"), "What people call it."),
                ("labels", labels(), "Its labels."),
            ]),
            "The device.",
        ),
        (
            "metric",
            or_null("string"),
            "What was measured; null if several metrics decided.",
        ),
        ("unit", or_null("string"), "SenML unit."),
        (
            "value?",
            or_null("number"),
            "What decided, if it is a number; null: nothing did.",
        ),
        (
            "value_bool?",
            json!({ "type": "boolean" }),
            "Instead of `value`, if it is on or off.",
        ),
        (
            "value_text?",
            json!({ "type": "string" }),
            "Instead of `value`, if it is a text.",
        ),
        (
            "rule",
            object(&[
                ("name", name(), "Its name."),
                (
                    "kind",
                    json!({ "enum": [
                        "above", "below", "outside", "inside", "equals", "not-equals", "rises-by", "falls-by",
                        "silent-for", "all", "any",
                    ] }),
                    "The condition, as the configuration calls it.",
                ),
                (
                    "params",
                    params(),
                    "Its numbers as they were; durations in seconds: `hold_s`. What has its default is not there.",
                ),
                ("labels", labels(), "Its labels."),
                ("runbook", or_null("string"), "Where to read what to do."),
            ]),
            "The rule that spoke.",
        ),
        ("episode", episode(), "The alarm so far."),
        (
            "window",
            nullable(&object(&[
                (
                    "of",
                    name(),
                    "What was computed: mean, min, max, sum, count, delta, rise, fall.",
                ),
                (
                    "over_s",
                    json!({ "type": "number", "minimum": 0 }),
                    "How long the window is, in seconds.",
                ),
                ("count", whole(), "Readings in it."),
                (
                    "span_s",
                    json!({ "type": "number", "minimum": 0 }),
                    "From the oldest of them to the newest, in seconds.",
                ),
                (
                    "approximate",
                    json!({ "type": "boolean" }),
                    "There were more readings than are kept one by one.",
                ),
            ])),
            "What `value` was computed from; null: it is as it came.",
        ),
        (
            "conditions?",
            json!({ "type": "array", "items": sub_condition() }),
            "Of `all` and `any`: each sub-condition.",
        ),
    ]);
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("oneOf".to_owned(), one_value());
    }
    schema
}

fn params() -> Json {
    let mut members = tested();
    let mut part = tested();
    part.extend([
        ("metric", name(), "What is watched."),
        (
            "device?",
            name(),
            "Whose metric; not there: the rule's own device's.",
        ),
    ]);
    let part = object(&part);
    let parts = json!({ "type": "array", "items": part.clone() });
    members.extend([
        ("silent_for_s?", length(), "No reading for so long."),
        ("all?", parts.clone(), "Every one of these."),
        ("any?", parts, "Some of these."),
        ("hold_s?", length(), "How long it must hold before it is raised."),
        (
            "clear_hold_s?",
            length(),
            "How long it must be over before it ends.",
        ),
        (
            "remind_every_s?",
            length(),
            "How often an open episode says that it goes on.",
        ),
        (
            "max_raises?",
            name(),
            "Raises of one device, as the configuration writes it: `20/h`. Not there: `12/h`.",
        ),
        ("unless?", part, "While this holds it does not raise."),
        ("unless_after_s?", length(), "And so much longer."),
        (
            "during?",
            json!({ "type": "array", "items": name() }),
            "The periods in which it applies.",
        ),
    ]);
    object(&members)
}

/// What a value is held against.
fn tested() -> Vec<(&'static str, Json, &'static str)> {
    let number = || json!({ "type": "number" });
    let ends = || json!({ "type": "array", "items": { "type": "number" }, "minItems": 2, "maxItems": 2 });
    let value = || json!({ "type": ["number", "boolean", "string"] });
    vec![
        ("above?", number(), "More than this."),
        ("below?", number(), "Less than this."),
        ("outside?", ends(), "Less than the one or more than the other."),
        ("inside?", ends(), "From the one to the other."),
        ("equals?", value(), "This very value."),
        ("not_equals?", value(), "Any other value."),
        (
            "rises_by?",
            number(),
            "So much more than the smallest value of `within_s`.",
        ),
        (
            "falls_by?",
            number(),
            "So much less than the largest value of `within_s`.",
        ),
        ("clear?", number(), "Where it ends."),
        ("margin?", number(), "How far beyond the range it ends."),
        ("within_s?", length(), "In how long it rises or falls."),
        (
            "of?",
            name(),
            "What is computed of a window: `mean`, `min`, `max`, `sum`, `count`, `delta`.",
        ),
        ("over_s?", length(), "How long that window is."),
        (
            "window_min?",
            whole(),
            "The fewest readings in it that say anything.",
        ),
    ]
}

fn length() -> Json {
    json!({ "type": "number", "minimum": 0 })
}

fn episode() -> Json {
    object(&[
        (
            "id",
            name(),
            "The same in all events of the alarm: their correlationid.",
        ),
        ("since", time(), "When the condition became true."),
        ("raised_at", time(), "When it was raised: after `hold`."),
        ("duration_ms", whole(), "From `since` to this event."),
        ("min", or_null("number"), "The smallest value since."),
        ("max", or_null("number"), "The largest value since."),
        ("readings", whole(), "Readings since."),
        ("reminder", whole(), "Which reminder this is, from 1; 0: none."),
        ("flaps", whole(), "How often it began to end and did not."),
        (
            "reason",
            json!({ "enum": [
                "back-to-normal", "rule-changed", "rule-removed", "device-removed", "out-of-period", "suppressed",
                "muted", null,
            ] }),
            "Why it ended; null: it goes on.",
        ),
    ])
}

fn sub_condition() -> Json {
    let mut schema = object(&[
        ("device", name(), "Whose metric."),
        ("metric", name(), "What is watched."),
        ("unit", or_null("string"), "SenML unit."),
        (
            "value?",
            or_null("number"),
            "Its value, if it is a number; null: unknown.",
        ),
        (
            "value_bool?",
            json!({ "type": "boolean" }),
            "Instead of `value`, if it is on or off.",
        ),
        (
            "value_text?",
            json!({ "type": "string" }),
            "Instead of `value`, if it is a text.",
        ),
        ("holds", or_null("boolean"), "Whether it holds; null: unknown."),
    ]);
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("oneOf".to_owned(), one_value());
    }
    schema
}

fn one_value() -> Json {
    json!([{ "required": ["value"] }, { "required": ["value_bool"] }, { "required": ["value_text"] }])
}

/// `data` of one of the gateway's own events, `urn:tidegate:schema:gateway-event:1`.
#[must_use]
pub fn gateway_data(fact: &Fact) -> Json {
    fields(fact.fields)
}

fn fields(fields: &[Field]) -> Json {
    let members: Vec<_> = fields
        .iter()
        .map(|field| (field.name, shape(field.shape), field.about.trim()))
        .collect();
    object(&members)
}

fn shape(of: Shape) -> Json {
    match of {
        Shape::Text => json!({ "type": "string" }),
        Shape::Whole => whole(),
        Shape::Number => json!({ "type": "number" }),
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Time => time(),
        Shape::List(each) => json!({ "type": "array", "items": shape(*each) }),
        Shape::Maybe(one) => nullable(&shape(*one)),
        Shape::Object(members) => fields(members),
    }
}

/// An object with these members: name (with `?` if it may be absent), schema, meaning.
fn object(members: &[(&str, Json, &str)]) -> Json {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (name, schema, meaning) in members {
        let mut schema = schema.clone();
        if let Some(schema) = schema.as_object_mut() {
            schema.insert("description".to_owned(), (*meaning).into());
        }
        if !name.ends_with('?') {
            required.push(*name);
        }
        properties.insert(name.trim_end_matches('?').to_owned(), schema);
    }
    json!({ "type": "object", "properties": properties, "required": required })
}

fn nullable(schema: &Json) -> Json {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

fn or_null(kind: &str) -> Json {
    json!({ "type": [kind, "null"] })
}

fn name() -> Json {
    json!({ "type": "string", "minLength": 1 })
}

fn matching(pattern: &str) -> Json {
    json!({ "type": "string", "pattern": pattern })
}

fn time() -> Json {
    json!({ "type": "string", "format": "date-time" })
}

fn whole() -> Json {
    json!({ "type": "integer", "minimum": 0 })
}

fn labels() -> Json {
    json!({ "type": "object", "additionalProperties": { "type": "string" } })
}
