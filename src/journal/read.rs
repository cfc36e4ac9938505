//! Reading: the catalogue of segments that the writer shares with every reader.
//!
//! A reader takes a segment's extent under a lock, and reads without one. If the writer gives the segment up
//! meanwhile, its frames no longer verify (a new salt): the reader then looks the catalogue up again. What
//! does not verify and is still in the catalogue is damage: it is skipped, told to the writer, and never
//! delivered.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, Once, PoisonError, RwLock},
};

use serde::Deserialize;

use crate::event::{Data, Entry, Epoch, Event, Position, Reader, SinkName};

use super::{
    Cursor, Error, Journal, Limit,
    discards::Range,
    frame::{Header, Kind},
    recovery::{Damage, at, before},
    segment::{FRAMES, Segment, Step},
};

/// How many places of readers are remembered, so that going on needs no search.
const HINTS: usize = 32;
/// How many damaged places are remembered, so that each is told once.
const DAMAGES: usize = 1024;

/// One epoch's segments.
#[derive(Debug)]
pub(super) struct Catalog {
    pub epoch: Epoch,
    segments: RwLock<Vec<Arc<Segment>>>,
    hints: Mutex<Vec<Hint>>,
    known: Mutex<Vec<(u64, u64)>>,
    found: Mutex<Vec<Damage>>,
    /// It was said that a later version's events stand in it.
    later: Once,
}

#[derive(Clone, Copy, Debug)]
struct Hint {
    segment: u64,
    after: Position,
    offset: usize,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Catalog {
    pub fn new(epoch: Epoch, segments: Vec<Arc<Segment>>) -> Self {
        Self {
            epoch,
            segments: RwLock::new(segments),
            hints: Mutex::default(),
            known: Mutex::default(),
            found: Mutex::default(),
            later: Once::new(),
        }
    }

    /// The segments, oldest first.
    pub fn segments(&self) -> Vec<Arc<Segment>> {
        self.segments
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// A new segment is in use.
    pub fn push(&self, segment: Arc<Segment>) {
        self.segments
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(segment);
    }

    /// The number of the segment in use; 0 if there is none.
    pub fn newest(&self) -> u64 {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.last().map_or(0, |segment| segment.header.number)
    }

    /// The number of the oldest segment; 0 if there is none.
    pub fn oldest(&self) -> u64 {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.first().map_or(0, |segment| segment.header.number)
    }

    /// Nothing is kept up to here.
    pub fn oldest_after(&self) -> Position {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments
            .first()
            .map_or(Position(0), |segment| segment.header.after)
    }

    /// A segment is given up. From now on no reader begins to read it.
    pub fn remove(&self, number: u64) {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        segments.retain(|segment| segment.header.number != number);
    }

    /// Where to begin to look for events behind `after`.
    fn place(&self, after: Position) -> Option<(Arc<Segment>, usize)> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let index = segments
            .partition_point(|segment| segment.header.after <= after)
            .saturating_sub(1);
        let searched = segments.get(index)?;
        let offset = searched.seek(after);
        let hints = locked(&self.hints);
        let hint = hints
            .iter()
            .filter(|hint| hint.after <= after)
            .max_by_key(|hint| (hint.segment, hint.offset));
        let hinted = hint
            .filter(|hint| (hint.segment, hint.offset) > (searched.header.number, offset))
            .and_then(|hint| {
                let segment = segments
                    .iter()
                    .find(|segment| segment.header.number == hint.segment)?;
                Some((Arc::clone(segment), hint.offset))
            });
        Some(hinted.unwrap_or_else(|| (Arc::clone(searched), offset)))
    }

    fn follower(&self, number: u64) -> Option<Arc<Segment>> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments
            .get(segments.partition_point(|segment| segment.header.number <= number))
            .cloned()
    }

    fn keeps(&self, number: u64) -> bool {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.iter().any(|segment| segment.header.number == number)
    }

    /// The last position that is on the disk.
    pub fn last(&self) -> Position {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.last().map_or(Position(0), |segment| segment.filled().1)
    }

    /// The sequence of the newest event that is on the disk.
    pub fn last_sequence(&self) -> u64 {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.last().map_or(0, |segment| segment.filled().2.0)
    }

    /// Whether damage was found that is not yet told.
    pub fn has_damage(&self) -> bool {
        !locked(&self.found).is_empty()
    }

    /// Bytes of frames behind `after`; the nearest mark of the index decides.
    pub fn bytes_after(&self, after: Position) -> u64 {
        let Some((first, offset)) = self.place(after) else {
            return 0;
        };
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let behind = segments
            .iter()
            .filter(|segment| segment.header.number > first.header.number);
        let bytes: usize = behind.map(|segment| segment.filled().0 - FRAMES).sum();
        (bytes + first.filled().0.saturating_sub(offset)) as u64
    }

    /// Damage found since the last question.
    pub fn take_damage(&self) -> Vec<Damage> {
        std::mem::take(&mut *locked(&self.found))
    }

    /// Damage that is told already is not told again.
    pub fn know(&self, segment: u64, offset: u64) -> bool {
        let mut known = locked(&self.known);
        if known.contains(&(segment, offset)) || known.len() >= DAMAGES {
            return false;
        }
        known.push((segment, offset));
        true
    }

    /// No event behind `after` stands before this place.
    fn hint(&self, segment: u64, after: Position, offset: usize) {
        let mut hints = locked(&self.hints);
        hints.retain(|hint| hint.after != after);
        if hints.len() >= HINTS {
            hints.remove(0);
        }
        hints.push(Hint {
            segment,
            after,
            offset,
        });
    }

    /// Events behind `after`, in order.
    pub fn read(&self, dir: &Path, after: Position, limit: Limit) -> Result<Vec<Entry>, Error> {
        let mut found = Reading {
            after,
            limit,
            bytes: 0,
            entries: Vec::new(),
            reader: Reader::default(),
        };
        let mut place = self.place(after);
        while let Some((segment, offset)) = place {
            let number = segment.header.number;
            let path = dir.join(&segment.name);
            let Some(offset) = self
                .read_segment(&segment, offset, &mut found)
                .map_err(at("read", &path))?
            else {
                // It was given up under our eyes: look for what is kept now.
                place = self
                    .place(found.newest())
                    .filter(|(segment, _)| segment.header.number > number);
                continue;
            };
            let follower = self.follower(number);
            if found.is_full() || follower.is_none() {
                self.hint(number, found.newest(), offset);
                break;
            }
            if offset < segment.filled().0 {
                // It was filled further before its follower came: now it is whole.
                place = Some((segment, offset));
                continue;
            }
            place = follower.map(|segment| (segment, FRAMES));
        }
        Ok(found.entries)
    }

    /// Reads on in one segment; answers where it stopped, or none if the segment is no longer kept.
    fn read_segment(
        &self,
        segment: &Segment,
        offset: usize,
        found: &mut Reading,
    ) -> io::Result<Option<usize>> {
        let (end, _, _) = segment.filled();
        let mut walk = segment.walk(offset, end);
        let mut last: Option<Header> = None;
        loop {
            if found.is_full() {
                return Ok(Some(walk.offset()));
            }
            match walk.next()? {
                Step::Frame(offset, header) => {
                    if let Some(last) = last {
                        segment.mark(last.position, offset);
                    }
                    last = Some(header);
                    if header.kind == Kind::EVENT
                        && header.position > found.after
                        && !found.take(self.epoch, &header, walk.payload(&header))
                    {
                        self.passed_over(&header);
                    }
                }
                Step::Bad(bad) => {
                    if !self.keeps(segment.header.number) {
                        return Ok(None);
                    }
                    let last_good = last.unwrap_or_else(|| before(&segment.header));
                    let survivors = walk.survivors(bad, &last_good)?;
                    let next = survivors.good.first().copied();
                    self.damaged(segment, bad, last.map(|header| header.sequence.0), next, end);
                    walk.go_to(next.map_or(end, |(offset, _)| offset));
                }
                Step::End => return Ok(Some(end)),
            }
        }
    }

    /// A good frame with an event that cannot be read: a later version wrote it, in a form that is not for us. Its
    /// number is missing to whoever reads here, who will call it lost.
    fn passed_over(&self, header: &Header) {
        self.later.call_once(|| {
            tracing::error!(
                epoch = %self.epoch,
                seq = header.sequence.0,
                "events in the journal cannot be read: a later version wrote them, install that one again"
            );
        });
    }

    fn damaged(
        &self,
        segment: &Segment,
        from: usize,
        last: Option<u64>,
        next: Option<(usize, Header)>,
        end: usize,
    ) {
        if !self.know(segment.header.number, from as u64) {
            return;
        }
        let first = last.unwrap_or(segment.header.after_sequence.0) + 1;
        let (to, lost_to) = match next {
            Some((to, header)) if header.kind == Kind::EVENT => (to, header.sequence.0.saturating_sub(1)),
            Some((to, header)) => (to, header.sequence.0),
            None => (end, segment.filled().2.0),
        };
        let gone = (first <= lost_to).then_some((first, lost_to));
        locked(&self.found).push(Damage {
            place: Some((segment.header.number, from as u64)),
            file: segment.name.clone(),
            from,
            to,
            lost: gone,
        });
    }

    /// What a segment holds behind `after`: the first and the last sequence, and what it tells `sink` that will not come.
    pub fn contents(&self, segment: &Segment, after: Position, sink: &SinkName) -> io::Result<Contents> {
        let mut contents = Contents::default();
        let (end, last, newest) = segment.filled();
        let start = match self.place(after) {
            Some((place, _)) if place.header.number > segment.header.number => end,
            Some((place, offset)) if place.header.number == segment.header.number => offset,
            _ => FRAMES,
        };
        if last <= after || newest == segment.header.after_sequence {
            return Ok(contents);
        }
        let mut walk = segment.walk(start, end);
        let mut last_good = before(&segment.header);
        loop {
            match walk.next()? {
                Step::Frame(_, header) => {
                    last_good = header;
                    if header.position <= after {
                        continue;
                    }
                    if header.kind == Kind::EVENT {
                        let (from, _) = *contents.events.get_or_insert((header.sequence.0, 0));
                        contents.events = Some((from, newest.0));
                        contents.told.extend(told(walk.payload(&header), sink));
                    }
                }
                Step::Bad(bad) => {
                    // What is lost by damage here was told, or is told now with the rest of the segment.
                    let next = last_good.sequence.0 + 1;
                    contents.events.get_or_insert((next, newest.0));
                    match walk.survivors(bad, &last_good)?.good.first() {
                        Some((offset, _)) => walk.go_to(*offset),
                        None => break,
                    }
                }
                Step::End => break,
            }
        }
        contents.events = contents.events.filter(|(from, to)| from <= to);
        Ok(contents)
    }
}

type Entries = Result<Vec<Entry>, Error>;

impl Journal {
    /// Events after `cursor`, in order, never past `durable`; empty if there is none. An old epoch's
    /// undelivered events come first, under their own epoch, and never together with a newer epoch's. Their times
    /// are as right as they are known to be by now. The reading begins at once, whether anybody waits for it or not.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the disk cannot be read. What is damaged is no error: it is passed over and told.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn read_after(&self, cursor: Cursor, limit: Limit) -> impl Future<Output = Entries> + use<> {
        let journal = self.clone();
        let read = tokio::task::spawn_blocking(move || journal.read_after_blocking(cursor, limit));
        async {
            read.await
                .unwrap_or_else(|error| Err(Error::Stopped(error.to_string())))
        }
    }

    /// The same, for a thread that may block.
    ///
    /// # Errors
    ///
    /// As [`Journal::read_after`].
    pub fn read_after_blocking(&self, cursor: Cursor, limit: Limit) -> Entries {
        let mut entries = self.read_stored(cursor, limit)?;
        for entry in &mut entries {
            self.0.shared.boots.correct(entry);
        }
        Ok(entries)
    }

    fn read_stored(&self, cursor: Cursor, limit: Limit) -> Entries {
        for archive in self.0.shared.archives() {
            match archive.catalog.read(&archive.dir, cursor.position, limit) {
                Ok(entries) if entries.is_empty() => {}
                // Its directory went while it was read: everything in it is delivered.
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                answer => return answer,
            }
        }
        let entries = self.0.catalog.read(&self.0.dir, cursor.position, limit);
        if self.0.catalog.has_damage() {
            self.0.shared.wake();
        }
        entries
    }
}

/// What a segment holds that somebody has not yet read.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// The first and the last sequence.
    pub events: Option<(u64, u64)>,
    /// What is named to the sink in it as not to come.
    pub told: Vec<(Epoch, Range)>,
}

/// How far into an event its name stands at most.
const NAMED_WITHIN: usize = 128;

/// What an event names to a sink as not to come, if it is one that does.
fn told(payload: &[u8], sink: &SinkName) -> Vec<(Epoch, Range)> {
    const NAME: &[u8] = b"EventsDiscarded";
    // Few are: the others are not decoded.
    let begin = payload.get(..NAMED_WITHIN).unwrap_or(payload);
    if !begin.windows(NAME.len()).any(|bytes| bytes == NAME) {
        return Vec::new();
    }
    let Some(event) = Event::decode(payload) else {
        return Vec::new();
    };
    let Data::Gateway(data) = event.draft.data else {
        return Vec::new();
    };
    let fact = serde_json::from_value::<Discarded>(data.into());
    let Ok(fact) = fact.map_err(drop) else {
        return Vec::new();
    };
    let Ok(epoch) = fact.epoch.parse() else {
        return Vec::new();
    };
    let is_named = fact.sinks.contains(sink);
    let ranges = fact.ranges.into_iter().filter(|_| is_named);
    ranges.map(|range| (epoch, range)).collect()
}

/// Of `data` in `EventsDiscarded`.
#[derive(Deserialize)]
struct Discarded {
    epoch: String,
    sinks: Vec<SinkName>,
    ranges: Vec<Range>,
}

/// A reading under way.
struct Reading {
    after: Position,
    limit: Limit,
    bytes: usize,
    entries: Vec<Entry>,
    reader: Reader,
}

impl Reading {
    fn is_full(&self) -> bool {
        self.entries.len() >= self.limit.entries.max(1) || self.bytes >= self.limit.bytes.max(1)
    }

    fn newest(&self) -> Position {
        self.entries.last().map_or(self.after, |entry| entry.position)
    }

    /// `false`: it cannot be read.
    fn take(&mut self, epoch: Epoch, header: &Header, payload: &[u8]) -> bool {
        let Some(event) = self.reader.event(payload) else {
            return false;
        };
        self.bytes += header.whole();
        let (position, sequence) = (header.position, header.sequence);
        self.entries.push(Entry {
            position,
            epoch,
            sequence,
            event: Arc::new(event),
        });
        true
    }
}

#[cfg(test)]
mod tests;
