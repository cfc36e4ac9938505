//! The gateway's own events in the catalog.

use std::sync::Arc;

use super::{Content, Described, Level, example};
use crate::{
    config::Config,
    event::{
        cloudevents::topic,
        gateway::{FACTS, Fact, PREFIX, Shape},
    },
};

/// Those that are not off, and that this configuration gives cause for.
pub(super) fn events(config: &Config) -> Vec<Described> {
    let on = |fact: &&'static Fact| !config.events.off.iter().any(|off| off == fact.name);
    FACTS
        .iter()
        .filter(on)
        .filter(|fact| has_cause(config, fact.name))
        .map(|fact| described(config, fact))
        .collect()
}

/// Whether there is what it is about.
fn has_cause(config: &Config, name: &str) -> bool {
    match name {
        "GatewayAlive" => config.events.heartbeat.is_some(),
        "SourceFailed" | "SourceRecovered" => !config.serial.is_empty(),
        "DeviceConnected" | "DeviceDisconnected" => {
            config.mqtt.is_some() && config.devices.iter().any(|device| !device.id.0.contains('*'))
        }
        "UplinkLost" | "UplinkRestored" | "EventSetAside" => config.sinks.terms().next().is_some(),
        _ => true,
    }
}

fn described(config: &Config, fact: &'static Fact) -> Described {
    let about = about(fact);
    let device = match about.as_slice() {
        [] => Level::Fixed(Arc::clone(&config.gateway.id)),
        names => Level::Varies(format!("the {}'s name", names.join("'s or the "))),
    };
    Described {
        name: fact.name.into(),
        kind: format!("{PREFIX}{}", fact.name).into(),
        meaning: fact.about.trim().replace("\n ", "\n"),
        severities: vec![fact.severity],
        transitions: Vec::new(),
        device,
        metric: Level::Fixed(topic::ABSENT.into()),
        data: Content::Gateway(fact),
        example: example::gateway(config, fact, about.first().copied()),
    }
}

/// What it is about is a member of its own, one of these; without any it is about the gateway.
fn about(fact: &Fact) -> Vec<&'static str> {
    let text = |shape: Shape| matches!(shape, Shape::Text | Shape::Maybe(Shape::Text));
    ["device", "source", "sink", "rule"]
        .into_iter()
        .filter(|name| {
            fact.fields
                .iter()
                .any(|field| field.name == *name && text(field.shape))
        })
        .collect()
}
