//! The engine: readings and time in, transitions out.
//!
//! A pure state machine: the same calls give the same outcomes. It never reads a clock, waits, logs or
//! writes; whoever drives it commits each [`Outcome`] whole and tells the [`Position`] back.
//!
//! A reading costs what the rules that watch its (device, metric) cost, however many rules there are. Memory
//! is bounded by `max_devices` and `max_metrics`. What a restart must know is in [`Outcome::state`]; only
//! the smallest and largest value and the count of an episode may lag behind, until its next commit.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use self::{
    latch::{Effect, Slot},
    plan::{About, Plan},
    saved::{COUNTER, SavedSlot, SavedStamp, encode, slot_key, stamp_key},
    speak::Report,
};
use super::{
    Condition, DeviceFacts, Rule,
    state::{Outcome, StateChange},
};
use crate::{
    event::{EpisodeId, Epoch, Position, Severity, Transition},
    reading::{DeviceId, Metric, Reading, Value},
    time::{EngineTime, Moment},
};

mod latch;
mod plan;
mod restore;
mod saved;
mod speak;

/// A device that has been only late for so long does not deliver late: its clock went back.
const REANCHOR_AFTER: Duration = Duration::from_secs(30);

/// The engine. A pure state machine.
#[derive(Debug)]
pub struct Engine {
    rules: Vec<Arc<Rule>>,
    facts: Vec<DeviceFacts>,
    epoch: Epoch,
    max_devices: usize,
    max_metrics: usize,
    /// The number of the last episode.
    episodes: u64,
    active: usize,
    /// The latest time heard of.
    now: EngineTime,
    moment: Moment,
    known: HashMap<DeviceId, Known>,
    slots: Vec<Slot>,
    plans: HashMap<(usize, Vec<usize>), Arc<Plan>>,
    /// By time, then rule, then device: the order of a tie does not depend on who was seen first.
    deadlines: BTreeSet<(EngineTime, usize, DeviceId)>,
    /// (rule, device) to slot, where a rule has a deadline or a state.
    index: HashMap<(usize, DeviceId), usize>,
    touched: Vec<usize>,
    /// The last commit before the configuration changed: no slot remembers it, and it may not be durable yet.
    rests_on: Position,
    counts: Counts,
}

/// What the engine is made from.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The rules.
    pub rules: Vec<Arc<Rule>>,
    /// What is known of devices.
    pub devices: Vec<DeviceFacts>,
    /// The journal's epoch: episodes are named by it.
    pub epoch: Epoch,
    /// Device names ever seen; readings of further ones are not evaluated, but for those in `devices`.
    pub max_devices: usize,
    /// Metrics of one device.
    pub max_metrics: usize,
}

/// A reading that was not evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// Its own stamp is earlier than the last one's of its metric.
    Late,
    /// Same stamp, same value.
    Duplicate,
    /// `max-devices` or `max-metrics`.
    OverLimit,
}

/// What can be muted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MuteTarget {
    /// All rules on this device.
    Device(DeviceId),
    /// This rule on all devices, by its name.
    Rule(Arc<str>),
}

/// A mute that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mute {
    /// Of what.
    pub target: MuteTarget,
    /// When it ends.
    pub until: EngineTime,
    /// Why, as somebody said.
    pub reason: String,
}

/// An open episode, as `ActiveAlarms` lists it.
#[derive(Clone, Debug, PartialEq)]
pub struct ActiveEpisode {
    /// Its id.
    pub id: EpisodeId,
    /// The rule's name.
    pub rule: Arc<str>,
    /// The event that raised it.
    pub event: Arc<str>,
    /// On which device.
    pub device: DeviceId,
    /// What is measured; none where several metrics decide.
    pub metric: Option<Metric>,
    /// How bad.
    pub severity: Severity,
    /// When the condition became true.
    pub since: EngineTime,
    /// When it was raised.
    pub raised_at: EngineTime,
    /// The value it was judged by last.
    pub value: Option<Value>,
}

/// What the engine counted since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Readings evaluated.
    pub evaluated: u64,
    /// Readings skipped as late.
    pub late: u64,
    /// Readings skipped as duplicates.
    pub duplicates: u64,
    /// Readings of devices or metrics over the limits.
    pub over_limit: u64,
    /// Devices whose clock went back.
    pub reanchored: u64,
    /// Saved states that could not be read and were dropped.
    pub unreadable: u64,
}

/// A device that was seen.
#[derive(Debug)]
struct Known {
    about: Arc<About>,
    watches: HashMap<Metric, Watch>,
    /// Since when all that came was late.
    late_since: Option<EngineTime>,
    /// What is added to its stamps since its clock went back.
    offset: i64,
}

/// A metric that was seen.
#[derive(Debug)]
struct Watch {
    /// The newest stamp, and what it said.
    stamp: Option<(EngineTime, Value)>,
    /// Who watches, in the order of the rules.
    slots: Arc<[usize]>,
}

impl Engine {
    /// Restores the state the journal kept. `saved` is what `Recovered::state` had; `now` is this boot's moment
    /// (running timers count the time that passed only if both ends were synchronised or of the same boot).
    /// What the edited or removed rules end, and what fell due meanwhile, goes into `out`.
    pub fn restore(setup: Setup, saved: &[(Vec<u8>, Vec<u8>)], now: Moment, out: &mut Outcome) -> Self {
        let mut engine = Self {
            rules: setup.rules,
            facts: setup.devices,
            epoch: setup.epoch,
            max_devices: setup.max_devices,
            max_metrics: setup.max_metrics,
            episodes: 0,
            active: 0,
            now: now.boot,
            moment: now,
            known: HashMap::new(),
            slots: Vec::new(),
            plans: HashMap::new(),
            deadlines: BTreeSet::new(),
            index: HashMap::new(),
            touched: Vec::new(),
            rests_on: Position::default(),
            counts: Counts::default(),
        };
        engine.take_in(saved, &now, out);
        engine
    }

    /// Fires deadlines < at, then the reading, then deadlines == at.
    ///
    /// Also of a skipped reading `out.depends_on` is right: what a duplicate repeats may not be durable yet.
    ///
    /// # Errors
    ///
    /// [`Skipped`] says why the reading was not evaluated; the engine has counted it.
    pub fn observe(&mut self, reading: &Reading, out: &mut Outcome) -> Result<(), Skipped> {
        self.admit(reading)?;
        out.depends_on = out.depends_on.max(self.rests_on);
        let placed = self.place(reading);
        let slots = self.watch(&reading.device, &reading.metric);
        for slot in slots.iter().filter_map(|index| self.slots.get(*index)) {
            out.depends_on = out.depends_on.max(slot.committed);
        }
        let at = placed?;
        self.now = self.now.max(at);
        self.fire(|deadline| deadline < at, out);
        for index in slots.iter().copied() {
            let id = self.next_episode();
            let Some(slot) = self.slots.get_mut(index) else {
                continue;
            };
            let effect = slot.reading(at, &reading.value, reading.unit.as_ref(), id);
            self.take_effect(index, &effect, at, out);
        }
        self.fire(|deadline| deadline <= at, out);
        self.counts.evaluated = self.counts.evaluated.saturating_add(1);
        Ok(())
    }

    /// Fires the deadlines up to `now`.
    pub fn advance(&mut self, now: EngineTime, out: &mut Outcome) {
        self.now = self.now.max(now);
        self.fire(|deadline| deadline <= now, out);
    }

    /// When `advance` must be called at the latest.
    pub fn next_deadline(&self) -> Option<EngineTime> {
        self.deadlines.first().map(|(at, ..)| *at)
    }

    /// The driver committed all that was decided since the last call: later observations of the same
    /// state depend on it.
    pub fn committed(&mut self, position: Position) {
        for index in self.touched.drain(..) {
            if let Some(slot) = self.slots.get_mut(index) {
                slot.committed = slot.committed.max(position);
                slot.touched = false;
            }
        }
    }

    /// Episodes that are active.
    pub fn active(&self) -> usize {
        self.active
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Both clocks, now. Call it before each batch of readings: saved state remembers the wall clock, and how
    /// long a device has been late is measured by it. Fires nothing.
    pub fn set_moment(&mut self, moment: Moment) {
        self.moment = moment;
        self.now = self.now.max(moment.boot);
    }

    /// All that a clean stop saves beyond what was committed: with it a restart changes no event.
    pub fn checkpoint(&mut self, out: &mut Outcome) {
        let now = self.now;
        for index in 0..self.slots.len() {
            if self.slots.get(index).is_some_and(|slot| !slot.is_plain(now)) {
                self.save(index, out);
            }
        }
        let at = self.saved_at();
        for (device, known) in &self.known {
            for (metric, watch) in known.watches.iter().filter(|(_, watch)| !watch.slots.is_empty()) {
                let Some(stamp) = watch.stamp.clone() else {
                    continue;
                };
                let value = Some(encode(&SavedStamp {
                    at,
                    stamp,
                    offset: known.offset,
                }));
                out.state.push(StateChange {
                    key: stamp_key(device, metric),
                    value,
                });
            }
        }
    }

    /// What windows took in since the last call, within a bound of bytes. Call it every `checkpoint`.
    pub fn save_windows(&mut self, _out: &mut Outcome) {}

    /// Takes another configuration as a clean restart would: rules that did not change keep everything.
    pub fn reconfigure(&mut self, setup: Setup, out: &mut Outcome) {
        let mut kept = Outcome::default();
        self.checkpoint(&mut kept);
        let mut saved: Vec<_> = kept
            .state
            .iter()
            .filter_map(|change| Some((change.key.clone(), change.value.clone()?)))
            .collect();
        saved.push((COUNTER.to_vec(), encode(&self.episodes)));
        out.state.extend(kept.state);
        let moment = self.saved_at();
        let (counts, committed) = (self.counts, self.slots.iter().map(|slot| slot.committed).max());
        let rests_on = self.rests_on.max(committed.unwrap_or_default());
        *self = Self::restore(setup, &saved, moment, out);
        self.counts = counts;
        self.rests_on = rests_on;
    }

    /// Whether there is such a rule, or a device that was seen or is configured by its name.
    pub fn knows(&self, target: &MuteTarget) -> bool {
        match target {
            MuteTarget::Rule(name) => self.rules.iter().any(|rule| rule.name == *name),
            MuteTarget::Device(device) => {
                let configured = |facts: &DeviceFacts| *facts.id.0 == *device.as_str();
                self.known.contains_key(device) || self.facts.iter().any(configured)
            }
        }
    }

    /// Mutes a device or a rule: its open episodes end with `muted`, and until the end it raises none.
    pub fn mute(&mut self, _target: MuteTarget, _length: Duration, _reason: &str, _out: &mut Outcome) {}

    /// Ends a mute before its time; false if there was none.
    pub fn unmute(&mut self, _target: &MuteTarget, _out: &mut Outcome) -> bool {
        false
    }

    /// What is muted.
    pub fn mutes(&self) -> impl Iterator<Item = Mute> {
        std::iter::empty()
    }

    /// Forgets a device: its episodes end with `device-removed`. False if it was never seen.
    pub fn forget(&mut self, _device: &DeviceId, _out: &mut Outcome) -> bool {
        false
    }

    /// All open episodes, by rule and device.
    pub fn episodes(&self) -> impl Iterator<Item = ActiveEpisode> {
        std::iter::empty()
    }

    /// Whether the reading's names are within the limits; takes note of new ones.
    fn admit(&mut self, reading: &Reading) -> Result<(), Skipped> {
        let fits = match self.known.get(&reading.device) {
            Some(known) => {
                known.watches.contains_key(&reading.metric) || known.watches.len() < self.max_metrics
            }
            // Who invents names takes no place from a device that the configuration names.
            None => {
                let named = || {
                    self.facts
                        .iter()
                        .any(|facts| *facts.id.0 == *reading.device.as_str())
                };
                self.max_metrics > 0 && (self.known.len() < self.max_devices || named())
            }
        };
        if !fits {
            self.counts.over_limit = self.counts.over_limit.saturating_add(1);
            return Err(Skipped::OverLimit);
        }
        self.watch(&reading.device, &reading.metric);
        Ok(())
    }

    /// Where on the boot clock the reading belongs.
    fn place(&mut self, reading: &Reading) -> Result<EngineTime, Skipped> {
        let now = if reading.stamped {
            self.now
        } else {
            self.now.max(reading.at)
        };
        let Some(known) = self.known.get_mut(&reading.device) else {
            return Ok(reading.at);
        };
        let Some(watch) = known.watches.get_mut(&reading.metric) else {
            return Ok(reading.at);
        };
        if !reading.stamped {
            known.late_since = None;
            return Ok(reading.at);
        }
        let mut at = reading.at.shifted(known.offset);
        if known.offset > 0 && at > now {
            // The device's clock came forward again: its stamps must not run ahead of ours.
            known.offset = now.0.saturating_sub(reading.at.0).max(0);
            at = reading.at.shifted(known.offset);
        }
        if let Some((last, value)) = &watch.stamp {
            if at < *last {
                let since = *known.late_since.get_or_insert(now);
                if now.since(since) < REANCHOR_AFTER {
                    self.counts.late = self.counts.late.saturating_add(1);
                    return Err(Skipped::Late);
                }
                known.offset = now.0.saturating_sub(reading.at.0).max(0);
                at = now;
                self.counts.reanchored = self.counts.reanchored.saturating_add(1);
            } else if at == *last && *value == reading.value {
                self.counts.duplicates = self.counts.duplicates.saturating_add(1);
                return Err(Skipped::Duplicate);
            }
        }
        known.late_since = None;
        watch.stamp = Some((at, reading.value.clone()));
        Ok(at)
    }

    /// The device, known from now on.
    fn know(&mut self, device: &DeviceId) -> &mut Known {
        let facts = &self.facts;
        self.known.entry(device.clone()).or_insert_with(|| Known {
            about: Arc::new(About::new(device, facts)),
            watches: HashMap::new(),
            late_since: None,
            offset: 0,
        })
    }

    /// The slots of all rules that watch this metric of this device; made at first sight.
    fn watch(&mut self, device: &DeviceId, metric: &Metric) -> Arc<[usize]> {
        if let Some(watch) = self.known.get(device).and_then(|known| known.watches.get(metric)) {
            return Arc::clone(&watch.slots);
        }
        let about = Arc::clone(&self.know(device).about);
        let mut made = Vec::new();
        for (number, rule) in self.rules.iter().enumerate() {
            let plain = matches!(&rule.condition, Condition::Value(watched) if watched.window.is_none());
            if !plain || rule.metric() != Some(metric) || !rule.watches(device.as_str(), &about.labels) {
                continue;
            }
            let overrides = Plan::overrides(rule, device);
            let plan = self
                .plans
                .entry((number, overrides))
                .or_insert_with_key(|(_, overrides)| Arc::new(Plan::new(rule, overrides)));
            let index = self.slots.len();
            self.slots
                .push(Slot::new(number, Arc::clone(plan), Arc::clone(&about)));
            self.index.insert((number, device.clone()), index);
            made.push(index);
        }
        let slots: Arc<[usize]> = made.into();
        let watch = Watch {
            stamp: None,
            slots: Arc::clone(&slots),
        };
        self.know(device).watches.insert(metric.clone(), watch);
        slots
    }

    fn fire(&mut self, due: impl Fn(EngineTime) -> bool, out: &mut Outcome) {
        while let Some(first) = self.deadlines.first().filter(|(at, ..)| due(*at)) {
            let (at, rule, device) = first.clone();
            self.deadlines.pop_first();
            let Some(index) = self.index.get(&(rule, device)).copied() else {
                continue;
            };
            let id = self.next_episode();
            let Some(slot) = self.slots.get_mut(index) else {
                continue;
            };
            slot.deadline = None;
            let effect = slot.deadline(at, id);
            self.take_effect(index, &effect, at, out);
        }
    }

    fn next_episode(&self) -> EpisodeId {
        EpisodeId {
            epoch: self.epoch,
            number: self.episodes.saturating_add(1),
        }
    }

    /// Says, saves and schedules what a slot did.
    fn take_effect(&mut self, index: usize, effect: &Effect, at: EngineTime, out: &mut Outcome) {
        let (episode, transition, reason) = match effect {
            Effect::None => return,
            Effect::Moved => {
                self.save(index, out);
                self.schedule(index, at);
                return;
            }
            Effect::Raised(episode) => {
                self.episodes = episode.id.number;
                self.active = self.active.saturating_add(1);
                out.state.push(StateChange {
                    key: COUNTER.to_vec(),
                    value: Some(encode(&self.episodes)),
                });
                (episode, Transition::Raised, None)
            }
            Effect::Changed(episode) => (episode, Transition::Changed, None),
            Effect::Cleared(episode, reason) => {
                self.active = self.active.saturating_sub(1);
                (episode, Transition::Cleared, Some(*reason))
            }
        };
        if let Some(slot) = self.slots.get(index) {
            let report = Report {
                about: &slot.about,
                metric: slot.plan.rule.metric().expect("only such rules have slots"),
                unit: slot.unit.as_ref(),
                value: slot.value.as_ref(),
                facts: &slot.plan.facts,
                plan: Some(&slot.plan),
                episode,
                transition,
                reason,
                at: at.max(slot.entered),
            };
            out.events.push(report.draft());
        }
        self.save(index, out);
        self.schedule(index, at);
    }

    /// Puts a slot's deadline into the queue, never before `floor`: what fell due earlier happens then.
    fn schedule(&mut self, index: usize, floor: EngineTime) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let due = slot.due().map(|due| due.max(floor));
        let device = &slot.about.device;
        if slot.deadline != due {
            if let Some(old) = slot.deadline {
                self.deadlines.remove(&(old, slot.rule, device.clone()));
            }
            if let Some(new) = due {
                self.deadlines.insert((new, slot.rule, device.clone()));
            }
            slot.deadline = due;
        }
    }

    /// Adds the slot's state to what is committed.
    fn save(&mut self, index: usize, out: &mut Outcome) {
        let at = self.saved_at();
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        if !slot.touched {
            slot.touched = true;
            self.touched.push(index);
        }
        let device = &slot.about.device;
        let metric = slot.plan.rule.metric().expect("only such rules have slots");
        let value = (!slot.is_plain(at.boot)).then(|| {
            let stamp = self
                .known
                .get(device)
                .and_then(|known| known.watches.get(metric)?.stamp.clone());
            SavedSlot::of(slot, at, metric, stamp).encode()
        });
        out.state.push(StateChange {
            key: slot_key(&slot.plan.rule.name, device),
            value,
        });
    }

    /// The moment that saved times are relative to.
    fn saved_at(&self) -> Moment {
        Moment {
            boot: self.now,
            wall: self.moment.wall_of(self.now),
            ..self.moment
        }
    }
}
