//! A journal that is full, or too old, with sinks of different lag: who loses what is named exactly, and nobody loses
//! what the policy keeps for him.

use std::{collections::BTreeSet, path::Path};

use rumqttc::QoS;
use serde_json::Value;
use tokio::time::timeout;

use super::{
    PATIENCE,
    cloud::Cloud,
    device::{Device, Version},
    endpoint::sequence,
    own_events::is,
    parts::{Cable, Gateway, Mosquitto, Site},
    text,
    wall_clock::Board,
};

/// A sink: its broker, the cable to it, and who subscribes there.
struct Sink {
    name: &'static str,
    _broker: Mosquitto,
    cable: Cable,
    cloud: Cloud,
}

impl Sink {
    async fn new(name: &'static str) -> Self {
        let broker = Mosquitto::start().await;
        Self {
            name,
            cable: Cable::to(broker.port).await,
            cloud: Cloud::subscribe(broker.port).await,
            _broker: broker,
        }
    }

    fn table(&self, keys: &str) -> String {
        format!(
            "[[sink.mqtt]]\nname = \"{}\"\nurl = \"mqtt://127.0.0.1:{}\"\n{keys}\n",
            self.name, self.cable.port
        )
    }

    /// Waits until its subscriber has this one.
    async fn has(&self, number: u64) {
        self.cloud
            .wait_until(|seen| seen.iter().rev().any(|event| sequence(event) == number))
            .await;
    }

    fn newest(&self) -> u64 {
        self.cloud
            .distinct()
            .iter()
            .map(sequence)
            .max()
            .expect("some came")
    }

    /// What its subscriber did not get.
    fn lacks(&self, newest: u64) -> BTreeSet<u64> {
        let mut lacks: BTreeSet<u64> = (1..=newest).collect();
        for event in self.cloud.distinct() {
            lacks.remove(&sequence(&event));
        }
        lacks
    }

    /// What its subscriber was told that `sink` will not get, and why.
    fn told_of(&self, sink: &str) -> (BTreeSet<u64>, BTreeSet<String>) {
        let (mut numbers, mut reasons) = (BTreeSet::new(), BTreeSet::new());
        for event in self
            .cloud
            .distinct()
            .iter()
            .filter(|event| is("EventsDiscarded")(event))
        {
            let data = &event["data"];
            let ranges: Vec<(u64, u64)> = serde_json::from_value(data["ranges"].clone()).expect("ranges");
            let count: u64 = ranges.iter().map(|(from, to)| to - from + 1).sum();
            assert_eq!(data["count"], count, "{event}");
            let sinks = data["sinks"].as_array().expect("a list");
            if sinks.iter().any(|name| name == sink) {
                numbers.extend(ranges.into_iter().flat_map(|(from, to)| from..=to));
                reasons.insert(text(data, "/reason").to_owned());
            }
        }
        (numbers, reasons)
    }
}

/// Up to this event each of them has got what it was to get: and whoever lacks something was told exactly what, as was
/// everybody else. What each lacks.
fn assert_named_exactly<const N: usize>(sinks: [&Sink; N], newest: u64, why: &str) -> [BTreeSet<u64>; N] {
    sinks.map(|sink| {
        let lacks = sink.lacks(newest);
        for witness in sinks {
            let (told, reasons) = witness.told_of(sink.name);
            assert_eq!(told, lacks, "{} was told of {}", witness.name, sink.name);
            assert!(reasons.iter().all(|reason| reason == why), "{reasons:?}");
        }
        sink.cloud.assert_first_sends_in_order();
        lacks
    })
}

/// A site whose events are large, so that its journal of 8 MiB is soon full.
fn site(journal: &'static str, sinks: &str) -> Site {
    let mut site = Site::new()
        .rule(&format!("labels = {{ note = \"{}\" }}", "n".repeat(4_000)))
        .tables(sinks);
    site.max_bytes = "8MiB";
    site.journal = journal;
    site
}

fn thermostat(gateway: &Gateway) -> Device {
    Device::new(Version::V311, QoS::AtLeastOnce, gateway.door, "thermostat-7")
}

/// Raises and clears ten alarms.
async fn alarms(device: &mut Device) {
    let flapping = [r#"{"temp": 31.0}"#, r#"{"temp": 27.0}"#].repeat(10);
    device.publish_until_acknowledged(&flapping).await;
}

/// Waits until both have so many alarms and the gateway knows it; up to which event that is.
async fn confirmed(site: &Site, live: &Sink, near: &Sink, alarms: usize) -> u64 {
    let cleared = |seen: &[Value]| {
        seen.iter()
            .filter(|event| event["transition"] == "cleared")
            .count()
    };
    live.cloud.wait_until(|seen| cleared(seen) == alarms).await;
    let newest = live.newest();
    let knows = async {
        loop {
            let status = status(site).await;
            let mut sinks = status["sinks"].as_array().expect("a list").iter();
            let sink = sinks
                .find(|sink| sink["name"] == near.name)
                .expect("it is configured");
            if sink["delivered"].as_u64() >= Some(newest) {
                return newest;
            }
        }
    };
    timeout(PATIENCE, knows).await.expect("it is confirmed in time")
}

async fn status(site: &Site) -> Value {
    let (_, status, _) = site.ask(&["status", "--format", "json"]).await;
    serde_json::from_str(&status).expect("JSON")
}

/// One alarm more; its number. When those that are there have it, the cables of the others are mended, and they get it,
/// too. Not before: what makes room while it is on its way is named to a sink whose answer has not come yet.
async fn last_alarm(device: &mut Device, there: &[&Sink], away: &[&Sink]) -> u64 {
    device
        .publish_until_acknowledged(&[r#"{"temp": 27.0}"#, r#"{"temp": 99.0}"#])
        .await;
    let last = there[0]
        .cloud
        .wait_for(|event| event["data"]["value"] == 99.0)
        .await;
    let last = sequence(&last);
    for sink in there {
        sink.has(last).await;
    }
    for sink in away {
        sink.cable.mend();
    }
    for sink in away {
        sink.has(last).await;
    }
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn drop_oldest_costs_only_the_sink_that_is_behind_and_names_exactly_what_it_did_not_get() {
    let (live, far) = (Sink::new("live").await, Sink::new("far").await);
    far.cable.cut();
    let site = site("", &[live.table(""), far.table("")].concat());
    let gateway = Gateway::start(&site).await;
    let mut device = thermostat(&gateway);
    let filling = async {
        while live.cloud.count(is("EventsDiscarded")) < 3 {
            alarms(&mut device).await;
        }
    };
    timeout(4 * PATIENCE, filling).await.expect("8 MiB are soon full");
    let last = last_alarm(&mut device, &[&live], &[&far]).await;
    let [lost_live, lost_far] = assert_named_exactly([&live, &far], last, "journal-full");
    assert!(lost_live.is_empty() && lost_far.len() > 100, "{lost_live:?}");

    assert_eq!(status(&site).await["losses"]["events_discarded"], lost_far.len());
    let (code, screen, _) = site.ask(&["status"]).await;
    let count = lost_far.len();
    assert_eq!(code, Some(1), "somebody must know");
    let trouble = format!("\n! events were discarded since the start before every sink had them: {count}; ");
    assert!(screen.contains(&trouble), "{screen}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drop_oldest_names_to_each_of_two_sinks_that_are_behind_its_own_loss() {
    let (live, near, far) = (
        Sink::new("live").await,
        Sink::new("near").await,
        Sink::new("far").await,
    );
    far.cable.cut();
    let site = site("", &[live.table(""), near.table(""), far.table("")].concat());
    let gateway = Gateway::start(&site).await;
    let mut device = thermostat(&gateway);
    for _ in 0..5 {
        alarms(&mut device).await;
    }
    let had = confirmed(&site, &live, &near, 5 * 10).await;
    near.cable.cut();
    let of_near = |event: &Value| {
        let sinks = event["data"]["sinks"].as_array();
        is("EventsDiscarded")(event) && sinks.is_some_and(|sinks| sinks.contains(&"near".into()))
    };
    let filling = async {
        while live.cloud.count(of_near) < 2 {
            alarms(&mut device).await;
        }
    };
    timeout(4 * PATIENCE, filling).await.expect("8 MiB are soon full");
    let last = last_alarm(&mut device, &[&live], &[&near, &far]).await;
    let [lost_live, lost_near, lost_far] = assert_named_exactly([&live, &near, &far], last, "journal-full");
    assert!(lost_live.is_empty() && !lost_near.is_empty());
    assert!(lost_near.iter().all(|lost| *lost > had) && lost_near.is_subset(&lost_far));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refuse_drops_what_only_others_lack_and_waits_for_what_a_required_sink_lacks() {
    let (live, near, far) = (
        Sink::new("live").await,
        Sink::new("near").await,
        Sink::new("far").await,
    );
    far.cable.cut();
    let sinks = [
        live.table(""),
        near.table("required = true"),
        far.table("required = false"),
    ];
    let site = site("when-full = \"refuse\"", &sinks.concat());
    let gateway = Gateway::start(&site).await;
    let mut device = thermostat(&gateway);
    for _ in 0..10 {
        alarms(&mut device).await;
    }
    let had = confirmed(&site, &live, &near, 10 * 10).await;
    near.cable.cut();
    // Until what `near` lacks fills it: then a device waits for its answer.
    let parked = async {
        loop {
            if status(&site).await["journal"]["parked"] == true {
                return;
            }
        }
    };
    let filling = async {
        loop {
            alarms(&mut device).await;
        }
    };
    let full = async {
        tokio::select! {
            () = parked => {}
            () = filling => {}
        }
    };
    timeout(4 * PATIENCE, full).await.expect("8 MiB are soon full");
    let (gone, _) = live.told_of("far");
    assert!(
        gone.len() > 100 && gone.iter().all(|lost| *lost <= had),
        "what near has and far lacks, and no more: {gone:?} {had}"
    );
    assert!(live.newest() > had + 100);
    let (code, screen, _) = site.ask(&["status"]).await;
    assert_eq!(code, Some(1));
    assert!(
        screen.contains("\n! the journal is full: nothing is evaluated; "),
        "{screen}"
    );

    // A connection of its own: the old one's answers are still to come.
    let mut device = thermostat(&gateway);
    near.cable.mend();
    let last = last_alarm(&mut device, &[&live, &near], &[&far]).await;
    let [lost_live, lost_near, lost_far] = assert_named_exactly([&live, &near, &far], last, "journal-full");
    assert!(lost_live.is_empty() && lost_near.is_empty() && lost_far.is_superset(&gone));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn max_age_costs_only_the_sink_that_is_behind_and_names_exactly_what_it_did_not_get() {
    let (live, far) = (Sink::new("live").await, Sink::new("far").await);
    far.cable.cut();
    let site = site("max-age = \"1d\"", &[live.table(""), far.table("")].concat());
    let board = Board::synchronised(site.folder.path()).await;
    let gateway = board.start(&site).await;
    let mut before = thermostat(&gateway);
    // Four segments and more.
    for _ in 0..15 {
        alarms(&mut before).await;
    }
    gateway.stop().await;
    board.sets("+3d");
    let gateway = board.start(&site).await;
    live.cloud.wait_for(is("EventsDiscarded")).await;
    let mut after = thermostat(&gateway);
    let last = last_alarm(&mut after, &[&live], &[&far]).await;
    let [lost_live, lost_far] = assert_named_exactly([&live, &far], last, "max-age");
    assert!(lost_live.is_empty() && lost_far.len() > 100, "{lost_far:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_says_what_it_no_longer_finds() {
    let live = Sink::new("live").await;
    let site = site("", &live.table(""));
    let gateway = Gateway::start(&site).await;
    let mut device = thermostat(&gateway);
    // All of it is delivered: the oldest of it goes for what comes.
    let journal = site.folder.path().join("journal");
    while first_kept(&journal).await == 1 {
        alarms(&mut device).await;
    }
    let newest = live.newest();
    let kept = first_kept(&journal).await;
    let said = site
        .done(&["journal", "replay", "--sink", "live", "--from", "1"])
        .await;
    assert!(said.contains(&format!("-{kept:020} on, ")), "{kept}: {said}");
    let gone = format!("; 1 to {} are no longer kept", kept - 1);
    assert!(said.trim_end().ends_with(&gone), "{said}");
    let again = |seen: &[Value]| seen.iter().filter(|event| sequence(event) == newest).count() == 2;
    live.cloud.wait_until(again).await;
    assert_eq!(live.cloud.count(is("EventsDiscarded")), 0);
    gateway.stop().await;
}

/// The first event that the journal has.
async fn first_kept(journal: &Path) -> u64 {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command
        .args(["journal", "ls", "--format", "json", "--dir"])
        .arg(journal);
    let output = command.output().await.expect("it runs");
    let listed: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    listed["epochs"][0]["first"].as_u64().expect("a number")
}
