//! What those who subscribe make of an event: the official CloudEvents SDKs for Python and JavaScript, each behind an
//! MQTT client of its language, and a consumer that was written against the first schema and never changed.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use rumqttc::QoS;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use super::{
    PATIENCE,
    cloud::Cloud,
    contract,
    device::{Device, Version},
    parts::{Gateway, Mosquitto, Site},
    text,
};

pub(crate) fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub(crate) fn python() -> Command {
    Command::new(here("target/tools/python/bin/python3"))
}

/// A program that receives and prints each event as its SDK read it.
pub(crate) struct Receiver {
    lines: Lines<BufReader<ChildStdout>>,
    process: Child,
}

impl Receiver {
    /// It has said nothing yet.
    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut process = command
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the tools of tests/tools are installed (./test does it)");
        let lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        Self { lines, process }
    }

    async fn start(mut command: Command, port: u16) -> Self {
        command.arg(port.to_string());
        let mut receiver = Self::spawn(command);
        assert_eq!(receiver.line().await, "subscribed");
        receiver
    }

    async fn python(port: u16) -> Self {
        let mut command = python();
        command.arg(here("tests/contract/receiver.py"));
        Self::start(command, port).await
    }

    async fn node(port: u16) -> Self {
        let mut command = Command::new("node");
        command
            .arg(here("tests/contract/receiver.cjs"))
            .env("NODE_PATH", here("target/tools/node/node_modules"));
        Self::start(command, port).await
    }

    pub(crate) async fn line(&mut self) -> String {
        let line = timeout(PATIENCE, self.lines.next_line()).await.expect("in time");
        line.expect("readable")
            .expect("the receiver ended: its complaint stands above")
    }

    pub(crate) async fn event(&mut self) -> Value {
        serde_json::from_str(&self.line().await).expect("JSON")
    }

    /// Kills it. What it had said by then and nobody had read: it may have acknowledged that.
    pub(crate) async fn kill(mut self) -> Vec<Value> {
        self.process.kill().await.expect("it was running");
        let mut rest = Vec::new();
        while let Ok(Some(line)) = timeout(PATIENCE, self.lines.next_line()).await.expect("in time") {
            // The last line may be torn; what it tells was not acknowledged.
            rest.extend(serde_json::from_str::<Value>(&line));
        }
        rest
    }
}

/// A gateway whose sink has this form, that raised an alarm and cleared it; what its own door said meanwhile.
async fn one_alarm(form: &str, broker: &Mosquitto) -> (Gateway, Vec<Value>) {
    one_alarm_at(&Site::new().uplink(broker.port, "5").sink(form)).await
}

pub(crate) async fn one_alarm_at(site: &Site) -> (Gateway, Vec<Value>) {
    let gateway = Gateway::start(site).await;
    let door = Cloud::subscribe(gateway.door).await;
    let mut device = Device::new(Version::V5, QoS::AtLeastOnce, gateway.door, "thermostat-7");
    device.publish_until_acknowledged(&[r#"{"temp": 31.0}"#]).await;
    device.publish_until_acknowledged(&[r#"{"temp": 27.5}"#]).await;
    door.wait_for(|event| event["transition"] == "cleared").await;
    (gateway, door.distinct())
}

/// With every number as a float: JavaScript has no others.
fn floats(value: &Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().into(),
        Value::Array(each) => each.iter().map(floats).collect(),
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| (name.clone(), floats(value)));
            Value::Object(members.collect())
        }
        other => other.clone(),
    }
}

/// What the SDK read is what the gateway's own door said, attribute by attribute.
pub(crate) fn assert_same(read: &Value, said: &Value, form: &str) {
    let attributes = read["attributes"].as_object().expect("attributes");
    let mut expected = said.as_object().expect("an event").clone();
    let data = expected.remove("data").expect("data");
    if form.contains("cbor") {
        expected.insert("datacontenttype".to_owned(), "application/cbor".into());
    }
    let names: Vec<_> = attributes.keys().collect();
    assert_eq!(names, expected.keys().collect::<Vec<_>>(), "{form}");
    for (name, value) in &expected {
        let got = &attributes[name];
        // User properties and headers are texts.
        let same = floats(got) == floats(value) || got.as_str() == Some(&value.to_string());
        assert!(same, "{form}: {name} is {got}, not {value}");
    }
    if let Some(got) = read.get("data") {
        assert_eq!(floats(got), floats(&data), "{form}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_sdks_read_every_form_of_an_event_and_find_the_same_in_each() {
    for (form, content_type) in [
        ("", "application/cloudevents+json"),
        ("mode = \"binary\"", "application/json"),
        ("encoding = \"cbor\"", "application/cloudevents+cbor"),
        ("encoding = \"cbor\"\nmode = \"binary\"", "application/cbor"),
    ] {
        let broker = Mosquitto::start().await;
        let (mut python, mut node) = (
            Receiver::python(broker.port).await,
            Receiver::node(broker.port).await,
        );
        let (gateway, said) = one_alarm(form, &broker).await;
        assert!(said.len() >= 2);
        let official = contract::official();
        for said in &said {
            assert!(official.is_valid(said), "{said:#}");
            for receiver in [&mut python, &mut node] {
                let read = loop {
                    let read = receiver.event().await;
                    assert_eq!(read["form"], content_type);
                    // GatewayStarted was before the door had a subscriber.
                    let id = read.pointer("/attributes/id");
                    if id.is_none() || id == said.get("id") {
                        break read;
                    }
                };
                if read.get("attributes").is_some() {
                    assert_same(&read, said, content_type);
                }
            }
        }
        gateway.stop().await;
    }
}

/// The consumer that was frozen with the first schema, over these events: what it understood.
async fn consumer_1(events: &str) -> Value {
    let mut process = python()
        .arg(here("tests/fixtures/consumer-1/consumer.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("Python is installed (./test does it)");
    let mut input = process.stdin.take().expect("piped");
    input.write_all(events.as_bytes()).await.expect("it reads");
    drop(input);
    let output = timeout(PATIENCE, process.wait_with_output())
        .await
        .expect("in time");
    let output = output.expect("it ran");
    assert!(
        output.status.success(),
        "the frozen consumer no longer understands the events"
    );
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[tokio::test]
async fn the_frozen_consumer_understands_what_was_recorded_then() {
    let folder = here("tests/fixtures/consumer-1");
    let recorded = std::fs::read_to_string(folder.join("recorded.jsonl")).expect("there");
    let expected = std::fs::read_to_string(folder.join("understood.json")).expect("there");
    let expected: Value = serde_json::from_str(&expected).expect("JSON");
    assert_eq!(consumer_1(&recorded).await, expected);
    // What was recorded is the contract of then: this version's schemas may only have become wider.
    for line in recorded.lines() {
        contract::check_earlier(&serde_json::from_str(line).expect("JSON"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_frozen_consumer_understands_what_this_version_says() {
    let broker = Mosquitto::start().await;
    let cloud = Cloud::subscribe(broker.port).await;
    let site = Site::new().uplink(broker.port, "5");
    let mut gateway = Gateway::start(&site).await;
    let mut device = Device::new(Version::V5, QoS::AtLeastOnce, gateway.door, "thermostat-7");
    device.publish_until_acknowledged(&[r#"{"temp": 31.0}"#]).await;
    device.publish_until_acknowledged(&[r#"{"temp": 27.0}"#]).await;
    device.publish_until_acknowledged(&[r#"{"temp": 33.0}"#]).await;
    cloud
        .wait_until(|seen| {
            seen.iter()
                .filter(|event| event["transition"] == "raised")
                .count()
                == 2
        })
        .await;
    gateway.kill().await;
    gateway.restart(&site).await;
    let restarted = |event: &Value| event["data"]["unclean"] == true;
    let started = cloud.wait_for(restarted).await;
    gateway.stop().await;
    cloud
        .wait_for(|event| text(event, "/type").ends_with("GatewayStopped"))
        .await;

    let events = cloud.distinct();
    let lines: Vec<_> = events.iter().map(Value::to_string).collect();
    let lines = lines.join("\n");
    let understood = consumer_1(&format!("{lines}\n{lines}\n")).await;
    assert_eq!(understood["duplicates"], events.len(), "each came twice");
    assert_eq!(understood["missing"], serde_json::json!([]));
    assert_eq!(
        understood["sources"],
        serde_json::json!(["urn:tidegate:gateway:plantroom-1"])
    );
    assert_eq!(understood["crashes"], 1, "{started}");
    assert_eq!(understood["ended"], serde_json::json!({ "back-to-normal": 1 }));
    let active = understood["active"].as_array().expect("a list");
    assert_eq!(active.len(), 1, "{understood}");
    assert_eq!(
        active[0]["what"],
        "WARN thermostat-7 temperature 33 Cel: above 30"
    );
}
