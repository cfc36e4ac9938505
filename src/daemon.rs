//! The wiring diagram in code: build, join, stop in order.
//!
//! Who spawns, joins: every stage lives in one `JoinSet`, and a stage that ends early or panics ends the process
//! (the service manager restarts it): there is no ghost of a daemon. Sources retry inside themselves.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    config::{Config, Machine},
    event::{Origin, Position},
    forward,
    hub::Hub,
    journal::{self, Cursor, Journal, Owner, SinkPlan},
    rule::{
        engine::{Engine, Setup},
        state::Outcome,
    },
    source::{self, INTAKE_LEN, Stamps, mqtt::{Door, House}, serial::Serial},
    time::Clock,
};

pub mod announce;
pub mod evaluate;
pub mod last_good;
mod local;
mod pulse;
pub mod signals;
pub mod systemd;

use announce::Announcer;
use last_good::LastGood;
use signals::Signals;

/// How long forwarders may go on after a stop was asked for; what is left stays in the journal.
pub const GRACE: Duration = Duration::from_secs(10);

/// How long the door may take to answer what it owes.
const DOOR_GRACE: Duration = Duration::from_secs(3);

/// Why a gateway does not start, or no longer runs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The journal: could not open, or stopped after a failed write.
    #[error(transparent)]
    Journal(#[from] journal::Error),
    /// The door: an address is taken, or not ours.
    #[error(transparent)]
    Door(#[from] source::mqtt::BindError),
    /// The uplink: a certificate or password file.
    #[error(transparent)]
    Uplink(#[from] forward::mqtt::Error),
    /// The system refused something a daemon needs.
    #[error("could not {act}: {source}")]
    System {
        /// What, as a verb.
        act: &'static str,
        /// What it said.
        source: std::io::Error,
    },
    /// A stage ended by itself: a bug, or the stage has said why.
    #[error("the {0} ended by itself; restarting is the remedy, and the log above has the reason")]
    StageEnded(String),
}

/// One gateway, ready to run.
#[derive(Debug)]
pub struct Daemon {
    /// What to do.
    pub config: Config,
    /// The report on a configuration that was not used, if one was not.
    pub rejected: Option<String>,
    /// Where the configuration is kept once it has proven to work.
    pub last_good: Option<LastGood>,
    /// The configuration's file.
    pub source: Option<PathBuf>,
}

/// The runtime every gateway runs on: two workers are enough.
///
/// # Errors
///
/// If the system has no more threads or descriptors.
pub fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| Error::System { act: "start the runtime", source })
}

impl Daemon {
    /// Runs until SIGTERM or SIGINT.
    ///
    /// # Errors
    ///
    /// [`Error`] if it cannot start, or a stage ended by itself.
    pub async fn run_until_signal(self) -> Result<(), Error> {
        let (stop, at_once) = (CancellationToken::new(), CancellationToken::new());
        let signals =
            Signals::catch().map_err(|source| Error::System { act: "listen for signals", source })?;
        let mut watching = JoinSet::new();
        watching.spawn(signals.watch(stop.clone(), at_once.clone()));
        // Insisting drops the orderly stop half-way, which loses nothing: the journal recovers.
        tokio::select! {
            ended = self.run(stop, |_| ()) => ended,
            () = at_once.cancelled() => Ok(()),
        }
    }

    /// Runs until `stop` is cancelled. `ready` is called once, with the door's addresses, after recovery, with
    /// rules compiled and listeners bound: not after the uplink connects.
    ///
    /// # Errors
    ///
    /// As [`Daemon::run_until_signal`].
    pub async fn run(self, stop: CancellationToken, ready: impl FnOnce(&[std::net::SocketAddr])) -> Result<(), Error> {
        let Self { config, rejected, last_good, source } = self;
        // An earlier provider stays: it can only be ring, the one built in.
        drop(rustls::crypto::ring::default_provider().install_default());
        let clock = Clock::system();
        let origin = Arc::new(Origin {
            gateway: Arc::clone(&config.gateway.id),
            source: Arc::clone(&config.gateway.source),
            labels: config.gateway.labels.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
        });
        let settings = config.journal.clone();
        let owner = owner(&config, Arc::clone(&origin));
        let opening = clock.clone();
        let (journal, recovered, running) =
            tokio::task::spawn_blocking(move || Journal::open(&settings, owner, opening))
                .await
                .map_err(|_| Error::StageEnded("journal's recovery".into()))??;
        let announcer = Announcer::new(journal.clone(), clock.clone(), Arc::clone(&config.gateway.id), &config.events.off);
        announcer.started(&recovered, clock.moment().boot_id, &config.sha256);
        if let Some(report) = &rejected {
            announcer.configuration_rejected(report);
        }

        let mut outcome = Outcome::default();
        let setup = Setup {
            rules: config.rules.clone(),
            devices: config.devices.clone(),
            epoch: recovered.epoch,
            max_devices: config.max_devices,
            max_metrics: config.max_metrics,
        };
        let mut engine = Engine::restore(setup, &recovered.state, clock.moment(), &mut outcome);
        if !outcome.events.is_empty() || !outcome.state.is_empty() {
            let position = journal.append(outcome);
            engine.committed(position);
        }

        let mut stages: JoinSet<&'static str> = JoinSet::new();
        let hub = Hub::new();
        let stamps = Arc::new(Stamps::new(clock.clone(), config.events.max_clock_skew));
        let (intake, deliveries) = mpsc::channel(INTAKE_LEN);
        let counters = Arc::new(evaluate::Counters::default());

        let mut addresses = Vec::new();
        let mut door_stage = JoinSet::new();
        let sources_stop = CancellationToken::new();
        if let Some(settings) = config.mqtt.clone() {
            let house = House {
                hub: hub.clone(),
                intake: intake.clone(),
                durable: journal.durable(),
                health: journal.health(),
                stamps: Arc::clone(&stamps),
            };
            let door = Door::bind(settings, house).await?;
            addresses = door.local_addrs();
            let stop = sources_stop.clone();
            door_stage.spawn(async move {
                door.run(stop).await;
                "door"
            });
        }
        for settings in config.serial.clone() {
            let line = Serial::new(settings, intake.clone(), Arc::clone(&stamps), Arc::default());
            let stop = sources_stop.clone();
            door_stage.spawn(async move {
                line.run(stop).await;
                "serial line"
            });
        }
        // Without any source the engine still has deadlines to keep: this sender lives until the stop.
        let last_intake = intake;

        let mut engine_stage = JoinSet::new();
        engine_stage.spawn({
            let (journal, clock, counters) = (journal.clone(), clock.clone(), Arc::clone(&counters));
            evaluate::evaluate(engine, deliveries, journal, clock, counters)
        });

        let forward_stop = CancellationToken::new();
        let mut uplinks: Vec<watch::Receiver<forward::Status>> = Vec::new();
        let mut forward_stage = JoinSet::new();
        for settings in config.sinks.clone() {
            let uplink = forward::mqtt::Uplink::new(settings, journal.clone(), Arc::clone(&origin), recovered.epoch)?;
            let (status, watch) = watch::channel(forward::Status::default());
            uplinks.push(watch);
            let stop = forward_stop.clone();
            forward_stage.spawn(async move {
                uplink.run(stop, status).await;
                "uplink"
            });
        }
        stages.spawn({
            let (journal, hub) = (journal.clone(), hub.clone());
            async move {
                local::serve(journal, hub).await;
                "local event feed"
            }
        });
        stages.spawn({
            let beat = pulse::Beat {
                journal: journal.clone(),
                announcer: announcer.clone(),
                engine: Arc::clone(&counters),
                uplinks: uplinks.clone(),
                epoch: recovered.epoch,
                heartbeat: config.events.heartbeat,
            };
            async move {
                beat.run().await;
                "heartbeat"
            }
        });

        if rejected.is_none()
            && let (Some(last_good), Some(path)) = (&last_good, &source)
        {
            last_good.keep(path);
        }
        systemd::ready("ready");
        info!(
            gateway = %origin.gateway, epoch = %recovered.epoch, rules = config.rules.len(), door = ?addresses,
            "ready"
        );
        ready(&addresses);

        let mut ended = running.ended;
        // All cancel-safe: joins, a token and a oneshot by reference.
        let early: Option<Error> = tokio::select! {
            () = stop.cancelled() => None,
            died = &mut ended => return Err(journal_error(died)),
            joined = stages.join_next() => Some(stage_ended(joined)),
            joined = door_stage.join_next(), if !door_stage.is_empty() => Some(stage_ended(joined)),
            joined = forward_stage.join_next(), if !forward_stage.is_empty() => Some(stage_ended(joined)),
            joined = engine_stage.join_next() => Some(stage_ended(joined.map(|end| end.map(|()| "engine")))),
        };
        if let Some(error) = early {
            // Whoever saw the journal die first ended: the journal's own reason is the one to tell.
            return Err(timeout(Duration::from_secs(1), ended).await.map_or(error, journal_error));
        }

        systemd::stopping("stopping: delivering what is left");
        info!("stopping: no more readings are taken");
        sources_stop.cancel();
        drop(last_intake);
        let sources_done = async { while door_stage.join_next().await.is_some() {} };
        if timeout(DOOR_GRACE, sources_done).await.is_err() {
            warn!("some connections were still owed an answer; their devices will send again");
            door_stage.shutdown().await;
        }
        if timeout(DOOR_GRACE, engine_stage.join_next()).await.is_err() {
            engine_stage.shutdown().await;
        }
        let stopped = announcer.stopped();
        let mut durable = journal.durable();
        // Forwarders go on with what is durable when they are told; what is not by then is sent after the next start.
        let written = durable.wait_for(|position| *position >= stopped);
        drop(timeout(DOOR_GRACE, written).await.map(drop));
        forward_stop.cancel();
        let forwarded = async { while forward_stage.join_next().await.is_some() {} };
        if timeout(GRACE, forwarded).await.is_err() {
            info!("what is not delivered yet stays in the journal");
            forward_stage.shutdown().await;
        }
        stages.shutdown().await;
        if timeout(DOOR_GRACE, journal.close()).await.is_err() {
            warn!("the journal did not close in time: the next start recovers it");
            return Ok(());
        }
        match ended.await {
            Ok(result) => Ok(result?),
            Err(_) => Err(Error::StageEnded("journal thread".into())),
        }
    }
}

fn owner(config: &Config, origin: Arc<Origin>) -> Owner {
    let machine = Machine::read();
    let sinks = config.sinks.iter().map(|sink| SinkPlan {
        name: sink.name.clone(),
        required: sink.required,
        from_oldest: sink.from_oldest,
    });
    Owner { origin, machine_id: machine.machine_id, board_serial: machine.board_serial, sinks: sinks.collect() }
}

fn stage_ended(joined: Option<Result<&'static str, tokio::task::JoinError>>) -> Error {
    match joined {
        Some(Ok(stage)) => Error::StageEnded(stage.into()),
        Some(Err(error)) => Error::StageEnded(format!("stage that panicked ({error})")),
        None => Error::StageEnded("last stage".into()),
    }
}

fn journal_error(died: Result<Result<(), journal::Error>, tokio::sync::oneshot::error::RecvError>) -> Error {
    match died {
        Ok(Err(error)) => Error::Journal(error),
        Ok(Ok(())) | Err(_) => Error::StageEnded("journal thread".into()),
    }
}

/// A cursor at what is durable now: for readers that begin with what comes next.
fn at_the_end(position: Position) -> Cursor {
    Cursor { position, ..Cursor::default() }
}
