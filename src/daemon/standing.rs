//! What is told of things that come and go, so that a flap is no event. Decides, tells nobody, reads no clock.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{reading::DeviceId, time::EngineTime};

/// How long an uplink or a source must be away before that is told, and back before that is.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// From the first of one pair of events to the first of the next about the same thing, at least.
pub(super) const APART: Duration = Duration::from_mins(5);

/// How many events that anybody can ask for may come in how long: a script that asks in a loop fills no journal.
const ASKED: u32 = 10;
const ASKED_IN: Duration = Duration::from_mins(10);

/// Something that is recorded because somebody asked. Remembers the first of these ten minutes, and how many came.
#[derive(Debug, Default)]
pub(super) struct Seldom(Mutex<Option<(EngineTime, u32)>>);

impl Seldom {
    /// Whether it may be recorded now; then it counts as recorded.
    pub(super) fn may(&self, now: EngineTime) -> bool {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, count) = counted
            .filter(|(first, _)| now.since(*first) < ASKED_IN)
            .unwrap_or((now, 0));
        *counted = Some((first, count.saturating_add(1)));
        count < ASKED
    }
}

/// What there is to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It has been away since then.
    Lost(EngineTime),
    /// It is back since `at`; it was away since `lost`.
    Back {
        /// Since when it was away: the same as was told.
        lost: EngineTime,
        /// Since when it is back.
        at: EngineTime,
    },
}

/// One thing that is there or away.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Since when it is away, as was told.
    told: Option<EngineTime>,
    /// Since when it differs from what was told.
    differs: Option<EngineTime>,
    /// When a loss was last told.
    last: Option<EngineTime>,
}

impl Standing {
    /// Looks at it.
    pub(super) fn look(&mut self, now: EngineTime, is_there: bool) -> Option<Change> {
        if is_there == self.told.is_none() {
            self.differs = None;
            return None;
        }
        let since = *self.differs.get_or_insert(now);
        let again = self.told.is_none() && self.last.is_some_and(|last| now.since(last) < APART);
        if now.since(since) < GRACE || again {
            return None;
        }
        self.differs = None;
        match self.told.take() {
            Some(lost) => Some(Change::Back { lost, at: since }),
            None => {
                self.told = Some(since);
                self.last = Some(now);
                Some(Change::Lost(since))
            }
        }
    }
}

/// What is told of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It is here; this names the pair.
    Connected(EngineTime),
    /// It has been away since `last`.
    Disconnected {
        /// When the pair's first was told.
        connected: EngineTime,
        /// When it was last seen.
        last: EngineTime,
    },
}

#[derive(Debug)]
struct Device {
    /// The last `DeviceConnected`, and whether a `DeviceDisconnected` has followed.
    connected: EngineTime,
    is_over: bool,
    last: EngineTime,
}

/// What was told of which device.
#[derive(Debug, Default)]
pub(super) struct Devices(HashMap<DeviceId, Device>);

impl Devices {
    /// Looks at who is there, of the devices that have a name.
    pub(super) fn look(
        &mut self,
        now: EngineTime,
        present: &HashSet<DeviceId>,
        named: &HashSet<DeviceId>,
        offline_after: Duration,
    ) -> Vec<(DeviceId, Seen)> {
        let mut seen = Vec::new();
        self.0.retain(|id, _| named.contains(id));
        for (id, device) in &mut self.0 {
            if present.contains(id) {
                device.last = now;
                if device.is_over && now.since(device.connected) >= APART {
                    (device.connected, device.is_over) = (now, false);
                    seen.push((id.clone(), Seen::Connected(now)));
                }
            } else if !device.is_over && now.since(device.last) >= offline_after {
                device.is_over = true;
                let (connected, last) = (device.connected, device.last);
                seen.push((id.clone(), Seen::Disconnected { connected, last }));
            }
        }
        for id in present.intersection(named) {
            if !self.0.contains_key(id) {
                let device = Device {
                    connected: now,
                    is_over: false,
                    last: now,
                };
                self.0.insert(id.clone(), device);
                seen.push((id.clone(), Seen::Connected(now)));
            }
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> EngineTime {
        EngineTime(seconds * 1_000_000)
    }

    #[test]
    fn what_anybody_can_ask_for_is_recorded_ten_times_in_ten_minutes() {
        let seldom = Seldom::default();
        let recorded: Vec<_> = (0..1_300)
            .step_by(30)
            .filter(|second| seldom.may(at(*second)))
            .collect();
        let ten = |from: i64| (0..10).map(move |number| from + 30 * number);
        let expected: Vec<_> = ten(0).chain(ten(600)).chain(ten(1_200).take(4)).collect();
        assert_eq!(recorded, expected);
    }

    #[test]
    fn a_flap_is_not_told_and_a_loss_is_told_once_with_when_it_began() {
        let mut standing = Standing::default();
        let seen = [
            (0, true),
            (1, false),
            (5, false),
            (6, true),
            (11, false),
            (15, false),
            (16, false),
            (60, false),
            (61, true),
            (65, false),
            (66, true),
            (70, true),
            (71, true),
            (72, true),
        ];
        let told: Vec<_> = seen
            .into_iter()
            .filter_map(|(second, there)| Some((second, standing.look(at(second), there)?)))
            .collect();
        assert_eq!(
            told,
            [
                (16, Change::Lost(at(11))),
                (
                    71,
                    Change::Back {
                        lost: at(11),
                        at: at(66)
                    }
                )
            ]
        );
    }

    #[test]
    fn what_comes_and_goes_has_one_pair_in_five_minutes_and_a_loss_that_lasts_is_told_then() {
        let mut standing = Standing::default();
        let mut told = Vec::new();
        for second in 0..1_000 {
            // Six seconds there, six away; and for good after the 900th.
            let there = second < 900 && second % 12 >= 6;
            told.extend(standing.look(at(second), there).map(|change| (second, change)));
        }
        let losses: Vec<_> = told
            .iter()
            .filter(|(_, change)| matches!(change, Change::Lost(_)))
            .map(|(second, _)| *second)
            .collect();
        assert_eq!(losses, [5, 305, 605, 905]);
        assert_eq!(told.len(), 7, "{told:?}");
        assert_eq!(told[6].1, Change::Lost(at(900)));
    }

    #[test]
    fn a_device_that_comes_and_goes_has_one_pair_in_five_minutes() {
        let boiler = DeviceId::new("boiler").unwrap();
        let named = HashSet::from([boiler.clone()]);
        let stranger = DeviceId::new("stranger").unwrap();
        let mut devices = Devices::default();
        let mut look = |second, here: bool| {
            let mut present = HashSet::from([stranger.clone()]);
            present.extend(here.then(|| boiler.clone()));
            let seen = devices.look(at(second), &present, &named, Duration::from_secs(2));
            seen.into_iter().map(|(_, seen)| seen).collect::<Vec<_>>()
        };
        let connected = |second| vec![Seen::Connected(at(second))];
        assert_eq!(look(0, false), []);
        assert_eq!(look(1, true), connected(1));
        assert_eq!(look(2, true), []);
        assert_eq!(look(3, false), [], "not yet away for offline-after");
        let disconnected = Seen::Disconnected {
            connected: at(1),
            last: at(2),
        };
        assert_eq!(look(4, false), [disconnected]);
        for second in 5..301 {
            assert_eq!(look(second, second % 3 == 0), [], "{second}");
        }
        assert_eq!(look(301, true), connected(301), "five minutes later it is told");
    }
}
