//! `tidegate journal export`.

use std::{
    io::{self, BufWriter, Write},
    ops::ControlFlow,
};

use super::{
    super::{Failure, printed},
    Place, Point, Range, unreadable, warn_of,
};
use crate::{
    event::{
        Sequence,
        cloudevents::{Encoding, Form, message},
    },
    journal::inspect::Inspection,
};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Export {
    #[command(flatten)]
    place: Place,
    /// From this event on: its number in the current epoch or its id, or what was stored since a time
    /// (2026-11-21T10:00:00Z) or for so long (2h).
    #[arg(long, value_name = "SEQ|ID|TIME")]
    from: Option<Point>,
    /// Up to this event, which is included, or what was stored before a time.
    #[arg(long, value_name = "SEQ|ID|TIME")]
    to: Option<Point>,
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// One event as JSON a line.
    Jsonl,
    /// Events as CBOR, one behind the other (a CBOR sequence, RFC 8742).
    Cbor,
}

impl Export {
    pub fn run(self) -> Result<(), Failure> {
        let journal = self.place.look()?;
        let range = Range::of(&journal, self.from, self.to)?;
        let mut out = BufWriter::new(io::stdout().lock());
        let mut said = Ok(());
        let unread = journal
            .events(range.after, |found| {
                said = write(&journal, range, &found.entry, self.format, &mut out);
                if said.is_ok() {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })
            .map_err(|error| unreadable(&journal.dir, &error))?;
        printed(said.and_then(|()| out.flush()))?;
        warn_of(&unread);
        Ok(())
    }
}

fn write(
    journal: &Inspection,
    range: Range,
    entry: &crate::event::Entry,
    format: Format,
    out: &mut impl Write,
) -> io::Result<()> {
    let place = journal.epochs.iter().position(|kept| kept.epoch == entry.epoch);
    if !range.has(place.unwrap_or(0), entry.sequence, entry.event.recorded.wall) {
        return Ok(());
    }
    let encoding = match format {
        Format::Jsonl => Encoding::Json,
        Format::Cbor => Encoding::Cbor,
    };
    let form = Form {
        encoding,
        ..Form::default()
    };
    // As a sink without a filter gets it.
    let previous = Sequence(entry.sequence.0.saturating_sub(1));
    out.write_all(&message(entry, previous, form).payload)?;
    if format == Format::Jsonl {
        out.write_all(b"\n")?;
    }
    Ok(())
}
