//! The HTTP sink: events as CloudEvents HTTP requests, each a POST to one URL.
//!
//! One request is in flight at a time, so first sends come in order; batches give throughput. An answer of 2xx is
//! a delivery, from its head on. 400, 413, 415 and 422 judge the event (a batch is split until the event that is
//! meant stands alone); every other answer, no answer and a cut connection judge the sink.
//!
//! A connection is kept for as long as the endpoint keeps it. That it closes an idle one is no trouble and not
//! told: the next event opens another. No redirect is followed, no proxy is asked, no cookie is kept, nothing in
//! an answer's body is obeyed. Token and signing key are read again for every connection.

use std::{path::PathBuf, sync::Arc, time::Duration};

use hyper::{
    StatusCode,
    header::{HeaderName, HeaderValue},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Forwarder, Log, Pace, Status, Terms, Tls, tls::Files};
use crate::{journal::Journal, time::Clock};

pub mod address;
mod answer;
mod connection;
mod link;
mod outgoing;
pub mod secrets;

pub use address::Address;

/// The first wait after a failed request or a refused event.
const BACKOFF_BASE: Duration = Duration::from_secs(1);
/// The longest: an endpoint that is back is found within this.
const BACKOFF_CAP: Duration = Duration::from_mins(1);

/// Requests that a batch may cost before one of its events has a verdict, with room to spare: the link keeps
/// the time of each, so that this is the last resort.
const REQUESTS: u32 = 16;

/// `[[sink.http]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What every sink's table says.
    pub terms: Terms,
    /// `url`.
    pub address: Address,
    /// What a request looks like.
    pub mode: Mode,
    /// Events in one request, in batched mode.
    pub batch: usize,
    /// From the request's begin, a connection's included, to the head of its answer.
    pub timeout: Duration,
    /// Its file holds the bearer token; a final newline is not part of it.
    pub bearer_file: Option<PathBuf>,
    /// Its file holds the key of Standard Webhooks, `whsec_...`.
    pub signing_key_file: Option<PathBuf>,
    /// PEM: instead of the system's roots.
    pub ca: Option<PathBuf>,
    /// Of every request; never one of [`is_ours`]. The values are marked as sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Of the requests' bodies.
    pub compression: Compression,
}

/// The CloudEvents HTTP binding's content modes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// One event a request, attributes and data in its body.
    #[default]
    Structured,
    /// One event a request, attributes in its headers.
    Binary,
    /// Several events a request, as a JSON array.
    Batched,
}

/// How bodies are packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not.
    #[default]
    None,
    /// `Content-Encoding: gzip`.
    Gzip,
}

/// Whether a request's header of this name is the sink's own, or the connection's, to set.
#[must_use]
pub fn is_ours(name: &HeaderName) -> bool {
    const OURS: &[&str] = &[
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    ];
    let name = name.as_str();
    OURS.contains(&name) || name.starts_with("ce-") || name.starts_with("webhook-")
}

impl Settings {
    /// How many events one request has, at most.
    #[must_use]
    pub fn events_a_request(&self) -> usize {
        match self.mode {
            Mode::Structured | Mode::Binary => 1,
            Mode::Batched => self.batch,
        }
    }
}

impl<'s> From<&'s Settings> for Files<'s> {
    fn from(settings: &'s Settings) -> Self {
        Self {
            tls: settings.address.tls,
            ca: settings.ca.as_deref(),
            cert: None,
            key: None,
        }
    }
}

/// Asks the server what the URL takes (`OPTIONS`), with the token and the headers of a delivery and without a signature:
/// the answer's status, which says that it is reached and whether it knows us. Nothing is delivered.
///
/// # Errors
///
/// There is no answer: why, for people.
pub async fn probe(settings: &Settings, tls: &Tls, clock: Clock) -> Result<StatusCode, String> {
    connection::Connection::new(Arc::new(settings.clone()), tls, clock)
        .options()
        .await
}

/// One HTTP sink: the forwarding loop over the journal, to one URL.
#[derive(Debug)]
pub struct Uplink<L = Journal> {
    terms: Terms,
    endpoint: link::Endpoint,
    log: L,
    pace: Pace,
}

impl<L: Log> Uplink<L> {
    /// A sink as `settings` say, with what [`Tls::load`] loaded for them; not yet connecting. Signatures take
    /// their time from `clock`.
    #[must_use]
    pub fn new(settings: Settings, tls: Tls, log: L, clock: Clock) -> Self {
        let pace = Pace {
            base: BACKOFF_BASE,
            cap: BACKOFF_CAP,
            ack_timeout: settings.timeout.saturating_mul(REQUESTS),
        };
        Self {
            terms: settings.terms.clone(),
            endpoint: link::Endpoint::new(settings, tls, clock),
            log,
            pace,
        }
    }

    /// With other waits: for tests that need hundreds of failures.
    #[doc(hidden)]
    #[must_use]
    pub fn with_backoff(mut self, base: Duration, cap: Duration) -> Self {
        (self.pace.base, self.pace.cap) = (base, cap);
        self
    }

    /// Forwards until `stop`, then what is durable by then, and returns.
    ///
    /// Cancel `stop` once nothing more is appended, and while the journal still reads; drop this future when
    /// the grace is over. It returns before `stop` only if the journal has ended.
    pub async fn run(self, stop: CancellationToken, status: watch::Sender<Status>) {
        Forwarder::new(self.terms, self.log, self.endpoint, self.pace, status)
            .run(stop)
            .await;
    }
}
