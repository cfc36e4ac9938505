//! The stories beside this file: one for each sentence of docs/rules.md that the engine decides. They run as `tidegate test`
//! runs them, and again with the gateway restarted between any two of their steps.

use std::path::{Path, PathBuf};

use tidegate::{
    config::Report,
    event::Data,
    story::{self, Between, Interruption, Rules, Said, Stop, Story},
};

/// What an interruption may change, by docs/rules.md.
#[derive(Clone, Copy, Debug)]
enum Allows {
    /// In a story with a reboot of its own, without a clock: the interruption saves how much time has passed until then,
    /// so less remains. The same events, none later.
    Sooner,
    /// "`silent-for` starts anew": what it says comes later, or not before the end.
    LaterSilence,
    /// In a story with a crash of its own: figures.
    Figures,
    /// After a crash the newest stamp of a metric that no open episode depends on is unknown, so what is late counts.
    /// One of these is said then.
    LateCounts(&'static [&'static [&'static str]]),
}

/// Stories that an interruption tells otherwise, and how. An entry that no longer differs fails the test.
type Excuses = &'static [(&'static str, Allows)];

const REBOOTED: [(&str, Allows); 3] = [
    (
        "across a reboot without a clock what remained starts anew, so that it never fires early",
        Allows::Sooner,
    ),
    (
        "a mute ends on a board that loses its power and its clock more often than the mute lasts",
        Allows::Sooner,
    ),
    (
        "a mute of a rule that has no device yet ends on a board that loses its power and its clock",
        Allows::Sooner,
    ),
];

const RESTARTED: Excuses = &[
    REBOOTED[0],
    REBOOTED[1],
    REBOOTED[2],
    (
        "a hold of a composite goes on over a crash also if what it waits for is stale sooner than it is saved",
        Allows::Figures,
    ),
    (
        "a short outage ends no hold of several conditions",
        Allows::Figures,
    ),
    (
        "a value that came after the alarm was saved keeps its own unit over a crash",
        Allows::Figures,
    ),
];

const KILLED: Excuses = &[
    REBOOTED[0],
    REBOOTED[1],
    REBOOTED[2],
    (
        "a device that was only late for 30 s is anchored to its arrival",
        Allows::LateCounts(&[
            &[
                "501s HighPressure t-1/pressure Some(Raised)",
                "541s HighPressureCleared t-1/pressure Some(Cleared)",
            ],
            // Its clock is late again.
            &["1031s HighPressure t-1/pressure Some(Raised)"],
            &[
                "531s HighPressure t-1/pressure Some(Raised)",
                "541s HighPressureCleared t-1/pressure Some(Cleared)",
            ],
            &[
                "530s HighPressure t-1/pressure Some(Raised)",
                "541s HighPressureCleared t-1/pressure Some(Cleared)",
            ],
        ]),
    ),
    (
        "a reading that is earlier than the last one of its metric is late and ignored",
        Allows::LateCounts(&[&[
            "9s HighPressure t-1/pressure Some(Raised)",
            "12s HighPressureCleared t-1/pressure Some(Cleared)",
        ]]),
    ),
    (
        "a device that has sent once is silent after d, and no longer with its next reading",
        Allows::LaterSilence,
    ),
    (
        "a device that is expected to send is silent d after the gateway's start",
        Allows::LaterSilence,
    ),
    (
        "after a clean stop the silence goes on with what remained: the gateway's own absence does not count",
        Allows::LaterSilence,
    ),
    (
        "a device that was heard of once, just before a crash, is still expected to go on",
        Allows::LaterSilence,
    ),
    (
        "an active silence stays active over a crash and is not raised twice",
        Allows::LaterSilence,
    ),
];

fn stories() -> Vec<(PathBuf, Story)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rules");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    assert!(files.len() > 5, "where did the stories go?");
    let mut all = Vec::new();
    for path in files {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(&path).unwrap();
        let load = |written: &str| -> Result<Rules, Report> {
            let path = dir.join(written);
            Rules::parse(written, &Report::read(&path, "the rules")?)
        };
        let told = story::parse(&shown, &text, &load).unwrap_or_else(|report| panic!("{report}"));
        all.extend(told.into_iter().map(|story| (path.clone(), story)));
    }
    all
}

/// What must be the same: everything that a receiver sees, to the last digit.
fn seen(said: &[Said]) -> Vec<String> {
    said.iter()
        .map(|said| format!("{said}  {:?}", said.draft))
        .collect()
}

/// The same, but for what may lag behind after a crash: statistics.
fn key(said: &[Said]) -> Vec<String> {
    said.iter()
        .map(|said| format!("{} {} {:?}", said.at, what(said), said.draft.correlation))
        .collect()
}

fn what(said: &Said) -> String {
    let draft = &said.draft;
    format!("{} {} {:?}", draft.name, draft.subject, draft.transition)
}

fn is_excused(allows: Allows, plain: &[Said], interrupted: &[Said]) -> bool {
    let by_silence = |said: &&Said| match &said.draft.data {
        Data::Rule(data) => &*data.rule.kind == "silent-for",
        Data::Gateway(_) => false,
    };
    match allows {
        Allows::Figures => key(plain) == key(interrupted),
        Allows::Sooner => {
            let pairs = || plain.iter().zip(interrupted);
            plain.len() == interrupted.len()
                && pairs().all(|(plain, other)| what(plain) == what(other) && other.at <= plain.at)
        }
        Allows::LaterSilence => {
            let others = |all: &[Said]| -> Vec<String> {
                let others = all.iter().filter(|said| !by_silence(said));
                others.map(|said| format!("{} {}", said.at, what(said))).collect()
            };
            let mut expected = plain.iter().filter(by_silence);
            let mut silences = interrupted.iter().filter(by_silence);
            let comes_later =
                |said: &Said| expected.any(|plain| what(plain) == what(said) && plain.at <= said.at);
            others(plain) == others(interrupted) && silences.all(comes_later)
        }
        Allows::LateCounts(known) => {
            let said = || {
                interrupted
                    .iter()
                    .map(|said| format!("{} {}", said.at, what(said)))
            };
            known.iter().any(|lines| said().eq(lines.iter().copied()))
        }
    }
}

#[test]
fn every_story_comes_out_as_it_is_told() {
    let mut failed = Vec::new();
    for (path, story) in stories() {
        let verdict = story.judge(&story.tell());
        if !verdict.is_ok() {
            failed.push(format!("{}:{}: {}", path.display(), story.line, story.name));
            failed.extend(verdict.lines.iter().map(ToString::to_string));
        }
    }
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
}

#[test]
fn a_clean_restart_between_any_two_steps_changes_no_event() {
    interrupt(Between::Stop(Stop::Restart), seen, RESTARTED);
}

#[test]
fn a_reload_between_any_two_steps_changes_no_event() {
    interrupt(Between::Reload, seen, &[]);
}

#[test]
fn kill_9_between_any_two_steps_changes_no_event() {
    interrupt(Between::Stop(Stop::Kill), key, KILLED);
}

#[test]
fn a_power_cut_between_any_two_steps_changes_no_event() {
    interrupt(Between::Stop(Stop::Reboot), key, KILLED);
}

#[test]
fn an_edit_during_a_stop_says_what_it_says_while_the_gateway_runs() {
    for (path, story) in stories() {
        let (reloaded, restarted) = (seen(&story.tell()), seen(&story.tell_restarted()));
        assert_eq!(
            restarted,
            reloaded,
            "{}:{}: {}",
            path.display(),
            story.line,
            story.name
        );
    }
}

#[track_caller]
fn interrupt(by: Between, compared: fn(&[Said]) -> Vec<String>, excuses: Excuses) {
    let mut unused: Vec<&str> = excuses.iter().map(|(name, _)| *name).collect();
    let mut differ = Vec::new();
    for (path, story) in stories() {
        let plain = story.tell();
        for before in (0..story.times()).map(Some).chain([None]) {
            let interrupted = story.tell_interrupted(Some(Interruption { by, before }));
            if compared(&interrupted) == compared(&plain) {
                continue;
            }
            let excuse = excuses.iter().find(|(name, _)| *name == story.name);
            if excuse.is_some_and(|(_, allows)| is_excused(*allows, &plain, &interrupted)) {
                unused.retain(|name| *name != story.name);
                continue;
            }
            let place = format!("{}:{}: {}", path.display(), story.line, story.name);
            differ.push(format!(
                "{place}: {by:?} before time {before:?}\n- {}\n+ {}",
                compared(&plain).join("\n- "),
                compared(&interrupted).join("\n+ ")
            ));
            break;
        }
    }
    assert!(differ.is_empty(), "\n{}", differ.join("\n"));
    assert!(
        unused.is_empty(),
        "{by:?} no longer changes {unused:?}: take them off the list"
    );
}
