//! What a rule means, told as stories: readings at times in, events at times out.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a story that cannot be told fails its test"
)]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tidegate::{
    event::{Data, Draft, Epoch, Position, Reason, RuleData, Severity, Transition},
    reading::{DeviceId, Metric, Reading, Value},
    rule::{
        Condition, DeviceFacts, MaxRaises, Override, Pattern, Rule,
        engine::{Engine, Setup, Skipped},
        state::Outcome,
    },
    time::{BootId, ClockQuality, EngineTime, Moment, Timestamp},
};

/// A gateway without clocks: engine, what the journal would have, and all that was said.
struct Story {
    setup: Setup,
    engine: Engine,
    moment: Moment,
    saved: BTreeMap<Vec<u8>, Vec<u8>>,
    said: Vec<Draft>,
    commits: u64,
}

fn seconds(at: f64) -> EngineTime {
    EngineTime((at * 1e6) as u64)
}

fn lasting(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn pattern(text: &str) -> Pattern {
    Pattern(text.into())
}

/// `above = 30, clear = 28, hold = 30s` on temperature.
fn high_temperature() -> Rule {
    Rule {
        name: "high-temperature".into(),
        event: "HighTemperature".into(),
        cleared_event: "HighTemperatureCleared".into(),
        type_prefix: "io.tidegate.rule.".into(),
        metric: Metric::new("temperature").unwrap(),
        devices: vec![pattern("*")],
        labels_required: BTreeMap::new(),
        condition: Condition::Above {
            threshold: 30.0,
            clear: 28.0,
        },
        hold: lasting(30),
        clear_hold: Duration::ZERO,
        severity: Severity::Warning,
        max_raises: MaxRaises {
            count: 12,
            per: lasting(3600),
        },
        summary: None,
        runbook: None,
        labels: BTreeMap::new(),
        overrides: Vec::new(),
    }
}

/// The same without a hold.
fn at_once(condition: Condition) -> Rule {
    Rule {
        condition,
        hold: Duration::ZERO,
        ..high_temperature()
    }
}

fn above_30() -> Rule {
    at_once(Condition::Above {
        threshold: 30.0,
        clear: 28.0,
    })
}

impl Story {
    fn of(rules: impl IntoIterator<Item = Rule>) -> Self {
        Self::with(rules, Vec::new())
    }

    fn with(rules: impl IntoIterator<Item = Rule>, devices: Vec<DeviceFacts>) -> Self {
        let setup = Setup {
            rules: rules.into_iter().map(Arc::new).collect(),
            devices,
            epoch: Epoch(7),
            max_devices: 100,
            max_metrics: 10,
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
    fn commit(&mut self, out: Outcome) {
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
        self.said.extend(out.events);
        self.commits += 1;
        self.engine.committed(Position(self.commits));
    }

    fn tell(
        &mut self,
        device: &str,
        at: f64,
        value: Value,
        stamped: bool,
    ) -> (Result<(), Skipped>, Position) {
        let mut out = Outcome::default();
        let reading = Reading {
            device: DeviceId::new(device).unwrap(),
            metric: Metric::new("temperature").unwrap(),
            value,
            unit: Some("Cel".into()),
            at: seconds(at),
            stamped,
        };
        let result = self.engine.observe(&reading, &mut out);
        let depends_on = out.depends_on;
        self.commit(out);
        (result, depends_on)
    }

    fn read(&mut self, at: f64, value: f64) -> &mut Self {
        self.tell("t-1", at, Value::Number(value), false).0.unwrap();
        self
    }

    fn stamped(&mut self, at: f64, value: f64) -> Result<(), Skipped> {
        self.tell("t-1", at, Value::Number(value), true).0
    }

    fn wait(&mut self, until: f64) -> &mut Self {
        let mut out = Outcome::default();
        self.engine.advance(seconds(until), &mut out);
        self.commit(out);
        self
    }

    /// kill -9 and a start at `at`, of the same boot.
    fn killed(&mut self, at: f64) -> &mut Self {
        let moment = Moment {
            boot: seconds(at),
            wall: self.moment.wall_of(seconds(at)),
            ..self.moment
        };
        self.started(moment)
    }

    /// A clean stop and a start at `at`.
    fn restarted(&mut self, at: f64) -> &mut Self {
        self.wait(at);
        let mut out = Outcome::default();
        self.engine.checkpoint(&mut out);
        assert!(out.events.is_empty());
        self.commit(out);
        self.killed(at)
    }

    fn started(&mut self, moment: Moment) -> &mut Self {
        self.moment = moment;
        let saved: Vec<_> = self.saved.clone().into_iter().collect();
        let mut out = Outcome::default();
        self.engine = Engine::restore(self.setup.clone(), &saved, moment, &mut out);
        self.commit(out);
        self
    }

    fn edited(&mut self, rule: Rule) -> &mut Self {
        self.setup.rules = vec![Arc::new(rule)];
        self
    }

    /// All events, as `raised@30 e1`.
    fn told(&self) -> String {
        let words = self.said.iter().map(|draft| {
            let data = data(draft);
            let act = match (draft.transition, data.episode.reason) {
                (Some(Transition::Raised), None) => "raised",
                (Some(Transition::Changed), None) => "changed",
                (Some(Transition::Cleared), Some(Reason::BackToNormal)) => "cleared",
                (Some(Transition::Cleared), Some(Reason::RuleChanged)) => "rule-changed",
                (Some(Transition::Cleared), Some(Reason::RuleRemoved)) => "rule-removed",
                other => panic!("{other:?}"),
            };
            format!("{act}@{} e{}", draft.at.0 as f64 / 1e6, data.episode.id.number)
        });
        words.collect::<Vec<_>>().join(", ")
    }

    fn last(&self) -> (&Draft, &RuleData) {
        let draft = self.said.last().unwrap();
        (draft, data(draft))
    }
}

fn data(draft: &Draft) -> &RuleData {
    match &draft.data {
        Data::Rule(data) => data,
        Data::Gateway(_) => panic!("the engine speaks of rules"),
    }
}

// The table of docs/rules.md.

#[test]
fn a_spike_shorter_than_hold_raises_nothing() {
    let mut story = Story::of([high_temperature()]);
    story
        .read(0.0, 31.0)
        .read(10.0, 29.5)
        .read(20.0, 31.0)
        .read(49.0, 31.0);
    assert_eq!(story.told(), "");
    assert_eq!(story.engine.next_deadline(), Some(seconds(50.0)));
}

#[test]
fn a_held_condition_raises_at_the_deadline_with_what_was_seen() {
    let mut story = Story::of([high_temperature()]);
    story.read(0.0, 31.0).read(10.0, 32.0).read(30.0, 31.0);
    assert_eq!(story.told(), "raised@30 e1");
    let (draft, data) = story.last();
    assert_eq!(data.value, Some(Value::Number(31.0)));
    assert_eq!(
        (data.episode.min, data.episode.max, data.episode.readings),
        (Some(31.0), Some(32.0), 3)
    );
    assert_eq!(
        (data.episode.since, data.episode.duration_ms),
        (seconds(0.0), 30_000)
    );
    assert_eq!(data.summary, "t-1: temperature is 31 Cel, above 30");
    assert_eq!(&*draft.kind, "io.tidegate.rule.HighTemperature");
    assert_eq!(&*draft.subject, "t-1/temperature");
    assert_eq!(draft.correlation.as_deref(), Some("0000000000007-e1"));
    let params = serde_json::json!({ "above": 30.0, "clear": 28.0, "hold_s": 30 });
    assert_eq!(serde_json::Value::Object(data.rule.params.clone()), params);
}

#[test]
fn silence_still_raises_at_the_deadline() {
    let mut story = Story::of([high_temperature()]);
    story.read(0.0, 31.0).wait(29.9);
    assert_eq!(story.told(), "");
    story.wait(100.0);
    assert_eq!(story.told(), "raised@30 e1");
}

#[test]
fn a_value_between_the_points_does_not_clear() {
    let mut story = Story::of([high_temperature()]);
    story
        .read(0.0, 31.0)
        .read(30.0, 31.0)
        .read(40.0, 29.0)
        .read(50.0, 31.0)
        .read(60.0, 27.9);
    assert_eq!(story.told(), "raised@30 e1, cleared@60 e1");
    let (draft, data) = story.last();
    assert_eq!(data.summary, "t-1: temperature is back to normal: 27.9 Cel");
    assert_eq!(&*draft.kind, "io.tidegate.rule.HighTemperatureCleared");
    assert_eq!(draft.correlation, story.said[0].correlation);
    assert_eq!(data.episode.flaps, 0);
    assert!(story.saved.keys().all(|key| !key.starts_with(b"l/")));
}

#[test]
fn a_hold_survives_kill_9() {
    let mut story = Story::of([high_temperature()]);
    story
        .read(0.0, 31.0)
        .wait(15.0)
        .killed(16.0)
        .read(31.0, 31.0)
        .wait(100.0);
    assert_eq!(story.told(), "raised@30 e1");
    let mut late = Story::of([high_temperature()]);
    late.read(0.0, 31.0)
        .wait(15.0)
        .killed(40.0)
        .read(41.0, 31.0)
        .wait(100.0);
    assert_eq!(late.told(), "raised@40 e1");
}

// Every other sentence.

#[test]
fn a_reading_at_the_very_deadline_comes_first() {
    let mut story = Story::of([high_temperature()]);
    story.read(0.0, 31.0).read(30.0, 29.0).wait(60.0);
    assert_eq!(story.told(), "");
}

#[test]
fn a_deadline_before_a_reading_fires_before_it() {
    let mut story = Story::of([high_temperature()]);
    story.read(0.0, 31.0).read(31.0, 20.0);
    assert_eq!(story.told(), "raised@30 e1, cleared@31 e1");
    assert_eq!(story.said[0].at, seconds(30.0));
}

#[test]
fn without_holds_raise_and_clear_are_immediate() {
    let mut story = Story::of([above_30()]);
    story
        .read(1.0, 30.0)
        .read(2.0, 30.1)
        .read(3.0, 35.0)
        .read(4.0, 28.0);
    assert_eq!(story.told(), "raised@2 e1, cleared@4 e1");
}

#[test]
fn a_broken_clear_hold_is_a_flap_of_the_same_episode() {
    let mut story = Story::of([Rule {
        clear_hold: lasting(10),
        ..above_30()
    }]);
    story
        .read(0.0, 31.0)
        .read(10.0, 27.0)
        .read(15.0, 29.0)
        .read(20.0, 27.0)
        .wait(60.0);
    assert_eq!(story.told(), "raised@0 e1, cleared@30 e1");
    assert_eq!(story.last().1.episode.flaps, 1);
}

#[test]
fn every_condition_means_what_its_row_says() {
    let number = Value::Number;
    let text = |text: &str| Value::Text(text.into());
    let cases = [
        (
            Condition::Below {
                threshold: 5.0,
                clear: 7.0,
            },
            number(4.9),
            number(6.9),
            number(7.0),
        ),
        (
            Condition::Outside {
                lo: 10.0,
                hi: 20.0,
                margin: 1.0,
            },
            number(20.1),
            number(19.5),
            number(19.0),
        ),
        (
            Condition::Outside {
                lo: 10.0,
                hi: 20.0,
                margin: 1.0,
            },
            number(9.9),
            number(10.5),
            number(11.0),
        ),
        (
            Condition::Inside {
                lo: 10.0,
                hi: 20.0,
                margin: 1.0,
            },
            number(20.0),
            number(21.0),
            number(21.1),
        ),
        (
            Condition::Inside {
                lo: 10.0,
                hi: 20.0,
                margin: 1.0,
            },
            number(10.0),
            number(9.0),
            number(8.9),
        ),
        (
            Condition::Equals(Value::Bool(true)),
            Value::Bool(true),
            Value::Bool(true),
            Value::Bool(false),
        ),
        (
            Condition::NotEquals(text("ok")),
            text("fault"),
            text("worse"),
            text("ok"),
        ),
    ];
    for (condition, raises, neither, clears) in cases {
        let mut story = Story::of([at_once(condition.clone())]);
        story.tell("t-1", 0.0, clears.clone(), false).0.unwrap();
        assert_eq!(story.told(), "", "{condition:?}");
        story.tell("t-1", 1.0, raises, false).0.unwrap();
        story.tell("t-1", 2.0, neither, false).0.unwrap();
        assert_eq!(story.told(), "raised@1 e1", "{condition:?}");
        story.tell("t-1", 3.0, clears, false).0.unwrap();
        assert_eq!(story.told(), "raised@1 e1, cleared@3 e1", "{condition:?}");
    }
}

#[test]
fn a_value_that_cannot_be_compared_neither_raises_nor_clears() {
    let mut story = Story::of([high_temperature()]);
    story.read(0.0, 31.0);
    story
        .tell("t-1", 10.0, Value::Text("warm".into()), false)
        .0
        .unwrap();
    story.wait(60.0);
    assert_eq!(story.told(), "raised@30 e1");
    assert_eq!(story.last().1.value, Some(Value::Number(31.0)));
}

#[test]
fn devices_labels_and_overrides_choose_rule_and_numbers() {
    let mut rule = above_30();
    rule.devices = vec![pattern("room-*"), pattern("server-*")];
    rule.labels_required = BTreeMap::from([("site".to_owned(), "hq".to_owned())]);
    let other = |devices: &str, threshold| Override {
        devices: vec![pattern(devices)],
        condition: Some(Condition::Above {
            threshold,
            clear: threshold,
        }),
        hold: None,
        clear_hold: None,
        severity: None,
    };
    rule.overrides = vec![
        other("server-*", 24.0),
        Override {
            severity: Some(Severity::Critical),
            ..other("server-1", 20.0)
        },
    ];
    let facts = |id: &str, name: Option<&str>, site: &str| DeviceFacts {
        id: pattern(id),
        name: name.map(Into::into),
        labels: BTreeMap::from([("site".to_owned(), site.to_owned())]),
        from: Vec::new(),
    };
    let devices = vec![
        facts("room-9", None, "elsewhere"),
        facts("server-1", Some("Big one"), "hq"),
        facts("*", Some("Any"), "hq"),
    ];
    let mut story = Story::with([rule], devices);
    for device in ["server-1", "server-2", "room-1", "room-9", "shed"] {
        story.tell(device, 1.0, Value::Number(25.0), false).0.unwrap();
    }
    let who: Vec<_> = story
        .said
        .iter()
        .map(|draft| (&*draft.about, draft.severity))
        .collect();
    assert_eq!(
        who,
        [("server-1", Severity::Critical), ("server-2", Severity::Warning)]
    );
    assert_eq!(data(&story.said[0]).device_name.as_deref(), Some("Big one"));
    assert!(data(&story.said[0]).summary.ends_with("above 20"));
}

#[test]
fn a_rule_without_hysteresis_cannot_flood() {
    let mut story = Story::of([at_once(Condition::Above {
        threshold: 30.0,
        clear: 30.0,
    })]);
    for tick in 0..7200_u32 {
        story.read(f64::from(tick), if tick % 2 == 0 { 31.0 } else { 29.0 });
    }
    let raised = story
        .said
        .iter()
        .filter(|draft| draft.transition == Some(Transition::Raised))
        .count();
    assert_eq!(raised, 12);
    assert_eq!(story.engine.active(), 1);
    // 7199 was quiet; five minutes later (an hour / 12) it ends and says how often it flapped.
    story.wait(9000.0);
    assert!(story.told().ends_with("cleared@7499 e12"), "{}", story.told());
    assert!(story.last().1.episode.flaps > 3000);
}

#[test]
fn the_budget_of_raises_survives_a_restart() {
    let flap = |restarts: bool| {
        let mut story = Story::of([at_once(Condition::Above {
            threshold: 30.0,
            clear: 30.0,
        })]);
        for tick in 0..600_u32 {
            story.read(f64::from(tick), if tick % 2 == 0 { 31.0 } else { 29.0 });
            if restarts {
                story.killed(f64::from(tick) + 0.5);
            }
        }
        story.told()
    };
    assert_eq!(flap(true), flap(false));
}

#[test]
fn a_late_reading_is_counted_and_ignored() {
    let mut story = Story::of([above_30()]);
    story.stamped(10.0, 31.0).unwrap();
    assert_eq!(story.stamped(9.0, 20.0), Err(Skipped::Late));
    assert_eq!(story.stamped(10.0, 31.0), Err(Skipped::Duplicate));
    assert_eq!(story.told(), "raised@10 e1");
    story.stamped(10.0, 20.0).unwrap();
    assert_eq!(
        story.told(),
        "raised@10 e1, cleared@10 e1",
        "equal stamp, another value: evaluated"
    );
    assert_eq!(
        (story.engine.counts().late, story.engine.counts().duplicates),
        (1, 1)
    );
}

#[test]
fn what_was_late_before_a_restart_is_late_after_it() {
    let mut story = Story::of([above_30()]);
    story.stamped(10.0, 20.0).unwrap();
    story.restarted(11.0);
    assert_eq!(story.stamped(9.0, 31.0), Err(Skipped::Late));
    assert_eq!(story.stamped(10.0, 20.0), Err(Skipped::Duplicate));
    story.stamped(12.0, 31.0).unwrap();
    story.killed(13.0);
    assert_eq!(story.stamped(12.0, 31.0), Err(Skipped::Duplicate));
    assert_eq!(story.told(), "raised@12 e1");
}

#[test]
fn a_device_that_is_only_late_for_30_s_is_anchored_to_arrival() {
    let mut story = Story::of([above_30()]);
    story.stamped(1000.0, 20.0).unwrap();
    // Its clock goes back by 500 s.
    for second in 0..30_u32 {
        story.wait(1001.0 + f64::from(second));
        assert_eq!(story.stamped(501.0 + f64::from(second), 31.0), Err(Skipped::Late));
    }
    story.wait(1031.0);
    story.stamped(531.0, 31.0).unwrap();
    assert_eq!(story.told(), "raised@1031 e1");
    assert_eq!(story.engine.counts().reanchored, 1);
    story.wait(1041.0);
    story.stamped(541.0, 20.0).unwrap();
    assert_eq!(story.told(), "raised@1031 e1, cleared@1041 e1");
    // And forward again.
    story.wait(1050.0);
    story.stamped(1050.0, 31.0).unwrap();
    assert!(story.told().ends_with("raised@1050 e2"), "{}", story.told());
}

#[test]
fn a_device_stays_anchored_over_a_clean_restart() {
    let mut story = Story::of([above_30()]);
    story.stamped(1000.0, 20.0).unwrap();
    story.wait(1001.0);
    assert_eq!(story.stamped(501.0, 20.0), Err(Skipped::Late));
    story.wait(1031.0);
    story.stamped(531.0, 20.0).unwrap();
    story.restarted(1032.0);
    story.stamped(532.0, 31.0).unwrap();
    assert_eq!(story.told(), "raised@1032 e1");
}

#[test]
fn a_reading_in_time_ends_the_suspicion() {
    let mut story = Story::of([above_30()]);
    story.stamped(1000.0, 20.0).unwrap();
    story.wait(1001.0);
    assert_eq!(story.stamped(900.0, 31.0), Err(Skipped::Late));
    story.wait(1020.0);
    story.stamped(1020.0, 20.0).unwrap();
    story.wait(1040.0);
    assert_eq!(story.stamped(901.0, 31.0), Err(Skipped::Late));
    assert_eq!(story.told(), "");
}

#[test]
fn a_reading_that_changes_nothing_depends_on_the_commit_that_did() {
    let mut story = Story::of([high_temperature()]);
    story.read(0.0, 20.0);
    assert_eq!(story.commits, 0);
    story.read(1.0, 31.0);
    assert_eq!(story.commits, 1, "entering Pending is committed");
    assert_eq!(
        story.tell("t-1", 2.0, Value::Number(32.0), false),
        (Ok(()), Position(1))
    );
    assert_eq!(story.commits, 1, "min and max alone are not");
    assert_eq!(
        story.tell("t-2", 2.0, Value::Number(20.0), false),
        (Ok(()), Position(0))
    );
    story.tell("t-1", 3.0, Value::Number(20.0), false).0.unwrap();
    assert_eq!(
        story.tell("t-1", 4.0, Value::Number(20.0), false),
        (Ok(()), Position(2))
    );
}

#[test]
fn a_duplicate_depends_on_what_it_repeats() {
    let mut story = Story::of([above_30()]);
    story.stamped(1.0, 31.0).unwrap();
    assert_eq!(
        story.tell("t-1", 1.0, Value::Number(31.0), true),
        (Err(Skipped::Duplicate), Position(1))
    );
}

#[test]
fn nothing_to_remember_leaves_nothing_behind() {
    let mut story = Story::of([high_temperature()]);
    story.read(0.0, 31.0);
    assert_eq!(story.saved.len(), 1);
    story.read(1.0, 20.0);
    assert!(story.saved.is_empty());
}

#[test]
fn devices_and_metrics_over_the_limits_are_not_evaluated() {
    let mut story = Story::of([above_30()]);
    story.setup.max_devices = 1;
    story.killed(0.0).read(1.0, 31.0);
    assert_eq!(
        story.tell("t-2", 2.0, Value::Number(31.0), false).0,
        Err(Skipped::OverLimit)
    );
    story.killed(3.0);
    assert_eq!(
        story.tell("t-2", 4.0, Value::Number(31.0), false).0,
        Err(Skipped::OverLimit)
    );
    assert_eq!(story.told(), "raised@1 e1");
    assert_eq!(story.engine.counts().over_limit, 1);
}

#[test]
fn one_episode_is_raised_once_over_any_number_of_restarts() {
    let mut story = Story::of([above_30()]);
    story
        .read(0.0, 31.0)
        .killed(1.0)
        .read(2.0, 32.0)
        .restarted(3.0)
        .read(4.0, 33.0)
        .killed(5.0)
        .read(6.0, 20.0);
    assert_eq!(story.told(), "raised@0 e1, cleared@6 e1");
    // The clean stop saved the 32; the 33 changed nothing and went with kill -9.
    assert_eq!(story.last().1.episode.max, Some(32.0));
    story.killed(7.0).read(8.0, 31.0);
    assert!(story.told().ends_with("raised@8 e2"));
}

#[test]
fn an_edited_rule_that_still_holds_says_changed_once() {
    let mut story = Story::of([above_30()]);
    let edited = at_once(Condition::Above {
        threshold: 29.0,
        clear: 25.0,
    });
    story.read(0.0, 31.0).edited(edited).killed(5.0);
    assert_eq!(story.told(), "raised@0 e1", "judged at the next reading");
    story.read(6.0, 27.0).read(7.0, 27.0).killed(8.0).read(9.0, 25.0);
    assert_eq!(story.told(), "raised@0 e1, changed@6 e1, cleared@9 e1");
    assert_eq!(data(&story.said[1]).rule.params["above"], 29.0);
}

#[test]
fn an_edited_rule_that_no_longer_holds_clears_with_rule_changed() {
    let mut story = Story::of([above_30()]);
    let edited = at_once(Condition::Above {
        threshold: 40.0,
        clear: 38.0,
    });
    story
        .read(0.0, 31.0)
        .edited(edited)
        .killed(5.0)
        .killed(6.0)
        .read(7.0, 31.0);
    assert_eq!(story.told(), "raised@0 e1, rule-changed@7 e1");
}

#[test]
fn an_edited_hold_is_judged_by_its_new_length() {
    let mut story = Story::of([high_temperature()]);
    story
        .read(0.0, 31.0)
        .edited(Rule {
            hold: lasting(60),
            ..high_temperature()
        })
        .killed(10.0)
        .wait(100.0);
    assert_eq!(story.told(), "raised@60 e1");
    let mut shorter = Story::of([high_temperature()]);
    shorter
        .read(0.0, 31.0)
        .edited(Rule {
            hold: lasting(5),
            ..high_temperature()
        })
        .killed(10.0);
    assert_eq!(shorter.told(), "raised@10 e1");
}

#[test]
fn a_pending_value_under_the_new_threshold_raises_nothing() {
    let mut story = Story::of([high_temperature()]);
    let edited = Rule {
        condition: Condition::Above {
            threshold: 40.0,
            clear: 40.0,
        },
        ..high_temperature()
    };
    story.read(0.0, 31.0).edited(edited).killed(10.0).wait(100.0);
    assert_eq!(story.told(), "");
    assert!(story.saved.is_empty());
}

#[test]
fn another_metric_or_kind_starts_anew() {
    let below = at_once(Condition::Below {
        threshold: 50.0,
        clear: 50.0,
    });
    let humidity = Rule {
        metric: Metric::new("humidity").unwrap(),
        ..above_30()
    };
    for other in [below.clone(), humidity] {
        let mut story = Story::of([above_30()]);
        story.read(0.0, 31.0).edited(other).killed(5.0);
        assert_eq!(story.told(), "raised@0 e1, rule-changed@5 e1");
        assert_eq!(story.engine.active(), 0);
    }
    let mut story = Story::of([above_30()]);
    story.read(0.0, 31.0).edited(below).killed(5.0).read(6.0, 31.0);
    assert_eq!(story.told(), "raised@0 e1, rule-changed@5 e1, raised@6 e2");
}

#[test]
fn a_removed_rule_clears_with_its_old_facts() {
    let mut story = Story::of([Rule {
        runbook: Some("https://x".to_owned()),
        ..above_30()
    }]);
    story.read(0.0, 31.0);
    story.setup.rules.clear();
    story.killed(5.0);
    assert_eq!(story.told(), "raised@0 e1, rule-removed@5 e1");
    let (draft, data) = story.last();
    assert_eq!(
        (&*draft.name, &*data.rule.kind),
        ("HighTemperatureCleared", "above")
    );
    assert_eq!(data.rule.runbook.as_deref(), Some("https://x"));
    assert_eq!(story.saved.keys().next().map(Vec::as_slice), Some(&b"engine"[..]));
    story.killed(6.0);
    assert_eq!(story.said.len(), 2);
}

#[test]
fn across_a_reboot_a_timer_counts_what_passed_if_both_ends_were_synchronised() {
    let reboot = |quality: ClockQuality| {
        let mut story = Story::of([high_temperature()]);
        story.read(100.0, 31.0);
        // The board was off for 10 s and has been up for 5.
        let wall = Timestamp(story.moment.wall_of(seconds(100.0)).0 + 15_000_000);
        story.started(Moment {
            boot_id: BootId(1),
            boot: seconds(5.0),
            wall,
            quality,
        });
        story.wait(500.0);
        story.told()
    };
    assert_eq!(reboot(ClockQuality::Synchronised), "raised@20 e1");
    assert_eq!(reboot(ClockQuality::Unknown), "raised@35 e1");
}

#[test]
fn an_episode_older_than_the_boot_keeps_its_duration() {
    let mut story = Story::of([above_30()]);
    story.read(100.0, 31.0);
    let wall = Timestamp(story.moment.wall_of(seconds(100.0)).0 + 60_000_000);
    story.started(Moment {
        boot_id: BootId(1),
        boot: seconds(5.0),
        wall,
        ..story.moment
    });
    story.read(10.0, 20.0);
    assert_eq!(story.told(), "raised@100 e1, cleared@10 e1");
    assert_eq!(story.last().1.episode.duration_ms, 65_000);
}

#[test]
fn a_jump_of_the_wall_clock_neither_fires_nor_starves_a_timer() {
    let mut story = Story::of([high_temperature()]);
    story.read(0.0, 31.0);
    let jumped = Moment {
        boot: seconds(10.0),
        wall: Timestamp(0),
        ..story.moment
    };
    story.engine.set_moment(jumped);
    story.wait(29.0);
    assert_eq!(story.told(), "");
    story.wait(30.0);
    assert_eq!(story.told(), "raised@30 e1");
}

#[test]
fn a_new_epoch_voids_the_episodes_of_the_old_one() {
    let mut story = Story::of([above_30()]);
    story.read(0.0, 31.0);
    story.setup.epoch = Epoch(8);
    story.killed(1.0).read(2.0, 31.0);
    assert_eq!(story.told(), "raised@0 e1, raised@2 e2");
    assert_eq!(story.last().1.episode.id.epoch, Epoch(8));
}

#[test]
fn damaged_state_is_dropped_and_counted() {
    let mut story = Story::of([above_30()]);
    story
        .saved
        .insert(b"r/high-temperature/t-1".to_vec(), vec![0xff, 1, 2]);
    story.saved.insert(b"r/nonsense".to_vec(), Vec::new());
    story.saved.insert(b"l/t-1/a/b".to_vec(), Vec::new());
    story.saved.insert(b"engine".to_vec(), vec![0x61]);
    story.saved.insert(b"another's".to_vec(), vec![1]);
    story.killed(1.0);
    assert_eq!(story.engine.counts().unreadable, 4);
    assert_eq!(story.saved.len(), 1);
    story.read(2.0, 31.0);
    assert_eq!(story.told(), "raised@2 e1");
}

#[test]
fn a_rule_may_speak_for_itself() {
    let summary = Some("{device} {{metric} {nonsense} {value} {unit}, over {threshold}".to_owned());
    let mut story = Story::of([Rule {
        summary,
        ..above_30()
    }]);
    story.tell("t-1", 1.0, Value::Number(31.25), false).0.unwrap();
    assert_eq!(
        story.last().1.summary,
        "t-1 {temperature {nonsense} 31.25 Cel, over 30"
    );
}

#[test]
fn two_rules_on_one_metric_speak_in_their_order() {
    let second = Rule {
        name: "hot".into(),
        event: "Hot".into(),
        ..above_30()
    };
    let mut story = Story::of([above_30(), second]);
    story.read(1.0, 31.0);
    assert_eq!(story.told(), "raised@1 e1, raised@1 e2");
    assert_eq!(&*story.said[1].name, "Hot");
}

mod restarts {
    //! Any story, restarted anywhere, has the events of the same story without a restart.

    use proptest::prelude::*;

    use super::*;

    /// One step: seconds that pass, who reads what, and whether a restart follows.
    type Step = (u8, u8, i8, Option<bool>);

    fn rules() -> [Rule; 3] {
        let named = |name: &str, rule: Rule| Rule {
            name: name.into(),
            ..rule
        };
        let few = MaxRaises {
            count: 3,
            per: lasting(120),
        };
        let outside = at_once(Condition::Outside {
            lo: 10.0,
            hi: 30.0,
            margin: 0.0,
        });
        [
            high_temperature(),
            named(
                "flappy",
                Rule {
                    max_raises: few,
                    ..outside
                },
            ),
            named(
                "slow",
                Rule {
                    clear_hold: lasting(15),
                    hold: lasting(7),
                    ..above_30()
                },
            ),
        ]
    }

    fn told(steps: &[Step], stamped: bool, restart: impl Fn(&mut Story, bool, f64)) -> Story {
        let mut story = Story::of(rules());
        let mut now = 0.0;
        for (pass, device, value, restarts) in steps {
            now += f64::from(*pass) + 0.5;
            story.wait(now);
            if let Some(clean) = restarts {
                restart(&mut story, *clean, now);
            }
            // Some come with stamps of their own, up to 2 s old.
            let at = if stamped {
                now - f64::from(*value % 3).abs()
            } else {
                now
            };
            let value = 29.0 + f64::from(*value);
            // Late ones and duplicates are part of the story.
            story
                .tell(&format!("t-{}", device % 2), at, Value::Number(value), stamped)
                .0
                .ok();
        }
        story.wait(now + 1000.0);
        story
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let restart = proptest::option::weighted(0.3, any::<bool>());
        proptest::collection::vec((0_u8..20, 0_u8..2, -4_i8..4, restart), 1..60)
    }

    proptest! {
        #[test]
        fn a_clean_restart_changes_no_event(steps in steps(), stamped: bool) {
            let without = told(&steps, stamped, |_, _, _| {});
            let with = told(&steps, stamped, |story, _, now| {
                story.restarted(now);
            });
            prop_assert_eq!(with.said, without.said);
        }

        #[test]
        fn after_kill_9_only_the_statistics_may_lag(steps in steps()) {
            let without = told(&steps, false, |_, _, _| {});
            let with = told(&steps, false, |story, clean, now| {
                if clean { story.restarted(now); } else { story.killed(now); }
            });
            prop_assert_eq!(with.told(), without.told());
            for (with, without) in with.said.iter().zip(&without.said) {
                prop_assert_eq!(&with.correlation, &without.correlation);
                prop_assert_eq!(data(with).episode.flaps, data(without).episode.flaps);
                prop_assert_eq!(data(with).episode.since, data(without).episode.since);
            }
        }

        #[test]
        fn a_raise_and_a_clear_take_turns(steps in steps(), stamped: bool) {
            let story = told(&steps, stamped, |story, clean, now| {
                if clean { story.restarted(now); } else { story.killed(now); }
            });
            let mut open = std::collections::BTreeSet::new();
            for draft in &story.said {
                let key = (draft.about.clone(), data(draft).rule.name.clone());
                match draft.transition {
                    Some(Transition::Raised) => prop_assert!(open.insert(key)),
                    Some(Transition::Cleared) => prop_assert!(open.remove(&key)),
                    _ => prop_assert!(false, "nothing else was edited"),
                }
            }
            prop_assert_eq!(open.len(), story.engine.active());
        }
    }
}
