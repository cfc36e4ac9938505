//! What the wiring promises when things end, fail or are full.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tokio::{sync::watch, time::timeout};

use super::{
    absence::Absence,
    announce::Announcer,
    control::Desk,
    evaluate::Asked,
    gateway::{owner, settle},
    status::Views,
    *,
};
use crate::{
    config::Machine,
    event::{Data, Draft, Origin, Reason, Sequence, Severity},
    journal::{
        Cursor, Journal, Limit, Owner, Recovered, Settings, SinkPlan, WhenFull, storage::simulated::Simulated,
    },
    reading::{DeviceId, Metric, Reading, Value},
    rule::{
        DeviceFacts,
        engine::{Engine, Setup},
        state::StateChange,
    },
    source::{Answer, Answers, Delivery, INTAKE_LEN, Ticket},
    time::{BootId, Clock, EngineTime},
};

/// Longer than anything here takes on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A rule with a short hold, and what it watches.
const RULE: &str = r#"
[mqtt]
listen = ["127.0.0.1:1883"]
[[mqtt.readings]]
topic = "thermostats/{device}/state"
format = "json"
[[mqtt.readings.metric]]
name = "temperature"
at = "/temp"
[[rule]]
event = "HighTemperature"
metric = "temperature"
above = 30.0
hold = "1ms"
"#;

fn config(dir: &std::path::Path, more: &str) -> Config {
    let text = format!(
        "[gateway]\nid = \"gw\"\n[journal]\ndir = \"{}/journal\"\nmax-bytes = \"8MiB\"\n{more}",
        dir.display()
    );
    Config::parse("test.toml", &text, &Machine::read()).unwrap_or_else(|report| panic!("{report:?}"))
}

/// Lets it do what it can do now, which is not all.
async fn poll_once(mut task: Pin<&mut impl Future<Output = ()>>) {
    let polled = poll_fn(|context| Poll::Ready(task.as_mut().poll(context)));
    assert!(polled.await.is_pending());
}

/// What the next start finds, once the last one has let go.
async fn reopened(config: &Config) -> Recovered {
    let open = async {
        loop {
            let owner = owner(config, origin());
            match Journal::open(&config.journal, owner, Clock::system()) {
                Ok((journal, recovered, running)) => {
                    drop(journal);
                    drop(running.ended.await);
                    return recovered;
                }
                Err(journal::Error::Locked { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    timeout(PATIENCE, open).await.expect("the journal is let go")
}

fn origin() -> Arc<Origin> {
    Arc::new(Origin {
        gateway: "gw".into(),
        source: "urn:tidegate:gateway:gw".into(),
        labels: crate::event::Labels::new(),
        version: "0.1.0".into(),
    })
}

fn event(bytes: usize) -> Outcome {
    let mut data = serde_json::Map::new();
    data.insert("padding".to_owned(), "x".repeat(bytes).into());
    let draft = Draft {
        kind: "io.tidegate.gateway.Test".into(),
        name: "Test".into(),
        subject: "gw".into(),
        about: "gw".into(),
        severity: Severity::Info,
        at: EngineTime(7),
        transition: None,
        correlation: None,
        data: Data::Gateway(data),
    };
    Outcome {
        events: vec![draft],
        ..Outcome::default()
    }
}

/// A journal on a disk in memory, with one sink that takes nothing.
fn journal(when_full: WhenFull) -> (Journal, Recovered, journal::Running) {
    journal_on(&Simulated::default(), when_full)
}

fn settings(when_full: WhenFull) -> Settings {
    Settings {
        dir: "/journal".into(),
        max_bytes: 8 * 1024 * 1024,
        max_age: None,
        when_full,
        state_delay: Duration::from_millis(5),
    }
}

fn journal_on(disk: &Simulated, when_full: WhenFull) -> (Journal, Recovered, journal::Running) {
    let settings = settings(when_full);
    let owner = Owner {
        origin: origin(),
        machine_id: "m".to_owned(),
        board_serial: "b".to_owned(),
        sinks: vec![SinkPlan {
            name: "cloud".parse().unwrap(),
            required: true,
            from_oldest: false,
        }],
    };
    Journal::open_on(disk.mount(), &settings, owner, Clock::system()).unwrap()
}

fn announcer(journal: &Journal) -> Announcer {
    Announcer::new(journal.clone(), Clock::system(), "gw".into(), &[])
}

fn house(journal: &Journal, clock: Clock) -> evaluate::House {
    evaluate::House {
        announcer: announcer(journal),
        recorder: None,
        absence: Absence::new(&[], &[], Duration::MAX, clock.now()),
        checkpoint: Duration::from_mins(1),
        clock,
    }
}

async fn is_healthy(journal: &Journal, what: impl FnMut(&journal::Health) -> bool) {
    let mut health = journal.health();
    let found = timeout(PATIENCE, health.wait_for(what)).await;
    drop(found.expect("in time").expect("the journal lives"));
}

/// Everything is delivered up to what is durable.
async fn deliver_all(journal: &Journal) {
    let cloud = "cloud".parse().unwrap();
    loop {
        let limit = Limit {
            entries: 100,
            bytes: usize::MAX,
        };
        let entries = journal.read_after(journal.cursor(&cloud), limit).await.unwrap();
        let Some(last) = entries.last() else { return };
        let cursor = Cursor::behind(last);
        journal.acknowledge(&cloud, cursor);
    }
}

#[tokio::test]
async fn a_heartbeat_is_recorded_when_there_is_room_and_not_while_the_journal_is_parked() {
    let (journal, recovered, _running) = journal(WhenFull::Refuse);
    let stop = CancellationToken::new();
    let beat = || pulse::Beat {
        journal: journal.clone(),
        announcer: announcer(&journal),
        engine: watch::channel(evaluate::Status::default()).1,
        uplinks: watch::channel(Vec::new()).1,
        epoch: recovered.epoch,
        heartbeat: watch::channel(Some(Duration::from_millis(1))).1,
        stop: stop.clone(),
    };
    // An empty commit stands where the last one does.
    let newest = || journal.append(Outcome::default());
    let a_minute = async || {
        tokio::time::pause();
        drop(timeout(Duration::from_mins(1), beat().run()).await);
        tokio::time::resume();
    };

    while !journal.health().borrow().parked {
        journal.append(event(20_000));
        tokio::task::yield_now().await;
    }
    let before = newest();
    a_minute().await;
    assert_eq!(newest(), before, "a parked journal was given more");

    let appended = before;
    while *journal.durable().borrow() < appended {
        deliver_all(&journal).await;
    }
    is_healthy(&journal, |health| !health.parked).await;
    let before = newest();
    a_minute().await;
    assert!(newest() > before, "no sign of life");

    stop.cancel();
    let before = newest();
    a_minute().await;
    assert_eq!(newest(), before, "a sign of life after GatewayStopped");
}

#[tokio::test]
async fn a_stop_does_not_wait_for_room_in_a_parked_journal() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, recovered, _running) = journal(WhenFull::Refuse);
    while !journal.health().borrow().parked {
        journal.append(event(20_000));
        tokio::task::yield_now().await;
    }
    let setup = Setup {
        rules: config(folder.path(), RULE).rules,
        devices: Vec::new(),
        epoch: recovered.epoch,
        max_devices: 10,
        max_metrics: 10,
        checkpoint: Duration::from_mins(1),
    };
    let clock = Clock::system();
    let engine = Engine::restore(setup, &[], clock.moment(), &mut Outcome::default());
    let (intake, deliveries) = mpsc::channel(INTAKE_LEN);
    let (status, _) = watch::channel(evaluate::Status::default());
    drop(intake);
    let evaluation = evaluate::evaluate(
        engine,
        deliveries,
        mpsc::channel(1).1,
        house(&journal, clock),
        status,
    );
    timeout(PATIENCE, evaluation).await.expect("it ends");
}

#[tokio::test]
async fn a_flood_of_late_readings_holds_no_deadline_back() {
    // One at a time, and as many as the engine takes at once.
    for burst in [1, 64] {
        flood_with_late_readings(burst).await;
    }
}

/// The intake is never empty when the engine looks, and brings only readings that fire nothing.
async fn flood_with_late_readings(burst: i64) {
    let folder = tempfile::tempdir().unwrap();
    let (journal, recovered, _running) = journal(WhenFull::DropOldest);
    let clock = Clock::system();
    let setup = Setup {
        rules: config(folder.path(), RULE).rules,
        devices: Vec::new(),
        epoch: recovered.epoch,
        max_devices: 10,
        max_metrics: 10,
        checkpoint: Duration::from_mins(1),
    };
    let mut outcome = Outcome::default();
    let mut engine = Engine::restore(setup, &[], clock.moment(), &mut outcome);
    let reading = |device: &str, value: f64, at: EngineTime| Reading {
        device: DeviceId::new(device).unwrap(),
        metric: Metric::new("temperature").unwrap(),
        value: Value::Number(value),
        unit: None,
        at,
        stamped: true,
    };
    let began = clock.now();
    engine
        .observe(&reading("hot", 31.0, began), &mut outcome)
        .unwrap();
    engine
        .observe(&reading("late", 20.0, began), &mut outcome)
        .unwrap();
    assert!(outcome.events.is_empty(), "the hold runs");
    while clock.now() <= began.after(Duration::from_millis(1)) {
        std::thread::yield_now();
    }

    let (intake, deliveries) = mpsc::channel(INTAKE_LEN);
    let (status, _) = watch::channel(evaluate::Status::default());
    let evaluation = evaluate::evaluate(
        engine,
        deliveries,
        mpsc::channel(1).1,
        house(&journal, clock),
        status,
    );
    let mut evaluation = pin!(tokio::task::unconstrained(evaluation));
    for millis in 1..50 {
        for micros in 0..burst {
            let late = EngineTime(began.0 - 1000 * millis - micros);
            let delivery = Delivery {
                readings: vec![reading("late", 20.0, late)],
                ticket: Ticket::unclaimed(),
            };
            intake.try_send(delivery).unwrap();
        }
        poll_once(evaluation.as_mut()).await;
    }
    is_healthy(&journal, |health| health.last == Sequence(1)).await;
}

#[tokio::test]
async fn a_stop_waits_for_all_that_was_decided_even_if_it_says_nothing_itself() {
    for off in ["[events]\noff = [\"GatewayStopped\"]\n", ""] {
        let folder = tempfile::tempdir().unwrap();
        let (gateway, _) = Gateway::build(&config(folder.path(), off), None).await.unwrap();
        let durable = gateway.journal.durable();
        for _ in 0..20 {
            let decided = gateway.journal.append(event(10));
            settle(&gateway.journal, &gateway.announcer).await;
            assert!(*durable.borrow() >= decided);
        }
        gateway.stop().await.unwrap();
    }
}

#[tokio::test]
async fn an_orderly_stop_is_clean_and_one_in_which_the_engine_panics_is_a_failure() {
    for panics in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), "");
        let (mut gateway, _) = Gateway::build(&config, None).await.unwrap();
        if panics {
            gateway.engine = JoinSet::new();
            gateway
                .engine
                .spawn(staged("engine", CancellationToken::new(), async {
                    panic!("a bug")
                }));
        }
        let stopped = gateway.stop().await;
        assert_eq!(stopped.is_err(), panics, "{stopped:?}");
        assert_eq!(reopened(&config).await.clean, !panics);
    }
}

#[tokio::test]
async fn a_stage_that_fell_is_told_even_if_nobody_waited_to_the_end() {
    for stops in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), "");
        let (mut gateway, _) = Gateway::build(&config, None).await.unwrap();
        gateway.engine.shutdown().await;
        let early = staged("engine", CancellationToken::new(), async {});
        gateway.engine.spawn(early);
        // A reload or a stop that comes while the journal's own reason is waited for.
        let moment = timeout(Duration::from_millis(200), gateway.fallen()).await;
        assert!(moment.is_err(), "it waits for the journal: {moment:?}");
        let told = if stops {
            gateway.stop().await.err()
        } else {
            let told = timeout(PATIENCE, gateway.fallen()).await.ok();
            drop(gateway);
            told
        };
        assert!(
            matches!(&told, Some(Error::StageEnded(stage)) if stage == "engine"),
            "{told:?}"
        );
        assert!(!reopened(&config).await.clean);
    }
}

#[tokio::test]
async fn a_start_that_fails_records_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let door = format!("[mqtt]\nlisten = [\"{}\"]\n", taken.local_addr().unwrap());
    let failing = config(folder.path(), &door);
    for _ in 0..3 {
        let error = Gateway::build(&failing, None).await.err();
        assert!(matches!(error, Some(Error::Door(_))), "{error:?}");
        assert_eq!(reopened(&failing).await.last, Sequence(0));
    }
    drop(taken);
    let (gateway, _) = Gateway::build(&failing, None).await.unwrap();
    gateway.stop().await.unwrap();
    assert_eq!(
        reopened(&failing).await.last,
        Sequence(3),
        "started, no alarms, stopped"
    );
}

#[tokio::test]
async fn a_sink_that_a_reload_adds_begins_where_it_should_and_one_that_comes_back_where_it_was() {
    let (journal, _, _running) = journal(WhenFull::DropOldest);
    let written = async |journal: &Journal| {
        let position = journal.append(event(10));
        let mut durable = journal.durable();
        drop(durable.wait_for(|durable| *durable >= position).await.unwrap());
        position
    };
    written(&journal).await;
    let end = written(&journal).await;
    let plan = |name: &str, from_oldest| SinkPlan {
        name: name.parse().unwrap(),
        required: true,
        from_oldest,
    };
    journal.reconfigure(origin(), vec![plan("oldest", true), plan("end", false)]);
    let third = written(&journal).await;
    let cursor = |name: &str| journal.cursor(&name.parse().unwrap());
    assert_eq!(cursor("end").position, end);
    let limit = Limit {
        entries: 100,
        bytes: usize::MAX,
    };
    let owed = async |name: &str| journal.read_after(cursor(name), limit).await.unwrap().len();
    assert_eq!((owed("oldest").await, owed("end").await), (3, 1));
    journal.acknowledge(
        &"end".parse().unwrap(),
        Cursor {
            position: third,
            sequence: Sequence(3),
            passed: Sequence(3),
            ..Cursor::default()
        },
    );
    journal.reconfigure(origin(), Vec::new());
    written(&journal).await;
    journal.reconfigure(origin(), vec![plan("end", false)]);
    assert_eq!(owed("end").await, 1, "what came while it was away");
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_not_on_the_disk_is_not_said_to_be_done() {
    use crate::control::{Request, Response};
    let (journal, recovered, _running) = journal(WhenFull::DropOldest);
    let (engine, mut questions) = mpsc::channel(4);
    let (orders, mut reloads) = mpsc::channel(1);
    let desk = Desk {
        engine,
        orders,
        views: Views {
            gateway: "gw".into(),
            epoch: recovered.epoch,
            clock: Clock::system(),
            started: Clock::system().now(),
            is_rejected: false,
            journal: journal.clone(),
            settings: settings(WhenFull::DropOldest),
            is_journal_sized_by_card: false,
            engine: watch::channel(evaluate::Status::default()).1,
            uplinks: watch::channel(Vec::new()).1,
            lines: watch::channel(Vec::new()).1,
            door: None,
            addresses: Vec::new(),
            lost: Arc::default(),
        },
        journal,
        clock: Clock::system(),
        epoch: recovered.epoch,
        listed: Arc::default(),
    };
    // An engine that decides what no disk will ever have.
    let never = Position(u64::MAX);
    let answering = async {
        loop {
            tokio::select! {
                Some(asked) = questions.recv() => match asked {
                    Asked::Known(candidates, answer) => drop(answer.send(candidates.into_iter().take(1).collect())),
                    Asked::Mute(.., answer) => assert!(answer.send(never).is_ok()),
                    Asked::Forget(_, answer) => assert!(answer.send(Some(never)).is_ok()),
                    other => panic!("{other:?}"),
                },
                Some(Order::Reload(answer)) = reloads.recv() => {
                    assert!(answer.send(Ok((Reloaded::default(), never))).is_ok());
                }
            }
        }
    };
    let mute = Request::Mute {
        target: "boiler".to_owned(),
        for_s: 60,
        reason: "a test".to_owned(),
    };
    let forget = Request::Forget {
        device: "boiler".to_owned(),
    };
    let asking = async {
        for request in [mute, forget, Request::Reload] {
            let shown = format!("{request:?}");
            let said = desk.answer(request).await;
            let Response::Failed(why) = said else {
                panic!("{shown}: {said:?}")
            };
            assert!(why.contains("not on the disk yet"), "{shown}: {why}");
        }
    };
    tokio::select! {
        () = asking => {}
        () = answering => {}
    }
}

fn temperature(device: usize, value: f64, at: EngineTime) -> Reading {
    Reading {
        device: DeviceId::new(&format!("t-{device}")).unwrap(),
        metric: Metric::new("temperature").unwrap(),
        value: Value::Number(value),
        unit: None,
        at,
        stamped: true,
    }
}

/// An engine with one rule that has heard from so many devices; what it decided until now is nowhere.
fn engine(devices: usize, value: f64, clock: &Clock) -> (Engine, Setup) {
    let folder = tempfile::tempdir().unwrap();
    let rule = RULE.replace("hold = \"1ms\"", "hold = \"0s\"");
    let setup = Setup {
        rules: config(folder.path(), &rule).rules,
        devices: Vec::new(),
        epoch: crate::event::Epoch(1),
        max_devices: 10_000,
        max_metrics: 10,
        checkpoint: Duration::from_mins(1),
    };
    let mut engine = Engine::restore(setup.clone(), &[], clock.moment(), &mut Outcome::default());
    for device in 0..devices {
        let reading = temperature(device, value, clock.now());
        engine.observe(&reading, &mut Outcome::default()).unwrap();
    }
    (engine, setup)
}

/// What the disk has after a clean stop of this engine.
async fn stopped(disk: &Simulated, engine: Engine, clock: Clock) -> (u64, Recovered) {
    let (journal, _, running) = journal_on(disk, WhenFull::DropOldest);
    let (intake, deliveries) = mpsc::channel(INTAKE_LEN);
    drop(intake);
    let (status, _) = watch::channel(evaluate::Status::default());
    let asked = mpsc::channel(1).1;
    evaluate::evaluate(engine, deliveries, asked, house(&journal, clock), status).await;
    settle(&journal, &announcer(&journal)).await;
    let refused = journal.health().borrow().refused;
    journal.close().await;
    running.ended.await.unwrap().unwrap();
    drop(journal);
    (refused, journal_on(disk, WhenFull::DropOldest).1)
}

#[tokio::test]
async fn what_is_too_much_for_one_commit_goes_in_several() {
    let clock = Clock::system();
    let (mut engine, setup) = engine(5000, 31.0, &clock);
    assert_eq!(engine.active(), 5000);
    let (journal, ..) = journal(WhenFull::DropOldest);
    let mut outcome = Outcome::default();
    let rules = Vec::new();
    engine.reconfigure(Setup { rules, ..setup }, &mut outcome);
    let position = evaluate::commit(&mut engine, outcome, &announcer(&journal)).unwrap();
    let mut durable = journal.durable();
    let written = durable.wait_for(|durable| *durable >= position);
    drop(timeout(PATIENCE, written).await.expect("it is written").unwrap());
    is_healthy(&journal, |health| health.last == Sequence(5000)).await;
}

#[tokio::test]
async fn a_clean_stop_leaves_last_values_out_before_it_is_none() {
    let clock = Clock::system();
    let disk = Simulated::default();
    let (mut engine, _) = engine(6000, 20.0, &clock);
    let hot = temperature(5999, 31.0, clock.now().after(Duration::from_secs(1)));
    engine.observe(&hot, &mut Outcome::default()).unwrap();
    let (_, recovered) = stopped(&disk, engine, clock).await;
    let of = |prefix: &[u8]| {
        recovered
            .state
            .iter()
            .filter(|(key, _)| key.starts_with(prefix))
            .count()
    };
    assert_eq!((of(b"r/"), of(b"engine/stopped")), (1, 1));
    assert!((1000..6000).contains(&of(b"l/")), "{}", of(b"l/"));
}

/// Leaves the state no room for anything that begins, or makes room again.
fn fill_state(journal: &Journal, full: bool) {
    for key in 0..10_000 {
        let change = StateChange {
            key: format!("filler/{key}").into_bytes(),
            value: full.then(|| vec![0; if key < 300 { 4096 } else { 64 }]),
        };
        let outcome = Outcome {
            state: vec![change],
            ..Outcome::default()
        };
        if journal.append(outcome) == Position::NEVER && key > 300 {
            return;
        }
    }
}

#[tokio::test]
async fn a_publish_whose_alarm_has_no_room_is_refused_until_there_is_some() {
    let clock = Clock::system();
    let (journal, ..) = journal(WhenFull::DropOldest);
    let (engine, _) = engine(2, 20.0, &clock);
    let (intake, deliveries) = mpsc::channel(INTAKE_LEN);
    let (status, active) = watch::channel(evaluate::Status::default());
    let house = house(&journal, clock.clone());
    let evaluation = evaluate::evaluate(engine, deliveries, mpsc::channel(1).1, house, status);
    let mut evaluation = pin!(tokio::task::unconstrained(evaluation));
    let answers = Arc::new(Answers::default());
    let mut publish = async |readings| {
        let ticket = answers.ticket(0);
        intake.try_send(Delivery { readings, ticket }).unwrap();
        poll_once(evaluation.as_mut()).await;
        let answered: Vec<_> = answers.take().into_iter().map(|(_, answer)| answer).collect();
        (answered, active.borrow().active)
    };
    let hot = |device| temperature(device, 31.0, clock.now());
    let Answer::AfterDurable(first) = publish(vec![hot(0)]).await.0[0] else {
        panic!("there is room");
    };
    fill_state(&journal, true);
    for _ in 0..2 {
        assert_eq!(publish(vec![hot(1)]).await, (vec![Answer::OverLimit], 1));
    }
    // What ends finds room beside it, and one that is refused holds nobody else up.
    let cold = temperature(0, 20.0, clock.now());
    assert_eq!(publish(vec![cold, hot(1)]).await, (vec![Answer::OverLimit], 0));
    let cold = temperature(0, 19.0, clock.now());
    let Answer::AfterDurable(cleared) = publish(vec![cold]).await.0[0] else {
        panic!("nothing is refused");
    };
    assert!(first < cleared && cleared < Position::NEVER, "{cleared:?}");
    fill_state(&journal, false);
    let (answered, open) = publish(vec![hot(1)]).await;
    let [Answer::AfterDurable(position)] = answered[..] else {
        panic!("{answered:?}");
    };
    assert!(cleared < position && position < Position::NEVER && open == 1);
    is_healthy(&journal, |health| health.last == Sequence(3)).await;
}

#[tokio::test]
async fn an_alarm_that_had_no_room_is_raised_a_minute_later_without_a_reading() {
    let clock = Clock::system();
    let (journal, ..) = journal(WhenFull::DropOldest);
    let (mut engine, _) = engine(1, 20.0, &clock);
    fill_state(&journal, true);
    let mut outcome = Outcome::default();
    let now = clock.now();
    engine.observe(&temperature(0, 31.0, now), &mut outcome).unwrap();
    let commit = |engine: &mut Engine, outcome| evaluate::commit(engine, outcome, &announcer(&journal));
    assert_eq!(commit(&mut engine, outcome), Some(Position::NEVER));
    for (minute, raised) in [(1, false), (2, true)] {
        let due = engine.next_deadline().unwrap();
        assert!(due >= now.after(Duration::from_mins(minute)), "it does not spin");
        if raised {
            fill_state(&journal, false);
        }
        let mut outcome = Outcome::default();
        engine.advance(due, &mut outcome);
        let position = commit(&mut engine, outcome).unwrap();
        assert_eq!(
            (position < Position::NEVER, engine.active()),
            (raised, usize::from(raised))
        );
    }
}

#[tokio::test]
async fn a_silent_device_is_forgotten_after_its_time_over_a_restart_and_a_configured_one_never() {
    const DAY: Duration = Duration::from_hours(24);
    let (disk, hands) = (Simulated::default(), crate::time::Simulated::new(BootId(1)));
    let clock = Clock::simulated(&hands);
    let folder = tempfile::tempdir().unwrap();
    let rules = config(folder.path(), &RULE.replace("hold = \"1ms\"", "hold = \"0s\"")).rules;
    let mut days = 0;
    for until in [60, 95] {
        let (journal, recovered, running) = journal_on(&disk, WhenFull::DropOldest);
        let setup = Setup {
            rules: rules.clone(),
            devices: vec![DeviceFacts::of("boiler")],
            epoch: recovered.epoch,
            max_devices: 10,
            max_metrics: 10,
            checkpoint: Duration::from_mins(1),
        };
        let absence = Absence::new(&recovered.state, &setup.devices, DAY * 90, clock.now());
        let mut outcome = Outcome::default();
        let mut engine = Engine::restore(setup, &recovered.state, clock.moment(), &mut outcome);
        evaluate::commit(&mut engine, outcome, &announcer(&journal));
        let house = evaluate::House {
            absence,
            ..house(&journal, clock.clone())
        };
        let (intake, deliveries) = mpsc::channel(INTAKE_LEN);
        let (status, active) = watch::channel(evaluate::Status::default());
        let evaluation = evaluate::evaluate(engine, deliveries, mpsc::channel(1).1, house, status);
        let mut evaluation = pin!(tokio::task::unconstrained(evaluation));
        while days < until {
            // On the first day all are hot, and then only one goes on.
            let names = ["here", "gone", "boiler"].into_iter();
            for device in names.take(if days == 0 { 3 } else { 1 }) {
                let reading = Reading {
                    device: DeviceId::new(device).unwrap(),
                    metric: Metric::new("temperature").unwrap(),
                    value: Value::Number(31.0),
                    unit: None,
                    at: clock.now(),
                    stamped: false,
                };
                let delivery = Delivery {
                    readings: vec![reading],
                    ticket: Ticket::unclaimed(),
                };
                intake.try_send(delivery).unwrap();
            }
            poll_once(evaluation.as_mut()).await;
            // What was forgotten at one look is counted from the next on.
            let open = if days > 91 { 2 } else { 3 };
            assert_eq!(active.borrow().active, open, "after {days} days");
            hands.advance(DAY);
            days += 1;
        }
        drop(intake);
        evaluation.await;
        settle(&journal, &announcer(&journal)).await;
        let limit = Limit {
            entries: 100,
            bytes: usize::MAX,
        };
        let entries = journal.read_after(Cursor::default(), limit).await.unwrap();
        let ended: Vec<_> = entries
            .iter()
            .filter_map(|entry| match &entry.event.draft.data {
                Data::Rule(data) => Some((entry.event.draft.about.to_string(), data.episode.reason?)),
                Data::Gateway(_) => None,
            })
            .collect();
        let expected = [("gone".to_owned(), Reason::DeviceRemoved)];
        assert_eq!(ended, if days > 90 { &expected[..] } else { &[] });
        journal.close().await;
        running.ended.await.unwrap().unwrap();
        // However long the gateway is away: it cannot hear anybody.
        hands.advance(DAY * 200);
    }
}
