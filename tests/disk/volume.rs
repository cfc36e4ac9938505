//! A filesystem on a file, mounted on a folder.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

/// An empty ext4 of so many MiB.
pub(crate) fn empty_ext4(mebibytes: u64) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    file.as_file().set_len(mebibytes << 20).expect("sparse");
    let path = shown(file.path());
    // A small journal of the filesystem's own, no part of it made only later, and nothing kept back for root.
    run(
        "mkfs.ext4",
        &[
            "-q",
            "-b4096",
            "-m0",
            "-Jsize=4",
            "-Elazy_itable_init=0,lazy_journal_init=0,nodiscard",
            &path,
        ],
    );
    fs::read(file.path()).expect("just made")
}

/// A mounted filesystem; unmounted when dropped.
pub(crate) struct Volume {
    point: PathBuf,
}

impl Volume {
    /// Mounts the filesystem in `file` on the folder `point`, which is made if missing. ext4 replays its journal.
    pub(crate) fn mount(file: &Path, point: &Path, options: &str) -> Self {
        fs::create_dir_all(point).expect("a folder");
        let options = format!("loop,noatime,errors=remount-ro,{options}");
        run("mount", &["-text4", "-o", &options, &shown(file), &shown(point)]);
        Self {
            point: point.to_owned(),
        }
    }

    /// Mounts a disk's content, in a file beside the folder.
    pub(crate) fn of(content: &[u8], point: &Path) -> Self {
        let file = point.with_extension("image");
        let mut image = fs::File::create(&file).expect("a file");
        image.write_all(content).expect("room for an image");
        drop(image);
        let volume = Self::mount(&file, point, "rw");
        // The loop device keeps it open.
        fs::remove_file(&file).expect("just made");
        volume
    }

    pub(crate) fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        run("mount", &["-o", &options, &shown(&self.point)]);
    }

    /// Writes a file of zeros until nothing more fits. Removing it makes room again.
    pub(crate) fn fill(&self) -> PathBuf {
        let path = self.point.join("ballast");
        let mut file = fs::File::create(&path).expect("a file");
        for piece in [1 << 20, 4096] {
            while file.write_all(&vec![0; piece]).is_ok() && file.sync_data().is_ok() {}
        }
        path
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily: a test that fails may have left a process in it.
        let unmounted = Command::new("umount").arg(&self.point).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            drop(Command::new("umount").arg("-l").arg(&self.point).status());
        }
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Runs a program of the system that must succeed.
#[track_caller]
fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        // Debian keeps these where a user's path does not look.
        .env(
            "PATH",
            "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin",
        )
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error} (./test installs it)"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\nThese tests mount filesystems of their own: they need root, /dev/fuse and \
         loop devices. Where there are none: cargo test --locked -- --skip needs_root_to_mount",
        String::from_utf8_lossy(&output.stderr)
    );
}
