//! The uplink against a broker that records before it acknowledges and misbehaves as told.

use std::collections::BTreeSet;

use tokio::task::JoinSet;

use super::{
    broker::{Broker, Got, Manners},
    *,
};
use crate::{
    event::cloudevents::Form,
    forward::tests::{MemoryLog, PATIENCE, origin, pace, terms},
};

fn settings(port: u16, version: Version) -> Settings {
    Settings {
        terms: Terms {
            required: false,
            ..terms()
        },
        host: "127.0.0.1".to_owned(),
        port,
        tls: false,
        topic: "tidegate/{gateway}/events/{event}/{device}".to_owned(),
        status_topic: Some("tidegate/gw/status".to_owned()),
        version,
        form: Form::default(),
        client_id: "tidegate-gw".to_owned(),
        username: None,
        password_file: None,
        ca: None,
        cert: None,
        key: None,
        inflight: 10,
        ack_timeout: PATIENCE,
    }
}

struct Running {
    status: watch::Receiver<Status>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

fn run(settings: Settings, log: &MemoryLog) -> Running {
    let tls = Tls::load(&settings).unwrap();
    let uplink = Uplink::new(settings, tls, log.clone(), origin(), Epoch(7)).with_pace(pace());
    let (sender, status) = watch::channel(Status::default());
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(uplink.run(stop.clone(), sender));
    Running { status, stop, tasks }
}

impl Running {
    async fn status(&mut self, what: impl FnMut(&Status) -> bool) -> Status {
        let found = tokio::time::timeout(PATIENCE, self.status.wait_for(what)).await;
        found.expect("the status never said so").unwrap().clone()
    }

    async fn stops(mut self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.tasks.join_next()).await;
        ended.expect("the uplink did not end").unwrap().unwrap();
    }
}

fn presence(state: &str) -> String {
    format!(r#"{{"state":"{state}","gateway":"gw","epoch":"0000000000007","version":"0.1.0"}}"#)
}

async fn a_whole_life(version: Version) {
    let broker = Broker::start(Manners::good(version)).await;
    let log = MemoryLog::with_events(25);
    let secrets = tempfile::tempdir().unwrap();
    let password_file = secrets.path().join("password");
    std::fs::write(&password_file, "s3cret\n").unwrap();
    let settings = Settings {
        username: Some("gw".to_owned()),
        password_file: Some(password_file),
        ..settings(broker.port, version)
    };
    let mut uplink = run(settings, &log);
    log.acknowledges(25).await;
    let status = uplink
        .status(|status| status.connected && status.delivered.0 == 25)
        .await;
    assert_eq!((status.sent, status.acked, status.redelivered), (25, 25, 0));
    log.append(1);
    uplink.stops().await;
    assert_eq!(log.acknowledged().0, 26);
    broker.gets(|got| got.last() == Some(&Got::Disconnect)).await;

    let content_type = |text: &str| {
        if version == Version::V5 {
            text.to_owned()
        } else {
            String::new()
        }
    };
    let presence_publish = |state| Got::Publish {
        topic: "tidegate/gw/status".to_owned(),
        payload: presence(state),
        retain: true,
        content_type: content_type("application/json"),
    };
    let got = broker.got();
    let connect = Got::Connect {
        clean: true,
        will: Some(("tidegate/gw/status".to_owned(), presence("offline"))),
        username: "gw".to_owned(),
        password: "s3cret".to_owned(),
    };
    assert_eq!(got[0..2], [connect, presence_publish("online")]);
    assert_eq!(
        got[got.len() - 2..],
        [presence_publish("offline"), Got::Disconnect]
    );
    assert_eq!(broker.sequences(), (1..=26).collect::<Vec<_>>());
    for got in &got[2..got.len() - 2] {
        let Got::Publish {
            topic,
            retain,
            content_type: of_event,
            ..
        } = got
        else {
            panic!("{got:?}")
        };
        assert_eq!(
            (topic.as_str(), *retain),
            ("tidegate/gw/events/GatewayAlive/gw", false)
        );
        assert_eq!(*of_event, content_type("application/cloudevents+json"));
    }
}

#[tokio::test]
async fn birth_events_in_order_farewell_and_disconnect_over_version_5() {
    a_whole_life(Version::V5).await;
}

#[tokio::test]
async fn birth_events_in_order_farewell_and_disconnect_over_version_3_1_1() {
    a_whole_life(Version::V311).await;
}

#[tokio::test]
async fn a_farewell_that_is_refused_is_left_to_the_will() {
    let broker = Broker::start(Manners {
        farewell: 0x87,
        ..Manners::good(Version::V5)
    })
    .await;
    let log = MemoryLog::with_events(1);
    let uplink = run(settings(broker.port, Version::V5), &log);
    log.acknowledges(1).await;
    uplink.stops().await;
    // A DISCONNECT would have the broker forget the will, and say "online" for ever.
    let is_over = |got: &[Got]| matches!(got.last(), Some(Got::Cut | Got::Disconnect));
    broker.gets(is_over).await;
    assert_eq!(broker.got().last(), Some(&Got::Cut));
}

/// Resets at all places, answers late and in reverse: at least once, first sends in order, few duplicates.
async fn nothing_is_lost(version: Version, hold: usize, reset_after: usize) {
    let manners = Manners {
        hold,
        reset_after: Some(reset_after),
        ..Manners::good(version)
    };
    let broker = Broker::start(manners).await;
    let log = MemoryLog::with_events(300);
    let mut uplink = run(settings(broker.port, version), &log);
    log.acknowledges(300).await;
    let status = uplink.status(|status| status.delivered.0 == 300).await;

    let sequences = broker.sequences();
    let mut seen = BTreeSet::new();
    let firsts: Vec<u64> = sequences
        .iter()
        .copied()
        .filter(|number| seen.insert(*number))
        .collect();
    assert_eq!(firsts, (1..=300).collect::<Vec<_>>());
    let connections = broker.connections();
    assert!(connections > 3, "there were only {connections} connections");
    assert!(
        sequences.len() - 300 <= 10 * connections,
        "{} for {connections} connections",
        sequences.len()
    );
    assert!(status.redelivered <= 10 * status.connections);
    assert!(broker.most_unanswered() <= 10);
}

#[tokio::test]
async fn nothing_is_lost_when_the_broker_resets_connections_version_5() {
    nothing_is_lost(Version::V5, 1, 23).await;
}

#[tokio::test]
async fn nothing_is_lost_when_the_broker_resets_connections_version_3_1_1() {
    nothing_is_lost(Version::V311, 1, 23).await;
}

#[tokio::test]
async fn nothing_is_lost_when_answers_come_late_and_in_reverse_version_5() {
    nothing_is_lost(Version::V5, 7, 41).await;
}

#[tokio::test]
async fn nothing_is_lost_when_answers_come_late_and_in_reverse_version_3_1_1() {
    nothing_is_lost(Version::V311, 7, 41).await;
}

#[tokio::test]
async fn an_event_whose_format_is_refused_is_sent_again_alone_until_it_is_taken() {
    let reason = |sequence, n| if sequence == 3 && n <= 4 { 0x99 } else { 0 };
    let broker = Broker::start(Manners {
        reason,
        ..Manners::good(Version::V5)
    })
    .await;
    let log = MemoryLog::with_events(40);
    let mut uplink = run(settings(broker.port, Version::V5), &log);
    let stopped = |error: &String| error.starts_with("stopped at an event that it refuses");
    let status = uplink
        .status(|status| status.last_error.as_ref().is_some_and(stopped))
        .await;
    let error = status.last_error.unwrap();
    assert!(error.contains("0x99"), "{error}");
    log.acknowledges(40).await;
    let status = uplink.status(|status| status.delivered.0 == 40).await;
    assert_eq!((status.refused, status.connections, status.acked), (4, 1, 40));
    let sequences = broker.sequences();
    assert_eq!(sequences.iter().filter(|sequence| **sequence == 3).count(), 5);
    assert_eq!(sequences.len(), 44, "nothing else is sent twice");
}

#[tokio::test]
async fn a_missing_right_judges_the_sink_and_skips_nothing() {
    let reason = |_, n| if n <= 2 { 0x87 } else { 0 };
    let broker = Broker::start(Manners {
        reason,
        ..Manners::good(Version::V5)
    })
    .await;
    let log = MemoryLog::with_events(1);
    let mut uplink = run(settings(broker.port, Version::V5), &log);
    let status = uplink.status(|status| status.last_error.is_some()).await;
    let error = status.last_error.unwrap();
    assert_eq!(error, "the broker refuses events: not authorised (0x87)");
    let status = uplink.status(|status| status.connected).await;
    assert_eq!(
        (status.refused, status.connections, status.last_error),
        (0, 3, None)
    );
    assert_eq!(log.acknowledged().0, 1);
}

#[tokio::test]
async fn a_broker_that_ends_the_connection_at_a_topic_with_a_dot_is_told_with_what_to_write() {
    for (topic, is_odd) in [("events/v1.0/{event}", true), ("events/{event}", false)] {
        let broker = Broker::start(Manners {
            hold: 100,
            reset_after: Some(2),
            ..Manners::good(Version::V311)
        })
        .await;
        let log = MemoryLog::with_events(10);
        let settings = Settings {
            topic: topic.to_owned(),
            status_topic: None,
            ..settings(broker.port, Version::V311)
        };
        let mut uplink = run(settings, &log);
        let status = uplink.status(|status| status.last_error.is_some()).await;
        let error = status.last_error.unwrap();
        assert_eq!(
            error.contains("write a topic without them"),
            is_odd,
            "{topic}: {error}"
        );
    }
}

#[tokio::test]
async fn nobody_subscribes_is_a_delivery() {
    let broker = Broker::start(Manners {
        reason: |_, _| 0x10,
        ..Manners::good(Version::V5)
    })
    .await;
    let log = MemoryLog::with_events(30);
    let _uplink = run(settings(broker.port, Version::V5), &log);
    log.acknowledges(30).await;
    assert_eq!(broker.sequences().len(), 30);
}

#[tokio::test]
async fn no_more_is_unanswered_than_the_broker_says_it_takes() {
    let manners = Manners {
        hold: 8,
        receive_max: Some(3),
        ..Manners::good(Version::V5)
    };
    let broker = Broker::start(manners).await;
    let log = MemoryLog::with_events(30);
    let _uplink = run(settings(broker.port, Version::V5), &log);
    log.acknowledges(30).await;
    assert_eq!(broker.most_unanswered(), 3);
}

#[tokio::test]
async fn an_event_over_the_brokers_packet_limit_stops_the_sink_without_a_reconnect_loop() {
    let broker = Broker::start(Manners {
        max_packet: Some(300),
        ..Manners::good(Version::V5)
    })
    .await;
    let log = MemoryLog::with_events(2);
    let mut uplink = run(settings(broker.port, Version::V5), &log);
    let status = uplink.status(|status| status.last_error.is_some()).await;
    assert!(status.last_error.unwrap().contains("over the limit of 300"));
    assert_eq!(
        (
            log.acknowledged().0,
            broker.sequences().len(),
            broker.connections()
        ),
        (0, 0, 1)
    );
}

#[tokio::test]
async fn a_missing_password_file_is_why_a_connection_failed_and_is_read_again() {
    let broker = Broker::start(Manners::good(Version::V5)).await;
    let log = MemoryLog::with_events(1);
    let secrets = tempfile::tempdir().unwrap();
    let path = secrets.path().join("password");
    let settings = Settings {
        username: Some("gw".to_owned()),
        password_file: Some(path.clone()),
        ..settings(broker.port, Version::V5)
    };
    let mut uplink = run(settings, &log);
    let error = uplink
        .status(|status| status.last_error.is_some())
        .await
        .last_error
        .unwrap();
    assert!(error.contains(&path.display().to_string()), "{error}");
    std::fs::write(&path, "now").unwrap();
    log.acknowledges(1).await;
}

#[tokio::test]
async fn events_go_over_tls_to_a_broker_with_its_own_ca_that_wants_our_certificate() {
    use tokio_rustls::{
        TlsAcceptor,
        rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier},
    };
    let names = vec!["localhost".to_owned()];
    let ours = rcgen::generate_simple_self_signed(names.clone()).unwrap();
    let theirs = rcgen::generate_simple_self_signed(names).unwrap();
    let files = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        Some(path)
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(ours.cert.der().clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(theirs.key_pair.serialize_der());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![theirs.cert.der().clone()], key.into())
        .unwrap();
    let tls = Some(TlsAcceptor::from(Arc::new(config)));
    let broker = Broker::start(Manners {
        tls,
        ..Manners::good(Version::V5)
    })
    .await;
    let settings = Settings {
        host: "localhost".to_owned(),
        tls: true,
        ca: write("ca.pem", theirs.cert.pem()),
        cert: write("cert.pem", ours.cert.pem()),
        key: write("key.pem", ours.key_pair.serialize_pem()),
        ..settings(broker.port, Version::V5)
    };
    let log = MemoryLog::with_events(5);
    let mut strangers = run(
        Settings {
            cert: None,
            key: None,
            ..settings.clone()
        },
        &log,
    );
    strangers.status(|status| status.last_error.is_some()).await;
    drop(strangers);
    assert_eq!(broker.sequences(), [0_u64; 0]);
    let uplink = run(settings, &log);
    log.acknowledges(5).await;
    uplink.stops().await;
    assert_eq!(broker.sequences(), [1, 2, 3, 4, 5]);
}

#[test]
fn a_certificate_or_key_that_cannot_be_used_is_an_error_that_names_it_and_says_what_to_do() {
    let files = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let issue = || rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (ours, other) = (issue(), issue());
    let cert = write("cert.pem", &ours.cert.pem());
    let key = write("key.pem", &ours.key_pair.serialize_pem());
    let other_key = write("other.pem", &other.key_pair.serialize_pem());
    let empty = write("empty.pem", "no certificate");
    let torn = write(
        "torn.pem",
        &ours.cert.pem().replace("-----END CERTIFICATE-----", ""),
    );
    let absent = files.path().join("absent.pem");
    let with = |ca: &PathBuf, cert: Option<&PathBuf>, key: Option<&PathBuf>| {
        let settings = Settings {
            tls: true,
            ca: Some(ca.clone()),
            cert: cert.cloned(),
            key: key.cloned(),
            ..settings(1, Version::V5)
        };
        let mistakes = Tls::mistakes(&settings);
        assert_eq!(Tls::load(&settings).is_err(), !mistakes.is_empty());
        let shown = mistakes.iter().map(ToString::to_string);
        shown.collect::<Vec<_>>().join("\n")
    };
    assert_eq!(with(&cert, Some(&cert), Some(&key)), "");
    for (got, wanted) in [
        (
            with(&absent, None, None),
            "ca from {dir}/absent.pem: there is no such file; put it",
        ),
        (
            with(&empty, None, None),
            "ca from {dir}/empty.pem: there is no -----BEGIN CERTIFICATE-----",
        ),
        (
            with(&torn, None, None),
            "ca from {dir}/torn.pem: it is not whole PEM; ",
        ),
        (
            with(&cert, Some(&key), Some(&key)),
            "cert from {dir}/key.pem: there is no -----BEGIN CERT",
        ),
        (
            with(&cert, Some(&cert), Some(&cert)),
            "key from {dir}/cert.pem: there is no -----BEGIN PRIV",
        ),
        (
            with(&cert, Some(&cert), Some(&other_key)),
            "cert from {dir}/cert.pem: the key is another",
        ),
        (
            with(&files.path().to_owned(), None, None),
            "ca from {dir}: it is a directory; name the file",
        ),
    ] {
        let wanted = format!(
            "could not load {}",
            wanted.replace("{dir}", &files.path().display().to_string())
        );
        assert!(got.starts_with(&wanted), "{got}\nwanted {wanted}");
    }
    let all = with(&absent, Some(&absent), Some(&absent));
    assert_eq!(all.lines().count(), 3, "each file is told: {all}");
    let half = with(&cert, Some(&cert), None);
    assert_eq!(half, "a client certificate needs both `cert` and `key`");
}
