//! An uplink's packets, of both versions, to bytes and back. Pure.
//!
//! The only file of the uplink that names the codec (rumqttc's). What a broker answers a publish with is read here: the
//! codec knows only some reasons, and an answer that it does not know would end the connection.

use bytes::{BufMut, BytesMut};
use rumqttc::{
    QoS,
    mqttbytes::{self, v4},
    v5::mqttbytes::{QoS as QoS5, v5},
};

use super::{
    Version,
    connection::{MAX_PACKET, Plan},
};
use crate::event::cloudevents::Message;

/// The whole of a packet that says nothing but what it is.
pub(super) const PINGREQ: [u8; 2] = [0xC0, 0];
/// And of the last one, after which the broker forgets the will.
pub(super) const DISCONNECT: [u8; 2] = [0xE0, 0];

/// What every packet of ours is: within the limit, of texts that are not too long, with an id that is not 0.
const ENCODES: &str = "a packet within the limit, of short texts, with an id";

/// What a broker said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It takes us.
    Welcome(Welcome),
    /// It does not: why, for people.
    Refused(String),
    /// It answered a publish; version 3.1.1 always says 0.
    Answered {
        /// Which.
        pkid: u16,
        /// `PUBACK`'s reason code.
        reason: u8,
    },
    /// It is alive.
    Pong,
    /// It ends the connection: the reason code, and what it says about it.
    Disconnect(u8, String),
    /// What nobody asked for.
    Other,
}

/// What a broker that takes us says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Welcome {
    /// How many unconfirmed publishes it takes.
    pub receive_max: u16,
    /// How large a packet it takes.
    pub max_packet: u32,
    /// It wants to hear from us at least so often, in seconds.
    pub keep_alive: Option<u16>,
}

/// CONNECT, with a session that ends with the connection.
pub(super) fn connect(plan: &Plan, keep_alive: u16, out: &mut BytesMut) {
    let client_id = plan.client_id.clone();
    let written = match plan.version {
        Version::V5 => {
            let properties = v5::ConnectProperties {
                session_expiry_interval: Some(0),
                max_packet_size: Some(MAX_PACKET),
                ..v5::ConnectProperties::new()
            };
            let connect = v5::Connect {
                keep_alive,
                client_id,
                clean_start: true,
                properties: Some(properties),
            };
            let will = plan
                .will
                .clone()
                .map(|(topic, payload)| v5::LastWill::new(topic, payload, QoS5::AtLeastOnce, true, None));
            let login = plan.login.clone();
            let login = login.map(|(user, password)| v5::Login::new(user, password));
            connect.write(&will, &login, out).is_ok()
        }
        Version::V311 => {
            let mut connect = v4::Connect::new(client_id);
            connect.keep_alive = keep_alive;
            connect.last_will = plan
                .will
                .clone()
                .map(|(topic, payload)| v4::LastWill::new(topic, payload, QoS::AtLeastOnce, true));
            if let Some((user, password)) = &plan.login {
                connect.set_login(user, password);
            }
            connect.write(out).is_ok()
        }
    };
    assert!(written, "{ENCODES}");
}

/// PUBLISH at QoS 1. Written here, because the codec wants copies of what is not kept.
pub(super) fn publish(
    version: Version,
    pkid: u16,
    topic: &str,
    message: &Message,
    retain: bool,
    out: &mut BytesMut,
) {
    let Message {
        content_type,
        attributes,
        payload,
    } = message;
    let user = attributes.iter();
    let user: usize = user.map(|(name, value)| 5 + name.len() + value.len()).sum();
    let properties = 3 + content_type.len() + user;
    let is_v5 = version == Version::V5;
    let of_v5 = if is_v5 {
        length_of_length(properties) + properties
    } else {
        0
    };
    let remaining = 2 + topic.len() + 2 + of_v5 + payload.len();
    out.reserve(1 + length_of_length(remaining) + remaining);
    out.put_u8(0x32 | u8::from(retain));
    put_length(remaining, out);
    put_text(topic, out);
    out.put_u16(pkid);
    if is_v5 {
        put_length(properties, out);
        out.put_u8(0x03);
        put_text(content_type, out);
        for (name, value) in attributes {
            out.put_u8(0x26);
            put_text(name, out);
            put_text(value, out);
        }
    }
    out.extend_from_slice(payload);
}

fn put_text(text: &str, out: &mut BytesMut) {
    out.put_u16(text.len().try_into().expect(ENCODES));
    out.extend_from_slice(text.as_bytes());
}

/// Seven bits a byte, the lowest first; the highest bit says that more come.
fn put_length(mut length: usize, out: &mut BytesMut) {
    while let more @ 1.. = length >> 7 {
        out.put_u8(0x80 | u8::try_from(length & 0x7F).unwrap_or_default());
        length = more;
    }
    out.put_u8(length.try_into().unwrap_or_default());
}

fn length_of_length(length: usize) -> usize {
    match length {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

/// Takes the next packet from the front of `input`; none: it is not whole yet.
///
/// # Errors
///
/// What no broker may say, for people: the connection must end.
pub(super) fn heard(input: &mut BytesMut, version: Version) -> Result<Option<Heard>, String> {
    let broken = |error: mqttbytes::Error| format!("the broker sends what is not MQTT: {error}");
    let most = usize::try_from(MAX_PACKET).unwrap_or(usize::MAX);
    let size = match mqttbytes::check(input.iter(), most) {
        Ok(header) => header.frame_length(),
        Err(mqttbytes::Error::InsufficientBytes(_)) => return Ok(None),
        Err(error) => return Err(broken(error)),
    };
    let mut packet = input.split_to(size);
    let kind = packet.first().copied().unwrap_or_default() >> 4;
    let length = packet.iter().skip(1).take_while(|byte| **byte >= 0x80).count() + 2;
    let body = packet.get(length..).unwrap_or_default();
    let is_v5 = version == Version::V5;
    Ok(Some(match (kind, body) {
        (2, [_, 0]) if is_v5 => {
            return Err(r#"the broker answers as one of version 3.1.1: set version = "3.1.1""#.to_owned());
        }
        (2, [_, 0, ..]) if is_v5 => match v5::Packet::read(&mut packet, None) {
            Ok(v5::Packet::ConnAck(connack)) => welcome(connack.properties.as_ref())?,
            _ => return Err("the broker sends a CONNACK that is none".to_owned()),
        },
        (2, [_, 0, ..]) => welcome(None)?,
        (2, [_, code, ..]) => {
            let refused = refusal(*code, version);
            let text = match v5::Packet::read(&mut packet, None) {
                Ok(v5::Packet::ConnAck(connack)) if is_v5 => {
                    connack.properties.and_then(|all| all.reason_string)
                }
                _ => None,
            };
            let said = text.map_or_else(String::new, |text| format!(" ({text})"));
            Heard::Refused(format!("the broker refuses the connection{said}: {refused}"))
        }
        (4, [high, low, rest @ ..]) => Heard::Answered {
            pkid: u16::from_be_bytes([*high, *low]),
            reason: if is_v5 {
                rest.first().copied().unwrap_or_default()
            } else {
                0
            },
        },
        (13, _) => Heard::Pong,
        (14, body) if is_v5 => {
            let reason = body.first().copied().unwrap_or_default();
            let text = match v5::Packet::read(&mut packet, None) {
                Ok(v5::Packet::Disconnect(disconnect)) => {
                    disconnect.properties.and_then(|all| all.reason_string)
                }
                _ => None,
            };
            Heard::Disconnect(reason, text.unwrap_or_default())
        }
        (2 | 4, _) => return Err("the broker sends a packet that is cut short".to_owned()),
        _ => Heard::Other,
    }))
}

fn welcome(properties: Option<&v5::ConnAckProperties>) -> Result<Heard, String> {
    if properties.and_then(|said| said.max_qos) == Some(0) {
        let why = "the broker takes QoS 0 only, which confirms nothing: allow QoS 1 there";
        return Ok(Heard::Refused(why.to_owned()));
    }
    let receive_max = properties.and_then(|said| said.receive_max).unwrap_or(u16::MAX);
    let max_packet = properties
        .and_then(|said| said.max_packet_size)
        .unwrap_or(u32::MAX);
    if receive_max == 0 || max_packet == 0 {
        return Err("the broker says that it takes nothing: a maximum of 0 in CONNACK".to_owned());
    }
    Ok(Heard::Welcome(Welcome {
        receive_max,
        max_packet,
        keep_alive: properties.and_then(|said| said.server_keep_alive),
    }))
}

/// A reason code's name (MQTT 5, section 2.4).
pub(super) fn reason(code: u8) -> String {
    let name = match code {
        0x00 => "normal disconnection",
        0x80 => "unspecified error",
        0x81 => "malformed packet",
        0x82 => "protocol error",
        0x83 => "implementation specific error",
        0x84 => "it does not speak MQTT 5",
        0x85 => "client identifier not valid",
        0x86 => "bad user name or password",
        0x87 => "not authorised",
        0x88 => "server unavailable",
        0x89 => "server busy",
        0x8A => "banned",
        0x8B => "server shutting down",
        0x8C => "bad authentication method",
        0x8D => "keep alive timeout",
        0x8E => "session taken over: another client has this client-id",
        0x90 => "topic name invalid",
        0x91 => "packet identifier in use",
        0x93 => "receive maximum exceeded",
        0x94 => "topic alias invalid",
        0x95 => "packet too large",
        0x96 => "message rate too high",
        0x97 => "quota exceeded",
        0x98 => "administrative action",
        0x99 => "payload format invalid",
        0x9A => "retain not supported",
        0x9B => "QoS not supported",
        0x9C => "use another server",
        0x9D => "server moved",
        0x9F => "connection rate exceeded",
        0xA0 => "maximum connect time",
        _ => "unknown",
    };
    format!("{name} (0x{code:02x})")
}

/// Why a broker does not take us (MQTT 3.1.1, section 3.2.2.3; MQTT 5, section 3.2.2.2), and what to do about it.
fn refusal(code: u8, version: Version) -> String {
    // What 3.1.1 says in numbers of its own; a broker of 3.1.1 answers CONNECT of version 5 with them, too.
    let (known, old) = match code {
        0x01 => (0x84, "unacceptable protocol version"),
        0x02 => (0x85, "identifier rejected"),
        0x03 => (0x88, "server unavailable"),
        0x04 => (0x86, "bad user name or password"),
        0x05 => (0x87, "not authorised"),
        _ => (code, ""),
    };
    let name = if old.is_empty() {
        reason(code)
    } else {
        format!("{old} (0x{code:02x})")
    };
    let remedy = match (known, version) {
        (0x84, Version::V5) => r#": set version = "3.1.1""#,
        (0x84, Version::V311) => r#": set version = "5""#,
        (0x85, _) => ": set another client-id",
        (0x86, _) => ": look at username and password-file",
        (0x87, _) => ": let the broker take this client-id and username",
        (0x8A, _) => ": ask whoever runs the broker",
        (0x90, _) => ": set another status-topic",
        (0x9A, _) => r#": set status-topic = "off", whose will is retained"#,
        (0x9B, _) => ": allow QoS 1 there",
        (0x9C | 0x9D, _) => ": set another url",
        _ => "",
    };
    name + remedy
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(version: Version, bytes: &[u8]) -> Result<Vec<Heard>, String> {
        let mut input = BytesMut::from(bytes);
        let mut found = Vec::new();
        while let Some(heard) = heard(&mut input, version)? {
            found.push(heard);
        }
        Ok(found)
    }

    #[test]
    fn answers_come_out_one_by_one_however_the_bytes_are_cut() {
        let bytes = [
            0x40, 2, 0, 1, 0x40, 3, 0, 2, 0x95, 0xD0, 0, 0x40, 4, 1, 0, 0x10, 0,
        ];
        let answered = |pkid, reason| Heard::Answered { pkid, reason };
        let expected = [
            answered(1, 0),
            answered(2, 0x95),
            Heard::Pong,
            answered(256, 0x10),
        ];
        for cut in 0..bytes.len() {
            let mut input = BytesMut::new();
            let mut found = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                input.extend_from_slice(part);
                while let Some(said) = heard(&mut input, Version::V5).unwrap() {
                    found.push(said);
                }
            }
            assert_eq!(found, expected, "cut at {cut}");
        }
    }

    #[test]
    fn a_broker_that_does_not_take_us_is_told_with_what_to_do() {
        for (version, connack, wanted) in [
            (
                Version::V5,
                &[0x20, 3, 0, 0x86, 0][..],
                "bad user name or password (0x86): look at username and password-file",
            ),
            (
                Version::V311,
                &[0x20, 2, 0, 4],
                "bad user name or password (0x04): look at username and password-file",
            ),
            (
                Version::V5,
                &[0x20, 2, 0, 1],
                r#"unacceptable protocol version (0x01): set version = "3.1.1""#,
            ),
            (
                Version::V5,
                &[0x20, 3, 0, 0x9F, 0],
                "connection rate exceeded (0x9f)",
            ),
        ] {
            let refused = Heard::Refused(format!("the broker refuses the connection: {wanted}"));
            assert_eq!(all(version, connack), Ok(vec![refused]));
        }
        let explained = [0x20, 8, 0, 0x97, 5, 0x1F, 0, 2, b'n', b'o'];
        let refused =
            Heard::Refused("the broker refuses the connection (no): quota exceeded (0x97)".to_owned());
        assert_eq!(all(Version::V5, &explained), Ok(vec![refused]));
        let at_most_once = all(Version::V5, &[0x20, 5, 0, 0, 2, 0x24, 0]).unwrap();
        assert!(
            matches!(&at_most_once[..], [Heard::Refused(why)] if why.contains("allow QoS 1")),
            "{at_most_once:?}"
        );
        let old = all(Version::V5, &[0x20, 2, 0, 0]).unwrap_err();
        assert!(old.contains(r#"set version = "3.1.1""#), "{old}");
        let nothing = all(Version::V5, &[0x20, 8, 0, 0, 5, 0x27, 0, 0, 0, 0]).unwrap_err();
        assert!(nothing.contains("maximum of 0"), "{nothing}");
    }

    #[test]
    fn in_version_3_1_1_an_answer_is_an_answer_whatever_stands_behind_it() {
        let pkid = 5;
        let answered = Ok(vec![Heard::Answered { pkid, reason: 0 }]);
        assert_eq!(all(Version::V311, &[0x40, 3, 0, 5, 0x95]), answered);
        assert_eq!(all(Version::V311, &[0xE0, 1, 0x95]), Ok(vec![Heard::Other]));
    }

    #[test]
    fn what_a_broker_says_of_itself_is_heard() {
        let bytes = [0x20, 14, 0, 0, 11, 0x21, 0, 7, 0x27, 0, 0, 1, 0, 0x13, 0, 9];
        let said = |receive_max, max_packet, keep_alive| {
            Heard::Welcome(Welcome {
                receive_max,
                max_packet,
                keep_alive,
            })
        };
        assert_eq!(all(Version::V5, &bytes), Ok(vec![said(7, 256, Some(9))]));
        let plain = said(u16::MAX, u32::MAX, None);
        assert_eq!(all(Version::V311, &[0x20, 2, 0, 0]), Ok(vec![plain]));
    }

    #[test]
    fn a_disconnect_is_understood_with_and_without_its_properties() {
        let disconnect = |reason, text: &str| Ok(vec![Heard::Disconnect(reason, text.to_owned())]);
        assert_eq!(all(Version::V5, &[0xE0, 0]), disconnect(0, ""));
        assert_eq!(all(Version::V5, &[0xE0, 1, 0x8E]), disconnect(0x8E, ""));
        let with_text = [0xE0, 7, 0x97, 5, 0x1F, 0, 2, b'n', b'o'];
        assert_eq!(all(Version::V5, &with_text), disconnect(0x97, "no"));
    }

    proptest! {
        #[test]
        fn no_bytes_from_a_broker_make_it_panic_or_stand_still(bytes: Vec<u8>, is_v5: bool) {
            let version = if is_v5 { Version::V5 } else { Version::V311 };
            let mut input = BytesMut::from(&bytes[..]);
            let mut before = input.len();
            while let Ok(Some(_)) = heard(&mut input, version) {
                prop_assert!(input.len() < before);
                before = input.len();
            }
        }

        #[test]
        fn a_publish_is_read_as_it_was_written(
            topic in "[a-z/]{1,40}", pkid in 1..=u16::MAX, retain: bool, value in ".{0,300}",
            // About where a length takes a byte more.
            about in prop_oneof![Just(0_usize), Just(127), Just(16_383), Just(2_097_151)], less in 0..400_usize,
        ) {
            let payload = vec![b'x'; (about + 40).saturating_sub(less)];
            let message = || Message {
                content_type: "application/cloudevents+json",
                attributes: vec![("id".to_owned(), value.clone())],
                payload: payload.clone(),
            };
            let mut out = BytesMut::new();
            publish(Version::V5, pkid, &topic, &message(), retain, &mut out);
            let Ok(v5::Packet::Publish(read)) = v5::Packet::read(&mut out, None) else {
                return Err(TestCaseError::fail("no publish"));
            };
            prop_assert_eq!((&read.topic[..], &read.payload[..]), (topic.as_bytes(), &payload[..]));
            prop_assert_eq!((read.pkid, read.retain, read.qos), (pkid, retain, QoS5::AtLeastOnce));
            let properties = read.properties.unwrap();
            prop_assert_eq!(properties.user_properties, message().attributes);
            prop_assert!(out.is_empty());

            publish(Version::V311, pkid, &topic, &message(), retain, &mut out);
            let Ok(v4::Packet::Publish(read)) = v4::Packet::read(&mut out, usize::MAX) else {
                return Err(TestCaseError::fail("no publish"));
            };
            prop_assert_eq!((&read.topic, &read.payload[..]), (&topic, &payload[..]));
            prop_assert_eq!((read.pkid, read.retain, read.qos), (pkid, retain, QoS::AtLeastOnce));
        }
    }
}
