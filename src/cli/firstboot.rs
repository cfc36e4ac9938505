//! `tidegate firstboot`: for the service that runs before the gateway's.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use super::{Failure, noted, printed};
use crate::{
    config::state_directory,
    firstboot::{FirstBoot, Told, Verdict},
    time::Clock,
};

/// Where Raspberry Pi OS has the boot partition since Debian 12, and before it.
const PARTITIONS: [&str; 2] = ["/boot/firmware", "/boot"];

pub(super) fn firstboot(boot: Option<PathBuf>, configuration: PathBuf) -> Result<(), Failure> {
    let found = || PARTITIONS.iter().map(Path::new).find(|path| path.is_dir());
    let Some(boot) = boot.or_else(|| found().map(Path::to_owned)) else {
        return Ok(());
    };
    let first = FirstBoot {
        boot,
        configuration,
        state: state_directory(),
    };
    let Some(told) = first.take(Clock::system().moment()) else {
        return Ok(());
    };
    let Told {
        verdict,
        report,
        complaints,
    } = told;
    for complaint in complaints {
        noted(&format!("tidegate: {complaint}"));
    }
    match verdict {
        Verdict::Installed | Verdict::Missing => printed(write!(std::io::stdout().lock(), "{report}")),
        Verdict::Refused => Err(Failure::Configuration(report)),
        Verdict::Failed => Err(Failure::Failed(report)),
    }
}
