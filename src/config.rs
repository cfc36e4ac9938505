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
//! A configuration may include further files, with rules, overrides, devices and periods; reports name the right one.
//! [`RuleSet`] is such a part alone: rules to try out, without a gateway around them.
//!
//! Relative paths stay as they are written, but for those of `include`, which count from the file that names them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};
use toml::de::{DeTable, Deserializer};

use self::{check::Checker, error::Problem, include::Wrong, syntax::syntax, texts::Texts};
pub use self::{
    error::Report,
    machine::{Machine, directory, filesystem_bytes, state_directory},
    ruleset::RuleSet,
    shape::closest,
    sinks::Sinks,
    site::journal_size,
    texts::FileText,
};
use crate::{event::Labels, journal, rule, source};

mod check;
mod condition;
mod cross;
mod door;
mod error;
mod files;
mod include;
pub mod keys;
mod line;
mod machine;
mod metrics;
mod names;
mod overrides;
mod periods;
mod raw;
mod rules;
mod ruleset;
mod shape;
mod sinks;
mod site;
mod syntax;
mod texts;
pub mod units;
mod watched;

/// A configuration that is right.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[gateway] id`; none: from the board.
    pub gateway: Gateway,
    /// `[journal]`.
    pub journal: journal::Settings,
    /// `[journal] max-bytes` is not written: it was chosen by the filesystem's size ([`journal_size`]).
    pub is_journal_sized_by_card: bool,
    /// `[journal] checkpoint`: how much window data a crash may cost.
    pub checkpoint: Duration,
    /// `[events]`.
    pub events: Events,
    /// `[mqtt]`; none: no door.
    pub mqtt: Option<source::mqtt::Settings>,
    /// Device names ever seen.
    pub max_devices: usize,
    /// Metrics of one device.
    pub max_metrics: usize,
    /// How long a device may be silent before it is forgotten.
    pub forget_after: Duration,
    /// `[[serial]]`.
    pub serial: Vec<source::serial::Settings>,
    /// `[[device]]`.
    pub devices: Vec<rule::DeviceFacts>,
    /// `[[rule]]`, with their `[[override]]`s.
    pub rules: Vec<Arc<rule::Rule>>,
    /// Where events go.
    pub sinks: Sinks,
    /// `[recorder]`; none: off.
    pub recorder: Option<Recorder>,
    /// What a person should hear about, and yet is no error: one line each, `file:line: text`.
    pub warnings: Vec<String>,
    /// What was read: the file itself, then what it includes.
    pub files: Arc<[FileText]>,
    /// SHA-256 of all their texts, in hex.
    pub sha256: String,
}

/// `[recorder]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorder {
    /// Everything that it may occupy.
    pub max_bytes: u64,
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
    /// For periods and for devices that send local time.
    pub timezone: TimeZone,
}

/// `[events]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Events {
    /// Gateway events not recorded.
    pub off: Vec<String>,
    /// How long a lost device may be away before `DeviceDisconnected`.
    pub offline_after: Duration,
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
        let (texts, wrong) = include::gather(open(path)?);
        Self::read(texts, wrong, &Machine::read(), &files::check)
    }

    /// The same without a look at the certificate and password files that it names: for a configuration away from its
    /// gateway.
    ///
    /// # Errors
    ///
    /// A [`Report`] of all that is wrong with it, or why it could not be read.
    pub fn load_away(path: &Path) -> Result<Self, Report> {
        let (texts, wrong) = include::gather(open(path)?);
        Self::read(texts, wrong, &Machine::read(), &|_, _, _| ())
    }

    /// The configuration that `bytes` will be once they stand at `path`, with this machine's defaults. `now` says
    /// where a file lies that is not in its place yet.
    ///
    /// # Errors
    ///
    /// A [`Report`] of all that is wrong with it; it calls the configuration `path`.
    pub fn arriving(
        path: &Path,
        bytes: Vec<u8>,
        now: &dyn Fn(&Path) -> Option<PathBuf>,
    ) -> Result<Self, Report> {
        let text = Report::text(path, bytes)?;
        let (texts, wrong) = include::gather(FileText {
            path: path.to_owned(),
            text,
        });
        Self::read(texts, wrong, &Machine::read(), &|file, config, checker| {
            let mut config = config.clone();
            config.sinks.move_files(now);
            files::check(file, &config, checker);
        })
    }

    /// The configuration that `files` are, the main one first and those that it includes behind it, with this
    /// machine's defaults. Their `include`s are not followed again.
    ///
    /// # Errors
    ///
    /// A [`Report`] of all that is wrong with it.
    pub fn of_files(files: Vec<FileText>) -> Result<Self, Report> {
        let mut files = files.into_iter();
        let main = files.next().unwrap_or_else(|| FileText {
            path: "nothing".into(),
            text: String::new(),
        });
        let mut texts = Texts::new(main);
        files.for_each(|file| texts.push(file));
        Self::read(texts, Vec::new(), &Machine::read(), &files::check)
    }

    /// The configuration in `text`, which reports call `path_shown`. Standing alone, it can include nothing.
    ///
    /// # Errors
    ///
    /// A [`Report`] of all that is wrong with it.
    pub fn parse(path_shown: &str, text: &str, machine: &Machine) -> Result<Self, Report> {
        let texts = Texts::alone(path_shown, text);
        let wrong = include::refused(&texts);
        Self::read(texts, wrong, machine, &|_, _, _| ())
    }

    fn read(
        texts: Texts,
        wrong: Vec<Wrong>,
        machine: &Machine,
        files: &FileCheck<'_>,
    ) -> Result<Self, Report> {
        let mut checker = Checker::new(&texts);
        let config = written(&texts, wrong, &mut checker).map(|file| {
            let config = compose(&file, machine, &mut checker);
            files(&file, &config, &mut checker);
            config
        });
        let Checker {
            problems,
            mut warnings,
            ..
        } = checker;
        match config {
            Some(mut config) if problems.is_empty() => {
                warnings.sort_by_key(|warning| (warning.file, warning.line));
                let plain = |warning: &Problem| warning.plain(texts.files());
                config.warnings = warnings.iter().map(plain).collect();
                config.files = texts.into_files().into();
                let mut sha256 = Sha256::new();
                config.files.iter().for_each(|file| sha256.update(&file.text));
                config.sha256 = hex(&sha256.finalize());
                Ok(config)
            }
            _ => Err(Report::new(texts, problems)),
        }
    }
}

/// The text at `path`.
fn open(path: &Path) -> Result<FileText, Report> {
    let text = Report::read(path, "the configuration")?;
    Ok(FileText {
        path: path.to_owned(),
        text,
    })
}

/// Looks at the files that a configuration names.
type FileCheck<'c> = dyn Fn(&raw::File, &Config, &mut Checker<'_>) + 'c;

/// What all files say together; `wrong` is what their includes have. None, reported: what is wrong leaves nothing to
/// build from.
fn written(texts: &Texts, wrong: Vec<Wrong>, checker: &mut Checker<'_>) -> Option<raw::File> {
    for (span, message) in wrong {
        checker.wrong(span, message);
    }
    let mut all: Option<raw::File> = None;
    for text in texts.padded() {
        let known = if all.is_none() {
            &keys::FILE
        } else {
            &keys::INCLUDED
        };
        let file = one(&text, known, checker).unwrap_or_default();
        match &mut all {
            None => all = Some(file),
            Some(all) => all.absorb(file),
        }
    }
    all.filter(|_| checker.problems.is_empty())
}

/// One file, behind its blanks.
fn one(text: &str, known: &'static keys::Table, checker: &mut Checker<'_>) -> Option<raw::File> {
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => {
            syntax(text, &error, checker);
            return None;
        }
    };
    let before = checker.problems.len();
    shape::check(known, document.get_ref(), checker);
    if checker.problems.len() > before {
        return None;
    }
    match serde::Deserialize::deserialize(Deserializer::from(document)) {
        Ok(file) => Some(raw::File::list_periods(file)),
        Err(error) => {
            // `shape` has looked at every key: what is left is a mistake of ours, told all the same.
            let error: toml::de::Error = error;
            let message = error.message().trim().replace('\n', "; ");
            match error.span() {
                Some(span) => checker.wrong(span, message),
                None => checker.wrong_file(&message),
            }
            None
        }
    }
}

fn compose(file: &raw::File, machine: &Machine, checker: &mut Checker<'_>) -> Config {
    let gateway = site::gateway(&file.gateway, machine, checker);
    let journal = site::journal(&file.journal, machine, checker);
    let checkpoint = site::checkpoint(&file.journal, checker);
    let events = site::events(&file.events, checker);
    let type_prefix = site::type_prefix(&file.events, checker);
    let before_sources = checker.problems.len();
    let door::Limits {
        max_devices,
        max_metrics,
        forget_after,
    } = door::limits(file.mqtt.as_ref(), checker);
    let mut mqtt = file.mqtt.as_ref().map(|raw| door::door(raw, checker));
    let mut serial = line::lines(&file.serial, checker);
    let sources_right = checker.problems.len() == before_sources;
    let devices = cross::devices(&file.device, checker);
    let periods = periods::periods(&file.periods, &gateway.timezone, checker);
    let placed = rules::rules(file, &type_prefix, &periods, checker);
    let sinks = sinks::sinks(&file.sink, &gateway.id, checker);
    // A mistake in a source would be told again of every rule and sink that looks at it.
    let mut known = None;
    if sources_right {
        known = cross::known_devices(mqtt.as_ref(), &serial);
        cross::watched(&placed, mqtt.as_ref(), &serial, known.as_ref(), checker);
        cross::labelled(&placed, &devices, checker);
    }
    cross::expected(&file.device, &placed, &devices, checker);
    cross::forgotten(&placed, forget_after, &devices, &serial, checker);
    sinks::matched(&file.sink, &placed, known.as_ref(), checker);
    cross::loops(&sinks.mqtt, &file.sink.mqtt, mqtt.as_ref(), checker);
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
        is_journal_sized_by_card: file.journal.max_bytes.is_none(),
        checkpoint,
        events,
        mqtt,
        max_devices,
        max_metrics,
        forget_after,
        serial,
        devices,
        rules: placed.into_iter().map(|placed| Arc::new(placed.rule)).collect(),
        sinks,
        recorder: site::recorder(file.recorder.as_ref(), checker),
        warnings: Vec::new(),
        files: Arc::default(),
        sha256: String::new(),
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
    } else if file.sink.mqtt.is_empty() && file.sink.http.is_empty() {
        let where_to = "events stay on this gateway, in its journal and at its own door; add one";
        checker.warn_file(&format!("there is no [[sink.mqtt]] or [[sink.http]]: {where_to}"));
    }
}

/// In hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}
