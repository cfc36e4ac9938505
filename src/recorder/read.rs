//! Reading what was recorded, also while a gateway goes on recording: read-only, and no lock is taken.

use std::{collections::HashMap, fs, io, path::Path};

use super::{
    codec::{self, Decoder},
    store::{self, MAGIC},
};
use crate::{
    reading::Reading,
    time::{BootId, ClockQuality, Moment, Timestamp},
};

/// One recorded reading, or what happened between two.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A gateway began to record here; the one before it had recorded last at this time.
    Began(Option<Timestamp>),
    /// A reading.
    Reading {
        /// As it was evaluated, on the boot clock of its boot.
        reading: Reading,
        /// Its time on the wall clock, computed from when the clock of its boot was right.
        wall: Timestamp,
        /// Whether that can be believed.
        quality: ClockQuality,
    },
}

/// What could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Bytes that were passed over.
    pub bytes: u64,
}

/// Gives everything that is recorded in `dir` to `take`, in the order it was evaluated; no directory is nothing.
///
/// # Errors
///
/// What the system says, or what `take` does.
pub fn read(dir: &Path, mut take: impl FnMut(Record) -> io::Result<()>) -> io::Result<Damage> {
    let segments = match store::list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        listed => listed?,
    };
    let mut right: HashMap<BootId, Moment> = HashMap::new();
    for (number, _) in &segments {
        let bytes = content(dir, *number)?;
        for payload in payloads(&bytes) {
            if let Some(moment) = codec::moment(payload) {
                let known = right.entry(moment.boot_id).or_insert(moment);
                // The last one that is right; if none was, the last one.
                if moment.quality != ClockQuality::Unknown || known.quality == ClockQuality::Unknown {
                    *known = moment;
                }
            }
        }
    }
    let mut damage = Damage::default();
    let mut last = None;
    for (index, (number, _)) in segments.iter().enumerate() {
        let bytes = content(dir, *number)?;
        let mut decoder = Decoder::default();
        let mut good = MAGIC.len();
        for payload in payloads(&bytes) {
            good += codec::HEADER + payload.len();
            let Some(frame) = decoder.frame(payload) else {
                damage.bytes += payload.len() as u64;
                continue;
            };
            let moment = right.get(&frame.moment.boot_id).copied().unwrap_or(frame.moment);
            if frame.began {
                take(Record::Began(last))?;
            }
            for reading in frame.readings {
                take(Record::Reading {
                    wall: moment.wall_of(reading.at),
                    quality: match (frame.moment.quality, moment.quality) {
                        (ClockQuality::Unknown, ClockQuality::Synchronised) => ClockQuality::Corrected,
                        (quality, _) => quality,
                    },
                    reading,
                })?;
            }
            last = Some(moment.wall_of(frame.moment.boot));
        }
        // The end of the newest one may just be written.
        if index + 1 < segments.len() && !bytes.is_empty() {
            damage.bytes += (bytes.len() as u64).saturating_sub(good as u64);
        }
    }
    Ok(damage)
}

/// A segment's bytes; one that was deleted meanwhile is empty.
fn content(dir: &Path, number: u64) -> io::Result<Vec<u8>> {
    match fs::read(store::path(dir, number)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read,
    }
}

/// The payloads of the good frames that a segment begins with.
fn payloads(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes.strip_prefix(MAGIC).unwrap_or_default();
    std::iter::from_fn(move || {
        let payload = codec::payload(rest)?;
        rest = rest.get(codec::HEADER + payload.len()..)?;
        Some(payload)
    })
}
