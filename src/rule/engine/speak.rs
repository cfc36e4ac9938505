//! What the engine says: an episode as an event, and its one line for people.

use std::{sync::Arc, time::Duration};

use super::{
    Engine,
    latch::Episode,
    look::is_stale,
    plan::{About, Plan},
};
use crate::{
    event::{
        ConditionFacts, Data, Draft, EpisodeFacts, EpisodeId, Reason, RuleData, RuleFacts, Transition,
        WindowFacts,
    },
    reading::{Metric, Value},
    rule::{Aggregate, Condition, Test, Watched},
    time::EngineTime,
};

/// All that an event of an episode quotes.
pub(super) struct Report<'a> {
    pub about: &'a About,
    pub metric: Option<&'a Metric>,
    pub unit: Option<&'a Arc<str>>,
    pub value: Option<Value>,
    pub facts: &'a Arc<RuleFacts>,
    /// The rule as it is now; none if it was removed.
    pub plan: Option<&'a Plan>,
    pub episode: &'a Episode,
    pub id: EpisodeId,
    pub transition: Transition,
    pub reason: Option<Reason>,
    pub at: EngineTime,
    pub window: Option<WindowFacts>,
    pub conditions: Vec<ConditionFacts>,
}

impl Engine {
    /// The event of what a slot did; `ended` is the episode that it no longer has.
    pub(super) fn draft(
        &self,
        index: u32,
        transition: Transition,
        ended: Option<(Box<Episode>, Reason)>,
        at: EngineTime,
    ) -> Option<Draft> {
        let slot = &self.slots[index];
        let plan = &*self.plans[slot.plan];
        let (ended, reason) = ended.unzip();
        let episode = ended.as_deref().or_else(|| slot.episode())?;
        let watch = plan.condition.metric().map(|_| &self.watches[slot.watch]);
        let report = Report {
            about: &self.devices[slot.device].about,
            metric: plan.condition.metric(),
            unit: watch
                .and_then(|watch| watch.unit.as_ref())
                .filter(|_| !counts(&plan.condition)),
            value: slot.value(plan, &self.watches),
            facts: &plan.facts,
            plan: Some(plan),
            episode,
            id: EpisodeId {
                epoch: self.epoch,
                number: episode.number,
            },
            transition,
            reason,
            at: at.max(slot.entered),
            window: self.window_facts(index),
            conditions: self.condition_facts(index, at),
        };
        Some(report.draft())
    }

    fn window_facts(&self, index: u32) -> Option<WindowFacts> {
        let slot = &self.slots[index];
        let Condition::Value(watched) = &self.plans[slot.plan].condition else {
            return None;
        };
        let spec = watched.window.as_ref()?;
        let extent = slot.wide.as_ref()?.inputs.first()?.window.as_ref()?.extent(spec);
        Some(WindowFacts {
            of: spec.of.key().into(),
            over_ms: millis(spec.over),
            count: extent.count,
            span_ms: millis(extent.span),
            approximate: extent.approximate,
        })
    }

    fn condition_facts(&self, index: u32, at: EngineTime) -> Vec<ConditionFacts> {
        let slot = &self.slots[index];
        let plan = &self.plans[slot.plan];
        let Some(wide) = slot.wide.as_ref().filter(|_| plan.is_composite()) else {
            return Vec::new();
        };
        let inputs = wide.inputs.iter().zip(plan.inputs());
        inputs
            .map(|(input, (_, watched))| {
                let row = &self.watches[input.watch];
                let is_known = !is_stale(row, at, plan.rule.stale_after);
                let value = input.value(watched, &self.watches).filter(|_| is_known);
                ConditionFacts {
                    device: self.devices[row.device].about.device.clone(),
                    metric: watched.metric.clone(),
                    unit: row.unit.clone().filter(|_| !is_count(watched)),
                    holds: value.as_ref().map(|value| watched.test.holds(value)),
                    value,
                }
            })
            .collect()
    }
}

fn counts(condition: &Condition) -> bool {
    matches!(condition, Condition::Value(watched) if is_count(watched))
}

fn is_count(watched: &Watched) -> bool {
    watched.window.is_some_and(|window| window.of == Aggregate::Count)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Report<'_> {
    pub(super) fn draft(self) -> Draft {
        let episode = self.episode;
        let names = &episode.names;
        let name = match self.transition {
            Transition::Cleared => &names.cleared_event,
            Transition::Raised | Transition::Reminded | Transition::Changed => &names.event,
        };
        let device = &self.about.device;
        let summary = self.summary();
        let subject = match self.metric {
            Some(metric) => format!("{device}/{metric}").into(),
            None => device.as_str().into(),
        };
        let data = RuleData {
            summary,
            device: device.clone(),
            device_name: self.about.name.clone(),
            device_labels: Arc::clone(&self.about.labels),
            metric: self.metric.cloned(),
            unit: self.unit.cloned(),
            value: self.value,
            rule: Arc::clone(self.facts),
            episode: EpisodeFacts {
                id: self.id,
                since: episode.run.since,
                raised_at: episode.raised_at,
                duration_ms: millis(self.at.since(episode.run.since)),
                min: episode.run.min,
                max: episode.run.max,
                readings: episode.run.readings,
                reminder: match self.transition {
                    Transition::Reminded => episode.reminders,
                    Transition::Raised | Transition::Changed | Transition::Cleared => 0,
                },
                flaps: episode.flaps,
                reason: self.reason,
            },
            window: self.window,
            conditions: self.conditions,
            raised_as: (self.transition == Transition::Cleared).then(|| Arc::clone(&names.event)),
        };
        Draft {
            kind: format!("{}{name}", names.type_prefix).into(),
            name: Arc::clone(name),
            subject,
            about: device.as_str().into(),
            severity: names.severity,
            at: self.at,
            transition: Some(self.transition),
            correlation: Some(self.id.to_string().into()),
            data: Data::Rule(Box::new(data)),
        }
    }

    fn summary(&self) -> String {
        if let (Transition::Raised | Transition::Reminded, Some(template)) = (
            self.transition,
            self.plan.and_then(|plan| plan.rule.summary.as_ref()),
        ) {
            return self.filled(template);
        }
        let (what, is, wanted) = self.phrases();
        match (self.transition, self.reason) {
            (Transition::Cleared, None | Some(Reason::BackToNormal)) => {
                match self.plan.map(|plan| &plan.condition) {
                    Some(Condition::Silent { .. }) => format!("{what} is back: {is}"),
                    _ => format!("{what} is back to normal: {is}"),
                }
            }
            (Transition::Cleared, Some(reason)) => {
                format!("{what} is {is}, no alarm any more: {}", why(reason))
            }
            (Transition::Changed, _) => format!("{what} is {is}, still an alarm{wanted}"),
            (Transition::Raised | Transition::Reminded, _) => match self.plan.map(|plan| &plan.condition) {
                Some(Condition::Silent { metric, after }) => {
                    format!(
                        "{}: no {metric} for {}",
                        self.about.device,
                        shown_duration(*after)
                    )
                }
                _ => format!("{what} is {is}{wanted}"),
            },
        }
    }

    /// What it is about, what that is, and what is wanted of it.
    fn phrases(&self) -> (String, String, String) {
        let device = &self.about.device;
        let is = self.value.as_ref().map_or_else(|| "unknown".to_owned(), shown);
        let is = match self.unit {
            Some(unit) if self.value.is_some() => format!("{is} {unit}"),
            _ => is,
        };
        let name = self.metric.map_or("", Metric::as_str);
        let Some(plan) = self.plan else {
            return match self.metric {
                Some(metric) => (format!("{device}: {metric}"), is, String::new()),
                None => (
                    format!("{device}: {}", self.facts.name),
                    "over".to_owned(),
                    String::new(),
                ),
            };
        };
        match &plan.condition {
            Condition::Value(watched) => {
                let what = watched
                    .window
                    .map_or_else(|| name.to_owned(), |window| over(name, window));
                let (wording, threshold) = (wording(&watched.test), threshold(&watched.test));
                let wanted = if wording.is_empty() && self.transition != Transition::Changed {
                    // The value says it all: "contact is open".
                    String::new()
                } else if self.transition == Transition::Changed {
                    format!(": {wording}{threshold}")
                } else {
                    format!(", {wording}{threshold}")
                };
                (format!("{device}: {what}"), is, wanted)
            }
            Condition::Silent { after, .. } => {
                let wanted = format!(": silent for {}", shown_duration(*after));
                (format!("{device}: {name}"), is, wanted)
            }
            Condition::All(_) | Condition::Any(_) => {
                let parts: Vec<String> = self.conditions.iter().map(|part| self.part(part)).collect();
                (
                    format!("{device}: {}", plan.rule.name),
                    parts.join(", "),
                    String::new(),
                )
            }
        }
    }

    /// A sub-condition: `temperature 31 Cel`, `main temperature 31 Cel` of another device.
    fn part(&self, part: &ConditionFacts) -> String {
        let value = part.value.as_ref().map_or_else(|| "unknown".to_owned(), shown);
        let whose = if part.device == self.about.device {
            String::new()
        } else {
            format!("{} ", part.device)
        };
        let unit = part.unit.as_ref().filter(|_| part.value.is_some());
        let unit = unit.map_or_else(String::new, |unit| format!(" {unit}"));
        format!("{whose}{} {value}{unit}", part.metric)
    }

    /// The rule's own text. One pass, so that a value that looks like a placeholder stays what it is.
    fn filled(&self, template: &str) -> String {
        let unit = self.unit.map_or("", |unit| unit.as_ref());
        let value = self.value.as_ref().map_or_else(|| "unknown".to_owned(), shown);
        let metrics: Vec<&str> = self.conditions.iter().map(|part| part.metric.as_str()).collect();
        let metric = self
            .metric
            .map_or_else(|| metrics.join(", "), |metric| metric.as_str().to_owned());
        let threshold = self.plan.map_or_else(String::new, |plan| match &plan.condition {
            Condition::Value(watched) => threshold(&watched.test),
            Condition::Silent { after, .. } => shown_duration(*after),
            Condition::All(_) | Condition::Any(_) => String::new(),
        });
        let mut text = String::with_capacity(template.len() + 64);
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('{') {
            text.push_str(before);
            let known = after.split_once('}').and_then(|(name, after)| {
                let filling = match name {
                    "device" => self.about.device.as_str(),
                    "metric" => &metric,
                    "value" => &value,
                    "unit" => unit,
                    "threshold" => &threshold,
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

fn why(reason: Reason) -> &'static str {
    match reason {
        Reason::BackToNormal => "back to normal",
        Reason::RuleChanged => "the rule was changed",
        Reason::RuleRemoved => "the rule was removed",
        Reason::DeviceRemoved => "the device was removed",
        Reason::OutOfPeriod => "out of its period",
        Reason::Suppressed => "suppressed",
        Reason::Muted => "muted",
    }
}

/// `mean of temperature over 5m`.
fn over(metric: &str, window: crate::rule::Sliding) -> String {
    let length = shown_duration(window.over);
    match window.of {
        Aggregate::Rise => format!("rise of {metric} within {length}"),
        Aggregate::Fall => format!("fall of {metric} within {length}"),
        Aggregate::Count => format!("number of {metric} readings over {length}"),
        of => format!("{} of {metric} over {length}", of.key()),
    }
}

fn wording(test: &Test) -> &'static str {
    match test {
        Test::Above { .. } => "above ",
        Test::Below { .. } => "below ",
        Test::Outside { .. } => "outside ",
        Test::Inside { .. } => "inside ",
        Test::Equals(_) => "",
        Test::NotEquals(_) => "not ",
        Test::RisesBy { .. } | Test::FallsBy { .. } => "at least ",
    }
}

fn threshold(test: &Test) -> String {
    match test {
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

/// As the configuration writes it: `90s`, `5m`, `2h`.
fn shown_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        _ if duration.subsec_millis() != 0 => format!("{}ms", duration.as_millis()),
        0 => "0s".to_owned(),
        _ if seconds.is_multiple_of(86_400) => format!("{}d", seconds / 86_400),
        _ if seconds.is_multiple_of(3_600) => format!("{}h", seconds / 3_600),
        _ if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}
