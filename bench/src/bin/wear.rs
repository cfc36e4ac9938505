//! What an event costs the card: bytes that reach the device, for events far apart, one a second and many.
//!
//! `sudo cargo run --release --manifest-path bench/Cargo.toml --bin wear`
//!
//! The daemon and mosquitto (persistence with `autosave_on_changes`, and a bridge) forward every event to a broker that is
//! there, each with its files on an ext4 of its own, at the same time. Every publish raises or clears, so it is an
//! event. A third writes one page in place and flushes it for every event: on the same mount no program with a file gets
//! below that. All three on an ext4 as it is mounted usually, and on one as Tidegate's own image mounts it.
//! Needs root, losetup and mkfs.ext4, whose device says what was written: with what ext4's own journal and the
//! write-back of its inodes come to between two events, so the gaps are real.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::Path,
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use tidegate_bench::{
    client::Client,
    disk::{AS_USUAL, Counters, Disk},
    machine, option, server,
};

const SITE: &str = r#"
[gateway]
id = "bench"

[journal]
dir = "DIR"
max-bytes = "8MiB"

[mqtt]
listen = ["LISTEN"]

[[mqtt.readings]]
topic = "thermostats/{device}/state"
format = "json"

[[mqtt.readings.metric]]
name = "temperature"
at = "/temp"
unit = "Cel"

[[rule]]
event = "HighTemperature"
metric = "temperature"
above = 30.0
clear = 28.0
max-raises = "1000000/h"

[[sink.mqtt]]
name = "cloud"
url = "mqtt://UPSTREAM"
"#;

/// More than the journal's 8 MiB: its segments are written a second time.
const WARM_UP: usize = 30_000;
/// Until ext4's journal (5 s) and the kernel's write-back (30 s) are done with the warm-up.
const SETTLE: Duration = Duration::from_secs(40);

/// Events so far apart, and for how long; what one of them may cost.
#[derive(Clone, Copy)]
struct Pace {
    name: &'static str,
    /// Published together: a sleep is too coarse for a millisecond.
    together: usize,
    every: Duration,
    lasting: Duration,
    target: &'static str,
}

/// What an event came to.
struct Cost {
    bytes: f64,
    flushes: f64,
    /// Fewer where the server does not keep pace.
    events: usize,
}

fn main() {
    let binary = server::tidegate_binary();
    let seconds: u64 = option("--seconds", 120);
    let paces = [
        Pace {
            name: "1,000 a second",
            together: 10,
            every: Duration::from_millis(10),
            lasting: Duration::from_secs(seconds / 4),
            target: "<= 600",
        },
        Pace {
            name: "one a second",
            together: 1,
            every: Duration::from_secs(1),
            lasting: Duration::from_secs(seconds),
            target: "<= 6,000",
        },
        Pace {
            name: "one a minute",
            together: 1,
            every: Duration::from_mins(1),
            lasting: Duration::from_mins(option("--minutes", 10)),
            target: "<= 10,000",
        },
    ];
    let only: String = option("--only", String::new());
    let image = image_mounts_it();
    let mounts = [("as usual", AS_USUAL), ("as our image", image)];
    println!("{}; our image mounts with {image}\n", machine());
    println!(
        "| events | mounted | who | events seen | device bytes an event | flushes an event | to Tidegate | target |\n\
         |---|---|---|---|---|---|---|---|"
    );
    for pace in paces.into_iter().filter(|pace| pace.name.contains(&only)) {
        // At the same time, each on a device of its own: the slow paces take long.
        let costs = thread::scope(|threads| {
            mounts
                .map(|(_, options)| {
                    [
                        threads.spawn(|| tidegate(&binary, pace, options)),
                        threads.spawn(|| mosquitto(pace, options)),
                        threads.spawn(|| least(pace, options)),
                    ]
                })
                .map(|three| three.map(|one: ScopedJoinHandle<Cost>| one.join().expect("it was measured")))
        });
        for ((mounted, _), [ours, theirs, least]) in mounts.iter().zip(&costs) {
            for (who, cost, target) in [
                ("Tidegate", ours, pace.target),
                ("mosquitto", theirs, ""),
                ("a page", least, ""),
            ] {
                println!(
                    "| {} | {mounted} | {who} | {} | {:.0} | {:.2} | {:.2}x | {target} |",
                    pace.name,
                    cost.events,
                    cost.bytes,
                    cost.flushes,
                    cost.bytes / ours.bytes
                );
            }
        }
    }
}

/// What the image's fstab says of its root filesystem.
fn image_mounts_it() -> &'static str {
    let table = include_str!("../../../packaging/image/root/etc/fstab");
    let mut lines = table.lines().map(|line| line.split_whitespace());
    let options = lines.find_map(|mut fields| (fields.nth(1)? == "/").then(|| fields.nth(1))?);
    options.expect("the image has a root filesystem")
}

fn tidegate(binary: &Path, pace: Pace, mounted: &str) -> Cost {
    let disk = disk(mounted);
    let elsewhere = tempfile::tempdir().expect("a folder");
    let upstream = server::mosquitto(elsewhere.path());
    let site = SITE.replace("UPSTREAM", &upstream.address.to_string());
    let server = server::tidegate(binary, &site, &disk.path());
    let mut device = Device::connect(&server);
    device.publish(WARM_UP);
    measure(&disk, pace, || device.publish(pace.together))
}

fn mosquitto(pace: Pace, mounted: &str) -> Cost {
    let disk = disk(mounted);
    let elsewhere = tempfile::tempdir().expect("a folder");
    let upstream = server::mosquitto(elsewhere.path());
    let lines = format!(
        "persistence true\npersistence_location {}/\nautosave_on_changes true\nautosave_interval 1\n\
         connection cloud\naddress {}\ntopic # out 1\ncleansession false\n",
        disk.path().display(),
        upstream.address
    );
    let server = server::broker(&disk.path(), server::free(), &lines);
    let mut device = Device::connect(&server);
    device.publish(100);
    measure(&disk, pace, || device.publish(pace.together))
}

fn least(pace: Pace, mounted: &str) -> Cost {
    let disk = disk(mounted);
    let file = fs::File::create(disk.path().join("page")).expect("a file");
    let write = || {
        file.write_all_at(&[7; 4096], 0).expect("written");
        file.sync_data().expect("flushed");
    };
    write();
    measure(&disk, pace, write)
}

fn disk(mounted: &str) -> Disk {
    // Smaller ones get blocks of 1 KiB.
    Disk::make(512 << 20, mounted)
}

fn measure(disk: &Disk, pace: Pace, mut happen: impl FnMut()) -> Cost {
    // Not a wait for something to happen: what the warm-up left to write back shall not be counted.
    thread::sleep(SETTLE);
    let before = Counters::read(&disk.counters(), &disk.path());
    let begun = Instant::now();
    let mut turns = 0;
    while begun.elapsed() < pace.lasting {
        happen();
        turns += 1;
        thread::sleep((pace.every * turns).saturating_sub(begun.elapsed()));
    }
    let after = Counters::read(&disk.counters(), &disk.path());
    let events = turns as usize * pace.together;
    Cost {
        bytes: (after.bytes - before.bytes) as f64 / events as f64,
        flushes: (after.flushes - before.flushes) as f64 / events as f64,
        events,
    }
}

/// One whose temperature rises and falls with every publish.
struct Device {
    client: Client,
    is_hot: bool,
}

impl Device {
    fn connect(server: &server::Server) -> Self {
        Self {
            client: Client::connect(server.address, "device"),
            is_hot: false,
        }
    }

    fn publish(&mut self, count: usize) {
        let messages = (0..count).map(|_| {
            self.is_hot = !self.is_hot;
            let temperature = if self.is_hot {
                r#"{"temp":34.56}"#
            } else {
                r#"{"temp":21.37}"#
            };
            ("thermostats/device/state", temperature)
        });
        self.client.publish_all(messages);
    }
}
