//! The uplink over a link that flaps, under load. Under a name that `--skip` can name: it makes a network.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{
    assert_order,
    cloud::Cloud,
    link::FarBroker,
    load::{self, Load},
    long,
    parts::{Gateway, Site},
};

const INFLIGHT: usize = 16;
/// A rate that is none.
const FAST: &str = "1gbit";

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_over_a_link_that_flaps_loses_and_is_slow_and_memory_stays_flat() {
    let seed = std::env::var("TIDEGATE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("TIDEGATE_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let broker = FarBroker::start().await;
    let cloud = Cloud::lasting(broker.good(), broker.port).await;
    let mut site = Site::new().tables(&format!(
        "[[sink.mqtt]]\nname = \"cloud\"\nurl = \"mqtt://{}:{}\"\nack-timeout = \"2s\"\ninflight = {INFLIGHT}",
        broker.bad(),
        broker.port
    ));
    site.max_bytes = "512MiB";
    let log = site.folder.path().join("log");
    let gateway = Gateway::start_logging(&site, std::fs::File::create(&log).expect("created").into()).await;
    let mut load = Load::start(gateway.door);
    load::arrives(&cloud, load.more(50).await).await;

    let whole = Duration::from_secs(if long() { 600 } else { 60 });
    let begin = Instant::now();
    let mut memory = Vec::new();
    let mut downs = 0;
    while begin.elapsed() < whole {
        broker.loses(if random.bool() { 20 } else { 0 });
        broker.is_slow(random.choice(["128kbit", "1mbit", FAST]).expect("three"));
        // Not waits for anything: how long the link is up, and how long it is down.
        sleep_until(Instant::now() + Duration::from_millis(random.u64(500..3_000))).await;
        broker.down();
        sleep_until(Instant::now() + Duration::from_millis(random.u64(500..4_000))).await;
        broker.up();
        downs += 1;
        memory.push((begin.elapsed(), gateway.memory("VmRSS:")));
    }
    broker.loses(0);
    broker.is_slow(FAST);
    let alarms = load.stop().await;
    load::arrives(&cloud, alarms).await;
    let (first, second): (Vec<_>, Vec<_>) = memory.iter().partition(|(at, _)| *at < whole / 2);
    let most = |part: &[(Duration, u64)]| part.iter().map(|(_, kib)| *kib).max().expect("it was looked at");
    let (before, after, drained) = (most(&first), most(&second), gateway.memory("VmRSS:"));
    let sampled: Vec<_> = memory.iter().step_by(memory.len().div_ceil(10)).collect();
    let sampled = sampled
        .iter()
        .map(|(at, kib)| format!("{kib} after {} s", at.as_secs()));
    eprintln!("memory in KiB: {}", sampled.collect::<Vec<_>>().join(", "));
    gateway.stop().await;

    assert_order(&cloud, alarms);
    let log = std::fs::read_to_string(log).expect("kept");
    // Each line tells of itself and of those before it that were not said; at the end some may be untold.
    let said = log.lines().filter(|line| line.contains("uplink lost"));
    let unsaid = |line: &str| line.rsplit_once("unsaid=")?.1.trim().parse::<usize>().ok();
    let lost = said
        .map(|line| 1 + unsaid(line).expect("it says how many"))
        .sum::<usize>();
    let duplicates = cloud.duplicates();
    eprintln!(
        "{alarms} alarms, {downs} times down, {lost} connections lost, {duplicates} duplicates; \
         memory {before}, then {after}, after draining {drained} KiB"
    );
    assert!(
        lost > 1,
        "{lost} connections lost over {downs} times down: the link was not bad"
    );
    assert!(
        duplicates <= INFLIGHT * lost.max(downs),
        "{duplicates} duplicates over {lost} lost connections"
    );
    assert!(
        after.max(drained) < before + 2_048,
        "memory grew from {before} to {after} KiB, {drained} after draining"
    );
}
