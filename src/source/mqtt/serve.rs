//! One task per connection: the socket, the deadlines, and the errands of its [`Session`].
//!
//! Everything waited for has an end: CONNECT, silence, an unread output, a parked journal, a take-over, what
//! outlives the connection; and none outlasts a stop. Nobody else waits for a connection, but the one that
//! takes its session over.

use std::{future::poll_fn, net::SocketAddr, pin::pin, sync::Arc, task::Poll, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Shared, auth, count,
    presence::Here,
    session::{Accepted, Bounds, Counted, End, MAX_UNSENT, Session, Step},
    topics,
    troubles::Trouble,
    wire::{Connect, Filter, Version, reason},
};
use crate::{
    event::Position,
    hub::{Attach, Attachment, Grant, Key, MAX_ABSENCE, Mailbox, Message, Will},
    source::{Answer, Answers, Delivery, STOP_GRACE},
    time::EngineTime,
};

/// CONNECT must be there by then.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// A connection whose output nobody reads.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
/// A 3.1.1 client whose publish cannot be taken is not read for so long, then closed.
const PARKED_PATIENCE: Duration = Duration::from_secs(30);
/// The last words of a connection must be written by then.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
/// Answers owed at a stop must have come by then,
const STOP_PATIENCE: Duration = STOP_GRACE.saturating_sub(Duration::from_secs(1));
/// and be written by then: what is left is for closing the socket.
const STOP_CLOSE_PATIENCE: Duration = STOP_GRACE.saturating_sub(Duration::from_millis(500));
/// A closed socket is drained for so long.
const LINGER: Duration = Duration::from_millis(200);
/// How long publishes that ask for no acknowledgement wait for the disk after their connection has ended.
const OUTLIVE_PATIENCE: Duration = Duration::from_secs(2);
/// How long a new connection waits for the one whose session it takes: for its last words and what outlives
/// it.
const TAKEOVER_PATIENCE: Duration = Duration::from_secs(5);
/// Bytes read at once from a connection that has not filled as much yet: what an idle one costs.
const FIRST_CHUNK: usize = 512;
/// Bytes read at once from all others.
const READ_CHUNK: usize = 4096;

/// Serves one connection until its end.
pub(super) async fn serve<S>(
    stream: S,
    peer: SocketAddr,
    shared: Arc<Shared>,
    evicted: CancellationToken,
    name: u64,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut connection = Connection::new(&shared, peer, evicted, name);
    connection.run(&mut reader, &mut writer).await;
    connection.outlive().await;
    connection.leave();
    let mut ignored = [0; 512];
    let close = async {
        // Closing with unread bytes would reset the connection and take our last words with it.
        if writer.shutdown().await.is_ok() {
            while matches!(reader.read(&mut ignored).await, Ok(1..)) {}
        }
    };
    _ = timeout(LINGER, close).await;
}

struct Connection<'a> {
    shared: &'a Shared,
    peer: SocketAddr,
    /// Cancelled when a client needs the place of a connection that has not said CONNECT.
    evicted: CancellationToken,
    name: u64,
    session: Session,
    input: BytesMut,
    answers: Arc<Answers>,
    durable: watch::Receiver<Position>,
    attachment: Option<Attachment>,
    key: Option<Key>,
    will: Option<Will>,
    /// The device whose connection this is, if its name is usable.
    here: Option<Here>,
    /// A publish that the engine or the journal has no room for: nothing is read meanwhile.
    held: Option<Held>,
    over: Option<End>,
    stopping: bool,
}

struct Held {
    token: u64,
    message: Arc<Message>,
    /// When it came: an alarm that waits for room has the time of its reading, not that of the room.
    arrived: EngineTime,
    /// Since when the journal takes nothing.
    parked: Option<Instant>,
}

/// When things happened on a connection, for its deadlines.
struct Clocks {
    begun: Instant,
    heard: Instant,
    unwritten: Option<Instant>,
    over: Option<Instant>,
    stopping: Option<Instant>,
}

impl<'a> Connection<'a> {
    fn new(shared: &'a Shared, peer: SocketAddr, evicted: CancellationToken, name: u64) -> Self {
        let settings = shared.settings();
        let bounds = Bounds {
            max_packet: settings.max_packet,
            max_inflight: settings.max_inflight,
        };
        Self {
            shared,
            peer,
            evicted,
            name,
            session: Session::new(bounds),
            input: BytesMut::new(),
            answers: Arc::default(),
            durable: shared.durable.clone(),
            attachment: None,
            key: None,
            will: None,
            here: None,
            held: None,
            over: None,
            stopping: false,
        }
    }

    async fn run<R, W>(&mut self, reader: &mut R, writer: &mut W)
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let shared = self.shared;
        let now = Instant::now();
        let mut clocks = Clocks {
            begun: now,
            heard: now,
            unwritten: None,
            over: None,
            stopping: None,
        };
        let mut health = shared.health.clone();
        // What is waited for turn after turn stays registered between them: to register and to leave takes
        // locks, some of them everybody's, and a turn for one message would pay for all of them.
        let answers = Arc::clone(&self.answers);
        let mut answered = pin!(answers.arrived());
        let mut delivery = pin!(arrived(None));
        let mut kicked = pin!(cancelled(None));
        let mut evicted = pin!(self.evicted.clone().cancelled_owned());
        let mut shutdown = pin!(shared.shutdown.cancelled());
        let mut alarm = pin!(sleep_until(now + CONNECT_PATIENCE));
        let mut open = false;
        let mut chunk = FIRST_CHUNK;
        loop {
            self.advance().await;
            let output = self.session.output();
            if !output.is_empty() {
                let full = output.len() >= MAX_UNSENT;
                // Nearly always there is room: no need to ask everything else first.
                match at_once(writer.write_buf(output)).await {
                    Some(Ok(1..)) => clocks.unwritten = None,
                    Some(Ok(0) | Err(_)) => return,
                    None => {}
                }
                if full && self.session.output().len() < MAX_UNSENT {
                    continue; // What waited for room goes on.
                }
            }
            let now = Instant::now();
            let unwritten = !self.session.output().is_empty();
            if self.over.is_some() && !unwritten {
                return;
            }
            let reads =
                self.over.is_none() && !self.stopping && self.held.is_none() && self.session.wants_bytes();
            clocks.note(self, now, reads, unwritten);
            let (deadline, why) = clocks.next(self, reads);
            if let Some(attachment) = self.attachment.as_ref().filter(|_| !open) {
                open = true;
                delivery.set(arrived(Some(Arc::clone(&attachment.mailbox))));
                kicked.set(cancelled(Some(attachment.kick().clone())));
            }
            // A deadline that moved away is looked at when the old one comes: most move with every message.
            if alarm.is_elapsed() || deadline < alarm.deadline() {
                alarm.as_mut().reset(deadline);
            }
            let live = self.over.is_none();
            let parked = self.held.as_ref().is_some_and(|held| held.parked.is_some());
            let full = self.held.is_some() && !parked;
            if reads && self.input.capacity().saturating_sub(self.input.len()) < chunk / 4 {
                self.input.reserve(chunk);
            }
            // All are cancel-safe: reads and writes of what is ready, watches, notifications, a reservation.
            tokio::select! {
                read = reader.read_buf(&mut self.input), if reads => match read {
                    Ok(1..) => {
                        clocks.heard = Instant::now();
                        if self.input.len() == self.input.capacity() {
                            chunk = READ_CHUNK;
                        }
                    }
                    Ok(0) | Err(_) => return,
                },
                written = writer.write_buf(self.session.output()), if unwritten => match written {
                    Ok(1..) => clocks.unwritten = None,
                    Ok(0) | Err(_) => return,
                },
                () = &mut answered => answered.set(answers.arrived()),
                moved = self.durable.changed(), if live && self.session.owes() => {
                    if moved.is_err() {
                        self.journal_ended();
                    }
                }
                mailbox = &mut delivery, if live && open => delivery.set(arrived(mailbox)),
                permit = shared.intake.reserve(), if live && full => match permit {
                    Ok(permit) => {
                        if let Some(held) = self.held.take() {
                            self.evaluate(held.token, &held.message, held.arrived, permit);
                        }
                    }
                    Err(_) => self.session.close(reason::UNSPECIFIED),
                },
                changed = health.changed(), if live && parked => {
                    if changed.is_err() {
                        self.session.close(reason::UNSPECIFIED);
                    }
                }
                () = &mut kicked, if live && open => {
                    kicked.set(cancelled(None));
                    // What it sent before it came back was sent before: a publish and a goodbye, often.
                    let sent = timeout(Duration::ZERO, reader.read_buf(&mut self.input));
                    if reads && matches!(sent.await, Ok(Ok(1..))) {
                        self.advance().await;
                    }
                    self.session.close(reason::TAKEN_OVER);
                }
                () = &mut evicted, if !open => return,
                () = &mut shutdown, if !self.stopping => self.stop(),
                () = &mut alarm => match why {
                    _ if Instant::now() < deadline => {}
                    Deadline::Silence => self.session.close(reason::KEEP_ALIVE),
                    Deadline::Parked => self.session.close(reason::QUOTA),
                    Deadline::Stop => self.session.close(reason::SHUTTING_DOWN),
                    Deadline::Unread => {
                        count(&shared.counters.slow_subscribers);
                        return;
                    }
                    Deadline::Connect | Deadline::Close => return,
                },
            }
        }
    }

    /// Does all that can be done without waiting (but for a take-over).
    async fn advance(&mut self) {
        self.take_answers();
        self.try_held();
        loop {
            self.look_at_the_disk();
            self.pump();
            if self.held.is_some() || (self.stopping && self.over.is_some()) {
                self.route_pending();
                break;
            }
            // A stopping connection takes nothing further: only what is pending is done.
            let mut nothing = BytesMut::new();
            let input = if self.stopping {
                &mut nothing
            } else {
                &mut self.input
            };
            match self.session.step(input) {
                Some(step) => self.perform(step).await,
                // What was acknowledged meanwhile has made room, and nobody else would say so.
                None if self.deliver() => {}
                None => break,
            }
        }
        if self.stopping && !self.session.owes() {
            self.session.close(reason::SHUTTING_DOWN);
            self.route_pending();
        }
    }

    fn take_answers(&mut self) {
        for (token, answer) in self.answers.take() {
            if answer == Answer::OverLimit {
                count(&self.shared.counters.over_limit);
            }
            self.session.answer(token, answer);
        }
    }

    fn look_at_the_disk(&mut self) {
        if self.session.owes() {
            let position = *self.durable.borrow_and_update();
            self.session.durable(position);
        }
    }

    /// What asked for no acknowledgement is never sent again, so it does not end with its connection: it gets
    /// its turn, for a bounded time. Whoever takes the session over waits for it, so the order stays. But a
    /// client that was taken over while it was here was told so, and what it had waiting is dropped.
    async fn outlive(&mut self) {
        if self.stopping || self.over == Some(End::Ours(reason::TAKEN_OVER)) {
            return;
        }
        self.session.gone();
        self.held.take_if(|held| held.message.qos > 0);
        let (shared, end) = (self.shared, Instant::now() + OUTLIVE_PATIENCE);
        loop {
            self.take_answers();
            self.look_at_the_disk();
            self.route_pending();
            if !self.session.owes() {
                return;
            }
            // All are cancel-safe: a notification, a watch, a reservation, a token.
            tokio::select! {
                () = self.answers.arrived() => {}
                moved = self.durable.changed() => if moved.is_err() { return },
                permit = shared.intake.reserve(), if self.held.is_some() => match permit {
                    Ok(permit) => {
                        if let Some(held) = self.held.take() {
                            self.evaluate(held.token, &held.message, held.arrived, permit);
                        }
                    }
                    Err(_) => return,
                },
                () = shared.shutdown.cancelled() => return,
                () = sleep_until(end) => return,
            }
        }
    }

    /// Performs the steps that are pending without taking a packet.
    fn route_pending(&mut self) {
        let mut nothing = BytesMut::new();
        while let Some(step) = self.session.step(&mut nothing) {
            self.perform_now(step);
        }
    }

    async fn perform(&mut self, step: Step) {
        match step {
            Step::Connect(connect) => self.connect(*connect).await,
            step => self.perform_now(step),
        }
    }

    fn perform_now(&mut self, step: Step) {
        match step {
            Step::Connect(_) => {}
            Step::Publish { token, message } => self.publish(token, message),
            Step::Route(message) => {
                let from = self.attachment.as_ref().map(Attachment::id);
                self.shared.hub.publish(Arc::unwrap_or_clone(message), from);
            }
            Step::Subscribe {
                id,
                filters,
                identifier,
            } => self.subscribe(id, filters, identifier),
            Step::Unsubscribe { id, filters } => {
                let code = |filter: &String| match &self.attachment {
                    Some(attachment) if attachment.unsubscribe(filter) => reason::SUCCESS,
                    _ => reason::NO_SUBSCRIPTION_EXISTED,
                };
                let codes: Vec<u8> = filters.iter().map(code).collect();
                self.session.unsubscribed(id, &codes);
            }
            Step::Count(Counted::Acknowledged) => count(&self.shared.counters.acknowledged),
            Step::Refused { topic, why } => {
                count(&self.shared.counters.not_authorised);
                self.shared.troubles.arose(None, &topic, &Trouble::Refused(why));
            }
            Step::Count(Counted::TooLargeForSubscriber) => {
                count(&self.shared.counters.too_large_for_subscriber);
            }
            Step::Close(end) => self.over = Some(end),
        }
    }

    async fn connect(&mut self, connect: Connect) {
        let chosen = format!("auto-{:016x}", fastrand::u64(..));
        let key = match auth::admit(&connect, &chosen) {
            Ok(key) => key,
            Err(why) => {
                count(&self.shared.counters.refused_connections);
                if let Some(unsaid) = self.shared.quiet.may_speak() {
                    let (client, reason) = (&*connect.client, format!("0x{why:02X}"));
                    tracing::warn!(peer = %self.peer, client, reason, unsaid, "client refused");
                }
                self.session.refuse(why);
                return;
            }
        };
        let Some(attachment) = self.attach(key.clone(), connect.clean).await else {
            self.session.refuse(reason::UNAVAILABLE);
            return;
        };
        self.shared.strangers.known(self.name);
        count(&self.shared.counters.connections);
        let longest = u32::try_from(MAX_ABSENCE.as_secs()).unwrap_or(u32::MAX);
        let mut attachment = attachment;
        self.session.accept(Accepted {
            present: attachment.present,
            kept: std::mem::take(&mut attachment.kept),
            assigned: connect.client.is_empty().then_some(chosen),
            session_expiry: connect.session_expiry.min(longest),
        });
        self.will = connect.will.map(|will| Will {
            message: Message {
                topic: will.publish.topic.into(),
                payload: will.publish.payload,
                qos: will.publish.qos,
                retain: will.publish.retain,
                properties: will.publish.properties,
            },
            delay: Duration::from_secs(will.delay.into()),
        });
        tracing::debug!(peer = %self.peer, client = %key.client, "client connected");
        let name = key.user.as_deref().unwrap_or(&key.client);
        let device = topics::device(&self.shared.settings(), name);
        self.here = device.map(|device| self.shared.presence.enter(device));
        self.key = Some(key);
        self.attachment = Some(attachment);
    }

    /// None: the gateway stops, the client has come once more meanwhile, or somebody else was given this
    /// connection's place.
    async fn attach(&self, key: Key, clean: bool) -> Option<Attachment> {
        let patience = Instant::now() + TAKEOVER_PATIENCE;
        let turn = self.shared.hub.turn();
        loop {
            let force = Instant::now() >= patience;
            match self.shared.hub.attach(key.clone(), clean, force, turn) {
                Attach::Attached(attachment) => return Some(attachment),
                Attach::Superseded => return None,
                Attach::Occupied(gone) => {
                    count(&self.shared.counters.taken_over);
                    tokio::select! {
                        () = gone.cancelled() => {}
                        () = sleep_until(patience) => {}
                        () = self.shared.shutdown.cancelled() => return None,
                        () = self.evicted.cancelled() => return None,
                    }
                }
            }
        }
    }

    fn publish(&mut self, token: u64, message: Arc<Message>) {
        count(&self.shared.counters.publishes);
        self.hand_over(token, message, self.shared.stamps.arrived());
    }

    /// Gives a publish to the engine, now or (held) when there is room.
    fn hand_over(&mut self, token: u64, message: Arc<Message>, arrived: EngineTime) {
        if topics::find(&self.shared.settings().readings, &message.topic).is_none() {
            return self.session.answer(token, Answer::AfterDurable(Position(0)));
        }
        if self.shared.health.borrow().parked {
            if self.session.version() == Some(Version::V5) || message.qos == 0 {
                count(&self.shared.counters.parked);
                return self.session.turn_away(token, reason::QUOTA);
            }
            self.held = Some(Held {
                token,
                message,
                arrived,
                parked: Some(Instant::now()),
            });
            return;
        }
        // Copied out, so that the permit borrows from no one but the house.
        let shared = self.shared;
        match shared.intake.try_reserve() {
            Ok(permit) => self.evaluate(token, &message, arrived, permit),
            Err(mpsc::error::TrySendError::Full(())) => {
                self.held = Some(Held {
                    token,
                    message,
                    arrived,
                    parked: None,
                });
            }
            Err(mpsc::error::TrySendError::Closed(())) => self.session.close(reason::UNSPECIFIED),
        }
    }

    /// What was held because the journal was parked goes on when it is not any more.
    fn try_held(&mut self) {
        if self.shared.health.borrow().parked || self.held.as_ref().is_none_or(|held| held.parked.is_none()) {
            return;
        }
        if let Some(held) = self.held.take() {
            self.hand_over(held.token, held.message, held.arrived);
        }
    }

    fn evaluate(
        &mut self,
        token: u64,
        message: &Message,
        arrived: EngineTime,
        permit: mpsc::Permit<'_, Delivery>,
    ) {
        let user = self.key.as_ref().and_then(|key| key.user.as_deref());
        match self.shared.readings(user, message, arrived) {
            None => self.session.fail(token, reason::PAYLOAD_FORMAT),
            Some(readings) if readings.is_empty() => {
                self.session.answer(token, Answer::AfterDurable(Position(0)));
            }
            Some(readings) => permit.send(Delivery {
                readings,
                ticket: self.answers.ticket(token),
            }),
        }
    }

    fn subscribe(&mut self, id: u16, filters: Vec<(Filter, Option<u8>)>, identifier: Option<u32>) {
        let mut codes = Vec::with_capacity(filters.len());
        for (filter, refused) in filters {
            let grant = Grant {
                qos: filter.qos,
                no_local: filter.no_local,
                retain_as_published: filter.retain_as_published,
                identifier,
            };
            let retained = |new: bool| filter.retained == 0 || (filter.retained == 1 && new);
            codes.push(match (refused, &self.attachment) {
                (Some(code), _) => code,
                (None, Some(attachment)) if attachment.subscribe(&filter.filter, grant, retained) => {
                    grant.qos
                }
                _ => reason::QUOTA,
            });
        }
        self.session.subscribed(id, &codes);
    }

    /// Hands what waits for the client to its session, or ends the connection because too much does.
    fn pump(&mut self) {
        let overflowed = |attachment: &Attachment| attachment.mailbox.overflowed();
        if self.over.is_none() && self.attachment.as_ref().is_some_and(overflowed) {
            count(&self.shared.counters.slow_subscribers);
            self.session.close(reason::QUOTA);
            return;
        }
        self.deliver();
    }

    /// As far as the client takes it; whether that was any.
    fn deliver(&mut self) -> bool {
        let Some(attachment) = self.attachment.as_ref().filter(|_| self.over.is_none()) else {
            return false;
        };
        let now = Instant::now();
        let mut any = false;
        while self.session.can_deliver()
            && let Some(arrival) = attachment.mailbox.take()
        {
            any = true;
            let expiry = arrival.remaining(now);
            if expiry != Some(0) {
                self.session.deliver(arrival, expiry);
            }
        }
        any
    }

    fn stop(&mut self) {
        self.stopping = true;
        self.session.stop();
        if let Some(held) = self.held.take() {
            self.session.answer(held.token, Answer::Dropped);
        }
    }

    /// Whatever the disk has is still answered; nothing else ever will be.
    fn journal_ended(&mut self) {
        for (token, answer) in self.answers.take() {
            self.session.answer(token, answer);
        }
        let position = *self.durable.borrow();
        self.session.durable(position);
        self.session.close(if self.stopping {
            reason::SHUTTING_DOWN
        } else {
            reason::UNSPECIFIED
        });
    }

    /// Leaves the session, says the last words and tells the log.
    fn leave(mut self) {
        self.session.gone();
        self.route_pending();
        self.shared.strangers.known(self.name);
        if let Some(End::Violation(violation)) = self.over {
            count(&self.shared.counters.protocol_errors);
            if let Some(unsaid) = self.shared.quiet.may_speak() {
                let client = self.key.as_ref().map_or("", |key| &*key.client);
                tracing::warn!(peer = %self.peer, client, reason = %violation, unsaid, "client disconnected");
            }
        }
        let Some(attachment) = self.attachment.take() else {
            return;
        };
        // Everybody else leaves too: nobody would hear a will now.
        let silent = self.stopping || matches!(self.over, Some(End::Goodbye));
        let will = self.will.take().filter(|_| !silent);
        let absence = self.session.absence();
        let said = attachment.leave(self.session.keep(), absence, will);
        if let (Some(message), Some(key)) = (said, &self.key) {
            self.shared.publish_will(key.user.as_deref(), message);
        }
    }
}

/// Which deadline is next.
#[derive(Clone, Copy)]
enum Deadline {
    Connect,
    Silence,
    Unread,
    Parked,
    Stop,
    Close,
}

impl Clocks {
    fn note(&mut self, connection: &Connection<'_>, now: Instant, reads: bool, unwritten: bool) {
        if !reads {
            // Whoever is not read cannot be blamed for silence.
            self.heard = now;
        }
        self.unwritten = if unwritten {
            self.unwritten.or(Some(now))
        } else {
            None
        };
        self.over = self.over.or(connection.over.map(|_| now));
        self.stopping = self.stopping.or(connection.stopping.then_some(now));
    }

    fn next(&self, connection: &Connection<'_>, reads: bool) -> (Instant, Deadline) {
        let mut next = (self.begun + Duration::from_hours(24 * 365), Deadline::Close);
        let mut sooner = |at: Option<Instant>, why: Deadline| {
            if let Some(at) = at.filter(|at| *at < next.0) {
                next = (at, why);
            }
        };
        if connection.over.is_some() {
            sooner(self.over.map(|at| at + CLOSE_PATIENCE), Deadline::Close);
            sooner(self.stopping.map(|at| at + STOP_CLOSE_PATIENCE), Deadline::Close);
            return next;
        }
        let begun = Some(self.begun).filter(|_| connection.attachment.is_none());
        sooner(begun.map(|at| at + CONNECT_PATIENCE), Deadline::Connect);
        let silence = connection.session.keep_alive().filter(|_| reads);
        sooner(silence.map(|silence| self.heard + silence), Deadline::Silence);
        sooner(self.unwritten.map(|at| at + WRITE_PATIENCE), Deadline::Unread);
        let parked = connection.held.as_ref().and_then(|held| held.parked);
        sooner(parked.map(|at| at + PARKED_PATIENCE), Deadline::Parked);
        sooner(self.stopping.map(|at| at + STOP_PATIENCE), Deadline::Stop);
        next
    }
}

/// Waits for what arrives in a mailbox, and gives it back; without one, for ever.
async fn arrived(mailbox: Option<Arc<Mailbox>>) -> Option<Arc<Mailbox>> {
    match mailbox {
        Some(mailbox) => {
            mailbox.arrived().await;
            Some(mailbox)
        }
        None => std::future::pending().await,
    }
}

async fn cancelled(token: Option<CancellationToken>) {
    match token {
        Some(token) => token.cancelled().await,
        None => std::future::pending().await,
    }
}

/// What a future answers without waiting.
async fn at_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| {
        Poll::Ready(match future.as_mut().poll(context) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        })
    })
    .await
}
