//! `tidegate journal dead`: events that a sink refused for good.

use std::{
    collections::BTreeSet,
    io::{self, BufWriter, Write},
};

use serde_json::json;

use super::{
    super::{Failure, SOCKET, Socket, printed, table},
    Format, Place,
    change::say,
    unreadable,
};
use crate::{
    control::Request,
    journal::{DeadLetter, inspect::Inspection},
};

#[derive(Debug, clap::Subcommand)]
pub(in crate::cli) enum Command {
    /// List them: whose, which event, what the sink said. `tidegate journal show ID` shows the event.
    Ls(Ls),
    /// Send them again, each under its own identity, when its sink takes something.
    ///
    /// What is delivered goes from the list; what is refused once more stays.
    #[command(after_help = SOCKET)]
    Resend(Chosen),
    /// Give them up. `EventsDiscarded` tells the sink's receiver that they will not come.
    #[command(after_help = SOCKET)]
    Drop(Chosen),
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Ls {
    /// Of this sink only.
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
    #[command(flatten)]
    place: Place,
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Chosen {
    /// The sink.
    #[arg(long, value_name = "NAME")]
    sink: String,
    /// The events' ids, as `ls` lists them.
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    events: Vec<String>,
    /// All of the sink's.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    socket: Socket,
}

impl Command {
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Self::Ls(ls) => ls.run(),
            Self::Resend(Chosen {
                sink, events, socket, ..
            }) => say(socket, &Request::DeadResend { sink, events }),
            Self::Drop(Chosen {
                sink, events, socket, ..
            }) => say(socket, &Request::DeadDrop { sink, events }),
        }
    }
}

impl Ls {
    fn run(self) -> Result<(), Failure> {
        let journal = self.place.look()?;
        let mut letters = journal.dead_letters();
        if let Some(sink) = &self.sink {
            letters.retain(|letter| letter.sink.as_str() == sink);
            if letters.is_empty() {
                is_known(&journal, sink)?;
            }
        }
        let mut out = BufWriter::new(io::stdout().lock());
        let said = match self.format {
            Format::Table => tell(&letters, &mut out),
            Format::Json => {
                let letters: Vec<_> = letters.iter().map(as_json).collect();
                writeln!(out, "{:#}", json!(letters))
            }
        };
        printed(said.and_then(|()| out.flush()))
    }
}

/// What a misspelt name hides must not look like nothing.
fn is_known(journal: &Inspection, sink: &str) -> Result<(), Failure> {
    let sinks = journal
        .sinks()
        .map_err(|error| unreadable(&journal.dir, &error))?;
    let mut names: BTreeSet<String> = sinks.iter().map(|facts| facts.name.to_string()).collect();
    names.extend(
        journal
            .dead_letters()
            .iter()
            .map(|letter| letter.sink.to_string()),
    );
    if names.contains(sink) {
        return Ok(());
    }
    let names: Vec<String> = names.into_iter().collect();
    Err(Failure::Failed(format!(
        "tidegate: the journal knows no sink {sink:?}; there are: {}",
        names.join(", ")
    )))
}

fn id(letter: &DeadLetter) -> String {
    format!("{}-{}", letter.entry.epoch, letter.entry.sequence)
}

fn tell(letters: &[DeadLetter], out: &mut impl Write) -> io::Result<()> {
    if letters.is_empty() {
        return writeln!(out, "nothing is set aside");
    }
    let head = ["SINK", "EVENT", "NAME", "ABOUT", "SINCE", "REFUSED", "REASON"].map(str::to_owned);
    let row = |letter: &DeadLetter| {
        let draft = &letter.entry.event.draft;
        let again = if letter.resend { " (is sent again)" } else { "" };
        [
            letter.sink.to_string(),
            id(letter),
            draft.name.to_string(),
            draft.about.to_string(),
            letter.at.wall.to_string(),
            format!("{}x", letter.attempts),
            format!("{}{again}", letter.reason),
        ]
    };
    let rows: Vec<_> = std::iter::once(head).chain(letters.iter().map(row)).collect();
    table::write(&rows, "", out)
}

fn as_json(letter: &DeadLetter) -> serde_json::Value {
    let draft = &letter.entry.event.draft;
    json!({
        "sink": letter.sink.to_string(),
        "event": id(letter),
        "type": &*draft.kind,
        "subject": &*draft.subject,
        "since": letter.at.wall.to_string(),
        "attempts": letter.attempts,
        "reason": letter.reason,
        "resend": letter.resend,
    })
}
