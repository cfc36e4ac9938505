//! Tells stories of the simulation (docs/testing.md): `--seeds 100000` any number, `--seed 7` one, with all that
//! happened in it.
//!
//! A failing seed ends it; its story is printed. The same seed tells the same story again.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a story that cannot go on fails, and it is told to who runs it"
)]

use clap::Parser;

#[path = "../tests/simulation/rig/mod.rs"]
mod rig;

/// Tells stories of crashes, power cuts and bad networks, and says whether every promise was kept.
#[derive(Parser)]
struct Asked {
    /// So many stories.
    #[arg(long, default_value_t = 2_000)]
    seeds: u64,
    /// The first one's seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only this one, and all that happens in it.
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> std::process::ExitCode {
    let asked = Asked::parse();
    let seeds = match asked.seed {
        Some(seed) => seed..seed + 1,
        None => asked.from..asked.from + asked.seeds,
    };
    let (mut events, mut lives) = (0, 0);
    for seed in seeds.clone() {
        let told = rig::tell(seed);
        events += told.events.len();
        lives += told.lives;
        if told.broken.is_some() || asked.seed.is_some() {
            println!("{}", told.trace.join("\n"));
        }
        if asked.seed.is_some() {
            println!("digest {:016x}", told.digest);
        }
        if let Some(broken) = told.broken {
            println!(
                "\nseed {seed}, after {} stories: {broken}",
                seed - seeds.start + 1
            );
            println!("again: cargo run --release --example simulate -- --seed {seed}");
            return std::process::ExitCode::FAILURE;
        }
    }
    println!(
        "{} stories, {lives} lives, {events} events: every promise kept",
        seeds.end - seeds.start
    );
    std::process::ExitCode::SUCCESS
}
