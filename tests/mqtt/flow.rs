//! Version 5's bounds of one connection, in both directions: aliases, packet sizes, the receive maximum.

use std::sync::atomic::Ordering;

use crate::rig::{
    BOTH, Hello, MAX_INFLIGHT, MAX_PACKET, Message, Packet, Rig, V5, V311, hello, message, payloads,
    property, publish, the,
};

fn aliased(topic: &str, alias: u16) -> Message {
    Message {
        properties: vec![(property::ALIAS, alias.to_be_bytes().to_vec())],
        ..message(topic, "x", 1)
    }
}

/// 5 §3.2.2.3.8, §3.3.2.3.4: an alias stands for the topic it was last sent with; subscribers do not see it.
#[tokio::test]
async fn a_topic_alias_stands_for_its_topic() {
    let rig = Rig::open().await;
    let mut listener = rig.client(V5, "listener").await;
    listener.subscribe(&[("#", 1)]).await;
    let (mut talker, _, told) = rig.enter(&hello(V5, "talker")).await;
    assert_eq!(the(&told, property::ALIAS_MAXIMUM), Some(vec![0, 16]));
    for (topic, alias, meant) in [
        ("a", 1, "a"),
        ("b", 16, "b"),
        ("", 1, "a"),
        ("", 16, "b"),
        ("c", 1, "c"),
        ("", 1, "c"),
    ] {
        talker.publish(aliased(topic, alias)).await;
        let heard = listener.messages().await;
        assert_eq!(heard[0].topic, meant);
        assert_eq!(heard[0].properties, []);
    }
}

/// 5 §3.3.2.3.4: an alias is its connection's own, even of a session that goes on.
#[tokio::test]
async fn a_topic_alias_ends_with_its_connection() {
    let rig = Rig::open().await;
    let mut talker = rig.client(V5, "talker").await;
    talker.publish(aliased("a", 1)).await;
    let mut other = rig.client(V5, "other").await;
    other.publish_only(aliased("", 1)).await;
    assert_eq!(other.ending().await, Some(0x82));
    let mut again = rig.client(V5, "talker").await;
    again.publish_only(aliased("", 1)).await;
    assert_eq!(again.ending().await, Some(0x82));
}

/// 5 §3.3.2.1, §3.3.2.3.4: 0 and what is beyond the maximum are no aliases, and without one a topic is due.
#[tokio::test]
async fn an_alias_out_of_range_ends_the_connection() {
    let rig = Rig::open().await;
    for (publish, reason) in [
        (aliased("a", 0), 0x94),
        (aliased("a", 17), 0x94),
        (message("", "x", 1), 0x82),
    ] {
        let mut client = rig.client(V5, "one").await;
        client.publish_only(publish).await;
        assert_eq!(client.ending().await, Some(reason));
    }
}

/// 5 §3.1.2.11.5, §3.3.2.3.4: the door uses no aliases, whatever the client would take.
#[tokio::test]
async fn the_door_sends_whole_topics_to_those_who_would_take_aliases() {
    let rig = Rig::open().await;
    for maximum in [0_u16, 10, u16::MAX] {
        let hello = Hello {
            properties: vec![(property::ALIAS_MAXIMUM, maximum.to_be_bytes().to_vec())],
            ..hello(V5, "one")
        };
        let (mut client, _, _) = rig.enter(&hello).await;
        client.subscribe(&[("a", 0)]).await;
        for _ in 0..3 {
            client.publish(message("a", "x", 0)).await;
            let heard = client.message().await;
            assert_eq!((heard.topic.as_str(), heard.properties), ("a", Vec::new()));
        }
    }
}

/// 5 §3.1.2.11.4: what is larger than a client takes is not sent to it, as if it had been; the last byte counts.
#[tokio::test]
async fn a_message_over_the_clients_maximum_packet_size_is_not_sent() {
    let rig = Rig::open().await;
    let mut talker = rig.client(V5, "talker").await;
    // A length of 126 fits one byte, one of 200 needs two.
    for size in [128_u32, 203] {
        let hello = Hello {
            properties: vec![(property::MAX_PACKET, size.to_be_bytes().to_vec())],
            ..hello(V5, "listener")
        };
        let (mut listener, _, _) = rig.enter(&hello).await;
        listener.subscribe(&[("t", 2)]).await;
        for qos in 0..=2 {
            let empty = publish(V5, &message("t", "", qos)).len() + usize::from(size > 128);
            let room = usize::try_from(size).unwrap() - empty;
            talker.publish(message("t", "y".repeat(room + 1), qos)).await;
            talker.publish(message("t", "x".repeat(room), qos)).await;
            assert_eq!(payloads(&listener.messages().await), ["x".repeat(room)]);
        }
    }
    assert_eq!(rig.counters.too_large_for_subscriber.load(Ordering::Relaxed), 6);
}

/// 5 §3.2.2.3.6, §4.13: what is larger than the door takes ends the connection, on sight of its length.
/// 3.1.1 §4.8: so it does there.
#[tokio::test]
async fn a_packet_over_max_packet_ends_the_connection() {
    let rig = Rig::open().await;
    let (mut new, _, told) = rig.enter(&hello(V5, "new")).await;
    let size = u32::from(MAX_PACKET).to_be_bytes().to_vec();
    assert_eq!(the(&told, property::MAX_PACKET), Some(size));
    let mut old = rig.client(V311, "old").await;
    let most = usize::from(MAX_PACKET);
    for (client, version) in [(&mut new, V5), (&mut old, V311)] {
        let empty = publish(version, &message("t", "x".repeat(1000), 1)).len() - 1000 + 1;
        client.publish(message("t", "x".repeat(most - empty), 1)).await;
        let bytes = publish(version, &message("t", "x".repeat(most - empty + 1), 1));
        assert_eq!(bytes.len(), most + 1);
        client.send(&bytes[..5]).await;
    }
    assert_eq!(new.ending().await, Some(0x95));
    assert_eq!(old.ending().await, None);
}

/// 5 §3.1.2.11.3, §4.9: no more than the client's receive maximum is on its way; each acknowledgement lets one follow.
#[tokio::test]
async fn no_more_is_on_its_way_than_the_clients_receive_maximum() {
    let rig = Rig::open().await;
    let hello = Hello {
        properties: vec![(property::RECEIVE_MAXIMUM, vec![0, 2])],
        ..hello(V5, "listener")
    };
    let (mut listener, _, _) = rig.enter(&hello).await;
    listener.subscribe(&[("a", 2)]).await;
    let mut talker = rig.client(V5, "talker").await;
    for (payload, qos) in [("one", 1), ("two", 2), ("three", 1), ("four", 1), ("five", 1)] {
        talker.publish(message("a", payload, qos)).await;
    }
    let sent = listener.unacknowledged().await;
    assert_eq!(payloads(&sent), ["one", "two"]);
    listener.say(0x40, &sent[0].id.to_be_bytes()).await;
    assert_eq!(payloads(&listener.unacknowledged().await), ["three"]);
    // Received is not complete: only PUBCOMP makes room, and PUBREC with an error.
    listener.say(0x50, &sent[1].id.to_be_bytes()).await;
    assert_eq!(listener.pending().await, [Packet::PubRel(sent[1].id, 0)]);
    listener.say(0x70, &sent[1].id.to_be_bytes()).await;
    assert_eq!(payloads(&listener.messages().await), ["four", "five"]);
}

/// 3.1.1 §4.6; 5 §4.9: an acknowledgement is all that the next message needs: nothing else has to be said.
#[tokio::test]
async fn an_acknowledgement_alone_lets_the_next_message_follow() {
    for version in BOTH {
        let rig = Rig::open().await;
        let mut listener = rig.client(version, "listener").await;
        listener.subscribe(&[("a", 1)]).await;
        let mut talker = rig.client(version, "talker").await;
        for number in 0..3 * MAX_INFLIGHT {
            talker.publish(message("a", number.to_string(), 1)).await;
        }
        for number in 0..3 * MAX_INFLIGHT {
            let heard = listener.message().await;
            assert_eq!(heard.payload, number.to_string().as_bytes());
            // All of a window at once.
            if number % MAX_INFLIGHT == MAX_INFLIGHT - 1 {
                let ids = number + 2 - MAX_INFLIGHT..=number + 1;
                let acknowledgements = ids.flat_map(|id| [0x40, 2, 0, u8::try_from(id).unwrap()]);
                listener.send(&acknowledgements.collect::<Vec<_>>()).await;
            }
        }
    }
}

/// 5 §4.9: an acknowledgement that says no makes room like any other, and is not asked again.
#[tokio::test]
async fn a_client_may_refuse_a_message() {
    let rig = Rig::open().await;
    let hello = Hello {
        properties: vec![(property::RECEIVE_MAXIMUM, vec![0, 1])],
        ..hello(V5, "listener")
    };
    let (mut listener, _, _) = rig.enter(&hello).await;
    listener.subscribe(&[("a", 2)]).await;
    let mut talker = rig.client(V5, "talker").await;
    for (payload, qos) in [("one", 1), ("two", 2), ("three", 0)] {
        talker.publish(message("a", payload, qos)).await;
    }
    for (payload, refusal) in [("one", 0x40), ("two", 0x50)] {
        let sent = listener.unacknowledged().await;
        assert_eq!(payloads(&sent), [payload]);
        let [high, low] = sent[0].id.to_be_bytes();
        listener.say(refusal, &[high, low, 0x80]).await;
    }
    assert_eq!(payloads(&listener.unacknowledged().await), ["three"]);
}

/// 5 §3.2.2.3.3, §4.9: a client that sends more than the door's receive maximum is disconnected.
#[tokio::test]
async fn a_client_beyond_the_doors_receive_maximum_is_disconnected() {
    let rig = Rig::open().await;
    let (mut client, _, told) = rig.enter(&hello(V5, "one")).await;
    assert_eq!(
        the(&told, property::RECEIVE_MAXIMUM),
        Some(MAX_INFLIGHT.to_be_bytes().to_vec())
    );
    for _ in 0..MAX_INFLIGHT {
        let id = client.publish_only(message("a", "x", 2)).await;
        assert_eq!(client.next().await, Packet::PubRec(id, 0));
    }
    // Releasing one makes room for one.
    client.say(0x62, &1_u16.to_be_bytes()).await;
    assert_eq!(client.next().await, Packet::PubComp(1, 0));
    let id = client.publish_only(message("a", "x", 2)).await;
    assert_eq!(client.next().await, Packet::PubRec(id, 0));
    client.publish_only(message("a", "x", 2)).await;
    assert_eq!(client.ending().await, Some(0x93));
}
