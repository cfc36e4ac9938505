//! The MQTT uplink.

use std::{path::PathBuf, time::Duration};

use crate::event::SinkName;

/// `[[sink.mqtt]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Unique among the sinks.
    pub name: SinkName,
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
    /// Refusals of one event before it is set aside.
    pub max_attempts: u32,
    /// Whether undelivered events may make `refuse` refuse.
    pub required: bool,
    /// A sink added later starts at the oldest event.
    pub from_oldest: bool,
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
