//! `tidegate catalog`.

use std::{io::Write, path::Path};

use clap::ValueEnum;

use super::{Failure, printed, wrong};
use crate::{
    catalog::{self, Catalog},
    config::Config,
};

/// What the catalog is printed as.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Format {
    /// An AsyncAPI 3.0 document in JSON, which is YAML too.
    Asyncapi,
    /// A JSON Schema of an event in structured JSON mode.
    JsonSchema,
    /// For people.
    Markdown,
}

pub(super) fn catalog(path: &Path, format: Format) -> Result<(), Failure> {
    let config = Config::load_away(path).map_err(|report| wrong(&report))?;
    let catalog = Catalog::of(&config);
    let text = match format {
        Format::Asyncapi => format!("{:#}\n", catalog::asyncapi(&catalog)),
        Format::JsonSchema => format!("{:#}\n", catalog::json_schema(&catalog)),
        Format::Markdown => catalog::markdown(&catalog),
    };
    printed(std::io::stdout().write_all(text.as_bytes()))
}
