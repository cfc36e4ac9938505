//! What the engine says: an episode as an event, and its one line for people.

use std::sync::Arc;

use super::{
    latch::Episode,
    plan::{About, Plan},
};
use crate::{
    event::{Data, Draft, EpisodeFacts, Reason, RuleData, RuleFacts, Transition},
    reading::{Metric, Value},
    rule::Test,
    time::EngineTime,
};

/// All that an event of an episode quotes.
pub(super) struct Report<'a> {
    pub about: &'a About,
    pub metric: &'a Metric,
    pub unit: Option<&'a Arc<str>>,
    pub value: Option<&'a Value>,
    pub facts: &'a Arc<RuleFacts>,
    /// The rule as it is now; none if it was removed.
    pub plan: Option<&'a Plan>,
    pub episode: &'a Episode,
    pub transition: Transition,
    pub reason: Option<Reason>,
    pub at: EngineTime,
}

impl Report<'_> {
    pub(super) fn draft(&self) -> Draft {
        let episode = self.episode;
        let name = match self.transition {
            Transition::Cleared => &episode.cleared_event,
            Transition::Raised | Transition::Reminded | Transition::Changed => &episode.event,
        };
        let device = &self.about.device;
        let data = RuleData {
            summary: self.summary(),
            device: device.clone(),
            device_name: self.about.name.clone(),
            device_labels: Arc::clone(&self.about.labels),
            metric: Some(self.metric.clone()),
            unit: self.unit.cloned(),
            value: self.value.cloned(),
            rule: Arc::clone(self.facts),
            episode: EpisodeFacts {
                id: episode.id,
                since: episode.run.since,
                raised_at: episode.raised_at,
                duration_ms: u64::try_from(self.at.since(episode.run.since).as_millis()).unwrap_or(u64::MAX),
                min: episode.run.min,
                max: episode.run.max,
                readings: episode.run.readings,
                reminder: 0,
                flaps: episode.flaps,
                reason: self.reason,
            },
            window: None,
            conditions: Vec::new(),
        };
        Draft {
            kind: format!("{}{name}", episode.type_prefix).into(),
            name: Arc::clone(name),
            subject: format!("{device}/{}", self.metric).into(),
            about: device.as_str().into(),
            severity: episode.severity,
            at: self.at,
            transition: Some(self.transition),
            correlation: Some(episode.id.to_string().into()),
            data: Data::Rule(Box::new(data)),
        }
    }

    fn summary(&self) -> String {
        let value = self.value.map_or_else(|| "unknown".to_owned(), shown);
        let measured = self
            .unit
            .map_or_else(|| value.clone(), |unit| format!("{value} {unit}"));
        let what = format!("{}: {}", self.about.device, self.metric);
        let (threshold, wording) = self.plan.map_or_else(Default::default, |plan| {
            (threshold(&plan.condition), wording(&plan.condition))
        });
        match (self.transition, self.reason) {
            (Transition::Cleared, Some(Reason::RuleChanged)) => {
                format!("{what} is {measured}, no alarm any more: the rule was changed")
            }
            (Transition::Cleared, Some(Reason::RuleRemoved)) => {
                format!("{what} is {measured}, no alarm any more: the rule was removed")
            }
            (Transition::Cleared, Some(Reason::DeviceRemoved)) => {
                format!("{what} is {measured}, no alarm any more: the device was removed")
            }
            (Transition::Cleared, Some(Reason::OutOfPeriod)) => {
                format!("{what} is {measured}, no alarm any more: out of period")
            }
            (Transition::Cleared, Some(Reason::Suppressed)) => {
                format!("{what} is {measured}, no alarm any more: suppressed")
            }
            (Transition::Cleared, Some(Reason::Muted)) => {
                format!("{what} is {measured}, no alarm any more: muted")
            }
            (Transition::Cleared, _) => format!("{what} is back to normal: {measured}"),
            (Transition::Changed, _) => format!("{what} is {measured}, still an alarm: {wording}{threshold}"),
            (Transition::Raised | Transition::Reminded, _) => {
                match self.plan.and_then(|plan| plan.rule.summary.as_ref()) {
                    Some(template) => self.filled(template, &value, &threshold),
                    None if wording.is_empty() => format!("{what} is {measured}"),
                    None => format!("{what} is {measured}, {wording}{threshold}"),
                }
            }
        }
    }

    /// The rule's own text. One pass, so that a value that looks like a placeholder stays what it is.
    fn filled(&self, template: &str, value: &str, threshold: &str) -> String {
        let unit = self.unit.map_or("", |unit| unit.as_ref());
        let mut text = String::with_capacity(template.len() + 64);
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('{') {
            text.push_str(before);
            let known = after.split_once('}').and_then(|(name, after)| {
                let filling = match name {
                    "device" => self.about.device.as_str(),
                    "metric" => self.metric.as_str(),
                    "value" => value,
                    "unit" => unit,
                    "threshold" => threshold,
                    _ => return None,
                };
                Some((name, filling, after))
            });
            let Some((name, filling, after)) = known else {
                text.push('{');
                rest = after;
                continue;
            };
            // "31.2 {unit}, above" without a unit must not leave the blank before the comma.
            if name == "unit" && unit.is_empty() && text.ends_with(' ') {
                text.pop();
            }
            text.push_str(filling);
            rest = after;
        }
        text.push_str(rest);
        text
    }
}

fn wording(condition: &Test) -> &'static str {
    match condition {
        Test::Above { .. } => "above ",
        Test::Below { .. } => "below ",
        Test::Outside { .. } => "outside ",
        Test::Inside { .. } => "inside ",
        // The value says it all: "contact is open".
        Test::Equals(_) => "",
        Test::NotEquals(_) => "not ",
        Test::RisesBy { .. } => "rising by ",
        Test::FallsBy { .. } => "falling by ",
    }
}

fn threshold(condition: &Test) -> String {
    match condition {
        Test::Above { threshold, .. } | Test::Below { threshold, .. } => shown_number(*threshold),
        Test::Outside { lo, hi, .. } | Test::Inside { lo, hi, .. } => {
            format!("{} to {}", shown_number(*lo), shown_number(*hi))
        }
        Test::Equals(value) | Test::NotEquals(value) => shown(value),
        Test::RisesBy { by, .. } | Test::FallsBy { by, .. } => shown_number(*by),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Bool(on) => on.to_string(),
        Value::Number(number) => shown_number(*number),
        Value::Text(text) => text.to_string(),
    }
}

/// Plain digits where people read them, an exponent where there would be dozens.
fn shown_number(number: f64) -> String {
    let size = number.abs();
    if size != 0.0 && !(1e-6..1e15).contains(&size) {
        format!("{number:e}")
    } else {
        number.to_string()
    }
}
