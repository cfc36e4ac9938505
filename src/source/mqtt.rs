//! The door: the MQTT endpoint that devices connect to (docs/decisions/0002).
//!
//! A publish of quality of service 1 or 2 is acknowledged only when all that it caused is on the disk, in the
//! order the publishes came. Versions 3.1.1 and 5 on one port. Every connection is its own task and bounded:
//! what one does, the others do not notice. Not offered: shared subscriptions, enhanced authentication,
//! `$SYS` topics. In memory only: sessions, retained messages, which `QoS` 2 publishes were seen; after a
//! restart a `QoS` 2 publish is at least once.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinError, JoinSet},
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{Intake, Stamps};
use crate::{decode::Decoder, event::Position, hub::Hub, journal::Health, seldom::Seldom};

pub mod auth;
pub mod presence;
mod serve;
pub mod session;
mod taking;
pub mod topics;
mod troubles;
pub mod wire;

use presence::Presence;
use troubles::Troubles;

/// `[mqtt]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where to listen.
    pub listen: Vec<SocketAddr>,
    /// Bytes of one packet.
    pub max_packet: usize,
    /// Connections at once.
    pub max_connections: usize,
    /// Unacknowledged `QoS` 1 and 2 publishes of one device.
    pub max_inflight: u16,
    /// Which topics carry readings; the first match decides.
    pub readings: Vec<TopicReadings>,
    /// Names on the wire -> device ids (`[[device]] from`).
    pub renamed: std::collections::HashMap<String, crate::reading::DeviceId>,
}

/// `[[mqtt.readings]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicReadings {
    /// Levels of the topic.
    pub topic: Vec<Level>,
    /// What its payloads hold.
    pub decoder: Decoder,
}

/// One level of a `[[mqtt.readings]] topic`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Level {
    /// Itself.
    Literal(String),
    /// `{device}`.
    Device,
    /// `{metric}`.
    Metric,
    /// `+`.
    Any,
    /// `#`, last.
    Rest,
}

/// A door that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "could not {act} {address}: {source} ({}; `[mqtt] listen` chooses the address)",
    remedy(source)
)]
pub struct BindError {
    /// What was attempted, as a verb.
    pub act: &'static str,
    /// On which address.
    pub address: SocketAddr,
    /// What the system said.
    pub source: io::Error,
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "does another broker run here?",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address",
        io::ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE",
        _ => "is it an address of this machine?",
    }
}

/// What the door is connected to.
#[derive(Clone, Debug)]
pub struct House {
    /// Where publishes and events meet local subscribers.
    pub hub: Hub,
    /// Where readings go.
    pub intake: Intake,
    /// What the disk has.
    pub durable: watch::Receiver<Position>,
    /// Whether the journal takes more.
    pub health: watch::Receiver<Health>,
    /// Gives readings their time; shared by all sources.
    pub stamps: Arc<Stamps>,
}

/// Counted since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections accepted after their CONNECT.
    pub connections: AtomicU64,
    /// Sockets closed because there were too many.
    pub turned_away: AtomicU64,
    /// CONNECTs refused.
    pub refused_connections: AtomicU64,
    /// Sessions taken over by a newer connection.
    pub taken_over: AtomicU64,
    /// Publishes received (without duplicates and refused topics).
    pub publishes: AtomicU64,
    /// Publishes acknowledged as taken; `QoS` 0: passed the gate.
    pub acknowledged: AtomicU64,
    /// Publishes whose payload is not what their table says.
    pub undecodable: AtomicU64,
    /// Publishes whose own time could not be used: their arrival counts instead.
    pub untimed: AtomicU64,
    /// Values of decoded payloads that are no readings.
    pub rejected_values: AtomicU64,
    /// Publishes not evaluated because of `max-devices` or `max-metrics`.
    pub over_limit: AtomicU64,
    /// Publishes refused because the journal takes nothing more.
    pub parked: AtomicU64,
    /// Publishes to topics that are the gateway's own.
    pub not_authorised: AtomicU64,
    /// Connections ended because they broke the protocol.
    pub protocol_errors: AtomicU64,
    /// Subscribers disconnected because they did not read.
    pub slow_subscribers: AtomicU64,
    /// Messages larger than their subscriber takes.
    pub too_large_for_subscriber: AtomicU64,
    /// Wills published.
    pub wills: AtomicU64,
    /// Wills whose readings were not evaluated for lack of room.
    pub wills_not_evaluated: AtomicU64,
    /// Connections that ended in a panic: a mistake of ours, and that connection's end only.
    pub panics: AtomicU64,
}

/// The open door.
#[derive(Debug)]
pub struct Door {
    listeners: Vec<TcpListener>,
    shared: Arc<Shared>,
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    settings: Arc<RwLock<Arc<Settings>>>,
    hub: Hub,
    intake: Intake,
    durable: watch::Receiver<Position>,
    health: watch::Receiver<Health>,
    stamps: Arc<Stamps>,
    counters: Arc<Counters>,
    presence: Presence,
    shutdown: CancellationToken,
    strangers: Strangers,
    quiet: Quiet,
    troubles: Troubles,
}

/// Changes and looks at a door that is served.
#[derive(Clone, Debug)]
pub struct Handle {
    settings: Arc<RwLock<Arc<Settings>>>,
    presence: Presence,
    counters: Arc<Counters>,
}

impl Handle {
    /// What is counted.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Who is connected.
    #[must_use]
    pub fn presence(&self) -> Presence {
        self.presence.clone()
    }

    /// From now on every publish is read by these tables, and new connections have these bounds. Nobody is
    /// disconnected. Where the door listens does not change.
    pub fn reconfigure(&self, settings: Settings) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }
}

/// Connections above `max-connections` for a moment, while a stranger that was evicted for one leaves.
const LEAVING: usize = 64;
/// A listener that cannot accept (no file descriptors) is asked again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Door {
    /// Listens on all addresses. Devices may connect at once and are served when [`Door::run`] runs.
    ///
    /// # Errors
    ///
    /// [`BindError`] names the act and the address.
    pub async fn bind(settings: Settings, house: House) -> Result<Self, BindError> {
        let mut listeners = Vec::with_capacity(settings.listen.len());
        for address in &settings.listen {
            let listener = TcpListener::bind(address).await;
            listeners.push(listener.map_err(|source| BindError {
                act: "listen on",
                address: *address,
                source,
            })?);
        }
        let House {
            hub,
            intake,
            durable,
            health,
            stamps,
        } = house;
        let shared = Shared {
            settings: Arc::new(RwLock::new(Arc::new(settings))),
            hub,
            intake,
            durable,
            health,
            stamps,
            counters: Arc::default(),
            presence: Presence::default(),
            shutdown: CancellationToken::new(),
            strangers: Strangers::default(),
            quiet: Quiet::default(),
            troubles: Troubles::default(),
        };
        Ok(Self {
            listeners,
            shared: Arc::new(shared),
        })
    }

    /// Where it listens: the real ports.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.listeners
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
            .collect()
    }

    /// What is counted, for the status line and the page.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.shared.counters)
    }

    /// For when [`Door::run`] has taken the door. Keeps nothing open: neither the door nor the intake.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle {
            settings: Arc::clone(&self.shared.settings),
            presence: self.shared.presence.clone(),
            counters: self.counters(),
        }
    }

    /// Serves until `shutdown`; then stops listening, lets every connection answer what it owes, and
    /// returns when the last has ended. A panic in a connection is the end of that connection only.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { listeners, shared } = self;
        let mut connections = JoinSet::new();
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut accepted: u64 = 0;
        // All are cancel-safe: accepting takes a socket or nothing.
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                socket = accept(&listeners) => match socket {
                    Ok((stream, peer)) => {
                        accepted = accepted.wrapping_add(1);
                        admit(stream, peer, &shared, &mut connections, accepted);
                    }
                    Err(error) => {
                        if let Some(unsaid) = shared.quiet.may_speak() {
                            tracing::warn!(reason = %error, unsaid, "could not accept a connection");
                        }
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = connections.join_next() => joined(ended, &shared),
                _ = second.tick() => {
                    for (key, message) in shared.hub.tick(Instant::now()) {
                        shared.publish_will(key.user.as_deref(), message);
                    }
                }
            }
        }
        drop(listeners);
        shared.shutdown.cancel();
        while let Some(ended) = connections.join_next().await {
            joined(ended, &shared);
        }
    }
}

fn admit(
    stream: TcpStream,
    peer: SocketAddr,
    shared: &Arc<Shared>,
    connections: &mut JoinSet<()>,
    name: u64,
) {
    let most = shared.settings().max_connections;
    if connections.len() >= most {
        // Whoever has said CONNECT stays; the stranger that kept silent longest makes room.
        let room = connections.len() < most.saturating_add(LEAVING) && shared.strangers.evict();
        if !room {
            count(&shared.counters.turned_away);
            if let Some(unsaid) = shared.quiet.may_speak() {
                tracing::warn!(%peer, max_connections = most, unsaid, "too many connections: closed a new one");
            }
            return;
        }
        count(&shared.counters.turned_away);
    }
    // Small packets that wait for their answer: Nagle's algorithm would add 40 ms to each. Without it, it is slow only.
    _ = stream.set_nodelay(true);
    let evicted = shared.strangers.enter(name);
    connections.spawn(serve::serve(stream, peer, Arc::clone(shared), evicted, name));
}

fn joined(ended: Result<(), JoinError>, shared: &Shared) {
    if let Err(error) = ended {
        count(&shared.counters.panics);
        if let Some(unsaid) = shared.quiet.may_speak() {
            tracing::error!(name: "ConnectionPanicked", reason = %error, unsaid, "a connection ended in a panic");
        }
    }
}

/// The next socket of any listener.
async fn accept(listeners: &[TcpListener]) -> io::Result<(TcpStream, SocketAddr)> {
    std::future::poll_fn(|context| {
        for listener in listeners {
            if let Poll::Ready(socket) = listener.poll_accept(context) {
                return Poll::Ready(socket);
            }
        }
        Poll::Pending
    })
    .await
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Connections that have not said CONNECT, oldest first: those who pay when there are too many.
#[derive(Debug, Default)]
struct Strangers(Mutex<BTreeMap<u64, CancellationToken>>);

impl Strangers {
    fn enter(&self, name: u64) -> CancellationToken {
        let evicted = CancellationToken::new();
        self.all().insert(name, evicted.clone());
        evicted
    }

    fn known(&self, name: u64) {
        self.all().remove(&name);
    }

    fn evict(&self) -> bool {
        self.all().pop_first().is_some_and(|(_, evicted)| {
            evicted.cancel();
            true
        })
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, CancellationToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps what strangers can cause from filling the log.
#[derive(Debug, Default)]
struct Quiet(Mutex<Seldom>);

impl Quiet {
    /// How many lines were not said since the last; none: do not speak.
    fn may_speak(&self) -> Option<u64> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .due(Instant::now())
    }
}
