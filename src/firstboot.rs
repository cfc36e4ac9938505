//! First boot: what an installer put on the card's boot partition becomes the gateway's configuration.
//!
//! `gateway.toml` there, and the files of a folder `tidegate` beside it (certificates, keys, passwords), are checked as
//! they would stand in the configuration's directory. All of them are installed or none, each replaced whole,
//! `gateway.toml` last; a report beside them says which, and why. What was installed is remembered by its checksum and
//! not looked at again, so that what is changed on the gateway later stays. What was refused is looked at again at the
//! next boot: another version of the program may take it.
//!
//! A power cut leaves it done or to be done again: the report comes after the last file, the checksum after the report.
//! On the boot partition nothing is changed but the report, and nothing is deleted: it may be the installer's only copy.

use std::{
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

/// Why nothing was installed.
#[derive(Debug)]
enum Obstacle {
    /// The installer's to mend: one or more lines.
    Wrong(String),
    /// Not the installer's.
    Failed(String),
}

impl FirstBoot {
    /// Takes what lies there; none: nothing does, or it was taken before. `now` is for the report.
    #[must_use]
    pub fn take(&self, now: Moment) -> Option<Told> {
        let brought = match Brought::read(&self.boot) {
            Ok(None) => return None,
            Ok(Some(brought)) => brought,
            Err(obstacle) => return Some(self.tell(now, Err(obstacle))),
        };
        let checksum = brought.checksum();
        if fs::read_to_string(self.taken()).is_ok_and(|taken| taken.trim() == checksum) {
            return None;
        }
        let done = self.check(&brought).and_then(|config| {
            self.install(&brought)?;
            Ok(Installed::of(&config, &brought, &self.configuration))
        });
        let mut told = self.tell(now, done);
        if told.verdict == Verdict::Installed
            && let Err(error) = self.remember(&checksum)
        {
            told.complaints.push(format!(
                "could not write {}: {error}; the same files will be installed again at the next boot",
                self.taken().display()
            ));
        }
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
            Obstacle::Failed(match error.kind() {
                ErrorKind::NotFound => format!("could not write {shown}: {error}; is the package installed?"),
                ErrorKind::StorageFull => {
                    format!("could not write {shown}: the card is full; make room on it")
                }
                _ => format!("could not write {shown}: {error}; does the card still work?"),
            })
        };
        // The package gives the directory to root and the gateway's group; what comes into it is theirs, too.
        let group = fs::metadata(directory)
            .map_err(|error| failed(directory, &error))?
            .gid();
        let files = brought.files.iter().map(|file| (&*file.name, &file.bytes));
        for (name, bytes) in files.chain([(MAIN, &brought.main)]) {
            let path = if name == MAIN {
                self.configuration.clone()
            } else {
                directory.join(name)
            };
            replace(&path, bytes, Some(group)).map_err(|error| failed(&path, &error))?;
        }
        Ok(())
    }

    fn tell(&self, now: Moment, done: Result<Installed, Obstacle>) -> Told {
        let (verdict, report) = report::write(now, done);
        let path = self.boot.join(REPORT);
        let mut complaints = Vec::new();
        if let Err(error) = replace(&path, report.replace('\n', "\r\n").as_bytes(), None) {
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
        replace(&self.taken(), format!("{checksum}\n").as_bytes(), None)
    }

    /// Holds the checksum of what was installed last.
    fn taken(&self) -> PathBuf {
        self.state.join("firstboot")
    }

    fn directory(&self) -> &Path {
        self.configuration.parent().unwrap_or(Path::new("."))
    }
}

/// Replaces a file whole: after a power cut it is the old one or the new one. For root and `group` alone, if there is
/// one; a FAT partition knows no owners.
fn replace(path: &Path, bytes: &[u8], group: Option<u32>) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = directory.join(name);
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
    file.write_all(bytes)?;
    if group.is_some() {
        fchown(&file, None, group)?;
        file.set_permissions(fs::Permissions::from_mode(0o640))?;
    }
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(directory)?.sync_all()
}
