//! The whole gateway on a disk that is full, and on one that takes no writes.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rumqttc::{
    QoS,
    v5::{
        AsyncClient, Event, EventLoop, MqttOptions,
        mqttbytes::v5::{Packet, PubAckReason},
    },
};
use serde_json::Value;
use tidegate::time::Clock;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    PATIENCE,
    cloud::Cloud,
    device::{Device, Version},
    ended,
    parts::{Cable, Gateway, Mosquitto, Site},
    recorder::Recorder,
    text,
    volume::{Volume, empty_ext4},
};

/// A device that tells what it was answered.
struct Probe {
    port: u16,
    client: AsyncClient,
    events: EventLoop,
}

impl Probe {
    fn new(port: u16) -> Self {
        let (client, events) = AsyncClient::new(MqttOptions::new("probe", "127.0.0.1", port), 4);
        Self { port, client, events }
    }

    async fn publish(&mut self, payload: &'static str) -> PubAckReason {
        let answer = timeout(PATIENCE, self.try_publish(payload)).await;
        answer.expect("it answers in time")
    }

    async fn try_publish(&mut self, payload: &'static str) -> PubAckReason {
        self.client
            .try_publish(
                "thermostats/probe/state",
                rumqttc::v5::mqttbytes::QoS::AtLeastOnce,
                false,
                payload,
            )
            .expect("room for one");
        loop {
            if let Event::Incoming(Packet::PubAck(ack)) = self.events.poll().await.expect("connected") {
                return ack.reason;
            }
        }
    }

    /// Publishes what changes nothing until it is refused because the disk is full. What the door let in just
    /// before that waits for room like everything else, so whoever is not answered comes anew.
    async fn until_refused(&mut self) {
        let refused = async {
            loop {
                match timeout(Duration::from_secs(1), self.try_publish(r#"{"temp": 20.0}"#)).await {
                    Ok(PubAckReason::Success) => {}
                    Ok(reason) => return reason,
                    Err(_) => *self = Self::new(self.port),
                }
            }
        };
        let reason = timeout(PATIENCE, refused)
            .await
            .expect("the disk is full in time");
        assert_eq!(reason, PubAckReason::QuotaExceeded);
    }
}

/// A device of version 3.1.1 with an alarm: it cannot be told to come again, so it waits.
struct Patient {
    _client: rumqttc::AsyncClient,
    events: rumqttc::EventLoop,
}

impl Patient {
    async fn send(port: u16) -> Self {
        let options = rumqttc::MqttOptions::new("late", "127.0.0.1", port);
        let (client, mut events) = rumqttc::AsyncClient::new(options, 4);
        client
            .try_publish(
                "thermostats/late/state",
                QoS::AtLeastOnce,
                false,
                r#"{"temp": 31.9}"#,
            )
            .expect("room for one");
        let sent = async {
            loop {
                let event = events.poll().await.expect("connected");
                if let rumqttc::Event::Outgoing(rumqttc::Outgoing::Publish(_)) = event {
                    return;
                }
            }
        };
        timeout(PATIENCE, sent).await.expect("in time");
        Self {
            _client: client,
            events,
        }
    }

    async fn answer(&mut self) {
        let answered = async {
            loop {
                let event = self.events.poll().await.expect("connected");
                if let rumqttc::Event::Incoming(rumqttc::Packet::PubAck(_)) = event {
                    return;
                }
            }
        };
        timeout(PATIENCE, answered).await.expect("it is answered in time");
    }

    /// Whether an answer has come by now.
    async fn is_answered(&mut self) -> bool {
        tokio::select! {
            biased;
            () = self.answer() => true,
            () = tokio::task::yield_now() => false,
        }
    }
}

/// A device that raises and clears again and again; `acknowledged` counts its alarms.
async fn fill(port: u16, acknowledged: Arc<AtomicUsize>, stop: CancellationToken) {
    let mut device = Device::new(Version::V311, QoS::AtLeastOnce, port, "filler");
    while !stop.is_cancelled() {
        device.publish_until_acknowledged(&[r#"{"temp": 31.0}"#]).await;
        device.publish_until_acknowledged(&[r#"{"temp": 20.0}"#]).await;
        acknowledged.fetch_add(1, Ordering::SeqCst);
    }
}

/// A gateway whose uplink is cut, on a disk that is full.
struct Scene {
    _broker: Mosquitto,
    cloud: Cloud,
    cable: Cable,
    site: Site,
    gateway: Gateway,
    _volume: Volume,
    ballast: std::path::PathBuf,
    probe: Probe,
    filler: JoinSet<()>,
    acknowledged: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl Scene {
    async fn full() -> Self {
        let broker = Mosquitto::start().await;
        let cloud = Cloud::subscribe(broker.port).await;
        let cable = Cable::to(broker.port).await;
        cable.cut();
        let mut site = Site::new().uplink(cable.port, "5");
        site.max_bytes = "8MiB";
        let volume = Volume::of(&empty_ext4(24), &site.folder.path().join("journal"));
        let log = std::fs::File::create(site.folder.path().join("log")).expect("created");
        let gateway = Gateway::start_logging(&site, log.into()).await;
        let mut probe = Probe::new(gateway.door);
        assert_eq!(probe.publish(r#"{"temp": 20.0}"#).await, PubAckReason::Success);
        let (acknowledged, stop) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let mut filler = JoinSet::new();
        filler.spawn(fill(gateway.door, Arc::clone(&acknowledged), stop.clone()));
        // Into the third segment: with less, nothing could be used again.
        while acknowledged.load(Ordering::SeqCst) < 300 {
            assert_eq!(probe.publish(r#"{"temp": 20.0}"#).await, PubAckReason::Success);
        }
        let ballast = volume.fill();
        probe.until_refused().await;
        assert_eq!(
            probe.publish(r#"{"temp": 20.0}"#).await,
            PubAckReason::QuotaExceeded,
            "a full disk refuses"
        );
        Self {
            _broker: broker,
            cloud,
            cable,
            site,
            gateway,
            _volume: volume,
            ballast,
            probe,
            filler,
            acknowledged,
            stop,
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(&self.ballast).expect("made by this test");
    }

    /// The gateway takes readings again, the filler has come to its end, and the cloud has each of its alarms
    /// once.
    async fn recovers(mut self) -> Cloud {
        self.stop.cancel();
        timeout(PATIENCE, self.filler.join_next())
            .await
            .expect("in time")
            .expect("one filler")
            .expect("no panic");
        self.cable.mend();
        let acknowledged = self.acknowledged.load(Ordering::SeqCst);
        let ends = |event: &&Value| is_of(event, "filler", "cleared");
        self.cloud
            .wait_until(|seen| seen.iter().filter(ends).count() >= acknowledged)
            .await;
        self.gateway.stop().await;
        let log = std::fs::read_to_string(self.site.folder.path().join("log")).expect("kept");
        assert!(log.contains("the journal is full"), "{log}");
        self.cloud.assert_first_sends_in_order();
        self.cloud.assert_no_unexplained_gap();
        let distinct = self.cloud.distinct();
        let count = |transition| {
            distinct
                .iter()
                .filter(|event| is_of(event, "filler", transition))
                .count()
        };
        assert_eq!((count("raised"), count("cleared")), (acknowledged, acknowledged));
        self.cloud
    }
}

fn is_of(event: &Value, device: &str, transition: &str) -> bool {
    event["data"]["device"]["id"] == device && event["transition"] == transition
}

/// Waits until everything that was sent to or by this port has been read.
async fn all_is_read(port: u16) {
    let reading = async {
        loop {
            let table = std::fs::read_to_string("/proc/net/tcp").expect("linux");
            let end = format!("0100007F:{port:04X}");
            // local, remote, state, then the two queues: bytes not yet read by the other, or by this end.
            let mut ours = table.lines().filter(|line| line.contains(&end));
            if ours.all(|line| line.contains(" 00000000:00000000 ")) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, reading).await.expect("in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_that_finds_the_disk_full_is_raised_once_when_there_is_room_with_both_its_times() {
    let mut scene = Scene::full().await;
    // One that speaks version 5 hears that it shall come again; one that cannot be told waits.
    assert_eq!(
        scene.probe.publish(r#"{"temp": 31.0}"#).await,
        PubAckReason::QuotaExceeded
    );
    let port = scene.gateway.door;
    let mut late = Patient::send(port).await;
    all_is_read(port).await;
    assert_eq!(
        scene.probe.publish(r#"{"temp": 31.0}"#).await,
        PubAckReason::QuotaExceeded
    );
    assert!(
        !late.is_answered().await,
        "nothing is acknowledged on a full disk"
    );

    let room_at = Clock::system().moment().wall.to_string();
    scene.make_room();
    late.answer().await;
    assert_eq!(
        scene.probe.publish(r#"{"temp": 31.0}"#).await,
        PubAckReason::Success
    );
    let cloud = scene.recovers().await;
    let raised = cloud.wait_for(|event| is_of(event, "late", "raised")).await;
    assert!(
        text(&raised, "/time") <= room_at.as_str(),
        "{raised} came before {room_at}"
    );
    assert!(
        text(&raised, "/recordedtime") >= room_at.as_str(),
        "{raised} was stored after {room_at}"
    );
    let raised = |device| cloud.count(|event| is_of(event, device, "raised"));
    assert_eq!((raised("late"), raised("probe")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_for_a_minute_under_load_acknowledges_nothing_and_the_gateway_goes_on_with_room()
{
    let mut scene = Scene::full().await;
    let before = scene.acknowledged.load(Ordering::SeqCst);
    let begin = Instant::now();
    let mut refused = 0;
    while begin.elapsed() < Duration::from_mins(1) {
        assert_eq!(
            scene.probe.publish(r#"{"temp": 31.0}"#).await,
            PubAckReason::QuotaExceeded
        );
        refused += 1;
    }
    let acknowledged = scene.acknowledged.load(Ordering::SeqCst);
    assert!(
        acknowledged <= before + 1,
        "{before} alarms when it was full, now {acknowledged}"
    );
    eprintln!("refused {refused} times");

    scene.make_room();
    let trying = async { while scene.probe.publish(r#"{"temp": 31.0}"#).await != PubAckReason::Success {} };
    timeout(PATIENCE, trying).await.expect("there is room in time");
    // The same process; nothing that was refused before is there.
    let cloud = scene.recovers().await;
    assert_eq!(cloud.count(|event| is_of(event, "probe", "raised")), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_forwards_and_what_is_delivered_makes_room() {
    let mut scene = Scene::full().await;
    scene.cable.mend();
    let acknowledged = scene.acknowledged.load(Ordering::SeqCst);
    let ends = |event: &&Value| is_of(event, "filler", "cleared");
    scene
        .cloud
        .wait_until(|seen| seen.iter().filter(ends).count() > acknowledged)
        .await;
    let trying = async { while scene.probe.publish(r#"{"temp": 31.0}"#).await != PubAckReason::Success {} };
    timeout(PATIENCE, trying).await.expect("there is room in time");
    scene.recovers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_killed_on_a_full_disk_starts_on_it() {
    let mut scene = Scene::full().await;
    scene.gateway.kill().await;
    scene.gateway.restart(&scene.site).await;
    scene.probe = Probe::new(scene.gateway.door);
    scene.probe.until_refused().await;
    scene.make_room();
    scene.recovers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_dies_ends_the_gateway_and_a_read_only_one_is_named_with_a_remedy() {
    let disk = Recorder::with(empty_ext4(64));
    let site = Site::new().uplink(1, "5");
    let point = site.folder.path().join("journal");
    let volume = Volume::mount(&disk.path(), &point, "commit=1");
    let mut gateway = Gateway::start(&site).await;
    let mut probe = Probe::new(gateway.door);
    assert_eq!(probe.publish(r#"{"temp": 31.0}"#).await, PubAckReason::Success);
    disk.die(true);
    let mut device = JoinSet::new();
    let mut thermostat = Device::new(Version::V311, QoS::AtLeastOnce, gateway.door, "thermostat-7");
    device.spawn(async move {
        thermostat
            .publish_until_acknowledged(&[r#"{"temp": 32.0}"#])
            .await;
    });
    assert_eq!(
        ended(&mut gateway).await.code(),
        Some(1),
        "a write that fails is a failure"
    );
    assert!(
        device.try_join_next().is_none(),
        "nothing is acknowledged that could not be written"
    );
    // ext4 makes it read-only once its own journal cannot be written.
    let until_read_only = async {
        while std::fs::write(point.join("touch"), "").is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, until_read_only).await.expect("in time");
    refused(&site, &point).await;

    disk.die(false);
    drop(volume);
    let _volume = Volume::mount(&disk.path(), &point, "rw");
    gateway.restart(&site).await;
    device.join_next().await.expect("one").expect("no panic");
    let local = Cloud::subscribe(gateway.door).await;
    let mut probe = Probe::new(gateway.door);
    assert_eq!(probe.publish(r#"{"temp": 20.0}"#).await, PubAckReason::Success);
    // The alarm was there, or it could not end.
    local.wait_for(|event| is_of(event, "probe", "cleared")).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_directory_is_refused_at_the_start_with_a_remedy() {
    let site = Site::new().uplink(1, "5");
    let point = site.folder.path().join("journal");
    let volume = Volume::of(&empty_ext4(24), &point);
    Gateway::start(&site).await.stop().await;
    volume.remount("ro");
    refused(&site, &point).await;
}

/// The gateway does not start: with which exit code, and what it says.
async fn refused(site: &Site, journal: &Path) {
    let output = site.command().output().await.expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().expect("it says why");
    let path = journal.display().to_string();
    for part in [path.as_str(), "ead-only file system", "mount it read-write"] {
        assert!(last.contains(part), "`{part}` is not in: {said}");
    }
}
