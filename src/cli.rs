//! The command line: what a person types, and what they read when it goes wrong.

use std::{
    fmt,
    io::IsTerminal,
    path::{Path, PathBuf},
};

use clap::{Parser, Subcommand};

mod backtest;
mod check;
mod readings;
mod recorded;
mod run;
mod test;

use crate::{
    config::{Config, Report},
    reading::Value,
};

/// Where the package puts it.
const CONFIGURATION: &str = "/etc/tidegate/gateway.toml";

/// Reads sensors over MQTT and serial lines, raises alarms by rule, and delivers every event upstream at least once.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong arguments, 78 wrong configuration."
)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const ENVIRONMENT: &str = "\
Environment:
  STATE_DIRECTORY  Where the journal and the last good configuration are kept [default: /var/lib/tidegate]
  TIDEGATE_LOG     What is logged: info, debug, tidegate::source=debug [default: info]";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway until SIGTERM or Ctrl-C.
    ///
    /// If the configuration no longer loads, the last one that did is used instead, the mistake is logged and a
    /// `ConfigurationRejected` event says so upstream.
    #[command(after_help = ENVIRONMENT)]
    Run {
        /// The configuration file.
        #[arg(
            long,
            short,
            value_name = "FILE",
            default_value = "/etc/tidegate/gateway.toml"
        )]
        config: PathBuf,
        /// Exit with code 78 if the configuration does not load, even if an earlier one did.
        #[arg(long)]
        strict: bool,
    },
    /// Say whether a configuration is right, and if not, where and what to do.
    ///
    /// Reads the certificate and password files that it names, as a start would. Changes nothing and opens no port.
    Check {
        /// The configuration file.
        #[arg(value_name = "FILE")]
        config: PathBuf,
    },
    /// Test rules: tell them stories of readings, and say where other events come than a story expects.
    ///
    /// Opens no journal and needs no running gateway: the time in a story is simulated. How a story is written, and
    /// an example: docs/rules.md.
    Test {
        /// Story files.
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
    /// List or export the readings that the recorder keeps, also while the gateway runs.
    Readings(readings::Readings),
    /// Try rules on recorded readings: what they would have said, beside what was said.
    ///
    /// Reads the recorder's and the journal's files, also while the gateway runs, and changes nothing. Every event gets a
    /// mark: = it came then and would come now, + it would only come with these rules, - it only came then. Events are
    /// the same if event, device and transition are, within 2 s.
    Backtest(backtest::Backtest),
}

impl Arguments {
    /// Does what was asked.
    ///
    /// # Errors
    ///
    /// [`Failure`], whose text is for a person and whose code is for a script.
    pub fn execute(self) -> Result<(), Failure> {
        match self.command {
            Command::Run { config, strict } => run::run(&config, strict),
            Command::Check { config } => check::check(&config),
            Command::Test { files } => test::test(&files),
            Command::Readings(readings) => readings.list(),
            Command::Backtest(backtest) => backtest.run(),
        }
    }
}

/// Why a command did not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// The configuration is wrong: the report, already rendered.
    Configuration(String),
    /// Something else failed: what, and what to do.
    Failed(String),
}

impl Failure {
    /// 78 (`EX_CONFIG` of sysexits.h) or 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Configuration(_) => 78,
            Self::Failed(_) => 1,
        }
    }

    fn failed(error: &dyn std::error::Error) -> Self {
        Self::Failed(format!("tidegate: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(text) | Self::Failed(text) => formatter.write_str(text.trim_end()),
        }
    }
}

/// `1 rule`, `2 rules`.
fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// A configuration's report, for whoever sits in front of it.
fn wrong(report: &Report) -> Failure {
    Failure::Configuration(report.render(std::io::stderr().is_terminal()))
}

fn configuration(path: &Path) -> Result<Config, Failure> {
    Config::load(path).map_err(|report| wrong(&report))
}

/// A value as a person writes it.
fn shown(value: &Value) -> String {
    match value {
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Text(text) => text.to_string(),
    }
}
