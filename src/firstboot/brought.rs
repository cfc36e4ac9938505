//! What an installer put on the boot partition, read whole and within bounds.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    path::Path,
};

use sha2::{Digest, Sha256};

use super::{FOLDER, MAIN, Obstacle};
use crate::config::hex;

/// No configuration and no certificate is longer.
const MOST_BYTES: usize = 1 << 20;
/// More than the uplinks of a gateway name.
const MOST_FILES: usize = 64;

/// The files.
#[derive(Debug)]
pub(super) struct Brought {
    /// `gateway.toml`.
    pub main: Vec<u8>,
    /// What lies in the folder, by name.
    pub files: Vec<Other>,
}

/// A file of the folder.
#[derive(Debug)]
pub(super) struct Other {
    pub name: String,
    pub bytes: Vec<u8>,
}

impl Brought {
    /// None: there is no `gateway.toml`, so nothing was brought.
    pub fn read(boot: &Path) -> Result<Option<Self>, Obstacle> {
        let Some(main) = bytes(&boot.join(MAIN), MAIN)? else {
            // Windows does not show the last ending.
            let hidden = format!("{MAIN}.txt");
            return if boot.join(&hidden).exists() {
                Err(Obstacle::Wrong(format!(
                    "{hidden}: it must be called {MAIN}; rename it. Windows hides the ending .txt until you switch on \
                     View > Show > File name extensions in the Explorer\n"
                )))
            } else {
                Ok(None)
            };
        };
        let mut files = Vec::new();
        let folder = boot.join(FOLDER);
        for name in names(&folder)? {
            let shown = format!("{FOLDER}/{name}");
            if name == MAIN {
                let remedy =
                    format!("{MAIN} must lie beside the folder {FOLDER}, not in it; remove one of the two");
                return Err(Obstacle::Wrong(format!("{shown}: {remedy}\n")));
            }
            if folder.join(&name).is_dir() {
                let remedy = format!("it is a folder; put its files into {FOLDER} itself");
                return Err(Obstacle::Wrong(format!("{shown}: {remedy}\n")));
            }
            if let Some(bytes) = bytes(&folder.join(&name), &shown)? {
                files.push(Other { name, bytes });
            }
        }
        Ok(Some(Self { main, files }))
    }

    /// Of all names and bytes.
    pub fn checksum(&self) -> String {
        let mut sha256 = Sha256::new();
        let files = self.files.iter().map(|file| (&*file.name, &file.bytes));
        for (name, bytes) in files.chain([(MAIN, &self.main)]) {
            for part in [name.as_bytes(), bytes] {
                sha256.update((part.len() as u64).to_le_bytes());
                sha256.update(part);
            }
        }
        hex(&sha256.finalize())
    }
}

/// The files of the folder, sorted, but for those that macOS and Windows leave on every card.
fn names(folder: &Path) -> Result<Vec<String>, Obstacle> {
    let entries = match folder.read_dir() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| unreadable(FOLDER, &error))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(|error| unreadable(FOLDER, &error))?.file_name();
        let name = name.into_string().map_err(|name| {
            let name = name.to_string_lossy();
            Obstacle::Wrong(format!("{FOLDER}/{name}: give it a name in plain letters\n"))
        })?;
        let left = name.starts_with('.') || ["desktop.ini", "thumbs.db"].contains(&&*name.to_lowercase());
        if !left {
            names.push(name);
        }
        if names.len() > MOST_FILES {
            let message =
                format!("{FOLDER}: there are more than {MOST_FILES} files in it; leave only those needed\n");
            return Err(Obstacle::Wrong(message));
        }
    }
    names.sort();
    Ok(names)
}

/// None: there is no such file.
fn bytes(path: &Path, shown: &str) -> Result<Option<Vec<u8>>, Obstacle> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|error| unreadable(shown, &error))?,
    };
    let mut bytes = Vec::new();
    file.take(MOST_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(shown, &error))?;
    if bytes.len() > MOST_BYTES {
        let message = format!("{shown}: it is longer than 1 MiB; is it the right file?\n");
        return Err(Obstacle::Wrong(message));
    }
    Ok(Some(bytes))
}

fn unreadable(shown: &str, error: &io::Error) -> Obstacle {
    Obstacle::Wrong(format!(
        "{shown}: could not be read: {error}; copy it to the card once more\n"
    ))
}
