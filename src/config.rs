//! The configuration: composes each module's settings out of one TOML file.

use std::{sync::Arc, time::Duration};

use crate::{event::Labels, forward, journal, rule, source};

/// A configuration that is right.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[gateway] id`; none: from the board.
    pub gateway: Gateway,
    /// `[journal]`.
    pub journal: journal::Settings,
    /// `[events]`.
    pub events: Events,
    /// `[mqtt]`; none: no door.
    pub mqtt: Option<source::mqtt::Settings>,
    /// Device names ever seen.
    pub max_devices: usize,
    /// Metrics of one device.
    pub max_metrics: usize,
    /// `[[serial]]`.
    pub serial: Vec<source::serial::Settings>,
    /// `[[device]]`.
    pub devices: Vec<rule::DeviceFacts>,
    /// `[[rule]]`, with their `[[override]]`s.
    pub rules: Vec<Arc<rule::Rule>>,
    /// `[[sink.mqtt]]`: at most one for now.
    pub sinks: Vec<forward::mqtt::Settings>,
    /// What a person should hear about, and yet is no error: one line each.
    pub warnings: Vec<String>,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
}

/// `[gateway]`.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// The id: configured, else from the board's serial number, else the machine id.
    pub id: Arc<str>,
    /// The events' source.
    pub source: Arc<str>,
    /// Copied into every event.
    pub labels: Labels,
}

/// `[events]`.
#[derive(Clone, Debug)]
pub struct Events {
    /// Gateway events not recorded.
    pub off: Vec<String>,
    /// `GatewayAlive`; none: "off".
    pub heartbeat: Option<Duration>,
    /// A reading's own time further off than this is not believed.
    pub max_clock_skew: Duration,
}
