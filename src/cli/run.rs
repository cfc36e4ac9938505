//! `tidegate run`: the configuration that will be used, then the daemon.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
};

use tracing::{error, warn};

use super::{Failure, socket};
use crate::{
    config::Config,
    daemon::{self, Daemon, last_good::LastGood},
    telemetry,
};

pub(super) fn run(path: &Path, strict: bool, at: Option<PathBuf>) -> Result<(), Failure> {
    go(path, strict, at).map_err(|failure| {
        let name = match failure {
            Failure::Configuration(_) => "ConfigurationRejected",
            _ => "GatewayFailed",
        };
        if telemetry::last_word(name, &failure.to_string()) {
            Failure::Told(failure.exit_code())
        } else {
            failure
        }
    })
}

fn go(path: &Path, strict: bool, at: Option<PathBuf>) -> Result<(), Failure> {
    let last_good = LastGood::of(path);
    let (config, rejected) = match Config::load(path) {
        Ok(config) => (config, None),
        Err(report) => {
            let report_text = || report.render(std::io::stderr().is_terminal());
            match last_good.load() {
                Some(Ok(config)) if !strict => (config, Some(report.to_string())),
                // It ran with it: a certificate that is being renewed, a disk that is not there yet. A failure that
                // passes is tried again; a wrong configuration is not.
                Some(Err(_)) if !strict => return Err(Failure::Failed(report_text())),
                _ => return Err(Failure::Configuration(report_text())),
            }
        }
    };
    telemetry::init(&config.gateway.id).map_err(|error| Failure::failed(&error))?;
    for warning in &config.warnings {
        warn!("a doubt about the configuration: {warning}");
    }
    if let Some(report) = &rejected {
        error!(name: "ConfigurationRejected", "the configuration does not load; going on with the last good one:\n{report}");
    }
    let runtime = daemon::runtime().map_err(|error| Failure::failed(&error))?;
    let daemon = Daemon {
        config,
        rejected,
        last_good: Some(last_good),
        source: Some(path.to_owned()),
        socket: Some(at.unwrap_or_else(socket::to_make)),
    };
    runtime
        .block_on(daemon.run_until_signal())
        .map_err(|error| Failure::failed(&error))
}
