//! Many sinks: each has its own cursor, and none of them waits for another.

use rumqttc::QoS;

use super::{
    cloud::Cloud,
    device::{Device, Version},
    parts::{Cable, Gateway, Mosquitto, Site},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_is_away_holds_back_no_other_and_gets_everything_when_it_is_back() {
    let (near, far) = (Mosquitto::start().await, Mosquitto::start().await);
    let (at_near, at_far) = (
        Cloud::subscribe(near.port).await,
        Cloud::subscribe(far.port).await,
    );
    let cable = Cable::to(far.port).await;
    cable.cut();
    let far_table = format!(
        "[[sink.mqtt]]\nname = \"far\"\nurl = \"mqtt://127.0.0.1:{}\"",
        cable.port
    );
    let site = Site::new().uplink(near.port, "5").tables(&far_table);
    let gateway = Gateway::start(&site).await;
    let mut device = Device::new(Version::V5, QoS::AtLeastOnce, gateway.door, "thermostat-7");

    let flapping = [r#"{"temp": 31.0}"#, r#"{"temp": 27.0}"#].repeat(10);
    for _ in 0..5 {
        device.publish_until_acknowledged(&flapping).await;
    }
    let cleared = |seen: &[serde_json::Value]| {
        let cleared = seen.iter().filter(|event| event["transition"] == "cleared");
        cleared.count() >= 50
    };
    at_near.wait_until(cleared).await;
    assert_eq!(at_far.count(|_| true), 0, "its cable is cut");

    cable.mend();
    at_far.wait_until(cleared).await;
    for cloud in [&at_near, &at_far] {
        cloud.assert_first_sends_in_order();
        cloud.assert_no_unexplained_gap();
    }
    gateway.stop().await;
}
