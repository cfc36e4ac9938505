//! What a broker refuses for good: set aside, the others go on, and it waits until somebody wants it to be sent again.

use tidegate::{event::Position, forward::mqtt::Version, journal::storage::simulated::Simulated};

use super::{
    Log, Running, seed,
    server::{Manners, Reply, Server},
    settings,
};

#[tokio::test]
async fn what_is_refused_for_good_waits_as_a_dead_letter_across_a_restart_until_it_is_sent_again() {
    let manners = Manners {
        reply: |sequence, n| match (sequence, n) {
            (5, ..=3) => Reply::Ack(0x99),
            _ => Reply::Ack(0),
        },
        ..Manners::good()
    };
    let server = Server::start(manners, seed()).await;
    let disk = Simulated::default();
    let log = Log::open(&disk, "m");
    log.append(10).await;
    let settings = || {
        let mut settings = settings(server.port, Version::V5);
        settings.terms.max_attempts = 3;
        settings
    };
    let mut uplink = Running::start(settings(), &log);
    let status = uplink.delivers(10).await;
    assert_eq!((status.refused, status.set_aside), (3, 1));
    assert_eq!(log.acknowledged().0, 10);
    uplink.stops().await;
    log.close().await;

    let log = Log::open(&disk, "m");
    let letters = log.journal.dead_letters();
    let [letter] = letters.as_slice() else {
        panic!("one letter, not {letters:?}");
    };
    assert_eq!(
        (letter.entry.sequence.0, letter.previous.0, letter.attempts),
        (5, 4, 3)
    );
    assert!(letter.reason.contains("0x99"), "{}", letter.reason);
    let mut uplink = Running::start(settings(), &log);
    let marked = log.journal.resend(&letters);
    log.is_durable(marked).await;
    uplink.status(|status| status.acked == 1).await;
    assert!(log.journal.dead_letters().is_empty());
    log.append(1).await;
    uplink.delivers(11).await;
    assert_eq!(server.kept(), (1..=11).collect::<Vec<_>>());
    let sent = server.sequences();
    assert!(
        sent.ends_with(&[5, 11]),
        "out of order, under its own number: {sent:?}"
    );
    uplink.stops().await;
    log.close().await;
    assert!(Log::open(&disk, "m").journal.dead_letters().is_empty());
}

#[tokio::test]
async fn an_event_for_which_the_broker_ends_every_connection_is_set_aside_and_the_others_go_on() {
    let manners = Manners {
        reply: |sequence, _| {
            if sequence == 5 {
                Reply::Disconnect(0x95)
            } else {
                Reply::Ack(0)
            }
        },
        ..Manners::good()
    };
    let server = Server::start(manners, seed()).await;
    let log = Log::new();
    log.append(10).await;
    let mut settings = settings(server.port, Version::V5);
    settings.terms.max_attempts = 3;
    let mut uplink = Running::start(settings, &log);
    let status = uplink.delivers(10).await;
    assert_eq!((status.refused, status.set_aside), (3, 1));
    assert_eq!(log.journal.dead_letters().len(), 1);
    assert_eq!(server.kept(), [1, 2, 3, 4, 6, 7, 8, 9, 10]);
}

#[tokio::test]
async fn what_was_set_aside_and_comes_after_all_by_a_replay_is_no_dead_letter_any_more() {
    let manners = Manners {
        reply: |sequence, _| Reply::Ack(if sequence == 5 { 0x99 } else { 0 }),
        ..Manners::good()
    };
    let server = Server::start(manners, seed()).await;
    let log = Log::new();
    log.append(10).await;
    let settings = || {
        let mut settings = settings(server.port, Version::V5);
        settings.terms.max_attempts = 1;
        settings
    };
    let mut uplink = Running::start(settings(), &log);
    uplink.delivers(10).await;
    uplink.stops().await;
    assert_eq!(log.journal.dead_letters().len(), 1);

    server.behave(Manners::good());
    assert!(log.journal.replay(&"cloud".parse().unwrap(), Position(0)).await);
    let mut uplink = Running::start(settings(), &log);
    uplink.status(|status| status.acked == 10).await;
    assert_eq!(server.kept(), (1..=10).collect::<Vec<_>>());
    assert_eq!(log.journal.dead_letters(), []);
    uplink.stops().await;
}
