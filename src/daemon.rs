//! The wiring diagram in code: build, join, stop in order.
//!
//! Who spawns, joins: every stage lives in one `JoinSet`, and a stage that ends early or panics ends the process
//! (the service manager restarts it): there is no ghost of a daemon. Sources retry inside themselves.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{JoinError, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    config::{Config, Machine},
    event::{Epoch, Origin, Position},
    forward::{
        self,
        mqtt::{Tls, Uplink},
    },
    hub::Hub,
    journal::{self, Cursor, Journal, Owner, Recovered, SinkPlan},
    recorder::{self, Recorder},
    rule::{
        DeviceFacts,
        engine::{Engine, Setup},
        state::Outcome,
    },
    source::{
        self, INTAKE_LEN, Intake, Stamps,
        mqtt::{Door, House},
        serial::Serial,
    },
    time::Clock,
};

pub mod announce;
pub mod evaluate;
pub mod last_good;
mod local;
mod pulse;
pub mod signals;
pub mod systemd;
pub mod wall_clock;

use announce::Announcer;
use last_good::LastGood;
use signals::Signals;
use wall_clock::WallClock;

/// How long forwarders may go on after a stop was asked for; what is left stays in the journal.
pub const GRACE: Duration = Duration::from_secs(10);

/// How long the engine and the journal may take to stop, each. The sources' own is [`source::STOP_GRACE`].
const STAGE_GRACE: Duration = Duration::from_secs(3);

/// Why a gateway does not start, or no longer runs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The journal: could not open, or stopped after a failed write.
    #[error("{0}{remedy}", remedy = remedy(.0))]
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
        .map_err(|source| Error::System {
            act: "start the runtime",
            source,
        })
}

impl Daemon {
    /// Runs until SIGTERM or SIGINT.
    ///
    /// # Errors
    ///
    /// [`Error`] if it cannot start, or a stage ended by itself.
    pub async fn run_until_signal(self) -> Result<(), Error> {
        let (stop, at_once) = (CancellationToken::new(), CancellationToken::new());
        let signals = Signals::catch().map_err(|source| Error::System {
            act: "listen for signals",
            source,
        })?;
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
    pub async fn run(self, stop: CancellationToken, ready: impl FnOnce(&[SocketAddr])) -> Result<(), Error> {
        let (mut gateway, beat) = Gateway::build(&self.config, self.rejected.as_deref()).await?;
        if self.rejected.is_none()
            && let (Some(last_good), Some(path)) = (&self.last_good, &self.source)
        {
            last_good.keep(path, &self.config.sha256);
        }
        systemd::ready("ready");
        // After it: no sign of life before there is one.
        gateway.others.spawn(named("heartbeat", beat.run()));
        info!(
            gateway = %self.config.gateway.id,
            rules = self.config.rules.len(),
            door = ?gateway.addresses,
            "ready"
        );
        ready(&gateway.addresses);
        gateway.until(&stop).await?;
        systemd::stopping("stopping: delivering what is left");
        gateway.stop().await
    }
}

/// A gateway whose stages all run.
struct Gateway {
    journal: Journal,
    journal_ended: oneshot::Receiver<Result<(), journal::Error>>,
    recorder_ended: Option<recorder::Ended>,
    announcer: Announcer,
    /// Without any source the engine still has deadlines to keep: this sender lives until the stop.
    intake: Intake,
    addresses: Vec<SocketAddr>,
    stop_sources: CancellationToken,
    stop_forwarders: CancellationToken,
    sources: JoinSet<&'static str>,
    engine: JoinSet<&'static str>,
    forwarders: JoinSet<&'static str>,
    /// What ends with the process: the local event feed, the heartbeat.
    others: JoinSet<&'static str>,
}

impl Gateway {
    /// In flow order, last things first: the journal recovers, the engine takes up its state, then the sources
    /// may speak.
    async fn build(config: &Config, rejected: Option<&str>) -> Result<(Self, pulse::Beat), Error> {
        // An earlier provider stays: it can only be ring, the one built in.
        drop(rustls::crypto::ring::default_provider().install_default());
        let clock = Clock::system();
        let origin = Arc::new(Origin {
            gateway: Arc::clone(&config.gateway.id),
            source: Arc::clone(&config.gateway.source),
            labels: config.gateway.labels.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
        });
        // Before the journal: a start that cannot succeed leaves nothing in it.
        let sinks = load_tls(config)?;
        let (journal, recovered, journal_ended) = open_journal(config, &origin, &clock).await?;
        for finding in &recovered.findings {
            warn!("the journal's recovery: {finding}");
        }
        let gateway = Arc::clone(&config.gateway.id);
        let announcer = Announcer::new(journal.clone(), clock.clone(), gateway, &config.events.off);
        let engine = restore(config, &recovered, &journal, &clock);

        let (recorder, recorder_ended) = start_recorder(config, &clock)?.unzip();
        let (intake, deliveries) = mpsc::channel(INTAKE_LEN);
        let mut gateway = Self {
            journal: journal.clone(),
            journal_ended,
            recorder_ended,
            announcer: announcer.clone(),
            intake,
            addresses: Vec::new(),
            stop_sources: CancellationToken::new(),
            stop_forwarders: CancellationToken::new(),
            sources: JoinSet::new(),
            engine: JoinSet::new(),
            forwarders: JoinSet::new(),
            others: JoinSet::new(),
        };
        let (status, engine_status) = watch::channel(evaluate::Status::default());
        let evaluation = evaluate::evaluate(
            engine,
            deliveries,
            journal.clone(),
            recorder,
            clock.clone(),
            status,
        );
        gateway.engine.spawn(named("engine", evaluation));
        let uplinks = gateway.start_uplinks(sinks, &origin, recovered.epoch);
        let hub = Hub::new();
        gateway.others.spawn(named(
            "local event feed",
            local::serve(journal.clone(), hub.clone()),
        ));
        let heartbeat = config.events.heartbeat;
        let beat = pulse::Beat {
            journal,
            announcer,
            engine: engine_status,
            uplinks,
            epoch: recovered.epoch,
            heartbeat,
            stop: gateway.stop_sources.clone(),
        };
        gateway.start_sources(config, &clock, hub).await?;
        let mut wall_clock = WallClock::new(
            clock.clone(),
            gateway.journal.clone(),
            gateway.announcer.clone(),
            recovered.unsynchronised,
        );
        // Said only now that nothing more can fail: a gateway that restarts again and again fills no journal.
        gateway
            .announcer
            .started(&recovered, clock.boot_id(), &config.sha256);
        // Before anything else is said: what this boot did not know so far it may know by now.
        wall_clock.look();
        gateway
            .others
            .spawn(named("watch of the wall clock", wall_clock.watch()));
        if let Some(report) = rejected {
            gateway
                .announcer
                .configuration_rejected(report, "the last configuration that loaded");
        }
        Ok((gateway, beat))
    }

    async fn start_sources(&mut self, config: &Config, clock: &Clock, hub: Hub) -> Result<(), Error> {
        let stamps = Arc::new(Stamps::new(clock.clone(), config.events.max_clock_skew));
        if let Some(settings) = config.mqtt.clone() {
            let house = House {
                hub,
                intake: self.intake.clone(),
                durable: self.journal.durable(),
                health: self.journal.health(),
                stamps: Arc::clone(&stamps),
            };
            let door = Door::bind(settings, house).await?;
            self.addresses = door.local_addrs();
            self.sources
                .spawn(named("door", door.run(self.stop_sources.clone())));
        }
        for settings in config.serial.clone() {
            let line = Serial::new(settings, self.intake.clone(), Arc::clone(&stamps), Arc::default());
            self.sources
                .spawn(named("serial line", line.run(self.stop_sources.clone())));
        }
        Ok(())
    }

    fn start_uplinks(
        &mut self,
        sinks: Vec<(forward::mqtt::Settings, Tls)>,
        origin: &Arc<Origin>,
        epoch: Epoch,
    ) -> Vec<watch::Receiver<forward::Status>> {
        let mut statuses = Vec::new();
        for (settings, tls) in sinks {
            let uplink = Uplink::new(settings, tls, self.journal.clone(), Arc::clone(origin), epoch);
            let (status, watch) = watch::channel(forward::Status::default());
            statuses.push(watch);
            self.forwarders
                .spawn(named("uplink", uplink.run(self.stop_forwarders.clone(), status)));
        }
        statuses
    }

    /// Waits for `stop`; a stage that ends before it is an error.
    async fn until(&mut self, stop: &CancellationToken) -> Result<(), Error> {
        // All cancel-safe: a token, joins, and a oneshot by reference.
        let early = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            ended = &mut self.journal_ended => return Err(journal_error(ended)),
            Some(ended) = self.sources.join_next() => ended,
            Some(ended) = self.engine.join_next() => ended,
            Some(ended) = self.forwarders.join_next() => ended,
            Some(ended) = self.others.join_next() => ended,
        };
        // Stages end when the journal does, and may be seen first: its own reason is the one to tell.
        let journal = timeout(Duration::from_secs(1), &mut self.journal_ended).await;
        Err(journal.map_or_else(|_| stage_ended(early), journal_error))
    }

    /// In flow order: no more readings, the engine drains, the uplinks deliver, the journal closes. Past each
    /// grace it goes on anyway: the journal holds the rest.
    async fn stop(mut self) -> Result<(), Error> {
        info!("stopping: no more readings are taken");
        self.stop_sources.cancel();
        drop(self.intake);
        if !finish(&mut self.sources, source::STOP_GRACE).await {
            warn!("some connections were still owed an answer; their devices will send again");
        }
        if !finish(&mut self.engine, STAGE_GRACE).await {
            // No `closed` frame: this was no clean stop, and the next start shall know it.
            return Err(Error::StageEnded("engine, while it stopped,".into()));
        }
        if let Some(ended) = self.recorder_ended.take()
            && timeout(STAGE_GRACE, ended).await.is_err()
        {
            warn!("the recorder did not stop in time; the newest readings are not recorded");
        }
        settle(&self.journal, &self.announcer).await;
        self.stop_forwarders.cancel();
        if !finish(&mut self.forwarders, GRACE).await {
            info!("what is not delivered yet stays in the journal");
        }
        self.others.shutdown().await;
        if timeout(STAGE_GRACE, self.journal.close()).await.is_err() {
            warn!("the journal did not close in time: the next start recovers it");
            return Ok(());
        }
        match self.journal_ended.await {
            Ok(closed) => {
                closed?;
                info!("stopped; the journal is closed");
                Ok(())
            }
            Err(_) => Err(Error::StageEnded("journal thread".into())),
        }
    }
}

/// Says goodbye, unless that is off, and waits until all that was decided is durable: forwarders go on with what
/// is durable when they are told, the rest is sent after the next start.
async fn settle(journal: &Journal, announcer: &Announcer) {
    // An empty commit stands behind all that the engine decided.
    let stopped = announcer.stopped();
    let stopped = stopped.unwrap_or_else(|| journal.append(Outcome::default()));
    let mut durable = journal.durable();
    let written = durable.wait_for(|position| *position >= stopped);
    drop(timeout(STAGE_GRACE, written).await.map(drop));
}

/// A stage that tells its name when it ends.
async fn named(name: &'static str, stage: impl Future<Output = ()>) -> &'static str {
    stage.await;
    name
}

/// Whether all ended in time and without a panic; those that did not end are cancelled.
async fn finish(stages: &mut JoinSet<&'static str>, grace: Duration) -> bool {
    let ended = async {
        let mut orderly = true;
        while let Some(ended) = stages.join_next().await {
            orderly &= ended.is_ok();
        }
        orderly
    };
    let orderly = timeout(grace, ended).await.unwrap_or(false);
    stages.shutdown().await;
    orderly
}

fn start_recorder(config: &Config, clock: &Clock) -> Result<Option<(Recorder, recorder::Ended)>, Error> {
    let Some(wanted) = &config.recorder else {
        return Ok(None);
    };
    let settings = recorder::Settings {
        dir: recorder::beside(&config.journal.dir),
        max_bytes: wanted.max_bytes,
    };
    let started = Recorder::start(settings, clock.clone()).map_err(|source| Error::System {
        act: "start the recorder's thread",
        source,
    })?;
    Ok(Some(started))
}

fn load_tls(config: &Config) -> Result<Vec<(forward::mqtt::Settings, Tls)>, Error> {
    let sinks = config.sinks.iter();
    sinks.map(|sink| Ok((sink.clone(), Tls::load(sink)?))).collect()
}

type Opened = (Journal, Recovered, oneshot::Receiver<Result<(), journal::Error>>);

async fn open_journal(config: &Config, origin: &Arc<Origin>, clock: &Clock) -> Result<Opened, Error> {
    let (settings, owner, clock) = (
        config.journal.clone(),
        owner(config, Arc::clone(origin)),
        clock.clone(),
    );
    let opening = tokio::task::spawn_blocking(move || Journal::open(&settings, owner, clock));
    let (journal, recovered, running) = opening
        .await
        .map_err(|_| Error::StageEnded("journal's recovery".into()))??;
    Ok((journal, recovered, running.ended))
}

/// The engine with the state that the journal kept; what edited rules and the time since ended is committed.
fn restore(config: &Config, recovered: &Recovered, journal: &Journal, clock: &Clock) -> Engine {
    // A serial line's device is as good as a [[device]]: last, so that it changes no name and no label.
    let lines = config.serial.iter().flat_map(|line| {
        let polled = line.polls.iter().filter_map(|poll| poll.device.as_ref());
        line.device.iter().chain(polled)
    });
    let lines = lines.map(|id| DeviceFacts::of(id.as_str()));
    let setup = Setup {
        rules: config.rules.clone(),
        devices: config.devices.iter().cloned().chain(lines).collect(),
        epoch: recovered.epoch,
        max_devices: config.max_devices,
        max_metrics: config.max_metrics,
    };
    let mut outcome = Outcome::default();
    let mut engine = Engine::restore(setup, &recovered.state, clock.moment(), &mut outcome);
    evaluate::commit(&mut engine, outcome, journal);
    engine
}

fn owner(config: &Config, origin: Arc<Origin>) -> Owner {
    let machine = Machine::read();
    let sinks = config.sinks.iter().map(|sink| SinkPlan {
        name: sink.name.clone(),
        required: sink.required,
        from_oldest: sink.from_oldest,
    });
    Owner {
        origin,
        machine_id: machine.machine_id,
        board_serial: machine.board_serial,
        sinks: sinks.collect(),
    }
}

/// What to do about a journal that does not open, where the error itself does not say it.
fn remedy(error: &journal::Error) -> &'static str {
    use std::io::ErrorKind;
    let journal::Error::Io { source, .. } = error else {
        return "";
    };
    match source.kind() {
        ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
            "; `[journal] dir` must be a directory: move the file away, or name another"
        }
        ErrorKind::PermissionDenied => {
            "; give the directory to the user that runs tidegate (under systemd StateDirectory= does), or name another in `[journal] dir`"
        }
        ErrorKind::ReadOnlyFilesystem => {
            "; mount the filesystem writable, or name another directory in `[journal] dir`"
        }
        ErrorKind::StorageFull => "; make room on the filesystem, or lower `[journal] max-bytes`",
        _ => "",
    }
}

fn stage_ended(joined: Result<&'static str, JoinError>) -> Error {
    match joined {
        Ok(stage) => Error::StageEnded(stage.into()),
        Err(error) => Error::StageEnded(format!("stage that panicked ({error})")),
    }
}

fn journal_error(ended: Result<Result<(), journal::Error>, oneshot::error::RecvError>) -> Error {
    match ended {
        Ok(Err(error)) => Error::Journal(error),
        Ok(Ok(())) | Err(_) => Error::StageEnded("journal thread".into()),
    }
}

/// A cursor at what is durable now: for readers that begin with what comes next.
fn at_the_end(position: Position) -> Cursor {
    Cursor {
        position,
        ..Cursor::default()
    }
}

#[cfg(test)]
mod tests;
