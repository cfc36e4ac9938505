//! The engine and a slow, obvious reading of docs/rules.md say the same, whatever happens.
//!
//! `strategy` draws rule sets and stories (readings, restarts, edits, mutes), `reference` tells what must come
//! out, `rig` drives both.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::cast_possible_wrap,
    reason = "a test that cannot go on fails, and stories have small numbers"
)]
#![expect(
    clippy::struct_excessive_bools,
    clippy::match_same_arms,
    clippy::needless_pass_by_value,
    reason = "it is to be read beside docs/rules.md, not to be fast"
)]

#[path = "../contract/mod.rs"]
mod contract;
mod reference;
mod rig;
mod strategy;
mod told;

use std::cell::Cell;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use rig::Rig;

/// What everybody draws: a change is judged by the change. The long run draws anew each time.
const SEED: u64 = 5;

fn is_long() -> bool {
    std::env::var_os("TIDEGATE_LONG").is_some()
}

fn cases() -> u32 {
    if is_long() { 50_000 } else { 1_000 }
}

#[test]
fn the_engine_says_what_the_reference_says() {
    let seed = std::env::var("TIDEGATE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| if is_long() { fastrand::u64(..) } else { SEED });
    eprintln!("TIDEGATE_SEED={seed}");
    let config = Config {
        cases: cases(),
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let (drawn, differs) = (Cell::new(0), Cell::new(false));
    let told = TestRunner::new_with_rng(config, random).run(&strategy::story(), |story| {
        // What is told to find the smallest story is not drawn.
        drawn.set(drawn.get() + u32::from(!differs.get()));
        Rig::tell(&story).map_err(|why| {
            differs.set(true);
            TestCaseError::fail(why)
        })
    });
    match told {
        Ok(()) => {}
        Err(TestError::Fail(why, story)) => panic!(
            "TIDEGATE_SEED={seed}, after {} stories\n{story:?}\n{why}",
            drawn.get()
        ),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}
