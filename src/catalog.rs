//! What this gateway can say: every event that its configuration lets it emit, described for whoever receives it.
//!
//! From the configuration alone: no journal, no lock, no running gateway. The gateway's own events come from the
//! table that records them (`event/gateway.rs`), the schemas from `event/schema.rs`, and the examples are rendered as
//! any event is: what is described here is what is sent. Events that `[events] off` names are not in it.
//!
//! Not in it, for they are no events: the status topic, and what devices publish to each other at the door.

use std::sync::Arc;

use serde_json::Value as Json;

use crate::{
    config::Config,
    event::{
        Entry, Sequence, Severity, Transition,
        cloudevents::{self, Encoding, Form, topic},
        gateway::Fact,
        schema,
    },
};

mod asyncapi;
mod example;
mod fixed;
mod json_schema;
mod markdown;
mod rules;

pub use asyncapi::asyncapi;
pub use json_schema::json_schema;
pub use markdown::markdown;

/// All of it.
#[derive(Clone, Debug)]
pub struct Catalog {
    /// The gateway's id.
    pub gateway: Arc<str>,
    /// The daemon's version.
    pub version: &'static str,
    /// Each event: those of rules in the configuration's order, then the gateway's own.
    pub events: Vec<Described>,
    /// Where they go.
    pub outlets: Vec<Outlet>,
}

/// One event.
#[derive(Clone, Debug)]
pub struct Described {
    /// The last part of its type.
    pub name: Arc<str>,
    /// Its type.
    pub kind: Arc<str>,
    /// When it comes, and what it means.
    pub meaning: String,
    /// Usually one: overrides may give some devices another.
    pub severities: Vec<Severity>,
    /// Where in an episode's life; none for the gateway's own.
    pub transitions: Vec<Transition>,
    /// `{device}` of its topics.
    pub device: Level,
    /// `{metric}` of its topics.
    pub metric: Level,
    /// What `data` holds.
    pub data: Content,
    /// One such event.
    pub example: Entry,
}

/// A placeholder of a topic, as far as it is known before the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Level {
    /// Always this.
    Fixed(Arc<str>),
    /// One of these, or whatever is described.
    Varies(String),
}

/// Which schema.
#[derive(Clone, Copy, Debug)]
pub enum Content {
    /// That of rule events.
    Rule,
    /// That of this gateway event.
    Gateway(&'static Fact),
}

/// Where events go: a sink, or the gateway's own door.
#[derive(Clone, Debug)]
pub struct Outlet {
    /// `sink.cloud`, `door`.
    pub key: String,
    /// Host and port.
    pub host: String,
    /// TLS.
    pub tls: bool,
    /// Of MQTT.
    pub version: &'static str,
    /// With its placeholders.
    pub topic: String,
    /// What an event looks like there.
    pub form: Form,
    /// Who gets it.
    pub about: String,
}

impl Catalog {
    /// What a gateway with this configuration can say.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let mut events = rules::events(config);
        events.extend(fixed::events(config));
        Self {
            gateway: Arc::clone(&config.gateway.id),
            version: env!("CARGO_PKG_VERSION"),
            events,
            outlets: outlets(config),
        }
    }
}

fn outlets(config: &Config) -> Vec<Outlet> {
    let sinks = config.sinks.mqtt.iter().map(|sink| Outlet {
        key: format!("sink.{}", sink.terms.name),
        host: format!("{}:{}", sink.host, sink.port),
        tls: sink.tls,
        version: match sink.version {
            crate::forward::mqtt::Version::V5 => "5.0",
            crate::forward::mqtt::Version::V311 => "3.1.1",
        },
        topic: sink.topic.clone(),
        form: sink.form,
        about: format!(
            "[[sink.mqtt]] {}: at least once, QoS 1, first sends in the order of their sequence.",
            sink.terms.name
        ),
    });
    let door = config.mqtt.iter().filter_map(|door| {
        let listen: Vec<_> = door.listen.iter().map(ToString::to_string).collect();
        Some(Outlet {
            key: "door".to_owned(),
            host: listen.first()?.clone(),
            tls: false,
            version: "5.0",
            topic: topic::DOOR.to_owned(),
            form: Form::default(),
            about: format!(
                "The gateway's own door at {}, MQTT 3.1.1 too: best effort, also while there is no uplink.",
                listen.join(", ")
            ),
        })
    });
    sinks.chain(door).collect()
}

impl Outlet {
    /// The topic of an event here; what is not known before it stays in braces.
    fn address(&self, catalog: &Catalog, event: &Described) -> String {
        topic::fill(&self.topic, |key| match key {
            "gateway" => Some(&catalog.gateway),
            "event" => Some(&event.name),
            "device" => event.device.fixed(),
            "metric" => event.metric.fixed(),
            "severity" => match event.severities.as_slice() {
                [one] => Some(one.as_str()),
                _ => None,
            },
            "transition" => match event.transitions.as_slice() {
                [] => Some(topic::ABSENT),
                [one] => Some(topic::transition(*one)),
                _ => None,
            },
            _ => None,
        })
    }
}

impl Level {
    fn fixed(&self) -> Option<&str> {
        match self {
            Self::Fixed(value) => Some(value),
            Self::Varies(_) => None,
        }
    }

    /// As one line says it.
    fn described(&self) -> &str {
        match self {
            Self::Fixed(value) => value,
            Self::Varies(what) => what,
        }
    }
}

impl Content {
    /// The name of its schema in a document.
    fn name(self) -> String {
        match self {
            Self::Rule => "RuleEventData".to_owned(),
            Self::Gateway(fact) => format!("{}Data", fact.name),
        }
    }

    fn schema(self) -> Json {
        match self {
            Self::Rule => schema::rule_data(),
            Self::Gateway(fact) => schema::gateway_data(fact),
        }
    }
}

impl Described {
    /// The example as a receiver gets it in this form: the attributes beside the payload, and the payload.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "what we encode can be decoded")]
    pub fn sent(&self, form: Form) -> (Vec<(String, String)>, Json) {
        let previous = Sequence(self.example.sequence.0.saturating_sub(1));
        let message = cloudevents::message(&self.example, previous, form);
        let payload = match form.encoding {
            Encoding::Json => serde_json::from_slice(&message.payload).expect("what we encode is JSON"),
            Encoding::Cbor => {
                ciborium::from_reader(message.payload.as_slice()).expect("what we encode is CBOR")
            }
        };
        (message.attributes, payload)
    }

    /// The example in structured JSON mode.
    #[must_use]
    pub fn rendered(&self) -> Json {
        self.sent(Form::default()).1
    }

    /// The whole event as a schema: the attributes, with what this one always has. `of` makes a reference.
    fn envelope(&self, of: &impl Fn(&str) -> Json) -> Json {
        let numbers: Vec<_> = self
            .severities
            .iter()
            .map(|severity| cloudevents::severity(*severity).1)
            .collect();
        let dataschema = match self.data {
            Content::Rule => cloudevents::RULE_SCHEMA,
            Content::Gateway(_) => cloudevents::GATEWAY_SCHEMA,
        };
        let mut own = serde_json::json!({
            "type": { "const": &*self.kind },
            "dataschema": { "const": dataschema },
            "severitynumber": { "enum": numbers },
            "data": of(&self.data.name()),
        });
        if !self.transitions.is_empty()
            && let Some(own) = own.as_object_mut()
        {
            let transitions: Vec<_> = self.transitions.iter().copied().map(topic::transition).collect();
            own.insert(
                "transition".to_owned(),
                serde_json::json!({ "enum": transitions }),
            );
        }
        let mut required = vec!["data"];
        if !self.transitions.is_empty() {
            required.push("transition");
        }
        if self.example.event.draft.correlation.is_some() {
            required.push("correlationid");
        }
        serde_json::json!({
            "title": &*self.name,
            "description": self.meaning,
            "allOf": [of(ATTRIBUTES)],
            "type": "object",
            "properties": own,
            "required": required,
        })
    }
}

/// The name of the attributes' schema in a document.
const ATTRIBUTES: &str = "Attributes";

/// Each schema that events share or have, once: name and schema.
fn schemas(catalog: &Catalog) -> serde_json::Map<String, Json> {
    let mut schemas = serde_json::Map::new();
    schemas.insert(ATTRIBUTES.to_owned(), schema::attributes());
    for event in &catalog.events {
        schemas
            .entry(event.data.name())
            .or_insert_with(|| event.data.schema());
    }
    schemas
}

fn words(severities: &[Severity]) -> String {
    let words: Vec<_> = severities.iter().copied().map(Severity::as_str).collect();
    words.join(", ")
}
