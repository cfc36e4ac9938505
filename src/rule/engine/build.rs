//! How devices, watches and slots come to be: at the start for what the configuration names, else at first sight.

use std::{collections::HashMap, sync::Arc};

use super::{
    Engine, Setup,
    basis::{Bases, Basis},
    checkpoint::Unsaved,
    devices::Devices,
    hush::Hushes,
    latch::{Latch, NEVER, NO_WATCH, Slot},
    look::{Input, Quiet, Wide},
    plan::{About, Plan},
    queue::{Place, Queue},
    table::Table,
    watch::{Device, Keep, Watch},
};
use crate::{
    event::Position,
    reading::{DeviceId, Metric},
    rule::Condition,
    time::{EngineTime, Moment},
};

impl Engine {
    /// Remembers nothing yet but what the configuration says.
    pub(super) fn new(setup: Setup, now: Moment) -> Self {
        let names = setup.rules.iter().map(|rule| Arc::clone(&rule.name));
        let mut engine = Self {
            rule_numbers: names.zip(0..).collect(),
            hushes: Hushes::new(&setup.rules, &now),
            rules: setup.rules,
            facts: setup.devices,
            no_labels: Arc::default(),
            epoch: setup.epoch,
            max_devices: setup.max_devices,
            max_metrics: setup.max_metrics,
            checkpoint: setup.checkpoint,
            episodes: 0,
            mute_number: 0,
            active: 0,
            now: now.boot,
            moment: now,
            devices: Devices::default(),
            metrics: HashMap::new(),
            metric_names: Table::default(),
            by_metric: HashMap::new(),
            composites: Vec::new(),
            quieted: HashMap::new(),
            watches: Table::default(),
            slots: Table::default(),
            plans: Table::default(),
            plan_of: HashMap::new(),
            queue: Queue::default(),
            touched: Vec::new(),
            rests_on: Position::default(),
            refused: std::collections::BTreeSet::new(),
            retry_at: NEVER,
            unsaved: std::collections::VecDeque::new(),
            bases: Bases::default(),
            vouched: false,
            counts: super::Counts::default(),
            settled: false,
        };
        for (rule, number) in engine.rules.clone().iter().zip(0..) {
            engine.plan(number, Vec::new());
            match rule.metric() {
                Some(metric) => {
                    let metric = engine.metric(metric);
                    engine.by_metric.entry(metric).or_default().push(number);
                    let unless = rule.unless.as_ref().filter(|unless| unless.part.device.is_none());
                    if let Some(unless) = unless
                        && !matches!(rule.condition, Condition::Silent { .. })
                    {
                        let quiet = engine.metric(&unless.part.watched.metric);
                        engine.quieted.entry(quiet).or_default().push(number);
                    }
                }
                None => engine.composites.push(number),
            }
        }
        engine.name_parts();
        engine.expect(now.boot);
        engine
    }

    /// What a part says of a device that it names is remembered from the first, also over a restart before a device
    /// comes that the rule is about.
    fn name_parts(&mut self) {
        for rule in self.rules.clone() {
            let unless = rule.unless.iter().map(|unless| &unless.part);
            for part in rule.condition.parts().iter().chain(unless) {
                if let Some(device) = &part.device {
                    let device = self.know(device);
                    let watch = self.bare_watch(device, &part.watched.metric);
                    self.watches[watch].keep = Keep::Always;
                }
            }
        }
    }

    /// What the configuration names is watched from the start.
    fn expect(&mut self, since: EngineTime) {
        for facts in self.facts.clone() {
            let Ok(id) = DeviceId::new(&facts.id.0) else {
                continue;
            };
            if facts.id.0.contains('*') || facts.expects.is_empty() {
                continue;
            }
            let device = self.know(&id);
            self.see(device, since);
        }
        for rule in self.composites.clone() {
            let Some(rule) = self.rules.get(rule as usize).cloned() else {
                continue;
            };
            for pattern in rule.devices.iter().filter(|pattern| !pattern.0.contains('*')) {
                if let Ok(id) = DeviceId::new(&pattern.0) {
                    let device = self.know(&id);
                    self.see(device, since);
                }
            }
        }
    }

    /// The device, known from now on.
    pub(super) fn know(&mut self, id: &DeviceId) -> u32 {
        if let Some(device) = self.devices.find(id) {
            return device;
        }
        self.devices.push(Device {
            about: Arc::new(About::new(id, &self.facts, &self.no_labels)),
            watches: Vec::new(),
            slots: Vec::new(),
            late_since: NEVER,
            offset: 0,
            seen: false,
            muted: self
                .hushes
                .mutes
                .contains_key(&super::MuteTarget::Device(id.clone())),
        })
    }

    /// The device is there: what is expected of it is watched from now on, and so are the rules about several
    /// metrics.
    pub(super) fn see(&mut self, device: u32, since: EngineTime) {
        if std::mem::replace(&mut self.devices[device].seen, true) {
            return;
        }
        let about = Arc::clone(&self.devices[device].about);
        let name = about.device.as_str();
        let entries = self.facts.iter().filter(|entry| entry.id.matches(name));
        let expected: Vec<Metric> = entries.flat_map(|entry| entry.expects.iter().cloned()).collect();
        for metric in &expected {
            self.watch(device, metric, since);
        }
        for rule in self.composites.clone() {
            let watches = self
                .rules
                .get(rule as usize)
                .is_some_and(|rule| rule.watches(name, &about.labels));
            if watches {
                self.slot(rule, device, NO_WATCH, since);
            }
        }
    }

    fn metric(&mut self, metric: &Metric) -> u32 {
        if let Some(known) = self.metrics.get(metric) {
            return *known;
        }
        let number = self.metric_names.push(metric.clone());
        self.metrics.insert(metric.clone(), number);
        number
    }

    /// The watch of this metric of this device, which was sent or is expected; the rules about it look at it from
    /// the first time on.
    pub(super) fn watch(&mut self, device: u32, metric: &Metric, since: EngineTime) -> u32 {
        let watch = self.bare_watch(device, metric);
        if std::mem::replace(&mut self.watches[watch].staffed, true) {
            return watch;
        }
        let metric = self.watches[watch].metric;
        let about = Arc::clone(&self.devices[device].about);
        for rule in self.by_metric.get(&metric).cloned().unwrap_or_default() {
            let Some(watcher) = self.rules.get(rule as usize) else {
                continue;
            };
            let watches = watcher.watches(about.device.as_str(), &about.labels);
            if watches && self.find(rule, device).is_none() {
                self.slot(rule, device, watch, since);
            }
        }
        // What speaks against a rule is remembered from the first, also over a restart before the rule's own metric
        // comes.
        for rule in self.quieted.get(&metric).cloned().unwrap_or_default() {
            let Some(quieted) = self.rules.get(rule as usize).cloned() else {
                continue;
            };
            if let Some(own) = quieted.metric()
                && quieted.watches(about.device.as_str(), &about.labels)
                && self.find(rule, device).is_none()
            {
                let watch = self.bare_watch(device, own);
                self.slot(rule, device, watch, since);
            }
        }
        watch
    }

    /// The watch of this metric of this device, heard of or not.
    pub(super) fn bare_watch(&mut self, device: u32, metric: &Metric) -> u32 {
        let number = self.metric(metric);
        if let Some(watch) = self.devices[device].watch(number) {
            return watch;
        }
        let watch = self.watches.push(Watch::new(device, number));
        let watches = &mut self.devices[device].watches;
        let place = watches.partition_point(|(metric, _)| *metric < number);
        watches.insert(place, (number, watch));
        watch
    }

    /// A rule on a device. `since` is what a silence counts from.
    fn slot(&mut self, rule: u32, device: u32, watch: u32, since: EngineTime) {
        let about = Arc::clone(&self.devices[device].about);
        let Some(number) = self.plan_for(rule, &about.device) else {
            return;
        };
        let plan = Arc::clone(&self.plans[number]);
        let wide = self.wide(&plan, device);
        let mut looks_at: Vec<(u32, Keep)> = Vec::new();
        if watch != NO_WATCH {
            let keep = match plan.condition {
                Condition::Silent { .. } => Keep::Once,
                Condition::Value(_) | Condition::All(_) | Condition::Any(_) => Keep::Nothing,
            };
            looks_at.push((watch, keep));
        }
        if let Some(wide) = &wide {
            if plan.is_composite() {
                looks_at.extend(wide.inputs.iter().map(|input| (input.watch, Keep::Always)));
            }
            looks_at.extend(wide.unless.iter().map(|quiet| (quiet.input.watch, Keep::Always)));
        }
        let heard = if matches!(plan.condition, Condition::Silent { .. }) {
            since
        } else {
            NEVER
        };
        let slot = self.slots.push(Slot {
            plan: number,
            device,
            watch,
            place: Place::default(),
            latch: Latch::Normal,
            paid: NEVER,
            entered: NEVER,
            heard,
            committed: Position::default(),
            wide,
        });
        for (watch, keep) in looks_at {
            self.attach(watch, slot, keep);
        }
        let plans = (&self.slots, &self.plans);
        let place = self.devices[device]
            .slots
            .partition_point(|slot| plans.1[plans.0[*slot].plan].number < rule);
        self.devices[device].slots.insert(place, slot);
        self.schedule(slot, since);
    }

    /// What the slot needs beyond the last value of its metric.
    fn wide(&mut self, plan: &Plan, device: u32) -> Option<Box<Wide>> {
        let plain = plan.is_plain();
        if plain && plan.rule.unless.is_none() {
            return None;
        }
        let mut inputs = Vec::new();
        for (other, watched) in plan.inputs().filter(|_| !plain) {
            let watch = self.watch_of(other, device, &watched.metric);
            inputs.push(Input::new(watch, watched));
        }
        let unless = plan.rule.unless.as_ref().map(|unless| {
            let watched = &unless.part.watched;
            let watch = self.watch_of(unless.part.device.as_ref(), device, &watched.metric);
            let mut quiet = Quiet {
                input: Input::new(watch, watched),
                on: false,
                until: NEVER,
            };
            // It may have been heard of before the rule's own metric was.
            if self.settled {
                quiet.listen(unless, &self.watches, self.now, plan.rule.stale_after);
            }
            Box::new(quiet)
        });
        Some(Box::new(Wide {
            inputs: inputs.into(),
            unless,
            looked: NEVER,
            queued: false,
        }))
    }

    fn watch_of(&mut self, other: Option<&DeviceId>, own: u32, metric: &Metric) -> u32 {
        let device = other.map_or(own, |other| self.know(other));
        self.bare_watch(device, metric)
    }

    /// Lets a slot hear of a watch, in the order of rules, then devices.
    fn attach(&mut self, watch: u32, slot: u32, keep: Keep) {
        let row = &self.watches[watch];
        if !row.slots().contains(&slot) {
            let mut slots = row.slots().to_vec();
            let key = self.order(slot);
            let place = slots.partition_point(|other| self.order(*other) < key);
            slots.insert(place, slot);
            self.watches[watch].set_slots(slots);
        }
        let row = &mut self.watches[watch];
        row.keep = row.keep.max(keep);
        if row.keep != Keep::Nothing && row.seen() != NEVER && !row.queued {
            row.queued = true;
            self.unsaved.push_back(Unsaved::Watch(watch));
        }
    }

    /// What ties are decided by: the rule, then the device's name.
    pub(super) fn order(&self, slot: u32) -> (u32, &DeviceId) {
        let slot = &self.slots[slot];
        (
            self.plans[slot.plan].number,
            &self.devices[slot.device].about.device,
        )
    }

    /// What a slot of the rule on the device rests on if it is written now.
    pub(super) fn basis_of(&mut self, rule: &str, device: &DeviceId) -> Option<Arc<Basis>> {
        let rule = self.rule_numbers.get(rule).copied()?;
        let plan = self.plan_for(rule, device)?;
        Some(Arc::clone(&self.plans[plan].basis))
    }

    fn plan_for(&mut self, rule: u32, device: &DeviceId) -> Option<u32> {
        let overrides = Plan::overrides(self.rules.get(rule as usize)?, device);
        Some(self.plan(rule, overrides))
    }

    /// The rule under these overrides.
    fn plan(&mut self, rule: u32, overrides: Vec<usize>) -> u32 {
        let key = (rule, overrides);
        if let Some(plan) = self.plan_of.get(&key) {
            return *plan;
        }
        let Some(of) = self.rules.get(rule as usize) else {
            return 0;
        };
        let plan = Plan::new(rule, of, &key.1);
        self.bases.add(&plan);
        let plan = self.plans.push(Arc::new(plan));
        self.plan_of.insert(key, plan);
        plan
    }
}
