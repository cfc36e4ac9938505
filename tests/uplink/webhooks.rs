//! The HTTP sink over the real journal: what its requests look like, what their answers mean, and what a bad day
//! of the endpoint costs.

use std::{path::PathBuf, sync::Arc, time::Duration};

use hyper::{
    Version,
    header::{HeaderName, HeaderValue},
};
use rustls::ServerConfig;
use tidegate::forward::{
    Terms,
    http::{Compression, Mode, Settings},
};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::{
    Log, PATIENCE, Running, SINKS,
    endpoint::{Asked, Endpoint, Reply, sequence},
};

fn settings(port: u16, mode: Mode) -> Settings {
    Settings {
        terms: Terms {
            max_attempts: 3,
            ..Terms::new("cloud".parse().unwrap())
        },
        address: format!("http://127.0.0.1:{port}/in?key=k").parse().unwrap(),
        mode,
        batch: 8,
        timeout: PATIENCE,
        bearer_file: None,
        signing_key_file: None,
        ca: None,
        headers: Vec::new(),
        compression: Compression::None,
    }
}

fn good(_: &Asked) -> Reply {
    Reply::Status(202)
}

const ALL: [Mode; 3] = [Mode::Structured, Mode::Binary, Mode::Batched];

#[tokio::test]
async fn each_mode_says_the_same_of_an_event_and_asks_as_the_binding_has_it() {
    let log = Log::new();
    log.append(20).await;
    let mut said = Vec::new();
    for (mode, name) in ALL.into_iter().zip(SINKS) {
        let server = Endpoint::start(good).await;
        let settings = Settings {
            terms: Terms::new(name.parse().unwrap()),
            ..settings(server.port, mode)
        };
        let mut uplink = Running::start_http(settings, &log);
        uplink.delivers(20).await;
        uplink.stops().await;
        let asked = server.asked();
        let (content_type, most) = match mode {
            Mode::Structured => ("application/cloudevents+json", 1),
            Mode::Binary => ("application/json", 1),
            Mode::Batched => ("application/cloudevents-batch+json", 8),
        };
        for asked in &asked {
            assert_eq!(asked.header("content-type"), content_type);
            assert_eq!(asked.target, "/in?key=k");
            assert_eq!(asked.header("host"), format!("127.0.0.1:{}", server.port));
            assert!((1..=most).contains(&asked.events.len()));
            assert_eq!(asked.headers.contains_key("ce-id"), mode == Mode::Binary);
        }
        assert_eq!(server.kept(), (1..=20).collect::<Vec<_>>());
        assert_eq!(server.connections(), 1, "the connection is kept");
        said.push(
            asked
                .into_iter()
                .flat_map(|asked| asked.events)
                .collect::<Vec<_>>(),
        );
    }
    let [structured, mut binary, batched] = <[_; 3]>::try_from(said).unwrap();
    for event in &mut binary {
        // A header is text.
        let number = event["severitynumber"].as_str().unwrap().parse::<u8>().unwrap();
        event["severitynumber"] = number.into();
    }
    assert_eq!(structured, batched);
    assert_eq!(structured, binary);
}

#[tokio::test]
async fn an_endpoint_that_comes_and_goes_gets_every_event_and_the_first_arrivals_in_order() {
    for mode in ALL {
        // Of five requests two have a good end, and nobody is told which of the bad ones was heard.
        let server = Endpoint::start(|asked| match asked.before % 5 {
            0 => Reply::Cut,
            1 => Reply::Status(500),
            2 => Reply::Status(200),
            3 => Reply::Torn(503),
            _ => Reply::Torn(204),
        })
        .await;
        let log = Log::new();
        log.append(60).await;
        let mut uplink = Running::start_http(settings(server.port, mode), &log);
        uplink.delivers(60).await;
        uplink.stops().await;
        let mut kept = server.kept();
        kept.dedup();
        assert_eq!(kept, (1..=60).collect::<Vec<_>>(), "{mode:?}");
        log.close().await;
    }
}

#[tokio::test]
async fn a_connection_that_the_server_closed_while_idle_is_replaced_without_a_word() {
    let server = Endpoint::start(good).await;
    let log = Log::new();
    let mut uplink = Running::start_http(settings(server.port, Mode::Structured), &log);
    for sequence in 1..=5 {
        log.append(1).await;
        uplink.delivers(sequence).await;
        server.hang_up();
    }
    log.append(1).await;
    let status = uplink.delivers(6).await;
    uplink.stops().await;
    assert_eq!(server.kept(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(server.connections(), 6);
    assert_eq!((status.connections, status.redelivered), (1, 0), "{status:?}");
    assert_eq!(status.last_error, None);
}

#[tokio::test]
async fn a_connection_that_was_idle_from_its_beginning_is_replaced_without_a_word() {
    let server = Endpoint::start(|asked| match asked.connection {
        1 => Reply::Cut,
        _ => Reply::Status(202),
    })
    .await;
    let log = Log::new();
    let mut uplink = Running::start_http(settings(server.port, Mode::Structured), &log);
    let connected = uplink.status.wait_for(|status| status.connections == 1);
    timeout(PATIENCE, connected).await.unwrap().unwrap();
    log.append(1).await;
    let status = uplink.delivers(1).await;
    uplink.stops().await;
    assert_eq!(server.kept(), [1]);
    assert_eq!((status.connections, status.last_error), (1, None));
}

#[tokio::test]
async fn an_event_that_is_refused_is_set_aside_judges_no_other_and_can_be_sent_again() {
    for code in [400, 413, 415, 422] {
        for mode in ALL {
            let server = Endpoint::start(move |asked| {
                let refused = asked.sequences().contains(&13);
                Reply::Status(if refused { code } else { 200 })
            })
            .await;
            let log = Log::new();
            log.append(40).await;
            let mut uplink = Running::start_http(settings(server.port, mode), &log);
            let status = uplink.delivers(40).await;
            assert_eq!((status.refused, status.set_aside), (3, 1), "{status:?}");
            let letters = log.journal.dead_letters();
            assert_eq!(letters.len(), 1);
            let reason = &letters[0].reason;
            assert!(
                reason.contains(&code.to_string()) && reason.contains("said"),
                "{reason}"
            );
            assert_eq!(server.kept().len(), 39, "all but that one");
            server.behave(good);
            log.is_durable(log.journal.resend(&letters)).await;
            server.until(|server| server.kept().contains(&13)).await;
            let status = uplink.status(|status| status.acked == 40).await;
            assert_eq!(status.connections, 1, "a refused event ends no connection");
            uplink.stops().await;
            let mut kept = server.kept();
            assert_eq!(kept.len(), 40, "{mode:?} {code}: nothing is sent twice: {kept:?}");
            kept.sort_unstable();
            assert_eq!(kept, (1..=40).collect::<Vec<_>>());
        }
    }
}

#[tokio::test]
async fn a_batch_is_halved_until_the_event_that_is_refused_stands_alone() {
    let server = Endpoint::start(|asked| {
        let refused = asked.sequences().contains(&6);
        Reply::Status(if refused { 422 } else { 200 })
    })
    .await;
    let log = Log::new();
    log.append(8).await;
    let mut uplink = Running::start_http(settings(server.port, Mode::Batched), &log);
    uplink.status(|status| status.refused == 1).await;
    server.until(|server| server.kept().len() == 7).await;
    let asked: Vec<_> = server.asked().iter().map(Asked::sequences).collect();
    let expected: [&[u64]; 7] = [
        &[1, 2, 3, 4, 5, 6, 7, 8],
        &[1, 2, 3, 4],
        &[5, 6],
        &[5],
        &[6],
        &[7, 8],
        &[6],
    ];
    // The last one, the event alone again, may have come or not.
    assert_eq!(asked[..6], expected[..6]);
    server.behave(good);
    uplink.delivers(8).await;
    uplink.stops().await;
}

#[tokio::test]
async fn what_judges_the_sink_moves_no_cursor_and_sets_nothing_aside() {
    for code in [
        301, 302, 307, 401, 403, 404, 405, 409, 410, 429, 500, 502, 503, 504,
    ] {
        let server = Endpoint::start(move |asked| match asked.before {
            0..5 => Reply::Status(code),
            _ => Reply::Status(200),
        })
        .await;
        let log = Log::new();
        log.append(3).await;
        let mut uplink = Running::start_http(settings(server.port, Mode::Structured), &log);
        let status = uplink.status(|status| status.last_error.is_some()).await;
        assert!(status.last_error.unwrap().contains(&code.to_string()));
        let status = uplink.delivers(3).await;
        assert_eq!(status.refused, 0, "{code}");
        uplink.stops().await;
        let asked: Vec<_> = server.asked().iter().flat_map(Asked::sequences).collect();
        assert_eq!(asked, [1, 1, 1, 1, 1, 1, 2, 3], "{code}");
        log.close().await;
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_the_error_says_where_it_points() {
    let other = Endpoint::start(good).await;
    let to: &'static str = format!("http://127.0.0.1:{}/there?key=s3cret", other.port).leak();
    let server = Endpoint::start(move |_| Reply::With(308, "location", to)).await;
    let log = Log::new();
    log.append(1).await;
    let mut uplink = Running::start_http(settings(server.port, Mode::Structured), &log);
    let status = uplink.status(|status| status.last_error.is_some()).await;
    let error = status.last_error.unwrap();
    assert!(
        error.contains(&format!("127.0.0.1:{}/there,", other.port)),
        "{error}"
    );
    assert!(!error.contains("s3cret"), "{error}");
    server.until(|server| server.asked().len() >= 3).await;
    assert_eq!(other.connections(), 0);
}

#[tokio::test]
async fn a_server_that_sends_us_away_is_left_alone_for_so_long() {
    for code in [429, 503] {
        let server = Endpoint::start(move |_| Reply::With(code, "retry-after", "600")).await;
        let log = Log::new();
        log.append(1).await;
        let mut uplink = Running::start_http(settings(server.port, Mode::Structured), &log);
        let left_alone = |status: &tidegate::forward::Status| {
            let error = status.last_error.as_ref();
            error.is_some_and(|error| error.contains("left alone for"))
        };
        uplink.status(left_alone).await;
        assert_eq!(server.asked().len(), 1);
        assert_eq!(server.connections(), 1, "not even connected to");
    }
    let server = Endpoint::start(|asked| match asked.before {
        0 => Reply::With(503, "retry-after", "1"),
        _ => Reply::Status(200),
    })
    .await;
    let log = Log::new();
    log.append(1).await;
    let mut uplink = Running::start_http(settings(server.port, Mode::Structured), &log);
    uplink.delivers(1).await;
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_waited_for_no_longer_than_the_timeout() {
    let server = Endpoint::start(|asked| match asked.before {
        0 => Reply::Silence,
        _ => Reply::Status(200),
    })
    .await;
    let log = Log::new();
    log.append(2).await;
    let settings = Settings {
        timeout: Duration::from_millis(200),
        ..settings(server.port, Mode::Structured)
    };
    let mut uplink = Running::start_http(settings, &log);
    let status = uplink.status(|status| status.last_error.is_some()).await;
    assert_eq!(status.last_error.unwrap(), "no answer within 200ms");
    uplink.delivers(2).await;
    uplink.stops().await;
    assert_eq!(server.kept(), [1, 2]);
}

#[tokio::test]
async fn an_answer_whose_body_is_cut_has_been_given_all_the_same() {
    let server = Endpoint::start(|_| Reply::Torn(200)).await;
    let log = Log::new();
    log.append(3).await;
    let mut uplink = Running::start_http(settings(server.port, Mode::Structured), &log);
    let status = uplink.delivers(3).await;
    uplink.stops().await;
    assert_eq!(server.kept(), [1, 2, 3]);
    assert_eq!(status.redelivered, 0);
    let connections: Vec<_> = server.asked().iter().map(|asked| asked.connection).collect();
    assert_eq!(connections, [1, 2, 3], "a torn connection is used no more");
}

#[tokio::test]
async fn a_token_that_was_changed_is_used_as_soon_as_the_old_one_is_refused() {
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("token");
    std::fs::write(&path, "first\n").unwrap();
    let server = Endpoint::start(|asked| match asked.header("authorization") {
        "Bearer first" => Reply::Status(200),
        _ => Reply::Status(401),
    })
    .await;
    let log = Log::new();
    log.append(2).await;
    let settings = Settings {
        bearer_file: Some(path.clone()),
        ..settings(server.port, Mode::Structured)
    };
    let mut uplink = Running::start_http(settings, &log);
    uplink.delivers(2).await;

    std::fs::write(&path, "second\n").unwrap();
    server.behave(|asked| match asked.header("authorization") {
        "Bearer second" => Reply::Status(200),
        _ => Reply::Status(401),
    });
    log.append(2).await;
    let status = uplink.delivers(4).await;
    assert_eq!(
        (status.connections, status.last_error),
        (1, None),
        "nobody had to hear of it"
    );

    server.behave(|_| Reply::Status(401));
    log.append(1).await;
    let status = uplink.status(|status| status.last_error.is_some()).await;
    assert!(!format!("{status:?}").contains("second"), "a token is never told");
    std::fs::remove_file(&path).unwrap();
    let unreadable = |status: &tidegate::forward::Status| {
        let error = status.last_error.as_ref();
        error.is_some_and(|error| error.contains(&path.display().to_string()))
    };
    uplink.status(unreadable).await;
}

#[tokio::test]
async fn headers_of_the_configuration_and_gzip_are_on_every_request() {
    for mode in ALL {
        let server = Endpoint::start(good).await;
        let log = Log::new();
        log.append(5).await;
        let settings = Settings {
            headers: vec![(
                HeaderName::from_static("x-api-key"),
                HeaderValue::from_static("s3cret"),
            )],
            compression: Compression::Gzip,
            ..settings(server.port, mode)
        };
        let mut uplink = Running::start_http(settings, &log);
        uplink.delivers(5).await;
        uplink.stops().await;
        for asked in server.asked() {
            assert_eq!(asked.header("x-api-key"), "s3cret");
            assert_eq!(asked.header("content-encoding"), "gzip");
            assert!(asked.body.starts_with(&[0x1f, 0x8b]));
        }
        assert_eq!(server.kept(), [1, 2, 3, 4, 5]);
    }
}

#[tokio::test]
async fn a_signature_names_what_it_is_of_and_nothing_else_by_that_name() {
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("key");
    std::fs::write(&path, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
    for mode in ALL {
        let server = Endpoint::start(|asked| Reply::Status(if asked.before == 0 { 500 } else { 200 })).await;
        let log = Log::new();
        log.append(8).await;
        let settings = Settings {
            signing_key_file: Some(path.clone()),
            compression: Compression::Gzip,
            ..settings(server.port, mode)
        };
        let mut uplink = Running::start_http(settings, &log);
        uplink.delivers(8).await;
        uplink.stops().await;
        let mut ids = std::collections::HashMap::new();
        for asked in server.asked() {
            let id = asked.header("webhook-id").to_owned();
            let sequences = asked.sequences();
            if let [event] = asked.events.as_slice() {
                assert_eq!(id, event["id"].as_str().unwrap());
            }
            let names = ids.entry(id).or_insert_with(|| sequences.clone());
            assert_eq!(*names, sequences, "one id, one content");
            assert!(asked.header("webhook-signature").starts_with("v1,"));
            let seconds = asked.header("webhook-timestamp").parse::<u64>().unwrap();
            assert!((1_700_000_000..100_000_000_000).contains(&seconds), "{seconds}");
        }
    }
}

fn acceptor(issued: &rcgen::CertifiedKey, protocols: &[&str]) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(issued.key_pair.serialize_der());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![issued.cert.der().clone()], key.into())
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

#[tokio::test]
async fn over_tls_the_server_chooses_the_version_and_only_who_our_ca_vouches_for_gets_anything() {
    let issue = || rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (theirs, strangers) = (issue(), issue());
    let files = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| -> Option<PathBuf> {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        Some(path)
    };
    let ca = write("ca.pem", theirs.cert.pem());
    let other = write("other.pem", strangers.cert.pem());
    for (protocols, version) in [
        (&["h2", "http/1.1"][..], Version::HTTP_2),
        (&["http/1.1"], Version::HTTP_11),
        (&[], Version::HTTP_11),
    ] {
        let server = Endpoint::start_with(Some(acceptor(&theirs, protocols)), good).await;
        let address = format!("https://localhost:{}/in?key=k", server.port);
        for mode in ALL {
            let log = Log::new();
            log.append(20).await;
            let settings = Settings {
                address: address.parse().unwrap(),
                ca: ca.clone(),
                ..settings(server.port, mode)
            };
            let connections = server.connections();
            let mut uplink = Running::start_http(settings.clone(), &log);
            uplink.delivers(20).await;
            uplink.stops().await;
            assert_eq!(server.connections(), connections + 1);
            let asked = server.asked();
            assert!(asked.iter().all(|asked| asked.version == version));
            if version == Version::HTTP_2 {
                assert!(asked.iter().all(|asked| asked.target == address));
            }

            let before = asked.len();
            let settings = Settings {
                ca: other.clone(),
                ..settings
            };
            let log = Log::new();
            log.append(1).await;
            let mut uplink = Running::start_http(settings, &log);
            let status = uplink.status(|status| status.last_error.is_some()).await;
            let error = status.last_error.unwrap();
            assert!(error.contains("TLS") && !error.contains("key=k"), "{error}");
            assert_eq!(server.asked().len(), before);
        }
    }
}

#[tokio::test]
async fn http_2_replaces_what_the_server_closed_and_tries_again_what_it_lost() {
    let theirs = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let files = tempfile::tempdir().unwrap();
    let ca = files.path().join("ca.pem");
    std::fs::write(&ca, theirs.cert.pem()).unwrap();
    let server = Endpoint::start_with(Some(acceptor(&theirs, &["h2"])), |asked| match asked.before % 4 {
        1 => Reply::Cut,
        2 => Reply::Status(503),
        _ => Reply::Status(200),
    })
    .await;
    let log = Log::new();
    log.append(20).await;
    let settings = Settings {
        address: format!("https://localhost:{}/", server.port).parse().unwrap(),
        ca: Some(ca),
        ..settings(server.port, Mode::Structured)
    };
    let mut uplink = Running::start_http(settings, &log);
    uplink.delivers(20).await;
    server.hang_up();
    log.append(20).await;
    uplink.delivers(40).await;
    uplink.stops().await;
    let mut kept = server.kept();
    kept.dedup();
    assert_eq!(kept, (1..=40).collect::<Vec<_>>());
    assert!(server.asked().iter().all(|asked| sequence(&asked.events[0]) > 0));
}
