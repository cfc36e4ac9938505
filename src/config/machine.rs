//! What the configuration's defaults take from the machine. Read once, at start; whatever is missing is empty.

use std::path::{Path, PathBuf};

/// The machine that the gateway runs on.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The board's serial number, or empty (a PC has none, and all zeros is none).
    pub board_serial: String,
    /// `/etc/machine-id`, or empty.
    pub machine_id: String,
    /// Where the gateway keeps its state.
    pub state_directory: PathBuf,
    /// The size of the filesystem that a path is on or would be on; none: not known.
    pub filesystem_bytes: fn(&Path) -> Option<u64>,
}

impl Machine {
    /// This machine.
    #[must_use]
    pub fn read() -> Self {
        let board_serial = read_text("/proc/device-tree/serial-number");
        let unset = board_serial.bytes().all(|byte| byte == b'0');
        Self {
            board_serial: if unset { String::new() } else { board_serial },
            machine_id: read_text("/etc/machine-id"),
            state_directory: state_directory(),
            filesystem_bytes,
        }
    }
}

/// Where a gateway that is started from here keeps its state: in `$STATE_DIRECTORY`, else where the service has it.
#[must_use]
pub fn state_directory() -> PathBuf {
    directory("STATE_DIRECTORY").unwrap_or_else(|| "/var/lib/tidegate".into())
}

/// The first directory of a variable that the service manager sets.
#[must_use]
pub fn directory(variable: &str) -> Option<PathBuf> {
    first_of(&std::env::var(variable).ok()?)
}

/// The device tree ends its texts with a NUL.
fn read_text(path: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.trim_matches(|c: char| c == '\0' || c.is_whitespace())
        .to_owned()
}

/// systemd separates several by a colon.
fn first_of(directories: &str) -> Option<PathBuf> {
    directories
        .split(':')
        .next()
        .filter(|first| !first.is_empty())
        .map(PathBuf::from)
}

/// The size of the filesystem that a path is on, or would be on; none: not known.
#[must_use]
pub fn filesystem_bytes(path: &Path) -> Option<u64> {
    // The directory may not exist yet: its nearest ancestor that does is on the same filesystem.
    let found = path
        .ancestors()
        .find_map(|ancestor| rustix::fs::statvfs(ancestor).ok())?;
    found.f_blocks.checked_mul(found.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_state_directory_counts() {
        assert_eq!(first_of("/var/lib/a:/var/lib/b"), Some("/var/lib/a".into()));
        assert_eq!(first_of(""), None);
    }

    #[test]
    fn a_directory_that_does_not_exist_yet_has_a_filesystem() {
        assert!(filesystem_bytes(Path::new("/nowhere/at/all")).is_some_and(|bytes| bytes > 0));
    }
}
