//! What the journal can hold, asked before a commit is taken: one that could never be written is refused alone.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    hash::{BuildHasher, RandomState},
    io,
};

use crate::{event::Origin, rule::state::Outcome, rule::state::StateChange};

use super::frame::{HEADER, MAX_PAYLOAD};

/// What a frame's header and CBOR's own bytes take beside a key and its value.
const ENTRY: u64 = HEADER as u64 + 32;
/// What an event carries beside its draft and its origin: the moment. (They are measured with the names of their fields,
/// which are not written: it is an upper bound.)
const STAMP: u64 = HEADER as u64 + 256;
/// Left free for what the writer adds: a note, cursors, headers.
const SPARE: u64 = 64 * 1024;

/// How much room there is.
#[derive(Debug, Default)]
pub(super) struct Room {
    largest: u64,
    /// For one snapshot; there are two.
    state: u64,
    used: u64,
    /// By the key's hash, what it takes.
    entries: HashMap<u64, u32>,
    hasher: RandomState,
}

/// Why a commit is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It has so many bytes, and may have so many.
    TooLarge(u64, u64),
    /// With it the state would take so many bytes, and may take so many.
    StateFull(u64, u64),
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(bytes, most) => write!(formatter, "it has {bytes} bytes, at most {most} fit")?,
            Self::StateFull(bytes, most) => write!(
                formatter,
                "rule state would take {bytes} bytes, a quarter of the journal takes {most} twice"
            )?,
        }
        formatter.write_str(": raise `[journal] max-bytes`")
    }
}

impl Room {
    /// What a journal of this size has, with this state in it.
    pub fn new(max_bytes: u64, state: &BTreeMap<Vec<u8>, Vec<u8>>) -> Self {
        let mut room = Self {
            largest: (max_bytes / 2).min(MAX_PAYLOAD as u64).saturating_sub(SPARE),
            state: (max_bytes / 8).saturating_sub(SPARE),
            ..Self::default()
        };
        for (key, value) in state {
            room.set(key, Some(value));
        }
        room
    }

    /// Takes a commit of so many bytes into account, or refuses it and changes nothing. What goes on or ends has an
    /// eighth more room than what `begins`.
    pub fn take(&mut self, bytes: u64, state: &[StateChange], begins: bool) -> Result<(), Refusal> {
        if bytes > self.largest {
            return Err(Refusal::TooLarge(bytes, self.largest));
        }
        let before = self.used;
        let mut undo = Vec::with_capacity(state.len());
        for StateChange { key, value } in state {
            undo.push(self.set(key, value.as_deref()));
        }
        let now = self.used;
        let begins = begins
            || undo
                .iter()
                .zip(state)
                .any(|((_, old), change)| old.is_none() && change.value.is_some());
        let most = if begins {
            self.state
        } else {
            self.state + self.state / 8
        };
        // What does not grow may go on, also where `max-bytes` was lowered.
        if now <= most || now <= before {
            return Ok(());
        }
        for (key, size) in undo.into_iter().rev() {
            match size {
                Some(size) => self.entries.insert(key, size),
                None => self.entries.remove(&key),
            };
        }
        self.used = before;
        Err(Refusal::StateFull(now, most))
    }

    /// Answers what was there.
    fn set(&mut self, key: &[u8], value: Option<&[u8]>) -> (u64, Option<u32>) {
        let hash = self.hasher.hash_one(key);
        let old = match value {
            Some(value) => {
                let size = (key.len() + value.len()) as u64 + ENTRY;
                self.used += size;
                self.entries.insert(hash, u32::try_from(size).unwrap_or(u32::MAX))
            }
            None => self.entries.remove(&hash),
        };
        self.used = self.used.saturating_sub(old.map_or(0, u64::from));
        (hash, old)
    }
}

/// What a commit takes in a segment, at most.
pub(super) fn size(outcome: &Outcome, origin: &Origin) -> u64 {
    let state = outcome.state.iter();
    let state: u64 = state
        .map(|StateChange { key, value }| (key.len() + value.as_ref().map_or(0, Vec::len)) as u64 + ENTRY)
        .sum();
    if outcome.events.is_empty() {
        return state;
    }
    let stamp = STAMP + encoded(origin);
    let events: u64 = outcome.events.iter().map(|draft| encoded(draft) + stamp).sum();
    state + events
}

struct Count(u64);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn encoded<T: serde::Serialize>(value: &T) -> u64 {
    let mut count = Count(0);
    ciborium::into_writer(value, &mut count).expect("our own types encode, and a counter takes all");
    count.0
}
