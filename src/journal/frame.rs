//! A frame: the unit that is checked. 28 bytes of header, then the payload (CBOR).
//!
//! ```text
//!  0  crc32c over (segment salt, the rest of the header, payload)
//!  4  payload length, 24 bits; then the kind, 5 bits; 0x40 ends its write group; 0x80 ends its commit
//!  8  write group
//! 12  position
//! 20  sequence: an event's own, else that of the newest event before it
//! ```
//! All numbers are little-endian. A kind that is not known is passed over: a later version may write it.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Cursor;
use crate::event::{Position, Sequence, SinkName};

/// The bytes of a frame before its payload.
pub(super) const HEADER: usize = 28;
/// The longest payload.
pub(super) const MAX_PAYLOAD: usize = (1 << 24) - 1;
const ENDS_COMMIT: u8 = 0x80;
const ENDS_GROUP: u8 = 0x40;
const KIND: u8 = 0x1f;

/// What a frame is: its number on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind(pub u8);

impl Kind {
    /// An event ([`crate::event::Event`]).
    pub const EVENT: Self = Self(1);
    /// A change of state ([`Change`]).
    pub const STATE: Self = Self(2);
    /// A cursor's move forward ([`Move`]).
    pub const CURSOR: Self = Self(3);
    /// A cursor's move back ([`Move`]): what somebody asked for anew.
    pub const REPLAY: Self = Self(4);
    /// A cursor is no longer kept ([`Move`], of which only the name counts).
    pub const FORGOTTEN: Self = Self(5);
    /// A note of what will not come ([`Note`]).
    pub const DISCARD: Self = Self(6);
    /// A clean stop. Empty.
    pub const CLOSED: Self = Self(7);
    /// Damage that is told ([`Told`]), in one commit with the event that tells it.
    pub const TOLD: Self = Self(8);
    /// Numbers that a torn tail took back and that are not told yet ([`Skipped`]). Stands where it was cut.
    pub const SKIPPED: Self = Self(9);
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub kind: Kind,
    pub ends_commit: bool,
    pub ends_group: bool,
    pub length: usize,
    pub group: u32,
    pub position: Position,
    pub sequence: Sequence,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

impl Header {
    /// What stands there, unverified. None if it cannot be a frame's header.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let flags = *bytes.get(7)?;
        Self::fields(bytes).filter(|header| header.kind.0 != 0 && flags & 0x20 == 0)
    }

    /// What stands there, whether it can be a frame's header or not.
    pub fn fields(bytes: &[u8]) -> Option<Self> {
        let flags = *bytes.get(7)?;
        Some(Self {
            kind: Kind(flags & KIND),
            ends_commit: flags & ENDS_COMMIT != 0,
            ends_group: flags & ENDS_GROUP != 0,
            length: (u32_at(bytes, 4)? & 0x00ff_ffff) as usize,
            group: u32_at(bytes, 8)?,
            position: Position(u64_at(bytes, 12)?),
            sequence: Sequence(u64_at(bytes, 20)?),
        })
    }

    /// Header and payload in bytes.
    pub fn whole(&self) -> usize {
        HEADER + self.length
    }
}

fn checksum(salt: u64, frame: &[u8]) -> u32 {
    crc32c::crc32c_append(
        crc32c::crc32c(&salt.to_le_bytes()),
        frame.get(4..).unwrap_or_default(),
    )
}

/// The frame that `bytes` begin with, if it is whole and right.
pub(super) fn verified(bytes: &[u8], salt: u64) -> Option<Header> {
    let header = Header::parse(bytes)?;
    let frame = bytes.get(..header.whole())?;
    // A fuzzer cannot guess a checksum: without it, it gets to what stands behind.
    (u32_at(frame, 0)? == checksum(salt, frame) || cfg!(fuzzing)).then_some(header)
}

/// Appends a frame.
pub(super) fn push(buffer: &mut Vec<u8>, salt: u64, header: &Header, payload: &[u8]) {
    assert!(
        payload.len() <= MAX_PAYLOAD,
        "whoever encodes a payload checks its length"
    );
    let start = buffer.len();
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut flags = header.kind.0 & KIND;
    if header.ends_commit {
        flags |= ENDS_COMMIT;
    }
    if header.ends_group {
        flags |= ENDS_GROUP;
    }
    buffer.extend_from_slice(&[0; 4]);
    buffer.extend_from_slice(&(length | (u32::from(flags) << 24)).to_le_bytes());
    buffer.extend_from_slice(&header.group.to_le_bytes());
    buffer.extend_from_slice(&header.position.0.to_le_bytes());
    buffer.extend_from_slice(&header.sequence.0.to_le_bytes());
    buffer.extend_from_slice(payload);
    seal(buffer.get_mut(start..).unwrap_or_default(), salt);
}

/// Marks a whole frame as the last of its write group, and checks it anew.
pub(super) fn end_group(frame: &mut [u8], salt: u64) {
    if let Some(flags) = frame.get_mut(7) {
        *flags |= ENDS_GROUP;
    }
    seal(frame, salt);
}

fn seal(frame: &mut [u8], salt: u64) {
    let crc = checksum(salt, frame);
    if let Some(place) = frame.get_mut(..4) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
}

/// Whether write group `a` comes after `b`. Groups are counted round and round.
pub(super) fn later(a: u32, b: u32) -> bool {
    a != b && a.wrapping_sub(b) < 1 << 31
}

/// As CBOR.
pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("our own types encode, and memory takes all");
    bytes
}

/// From CBOR; none if it is something else.
pub(super) fn decode<T: de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    ciborium::from_reader(bytes).ok()
}

/// Bytes, as a CBOR byte string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blob(pub Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl de::Visitor<'_> for Bytes {
            type Value = Blob;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("bytes")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.to_vec()))
            }
            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Blob, E> {
                Ok(Blob(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

/// A change of state: the key, and its value or nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Change(pub Blob, pub Option<Blob>);

/// A cursor's move: whose, to which position, the highest sequence there and the highest that passed the filter;
/// older ones have no filter, and one number for both. A chain of which nothing has passed has the number where it began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Move(
    pub SinkName,
    pub Position,
    pub Sequence,
    #[serde(default)] pub Option<Sequence>,
    #[serde(default, skip_serializing_if = "Option::is_none")] pub Option<Sequence>,
);

impl Move {
    /// A sink's, to there.
    pub fn new(sink: &SinkName, to: &Cursor) -> Self {
        let began = (to.began > Sequence(0)).then_some(to.began);
        Self(sink.clone(), to.position, to.sequence, Some(to.passed), began)
    }

    /// Whose, and to where.
    pub fn parts(self) -> (SinkName, Cursor) {
        let Self(sink, position, sequence, passed, began) = self;
        let passed = passed.unwrap_or(sequence);
        let cursor = Cursor {
            position,
            sequence,
            passed,
            began: began.unwrap_or_default(),
        };
        (sink, cursor)
    }
}

/// Damage that is told: the epoch, the segment's number (0: the snapshots), where in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Told(pub u64, pub u64, pub u64);

/// From and to, both skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Skipped(pub u64, pub u64);

/// The reason of a note that tells [`Skipped`] numbers.
pub(super) const TORN_TAIL: &str = "torn-tail";

/// What will not come, and to whom. Stands right before the `EventsDiscarded` that says so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// Everything up to here that is no longer kept has been told.
    pub through: Position,
    /// Which sinks lose something.
    pub sinks: Vec<SinkName>,
    /// From and to, both lost.
    pub ranges: Vec<(u64, u64)>,
    /// `journal-full`, `max-age`, `torn-tail` or `damaged`.
    pub reason: String,
}

impl Note {
    /// Of nothing yet.
    pub fn of(sinks: Vec<SinkName>, reason: &str) -> Self {
        Self {
            sinks,
            reason: reason.to_owned(),
            ..Self::default()
        }
    }

    /// How many events.
    pub fn count(&self) -> u64 {
        self.ranges
            .iter()
            .map(|(from, to)| (to + 1).saturating_sub(*from))
            .sum()
    }

    /// Adds ranges; those that touch become one.
    pub fn add(&mut self, more: impl IntoIterator<Item = (u64, u64)>) {
        self.ranges
            .extend(more.into_iter().filter(|(from, to)| from <= to));
        self.ranges.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::with_capacity(self.ranges.len());
        for (from, to) in self.ranges.drain(..) {
            match merged.last_mut() {
                Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        self.ranges = merged;
    }
}
