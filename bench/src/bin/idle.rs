//! What the daemon costs when nothing happens, and how soon it is ready.
//!
//! `cargo run --release --manifest-path bench/Cargo.toml --bin idle`
//!
//! The backlog is made by the daemon itself: every message raises or clears, the uplink leads nowhere, and the
//! process is killed with all of it undelivered.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use tidegate_bench::{
    load::{Devices, Plan},
    machine, median, option, process, range, server,
};

const SITE: &str = r#"
[gateway]
id = "bench"

[journal]
dir = "DIR"
max-bytes = "3GiB"

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
"#;

/// Nobody listens there.
const UPLINK: &str = r#"
[[sink.mqtt]]
name = "cloud"
url = "mqtt://127.0.0.1:9"
"#;

fn main() {
    let binary = server::tidegate_binary();
    println!("{}\n\n| figure | found | target |\n|---|---|---|", machine());
    println!("| binary, stripped | {:.2} MiB | <= 8 |", stripped(&binary));
    let folder = tempfile::tempdir().expect("a folder");
    rest(&binary, folder.path());
    backlog(&binary);
}

fn stripped(binary: &Path) -> f64 {
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("tidegate");
    let status = Command::new("strip")
        .arg("-o")
        .arg(&copy)
        .arg(binary)
        .status()
        .expect("strip");
    assert!(status.success(), "strip: {status}");
    fs::metadata(copy).expect("a file").len() as f64 / 1048576.0
}

fn rest(binary: &Path, folder: &Path) {
    let seconds: u64 = option("--seconds", 60);
    let server = server::tidegate(binary, SITE, folder);
    let pid = server.pid();
    // Not a wait for something to happen: a start is over when nothing does.
    std::thread::sleep(Duration::from_secs(2));
    println!("| RSS after start | {:.1} MiB | <= 8 |", process::rss(pid));
    let (ticks, scheduled, begun) = (process::cpu(pid), process::scheduled(pid), Instant::now());
    std::thread::sleep(Duration::from_secs(seconds));
    let share = |time: Duration| 100.0 * time.as_secs_f64() / begun.elapsed().as_secs_f64();
    println!(
        "| CPU over {seconds} s | {:.4} % by the scheduler, {:.3} % in ticks of 10 ms | <= 0.05 % |",
        share(process::scheduled(pid).saturating_sub(scheduled)),
        share(process::cpu(pid).saturating_sub(ticks)),
    );
    println!("| RSS then | {:.1} MiB | |", process::rss(pid));
}

fn backlog(binary: &Path) {
    let events: u64 = option("--events", 1_000_000);
    let rounds: usize = option("--rounds", 5);
    let folder = tempfile::tempdir().expect("a folder");
    let site = format!("{SITE}{UPLINK}");
    let mut made = 0;
    while made < events {
        let server = server::tidegate(binary, &site, folder.path());
        let mut devices = Devices::connect(server.address, 50, 20);
        let plan = Plan {
            connections: 50,
            window: 20,
            warm_up: Duration::ZERO,
            measured: Duration::from_secs(5),
            raise_every: 1,
        };
        made += devices.publish(&plan, || (), || ()).all;
        server.kill();
    }
    let mut ready = Vec::new();
    let mut rss = 0.0_f64;
    for _ in 0..rounds {
        let server = server::tidegate(binary, &site, folder.path());
        ready.push(server.ready.as_secs_f64() * 1e3);
        rss = rss.max(process::rss(server.pid()));
        server.kill();
    }
    let (low, high) = range(&ready);
    println!(
        "| ready with {made} undelivered events, after a kill | {:.0} ms ({low:.0} to {high:.0}) | <= 100 |",
        median(&ready)
    );
    println!("| RSS then | {rss:.1} MiB | |");
    let bytes = bytes_below(&folder.path().join("journal"));
    println!(
        "| their journal, a message | {:.0} bytes | |",
        bytes as f64 / made as f64
    );
}

/// So that nobody need believe that there are events behind the messages.
fn bytes_below(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).expect("a folder").flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_below(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    });
    bytes.sum()
}
