//! What rules cost in time: by the number of rules, and the work by which eKuiper measures itself, decoding included.
//! What they cost in memory is `rules-memory`: an allocator that counts is slower than what is measured here.
//!
//! `cargo run --release --manifest-path bench/Cargo.toml --bin rules`
//!
//! No disk, no sockets, one thread. What the engine decides is dropped where the daemon hands it to the journal.

use std::{
    fmt::Write,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use tidegate::{
    decode::{Decoder, Format, MetricPlan},
    reading::Reading,
    rule::{MaxRaises, Rule},
    time::EngineTime,
};
use tidegate_bench::{
    driven::{Driven, device_of, metric_of, rule},
    machine, median, option, range,
};

fn main() {
    println!("{}\n", machine());
    processor();
    ekuiper();
}

// Processor time.

fn processor() {
    let rounds: usize = option("--rounds", 9);
    let counts = [10_usize, 100, 1_000, 10_000];
    println!(
        "ns per reading that one rule watches, medians of {rounds} interleaved rounds (target: flat within 1.5x):\n"
    );
    println!(
        "| rules | all others watch another device | ratio | another metric of the same device | ratio |\n|---|---|---|---|---|"
    );
    let elsewhere = |count: usize| {
        let others = (1..count).map(|number| {
            rule(
                &format!("r{number}"),
                &format!("device-{number}"),
                "temperature",
                None,
            )
        });
        std::iter::once(rule("r0", "device-0", "temperature", None))
            .chain(others)
            .collect()
    };
    let otherwise = |count: usize| {
        let others = (1..count).map(|number| rule(&format!("r{number}"), "*", &format!("m{number}"), None));
        std::iter::once(rule("r0", "*", "temperature", None))
            .chain(others)
            .collect()
    };
    let mut engines: Vec<_> = counts
        .iter()
        .map(|count| (Driven::with(elsewhere(*count)), Driven::with(otherwise(*count))))
        .collect();
    let mut found = vec![(Vec::new(), Vec::new()); counts.len()];
    for _ in 0..rounds {
        for ((one, other), times) in engines.iter_mut().zip(&mut found) {
            times.0.push(reading(one));
            times.1.push(reading(other));
        }
    }
    let base = (median(&found[0].0), median(&found[0].1));
    for (count, times) in counts.iter().zip(&found) {
        let (one, other) = (median(&times.0), median(&times.1));
        println!(
            "| {count} | {one:.0} | **{:.2}** | {other:.0} | **{:.2}** |",
            one / base.0,
            other / base.1
        );
    }
    println!("\n| rules that watch it | ns per reading | ns per rule |\n|---|---|---|");
    for count in [1_usize, 10, 100, 1_000] {
        let rules = (0..count)
            .map(|number| rule(&format!("r{number}"), "*", "temperature", None))
            .collect();
        let mut driven = Driven::with(rules);
        let times: Vec<_> = (0..rounds).map(|_| reading(&mut driven)).collect();
        let each = median(&times);
        println!("| {count} | {each:.0} | {:.0} |", each / count as f64);
    }
    println!();
}

/// Nanoseconds per reading that changes nothing.
fn reading(driven: &mut Driven) -> f64 {
    const READINGS: u32 = 20_000;
    let (device, metric) = (device_of(0), metric_of("temperature"));
    driven.tell(&device, &metric, 20.0);
    let begun = Instant::now();
    for _ in 0..READINGS {
        driven.tell(black_box(&device), black_box(&metric), 20.0);
    }
    begun.elapsed().as_nanos() as f64 / f64::from(READINGS)
}

// What eKuiper measures itself by.

fn ekuiper() {
    const MESSAGES: usize = 200_000;
    let rounds: usize = option("--rounds", 9);
    let mut random = 0x2545_F491_4F6C_DD1D_u64;
    let mut number = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % 10_000) as f64 / 100.0
    };
    let payloads: Vec<String> = (0..MESSAGES)
        .map(|_| {
            let mut text = String::new();
            _ = write!(
                text,
                r#"{{"temperature": {}, "humidity": {}}}"#,
                number(),
                number()
            );
            text
        })
        .collect();
    let plan = |name: &str| MetricPlan {
        name: metric_of(name),
        at: Some(format!("/{name}")),
        unit: None,
        scale: 1.0,
        offset: 0.0,
        ignore: Vec::new(),
        valid: None,
    };
    let decoder = Decoder {
        format: Format::Json,
        time: None,
        device_at: None,
        metrics: vec![plan("temperature"), plan("humidity")],
    };
    println!(
        "us per message `{}`, rule `temperature > 50`, from bytes to decision (target <= 1):\n",
        payloads[0]
    );
    println!("| | us | of the rounds | events per message |\n|---|---|---|---|");
    let unbounded = MaxRaises {
        count: 1_000_000,
        per: Duration::from_secs(1),
    };
    let raising = Rule {
        max_raises: unbounded,
        ..Rule::clone(&rule("hot", "*", "temperature", None))
    };
    let cases = [
        ("decoding alone", None),
        (
            "with the rule as written (`max-raises` 12 an hour)",
            Some(rule("hot", "*", "temperature", None)),
        ),
        (
            "with every raise and clear told (`max-raises` beyond reach)",
            Some(Arc::new(raising)),
        ),
    ];
    let mut engines: Vec<_> = cases
        .iter()
        .map(|(_, rule)| rule.clone().map(|rule| Driven::with(vec![rule])))
        .collect();
    let mut found = vec![Vec::new(); cases.len()];
    for _ in 0..rounds {
        for (driven, times) in engines.iter_mut().zip(&mut found) {
            times.push(messages(&decoder, &payloads, driven.as_mut()) * 1e6 / MESSAGES as f64);
        }
    }
    for (((name, _), driven), times) in cases.iter().zip(&engines).zip(&found) {
        let (low, high) = range(times);
        let told = driven.as_ref().map_or(0, |driven| driven.events);
        let each = told as f64 / (MESSAGES * rounds) as f64;
        println!(
            "| {name} | **{:.2}** | {low:.2} to {high:.2} | {each:.3} |",
            median(times)
        );
    }
}

/// Seconds for all of them.
fn messages(decoder: &Decoder, payloads: &[String], mut driven: Option<&mut Driven>) -> f64 {
    let device = device_of(0);
    let begun = Instant::now();
    for payload in payloads {
        let decoded = decoder.decode(black_box(payload.as_bytes())).expect("JSON");
        let Some(driven) = driven.as_mut() else {
            _ = black_box(decoded);
            continue;
        };
        driven.now += 1000;
        for (metric, value, unit) in decoded.values {
            let reading = Reading {
                device: device.clone(),
                metric: metric.expect("a table names it"),
                value,
                unit,
                at: EngineTime(driven.now),
                stamped: false,
            };
            driven.engine.observe(&reading, &mut driven.out).expect("in time");
        }
        driven.commit();
    }
    begun.elapsed().as_secs_f64()
}
