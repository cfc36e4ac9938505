//! The loop against a sink that does as it is told, and a log in memory.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use tokio::{sync::mpsc, task::JoinSet};

use super::*;
use crate::{
    event::{Data, Draft, Epoch, Event, Origin, Severity},
    time::{BootId, ClockQuality, EngineTime, Moment, Timestamp},
};

mod dead;
mod filtered;
mod flapping;
mod stopping;

/// Longer than anything here takes on the slowest machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// Why the sink stops there.
const FULL: Full = Full { letters: 0, bytes: 0 };

/// A journal in memory: all that is appended is durable.
#[derive(Clone)]
pub(super) struct MemoryLog(Arc<Shared>);

struct Shared {
    entries: Mutex<Vec<Entry>>,
    durable: watch::Sender<Position>,
    cursor: watch::Sender<Cursor>,
    dead: Mutex<Vec<DeadLetter>>,
    /// Passed, read and next, of those that were come to.
    gaps: Mutex<Vec<(u64, u64, u64)>>,
    /// How many dead letters fit.
    most: usize,
    /// What is set aside is durable only with the next event.
    waits: AtomicBool,
}

impl MemoryLog {
    pub(super) fn with_events(count: u64) -> Self {
        Self::with_room_for(0, count)
    }

    /// For so many dead letters, and with so many events.
    fn with_room_for(most: usize, count: u64) -> Self {
        let shared = Shared {
            entries: Mutex::default(),
            durable: watch::Sender::new(Position(0)),
            cursor: watch::Sender::new(Cursor::default()),
            dead: Mutex::default(),
            gaps: Mutex::default(),
            most,
            waits: AtomicBool::new(false),
        };
        let log = Self(Arc::new(shared));
        log.append(count);
        log
    }

    fn gaps(&self) -> std::sync::MutexGuard<'_, Vec<(u64, u64, u64)>> {
        self.0.gaps.lock().unwrap()
    }

    fn dead(&self) -> Vec<u64> {
        let dead = self.0.dead.lock().unwrap();
        dead.iter().map(|letter| letter.entry.sequence.0).collect()
    }

    /// All its dead letters are to be sent again.
    fn resend(&self) {
        for letter in self.0.dead.lock().unwrap().iter_mut() {
            letter.resend = true;
        }
        self.0.durable.send_modify(|_| {});
    }

    pub(super) fn append(&self, count: u64) {
        let mut entries = self.0.entries.lock().unwrap();
        for _ in 0..count {
            let number = u64::try_from(entries.len()).unwrap() + 1;
            entries.push(entry(number));
        }
        let durable = entries.last().map_or(Position(0), |entry| entry.position);
        drop(entries);
        self.0.durable.send_replace(durable);
    }

    /// Events of these severities.
    fn append_graded(&self, severities: &[Severity]) {
        let mut entries = self.0.entries.lock().unwrap();
        for severity in severities {
            let number = entries.last().map_or(0, |last| last.sequence.0) + 1;
            entries.push(graded(number, *severity));
        }
        let durable = entries.last().map_or(Position(0), |entry| entry.position);
        drop(entries);
        self.0.durable.send_replace(durable);
    }

    /// As if its room had been needed.
    fn discard(&self, position: Position) {
        self.0
            .entries
            .lock()
            .unwrap()
            .retain(|entry| entry.position != position);
    }

    pub(super) fn acknowledged(&self) -> Sequence {
        self.0.cursor.borrow().sequence
    }

    pub(super) async fn acknowledges(&self, sequence: u64) {
        let mut cursor = self.0.cursor.subscribe();
        let reached = cursor.wait_for(|cursor| cursor.sequence >= Sequence(sequence));
        let in_time = tokio::time::timeout(PATIENCE, reached).await;
        assert!(
            in_time.is_ok(),
            "{:?} is acknowledged, not {sequence}",
            self.acknowledged()
        );
    }
}

impl Log for MemoryLog {
    fn read_after(
        &self,
        cursor: Cursor,
        limit: Limit,
    ) -> impl Future<Output = Result<Vec<Entry>, journal::Error>> + Send + 'static {
        let entries = self.0.entries.lock().unwrap();
        let after = entries.iter().filter(|entry| entry.position > cursor.position);
        let found = after.take(limit.entries).cloned().collect();
        std::future::ready(Ok(found))
    }
    fn durable(&self) -> watch::Receiver<Position> {
        self.0.durable.subscribe()
    }
    fn cursor(&self, _: &SinkName) -> Cursor {
        *self.0.cursor.borrow()
    }
    fn acknowledge(&self, _: &SinkName, through: Cursor) {
        let before = self.0.cursor.send_replace(through);
        assert!(before < through, "a cursor moves forward only");
    }
    fn came_to(&self, _: &SinkName, before: Cursor, next: &Entry) {
        self.0
            .gaps
            .lock()
            .unwrap()
            .push((before.passed.0, before.sequence.0, next.sequence.0));
    }
    fn set_aside(&self, refused: &Refused<'_>) -> Result<Position, Full> {
        let mut dead = self.0.dead.lock().unwrap();
        if dead.len() >= self.0.most {
            return Err(Full {
                letters: dead.len(),
                bytes: 0,
            });
        }
        dead.push(refused.letter(refused.entry.event.recorded, 1));
        let durable = self.0.durable.borrow().0;
        Ok(Position(durable + u64::from(self.0.waits.load(Relaxed))))
    }
    fn letter_of(&self, _: &SinkName, position: Position) -> Option<DeadLetter> {
        let dead = self.0.dead.lock().unwrap();
        dead.iter()
            .find(|letter| letter.entry.position == position)
            .cloned()
    }
    fn letter_to_resend(&self, _: &SinkName) -> Option<DeadLetter> {
        let dead = self.0.dead.lock().unwrap();
        dead.iter().find(|letter| letter.resend).cloned()
    }
    fn settle(&self, letter: &DeadLetter, refused: Option<&str>) {
        let mut dead = self.0.dead.lock().unwrap();
        dead.retain_mut(|kept| {
            if kept.entry.position != letter.entry.position {
                return true;
            }
            kept.resend = false;
            refused.is_some()
        });
    }
    fn last(&self) -> Sequence {
        self.0
            .entries
            .lock()
            .unwrap()
            .last()
            .map_or(Sequence(0), |entry| entry.sequence)
    }
}

pub(super) fn origin() -> Arc<Origin> {
    Arc::new(Origin {
        gateway: "gw".into(),
        source: "urn:tidegate:gateway:gw".into(),
        labels: crate::event::Labels::new(),
        version: "0.1.0".into(),
    })
}

/// Positions are not sequences: three frames to an event.
fn entry(number: u64) -> Entry {
    graded(number, Severity::Info)
}

fn graded(number: u64, severity: Severity) -> Entry {
    let draft = Draft {
        kind: "io.tidegate.gateway.GatewayAlive".into(),
        name: "GatewayAlive".into(),
        subject: "gw".into(),
        about: "gw".into(),
        severity,
        at: EngineTime(number.cast_signed()),
        transition: None,
        correlation: None,
        data: Data::Gateway(serde_json::Map::new()),
    };
    let recorded = Moment {
        boot_id: BootId(1),
        boot: EngineTime(number.cast_signed()),
        wall: Timestamp(1_795_255_230_000_000),
        quality: ClockQuality::Synchronised,
    };
    Entry {
        position: Position(number * 3),
        epoch: Epoch(7),
        sequence: Sequence(number),
        event: Arc::new(Event {
            draft,
            origin: origin(),
            recorded,
        }),
    }
}

pub(super) fn terms() -> Terms {
    Terms {
        max_attempts: 3,
        ..Terms::new("cloud".parse().unwrap())
    }
}

pub(super) fn pace() -> Pace {
    Pace {
        base: Duration::from_millis(2),
        cap: Duration::from_millis(20),
        ack_timeout: PATIENCE,
    }
}

/// What the scripted sink got, in order: (connection, sequence, previous).
type Got = (usize, u64, u64);

struct ScriptedSink {
    /// For each connection its answers; `None`: it cannot be made.
    connections: VecDeque<Option<mpsc::Receiver<Verdict>>>,
    limit: usize,
    made: usize,
    got: mpsc::Sender<Got>,
}

struct ScriptedLink {
    number: usize,
    limit: usize,
    answers: mpsc::Receiver<Verdict>,
    got: mpsc::Sender<Got>,
}

impl Sink for ScriptedSink {
    type Link = ScriptedLink;
    async fn connect(&mut self) -> Result<ScriptedLink, String> {
        self.made += 1;
        let answers = self.connections.pop_front().flatten().ok_or("nobody there")?;
        Ok(ScriptedLink {
            number: self.made,
            limit: self.limit,
            answers,
            got: self.got.clone(),
        })
    }
}

impl Link for ScriptedLink {
    fn limit(&self) -> usize {
        self.limit
    }
    fn send(&mut self, entry: &Entry, previous: Sequence) {
        self.got
            .try_send((self.number, entry.sequence.0, previous.0))
            .unwrap();
    }
    fn said(&mut self) -> Option<Verdict> {
        self.answers.try_recv().ok()
    }
    async fn next(&mut self) -> Verdict {
        match self.answers.recv().await {
            Some(verdict) => verdict,
            None => std::future::pending().await,
        }
    }
    async fn close(self) {}
}

/// A loop that runs, and its strings.
struct Bench {
    log: MemoryLog,
    answers: Vec<mpsc::Sender<Verdict>>,
    got: mpsc::Receiver<Got>,
    status: watch::Receiver<Status>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Bench {
    /// `connections`: which of the attempts succeed.
    fn new(events: u64, limit: usize, connections: &[bool], pace: Pace) -> Self {
        Self::on(MemoryLog::with_events(events), limit, connections, pace)
    }

    fn on(log: MemoryLog, limit: usize, connections: &[bool], pace: Pace) -> Self {
        Self::under(terms(), log, limit, connections, pace)
    }

    fn under(terms: Terms, log: MemoryLog, limit: usize, connections: &[bool], pace: Pace) -> Self {
        let (got_in, got) = mpsc::channel(1000);
        let mut answers = Vec::new();
        let mut script = VecDeque::new();
        for &succeeds in connections {
            script.push_back(succeeds.then(|| {
                let (sender, receiver) = mpsc::channel(1000);
                answers.push(sender);
                receiver
            }));
        }
        let sink = ScriptedSink {
            connections: script,
            limit,
            made: 0,
            got: got_in,
        };
        let (sender, status) = watch::channel(Status::default());
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let forwarder = Forwarder::new(terms, log.clone(), sink, pace, sender);
        tasks.spawn(forwarder.run(stop.clone()));
        Self {
            log,
            answers,
            got,
            status,
            stop,
            tasks,
        }
    }

    async fn gets(&mut self, expected: &[Got]) {
        for &expected in expected {
            let got = tokio::time::timeout(PATIENCE, self.got.recv()).await;
            assert_eq!(got.expect("the sink got nothing more"), Some(expected));
        }
    }

    async fn answer(&self, connection: usize, verdict: Verdict) {
        self.answers[connection].send(verdict).await.unwrap();
    }

    async fn delivered(&self, connection: usize, sequence: u64) {
        self.answer(connection, Verdict::Delivered(Position(sequence * 3)))
            .await;
    }

    async fn refused(&self, connection: usize, sequence: u64) {
        self.answer(
            connection,
            Verdict::Refused(Position(sequence * 3), "no".to_owned()),
        )
        .await;
    }

    async fn status(&mut self, what: impl FnMut(&Status) -> bool) -> Status {
        let found = tokio::time::timeout(PATIENCE, self.status.wait_for(what)).await;
        found.expect("the status never said so").unwrap().clone()
    }

    async fn ends(&mut self) {
        let ended = tokio::time::timeout(PATIENCE, self.tasks.join_next()).await;
        ended.expect("the loop did not end").unwrap().unwrap();
    }
}

#[tokio::test]
async fn no_more_than_the_window_is_on_its_way_and_each_names_the_one_before() {
    let mut bench = Bench::new(4, 2, &[true], pace());
    bench.gets(&[(1, 1, 0), (1, 2, 1)]).await;
    bench.delivered(0, 2).await;
    bench.delivered(0, 1).await;
    bench.log.acknowledges(2).await;
    bench.gets(&[(1, 3, 2), (1, 4, 3)]).await;
    assert!(bench.got.try_recv().is_err());
}

#[tokio::test]
async fn the_cursor_never_passes_a_hole_and_a_new_connection_starts_there() {
    let mut bench = Bench::new(3, 3, &[true, true], pace());
    bench.gets(&[(1, 1, 0), (1, 2, 1), (1, 3, 2)]).await;
    bench.delivered(0, 1).await;
    bench.delivered(0, 3).await;
    bench.answer(0, Verdict::Lost("reset".to_owned())).await;
    bench.gets(&[(2, 2, 1), (2, 3, 2)]).await;
    assert_eq!(bench.log.acknowledged(), Sequence(1));
    bench.delivered(1, 3).await;
    bench.delivered(1, 2).await;
    bench.log.acknowledges(3).await;
    let status = bench.status(|status| status.acked == 4).await;
    assert_eq!((status.sent, status.redelivered, status.connections), (5, 2, 2));
}

#[tokio::test]
async fn more_than_is_read_in_one_go_comes_in_order_and_so_does_what_was_stored_meanwhile() {
    let batch = u64::try_from(AHEAD.entries).unwrap();
    // Two whole batches and nothing behind them: the third read, begun while the second goes out, finds nothing.
    let mut bench = Bench::new(2 * batch, 1, &[true], pace());
    for number in 1..=2 * batch + 2 {
        if number == 2 * batch {
            bench.log.append(2);
        }
        bench.gets(&[(1, number, number - 1)]).await;
        bench.delivered(0, number).await;
    }
    bench.log.acknowledges(2 * batch + 2).await;
    assert!(bench.got.try_recv().is_err());
}

#[tokio::test]
async fn what_becomes_durable_later_is_sent_at_once() {
    let mut bench = Bench::new(0, 2, &[true], pace());
    bench.status(|status| status.connected).await;
    bench.log.append(1);
    bench.gets(&[(1, 1, 0)]).await;
}

#[tokio::test]
async fn a_sink_that_is_away_is_tried_until_it_is_back() {
    let mut bench = Bench::new(1, 2, &[false, false, false, true], pace());
    let status = bench.status(|status| status.last_error.is_some()).await;
    assert_eq!(status.last_error.as_deref(), Some("nobody there"));
    bench.gets(&[(4, 1, 0)]).await;
    assert!(
        !bench.status.borrow().connected,
        "nothing is proven before the first acknowledgement"
    );
    bench.delivered(0, 1).await;
    let status = bench.status(|status| status.connected).await;
    assert_eq!(status.last_error, None);
}

#[tokio::test]
async fn silence_for_the_ack_timeout_is_a_dead_connection() {
    let mut bench = Bench::new(
        2,
        2,
        &[true, true],
        Pace {
            ack_timeout: Duration::from_millis(30),
            ..pace()
        },
    );
    bench.gets(&[(1, 1, 0), (1, 2, 1), (2, 1, 0)]).await;
}

#[tokio::test]
async fn after_a_connection_without_progress_one_event_goes_alone_until_the_cursor_moves() {
    let mut bench = Bench::new(5, 3, &[true, true], pace());
    bench.gets(&[(1, 1, 0), (1, 2, 1), (1, 3, 2)]).await;
    bench.delivered(0, 2).await;
    bench.answer(0, Verdict::Lost("reset".to_owned())).await;
    bench.gets(&[(2, 1, 0)]).await;
    assert!(bench.got.try_recv().is_err());
    bench.delivered(1, 1).await;
    bench.gets(&[(2, 2, 1), (2, 3, 2), (2, 4, 3)]).await;
}

/// The oldest event is never answered, the one behind it always: each connection is worth no more than none.
#[tokio::test(start_paused = true)]
async fn a_sink_that_takes_all_but_the_oldest_event_is_tried_with_growing_waits_and_never_said_to_be_up() {
    let pace = Pace {
        base: Duration::from_secs(1),
        cap: Duration::from_secs(16),
        ..pace()
    };
    let mut bench = Bench::new(2, 2, &[true; 5], pace);
    let mut waits = Vec::new();
    for connection in 0..4 {
        // Alone from the second connection on: what is handed over at once is the oldest.
        bench.gets(&[(connection + 1, 1, 0)]).await;
        if connection == 0 {
            bench.gets(&[(1, 2, 1)]).await;
            bench.delivered(0, 2).await;
        }
        let before = Instant::now();
        bench
            .answer(connection, Verdict::Lost("not authorised".to_owned()))
            .await;
        bench
            .status(|status| status.connections == connection as u64 + 2)
            .await;
        waits.push(before.elapsed());
        assert!(!bench.status.borrow().connected);
    }
    let least = [500, 1000, 2000, 4000].map(Duration::from_millis);
    assert!(
        waits.iter().zip(least).all(|(wait, least)| *wait >= least),
        "{waits:?}"
    );
}

#[tokio::test]
async fn an_idle_connection_is_never_called_dead() {
    let mut bench = Bench::new(
        0,
        2,
        &[true],
        Pace {
            ack_timeout: Duration::from_millis(1),
            ..pace()
        },
    );
    let first = bench.status(|status| status.connected).await;
    let later = bench.status(|status| status.pulse > first.pulse + 2).await;
    assert_eq!((later.connected, later.connections), (true, 1));
}

#[tokio::test]
async fn a_refused_event_is_sent_again_alone_and_then_the_flow_goes_on() {
    let mut bench = Bench::new(5, 3, &[true], pace());
    bench.gets(&[(1, 1, 0), (1, 2, 1), (1, 3, 2)]).await;
    bench.refused(0, 2).await;
    bench.delivered(0, 1).await;
    bench.log.acknowledges(1).await;
    assert!(
        bench.got.try_recv().is_err(),
        "nothing is fed while a refusal is open"
    );
    bench.delivered(0, 3).await;
    bench.gets(&[(1, 2, 1)]).await;
    bench.delivered(0, 2).await;
    bench.gets(&[(1, 4, 3), (1, 5, 4)]).await;
    assert_eq!(bench.log.acknowledged(), Sequence(3));
}

#[tokio::test]
async fn a_sink_that_refuses_an_event_is_not_away_and_says_why_until_it_takes_the_event_or_that_is_discarded()
{
    let mut bench = Bench::new(2, 1, &[true], pace());
    bench.gets(&[(1, 1, 0)]).await;
    bench.refused(0, 1).await;
    let status = bench.status(|status| status.refused == 1).await;
    let refuses = |attempt| Some(format!("refuses an event (attempt {attempt} of 3): no"));
    assert_eq!((status.connected, status.last_error), (true, refuses(1)));
    bench.gets(&[(1, 1, 0)]).await;
    bench.delivered(0, 1).await;
    bench.gets(&[(1, 2, 1)]).await;
    assert_eq!(bench.status.borrow().last_error, None);
    bench.refused(0, 2).await;
    bench.status(|status| status.last_error == refuses(1)).await;
    bench.log.discard(Position(2 * 3));
    bench.log.acknowledges(2).await;
    let status = bench.status.borrow().clone();
    assert_eq!((status.connected, status.last_error), (true, None));
}

#[tokio::test]
async fn several_refused_events_are_settled_oldest_first() {
    let mut bench = Bench::new(4, 3, &[true], pace());
    bench.gets(&[(1, 1, 0), (1, 2, 1), (1, 3, 2)]).await;
    bench.refused(0, 3).await;
    bench.refused(0, 1).await;
    bench.delivered(0, 2).await;
    bench.gets(&[(1, 1, 0)]).await;
    bench.delivered(0, 1).await;
    bench.log.acknowledges(2).await;
    bench.gets(&[(1, 3, 2)]).await;
    bench.delivered(0, 3).await;
    bench.gets(&[(1, 4, 3)]).await;
}

#[tokio::test]
async fn an_event_refused_for_good_stops_the_sink_there_if_it_cannot_be_set_aside() {
    let mut bench = Bench::new(3, 1, &[true], pace());
    for _ in 0..5 {
        bench.gets(&[(1, 1, 0)]).await;
        bench.refused(0, 1).await;
    }
    let status = bench.status(|status| status.refused == 5).await;
    assert_eq!(
        status.last_error.as_deref(),
        Some(&*format!(
            "stopped at an event that it refuses (attempt 5): no; {FULL}"
        ))
    );
    assert_eq!(bench.log.acknowledged(), Sequence(0));
    bench.gets(&[(1, 1, 0)]).await;
    bench.delivered(0, 1).await;
    bench.gets(&[(1, 2, 1)]).await;
    assert_eq!(bench.status.borrow().last_error, None);
}

#[tokio::test]
async fn attempts_are_counted_across_connections() {
    let mut bench = Bench::new(1, 1, &[true, true, true, true], pace());
    for connection in 0..3 {
        bench.gets(&[(connection + 1, 1, 0)]).await;
        bench.refused(connection, 1).await;
        bench.answer(connection, Verdict::Lost("reset".to_owned())).await;
    }
    bench.gets(&[(4, 1, 0)]).await;
    bench.refused(3, 1).await;
    let status = bench.status(|status| status.refused == 4).await;
    assert_eq!(
        status.last_error.as_deref(),
        Some(&*format!(
            "stopped at an event that it refuses (attempt 4): no; {FULL}"
        ))
    );
}

#[tokio::test]
async fn a_refused_event_that_was_discarded_meanwhile_holds_nothing_back() {
    let mut bench = Bench::new(2, 2, &[true], pace());
    bench.gets(&[(1, 1, 0), (1, 2, 1)]).await;
    bench.log.discard(Position(3));
    bench.refused(0, 1).await;
    bench.delivered(0, 2).await;
    bench.log.acknowledges(2).await;
}

/// Waits that would show: a resend without them comes at once, in this test's time.
fn slow() -> Pace {
    Pace {
        base: Duration::from_secs(10),
        cap: Duration::from_secs(10),
        ..pace()
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_refused_after_another_refused_one_was_passed_is_not_sent_again_at_once() {
    let mut bench = Bench::new(3, 2, &[true, true], slow());
    bench.gets(&[(1, 1, 0), (1, 2, 1)]).await;
    bench.refused(0, 1).await;
    bench.status(|status| status.refused == 1).await;
    bench.log.discard(Position(3));
    bench.answer(0, Verdict::Lost("reset".to_owned())).await;
    bench.gets(&[(2, 2, 1)]).await;
    bench.delivered(1, 2).await;
    bench.gets(&[(2, 3, 2)]).await;
    let before = Instant::now();
    bench.refused(1, 3).await;
    bench.gets(&[(2, 3, 2)]).await;
    assert!(
        before.elapsed() >= Duration::from_secs(5),
        "{:?}",
        before.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn an_event_refused_first_after_a_refused_one_was_discarded_is_not_sent_again_at_once() {
    let mut bench = Bench::new(2, 2, &[true, true], slow());
    bench.gets(&[(1, 1, 0), (1, 2, 1)]).await;
    bench.refused(0, 1).await;
    bench.status(|status| status.refused == 1).await;
    bench.log.discard(Position(3));
    bench.answer(0, Verdict::Lost("reset".to_owned())).await;
    bench.gets(&[(2, 2, 1)]).await;
    let before = Instant::now();
    bench.refused(1, 2).await;
    bench.gets(&[(2, 2, 1)]).await;
    assert!(
        before.elapsed() >= Duration::from_secs(5),
        "{:?}",
        before.elapsed()
    );
}

#[tokio::test]
async fn the_pulse_goes_on_while_the_sink_is_away() {
    let slow = Pace {
        base: PATIENCE * 10,
        cap: PATIENCE * 10,
        ..pace()
    };
    let mut bench = Bench::new(1, 1, &[false], slow);
    let away = bench.status(|status| status.last_error.is_some()).await;
    bench.status(|status| status.pulse > away.pulse + 2).await;
}

#[tokio::test]
async fn a_sink_that_begins_at_the_end_is_not_behind_by_what_it_will_never_get() {
    for (later, behind) in [(0, 0), (2, 2)] {
        let log = MemoryLog::with_events(5);
        // Where its chain starts: behind the events there are, and no sequence yet.
        log.0.cursor.send_replace(Cursor::start(Position(5 * 3)));
        log.append(later);
        let mut bench = Bench::on(log.clone(), 1, &[false], pace());
        let away = bench.status(|status| status.last_error.is_some()).await;
        assert_eq!(log.last().0 - away.delivered.0, behind);
    }
}

#[tokio::test(start_paused = true)]
async fn a_backlog_is_sent_no_faster_than_the_drain_rate_and_a_live_event_at_once() {
    let log = MemoryLog::with_events(40);
    let mut limited = terms();
    limited.drain_rate = Some(bucket::Rate {
        count: 10,
        per: Duration::from_secs(1),
    });
    let mut bench = Bench::under(limited, log.clone(), 100, &[true], slow());
    let began = Instant::now();
    for number in 1..=40 {
        bench.gets(&[(1, number, number - 1)]).await;
        let earliest = Duration::from_millis(100 * number.saturating_sub(10));
        assert!(
            began.elapsed() >= earliest,
            "{number} came after {:?}",
            began.elapsed()
        );
        bench.delivered(0, number).await;
    }
    assert!(began.elapsed() < Duration::from_secs(4), "and no slower");
    log.acknowledges(40).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let live = Instant::now();
    log.append(1);
    bench.gets(&[(1, 41, 40)]).await;
    assert!(live.elapsed() < Duration::from_millis(10), "{:?}", live.elapsed());
}
