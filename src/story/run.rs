//! Telling a story to the engine: the daemon's loop without its clock, its disk and its tasks.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{Act, At, ClockChange, ClockSet, Said, Story, parse::Rules};
use crate::{
    event::{Epoch, Position},
    reading::Reading,
    rule::{
        engine::{Engine, Setup},
        state::Outcome,
    },
    time::{BootId, ClockQuality, EngineTime, Moment, Timestamp},
};

/// `[mqtt] max-devices` and `max-metrics` as they are by default.
const MAX_DEVICES: usize = 2000;
const MAX_METRICS: usize = 100;
/// `[events] max-clock-skew` as it is by default, in microseconds.
const MAX_CLOCK_SKEW: u64 = 600_000_000;

/// How the gateway goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A clean stop and a start.
    Restart,
    /// kill -9 and a start.
    Kill,
    /// A power cut: another boot, another boot clock.
    Reboot,
}

/// What comes between the steps of a story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// A stop and a start.
    Stop(Stop),
    /// The same configuration is taken up again.
    Reload,
}

/// Something that the story does not tell of, to see that it changes nothing.
#[derive(Clone, Copy, Debug)]
pub struct Interruption {
    /// What.
    pub by: Between,
    /// Right before the steps of the n-th different time of the story; none: before all.
    pub before: Option<usize>,
}

/// The gateway of a story.
pub(super) struct Gateway {
    rules: Arc<Rules>,
    engine: Engine,
    /// What the disk has.
    saved: BTreeMap<Vec<u8>, Vec<u8>>,
    pub said: Vec<Said>,
    commits: u64,
    /// This boot, and when its clock read zero.
    boot: u128,
    booted: At,
    /// What the wall clock is ahead of the story, in microseconds.
    wall: i64,
    /// The same of a right clock, which the devices have.
    right: i64,
    /// How far a device's time may be off the wall clock, in microseconds.
    pub max_clock_skew: u64,
    quality: ClockQuality,
    /// How often windows are saved, in microseconds, and when next.
    checkpoint: i64,
    next_checkpoint: At,
    /// The configuration is edited while the gateway is down.
    reloads_by_restart: bool,
}

impl Story {
    /// All that is said, in order.
    #[must_use]
    pub fn tell(&self) -> Vec<Said> {
        self.tell_interrupted(None)
    }

    /// The same with restarts between.
    #[must_use]
    pub fn tell_interrupted(&self, interruption: Option<Interruption>) -> Vec<Said> {
        self.tell_by(Gateway::new(self), interruption)
    }

    /// The same with a clean restart in place of each reload.
    #[must_use]
    pub fn tell_restarted(&self) -> Vec<Said> {
        let mut gateway = Gateway::new(self);
        gateway.reloads_by_restart = true;
        self.tell_by(gateway, None)
    }

    fn tell_by(&self, mut gateway: Gateway, interruption: Option<Interruption>) -> Vec<Said> {
        let mut times = 0;
        let mut steps = self.steps.as_slice();
        let mut last = At(0);
        while let Some(at) = steps.first().map(|step| step.at) {
            let count = steps.iter().take_while(|step| step.at == at).count();
            let (now, later) = steps.split_at(count);
            if let Some(Interruption { by, before }) = interruption
                && before.is_none_or(|before| before == times)
            {
                // What falls due at the very time of a step comes after its readings: so the restart is just before.
                let just_before = At(at.0 - 1).max(last);
                gateway.pass(just_before);
                match by {
                    Between::Stop(stop) => {
                        if stop != Stop::Restart {
                            // What a crash may cost, window data younger than the checkpoint, is a story of its own.
                            gateway.save_windows(just_before);
                        }
                        gateway.start(stop, just_before, 0, ClockChange::default());
                    }
                    Between::Reload => gateway.reload(),
                }
            }
            gateway.pass(at);
            let mut up = at;
            for step in now {
                up = gateway.obey(&step.act, up);
            }
            gateway.settle(up);
            (steps, last) = (later, up);
            times += 1;
        }
        gateway.said
    }

    /// How many different times the steps have: each can be interrupted.
    #[must_use]
    pub fn times(&self) -> usize {
        self.steps.chunk_by(|a, b| a.at == b.at).count()
    }
}

impl Gateway {
    pub fn new(story: &Story) -> Self {
        let (boot, wall) = (1, story.start.0);
        let moment = Moment {
            boot_id: BootId(boot),
            boot: EngineTime(0),
            wall: Timestamp(wall),
            quality: story.quality,
        };
        let mut out = Outcome::default();
        let engine = Engine::restore(setup(&story.rules, story.checkpoint.0), &[], moment, &mut out);
        let mut gateway = Self {
            rules: Arc::clone(&story.rules),
            engine,
            saved: BTreeMap::new(),
            said: Vec::new(),
            commits: 0,
            boot,
            booted: At(0),
            wall,
            right: wall,
            max_clock_skew: MAX_CLOCK_SKEW,
            quality: story.quality,
            checkpoint: story.checkpoint.0,
            next_checkpoint: story.checkpoint,
            reloads_by_restart: false,
        };
        gateway.commit(out);
        gateway
    }

    /// Both clocks at a time of the story.
    fn moment(&self, at: At) -> Moment {
        Moment {
            boot_id: BootId(self.boot),
            boot: self.boot_clock(at),
            wall: Timestamp(at.0.saturating_add(self.wall)),
            quality: self.quality,
        }
    }

    fn boot_clock(&self, at: At) -> EngineTime {
        EngineTime(at.0 - self.booted.0)
    }

    /// The device's own time, which is a right clock's, as far as the gateway believes it: as at the door
    /// (`source::Stamps`), one that is ahead of ours is now.
    fn believed(&self, stamp: At, at: At) -> Option<EngineTime> {
        let own = stamp.0.saturating_add(self.right);
        let now = at.0.saturating_add(self.wall);
        if self.quality != ClockQuality::Synchronised || own.abs_diff(now) >= self.max_clock_skew {
            return None;
        }
        let age = now.saturating_sub(own).max(0);
        Some(EngineTime(self.boot_clock(at).0.saturating_sub(age)))
    }

    /// Time goes by: every deadline before `at` fires, each at its own time. One at `at` waits for the readings there.
    pub fn pass(&mut self, at: At) {
        loop {
            let due = self.engine.next_deadline().map(|due| At(due.0 + self.booted.0));
            let next = due.map_or(self.next_checkpoint, |due| due.min(self.next_checkpoint));
            if next >= at {
                break;
            }
            if due == Some(next) {
                self.settle(next);
            }
            if next == self.next_checkpoint {
                self.save_windows(next);
            }
        }
        self.engine.set_moment(self.moment(at));
    }

    /// What windows took in is saved now and then: a crash costs what came since.
    fn save_windows(&mut self, at: At) {
        self.engine.set_moment(self.moment(at));
        let mut out = Outcome::default();
        self.engine.save_windows(&mut out);
        self.commit(out);
        self.next_checkpoint = At(at.0.saturating_add(self.checkpoint));
    }

    /// All deadlines up to `at`, those at it too.
    pub fn settle(&mut self, at: At) {
        let mut out = Outcome::default();
        self.engine.set_moment(self.moment(at));
        self.engine.advance(self.boot_clock(at), &mut out);
        self.commit(out);
    }

    /// Does what the step tells; answers when it is done.
    pub fn obey(&mut self, act: &Act, at: At) -> At {
        match act {
            Act::Pass => at,
            Act::Tell {
                device,
                metric,
                value,
                unit,
                stamp,
            } => {
                let own = stamp.and_then(|stamp| self.believed(stamp, at));
                let reading = Reading {
                    device: device.clone(),
                    metric: metric.clone(),
                    value: value.clone(),
                    unit: unit.clone(),
                    at: own.unwrap_or_else(|| self.boot_clock(at)),
                    stamped: own.is_some(),
                };
                let mut out = Outcome::default();
                // That it is late or a duplicate is part of the story.
                self.engine.observe(&reading, &mut out).ok();
                self.commit(out);
                at
            }
            Act::Start { stop, away, clock } => self.start(*stop, at, *away, *clock),
            Act::Clock(change) => {
                self.set_clock(at, *change);
                self.engine.set_moment(self.moment(at));
                at
            }
            Act::Reload(rules) => {
                self.rules = Arc::clone(rules);
                if self.reloads_by_restart {
                    return self.start(Stop::Restart, at, 0, ClockChange::default());
                }
                self.reload();
                at
            }
            Act::Mute {
                target,
                length,
                reason,
            } => {
                let mut out = Outcome::default();
                self.engine.mute(target.clone(), *length, reason, &mut out);
                self.commit(out);
                at
            }
            // That there was nothing to end, or nobody to forget, is part of the story: no event comes.
            Act::Unmute(target) => {
                let mut out = Outcome::default();
                self.engine.unmute(target, &mut out);
                self.commit(out);
                at
            }
            Act::Forget(device) => {
                let mut out = Outcome::default();
                self.engine.forget(device, &mut out);
                self.commit(out);
                at
            }
        }
    }

    fn reload(&mut self) {
        let mut out = Outcome::default();
        self.engine
            .reconfigure(setup(&self.rules, self.checkpoint), &mut out);
        self.commit(out);
    }

    /// Down at `at`, up again `away` later; answers when.
    fn start(&mut self, stop: Stop, at: At, away: i64, clock: ClockChange) -> At {
        if stop == Stop::Restart {
            self.settle(at);
            let mut out = Outcome::default();
            self.engine.checkpoint(&mut out);
            self.commit(out);
        }
        let up = At(at.0.saturating_add(away));
        self.next_checkpoint = At(up.0.saturating_add(self.checkpoint));
        if stop == Stop::Reboot {
            self.boot += 1;
            self.booted = up;
        }
        self.set_clock(up, clock);
        let saved: Vec<_> = self.saved.clone().into_iter().collect();
        let mut out = Outcome::default();
        self.engine = Engine::restore(
            setup(&self.rules, self.checkpoint),
            &saved,
            self.moment(up),
            &mut out,
        );
        self.commit(out);
        up
    }

    fn set_clock(&mut self, at: At, change: ClockChange) {
        match change.set {
            Some(ClockSet::To(wall)) => self.wall = wall.0.saturating_sub(at.0),
            Some(ClockSet::By(micros)) => self.wall = self.wall.saturating_add(micros),
            None => {}
        }
        self.quality = change.quality.unwrap_or(self.quality);
    }

    /// What the journal does.
    fn commit(&mut self, out: Outcome) {
        if out.events.is_empty() && out.state.is_empty() {
            return;
        }
        for change in out.state {
            match change.value {
                Some(value) => self.saved.insert(change.key, value),
                None => self.saved.remove(&change.key),
            };
        }
        let booted = self.booted;
        self.said.extend(out.events.into_iter().map(|draft| Said {
            at: At(draft.at.0 + booted.0),
            booted,
            draft,
        }));
        self.commits += 1;
        self.engine.committed(Position(self.commits));
    }
}

fn setup(rules: &Rules, checkpoint: i64) -> Setup {
    Setup {
        rules: rules.rules.clone(),
        devices: rules.devices.clone(),
        epoch: Epoch(1),
        max_devices: MAX_DEVICES,
        max_metrics: MAX_METRICS,
        checkpoint: Duration::from_micros(checkpoint.unsigned_abs()),
    }
}
