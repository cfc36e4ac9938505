//! What keeps a rule from raising: `unless`, periods, mutes; and forgetting a device.

use std::sync::Arc;

use super::story::*;

use tidegate::{
    event::{Data, Position, Transition},
    reading::{DeviceId, Value},
    rule::{Condition, Period, Rule, Test, Unless, engine::MuteTarget},
    time::{ClockQuality, Moment, Timestamp},
};

fn unless_defrost(after: u64) -> Rule {
    Rule {
        unless: Some(Unless {
            part: part("defrost", Test::Equals(Value::Bool(true))),
            after: lasting(after),
        }),
        ..above_30()
    }
}

#[test]
fn while_unless_holds_and_longer_nothing_is_raised() {
    let mut story = Story::of([unless_defrost(60)]);
    story
        .hear(0.0, "t-1/defrost", true)
        .read(10.0, 31.0)
        .hear(100.0, "t-1/defrost", false);
    story.read(150.0, 32.0).wait(159.0);
    assert_eq!(story.told(), "");
    story.wait(200.0);
    assert_eq!(story.told(), "raised@160 e1");
    assert_eq!(
        story.last().1.episode.since,
        seconds(10.0),
        "it has been true all the time"
    );
}

#[test]
fn unless_ends_an_open_episode() {
    let mut story = Story::of([unless_defrost(60)]);
    story.read(0.0, 31.0).hear(10.0, "t-1/defrost", true);
    assert_eq!(story.told(), "raised@0 e1, suppressed@10 e1");
    assert_eq!(
        story.last().1.summary,
        "t-1: temperature is 31 Cel, no alarm any more: suppressed"
    );
    story.hear(20.0, "t-1/defrost", false).killed(30.0).wait(500.0);
    assert_eq!(story.told(), "raised@0 e1, suppressed@10 e1, raised@80 e2");
}

#[test]
fn an_unless_that_is_not_heard_of_any_more_ends() {
    let mut story = Story::of([unless_defrost(60)]);
    story.hear(0.0, "t-1/defrost", true).read(10.0, 31.0).wait(2000.0);
    assert_eq!(story.told(), "raised@960 e1", "stale-after, and unless-after");
}

#[test]
fn suppression_that_comes_and_goes_cannot_flood() {
    let mut story = Story::of([unless_defrost(0)]);
    story.read(0.0, 31.0);
    for tick in 1..3600_u32 {
        story.hear(f64::from(tick), "t-1/defrost", tick % 2 == 0);
    }
    let raised = story.told().matches("raised").count();
    assert!((12..=24).contains(&raised), "{raised}");
}

/// 06:00 to 22:00 in UTC; the story begins at 08:00.
fn by_day() -> Rule {
    Rule {
        during: vec![Arc::new(Period {
            name: "day".into(),
            season: None,
            days: None,
            between: Some(("06:00".parse().unwrap(), "22:00".parse().unwrap())),
            zone: jiff::tz::TimeZone::UTC,
        })],
        ..above_30()
    }
}

/// Hours after the story began, at 08:00.
fn hour(hour: f64) -> f64 {
    hour * 3600.0
}

#[test]
fn outside_its_periods_a_rule_does_not_raise_and_leaving_them_clears() {
    let mut story = Story::of([by_day()]);
    story.read(hour(13.0), 31.0).wait(hour(14.0));
    assert_eq!(story.told(), "raised@46800 e1, out-of-period@50400 e1");
    story
        .read(hour(15.0), 20.0)
        .read(hour(16.0), 31.0)
        .wait(hour(21.9));
    assert!(story.told().ends_with("out-of-period@50400 e1"));
    story.wait(hour(23.0));
    assert!(
        story.told().ends_with("raised@79200 e2"),
        "at 06:00: {}",
        story.told()
    );
}

#[test]
fn a_restart_outside_the_periods_changes_nothing() {
    let mut story = Story::of([by_day()]);
    story
        .read(hour(13.0), 31.0)
        .wait(hour(15.0))
        .killed(hour(16.0))
        .wait(hour(17.0));
    assert_eq!(story.told(), "raised@46800 e1, out-of-period@50400 e1");
    story.killed(hour(23.0));
    assert!(story.told().ends_with("raised@82800 e2"), "{}", story.told());
}

#[test]
fn a_jump_of_the_wall_clock_moves_the_periods_with_it() {
    let mut story = Story::of([by_day()]);
    story.read(hour(1.0), 31.0);
    let at = |boot: f64, wall_hour: f64, quality| Moment {
        boot: seconds(hour(boot)),
        wall: Timestamp(1_800_000_000_000_000 + (wall_hour * 3.6e9) as i64),
        quality,
        boot_id: tidegate::time::BootId(u128::MAX - 1),
    };
    story.engine.set_moment(at(1.1, 1.1, ClockQuality::Synchronised));
    // It is put forward by 14 hours, to 23:00.
    story.engine.set_moment(at(1.1, 15.0, ClockQuality::Synchronised));
    story.wait(hour(1.1));
    assert_eq!(story.told(), "raised@3600 e1, out-of-period@3960 e1");
    // And back again.
    story.engine.set_moment(at(1.2, 1.2, ClockQuality::Synchronised));
    assert_eq!(story.engine.next_deadline(), Some(seconds(hour(1.2))));
    story.wait(hour(1.2));
    assert!(story.told().ends_with("raised@4320 e2"), "{}", story.told());
    story.engine.set_moment(at(1.3, 1.3, ClockQuality::Synchronised));
    // At night nobody knows the time any more: it counts as inside.
    story.engine.set_moment(at(1.3, 15.0, ClockQuality::Synchronised));
    story.wait(hour(1.3));
    assert!(story.told().ends_with("out-of-period@4680 e2"));
    story.engine.set_moment(at(1.4, 15.1, ClockQuality::Unknown));
    story.wait(hour(1.4));
    assert!(story.told().ends_with("raised@5040 e3"), "{}", story.told());
}

fn device(name: &str) -> MuteTarget {
    MuteTarget::Device(DeviceId::new(name).unwrap())
}

#[test]
fn a_mute_ends_what_is_open_and_raises_it_again_at_its_end_if_it_still_holds() {
    let mut story = Story::of([above_30()]);
    story.read(0.0, 31.0).wait(10.0);
    story.done(|engine, out| engine.mute(device("t-1"), lasting(100), "cleaning", out));
    assert_eq!(story.told(), "raised@0 e1, AlarmMuted@10, muted@10 e1");
    assert_eq!(story.engine.active(), 0);
    story.read(20.0, 20.0).read(30.0, 31.0).killed(50.0).wait(200.0);
    assert!(
        story
            .told()
            .ends_with("muted@10 e1, AlarmUnmuted@110, raised@110 e2"),
        "{}",
        story.told()
    );
    let (muted, unmuted) = (&story.said[1], &story.said[3]);
    assert_eq!(muted.correlation.as_deref(), Some("0000000000007-m1"));
    assert_eq!(muted.correlation, unmuted.correlation);
    let Data::Gateway(data) = &muted.data else {
        panic!("{muted:?}")
    };
    assert_eq!(
        (&data["device"], &data["reason"]),
        (&"t-1".into(), &"cleaning".into())
    );
    assert!(story.engine.mutes().next().is_none());
}

#[test]
fn a_muted_rule_raises_on_no_device_and_another_rule_does() {
    let other = Rule {
        name: "hot".into(),
        ..above_30()
    };
    let mut story = Story::of([above_30(), other]);
    let target = MuteTarget::Rule("high-temperature".into());
    story.done(|engine, out| engine.mute(target.clone(), lasting(100), "", out));
    story
        .read(1.0, 31.0)
        .tell("t-2", 2.0, Value::Number(31.0), false)
        .0
        .unwrap();
    assert_eq!(story.told(), "AlarmMuted@0, raised@1 e1, raised@2 e2");
    assert_eq!(&*story.last().1.rule.name, "hot");
    assert_eq!(story.engine.mutes().count(), 1);
    story
        .wait(50.0)
        .done(|engine, out| assert!(engine.unmute(&target, out)));
    assert!(
        story
            .told()
            .ends_with("AlarmUnmuted@50, raised@50 e3, raised@50 e4")
    );
    story.done(|engine, out| assert!(!engine.unmute(&target, out)));
}

#[test]
fn a_device_that_first_speaks_while_it_is_muted_is_muted() {
    let mut story = Story::of([above_30()]);
    story.done(|engine, out| engine.mute(device("t-9"), lasting(100), "", out));
    story.tell("t-9", 1.0, Value::Number(31.0), false).0.unwrap();
    assert_eq!(story.told(), "AlarmMuted@0");
}

#[test]
fn a_forgotten_device_leaves_nothing_behind() {
    let mut story = Story::of([above_30()]);
    story
        .read(0.0, 31.0)
        .tell("t-2", 1.0, Value::Number(31.0), false)
        .0
        .unwrap();
    story.restarted(2.0);
    let id = DeviceId::new("t-1").unwrap();
    story.done(|engine, out| assert!(engine.forget(&id, out)));
    assert_eq!(story.told(), "raised@0 e1, raised@1 e2, device-removed@2 e1");
    let about_it = |key: &&Vec<u8>| String::from_utf8_lossy(key).contains("t-1");
    assert_eq!(story.saved.keys().filter(about_it).count(), 0);
    story.done(|engine, out| assert!(!engine.forget(&id, out)));
    story.tell("t-2", 3.0, Value::Number(20.0), false).0.unwrap();
    assert!(story.told().ends_with("cleared@3 e2"));
}

#[test]
fn open_episodes_are_listed_by_rule_and_device() {
    let other = Rule {
        name: "hot".into(),
        event: "Hot".into(),
        ..above_30()
    };
    let mut story = Story::of([above_30(), other]);
    for device in ["t-2", "t-1"] {
        story.tell(device, 1.0, Value::Number(31.0), false).0.unwrap();
    }
    let open: Vec<_> = story
        .engine
        .episodes()
        .map(|open| (open.rule, open.device, open.value))
        .collect();
    let names: Vec<_> = open
        .iter()
        .map(|(rule, device, _)| format!("{rule}/{device}"))
        .collect();
    assert_eq!(
        names,
        [
            "high-temperature/t-1",
            "high-temperature/t-2",
            "hot/t-1",
            "hot/t-2"
        ]
    );
    assert_eq!(open[0].2, Some(Value::Number(31.0)));
}

#[test]
fn another_configuration_keeps_what_it_does_not_change() {
    let mut story = Story::of([high_temperature()]);
    story.read(0.0, 31.0).wait(10.0);
    let added = Rule {
        name: "more".into(),
        ..above_30()
    };
    story.setup.rules.insert(0, Arc::new(added));
    let setup = story.setup.clone();
    story.done(|engine, out| engine.reconfigure(setup, out));
    story.wait(30.0);
    assert_eq!(story.told(), "raised@30 e1");
    // What was decided before it may not be durable yet.
    assert_eq!(story.tell("t-1", 31.0, Value::Number(31.0), false).1, Position(2));
}

#[test]
fn an_alarm_that_was_muted_says_since_when_its_condition_has_been_true() {
    let mut story = Story::of([high_temperature()]);
    let muted = |seconds| {
        move |engine: &mut tidegate::rule::engine::Engine, out: &mut tidegate::rule::state::Outcome| {
            let target = MuteTarget::Rule("high-temperature".into());
            engine.mute(target, lasting(seconds), "", out);
        }
    };
    story.read(0.0, 31.0).wait(100.0).done(muted(10));
    story.read(105.0, 33.0).wait(200.0);
    assert_eq!(
        story.told(),
        "raised@30 e1, AlarmMuted@100, muted@100 e1, AlarmUnmuted@110, raised@110 e2"
    );
    let episode = &story.last().1.episode;
    assert_eq!((episode.since, episode.raised_at), (seconds(0.0), seconds(110.0)));
    assert_eq!((episode.max, episode.readings), (Some(33.0), 2));
    // What is no longer true when a mute begins, or ends meanwhile, begins anew.
    story.read(210.0, 29.0).done(muted(10)).wait(230.0);
    story.read(240.0, 31.0).wait(300.0).done(muted(50));
    story.read(310.0, 20.0).read(320.0, 31.0).wait(400.0);
    let raised = story
        .said
        .iter()
        .filter(|draft| draft.transition == Some(Transition::Raised));
    let since: Vec<_> = raised.map(|draft| data(draft).episode.since).collect();
    assert_eq!(since, [0.0, 0.0, 240.0, 320.0].map(seconds));
}

#[test]
fn a_mute_that_ends_before_a_device_is_first_heard_of_raises_nothing_of_it() {
    let mut story = Story::of([rule(Condition::Any(vec![part("main/alarm", above(0.0, 0.0))]))]);
    let target = MuteTarget::Device(DeviceId::new("t-2").unwrap());
    story.done(|engine, out| engine.mute(target, lasting(5), "", out));
    story.hear(1.0, "main/alarm", 1.0);
    let before = story.told();
    story.hear(6.0, "t-2/other", 0.0);
    assert_eq!(story.told(), format!("{before}, AlarmUnmuted@5"));
}
