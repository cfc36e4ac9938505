//! Rules alone, to be tried out: a file with only `[[rule]]`, `[[override]]`, `[[device]]`, `[period.*]`, and the time
//! zone of the periods. Reports are those of a whole configuration.

use std::{path::Path, sync::Arc};

use jiff::tz::TimeZone;

use super::{
    Wrong, alone,
    check::Checker,
    cross,
    error::{Problem, Report},
    include, keys, open, periods, rules, site,
    texts::Texts,
    written,
};
use crate::rule::{DeviceFacts, Rule};

/// Rules and what they are about. No sources: whether a metric ever comes is not asked.
#[derive(Clone, Debug)]
pub struct RuleSet {
    /// `[[rule]]`, with their `[[override]]`s.
    pub rules: Vec<Arc<Rule>>,
    /// `[[device]]`.
    pub devices: Vec<DeviceFacts>,
    /// `[gateway] timezone`, which is all of this table that there may be.
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
        let texts = alone(path_shown, text);
        let wrong = include::refused(&texts);
        Self::read(texts, wrong)
    }

    fn read(texts: Texts, wrong: Vec<Wrong>) -> Result<Self, Report> {
        let mut checker = Checker::new(&texts);
        let read = written(&texts, wrong, &keys::RULE_SET, &mut checker).map(|file| {
            let timezone = site::timezone(&file.gateway.timezone, &mut checker);
            let devices = cross::devices(&file.device, &mut checker);
            let periods = periods::periods(&file.periods, &timezone, &mut checker);
            let type_prefix = site::type_prefix(&file.events, &mut checker);
            let placed = rules::rules(&file, &type_prefix, &periods, &mut checker);
            cross::labelled(&placed, &devices, &mut checker);
            Self {
                rules: placed.into_iter().map(|placed| Arc::new(placed.rule)).collect(),
                devices,
                timezone,
                warnings: Vec::new(),
            }
        });
        let (problems, warnings) = (checker.problems, checker.warnings);
        match read {
            Some(mut read) if problems.is_empty() => {
                let plain = |warning: &Problem| warning.plain(texts.files());
                read.warnings = warnings.iter().map(plain).collect();
                Ok(read)
            }
            _ => Err(Report::new(texts, problems)),
        }
    }
}
