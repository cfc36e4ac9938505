//! Commands that need no running gateway, as the real program.

use std::{
    path::Path,
    process::{Command, Output},
    sync::Arc,
};

use tidegate::{
    reading::{DeviceId, Metric, Reading, Value},
    recorder::{Recorder, Settings},
    time::{Clock, EngineTime},
};

fn tidegate(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(arguments)
        .current_dir(dir)
        .output()
        .expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("it speaks UTF-8")
}

/// The example of docs/rules.md, letter by letter.
fn example() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rules.md");
    let docs = std::fs::read_to_string(path).expect("docs/rules.md is there");
    let (_, section) = docs.split_once("## Testing rules").expect("the section is there");
    let (_, code) = section.split_once("```toml\n").expect("an example");
    code.split_once("```").expect("its end").0.to_owned()
}

#[test]
fn the_example_of_the_documents_is_a_story_that_passes() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("boiler.toml"), example()).unwrap();
    let ran = tidegate(dir.path(), &["test", "boiler.toml"]);
    let shown = text(&ran.stdout);
    assert!(ran.status.success(), "{shown}{}", text(&ran.stderr));
    assert!(shown.starts_with("boiler.toml\n  ok      "), "{shown}");
    assert!(shown.ends_with("2 stories: 2 ok, 0 failed\n"), "{shown}");
}

#[test]
fn a_story_that_goes_otherwise_fails_with_what_came_and_what_did_not() {
    let dir = tempfile::tempdir().unwrap();
    let wrong = example().replace("hold = \"30s\"", "hold = \"45s\"");
    std::fs::write(dir.path().join("boiler.toml"), wrong).unwrap();
    let ran = tidegate(dir.path(), &["test", "boiler.toml"]);
    let shown = text(&ran.stdout);
    assert_eq!(ran.status.code(), Some(1), "{shown}");
    assert!(
        shown.contains("  FAILED  the boiler is too hot for 30 s (boiler.toml:8)"),
        "{shown}"
    );
    assert!(shown.contains("          -    30s  BoilerTooHot"), "{shown}");
    assert!(shown.contains("          +    45s  BoilerTooHot"), "{shown}");
    assert_eq!(text(&ran.stderr), "2 stories: 1 ok, 1 failed\n");
}

#[test]
fn a_wrong_story_file_is_told_with_its_line_before_any_story() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("right.toml"), example()).unwrap();
    std::fs::write(
        dir.path().join("wrong.toml"),
        example().replace("device =", "devise ="),
    )
    .unwrap();
    let ran = tidegate(dir.path(), &["test", "right.toml", "wrong.toml", "none.toml"]);
    assert_eq!(ran.status.code(), Some(78));
    assert_eq!(text(&ran.stdout), "");
    let report = text(&ran.stderr);
    assert!(report.contains("wrong.toml:10: story"), "{report}");
    assert!(report.contains("did you mean `device`?"), "{report}");
    assert!(
        report.contains("none.toml: could not read the stories: there is no such file"),
        "{report}"
    );
}

#[test]
fn a_story_takes_its_rules_from_a_file_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let example = example();
    let (rules, stories) = example.split_once("[[story]]").unwrap();
    std::fs::create_dir(dir.path().join("tests")).unwrap();
    std::fs::write(dir.path().join("rules.toml"), rules).unwrap();
    let stories = format!("rules = \"../rules.toml\"\n[[story]]{stories}");
    std::fs::write(dir.path().join("tests/boiler.toml"), stories).unwrap();
    let ran = tidegate(dir.path(), &["test", "tests/boiler.toml"]);
    assert!(ran.status.success(), "{}{}", text(&ran.stdout), text(&ran.stderr));
}

const CONFIG: &str = r#"
[mqtt]
listen = ["127.0.0.1:1883"]
[[mqtt.readings]]
topic = "t/{device}"
format = "json"
[[rule]]
event = "TooHot"
metric = "temperature"
above = 30.0
clear = 28.0
"#;

/// Readings of two devices, as a gateway keeps them.
fn recorded(dir: &Path) {
    let clock = Clock::system();
    let settings = Settings {
        dir: dir.to_owned(),
        max_bytes: 1 << 20,
    };
    let (recorder, ended) = Recorder::start(settings, clock.clone()).expect("a thread");
    let reading = |device: &str, value: f64| Reading {
        device: DeviceId::new(device).expect("a name"),
        metric: Metric::new("temperature").expect("a name"),
        value: Value::Number(value),
        unit: Some(Arc::from("Cel")),
        at: EngineTime(clock.now().0),
        stamped: false,
    };
    let readings = vec![reading("boiler", 31.200_000_000_000_003), reading("pump", 20.0)];
    recorder.record(readings, clock.now());
    drop(recorder);
    ended.blocking_recv().expect("it ends in order");
}

#[test]
fn who_has_seen_enough_hears_no_complaint() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("gateway.toml"), CONFIG).unwrap();
    std::fs::write(dir.path().join("boiler.toml"), example()).unwrap();
    recorded(&dir.path().join("readings"));
    for arguments in [
        ["catalog", "--config", "gateway.toml"].as_slice(),
        &["check", "gateway.toml"],
        &["test", "boiler.toml"],
        &["readings", "--dir", "readings"],
        &["--help"],
    ] {
        // Nobody reads what it writes.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ran = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(arguments)
            .current_dir(dir.path())
            .stdout(writer)
            .output()
            .expect("the program runs");
        assert_eq!(
            (ran.status.code(), text(&ran.stderr).as_str()),
            (Some(0), ""),
            "{arguments:?}"
        );
    }
}

#[test]
fn a_report_that_nobody_reads_still_has_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let wrong = example().replace("hold = \"30s\"", "hold = \"45s\"");
    std::fs::write(dir.path().join("boiler.toml"), wrong).unwrap();
    for (arguments, code) in [(["check", "none.toml"], 78), (["test", "boiler.toml"], 1)] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ran = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(arguments)
            .current_dir(dir.path())
            .stdout(writer.try_clone().unwrap())
            .stderr(writer)
            .status();
        assert_eq!(ran.expect("the program runs").code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn readings_that_are_not_there_are_said_not_to_be() {
    let dir = tempfile::tempdir().unwrap();
    recorded(&dir.path().join("readings"));
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    for (arguments, said) in [
        (
            ["--dir", "readings", "--device", "biler"].as_slice(),
            "no reading of a device \"biler\" is recorded; did you mean \"boiler\"?\n",
        ),
        (
            &["--dir", "readings", "--device", "attic-*"],
            "no reading of a device \"attic-*\" is recorded; there are readings of boiler, pump\n",
        ),
        (
            &["--dir", "readings", "--metric", "flow"],
            "no reading of the metric \"flow\" is recorded; there are readings of temperature\n",
        ),
        (
            &["--dir", "readings", "--to", "2020-01-01T00:00:00Z"],
            "no reading is recorded of this time; there are readings from ",
        ),
        (&["--dir", "empty"], "no reading is recorded in empty yet\n"),
    ] {
        let ran = tidegate(dir.path(), &[&["readings"], arguments].concat());
        assert_eq!((ran.status.code(), text(&ran.stdout).as_str()), (Some(0), ""));
        let told = text(&ran.stderr);
        assert!(
            told.starts_with(&format!("tidegate: {said}")),
            "{arguments:?}: {told}"
        );
    }
}

#[test]
fn people_read_what_was_measured_and_programs_every_digit() {
    let dir = tempfile::tempdir().unwrap();
    recorded(&dir.path().join("readings"));
    let shown = |format: &str| {
        let ran = tidegate(
            dir.path(),
            &[
                "readings", "--dir", "readings", "--device", "boiler", "--format", format,
            ],
        );
        text(&ran.stdout)
    };
    assert!(shown("table").ends_with("  31.2 Cel\n"), "{}", shown("table"));
    assert!(shown("csv").contains(",31.200000000000003,"), "{}", shown("csv"));
    assert!(
        shown("jsonl").contains(":31.200000000000003}"),
        "{}",
        shown("jsonl")
    );
}

/// What `tidegate plan` says as JSON.
fn planned(dir: &Path, arguments: &[&str]) -> serde_json::Value {
    let ran = tidegate(
        dir,
        &[
            &["plan", "--config", "gateway.toml", "--format", "json"],
            arguments,
        ]
        .concat(),
    );
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    serde_json::from_slice(&ran.stdout).expect("JSON")
}

#[test]
fn a_plan_follows_the_rates_the_link_and_the_card_that_are_given() {
    let dir = tempfile::tempdir().unwrap();
    let sinks = "[[sink.mqtt]]\nname = \"cloud\"\nurl = \"mqtts://broker.example.com\"\npassword-file = \"none\"\n\
                 username = \"gateway\"\n[[sink.http]]\nname = \"slow\"\nurl = \"https://a.example.com/\"\ndrain-rate = \"1/s\"\n";
    let config = format!("[journal]\ndir = \"journal\"\n{CONFIG}{sinks}");
    std::fs::write(dir.path().join("gateway.toml"), config).unwrap();
    let number = |plan: &serde_json::Value, pointer: &str| {
        let value = plan.pointer(pointer).and_then(serde_json::Value::as_u64);
        value.unwrap_or_else(|| panic!("no number at {pointer} in {plan}"))
    };
    let plan = |arguments: &[&str]| planned(dir.path(), arguments);

    let small = plan(&["--events-per-day", "20000", "--card", "4GiB"]);
    // 5 % of 4 GiB.
    assert_eq!(number(&small, "/assumptions/journal_bytes/value"), (4 << 30) / 20);
    let large = plan(&["--events-per-day", "20000", "--card", "32GiB"]);
    assert_eq!(number(&large, "/assumptions/journal_bytes/value"), 1 << 30);
    for figure in ["/outage_s", "/card_days"] {
        assert!(number(&small, figure) < number(&large, figure), "{figure}");
    }
    let busy = plan(&["--events-per-day", "200000", "--card", "32GiB"]);
    for figure in ["/outage_s", "/card_days"] {
        assert!(number(&busy, figure) < number(&large, figure), "{figure}");
    }
    assert_eq!(large["sinks"][0]["bound"], "link");
    assert_eq!(large["sinks"][1]["bound"], "drain-rate");
    assert_eq!(number(&large, "/sinks/1/events_per_day"), 86_400);
    assert!(
        busy["sinks"][1]["drains_the_journal_in_s"].is_null(),
        "more come than go"
    );
    let narrow = plan(&[
        "--events-per-day",
        "20000",
        "--card",
        "32GiB",
        "--uplink-kbit",
        "64",
    ]);
    let drain = "/sinks/0/drains_the_journal_in_s";
    assert!(number(&narrow, drain) > number(&large, drain));
}

#[test]
fn a_plan_names_what_it_assumes() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("gateway.toml"),
        format!("[journal]\ndir = \"journal\"\nmax-bytes = \"64MiB\"\n{CONFIG}"),
    )
    .unwrap();
    let ran = tidegate(
        dir.path(),
        &["plan", "--config", "gateway.toml", "--card", "16GiB"],
    );
    let shown = text(&ran.stdout);
    assert!(ran.status.success(), "{shown}{}", text(&ran.stderr));
    for words in [
        "journal  holds ",
        "none: nothing is delivered",
        "1000                assumed: --events-per-day; and 96 heartbeats",
        "64.0 MiB            [journal] max-bytes",
        "16.0 GiB            given",
        "bench/README.md",
        "not counted: ",
    ] {
        assert!(shown.contains(words), "no {words:?} in\n{shown}");
    }
    for (wrong, words) in [
        (["--card", "0GiB"], "a size is"),
        (["--uplink-kbit", "0"], "not in"),
    ] {
        let ran = tidegate(
            dir.path(),
            &[&["plan", "--config", "gateway.toml"], wrong.as_slice()].concat(),
        );
        assert_eq!(ran.status.code(), Some(2));
        assert!(text(&ran.stderr).contains(words), "{}", text(&ran.stderr));
    }
}

#[test]
fn check_says_how_large_the_journal_may_get_and_when_the_card_decides_that() {
    let dir = tempfile::tempdir().unwrap();
    let said = |journal: &str| {
        let text = format!("[journal]\ndir = \"journal\"\n{journal}{CONFIG}");
        std::fs::write(dir.path().join("gateway.toml"), text).unwrap();
        text_of(&tidegate(dir.path(), &["check", "gateway.toml"]))
    };
    let written = said("max-bytes = \"16MiB\"\n");
    assert!(
        written.ends_with("0 sinks; the journal may take 16.0 MiB\n"),
        "{written}"
    );
    let chosen = said("");
    assert!(
        chosen.contains("MiB (5 % of its filesystem") || chosen.contains("1.0 GiB (5 % of its filesystem"),
        "{chosen}"
    );
}

fn text_of(ran: &Output) -> String {
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    text(&ran.stdout)
}
