//! What must be told of one rule on one device: docs/rules.md in fifty lines, in all the worlds that a crash leaves.
//!
//! A reading that was not acknowledged when the gateway died was taken in or was not: only what the next life says
//! tells. So a device has a set of possible pasts, and what was told must be what one of them says.

use std::{collections::BTreeSet, time::Duration};

/// Microseconds since the story began.
pub type Micros = i64;

/// A rule `above = 30, clear = 28`.
#[derive(Clone, Copy, Debug)]
pub struct Law {
    pub hold: Duration,
    pub clear_hold: Duration,
}

pub const THRESHOLD: f64 = 30.0;
pub const CLEAR: f64 = 28.0;

/// A reading as it came to the gateway.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub at: Micros,
    /// The reading's number: its value tells it.
    pub reading: u32,
    pub value: f64,
    /// The gateway has said that all that it changed is on the disk.
    pub safe: bool,
}

/// One event that must come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expected {
    pub raised: bool,
    /// When, at the earliest: later only where nobody ran then.
    pub at: Micros,
    /// Since when its condition was true.
    pub since: Micros,
    /// The reading that decided, if one did and no deadline.
    pub by: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Latch {
    Normal,
    Pending(Micros),
    Active,
    Clearing(Micros),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Past {
    latch: Latch,
    /// Since when the condition of the open episode is true.
    since: Micros,
    told: Vec<Expected>,
}

/// All that may have been.
#[derive(Debug)]
pub struct Reference {
    law: Law,
    pasts: BTreeSet<Past>,
}

fn micros(duration: Duration) -> Micros {
    i64::try_from(duration.as_micros()).unwrap()
}

impl Past {
    fn tell(&mut self, raised: bool, at: Micros, by: Option<u32>) {
        let since = self.since;
        self.latch = if raised { Latch::Active } else { Latch::Normal };
        self.told.push(Expected {
            raised,
            at,
            since,
            by,
        });
    }

    fn fire(&mut self, law: Law, before: Micros) {
        match self.latch {
            Latch::Pending(since) if since + micros(law.hold) < before => {
                self.tell(true, since + micros(law.hold), None);
            }
            Latch::Clearing(since) if since + micros(law.clear_hold) < before => {
                self.tell(false, since + micros(law.clear_hold), None);
            }
            _ => {}
        }
    }

    fn take(&mut self, law: Law, arrival: &Arrival) {
        self.fire(law, arrival.at);
        let holds = arrival.value > THRESHOLD;
        let clears = arrival.value <= CLEAR;
        match self.latch {
            Latch::Normal if holds => {
                self.since = arrival.at;
                if law.hold.is_zero() {
                    self.tell(true, arrival.at, Some(arrival.reading));
                } else {
                    self.latch = Latch::Pending(arrival.at);
                }
            }
            Latch::Pending(_) if !holds => self.latch = Latch::Normal,
            Latch::Active if clears => {
                if law.clear_hold.is_zero() {
                    self.tell(false, arrival.at, Some(arrival.reading));
                } else {
                    self.latch = Latch::Clearing(arrival.at);
                }
            }
            Latch::Clearing(_) if !clears => self.latch = Latch::Active,
            _ => {}
        }
    }
}

impl Reference {
    pub fn new(law: Law) -> Self {
        let past = Past {
            latch: Latch::Normal,
            since: 0,
            told: Vec::new(),
        };
        Self {
            law,
            pasts: [past].into(),
        }
    }

    /// One life of the gateway is over: what it took in, in order. After a clean end all of it counts; else all up to
    /// the last that was safe, and of those behind it any number from the first on.
    pub fn live(&mut self, arrivals: &[Arrival], clean: bool) {
        let safe = arrivals.iter().rposition(|it| it.safe).map_or(0, |last| last + 1);
        let safe = if clean { arrivals.len() } else { safe };
        let (sure, unsure) = arrivals.split_at(safe);
        let mut after = BTreeSet::new();
        for mut past in std::mem::take(&mut self.pasts) {
            for arrival in sure {
                past.take(self.law, arrival);
            }
            after.insert(past.clone());
            for arrival in unsure {
                past.take(self.law, arrival);
                after.insert(past.clone());
            }
        }
        self.pasts = after;
    }

    /// What must have been told by `now`: one of these.
    pub fn told(&self, now: Micros) -> Vec<Vec<Expected>> {
        let mut pasts: Vec<Past> = self.pasts.iter().cloned().collect();
        for past in &mut pasts {
            past.fire(self.law, now);
        }
        pasts.into_iter().map(|past| past.told).collect()
    }
}
