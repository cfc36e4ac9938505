//! Bytes to packets of both protocol versions and back. Pure; no panic on any bytes.
//!
//! The only file that names the decoder (rumqttc's). It is lenient, so what it does not look at is checked
//! here first: flags, sizes before anything is buffered, packet ids, properties, text. Encoders are in
//! [`encode`]: they write what a server sends, and nothing else.

use bytes::{Bytes, BytesMut};
use rumqttc::{
    mqttbytes::v4,
    v5::mqttbytes::{self as mqtt5, v5},
};

use super::topics;
use crate::hub::Properties;

pub mod encode;
mod strict;

/// Reason codes of version 5, as far as the door says them.
pub mod reason {
    #![expect(missing_docs, reason = "the names are the standard's")]
    pub const SUCCESS: u8 = 0x00;
    pub const NO_SUBSCRIPTION_EXISTED: u8 = 0x11;
    pub const UNSPECIFIED: u8 = 0x80;
    pub const MALFORMED: u8 = 0x81;
    pub const PROTOCOL_ERROR: u8 = 0x82;
    pub const UNSUPPORTED_VERSION: u8 = 0x84;
    pub const CLIENT_ID: u8 = 0x85;
    pub const BAD_CREDENTIALS: u8 = 0x86;
    pub const NOT_AUTHORISED: u8 = 0x87;
    pub const UNAVAILABLE: u8 = 0x88;
    pub const SHUTTING_DOWN: u8 = 0x8B;
    pub const BAD_AUTH_METHOD: u8 = 0x8C;
    pub const KEEP_ALIVE: u8 = 0x8D;
    pub const TAKEN_OVER: u8 = 0x8E;
    pub const FILTER_INVALID: u8 = 0x8F;
    pub const TOPIC_INVALID: u8 = 0x90;
    pub const ID_NOT_FOUND: u8 = 0x92;
    pub const RECEIVE_MAXIMUM: u8 = 0x93;
    pub const TOPIC_ALIAS: u8 = 0x94;
    pub const TOO_LARGE: u8 = 0x95;
    pub const QUOTA: u8 = 0x97;
    pub const ADMINISTRATIVE: u8 = 0x98;
    pub const PAYLOAD_FORMAT: u8 = 0x99;
    pub const SHARED_UNSUPPORTED: u8 = 0x9E;
}

/// The protocol's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 3.1.1.
    V311,
    /// 5.
    V5,
}

/// Bytes that no client may send: the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why} (reason 0x{reason:02X})")]
pub struct Violation {
    /// What version 5 is told.
    pub reason: u8,
    /// What the log is told.
    pub why: &'static str,
}

pub(super) const fn malformed(why: &'static str) -> Violation {
    Violation {
        reason: reason::MALFORMED,
        why,
    }
}

pub(super) const fn protocol_error(why: &'static str) -> Violation {
    Violation {
        reason: reason::PROTOCOL_ERROR,
        why,
    }
}

/// What a client may send, in either version.
#[derive(Clone, Debug, PartialEq)]
pub enum Packet {
    /// The first.
    Connect(Box<Connect>),
    /// A message.
    Publish(Publish),
    /// A `QoS` 1 message of ours arrived.
    PubAck(u16),
    /// A `QoS` 2 message of ours arrived, or (a reason from 0x80) was refused.
    PubRec(u16, u8),
    /// Its `QoS` 2 message is released.
    PubRel(u16),
    /// Our `QoS` 2 message is complete.
    PubComp(u16),
    /// Wants topics.
    Subscribe {
        /// The packet's id.
        id: u16,
        /// In order.
        filters: Vec<Filter>,
        /// The subscription identifier.
        identifier: Option<u32>,
    },
    /// Wants them no more.
    Unsubscribe {
        /// The packet's id.
        id: u16,
        /// In order.
        filters: Vec<String>,
    },
    /// Is alive.
    PingReq,
    /// The last.
    Disconnect {
        /// Any but 0: publish the will nevertheless.
        reason: u8,
        /// Another session expiry, in seconds.
        expiry: Option<u32>,
    },
}

/// CONNECT.
#[derive(Clone, Debug, PartialEq)]
pub struct Connect {
    /// Decides what follows.
    pub version: Version,
    /// May be empty.
    pub client: String,
    /// Forget the session.
    pub clean: bool,
    /// Seconds; 0: none.
    pub keep_alive: u16,
    /// The device's id.
    pub user: Option<String>,
    /// What proves it.
    pub password: Option<String>,
    /// Last words.
    pub will: Option<LastWill>,
    /// Messages that may be on their way to it.
    pub receive_maximum: u16,
    /// Bytes of one packet it takes.
    pub max_packet: Option<u32>,
    /// Seconds its session waits for it.
    pub session_expiry: u32,
    /// Whether it asks for enhanced authentication.
    pub enhanced: bool,
}

/// The will of a CONNECT.
#[derive(Clone, Debug, PartialEq)]
pub struct LastWill {
    /// What to publish, as a publish.
    pub publish: Publish,
    /// Seconds to wait before.
    pub delay: u32,
}

/// PUBLISH.
#[derive(Clone, Debug, PartialEq)]
pub struct Publish {
    /// Sent before.
    pub dup: bool,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Keep it.
    pub retain: bool,
    /// 0 with `QoS` 0.
    pub id: u16,
    /// Empty only with an alias.
    pub topic: String,
    /// Stands for a topic.
    pub alias: Option<u16>,
    /// The message.
    pub payload: Bytes,
    /// What travels along.
    pub properties: Option<Box<Properties>>,
}

/// One filter of a SUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Not yet checked.
    pub filter: String,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Not what the client itself publishes.
    pub no_local: bool,
    /// Keep the retain flag as published.
    pub retain_as_published: bool,
    /// 0: send retained messages, 1: only if the subscription is new, 2: never.
    pub retained: u8,
}

/// The version that a CONNECT at the front of `input` asks for, if so much of it is there.
#[must_use]
pub fn announced_version(input: &[u8]) -> Option<Version> {
    let (header, _) = strict::header(input).ok()??;
    // Another name, as version 3.1 has it, is as long as it likes.
    match input.get(header..)?.strip_prefix(b"\0\x04MQTT")?.first()? {
        4 => Some(Version::V311),
        5.. => Some(Version::V5),
        _ => None,
    }
}

/// Takes the next packet from the front of `input`; `None`: it is not whole yet. `version` is none before
/// CONNECT. A packet of more than `max_packet` bytes is refused on sight of its header.
///
/// # Errors
///
/// [`Violation`]: the connection must end.
pub fn decode(
    input: &mut BytesMut,
    version: Option<Version>,
    max_packet: usize,
) -> Result<Option<Packet>, Violation> {
    let Some((header, rest)) = strict::header(input)? else {
        return Ok(None);
    };
    let first = input.first().copied().unwrap_or_default();
    strict::kind(first, version)?;
    let size = header.saturating_add(rest);
    if size > max_packet {
        return Err(Violation {
            reason: reason::TOO_LARGE,
            why: "a packet over max-packet",
        });
    }
    if input.len() < size {
        return Ok(None);
    }
    let mut frame = input.split_to(size);
    let body = frame.get(header..).unwrap_or_default();
    let Some(version) = strict::version(body, version)? else {
        return Err(malformed("a CONNECT without a version"));
    };
    strict::body(first, body, version)?;
    let kind = first >> 4;
    let packet = match (kind, version) {
        (12, _) => Packet::PingReq,
        // The decoder wants properties here; version 5 may leave them out.
        (14, _) if body.len() <= 1 => Packet::Disconnect {
            reason: body.first().copied().unwrap_or_default(),
            expiry: None,
        },
        // The decoder knows only some reasons; what matters of an acknowledgement stands at its front.
        (4, _) => Packet::PubAck(strict::id(body)?),
        (5, _) => Packet::PubRec(strict::id(body)?, body.get(2).copied().unwrap_or_default()),
        (6, _) => Packet::PubRel(strict::id(body)?),
        (7, _) => Packet::PubComp(strict::id(body)?),
        (_, Version::V311) => {
            from_v4(v4::Packet::read(&mut frame, max_packet).map_err(|_| malformed("a malformed packet"))?)?
        }
        (_, Version::V5) => {
            from_v5(v5::Packet::read(&mut frame, None).map_err(|_| malformed("a malformed packet"))?)?
        }
    };
    check(&packet, version)?;
    Ok(Some(packet))
}

/// The rules of the standard that no decoder looks at.
fn check(packet: &Packet, version: Version) -> Result<(), Violation> {
    let bad_topic = |topic: &str| !topics::is_topic(topic);
    match packet {
        Packet::Connect(connect) => {
            let text = [Some(&connect.client), connect.user.as_ref()];
            if text.into_iter().flatten().any(|text| text.contains('\0')) {
                return Err(malformed("NUL in text"));
            }
            if connect.receive_maximum == 0 || connect.max_packet == Some(0) {
                return Err(protocol_error("a maximum of 0 in CONNECT"));
            }
            if let Some(will) = &connect.will {
                if bad_topic(&will.publish.topic) {
                    return Err(Violation {
                        reason: reason::TOPIC_INVALID,
                        why: "an invalid will topic",
                    });
                }
                answerable(&will.publish)?;
            }
        }
        Packet::Publish(publish) => {
            if publish.topic.contains('\0') {
                return Err(malformed("NUL in a topic"));
            }
            if publish.qos > 0 && publish.id == 0 {
                return Err(protocol_error("packet id 0"));
            }
            if publish.qos == 0 && publish.dup {
                return Err(malformed("DUP with QoS 0"));
            }
            let aliased = version == Version::V5 && publish.topic.is_empty();
            if aliased && publish.alias.is_none() {
                return Err(protocol_error("neither a topic nor an alias"));
            }
            if !aliased && bad_topic(&publish.topic) {
                return Err(Violation {
                    reason: reason::TOPIC_INVALID,
                    why: "an invalid topic",
                });
            }
            answerable(publish)?;
        }
        Packet::Subscribe {
            id,
            identifier,
            filters,
        } => {
            if *id == 0 || *identifier == Some(0) {
                return Err(protocol_error("packet id or subscription identifier 0"));
            }
            if filters.iter().any(|filter| filter.filter.contains('\0')) {
                return Err(malformed("NUL in a filter"));
            }
        }
        Packet::Unsubscribe { id, .. }
        | Packet::PubAck(id)
        | Packet::PubRec(id, _)
        | Packet::PubRel(id)
        | Packet::PubComp(id) => {
            if *id == 0 {
                return Err(protocol_error("packet id 0"));
            }
        }
        Packet::PingReq | Packet::Disconnect { .. } => {}
    }
    Ok(())
}

/// Where to answer is a topic that can be published to, or nowhere.
fn answerable(publish: &Publish) -> Result<(), Violation> {
    let topic = publish
        .properties
        .as_ref()
        .and_then(|properties| properties.response_topic.as_deref());
    if topic.is_none_or(topics::is_topic) {
        Ok(())
    } else {
        Err(Violation {
            reason: reason::TOPIC_INVALID,
            why: "an invalid response topic",
        })
    }
}

fn text(bytes: &Bytes) -> Result<String, Violation> {
    std::str::from_utf8(bytes)
        .map(str::to_owned)
        .map_err(|_| malformed("a topic that is not UTF-8"))
}

/// A slice would keep the whole read buffer alive for as long as the message waits.
fn own(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn filled(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn from_v4(packet: v4::Packet) -> Result<Packet, Violation> {
    Ok(match packet {
        v4::Packet::Connect(connect) => {
            let (user, password) = connect.login.map_or((None, None), |login| {
                (filled(login.username), filled(login.password))
            });
            let will = connect.last_will.map(|will| LastWill {
                publish: Publish {
                    dup: false,
                    qos: will.qos as u8,
                    retain: will.retain,
                    id: 0,
                    topic: will.topic,
                    alias: None,
                    payload: own(&will.message),
                    properties: None,
                },
                delay: 0,
            });
            Packet::Connect(Box::new(Connect {
                version: Version::V311,
                client: connect.client_id,
                clean: connect.clean_session,
                keep_alive: connect.keep_alive,
                user,
                password,
                will,
                receive_maximum: u16::MAX,
                max_packet: None,
                session_expiry: if connect.clean_session { 0 } else { u32::MAX },
                enhanced: false,
            }))
        }
        v4::Packet::Publish(publish) => Packet::Publish(Publish {
            dup: publish.dup,
            qos: publish.qos as u8,
            retain: publish.retain,
            id: publish.pkid,
            topic: publish.topic,
            alias: None,
            payload: own(&publish.payload),
            properties: None,
        }),
        v4::Packet::Subscribe(subscribe) => Packet::Subscribe {
            id: subscribe.pkid,
            identifier: None,
            filters: subscribe
                .filters
                .into_iter()
                .map(|filter| Filter {
                    filter: filter.path,
                    qos: filter.qos as u8,
                    no_local: false,
                    retain_as_published: false,
                    retained: 0,
                })
                .collect(),
        },
        v4::Packet::Unsubscribe(unsubscribe) => Packet::Unsubscribe {
            id: unsubscribe.pkid,
            filters: unsubscribe.topics,
        },
        _ => return Err(protocol_error("a packet that only a server sends")),
    })
}

fn from_v5(packet: v5::Packet) -> Result<Packet, Violation> {
    Ok(match packet {
        v5::Packet::Connect(connect, will, login) => {
            let (user, password) = login.map_or((None, None), |login| {
                (filled(login.username), filled(login.password))
            });
            let properties = connect.properties.unwrap_or_else(v5::ConnectProperties::new);
            Packet::Connect(Box::new(Connect {
                version: Version::V5,
                client: connect.client_id,
                clean: connect.clean_start,
                keep_alive: connect.keep_alive,
                user,
                password,
                will: will.map(will_v5).transpose()?,
                receive_maximum: properties.receive_maximum.unwrap_or(u16::MAX),
                max_packet: properties.max_packet_size,
                session_expiry: properties.session_expiry_interval.unwrap_or(0),
                enhanced: properties.authentication_method.is_some(),
            }))
        }
        v5::Packet::Publish(publish) => {
            let alias = publish
                .properties
                .as_ref()
                .and_then(|properties| properties.topic_alias);
            Packet::Publish(Publish {
                dup: publish.dup,
                qos: publish.qos as u8,
                retain: publish.retain,
                id: publish.pkid,
                topic: text(&publish.topic)?,
                alias,
                payload: own(&publish.payload),
                properties: publish.properties.map(|properties| {
                    Box::new(Properties {
                        format: properties.payload_format_indicator,
                        expiry: properties.message_expiry_interval,
                        content_type: properties.content_type,
                        response_topic: properties.response_topic,
                        correlation: properties.correlation_data.as_ref().map(own),
                        user: properties.user_properties,
                    })
                }),
            })
        }
        v5::Packet::Subscribe(subscribe) => Packet::Subscribe {
            id: subscribe.pkid,
            identifier: subscribe
                .properties
                .and_then(|properties| properties.id)
                .map(|id| u32::try_from(id).unwrap_or_default()),
            filters: subscribe.filters.into_iter().map(filter_v5).collect(),
        },
        v5::Packet::Unsubscribe(unsubscribe) => Packet::Unsubscribe {
            id: unsubscribe.pkid,
            filters: unsubscribe.filters,
        },
        v5::Packet::Disconnect(disconnect) => Packet::Disconnect {
            reason: disconnect.reason_code as u8,
            expiry: disconnect
                .properties
                .and_then(|properties| properties.session_expiry_interval),
        },
        _ => return Err(protocol_error("a packet that only a server sends")),
    })
}

fn will_v5(will: v5::LastWill) -> Result<LastWill, Violation> {
    let delay = will
        .properties
        .as_ref()
        .and_then(|properties| properties.delay_interval)
        .unwrap_or(0);
    Ok(LastWill {
        publish: Publish {
            dup: false,
            qos: will.qos as u8,
            retain: will.retain,
            id: 0,
            topic: text(&will.topic)?,
            alias: None,
            payload: own(&will.message),
            properties: will.properties.map(|properties| {
                Box::new(Properties {
                    format: properties.payload_format_indicator,
                    expiry: properties.message_expiry_interval,
                    content_type: properties.content_type,
                    response_topic: properties.response_topic,
                    correlation: properties.correlation_data.as_ref().map(own),
                    user: properties.user_properties,
                })
            }),
        },
        delay,
    })
}

fn filter_v5(filter: v5::Filter) -> Filter {
    Filter {
        filter: filter.path,
        qos: match filter.qos {
            mqtt5::QoS::AtMostOnce => 0,
            mqtt5::QoS::AtLeastOnce => 1,
            mqtt5::QoS::ExactlyOnce => 2,
        },
        no_local: filter.nolocal,
        retain_as_published: filter.preserve_retain,
        retained: match filter.retain_forward_rule {
            v5::RetainForwardRule::OnEverySubscribe => 0,
            v5::RetainForwardRule::OnNewSubscribe => 1,
            v5::RetainForwardRule::Never => 2,
        },
    }
}

#[cfg(test)]
mod tests;
