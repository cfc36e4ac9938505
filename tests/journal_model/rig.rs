//! What the tests of the journal share: a disk whose power can be cut, and a journal on it.

pub use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub use tidegate::{
    event::{Data, Draft, Entry, Origin, Position, Sequence, Severity, SinkName},
    journal::{
        Cursor, Error, Health, Journal, Limit, Owner, Recovered, Running, Settings, SinkPlan, WhenFull,
        storage::simulated::Simulated,
    },
    rule::state::{Outcome, StateChange},
    time::Clock,
};

pub const ALL: Limit = Limit {
    entries: usize::MAX,
    bytes: usize::MAX,
};
pub const DEADLINE: Duration = Duration::from_secs(20);

pub fn settings() -> Settings {
    Settings {
        dir: PathBuf::from("/journal"),
        max_bytes: 8 * 1024 * 1024,
        max_age: None,
        when_full: WhenFull::DropOldest,
        state_delay: Duration::from_millis(5),
    }
}

pub fn sink(name: &str) -> SinkName {
    name.parse().unwrap()
}

pub fn owner(sinks: &[&str]) -> Owner {
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

pub fn draft(text: &str) -> Draft {
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

pub fn change(key: &str, value: Option<&str>) -> StateChange {
    StateChange {
        key: key.as_bytes().to_vec(),
        value: value.map(|value| value.as_bytes().to_vec()),
    }
}

pub fn outcome(events: &[&str], state: &[(&str, Option<&str>)]) -> Outcome {
    Outcome {
        events: events.iter().map(|text| draft(text)).collect(),
        state: state.iter().map(|(key, value)| change(key, *value)).collect(),
        ..Outcome::default()
    }
}

pub fn data(entry: &Entry) -> &serde_json::Map<String, serde_json::Value> {
    let Data::Gateway(data) = &entry.event.draft.data else {
        panic!("no rule events here")
    };
    data
}

pub fn text(entry: &Entry) -> String {
    match data(entry).get("text") {
        Some(text) => text.as_str().unwrap_or_default().to_owned(),
        None => entry.event.draft.name.to_string(),
    }
}

pub fn texts(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(text).collect()
}

pub fn cursor_at(entry: &Entry) -> Cursor {
    Cursor::behind(entry)
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
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
pub struct Open {
    pub journal: Journal,
    pub recovered: Recovered,
    pub running: Running,
}

impl Open {
    pub fn on(disk: &Simulated, settings: &Settings, owner: Owner) -> Self {
        let (journal, recovered, running) =
            Journal::open_on(disk.mount(), settings, owner, Clock::system()).expect("it opens");
        Self {
            journal,
            recovered,
            running,
        }
    }

    pub fn new(disk: &Simulated) -> Self {
        Self::on(disk, &settings(), owner(&["cloud"]))
    }

    pub fn wait(&self, position: Position) {
        block_on(async {
            self.journal
                .durable()
                .wait_for(|durable| *durable >= position)
                .await
                .map(|_| ())
        })
        .expect("the thread lives");
    }

    pub fn commit(&self, events: &[&str], state: &[(&str, Option<&str>)]) -> Position {
        let position = self.journal.append(outcome(events, state));
        self.wait(position);
        position
    }

    pub fn health(&self, is: impl FnMut(&Health) -> bool) -> Health {
        block_on(async { self.journal.health().wait_for(is).await.unwrap().clone() })
    }

    pub fn read(&self, after: Cursor) -> Vec<Entry> {
        self.journal.read_after_blocking(after, ALL).unwrap()
    }

    pub fn read_all(&self) -> Vec<Entry> {
        self.read(Cursor::default())
    }

    pub fn state(&self) -> Vec<(String, String)> {
        let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).unwrap();
        self.recovered
            .state
            .iter()
            .map(|(key, value)| (text(key), text(value)))
            .collect()
    }

    pub fn close(self) {
        block_on(self.journal.close());
        self.running.ended.blocking_recv().unwrap().unwrap();
    }

    /// The machine loses its power.
    pub fn power_cut(self, disk: &Simulated, random: &mut fastrand::Rng) {
        disk.power_cut(random);
        self.gone();
    }

    /// The process dies.
    pub fn kill(self, disk: &Simulated) {
        disk.kill();
        self.gone();
    }

    pub fn gone(self) {
        drop(self.journal);
        drop(self.running.ended.blocking_recv());
    }
}

pub fn segment_files(disk: &Simulated) -> Vec<PathBuf> {
    disk.paths()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|it| it == "seg"))
        .collect()
}

/// The segment file whose header has the highest number, and that number.
pub fn newest_segment(disk: &Simulated) -> PathBuf {
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

pub fn damage(disk: &Simulated, path: &Path, at: usize, count: usize) {
    let mut bytes = disk.content(path).unwrap();
    for byte in &mut bytes[at..at + count] {
        *byte ^= 0x55;
    }
    disk.put_content(path, Some(bytes));
}

/// Appends events of 20 KB, numbered, until `stop` says so.
pub fn fill(open: &Open, count: usize) {
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
pub fn account(entries: &[Entry]) -> (Vec<u64>, Vec<(u64, u64)>) {
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
pub fn assert_no_gap(entries: &[Entry]) {
    let (read, told) = account(entries);
    let last = *read.last().unwrap();
    for sequence in 1..=last {
        let known = read.binary_search(&sequence).is_ok()
            || told.iter().any(|(from, to)| (*from..=*to).contains(&sequence));
        assert!(known, "nobody knows what became of {sequence}: {told:?}");
    }
}

/// Where frames begin in a segment.
pub const FRAMES: usize = 128;

/// The offsets of the frames of a segment that was used once, and where they end.
pub fn frames(bytes: &[u8]) -> Vec<usize> {
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

pub fn says(open: &Open, name: &str) -> Vec<Entry> {
    open.read_all()
        .into_iter()
        .filter(|entry| &*entry.event.draft.name == name)
        .collect()
}

/// All that is to be read, old epochs too.
pub fn everything(open: &Open) -> Vec<Entry> {
    let mut all: Vec<Entry> = Vec::new();
    loop {
        let more = open.read(all.last().map(cursor_at).unwrap_or_default());
        if more.is_empty() {
            return all;
        }
        all.extend(more);
    }
}
