//! Requests over one connection at a time, HTTP/1.1 or 2, kept open between them.
//!
//! TLS offers both versions and the server chooses; without TLS it is 1.1. A connection that the server closed
//! while it was idle is replaced without a word, and a request that was lost to that is sent once more.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode, Uri, Version,
    body::Incoming,
    client::conn::{http1, http2},
    header::{AUTHORIZATION, HOST, HeaderName, HeaderValue, USER_AGENT},
    rt::Executor,
};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
    time::{Instant, timeout_at},
};

use super::{Settings, Tls, answer::Answer, outgoing::Outgoing, secrets::Secrets};
use crate::{
    forward::dial::{self, Dialled},
    time::Clock,
};

/// An answer's body is read that far, so that its connection can be used again; beyond it, another is opened.
const BODY: usize = 64 * 1024;

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// What connects and asks.
#[derive(Debug)]
pub(super) struct Connection {
    settings: Arc<Settings>,
    tls: Option<Arc<ClientConfig>>,
    clock: Clock,
    live: Option<Live>,
}

/// A connection that is up, as far as we know.
#[derive(Debug)]
struct Live {
    sender: Sender,
    secrets: Secrets,
    /// What moves its bytes; ends with it.
    _tasks: Tasks,
}

#[derive(Debug)]
enum Sender {
    V1(http1::SendRequest<Full<Bytes>>),
    V2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    /// Not yet connected.
    pub fn new(settings: Arc<Settings>, tls: &Tls, clock: Clock) -> Self {
        // The server chooses, in its own order of preference.
        let tls = tls.0.as_ref().map(|config| {
            let mut config = ClientConfig::clone(config);
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            Arc::new(config)
        });
        Self {
            settings,
            tls,
            clock,
            live: None,
        }
    }

    /// Connects; `Err` says why not. Ends by the settings' timeout.
    pub async fn open(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + self.settings.timeout;
        self.live = Some(self.connect(deadline).await?);
        Ok(())
    }

    /// Asks, and says what was answered; `Err` if nothing was, why. Ends by the settings' timeout.
    pub async fn post(&mut self, outgoing: &Outgoing) -> Result<Answer, String> {
        let deadline = Instant::now() + self.settings.timeout;
        let mut may_repeat = true;
        loop {
            let (mut live, was_idle) = match self.live.take() {
                Some(live) if live.sender.is_open() => (live, true),
                _ => (self.connect(deadline).await?, false),
            };
            match self.ask(&mut live, outgoing, deadline).await {
                // The token was changed under the connection: the new one is not refused yet.
                Ok((
                    Answer::Rejected {
                        unauthorized: true, ..
                    },
                    _,
                )) if may_repeat && self.has_new(&live.secrets) => {}
                Ok((answer, whole)) => {
                    self.live = whole.then_some(live);
                    return Ok(answer);
                }
                // A server may close a connection that was idle just when a request comes, the first one too.
                Err(Failure::Broken(_)) if may_repeat && was_idle => {}
                Err(failure) => return Err(failure.into()),
            }
            may_repeat = false;
        }
    }

    /// Asks what the URL takes; the answer's status, `Err` if there is none, why. Ends by the settings' timeout.
    pub async fn options(&mut self) -> Result<StatusCode, String> {
        let deadline = Instant::now() + self.settings.timeout;
        let mut live = self.connect(deadline).await?;
        // A signed nothing would be a message that somebody could send.
        live.secrets.signing = None;
        let mut request = self.request(&Outgoing::nothing(), &live);
        *request.method_mut() = Method::OPTIONS;
        let answer = timeout_at(deadline, live.sender.send(request)).await;
        let answer = answer.map_err(|_| String::from(Failure::Late(self.settings.timeout)))?;
        answer
            .map(|answer| answer.status())
            .map_err(|error| reason(&error))
    }

    fn has_new(&self, secrets: &Secrets) -> bool {
        Secrets::read(&self.settings).is_ok_and(|read| read != *secrets)
    }

    /// The answer, and whether all of it was read.
    async fn ask(
        &self,
        live: &mut Live,
        outgoing: &Outgoing,
        deadline: Instant,
    ) -> Result<(Answer, bool), Failure> {
        let late = || Failure::Late(self.settings.timeout);
        let request = self.request(outgoing, live);
        let head = timeout_at(deadline, live.sender.send(request))
            .await
            .map_err(|_| late())?;
        let (head, body) = head
            .map_err(|error| Failure::Broken(reason(&error)))?
            .into_parts();
        // The head decides: an answer whose body is late, long or torn has been given all the same.
        let body = timeout_at(deadline, Limited::new(body, BODY).collect()).await;
        let body = body
            .ok()
            .and_then(Result::ok)
            .map(http_body_util::Collected::to_bytes);
        let answer = Answer::of(head.status, &head.headers, body.as_deref().unwrap_or_default());
        Ok((answer, body.is_some()))
    }

    fn request(&self, outgoing: &Outgoing, live: &Live) -> Request<Full<Bytes>> {
        let address = &self.settings.address;
        let mut request = Request::new(Full::new(outgoing.body.clone()));
        *request.method_mut() = Method::POST;
        let uri = match live.sender {
            Sender::V1(_) => address.target.clone(),
            Sender::V2(_) => {
                *request.version_mut() = Version::HTTP_2;
                format!("{address}{}", address.target)
            }
        };
        *request.uri_mut() = uri.parse::<Uri>().expect("parts of a URL that was one");
        let headers = request.headers_mut();
        headers.extend(self.settings.headers.iter().cloned());
        headers.extend(outgoing.headers.clone());
        headers.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("tidegate/", env!("CARGO_PKG_VERSION"))),
        );
        if matches!(live.sender, Sender::V1(_)) {
            let host = HeaderValue::from_str(&address.authority);
            headers.insert(HOST, host.expect("an authority is visible ASCII"));
        }
        if let Some(bearer) = &live.secrets.bearer {
            headers.insert(AUTHORIZATION, bearer.clone());
        }
        if let Some(key) = &live.secrets.signing {
            // Of this attempt: a receiver takes no message of long ago.
            let timestamp = self
                .clock
                .moment()
                .wall
                .0
                .max(0)
                .div_euclid(1_000_000)
                .to_string();
            let signature = key.sign(&outgoing.id, &timestamp, &outgoing.plain);
            for (name, value) in [
                (WEBHOOK_ID, &outgoing.id),
                (WEBHOOK_TIMESTAMP, &timestamp),
                (WEBHOOK_SIGNATURE, &signature),
            ] {
                let value = HeaderValue::from_str(value);
                headers.insert(name, value.expect("letters, digits and base64"));
            }
        }
        request
    }

    async fn connect(&self, deadline: Instant) -> Result<Live, String> {
        let secrets = Secrets::read(&self.settings).map_err(|error| error.to_string())?;
        // Boxed: a handshake of TLS is large, and short beside what waits for it.
        let connecting = timeout_at(deadline, Box::pin(self.dial(deadline))).await;
        let (sender, tasks) =
            connecting.map_err(|_| format!("no connection within {:?}", self.settings.timeout))??;
        Ok(Live {
            sender,
            secrets,
            _tasks: tasks,
        })
    }

    async fn dial(&self, deadline: Instant) -> Result<(Sender, Tasks), String> {
        let address = &self.settings.address;
        let dialled = dial::dial(&address.host, address.port, self.tls.as_ref(), deadline).await;
        match dialled.map_err(|error| format!("could not connect to {address}: {error}"))? {
            Dialled::Plain(stream) => one(stream).await,
            Dialled::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => two(stream).await,
            Dialled::Tls(stream) => one(stream).await,
        }
    }
}

async fn one(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<(Sender, Tasks), String> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| reason(&error))?;
    let tasks = Tasks::default();
    tasks.spawner().execute(async {
        // What ends it is told to who waits for an answer.
        connection.await.unwrap_or_default();
    });
    Ok((Sender::V1(sender), tasks))
}

async fn two(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<(Sender, Tasks), String> {
    let tasks = Tasks::default();
    let (sender, connection) = http2::handshake(tasks.spawner(), TokioIo::new(stream))
        .await
        .map_err(|error| reason(&error))?;
    tasks.spawner().execute(async {
        connection.await.unwrap_or_default();
    });
    Ok((Sender::V2(sender), tasks))
}

impl Sender {
    fn is_open(&self) -> bool {
        match self {
            Self::V1(sender) => !sender.is_closed(),
            Self::V2(sender) => !sender.is_closed(),
        }
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::V1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::V2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }
}

/// Why there is no answer.
#[derive(Debug)]
enum Failure {
    /// The connection ended without one: why.
    Broken(String),
    Late(Duration),
}

impl From<Failure> for String {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Broken(why) => why,
            Failure::Late(timeout) => format!("no answer within {timeout:?}"),
        }
    }
}

/// The innermost reason, which is the one that helps.
fn reason(error: &hyper::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let outer = error.to_string();
    let inner = innermost.to_string();
    if outer.contains(&inner) {
        format!("the connection broke: {outer}")
    } else {
        format!("the connection broke: {outer}: {inner}")
    }
}

/// A connection's tasks, which end when this goes.
#[derive(Debug, Default)]
struct Tasks(Arc<Mutex<JoinSet<()>>>);

/// Spawns into [`Tasks`], without keeping them alive: the tasks themselves hold it.
#[derive(Clone, Debug)]
struct Spawner(Weak<Mutex<JoinSet<()>>>);

impl Tasks {
    fn spawner(&self) -> Spawner {
        Spawner(Arc::downgrade(&self.0))
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Spawner {
    fn execute(&self, future: F) {
        if let Some(tasks) = self.0.upgrade() {
            let mut tasks = tasks.lock().unwrap_or_else(PoisonError::into_inner);
            // Each request over HTTP/2 may have one: those that have ended make room.
            while tasks.try_join_next().is_some() {}
            tasks.spawn(future);
        }
    }
}
