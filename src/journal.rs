//! The journal: one log, one flush, and nothing leaves before it is on the disk.
//!
//! What it promises:
//!
//! - A commit (events and the state they came from) is there whole or not at all after any crash.
//! - [`Journal::append`] never waits and never fails for lack of room. [`Journal::durable`] moves when the
//!   disk has it; readers never see past it.
//! - A [`Sequence`] is assigned in the write that stores its event, in order, and never twice. One that does
//!   not come is named by an `EventsDiscarded`.
//! - After a failed write or flush nothing is believed: the thread ends, and [`Running`] says why.
//! - No bytes found on the disk make it panic. Memory does not grow with the backlog.
//!
//! What it does not do: it knows no transport, retries no write, keeps no event in memory after it is written,
//! and reads no backlog at opening.
//!
//! The format, in short (docs/journal-format.md has every byte): segments of a fixed length are written with
//! zeros once, filled front to back with checked frames, and used again with a new salt. Frames form commits,
//! commits form write groups; group n+1 is written after group n is on the disk, so bad bytes with a later
//! group behind them are damage, and all others a torn tail. Two snapshot slots hold state and cursors, so
//! that only the frames after the newest are replayed.
//!
//! A position is `ticket << 16 | index`: `append` hands out the ticket, and what the writer itself inserts
//! goes between the last index of one ticket and the next ticket.

use std::{
    any::Any,
    collections::{BTreeMap, VecDeque},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use tokio::sync::{oneshot, watch};

use crate::{
    event::{Draft, Entry, Epoch, Origin, Position, Sequence, SinkName, Transition},
    rule::state::Outcome,
    time::{BootId, Clock, EngineTime, KnownBoot, Moment},
};

use self::{boots::Boots, dead::Trays, discards::Gaps, read::Catalog, room::Room, storage::Storage};

mod boots;
mod dead;
mod discards;
mod frame;
mod identity;
pub mod inspect;
mod opening;
mod read;
mod recovery;
mod retention;
mod room;
mod segment;
mod snapshot;
#[doc(hidden)]
pub mod storage;
mod thread;
#[cfg(test)]
mod trial;
mod writer;

pub use dead::{DeadLetter, Full, Refused, Untold};
pub use retention::room_for_events;
#[doc(hidden)]
pub use thread::Stepped;

/// What `[journal]` says.
#[derive(Clone, Debug, PartialEq)]
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
    /// Where it ended when it was opened: what opening itself has to tell comes behind it.
    pub end: Position,
    /// Whether the journal was closed by a clean stop (true for a new one).
    pub clean: bool,
    /// What to tell in `GatewayStarted`: one line per thing found, empty if all was well.
    pub findings: Vec<String>,
    /// When something was stored last, if that was in this boot and nobody vouched for the wall clock.
    pub unsynchronised: Option<Moment>,
}

/// A sink's place: forward only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// All up to here is confirmed or passed over.
    pub position: Position,
    /// The highest sequence at or below it; 0 where a chain starts.
    pub sequence: Sequence,
    /// The highest of them that passed this sink's filter, or was lost before it could be judged (for
    /// `previoussequence`).
    pub passed: Sequence,
    /// The first number of a chain that starts within an epoch and of which nothing has passed yet: what is below is
    /// not its business. Else 0.
    pub began: Sequence,
}

impl Cursor {
    /// Right behind an event that passed.
    #[must_use]
    pub fn behind(entry: &Entry) -> Self {
        Self {
            position: entry.position,
            sequence: entry.sequence,
            passed: entry.sequence,
            ..Self::default()
        }
    }

    /// Whether its filter left out what it read last: no `previoussequence` explains that yet.
    pub(crate) fn leaves_out(&self) -> bool {
        self.passed < self.sequence
    }

    /// From where on nothing is explained.
    pub(crate) fn unexplained_from(&self) -> u64 {
        self.began.0.max(self.passed.0 + 1)
    }

    /// All up to here is behind it, in its epoch.
    pub(crate) fn behind_it(&self) -> u64 {
        self.sequence.0.max(self.began.0.saturating_sub(1))
    }

    /// Where a chain starts: nothing was given to the sink before.
    #[must_use]
    pub fn start(position: Position) -> Self {
        Self {
            position,
            ..Self::default()
        }
    }

    /// The same, and it is known which number is the newest there.
    #[must_use]
    pub fn start_behind(position: Position, newest: Sequence) -> Self {
        Self {
            began: Sequence(newest.0 + 1),
            ..Self::start(position)
        }
    }
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
    /// Up to here nothing is kept any more, of this epoch.
    pub gone: Sequence,
    /// Bytes of events that some sink has yet to deliver.
    pub undelivered_bytes: u64,
    /// What these can grow to: the rule state and a spare segment take room, too.
    pub room_bytes: u64,
    /// Bytes in the directory.
    pub used_bytes: u64,
    /// Commits that were refused because the journal is too small for them.
    pub refused: u64,
}

impl Health {
    /// How many events a sink that has all up to `delivered` is behind: those that were discarded will not come.
    #[must_use]
    pub fn behind(&self, delivered: Sequence) -> u64 {
        self.last.0.saturating_sub(delivered.max(self.gone).0)
    }
}

/// A failure to open the journal. Each names the act and the thing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operation on a file failed.
    #[error("could not {act} {}: {source}{}", path.display(), remedy(source))]
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

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => ": mount it read-write, or give `[journal] dir` another place",
        io::ErrorKind::PermissionDenied => ": the gateway's user must be allowed to write there",
        io::ErrorKind::StorageFull => ": make room on that disk, or give `[journal] dir` another place",
        _ => "",
    }
}

/// A running journal: a cheap handle, shared by all. The files belong to its thread, which ends after
/// [`Journal::close`], after a failure, and when the last handle is gone.
#[derive(Clone, Debug)]
pub struct Journal(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    dir: PathBuf,
    catalog: Arc<Catalog>,
    durable: watch::Receiver<Position>,
    health: watch::Receiver<Health>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.queue().end.get_or_insert(End::Abandon);
        self.shared.wake.notify_all();
    }
}

impl Journal {
    /// Opens or makes the journal, recovers, starts its thread. Blocking (a start may). The handle that
    /// resolves when the thread ends: `Err` after a failed write or flush (fail-stop).
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] if another process has it; [`Error::Io`] if the directory cannot be made, read,
    /// written or moved aside. Damaged content is no error.
    pub fn open(
        settings: &Settings,
        owner: Owner,
        clock: Clock,
    ) -> Result<(Self, Recovered, Running), Error> {
        Self::open_on(Arc::new(storage::Disk), settings, owner, clock)
    }

    /// Opens a journal on another storage than the machine's: for tests.
    ///
    /// # Errors
    ///
    /// As [`Journal::open`].
    #[doc(hidden)]
    pub fn open_on(
        storage: Arc<dyn Storage>,
        settings: &Settings,
        owner: Owner,
        clock: Clock,
    ) -> Result<(Self, Recovered, Running), Error> {
        // Not by a clock: a card that is put back again and again draws another one each time.
        let draw = || getrandom::u64().map_err(|error| io::Error::other(error.to_string()));
        let (journal, recovered, turns) = Self::recover(storage, settings, owner, clock, draw)?;
        let (ended_sender, ended) = oneshot::channel();
        let started = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || {
                let end = thread::run(turns);
                // Nobody may be left who wants to know.
                drop(ended_sender.send(end));
            });
        started.map_err(recovery::at("start the thread of", &settings.dir))?;
        Ok((journal, recovered, Running { ended }))
    }

    /// Opens a journal without a thread, and draws an epoch as all else is drawn: for a simulation.
    ///
    /// # Errors
    ///
    /// As [`Journal::open`].
    #[doc(hidden)]
    pub fn open_stepped(
        storage: Arc<dyn Storage>,
        settings: &Settings,
        owner: Owner,
        clock: Clock,
    ) -> Result<(Self, Recovered, Stepped), Error> {
        let draw = || Ok(fastrand::u64(..));
        let (journal, recovered, turns) = Self::recover(storage, settings, owner, clock, draw)?;
        Ok((journal, recovered, Stepped::new(turns)))
    }

    fn recover(
        storage: Arc<dyn Storage>,
        settings: &Settings,
        owner: Owner,
        clock: Clock,
        draw: opening::Draw,
    ) -> Result<(Self, Recovered, thread::Turns), Error> {
        let dir = &settings.dir;
        make(&*storage, dir).map_err(recovery::at("make", dir))?;
        let lock = lock(&*storage, dir)?;
        let (mut writer, recovered) = opening::open(storage, settings, owner, clock, draw)?;
        writer.lock = Some(writer::Lock::new(lock));
        let (health_sender, health) = watch::channel(writer.health(0, false));
        let handle = Handle {
            shared: Arc::clone(&writer.shared),
            dir: writer.dir.clone(),
            catalog: Arc::clone(&writer.catalog),
            durable: writer.durable.subscribe(),
            health,
        };
        let turns = thread::Turns::new(writer, health_sender);
        Ok((Self(Arc::new(handle)), recovered, turns))
    }

    /// Hands over one commit, all or nothing; returns its position at once. Never blocks, never fails for lack
    /// of room. After the thread has ended the position never becomes durable. Nor does the position of a commit
    /// that no journal of this size can hold, or that would take the state over its quarter: it is refused, alone,
    /// logged and counted ([`Health::refused`]).
    pub fn append(&self, outcome: Outcome) -> Position {
        self.offer(outcome).unwrap_or(NEVER)
    }

    /// The same, and gives back what is refused.
    ///
    /// # Errors
    ///
    /// The outcome, of which nothing is kept.
    pub fn offer(&self, outcome: Outcome) -> Result<Position, Outcome> {
        self.0.shared.offer(outcome)
    }

    /// Appends an event of the gateway's own, alone.
    pub fn record(&self, draft: Draft) -> Position {
        self.append(Outcome {
            events: vec![draft],
            ..Outcome::default()
        })
    }

    /// The wall clock is right: from when this is durable on, readers get the times of this boot's events as they
    /// were, those that nobody vouched for when they were stored. The `event` that tells it is in the same commit.
    pub fn synchronised(&self, now: Moment, event: Option<Draft>) -> Position {
        let shared = &self.0.shared;
        let archived = shared
            .archives()
            .into_iter()
            .map(|old| old.catalog.oldest_after());
        let gone = archived.chain([self.0.catalog.oldest_after()]).min();
        let newest = shared.queue().newest;
        self.append(Outcome {
            events: event.into_iter().collect(),
            state: shared.boots.changes(now, newest, gone.unwrap_or_default()),
            ..Outcome::default()
        })
    }

    /// When the wall clock of a boot was known to be right, as far as that is on the disk.
    pub fn known_boot(&self, boot: BootId) -> Option<KnownBoot> {
        self.0.shared.boots.get(boot)
    }

    /// What the disk has: moves after fdatasync, never back. Closed when the thread has ended.
    pub fn durable(&self) -> watch::Receiver<Position> {
        self.0.durable.clone()
    }

    /// What the journal is doing; changes at least once a second while it lives.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.0.health.clone()
    }

    /// Where a sink begins. `sequence` is 0 where a chain starts: a new sink, a new epoch. One that was never
    /// configured begins at the end.
    pub fn cursor(&self, sink: &SinkName) -> Cursor {
        let known = self.0.shared.cursors().get(sink).copied();
        let cursor = known.unwrap_or_else(|| Cursor::start(*self.0.durable.borrow()));
        let begun = cursor.position > self.0.shared.base;
        // At the very end of one: what its filter left out there may be owed yet.
        let ends = |old: &Archive| old.catalog.last() == cursor.position && cursor.leaves_out();
        let mut archives = self.0.shared.archives().into_iter();
        let owed_old = archives.any(|old| old.catalog.last() > cursor.position || ends(&old));
        if begun || owed_old {
            cursor
        } else {
            Cursor::start(cursor.position)
        }
    }

    /// Moves a sink's cursor; lazily durable. Going back changes nothing.
    pub fn acknowledge(&self, sink: &SinkName, through: Cursor) {
        self.0.shared.acknowledge(self.0.catalog.epoch, sink, through);
    }

    /// Moves a sink's cursor back to `position`, or to the oldest event that is kept, and starts its chain anew. Where
    /// the sink has yet to come to that one, it stays where it is: it is still to be told what it lost. Nobody
    /// may forward to this sink meanwhile. `true`: it is on the disk.
    pub async fn replay(&self, sink: &SinkName, position: Position) -> bool {
        let shared = &self.0.shared;
        let before = self.cursor(sink);
        let archived = shared
            .archives()
            .into_iter()
            .map(|old| old.catalog.oldest_after());
        let oldest = archived.chain([self.0.catalog.oldest_after()]).min();
        let mut cursor = Cursor::start(position.max(oldest.unwrap_or_default()));
        if position <= before.position && before.position < cursor.position {
            return true;
        }
        let one = Limit { entries: 1, bytes: 1 };
        let next = self.read_after(cursor, one).await.unwrap_or_default();
        if cursor.position > Position(0)
            && let Some(next) = next.first()
        {
            cursor.began = next.sequence;
        }
        shared.cursors().insert(sink.clone(), cursor);
        self.cursors_written().await
    }

    /// Forgets the cursor of a sink that is not configured. `true`: that is on the disk.
    pub async fn forget(&self, sink: &SinkName) -> bool {
        self.0.shared.cursors().remove(sink);
        self.0.shared.gaps.forget(sink);
        self.append(Outcome {
            state: vec![dead::nothing_told(sink)],
            ..Outcome::default()
        });
        self.cursors_written().await
    }

    /// The sinks that have a cursor, configured or not.
    pub fn sinks(&self) -> Vec<SinkName> {
        self.0.shared.cursors().keys().cloned().collect()
    }

    /// Writes the cursors as they are now. `false`: there is no room, or the journal has stopped.
    async fn cursors_written(&self) -> bool {
        let mut health = self.0.health.clone();
        let before = health.borrow_and_update().pulse;
        let shared = &self.0.shared;
        shared.queue().moves += CURSOR_EVENTS;
        shared.wake();
        // The turn that may be under way took the cursors as they were; the next one has these.
        let written = health.wait_for(|health| health.pulse >= before + 2);
        written.await.is_ok_and(|health| !health.parked)
    }

    /// From now on events are stamped with `origin` (the same gateway's), and these are the configured sinks. A sink
    /// that is new begins where its plan says; one that was configured before goes on at its cursor, which is kept.
    /// Where a new one begins is on the disk as soon as anything that is appended from now on is.
    pub fn reconfigure(&self, origin: Arc<Origin>, sinks: Vec<SinkPlan>) {
        let shared = &self.0.shared;
        {
            let segments = self.0.catalog.segments();
            let none = Cursor::start(shared.base);
            let oldest = segments.first().map_or(none, |first| {
                Cursor::start_behind(first.header.after, first.header.after_sequence)
            });
            let end = segments.last().map_or(none, |last| {
                let (_, position, sequence) = last.filled();
                Cursor::start_behind(position, sequence)
            });
            let mut cursors = shared.cursors();
            for plan in &sinks {
                let start = if plan.from_oldest { oldest } else { end };
                cursors.entry(plan.name.clone()).or_insert(start);
            }
        }
        *shared.origin.write().unwrap_or_else(PoisonError::into_inner) = origin;
        *shared.sinks.write().unwrap_or_else(PoisonError::into_inner) = sinks.into();
        shared.queue().moves += CURSOR_EVENTS;
        shared.wake();
    }

    /// Commits what is waiting and a `closed` frame; then the thread ends. What is parked for lack of room
    /// cannot be committed: nobody was told that it was.
    pub async fn close(&self) {
        self.0.shared.queue().end = Some(End::Close);
        self.0.shared.wake.notify_all();
        let mut durable = self.0.durable.clone();
        while durable.changed().await.is_ok() {}
    }
}

/// Makes a directory whose name, and its parents' names, survive a power cut.
fn make(storage: &dyn Storage, dir: &Path) -> io::Result<()> {
    let made = dir.ancestors().skip(1).take_while(|dir| !storage.is_dir(dir));
    let made: Vec<&Path> = made.filter(|dir| !dir.as_os_str().is_empty()).collect();
    storage.create_dir(dir)?;
    // Its own name in any case: a start before this one may have made it and got no further.
    for name in made.into_iter().rev().chain([dir]) {
        let parent = name.parent().filter(|parent| !parent.as_os_str().is_empty());
        storage.sync_dir(parent.unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

/// Ends the epoch of the journal in `dir`, which nobody may use: the next start begins another one. What the old one
/// owes is delivered under its own identity. For a card that was put back to an old image: the numbers that were given
/// out since the image would come again.
///
/// # Errors
///
/// [`Error::Locked`] if a process has the journal; [`Error::Io`] if there is none, or it cannot be written.
pub fn end_epoch(dir: &Path) -> Result<Epoch, Error> {
    let none = || io::Error::new(io::ErrorKind::NotFound, "there is none to end");
    if !dir.join("current").is_dir() {
        return Err(recovery::at("find an epoch in", dir)(none()));
    }
    let _lock = lock(&storage::Disk, dir)?;
    let ended = opening::end_epoch(&storage::Disk, dir)?;
    ended.ok_or_else(|| recovery::at("find an epoch in", dir)(none()))
}

fn lock(storage: &dyn Storage, dir: &Path) -> Result<Box<dyn Any + Send>, Error> {
    let path = dir.join("lock");
    storage.lock(&path).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => Error::Locked {
            dir: dir.to_owned(),
            pid: error.to_string(),
        },
        _ => recovery::at("lock", &path)(error),
    })
}

/// Resolves when the journal thread has ended, and why.
#[derive(Debug)]
pub struct Running {
    /// `Ok` after `close`; `Err` says what failed. Dropped by a panic: the process must end too.
    pub ended: oneshot::Receiver<Result<(), Error>>,
}

/// An earlier epoch's directory.
#[derive(Clone, Debug)]
struct Archive {
    dir: PathBuf,
    catalog: Arc<Catalog>,
}

/// What the handles and the thread share.
#[derive(Debug)]
struct Shared {
    origin: RwLock<Arc<Origin>>,
    clock: Clock,
    boots: Boots,
    dead: Trays,
    gaps: Gaps,
    max_bytes: u64,
    sinks: RwLock<Arc<[SinkPlan]>>,
    /// The last position of the epochs before.
    base: Position,
    state_delay: Duration,
    cursors: Mutex<BTreeMap<SinkName, Cursor>>,
    archives: RwLock<Vec<Archive>>,
    queue: Mutex<Queue>,
    wake: Condvar,
}

/// What waits for the thread. It is bounded by who feeds it: the engine takes no delivery while the journal is
/// parked, and at most its own intake otherwise.
#[derive(Debug, Default)]
struct Queue {
    commits: VecDeque<(Position, Outcome)>,
    /// The last ticket that was handed out.
    ticket: u64,
    /// The position of the last commit that was handed over.
    newest: Position,
    /// When the oldest waiting commit came.
    since: Option<EngineTime>,
    /// An event waits, or somebody wants the thread to look.
    urgent: bool,
    end: Option<End>,
    /// When the oldest cursor's move came that may not be written yet, and how many events they have passed.
    moved_since: Option<EngineTime>,
    moves: u64,
    parked: bool,
    room: Room,
    refused: u64,
    /// When it was last said that a commit is refused.
    complained: Option<EngineTime>,
}

/// The position of what is refused.
const NEVER: Position = Position::NEVER;

/// Why the thread shall end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// A clean stop.
    Close,
    /// No handle is left.
    Abandon,
}

/// How often it is said, while it goes on, that commits are refused.
const COMPLAINT: Duration = Duration::from_mins(1);

/// Cursors' moves alone are written when they have passed so many events, but not sooner than so long after the first
/// of them: a backlog on its way out moves them thousands of times a second, and an alarm's commit would wait for each
/// of those flushes.
const CURSOR_EVENTS: u64 = 100;
const CURSOR_PAUSE: Duration = Duration::from_millis(250);
/// Fewer wait so long for a commit to ride on: by themselves they cost the card as much as an event does. After a crash
/// these few are delivered again.
const CURSOR_DELAY: Duration = Duration::from_mins(2);

impl Shared {
    fn cursors(&self) -> MutexGuard<'_, BTreeMap<SinkName, Cursor>> {
        self.cursors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plans(&self) -> Arc<[SinkPlan]> {
        Arc::clone(&self.sinks.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn origin(&self) -> Arc<Origin> {
        Arc::clone(&self.origin.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn archives(&self) -> Vec<Archive> {
        self.archives
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn forget_archive(&self, epoch: Epoch) {
        let mut archives = self.archives.write().unwrap_or_else(PoisonError::into_inner);
        archives.retain(|archive| archive.catalog.epoch != epoch);
    }

    fn wake(&self) {
        self.queue().urgent = true;
        self.wake.notify_all();
    }

    fn offer(&self, outcome: Outcome) -> Result<Position, Outcome> {
        let bytes = room::size(&outcome, &self.origin());
        let mut queue = self.queue();
        let events = outcome.events.len() as u64;
        if events == 0 && outcome.state.is_empty() {
            return Ok(queue.newest);
        }
        let raises = |draft: &Draft| draft.transition == Some(Transition::Raised);
        let begins = outcome.events.iter().any(raises);
        if let Err(refusal) = queue.room.take(bytes, &outcome.state, begins) {
            queue.refused += 1;
            let now = self.clock.now();
            if queue.complained.is_none_or(|at| now.since(at) >= COMPLAINT) {
                queue.complained = Some(now);
                let refused = queue.refused;
                drop(queue);
                tracing::error!(name: "CommitRefused", refused, reason = %refusal, "a commit is refused");
            }
            return Err(outcome);
        }
        queue.ticket += 1;
        let before = Position(queue.ticket << 16);
        queue.newest = Position(before.0 + events);
        // More events than an index counts take the tickets behind theirs, too.
        queue.ticket = queue.newest.0 >> 16;
        queue.urgent |= events > 0;
        if queue.commits.is_empty() {
            queue.since = Some(self.clock.now());
        }
        queue.commits.push_back((before, outcome));
        let newest = queue.newest;
        drop(queue);
        self.wake.notify_all();
        Ok(newest)
    }

    fn acknowledge(&self, current: Epoch, sink: &SinkName, through: Cursor) {
        let before = {
            let mut cursors = self.cursors();
            let cursor = cursors.entry(sink.clone()).or_default();
            if through <= *cursor {
                return;
            }
            std::mem::replace(cursor, through)
        };
        let events = self.weight(current, sink, before, through);
        let mut queue = self.queue();
        if queue.moved(events, self.clock.now()) {
            drop(queue);
            self.wake.notify_all();
        }
    }
}
