//! The journal, verified as `tidegate journal fsck` does.

use std::{io, path::Path};

use super::{
    super::{counted, journal::unreadable, table::size},
    Finding,
};
use crate::journal::{self, inspect::Inspection};

const CHECK: &str = "journal";

pub(super) fn look(dir: &Path) -> Vec<Finding> {
    let shown = dir.display();
    let checked = Inspection::look(dir).and_then(|journal| Ok((journal.check()?, journal.in_use)));
    let (check, in_use) = match checked {
        Ok(checked) => checked,
        Err(journal::Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            let said = format!("none in {shown} yet: the first start makes it");
            return vec![Finding::note(CHECK, said)];
        }
        Err(error) => {
            let said = unreadable(dir, &error).to_string();
            let said = said.trim_start_matches("tidegate: ").to_owned();
            return vec![Finding::failure(
                CHECK,
                said,
                "run it as root, or as the gateway's user (tidegate)",
            )];
        }
    };
    let what = format!(
        "{shown}: {} verified, {} of events and state",
        counted(
            usize::try_from(check.events).unwrap_or(usize::MAX),
            "event",
            "events"
        ),
        size(check.bytes)
    );
    let used = in_use.map_or_else(String::new, |pid| format!(", in use by process {pid}"));
    vec![match (check.untold(), check.faults()) {
        (0, 0) => Finding::ok(CHECK, format!("{what}{used}")),
        (0, told) => Finding::note(
            CHECK,
            format!(
                "{what}{used}; {}, told of before",
                counted(told, "damaged place", "damaged places")
            ),
        ),
        (untold, _) => Finding::failure(
            CHECK,
            format!(
                "{what}{used}; {}",
                counted(untold, "place is newly damaged", "places are newly damaged")
            ),
            "tidegate journal fsck says where and what is lost; the gateway goes on without it; a card that does this \
             twice should be replaced",
        ),
    }]
}
