//! The engine: readings and time in, transitions out.
//!
//! A pure state machine: the same calls give the same outcomes. It never reads a clock, waits, logs or
//! writes; whoever drives it commits each [`Outcome`], whole or in its pieces, and tells the [`Position`] back.
//!
//! A reading costs what the rules that watch its (device, metric) cost, however many rules there are. Memory
//! is bounded by `max_devices`, `max_metrics` and the windows' `window-max`: for each (rule, device) a [`Slot`],
//! its place in the queue and in two lists; what only an episode, a window or a sub-condition needs is beside it.
//! What a restart must know is in [`Outcome::state`]; only the smallest and largest value and the count of an
//! episode may lag behind, until its next commit.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use self::{
    basis::Bases,
    devices::Devices,
    hush::Hushes,
    latch::{NEVER, NO_DEADLINE, Slot},
    plan::Plan,
    queue::Queue,
    table::Table,
    watch::Watch,
};
use super::{DeviceFacts, Rule, state::Outcome};
use crate::{
    event::{EpisodeId, Epoch, Labels, Position, Severity},
    reading::{DeviceId, Metric, Reading, Value},
    time::{EngineTime, Moment},
};

mod act;
mod basis;
mod build;
mod checkpoint;
mod devices;
mod hush;
mod kept;
mod latch;
mod look;
mod operate;
mod plan;
mod queue;
mod refuse;
mod restore;
mod saved;
mod slot;
mod speak;
mod table;
mod watch;
mod window;

pub use refuse::Refused;

/// A device that has been only late for so long does not deliver late: its clock went back.
const REANCHOR_AFTER: Duration = Duration::from_secs(30);

/// So many slots of one commit need no new memory: more are rare, and theirs is given back.
const TOUCHED: usize = 64;

/// The engine. A pure state machine.
#[derive(Debug)]
pub struct Engine {
    rules: Vec<Arc<Rule>>,
    /// The place of each rule, by name.
    rule_numbers: HashMap<Arc<str>, u32>,
    facts: Vec<DeviceFacts>,
    no_labels: Arc<Labels>,
    epoch: Epoch,
    max_devices: usize,
    max_metrics: usize,
    checkpoint: Duration,
    /// The number of the last episode.
    episodes: u64,
    /// The number of the last mute.
    mute_number: u64,
    active: usize,
    /// The latest time heard of.
    now: EngineTime,
    moment: Moment,
    devices: Devices,
    metrics: HashMap<Metric, u32>,
    metric_names: Table<Metric>,
    /// The rules about each metric, in their order.
    by_metric: HashMap<u32, Vec<u32>>,
    /// The rules about several, in their order.
    composites: Vec<u32>,
    /// The rules whose `unless` looks at this metric of their own device.
    quieted: HashMap<u32, Vec<u32>>,
    watches: Table<Watch>,
    slots: Table<Slot>,
    plans: Table<Arc<Plan>>,
    /// (rule, overrides) to plan.
    plan_of: HashMap<(u32, Vec<usize>), u32>,
    queue: Queue,
    hushes: Hushes,
    /// Decided, not yet committed; some more than once.
    touched: Vec<u32>,
    /// The last commit before the configuration changed: no slot remembers it, and it may not be durable yet.
    rests_on: Position,
    /// Slots that the journal had no room for; they wait for a reading, or until then.
    refused: BTreeSet<u32>,
    retry_at: EngineTime,
    unsaved: VecDeque<checkpoint::Unsaved>,
    bases: Bases,
    /// The moment on the disk is of this boot and a right clock.
    vouched: bool,
    counts: Counts,
    /// All that was kept was taken in.
    settled: bool,
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
    /// How often [`Engine::save_windows`] is called: what a crash may cost.
    pub checkpoint: Duration,
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
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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

impl Engine {
    /// Restores the state the journal kept. `saved` is what `Recovered::state` had; `now` is this boot's moment
    /// (running timers count the time that passed only if both ends were synchronised or of the same boot).
    /// What the edited or removed rules end, and what fell due meanwhile, goes into `out`.
    pub fn restore(setup: Setup, saved: &[(Vec<u8>, Vec<u8>)], now: Moment, out: &mut Outcome) -> Self {
        let mut engine = Self::new(setup, now);
        let (kept, bases) = engine.read(saved, &now, out);
        engine.take_bases(bases.rested(out));
        engine.take(kept, out);
        engine.settle(out);
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
        let (device, watch) = self.admit(reading, out)?;
        out.depends_on = out.depends_on.max(self.rests_on);
        for slot in self.watches[watch].slots() {
            out.depends_on = out.depends_on.max(self.slots[*slot].committed);
        }
        let at = self.place(device, watch, reading)?;
        self.now = self.now.max(at);
        self.fire(|deadline| deadline < at, out);
        self.enter(watch, at, reading, out);
        self.fire(|deadline| deadline <= at, out);
        out.may_end();
        self.counts.evaluated = self.counts.evaluated.saturating_add(1);
        Ok(())
    }

    /// Fires the deadlines up to `now`.
    pub fn advance(&mut self, now: EngineTime, out: &mut Outcome) {
        self.now = self.now.max(now);
        self.fire(|deadline| deadline <= now, out);
        if self.tries_again() <= now {
            self.try_again(out);
        }
    }

    /// When `advance` must be called at the latest. It may find that nothing was due yet.
    pub fn next_deadline(&self) -> Option<EngineTime> {
        let next = self.queue.first().min(self.hushes.next()).min(self.tries_again());
        (next != NO_DEADLINE).then_some(next)
    }

    /// The driver committed all that was decided since the last call: later observations of the same
    /// state depend on it.
    pub fn committed(&mut self, position: Position) {
        for index in self.touched.drain(..) {
            let slot = &mut self.slots[index];
            slot.committed = slot.committed.max(position);
        }
        self.touched.shrink_to(TOUCHED);
        self.bases.committed();
    }

    /// Episodes that are active.
    pub fn active(&self) -> usize {
        self.active
    }

    /// Devices that were heard and not forgotten.
    pub fn devices_seen(&self) -> usize {
        self.devices.iter().filter(|device| device.seen).count()
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Both clocks, now. Call it before each batch of readings: saved state remembers the wall clock, periods
    /// follow it, and how long a device has been late is measured by it. Fires nothing.
    pub fn set_moment(&mut self, moment: Moment) {
        self.moment = moment;
        self.now = self.now.max(moment.boot);
        self.hushes.set_moment(&moment);
    }

    /// Whether the reading's names are within the limits; takes note of new ones.
    fn admit(&mut self, reading: &Reading, out: &mut Outcome) -> Result<(u32, u32), Skipped> {
        let device = self.devices.find(&reading.device);
        let metric = self.metrics.get(&reading.metric).copied();
        if let (Some(device), Some(metric)) = (device, metric)
            && let known = &self.devices[device]
            && known.seen
            && let Some(watch) = known.watch(metric)
            && self.watches[watch].staffed
        {
            return Ok((device, watch));
        }
        let fits = match device {
            Some(device) => {
                let known = &self.devices[device];
                metric.is_some_and(|metric| known.watch(metric).is_some())
                    || known.watches.len() < self.max_metrics
            }
            // Who invents names takes no place from a device that the configuration names.
            None => {
                let named = || {
                    self.facts
                        .iter()
                        .any(|facts| *facts.id.0 == *reading.device.as_str())
                };
                self.max_metrics > 0 && ((self.devices.len() as usize) < self.max_devices || named())
            }
        };
        if !fits {
            self.counts.over_limit = self.counts.over_limit.saturating_add(1);
            return Err(Skipped::OverLimit);
        }
        // What fell due before it came finds nothing of it yet.
        self.fire(|deadline| deadline < reading.at, out);
        let device = self.know(&reading.device);
        self.see(device, self.now.max(reading.at));
        let watch = self.watch(device, &reading.metric, NEVER);
        Ok((device, watch))
    }

    /// Where on the boot clock the reading belongs.
    fn place(&mut self, device: u32, watch: u32, reading: &Reading) -> Result<EngineTime, Skipped> {
        let now = if reading.stamped {
            self.now
        } else {
            self.now.max(reading.at)
        };
        let known = &mut self.devices[device];
        let watch = &self.watches[watch];
        if !reading.stamped {
            known.late_since = NEVER;
            return Ok(reading.at);
        }
        let mut at = reading.at.shifted(known.offset);
        if known.offset > 0 && at > now {
            // The device's clock came forward again: its stamps must not run ahead of ours.
            known.offset = now.0.saturating_sub(reading.at.0).max(0);
            at = reading.at.shifted(known.offset);
        }
        let stamp = watch.stamp();
        if stamp != NEVER {
            if at < stamp {
                if known.late_since == NEVER {
                    known.late_since = now;
                }
                if now.since(known.late_since) < REANCHOR_AFTER {
                    self.counts.late = self.counts.late.saturating_add(1);
                    return Err(Skipped::Late);
                }
                known.offset = now.0.saturating_sub(reading.at.0).max(0);
                at = now;
                self.counts.reanchored = self.counts.reanchored.saturating_add(1);
            } else if at == stamp && watch.repeats(&reading.value) {
                self.counts.duplicates = self.counts.duplicates.saturating_add(1);
                return Err(Skipped::Duplicate);
            }
        }
        known.late_since = NEVER;
        Ok(at)
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
