//! `tidegate journal ls`.

use std::io::{self, BufWriter, Write};

use serde_json::json;

use super::{
    super::{
        Failure, printed,
        table::{self, age, size},
    },
    Format, Place, unreadable,
};
use crate::{
    journal::inspect::{Inspection, Kept, SegmentFacts, SinkFacts},
    time::{Clock, Timestamp},
};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Ls {
    #[command(flatten)]
    place: Place,
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

impl Ls {
    pub fn run(self) -> Result<(), Failure> {
        let journal = self.place.look()?;
        let failed = |error| unreadable(&journal.dir, &error);
        let sinks = journal.sinks().map_err(failed)?;
        let mut epochs = Vec::new();
        for kept in &journal.epochs {
            epochs.push((kept, journal.segments(kept).map_err(failed)?));
        }
        let now = Clock::system().moment().wall;
        let mut out = BufWriter::new(io::stdout().lock());
        let said = match self.format {
            Format::Table => tell(&journal, &epochs, &sinks, now, &mut out),
            Format::Json => serde_json::to_writer_pretty(&mut out, &as_json(&journal, &epochs, &sinks))
                .map_err(io::Error::from)
                .and_then(|()| writeln!(out)),
        };
        printed(said.and_then(|()| out.flush()))
    }
}

type Epochs<'a> = [(&'a Kept, Vec<SegmentFacts>)];

fn tell(
    journal: &Inspection,
    epochs: &Epochs<'_>,
    sinks: &[SinkFacts],
    now: Timestamp,
    out: &mut impl Write,
) -> io::Result<()> {
    let used = match &journal.in_use {
        Some(pid) => format!("in use by process {pid}"),
        None => "not in use".to_owned(),
    };
    let (dir, bytes) = (journal.dir.display(), size(journal.occupied()));
    writeln!(out, "{dir}: {bytes}, {used}")?;
    for (kept, segments) in epochs {
        writeln!(out)?;
        epoch(kept, journal.in_use.is_some(), out)?;
        let mut rows = Vec::new();
        for facts in segments {
            let events = match facts.events {
                Some((first, last)) => [first.0.to_string(), last.0.to_string()],
                None => ["-".to_owned(), "-".to_owned()],
            };
            let [first, last] = events;
            let seconds = u64::try_from((now.0 - facts.since.0) / 1_000_000).unwrap_or(0);
            rows.push([
                facts.file.clone(),
                first,
                last,
                facts.since.to_string(),
                age(seconds),
                format!("{} of {}", size(facts.filled), size(facts.size)),
            ]);
        }
        if !rows.is_empty() {
            let head = ["SEGMENT", "FIRST", "LAST", "SINCE", "AGE", "FILLED"].map(str::to_owned);
            rows.insert(0, head);
        }
        table::write(&rows, "  ", out)?;
    }
    writeln!(out)?;
    if sinks.is_empty() {
        writeln!(out, "no sink is known")?;
    } else {
        let head = ["SINK", "HAS ALL UP TO", "BEHIND", "BYTES"].map(str::to_owned);
        let rows: Vec<_> = std::iter::once(head).chain(sinks.iter().map(sink)).collect();
        table::write(&rows, "", out)?;
    }
    for (name, bytes) in &journal.beside {
        writeln!(out, "{name}: {}, put aside", size(*bytes))?;
    }
    Ok(())
}

fn epoch(kept: &Kept, in_use: bool, out: &mut impl Write) -> io::Result<()> {
    write!(out, "{}: epoch {}", name(kept), kept.epoch)?;
    if let Some(owner) = &kept.owner {
        write!(out, " of {}, begun {}", owner.gateway, owner.created)?;
    }
    match (kept.events(), &kept.unreadable) {
        (_, Some(why)) => write!(out, "; {why}")?,
        ((first, last), None) if first <= last => write!(out, "; events {} to {}", first.0, last.0)?,
        _ => write!(out, "; no event")?,
    }
    if !in_use && kept.unreadable.is_none() && !kept.is_closed() && kept.name == "current" {
        write!(out, "; not closed: killed, or its power was cut")?;
    }
    writeln!(out)
}

fn name(kept: &Kept) -> &str {
    if kept.name.is_empty() { "." } else { &kept.name }
}

fn sink(facts: &SinkFacts) -> [String; 4] {
    let newest = facts
        .newest
        .map(|(epoch, sequence)| format!("{epoch}-{sequence}"));
    let events = match facts.events {
        0 => "-".to_owned(),
        1 => "1 event".to_owned(),
        events => format!("{events} events"),
    };
    let bytes = if facts.events == 0 {
        "-".to_owned()
    } else {
        size(facts.bytes)
    };
    let none = || "-".to_owned();
    [facts.name.to_string(), newest.unwrap_or_else(none), events, bytes]
}

fn as_json(journal: &Inspection, epochs: &Epochs<'_>, sinks: &[SinkFacts]) -> serde_json::Value {
    let segment = |facts: &SegmentFacts| {
        json!({
            "file": facts.file,
            "number": facts.number,
            "first": facts.events.map(|(first, _)| first.0),
            "last": facts.events.map(|(_, last)| last.0),
            "since": facts.since.to_string(),
            "filled_bytes": facts.filled,
            "bytes": facts.size,
        })
    };
    let epoch = |(kept, segments): &(&Kept, Vec<SegmentFacts>)| {
        let (first, last) = kept.events();
        json!({
            "directory": name(kept),
            "epoch": kept.epoch.to_string(),
            "gateway": kept.owner.as_ref().map(|owner| &owner.gateway),
            "machine_id": kept.owner.as_ref().map(|owner| &owner.machine_id),
            "board_serial": kept.owner.as_ref().map(|owner| &owner.board_serial),
            "created": kept.owner.as_ref().map(|owner| owner.created.to_string()),
            "first": first.0,
            "last": last.0,
            "closed": kept.is_closed(),
            "unreadable": kept.unreadable,
            "spares": kept.spares(),
            "segments": segments.iter().map(segment).collect::<Vec<_>>(),
        })
    };
    let sink = |facts: &SinkFacts| {
        json!({
            "name": facts.name.to_string(),
            "epoch": facts.newest.map(|(epoch, _)| epoch.to_string()),
            "sequence": facts.newest.map(|(_, sequence)| sequence.0),
            "behind_events": facts.events,
            "behind_bytes": facts.bytes,
        })
    };
    let beside = journal.beside.iter();
    json!({
        "directory": journal.dir.to_string_lossy(),
        "bytes": journal.occupied(),
        "in_use_by": journal.in_use,
        "epochs": epochs.iter().map(epoch).collect::<Vec<_>>(),
        "sinks": sinks.iter().map(sink).collect::<Vec<_>>(),
        "aside": beside.map(|(name, bytes)| json!({ "name": name, "bytes": bytes })).collect::<Vec<_>>(),
    })
}
