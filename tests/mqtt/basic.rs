//! What both versions share: messages at each quality, retained ones, names of topics and clients, keep-alive.

use crate::rig::{
    BOTH, Hello, Packet, Rig, V5, V311, Version, hello, message, packet, payloads, property, retained, the,
};

/// 3.1.1 §4.3, §4.6; 5 §4.3, §4.6: each publish comes with its quality, in the publisher's order.
#[tokio::test]
async fn messages_of_every_quality_arrive_once_and_in_order() {
    for version in BOTH {
        let rig = Rig::open().await;
        let mut listener = rig.client(version, "listener").await;
        assert_eq!(listener.subscribe(&[("a/+", 2)]).await, [2]);
        let mut talker = rig.client(version, "talker").await;
        for qos in [0, 1, 2, 0, 2, 1] {
            talker.publish(message("a/b", [b'0' + qos], qos)).await;
        }
        let heard = listener.messages().await;
        assert_eq!(payloads(&heard), ["0", "1", "2", "0", "2", "1"]);
        for message in &heard {
            assert_eq!(message.payload, [b'0' + message.qos]);
            assert!(!message.dup && !message.retain);
        }
    }
}

/// 3.1.1 §3.8.4, §3.9.3; 5 §3.8.4, §3.9.3: the quality is the lower of what was published and what was granted.
#[tokio::test]
async fn a_message_comes_with_no_more_than_the_granted_quality() {
    for version in BOTH {
        let rig = Rig::open().await;
        let mut talker = rig.client(version, "talker").await;
        for granted in 0..=2 {
            let mut listener = rig.client(version, "listener").await;
            assert_eq!(listener.subscribe(&[("a", granted)]).await, [granted]);
            for published in 0..=2 {
                talker.publish(message("a", "x", published)).await;
                assert_eq!(listener.messages().await[0].qos, published.min(granted));
            }
        }
    }
}

/// 3.1.1 §3.3.1.1; 5 §3.3.1.1: DUP is each hop's own; a publisher's is not handed on.
#[tokio::test]
async fn the_publishers_dup_flag_is_not_handed_on() {
    for version in BOTH {
        let rig = Rig::open().await;
        let mut client = rig.client(version, "one").await;
        client.subscribe(&[("a", 1)]).await;
        let again = crate::rig::Message {
            dup: true,
            ..message("a", "x", 1)
        };
        client.publish(again).await;
        assert!(!client.message().await.dup);
    }
}

/// 3.1.1 §3.3.1.3; 5 §3.3.1.3: a later subscriber gets the last retained message of each topic, flagged.
#[tokio::test]
async fn a_retained_message_meets_a_later_subscriber() {
    for version in BOTH {
        let rig = Rig::open().await;
        let mut talker = rig.client(version, "talker").await;
        talker.publish(retained("a/1", "old")).await;
        talker.publish(retained("a/1", "new")).await;
        talker.publish(retained("a/2", "other")).await;
        talker.publish(retained("b", "elsewhere")).await;
        talker.publish(message("a/3", "not retained", 1)).await;
        let mut listener = rig.client(version, "listener").await;
        listener.subscribe(&[("a/+", 1)]).await;
        let mut heard = listener.messages().await;
        heard.sort_by(|one, other| one.topic.cmp(&other.topic));
        assert_eq!(payloads(&heard), ["new", "other"]);
        assert!(heard.iter().all(|message| message.retain && message.qos == 1));
    }
}

/// 3.1.1 §3.3.1.3; 5 §3.3.1.3: to a subscription that was there before, it is a message like any other.
#[tokio::test]
async fn a_retained_message_comes_without_the_flag_to_an_established_subscription() {
    for version in BOTH {
        let rig = Rig::open().await;
        let mut client = rig.client(version, "one").await;
        client.subscribe(&[("a", 1)]).await;
        client.publish(retained("a", "x")).await;
        assert!(!client.message().await.retain);
    }
}

/// 3.1.1 §3.3.1.3; 5 §3.3.1.3: an empty payload is delivered, forgets the retained message, and is not retained.
#[tokio::test]
async fn an_empty_retained_message_forgets_what_was_retained() {
    for version in BOTH {
        let rig = Rig::open().await;
        let mut client = rig.client(version, "one").await;
        client.publish(retained("a", "x")).await;
        client.subscribe(&[("a", 1)]).await;
        assert_eq!(payloads(&client.messages().await), ["x"]);
        client.publish(retained("a", "")).await;
        assert_eq!(payloads(&client.messages().await), [""]);
        let mut later = rig.client(version, "later").await;
        later.subscribe(&[("a", 1)]).await;
        assert!(later.messages().await.is_empty());
    }
}

/// 3.1.1 §4.7.2; 5 §4.7.2: no client speaks in a server's name, and wildcards at the front do not see it.
#[tokio::test]
async fn dollar_topics_are_the_servers() {
    for version in BOTH {
        let rig = Rig::open().await;
        let mut listener = rig.client(version, "listener").await;
        listener.subscribe(&[("#", 1), ("+/x", 1)]).await;
        let mut named = rig.client(version, "named").await;
        named.subscribe(&[("$house/#", 1)]).await;
        rig.hub.publish_event("$house/x", "from the server");
        assert!(listener.messages().await.is_empty());
        assert_eq!(payloads(&named.messages().await), ["from the server"]);

        let id = listener
            .publish_only(message("$house/x", "from a client", 1))
            .await;
        match version {
            V5 => assert_eq!(listener.next().await, Packet::PubAck(id, 0x87)),
            V311 => assert_eq!(listener.ending().await, None),
        }
        assert!(named.messages().await.is_empty());
    }
}

/// 3.1.1 §1.5.3, §4.7.3; 5 §1.5.4, §4.7.3: a topic is any text, and levels may be empty.
#[tokio::test]
async fn any_text_is_a_topic() {
    for version in BOTH {
        let rig = Rig::open().await;
        let mut client = rig.client(version, "é").await;
        client.subscribe(&[("+/日本/#", 0), ("/", 0), (" ", 0)]).await;
        for topic in ["é/日本", "/日本/", "/", " "] {
            client.publish(message(topic, "x", 0)).await;
            assert_eq!(client.message().await.topic, topic);
        }
    }
}

/// 5 §3.1.3.1, §3.2.2.3.7: a client without an id is given one, is told, and may come back under it.
#[tokio::test]
async fn a_client_without_an_id_is_assigned_one() {
    let rig = Rig::open().await;
    let nameless = Hello {
        properties: vec![(property::SESSION_EXPIRY, vec![0, 0, 0, 60])],
        ..hello(V5, "")
    };
    let (one, _, first) = rig.enter(&nameless).await;
    let (_, _, second) = rig.enter(&nameless).await;
    let assigned = the(&first, property::ASSIGNED).expect("an id");
    assert!(!assigned.is_empty());
    assert_ne!(Some(&assigned), the(&second, property::ASSIGNED).as_ref());
    one.vanish().await;
    let name = String::from_utf8(assigned).expect("text");
    let again = Hello {
        clean: false,
        ..hello(V5, &name)
    };
    let (_, present, told) = rig.enter(&again).await;
    assert!(present);
    assert_eq!(the(&told, property::ASSIGNED), None, "it brought its own");
}

/// 3.1.1 §3.1.3.1: a client without an id may have no session.
#[tokio::test]
async fn a_zero_length_client_id_needs_a_clean_session() {
    let rig = Rig::open().await;
    let mut one = rig.client(V311, "").await;
    let mut two = rig.client(V311, "").await;
    one.ping().await;
    two.ping().await;
    let keeping = Hello {
        clean: false,
        ..hello(V311, "")
    };
    let mut refused = rig.knock(&keeping).await;
    let answer = Packet::Connack {
        present: false,
        code: 2,
        properties: Vec::new(),
    };
    assert_eq!(refused.next().await, answer);
    assert_eq!(refused.next().await, Packet::Closed);
}

/// 3.1.1 §3.1.2.10; 5 §3.1.2.10, §4.13: silence for one and a half times the keep-alive ends the connection,
/// and a keep-alive of 0 is none.
#[tokio::test]
async fn silence_ends_a_connection_that_has_a_keep_alive() {
    for version in BOTH {
        let rig = Rig::open().await;
        let mut patient = rig.client(version, "patient").await;
        let silent = Hello {
            keep_alive: 1,
            ..hello(version, "silent")
        };
        let (mut silent, _, _) = rig.enter(&silent).await;
        let told = (version == V5).then_some(0x8D);
        assert_eq!(silent.ending().await, told);
        patient.ping().await;
    }
}

/// 3.1.1 §3.1.2.10; 5 §3.1.2.10: whatever a client sends counts.
#[tokio::test]
async fn a_client_that_pings_is_kept_beyond_its_keep_alive() {
    let rig = Rig::open().await;
    let keeping = |version, name: &str, keep_alive| Hello {
        keep_alive,
        ..hello(version, name)
    };
    let (mut old, _, _) = rig.enter(&keeping(V311, "old", 2)).await;
    let (mut new, _, _) = rig.enter(&keeping(V5, "new", 2)).await;
    // These two may be silent for 3 s, the other for 4.5 s.
    let (mut silent, _, _) = rig.enter(&keeping(V5, "silent", 3)).await;
    {
        let mut ending = std::pin::pin!(silent.ending());
        let mut pace = tokio::time::interval(std::time::Duration::from_millis(100));
        loop {
            let pings = async {
                pace.tick().await;
                old.ping().await;
                new.ping().await;
            };
            tokio::select! {
                why = &mut ending => break assert_eq!(why, Some(0x8D)),
                () = pings => {}
            }
        }
    }
    old.publish(message("a", "x", 1)).await;
    new.publish(message("a", "x", 1)).await;
}

/// 3.1.1 §3.1.2.2; 5 §3.1.2.2: another version is refused in words that it understands, or that 5 would.
#[tokio::test]
async fn another_version_is_refused_in_its_own_words() {
    let rig = Rig::open().await;
    let old = |code| Packet::Connack {
        present: false,
        code,
        properties: Vec::new(),
    };
    let connects: [(Version, &[u8], u8); 4] = [
        (V311, b"\0\x06MQIsdp\x03\x02\0\0\0\x01a", 1),
        (V311, b"\0\x04MQTT\x03\x02\0\0\0\x01a", 1),
        (V5, b"\0\x04MQTT\x06\x02\0\0\0\0\x01a", 0x84),
        (V311, b"\0\x04HTTP\x05\x02\0\0\0\0\x01a", 1),
    ];
    for (version, connect, code) in connects {
        let mut client = rig.bytes(version, &packet(0x10, connect)).await;
        assert_eq!(client.next().await, old(code), "{connect:?}");
        assert_eq!(client.next().await, Packet::Closed);
    }
}
