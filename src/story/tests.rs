//! Story files: what they mean, and what a wrong one is told.

use super::*;
use crate::config::Report;

const RULES: &str = r#"
[[rule]]
event = "BoilerTooHot"
metric = "temperature"
above = 90.0
hold = "30s"
"#;

fn parsed(text: &str) -> Result<Vec<Story>, String> {
    let load = |path: &str| {
        if path == "there.toml" {
            Rules::parse(path, RULES)
        } else {
            Err(Report::of(
                path,
                "",
                vec![(None, "could not read the rules".into())],
            ))
        }
    };
    parse("s.toml", text, &load).map_err(|report| report.to_string())
}

fn story(steps: &str) -> Result<Vec<Story>, String> {
    parsed(&format!(
        "{RULES}\n[[story]]\nname = \"x\"\ndevice = \"b\"\nsteps = [\n{steps}\n]\n"
    ))
}

fn lines(steps: &str) -> Vec<String> {
    let story = story(steps).unwrap_or_else(|report| panic!("{report}")).remove(0);
    story
        .judge(&story.tell())
        .lines
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn an_event_that_comes_otherwise_is_shown_beside_the_one_that_was_expected() {
    let shown = lines(
        r#"{ at = "0s", temperature = 91 },
        { at = "20s", expect = "BoilerTooHot", max = 91, severity = "error" },
        { at = "1m", temperature = 80 },
        { at = "1m", expect = "BoilerTooHotCleared", device = "b", reason = "back-to-normal" },
        { at = "2m", expect = "BoilerTooHot" },"#,
    );
    assert_eq!(
        shown,
        [
            "-    20s  BoilerTooHot  max 91  severity error",
            "+    30s  BoilerTooHot  b  max 91  severity warning",
            "      1m  BoilerTooHotCleared  b  reason back-to-normal",
            "-     2m  BoilerTooHot",
        ]
    );
}

#[test]
fn whatever_is_not_expected_is_a_failure() {
    assert_eq!(
        lines(r#"{ at = "0s", temperature = 91 }, { at = "30s" }"#),
        ["+    30s  BoilerTooHot  b  value 91"]
    );
}

#[test]
fn a_story_may_look_at_some_rules_only() {
    let silent = "[[rule]]\nevent = \"Silent\"\nmetric = \"temperature\"\nsilent-for = \"1m\"\n";
    let told = |only: &str| {
        let steps = "steps = [{ at = \"0s\", temperature = 95 }, { at = \"30s\", expect = \"BoilerTooHot\" }, { at = \"1h\" }]";
        parsed(&format!(
            "{RULES}{silent}[[story]]\nname = \"x\"\ndevice = \"b\"\n{only}\n{steps}\n"
        ))
    };
    let lines = |only: &str| {
        let story = told(only).unwrap_or_else(|report| panic!("{report}")).remove(0);
        story.judge(&story.tell()).lines.len()
    };
    assert_eq!(lines(""), 2, "the silence, too");
    assert_eq!(lines("only = [\"boiler-too-hot\"]"), 1);
    for (only, wanted) in [
        (
            "only = [\"boiler-to-hot\"]",
            "s.toml:14: story \"x\": only: there is no rule \"boiler-to-hot\"; did you mean \"boiler-too-hot\"?",
        ),
        (
            "only = [\"silent\"]",
            "s.toml:15: expect = \"BoilerTooHot\": `only` leaves its rule out; add \"boiler-too-hot\" to it, or drop the step",
        ),
        ("only = \"silent\"", "only must be a list of rules by name"),
        ("only = []", "only must be a list of rules by name"),
    ] {
        let report = told(only).map(|_| ()).expect_err(only);
        assert!(report.contains(wanted), "{report}");
    }
}

#[test]
fn a_story_may_look_at_a_rule_that_a_reload_brings() {
    let later = "[[set.later.rule]]\nevent = \"Later\"\nmetric = \"temperature\"\nabove = 90\nclear = 80\n";
    let steps = r#"steps = [{ at = "0s", temperature = 95 }, { at = "10m", reload = "later" }, { at = "11m", temperature = 96 }, { at = "11m", expect = "Later" }]"#;
    let told = parsed(&format!(
        "{RULES}{later}[[story]]\nname = \"x\"\ndevice = \"b\"\nonly = [\"later\"]\n{steps}\n"
    ));
    let story = told.unwrap_or_else(|report| panic!("{report}")).remove(0);
    assert_eq!(story.only, ["later"]);
}

#[test]
fn one_step_may_stand_for_many_readings() {
    let many =
        story(r#"{ at = "1s", every = "10s", temperature = [91, 92, 93] }, { at = "5s", expect = "A" }"#);
    let told = many.unwrap().remove(0);
    let at: Vec<String> = told.steps.iter().map(|step| step.at.to_string()).collect();
    assert_eq!(at, ["1s", "5s", "11s", "21s"]);
    let times = story(r#"{ at = "0s", every = "1s", times = 5, temperature = [91, 20] }"#).unwrap();
    assert_eq!(times[0].steps.len(), 5);
}

#[test]
fn rules_come_from_a_path_from_the_file_or_from_a_set_of_it() {
    let told = parsed(
        "rules = \"there.toml\"\n[[story]]\nname = \"x\"\nsteps = [{ at = \"0s\", device = \"b\", temperature = 1 }]\n",
    );
    assert_eq!(told.unwrap()[0].rules.rules.len(), 1);
    let set = RULES
        .replace("[[rule]]", "[[set.hot.rule]]")
        .replace("90.0", "60.0");
    let told = parsed(&format!(
        "{RULES}{set}[[story]]\nname = \"x\"\nrules = \"hot\"\nsteps = [{{ at = \"0s\", reload = \"there.toml\" }}]\n"
    ));
    let told = told.unwrap_or_else(|report| panic!("{report}"));
    let above = |rules: &Rules| format!("{:?}", rules.rules[0].condition);
    assert!(above(&told[0].rules).contains("60"), "{told:?}");
    assert!(matches!(&told[0].steps[0].act, Act::Reload(rules) if above(rules).contains("90")));
}

#[test]
fn a_mistake_is_told_with_its_line_and_its_remedy() {
    for (steps, wanted) in [
        (
            "{ temperature = 1 }",
            "does not say when; begin it with at = \"30s\"",
        ),
        (r#"{ at = "30" }"#, "a duration is a whole number"),
        ("{ at = 30 }", "at must be text in quotes"),
        (
            r#"{ at = "1s" }, { at = "0s" }"#,
            "write the steps in order of time",
        ),
        (
            r#"{ at = "1s", temperatur = 1 }"#,
            "no rule of this story watches the metric `temperatur`; did you mean `temperature`?",
        ),
        (r#"{ at = "1s", gatewy = "kill" }"#, "did you mean `gateway`?"),
        (
            r#"{ at = "1s", gateway = "stop" }"#,
            "must be \"restart\", \"kill\" or \"reboot\"",
        ),
        (
            r#"{ at = "1s", gateway = "kill", awy = "3s" }"#,
            "a gateway's step has no key `awy`; did you mean `away`?",
        ),
        (
            r#"{ at = "1s", expect = "A", valu = 3 }"#,
            "an expected event has no key `valu`; did you mean `value`?",
        ),
        (
            r#"{ at = "1s", expect = "A", severity = "warn" }"#,
            "must be one of info, warning, error, critical",
        ),
        (
            r#"{ at = "1s", temperature = nan }"#,
            "the gateway rejects it before any rule sees it",
        ),
        (r#"{ at = "1s", temperature = [1, 2] }"#, "several readings are"),
        (
            r#"{ at = "1s", temperature = [], every = "1s" }"#,
            "this list of values is empty",
        ),
        (
            r#"{ at = "1s", times = 0, every = "1s", temperature = 1 }"#,
            "times must be a whole number from 1 to",
        ),
        (r#"{ at = "1s", unit = "Cel" }"#, "nothing happens in this step"),
        (r#"{ at = "1s", clock = "noon" }"#, "must be a time in quotes"),
        (
            r#"{ at = "1s", reload = "warmer" }"#,
            "write its rules as [[set.warmer.rule]]",
        ),
        (
            r#"{ at = "1s", every = "0s", times = 2, temperature = 1 }"#,
            "every must be more than 0s",
        ),
        (
            r#"{ at = "100000d" }"#,
            "at = \"100000d\" is too long; 36500d is the most",
        ),
        (
            r#"{ at = "1s", expect = "BoilerToHot" }"#,
            "did you mean \"BoilerTooHot\"?",
        ),
        (
            r#"{ at = "1s", expect = "BoilerTooHot", rule = "boiler-to-hot" }"#,
            "did you mean \"boiler-too-hot\"?",
        ),
        (
            r#"{ at = "1s", expect = "BoilerTooHot", metric = "temprature" }"#,
            "did you mean \"temperature\"?",
        ),
        (
            r#"{ at = "1s", device = "kettle", temperature = 1 }, { at = "1s", expect = "BoilerTooHot", device = "kettel" }"#,
            "did you mean \"kettle\"?",
        ),
        (r#"{ at = "1s", sensor.heat = 1 }"#, "stands in quotes"),
        ("3", "a step is a table"),
    ] {
        let report = story(steps).map(|_| ()).expect_err(steps);
        assert!(report.contains(wanted), "{steps}\n{report}");
        assert!(report.starts_with("s.toml:12: "), "{steps}\n{report}");
    }
}

#[test]
fn one_step_out_of_order_is_told_once() {
    let steps = r#"{ at = "10s" }, { at = "5s" }, { at = "6s" }, { at = "7s" }"#;
    let report = story(steps).map(|_| ()).expect_err("one is out of order");
    assert_eq!(report.matches("in order of time").count(), 1, "{report}");
}

#[test]
fn a_device_is_believed_only_near_a_clock_that_somebody_vouches_for() {
    let since = |before: &str, stamp: &str| {
        let shown = lines(&format!(
            r#"{before} {{ at = "1000s", stamp = "{stamp}", temperature = 91 }},
            {{ at = "1050s", expect = "BoilerTooHot", since = "0s" }}"#
        ));
        shown[0].rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(since("", "990s"), "990s");
    assert_eq!(since("", "400s"), "1000s", "ten minutes off");
    assert_eq!(since(r#"{ at = "1s", synchronised = false },"#, "990s"), "1000s");
    assert_eq!(
        since(r#"{ at = "1s", clock = "+1h" },"#, "990s"),
        "1000s",
        "by this clock it is an hour old"
    );
    assert_eq!(since("", "1010s"), "1000s", "ahead is now");
}

#[test]
fn a_file_that_is_wrong_as_a_whole_is_told_so() {
    for (text, wanted) in [
        ("a = [", "s.toml:1: not TOML"),
        (RULES, "s.toml: there is no [[story]]; add one"),
        (
            "[[story]]\nname = \"x\"\nsteps = []\n",
            "there are no rules; write [[rule]] tables here",
        ),
        (
            "rule = 1\n[[story]]\nname = \"x\"\n",
            "s.toml:1: a story file has no key `rule`",
        ),
        (
            "rules = \"gone.toml\"\n[[story]]\nname = \"x\"\nsteps = []\n",
            "gone.toml: could not read the rules",
        ),
        (
            "rules = \"there.toml\"\n[[story]]\nname = \"x\"\n",
            "s.toml:2: story \"x\": it has no steps",
        ),
        (
            "rules = \"there.toml\"\n[[story]]\nsteps = []\n",
            "s.toml:2: this story has no name",
        ),
        (
            "rules = \"there.toml\"\n[[story]]\nname = \"x\"\nstart = 3\nsteps = []\n",
            "s.toml:4: story \"x\": start must be",
        ),
        (
            "rules = \"there.toml\"\n[[story]]\nname = \"x\"\nstep = []\n",
            "has no key `step`; did you mean `steps`?",
        ),
        (
            "rules = \"there.toml\"\n[[story]]\nname = \"x\"\nsteps = []\n[[story]]\nname = \"x\"\nsteps = []\n",
            "s.toml:5: story \"x\" has the name of the one on line 2",
        ),
    ] {
        let report = parsed(text).map(|_| ()).expect_err(text);
        assert!(report.contains(wanted), "{text}\n{report}");
    }
}

#[test]
fn a_mistake_in_a_rule_names_the_line_of_the_story_file() {
    let text = format!("[[story]]\nname = \"x\"\nsteps = []\n{RULES}clear = 95.0\n");
    let report = parsed(&text).map(|_| ()).expect_err("clear is on the wrong side");
    assert!(report.starts_with("s.toml:10: rule \"BoilerTooHot\""), "{report}");
}

#[test]
fn times_are_shown_as_they_are_written() {
    assert_eq!(At(90_000_000).to_string(), "90s");
    assert_eq!(At(3_600_000_000).to_string(), "1h");
    assert_eq!(At(1_000).to_string(), "1ms");
    assert_eq!(At(30_000_001).to_string(), "30.000001s");
    assert_eq!(At(-1_500_000).to_string(), "-1.500000s");
}
