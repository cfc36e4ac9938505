//! What rules cost in memory: bytes per (rule, device) in every state of an alarm, and per reading of a window.
//!
//! `cargo run --release --manifest-path bench/Cargo.toml --bin rules-memory`
//!
//! What is asked of the allocator is counted, without what the allocator itself needs.

use std::{alloc::System, sync::Arc, time::Duration};

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tidegate::{
    rule::{Aggregate, Condition, Rule, Sliding, state::Outcome},
    time::EngineTime,
};
use tidegate_bench::{
    driven::{Driven, device_of, metric_of, rule},
    machine,
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const DEVICES: usize = 1000;
const RULES_EACH: usize = 8;

/// Who watches what: the name of the rule of a number on a device, its devices and its metric.
struct Layout {
    name: &'static str,
    /// Whether each device has rules of its own.
    own_rules: bool,
    /// What a device's rule of a number watches.
    metric: fn(usize, usize) -> String,
}

const LAYOUTS: [Layout; 4] = [
    Layout {
        name: "8 for all 1,000 devices, a metric each",
        own_rules: false,
        metric: |_, rule| format!("m{rule}"),
    },
    Layout {
        name: "8 for all 1,000 devices, one metric",
        own_rules: false,
        metric: |_, _| "m".to_owned(),
    },
    Layout {
        name: "8,000 for one device each, 8 metrics",
        own_rules: true,
        metric: |_, rule| format!("m{rule}"),
    },
    Layout {
        name: "8,000 for one device each, 8,000 metrics",
        own_rules: true,
        metric: |device, rule| format!("m{device}-{rule}"),
    },
];

/// A state of an alarm: how its rule is changed, and the values that lead there.
type State = (&'static str, fn(&mut Rule), &'static [f64]);

const HOLD: Duration = Duration::from_secs(3600);

const STATES: [State; 9] = [
    ("normal", |_| (), &[20.0]),
    ("pending", |rule| rule.hold = HOLD, &[80.0]),
    ("active", |_| (), &[80.0]),
    (
        "active, with reminders",
        |rule| rule.remind_every = Some(HOLD),
        &[80.0],
    ),
    ("clearing", |rule| rule.clear_hold = HOLD, &[80.0, 20.0]),
    (
        "clearing, with reminders",
        |rule| (rule.clear_hold, rule.remind_every) = (HOLD, Some(HOLD)),
        &[80.0, 20.0],
    ),
    ("`silent-for`, heard of", silent, &[20.0]),
    ("silent", silent, &[20.0, SILENCE]),
    (
        "silent, with reminders",
        |rule| {
            silent(rule);
            rule.remind_every = Some(HOLD);
        },
        &[20.0, SILENCE],
    ),
];

/// In place of a value: nothing comes for [`HOLD`].
const SILENCE: f64 = f64::NAN;

fn silent(rule: &mut Rule) {
    if let Condition::Value(watched) = &rule.condition {
        rule.condition = Condition::Silent {
            metric: watched.metric.clone(),
            after: HOLD,
        };
    }
}

fn main() {
    println!("{}\n", machine());
    println!(
        "Bytes per (rule, device), {} of them, its share of device and metric included (target <= 256):\n",
        DEVICES * RULES_EACH
    );
    print!("| rules |");
    STATES.iter().for_each(|(name, ..)| print!(" {name} |"));
    println!("\n|---|{}", "---|".repeat(STATES.len()));
    for layout in &LAYOUTS {
        print!("| {} |", layout.name);
        for (_, change, values) in STATES {
            print!(" {:.0} |", per_pair(layout, change, values));
        }
        println!();
    }
    println!(
        "\nWith a window, in the same:\n\n| rules | of one reading | of 100 | a reading more |\n|---|---|---|---|"
    );
    for layout in &LAYOUTS {
        let sliding = Sliding {
            of: Aggregate::Mean,
            over: Duration::from_secs(600),
            min: 0,
            max: 1024,
        };
        let windowed = |rule: &mut Rule| {
            if let Condition::Value(watched) = &mut rule.condition {
                watched.window = Some(sliding);
            }
        };
        let (one, hundred) = (
            per_pair(layout, windowed, &[20.0]),
            per_pair(layout, windowed, &[20.0; 100]),
        );
        println!(
            "| {} | {one:.0} | {hundred:.0} | {:.1} |",
            layout.name,
            (hundred - one) / 99.0
        );
    }
}

/// Bytes per (rule, device) of an engine whose every device was seen with every metric, over what it has before.
fn per_pair(layout: &Layout, change: impl Fn(&mut Rule), values: &[f64]) -> f64 {
    let rules = if layout.own_rules { DEVICES } else { 1 };
    let rules = (0..rules).flat_map(|device| (0..RULES_EACH).map(move |number| (device, number)));
    let rules = rules.map(|(device, number)| {
        let devices = if layout.own_rules {
            format!("device-{device}")
        } else {
            "*".to_owned()
        };
        let watched = rule(
            &format!("r{number}-{device}"),
            &devices,
            &(layout.metric)(device, number),
            None,
        );
        let mut watched = Rule::clone(&watched);
        change(&mut watched);
        Arc::new(watched)
    });
    let devices: Vec<_> = (0..DEVICES)
        .map(|device| {
            let mut metrics: Vec<_> = (0..RULES_EACH)
                .map(|number| metric_of(&(layout.metric)(device, number)))
                .collect();
            metrics.dedup();
            (device_of(device), metrics)
        })
        .collect();
    let mut driven = Driven::with(rules.collect());
    let before = allocated();
    for value in values {
        if value.is_nan() {
            driven.now += i64::try_from(HOLD.as_micros()).expect("an hour");
            driven.engine.advance(EngineTime(driven.now), &mut driven.out);
            driven.commit();
            continue;
        }
        for (device, metrics) in &devices {
            for metric in metrics {
                driven.tell(device, metric, *value);
            }
        }
    }
    // What an outcome leaves allocated is the driver's.
    driven.out = Outcome::default();
    let after = allocated();
    drop(driven);
    (after as f64 - before as f64) / (DEVICES * RULES_EACH) as f64
}

/// Bytes that are allocated now.
fn allocated() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}
