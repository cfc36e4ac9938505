//! The door on a real socket, with real clients of both versions and an engine that does as it is told.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests stand outside #[test] functions and fail loudly"
)]

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rumqttc::v5;
use tidegate::{
    decode::{Decoder, Format},
    event::Position,
    hub::Hub,
    journal::Health,
    source::{
        Answer, Delivery, INTAKE_LEN, Stamps,
        mqtt::{Counters, Door, House, Level, Settings, TopicReadings},
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

#[path = "door/ends.rs"]
mod ends;
#[path = "door/log.rs"]
mod log;

const PATIENCE: Duration = Duration::from_secs(10);

struct Rig {
    address: SocketAddr,
    hub: Hub,
    counters: Arc<Counters>,
    deliveries: mpsc::Receiver<Delivery>,
    durable: watch::Sender<Position>,
    health: watch::Sender<Health>,
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

fn settings(listen: SocketAddr) -> Settings {
    let metric = tidegate::decode::MetricPlan {
        name: tidegate::reading::Metric::new("temperature").unwrap(),
        at: None,
        unit: None,
        scale: 1.0,
        offset: 0.0,
        ignore: Vec::new(),
        valid: None,
    };
    let decoder = Decoder {
        format: Format::Number,
        time: None,
        device_at: None,
        metrics: vec![metric],
    };
    let topic = vec![Level::Literal("t".into()), Level::Device, Level::Metric];
    Settings {
        listen: vec![listen],
        max_packet: 65_536,
        max_connections: 20,
        max_inflight: 4,
        readings: vec![TopicReadings { topic, decoder }],
        renamed: HashMap::new(),
    }
}

impl Rig {
    async fn open() -> Self {
        Self::open_with(settings("127.0.0.1:0".parse().unwrap()), INTAKE_LEN).await
    }

    async fn open_with(settings: Settings, intake_len: usize) -> Self {
        let (intake, deliveries) = mpsc::channel(intake_len);
        let (durable, on_disk) = watch::channel(Position(0));
        let (health, told) = watch::channel(Health::default());
        let hub = Hub::new();
        let stamps = Arc::new(Stamps::new(Clock::system(), Duration::from_mins(10)));
        let house = House {
            hub: hub.clone(),
            intake,
            durable: on_disk,
            health: told,
            stamps,
        };
        let door = Door::bind(settings, house).await.unwrap();
        let (address, counters) = (door.local_addrs()[0], door.counters());
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(door.run(shutdown.clone()));
        Self {
            address,
            hub,
            counters,
            deliveries,
            durable,
            health,
            shutdown,
            tasks,
        }
    }

    async fn delivery(&mut self) -> Delivery {
        timeout(PATIENCE, self.deliveries.recv())
            .await
            .expect("no delivery")
            .expect("the door is gone")
    }

    fn client_3(&self, name: &str) -> (rumqttc::AsyncClient, rumqttc::EventLoop) {
        let mut options = rumqttc::MqttOptions::new(name, "127.0.0.1", self.address.port());
        options.set_max_packet_size(70_000, 70_000);
        rumqttc::AsyncClient::new(options, 100)
    }

    fn client_5(&self, name: &str) -> (v5::AsyncClient, v5::EventLoop) {
        let options = v5::MqttOptions::new(name, "127.0.0.1", self.address.port());
        v5::AsyncClient::new(options, 100)
    }

    async fn raw(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }

    async fn stop(mut self) {
        self.shutdown.cancel();
        timeout(PATIENCE, self.tasks.join_next())
            .await
            .expect("the door does not stop");
    }
}

/// Polls until `wanted` says so.
async fn old_until(events: &mut rumqttc::EventLoop, mut wanted: impl FnMut(&rumqttc::Packet) -> bool) {
    let poll = async {
        loop {
            if let rumqttc::Event::Incoming(packet) = events.poll().await.expect("the connection")
                && wanted(&packet)
            {
                return;
            }
        }
    };
    timeout(PATIENCE, poll).await.expect("nothing of the kind came");
}

async fn new_until(events: &mut v5::EventLoop, mut wanted: impl FnMut(&v5::mqttbytes::v5::Packet) -> bool) {
    let poll = async {
        loop {
            if let v5::Event::Incoming(packet) = events.poll().await.expect("the connection")
                && wanted(&packet)
            {
                return;
            }
        }
    };
    timeout(PATIENCE, poll).await.expect("nothing of the kind came");
}

/// The next packet of a raw connection; empty: closed.
async fn packet(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = [0; 2];
    match timeout(PATIENCE, stream.read_exact(&mut head))
        .await
        .expect("silence")
    {
        Ok(_) => {
            assert!(head[1] < 128);
            let mut rest = vec![0; head[1].into()];
            stream.read_exact(&mut rest).await.unwrap();
            [&head[..], &rest].concat()
        }
        Err(_) => Vec::new(),
    }
}

const CONNECT_OLD: &[u8] = b"\x10\x0D\0\x04MQTT\x04\x02\0\0\0\x01r";
const CONNECT_NEW: &[u8] = b"\x10\x0E\0\x04MQTT\x05\x02\0\0\0\0\x01r";

async fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let wait = async {
        while !happened() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| panic!("{what} did not happen"));
}

#[tokio::test]
async fn a_publish_is_acknowledged_when_the_disk_has_it_and_not_before() {
    let mut rig = Rig::open().await;
    let mut device = rig.raw(CONNECT_OLD).await;
    assert_eq!(packet(&mut device).await, [0x20, 2, 0, 0]);
    device.write_all(b"\x32\x0B\0\x05t/d/m\0\x0721").await.unwrap();
    let delivery = rig.delivery().await;
    assert_eq!(delivery.readings[0].device.as_str(), "d");
    delivery.ticket.answer(Answer::AfterDurable(Position(5)));
    // PINGRESP passes the gate: whoever comes after it was not acknowledged before.
    device.write_all(b"\xC0\0").await.unwrap();
    assert_eq!(packet(&mut device).await, [0xD0, 0]);
    rig.durable.send(Position(4)).unwrap();
    device.write_all(b"\xC0\0").await.unwrap();
    assert_eq!(packet(&mut device).await, [0xD0, 0]);
    rig.durable.send(Position(5)).unwrap();
    assert_eq!(packet(&mut device).await, [0x40, 2, 0, 7]);
    assert_eq!(rig.counters.acknowledged.load(Ordering::Relaxed), 1);
    rig.stop().await;
}

#[tokio::test]
async fn clients_of_both_versions_publish_and_hear_each_other() {
    let rig = Rig::open().await;
    let (old, mut old_events) = rig.client_3("old");
    let (new, mut new_events) = rig.client_5("new");
    old.subscribe("chat/+", rumqttc::QoS::ExactlyOnce).await.unwrap();
    old_until(&mut old_events, |packet| {
        matches!(packet, rumqttc::Packet::SubAck(_))
    })
    .await;
    for qos in [
        v5::mqttbytes::QoS::AtMostOnce,
        v5::mqttbytes::QoS::AtLeastOnce,
        v5::mqttbytes::QoS::ExactlyOnce,
    ] {
        new.publish("chat/日本", qos, false, "hello").await.unwrap();
    }
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        new_until(&mut new_events, |packet| {
            matches!(packet, v5::mqttbytes::v5::Packet::PubComp(_))
        })
        .await;
    });
    let mut heard = Vec::new();
    old_until(&mut old_events, |packet| {
        if let rumqttc::Packet::Publish(publish) = packet {
            assert_eq!(publish.topic, "chat/日本");
            heard.push(publish.qos as u8);
        }
        heard.len() == 3
    })
    .await;
    assert_eq!(heard, [0, 1, 2], "in the publisher's order");
    timeout(PATIENCE, tasks.join_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    drop((old, new));
    rig.stop().await;
}

#[tokio::test]
async fn an_event_reaches_local_subscribers_of_both_versions() {
    let rig = Rig::open().await;
    let (old, mut old_events) = rig.client_3("old");
    let (new, mut new_events) = rig.client_5("new");
    old.subscribe("tidegate/+/events/#", rumqttc::QoS::AtLeastOnce)
        .await
        .unwrap();
    new.subscribe("tidegate/+/events/#", v5::mqttbytes::QoS::AtLeastOnce)
        .await
        .unwrap();
    old_until(&mut old_events, |packet| {
        matches!(packet, rumqttc::Packet::SubAck(_))
    })
    .await;
    new_until(&mut new_events, |packet| {
        matches!(packet, v5::mqttbytes::v5::Packet::SubAck(_))
    })
    .await;
    rig.hub.publish_event("tidegate/g/events/Hot/d", "{}");
    old_until(&mut old_events, |packet| {
        matches!(packet, rumqttc::Packet::Publish(_))
    })
    .await;
    new_until(&mut new_events, |packet| {
        matches!(packet, v5::mqttbytes::v5::Packet::Publish(_))
    })
    .await;
    rig.stop().await;
}

#[tokio::test]
async fn answers_in_any_order_are_acknowledged_in_the_publishers() {
    let mut rig = Rig::open().await;
    let mut device = rig.raw(CONNECT_NEW).await;
    packet(&mut device).await;
    for id in 1..=3 {
        device
            .write_all(&[0x32, 11, 0, 5, b't', b'/', b'd', b'/', b'm', 0, id, 0, b'1'])
            .await
            .unwrap();
    }
    let mut deliveries = Vec::new();
    for _ in 0..3 {
        deliveries.push(rig.delivery().await);
    }
    rig.durable.send(Position(9)).unwrap();
    let answers = [
        Answer::OverLimit,
        Answer::AfterDurable(Position(9)),
        Answer::AfterDurable(Position(1)),
    ];
    for (delivery, answer) in deliveries.into_iter().rev().zip(answers) {
        delivery.ticket.answer(answer);
    }
    assert_eq!(packet(&mut device).await, [0x40, 2, 0, 1]);
    assert_eq!(packet(&mut device).await, [0x40, 2, 0, 2]);
    assert_eq!(packet(&mut device).await, [0x40, 3, 0, 3, 0x97]);
    assert_eq!(rig.counters.over_limit.load(Ordering::Relaxed), 1);
    rig.stop().await;
}

#[tokio::test]
async fn a_parked_journal_refuses_version_5_and_stops_reading_3_1_1() {
    let mut rig = Rig::open().await;
    rig.health.send_modify(|health| health.parked = true);
    let mut new = rig.raw(CONNECT_NEW).await;
    packet(&mut new).await;
    new.write_all(b"\x32\x0B\0\x05t/d/m\0\x01\x001").await.unwrap();
    assert_eq!(packet(&mut new).await, [0x40, 3, 0, 1, 0x97]);
    let mut old = rig.raw(CONNECT_OLD).await;
    packet(&mut old).await;
    old.write_all(b"\x32\x0A\0\x05t/d/m\0\x011").await.unwrap();
    until("the publish", || {
        rig.counters.publishes.load(Ordering::Relaxed) == 2
    })
    .await;
    assert!(rig.deliveries.try_recv().is_err(), "nothing was evaluated");
    rig.health.send_modify(|health| health.parked = false);
    rig.delivery()
        .await
        .ticket
        .answer(Answer::AfterDurable(Position(0)));
    assert_eq!(packet(&mut old).await, [0x40, 2, 0, 1]);
    rig.stop().await;
}

#[tokio::test]
async fn an_undecodable_payload_is_no_error_of_the_connection() {
    let rig = Rig::open().await;
    let mut new = rig.raw(CONNECT_NEW).await;
    packet(&mut new).await;
    new.write_all(b"\x32\x0B\0\x05t/d/m\0\x01\0?").await.unwrap();
    assert_eq!(packet(&mut new).await, [0x40, 3, 0, 1, 0x99]);
    let mut old = rig.raw(CONNECT_OLD).await;
    packet(&mut old).await;
    old.write_all(b"\x32\x0A\0\x05t/d/m\0\x01?").await.unwrap();
    assert_eq!(packet(&mut old).await, [0x40, 2, 0, 1]);
    assert_eq!(rig.counters.undecodable.load(Ordering::Relaxed), 2);
    rig.stop().await;
}

#[tokio::test]
async fn an_engine_that_stops_leaves_publishes_unacknowledged_and_closes() {
    let mut rig = Rig::open().await;
    let mut device = rig.raw(CONNECT_OLD).await;
    packet(&mut device).await;
    device.write_all(b"\x32\x0A\0\x05t/d/m\0\x011").await.unwrap();
    drop(rig.delivery().await);
    assert!(packet(&mut device).await.is_empty());
    rig.stop().await;
}

#[tokio::test]
async fn a_journal_that_ends_leaves_publishes_unacknowledged_and_closes() {
    let mut rig = Rig::open().await;
    let mut device = rig.raw(CONNECT_OLD).await;
    packet(&mut device).await;
    device.write_all(b"\x32\x0A\0\x05t/d/m\0\x011").await.unwrap();
    rig.delivery()
        .await
        .ticket
        .answer(Answer::AfterDurable(Position(7)));
    let Rig { durable, .. } = rig;
    drop(durable);
    assert!(packet(&mut device).await.is_empty());
}

#[tokio::test]
async fn a_second_client_of_the_same_name_takes_over_and_the_first_is_told() {
    let rig = Rig::open().await;
    let mut first = rig.raw(CONNECT_NEW).await;
    packet(&mut first).await;
    let mut second = rig.raw(CONNECT_NEW).await;
    assert_eq!(packet(&mut second).await[0], 0x20);
    assert_eq!(packet(&mut first).await, [0xE0, 1, 0x8E]);
    assert!(packet(&mut first).await.is_empty());
    second.write_all(b"\xC0\0").await.unwrap();
    assert_eq!(packet(&mut second).await, [0xD0, 0]);
    rig.stop().await;
}

#[tokio::test]
async fn a_will_is_heard_only_after_an_abnormal_end() {
    let mut rig = Rig::open().await;
    let (listener, mut events) = rig.client_3("listener");
    listener.subscribe("#", rumqttc::QoS::AtMostOnce).await.unwrap();
    old_until(&mut events, |packet| matches!(packet, rumqttc::Packet::SubAck(_))).await;
    let willing = b"\x10\x18\0\x04MQTT\x04\x06\0\0\0\x01w\0\x05t/d/m\0\x029";
    let willing = [&willing[..], b"9"].concat();
    for goodbye in [true, false] {
        let mut device = rig.raw(&willing).await;
        assert_eq!(packet(&mut device).await, [0x20, 2, 0, 0]);
        if goodbye {
            device.write_all(b"\xE0\0").await.unwrap();
            assert!(packet(&mut device).await.is_empty());
            assert_eq!(rig.counters.wills.load(Ordering::Relaxed), 0);
        }
    }
    old_until(&mut events, |packet| {
        matches!(packet, rumqttc::Packet::Publish(publish) if publish.topic == "t/d/m" && publish.payload == "99")
    })
    .await;
    assert_eq!(
        rig.delivery().await.readings.len(),
        1,
        "a will is evaluated like a publish"
    );
    rig.stop().await;
}

#[tokio::test]
async fn a_stop_answers_what_is_owed_then_says_why() {
    let mut rig = Rig::open().await;
    let mut device = rig.raw(CONNECT_NEW).await;
    packet(&mut device).await;
    device.write_all(b"\x32\x0B\0\x05t/d/m\0\x01\x001").await.unwrap();
    let delivery = rig.delivery().await;
    rig.shutdown.cancel();
    delivery.ticket.answer(Answer::AfterDurable(Position(3)));
    rig.durable.send(Position(3)).unwrap();
    assert_eq!(packet(&mut device).await, [0x40, 2, 0, 1]);
    assert_eq!(packet(&mut device).await, [0xE0, 1, 0x8B]);
    timeout(PATIENCE, rig.tasks.join_next())
        .await
        .expect("the door does not stop");
    assert!(TcpStream::connect(rig.address).await.is_err());
}

#[tokio::test]
async fn hostile_bytes_end_their_connection_and_nobody_elses() {
    let rig = Rig::open().await;
    let mut device = rig.raw(CONNECT_OLD).await;
    packet(&mut device).await;
    let hostile: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x10\xFF\xFF\xFF\x7F",
        b"\xC0\0",
        b"\xFF\xFF\xFF\xFF\xFF",
    ];
    for bytes in hostile {
        let mut stream = rig.raw(bytes).await;
        while !packet(&mut stream).await.is_empty() {}
    }
    until("the counting", || {
        rig.counters.protocol_errors.load(Ordering::Relaxed) == 4
    })
    .await;
    device.write_all(b"\xC0\0").await.unwrap();
    assert_eq!(packet(&mut device).await, [0xD0, 0]);
    assert_eq!(rig.counters.panics.load(Ordering::Relaxed), 0);
    rig.stop().await;
}

#[tokio::test]
async fn strangers_that_say_nothing_make_room_for_clients() {
    let rig = Rig::open().await;
    let mut strangers = Vec::new();
    for _ in 0..60 {
        strangers.push(TcpStream::connect(rig.address).await.unwrap());
    }
    let mut device = rig.raw(CONNECT_OLD).await;
    assert_eq!(packet(&mut device).await, [0x20, 2, 0, 0]);
    assert!(rig.counters.turned_away.load(Ordering::Relaxed) > 0);
    rig.stop().await;
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_is_disconnected_and_counted() {
    let rig = Rig::open().await;
    let mut deaf = rig.raw(CONNECT_OLD).await;
    packet(&mut deaf).await;
    deaf.write_all(b"\x82\x06\0\x01\0\x01#\0").await.unwrap();
    assert_eq!(packet(&mut deaf).await, [0x90, 3, 0, 1, 0]);
    let (talker, mut events) = rig.client_3("talker");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            if talker
                .publish("x", rumqttc::QoS::AtLeastOnce, false, vec![0; 32_768])
                .await
                .is_err()
            {
                return;
            }
        }
    });
    old_until(&mut events, |_| {
        rig.counters.slow_subscribers.load(Ordering::Relaxed) == 1
    })
    .await;
    drop(tasks);
    rig.stop().await;
}

#[tokio::test]
async fn an_address_that_is_not_to_be_had_is_named_with_its_remedy() {
    let rig = Rig::open().await;
    // 192.0.2.0/24 is for documentation (RFC 5737): no machine has it.
    let foreign = "192.0.2.1:1883".parse().unwrap();
    for (address, remedy) in [
        (rig.address, "does another broker run here?"),
        (foreign, "this machine has no such address"),
    ] {
        let (intake, _) = mpsc::channel(1);
        let stamps = Arc::new(Stamps::new(Clock::system(), Duration::from_mins(10)));
        let house = House {
            hub: Hub::new(),
            intake,
            durable: rig.durable.subscribe(),
            health: rig.health.subscribe(),
            stamps,
        };
        let error = Door::bind(settings(address), house)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with(&format!("could not listen on {address}: ")),
            "{error}"
        );
        assert!(error.contains(remedy), "{error}");
    }
    rig.stop().await;
}
