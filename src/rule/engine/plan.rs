//! A rule as it applies to one device: overrides merged, facts ready to be quoted.

use std::{sync::Arc, time::Duration};

use serde_json::{Value as Json, json};

use crate::{
    event::{Labels, RuleFacts, Severity},
    reading::DeviceId,
    rule::{Condition, DeviceFacts, Rule, Test},
};

/// A rule with the overrides of one device. Shared by all devices with the same overrides.
#[derive(Debug)]
pub(super) struct Plan {
    pub rule: Arc<Rule>,
    pub condition: Test,
    pub hold: Duration,
    pub clear_hold: Duration,
    pub severity: Severity,
    pub facts: Arc<RuleFacts>,
}

impl Plan {
    /// Which overrides of `rule` are for `device`.
    pub(super) fn overrides(rule: &Rule, device: &DeviceId) -> Vec<usize> {
        let matching = |(index, over): (usize, &super::super::Override)| {
            over.devices
                .iter()
                .any(|pattern| pattern.matches(device.as_str()))
                .then_some(index)
        };
        rule.overrides.iter().enumerate().filter_map(matching).collect()
    }

    /// The rule under these overrides; the last decides, per key.
    pub(super) fn new(rule: &Arc<Rule>, overrides: &[usize]) -> Self {
        let mut condition = &rule.condition;
        let mut hold = rule.hold;
        let mut clear_hold = rule.clear_hold;
        let mut severity = rule.severity;
        for over in overrides.iter().filter_map(|index| rule.overrides.get(*index)) {
            condition = over.condition.as_ref().unwrap_or(condition);
            hold = over.hold.unwrap_or(hold);
            clear_hold = over.clear_hold.unwrap_or(clear_hold);
            severity = over.severity.unwrap_or(severity);
        }
        let mut params = condition.params();
        for (key, duration) in [("hold_s", hold), ("clear_hold_s", clear_hold)] {
            if !duration.is_zero() {
                params.insert(key.to_owned(), seconds(duration));
            }
        }
        let facts = RuleFacts {
            name: Arc::clone(&rule.name),
            kind: condition.kind().into(),
            params,
            labels: rule.labels.clone(),
            runbook: rule.runbook.clone(),
        };
        let condition = match condition {
            Condition::Value(watched) => watched.test.clone(),
            Condition::Silent { .. } | Condition::All(_) | Condition::Any(_) => {
                Test::RisesBy { by: 0.0, clear: 0.0 }
            }
        };
        Self {
            rule: Arc::clone(rule),
            condition,
            hold,
            clear_hold,
            severity,
            facts: Arc::new(facts),
        }
    }

    /// The time that one raise costs.
    pub(super) fn raise_interval(&self) -> Duration {
        self.rule.max_raises.per / self.rule.max_raises.count.max(1)
    }
}

/// Whole seconds as an integer, others as a fraction.
fn seconds(duration: Duration) -> Json {
    if duration.subsec_nanos() == 0 {
        json!(duration.as_secs())
    } else {
        json!(duration.as_secs_f64())
    }
}

/// What events say about a device.
#[derive(Debug, PartialEq)]
pub(super) struct About {
    pub device: DeviceId,
    pub name: Option<Arc<str>>,
    pub labels: Arc<Labels>,
}

impl About {
    /// Name and labels from all entries that match; where two say different things the first decides.
    pub(super) fn new(device: &DeviceId, entries: &[DeviceFacts]) -> Self {
        let mut name = None;
        let mut labels = Labels::new();
        for entry in entries.iter().filter(|entry| entry.id.matches(device.as_str())) {
            name = name.or_else(|| entry.name.clone());
            for (key, value) in &entry.labels {
                labels.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        Self {
            device: device.clone(),
            name,
            labels: Arc::new(labels),
        }
    }
}
