//! The command line: what a person types, and what they read when it goes wrong.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Parser, Subcommand};
use serde::de::DeserializeOwned;

use self::socket::{SOCKET, Socket};
use crate::{
    config::{Config, Report, units},
    control::{self, Request},
};

mod backtest;
mod catalog;
mod check;
mod doctor;
mod events;
mod firstboot;
mod journal;
mod mute;
mod plan;
mod readings;
mod recorded;
mod reload;
mod run;
mod socket;
mod status;
mod table;
mod test;

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
  STATE_DIRECTORY    Where the journal and the last good configuration are kept [default: /var/lib/tidegate]
  RUNTIME_DIRECTORY  Where the control socket is made [default: the state directory]
  TIDEGATE_LOG       What is logged: info, debug, tidegate::source=debug [default: info]";

const FIRSTBOOT: &str = "\
Environment:
  STATE_DIRECTORY  Where the checksum of what was installed is kept [default: /var/lib/tidegate]";

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
        #[command(flatten)]
        socket: Socket,
    },
    /// Say whether a configuration is right, and if not, where and what to do.
    ///
    /// Reads the certificate and password files that it names, as a start would. Changes nothing and opens no port.
    Check {
        /// The configuration file.
        #[arg(value_name = "FILE")]
        config: PathBuf,
    },
    /// Install the configuration that lies on the card's boot partition. A service runs this before the gateway's.
    ///
    /// `gateway.toml` there, and the files of a folder `tidegate` beside it, are checked together, installed in
    /// the configuration's directory or not at all, and tidegate-report.txt beside them says what became of them. The
    /// same files are not installed twice, and none is deleted. Exit code 78: they are wrong.
    #[command(after_help = FIRSTBOOT)]
    Firstboot {
        /// The boot partition [default: /boot/firmware, else /boot].
        #[arg(long, value_name = "DIR")]
        boot: Option<PathBuf>,
        /// The configuration file to be; the folder's files go to its directory.
        #[arg(
            long,
            short,
            value_name = "FILE",
            default_value = "/etc/tidegate/gateway.toml"
        )]
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
    /// Look at everything that the gateway stands on, and say what is wrong and what to do about it.
    ///
    /// Configuration, clock, disk, card, journal, rights, serial ports and every uplink up to its first event; with a
    /// running gateway or without one. Changes nothing and delivers nothing. Run it as root, or as the gateway's user.
    ///
    /// Exit code 0: all is well. Exit code 1: something fails. Exit code 3: something should be looked at. Exit code 78: the
    /// configuration is wrong.
    Doctor(doctor::Doctor),
    /// How long the journal bridges an outage, how long it then drains, how long the card lasts; and what that assumes.
    ///
    /// From the configuration, and from rates that are given or measured in the journal that it names. Needs no running
    /// gateway and changes nothing.
    Plan(plan::Plan),
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
    /// Look into the journal: of a running gateway, or of a dead one's card.
    ///
    /// Reads the directory itself: no lock is taken and nothing is changed or repaired, and it may come from another
    /// machine.
    Journal {
        #[command(subcommand)]
        command: journal::Command,
    },
    /// Have the running gateway read its configuration again.
    ///
    /// The new file is checked first: if it is wrong, nothing changes and the report is printed (exit code 78). What
    /// can only change with a restart is named. SIGHUP does the same; its report is in the log.
    #[command(after_help = SOCKET)]
    Reload {
        #[command(flatten)]
        socket: Socket,
    },
    /// Mute a device or a rule for a while.
    ///
    /// Its open alarms are cleared (reason `muted`) and it raises none until the end; those that still hold then are
    /// raised. Muting again replaces the end and the reason.
    #[command(after_help = SOCKET)]
    Mute {
        /// A device's id or a rule's name (`device:NAME` or `rule:NAME` where there are both).
        #[arg(value_name = "DEVICE|RULE")]
        target: String,
        /// For how long: 30m, 2h, 1d.
        #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
        length: Duration,
        /// Why, for whoever reads the event.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        socket: Socket,
    },
    /// End a mute before its time.
    #[command(after_help = SOCKET)]
    Unmute {
        /// A device's id or a rule's name, as it was muted.
        #[arg(value_name = "DEVICE|RULE")]
        target: String,
        #[command(flatten)]
        socket: Socket,
    },
    /// What the running gateway knows of its devices.
    Device {
        #[command(subcommand)]
        command: DeviceCommand,
    },
    /// How the running gateway stands: journal, sinks, sources, alarms, what was lost.
    ///
    /// Exit code 0: nothing needs a person. Exit code 1: something does, or no gateway runs; a line with ! says what.
    Status(status::Status),
    /// What the running gateway has raised.
    #[command(after_help = SOCKET)]
    Events {
        /// The alarms that are open now. Records them as `ActiveAlarms`, too, for receivers that lost theirs.
        #[arg(long, required = true)]
        active: bool,
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        socket: Socket,
    },
}

#[derive(Debug, Subcommand)]
enum DeviceCommand {
    /// Forget a device: its alarms are cleared (reason `device-removed`), its state and its place are free.
    ///
    /// It is known anew if it sends again.
    #[command(after_help = SOCKET)]
    Forget {
        /// The device's id.
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        socket: Socket,
    },
}

fn duration(text: &str) -> Result<Duration, String> {
    units::duration(text).ok_or_else(|| units::DURATION_FORM.to_owned())
}

impl Arguments {
    /// Does what was asked.
    ///
    /// # Errors
    ///
    /// [`Failure`], whose text is for a person and whose code is for a script.
    pub fn execute(self) -> Result<(), Failure> {
        match self.command {
            Command::Run {
                config,
                strict,
                socket,
            } => run::run(&config, strict, socket.path),
            Command::Check { config } => check::check(&config),
            Command::Firstboot { boot, config } => firstboot::firstboot(boot, config),
            Command::Catalog { config, format } => catalog::catalog(&config, format),
            Command::Reload { socket } => reload::reload(&socket.found()),
            Command::Mute {
                target,
                length,
                reason,
                socket,
            } => mute::mute(&socket.found(), target, length, reason),
            Command::Unmute { target, socket } => mute::unmute(&socket.found(), target),
            Command::Device {
                command: DeviceCommand::Forget { id, socket },
            } => mute::forget(&socket.found(), id),
            Command::Events { json, socket, .. } => events::active(&socket.found(), json),
            Command::Plan(plan) => plan.run(),
            Command::Doctor(doctor) => doctor.run(),
            Command::Test { files } => test::test(&files),
            Command::Readings(readings) => readings.list(),
            Command::Backtest(backtest) => backtest.run(),
            Command::Journal { command } => command.run(),
            Command::Status(status) => status.run(),
        }
    }
}

/// What the running gateway answers.
fn asked<Answer: DeserializeOwned>(socket: &Path, request: &Request) -> Result<Answer, Failure> {
    control::ask(socket, request).map_err(|error| match error {
        control::Error::Configuration(report) => Failure::Configuration(report),
        error => Failure::failed(&error),
    })
}

/// What was asked for on the terminal: a reader that has seen enough is no failure.
fn printed(written: io::Result<()>) -> Result<(), Failure> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Failed(format!(
            "tidegate: could not write to the terminal: {error}"
        ))),
        _ => Ok(()),
    }
}

/// What a person should know beside what was asked for. Nobody may listen there.
fn noted(said: &str) {
    writeln!(io::stderr(), "{said}").ok();
}

/// Why a command did not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// The configuration is wrong: the report, already rendered.
    Configuration(String),
    /// The arguments contradict each other: how, and what to write.
    Usage(String),
    /// Something else failed: what, and what to do.
    Failed(String),
    /// Nothing failed, and something should be looked at: what.
    Warned(String),
    /// One of these, which the log has been told: its exit code.
    Told(u8),
}

impl Failure {
    /// 78 (`EX_CONFIG` of sysexits.h), 2 as clap has it, 1, or 3 where a warning is less than that.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Configuration(_) => 78,
            Self::Usage(_) => 2,
            Self::Failed(_) => 1,
            Self::Warned(_) => 3,
            Self::Told(code) => *code,
        }
    }

    /// Whether there is nothing left to print.
    #[must_use]
    pub fn is_told(&self) -> bool {
        matches!(self, Self::Told(_))
    }

    fn failed(error: &dyn std::error::Error) -> Self {
        Self::Failed(format!("tidegate: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(text) | Self::Usage(text) | Self::Failed(text) | Self::Warned(text) => {
                formatter.write_str(text.trim_end())
            }
            Self::Told(code) => write!(formatter, "exit code {code}: the log says why"),
        }
    }
}

/// Nothing can lie between `--from` and `--to`.
fn empty_range() -> Failure {
    Failure::Usage(
        "tidegate: the range is empty: --from is not before --to; were they swapped? (1h is later than 2h: how long ago)"
            .to_owned(),
    )
}

/// `1 rule`, `2 rules`.
fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// A configuration's report, for whoever sits in front of it.
fn wrong(report: &Report) -> Failure {
    Failure::Configuration(report.render(io::stderr().is_terminal()))
}

fn configuration(path: &Path) -> Result<Config, Failure> {
    Config::load(path).map_err(|report| wrong(&report))
}
