//! The door against mosquitto: the same devices, the same load, one after the other, round by round.
//!
//! `cargo run --release --manifest-path bench/Cargo.toml --bin door`
//!
//! Tidegate decodes, evaluates a rule for every reading and acknowledges when the disk has what it caused;
//! mosquitto acknowledges from memory, with persistence off. Ratios of the medians are the figures.

use std::{path::Path, time::Duration};

use tidegate_bench::{
    load::{Devices, Outcome, Plan},
    machine, median, option, process, range,
    server::{self, Server},
};

const SITE: &str = r#"
[gateway]
id = "bench"

[journal]
dir = "DIR"
max-bytes = "64MiB"

[mqtt]
listen = ["LISTEN"]
max-connections = 3000
max-devices = 3000

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

/// One round of one server.
struct Round {
    outcome: Outcome,
    /// Microseconds of the server's processors per message.
    cpu: f64,
    /// Of the load's.
    own_cpu: f64,
    rss: f64,
}

#[derive(Clone, Copy, PartialEq)]
enum Peer {
    Tidegate,
    Mosquitto,
}

fn main() {
    let binary = server::tidegate_binary();
    let rounds: usize = option("--rounds", 5);
    let seconds: f64 = option("--seconds", 5.0);
    let only: String = option("--only", String::new());
    println!("{}\n", machine());
    for window in [20, 1] {
        if !only.is_empty() && only != window.to_string() {
            continue;
        }
        let plan = Plan {
            connections: 50,
            window,
            warm_up: Duration::from_secs(1),
            measured: Duration::from_secs_f64(seconds),
            raise_every: tidegate_bench::load::RAISE_EVERY,
        };
        compare(&binary, &plan, rounds);
    }
    if only.is_empty() || only == "idle" {
        idle(&binary, rounds);
    }
}

fn start(peer: Peer, binary: &Path, folder: &Path) -> Server {
    match peer {
        Peer::Tidegate => server::tidegate(binary, SITE, folder),
        Peer::Mosquitto => server::mosquitto(folder),
    }
}

fn compare(binary: &Path, plan: &Plan, rounds: usize) {
    println!(
        "{} connections, window {}, QoS 1, 60-byte JSON, {rounds} rounds\n",
        plan.connections, plan.window
    );
    println!(
        "| round | server | messages/s | server CPU us/message | load CPU us/message | p50 ms | p99 ms | RSS MiB |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for number in 1..=rounds {
        // Turn and turn about, so that neither always has the warmer machine.
        let mut order = [Peer::Tidegate, Peer::Mosquitto];
        if number % 2 == 0 {
            order.reverse();
        }
        for peer in order {
            let round = round(peer, binary, plan);
            let name = if peer == Peer::Tidegate {
                "Tidegate"
            } else {
                "mosquitto"
            };
            println!(
                "| {number} | {name} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {:.1} |",
                round.outcome.rate(),
                round.cpu,
                round.own_cpu,
                round.outcome.quantile(0.5),
                round.outcome.quantile(0.99),
                round.rss,
            );
            if peer == Peer::Tidegate {
                ours.push(round)
            } else {
                theirs.push(round)
            }
        }
    }
    println!(
        "\n| figure | Tidegate | mosquitto | ratio | of the rounds | target |\n|---|---|---|---|---|---|"
    );
    type Figure = fn(&Round) -> f64;
    let figures: [(&str, Figure, &str); 5] = [
        ("messages/s", |round| round.outcome.rate(), ">= 2.0"),
        ("server CPU us/message", |round| round.cpu, "<= 0.5"),
        ("p50 PUBACK ms", |round| round.outcome.quantile(0.5), ""),
        ("p99 PUBACK ms", |round| round.outcome.quantile(0.99), "<= 1.0"),
        ("RSS MiB", |round| round.rss, "<= 1.2"),
    ];
    for (name, figure, target) in figures {
        let target = if plan.window == 20 { target } else { "" };
        let of = |rounds: &[Round]| rounds.iter().map(figure).collect::<Vec<f64>>();
        let (mine, peers) = (of(&ours), of(&theirs));
        let ratios: Vec<f64> = mine.iter().zip(&peers).map(|(mine, peer)| mine / peer).collect();
        let (low, high) = range(&ratios);
        let (mine, peers) = (median(&mine), median(&peers));
        println!(
            "| {name} | {mine:.2} | {peers:.2} | **{:.2}** | {low:.2} to {high:.2} | {target} |",
            mine / peers
        );
    }
    println!();
}

fn round(peer: Peer, binary: &Path, plan: &Plan) -> Round {
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(peer, binary, folder.path());
    let pid = server.pid();
    let mut devices = Devices::connect(server.address, plan.connections, plan.window);
    let (before, after) = (
        std::cell::Cell::new(Duration::ZERO),
        std::cell::Cell::new(Duration::ZERO),
    );
    let outcome = devices.publish(
        plan,
        || before.set(process::cpu(pid)),
        || after.set(process::cpu(pid)),
    );
    let per_message = |time: Duration| time.as_secs_f64() * 1e6 / outcome.messages as f64;
    Round {
        cpu: per_message(after.get().saturating_sub(before.get())),
        own_cpu: per_message(outcome.own_cpu),
        rss: process::rss(pid),
        outcome,
    }
}

fn idle(binary: &Path, rounds: usize) {
    let mut found = Vec::new();
    for peer in [Peer::Tidegate, Peer::Mosquitto] {
        let of_all = (0..rounds).map(|_| {
            let folder = tempfile::tempdir().expect("a folder");
            let server = start(peer, binary, folder.path());
            let devices = Devices::connect(server.address, 2000, 1);
            let rss = process::rss(server.pid());
            drop(devices);
            rss
        });
        found.push(median(&of_all.collect::<Vec<f64>>()));
    }
    println!(
        "2,000 idle connections, RSS MiB: Tidegate {:.1} (target <= 24), mosquitto {:.1}",
        found[0], found[1]
    );
}
