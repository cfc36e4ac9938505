//! Tidegate's journal against sled, redb, SQLite and fjall, on a loop device with an ext4 of its own.
//!
//! `sudo cargo run --release --manifest-path bench/Cargo.toml --bin journal`
//!
//! Needs root, losetup and mkfs.ext4 for the device, whose own counters say what was written and flushed
//! (what the page cache was told is not what reaches a card). Every measurement is a process of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use tidegate_bench::{
    disk::{AS_USUAL, Counters, Disk},
    machine, median, option, process,
    store::{self, EVENT, NAMES, Store, Tidegate},
};

/// Delivered so far behind what is committed.
const BEHIND: u64 = 2000;
/// Told to the store after so many.
const DELIVER_EVERY: u64 = 100;
/// Room for the journal: small, so that measuring begins after the first lap.
const ROOM: u64 = 8 << 20;
/// More than that room, in groups of 100.
const WARM_UP: u64 = 30_000;
/// Events that are drained.
const QUEUE: u64 = 200_000;

fn main() {
    let worker: String = option("--worker", String::new());
    if worker.is_empty() {
        return compare();
    }
    let dir = PathBuf::from(option("--dir", String::new()));
    match option("--work", String::new()).as_str() {
        "commit" => commit(&worker, &dir),
        "drain" => drain(&worker, &dir),
        "backlog" => backlog(&dir),
        "open" => open(&dir),
        other => panic!("no work is called {other}"),
    }
}

/// A store that has been used for a while, and what was committed to it.
struct Queue {
    store: Box<dyn Store>,
    committed: u64,
    delivered: u64,
}

impl Queue {
    fn open(name: &str, dir: &Path) -> Self {
        let mut queue = Self {
            store: store::open(name, dir, ROOM),
            committed: 0,
            delivered: 0,
        };
        let hundred = store::events(100);
        for _ in 0..WARM_UP / 100 {
            queue.commit(&hundred);
        }
        queue
    }

    fn commit(&mut self, events: &[tidegate::event::Event]) {
        let due = self.committed.saturating_sub(BEHIND).max(self.delivered);
        let told = (due - self.delivered >= DELIVER_EVERY).then_some(due);
        self.delivered = told.unwrap_or(self.delivered);
        self.store.commit(events, told);
        self.committed += events.len() as u64;
    }
}

/// Prints: device bytes, flushes.
fn commit(name: &str, dir: &Path) {
    let (group, commits) = (option("--group", 1_u64), option("--commits", 1_u64));
    let device = PathBuf::from(option("--device", String::new()));
    let mut queue = Queue::open(name, dir);
    let events = store::events(usize::try_from(group).expect("small"));
    let before = Counters::read(&device, dir);
    for _ in 0..commits {
        queue.commit(&events);
    }
    let after = Counters::read(&device, dir);
    println!(
        "{} {}",
        after.bytes - before.bytes,
        after.flushes - before.flushes
    );
    std::process::exit(0);
}

/// Prints: seconds.
fn drain(name: &str, dir: &Path) {
    let mut store = store::open(name, dir, 1 << 30);
    let thousand = store::events(1000);
    for _ in 0..QUEUE / 1000 {
        store.commit(&thousand, None);
    }
    let begun = Instant::now();
    let (mut after, mut batch) = (0, 0_u64);
    while after < QUEUE {
        batch += 1;
        let came = store.drain(after, 100, batch % 100 == 0);
        assert!(came > 0, "{after} of {QUEUE} came");
        after += came as u64;
    }
    println!("{}", begun.elapsed().as_secs_f64());
    std::process::exit(0);
}

/// Leaves two million undelivered events behind, and a clean stop.
fn backlog(dir: &Path) {
    let mut journal = Tidegate::open(dir, 2 << 30);
    let thousand = store::events(1000);
    for _ in 0..option("--events", 2_000_000_u64) / 1000 {
        journal.commit(&thousand, None);
    }
    journal.close();
}

/// Prints: milliseconds, bytes read, MiB over an empty process after opening, and after some work.
fn open(dir: &Path) {
    let me = std::process::id();
    let read = || process::field("/proc/self/io", "rchar:");
    let (empty, read_before) = (process::rss(me), read());
    let begun = Instant::now();
    let mut journal = Tidegate::open(dir, 2 << 30);
    let elapsed = begun.elapsed();
    let (opened, read_after) = (process::rss(me), read());
    let hundred = store::events(100);
    for turn in 0..100 {
        journal.commit(&hundred, None);
        assert_eq!(journal.drain(turn * 100, 100, false), 100);
    }
    println!(
        "{} {} {} {}",
        elapsed.as_secs_f64() * 1e3,
        read_after - read_before,
        opened - empty,
        process::rss(me) - empty
    );
    if option("--close", 1) == 1 {
        journal.close();
    }
    std::process::exit(0);
}

/// The numbers that a worker prints.
fn work(store: &str, work: &str, dir: &Path, more: &[String]) -> Vec<f64> {
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["--worker", store, "--work", work, "--dir"])
        .arg(dir)
        .args(more)
        .output()
        .expect("a worker");
    assert!(
        output.status.success(),
        "{store} {work}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

fn compare() {
    let rounds: usize = option("--rounds", 3);
    println!("{}\n", machine());
    written(rounds);
    race(rounds * 7);
    println!(
        "\n| store | drained events/s, batches of 100 with cursors | Tidegate is, median (rounds) |\n|---|---|---|"
    );
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); NAMES.len()];
    for round in 0..rounds {
        for turn in 0..NAMES.len() {
            let index = (turn + round) % NAMES.len();
            let disk = Disk::make(2 << 30, AS_USUAL);
            let dir = store::folder(&disk.path(), NAMES[index]);
            fs::create_dir(&dir).expect("a folder");
            let seconds = work(NAMES[index], "drain", &dir, &[])[0];
            rates[index].push(QUEUE as f64 / seconds);
        }
    }
    for (index, name) in NAMES.iter().enumerate() {
        let ratio = if index == 0 {
            String::new()
        } else {
            times(&rates[0], &rates[index])
        };
        println!("| {name} | {:.0} | {ratio} |", median(&rates[index]));
    }
    opening(rounds);
}

/// What reaches the device: each store alone on it.
fn written(rounds: usize) {
    println!(
        "| store | commits of | device bytes per payload byte | flushes per commit |\n|---|---|---|---|"
    );
    for (group, commits) in [(1_u64, 2000_u64), (10, 1000), (100, 300)] {
        for name in NAMES {
            let found: Vec<Vec<f64>> = (0..rounds)
                .map(|_| {
                    let disk = Disk::make(1 << 30, AS_USUAL);
                    let more = [
                        "--group".to_owned(),
                        group.to_string(),
                        "--commits".to_owned(),
                        commits.to_string(),
                        "--device".to_owned(),
                        disk.counters().display().to_string(),
                    ];
                    let dir = store::folder(&disk.path(), name);
                    fs::create_dir(&dir).expect("a folder");
                    work(name, "commit", &dir, &more)
                })
                .collect();
            let of =
                |number: usize| median(&found.iter().map(|numbers| numbers[number]).collect::<Vec<f64>>());
            let payload = (group * commits) as f64 * EVENT as f64;
            println!(
                "| {name} | {group} | {:.2} | {:.2} |",
                of(0) / payload,
                of(1) / commits as f64
            );
        }
    }
}

/// How fast: all of them open at once, each on a device of its own, a short turn each, again and again. What
/// else the disk below is asked to do changes by the second, so nothing longer can be compared.
fn race(turns: usize) {
    println!(
        "\n| store | commits of | durable commits/s | Tidegate is (middle half of {turns} turns) |\n|---|---|---|---|"
    );
    for (group, commits) in [(1_usize, 200_u32), (10, 100), (100, 50)] {
        let disks: Vec<Disk> = NAMES.iter().map(|_| Disk::make(1 << 29, AS_USUAL)).collect();
        let mut queues: Vec<Queue> = NAMES
            .iter()
            .zip(&disks)
            .map(|(name, disk)| {
                let dir = store::folder(&disk.path(), name);
                fs::create_dir(&dir).expect("a folder");
                Queue::open(name, &dir)
            })
            .collect();
        let events = store::events(group);
        let mut rates: Vec<Vec<f64>> = vec![Vec::new(); NAMES.len()];
        for turn in 0..turns {
            for step in 0..NAMES.len() {
                let index = (turn + step) % NAMES.len();
                let begun = Instant::now();
                for _ in 0..commits {
                    queues[index].commit(&events);
                }
                rates[index].push(f64::from(commits) / begun.elapsed().as_secs_f64());
            }
        }
        for (index, name) in NAMES.iter().enumerate() {
            let ratio = if index == 0 {
                String::new()
            } else {
                times(&rates[0], &rates[index])
            };
            println!("| {name} | {group} | {:.0} | {ratio} |", median(&rates[index]));
        }
        // The stores close before their disks go.
        drop(queues);
    }
}

/// The median of the turns' ratios, and the middle half of them.
fn times(ours: &[f64], theirs: &[f64]) -> String {
    let mut ratios: Vec<f64> = ours
        .iter()
        .zip(theirs)
        .map(|(ours, theirs)| ours / theirs)
        .collect();
    ratios.sort_by(f64::total_cmp);
    let (low, high) = (ratios[ratios.len() / 4], ratios[ratios.len() * 3 / 4]);
    format!("{:.2}x ({low:.2} to {high:.2})", median(&ratios))
}

fn opening(rounds: usize) {
    let disk = Disk::make(3 << 30, AS_USUAL);
    let dir = disk.path().join("tidegate");
    let begun = Instant::now();
    work("tidegate", "backlog", &dir, &[]);
    let took: Duration = begun.elapsed();
    println!(
        "\n2,000,000 events of {EVENT} bytes undelivered (written in {:.0} s)\n",
        took.as_secs_f64()
    );
    println!(
        "| opened, warm | ms | read, MiB | RSS over an empty process, MiB: opened | after 10,000 more and 10,000 read |"
    );
    println!("|---|---|---|---|---|");
    for (close, how) in [(1, "after a clean stop"), (0, "after a kill")] {
        let more = ["--close".to_owned(), close.to_string()];
        // The first ends as the measured ones shall begin.
        work("tidegate", "open", &dir, &more);
        let found: Vec<Vec<f64>> = (0..rounds)
            .map(|_| work("tidegate", "open", &dir, &more))
            .collect();
        let of = |number: usize| median(&found.iter().map(|numbers| numbers[number]).collect::<Vec<f64>>());
        println!(
            "| {how} | {:.1} | {:.2} | {:.1} | {:.1} |",
            of(0),
            of(1) / 1048576.0,
            of(2),
            of(3)
        );
    }
}
