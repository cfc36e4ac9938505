//! What a test tells the engine and what it expects: a story of readings, restarts and events.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tidegate::{
    event::{Data, Draft, Epoch, Position, Reason, RuleData, Severity, Transition},
    reading::{DeviceId, Metric, Reading, Value},
    rule::{
        Condition, DeviceFacts, MaxRaises, Part, Pattern, Rule, Test, Watched,
        engine::{Engine, Setup, Skipped},
        state::Outcome,
    },
    time::{BootId, ClockQuality, EngineTime, Moment, Timestamp},
};

use super::contract;

/// A gateway without clocks: engine, what the journal would have, and all that was said.
pub(crate) struct Story {
    pub(crate) setup: Setup,
    pub(crate) engine: Engine,
    pub(crate) moment: Moment,
    pub(crate) saved: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) said: Vec<Draft>,
    pub(crate) commits: u64,
}

pub(crate) fn seconds(at: f64) -> EngineTime {
    EngineTime((at * 1e6) as i64)
}

pub(crate) fn lasting(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn pattern(text: &str) -> Pattern {
    Pattern(text.into())
}

pub(crate) fn of_temperature(test: Test) -> Condition {
    Condition::of(Metric::new("temperature").unwrap(), test)
}

/// `above = 30, clear = 28, hold = 30s` on temperature.
pub(crate) fn high_temperature() -> Rule {
    Rule {
        name: "high-temperature".into(),
        event: "HighTemperature".into(),
        cleared_event: "HighTemperatureCleared".into(),
        type_prefix: "io.tidegate.rule.".into(),
        devices: vec![pattern("*")],
        labels_required: BTreeMap::new(),
        condition: of_temperature(Test::Above {
            threshold: 30.0,
            clear: 28.0,
        }),
        hold: lasting(30),
        clear_hold: Duration::ZERO,
        severity: Severity::Warning,
        max_raises: MaxRaises {
            count: 12,
            per: lasting(3600),
        },
        remind_every: None,
        unless: None,
        during: Vec::new(),
        stale_after: lasting(900),
        summary: None,
        runbook: None,
        labels: BTreeMap::new(),
        overrides: Vec::new(),
    }
}

/// The same without a hold.
pub(crate) fn at_once(test: Test) -> Rule {
    Rule {
        condition: of_temperature(test),
        hold: Duration::ZERO,
        ..high_temperature()
    }
}

pub(crate) fn above_30() -> Rule {
    at_once(Test::Above {
        threshold: 30.0,
        clear: 28.0,
    })
}

impl Story {
    pub(crate) fn of(rules: impl IntoIterator<Item = Rule>) -> Self {
        Self::with(rules, Vec::new())
    }

    pub(crate) fn with(rules: impl IntoIterator<Item = Rule>, devices: Vec<DeviceFacts>) -> Self {
        let setup = Setup {
            rules: rules.into_iter().map(Arc::new).collect(),
            devices,
            epoch: Epoch(7),
            max_devices: 100,
            max_metrics: 10,
            checkpoint: Duration::from_mins(1),
        };
        let moment = Moment {
            boot_id: BootId(u128::MAX - 1),
            boot: EngineTime(0),
            wall: Timestamp(1_800_000_000_000_000),
            quality: ClockQuality::Synchronised,
        };
        let engine = Engine::restore(setup.clone(), &[], moment, &mut Outcome::default());
        Self {
            setup,
            engine,
            moment,
            saved: BTreeMap::new(),
            said: Vec::new(),
            commits: 0,
        }
    }

    /// What the driver does with an outcome.
    pub(crate) fn commit(&mut self, out: Outcome) {
        if out.events.is_empty() && out.state.is_empty() {
            return;
        }
        for change in out.state {
            assert!(change.key.len() <= 512);
            match change.value {
                Some(value) => {
                    assert!(value.len() <= 4096);
                    self.saved.insert(change.key, value);
                }
                None => {
                    self.saved.remove(&change.key);
                }
            }
        }
        out.events.iter().for_each(contract::check_draft);
        self.said.extend(out.events);
        self.commits += 1;
        self.engine.committed(Position(self.commits));
    }

    pub(crate) fn tell(
        &mut self,
        device: &str,
        at: f64,
        value: Value,
        stamped: bool,
    ) -> (Result<(), Skipped>, Position) {
        let reading = Reading {
            device: DeviceId::new(device).unwrap(),
            metric: Metric::new("temperature").unwrap(),
            value,
            unit: Some("Cel".into()),
            at: seconds(at),
            stamped,
        };
        self.observe(&reading)
    }

    pub(crate) fn observe(&mut self, reading: &Reading) -> (Result<(), Skipped>, Position) {
        let mut out = Outcome::default();
        let result = self.engine.observe(reading, &mut out);
        let depends_on = out.depends_on;
        self.commit(out);
        (result, depends_on)
    }

    pub(crate) fn read(&mut self, at: f64, value: f64) -> &mut Self {
        self.tell("t-1", at, Value::Number(value), false).0.unwrap();
        self
    }

    /// Any metric of any device, as `main/alarm`.
    pub(crate) fn hear(&mut self, at: f64, subject: &str, value: impl Into<Told>) -> &mut Self {
        let (device, metric) = subject.split_once('/').unwrap();
        let reading = Reading {
            device: DeviceId::new(device).unwrap(),
            metric: Metric::new(metric).unwrap(),
            value: value.into().0,
            unit: None,
            at: seconds(at),
            stamped: false,
        };
        self.observe(&reading).0.unwrap();
        self
    }

    /// What the driver does every `checkpoint`.
    pub(crate) fn checkpointed(&mut self) -> &mut Self {
        let mut out = Outcome::default();
        self.engine.save_windows(&mut out);
        assert!(out.events.is_empty());
        self.commit(out);
        self
    }

    /// Something is done to the engine.
    pub(crate) fn done(&mut self, what: impl FnOnce(&mut Engine, &mut Outcome)) -> &mut Self {
        let mut out = Outcome::default();
        what(&mut self.engine, &mut out);
        self.commit(out);
        self
    }

    pub(crate) fn stamped(&mut self, at: f64, value: f64) -> Result<(), Skipped> {
        self.tell("t-1", at, Value::Number(value), true).0
    }

    pub(crate) fn wait(&mut self, until: f64) -> &mut Self {
        let mut out = Outcome::default();
        self.engine.advance(seconds(until), &mut out);
        self.commit(out);
        self
    }

    /// kill -9 and a start at `at`, of the same boot.
    pub(crate) fn killed(&mut self, at: f64) -> &mut Self {
        let moment = Moment {
            boot: seconds(at),
            wall: self.moment.wall_of(seconds(at)),
            ..self.moment
        };
        self.started(moment)
    }

    /// A clean stop and a start at `at`.
    pub(crate) fn restarted(&mut self, at: f64) -> &mut Self {
        self.wait(at);
        let mut out = Outcome::default();
        self.engine.checkpoint(&mut out);
        assert!(out.events.is_empty());
        self.commit(out);
        self.killed(at)
    }

    pub(crate) fn started(&mut self, moment: Moment) -> &mut Self {
        self.moment = moment;
        let saved: Vec<_> = self.saved.clone().into_iter().collect();
        let mut out = Outcome::default();
        self.engine = Engine::restore(self.setup.clone(), &saved, moment, &mut out);
        self.commit(out);
        self
    }

    pub(crate) fn edited(&mut self, rule: Rule) -> &mut Self {
        self.setup.rules = vec![Arc::new(rule)];
        self
    }

    /// All events, as `raised@30 e1`.
    pub(crate) fn told(&self) -> String {
        let words = self.said.iter().map(|draft| {
            let Data::Rule(data) = &draft.data else {
                return format!("{}@{}", draft.name, draft.at.0 as f64 / 1e6);
            };
            let act = match (draft.transition, data.episode.reason) {
                (Some(Transition::Raised), None) => "raised",
                (Some(Transition::Changed), None) => "changed",
                (Some(Transition::Reminded), None) => "reminded",
                (Some(Transition::Cleared), Some(Reason::DeviceRemoved)) => "device-removed",
                (Some(Transition::Cleared), Some(Reason::OutOfPeriod)) => "out-of-period",
                (Some(Transition::Cleared), Some(Reason::Suppressed)) => "suppressed",
                (Some(Transition::Cleared), Some(Reason::Muted)) => "muted",
                (Some(Transition::Cleared), Some(Reason::BackToNormal)) => "cleared",
                (Some(Transition::Cleared), Some(Reason::RuleChanged)) => "rule-changed",
                (Some(Transition::Cleared), Some(Reason::RuleRemoved)) => "rule-removed",
                other => panic!("{other:?}"),
            };
            format!("{act}@{} e{}", draft.at.0 as f64 / 1e6, data.episode.id.number)
        });
        words.collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn last(&self) -> (&Draft, &RuleData) {
        let draft = self.said.last().unwrap();
        (draft, data(draft))
    }
}

pub(crate) fn data(draft: &Draft) -> &RuleData {
    match &draft.data {
        Data::Rule(data) => data,
        Data::Gateway(_) => panic!("the engine speaks of rules"),
    }
}

/// A number or a yes or no, as a test writes it.
pub(crate) struct Told(Value);

impl From<f64> for Told {
    fn from(number: f64) -> Self {
        Self(Value::Number(number))
    }
}

impl From<bool> for Told {
    fn from(on: bool) -> Self {
        Self(Value::Bool(on))
    }
}

pub(crate) fn metric(name: &str) -> Metric {
    Metric::new(name).unwrap()
}

/// One metric as it comes, of another device if there is a slash: `main/alarm`.
pub(crate) fn part(subject: &str, test: Test) -> Part {
    let (device, name) = match subject.split_once('/') {
        Some((device, name)) => (Some(DeviceId::new(device).unwrap()), name),
        None => (None, subject),
    };
    let watched = Watched {
        metric: metric(name),
        window: None,
        test,
    };
    Part { device, watched }
}

pub(crate) fn above(threshold: f64, clear: f64) -> Test {
    Test::Above { threshold, clear }
}

/// A rule without a hold.
pub(crate) fn rule(condition: Condition) -> Rule {
    Rule {
        condition,
        ..above_30()
    }
}
