//! Looking into journals that lie there: of dead cards, harmed ones, another board's. As the real program, and with
//! the library where every byte is tried. Nothing that looks may change a byte.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

#[path = "contract/mod.rs"]
mod contract;
#[path = "inspect/foreign.rs"]
mod foreign;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
    time::Duration,
};

use tidegate::{
    event::{Data, Draft, Origin, Position, Severity},
    journal::{Cursor, Journal, Limit, Owner, Settings, SinkPlan, WhenFull, inspect::Inspection},
    rule::state::{Outcome, StateChange},
    time::{BootId, Clock, EngineTime, Simulated, Timestamp},
};

const ALL: Limit = Limit {
    entries: usize::MAX,
    bytes: usize::MAX,
};

fn draft(text: &str) -> Draft {
    Draft {
        kind: "io.tidegate.gateway.Test".into(),
        name: "Test".into(),
        subject: "plantroom-1".into(),
        about: "plantroom-1".into(),
        severity: Severity::Warning,
        at: EngineTime(7),
        transition: None,
        correlation: None,
        data: Data::Gateway([("text".to_owned(), text.into())].into_iter().collect()),
    }
}

fn owner(sinks: &[&str]) -> Owner {
    Owner {
        origin: Arc::new(Origin {
            gateway: "plantroom-1".into(),
            source: "urn:tidegate:gateway:plantroom-1".into(),
            labels: [("site".to_owned(), "hq".to_owned())].into(),
            version: "0.1.0".into(),
        }),
        machine_id: "another machine".to_owned(),
        board_serial: "another board".to_owned(),
        sinks: sinks
            .iter()
            .map(|name| SinkPlan {
                name: name.parse().unwrap(),
                required: true,
                from_oldest: false,
            })
            .collect(),
    }
}

/// A journal in a directory of its own.
struct Card {
    folder: tempfile::TempDir,
}

impl Card {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// One of the fixtures of format 1, as it was.
    fn of_fixture(name: &str) -> Self {
        let card = Self::new();
        let from = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/journal-1")
            .join(name);
        for line in fs::read_to_string(from.join("recipe")).unwrap().lines() {
            let [path, length, header] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            let mut bytes = fs::read(from.join(path)).unwrap();
            bytes.resize(length.parse().unwrap(), 0);
            if header == "1" {
                let at = bytes.len() - 128;
                bytes.copy_within(..100, at);
            }
            let to = card.dir().join(path);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::write(to, bytes).unwrap();
        }
        card
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("journal")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir().join("current").join(name)
    }

    fn open(&self, sinks: &[&str], clock: Clock) -> Journal {
        let settings = Settings {
            dir: self.dir(),
            max_bytes: 8 * 1024 * 1024,
            max_age: None,
            when_full: WhenFull::DropOldest,
            state_delay: Duration::from_millis(1),
        };
        Journal::open(&settings, owner(sinks), clock).unwrap().0
    }

    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        fn collect(dir: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    collect(&path, files);
                } else {
                    files.insert(path.clone(), fs::read(path).unwrap());
                }
            }
        }
        let mut files = BTreeMap::new();
        collect(&self.dir(), &mut files);
        files
    }

    /// Runs `tidegate journal …` on it, which must not change it.
    fn tidegate(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let before = self.files();
        let dir = self.dir();
        let ran = run(&[&["journal"], arguments, &["--dir", dir.to_str().unwrap()]].concat());
        assert!(self.files() == before, "{arguments:?} changed the directory");
        (ran.status.code(), text(&ran.stdout), text(&ran.stderr))
    }

    fn flip(&self, name: &str, at: usize) {
        let mut bytes = fs::read(self.file(name)).unwrap();
        bytes[at] ^= 0x10;
        fs::write(self.file(name), bytes).unwrap();
    }

    fn find(&self, name: &str, needle: &str) -> usize {
        let bytes = fs::read(self.file(name)).unwrap();
        let found = bytes.windows(needle.len()).position(|it| it == needle.as_bytes());
        found.unwrap_or_else(|| panic!("{needle} stands in {name}"))
    }
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(arguments)
        .output()
        .expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("it speaks UTF-8")
}

fn append(journal: &Journal, texts: &[&str]) -> Position {
    journal.append(Outcome {
        events: texts.iter().map(|text| draft(text)).collect(),
        state: vec![StateChange {
            key: b"r/x".to_vec(),
            value: Some(texts.concat().into_bytes()),
        }],
        ..Outcome::default()
    })
}

async fn stored(journal: &Journal, position: Position) {
    let mut durable = journal.durable();
    let wait = durable.wait_for(|durable| *durable >= position);
    tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .expect("in time")
        .expect("the journal lives");
}

/// Six events in three commits over one segment, the first two confirmed by `cloud`, none by `archive`; closed.
async fn card() -> Card {
    let card = Card::new();
    let journal = card.open(&["archive", "cloud"], Clock::system());
    for texts in [["one", "two"], ["three", "four"], ["five", "six"]] {
        stored(&journal, append(&journal, &texts)).await;
    }
    let read = journal.read_after(Cursor::default(), ALL).await.unwrap();
    let through = Cursor::behind(&read[1]);
    journal.acknowledge(&"cloud".parse().unwrap(), through);
    journal.close().await;
    card
}

#[tokio::test]
async fn a_dead_card_tells_its_segments_and_how_far_each_sink_came() {
    let card = card().await;
    let (code, out, _) = card.tidegate(&["ls"]);
    assert_eq!(code, Some(0));
    assert!(out.contains(", not in use\n"), "{out}");
    assert!(out.contains(" of plantroom-1, begun "), "{out}");
    assert!(out.contains("; events 1 to 6\n"), "{out}");
    let (_, json, _) = card.tidegate(&["ls", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["epochs"][0]["machine_id"], "another machine");
    assert_eq!(json["epochs"][0]["board_serial"], "another board");
    assert_eq!(json["epochs"][0]["closed"], true);
    assert_eq!(json["epochs"][0]["segments"][0]["first"], 1);
    assert_eq!(json["epochs"][0]["segments"][0]["last"], 6);
    let sink = |index: usize| {
        let sink = &json["sinks"][index];
        (
            sink["name"].clone(),
            sink["sequence"].clone(),
            sink["behind_events"].clone(),
        )
    };
    assert_eq!(sink(0), ("archive".into(), serde_json::Value::Null, 6.into()));
    assert_eq!(sink(1), ("cloud".into(), 2.into(), 4.into()));
}

#[tokio::test]
async fn an_event_is_shown_with_who_has_it_and_one_that_is_not_there_with_why() {
    let card = card().await;
    let (code, out, _) = card.tidegate(&["show", "2"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("passed  cloud\nwaiting archive\n"), "{out}");
    let (_, event) = out.split_once("\n\n").unwrap();
    let event: serde_json::Value = serde_json::from_str(event).unwrap();
    assert_eq!(event["data"]["text"], "two");
    assert_eq!(event["sequence"], "00000000000000000002");

    let id = event["id"].as_str().unwrap();
    let (_, json, _) = card.tidegate(&["show", id, "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["event"], event);
    assert_eq!(
        json["sinks"],
        serde_json::json!({ "archive": "waiting", "cloud": "passed" })
    );

    let (code, out, complaint) = card.tidegate(&["show", "7"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(complaint.ends_with("-7: the newest event is 6\n"), "{complaint}");
    let (code, _, complaint) = card.tidegate(&["show", "0000000000001-1"]);
    assert_eq!(code, Some(1));
    assert!(
        complaint.contains("no epoch 0000000000001 is kept here"),
        "{complaint}"
    );
}

#[tokio::test]
async fn an_export_is_the_events_that_were_asked_for_and_no_other() {
    let card = card().await;
    let texts = |arguments: &[&str]| -> Vec<String> {
        let (code, out, complaint) = card.tidegate(&[&["export"], arguments].concat());
        assert_eq!((code, complaint.as_str()), (Some(0), ""));
        let events = out.lines().map(|line| serde_json::from_str(line).unwrap());
        events
            .map(|event: serde_json::Value| event["data"]["text"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = ["one", "two", "three", "four", "five", "six"];
    assert_eq!(texts(&[]), all);
    assert_eq!(texts(&["--from", "3", "--to", "4"]), ["three", "four"]);
    assert_eq!(texts(&["--from", "00000000000000000006"]), ["six"]);
    assert_eq!(texts(&["--from", "1h"]), all);
    assert_eq!(texts(&["--to", "1h"]), [""; 0]);
    assert_eq!(
        texts(&["--from", "2020-01-01T00:00:00Z", "--to", "2"]),
        ["one", "two"]
    );

    for swapped in [["--from", "4", "--to", "3"], ["--from", "1h", "--to", "2h"]] {
        let (code, out, complaint) = card.tidegate(&[&["export"][..], &swapped].concat());
        assert_eq!((code, out.as_str()), (Some(2), ""), "{swapped:?}");
        assert!(complaint.contains("the range is empty"), "{complaint}");
    }

    let dir = card.dir();
    let cbor = run(&[
        "journal",
        "export",
        "--format",
        "cbor",
        "--dir",
        dir.to_str().unwrap(),
    ])
    .stdout;
    let mut rest = cbor.as_slice();
    let mut numbers = Vec::new();
    while !rest.is_empty() {
        let event: BTreeMap<String, ciborium::Value> = ciborium::from_reader(&mut rest).unwrap();
        numbers.push(event["sequence"].as_text().unwrap().parse::<u64>().unwrap());
    }
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn times_are_as_right_as_they_are_known_by_now() {
    let card = Card::new();
    let hands = Simulated::new(BootId(7));
    let clock = Clock::simulated(&hands);
    let journal = card.open(&[], clock.clone());
    stored(&journal, append(&journal, &["early"])).await;
    hands.advance(Duration::from_secs(2));
    hands.set(Timestamp(1_900_000_002_000_000));
    hands.synchronise(true);
    let known = journal.synchronised(clock.moment(), Some(draft("known")));
    stored(&journal, known).await;
    journal.close().await;
    let (_, out, _) = card.tidegate(&["show", "1"]);
    assert!(out.contains("the time was corrected later"), "{out}");
    assert!(out.contains("\"clockquality\": \"corrected\""), "{out}");
    assert!(out.contains("\"recordedtime\": \"2030-03-17T17:46:40"), "{out}");
}

#[tokio::test]
async fn a_whole_journal_is_said_to_be_whole() {
    let card = card().await;
    let (code, out, complaint) = card.tidegate(&["fsck"]);
    assert_eq!((code, complaint.as_str()), (Some(0), ""));
    assert!(out.contains("current/0001.seg  ok  events 1 to 6\n"), "{out}");
    assert!(out.contains(" 6 of them events, "), "{out}");
    assert!(out.ends_with(": no damage\n"), "{out}");
}

#[tokio::test]
async fn a_flipped_bit_is_found_with_its_place_and_the_event_that_it_costs() {
    let card = card().await;
    let place = card.find("0001.seg", "three");
    card.flip("0001.seg", place);
    let (code, out, complaint) = card.tidegate(&["fsck"]);
    assert_eq!(code, Some(1));
    let told = out
        .lines()
        .find(|line| line.contains("DAMAGED"))
        .expect("it is told");
    assert!(told.starts_with("current/0001.seg  DAMAGED  bytes "), "{told}");
    assert!(told.ends_with(" do not verify: event 3 is lost"), "{told}");
    let numbers: Vec<usize> = told.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert!((numbers[0]..numbers[1]).contains(&place), "{told}: {place}");
    assert!(
        complaint.starts_with("tidegate: 1 place is newly damaged in "),
        "{complaint}"
    );

    let (code, out, complaint) = card.tidegate(&["export"]);
    assert_eq!((code, out.lines().count()), (Some(0), 5));
    assert!(complaint.ends_with(": event 3 is missing\n"), "{complaint}");
    let (code, _, complaint) = card.tidegate(&["show", "3"]);
    assert_eq!(code, Some(1));
    assert!(complaint.contains("it is damaged"), "{complaint}");
}

/// Every bit of a closed journal that means anything: none may flip unseen.
#[tokio::test]
async fn no_byte_that_counts_changes_unseen() {
    let card = card().await;
    let used = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
    let whole = card.files();
    let segment = fs::read(card.file("0001.seg")).unwrap();
    // The last frame alone, `closed`, may be torn: nobody was told of it. 28 bytes.
    let closed = used(&segment[..segment.len() - 128]);
    let mut unseen = Vec::new();
    for (path, bytes) in &whole {
        let name = path.file_name().unwrap().to_str().unwrap();
        let places: Vec<usize> = match name {
            "0001.seg" => (0..100)
                .chain(128..closed - 28)
                .chain(bytes.len() - 128..bytes.len() - 28)
                .collect(),
            "a.snap" | "b.snap" | "identity" => (0..used(bytes)).collect(),
            _ => continue,
        };
        for at in places.into_iter().step_by(3) {
            let mut harmed = bytes.clone();
            harmed[at] ^= 1 << (at % 8);
            fs::write(path, &harmed).unwrap();
            if Inspection::look(&card.dir()).unwrap().check().unwrap().faults() == 0 {
                unseen.push((name, at));
            }
        }
        fs::write(path, bytes).unwrap();
    }
    assert_eq!(unseen, []);
}

#[tokio::test]
async fn damage_that_was_told_is_shown_and_nothing_to_see_to() {
    let card = card().await;
    let checked = || -> (Option<i32>, serde_json::Value) {
        let (code, json, _) = card.tidegate(&["fsck", "--format", "json"]);
        (code, serde_json::from_str(&json).unwrap())
    };
    let fault = |json: &serde_json::Value| {
        let files = json["files"].as_array().unwrap();
        let file = files.iter().find(|file| file["file"] == "current/0001.seg");
        file.expect("it is checked")["faults"].clone()
    };
    let (code, json) = checked();
    assert_eq!(code, Some(0), "{json:#}");
    assert_eq!((&json["damaged"], &json["events"]), (&0.into(), &6.into()));

    card.flip("0001.seg", card.find("0001.seg", "three"));
    let (code, json) = checked();
    assert_eq!(code, Some(1), "{json:#}");
    assert_eq!(
        (&json["damaged"], &json["untold"]),
        (&1.into(), &1.into()),
        "{json:#}"
    );
    let [from, to] = [0, 1].map(|end| fault(&json)[0]["bytes"][end].as_u64().unwrap());
    assert!(from < to, "{json:#}");
    assert_eq!(fault(&json)[0]["lost"], serde_json::json!([3, 3]));

    // Whoever reads there comes upon it, and it is told.
    let journal = card.open(&["archive", "cloud"], Clock::system());
    journal.read_after(Cursor::default(), ALL).await.unwrap();
    stored(&journal, append(&journal, &["seven"])).await;
    journal.close().await;
    let (code, json) = checked();
    assert_eq!(code, Some(0), "{json:#}");
    assert_eq!(
        (&json["damaged"], &json["untold"]),
        (&1.into(), &0.into()),
        "{json:#}"
    );
    assert_eq!(fault(&json)[0]["told"], true);
    let (code, out, complaint) = card.tidegate(&["fsck"]);
    assert_eq!((code, complaint.as_str()), (Some(0), ""));
    assert!(out.contains("  told  bytes "), "{out}");
    assert!(out.ends_with(": 1 damaged place, told of before\n"), "{out}");

    // What comes to it is not hidden by it.
    card.flip("0001.seg", card.find("0001.seg", "five"));
    let (code, json) = checked();
    assert_eq!(code, Some(1), "{json:#}");
    assert_eq!(
        (&json["damaged"], &json["untold"]),
        (&2.into(), &1.into()),
        "{json:#}"
    );
}

#[tokio::test]
async fn what_a_kill_left_half_written_is_said_and_no_damage() {
    let card = Card::of_fixture("torn");
    let (code, out, _) = card.tidegate(&["fsck"]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("note  the tail is torn at byte "), "{out}");
    assert!(out.ends_with(": no damage\n"), "{out}");
    let (_, out, _) = card.tidegate(&["ls"]);
    assert!(
        out.contains("; not closed: killed, or its power was cut"),
        "{out}"
    );
}

#[tokio::test]
async fn a_file_that_vanished_or_was_cut_is_missed_with_the_events_in_it() {
    let card = Card::new();
    let journal = card.open(&["cloud"], Clock::system());
    let long = "p".repeat(30_000);
    for _ in 0..16 {
        stored(&journal, append(&journal, &[&long])).await;
    }
    journal.close().await;
    let (code, out, _) = card.tidegate(&["fsck"]);
    assert_eq!(code, Some(0), "{out}");
    let (_, json, _) = card.tidegate(&["ls", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let segments = json["epochs"][0]["segments"].as_array().unwrap();
    let of = |index: usize| {
        let segment = &segments[index];
        let number = |key: &str| segment[key].as_u64().unwrap();
        (
            card.file(segment["file"].as_str().unwrap()),
            number("number"),
            number("first"),
            number("last"),
        )
    };
    assert!(segments.len() >= 4, "{json:#}");

    let (path, number, first, last) = of(1);
    let bytes = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let (code, out, _) = card.tidegate(&["fsck"]);
    assert_eq!(code, Some(1), "{out}");
    let told = format!("DAMAGED  missing: events {first} to {last} are lost");
    assert!(out.contains(&told), "{told}: {out}");
    assert!(
        out.contains(&format!("current/segments {number} to {number}")),
        "{out}"
    );
    fs::write(&path, bytes).unwrap();

    let (path, _, _, last) = of(2);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..4096]).unwrap();
    let (code, out, _) = card.tidegate(&["fsck"]);
    assert_eq!(code, Some(1), "{out}");
    assert!(
        out.contains(&format!(" to {last} are lost")) || out.contains(&format!("event {last} is lost")),
        "{out}"
    );
}

#[tokio::test]
async fn a_journal_without_its_identity_is_damaged_and_still_gives_its_events_away() {
    let card = Card::of_fixture("clean");
    fs::write(card.file("identity"), b"").unwrap();
    let (code, out, _) = card.tidegate(&["fsck"]);
    assert_eq!(code, Some(1));
    assert!(
        out.contains("current/identity  DAMAGED  does not verify"),
        "{out}"
    );
    let (code, out, _) = card.tidegate(&["export"]);
    assert_eq!((code, out.lines().count()), (Some(0), 5), "{out}");
}

#[tokio::test]
async fn a_journal_of_a_later_version_is_left_to_the_later_version() {
    let card = Card::of_fixture("from-a-future-version");
    for command in ["ls", "fsck"] {
        let (_, out, _) = card.tidegate(&[command]);
        assert!(
            out.contains("its format is version 2, this is version 1"),
            "{out}"
        );
    }
    assert_eq!(card.tidegate(&["fsck"]).0, Some(1));
}

#[tokio::test]
async fn a_directory_without_a_journal_is_told_with_what_to_do() {
    let card = Card::new();
    for prepare in [false, true] {
        if prepare {
            fs::create_dir(card.dir()).unwrap();
        }
        let dir = card.dir();
        let ran = run(&["journal", "ls", "--dir", dir.to_str().unwrap()]);
        assert_eq!(ran.status.code(), Some(1));
        let complaint = text(&ran.stderr);
        assert!(complaint.contains("--dir names another directory"), "{complaint}");
    }
}

#[tokio::test]
async fn a_plan_takes_its_rates_from_a_journal_that_covers_hours() {
    let card = Card::new();
    let config = card.folder.path().join("gateway.toml");
    let text = format!(
        "[gateway]\nid = \"plantroom-1\"\n[journal]\ndir = \"{}\"\n",
        card.dir().display()
    );
    fs::write(&config, text).unwrap();
    let plan = || {
        let before = card.files();
        let ran = run(&["plan", "--config", config.to_str().unwrap(), "--format", "json"]);
        assert!(card.files() == before, "it changes nothing");
        let plan: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
        (plan, String::from_utf8(ran.stderr).unwrap())
    };
    let hands = Simulated::new(BootId(7));
    let clock = Clock::simulated(&hands);
    let journal = card.open(&[], clock.clone());
    stored(&journal, append(&journal, &["first"])).await;
    let (early, said) = plan();
    assert!(said.contains("less than an hour"), "{said}");
    let events = "/assumptions/events_per_day";
    assert_eq!(early.pointer(events).unwrap()["value"], 1_000);
    // Ten in two and a half hours: 96 a day, heartbeats among them.
    for _ in 0..9 {
        hands.advance(Duration::from_secs(1_000));
        stored(&journal, append(&journal, &["another"])).await;
    }
    journal.close().await;
    let (plan, _) = plan();
    let figure = plan.pointer(events).unwrap();
    assert_eq!(figure["value"], 96, "{plan:#}");
    assert!(
        figure["from"]
            .as_str()
            .unwrap()
            .contains("measured: 10 events in 2h 30m"),
        "{figure}"
    );
    assert_eq!(plan["assumptions"]["heartbeats_per_day"], 0);
    let bytes = plan["assumptions"]["event_bytes"]["value"].as_u64().unwrap();
    assert!((100..1_000).contains(&bytes), "small events: {bytes}");
}
