//! A segment: a file of a fixed length, written with zeros once, filled front to back, used again.
//!
//! ```text
//!    0  header, 100 bytes: magic, number, salt, position and sequence before it, oldest segment kept,
//!       up to where all that is gone was delivered or told, when it was begun, where the one before it
//!       ends, last write group before it, the file's length, sequence before the oldest kept, epoch, crc32c
//!  128  frames, without gaps
//!  end  the last 128 bytes: the header once more
//! ```
//! The salt is new for every use, so that what an earlier use left behind the last frame is never read as
//! new. Nothing here decides what a bad byte means: see recovery.rs and read.rs.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    event::{Position, Sequence},
    time::Timestamp,
};

use super::{
    frame::{self, Header, Kind},
    storage::{File, read_around},
};

/// Where frames begin.
pub(super) const FRAMES: usize = 128;
/// What the second header takes at the end.
pub(super) const TRAILER: usize = 128;
pub(super) const LENGTH: usize = 100;
const MAGIC: &[u8; 8] = b"TGSEG\x01\0\0";
/// How far apart the marks of the sparse index are: 16 bytes per 64 KiB.
const MARK_EVERY: usize = 64 * 1024;
/// How much a walk reads at once.
const CHUNK: usize = 32 * 1024;

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Counts the uses of all files: 1, 2, 3, …
    pub number: u64,
    /// Goes into every checksum.
    pub salt: u64,
    /// The last position before it.
    pub after: Position,
    /// The last sequence before it.
    pub after_sequence: Sequence,
    /// Segments with a lower number were given up when this one was begun.
    pub oldest: u64,
    /// What is no longer kept, up to here, was delivered or told.
    pub settled: Position,
    /// When it was begun, so also when the one before it ended.
    pub begun: Timestamp,
    /// Where the frames of the one before it end.
    pub previous_end: usize,
    /// The last write group before it.
    pub group: u32,
    /// How long the file was made: a shorter one was cut.
    pub size: usize,
    /// The last sequence before the oldest segment kept: so that it is known what a file held that vanished.
    pub oldest_after: Sequence,
    /// Whose it is: a file that strayed from another epoch's directory is not this one's.
    pub epoch: u64,
}

impl SegmentHeader {
    /// Its bytes.
    pub fn encode(&self) -> [u8; LENGTH] {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.extend_from_slice(MAGIC);
        for number in [
            self.number,
            self.salt,
            self.after.0,
            self.after_sequence.0,
            self.oldest,
            self.settled.0,
        ] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.begun.0.to_le_bytes());
        bytes.extend_from_slice(&(self.previous_end as u64).to_le_bytes());
        bytes.extend_from_slice(&self.group.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(self.size).unwrap_or(0).to_le_bytes());
        bytes.extend_from_slice(&self.oldest_after.0.to_le_bytes());
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes.try_into().expect("the fields above add up to LENGTH")
    }

    /// From bytes; none if they are something else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..LENGTH)?;
        let (body, crc) = bytes.split_at(LENGTH - 4);
        if !body.starts_with(MAGIC) || crc != crc32c::crc32c(body).to_le_bytes() {
            return None;
        }
        let number = |at: usize| Some(u64::from_le_bytes(body.get(at..at + 8)?.try_into().ok()?));
        Some(Self {
            number: number(8)?,
            salt: number(16)?,
            after: Position(number(24)?),
            after_sequence: Sequence(number(32)?),
            oldest: number(40)?,
            settled: Position(number(48)?),
            begun: Timestamp(number(56)?.cast_signed()),
            previous_end: usize::try_from(number(64)?).ok()?,
            group: u32::from_le_bytes(body.get(72..76)?.try_into().ok()?),
            size: u32::from_le_bytes(body.get(76..80)?.try_into().ok()?) as usize,
            oldest_after: Sequence(number(80)?),
            epoch: number(88)?,
        })
    }

    /// Writes both copies; where the file was cut, there is no second one.
    pub fn write(&self, file: &dyn File, size: usize) -> io::Result<()> {
        let bytes = self.encode();
        file.write_all_at(&bytes, 0)?;
        if size < self.size {
            return Ok(());
        }
        file.write_all_at(&bytes, size.saturating_sub(TRAILER) as u64)
    }

    /// The header of a file: of its two copies the newer good one.
    pub fn read(file: &dyn File, size: usize) -> io::Result<Option<Self>> {
        let mut bytes = [0; LENGTH];
        let (count, _) = read_around(file, &mut bytes, 0)?;
        let first = Self::decode(bytes.get(..count).unwrap_or_default());
        let (count, _) = read_around(file, &mut bytes, size.saturating_sub(TRAILER) as u64)?;
        let second = Self::decode(bytes.get(..count).unwrap_or_default());
        Ok(match (first, second) {
            (Some(first), Some(second)) => Some(if second.number > first.number {
                second
            } else {
                first
            }),
            (first, second) => first.or(second),
        })
    }
}

/// A segment in use, shared by the writer and all readers.
#[derive(Debug)]
pub(super) struct Segment {
    pub name: String,
    pub file: Arc<dyn File>,
    pub size: usize,
    pub header: SegmentHeader,
    extent: Mutex<Extent>,
}

/// How far a segment is filled, durably.
#[derive(Clone, Debug, Default)]
pub(super) struct Extent {
    /// Where its frames end.
    pub end: usize,
    /// The position of its last frame.
    pub last: Position,
    /// The sequence of its last event.
    pub sequence: Sequence,
    /// (last position before it, offset), ascending.
    marks: Vec<(Position, u32)>,
}

impl Segment {
    /// A segment that is filled up to `end`.
    pub fn new(name: String, file: Arc<dyn File>, size: usize, header: SegmentHeader, end: usize) -> Self {
        let extent = Extent {
            end,
            last: header.after,
            sequence: header.after_sequence,
            marks: Vec::new(),
        };
        Self {
            name,
            file,
            size,
            header,
            extent: Mutex::new(extent),
        }
    }

    fn extent(&self) -> std::sync::MutexGuard<'_, Extent> {
        self.extent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far it is filled: end, last position, last sequence.
    pub fn filled(&self) -> (usize, Position, Sequence) {
        let extent = self.extent();
        (extent.end, extent.last, extent.sequence)
    }

    /// It is filled up to there now.
    pub fn extend(&self, end: usize, last: Position, sequence: Sequence) {
        let mut extent = self.extent();
        extent.end = end;
        extent.last = last;
        extent.sequence = sequence;
    }

    /// Notes that all frames at `offset` and behind have positions above `before`.
    pub fn mark(&self, before: Position, offset: usize) {
        let mut extent = self.extent();
        let newest = extent.marks.last().map_or(FRAMES, |mark| mark.1 as usize);
        if offset >= newest + MARK_EVERY
            && let Ok(offset) = u32::try_from(offset)
        {
            extent.marks.push((before, offset));
        }
    }

    /// Where to start to look for positions above `after`.
    pub fn seek(&self, after: Position) -> usize {
        let extent = self.extent();
        if after >= extent.last {
            return extent.end;
        }
        let index = extent.marks.partition_point(|mark| mark.0 <= after);
        index
            .checked_sub(1)
            .and_then(|index| extent.marks.get(index))
            .map_or(FRAMES, |mark| mark.1 as usize)
    }

    /// Whether the file is shorter than it was made.
    pub fn is_cut(&self) -> bool {
        self.size < self.header.size
    }

    /// Where frames must end: before the header's copy, or where a file that was cut ends.
    pub fn limit(&self) -> usize {
        if self.is_cut() {
            self.size
        } else {
            self.size.saturating_sub(TRAILER)
        }
    }

    /// Walks its frames from `offset` to `end`.
    pub fn walk(&self, offset: usize, end: usize) -> Walk<'_> {
        Walk {
            file: &*self.file,
            salt: self.header.salt,
            offset,
            end,
            chunk: Vec::new(),
            start: 0,
        }
    }
}

/// What a walk comes upon.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A good frame at this offset.
    Frame(usize, Header),
    /// What stands at this offset is no good frame.
    Bad(usize),
    /// The end.
    End,
}

/// A walk over the frames of a segment. Reads ahead by a chunk.
pub(super) struct Walk<'a> {
    file: &'a dyn File,
    salt: u64,
    offset: usize,
    end: usize,
    chunk: Vec<u8>,
    start: usize,
}

impl Walk<'_> {
    /// The next frame. After `Bad` it stands still: `go_to` moves on.
    pub fn next(&mut self) -> io::Result<Step> {
        if self.offset >= self.end {
            return Ok(Step::End);
        }
        let offset = self.offset;
        let Some(header) = Header::parse(self.bytes(frame::HEADER)?) else {
            return Ok(Step::Bad(offset));
        };
        if header.whole() > self.end - offset {
            return Ok(Step::Bad(offset));
        }
        let salt = self.salt;
        match frame::verified(self.bytes(header.whole())?, salt) {
            Some(header) => {
                self.offset += header.whole();
                Ok(Step::Frame(offset, header))
            }
            None => Ok(Step::Bad(offset)),
        }
    }

    /// The payload of the frame that `next` has just answered.
    pub fn payload(&self, header: &Header) -> &[u8] {
        let end = self.offset - self.start;
        self.chunk.get(end - header.length..end).unwrap_or_default()
    }

    /// Where it stands.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Goes on from there.
    pub fn go_to(&mut self, offset: usize) {
        self.offset = offset;
    }

    /// Up to `length` bytes from where it stands.
    fn bytes(&mut self, length: usize) -> io::Result<&[u8]> {
        let have = (self.start + self.chunk.len()).saturating_sub(self.offset);
        let wanted = length.min(self.end - self.offset);
        if self.offset < self.start || have < wanted {
            let size = wanted.max(CHUNK).min(self.end - self.offset);
            self.chunk.resize(size, 0);
            self.start = self.offset;
            let (count, _) = read_around(self.file, &mut self.chunk, self.offset as u64)?;
            self.chunk.truncate(count);
        }
        let from = self.offset - self.start;
        let to = (from + length).min(self.chunk.len());
        Ok(self.chunk.get(from..to).unwrap_or_default())
    }

    /// Whether what stands at `bad` may be a frame that goes on behind the end of a file that was cut.
    pub fn reaches_the_end(&mut self, bad: usize) -> io::Result<bool> {
        self.offset = bad;
        let end = self.end;
        let bytes = self.bytes(frame::HEADER)?;
        if bytes.len() < frame::HEADER {
            return Ok(true);
        }
        Ok(Header::parse(bytes).is_some_and(|header| header.whole() > end - bad))
    }

    /// The good frames behind a bad one at `bad`, after `last`; and the headers without a good frame that
    /// yet look as if the next write group had begun there.
    pub fn survivors(&mut self, bad: usize, last: &Header) -> io::Result<Survivors> {
        let mut rest = vec![0; self.end - bad];
        let (count, lost) = read_around(self.file, &mut rest, bad as u64)?;
        rest.truncate(count);
        let mut found = Survivors {
            unreadable: lost,
            ..Survivors::default()
        };
        let mut newest = *last;
        let mut at = 0;
        // Where the next frame must begin, and what stands before it as far as headers tell.
        let (mut due, mut before) = (0, newest);
        while at + frame::HEADER <= rest.len() {
            if at != due && rest.get(at + 7) == Some(&0) {
                // No kind: most of what is searched is zeros.
                at += 1;
                continue;
            }
            let bytes = rest.get(at..).unwrap_or_default();
            if let Some(header) = Header::parse(bytes).filter(|header| follows(header, &newest))
                && frame::verified(bytes, self.salt).is_some()
            {
                found.good.push((bad + at, header));
                newest = header;
                at += header.whole();
                (due, before) = (at, newest);
                continue;
            }
            let is_due = at == due;
            if let Some(header) = claim(bytes, if is_due { &before } else { &newest }, is_due) {
                found.claimed = found.claimed.max(header.sequence);
                found.begun = true;
                if is_due {
                    (due, before) = (at + header.whole(), header);
                }
            }
            at += 1;
        }
        Ok(found)
    }
}

/// Whether a header may stand behind `last`: keeps the search for good frames from checking every byte.
fn follows(header: &Header, last: &Header) -> bool {
    let near = |a: u64, b: u64, by: u64| a >= b && a - b <= by;
    (header.group == last.group
        || (frame::later(header.group, last.group) && header.group.wrapping_sub(last.group) < 1 << 20))
        && near(header.position.0, last.position.0, 1 << 40)
        && near(header.sequence.0, last.sequence.0, 1 << 24)
}

/// An unverified header, if it can be one that stands behind `last`. What an earlier use left is of an older group,
/// and what stands in the middle of a payload hardly has a right one. Where the next frame must begin (`next`), one
/// of the fields may be damaged: then it is a header all the same.
fn claim(bytes: &[u8], last: &Header, next: bool) -> Option<Header> {
    let header = Header::fields(bytes)?;
    let most = (bytes.len() / frame::HEADER) as u64;
    let above = |a: u64, b: u64, by: u64| a >= b && a - b <= by;
    let ahead = header.group.wrapping_sub(last.group);
    let group = ahead >= u32::from(last.ends_group) && ahead <= CLAIMED_GROUPS;
    let position = above(header.position.0, last.position.0, 1 << 32);
    let sequence = above(header.sequence.0, last.sequence.0, most);
    if next {
        let right = u8::from(group)
            + u8::from(position && header.position > last.position)
            + u8::from(sequence && header.sequence > last.sequence);
        if right >= 2 {
            let following = Sequence(last.sequence.0 + 1);
            return Some(Header {
                sequence: if sequence {
                    header.sequence.max(following)
                } else {
                    following
                },
                ..header
            });
        }
    }
    let is_header = Header::parse(bytes).is_some() && header.kind.0 <= Kind::SKIPPED.0;
    (is_header && header.whole() <= bytes.len() && group && position && sequence).then_some(header)
}

/// How many write groups behind a good frame a damaged one is still known.
const CLAIMED_GROUPS: u32 = 64;

/// What stands behind bad bytes.
#[derive(Debug, Default)]
pub(super) struct Survivors {
    /// Good frames.
    pub good: Vec<(usize, Header)>,
    /// The highest sequence that an unverified header claims.
    pub claimed: Sequence,
    /// Whether there was any such header.
    pub begun: bool,
    /// Whether the disk could not read some of it.
    pub unreadable: bool,
}
