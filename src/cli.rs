//! The command line: what a person types, and what they read when it goes wrong.

use std::{fmt, path::PathBuf};

use clap::{Parser, Subcommand};

mod catalog;
mod check;
mod run;

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
    /// Describe every event that a configuration can emit: name, meaning, severity, topic, schema, an example.
    ///
    /// From the configuration alone: needs no running gateway, opens no journal and no port.
    Catalog {
        /// The configuration file.
        #[arg(
            long,
            short,
            value_name = "FILE",
            default_value = "/etc/tidegate/gateway.toml"
        )]
        config: PathBuf,
        /// What to print.
        #[arg(long, value_enum, default_value_t = catalog::Format::Asyncapi)]
        format: catalog::Format,
    },
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
            Command::Catalog { config, format } => catalog::catalog(&config, format),
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
