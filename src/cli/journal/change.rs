//! What changes a journal: `tidegate journal replay` and `forget` ask the running gateway, `new-epoch` wants it
//! stopped.

use std::io::{self, Write};

use super::{
    super::{Failure, SOCKET, Socket, asked, printed, recorded::Span},
    Place, Point,
};
use crate::{
    control::{Done, Request, Start},
    journal,
};

#[derive(Debug, clap::Args)]
#[command(after_help = SOCKET)]
pub(in crate::cli) struct Replay {
    /// The sink, by its name in the configuration.
    #[arg(long, value_name = "NAME")]
    sink: String,
    /// From this event on: its number in the current epoch or its id, or the first that was stored since a time
    /// (2026-11-21T10:00:00Z) or for so long (2h). If it is no longer kept, from the next one that is.
    #[arg(long, value_name = "SEQ|ID|TIME")]
    from: Point,
    #[command(flatten)]
    socket: Socket,
}

impl Replay {
    pub fn run(self) -> Result<(), Failure> {
        let from = match self.from {
            Point::Event(epoch, sequence) => Start::Event {
                epoch: epoch.map(|epoch| epoch.to_string()),
                sequence: sequence.0,
            },
            Point::Time(time) => Start::Stored(Span::of(Some(time), None).from.to_string()),
        };
        let sink = self.sink;
        say(self.socket, &Request::Replay { sink, from })
    }
}

#[derive(Debug, clap::Args)]
#[command(after_help = SOCKET)]
pub(in crate::cli) struct Forget {
    /// The sink's name.
    #[arg(value_name = "NAME")]
    sink: String,
    #[command(flatten)]
    socket: Socket,
}

impl Forget {
    pub fn run(self) -> Result<(), Failure> {
        say(self.socket, &Request::ForgetSink { sink: self.sink })
    }
}

pub(super) fn say(socket: Socket, request: &Request) -> Result<(), Failure> {
    let done: Done = asked(&socket.found(), request)?;
    printed(writeln!(io::stdout().lock(), "{}", done.said))
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct NewEpoch {
    #[command(flatten)]
    place: Place,
}

impl NewEpoch {
    pub fn run(self) -> Result<(), Failure> {
        let dir = self.place.dir()?;
        let ended = journal::end_epoch(&dir).map_err(|error| match error {
            journal::Error::Locked { pid, .. } => Failure::Failed(format!(
                "tidegate: the journal {} is in use by process {pid}: stop the gateway first (systemctl stop tidegate)",
                dir.display()
            )),
            error => Failure::failed(&error),
        })?;
        printed(writeln!(
            io::stdout().lock(),
            "epoch {ended} is over: the next start begins a new one, and delivers what the old one still owes under its own \
             identity"
        ))
    }
}
