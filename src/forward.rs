//! Forwarding: the loop that every sink is driven by. Read after the cursor, send, acknowledge.
//!
//! **What it promises.** Every event is handed to the sink, in journal order, until the sink confirms it; the
//! cursor moves only behind events that are all confirmed. A lost connection, a refusal or a restart costs
//! duplicates (at most the window), never an event. A sink that is away costs one attempt per back-off, and a
//! sink that takes everything but the next event counts as away: only a cursor that moves is progress.
//!
//! **What is absent.** There is no queue: the journal is the queue, and at most [`AHEAD`] entries are read
//! ahead of it. Nothing is skipped silently: an event that a sink refuses for good is set aside, on the disk,
//! before the cursor passes it; if that has no room, this sink stops there (loudly). Nothing here knows a protocol: a [`Sink`] connects, a [`Link`] sends.

use std::{
    collections::VecDeque,
    future::Future,
    pin::{Pin, pin},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    event::{Entry, Position, Sequence, SinkName},
    journal::{self, Cursor, DeadLetter, Full, Journal, Limit, Refused},
    seldom::Seldom,
};

mod aside;
pub mod backoff;
pub mod bucket;
mod dial;
mod error;
pub mod filter;
pub mod http;
pub mod mqtt;
mod terms;
pub mod tls;
pub mod window;

pub use error::Error;
pub use terms::Terms;
pub use tls::{Files, Tls};

use backoff::Backoff;
use bucket::Bucket;
use filter::Chain;
use window::Window;

/// Entries read in one go, ahead of what is sent. While a large batch goes out the next one is read, so that neither the
/// disk nor a fast link is idle: two batches are all that is in memory.
const AHEAD: Limit = Limit {
    entries: 256,
    bytes: 256 * 1024,
};

/// So many in a batch are a backlog: more come behind them.
const BACKLOG: usize = 32;

/// One entry: to send one again.
const ONE: Limit = Limit {
    entries: 1,
    bytes: 64 * 1024,
};

/// Reads in one go in which there may be nothing for this sink, before it is looked what became of what was sent.
const READS: usize = 4;

/// How often the pulse is seen to grow, while all is well.
const PULSE_EVERY: Duration = Duration::from_millis(500);

/// What the loop needs of the journal.
pub trait Log: Send + Sync {
    /// Events after `cursor`, in order, never past [`Log::durable`]; empty if there is none.
    /// It is begun at once, whether anybody waits for it or not.
    fn read_after(
        &self,
        cursor: Cursor,
        limit: Limit,
    ) -> impl Future<Output = Result<Vec<Entry>, journal::Error>> + Send + 'static;
    /// What the disk has.
    fn durable(&self) -> watch::Receiver<Position>;
    /// Where a sink begins.
    fn cursor(&self, sink: &SinkName) -> Cursor;
    /// Moves a sink's cursor.
    fn acknowledge(&self, sink: &SinkName, through: Cursor);
    /// A sink at `before` came to `next`, and not every number between is there: its receiver is told with the move of
    /// its cursor past that.
    fn came_to(&self, sink: &SinkName, before: Cursor, next: &Entry);
    /// Keeps a refused event as a dead letter; answers what must be durable before the cursor passes it.
    ///
    /// # Errors
    ///
    /// There is no room for it.
    fn set_aside(&self, refused: &Refused<'_>) -> Result<Position, Full>;
    /// A sink's dead letter that is to be sent again.
    fn letter_to_resend(&self, sink: &SinkName) -> Option<DeadLetter>;
    /// A sink's dead letter of the event that stands there.
    fn letter_of(&self, sink: &SinkName, position: Position) -> Option<DeadLetter>;
    /// It was delivered, or refused once more: why.
    fn settle(&self, letter: &DeadLetter, refused: Option<&str>);
    /// The newest sequence on the disk.
    fn last(&self) -> Sequence;
}

impl Log for Journal {
    fn read_after(
        &self,
        cursor: Cursor,
        limit: Limit,
    ) -> impl Future<Output = Result<Vec<Entry>, journal::Error>> + Send + 'static {
        Journal::read_after(self, cursor, limit)
    }
    fn durable(&self) -> watch::Receiver<Position> {
        Journal::durable(self)
    }
    fn cursor(&self, sink: &SinkName) -> Cursor {
        Journal::cursor(self, sink)
    }
    fn acknowledge(&self, sink: &SinkName, through: Cursor) {
        Journal::acknowledge(self, sink, through);
    }
    fn came_to(&self, sink: &SinkName, before: Cursor, next: &Entry) {
        Journal::came_to(self, sink, before, next);
    }
    fn set_aside(&self, refused: &Refused<'_>) -> Result<Position, Full> {
        Journal::set_aside(self, refused)
    }
    fn letter_to_resend(&self, sink: &SinkName) -> Option<DeadLetter> {
        Journal::letter_to_resend(self, sink)
    }
    fn letter_of(&self, sink: &SinkName, position: Position) -> Option<DeadLetter> {
        Journal::letter_of(self, sink, position)
    }
    fn settle(&self, letter: &DeadLetter, refused: Option<&str>) {
        Journal::settle(self, letter, refused);
    }
    fn last(&self) -> Sequence {
        self.health().borrow().last
    }
}

/// An endpoint that events go to.
pub trait Sink: Send {
    /// One connection to it.
    type Link: Link;
    /// Connects; `Err` says why not, for people. Ends by itself within a bounded time.
    fn connect(&mut self) -> impl Future<Output = Result<Self::Link, String>> + Send;
}

/// One connection to a sink, fresh and with nothing in flight. Dropping it cuts it.
pub trait Link: Send {
    /// How many entries it takes unconfirmed; at least 1.
    fn limit(&self) -> usize;
    /// Takes an entry on its way. Never waits; what cannot be sent is told by [`Link::next`].
    fn send(&mut self, entry: &Entry, previous: Sequence);
    /// What of that is known already, without waiting.
    fn said(&mut self) -> Option<Verdict>;
    /// What became of an entry, or of the link. Cancel-safe.
    fn next(&mut self) -> impl Future<Output = Verdict> + Send;
    /// Takes leave, within a bounded time.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// What a link says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The endpoint has it.
    Delivered(Position),
    /// The endpoint will not have this event, whatever else it takes: why.
    Refused(Position, String),
    /// The link is of no more use: why. Also when the endpoint refuses *us* (rights, quota): that judges no event.
    Lost(String),
}

/// How a sink is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Connected, and nothing speaks against it: an event was answered since, or none is waiting.
    pub connected: bool,
    /// All up to here is confirmed, passed over by its filter, or was there before the sink was. What comes after is its
    /// backlog: also what its filter has yet to pass over.
    pub delivered: Sequence,
    /// Grows at least once a second while the loop lives.
    pub pulse: u64,
    /// Why it is not connected, or why it refuses the event that it stands at.
    pub last_error: Option<String>,
    /// Events handed to a connection, redeliveries included.
    pub sent: u64,
    /// Events confirmed, redeliveries included.
    pub acked: u64,
    /// Events handed to a connection after having been handed to one before (in this run).
    pub redelivered: u64,
    /// Refusals of an event.
    pub refused: u64,
    /// Events set aside as dead letters.
    pub set_aside: u64,
    /// Connections made.
    pub connections: u64,
}

/// When to try again and when to give up waiting.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The first wait after a failure.
    pub base: Duration,
    /// The longest.
    pub cap: Duration,
    /// No confirmation for this long while one is awaited: the link is dead.
    pub ack_timeout: Duration,
}

/// Drives one sink.
#[derive(Debug)]
pub struct Forwarder<L, S> {
    terms: Terms,
    log: L,
    sink: S,
    pace: Pace,
    status: watch::Sender<Status>,
    turn: Turn,
    /// All up to here is confirmed; the journal is told with the turn and stores it lazily.
    cursor: Cursor,
    /// The furthest entry ever handed to a connection: what is at or before it is a redelivery.
    furthest: Position,
    backoff: Backoff,
    standing: Standing,
    /// How often the log is told that the sink is away, that it refuses an event, that one was set aside.
    away: Seldom,
    refusing: Seldom,
    setting_aside: Seldom,
    judged: Option<Judged>,
    bucket: Bucket,
    /// What the bucket counts from.
    began: Instant,
    /// How often the connection ended while this letter was on its way again.
    cut_at: Option<(Position, u32)>,
    /// The last connection ended and the cursor had not moved: one event at a time until it does, so that what
    /// the sink cannot take is known by name.
    alone: bool,
}

/// What was last said about the sink in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Unknown,
    Up,
    Down,
}

/// The event that the sink refuses.
#[derive(Debug)]
struct Judged {
    position: Position,
    /// Its id; none: it was discarded meanwhile.
    event: Option<String>,
    attempts: u32,
    backoff: Backoff,
}

/// What was done and is not yet told: told event by event it would cost as much as the sending.
#[derive(Debug, Default, PartialEq, Eq)]
struct Turn {
    sent: u64,
    acked: u64,
    redelivered: u64,
    /// The cursor moved.
    has_moved: bool,
}

/// Why a connection is over.
enum End {
    /// Asked to stop, and all that may go is gone.
    Drained,
    /// The journal says nothing more.
    Log(journal::Error),
    Lost(String),
}

/// A read of the journal under way.
type Reading = Pin<Box<dyn Future<Output = Result<Vec<Entry>, journal::Error>> + Send>>;

/// What one connection knows.
struct Flow {
    window: Window,
    ahead: VecDeque<Entry>,
    /// What comes behind that, under way.
    reading: Option<Reading>,
    read_to: Cursor,
    chain: Chain,
    /// The log may have more than was read.
    more: bool,
    /// There was nothing for this sink in what was read: the verdicts' turn, then further.
    goes_on: bool,
    /// Something more may be sent then: `drain-rate`.
    paced: Option<Instant>,
    /// A refused entry is sent again then.
    retry_at: Instant,
    /// Without any answer until then the link is dead.
    ack_due: Instant,
    /// The refused event that is being set aside, what must be durable for it, and its id.
    aside: Option<(Position, Position, (String, Sequence))>,
    /// The dead letter that is on its way again, with nothing beside it.
    letter: Option<DeadLetter>,
}

impl<L: Log, S: Sink> Forwarder<L, S> {
    /// A loop over `log` to `sink`, not yet running.
    #[must_use]
    pub fn new(terms: Terms, log: L, sink: S, pace: Pace, status: watch::Sender<Status>) -> Self {
        let cursor = log.cursor(&terms.name);
        let backoff = Backoff::new(pace.base, pace.cap);
        let bucket = Bucket::new(terms.drain_rate);
        let (furthest, standing) = (cursor.position, Standing::Unknown);
        Self {
            terms,
            log,
            sink,
            pace,
            status,
            turn: Turn::default(),
            cursor,
            furthest,
            backoff,
            standing,
            away: Seldom::default(),
            refusing: Seldom::default(),
            setting_aside: Seldom::default(),
            judged: None,
            bucket,
            began: Instant::now(),
            cut_at: None,
            alone: false,
        }
    }

    /// Forwards until `stop`, and then what is durable by then; or until the journal has ended.
    ///
    /// A sink that is away at the stop gets one more attempt, if something waits for it. Who stops sets the
    /// grace: dropping this future loses nothing but acknowledgements on their way.
    pub async fn run(mut self, stop: CancellationToken) {
        let stands = self.stands().await;
        self.status.send_modify(|status| status.delivered = stands);
        loop {
            let last_attempt = stop.is_cancelled();
            match pulsing(&self.status.clone(), self.pass_over()).await {
                Ok(waits) if !waits && last_attempt => return,
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(sink = %self.terms.name, reason = %error, "forwarding ended with the journal");
                    return;
                }
            }
            let began = Instant::now();
            let reason = match self.connection(&stop).await {
                End::Drained => return,
                End::Log(error) => {
                    tracing::error!(sink = %self.terms.name, reason = %error, "forwarding ended with the journal");
                    return;
                }
                End::Lost(reason) => reason,
            };
            if began.elapsed() >= self.backoff.cap() {
                // It stood for long: this is a new trouble, not the old one.
                self.backoff.reset();
            }
            let wait = self.backoff.next(fastrand::u8(..));
            self.note_down(&reason, wait);
            if last_attempt {
                return;
            }
            tokio::select! {
                biased;
                () = pulsing(&self.status, tokio::time::sleep(wait)) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// What it has behind it. Where its chain starts nothing was delivered, and what came before it never will be.
    async fn stands(&self) -> Sequence {
        let last = self.log.last();
        if self.cursor.sequence > Sequence(0) {
            return self.cursor.sequence;
        }
        let next = self.log.read_after(self.cursor, ONE).await;
        match next
            .ok()
            .and_then(|entries| entries.first().map(|entry| entry.sequence))
        {
            // Of an older epoch: of this one it has nothing.
            Some(next) if next > last => Sequence(0),
            Some(next) => Sequence(next.0.saturating_sub(1)),
            None => last,
        }
    }

    /// Passes what is not for this sink and stands right behind its cursor, so that it waits for no connection;
    /// answers whether something waits for one.
    async fn pass_over(&mut self) -> Result<bool, journal::Error> {
        let mut chain = Chain::after(self.cursor);
        loop {
            let entries = self.log.read_after(self.cursor, AHEAD).await?;
            let mut cursor = self.cursor;
            for entry in &entries {
                self.read(&mut chain, cursor, entry);
                if self.is_for_us(entry) {
                    self.moved(cursor);
                    self.tell();
                    return Ok(true);
                }
                cursor = chain.cursor(entry.position);
            }
            if entries.is_empty() {
                return Ok(false);
            }
            self.moved(cursor);
            self.tell();
        }
    }

    /// Reads the next entry behind a cursor; answers the one before it in the chain.
    fn read(&self, chain: &mut Chain, behind: Cursor, entry: &Entry) -> Sequence {
        if chain.skips_to(entry.sequence) {
            self.log.came_to(&self.terms.name, behind, entry);
        }
        chain.read(entry.sequence)
    }

    fn is_for_us(&self, entry: &Entry) -> bool {
        let Terms { name, filter, .. } = &self.terms;
        filter.passes(name, &entry.event.draft)
    }

    /// One connection, from the cursor to its end.
    async fn connection(&mut self, stop: &CancellationToken) -> End {
        let mut link = match pulsing(&self.status, self.sink.connect()).await {
            Ok(link) => link,
            Err(reason) => return End::Lost(reason),
        };
        self.status.send_modify(|status| status.connections += 1);
        let before = self.cursor;
        let end = self.forward(&mut link, stop).await;
        self.alone = self.cursor == before;
        if !matches!(end, End::Lost(_)) {
            pulsing(&self.status, link.close()).await;
            self.status.send_modify(|status| status.connected = false);
        }
        end
    }

    async fn forward(&mut self, link: &mut S::Link, stop: &CancellationToken) -> End {
        let now = Instant::now();
        let mut flow = Flow {
            window: Window::new(if self.alone { 1 } else { link.limit() }),
            ahead: VecDeque::new(),
            reading: None,
            read_to: self.cursor,
            chain: Chain::after(self.cursor),
            more: true,
            goes_on: false,
            paced: None,
            retry_at: now,
            ack_due: now + self.pace.ack_timeout,
            aside: None,
            letter: None,
        };
        let end = self.drive(&mut flow, link, stop).await;
        if matches!(end, End::Lost(_)) {
            self.finish_aside_without_a_link(&mut flow).await;
        }
        self.tell();
        if let (Some(letter), End::Lost(reason)) = (flow.letter, &end) {
            self.letter_lost(&letter, reason);
        }
        end
    }

    async fn drive(&mut self, flow: &mut Flow, link: &mut S::Link, stop: &CancellationToken) -> End {
        let mut durable = self.log.durable();
        let mut stopping = false;
        let mut tick = interval(PULSE_EVERY);
        loop {
            self.tell();
            let awaited = flow.window.awaits();
            if let Err(error) = self.feed(flow, link, &mut durable).await {
                return End::Log(error);
            }
            if !awaited {
                // Only now does it go out: a slow read is not the sink's silence.
                flow.ack_due = Instant::now() + self.pace.ack_timeout;
            }
            self.tell();
            if flow.window.is_empty() && !flow.more {
                self.note_up();
                if stopping && flow.letter.is_none() {
                    return End::Drained;
                }
            }
            let retry_due = flow.window.to_resend().is_some();
            let (goes_on, paced) = (std::mem::take(&mut flow.goes_on), flow.paced);
            if stopping && retry_due {
                // What the sink refuses stays in the journal for the next start.
                return End::Drained;
            }
            // All of these are cancel-safe: a watch, a token, timers, and `next` by its promise. In this order, so that
            // a run can be told again: answers that never end keep neither the stop nor the pulse waiting.
            tokio::select! {
                biased;
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    flow.more = true;
                }
                _ = tick.tick() => pulse(&self.status),
                verdict = link.next() => {
                    flow.ack_due = Instant::now() + self.pace.ack_timeout;
                    // All that came with it, before anything more is sent: no more than were on their way.
                    let mut said = Some(verdict);
                    while let Some(verdict) = said {
                        match verdict {
                            Verdict::Delivered(position) => self.delivered(flow, position, link.limit()),
                            Verdict::Refused(position, reason) => {
                                if let Err(error) = self.refused(flow, position, &reason).await {
                                    return End::Log(error);
                                }
                            }
                            Verdict::Lost(reason) => return End::Lost(reason),
                        }
                        said = link.said();
                    }
                }
                changed = durable.changed(), if (!flow.more || flow.aside.is_some()) && !stopping => {
                    flow.more = true;
                    // The journal has ended: what it still reads goes out, then so do we.
                    stopping = changed.is_err();
                }
                () = sleep_until(flow.retry_at), if retry_due => {}
                () = std::future::ready(()), if goes_on => {}
                () = sleep_until(paced.unwrap_or(flow.retry_at)), if paced.is_some() => {}
                () = sleep_until(flow.ack_due), if flow.window.awaits() || flow.letter.is_some() => {
                    return End::Lost(format!("no acknowledgement for {:?}", self.pace.ack_timeout));
                }
            }
        }
    }

    /// Sends what may be sent now: as much as the window takes, or the refused entry again, alone.
    async fn feed(
        &mut self,
        flow: &mut Flow,
        link: &mut S::Link,
        durable: &mut watch::Receiver<Position>,
    ) -> Result<(), journal::Error> {
        self.finish_aside(flow, *durable.borrow());
        if flow.letter.is_some() {
            return Ok(());
        }
        // Also while it waits to be set aside.
        if let Some((position, previous)) = flow.window.to_resend() {
            if Instant::now() >= flow.retry_at {
                self.resend(flow, link, position, previous).await?;
            }
            return Ok(());
        }
        flow.paced = None;
        let mut reads = 0;
        while !flow.window.is_full() && !flow.window.has_refused() && self.may_send(flow) {
            if flow.ahead.is_empty() && flow.more {
                reads += 1;
                if reads > READS {
                    flow.goes_on = true;
                    break;
                }
                self.tell();
                self.read_ahead(flow, durable).await?;
            }
            let Some(entry) = flow.ahead.pop_front() else {
                break;
            };
            let previous = self.read(&mut flow.chain, flow.read_to, &entry);
            if self.is_for_us(&entry) {
                flow.chain.pass();
                flow.read_to = flow.chain.cursor(entry.position);
                self.hand_over(link, &entry, previous);
                flow.window.sent(flow.read_to, previous);
            } else {
                flow.read_to = flow.chain.cursor(entry.position);
                if let Some(cursor) = flow.window.skipped(flow.read_to) {
                    self.moved(cursor);
                }
            }
        }
        if flow.window.is_empty() && !flow.more && flow.paced.is_none() {
            self.send_letter(flow, link);
        }
        Ok(())
    }

    /// Gets the next batch, and begins to read the one behind it if there seems to be one, and no rate to wait for.
    async fn read_ahead(
        &self,
        flow: &mut Flow,
        durable: &mut watch::Receiver<Position>,
    ) -> Result<(), journal::Error> {
        if let Some(reading) = flow.reading.take() {
            flow.ahead = reading.await?.into();
        }
        // What was read a while ago says what there is, never that there is nothing more.
        if flow.ahead.is_empty() {
            // Seen before the read: what becomes durable during it is told again.
            durable.borrow_and_update();
            flow.ahead = self.log.read_after(flow.read_to, AHEAD).await?.into();
        }
        flow.more = !flow.ahead.is_empty();
        if let Some(last) = flow.ahead.back().filter(|_| flow.ahead.len() >= BACKLOG)
            && self.bucket.is_free()
        {
            let behind = Cursor::start(last.position);
            flow.reading = Some(Box::pin(self.log.read_after(behind, AHEAD)));
        }
        Ok(())
    }

    /// Whether the rate lets something go now; if not, it is said when.
    fn may_send(&self, flow: &mut Flow) -> bool {
        if self.bucket.is_free() {
            return true;
        }
        let now = Instant::now();
        let wait = self.bucket.wait(now.duration_since(self.began));
        flow.paced = (!wait.is_zero()).then(|| now + wait);
        flow.paced.is_none()
    }

    fn hand_over(&mut self, link: &mut S::Link, entry: &Entry, previous: Sequence) {
        link.send(entry, previous);
        if !self.bucket.is_free() {
            self.bucket.take(self.began.elapsed());
        }
        let again = entry.position <= self.furthest;
        self.furthest = self.furthest.max(entry.position);
        self.turn.sent += 1;
        self.turn.redelivered += u64::from(again);
    }

    fn delivered(&mut self, flow: &mut Flow, position: Position, limit: usize) {
        if self.letter_answered(flow, position, None) {
            return;
        }
        if let Some(judged) = self.judged.take_if(|judged| judged.position == position) {
            tracing::info!(sink = %self.terms.name, event = judged.event, "the refused event was taken");
            self.status.send_modify(|status| status.last_error = None);
        }
        self.turn.acked += 1;
        // A replay, or a cursor that a crash took back, brought what had been set aside.
        if let Some(letter) = self.log.letter_of(&self.terms.name, position) {
            self.log.settle(&letter, None);
        }
        if self.passed(flow, position) {
            // Only this is progress: a sink that takes all but the oldest event would be tried again at once,
            // and be said to be restored, for ever.
            self.backoff.reset();
            self.note_up();
            flow.window.widen(limit);
        }
    }

    /// Whether the cursor moved.
    fn passed(&mut self, flow: &mut Flow, position: Position) -> bool {
        let Some(cursor) = flow.window.delivered(position) else {
            return false;
        };
        self.moved(cursor);
        true
    }

    fn moved(&mut self, cursor: Cursor) {
        if cursor == self.cursor {
            return;
        }
        self.cursor = cursor;
        self.turn.has_moved = true;
        let judged = self.judged.take_if(|judged| judged.position <= cursor.position);
        if judged.is_some() {
            self.status.send_modify(|status| status.last_error = None);
        }
    }

    /// Tells the journal and whoever watches what was done since the last time.
    fn tell(&mut self) {
        let turn = std::mem::take(&mut self.turn);
        if turn == Turn::default() {
            return;
        }
        if turn.has_moved {
            self.log.acknowledge(&self.terms.name, self.cursor);
        }
        self.status.send_modify(|status| {
            status.sent += turn.sent;
            status.acked += turn.acked;
            status.redelivered += turn.redelivered;
            if turn.has_moved {
                status.delivered = self.cursor.sequence;
            }
        });
    }

    fn note_up(&mut self) {
        // A loss that was not said changed the status all the same.
        if self.standing == Standing::Up && self.status.borrow().connected {
            return;
        }
        self.tell();
        let backlog = self.backlog();
        match std::mem::replace(&mut self.standing, Standing::Up) {
            Standing::Down => {
                tracing::info!(name: "UplinkRestored", sink = %self.terms.name, backlog, "uplink restored");
            }
            Standing::Unknown => tracing::info!(sink = %self.terms.name, backlog, "uplink connected"),
            Standing::Up => {}
        }
        self.status.send_modify(|status| {
            status.connected = true;
            if self.judged.is_none() {
                status.last_error = None;
            }
        });
    }

    fn note_down(&mut self, reason: &str, wait: Duration) {
        // One that comes and goes is said to be lost when it stays away, at the latest.
        if self.standing != Standing::Down
            && let Some(unsaid) = self.away.due(Instant::now())
        {
            let (backlog, next) = (self.backlog(), format!("{:.1} s", wait.as_secs_f64()));
            tracing::warn!(
                name: "UplinkLost",
                sink = %self.terms.name, reason, backlog, next_attempt_in = next, unsaid,
                "uplink lost"
            );
            self.standing = Standing::Down;
        }
        self.status.send_modify(|status| {
            status.connected = false;
            status.last_error = Some(reason.to_owned());
        });
    }

    /// Events that the sink has not confirmed.
    fn backlog(&self) -> u64 {
        self.log.last().0.saturating_sub(self.status.borrow().delivered.0)
    }
}

fn pulse(status: &watch::Sender<Status>) {
    status.send_modify(|status| status.pulse += 1);
}

/// Does `work` and keeps the pulse going: a wait for the world is no hang.
async fn pulsing<F: Future>(status: &watch::Sender<Status>, work: F) -> F::Output {
    let mut work = pin!(work);
    let mut tick = interval(PULSE_EVERY);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            _ = tick.tick() => pulse(status),
        }
    }
}

#[cfg(test)]
mod tests;
