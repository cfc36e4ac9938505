//! Sliding windows, rises and falls.

use super::story::*;

use tidegate::{
    reading::Value,
    rule::{Aggregate, Condition, Rule, Sliding, Test, Watched},
};

fn over(of: Aggregate, seconds: u64, test: Test) -> Rule {
    bounded(of, seconds, 1, 1024, test)
}

fn bounded(of: Aggregate, seconds: u64, min: usize, max: usize, test: Test) -> Rule {
    rule(Condition::Value(Watched {
        metric: metric("temperature"),
        window: Some(Sliding {
            of,
            over: lasting(seconds),
            min,
            max,
        }),
        test,
    }))
}

fn value(story: &Story) -> f64 {
    match story.last().1.value {
        Some(Value::Number(number)) => number,
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn a_mean_is_of_the_readings_of_its_window() {
    let mut story = Story::of([over(Aggregate::Mean, 60, above(30.0, 28.0))]);
    story.read(0.0, 20.0).read(20.0, 38.0);
    assert_eq!(story.told(), "");
    story.read(40.0, 38.0);
    assert_eq!(story.told(), "raised@40 e1");
    assert_eq!(value(&story), 32.0);
    let window = story.last().1.window.clone().unwrap();
    assert_eq!((&*window.of, window.over_ms, window.count), ("mean", 60_000, 3));
    assert_eq!((window.span_ms, window.approximate), (40_000, false));
    assert_eq!(
        story.last().1.summary,
        "t-1: mean of temperature over 1m is 32 Cel, above 30"
    );
}

#[test]
fn a_window_is_looked_at_when_its_oldest_leaves() {
    let mut story = Story::of([over(Aggregate::Sum, 60, above(30.0, 30.0))]);
    story.read(0.0, 20.0).read(10.0, 20.0).wait(59.9);
    assert_eq!(story.told(), "raised@10 e1");
    story.wait(60.0);
    assert_eq!(story.told(), "raised@10 e1, cleared@60 e1");
    assert_eq!(value(&story), 20.0);
}

#[test]
fn a_reading_as_old_as_the_window_is_long_is_no_longer_in_it() {
    let mut story = Story::of([over(Aggregate::Count, 60, above(1.0, 1.0))]);
    story.read(0.0, 1.0).read(60.0, 1.0);
    assert_eq!(story.told(), "");
    story.read(119.0, 1.0);
    assert_eq!(story.told(), "raised@119 e1");
    assert_eq!((value(&story), story.last().1.unit.as_deref()), (2.0, None));
}

#[test]
fn an_empty_window_neither_raises_nor_clears() {
    let below = Test::Below {
        threshold: 5.0,
        clear: 5.0,
    };
    let mut story = Story::of([over(Aggregate::Sum, 60, below)]);
    story.read(0.0, 3.0).wait(1000.0);
    assert_eq!(story.told(), "raised@0 e1");
    story.read(1000.0, 7.0);
    assert_eq!(story.told(), "raised@0 e1, cleared@1000 e1");
}

#[test]
fn a_window_with_too_few_readings_is_unknown_and_breaks_a_hold() {
    let held = Rule {
        hold: lasting(30),
        ..bounded(Aggregate::Max, 60, 2, 1024, above(30.0, 30.0))
    };
    let mut story = Story::of([held]);
    story.read(0.0, 31.0).read(50.0, 31.0).wait(200.0);
    // The first left at 60, ten seconds into the hold.
    assert_eq!(story.told(), "");
    story.read(200.0, 31.0).read(210.0, 31.0).wait(300.0);
    assert_eq!(story.told(), "raised@240 e1");
}

#[test]
fn a_rise_and_a_fall_are_measured_from_the_extreme_of_the_window() {
    let rises = Test::RisesBy { by: 5.0, clear: 4.0 };
    let mut story = Story::of([over(Aggregate::Rise, 60, rises)]);
    story.read(0.0, 20.0).read(10.0, 18.0).read(20.0, 22.9);
    assert_eq!(story.told(), "");
    story.read(30.0, 23.0);
    assert_eq!(story.told(), "raised@30 e1");
    assert_eq!(
        story.last().1.summary,
        "t-1: rise of temperature within 1m is 5 Cel, at least 5"
    );
    // The 18 leaves at 70; from 22.9 it is no rise any more.
    story.wait(70.0);
    assert_eq!(story.told(), "raised@30 e1, cleared@70 e1");

    let falls = Test::FallsBy { by: 5.0, clear: 5.0 };
    let mut story = Story::of([over(Aggregate::Fall, 60, falls)]);
    story
        .read(0.0, 20.0)
        .read(10.0, 25.0)
        .read(20.0, 20.0)
        .read(21.0, 20.5);
    assert_eq!(story.told(), "raised@20 e1, cleared@21 e1");
    let params = serde_json::json!({ "falls_by": 5.0, "clear": 5.0, "within_s": 60 });
    assert_eq!(
        serde_json::Value::Object(story.last().1.rule.params.clone()),
        params
    );
}

#[test]
fn a_delta_is_the_newest_minus_the_oldest() {
    let mut story = Story::of([over(Aggregate::Delta, 60, above(5.0, 5.0))]);
    story.read(0.0, 10.0).read(10.0, 2.0).read(20.0, 15.5);
    assert_eq!(story.told(), "raised@20 e1");
    assert_eq!(value(&story), 5.5);
}

#[test]
fn beyond_window_max_the_mean_is_close_and_the_extremes_are_exact() {
    let always = || Test::Above {
        threshold: -1e9,
        clear: -2e9,
    };
    let noise = |tick: u32| f64::from(tick.wrapping_mul(2_654_435_761) >> 20);
    for of in [
        Aggregate::Mean,
        Aggregate::Max,
        Aggregate::Min,
        Aggregate::Sum,
        Aggregate::Count,
    ] {
        let reminded = |max| Rule {
            remind_every: Some(lasting(5000)),
            ..bounded(of, 600, 1, max, always())
        };
        let (mut exact, mut summed) = (Story::of([reminded(100_000)]), Story::of([reminded(64)]));
        for tick in 0..5000 {
            exact.read(f64::from(tick), noise(tick));
            summed.read(f64::from(tick), noise(tick));
        }
        exact.wait(5000.0);
        summed.wait(5000.0);
        let window = summed.last().1.window.clone().unwrap();
        assert!(
            window.approximate && window.count.abs_diff(599) <= 10,
            "{window:?}"
        );
        let (is, close) = (value(&exact), value(&summed));
        match of {
            Aggregate::Max | Aggregate::Min => assert_eq!(is, close, "{of:?}"),
            _ => assert!((is - close).abs() <= is.abs() * 0.03, "{of:?}: {is} {close}"),
        }
    }
}

#[test]
fn a_ramp_longer_than_a_window_may_keep_misses_no_extreme() {
    let mut story = Story::of([bounded(
        Aggregate::Rise,
        6000,
        1,
        16,
        Test::RisesBy {
            by: 5999.0,
            clear: 5999.0,
        },
    )]);
    for tick in 0..6000 {
        story.read(f64::from(tick), f64::from(tick));
    }
    assert_eq!(story.told(), "raised@5999 e1");
}

#[test]
fn a_window_goes_on_over_a_clean_restart() {
    for max in [1024, 8] {
        let rules = || {
            [
                Rule {
                    name: "mean".into(),
                    ..bounded(Aggregate::Mean, 60, 1, max, above(30.0, 28.0))
                },
                bounded(Aggregate::Fall, 60, 1, max, Test::FallsBy { by: 8.0, clear: 6.0 }),
            ]
        };
        let told = |restarts: bool| {
            let mut story = Story::of(rules());
            for tick in 0..600_u32 {
                let value = 29.0 + f64::from(tick.wrapping_mul(2_654_435_761) >> 28) - 6.0;
                story.read(f64::from(tick), value);
                if restarts && tick % 7 == 0 {
                    story.restarted(f64::from(tick));
                }
                if tick % 60 == 0 {
                    story.checkpointed();
                }
            }
            story.wait(1000.0);
            (story.told(), story.said)
        };
        let (without, with) = (told(false), told(true));
        assert_eq!(with.0, without.0, "window-max {max}");
        assert_eq!(with.1, without.1, "window-max {max}");
        assert!(without.0.contains("e3"), "{}", without.0);
    }
}

#[test]
fn what_has_left_a_window_before_a_clean_stop_does_not_leave_it_again_after_it() {
    let rising = |by: f64| over(Aggregate::Rise, 20, Test::RisesBy { by, clear: by - 1.0 });
    let mut story = Story::of([rising(1.0)]);
    story.read(0.0, 0.0).read(12.0, 1.0).checkpointed();
    // What leaves at 20 leaves nothing that clears; by the new numbers it would.
    story.edited(rising(2.0)).restarted(20.0).wait(31.0);
    assert_eq!(story.told(), "raised@12 e1");
    story.wait(32.0);
    assert_eq!(story.told(), "raised@12 e1", "an empty window is unknown");
    story.read(33.0, 0.0);
    assert_eq!(story.told(), "raised@12 e1, rule-changed@33 e1");
}

#[test]
fn after_kill_9_only_what_came_since_the_checkpoint_is_missing() {
    let mut story = Story::of([over(Aggregate::Count, 600, above(10.0, 10.0))]);
    for tick in 0..9 {
        story.read(f64::from(tick), 1.0);
    }
    story.checkpointed().read(9.0, 1.0).killed(10.0);
    story.read(11.0, 1.0);
    assert_eq!(story.told(), "", "ten with the one that was lost");
    story.read(12.0, 1.0);
    assert_eq!(story.told(), "raised@12 e1");
}

#[test]
fn a_checkpoint_writes_only_what_was_added_and_removes_what_has_left() {
    let mut story = Story::of([over(Aggregate::Count, 600, above(1e9, 1e9))]);
    let mut written = 0;
    for tick in 0..6000 {
        story.read(f64::from(tick), 1.0);
        if tick % 60 == 59 {
            story.done(|engine, out| {
                engine.save_windows(out);
                written += out
                    .state
                    .iter()
                    .filter_map(|change| Some(change.value.as_ref()?.len()))
                    .sum::<usize>();
            });
        }
    }
    // Six thousand readings of 20 bytes, and what a run says of itself.
    assert!(written < 6000 * 20 + 100 * 300, "{written}");
    let kept = story.saved.keys().filter(|key| key.starts_with(b"w/")).count();
    assert!((10..=12).contains(&kept), "{kept} runs of 60 readings");
    story.wait(10_000.0).read(10_000.0, 1.0).checkpointed();
    let kept = story.saved.keys().filter(|key| key.starts_with(b"w/")).count();
    assert_eq!(kept, 1);
}

#[test]
fn one_checkpoint_writes_no_more_than_its_bound_and_the_next_ones_the_rest() {
    let mut story = Story::of([over(Aggregate::Count, 600, above(1e9, 1e9))]);
    story.setup.max_devices = 2000;
    story.killed(0.0);
    for device in 0..2000 {
        story
            .tell(&format!("t-{device}"), 1.0, Value::Number(1.0), false)
            .0
            .unwrap();
    }
    let mut runs = 0;
    for round in 0..20 {
        story.done(|engine, out| {
            engine.save_windows(out);
            let bytes: usize = out
                .state
                .iter()
                .filter_map(|change| Some(change.value.as_ref()?.len()))
                .sum();
            assert!(bytes < 70 * 1024, "{bytes} in round {round}");
            runs += out
                .state
                .iter()
                .filter(|change| change.key.starts_with(b"w/"))
                .count();
        });
    }
    assert_eq!(runs, 2000);
}

#[test]
fn a_window_of_another_rule_or_metric_is_forgotten() {
    let mut story = Story::of([over(Aggregate::Count, 600, above(10.0, 10.0))]);
    story.read(0.0, 1.0).checkpointed().edited(above_30()).killed(1.0);
    assert!(
        story.saved.keys().all(|key| !key.starts_with(b"w/")),
        "{:?}",
        story.saved.keys()
    );
}
