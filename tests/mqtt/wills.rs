//! Last words.

use crate::rig::{
    BOTH, Hello, Message, Packet, Properties, Rig, V5, Version, hello, message, payloads, property, retained,
    the,
};

fn willing(version: Version, name: &str, will: Message) -> Hello {
    Hello {
        will: Some(will),
        ..hello(version, name)
    }
}

/// One whose will waits for it for so many seconds, and its session too.
fn delayed(name: &str, delay: u32, session: u32) -> Hello {
    Hello {
        clean: false,
        properties: vec![(property::SESSION_EXPIRY, session.to_be_bytes().to_vec())],
        ..willing(
            V5,
            name,
            Message {
                properties: vec![(property::WILL_DELAY, delay.to_be_bytes().to_vec())],
                ..message("will", name, 1)
            },
        )
    }
}

/// 3.1.1 §3.1.2.5; 5 §3.1.2.5: published when the connection ends without DISCONNECT, with its quality.
#[tokio::test]
async fn a_will_is_heard_when_the_connection_breaks() {
    for version in BOTH {
        let rig = Rig::open().await;
        let mut listener = rig.client(version, "listener").await;
        listener.subscribe(&[("#", 2)]).await;
        for qos in 0..=2 {
            let will = message("will", "bye", qos);
            let (client, _, _) = rig.enter(&willing(version, "one", will)).await;
            assert!(listener.messages().await.is_empty());
            client.vanish().await;
            let heard = listener.messages().await;
            assert_eq!(payloads(&heard), ["bye"]);
            assert_eq!((heard[0].qos, heard[0].retain), (qos, false));
        }
    }
}

/// 3.1.1 §3.1.2.5, §3.1.2.10; 5 §3.1.2.5: also when the server ends it: for silence, for broken rules.
#[tokio::test]
async fn a_will_is_heard_when_the_server_ends_the_connection() {
    for version in BOTH {
        let rig = Rig::open().await;
        let mut listener = rig.client(version, "listener").await;
        listener.subscribe(&[("will", 0)]).await;
        let silent = Hello {
            keep_alive: 1,
            ..willing(version, "silent", message("will", "silent", 0))
        };
        _ = rig.enter(&silent).await.0.ending().await;
        let rude = willing(version, "rude", message("will", "rude", 0));
        let (mut rude, _, _) = rig.enter(&rude).await;
        rude.send(&[0xFF; 10]).await;
        _ = rude.ending().await;
        assert_eq!(payloads(&listener.messages().await), ["silent", "rude"]);
    }
}

/// 3.1.1 §3.14.4; 5 §3.14.4: a client that says goodbye leaves none.
#[tokio::test]
async fn a_goodbye_takes_the_will_along() {
    for version in BOTH {
        let rig = Rig::open().await;
        let mut listener = rig.client(version, "listener").await;
        listener.subscribe(&[("will", 0)]).await;
        let hello = willing(version, "one", message("will", "bye", 0));
        rig.enter(&hello).await.0.leave(&[]).await;
        assert!(listener.messages().await.is_empty());
    }
}

/// 5 §3.1.2.5, §3.14.2.1: only a normal goodbye takes the will along: every other reason publishes it.
#[tokio::test]
async fn a_goodbye_for_another_reason_leaves_the_will() {
    let rig = Rig::open().await;
    let mut listener = rig.client(V5, "listener").await;
    listener.subscribe(&[("will", 0)]).await;
    for goodbye in [&b"\x04"[..], b"\x04\0", b"\x80", b"\x93\0", b"\x83"] {
        let hello = willing(V5, "one", message("will", goodbye, 0));
        rig.enter(&hello).await.0.leave(goodbye).await;
        assert_eq!(listener.message().await.payload, goodbye);
    }
    let hello = willing(V5, "one", message("will", "bye", 0));
    rig.enter(&hello).await.0.leave(&[0, 0]).await;
    assert!(listener.messages().await.is_empty());
}

/// 3.1.1 §3.1.2.7; 5 §3.1.2.7: a will may be retained.
#[tokio::test]
async fn a_retained_will_meets_later_subscribers() {
    for version in BOTH {
        let rig = Rig::open().await;
        let hello = willing(version, "one", retained("will", "bye"));
        rig.enter(&hello).await.0.vanish().await;
        let mut later = rig.client(version, "later").await;
        later.subscribe(&[("will", 1)]).await;
        let heard = later.messages().await;
        assert_eq!(payloads(&heard), ["bye"]);
        assert!(heard[0].retain);
    }
}

/// 3.1.1 §3.1.4; 5 §3.1.4, §3.14: a second connection of the same name ends the first, whose will is heard.
#[tokio::test]
async fn a_taken_over_connection_ends_and_its_will_is_heard() {
    for version in BOTH {
        let rig = Rig::open().await;
        let mut listener = rig.client(version, "listener").await;
        listener.subscribe(&[("will", 0)]).await;
        let first = willing(version, "one", message("will", "bye", 0));
        let (mut first, _, _) = rig.enter(&first).await;
        let mut second = rig.client(version, "one").await;
        assert_eq!(first.ending().await, (version == V5).then_some(0x8E));
        assert_eq!(payloads(&listener.messages().await), ["bye"]);
        second.ping().await;
    }
}

/// 5 §3.1.3.2: what a will says of itself comes with it.
#[tokio::test]
async fn a_wills_properties_come_with_it() {
    let rig = Rig::open().await;
    let mut listener = rig.client(V5, "listener").await;
    listener.subscribe(&[("will", 1)]).await;
    let properties: Properties = vec![
        (property::FORMAT, vec![1]),
        (property::CONTENT_TYPE, b"text/plain".to_vec()),
        (property::RESPONSE_TOPIC, b"answer".to_vec()),
        (property::CORRELATION, vec![0, 0xFF]),
        (property::USER, b"k=v".to_vec()),
        (property::USER, b"k=w".to_vec()),
    ];
    let will = Message {
        properties: properties.clone(),
        ..message("will", "bye", 1)
    };
    rig.enter(&willing(V5, "one", will)).await.0.vanish().await;
    let heard = listener.message().await;
    assert_eq!((heard.qos, heard.properties), (1, properties));
}

/// 5 §3.1.3.2.2: a delayed will waits, and is not heard if its client comes back in time.
#[tokio::test]
async fn a_delayed_will_is_heard_unless_its_client_comes_back() {
    let rig = Rig::open().await;
    let mut listener = rig.client(V5, "listener").await;
    listener.subscribe(&[("will", 1)]).await;
    rig.enter(&delayed("back", 3, 60)).await.0.vanish().await;
    rig.enter(&delayed("away", 3, 60)).await.0.vanish().await;
    assert!(listener.messages().await.is_empty(), "neither at once");
    let mut back = rig
        .enter(&Hello {
            clean: false,
            ..hello(V5, "back")
        })
        .await
        .0;
    let heard = listener.message().await;
    assert_eq!(payloads(&[heard]), ["away"], "and its delay was the later");
    back.ping().await;
    assert!(listener.messages().await.is_empty());
}

/// 5 §3.1.3.2.2: a will waits no longer than its session.
#[tokio::test]
async fn a_will_is_heard_when_its_session_ends_before_its_delay() {
    let rig = Rig::open().await;
    let mut listener = rig.client(V5, "listener").await;
    listener.subscribe(&[("will", 0)]).await;
    rig.enter(&delayed("expired", 3600, 1)).await.0.vanish().await;
    assert_eq!(payloads(&[listener.message().await]), ["expired"]);
    let (_, present, _) = rig.enter(&delayed("expired", 3600, 1)).await;
    assert!(!present);
    // A clean start ends the session too.
    rig.enter(&delayed("restarted", 3600, 60)).await.0.vanish().await;
    let _restarted = rig.client(V5, "restarted").await;
    assert_eq!(payloads(&[listener.message().await]), ["restarted"]);
}

/// 3.1.1 §3.1.4; 5 §3.1.4, §3.2.2.2: nobody leaves a will in the gateway's name.
#[tokio::test]
async fn a_will_in_the_gateways_name_is_refused() {
    for version in BOTH {
        let rig = Rig::open().await;
        let will = message("tidegate/g/status", "gone", 0);
        let mut client = rig.knock(&willing(version, "one", will)).await;
        let Packet::Connack {
            present,
            code,
            properties,
        } = client.next().await
        else {
            panic!("no CONNACK");
        };
        assert_eq!((present, code), (false, if version == V5 { 0x87 } else { 5 }));
        assert_eq!(the(&properties, property::ASSIGNED), None);
        assert_eq!(client.next().await, Packet::Closed);
    }
}
