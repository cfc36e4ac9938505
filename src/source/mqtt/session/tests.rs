//! The promises of a connection, in both versions, byte by byte.

use bytes::{BufMut, Bytes};

use super::*;

pub(super) const BOUNDS: Bounds = Bounds {
    max_packet: 4096,
    max_inflight: 4,
};

/// A CONNECT with the given flags and, for version 5, properties.
pub(super) fn connect_bytes(version: Version, flags: u8, properties: &[u8]) -> BytesMut {
    let mut body = BytesMut::new();
    body.put_slice(b"\0\x04MQTT");
    body.put_u8(if version == Version::V5 { 5 } else { 4 });
    body.put_u8(flags);
    body.put_u16(60);
    if version == Version::V5 {
        body.put_u8(u8::try_from(properties.len()).unwrap());
        body.put_slice(properties);
    }
    text(&mut body, "c");
    packet(0x10, &body)
}

pub(super) fn text(out: &mut BytesMut, text: &str) {
    out.put_u16(u16::try_from(text.len()).unwrap());
    out.put_slice(text.as_bytes());
}

pub(super) fn packet(first: u8, body: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_u8(first);
    assert!(body.len() < 128);
    out.put_u8(u8::try_from(body.len()).unwrap());
    out.put_slice(body);
    out
}

pub(super) fn publish_bytes(version: Version, qos: u8, id: u16, topic: &str) -> BytesMut {
    let mut body = BytesMut::new();
    text(&mut body, topic);
    if qos > 0 {
        body.put_u16(id);
    }
    if version == Version::V5 {
        body.put_u8(0);
    }
    body.put_slice(b"21.5");
    packet(0x30 | qos << 1, &body)
}

struct Rig {
    session: Session,
    version: Version,
    routed: Vec<String>,
    end: Option<End>,
}

impl Rig {
    fn new(version: Version) -> Self {
        Self::with(version, &[], Kept::default())
    }

    fn with(version: Version, properties: &[u8], kept: Kept) -> Self {
        let mut rig = Self {
            session: Session::new(BOUNDS),
            version,
            routed: Vec::new(),
            end: None,
        };
        let steps = rig.feed(&connect_bytes(version, 2, properties));
        assert!(matches!(steps.as_slice(), [Step::Connect(_)]), "{steps:?}");
        rig.session.accept(Accepted {
            kept,
            ..Accepted::default()
        });
        rig
    }

    /// Feeds bytes and performs what needs no decision; returns the rest.
    fn feed(&mut self, bytes: &[u8]) -> Vec<Step> {
        let mut input = BytesMut::from(bytes);
        let mut steps = Vec::new();
        while let Some(step) = self.session.step(&mut input) {
            match step {
                Step::Route(message) => self.routed.push(message.topic.to_string()),
                Step::Close(end) => self.end = Some(end),
                Step::Count(_) | Step::Refused { .. } => {}
                step => steps.push(step),
            }
        }
        steps
    }

    fn publish(&mut self, qos: u8, id: u16, topic: &str) -> u64 {
        let steps = self.feed(&publish_bytes(self.version, qos, id, topic));
        match steps.as_slice() {
            [Step::Publish { token, .. }] => *token,
            other => panic!("{other:?} {:?}", self.end),
        }
    }

    fn safe(&mut self, token: u64, position: u64) {
        self.session
            .answer(token, Answer::AfterDurable(Position(position)));
        self.feed(&[]);
    }

    fn durable(&mut self, position: u64) {
        self.session.durable(Position(position));
        self.feed(&[]);
    }

    fn sent(&mut self) -> Vec<u8> {
        self.session.output().split().to_vec()
    }

    fn quiet(mut self) -> Self {
        self.sent();
        self
    }
}

const BOTH: [Version; 2] = [Version::V311, Version::V5];

#[test]
fn nothing_is_acknowledged_before_it_is_on_the_disk() {
    for version in BOTH {
        let mut rig = Rig::new(version).quiet();
        let token = rig.publish(1, 7, "é/x");
        assert!(rig.sent().is_empty());
        rig.safe(token, 10);
        assert!(rig.sent().is_empty(), "evaluated is not durable");
        rig.durable(9);
        assert!(rig.sent().is_empty());
        assert!(rig.routed.is_empty());
        rig.durable(10);
        assert_eq!(rig.sent(), [0x40, 2, 0, 7]);
        assert_eq!(rig.routed, ["é/x"]);
    }
}

#[test]
fn publishes_pass_the_gate_in_the_order_they_came() {
    for version in BOTH {
        let mut rig = Rig::new(version).quiet();
        let first = rig.publish(1, 1, "a");
        let second = rig.publish(0, 0, "b");
        let third = rig.publish(2, 3, "c");
        rig.safe(third, 0);
        rig.safe(second, 0);
        rig.durable(100);
        assert!(rig.sent().is_empty(), "the first is not answered");
        assert!(rig.routed.is_empty(), "QoS 0 keeps its place too");
        rig.safe(first, 50);
        assert_eq!(rig.sent(), [0x40, 2, 0, 1, 0x50, 2, 0, 3]);
        assert_eq!(rig.routed, ["a", "b", "c"]);
    }
}

#[test]
fn a_qos_2_duplicate_waits_like_the_first_and_is_evaluated_once() {
    for version in BOTH {
        let mut rig = Rig::new(version).quiet();
        let token = rig.publish(2, 9, "a");
        let mut again = publish_bytes(version, 2, 9, "a");
        again[0] |= 8;
        assert!(rig.feed(&again).is_empty(), "no second evaluation");
        assert!(rig.sent().is_empty(), "no PUBREC before the disk");
        rig.safe(token, 5);
        rig.durable(5);
        assert_eq!(rig.sent(), [0x50, 2, 0, 9, 0x50, 2, 0, 9]);
        assert_eq!(rig.routed, ["a"]);
        rig.feed(&[0x62, 2, 0, 9]);
        assert_eq!(rig.sent(), [0x70, 2, 0, 9]);
        rig.publish(2, 9, "a");
    }
}

#[test]
fn a_pubrel_for_an_unknown_id_is_answered() {
    let mut rig = Rig::new(Version::V5).quiet();
    rig.feed(&[0x62, 2, 0, 9]);
    assert_eq!(rig.sent(), [0x70, 3, 0, 9, reason::ID_NOT_FOUND]);
    let mut rig = Rig::new(Version::V311).quiet();
    rig.feed(&[0x62, 2, 0, 9]);
    assert_eq!(rig.sent(), [0x70, 2, 0, 9]);
}

#[test]
fn what_is_dropped_is_never_acknowledged_and_ends_the_connection() {
    for version in BOTH {
        let mut rig = Rig::new(version).quiet();
        let first = rig.publish(1, 1, "a");
        let second = rig.publish(1, 2, "a");
        rig.session.answer(second, Answer::Dropped);
        rig.session.answer(first, Answer::AfterDurable(Position(3)));
        rig.durable(3);
        let sent = rig.sent();
        assert!(sent.starts_with(&[0x40, 2, 0, 1]), "the one before it is owed");
        assert!(!sent.windows(4).any(|bytes| bytes == [0x40, 2, 0, 2]));
        assert_eq!(rig.end, Some(End::Ours(reason::UNSPECIFIED)));
    }
}

#[test]
fn over_a_limit_version_5_hears_it_and_3_1_1_is_acknowledged() {
    let mut rig = Rig::new(Version::V5).quiet();
    let token = rig.publish(1, 1, "a");
    rig.session.answer(token, Answer::OverLimit);
    rig.feed(&[]);
    assert_eq!(rig.sent(), [0x40, 3, 0, 1, reason::QUOTA]);
    assert!(rig.routed.is_empty());
    let mut rig = Rig::new(Version::V311).quiet();
    let token = rig.publish(1, 1, "a");
    rig.session.answer(token, Answer::OverLimit);
    rig.feed(&[]);
    assert_eq!(rig.sent(), [0x40, 2, 0, 1]);
    assert_eq!(rig.routed, ["a"]);
}

#[test]
fn a_failed_qos_2_publish_may_use_its_id_again() {
    let mut rig = Rig::new(Version::V5).quiet();
    let token = rig.publish(2, 1, "a");
    assert!(rig.feed(&publish_bytes(Version::V5, 2, 1, "a")).is_empty());
    rig.session.fail(token, reason::PAYLOAD_FORMAT);
    let failed = [0x50, 3, 0, 1, reason::PAYLOAD_FORMAT];
    assert_eq!(
        rig.sent(),
        [failed, failed].concat(),
        "the duplicate fails with the first"
    );
    rig.feed(&[]);
    rig.publish(2, 1, "a");
}

#[test]
fn turned_away_at_qos_0_nobody_gets_it() {
    let mut rig = Rig::new(Version::V311).quiet();
    let token = rig.publish(0, 0, "a");
    rig.session.turn_away(token, reason::QUOTA);
    rig.feed(&[]);
    assert!(rig.sent().is_empty() && rig.routed.is_empty());
}

#[test]
fn the_gateways_topics_are_refused_in_order() {
    let mut rig = Rig::new(Version::V5).quiet();
    let first = rig.publish(1, 1, "a");
    assert!(
        rig.feed(&publish_bytes(Version::V5, 1, 2, "tidegate/g/events/x"))
            .is_empty()
    );
    assert!(rig.sent().is_empty());
    rig.safe(first, 0);
    assert_eq!(rig.sent(), [0x40, 2, 0, 1, 0x40, 3, 0, 2, reason::NOT_AUTHORISED]);
    assert_eq!(rig.routed, ["a"]);
    let mut rig = Rig::new(Version::V311).quiet();
    rig.feed(&publish_bytes(Version::V311, 0, 0, "tidegate/g/events/x"));
    assert!(matches!(rig.end, Some(End::Violation(_))));
}

#[test]
fn version_5_is_told_of_too_many_and_3_1_1_is_not_read() {
    let mut rig = Rig::new(Version::V5).quiet();
    for id in 1..=4 {
        rig.publish(1, id, "a");
    }
    rig.feed(&publish_bytes(Version::V5, 1, 5, "a"));
    assert_eq!(rig.sent(), [0xE0, 1, reason::RECEIVE_MAXIMUM]);

    let mut rig = Rig::new(Version::V311).quiet();
    let tokens: Vec<u64> = (1..=4).map(|id| rig.publish(1, id, "a")).collect();
    assert!(!rig.session.wants_bytes());
    assert!(
        rig.feed(&publish_bytes(Version::V311, 1, 5, "a")).is_empty(),
        "not even decoded"
    );
    assert!(rig.end.is_none());
    rig.safe(tokens[0], 0);
    assert!(rig.session.wants_bytes());
}

#[test]
fn the_connack_says_what_is_offered_and_what_is_not() {
    let mut rig = Rig::new(Version::V5);
    let sent = rig.sent();
    assert_eq!(sent[..2], [0x20, 16]);
    assert!(
        sent.windows(3).any(|bytes| bytes == [33, 0, 4]),
        "receive maximum"
    );
    assert!(
        sent.windows(2).any(|bytes| bytes == [42, 0]),
        "no shared subscriptions"
    );
    let mut rig = Rig::new(Version::V311);
    assert_eq!(rig.sent(), [0x20, 2, 0, 0]);
}

#[test]
fn shared_subscriptions_are_refused_and_others_asked_about() {
    for version in BOTH {
        let mut rig = Rig::new(version).quiet();
        let mut body = BytesMut::new();
        body.put_u16(5);
        if version == Version::V5 {
            body.put_u8(0);
        }
        for filter in ["$share/g/t", "a/#/b", "a/+"] {
            text(&mut body, filter);
            body.put_u8(1);
        }
        let steps = rig.feed(&packet(0x82, &body));
        let [Step::Subscribe { id: 5, filters, .. }] = steps.as_slice() else {
            panic!("{steps:?}")
        };
        let codes: Vec<u8> = filters
            .iter()
            .map(|(filter, code)| code.unwrap_or(filter.qos))
            .collect();
        assert_eq!(codes, [reason::SHARED_UNSUPPORTED, reason::FILTER_INVALID, 1]);
        rig.session.subscribed(5, &codes);
        let expected: &[u8] = match version {
            Version::V5 => &[0x90, 6, 0, 5, 0, 0x9E, 0x8F, 1],
            Version::V311 => &[0x90, 5, 0, 5, 0x80, 0x80, 1],
        };
        assert_eq!(rig.sent(), expected);
    }
}

fn arrival(qos: u8, payload: &'static [u8]) -> Arrival {
    let payload = Bytes::from_static(payload);
    let message = Arc::new(Message {
        topic: "t".into(),
        payload,
        qos,
        retain: false,
        properties: None,
    });
    Arrival {
        message,
        qos,
        retain: false,
        identifiers: Vec::new(),
        until: None,
    }
}

#[test]
fn what_goes_out_keeps_to_the_clients_receive_maximum() {
    let mut rig = Rig::with(Version::V5, &[33, 0, 2], Kept::default()).quiet();
    rig.session.deliver(arrival(1, b"x"), None);
    assert!(rig.session.can_deliver());
    rig.session.deliver(arrival(2, b"y"), None);
    assert!(!rig.session.can_deliver());
    assert_eq!(rig.sent(), b"\x32\x07\0\x01t\0\x01\0x\x34\x07\0\x01t\0\x02\0y");
    rig.feed(&[0x50, 2, 0, 2]);
    assert_eq!(rig.sent(), [0x62, 2, 0, 2]);
    assert!(!rig.session.can_deliver(), "released is not complete");
    rig.feed(&[0x70, 2, 0, 2]);
    assert!(rig.session.can_deliver());
}

#[test]
fn what_is_too_large_for_the_client_is_not_sent() {
    let mut rig = Rig::with(Version::V5, &[39, 0, 0, 0, 20], Kept::default()).quiet();
    rig.session
        .deliver(arrival(1, b"too long for twenty bytes"), None);
    assert!(rig.sent().is_empty());
    assert!(rig.session.can_deliver());
    rig.session.deliver(arrival(0, b"x"), None);
    assert!(!rig.sent().is_empty());
}

#[test]
fn a_resumed_session_sends_again_what_was_not_acknowledged() {
    let mut rig = Rig::new(Version::V311).quiet();
    rig.session.deliver(arrival(1, b"x"), None);
    rig.session.deliver(arrival(2, b"y"), None);
    rig.feed(&[0x50, 2, 0, 2]);
    let passed = rig.publish(2, 8, "a");
    rig.safe(passed, 0);
    rig.publish(2, 9, "a");
    let kept = rig.session.keep();
    assert!(kept.received.contains(&8));
    assert!(
        !kept.received.contains(&9),
        "not answered: it will be evaluated again"
    );
    let mut rig = Rig::with(Version::V311, &[], kept);
    let expected: &[u8] = b"\x20\x02\0\0\x3A\x06\0\x01t\0\x01x\x62\x02\0\x02";
    assert_eq!(rig.sent(), expected);
    assert!(
        rig.feed(&publish_bytes(Version::V311, 2, 8, "a")).is_empty(),
        "a duplicate still"
    );
    rig.publish(2, 9, "a");
}

#[test]
fn a_resumed_session_respects_a_smaller_window() {
    let mut rig = Rig::new(Version::V5).quiet();
    for _ in 0..3 {
        rig.session.deliver(arrival(1, b"x"), None);
    }
    let kept = rig.session.keep();
    let mut rig = Rig::with(Version::V5, &[33, 0, 1], kept);
    let one = rig.sent();
    assert!(one.ends_with(&[0x3A, 7, 0, 1, b't', 0, 1, 0, b'x']));
    assert!(!rig.session.can_deliver());
    rig.feed(&[0x40, 2, 0, 1]);
    assert_eq!(rig.sent(), [0x3A, 7, 0, 1, b't', 0, 2, 0, b'x']);
}

#[test]
fn a_topic_alias_stands_for_its_topic() {
    let mut rig = Rig::new(Version::V5).quiet();
    let first = rig.feed(&packet(0x30, b"\0\x03a/b\x03\x23\0\x01x"));
    let again = rig.feed(&packet(0x30, b"\0\0\x03\x23\0\x01x"));
    for steps in [first, again] {
        let [Step::Publish { message, .. }] = steps.as_slice() else {
            panic!("{steps:?}")
        };
        assert_eq!(message.topic.as_ref(), "a/b");
    }
    rig.feed(&packet(0x30, b"\0\0\x03\x23\0\x02x"));
    assert!(matches!(
        rig.end,
        Some(End::Violation(Violation {
            reason: reason::PROTOCOL_ERROR,
            ..
        }))
    ));
}

#[test]
fn a_goodbye_forgets_the_will_unless_it_says_otherwise() {
    for (bytes, end) in [
        (&[0xE0, 0][..], End::Goodbye),
        (&[0xE0, 1, 4][..], End::GoodbyeWithWill),
    ] {
        let mut rig = Rig::new(Version::V5).quiet();
        rig.feed(bytes);
        assert_eq!(rig.end, Some(end));
        assert!(rig.sent().is_empty());
    }
}

#[test]
fn after_the_end_only_what_asked_for_no_acknowledgement_is_handed_on() {
    for version in BOTH {
        let mut rig = Rig::new(version).quiet();
        let first = rig.publish(0, 0, "a");
        let asked = rig.publish(2, 2, "c");
        let lost = rig.publish(0, 0, "d");
        let last = rig.publish(0, 0, "e");
        rig.session.gone();
        rig.safe(asked, 0);
        rig.session.answer(lost, Answer::Dropped);
        rig.safe(last, 0);
        assert!(
            rig.session.owes() && rig.routed.is_empty(),
            "the first comes first"
        );
        rig.safe(first, 5);
        assert!(rig.routed.is_empty(), "not before the disk");
        rig.durable(5);
        assert_eq!(rig.routed, ["a", "e"]);
        assert!(rig.sent().is_empty() && !rig.session.owes());
        assert!(rig.session.keep().received.is_empty(), "it will be sent again");
    }
}

#[test]
fn a_taken_over_client_is_told_and_nothing_follows() {
    let mut rig = Rig::new(Version::V5).quiet();
    let token = rig.publish(1, 1, "a");
    rig.session.close(reason::TAKEN_OVER);
    rig.safe(token, 0);
    rig.durable(9);
    assert_eq!(rig.sent(), [0xE0, 1, reason::TAKEN_OVER]);
}

#[test]
fn a_stop_answers_what_is_owed_and_never_what_was_held() {
    let mut rig = Rig::new(Version::V5).quiet();
    let first = rig.publish(1, 1, "a");
    let held = rig.publish(1, 2, "a");
    rig.session.stop();
    rig.session.answer(held, Answer::Dropped);
    rig.safe(first, 4);
    assert!(rig.session.owes());
    rig.durable(4);
    assert_eq!(rig.sent(), [0x40, 2, 0, 1, 0xE0, 1, reason::SHUTTING_DOWN]);
}

#[test]
fn a_second_connect_is_a_protocol_error() {
    for version in BOTH {
        let mut rig = Rig::new(version).quiet();
        rig.feed(&connect_bytes(version, 2, &[]));
        assert!(matches!(
            rig.end,
            Some(End::Violation(Violation {
                reason: reason::PROTOCOL_ERROR,
                ..
            }))
        ));
    }
}

#[test]
fn another_version_is_answered_in_its_own_words() {
    let refused = |level: u8| {
        let mut session = Session::new(BOUNDS);
        let mut bytes = connect_bytes(Version::V311, 2, &[]);
        bytes[8] = level;
        while session.step(&mut bytes).is_some() {}
        session.output().split().to_vec()
    };
    assert_eq!(refused(3), [0x20, 2, 0, 1]);
    assert_eq!(refused(6), [0x20, 3, 0, reason::UNSUPPORTED_VERSION, 0]);
}

#[test]
fn keep_alive_is_one_and_a_half_and_zero_is_for_ever() {
    let rig = Rig::new(Version::V311);
    assert_eq!(rig.session.keep_alive(), Some(Duration::from_secs(90)));
    let mut session = Session::new(BOUNDS);
    let mut bytes = connect_bytes(Version::V311, 2, &[]);
    bytes[11] = 0;
    assert!(matches!(session.step(&mut bytes), Some(Step::Connect(_))));
    assert_eq!(session.keep_alive(), None);
}
