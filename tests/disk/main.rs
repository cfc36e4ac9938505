//! The disk under the gateway: power cuts at block level, a full disk, a read-only one, a flush that fails.
//!
//! A power cut is not a kill: it loses what the kernel has not flushed, in any order and half a block at a time.
//! So the journal lies on an ext4 whose disk remembers every write and flush (`recorder`), and the disk is
//! rebuilt as a power cut at a random moment would have left it. What was acknowledged before that moment,
//! by the journal's `durable` or by a PUBACK, must be there.
//!
//! These tests mount filesystems, so they need root, /dev/fuse and loop devices, and fail without them.
//! `./test` says so and leaves them out where mounting is not allowed.

#![expect(clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "../gateway/cloud.rs"]
#[expect(dead_code, reason = "the tests of the peers use more of it")]
mod cloud;
#[path = "../contract/mod.rs"]
mod contract;
#[path = "../gateway/device.rs"]
mod device;
mod needs_root_to_mount;
#[path = "../gateway/parts.rs"]
#[expect(dead_code, reason = "the gateway's tests use more of it")]
mod parts;
mod recorder;
mod volume;

use std::time::Duration;

use serde_json::Value;
use tidegate::{
    journal::{self, Journal, Owner, Recovered, Running, Settings},
    time::Clock,
};
use tokio::time::Instant;

/// What no part of these tests may take longer than; a device waits for more than a minute on a full disk.
pub(crate) const PATIENCE: Duration = Duration::from_secs(150);

fn text<'a>(event: &'a Value, pointer: &str) -> &'a str {
    event
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("no text at {pointer} in {event}"))
}

/// Waits until the gateway has ended by itself.
async fn ended(gateway: &mut parts::Gateway) -> std::process::ExitStatus {
    let ended = tokio::time::timeout(PATIENCE, gateway.process.wait());
    ended.await.expect("it ends in time").expect("waited")
}

/// Opens a journal. Another test of this program may be starting a process just now: until that has become another
/// program it holds what was open here, an earlier journal's lock too.
fn open_with(settings: &Settings, owner: &Owner) -> (Journal, Recovered, Running) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Journal::open(settings, owner.clone(), Clock::system()) {
            Err(journal::Error::Locked { .. }) if Instant::now() < deadline => std::thread::yield_now(),
            opened => return opened.expect("it opens"),
        }
    }
}

/// How many power cuts a test tries.
fn cuts() -> usize {
    if std::env::var_os("TIDEGATE_LONG").is_some() {
        300
    } else {
        30
    }
}

/// The generator of this run, whose seed is printed.
fn random() -> fastrand::Rng {
    let seed = std::env::var("TIDEGATE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    eprintln!("TIDEGATE_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// Where to cut: half of the moments right after something notable, an acknowledgement above all, when all of it
/// must be on the disk; the others anywhere right before a flush, when as much as can be is not.
fn moments(
    disk: &recorder::Recorder,
    notable: &[usize],
    from: usize,
    random: &mut fastrand::Rng,
) -> Vec<usize> {
    let end = disk.now();
    (0..cuts())
        .map(|cut| match random.choice(notable) {
            Some(moment) if cut % 2 == 0 => *moment,
            _ => disk.before_flush(random.usize(from..=end)),
        })
        .collect()
}
