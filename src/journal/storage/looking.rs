//! The machine's files, looked at: nothing is made, changed or locked. What a recovery would write is kept in memory,
//! so that whoever looks at a directory finds what the next start would, by the same code.

use std::{
    any::Any,
    fs, io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use super::{Disk, DiskFile, File, Storage};

/// The storage.
#[derive(Clone, Copy, Debug)]
pub(in crate::journal) struct Looking;

/// A file as it lies there, with what was written over it since it was opened; none if there is no file.
#[derive(Debug)]
struct Looked {
    file: Option<DiskFile>,
    written: Mutex<Vec<(u64, Vec<u8>)>>,
}

impl Looked {
    fn written(&self) -> std::sync::MutexGuard<'_, Vec<(u64, Vec<u8>)>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl File for Looked {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut count = match &self.file {
            Some(file) => file.read_at(buffer, offset)?,
            None => 0,
        };
        for (at, bytes) in self.written().iter() {
            for (index, byte) in buffer.iter_mut().enumerate() {
                let place = (offset + index as u64)
                    .checked_sub(*at)
                    .and_then(|place| bytes.get(usize::try_from(place).ok()?));
                if let Some(new) = place {
                    *byte = *new;
                    count = count.max(index + 1);
                }
            }
        }
        Ok(count)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.written().push((offset, bytes.to_vec()));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        let on_disk = self.file.as_ref().map_or(Ok(0), File::size)?;
        let written = self.written();
        let ends = written.iter().map(|(at, bytes)| at + bytes.len() as u64);
        Ok(ends.fold(on_disk, u64::max))
    }
}

fn never() -> io::Error {
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "the journal is only looked at")
}

impl Storage for Looking {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        Disk.list(dir)
    }

    fn is_dir(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Err(never())
    }

    /// What is missing is empty: it may just be given another name by the gateway that uses it.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = match fs::File::open(path) {
            Ok(file) => Some(DiskFile(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Arc::new(Looked {
            file,
            written: Mutex::default(),
        }))
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(never())
    }

    fn remove_file(&self, _: &Path) -> io::Result<()> {
        Err(never())
    }

    fn remove_dir(&self, _: &Path) -> io::Result<()> {
        Err(never())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn Any + Send>> {
        Err(never())
    }
}
