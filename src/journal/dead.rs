//! Dead letters: events that a sink refused for good, kept for it until somebody sends or drops them.
//!
//! A key of the state each, with the whole event, so that a letter is on the disk before the cursor passes its event,
//! outlives the segment that the event stood in, and is in every snapshot. Bounded for each sink and for all together:
//! what does not fit is not set aside, and the sink stops at it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{
    event::{
        Entry, Epoch, Event, Position, Sequence, SinkName,
        gateway::{self, EventSetAside, EventsDiscarded},
    },
    rule::state::{Outcome, StateChange},
    time::Moment,
};

use super::{
    Journal,
    discards::Range,
    frame::{self, Note},
};

/// What a letter's key begins with; then the sink's name, a `/`, and which event it is.
pub(super) const PREFIX: &[u8] = b"dead/";
/// What the key begins with that says which of a sink's letters were told; then the sink's name.
pub(super) const TOLD: &[u8] = b"dead-told/";
/// The most letters of one sink.
pub const MOST_LETTERS: usize = 1000;
/// The most bytes of one sink's letters.
pub const MOST_BYTES: usize = 256 * 1024;
/// All sinks' letters together take at most this part of `max-bytes`: the rules' state shares its quarter with them.
const SHARE: u64 = 32;

/// An event that a sink refuses for good: what is to be set aside.
#[derive(Clone, Copy, Debug)]
pub struct Refused<'e> {
    /// Which sink.
    pub sink: &'e SinkName,
    /// Which event.
    pub entry: &'e Entry,
    /// The one before it in the sink's chain.
    pub previous: Sequence,
    /// What the sink said last.
    pub reason: &'e str,
    /// How often it refused.
    pub attempts: u32,
}

impl Refused<'_> {
    /// Set aside then, as a sink's so many-th.
    #[must_use]
    pub fn letter(&self, at: Moment, number: u64) -> DeadLetter {
        DeadLetter {
            sink: self.sink.clone(),
            entry: self.entry.clone(),
            previous: self.previous,
            reason: self.reason.to_owned(),
            attempts: self.attempts,
            at,
            resend: false,
            number,
        }
    }
}

/// An event that a sink refused for good.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// Whose.
    pub sink: SinkName,
    /// The event.
    pub entry: Entry,
    /// The one before it in the sink's chain.
    pub previous: Sequence,
    /// What the sink said last.
    pub reason: String,
    /// How often it refused.
    pub attempts: u32,
    /// When it was set aside.
    pub at: Moment,
    /// It is to be sent again.
    pub resend: bool,
    /// Which of its sink's letters it is, from 1.
    number: u64,
}

/// A letter's value.
#[derive(Serialize, Deserialize)]
struct Saved {
    position: Position,
    previous: Sequence,
    event: Arc<Event>,
    reason: String,
    attempts: u32,
    at: Moment,
    resend: bool,
    number: u64,
}

/// What every version's letter has.
#[derive(Deserialize)]
struct Numbered {
    number: u64,
}

/// What is set aside and not yet told.
#[derive(Clone, Debug)]
pub struct Untold {
    /// For which sink.
    pub sink: SinkName,
    /// What tells it, an event for each epoch.
    pub facts: Vec<EventSetAside>,
    through: u64,
}

/// Which event.
type Id = (u64, Sequence);

/// One sink's.
#[derive(Debug, Default)]
struct Tray {
    letters: BTreeMap<Id, DeadLetter>,
    /// Bytes of each letter's value.
    sizes: BTreeMap<Id, usize>,
    /// What is about to be a letter: it is named as lost no more.
    coming: BTreeSet<Id>,
    /// Letters that a later version wrote, and their numbers: they keep their place for it.
    unread: BTreeMap<Id, u64>,
    /// Letters up to this number were told.
    told: u64,
}

/// All that are on the disk.
#[derive(Debug, Default)]
pub(super) struct Trays(Mutex<BTreeMap<SinkName, Tray>>);

impl Trays {
    /// What the state holds.
    pub fn of<'s>(state: impl IntoIterator<Item = (&'s Vec<u8>, &'s Vec<u8>)>) -> Self {
        let trays = Self::default();
        for (key, value) in state {
            trays.learn(key, Some(value));
        }
        trays
    }

    /// All letters, by sink and in the order of their events.
    pub fn letters(&self) -> Vec<DeadLetter> {
        let trays = self.trays();
        let letters = trays.values().flat_map(|tray| tray.letters.values());
        letters.cloned().collect()
    }

    /// How many letters a later version wrote: they cannot be read.
    pub fn unread(&self) -> usize {
        self.trays().values().map(|tray| tray.unread.len()).sum()
    }

    /// How many letters there are.
    pub fn count(&self) -> usize {
        self.trays().values().map(|tray| tray.letters.len()).sum()
    }

    fn trays(&self) -> MutexGuard<'_, BTreeMap<SinkName, Tray>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A range without what is set aside for a sink.
    pub fn without(&self, sink: &SinkName, epoch: Epoch, (from, to): Range) -> Vec<Range> {
        let trays = self.trays();
        let asked = (epoch.0, Sequence(from))..=(epoch.0, Sequence(to));
        let mut inside = BTreeSet::new();
        if let Some(tray) = trays.get(sink).filter(|_| from <= to) {
            inside.extend(tray.letters.range(asked.clone()).map(|(id, _)| *id));
            inside.extend(tray.unread.range(asked.clone()).map(|(id, _)| *id));
            inside.extend(tray.coming.range(asked));
        }
        let mut ranges = Vec::new();
        let mut next = from;
        for (_, letter) in inside {
            ranges.push((next, letter.0.saturating_sub(1)));
            next = letter.0 + 1;
        }
        ranges.push((next, to));
        ranges.retain(|(from, to)| from <= to);
        ranges
    }

    /// A change of state is on the disk; most are not about dead letters.
    pub fn learn(&self, key: &[u8], value: Option<&[u8]>) {
        if let Some(sink) = key.strip_prefix(TOLD).and_then(name) {
            let told = value.and_then(frame::decode).unwrap_or(0);
            self.trays().entry(sink).or_default().told = told;
            return;
        }
        let Some((sink, id)) = key.strip_prefix(PREFIX).and_then(parse) else {
            return;
        };
        let mut trays = self.trays();
        let tray = trays.entry(sink.clone()).or_default();
        let Some(value) = value else {
            tray.forget(id);
            return;
        };
        tray.coming.remove(&id);
        tray.sizes.insert(id, value.len());
        if let Some(saved) = frame::decode::<Saved>(value) {
            tray.letters.insert(id, saved.letter(sink, id));
        } else {
            let number = frame::decode::<Numbered>(value).map_or(0, |saved| saved.number);
            tray.unread.insert(id, number);
        }
    }
}

impl Tray {
    fn forget(&mut self, id: Id) {
        self.sizes.remove(&id);
        self.letters.remove(&id);
        self.unread.remove(&id);
    }

    fn bytes(&self) -> usize {
        self.sizes.values().sum()
    }

    fn newest(&self) -> u64 {
        let numbers = self.letters.values().map(|letter| letter.number);
        let unread = self.unread.values().copied();
        numbers.chain(unread).fold(self.told, u64::max)
    }
}

impl Saved {
    fn letter(self, sink: SinkName, (epoch, sequence): Id) -> DeadLetter {
        DeadLetter {
            sink,
            entry: Entry {
                position: self.position,
                epoch: Epoch(epoch),
                sequence,
                event: self.event,
            },
            previous: self.previous,
            reason: self.reason,
            attempts: self.attempts,
            at: self.at,
            resend: self.resend,
            number: self.number,
        }
    }
}

impl DeadLetter {
    fn id(&self) -> Id {
        (self.entry.epoch.0, self.entry.sequence)
    }

    fn change(&self) -> StateChange {
        let saved = Saved {
            position: self.entry.position,
            previous: self.previous,
            event: Arc::clone(&self.entry.event),
            reason: self.reason.clone(),
            attempts: self.attempts,
            at: self.at,
            resend: self.resend,
            number: self.number,
        };
        StateChange {
            key: key(&self.sink, self.id()),
            value: Some(frame::encode(&saved)),
        }
    }

    fn removal(&self) -> StateChange {
        StateChange {
            key: key(&self.sink, self.id()),
            value: None,
        }
    }
}

fn key(sink: &SinkName, (epoch, sequence): Id) -> Vec<u8> {
    [PREFIX, format!("{sink}/{}-{sequence}", Epoch(epoch)).as_bytes()].concat()
}

/// Nothing was told, or nothing is left of what was.
pub(super) fn nothing_told(sink: &SinkName) -> StateChange {
    StateChange {
        key: [TOLD, sink.as_str().as_bytes()].concat(),
        value: None,
    }
}

fn name(bytes: &[u8]) -> Option<SinkName> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

fn parse(bytes: &[u8]) -> Option<(SinkName, Id)> {
    let (sink, id) = std::str::from_utf8(bytes).ok()?.split_once('/')?;
    let (epoch, sequence) = id.split_once('-')?;
    let epoch: Epoch = epoch.parse().ok()?;
    Some((sink.parse().ok()?, (epoch.0, Sequence(sequence.parse().ok()?))))
}

/// A sink's dead letters take no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "its dead letters are full ({letters}, {bytes} bytes): `tidegate journal dead` lists, resends and drops them"
)]
pub struct Full {
    /// How many there are.
    pub letters: usize,
    /// What they take.
    pub bytes: usize,
}

impl Journal {
    /// Sets an event aside for a sink. Once the answered position is durable its cursor may pass the event.
    ///
    /// # Errors
    ///
    /// There is no room for it.
    pub fn set_aside(&self, refused: &Refused<'_>) -> Result<Position, Full> {
        let sink = refused.sink;
        let shared = &self.0.shared;
        let change = {
            let mut trays = shared.dead.trays();
            let all: usize = trays.values().map(Tray::bytes).sum();
            let tray = trays.entry(sink.clone()).or_default();
            let letter = refused.letter(shared.clock.moment(), tray.newest() + 1);
            let change = letter.change();
            let size = change.value.as_ref().map_or(0, Vec::len);
            let share = usize::try_from(shared.max_bytes / SHARE).unwrap_or(usize::MAX);
            let (letters, bytes) = (tray.sizes.len(), tray.bytes());
            if letters >= MOST_LETTERS || bytes + size > MOST_BYTES || all + size > share {
                return Err(Full { letters, bytes });
            }
            tray.coming.insert(letter.id());
            change
        };
        let position = self.append(Outcome {
            state: vec![change],
            ..Outcome::default()
        });
        if position == Position::NEVER {
            if let Some(tray) = shared.dead.trays().get_mut(sink) {
                tray.coming
                    .remove(&(refused.entry.epoch.0, refused.entry.sequence));
            }
            return Err(Full { letters: 0, bytes: 0 });
        }
        Ok(position)
    }

    /// All dead letters that are on the disk, by sink and in the order of their events. Their times are as right as
    /// they are known to be by now.
    #[must_use]
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        let mut letters = self.0.shared.dead.letters();
        for letter in &mut letters {
            self.0.shared.boots.correct(&mut letter.entry);
        }
        letters
    }

    /// The oldest of a sink's letters that is to be sent again.
    #[must_use]
    pub fn letter_to_resend(&self, sink: &SinkName) -> Option<DeadLetter> {
        let mut letter = {
            let trays = self.0.shared.dead.trays();
            let letters = trays.get(sink)?.letters.values();
            letters
                .filter(|letter| letter.resend)
                .min_by_key(|letter| letter.number)?
                .clone()
        };
        self.0.shared.boots.correct(&mut letter.entry);
        Some(letter)
    }

    /// A sink's letter of the event that stands there.
    #[must_use]
    pub fn letter_of(&self, sink: &SinkName, position: Position) -> Option<DeadLetter> {
        let trays = self.0.shared.dead.trays();
        let mut letters = trays.get(sink)?.letters.values();
        letters.find(|letter| letter.entry.position == position).cloned()
    }

    /// Puts letters back on their way to their sinks. Its durable position.
    pub fn resend(&self, letters: &[DeadLetter]) -> Position {
        let marked = letters.iter().cloned().map(|letter| DeadLetter {
            resend: true,
            ..letter
        });
        self.append(Outcome {
            state: marked.map(|letter| letter.change()).collect(),
            ..Outcome::default()
        })
    }

    /// A letter that was sent again was delivered, and goes; or it was refused once more, and stays: why.
    pub fn settle(&self, letter: &DeadLetter, refused: Option<&str>) {
        let change = {
            let mut trays = self.0.shared.dead.trays();
            let tray = trays.entry(letter.sink.clone()).or_default();
            // At once: before this is on the disk it must not be sent once more.
            match refused {
                None => {
                    tray.forget(letter.id());
                    letter.removal()
                }
                Some(reason) => {
                    let kept = DeadLetter {
                        resend: false,
                        reason: reason.to_owned(),
                        attempts: letter.attempts.saturating_add(1),
                        ..letter.clone()
                    };
                    let change = kept.change();
                    tray.letters.insert(kept.id(), kept);
                    change
                }
            }
        };
        self.append(Outcome {
            state: vec![change],
            ..Outcome::default()
        });
    }

    /// Gives letters up: that they will not come is told in the same commit. With each goes what the filter left out
    /// right before it, which only its own `previoussequence` would have explained.
    pub fn drop_letters(&self, letters: &[DeadLetter]) -> Position {
        let mut notes: BTreeMap<(SinkName, u64), Note> = BTreeMap::new();
        for letter in letters {
            let (epoch, sequence) = letter.id();
            let note = notes.entry((letter.sink.clone(), epoch)).or_default();
            note.add([(sequence.0, sequence.0)]);
            if letter.previous > Sequence(0) && letter.previous.0 + 1 < sequence.0 {
                let left_out = (letter.previous.0 + 1, sequence.0 - 1);
                note.add(self.0.shared.dead.without(&letter.sink, Epoch(epoch), left_out));
            }
        }
        let now = self.0.shared.clock.now();
        let gateway = &self.0.shared.origin().gateway;
        let events = notes.into_iter().map(|((sink, epoch), note)| {
            let fact = EventsDiscarded {
                epoch: Epoch(epoch).to_string(),
                sinks: vec![sink.to_string()],
                count: note.count(),
                ranges: note.ranges,
                reason: "dropped".to_owned(),
            };
            gateway::draft(&fact, gateway, now)
        });
        self.append(Outcome {
            events: events.collect(),
            state: letters.iter().map(DeadLetter::removal).collect(),
            ..Outcome::default()
        })
    }

    /// What was set aside since it was told last, by sink. That only the telling itself was set aside is told with the
    /// next.
    #[must_use]
    pub fn untold(&self) -> Vec<Untold> {
        let trays = self.0.shared.dead.trays();
        trays
            .iter()
            .filter_map(|(sink, tray)| tray.untold(sink))
            .collect()
    }

    /// Records what tells it, and that it is told, in one commit.
    pub fn tell_set_aside(&self, untold: Untold) -> Position {
        let Untold { sink, facts, through } = untold;
        let now = self.0.shared.clock.now();
        let events = facts
            .iter()
            .map(|fact| gateway::draft(fact, sink.as_str(), now))
            .collect();
        let told = StateChange {
            key: [TOLD, sink.as_str().as_bytes()].concat(),
            value: Some(frame::encode(&through)),
        };
        self.0.shared.dead.trays().entry(sink).or_default().told = through;
        self.append(Outcome {
            events,
            state: vec![told],
            ..Outcome::default()
        })
    }
}

impl Tray {
    fn untold(&self, sink: &SinkName) -> Option<Untold> {
        let new = || self.letters.values().filter(|letter| letter.number > self.told);
        let tells = format!("{}EventSetAside", gateway::PREFIX);
        if new().all(|letter| *letter.entry.event.draft.kind == *tells) {
            return None;
        }
        let mut epochs: BTreeMap<u64, (Note, String)> = BTreeMap::new();
        for letter in new() {
            let (epoch, sequence) = letter.id();
            let (note, reason) = epochs.entry(epoch).or_default();
            note.add([(sequence.0, sequence.0)]);
            reason.clone_from(&letter.reason);
        }
        let facts = epochs.into_iter().map(|(epoch, (note, reason))| EventSetAside {
            epoch: Epoch(epoch).to_string(),
            sink: sink.to_string(),
            count: note.count(),
            ranges: note.ranges,
            reason,
        });
        Some(Untold {
            sink: sink.clone(),
            facts: facts.collect(),
            through: self.newest(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_of_a_later_version_keeps_its_place_and_its_number_until_it_is_removed() {
        #[derive(Serialize)]
        struct Later {
            event: [u8; 1],
            number: u64,
        }
        let (trays, sink): (_, SinkName) = (Trays::default(), "cloud".parse().unwrap());
        let place = key(&sink, (1, Sequence(5)));
        let letter = frame::encode(&Later {
            event: [3],
            number: 7,
        });
        let left = || trays.without(&sink, Epoch(1), (4, 6));
        trays.learn(&place, Some(&letter));
        assert_eq!((trays.count(), trays.unread()), (0, 1));
        assert_eq!(left(), [(4, 4), (6, 6)], "it is not named as lost");
        assert_eq!(trays.trays()[&sink].newest(), 7);
        assert_eq!(trays.trays()[&sink].bytes(), letter.len());
        trays.learn(&place, None);
        assert_eq!(left(), [(4, 6)]);
        assert_eq!(trays.unread(), 0);
    }
}
