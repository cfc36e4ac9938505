//! The filesystem that the journal is on: can it be written, is there room for what the journal may still take.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::fs::{StatVfs, StatVfsMountFlags, statvfs};

use super::{super::table::size, Finding};

const CHECK: &str = "disk";
/// With less than this the journal cannot make its next segment.
const LEAST: u64 = 8 << 20;
/// Files that a filesystem must be able to hold besides: segments, the recorder's, the last good configuration.
const LEAST_FILES: u64 = 256;

/// A line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub device: (u32, u32),
    pub point: String,
    pub options: String,
    pub kind: String,
    pub source: String,
}

/// What was found of a filesystem.
struct Facts {
    is_read_only: bool,
    free: u64,
    /// None: it makes them as they are needed.
    files: Option<u64>,
    /// What the journal may still grow by; none: nobody knows.
    to_grow: Option<u64>,
    /// Errors that ext4 has counted.
    errors: u64,
}

pub(super) fn look(dir: &Path, max_bytes: Option<u64>) -> Vec<Finding> {
    let at = nearest(dir);
    let found = match statvfs(&at) {
        Ok(found) => found,
        Err(error) => {
            let why = format!("could not look at {}: {error}", at.display());
            return vec![Finding::failure(
                CHECK,
                why,
                "is it mounted? does the card hang (`dmesg`)?",
            )];
        }
    };
    let mount = mount_of(&at);
    let facts = Facts {
        is_read_only: found.f_flag.contains(StatVfsMountFlags::RDONLY),
        free: found.f_bavail.saturating_mul(found.f_frsize),
        files: files(&found),
        to_grow: max_bytes.map(|most| most.saturating_sub(occupied(dir, 3))),
        errors: mount
            .as_ref()
            .map_or(0, |mount| ext4_errors(Path::new("/sys"), mount)),
    };
    judge(&at, mount.as_ref(), &facts)
}

/// The directory, or where it would be made.
pub(super) fn nearest(dir: &Path) -> PathBuf {
    let there = dir.ancestors().find(|ancestor| ancestor.exists());
    there
        .filter(|there| !there.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
        .to_owned()
}

fn files(found: &StatVfs) -> Option<u64> {
    (found.f_files > 0).then_some(found.f_favail)
}

fn judge(at: &Path, mount: Option<&Mount>, facts: &Facts) -> Vec<Finding> {
    let place = match mount {
        Some(mount) => format!("{} ({} on {})", at.display(), mount.kind, mount.source),
        None => at.display().to_string(),
    };
    let mut findings = Vec::new();
    if facts.is_read_only {
        findings.push(Finding::failure(
            CHECK,
            format!("{place} is read-only"),
            "the kernel makes a filesystem read-only when its card fails: look at `dmesg`, copy the journal's directory, \
             replace the card. If it is meant to be, name another [journal] dir",
        ));
    }
    if facts.errors > 0 {
        findings.push(Finding::warning(
            CHECK,
            format!("{place}: ext4 has counted {} errors since it was last checked", facts.errors),
            "look at `dmesg`; check it with fsck.ext4 while it is not mounted; if they come again, replace the card",
        ));
    }
    if mount.is_some_and(|mount| matches!(mount.kind.as_str(), "tmpfs" | "ramfs")) {
        findings.push(Finding::warning(
            CHECK,
            format!("{place} is memory: a power cut takes all that was promised to be safe"),
            "name a [journal] dir on a disk",
        ));
    }
    let free = size(facts.free);
    if facts.free < LEAST {
        findings.push(Finding::failure(
            CHECK,
            format!("{place} is full: {free} are free"),
            "make room: nothing is evaluated while the journal cannot be written",
        ));
    } else if let Some(files) = facts.files.filter(|files| *files < LEAST_FILES) {
        findings.push(Finding::warning(
            CHECK,
            format!("{place} has room for {files} more files"),
            "delete small files that nobody needs: it is full for new ones before it is full",
        ));
    } else if let Some(to_grow) = facts.to_grow.filter(|to_grow| *to_grow > facts.free) {
        findings.push(Finding::warning(
            CHECK,
            format!(
                "{place}: {free} are free, and the journal may take {} more",
                size(to_grow)
            ),
            "make room, or write a smaller [journal] max-bytes",
        ));
    } else if findings.is_empty() {
        let grows = facts.to_grow.map_or_else(String::new, |bytes| {
            format!(", the journal may take {} more", size(bytes))
        });
        findings.push(Finding::ok(CHECK, format!("{place}: {free} free{grows}")));
    }
    let card = mount.filter(|mount| mount.source.contains("mmcblk") && !facts.is_read_only);
    if let Some(mount) = card {
        let has = |option: &str| mount.options.split(',').any(|set| set.starts_with(option));
        let lacks_commit = mount.kind == "ext4" && !has("commit=");
        let lacks = [(!has("noatime"), "noatime"), (lacks_commit, "commit=600")];
        let lacks: Vec<&str> = lacks
            .into_iter()
            .filter_map(|(is, option)| is.then_some(option))
            .collect();
        if !lacks.is_empty() {
            let said = format!(
                "mounted without {}: the card is written more than events need (docs/operating.md, \"Sparing the card\")",
                lacks.join(" and ")
            );
            findings.push(Finding::note(CHECK, said));
        }
    }
    findings
}

/// What is under a directory, so many levels deep.
fn occupied(dir: &Path, levels: usize) -> u64 {
    let Some(levels) = levels.checked_sub(1) else {
        return 0;
    };
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => occupied(&entry.path(), levels),
        Ok(found) => found.len(),
        Err(_) => 0,
    });
    bytes.sum()
}

/// What a path is mounted from.
pub(super) fn mount_of(path: &Path) -> Option<Mount> {
    let path = fs::canonicalize(path).ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    over(&mounts, &path)
}

/// The deepest mount above a path; of several at one place the last hides the others. Not by the mount's number: kernels
/// before 5.8 and qemu's user emulation do not tell it.
fn over(mounts: &str, path: &Path) -> Option<Mount> {
    let above = mounts.lines().filter_map(read);
    above
        .filter(|mount| path.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.len())
}

/// `36 35 98:0 /root /mnt rw,noatime shared:1 - ext3 /dev/root rw,errors=continue`, proc(5).
fn read(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ');
    let (major, minor) = before.nth(2)?.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    let point = before.nth(1)?.to_owned();
    let options = before.next()?;
    let mut after = after.split(' ');
    Some(Mount {
        device,
        point,
        kind: after.next()?.to_owned(),
        source: after.next()?.to_owned(),
        // Of this mount and of the filesystem, wherever it is mounted.
        options: format!("{options},{}", after.next()?),
    })
}

fn ext4_errors(sys: &Path, mount: &Mount) -> u64 {
    let (major, minor) = mount.device;
    let device = fs::canonicalize(sys.join(format!("dev/block/{major}:{minor}")));
    let name = device
        .ok()
        .and_then(|device| device.file_name().map(ToOwned::to_owned));
    let count =
        name.and_then(|name| fs::read_to_string(sys.join("fs/ext4").join(name).join("errors_count")).ok());
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Severity;

    fn mount(kind: &str, source: &str, options: &str) -> Mount {
        Mount {
            device: (179, 2),
            point: "/".to_owned(),
            options: options.to_owned(),
            kind: kind.to_owned(),
            source: source.to_owned(),
        }
    }

    const GOOD: Facts = Facts {
        is_read_only: false,
        free: 1 << 30,
        files: Some(100_000),
        to_grow: Some(200 << 20),
        errors: 0,
    };

    #[test]
    fn each_thing_that_a_disk_can_have_is_found_and_a_good_one_is_good() {
        let card = mount("ext4", "/dev/mmcblk0p2", "rw,noatime,rw,commit=600");
        let found = |mount: &Mount, facts: Facts| -> Vec<(Severity, String)> {
            let findings = judge(Path::new("/var/lib/tidegate"), Some(mount), &facts);
            let pair = |finding: Finding| (finding.severity, finding.found);
            findings.into_iter().map(pair).collect()
        };
        let good = found(&card, GOOD);
        assert!(matches!(good.as_slice(), [(Severity::Ok, _)]), "{good:?}");
        for (facts, severity, words) in [
            (
                Facts {
                    is_read_only: true,
                    ..GOOD
                },
                Severity::Failure,
                "is read-only",
            ),
            (
                Facts {
                    free: 1 << 20,
                    ..GOOD
                },
                Severity::Failure,
                "is full: 1.0 MiB",
            ),
            (
                Facts {
                    free: 100 << 20,
                    ..GOOD
                },
                Severity::Warning,
                "may take 200.0 MiB more",
            ),
            (
                Facts {
                    files: Some(10),
                    ..GOOD
                },
                Severity::Warning,
                "10 more files",
            ),
            (Facts { errors: 3, ..GOOD }, Severity::Warning, "counted 3 errors"),
        ] {
            let found = found(&card, facts);
            let (worst, said) = found.first().expect("a finding");
            assert_eq!((*worst, said.contains(words)), (severity, true), "{found:?}");
            assert!(
                found
                    .iter()
                    .all(|(severity, _)| *severity != Severity::Ok || words.contains("is read-only"))
            );
        }
        let memory = found(&mount("tmpfs", "tmpfs", "rw"), GOOD);
        assert_eq!(memory.first().expect("one").0, Severity::Warning, "{memory:?}");
        for (kind, options, lacks) in [
            ("ext4", "rw,relatime,rw", "without noatime and commit=600:"),
            ("ext4", "rw,relatime,rw,commit=600", "without noatime:"),
            ("ext4", "rw,noatime,rw", "without commit=600:"),
            ("f2fs", "rw,relatime,rw", "without noatime:"),
        ] {
            let found = found(&mount(kind, "/dev/mmcblk0p2", options), GOOD);
            let notes =
                |(severity, said): &(Severity, String)| *severity == Severity::Note && said.contains(lacks);
            assert!(found.iter().any(notes), "{found:?}");
        }
        let disk = found(
            &mount("ext4", "/dev/sda1", "rw,relatime"),
            Facts { files: None, ..GOOD },
        );
        assert_eq!(disk.len(), 1, "{disk:?}");
    }

    #[test]
    fn a_mount_is_read_as_the_kernel_writes_it() {
        let line = "36 35 179:2 /root /mnt rw,noatime shared:1 - ext4 /dev/mmcblk0p2 rw,errors=continue";
        let expected = Mount {
            point: "/mnt".to_owned(),
            ..mount("ext4", "/dev/mmcblk0p2", "rw,noatime,rw,errors=continue")
        };
        assert_eq!(read(line), Some(expected));
        assert_eq!(read("no mount"), None);
        assert!(mount_of(Path::new("/")).is_some(), "this machine has a root");
    }

    #[test]
    fn a_path_is_on_the_deepest_mount_above_it_and_on_the_last_of_those_at_one_place() {
        let mounts = "1 0 8:1 / / rw - ext4 root rw\n\
                      2 1 8:2 / /var/lib rw - ext4 hidden rw\n\
                      3 1 8:3 / /var/lib rw - ext4 card rw\n\
                      4 1 8:4 / /var/lib/tide rw - ext4 other rw\n";
        let source = |path: &str| over(mounts, Path::new(path)).map(|mount| mount.source);
        assert_eq!(source("/var/lib/tidegate").as_deref(), Some("card"));
        assert_eq!(source("/var/lib").as_deref(), Some("card"));
        assert_eq!(source("/var").as_deref(), Some("root"));
    }

    #[test]
    fn errors_that_ext4_counted_are_read_from_its_own_file() {
        let sys = tempfile::tempdir().unwrap();
        let device = sys.path().join("devices/mmcblk0/mmcblk0p2");
        fs::create_dir_all(&device).unwrap();
        fs::create_dir_all(sys.path().join("dev/block")).unwrap();
        std::os::unix::fs::symlink(&device, sys.path().join("dev/block/179:2")).unwrap();
        let card = mount("ext4", "/dev/mmcblk0p2", "rw");
        assert_eq!(ext4_errors(sys.path(), &card), 0);
        let counters = sys.path().join("fs/ext4/mmcblk0p2");
        fs::create_dir_all(&counters).unwrap();
        fs::write(counters.join("errors_count"), "17\n").unwrap();
        assert_eq!(ext4_errors(sys.path(), &card), 17);
    }
}
