//! The report that lies beside the files: for somebody with the card in a laptop and no console.

use std::{fmt, path::Path};

use super::{FOLDER, MAIN, Obstacle, Verdict, brought::Brought};
use crate::{
    config::Config,
    time::{ClockQuality, Moment},
};

/// What is worth telling of a configuration that was installed.
#[derive(Debug)]
pub(super) struct Installed {
    id: String,
    /// The configuration names none.
    id_made: bool,
    rules: usize,
    sources: usize,
    sinks: usize,
    warnings: Vec<String>,
    /// From where, to where.
    files: Vec<(String, String)>,
}

impl Installed {
    pub fn of(config: &Config, brought: &Brought, configuration: &Path) -> Self {
        let directory = configuration.parent().unwrap_or(Path::new("."));
        let shown = configuration.display().to_string();
        let folder = brought.files.iter().map(|file| {
            let to = directory.join(&file.name).display().to_string();
            (format!("{FOLDER}/{}", file.name), to)
        });
        let text = config.files.first().map_or("", |file| file.text.as_str());
        let text = text.trim_start_matches('\u{feff}');
        let named = |table: &toml::Table| table.get("gateway")?.get("id").map(|_| ());
        Self {
            id: config.gateway.id.to_string(),
            id_made: toml::from_str(text).ok().as_ref().and_then(named).is_none(),
            rules: config.rules.len(),
            sources: config.serial.len() + usize::from(config.mqtt.is_some()),
            sinks: config.sinks.terms().count(),
            warnings: config
                .warnings
                .iter()
                .map(|warning| match warning.strip_prefix(&shown) {
                    Some(rest) => format!("{MAIN}{rest}"),
                    None => warning.clone(),
                })
                .collect(),
            files: [(MAIN.to_owned(), shown.clone())]
                .into_iter()
                .chain(folder)
                .collect(),
        }
    }
}

/// What became of it, and the report that says so.
pub(super) fn write(now: Moment, done: Result<Installed, Obstacle>) -> (Verdict, String) {
    let verdict = match &done {
        Ok(_) => Verdict::Installed,
        Err(Obstacle::Missing(_)) => Verdict::Missing,
        Err(Obstacle::Wrong(_)) => Verdict::Refused,
        Err(Obstacle::Failed(_)) => Verdict::Failed,
    };
    let report = Report { now, done }.to_string();
    (verdict, report)
}

struct Report {
    now: Moment,
    done: Result<Installed, Obstacle>,
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = env!("CARGO_PKG_VERSION");
        let result = match &self.done {
            Ok(_) => "INSTALLED",
            Err(Obstacle::Missing(_)) => "NOTHING FOUND",
            Err(Obstacle::Wrong(_)) => "REFUSED",
            Err(Obstacle::Failed(_)) => "FAILED",
        };
        writeln!(out, "Tidegate {version}, first boot: {result}\n")?;
        write!(out, "Time: {}", self.now.wall)?;
        if self.now.quality == ClockQuality::Unknown {
            write!(out, " (an estimate: nobody has set the clock yet)")?;
        }
        writeln!(out, "\n")?;
        match &self.done {
            Ok(installed) => installed.fmt(out),
            Err(Obstacle::Missing(wrong) | Obstacle::Wrong(wrong)) => write!(
                out,
                "Nothing was changed: the gateway runs with the configuration that it had before.\n\
                 \n\
                 {wrong}\n\
                 What to do next: mend what the lines above name, save, and switch the board off and on with this card.\n\
                 This report is then written anew.\n"
            ),
            Err(Obstacle::Failed(failed)) => write!(
                out,
                "{failed}\n\
                 \n\
                 What to do next: that done, switch the board off and on with this card: it is tried again at every\n\
                 start. If the same stands here again, take another card.\n"
            ),
        }
    }
}

impl fmt::Display for Installed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let made = if self.id_made {
            format!(" (made of this machine's number, because {MAIN} has none)")
        } else {
            String::new()
        };
        writeln!(out, "Gateway id: {}{made}", self.id)?;
        writeln!(
            out,
            "Rules: {}, sources: {}, sinks: {}\n\nFiles:",
            self.rules, self.sources, self.sinks
        )?;
        for (from, to) in &self.files {
            writeln!(out, "  {from} is now {to}")?;
        }
        if !self.warnings.is_empty() {
            writeln!(out, "\nWarnings:")?;
            for warning in &self.warnings {
                writeln!(out, "  {warning}")?;
            }
        }
        write!(
            out,
            "\n\
             What to do next:\n\
             - The gateway needs {MAIN} and the folder {FOLDER} on this partition no longer. If there are passwords or\n  \
               keys in them, delete them here: whoever holds the card can read them. Keep a copy elsewhere.\n\
             - To change something, put the changed {MAIN} here, with all files it needs in {FOLDER}, and switch the\n  \
               board off and on. Files that are as they were at the last time are not installed again.\n"
        )
    }
}
