//! A rule as it applies to one device: overrides merged, facts ready to be quoted.

use std::{sync::Arc, time::Duration};

use super::{
    basis::{Basis, Decides},
    latch::Names,
};
use crate::{
    event::{Labels, RuleFacts},
    reading::DeviceId,
    rule::{Condition, DeviceFacts, Rule, Watched},
};

/// A rule with the overrides of one device. Shared by all devices with the same overrides.
#[derive(Debug)]
pub(super) struct Plan {
    /// The rule's place in the configuration.
    pub number: u32,
    pub rule: Arc<Rule>,
    pub condition: Condition,
    pub hold: Duration,
    pub clear_hold: Duration,
    pub remind_every: Option<Duration>,
    pub facts: Arc<RuleFacts>,
    /// What its saved slots rest on.
    pub basis: Arc<Basis>,
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
    pub(super) fn new(number: u32, rule: &Arc<Rule>, overrides: &[usize]) -> Self {
        let mut condition = &rule.condition;
        let mut hold = rule.hold;
        let mut clear_hold = rule.clear_hold;
        let mut severity = rule.severity;
        let mut remind_every = rule.remind_every;
        for over in overrides.iter().filter_map(|index| rule.overrides.get(*index)) {
            condition = over.condition.as_ref().unwrap_or(condition);
            hold = over.hold.unwrap_or(hold);
            clear_hold = over.clear_hold.unwrap_or(clear_hold);
            severity = over.severity.unwrap_or(severity);
            remind_every = over.remind_every.or(remind_every);
        }
        let params = rule.params(condition, hold, clear_hold, remind_every);
        let facts = Arc::new(RuleFacts {
            name: Arc::clone(&rule.name),
            kind: condition.kind().into(),
            params,
            labels: rule.labels.clone(),
            runbook: rule.runbook.clone(),
        });
        let names = Names {
            severity,
            type_prefix: Arc::clone(&rule.type_prefix),
            event: Arc::clone(&rule.event),
            cleared_event: Arc::clone(&rule.cleared_event),
        };
        Self {
            number,
            condition: condition.clone(),
            rule: Arc::clone(rule),
            hold,
            clear_hold,
            remind_every: remind_every.filter(|every| !every.is_zero()),
            basis: Arc::new(Basis::new(
                condition.metric().cloned(),
                Decides::new(&facts),
                Arc::new(names),
            )),
            facts,
        }
    }

    /// The time that one raise costs.
    pub(super) fn raise_interval(&self) -> Duration {
        self.rule.max_raises.per / self.rule.max_raises.count.max(1)
    }

    /// Whether the last reading of its one metric is all that its condition looks at.
    pub(super) fn is_plain(&self) -> bool {
        match &self.condition {
            Condition::Value(watched) => watched.window.is_none(),
            Condition::Silent { .. } => true,
            Condition::All(_) | Condition::Any(_) => false,
        }
    }

    /// What its condition looks at, with the device it names, in order; nothing for `silent-for`.
    pub(super) fn inputs(&self) -> impl Iterator<Item = (Option<&DeviceId>, &Watched)> {
        let own = match &self.condition {
            Condition::Value(watched) => Some((None, watched)),
            Condition::Silent { .. } | Condition::All(_) | Condition::Any(_) => None,
        };
        let parts = self
            .condition
            .parts()
            .iter()
            .map(|part| (part.device.as_ref(), &part.watched));
        own.into_iter().chain(parts)
    }

    pub(super) fn is_composite(&self) -> bool {
        matches!(self.condition, Condition::All(_) | Condition::Any(_))
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
    /// Name and labels from all entries that match; where two say different things the first decides. Devices
    /// without labels share `none`.
    pub(super) fn new(device: &DeviceId, entries: &[DeviceFacts], none: &Arc<Labels>) -> Self {
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
            labels: if labels.is_empty() {
                Arc::clone(none)
            } else {
                Arc::new(labels)
            },
        }
    }
}
