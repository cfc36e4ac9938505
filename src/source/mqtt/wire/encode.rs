//! Packets that a server sends, written by hand: nothing else can be written. Pure.

use bytes::{BufMut, BytesMut};

use super::{Version, reason};
use crate::hub::{Message, Properties};

/// The acknowledgements of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// Of `QoS` 1.
    PubAck,
    /// Of `QoS` 2, received.
    PubRec,
    /// Of our `QoS` 2, released.
    PubRel,
    /// Of `QoS` 2, complete.
    PubComp,
}

/// What the door offers, announced in a version 5 CONNACK.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Unacknowledged publishes at once.
    pub receive_maximum: u16,
    /// Bytes of one packet.
    pub max_packet: u32,
    /// Topic aliases it may use.
    pub topic_aliases: u16,
    /// The client id, if the door chose it.
    pub assigned: Option<String>,
    /// Seconds its session waits, if that is not what it asked for.
    pub session_expiry: Option<u32>,
}

/// CONNACK that accepts.
pub fn accepted(out: &mut BytesMut, version: Version, present: bool, offer: &Offer) {
    if version == Version::V311 {
        out.put_slice(&[0x20, 2, u8::from(present), 0]);
        return;
    }
    let mut properties = BytesMut::new();
    properties.put_u8(33);
    properties.put_u16(offer.receive_maximum);
    properties.put_u8(39);
    properties.put_u32(offer.max_packet);
    properties.put_u8(34);
    properties.put_u16(offer.topic_aliases);
    // Shared subscriptions: not offered.
    properties.put_slice(&[42, 0]);
    if let Some(seconds) = offer.session_expiry {
        properties.put_u8(17);
        properties.put_u32(seconds);
    }
    if let Some(assigned) = &offer.assigned {
        properties.put_u8(18);
        text(&mut properties, assigned.as_bytes());
    }
    let mut body = BytesMut::new();
    body.put_slice(&[u8::from(present), reason::SUCCESS]);
    block(&mut body, &properties);
    frame(out, 0x20, &body);
}

/// CONNACK that refuses.
pub fn refused(out: &mut BytesMut, version: Version, why: u8) {
    match version {
        Version::V5 => out.put_slice(&[0x20, 3, 0, why, 0]),
        Version::V311 => {
            let code = match why {
                reason::UNSUPPORTED_VERSION => 1,
                reason::CLIENT_ID => 2,
                reason::BAD_CREDENTIALS => 4,
                reason::NOT_AUTHORISED => 5,
                _ => 3,
            };
            out.put_slice(&[0x20, 2, 0, code]);
        }
    }
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP. Version 3.1.1 knows no reasons: whoever calls must not say success
/// where there is none.
pub fn acknowledge(out: &mut BytesMut, version: Version, ack: Ack, id: u16, why: u8) {
    let first = match ack {
        Ack::PubAck => 0x40,
        Ack::PubRec => 0x50,
        Ack::PubRel => 0x62,
        Ack::PubComp => 0x70,
    };
    let with_reason = version == Version::V5 && why != reason::SUCCESS;
    out.put_slice(&[first, if with_reason { 3 } else { 2 }]);
    out.put_u16(id);
    if with_reason {
        out.put_u8(why);
    }
}

/// SUBACK.
pub fn suback(out: &mut BytesMut, version: Version, id: u16, codes: &[u8]) {
    let mut body = BytesMut::with_capacity(codes.len().saturating_add(3));
    body.put_u16(id);
    if version == Version::V5 {
        body.put_u8(0);
        body.put_slice(codes);
    } else {
        body.extend(codes.iter().map(|code| (*code).min(reason::UNSPECIFIED)));
    }
    frame(out, 0x90, &body);
}

/// UNSUBACK.
pub fn unsuback(out: &mut BytesMut, version: Version, id: u16, codes: &[u8]) {
    let mut body = BytesMut::with_capacity(codes.len().saturating_add(3));
    body.put_u16(id);
    if version == Version::V5 {
        body.put_u8(0);
        body.put_slice(codes);
    }
    frame(out, 0xB0, &body);
}

/// PINGRESP.
pub fn pong(out: &mut BytesMut) {
    out.put_slice(&[0xD0, 0]);
}

/// DISCONNECT; version 3.1.1 has none from the server.
pub fn disconnect(out: &mut BytesMut, version: Version, why: u8) {
    if version == Version::V5 {
        out.put_slice(&[0xE0, 1, why]);
    }
}

/// How a message goes to one client.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// What.
    pub message: &'a Message,
    /// Sent before.
    pub dup: bool,
    /// 0, 1 or 2.
    pub qos: u8,
    /// The retain flag.
    pub retain: bool,
    /// The packet id; unused with `QoS` 0.
    pub id: u16,
    /// Seconds it is worth reading.
    pub expiry: Option<u32>,
    /// Which subscriptions matched.
    pub identifiers: &'a [u32],
}

/// PUBLISH; false and nothing written if the packet is larger than `limit`.
pub fn publish(out: &mut BytesMut, version: Version, delivery: &Delivery<'_>, limit: Option<u32>) -> bool {
    let message = delivery.message;
    let mut properties = BytesMut::new();
    if version == Version::V5 {
        describe(&mut properties, message.properties.as_deref(), delivery);
    }
    let size = message
        .payload
        .len()
        .saturating_add(message.topic.len())
        .saturating_add(properties.len());
    let mut body = BytesMut::with_capacity(size.saturating_add(8));
    text(&mut body, message.topic.as_bytes());
    if delivery.qos > 0 {
        body.put_u16(delivery.id);
    }
    if version == Version::V5 {
        block(&mut body, &properties);
    }
    body.put_slice(&message.payload);
    let before = out.len();
    let flags = u8::from(delivery.dup) << 3 | (delivery.qos & 3) << 1 | u8::from(delivery.retain);
    frame(out, 0x30 | flags, &body);
    let size = out.len().saturating_sub(before);
    let fits = limit.is_none_or(|limit| size <= usize::try_from(limit).unwrap_or(usize::MAX));
    if !fits {
        out.truncate(before);
    }
    fits
}

fn describe(out: &mut BytesMut, properties: Option<&Properties>, delivery: &Delivery<'_>) {
    if let Some(seconds) = delivery.expiry {
        out.put_u8(2);
        out.put_u32(seconds);
    }
    for identifier in delivery.identifiers {
        out.put_u8(11);
        variable(out, usize::try_from(*identifier).unwrap_or_default());
    }
    let Some(properties) = properties else { return };
    if let Some(format) = properties.format {
        out.put_slice(&[1, format]);
    }
    for (name, value) in [(3, &properties.content_type), (8, &properties.response_topic)] {
        if let Some(value) = value {
            out.put_u8(name);
            text(out, value.as_bytes());
        }
    }
    if let Some(correlation) = &properties.correlation {
        out.put_u8(9);
        text(out, correlation);
    }
    for (key, value) in &properties.user {
        out.put_u8(38);
        text(out, key.as_bytes());
        text(out, value.as_bytes());
    }
}

fn frame(out: &mut BytesMut, first: u8, body: &[u8]) {
    out.put_u8(first);
    variable(out, body.len());
    out.put_slice(body);
}

fn block(out: &mut BytesMut, properties: &[u8]) {
    variable(out, properties.len());
    out.put_slice(properties);
}

/// Text with its length before it. What is longer than the format can say was never taken in.
fn text(out: &mut BytesMut, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.put_u16(length);
    out.put_slice(bytes.get(..length.into()).unwrap_or(bytes));
}

fn variable(out: &mut BytesMut, mut value: usize) {
    assert!(
        value < 1 << 28,
        "a packet never exceeds max-packet, which is far below 256 MiB"
    );
    loop {
        let low = u8::try_from(value & 0x7F).unwrap_or_default();
        value >>= 7;
        out.put_u8(if value > 0 { low | 0x80 } else { low });
        if value == 0 {
            break;
        }
    }
}
