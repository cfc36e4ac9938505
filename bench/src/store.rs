//! The same small trait before Tidegate's journal and the stores it was measured against. All of them keep
//! the same events as CBOR: encoded when they are committed, decoded when they are read.

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::ReadableDatabase;
use rusqlite::params;
use tidegate::{
    event::{Data, Draft, Event, Origin, Severity, SinkName},
    journal::{Cursor, Journal, Limit, Owner, Running, Settings, SinkPlan, WhenFull},
    rule::state::Outcome,
    time::{Clock, EngineTime},
};

/// A queue of events on a disk.
pub trait Store {
    /// All of them or none, on the disk when it returns; `delivered`: as many of the oldest are forgotten, and
    /// the reader's place is kept with it.
    fn commit(&mut self, events: &[Event], delivered: Option<u64>);
    /// Reads as many as `limit` after the first `after` and keeps the reader's place, on the disk only if
    /// `durable`. How many came.
    fn drain(&mut self, after: u64, limit: usize, durable: bool) -> usize;
}

/// Tidegate's journal first.
pub const NAMES: [&str; 6] = ["tidegate", "sled", "sled+fdatasync", "redb", "sqlite", "fjall"];

/// Opens one by its name.
///
/// # Panics
///
/// If it cannot be opened.
#[must_use]
pub fn open(name: &str, dir: &Path, max_bytes: u64) -> Box<dyn Store> {
    match name {
        "tidegate" => Box::new(Tidegate::open(dir, max_bytes)),
        "sled" => Box::new(Sled::open(dir, false)),
        "sled+fdatasync" => Box::new(Sled::open(dir, true)),
        "redb" => Box::new(Redb::open(dir)),
        "sqlite" => Box::new(Sqlite::open(dir)),
        "fjall" => Box::new(Fjall::open(dir)),
        other => panic!("no store is called {other}: {NAMES:?}"),
    }
}

/// Memory that a store may use to cache, where it lets itself be told.
const CACHE: usize = 8 << 20;

/// Bytes of an event as CBOR.
pub const EVENT: usize = 400;

/// Events of [`EVENT`] bytes, give or take what a clock reading varies.
///
/// # Panics
///
/// Never: the parts below are shorter.
#[must_use]
pub fn events(count: usize) -> Vec<Event> {
    let mut one = event("");
    let bare = encode(&one).len();
    // Text of 24 to 255 bytes has one more byte of length.
    one = event(&"x".repeat(EVENT - bare - 1));
    assert!(
        encode(&one).len().abs_diff(EVENT) <= 2,
        "{} bytes",
        encode(&one).len()
    );
    vec![one; count]
}

fn event(pad: &str) -> Event {
    let mut data = serde_json::Map::new();
    data.insert("pad".to_owned(), pad.into());
    let clock = Clock::system();
    Event {
        draft: Draft {
            kind: "io.tidegate.gateway.Bench".into(),
            name: "Bench".into(),
            subject: "bench".into(),
            about: "bench".into(),
            severity: Severity::Info,
            at: EngineTime(clock.now().0),
            transition: None,
            correlation: None,
            data: Data::Gateway(data),
        },
        origin: origin(),
        recorded: clock.moment(),
    }
}

fn origin() -> Arc<Origin> {
    Arc::new(Origin {
        gateway: "bench".into(),
        source: "urn:tidegate:gateway:bench".into(),
        labels: std::collections::BTreeMap::default(),
        version: "0".into(),
    })
}

fn encode(event: &Event) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(EVENT + 16);
    ciborium::into_writer(event, &mut bytes).expect("our own types encode");
    bytes
}

fn decode(bytes: &[u8]) -> Event {
    ciborium::from_reader(bytes).expect("what was encoded above")
}

/// Tidegate's own.
pub struct Tidegate {
    journal: Journal,
    running: Running,
    runtime: tokio::runtime::Runtime,
    sink: SinkName,
    /// What was committed and is not delivered, for the cursor.
    places: VecDeque<Cursor>,
    delivered: u64,
    sequence: u64,
    read: Cursor,
}

impl Tidegate {
    /// With room for so many bytes.
    ///
    /// # Panics
    ///
    /// If it cannot be opened.
    #[must_use]
    pub fn open(dir: &Path, max_bytes: u64) -> Self {
        let sink: SinkName = "cloud".parse().expect("a name");
        let settings = Settings {
            dir: dir.to_owned(),
            max_bytes,
            max_age: None,
            when_full: WhenFull::DropOldest,
            state_delay: std::time::Duration::from_millis(250),
        };
        let owner = Owner {
            origin: origin(),
            machine_id: "bench".into(),
            board_serial: String::new(),
            sinks: vec![SinkPlan {
                name: sink.clone(),
                required: true,
                from_oldest: false,
            }],
        };
        let (journal, recovered, running) =
            Journal::open(&settings, owner, Clock::system()).expect("it opens");
        assert!(recovered.findings.is_empty(), "{:?}", recovered.findings);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        Self {
            read: journal.cursor(&sink),
            sequence: recovered.last.0,
            journal,
            running,
            runtime,
            sink,
            places: VecDeque::new(),
            delivered: 0,
        }
    }

    /// A clean stop.
    ///
    /// # Panics
    ///
    /// If the journal has failed.
    pub fn close(self) {
        let Self {
            journal,
            running,
            runtime,
            ..
        } = self;
        runtime.block_on(async {
            journal.close().await;
            running
                .ended
                .await
                .expect("the thread tells")
                .expect("a clean stop");
        });
    }
}

impl Store for Tidegate {
    fn commit(&mut self, events: &[Event], delivered: Option<u64>) {
        if let Some(delivered) = delivered {
            let mut place = None;
            while self.delivered < delivered {
                place = self.places.pop_front();
                self.delivered += 1;
            }
            if let Some(place) = place {
                self.journal.acknowledge(&self.sink, place);
            }
        }
        let events: Vec<Draft> = events.iter().map(|event| event.draft.clone()).collect();
        let count = events.len() as u64;
        let position = self.journal.append(Outcome {
            events,
            ..Outcome::default()
        });
        for index in 1..=count {
            self.sequence += 1;
            let mut place = Cursor {
                position,
                sequence: tidegate::event::Sequence(self.sequence),
                passed: tidegate::event::Sequence(self.sequence),
                ..Cursor::default()
            };
            place.position.0 -= count - index;
            self.places.push_back(place);
        }
        let mut durable = self.journal.durable();
        self.runtime
            .block_on(durable.wait_for(|durable| *durable >= position))
            .expect("the journal runs");
    }

    fn drain(&mut self, _after: u64, limit: usize, _durable: bool) -> usize {
        let limit = Limit {
            entries: limit,
            bytes: 1 << 20,
        };
        let entries = self
            .journal
            .read_after_blocking(self.read, limit)
            .expect("it reads");
        if let Some(last) = entries.last() {
            self.read = Cursor::behind(last);
            // It is durable when the journal says so: lazily, as in the product.
            self.journal.acknowledge(&self.sink, self.read);
        }
        entries.len()
    }
}

struct Sled {
    tree: sled::Tree,
    places: sled::Tree,
    database: sled::Db,
    /// sled's `flush` is not a flush on Linux (spacejam/sled#1452): with this, ours is.
    file: Option<fs::File>,
    next: u64,
    delivered: u64,
}

impl Sled {
    fn open(dir: &Path, fdatasync: bool) -> Self {
        let database = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE as u64)
            .flush_every_ms(None)
            .open()
            .expect("it opens");
        let file = fdatasync.then(|| fs::File::open(dir.join("db")).expect("sled's file"));
        let tree = database.open_tree("events").expect("a tree");
        let next = tree.last().expect("it reads").map_or(0, |(key, _)| number(&key));
        Self {
            places: database.open_tree("places").expect("a tree"),
            tree,
            database,
            file,
            next,
            delivered: 0,
        }
    }

    fn flush(&self) {
        self.database.flush().expect("flushed");
        if let Some(file) = &self.file {
            file.sync_data().expect("flushed");
        }
    }
}

fn number(key: &[u8]) -> u64 {
    u64::from_be_bytes(key.try_into().expect("our own keys"))
}

impl Store for Sled {
    fn commit(&mut self, events: &[Event], delivered: Option<u64>) {
        let mut batch = sled::Batch::default();
        for event in events {
            self.next += 1;
            batch.insert(&self.next.to_be_bytes(), encode(event));
        }
        for gone in self.delivered + 1..=delivered.unwrap_or(0) {
            batch.remove(&gone.to_be_bytes());
        }
        if let Some(delivered) = delivered {
            self.delivered = delivered;
            self.places
                .insert("cloud", &delivered.to_be_bytes())
                .expect("inserted");
        }
        self.tree.apply_batch(batch).expect("applied");
        self.flush();
    }

    fn drain(&mut self, after: u64, limit: usize, durable: bool) -> usize {
        let mut last = None;
        let mut count = 0;
        for entry in self.tree.range((after + 1).to_be_bytes()..).take(limit) {
            let (key, value) = entry.expect("it reads");
            std::hint::black_box(decode(&value));
            last = Some(key);
            count += 1;
        }
        if let Some(last) = last {
            self.places.insert("cloud", last).expect("inserted");
        }
        if durable {
            self.flush();
        }
        count
    }
}

const EVENTS: redb::TableDefinition<'_, u64, &[u8]> = redb::TableDefinition::new("events");
const PLACES: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("places");

struct Redb {
    database: redb::Database,
    next: u64,
    delivered: u64,
}

impl Redb {
    fn open(dir: &Path) -> Self {
        fs::create_dir_all(dir).expect("a folder");
        let mut builder = redb::Builder::new();
        builder.set_cache_size(CACHE);
        let database = builder.create(dir.join("redb")).expect("it opens");
        let write = database.begin_write().expect("a transaction");
        write.open_table(EVENTS).expect("a table");
        write.open_table(PLACES).expect("a table");
        write.commit().expect("committed");
        Self {
            database,
            next: 0,
            delivered: 0,
        }
    }
}

impl Store for Redb {
    fn commit(&mut self, events: &[Event], delivered: Option<u64>) {
        let write = self.database.begin_write().expect("a transaction");
        {
            let mut table = write.open_table(EVENTS).expect("a table");
            for event in events {
                self.next += 1;
                table
                    .insert(self.next, encode(event).as_slice())
                    .expect("inserted");
            }
            for gone in self.delivered + 1..=delivered.unwrap_or(0) {
                table.remove(gone).expect("removed");
            }
            if let Some(delivered) = delivered {
                self.delivered = delivered;
                write
                    .open_table(PLACES)
                    .expect("a table")
                    .insert("cloud", delivered)
                    .expect("inserted");
            }
        }
        write.commit().expect("committed");
    }

    fn drain(&mut self, after: u64, limit: usize, durable: bool) -> usize {
        let mut count = 0;
        {
            let read = self.database.begin_read().expect("a transaction");
            let table = read.open_table(EVENTS).expect("a table");
            for entry in table.range(after + 1..).expect("a range").take(limit) {
                let (_, value) = entry.expect("it reads");
                std::hint::black_box(decode(value.value()));
                count += 1;
            }
        }
        let mut write = self.database.begin_write().expect("a transaction");
        if !durable {
            write
                .set_durability(redb::Durability::None)
                .expect("a durability");
        }
        write
            .open_table(PLACES)
            .expect("a table")
            .insert("cloud", after + count as u64)
            .expect("inserted");
        write.commit().expect("committed");
        count
    }
}

struct Sqlite {
    connection: rusqlite::Connection,
    next: u64,
    delivered: u64,
}

impl Sqlite {
    fn open(dir: &Path) -> Self {
        fs::create_dir_all(dir).expect("a folder");
        let connection = rusqlite::Connection::open(dir.join("sqlite")).expect("it opens");
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -8192;
                 CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, event BLOB NOT NULL);
                 CREATE TABLE IF NOT EXISTS places (sink TEXT PRIMARY KEY, id INTEGER NOT NULL) WITHOUT ROWID;",
            )
            .expect("tables");
        Self {
            connection,
            next: 0,
            delivered: 0,
        }
    }

    fn place(connection: &rusqlite::Connection, id: u64) {
        let mut put = connection
            .prepare_cached(
                "INSERT INTO places VALUES ('cloud', ?1) ON CONFLICT (sink) DO UPDATE SET id = ?1",
            )
            .expect("prepared");
        put.execute(params![id.cast_signed()]).expect("placed");
    }
}

impl Store for Sqlite {
    fn commit(&mut self, events: &[Event], delivered: Option<u64>) {
        let write = self.connection.transaction().expect("a transaction");
        {
            let mut insert = write
                .prepare_cached("INSERT INTO events VALUES (?1, ?2)")
                .expect("prepared");
            for event in events {
                self.next += 1;
                insert
                    .execute(params![self.next.cast_signed(), encode(event)])
                    .expect("inserted");
            }
            if let Some(delivered) = delivered {
                let mut remove = write
                    .prepare_cached("DELETE FROM events WHERE id <= ?1")
                    .expect("prepared");
                remove.execute(params![delivered.cast_signed()]).expect("removed");
                self.delivered = delivered;
                Self::place(&write, delivered);
            }
        }
        write.commit().expect("committed");
    }

    fn drain(&mut self, after: u64, limit: usize, durable: bool) -> usize {
        let mut count = 0;
        {
            let mut read = self
                .connection
                .prepare_cached("SELECT event FROM events WHERE id > ?1 ORDER BY id LIMIT ?2")
                .expect("prepared");
            let mut rows = read
                .query(params![after.cast_signed(), i64::try_from(limit).expect("small")])
                .expect("it reads");
            while let Some(row) = rows.next().expect("it reads") {
                let bytes = row.get_ref(0).expect("a column").as_blob().expect("bytes");
                std::hint::black_box(decode(bytes));
                count += 1;
            }
        }
        // NORMAL does not flush the WAL at a commit; FULL does.
        let mode = if durable { "FULL" } else { "NORMAL" };
        self.connection
            .pragma_update(None, "synchronous", mode)
            .expect("a pragma");
        Self::place(&self.connection, after + count as u64);
        count
    }
}

struct Fjall {
    database: fjall::Database,
    events: fjall::Keyspace,
    places: fjall::Keyspace,
    next: u64,
    delivered: u64,
}

impl Fjall {
    fn open(dir: &Path) -> Self {
        let database = fjall::Database::builder(dir)
            .cache_size(CACHE as u64)
            .open()
            .expect("it opens");
        let keyspace = |name: &str| {
            database
                .keyspace(name, fjall::KeyspaceCreateOptions::default)
                .expect("a keyspace")
        };
        Self {
            events: keyspace("events"),
            places: keyspace("places"),
            database,
            next: 0,
            delivered: 0,
        }
    }
}

impl Store for Fjall {
    fn commit(&mut self, events: &[Event], delivered: Option<u64>) {
        let mut batch = self
            .database
            .batch()
            .durability(Some(fjall::PersistMode::SyncData));
        for event in events {
            self.next += 1;
            batch.insert(&self.events, self.next.to_be_bytes(), encode(event));
        }
        for gone in self.delivered + 1..=delivered.unwrap_or(0) {
            batch.remove(&self.events, gone.to_be_bytes());
        }
        if let Some(delivered) = delivered {
            self.delivered = delivered;
            batch.insert(&self.places, "cloud", delivered.to_be_bytes());
        }
        batch.commit().expect("committed");
    }

    fn drain(&mut self, after: u64, limit: usize, durable: bool) -> usize {
        let mut count = 0;
        for entry in self.events.range((after + 1).to_be_bytes()..).take(limit) {
            std::hint::black_box(decode(&entry.value().expect("it reads")));
            count += 1;
        }
        self.places
            .insert("cloud", (after + count as u64).to_be_bytes())
            .expect("inserted");
        if durable {
            self.database
                .persist(fjall::PersistMode::SyncData)
                .expect("flushed");
        }
        count
    }
}

/// A store's folder below `dir`.
#[must_use]
pub fn folder(dir: &Path, name: &str) -> PathBuf {
    dir.join(name)
}
