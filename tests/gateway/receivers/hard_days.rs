//! Both receivers behind a real gateway and a real broker on their bad days. A recorder that nobody cuts or kills is
//! the truth: what the receivers handled, and what they say is open, must be what it saw.

use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use rumqttc::QoS;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        cloud::Cloud,
        device::{Device, Version},
        parts::{Cable, Gateway, Mosquitto, Site, until},
        text,
    },
    Receiver, both,
};

/// A gateway behind a cable to a broker, a recorder and both receivers, all from the first event on.
struct Day {
    /// None in the evening.
    gateway: Option<Gateway>,
    door: u16,
    site: Site,
    cable: Cable,
    recorder: Cloud,
    receivers: [Receiver; 2],
    _broker: Mosquitto,
}

/// What the gateway calls itself as long as nobody says otherwise.
const SOURCE: &str = "urn:tidegate:gateway:plantroom-1";
const HOT: &str = r#"{"temp": 31.0}"#;
const COOL: &str = r#"{"temp": 20.0}"#;

impl Day {
    async fn new(change: impl FnOnce(Site) -> Site) -> Self {
        Self::behind(Mosquitto::start().await, change).await
    }

    async fn behind(broker: Mosquitto, change: impl FnOnce(Site) -> Site) -> Self {
        let recorder = Cloud::subscribe(broker.port).await;
        let cable = Cable::to(broker.port).await;
        let site = change(Site::new().uplink(cable.port, "5"));
        let receivers = both(site.folder.path(), broker.port).await;
        let gateway = Gateway::start(&site).await;
        Self {
            door: gateway.door,
            gateway: Some(gateway),
            site,
            cable,
            recorder,
            receivers,
            _broker: broker,
        }
    }

    fn device(&self, name: &str) -> Device {
        Device::new(Version::V5, QoS::AtLeastOnce, self.door, name)
    }

    async fn kill_the_gateway(&mut self) {
        self.gateway.as_mut().expect("it runs").kill().await;
    }

    async fn start_the_gateway(&mut self) {
        self.gateway = Some(Gateway::start(&self.site).await);
    }

    /// Until the recorder has what `what` looks for, and both receivers are done with all that the recorder saw.
    async fn settle(&self, what: impl Fn(&Value) -> bool) {
        self.recorder.wait_for(what).await;
        for receiver in &self.receivers {
            let level = || self.truth().is_subset(&receiver.handled_once()) && receiver.has_stored();
            receiver.until("level with the recorder", level).await;
        }
    }

    /// The gateway stops, so that nothing comes any more. Then both have handled what the recorder saw, each event once
    /// and none else, keep the same state, say that nothing is missing, and call open what the gateway does: these devices' alarms.
    async fn ends_complete_with_open(&mut self, devices: &[&str]) {
        let at_the_gateway = self.open_at_the_gateway().await;
        self.gateway.take().expect("it runs").stop().await;
        self.settle(|event| event["type"] == "io.tidegate.gateway.GatewayStopped")
            .await;
        self.assert_they_agree_with_the_recorder();
        self.assert_complete().await;
        self.assert_open(devices);
        for receiver in &self.receivers {
            let state = receiver.state();
            let open: BTreeSet<String> = open(&state).map(|(id, _)| id.clone()).collect();
            assert_eq!(open, at_the_gateway, "{:?}", receiver.language);
        }
    }

    /// The ids that a perfect receiver has.
    fn truth(&self) -> HashSet<String> {
        let distinct = self.recorder.distinct();
        distinct
            .iter()
            .map(|event| text(event, "/id").to_owned())
            .collect()
    }

    fn assert_they_agree_with_the_recorder(&self) {
        let truth = self.truth();
        let [python, rust] = &self.receivers;
        for receiver in &self.receivers {
            let handled = receiver.handled_once();
            assert!(
                handled == truth,
                "{:?}: not handled {:?}, handled and never sent {:?}",
                receiver.language,
                truth.difference(&handled).collect::<Vec<_>>(),
                handled.difference(&truth).collect::<Vec<_>>()
            );
        }
        assert_eq!(timeless(python.state()), timeless(rust.state()));
    }

    /// Waits until nothing is missing.
    async fn completes(&self) {
        for receiver in &self.receivers {
            let is_complete = async || receiver.report().await.1.then_some(());
            let why_not = || format!("{:?} misses something: {}", receiver.language, receiver.said());
            until(super::PATIENCE, is_complete, why_not).await;
        }
    }

    async fn assert_complete(&self) {
        for receiver in &self.receivers {
            let (said, complete) = receiver.report().await;
            assert!(complete, "{:?}: {said:#?}", receiver.language);
        }
    }

    /// Of the current epoch exactly these devices' alarms are open.
    fn assert_open(&self, devices: &[&str]) {
        for receiver in &self.receivers {
            let state = receiver.state();
            let open: BTreeSet<&str> = open(&state)
                .filter_map(|(_, episode)| text(episode, "/summary").split(':').next())
                .collect();
            assert_eq!(open, devices.iter().copied().collect(), "{:?}", receiver.language);
        }
    }

    /// The ids that the gateway itself calls open.
    async fn open_at_the_gateway(&self) -> BTreeSet<String> {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command
            .args(["events", "--active", "--json"])
            .env_remove("RUNTIME_DIRECTORY")
            .env("STATE_DIRECTORY", self.site.folder.path());
        // Its door is open a moment before its socket is there.
        let asking = async {
            loop {
                let output = command.output().await.expect("it runs");
                if output.status.success() {
                    return output;
                }
            }
        };
        let output = tokio::time::timeout(super::PATIENCE, asking)
            .await
            .expect("it answers");
        let active: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let alarms = active["alarms"].as_array().expect("a list").iter();
        alarms.map(|alarm| text(alarm, "/id").to_owned()).collect()
    }
}

/// The alarms that a receiver's state says are open, of the current epoch.
fn open(state: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let source = state["sources"].as_object().and_then(|all| all.values().next());
    let current = |source: &Value| source["current"].as_str().map(str::to_owned);
    let epoch = source.and_then(|source| source["epochs"].get(current(source)?));
    let episodes = epoch.and_then(|epoch| epoch["episodes"].as_object());
    episodes
        .expect("one source")
        .iter()
        .filter(|(_, episode)| episode["open"] == true)
}

/// A receiver's state without what depends on when it heard of it.
fn timeless(mut state: Value) -> Value {
    let sources = state["sources"].as_object_mut().expect("sources");
    for source in sources.values_mut() {
        source["heard"] = Value::Null;
        for epoch in source["epochs"].as_object_mut().expect("epochs").values_mut() {
            for gap in epoch["gaps"].as_array_mut().expect("gaps") {
                gap[2] = Value::Null;
            }
        }
    }
    state["handled_bytes"] = Value::Null;
    state
}

/// Raises and clears, no faster than receivers can follow.
async fn now_and_then(mut device: Device, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    while !stop.is_cancelled() {
        ticks.tick().await;
        device.publish_until_acknowledged(&[HOT, COOL]).await;
    }
}

fn number(event: &Value) -> u64 {
    text(event, "/sequence").parse().expect("digits")
}

#[tokio::test(flavor = "multi_thread")]
async fn receivers_handle_every_event_once_over_redeliveries_and_kills_of_the_gateway_and_of_themselves() {
    let mut random = fastrand::Rng::new();
    let mut day = Day::new(|site| site).await;
    let rounds = if std::env::var_os("TIDEGATE_LONG").is_some() {
        100
    } else {
        12
    };
    // Something is on its way whenever the cable or a process goes.
    let stop = CancellationToken::new();
    let mut devices = JoinSet::new();
    for name in ["one", "two"] {
        devices.spawn(now_and_then(day.device(name), stop.clone()));
    }
    for round in 0..rounds {
        // Not a wait for anything: the moment of the fault is what this test draws at random.
        let moment = tokio::time::Instant::now() + Duration::from_millis(random.u64(0..100));
        tokio::time::sleep_until(moment).await;
        let seen = day.recorder.count(|_| true);
        match round % 4 {
            // What is published and not acknowledged is published again.
            0 => {
                day.cable.deafen();
                day.recorder.wait_until(|events| events.len() > seen).await;
                day.cable.cut();
                day.cable.mend();
            }
            1 => {
                day.kill_the_gateway().await;
                day.start_the_gateway().await;
            }
            // In the middle of what comes, and more comes while it is away.
            other => {
                let receiver = &mut day.receivers[other - 2];
                day.recorder.wait_until(|events| events.len() > seen).await;
                receiver.kill().await;
                day.recorder.wait_until(|events| events.len() > seen + 8).await;
                receiver.start_again();
            }
        }
    }
    stop.cancel();
    while let Some(done) = devices.join_next().await {
        done.expect("a device does not panic");
    }
    day.device("one").publish_until_acknowledged(&[HOT]).await;
    day.device("last").publish_until_acknowledged(&[HOT]).await;
    day.settle(|event| event["data"]["device"]["id"] == "last").await;

    let (sent, distinct) = (day.recorder.count(|_| true), day.truth().len());
    assert!(sent > distinct, "nothing was sent twice: {sent}");
    assert!(day.receivers[0].said().contains(": duplicate"));
    day.recorder.assert_no_unexplained_gap();
    day.ends_complete_with_open(&["last", "one"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_full_journal_drops_is_no_open_gap_once_the_gateway_has_said_so() {
    // Events so large that some hundred of them fill the smallest journal.
    let mut day = Day::new(|mut site| {
        site.max_bytes = "8MiB";
        site.rule(&format!("runbook = \"{}\"", "x".repeat(30_000)))
    })
    .await;
    let mut device = day.device("one");
    device.publish_until_acknowledged(&[HOT]).await;
    let mut soon_well = day.device("soon well");
    soon_well.publish_until_acknowledged(&[HOT]).await;
    day.settle(|event| event["data"]["device"]["id"] == "soon well")
        .await;

    day.cable.cut();
    soon_well.publish_until_acknowledged(&[COOL]).await;
    for _ in 0..250 {
        device.publish_until_acknowledged(&[COOL, HOT]).await;
    }
    day.device("last").publish_until_acknowledged(&[HOT]).await;
    day.cable.mend();
    day.settle(|event| event["type"] == "io.tidegate.gateway.EventsDiscarded")
        .await;
    day.settle(|event| event["data"]["device"]["id"] == "last").await;

    day.recorder.assert_no_unexplained_gap();
    let highest = day.recorder.distinct().iter().map(number).max().expect("some");
    assert!(
        day.truth().len() + 100 < usize::try_from(highest).expect("small"),
        "too little was dropped"
    );
    // The clear of one alarm was dropped, and a receiver knows that its list may be wrong: until the gateway's own.
    let doubts = |lines: &[String]| {
        lines
            .iter()
            .any(|line| line.contains("certain with the next ActiveAlarms"))
    };
    for receiver in &day.receivers {
        let (said, complete) = receiver.report().await;
        assert!(complete && doubts(&said), "{said:#?}");
    }
    day.assert_open(&["last", "one", "soon well"]);
    day.kill_the_gateway().await;
    day.start_the_gateway().await;
    day.ends_complete_with_open(&["last", "one"]).await;
    for receiver in &day.receivers {
        let (said, _) = receiver.report().await;
        assert!(!doubts(&said), "{said:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_filter_left_out_before_a_loss_is_no_open_gap_once_the_gateway_has_said_so() {
    let day = Day::new(|mut site| {
        site.max_bytes = "8MiB";
        let site = site.sink("devices = [\"ours*\"]\nmin-severity = \"warning\"");
        site.rule(&format!("runbook = \"{}\"", "x".repeat(30_000)))
    })
    .await;
    let is = |event: &Value, device, transition| {
        event["data"]["device"]["id"] == device && event["transition"] == transition
    };
    let (mut ours, mut other) = (day.device("ours"), day.device("other"));
    ours.publish_until_acknowledged(&[HOT]).await;
    day.settle(|event| is(event, "ours", "raised")).await;
    // These do not pass: the sink has them behind it, and no event has said so.
    other.publish_until_acknowledged(&[HOT, COOL, HOT, COOL]).await;
    day.cable.cut();
    ours.publish_until_acknowledged(&[COOL]).await;
    for _ in 0..250 {
        other.publish_until_acknowledged(&[HOT, COOL]).await;
    }
    ours.publish_until_acknowledged(&[HOT]).await;
    day.device("ours too").publish_until_acknowledged(&[HOT]).await;
    day.cable.mend();
    day.settle(|event| is(event, "ours too", "raised")).await;
    let lost = |event: &Value| event["data"]["reason"] == "journal-full";
    day.settle(lost).await;
    let explained = |event: &Value| event["data"]["reason"] == "gap";
    day.settle(explained).await;
    // The gap may have been told in parts: what was lost after the sink had come to it.
    day.completes().await;
    day.assert_they_agree_with_the_recorder();
    for receiver in &day.receivers {
        let state = receiver.state();
        let epochs = state["sources"][SOURCE]["epochs"].as_object().expect("one");
        assert!(epochs.values().all(|epoch| epoch["lost"] != 0), "{state}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broker_drops_of_an_absent_receivers_queue_is_reported_as_missing() {
    let mut day = Day::behind(Mosquitto::start_with_queues_of(10).await, |site| site).await;
    let mut device = day.device("one");
    device.publish_until_acknowledged(&[HOT]).await;
    day.settle(|event| event["transition"] == "raised").await;

    for receiver in &mut day.receivers {
        receiver.kill().await;
    }
    let cleared = |seen: &[Value]| seen.iter().filter(|e| e["transition"] == "cleared").count();
    for round in 1..=30 {
        device.publish_until_acknowledged(&[COOL, HOT]).await;
        day.recorder.wait_until(|seen| cleared(seen) >= round).await;
    }
    for receiver in &mut day.receivers {
        receiver.start_again();
    }
    let truth = |day: &Day| {
        day.recorder
            .distinct()
            .iter()
            .map(number)
            .collect::<BTreeSet<u64>>()
    };
    let newest = |day: &Day| truth(day).last().copied().unwrap_or_default();
    for receiver in &day.receivers {
        // Their queues are empty when what is new comes through.
        let current = || {
            let handled = receiver.handled();
            handled.last().map(number) == Some(newest(&day)) && receiver.has_stored()
        };
        let again = async {
            // Half as often each time: a receiver that is slower than the bell would never be level with it.
            let mut pause = Duration::from_millis(300);
            while !current() {
                day.device("bell").publish_until_acknowledged(&[HOT, COOL]).await;
                let heard = async {
                    while !current() {
                        tokio::task::yield_now().await;
                    }
                };
                _ = tokio::time::timeout(pause, heard).await.is_ok();
                pause *= 2;
            }
        };
        tokio::time::timeout(super::PATIENCE, again)
            .await
            .expect("it gets what is new");
        let handled: BTreeSet<u64> = receiver.handled().iter().map(number).collect();
        let missing: BTreeSet<u64> = truth(&day).difference(&handled).copied().collect();
        assert!(missing.len() >= 10, "the broker kept too much: {missing:?}");
        let state = receiver.state();
        let epochs = state["sources"][SOURCE]["epochs"]
            .as_object()
            .expect("one source");
        let gaps = epochs
            .values()
            .flat_map(|epoch| epoch["gaps"].as_array().expect("gaps"));
        let told = gaps.flat_map(|gap| gap[0].as_u64().expect("from")..=gap[1].as_u64().expect("to"));
        assert_eq!(told.collect::<BTreeSet<_>>(), missing, "{:?}", receiver.language);
        assert!(!receiver.report().await.1, "{:?}", receiver.language);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_journal_owed_is_explained_in_the_old_epoch_by_an_event_of_the_new_one() {
    let mut day = Day::new(|site| site).await;
    day.device("old").publish_until_acknowledged(&[HOT]).await;
    day.settle(|event| event["transition"] == "raised").await;
    day.cable.cut();
    day.device("owed").publish_until_acknowledged(&[HOT]).await;
    day.kill_the_gateway().await;

    let journal = day.site.folder.path().join("journal/current");
    for entry in std::fs::read_dir(journal).expect("a journal") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "seg") {
            std::fs::remove_file(path).expect("removed");
        }
    }
    day.cable.mend();
    day.start_the_gateway().await;
    day.device("new").publish_until_acknowledged(&[HOT]).await;
    day.settle(|event| event["type"] == "io.tidegate.gateway.EventsDiscarded")
        .await;
    day.settle(|event| event["data"]["device"]["id"] == "new").await;
    day.ends_complete_with_open(&["new"]).await;
    let state = day.receivers[0].state();
    let epochs = state["sources"][SOURCE]["epochs"]
        .as_object()
        .expect("one source");
    let lost = epochs.values().filter(|epoch| epoch["lost"] != 0).count();
    assert_eq!((epochs.len(), lost), (2, 1), "{state}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_list_of_alarms_is_what_was_open_at_its_number_also_while_alarms_come_and_go() {
    let mut day = Day::new(|site| site).await;
    let stop = CancellationToken::new();
    let mut devices = JoinSet::new();
    for name in ["one", "two", "three", "four"] {
        let (mut device, stop) = (day.device(name), stop.clone());
        devices.spawn(async move {
            while !stop.is_cancelled() {
                device.publish_until_acknowledged(&[HOT, COOL, HOT, COOL]).await;
            }
        });
    }
    // As many as are recorded of one run, twice.
    for _ in 0..2 {
        for _ in 0..10 {
            day.open_at_the_gateway().await;
        }
        day.kill_the_gateway().await;
        day.start_the_gateway().await;
    }
    stop.cancel();
    while let Some(done) = devices.join_next().await {
        done.expect("a device does not panic");
    }
    day.gateway.take().expect("it runs").stop().await;
    day.recorder
        .wait_for(|event| event["type"] == "io.tidegate.gateway.GatewayStopped")
        .await;
    let mut events = day.recorder.distinct();
    events.sort_by_key(number);
    let (mut open, mut lists) = (BTreeSet::new(), 0);
    for event in &events {
        if event["type"] == "io.tidegate.gateway.ActiveAlarms" {
            lists += 1;
            let alarms = event["data"]["alarms"].as_array().expect("a list").iter();
            let listed: BTreeSet<&str> = alarms.map(|alarm| text(alarm, "/id")).collect();
            assert_eq!(listed, open, "at {}", number(event));
        } else if event["transition"] == "raised" {
            open.insert(text(event, "/correlationid"));
        } else if event["transition"] == "cleared" {
            open.remove(text(event, "/correlationid"));
        }
    }
    // What was listed right before the kill was not yet on the disk.
    assert!(lists > 15, "{lists} lists");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_epoch_is_followed_and_voids_what_was_open_in_the_old_one() {
    let mut day = Day::new(|site| site).await;
    day.device("old").publish_until_acknowledged(&[HOT]).await;
    day.settle(|event| event["transition"] == "raised").await;
    day.cable.cut();
    day.device("owed").publish_until_acknowledged(&[HOT]).await;
    day.kill_the_gateway().await;

    // Another board, so to say, for the same site: a changed id begins a new epoch, `source` says that it is the same.
    let moved = format!("id = \"plantroom-2\"\nsource = \"{SOURCE}\"");
    let text = day.site.text().replace("id = \"plantroom-1\"", &moved);
    std::fs::write(day.site.config(), text).expect("written");
    day.cable.mend();
    day.start_the_gateway().await;
    day.device("new").publish_until_acknowledged(&[HOT]).await;
    day.settle(|event| event["data"]["device"]["id"] == "new").await;
    day.ends_complete_with_open(&["new"]).await;
}
