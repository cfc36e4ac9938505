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
        Draft, Entry, Sequence, Severity, Transition,
        cloudevents::{self, Encoding, Form, topic},
        gateway::Fact,
        schema,
    },
    forward::{self, Terms, filter::Filter},
    source::mqtt::Settings as Door,
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
    /// How an event travels there.
    pub wire: Wire,
    /// What an event looks like there.
    pub form: Form,
    /// Who gets it.
    pub about: String,
    /// The names of the events that may come there, in the catalog's order.
    pub events: Vec<Arc<str>>,
}

/// The protocol of an outlet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wire {
    /// A publish.
    Mqtt {
        /// As AsyncAPI writes it.
        version: &'static str,
        /// With its placeholders.
        topic: String,
    },
    /// A POST to a URL that is not told, for many are a secret; with several events in one if so many are given.
    Http {
        /// Of the batched mode.
        batch: Option<usize>,
    },
}

impl Catalog {
    /// What a gateway with this configuration can say.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let mut events = rules::events(config);
        events.extend(fixed::events(config));
        let mut outlets: Vec<_> = config.sinks.mqtt.iter().map(|sink| mqtt(sink, &events)).collect();
        outlets.extend(config.sinks.http.iter().map(|sink| http(sink, &events)));
        outlets.extend(config.mqtt.iter().filter_map(|settings| door(settings, &events)));
        Self {
            gateway: Arc::clone(&config.gateway.id),
            version: env!("CARGO_PKG_VERSION"),
            events,
            outlets,
        }
    }
}

fn mqtt(sink: &forward::mqtt::Settings, events: &[Described]) -> Outlet {
    Outlet {
        key: format!("sink.{}", sink.terms.name),
        host: format!("{}:{}", sink.host, sink.port),
        tls: sink.tls,
        wire: Wire::Mqtt {
            version: match sink.version {
                forward::mqtt::Version::V5 => "5.0",
                forward::mqtt::Version::V311 => "3.1.1",
            },
            topic: sink.topic.clone(),
        },
        form: sink.form,
        about: format!(
            "[[sink.mqtt]] {}: at least once, QoS 1, first sends in the order of their sequence.",
            sink.terms.name
        ),
        events: passing(&sink.terms, events),
    }
}

fn http(sink: &forward::http::Settings, events: &[Described]) -> Outlet {
    use forward::http::Mode;

    Outlet {
        key: format!("sink.{}", sink.terms.name),
        host: sink.address.authority.clone(),
        tls: sink.address.tls,
        wire: Wire::Http {
            batch: (sink.mode == Mode::Batched).then_some(sink.batch),
        },
        form: Form {
            encoding: Encoding::Json,
            mode: match sink.mode {
                Mode::Binary => cloudevents::Mode::Binary,
                Mode::Structured | Mode::Batched => cloudevents::Mode::Structured,
            },
        },
        about: format!(
            "[[sink.http]] {}: at least once, by POST, first sends in the order of their sequence. 2xx is a delivery.",
            sink.terms.name
        ),
        events: passing(&sink.terms, events),
    }
}

fn door(door: &Door, events: &[Described]) -> Option<Outlet> {
    let listen: Vec<_> = door.listen.iter().map(ToString::to_string).collect();
    Some(Outlet {
        key: "door".to_owned(),
        host: listen.first()?.clone(),
        tls: false,
        wire: Wire::Mqtt {
            version: "5.0",
            topic: topic::DOOR.to_owned(),
        },
        form: Form::default(),
        about: format!(
            "The gateway's own door at {}, MQTT 3.1.1 too: best effort, also while there is no uplink.",
            listen.join(", ")
        ),
        events: events.iter().map(|event| Arc::clone(&event.name)).collect(),
    })
}

/// The events of which some may pass a sink's filter: for some device, in the worst severity that they have.
fn passing(terms: &Terms, events: &[Described]) -> Vec<Arc<str>> {
    let filter = Filter {
        devices: Filter::default().devices,
        ..terms.filter.clone()
    };
    let passes = |event: &&Described| {
        let draft = Draft {
            severity: event.severities.iter().copied().max().unwrap_or(Severity::Info),
            ..event.example.event.draft.clone()
        };
        // The example names some sink; the event comes to the one that it names.
        ALWAYS.contains(&&*event.name) || filter.passes(&terms.name, &draft)
    };
    let names = events.iter().filter(passes).map(|event| Arc::clone(&event.name));
    names.collect()
}

/// What no filter keeps from the sink that it is about.
const ALWAYS: [&str; 2] = ["EventsDiscarded", "EventSetAside"];

impl Outlet {
    /// The events that may come here.
    fn described<'c>(&self, catalog: &'c Catalog) -> impl Iterator<Item = &'c Described> {
        let events = catalog.events.iter();
        events.filter(|event| self.events.contains(&event.name))
    }

    /// The topic of an event here; what is not known before it stays in braces. None for a webhook.
    fn topic(&self, catalog: &Catalog, event: &Described) -> Option<String> {
        let Wire::Mqtt { topic, .. } = &self.wire else {
            return None;
        };
        Some(topic::fill(topic, |key| match key {
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
        }))
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
