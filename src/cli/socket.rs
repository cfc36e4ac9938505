//! Where the control socket is: `run` makes it, whoever asks finds it.

use std::path::{Path, PathBuf};

use crate::config::{directory, state_directory};

/// The socket's name in its directory.
const NAME: &str = "control.sock";
/// Where the service manager makes `RuntimeDirectory=tidegate`.
const RUN: &str = "/run/tidegate";

pub(super) const SOCKET: &str = "\
Asks the running gateway at $RUNTIME_DIRECTORY/control.sock, else at $STATE_DIRECTORY/control.sock; without these at
/run/tidegate/control.sock, where the service has it, else at /var/lib/tidegate/control.sock.";

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Socket {
    /// The gateway's control socket [default: where the service has it].
    #[arg(long = "socket", value_name = "PATH")]
    pub path: Option<PathBuf>,
}

impl Socket {
    pub fn found(self) -> PathBuf {
        self.path.unwrap_or_else(to_ask)
    }
}

/// Where a gateway makes it: in `$RUNTIME_DIRECTORY`, else in the state directory.
pub(super) fn to_make() -> PathBuf {
    directory("RUNTIME_DIRECTORY")
        .unwrap_or_else(state_directory)
        .join(NAME)
}

/// Where it is looked for: as a gateway that was started from here would make it, else where the service has it.
fn to_ask() -> PathBuf {
    let is_by_hand = ["RUNTIME_DIRECTORY", "STATE_DIRECTORY"]
        .iter()
        .any(|variable| directory(variable).is_some());
    let by_service = Path::new(RUN).join(NAME);
    if is_by_hand || (!by_service.exists() && to_make().exists()) {
        to_make()
    } else {
        by_service
    }
}
