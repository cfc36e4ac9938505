//! The few things that the journal asks of a file system, so that a test can lose, tear and keep unsynced
//! writes as a power cut does. Nothing here knows what is written.

use std::{
    any::Any,
    fmt, fs, io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

pub(super) mod looking;
#[doc(hidden)]
pub mod simulated;

/// Of what the disk cannot read, so much is given up at once.
const PAGE: usize = 4096;

/// An open file: read and written at offsets, never appended to.
pub trait File: Send + Sync + fmt::Debug {
    /// Reads as much as there is from `offset`, at most the buffer.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of it.
    ///
    /// # Errors
    ///
    /// What the system says; some of it may have been written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// `Ok` means that all writes so far are on the disk.
    ///
    /// # Errors
    ///
    /// What the system says; what was written may be lost, whatever a later call says.
    fn sync_data(&self) -> io::Result<()>;
    /// The file's length.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn size(&self) -> io::Result<u64>;
}

/// A file system, as far as the journal needs one. Its errors are the system's.
pub trait Storage: Send + Sync + fmt::Debug {
    /// The names in a directory, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Whether there is such a directory.
    fn is_dir(&self, path: &Path) -> bool;
    /// Makes a directory and its parents; fine if it exists.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Opens a file for reading and writing; makes it if missing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Renames a file or directory, atomically.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and all in it.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes names durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Keeps other processes out until the answer is dropped. `Err(AddrInUse)` carries the other's pid.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send>>;
}

/// The real one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

#[derive(Debug)]
pub(super) struct DiskFile(pub(super) fs::File);

impl File for DiskFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.0.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

impl Storage for Disk {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn is_dir(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = fs::File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        Ok(Arc::new(DiskFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send>> {
        let file = fs::File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let pid = fs::read_to_string(path).unwrap_or_default();
                let pid = if pid.trim().is_empty() {
                    "(unknown)"
                } else {
                    pid.trim()
                };
                return Err(io::Error::new(io::ErrorKind::AddrInUse, pid.to_owned()));
            }
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
        file.set_len(0)?;
        file.write_all_at(format!("{}\n", std::process::id()).as_bytes(), 0)?;
        Ok(Box::new(file))
    }
}

/// Reads as `read_at` does, with zeros for what the disk cannot read any more: whoever checks what is read finds
/// damage there, and goes on behind it. Answers also whether there was such a place.
pub(super) fn read_around(file: &dyn File, buffer: &mut [u8], offset: u64) -> io::Result<(usize, bool)> {
    let is_lost = |error: &io::Error| error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error());
    match file.read_at(buffer, offset) {
        Err(error) if is_lost(&error) => {}
        read => return Ok((read?, false)),
    }
    let length = usize::try_from(file.size()?.saturating_sub(offset)).unwrap_or(usize::MAX);
    let mut at = 0;
    let end = length.min(buffer.len());
    while at < end {
        let page = PAGE - usize::try_from((offset + at as u64) % PAGE as u64).unwrap_or(0);
        let to = (at + page).min(end);
        let Some(piece) = buffer.get_mut(at..to) else {
            break;
        };
        match file.read_at(piece, offset + at as u64) {
            Err(error) if is_lost(&error) => piece.fill(0),
            read => drop(read?),
        }
        at = to;
    }
    Ok((end, true))
}

/// Everything that a directory and what is below it occupy, as far as it can be read.
pub(super) fn occupied(storage: &dyn Storage, dir: &Path) -> u64 {
    let mut total = 0;
    for name in storage.list(dir).unwrap_or_default() {
        let path: PathBuf = dir.join(name);
        if storage.is_dir(&path) {
            total += occupied(storage, &path);
        } else if let Ok(file) = storage.open(&path) {
            total += file.size().unwrap_or(0);
        }
    }
    total
}
