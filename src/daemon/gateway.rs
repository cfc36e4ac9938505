//! A gateway whose stages all run: built, changed, watched and stopped in flow order.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    sync::{self, mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Error, GRACE, STAGE_GRACE,
    absence::Absence,
    announce::Announcer,
    control::Desk,
    evaluate::{self, Asked},
    lines::Lines,
    local, pulse,
    reload::Order,
    stages::{Ended, fallen, finish, journal_error, stage_ended, staged},
    standing::Seldom,
    status::Views,
    uplinks::{Loaded, Uplinks},
    wall_clock::WallClock,
    watch::{Named, Watch},
};
use crate::{
    config::{Config, Machine},
    event::{Epoch, Origin, Position, SinkName},
    forward::Terms,
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
    time::{Clock, EngineTime},
};

/// A gateway whose stages all run.
pub(super) struct Gateway {
    pub(super) journal: Journal,
    journal_ended: oneshot::Receiver<Result<(), journal::Error>>,
    recorder_ended: Option<recorder::Ended>,
    pub(super) announcer: Announcer,
    started: EngineTime,
    engine_status: sync::watch::Receiver<evaluate::Status>,
    epoch: Epoch,
    clock: Clock,
    origin: Arc<Origin>,
    asked: mpsc::Sender<Asked>,
    /// Without any source the engine still has deadlines to keep: this sender lives until the stop.
    intake: Intake,
    stamps: Arc<Stamps>,
    pub(super) addresses: Vec<SocketAddr>,
    lost: Arc<local::Lost>,
    door: Option<mqtt::Handle>,
    lines: Lines,
    uplinks: Uplinks,
    heartbeat: sync::watch::Sender<Option<Duration>>,
    named: sync::watch::Sender<Named>,
    stop_sources: CancellationToken,
    /// Nobody cancels it: what has it never ends before the process.
    pub(super) end: CancellationToken,
    sources: JoinSet<Ended>,
    pub(super) engine: JoinSet<Ended>,
    /// What ends with the process: the local event feed, the heartbeat, the control socket.
    pub(super) others: JoinSet<Ended>,
    /// How often a rejected reload was recorded.
    rejected: Seldom,
    /// A stage that ended before it was told to, until it is told of.
    early: Option<Error>,
}

impl Gateway {
    /// In flow order, last things first: the journal recovers, the engine takes up its state, then the sources
    /// may speak.
    pub(super) async fn build(config: &Config, rejected: Option<&str>) -> Result<(Self, pulse::Beat), Error> {
        // An earlier provider stays: it can only be ring, the one built in.
        drop(rustls::crypto::ring::default_provider().install_default());
        let clock = Clock::system();
        let origin = origin(config);
        // Before the journal: a start that cannot succeed leaves nothing in it.
        let sinks = Loaded::load_all(&config.sinks)?;
        let (journal, recovered, journal_ended) = open_journal(config, &origin, &clock).await?;
        for finding in &recovered.findings {
            warn!(name: "JournalRecovered", "the journal's recovery: {finding}");
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
        let (status, engine_status) = sync::watch::channel(evaluate::Status::default());
        let mut gateway = Self {
            uplinks: Uplinks::new(
                journal.clone(),
                Arc::clone(&origin),
                recovered.epoch,
                clock.clone(),
            ),
            lines: Lines::new(Arc::clone(&stamps)),
            journal: journal.clone(),
            journal_ended,
            recorder_ended,
            announcer: announcer.clone(),
            started: clock.now(),
            engine_status: engine_status.clone(),
            epoch: recovered.epoch,
            clock: clock.clone(),
            origin,
            asked,
            intake,
            stamps,
            addresses: Vec::new(),
            lost: Arc::default(),
            door: None,
            heartbeat: sync::watch::Sender::new(config.events.heartbeat),
            named: sync::watch::Sender::new(named(config)),
            stop_sources: CancellationToken::new(),
            end: CancellationToken::new(),
            sources: JoinSet::new(),
            engine: JoinSet::new(),
            others: JoinSet::new(),
            rejected: Seldom::default(),
            early: None,
        };
        let house = evaluate::House {
            announcer: announcer.clone(),
            recorder,
            clock: clock.clone(),
            checkpoint: config.checkpoint,
            absence: Absence::new(
                &recovered.state,
                &setup(config, recovered.epoch).devices,
                config.forget_after,
                clock.now(),
            ),
        };
        let evaluation = evaluate::evaluate(engine, deliveries, questions, house, status);
        let stop = gateway.stop_sources.clone();
        gateway.engine.spawn(staged("engine", stop, evaluation));
        gateway.uplinks.set(sinks).await;
        let hub = Hub::new();
        let feed = local::serve(
            journal.clone(),
            recovered.end,
            hub.clone(),
            Arc::clone(&gateway.lost),
        );
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
            gateway.stop_sources.clone(),
            wall_clock.watch(gateway.stop_sources.clone()),
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
    /// new labels, and kept for the new sinks. Returns where the last thing decided by it stands.
    pub(super) async fn apply(&mut self, config: &Config, sinks: Vec<Loaded>) -> Position {
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
        let asked = Asked::Reconfigure(setup, config.forget_after, answer);
        let decided = match self.asked.send(asked).await {
            Ok(()) => answered.await.unwrap_or_default(),
            Err(_) => Position::default(),
        };
        if let (Some(door), Some(settings)) = (&self.door, config.mqtt.clone()) {
            door.reconfigure(settings);
        }
        self.set_lines(config);
        self.uplinks.set(sinks).await;
        decided
    }

    /// Sends a sink again what stands behind `position`; answers whether that is on the disk.
    pub(super) async fn replay(&mut self, sink: &SinkName, position: Position) -> Result<bool, String> {
        if position >= self.journal.cursor(sink).position {
            return Err(format!(
                "{sink} has not come that far yet: it goes on where it stands"
            ));
        }
        let Some(halted) = self.uplinks.halt(sink).await else {
            return Err(format!("no sink {sink} is configured"));
        };
        let replayed = self.journal.replay(sink, position).await;
        self.uplinks.resume(halted);
        Ok(replayed)
    }

    /// Forgets the cursor of a sink that is not configured, and drops its dead letters; answers whether that is on the disk.
    pub(super) async fn forget(&mut self, sink: &SinkName) -> Result<bool, String> {
        if self.uplinks.has(sink) {
            return Err(format!(
                "{sink} is configured: take its table out of the configuration and `tidegate reload` first"
            ));
        }
        let mut letters = self.journal.dead_letters();
        letters.retain(|letter| letter.sink == *sink);
        if letters.is_empty() && !self.journal.sinks().contains(sink) {
            return Err(format!(
                "the journal knows no sink {sink}: `tidegate journal ls` lists those that it knows"
            ));
        }
        if !letters.is_empty() {
            self.journal.drop_letters(&letters);
        }
        Ok(self.journal.forget(sink).await)
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
    pub(super) fn desk(&self, config: &Config, is_rejected: bool, orders: mpsc::Sender<Order>) -> Desk {
        let views = Views {
            gateway: Arc::clone(&config.gateway.id),
            epoch: self.epoch,
            clock: self.clock.clone(),
            started: self.started,
            is_rejected,
            journal: self.journal.clone(),
            settings: config.journal.clone(),
            is_journal_sized_by_card: config.is_journal_sized_by_card,
            engine: self.engine_status.clone(),
            uplinks: self.uplinks.views(),
            lines: self.lines.views(),
            door: self.door.clone(),
            addresses: self.addresses.clone(),
            lost: Arc::clone(&self.lost),
        };
        Desk {
            engine: self.asked.clone(),
            orders,
            journal: self.journal.clone(),
            views,
            clock: self.clock.clone(),
            epoch: self.epoch,
            listed: Arc::default(),
        }
    }

    /// A reload found the configuration wrong. The log has every one; ten in ten minutes are recorded, and none
    /// in a parked journal: there it would wait in memory, as often as somebody tries.
    pub(super) fn rejected(&self, report: &str) {
        if !self.journal.health().borrow().parked && self.rejected.may(self.clock.now()) {
            self.announcer
                .configuration_rejected(report, "the configuration that runs");
        }
    }

    /// Waits until a stage has ended that was not told to, and says why. Cancel-safe.
    pub(super) async fn fallen(&mut self) -> Error {
        if self.early.is_none() {
            // All cancel-safe: joins, and a oneshot by reference.
            let early = tokio::select! {
                ended = &mut self.journal_ended => return journal_error(ended),
                ended = fallen(&mut self.sources) => ended,
                ended = fallen(&mut self.engine) => ended,
                ended = fallen(&mut self.uplinks.tasks) => ended,
                ended = fallen(&mut self.others) => ended,
            };
            // Kept: whoever stops waiting here, for a reload or a stop, still learns of it.
            self.early = Some(stage_ended(early));
        }
        // Stages end when the journal does, and may be seen first: its own reason is the one to tell.
        match timeout(Duration::from_secs(1), &mut self.journal_ended).await {
            Ok(ended) => journal_error(ended),
            Err(_) => self.early.take().expect("kept just now, or before"),
        }
    }

    /// In flow order: no more readings, the engine drains, the uplinks deliver, the journal closes. Past each
    /// grace it goes on anyway: the journal holds the rest.
    pub(super) async fn stop(mut self) -> Result<(), Error> {
        if let Some(early) = self.early.take() {
            return Err(early);
        }
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
                info!(name: "GatewayStopped", "stopped; the journal is closed");
                Ok(())
            }
            Err(_) => Err(Error::StageEnded("journal thread".into())),
        }
    }
}

/// Says goodbye, unless that is off, and waits until all that was decided is durable: forwarders go on with what
/// is durable when they are told, the rest is sent after the next start.
pub(super) async fn settle(journal: &Journal, announcer: &Announcer) {
    // An empty commit stands behind all that the engine decided.
    let stopped = announcer.stopped();
    let stopped = stopped.unwrap_or_else(|| journal.append(Outcome::default()));
    let mut durable = journal.durable();
    let written = durable.wait_for(|position| *position >= stopped);
    drop(timeout(STAGE_GRACE, written).await.map(drop));
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
        checkpoint: config.checkpoint,
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
    config.sinks.terms().map(Terms::plan).collect()
}

pub(super) fn owner(config: &Config, origin: Arc<Origin>) -> Owner {
    let machine = Machine::read();
    Owner {
        origin,
        machine_id: machine.machine_id,
        board_serial: machine.board_serial,
        sinks: plans(config),
    }
}
