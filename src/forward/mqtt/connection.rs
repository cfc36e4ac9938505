//! One MQTT connection, of either version, as a stream of signals.
//!
//! A fresh client and event loop per connection, clean session: what rumqttc would resend by itself is never
//! there to be resent. `EventLoop::poll` is not cancel-safe, so a pump of its own polls it; the pump belongs
//! to the connection and ends with it. Packet ids are only visible as [`Signal::Sent`], in the order of the
//! publishes.

use std::{sync::Arc, time::Duration};

use rumqttc::{
    Outgoing, TlsConfiguration, Transport,
    v5::mqttbytes::{QoS as QoS5, v5 as packets5},
};
use rustls::ClientConfig;
use tokio::{sync::mpsc, task::JoinSet};

use super::Version;
use crate::event::cloudevents::Message;

/// The largest packet taken or sent. rumqttc's own 10 KiB would make an event of many labels a poison message.
pub(super) const MAX_PACKET: u32 = 1024 * 1024;

/// Name look-up, TCP, TLS and CONNACK together.
const CONNECT_WITHIN: Duration = Duration::from_secs(15);

/// Short enough that a dead path is seen before a person is.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Signals waiting to be read; the pump waits when it is full, and the broker then does.
const SIGNALS: usize = 64;

/// Publishes beyond the window that the client's channel has room for: birth, farewell, disconnect.
const SPARE: u16 = 4;

/// All that a connection needs.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub host: String,
    pub port: u16,
    pub version: Version,
    pub client_id: String,
    pub login: Option<(String, String)>,
    pub tls: Option<Arc<ClientConfig>>,
    pub inflight: u16,
    pub will: Option<(String, Vec<u8>)>,
}

/// What happened on the connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// The broker took us.
    Connected {
        /// How many unconfirmed publishes it takes.
        receive_max: u16,
        /// How large a packet it takes.
        max_packet: u32,
    },
    /// The oldest publish not yet told of went out under this packet id.
    Sent(u16),
    /// The broker answered a publish; version 3.1.1 always says 0.
    Answered {
        /// Which.
        pkid: u16,
        /// `PUBACK`'s reason code.
        reason: u8,
    },
    /// It is over because of one of the unanswered publishes; which, the broker did not say: why (reason code).
    Poisoned(u8),
    /// Our DISCONNECT is out.
    Left,
    /// It is over: why.
    Lost(String),
}

/// A connection being made, or made.
#[derive(Debug)]
pub(super) struct Connection {
    client: Client,
    signals: mpsc::Receiver<Signal>,
    /// Owns the pump: dropped, it cuts the connection.
    _pump: JoinSet<()>,
}

#[derive(Debug)]
enum Client {
    V5(rumqttc::v5::AsyncClient),
    V311(rumqttc::AsyncClient),
}

impl Connection {
    /// Begins to connect; [`Signal::Connected`] or [`Signal::Lost`] follows.
    pub fn open(plan: &Plan) -> Self {
        let (out, signals) = mpsc::channel(SIGNALS);
        let mut pump = JoinSet::new();
        let client = match plan.version {
            Version::V5 => {
                let (client, events) =
                    rumqttc::v5::AsyncClient::new(options5(plan), usize::from(plan.inflight + SPARE));
                pump.spawn(pump5(events, out));
                Client::V5(client)
            }
            Version::V311 => {
                let (client, mut events) =
                    rumqttc::AsyncClient::new(options311(plan), usize::from(plan.inflight + SPARE));
                let mut network = rumqttc::NetworkOptions::new();
                network.set_tcp_nodelay(true);
                network.set_connection_timeout(CONNECT_WITHIN.as_secs());
                events.set_network_options(network);
                pump.spawn(pump311(events, out));
                Client::V311(client)
            }
        };
        Self {
            client,
            signals,
            _pump: pump,
        }
    }

    /// Hands a QoS 1 publish to the pump; false if there is no room, which the window rules out.
    pub fn publish(&self, topic: &str, message: Message, retain: bool) -> bool {
        let payload = message.payload;
        match &self.client {
            Client::V5(client) => {
                let properties = packets5::PublishProperties {
                    content_type: Some(message.content_type.to_owned()),
                    user_properties: message.attributes,
                    ..Default::default()
                };
                client
                    .try_publish_with_properties(topic, QoS5::AtLeastOnce, retain, payload, properties)
                    .is_ok()
            }
            Client::V311(client) => client
                .try_publish(topic, rumqttc::QoS::AtLeastOnce, retain, payload)
                .is_ok(),
        }
    }

    /// Asks for a clean DISCONNECT; [`Signal::Left`] follows.
    pub fn disconnect(&self) -> bool {
        match &self.client {
            Client::V5(client) => client.try_disconnect().is_ok(),
            Client::V311(client) => client.try_disconnect().is_ok(),
        }
    }

    /// The next signal, if it is there already.
    pub fn said(&mut self) -> Option<Signal> {
        self.signals.try_recv().ok()
    }

    /// The next signal. Cancel-safe: a channel.
    pub async fn next(&mut self) -> Signal {
        let ended = || Signal::Lost("the connection's pump ended".to_owned());
        self.signals.recv().await.unwrap_or_else(ended)
    }
}

fn transport(plan: &Plan) -> Transport {
    match &plan.tls {
        Some(config) => Transport::tls_with_config(TlsConfiguration::Rustls(Arc::clone(config))),
        None => Transport::Tcp,
    }
}

fn options5(plan: &Plan) -> rumqttc::v5::MqttOptions {
    let mut options = rumqttc::v5::MqttOptions::new(&plan.client_id, &plan.host, plan.port);
    let mut network = rumqttc::NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options
        .set_network_options(network)
        .set_transport(transport(plan))
        .set_clean_start(true)
        .set_session_expiry_interval(Some(0))
        .set_max_packet_size(Some(MAX_PACKET))
        .set_outgoing_inflight_upper_limit(plan.inflight)
        .set_keep_alive(KEEP_ALIVE)
        .set_connection_timeout(CONNECT_WITHIN.as_secs());
    if let Some((username, password)) = &plan.login {
        options.set_credentials(username, password);
    }
    if let Some((topic, payload)) = &plan.will {
        options.set_last_will(packets5::LastWill::new(
            topic,
            payload.clone(),
            QoS5::AtLeastOnce,
            true,
            None,
        ));
    }
    options
}

fn options311(plan: &Plan) -> rumqttc::MqttOptions {
    let mut options = rumqttc::MqttOptions::new(&plan.client_id, &plan.host, plan.port);
    let max_packet = usize::try_from(MAX_PACKET).unwrap_or(usize::MAX);
    options
        .set_transport(transport(plan))
        .set_clean_session(true)
        .set_max_packet_size(max_packet, max_packet)
        .set_inflight(plan.inflight)
        .set_keep_alive(KEEP_ALIVE);
    if let Some((username, password)) = &plan.login {
        options.set_credentials(username, password);
    }
    if let Some((topic, payload)) = &plan.will {
        options.set_last_will(rumqttc::LastWill::new(
            topic,
            payload.clone(),
            rumqttc::QoS::AtLeastOnce,
            true,
        ));
    }
    options
}

/// Polls until the connection is over or nobody listens.
async fn pump5(mut events: rumqttc::v5::EventLoop, out: mpsc::Sender<Signal>) {
    loop {
        match events.poll().await {
            Ok(event) => {
                if !tell(&out, signal5(&event)).await {
                    return;
                }
            }
            Err(error) => {
                let judged = poison(&error).map(Signal::Poisoned);
                let end = judged.unwrap_or_else(|| Signal::Lost(reason5(&error)));
                // What was read before the end counts: an acknowledgement thrown away is a duplicate.
                let before = events.state.events.iter().map(signal5);
                tell_all(&out, before.chain([Some(end)])).await;
                return;
            }
        }
    }
}

fn signal5(event: &rumqttc::v5::Event) -> Option<Signal> {
    use packets5::Packet;
    use rumqttc::v5::Event;
    match event {
        Event::Incoming(Packet::ConnAck(connack)) => {
            let properties = connack.properties.as_ref();
            Some(Signal::Connected {
                receive_max: properties.and_then(|p| p.receive_max).unwrap_or(u16::MAX),
                max_packet: properties.and_then(|p| p.max_packet_size).unwrap_or(u32::MAX),
            })
        }
        Event::Incoming(Packet::PubAck(puback)) => Some(Signal::Answered {
            pkid: puback.pkid,
            reason: reason_code(puback.reason),
        }),
        Event::Incoming(_) => None,
        Event::Outgoing(outgoing) => outgoing_signal(outgoing),
    }
}

/// Polls until the connection is over or nobody listens.
async fn pump311(mut events: rumqttc::EventLoop, out: mpsc::Sender<Signal>) {
    loop {
        match events.poll().await {
            Ok(event) => {
                if !tell(&out, signal311(&event)).await {
                    return;
                }
            }
            Err(error) => {
                let end = Signal::Lost(reason311(&error));
                let before = events.state.events.iter().map(signal311);
                tell_all(&out, before.chain([Some(end)])).await;
                return;
            }
        }
    }
}

fn signal311(event: &rumqttc::Event) -> Option<Signal> {
    use rumqttc::{Event, Packet};
    match event {
        Event::Incoming(Packet::ConnAck(_)) => Some(Signal::Connected {
            receive_max: u16::MAX,
            max_packet: u32::MAX,
        }),
        Event::Incoming(Packet::PubAck(puback)) => Some(Signal::Answered {
            pkid: puback.pkid,
            reason: 0,
        }),
        Event::Incoming(_) => None,
        Event::Outgoing(outgoing) => outgoing_signal(outgoing),
    }
}

/// Whether there is more to tell: the connection is not over and somebody listens.
async fn tell(out: &mpsc::Sender<Signal>, signal: Option<Signal>) -> bool {
    let Some(signal) = signal else { return true };
    let over = matches!(signal, Signal::Lost(_));
    out.send(signal).await.is_ok() && !over
}

async fn tell_all(out: &mpsc::Sender<Signal>, signals: impl Iterator<Item = Option<Signal>>) {
    for signal in signals {
        if !tell(out, signal).await {
            return;
        }
    }
}

fn outgoing_signal(outgoing: &Outgoing) -> Option<Signal> {
    match outgoing {
        Outgoing::Publish(pkid) => Some(Signal::Sent(*pkid)),
        Outgoing::Disconnect => Some(Signal::Left),
        // Two publishes under one packet id: the window rules it out, and rumqttc would lose one of them.
        Outgoing::AwaitAck(pkid) => Some(Signal::Lost(format!("packet id {pkid} was still in use"))),
        _ => None,
    }
}

/// The reason code, if it judges a publish: of a DISCONNECT, or of a PUBACK that rumqttc cannot read (0x95 is
/// none of its own, so it ends the connection and keeps the packet id to itself).
fn poison(error: &rumqttc::v5::ConnectionError) -> Option<u8> {
    use packets5::DisconnectReasonCode;
    use rumqttc::v5::{ConnectionError, StateError, mqttbytes};
    let ConnectionError::MqttState(error) = error else {
        return None;
    };
    match error {
        StateError::Deserialization(mqttbytes::Error::InvalidConnectReturnCode(0x95))
        | StateError::ServerDisconnect {
            reason_code: DisconnectReasonCode::PacketTooLarge,
            ..
        } => Some(0x95),
        StateError::ServerDisconnect {
            reason_code: DisconnectReasonCode::PayloadFormatInvalid,
            ..
        } => Some(0x99),
        _ => None,
    }
}

fn reason5(error: &rumqttc::v5::ConnectionError) -> String {
    use rumqttc::v5::{ConnectionError, StateError};
    match error {
        ConnectionError::ConnectionRefused(code) => format!("the broker refuses the connection: {code:?}"),
        ConnectionError::Timeout(_) => "connecting took too long".to_owned(),
        ConnectionError::MqttState(StateError::ServerDisconnect {
            reason_code,
            reason_string,
        }) => format!(
            "the broker disconnected us: {reason_code:?} {}",
            reason_string.as_deref().unwrap_or("")
        )
        .trim_end()
        .to_owned(),
        ConnectionError::MqttState(StateError::ConnectionAborted) => {
            "the broker closed the connection".to_owned()
        }
        ConnectionError::MqttState(StateError::AwaitPingResp) => {
            "the broker no longer answers pings".to_owned()
        }
        ConnectionError::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}

fn reason311(error: &rumqttc::ConnectionError) -> String {
    use rumqttc::{ConnectionError, StateError};
    match error {
        ConnectionError::ConnectionRefused(code) => format!("the broker refuses the connection: {code:?}"),
        ConnectionError::NetworkTimeout => "connecting took too long".to_owned(),
        ConnectionError::MqttState(StateError::ConnectionAborted) => {
            "the broker closed the connection".to_owned()
        }
        ConnectionError::MqttState(StateError::AwaitPingResp) => {
            "the broker no longer answers pings".to_owned()
        }
        ConnectionError::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}

/// The code on the wire: rumqttc keeps its own conversion to itself.
fn reason_code(reason: packets5::PubAckReason) -> u8 {
    use packets5::PubAckReason;
    match reason {
        PubAckReason::Success => 0x00,
        PubAckReason::NoMatchingSubscribers => 0x10,
        PubAckReason::UnspecifiedError => 0x80,
        PubAckReason::ImplementationSpecificError => 0x83,
        PubAckReason::NotAuthorized => 0x87,
        PubAckReason::TopicNameInvalid => 0x90,
        PubAckReason::PacketIdentifierInUse => 0x91,
        PubAckReason::QuotaExceeded => 0x97,
        PubAckReason::PayloadFormatInvalid => 0x99,
    }
}
