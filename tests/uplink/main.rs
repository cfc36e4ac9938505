//! The uplink over the real journal, against an endpoint that does what endpoints do on a bad day: resets, late
//! answers in any order, refusals, silence. What it wrote down before it acknowledged is the truth.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that cannot go on fails, and tells its seed and its figures"
)]

mod dead;
#[expect(dead_code, reason = "the gateway's tests use more of it")]
mod endpoint;
mod faults;
mod refusals;
mod server;
mod webhooks;

use std::{path::PathBuf, sync::Arc, time::Duration};

use tidegate::{
    event::{Data, Draft, Epoch, Origin, Position, Sequence, Severity, cloudevents::Form},
    forward::{
        Pace, Status, Terms, Tls, http,
        mqtt::{Settings, Uplink, Version},
    },
    journal::{self, Journal, Owner, Recovered, SinkPlan, WhenFull, storage::simulated::Simulated},
    rule::state::Outcome,
    time::{Clock, EngineTime},
};
use tokio::{sync::watch, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

/// Longer than any wait here on the slowest machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// What draws at random draws from this; `TIDEGATE_SEED` replays another run.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("TIDEGATE_SEED").ok();
    let seed = given.map_or(20_261_121, |text| {
        text.parse().expect("TIDEGATE_SEED is a number")
    });
    println!("TIDEGATE_SEED={seed}");
    seed
}

pub(crate) fn long() -> bool {
    std::env::var_os("TIDEGATE_LONG").is_some()
}

/// Each has its own cursor.
pub(crate) const SINKS: [&str; 3] = ["cloud", "second", "third"];

/// A journal on a disk in memory.
pub(crate) struct Log {
    pub(crate) journal: Journal,
    pub(crate) epoch: Epoch,
    ended: journal::Running,
}

impl Log {
    pub(crate) fn open(disk: &Simulated, machine: &str) -> Self {
        let settings = journal::Settings {
            dir: PathBuf::from("/journal"),
            max_bytes: 64 * 1024 * 1024,
            max_age: None,
            when_full: WhenFull::DropOldest,
            state_delay: Duration::from_millis(5),
        };
        let owner = Owner {
            origin: origin(),
            machine_id: machine.to_owned(),
            board_serial: "b".to_owned(),
            sinks: SINKS
                .map(|name| SinkPlan {
                    name: name.parse().unwrap(),
                    required: true,
                    from_oldest: false,
                })
                .into(),
        };
        let (journal, Recovered { epoch, .. }, ended) =
            Journal::open_on(disk.mount(), &settings, owner, Clock::system()).unwrap();
        Self {
            journal,
            epoch,
            ended,
        }
    }

    pub(crate) fn new() -> Self {
        Self::open(&Simulated::default(), "m")
    }

    pub(crate) async fn append(&self, count: u64) {
        let last = self.journal.append(Outcome {
            events: (0..count).map(|_| draft()).collect(),
            ..Outcome::default()
        });
        self.is_durable(last).await;
    }

    async fn is_durable(&self, position: Position) {
        let mut durable = self.journal.durable();
        let reached = timeout(PATIENCE, durable.wait_for(|durable| *durable >= position)).await;
        reached.expect("in time").expect("the thread lives");
    }

    pub(crate) async fn close(self) {
        self.journal.close().await;
        self.ended.ended.await.unwrap().unwrap();
    }

    /// What a new run would begin after.
    pub(crate) fn acknowledged(&self) -> Sequence {
        self.journal.cursor(&"cloud".parse().unwrap()).sequence
    }
}

fn origin() -> Arc<Origin> {
    Arc::new(Origin {
        gateway: "gw".into(),
        source: "urn:tidegate:gateway:gw".into(),
        labels: [("site".to_owned(), "hq".to_owned())].into(),
        version: "0.1.0".into(),
    })
}

fn draft() -> Draft {
    Draft {
        kind: "io.tidegate.gateway.Test".into(),
        name: "Test".into(),
        subject: "gw".into(),
        about: "gw".into(),
        severity: Severity::Warning,
        at: EngineTime(7),
        transition: None,
        correlation: None,
        data: Data::Gateway(serde_json::Map::new()),
    }
}

pub(crate) const INFLIGHT: u16 = 16;

pub(crate) fn settings(port: u16, version: Version) -> Settings {
    Settings {
        terms: Terms {
            max_attempts: 10,
            ..Terms::new("cloud".parse().unwrap())
        },
        host: "127.0.0.1".to_owned(),
        port,
        tls: false,
        topic: "tidegate/{gateway}/events/{event}/{device}".to_owned(),
        status_topic: Some("tidegate/gw/status".to_owned()),
        version,
        form: Form::default(),
        client_id: "tidegate-gw".to_owned(),
        username: None,
        password_file: None,
        ca: None,
        cert: None,
        key: None,
        inflight: INFLIGHT,
        ack_timeout: PATIENCE,
    }
}

/// An uplink that runs, with waits short enough for hundreds of connections.
pub(crate) struct Running {
    pub(crate) status: watch::Receiver<Status>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Running {
    pub(crate) fn start(settings: Settings, log: &Log) -> Self {
        let pace = Pace {
            base: Duration::from_millis(1),
            cap: Duration::from_millis(4),
            ack_timeout: settings.ack_timeout,
        };
        let tls = Tls::load(&settings).unwrap();
        let uplink = Uplink::new(settings, tls, log.journal.clone(), origin(), log.epoch);
        Self::of(|stop, status| uplink.with_pace(pace).run(stop, status))
    }

    pub(crate) fn start_http(settings: http::Settings, log: &Log) -> Self {
        let tls = Tls::load(&settings).unwrap();
        let uplink = http::Uplink::new(settings, tls, log.journal.clone(), Clock::system())
            .with_backoff(Duration::from_millis(1), Duration::from_millis(4));
        Self::of(|stop, status| uplink.run(stop, status))
    }

    fn of<F: Future<Output = ()> + Send + 'static>(
        run: impl FnOnce(CancellationToken, watch::Sender<Status>) -> F,
    ) -> Self {
        let (sender, status) = watch::channel(Status::default());
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(run(stop.clone(), sender));
        Self { status, stop, tasks }
    }

    pub(crate) async fn status(&mut self, what: impl FnMut(&Status) -> bool) -> Status {
        let found = timeout(PATIENCE, self.status.wait_for(what)).await;
        found.expect("the status never said so").unwrap().clone()
    }

    pub(crate) async fn delivers(&mut self, sequence: u64) -> Status {
        self.status(|status| status.delivered >= Sequence(sequence)).await
    }

    pub(crate) async fn stops(mut self) {
        self.stop.cancel();
        let ended = timeout(PATIENCE, self.tasks.join_next()).await;
        ended.expect("the uplink did not end").unwrap().unwrap();
    }
}
