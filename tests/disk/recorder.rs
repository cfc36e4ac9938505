//! A disk that remembers: a file of a FUSE filesystem of our own, to be the back of a loop device. It keeps every
//! write and every flush in order, so that the disk can be rebuilt as a power cut would have left it at any
//! moment; and it can fail a flush, as a dying card does, or everything.

use std::{
    ffi::OsStr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, UNIX_EPOCH},
};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyWrite, Request, WriteFlags,
};

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
const FILE: INodeNo = INodeNo(2);
const NAME: &str = "disk";

/// What the disk was asked, and what became of it.
#[derive(Clone, Debug)]
enum Step {
    Write(Write),
    /// All writes so far are on the disk for good.
    Flush,
    /// A flush failed, and the disk has forgotten that it was ever asked: of the writes since the last flush,
    /// these parts are there and nothing else ever will be.
    Failed(Vec<Write>),
}

#[derive(Clone, Debug)]
struct Write {
    at: usize,
    bytes: Vec<u8>,
}

impl Write {
    fn apply(&self, disk: &mut [u8]) {
        disk[self.at..self.at + self.bytes.len()].copy_from_slice(&self.bytes);
    }

    /// What a power cut leaves of it: nothing, all, or some of its sectors. ext4 has to rely on its first block being
    /// whole: its checksum stands in another sector than most of what it covers, and a small disk has no second.
    fn torn(&self, random: &mut fastrand::Rng) -> Vec<Self> {
        match random.u8(..3) {
            0 => Vec::new(),
            1 => vec![self.clone()],
            _ if self.at == 0 => Vec::new(),
            _ => {
                let sectors = self.bytes.chunks(SECTOR).enumerate();
                sectors
                    .filter(|_| random.bool())
                    .map(|(index, sector)| Self {
                        at: self.at + index * SECTOR,
                        bytes: sector.to_vec(),
                    })
                    .collect()
            }
        }
    }
}

/// What the disk does next.
#[derive(Debug, Default)]
enum Mood {
    #[default]
    Well,
    /// Fails the next flush of data, then is well again.
    FailsAFlush(fastrand::Rng),
    /// Refuses every write and flush.
    Dead,
}

#[derive(Debug, Default)]
struct State {
    /// What a read sees.
    content: Vec<u8>,
    /// What is there for good.
    platter: Vec<u8>,
    /// Where the steps since the last flush begin.
    unflushed: usize,
    steps: Vec<Step>,
    mood: Mood,
}

impl State {
    fn pending(&self) -> impl Iterator<Item = &Write> {
        self.steps[self.unflushed..].iter().map(|step| match step {
            Step::Write(write) => write,
            Step::Flush | Step::Failed(_) => unreachable!("the unflushed steps are writes"),
        })
    }

    fn write(&mut self, write: Write) -> Result<(), Errno> {
        if matches!(self.mood, Mood::Dead) {
            return Err(Errno::EIO);
        }
        write.apply(&mut self.content);
        self.steps.push(Step::Write(write));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Errno> {
        match &mut self.mood {
            Mood::Dead => Err(Errno::EIO),
            Mood::FailsAFlush(random) if self.unflushed < self.steps.len() => {
                let mut random = random.fork();
                // What the filesystem keeps of its own is left to it: a disk that forgets that breaks it, and
                // nothing above can help.
                if self.pending().any(is_ext4_journal) {
                    return self.settle();
                }
                self.mood = Mood::Well;
                let kept: Vec<Write> = self.pending().flat_map(|write| write.torn(&mut random)).collect();
                for write in &kept {
                    write.apply(&mut self.platter);
                }
                self.content.clone_from(&self.platter);
                self.steps.push(Step::Failed(kept));
                self.unflushed = self.steps.len();
                Err(Errno::EIO)
            }
            Mood::FailsAFlush(_) | Mood::Well => self.settle(),
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "one arm of `flush`")]
    fn settle(&mut self) -> Result<(), Errno> {
        for step in &self.steps[self.unflushed..] {
            if let Step::Write(write) = step {
                write.apply(&mut self.platter);
            }
        }
        self.steps.push(Step::Flush);
        self.unflushed = self.steps.len();
        Ok(())
    }
}

/// ext4's own journal: each of its blocks that says what follows begins so.
fn is_ext4_journal(write: &Write) -> bool {
    write
        .bytes
        .chunks(4096)
        .any(|block| block.starts_with(&[0xc0, 0x3b, 0x39, 0x98]))
}

/// The recording disk. It goes away when this is dropped; whatever is mounted on it must be gone by then.
pub(crate) struct Recorder {
    state: Arc<Mutex<State>>,
    start: Vec<u8>,
    _served: BackgroundSession,
    folder: tempfile::TempDir,
}

impl Recorder {
    /// A disk with this content.
    pub(crate) fn with(content: Vec<u8>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let state = Arc::new(Mutex::new(State {
            content: content.clone(),
            platter: content.clone(),
            ..State::default()
        }));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("tidegate-recorder".to_owned())];
        let served = fuser::spawn_mount(Disk(Arc::clone(&state)), folder.path(), &config)
            .expect("a FUSE filesystem can be mounted: this needs root and /dev/fuse");
        Self {
            state,
            start: content,
            _served: served,
            folder,
        }
    }

    /// The file to make a loop device of.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join(NAME)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    /// How many steps there are: this moment.
    pub(crate) fn now(&self) -> usize {
        self.state().steps.len()
    }

    /// The last moment before the disk is flushed next: so much can be lost.
    pub(crate) fn before_flush(&self, moment: usize) -> usize {
        let state = self.state();
        let flush = state.steps[moment..]
            .iter()
            .position(|step| matches!(step, Step::Flush));
        flush.map_or(state.steps.len(), |steps| moment + steps)
    }

    /// The next flush of data answers EIO, and what it should have flushed is partly gone.
    pub(crate) fn fail_a_flush(&self, seed: u64) {
        self.state().mood = Mood::FailsAFlush(fastrand::Rng::with_seed(seed));
    }

    /// How many flushes failed so.
    pub(crate) fn failures(&self) -> usize {
        let state = self.state();
        let failed = state.steps.iter().filter(|step| matches!(step, Step::Failed(_)));
        failed.count()
    }

    /// From now on every write and flush answers EIO; or no more.
    pub(crate) fn die(&self, dead: bool) {
        self.state().mood = if dead { Mood::Dead } else { Mood::Well };
    }

    /// The disk as a power cut at each of these moments would have left it.
    pub(crate) fn cuts(&self, mut moments: Vec<usize>, random: fastrand::Rng) -> Cuts {
        moments.sort_unstable();
        Cuts {
            steps: self.state().steps.clone(),
            moments: moments.into_iter(),
            random,
            platter: self.start.clone(),
            unflushed: Vec::new(),
            next: 0,
        }
    }
}

/// Disks after power cuts, in order.
pub(crate) struct Cuts {
    steps: Vec<Step>,
    moments: std::vec::IntoIter<usize>,
    random: fastrand::Rng,
    platter: Vec<u8>,
    unflushed: Vec<Write>,
    next: usize,
}

impl Iterator for Cuts {
    type Item = Cut;

    fn next(&mut self) -> Option<Cut> {
        let moment = self.moments.next()?;
        for step in &self.steps[self.next..moment] {
            match step {
                Step::Write(write) => self.unflushed.push(write.clone()),
                Step::Flush => self
                    .unflushed
                    .drain(..)
                    .for_each(|write| write.apply(&mut self.platter)),
                Step::Failed(kept) => {
                    self.unflushed.clear();
                    for write in kept {
                        write.apply(&mut self.platter);
                    }
                }
            }
        }
        self.next = moment;
        let mut disk = self.platter.clone();
        for write in &self.unflushed {
            write
                .torn(&mut self.random)
                .iter()
                .for_each(|kept| kept.apply(&mut disk));
        }
        Some(Cut {
            moment,
            unflushed: self.unflushed.len(),
            disk,
        })
    }
}

/// A disk after a power cut.
pub(crate) struct Cut {
    /// When.
    pub(crate) moment: usize,
    /// How many writes were each lost, torn or kept.
    pub(crate) unflushed: usize,
    pub(crate) disk: Vec<u8>,
}

/// The filesystem: one folder, one file.
struct Disk(Arc<Mutex<State>>);

impl Disk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("not poisoned")
    }

    fn attributes(&self, node: INodeNo) -> FileAttr {
        let (kind, size) = if node == FILE {
            (FileType::RegularFile, self.state().content.len() as u64)
        } else {
            (FileType::Directory, 0)
        };
        FileAttr {
            ino: node,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: 0o700,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

/// Nothing about the file changes but its content.
const FOREVER: Duration = Duration::from_hours(1);

impl Filesystem for Disk {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == NAME {
            reply.entry(&FOREVER, &self.attributes(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOREVER, &self.attributes(node));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // No cache of the kernel's in between: what is written is asked of us at once, and what is read too.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let state = self.state();
        let from = place(offset).min(state.content.len());
        let to = from.saturating_add(size as usize).min(state.content.len());
        reply.data(&state.content[from..to]);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let write = Write {
            at: place(offset),
            bytes: data.to_vec(),
        };
        match self.state().write(write) {
            Ok(()) => reply.written(u32::try_from(data.len()).expect("the kernel's own number")),
            Err(error) => reply.error(error),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        match self.state().flush() {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }
}

fn place(offset: u64) -> usize {
    usize::try_from(offset).expect("a disk fits into memory")
}
