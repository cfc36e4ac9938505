//! What has killed or fooled other brokers, against the running gateway: it stays up, its memory stays bounded,
//! and a device that was there all the time is served between any two of them.

use std::{pin::Pin, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::timeout,
};

use super::{
    PATIENCE,
    parts::{Gateway, Site},
};

/// What all of it may add to the memory of a gateway at rest, in KiB.
const MOST_MEMORY: u64 = 32 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V311 = 4,
    V5 = 5,
}

type Attack = Pin<Box<dyn Future<Output = ()>>>;

/// A client that sends what it likes.
struct Client {
    version: Version,
    stream: TcpStream,
}

/// A packet of any size.
fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut length = body.len();
    loop {
        let low = u8::try_from(length % 128).expect("a remainder of 128");
        length /= 128;
        out.push(if length > 0 { low | 128 } else { low });
        if length == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("short");
    [&length.to_be_bytes()[..], text.as_bytes()].concat()
}

/// CONNECT. `will`: a topic to leave one on.
fn connect(version: Version, client: &str, clean: bool, properties: &[u8], will: Option<&str>) -> Vec<u8> {
    let flags = u8::from(clean) << 1 | u8::from(will.is_some()) << 2;
    let mut body = [text("MQTT"), vec![version as u8, flags, 0, 0]].concat();
    if version == Version::V5 {
        body.push(u8::try_from(properties.len()).expect("few"));
        body.extend_from_slice(properties);
    }
    body.extend(text(client));
    if let Some(topic) = will {
        if version == Version::V5 {
            body.push(0);
        }
        body.extend(text(topic));
        body.extend(text("gone"));
    }
    packet(0x10, &body)
}

fn publish(version: Version, topic: &str, qos: u8, id: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = text(topic);
    if qos > 0 {
        body.extend(id.to_be_bytes());
    }
    if version == Version::V5 {
        body.push(0);
    }
    body.extend_from_slice(payload);
    packet(0x30 | qos << 1, &body)
}

fn subscribe(version: Version, id: u16, filters: &[&str], qos: u8) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    for filter in filters {
        body.extend(text(filter));
        body.push(qos);
    }
    packet(0x82, &body)
}

impl Client {
    async fn open(door: u16, version: Version) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", door)).await.expect("it listens");
        Self { version, stream }
    }

    /// Connected as `name`.
    async fn greet(door: u16, version: Version, name: &str) -> Self {
        let mut client = Self::open(door, version).await;
        client.say(&connect(version, name, true, &[], None)).await;
        assert_eq!(client.hear().await.expect("a CONNACK").0, 0x20, "{name}");
        client
    }

    /// Whether the gateway still listens shows when it is asked something.
    async fn say(&mut self, bytes: &[u8]) {
        let saying = self.stream.write_all(bytes);
        timeout(PATIENCE, saying).await.expect("it reads").unwrap_or(());
    }

    /// The next packet; none: closed.
    async fn hear(&mut self) -> Option<(u8, Vec<u8>)> {
        let hearing = async {
            let first = self.stream.read_u8().await.ok()?;
            let (mut length, mut shift) = (0_usize, 0);
            loop {
                let byte = self.stream.read_u8().await.ok()?;
                length |= usize::from(byte & 127) << shift;
                shift += 7;
                if byte < 128 {
                    break;
                }
            }
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body).await.ok()?;
            Some((first, body))
        };
        timeout(PATIENCE, hearing).await.expect("silence")
    }

    async fn hear_until(&mut self, what: &str, mut wanted: impl FnMut(u8, &[u8]) -> bool) {
        loop {
            let (first, body) = self
                .hear()
                .await
                .unwrap_or_else(|| panic!("closed before {what}"));
            if wanted(first, &body) {
                return;
            }
        }
    }

    /// Still a guest: it gets an answer.
    async fn is_served(&mut self, after: &str) {
        self.say(&[0xC0, 0]).await;
        self.hear_until(after, |first, _| first == 0xD0).await;
    }

    async fn is_closed(&mut self, why: &str) {
        let closed = async { while self.hear().await.is_some() {} };
        timeout(PATIENCE, closed)
            .await
            .unwrap_or_else(|_| panic!("not closed: {why}"));
    }
}

/// A device that keeps its connection and publishes after each attack.
struct Witness {
    client: Client,
    id: u16,
}

impl Witness {
    async fn is_acknowledged(&mut self, after: &str) {
        self.id += 1;
        let publish = publish(
            self.client.version,
            "thermostats/witness/state",
            1,
            self.id,
            br#"{"temp": 21.0}"#,
        );
        self.client.say(&publish).await;
        let id = self.id.to_be_bytes();
        self.client
            .hear_until(after, |first, body| {
                assert!(body.len() == 2, "refused after {after}: {body:02X?}");
                first == 0x40 && body == id
            })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_a_client_sends_stops_the_gateway_or_is_noticed_by_another() {
    let site = Site::new();
    let log = site.folder.path().join("log");
    let file = std::fs::File::create(&log).expect("created");
    let gateway = Gateway::start_logging(&site, file.into()).await;
    let door = gateway.door;
    let mut witness = Witness {
        client: Client::greet(door, Version::V311, "witness").await,
        id: 0,
    };
    witness.is_acknowledged("the start").await;
    let at_rest = gateway.memory("VmHWM:");

    // These take the time that a CONNECT may take, and the others go on meanwhile.
    let mut slow = JoinSet::new();
    for version in [Version::V311, Version::V5] {
        slow.spawn(one_byte_a_second(door, version));
    }
    slow.spawn(says_nothing(door));
    for version in [Version::V311, Version::V5] {
        let attacks: [(&str, Attack); 11] = [
            (
                "topics in any script",
                Box::pin(topics_in_any_script(door, version)),
            ),
            (
                "a shared subscriber that leaves",
                Box::pin(shared_subscriber_leaves(door, version)),
            ),
            (
                "goodbye in a busy topic",
                Box::pin(goodbye_in_a_busy_topic(door, version)),
            ),
            (
                "client ids like filters",
                Box::pin(client_ids_like_filters(door, version)),
            ),
            ("limits of nothing", Box::pin(limits_of_nothing(door, version))),
            ("200 MB announced", Box::pin(announces_200_mb(door, version))),
            (
                "PUBREL for unknown ids",
                Box::pin(releases_the_unknown(door, version)),
            ),
            ("packet id 0", Box::pin(packet_id_0(door, version))),
            (
                "200 publishes at once",
                Box::pin(publishes_200_at_once(door, version)),
            ),
            ("a deaf subscriber", Box::pin(deaf_subscriber(door, version))),
            (
                "one name at two addresses",
                Box::pin(one_name_at_two_addresses(door, version)),
            ),
        ];
        for (name, attack) in attacks {
            // Shown only if it fails.
            println!("{name}, {version:?}");
            attack.await;
            witness.is_acknowledged(name).await;
        }
    }
    ten_thousand_connections(door).await;
    witness.is_acknowledged("ten thousand connections").await;
    while let Some(ended) = slow.join_next().await {
        ended.expect("what is too slow is closed");
    }
    witness.is_acknowledged("all of it").await;

    let grown = gateway.memory("VmHWM:") - at_rest;
    assert!(grown < MOST_MEMORY, "its memory grew by {grown} KiB");
    gateway.stop().await;
    let said = std::fs::read_to_string(&log).expect("written");
    assert!(!said.contains("panic"), "{said}");
    println!(
        "memory at rest {at_rest} KiB, grown by {grown} KiB, {} lines logged",
        said.lines().count()
    );
}

async fn one_byte_a_second(door: u16, version: Version) {
    let mut client = Client::open(door, version).await;
    for byte in connect(version, "slow", true, &[], Some("a/will/that/makes/it/long")) {
        client.say(&[byte]).await;
        let second = timeout(Duration::from_secs(1), client.stream.read_u8());
        if second.await.is_ok() {
            return; // Closed.
        }
    }
    panic!("it was let in after all");
}

async fn says_nothing(door: u16) {
    Client::open(door, Version::V311)
        .await
        .is_closed("it said nothing")
        .await;
}

async fn topics_in_any_script(door: u16, version: Version) {
    let mut listener = Client::greet(door, version, "listener").await;
    listener.say(&subscribe(version, 1, &["é/+", "日本"], 0)).await;
    listener.hear_until("SUBACK", |first, _| first == 0x90).await;
    for topic in ["é/x", "日本"] {
        let mut client = Client::open(door, version).await;
        client.say(&connect(version, "é", true, &[], Some(topic))).await;
        client.say(&publish(version, topic, 1, 1, b"here")).await;
        client.hear_until("PUBACK", |first, _| first == 0x40).await;
        drop(client);
        for payload in [&b"here"[..], b"gone"] {
            listener
                .hear_until("the message", |first, body| {
                    first >> 4 == 3 && body.starts_with(&text(topic)) && body.ends_with(payload)
                })
                .await;
        }
    }
}

async fn shared_subscriber_leaves(door: u16, version: Version) {
    let expiry: &[u8] = &[17, 0, 0, 0, 60];
    let mut talker = Client::greet(door, version, "talker").await;
    for goodbye in [true, false, true] {
        let mut client = Client::open(door, version).await;
        client.say(&connect(version, "sharer", false, expiry, None)).await;
        client.say(&subscribe(version, 1, &["$share/g/t", "t"], 1)).await;
        client.hear_until("SUBACK", |first, _| first == 0x90).await;
        talker.say(&publish(version, "t", 1, 1, b"x")).await;
        client.hear_until("a message", |first, _| first >> 4 == 3).await;
        if goodbye {
            client.say(&[0xE0, 0]).await;
        }
    }
    talker.is_served("the subscriber's leaving").await;
}

async fn goodbye_in_a_busy_topic(door: u16, version: Version) {
    let mut talker = Client::greet(door, version, "talker").await;
    let busy = publish(version, "busy", 0, 0, &[b'x'; 100]).repeat(50);
    for _ in 0..50 {
        let mut client = Client::greet(door, version, "leaver").await;
        client.say(&subscribe(version, 1, &["busy"], 2)).await;
        client.hear_until("SUBACK", |first, _| first == 0x90).await;
        let (talking, leaving) = (talker.say(&busy), client.say(&[0xE0, 0]));
        tokio::join!(talking, leaving);
    }
    talker.is_served("the goodbyes").await;
}

async fn client_ids_like_filters(door: u16, version: Version) {
    for id in ["/", "+", "#", "$", "a/+/#", "$SYS/x"] {
        let mut first = Client::greet(door, version, id).await;
        let mut second = Client::greet(door, version, id).await;
        first.is_closed("taken over").await;
        second.is_served("a take-over").await;
    }
}

async fn limits_of_nothing(door: u16, version: Version) {
    if version == Version::V311 {
        return; // Knows none.
    }
    let aliases: &[u8] = &[34, 0, 0];
    for (properties, admitted) in [
        (aliases, true),
        (&[17, 0xFF, 0xFF, 0xFF, 0xFF], true),
        (&[33, 0, 0], false),
        (&[39, 0, 0, 0, 0], false),
    ] {
        let mut client = Client::open(door, version).await;
        client
            .say(&connect(version, "limited", true, properties, None))
            .await;
        let (first, body) = client.hear().await.expect("an answer");
        assert_eq!((first, body.get(1) == Some(&0)), (0x20, admitted), "{body:02X?}");
    }
}

async fn announces_200_mb(door: u16, version: Version) {
    let header = [0xC8, 0xE6, 0xDD, 0x5F];
    let mut stranger = Client::open(door, version).await;
    stranger.say(&[&[0x10], &header[..]].concat()).await;
    stranger.is_closed("a CONNECT of 200 MB").await;
    let mut client = Client::greet(door, version, "large").await;
    client.say(&[&[0x30], &header[..]].concat()).await;
    client.is_closed("a publish of 200 MB").await;
}

async fn releases_the_unknown(door: u16, version: Version) {
    let mut client = Client::greet(door, version, "releaser").await;
    for id in 1..=1000_u16 {
        client.say(&packet(0x62, &id.to_be_bytes())).await;
        client.hear_until("PUBCOMP", |first, _| first == 0x70).await;
    }
    client.is_served("the releases").await;
}

async fn packet_id_0(door: u16, version: Version) {
    for bytes in [
        publish(version, "a", 1, 0, b"x"),
        publish(version, "a", 2, 0, b"x"),
        subscribe(version, 0, &["a"], 0),
        packet(0x40, &[0, 0]),
        packet(0x62, &[0, 0]),
    ] {
        let mut client = Client::greet(door, version, "zero").await;
        client.say(&bytes).await;
        client.is_closed("packet id 0").await;
    }
}

async fn publishes_200_at_once(door: u16, version: Version) {
    for qos in [1, 2] {
        let mut client = Client::greet(door, version, "hasty").await;
        let all: Vec<u8> = (1..=200)
            .flat_map(|id| publish(version, "thermostats/hasty/state", qos, id, br#"{"temp": 21.0}"#))
            .collect();
        client.say(&all).await;
        match version {
            Version::V311 => {
                let mut answered = 0;
                client
                    .hear_until("200 answers", |_, _| {
                        answered += 1;
                        answered == 200
                    })
                    .await;
            }
            // More than the receive maximum it was told.
            Version::V5 => client.is_closed("200 at once").await,
        }
    }
}

async fn deaf_subscriber(door: u16, version: Version) {
    const MESSAGE: usize = 32 * 1024;
    let mut deaf = Client::greet(door, version, "deaf").await;
    deaf.say(&subscribe(version, 1, &["flood"], 1)).await;
    deaf.hear_until("SUBACK", |first, _| first == 0x90).await;
    let mut talker = Client::greet(door, version, "talker").await;
    let message = publish(version, "flood", 0, 0, &vec![b'x'; MESSAGE]);
    for _ in 0..60 * 1024 * 1024 / MESSAGE {
        talker.say(&message).await;
    }
    talker.is_served("60 MB").await;
    deaf.is_closed("it did not read").await;
}

async fn one_name_at_two_addresses(door: u16, version: Version) {
    let mut last: Option<Client> = None;
    for turn in 0..200 {
        let socket = TcpSocket::new_v4().expect("a socket");
        let own = if turn % 2 == 0 {
            "127.0.0.1:0"
        } else {
            "127.0.0.2:0"
        };
        socket
            .bind(own.parse().expect("an address"))
            .expect("a loopback address");
        let door = std::net::SocketAddr::from(([127, 0, 0, 1], door));
        let stream = socket.connect(door).await.expect("it listens");
        let mut client = Client { version, stream };
        client.say(&connect(version, "twin", true, &[], None)).await;
        client.hear_until("CONNACK", |first, _| first == 0x20).await;
        if let Some(mut other) = last.replace(client) {
            other.is_closed("taken over").await;
        }
    }
    last.expect("the last of many").is_served("199 take-overs").await;
}

async fn ten_thousand_connections(door: u16) {
    let mut held = std::collections::VecDeque::new();
    for _ in 0..10_000 {
        held.push_back(Client::open(door, Version::V311).await);
        if held.len() > 500 {
            held.pop_front();
        }
    }
}
