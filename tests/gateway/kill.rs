//! kill -9 at random moments under load, uplink up and down in turn.

use std::{collections::BTreeMap, time::Duration};

use rumqttc::QoS;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    cloud::Cloud,
    device::{Device, Version},
    parts::{Cable, Gateway, Mosquitto, Site},
};

fn kills() -> u32 {
    if std::env::var_os("TIDEGATE_LONG").is_some() {
        300
    } else {
        30
    }
}

/// Raises and clears, each under its own number, until told to stop; returns how many were acknowledged.
///
/// Each reading is published twice in a row: the second changes nothing because the first, perhaps not
/// yet durable, already did, and its acknowledgement must still mean that the event is on the disk.
async fn live(mut device: Device, stop: CancellationToken) -> u32 {
    let mut number = 0;
    while !stop.is_cancelled() {
        number += 1;
        let high = format!("{{\"temp\": {:.4}}}", 31.0 + f64::from(number) * 0.001);
        device.publish_until_acknowledged(&[&high, &high]).await;
        device
            .publish_until_acknowledged(&[r#"{"temp": 20.0}"#, r#"{"temp": 20.0}"#])
            .await;
    }
    number
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_acknowledged_before_a_kill_is_in_the_cloud_once_and_in_order() {
    let seed = std::env::var("TIDEGATE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    eprintln!("TIDEGATE_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let broker = Mosquitto::start().await;
    let cloud = Cloud::subscribe(broker.port).await;
    let cable = Cable::to(broker.port).await;
    let version = if random.bool() { "5" } else { "3.1.1" };
    let mut site = Site::new().uplink(cable.port, version);
    // All that 300 kills leave undelivered: what is discarded for want of room would be missed here.
    site.max_bytes = "512MiB";
    let mut gateway = Gateway::start(&site).await;

    let stop = CancellationToken::new();
    let mut devices = JoinSet::new();
    let kinds = [
        ("v311-qos1", Version::V311, QoS::AtLeastOnce),
        ("v311-qos2", Version::V311, QoS::ExactlyOnce),
        ("v5-qos1", Version::V5, QoS::AtLeastOnce),
        ("v5-qos2", Version::V5, QoS::ExactlyOnce),
    ];
    for (name, version, qos) in kinds {
        let device = Device::new(version, qos, gateway.door, name);
        let stop = stop.clone();
        devices.spawn(async move { (name, live(device, stop).await) });
    }

    for kill in 0..kills() {
        if kill % 2 == 0 {
            cable.cut();
        } else {
            cable.mend();
        }
        // Not a wait for anything: the moment of the kill is what this test draws at random.
        let moment = tokio::time::Instant::now() + Duration::from_millis(random.u64(20..400));
        tokio::time::sleep_until(moment).await;
        gateway.kill().await;
        gateway.restart(&site).await;
    }
    cable.mend();
    stop.cancel();
    let mut acknowledged = BTreeMap::new();
    while let Some(lived) = devices.join_next().await {
        let (name, number) = lived.expect("a device does not panic");
        acknowledged.insert(name, number);
    }
    // Each device ended with an acknowledged clear, so its last event is that clear.
    let total: usize = acknowledged
        .values()
        .map(|&n| usize::try_from(n).expect("small"))
        .sum();
    assert!(total > 30, "the load is real: {total} alarms were acknowledged");
    let mut awaited = acknowledged.clone();
    let mut scanned = 0;
    cloud
        .wait_until(|seen| {
            for event in seen
                .iter()
                .skip(scanned)
                .filter(|event| event["transition"] == "cleared")
            {
                let device = event["data"]["device"]["id"].as_str().expect("a device");
                let is_last = |number: &u32| {
                    let last = 31.0 + f64::from(*number) * 0.001;
                    event["data"]["episode"]["max"]
                        .as_f64()
                        .is_some_and(|max| (max - last).abs() < 1e-6)
                };
                if awaited.get(device).is_some_and(is_last) {
                    awaited.remove(device);
                }
            }
            scanned = seen.len();
            awaited.is_empty()
        })
        .await;
    gateway.stop().await;

    cloud.assert_first_sends_in_order();
    cloud.assert_no_unexplained_gap();
    let distinct = cloud.distinct();
    for (name, number) in &acknowledged {
        let raised: Vec<f64> = distinct
            .iter()
            .filter(|event| event["data"]["device"]["id"] == *name && event["transition"] == "raised")
            .map(|event| event["data"]["value"].as_f64().expect("a number"))
            .collect();
        let expected: Vec<f64> = (1..=*number).map(|n| 31.0 + f64::from(n) * 0.001).collect();
        assert_eq!(
            raised.len(),
            expected.len(),
            "{name}: one raise for each acknowledged alarm, no more"
        );
        for (raised, expected) in raised.iter().zip(&expected) {
            assert!(
                (raised - expected).abs() < 1e-6,
                "{name}: raised {raised}, acknowledged {expected}"
            );
        }
    }
}
