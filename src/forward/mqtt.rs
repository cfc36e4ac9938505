//! The MQTT uplink, version 5 or 3.1.1: events upstream at QoS 1, a retained birth and a will beside them.
//!
//! Every connection is a fresh client with a clean session, fed only after CONNACK and restarted from the journal's
//! cursor: a client that sends again by itself loses what a lost session upstream takes with it.
//!
//! Nothing is subscribed to: no downlink, no commands. A wrong certificate file is an error at the start; a
//! wrong password file is a reason why a connection failed, because it is read again for each one.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Forwarder, Link, Log, Pace, Sink, Status, Terms, tls::Files};
use crate::{
    event::{Epoch, Labels, Origin, cloudevents::Form},
    journal::Journal,
};

mod connection;
mod link;
mod wire;

pub use super::tls::Tls;

#[cfg(test)]
mod broker;
#[cfg(test)]
mod tests;

/// The first wait after a lost connection or a refused event.
const BACKOFF_BASE: Duration = Duration::from_secs(1);
/// The longest: a broker that is back is found within this.
const BACKOFF_CAP: Duration = Duration::from_mins(1);

/// `[[sink.mqtt]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What every sink's table says.
    pub terms: Terms,
    /// Broker's host.
    pub host: String,
    /// Broker's port.
    pub port: u16,
    /// `mqtts://`.
    pub tls: bool,
    /// With `{gateway} {event} {device} {metric} {severity} {transition}`.
    pub topic: String,
    /// Retained birth and will; none: "off". `{gateway}` is already replaced.
    pub status_topic: Option<String>,
    /// 5 or 3.1.1.
    pub version: Version,
    /// What an event looks like; binary mode only with version 5, which has a place for the attributes.
    pub form: Form,
    /// `{gateway}` is already replaced.
    pub client_id: String,
    /// User name.
    pub username: Option<String>,
    /// Its file holds the password; a final newline is not part of it.
    pub password_file: Option<PathBuf>,
    /// PEM: instead of the system's roots.
    pub ca: Option<PathBuf>,
    /// PEM: client certificate.
    pub cert: Option<PathBuf>,
    /// PEM: its key.
    pub key: Option<PathBuf>,
    /// Unconfirmed events on the way.
    pub inflight: u16,
    /// No acknowledgement for this long: the connection is dead.
    pub ack_timeout: Duration,
}

/// Which MQTT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// 5.
    #[default]
    V5,
    /// 3.1.1.
    V311,
}

impl<'s> From<&'s Settings> for Files<'s> {
    fn from(settings: &'s Settings) -> Self {
        Self {
            tls: settings.tls,
            ca: settings.ca.as_deref(),
            cert: settings.cert.as_deref(),
            key: settings.key.as_deref(),
        }
    }
}

/// Whether the broker takes a connection as these settings would make it, but for the client id: one of its own, so
/// that the gateway that runs is not thrown out. Without a will or a birth; nothing is published. `Err` says why not.
/// Bounded by whoever waits, else as a connection is.
///
/// # Errors
///
/// For people.
pub async fn probe(settings: &Settings, tls: Tls) -> Result<(), String> {
    let settings = Settings {
        client_id: format!("{}-doctor-{:04x}", settings.client_id, fastrand::u16(..)),
        status_topic: None,
        ..settings.clone()
    };
    let origin = Origin {
        gateway: "".into(),
        source: "".into(),
        labels: Labels::default(),
        version: "".into(),
    };
    let mut broker = link::Broker::new(settings, tls, Arc::new(origin), Epoch(0));
    broker.connect().await?.close().await;
    Ok(())
}

/// One uplink: the forwarding loop over the journal, to one broker.
#[derive(Debug)]
pub struct Uplink<L = Journal> {
    terms: Terms,
    broker: link::Broker,
    log: L,
    pace: Pace,
}

impl<L: Log> Uplink<L> {
    /// An uplink as `settings` say, with what [`Tls::load`] loaded for them; not yet connecting.
    #[must_use]
    pub fn new(settings: Settings, tls: Tls, log: L, origin: Arc<Origin>, epoch: Epoch) -> Self {
        let pace = Pace {
            base: BACKOFF_BASE,
            cap: BACKOFF_CAP,
            ack_timeout: settings.ack_timeout,
        };
        let terms = settings.terms.clone();
        Self {
            terms,
            broker: link::Broker::new(settings, tls, origin, epoch),
            log,
            pace,
        }
    }

    /// With other waits: for tests that need hundreds of connections.
    #[doc(hidden)]
    #[must_use]
    pub fn with_pace(self, pace: Pace) -> Self {
        Self { pace, ..self }
    }

    /// Forwards until `stop`, then what is durable by then; says offline, disconnects and returns.
    ///
    /// Cancel `stop` once nothing more is appended, and while the journal still reads; drop this future when
    /// the grace is over. It returns before `stop` only if the journal has ended.
    pub async fn run(self, stop: CancellationToken, status: watch::Sender<Status>) {
        Forwarder::new(self.terms, self.log, self.broker, self.pace, status)
            .run(stop)
            .await;
    }
}
