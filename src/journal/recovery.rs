//! What a journal's directory holds after whatever happened: the newest good snapshot, the frames after it.
//!
//! A bad byte is *damage* if a good frame of a later write group stands behind it (group n+1 is written only
//! after group n is on the disk), or a `closed` frame does; else the tail is *torn*, and nobody was ever told
//! of what it held. No bytes found here make it panic. A sealed segment without replay is not read at all.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::event::{Position, Sequence, SinkName};

use super::{
    Cursor, Error,
    frame::{self, Blob, Change, Header, Kind, Move, Note},
    segment::{FRAMES, Segment, SegmentHeader, Step, TRAILER},
    snapshot::{Slots, Snapshot},
    storage::{File, Storage},
};

/// A file that holds nothing of worth, ready to become a segment.
#[derive(Debug)]
pub(super) struct Spare {
    pub name: String,
    pub file: Arc<dyn File>,
    pub size: usize,
}

/// A stretch of a file that does not verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Damage {
    pub file: String,
    pub from: usize,
    pub to: usize,
    /// The sequences that stood there, as far as their neighbours tell.
    pub lost: Option<(u64, u64)>,
}

/// What is known of a journal's directory.
#[derive(Debug)]
pub(super) struct Image {
    pub dir: PathBuf,
    pub segments: Vec<Arc<Segment>>,
    pub spares: Vec<Spare>,
    pub slots: Slots,
    pub state: BTreeMap<Vec<u8>, Vec<u8>>,
    pub cursors: BTreeMap<SinkName, Cursor>,
    pub last: Position,
    pub sequence: Sequence,
    pub group: u32,
    pub settled: Position,
    /// The last frame says that the journal was closed, or there is none.
    pub clean: bool,
    /// The sequences that a torn tail took back.
    pub torn: Option<(u64, u64)>,
    pub damages: Vec<Damage>,
    pub findings: Vec<String>,
}

/// An error of the system as one that names the act and the thing.
pub(super) fn at<'a>(act: &'static str, path: &'a Path) -> impl Fn(io::Error) -> Error + 'a {
    move |source| Error::Io {
        act,
        path: path.to_owned(),
        source,
    }
}

/// Reads a directory, cuts a torn tail, and puts on the disk what is believed.
pub(super) fn recover(storage: &dyn Storage, dir: &Path, after: Position) -> Result<Image, Error> {
    let (slots, snapshot, bad_slot) = Slots::open(storage, dir).map_err(at("read the snapshots of", dir))?;
    let mut image = Image {
        dir: dir.to_owned(),
        segments: Vec::new(),
        spares: Vec::new(),
        slots,
        state: BTreeMap::new(),
        cursors: BTreeMap::new(),
        last: after,
        sequence: Sequence(0),
        group: 0,
        settled: Position(0),
        clean: true,
        torn: None,
        damages: Vec::new(),
        findings: Vec::new(),
    };
    let headers = image.find_segments(storage)?;
    image.link(headers)?;
    if bad_slot {
        image
            .findings
            .push("a snapshot slot did not verify: the other one was used".to_owned());
    }
    let whole = image
        .segments
        .first()
        .is_none_or(|first| first.header.number <= 1);
    if snapshot.is_none() && !whole {
        image
            .findings
            .push("no snapshot could be read: rule state older than the journal's events is lost".to_owned());
        image.damages.push(Damage {
            file: "a.snap, b.snap".to_owned(),
            from: 0,
            to: 0,
            lost: None,
        });
    }
    image.replay(snapshot.unwrap_or_default())?;
    Ok(image)
}

/// A segment file and what its header says.
struct Found {
    name: String,
    file: Arc<dyn File>,
    size: usize,
    header: SegmentHeader,
}

impl Image {
    /// All segment files; those that hold nothing of worth become spares.
    fn find_segments(&mut self, storage: &dyn Storage) -> Result<Vec<Found>, Error> {
        let mut found: Vec<Found> = Vec::new();
        for name in storage.list(&self.dir).map_err(at("list", &self.dir))? {
            if Path::new(&name)
                .extension()
                .is_none_or(|extension| extension != "seg")
            {
                continue;
            }
            let path = self.dir.join(&name);
            let file = storage.open(&path).map_err(at("open", &path))?;
            let size = usize::try_from(file.size().map_err(at("measure", &path))?).unwrap_or(0);
            let header = SegmentHeader::read(&*file, size).map_err(at("read", &path))?;
            match header {
                Some(header) if found.iter().all(|other| other.header.number != header.number) => {
                    found.push(Found {
                        name,
                        file,
                        size,
                        header,
                    });
                }
                _ => self.spares.push(Spare { name, file, size }),
            }
        }
        found.sort_by_key(|found| found.header.number);
        let oldest = found.last().map_or(0, |newest| newest.header.oldest);
        self.settled = found.last().map_or(Position(0), |newest| newest.header.settled);
        let kept = found.partition_point(|found| found.header.number < oldest);
        for Found { name, file, size, .. } in found.drain(..kept) {
            self.spares.push(Spare { name, file, size });
        }
        Ok(found)
    }

    /// Tells from each segment's header where the one before it ends; a missing one is damage.
    fn link(&mut self, found: Vec<Found>) -> Result<(), Error> {
        let mut found = found.into_iter().peekable();
        while let Some(Found {
            name,
            file,
            size,
            header,
        }) = found.next()
        {
            let segment = Segment::new(name, file, size, header, FRAMES);
            match found.peek().map(|next| next.header) {
                Some(next) if next.number == header.number + 1 => {
                    // A file cut short still says where its frames ended: reading on finds what is missing.
                    segment.extend(next.previous_end, next.after, next.after_sequence);
                }
                Some(next) => {
                    let newest = self.walk_to_the_end(&segment)?;
                    let gone = (newest.sequence.0 + 1, next.after_sequence.0);
                    self.damages.push(Damage {
                        file: format!("between {} and its successor", segment.name),
                        from: 0,
                        to: 0,
                        lost: (gone.0 <= gone.1).then_some(gone),
                    });
                    self.findings
                        .push(format!("a segment after {} is missing", segment.name));
                }
                None => {}
            }
            self.segments.push(Arc::new(segment));
        }
        Ok(())
    }

    /// A segment whose successor is missing: its frames end at the first bad one.
    fn walk_to_the_end(&self, segment: &Segment) -> Result<Header, Error> {
        let path = self.dir.join(&segment.name);
        let mut walk = segment.walk(FRAMES, segment.size.saturating_sub(TRAILER));
        let mut last = before(&segment.header);
        while let Step::Frame(_, header) = walk.next().map_err(at("read", &path))? {
            last = header;
        }
        segment.extend(walk.offset(), last.position, last.sequence);
        Ok(last)
    }

    /// Applies the snapshot and every frame after it.
    fn replay(&mut self, snapshot: Snapshot) -> Result<(), Error> {
        let Snapshot {
            segment,
            offset,
            position,
            sequence,
            group,
            settled,
            cursors,
            state,
        } = snapshot;
        self.state = state
            .into_iter()
            .map(|(Blob(key), Blob(value))| (key, value))
            .collect();
        for moved in cursors {
            self.move_cursor(moved);
        }
        (self.sequence, self.group) = (sequence, group);
        self.settled = self.settled.max(settled);
        self.last = self.last.max(position);
        let point = Header {
            kind: Kind::CLOSED,
            ends_commit: true,
            ends_group: true,
            length: 0,
            group,
            position,
            sequence,
        };
        let segments = self.segments.clone();
        let mut newest = point;
        for (index, current) in segments.iter().enumerate() {
            if current.header.number < segment {
                continue;
            }
            let offset = usize::try_from(offset).unwrap_or(FRAMES).max(FRAMES);
            let (start, last) = if current.header.number == segment {
                (offset, point)
            } else {
                (FRAMES, before(&current.header))
            };
            newest = if index + 1 == segments.len() {
                self.replay_last(current, start, last)?
            } else {
                self.replay_sealed(current, start, last)?
            };
        }
        self.settle(&segments, newest, sequence);
        Ok(())
    }

    /// Numbers go on above everything that anybody may claim.
    fn settle(&mut self, segments: &[Arc<Segment>], newest: Header, snapshot: Sequence) {
        let kept = segments.last().map_or(newest.sequence, |last| last.filled().2);
        if kept < snapshot {
            self.findings.push(format!(
                "the newest segment is missing: events {} to {snapshot} are lost",
                kept.0 + 1
            ));
            self.damages.push(Damage {
                file: "the newest segment".to_owned(),
                from: 0,
                to: 0,
                lost: Some((kept.0 + 1, snapshot.0)),
            });
        }
        self.sequence = self.sequence.max(newest.sequence).max(kept);
        self.last = self.last.max(newest.position);
        for cursor in self.cursors.values() {
            self.sequence = self.sequence.max(cursor.sequence);
            self.last = self.last.max(cursor.position);
        }
        if let Some((_, to)) = self.torn {
            self.sequence = self.sequence.max(Sequence(to));
        }
        self.group = if frame::later(newest.group, self.group) {
            newest.group
        } else {
            self.group
        };
    }

    /// A segment that another one follows: what is bad in it is damaged.
    fn replay_sealed(&mut self, segment: &Segment, start: usize, mut last: Header) -> Result<Header, Error> {
        let path = self.dir.join(&segment.name);
        let (end, position, sequence) = segment.filled();
        let mut walk = segment.walk(start, end);
        loop {
            match walk.next().map_err(at("read", &path))? {
                Step::Frame(_, header) => {
                    self.apply(header, walk.payload(&header));
                    last = header;
                }
                Step::Bad(bad) => {
                    let survivors = walk.survivors(bad, &last).map_err(at("read", &path))?;
                    let next = survivors.good.first();
                    let (to, lost_to) =
                        next.map_or((end, sequence), |(at, header)| (*at, lost_before(header)));
                    self.damaged(segment, bad, to, last.sequence, lost_to);
                    walk.go_to(to);
                }
                Step::End => break,
            }
        }
        Ok(Header {
            position,
            sequence,
            ..last
        })
    }

    /// The segment that was being written: its tail may be torn.
    fn replay_last(&mut self, segment: &Segment, start: usize, mut last: Header) -> Result<Header, Error> {
        let path = self.dir.join(&segment.name);
        let end = segment.size.saturating_sub(TRAILER);
        let mut walk = segment.walk(start, end);
        // What stands behind the last whole commit waits here until its commit is whole, too.
        let mut waiting: Vec<(Header, Vec<u8>)> = Vec::new();
        let mut cut = start;
        let mut newest = last;
        let mut rest = None;
        loop {
            match walk.next().map_err(at("read", &path))? {
                Step::Frame(_, header) => {
                    waiting.push((header, walk.payload(&header).to_vec()));
                    last = header;
                    if header.ends_commit {
                        self.apply_all(&mut waiting);
                        cut = walk.offset();
                        newest = header;
                    }
                }
                Step::Bad(bad) => {
                    let survivors = walk.survivors(bad, &last).map_err(at("read", &path))?;
                    let torn_group = if last.ends_group {
                        last.group.wrapping_add(1)
                    } else {
                        last.group
                    };
                    let proof = |header: &Header| {
                        header.kind == Kind::CLOSED || frame::later(header.group, torn_group)
                    };
                    match survivors.good.first() {
                        Some((to, next)) if survivors.good.iter().any(|(_, header)| proof(header)) => {
                            self.damaged(segment, bad, *to, last.sequence, lost_before(next));
                            self.apply_all(&mut waiting);
                            walk.go_to(*to);
                        }
                        _ => {
                            rest = Some(survivors);
                            break;
                        }
                    }
                }
                Step::End => break,
            }
        }
        let mut claimed = waiting
            .iter()
            .map(|(header, _)| header.sequence)
            .max()
            .unwrap_or_default();
        let mut tail = !waiting.is_empty();
        if let Some(rest) = rest {
            claimed = claimed.max(rest.claimed);
            claimed = rest
                .good
                .iter()
                .map(|(_, header)| header.sequence)
                .fold(claimed, Sequence::max);
            tail |= rest.begun || !rest.good.is_empty();
        }
        if tail {
            self.findings.push(format!(
                "the tail of {} was torn at byte {cut}: cut there",
                segment.name
            ));
            if claimed > newest.sequence {
                self.torn = Some((newest.sequence.0 + 1, claimed.0));
            }
        }
        self.clean = !tail && newest.kind == Kind::CLOSED;
        segment.extend(cut, newest.position, newest.sequence);
        rewrite(segment, start, cut, tail, newest).map_err(at("rewrite the tail of", &path))?;
        Ok(Header {
            ends_group: true,
            ..newest
        })
    }

    fn damaged(&mut self, segment: &Segment, from: usize, to: usize, last: Sequence, lost_to: Sequence) {
        let gone = (last < lost_to).then_some((last.0 + 1, lost_to.0));
        self.findings
            .push(format!("{} is damaged from byte {from} to {to}", segment.name));
        self.damages.push(Damage {
            file: segment.name.clone(),
            from,
            to,
            lost: gone,
        });
    }

    fn apply_all(&mut self, frames: &mut Vec<(Header, Vec<u8>)>) {
        for (header, payload) in frames.drain(..) {
            self.apply(header, &payload);
        }
    }

    fn apply(&mut self, header: Header, payload: &[u8]) {
        if header.kind == Kind::STATE
            && let Some(Change(Blob(key), value)) = frame::decode(payload)
        {
            match value {
                Some(Blob(value)) => self.state.insert(key, value),
                None => self.state.remove(&key),
            };
        } else if header.kind == Kind::CURSOR
            && let Some(moved) = frame::decode(payload)
        {
            self.move_cursor(moved);
        } else if header.kind == Kind::DISCARD
            && let Some(note) = frame::decode::<Note>(payload)
        {
            self.settled = self.settled.max(note.through);
        }
    }

    fn move_cursor(&mut self, Move(sink, position, sequence): Move) {
        let cursor = self.cursors.entry(sink).or_default();
        *cursor = (*cursor).max(Cursor { position, sequence });
    }
}

/// The highest sequence that is gone if this is the first good frame behind bad ones.
fn lost_before(next: &Header) -> Sequence {
    if next.kind == Kind::EVENT {
        Sequence(next.sequence.0.saturating_sub(1))
    } else {
        next.sequence
    }
}

/// What stood before a segment's first frame.
pub(super) fn before(header: &SegmentHeader) -> Header {
    Header {
        kind: Kind(0),
        ends_commit: true,
        ends_group: true,
        length: 0,
        group: header.group,
        position: header.after,
        sequence: header.after_sequence,
    }
}

/// Puts on the disk what was read, since it may have come from the page cache only; and takes care that
/// nothing behind the cut can ever line up with new frames.
fn rewrite(segment: &Segment, start: usize, cut: usize, tail: bool, newest: Header) -> io::Result<()> {
    let mut used = vec![0; cut - start];
    let count = segment.file.read_at(&mut used, start as u64)?;
    if count < used.len() {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    if !newest.ends_group {
        // The rest of its group was cut away.
        let from = used.len().saturating_sub(newest.whole());
        frame::end_group(used.get_mut(from..).unwrap_or_default(), segment.header.salt);
    }
    segment.file.write_all_at(&used, start as u64)?;
    segment.file.write_all_at(&segment.header.encode(), 0)?;
    segment.file.write_all_at(
        &segment.header.encode(),
        segment.size.saturating_sub(TRAILER) as u64,
    )?;
    if tail {
        let zeros = vec![0; segment.size.saturating_sub(TRAILER).saturating_sub(cut)];
        segment.file.write_all_at(&zeros, cut as u64)?;
    }
    segment.file.sync_data()
}
