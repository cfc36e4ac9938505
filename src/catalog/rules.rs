//! The events of rules in the catalog.

use std::{fmt::Write, sync::Arc};

use super::{Content, Described, Level, example};
use crate::{
    config::Config,
    event::{Severity, Transition, cloudevents::topic},
    rule::Rule,
};

/// Two for each rule; rules that share an event's name share the entry.
pub(super) fn events(config: &Config) -> Vec<Described> {
    let mut events: Vec<Described> = Vec::new();
    for rule in &config.rules {
        for event in [begins(config, rule), ends(config, rule)] {
            match events.iter_mut().find(|other| other.kind == event.kind) {
                Some(other) => merge(other, event),
                None => events.push(event),
            }
        }
    }
    events
}

fn merge(into: &mut Described, other: Described) {
    into.meaning = format!("{}\n{}", into.meaning, other.meaning);
    for severity in other.severities {
        if !into.severities.contains(&severity) {
            into.severities.push(severity);
        }
    }
    for (level, other) in [(&mut into.device, other.device), (&mut into.metric, other.metric)] {
        if *level != other {
            *level = Level::Varies(format!("{}; {}", level.described(), other.described()));
        }
    }
}

fn begins(config: &Config, rule: &Rule) -> Described {
    let raised = [Transition::Raised, Transition::Reminded, Transition::Changed];
    described(config, rule, &rule.event, raised.to_vec(), "Begins, or goes on")
}

fn ends(config: &Config, rule: &Rule) -> Described {
    described(
        config,
        rule,
        &rule.cleared_event,
        vec![Transition::Cleared],
        "Ends",
    )
}

fn described(
    config: &Config,
    rule: &Rule,
    name: &Arc<str>,
    transitions: Vec<Transition>,
    what: &str,
) -> Described {
    let mut meaning = format!("{what}: {}", condition(rule));
    if let Some(runbook) = &rule.runbook {
        _ = write!(meaning, " What to do: {runbook}");
    }
    let devices: Vec<_> = rule.devices.iter().map(|pattern| &*pattern.0).collect();
    let example = example::rule(config, rule, transitions.contains(&Transition::Cleared));
    Described {
        name: Arc::clone(name),
        kind: format!("{}{name}", rule.type_prefix).into(),
        meaning,
        severities: severities(rule),
        transitions,
        device: Level::Varies(format!("the device's id: {}", devices.join(", "))),
        metric: rule.metric().map_or_else(
            || Level::Fixed(topic::ABSENT.into()),
            |metric| Level::Fixed(metric.as_str().into()),
        ),
        data: Content::Rule,
        example,
    }
}

/// In the configuration's words: `above = 30.0, clear = 28.0`.
fn condition(rule: &Rule) -> String {
    let params = example::params(rule);
    let params: Vec<_> = params
        .iter()
        .map(|(key, value)| format!("{key} = {value}"))
        .collect();
    let watched = rule
        .metric()
        .map_or_else(String::new, |metric| format!(" of {metric}"));
    format!(
        "rule {}, {}{watched}: {}.",
        rule.name,
        rule.condition.kind(),
        params.join(", ")
    )
}

fn severities(rule: &Rule) -> Vec<Severity> {
    let mut severities = vec![rule.severity];
    for severity in rule.overrides.iter().filter_map(|over| over.severity) {
        if !severities.contains(&severity) {
            severities.push(severity);
        }
    }
    severities
}
