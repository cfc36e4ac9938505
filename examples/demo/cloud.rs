//! The stand-in cloud: rumqttd as the broker, one subscriber that counts, and the cable in between.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rumqttc::v5::{
    AsyncClient, Event, MqttOptions,
    mqttbytes::{QoS, v5::Packet},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
    time::timeout,
};

use super::Failure;

/// What the subscriber has seen.
#[derive(Default)]
struct Seen {
    ids: BTreeSet<String>,
    sequences: BTreeMap<String, BTreeSet<u64>>,
    raised: BTreeMap<String, u64>,
    first_alarm: Option<String>,
    duplicates: u64,
}

/// The broker and what it heard. Dropping it ends the subscriber.
pub(super) struct Cloud {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    news: Arc<Notify>,
    _subscriber: JoinSet<()>,
}

impl Cloud {
    pub(super) async fn start() -> Result<Self, Failure> {
        let address = free_address().await?;
        let mut broker = rumqttd::Broker::new(broker_config(address));
        // It has no stop: the thread ends with the process.
        std::thread::Builder::new()
            .name("cloud".into())
            .spawn(move || broker.start().map_err(|e| e.to_string()))?;
        wait_until_open(address).await?;

        let seen = Arc::new(Mutex::new(Seen::default()));
        let news = Arc::new(Notify::new());
        let (subscribed, ready) = tokio::sync::oneshot::channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(subscribe(
            address,
            Arc::clone(&seen),
            Arc::clone(&news),
            subscribed,
        ));
        timeout(Duration::from_secs(5), ready).await??;
        Ok(Self {
            address,
            seen,
            news,
            _subscriber: tasks,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn events(&self) -> u64 {
        u64::try_from(self.seen().ids.len()).unwrap_or(u64::MAX)
    }

    pub(super) fn duplicates(&self) -> u64 {
        self.seen().duplicates
    }

    pub(super) fn first_alarm(&self) -> String {
        self.seen().first_alarm.clone().unwrap_or_default()
    }

    pub(super) async fn wait_for_first_alarm(&self, patience: Duration) -> Result<(), Failure> {
        self.wait(
            patience,
            || self.seen().first_alarm.is_some(),
            "no alarm reached the cloud",
        )
        .await
    }

    pub(super) async fn wait_for_more_than(&self, events: u64, patience: Duration) -> Result<(), Failure> {
        self.wait(
            patience,
            || self.events() > events,
            "the uplink did not come back",
        )
        .await
    }

    pub(super) async fn wait_for_alarms(
        &self,
        expected: &BTreeMap<String, u64>,
        patience: Duration,
    ) -> Result<(), Failure> {
        let all_here = || self.missing(expected).is_empty();
        self.wait(patience, all_here, "not every alarm reached the cloud in time")
            .await
            .map_err(|late| format!("{late}: {}", self.missing(expected).join("; ")).into())
    }

    async fn wait(&self, patience: Duration, done: impl Fn() -> bool, else_say: &str) -> Result<(), Failure> {
        let waiting = async {
            while !done() {
                self.news.notified().await;
            }
        };
        timeout(patience, waiting).await.map_err(|_| else_say.into())
    }

    /// What a receiver can prove to be missing: raises that a device knows of, and gaps in the sequence.
    pub(super) fn missing(&self, expected: &BTreeMap<String, u64>) -> Vec<String> {
        let seen = self.seen();
        let mut missing = Vec::new();
        for (device, &raises) in expected {
            let here = seen.raised.get(device).copied().unwrap_or(0);
            if here != raises {
                missing.push(format!(
                    "{device} was too hot {raises} times, the cloud heard of {here}"
                ));
            }
        }
        for (epoch, sequences) in &seen.sequences {
            let gaps =
                (1..sequences.last().copied().unwrap_or(0)).filter(|number| !sequences.contains(number));
            missing.extend(gaps.map(|number| format!("event {number} of epoch {epoch}")));
        }
        missing
    }
}

async fn subscribe(
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    news: Arc<Notify>,
    subscribed: tokio::sync::oneshot::Sender<()>,
) {
    let mut options = MqttOptions::new("cloud-team", address.ip().to_string(), address.port());
    options.set_keep_alive(Duration::from_secs(30));
    let (client, mut events) = AsyncClient::new(options, 16);
    let mut subscribed = Some(subscribed);
    if client
        .subscribe("tidegate/+/events/#", QoS::AtLeastOnce)
        .await
        .is_err()
    {
        return;
    }
    while let Ok(event) = events.poll().await {
        match event {
            Event::Incoming(Packet::SubAck(_)) => {
                subscribed.take().map(|ready| ready.send(()));
            }
            Event::Incoming(Packet::Publish(publish)) => {
                if let Ok(event) = serde_json::from_slice::<serde_json::Value>(&publish.payload) {
                    note(&mut seen.lock().unwrap_or_else(PoisonError::into_inner), &event);
                    news.notify_one();
                }
            }
            _ => {}
        }
    }
}

fn note(seen: &mut Seen, event: &serde_json::Value) {
    let text = |pointer: &str| {
        event
            .pointer(pointer)
            .and_then(|v| v.as_str())
            .unwrap_or_default()
            .to_owned()
    };
    if !seen.ids.insert(text("/id")) {
        seen.duplicates += 1;
        return;
    }
    if let Ok(sequence) = text("/sequence").parse() {
        seen.sequences.entry(text("/epoch")).or_default().insert(sequence);
    }
    if text("/transition") == "raised" {
        *seen.raised.entry(text("/data/device/id")).or_default() += 1;
        seen.first_alarm.get_or_insert(text("/data/summary"));
    }
}

async fn free_address() -> Result<SocketAddr, Failure> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()?)
}

async fn wait_until_open(address: SocketAddr) -> Result<(), Failure> {
    let trying = async {
        while TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(5), trying)
        .await
        .map_err(|_| "the stand-in cloud did not start".into())
}

fn broker_config(listen: SocketAddr) -> rumqttd::Config {
    let connections = rumqttd::ConnectionSettings {
        connection_timeout_ms: 5_000,
        max_payload_size: 1024 * 1024,
        max_inflight_count: 200,
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let server = rumqttd::ServerSettings {
        name: "cloud".into(),
        listen,
        tls: None,
        next_connection_delay_ms: 1,
        connections,
    };
    rumqttd::Config {
        router: rumqttd::RouterConfig {
            max_connections: 20,
            max_outgoing_packet_count: 200,
            max_segment_size: 10 * 1024 * 1024,
            max_segment_count: 4,
            ..rumqttd::RouterConfig::default()
        },
        v5: Some(HashMap::from([("cloud".to_owned(), server)])),
        ..rumqttd::Config::default()
    }
}

/// The cable: a TCP relay that can be cut.
pub(super) struct Uplink {
    address: SocketAddr,
    up: Arc<AtomicBool>,
    cut: Arc<Notify>,
    _relay: JoinSet<()>,
}

impl Uplink {
    pub(super) async fn to(broker: SocketAddr) -> Result<Self, Failure> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (up, cut) = (Arc::new(AtomicBool::new(true)), Arc::new(Notify::new()));
        let mut relay = JoinSet::new();
        relay.spawn({
            let (up, cut) = (Arc::clone(&up), Arc::clone(&cut));
            async move {
                let mut streams = JoinSet::new();
                while let Ok((mut near, _)) = listener.accept().await {
                    if !up.load(Ordering::SeqCst) {
                        continue;
                    }
                    let cut = Arc::clone(&cut);
                    streams.spawn(async move {
                        let Ok(mut far) = TcpStream::connect(broker).await else {
                            return;
                        };
                        // Either way both ends see the connection end; that is all a cable can say.
                        tokio::select! {
                            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                            () = cut.notified() => {}
                        }
                    });
                }
            }
        });
        Ok(Self {
            address,
            up,
            cut,
            _relay: relay,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn cut(&self) {
        self.up.store(false, Ordering::SeqCst);
        self.cut.notify_waiters();
    }

    pub(super) fn mend(&self) {
        self.up.store(true, Ordering::SeqCst);
    }
}
