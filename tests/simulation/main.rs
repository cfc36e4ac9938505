//! The promises of the whole pipeline, over thousands of seeded stories of crashes, power cuts and bad networks.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod rig;

/// `./test` tells so many; `examples/simulate.rs` any number.
const SEEDS: u64 = 2_000;

#[test]
fn every_promise_holds_in_every_story() {
    for seed in 0..SEEDS {
        let told = rig::tell(seed);
        if let Some(broken) = told.broken {
            panic!("seed {seed}: {broken}\ncargo run --example simulate -- --seed {seed} shows how it came");
        }
    }
}

#[test]
fn a_seed_tells_the_same_story_each_time() {
    for seed in 0..20 {
        let (one, other) = (rig::tell(seed), rig::tell(seed));
        let differ = one.trace.iter().zip(&other.trace).find(|(one, other)| one != other);
        assert_eq!(differ, None, "seed {seed}");
        assert_eq!(one.digest, other.digest, "seed {seed}: the disk");
    }
}
