//! The whole gateway under load, through power cuts, kills followed by power cuts, and a flush that failed.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use serde_json::Value;
use tidegate::{
    config::Machine,
    event::{Data, Entry, Origin},
    journal::{Cursor, Limit, Owner, Settings, SinkPlan, WhenFull},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    PATIENCE, contract, cuts,
    device::{Device, Version},
    ended, moments, open_with,
    parts::{Gateway, Mosquitto, Site},
    random,
    recorder::{Cut, Recorder},
    text,
    volume::{Volume, empty_ext4},
};

const DEVICES: [(&str, Version, QoS); 4] = [
    ("v311-qos1", Version::V311, QoS::AtLeastOnce),
    ("v311-qos2", Version::V311, QoS::ExactlyOnce),
    ("v5-qos1", Version::V5, QoS::AtLeastOnce),
    ("v5-qos2", Version::V5, QoS::ExactlyOnce),
];

/// The reading of a device's n-th alarm.
fn alarm(number: usize) -> String {
    format!(
        "{:.3}",
        31.0 + f64::from(u32::try_from(number).expect("few")) * 0.001
    )
}

/// What must still be known after a power cut, and since when.
#[derive(Default)]
struct Story {
    /// A device's n-th alarm, or its end, was acknowledged: (moment, device, number, whether it is the end).
    acknowledged: Vec<(usize, &'static str, usize, bool)>,
    /// What the cloud got.
    delivered: Vec<(usize, Value)>,
}

/// Devices and a cloud around a gateway whose disk remembers.
struct Scene {
    disk: Arc<Recorder>,
    devices: JoinSet<Vec<(usize, &'static str, usize, bool)>>,
    stop: CancellationToken,
    delivered: Arc<Mutex<Vec<(usize, Value)>>>,
    _cloud: JoinSet<()>,
    _broker: Mosquitto,
    gateway: Gateway,
    site: Site,
    volume: Volume,
}

impl Scene {
    async fn begin() -> Self {
        let disk = Arc::new(Recorder::with(empty_ext4(64)));
        let broker = Mosquitto::start().await;
        let site = Site::new().uplink(broker.port, "5");
        let volume = Volume::mount(&disk.path(), &journal_of(&site), "commit=300");
        let delivered = Arc::new(Mutex::new(Vec::new()));
        let mut cloud = JoinSet::new();
        cloud.spawn(listen(broker.port, Arc::clone(&disk), Arc::clone(&delivered)));
        let gateway = Gateway::start(&site).await;
        let stop = CancellationToken::new();
        let mut devices = JoinSet::new();
        for (name, version, qos) in DEVICES {
            let device = Device::new(version, qos, gateway.door, name);
            devices.spawn(live(name, device, Arc::clone(&disk), stop.clone()));
        }
        Self {
            disk,
            devices,
            stop,
            delivered,
            _cloud: cloud,
            _broker: broker,
            gateway,
            site,
            volume,
        }
    }

    /// Lets the load go on for a while: when something happens is what these tests draw at random.
    async fn go_on(&self, random: &mut fastrand::Rng) {
        sleep_until(Instant::now() + Duration::from_millis(random.u64(100..600))).await;
    }

    async fn end(mut self) -> (Story, Arc<Recorder>) {
        self.stop.cancel();
        let mut story = Story::default();
        while let Some(lived) = timeout(PATIENCE, self.devices.join_next())
            .await
            .expect("in time")
        {
            story.acknowledged.extend(lived.expect("a device does not panic"));
        }
        self.gateway.stop().await;
        drop(self.volume);
        story.delivered = std::mem::take(&mut *self.delivered.lock().expect("not poisoned"));
        assert!(
            story.acknowledged.len() > 100,
            "the load is real: {}",
            story.acknowledged.len()
        );
        (story, self.disk)
    }
}

fn journal_of(site: &Site) -> PathBuf {
    site.folder.path().join("journal")
}

/// Raises and clears, and notes the moment after each acknowledgement. Each reading is published twice: the
/// second changes nothing because the first, perhaps not yet durable, already did.
async fn live(
    name: &'static str,
    mut device: Device,
    disk: Arc<Recorder>,
    stop: CancellationToken,
) -> Vec<(usize, &'static str, usize, bool)> {
    let mut acknowledged = Vec::new();
    for number in 1.. {
        let high = format!("{{\"temp\": {}}}", alarm(number));
        device.publish_until_acknowledged(&[&high, &high]).await;
        acknowledged.push((disk.now(), name, number, false));
        device
            .publish_until_acknowledged(&[r#"{"temp": 20.0}"#, r#"{"temp": 20.0}"#])
            .await;
        acknowledged.push((disk.now(), name, number, true));
        if stop.is_cancelled() {
            break;
        }
    }
    acknowledged
}

/// The cloud: what it gets has left the gateway.
async fn listen(port: u16, disk: Arc<Recorder>, delivered: Arc<Mutex<Vec<(usize, Value)>>>) {
    let mut options = MqttOptions::new("cloud", "127.0.0.1", port);
    options.set_max_packet_size(1 << 20, 1 << 20);
    let (client, mut events) = AsyncClient::new(options, 16);
    client
        .subscribe("tidegate/+/events/#", QoS::AtLeastOnce)
        .await
        .expect("queued");
    while let Ok(event) = events.poll().await {
        if let Event::Incoming(Packet::Publish(publish)) = event {
            let event = serde_json::from_slice(&publish.payload).expect("an event is JSON");
            contract::check(&event);
            delivered.lock().expect("not poisoned").push((disk.now(), event));
        }
    }
}

/// An event, as far as it must be the same wherever it is read.
#[derive(Debug, PartialEq)]
struct Fact {
    kind: String,
    device: String,
    value: String,
}

impl Fact {
    fn delivered(event: &Value) -> Self {
        Self {
            kind: text(event, "/type").to_owned(),
            device: event["data"]["device"]["id"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            value: event["data"]["value"]
                .as_f64()
                .map_or(String::new(), |value| format!("{value:.3}")),
        }
    }

    fn stored(entry: &Entry) -> Self {
        let draft = &entry.event.draft;
        let (device, value) = match &draft.data {
            Data::Rule(rule) => (
                rule.device.to_string(),
                rule.value.as_ref().map_or(String::new(), |value| match value {
                    tidegate::reading::Value::Number(number) => format!("{number:.3}"),
                    other => panic!("no {other:?} was sent"),
                }),
            ),
            Data::Gateway(_) => (String::new(), String::new()),
        };
        Self {
            kind: draft.kind.to_string(),
            device,
            value,
        }
    }
}

/// All that a gateway's journal holds.
async fn read(dir: &Path) -> Vec<Entry> {
    let settings = Settings {
        dir: dir.to_owned(),
        max_bytes: 32 << 20,
        max_age: None,
        when_full: WhenFull::DropOldest,
        state_delay: Duration::from_millis(5),
    };
    let machine = Machine::read();
    let origin = Origin {
        gateway: "plantroom-1".into(),
        source: "urn:tidegate:gateway:plantroom-1".into(),
        labels: BTreeMap::default(),
        version: "0".into(),
    };
    let owner = Owner {
        origin: Arc::new(origin),
        machine_id: machine.machine_id,
        board_serial: machine.board_serial,
        sinks: vec![SinkPlan {
            name: "cloud".parse().expect("a name"),
            required: false,
            from_oldest: false,
        }],
    };
    let (journal, _, running) = open_with(&settings, &owner);
    let all = Limit {
        entries: usize::MAX,
        bytes: usize::MAX,
    };
    let entries = journal
        .read_after(Cursor::default(), all)
        .await
        .expect("readable");
    drop(journal);
    running.ended.await.expect("it says why").expect("it ended well");
    entries
}

impl Story {
    /// Power returns after a cut: the gateway starts on what is there, takes one alarm more from each device,
    /// and is killed. Then everything is read.
    async fn check(&self, cut: &Cut) {
        let site = Site::new().uplink(1, "5");
        let _volume = Volume::of(&cut.disk, &journal_of(&site));
        let mut gateway = Gateway::start(&site).await;
        for (name, version, qos) in DEVICES {
            let mut device = Device::new(version, qos, gateway.door, name);
            device
                .publish_until_acknowledged(&[r#"{"temp": 19.0}"#, r#"{"temp": 99.0}"#])
                .await;
        }
        gateway.kill().await;
        let entries = read(&journal_of(&site)).await;

        let before = |moment: usize| moment <= cut.moment;
        let facts: BTreeMap<u64, Fact> = entries
            .iter()
            .map(|entry| (entry.sequence.0, Fact::stored(entry)))
            .collect();
        assert_eq!(facts.len(), entries.len(), "a sequence was assigned twice");
        let is_new = |fact: &Fact| fact.value == "99.000";
        let new = facts
            .iter()
            .find(|(_, fact)| is_new(fact))
            .map_or(0, |(new, _)| *new);
        for (_, event) in self.delivered.iter().filter(|(moment, _)| before(*moment)) {
            let sequence: u64 = text(event, "/sequence").parse().expect("digits");
            assert_eq!(
                text(event, "/epoch"),
                entries[0].epoch.to_string(),
                "one journal, one epoch"
            );
            assert!(
                new > sequence,
                "{sequence} had left the gateway, and {new} is new"
            );
            assert_eq!(
                facts.get(&sequence),
                Some(&Fact::delivered(event)),
                "{sequence} had left the gateway"
            );
        }
        for (name, ..) in DEVICES {
            let of_device: Vec<&Fact> = facts.values().filter(|fact| fact.device == name).collect();
            // Raised and cleared in turn, each alarm once, in order, and the new one at the end.
            let raised: Vec<&str> = of_device
                .iter()
                .step_by(2)
                .map(|fact| fact.value.as_str())
                .collect();
            let mut expected: Vec<String> = (1..raised.len()).map(alarm).collect();
            expected.push("99.000".to_owned());
            assert_eq!(raised, expected, "{name}");
            let ends: Vec<&&Fact> = of_device.iter().skip(1).step_by(2).collect();
            assert!(
                ends.iter().all(|fact| fact.kind.ends_with("Cleared")),
                "{name}: {ends:?}"
            );
            let acknowledged = |end: bool| {
                let of_device = self.acknowledged.iter().filter(|(moment, device, _, is_end)| {
                    before(*moment) && *device == name && *is_end == end
                });
                of_device.map(|(_, _, number, _)| *number).max().unwrap_or(0)
            };
            assert!(
                raised.len() > acknowledged(false),
                "{name}: an acknowledged alarm is lost"
            );
            let ended = ends.iter().filter(|fact| fact.value == "20.000").count();
            assert!(ended >= acknowledged(true), "{name}: an acknowledged end is lost");
        }
    }

    async fn check_all(&self, disk: &Recorder, notable: &[usize], from: usize, random: &mut fastrand::Rng) {
        let mut notable = notable.to_vec();
        notable.extend(self.acknowledged.iter().map(|(moment, ..)| *moment));
        notable.retain(|moment| *moment >= from);
        let moments = moments(disk, &notable, from, random);
        let mut lossy = 0;
        for (number, cut) in disk.cuts(moments, random.fork()).enumerate() {
            eprintln!(
                "cut {number} at step {}, {} writes unflushed",
                cut.moment, cut.unflushed
            );
            lossy += usize::from(cut.unflushed > 0);
            self.check(&cut).await;
        }
        assert!(
            lossy * 4 > cuts(),
            "only {lossy} of {} cuts could lose anything",
            cuts()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_gateway_acknowledged_survives_a_power_cut_and_a_kill_before_it() {
    let mut random = random();
    let mut scene = Scene::begin().await;
    let mut kills = Vec::new();
    for _ in 0..5 {
        scene.go_on(&mut random).await;
        scene.gateway.kill().await;
        kills.push(scene.disk.now());
        scene.gateway.restart(&scene.site).await;
    }
    scene.go_on(&mut random).await;
    let (story, disk) = scene.end().await;
    // Two of three notable cuts right after a kill.
    let kills = kills.repeat(story.acknowledged.len() * 2 / kills.len());
    story.check_all(&disk, &kills, 0, &mut random).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_that_fails_ends_the_gateway_and_what_it_acknowledges_after_a_restart_survives_a_power_cut() {
    let mut random = random();
    let mut scene = Scene::begin().await;
    let mut failures = Vec::new();
    for _ in 0..3 {
        scene.go_on(&mut random).await;
        scene.disk.fail_a_flush(random.u64(..));
        let status = ended(&mut scene.gateway).await;
        assert_eq!(status.code(), Some(1), "a failed flush is a failure");
        failures.push(scene.disk.now());
        // The kernel still has what the disk forgot, and calls it clean.
        scene.gateway.restart(&scene.site).await;
    }
    scene.go_on(&mut random).await;
    let (story, disk) = scene.end().await;
    assert_eq!(disk.failures(), 3);
    story.check_all(&disk, &failures, failures[0], &mut random).await;
}
