//! Serial lines: a port is opened, read, and opened again when it went away.
//!
//! [`Serial::run`] promises: it ends only when told to stop or when the engine has gone; a missing adapter is
//! a state ([`Link`]), not a failure, told once when it is lost and once when it is back. A UART has no flow
//! control: waiting for the engine here would lose bytes uncounted, so a frame that finds the intake full is
//! dropped and counted. What arrives right after opening may be the rest of a half-missed frame, which a
//! number or a column does not show (`103.5` becomes `3.5`): such formats begin at the first whole frame.
//!
//! Absent: acknowledgements (there is nobody to give them to), modem lines (never touched: pseudo terminals
//! and cheap adapters have none), and a way to tell a late answer from another device's: an answer that
//! comes after its poll's `timeout` is an unsolicited frame, so `timeout` must be longer than the slowest
//! device takes.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{mpsc::error::TrySendError, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_serial::SerialStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    decode::{Decoder, Format},
    reading::{DeviceId, Reading},
    seldom::Seldom,
    source::{
        Delivery, Intake, Stamps, Ticket,
        framing::{Framed, Lines},
    },
};

pub use self::counters::{Counters, Link};
use self::poll::{Questions, Turn};

mod counters;
mod poll;
mod port;

/// The first wait before a lost port is tried again.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The longest: a person who plugs an adapter in looks at the lamp for about so long.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Bytes within this long after opening may belong to a frame whose beginning was missed. Longer than the
/// 16 ms after which a USB adapter passes on what it has.
const SETTLE: Duration = Duration::from_millis(50);

/// Bytes of one read: what a UART driver keeps.
const READ_LEN: usize = 4096;

/// `[[serial]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Unique among the sources.
    pub name: String,
    /// The port.
    pub port: PathBuf,
    /// Bits per second.
    pub baud: u32,
    /// 5 to 8.
    pub data_bits: tokio_serial::DataBits,
    /// None, odd, even.
    pub parity: tokio_serial::Parity,
    /// 1 or 2.
    pub stop_bits: tokio_serial::StopBits,
    /// None, software, hardware.
    pub flow_control: tokio_serial::FlowControl,
    /// Bytes of one frame.
    pub max_frame: usize,
    /// What a frame holds.
    pub decoder: Decoder,
    /// Whose readings, unless the decoder's `device_at` or the poll says.
    pub device: Option<DeviceId>,
    /// Names on the wire -> device ids (`[[device]] from`).
    pub renamed: std::collections::HashMap<String, DeviceId>,
    /// Questions to ask.
    pub polls: Vec<Poll>,
}

/// `[[serial.poll]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Poll {
    /// The bytes to send.
    pub send: Vec<u8>,
    /// How often.
    pub every: Duration,
    /// Whose answer it is.
    pub device: Option<DeviceId>,
    /// How long to wait for the answer.
    pub timeout: Duration,
}

/// One serial line.
#[derive(Debug)]
pub struct Serial {
    settings: Settings,
    /// What the settings are now.
    changes: watch::Receiver<Settings>,
    intake: Intake,
    stamps: Arc<Stamps>,
    counters: Arc<Counters>,
    lines: Lines,
    questions: Questions,
    /// When bytes last came.
    heard: Option<Instant>,
    unreadable: Seldom,
    overflow: Seldom,
    unanswered: Seldom,
    lost: Seldom,
    /// Whether the log was told that the port is away.
    told_lost: bool,
}

/// Why a port is no longer read.
enum End {
    /// Told to, or nobody takes readings any more.
    Stopped,
    /// The port has other settings now.
    Reopen,
    /// The port went away.
    Lost(String),
}

/// The engine has gone.
struct EngineGone;

impl Serial {
    /// A line that is not open yet. What changes later applies at once, and the port stays open if it can.
    #[must_use]
    pub fn new(
        mut changes: watch::Receiver<Settings>,
        intake: Intake,
        stamps: Arc<Stamps>,
        counters: Arc<Counters>,
    ) -> Self {
        let settings = changes.borrow_and_update().clone();
        Self {
            lines: Lines::new(settings.max_frame),
            questions: Questions::new(settings.polls.clone(), Instant::now()),
            heard: None,
            settings,
            changes,
            intake,
            stamps,
            counters,
            unreadable: Seldom::once_a_minute(),
            overflow: Seldom::once_a_minute(),
            unanswered: Seldom::once_a_minute(),
            lost: Seldom::default(),
            told_lost: false,
        }
    }

    /// Reads the line until `stop`, whatever becomes of the port.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut wait = FIRST_WAIT;
        loop {
            let reason = match self.open_and_serve(&stop, &mut wait).await {
                End::Stopped => return,
                End::Reopen => {
                    self.lines = Lines::new(self.settings.max_frame);
                    wait = FIRST_WAIT;
                    continue;
                }
                End::Lost(reason) => reason,
            };
            self.lines.reset();
            self.count_dropped();
            debug!(line = self.settings.name, port = %self.settings.port.display(), reason, "a serial line is not there");
            self.tell_lost(&reason);
            tokio::select! {
                () = stop.cancelled() => return,
                settings = changed(&mut self.changes) => {
                    self.take_settings(settings);
                    self.lines = Lines::new(self.settings.max_frame);
                    wait = FIRST_WAIT;
                }
                () = sleep(wait) => wait = (wait * 2).min(LONGEST_WAIT),
            }
        }
    }

    async fn open_and_serve(&mut self, stop: &CancellationToken, wait: &mut Duration) -> End {
        let mut port = match port::open(&self.settings) {
            Ok(port) => port,
            Err(error) => return End::Lost(error.to_string()),
        };
        let early = tokio::select! {
            () = stop.cancelled() => return End::Stopped,
            early = settle(&mut port) => early,
        };
        let early = match early {
            Ok(early) => early,
            // A port that opens and hangs up at once was not back.
            Err(reason) => return End::Lost(self.hang_up(&reason)),
        };
        self.tell_up();
        *wait = FIRST_WAIT;
        if !early.is_empty() && !shows_a_missing_beginning(&self.settings.decoder) {
            self.lines.resynchronise();
        }
        self.questions.restart(Instant::now());
        if self.take(&early).is_err() {
            return End::Stopped;
        }
        self.serve(&mut port, stop).await
    }

    async fn serve(&mut self, port: &mut SerialStream, stop: &CancellationToken) -> End {
        let mut buffer = vec![0; READ_LEN];
        loop {
            match self.questions.turn(Instant::now()) {
                Turn::Nothing => {}
                Turn::Unanswered => self.tell_unanswered(),
                Turn::Ask(question) => {
                    self.give_up_begun(Instant::now());
                    let asked = timeout(question.timeout, port.write_all(&question.send));
                    let asked = tokio::select! {
                        () = stop.cancelled() => return End::Stopped,
                        asked = asked => asked,
                    };
                    // A line that takes no bytes in time (flow control) gives no answer either.
                    if let Ok(Err(error)) = asked {
                        return End::Lost(self.hang_up(&error.to_string()));
                    }
                }
            }
            let wake = self.questions.wake();
            // All are cancel-safe. The read is before the clock: an answer that is here is in time.
            tokio::select! {
                biased;
                () = stop.cancelled() => return End::Stopped,
                settings = changed(&mut self.changes) => {
                    if self.take_settings(settings) {
                        return End::Reopen;
                    }
                }
                read = port.read(&mut buffer) => match read {
                    // Not the end of a file: the other end has gone, and says so again and again.
                    Ok(0) => return End::Lost(self.hang_up("hung up")),
                    Ok(length) => {
                        if self.take(buffer.get(..length).unwrap_or_default()).is_err() {
                            return End::Stopped;
                        }
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return End::Lost(self.hang_up(&error.to_string())),
                },
                () = until(wake) => {}
            }
        }
    }

    /// Goes on with other settings; whether the port must be opened anew for them.
    fn take_settings(&mut self, settings: Settings) -> bool {
        let old = std::mem::replace(&mut self.settings, settings);
        let new = &self.settings;
        if new.polls != old.polls {
            self.questions = Questions::new(new.polls.clone(), Instant::now());
        }
        let as_before = Settings {
            decoder: new.decoder.clone(),
            device: new.device.clone(),
            renamed: new.renamed.clone(),
            polls: new.polls.clone(),
            ..old
        };
        as_before != *new
    }

    /// Takes the bytes of one read.
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), EngineGone> {
        self.heard = Some(Instant::now());
        while let Some(framed) = self.lines.take(&mut bytes) {
            match framed {
                Framed::Whole(frame) => self.frame(&frame)?,
                Framed::Oversized => {
                    self.counters.oversized.fetch_add(1, Relaxed);
                    self.questions.answered();
                    self.complain(&format!(
                        "a frame is longer than max-frame, {}",
                        self.settings.max_frame
                    ));
                }
            }
        }
        self.count_dropped();
        Ok(())
    }

    fn frame(&mut self, frame: &[u8]) -> Result<(), EngineGone> {
        if self.questions.is_echo(frame) {
            return Ok(());
        }
        self.counters.frames.fetch_add(1, Relaxed);
        let asked = self.questions.answered();
        let readings = match self.readings(frame, asked) {
            Ok(readings) => readings,
            Err(reason) => {
                self.counters.rejected.fetch_add(1, Relaxed);
                self.complain(&reason);
                return Ok(());
            }
        };
        if readings.is_empty() {
            return Ok(());
        }
        let count = readings.len() as u64;
        match self.intake.try_send(Delivery {
            readings,
            ticket: Ticket::unclaimed(),
        }) {
            Ok(()) => {
                self.counters.readings.fetch_add(count, Relaxed);
            }
            Err(TrySendError::Full(_)) => {
                self.counters.dropped_frames.fetch_add(1, Relaxed);
                self.counters.dropped_bytes.fetch_add(frame.len() as u64, Relaxed);
                if let Some(unsaid) = self.overflow.due(Instant::now()) {
                    warn!(
                        line = self.settings.name, port = %self.settings.port.display(), unsaid,
                        "the engine does not keep up: frames of a serial line were dropped"
                    );
                }
            }
            Err(TrySendError::Closed(_)) => return Err(EngineGone),
        }
        Ok(())
    }

    /// What a frame says, or why it says nothing.
    fn readings(&self, frame: &[u8], asked: Option<DeviceId>) -> Result<Vec<Reading>, String> {
        let decoded = self
            .settings
            .decoder
            .decode(frame)
            .map_err(|error| error.to_string())?;
        let device = match decoded.device {
            Some(name) => self.known_as(&name)?,
            None => match asked.or_else(|| self.settings.device.clone()) {
                Some(device) => self.known_as(device.as_str())?,
                None => return Err("nothing says which device this frame is from".into()),
            },
        };
        let (at, stamped) = self.stamps.stamp(decoded.time);
        let values = decoded.values.len();
        let readings: Vec<_> = decoded
            .values
            .into_iter()
            .filter_map(|(metric, value, unit)| {
                Some(Reading {
                    device: device.clone(),
                    metric: metric?,
                    value,
                    unit,
                    at,
                    stamped,
                })
            })
            .collect();
        let rejected = decoded.rejected + values - readings.len();
        self.counters.rejected_values.fetch_add(rejected as u64, Relaxed);
        Ok(readings)
    }

    /// The device that has this name on the wire.
    fn known_as(&self, name: &str) -> Result<DeviceId, String> {
        if let Some(device) = self.settings.renamed.get(name) {
            return Ok(device.clone());
        }
        DeviceId::new(name).map_err(|error| format!("the device's name is unusable: {error}"))
    }

    fn count_dropped(&mut self) {
        self.counters
            .dropped_bytes
            .fetch_add(self.lines.take_dropped(), Relaxed);
    }

    fn complain(&mut self, reason: &str) {
        if let Some(unsaid) = self.unreadable.due(Instant::now()) {
            warn!(
                line = self.settings.name, port = %self.settings.port.display(), reason, unsaid,
                "a serial line sends what cannot be read"
            );
        }
    }

    /// A frame begun before a question is not its answer. If it is still coming, neither is its rest; if not,
    /// it was a prompt (`21.5\r\n>`) or noise, and the next byte begins the answer.
    fn give_up_begun(&mut self, now: Instant) {
        if !self.lines.is_inside() {
            return;
        }
        if self.heard.is_some_and(|heard| now < heard + SETTLE) {
            self.lines.resynchronise();
        } else {
            self.lines.reset();
        }
        self.count_dropped();
    }

    fn tell_unanswered(&mut self) {
        self.counters.unanswered.fetch_add(1, Relaxed);
        self.give_up_begun(Instant::now());
        if let Some(unsaid) = self.unanswered.due(Instant::now()) {
            warn!(
                line = self.settings.name, port = %self.settings.port.display(), unsaid,
                "a poll got no answer in time"
            );
        }
    }

    fn hang_up(&self, reason: &str) -> String {
        format!(
            "lost {}: {reason} (was the adapter unplugged?)",
            self.settings.port.display()
        )
    }

    fn tell_up(&mut self) {
        let line = &self.settings.name;
        let port = self.settings.port.display().to_string();
        let told_lost = std::mem::take(&mut self.told_lost);
        match self.counters.link.send_replace(Link::Up) {
            Link::Lost(_) => {
                self.counters.reopens.fetch_add(1, Relaxed);
                if told_lost {
                    info!(name: "SourceRecovered", line, port, "a serial line is back");
                }
            }
            Link::New | Link::Up => info!(line, port, "a serial line is open"),
        }
    }

    /// Said once: while the port stays away only [`Link`] follows the reason. One that comes and goes is said to be
    /// lost when it stays away, at the latest.
    fn tell_lost(&mut self, reason: &str) {
        self.counters.link.send_replace(Link::Lost(reason.to_owned()));
        if self.told_lost {
            return;
        }
        if let Some(unsaid) = self.lost.due(Instant::now()) {
            self.told_lost = true;
            warn!(
                name: "SourceFailed",
                line = self.settings.name, port = %self.settings.port.display(), reason, unsaid,
                "a serial line is lost; trying again until it is back"
            );
        }
    }
}

/// What arrives right after opening; an error says why the port is gone again.
async fn settle(port: &mut SerialStream) -> Result<Vec<u8>, String> {
    let deadline = Instant::now() + SETTLE;
    let mut early = Vec::new();
    let mut buffer = [0; 256];
    while early.len() < READ_LEN {
        tokio::select! {
            biased;
            read = port.read(&mut buffer) => match read {
                Ok(0) => return Err("hung up".into()),
                Ok(length) => early.extend_from_slice(buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            },
            () = sleep_until(deadline) => break,
        }
    }
    Ok(early)
}

/// Whether the end of a frame cannot be taken for a frame. A document or a `key=value` that lacks its
/// beginning is not one; a number or a row of columns is.
fn shows_a_missing_beginning(decoder: &Decoder) -> bool {
    match decoder.format {
        Format::Json => decoder.metrics.iter().all(|metric| metric.at.is_some()),
        Format::KeyValue => !decoder.metrics.is_empty(),
        Format::Number | Format::Csv => false,
    }
}

/// The settings as they are from now on; never, if nobody will change them. Cancel-safe.
async fn changed(changes: &mut watch::Receiver<Settings>) -> Settings {
    if changes.changed().await.is_err() {
        return std::future::pending().await;
    }
    changes.borrow_and_update().clone()
}

/// Never, if there is nothing to wait for.
async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
