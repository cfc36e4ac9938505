//! What is checked before the decoder sees a packet: sizes, flags, versions, properties. Pure.

use super::{Version, Violation, malformed, protocol_error, reason};

/// The length of the fixed header and of what follows it; `None`: not whole yet.
pub(super) fn header(input: &[u8]) -> Result<Option<(usize, usize)>, Violation> {
    let Some(rest) = input.get(1..) else {
        return Ok(None);
    };
    Ok(variable(rest)?.map(|(length, value)| (length.saturating_add(1), value)))
}

/// A variable byte integer: its length and value; `None`: not whole.
fn variable(input: &[u8]) -> Result<Option<(usize, usize)>, Violation> {
    let mut value = 0_usize;
    for (index, byte) in input.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((index.saturating_add(1), value)));
        }
    }
    if input.len() >= 4 {
        Err(malformed("a length of more than four bytes"))
    } else {
        Ok(None)
    }
}

/// Whether a client may send a packet that begins with `first`, now.
pub(super) fn kind(first: u8, version: Option<Version>) -> Result<(), Violation> {
    let (kind, flags) = (first >> 4, first & 0x0F);
    match (kind, version) {
        (1, Some(_)) => return Err(protocol_error("a second CONNECT")),
        (2..=14, None) => return Err(protocol_error("a packet before CONNECT")),
        (2 | 9 | 11 | 13, _) => return Err(protocol_error("a packet that only a server sends")),
        (15, Some(Version::V5)) => return Err(protocol_error("AUTH without an authentication method")),
        (0 | 15, _) => return Err(malformed("a reserved packet type")),
        _ => {}
    }
    let expected = match kind {
        3 if flags & 0x06 == 0x06 => return Err(malformed("QoS 3")),
        3 => flags,
        6 | 8 | 10 => 2,
        _ => 0,
    };
    if flags == expected {
        Ok(())
    } else {
        Err(malformed("reserved flags"))
    }
}

/// The connection's version; of a CONNECT, the one it announces.
pub(super) fn version(body: &[u8], version: Option<Version>) -> Result<Option<Version>, Violation> {
    if version.is_some() {
        return Ok(version);
    }
    let unsupported = |why| Violation {
        reason: reason::UNSUPPORTED_VERSION,
        why,
    };
    let Some((name, rest)) = body.split_at_checked(6) else {
        return Ok(None);
    };
    if name != b"\0\x04MQTT" {
        return Err(unsupported("a protocol that is not MQTT"));
    }
    match rest.first() {
        Some(4) => Ok(Some(Version::V311)),
        Some(5) => Ok(Some(Version::V5)),
        Some(_) => Err(unsupported("an unknown version of MQTT")),
        None => Ok(None),
    }
}

/// The packet id that a body begins with.
pub(super) fn id(body: &[u8]) -> Result<u16, Violation> {
    match body {
        [high, low, ..] => Ok(u16::from_be_bytes([*high, *low])),
        _ => Err(malformed("a packet that is cut short")),
    }
}

/// What the decoder does not look at within a whole body.
pub(super) fn body(first: u8, body: &[u8], version: Version) -> Result<(), Violation> {
    let kind = first >> 4;
    let v5 = version == Version::V5;
    let mut rest = Rest(body);
    match kind {
        1 => {
            rest.skip(7)?;
            let flags = rest.byte()?;
            rest.skip(2)?;
            connect(&mut rest, flags, v5)
        }
        3 => {
            rest.bytes()?;
            if first & 0x06 != 0 {
                if id(rest.0)? == 0 {
                    return Err(protocol_error("packet id 0"));
                }
                rest.skip(2)?;
            }
            if v5 { rest.properties(PUBLISH) } else { Ok(()) }
        }
        4..=7 => {
            rest.skip(2)?;
            match (v5, rest.0.len()) {
                (_, 0) | (true, 1) => Ok(()),
                (true, _) => {
                    rest.skip(1)?;
                    rest.properties(ACKNOWLEDGEMENT)?;
                    rest.end()
                }
                (false, _) => Err(malformed("bytes after a packet's end")),
            }
        }
        8 => {
            rest.skip(2)?;
            if v5 {
                rest.properties(SUBSCRIBE)?;
            }
            rest.not_empty()?;
            let reserved = if v5 { 0xC0 } else { 0xFC };
            while !rest.0.is_empty() {
                rest.bytes()?;
                let options = rest.byte()?;
                if options & reserved != 0 {
                    return Err(malformed("reserved subscription options"));
                }
                if options & 0x03 == 0x03 || options & 0x30 == 0x30 {
                    return Err(protocol_error("a subscription option that has no meaning"));
                }
            }
            Ok(())
        }
        10 => {
            rest.skip(2)?;
            if v5 {
                rest.properties(UNSUBSCRIBE)?;
            }
            rest.not_empty()?;
            while !rest.0.is_empty() {
                rest.bytes()?;
            }
            Ok(())
        }
        14 if v5 && body.len() > 1 => {
            rest.skip(1)?;
            rest.properties(DISCONNECT)?;
            rest.end()
        }
        14 if v5 => Ok(()),
        _ => rest.end(),
    }
}

fn connect(rest: &mut Rest<'_>, flags: u8, v5: bool) -> Result<(), Violation> {
    let (will, user, password) = (flags & 0x04 != 0, flags & 0x80 != 0, flags & 0x40 != 0);
    if flags & 0x01 != 0 || (!will && flags & 0x38 != 0) || flags & 0x18 == 0x18 {
        return Err(malformed("reserved CONNECT flags"));
    }
    if password && !user && !v5 {
        return Err(malformed("a password without a user name"));
    }
    if v5 {
        rest.properties(CONNECT)?;
    }
    rest.bytes()?;
    if will {
        if v5 {
            rest.properties(WILL)?;
        }
        rest.bytes()?;
        rest.bytes()?;
    }
    for _ in 0..u8::from(user).saturating_add(u8::from(password)) {
        rest.bytes()?;
    }
    rest.end()
}

const CONNECT: &[u8] = &[17, 21, 22, 23, 25, 33, 34, 38, 39];
const WILL: &[u8] = &[1, 2, 3, 8, 9, 24, 38];
const PUBLISH: &[u8] = &[1, 2, 3, 8, 9, 35, 38];
const SUBSCRIBE: &[u8] = &[11, 38];
const UNSUBSCRIBE: &[u8] = &[38];
const ACKNOWLEDGEMENT: &[u8] = &[31, 38];
const DISCONNECT: &[u8] = &[17, 31, 38];

/// The only property that may stand more than once.
const USER: u8 = 38;

/// What is left of a body.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Violation> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or(malformed("a packet that is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn skip(&mut self, count: usize) -> Result<(), Violation> {
        self.take(count).map(drop)
    }

    fn byte(&mut self) -> Result<u8, Violation> {
        Ok(self.take(1)?.first().copied().unwrap_or_default())
    }

    /// Bytes with their length before them.
    fn bytes(&mut self) -> Result<&'a [u8], Violation> {
        let length = id(self.0)?;
        self.skip(2)?;
        self.take(length.into())
    }

    fn text(&mut self) -> Result<(), Violation> {
        match std::str::from_utf8(self.bytes()?) {
            Ok(text) if !text.contains('\0') => Ok(()),
            _ => Err(malformed("text that is not UTF-8, or has NUL")),
        }
    }

    fn not_empty(&self) -> Result<(), Violation> {
        if self.0.is_empty() {
            Err(protocol_error("a packet that names no filter"))
        } else {
            Ok(())
        }
    }

    fn end(&self) -> Result<(), Violation> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(malformed("bytes after a packet's end"))
        }
    }

    /// Properties of version 5: only those allowed here, each once, and exactly as long as announced.
    fn properties(&mut self, allowed: &[u8]) -> Result<(), Violation> {
        let (length, size) = variable(self.0)?.ok_or(malformed("properties that are cut short"))?;
        self.skip(length)?;
        let mut inside = Rest(self.take(size)?);
        let mut seen = 0_u64;
        while !inside.0.is_empty() {
            let name = inside.byte()?;
            if !allowed.contains(&name) {
                return Err(protocol_error("a property that does not belong here"));
            }
            let bit = 1_u64 << name;
            if name != USER && seen & bit != 0 {
                return Err(protocol_error("a property twice"));
            }
            seen |= bit;
            match name {
                1 | 23 | 25 => {
                    if inside.byte()? > 1 {
                        return Err(protocol_error("a flag that is neither 0 nor 1"));
                    }
                }
                33..=35 => inside.skip(2)?,
                2 | 17 | 24 | 39 => inside.skip(4)?,
                11 => {
                    let (length, _) = variable(inside.0)?.ok_or(malformed("a property that is cut short"))?;
                    inside.skip(length)?;
                }
                9 | 22 => drop(inside.bytes()?),
                USER => {
                    inside.text()?;
                    inside.text()?;
                }
                _ => inside.text()?,
            }
        }
        Ok(())
    }
}
