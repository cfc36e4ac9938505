//! An engine that is driven without a disk or a socket: what it decides is dropped where the daemon hands it to the
//! journal.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tidegate::{
    event::{Epoch, Position, Severity},
    reading::{DeviceId, Metric, Reading, Value},
    rule::{
        Condition, MaxRaises, Pattern, Rule, Sliding, Test, Watched,
        engine::{Engine, Setup},
        state::Outcome,
    },
    time::{BootId, ClockQuality, EngineTime, Moment, Timestamp},
};

/// A rule `above = 50`.
#[must_use]
pub fn rule(name: &str, devices: &str, metric: &str, window: Option<Sliding>) -> Arc<Rule> {
    Arc::new(Rule {
        name: name.into(),
        event: "HighTemperature".into(),
        cleared_event: "HighTemperatureCleared".into(),
        type_prefix: "io.tidegate.rule.".into(),
        devices: vec![Pattern(devices.into())],
        labels_required: BTreeMap::new(),
        condition: Condition::Value(Watched {
            metric: metric_of(metric),
            window,
            test: Test::Above {
                threshold: 50.0,
                clear: 50.0,
            },
        }),
        hold: Duration::ZERO,
        clear_hold: Duration::ZERO,
        severity: Severity::Warning,
        max_raises: MaxRaises {
            count: 12,
            per: Duration::from_secs(3600),
        },
        remind_every: None,
        unless: None,
        during: Vec::new(),
        stale_after: Duration::from_secs(900),
        summary: None,
        runbook: None,
        labels: BTreeMap::new(),
        overrides: Vec::new(),
    })
}

/// # Panics
///
/// If it is no name.
#[must_use]
pub fn metric_of(name: &str) -> Metric {
    Metric::new(name).expect("a name")
}

/// The device of this number.
#[must_use]
pub fn device_of(number: usize) -> DeviceId {
    DeviceId::new(&format!("device-{number}")).expect("a name")
}

/// A driver that commits at once and keeps nothing.
pub struct Driven {
    pub engine: Engine,
    pub out: Outcome,
    pub now: i64,
    pub commits: u64,
    pub events: u64,
}

impl Driven {
    pub fn with(rules: Vec<Arc<Rule>>) -> Self {
        let setup = Setup {
            rules,
            devices: Vec::new(),
            epoch: Epoch(7),
            max_devices: 100_000,
            max_metrics: 100,
            checkpoint: Duration::from_mins(1),
        };
        let moment = Moment {
            boot_id: BootId(1),
            boot: EngineTime(0),
            wall: Timestamp(1_800_000_000_000_000),
            quality: ClockQuality::Synchronised,
        };
        let mut out = Outcome::default();
        let engine = Engine::restore(setup, &[], moment, &mut out);
        Self {
            engine,
            out: Outcome::default(),
            now: 0,
            commits: 0,
            events: 0,
        }
    }

    pub fn observe(&mut self, reading: &Reading) {
        self.engine.observe(reading, &mut self.out).expect("in time");
        self.commit();
    }

    pub fn commit(&mut self) {
        if self.out.events.is_empty() && self.out.state.is_empty() {
            return;
        }
        self.events += self.out.events.len() as u64;
        self.out.events.clear();
        self.out.state.clear();
        self.commits += 1;
        self.engine.committed(Position(self.commits));
    }

    pub fn tell(&mut self, device: &DeviceId, metric: &Metric, value: f64) {
        self.now += 1000;
        let reading = Reading {
            device: device.clone(),
            metric: metric.clone(),
            value: Value::Number(value),
            unit: None,
            at: EngineTime(self.now),
            stamped: false,
        };
        self.observe(&reading);
    }
}
