//! What the engine says: an episode as an event.

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
    rule::{Aggregate, Condition, Watched, summary::Summary},
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
        let summary = Summary {
            device,
            rule: &self.facts.name,
            condition: self.plan.map(|plan| &plan.condition),
            template: self.plan.and_then(|plan| plan.rule.summary.as_deref()),
            metric: self.metric,
            unit: self.unit.map(AsRef::as_ref),
            value: self.value.as_ref(),
            transition: self.transition,
            reason: self.reason,
            conditions: &self.conditions,
        }
        .text();
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
                min: episode.run.min(),
                max: episode.run.max(),
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
}
