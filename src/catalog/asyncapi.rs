//! The catalog as an AsyncAPI 3.0 document. JSON, which is YAML too: tools for either read it.

use serde_json::{Map, Value as Json, json};

use super::{Catalog, Described, Level, Outlet, Wire, schemas, words};
use crate::event::{
    cloudevents::{Encoding, Form, Mode, topic},
    schema::user_properties,
};

/// One channel for each topic of each outlet, one message for each event in each form that is in use.
#[must_use]
pub fn asyncapi(catalog: &Catalog) -> Json {
    let mut document = Document::default();
    for outlet in &catalog.outlets {
        document.outlet(catalog, outlet);
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": format!("Events of {}", catalog.gateway),
            "version": catalog.version,
            "description": "What this gateway can say, from its configuration. CloudEvents 1.0; docs/events.md of \
                            tidegate is the contract. Receivers ignore what they do not know.",
        },
        "defaultContentType": content_type(Form::default()),
        "servers": document.servers,
        "channels": document.channels,
        "operations": document.operations,
        "components": { "messages": document.messages, "schemas": schemas(catalog) },
    })
}

#[derive(Default)]
struct Document {
    servers: Map<String, Json>,
    channels: Map<String, Json>,
    operations: Map<String, Json>,
    messages: Map<String, Json>,
}

impl Document {
    fn outlet(&mut self, catalog: &Catalog, outlet: &Outlet) {
        let (protocol, version) = match &outlet.wire {
            Wire::Mqtt { version, .. } if outlet.tls => ("secure-mqtt", Some(version)),
            Wire::Mqtt { version, .. } => ("mqtt", Some(version)),
            Wire::Http { .. } if outlet.tls => ("https", None),
            Wire::Http { .. } => ("http", None),
        };
        let mut server = Map::new();
        server.insert("host".to_owned(), json!(outlet.host));
        server.insert("protocol".to_owned(), json!(protocol));
        server.extend(version.map(|version| ("protocolVersion".to_owned(), json!(version))));
        server.insert("description".to_owned(), json!(outlet.about));
        self.servers.insert(outlet.key.clone(), Json::Object(server));
        for (address, events) in by_address(catalog, outlet) {
            let key = match events.as_slice() {
                [one] => format!("{}.{}", outlet.key, one.name),
                _ => self.free(&format!("{}.events", outlet.key)),
            };
            self.channel(&key, address.as_deref(), outlet, &events);
        }
    }

    /// `cloud.events`; with another topic for several events, `cloud.events-2`.
    fn free(&self, key: &str) -> String {
        let taken = |key: &String| self.channels.contains_key(key);
        let numbered = (2..).map(|number| format!("{key}-{number}"));
        let mut keys = std::iter::once(key.to_owned()).chain(numbered);
        keys.find(|key| !taken(key)).unwrap_or_default()
    }

    /// Without an address it is known to whoever runs the receiver only: AsyncAPI's null.
    fn channel(&mut self, key: &str, address: Option<&str>, outlet: &Outlet, events: &[&Described]) {
        let mut messages = Map::new();
        for event in events {
            let name = message_name(event, outlet);
            messages.insert(
                event.name.to_string(),
                json!({ "$ref": format!("#/components/messages/{name}") }),
            );
            self.messages
                .entry(name)
                .or_insert_with(|| message(event, outlet));
        }
        let references: Vec<_> = messages
            .keys()
            .map(|name| json!({ "$ref": format!("#/channels/{key}/messages/{name}") }))
            .collect();
        let bindings = match outlet.wire {
            Wire::Mqtt { .. } => json!({ "mqtt": { "qos": 1, "retain": false, "bindingVersion": "0.2.0" } }),
            Wire::Http { .. } => json!({ "http": { "method": "POST", "bindingVersion": "0.3.0" } }),
        };
        let operation = json!({
            "action": "send",
            "channel": { "$ref": format!("#/channels/{key}") },
            "messages": references,
            "bindings": bindings,
        });
        self.operations.insert(format!("send.{key}"), operation);
        let channel = json!({
            "address": address,
            "servers": [{ "$ref": format!("#/servers/{}", outlet.key) }],
            "parameters": parameters(address.unwrap_or_default(), events),
            "messages": messages,
        });
        self.channels.insert(key.to_owned(), channel);
    }
}

/// The topics of an outlet, in the order of the events, each with those that go there.
fn by_address<'c>(catalog: &'c Catalog, outlet: &Outlet) -> Vec<(Option<String>, Vec<&'c Described>)> {
    let mut channels: Vec<(Option<String>, Vec<&Described>)> = Vec::new();
    for event in outlet.described(catalog) {
        let address = outlet.topic(catalog, event);
        match channels.iter_mut().find(|(other, _)| *other == address) {
            Some((_, events)) => events.push(event),
            None => channels.push((address, vec![event])),
        }
    }
    channels
}

/// What is left in braces.
fn parameters(address: &str, events: &[&Described]) -> Map<String, Json> {
    let left = ["device", "metric", "severity", "transition"]
        .into_iter()
        .filter(|key| address.contains(&format!("{{{key}}}")));
    left.map(|key| {
        let mut each: Vec<String> = Vec::new();
        for said in events.iter().filter_map(|event| said(key, event)) {
            if !each.contains(&said) {
                each.push(said);
            }
        }
        (key.to_owned(), json!({ "description": each.join("; ") }))
    })
    .collect()
}

fn said(key: &str, event: &Described) -> Option<String> {
    match key {
        "device" => Some(varying(&event.device)?.to_owned()),
        "metric" => Some(varying(&event.metric)?.to_owned()),
        "severity" => Some(words(&event.severities)),
        _ => {
            let words: Vec<_> = event.transitions.iter().copied().map(topic::transition).collect();
            Some(words.join(", "))
        }
    }
}

fn varying(level: &Level) -> Option<&str> {
    match level {
        Level::Fixed(_) => None,
        Level::Varies(what) => Some(what),
    }
}

fn message_name(event: &Described, outlet: &Outlet) -> String {
    let Form { encoding, mode } = outlet.form;
    let mode = if mode == Mode::Binary { ".binary" } else { "" };
    let encoding = if encoding == Encoding::Cbor { ".cbor" } else { "" };
    // The same words, with other headers.
    let wire = match outlet.wire {
        Wire::Mqtt { .. } => "",
        Wire::Http { batch: None } => ".http",
        Wire::Http { batch: Some(_) } => ".batch",
    };
    format!("{}{mode}{encoding}{wire}", event.name)
}

fn content_type(form: Form) -> &'static str {
    match (form.mode, form.encoding) {
        (Mode::Structured, Encoding::Json) => "application/cloudevents+json",
        (Mode::Structured, Encoding::Cbor) => "application/cloudevents+cbor",
        (Mode::Binary, Encoding::Json) => "application/json",
        (Mode::Binary, Encoding::Cbor) => "application/cbor",
    }
}

fn message(event: &Described, outlet: &Outlet) -> Json {
    let form = outlet.form;
    let reference = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    let (attributes, mut payload) = event.sent(form);
    let (mut schema, headers) = match form.mode {
        Mode::Structured => (event.envelope(&reference), None),
        Mode::Binary => (reference(&event.data.name()), Some(user_properties())),
    };
    let mut content_type = content_type(form);
    if let Wire::Http { batch: Some(most) } = outlet.wire {
        content_type = "application/cloudevents-batch+json";
        schema = json!({ "type": "array", "minItems": 1, "maxItems": most, "contains": schema });
        payload = json!([payload]);
    }
    let mut example = Map::new();
    example.insert("name".to_owned(), json!(&*event.name));
    example.insert("payload".to_owned(), payload);
    let mut message = Map::new();
    if let Some(headers) = headers {
        // The HTTP binding writes `ce-` before an attribute's name.
        let prefix = match outlet.wire {
            Wire::Mqtt { .. } => "",
            Wire::Http { .. } => "ce-",
        };
        let attributes = attributes.into_iter();
        let attributes = attributes.map(|(name, value)| (format!("{prefix}{name}"), value.into()));
        example.insert("headers".to_owned(), Json::Object(attributes.collect()));
        message.insert("headers".to_owned(), with_prefix(headers, prefix));
    }
    let tags = event
        .severities
        .iter()
        .map(|severity| json!({ "name": severity.as_str() }));
    for (name, value) in [
        ("name", json!(&*event.kind)),
        ("title", json!(&*event.name)),
        ("summary", json!(event.meaning.lines().next().unwrap_or_default())),
        ("description", json!(event.meaning)),
        ("contentType", json!(content_type)),
        ("tags", tags.collect()),
        ("payload", schema),
        ("examples", json!([example])),
    ] {
        message.insert(name.to_owned(), value);
    }
    Json::Object(message)
}

/// An object's schema, each member under a longer name.
fn with_prefix(mut schema: Json, prefix: &str) -> Json {
    if let Some(Json::Object(members)) = schema.get_mut("properties") {
        let named = std::mem::take(members).into_iter();
        *members = named
            .map(|(name, member)| (format!("{prefix}{name}"), member))
            .collect();
    }
    if let Some(Json::Array(required)) = schema.get_mut("required") {
        for name in required {
            *name = format!("{prefix}{}", name.as_str().unwrap_or_default()).into();
        }
    }
    schema
}
