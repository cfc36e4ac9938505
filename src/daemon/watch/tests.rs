//! What is told once a day, and what is not told after the stop.

use std::sync::Arc;

use super::*;
use crate::{
    event::{Labels, Origin, SinkName},
    forward,
    journal::{Limit, Owner, SinkPlan, WhenFull, storage::simulated::Simulated},
};

fn journal(sinks: Vec<SinkPlan>) -> (Journal, journal::Recovered, journal::Running, journal::Settings) {
    let settings = journal::Settings {
        dir: "/journal".into(),
        max_bytes: 8 * 1024 * 1024,
        max_age: None,
        when_full: WhenFull::DropOldest,
        state_delay: Duration::from_millis(5),
    };
    let owner = Owner {
        origin: Arc::new(Origin {
            gateway: "gw".into(),
            source: "urn:tidegate:gateway:gw".into(),
            labels: Labels::new(),
            version: "0".into(),
        }),
        machine_id: "m".to_owned(),
        board_serial: "b".to_owned(),
        sinks,
    };
    let disk = Simulated::default().mount();
    let (journal, recovered, running) = Journal::open_on(disk, &settings, owner, Clock::system()).unwrap();
    (journal, recovered, running, settings)
}

/// One that has nothing to watch but the journal.
fn watching(
    journal: &Journal,
    recovered: &journal::Recovered,
    settings: journal::Settings,
    clock: Clock,
) -> Watch {
    Watch {
        announcer: Announcer::new(journal.clone(), clock.clone(), "gw".into(), &[]),
        clock,
        epoch: recovered.epoch,
        journal: journal.clone(),
        settings,
        asked: mpsc::channel(1).0,
        uplinks: watch::channel(Vec::new()).1,
        lines: watch::channel(Vec::new()).1,
        presence: None,
        named: watch::channel(Named::default()).1,
        stop: CancellationToken::new(),
    }
}

/// A clock that no test can move: what must pass is asked of the deciding part (`standing`); here the wiring counts.
#[tokio::test]
async fn the_list_of_alarms_comes_from_the_engine_and_every_loss_names_its_sink_and_its_reason() {
    let (journal, recovered, _running, settings) = journal(Vec::new());
    let (asked, mut questions) = mpsc::channel(1);
    let sink: SinkName = "cloud".parse().unwrap();
    let status = forward::Status {
        last_error: Some("connection refused".to_owned()),
        ..forward::Status::default()
    };
    let view = uplinks::View {
        name: sink,
        status: watch::channel(status).1,
    };
    let watch = Watch {
        asked,
        uplinks: watch::channel(vec![view]).1,
        ..watching(&journal, &recovered, settings, Clock::system())
    };
    let answering = async {
        let Some(Asked::List(epoch, _)) = questions.recv().await else {
            panic!("it asks for the list")
        };
        assert_eq!(epoch, recovered.epoch);
    };
    tokio::join!(watch.list_alarms(), answering);
    let (start, mut told) = (Clock::system().now(), Told::default());
    let mut look = |second| {
        watch.forget_what_was_switched(&mut told);
        watch.look_at_uplinks(start.after(Duration::from_secs(second)), &mut told.uplinks);
    };
    // While it is off nobody hears of the loss; so it is told when it is on.
    watch.announcer.set_off(&["UplinkLost".to_owned()]);
    look(0);
    look(60);
    watch.announcer.set_off(&[]);
    look(100);
    look(160);
    look(220);
    let start = start.after(Duration::from_secs(100));

    let last = journal.append(crate::rule::state::Outcome::default());
    let mut durable = journal.durable();
    drop(durable.wait_for(|durable| *durable >= last).await.unwrap());
    let limit = Limit {
        entries: 100,
        bytes: usize::MAX,
    };
    let entries = journal
        .read_after(journal::Cursor::default(), limit)
        .await
        .unwrap();
    let names: Vec<_> = entries
        .iter()
        .map(|entry| entry.event.draft.name.to_string())
        .collect();
    assert_eq!(names, ["UplinkLost"]);
    let lost = &entries[0].event.draft;
    assert_eq!(&*lost.subject, "cloud");
    assert_eq!(lost.at, start, "when it happened, not when it was told");
    let expected = format!("{}-cloud-{}", recovered.epoch, start.0);
    assert_eq!(lost.correlation.as_deref(), Some(&*expected));
    let crate::event::Data::Gateway(data) = &lost.data else {
        panic!("the gateway's own")
    };
    assert_eq!(data["reason"], "connection refused");
}

#[tokio::test]
async fn a_journal_that_is_full_has_been_said_to_fill_however_much_of_it_is_state() {
    let sink = SinkPlan {
        name: "cloud".parse().unwrap(),
        required: true,
        from_oldest: true,
    };
    let (journal, recovered, _running, settings) = journal(vec![sink]);
    let watch = watching(&journal, &recovered, settings, Clock::system());
    let mut durable = journal.durable();
    // An eighth of the journal, and it has two copies; and more events than fit beside it.
    let state = (0..14).map(|number| crate::rule::state::StateChange {
        key: format!("r/{number}").into_bytes(),
        value: Some(vec![7; 64 * 1024]),
    });
    let mut last = journal.append(crate::rule::state::Outcome {
        state: state.collect(),
        ..crate::rule::state::Outcome::default()
    });
    let report = "x".repeat(8 * 1024);
    for _ in 0..1200 {
        let fact = crate::event::gateway::ConfigurationRejected {
            report: report.clone(),
            used: String::new(),
        };
        durable.wait_for(|durable| *durable >= last).await.unwrap();
        last = watch.announcer.record(&fact).unwrap();
    }
    let mut filling = None;
    let mut health = journal.health();
    let looked = async {
        while filling.is_none() {
            health.changed().await.unwrap();
            watch.look_at_room(Clock::system().now(), &mut filling);
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(20), looked).await;
    assert!(in_time.is_ok(), "{:?}", journal.health().borrow());
}

/// On a clock that goes as fast as nobody waits.
#[tokio::test(start_paused = true)]
async fn what_comes_and_goes_all_the_time_is_recorded_as_one_pair_in_five_minutes() {
    let (journal, recovered, _running, settings) = journal(Vec::new());
    let hands = crate::time::Simulated::new(crate::time::BootId(1));
    hands.follow_tokio();
    let clock = Clock::simulated(&hands);
    let boiler = DeviceId::new("boiler").unwrap();
    let (status, seen) = watch::channel(forward::Status::default());
    let view = uplinks::View {
        name: "cloud".parse().unwrap(),
        status: seen,
    };
    let (presence, stop) = (Presence::default(), CancellationToken::new());
    let named = Named {
        devices: HashSet::from([boiler.clone()]),
        offline_after: Duration::from_secs(2),
    };
    let watch = Watch {
        uplinks: watch::channel(vec![view]).1,
        presence: Some(presence.clone()),
        named: watch::channel(named).1,
        stop: stop.clone(),
        ..watching(&journal, &recovered, settings, clock)
    };
    // Twenty minutes: half a minute here, half a minute away.
    let flapping = async {
        for _ in 0..20 {
            let here = presence.enter(boiler.clone());
            status.send_modify(|status| status.connected = true);
            tokio::time::sleep(Duration::from_secs(30)).await;
            drop(here);
            status.send_modify(|status| status.connected = false);
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
        stop.cancel();
    };
    tokio::join!(watch.run(), flapping);

    let last = journal.append(crate::rule::state::Outcome::default());
    let mut durable = journal.durable();
    drop(durable.wait_for(|durable| *durable >= last).await.unwrap());
    let limit = Limit {
        entries: 1000,
        bytes: usize::MAX,
    };
    let cursor = journal::Cursor::default();
    let entries = journal.read_after(cursor, limit).await.unwrap();
    for pair in [
        ["DeviceConnected", "DeviceDisconnected"],
        ["UplinkLost", "UplinkRestored"],
    ] {
        let told = entries.iter().map(|entry| &entry.event.draft);
        let told: Vec<_> = told.filter(|draft| pair.contains(&&*draft.name)).collect();
        assert_eq!(told.len(), 8, "{pair:?}: {told:#?}");
        for (one, place) in told.iter().zip(0..) {
            assert_eq!(&*one.name, pair[place % 2]);
        }
    }
}
