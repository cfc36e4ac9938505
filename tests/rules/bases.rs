//! What saved slots rest on: kept once, found again, written where it is missing, forgotten when nothing rests on it.

use super::story::*;

use tidegate::{
    event::{Position, Severity},
    reading::{DeviceId, Reading, Value},
    rule::{Override, Rule, engine::Refused, state::Outcome},
};

const PREFIX: &[u8] = b"engine/basis/";

/// The lengths of what is saved under these keys.
fn lengths(story: &Story, prefix: &[u8]) -> Vec<usize> {
    let of_these = story.saved.iter().filter(|(key, _)| key.starts_with(prefix));
    of_these.map(|(_, value)| value.len()).collect()
}

/// Three alarms, one of them by other numbers than the rule's.
fn three_alarms() -> Story {
    let other = Override {
        devices: vec![pattern("t-3")],
        condition: None,
        hold: None,
        clear_hold: Some(lasting(5)),
        severity: None,
        remind_every: None,
    };
    let mut story = Story::of([Rule {
        overrides: vec![other],
        ..above_30()
    }]);
    for device in ["t-1", "t-2", "t-3"] {
        story.tell(device, 1.0, Value::Number(31.25), false).0.unwrap();
    }
    assert_eq!(lengths(&story, PREFIX).len(), 2);
    story
}

#[test]
fn what_a_rule_says_is_kept_once_however_many_alarms_it_has() {
    let mut story = Story::of([Rule {
        runbook: Some("https://example.com/a-long-way-to-what-is-to-be-done".to_owned()),
        ..above_30()
    }]);
    for device in ["t-1", "t-2", "t-3"] {
        story.tell(device, 1.0, Value::Number(31.25), false).0.unwrap();
    }
    assert_eq!(lengths(&story, PREFIX).len(), 1);
    let slots = lengths(&story, b"r/");
    assert!(
        slots.len() == 3 && slots.iter().all(|bytes| *bytes <= 100),
        "{slots:?}"
    );
    // It is all that a removed rule's alarms have.
    story.setup.rules.clear();
    story.killed(2.0);
    assert_eq!(
        story
            .said
            .iter()
            .filter(|draft| &*draft.name == "HighTemperatureCleared")
            .count(),
        3
    );
    assert!(data(&story.said[5]).rule.runbook.is_some());
    story.killed(3.0);
    assert_eq!(
        story.saved.len(),
        1,
        "and then nothing rests on it: {:?}",
        story.saved.keys()
    );
}

#[test]
fn an_alarm_outlives_the_refusal_of_the_one_before_it_that_rests_on_the_same() {
    let mut story = Story::of([above_30()]);
    let mut out = Outcome::default();
    for device in ["t-1", "t-2"] {
        let reading = Reading {
            device: DeviceId::new(device).unwrap(),
            metric: metric("temperature"),
            value: Value::Number(31.0),
            unit: None,
            at: seconds(1.0),
            stamped: false,
        };
        story.engine.observe(&reading, &mut out).unwrap();
    }
    let mut parts = out.smallest().filter(|part| !part.state.is_empty());
    let mut refused = Refused::default();
    refused.add(&parts.next().unwrap());
    let accepted: Vec<Outcome> = parts.collect();
    assert!(accepted.len() == 1 && !accepted.iter().any(|part| refused.concerns(part)));
    let mut back = Outcome::default();
    story.engine.take_back(&refused, &mut back);
    for part in accepted {
        story.commit(part);
    }
    story.killed(2.0);
    assert_eq!((story.engine.counts().unreadable, story.engine.active()), (0, 1));
    // What was refused alone is offered again.
    let mut story = Story::of([above_30()]);
    let mut out = Outcome::default();
    let reading = Reading {
        device: DeviceId::new("t-1").unwrap(),
        metric: metric("temperature"),
        value: Value::Number(31.0),
        unit: None,
        at: seconds(1.0),
        stamped: false,
    };
    story.engine.observe(&reading, &mut out).unwrap();
    let mut refused = Refused::default();
    refused.add(&out);
    story.engine.take_back(&refused, &mut Outcome::default());
    story.engine.committed(Position(1));
    story.read(2.0, 31.0).killed(3.0);
    assert_eq!((story.engine.counts().unreadable, story.engine.active()), (0, 1));
}

#[test]
fn an_alarm_that_is_older_than_an_edit_outlives_any_number_of_starts() {
    let mut story = Story::of([above_30()]);
    let edited = Rule {
        severity: Severity::Critical,
        runbook: Some("https://x".to_owned()),
        ..above_30()
    };
    story.read(0.0, 31.0).edited(edited).killed(1.0).killed(2.0);
    // One of the edited rule, then the first goes on under it.
    story.tell("t-2", 3.0, Value::Number(31.0), false).0.unwrap();
    story.restarted(4.0).killed(5.0);
    assert_eq!((story.engine.counts().unreadable, story.engine.active()), (0, 2));
    story.read(6.0, 20.0);
    let (cleared, _) = story.last();
    assert_eq!(cleared.severity, Severity::Warning, "as it was raised");
}

#[test]
fn damage_to_what_a_rule_says_costs_no_alarm_while_the_rule_still_says_it() {
    for damaged in [0, 2] {
        let mut story = three_alarms();
        story
            .saved
            .retain(|key, _| damaged > 0 || !key.starts_with(PREFIX));
        for (_, bytes) in story.saved.iter_mut().filter(|(key, _)| key.starts_with(PREFIX)) {
            bytes[40] ^= 1;
        }
        story.killed(2.0);
        assert_eq!(
            (story.engine.active(), story.engine.counts().unreadable),
            (3, damaged)
        );
        // And from then on they need the rule no more.
        story.setup.rules.clear();
        story.killed(3.0);
        assert_eq!(story.engine.counts().unreadable, 0);
        let said = story.told();
        assert_eq!(
            (
                said.matches("raised").count(),
                said.matches("rule-removed").count()
            ),
            (3, 3)
        );
    }
}

#[test]
fn damage_to_what_a_rule_said_before_an_edit_is_not_taken_for_what_it_says_now() {
    let mut story = three_alarms();
    story.saved.retain(|key, _| !key.starts_with(PREFIX));
    story.edited(Rule {
        runbook: Some("https://x".to_owned()),
        ..above_30()
    });
    story.killed(2.0);
    assert_eq!((story.engine.active(), story.engine.counts().unreadable), (0, 3));
}

#[test]
fn what_no_slot_rests_on_is_forgotten_by_the_next_start() {
    let mut story = three_alarms();
    for device in ["t-1", "t-2"] {
        story.tell(device, 2.0, Value::Number(20.0), false).0.unwrap();
    }
    // Raises count against `max-raises` until then.
    story.tell("t-1", 1_000.0, Value::Number(20.0), false).0.unwrap();
    story.killed(1_001.0).killed(1_002.0);
    assert_eq!(lengths(&story, PREFIX).len(), 1, "{:?}", story.saved.keys());
    assert_eq!((story.engine.active(), story.engine.counts().unreadable), (1, 0));
    story.read(1_003.0, 31.0).killed(1_004.0);
    assert_eq!(lengths(&story, PREFIX).len(), 2);
    assert_eq!((story.engine.active(), story.engine.counts().unreadable), (2, 0));
}

#[test]
fn an_edit_makes_no_slot_larger_that_goes_on() {
    for is_reload in [true, false] {
        let mut story = Story::of([above_30()]);
        story.read(0.0, 31.0);
        let before = lengths(&story, b"r/");
        story.edited(Rule {
            runbook: Some("https://example.com/a-long-way-to-what-is-to-be-done".to_owned()),
            ..above_30()
        });
        if is_reload {
            let setup = story.setup.clone();
            story.done(|engine, out| engine.reconfigure(setup, out));
        } else {
            story.killed(1.0);
        }
        // Not plain yet: its raise counts against `max-raises`.
        story.read(2.0, 20.0);
        let after = lengths(&story, b"r/");
        assert!(
            after.len() == 1 && after <= before,
            "{before:?} {after:?}, reload: {is_reload}"
        );
        story.killed(3.0);
        assert_eq!(story.engine.counts().unreadable, 0);
    }
}

#[test]
fn without_room_for_what_an_edited_rule_says_its_alarms_go_on_all_the_same() {
    let mut story = Story::of([above_30()]);
    story.read(0.0, 31.0).edited(Rule {
        runbook: Some("https://x".to_owned()),
        ..above_30()
    });
    let mut out = Outcome::default();
    story.engine.reconfigure(story.setup.clone(), &mut out);
    let is_basis = |part: &Outcome| part.state.iter().any(|change| change.key.starts_with(PREFIX));
    let (bases, rest): (Vec<_>, Vec<_>) = out.smallest().partition(is_basis);
    assert!(
        bases.len() == 1 && bases[0].state.len() == 1,
        "apart from all else: {bases:?}"
    );
    for part in rest {
        story.commit(part);
    }
    let mut refused = Refused::default();
    for part in &bases {
        refused.add(part);
    }
    let mut back = Outcome::default();
    story.engine.take_back(&refused, &mut back);
    story.commit(back);
    story.engine.committed(Position(9));
    story.read(1.0, 20.0).killed(2.0).read(3.0, 31.0).killed(4.0);
    assert_eq!((story.engine.active(), story.engine.counts().unreadable), (1, 0));
    assert_eq!(story.told(), "raised@0 e1, cleared@1 e1, raised@3 e2");
}
