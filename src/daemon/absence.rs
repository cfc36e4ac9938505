//! Who has not been heard from for `[mqtt] forget-after`, and is to be forgotten. Decides; reads no clock, forgets nobody.
//!
//! It counts the time that the gateway ran: its own absence is nobody's silence, and no wall clock is asked. When a device
//! was last heard from is kept by the day, rounded up: so it is written once a day, a crash lets nobody be forgotten too
//! early, and who is forgotten has been silent for up to a day more.
//!
//! Never forgotten: what the configuration names (a `[[device]]` without a `*`, a serial line's device), because somebody
//! says that it is there; and what is muted, because somebody spoke of it.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use crate::{
    reading::DeviceId,
    rule::{
        DeviceFacts,
        state::{Outcome, StateChange},
    },
    time::EngineTime,
};

/// Holds for how many seconds the gateway has run, in all its runs.
const RAN: &[u8] = b"heard";
/// Before a device's id: on which day of that time it was last heard from.
const HEARD: &[u8] = b"heard/";

const DAY: u64 = 86_400;
/// How much of the time that it ran a crash may lose: what is lost makes nobody's silence longer.
const SAVE_EVERY: Duration = Duration::from_hours(1);
/// How many are forgotten at one look: the engine is built anew for each.
const AT_ONCE: usize = 4;

/// How long everybody has been silent.
#[derive(Debug)]
pub struct Absence {
    forget_after: Duration,
    named: HashSet<Box<str>>,
    start: EngineTime,
    /// How long the gateway ran before this start, and what is saved of that and of this run.
    before: Duration,
    saved: Duration,
    /// Heard from until the end of this day, as is saved.
    heard: HashMap<DeviceId, u64>,
}

impl Absence {
    /// Goes on with what the journal kept; the gateway starts now.
    #[must_use]
    pub fn new(
        state: &[(Vec<u8>, Vec<u8>)],
        devices: &[DeviceFacts],
        forget_after: Duration,
        now: EngineTime,
    ) -> Self {
        let number = |value: &[u8]| ciborium::from_reader::<u64, _>(value).unwrap_or(0);
        let ran = state.iter().find(|(key, _)| key == RAN);
        let before = Duration::from_secs(ran.map_or(0, |(_, value)| number(value)));
        let heard = state.iter().filter_map(|(key, value)| {
            let id = std::str::from_utf8(key.strip_prefix(HEARD)?).ok()?;
            Some((DeviceId::new(id).ok()?, number(value)))
        });
        let mut absence = Self {
            forget_after,
            named: HashSet::new(),
            start: now,
            before,
            saved: before,
            heard: heard.collect(),
        };
        absence.reconfigure(devices, forget_after);
        absence
    }

    /// Goes on with another configuration.
    pub fn reconfigure(&mut self, devices: &[DeviceFacts], forget_after: Duration) {
        let names = devices.iter().map(|device| &*device.id.0);
        self.named = names.filter(|id| !id.contains('*')).map(Into::into).collect();
        self.forget_after = forget_after;
    }

    /// Looks at all devices that are known, when each was last heard from, and whether it is muted. Saves what has changed
    /// and returns some of those that are to be forgotten, if there are any; the others wait for the next look.
    pub fn look<'a>(
        &mut self,
        now: EngineTime,
        known: impl Iterator<Item = (&'a DeviceId, EngineTime, bool)>,
        out: &mut Outcome,
    ) -> Vec<DeviceId> {
        let ran = self.ran(now);
        let mut unknown = std::mem::take(&mut self.heard);
        let mut due = Vec::new();
        for (id, last, is_muted) in known {
            if self.named.contains(id.as_str()) {
                continue;
            }
            let saved = unknown.remove(id);
            // Of who was not heard from in this run, and of whom nothing is saved, the silence begins now.
            let day = match saved {
                Some(saved) if last < self.start => saved,
                saved => saved
                    .unwrap_or(0)
                    .max(self.day(if last < self.start { now } else { last })),
            };
            if saved != Some(day) {
                save(&key(id), day, out);
            }
            self.heard.insert(id.clone(), day);
            let silent = ran.saturating_sub(Duration::from_secs(day.saturating_mul(DAY)));
            if silent >= self.forget_after && !is_muted && due.len() < AT_ONCE {
                due.push(id.clone());
            }
        }
        for id in unknown.keys() {
            out.state.push(StateChange {
                key: key(id),
                value: None,
            });
            out.may_end();
        }
        if ran.saturating_sub(self.saved) >= SAVE_EVERY {
            self.save(now, out);
        }
        due
    }

    /// Saves how long the gateway has run.
    pub fn save(&mut self, now: EngineTime, out: &mut Outcome) {
        self.saved = self.ran(now);
        save(RAN, self.saved.as_secs(), out);
    }

    fn ran(&self, now: EngineTime) -> Duration {
        self.before.saturating_add(now.since(self.start))
    }

    /// The day of this time, counted from 1: until it is over.
    fn day(&self, at: EngineTime) -> u64 {
        self.ran(at).as_secs() / DAY + 1
    }
}

fn key(id: &DeviceId) -> Vec<u8> {
    [HEARD, id.as_str().as_bytes()].concat()
}

fn save(key: &[u8], number: u64, out: &mut Outcome) {
    let mut value = Vec::new();
    ciborium::into_writer(&number, &mut value).expect("a number can be written to memory");
    out.state.push(StateChange {
        key: key.to_vec(),
        value: Some(value),
    });
    out.may_end();
}

#[cfg(test)]
mod tests {
    use super::*;

    const NINETY: u64 = 90;

    /// A gateway, and what its journal keeps.
    struct Rig {
        absence: Absence,
        kept: Vec<(Vec<u8>, Vec<u8>)>,
        commits: usize,
        now: EngineTime,
        known: HashMap<DeviceId, (EngineTime, bool)>,
    }

    impl Rig {
        fn new() -> Self {
            let now = EngineTime(5_000_000);
            Self {
                absence: Absence::new(&[], &Self::named(), Duration::from_secs(NINETY * DAY), now),
                kept: Vec::new(),
                commits: 0,
                now,
                known: HashMap::new(),
            }
        }

        fn named() -> [DeviceFacts; 2] {
            ["boiler", "attic-*"].map(DeviceFacts::of)
        }

        fn hear(&mut self, id: &str) {
            self.known.insert(DeviceId::new(id).unwrap(), (self.now, false));
        }

        /// Hours pass, with a look every minute of the last and every hour before; who was forgotten.
        fn pass(&mut self, hours: u64) -> Vec<String> {
            let mut forgotten = Vec::new();
            for _ in 0..hours {
                self.now = self.now.after(Duration::from_hours(1));
                let mut out = Outcome::default();
                let known = self.known.iter().map(|(id, (last, muted))| (id, *last, *muted));
                let due = self.absence.look(self.now, known, &mut out);
                assert!(due.len() <= AT_ONCE);
                self.keep(out);
                for id in due {
                    self.known.remove(&id);
                    forgotten.push(id.to_string());
                }
            }
            forgotten.sort();
            forgotten
        }

        fn keep(&mut self, out: Outcome) {
            for change in out.state {
                self.commits += 1;
                self.kept.retain(|(key, _)| *key != change.key);
                self.kept.extend(change.value.map(|value| (change.key, value)));
            }
        }

        /// Another boot, whose clock begins anew; the engine knows when it heard of whom at best roughly.
        fn restart(&mut self) {
            self.now = EngineTime(1_000_000);
            for (last, _) in self.known.values_mut() {
                *last = EngineTime(-1);
            }
            let after = Duration::from_secs(NINETY * DAY);
            self.absence = Absence::new(&self.kept, &Self::named(), after, self.now);
        }
    }

    #[test]
    fn a_device_is_forgotten_within_a_day_after_its_time_and_who_is_heard_from_is_not() {
        let mut rig = Rig::new();
        for id in ["gone", "here", "boiler", "attic-1", "muted"] {
            rig.hear(id);
        }
        rig.known.get_mut(&DeviceId::new("muted").unwrap()).unwrap().1 = true;
        let mut forgotten = Vec::new();
        for day in 0..=NINETY {
            rig.hear("here");
            assert_eq!(forgotten, Vec::<String>::new(), "day {day}");
            forgotten = rig.pass(24);
        }
        assert_eq!(forgotten, ["attic-1", "gone"]);
        // Of who is not known any more nothing is kept, after the next look.
        rig.pass(1);
        let ids = |kept: &[(Vec<u8>, Vec<u8>)]| {
            let keys = kept
                .iter()
                .map(|(key, _)| String::from_utf8(key.clone()).unwrap());
            keys.collect::<std::collections::BTreeSet<_>>()
        };
        let expected = ["heard", "heard/here", "heard/muted"].map(str::to_owned);
        assert_eq!(ids(&rig.kept), expected.into());
    }

    #[test]
    fn a_silence_goes_on_over_restarts_and_neither_these_nor_a_kill_shorten_it() {
        let mut rig = Rig::new();
        rig.hear("gone");
        rig.hear("here");
        let mut days = 0;
        let forgotten = loop {
            // Killed every day: at most an hour of it is lost.
            let forgotten = rig.pass(24);
            days += 1;
            if !forgotten.is_empty() {
                break forgotten;
            }
            rig.restart();
            rig.hear("here");
        };
        assert_eq!(forgotten, ["gone"]);
        assert!((NINETY..NINETY + 6).contains(&days), "{days}");
    }

    #[test]
    fn little_is_written() {
        let mut rig = Rig::new();
        for _ in 0..24 * 10 {
            rig.hear("one");
            rig.hear("two");
            rig.pass(1);
        }
        // A day: each device once, and how long the gateway ran, every hour.
        assert!(rig.commits <= 10 * (24 + 2) + 2, "{}", rig.commits);
    }

    #[test]
    fn many_at_once_are_forgotten_a_few_at_a_time() {
        let mut rig = Rig::new();
        for number in 0..10 {
            rig.hear(&format!("d-{number}"));
        }
        assert_eq!(rig.pass((NINETY + 1) * 24 - 1), Vec::<String>::new());
        let counts: Vec<_> = (0..4).map(|_| rig.pass(1).len()).collect();
        assert_eq!(counts, [4, 4, 2, 0]);
    }
}
