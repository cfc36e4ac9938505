//! Many sinks: each has its own cursor, and none of them waits for another.

use std::collections::HashSet;

use rumqttc::QoS;

use super::{
    cloud::Cloud,
    device::{Device, Version},
    parts::{Cable, Gateway, Mosquitto, Site, free_port},
    receivers::both,
    text,
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

/// What the filtered sink of the test below is not sent.
const WARM: &str = "[[rule]]\nevent = \"Warm\"\nmetric = \"temperature\"\nabove = 20.0\nclear = 19.0\n\
                    severity = \"info\"\nmax-raises = \"100000/h\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn receivers_of_a_filtered_sink_prove_that_they_have_everything_across_cuts_kills_and_another_filter() {
    let broker = Mosquitto::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let receivers = both(folder.path(), broker.port).await;
    let cloud = Cloud::subscribe(broker.port).await;
    let cable = Cable::to(broker.port).await;
    let site = Site::new()
        .uplink(cable.port, "5")
        .sink("min-severity = \"warning\"\nevents = [\"High*\", \"Warm\"]")
        .tables(WARM);
    let mut gateway = Gateway::start(&site).await;
    let mut device = Device::new(Version::V5, QoS::AtLeastOnce, gateway.door, "thermostat-7");
    // Two raises and two clears each time; the sink gets one of each.
    let flapping = [r#"{"temp": 31.0}"#, r#"{"temp": 15.0}"#].repeat(5);
    let passed = async |count| {
        let ids = |seen: &[serde_json::Value]| seen.iter().map(|event| event["id"].to_string()).collect();
        cloud
            .wait_until(|seen| HashSet::<String>::len(&ids(seen)) >= count)
            .await;
    };

    device.publish_until_acknowledged(&flapping).await;
    passed(10).await;
    cable.cut();
    device.publish_until_acknowledged(&flapping).await;
    gateway.kill().await;
    gateway.restart(&site).await;
    cable.mend();
    device.publish_until_acknowledged(&flapping).await;
    passed(30).await;
    // Now the other rule's alarms pass as well, and nothing else.
    site.edit(&[("min-severity = \"warning\"", "min-severity = \"info\"")]);
    site.done(&["reload"]).await;
    device.publish_until_acknowledged(&flapping).await;
    passed(50).await;
    gateway.stop().await;

    let sent = cloud.distinct();
    assert_eq!(sent.len(), 50);
    assert!(
        sent.iter()
            .all(|event| text(event, "/type").contains("High") || text(event, "/type").contains("Warm")),
        "nothing else passes"
    );
    let number = |event: &serde_json::Value, key: &str| text(event, key).parse::<u64>().expect("digits");
    let gaps = sent
        .iter()
        .filter(|event| number(event, "/sequence") > number(event, "/previoussequence") + 1);
    assert!(gaps.count() > 10, "the filter left something out");
    for receiver in &receivers {
        receiver
            .until("it has all", || {
                receiver.handled().len() >= sent.len() && receiver.has_stored()
            })
            .await;
        assert_eq!(receiver.handled_once().len(), sent.len());
        let (report, complete) = receiver.report_in_full().await;
        assert!(complete, "{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sinks_that_never_answer_hold_back_no_other() {
    let broker = Mosquitto::start().await;
    let cloud = Cloud::subscribe(broker.port).await;
    // One takes connections and says nothing, one is a cable that has lost its answers, one refuses every connection.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let silent_port = silent.local_addr().expect("an address").port();
    let cable = Cable::to(broker.port).await;
    let table = |name: &str, port: u16| {
        format!(
            "[[sink.mqtt]]\nname = \"{name}\"\nurl = \"mqtt://127.0.0.1:{port}\"\nclient-id = \"{name}\"\n\
             topic = \"{name}\"\nstatus-topic = \"off\"\n"
        )
    };
    let closed = free_port().await;
    let others = [("silent", silent_port), ("deaf", cable.port), ("closed", closed)];
    let tables: String = others.iter().map(|(name, port)| table(name, *port)).collect();
    let site = Site::new().uplink(broker.port, "5").tables(&tables);
    let gateway = Gateway::start(&site).await;
    cable.deafen();
    let mut device = Device::new(Version::V5, QoS::AtLeastOnce, gateway.door, "thermostat-7");
    let flapping = [r#"{"temp": 31.0}"#, r#"{"temp": 27.0}"#].repeat(10);
    for _ in 0..5 {
        device.publish_until_acknowledged(&flapping).await;
    }
    cloud
        .wait_until(|seen| {
            seen.iter()
                .filter(|event| event["transition"] == "cleared")
                .count()
                >= 50
        })
        .await;
    cloud.assert_first_sends_in_order();
    cloud.assert_no_unexplained_gap();
    drop(gateway);
}
