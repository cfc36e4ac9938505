//! The uplink to the brokers that people have: mosquitto, RabbitMQ with its MQTT plugin, NATS with its MQTT listener.
//! They are killed and started again, forget everything, throw the uplink out, block their publishers; under load,
//! nothing may be lost. Debian's packages, each a process of the test with a folder and ports of its own.

#![expect(clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod broker;
#[path = "../gateway/cloud.rs"]
#[expect(dead_code, reason = "the gateway's tests use more of it")]
mod cloud;
#[path = "../contract/mod.rs"]
mod contract;
#[path = "../gateway/device.rs"]
#[expect(dead_code, reason = "the gateway's tests use more of it")]
mod device;
mod link;
mod load;
mod needs_root_for_network;
#[path = "../gateway/parts.rs"]
#[expect(dead_code, reason = "the gateway's tests use more of it")]
mod parts;

use std::time::Duration;

use broker::{Broker, Kind};
use cloud::Cloud;
use load::Load;
use parts::{Cable, Gateway, Site};
use rumqttc::{AsyncClient, Event, MqttOptions, Packet};
use serde_json::Value;
use tokio::time::timeout;

/// What no part of these tests may take longer than: RabbitMQ alone takes half a minute to start on a busy machine,
/// and an uplink that has waited for it looks only once a minute in the end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

fn text<'a>(event: &'a Value, pointer: &str) -> &'a str {
    event
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("no text at {pointer} in {event}"))
}

fn long() -> bool {
    std::env::var_os("TIDEGATE_LONG").is_some()
}

fn rounds() -> usize {
    if long() { 10 } else { 2 }
}

fn site(port: u16) -> Site {
    // RabbitMQ 3.10 and NATS 2.9 speak no other version.
    Site::new().uplink(port, "3.1.1").sink("ack-timeout = \"5s\"")
}

/// Every alarm that was acknowledged is in the cloud, once, in order, without a gap.
async fn assert_whole(cloud: &Cloud, load: Load, gateway: Gateway) {
    let alarms = load.stop().await;
    load::arrives(cloud, alarms).await;
    gateway.stop().await;
    assert_order(cloud, alarms);
}

fn assert_order(cloud: &Cloud, alarms: usize) {
    cloud.assert_first_sends_in_order();
    cloud.assert_no_unexplained_gap();
    assert_eq!(
        load::raised(cloud),
        (1..=alarms).collect::<Vec<_>>(),
        "each alarm once"
    );
}

async fn killed_and_started_again(kind: Kind) {
    let mut broker = Broker::start(kind).await;
    let cloud = Cloud::lasting("127.0.0.1", broker.port).await;
    let site = site(broker.port);
    let gateway = Gateway::start(&site).await;
    let mut load = Load::start(gateway.door);
    for _ in 0..rounds() {
        load::arrives(&cloud, load.more(50).await).await;
        broker.end().await;
        let there = cloud.count(|_| true);
        load.more(500).await;
        broker.start_again().await;
        // Again, while the backlog is on its way.
        cloud.wait_until(|seen| seen.len() > there + 20).await;
        broker.end().await;
        load.more(50).await;
        broker.start_again().await;
    }
    assert_whole(&cloud, load, gateway).await;
}

/// The broker starts on an empty disk, and somebody else takes the uplink's session away from it.
async fn forgets(kind: Kind) {
    let mut broker = Broker::start(kind).await;
    let cloud = Cloud::lasting("127.0.0.1", broker.port).await;
    let cable = Cable::to(broker.port).await;
    let site = site(cable.port);
    let gateway = Gateway::start(&site).await;
    let mut load = Load::start(gateway.door);
    for _ in 0..rounds() {
        load::arrives(&cloud, load.more(50).await).await;
        for _ in 0..3 {
            take_over("tidegate-plantroom-1", broker.port).await;
            load.more(20).await;
        }
        // What was acknowledged goes with the broker's disk: so it must have been handed on before.
        let alarms = load.pause().await;
        load::arrives(&cloud, alarms).await;
        cable.cut();
        broker.end().await;
        broker.forget();
        load.go_on();
        load.more(50).await;
        let before = cloud.subscriptions();
        broker.start_again().await;
        cloud.subscribes_again(before).await;
        cable.mend();
    }
    assert_whole(&cloud, load, gateway).await;
}

/// Connects under the uplink's client id: the broker ends the uplink's connection.
async fn take_over(client: &str, port: u16) {
    let (_client, mut events) = AsyncClient::new(MqttOptions::new(client, "127.0.0.1", port), 1);
    let connected = async {
        while !matches!(events.poll().await, Ok(Event::Incoming(Packet::ConnAck(_)))) {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, connected).await.expect("it takes it in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_mosquitto_is_stopped_and_started_again() {
    killed_and_started_again(Kind::Mosquitto).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_rabbitmq_is_killed_and_started_again() {
    killed_and_started_again(Kind::RabbitMq).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_nats_is_killed_and_started_again() {
    killed_and_started_again(Kind::Nats).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_mosquitto_forgets_everything_and_throws_the_uplink_out() {
    forgets(Kind::Mosquitto).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_rabbitmq_forgets_everything_and_throws_the_uplink_out() {
    forgets(Kind::RabbitMq).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_nats_forgets_everything_and_throws_the_uplink_out() {
    forgets(Kind::Nats).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_rabbitmqs_memory_alarm_blocks_its_publishers() {
    let broker = Broker::start(Kind::RabbitMq).await;
    let cloud = Cloud::lasting("127.0.0.1", broker.port).await;
    let site = site(broker.port);
    let gateway = Gateway::start(&site).await;
    let mut load = Load::start(gateway.door);
    load::arrives(&cloud, load.more(50).await).await;

    broker
        .control(&["set_vm_memory_high_watermark", "0.0000001"])
        .await;
    broker.says("memory resource limit alarm set").await;
    // Longer than an acknowledgement may take: the uplink gives up and connects again.
    let alarms = load.more(800).await;
    let there = load::raised(&cloud).len();
    assert!(
        there + 400 < alarms,
        "it takes no event while the alarm is set: {there} of {alarms}"
    );
    broker.control(&["set_vm_memory_high_watermark", "0.4"]).await;
    broker.says("memory resource limit alarm cleared").await;
    load.more(50).await;
    assert_whole(&cloud, load, gateway).await;
}
