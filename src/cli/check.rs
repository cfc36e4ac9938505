//! `tidegate check FILE`.

use std::{io::Write, path::Path};

use super::{Failure, configuration, counted, printed, table::size};

pub(super) fn check(path: &Path) -> Result<(), Failure> {
    let config = configuration(path)?;
    let mut out = std::io::stdout().lock();
    let said = config
        .warnings
        .iter()
        .try_for_each(|warning| writeln!(out, "warning: {warning}"))
        .and_then(|()| {
            writeln!(
                out,
                "{}: right: {}, {}, {}; the journal may take {}{}",
                path.display(),
                counted(config.rules.len(), "rule", "rules"),
                counted(
                    config.serial.len() + usize::from(config.mqtt.is_some()),
                    "source",
                    "sources"
                ),
                counted(config.sinks.terms().count(), "sink", "sinks"),
                size(config.journal.max_bytes),
                if config.is_journal_sized_by_card {
                    " (5 % of its filesystem, 64 MiB to 1 GiB: max-bytes is not set)"
                } else {
                    ""
                },
            )
        });
    printed(said)
}
