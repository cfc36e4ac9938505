//! `tidegate journal show`.

use std::io::{self, Write};

use serde_json::{Value as Json, json};

use super::{
    super::{Failure, printed},
    Place, id, place_of, unreadable,
};
use crate::{
    event::{Entry, Epoch, Sequence, cloudevents},
    journal::inspect::{Found, Inspection, SinkFacts},
    time::ClockQuality,
};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Show {
    /// The event's number in the current epoch (42), or its id (7q3k9x2m4t8vw-00000000000000000042).
    #[arg(value_name = "SEQ|ID", value_parser = |text: &str| id(text).ok_or("a number like 42, or an event's id"))]
    event: (Option<Epoch>, Sequence),
    #[command(flatten)]
    place: Place,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people: where it stands and who has it, then the event.
    Text,
    /// All of it as one JSON object.
    Json,
}

impl Show {
    pub fn run(self) -> Result<(), Failure> {
        let journal = self.place.look()?;
        let (epoch, sequence) = self.event;
        let kept = journal.epochs.get(place_of(&journal, epoch)?);
        let Some(kept) = kept else {
            return Err(Failure::Failed("tidegate: the journal has no events".to_owned()));
        };
        let failed = |error| unreadable(&journal.dir, &error);
        let letters = journal.dead_letters();
        let is_it = |entry: &Entry| (entry.epoch, entry.sequence) == (kept.epoch, sequence);
        let letters: Vec<_> = letters.iter().filter(|letter| is_it(&letter.entry)).collect();
        let found = match journal.find(kept.epoch, sequence).map_err(failed)? {
            // Its segment may be gone.
            None => letters.first().map(|letter| Found {
                entry: letter.entry.clone(),
                file: "among the dead letters".to_owned(),
                offset: 0,
                length: 0,
            }),
            found => found,
        };
        let Some(found) = found else {
            let (first, last) = kept.events();
            let (epoch, number) = (kept.epoch, sequence.0);
            let why = if sequence < first {
                format!("it is no longer kept: the oldest event is {}", first.0)
            } else if sequence > last {
                format!("the newest event is {}", last.0)
            } else {
                "its number was skipped, or it is damaged: an EventsDiscarded names it, `tidegate journal fsck` says which"
                    .to_owned()
            };
            return Err(Failure::Failed(format!(
                "tidegate: there is no event {epoch}-{number}: {why}"
            )));
        };
        let sinks = journal.sinks().map_err(failed)?;
        let stands = |sink: &SinkFacts| {
            if letters.iter().any(|letter| letter.sink == sink.name) {
                "set aside"
            } else if sink.cursor.position >= found.entry.position {
                "passed"
            } else {
                "waiting"
            }
        };
        let has: Vec<_> = sinks
            .iter()
            .map(|sink| (sink.name.to_string(), stands(sink)))
            .collect();
        // As a sink without a filter gets it.
        let previous = Sequence(sequence.0.saturating_sub(1));
        let event = cloudevents::render_pretty(&found.entry, previous);
        let mut out = io::stdout().lock();
        printed(match self.format {
            Format::Text => tell(&journal, &found, &has, &event, &mut out),
            Format::Json => {
                let sinks: serde_json::Map<String, Json> =
                    has.iter().map(|(name, has)| (name.clone(), json!(has))).collect();
                let all = json!({
                    "file": found.file,
                    "offset": found.offset,
                    "length": found.length,
                    "sinks": sinks,
                    "event": serde_json::from_str::<Json>(&event).unwrap_or_default(),
                });
                writeln!(out, "{all:#}")
            }
        })
    }
}

fn tell(
    journal: &Inspection,
    found: &Found,
    has: &[(String, &str)],
    event: &str,
    out: &mut impl Write,
) -> io::Result<()> {
    let (offset, length) = (found.offset, found.length);
    let file = journal.dir.join(&found.file);
    if length == 0 {
        writeln!(out, "where   {}: its segment is no longer kept", found.file)?;
    } else {
        writeln!(out, "where   {} at byte {offset}, {length} bytes", file.display())?;
    }
    let clock = match found.entry.event.recorded.quality {
        ClockQuality::Synchronised => "the clock was right",
        ClockQuality::Corrected => "the clock was not right then; the time was corrected later",
        ClockQuality::Unknown => "the clock of that boot was never known to be right: an estimate",
    };
    writeln!(out, "stored  {} ({clock})", found.entry.event.recorded.wall)?;
    let names = |wanted: &str| {
        let names: Vec<&str> = has
            .iter()
            .filter(|(_, has)| *has == wanted)
            .map(|(name, _)| name.as_str())
            .collect();
        if names.is_empty() {
            "-".to_owned()
        } else {
            names.join(", ")
        }
    };
    writeln!(out, "passed  {}", names("passed"))?;
    writeln!(out, "waiting {}", names("waiting"))?;
    if has.iter().any(|(_, has)| *has == "set aside") {
        writeln!(out, "refused {} (a dead letter)", names("set aside"))?;
    }
    writeln!(out)?;
    writeln!(out, "{event}")
}
