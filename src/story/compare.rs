//! What a story expected against what came: complete, and a field only where it is written.

use std::fmt::{self, Write};

use super::{At, Expected, Fact, Said, Story};
use crate::{
    event::{Data, RuleData, Transition},
    reading::Value,
};

/// What a field of an event is called in a story, as far as it can be expected.
pub(super) const FACTS: &[&str] = &[
    "value",
    "unit",
    "metric",
    "rule",
    "severity",
    "transition",
    "reason",
    "summary",
    "episode",
    "since",
    "duration",
    "min",
    "max",
    "readings",
    "reminder",
    "flaps",
    "count",
    "span",
    "approximate",
];

/// One line of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Expected, and it came.
    Same(String),
    /// Expected, and it did not come.
    Missing(String),
    /// It came, and nobody expected it.
    Unexpected(String),
}

impl fmt::Display for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same(text) => write!(formatter, "  {text}"),
            Self::Missing(text) => write!(formatter, "- {text}"),
            Self::Unexpected(text) => write!(formatter, "+ {text}"),
        }
    }
}

/// How a story went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// All events, expected or not, in order of time.
    pub lines: Vec<Line>,
}

impl Verdict {
    /// Whether all came that was expected, and nothing else.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.lines.iter().all(|line| matches!(line, Line::Same(_)))
    }
}

impl Story {
    /// Whether the story looks at what this rule says. What is no rule's is always looked at.
    fn is_about(&self, said: &Said) -> bool {
        match &said.draft.data {
            Data::Rule(data) => {
                self.only.is_empty() || self.only.iter().any(|name| **name == *data.rule.name)
            }
            Data::Gateway(_) => true,
        }
    }

    /// Compares what was said with what was expected. The order of events of one time does not matter.
    #[must_use]
    pub fn judge(&self, said: &[Said]) -> Verdict {
        let mut left: Vec<&Said> = said.iter().filter(|said| self.is_about(said)).collect();
        let mut lines: Vec<(At, Line)> = Vec::new();
        let mut missing: Vec<&Expected> = Vec::new();
        for expected in &self.expected {
            match left.iter().position(|said| expected.is_met(said)) {
                Some(index) => {
                    left.remove(index);
                    lines.push((expected.at, Line::Same(expected.to_string())));
                }
                None => missing.push(expected),
            }
        }
        for expected in &missing {
            lines.push((expected.at, Line::Missing(expected.to_string())));
        }
        for said in left {
            // Beside an event that was expected otherwise, the same fields are shown.
            let near = missing
                .iter()
                .find(|expected| *expected.event == *said.draft.name);
            lines.push((said.at, Line::Unexpected(said.shown(near.copied()))));
        }
        lines.sort_by_key(|(at, _)| *at);
        Verdict {
            lines: lines.into_iter().map(|(_, line)| line).collect(),
        }
    }
}

impl Expected {
    fn is_met(&self, said: &Said) -> bool {
        let draft = &said.draft;
        // A reminder is never meant by the name alone.
        let plain = matches!(
            draft.transition,
            None | Some(Transition::Raised | Transition::Cleared)
        );
        self.at == said.at
            && *self.event == *draft.name
            && (plain || self.facts.iter().any(|(key, _)| *key == "transition"))
            && self.device.as_ref().is_none_or(|device| **device == *draft.about)
            && self
                .facts
                .iter()
                .all(|(key, wanted)| said.fact(key).as_ref() == Some(wanted))
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:>6}  {}", self.at.to_string(), self.event)?;
        if let Some(device) = &self.device {
            write!(formatter, "  {device}")?;
        }
        for (key, wanted) in &self.facts {
            write!(formatter, "  {key} {wanted}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Said {
    /// All that a story can expect of it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:>6}  {}  {}",
            self.at.to_string(),
            self.draft.name,
            self.draft.about
        )?;
        for key in FACTS {
            if let Some(fact) = self.fact(key) {
                write!(formatter, "  {key} {fact}")?;
            }
        }
        Ok(())
    }
}

impl Said {
    /// One line: what the expectation that it misses names, or what tells it from others.
    fn shown(&self, near: Option<&Expected>) -> String {
        let draft = &self.draft;
        let mut text = format!("{:>6}  {}  {}", self.at.to_string(), draft.name, draft.about);
        let mut keys: Vec<&str> = near
            .map(|near| near.facts.iter().map(|(key, _)| *key).collect())
            .unwrap_or_default();
        if keys.is_empty() {
            keys.push("value");
        }
        let plain = matches!(
            draft.transition,
            None | Some(Transition::Raised | Transition::Cleared)
        );
        if !plain {
            keys.push("transition");
        }
        if self
            .fact("reason")
            .is_some_and(|reason| reason != Fact::Text("back-to-normal".into()))
        {
            keys.push("reason");
        }
        let mut shown: Vec<&str> = Vec::new();
        for key in keys {
            if let Some(fact) = self.fact(key).filter(|_| !shown.contains(&key)) {
                // A text takes all that is written.
                write!(text, "  {key} {fact}").ok();
                shown.push(key);
            }
        }
        text
    }

    /// The events of one episode share its number.
    fn fact(&self, key: &str) -> Option<Fact> {
        let draft = &self.draft;
        match key {
            "severity" => return word(&draft.severity),
            "transition" => return word(&draft.transition?),
            _ => {}
        }
        match &draft.data {
            Data::Rule(data) => self.rule_fact(data, key),
            Data::Gateway(data) => match data.get(key)? {
                serde_json::Value::Bool(flag) => Some(Fact::Flag(*flag)),
                serde_json::Value::Number(number) => number.as_f64().map(Fact::Number),
                serde_json::Value::String(text) => Some(Fact::Text(text.clone())),
                _ => None,
            },
        }
    }

    fn rule_fact(&self, data: &RuleData, key: &str) -> Option<Fact> {
        let episode = &data.episode;
        let count = |count: u64| u32::try_from(count).ok().map(|count| Fact::Number(count.into()));
        match key {
            "value" => data.value.as_ref().map(value),
            "unit" => data.unit.as_ref().map(|unit| Fact::Text(unit.to_string())),
            "metric" => data.metric.as_ref().map(|metric| Fact::Text(metric.to_string())),
            "count" => count(data.window.as_ref()?.count),
            "span" => Some(Fact::Text(millis(data.window.as_ref()?.span_ms)?)),
            "approximate" => Some(Fact::Flag(data.window.as_ref()?.approximate)),
            "rule" => Some(Fact::Text(data.rule.name.to_string())),
            "reason" => word(&episode.reason?),
            "summary" => Some(Fact::Text(data.summary.clone())),
            "episode" => count(episode.id.number),
            "since" => Some(Fact::Text(At(episode.since.0 + self.booted.0).to_string())),
            "duration" => Some(Fact::Text(millis(episode.duration_ms)?)),
            "min" => episode.min.map(Fact::Number),
            "max" => episode.max.map(Fact::Number),
            "readings" => count(episode.readings),
            "reminder" => count(episode.reminder.into()),
            "flaps" => count(episode.flaps.into()),
            _ => None,
        }
    }
}

fn millis(length: u64) -> Option<String> {
    let micros = i64::try_from(length).ok()?.checked_mul(1000)?;
    Some(At(micros).to_string())
}

fn value(value: &Value) -> Fact {
    match value {
        Value::Bool(flag) => Fact::Flag(*flag),
        Value::Number(number) => Fact::Number(*number),
        Value::Text(text) => Fact::Text(text.to_string()),
    }
}

/// The word by which an enumeration stands in JSON.
fn word(value: &impl serde::Serialize) -> Option<Fact> {
    match serde_json::to_value(value).ok()? {
        serde_json::Value::String(word) => Some(Fact::Text(word)),
        _ => None,
    }
}
