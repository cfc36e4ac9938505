//! A life of the gateway: the daemon's own evaluation, the engine, the journal and the forwarders, wired as
//! `daemon::gateway` wires them. What it says is held against `contract::check_draft` by `main.rs`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tidegate::{
    daemon::{
        absence::Absence,
        announce::Announcer,
        evaluate::{self, House, evaluate},
    },
    event::{Labels, Origin, Position, Severity, SinkName},
    forward::{self, Forwarder, Pace, Terms},
    journal::{Journal, Owner, Recovered, Settings, Stepped, storage::simulated::Simulated},
    reading::Metric,
    rule::{
        Condition, MaxRaises, Pattern, Rule,
        condition::Test,
        engine::{Engine, Setup},
        state::Outcome,
    },
    source::{INTAKE_LEN, Stamps},
    time::Clock,
};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    device::METRIC,
    executor::{Executor, TaskId},
    plan::Plan,
    reference::{CLEAR, Law, THRESHOLD},
    sink::{Log, Network, Quiet},
    world::{Door, World},
};

/// What forwarders get at a stop, as in the daemon.
const GRACE: Duration = Duration::from_secs(10);

const PACE: Pace = Pace {
    base: Duration::from_millis(200),
    cap: Duration::from_secs(5),
    ack_timeout: Duration::from_secs(10),
};

pub struct Life {
    pub journal: Journal,
    pub stepped: Option<Stepped>,
    pub tasks: Vec<TaskId>,
    pub gone: CancellationToken,
    evaluated: CancellationToken,
    forward_stop: CancellationToken,
    forwarded: Vec<CancellationToken>,
    announcer: Announcer,
    /// Nobody asks: the sender only keeps the questions open.
    asked: mpsc::Sender<evaluate::Asked>,
}

pub fn sink_name(index: usize) -> SinkName {
    format!("sink-{index}").parse().unwrap()
}

pub fn settings(plan: &Plan) -> Settings {
    Settings {
        dir: PathBuf::from("/journal"),
        max_bytes: plan.max_bytes,
        max_age: None,
        when_full: plan.when_full,
        state_delay: plan.state_delay,
    }
}

fn origin() -> Arc<Origin> {
    Arc::new(Origin {
        gateway: "gw".into(),
        source: "urn:tidegate:gateway:gw".into(),
        labels: Labels::new(),
        version: "0".into(),
    })
}

/// As their tables would say it. Only the first may make a full journal refuse.
fn terms(plan: &Plan, sink: usize) -> Terms {
    Terms {
        max_attempts: 3,
        required: sink == 0,
        filter: plan.sinks[sink].filter.clone(),
        ..Terms::new(sink_name(sink))
    }
}

fn configured(plan: &Plan) -> impl Iterator<Item = usize> {
    (0..plan.sinks.len()).filter(|sink| !plan.absent.contains(sink))
}

fn owner(plan: &Plan) -> Owner {
    let sinks = configured(plan).map(|sink| terms(plan, sink).plan());
    Owner {
        origin: origin(),
        machine_id: "m".to_owned(),
        board_serial: plan.board.to_string(),
        sinks: sinks.collect(),
    }
}

fn rule(name: &str, law: Law, plan: &Plan) -> Arc<Rule> {
    Arc::new(Rule {
        name: name.into(),
        event: name.into(),
        cleared_event: format!("{name}-cleared").into(),
        type_prefix: "io.tidegate.rule.".into(),
        devices: vec![Pattern("*".into())],
        labels_required: Labels::new(),
        condition: Condition::of(
            Metric::new(METRIC).unwrap(),
            Test::Above {
                threshold: THRESHOLD,
                clear: CLEAR,
            },
        ),
        hold: law.hold,
        clear_hold: law.clear_hold,
        severity: Severity::Warning,
        max_raises: MaxRaises {
            count: 10_000,
            per: Duration::from_hours(1),
        },
        remind_every: None,
        unless: None,
        during: Vec::new(),
        stale_after: Duration::from_mins(15),
        summary: None,
        runbook: Some("x".repeat(plan.runbook)),
        labels: Labels::new(),
        overrides: Vec::new(),
    })
}

impl Life {
    /// Opens the journal: what a power cut may fall into.
    pub fn open(
        plan: &Plan,
        disk: &Simulated,
        clock: &Clock,
    ) -> Result<(Journal, Recovered, Stepped), tidegate::journal::Error> {
        Journal::open_stepped(disk.mount(), &settings(plan), owner(plan), clock.clone())
    }

    /// In flow order, last things first, as `daemon::gateway::Gateway::build` does.
    pub fn begin(
        (journal, recovered, stepped): (Journal, Recovered, Stepped),
        plan: &Plan,
        replay: Option<usize>,
        clock: &Clock,
        world: &World,
        executor: &mut Executor,
        random: &mut fastrand::Rng,
    ) -> Self {
        let announcer = Announcer::new(journal.clone(), clock.clone(), "gw".into(), &[]);
        let rules = plan.laws.iter().map(|(name, law)| rule(name, *law, plan));
        let setup = Setup {
            rules: rules.collect(),
            devices: Vec::new(),
            epoch: recovered.epoch,
            max_devices: 100,
            max_metrics: 10,
            checkpoint: Duration::from_mins(1),
        };
        let forget_after = Duration::from_hours(24 * 90);
        let absence = Absence::new(&recovered.state, &setup.devices, forget_after, clock.now());
        let mut outcome = Outcome::default();
        let mut engine = Engine::restore(setup, &recovered.state, clock.moment(), &mut outcome);
        evaluate::commit(&mut engine, outcome, &announcer);
        let (intake, deliveries) = mpsc::channel(INTAKE_LEN);
        let (asked, questions) = mpsc::channel(evaluate::QUESTIONS);
        let house = House {
            announcer: announcer.clone(),
            recorder: None,
            clock: clock.clone(),
            checkpoint: plan.checkpoint,
            absence,
        };
        let (status, _) = watch::channel(evaluate::Status::default());
        let evaluated = CancellationToken::new();
        let done = evaluated.clone();
        let mut tasks = vec![executor.spawn(async move {
            evaluate(engine, deliveries, questions, house, status).await;
            done.cancel();
        })];
        let forward_stop = CancellationToken::new();
        let mut forwarded = Vec::new();
        for sink in configured(plan) {
            let network = Network {
                world: Quiet(world.clone()),
                sink,
                nature: plan.sinks[sink].clone(),
                random: random.fork(),
            };
            let (status, _) = watch::channel(forward::Status::default());
            let (terms, log) = (terms(plan, sink), Log(journal.clone()));
            let (stop, done) = (forward_stop.clone(), CancellationToken::new());
            forwarded.push(done.clone());
            tasks.push(executor.spawn(async move {
                if replay == Some(sink) {
                    log.0.replay(&terms.name, Position::default()).await;
                }
                Forwarder::new(terms, log, network, PACE, status).run(stop).await;
                done.cancel();
            }));
        }
        announcer.started(&recovered, clock.boot_id(), "");
        let gone = CancellationToken::new();
        world.look().door = Some(Door {
            intake,
            durable: journal.durable(),
            health: journal.health(),
            stamps: Arc::new(Stamps::new(clock.clone(), Duration::from_mins(10))),
            boot: clock.boot_id(),
            gone: gone.clone(),
        });
        Self {
            journal,
            stepped: Some(stepped),
            tasks,
            gone,
            evaluated,
            forward_stop,
            forwarded,
            announcer,
            asked,
        }
    }

    /// As `daemon::gateway::Gateway::stop` does.
    pub fn stop(&self) -> impl Future<Output = ()> + 'static {
        let (journal, announcer) = (self.journal.clone(), self.announcer.clone());
        let (evaluated, forward_stop) = (self.evaluated.clone(), self.forward_stop.clone());
        let (forwarded, asked) = (self.forwarded.clone(), self.asked.clone());
        async move {
            evaluated.cancelled().await;
            let stopped = announcer.stopped().unwrap();
            let mut durable = journal.durable();
            if durable.wait_for(|position| *position >= stopped).await.is_err() {
                return;
            }
            forward_stop.cancel();
            let all = async {
                for done in &forwarded {
                    done.cancelled().await;
                }
            };
            drop(timeout(GRACE, all).await);
            drop(asked);
            journal.close().await;
        }
    }
}
