//! A disk of its own to be measured: what reaches it, not what the page cache was told.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::option;

/// As a filesystem is mounted of which nothing is said.
pub const AS_USUAL: &str = "defaults";

/// What the device has done, once all that is on its way has arrived.
pub struct Counters {
    /// Written.
    pub bytes: u64,
    /// Of its cache.
    pub flushes: u64,
}

impl Counters {
    /// Of the device whose `stat` that is; `on` is a folder on it.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub fn read(device: &Path, on: &Path) -> Self {
        let folder = fs::File::open(on).expect("a folder");
        rustix::fs::syncfs(&folder).expect("synced");
        let text = fs::read_to_string(device).unwrap_or_else(|error| panic!("{}: {error}", device.display()));
        let fields: Vec<u64> = text
            .split_whitespace()
            .filter_map(|field| field.parse().ok())
            .collect();
        Self {
            bytes: fields[6] * 512,
            flushes: fields[15],
        }
    }
}

/// An ext4 on a loop device, gone when dropped.
pub struct Disk {
    folder: tempfile::TempDir,
    device: String,
}

impl Disk {
    /// In the temporary folder, or where `--on` says; mounted with these options.
    ///
    /// # Panics
    ///
    /// If the machine has no loop device for us: it needs root.
    #[must_use]
    pub fn make(size: u64, options: &str) -> Self {
        let on: String = option("--on", std::env::temp_dir().display().to_string());
        let folder = tempfile::tempdir_in(on).expect("a folder");
        let image = folder.path().join("image");
        let file = fs::File::create(&image).expect("an image");
        // Written, not sparse: the file system below must not have to find room while it is measured.
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size)
            .expect("room for the image");
        run(Command::new("mkfs.ext4")
            .args(["-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"])
            .arg(&image));
        let output = Command::new("losetup")
            .args(["--find", "--show", "--direct-io=on"])
            .arg(&image)
            .output();
        let output = output.expect("losetup");
        assert!(
            output.status.success(),
            "no loop device: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let device = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let disk = Self { folder, device };
        fs::create_dir(disk.path()).expect("a mount point");
        run(Command::new("mount")
            .args(["-o", options])
            .arg(&disk.device)
            .arg(disk.path()));
        disk
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    /// Where its counters stand.
    #[must_use]
    pub fn counters(&self) -> PathBuf {
        let name = self.device.rsplit('/').next().unwrap_or_default();
        format!("/sys/block/{name}/stat").into()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        _ = Command::new("umount").arg(self.path()).status();
        _ = Command::new("losetup").arg("--detach").arg(&self.device).status();
    }
}

fn run(command: &mut Command) {
    let status = command
        .status()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}
