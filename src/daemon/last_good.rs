//! The last configuration that loaded, per path: what a gateway starts with when an edit went wrong.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use tracing::warn;

use crate::config::{Config, Report};

/// Where the last good version of one configuration file is kept.
#[derive(Debug)]
pub struct LastGood {
    file: PathBuf,
}

impl LastGood {
    /// Of the configuration at `path`: in `$STATE_DIRECTORY`, else in `/var/lib/tidegate`.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let state =
            std::env::var_os("STATE_DIRECTORY").map_or_else(|| "/var/lib/tidegate".into(), PathBuf::from);
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let name = Sha256::digest(absolute.as_os_str().as_encoded_bytes());
        let name = name
            .iter()
            .take(8)
            .fold(0_u64, |name, byte| name << 8 | u64::from(*byte));
        Self {
            file: state.join("last-good").join(format!("{name:016x}.toml")),
        }
    }

    /// The configuration kept, if there is one.
    ///
    /// # Errors
    ///
    /// It does not load any more: most likely a file that it names is gone, and may come back.
    pub fn load(&self) -> Option<Result<Config, Report>> {
        self.file.exists().then(|| Config::load(&self.file))
    }

    /// Keeps the text at `path` if it still is the one that loaded: its SHA-256 is `sha256`. Not writable: not kept, one warning; the gateway runs.
    pub fn keep(&self, path: &Path, sha256: &str) {
        if let Err(error) = self.replace(path, sha256) {
            warn!(
                "could not keep the last good configuration in {}: {error}; a later mistake in the file will stop the gateway from starting",
                self.file.display()
            );
        }
    }

    fn replace(&self, path: &Path, sha256: &str) -> std::io::Result<()> {
        let text = std::fs::read(path)?;
        if format!("{:x}", Sha256::digest(&text)) != sha256 {
            warn!(
                "{} was edited during the start; the edit is not kept as the last good one",
                path.display()
            );
            return Ok(());
        }
        if std::fs::read(&self.file).is_ok_and(|kept| kept == text) {
            return Ok(());
        }
        let dir = self.file.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir)?;
        let new = self.file.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.file)?;
        File::open(dir)?.sync_all()
    }
}
