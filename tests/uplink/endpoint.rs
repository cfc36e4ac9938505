//! An HTTP endpoint that keeps what it was asked just before it answers, and misbehaves as told. HTTP/1.1, or over
//! TLS what the client and it agree on.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Request, Response, Version,
    body::{Body, Frame, Incoming},
    rt::Executor,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::PATIENCE;

/// How a request is answered.
#[derive(Clone, Copy)]
pub(crate) enum Reply {
    Status(u16),
    /// With one more header.
    With(u16, &'static str, &'static str),
    /// The head and half of the body it announces; then the connection ends.
    Torn(u16),
    /// The connection ends without an answer.
    Cut,
    Silence,
    /// Success, but not before [`Endpoint::answer_late`].
    Late,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// How many came before it.
    pub before: usize,
    /// Over which connection, from 1.
    pub connection: usize,
    pub version: Version,
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The events in it, as structured JSON has them.
    pub events: Vec<Value>,
}

impl Asked {
    pub(crate) fn sequences(&self) -> Vec<u64> {
        self.events.iter().map(sequence).collect()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub(crate) fn sequence(event: &Value) -> u64 {
    event["sequence"].as_str().unwrap().parse().unwrap()
}

type Answering = Arc<dyn Fn(&Asked) -> Reply + Send + Sync>;

#[derive(Clone)]
struct Shared {
    answering: Arc<Mutex<Answering>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    kept: Arc<Mutex<Vec<u64>>>,
    connections: watch::Sender<usize>,
    changed: watch::Sender<()>,
    /// Grows when all connections are to end.
    hang_up: watch::Sender<u64>,
    /// Who waits for it is answered now.
    late: watch::Sender<bool>,
}

pub(crate) struct Endpoint {
    pub(crate) port: u16,
    shared: Shared,
    _tasks: JoinSet<()>,
}

impl Endpoint {
    pub(crate) async fn start(answering: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(None, answering).await
    }

    pub(crate) async fn start_with(
        tls: Option<TlsAcceptor>,
        answering: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Shared {
            answering: Arc::new(Mutex::new(Arc::new(answering))),
            asked: Arc::default(),
            kept: Arc::default(),
            connections: watch::Sender::new(0),
            changed: watch::Sender::new(()),
            hang_up: watch::Sender::new(0),
            late: watch::Sender::new(false),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, tls, shared.clone()));
        Self {
            port,
            shared,
            _tasks: tasks,
        }
    }

    /// From now on, on open connections too.
    pub(crate) fn behave(&self, answering: impl Fn(&Asked) -> Reply + Send + Sync + 'static) {
        *self.shared.answering.lock().unwrap() = Arc::new(answering);
    }

    /// Ends all connections, as a server does with idle ones.
    pub(crate) fn hang_up(&self) {
        self.shared.hang_up.send_modify(|times| *times += 1);
    }

    /// All [`Reply::Late`], from now on at once.
    pub(crate) fn answer_late(&self) {
        self.shared.late.send_replace(true);
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// What it answered with success, in order, as often as it did.
    pub(crate) fn kept(&self) -> Vec<u64> {
        self.shared.kept.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        *self.shared.connections.borrow()
    }

    pub(crate) async fn until(&self, what: impl Fn(&Self) -> bool) {
        let mut changed = self.shared.changed.subscribe();
        let waited = timeout(PATIENCE, changed.wait_for(|()| what(self))).await;
        let asked: Vec<_> = self.asked().iter().map(Asked::sequences).collect();
        assert!(waited.is_ok(), "{} connections, {asked:?}", self.connections());
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Shared) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        shared.connections.send_modify(|count| *count += 1);
        let number = *shared.connections.borrow();
        let (tls, shared) = (tls.clone(), shared.clone());
        connections.spawn(async move {
            let mut hang_up = shared.hang_up.subscribe();
            let serving = async {
                let Some(tls) = tls else {
                    return serve(stream, false, number, shared).await;
                };
                // A client that does not trust it leaves here.
                if let Ok(stream) = tls.accept(stream).await {
                    let two = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    serve(stream, two, number, shared).await;
                }
            };
            tokio::select! {
                () = serving => {}
                _ = hang_up.changed() => {}
            }
        });
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    two: bool,
    number: usize,
    shared: Shared,
) {
    let service = service_fn(|request| answer(request, number, shared.clone()));
    // An error is the other side's leave, or ours.
    if two {
        let connection =
            http2::Builder::new(Tasks::default()).serve_connection(TokioIo::new(stream), service);
        drop(connection.await);
    } else {
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        drop(connection.await);
    }
}

async fn answer(
    request: Request<Incoming>,
    connection: usize,
    shared: Shared,
) -> Result<Response<Told>, &'static str> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return Err("the request was cut");
    };
    let body = body.to_bytes();
    let (reply, sequences) = {
        let mut all = shared.asked.lock().unwrap();
        let asked = Asked {
            before: all.len(),
            connection,
            version: head.version,
            target: head.uri.to_string(),
            events: events(&head.headers, &body),
            headers: head.headers,
            body,
        };
        let answering = Arc::clone(&shared.answering.lock().unwrap());
        let reply = answering(&asked);
        let sequences = asked.sequences();
        all.push(asked);
        (reply, sequences)
    };
    shared.changed.send_replace(());
    if let Reply::Late = reply {
        shared.late.subscribe().wait_for(|now| *now).await.unwrap();
    }
    if let Reply::Status(200..300) | Reply::With(200..300, ..) | Reply::Torn(200..300) | Reply::Late = reply {
        shared.kept.lock().unwrap().extend(sequences);
        shared.changed.send_replace(());
    }
    let response = match reply {
        Reply::Status(status) => Response::builder().status(status).body(Told::whole("said")),
        Reply::Late => Response::builder().body(Told::whole("said")),
        Reply::With(status, name, value) => Response::builder()
            .status(status)
            .header(name, value)
            .body(Told::whole("said")),
        Reply::Torn(status) => Response::builder()
            .status(status)
            .header("content-length", 8)
            .body(Told::torn("said")),
        Reply::Cut => return Err("cut"),
        Reply::Silence => std::future::pending().await,
    };
    Ok(response.unwrap())
}

/// What is in a request, whatever its mode.
fn events(headers: &HeaderMap, body: &[u8]) -> Vec<Value> {
    let unpacked = match headers.get("content-encoding") {
        None => body.to_vec(),
        Some(_) => {
            let mut out = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(body), &mut out).unwrap();
            out
        }
    };
    let json: Value = serde_json::from_slice(&unpacked).unwrap();
    match headers["content-type"].to_str().unwrap() {
        "application/cloudevents+json" => vec![json],
        "application/cloudevents-batch+json" => json.as_array().unwrap().clone(),
        "application/json" => {
            let attributes = headers.iter().filter_map(|(name, value)| {
                let name = name.as_str().strip_prefix("ce-")?;
                let value = percent_encoding::percent_decode_str(value.to_str().unwrap());
                Some((name.to_owned(), value.decode_utf8().unwrap().into_owned().into()))
            });
            let mut event: HashMap<String, Value> = attributes.collect();
            event.insert("datacontenttype".to_owned(), "application/json".into());
            event.insert("data".to_owned(), json);
            vec![serde_json::to_value(event).unwrap()]
        }
        other => panic!("{other}"),
    }
}

/// An answer's body.
struct Told {
    text: Option<Bytes>,
    torn: bool,
    flushed: bool,
}

impl Told {
    fn whole(text: &'static str) -> Self {
        Self {
            text: Some(text.into()),
            torn: false,
            flushed: false,
        }
    }

    fn torn(text: &'static str) -> Self {
        Self {
            torn: true,
            ..Self::whole(text)
        }
    }
}

impl Body for Told {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        if self.text.is_none() && self.torn && !std::mem::replace(&mut self.flushed, true) {
            // What was written goes out when there is nothing more to write yet.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(match self.text.take() {
            Some(text) => Some(Ok(Frame::data(text))),
            None if self.torn => Some(Err("torn")),
            None => None,
        })
    }
}

/// Where HTTP/2 spawns.
#[derive(Clone, Default)]
struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, future: F) {
        self.0.lock().unwrap().spawn(future);
    }
}
