//! A device: publishes readings, sends again what was not acknowledged, and forgets what was.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tidegate::{
    event::Position,
    reading::{DeviceId, Metric, Reading, Value},
    source::{Answer, Answers, Delivery},
};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    reference::Arrival,
    world::{Door, World},
};

/// What a device sends.
const LEVELS: [f64; 6] = [20.0, 27.0, 29.0, 31.0, 31.0, 35.0];

pub const METRIC: &str = "temperature";

/// How a device behaves.
#[derive(Clone, Debug)]
pub struct Habits {
    /// Unacknowledged readings at most; none: nothing is acknowledged (QoS 0).
    pub window: Option<usize>,
    /// The longest pause between two readings.
    pub pause: Duration,
    /// An acknowledgement is lost with the connection, of 1000.
    pub cuts: u16,
}

pub struct Device {
    pub world: World,
    pub index: usize,
    pub habits: Habits,
    pub random: fastrand::Rng,
    /// Readings made so far.
    made: u32,
    unacknowledged: VecDeque<u32>,
    values: Vec<f64>,
    next: Instant,
}

/// What the gateway was given over one life of its, and what it has answered.
#[derive(Default)]
struct Owed {
    answers: Arc<Answers>,
    /// (place among the arrivals, reading) of what is answered but not durable.
    waiting: VecDeque<(usize, Position)>,
}

pub fn name(index: usize) -> String {
    format!("device-{index}")
}

impl Device {
    pub fn new(world: World, index: usize, habits: Habits, random: fastrand::Rng) -> Self {
        Self {
            world,
            index,
            habits,
            random,
            made: 0,
            unacknowledged: VecDeque::new(),
            values: Vec::new(),
            next: Instant::now(),
        }
    }

    /// Until the story ends.
    pub async fn run(mut self) {
        loop {
            let pause = self.random.u64(1..2000);
            sleep(Duration::from_millis(pause)).await;
            let door = self.world.look().door.clone();
            let Some(door) = door else { continue };
            self.visit(door).await;
        }
    }

    /// As long as the gateway lives.
    async fn visit(&mut self, mut door: Door) {
        let mut owed = Owed::default();
        let mut fresh = true;
        loop {
            if std::mem::take(&mut fresh) {
                if door.health.borrow().parked {
                    // Refused before evaluation: the device comes back later.
                    tokio::select! {
                        biased;
                        () = door.gone.cancelled() => return,
                        () = sleep(Duration::from_millis(700)) => {}
                    }
                    fresh = true;
                    if door.health.borrow().parked {
                        continue;
                    }
                }
                // What the last connection was answered nobody hears any more.
                owed = Owed::default();
                for reading in self.unacknowledged.clone() {
                    self.send(&door, &owed, reading);
                }
            }
            let room = self
                .habits
                .window
                .is_none_or(|window| self.unacknowledged.len() < window)
                && !door.health.borrow().parked;
            let calm = self.world.look().calm;
            tokio::select! {
                biased;
                () = door.gone.cancelled() => return,
                () = owed.answers.arrived() => {}
                changed = door.durable.changed() => if changed.is_err() { return },
                () = sleep_until(self.next), if room && !calm => {
                    let pause = self.habits.pause.mul_f64(self.random.f64());
                    self.next = Instant::now() + pause;
                    self.read(&door, &owed);
                    self.world.look().owing[self.index] = self.unacknowledged.len();
                    fresh = self.is_cut();
                    if fresh {
                        sleep(Duration::from_millis(self.random.u64(..100))).await;
                        continue;
                    }
                }
                () = sleep(Duration::from_secs(1)), if !room => {}
            }
            fresh = !self.take_answers(&door, &mut owed);
            self.world.look().owing[self.index] = self.unacknowledged.len();
        }
    }

    fn read(&mut self, door: &Door, owed: &Owed) {
        let number = self.made;
        self.made += 1;
        let level = LEVELS[self.random.usize(..LEVELS.len())];
        self.values.push(level - f64::from(number) * 1e-6);
        self.unacknowledged.push_back(number);
        self.send(door, owed, number);
        if self.habits.window.is_none() {
            self.unacknowledged.clear();
        }
    }

    fn send(&self, door: &Door, owed: &Owed, number: u32) {
        let (at, stamped) = door.stamps.stamp(None);
        let value = self.values[number as usize];
        let reading = Reading {
            device: DeviceId::new(&name(self.index)).unwrap(),
            metric: Metric::new(METRIC).unwrap(),
            value: Value::Number(value),
            unit: None,
            at,
            stamped,
        };
        let mut world = self.world.look();
        let place = world.arrivals[self.index].len();
        let delivery = Delivery {
            readings: vec![reading],
            ticket: owed.answers.ticket(place as u64),
        };
        if door.intake.try_send(delivery).is_err() {
            return;
        }
        let at = at.0 + world.boots[&door.boot.0];
        world.say(&format!("device {}: sends {number}: {value}", self.index));
        world.arrivals[self.index].push(Arrival {
            at,
            reading: number,
            value,
            safe: false,
        });
    }

    fn is_cut(&mut self) -> bool {
        self.habits.window.is_some() && self.random.u16(..1000) < self.habits.cuts && !self.world.look().calm
    }

    /// What is durable is acknowledged. False: the connection was cut, and the device has not heard of it.
    fn take_answers(&mut self, door: &Door, owed: &mut Owed) -> bool {
        for (place, answer) in owed.answers.take() {
            if let Answer::AfterDurable(position) = answer {
                owed.waiting
                    .push_back((usize::try_from(place).unwrap(), position));
            }
        }
        let durable = *door.durable.borrow();
        while let Some((place, _)) = owed.waiting.pop_front_if(|(_, position)| *position <= durable) {
            let mut world = self.world.look();
            let arrival = &mut world.arrivals[self.index][place];
            arrival.safe = true;
            let number = arrival.reading;
            drop(world);
            if self.is_cut() {
                self.world.say(&format!(
                    "device {}: is cut before it hears of {number}",
                    self.index
                ));
                return false;
            }
            self.world
                .say(&format!("device {}: {number} is acknowledged", self.index));
            self.unacknowledged.retain(|it| *it != number);
        }
        true
    }
}
