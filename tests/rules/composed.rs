//! `all` and `any`, across metrics and devices.

use super::story::*;

use tidegate::{
    reading::Value,
    rule::{Condition, Rule, Test},
};

fn on() -> Test {
    Test::Equals(Value::Bool(true))
}

fn hot_and_open() -> Rule {
    rule(Condition::All(vec![
        part("temperature", above(30.0, 28.0)),
        part("open", on()),
    ]))
}

fn hot_or_alarm() -> Rule {
    rule(Condition::Any(vec![
        part("temperature", above(30.0, 28.0)),
        part("main/alarm", on()),
    ]))
}

#[test]
fn all_holds_when_every_part_does_and_ends_when_one_clears() {
    let mut story = Story::of([hot_and_open()]);
    story.hear(0.0, "a/temperature", 31.0);
    assert_eq!(story.told(), "", "nobody knows whether it is open");
    story.hear(1.0, "a/open", false).hear(2.0, "a/open", true);
    assert_eq!(story.told(), "raised@2 e1");
    let (draft, data) = story.last();
    assert_eq!((&*draft.subject, &*draft.about), ("a", "a"));
    assert_eq!(
        (&data.metric, &data.value, &*data.rule.kind),
        (&None, &None, "all")
    );
    let conditions: Vec<_> = data
        .conditions
        .iter()
        .map(|part| {
            (
                part.device.as_str(),
                part.metric.as_str(),
                part.value.clone(),
                part.holds,
            )
        })
        .collect();
    assert_eq!(
        conditions,
        [
            ("a", "temperature", Some(Value::Number(31.0)), Some(true)),
            ("a", "open", Some(Value::Bool(true)), Some(true)),
        ]
    );
    assert_eq!(
        data.summary,
        "a: high-temperature: temperature is 31, above 30, and open is true"
    );
    // Each part has its own clear point.
    story.hear(3.0, "a/temperature", 29.0);
    assert_eq!(story.told(), "raised@2 e1");
    story.hear(4.0, "a/temperature", 28.0);
    assert_eq!(story.told(), "raised@2 e1, cleared@4 e1");
}

#[test]
fn any_holds_when_one_part_does_and_ends_when_all_clear() {
    let mut story = Story::of([hot_or_alarm()]);
    story
        .hear(0.0, "a/temperature", 20.0)
        .hear(1.0, "b/temperature", 31.0);
    assert_eq!(story.told(), "raised@1 e1", "of b");
    // The part of another device counts for every device.
    story.hear(2.0, "main/alarm", true);
    let of: Vec<&str> = story.said.iter().map(|draft| &*draft.about).collect();
    assert_eq!(of, ["b", "a", "main"]);
    story
        .hear(3.0, "b/temperature", 20.0)
        .hear(4.0, "main/alarm", false);
    assert_eq!(
        story.told(),
        "raised@1 e1, raised@2 e2, raised@2 e3, cleared@4 e2, cleared@4 e1",
        "of main nobody knows the temperature"
    );
}

#[test]
fn a_part_that_was_not_heard_of_for_stale_after_is_unknown() {
    let mut story = Story::of([hot_and_open()]);
    story.hear(0.0, "a/open", true).hear(900.0, "a/temperature", 31.0);
    assert_eq!(story.told(), "");
    story.hear(901.0, "a/open", true);
    assert_eq!(story.told(), "raised@901 e1");
    // It neither clears ...
    story.hear(1900.0, "a/temperature", 31.0);
    assert_eq!(story.told(), "raised@901 e1");
    story.hear(1901.0, "a/temperature", 20.0);
    assert_eq!(story.told(), "raised@901 e1, cleared@1901 e1");
    let open = &story.last().1.conditions[1];
    assert_eq!((&open.value, open.holds), (&None, None));
}

#[test]
fn a_part_that_was_unknown_in_between_has_broken_the_hold() {
    let held = Rule {
        hold: lasting(1200),
        ..hot_and_open()
    };
    let mut story = Story::of([held]);
    story.hear(0.0, "a/open", true).hear(0.0, "a/temperature", 31.0);
    for at in [400.0, 800.0, 1100.0] {
        story.hear(at, "a/temperature", 31.0);
    }
    // `open` was unknown from 900 to 1150.
    story.hear(1150.0, "a/open", true).wait(1500.0);
    assert_eq!(story.told(), "");
    for at in [1600.0, 2200.0] {
        story.hear(at, "a/open", true).hear(at, "a/temperature", 31.0);
    }
    story.wait(3000.0);
    assert_eq!(story.told(), "raised@2350 e1");
}

#[test]
fn what_parts_said_last_survives_kill_9() {
    let mut story = Story::of([hot_and_open()]);
    story
        .hear(0.0, "a/open", true)
        .killed(1.0)
        .hear(2.0, "a/temperature", 31.0);
    assert_eq!(story.told(), "raised@2 e1");
    story
        .hear(3.0, "a/open", false)
        .killed(4.0)
        .hear(5.0, "a/temperature", 31.0);
    assert_eq!(story.told(), "raised@2 e1, cleared@3 e1");
}

#[test]
fn a_part_may_look_at_a_window() {
    let mut mean = part("temperature", above(30.0, 30.0));
    mean.watched.window = Some(tidegate::rule::Sliding {
        of: tidegate::rule::Aggregate::Max,
        over: lasting(60),
        min: 1,
        max: 10,
    });
    let mut story = Story::of([rule(Condition::All(vec![mean, part("open", on())]))]);
    story
        .hear(0.0, "a/temperature", 31.0)
        .hear(1.0, "a/temperature", 20.0)
        .hear(2.0, "a/open", true);
    assert_eq!(story.told(), "raised@2 e1");
    story.wait(100.0);
    assert_eq!(story.told(), "raised@2 e1, cleared@60 e1");
}
