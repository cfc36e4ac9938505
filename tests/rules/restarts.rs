//! Any story, restarted anywhere, has the events of the same story without a restart.

use proptest::prelude::*;

use super::story::*;

use tidegate::{
    event::Transition,
    reading::Value,
    rule::{Aggregate, Condition, MaxRaises, Rule, Sliding, Test, Unless, Watched},
};

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
    let outside = at_once(Test::Outside {
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

/// Of each kind one, and what stands against them.
fn every_kind() -> Vec<Rule> {
    let window = |name: &str, of: Aggregate, max, test: Test| Rule {
        name: name.into(),
        ..rule(Condition::Value(Watched {
            metric: metric("temperature"),
            window: Some(Sliding {
                of,
                over: lasting(60),
                min: 2,
                max,
            }),
            test,
        }))
    };
    let rises = Test::RisesBy { by: 3.0, clear: 2.0 };
    let two = vec![
        part("temperature", above(29.0, 28.0)),
        part("t-0/temperature", above(30.0, 29.0)),
    ];
    let silent = Condition::Silent {
        metric: metric("temperature"),
        after: lasting(12),
    };
    let mut all = Vec::from(rules());
    all.extend([
        window("mean", Aggregate::Mean, 100, above(29.5, 29.0)),
        window("few", Aggregate::Mean, 3, above(29.5, 29.0)),
        window("rise", Aggregate::Rise, 4, rises),
        Rule {
            name: "silent".into(),
            remind_every: Some(lasting(17)),
            ..rule(silent)
        },
        Rule {
            name: "both".into(),
            hold: lasting(5),
            stale_after: lasting(25),
            ..rule(Condition::All(two.clone()))
        },
        Rule {
            name: "either".into(),
            clear_hold: lasting(5),
            ..rule(Condition::Any(two))
        },
        Rule {
            name: "unless".into(),
            unless: Some(Unless {
                part: part("t-1/temperature", above(31.0, 30.0)),
                after: lasting(9),
            }),
            stale_after: lasting(25),
            ..above_30()
        },
    ]);
    all
}

fn told(steps: &[Step], stamped: bool, restart: impl Fn(&mut Story, bool, f64)) -> Story {
    told_to(rules().into(), steps, stamped, restart)
}

fn told_to(
    rules: Vec<Rule>,
    steps: &[Step],
    stamped: bool,
    restart: impl Fn(&mut Story, bool, f64),
) -> Story {
    let mut story = Story::of(rules);
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
    story.wait(now + 400.0);
    story
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let restart = proptest::option::weighted(0.3, any::<bool>());
    proptest::collection::vec((0_u8..20, 0_u8..2, -4_i8..4, restart), 1..60)
}

/// Who said what, short enough to compare by eye.
fn lines(story: &Story) -> Vec<String> {
    let told = story.told();
    let who = story
        .said
        .iter()
        .map(|draft| format!("{}/{}", data(draft).rule.name, draft.about));
    told.split(", ")
        .zip(who)
        .map(|(act, who)| format!("{who} {act}"))
        .collect()
}

proptest! {
    #[test]
    fn a_clean_restart_changes_no_event(steps in steps(), stamped: bool) {
        let without = told(&steps, stamped, |_, _, _| {});
        let with = told(&steps, stamped, |story, _, now| {
            story.restarted(now);
        });
        for (with, without) in with.said.iter().zip(&without.said) {
            prop_assert_eq!(with, without);
        }
    }

    #[test]
    fn a_clean_restart_changes_no_event_of_any_kind_of_rule(steps in steps(), stamped: bool) {
        let without = told_to(every_kind(), &steps, stamped, |_, _, _| {});
        let with = told_to(every_kind(), &steps, stamped, |story, saves, now| {
            if saves {
                story.checkpointed();
            }
            story.restarted(now);
        });
        prop_assert_eq!(lines(&with), lines(&without));
        for (with, without) in with.said.iter().zip(&without.said) {
            prop_assert_eq!(with, without);
        }
    }

    #[test]
    fn another_configuration_that_is_the_same_changes_no_event(steps in steps(), stamped: bool) {
        let without = told_to(every_kind(), &steps, stamped, |_, _, _| {});
        let with = told_to(every_kind(), &steps, stamped, |story, _, _| {
            let setup = story.setup.clone();
            story.done(|engine, out| engine.reconfigure(setup, out));
        });
        prop_assert_eq!(lines(&with), lines(&without));
        for (with, without) in with.said.iter().zip(&without.said) {
            prop_assert_eq!(with, without);
        }
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
