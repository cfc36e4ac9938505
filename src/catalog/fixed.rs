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

/// Those that are not off.
pub(super) fn events(config: &Config) -> Vec<Described> {
    let on = |fact: &&'static Fact| !config.events.off.iter().any(|off| off == fact.name);
    FACTS
        .iter()
        .filter(on)
        .map(|fact| described(config, fact))
        .collect()
}

fn described(config: &Config, fact: &'static Fact) -> Described {
    let device = match subject(fact) {
        Some(whose) => Level::Varies(format!("the {whose}'s name")),
        None => Level::Fixed(Arc::clone(&config.gateway.id)),
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
        example: example::gateway(config, fact, subject(fact)),
    }
}

/// What it is about is a member of its own; without one, the gateway.
fn subject(fact: &Fact) -> Option<&'static str> {
    let mut subjects = ["device", "source", "sink"].into_iter();
    subjects.find(|name| {
        let mut fields = fact.fields.iter();
        fields.any(|field| field.name == *name && matches!(field.shape, Shape::Text))
    })
}
