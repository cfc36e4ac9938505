//! A story: lives and deaths of a gateway, and a calm end in which all that is owed is done.

use std::{sync::Arc, time::Duration};

use tidegate::{
    event::{Entry, Epoch, Event},
    journal::{Cursor, Journal, Limit, storage::simulated::Simulated},
    time::{self, BootId, Clock, Timestamp},
};
use tokio::time::Instant;

use super::{
    check,
    device::Device,
    executor::{Executor, TaskId},
    gateway::Life,
    plan::{Day, End, Hands, Plan},
    reference::{Micros, Reference},
    sink::Endpoint,
    world::World,
};

/// What came of a seed.
#[derive(Debug)]
pub struct Told {
    /// All that happened, and what the disk held in the end.
    pub digest: u64,
    /// What happened, a line each.
    pub trace: Vec<String>,
    /// The first promise that was seen broken.
    pub broken: Option<String>,
    /// Every event that was ever on the disk.
    pub events: Vec<Arc<Event>>,
    pub lives: u32,
}

/// 2026-11-21: the story begins.
const WALL: i64 = 1_795_255_200_000_000;
/// Without any fault left everything is done after so long.
const PATIENCE: Duration = Duration::from_secs(180);
/// All holds have ended after so long.
const LAST_DEADLINE: Duration = Duration::from_secs(8);
/// What the simulated clock goes by.
const TICK: Duration = Duration::from_millis(1);
const ALL: Limit = Limit {
    entries: usize::MAX,
    bytes: usize::MAX,
};

/// Tells a seed's story.
pub fn tell(seed: u64) -> Told {
    // The gateway draws back-offs, salts and epochs from this thread's numbers.
    fastrand::seed(seed);
    let mut random = fastrand::Rng::with_seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let plan = Plan::draw(&mut random);
        Story::new(plan, random).tell().await
    })
}

/// A gateway that knows nothing yet.
fn references(plan: &Plan) -> Vec<Vec<Reference>> {
    let references = plan.laws.iter().map(|(_, law)| {
        let devices = plan.devices.iter().map(|_| Reference::new(*law));
        devices.collect()
    });
    references.collect()
}

struct Story {
    plan: Plan,
    random: fastrand::Rng,
    executor: Executor,
    world: World,
    disk: Simulated,
    hands: time::Simulated,
    boot: u128,
    clock: Clock,
    epoch: Option<Epoch>,
    life: Option<Life>,
    lives: u32,
    /// When gateways began to run.
    ups: Vec<Micros>,
    /// The journal is at work until then.
    busy_until: Instant,
    /// How far the observer has read.
    observed: Cursor,
    /// The journal's thread has ended, or stands still.
    ended: Option<Ended>,
    /// When it was asked to stop it took nothing in: what had come then is not evaluated, nor acknowledged.
    parked_at_stop: bool,
    /// By rule, by device.
    references: Vec<Vec<Reference>>,
    /// The card is in another board since the last gateway ran.
    swapped: bool,
    /// This sink gets all once more.
    replay: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Closed,
    Failed,
}

impl Story {
    fn new(plan: Plan, mut random: fastrand::Rng) -> Self {
        let endpoints = plan.sinks.iter().map(|nature| Endpoint {
            filter: nature.filter.clone(),
            ..Endpoint::default()
        });
        let endpoints = endpoints.collect();
        let world = World::new(endpoints, plan.devices.len());
        world.say(&format!("{plan:?}"));
        let hands = time::Simulated::new(BootId(1));
        hands.follow_tokio();
        Self {
            executor: Executor::new(random.fork()),
            world,
            disk: Simulated::default(),
            clock: Clock::simulated(&hands),
            hands,
            boot: 0,
            epoch: None,
            life: None,
            lives: 0,
            ups: Vec::new(),
            busy_until: Instant::now(),
            observed: Cursor::default(),
            ended: None,
            parked_at_stop: false,
            references: references(&plan),
            swapped: false,
            replay: None,
            plan,
            random,
        }
    }

    async fn tell(mut self) -> Told {
        self.reboot();
        for (index, habits) in self.plan.devices.clone().into_iter().enumerate() {
            let device = Device::new(self.world.clone(), index, habits, self.random.fork());
            self.executor.spawn(device.run());
        }
        let days = std::mem::take(&mut self.plan.days);
        self.start();
        for day in days {
            self.live(&day).await;
            if self.world.look().broken.is_some() {
                break;
            }
        }
        self.calm_down().await;
        self.told()
    }

    fn told(mut self) -> Told {
        drop(self.life.take());
        let mut world = self.world.look();
        for path in self.disk.paths() {
            world.add_to_digest(path.as_os_str().as_encoded_bytes());
            world.add_to_digest(&self.disk.content(&path).unwrap_or_default());
        }
        Told {
            digest: world.digest(),
            trace: std::mem::take(&mut world.trace),
            broken: world.broken.take(),
            events: std::mem::take(&mut world.known).into_values().collect(),
            lives: self.lives,
        }
    }

    /// A while, and its end.
    async fn live(&mut self, day: &Day) {
        self.pass(day.length, |_| false).await;
        self.take_steps(day.steps);
        self.world.say(&format!("{:?}", day.end));
        match day.end {
            End::Stop(patience) => {
                self.stop(patience).await;
            }
            End::Kill => self.die(false),
            End::PowerCut => self.die(true),
            End::KillThenPowerCut => {
                self.die(false);
                self.cut_power();
            }
            End::Midway(changes, cut) => {
                self.disk.stop_after(changes);
                self.pass(Duration::from_secs(10), |story| story.ended.is_some())
                    .await;
                self.take_steps(day.steps);
                self.die(cut);
            }
            End::FailingSync(syncs, cut) => {
                self.disk.fail_after_syncs(syncs);
                self.pass(Duration::from_secs(10), |story| story.ended.is_some())
                    .await;
                self.take_steps(day.steps);
                self.die(false);
                self.disk.set_failing_sync(false);
                if cut {
                    self.cut_power();
                }
            }
            End::FullDisk(length) => {
                self.disk.set_full(true);
                self.pass(length, |_| false).await;
                self.disk.set_full(false);
            }
        }
        if self.life.is_some() && self.ended.is_none() {
            return;
        }
        self.die(false);
        // Never in no time: stamps of one millisecond differ by microseconds, and run ahead of the simulated clock.
        self.pass(day.down + TICK, |_| false).await;
        self.put(day.hands);
        for changes in &day.cut_starts {
            self.disk.stop_after(*changes);
            self.world.say("a start that is cut short");
            if Life::open(&self.plan, &self.disk, &self.clock).is_ok() {
                // It came as far as that, and no further.
                self.world.say("it opened");
            }
            if self.random.bool() {
                self.disk.kill();
            } else {
                self.cut_power();
            }
        }
        self.start();
    }

    fn put(&mut self, hands: Hands) {
        self.world.say(&format!("hands: {hands:?}"));
        self.plan.absent.clear();
        match hands {
            Hands::Nothing => {}
            Hands::Swap => {
                self.plan.board += 1;
                self.swapped = true;
            }
            Hands::Remove(sink) => self.plan.absent.push(sink),
            Hands::Replay(sink) => self.replay = Some(sink),
        }
    }

    /// The machine has no power for a moment.
    fn cut_power(&mut self) {
        self.world.say("no power");
        self.disk.power_cut(&mut self.random);
        self.reboot();
    }

    fn reboot(&mut self) {
        self.boot += 1;
        self.hands.reboot(BootId(self.boot));
        let mut world = self.world.look();
        let now = world.now();
        world.boots.insert(self.boot, now);
        if self.plan.synchronised {
            self.hands.set(Timestamp(WALL + now));
            self.hands.synchronise(true);
        }
        self.clock = Clock::simulated(&self.hands);
    }

    fn start(&mut self) {
        let opened = match Life::open(&self.plan, &self.disk, &self.clock) {
            Ok(opened) => opened,
            Err(error) => {
                self.world
                    .look()
                    .accuse(format!("G6: it does not start: {error}"));
                return;
            }
        };
        let (journal, recovered, _) = &opened;
        self.world.say(&format!(
            "a gateway starts: {} to {}{}{}",
            recovered.first.0,
            recovered.last.0,
            if recovered.clean { ", clean" } else { "" },
            recovered.findings.join("; "),
        ));
        let (journal, epoch, first) = (journal.clone(), recovered.epoch, recovered.first.0);
        self.observed = Cursor::default();
        let there = self.observe(&journal);
        let before = if self.swapped { None } else { self.epoch };
        check::found(&mut self.world.look(), before, epoch, first, &there);
        if self.epoch.is_some_and(|before| before != epoch) {
            // Of alarms that were open nobody knows any more.
            self.references = references(&self.plan);
        }
        (self.epoch, self.swapped) = (Some(epoch), false);
        let up = self.world.look().now();
        self.ups.push(up);
        self.lives += 1;
        self.ended = None;
        self.busy_until = Instant::now();
        self.life = Some(Life::begin(
            opened,
            &self.plan,
            self.replay.take(),
            &self.clock,
            &self.world,
            &mut self.executor,
            &mut self.random,
        ));
    }

    /// The process is gone, and perhaps the machine's power with it.
    fn die(&mut self, power: bool) {
        let clean = self.ended == Some(Ended::Closed) && !self.parked_at_stop;
        if let Some(life) = self.life.take() {
            life.gone.cancel();
            self.executor.kill(&life.tasks);
            drop(life);
            self.world.look().door = None;
            self.disk.kill();
            self.remember(clean);
        }
        if power {
            self.cut_power();
        }
    }

    /// What the gateway took in, in all the worlds that are possible now.
    fn remember(&mut self, clean: bool) {
        let mut world = self.world.look();
        for (device, arrivals) in world.arrivals.iter_mut().enumerate() {
            let arrivals = std::mem::take(arrivals);
            for devices in &mut self.references {
                devices[device].live(&arrivals, clean);
            }
        }
    }

    async fn stop(&mut self, patience: Duration) -> Option<TaskId> {
        let life = self.life.as_mut()?;
        self.parked_at_stop = life.journal.health().borrow().parked;
        life.gone.cancel();
        self.world.look().door = None;
        let task = self.executor.spawn(life.stop());
        life.tasks.push(task);
        self.pass(patience, |story| story.ended.is_some()).await;
        if self.ended != Some(Ended::Closed) {
            self.world.say("it takes too long to stop");
            self.die(false);
        }
        Some(task)
    }

    /// Nothing happens any more but what is owed.
    async fn calm_down(&mut self) {
        self.world.say("calm");
        self.world.look().calm = true;
        if self.life.is_none() || self.ended.is_some() || !self.plan.absent.is_empty() {
            self.die(false);
            self.pass(TICK, |_| false).await;
            self.put(Hands::Nothing);
            self.start();
        }
        let all_there = |story: &Self| check::is_done(&story.world.look());
        self.pass(LAST_DEADLINE, |story| story.ended.is_some()).await;
        // Somebody has put the receivers right, and has them sent again what they refused.
        if let Some(life) = &self.life {
            life.journal.resend(&life.journal.dead_letters());
        }
        self.pass(PATIENCE, |story| story.ended.is_some() || all_there(story))
            .await;
        if self.ended.is_some() {
            self.world
                .look()
                .accuse("the journal failed without a fault".to_owned());
        }
        self.remember(false);
        let mut world = self.world.look();
        check::all(&mut world, self.epoch, &self.references, &self.plan, &self.ups);
    }

    /// Some tasks go on for a while, in no time.
    fn take_steps(&mut self, steps: u16) {
        for _ in 0..steps {
            if !self.step() {
                return;
            }
        }
    }

    /// Until `is_over`, at most so long.
    async fn pass(&mut self, length: Duration, is_over: impl Fn(&Self) -> bool) {
        let end = Instant::now() + length;
        loop {
            let before = self.ended;
            if self.step() {
                if before.is_none() && is_over(self) {
                    return;
                }
                continue;
            }
            if Instant::now() >= end || is_over(self) {
                return;
            }
            let journal = self.journal_due().unwrap_or(end).min(end);
            self.executor.idle(journal).await;
        }
    }

    /// One task, or the journal, takes a step. False: nobody has anything to do now.
    fn step(&mut self) -> bool {
        let journal = self.journal_due().is_some_and(|due| due <= Instant::now());
        match self.executor.step(journal) {
            None => false,
            Some(true) => true,
            Some(false) => {
                self.turn();
                true
            }
        }
    }

    /// When the journal takes its next turn.
    fn journal_due(&self) -> Option<Instant> {
        let stepped = self.life.as_ref()?.stepped.as_ref()?;
        if self.ended.is_some() {
            return None;
        }
        let wait = stepped.due().since(self.clock.now());
        // Tokio's timers are no finer than that: else it would not be due when they say so.
        let wait = Duration::from_millis(u64::try_from(wait.as_micros().div_ceil(1000)).unwrap());
        Some((Instant::now() + wait).max(self.busy_until))
    }

    fn turn(&mut self) {
        let Some(life) = &mut self.life else { return };
        let Some(stepped) = &mut life.stepped else { return };
        match stepped.turn() {
            Ok(true) => {
                let work = self.plan.disk.mul_f64(self.random.f64());
                self.busy_until =
                    Instant::now() + Duration::from_millis(u64::try_from(work.as_millis()).unwrap());
            }
            Ok(false) => {
                self.ended = Some(Ended::Closed);
                self.world.say("the journal is closed");
            }
            Err(error) => {
                self.ended = Some(Ended::Failed);
                self.world.say(&format!("the journal has ended: {error}"));
            }
        }
        let journal = life.journal.clone();
        if self.ended == Some(Ended::Closed) {
            life.stepped = None;
        }
        self.observe(&journal);
    }

    /// Reads what has become durable.
    fn observe(&mut self, journal: &Journal) -> Vec<Entry> {
        let mut world = self.world.look();
        let mut all = Vec::new();
        loop {
            // Never of two epochs at once.
            let entries = match journal.read_after_blocking(self.observed, ALL) {
                Ok(entries) => entries,
                Err(error) => {
                    world.accuse(format!("it cannot be read: {error}"));
                    return all;
                }
            };
            let Some(last) = entries.last() else { return all };
            self.observed = Cursor::behind(last);
            for entry in &entries {
                world.learn(entry);
            }
            all.extend(entries);
        }
    }
}
