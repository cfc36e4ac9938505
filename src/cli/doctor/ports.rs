//! Serial ports: those that are configured, those that are there, and their names that stay. None is opened.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use super::Finding;

/// Where udev keeps the names that stay, the better ones first.
const STABLE: [&str; 2] = ["serial/by-id", "serial/by-path"];
/// The kernel numbers these as they are plugged in.
const COUNTED: [&str; 2] = ["ttyUSB", "ttyACM"];

pub(super) fn look(dev: &Path, lines: &[(String, PathBuf)]) -> Vec<Finding> {
    let adapters = adapters(dev);
    let mut findings: Vec<Finding> = lines
        .iter()
        .map(|(name, port)| line(name, port, &adapters))
        .collect();
    let used: Vec<PathBuf> = lines
        .iter()
        .filter_map(|(_, port)| fs::canonicalize(port).ok())
        .collect();
    for (target, names) in adapters.iter().filter(|(target, _)| !used.contains(target)) {
        if let Some(name) = names.first() {
            let said = format!(
                "{} is there ({}), and no line uses it",
                name.display(),
                target.display()
            );
            findings.push(Finding::note("serial ports", said));
        }
    }
    findings
}

/// What is plugged in: the device, and its names that stay.
fn adapters(dev: &Path) -> BTreeMap<PathBuf, Vec<PathBuf>> {
    let mut adapters = BTreeMap::<PathBuf, Vec<PathBuf>>::new();
    for place in STABLE {
        let mut names: Vec<PathBuf> = fs::read_dir(dev.join(place))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        names.sort();
        for name in names {
            if let Ok(target) = fs::canonicalize(&name) {
                adapters.entry(target).or_default().push(name);
            }
        }
    }
    adapters
}

fn line(name: &str, port: &Path, adapters: &BTreeMap<PathBuf, Vec<PathBuf>>) -> Finding {
    let check = &format!("line {name}");
    let shown = port.display();
    match fs::metadata(port) {
        Ok(found) if found.file_type().is_char_device() => {}
        Ok(_) => {
            let remedy = "name a serial port as port, best one of /dev/serial/by-id";
            return Finding::failure(check, format!("{shown} is no serial port"), remedy);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let there: Vec<String> = adapters
                .values()
                .filter_map(|names| names.first())
                .map(|name| name.display().to_string())
                .collect();
            let remedy = if there.is_empty() {
                "is the adapter plugged in? `dmesg` tells when one comes; no adapter is there now".to_owned()
            } else {
                format!("is the adapter plugged in? there are {}", there.join(", "))
            };
            return Finding::failure(check, format!("{shown}: no such file"), remedy);
        }
        Err(error) => {
            return Finding::failure(check, format!("{shown}: {error}"), "look at it as root");
        }
    }
    let target = fs::canonicalize(port).unwrap_or_else(|_| port.to_owned());
    let is_counted = port.file_name().is_some_and(|name| {
        COUNTED
            .iter()
            .any(|counted| name.to_string_lossy().starts_with(counted))
    });
    let stable = adapters.get(&target).and_then(|names| names.first());
    match stable {
        Some(stable) if is_counted => Finding::warning(
            check,
            format!("{shown} is there, but its number may be another adapter's after the next start"),
            format!("write port = \"{}\"", stable.display()),
        ),
        None if is_counted => Finding::note(
            check,
            format!("{shown} is there; its number may change, and udev has no name for it that stays"),
        ),
        _ if target == port => Finding::ok(check, format!("{shown} is there")),
        _ => Finding::ok(check, format!("{shown} is there ({})", target.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Severity;

    /// A /dev with one adapter, which is /dev/null by another name.
    fn dev() -> tempfile::TempDir {
        let dev = tempfile::tempdir().unwrap();
        fs::create_dir_all(dev.path().join("serial/by-id")).unwrap();
        let link = |name: &str| std::os::unix::fs::symlink("/dev/null", dev.path().join(name)).unwrap();
        link("serial/by-id/usb-FTDI-if00");
        link("ttyUSB0");
        fs::write(dev.path().join("file"), "").unwrap();
        dev
    }

    fn found(dev: &Path, port: &str) -> Vec<Finding> {
        look(dev, &[("boiler".to_owned(), dev.join(port))])
    }

    #[test]
    fn a_port_by_its_lasting_name_is_right_and_by_its_number_is_not() {
        let dev = dev();
        let by_id = found(dev.path(), "serial/by-id/usb-FTDI-if00");
        assert_eq!(by_id.len(), 1, "{by_id:?}");
        assert_eq!(by_id.first().unwrap().severity, Severity::Ok);
        let by_number = found(dev.path(), "ttyUSB0");
        let first = by_number.first().unwrap();
        assert_eq!(first.severity, Severity::Warning);
        assert!(
            first
                .remedy
                .as_ref()
                .unwrap()
                .ends_with("serial/by-id/usb-FTDI-if00\""),
            "{first:?}"
        );
    }

    #[test]
    fn a_missing_port_is_told_with_those_that_are_there() {
        let dev = dev();
        let found = found(dev.path(), "ttyUSB7");
        let first = found.first().unwrap();
        assert_eq!(first.severity, Severity::Failure);
        assert!(
            first.remedy.as_ref().unwrap().contains("usb-FTDI-if00"),
            "{first:?}"
        );
        let unused = found.get(1).unwrap();
        assert_eq!(unused.severity, Severity::Note);
        assert!(unused.found.contains("no line uses it"), "{unused:?}");
    }

    #[test]
    fn a_plain_file_is_no_port() {
        let dev = dev();
        assert_eq!(
            found(dev.path(), "file").first().unwrap().severity,
            Severity::Failure
        );
    }
}
