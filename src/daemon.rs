//! The wiring diagram in code: build, join, stop in order.
//!
//! Who spawns, joins: every stage lives in a `JoinSet`, and a stage that ends early or panics ends the process
//! (the service manager restarts it): there is no ghost of a daemon. Sources retry inside themselves.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{self, mpsc, oneshot},
    task::{JoinError, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    config::{Config, Machine},
    control::Reloaded,
    event::{Epoch, Origin, Position, gateway::ConfigurationChanged},
    forward,
    hub::Hub,
    journal::{self, Journal, Owner, Recovered, SinkPlan},
    reading::DeviceId,
    recorder::{self, Recorder},
    rule::{
        DeviceFacts,
        engine::{Engine, Setup},
        state::Outcome,
    },
    source::{
        self, INTAKE_LEN, Intake, Stamps,
        mqtt::{self, Door, House},
    },
    time::Clock,
};

pub mod announce;
mod control;
pub mod evaluate;
pub mod last_good;
mod lines;
mod local;
mod pulse;
mod reload;
pub mod signals;
mod standing;
pub mod systemd;
mod uplinks;
pub mod wall_clock;
mod watch;

use announce::Announcer;
use control::{Desk, Socket};
use evaluate::Asked;
use last_good::LastGood;
use lines::Lines;
use reload::{Plan, Refused, Reload};
use signals::Signals;
use uplinks::{Loaded, Uplinks};
use wall_clock::WallClock;
use watch::{Named, Watch};

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
    /// Where to make the control socket; none: nobody can ask anything.
    pub socket: Option<PathBuf>,
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
        let (reload, reloads) = mpsc::channel(1);
        watching.spawn(signals.watch(stop.clone(), at_once.clone(), {
            let reload = reload.clone();
            // Whoever sent the signal reads the log. One that comes while another waits is the same.
            move || drop(reload.try_send(Reload(oneshot::channel().0)))
        }));
        // Insisting drops the orderly stop half-way, which loses nothing: the journal recovers.
        tokio::select! {
            ended = self.serve(stop, (reload, reloads), |_| ()) => ended,
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
        self.serve(stop, mpsc::channel(1), ready).await
    }

    async fn serve(
        mut self,
        stop: CancellationToken,
        (reload, mut reloads): (mpsc::Sender<Reload>, mpsc::Receiver<Reload>),
        ready: impl FnOnce(&[SocketAddr]),
    ) -> Result<(), Error> {
        let (mut gateway, beat) = Gateway::build(&self.config, self.rejected.as_deref()).await?;
        if self.rejected.is_none()
            && let Some(last_good) = &self.last_good
        {
            last_good.keep(&self.config.files);
        }
        self.listen(&mut gateway, reload);
        systemd::ready("ready");
        // After it: no sign of life before there is one.
        gateway
            .others
            .spawn(staged("heartbeat", gateway.end.clone(), beat.run()));
        info!(
            gateway = %self.config.gateway.id,
            rules = self.config.rules.len(),
            door = ?gateway.addresses,
            "ready"
        );
        ready(&gateway.addresses);
        loop {
            // All are cancel-safe: a token, joins, and a channel.
            tokio::select! {
                () = stop.cancelled() => break,
                early = gateway.fallen() => return Err(early),
                Some(Reload(answer)) = reloads.recv() => {
                    let reloaded = self.reload(&mut gateway).await;
                    // Whoever asked by a signal reads the log.
                    drop(answer.send(reloaded));
                }
            }
        }
        systemd::stopping("stopping: delivering what is left");
        gateway.stop().await
    }

    /// Opens the control socket. Without it everything else still runs.
    fn listen(&self, gateway: &mut Gateway, reload: mpsc::Sender<Reload>) {
        let Some(path) = &self.socket else { return };
        match Socket::make(path) {
            Ok(socket) => {
                let serving = socket.serve(gateway.desk(reload));
                gateway
                    .others
                    .spawn(staged("control socket", gateway.end.clone(), serving));
            }
            Err(error) => warn!(
                "could not make the control socket {}: {error}; `tidegate reload`, `mute` and the like will not reach \
                 this gateway (--socket chooses another place)",
                path.display()
            ),
        }
    }

    /// Applies the configuration file as it is now, unless it is wrong.
    async fn reload(&mut self, gateway: &mut Gateway) -> Result<(Reloaded, Position), Refused> {
        let Some(path) = self.source.clone() else {
            return Err(Refused("this gateway was started without a file\n".to_owned()));
        };
        systemd::reloading("reading the configuration again");
        let running = self.config.clone();
        let planned = tokio::task::spawn_blocking(move || Plan::make(&path, &running)).await;
        let planned = planned.unwrap_or_else(|error| Err(Refused(error.to_string())));
        let reloaded = match planned {
            Err(Refused(report)) => {
                error!("the configuration is wrong; going on with the one that runs:\n{report}");
                gateway
                    .announcer
                    .configuration_rejected(&report, "the configuration that runs");
                Err(Refused(report))
            }
            Ok(plan) => Ok(self.apply(gateway, plan).await),
        };
        systemd::ready("ready");
        reloaded
    }

    async fn apply(&mut self, gateway: &mut Gateway, plan: Plan) -> (Reloaded, Position) {
        let Plan {
            config,
            sinks,
            changed,
            needs_restart,
        } = plan;
        for warning in &config.warnings {
            warn!("{warning}");
        }
        let old = std::mem::replace(&mut self.config, config);
        let config = &self.config;
        gateway.apply(config, sinks).await;
        // What waits for a restart differs each time, and is told once.
        let recorded = if config.sha256 == old.sha256 {
            None
        } else {
            gateway.announcer.record(&ConfigurationChanged {
                old_sha256: old.sha256,
                new_sha256: config.sha256.clone(),
                changed: announce::bounded_lines(&changed),
                needs_restart: needs_restart.clone(),
            })
        };
        // Without the event: an empty commit stands behind all that was decided.
        let position = recorded.unwrap_or_else(|| gateway.journal.append(Outcome::default()));
        if let Some(last_good) = &self.last_good {
            last_good.keep(&config.files);
        }
        info!(
            changed = changed.join(", "),
            "the configuration was read again and is applied"
        );
        if !needs_restart.is_empty() {
            warn!("needs a restart: {}", needs_restart.join(", "));
        }
        let reloaded = Reloaded {
            changed,
            needs_restart,
            warnings: config.warnings.clone(),
        };
        (reloaded, position)
    }
}

/// A gateway whose stages all run.
struct Gateway {
    journal: Journal,
    journal_ended: oneshot::Receiver<Result<(), journal::Error>>,
    recorder_ended: Option<recorder::Ended>,
    announcer: Announcer,
    epoch: Epoch,
    clock: Clock,
    origin: Arc<Origin>,
    asked: mpsc::Sender<Asked>,
    /// Without any source the engine still has deadlines to keep: this sender lives until the stop.
    intake: Intake,
    stamps: Arc<Stamps>,
    addresses: Vec<SocketAddr>,
    door: Option<mqtt::Handle>,
    lines: Lines,
    uplinks: Uplinks,
    heartbeat: sync::watch::Sender<Option<Duration>>,
    named: sync::watch::Sender<Named>,
    stop_sources: CancellationToken,
    /// Nobody cancels it: what has it never ends before the process.
    end: CancellationToken,
    sources: JoinSet<Ended>,
    engine: JoinSet<Ended>,
    /// What ends with the process: the local event feed, the heartbeat, the control socket.
    others: JoinSet<Ended>,
}

impl Gateway {
    /// In flow order, last things first: the journal recovers, the engine takes up its state, then the sources
    /// may speak.
    async fn build(config: &Config, rejected: Option<&str>) -> Result<(Self, pulse::Beat), Error> {
        // An earlier provider stays: it can only be ring, the one built in.
        drop(rustls::crypto::ring::default_provider().install_default());
        let clock = Clock::system();
        let origin = origin(config);
        // Before the journal: a start that cannot succeed leaves nothing in it.
        let sinks = config
            .sinks
            .iter()
            .map(Loaded::load)
            .collect::<Result<Vec<_>, _>>()?;
        let (journal, recovered, journal_ended) = open_journal(config, &origin, &clock).await?;
        for finding in &recovered.findings {
            warn!("the journal's recovery: {finding}");
        }
        let gateway = Arc::clone(&config.gateway.id);
        let announcer = Announcer::new(journal.clone(), clock.clone(), gateway, &config.events.off);
        let engine = restore(config, &recovered, &announcer, &clock);

        let (recorder, recorder_ended) = start_recorder(config, &clock)?.unzip();
        let (intake, deliveries) = mpsc::channel(INTAKE_LEN);
        let (asked, questions) = mpsc::channel(evaluate::QUESTIONS);
        let stamps =
            Stamps::new(clock.clone(), config.events.max_clock_skew).in_zone(config.gateway.timezone.clone());
        let stamps = Arc::new(stamps);
        let mut gateway = Self {
            uplinks: Uplinks::new(journal.clone(), Arc::clone(&origin), recovered.epoch),
            lines: Lines::new(Arc::clone(&stamps)),
            journal: journal.clone(),
            journal_ended,
            recorder_ended,
            announcer: announcer.clone(),
            epoch: recovered.epoch,
            clock: clock.clone(),
            origin,
            asked,
            intake,
            stamps,
            addresses: Vec::new(),
            door: None,
            heartbeat: sync::watch::Sender::new(config.events.heartbeat),
            named: sync::watch::Sender::new(named(config)),
            stop_sources: CancellationToken::new(),
            end: CancellationToken::new(),
            sources: JoinSet::new(),
            engine: JoinSet::new(),
            others: JoinSet::new(),
        };
        let (status, engine_status) = sync::watch::channel(evaluate::Status::default());
        let house = evaluate::House {
            announcer: announcer.clone(),
            recorder,
            clock: clock.clone(),
            checkpoint: config.checkpoint,
        };
        let evaluation = evaluate::evaluate(engine, deliveries, questions, house, status);
        let stop = gateway.stop_sources.clone();
        gateway.engine.spawn(staged("engine", stop, evaluation));
        gateway.uplinks.set(sinks).await;
        let hub = Hub::new();
        let feed = local::serve(journal.clone(), recovered.end, hub.clone());
        gateway
            .others
            .spawn(staged("local event feed", gateway.end.clone(), feed));
        let beat = pulse::Beat {
            journal,
            announcer,
            engine: engine_status,
            uplinks: gateway.uplinks.views(),
            epoch: recovered.epoch,
            heartbeat: gateway.heartbeat.subscribe(),
            stop: gateway.stop_sources.clone(),
        };
        gateway.start_sources(config, hub).await?;
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
        gateway.others.spawn(staged(
            "watch of the wall clock",
            gateway.end.clone(),
            wall_clock.watch(),
        ));
        if let Some(report) = rejected {
            gateway
                .announcer
                .configuration_rejected(report, "the last configuration that loaded");
        }
        // An engine that has gone is told by its stage's end; nobody waits for the answer.
        let list = evaluate::Asked::List(recovered.epoch, oneshot::channel().0);
        _ = gateway.asked.send(list).await.is_ok();
        let watch = gateway.watch(config).run();
        gateway
            .others
            .spawn(staged("watch", gateway.stop_sources.clone(), watch));
        Ok((gateway, beat))
    }

    async fn start_sources(&mut self, config: &Config, hub: Hub) -> Result<(), Error> {
        if let Some(settings) = config.mqtt.clone() {
            let house = House {
                hub,
                intake: self.intake.clone(),
                durable: self.journal.durable(),
                health: self.journal.health(),
                stamps: Arc::clone(&self.stamps),
            };
            let door = Door::bind(settings, house).await?;
            self.addresses = door.local_addrs();
            self.door = Some(door.handle());
            let stop = self.stop_sources.clone();
            self.sources.spawn(staged("door", stop.clone(), door.run(stop)));
        }
        self.set_lines(config);
        Ok(())
    }

    fn set_lines(&mut self, config: &Config) {
        self.lines.set(
            &config.serial,
            &self.intake,
            &self.stop_sources,
            &mut self.sources,
        );
    }

    /// Applies another configuration, in flow order from its end: what is decided by the new rules is told under the
    /// new labels, and kept for the new sinks.
    async fn apply(&mut self, config: &Config, sinks: Vec<Loaded>) {
        self.origin = origin(config);
        self.journal.reconfigure(Arc::clone(&self.origin), plans(config));
        self.announcer.set_off(&config.events.off);
        self.heartbeat.send_if_modified(|heartbeat| {
            let changed = *heartbeat != config.events.heartbeat;
            *heartbeat = config.events.heartbeat;
            changed
        });
        self.stamps
            .set(config.events.max_clock_skew, config.gateway.timezone.clone());
        self.named.send_replace(named(config));
        let (answer, answered) = oneshot::channel();
        let setup = Box::new(setup(config, self.epoch));
        // An engine that has gone is told by its stage's end.
        if self
            .asked
            .send(Asked::Reconfigure(setup, config.checkpoint, answer))
            .await
            .is_ok()
        {
            drop(answered.await);
        }
        if let (Some(door), Some(settings)) = (&self.door, config.mqtt.clone()) {
            door.reconfigure(settings);
        }
        self.set_lines(config);
        self.uplinks.set(sinks).await;
    }

    fn watch(&self, config: &Config) -> Watch {
        Watch {
            announcer: self.announcer.clone(),
            clock: self.clock.clone(),
            epoch: self.epoch,
            journal: self.journal.clone(),
            settings: config.journal.clone(),
            asked: self.asked.clone(),
            uplinks: self.uplinks.views(),
            lines: self.lines.views(),
            presence: self.door.as_ref().map(mqtt::Handle::presence),
            named: self.named.subscribe(),
            stop: self.stop_sources.clone(),
        }
    }

    /// What the control socket's commands need.
    fn desk(&self, reload: mpsc::Sender<Reload>) -> Desk {
        Desk {
            engine: self.asked.clone(),
            reload,
            journal: self.journal.clone(),
            clock: self.clock.clone(),
            epoch: self.epoch,
        }
    }

    /// Waits until a stage has ended that was not told to, and says why. Cancel-safe.
    async fn fallen(&mut self) -> Error {
        // All cancel-safe: joins, and a oneshot by reference.
        let early = tokio::select! {
            ended = &mut self.journal_ended => return journal_error(ended),
            ended = fallen(&mut self.sources) => ended,
            ended = fallen(&mut self.engine) => ended,
            ended = fallen(&mut self.uplinks.tasks) => ended,
            ended = fallen(&mut self.others) => ended,
        };
        // Stages end when the journal does, and may be seen first: its own reason is the one to tell.
        let journal = timeout(Duration::from_secs(1), &mut self.journal_ended).await;
        journal.map_or_else(|_| stage_ended(early), journal_error)
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
        self.uplinks.stop.cancel();
        if !finish(&mut self.uplinks.tasks, GRACE).await {
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

/// A stage has ended.
#[derive(Debug)]
struct Ended {
    stage: &'static str,
    /// It was told to.
    told: bool,
}

/// A stage that tells its name when it ends, and whether `stop` told it to.
async fn staged(stage: &'static str, stop: CancellationToken, work: impl Future<Output = ()>) -> Ended {
    work.await;
    Ended {
        stage,
        told: stop.is_cancelled(),
    }
}

/// The first stage that ended without having been told to. Cancel-safe.
async fn fallen(stages: &mut JoinSet<Ended>) -> Result<Ended, JoinError> {
    loop {
        match stages.join_next().await {
            None => std::future::pending().await,
            Some(Ok(ended)) if ended.told => {}
            // A sink that was removed and did not say goodbye in time.
            Some(Err(error)) if error.is_cancelled() => {}
            Some(fallen) => return fallen,
        }
    }
}

/// Whether all ended in time and without a panic; those that did not end are cancelled.
async fn finish(stages: &mut JoinSet<Ended>, grace: Duration) -> bool {
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

fn origin(config: &Config) -> Arc<Origin> {
    Arc::new(Origin {
        gateway: Arc::clone(&config.gateway.id),
        source: Arc::clone(&config.gateway.source),
        labels: config.gateway.labels.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
    })
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
fn restore(config: &Config, recovered: &Recovered, announcer: &Announcer, clock: &Clock) -> Engine {
    let mut outcome = Outcome::default();
    let setup = setup(config, recovered.epoch);
    let mut engine = Engine::restore(setup, &recovered.state, clock.moment(), &mut outcome);
    evaluate::commit(&mut engine, outcome, announcer);
    engine
}

fn setup(config: &Config, epoch: Epoch) -> Setup {
    // A serial line's device is as good as a [[device]]: last, so that it changes no name and no label.
    let lines = config.serial.iter().flat_map(|line| {
        let polled = line.polls.iter().filter_map(|poll| poll.device.as_ref());
        line.device.iter().chain(polled)
    });
    let lines = lines.map(|id| DeviceFacts::of(id.as_str()));
    Setup {
        rules: config.rules.clone(),
        devices: config.devices.iter().cloned().chain(lines).collect(),
        epoch,
        max_devices: config.max_devices,
        max_metrics: config.max_metrics,
    }
}

/// Whom presence is told of: a pattern names nobody.
fn named(config: &Config) -> Named {
    let ids = config.devices.iter().map(|device| &device.id.0);
    Named {
        devices: ids
            .filter_map(|id| DeviceId::new(id).ok())
            .filter(|id| !id.as_str().contains('*'))
            .collect(),
        offline_after: config.events.offline_after,
    }
}

fn plans(config: &Config) -> Vec<SinkPlan> {
    let sinks = config.sinks.iter().map(|sink| SinkPlan {
        name: sink.name.clone(),
        required: sink.required,
        from_oldest: sink.from_oldest,
    });
    sinks.collect()
}

fn owner(config: &Config, origin: Arc<Origin>) -> Owner {
    let machine = Machine::read();
    Owner {
        origin,
        machine_id: machine.machine_id,
        board_serial: machine.board_serial,
        sinks: plans(config),
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

fn stage_ended(joined: Result<Ended, JoinError>) -> Error {
    match joined {
        Ok(ended) => Error::StageEnded(ended.stage.into()),
        Err(error) => Error::StageEnded(format!("stage that panicked ({error})")),
    }
}

fn journal_error(ended: Result<Result<(), journal::Error>, oneshot::error::RecvError>) -> Error {
    match ended {
        Ok(Err(error)) => Error::Journal(error),
        Ok(Ok(())) | Err(_) => Error::StageEnded("journal thread".into()),
    }
}

#[cfg(test)]
mod tests;
