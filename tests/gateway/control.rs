//! What a person does beside a running gateway: reload, mute, forget, ask what is active.

use rumqttc::QoS;
use serde_json::{Value, json};

use super::{
    cloud::Cloud,
    device::{Device, Version},
    parts::{Gateway, Mosquitto, Site},
    text,
};

fn is(name: &str) -> impl Fn(&Value) -> bool {
    let kind = format!("io.tidegate.gateway.{name}");
    move |event| event["type"] == kind.as_str()
}

fn of_rule(name: &str) -> impl Fn(&Value) -> bool {
    let kind = format!("io.tidegate.rule.{name}");
    move |event| event["type"] == kind.as_str()
}

const TOO_COLD: &str = "[[rule]]\nevent = \"TooCold\"\nmetric = \"temperature\"\nbelow = 5.0\nmargin = 1.0\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_applies_rules_and_labels_and_drops_no_connection_and_no_episode() {
    let broker = Mosquitto::start().await;
    let cloud = Cloud::subscribe(broker.port).await;
    let site = Site::new().uplink(broker.port, "5");
    let log = site.folder.path().join("log");
    let file = std::fs::File::create(&log).expect("created");
    let gateway = Gateway::start_logging(&site, file.into()).await;
    let mut device = Device::new(Version::V5, QoS::AtLeastOnce, gateway.door, "thermostat-7");
    device.publish_until_acknowledged(&[r#"{"temp": 31.0}"#]).await;
    let raised = cloud.wait_for(of_rule("HighTemperature")).await;

    let rule = format!("{TOO_COLD}\n[[rule]]\nevent = \"HighTemperature\"");
    let door = format!("listen = [\"127.0.0.1:{}\"]", gateway.door);
    let elsewhere = format!("listen = [\"127.0.0.1:{}\"]", gateway.door - 1);
    site.edit(&[
        ("[[rule]]\nevent = \"HighTemperature\"", &rule),
        ("site = \"hq\"", "site = \"annex\""),
        (&door, &elsewhere),
    ]);
    let said = site.done(&["reload"]).await;
    assert_eq!(
        said,
        "the configuration is applied; changed:\n  [gateway]\n  [[rule]] too-cold: added\n\
         needs a restart, and is as it was until then: [mqtt] listen\n"
    );
    let changed = cloud.wait_for(is("ConfigurationChanged")).await;
    assert_eq!(changed["severitytext"], "INFO");
    assert_eq!(
        changed["data"]["changed"],
        json!(["[gateway]", "[[rule]] too-cold: added"])
    );
    assert_eq!(changed["data"]["needs_restart"], json!(["[mqtt] listen"]));
    let started = cloud.wait_for(is("GatewayStarted")).await;
    assert_eq!(
        changed["data"]["old_sha256"],
        started["data"]["configuration_sha256"]
    );
    assert_ne!(changed["data"]["new_sha256"], changed["data"]["old_sha256"]);

    device.publish_until_acknowledged(&[r#"{"temp": 3.0}"#]).await;
    let cleared = cloud.wait_for(of_rule("HighTemperatureCleared")).await;
    assert_eq!(cleared["correlationid"], raised["correlationid"]);
    assert_eq!(cleared["data"]["gateway"]["labels"], json!({ "site": "annex" }));
    let cold = cloud.wait_for(of_rule("TooCold")).await;
    assert_eq!(cold["data"]["value"], 3.0);
    assert_eq!(device.connections, 1, "the device was not disconnected");
    let again = site.done(&["reload"]).await;
    assert!(
        again
            == "nothing has changed that can be applied\nneeds a restart, and is as it was until then: [mqtt] listen\n",
        "{again}"
    );

    gateway.stop().await;
    cloud.assert_first_sends_in_order();
    cloud.assert_no_unexplained_gap();
    assert_eq!(cloud.count(of_rule("HighTemperature")), 1);
    assert_eq!(cloud.count(is("GatewayStarted")), 1);
    assert_eq!(
        cloud.count(is("ConfigurationChanged")),
        1,
        "the second changed nothing"
    );
    let log = std::fs::read_to_string(log).expect("a log");
    assert_eq!(log.matches("uplink connected").count(), 1, "{log}");
    assert!(
        !log.contains("uplink lost") && !log.contains("uplink restored"),
        "{log}"
    );
    assert!(log.contains("needs a restart: [mqtt] listen"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_of_a_wrong_file_says_what_check_says_and_changes_nothing() {
    let broker = Mosquitto::start().await;
    let cloud = Cloud::subscribe(broker.port).await;
    let site = Site::new().uplink(broker.port, "5");
    let gateway = Gateway::start(&site).await;
    let mut device = Device::new(Version::V311, QoS::AtLeastOnce, gateway.door, "thermostat-7");
    site.edit(&[("clear = 28.0", "clear = 33.0"), ("above = 30.0", "above = 32.0")]);
    let (code, out, complaint) = site.ask(&["reload"]).await;
    assert_eq!((code, out.as_str()), (Some(78), ""));
    let config = site.config();
    let (_, _, checked) = site.ask(&["check", config.to_str().expect("UTF-8")]).await;
    assert_eq!(complaint, checked);
    assert!(
        complaint.contains("clear = 33 is above the threshold 32"),
        "{complaint}"
    );

    // A script that tries again and again fills no journal: each is logged, the first ten are recorded.
    for _ in 0..11 {
        assert_eq!(site.ask(&["reload"]).await.0, Some(78));
    }
    let rejected = cloud.wait_for(is("ConfigurationRejected")).await;
    assert_eq!(rejected["severitytext"], "ERROR");
    assert_eq!(text(&rejected, "/data/report").trim_end(), checked.trim_end());
    assert_eq!(rejected["data"]["used"], "the configuration that runs");
    device.publish_until_acknowledged(&[r#"{"temp": 31.0}"#]).await;
    let raised = cloud.wait_for(of_rule("HighTemperature")).await;
    assert_eq!(raised["data"]["rule"]["params"]["above"], 30.0);
    gateway.stop().await;
    assert_eq!(cloud.count(is("ConfigurationChanged")), 0);
    assert_eq!(cloud.count(is("ConfigurationRejected")), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_reloads_and_what_was_applied_is_the_last_good_one() {
    let broker = Mosquitto::start().await;
    let cloud = Cloud::subscribe(broker.port).await;
    let site = Site::new().uplink(broker.port, "5");
    let gateway = Gateway::start(&site).await;
    site.edit(&[("above = 30.0", "above = 40.0")]);
    gateway.signal(rustix::process::Signal::HUP);
    let changed = cloud.wait_for(is("ConfigurationChanged")).await;
    assert_eq!(
        changed["data"]["changed"],
        json!(["[[rule]] high-temperature: changed"])
    );
    gateway.stop().await;

    std::fs::write(site.config(), "no TOML").expect("written");
    let gateway = Gateway::start(&site).await;
    cloud.wait_for(is("ConfigurationRejected")).await;
    let started = |seen: &[Value]| seen.iter().filter(|event| is("GatewayStarted")(event)).count() == 2;
    cloud.wait_until(started).await;
    let starts: Vec<_> = cloud
        .distinct()
        .into_iter()
        .filter(is("GatewayStarted"))
        .collect();
    assert_eq!(
        starts[1]["data"]["configuration_sha256"],
        changed["data"]["new_sha256"]
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_an_included_file_does_not_stop_a_gateway_that_ran_with_it() {
    let broker = Mosquitto::start().await;
    let cloud = Cloud::subscribe(broker.port).await;
    let site = Site::new().uplink(broker.port, "5");
    let gateway = Gateway::start(&site).await;
    let rules = site.config().with_file_name("frost.toml");
    let frost = "[[rule]]\nevent = \"FrostDanger\"\nmetric = \"temperature\"\nbelow = 6.0\nclear = 8.0\n";
    std::fs::write(&rules, frost).expect("written");
    site.edit(&[("\n[gateway]", "include = [\"fr*.toml\"]\n[gateway]")]);
    gateway.signal(rustix::process::Signal::HUP);
    let changed = cloud.wait_for(is("ConfigurationChanged")).await;
    assert_eq!(
        changed["data"]["changed"],
        json!(["[[rule]] frost-danger: added"])
    );
    gateway.stop().await;

    std::fs::write(&rules, frost.replace("8.0", "4.0")).expect("written");
    let gateway = Gateway::start(&site).await;
    let rejected = cloud.wait_for(is("ConfigurationRejected")).await;
    let report = rejected["data"]["report"].as_str().unwrap_or_default();
    assert!(
        report.contains("frost.toml:5: rule \"FrostDanger\": clear = 4 is below the threshold 6"),
        "{report}"
    );
    let mut device = Device::new(Version::V5, QoS::AtLeastOnce, gateway.door, "thermostat-7");
    device.publish_until_acknowledged(&[r#"{"temp": 5.0}"#]).await;
    let raised = cloud.wait_for(of_rule("FrostDanger")).await;
    assert_eq!(raised["data"]["rule"]["params"]["clear"], 8.0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_a_reload_takes_away_and_brings_back_goes_on_where_it_was() {
    let broker = Mosquitto::start().await;
    let cloud = Cloud::subscribe(broker.port).await;
    let site = Site::new().uplink(broker.port, "3.1.1");
    let gateway = Gateway::start(&site).await;
    let mut device = Device::new(Version::V5, QoS::AtLeastOnce, gateway.door, "thermostat-7");
    device
        .publish_until_acknowledged(&[r#"{"temp": 31.0}"#, r#"{"temp": 27.0}"#])
        .await;
    cloud.wait_for(of_rule("HighTemperatureCleared")).await;

    let sink = format!(
        "[[sink.mqtt]]\nname = \"cloud\"\nurl = \"mqtt://127.0.0.1:{}\"\nversion = \"3.1.1\"\n",
        broker.port
    );
    site.edit(&[(&sink, "")]);
    let said = site.done(&["reload"]).await;
    assert!(said.contains("[[sink.mqtt]] cloud: removed"), "{said}");
    device
        .publish_until_acknowledged(&[r#"{"temp": 32.0}"#, r#"{"temp": 26.0}"#])
        .await;
    site.edit(&[("version = \"3.1.1\"", "version = \"5\"")]);
    let said = site.done(&["reload"]).await;
    assert!(said.contains("[[sink.mqtt]] cloud: added"), "{said}");
    let all = |seen: &[Value]| seen.iter().any(|event| event["data"]["value"] == 26.0);
    cloud.wait_until(all).await;
    assert_eq!(device.connections, 1);
    gateway.stop().await;
    cloud.assert_first_sends_in_order();
    cloud.assert_no_unexplained_gap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_active_is_listed_and_recorded_for_who_lost_it() {
    let broker = Mosquitto::start().await;
    let cloud = Cloud::subscribe(broker.port).await;
    let site = Site::new().uplink(broker.port, "5");
    let gateway = Gateway::start(&site).await;
    assert_eq!(site.done(&["events", "--active"]).await, "no alarm is active\n");
    let mut device = Device::new(Version::V5, QoS::AtLeastOnce, gateway.door, "thermostat-7");
    device.publish_until_acknowledged(&[r#"{"temp": 31.5}"#]).await;
    let raised = cloud.wait_for(of_rule("HighTemperature")).await;

    let shown = site.done(&["events", "--active"]).await;
    let row: Vec<_> = shown.lines().nth(1).expect("a row").split_whitespace().collect();
    let (since, id) = (
        text(&raised, "/data/episode/since"),
        text(&raised, "/correlationid"),
    );
    let expected = [
        "warning",
        "HighTemperature",
        "high-temperature",
        "thermostat-7",
        "temperature",
        "31.5",
    ];
    assert_eq!(row[..6], expected);
    assert_eq!(row[7], id);
    let listed: Value =
        serde_json::from_str(&site.done(&["events", "--active", "--json"]).await).expect("JSON");
    assert_eq!(listed["alarms"][0]["rule"], "high-temperature");
    assert_eq!(listed["alarms"][0]["id"], id);

    // Once at the start and once a question.
    let active = |seen: &[Value]| seen.iter().filter(|event| is("ActiveAlarms")(event)).count() >= 4;
    cloud.wait_until(active).await;
    let lists: Vec<_> = cloud.distinct().into_iter().filter(is("ActiveAlarms")).collect();
    assert_eq!(lists[0]["data"]["count"], 0);
    let data = &lists[2]["data"];
    assert_eq!(
        (&data["part"], &data["parts"], &data["count"]),
        (&json!(1), &json!(1), &json!(1))
    );
    let alarm = &data["alarms"][0];
    assert_eq!(alarm["id"], id);
    assert_eq!(alarm["since"], since);
    assert_eq!(
        (&alarm["value"], &alarm["severity"]),
        (&json!(31.5), &json!("warning"))
    );
    // A script that asks again and again is answered and fills no journal: ten in ten minutes are recorded.
    for _ in 0..9 {
        assert_eq!(site.done(&["events", "--active"]).await, shown);
    }
    gateway.stop().await;
    assert_eq!(cloud.count(is("ActiveAlarms")), 1 + 10);

    let gateway = Gateway::start(&site).await;
    let again = |seen: &[Value]| seen.iter().filter(|event| is("ActiveAlarms")(event)).count() >= 12;
    cloud.wait_until(again).await;
    let after = cloud
        .distinct()
        .into_iter()
        .rfind(is("ActiveAlarms"))
        .expect("one");
    assert_eq!(after["data"]["alarms"][0]["id"], id, "after a start, too");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mute_clears_what_is_open_raises_nothing_and_raises_again_when_it_ends() {
    let broker = Mosquitto::start().await;
    let cloud = Cloud::subscribe(broker.port).await;
    let site = Site::new().uplink(broker.port, "5");
    let mut gateway = Gateway::start(&site).await;
    let mut device = Device::new(Version::V5, QoS::AtLeastOnce, gateway.door, "thermostat-7");
    device.publish_until_acknowledged(&[r#"{"temp": 31.0}"#]).await;
    cloud.wait_for(of_rule("HighTemperature")).await;

    let said = site
        .done(&["mute", "thermostat-7", "--for", "2h", "--reason", "service visit"])
        .await;
    assert!(
        said.starts_with("device:thermostat-7 is muted until 20"),
        "{said}"
    );
    // Answered means on the disk: a kill right behind the answer takes nothing back.
    gateway.kill().await;
    gateway.restart(&site).await;
    let muted = cloud.wait_for(is("AlarmMuted")).await;
    assert_eq!(muted["severitytext"], "INFO");
    assert_eq!(muted["data"]["reason"], "service visit");
    let cleared = cloud.wait_for(of_rule("HighTemperatureCleared")).await;
    assert_eq!(cleared["data"]["episode"]["reason"], "muted");
    device.publish_until_acknowledged(&[r#"{"temp": 32.0}"#]).await;
    let shown = site.done(&["events", "--active"]).await;
    assert!(shown.starts_with("no alarm is active\nmuted until 20"), "{shown}");
    assert!(
        shown.ends_with(": device:thermostat-7 (service visit)\n"),
        "{shown}"
    );

    let said = site.done(&["unmute", "thermostat-7"]).await;
    assert_eq!(said, "device:thermostat-7 is no longer muted\n");
    let unmuted = cloud.wait_for(is("AlarmUnmuted")).await;
    assert_eq!(unmuted["correlationid"], muted["correlationid"]);
    assert!(muted["correlationid"].is_string());
    let raised = |seen: &[Value]| {
        seen.iter()
            .filter(|event| of_rule("HighTemperature")(event))
            .count()
            >= 2
    };
    device.publish_until_acknowledged(&[r#"{"temp": 33.0}"#]).await;
    cloud.wait_until(raised).await;

    // One that ends by itself.
    site.done(&[
        "mute",
        "rule:high-temperature",
        "--for",
        "1s",
        "--reason",
        "a test",
    ])
    .await;
    let ended = |seen: &[Value]| seen.iter().filter(|event| is("AlarmUnmuted")(event)).count() >= 2;
    cloud.wait_until(ended).await;
    let raised = |seen: &[Value]| {
        seen.iter()
            .filter(|event| of_rule("HighTemperature")(event))
            .count()
            >= 3
    };
    cloud.wait_until(raised).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_device_is_cleared_and_a_name_that_is_none_is_told() {
    let broker = Mosquitto::start().await;
    let cloud = Cloud::subscribe(broker.port).await;
    let site = Site::new().uplink(broker.port, "5");
    let gateway = Gateway::start(&site).await;
    let mut device = Device::new(Version::V5, QoS::AtLeastOnce, gateway.door, "attic");
    device.publish_until_acknowledged(&[r#"{"temp": 31.0}"#]).await;
    cloud.wait_for(of_rule("HighTemperature")).await;
    let said = site.done(&["device", "forget", "attic"]).await;
    assert_eq!(
        said,
        "attic is forgotten: its alarms are cleared, its state is gone\n"
    );
    let cleared = cloud.wait_for(of_rule("HighTemperatureCleared")).await;
    assert_eq!(cleared["data"]["episode"]["reason"], "device-removed");

    for (arguments, complaint) in [
        (
            &["device", "forget", "attic"][..],
            "tidegate: no device \"attic\" is known here",
        ),
        (
            &["mute", "attick", "--for", "1h", "--reason", "x"],
            "tidegate: there is no rule \"attick\"",
        ),
        (
            &["mute", "HighTemperature", "--for", "1h", "--reason", "x"],
            "tidegate: HighTemperature is the event of rule:high-temperature; mute that",
        ),
        (
            &["unmute", "high-temperature"],
            "tidegate: high-temperature is not muted",
        ),
        (
            &["mute", "high-temperature", "--for", "0s", "--reason", "x"],
            "tidegate: a mute lasts 1 s to",
        ),
        (
            &["mute", "high-temperature", "--for", "1h", "--reason", " "],
            "tidegate: a reason has 1 to",
        ),
    ] {
        let (code, _, said) = site.ask(arguments).await;
        assert_eq!(code, Some(1), "{arguments:?}");
        assert!(said.starts_with(complaint), "{arguments:?}: {said}");
    }
    gateway.stop().await;

    let (code, _, said) = site.ask(&["events", "--active"]).await;
    assert_eq!(code, Some(1));
    let socket = site.folder.path().join("control.sock");
    let expected = format!(
        "tidegate: no gateway is running here: no socket at {}",
        socket.display()
    );
    assert!(said.starts_with(&expected), "{said}");
    assert_eq!(
        site.ask(&["mute", "x", "--for", "soon", "--reason", "y"]).await.0,
        Some(2)
    );
}
