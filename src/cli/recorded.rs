//! What `readings` and `backtest` share: where the readings are, and which of them are meant.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use super::Failure;
use crate::{
    config::units,
    recorder,
    time::{Clock, Timestamp},
};

/// A point of time on the command line.
#[derive(Clone, Copy, Debug)]
pub(super) enum Time {
    At(Timestamp),
    Ago(Duration),
}

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(ago) = units::duration(text) {
            return Ok(Self::Ago(ago));
        }
        match text.parse::<jiff::Timestamp>() {
            Ok(at) => Ok(Self::At(Timestamp(at.as_microsecond()))),
            Err(_) => Err("a time is like 2026-11-21T10:00:00Z, or how long ago, like 2h".to_owned()),
        }
    }
}

/// `[from, to)`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub from: Timestamp,
    pub to: Timestamp,
}

impl Span {
    pub fn of(from: Option<Time>, to: Option<Time>) -> Self {
        let now = Clock::system().moment().wall;
        let at = |time| match time {
            Time::At(at) => at,
            Time::Ago(ago) => Timestamp(
                now.0
                    .saturating_sub(i64::try_from(ago.as_micros()).unwrap_or(i64::MAX)),
            ),
        };
        Self {
            from: from.map_or(Timestamp(i64::MIN), at),
            to: to.map_or(Timestamp(i64::MAX), at),
        }
    }

    /// The same, if anything can lie in it.
    pub fn between(from: Option<Time>, to: Option<Time>) -> Result<Self, Failure> {
        let span = Self::of(from, to);
        if span.from >= span.to {
            return Err(super::empty_range());
        }
        Ok(span)
    }

    pub fn has(&self, at: Timestamp) -> bool {
        self.from <= at && at < self.to
    }
}

/// Where the readings are: `--dir`, else beside the journal of the configuration.
pub(super) fn place(config: &Path, dir: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let dir = match dir {
        Some(dir) => dir,
        None => recorder::beside(&super::configuration(config)?.journal.dir),
    };
    if dir.is_dir() {
        return Ok(dir);
    }
    Err(Failure::Failed(format!(
        "tidegate: there are no recorded readings in {}: [recorder] in the configuration switches recording on, --dir \
         names another directory",
        dir.display()
    )))
}

/// Says on stderr what could not be read.
pub(super) fn warn_of(damage: recorder::Damage) {
    if damage.bytes > 0 {
        let said = format!(
            "warning: {} bytes of the recorded readings are damaged and left out",
            damage.bytes
        );
        super::noted(&said);
    }
}
