//! `tidegate journal fsck`.

use std::{
    io::{self, BufWriter, Write},
    path::Path,
};

use serde_json::json;

use super::{
    super::{Failure, counted, printed, table},
    Format, Place, unreadable,
};
use crate::journal::inspect::{Check, Checked, Fault};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Fsck {
    #[command(flatten)]
    place: Place,
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

impl Fsck {
    pub fn run(self) -> Result<(), Failure> {
        let journal = self.place.look()?;
        let check = journal
            .check()
            .map_err(|error| unreadable(&journal.dir, &error))?;
        let mut out = BufWriter::new(io::stdout().lock());
        let said = match self.format {
            Format::Table => tell(&check, &mut out),
            Format::Json => writeln!(out, "{:#}", as_json(&journal.dir, &check)),
        };
        printed(said.and_then(|()| out.flush()))?;
        match check.untold() {
            0 => Ok(()),
            untold => Err(Failure::Failed(format!(
                "tidegate: {} in {}: the gateway names what is lost (StorageDamaged, EventsDiscarded) when it starts \
                 or comes upon it, and goes on; a card that does this twice should be replaced",
                counted(untold, "place is newly damaged", "places are newly damaged"),
                journal.dir.display()
            ))),
        }
    }
}

fn tell(check: &Check, out: &mut impl Write) -> io::Result<()> {
    let rows: Vec<[String; 3]> = check.files.iter().flat_map(rows).collect();
    table::write(&rows, "", out)?;
    writeln!(
        out,
        "\n{} frames verified, {} of them events, {}: {}",
        check.frames,
        check.events,
        table::size(check.bytes),
        match (check.faults(), check.untold()) {
            (0, _) => "no damage".to_owned(),
            (faults, 0) => format!(
                "{}, told of before",
                counted(faults, "damaged place", "damaged places")
            ),
            (faults, _) => counted(faults, "damaged place", "damaged places"),
        }
    )
}

fn rows(checked: &Checked) -> Vec<[String; 3]> {
    let mut rows = Vec::new();
    let mut say = |mark: &str, text: String| {
        let file = if rows.is_empty() {
            checked.file.clone()
        } else {
            String::new()
        };
        rows.push([file, mark.to_owned(), text]);
    };
    for fault in &checked.faults {
        say(if fault.told { "told" } else { "DAMAGED" }, shown(fault));
    }
    for remark in &checked.remarks {
        say("note", remark.clone());
    }
    if checked.faults.is_empty() && !checked.holds.is_empty() {
        say("ok", checked.holds.clone());
    }
    rows
}

fn shown(fault: &Fault) -> String {
    let place = fault.bytes.map(|(from, to)| format!("bytes {from} to {to} "));
    let lost = match fault.lost {
        Some((from, to)) if from == to => format!(": event {from} is lost"),
        Some((from, to)) => format!(": events {from} to {to} are lost"),
        None if fault.bytes.is_some() => ": no event is lost".to_owned(),
        None => String::new(),
    };
    format!("{}{}{lost}", place.unwrap_or_default(), fault.what)
}

fn as_json(dir: &Path, check: &Check) -> serde_json::Value {
    let fault = |fault: &Fault| {
        json!({
            "bytes": fault.bytes,
            "what": fault.what,
            "lost": fault.lost,
            "told": fault.told,
        })
    };
    let file = |checked: &Checked| {
        json!({
            "file": checked.file,
            "holds": checked.holds,
            "faults": checked.faults.iter().map(fault).collect::<Vec<_>>(),
            "remarks": checked.remarks,
        })
    };
    json!({
        "dir": dir.to_string_lossy(),
        "files": check.files.iter().map(file).collect::<Vec<_>>(),
        "frames": check.frames,
        "events": check.events,
        "bytes": check.bytes,
        "damaged": check.faults(),
        "untold": check.untold(),
    })
}
