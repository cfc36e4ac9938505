//! The limits that `docs/mqtt.md` names: each is kept, and says so.

use std::{sync::atomic::Ordering, time::Duration};

use tidegate::hub::{
    MAX_ABSENCE, MAX_ABSENT_SESSIONS, MAX_RETAINED, MAX_RETAINED_BYTES, MAX_SUBSCRIPTIONS, mailbox,
};

use crate::rig::{
    BOTH, Hello, Message, Packet, Properties, Rig, V5, V311, hello, message, property, retained, staying, the,
};

fn refused(rig: &Rig) -> u64 {
    rig.hub.counters().retained_refused.load(Ordering::Relaxed)
}

#[test]
fn the_documented_limits_are_the_real_ones() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/mqtt.md");
    let text = std::fs::read_to_string(path).expect("docs/mqtt.md");
    assert_eq!(MAX_ABSENCE, Duration::from_hours(24));
    for row in [
        format!("| retained messages | {MAX_RETAINED} |"),
        format!("| all retained messages | {} MiB |", MAX_RETAINED_BYTES >> 20),
        format!("| subscriptions of one session | {MAX_SUBSCRIPTIONS} |"),
        format!("| sessions whose client is away | {MAX_ABSENT_SESSIONS} |"),
        "| how long a session waits | 24 h |".to_owned(),
        format!("| messages for a client that is away | {} ", mailbox::MAX_ABSENT),
        format!(
            "| messages for a client that does not read | {} ",
            mailbox::MAX_WAITING
        ),
    ] {
        assert!(text.contains(&row), "not in docs/mqtt.md: {row}");
    }
}

#[tokio::test]
async fn retained_messages_beyond_their_number_are_delivered_and_not_kept() {
    let rig = Rig::open().await;
    let mut client = rig.client(V5, "one").await;
    for number in 0..MAX_RETAINED {
        client.publish(retained(&format!("t/{number}"), "x")).await;
    }
    assert_eq!(refused(&rig), 0);
    client.subscribe(&[("more", 1)]).await;
    client.publish(retained("more", "y")).await;
    assert_eq!(client.messages().await.len(), 1);
    assert_eq!(refused(&rig), 1);
    client.publish(retained("t/0", "another")).await;
    client.publish(retained("t/1", "")).await;
    client.publish(retained("more", "y")).await;
    assert_eq!(refused(&rig), 1, "a known topic, and a place that was freed");
}

#[tokio::test]
async fn retained_messages_are_bounded_by_all_their_bytes() {
    let bulky: [Properties; 3] = [
        vec![],
        vec![(property::CONTENT_TYPE, vec![b'x'; 60_000])],
        vec![(property::USER, b"=".to_vec()); 12_000],
    ];
    for properties in bulky {
        let rig = Rig::open().await;
        let mut client = rig.client(V5, "one").await;
        let payload = if properties.is_empty() {
            vec![b'x'; 60_000]
        } else {
            vec![b'x']
        };
        for number in 0..=MAX_RETAINED_BYTES / 60_000 {
            let message = Message {
                properties: properties.clone(),
                ..retained(&format!("t/{number}"), payload.clone())
            };
            client.publish(message).await;
        }
        assert!(refused(&rig) > 0, "{:?}", properties.first());
    }
}

#[tokio::test]
async fn a_session_has_so_many_subscriptions_and_no_more() {
    for version in BOTH {
        let rig = Rig::open().await;
        let mut client = rig.client(version, "one").await;
        for number in 0..MAX_SUBSCRIPTIONS {
            assert_eq!(client.subscribe(&[(&format!("t/{number}"), 1)]).await, [1]);
        }
        let refused = if version == V5 { 0x97 } else { 0x80 };
        assert_eq!(client.subscribe(&[("more", 1), ("t/0", 0)]).await, [refused, 0]);
        client.unsubscribe(&["t/0"]).await;
        assert_eq!(client.subscribe(&[("more", 1)]).await, [1]);
    }
}

#[tokio::test]
async fn a_filter_has_so_many_levels_and_no_more() {
    let rig = Rig::open().await;
    for (version, refused) in [(V311, 0x80), (V5, 0x8F)] {
        let mut client = rig.client(version, "one").await;
        let (deep, deeper) = ("a/".repeat(63), "a/".repeat(64));
        assert_eq!(client.subscribe(&[(&deep, 0), (&deeper, 0)]).await, [0, refused]);
        client.publish(message(&deep, "x", 1)).await;
        assert_eq!(client.messages().await.len(), 1);
        // A topic may be as deep as its packet: only filters cost.
        client.publish(message(&"a/".repeat(1000), "x", 1)).await;
    }
}

#[tokio::test]
async fn only_so_many_sessions_wait_for_their_clients() {
    let rig = Rig::open().await;
    let session = |name: String, seconds: u32| Hello {
        clean: false,
        properties: vec![(property::SESSION_EXPIRY, seconds.to_be_bytes().to_vec())],
        ..hello(V5, &name)
    };
    rig.enter(&session("first".into(), 600)).await.0.vanish().await;
    for number in 1..=MAX_ABSENT_SESSIONS {
        rig.enter(&session(number.to_string(), 3600))
            .await
            .0
            .leave(&[])
            .await;
    }
    assert!(
        !rig.enter(&hello_again("first")).await.1,
        "it would have ended first"
    );
    assert!(rig.enter(&hello_again("1")).await.1);
}

fn hello_again(name: &str) -> Hello {
    Hello {
        clean: false,
        ..hello(V5, name)
    }
}

/// 5 §3.2.2.3.2: a client that wants to be waited for longer is told how long it is.
#[tokio::test]
async fn a_session_waits_no_longer_than_a_day() {
    let rig = Rig::open().await;
    let day = u32::try_from(MAX_ABSENCE.as_secs()).unwrap();
    for (asked, told) in [(u32::MAX, Some(day)), (day + 1, Some(day)), (day, None)] {
        let hello = Hello {
            properties: vec![(property::SESSION_EXPIRY, asked.to_be_bytes().to_vec())],
            ..hello(V5, "one")
        };
        let (_, _, properties) = rig.enter(&hello).await;
        let expected = told.map(|seconds: u32| seconds.to_be_bytes().to_vec());
        assert_eq!(the(&properties, property::SESSION_EXPIRY), expected);
    }
}

#[tokio::test]
async fn so_many_messages_wait_for_a_client_that_is_away() {
    for version in BOTH {
        let rig = Rig::open().await;
        let (mut listener, _, _) = rig.enter(&staying(version, "listener")).await;
        listener.subscribe(&[("a", 1)]).await;
        listener.vanish().await;
        let mut talker = rig.client(version, "talker").await;
        for number in 0..mailbox::MAX_ABSENT + 3 {
            talker.publish(message("a", number.to_string(), 1)).await;
        }
        let (mut listener, _, _) = rig.enter(&staying(version, "listener")).await;
        let heard = listener.messages().await;
        assert_eq!(heard.len(), mailbox::MAX_ABSENT);
        assert_eq!(heard[0].payload, b"0", "the first are kept, in order");
        assert_eq!(rig.hub.counters().absent_dropped.load(Ordering::Relaxed), 3);
    }
}

/// What a client leaves unread when it goes is cut to the same bound, and counted.
#[tokio::test]
async fn what_waited_for_a_client_that_goes_is_cut_to_what_may_wait() {
    let rig = Rig::open().await;
    let narrow = Hello {
        properties: [
            staying(V5, "listener").properties,
            vec![(property::RECEIVE_MAXIMUM, vec![0, 1])],
        ]
        .concat(),
        ..staying(V5, "listener")
    };
    let (mut listener, _, _) = rig.enter(&narrow).await;
    listener.subscribe(&[("a", 1)]).await;
    let mut talker = rig.client(V5, "talker").await;
    // One is on its way; the others wait.
    for number in 0..=mailbox::MAX_ABSENT + 5 {
        talker.publish(message("a", number.to_string(), 1)).await;
    }
    listener.vanish().await;
    assert_eq!(rig.hub.counters().absent_dropped.load(Ordering::Relaxed), 5);
    let (mut listener, _, _) = rig.enter(&narrow).await;
    assert_eq!(listener.messages().await.len(), 1 + mailbox::MAX_ABSENT);
}

#[tokio::test]
async fn names_are_at_most_256_bytes() {
    let rig = Rig::open().await;
    let long = "é".repeat(128);
    for version in BOTH {
        let fits = Hello {
            user: Some(long.clone()),
            ..hello(version, &long)
        };
        rig.enter(&fits).await.0.leave(&[]).await;
        let name = hello(version, &format!("{long}x"));
        let user = Hello {
            user: Some(format!("{long}x")),
            ..hello(version, "one")
        };
        let codes = if version == V5 { [0x85, 0x86] } else { [2, 4] };
        for (hello, expected) in [name, user].iter().zip(codes) {
            let mut client = rig.knock(hello).await;
            assert!(matches!(client.next().await, Packet::Connack { code, .. } if code == expected));
            assert_eq!(client.next().await, Packet::Closed);
        }
    }
}

/// Version 3.1.1 knows no receive maximum: what it leaves unreleased is bounded nevertheless.
#[tokio::test]
async fn quality_2_publishes_that_are_never_released_are_bounded() {
    let rig = Rig::open().await;
    let mut client = rig.client(V311, "one").await;
    for _ in 0..1024 {
        let id = client.publish_only(message("a", "x", 2)).await;
        assert_eq!(client.next().await, Packet::PubRec(id, 0));
    }
    client.publish_only(message("a", "x", 2)).await;
    assert_eq!(client.next().await, Packet::Closed);
}
