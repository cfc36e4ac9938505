//! The gateway that runs, as far as it answers; and its door, where none does.

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
};

use super::{super::table::age, Finding};
use crate::{
    control::{self, Request, status::Status},
    journal::inspect,
};

const CHECK: &str = "gateway";
/// Longer without any reading is to be looked at: `silent-for` knows each device better.
const QUIET: u64 = 3_600;

pub(super) fn look(socket: &Path) -> Vec<Finding> {
    match control::ask::<Status>(socket, &Request::Status) {
        Ok(status) => judge(&status),
        Err(control::Error::NotRunning(path)) => vec![Finding::note(
            CHECK,
            format!("none runs here: nobody answers at {}", path.display()),
        )],
        Err(control::Error::Forbidden(path)) => vec![Finding::note(
            CHECK,
            format!(
                "one may run, but {} is not for this user: ask as root, as tidegate, or as a member of that group",
                path.display()
            ),
        )],
        Err(error) => vec![Finding::warning(
            CHECK,
            error.to_string(),
            "journalctl -u tidegate; the watchdog restarts one that hangs",
        )],
    }
}

fn judge(status: &Status) -> Vec<Finding> {
    let up = age(status.uptime_s);
    let mut findings = vec![Finding::ok(
        CHECK,
        format!("{} runs, version {}, up {up}", status.gateway, status.version),
    )];
    if status.version != env!("CARGO_PKG_VERSION") {
        let said = format!(
            "version {} runs, {} is installed",
            status.version,
            env!("CARGO_PKG_VERSION")
        );
        findings.push(Finding::warning(CHECK, said, "systemctl restart tidegate"));
    }
    for trouble in &status.troubles {
        findings.push(Finding::warning(
            CHECK,
            trouble.clone(),
            "tidegate status shows it with what is around it",
        ));
    }
    findings.push(match status.last_reading_s {
        Some(ago) if ago < QUIET => Finding::ok("readings", format!("the last was {} ago", age(ago))),
        None if status.uptime_s < QUIET => {
            Finding::note("readings", format!("none yet, {up} after the start"))
        }
        last => Finding::warning(
            "readings",
            last.map_or_else(
                || format!("none since the start {up} ago"),
                |ago| format!("the last was {} ago", age(ago)),
            ),
            "do the devices publish, to this gateway, to a topic of [[mqtt.readings]]? the log names payloads that cannot \
             be read",
        ),
    });
    findings
}

/// Whether the door could be opened, where no gateway has it open.
pub(super) fn door(journal: &Path, listen: &[SocketAddr]) -> Vec<Finding> {
    if inspect::in_use_by(journal).is_some() {
        return Vec::new();
    }
    let finding = |address: &SocketAddr| match TcpListener::bind(address) {
        Ok(_) => Finding::ok("door", format!("{address} is free")),
        Err(error) => Finding::failure(
            "door",
            format!("{address}: {error}"),
            "another broker on this port (`ss -ltnp`)? stop it, or write another [mqtt] listen",
        ),
    };
    listen.iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Severity;

    fn worst(status: &Status) -> Severity {
        let findings = judge(status);
        findings
            .iter()
            .map(|finding| finding.severity)
            .max()
            .expect("findings")
    }

    #[test]
    fn a_gateway_that_hears_nothing_is_to_be_looked_at() {
        let status = |last, uptime_s| Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s,
            last_reading_s: last,
            ..Status::default()
        };
        assert_eq!(worst(&status(Some(59), 9_999)), Severity::Ok);
        assert_eq!(worst(&status(Some(3_600), 9_999)), Severity::Warning);
        assert_eq!(worst(&status(None, 30)), Severity::Note);
        assert_eq!(worst(&status(None, 9_999)), Severity::Warning);
        let troubled = Status {
            troubles: vec!["sink cloud: away".to_owned()],
            ..status(Some(1), 9_999)
        };
        assert_eq!(worst(&troubled), Severity::Warning);
        let old = Status {
            version: "0.0.9".to_owned(),
            ..status(Some(1), 9_999)
        };
        assert_eq!(worst(&old), Severity::Warning);
    }

    #[test]
    fn a_door_that_another_holds_is_a_failure() {
        let dir = tempfile::tempdir().unwrap();
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = other.local_addr().unwrap();
        let found = |listen| door(dir.path(), &[listen]).first().unwrap().severity;
        assert_eq!(found(taken), Severity::Failure);
        assert_eq!(found(SocketAddr::from(([127, 0, 0, 1], 0))), Severity::Ok);
    }
}
