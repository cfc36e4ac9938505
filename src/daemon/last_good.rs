//! The last configuration that loaded, per path: what a gateway starts with when an edit went wrong.
//!
//! One file, so that it is replaced whole: the text of the configuration, and behind it that of each file it includes,
//! under a comment that names it. A person can read it, and take the parts out again.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use tracing::warn;

use crate::config::{self, Config, FileText, Report};

/// Begins the line above an included file's text; its path follows, in quotes if it is not one plain line of text.
const INCLUDED: &str = "#@ included ";
/// What marks begin with.
const MARK: &str = "#@";

/// Where the last good version of one configuration file is kept.
#[derive(Clone, Debug)]
pub struct LastGood {
    file: PathBuf,
}

impl LastGood {
    /// Of the configuration at `path`: in the state directory.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let name = Sha256::digest(absolute.as_os_str().as_encoded_bytes());
        let name = name
            .iter()
            .take(8)
            .fold(0_u64, |name, byte| name << 8 | u64::from(*byte));
        Self {
            file: config::state_directory()
                .join("last-good")
                .join(format!("{name:016x}.toml")),
        }
    }

    /// The configuration kept, if there is one.
    ///
    /// # Errors
    ///
    /// It does not load any more: most likely a file that it names is gone, and may come back.
    pub fn load(&self) -> Option<Result<Config, Report>> {
        if !self.file.exists() {
            return None;
        }
        let kept = Report::read(&self.file, "the last good configuration");
        Some(kept.and_then(|kept| Config::of_files(apart(&self.file, &kept))))
    }

    /// Keeps `files`, which have loaded. Not writable: not kept, one warning; the gateway runs.
    pub fn keep(&self, files: &[FileText]) {
        if let Err(error) = self.replace(&together(files)) {
            warn!(
                file = %self.file.display(), reason = %error,
                "could not keep the last good configuration: a later mistake in the file will stop the gateway from starting"
            );
        }
    }

    fn replace(&self, text: &str) -> std::io::Result<()> {
        if std::fs::read(&self.file).is_ok_and(|kept| kept == text.as_bytes()) {
            return Ok(());
        }
        let dir = self.file.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir)?;
        let new = self.file.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, &self.file)?;
        File::open(dir)?.sync_all()
    }
}

fn together(files: &[FileText]) -> String {
    let mut all = String::new();
    for (index, file) in files.iter().enumerate() {
        if index > 0 {
            all.extend(["\n", INCLUDED, &marked(&file.path), "\n"]);
        }
        for line in file.text.split_inclusive('\n') {
            // What looks like a mark in a file's own text gets one more, so that it is none.
            let (marks, rest) = line.strip_prefix(MARK).map_or(("", line), |rest| ("#@@", rest));
            all.extend([marks, rest]);
        }
    }
    all
}

/// A path as one line of text.
fn marked(path: &Path) -> String {
    let plain = path.display().to_string();
    if plain.starts_with('"') || plain.contains(char::is_control) {
        serde_json::Value::from(plain).to_string()
    } else {
        plain
    }
}

/// What [`marked`] wrote. The name is only for reports: the text stands below it.
fn unmarked(line: &str) -> PathBuf {
    let quoted = line
        .starts_with('"')
        .then(|| serde_json::from_str::<String>(line).ok());
    quoted.flatten().unwrap_or_else(|| line.to_owned()).into()
}

/// The files that [`together`] put into `kept`; the first is now called `main`.
fn apart(main: &Path, kept: &str) -> Vec<FileText> {
    let mark = format!("\n{INCLUDED}");
    let mut parts = kept.split(mark.as_str());
    let file = |path: &Path, text: &str| FileText {
        path: path.to_owned(),
        text: text
            .split_inclusive('\n')
            .flat_map(|line| line.strip_prefix("#@@").map_or(["", line], |rest| [MARK, rest]))
            .collect(),
    };
    let mut files = vec![file(main, parts.next().unwrap_or_default())];
    files.extend(parts.filter_map(|part| {
        let (path, text) = part.split_once('\n')?;
        Some(file(&unmarked(path), text))
    }));
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_together_comes_apart_again_whether_or_not_it_ends_with_a_new_line() {
        let file = |path: &str, text: &str| FileText {
            path: path.into(),
            text: text.into(),
        };
        for files in [
            vec![file("/etc/tidegate/gateway.toml", "a = 1\n")],
            vec![
                file("/etc/tidegate/gateway.toml", "include = [\"rules/*\"]"),
                file("/etc/tidegate/rules/a.toml", ""),
                file("/etc/tidegate/rules/b c.toml", "\n[[rule]]\n\n"),
            ],
            vec![
                file("/etc/tidegate/gateway.toml", "include = [\"*\"]"),
                file("/etc/tidegate/of\ntwo lines.toml", "a = 1\n"),
                file("\"quoted\".toml", "#@ included x\nb = 1\n#@ included y\n#@@@ z"),
            ],
        ] {
            assert_eq!(apart(&files[0].path, &together(&files)), files);
        }
    }
}
