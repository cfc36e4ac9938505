//! What version 5 lets a message say of itself, and what the two versions hear of each other.

use crate::rig::{
    Hello, Message, Packet, Properties, Rig, V5, V311, hello, message, payloads, property, retained, the,
};

fn described(properties: Properties) -> Message {
    Message {
        properties,
        ..message("a", "x", 1)
    }
}

/// What a subscriber hears of these properties.
async fn carried(properties: Properties) -> Properties {
    let rig = Rig::open().await;
    let mut client = rig.client(V5, "one").await;
    client.subscribe(&[("a", 1)]).await;
    client.publish(described(properties)).await;
    client.message().await.properties
}

/// 5 §3.3.2.3.7: all of them, in order, the same name as often as it came.
#[tokio::test]
async fn user_properties_come_along_in_order() {
    let properties: Properties = [&b"b=1"[..], b"a=2", b"b=1", b"=", "é=日本".as_bytes()]
        .map(|pair| (property::USER, pair.to_vec()))
        .into();
    assert_eq!(carried(properties.clone()).await, properties);
}

/// 5 §3.3.2.3.2, §3.3.2.3.9: the payload's format and type come along unchanged.
#[tokio::test]
async fn payload_format_and_content_type_come_along() {
    for format in [0, 1] {
        let properties = vec![
            (property::FORMAT, vec![format]),
            (property::CONTENT_TYPE, b"application/json".to_vec()),
        ];
        assert_eq!(carried(properties.clone()).await, properties);
    }
}

/// 5 §3.3.2.3.2: there are two formats.
#[tokio::test]
async fn another_payload_format_is_a_protocol_error() {
    let rig = Rig::open().await;
    let mut client = rig.client(V5, "one").await;
    client
        .publish_only(described(vec![(property::FORMAT, vec![2])]))
        .await;
    assert_eq!(client.ending().await, Some(0x82));
}

/// 5 §3.3.2.3.5, §3.3.2.3.6, §4.10: a request carries where to answer and what to say along; the answer finds its way.
#[tokio::test]
async fn a_request_is_answered() {
    let rig = Rig::open().await;
    let mut asking = rig.client(V5, "asking").await;
    let mut answering = rig.client(V5, "answering").await;
    asking.subscribe(&[("answers/asking", 1)]).await;
    answering.subscribe(&[("questions", 1)]).await;
    let correlation = vec![0, 0xFF, b'#'];
    let question = Message {
        properties: vec![
            (property::RESPONSE_TOPIC, b"answers/asking".to_vec()),
            (property::CORRELATION, correlation.clone()),
        ],
        ..message("questions", "how warm?", 1)
    };
    asking.publish(question).await;
    let question = answering.message().await;
    let where_to = the(&question.properties, property::RESPONSE_TOPIC).expect("a topic");
    let answer = Message {
        properties: vec![(
            property::CORRELATION,
            the(&question.properties, property::CORRELATION).expect("it came along"),
        )],
        ..message(&String::from_utf8(where_to).expect("text"), "21.5", 1)
    };
    answering.publish(answer).await;
    let answer = asking.message().await;
    assert_eq!(answer.payload, b"21.5");
    assert_eq!(the(&answer.properties, property::CORRELATION), Some(correlation));
}

/// 5 §3.3.2.3.5: a response topic is the name of one.
#[tokio::test]
async fn a_response_topic_with_a_wildcard_is_refused() {
    let rig = Rig::open().await;
    for topic in ["a/+", "#"] {
        let properties = vec![(property::RESPONSE_TOPIC, topic.as_bytes().to_vec())];
        let mut client = rig.client(V5, "one").await;
        client.publish_only(described(properties.clone())).await;
        assert_eq!(client.ending().await, Some(0x90));
        let willing = Hello {
            will: Some(described(properties)),
            ..hello(V5, "one")
        };
        let Packet::Connack { code, .. } = rig.knock(&willing).await.next().await else {
            panic!("no CONNACK");
        };
        assert_eq!(code, 0x90);
    }
}

/// 5 §3.3.2.3.8: only a server says by which subscription a message comes.
#[tokio::test]
async fn a_client_may_not_publish_with_a_subscription_identifier() {
    let rig = Rig::open().await;
    let mut client = rig.client(V5, "one").await;
    client
        .publish_only(described(vec![(property::IDENTIFIER, vec![1])]))
        .await;
    assert_eq!(client.ending().await, Some(0x82));
}

/// 5 §3.3.1.3: a retained message is kept with what it says of itself.
#[tokio::test]
async fn a_retained_message_keeps_its_properties() {
    let rig = Rig::open().await;
    let mut client = rig.client(V5, "one").await;
    let properties = vec![
        (property::FORMAT, vec![1]),
        (property::CONTENT_TYPE, b"text/plain".to_vec()),
        (property::USER, b"k=v".to_vec()),
    ];
    client
        .publish(Message {
            properties: properties.clone(),
            ..retained("a", "x")
        })
        .await;
    client.subscribe(&[("a", 1)]).await;
    assert_eq!(client.message().await.properties, properties);
}

/// 5 §3.3.2.3: version 3.1.1 hears the message without what it cannot read, and version 5 hears 3.1.1.
#[tokio::test]
async fn the_versions_hear_each_other() {
    let rig = Rig::open().await;
    let mut new = rig.client(V5, "new").await;
    let mut old = rig.client(V311, "old").await;
    new.subscribe(&[("a", 2)]).await;
    old.subscribe(&[("a", 2)]).await;
    for qos in 0..=2 {
        let described = Message {
            properties: vec![(property::USER, b"k=v".to_vec())],
            ..message("a", "from 5", qos)
        };
        new.publish(described).await;
        old.publish(message("a", "from 3.1.1", qos)).await;
    }
    for client in [&mut new, &mut old] {
        let heard = client.messages().await;
        assert_eq!(payloads(&heard), ["from 5", "from 3.1.1"].repeat(3));
    }
}

/// 5 §3.1.2.11.9, §4.12: enhanced authentication is not offered: refused at CONNECT, an error later.
#[tokio::test]
async fn enhanced_authentication_is_refused() {
    let rig = Rig::open().await;
    let hello_with_method = Hello {
        properties: vec![(property::AUTHENTICATION, b"SCRAM-SHA-1".to_vec())],
        ..hello(V5, "one")
    };
    let mut client = rig.knock(&hello_with_method).await;
    assert!(matches!(client.next().await, Packet::Connack { code: 0x8C, .. }));
    assert_eq!(client.next().await, Packet::Closed);
    let mut client = rig.client(V5, "one").await;
    client.say(0xF0, &[0x18, 0]).await;
    assert_eq!(client.ending().await, Some(0x82));
}
