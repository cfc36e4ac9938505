//! `tidegate doctor`: what is not as it should be, around the gateway as well, and what to do about it.
//!
//! Looks and changes nothing: takes no lock, opens no serial port (that would reset a board behind it), publishes
//! nothing, and connects under a name of its own. Every look has an end; all of them run side by side.

use std::{
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use serde::Serialize;
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::timeout,
};

use super::{Failure, SOCKET, Socket, counted, printed};
use crate::{
    config::{Config, Report, state_directory},
    daemon,
};

mod card;
mod clock;
mod disk;
mod gateway;
mod journal;
mod ports;
mod rights;
mod uplink;

/// What a look may take: a name server that is gone, a card that hangs.
const PATIENCE: Duration = Duration::from_secs(5);
/// What verifying the journal may take: 1 GiB on a slow card takes longer, and `journal fsck` has the time.
const JOURNAL_PATIENCE: Duration = Duration::from_secs(10);

/// Which gateway, and how it is shown.
#[derive(Debug, clap::Args)]
#[command(after_help = SOCKET)]
pub(super) struct Doctor {
    /// The configuration file.
    #[arg(
        long,
        short,
        value_name = "FILE",
        default_value = "/etc/tidegate/gateway.toml"
    )]
    config: PathBuf,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    socket: Socket,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For scripts.
    Json,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing, and nobody need do anything.
    Note,
    /// It works, or may do so, and should be looked at.
    Warning,
    /// It does not work.
    Failure,
}

impl Severity {
    fn mark(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "WARN",
            Self::Failure => "FAIL",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    /// What it is about: `disk`, `uplink cloud`.
    check: String,
    severity: Severity,
    /// What was looked at, and what was found.
    found: String,
    /// What to do.
    remedy: Option<String>,
}

impl Finding {
    fn ok(check: &str, found: impl Into<String>) -> Self {
        Self {
            check: check.to_owned(),
            severity: Severity::Ok,
            found: found.into(),
            remedy: None,
        }
    }

    fn note(check: &str, found: impl Into<String>) -> Self {
        Self {
            severity: Severity::Note,
            ..Self::ok(check, found)
        }
    }

    fn warning(check: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            remedy: Some(remedy.into()),
            ..Self::ok(check, found)
        }
    }

    fn failure(check: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            severity: Severity::Failure,
            ..Self::warning(check, found, remedy)
        }
    }
}

impl Doctor {
    pub fn run(self) -> Result<(), Failure> {
        let loaded = Config::load(&self.config);
        let runtime = daemon::runtime().map_err(|error| Failure::failed(&error))?;
        let findings = runtime.block_on(self.examine(&loaded));
        // A name look-up or a read that hangs is not waited for.
        runtime.shutdown_background();
        let mut out = io::stdout().lock();
        printed(match self.format {
            Format::Text => tell(&findings, &mut out),
            Format::Json => writeln!(out, "{:#}", as_json(&findings)),
        })?;
        let count = |severity| {
            findings
                .iter()
                .filter(|finding| finding.severity == severity)
                .count()
        };
        let (failures, warnings) = (count(Severity::Failure), count(Severity::Warning));
        let said = format!(
            "tidegate: {} and {}",
            counted(failures, "failure", "failures"),
            counted(warnings, "warning", "warnings")
        );
        match (loaded, failures, warnings) {
            (Err(report), ..) => Err(super::wrong(&report)),
            (Ok(_), 0, 0) => Ok(()),
            (Ok(_), 0, _) => Err(Failure::Warned(said)),
            _ => Err(Failure::Failed(said)),
        }
    }

    async fn examine(&self, loaded: &Result<Config, Report>) -> Vec<Finding> {
        let socket = self.socket.clone().found();
        let config = loaded.as_ref().ok();
        let dir = config.map_or_else(
            || state_directory().join("journal"),
            |config| config.journal.dir.clone(),
        );
        let mut looks = Looks::default();
        looks.done(vec![self.configuration(loaded)]);
        looks.blocking("gateway", PATIENCE, move || gateway::look(&socket));
        looks.blocking("clock", PATIENCE, clock::look);
        looks.blocking("disk", PATIENCE, {
            let (dir, max_bytes) = (dir.clone(), config.map(|config| config.journal.max_bytes));
            move || disk::look(&dir, max_bytes)
        });
        looks.blocking("card", PATIENCE, {
            let dir = dir.clone();
            move || card::look(&dir)
        });
        looks.blocking("journal", JOURNAL_PATIENCE, {
            let dir = dir.clone();
            move || journal::look(&dir)
        });
        if let Some(config) = config {
            let config = std::sync::Arc::new(config.clone());
            looks.blocking("rights", PATIENCE, {
                let config = std::sync::Arc::clone(&config);
                move || rights::look(&config)
            });
            looks.blocking("serial lines", PATIENCE, {
                let lines = config.serial.iter();
                let lines: Vec<_> = lines.map(|line| (line.name.clone(), line.port.clone())).collect();
                move || ports::look(std::path::Path::new("/dev"), &lines)
            });
            if let Some(door) = &config.mqtt {
                let listen = door.listen.clone();
                looks.blocking("door", PATIENCE, move || gateway::door(&dir, &listen));
            }
            for index in 0..config.sinks.mqtt.len() {
                let config = std::sync::Arc::clone(&config);
                looks.after(async move {
                    match config.sinks.mqtt.get(index) {
                        Some(sink) => uplink::mqtt(sink).await,
                        None => Vec::new(),
                    }
                });
            }
            for index in 0..config.sinks.http.len() {
                let config = std::sync::Arc::clone(&config);
                looks.after(async move {
                    match config.sinks.http.get(index) {
                        Some(sink) => uplink::http(sink).await,
                        None => Vec::new(),
                    }
                });
            }
        }
        looks.all().await
    }

    fn configuration(&self, loaded: &Result<Config, Report>) -> Finding {
        let path = self.config.display();
        match loaded {
            Ok(config) if config.warnings.is_empty() => {
                Finding::ok("configuration", format!("{path} is right"))
            }
            Ok(config) => {
                let warnings = counted(config.warnings.len(), "warning", "warnings");
                let first = config.warnings.first().map_or("", String::as_str);
                Finding::warning(
                    "configuration",
                    format!("{path} is right, with {warnings}: {first}"),
                    format!("tidegate check {path}"),
                )
            }
            Err(_) => Finding::failure(
                "configuration",
                format!("{path} does not load: the report is below; what follows looks where a default says"),
                "mend what the report names; until then the gateway runs on the last one that loaded",
            ),
        }
    }
}

/// What is looked at, at once, and shown in this order.
#[derive(Default)]
struct Looks {
    running: JoinSet<(usize, Vec<Finding>)>,
    begun: usize,
    done: Vec<(usize, Vec<Finding>)>,
}

impl Looks {
    fn done(&mut self, findings: Vec<Finding>) {
        self.done.push((self.begun, findings));
        self.begun += 1;
    }

    /// What bounds itself.
    fn after(&mut self, look: impl Future<Output = Vec<Finding>> + Send + 'static) {
        let place = self.begun;
        self.begun += 1;
        self.running.spawn(async move { (place, look.await) });
    }

    fn blocking(
        &mut self,
        check: &'static str,
        patience: Duration,
        look: impl FnOnce() -> Vec<Finding> + Send + 'static,
    ) {
        self.after(async move {
            let looking = timeout(patience, spawn_blocking(look)).await;
            match looking {
                Ok(Ok(findings)) => findings,
                Ok(Err(error)) => vec![Finding::failure(
                    check,
                    format!("this look broke down: {error}"),
                    "please report it",
                )],
                Err(_) if check == "journal" => vec![Finding::note(
                    check,
                    format!(
                        "not verified to its end within {} s: `tidegate journal fsck` takes the time",
                        patience.as_secs()
                    ),
                )],
                Err(_) => vec![Finding::warning(
                    check,
                    format!("no answer within {} s", patience.as_secs()),
                    "does the disk or the board hang? look at `dmesg` and the load (`uptime`)",
                )],
            }
        });
    }

    async fn all(mut self) -> Vec<Finding> {
        while let Some(ended) = self.running.join_next().await {
            // A look that panics says so itself; an uplink's does not come.
            self.done.extend(ended.ok());
        }
        self.done.sort_by_key(|(place, _)| *place);
        self.done.into_iter().flat_map(|(_, findings)| findings).collect()
    }
}

fn tell(findings: &[Finding], out: &mut impl Write) -> io::Result<()> {
    let width = findings.iter().map(|finding| finding.check.chars().count()).max();
    let width = width.unwrap_or(0);
    for finding in findings {
        let mark = finding.severity.mark();
        writeln!(out, "{mark:<4}  {:<width$}  {}", finding.check, finding.found)?;
        if let Some(remedy) = &finding.remedy {
            writeln!(out, "      {:<width$}  -> {remedy}", "")?;
        }
    }
    Ok(())
}

fn as_json(findings: &[Finding]) -> serde_json::Value {
    let worst = findings.iter().map(|finding| finding.severity).max();
    serde_json::json!({ "worst": worst.unwrap_or(Severity::Ok), "findings": findings })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_is_given_up_and_what_comes_later_keeps_its_place() {
        let runtime = daemon::runtime().expect("a runtime");
        let (release, held) = std::sync::mpsc::sync_channel::<()>(1);
        let findings = runtime.block_on(async move {
            let mut looks = Looks::default();
            looks.done(vec![Finding::ok("first", "")]);
            looks.blocking("disk", Duration::from_millis(50), move || {
                held.recv().ok();
                Vec::new()
            });
            looks.blocking("clock", PATIENCE, || panic!("on purpose"));
            looks.after(async { vec![Finding::note("last", "")] });
            looks.all().await
        });
        drop(release);
        let said: Vec<_> = findings
            .iter()
            .map(|finding| (finding.check.as_str(), finding.severity))
            .collect();
        assert_eq!(
            said,
            [
                ("first", Severity::Ok),
                ("disk", Severity::Warning),
                ("clock", Severity::Failure),
                ("last", Severity::Note)
            ]
        );
    }

    #[test]
    fn a_finding_is_a_line_and_its_remedy_another() {
        let findings = [
            Finding::ok("disk", "enough"),
            Finding::failure("uplink cloud", "gone", "plug it in"),
        ];
        let mut out = Vec::new();
        tell(&findings, &mut out).expect("a Vec takes all");
        assert_eq!(
            String::from_utf8(out).expect("text"),
            "ok    disk          enough\nFAIL  uplink cloud  gone\n                    -> plug it in\n"
        );
        assert_eq!(as_json(&findings)["worst"], "failure");
    }
}
