//! `tidegate journal`: what is in it, whether it is whole, and a copy of it for others.

use std::{
    io,
    path::{Path, PathBuf},
    str::FromStr,
};

use super::{
    CONFIGURATION, Failure,
    recorded::{Span, Time},
};
use crate::{
    config::state_directory,
    event::{Epoch, Position, Sequence},
    journal::{self, inspect::Inspection},
    time::Timestamp,
};

mod change;
mod dead;
mod export;
mod fsck;
mod ls;
mod show;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List epochs, segments with their events and ages, and how far every sink is behind.
    ///
    /// Sinks stand where the disk has them: a running gateway may be up to two minutes ahead of that, and by more than a
    /// hundred events for a quarter of a second.
    Ls(ls::Ls),
    /// Show one event, with its times as right as they are known by now, and which sinks have it.
    Show(show::Show),
    /// Verify every frame, and say where damage is and what it costs.
    ///
    /// Exit code 0: nothing is damaged, or nothing but what the gateway has told of (`told`). What a kill or a power cut
    /// left half written at the end was promised to nobody and is no damage. Exit code 1: something is newly damaged
    /// (`DAMAGED`). It repairs nothing: the gateway goes on without it, when it starts.
    Fsck(fsck::Fsck),
    /// Write events to the standard output as CloudEvents.
    Export(export::Export),
    /// Send a sink again what is kept, from some event or time on.
    ///
    /// The running gateway moves the sink's cursor back and goes on from there; other sinks do not notice. Receivers know
    /// what they have by its id.
    Replay(change::Replay),
    /// Forget where a sink stood that is no longer configured.
    ///
    /// Such a cursor holds nothing back. It only says where the sink goes on if it is ever configured again.
    Forget(change::Forget),
    /// What a sink refused for good: list it, send it again, or give it up.
    Dead {
        #[command(subcommand)]
        command: dead::Command,
    },
    /// End the epoch, as part of putting an old image of the card back. The gateway must be stopped.
    ///
    /// The gateway that runs on an old image gives out numbers again that it gave to other events after the image was
    /// taken. In a new epoch it cannot. What the image has not delivered yet is delivered, under the old epoch; rule
    /// state begins anew, and open alarms of the old epoch are void.
    NewEpoch(change::NewEpoch),
}

impl Command {
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Self::Ls(ls) => ls.run(),
            Self::Show(show) => show.run(),
            Self::Fsck(fsck) => fsck.run(),
            Self::Export(export) => export.run(),
            Self::Replay(replay) => replay.run(),
            Self::Forget(forget) => forget.run(),
            Self::Dead { command } => command.run(),
            Self::NewEpoch(new_epoch) => new_epoch.run(),
        }
    }
}

/// Which journal.
#[derive(Debug, clap::Args)]
struct Place {
    /// The configuration of its gateway [default: /etc/tidegate/gateway.toml; where there is none, the journal in the
    /// state directory is meant].
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The directory itself: of a card from elsewhere, say.
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    dir: Option<PathBuf>,
}

impl Place {
    fn dir(&self) -> Result<PathBuf, Failure> {
        if let Some(dir) = &self.dir {
            return Ok(dir.clone());
        }
        let usual = Path::new(CONFIGURATION);
        let config = self.config.as_deref().or_else(|| usual.exists().then_some(usual));
        match config {
            Some(config) => Ok(super::configuration(config)?.journal.dir),
            None => Ok(state_directory().join("journal")),
        }
    }

    fn look(&self) -> Result<Inspection, Failure> {
        let dir = self.dir()?;
        Inspection::look(&dir).map_err(|error| unreadable(&dir, &error))
    }
}

/// How something is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// For scripts.
    Json,
}

/// Reading needs other rights than writing, and another remedy.
pub(super) fn unreadable(dir: &Path, error: &journal::Error) -> Failure {
    let journal::Error::Io { act, path, source } = error else {
        return Failure::failed(error);
    };
    let remedy = match source.kind() {
        io::ErrorKind::PermissionDenied => ": look at it as root, or as the gateway's user (tidegate)",
        io::ErrorKind::NotFound => {
            ": --dir names another directory, --config the configuration of another gateway"
        }
        _ => "",
    };
    let path = if path.starts_with(dir) { path } else { dir };
    Failure::Failed(format!(
        "tidegate: could not {act} {}: {source}{remedy}",
        path.display()
    ))
}

/// A point in the journal, on the command line.
#[derive(Clone, Copy, Debug)]
enum Point {
    /// Of the current epoch, if none is named.
    Event(Option<Epoch>, Sequence),
    /// When it was stored.
    Time(Time),
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((epoch, sequence)) = id(text) {
            return Ok(Self::Event(epoch, sequence));
        }
        text.parse().map(Self::Time).map_err(|_| {
            "neither an event's number (42) or id (7q3k9x2m4t8vw-00000000000000000042), nor a time like \
             2026-11-21T10:00:00Z, nor how long ago, like 2h"
                .to_owned()
        })
    }
}

/// `42`, `00000000000000000042`, `7q3k9x2m4t8vw-00000000000000000042`.
fn id(text: &str) -> Option<(Option<Epoch>, Sequence)> {
    let number = |digits: &str| -> Option<Sequence> {
        let all = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        all.then(|| digits.parse().ok().map(Sequence)).flatten()
    };
    match text.rsplit_once('-') {
        None => Some((None, number(text)?)),
        Some((epoch, digits)) => Some((Some(epoch.parse().ok()?), number(digits)?)),
    }
}

/// Which events are meant, when it is known which epochs there are.
#[derive(Clone, Copy, Debug)]
struct Range {
    /// Nothing before this can be in it.
    after: Position,
    from: Edge,
    to: Edge,
}

#[derive(Clone, Copy, Debug)]
enum Edge {
    None,
    /// The epoch's place among the epochs, and the number.
    Event(usize, Sequence),
    Time(Timestamp),
}

impl Range {
    fn of(journal: &Inspection, from: Option<Point>, to: Option<Point>) -> Result<Self, Failure> {
        let edge = |point| -> Result<Edge, Failure> {
            Ok(match point {
                None => Edge::None,
                Some(Point::Time(time)) => Edge::Time(Span::of(Some(time), None).from),
                Some(Point::Event(epoch, sequence)) => Edge::Event(place_of(journal, epoch)?, sequence),
            })
        };
        let (from, to) = (edge(from)?, edge(to)?);
        let is_empty = match (from, to) {
            (Edge::Event(place, first), Edge::Event(end, last)) => (place, first) > (end, last),
            (Edge::Time(from), Edge::Time(to)) => from >= to,
            _ => false,
        };
        if is_empty {
            return Err(super::empty_range());
        }
        let after = match from {
            Edge::Event(place, sequence) => journal
                .epochs
                .get(place)
                .and_then(|kept| journal.before(kept.epoch, sequence)),
            _ => None,
        };
        Ok(Self {
            after: after.unwrap_or_default(),
            from,
            to,
        })
    }

    /// Whether an event is in it: from the first that `--from` names, `--to` a number included, a time excluded.
    fn has(&self, place: usize, sequence: Sequence, stored: Timestamp) -> bool {
        let from = match self.from {
            Edge::None => true,
            Edge::Event(from, first) => (place, sequence) >= (from, first),
            Edge::Time(from) => stored >= from,
        };
        let to = match self.to {
            Edge::None => true,
            Edge::Event(to, last) => (place, sequence) <= (to, last),
            Edge::Time(to) => stored < to,
        };
        from && to
    }
}

/// An epoch's place; without a name the newest's.
fn place_of(journal: &Inspection, epoch: Option<Epoch>) -> Result<usize, Failure> {
    let Some(epoch) = epoch else {
        return Ok(journal.epochs.len().saturating_sub(1));
    };
    let place = journal.epochs.iter().position(|kept| kept.epoch == epoch);
    place.ok_or_else(|| {
        Failure::Failed(format!(
            "tidegate: no epoch {epoch} is kept here: `tidegate journal ls` lists those that are"
        ))
    })
}

/// What a reading passed over, for whoever looks at the terminal.
pub(super) fn warn_of(unread: &[journal::inspect::Unread]) {
    for bad in unread {
        let lost = match bad.lost {
            Some((from, to)) if from == to => format!("event {from} is missing"),
            Some((from, to)) => format!("events {from} to {to} are missing"),
            None => "no event is missing".to_owned(),
        };
        super::noted(&format!(
            "warning: {} is damaged from byte {} to {}: {lost}",
            bad.file, bad.from, bad.to
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_a_number_an_id_or_a_time() {
        let epoch: Epoch = "7q3k9x2m4t8vw".parse().unwrap();
        assert_eq!(epoch.to_string(), "7q3k9x2m4t8vw");
        assert_eq!(id("42"), Some((None, Sequence(42))));
        assert_eq!(
            id("7q3k9x2m4t8vw-00000000000000000042"),
            Some((Some(epoch), Sequence(42)))
        );
        for none in ["", "-", "x-1", "7q3k9x2m4t8vw-", "+1", "7q3k9x2m4t8v-1"] {
            assert_eq!(id(none), None, "{none}");
        }
        assert!(matches!("2h".parse(), Ok(Point::Time(Time::Ago(_)))));
        assert!(matches!(
            "2026-11-21T10:00:00Z".parse(),
            Ok(Point::Time(Time::At(_)))
        ));
        assert!("yesterday".parse::<Point>().is_err());
    }
}
