//! An endpoint that keeps an event just before it acknowledges it, and misbehaves as told, at random from a seed:
//! what it got and did not acknowledge died with the connection. What the uplink does against the standard or its own window is kept in [`Server::violations`].

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::BytesMut;
use serde_json::Value;
use tidegate::source::mqtt::wire::{
    Packet, Publish, Version, decode,
    encode::{self, Ack, Offer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};

use super::PATIENCE;

/// With nothing new for so long, what was held back is answered: the server is late, not dead.
const IDLE: Duration = Duration::from_millis(3);

/// How a CONNECT is answered.
#[derive(Clone, Copy)]
pub(crate) enum Greeting {
    Accept,
    Refuse(u8),
    /// TCP is taken, and then nothing.
    Silence,
}

/// How a publish is answered.
#[derive(Clone, Copy)]
pub(crate) enum Reply {
    /// PUBACK with this reason.
    Ack(u8),
    /// No PUBACK: a DISCONNECT with this reason.
    Disconnect(u8),
    Silence,
}

/// What the `n`th arrival (from 1) of the event with this sequence is answered.
pub(crate) type Answering = fn(sequence: u64, n: usize) -> Reply;

#[derive(Clone)]
pub(crate) struct Manners {
    pub greeting: Greeting,
    /// What a publish is answered.
    pub reply: Answering,
    /// One publish of so many ends its connection, at a random place; 0: none does.
    pub reset_one_in: u32,
    /// So many acknowledgements may be held back; then some go, in random order.
    pub hold: usize,
    /// Also announced to version 5.
    pub receive_maximum: u16,
}

impl Manners {
    pub(crate) fn good() -> Self {
        Self {
            greeting: Greeting::Accept,
            reply: |_, _| Reply::Ack(0),
            reset_one_in: 0,
            hold: 0,
            receive_maximum: u16::MAX,
        }
    }
}

/// One arrival of an event.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub epoch: String,
    pub sequence: u64,
    pub previous: u64,
    pub payload: bytes::Bytes,
}

#[derive(Default)]
struct Record {
    arrivals: Vec<Arrival>,
    times_seen: HashMap<(String, u64), usize>,
    kept: HashSet<(String, u64)>,
    connections: usize,
    most_unanswered: usize,
    violations: Vec<String>,
}

#[derive(Clone)]
struct Shared {
    manners: Arc<Mutex<Manners>>,
    record: Arc<Mutex<Record>>,
    changed: watch::Sender<()>,
}

pub(crate) struct Server {
    pub(crate) port: u16,
    shared: Shared,
    _tasks: JoinSet<()>,
}

impl Server {
    pub(crate) async fn start(manners: Manners, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Shared {
            manners: Arc::new(Mutex::new(manners)),
            record: Arc::default(),
            changed: watch::Sender::new(()),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, shared.clone(), fastrand::Rng::with_seed(seed)));
        Self {
            port,
            shared,
            _tasks: tasks,
        }
    }

    /// From now on, on open connections too.
    pub(crate) fn behave(&self, manners: Manners) {
        *self.shared.manners.lock().unwrap() = manners;
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.shared.record.lock().unwrap()
    }

    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.record().arrivals.clone()
    }

    /// The first arrival of each event, in order.
    pub(crate) fn firsts(&self) -> Vec<Arrival> {
        let mut seen = HashMap::new();
        let mut firsts = Vec::new();
        for arrival in self.arrivals() {
            let key = (arrival.epoch.clone(), arrival.sequence);
            match seen.get(&key) {
                None => {
                    seen.insert(key, arrival.payload.clone());
                    firsts.push(arrival);
                }
                Some(first) => assert_eq!(*first, arrival.payload, "a redelivery is the same event"),
            }
        }
        firsts
    }

    /// The sequences it has and acknowledged, whatever the epoch, in order.
    pub(crate) fn kept(&self) -> Vec<u64> {
        let mut kept: Vec<u64> = self.record().kept.iter().map(|(_, sequence)| *sequence).collect();
        kept.sort_unstable();
        kept
    }

    pub(crate) fn sequences(&self) -> Vec<u64> {
        self.arrivals().iter().map(|arrival| arrival.sequence).collect()
    }

    pub(crate) fn connections(&self) -> usize {
        self.record().connections
    }

    /// Publishes that waited for an answer at once.
    pub(crate) fn most_unanswered(&self) -> usize {
        self.record().most_unanswered
    }

    pub(crate) fn assert_no_violation(&self) {
        assert_eq!(self.record().violations, [""; 0]);
    }

    pub(crate) async fn until(&self, what: impl Fn(&Self) -> bool) {
        let mut changed = self.shared.changed.subscribe();
        let waited = timeout(PATIENCE, changed.wait_for(|()| what(self))).await;
        assert!(
            waited.is_ok(),
            "{} connections, {:?}",
            self.connections(),
            self.sequences()
        );
    }
}

async fn accept(listener: TcpListener, shared: Shared, mut random: fastrand::Rng) {
    let mut sessions = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        shared.record.lock().unwrap().connections += 1;
        shared.changed.send_replace(());
        let session = Session {
            shared: shared.clone(),
            random: random.fork(),
            version: None,
            owed: Vec::new(),
            silent: 0,
        };
        sessions.spawn(session.serve(stream));
    }
}

struct Owed {
    id: u16,
    reason: u8,
    /// None: it is no event.
    event: Option<(String, u64)>,
}

/// What follows a packet.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    GoOn,
    /// The connection ends after what was written.
    Close,
    /// It ends anywhere, even in the middle of an answer.
    Reset,
}

struct Session {
    shared: Shared,
    random: fastrand::Rng,
    version: Option<Version>,
    /// What is to be answered.
    owed: Vec<Owed>,
    /// Publishes that get no answer.
    silent: usize,
}

impl Session {
    async fn serve(mut self, stream: TcpStream) {
        // Errors are the other side's leave. What was to be written before an end of ours is part of the fault.
        drop(self.run(stream).await);
    }

    async fn run(&mut self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut input = BytesMut::new();
        loop {
            let mut out = BytesMut::new();
            let mut then = Then::GoOn;
            while then == Then::GoOn {
                match decode(&mut input, self.version, 1 << 20) {
                    Ok(Some(packet)) => then = self.take(packet, &mut out),
                    Ok(None) => break,
                    Err(violation) => {
                        self.violation(violation.to_string());
                        then = Then::Close;
                    }
                }
            }
            match then {
                Then::GoOn => {
                    if self.owed.len() > self.manners().hold {
                        let count = self.random.usize(1..=self.owed.len());
                        self.acknowledge(count, &mut out);
                    }
                }
                Then::Close => {
                    // Until the other side has left: an early close would take back what was just written.
                    stream.write_all(&out).await?;
                    stream.shutdown().await?;
                    while stream.read_buf(&mut input).await? > 0 {}
                    return Ok(());
                }
                Then::Reset => {
                    let count = self.random.usize(0..=self.owed.len());
                    self.acknowledge(count, &mut out);
                    let torn = self.random.usize(0..=out.len().min(3));
                    out.truncate(out.len() - torn);
                    return stream.write_all(&out).await;
                }
            }
            stream.write_all(&out).await?;
            let idle = if self.owed.is_empty() { PATIENCE } else { IDLE };
            match timeout(idle, stream.read_buf(&mut input)).await {
                Ok(Ok(0)) => return Ok(()),
                Ok(result) => drop(result?),
                Err(_) => {
                    let mut late = BytesMut::new();
                    self.acknowledge(self.owed.len(), &mut late);
                    stream.write_all(&late).await?;
                }
            }
        }
    }

    fn manners(&self) -> Manners {
        self.shared.manners.lock().unwrap().clone()
    }

    fn violation(&self, what: String) {
        self.shared.record.lock().unwrap().violations.push(what);
    }

    fn resets(&mut self, odds: u32) -> Then {
        if odds > 0 && self.random.u32(..odds) == 0 {
            Then::Reset
        } else {
            Then::GoOn
        }
    }

    fn take(&mut self, packet: Packet, out: &mut BytesMut) -> Then {
        let manners = self.manners();
        match packet {
            Packet::Connect(connect) => {
                self.version = Some(connect.version);
                if !connect.clean {
                    self.violation("an uplink's session is always clean".to_owned());
                }
                match manners.greeting {
                    Greeting::Accept => {}
                    Greeting::Refuse(reason) => {
                        encode::refused(out, connect.version, reason);
                        return Then::Close;
                    }
                    Greeting::Silence => return Then::GoOn,
                }
                let odds = manners.reset_one_in.min(10);
                if self.resets(odds) == Then::Reset {
                    return Then::Reset;
                }
                let offer = Offer {
                    receive_maximum: manners.receive_maximum,
                    max_packet: 1 << 20,
                    ..Offer::default()
                };
                // A session that was lost, or kept against the client's wish: it must not matter.
                let present = manners.reset_one_in > 0 && self.random.bool();
                encode::accepted(out, connect.version, present, &offer);
                self.resets(odds)
            }
            Packet::Publish(publish) => self.publish(&publish, &manners, out),
            Packet::PingReq => {
                encode::pong(out);
                Then::GoOn
            }
            Packet::Disconnect { .. } => Then::Close,
            other => {
                self.violation(format!("{other:?} from an uplink"));
                Then::Close
            }
        }
    }

    fn publish(&mut self, publish: &Publish, manners: &Manners, out: &mut BytesMut) -> Then {
        if publish.qos != 1 || publish.dup {
            self.violation(format!("{publish:?}"));
        }
        if self.owed.iter().any(|owed| owed.id == publish.id) {
            self.violation(format!("packet id {} is in use", publish.id));
        }
        let event = self.note(publish);
        let reply = event
            .as_ref()
            .map_or(Reply::Ack(0), |((_, sequence), n)| (manners.reply)(*sequence, *n));
        match reply {
            Reply::Ack(reason) => self.owed.push(Owed {
                id: publish.id,
                reason,
                event: event.map(|(event, _)| event),
            }),
            Reply::Silence => self.silent += 1,
            Reply::Disconnect(reason) => {
                // In order: what came before it was answered.
                self.acknowledge(self.owed.len(), out);
                // Without properties, as the standard allows.
                out.extend_from_slice(&[0xE0, 1, reason]);
                return Then::Close;
            }
        }
        let unanswered = self.owed.len() + self.silent;
        {
            let mut record = self.shared.record.lock().unwrap();
            record.most_unanswered = record.most_unanswered.max(unanswered);
        }
        self.shared.changed.send_replace(());
        self.resets(manners.reset_one_in)
    }

    /// Which event it is, and how often it has come. None: it is no event.
    fn note(&self, publish: &Publish) -> Option<((String, u64), usize)> {
        let event: Value = serde_json::from_slice(&publish.payload).unwrap();
        let number = |key: &str| event[key].as_str().map(|text| text.parse::<u64>().unwrap());
        let sequence = number("sequence")?;
        let epoch = event["epoch"].as_str().unwrap().to_owned();
        let mut record = self.shared.record.lock().unwrap();
        let seen = record.times_seen.entry((epoch.clone(), sequence)).or_default();
        *seen += 1;
        let seen = *seen;
        record.arrivals.push(Arrival {
            epoch: epoch.clone(),
            sequence,
            previous: number("previoussequence").unwrap(),
            payload: publish.payload.clone(),
        });
        Some(((epoch, sequence), seen))
    }

    /// Answers `count` of what is owed, in order if nothing is ever held back, else at random.
    fn acknowledge(&mut self, count: usize, out: &mut BytesMut) {
        if self.manners().hold > 0 {
            self.random.shuffle(&mut self.owed);
        }
        let version = self.version.unwrap_or(Version::V5);
        let mut record = self.shared.record.lock().unwrap();
        for Owed { id, reason, event } in self.owed.drain(..count) {
            if reason < 0x80 {
                record.kept.extend(event);
            }
            encode::acknowledge(out, version, Ack::PubAck, id, reason);
        }
        drop(record);
        self.shared.changed.send_replace(());
    }
}
