//! The recorder: recent readings on the disk, for plots and for trying rules out.
//!
//! It keeps what was evaluated, in a directory of its own beside the journal, within a bound of bytes: the oldest goes.
//! It is never in the way: the engine hands over and goes on; when the recorder does not keep up, readings are dropped
//! and counted. Nothing is flushed to the disk: a power cut costs what the system had not yet written, half a minute or
//! so, with a long `commit=` of the mount as long as that, and a kill what waited here, [`EVERY`]. When the disk fails it pauses, says so once, and tries again.
//!
//! Not here: no guarantee rests on what is recorded, and no rule looks at it.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::Duration,
};

use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::{
    reading::Reading,
    time::{Clock, EngineTime},
};

use self::{codec::Encoder, store::Store};

mod codec;
mod read;
mod store;

pub use read::{Damage, Record, read};

/// Deliveries that may wait for the recorder's thread.
const DELIVERIES: usize = 1024;
/// Readings that may wait: a few seconds of a busy gateway, 2 MiB.
const WAITING: usize = 16 * 1024;
/// How long readings are gathered before they are written.
pub const EVERY: Duration = Duration::from_secs(5);
/// Gathered readings are written earlier if they are so many bytes.
const BATCH: usize = 32 * 1024;
/// After a failure it tries again so much later.
const RETRY: Duration = Duration::from_mins(1);

/// What it is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its directory; made if missing.
    pub dir: PathBuf,
    /// Everything that its files may hold.
    pub max_bytes: u64,
}

/// Where the readings of a gateway are whose journal is there.
#[must_use]
pub fn beside(journal: &Path) -> PathBuf {
    let mut name = journal.file_name().unwrap_or_default().to_owned();
    name.push("-readings");
    journal.with_file_name(name)
}

/// What it counted since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Readings written.
    pub readings: u64,
    /// Readings dropped: the thread did not keep up, or the disk failed.
    pub dropped: u64,
    /// Bytes written.
    pub bytes: u64,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: AtomicUsize,
    readings: AtomicU64,
    dropped: AtomicU64,
    bytes: AtomicU64,
}

impl Shared {
    fn counts(&self) -> Counts {
        Counts {
            readings: self.readings.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
        }
    }
}

/// The way in. When it is dropped, what waits is written and the thread ends.
#[derive(Debug)]
pub struct Recorder {
    sender: SyncSender<Batch>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Batch {
    readings: Vec<Reading>,
    now: EngineTime,
}

/// Resolves when the recorder's thread has ended; it never fails.
pub type Ended = oneshot::Receiver<()>;

impl Recorder {
    /// Starts the recorder's thread. It opens its files itself: a disk that fails holds up no start.
    ///
    /// # Errors
    ///
    /// If the system has no thread left.
    pub fn start(settings: Settings, clock: Clock) -> std::io::Result<(Self, Ended)> {
        let (sender, batches) = sync_channel(DELIVERIES);
        let shared = Arc::new(Shared::default());
        let (ended_sender, ended) = oneshot::channel();
        let thread = Thread {
            settings,
            clock,
            shared: Arc::clone(&shared),
            encoder: Encoder::new(),
            store: None,
            failed: None,
            since: None,
        };
        std::thread::Builder::new()
            .name("recorder".to_owned())
            .spawn(move || {
                thread.run(&batches);
                // Nobody may be left who wants to know.
                ended_sender.send(()).ok();
            })?;
        Ok((Self { sender, shared }, ended))
    }

    /// Takes readings that were evaluated at `now`. Never waits.
    pub fn record(&self, readings: Vec<Reading>, now: EngineTime) {
        let count = readings.len();
        if count == 0 {
            return;
        }
        let waiting = self.shared.waiting.fetch_add(count, Relaxed);
        if waiting + count > WAITING || self.sender.try_send(Batch { readings, now }).is_err() {
            self.shared.waiting.fetch_sub(count, Relaxed);
            self.shared.dropped.fetch_add(count as u64, Relaxed);
        }
    }

    /// What it counted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.counts()
    }
}

struct Thread {
    settings: Settings,
    clock: Clock,
    shared: Arc<Shared>,
    encoder: Encoder,
    store: Option<Store>,
    /// When the disk failed last.
    failed: Option<EngineTime>,
    /// Since when readings are gathered.
    since: Option<EngineTime>,
}

impl Thread {
    fn run(mut self, batches: &Receiver<Batch>) {
        loop {
            let now = self.clock.now();
            let wait = self
                .since
                .map_or(EVERY, |since| EVERY.saturating_sub(now.since(since)));
            match batches.recv_timeout(wait) {
                Ok(batch) => self.take(&batch),
                Err(RecvTimeoutError::Timeout) => self.write(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.write();
        self.tell("the recorder has stopped");
    }

    fn take(&mut self, batch: &Batch) {
        let count = batch.readings.len();
        self.shared.waiting.fetch_sub(count, Relaxed);
        if !self.is_open() {
            self.shared.dropped.fetch_add(count as u64, Relaxed);
            return;
        }
        for reading in &batch.readings {
            self.encoder.push(reading, batch.now);
        }
        let now = self.clock.now();
        let since = *self.since.get_or_insert(now);
        if self.encoder.waiting() >= BATCH || now.since(since) >= EVERY {
            self.write();
        }
    }

    /// Whether there is a file to write to; opens one if it is time.
    fn is_open(&mut self) -> bool {
        if self.store.is_some() {
            return true;
        }
        let now = self.clock.now();
        if self.failed.is_some_and(|failed| now.since(failed) < RETRY) {
            return false;
        }
        let opened = Store::open(&self.settings.dir, self.settings.max_bytes).and_then(|mut store| {
            if store.is_full() {
                store.roll()?;
            }
            Ok(store)
        });
        match opened {
            Ok(store) => {
                if self.failed.take().is_some() {
                    info!(name: "RecorderResumed", "the recorder goes on");
                }
                // Who wrote before numbered otherwise.
                self.encoder.anew();
                self.store = Some(store);
                true
            }
            Err(error) => {
                self.pause(&error);
                false
            }
        }
    }

    fn write(&mut self) {
        self.since = None;
        let Some((frame, count)) = self.encoder.frame(&self.clock.moment()) else {
            return;
        };
        let written = match &mut self.store {
            Some(store) => store.append(&frame).and_then(|()| {
                // What comes next is numbered anew, so the frame had to be out before.
                let full = store.is_full();
                if full {
                    store.roll().map(|()| true)
                } else {
                    Ok(false)
                }
            }),
            None => Err(std::io::Error::other("no file is open")),
        };
        match written {
            Ok(rolled) => {
                self.shared.readings.fetch_add(count, Relaxed);
                self.shared.bytes.fetch_add(frame.len() as u64, Relaxed);
                if rolled {
                    self.encoder.anew();
                    self.tell("the recorder has begun another file");
                }
            }
            Err(error) => {
                self.shared.dropped.fetch_add(count, Relaxed);
                self.pause(&error);
            }
        }
    }

    /// Said once, however long it lasts. The gateway goes on without.
    fn pause(&mut self, error: &std::io::Error) {
        if self.failed.is_none() {
            warn!(
                name: "RecorderPaused",
                dir = %self.settings.dir.display(), reason = %error,
                "the recorder pauses: readings are evaluated and not recorded"
            );
        }
        self.failed = Some(self.clock.now());
        self.store = None;
    }

    /// Its counters, and what share of all that this process had written to the disk is its own.
    fn tell(&self, what: &str) {
        let Counts {
            readings,
            dropped,
            bytes,
        } = self.shared.counts();
        let share = written_by_this_process().map_or_else(
            || "unknown".to_owned(),
            |all| format!("{} %", bytes.saturating_mul(100) / all.max(bytes).max(1)),
        );
        info!(readings, dropped, bytes, share_of_writes = share, "{what}");
    }
}

/// Bytes that this process had written to any disk (proc(5), `write_bytes`): whole pages, without what the filesystem
/// writes for itself.
#[must_use]
pub fn written_by_this_process() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/io").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests;
