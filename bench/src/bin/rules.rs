//! What the engine costs: memory per (rule, device), processor time by the number of rules, and the work by which
//! eKuiper measures itself, decoding included.
//!
//! `cargo run --release --manifest-path bench/Cargo.toml --bin rules`
//!
//! No disk, no sockets, one thread. What the engine decides is dropped where the daemon hands it to the journal.

use std::{
    alloc::System,
    collections::BTreeMap,
    fmt::Write,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tidegate::{
    decode::{Decoder, Format, MetricPlan},
    event::{Epoch, Position, Severity},
    reading::{DeviceId, Metric, Reading, Value},
    rule::{
        Aggregate, Condition, MaxRaises, Pattern, Rule, Sliding, Test, Watched,
        engine::{Engine, Setup},
        state::Outcome,
    },
    time::{BootId, ClockQuality, EngineTime, Moment, Timestamp},
};
use tidegate_bench::{machine, median, option, range};

/// Counts what is asked for; the allocator's own overhead is not in it.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const DEVICES: usize = 1000;
const RULES_EACH: usize = 8;

fn main() {
    println!("{}\n", machine());
    memory();
    processor();
    ekuiper();
}

/// Bytes that are allocated now.
fn allocated() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

fn rule(name: &str, devices: &str, metric: &str, window: Option<Sliding>) -> Arc<Rule> {
    Arc::new(Rule {
        name: name.into(),
        event: "HighTemperature".into(),
        cleared_event: "HighTemperatureCleared".into(),
        type_prefix: "io.tidegate.rule.".into(),
        devices: vec![Pattern(devices.into())],
        labels_required: BTreeMap::new(),
        condition: Condition::Value(Watched {
            metric: metric_of(metric),
            window,
            test: Test::Above { threshold: 50.0, clear: 50.0 },
        }),
        hold: Duration::ZERO,
        clear_hold: Duration::ZERO,
        severity: Severity::Warning,
        max_raises: MaxRaises { count: 12, per: Duration::from_secs(3600) },
        remind_every: None,
        unless: None,
        during: Vec::new(),
        stale_after: Duration::from_secs(900),
        summary: None,
        runbook: None,
        labels: BTreeMap::new(),
        overrides: Vec::new(),
    })
}

fn metric_of(name: &str) -> Metric {
    Metric::new(name).expect("a name")
}

fn device_of(number: usize) -> DeviceId {
    DeviceId::new(&format!("device-{number}")).expect("a name")
}

/// A driver that commits at once and keeps nothing.
struct Driven {
    engine: Engine,
    out: Outcome,
    now: i64,
    commits: u64,
    events: u64,
}

impl Driven {
    fn with(rules: Vec<Arc<Rule>>) -> Self {
        let setup = Setup {
            rules,
            devices: Vec::new(),
            epoch: Epoch(7),
            max_devices: 100_000,
            max_metrics: 100,
        };
        let moment = Moment {
            boot_id: BootId(1),
            boot: EngineTime(0),
            wall: Timestamp(1_800_000_000_000_000),
            quality: ClockQuality::Synchronised,
        };
        let mut out = Outcome::default();
        let engine = Engine::restore(setup, &[], moment, &mut out);
        Self { engine, out: Outcome::default(), now: 0, commits: 0, events: 0 }
    }

    fn observe(&mut self, reading: &Reading) {
        self.engine.observe(reading, &mut self.out).expect("in time");
        self.commit();
    }

    fn commit(&mut self) {
        if self.out.events.is_empty() && self.out.state.is_empty() {
            return;
        }
        self.events += self.out.events.len() as u64;
        self.out.events.clear();
        self.out.state.clear();
        self.commits += 1;
        self.engine.committed(Position(self.commits));
    }

    fn tell(&mut self, device: &DeviceId, metric: &Metric, value: f64) {
        self.now += 1000;
        let reading = Reading {
            device: device.clone(),
            metric: metric.clone(),
            value: Value::Number(value),
            unit: None,
            at: EngineTime(self.now),
            stamped: false,
        };
        self.observe(&reading);
    }
}

// Memory.

/// Bytes per (rule, device) of an engine whose every device was seen with every metric, `readings` times, over
/// the same without rules.
fn per_pair(rules: &dyn Fn() -> Vec<Arc<Rule>>, readings: usize, value: f64) -> f64 {
    let seen = |rules: Vec<Arc<Rule>>| {
        let devices: Vec<_> = (0..DEVICES).map(device_of).collect();
        let metrics: Vec<_> = (0..RULES_EACH).map(|number| metric_of(&format!("m{number}"))).collect();
        let mut driven = Driven::with(rules);
        let before = allocated();
        for _ in 0..readings {
            for device in &devices {
                for metric in &metrics {
                    driven.tell(device, metric, value);
                }
            }
        }
        // What an outcome leaves allocated is the driver's.
        driven.out = Outcome::default();
        let after = allocated();
        drop(driven);
        after as f64 - before as f64
    };
    (seen(rules()) - seen(Vec::new())) / (DEVICES * RULES_EACH) as f64
}

fn memory() {
    let sliding = Sliding { of: Aggregate::Mean, over: Duration::from_secs(600), min: 0, max: 1024 };
    let shared = |window: Option<Sliding>| {
        move || (0..RULES_EACH).map(|number| rule(&format!("r{number}"), "*", &format!("m{number}"), window)).collect()
    };
    let own = |window: Option<Sliding>| {
        move || {
            let pairs = (0..DEVICES).flat_map(|device| (0..RULES_EACH).map(move |number| (device, number)));
            pairs
                .map(|(device, number)| {
                    let name = format!("r{number}-{device}");
                    rule(&name, &format!("device-{device}"), &format!("m{number}"), window)
                })
                .collect()
        }
    };
    println!("Bytes per (rule, device), {} of them, over the same engine without rules (target <= 256 and its window):\n", DEVICES * RULES_EACH);
    println!("| rules | normal | active | window of 0 readings more | of 100 | a reading |\n|---|---|---|---|---|---|");
    let row = |name: &str, rules: &dyn Fn(Option<Sliding>) -> Vec<Arc<Rule>>| {
        let plain = || rules(None);
        let windowed = || rules(Some(sliding));
        let (normal, active) = (per_pair(&plain, 1, 20.0), per_pair(&plain, 1, 80.0));
        let (one, hundred) = (per_pair(&windowed, 1, 20.0), per_pair(&windowed, 100, 20.0));
        println!(
            "| {name} | {normal:.0} | {active:.0} | {one:.0} | {hundred:.0} | {:.1} |",
            (hundred - one) / 99.0
        );
    };
    row("8 for all 1,000 devices", &|window| shared(window)());
    row("8,000, each for one device", &|window| own(window)());
    println!();
}

// Processor time.

fn processor() {
    let rounds: usize = option("--rounds", 9);
    let counts = [10_usize, 100, 1_000, 10_000];
    println!("ns per reading that one rule watches, medians of {rounds} interleaved rounds (target: flat within 1.5x):\n");
    println!("| rules | all others watch another device | ratio | another metric of the same device | ratio |\n|---|---|---|---|---|");
    let elsewhere = |count: usize| {
        let others = (1..count).map(|number| rule(&format!("r{number}"), &format!("device-{number}"), "temperature", None));
        std::iter::once(rule("r0", "device-0", "temperature", None)).chain(others).collect()
    };
    let otherwise = |count: usize| {
        let others = (1..count).map(|number| rule(&format!("r{number}"), "*", &format!("m{number}"), None));
        std::iter::once(rule("r0", "*", "temperature", None)).chain(others).collect()
    };
    let mut engines: Vec<_> = counts.iter().map(|count| (Driven::with(elsewhere(*count)), Driven::with(otherwise(*count)))).collect();
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
        println!("| {count} | {one:.0} | **{:.2}** | {other:.0} | **{:.2}** |", one / base.0, other / base.1);
    }
    println!("\n| rules that watch it | ns per reading | ns per rule |\n|---|---|---|");
    for count in [1_usize, 10, 100, 1_000] {
        let rules = (0..count).map(|number| rule(&format!("r{number}"), "*", "temperature", None)).collect();
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
            _ = write!(text, r#"{{"temperature": {}, "humidity": {}}}"#, number(), number());
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
    println!("us per message `{}`, rule `temperature > 50`, from bytes to decision (target <= 1):\n", payloads[0]);
    println!("| | us | of the rounds | events per message |\n|---|---|---|---|");
    let unbounded = MaxRaises { count: 1_000_000, per: Duration::from_secs(1) };
    let raising = Rule { max_raises: unbounded, ..Rule::clone(&rule("hot", "*", "temperature", None)) };
    let cases = [
        ("decoding alone", None),
        ("with the rule as written (`max-raises` 12 an hour)", Some(rule("hot", "*", "temperature", None))),
        ("with every raise and clear told (`max-raises` beyond reach)", Some(Arc::new(raising))),
    ];
    let mut engines: Vec<_> = cases.iter().map(|(_, rule)| rule.clone().map(|rule| Driven::with(vec![rule]))).collect();
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
        println!("| {name} | **{:.2}** | {low:.2} to {high:.2} | {each:.3} |", median(times));
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
