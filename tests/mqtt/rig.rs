//! A door in this process, and a client that says and hears packets as they are.
//!
//! Nobody here waits for time to pass. What a publish caused is done before it is acknowledged (`QoS` 0: before
//! the ping after it is answered), and what waits for a client comes before the answer to its ping: so "nothing
//! came" is what came before the answer.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use tidegate::{
    event::Position,
    hub::Hub,
    journal::Health,
    source::{
        Delivery, INTAKE_LEN, Stamps,
        mqtt::{Counters, Door, House, Settings},
    },
    time::Clock,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// What no step of a test may take longer than.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// `max-packet` and `max-inflight` of the door.
pub const MAX_PACKET: u16 = 65_000;
pub const MAX_INFLIGHT: u16 = 8;

/// The standard's numbers of version 5's properties.
pub mod property {
    pub const FORMAT: u8 = 1;
    pub const EXPIRY: u8 = 2;
    pub const CONTENT_TYPE: u8 = 3;
    pub const RESPONSE_TOPIC: u8 = 8;
    pub const CORRELATION: u8 = 9;
    pub const IDENTIFIER: u8 = 11;
    pub const SESSION_EXPIRY: u8 = 17;
    pub const ASSIGNED: u8 = 18;
    pub const AUTHENTICATION: u8 = 21;
    pub const WILL_DELAY: u8 = 24;
    pub const RECEIVE_MAXIMUM: u8 = 33;
    pub const ALIAS_MAXIMUM: u8 = 34;
    pub const ALIAS: u8 = 35;
    pub const USER: u8 = 38;
    pub const MAX_PACKET: u8 = 39;
    pub const SHARED_AVAILABLE: u8 = 42;
}

/// Number and value, in order. A value is what stands on the wire, but text and binary without their length,
/// and a user property as `key=value`.
pub type Properties = Vec<(u8, Vec<u8>)>;

/// The value of a property, if it is there once.
pub fn the(properties: &Properties, wanted: u8) -> Option<Vec<u8>> {
    let mut found = properties.iter().filter(|(name, _)| *name == wanted);
    let value = found.next().map(|(_, value)| value.clone());
    assert_eq!(found.next(), None, "twice");
    value
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V311,
    V5,
}

pub use Version::{V5, V311};

/// For behaviours that both versions share.
pub const BOTH: [Version; 2] = [V311, V5];

/// A publish, to be sent or as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    pub id: u16,
    pub properties: Properties,
}

pub fn message(topic: &str, payload: impl Into<Vec<u8>>, qos: u8) -> Message {
    Message {
        topic: topic.to_owned(),
        payload: payload.into(),
        qos,
        ..Message::default()
    }
}

pub fn retained(topic: &str, payload: impl Into<Vec<u8>>) -> Message {
    Message {
        retain: true,
        ..message(topic, payload, 1)
    }
}

/// The payloads, as text.
pub fn payloads(messages: &[Message]) -> Vec<String> {
    let text = |message: &Message| String::from_utf8(message.payload.clone()).expect("text");
    messages.iter().map(text).collect()
}

/// What a server says. `Closed`: it says nothing any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    Connack {
        present: bool,
        code: u8,
        properties: Properties,
    },
    Publish(Message),
    PubAck(u16, u8),
    PubRec(u16, u8),
    PubRel(u16, u8),
    PubComp(u16, u8),
    SubAck(u16, Vec<u8>),
    UnsubAck(u16, Vec<u8>),
    Pong,
    Disconnect(u8),
    Closed,
}

/// CONNECT.
#[derive(Clone, Debug)]
pub struct Hello {
    pub version: Version,
    pub client: String,
    pub user: Option<String>,
    pub clean: bool,
    pub keep_alive: u16,
    pub properties: Properties,
    pub will: Option<Message>,
}

/// With a clean session, no keep-alive, no will.
pub fn hello(version: Version, client: &str) -> Hello {
    Hello {
        version,
        client: client.to_owned(),
        user: None,
        clean: true,
        keep_alive: 0,
        properties: Properties::new(),
        will: None,
    }
}

/// One whose session stays: version 5 has to say for how long.
pub fn staying(version: Version, client: &str) -> Hello {
    let properties = match version {
        V311 => Properties::new(),
        V5 => vec![(property::SESSION_EXPIRY, 3600_u32.to_be_bytes().to_vec())],
    };
    Hello {
        clean: false,
        properties,
        ..hello(version, client)
    }
}

pub struct Rig {
    address: SocketAddr,
    pub hub: Hub,
    pub counters: Arc<Counters>,
    _deliveries: mpsc::Receiver<Delivery>,
    _durable: watch::Sender<Position>,
    _health: watch::Sender<Health>,
    _tasks: JoinSet<()>,
}

impl Rig {
    /// A door without tables: no publish waits for an engine.
    pub async fn open() -> Self {
        let (intake, deliveries) = mpsc::channel(INTAKE_LEN);
        let (durable, on_disk) = watch::channel(Position(0));
        let (health, told) = watch::channel(Health::default());
        let hub = Hub::new();
        let house = House {
            hub: hub.clone(),
            intake,
            durable: on_disk,
            health: told,
            stamps: Arc::new(Stamps::new(Clock::system(), Duration::from_mins(10))),
        };
        let settings = Settings {
            listen: vec!["127.0.0.1:0".parse().expect("an address")],
            max_packet: MAX_PACKET.into(),
            max_connections: 20,
            max_inflight: MAX_INFLIGHT,
            readings: Vec::new(),
            renamed: HashMap::new(),
        };
        let door = Door::bind(settings, house).await.expect("a free port");
        let (address, counters) = (door.local_addrs()[0], door.counters());
        let mut tasks = JoinSet::new();
        tasks.spawn(door.run(CancellationToken::new()));
        Self {
            address,
            hub,
            counters,
            _deliveries: deliveries,
            _durable: durable,
            _health: health,
            _tasks: tasks,
        }
    }

    /// Says CONNECT; what is said to it is still to be read.
    pub async fn knock(&self, hello: &Hello) -> Client {
        self.bytes(hello.version, &connect(hello)).await
    }

    /// A connection that begins with these bytes; the door's are read as this version's.
    pub async fn bytes(&self, version: Version, bytes: &[u8]) -> Client {
        let stream = TcpStream::connect(self.address).await.expect("the door");
        let mut client = Client {
            stream,
            version,
            last_id: 0,
            heard: VecDeque::new(),
        };
        client.send(bytes).await;
        client
    }

    /// A client that was accepted, whether it had a session, and what version 5 was told.
    pub async fn enter(&self, hello: &Hello) -> (Client, bool, Properties) {
        let mut client = self.knock(hello).await;
        match client.next().await {
            Packet::Connack {
                present,
                code: 0,
                properties,
            } => (client, present, properties),
            other => panic!("{hello:?} was answered {other:?}"),
        }
    }

    /// A client with a clean session.
    pub async fn client(&self, version: Version, name: &str) -> Client {
        self.enter(&hello(version, name)).await.0
    }
}

pub struct Client {
    stream: TcpStream,
    version: Version,
    last_id: u16,
    heard: VecDeque<Packet>,
}

impl Client {
    pub async fn send(&mut self, bytes: &[u8]) {
        // Whoever was disconnected reads why.
        drop(self.stream.write_all(bytes).await);
    }

    /// Sends a packet: its first byte and what follows its length.
    pub async fn say(&mut self, first: u8, body: &[u8]) {
        self.send(&packet(first, body)).await;
    }

    /// The next packet.
    pub async fn next(&mut self) -> Packet {
        match self.heard.pop_front() {
            Some(packet) => packet,
            None => self.read().await,
        }
    }

    async fn read(&mut self) -> Packet {
        timeout(PATIENCE, read(&mut self.stream, self.version))
            .await
            .expect("silence")
    }

    /// The next packet that `wanted` wants; what comes before waits for [`Client::next`].
    async fn answer(&mut self, wanted: impl Fn(&Packet) -> bool) -> Packet {
        loop {
            match self.read().await {
                packet if wanted(&packet) => return packet,
                end @ (Packet::Disconnect(_) | Packet::Closed) => panic!("{end:?} instead of an answer"),
                other => self.heard.push_back(other),
            }
        }
    }

    /// Sends a publish; its id.
    pub async fn publish_only(&mut self, message: Message) -> u16 {
        if message.qos > 0 && message.id == 0 {
            self.last_id += 1;
        }
        let id = if message.id == 0 { self.last_id } else { message.id };
        let bytes = publish(self.version, &Message { id, ..message });
        self.send(&bytes).await;
        id
    }

    /// Publishes until all that it caused is done.
    pub async fn publish(&mut self, message: Message) {
        let qos = message.qos;
        let id = self.publish_only(message).await;
        match qos {
            0 => self.ping().await,
            1 => drop(self.answer(|packet| *packet == Packet::PubAck(id, 0)).await),
            _ => {
                self.answer(|packet| *packet == Packet::PubRec(id, 0)).await;
                self.say(0x62, &id.to_be_bytes()).await;
                self.answer(|packet| *packet == Packet::PubComp(id, 0)).await;
            }
        }
    }

    /// Until the answer.
    pub async fn ping(&mut self) {
        self.say(0xC0, &[]).await;
        self.answer(|packet| *packet == Packet::Pong).await;
    }

    /// Subscribes with one option byte each; the codes.
    pub async fn subscribe(&mut self, filters: &[(&str, u8)]) -> Vec<u8> {
        self.subscribe_with(filters, &Properties::new()).await
    }

    pub async fn subscribe_with(&mut self, filters: &[(&str, u8)], properties: &Properties) -> Vec<u8> {
        self.last_id += 1;
        let id = self.last_id;
        let mut body = id.to_be_bytes().to_vec();
        block(&mut body, self.version, properties);
        for (filter, options) in filters {
            text(&mut body, filter.as_bytes());
            body.push(*options);
        }
        self.say(0x82, &body).await;
        match self.answer(|packet| matches!(packet, Packet::SubAck(..))).await {
            Packet::SubAck(answered, codes) if answered == id => codes,
            other => panic!("{other:?}"),
        }
    }

    /// The codes; version 3.1.1 has none.
    pub async fn unsubscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        self.last_id += 1;
        let id = self.last_id;
        let mut body = id.to_be_bytes().to_vec();
        block(&mut body, self.version, &Properties::new());
        for filter in filters {
            text(&mut body, filter.as_bytes());
        }
        self.say(0xA2, &body).await;
        match self.answer(|packet| matches!(packet, Packet::UnsubAck(..))).await {
            Packet::UnsubAck(answered, codes) if answered == id => codes,
            other => panic!("{other:?}"),
        }
    }

    /// All that waits for it, acknowledged.
    pub async fn messages(&mut self) -> Vec<Message> {
        let mut all = Vec::new();
        // What an acknowledgement made room for may come after the answer to the ping after it, not to the next.
        let mut quiet = 0;
        while quiet < 2 {
            quiet += 1;
            for packet in self.pending().await {
                quiet = 0;
                match packet {
                    Packet::Publish(message) => {
                        match message.qos {
                            0 => {}
                            1 => self.say(0x40, &message.id.to_be_bytes()).await,
                            _ => self.say(0x50, &message.id.to_be_bytes()).await,
                        }
                        all.push(message);
                    }
                    Packet::PubRel(id, _) => self.say(0x70, &id.to_be_bytes()).await,
                    other => panic!("{other:?}"),
                }
            }
        }
        all
    }

    /// All that waits for it, not acknowledged.
    pub async fn pending(&mut self) -> Vec<Packet> {
        self.ping().await;
        self.heard.drain(..).collect()
    }

    /// The publishes that wait for it, not acknowledged.
    pub async fn unacknowledged(&mut self) -> Vec<Message> {
        let publish = |packet| match packet {
            Packet::Publish(message) => message,
            other => panic!("{other:?}"),
        };
        self.pending().await.into_iter().map(publish).collect()
    }

    /// Waits until a publish comes.
    pub async fn message(&mut self) -> Message {
        match self.next().await {
            Packet::Publish(message) => message,
            other => panic!("{other:?}"),
        }
    }

    /// The connection ends without a word; returns when the door has noticed.
    pub async fn vanish(mut self) {
        self.stream.shutdown().await.expect("a connection");
        while self.next().await != Packet::Closed {}
    }

    /// Says DISCONNECT with these bytes after its length; returns when the door has closed.
    pub async fn leave(mut self, body: &[u8]) {
        self.say(0xE0, body).await;
        assert_eq!(self.ending().await, None);
    }

    /// Why the door ends the connection, if it says so.
    pub async fn ending(&mut self) -> Option<u8> {
        loop {
            match self.next().await {
                Packet::Closed => return None,
                Packet::Disconnect(why) => {
                    assert_eq!(self.next().await, Packet::Closed);
                    return Some(why);
                }
                _ => {}
            }
        }
    }
}

pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    variable(&mut bytes, body.len());
    bytes.extend_from_slice(body);
    bytes
}

pub fn variable(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let low = u8::try_from(value & 0x7F).expect("seven bits");
        value >>= 7;
        out.push(if value > 0 { low | 0x80 } else { low });
        if value == 0 {
            return;
        }
    }
}

fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).expect("the format's limit");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

fn is_text(name: u8) -> bool {
    matches!(name, 3 | 8 | 9 | 18 | 21 | 22 | 26 | 28 | 31)
}

fn block(out: &mut Vec<u8>, version: Version, properties: &Properties) {
    if version == V311 {
        assert!(properties.is_empty(), "version 3.1.1 has no properties");
        return;
    }
    let mut inside = Vec::new();
    for (name, value) in properties {
        inside.push(*name);
        if *name == property::USER {
            let middle = value.iter().position(|byte| *byte == b'=').expect("key=value");
            text(&mut inside, &value[..middle]);
            text(&mut inside, &value[middle + 1..]);
        } else if is_text(*name) {
            text(&mut inside, value);
        } else {
            inside.extend_from_slice(value);
        }
    }
    variable(out, inside.len());
    out.extend_from_slice(&inside);
}

fn connect(hello: &Hello) -> Vec<u8> {
    let mut flags = u8::from(hello.clean) << 1 | u8::from(hello.user.is_some()) << 7;
    if let Some(will) = &hello.will {
        flags |= 0x04 | will.qos << 3 | u8::from(will.retain) << 5;
    }
    let level = if hello.version == V5 { 5 } else { 4 };
    let mut body = b"\0\x04MQTT".to_vec();
    body.extend_from_slice(&[level, flags]);
    body.extend_from_slice(&hello.keep_alive.to_be_bytes());
    block(&mut body, hello.version, &hello.properties);
    text(&mut body, hello.client.as_bytes());
    if let Some(will) = &hello.will {
        block(&mut body, hello.version, &will.properties);
        text(&mut body, will.topic.as_bytes());
        text(&mut body, &will.payload);
    }
    if let Some(user) = &hello.user {
        text(&mut body, user.as_bytes());
    }
    packet(0x10, &body)
}

pub fn publish(version: Version, message: &Message) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, message.topic.as_bytes());
    if message.qos > 0 {
        body.extend_from_slice(&message.id.to_be_bytes());
    }
    block(&mut body, version, &message.properties);
    body.extend_from_slice(&message.payload);
    let flags = u8::from(message.dup) << 3 | message.qos << 1 | u8::from(message.retain);
    packet(0x30 | flags, &body)
}

/// A whole packet; a connection that was closed, or reset, has none.
async fn read(stream: &mut TcpStream, version: Version) -> Packet {
    let Ok(first) = stream.read_u8().await else {
        return Packet::Closed;
    };
    let (mut length, mut shift) = (0, 0);
    loop {
        let byte = stream.read_u8().await.expect("the rest of a packet");
        length |= usize::from(byte & 0x7F) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.expect("the rest of a packet");
    parse(first, Body(&body), version)
}

fn parse(first: u8, mut body: Body<'_>, version: Version) -> Packet {
    let acknowledged = |mut body: Body<'_>| (body.number(), body.0.first().copied().unwrap_or(0));
    match first >> 4 {
        2 => {
            let (flags, code) = (body.byte(), body.byte());
            assert!(flags < 2);
            Packet::Connack {
                present: flags == 1,
                code,
                properties: body.properties(version),
            }
        }
        3 => {
            let topic = String::from_utf8(body.text()).expect("a topic");
            let qos = first >> 1 & 3;
            let id = if qos > 0 { body.number() } else { 0 };
            Packet::Publish(Message {
                topic,
                qos,
                id,
                retain: first & 1 == 1,
                dup: first & 8 == 8,
                properties: body.properties(version),
                payload: body.0.to_vec(),
            })
        }
        4 => {
            let (id, code) = acknowledged(body);
            Packet::PubAck(id, code)
        }
        5 => {
            let (id, code) = acknowledged(body);
            Packet::PubRec(id, code)
        }
        6 => {
            let (id, code) = acknowledged(body);
            Packet::PubRel(id, code)
        }
        7 => {
            let (id, code) = acknowledged(body);
            Packet::PubComp(id, code)
        }
        kind @ (9 | 11) => {
            let id = body.number();
            assert_eq!(body.properties(version), Properties::new());
            let codes = body.0.to_vec();
            if kind == 9 {
                Packet::SubAck(id, codes)
            } else {
                Packet::UnsubAck(id, codes)
            }
        }
        13 => Packet::Pong,
        14 => Packet::Disconnect(body.0.first().copied().unwrap_or(0)),
        kind => panic!("no server sends packets of type {kind}"),
    }
}

struct Body<'a>(&'a [u8]);

impl Body<'_> {
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken.to_vec()
    }

    fn byte(&mut self) -> u8 {
        self.bytes(1)[0]
    }

    fn number(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    fn text(&mut self) -> Vec<u8> {
        let length = self.number();
        self.bytes(length.into())
    }

    fn variable(&mut self) -> Vec<u8> {
        let length = self.0.iter().take_while(|byte| **byte & 0x80 != 0).count() + 1;
        self.bytes(length)
    }

    fn properties(&mut self, version: Version) -> Properties {
        let mut found = Properties::new();
        if version == V311 {
            return found;
        }
        let length = self.variable();
        let length = length
            .iter()
            .rev()
            .fold(0, |sum, byte| sum << 7 | usize::from(byte & 0x7F));
        let inside = self.bytes(length);
        let mut inside = Body(&inside);
        while !inside.0.is_empty() {
            let name = inside.byte();
            let value = match name {
                property::USER => [inside.text(), inside.text()].join(&b'='),
                property::IDENTIFIER => inside.variable(),
                1 | 23 | 25 | 36 | 37 | 40 | 41 | 42 => inside.bytes(1),
                19 | 33 | 34 | 35 => inside.bytes(2),
                2 | 17 | 24 | 39 => inside.bytes(4),
                name if is_text(name) => inside.text(),
                name => panic!("no property {name}"),
            };
            found.push((name, value));
        }
        found
    }
}
