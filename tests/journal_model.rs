//! The journal's promises, on a disk whose power can be cut.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tidegate::{
    event::{Data, Draft, Entry, Origin, Position, Sequence, Severity, SinkName},
    journal::{
        Cursor, Error, Health, Journal, Limit, Owner, Recovered, Running, Settings, SinkPlan, WhenFull,
        storage::simulated::Simulated,
    },
    rule::state::{Outcome, StateChange},
    time::Clock,
};

const ALL: Limit = Limit {
    entries: usize::MAX,
    bytes: usize::MAX,
};
const DEADLINE: Duration = Duration::from_secs(20);

fn settings() -> Settings {
    Settings {
        dir: PathBuf::from("/journal"),
        max_bytes: 8 * 1024 * 1024,
        max_age: None,
        when_full: WhenFull::DropOldest,
        state_delay: Duration::from_millis(5),
    }
}

fn sink(name: &str) -> SinkName {
    name.parse().unwrap()
}

fn owner(sinks: &[&str]) -> Owner {
    let origin = Origin {
        gateway: "plantroom-1".into(),
        source: "urn:tidegate:gateway:plantroom-1".into(),
        labels: [("site".to_owned(), "hq".to_owned())].into(),
        version: "0.1.0".into(),
    };
    let sinks = sinks.iter().map(|name| SinkPlan {
        name: sink(name),
        required: true,
        from_oldest: false,
    });
    Owner {
        origin: Arc::new(origin),
        machine_id: "m".to_owned(),
        board_serial: "b".to_owned(),
        sinks: sinks.collect(),
    }
}

fn draft(text: &str) -> Draft {
    let mut data = serde_json::Map::new();
    data.insert("text".to_owned(), text.into());
    Draft {
        kind: "io.tidegate.gateway.Test".into(),
        name: "Test".into(),
        subject: "plantroom-1".into(),
        about: "plantroom-1".into(),
        severity: Severity::Warning,
        at: tidegate::time::EngineTime(7),
        transition: None,
        correlation: None,
        data: Data::Gateway(data),
    }
}

fn change(key: &str, value: Option<&str>) -> StateChange {
    StateChange {
        key: key.as_bytes().to_vec(),
        value: value.map(|value| value.as_bytes().to_vec()),
    }
}

fn outcome(events: &[&str], state: &[(&str, Option<&str>)]) -> Outcome {
    Outcome {
        events: events.iter().map(|text| draft(text)).collect(),
        state: state.iter().map(|(key, value)| change(key, *value)).collect(),
        depends_on: Position(0),
    }
}

fn data(entry: &Entry) -> &serde_json::Map<String, serde_json::Value> {
    let Data::Gateway(data) = &entry.event.draft.data else {
        panic!("no rule events here")
    };
    data
}

fn text(entry: &Entry) -> String {
    match data(entry).get("text") {
        Some(text) => text.as_str().unwrap_or_default().to_owned(),
        None => entry.event.draft.name.to_string(),
    }
}

fn texts(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(text).collect()
}

fn cursor_at(entry: &Entry) -> Cursor {
    Cursor {
        position: entry.position,
        sequence: entry.sequence,
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(DEADLINE, future)
            .await
            .expect("not within the deadline")
    })
}

/// A running journal of a test.
struct Open {
    journal: Journal,
    recovered: Recovered,
    running: Running,
}

impl Open {
    fn on(disk: &Simulated, settings: &Settings, owner: Owner) -> Self {
        let (journal, recovered, running) =
            Journal::open_on(disk.mount(), settings, owner, Clock::system()).expect("it opens");
        Self {
            journal,
            recovered,
            running,
        }
    }

    fn new(disk: &Simulated) -> Self {
        Self::on(disk, &settings(), owner(&["cloud"]))
    }

    fn wait(&self, position: Position) {
        block_on(async {
            self.journal
                .durable()
                .wait_for(|durable| *durable >= position)
                .await
                .map(|_| ())
        })
        .expect("the thread lives");
    }

    fn commit(&self, events: &[&str], state: &[(&str, Option<&str>)]) -> Position {
        let position = self.journal.append(outcome(events, state));
        self.wait(position);
        position
    }

    fn health(&self, is: impl FnMut(&Health) -> bool) -> Health {
        block_on(async { self.journal.health().wait_for(is).await.unwrap().clone() })
    }

    fn read(&self, after: Cursor) -> Vec<Entry> {
        self.journal.read_after_blocking(after, ALL).unwrap()
    }

    fn read_all(&self) -> Vec<Entry> {
        self.read(Cursor::default())
    }

    fn state(&self) -> Vec<(String, String)> {
        let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).unwrap();
        self.recovered
            .state
            .iter()
            .map(|(key, value)| (text(key), text(value)))
            .collect()
    }

    fn close(self) {
        block_on(self.journal.close());
        self.running.ended.blocking_recv().unwrap().unwrap();
    }

    /// The machine loses its power.
    fn power_cut(self, disk: &Simulated, random: &mut fastrand::Rng) {
        disk.power_cut(random);
        self.gone();
    }

    /// The process dies.
    fn kill(self, disk: &Simulated) {
        disk.kill();
        self.gone();
    }

    fn gone(self) {
        drop(self.journal);
        drop(self.running.ended.blocking_recv());
    }
}

fn segment_files(disk: &Simulated) -> Vec<PathBuf> {
    disk.paths()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|it| it == "seg"))
        .collect()
}

/// The segment file whose header has the highest number, and that number.
fn newest_segment(disk: &Simulated) -> PathBuf {
    let number = |path: &PathBuf| {
        let bytes = disk.content(path).unwrap();
        if bytes.starts_with(b"TGSEG") {
            u64::from_le_bytes(bytes[8..16].try_into().unwrap())
        } else {
            0
        }
    };
    segment_files(disk).into_iter().max_by_key(number).unwrap()
}

#[test]
fn what_is_durable_is_read_in_order_with_consecutive_sequences() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    assert!(open.recovered.clean && open.recovered.findings.is_empty());
    open.commit(&["a", "b"], &[("r/x", Some("1"))]);
    let last = open.commit(&["c"], &[]);
    let entries = open.read_all();
    assert_eq!(texts(&entries), ["a", "b", "c"]);
    assert_eq!(
        entries.iter().map(|entry| entry.sequence.0).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert!(entries.is_sorted_by(|a, b| a.position < b.position));
    assert_eq!(entries[2].position, last);
    assert_eq!(entries[0].epoch, open.recovered.epoch);
    assert_eq!(&*entries[0].event.origin.gateway, "plantroom-1");
    assert_eq!(texts(&open.read(cursor_at(&entries[0]))), ["b", "c"]);
    let two = open.journal.read_after_blocking(
        Cursor::default(),
        Limit {
            entries: 2,
            bytes: usize::MAX,
        },
    );
    assert_eq!(texts(&two.unwrap()), ["a", "b"]);
    assert!(open.read(cursor_at(&entries[2])).is_empty());
    assert_eq!(
        texts(&block_on(open.journal.read_after(Cursor::default(), ALL)).unwrap()),
        ["a", "b", "c"]
    );
    open.close();
}

#[test]
fn a_closed_journal_reopens_clean_with_its_state_and_cursors() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["a", "b"], &[("r/x", Some("1")), ("r/y", Some("2"))]);
    open.commit(&[], &[("r/y", None), ("r/z", Some("3"))]);
    let entries = open.read_all();
    open.journal.acknowledge(&sink("cloud"), cursor_at(&entries[0]));
    let epoch = open.recovered.epoch;
    open.close();
    let open = Open::new(&disk);
    assert!(open.recovered.clean);
    assert_eq!(open.recovered.epoch, epoch);
    assert_eq!(
        (open.recovered.first, open.recovered.last),
        (Sequence(1), Sequence(2))
    );
    assert_eq!(
        open.state(),
        [
            ("r/x".to_owned(), "1".to_owned()),
            ("r/z".to_owned(), "3".to_owned())
        ]
    );
    let cursor = open.journal.cursor(&sink("cloud"));
    assert_eq!(cursor, cursor_at(&entries[0]));
    assert_eq!(texts(&open.read(cursor)), ["b"]);
    open.commit(&["c"], &[]);
    assert_eq!(open.read_all()[2].sequence, Sequence(3));
}

#[test]
fn going_back_with_a_cursor_changes_nothing() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["a", "b"], &[]);
    let entries = open.read_all();
    open.journal.acknowledge(&sink("cloud"), cursor_at(&entries[1]));
    open.journal.acknowledge(&sink("cloud"), cursor_at(&entries[0]));
    assert_eq!(open.journal.cursor(&sink("cloud")), cursor_at(&entries[1]));
}

#[test]
fn an_empty_outcome_is_as_durable_as_what_came_before_it() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    let position = open.journal.append(Outcome::default());
    open.wait(position);
    let a = open.journal.append(outcome(&["a"], &[]));
    assert_eq!(open.journal.append(Outcome::default()), a);
}

#[test]
fn what_was_durable_survives_any_power_cut() {
    for seed in 0..40 {
        let mut random = fastrand::Rng::with_seed(seed);
        let disk = Simulated::default();
        let open = Open::new(&disk);
        open.commit(&["a", "b"], &[("k", Some("1"))]);
        open.journal.append(outcome(&["c", "d"], &[("k", Some("2"))]));
        open.power_cut(&disk, &mut random);
        let open = Open::new(&disk);
        let found = texts(&open.read_all());
        let kept = found
            .iter()
            .filter(|text| text.len() == 1)
            .cloned()
            .collect::<Vec<_>>();
        let value = &open.state()[0].1;
        let whole = (kept == ["a", "b"] && value == "1") || (kept == ["a", "b", "c", "d"] && value == "2");
        assert!(whole, "seed {seed}: {found:?} {value}");
        assert!(!open.recovered.clean);
    }
}

#[test]
fn another_gateway_begins_a_new_epoch_and_the_old_one_is_still_delivered() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["a", "b"], &[("k", Some("1"))]);
    let entries = open.read_all();
    open.journal.acknowledge(&sink("cloud"), cursor_at(&entries[0]));
    let old = open.recovered.epoch;
    open.close();
    let renamed = || Owner {
        board_serial: "another".to_owned(),
        ..owner(&["cloud"])
    };
    let open = Open::on(&disk, &settings(), renamed());
    assert_ne!(open.recovered.epoch, old);
    assert!(open.recovered.state.is_empty());
    open.commit(&["c"], &[]);
    let cursor = open.journal.cursor(&sink("cloud"));
    let owed = open.read(cursor);
    assert_eq!(
        (texts(&owed), owed[0].epoch, owed[0].sequence),
        (vec!["b".to_owned()], old, Sequence(2))
    );
    open.kill(&disk);
    // Also after a crash: what is owed is owed until it is confirmed.
    let open = Open::on(&disk, &settings(), renamed());
    let owed = open.read(open.journal.cursor(&sink("cloud")));
    assert_eq!(texts(&owed), ["b"]);
    let new = open.read(cursor_at(&owed[0]));
    assert_eq!(
        (texts(&new), new[0].epoch, new[0].sequence),
        (vec!["c".to_owned()], open.recovered.epoch, Sequence(1))
    );
    open.journal.acknowledge(&sink("cloud"), cursor_at(&new[0]));
    open.close();
    let open = Open::on(&disk, &settings(), renamed());
    open.health(|health| health.pulse > 1);
    assert!(
        !disk
            .paths()
            .iter()
            .any(|path| path.to_string_lossy().contains("epoch-"))
    );
    assert_eq!(open.journal.cursor(&sink("cloud")).sequence, Sequence(1));
}

#[test]
fn a_second_process_is_told_the_pid_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        dir: dir.path().join("journal"),
        ..settings()
    };
    let (journal, _, _running) = Journal::open(&settings, owner(&[]), Clock::system()).unwrap();
    let Err(error) = Journal::open(&settings, owner(&[]), Clock::system()) else {
        panic!("it opened twice")
    };
    assert!(
        matches!(&error, Error::Locked { pid, .. } if *pid == std::process::id().to_string()),
        "{error}"
    );
    block_on(journal.close());
    Journal::open(&settings, owner(&[]), Clock::system()).unwrap();
}

#[test]
fn a_real_directory_keeps_what_it_was_given() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        dir: dir.path().join("journal"),
        ..settings()
    };
    let (journal, recovered, _running) =
        Journal::open(&settings, owner(&["cloud"]), Clock::system()).unwrap();
    let position = journal.append(outcome(&["a"], &[("k", Some("1"))]));
    block_on(async { journal.durable().wait_for(|at| *at >= position).await.map(|_| ()) }).unwrap();
    block_on(journal.close());
    let (journal, again, _running) = Journal::open(&settings, owner(&["cloud"]), Clock::system()).unwrap();
    assert_eq!(again.epoch, recovered.epoch);
    assert_eq!(
        texts(&journal.read_after_blocking(Cursor::default(), ALL).unwrap()),
        ["a"]
    );
}

#[test]
fn a_failed_flush_ends_the_journal() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["a"], &[]);
    disk.set_failing_sync(true);
    let position = open.journal.append(outcome(&["b"], &[]));
    let mut durable = open.journal.durable();
    let ended = block_on(async { durable.wait_for(|at| *at >= position).await.map(|_| ()) });
    assert!(ended.is_err(), "nothing is durable after a failed flush");
    assert!(open.running.ended.blocking_recv().unwrap().is_err());
    assert_eq!(
        texts(&open.journal.read_after_blocking(Cursor::default(), ALL).unwrap()),
        ["a"]
    );
}

#[test]
fn state_alone_waits_for_company_and_an_event_takes_it_along() {
    let disk = Simulated::default();
    let slow = Settings {
        state_delay: Duration::from_secs(3600),
        ..settings()
    };
    let open = Open::on(&disk, &slow, owner(&["cloud"]));
    let state = open.journal.append(outcome(&[], &[("k", Some("1"))]));
    assert!(*open.journal.durable().borrow() < state);
    let event = open.commit(&["a"], &[]);
    assert!(state < event);
    open.kill(&disk);
    assert_eq!(Open::new(&disk).state(), [("k".to_owned(), "1".to_owned())]);
}

fn damage(disk: &Simulated, path: &Path, at: usize, count: usize) {
    let mut bytes = disk.content(path).unwrap();
    for byte in &mut bytes[at..at + count] {
        *byte ^= 0x55;
    }
    disk.put_content(path, Some(bytes));
}

/// Appends events of 20 KB, numbered, until `stop` says so.
fn fill(open: &Open, count: usize) {
    let padding = "x".repeat(20_000);
    let mut last = Position(0);
    for number in 0..count {
        last = open
            .journal
            .append(outcome(&[&format!("{number} {padding}")], &[]));
        if number % 10 == 9 {
            open.wait(last);
        }
    }
    open.wait(last);
}

/// The sequences that are read, and those that `EventsDiscarded` names.
fn account(entries: &[Entry]) -> (Vec<u64>, Vec<(u64, u64)>) {
    let read = entries.iter().map(|entry| entry.sequence.0).collect();
    let mut told = Vec::new();
    for entry in entries
        .iter()
        .filter(|entry| &*entry.event.draft.name == "EventsDiscarded")
    {
        for range in data(entry)["ranges"].as_array().unwrap() {
            told.push((range[0].as_u64().unwrap(), range[1].as_u64().unwrap()));
        }
    }
    (read, told)
}

/// Every sequence up to the last is read or told.
fn assert_no_gap(entries: &[Entry]) {
    let (read, told) = account(entries);
    let last = *read.last().unwrap();
    for sequence in 1..=last {
        let known = read.binary_search(&sequence).is_ok()
            || told.iter().any(|(from, to)| (*from..=*to).contains(&sequence));
        assert!(known, "nobody knows what became of {sequence}: {told:?}");
    }
}

#[test]
fn drop_oldest_names_what_it_drops_and_stays_within_max_bytes() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    fill(&open, 900);
    assert!(disk.bytes() <= settings().max_bytes, "{} bytes", disk.bytes());
    let entries = open.read(open.journal.cursor(&sink("cloud")));
    assert!(entries[0].sequence > Sequence(1));
    assert_no_gap(&entries);
    let note = entries
        .iter()
        .rfind(|entry| &*entry.event.draft.name == "EventsDiscarded")
        .unwrap();
    assert_eq!(&*note.event.draft.kind, "io.tidegate.gateway.EventsDiscarded");
    assert_eq!(note.event.draft.severity, Severity::Error);
    let data = data(note);
    assert_eq!(data["reason"], "journal-full");
    assert_eq!(data["sinks"], serde_json::json!(["cloud"]));
    assert_eq!(data["epoch"], open.recovered.epoch.to_string());
    let (_, told) = account(std::slice::from_ref(note));
    assert_eq!(told.len(), 1, "what was told before is told again, as one range");
    assert_eq!(data["count"].as_u64().unwrap(), told[0].1 - told[0].0 + 1);
    let health = open.health(|health| health.undelivered_bytes > 0);
    assert!(!health.parked && health.undelivered_bytes > 6 * 1024 * 1024);
    open.kill(&disk);
    assert_no_gap(&Open::new(&disk).read_all());
}

#[test]
fn delivered_segments_stay_until_their_room_is_needed_and_go_without_a_word() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    for _ in 0..30 {
        fill(&open, 20);
        let newest = open.read_all();
        open.journal
            .acknowledge(&sink("cloud"), cursor_at(newest.last().unwrap()));
    }
    let entries = open.read_all();
    assert!(entries.len() > 200, "delivered events stay");
    assert!(entries[0].sequence > Sequence(1), "but not for ever");
    assert!(account(&entries).1.is_empty());
    assert_eq!(
        open.health(|health| health.undelivered_bytes == 0).last,
        Sequence(600)
    );
    assert!(disk.bytes() <= settings().max_bytes);
}

fn refuse() -> Settings {
    Settings {
        when_full: WhenFull::Refuse,
        ..settings()
    }
}

#[test]
fn refuse_parks_and_goes_on_in_order_when_there_is_room() {
    let disk = Simulated::default();
    let open = Open::on(&disk, &refuse(), owner(&["cloud"]));
    let padding = "x".repeat(20_000);
    let mut positions = Vec::new();
    while !open.journal.health().borrow().parked {
        positions.push(
            open.journal
                .append(outcome(&[&format!("{} {padding}", positions.len())], &[])),
        );
        assert!(positions.len() < 5000);
        std::thread::yield_now();
    }
    let last = open.journal.append(outcome(&["the last"], &[]));
    assert!(*open.journal.durable().borrow() < last);
    let mut cursor = Cursor::default();
    let mut read = Vec::new();
    while *open.journal.durable().borrow() < last {
        for entry in open
            .journal
            .read_after_blocking(
                cursor,
                Limit {
                    entries: 50,
                    bytes: usize::MAX,
                },
            )
            .unwrap()
        {
            cursor = cursor_at(&entry);
            read.push(entry);
        }
        open.journal.acknowledge(&sink("cloud"), cursor);
    }
    read.extend(open.read(cursor));
    assert!(!open.health(|health| !health.parked).parked);
    assert_eq!(
        read.len(),
        positions.len() + 1,
        "nothing is lost and nothing is said"
    );
    assert!(
        read.iter()
            .enumerate()
            .all(|(index, entry)| entry.sequence.0 == index as u64 + 1)
    );
    for (entry, position) in read.iter().zip(&positions) {
        assert_eq!(entry.position, *position);
    }
    assert!(disk.bytes() <= settings().max_bytes);
}

#[test]
fn a_sink_that_is_not_required_does_not_park_but_is_told() {
    let disk = Simulated::default();
    let mut owner = owner(&["cloud", "extra"]);
    owner.sinks[1].required = false;
    let open = Open::on(&disk, &refuse(), owner);
    for _ in 0..30 {
        fill(&open, 20);
        let newest = open.read(open.journal.cursor(&sink("cloud")));
        open.journal
            .acknowledge(&sink("cloud"), cursor_at(newest.last().unwrap()));
    }
    let entries = open.read_all();
    assert_no_gap(&entries);
    let note = entries
        .iter()
        .find(|entry| &*entry.event.draft.name == "EventsDiscarded")
        .unwrap();
    assert_eq!(data(note)["sinks"], serde_json::json!(["extra"]));
}

#[test]
fn a_removed_sink_keeps_its_cursor_and_holds_nothing_back() {
    let disk = Simulated::default();
    let open = Open::on(&disk, &refuse(), owner(&["cloud", "gone"]));
    open.commit(&["a", "b"], &[]);
    let entries = open.read_all();
    open.journal.acknowledge(&sink("gone"), cursor_at(&entries[0]));
    open.close();
    let open = Open::on(&disk, &refuse(), owner(&[]));
    fill(&open, 600);
    assert!(account(&open.read_all()).1.is_empty());
    assert_eq!(open.journal.cursor(&sink("gone")), cursor_at(&entries[0]));
}

#[test]
fn a_sink_added_later_starts_at_the_end_or_at_the_oldest() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["a", "b"], &[]);
    open.close();
    let mut owner = owner(&["cloud", "late", "archive"]);
    owner.sinks[2].from_oldest = true;
    let open = Open::on(&disk, &settings(), owner);
    open.commit(&["c"], &[]);
    assert_eq!(texts(&open.read(open.journal.cursor(&sink("late")))), ["c"]);
    assert_eq!(
        texts(&open.read(open.journal.cursor(&sink("archive")))),
        ["a", "b", "c"]
    );
    assert_eq!(
        texts(&open.read(open.journal.cursor(&sink("cloud")))),
        ["a", "b", "c"]
    );
    // Its place is on the disk from the start: a crash does not move it.
    open.kill(&disk);
    let open = Open::on(&disk, &settings(), self::owner(&["late"]));
    assert_eq!(texts(&open.read(open.journal.cursor(&sink("late")))), ["c"]);
}

#[test]
fn a_full_disk_parks_and_nothing_undelivered_is_dropped() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    fill(&open, 50);
    disk.set_full(true);
    let padding = "x".repeat(20_000);
    let mut count = 50;
    while !open.journal.health().borrow().parked {
        open.journal
            .append(outcome(&[&format!("{count} {padding}")], &[]));
        count += 1;
        assert!(count < 5000);
        std::thread::yield_now();
    }
    let last = open.journal.append(outcome(&["the last"], &[]));
    // Reading goes on, and what is delivered makes room.
    let read = open.read_all();
    assert!(read.len() >= 50);
    disk.set_full(false);
    open.wait(last);
    let entries = open.read_all();
    assert_eq!(entries.len(), count + 1);
    assert!(account(&entries).1.is_empty());
}

#[test]
fn on_a_full_disk_delivered_segments_are_used_again() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    fill(&open, 100);
    disk.set_full(true);
    for _ in 0..10 {
        let newest = open.read_all();
        open.journal
            .acknowledge(&sink("cloud"), cursor_at(newest.last().unwrap()));
        fill(&open, 10);
    }
    assert!(!open.journal.health().borrow().parked);
    assert!(account(&open.read_all()).1.is_empty());
}

#[test]
fn a_commit_larger_than_a_segment_is_whole_all_the_same() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    let large = "y".repeat(1_500_000);
    open.commit(&["a"], &[]);
    open.commit(&[&large, "b"], &[("k", Some("1"))]);
    open.commit(&["c"], &[]);
    assert_eq!(open.read_all().len(), 4);
    fill(&open, 500);
    open.commit(&[&large], &[]);
    assert_no_gap(&open.read_all());
    assert!(disk.bytes() <= settings().max_bytes, "{} bytes", disk.bytes());
    open.kill(&disk);
    let open = Open::new(&disk);
    assert_no_gap(&open.read_all());
    assert_eq!(open.read_all().last().map(text), Some(large));
}

#[test]
fn delivered_events_older_than_max_age_go() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    fill(&open, 100);
    let newest = open.read_all();
    open.journal
        .acknowledge(&sink("cloud"), cursor_at(newest.last().unwrap()));
    open.close();
    let young = Settings {
        max_age: Some(Duration::ZERO),
        ..settings()
    };
    let open = Open::on(&disk, &young, owner(&["cloud"]));
    open.health(|health| health.pulse > 1);
    let entries = open.read_all();
    assert!(
        entries.len() < 30,
        "only the segment in use is left, not {}",
        entries.len()
    );
    open.kill(&disk);
    let open = Open::new(&disk);
    assert!(
        open.recovered.findings.is_empty(),
        "{:?}",
        open.recovered.findings
    );
    assert!(account(&open.read_all()).1.is_empty());
}

#[test]
fn a_backlog_is_not_read_at_opening() {
    let disk = Simulated::default();
    let large = Settings {
        max_bytes: 64 * 1024 * 1024,
        ..settings()
    };
    let open = Open::on(&disk, &large, owner(&["cloud"]));
    fill(&open, 1500);
    open.kill(&disk);
    disk.take_read_bytes();
    let open = Open::on(&disk, &large, owner(&["cloud"]));
    assert!(disk.take_read_bytes() < 12 * 1024 * 1024);
    assert_eq!(open.recovered.last, Sequence(1500));
    assert_eq!(open.read_all().len(), 1500);
}

/// Where frames begin in a segment.
const FRAMES: usize = 128;

/// The offsets of the frames of a segment that was used once, and where they end.
fn frames(bytes: &[u8]) -> Vec<usize> {
    let mut offsets = vec![FRAMES];
    loop {
        let at = *offsets.last().unwrap();
        let word = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap());
        if word >> 24 == 0 {
            return offsets;
        }
        offsets.push(at + 28 + (word & 0x00ff_ffff) as usize);
    }
}

fn says(open: &Open, name: &str) -> Vec<Entry> {
    open.read_all()
        .into_iter()
        .filter(|entry| &*entry.event.draft.name == name)
        .collect()
}

#[test]
fn every_prefix_of_a_tail_recovers_to_whole_commits() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["a", "b"], &[("k", Some("1"))]);
    open.commit(&["c", "d"], &[("k", Some("2"))]);
    open.kill(&disk);
    let path = newest_segment(&disk);
    let whole = disk.content(&path).unwrap();
    let ends = frames(&whole);
    let used = *ends.last().unwrap();
    // Where the second commit begins: after the cursor, a, b and k.
    let second = ends[4];
    for cut in (second..used).chain([ends[1], ends[1] + 5, ends[3]]) {
        let copy = disk.copy();
        let mut bytes = whole.clone();
        bytes[cut..].fill(0);
        copy.put_content(&path, Some(bytes));
        let open = Open::new(&copy);
        let kept = texts(&open.read_all())
            .into_iter()
            .filter(|text| text.len() == 1)
            .collect::<Vec<_>>();
        let state = open.state();
        if cut >= second {
            assert_eq!(
                (kept, &*state[0].1),
                (vec!["a".to_owned(), "b".to_owned()], "1"),
                "cut at {cut}"
            );
        } else {
            assert!(kept.is_empty() && state.is_empty(), "cut at {cut}");
        }
        let next = open.commit(&["e"], &[]);
        let entries = open.read_all();
        assert_eq!(
            entries.last().map(|entry| (text(entry), entry.position)),
            Some(("e".to_owned(), next))
        );
        assert_no_gap(&entries);
        assert!(says(&open, "StorageDamaged").is_empty());
        // What was cut never comes back.
        open.kill(&copy);
        assert_eq!(texts(&Open::new(&copy).read_all()), texts(&entries));
    }
}

#[test]
fn numbers_of_a_torn_tail_are_skipped_and_named() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["a"], &[]);
    open.commit(&["b", "c"], &[]);
    open.kill(&disk);
    let path = newest_segment(&disk);
    let ends = frames(&disk.content(&path).unwrap());
    // The last frame's payload: its header still claims sequence 3.
    damage(&disk, &path, ends[ends.len() - 2] + 40, 1);
    let open = Open::new(&disk);
    open.commit(&["d"], &[]);
    let entries = open.read_all();
    assert_eq!(texts(&entries), ["a", "EventsDiscarded", "d"]);
    assert_eq!(data(&entries[1])["reason"], "torn-tail");
    assert_eq!(account(&entries), (vec![1, 4, 5], vec![(2, 3)]));
}

#[test]
fn a_flipped_byte_before_a_later_group_is_damage_and_is_told() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    for text in ["a", "b", "c"] {
        open.commit(&[text], &[(text, Some("1"))]);
    }
    open.kill(&disk);
    let path = newest_segment(&disk);
    let ends = frames(&disk.content(&path).unwrap());
    // Cursor, a, its state, b, its state, c, its state.
    for at in ends[3]..ends[4] {
        let copy = disk.copy();
        damage(&copy, &path, at, 1);
        let open = Open::new(&copy);
        open.commit(&["d"], &[]);
        assert!(!open.recovered.findings.is_empty());
        assert!(open.recovered.state.len() == 3, "the good frame behind it counts");
        let entries = open.read_all();
        assert_eq!(
            texts(&entries),
            ["a", "c", "StorageDamaged", "EventsDiscarded", "d"],
            "flipped {at}"
        );
        assert_eq!(entries[2].event.draft.severity, Severity::Critical);
        let (_, told) = account(&entries);
        assert_eq!(told, [(2, 2)]);
        assert_eq!(data(&entries[3])["reason"], "damaged");
        let from = data(&entries[2])["from"].as_u64().unwrap();
        assert_eq!(usize::try_from(from).unwrap(), ends[3]);
        assert_eq!(
            copy.paths()
                .iter()
                .filter(|path| path.to_string_lossy().contains("damaged-"))
                .count(),
            1
        );
        // It is told once, and read past for ever.
        open.kill(&copy);
        let open = Open::new(&copy);
        assert_eq!(texts(&open.read_all())[..2], ["a".to_owned(), "c".to_owned()]);
    }
}

#[test]
fn anything_bad_before_a_clean_stop_is_damage() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["a"], &[]);
    open.commit(&["b"], &[]);
    open.close();
    let path = newest_segment(&disk);
    let ends = frames(&disk.content(&path).unwrap());
    damage(&disk, &path, ends[ends.len() - 3] + 30, 3);
    let open = Open::new(&disk);
    open.commit(&["c"], &[]);
    assert_eq!(
        texts(&open.read_all()),
        ["a", "StorageDamaged", "EventsDiscarded", "c"]
    );
}

#[test]
fn damage_in_the_backlog_is_found_by_the_reader_and_never_delivered() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    fill(&open, 60);
    open.kill(&disk);
    let path = PathBuf::from("/journal/current/0001.seg");
    let bytes = disk.content(&path).unwrap();
    assert!(bytes.starts_with(b"TGSEG"));
    damage(&disk, &path, 100_000, 1);
    let open = Open::new(&disk);
    let before = open.read_all();
    assert_eq!(
        before
            .iter()
            .filter(|entry| &*entry.event.draft.name == "Test")
            .count(),
        59
    );
    let told = block_on(async {
        let mut durable = open.journal.durable();
        loop {
            let told = says(&open, "EventsDiscarded");
            if !told.is_empty() {
                return told;
            }
            durable.changed().await.unwrap();
        }
    });
    assert_eq!(account(&told).1.len(), 1);
    assert_no_gap(&open.read_all());
    assert_eq!(says(&open, "StorageDamaged").len(), 1);
}

#[test]
fn every_flip_in_a_small_journal_opens_and_delivers_no_wrong_event() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    for number in 0..4 {
        open.commit(&[&format!("good {number}")], &[("k", Some("1"))]);
    }
    open.close();
    let good =
        |text: &String| text.starts_with("good ") || text == "StorageDamaged" || text == "EventsDiscarded";
    let mut random = fastrand::Rng::with_seed(1);
    for path in disk.paths() {
        for _ in 0..30 {
            let copy = disk.copy();
            let used = disk.content(&path).unwrap();
            let end = used.iter().rposition(|byte| *byte != 0).unwrap_or(0).min(3000) + 1;
            damage(&copy, &path, random.usize(0..end.min(used.len())), 1);
            let open = Open::new(&copy);
            open.commit(&["good new"], &[]);
            let entries = open.read_all();
            assert!(texts(&entries).iter().all(good));
            assert_eq!(
                entries.last().map(text).as_deref(),
                Some("good new"),
                "{}",
                path.display()
            );
            assert!(entries.is_sorted_by(|a, b| a.position < b.position && a.sequence < b.sequence));
        }
    }
}

#[test]
fn a_vanished_or_shortened_file_is_told() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    fill(&open, 60);
    open.close();
    for path in segment_files(&disk) {
        for shortened in [false, true] {
            let copy = disk.copy();
            let bytes = copy.content(&path).unwrap();
            if !bytes.starts_with(b"TGSEG") {
                continue;
            }
            copy.put_content(&path, shortened.then(|| bytes[..5000].to_vec()));
            let open = Open::new(&copy);
            open.commit(&["new"], &[]);
            let mut entries = open.read_all();
            block_on(async {
                let mut durable = open.journal.durable();
                while account(&entries).1.is_empty() {
                    durable.changed().await.unwrap();
                    entries = open.read_all();
                }
            });
            assert_no_gap(&entries);
            assert!(entries.len() > 30);
        }
    }
}

#[test]
fn a_damaged_snapshot_is_replaced_by_the_other_one_and_the_log() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    for round in 0..80 {
        let value = round.to_string();
        open.commit(
            &[&"x".repeat(20_000)],
            &[("k", Some(&value)), (&format!("k{round}"), Some("1"))],
        );
    }
    open.kill(&disk);
    for slot in ["a.snap", "b.snap"] {
        let copy = disk.copy();
        damage(&copy, &Path::new("/journal/current").join(slot), 40, 1);
        let open = Open::new(&copy);
        assert_eq!(open.recovered.state.len(), 81);
        assert!(open.state().contains(&("k".to_owned(), "79".to_owned())));
        assert_eq!(open.recovered.findings.len(), 1);
    }
}

#[test]
fn an_unreadable_directory_is_moved_aside_whole_and_a_new_epoch_begins() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["a"], &[]);
    let epoch = open.recovered.epoch;
    open.close();
    damage(&disk, Path::new("/journal/current/identity"), 30, 1);
    let open = Open::new(&disk);
    assert_ne!(open.recovered.epoch, epoch);
    assert_eq!(open.recovered.findings.len(), 1);
    assert!(
        disk.paths()
            .iter()
            .any(|path| path.starts_with("/journal/unreadable"))
    );
    open.commit(&["b"], &[]);
    assert_eq!(says(&open, "StorageDamaged").len(), 1);
    assert_eq!(open.read_all().last().map(text).as_deref(), Some("b"));
}

#[test]
fn a_killed_process_s_last_words_are_put_on_the_disk_before_they_are_believed() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["a"], &[]);
    disk.set_failing_sync(true);
    let _ = open.journal.append(outcome(&["b"], &[]));
    assert!(open.running.ended.blocking_recv().unwrap().is_err());
    drop(open.journal);
    disk.set_failing_sync(false);
    let open = Open::new(&disk);
    let seen = texts(&open.read_all());
    assert_eq!(seen, ["a", "b"]);
    let mut random = fastrand::Rng::with_seed(7);
    open.power_cut(&disk, &mut random);
    assert_eq!(texts(&Open::new(&disk).read_all()), seen);
}

mod model {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Act {
        /// A commit with so many events of so many bytes.
        Append(usize, usize),
        /// Waits until all is durable.
        Wait,
        /// The sink confirms so many events.
        Acknowledge(usize),
        /// Reads from the sink's cursor, and from the beginning.
        Read,
        Close,
        Kill,
        PowerCut(u64),
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            8 => (0_usize..4, prop_oneof![3 => 1_usize..300, 2 => Just(90_000_usize)])
                .prop_map(|(events, size)| Act::Append(events, size)),
            4 => Just(Act::Wait),
            3 => (1_usize..20).prop_map(Act::Acknowledge),
            2 => Just(Act::Read),
            1 => Just(Act::Close),
            1 => Just(Act::Kill),
            3 => any::<u64>().prop_map(Act::PowerCut),
        ];
        proptest::collection::vec(act, 1..150)
    }

    /// What the journal must agree with.
    struct Model {
        disk: Simulated,
        settings: Settings,
        open: Option<Open>,
        /// Every commit ever appended that is not known to be lost: its number and its events' texts.
        commits: Vec<(u64, Vec<String>)>,
        /// So many of them are known to be durable.
        durable: usize,
        next: u64,
        newest: Position,
        /// What a sequence was ever seen to mean.
        seen: BTreeMap<u64, String>,
        confirmed: Cursor,
    }

    impl Model {
        fn new(when_full: WhenFull) -> Self {
            let disk = Simulated::default();
            let settings = Settings {
                when_full,
                state_delay: Duration::from_millis(1),
                ..settings()
            };
            let open = Some(Open::on(&disk, &settings, owner(&["cloud"])));
            let (commits, seen) = (Vec::new(), BTreeMap::new());
            let (newest, confirmed) = (Position(0), Cursor::default());
            Self {
                disk,
                settings,
                open,
                commits,
                durable: 0,
                next: 0,
                newest,
                seen,
                confirmed,
            }
        }

        fn open(&self) -> &Open {
            self.open.as_ref().unwrap()
        }

        fn act(&mut self, act: &Act) {
            match act {
                Act::Append(events, size) => self.append(*events, *size),
                Act::Wait => self.wait(),
                Act::Acknowledge(count) => self.acknowledge(*count),
                Act::Read => self.read(),
                Act::Close => {
                    self.wait();
                    self.open.take().unwrap().close();
                    self.reopen();
                    assert!(self.open().recovered.clean);
                }
                Act::Kill => {
                    let disk = self.disk.clone();
                    self.open.take().unwrap().kill(&disk);
                    self.reopen();
                }
                Act::PowerCut(seed) => {
                    let disk = self.disk.clone();
                    self.open
                        .take()
                        .unwrap()
                        .power_cut(&disk, &mut fastrand::Rng::with_seed(*seed));
                    self.reopen();
                }
            }
        }

        fn append(&mut self, events: usize, size: usize) {
            let number = self.next;
            self.next += 1;
            let texts: Vec<String> = (0..events)
                .map(|event| format!("{number}.{event} {}", "x".repeat(size)))
                .collect();
            let borrowed: Vec<&str> = texts.iter().map(String::as_str).collect();
            let state = [("n", Some(number.to_string()))];
            let state: Vec<_> = state
                .iter()
                .map(|(key, value)| (*key, value.as_deref()))
                .collect();
            let position = self.open().journal.append(outcome(&borrowed, &state));
            assert!(position > self.newest);
            self.newest = position;
            self.commits.push((number, texts));
        }

        fn wait(&mut self) {
            while *self.open().journal.durable().borrow() < self.newest {
                if self.open().journal.health().borrow().parked {
                    self.acknowledge(usize::MAX);
                }
                std::thread::yield_now();
            }
            self.durable = self.commits.len();
        }

        fn acknowledge(&mut self, count: usize) {
            let limit = Limit {
                entries: count,
                bytes: usize::MAX,
            };
            let entries = self
                .open()
                .journal
                .read_after_blocking(self.confirmed, limit)
                .unwrap();
            self.check(&entries);
            if let Some(last) = entries.last() {
                self.confirmed = cursor_at(last);
                self.open().journal.acknowledge(&sink("cloud"), self.confirmed);
                assert_eq!(self.open().journal.cursor(&sink("cloud")), self.confirmed);
            }
        }

        fn reopen(&mut self) {
            let open = Open::on(&self.disk, &self.settings, owner(&["cloud"]));
            let kept = open
                .state()
                .first()
                .map_or(0, |(_, number)| number.parse::<u64>().unwrap() + 1);
            let whole = self
                .commits
                .iter()
                .take_while(|(number, _)| *number < kept)
                .count();
            assert!(
                whole >= self.durable,
                "what was durable is gone: {whole} of {}",
                self.durable
            );
            self.commits.truncate(whole);
            self.durable = whole;
            self.newest = *open.journal.durable().borrow();
            let cursor = open.journal.cursor(&sink("cloud"));
            assert!(cursor <= self.confirmed, "a cursor never goes ahead");
            self.confirmed = cursor;
            assert!(says(&open, "StorageDamaged").is_empty(), "a crash is no damage");
            self.open = Some(open);
            self.wait();
            self.read();
        }

        fn read(&mut self) {
            let entries = self.open().read_all();
            self.check(&entries);
            let own: Vec<String> = texts(&entries)
                .into_iter()
                .filter(|text| text.contains('.'))
                .collect();
            let appended: Vec<&String> = self.commits.iter().flat_map(|(_, texts)| texts).collect();
            // What is read was appended, in this order; some may be dropped even while it is read.
            let mut rest = appended.iter();
            assert!(own.iter().all(|text| rest.any(|appended| *appended == text)));
            let must: usize = self.commits[..self.durable]
                .iter()
                .map(|(_, texts)| texts.len())
                .sum();
            let newest = own.last().map_or(0, |last| {
                appended.iter().position(|text| *text == last).unwrap() + 1
            });
            assert!(newest >= must || own.is_empty());
            // From the cursor on, everything is there or told.
            let owed = self.open().read(self.confirmed);
            let (read, told) = account(&owed);
            if let Some(last) = read.last() {
                for sequence in self.confirmed.sequence.0 + 1..*last {
                    let known = read.binary_search(&sequence).is_ok()
                        || told.iter().any(|(from, to)| (*from..=*to).contains(&sequence));
                    assert!(known, "{sequence} is missing");
                }
            }
            assert!(self.disk.bytes() <= self.settings.max_bytes);
        }

        fn check(&mut self, entries: &[Entry]) {
            assert!(entries.is_sorted_by(|a, b| a.position < b.position && a.sequence < b.sequence));
            for entry in entries {
                let before = self.seen.entry(entry.sequence.0).or_insert_with(|| text(entry));
                assert_eq!(
                    *before,
                    text(entry),
                    "sequence {} was something else",
                    entry.sequence
                );
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_journal_agrees_with_a_list_through_any_crash(acts in acts(), refuse in any::<bool>()) {
            let mut model = Model::new(if refuse { WhenFull::Refuse } else { WhenFull::DropOldest });
            for act in &acts {
                model.act(act);
            }
            model.wait();
            model.read();
        }
    }
}
