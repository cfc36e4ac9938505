//! Webhooks: what the official CloudEvents SDKs' HTTP receivers make of each form, and what becomes of events while
//! one is away, killed, or refuses us.

use std::path::{Path, PathBuf};

use rumqttc::QoS;
use serde_json::Value;
use tokio::process::Command;

use super::{
    contract,
    device::{Device, Version},
    parts::{Gateway, Site},
    sdks::{Receiver, assert_same, here, one_alarm_at, python},
    text,
};

const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A webhook, and where it listens.
async fn listening(command: Command) -> (Receiver, u16) {
    let mut receiver = Receiver::spawn(command);
    let line = receiver.line().await;
    let port = line.strip_prefix("listening ").expect("says so");
    let port = port.parse().expect("a port");
    (receiver, port)
}

/// It answers only what is signed with the key in this file. Port 0: any.
async fn in_python(port: u16, key: &Path) -> (Receiver, u16) {
    let mut command = python();
    command.arg(here("tests/contract/webhook.py"));
    command.arg(port.to_string()).arg(key);
    listening(command).await
}

async fn in_node() -> (Receiver, u16) {
    let mut command = Command::new("node");
    command
        .arg(here("tests/contract/webhook.cjs"))
        .env("NODE_PATH", here("target/tools/node/node_modules"));
    listening(command).await
}

fn key_file(folder: &Path, key: &str) -> PathBuf {
    let path = folder.join("webhook.key");
    std::fs::write(&path, key).expect("written");
    path
}

/// A table of the configuration.
pub(crate) fn sink(name: &str, port: u16, keys: &str) -> String {
    format!("[[sink.http]]\nname = \"{name}\"\nurl = \"http://127.0.0.1:{port}/in\"\n{keys}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_sdks_webhooks_read_every_form_and_the_official_library_verifies_each_signature() {
    for (form, content_type) in [
        ("", "application/cloudevents+json"),
        ("mode = \"binary\"", "application/json"),
        (
            "mode = \"batched\"\ncompression = \"gzip\"",
            "application/cloudevents-batch+json",
        ),
    ] {
        let site = Site::new();
        let key = key_file(site.folder.path(), KEY);
        let signed = format!("{form}\nsigning-key-file = \"{}\"", key.display());
        let ((python, at_python), (node, at_node)) = (in_python(0, &key).await, in_node().await);
        let site = site
            .tables(&sink("python", at_python, &signed))
            .tables(&sink("node", at_node, form));
        let (gateway, said) = one_alarm_at(&site).await;
        assert!(said.len() >= 2);
        let official = contract::official();
        for mut receiver in [python, node] {
            for said in &said {
                assert!(official.is_valid(said), "{said:#}");
                let read = loop {
                    let read = receiver.event().await;
                    assert_eq!(read["form"], content_type);
                    // GatewayStarted was before the door had a subscriber.
                    if read.pointer("/attributes/id") == said.get("id") {
                        break read;
                    }
                };
                assert_same(&read, said, content_type);
            }
        }
        gateway.stop().await;
    }
}

/// An event's sequence, with the one before it in its chain; none: it was refused.
fn place(event: &Value) -> Option<(u64, u64)> {
    let number = |name: &str| {
        let text = text(event, &format!("/attributes/{name}"));
        text.parse().expect("a number")
    };
    let is_refused = event.get("refused").is_some();
    (!is_refused).then(|| (number("sequence"), number("previoussequence")))
}

/// Its events until it has this one: the sequences, each with the one before it in its chain.
async fn until(receiver: &mut Receiver, wanted: impl Fn(&Value) -> bool) -> Vec<(u64, u64)> {
    let mut seen = Vec::new();
    loop {
        let event = receiver.event().await;
        seen.extend(place(&event));
        if wanted(&event) {
            return seen;
        }
    }
}

fn clears(event: &Value, value: f64) -> bool {
    event.pointer("/attributes/transition") == Some(&"cleared".into())
        && event.pointer("/data/value") == Some(&value.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_is_killed_and_comes_back_misses_nothing_also_when_the_gateway_was_killed_meanwhile() {
    for mode in ["structured", "batched"] {
        let site = Site::new();
        let key = key_file(site.folder.path(), KEY);
        let (mut receiver, port) = in_python(0, &key).await;
        let keys = format!("mode = \"{mode}\"\nsigning-key-file = \"{}\"", key.display());
        let site = site.tables(&sink("hooks", port, &keys));
        let mut gateway = Gateway::start(&site).await;
        let mut seen = Vec::new();
        for round in 0..3 {
            let mut device = Device::new(Version::V5, QoS::AtLeastOnce, gateway.door, "thermostat-7");
            let flapping = [r#"{"temp": 31.0}"#, r#"{"temp": 27.0}"#].repeat(10);
            device.publish_until_acknowledged(&flapping).await;
            let last = 20.0 + f64::from(round);
            // In the middle of what comes it is killed: what it has said it may be sent again.
            seen.extend(until(&mut receiver, |event| clears(event, 27.0)).await);
            seen.extend(receiver.kill().await.iter().filter_map(place));
            device.publish_until_acknowledged(&flapping).await;
            let end = [r#"{"temp": 31.0}"#.to_owned(), format!(r#"{{"temp": {last}}}"#)];
            let end: Vec<&str> = end.iter().map(String::as_str).collect();
            device.publish_until_acknowledged(&end).await;
            if round == 1 {
                gateway.kill().await;
                gateway.restart(&site).await;
            }
            (receiver, _) = in_python(port, &key).await;
            seen.extend(until(&mut receiver, |event| clears(event, last)).await);
        }
        gateway.stop().await;
        let mut highest = 0;
        for (sequence, previous) in seen {
            if sequence > highest {
                assert_eq!(
                    (sequence, previous),
                    (highest + 1, highest),
                    "{mode}: first sends have no gap"
                );
                highest = sequence;
            }
        }
        assert!(highest >= 3 * 42, "{mode}: {highest}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_is_not_believed_waits_and_a_reload_with_the_right_key_brings_everything() {
    let site = Site::new();
    let right = key_file(site.folder.path(), KEY);
    let theirs = site.folder.path().join("theirs.key");
    std::fs::copy(&right, &theirs).expect("copied");
    let wrong = KEY.replace("whsec_M", "whsec_N");
    std::fs::write(&right, wrong).expect("written");
    let (mut receiver, port) = in_python(0, &theirs).await;
    let keys = format!("signing-key-file = \"{}\"", right.display());
    let site = site.tables(&sink("hooks", port, &keys));
    let gateway = Gateway::start(&site).await;
    let mut device = Device::new(Version::V5, QoS::AtLeastOnce, gateway.door, "thermostat-7");
    device
        .publish_until_acknowledged(&[r#"{"temp": 31.0}"#, r#"{"temp": 27.0}"#])
        .await;

    for _ in 0..2 {
        // No event: what it cannot verify it does not read.
        assert_eq!(receiver.event().await["refused"], "No matching signature found");
    }
    std::fs::copy(&theirs, &right).expect("copied");
    site.done(&["reload"]).await;
    let seen = until(&mut receiver, |event| clears(event, 27.0)).await;
    assert_eq!(seen.first().map(|(sequence, _)| *sequence), Some(1));
    gateway.stop().await;
}
