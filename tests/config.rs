//! The configuration as people meet it: every shipped file loads, every bad file has its report beside it, and
//! docs/configuration.md lists every key.
//!
//! `tests/config/NAME.toml` must fail with exactly `tests/config/NAME.report`, a good file must load with exactly
//! the warnings in `NAME.warnings`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use tidegate::config::{Config, Machine, keys};

#[path = "config/conditions.rs"]
mod conditions;
#[path = "config/includes.rs"]
mod includes;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn machine() -> Machine {
    Machine {
        board_serial: "100000001A2B3C4D".into(),
        machine_id: "0123456789abcdef0123456789abcdef".into(),
        state_directory: "/var/lib/tidegate".into(),
        filesystem_bytes: |_| Some(4 << 30),
    }
}

fn toml_files(dir: &str) -> Vec<PathBuf> {
    let listed = fs::read_dir(root().join(dir)).expect("the directory is there");
    let mut files: Vec<PathBuf> = listed.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    files
}

fn parse(path: &Path) -> Result<Config, String> {
    let shown = path.file_name().expect("a name").to_string_lossy().into_owned();
    let text = fs::read_to_string(path).expect("readable");
    Config::parse(&shown, &text, &machine()).map_err(|report| report.to_string())
}

#[test]
fn the_shipped_file_loads_and_listens_on_this_machine_only() {
    let config = parse(&root().join("config/gateway.toml")).unwrap_or_else(|report| panic!("{report}"));
    let door = config.mqtt.expect("a door");
    assert!(door.listen.iter().all(|address| address.ip().is_loopback()));
    assert_eq!(&*config.gateway.id, "tg-1a2b3c4d");
    assert_eq!(&*config.gateway.source, "urn:tidegate:gateway:tg-1a2b3c4d");
}

#[test]
fn what_the_shipped_file_has_commented_out_loads_too() {
    let text = fs::read_to_string(root().join("config/gateway.toml")).expect("readable");
    let is_code = |line: &str| {
        line.starts_with('[') || line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '))
    };
    let lines = text.lines().map(|line| match line.strip_prefix("# ") {
        Some(code) if is_code(code) => code,
        _ => line,
    });
    let text: String = lines.flat_map(|line| [line, "\n"]).collect();
    let config = Config::parse("gateway.toml", &text, &machine()).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(
        (
            config.rules.len(),
            config.serial.len(),
            config.sinks.terms().count()
        ),
        (3, 1, 2)
    );
}

#[test]
fn every_example_loads_without_a_warning() {
    let files = toml_files("config/examples");
    assert!(files.len() >= 2);
    for file in files {
        let config = parse(&file).unwrap_or_else(|report| panic!("{report}"));
        assert_eq!(config.warnings, Vec::<String>::new(), "{}", file.display());
        assert!(
            !config.rules.is_empty() && config.sinks.terms().count() > 0,
            "{}",
            file.display()
        );
    }
}

/// With `TIDEGATE_BLESS` set the expectations are written instead: read the diff.
fn expect(path: &Path, got: &str) -> Result<(), String> {
    if std::env::var_os("TIDEGATE_BLESS").is_some() {
        fs::write(path, got).expect("writable");
        return Ok(());
    }
    let wanted = fs::read_to_string(path).unwrap_or_default();
    if wanted == got {
        Ok(())
    } else {
        Err(format!("{}:\nwanted:\n{wanted}\ngot:\n{got}", path.display()))
    }
}

#[test]
fn every_bad_file_has_exactly_the_report_beside_it() {
    let files = toml_files("tests/config");
    let bad: Vec<&PathBuf> = files
        .iter()
        .filter(|file| !file.with_extension("warnings").exists())
        .collect();
    assert!(bad.len() >= 28, "{} bad files", bad.len());
    let wrong: Vec<String> = bad
        .into_iter()
        .filter_map(|file| match parse(file) {
            Ok(_) => Some(format!("{} loads", file.display())),
            Err(report) => expect(&file.with_extension("report"), &report).err(),
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_doubtful_file_loads_with_exactly_the_warnings_beside_it() {
    let files = toml_files("tests/config");
    let doubtful: Vec<&PathBuf> = files
        .iter()
        .filter(|file| file.with_extension("warnings").exists())
        .collect();
    assert!(!doubtful.is_empty());
    for file in doubtful {
        let config = parse(file).unwrap_or_else(|report| panic!("{report}"));
        let warnings: String = config
            .warnings
            .iter()
            .fold(String::new(), |all, warning| all + warning + "\n");
        expect(&file.with_extension("warnings"), &warnings).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
}

#[test]
fn every_report_names_a_line_and_a_file_that_cannot_be_read_says_so() {
    for file in toml_files("tests/config") {
        let text = fs::read_to_string(&file).expect("readable");
        if let Err(report) = Config::parse("x.toml", &text, &machine()) {
            assert!(!report.problems().is_empty(), "{}", file.display());
            assert!(
                report.problems().iter().all(|problem| problem.line.is_some()),
                "{report}"
            );
            assert!(report.render(true).contains("x.toml"), "{}", file.display());
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_is_told_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let binary = folder.path().join("binary.toml");
    fs::write(&binary, b"[gateway]\nid = \"\xff\x1b[31m\"\n").expect("written");
    let shown = |path: &Path| Config::load(path).expect_err("not readable").to_string();
    for (path, wanted) in [
        (
            Path::new("/nowhere/gateway.toml"),
            ": could not read the configuration: there is no such file; is the path right?\n",
        ),
        (
            folder.path(),
            ": could not read the configuration: it is a directory; name the file in it\n",
        ),
        (
            &binary,
            ":2: this is not text in UTF-8; save the file as UTF-8, or name another file\n",
        ),
    ] {
        assert_eq!(shown(path), format!("{}{wanted}", path.display()));
    }
}

#[test]
fn the_configuration_of_the_readme_loads_without_a_warning() {
    let readme = fs::read_to_string(root().join("README.md")).expect("readable");
    let block = readme
        .split_once("```toml\n")
        .and_then(|(_, rest)| rest.split_once("```"));
    let (text, _) = block.expect("a configuration in README.md");
    assert_eq!(text.lines().count(), 15);
    let config = Config::parse("README.md", text, &machine()).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(config.warnings, Vec::<String>::new());
    assert_eq!((config.rules.len(), config.sinks.terms().count()), (1, 1));
    assert!(readme.contains("-p 1883 -q 1 -t thermostats/") && readme.contains("mosquitto -p 1884"));
    let door = config.mqtt.expect("a door");
    assert_eq!(door.listen, ["127.0.0.1:1883".parse().expect("an address")]);
    assert_eq!(config.sinks.mqtt[0].port, 1884);
}

/// A configuration on the disk, and what the program says of it.
struct Installed {
    folder: tempfile::TempDir,
}

impl Installed {
    fn new(tables: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let text = format!(
            "[gateway]\nid = \"a\"\n[journal]\ndir = \"$STATE_DIRECTORY/journal\"\n[mqtt]\nlisten = [\"127.0.0.1:0\"]\n{tables}"
        );
        fs::write(
            folder.path().join("gateway.toml"),
            text.replace("{dir}", &folder.path().display().to_string()),
        )
        .expect("written");
        Self { folder }
    }

    /// The exit code, standard output and standard error, `{dir}` for the folder.
    fn tidegate(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let out = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(arguments)
            .arg(self.folder.path().join("gateway.toml"))
            // As the service manager says it of a unit that has two.
            .env(
                "STATE_DIRECTORY",
                format!("{0}/state:{0}/other", self.folder.path().display()),
            )
            .env_remove("NOTIFY_SOCKET")
            .output()
            .expect("it runs");
        let text = |bytes: &[u8]| {
            String::from_utf8_lossy(bytes).replace(&self.folder.path().display().to_string(), "{dir}")
        };
        (out.status.code(), text(&out.stdout), text(&out.stderr))
    }
}

#[test]
fn a_certificate_that_a_start_would_refuse_is_found_by_check_and_refused_before_anything_is_opened() {
    let site = Installed::new(
        "[[sink.mqtt]]\nname = \"cloud\"\nurl = \"mqtts://localhost\"\nca = \"{dir}/ca.pem\"\n\
         cert = \"{dir}/gateway.toml\"\nkey = \"{dir}\"\n",
    );
    let checked = site.tidegate(&["check"]);
    let wanted = "{dir}/gateway.toml:10: sink \"cloud\": could not load ca from {dir}/ca.pem: there is no such file; put it there, or name another\n    10 | ca = \"{dir}/ca.pem\"\n\
                  {dir}/gateway.toml:11: sink \"cloud\": could not load cert from {dir}/gateway.toml: there is no -----BEGIN CERTIFICATE----- in it; name a PEM file that has one\n    11 | cert = \"{dir}/gateway.toml\"\n\
                  {dir}/gateway.toml:12: sink \"cloud\": could not load key from {dir}: it is a directory; name the file in it\n    12 | key = \"{dir}\"\n";
    assert_eq!(checked, (Some(78), String::new(), wanted.to_owned()));
    assert_eq!(site.tidegate(&["run", "--config"]), checked);
    assert!(!site.folder.path().join("state").exists(), "nothing was opened");
}

#[test]
fn what_a_gateway_that_ran_misses_is_waited_for() {
    let site = Installed::new(
        "[[sink.mqtt]]\nname = \"cloud\"\nurl = \"mqtts://localhost\"\nca = \"{dir}/ca.pem\"\n",
    );
    let path = site.folder.path().join("gateway.toml");
    let name = Sha256::digest(path.as_os_str().as_encoded_bytes());
    let kept = site.folder.path().join("state/last-good");
    fs::create_dir_all(&kept).expect("made");
    let name = name.iter().take(8).map(|byte| format!("{byte:02x}"));
    fs::copy(&path, kept.join(name.collect::<String>() + ".toml")).expect("kept");
    let (code, _, said) = site.tidegate(&["run", "--config"]);
    assert_eq!(code, Some(1), "the service manager tries again: {said}");
    assert!(said.contains("could not load ca from {dir}/ca.pem"), "{said}");
    let (code, ..) = site.tidegate(&["run", "--strict", "--config"]);
    assert_eq!(code, Some(78));
}

#[test]
fn a_password_file_that_is_not_there_yet_is_a_warning_because_it_may_come() {
    let site = Installed::new(
        "[[sink.mqtt]]\nname = \"cloud\"\nurl = \"mqtts://localhost\"\nusername = \"a\"\npassword-file = \"{dir}/absent\"\n",
    );
    let (code, said, _) = site.tidegate(&["check"]);
    assert_eq!(code, Some(0), "{said}");
    let wanted =
        "warning: {dir}/gateway.toml:11: sink \"cloud\": could not read password-file {dir}/absent: ";
    assert!(said.contains(wanted), "{said}");
}

#[test]
fn what_is_in_a_token_or_key_file_is_looked_at_and_never_shown() {
    let site = Installed::new(
        "[[sink.http]]\nname = \"hooks\"\nurl = \"https://localhost\"\n\
         bearer-file = \"{dir}/token\"\nsigning-key-file = \"{dir}/key\"\n",
    );
    let write = |name: &str, text: &str| fs::write(site.folder.path().join(name), text).expect("written");
    let (code, said, _) = site.tidegate(&["check"]);
    assert_eq!(code, Some(0), "{said}");
    for (line, key, file) in [(10, "bearer-file", "token"), (11, "signing-key-file", "key")] {
        let wanted = format!(
            "warning: {{dir}}/gateway.toml:{line}: sink \"hooks\": could not read {key} {{dir}}/{file}: "
        );
        assert!(said.contains(&wanted), "{said}");
    }
    write("token", "token: s3cret\n");
    write("key", "s3cret\n");
    let (code, _, said) = site.tidegate(&["check"]);
    assert_eq!(code, Some(78));
    assert!(
        said.contains("gateway.toml:10: sink \"hooks\": could not load bearer-file"),
        "{said}"
    );
    assert!(
        said.contains("gateway.toml:11: sink \"hooks\": could not load signing-key-file"),
        "{said}"
    );
    assert!(said.contains("whsec_$(openssl rand -base64 32)"), "{said}");
    assert!(!said.contains("s3cret"), "{said}");
    write("token", "s3cret\n");
    write("key", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n");
    let (code, said, _) = site.tidegate(&["check"]);
    assert_eq!((code, said.contains("hooks")), (Some(0), false), "{said}");
}

#[test]
fn a_journal_that_cannot_be_is_refused_with_what_to_do() {
    let site = Installed::new("");
    fs::create_dir(site.folder.path().join("state")).expect("made");
    fs::write(site.folder.path().join("state/journal"), "a file").expect("written");
    let checked = site.tidegate(&["check"]);
    let wanted = "{dir}/gateway.toml:4: [journal]: dir: {dir}/state/journal is a file; name a directory, which is made if it is not there\n     4 | dir = \"$STATE_DIRECTORY/journal\"\n";
    assert_eq!(checked, (Some(78), String::new(), wanted.to_owned()));
    assert_eq!(site.tidegate(&["run", "--config"]), checked);
}

#[test]
fn wrong_arguments_end_with_2_and_say_how_it_goes() {
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["run", "--confg", "x"])
        .output()
        .expect("it runs");
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).contains("--config"));
}

/// (header, key, live) of every row of docs/configuration.md: the first cell is the key, the last says whether it is live.
fn documented() -> BTreeSet<(String, String, bool)> {
    let text =
        fs::read_to_string(root().join("docs/configuration.md")).expect("docs/configuration.md is there");
    let mut rows = BTreeSet::new();
    let mut header = String::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("## `") {
            heading.trim_end_matches('`').clone_into(&mut header);
        } else if let Some(row) = line.strip_prefix("| `") {
            let key = row.split('`').next().expect("a key").to_owned();
            let status = row
                .trim_end()
                .trim_end_matches('|')
                .rsplit('|')
                .next()
                .map(str::trim);
            assert!(
                matches!(status, Some("live" | "not supported yet")),
                "{header} {key}: {status:?}"
            );
            let live = status == Some("live");
            assert!(
                rows.insert((header.clone(), key.clone(), live)),
                "{header} {key} stands twice"
            );
        }
    }
    rows
}

#[test]
fn the_documentation_lists_every_key_and_no_other() {
    let mut known = BTreeSet::new();
    for table in keys::tables() {
        for key in table.keys {
            if !matches!(
                key.shape,
                keys::Shape::Table(_) | keys::Shape::Tables(_) | keys::Shape::Named(_)
            ) {
                let header = if table.header.is_empty() {
                    "the top level"
                } else {
                    table.header
                };
                known.insert((header.to_owned(), key.name.to_owned(), key.live));
            }
        }
    }
    let documented = documented();
    let missing: Vec<_> = known.difference(&documented).collect();
    let surplus: Vec<_> = documented.difference(&known).collect();
    assert!(
        missing.is_empty() && surplus.is_empty(),
        "missing: {missing:#?}\nsurplus: {surplus:#?}"
    );
}

const SOURCE: &str = "[[mqtt.readings]]\ntopic = \"t/{device}/+/#\"\nformat = \"json\"\n[[mqtt.readings.metric]]\nname = \"temperature\"\n";

fn loaded(text: &str) -> Config {
    Config::parse("x.toml", text, &machine()).expect("it loads")
}

fn test(condition: &tidegate::rule::Condition) -> tidegate::rule::Test {
    match condition {
        tidegate::rule::Condition::Value(watched) => watched.test.clone(),
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn an_override_keeps_the_rules_margin_and_may_change_any_number() {
    use tidegate::{event::Severity, rule::Test};
    let config = loaded(&format!(
        "{SOURCE}[[rule]]\nevent = \"HighTemperature\"\nmetric = \"temperature\"\nabove = 30\nclear = 28\nhold = \"30s\"\n\
         [[override]]\nrule = \"high-temperature\"\ndevices = [\"server-*\"]\nabove = 24\n\
         [[override]]\nrule = \"high-temperature\"\ndevices = [\"a\", \"b\"]\nmargin = 1\nseverity = \"critical\"\n\
         [[override]]\nrule = \"high-temperature\"\ndevices = [\"c\"]\nabove = 40\nclear = 39\n\
         [[override]]\nrule = \"high-temperature\"\ndevices = [\"d\"]\nhold = \"0s\"\n"
    ));
    let rule = &config.rules[0];
    assert_eq!(
        (&*rule.name, &*rule.cleared_event),
        ("high-temperature", "HighTemperatureCleared")
    );
    assert_eq!(
        test(&rule.condition),
        Test::Above {
            threshold: 30.0,
            clear: 28.0
        }
    );
    let conditions: Vec<_> = rule
        .overrides
        .iter()
        .map(|one| one.condition.as_ref().map(test))
        .collect();
    let above = |threshold, clear| Some(Test::Above { threshold, clear });
    assert_eq!(
        conditions,
        [above(24.0, 22.0), above(30.0, 29.0), above(40.0, 39.0), None]
    );
    assert_eq!(rule.overrides[1].severity, Some(Severity::Critical));
    assert_eq!(rule.overrides[3].hold, Some(std::time::Duration::ZERO));
}

#[test]
fn every_kind_of_condition_arrives_with_its_clear_point() {
    use tidegate::{reading::Value, rule::Test};
    for (keys, wanted) in [
        (
            "below = 6\nmargin = 1",
            Test::Below {
                threshold: 6.0,
                clear: 7.0,
            },
        ),
        (
            "above = 30",
            Test::Above {
                threshold: 30.0,
                clear: 30.0,
            },
        ),
        (
            "outside = [18, 24]\nmargin = 3",
            Test::Outside {
                lo: 18.0,
                hi: 24.0,
                margin: 3.0,
            },
        ),
        (
            "inside = [-1, 1]",
            Test::Inside {
                lo: -1.0,
                hi: 1.0,
                margin: 0.0,
            },
        ),
        ("equals = true", Test::Equals(Value::Bool(true))),
        ("equals = 3", Test::Equals(Value::Number(3.0))),
        ("not-equals = \"ok\"", Test::NotEquals(Value::Text("ok".into()))),
    ] {
        let config = loaded(&format!(
            "{SOURCE}[[rule]]\nevent = \"X\"\nmetric = \"temperature\"\n{keys}\n"
        ));
        assert_eq!(test(&config.rules[0].condition), wanted, "{keys}");
    }
}

#[test]
fn what_is_not_said_has_the_defaults_of_the_contract() {
    use std::time::Duration;
    use tidegate::source::mqtt::Level;
    let config = loaded(&format!(
        "{SOURCE}[[sink.mqtt]]\nname = \"cloud\"\nurl = \"mqtts://[fe80::1]\"\n"
    ));
    assert_eq!(config.journal.dir, Path::new("/var/lib/tidegate/journal"));
    assert_eq!(config.journal.max_bytes, (4 << 30) / 20);
    assert_eq!(config.journal.state_delay, Duration::from_millis(250));
    assert_eq!(config.events.heartbeat, Some(Duration::from_mins(15)));
    assert_eq!(config.events.off, ["DeviceConnected", "DeviceDisconnected"]);
    let door = config.mqtt.expect("a door");
    assert_eq!(door.listen, ["127.0.0.1:1883".parse().unwrap()]);
    assert_eq!(
        (door.max_packet, door.max_connections, door.max_inflight),
        (65_536, 1000, 64)
    );
    let levels = [Level::Literal("t".into()), Level::Device, Level::Any, Level::Rest];
    assert_eq!(door.readings[0].topic, levels);
    let sink = &config.sinks.mqtt[0];
    assert_eq!((sink.host.as_str(), sink.port, sink.tls), ("fe80::1", 8883, true));
    assert_eq!(sink.client_id, "tidegate-tg-1a2b3c4d");
    assert_eq!(sink.status_topic.as_deref(), Some("tidegate/tg-1a2b3c4d/status"));
    assert_eq!(sink.topic, "tidegate/{gateway}/events/{event}/{device}");
    assert_eq!(
        (
            sink.inflight,
            sink.terms.max_attempts,
            sink.terms.required,
            sink.terms.from_oldest
        ),
        (16, 10, true, false)
    );
}

#[test]
fn a_renamed_device_keeps_its_id_at_every_source() {
    let config = loaded(
        "[mqtt]\n[[serial]]\nname = \"s\"\nport = \"/dev/s\"\nbaud = 9600\nformat = \"json\"\ndevice-at = \"/id\"\n\
         [[device]]\nid = \"flat-12\"\nfrom = [\"tasmota_1\"]\n",
    );
    let id = |renamed: &std::collections::HashMap<String, tidegate::reading::DeviceId>| {
        renamed.get("tasmota_1").map(ToString::to_string)
    };
    assert_eq!(
        id(&config.mqtt.expect("a door").renamed).as_deref(),
        Some("flat-12")
    );
    assert_eq!(id(&config.serial[0].renamed).as_deref(), Some("flat-12"));
}

#[test]
fn a_machine_without_a_board_is_named_by_its_id_and_without_both_by_nobody() {
    let bare = Machine {
        board_serial: String::new(),
        ..machine()
    };
    let config = Config::parse("x.toml", "", &bare).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(config.gateway.id.len(), "tg-".len() + 8);
    let nothing = Machine {
        machine_id: String::new(),
        ..bare
    };
    let report = Config::parse("x.toml", "", &nothing).expect_err("no name");
    assert!(report.to_string().contains("id is missing"), "{report}");
}

#[test]
fn a_password_in_a_url_is_never_quoted() {
    for url in [
        "\"mqtt://joe:hunter2@broker\"",
        "\"http://joe:hunter2@broker\"",
        "[\"mqtt://joe:hunter2@broker\"]",
        "\"mqtt://joe:hunter2@broker",
    ] {
        let text = format!("[[sink.mqtt]]\nname = \"cloud\"\nurl = {url}\ninflight = 0\n");
        let report = Config::parse("x.toml", &text, &machine()).expect_err("wrong");
        assert!(report.to_string().contains("x.toml:3: "), "{report}");
        assert!(!report.to_string().contains("hunter2"), "{report}");
        assert!(!report.render(true).contains("hunter2"), "{report}");
    }
}

#[test]
fn the_unit_does_not_restart_what_a_restart_cannot_mend() {
    let unit = fs::read_to_string(root().join("systemd/tidegate.service")).expect("readable");
    assert!(unit.contains("\nRestartPreventExitStatus=2 78\n"));
    assert!(unit.contains("\nExecStart=/usr/bin/tidegate run --config /etc/tidegate/gateway.toml\n"));
}
