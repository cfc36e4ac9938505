//! First boot: what an installer put on the card's boot partition becomes the gateway's configuration.
//!
//! `gateway.toml` there, and the files of a folder `tidegate` beside it (certificates, keys, passwords), are checked as
//! they would stand in the configuration's directory. Nothing there is replaced before all of them are written; then
//! each is replaced whole, `gateway.toml` last. A report beside them says what became of them, and why. What was installed
//! is remembered by its checksum and not looked at again, so that what is changed on the gateway later stays. What was
//! refused is looked at again at the next boot: another version of the program may take it.
//!
//! A power cut leaves it done or to be done again: what was installed before is forgotten first, the report comes after
//! the last file, the checksum after the report. One in between the replacements leaves new files beside the old
//! `gateway.toml` until the next boot.
//!
//! The ssh keys in the folder are not the gateway's: the image takes them by itself, whatever becomes of the rest.
//! On the boot partition nothing is changed but the report, and nothing is deleted: it may be the installer's only copy.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, ErrorKind, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use self::{brought::Brought, report::Installed};
use crate::{config::Config, time::Moment};

mod brought;
mod report;

/// The configuration, on the boot partition.
const MAIN: &str = "gateway.toml";
/// The folder of all else, beside it.
const FOLDER: &str = "tidegate";
/// What became of them.
pub const REPORT: &str = "tidegate-report.txt";

/// Where a first boot takes from and where it puts.
#[derive(Clone, Debug)]
pub struct FirstBoot {
    /// The boot partition.
    pub boot: PathBuf,
    /// The configuration file to be; the folder's files go to its directory.
    pub configuration: PathBuf,
    /// Where the checksum is kept.
    pub state: PathBuf,
}

/// What became of what lay there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the gateway's configuration now.
    Installed,
    /// It is wrong; nothing was changed.
    Refused,
    /// The card did not take it, or not all of it: to be done again.
    Failed,
    /// There was no `gateway.toml`, only the folder; nothing was changed.
    Missing,
}

/// What is to be said of it.
#[derive(Clone, Debug)]
pub struct Told {
    /// What became of it.
    pub verdict: Verdict,
    /// The report, for a terminal.
    pub report: String,
    /// What did not work beside it, with what that means.
    pub complaints: Vec<String>,
}

/// Why it was not installed.
#[derive(Debug)]
enum Obstacle {
    /// There is no configuration, but somebody has begun to bring one.
    Missing(String),
    /// The installer's to mend: one or more lines.
    Wrong(String),
    /// Not the installer's.
    Failed(String),
}

impl FirstBoot {
    /// Takes what lies there; none: nothing does, or it was taken before. `now` is for the report.
    #[must_use]
    pub fn take(&self, now: Moment) -> Option<Told> {
        let taken = fs::read_to_string(self.taken()).ok();
        let brought = Brought::read(&self.boot).transpose()?;
        let mut complaints = Vec::new();
        if let Some(taken) = taken {
            let known = match &brought {
                Ok(brought) => taken.trim() == brought.checksum(),
                // Who has taken the files away does as the report says.
                Err(obstacle) => matches!(obstacle, Obstacle::Missing(_)),
            };
            if known {
                return None;
            }
            // Before anything is replaced, and for what is refused, too: if the earlier files come back they are news.
            if let Err(error) = self.forget() {
                complaints.push(format!(
                    "could not delete {}: {error}; files that were installed before these are not installed again",
                    self.taken().display()
                ));
            }
        }
        let done = brought.and_then(|brought| {
            let config = self.check(&brought)?;
            self.install(&brought)?;
            let checksum = brought.checksum();
            Ok((Installed::of(&config, &brought, &self.configuration), checksum))
        });
        let (done, checksum) = match done {
            Ok((installed, checksum)) => (Ok(installed), Some(checksum)),
            Err(obstacle) => (Err(obstacle), None),
        };
        let mut told = self.tell(now, done);
        if let Some(checksum) = checksum
            && let Err(error) = self.remember(&checksum)
        {
            complaints.push(format!(
                "could not write {}: {error}; the same files will be installed again at the next boot",
                self.taken().display()
            ));
        }
        told.complaints.extend(complaints);
        Some(told)
    }

    fn check(&self, brought: &Brought) -> Result<Config, Obstacle> {
        let directory = self.directory();
        let now = |path: &Path| {
            let name = path.strip_prefix(directory).ok()?.to_str()?;
            let brought = brought.files.iter().any(|file| file.name == name);
            brought.then(|| self.boot.join(FOLDER).join(name))
        };
        Config::arriving(&self.configuration, brought.main.clone(), &now)
            .map_err(|report| Obstacle::Wrong(self.as_brought(&report.to_string())))
    }

    /// A report on the files where the installer has them.
    fn as_brought(&self, report: &str) -> String {
        let installed = format!("{}:", self.configuration.display());
        let boot = format!("{}/{FOLDER}/", self.boot.display());
        let brought = format!("{MAIN}:");
        let line = |line: &str| match line.strip_prefix(&installed) {
            Some(rest) => format!("{brought}{rest}\n"),
            None => format!("{line}\n"),
        };
        let all: String = report.lines().map(line).collect();
        all.replace(&boot, &format!("{FOLDER}/"))
    }

    fn install(&self, brought: &Brought) -> Result<(), Obstacle> {
        let directory = self.directory();
        let failed = |path: &Path, error: &io::Error| {
            let shown = path.display();
            let remedy = match error.kind() {
                ErrorKind::NotFound => "is the package installed?",
                ErrorKind::StorageFull => "the card is full; make room on it",
                ErrorKind::IsADirectory => "give the file in the folder another name",
                _ => "does the card still work?",
            };
            Obstacle::Failed(format!("could not write {shown}: {error}; {remedy}"))
        };
        // The package gives the directory to root and the gateway's group; what comes into it is theirs, too.
        let group = fs::metadata(directory)
            .map_err(|error| failed(directory, &error))?
            .gid();
        let files = brought.files.iter().map(|file| (&*file.name, &file.bytes));
        let mut written = Vec::new();
        for (name, bytes) in files.chain([(MAIN, &brought.main)]) {
            let path = if name == MAIN {
                self.configuration.clone()
            } else {
                directory.join(name)
            };
            let new = Written::beside(&path, bytes, Some(group)).map_err(|error| failed(&path, &error))?;
            written.push((new, path));
        }
        for (new, path) in written {
            new.replace(&path).map_err(|error| failed(&path, &error))?;
        }
        flush(directory).map_err(|error| failed(directory, &error))
    }

    fn tell(&self, now: Moment, done: Result<Installed, Obstacle>) -> Told {
        let (verdict, report) = report::write(now, done);
        let path = self.boot.join(REPORT);
        let mut complaints = Vec::new();
        if let Err(error) = write(&path, report.replace('\n', "\r\n").as_bytes()) {
            complaints.push(format!(
                "could not write {}: {error}; what became of the files there stands only in the system's journal",
                path.display()
            ));
        }
        Told {
            verdict,
            report,
            complaints,
        }
    }

    fn remember(&self, checksum: &str) -> io::Result<()> {
        fs::create_dir_all(&self.state)?;
        write(&self.taken(), format!("{checksum}\n").as_bytes())
    }

    fn forget(&self) -> io::Result<()> {
        fs::remove_file(self.taken())?;
        flush(&self.state)
    }

    /// Holds the checksum of what was installed last.
    fn taken(&self) -> PathBuf {
        self.state.join("firstboot")
    }

    fn directory(&self) -> &Path {
        self.configuration.parent().unwrap_or(Path::new("."))
    }
}

/// A file that is on the disk under another name, and goes if it does not replace the one it is for.
struct Written(PathBuf);

impl Written {
    /// For root and `group` alone, if there is one; a FAT partition knows no owners.
    fn beside(path: &Path, bytes: &[u8], group: Option<u32>) -> io::Result<Self> {
        if path.is_dir() {
            return Err(ErrorKind::IsADirectory.into());
        }
        // No file of the folder has such a name: those that begin with a dot are left there.
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(".new");
        let new = path.with_file_name(name);
        // What a power cut has left. Whoever owns the directory may have put a link there, too: it is not followed.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        let written = Self(new);
        file.write_all(bytes)?;
        if group.is_some() {
            fchown(&file, None, group)?;
            file.set_permissions(fs::Permissions::from_mode(0o640))?;
        }
        file.sync_all()?;
        Ok(written)
    }

    /// After a power cut `path` is the old file or the new one.
    fn replace(self, path: &Path) -> io::Result<()> {
        fs::rename(&self.0, path)
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        // Gone already where it has replaced the other; else the next boot tries again.
        drop(fs::remove_file(&self.0));
    }
}

/// Replaces a file, durably.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    Written::beside(path, bytes, None)?.replace(path)?;
    // On FAT a file's length and place stand with its name. Under the new name they are none until the file itself is
    // flushed once more: flushing the directory leaves an empty file.
    flush(path)?;
    flush(path.parent().unwrap_or(Path::new(".")))
}

/// Makes a file durable, or which names a directory has.
fn flush(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
