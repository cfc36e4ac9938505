//! The gateway's own events, each provoked for real. (Those of a reload and of mutes: `control`; `GatewayAlive`:
//! `service`.)

use std::path::Path;

use rumqttc::QoS;
use serde_json::Value;
use sha2::Digest;
use tokio::time::timeout;

use super::{
    PATIENCE,
    cloud::Cloud,
    device::{Device, Version},
    parts::{Adapter, Cable, Gateway, Mosquitto, Site, until},
    text,
};

pub(crate) fn is(name: &str) -> impl Fn(&Value) -> bool {
    let kind = format!("io.tidegate.gateway.{name}");
    move |event| event["type"] == kind.as_str()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_and_a_stop_are_told_in_order_with_what_the_start_found() {
    let broker = Mosquitto::start().await;
    let cloud = Cloud::subscribe(broker.port).await;
    let site = Site::new().uplink(broker.port, "5");
    Gateway::start(&site).await.stop().await;
    let mut gateway = Gateway::start(&site).await;
    let starts = |seen: &[Value]| seen.iter().filter(|event| is("GatewayStarted")(event)).count() >= 2;
    cloud.wait_until(starts).await;
    gateway.kill().await;
    gateway.restart(&site).await;
    cloud.wait_for(|event| event["data"]["unclean"] == true).await;
    gateway.stop().await;

    let events = cloud.distinct();
    let names: Vec<_> = events
        .iter()
        .map(|event| text(event, "/type").rsplit('.').next().expect("a name"))
        .collect();
    let started: Vec<_> = events
        .iter()
        .filter(|event| is("GatewayStarted")(event))
        .collect();
    let stopped = names
        .iter()
        .position(|name| *name == "GatewayStopped")
        .expect("it was stopped");
    assert_eq!(
        (names[0], names[stopped + 1]),
        ("GatewayStarted", "GatewayStarted")
    );
    let unclean: Vec<_> = started
        .iter()
        .map(|event| event["data"]["unclean"].as_bool())
        .collect();
    assert_eq!(unclean, [Some(false), Some(false), Some(true)]);
    let config = std::fs::read(site.config()).expect("a configuration");
    let sum = sha2::Sha256::digest(&config)
        .iter()
        .fold(String::new(), |sum, byte| format!("{sum}{byte:02x}"));
    for start in &started {
        assert_eq!(start["data"]["epoch"], start["epoch"]);
        assert_eq!(start["data"]["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(text(start, "/data/boot_id").len(), 32);
        assert_eq!(text(start, "/data/configuration_sha256"), sum);
    }
    assert_eq!(
        started[1]["data"]["last_sequence"].as_u64(),
        text(&events[stopped], "/sequence").parse().ok()
    );
    assert_eq!(events[stopped]["data"]["reason"], "asked to stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uplink_that_is_lost_and_restored_is_told_as_a_pair() {
    let broker = Mosquitto::start().await;
    let cloud = Cloud::subscribe(broker.port).await;
    let cable = Cable::to(broker.port).await;
    let site = Site::new().uplink(cable.port, "5");
    let gateway = Gateway::start(&site).await;
    cloud.wait_for(is("GatewayStarted")).await;
    let local = Cloud::subscribe(gateway.door).await;
    cable.cut();
    let lost = local.wait_for(is("UplinkLost")).await;
    cable.mend();
    let restored = cloud.wait_for(is("UplinkRestored")).await;
    assert_eq!(
        cloud.wait_for(is("UplinkLost")).await,
        lost,
        "it is kept for the cloud, too"
    );
    for event in [&lost, &restored] {
        assert_eq!(event["severitytext"], "WARN");
        assert_eq!(
            (&event["subject"], &event["data"]["sink"]),
            (&"cloud".into(), &"cloud".into())
        );
        assert!(event["data"]["backlog"].is_u64(), "{event}");
    }
    assert!(!text(&lost, "/data/reason").is_empty());
    assert!(restored["data"]["lost_for_s"].as_u64() >= Some(5), "{restored}");
    assert_eq!(restored["correlationid"], lost["correlationid"]);
    assert!(lost["correlationid"].is_string());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serial_port_that_does_not_open_is_told_and_so_is_its_return() {
    let broker = Mosquitto::start().await;
    let cloud = Cloud::subscribe(broker.port).await;
    let site = Site::new().uplink(broker.port, "5");
    let port = site.folder.path().join("boiler-port");
    let site = site.serial(&port);
    let gateway = Gateway::start(&site).await;
    let failed = cloud.wait_for(is("SourceFailed")).await;
    assert_eq!(
        (&failed["severitytext"], &failed["subject"]),
        (&"ERROR".into(), &"boiler".into())
    );
    assert_eq!(failed["data"]["source"], "boiler");
    assert_eq!(failed["data"]["port"], port.to_str().expect("UTF-8"));
    let reason = text(&failed, "/data/reason");
    assert!(
        reason.ends_with("no such file (is the adapter plugged in?)"),
        "{reason}"
    );

    let adapter = Adapter::plug_in(&port);
    let recovered = cloud.wait_for(is("SourceRecovered")).await;
    assert_eq!(recovered["correlationid"], failed["correlationid"]);
    assert!(
        recovered["data"]["failed_for_s"].as_u64() >= Some(5),
        "{recovered}"
    );
    gateway.stop().await;
    drop(adapter);
}

/// The text of a log, once it has this in it.
async fn logged(log: &Path, what: &str) -> String {
    let text = || std::fs::read_to_string(log).expect("a log");
    let logged = async || Some(text()).filter(|text| text.contains(what));
    until(PATIENCE, logged, || format!("{what:?} is logged: {}", text())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_fills_and_drains_is_told_and_so_is_what_had_no_room() {
    let broker = Mosquitto::start().await;
    let cloud = Cloud::subscribe(broker.port).await;
    let cable = Cable::to(broker.port).await;
    cable.cut();
    let mut site = Site::new().uplink(cable.port, "5");
    site.max_bytes = "8MiB";
    let log = site.folder.path().join("log");
    let file = std::fs::File::create(&log).expect("created");
    let gateway = Gateway::start_logging(&site, file.into()).await;
    let local = Cloud::subscribe_to(gateway.door, "tidegate/+/events/JournalFilling/+").await;
    let mut device = Device::new(Version::V5, QoS::AtLeastOnce, gateway.door, "thermostat-7");
    let batch = [r#"{"temp": 31.0}"#, r#"{"temp": 27.0}"#].repeat(20);
    let filling = async {
        while !std::fs::read_to_string(&log)
            .expect("a log")
            .contains("EventsDiscarded: {")
        {
            device.publish_until_acknowledged(&batch).await;
        }
    };
    timeout(4 * PATIENCE, filling).await.expect("8 MiB are soon full");
    let filling = local.wait_for(is("JournalFilling")).await;
    assert_eq!(filling["data"]["max_bytes"], 8 * 1024 * 1024);
    assert_eq!(filling["data"]["when_full"], "drop-oldest");
    assert_eq!(
        (&filling["severitytext"], &filling["subject"]),
        (&"WARN".into(), &"plantroom-1".into())
    );
    let undelivered = filling["data"]["undelivered_bytes"].as_u64().expect("bytes");
    let room = filling["data"]["room_bytes"].as_u64().expect("bytes");
    assert!(undelivered * 10 >= room * 8, "{filling}");
    assert!((6 << 20..8 << 20).contains(&room), "{filling}");

    cable.mend();
    let drained = cloud.wait_for(is("JournalDrained")).await;
    assert_eq!(drained["correlationid"], filling["correlationid"]);
    let discarded = cloud.wait_for(is("EventsDiscarded")).await;
    assert_eq!(discarded["severitytext"], "ERROR");
    assert_eq!(discarded["data"]["reason"], "journal-full");
    assert_eq!(discarded["data"]["sinks"], serde_json::json!(["cloud"]));
    gateway.stop().await;
    cloud.assert_no_unexplained_gap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_told_upstream_and_in_the_log() {
    let broker = Mosquitto::start().await;
    let cloud = Cloud::subscribe(broker.port).await;
    let cable = Cable::to(broker.port).await;
    cable.cut();
    let site = Site::new().uplink(cable.port, "5");
    let mut gateway = Gateway::start(&site).await;
    let mut device = Device::new(Version::V5, QoS::AtLeastOnce, gateway.door, "thermostat-7");
    for _ in 0..3 {
        device
            .publish_until_acknowledged(&[r#"{"temp": 31.0}"#, r#"{"temp": 27.0}"#])
            .await;
    }
    gateway.kill().await;
    let damaged = flip_a_byte_of(b"GatewayStarted", &site.folder.path().join("journal"));

    let log = site.folder.path().join("log");
    let file = std::fs::File::create(&log).expect("created");
    let gateway = Gateway::start_logging(&site, file.into()).await;
    cable.mend();
    let told = cloud.wait_for(is("StorageDamaged")).await;
    assert_eq!(told["severitytext"], "FATAL");
    assert_eq!(
        text(&told, "/data/file").rsplit('/').next(),
        damaged.file_name().and_then(|name| name.to_str())
    );
    assert!(
        told["data"]["from"].as_u64() < told["data"]["to"].as_u64(),
        "{told}"
    );
    let discarded = cloud.wait_for(is("EventsDiscarded")).await;
    assert_eq!(discarded["data"]["reason"], "damaged");
    logged(&log, "StorageDamaged: {").await;
    gateway.stop().await;
    cloud.assert_no_unexplained_gap();
}

/// In the first file that has this text; which it is.
fn flip_a_byte_of(text: &[u8], dir: &Path) -> std::path::PathBuf {
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let mut bytes = std::fs::read(&path).expect("a file");
            let found = bytes.windows(text.len()).position(|window| window == text);
            if let Some(at) = found {
                bytes[at] ^= 0x20;
                std::fs::write(&path, bytes).expect("written");
                return path;
            }
        }
    }
    panic!("not found in {}", dir.display());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_device_that_comes_and_goes_is_told_once_and_others_never() {
    let broker = Mosquitto::start().await;
    let cloud = Cloud::subscribe(broker.port).await;
    let site = Site::new()
        .uplink(broker.port, "5")
        .tables("[events]\noff = []\noffline-after = \"1s\"\n[[device]]\nid = \"attic-*\"");
    let gateway = Gateway::start(&site).await;
    let mut named = Device::new(Version::V5, QoS::AtLeastOnce, gateway.door, "thermostat-7");
    let mut other = Device::new(Version::V311, QoS::AtLeastOnce, gateway.door, "attic-1");
    named.publish_until_acknowledged(&[r#"{"temp": 27.0}"#]).await;
    other.publish_until_acknowledged(&[r#"{"temp": 27.0}"#]).await;
    let connected = cloud.wait_for(is("DeviceConnected")).await;
    for (event, subject) in [(&connected, "/subject"), (&connected, "/data/device")] {
        assert_eq!(text(event, subject), "thermostat-7");
    }
    drop((named, other));
    let disconnected = cloud.wait_for(is("DeviceDisconnected")).await;
    assert_eq!(disconnected["correlationid"], connected["correlationid"]);
    assert_eq!(disconnected["severitytext"], "INFO");
    let at = |text: &str| text.parse::<jiff::Timestamp>().expect("RFC 3339");
    let away = at(text(&disconnected, "/time")).duration_since(at(text(&disconnected, "/data/last_seen")));
    assert!(away.as_millis() >= 1_000, "{disconnected}");

    // Again at once: at most one pair in five minutes. The alarm shows that it was heard.
    let mut named = Device::new(Version::V5, QoS::AtLeastOnce, gateway.door, "thermostat-7");
    named.publish_until_acknowledged(&[r#"{"temp": 31.0}"#]).await;
    cloud.wait_for(|event| event["transition"] == "raised").await;
    gateway.stop().await;
    assert_eq!(cloud.count(is("DeviceConnected")), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_off_is_not_recorded() {
    let broker = Mosquitto::start().await;
    let cloud = Cloud::subscribe(broker.port).await;
    let off = "[events]\noff = [\"GatewayStarted\", \"GatewayStopped\", \"GatewayAlive\", \"ActiveAlarms\", \
               \"ConfigurationChanged\", \"ConfigurationRejected\", \"AlarmMuted\", \"AlarmUnmuted\", \
               \"ClockSynchronised\", \"ClockLost\", \"SourceFailed\", \"UplinkLost\", \"DeviceConnected\", \"DeviceDisconnected\"]\nheartbeat = \"1s\"\noffline-after = \"1s\"";
    // Nobody answers there, and no adapter is plugged in.
    let nobody = "[[sink.mqtt]]\nname = \"nobody\"\nurl = \"mqtt://127.0.0.1:1\"\n";
    let site = Site::new()
        .uplink(broker.port, "5")
        .rule("hold = \"10s\"")
        .tables(off)
        .tables(nobody);
    let port = site.folder.path().join("boiler-port");
    let site = site.serial(&port);
    let gateway = Gateway::start(&site).await;
    let mut device = Device::new(Version::V5, QoS::AtLeastOnce, gateway.door, "thermostat-7");
    device.publish_until_acknowledged(&[r#"{"temp": 27.0}"#]).await;
    site.done(&["mute", "thermostat-7", "--for", "1h", "--reason", "a test"])
        .await;
    site.done(&["unmute", "thermostat-7"]).await;
    site.done(&["events", "--active"]).await;
    site.edit(&[("above = 30.0", "above = 40.0")]);
    site.done(&["reload"]).await;
    std::fs::write(site.config(), "no TOML").expect("written");
    assert_eq!(site.ask(&["reload"]).await.0, Some(78));
    device.publish_until_acknowledged(&[r#"{"temp": 41.0}"#]).await;
    drop(device);
    // By the end of the hold whatever is away has been away for longer than it takes to be told.
    let raised = cloud.wait_for(|event| event["transition"] == "raised").await;
    assert_eq!(
        text(&raised, "/sequence"),
        "00000000000000000001",
        "nothing else was recorded"
    );
    gateway.stop().await;
    assert_eq!(cloud.distinct().len(), 1);
}
