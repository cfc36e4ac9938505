//! The one line for people that an event of a rule has.

use std::time::Duration;

use super::{Aggregate, Condition, Part, Sliding, Test, Watched};
use crate::{
    event::{ConditionFacts, Reason, Transition},
    reading::{DeviceId, Metric, Value, people},
};

/// What it is made of.
#[derive(Clone, Copy, Debug)]
pub struct Summary<'a> {
    /// On which device.
    pub device: &'a DeviceId,
    /// The rule's name.
    pub rule: &'a str,
    /// As it is for this device now; none: the rule was removed.
    pub condition: Option<&'a Condition>,
    /// The rule's own text.
    pub template: Option<&'a str>,
    /// What is measured; none where several metrics decide.
    pub metric: Option<&'a Metric>,
    /// In which unit.
    pub unit: Option<&'a str>,
    /// What decided.
    pub value: Option<&'a Value>,
    /// What happened.
    pub transition: Transition,
    /// Why it ended.
    pub reason: Option<Reason>,
    /// Of `all` and `any`: each part, in the condition's order.
    pub conditions: &'a [ConditionFacts],
}

impl Summary<'_> {
    /// `thermostat-7: temperature is 31 Cel, above 30`.
    #[must_use]
    pub fn text(&self) -> String {
        if let (Transition::Raised | Transition::Reminded, Some(template)) = (self.transition, self.template)
        {
            return self.filled(template);
        }
        let device = self.device;
        let is = said(self.value, self.unit);
        let (what, is, holds) = match self.condition {
            Some(Condition::Value(watched)) => {
                let holds = format!("{is}{}", wanted(&watched.test, ", "));
                (named(watched), is, holds)
            }
            Some(Condition::Silent { metric, after }) => {
                let length = shown_duration(*after);
                match self.transition {
                    Transition::Raised | Transition::Reminded => {
                        return format!("{device}: no {metric} for {length}");
                    }
                    Transition::Changed => {
                        return format!("{device}: no {metric} for {length}, still an alarm");
                    }
                    Transition::Cleared => (metric.to_string(), is.clone(), is),
                }
            }
            Some(Condition::All(parts) | Condition::Any(parts)) => return self.composite(parts),
            None => {
                let what = self.metric.map_or(self.rule, Metric::as_str).to_owned();
                let is = if self.metric.is_some() {
                    is
                } else {
                    "over".to_owned()
                };
                (what, is.clone(), is)
            }
        };
        match (self.transition, self.reason) {
            (Transition::Raised, _) => format!("{device}: {what} is {holds}"),
            // The value may lie between the clear point and the threshold.
            (Transition::Changed | Transition::Reminded, _) => {
                let wanted = match self.condition {
                    Some(Condition::Value(watched)) => limit(&watched.test),
                    _ => String::new(),
                };
                format!("{device}: {what} is {is}, still an alarm: {wanted}")
            }
            (Transition::Cleared, None | Some(Reason::BackToNormal)) => {
                if let Some(Condition::Silent { .. }) = self.condition {
                    format!("{device}: {what} is back: {is}")
                } else {
                    format!("{device}: {what} is back to normal: {is}")
                }
            }
            (Transition::Cleared, Some(reason)) => {
                format!("{device}: {what} is {is}, no alarm any more: {}", why(reason))
            }
        }
    }

    /// `boiler: too-hot: temperature is 91 Cel, above 90, and pump is false`.
    fn composite(&self, parts: &[Part]) -> String {
        let (device, rule) = (self.device, self.rule);
        let facts = || parts.iter().zip(self.conditions);
        let some_hold = self.conditions.iter().any(|part| part.holds == Some(true));
        // What raised it: of `any` not the parts that say nothing against the device.
        let holding: Vec<String> = facts()
            .filter(|(_, facts)| facts.holds == Some(true) || !some_hold)
            .map(|(part, facts)| self.part(part, facts, some_hold))
            .collect();
        let holding = holding.join(", and ");
        match (self.transition, self.reason) {
            (Transition::Raised, _) => format!("{device}: {rule}: {holding}"),
            (Transition::Changed | Transition::Reminded, _) => {
                format!("{device}: {rule} is still an alarm: {holding}")
            }
            (Transition::Cleared, None | Some(Reason::BackToNormal)) => {
                let all: Vec<String> = facts()
                    .map(|(part, facts)| self.part(part, facts, false))
                    .collect();
                format!("{device}: {rule} is back to normal: {}", all.join(", "))
            }
            (Transition::Cleared, Some(reason)) => {
                format!("{device}: {rule} is over, no alarm any more: {}", why(reason))
            }
        }
    }

    /// `temperature is 31 Cel, above 30`; `main temperature is 31 Cel` of another device.
    fn part(&self, part: &Part, facts: &ConditionFacts, with_limit: bool) -> String {
        let whose = if facts.device == *self.device {
            String::new()
        } else {
            format!("{} ", facts.device)
        };
        let is = said(facts.value.as_ref(), facts.unit.as_deref());
        let limit = match facts.value {
            Some(_) if with_limit => wanted(&part.watched.test, ", "),
            _ => String::new(),
        };
        format!("{whose}{} is {is}{limit}", named(&part.watched))
    }

    /// The rule's own text. One pass, so that a value that looks like a placeholder stays what it is.
    fn filled(&self, template: &str) -> String {
        let unit = self.unit.unwrap_or_default();
        let value = said(self.value, None);
        let metrics: Vec<&str> = self.conditions.iter().map(|part| part.metric.as_str()).collect();
        let metric = self
            .metric
            .map_or_else(|| metrics.join(", "), |metric| metric.as_str().to_owned());
        let threshold = match self.condition {
            Some(Condition::Value(watched)) => threshold(&watched.test),
            Some(Condition::Silent { after, .. }) => shown_duration(*after),
            Some(Condition::All(_) | Condition::Any(_)) | None => String::new(),
        };
        let mut text = String::with_capacity(template.len() + 64);
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('{') {
            text.push_str(before);
            let known = after.split_once('}').and_then(|(name, after)| {
                let filling = match name {
                    "device" => self.device.as_str(),
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

/// `31.2 Cel`.
fn said(value: Option<&Value>, unit: Option<&str>) -> String {
    match (value, unit) {
        (None, _) => "unknown".to_owned(),
        (Some(value), None) => value.to_string(),
        (Some(value), Some(unit)) => format!("{value} {unit}"),
    }
}

/// `temperature`, or `mean of temperature over 5m`.
fn named(watched: &Watched) -> String {
    let metric = watched.metric.as_str();
    watched
        .window
        .map_or_else(|| metric.to_owned(), |window| over(metric, window))
}

/// What the value is beyond; nothing where the value says it all: "contact is open".
fn wanted(test: &Test, before: &str) -> String {
    match test {
        Test::Equals(_) => String::new(),
        test => format!("{before}{}", limit(test)),
    }
}

/// `above 30`.
fn limit(test: &Test) -> String {
    format!("{}{}", wording(test), threshold(test))
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
fn over(metric: &str, window: Sliding) -> String {
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
        Test::Above { threshold, .. } | Test::Below { threshold, .. } => people(*threshold),
        Test::Outside { lo, hi, .. } | Test::Inside { lo, hi, .. } => {
            format!("{} to {}", people(*lo), people(*hi))
        }
        Test::Equals(value) | Test::NotEquals(value) => value.to_string(),
        Test::RisesBy { by, .. } | Test::FallsBy { by, .. } => people(*by),
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
