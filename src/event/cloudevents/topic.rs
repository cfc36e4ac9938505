//! The topic an event goes to.

use crate::{
    event::{Data, Entry, Event, Transition},
    reading::Metric,
};

/// The topic on the gateway's own door (docs/events.md); fixed, unlike a sink's.
pub const DOOR: &str = "tidegate/{gateway}/events/{event}/{device}";
/// What stands in a topic for a metric or a transition that an event has not: an empty level would be lost
/// on many a reader.
pub const ABSENT: &str = "none";

/// The topic of an event: `{gateway} {event} {device} {metric} {severity} {transition}` filled in. What a
/// topic cannot hold (`/`, `+`, `#`, control characters) becomes `_`, so a name is always exactly one level.
#[must_use]
pub fn topic(template: &str, entry: &Entry) -> String {
    fill(template, |key| Some(placeholder(key, &entry.event)))
}

/// The same with what `value` says of each placeholder; one of which it says nothing stays in its braces.
#[must_use]
pub fn fill<'v>(template: &str, value: impl Fn(&str) -> Option<&'v str>) -> String {
    let mut topic = String::with_capacity(template.len() + 64);
    let mut rest = template;
    while let Some((literal, tail)) = rest.split_once('{') {
        topic.push_str(literal);
        let Some((key, after)) = tail.split_once('}') else {
            // Not a placeholder after all: the configuration has refused this already.
            rest = tail;
            continue;
        };
        match value(key) {
            Some(level) => push_level(&mut topic, level),
            None => topic.extend(["{", key, "}"]),
        }
        rest = after;
    }
    topic.push_str(rest);
    if topic.starts_with('$') {
        // `$…` belongs to the broker: a device called `$SYS` must not write there.
        topic.replace_range(..1, "_");
    }
    topic
}

fn placeholder<'a>(key: &str, event: &'a Event) -> &'a str {
    let draft = &event.draft;
    match key {
        "gateway" => &event.origin.gateway,
        "event" => &draft.name,
        "device" => &draft.about,
        "metric" => match &draft.data {
            Data::Rule(data) => data.metric.as_ref().map_or(ABSENT, Metric::as_str),
            Data::Gateway(_) => ABSENT,
        },
        "severity" => draft.severity.as_str(),
        "transition" => draft.transition.map_or(ABSENT, transition),
        // The configuration has refused any other key.
        _ => "",
    }
}

/// As topics and the attribute write it.
#[must_use]
pub fn transition(transition: Transition) -> &'static str {
    match transition {
        Transition::Raised => "raised",
        Transition::Reminded => "reminded",
        Transition::Changed => "changed",
        Transition::Cleared => "cleared",
    }
}

fn push_level(topic: &mut String, level: &str) {
    if level.is_empty() {
        topic.push('_');
    }
    let is_illegal = |character: char| character.is_control() || matches!(character, '/' | '+' | '#');
    if !level.contains(is_illegal) {
        topic.push_str(level);
        return;
    }
    for character in level.chars() {
        topic.push(if is_illegal(character) { '_' } else { character });
    }
}
