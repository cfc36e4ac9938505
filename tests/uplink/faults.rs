//! Resets, late answers, lost sessions, silence.

use std::time::Duration;

use tidegate::{forward::mqtt::Version, journal::storage::simulated::Simulated};

use super::{
    INFLIGHT, Log, Running, long, seed,
    server::{Greeting, Manners, Reply, Server},
    settings,
};

/// The server has every event from 1 on; the first arrivals are in order, each naming the one before it.
fn assert_whole(server: &Server, events: u64) {
    let firsts: Vec<(u64, u64)> = server
        .firsts()
        .iter()
        .map(|arrival| (arrival.previous, arrival.sequence))
        .collect();
    let kept = server.kept();
    let lost: Vec<u64> = (1..=events)
        .filter(|wanted| kept.binary_search(wanted).is_err())
        .collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    let expected: Vec<(u64, u64)> = (1..=events).map(|sequence| (sequence - 1, sequence)).collect();
    assert!(firsts == expected, "first arrivals are not in order: {firsts:?}");
    server.assert_no_violation();
}

async fn a_bad_day(version: Version, hold: usize, salt: u64) {
    let (events, connections) = if long() { (10_000, 200) } else { (2_500, 50) };
    let manners = Manners {
        reset_one_in: 40,
        hold,
        ..Manners::good()
    };
    let server = Server::start(manners, seed() + salt).await;
    let log = Log::new();
    log.append(events / 2).await;
    let mut uplink = Running::start(settings(server.port, version), &log);
    uplink.delivers(events / 4).await;
    log.append(events - events / 2).await;
    uplink.delivers(events).await;

    assert_whole(&server, events);
    let made = server.connections();
    assert!(made >= connections, "only {made} connections");
    let duplicates = server.sequences().len() - usize::try_from(events).unwrap();
    println!("{version:?}, hold {hold}: {events} events, {made} connections, {duplicates} duplicates");
    assert!(
        duplicates <= usize::from(INFLIGHT) * (made - 1),
        "{duplicates} duplicates over {made} connections"
    );
    assert!(duplicates > 0, "nothing was cut while it was on its way");
    assert!(server.most_unanswered() <= usize::from(INFLIGHT));
}

#[tokio::test]
async fn nothing_is_lost_over_resets_version_5() {
    a_bad_day(Version::V5, 0, 1).await;
}

#[tokio::test]
async fn nothing_is_lost_over_resets_version_3_1_1() {
    a_bad_day(Version::V311, 0, 2).await;
}

#[tokio::test]
async fn nothing_is_lost_over_resets_and_late_answers_in_any_order_version_5() {
    a_bad_day(Version::V5, 9, 3).await;
}

#[tokio::test]
async fn nothing_is_lost_over_resets_and_late_answers_in_any_order_version_3_1_1() {
    a_bad_day(Version::V311, 9, 4).await;
}

#[tokio::test]
async fn no_more_is_on_its_way_than_inflight_or_what_the_server_takes() {
    for (receive_maximum, most) in [(u16::MAX, usize::from(INFLIGHT)), (5, 5), (1, 1)] {
        let manners = Manners {
            receive_maximum,
            hold: most - 1,
            ..Manners::good()
        };
        let server = Server::start(manners, seed()).await;
        let log = Log::new();
        log.append(100).await;
        let mut uplink = Running::start(settings(server.port, Version::V5), &log);
        uplink.delivers(100).await;
        assert_eq!((server.most_unanswered(), server.connections()), (most, 1));
        assert_whole(&server, 100);
    }
}

#[tokio::test]
async fn a_new_run_goes_on_after_what_was_acknowledged() {
    let server = Server::start(Manners::good(), seed()).await;
    let disk = Simulated::default();
    let log = Log::open(&disk, "m");
    log.append(20).await;
    let mut uplink = Running::start(settings(server.port, Version::V5), &log);
    uplink.delivers(20).await;
    uplink.stops().await;
    log.close().await;
    let log = Log::open(&disk, "m");
    log.append(20).await;
    let mut uplink = Running::start(settings(server.port, Version::V5), &log);
    uplink.delivers(40).await;
    assert_eq!(server.sequences(), (1..=40).collect::<Vec<_>>());
}

#[tokio::test]
async fn nothing_passes_for_delivered_before_its_acknowledgement() {
    let manners = Manners {
        reply: |sequence, _| {
            if sequence == 3 {
                Reply::Silence
            } else {
                Reply::Ack(0)
            }
        },
        ..Manners::good()
    };
    let server = Server::start(manners, seed()).await;
    let log = Log::new();
    log.append(10).await;
    let mut uplink = Running::start(settings(server.port, Version::V5), &log);
    uplink.status(|status| status.acked == 9).await;
    assert_eq!(log.acknowledged().0, 2, "the cursor passed what nobody answered");
    drop(uplink);
    server.behave(Manners::good());
    let mut uplink = Running::start(settings(server.port, Version::V5), &log);
    uplink.delivers(10).await;
    assert_eq!(server.sequences()[10..], [3, 4, 5, 6, 7, 8, 9, 10]);
}

#[tokio::test]
async fn a_server_that_never_acknowledges_is_left_and_loses_nothing() {
    let manners = Manners {
        reply: |_, _| Reply::Silence,
        ..Manners::good()
    };
    let server = Server::start(manners, seed()).await;
    let log = Log::new();
    log.append(30).await;
    let mut settings = settings(server.port, Version::V5);
    settings.ack_timeout = Duration::from_millis(40);
    let mut uplink = Running::start(settings, &log);
    server.until(|server| server.connections() >= 5).await;
    let status = uplink.status(|status| status.last_error.is_some()).await;
    assert!(status.last_error.unwrap().starts_with("no acknowledgement for"));
    assert_eq!((log.acknowledged().0, status.connected), (0, false));
    server.behave(Manners::good());
    uplink.delivers(30).await;
    assert_whole(&server, 30);
}

/// The server takes TCP and says nothing: the wait for CONNACK ends by itself. This test's time runs ahead
/// whenever all wait, so the seconds cost nothing.
#[tokio::test]
async fn a_server_that_never_answers_a_connect_is_left_and_loses_nothing() {
    for version in [Version::V5, Version::V311] {
        let manners = Manners {
            greeting: Greeting::Silence,
            ..Manners::good()
        };
        let server = Server::start(manners, seed()).await;
        let log = Log::new();
        log.append(30).await;
        tokio::time::pause();
        let mut uplink = Running::start(settings(server.port, version), &log);
        server.until(|server| server.connections() >= 3).await;
        let status = uplink.status(|status| status.last_error.is_some()).await;
        let error = status.last_error.unwrap();
        assert_eq!(
            error,
            format!(
                "could not connect to 127.0.0.1:{}: connecting took too long",
                server.port
            )
        );
        server.behave(Manners::good());
        tokio::time::resume();
        uplink.delivers(30).await;
        assert_whole(&server, 30);
    }
}

#[tokio::test]
async fn an_old_epochs_events_come_first_and_each_epoch_has_a_chain_of_its_own() {
    let server = Server::start(Manners::good(), seed()).await;
    let disk = Simulated::default();
    let old = Log::open(&disk, "the board that died");
    old.append(20).await;
    let mut uplink = Running::start(settings(1, Version::V5), &old);
    uplink.status(|status| status.last_error.is_some()).await;
    drop(uplink);
    let old_epoch = old.epoch;
    old.close().await;

    // The first run on the new board ends in the middle of what the old epoch owes.
    let manners = Manners {
        reply: |sequence, n| {
            if sequence == 8 && n == 1 {
                Reply::Silence
            } else {
                Reply::Ack(0)
            }
        },
        ..Manners::good()
    };
    server.behave(manners);
    let log = Log::open(&disk, "the board that replaced it");
    log.append(5).await;
    let mut uplink = Running::start(settings(server.port, Version::V5), &log);
    uplink.delivers(7).await;
    drop(uplink);
    let mut uplink = Running::start(settings(server.port, Version::V5), &log);
    uplink.status(|status| status.delivered.0 == 5).await;

    let chain = |epoch: &str, events: u64| {
        let links = (1..=events).map(|sequence| (epoch.to_owned(), sequence - 1, sequence));
        links.collect::<Vec<_>>()
    };
    let expected = [
        chain(&old_epoch.to_string(), 20),
        chain(&log.epoch.to_string(), 5),
    ]
    .concat();
    let firsts = server.firsts();
    let firsts: Vec<_> = firsts
        .into_iter()
        .map(|arrival| (arrival.epoch, arrival.previous, arrival.sequence))
        .collect();
    assert_eq!(firsts, expected);
    server.assert_no_violation();
}
