//! The recorder's files: segments of frames, the oldest deleted before the bound is passed.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::codec;

/// Of how many segments the whole consists: so much is deleted at once.
const SEGMENTS: u64 = 16;
const ENDING: &str = "readings";
pub(super) const MAGIC: &[u8; 8] = b"TGREAD\x01\0";

/// The directory, open for appending.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    max_bytes: u64,
    /// Number and length, oldest first; the last one is written to.
    segments: Vec<(u64, u64)>,
    file: Option<File>,
}

impl Store {
    /// Opens what is there and cuts a torn tail off; makes the directory if it is missing.
    pub fn open(dir: &Path, max_bytes: u64) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let mut store = Self {
            dir: dir.to_owned(),
            max_bytes,
            segments: list(dir)?,
            file: None,
        };
        if let Some((number, length)) = store.segments.last_mut() {
            let path = path(dir, *number);
            let good = good_end(&fs::read(&path)?);
            if good >= MAGIC.len() as u64 {
                let file = File::options().append(true).open(&path)?;
                file.set_len(good)?;
                (*length, store.file) = (good, Some(file));
            }
        }
        store.make_room(0)?;
        Ok(store)
    }

    /// Whether what comes next goes into another file.
    pub fn is_full(&self) -> bool {
        let full = |(_, length): &(u64, u64)| *length >= self.max_bytes / SEGMENTS;
        self.file.is_none() || self.segments.last().is_some_and(full)
    }

    /// Begins a new file.
    pub fn roll(&mut self) -> io::Result<()> {
        self.file = None;
        let number = self.segments.last().map_or(1, |(number, _)| number + 1);
        self.make_room(MAGIC.len() as u64)?;
        let mut file = File::options()
            .append(true)
            .create_new(true)
            .open(path(&self.dir, number))?;
        self.segments.push((number, 0));
        file.write_all(MAGIC)?;
        self.grown(MAGIC.len() as u64);
        self.file = Some(file);
        Ok(())
    }

    /// Appends a frame; not flushed, the system writes it when it likes.
    pub fn append(&mut self, frame: &[u8]) -> io::Result<()> {
        self.make_room(frame.len() as u64)?;
        let Some(file) = &mut self.file else {
            return Err(io::Error::other("no file is open"));
        };
        file.write_all(frame)?;
        self.grown(frame.len() as u64);
        Ok(())
    }

    fn grown(&mut self, by: u64) {
        if let Some((_, length)) = self.segments.last_mut() {
            *length += by;
        }
    }

    /// Deletes the oldest until so much more fits; never the one that is written to.
    fn make_room(&mut self, more: u64) -> io::Result<()> {
        let spare = usize::from(self.file.is_some());
        while self.segments.iter().map(|(_, length)| length).sum::<u64>() + more > self.max_bytes
            && self.segments.len() > spare
        {
            let (number, _) = self.segments.remove(0);
            match fs::remove_file(path(&self.dir, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The segments of a directory, oldest first: their numbers and lengths.
pub(super) fn list(dir: &Path) -> io::Result<Vec<(u64, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = Path::new(&name)
            .extension()
            .is_some_and(|ending| ending == ENDING)
            .then(|| Path::new(&name).file_stem()?.to_str()?.parse().ok())
            .flatten();
        if let Some(number) = number {
            // One that goes while we look is no longer there.
            found.extend(entry.metadata().ok().map(|file| (number, file.len())));
        }
    }
    found.sort_unstable();
    Ok(found)
}

pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:010}.{ENDING}"))
}

/// Where the good frames of a file end; 0 if it is none of ours.
fn good_end(bytes: &[u8]) -> u64 {
    if !bytes.starts_with(MAGIC) {
        return 0;
    }
    let mut at = MAGIC.len();
    while let Some(payload) = bytes.get(at..).and_then(codec::payload) {
        at += codec::HEADER + payload.len();
    }
    at as u64
}
