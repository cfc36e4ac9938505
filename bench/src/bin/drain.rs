//! A backlog on its way out, against mosquitto's own bridge: the same messages to the same mosquitto.
//!
//! `cargo run --release --manifest-path bench/Cargo.toml --bin drain`
//!
//! The daemon's backlog is made by the daemon, with an uplink that leads nowhere, and it is killed. The bridge's are the
//! same events as the journal exports them, queued while its upstream is away. What is measured is seen upstream: the
//! time between the first event and the last one, which go to topics of their own; and the processor time that the
//! drainer itself takes between them, which a busy machine changes less.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use tidegate_bench::{
    client::Client,
    machine, median, option, process, range,
    server::{self, Server},
};

const SITE: &str = r#"
[gateway]
id = "bench"

[journal]
dir = "DIR"
max-bytes = "4GiB"

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
inflight = INFLIGHT
"#;

/// mosquitto's own window; ours is 16 if nothing is said.
const INFLIGHT: &str = "20";
const RAISES: &str = r#"{"temp":34.56}"#;
const CLEARS: &str = r#"{"temp":21.37}"#;
/// As long as the longest queue of a bridge, and kept: the best that mosquitto can do.
const QUEUES_ALL: &str = "persistence true\nmax_queued_messages 0\n";
/// What a bridge has if nothing is said but that it shall keep what it has.
const DEFAULT: &str = "persistence true\n";
/// Upstream takes all that comes.
const UPSTREAM: &str = "persistence false\nmax_queued_messages 0\n";

fn main() {
    let binary = server::tidegate_binary();
    let events: usize = option("--events", 200_000);
    let rounds: usize = option("--rounds", 5);
    let only: String = option("--only", String::new());
    let wanted = |name: &str| only.is_empty() || only == name;
    println!("{}\n", machine());
    let backlog = Backlog::make(&binary, events);
    if wanted("rate") {
        rate(&backlog, rounds);
    }
    if wanted("loss") {
        loss(&backlog);
    }
    if wanted("kill") {
        kills(&backlog, rounds);
    }
    if wanted("alarm") {
        alarms(&backlog, rounds);
    }
}

/// A journal full of undelivered events, and the very same ones as messages.
struct Backlog {
    binary: PathBuf,
    folder: tempfile::TempDir,
    messages: Vec<(String, String)>,
}

impl Backlog {
    fn make(binary: &Path, events: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let server = daemon(binary, folder.path(), server::free());
        let mut client = Client::connect(server.address, "devices");
        client.publish("thermostats/first/state", RAISES);
        let topics: Vec<String> = (0..50)
            .map(|n| format!("thermostats/device-{n:02}/state"))
            .collect();
        client.publish_all((2..events).map(|number| {
            let payload = if (number / topics.len()).is_multiple_of(2) {
                RAISES
            } else {
                CLEARS
            };
            (topics[number % topics.len()].as_str(), payload)
        }));
        client.publish("thermostats/last/state", RAISES);
        drop(client);
        server.kill();
        let exported = Command::new(binary)
            .args(["journal", "export", "--dir"])
            .arg(folder.path().join("journal"))
            .output()
            .expect("the daemon's own export");
        assert!(exported.status.success(), "tidegate journal export failed");
        let exported = String::from_utf8(exported.stdout).expect("JSON is UTF-8");
        let messages: Vec<(String, String)> = exported.lines().map(message).collect();
        let bytes: usize = messages.iter().map(|(_, payload)| payload.len()).sum();
        println!(
            "{} events, {} bytes each as a message\n",
            messages.len(),
            bytes / messages.len()
        );
        Self {
            binary: binary.to_owned(),
            folder,
            messages,
        }
    }

    /// A copy of the journal, so that each round drains the same, in a new folder.
    fn copy(&self) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        copy(
            &self.folder.path().join("journal"),
            &folder.path().join("journal"),
        );
        settle(folder.path());
        folder
    }
}

/// The topic that the daemon gives it, and the payload.
fn message(line: &str) -> (String, String) {
    let event: serde_json::Value = serde_json::from_str(line).expect("an event is JSON");
    let subject = event["subject"]
        .as_str()
        .and_then(|subject| subject.split('/').next());
    let device = subject.unwrap_or("gateway");
    let kind = event["type"].as_str().and_then(|kind| kind.rsplit('.').next());
    let topic = format!("tidegate/bench/events/{}/{device}", kind.expect("a type"));
    (topic, line.to_owned())
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(status.is_ok_and(|status| status.success()), "cp -a failed");
}

/// What was copied is on the disk: its write-back is nobody's cost.
fn settle(folder: &Path) {
    let folder = fs::File::open(folder).expect("a folder");
    rustix::fs::syncfs(&folder).expect("synced");
}

fn daemon(binary: &Path, folder: &Path, upstream: SocketAddr) -> Server {
    let site = SITE
        .replace("UPSTREAM", &upstream.to_string())
        .replace("INFLIGHT", INFLIGHT);
    server::tidegate(binary, &site, folder)
}

/// mosquitto with a bridge.
fn bridge(folder: &Path, lines: &str, upstream: SocketAddr) -> Server {
    let lines = format!(
        "{lines}persistence_location {}/\nconnection cloud\naddress {upstream}\ntopic # out 1\ncleansession false\n\
         local_clientid local\nremote_clientid bridge\nnotifications false\nrestart_timeout 1\n",
        folder.display()
    );
    server::broker(folder, server::free(), &lines)
}

/// A bridge that was fed with all messages while its upstream was away, held until somebody watches what comes there; and
/// where that shall be.
fn fed_bridge(backlog: &Backlog, folder: &Path, lines: &str) -> (Server, SocketAddr) {
    let upstream = server::free();
    let server = bridge(folder, lines, upstream);
    let mut client = Client::connect(server.address, "feed");
    let messages = backlog.messages.iter();
    client.publish_all(messages.map(|(topic, payload)| (topic.as_str(), payload.as_str())));
    server.hold();
    (server, upstream)
}

/// What came, told by who is subscribed to it.
struct Watch(Client);

impl Watch {
    /// Over the first event and over the last.
    fn ends(upstream: &Server) -> [Self; 2] {
        ["first", "last"].map(|device| {
            let mut client = Client::connect(upstream.address, device);
            client.subscribe(&format!("tidegate/bench/events/+/{device}"));
            Self(client)
        })
    }

    /// Waits until an event of this device has come.
    fn device(&mut self, device: &str) {
        while !self.0.message().0.ends_with(device) {}
    }
}

/// How a backlog went, between the first event and the last.
struct Drained {
    /// Events a second, seen upstream by who knew them before.
    rate: f64,
    /// Microseconds of the drainer's processors per event.
    cpu: f64,
}

fn drained(mut watches: [Watch; 2], events: usize, drainer: &Server) -> Drained {
    watches[0].device("/first");
    let (begun, before) = (Instant::now(), process::cpu(drainer.pid()));
    watches[1].device("/last");
    let cpu = process::cpu(drainer.pid()).saturating_sub(before);
    Drained {
        rate: events as f64 / begun.elapsed().as_secs_f64(),
        cpu: cpu.as_secs_f64() * 1e6 / events as f64,
    }
}

fn rate(backlog: &Backlog, rounds: usize) {
    let events = backlog.messages.len();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    println!(
        "| round | Tidegate, events/s | mosquitto's bridge | ratio | CPU us/event | bridge's | ratio |\n|---|---|---|---|---|---|---|"
    );
    for number in 0..rounds {
        for turn in 0..2 {
            let elsewhere = tempfile::tempdir().expect("a folder");
            if (turn + number) % 2 == 0 {
                let folder = backlog.copy();
                let upstream = server::broker(elsewhere.path(), server::free(), UPSTREAM);
                let watches = Watch::ends(&upstream);
                let server = daemon(&backlog.binary, folder.path(), upstream.address);
                ours.push(drained(watches, events, &server));
            } else {
                let folder = tempfile::tempdir().expect("a folder");
                let (server, address) = fed_bridge(backlog, folder.path(), QUEUES_ALL);
                let upstream = server::broker(elsewhere.path(), address, UPSTREAM);
                let watches = Watch::ends(&upstream);
                server.go_on();
                theirs.push(drained(watches, events, &server));
            }
        }
        let (mine, peer) = (&ours[number], &theirs[number]);
        println!(
            "| {} | {:.0} | {:.0} | {:.2} | {:.1} | {:.1} | {:.2} |",
            number + 1,
            mine.rate,
            peer.rate,
            mine.rate / peer.rate,
            mine.cpu,
            peer.cpu,
            mine.cpu / peer.cpu,
        );
    }
    type Figure = fn(&Drained) -> f64;
    let figures: [(&str, Figure, &str); 2] = [
        ("events/s", |drained| drained.rate, "target >= 1.0"),
        ("CPU us/event", |drained| drained.cpu, "which has no target"),
    ];
    println!();
    for (name, figure, target) in figures {
        let of = |rounds: &[Drained]| rounds.iter().map(figure).collect::<Vec<f64>>();
        let (mine, peers) = (of(&ours), of(&theirs));
        let ratios: Vec<f64> = mine.iter().zip(&peers).map(|(mine, peer)| mine / peer).collect();
        let (low, high) = range(&ratios);
        println!(
            "{name}, medians: Tidegate {:.1}, mosquitto's bridge {:.1}; ratio, median of the rounds: **{:.2}** ({low:.2} to {high:.2}), {target}",
            median(&mine),
            median(&peers),
            median(&ratios),
        );
    }
    println!();
}

/// How many of the messages mosquitto still has if nobody told it to keep more.
fn loss(backlog: &Backlog) {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, address) = fed_bridge(backlog, folder.path(), DEFAULT);
    let elsewhere = tempfile::tempdir().expect("a folder");
    let upstream = server::broker(elsewhere.path(), address, UPSTREAM);
    let mut watch = Client::connect(upstream.address, "watch");
    watch.subscribe("tidegate/#");
    watch.subscribe("end");
    server.go_on();
    // So many it has in any case, and then its queue has room for one more. The bridge delivers in order: behind that
    // one nothing of the old ones comes.
    let mut came = 500;
    for _ in 0..came {
        watch.message();
    }
    Client::connect(server.address, "end").publish("end", "");
    while watch.message().0 != "end" {
        came += 1;
    }
    let events = backlog.messages.len();
    println!(
        "mosquitto's bridge as it is by default lost {} of {events} ({came} came)\n",
        events - came
    );
}

/// kill -9 in the middle: what comes twice is what the cursor on the disk was behind.
fn kills(backlog: &Backlog, rounds: usize) {
    println!(
        "| kill -9 after | events/s before it | came twice | so the cursor was behind, ms | lost |\n|---|---|---|---|---|"
    );
    for round in 0..rounds {
        let elsewhere = tempfile::tempdir().expect("a folder");
        let upstream = server::broker(elsewhere.path(), server::free(), UPSTREAM);
        let mut watch = Client::connect(upstream.address, "watch");
        watch.subscribe("tidegate/bench/events/#");
        let folder = backlog.copy();
        // The first time it is killed after a while, the second time it may go on to the last event.
        let mut seen: BTreeMap<String, u32> = BTreeMap::new();
        let mut note = |topic: &str, payload: &[u8]| {
            let event: serde_json::Value = serde_json::from_slice(payload).expect("an event is JSON");
            let id = event["id"].as_str().expect("an id");
            *seen.entry(id.to_owned()).or_default() += 1;
            topic.ends_with("/last")
        };
        let before_it = backlog.messages.len() * (round + 1) / (rounds + 2);
        let server = daemon(&backlog.binary, folder.path(), upstream.address);
        let mut came = Vec::with_capacity(before_it);
        came.push(watch.message());
        let begun = Instant::now();
        while came.len() < before_it {
            came.push(watch.message());
        }
        let (elapsed, rate) = (begun.elapsed(), before_it as f64 / begun.elapsed().as_secs_f64());
        server.kill();
        for (topic, payload) in came {
            note(&topic, &payload);
        }
        let server = daemon(&backlog.binary, folder.path(), upstream.address);
        loop {
            let (topic, payload) = watch.message();
            if note(&topic, &payload) {
                break;
            }
        }
        drop(server);
        let twice: u32 = seen.values().map(|times| times - 1).sum();
        let lost = backlog.messages.iter().filter(|(_, line)| {
            let event: serde_json::Value = serde_json::from_str(line).expect("an event is JSON");
            !seen.contains_key(event["id"].as_str().expect("an id"))
        });
        println!(
            "| {:.2} s | {rate:.0} | {twice} | {:.1} | {} |",
            elapsed.as_secs_f64(),
            f64::from(twice) / rate * 1e3,
            lost.count()
        );
    }
    println!();
}

/// Memory, and how soon a new alarm is acknowledged, before, while and after the backlog goes.
fn alarms(backlog: &Backlog, rounds: usize) {
    println!(
        "| round | alarm's PUBACK, ms: median (p99) before | while it drains | after | ratio | RSS MiB before | most while | after | most ever |\n|---|---|---|---|---|---|---|---|---|"
    );
    let (mut medians, mut tails) = (Vec::new(), Vec::new());
    for number in 1..=rounds {
        let folder = backlog.copy();
        let upstream = server::free();
        let server = daemon(&backlog.binary, folder.path(), upstream);
        let pid = server.pid();
        let probe = |until: &(dyn Fn() -> bool + Sync)| probe(&server, until);
        let three_seconds = || {
            let begun = Instant::now();
            probe(&move || begun.elapsed() > Duration::from_secs(3))
        };
        let (before, rss_before) = (three_seconds(), process::rss(pid));
        let elsewhere = tempfile::tempdir().expect("a folder");
        server.hold();
        let upstream = server::broker(elsewhere.path(), upstream, UPSTREAM);
        let [mut first, mut last] = Watch::ends(&upstream);
        server.go_on();
        first.device("/first");
        let has_ended = AtomicBool::new(false);
        let (during, most) = thread::scope(|threads| {
            let memory = threads.spawn(|| {
                let mut most = 0.0_f64;
                while !has_ended.load(Ordering::Relaxed) {
                    most = most.max(process::rss(pid));
                    thread::sleep(Duration::from_millis(50));
                }
                most
            });
            let alarms = threads.spawn(|| probe(&|| has_ended.load(Ordering::Relaxed)));
            last.device("/last");
            has_ended.store(true, Ordering::Relaxed);
            (alarms.join().expect("it ran"), memory.join().expect("it ran"))
        });
        let (after, rss_after) = (three_seconds(), process::rss(pid));
        let high = process::field(&format!("/proc/{pid}/status"), "VmHWM:") / 1024.0;
        let ratio = |of: fn(&Latencies) -> f64| of(&during) / f64::midpoint(of(&before), of(&after));
        medians.push(ratio(|of| of.median));
        tails.push(ratio(|of| of.p99));
        println!(
            "| {number} | {before} | {during} | {after} | {:.2} ({:.2}) | {rss_before:.1} | {most:.1} | {rss_after:.1} | {high:.1} |",
            medians[number - 1],
            tails[number - 1],
        );
    }
    println!(
        "\nWhile it drains an alarm's PUBACK takes **{:.2}** times as long (p99: {:.2})",
        median(&medians),
        median(&tails)
    );
}

/// In milliseconds.
struct Latencies {
    median: f64,
    p99: f64,
}

impl std::fmt::Display for Latencies {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:.2} ({:.2})", self.median, self.p99)
    }
}

/// Raises and clears an alarm, 200 times a second at most, one after the other.
fn probe(server: &Server, has_ended: &dyn Fn() -> bool) -> Latencies {
    let mut client = Client::connect(server.address, "probe");
    let mut taken = Vec::new();
    while !has_ended() {
        for payload in [RAISES, CLEARS] {
            let begun = Instant::now();
            client.publish("thermostats/probe/state", payload);
            taken.push(begun.elapsed().as_secs_f64() * 1e3);
            thread::sleep(Duration::from_millis(5));
        }
    }
    taken.sort_by(f64::total_cmp);
    let p99 = taken[(taken.len() * 99 / 100).min(taken.len() - 1)];
    Latencies {
        median: median(&taken),
        p99,
    }
}
