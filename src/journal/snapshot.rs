//! The state in two slots, `a.snap` and `b.snap`, overwritten in turn: one of them is always whole.

use std::{collections::BTreeMap, io, path::Path, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    event::{Epoch, Position, Sequence},
    time::Moment,
};

use super::{
    frame::{self, Blob, Move, Skipped, Told},
    segment::SegmentHeader,
    storage::{File, Storage, read_around},
};

const NAMES: [&str; 2] = ["a.snap", "b.snap"];
const MAGIC: &[u8; 8] = b"TGSNAP\x01\0";
/// Magic, generation, length, checksum.
const HEADER: usize = 28;
/// Slots grow by so much, written with zeros before they are used.
const STEP: usize = 16 * 1024;
/// No state is larger; a longer length is damage.
const MAX: usize = 1 << 30;

/// The state as of a point in the log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Snapshot {
    /// Whose it is.
    pub epoch: u64,
    /// The segment that held the point.
    pub segment: u64,
    /// The point: replay begins there.
    pub offset: u64,
    pub position: Position,
    pub sequence: Sequence,
    pub group: u32,
    pub settled: Position,
    pub cursors: Vec<Move>,
    pub state: Vec<(Blob, Blob)>,
    /// Damage that is told.
    #[serde(default)]
    pub told: Vec<Told>,
    /// Skipped numbers that are not told.
    #[serde(default)]
    pub skipped: Vec<Skipped>,
    /// When it was written: nothing that stands before the point was stored later.
    #[serde(default)]
    pub written: Option<Moment>,
}

/// The two slots.
#[derive(Clone, Debug)]
pub(super) struct Slots {
    files: [Arc<dyn File>; 2],
    sizes: [usize; 2],
    generation: u64,
    /// The segment where each slot's replay begins; none if the slot cannot be used.
    begins: [Option<u64>; 2],
}

/// What opening the slots found.
#[derive(Debug)]
pub(super) struct Opened {
    pub slots: Slots,
    /// The newest good one.
    pub newest: Option<Snapshot>,
    /// A slot does not verify: torn by a crash, or damaged.
    pub bad: bool,
    /// A slot that must have been there is not.
    pub gone: bool,
    /// A segment stands in a slot's place: the highest number of such.
    pub stray: u64,
}

/// What a slot held.
enum Content {
    Never,
    Bad,
    Good(u64, Box<Snapshot>),
}

impl Slots {
    /// Opens the slots, and makes anew a file that is missing.
    pub fn open(storage: &dyn Storage, dir: &Path, epoch: Epoch) -> io::Result<Opened> {
        let there = storage.list(dir)?;
        let mut gone = NAMES.iter().any(|name| !there.iter().any(|it| it == name));
        let files = [
            storage.open(&dir.join(NAMES[0]))?,
            storage.open(&dir.join(NAMES[1]))?,
        ];
        if gone {
            storage.sync_dir(dir)?;
        }
        let mut slots = Self {
            files,
            sizes: [0; 2],
            generation: 0,
            begins: [None; 2],
        };
        let mut newest: Option<(u64, Box<Snapshot>)> = None;
        let (mut bad, mut never, mut stray) = (false, false, 0);
        for (index, file) in slots.files.iter().enumerate() {
            let size = usize::try_from(file.size()?).unwrap_or(MAX).min(MAX);
            if let Some(place) = slots.sizes.get_mut(index) {
                *place = size;
            }
            gone |= size < STEP;
            match read(&**file, size)? {
                Content::Never => never = true,
                Content::Good(_, snapshot) if snapshot.epoch != epoch.0 => (bad, gone) = (true, true),
                Content::Bad => {
                    bad = true;
                    if let Some(header) = SegmentHeader::read(&**file, size)?
                        && header.epoch == epoch.0
                    {
                        stray = header.number.max(stray);
                    }
                }
                Content::Good(generation, snapshot) => {
                    if let Some(place) = slots.begins.get_mut(index) {
                        *place = Some(snapshot.segment);
                    }
                    if newest.as_ref().is_none_or(|(newer, _)| generation > *newer) {
                        newest = Some((generation, snapshot));
                    }
                }
            }
        }
        slots.generation = newest.as_ref().map_or(0, |(generation, _)| *generation);
        gone |= never && slots.generation > 1;
        let newest = newest.map(|(_, snapshot)| *snapshot);
        Ok(Opened {
            slots,
            newest,
            bad,
            gone,
            stray,
        })
    }

    /// The number of the newest good one.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Segments from this number on are needed to replay from either slot.
    pub fn needed_from(&self) -> u64 {
        self.begins
            .iter()
            .map(|begin| begin.unwrap_or(0))
            .min()
            .unwrap_or(0)
    }

    /// The newest segment that a slot speaks of.
    pub fn newest_from(&self) -> u64 {
        self.begins.iter().filter_map(|begin| *begin).max().unwrap_or(0)
    }

    /// Puts on the disk what was read of the newest, since it may have come from the page cache only: the next one
    /// goes over the other, and then this one is all that is left if the power goes.
    pub fn certify(&self) -> io::Result<()> {
        let index = usize::from(self.generation.is_multiple_of(2));
        let (Some(file), Some(size), true) =
            (self.files.get(index), self.sizes.get(index), self.generation > 0)
        else {
            return Ok(());
        };
        let mut bytes = vec![0; *size];
        let (count, _) = read_around(&**file, &mut bytes, 0)?;
        bytes.truncate(count);
        file.write_all_at(&bytes, 0)?;
        file.sync_data()
    }

    /// Writes new slots with zeros, durably.
    pub fn prepare(&mut self) -> io::Result<()> {
        for (file, size) in self.files.iter().zip(&mut self.sizes) {
            file.write_all_at(&[0; STEP], 0)?;
            file.sync_data()?;
            *size = STEP;
        }
        Ok(())
    }

    /// What they occupy.
    pub fn bytes(&self) -> u64 {
        self.sizes.iter().map(|size| *size as u64).sum()
    }

    /// Overwrites the older slot, durably.
    pub fn write(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        let payload = frame::encode(snapshot);
        let generation = self.generation + 1;
        let index = usize::from(generation.is_multiple_of(2));
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&generation.to_le_bytes());
        bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes), &payload);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&payload);
        let (Some(file), Some(size), Some(begins)) = (
            self.files.get(index),
            self.sizes.get_mut(index),
            self.begins.get_mut(index),
        ) else {
            return Ok(());
        };
        if bytes.len() > *size {
            let new = bytes.len().next_multiple_of(STEP);
            file.write_all_at(&vec![0; new - *size], *size as u64)?;
            file.sync_data()?;
            *size = new;
        }
        // From here on the slot cannot be used until it is whole again.
        *begins = None;
        file.write_all_at(&bytes, 0)?;
        file.sync_data()?;
        *begins = Some(snapshot.segment);
        self.generation = generation;
        Ok(())
    }
}

/// A slot, for whoever looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Missing,
    Never,
    Bad,
    /// Its generation, and the segment that replay begins in.
    Good(u64, u64),
}

/// What the slots of a directory hold.
pub(super) fn look(storage: &dyn Storage, dir: &Path) -> io::Result<[(&'static str, Slot); 2]> {
    let there = storage.list(dir)?;
    let mut slots = NAMES.map(|name| (name, Slot::Missing));
    for (name, slot) in &mut slots {
        if !there.iter().any(|it| it == name) {
            continue;
        }
        let file = storage.open(&dir.join(*name))?;
        let size = usize::try_from(file.size()?).unwrap_or(MAX).min(MAX);
        *slot = match read(&*file, size)? {
            Content::Never => Slot::Never,
            Content::Bad => Slot::Bad,
            Content::Good(generation, snapshot) => Slot::Good(generation, snapshot.segment),
        };
    }
    Ok(slots)
}

fn read(file: &dyn File, size: usize) -> io::Result<Content> {
    let mut header = [0; HEADER];
    let (count, lost) = read_around(file, &mut header, 0)?;
    if lost {
        return Ok(Content::Bad);
    }
    if header.iter().all(|byte| *byte == 0) {
        return Ok(Content::Never);
    }
    let number = |at: usize| {
        header
            .get(at..at + 8)
            .and_then(|b| b.try_into().ok())
            .map_or(0, u64::from_le_bytes)
    };
    let length = usize::try_from(number(16)).unwrap_or(MAX);
    if count < HEADER || !header.starts_with(MAGIC) || length > size.saturating_sub(HEADER) {
        return Ok(Content::Bad);
    }
    let mut payload = vec![0; length];
    let (count, _) = read_around(file, &mut payload, HEADER as u64)?;
    let (body, crc) = header.split_at(HEADER - 4);
    let right = count == length && crc == crc32c::crc32c_append(crc32c::crc32c(body), &payload).to_le_bytes();
    Ok(match frame::decode(&payload) {
        Some(snapshot) if right => Content::Good(number(8), Box::new(snapshot)),
        _ => Content::Bad,
    })
}

/// The state as a snapshot holds it.
pub(super) fn pack(state: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<(Blob, Blob)> {
    state
        .iter()
        .map(|(key, value)| (Blob(key.clone()), Blob(value.clone())))
        .collect()
}
