//! What the conditions mean, when they fire, and which device they are for.

use super::story::*;
use std::collections::BTreeMap;

use tidegate::{
    event::{Position, Severity, Transition},
    reading::Value,
    rule::{DeviceFacts, Override, Rule, Test, engine::Skipped},
};

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
            Test::Below {
                threshold: 5.0,
                clear: 7.0,
            },
            number(4.9),
            number(6.9),
            number(7.0),
        ),
        (
            Test::Outside {
                lo: 10.0,
                hi: 20.0,
                margin: 1.0,
            },
            number(20.1),
            number(19.5),
            number(19.0),
        ),
        (
            Test::Outside {
                lo: 10.0,
                hi: 20.0,
                margin: 1.0,
            },
            number(9.9),
            number(10.5),
            number(11.0),
        ),
        (
            Test::Inside {
                lo: 10.0,
                hi: 20.0,
                margin: 1.0,
            },
            number(20.0),
            number(21.0),
            number(21.1),
        ),
        (
            Test::Inside {
                lo: 10.0,
                hi: 20.0,
                margin: 1.0,
            },
            number(10.0),
            number(9.0),
            number(8.9),
        ),
        (
            Test::Equals(Value::Bool(true)),
            Value::Bool(true),
            Value::Bool(true),
            Value::Bool(false),
        ),
        (
            Test::NotEquals(text("ok")),
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
        condition: Some(of_temperature(Test::Above {
            threshold,
            clear: threshold,
        })),
        hold: None,
        clear_hold: None,
        severity: None,
        remind_every: None,
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
        expects: Vec::new(),
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
    let mut story = Story::of([at_once(Test::Above {
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
        let mut story = Story::of([at_once(Test::Above {
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
    let slots = |story: &Story| story.saved.keys().filter(|key| key.starts_with(b"r/")).count();
    assert_eq!((slots(&story), story.saved.len()), (1, 2), "and what it rests on");
    story.read(1.0, 20.0);
    assert_eq!(
        (slots(&story), story.saved.len()),
        (0, 1),
        "others of the rule will"
    );
    story.killed(2.0);
    assert!(story.saved.is_empty(), "{:?}", story.saved.keys());
    story.read(3.0, 31.0).killed(4.0).wait(40.0);
    assert_eq!(
        (story.told().as_str(), story.engine.counts().unreadable),
        ("raised@33 e1", 0)
    );
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
fn a_device_that_the_configuration_names_has_its_place() {
    let mut story = Story::with([above_30()], vec![DeviceFacts::of("boiler")]);
    story.setup.max_devices = 1;
    story.killed(0.0).read(1.0, 31.0);
    let mut tell = |device| story.tell(device, 2.0, Value::Number(31.0), false).0;
    assert_eq!(tell("t-2"), Err(Skipped::OverLimit));
    assert_eq!(tell("boiler"), Ok(()));
    assert_eq!(story.told(), "raised@1 e1, raised@2 e2");
}

#[test]
fn deadlines_come_in_the_order_of_time_then_rules_then_devices_whoever_was_heard_first() {
    let rules = [30_u64, 10, 20].map(|hold| Rule {
        name: format!("hot-for-{hold}").into(),
        hold: lasting(hold),
        ..high_temperature()
    });
    let holds = rules.clone().map(|rule| rule.hold.as_secs());
    let mut story = Story::of(rules);
    story.setup.max_devices = 500;
    story.killed(0.0);
    let mut random = fastrand::Rng::with_seed(7);
    let mut since: BTreeMap<String, u64> = BTreeMap::new();
    for at in 1..=200 {
        for _ in 0..20 {
            let device = format!("t-{}", random.u32(..500));
            // Who is hot for ten seconds says no more: it stays so.
            let held = since.get(&device).map(|since| at - since);
            if held.is_some_and(|held| held >= 10) {
                continue;
            }
            let is_hot = random.bool();
            let value = Value::Number(if is_hot { 31.0 } else { 20.0 });
            let (result, _) = story.tell(&device, at as f64, value, false);
            result.unwrap();
            if !is_hot {
                since.remove(&device);
            } else if held.is_none() {
                since.insert(device, at);
            }
        }
    }
    story.wait(1000.0);
    let mut expected: Vec<_> = since
        .iter()
        .flat_map(|(device, since)| {
            (0..)
                .zip(holds)
                .map(move |(rule, hold)| (since + hold, rule, device.clone()))
        })
        .collect();
    expected.sort();
    assert!(expected.len() > 600, "{}", expected.len());
    let said: Vec<_> = story
        .said
        .iter()
        .map(|draft| {
            let data = data(draft);
            let hold = data.rule.params["hold_s"].as_u64();
            let rule = holds.iter().position(|of| Some(*of) == hold).unwrap();
            (
                draft.at.0.cast_unsigned() / 1_000_000,
                rule,
                data.device.as_str().to_owned(),
            )
        })
        .collect();
    assert_eq!(said, expected);
}
