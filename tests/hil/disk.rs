//! A disk that loses its power. qemu writes down every write and flush in order (its `blklogwrites` filter, the format
//! of Linux' dm-log-writes); after the cut the disk is what it was at power on, plus all that was flushed, plus what
//! chance leaves of the rest. A killed qemu alone would lose nothing that the guest had written, flushed or not.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::Command,
};

const MAGIC: u64 = 0x006a_7366_7773_6872;
const SECTOR: u64 = 512;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

pub(crate) struct Disk {
    /// What was there when the power was last given.
    base: PathBuf,
    /// What was written since: read by nobody after the cut.
    overlay: PathBuf,
    log: PathBuf,
    random: fastrand::Rng,
}

/// What a cut took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Writes since power on.
    pub(crate) writes: u64,
    /// Of these, the ones that were not flushed, and of them those that are lost.
    pub(crate) unflushed: u64,
    pub(crate) lost: u64,
}

impl Disk {
    pub(crate) fn new(base: PathBuf, random: fastrand::Rng) -> Self {
        let (overlay, log) = (base.with_extension("qcow2"), base.with_extension("log"));
        Self {
            base,
            overlay,
            log,
            random,
        }
    }

    /// Ready for power: how qemu is told to open it.
    pub(crate) fn node(&self) -> String {
        let mut make = Command::new("qemu-img");
        make.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]);
        let made = make.arg(&self.base).arg(&self.overlay).status();
        assert!(made.expect("qemu-utils is installed (./test does it)").success());
        File::create(&self.log).expect("a log");
        // What is flushed is in the log's order; the host's own disk need not hear of it.
        format!(
            "driver=blklogwrites,log-sector-size={SECTOR},log-super-update-interval=1,\
             file.driver=qcow2,file.cache.no-flush=on,file.file.driver=file,file.file.filename={},\
             log.driver=file,log.cache.no-flush=on,log.filename={}",
            self.overlay.display(),
            self.log.display(),
        )
    }

    /// The power is gone: makes the disk what it is now.
    pub(crate) fn cut(&mut self) -> Cut {
        let mut log = Log::open(&self.log);
        let entries = log.entries();
        let flushed = entries.iter().rposition(|entry| entry.flags & FLUSH != 0);
        let flushed = flushed.map_or(0, |last| last + 1);
        let mut base = File::options().write(true).open(&self.base).expect("the disk");
        let mut cut = Cut::default();
        for (index, entry) in entries.iter().enumerate() {
            if entry.flags & DISCARD != 0 || entry.sectors == 0 {
                continue;
            }
            cut.writes += 1;
            if index >= flushed && entry.flags & FUA == 0 {
                cut.unflushed += 1;
                if self.random.bool() {
                    cut.lost += 1;
                    continue;
                }
            }
            if let Some(bytes) = log.data(entry) {
                base.seek(SeekFrom::Start(entry.sector * SECTOR))
                    .expect("seekable");
                base.write_all(&bytes).expect("room for the disk");
            }
        }
        fs::remove_file(&self.overlay).expect("it was there");
        cut
    }
}

/// One write or flush.
#[derive(Debug)]
struct Entry {
    sector: u64,
    sectors: u64,
    flags: u64,
    /// Where its data begin in the log.
    at: u64,
}

struct Log {
    file: File,
    len: u64,
}

impl Log {
    fn open(path: &Path) -> Self {
        let file = File::open(path).expect("qemu wrote it");
        let len = file.metadata().expect("an open file").len();
        Self { file, len }
    }

    /// None: the log ends before.
    fn read(&mut self, at: u64, len: u64) -> Option<Vec<u8>> {
        if at + len > self.len {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(len).expect("a write fits memory")];
        self.file.seek(SeekFrom::Start(at)).expect("seekable");
        self.file.read_exact(&mut bytes).expect("as long as it is");
        Some(bytes)
    }

    /// The little-endian numbers that a sector begins with.
    fn numbers(&mut self, at: u64) -> Option<[u64; 4]> {
        let sector = self.read(at, SECTOR)?;
        let number = |index: usize| sector[8 * index..8 * (index + 1)].try_into().expect("8 bytes");
        Some([0, 1, 2, 3].map(|index| u64::from_le_bytes(number(index))))
    }

    /// In the order in which they were done. What was still on its way when the power went, and was never said to be done,
    /// may be among them, or a hole, or behind the end.
    fn entries(&mut self) -> Vec<Entry> {
        if self.len == 0 {
            // The power went before the board had written anything.
            return Vec::new();
        }
        let magic = self.numbers(0).map(|[magic, ..]| magic);
        assert_eq!(magic, Some(MAGIC), "it is no log of writes");
        let mut at = SECTOR;
        let mut entries = Vec::new();
        while let Some([sector, sectors, flags, _]) = self.numbers(at) {
            at += SECTOR;
            if (sector, sectors, flags) == (0, 0, 0) {
                continue;
            }
            assert!(flags <= FLUSH | FUA | DISCARD, "no entry of the log: {flags}");
            entries.push(Entry {
                sector,
                sectors,
                flags,
                at,
            });
            if flags & DISCARD == 0 {
                at += sectors * SECTOR;
            }
        }
        entries
    }

    fn data(&mut self, entry: &Entry) -> Option<Vec<u8>> {
        self.read(entry.at, entry.sectors * SECTOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_flushed_before_a_cut_is_on_the_disk_and_of_the_rest_what_chance_leaves() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..8 {
            let base = folder.path().join("disk.raw");
            fs::write(&base, [1; 4 << 10]).expect("written");
            let mut disk = Disk::new(base.clone(), fastrand::Rng::with_seed(seed));
            let mut io = Command::new("qemu-io");
            io.args(["-t", "writeback", "--image-opts", &disk.node()]);
            for command in [
                "write -P 2 0 1k",
                "write -P 3 1k 512",
                "flush",
                "write -P 4 512 1k",
                "write -P 5 2k 512",
            ] {
                io.args(["-c", command]);
            }
            // It ends as a board without power does: without closing anything.
            let io = io.args(["-c", "abort"]).stdout(std::process::Stdio::null());
            let ended = io.status().expect("qemu-utils is installed (./test does it)");
            assert!(!ended.success(), "it was to abort");

            let cut = disk.cut();
            assert_eq!((cut.writes, cut.unflushed), (4, 2));
            let there: Vec<u8> = fs::read(&base)
                .expect("a disk")
                .chunks(512)
                .map(|sector| sector[0])
                .collect();
            assert_eq!(
                (there[0], there[3], there[5]),
                (2, 1, 1),
                "flushed, and never written"
            );
            seen.insert([there[1], there[2], there[4]]);
        }
        let possible = [[2, 3, 1], [2, 3, 5], [4, 4, 1], [4, 4, 5]];
        assert_eq!(
            seen.into_iter().collect::<Vec<_>>(),
            possible,
            "each of them, and no others"
        );
    }
}
