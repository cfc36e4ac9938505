//! Looking at a journal that may be in use: read-only, without its lock, and nothing is repaired.
//!
//! What is being written may be seen before it is durable, and what is given up meanwhile may be missed: this is for a
//! person who looks, not for a receiver.

use std::{fs, io, path::Path, sync::Arc};

use crate::event::{Entry, Epoch, Event};

use super::{
    Error,
    frame::{self, Kind},
    identity::Identity,
    recovery::at,
    segment::{FRAMES, Segment, SegmentHeader, Step},
    storage::{Disk, DiskFile, File, Storage},
};

/// The events of the journal in `dir`, all epochs, in the order they were stored; given to `take` one by one.
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
    for (_, epoch, dir) in epochs {
        for segment in segments(&dir, epoch).map_err(at("read the segments in", &dir))? {
            let mut walk = segment.walk(FRAMES, segment.limit());
            // The first bad frame is the end of what is written, or damage: the gateway tells that.
            while let Step::Frame(_, header) = walk.next().map_err(at("read", &dir.join(&segment.name)))? {
                if header.kind != Kind::EVENT {
                    continue;
                }
                if let Some(event) = frame::decode::<Event>(walk.payload(&header)) {
                    take(Entry {
                        position: header.position,
                        epoch,
                        sequence: header.sequence,
                        event: Arc::new(event),
                    });
                }
            }
        }
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
