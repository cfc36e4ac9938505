//! A disk that can be cut from its power: for tests only. Writes that were not synced are kept, lost or torn
//! at random when that happens, and so is each name that was made, changed or removed in a directory that was
//! not synced; whoever had files open finds them dead.

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
    /// The names as a process sees them.
    seen: Names,
    /// The names that a power cut leaves for sure.
    durable: Names,
    /// What was done to names since their directory was synced, in order.
    unsynced: Vec<Act>,
    generation: u64,
    full: bool,
    failing_sync: bool,
    syncs_left: Option<u64>,
    changes_left: Option<u64>,
    read_bytes: u64,
}

#[derive(Clone, Debug, Default)]
struct Names {
    files: BTreeMap<PathBuf, Arc<Mutex<Content>>>,
    dirs: BTreeSet<PathBuf>,
}

/// One change of a directory.
#[derive(Clone, Debug)]
enum Act {
    MakeDir(PathBuf),
    Make(PathBuf, Arc<Mutex<Content>>),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl Act {
    /// Whether syncing `dir` makes it durable.
    fn is_in(&self, dir: &Path) -> bool {
        let (Self::MakeDir(path) | Self::Make(path, _) | Self::Remove(path) | Self::Rename(_, path)) = self;
        path.parent() == Some(dir)
    }
}

impl Names {
    fn act(&mut self, act: &Act) {
        match act {
            Act::MakeDir(path) => {
                self.dirs.insert(path.clone());
            }
            Act::Make(path, content) => {
                self.files.insert(path.clone(), Arc::clone(content));
            }
            Act::Rename(from, to) => self.rename(from, to),
            Act::Remove(path) => {
                self.files.retain(|file, _| !file.starts_with(path));
                self.dirs.retain(|dir| !dir.starts_with(path));
            }
        }
    }

    /// What lies in a directory that is not there cannot be reached.
    fn drop_lost(&mut self) {
        let dirs = self.dirs.clone();
        let reached = |path: &Path| path.ancestors().skip(1).all(|dir| dirs.contains(dir));
        self.files.retain(|path, _| reached(path));
        self.dirs.retain(|path| reached(path));
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        let moved = |path: PathBuf| match path.strip_prefix(from) {
            Ok(rest) if rest.as_os_str().is_empty() => to.to_owned(),
            Ok(rest) => to.join(rest),
            Err(_) => path,
        };
        let files = std::mem::take(&mut self.files);
        self.files = files
            .into_iter()
            .map(|(path, file)| (moved(path), file))
            .collect();
        let dirs = std::mem::take(&mut self.dirs);
        self.dirs = dirs.into_iter().map(moved).collect();
    }
}

impl Inner {
    /// One more change is asked for: none comes through once the power is about to go.
    fn change(&mut self) -> io::Result<()> {
        if self.changes_left == Some(0) {
            return Err(no_power());
        }
        self.changes_left = self.changes_left.map(|left| left - 1);
        Ok(())
    }

    fn act(&mut self, act: Act) {
        self.seen.act(&act);
        self.unsynced.push(act);
    }
}

#[derive(Clone, Debug, Default)]
struct Content {
    durable: Vec<u8>,
    seen: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
    unreadable: std::ops::Range<usize>,
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

fn no_power() -> io::Error {
    io::Error::other("no power")
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
            Err(no_power())
        }
    }

    fn changed(&self, generation: u64) -> io::Result<MutexGuard<'_, Inner>> {
        let mut inner = self.alive(generation)?;
        inner.change()?;
        Ok(inner)
    }

    /// The power goes: each unsynced write and each unsynced change of a directory is kept or lost, writes
    /// also torn, as `random` says. Open files are dead.
    pub fn power_cut(&self, random: &mut fastrand::Rng) {
        let mut inner = locked(&self.0);
        inner.generation += 1;
        inner.changes_left = None;
        for act in std::mem::take(&mut inner.unsynced) {
            if random.bool() {
                inner.durable.act(&act);
            }
        }
        inner.durable.drop_lost();
        inner.seen = inner.durable.clone();
        for content in inner.seen.files.values() {
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
        let mut inner = locked(&self.0);
        inner.generation += 1;
        inner.changes_left = None;
    }

    /// So many writes, syncs and changes of names come through from now on; each one after that fails and does
    /// nothing, as if the process stood still there, until it dies or the power goes.
    pub fn stop_after(&self, changes: u64) {
        locked(&self.0).changes_left = Some(changes);
    }

    /// From now on whatever would make a file longer fails with "no space left on device".
    pub fn set_full(&self, full: bool) {
        locked(&self.0).full = full;
    }

    /// From now on every sync fails, and what it was to bring to the disk is partly forgotten: a later sync that
    /// succeeds does not bring it either, as on Linux.
    pub fn set_failing_sync(&self, failing: bool) {
        let mut inner = locked(&self.0);
        (inner.failing_sync, inner.syncs_left) = (failing, None);
    }

    /// So many syncs of files succeed from now on; then every one fails.
    pub fn fail_after_syncs(&self, count: u64) {
        locked(&self.0).syncs_left = Some(count);
    }

    /// How many bytes have been read since the last question.
    pub fn take_read_bytes(&self) -> u64 {
        std::mem::take(&mut locked(&self.0).read_bytes)
    }

    /// The files, sorted.
    pub fn paths(&self) -> Vec<PathBuf> {
        locked(&self.0).seen.files.keys().cloned().collect()
    }

    /// What all files occupy.
    pub fn bytes(&self) -> u64 {
        locked(&self.0)
            .seen
            .files
            .values()
            .map(|content| locked(content).seen.len() as u64)
            .sum()
    }

    /// A file's bytes, as a reader sees them.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        locked(&self.0)
            .seen
            .files
            .get(path)
            .map(|content| locked(content).seen.clone())
    }

    /// Replaces a file's bytes, durably; `None` removes it.
    pub fn put_content(&self, path: &Path, bytes: Option<Vec<u8>>) {
        let mut inner = locked(&self.0);
        let act = match bytes {
            None => Act::Remove(path.to_owned()),
            Some(bytes) => {
                let content = Content {
                    durable: bytes.clone(),
                    seen: bytes,
                    unsynced: Vec::new(),
                    unreadable: 0..0,
                };
                for dir in path.ancestors().skip(1) {
                    inner.seen.dirs.insert(dir.to_owned());
                    inner.durable.dirs.insert(dir.to_owned());
                }
                Act::Make(path.to_owned(), Arc::new(Mutex::new(content)))
            }
        };
        inner.seen.act(&act);
        inner.durable.act(&act);
    }

    /// These bytes of a file cannot be read from now on.
    pub fn set_unreadable(&self, path: &Path, range: std::ops::Range<usize>) {
        if let Some(content) = locked(&self.0).seen.files.get(path) {
            locked(content).unreadable = range;
        }
    }

    /// Another disk with the same files, of each what is durable.
    #[must_use]
    pub fn copy(&self) -> Self {
        let inner = locked(&self.0);
        let mut names = inner.seen.clone();
        for content in names.files.values_mut() {
            let durable = locked(content).durable.clone();
            *content = Arc::new(Mutex::new(Content {
                durable: durable.clone(),
                seen: durable,
                unsynced: Vec::new(),
                unreadable: 0..0,
            }));
        }
        let copy = Self::default();
        {
            let mut new = locked(&copy.0);
            (new.seen, new.durable) = (names.clone(), names);
        }
        copy
    }

    /// Another disk with the same files and what is not synced of them; all names durable.
    #[must_use]
    pub fn clone_with_unsynced(&self) -> Self {
        let mut names = locked(&self.0).seen.clone();
        for content in names.files.values_mut() {
            let same = locked(content).clone();
            *content = Arc::new(Mutex::new(same));
        }
        let copy = Self::default();
        {
            let mut new = locked(&copy.0);
            (new.seen, new.durable) = (names.clone(), names);
        }
        copy
    }
}

impl Handle {
    fn alive(&self) -> io::Result<()> {
        if locked(&self.disk.0).generation == self.generation {
            Ok(())
        } else {
            Err(no_power())
        }
    }
}

impl File for Handle {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.alive()?;
        let content = locked(&self.content);
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let lost = &content.unreadable;
        if lost.start.max(offset) < lost.end.min(offset + buffer.len()) {
            return Err(rustix::io::Errno::IO.into());
        }
        let there = content.seen.get(offset..).unwrap_or_default();
        let count = there.len().min(buffer.len());
        if let (Some(into), Some(from)) = (buffer.get_mut(..count), there.get(..count)) {
            into.copy_from_slice(from);
        }
        drop(content);
        locked(&self.disk.0).read_bytes += count as u64;
        Ok(count)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let full = self.disk.changed(self.generation)?.full;
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
        let fails = {
            let mut inner = self.disk.changed(self.generation)?;
            inner.failing_sync |= inner.syncs_left == Some(0);
            inner.syncs_left = inner.syncs_left.map(|left| left.saturating_sub(1));
            inner.failing_sync
        };
        let content = &mut *locked(&self.content);
        for (offset, bytes) in std::mem::take(&mut content.unsynced) {
            if !fails || fastrand::bool() {
                put(&mut content.durable, offset, &bytes);
            }
        }
        if fails {
            return Err(io::Error::other("the disk does not answer"));
        }
        // How long the file is was not forgotten.
        let length = content.seen.len();
        content.durable.resize(length, 0);
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
        let names = inner.seen.files.keys().chain(inner.seen.dirs.iter());
        let mut names: Vec<String> = names
            .filter(|path| path.parent() == Some(dir))
            .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .collect();
        names.sort();
        Ok(names)
    }

    fn is_dir(&self, path: &Path) -> bool {
        path.parent().is_none() || locked(&self.disk.0).seen.dirs.contains(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.disk.changed(self.generation)?;
        // The root is always there.
        for root in path.ancestors().filter(|dir| dir.parent().is_none()) {
            inner.seen.dirs.insert(root.to_owned());
            inner.durable.dirs.insert(root.to_owned());
        }
        let mut dirs: Vec<&Path> = path.ancestors().collect();
        dirs.reverse();
        for dir in dirs {
            if !inner.seen.dirs.contains(dir) {
                inner.act(Act::MakeDir(dir.to_owned()));
            }
        }
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut inner = self.disk.alive(self.generation)?;
        let there = inner.seen.files.get(path).map(Arc::clone);
        let content = match there {
            Some(content) => content,
            None if inner.full => return Err(io::Error::from(io::ErrorKind::StorageFull)),
            None => {
                inner.change()?;
                let content = Arc::default();
                inner.act(Act::Make(path.to_owned(), Arc::clone(&content)));
                content
            }
        };
        Ok(Arc::new(Handle {
            disk: self.disk.clone(),
            generation: inner.generation,
            content,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.disk.changed(self.generation)?;
        inner.act(Act::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.disk.changed(self.generation)?;
        inner.act(Act::Remove(path.to_owned()));
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.disk.changed(self.generation)?;
        // One name after the other: a power cut may leave any of them.
        let files = inner.seen.files.keys().filter(|file| file.starts_with(path));
        let files: Vec<PathBuf> = files.cloned().collect();
        for file in files {
            inner.act(Act::Remove(file));
        }
        inner.act(Act::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.disk.changed(self.generation)?;
        let (now, later) = std::mem::take(&mut inner.unsynced)
            .into_iter()
            .partition(|act| act.is_in(dir));
        inner.unsynced = later;
        let now: Vec<Act> = now;
        for act in now {
            inner.durable.act(&act);
        }
        Ok(())
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn Any + Send>> {
        Ok(Box::new(()))
    }
}
