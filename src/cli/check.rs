//! `tidegate check FILE`.

use std::{io::Write, path::Path};

use super::{Failure, configuration, counted, printed};

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
                "{}: right: {}, {}, {}",
                path.display(),
                counted(config.rules.len(), "rule", "rules"),
                counted(
                    config.serial.len() + usize::from(config.mqtt.is_some()),
                    "source",
                    "sources"
                ),
                counted(config.sinks.terms().count(), "sink", "sinks"),
            )
        });
    printed(said)
}
