//! The boots whose wall clock was right at least once: what the times of their events are computed from.
//!
//! One key of the state per boot. An event was stored with both clocks ([`Moment`]); whoever reads it gets the
//! wall clock as it was, as soon as this boot's key is on the disk, and after later boots too. A boot's key
//! goes when no event of it is left.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use serde::{Deserialize, Serialize};

use crate::{
    event::{Entry, Position},
    rule::state::StateChange,
    time::{BootId, Clock, ClockQuality, KnownBoot, Moment},
};

use super::{frame, recovery::Image};

/// What the keys begin with; then the boot's id, 32 hexadecimal digits.
pub(super) const PREFIX: &[u8] = b"clock/";
/// Beyond these the oldest goes: eight months of a gateway that boots every day.
const MOST: usize = 256;

/// A key's value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Saved {
    known: KnownBoot,
    /// Where the journal stood: what an earlier boot stored stands before it.
    after: Position,
}

/// All that are known.
#[derive(Debug, Default)]
pub(super) struct Boots(RwLock<BTreeMap<u128, Saved>>);

fn key(boot: BootId) -> Vec<u8> {
    [PREFIX, format!("{:032x}", boot.0).as_bytes()].concat()
}

impl Boots {
    /// What the journal's directories know; the clock hears of it, so that it estimates nothing to be earlier
    /// than what is stored.
    pub fn of<'i>(images: impl Iterator<Item = &'i Image> + Clone, clock: &Clock) -> Self {
        let boots = Self::kept(images.clone());
        if let Some(known) = boots.get(clock.boot_id()) {
            clock.resume(&known);
        }
        for stored in images.flat_map(|image| &image.stored) {
            clock.not_before(boots.corrected(*stored));
        }
        boots
    }

    /// What the journal's directories know.
    pub fn kept<'i>(images: impl Iterator<Item = &'i Image>) -> Self {
        let boots = Self::default();
        for (key, value) in images.flat_map(|image| &image.state) {
            boots.learn(key, Some(value));
        }
        boots
    }

    /// A change of state is on the disk; most are not about boots.
    pub fn learn(&self, key: &[u8], value: Option<&[u8]>) {
        let Some(boot) = key
            .strip_prefix(PREFIX)
            .and_then(|hex| std::str::from_utf8(hex).ok())
        else {
            return;
        };
        let Ok(boot) = u128::from_str_radix(boot, 16) else {
            return;
        };
        let mut boots = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match value.and_then(frame::decode::<Saved>) {
            Some(saved) => boots.insert(boot, saved),
            None => boots.remove(&boot),
        };
    }

    pub fn get(&self, boot: BootId) -> Option<KnownBoot> {
        let boots = self.0.read().unwrap_or_else(PoisonError::into_inner);
        boots.get(&boot.0).map(|saved| saved.known)
    }

    pub fn corrected(&self, moment: Moment) -> Moment {
        self.get(moment.boot_id)
            .map_or(moment, |known| known.corrected(moment))
    }

    /// As whoever reads it shall see it.
    pub fn correct(&self, entry: &mut Entry) {
        let recorded = entry.event.recorded;
        if recorded.quality == ClockQuality::Unknown {
            let corrected = self.corrected(recorded);
            if corrected != recorded {
                Arc::make_mut(&mut entry.event).recorded = corrected;
            }
        }
    }

    /// What to commit now that the wall clock is right, with the journal at `newest` and nothing kept up to
    /// `gone`: this boot's key, and the keys of the boots of which nothing is left.
    pub fn changes(&self, now: Moment, newest: Position, gone: Position) -> Vec<StateChange> {
        let boots = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let own = boots.get(&now.boot_id.0);
        let saved = Saved {
            known: KnownBoot {
                first: own.map_or(now, |saved| saved.known.first),
                latest: now,
            },
            after: own.map_or(newest, |saved| saved.after),
        };
        let mut others: Vec<(Position, u128)> = boots
            .iter()
            .filter(|(boot, _)| **boot != now.boot_id.0)
            .map(|(boot, saved)| (saved.after, *boot))
            .collect();
        others.sort_unstable();
        // A boot's events end where the next boot that knew the time had begun.
        let ends = others
            .iter()
            .skip(1)
            .map(|(after, _)| *after)
            .chain([saved.after]);
        let left = others.iter().zip(ends).filter(|(_, end)| *end > gone).count();
        let keep = left.min(MOST - 1);
        let forgotten = others
            .iter()
            .take(others.len() - keep)
            .map(|(_, boot)| StateChange {
                key: key(BootId(*boot)),
                value: None,
            });
        forgotten
            .chain([StateChange {
                key: key(now.boot_id),
                value: Some(frame::encode(&saved)),
            }])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{EngineTime, Timestamp};

    fn right(boot: u128) -> Moment {
        Moment {
            boot_id: BootId(boot),
            boot: EngineTime(5),
            wall: Timestamp(1_800_000_000_000_000),
            quality: ClockQuality::Synchronised,
        }
    }

    impl Boots {
        fn apply(&self, changes: &[StateChange]) {
            for change in changes {
                self.learn(&change.key, change.value.as_deref());
            }
        }

        fn known(&self) -> Vec<u128> {
            self.0.read().unwrap().keys().copied().collect()
        }
    }

    #[test]
    fn a_boot_is_forgotten_when_no_event_of_it_is_left() {
        let boots = Boots::default();
        for (boot, newest) in [(3, 100), (1, 200), (2, 300)] {
            boots.apply(&boots.changes(right(boot), Position(newest), Position(0)));
        }
        assert_eq!(boots.known(), [1, 2, 3]);
        // Everything up to 200 is gone, and boot 1 had begun by then: so of boot 3 nothing is left.
        boots.apply(&boots.changes(right(4), Position(400), Position(200)));
        assert_eq!(boots.known(), [1, 2, 4]);
        boots.apply(&boots.changes(right(4), Position(500), Position(400)));
        assert_eq!(boots.known(), [4]);
    }

    #[test]
    fn no_more_boots_are_kept_than_the_bound() {
        let boots = Boots::default();
        for boot in 0..MOST as u64 + 50 {
            boots.apply(&boots.changes(right(boot.into()), Position(boot + 1), Position(0)));
        }
        assert_eq!(boots.known(), (50..MOST as u128 + 50).collect::<Vec<_>>());
        let value = frame::encode(
            &boots
                .changes(right(7), Position(9), Position(0))
                .pop()
                .unwrap()
                .value,
        );
        assert!(value.len() < 256, "{} B each", value.len());
    }

    #[test]
    fn a_damaged_key_is_no_boot() {
        let boots = Boots::default();
        boots.learn(b"clock/xyz", Some(b"?"));
        boots.learn(&key(BootId(1)), Some(b"?"));
        boots.learn(b"r/x", Some(b"?"));
        assert!(boots.known().is_empty());
    }
}
