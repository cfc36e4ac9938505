//! How connections end, by silence, by the cap, by a stop; and what outlives them.

use tidegate::{
    hub::{Attach, Key},
    source::STOP_GRACE,
};
use tokio::time::Instant;

use super::*;

/// `QoS` 0 to the table's topic, in both versions.
const UNASKED_OLD: &[u8] = b"\x30\x09\0\x05t/d/m21";
const UNASKED_NEW: &[u8] = b"\x30\x0A\0\x05t/d/m\x0021";
const GOODBYE: &[u8] = b"\xE0\0";

/// Hears everything, in version 3.1.1 at `QoS` 0.
async fn listener(rig: &Rig) -> TcpStream {
    let mut listener = rig.raw(b"\x10\x0D\0\x04MQTT\x04\x02\0\0\0\x01l").await;
    packet(&mut listener).await;
    listener.write_all(b"\x82\x06\0\x01\0\x01#\0").await.unwrap();
    assert_eq!(packet(&mut listener).await, [0x90, 3, 0, 1, 0]);
    listener
}

#[tokio::test]
async fn a_publish_that_asks_for_no_acknowledgement_outlives_its_connection() {
    for (connect, publish) in [(CONNECT_OLD, UNASKED_OLD), (CONNECT_NEW, UNASKED_NEW)] {
        let mut rig = Rig::open().await;
        let mut listener = listener(&rig).await;
        drop(rig.raw(&[connect, publish, GOODBYE].concat()).await);
        let delivery = rig.delivery().await;
        delivery.ticket.answer(Answer::AfterDurable(Position(5)));
        rig.durable.send(Position(5)).unwrap();
        assert_eq!(packet(&mut listener).await, UNASKED_OLD);
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_publish_that_the_engine_had_no_room_for_gets_in_after_its_connection_broke() {
    let mut rig = Rig::open_with(settings("127.0.0.1:0".parse().unwrap()), 1).await;
    let mut listener = listener(&rig).await;
    let mut device = rig.raw(CONNECT_OLD).await;
    // Closed with the CONNACK unread, the connection is reset: the answer to the ping cannot be written.
    device.readable().await.unwrap();
    device
        .write_all(&[b"\xC0\0", UNASKED_OLD, UNASKED_OLD].concat())
        .await
        .unwrap();
    drop(device);
    for _ in 0..2 {
        rig.delivery()
            .await
            .ticket
            .answer(Answer::AfterDurable(Position(0)));
        assert_eq!(packet(&mut listener).await, UNASKED_OLD);
    }
    rig.stop().await;
}

#[tokio::test]
async fn what_was_never_acknowledged_is_not_handed_on_when_its_connection_is_gone() {
    let mut rig = Rig::open().await;
    let mut listener = listener(&rig).await;
    let publishes: [&[u8]; 5] = [
        CONNECT_OLD,
        b"\x32\x0B\0\x05t/d/m\0\x0711",
        b"\x34\x0B\0\x05t/d/m\0\x0822",
        UNASKED_OLD,
        GOODBYE,
    ];
    drop(rig.raw(&publishes.concat()).await);
    for _ in 0..3 {
        rig.delivery()
            .await
            .ticket
            .answer(Answer::AfterDurable(Position(0)));
    }
    assert_eq!(packet(&mut listener).await, UNASKED_OLD);
    rig.stop().await;
}

#[tokio::test]
async fn a_client_that_comes_back_is_heard_after_what_it_said_before() {
    let mut rig = Rig::open().await;
    let mut listener = listener(&rig).await;
    drop(rig.raw(&[CONNECT_OLD, UNASKED_OLD, GOODBYE].concat()).await);
    let first = rig.delivery().await;
    let again = rig.raw(&[CONNECT_OLD, b"\x30\x04\0\x01xy"].concat()).await;
    until("the return", || {
        rig.counters.taken_over.load(Ordering::Relaxed) == 1
    })
    .await;
    first.ticket.answer(Answer::AfterDurable(Position(0)));
    assert_eq!(packet(&mut listener).await, UNASKED_OLD);
    assert_eq!(packet(&mut listener).await, b"\x30\x04\0\x01xy");
    drop(again);
    rig.stop().await;
}

#[tokio::test]
async fn what_a_client_sent_before_it_came_back_is_heard() {
    let mut rig = Rig::open().await;
    let mut listener = listener(&rig).await;
    let mut device = rig.raw(CONNECT_OLD).await;
    packet(&mut device).await;
    let key = Key {
        user: None,
        client: "r".into(),
    };
    // Nothing runs between these two: the publish has come and is not read yet.
    device.write_all(&[UNASKED_OLD, GOODBYE].concat()).await.unwrap();
    let back = rig.hub.attach(key, true, false, rig.hub.turn());
    assert!(matches!(back, Attach::Occupied(_)));
    rig.delivery()
        .await
        .ticket
        .answer(Answer::AfterDurable(Position(0)));
    assert_eq!(packet(&mut listener).await, UNASKED_OLD);
    rig.stop().await;
}

#[tokio::test]
async fn whoever_says_no_connect_is_closed_after_ten_seconds() {
    let rig = Rig::open().await;
    let begun = Instant::now();
    let mut silent = rig.raw(b"").await;
    let mut half = rig.raw(b"\x10\x0D\0\x04MQ").await;
    tokio::time::pause();
    for stream in [&mut silent, &mut half] {
        let read = timeout(Duration::from_hours(1), stream.read(&mut [0])).await;
        assert_eq!(read.expect("it is closed").unwrap_or(0), 0);
    }
    assert!(begun.elapsed() >= Duration::from_secs(10), "they had their time");
    rig.stop().await;
}

#[tokio::test]
async fn a_client_silent_for_longer_than_it_promised_is_disconnected() {
    let rig = Rig::open().await;
    let mut new = rig.raw(b"\x10\x0E\0\x04MQTT\x05\x02\0\x01\0\0\x01n").await;
    let mut old = rig.raw(b"\x10\x0D\0\x04MQTT\x04\x02\0\x01\0\x01o").await;
    let mut promised_nothing = rig.raw(CONNECT_OLD).await;
    for stream in [&mut new, &mut old, &mut promised_nothing] {
        assert_eq!(packet(stream).await[0], 0x20);
    }
    assert_eq!(packet(&mut new).await, [0xE0, 1, 0x8D]);
    assert!(packet(&mut new).await.is_empty());
    assert!(packet(&mut old).await.is_empty());
    promised_nothing.write_all(b"\xC0\0").await.unwrap();
    assert_eq!(packet(&mut promised_nothing).await, [0xD0, 0]);
    rig.stop().await;
}

#[tokio::test]
async fn a_full_house_turns_newcomers_away_and_keeps_its_guests() {
    let settings = Settings {
        max_connections: 2,
        ..settings("127.0.0.1:0".parse().unwrap())
    };
    let rig = Rig::open_with(settings, INTAKE_LEN).await;
    let mut guests = Vec::new();
    for connect in [CONNECT_OLD, b"\x10\x0D\0\x04MQTT\x04\x02\0\0\0\x01s"] {
        let mut guest = rig.raw(connect).await;
        assert_eq!(packet(&mut guest).await, [0x20, 2, 0, 0]);
        guests.push(guest);
    }
    let mut newcomer = rig.raw(b"").await;
    assert!(packet(&mut newcomer).await.is_empty());
    assert_eq!(rig.counters.turned_away.load(Ordering::Relaxed), 1);
    for guest in &mut guests {
        guest.write_all(b"\xC0\0").await.unwrap();
        assert_eq!(packet(guest).await, [0xD0, 0]);
    }
    guests[0].write_all(GOODBYE).await.unwrap();
    assert!(packet(&mut guests[0]).await.is_empty());
    let admitted = async {
        loop {
            let mut stream = TcpStream::connect(rig.address).await.unwrap();
            // Turned away, it may be closed before it has spoken.
            if stream.write_all(CONNECT_OLD).await.is_ok() && !packet(&mut stream).await.is_empty() {
                return;
            }
        }
    };
    timeout(PATIENCE, admitted)
        .await
        .expect("a place that was left is free");
    rig.stop().await;
}

#[tokio::test]
async fn a_stop_waits_no_longer_than_its_grace_for_an_answer() {
    let mut rig = Rig::open().await;
    let mut device = rig.raw(CONNECT_OLD).await;
    packet(&mut device).await;
    device.write_all(b"\x32\x0A\0\x05t/d/m\0\x011").await.unwrap();
    let never_answered = rig.delivery().await;
    tokio::time::pause();
    let asked = Instant::now();
    rig.shutdown.cancel();
    rig.tasks.join_next().await;
    assert!(asked.elapsed() < STOP_GRACE, "it took {:?}", asked.elapsed());
    drop(never_answered);
}

#[tokio::test]
async fn a_stop_waits_for_no_take_over() {
    let mut rig = Rig::open().await;
    let key = Key {
        user: None,
        client: "r".into(),
    };
    let Attach::Attached(never_leaves) = rig.hub.attach(key, true, false, 0) else {
        panic!("nobody else is here");
    };
    let _waits = rig.raw(CONNECT_OLD).await;
    until("the take-over", || {
        rig.counters.taken_over.load(Ordering::Relaxed) == 1
    })
    .await;
    tokio::time::pause();
    let asked = Instant::now();
    rig.shutdown.cancel();
    rig.tasks.join_next().await;
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "it took {:?}",
        asked.elapsed()
    );
    drop(never_leaves);
}

#[tokio::test]
async fn a_stop_waits_for_nothing_that_outlives_its_connection() {
    let mut rig = Rig::open().await;
    drop(rig.raw(&[CONNECT_OLD, UNASKED_OLD, GOODBYE].concat()).await);
    let never_answered = rig.delivery().await;
    tokio::time::pause();
    let asked = Instant::now();
    rig.shutdown.cancel();
    rig.tasks.join_next().await;
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "it took {:?}",
        asked.elapsed()
    );
    drop(never_answered);
}

#[tokio::test]
async fn a_reading_refused_for_a_limit_overtakes_nothing_that_waits_for_the_disk() {
    let cases: [(&[u8], &[u8], &[u8]); 2] = [
        (
            CONNECT_OLD,
            b"\x32\x0B\0\x05t/d/m\0\x0121\x32\x0B\0\x05t/e/m\0\x0221",
            &[0x40, 2, 0, 2],
        ),
        (
            CONNECT_NEW,
            b"\x32\x0C\0\x05t/d/m\0\x01\x0021\x32\x0C\0\x05t/e/m\0\x02\x0021",
            &[0x40, 3, 0, 2, 0x97],
        ),
    ];
    for (connect, publishes, refusal) in cases {
        let mut rig = Rig::open().await;
        let mut device = rig.raw(connect).await;
        packet(&mut device).await;
        device.write_all(publishes).await.unwrap();
        rig.delivery()
            .await
            .ticket
            .answer(Answer::AfterDurable(Position(5)));
        rig.delivery().await.ticket.answer(Answer::OverLimit);
        until("the refusal", || {
            rig.counters.over_limit.load(Ordering::Relaxed) == 1
        })
        .await;
        device.write_all(b"\xC0\0").await.unwrap();
        assert_eq!(packet(&mut device).await, [0xD0, 0], "neither is answered yet");
        rig.durable.send(Position(5)).unwrap();
        assert_eq!(packet(&mut device).await, [0x40, 2, 0, 1]);
        assert_eq!(packet(&mut device).await, refusal);
        rig.stop().await;
    }
}
