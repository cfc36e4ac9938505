//! What a person sees of the journal, and does to it, beside a running gateway.

use rumqttc::QoS;
use serde_json::Value;

use super::{
    PATIENCE,
    cloud::Cloud,
    device::{Device, Version},
    parts::{Gateway, Mosquitto, Site, until},
    text,
};

const ZEROS: &str = "00000000000000000000";

fn number(event: &Value) -> u64 {
    text(event, "/sequence").parse().expect("digits")
}

/// Raises and clears so often, and waits until the cloud has it all.
async fn alarms(count: usize, device: &mut Device, cloud: &Cloud) {
    let before = cloud.count(|event| event["transition"] == "cleared");
    for _ in 0..count {
        device
            .publish_until_acknowledged(&[r#"{"temp": 31.0}"#, r#"{"temp": 27.0}"#])
            .await;
    }
    cloud
        .wait_until(|seen| {
            seen.iter()
                .filter(|event| event["transition"] == "cleared")
                .count()
                == before + count
        })
        .await;
}

async fn listed(site: &Site) -> Value {
    let config = site.config();
    let config = config.to_str().expect("UTF-8");
    let out = site
        .done(&["journal", "ls", "--config", config, "--format", "json"])
        .await;
    serde_json::from_str(&out).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_sends_again_from_there_on_as_a_new_chain_and_survives_a_kill() {
    let broker = Mosquitto::start().await;
    let cloud = Cloud::subscribe(broker.port).await;
    let site = Site::new().uplink(broker.port, "5");
    let mut gateway = Gateway::start(&site).await;
    let mut device = Device::new(Version::V5, QoS::AtLeastOnce, gateway.door, "thermostat-7");
    alarms(5, &mut device, &cloud).await;
    let newest = listed(&site).await["epochs"][0]["last"]
        .as_u64()
        .expect("a number");
    let times = |wanted: u64| cloud.count(move |event| number(event) == wanted);
    assert_eq!((times(4), times(newest)), (1, 1));

    let said = site
        .done(&["journal", "replay", "--sink", "cloud", "--from", "4"])
        .await;
    assert!(said.starts_with("cloud is sent again all from "), "{said}");
    assert!(
        said.contains("-00000000000000000004 on, which was stored "),
        "{said}"
    );
    let twice = |seen: &[Value]| seen.iter().filter(|event| number(event) == newest).count() == 2;
    cloud.wait_until(twice).await;
    assert_eq!(times(3), 1, "nothing before it");
    let chains = |event: &Value| number(event) == 4 && text(event, "/previoussequence") == ZEROS;
    assert_eq!(cloud.count(chains), 1, "the chain starts anew");
    assert_eq!(
        cloud.count(|event| number(event) == 5 && text(event, "/previoussequence") == "00000000000000000004"),
        2
    );

    // Without an uplink it stays where it was put, whatever happens.
    drop(broker);
    let (_, said, _) = site
        .ask(&["journal", "replay", "--sink", "cloud", "--from", "1h"])
        .await;
    assert!(said.contains("-00000000000000000001 on, "), "{said}");
    gateway.kill().await;
    gateway.restart(&site).await;
    let sink = &listed(&site).await["sinks"][0];
    assert_eq!(
        (&sink["name"], &sink["sequence"]),
        (&Value::from("cloud"), &Value::Null)
    );
    assert!(sink["behind_events"].as_u64() > Some(newest), "{sink}");
    gateway.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_replayed_or_forgotten_is_told_with_why() {
    let broker = Mosquitto::start().await;
    let cloud = Cloud::subscribe(broker.port).await;
    let site = Site::new().uplink(broker.port, "5");
    let gateway = Gateway::start(&site).await;
    let mut device = Device::new(Version::V5, QoS::AtLeastOnce, gateway.door, "thermostat-7");
    alarms(1, &mut device, &cloud).await;
    for (arguments, why) in [
        (
            &["replay", "--sink", "clod", "--from", "1"][..],
            "no sink \"clod\" is configured; there are: cloud",
        ),
        (
            &["replay", "--sink", "cloud", "--from", "999"],
            "nothing that is kept was stored from there on",
        ),
        (
            &["forget", "cloud"],
            "cloud is configured: take its table out of the configuration",
        ),
        (
            &["forget", "clod"],
            "the journal knows no sink clod: `tidegate journal ls` lists",
        ),
    ] {
        let (code, out, complaint) = site.ask(&[&["journal"], arguments].concat()).await;
        assert_eq!((code, out.as_str()), (Some(1), ""), "{arguments:?}");
        assert!(complaint.contains(why), "{arguments:?}: {complaint}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_was_removed_is_kept_until_it_is_forgotten() {
    let broker = Mosquitto::start().await;
    let cloud = Cloud::subscribe(broker.port).await;
    let site = Site::new().uplink(broker.port, "5");
    let mut gateway = Gateway::start(&site).await;
    let mut device = Device::new(Version::V5, QoS::AtLeastOnce, gateway.door, "thermostat-7");
    alarms(1, &mut device, &cloud).await;
    site.edit(&[("name = \"cloud\"", "name = \"other\"")]);
    site.done(&["reload"]).await;
    let names = |listed: &Value| -> Vec<String> {
        let sinks = listed["sinks"].as_array().expect("a list");
        sinks.iter().map(|sink| text(sink, "/name").to_owned()).collect()
    };
    assert_eq!(names(&listed(&site).await), ["cloud", "other"]);
    let said = site.done(&["journal", "forget", "cloud"]).await;
    assert!(said.starts_with("cloud is forgotten"), "{said}");
    assert_eq!(names(&listed(&site).await), ["other"]);
    gateway.kill().await;
    gateway.restart(&site).await;
    assert_eq!(names(&listed(&site).await), ["other"]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_says_what_stands_well_and_what_needs_somebody() {
    let broker = Mosquitto::start().await;
    let cloud = Cloud::subscribe(broker.port).await;
    let site = Site::new().uplink(broker.port, "5");
    let (code, _, complaint) = site.ask(&["status"]).await;
    assert_eq!(code, Some(1));
    assert!(complaint.contains("no gateway is running here"), "{complaint}");
    let gateway = Gateway::start(&site).await;
    let mut device = Device::new(Version::V311, QoS::AtLeastOnce, gateway.door, "thermostat-7");
    alarms(2, &mut device, &cloud).await;
    device
        .publish_until_acknowledged(&[r#"{"temp": 31.0}"#, "no JSON"])
        .await;
    site.done(&["mute", "high-temperature", "--for", "1h", "--reason", "service"])
        .await;
    let status = site.done(&["status", "--format", "json"]).await;
    let status: Value = serde_json::from_str(&status).expect("JSON");
    for (pointer, expected) in [
        ("/healthy", Value::from(true)),
        ("/gateway", "plantroom-1".into()),
        ("/sinks/0/name", "cloud".into()),
        ("/sinks/0/connected", true.into()),
        ("/journal/parked", false.into()),
        ("/door/connected", 1.into()),
        ("/devices", 1.into()),
        ("/readings", 5.into()),
        ("/mutes", 1.into()),
        ("/losses/payloads_undecodable", 1.into()),
        ("/losses/readings_late", 0.into()),
        ("/journal/is_sized_by_card", false.into()),
        // In the first hour a day's worth is not known.
        ("/written_per_day_bytes", Value::Null),
    ] {
        assert_eq!(status.pointer(pointer), Some(&expected), "{pointer}: {status:#}");
    }
    assert!(status["written_bytes"].is_u64(), "{status:#}");
    assert!(status["last_reading_s"].is_u64(), "{status:#}");

    drop(broker);
    let asked = async || {
        let (code, out, complaint) = site.ask(&["status"]).await;
        (code == Some(1)).then_some((out, complaint))
    };
    let (screen, complaint) = until(PATIENCE, asked, || "the loss is seen".to_owned()).await;
    assert_eq!(complaint, "tidegate: 1 thing needs somebody\n");
    assert!(screen.contains("\n! sink cloud: "), "{screen}");
    assert!(screen.contains("\ncloud  AWAY "), "{screen}");
    assert!(screen.contains("payloads undecodable 1"), "{screen}");
    assert!(
        screen.contains("\ncard      ") && screen.contains(" written since the start\n"),
        "{screen}"
    );
    assert!(screen.contains(" evaluated, of 1 device, the last "), "{screen}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_image_that_is_put_back_gets_a_new_epoch_and_delivers_what_it_owed() {
    let site = Site::new().uplink(1, "5");
    let gateway = Gateway::start(&site).await;
    let config = site.config();
    let config = config.to_str().expect("UTF-8");
    let refused = site.ask(&["journal", "new-epoch", "--config", config]).await;
    assert_eq!(refused.0, Some(1));
    assert!(refused.2.contains("stop the gateway first"), "{}", refused.2);
    gateway.stop().await;
    let old = listed(&site).await;
    let epoch = text(&old, "/epochs/0/epoch").to_owned();
    let owed = old["epochs"][0]["last"].as_u64().expect("a number");

    let said = site.done(&["journal", "new-epoch", "--config", config]).await;
    assert!(said.starts_with(&format!("epoch {epoch} is over: ")), "{said}");
    let broker = Mosquitto::start().await;
    let cloud = Cloud::subscribe(broker.port).await;
    site.edit(&[(
        "mqtt://127.0.0.1:1\"",
        &format!("mqtt://127.0.0.1:{}\"", broker.port),
    )]);
    let gateway = Gateway::start(&site).await;
    let started = cloud
        .wait_for(|event| {
            event["type"] == "io.tidegate.gateway.GatewayStarted" && text(event, "/epoch") != epoch
        })
        .await;
    assert_eq!(number(&started), 1, "numbers begin anew");
    for sequence in 1..=owed {
        let is_it = |event: &Value| text(event, "/epoch") == epoch && number(event) == sequence;
        cloud.wait_for(is_it).await;
    }
    gateway.stop().await;
}
