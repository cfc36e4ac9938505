//! Both receivers behind a real gateway and a real broker on their bad days. A recorder that nobody cuts or kills is
//! the truth: what the receivers handled, and what they say is open, must be what it saw.

use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use rumqttc::QoS;
use serde_json::Value;
use tokio::task::JoinSet;

use super::{
    super::{
        cloud::Cloud,
        device::{Device, Version},
        parts::{Cable, Gateway, Mosquitto, Site},
        text,
    },
    Receiver, both,
};

/// A gateway behind a cable to a broker, a recorder and both receivers, all from the first event on.
struct Day {
    gateway: Gateway,
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
        let broker = Mosquitto::start().await;
        let recorder = Cloud::subscribe(broker.port).await;
        let cable = Cable::to(broker.port).await;
        let site = change(Site::new().uplink(cable.port, "5"));
        let receivers = both(site.folder.path(), broker.port).await;
        let gateway = Gateway::start(&site).await;
        Self {
            gateway,
            site,
            cable,
            recorder,
            receivers,
            _broker: broker,
        }
    }

    fn device(&self, name: &str) -> Device {
        Device::new(Version::V5, QoS::AtLeastOnce, self.gateway.door, name)
    }

    /// Until the recorder has what `what` looks for, then until both receivers have handled all that the recorder saw.
    async fn settle(&self, what: impl Fn(&Value) -> bool) {
        self.recorder.wait_for(what).await;
        for receiver in &self.receivers {
            let level = || self.truth().is_subset(&receiver.handled_once());
            receiver.until("level with the recorder", level).await;
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

    /// Both handled what the recorder saw, each event once and none else, and keep the same state.
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

    /// Both say that nothing is missing, and that of the current epoch exactly these devices' alarms are open.
    async fn assert_complete_and_open(&self, devices: &[&str]) {
        for receiver in &self.receivers {
            let (said, complete) = receiver.report().await;
            assert!(complete, "{:?}: {said:#?}", receiver.language);
            let state = receiver.state();
            let source = state["sources"].as_object().and_then(|all| all.values().next());
            let episodes = source.and_then(|source| source["episodes"].as_object());
            let open: BTreeSet<&str> = episodes
                .expect("one source")
                .values()
                .filter(|episode| episode["open"] == true)
                .filter_map(|episode| text(episode, "/summary").split(':').next())
                .collect();
            assert_eq!(open, devices.iter().copied().collect(), "{:?}", receiver.language);
        }
    }
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
    for round in 0..rounds {
        // So many that some are on their way whenever the cable or a process goes.
        let mut devices = JoinSet::new();
        for name in ["one", "two"] {
            let mut device = day.device(name);
            devices.spawn(async move {
                for _ in 0..8 {
                    device.publish_until_acknowledged(&[HOT, COOL]).await;
                }
            });
        }
        // What is published and not acknowledged is published again.
        let seen = day.recorder.count(|_| true);
        day.cable.deafen();
        day.recorder.wait_until(|events| events.len() > seen).await;
        day.cable.cut();
        day.cable.mend();
        // Not a wait for anything: the moment of the kill is what this test draws at random.
        let moment = tokio::time::Instant::now() + Duration::from_millis(random.u64(0..200));
        tokio::time::sleep_until(moment).await;
        match round % 3 {
            0 => {
                day.gateway.kill().await;
                day.gateway.restart(&day.site).await;
            }
            other => day.receivers[other - 1].kill_and_start_again().await,
        }
        while let Some(done) = devices.join_next().await {
            done.expect("a device does not panic");
        }
    }
    day.device("one").publish_until_acknowledged(&[HOT]).await;
    day.device("last").publish_until_acknowledged(&[HOT]).await;
    day.settle(|event| event["data"]["device"]["id"] == "last").await;

    let (sent, distinct) = (day.recorder.count(|_| true), day.truth().len());
    assert!(sent > distinct, "nothing was sent twice: {sent}");
    assert!(day.receivers[0].said().contains(": duplicate"));
    day.recorder.assert_no_unexplained_gap();
    day.assert_they_agree_with_the_recorder();
    day.assert_complete_and_open(&["last", "one"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_full_journal_drops_is_no_open_gap_once_the_gateway_has_said_so() {
    // Events so large that some hundred of them fill the smallest journal.
    let day = Day::new(|mut site| {
        site.max_bytes = "8MiB";
        site.rule(&format!("runbook = \"{}\"", "x".repeat(30_000)))
    })
    .await;
    let mut device = day.device("one");
    device.publish_until_acknowledged(&[HOT]).await;
    day.settle(|event| event["transition"] == "raised").await;

    day.cable.cut();
    for _ in 0..250 {
        device.publish_until_acknowledged(&[COOL, HOT]).await;
    }
    day.device("last").publish_until_acknowledged(&[HOT]).await;
    day.cable.mend();
    day.settle(|event| event["type"] == "io.tidegate.gateway.EventsDiscarded")
        .await;
    day.settle(|event| event["data"]["device"]["id"] == "last").await;

    day.recorder.assert_no_unexplained_gap();
    day.assert_they_agree_with_the_recorder();
    let highest = day.recorder.distinct().iter().map(number).max().expect("some");
    assert!(
        day.truth().len() + 100 < usize::try_from(highest).expect("small"),
        "too little was dropped"
    );
    day.assert_complete_and_open(&["last", "one"]).await;
    for receiver in &day.receivers {
        let (said, _) = receiver.report().await;
        assert!(
            said.iter()
                .any(|line| line.contains("certain with the next ActiveAlarms")),
            "{said:#?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_epoch_is_followed_and_voids_what_was_open_in_the_old_one() {
    let mut day = Day::new(|site| site).await;
    day.device("old").publish_until_acknowledged(&[HOT]).await;
    day.settle(|event| event["transition"] == "raised").await;
    day.cable.cut();
    day.device("owed").publish_until_acknowledged(&[HOT]).await;
    day.gateway.kill().await;

    // Another board, so to say, for the same site: a changed id begins a new epoch, `source` says that it is the same.
    let moved = format!("id = \"plantroom-2\"\nsource = \"{SOURCE}\"");
    let text = day.site.text().replace("id = \"plantroom-1\"", &moved);
    std::fs::write(day.site.config(), text).expect("written");
    day.cable.mend();
    day.gateway.restart(&day.site).await;
    day.device("new").publish_until_acknowledged(&[HOT]).await;
    day.settle(|event| event["data"]["device"]["id"] == "new").await;
    day.assert_they_agree_with_the_recorder();
    day.assert_complete_and_open(&["new"]).await;
}
