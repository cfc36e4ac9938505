//! The door: the MQTT endpoint that devices connect to.

use std::net::SocketAddr;

use crate::decode::Decoder;

/// `[mqtt]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where to listen.
    pub listen: Vec<SocketAddr>,
    /// Bytes of one packet.
    pub max_packet: usize,
    /// Connections at once.
    pub max_connections: usize,
    /// Unacknowledged QoS 1 and 2 publishes of one device.
    pub max_inflight: u16,
    /// Which topics carry readings; the first match decides.
    pub readings: Vec<TopicReadings>,
    /// Names on the wire -> device ids (`[[device]] from`).
    pub renamed: std::collections::HashMap<String, crate::reading::DeviceId>,
}

/// `[[mqtt.readings]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicReadings {
    /// Levels of the topic.
    pub topic: Vec<Level>,
    /// What its payloads hold.
    pub decoder: Decoder,
}

/// One level of a `[[mqtt.readings]] topic`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Level {
    /// Itself.
    Literal(String),
    /// `{device}`.
    Device,
    /// `{metric}`.
    Metric,
    /// `+`.
    Any,
    /// `#`, last.
    Rest,
}
