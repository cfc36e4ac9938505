//! What the engine remembers: over restarts, edits, reboots and new epochs.

use std::sync::Arc;

use super::story::*;

use tidegate::{
    event::{Epoch, Position},
    reading::{DeviceId, Metric, Value},
    rule::{
        Aggregate, Condition, Period, Rule, Sliding, Test, Watched,
        engine::{MuteTarget, Skipped},
        state::Outcome,
    },
    time::{BootId, ClockQuality, Moment, Timestamp},
};

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
    let edited = at_once(Test::Above {
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
    let edited = at_once(Test::Above {
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
        condition: of_temperature(Test::Above {
            threshold: 40.0,
            clear: 40.0,
        }),
        ..high_temperature()
    };
    story.read(0.0, 31.0).edited(edited).killed(10.0).wait(100.0);
    assert_eq!(story.told(), "");
    story.killed(101.0);
    assert!(story.saved.is_empty());
}

#[test]
fn an_idle_gateway_writes_nothing_but_what_time_matters_to_is_said_how_far_it_came() {
    let mut story = Story::of([above_30()]);
    story.read(0.0, 20.0).wait(60.0).checkpointed();
    assert!(story.saved.is_empty(), "{:?}", story.saved.keys());
    story.read(61.0, 31.0).wait(120.0).checkpointed();
    let moments = |story: &Story| story.saved.get(&b"engine/moment"[..]).cloned();
    let first = moments(&story);
    assert!(first.is_some());
    story.wait(180.0).checkpointed();
    assert_ne!(moments(&story), first);
}

/// At which of these times, a checkpoint each, the moment is saved.
fn moments(story: &mut Story, at: impl IntoIterator<Item = u32>) -> Vec<u32> {
    at.into_iter()
        .filter(|at| {
            story.saved.remove(&b"engine/moment"[..]);
            story.wait(f64::from(*at)).checkpointed();
            story.saved.contains_key(&b"engine/moment"[..])
        })
        .collect()
}

#[test]
fn an_open_alarm_writes_nothing_while_it_waits_for_nothing_but_a_reading() {
    let mut plain = Story::of([above_30()]);
    plain.read(0.0, 31.0);
    assert_eq!(
        moments(&mut plain, [60, 240, 299, 301, 600, 86_400]),
        [60, 240, 299],
        "for as long as its raise counts against max-raises"
    );
    plain.read(90_000.0, 20.0);
    assert_eq!(moments(&mut plain, [90_060, 90_700]), [0_u32; 0]);

    let waits = [
        Rule {
            remind_every: Some(lasting(3600)),
            ..above_30()
        },
        Rule {
            clear_hold: lasting(90_000),
            ..above_30()
        },
        Rule {
            hold: lasting(100_000),
            ..above_30()
        },
        rule(Condition::All(vec![part("temperature", above(30.0, 28.0))])),
        // A hold that its periods stand against: the story begins at 08:00.
        Rule {
            during: vec![Arc::new(Period {
                name: "noon".into(),
                season: None,
                days: None,
                between: Some(("12:00".parse().unwrap(), "13:00".parse().unwrap())),
                zone: jiff::tz::TimeZone::UTC,
            })],
            ..above_30()
        },
        // A window that has run empty.
        rule(Condition::Value(Watched {
            metric: metric("temperature"),
            window: Some(Sliding {
                of: Aggregate::Mean,
                over: lasting(30),
                min: 1,
                max: 1024,
            }),
            test: above(30.0, 28.0),
        })),
    ];
    for rule in waits {
        let is_cleared = !rule.clear_hold.is_zero();
        let mut story = Story::of([rule]);
        story.read(0.0, 31.0);
        if is_cleared {
            story.read(1.0, 20.0);
        }
        assert_eq!(
            moments(&mut story, [60, 600, 7_000]),
            [60, 600, 7_000],
            "{:?}",
            story.setup.rules
        );
    }
    let mut muted = Story::of([above_30()]);
    let device = MuteTarget::Device(DeviceId::new("t-1").unwrap());
    muted.done(|engine, out| engine.mute(device, lasting(5_000), "", out));
    assert_eq!(moments(&mut muted, [60, 4_000, 6_000]), [60, 4_000]);
}

#[test]
fn an_open_alarm_is_told_apart_from_its_boot_once_the_clock_is_right() {
    let right = Story::of([]).moment;
    let synchronised = || {
        let mut story = Story::of([above_30()]);
        story.started(Moment {
            quality: ClockQuality::Unknown,
            wall: Timestamp(right.wall.0 - 3_600_000_000),
            ..right
        });
        story.read(0.0, 31.0);
        assert_eq!(moments(&mut story, [400, 460]), [0_u32; 0]);
        story.moment = right;
        story.done(|engine, _| engine.set_moment(right));
        story
    };
    assert_eq!(moments(&mut synchronised(), [520, 580, 640]), [520], "once");
    let mut story = synchronised();
    // Off for an hour, in another boot.
    story.wait(520.0).checkpointed().started(Moment {
        boot_id: BootId(1),
        boot: seconds(10.0),
        wall: Timestamp(right.wall_of(seconds(1_000.0)).0 + 3_600_000_000),
        ..right
    });
    story.read(11.0, 20.0);
    assert_eq!(story.last().1.episode.duration_ms, (1_000 + 3_600 + 1) * 1_000);
}

#[test]
fn an_open_alarm_is_told_apart_from_its_boot_whatever_else_was_saved_by_a_right_clock() {
    let right = Story::of([]).moment;
    let t_2 = DeviceId::new("t-2").unwrap();
    for is_forgotten in [true, false] {
        let mut story = Story::of([above_30()]);
        story.started(Moment {
            quality: ClockQuality::Unknown,
            wall: Timestamp(right.wall.0 - 3_600_000_000),
            ..right
        });
        story.read(0.0, 31.0).wait(400.0);
        let believe = |story: &mut Story, quality| {
            story.moment = Moment { quality, ..right };
            let moment = story.moment;
            story.done(|engine, _| engine.set_moment(moment));
        };
        believe(&mut story, ClockQuality::Synchronised);
        if is_forgotten {
            // It was the only one that the right clock had saved.
            story.tell("t-2", 401.0, Value::Number(31.0), false).0.unwrap();
            story.done(|engine, out| assert!(engine.forget(&t_2, out)));
        } else {
            assert_eq!(moments(&mut story, [410]), [410]);
            believe(&mut story, ClockQuality::Corrected);
            // Something else waits meanwhile.
            story.done(|engine, out| {
                engine.mute(MuteTarget::Device(t_2.clone()), lasting(100), "", out);
            });
            story.wait(420.0).checkpointed().wait(600.0);
            believe(&mut story, ClockQuality::Synchronised);
        }
        story.wait(1_000.0).checkpointed();
        // Off for an hour, in another boot.
        story.started(Moment {
            boot_id: BootId(1),
            boot: seconds(10.0),
            wall: Timestamp(right.wall_of(seconds(1_000.0)).0 + 3_600_000_000),
            ..right
        });
        story.read(11.0, 20.0);
        assert_eq!(
            story.last().1.episode.duration_ms,
            (1_000 + 3_600 + 1) * 1_000,
            "forgotten: {is_forgotten}"
        );
    }
}

#[test]
fn another_metric_or_kind_starts_anew() {
    let below = at_once(Test::Below {
        threshold: 50.0,
        clear: 50.0,
    });
    let humidity = Rule {
        condition: Condition::of(
            Metric::new("humidity").unwrap(),
            Test::Above {
                threshold: 30.0,
                clear: 28.0,
            },
        ),
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
fn another_configuration_forgets_neither_the_number_of_the_last_episode_nor_what_is_not_durable_yet() {
    let mut story = Story::of([above_30()]);
    story.stamped(1.0, 31.0).unwrap();
    story.stamped(2.0, 20.0).unwrap();
    let mut out = Outcome::default();
    story.engine.reconfigure(story.setup.clone(), &mut out);
    story.commit(out);
    let repeated = story.tell("t-1", 2.0, Value::Number(20.0), true);
    assert_eq!(repeated, (Err(Skipped::Duplicate), Position(2)));
    story.stamped(3.0, 31.0).unwrap();
    assert_eq!(story.told(), "raised@1 e1, cleared@2 e1, raised@3 e2");
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
fn what_a_timer_counted_since_a_reboot_is_not_lost_to_a_kill() {
    let mut story = Story::of([high_temperature()]);
    story.read(100.0, 31.0);
    story.started(Moment {
        boot_id: BootId(1),
        boot: seconds(5.0),
        quality: ClockQuality::Unknown,
        ..story.moment
    });
    story.wait(20.0).killed(20.0).wait(500.0);
    assert_eq!(story.told(), "raised@35 e1");
}

#[test]
fn an_episode_older_than_the_boot_keeps_its_beginning_and_its_duration() {
    let mut story = Story::of([above_30()]);
    story.read(100.0, 31.0);
    let raised = story.moment.wall_of(seconds(100.0));
    let wall = Timestamp(story.moment.wall_of(seconds(100.0)).0 + 60_000_000);
    story.started(Moment {
        boot_id: BootId(1),
        boot: seconds(5.0),
        wall,
        ..story.moment
    });
    story.read(10.0, 20.0);
    assert_eq!(story.told(), "raised@100 e1, cleared@10 e1");
    let episode = &story.last().1.episode;
    assert_eq!(episode.duration_ms, 65_000);
    assert_eq!(story.moment.wall_of(episode.since), raised);
    assert_eq!(story.moment.wall_of(episode.raised_at), raised);
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
