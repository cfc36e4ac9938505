//! What conditions, windows, suppression and overrides become.

use std::{sync::Arc, time::Duration};

use tidegate::{
    config::RuleSet,
    reading::{DeviceId, Metric, Value},
    rule::{Aggregate, Condition, Override, Part, Rule, Sliding, Test, Watched},
};

fn rule(keys: &str) -> Arc<Rule> {
    let text = format!("[[rule]]\nevent = \"X\"\n{keys}\n");
    let set = RuleSet::parse("x.toml", &text).expect("it is right");
    Arc::clone(set.rules.first().expect("a rule"))
}

fn metric(name: &str) -> Metric {
    Metric::new(name).expect("a name")
}

fn sliding(of: Aggregate, over: u64) -> Sliding {
    Sliding {
        of,
        over: Duration::from_secs(over),
        min: 1,
        max: 1024,
    }
}

fn watched(name: &str, window: Option<Sliding>, test: Test) -> Watched {
    Watched {
        metric: metric(name),
        window,
        test,
    }
}

fn above(threshold: f64, clear: f64) -> Test {
    Test::Above { threshold, clear }
}

#[test]
fn a_rise_and_a_fall_look_back_and_end_a_margin_lower() {
    let rising = rule("metric = \"t\"\nrises-by = 5\nwithin = \"5m\"\nmargin = 2\n");
    let wanted = watched(
        "t",
        Some(sliding(Aggregate::Rise, 300)),
        Test::RisesBy { by: 5.0, clear: 3.0 },
    );
    assert_eq!(rising.condition, Condition::Value(wanted));
    let falling = rule("metric = \"t\"\nfalls-by = 5\nwithin = \"1h\"\nwindow-min = 3\nwindow-max = 64\n");
    let window = Some(Sliding {
        of: Aggregate::Fall,
        over: Duration::from_hours(1),
        min: 3,
        max: 64,
    });
    let wanted = watched("t", window, Test::FallsBy { by: 5.0, clear: 5.0 });
    assert_eq!(falling.condition, Condition::Value(wanted));
}

#[test]
fn a_window_is_what_of_and_over_say_and_last_is_none() {
    for (of, aggregate) in [
        ("mean", Aggregate::Mean),
        ("min", Aggregate::Min),
        ("max", Aggregate::Max),
        ("sum", Aggregate::Sum),
        ("count", Aggregate::Count),
        ("delta", Aggregate::Delta),
    ] {
        let rule = rule(&format!(
            "metric = \"t\"\nabove = 5\nof = \"{of}\"\nover = \"90s\"\n"
        ));
        let wanted = watched("t", Some(sliding(aggregate, 90)), above(5.0, 5.0));
        assert_eq!(rule.condition, Condition::Value(wanted), "{of}");
    }
    let last = rule("metric = \"t\"\nabove = 5\nof = \"last\"\n");
    assert_eq!(last.condition, Condition::of(metric("t"), above(5.0, 5.0)));
}

#[test]
fn sub_conditions_have_their_own_device_window_and_clear_point() {
    let rule = rule(
        "any = [\n  { metric = \"valve\", above = 80, margin = 5 },\n  { device = \"boiler\", metric = \"t\", below = 18, of = \"mean\", over = \"5m\" },\n]\nstale-after = \"1m\"\n",
    );
    let part = |device: Option<&str>, watched| Part {
        device: device.map(|id| DeviceId::new(id).expect("an id")),
        watched,
    };
    let below = Test::Below {
        threshold: 18.0,
        clear: 18.0,
    };
    assert_eq!(
        rule.condition,
        Condition::Any(vec![
            part(None, watched("valve", None, above(80.0, 75.0))),
            part(
                Some("boiler"),
                watched("t", Some(sliding(Aggregate::Mean, 300)), below)
            ),
        ])
    );
    assert_eq!(rule.stale_after, Duration::from_mins(1));
    assert_eq!(rule.metric(), None);
}

#[test]
fn silence_suppression_reminders_and_periods_arrive() {
    let text = "[[rule]]\nevent = \"X\"\nmetric = \"t\"\nsilent-for = \"10m\"\nremind-every = \"1h\"\nduring = [\"b\", \"a\"]\n\
                unless = { metric = \"defrost\", equals = true }\nunless-after = \"5m\"\n\
                [period.a]\ndays = [\"sat\", \"sun\"]\n[period.b]\nfrom = \"10-01\"\nto = \"04-30\"\n";
    let set = RuleSet::parse("x.toml", text).unwrap_or_else(|report| panic!("{report}"));
    let rule = &set.rules[0];
    let after = Duration::from_mins(10);
    let silent = Condition::Silent {
        metric: metric("t"),
        after,
    };
    assert_eq!(rule.condition, silent);
    assert_eq!(rule.remind_every, Some(Duration::from_hours(1)));
    let unless = rule.unless.as_ref().expect("one");
    assert_eq!(unless.after, Duration::from_mins(5));
    assert_eq!(
        unless.part.watched,
        watched("defrost", None, Test::Equals(Value::Bool(true)))
    );
    let names: Vec<&str> = rule.during.iter().map(|period| &*period.name).collect();
    assert_eq!(names, ["b", "a"]);
    assert_eq!(
        rule.during[1].days,
        Some([false, false, false, false, false, true, true])
    );
    assert_eq!(rule.stale_after, Duration::from_mins(15));
}

/// The one override that `keys` make of the rule that `base` makes.
fn overridden(base: &str, keys: &str) -> Override {
    let rule = rule(&format!(
        "metric = \"t\"\n{base}\n[[override]]\nrule = \"x\"\ndevices = [\"a\"]\n{keys}"
    ));
    rule.overrides.first().expect("an override").clone()
}

#[test]
fn an_override_of_a_rise_keeps_the_window_and_the_margin() {
    let base = "rises-by = 5\nwithin = \"5m\"\nmargin = 2\n";
    let rise = |over, by, clear| {
        let window = Some(sliding(Aggregate::Rise, over));
        Some(Condition::Value(watched(
            "t",
            window,
            Test::RisesBy { by, clear },
        )))
    };
    assert_eq!(overridden(base, "rises-by = 8\n").condition, rise(300, 8.0, 6.0));
    assert_eq!(
        overridden(base, "within = \"1m\"\n").condition,
        rise(60, 5.0, 3.0)
    );
    let all = overridden(base, "rises-by = 8\nwithin = \"1m\"\nmargin = 0\n");
    assert_eq!(all.condition, rise(60, 8.0, 8.0));
}

#[test]
fn an_override_changes_the_threshold_of_a_window_the_length_of_a_silence_and_the_reminders() {
    let mean = overridden(
        "above = 30\nmargin = 2\nof = \"mean\"\nover = \"5m\"\n",
        "above = 24\n",
    );
    let wanted = watched("t", Some(sliding(Aggregate::Mean, 300)), above(24.0, 22.0));
    assert_eq!(mean.condition, Some(Condition::Value(wanted)));
    let silent = overridden("silent-for = \"10m\"\n", "silent-for = \"1h\"\n");
    let wanted = Condition::Silent {
        metric: metric("t"),
        after: Duration::from_hours(1),
    };
    assert_eq!(silent.condition, Some(wanted));
    let reminded = overridden("above = 30\n", "remind-every = \"2h\"\n");
    assert_eq!(reminded.condition, None);
    assert_eq!(reminded.remind_every, Some(Duration::from_hours(2)));
}
