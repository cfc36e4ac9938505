//! A disk that can be cut from its power: for tests only. Writes that were not synced are kept, lost or torn
//! at random when that happens; whoever had files open finds them dead.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use super::{File, Storage};

/// The disk. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct Simulated(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    files: BTreeMap<PathBuf, Arc<Mutex<Content>>>,
    dirs: BTreeSet<PathBuf>,
    generation: u64,
    full: bool,
    failing_sync: bool,
    read_bytes: u64,
}

#[derive(Debug, Default)]
struct Content {
    durable: Vec<u8>,
    seen: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
}

/// The disk as one process sees it: dead once the power goes or the process is killed.
#[derive(Debug)]
struct Mount {
    disk: Simulated,
    generation: u64,
}

#[derive(Debug)]
struct Handle {
    disk: Simulated,
    generation: u64,
    content: Arc<Mutex<Content>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn put(into: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if into.len() < offset + bytes.len() {
        into.resize(offset + bytes.len(), 0);
    }
    if let Some(place) = into.get_mut(offset..offset + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

impl Simulated {
    /// The disk for a process that starts now.
    #[must_use]
    pub fn mount(&self) -> Arc<dyn Storage> {
        Arc::new(Mount {
            disk: self.clone(),
            generation: locked(&self.0).generation,
        })
    }

    fn alive(&self, generation: u64) -> io::Result<MutexGuard<'_, Inner>> {
        let inner = locked(&self.0);
        if inner.generation == generation {
            Ok(inner)
        } else {
            Err(io::Error::other("no power"))
        }
    }

    /// The power goes: each unsynced write is kept, lost or torn, as `random` says. Open files are dead.
    pub fn power_cut(&self, random: &mut fastrand::Rng) {
        let mut inner = locked(&self.0);
        inner.generation += 1;
        for content in inner.files.values() {
            let content = &mut *locked(content);
            for (offset, bytes) in std::mem::take(&mut content.unsynced) {
                let (from, to) = match random.u8(0..4) {
                    0 => (0, bytes.len()),
                    1 => (0, 0),
                    2 => (0, random.usize(0..=bytes.len())),
                    _ => (random.usize(0..=bytes.len()), bytes.len()),
                };
                put(
                    &mut content.durable,
                    offset + from,
                    bytes.get(from..to).unwrap_or_default(),
                );
            }
            content.seen = content.durable.clone();
        }
    }

    /// The process dies, the machine lives: all that was written is still seen, unsynced or not.
    pub fn kill(&self) {
        locked(&self.0).generation += 1;
    }

    /// From now on whatever would make a file longer fails with "no space left on device".
    pub fn set_full(&self, full: bool) {
        locked(&self.0).full = full;
    }

    /// From now on every sync fails.
    pub fn set_failing_sync(&self, failing: bool) {
        locked(&self.0).failing_sync = failing;
    }

    /// How many bytes have been read since the last question.
    pub fn take_read_bytes(&self) -> u64 {
        std::mem::take(&mut locked(&self.0).read_bytes)
    }

    /// The files, sorted.
    pub fn paths(&self) -> Vec<PathBuf> {
        locked(&self.0).files.keys().cloned().collect()
    }

    /// What all files occupy.
    pub fn bytes(&self) -> u64 {
        locked(&self.0)
            .files
            .values()
            .map(|content| locked(content).seen.len() as u64)
            .sum()
    }

    /// A file's bytes, as a reader sees them.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        locked(&self.0)
            .files
            .get(path)
            .map(|content| locked(content).seen.clone())
    }

    /// Replaces a file's bytes, durably; `None` removes it.
    pub fn put_content(&self, path: &Path, bytes: Option<Vec<u8>>) {
        let mut inner = locked(&self.0);
        let Some(bytes) = bytes else {
            inner.files.remove(path);
            return;
        };
        let content = Content {
            durable: bytes.clone(),
            seen: bytes,
            unsynced: Vec::new(),
        };
        inner.files.insert(path.to_owned(), Arc::new(Mutex::new(content)));
    }

    /// Another disk with the same durable content.
    #[must_use]
    pub fn copy(&self) -> Self {
        let inner = locked(&self.0);
        let copy = Self::default();
        {
            let mut new = locked(&copy.0);
            new.dirs.clone_from(&inner.dirs);
            for (path, content) in &inner.files {
                let bytes = locked(content).durable.clone();
                let content = Content {
                    durable: bytes.clone(),
                    seen: bytes,
                    unsynced: Vec::new(),
                };
                new.files.insert(path.clone(), Arc::new(Mutex::new(content)));
            }
        }
        copy
    }
}

impl Handle {
    fn alive(&self) -> io::Result<()> {
        if locked(&self.disk.0).generation == self.generation {
            Ok(())
        } else {
            Err(io::Error::other("no power"))
        }
    }
}

impl File for Handle {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.alive()?;
        let content = locked(&self.content);
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let there = content.seen.get(offset..).unwrap_or_default();
        let count = there.len().min(buffer.len());
        if let (Some(into), Some(from)) = (buffer.get_mut(..count), there.get(..count)) {
            into.copy_from_slice(from);
        }
        locked(&self.disk.0).read_bytes += count as u64;
        Ok(count)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.alive()?;
        let full = locked(&self.disk.0).full;
        let content = &mut *locked(&self.content);
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        if full && offset + bytes.len() > content.seen.len() {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        put(&mut content.seen, offset, bytes);
        content.unsynced.push((offset, bytes.to_vec()));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.alive()?;
        if locked(&self.disk.0).failing_sync {
            return Err(io::Error::other("the disk does not answer"));
        }
        let content = &mut *locked(&self.content);
        for (offset, bytes) in std::mem::take(&mut content.unsynced) {
            put(&mut content.durable, offset, &bytes);
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        self.alive()?;
        Ok(locked(&self.content).seen.len() as u64)
    }
}

impl Storage for Mount {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let inner = self.disk.alive(self.generation)?;
        let names = inner
            .files
            .keys()
            .chain(inner.dirs.iter())
            .filter(|path| path.parent() == Some(dir));
        let mut names: Vec<String> = names
            .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .collect();
        names.sort();
        Ok(names)
    }

    fn is_dir(&self, path: &Path) -> bool {
        locked(&self.disk.0).dirs.contains(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.disk.alive(self.generation)?;
        for dir in path.ancestors() {
            inner.dirs.insert(dir.to_owned());
        }
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut inner = self.disk.alive(self.generation)?;
        if inner.full && !inner.files.contains_key(path) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let content = Arc::clone(inner.files.entry(path.to_owned()).or_default());
        Ok(Arc::new(Handle {
            disk: self.disk.clone(),
            generation: inner.generation,
            content,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.disk.alive(self.generation)?;
        let moved = |path: &Path| {
            path.strip_prefix(from).ok().map(|rest| {
                if rest.as_os_str().is_empty() {
                    to.to_owned()
                } else {
                    to.join(rest)
                }
            })
        };
        let files = std::mem::take(&mut inner.files);
        inner.files = files
            .into_iter()
            .map(|(path, file)| (moved(&path).unwrap_or(path), file))
            .collect();
        let dirs = std::mem::take(&mut inner.dirs);
        inner.dirs = dirs
            .into_iter()
            .map(|path| moved(&path).unwrap_or(path))
            .collect();
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.alive(self.generation)?.files.remove(path);
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.disk.alive(self.generation)?;
        inner.files.retain(|file, _| !file.starts_with(path));
        inner.dirs.retain(|dir| !dir.starts_with(path));
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn Any + Send>> {
        Ok(Box::new(()))
    }
}
