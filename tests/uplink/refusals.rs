//! What a refusal judges: the event, or us. Neither skips anything.

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use tidegate::forward::mqtt::Version;

use super::{
    Log, Running, long, seed,
    server::{Answering, Greeting, Manners, Reply, Server},
    settings,
};

/// What is logged on this thread, which is all that runs here.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Logged {
    fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let logged = Self::default();
        let writer = logged.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::INFO)
            .with_writer(move || writer.clone())
            .finish();
        (logged, tracing::subscriber::set_default(subscriber))
    }

    /// The lines that hold `what`.
    fn lines(&self, what: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().filter(|line| line.contains(what));
        lines.map(str::to_owned).collect()
    }
}

/// Whatever the fifth event is answered five times, all are delivered, the first arrivals in order.
async fn an_event_answered(reply: Answering) -> (Server, tidegate::forward::Status, Logged) {
    let (logged, _guard) = Logged::start();
    let manners = Manners {
        reply,
        ..Manners::good()
    };
    let server = Server::start(manners, seed()).await;
    let log = Log::new();
    log.append(40).await;
    let mut uplink = Running::start(settings(server.port, Version::V5), &log);
    let status = uplink.delivers(40).await;
    let firsts: Vec<u64> = server.firsts().iter().map(|arrival| arrival.sequence).collect();
    assert_eq!(firsts, (1..=40).collect::<Vec<_>>());
    assert_eq!(server.kept(), firsts);
    server.assert_no_violation();
    (server, status, logged)
}

macro_rules! reply {
    ($kind:ident, $reason:expr) => {
        |sequence, n| match (sequence, n) {
            (5, ..=5) => Reply::$kind($reason),
            _ => Reply::Ack(0),
        }
    };
}

#[tokio::test]
async fn a_reason_that_judges_us_ends_the_connection_and_skips_nothing() {
    let replies: [(u8, Answering); 8] = [
        (0x80, reply!(Ack, 0x80)),
        (0x83, reply!(Ack, 0x83)),
        (0x87, reply!(Ack, 0x87)),
        (0x90, reply!(Ack, 0x90)),
        (0x91, reply!(Ack, 0x91)),
        (0x97, reply!(Ack, 0x97)),
        (0x87, reply!(Disconnect, 0x87)),
        (0x97, reply!(Disconnect, 0x97)),
    ];
    for (reason, reply) in replies {
        let (server, status, logged) = an_event_answered(reply).await;
        assert_eq!(status.refused, 0, "0x{reason:02x} judges no event");
        assert_eq!(server.connections(), 6, "0x{reason:02x}");
        assert_eq!(logged.lines("uplink lost").len(), 1, "said once: 0x{reason:02x}");
    }
}

#[tokio::test]
async fn a_reason_that_nobody_knows_judges_us() {
    let (server, status, logged) = an_event_answered(reply!(Ack, 0xff)).await;
    assert_eq!((status.refused, server.connections()), (0, 6));
    assert_eq!(logged.lines("uplink lost").len(), 1);
}

#[tokio::test]
async fn an_event_whose_size_or_format_is_refused_is_named_and_goes_alone_until_it_is_taken() {
    let cases: [(Answering, &str); 2] = [
        (reply!(Ack, 0x95), "packet too large (0x95)"),
        (reply!(Ack, 0x99), "payload format invalid (0x99)"),
    ];
    for (reply, reason) in cases {
        let (server, status, logged) = an_event_answered(reply).await;
        assert_eq!((status.refused, server.connections()), (5, 1), "{reason}");
        assert_refusal_is_told(&server, &logged, reason);
        let sequences = server.sequences();
        assert_eq!(sequences.len(), 45, "nothing else came twice");
    }
}

/// A DISCONNECT names no event: one event at a time shows which it is.
#[tokio::test]
async fn an_event_for_which_the_connection_is_ended_is_found_and_named() {
    let cases: [(Answering, &str); 2] = [
        (reply!(Disconnect, 0x95), "packet too large (0x95)"),
        (reply!(Disconnect, 0x99), "payload format invalid (0x99)"),
    ];
    for (reply, reason) in cases {
        let (server, status, logged) = an_event_answered(reply).await;
        // Twice it had company: the first connection got on, so the second began as ever.
        assert_eq!((status.refused, server.connections()), (3, 6), "{reason}");
        assert_refusal_is_told(&server, &logged, reason);
    }
}

fn assert_refusal_is_told(server: &Server, logged: &Logged, reason: &str) {
    let told = logged.lines("the sink refuses an event");
    let [line] = told.as_slice() else {
        panic!("said once, not {told:?}");
    };
    let event = format!("{}-{:020}", server.arrivals()[0].epoch, 5);
    let wanted = [
        "WARN",
        &event,
        "sink=cloud",
        "io.tidegate.gateway.Test",
        reason,
        "let the receiver take it",
    ];
    for part in wanted {
        assert!(line.contains(part), "no `{part}` in {line}");
    }
}

/// For as long as the server behaves like this nothing is taken, set aside or skipped, however many events and
/// attempts it takes; once it is mended all come, in order.
async fn a_weekend(version: Version, closed: Manners, reason: &str) {
    let attempts = if long() { 1_000 } else { 250 };
    let (logged, _guard) = Logged::start();
    let server = Server::start(closed, seed()).await;
    let log = Log::new();
    log.append(100).await;
    let mut uplink = Running::start(settings(server.port, version), &log);
    for part in 1..=10 {
        server
            .until(|server| server.connections() >= part * attempts / 10)
            .await;
        log.append(90).await;
    }
    let status = uplink.status(|status| status.last_error.is_some()).await;
    let error = status.last_error.unwrap();
    assert!(error.contains(reason), "{error}");
    assert_eq!((log.acknowledged().0, status.acked, status.refused), (0, 0, 0));
    assert_eq!(
        logged.lines("uplink lost").len(),
        1,
        "one line, not one for each attempt"
    );

    server.behave(Manners::good());
    let status = uplink.delivers(1_000).await;
    assert_eq!(status.refused, 0);
    let firsts: Vec<u64> = server.firsts().iter().map(|arrival| arrival.sequence).collect();
    assert_eq!(firsts, (1..=1_000).collect::<Vec<_>>());
    assert_eq!(server.kept(), firsts);
    assert_eq!(logged.lines("uplink restored").len(), 1);
    server.assert_no_violation();
}

fn refusing(reason: u8) -> Manners {
    Manners {
        greeting: Greeting::Refuse(reason),
        ..Manners::good()
    }
}

#[tokio::test]
async fn a_weekend_with_an_expired_password_loses_nothing() {
    let remedy = "bad user name or password (0x86): look at username and password-file";
    a_weekend(Version::V5, refusing(0x86), remedy).await;
}

#[tokio::test]
async fn a_weekend_with_an_expired_password_loses_nothing_version_3_1_1() {
    let remedy = "bad user name or password (0x04): look at username and password-file";
    a_weekend(Version::V311, refusing(0x86), remedy).await;
}

#[tokio::test]
async fn a_weekend_without_the_right_to_connect_loses_nothing() {
    a_weekend(
        Version::V5,
        refusing(0x87),
        "not authorised (0x87): let the broker",
    )
    .await;
}

#[tokio::test]
async fn a_weekend_without_the_right_to_publish_sets_nothing_aside_and_loses_nothing() {
    let closed = Manners {
        reply: |_, _| Reply::Ack(0x87),
        ..Manners::good()
    };
    a_weekend(Version::V5, closed, "not authorised (0x87)").await;
}
