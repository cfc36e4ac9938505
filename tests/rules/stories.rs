//! The stories beside this file: one for each sentence of docs/rules.md that the engine decides. They run as `tidegate test`
//! runs them, and again with the gateway restarted between any two of their steps.

use std::path::{Path, PathBuf};

use tidegate::{
    config::Report,
    story::{self, Interruption, Rules, Said, Stop, Story},
};

/// Stories that a restart at some step tells otherwise, and why. An entry that no longer differs fails the test.
type Excuses = &'static [(&'static str, &'static str)];

/// A story with a reboot of its own.
const REBOOTED: (&str, &str) = (
    "across a reboot without a clock what remained starts anew, so that it never fires early",
    "a stop or a checkpoint saves how much of the hold has passed, so less remains at the reboot",
);

const RESTARTED: Excuses = &[REBOOTED];

/// docs/rules.md: after a crash `silent-for` starts anew unless its episode is active.
const SILENCE: &str = "after a crash a silence starts anew";

const KILLED: Excuses = &[
    REBOOTED,
    (
        "a device that was only late for 30 s is anchored to its arrival",
        "as after a clean restart",
    ),
    (
        "a reading that is earlier than the last one of its metric is late and ignored",
        "the newest stamp of a metric that no episode depends on is saved by a clean stop only",
    ),
    (
        "a device that has sent once is silent after d, and no longer with its next reading",
        SILENCE,
    ),
    (
        "a device that is expected to send is silent d after the gateway's start",
        SILENCE,
    ),
    (
        "after a clean stop the silence goes on with what remained: the gateway's own absence does not count",
        SILENCE,
    ),
    (
        "a device that was heard of once, just before a crash, is still expected to go on",
        SILENCE,
    ),
    (
        "an active silence stays active over a crash and is not raised twice",
        SILENCE,
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
        .map(|said| {
            let draft = &said.draft;
            format!(
                "{} {} {} {:?} {:?}",
                said.at, draft.name, draft.subject, draft.transition, draft.correlation
            )
        })
        .collect()
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
    interrupt(Stop::Restart, seen, RESTARTED);
}

#[test]
fn kill_9_between_any_two_steps_changes_no_event() {
    interrupt(Stop::Kill, key, KILLED);
}

#[track_caller]
fn interrupt(stop: Stop, compared: fn(&[Said]) -> Vec<String>, excuses: Excuses) {
    let mut unused: Vec<&str> = excuses.iter().map(|(name, _)| *name).collect();
    let mut differ = Vec::new();
    for (path, story) in stories() {
        let plain = compared(&story.tell());
        for before in (0..story.times()).map(Some).chain([None]) {
            let interrupted = compared(&story.tell_interrupted(Some(Interruption { stop, before })));
            if interrupted == plain {
                continue;
            }
            if excuses.iter().any(|(name, _)| *name == story.name) {
                unused.retain(|name| *name != story.name);
                continue;
            }
            let place = format!("{}:{}: {}", path.display(), story.line, story.name);
            differ.push(format!(
                "{place}: {stop:?} before time {before:?}\n- {}\n+ {}",
                plain.join("\n- "),
                interrupted.join("\n+ ")
            ));
            break;
        }
    }
    assert!(differ.is_empty(), "\n{}", differ.join("\n"));
    assert!(
        unused.is_empty(),
        "{stop:?} no longer changes {unused:?}: take them off the list"
    );
}
