//! The recorder, listed and tried with other rules while the real process runs.

use std::path::Path;

use rumqttc::QoS;
use tokio::process::Command;

use super::{
    PATIENCE,
    device::{Device, Version},
    parts::{Gateway, Site, until},
};

async fn tidegate(arguments: &[&str], config: &Path) -> String {
    let ran = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(arguments)
        .arg("--config")
        .arg(config)
        .output()
        .await
        .expect("it runs");
    let said = String::from_utf8(ran.stderr).expect("UTF-8");
    assert!(ran.status.success(), "{arguments:?}: {said}");
    // Until the first readings are written, that is said.
    let is_early = said.starts_with("tidegate: no reading is recorded");
    assert!(
        said.is_empty() || is_early,
        "{arguments:?} warns of nothing: {said}"
    );
    String::from_utf8(ran.stdout).expect("UTF-8")
}

/// The lines of the CSV export, once they are so many.
async fn rows(site: &Site, count: usize) -> Vec<String> {
    let dir = site.folder.path().join("journal-readings");
    let recorded = async || {
        if !dir.exists() {
            return None;
        }
        let csv = tidegate(&["readings", "--format", "csv"], &site.config()).await;
        let rows: Vec<String> = csv.lines().skip(1).map(str::to_owned).collect();
        (rows.len() >= count).then_some(rows)
    };
    until(PATIENCE, recorded, || format!("{count} readings are recorded")).await
}

fn without_times(shown: &str) -> Vec<String> {
    shown
        .lines()
        .map(|line| match line.split_once("Z  ") {
            Some((mark, rest)) => format!(
                "{} {}",
                mark.split(' ').next().unwrap_or_default(),
                rest.split_whitespace().collect::<Vec<_>>().join(" ")
            ),
            None => line.to_owned(),
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn readings_are_recorded_listed_and_tried_with_other_rules_while_the_gateway_runs() {
    let site = Site::new().recorder("4MiB");
    let mut gateway = Gateway::start(&site).await;
    let mut device = Device::new(Version::V5, QoS::AtLeastOnce, gateway.door, "thermostat-7");
    for payload in [r#"{"temp": 31.25}"#, r#"{"temp": 27}"#] {
        device.publish_until_acknowledged(&[payload]).await;
    }
    let recorded = rows(&site, 2).await;
    assert_eq!(recorded.len(), 2);
    assert!(
        recorded[0].contains(",thermostat-7,temperature,31.25,Cel,false,"),
        "{recorded:?}"
    );

    // What was written before a kill stays, and the next run goes on in the same file.
    gateway.kill().await;
    gateway.restart(&site).await;
    device.publish_until_acknowledged(&[r#"{"temp": 35}"#]).await;
    let recorded = rows(&site, 3).await;
    assert_eq!(recorded.len(), 3);

    let json = tidegate(
        &[
            "readings", "--format", "jsonl", "--device", "thermo*", "--from", "1h",
        ],
        &site.config(),
    )
    .await;
    let last: serde_json::Value = serde_json::from_str(json.lines().last().expect("a line")).expect("JSON");
    assert_eq!(
        (&last["value"], &last["unit"]),
        (&35.0.into(), &"Cel".into()),
        "{last}"
    );

    let same = site.folder.path().join("same.toml");
    let rule =
        "[[rule]]\nevent = \"HighTemperature\"\nmetric = \"temperature\"\nabove = 30.0\nclear = 28.0\n";
    std::fs::write(&same, rule).expect("written");
    let same = same.display().to_string();
    let shown = tidegate(&["backtest", "--rules", &same], &site.config()).await;
    assert_eq!(
        without_times(&shown),
        [
            "= HighTemperature thermostat-7 value 31.25",
            "= HighTemperatureCleared thermostat-7 value 27",
            "= HighTemperature thermostat-7 value 35",
            "",
            "3 readings; = 3 as it was, + 0 only with these rules, - 0 only as it was",
        ]
    );

    let other = site.folder.path().join("other.toml");
    let rules = rule.replace("clear = 28.0", "clear = 20.0")
        + "[[rule]]\nevent = \"VeryHot\"\nmetric = \"temperature\"\nabove = 34.0\n";
    std::fs::write(&other, rules).expect("written");
    let other = other.display().to_string();
    let shown = tidegate(&["backtest", "--rules", &other], &site.config()).await;
    // What comes at one time comes in the order of the clock's microseconds: a list without it.
    let mut lines = without_times(&shown);
    lines.sort();
    assert_eq!(
        lines,
        [
            "",
            "+ VeryHot thermostat-7 value 35",
            "- HighTemperature thermostat-7 value 35",
            "- HighTemperatureCleared thermostat-7 value 27",
            "3 readings; = 1 as it was, + 1 only with these rules, - 2 only as it was",
            "= HighTemperature thermostat-7 value 31.25",
        ]
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorder_that_cannot_write_keeps_nobody_waiting() {
    let site = Site::new().recorder("4MiB");
    std::fs::write(site.folder.path().join("journal-readings"), "in the way").expect("written");
    let gateway = Gateway::start(&site).await;
    let mut device = Device::new(Version::V311, QoS::AtLeastOnce, gateway.door, "thermostat-7");
    device
        .publish_until_acknowledged(&[r#"{"temp": 31}"#, r#"{"temp": 27}"#])
        .await;
    gateway.stop().await;
}
