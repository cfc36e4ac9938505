//! A broker for tests, by hand: it records before it acknowledges, and misbehaves as told. MQTT 5 and 3.1.1, as
//! little of them as an uplink uses.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::Version;

/// What the broker is like.
#[derive(Clone)]
pub(super) struct Manners {
    pub version: Version,
    /// Acknowledges only when so many wait (or nothing comes for a while), then in reverse.
    pub hold: usize,
    /// Resets a connection after so many publishes (and a few more on every further one), unanswered ones lost.
    pub reset_after: Option<usize>,
    /// The reason for the `n`th publish ever (from 1) of a sequence.
    pub reason: fn(sequence: u64, n: usize) -> u8,
    /// The reason for the farewell.
    pub farewell: u8,
    pub receive_max: Option<u16>,
    pub max_packet: Option<u32>,
    pub tls: Option<TlsAcceptor>,
}

impl Manners {
    pub(super) fn good(version: Version) -> Self {
        Self {
            version,
            hold: 1,
            reset_after: None,
            reason: |_, _| 0,
            farewell: 0,
            receive_max: None,
            max_packet: None,
            tls: None,
        }
    }
}

/// What it got, in order.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Got {
    Connect {
        clean: bool,
        will: Option<(String, String)>,
        username: String,
        password: String,
    },
    Publish {
        topic: String,
        payload: String,
        retain: bool,
        content_type: String,
    },
    Disconnect,
    /// The connection ended without one: the will is published.
    Cut,
}

#[derive(Default)]
struct Record {
    got: Vec<Got>,
    most_unanswered: usize,
    connections: usize,
}

pub(super) struct Broker {
    pub port: u16,
    record: Arc<Mutex<Record>>,
    changed: watch::Sender<()>,
    _tasks: JoinSet<()>,
}

impl Broker {
    pub(super) async fn start(manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let record = Arc::new(Mutex::new(Record::default()));
        let changed = watch::Sender::new(());
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, manners, Arc::clone(&record), changed.clone()));
        Self {
            port,
            record,
            changed,
            _tasks: tasks,
        }
    }

    pub(super) fn got(&self) -> Vec<Got> {
        self.record.lock().unwrap().got.clone()
    }

    pub(super) fn most_unanswered(&self) -> usize {
        self.record.lock().unwrap().most_unanswered
    }

    pub(super) fn connections(&self) -> usize {
        self.record.lock().unwrap().connections
    }

    /// The sequences of all events, in the order they arrived.
    pub(super) fn sequences(&self) -> Vec<u64> {
        self.got().iter().filter_map(sequence).collect()
    }

    pub(super) async fn gets(&self, what: impl Fn(&[Got]) -> bool) {
        let mut changed = self.changed.subscribe();
        let waited = changed.wait_for(|()| what(&self.got()));
        assert!(
            timeout(super::super::tests::PATIENCE, waited).await.is_ok(),
            "got {:?}",
            self.got()
        );
    }
}

/// The sequence of an event; none for what is none.
pub(super) fn sequence(got: &Got) -> Option<u64> {
    let Got::Publish { payload, .. } = got else {
        return None;
    };
    let json: serde_json::Value = serde_json::from_str(payload).unwrap();
    Some(json.get("sequence")?.as_str().unwrap().parse().unwrap())
}

async fn accept(
    listener: TcpListener,
    manners: Manners,
    record: Arc<Mutex<Record>>,
    changed: watch::Sender<()>,
) {
    let mut sessions = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let number = {
            let mut record = record.lock().unwrap();
            record.connections += 1;
            record.connections
        };
        let session = Session {
            manners: manners.clone(),
            record: Arc::clone(&record),
            changed: changed.clone(),
            publishes: 0,
            number,
            owed: Vec::new(),
        };
        sessions.spawn(serve(stream, session));
    }
}

async fn serve(stream: TcpStream, session: Session) {
    // Errors are the other side's leave.
    let _ended = match session.manners.tls.clone() {
        None => session.run(stream).await,
        Some(acceptor) => match acceptor.accept(stream).await {
            Ok(stream) => session.run(stream).await,
            Err(error) => Err(error),
        },
    };
}

struct Session {
    manners: Manners,
    record: Arc<Mutex<Record>>,
    changed: watch::Sender<()>,
    publishes: usize,
    number: usize,
    owed: Vec<(u16, u8)>,
}

impl Session {
    async fn run(mut self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
        let mut buffer = Vec::new();
        loop {
            while let Some((kind, body)) = take_packet(&mut buffer) {
                match kind >> 4 {
                    1 => {
                        self.note(self.connect(&body));
                        stream.write_all(&self.connack()).await?;
                    }
                    3 => {
                        self.publish(kind, &body);
                        let limit = self.manners.reset_after.map(|after| after + self.number % 7);
                        if limit.is_some_and(|limit| self.publishes >= limit) {
                            return Ok(());
                        }
                    }
                    12 => stream.write_all(&[0xd0, 0]).await?,
                    14 => {
                        self.note(Got::Disconnect);
                        return Ok(());
                    }
                    other => panic!("packet type {other} from an uplink"),
                }
            }
            if self.owed.len() >= self.manners.hold {
                stream.write_all(&self.acknowledge()).await?;
            }
            match timeout(Duration::from_millis(20), stream.read_buf(&mut buffer)).await {
                Ok(Ok(0)) => {
                    self.note(Got::Cut);
                    return Ok(());
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => stream.write_all(&self.acknowledge()).await?,
            }
        }
    }

    fn note(&self, got: Got) {
        self.record.lock().unwrap().got.push(got);
        self.changed.send_replace(());
    }

    fn is_v5(&self) -> bool {
        self.manners.version == Version::V5
    }

    fn connect(&self, body: &[u8]) -> Got {
        let mut body = Reader(body);
        assert_eq!(body.text(), "MQTT");
        assert_eq!(body.byte(), if self.is_v5() { 5 } else { 4 });
        let flags = body.byte();
        body.take(2);
        if self.is_v5() {
            body.properties();
        }
        body.text();
        let mut will = None;
        if flags & 0x04 != 0 {
            assert_eq!(flags & 0x38, 0x28, "the will is retained, at QoS 1");
            if self.is_v5() {
                body.properties();
            }
            will = Some((body.text(), body.text()));
        }
        let username = if flags & 0x80 == 0 {
            String::new()
        } else {
            body.text()
        };
        let password = if flags & 0x40 == 0 {
            String::new()
        } else {
            body.text()
        };
        Got::Connect {
            clean: flags & 0x02 != 0,
            will,
            username,
            password,
        }
    }

    fn connack(&self) -> Vec<u8> {
        let mut properties = Vec::new();
        if let Some(max) = self.manners.receive_max {
            properties.push(0x21);
            properties.extend(max.to_be_bytes());
        }
        if let Some(max) = self.manners.max_packet {
            properties.push(0x27);
            properties.extend(max.to_be_bytes());
        }
        if !self.is_v5() {
            return vec![0x20, 2, 0, 0];
        }
        let length = u8::try_from(properties.len()).unwrap();
        let mut packet = vec![0x20, 3 + length, 0, 0, length];
        packet.extend(properties);
        packet
    }

    fn publish(&mut self, kind: u8, body: &[u8]) {
        assert_eq!(kind & 0x06, 0x02, "all is published at QoS 1");
        let mut body = Reader(body);
        let topic = body.text();
        let pkid = u16::from_be_bytes(body.take(2).try_into().unwrap());
        let mut content_type = String::new();
        if self.is_v5() {
            let mut properties = Reader(body.properties());
            if !properties.0.is_empty() {
                assert_eq!(properties.byte(), 0x03, "the content type is the only property");
                content_type = properties.text();
            }
        }
        let payload = String::from_utf8(body.0.to_vec()).unwrap();
        let got = Got::Publish {
            topic,
            payload,
            retain: kind & 1 != 0,
            content_type,
        };
        let number = sequence(&got);
        let is_farewell = matches!(&got, Got::Publish { payload, .. } if payload.contains("\"offline\""));
        assert!(
            self.owed.iter().all(|(owed, _)| *owed != pkid),
            "packet id {pkid} is in use"
        );
        self.note(got);
        self.publishes += 1;
        let of_presence = if is_farewell { self.manners.farewell } else { 0 };
        let reason = number.map_or(of_presence, |number| {
            let seen = self
                .record
                .lock()
                .unwrap()
                .got
                .iter()
                .filter(|got| sequence(got) == Some(number))
                .count();
            (self.manners.reason)(number, seen)
        });
        self.owed.push((pkid, reason));
        let mut record = self.record.lock().unwrap();
        record.most_unanswered = record.most_unanswered.max(self.owed.len());
    }

    fn acknowledge(&mut self) -> Vec<u8> {
        let mut packets = Vec::new();
        for (pkid, reason) in self.owed.drain(..).rev() {
            let [high, low] = pkid.to_be_bytes();
            if reason == 0 {
                packets.extend([0x40, 2, high, low]);
            } else {
                packets.extend([0x40, 4, high, low, reason, 0]);
            }
        }
        packets
    }
}

/// Takes a whole packet off the front: its first byte and what follows the length.
fn take_packet(buffer: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let kind = *buffer.first()?;
    let (length, digits) = varint(buffer.get(1..)?)?;
    let end = 1 + digits + length;
    if buffer.len() < end {
        return None;
    }
    let packet: Vec<u8> = buffer.drain(..end).collect();
    Some((kind, packet[1 + digits..].to_vec()))
}

fn varint(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }
    fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }
    fn text(&mut self) -> String {
        let length = u16::from_be_bytes(self.take(2).try_into().unwrap());
        String::from_utf8(self.take(usize::from(length)).to_vec()).unwrap()
    }
    fn properties(&mut self) -> &'a [u8] {
        let (length, digits) = varint(self.0).unwrap();
        self.take(digits);
        self.take(length)
    }
}
