//! Stories: rules tested by telling what happens. Readings at times in, events at times out, under simulated time.
//!
//! A story file has rules and `[[story]]`s (docs/rules.md, "Testing rules"). The engine is the gateway's own, driven as
//! the daemon drives it; what it commits is kept in memory and given back to it at every restart of the story.
//!
//! No clock is read, no file is opened and nobody is waited for: a day takes as long as its readings take.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    config::units,
    event::Draft,
    reading::{DeviceId, Metric, Value, people},
    rule::engine::MuteTarget,
    time::{ClockQuality, Timestamp},
};

mod compare;
mod parse;
mod replay;
mod run;
mod sections;
mod steps;

pub use compare::{Line, Verdict};
pub use parse::{Rules, parse};
pub use replay::Replay;
pub use run::{Between, Interruption, Stop};

/// A point of a story, in microseconds since it began. A day of simulated time is no time at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct At(pub i64);

impl fmt::Display for At {
    /// As it would be written, `90s`; what no duration says exactly, in seconds: `30.000001s`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match u64::try_from(self.0) {
            Ok(micros) if micros.is_multiple_of(1000) => {
                let length = Duration::from_micros(micros);
                formatter.write_str(&units::show_duration(length))
            }
            _ => {
                let sign = if self.0 < 0 { "-" } else { "" };
                let micros = self.0.unsigned_abs();
                write!(
                    formatter,
                    "{sign}{}.{:06}s",
                    micros / 1_000_000,
                    micros % 1_000_000
                )
            }
        }
    }
}

/// One story, ready to be told.
#[derive(Clone, Debug)]
pub struct Story {
    /// Its name, a sentence.
    pub name: String,
    /// The line of the file on which it begins.
    pub line: usize,
    rules: Arc<Rules>,
    /// The names of the rules whose events are compared; none: all.
    only: Vec<String>,
    start: Timestamp,
    quality: ClockQuality,
    /// How often windows are saved.
    checkpoint: At,
    /// In order of time.
    steps: Vec<Step>,
    /// In order of time.
    expected: Vec<Expected>,
}

#[derive(Clone, Debug)]
struct Step {
    at: At,
    act: Act,
}

#[derive(Clone, Debug)]
enum Act {
    /// Time goes by until here.
    Pass,
    /// A device tells something.
    Tell {
        device: DeviceId,
        metric: Metric,
        value: Value,
        unit: Option<Arc<str>>,
        /// The device's own time, if it sends one.
        stamp: Option<At>,
    },
    /// The gateway goes down, and is up again after some time.
    Start {
        stop: Stop,
        away: i64,
        clock: ClockChange,
    },
    /// Somebody sets the wall clock, or the time server is reached or lost.
    Clock(ClockChange),
    /// The configuration is edited and taken up without a restart.
    Reload(Arc<Rules>),
    Mute {
        target: MuteTarget,
        length: Duration,
        reason: String,
    },
    Unmute(MuteTarget),
    Forget(DeviceId),
}

#[derive(Clone, Copy, Debug, Default)]
struct ClockChange {
    set: Option<ClockSet>,
    quality: Option<ClockQuality>,
}

#[derive(Clone, Copy, Debug)]
enum ClockSet {
    To(Timestamp),
    /// Microseconds forward, or back.
    By(i64),
}

/// An event that must come.
#[derive(Clone, Debug)]
struct Expected {
    at: At,
    event: String,
    /// None: of any device, or of none.
    device: Option<String>,
    /// What else is written about it, in order.
    facts: Vec<(&'static str, Fact)>,
}

/// One thing that an event says, as a story writes it.
#[derive(Clone, Debug)]
enum Fact {
    Flag(bool),
    Number(f64),
    Text(String),
}

impl PartialEq for Fact {
    /// Numbers as people read them: who expects a mean of 31.2 means 31.200000000000003, too.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Flag(one), Self::Flag(other)) => one == other,
            (Self::Number(one), Self::Number(other)) => people(*one) == people(*other),
            (Self::Text(one), Self::Text(other)) => one == other,
            _ => false,
        }
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(formatter, "{flag}"),
            Self::Number(number) => formatter.write_str(&people(*number)),
            Self::Text(text) if text.contains(' ') || text.is_empty() => write!(formatter, "{text:?}"),
            Self::Text(text) => formatter.write_str(text),
        }
    }
}

/// An event that came.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// When it happened, in the story's time.
    pub at: At,
    /// When the boot clock of the event's times read zero.
    booted: At,
    /// What the engine said.
    pub draft: Draft,
}

#[cfg(test)]
mod tests;
