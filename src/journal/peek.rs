//! Looking at a journal that may be in use: read-only, without its lock, and nothing is repaired.
//!
//! What is being written may be seen before it is durable, and what is given up meanwhile may be missed: this is for a
//! person who looks, not for a receiver.

use std::{fs, io, path::Path, sync::Arc};

use crate::event::{Entry, Epoch, Event};

use super::{
    Error,
    boots::Boots,
    frame::{self, Blob, Change, Header, Kind},
    identity::Identity,
    recovery::at,
    segment::{FRAMES, Segment, SegmentHeader, Step},
    snapshot,
    storage::{Disk, DiskFile, File, Storage},
};

/// The events of the journal in `dir`, all epochs, in the order they were stored; given to `take` one by one. Their times
/// are as right as they are known to be by now.
///
/// # Errors
///
/// [`Error::Io`] if the directory cannot be read.
pub fn peek(dir: &Path, mut take: impl FnMut(Entry)) -> Result<(), Error> {
    let names = Disk.list(dir).map_err(at("list", dir))?;
    let mut epochs = Vec::new();
    for name in names
        .iter()
        .filter(|name| *name == "current" || name.starts_with("epoch-"))
    {
        let dir = dir.join(name);
        if let Some(identity) = identity(&dir).map_err(at("read the identity in", &dir))? {
            epochs.push((identity.after, identity.epoch, dir));
        }
    }
    epochs.sort_by_key(|(after, ..)| *after);
    // What a boot's clock was wrong by stands behind the events that it is about.
    let boots = Boots::default();
    let mut found = Vec::new();
    for (_, epoch, dir) in epochs {
        for (key, value) in snapshot::peek(&dir).map(|it| it.state).unwrap_or_default() {
            boots.learn(&key.0, Some(&value.0));
        }
        for segment in segments(&dir, epoch).map_err(at("read the segments in", &dir))? {
            walk(&dir, &segment, |header, payload| {
                if header.kind == Kind::STATE
                    && let Some(Change(Blob(key), value)) = frame::decode(payload)
                {
                    boots.learn(&key, value.as_ref().map(|Blob(value)| value.as_slice()));
                }
            })?;
            found.push((dir.clone(), epoch, segment));
        }
    }
    for (dir, epoch, segment) in &found {
        walk(dir, segment, |header, payload| {
            if header.kind == Kind::EVENT
                && let Some(event) = frame::decode::<Event>(payload)
            {
                let mut entry = Entry {
                    position: header.position,
                    epoch: *epoch,
                    sequence: header.sequence,
                    event: Arc::new(event),
                };
                boots.correct(&mut entry);
                take(entry);
            }
        })?;
    }
    Ok(())
}

/// The frames of a segment. The first bad one is the end of what is written, or damage: the gateway tells that.
fn walk(dir: &Path, segment: &Segment, mut take: impl FnMut(&Header, &[u8])) -> Result<(), Error> {
    let mut walk = segment.walk(FRAMES, segment.limit());
    while let Step::Frame(_, header) = walk.next().map_err(at("read", &dir.join(&segment.name)))? {
        take(&header, walk.payload(&header));
    }
    Ok(())
}

fn identity(dir: &Path) -> io::Result<Option<Identity>> {
    match fs::read(dir.join(super::identity::NAME)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => Ok(Identity::decode(&read?)),
    }
}

/// A directory's segments, oldest first; spare files, and those that were given up, are none.
fn segments(dir: &Path, epoch: Epoch) -> io::Result<Vec<Segment>> {
    let mut found = Vec::new();
    for name in Disk.list(dir)? {
        let is_segment = Path::new(&name).extension().is_some_and(|ending| ending == "seg");
        // It may be renamed while we look.
        let Ok(file) = fs::File::open(dir.join(&name)) else {
            continue;
        };
        if !is_segment {
            continue;
        }
        let file: Arc<dyn File> = Arc::new(DiskFile(file));
        let size = usize::try_from(file.size()?).unwrap_or(0);
        if let Some(header) = SegmentHeader::read(&*file, size)?.filter(|header| header.epoch == epoch.0) {
            found.push(Segment::new(name, file, size, header, size));
        }
    }
    found.sort_by_key(|segment| segment.header.number);
    let oldest = found.last().map_or(0, |newest| newest.header.oldest);
    found.retain(|segment| segment.header.number >= oldest);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        event::{Labels, Origin, gateway},
        journal::{Journal, Owner, Settings, WhenFull},
        time::{BootId, Clock, ClockQuality, Simulated, Timestamp},
    };

    #[tokio::test]
    async fn what_was_stored_before_the_clock_was_right_is_seen_with_the_right_time() {
        let dir = tempfile::tempdir().unwrap();
        let hands = Simulated::new(BootId(7));
        let clock = Clock::simulated(&hands);
        let settings = Settings {
            dir: dir.path().join("journal"),
            max_bytes: 8 << 20,
            max_age: None,
            when_full: WhenFull::DropOldest,
            state_delay: Duration::ZERO,
        };
        let origin = Origin {
            gateway: "gw".into(),
            source: "urn:tidegate:gateway:gw".into(),
            labels: Labels::new(),
            version: "0.1.0".into(),
        };
        let owner = Owner {
            origin: Arc::new(origin),
            machine_id: String::new(),
            board_serial: String::new(),
            sinks: Vec::new(),
        };
        let (journal, _, _running) = Journal::open(&settings, owner, clock.clone()).unwrap();
        let stopped = gateway::GatewayStopped {
            reason: "a test".to_owned(),
        };
        hands.advance(Duration::from_secs(10));
        let mut durable = journal.durable();
        let stored = journal.record(gateway::draft(&stopped, "gw", clock.now()));
        durable.wait_for(|durable| *durable >= stored).await.unwrap();
        hands.advance(Duration::from_secs(10));
        hands.set(Timestamp(1_800_000_000_000_000));
        hands.synchronise(true);
        let position = journal.synchronised(clock.moment(), None);
        durable.wait_for(|durable| *durable >= position).await.unwrap();

        let mut seen = Vec::new();
        peek(&settings.dir, |entry| seen.push(entry.event.recorded)).unwrap();
        let seen: Vec<_> = seen.iter().map(|moment| (moment.quality, moment.wall)).collect();
        assert_eq!(
            seen,
            [(ClockQuality::Corrected, Timestamp(1_799_999_990_000_000))]
        );
    }
}
