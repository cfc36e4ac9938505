//! What keeps a sink from starting: the files that its settings name.

use std::path::{Path, PathBuf};

/// What is wrong with an uplink's files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be used.
    #[error("could not load {key} from {}: {reason}", path.display())]
    File {
        /// The key that names it: `ca`, `cert`, `key`, `bearer-file` or `signing-key-file`.
        key: &'static str,
        /// Which.
        path: PathBuf,
        /// Why not, and what to do.
        reason: String,
    },
    /// A file of the kind that is read for every connection cannot be read; it may come later.
    #[error("could not read {key} {}: {error}", path.display())]
    Unreadable {
        /// The key that names it.
        key: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: std::io::Error,
    },
    /// Only one of `cert` and `key`.
    #[error("a client certificate needs both `cert` and `key`")]
    HalfIdentity,
    /// Nobody to trust.
    #[error("the system has no root certificates (install ca-certificates, or set `ca`)")]
    NoRoots,
    /// TLS itself.
    #[error("could not set up TLS: {0}")]
    Tls(#[source] rustls::Error),
}

impl Error {
    pub(super) fn file(key: &'static str, path: &Path, reason: String) -> Self {
        Self::File {
            key,
            path: path.to_owned(),
            reason,
        }
    }

    /// The key of its sink that it is about, if it is one.
    #[must_use]
    pub fn key(&self) -> Option<&'static str> {
        match self {
            Self::File { key, .. } | Self::Unreadable { key, .. } => Some(key),
            _ => None,
        }
    }
}
