//! Rules to be tried out, without a gateway around them: of a file that has only `[[rule]]`, `[[override]]`,
//! `[[device]]`, `[period.*]` and the time zone of the periods, or of a whole configuration. Reports are the same.

use std::{path::Path, sync::Arc};

use jiff::tz::TimeZone;

use super::{
    Config, Machine, Wrong,
    check::Checker,
    compose, cross,
    error::{Problem, Report},
    include, open, periods, raw, rules, site,
    texts::Texts,
    written,
};
use crate::rule::{DeviceFacts, Rule};

/// Rules and what they are about.
#[derive(Clone, Debug)]
pub struct RuleSet {
    /// `[[rule]]`, with their `[[override]]`s.
    pub rules: Vec<Arc<Rule>>,
    /// `[[device]]`.
    pub devices: Vec<DeviceFacts>,
    /// `[gateway] timezone`.
    pub timezone: TimeZone,
    /// What a person should hear about, and yet is no error: one line each, `file:line: text`.
    pub warnings: Vec<String>,
}

impl RuleSet {
    /// The rules at `path` and in what it includes.
    ///
    /// # Errors
    ///
    /// A [`Report`] of all that is wrong with them, or why they could not be read.
    pub fn load(path: &Path) -> Result<Self, Report> {
        let (texts, wrong) = include::gather(open(path)?);
        Self::read(texts, wrong)
    }

    /// The rules in `text`, which reports call `path_shown`. Standing alone, it can include nothing.
    ///
    /// # Errors
    ///
    /// A [`Report`] of all that is wrong with them.
    pub fn parse(path_shown: &str, text: &str) -> Result<Self, Report> {
        let texts = Texts::alone(path_shown, text);
        let wrong = include::refused(&texts);
        Self::read(texts, wrong)
    }

    fn read(texts: Texts, wrong: Vec<Wrong>) -> Result<Self, Report> {
        let mut checker = Checker::new(&texts);
        let read = written(&texts, wrong, &mut checker).map(|file| {
            // Without a source nobody can say whether a metric ever comes.
            if file.mqtt.is_none() && file.serial.is_empty() {
                Self::alone(&file, &mut checker)
            } else {
                compose(&file, &Machine::read(), &mut checker).into()
            }
        });
        let (problems, mut warnings) = (checker.problems, checker.warnings);
        match read {
            Some(mut read) if problems.is_empty() => {
                warnings.sort_by_key(|warning| (warning.file, warning.line));
                let plain = |warning: &Problem| warning.plain(texts.files());
                read.warnings = warnings.iter().map(plain).collect();
                Ok(read)
            }
            _ => Err(Report::new(texts, problems)),
        }
    }

    fn alone(file: &raw::File, checker: &mut Checker<'_>) -> Self {
        let timezone = site::timezone(&file.gateway.timezone, checker);
        let devices = cross::devices(&file.device, checker);
        let periods = periods::periods(&file.periods, &timezone, checker);
        let type_prefix = site::type_prefix(&file.events, checker);
        let placed = rules::rules(file, &type_prefix, &periods, checker);
        cross::labelled(&placed, &devices, checker);
        Self {
            rules: placed.into_iter().map(|placed| Arc::new(placed.rule)).collect(),
            devices,
            timezone,
            warnings: Vec::new(),
        }
    }
}

impl From<Config> for RuleSet {
    fn from(config: Config) -> Self {
        Self {
            rules: config.rules,
            devices: config.devices,
            timezone: config.gateway.timezone,
            warnings: config.warnings,
        }
    }
}
