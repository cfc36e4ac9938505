//! `tidegate journal fsck`.

use std::io::{self, BufWriter, Write};

use super::{
    super::{Failure, counted, printed, table},
    Place, unreadable,
};
use crate::journal::inspect::{Check, Checked, Fault};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Fsck {
    #[command(flatten)]
    place: Place,
}

impl Fsck {
    pub fn run(self) -> Result<(), Failure> {
        let journal = self.place.look()?;
        let check = journal
            .check()
            .map_err(|error| unreadable(&journal.dir, &error))?;
        let mut out = BufWriter::new(io::stdout().lock());
        printed(tell(&check, &mut out).and_then(|()| out.flush()))?;
        match check.faults() {
            0 => Ok(()),
            faults => Err(Failure::Failed(format!(
                "tidegate: {} in {}: the gateway names what is lost (StorageDamaged, EventsDiscarded) and goes on; a \
                 card that does this twice should be replaced",
                counted(faults, "place is damaged", "places are damaged"),
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
        match check.faults() {
            0 => "no damage".to_owned(),
            faults => counted(faults, "damaged place", "damaged places"),
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
        say("DAMAGED", shown(fault));
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
    let mut text = format!("{}{}{lost}", place.unwrap_or_default(), fault.what);
    if fault.told {
        text.push_str(" (told)");
    }
    text
}
