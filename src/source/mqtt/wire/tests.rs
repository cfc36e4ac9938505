//! What is refused, and with which reason.

use super::*;

fn decoded(bytes: &[u8], version: Option<Version>) -> Result<Option<Packet>, Violation> {
    decode(&mut BytesMut::from(bytes), version, 64)
}

fn why(bytes: &[u8], version: Version) -> u8 {
    match decoded(bytes, Some(version)) {
        Err(violation) => violation.reason,
        Ok(packet) => panic!("{bytes:02X?} is {packet:?}"),
    }
}

const BOTH: [Version; 2] = [Version::V311, Version::V5];

#[test]
fn a_packet_that_is_too_large_is_refused_on_sight_of_its_header() {
    for version in BOTH {
        let announces_200_mb = [0x30, 0x80, 0x80, 0x80, 0x64];
        assert_eq!(why(&announces_200_mb, version), reason::TOO_LARGE);
        assert_eq!(why(&[0x30, 63], version), reason::TOO_LARGE);
        assert_eq!(
            decoded(&[0x30, 62], Some(version)),
            Ok(None),
            "exactly max-packet is waited for"
        );
    }
    assert_eq!(
        decoded(&[0x10, 0x80, 0x80, 0x80, 0x64], None).unwrap_err().reason,
        reason::TOO_LARGE
    );
}

#[test]
fn half_a_packet_is_waited_for_and_left_where_it_is() {
    let whole = b"\x30\x06\0\x01tabc";
    for cut in 0..whole.len() {
        let mut input = BytesMut::from(&whole[..cut]);
        assert_eq!(decode(&mut input, Some(Version::V311), 64), Ok(None), "{cut}");
        assert_eq!(input.len(), cut);
    }
    let mut input = BytesMut::from(&whole[..]);
    assert!(matches!(
        decode(&mut input, Some(Version::V311), 64),
        Ok(Some(Packet::Publish(_)))
    ));
    assert!(input.is_empty());
}

#[test]
fn malformed_packets_are_refused_in_both_versions() {
    let cases: [&[u8]; 12] = [
        b"\x36\x06\0\x01t\0\x01\0",  // QoS 3
        b"\x38\x04\0\x01t\0",        // DUP with QoS 0
        b"\x80\x06\0\x01\0\x01t\0",  // SUBSCRIBE with flags 0
        b"\x60\x02\0\x01",           // PUBREL with flags 0
        b"\xC1\0",                   // PINGREQ with flags
        b"\xC0\x01x",                // PINGREQ with a body
        b"\x00\0",                   // reserved
        b"\x30\x05\0\x02\xC3\x28\0", // not UTF-8
        b"\x30\x05\0\x02a\0\0",      // NUL
        b"\x30\x02\0\x09",           // cut short
        b"\x40\x01\0",               // an id of one byte
        b"\xFF\xFF\xFF\xFF\xFF",     // a length without an end
    ];
    for version in BOTH {
        for case in cases {
            assert_eq!(why(case, version), reason::MALFORMED, "{case:02X?} {version:?}");
        }
    }
}

#[test]
fn packet_id_0_is_a_protocol_error() {
    for version in BOTH {
        for case in [
            &b"\x40\x02\0\0"[..],
            b"\x50\x02\0\0",
            b"\x62\x02\0\0",
            b"\x70\x02\0\0",
        ] {
            assert_eq!(why(case, version), reason::PROTOCOL_ERROR, "{case:02X?}");
        }
    }
    assert_eq!(why(b"\x32\x05\0\x01t\0\0", Version::V311), reason::PROTOCOL_ERROR);
    assert_eq!(
        why(b"\x82\x06\0\0\0\x01t\0", Version::V311),
        reason::PROTOCOL_ERROR
    );
    assert_eq!(
        why(b"\x82\x07\0\0\0\0\x01t\0", Version::V5),
        reason::PROTOCOL_ERROR
    );
    assert_eq!(why(b"\xA2\x06\0\0\0\0\x01t", Version::V5), reason::PROTOCOL_ERROR);
}

#[test]
fn topics_of_publishes_name_one_topic() {
    assert_eq!(why(b"\x30\x04\0\x01+x", Version::V311), reason::TOPIC_INVALID);
    assert_eq!(why(b"\x30\x03\0\0x", Version::V311), reason::TOPIC_INVALID);
    assert_eq!(
        why(b"\x30\x03\0\0\0", Version::V5),
        reason::PROTOCOL_ERROR,
        "empty without an alias"
    );
}

#[test]
fn properties_stand_where_they_belong_and_once() {
    let publish = |properties: &[u8]| {
        let mut bytes = vec![0x30, u8::try_from(4 + properties.len()).unwrap(), 0, 1, b't'];
        bytes.push(u8::try_from(properties.len()).unwrap());
        bytes.extend_from_slice(properties);
        decoded(&bytes, Some(Version::V5))
            .map(drop)
            .map_err(|violation| violation.reason)
    };
    assert_eq!(publish(&[1, 1]), Ok(()));
    assert_eq!(publish(&[1, 1, 1, 1]), Err(reason::PROTOCOL_ERROR), "twice");
    assert_eq!(publish(&[1, 2]), Err(reason::PROTOCOL_ERROR), "neither 0 nor 1");
    assert_eq!(
        publish(&[33, 0, 1]),
        Err(reason::PROTOCOL_ERROR),
        "belongs to CONNECT"
    );
    assert_eq!(publish(&[35, 0]), Err(reason::MALFORMED), "cut short");
    assert_eq!(
        publish(b"\x26\0\x01a\0\x01b\x26\0\x01a\0\x01b"),
        Ok(()),
        "the publisher's own may repeat"
    );
}

fn connect(level: u8, flags: u8, rest: &[u8]) -> Result<Option<Packet>, Violation> {
    let mut body = b"\0\x04MQTT".to_vec();
    body.extend_from_slice(&[level, flags, 0, 0]);
    body.extend_from_slice(rest);
    let mut bytes = vec![0x10, u8::try_from(body.len()).unwrap()];
    bytes.extend(body);
    decoded(&bytes, None)
}

#[test]
fn a_connect_of_either_version_is_understood() {
    let Ok(Some(Packet::Connect(old))) = connect(4, 0xEE, b"\0\x01c\0\x03\xC3\xA9w\0\x01m\0\x01u\0\x01p")
    else {
        panic!("3.1.1")
    };
    assert_eq!(
        (old.version, old.client.as_str(), old.user.as_deref()),
        (Version::V311, "c", Some("u"))
    );
    let will = old.will.unwrap();
    assert_eq!(
        (will.publish.topic.as_str(), will.publish.qos, will.publish.retain),
        ("éw", 1, true)
    );
    let properties = b"\x0D\x11\xFF\xFF\xFF\xFF\x22\0\0\x21\0\x01\x17\0";
    let rest = [&properties[..], b"\0\0"].concat();
    let Ok(Some(Packet::Connect(new))) = connect(5, 2, &rest) else {
        panic!("5")
    };
    assert_eq!(
        (new.version, new.receive_maximum, new.session_expiry),
        (Version::V5, 1, u32::MAX)
    );
}

#[test]
fn connects_that_no_client_may_send_are_refused() {
    let reason = |result: Result<Option<Packet>, Violation>| result.unwrap_err().reason;
    assert_eq!(reason(connect(3, 2, b"\0\0")), reason::UNSUPPORTED_VERSION);
    assert_eq!(
        reason(connect(4, 3, b"\0\0")),
        reason::MALFORMED,
        "a reserved flag"
    );
    assert_eq!(
        reason(connect(4, 0x22, b"\0\0")),
        reason::MALFORMED,
        "will flags without a will"
    );
    assert_eq!(
        reason(connect(4, 0x1E, b"\0\0\0\x01w\0\0")),
        reason::MALFORMED,
        "will QoS 3"
    );
    assert_eq!(
        reason(connect(4, 0x42, b"\0\0\0\0")),
        reason::MALFORMED,
        "a password alone"
    );
    assert_eq!(
        reason(connect(4, 2, b"\0\x01c!")),
        reason::MALFORMED,
        "bytes after the end"
    );
    assert_eq!(reason(connect(4, 6, b"\0\0\0\x01#\0\0")), reason::TOPIC_INVALID);
    assert_eq!(
        reason(connect(5, 2, b"\x03\x21\0\0\0\0")),
        reason::PROTOCOL_ERROR,
        "receive maximum 0"
    );
    assert_eq!(
        reason(connect(5, 2, b"\x05\x27\0\0\0\0\0\0")),
        reason::PROTOCOL_ERROR,
        "maximum packet size 0"
    );
    assert_eq!(
        reason(decoded(b"\xC0\0", None)),
        reason::PROTOCOL_ERROR,
        "something else first"
    );
    assert_eq!(
        reason(decoded(b"\x10\x09\0\x04HTTP\x04\x02\0", None)),
        reason::UNSUPPORTED_VERSION
    );
}

#[test]
fn what_only_a_server_sends_is_refused() {
    for version in BOTH {
        for first in [0x20, 0x90, 0xB0, 0xD0] {
            assert_eq!(why(&[first, 2, 0, 1], version), reason::PROTOCOL_ERROR);
        }
    }
    assert_eq!(why(&[0xF0, 0], Version::V5), reason::PROTOCOL_ERROR, "AUTH");
    assert_eq!(why(&[0xF0, 0], Version::V311), reason::MALFORMED);
}
