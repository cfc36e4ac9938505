//! The configuration: composes each module's settings out of one TOML file.
//!
//! A [`Config`] is right: whoever has one need not check again. What is wrong becomes a [`Report`] that names the
//! file, the line, the text and the remedy, and tells everything at once: first what is not TOML (alone), then every
//! key that is unknown, not supported yet or of the wrong shape, then every mistake in meaning, across tables.
//!
//! [`Config::load`] also looks at the files that the configuration names, as a start would: a certificate or key that
//! cannot be used is an error; a password file that cannot be read is a warning, because it is read again for every
//! connection and may come later. [`Config::parse`] looks at the text alone. Neither opens a port.
//!
//! Relative paths stay as they are written.

use std::{path::Path, sync::Arc, time::Duration};

use sha2::{Digest, Sha256};
use toml::de::DeTable;

use self::{check::Checker, error::Problem, syntax::syntax};
pub use self::{error::Report, machine::Machine, shape::closest};
use crate::{event::Labels, forward, journal, rule, source};

mod check;
mod condition;
mod cross;
mod door;
mod error;
mod files;
pub mod keys;
mod line;
mod machine;
mod metrics;
mod raw;
mod rules;
mod shape;
mod site;
mod syntax;
pub mod units;
mod uplink;

/// A configuration that is right.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[gateway] id`; none: from the board.
    pub gateway: Gateway,
    /// `[journal]`.
    pub journal: journal::Settings,
    /// `[events]`.
    pub events: Events,
    /// `[mqtt]`; none: no door.
    pub mqtt: Option<source::mqtt::Settings>,
    /// Device names ever seen.
    pub max_devices: usize,
    /// Metrics of one device.
    pub max_metrics: usize,
    /// `[[serial]]`.
    pub serial: Vec<source::serial::Settings>,
    /// `[[device]]`.
    pub devices: Vec<rule::DeviceFacts>,
    /// `[[rule]]`, with their `[[override]]`s.
    pub rules: Vec<Arc<rule::Rule>>,
    /// `[[sink.mqtt]]`: at most one for now.
    pub sinks: Vec<forward::mqtt::Settings>,
    /// What a person should hear about, and yet is no error: one line each, `file:line: text`.
    pub warnings: Vec<String>,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
}

/// `[gateway]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Gateway {
    /// The id: configured, else from the board's serial number, else the machine id.
    pub id: Arc<str>,
    /// The events' source.
    pub source: Arc<str>,
    /// Copied into every event.
    pub labels: Labels,
}

/// `[events]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Events {
    /// Gateway events not recorded.
    pub off: Vec<String>,
    /// `GatewayAlive`; none: "off".
    pub heartbeat: Option<Duration>,
    /// A reading's own time further off than this is not believed.
    pub max_clock_skew: Duration,
}

impl Config {
    /// The configuration at `path`, with this machine's defaults.
    ///
    /// # Errors
    ///
    /// A [`Report`] of all that is wrong with it, or why it could not be read.
    pub fn load(path: &Path) -> Result<Self, Report> {
        let text = Report::read(path, "the configuration")?;
        Self::read(&path.display().to_string(), &text, &Machine::read(), files::check)
    }

    /// The configuration in `text`, which reports call `path_shown`.
    ///
    /// # Errors
    ///
    /// A [`Report`] of all that is wrong with it.
    pub fn parse(path_shown: &str, text: &str, machine: &Machine) -> Result<Self, Report> {
        Self::read(path_shown, text, machine, |_, _, _| ())
    }

    fn read(path_shown: &str, text: &str, machine: &Machine, files: FileCheck) -> Result<Self, Report> {
        let mut checker = Checker::new(text);
        let built = build(text, machine, files, &mut checker);
        match built {
            Some(mut config) if checker.problems.is_empty() => {
                checker.warnings.sort_by_key(|warning| warning.line);
                config.warnings = checker
                    .warnings
                    .iter()
                    .map(|warning| warning.plain(path_shown))
                    .collect();
                Ok(config)
            }
            _ => Err(Report::new(path_shown, text, checker.problems)),
        }
    }
}

/// Looks at the files that a configuration names.
type FileCheck = fn(&raw::File, &Config, &mut Checker<'_>);

/// None if what is wrong leaves nothing to build from; otherwise right only if the checker has no problem.
fn build(text: &str, machine: &Machine, files: FileCheck, checker: &mut Checker<'_>) -> Option<Config> {
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => {
            syntax(text, &error, checker);
            return None;
        }
    };
    shape::check(document.get_ref(), checker);
    if !checker.problems.is_empty() {
        return None;
    }
    let file: raw::File = match toml::from_str(text) {
        Ok(file) => file,
        Err(error) => {
            // `shape` has looked at every key: what is left is a mistake of ours, told all the same.
            let message = error.message().trim().replace('\n', "; ");
            checker.problems.push(match error.span() {
                Some(span) => Problem::at(text, span, message),
                None => Problem::of_file(message),
            });
            return None;
        }
    };
    let config = compose(&file, text, machine, checker);
    files(&file, &config, checker);
    Some(config)
}

fn compose(file: &raw::File, text: &str, machine: &Machine, checker: &mut Checker<'_>) -> Config {
    let gateway = site::gateway(&file.gateway, machine, checker);
    let journal = site::journal(&file.journal, machine, checker);
    let events = site::events(&file.events, checker);
    let type_prefix = site::type_prefix(&file.events, checker);
    let before_sources = checker.problems.len();
    let door::Limits {
        max_devices,
        max_metrics,
    } = door::limits(file.mqtt.as_ref(), checker);
    let mut mqtt = file.mqtt.as_ref().map(|raw| door::door(raw, checker));
    let mut serial = line::lines(&file.serial, checker);
    let sources_right = checker.problems.len() == before_sources;
    let devices = cross::devices(&file.device, checker);
    let placed = rules::rules(file, &type_prefix, checker);
    let sinks = uplink::sinks(&file.sink.mqtt, &gateway.id, checker);
    // A mistake in a source would be told again of every rule that watches it.
    if sources_right {
        cross::watched(&placed, mqtt.as_ref(), &serial, &devices, checker);
    }
    cross::loops(&sinks, &file.sink.mqtt, mqtt.as_ref(), checker);
    what_is_missing(file, checker);
    let renamed = cross::renamed(&devices);
    if let Some(door) = &mut mqtt {
        door.renamed.clone_from(&renamed);
    }
    for line in &mut serial {
        line.renamed.clone_from(&renamed);
    }
    Config {
        gateway,
        journal,
        events,
        mqtt,
        max_devices,
        max_metrics,
        serial,
        devices,
        rules: placed.into_iter().map(|placed| Arc::new(placed.rule)).collect(),
        sinks,
        warnings: Vec::new(),
        sha256: hex(&Sha256::digest(text.as_bytes())),
    }
}

/// A gateway may be shipped bare; a person should hear what it cannot do.
fn what_is_missing(file: &raw::File, checker: &mut Checker<'_>) {
    let door = file.mqtt.as_ref();
    if file.serial.is_empty() && door.is_none_or(|door| door.readings.is_empty()) {
        checker.warn_file(match door {
            Some(_) => "[mqtt] has no [[mqtt.readings]]: nothing that is published there is a reading",
            None => "there is no source: no reading ever comes; add [[mqtt.readings]] or [[serial]]",
        });
    }
    if file.rule.is_empty() {
        checker.warn_file("there is no [[rule]]: no reading ever becomes an event; add one");
    } else if file.sink.mqtt.is_empty() {
        let where_to = "events stay on this gateway, in its journal and at its own door; add one";
        checker.warn_file(&format!("there is no [[sink.mqtt]]: {where_to}"));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}
