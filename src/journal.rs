//! The journal: (being written; this is the interface the others build on).

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{
    event::{Draft, Entry, Epoch, Origin, Position, Sequence, SinkName},
    rule::state::Outcome,
    time::Clock,
};

/// What `[journal]` says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The directory; made if missing.
    pub dir: PathBuf,
    /// Everything the journal may occupy; at least 8 MiB.
    pub max_bytes: u64,
    /// Events older than this go.
    pub max_age: Option<Duration>,
    /// What to do when it is full.
    pub when_full: WhenFull,
    /// How long a commit with state changes only may wait to share a write.
    pub state_delay: Duration,
}

/// What to do when undelivered events fill the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// Recycle the oldest, and say so.
    #[default]
    DropOldest,
    /// Park: take nothing more until there is room.
    Refuse,
}

/// Who the journal belongs to: another one begins a new epoch.
#[derive(Clone, Debug)]
pub struct Owner {
    /// Stamped into every event; `origin.gateway` is part of the identity.
    pub origin: Arc<Origin>,
    /// /etc/machine-id, or empty.
    pub machine_id: String,
    /// The board's serial number, or empty.
    pub board_serial: String,
    /// The configured sinks: (name, required, from "oldest").
    pub sinks: Vec<SinkPlan>,
}

/// A configured sink, as the journal needs to know it.
#[derive(Clone, Debug)]
pub struct SinkPlan {
    /// Its name.
    pub name: SinkName,
    /// Whether its undelivered events may park the journal under `refuse`.
    pub required: bool,
    /// Whether a sink added later starts at the oldest event (else at the end).
    pub from_oldest: bool,
}

/// What opening found.
#[derive(Debug)]
pub struct Recovered {
    /// The state, key to bytes.
    pub state: Vec<(Vec<u8>, Vec<u8>)>,
    /// The epoch.
    pub epoch: Epoch,
    /// The oldest event kept, and the newest ever assigned.
    pub first: Sequence,
    /// The newest ever assigned.
    pub last: Sequence,
    /// Whether the journal was closed by a clean stop (true for a new one).
    pub clean: bool,
    /// What to tell in `GatewayStarted`: one line per thing found, empty if all was well.
    pub findings: Vec<String>,
}

/// A sink's place: forward only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// All up to here is confirmed or passed over.
    pub position: Position,
    /// The highest sequence at or below it that passed this sink's filter (for `previoussequence`).
    pub sequence: Sequence,
}

/// How much to read at once.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// At most so many entries.
    pub entries: usize,
    /// At most about so many bytes.
    pub bytes: usize,
}

/// What the journal is doing, for the status line, heartbeats and the watchdog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Grows with every turn of the journal thread (at least once a second).
    pub pulse: u64,
    /// Nothing more is taken until there is room.
    pub parked: bool,
    /// The newest sequence on the disk.
    pub last: Sequence,
    /// Undelivered bytes and all bytes.
    pub undelivered_bytes: u64,
    /// Bytes in the directory.
    pub used_bytes: u64,
}

/// A failure to open the journal. Each names the act and the thing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operation on a file failed.
    #[error("could not {act} {}: {source}", path.display())]
    Io {
        /// What was attempted, as a verb.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process has it.
    #[error("the journal {} is in use by process {pid}: stop that one, or give this one another `[journal] dir`", dir.display())]
    Locked {
        /// Which journal.
        dir: PathBuf,
        /// By whom.
        pid: String,
    },
    /// The journal has stopped: after a failed flush nothing is believed.
    #[error("the journal has stopped: {0}")]
    Stopped(String),
}

/// A running journal: a cheap handle, shared by all. The files belong to its thread.
#[derive(Clone, Debug)]
pub struct Journal {}

#[expect(clippy::unused_async, clippy::missing_errors_doc, clippy::todo, unused_variables, reason = "being written")]
impl Journal {
    /// Opens or makes the journal, recovers, starts its thread. Blocking (a start may). The handle that
    /// resolves when the thread ends: `Err` after a failed write or flush (fail-stop).
    pub fn open(settings: &Settings, owner: Owner, clock: Clock) -> Result<(Self, Recovered, Running), Error> {
        todo!()
    }
    /// Hands over one commit, all or nothing; returns its position at once. Never blocks, never fails for lack of room.
    pub fn append(&self, outcome: Outcome) -> Position {
        todo!()
    }
    /// Appends an event of the gateway's own, alone.
    pub fn record(&self, draft: Draft) -> Position {
        todo!()
    }
    /// What the disk has: moves after fdatasync, never back. Closed when the thread has ended.
    pub fn durable(&self) -> watch::Receiver<Position> {
        todo!()
    }
    /// What the journal is doing; changes at least once a second while it lives.
    pub fn health(&self) -> watch::Receiver<Health> {
        todo!()
    }
    /// Events after `cursor`, in order, never past `durable`; empty if there is none. An old epoch's
    /// undelivered events come first, under their own epoch.
    pub async fn read_after(&self, cursor: Cursor, limit: Limit) -> Result<Vec<Entry>, Error> {
        todo!()
    }
    /// Where a configured sink begins.
    pub fn cursor(&self, sink: &SinkName) -> Cursor {
        todo!()
    }
    /// Moves a sink's cursor; lazily durable. Going back changes nothing.
    pub fn acknowledge(&self, sink: &SinkName, through: Cursor) {
        todo!()
    }
    /// Commits what is waiting and a `closed` frame; then the thread ends.
    pub async fn close(&self) {
        todo!()
    }
}

/// Resolves when the journal thread has ended, and why.
#[derive(Debug)]
pub struct Running {
    /// `Ok` after `close`; `Err` says what failed. Dropped by a panic: the process must end too.
    pub ended: tokio::sync::oneshot::Receiver<Result<(), Error>>,
}
