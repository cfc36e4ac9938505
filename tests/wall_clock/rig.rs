//! A gateway's heart on clocks that the test moves: journal, engine, and the watch of the wall clock.

use std::{path::PathBuf, sync::Arc, time::Duration};

use serde_json::Value as Json;
use tidegate::{
    config::{Config, Machine},
    daemon::{announce::Announcer, wall_clock::WallClock},
    event::{Origin, Sequence, cloudevents},
    journal::{
        self, Cursor, Journal, Limit, Owner, Running, SinkPlan, WhenFull,
        storage::simulated::Simulated as Disk,
    },
    reading::{DeviceId, Metric, Reading, Value},
    rule::{
        engine::{Engine, Setup},
        state::Outcome,
    },
    time::{BootId, Clock, EngineTime, Simulated, Timestamp},
};

use super::contract;

/// 2027-01-15T08:00:00Z.
pub(crate) const NOON: Timestamp = Timestamp(1_800_000_000_000_000);
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

/// Longer than any wait here on the slowest machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const RULES: &str = r#"
[gateway]
id = "gw"

[mqtt]
listen = ["127.0.0.1:0"]

[[mqtt.readings]]
topic = "{device}"
format = "json"

[[mqtt.readings.metric]]
name = "temperature"
at = "/t"

[[rule]]
name = "high-temperature"
metric = "temperature"
above = 30
clear = 28
hold = "30s"
event = "HighTemperature"
"#;

/// A board: its clocks and its disk.
pub(crate) struct Board {
    pub(crate) hands: Simulated,
    disk: Disk,
    pub(crate) max_age: Option<Duration>,
}

impl Board {
    pub(crate) fn new() -> Self {
        Self {
            hands: Simulated::new(BootId(1)),
            disk: Disk::default(),
            max_age: None,
        }
    }

    /// A time source sets the wall clock and vouches for it.
    pub(crate) fn synchronise(&self, wall: Timestamp) {
        self.hands.set(wall);
        self.hands.synchronise(true);
    }

    /// The daemon starts.
    pub(crate) fn start(&self) -> Run {
        let clock = Clock::simulated(&self.hands);
        let settings = journal::Settings {
            dir: PathBuf::from("/journal"),
            max_bytes: 16 * 1024 * 1024,
            max_age: self.max_age,
            when_full: WhenFull::DropOldest,
            state_delay: Duration::ZERO,
        };
        let owner = Owner {
            origin: Arc::new(Origin {
                gateway: "gw".into(),
                source: "urn:tidegate:gateway:gw".into(),
                labels: [].into(),
                version: "0.1.0".into(),
            }),
            machine_id: "m".to_owned(),
            board_serial: "b".to_owned(),
            sinks: vec![SinkPlan {
                name: "cloud".parse().unwrap(),
                required: true,
                from_oldest: false,
            }],
        };
        let (journal, recovered, running) =
            Journal::open_on(self.disk.mount(), &settings, owner, clock.clone()).unwrap();
        let machine = Machine {
            board_serial: "b".to_owned(),
            machine_id: "m".to_owned(),
            state_directory: "/nowhere".into(),
            filesystem_bytes: |_| None,
        };
        let config = Config::parse("gateway.toml", RULES, &machine).expect("the rules are right");
        let setup = Setup {
            rules: config.rules,
            devices: Vec::new(),
            epoch: recovered.epoch,
            max_devices: 10,
            max_metrics: 10,
            checkpoint: Duration::from_mins(1),
        };
        let mut outcome = Outcome::default();
        let mut engine = Engine::restore(setup, &recovered.state, clock.moment(), &mut outcome);
        let announcer = Announcer::new(journal.clone(), clock.clone(), "gw".into(), &[]);
        announcer.started(&recovered, clock.boot_id(), "");
        let mut wall_clock = WallClock::new(
            clock.clone(),
            journal.clone(),
            announcer,
            recovered.unsynchronised,
        );
        wall_clock.look();
        let newest = journal.append(outcome);
        engine.committed(newest);
        let run = Run {
            hands: self.hands.clone(),
            journal,
            running,
            engine,
            wall_clock,
            clock,
        };
        run.settle();
        run
    }
}

/// A daemon that runs.
pub(crate) struct Run {
    hands: Simulated,
    pub(crate) journal: Journal,
    running: Running,
    pub(crate) engine: Engine,
    wall_clock: WallClock,
    pub(crate) clock: Clock,
}

impl Run {
    /// Time passes, second by second as the daemon's own tasks see it.
    pub(crate) fn wait(&mut self, seconds: u64) -> &mut Self {
        for _ in 0..seconds {
            self.hands.advance(Duration::from_secs(1));
            self.turn();
        }
        self
    }

    /// What happens once a second.
    pub(crate) fn turn(&mut self) {
        self.wall_clock.look();
        self.settle();
        let mut outcome = Outcome::default();
        self.engine.set_moment(self.clock.moment());
        self.engine.advance(self.clock.now(), &mut outcome);
        self.commit(outcome);
    }

    /// A reading arrives.
    pub(crate) fn read(&mut self, value: f64) -> &mut Self {
        let at = self.clock.now();
        self.read_at(value, at, false)
    }

    pub(crate) fn read_at(&mut self, value: f64, at: EngineTime, stamped: bool) -> &mut Self {
        let reading = Reading {
            device: DeviceId::new("t-1").unwrap(),
            metric: Metric::new("temperature").unwrap(),
            value: Value::Number(value),
            unit: None,
            at,
            stamped,
        };
        let mut outcome = Outcome::default();
        self.engine.set_moment(self.clock.moment());
        self.engine.observe(&reading, &mut outcome).unwrap();
        self.commit(outcome);
        self
    }

    fn commit(&mut self, outcome: Outcome) {
        if !outcome.events.is_empty() || !outcome.state.is_empty() {
            let position = self.journal.append(outcome);
            self.engine.committed(position);
            self.settle();
        }
    }

    /// All that was handed over is on the disk, before anybody moves a clock.
    fn settle(&self) {
        let newest = self.journal.append(Outcome::default());
        let durable = self.journal.durable();
        let mut health = self.journal.health();
        let until = tokio::time::Instant::now() + PATIENCE;
        while *durable.borrow() < newest {
            assert!(tokio::time::Instant::now() < until, "in time");
            assert!(health.has_changed().is_ok(), "the journal lives");
            health.borrow_and_update();
            std::thread::yield_now();
        }
    }

    /// Everything in the journal, as a sink gets it now.
    pub(crate) async fn events(&self) -> Vec<Json> {
        self.settle();
        let mut cursor = Cursor::default();
        let mut events = Vec::new();
        loop {
            let limit = Limit {
                entries: 1_000,
                bytes: 1 << 20,
            };
            let entries = self.journal.read_after(cursor, limit).await.unwrap();
            let Some(last) = entries.last() else {
                return events;
            };
            cursor.position = last.position;
            events.extend(entries.iter().map(|entry| {
                let rendered = cloudevents::render(entry, Sequence(0));
                let event = serde_json::from_slice::<Json>(&rendered).unwrap();
                contract::check(&event);
                event
            }));
        }
    }

    /// A clean stop.
    pub(crate) async fn stop(mut self) {
        let mut outcome = Outcome::default();
        self.engine.checkpoint(&mut outcome);
        self.commit(outcome);
        self.journal.close().await;
        self.running.ended.await.unwrap().unwrap();
    }

    /// kill -9: what is on the disk stays.
    pub(crate) async fn kill(self) {
        self.settle();
        let Self {
            journal,
            running,
            wall_clock,
            ..
        } = self;
        drop((journal, wall_clock));
        running.ended.await.unwrap().unwrap();
    }
}
