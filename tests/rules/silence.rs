//! `silent-for` and `remind-every`.

use super::story::*;

use tidegate::{
    reading::Value,
    rule::{Condition, DeviceFacts, Rule},
    time::{BootId, ClockQuality, Moment},
};

fn silent(seconds: u64) -> Rule {
    rule(Condition::Silent {
        metric: metric("temperature"),
        after: lasting(seconds),
    })
}

fn expecting() -> Vec<DeviceFacts> {
    vec![DeviceFacts {
        expects: vec![metric("temperature")],
        ..DeviceFacts::of("t-1")
    }]
}

#[test]
fn a_silent_device_raises_and_its_next_reading_clears() {
    let mut story = Story::of([silent(60)]);
    story.wait(500.0).read(500.0, 20.0).read(530.0, 21.0).wait(589.0);
    assert_eq!(story.told(), "");
    story.wait(700.0);
    assert_eq!(story.told(), "raised@590 e1");
    let (_, data) = story.last();
    assert_eq!(data.value, Some(Value::Number(21.0)), "the last value");
    assert_eq!(data.summary, "t-1: no temperature for 1m");
    assert_eq!(
        (&*data.rule.kind, &data.rule.params["silent_for_s"]),
        ("silent-for", &60.into())
    );
    story.read(700.0, 22.0);
    assert_eq!(story.told(), "raised@590 e1, cleared@700 e1");
    assert_eq!(story.last().1.summary, "t-1: temperature is back: 22 Cel");
}

#[test]
fn a_device_that_was_never_heard_of_is_not_silent_unless_it_is_expected() {
    let mut story = Story::of([silent(60)]);
    story.wait(1000.0);
    assert_eq!(story.told(), "");
    let mut story = Story::with([silent(60)], expecting());
    story.wait(1000.0);
    assert_eq!(story.told(), "raised@60 e1");
    assert_eq!(story.last().1.value, None);
}

#[test]
fn a_device_that_is_only_a_part_of_others_is_not_silent() {
    let other = Rule {
        unless: Some(tidegate::rule::Unless {
            part: part("main/temperature", above(30.0, 30.0)),
            after: lasting(0),
        }),
        ..silent(60)
    };
    let mut story = Story::of([other]);
    story.read(0.0, 20.0).wait(100.0);
    assert_eq!(story.told(), "raised@60 e1", "of t-1 alone");
    story.hear(100.0, "main/temperature", 20.0).wait(160.0);
    assert_eq!(story.told(), "raised@60 e1, raised@160 e2");
}

#[test]
fn a_late_reading_or_a_duplicate_ends_no_silence() {
    let mut story = Story::of([silent(10)]);
    story.stamped(100.0, 20.0).unwrap();
    story.wait(105.0);
    assert!(story.stamped(99.0, 20.0).is_err());
    assert!(story.stamped(100.0, 20.0).is_err());
    story.wait(200.0);
    assert_eq!(story.told(), "raised@110 e1");
}

#[test]
fn after_a_clean_stop_a_silence_goes_on_with_what_remained() {
    let mut story = Story::of([silent(60)]);
    story.read(0.0, 20.0).restarted(50.0);
    // Stopped at 50, up again at 1000: 10 s are left.
    let mut out = tidegate::rule::state::Outcome::default();
    story.engine.checkpoint(&mut out);
    story.commit(out);
    story.killed(1000.0).wait(2000.0);
    assert_eq!(story.told(), "raised@1010 e1");
}

#[test]
fn after_a_clean_stop_and_a_reboot_too() {
    let mut story = Story::of([silent(60)]);
    story.read(100.0, 20.0).restarted(150.0);
    let mut out = tidegate::rule::state::Outcome::default();
    story.engine.checkpoint(&mut out);
    story.commit(out);
    let wall = tidegate::time::Timestamp(story.moment.wall_of(seconds(150.0)).0 + 3_600_000_000);
    story.started(Moment {
        boot_id: BootId(1),
        boot: seconds(5.0),
        wall,
        quality: ClockQuality::Synchronised,
    });
    story.wait(500.0);
    assert_eq!(story.told(), "raised@15 e1");
}

#[test]
fn after_kill_9_a_silence_starts_anew_unless_its_episode_is_open() {
    let mut story = Story::of([silent(60)]);
    story.read(0.0, 20.0).checkpointed().killed(50.0).wait(109.0);
    assert_eq!(story.told(), "");
    story.wait(200.0);
    assert_eq!(story.told(), "raised@110 e1");
    story.killed(300.0).wait(1000.0);
    assert_eq!(story.told(), "raised@110 e1");
    story.read(1000.0, 20.0);
    assert_eq!(story.told(), "raised@110 e1, cleared@1000 e1");
    // An earlier clean stop vouches for nothing any more.
    story
        .restarted(1010.0)
        .read(1020.0, 20.0)
        .killed(1060.0)
        .wait(1119.0);
    assert!(story.told().ends_with("cleared@1000 e1"));
    story.wait(1120.0);
    assert!(story.told().ends_with("raised@1120 e2"));
}

#[test]
fn an_open_episode_is_reminded_of_until_it_ends() {
    let reminded = Rule {
        remind_every: Some(lasting(100)),
        clear_hold: lasting(30),
        ..above_30()
    };
    let mut story = Story::of([reminded]);
    story
        .read(0.0, 31.0)
        .wait(150.0)
        .killed(160.0)
        .wait(210.0)
        .read(280.0, 20.0)
        .wait(1000.0);
    assert_eq!(
        story.told(),
        "raised@0 e1, reminded@100 e1, reminded@200 e1, reminded@300 e1, cleared@310 e1"
    );
    let reminders: Vec<u32> = story
        .said
        .iter()
        .map(|draft| data(draft).episode.reminder)
        .collect();
    assert_eq!(reminders, [0, 1, 2, 3, 0]);
    assert_eq!(&*story.said[1].name, "HighTemperature");
}

#[test]
fn after_a_long_stop_there_is_one_reminder_not_all_that_were_missed() {
    let reminded = Rule {
        remind_every: Some(lasting(100)),
        ..above_30()
    };
    let mut story = Story::of([reminded]);
    story.read(0.0, 31.0).killed(1050.0).wait(1200.0);
    assert_eq!(story.told(), "raised@0 e1, reminded@1050 e1, reminded@1150 e1");
}
