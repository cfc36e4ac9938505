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
/// In the folder, but the image's and not the gateway's: who may log in does not hang on a right configuration.
const SSH_KEYS: &str = "authorized_keys";

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
    /// None: nothing was brought, neither a file of about that name nor a folder.
    pub fn read(boot: &Path) -> Result<Option<Self>, Obstacle> {
        let folder = boot.join(FOLDER);
        let Some(main) = bytes(&boot.join(MAIN), MAIN)? else {
            return match misnamed(boot)? {
                Some(wrong) => Err(Obstacle::Wrong(wrong)),
                None if folder.is_dir() => Err(Obstacle::Missing(format!(
                    "{MAIN}: it is not there, only the folder {FOLDER}; put it beside that folder\n"
                ))),
                None => Ok(None),
            };
        };
        let mut files = Vec::new();
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

/// Says of all files that were probably to be the configuration what they must be called.
fn misnamed(boot: &Path) -> Result<Option<String>, Obstacle> {
    let entries = match boot.read_dir() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        entries => entries.and_then(Iterator::collect::<io::Result<Vec<_>>>),
    };
    let mut names: Vec<String> = entries
        .map_err(|error| unreadable("the boot partition", &error))?
        .iter()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.to_lowercase().starts_with("gateway"))
        .collect();
    names.sort();
    let mut wrong: Vec<String> = names
        .iter()
        .map(|name| {
            let rename =
                format!("{name}: it must be called {MAIN}; rename it, or delete it if it is something else");
            if name.to_lowercase().ends_with(".txt") {
                rename
                    + ". Windows hides the ending .txt until you switch on View > Show > File name extensions in the \
                       Explorer"
            } else {
                rename
            }
        })
        .collect();
    if boot.join(FOLDER).join(MAIN).exists() {
        wrong.push(format!(
            "{FOLDER}/{MAIN}: it must lie beside the folder {FOLDER}, not in it; move it there"
        ));
    }
    Ok((!wrong.is_empty()).then(|| wrong.join("\n") + "\n"))
}

/// The files of the folder, sorted, but for the ssh keys and what macOS and Windows leave on every card.
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
        let left =
            name.starts_with('.') || [SSH_KEYS, "desktop.ini", "thumbs.db"].contains(&&*name.to_lowercase());
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
