//! `tidegate check FILE`.

use std::{
    io::{IsTerminal, Write},
    path::Path,
};

use super::{Failure, counted};
use crate::config::Config;

pub(super) fn check(path: &Path) -> Result<(), Failure> {
    let config = Config::load(path)
        .map_err(|report| Failure::Configuration(report.render(std::io::stderr().is_terminal())))?;
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
    said.map_err(|error| Failure::Failed(format!("tidegate: could not write to the terminal: {error}")))
}
