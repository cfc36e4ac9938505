//! Subscribing and unsubscribing: overlaps, refusals, version 5's options and identifiers.

use crate::rig::{BOTH, Properties, Rig, V5, V311, hello, message, payloads, property, retained, the};

const NO_LOCAL: u8 = 0x04;
const RETAIN_AS_PUBLISHED: u8 = 0x08;
const RETAINED_IF_NEW: u8 = 0x10;
const RETAINED_NEVER: u8 = 0x20;

/// 3.1.1 §3.3.5; 5 §3.3.4: one copy, with the highest quality that any of the filters was granted.
#[tokio::test]
async fn overlapping_subscriptions_make_one_delivery_with_the_best_quality() {
    for version in BOTH {
        let rig = Rig::open().await;
        let mut listener = rig.client(version, "listener").await;
        listener.subscribe(&[("a/#", 2), ("a/+", 1), ("a/b", 0)]).await;
        let mut talker = rig.client(version, "talker").await;
        talker.publish(message("a/b", "x", 2)).await;
        let heard = listener.messages().await;
        assert_eq!(payloads(&heard), ["x"]);
        assert_eq!(heard[0].qos, 2);
    }
}

/// 3.1.1 §3.8.4; 5 §3.8.4: the same filter again replaces the subscription, and retained messages come again.
#[tokio::test]
async fn subscribing_again_replaces_the_subscription() {
    for version in BOTH {
        let rig = Rig::open().await;
        let mut client = rig.client(version, "one").await;
        client.publish(retained("a", "kept")).await;
        for qos in [1, 0] {
            client.subscribe(&[("a", qos)]).await;
            let heard = client.messages().await;
            assert_eq!(payloads(&heard), ["kept"]);
            assert_eq!(heard[0].qos, qos);
        }
        client.publish(message("a", "x", 1)).await;
        let heard = client.messages().await;
        assert_eq!((heard.len(), heard[0].qos), (1, 0));
    }
}

/// 3.1.1 §3.10.4; 5 §3.10.4, §3.11.3: what is unsubscribed comes no more, and only that.
#[tokio::test]
async fn unsubscribing_ends_that_subscription_and_no_other() {
    for version in BOTH {
        let rig = Rig::open().await;
        let mut client = rig.client(version, "one").await;
        client.subscribe(&[("a", 1), ("b/+", 1), ("#", 0)]).await;
        let codes = client.unsubscribe(&["a", "b/c", "never"]).await;
        let told: &[u8] = if version == V5 { &[0, 0x11, 0x11] } else { &[] };
        assert_eq!(codes, told);
        for topic in ["a", "b/c"] {
            client.publish(message(topic, topic, 1)).await;
        }
        let heard = client.messages().await;
        assert_eq!(payloads(&heard), ["a", "b/c"]);
        assert_eq!((heard[0].qos, heard[1].qos), (0, 1), "by # and by b/+");
        client.unsubscribe(&["#", "b/+"]).await;
        client.publish(message("b/c", "x", 1)).await;
        assert!(client.messages().await.is_empty());
    }
}

/// 3.1.1 §3.10.4; 5 §3.10.4: filters are compared as text; one that could never be granted ends none.
#[tokio::test]
async fn unsubscribing_from_what_is_no_filter_ends_no_subscription() {
    for version in BOTH {
        let rig = Rig::open().await;
        let mut client = rig.client(version, "one").await;
        client.subscribe(&[("#", 1)]).await;
        let codes = client.unsubscribe(&["#/x"]).await;
        let told: &[u8] = if version == V5 { &[0x11] } else { &[] };
        assert_eq!(codes, told);
        client.publish(message("a", "x", 1)).await;
        assert_eq!(payloads(&client.messages().await), ["x"]);
    }
}

/// 3.1.1 §3.9.3, §4.7.1; 5 §3.9.3, §4.7.1: an invalid filter fails for itself; the others are granted.
#[tokio::test]
async fn an_invalid_filter_is_refused_and_the_others_are_granted() {
    for version in BOTH {
        let rig = Rig::open().await;
        let mut client = rig.client(version, "one").await;
        let refused = if version == V5 { 0x8F } else { 0x80 };
        let filters = [("a", 1), ("a#", 1), ("#/a", 1), ("a+/b", 1), ("", 1), ("b", 0)];
        let codes = client.subscribe(&filters).await;
        assert_eq!(codes, [1, refused, refused, refused, refused, 0]);
        client.publish(message("a", "x", 1)).await;
        assert_eq!(payloads(&client.messages().await), ["x"]);
    }
}

/// 5 §3.2.2.3.13, §3.9.3, §4.8.2: shared subscriptions are not offered: the CONNACK says so, and so does the
/// SUBACK of whoever asks nevertheless. (§3.2.2.3.13 has the server disconnect; the code that §3.9.3 has for it
/// spares the client's other filters.) Version 3.1.1 knows none; there the name would not mean what was meant.
#[tokio::test]
async fn shared_subscriptions_are_not_offered_and_refused() {
    let rig = Rig::open().await;
    let (mut new, _, told) = rig.enter(&hello(V5, "new")).await;
    assert_eq!(the(&told, property::SHARED_AVAILABLE), Some(vec![0]));
    assert_eq!(new.subscribe(&[("$share/g/a", 1), ("b", 1)]).await, [0x9E, 1]);
    let mut old = rig.client(V311, "old").await;
    assert_eq!(old.subscribe(&[("$share/g/a", 1), ("b", 1)]).await, [0x80, 1]);
    new.publish(message("a", "x", 1)).await;
    assert!(new.messages().await.is_empty() && old.messages().await.is_empty());
}

/// 5 §3.8.3, §3.8.3.1, §3.10.3: what no SUBSCRIBE or UNSUBSCRIBE may say ends the connection with the right reason.
#[tokio::test]
async fn a_subscribe_against_the_standard_ends_the_connection_with_its_reason() {
    let protocol_error: &[(u8, &[u8])] = &[
        (0x82, b"\0\x01\0\0\x01a\x03"),
        (0x82, b"\0\x01\0\0\x01a\x30"),
        (0x82, b"\0\x01\0"),
        (0x82, b"\0\x01\x02\x0B\0\0\x01a\0"),
        (0x82, b"\0\0\0\0\x01a\0"),
        (0xA2, b"\0\x01\0"),
    ];
    let malformed: &[(u8, &[u8])] = &[(0x82, b"\0\x01\0\0\x01a\x40"), (0x82, b"\0\x01\0\0\x01a\x80")];
    let rig = Rig::open().await;
    for (bodies, reason) in [(protocol_error, 0x82), (malformed, 0x81)] {
        for (first, body) in bodies {
            let mut client = rig.client(V5, "one").await;
            client.say(*first, body).await;
            assert_eq!(client.ending().await, Some(reason), "{body:?}");
        }
    }
}

/// 5 §3.8.3.1, No Local: not what the client itself publishes; by another filter it may still come.
#[tokio::test]
async fn no_local_keeps_a_clients_own_messages_from_it() {
    let rig = Rig::open().await;
    let mut client = rig.client(V5, "one").await;
    let mut other = rig.client(V5, "other").await;
    client
        .subscribe(&[("a", 1 | NO_LOCAL), ("b", 1 | NO_LOCAL), ("b/#", 0)])
        .await;
    for topic in ["a", "b"] {
        client.publish(message(topic, "mine", 1)).await;
        other.publish(message(topic, "another's", 1)).await;
    }
    let heard = client.messages().await;
    assert_eq!(payloads(&heard), ["another's", "mine", "another's"]);
    assert_eq!(heard[1].qos, 0, "by the filter that is not no-local");
}

/// 5 §3.8.3.1, Retain As Published: the flag stays as the publisher set it.
#[tokio::test]
async fn retain_as_published_keeps_the_flag() {
    let rig = Rig::open().await;
    let mut client = rig.client(V5, "one").await;
    client
        .subscribe(&[("a", 1 | RETAIN_AS_PUBLISHED), ("b", 1)])
        .await;
    for topic in ["a", "b"] {
        client.publish(retained(topic, "x")).await;
        client.publish(message(topic, "y", 1)).await;
    }
    let flags: Vec<bool> = client
        .messages()
        .await
        .iter()
        .map(|message| message.retain)
        .collect();
    assert_eq!(flags, [true, false, false, false]);
}

/// 5 §3.8.3.1, Retain Handling: at every subscribe, only at a new one, never.
#[tokio::test]
async fn retain_handling_says_when_retained_messages_come() {
    let rig = Rig::open().await;
    let mut client = rig.client(V5, "one").await;
    client.publish(retained("a", "x")).await;
    for (options, expected) in [
        (RETAINED_NEVER, 0),
        (RETAINED_IF_NEW, 0),
        (0, 1),
        (0, 1),
        (RETAINED_IF_NEW, 0),
    ] {
        client.subscribe(&[("a", 1 | options)]).await;
        assert_eq!(client.messages().await.len(), expected, "{options}");
    }
    client.unsubscribe(&["a"]).await;
    client.subscribe(&[("a", 1 | RETAINED_IF_NEW)]).await;
    assert_eq!(client.messages().await.len(), 1, "it is new again");
}

fn numbered(identifier: &[u8]) -> Properties {
    vec![(property::IDENTIFIER, identifier.to_vec())]
}

/// 5 §3.8.2.1.2, §3.3.2.3.8, §3.8.4: a message names the subscriptions that it came by, retained or not.
#[tokio::test]
async fn a_message_names_the_subscriptions_that_matched() {
    let rig = Rig::open().await;
    let mut client = rig.client(V5, "one").await;
    let identifiers = |message: &crate::rig::Message| -> Vec<Vec<u8>> {
        let mut all: Vec<_> = message
            .properties
            .iter()
            .map(|(_, value)| value.clone())
            .collect();
        all.sort();
        all
    };
    let largest = [0xFF, 0xFF, 0xFF, 0x7F];
    client.publish(retained("a/b", "kept")).await;
    client.subscribe_with(&[("a/#", 1)], &numbered(&largest)).await;
    assert_eq!(identifiers(&client.messages().await[0]), [largest.to_vec()]);
    client
        .subscribe_with(&[("a/+", 1), ("c", 1)], &numbered(&[7]))
        .await;
    client.messages().await;
    client.subscribe(&[("a/b", 1)]).await;
    client.messages().await;
    client.publish(message("a/b", "x", 1)).await;
    let heard = client.messages().await;
    assert_eq!(heard.len(), 1);
    assert_eq!(identifiers(&heard[0]), [vec![7], largest.to_vec()]);
    // The same filter without one: it has none any more.
    client.subscribe(&[("a/#", 1)]).await;
    client.messages().await;
    client.publish(message("a/b", "x", 1)).await;
    assert_eq!(identifiers(&client.messages().await[0]), [vec![7]]);
    client.publish(message("c", "x", 1)).await;
    assert_eq!(identifiers(&client.messages().await[0]), [vec![7]]);
}
