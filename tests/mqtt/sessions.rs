//! What outlives a connection, and for how long.

use crate::rig::{
    BOTH, Hello, Message, Packet, Rig, V5, V311, Version, hello, message, payloads, property, retained,
    staying, the,
};

/// 3.1.1 §3.1.2.4, §4.1; 5 §3.1.2.11.2, §4.1: what is published at quality 1 and 2 while a subscriber is away
/// waits for it.
#[tokio::test]
async fn messages_wait_for_a_subscriber_that_is_away() {
    for version in BOTH {
        let rig = Rig::open().await;
        let (mut listener, present, _) = rig.enter(&staying(version, "listener")).await;
        assert!(!present);
        listener.subscribe(&[("a/#", 2)]).await;
        listener.vanish().await;
        let mut talker = rig.client(version, "talker").await;
        for qos in [1, 0, 2, 1] {
            talker.publish(message("a/b", [b'0' + qos], qos)).await;
        }
        let (mut listener, present, _) = rig.enter(&staying(version, "listener")).await;
        assert!(present);
        let heard = listener.messages().await;
        assert_eq!(payloads(&heard), ["1", "2", "1"], "in order, without quality 0");
        assert!(heard.iter().all(|message| !message.dup && !message.retain));
        talker.publish(message("a/b", "live", 0)).await;
        assert_eq!(payloads(&listener.messages().await), ["live"], "still subscribed");
    }
}

/// 3.1.1 §3.1.2.4, §3.2.2.2; 5 §3.1.2.4, §3.2.2.1.1: a clean start forgets the session and says so.
#[tokio::test]
async fn a_clean_start_forgets_the_session() {
    for version in BOTH {
        let rig = Rig::open().await;
        let (mut client, _, _) = rig.enter(&staying(version, "one")).await;
        client.subscribe(&[("a", 1)]).await;
        client.vanish().await;
        let clean = Hello {
            clean: true,
            ..staying(version, "one")
        };
        let (mut client, present, _) = rig.enter(&clean).await;
        assert!(!present);
        client.publish(message("a", "x", 1)).await;
        assert!(client.messages().await.is_empty());
    }
}

/// 3.1.1 §3.1.2.4: a session that began clean ends with its connection. 5 §3.1.2.11.2: so does one without an expiry.
#[tokio::test]
async fn a_session_that_was_not_to_stay_ends_with_its_connection() {
    for version in BOTH {
        let rig = Rig::open().await;
        let mut client = rig.client(version, "one").await;
        client.subscribe(&[("a", 1)]).await;
        client.vanish().await;
        let (mut client, present, _) = rig.enter(&staying(version, "one")).await;
        assert!(!present);
        client.publish(message("a", "x", 1)).await;
        assert!(client.messages().await.is_empty());
    }
}

/// 3.1.1 §4.4; 5 §4.4: what was not acknowledged is sent again on the next connection: same ids, in order,
/// flagged; what was received at quality 2 is only released again.
#[tokio::test]
async fn what_was_not_acknowledged_is_sent_again_after_a_reconnect() {
    for version in BOTH {
        let rig = Rig::open().await;
        let (mut listener, _, _) = rig.enter(&staying(version, "listener")).await;
        listener.subscribe(&[("a", 2)]).await;
        let mut talker = rig.client(version, "talker").await;
        for (payload, qos) in [("one", 1), ("two", 2), ("three", 2), ("four", 1)] {
            talker.publish(message("a", payload, qos)).await;
        }
        let sent = listener.unacknowledged().await;
        assert_eq!(payloads(&sent), ["one", "two", "three", "four"]);
        listener.say(0x40, &sent[0].id.to_be_bytes()).await;
        listener.say(0x50, &sent[1].id.to_be_bytes()).await;
        assert_eq!(listener.next().await, Packet::PubRel(sent[1].id, 0));
        listener.vanish().await;
        talker.publish(message("a", "five", 1)).await;

        let (mut listener, present, _) = rig.enter(&staying(version, "listener")).await;
        assert!(present);
        let again = listener.pending().await;
        let expected: Vec<Packet> = [&sent[2], &sent[3]]
            .into_iter()
            .map(|message| {
                Packet::Publish(Message {
                    dup: true,
                    ..message.clone()
                })
            })
            .collect();
        assert_eq!(again[0], Packet::PubRel(sent[1].id, 0));
        assert_eq!(again[1..3], expected);
        let Packet::Publish(five) = &again[3] else {
            panic!("{again:?}");
        };
        assert_eq!((&five.payload[..], five.dup), (&b"five"[..], false));
        assert!(
            sent.iter().skip(1).all(|old| old.id != five.id),
            "an id that is free"
        );
        assert_eq!(again.len(), 4);
    }
}

/// 3.1.1 §4.1; 5 §4.1: what waits to be sent belongs to the session, also what was retained.
#[tokio::test]
async fn retained_messages_that_were_not_sent_yet_wait_for_the_next_connection() {
    let rig = Rig::open().await;
    let mut talker = rig.client(V5, "talker").await;
    for topic in ["a/1", "a/2", "a/3"] {
        talker.publish(retained(topic, topic)).await;
    }
    let mut narrow = staying(V5, "listener");
    narrow.properties.push((property::RECEIVE_MAXIMUM, vec![0, 1]));
    let (mut listener, _, _) = rig.enter(&narrow).await;
    listener.subscribe(&[("a/+", 1)]).await;
    assert_eq!(listener.unacknowledged().await.len(), 1);
    listener.vanish().await;
    let (mut listener, _, _) = rig.enter(&narrow).await;
    let mut heard = listener.messages().await;
    heard.sort_by(|one, other| one.topic.cmp(&other.topic));
    assert_eq!(payloads(&heard), ["a/1", "a/2", "a/3"]);
    assert!(heard.iter().all(|message| message.retain));
}

/// 3.1.1 §4.3.3, §4.4; 5 §4.3.3, §4.4: a quality 2 publish that is sent again after a reconnect is not published again.
#[tokio::test]
async fn a_quality_2_publish_that_comes_again_after_a_reconnect_is_published_once() {
    for version in BOTH {
        let rig = Rig::open().await;
        let mut listener = rig.client(version, "listener").await;
        listener.subscribe(&[("a", 2)]).await;
        let (mut talker, _, _) = rig.enter(&staying(version, "talker")).await;
        let once = Message {
            id: 7,
            ..message("a", "once", 2)
        };
        talker.publish_only(once.clone()).await;
        assert_eq!(talker.next().await, Packet::PubRec(7, 0));
        talker.vanish().await;
        let (mut talker, _, _) = rig.enter(&staying(version, "talker")).await;
        talker
            .publish(Message {
                dup: true,
                ..once.clone()
            })
            .await;
        assert_eq!(payloads(&listener.messages().await), ["once"]);
        // Released: the same id is another message.
        talker.publish(once).await;
        assert_eq!(payloads(&listener.messages().await), ["once"]);
    }
}

fn lasting(name: &str, seconds: u32) -> Hello {
    Hello {
        clean: false,
        properties: vec![(property::SESSION_EXPIRY, seconds.to_be_bytes().to_vec())],
        ..hello(V5, name)
    }
}

/// 5 §3.1.2.11.2: a session waits as long as its client asked, and no longer.
#[tokio::test]
async fn a_session_expires() {
    let rig = Rig::open().await;
    let mut talker = rig.client(V5, "talker").await;
    for name in ["short", "long"] {
        let (mut client, _, told) = rig
            .enter(&lasting(name, if name == "short" { 1 } else { 60 }))
            .await;
        assert_eq!(the(&told, property::SESSION_EXPIRY), None, "as it asked");
        client.subscribe(&[("a", 1)]).await;
        client.vanish().await;
    }
    // The hub tells nobody that a session has ended: but then a session that began later, and lasts as long,
    // has a will that is heard.
    let mut listener = rig.client(V5, "listener").await;
    listener.subscribe(&[("will", 0)]).await;
    let canary = Hello {
        will: Some(Message {
            properties: vec![(property::WILL_DELAY, vec![0, 0, 0, 60])],
            ..message("will", "ended", 0)
        }),
        ..lasting("canary", 1)
    };
    rig.enter(&canary).await.0.vanish().await;
    listener.message().await;
    talker.publish(message("a", "x", 1)).await;
    for (name, expected) in [("short", false), ("long", true)] {
        let (mut client, present, _) = rig.enter(&lasting(name, 60)).await;
        assert_eq!(present, expected);
        assert_eq!(client.messages().await.len(), usize::from(expected));
    }
}

/// 5 §3.14.2.2.2: a goodbye may change how long the session waits, but not revive one that was not to stay.
#[tokio::test]
async fn a_goodbye_may_change_the_sessions_expiry() {
    let rig = Rig::open().await;
    let expiry = |seconds: u8| [0, 5, property::SESSION_EXPIRY, 0, 0, 0, seconds];
    rig.enter(&lasting("one", 60)).await.0.leave(&expiry(0)).await;
    let (client, present, _) = rig.enter(&lasting("one", 1)).await;
    assert!(!present, "it was shortened to nothing");
    client.leave(&expiry(60)).await;
    let (mut client, present, _) = rig.enter(&lasting("one", 0)).await;
    assert!(present);
    client.say(0xE0, &expiry(60)).await;
    assert_eq!(client.ending().await, Some(0x82));
    let (_, present, _) = rig.enter(&lasting("one", 60)).await;
    assert!(!present);
}

/// Reconnects until nothing retained comes any more: then all that was to expire before has.
async fn until_forgotten(rig: &Rig, version: Version, topic: &str) {
    let deadline = tokio::time::Instant::now() + crate::rig::PATIENCE;
    let mut client = rig.client(version, "watcher").await;
    loop {
        client.subscribe(&[(topic, 1)]).await;
        if client.messages().await.is_empty() {
            return;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "{topic} is retained for ever"
        );
    }
}

fn expiring(message: Message, seconds: u8) -> Message {
    Message {
        properties: vec![(property::EXPIRY, vec![0, 0, 0, seconds])],
        ..message
    }
}

/// 5 §3.3.2.3.3: a message that has waited too long for its subscriber is not delivered; another comes with
/// what is left of its time.
#[tokio::test]
async fn an_expired_message_is_not_delivered_and_a_delivered_one_says_what_is_left() {
    let rig = Rig::open().await;
    let mut talker = rig.client(V5, "talker").await;
    for version in BOTH {
        let name = format!("{version:?}");
        let (mut listener, _, _) = rig.enter(&staying(version, &name)).await;
        listener.subscribe(&[("a", 1)]).await;
        listener.vanish().await;
    }
    talker.publish(expiring(message("a", "short", 1), 1)).await;
    talker.publish(expiring(message("a", "long", 1), 100)).await;
    talker.publish(message("a", "for ever", 1)).await;
    talker.publish(expiring(retained("marker", "x"), 1)).await;
    until_forgotten(&rig, V5, "marker").await;
    for version in BOTH {
        let (mut listener, _, _) = rig.enter(&staying(version, &format!("{version:?}"))).await;
        let heard = listener.messages().await;
        assert_eq!(payloads(&heard), ["long", "for ever"]);
        if version == V5 {
            assert!(left(&heard[0]).expect("an expiry") < 100);
            assert_eq!(left(&heard[1]), None);
        }
    }
}

fn left(message: &Message) -> Option<u32> {
    let value = the(&message.properties, property::EXPIRY)?;
    Some(u32::from_be_bytes(value.try_into().expect("four bytes")))
}

/// 5 §3.3.2.3.3: at once, it is all that was given.
#[tokio::test]
async fn a_message_that_did_not_wait_comes_with_its_whole_expiry() {
    let rig = Rig::open().await;
    let mut client = rig.client(V5, "one").await;
    client.subscribe(&[("a", 1)]).await;
    client.publish(expiring(message("a", "x", 1), 100)).await;
    assert!(left(&client.message().await).expect("an expiry") > 90);
}

/// 5 §3.3.2.3.3, §4.4: what is sent again after a reconnect says what is left now.
#[tokio::test]
async fn a_message_that_is_sent_again_says_what_is_left() {
    let rig = Rig::open().await;
    let (mut listener, _, _) = rig.enter(&staying(V5, "listener")).await;
    listener.subscribe(&[("a", 1)]).await;
    let mut talker = rig.client(V5, "talker").await;
    talker.publish(expiring(message("a", "x", 1), 100)).await;
    assert_eq!(listener.unacknowledged().await.len(), 1);
    listener.vanish().await;
    talker.publish(expiring(retained("marker", "x"), 1)).await;
    until_forgotten(&rig, V5, "marker").await;
    let (mut listener, _, _) = rig.enter(&staying(V5, "listener")).await;
    let again = listener.message().await;
    assert!(again.dup);
    assert!(left(&again).expect("an expiry") < 100);
}

/// 5 §3.3.2.3.3: a retained message is forgotten when its time is over.
#[tokio::test]
async fn a_retained_message_expires() {
    let rig = Rig::open().await;
    let mut talker = rig.client(V5, "talker").await;
    talker.publish(expiring(retained("a", "x"), 1)).await;
    for version in [V311, V5] {
        until_forgotten(&rig, version, "a").await;
    }
}
