//! The promises of the whole pipeline, over thousands of seeded stories of crashes, power cuts and bad networks.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::sync::atomic::{AtomicU64, Ordering};

#[path = "../contract/mod.rs"]
mod contract;
mod rig;

/// `./test` tells so many, `--long` ten times as many, `examples/simulate.rs` any number.
const SEEDS: u64 = 2_000;

#[test]
fn every_promise_holds_in_every_story() {
    let seeds = if std::env::var_os("TIDEGATE_LONG").is_some() {
        10 * SEEDS
    } else {
        SEEDS
    };
    let next = AtomicU64::new(0);
    let tell = || {
        while let seed = next.fetch_add(1, Ordering::Relaxed)
            && seed < seeds
        {
            if let Some(broken) = rig::tell(seed).broken {
                let again = format!("cargo run --example simulate -- --seed {seed}");
                panic!("seed {seed}: {broken}\n`{again}` tells the whole story");
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(tell);
        }
    });
}

#[test]
fn a_seed_tells_the_same_story_each_time() {
    for seed in 0..20 {
        let (one, other) = (rig::tell(seed), rig::tell(seed));
        let differ = one
            .trace
            .iter()
            .zip(&other.trace)
            .find(|(one, other)| one != other);
        assert_eq!(differ, None, "seed {seed}");
        assert_eq!(one.trace.len(), other.trace.len(), "seed {seed}: one goes on");
        assert_eq!(one.digest, other.digest, "seed {seed}: the disk");
        assert!(one.lives > 0 && !one.events.is_empty(), "nothing happens in it");
        for event in &one.events {
            contract::check_draft(&event.draft);
        }
    }
}
