//! The real process against real parts: mosquitto as the cloud, real MQTT devices, a real pty, kill -9,
//! clients that mean harm.

#![expect(
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod bad_sinks;
#[expect(dead_code, reason = "the tests of the peers use more of it")]
mod cloud;
#[path = "../contract/mod.rs"]
mod contract;
mod control;
mod dead_letters;
mod device;
#[path = "../uplink/endpoint.rs"]
#[expect(dead_code, reason = "the tests of the uplink use more of it")]
mod endpoint;
mod hostile;
mod journal;
mod kill;
mod needs_root_to_mount;
mod own_events;
mod parts;
mod policies;
mod receivers;
mod recorder;
mod sdks;
#[path = "../uplink/server.rs"]
#[expect(dead_code, reason = "the tests of the uplink use more of it")]
mod server;
mod service;
mod sinks;
mod wall_clock;
mod webhooks;

use std::time::Duration;

use cloud::Cloud;
use device::{Device, Version};
use parts::{Adapter, Cable, Gateway, Mosquitto, Site};
use rumqttc::QoS;
use serde_json::{Value, json};

/// What no part of this test may take longer than.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

fn text<'a>(event: &'a Value, pointer: &str) -> &'a str {
    event
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("no text at {pointer} in {event}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_reaches_the_cloud_with_every_field_of_the_contract_and_its_clear_shares_the_episode() {
    let broker = Mosquitto::start().await;
    let cloud = Cloud::subscribe(broker.port).await;
    let site = Site::new().uplink(broker.port, "5");
    let gateway = Gateway::start(&site).await;
    let mut device = Device::new(Version::V311, QoS::AtLeastOnce, gateway.door, "thermostat-7");

    device.publish_until_acknowledged(&[r#"{"temp": 31.0}"#]).await;
    let raised = cloud.wait_for(|event| event["transition"] == "raised").await;
    device.publish_until_acknowledged(&[r#"{"temp": 27.0}"#]).await;
    let cleared = cloud.wait_for(|event| event["transition"] == "cleared").await;

    let epoch = text(&raised, "/epoch");
    let sequence = text(&raised, "/sequence");
    assert_eq!(raised["specversion"], "1.0");
    assert_eq!(text(&raised, "/id"), format!("{epoch}-{sequence}"));
    assert_eq!((epoch.len(), sequence.len()), (13, 20));
    let previous: u64 = text(&raised, "/previoussequence").parse().expect("a number");
    assert_eq!(previous + 1, sequence.parse::<u64>().expect("a number"));
    for (pointer, expected) in [
        ("/source", json!("urn:tidegate:gateway:plantroom-1")),
        ("/type", json!("io.tidegate.rule.HighTemperature")),
        ("/subject", json!("thermostat-7/temperature")),
        ("/datacontenttype", json!("application/json")),
        ("/dataschema", json!("urn:tidegate:schema:rule-event:1")),
        ("/gateway", json!("plantroom-1")),
        ("/partitionkey", json!("plantroom-1")),
        ("/severitytext", json!("WARN")),
        ("/severitynumber", json!(13)),
        ("/transition", json!("raised")),
        (
            "/data/summary",
            json!("thermostat-7: temperature is 31 Cel, above 30"),
        ),
        ("/data/gateway/id", json!("plantroom-1")),
        ("/data/gateway/labels", json!({ "site": "hq" })),
        ("/data/gateway/version", json!(env!("CARGO_PKG_VERSION"))),
        ("/data/device/id", json!("thermostat-7")),
        ("/data/device/name", json!("Living room")),
        ("/data/device/labels", json!({ "room": "living" })),
        ("/data/metric", json!("temperature")),
        ("/data/unit", json!("Cel")),
        ("/data/value", json!(31.0)),
        ("/data/rule/name", json!("high-temperature")),
        ("/data/rule/kind", json!("above")),
        ("/data/rule/params/above", json!(30.0)),
        ("/data/rule/params/clear", json!(28.0)),
        ("/data/rule/labels", json!({})),
        ("/data/rule/runbook", Value::Null),
        ("/data/episode/duration_ms", json!(0)),
        ("/data/episode/min", json!(31.0)),
        ("/data/episode/max", json!(31.0)),
        ("/data/episode/readings", json!(1)),
        ("/data/episode/reminder", json!(0)),
        ("/data/episode/flaps", json!(0)),
        ("/data/episode/reason", Value::Null),
        ("/data/window", Value::Null),
    ] {
        assert_eq!(raised.pointer(pointer), Some(&expected), "{pointer}");
    }
    for pointer in [
        "/time",
        "/recordedtime",
        "/data/episode/since",
        "/data/episode/raised_at",
    ] {
        text(&raised, pointer)
            .parse::<jiff::Timestamp>()
            .expect("RFC 3339");
    }
    assert!(["synchronised", "corrected", "unknown"].contains(&text(&raised, "/clockquality")));
    assert_eq!(raised["correlationid"], raised["data"]["episode"]["id"]);

    assert_eq!(cleared["type"], "io.tidegate.rule.HighTemperatureCleared");
    assert_eq!(cleared["correlationid"], raised["correlationid"]);
    assert_eq!(cleared["data"]["episode"]["reason"], "back-to-normal");
    assert_eq!(cleared["data"]["value"], 27.0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_from_a_serial_line_reaches_the_cloud_and_survives_unplugging() {
    let broker = Mosquitto::start().await;
    let cloud = Cloud::subscribe(broker.port).await;
    let site = Site::new().uplink(broker.port, "3.1.1");
    let port = site.folder.path().join("boiler-port");
    let site = site.serial(&port);
    let gateway = Gateway::start(&site).await;

    let mut adapter = Adapter::plug_in(&port);
    let raised = cloud.wait_for(|event| event["subject"] == "boiler/temperature");
    let raised = adapter.send_until(b"{\"temp\": 31.5}\n", raised).await;
    assert_eq!(raised["data"]["value"], 31.5);

    adapter.unplug().await;
    let mut adapter = Adapter::plug_in(&port);
    let cleared = cloud.wait_for(|event| event["transition"] == "cleared");
    let cleared = adapter
        .send_until(b"\xff\xfenoise\n{\"temp\": 27.5}\n", cleared)
        .await;
    assert_eq!(cleared["correlationid"], raised["correlationid"]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_an_outage_arrive_in_order_when_the_uplink_returns() {
    let broker = Mosquitto::start().await;
    let cloud = Cloud::subscribe(broker.port).await;
    let cable = Cable::to(broker.port).await;
    let site = Site::new().uplink(cable.port, "5");
    let gateway = Gateway::start(&site).await;
    let mut device = Device::new(Version::V5, QoS::AtLeastOnce, gateway.door, "thermostat-7");
    device.publish_until_acknowledged(&[r#"{"temp": 27.0}"#]).await;
    cloud
        .wait_for(|event| event["type"] == "io.tidegate.gateway.GatewayStarted")
        .await;

    cable.cut();
    for _ in 0..50 {
        device
            .publish_until_acknowledged(&[r#"{"temp": 31.0}"#, r#"{"temp": 27.0}"#])
            .await;
    }
    assert_eq!(cloud.count(|event| event["transition"] == "raised"), 0);
    cable.mend();
    cloud
        .wait_until(|seen| seen.iter().filter(|e| e["transition"] == "cleared").count() == 50)
        .await;
    cloud.assert_first_sends_in_order();
    cloud.assert_no_unexplained_gap();
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_on_the_doors_own_topic_reaches_a_local_subscriber_while_there_is_no_uplink() {
    let site = Site::new().uplink(1, "5");
    let gateway = Gateway::start(&site).await;
    let local = Cloud::subscribe(gateway.door).await;
    let mut device = Device::new(Version::V311, QoS::ExactlyOnce, gateway.door, "thermostat-7");
    device.publish_until_acknowledged(&[r#"{"temp": 31.0}"#]).await;
    let raised = local.wait_for(|event| event["transition"] == "raised").await;
    assert_eq!(raised["data"]["value"], 31.0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_edit_does_not_stop_a_gateway_that_ran() {
    let broker = Mosquitto::start().await;
    let cloud = Cloud::subscribe(broker.port).await;
    let site = Site::new().uplink(broker.port, "5");
    Gateway::start(&site).await.stop().await;
    let wrong = site.text().replace("clear = 28.0", "clear = 33.0");
    std::fs::write(site.config(), wrong).expect("written");

    let gateway = Gateway::start(&site).await;
    let rejected = cloud
        .wait_for(|event| event["type"] == "io.tidegate.gateway.ConfigurationRejected")
        .await;
    assert!(
        text(&rejected, "/data/report").contains("clear = 33 is above the threshold 30"),
        "{rejected}"
    );
    assert_eq!(rejected["severitytext"], "ERROR");
    gateway.stop().await;

    let strict = site.command().arg("--strict").output().await.expect("it runs");
    assert_eq!(strict.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&strict.stderr).contains("clear = 33 is above the threshold 30"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_goes_on_across_a_kill_and_raises_once() {
    let broker = Mosquitto::start().await;
    let cloud = Cloud::subscribe(broker.port).await;
    let site = Site::new().uplink(broker.port, "5").rule("hold = \"3s\"");
    let mut gateway = Gateway::start(&site).await;
    let mut device = Device::new(Version::V5, QoS::AtLeastOnce, gateway.door, "thermostat-7");
    device.publish_until_acknowledged(&[r#"{"temp": 31.0}"#]).await;
    gateway.kill().await;
    gateway.restart(&site).await;
    let raised = cloud.wait_for(|event| event["transition"] == "raised").await;
    let held = raised["data"]["episode"]["duration_ms"]
        .as_u64()
        .expect("a number");
    assert!(
        (3_000..3_200).contains(&held),
        "held for {held} ms: the time before the kill counts"
    );
    gateway.stop().await;
    assert_eq!(cloud.count(|event| event["transition"] == "raised"), 1);
}
