//! Events over one MQTT connection: which packet id is which event, and what an answer means.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use rustls::ClientConfig;
use serde::Serialize;
use tokio::time::timeout;

use super::{
    Settings, Tls,
    connection::{Connection, MAX_PACKET, Plan, Signal},
};
use crate::{
    event::{
        Entry, Epoch, Origin, Position, Sequence,
        cloudevents::{self, Form, Message},
    },
    forward::{Link, Sink, Verdict},
};

/// The payload format of the birth and the will.
const STATUS_CONTENT_TYPE: &str = "application/json";

/// What a publish has beside topic and payload, at most: fixed header, lengths, packet id, content type.
const OVERHEAD: usize = 64;

/// The farewell and the DISCONNECT, each: beyond it the will says the same.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// The broker of one uplink.
#[derive(Debug)]
pub(super) struct Broker {
    settings: Settings,
    tls: Option<Arc<ClientConfig>>,
    origin: Arc<Origin>,
    epoch: Epoch,
    /// Said once: a broker that takes events and no birth is a broker all the same.
    birth_refused: bool,
}

/// What the status topic says.
#[derive(Clone, Debug)]
struct Presence {
    topic: String,
    online: Vec<u8>,
    offline: Vec<u8>,
}

#[derive(Serialize)]
struct PresenceBody<'a> {
    state: &'a str,
    gateway: &'a str,
    epoch: String,
    version: &'a str,
}

impl Broker {
    pub fn new(settings: Settings, tls: Tls, origin: Arc<Origin>, epoch: Epoch) -> Self {
        Self {
            settings,
            tls: tls.0,
            origin,
            epoch,
            birth_refused: false,
        }
    }

    fn presence(&self) -> Option<Presence> {
        let body = |state| {
            let body = PresenceBody {
                state,
                gateway: &self.origin.gateway,
                epoch: self.epoch.to_string(),
                version: &self.origin.version,
            };
            serde_json::to_vec(&body).expect("four strings always serialise")
        };
        self.settings.status_topic.clone().map(|topic| Presence {
            topic,
            online: body("online"),
            offline: body("offline"),
        })
    }

    fn plan(&self, presence: Option<&Presence>) -> Result<Plan, String> {
        let settings = &self.settings;
        // Bare, an IPv6 address is right for the name look-up and for TLS.
        let host = settings
            .host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        Ok(Plan {
            host,
            port: settings.port,
            version: settings.version,
            client_id: settings.client_id.clone(),
            login: self.login()?,
            tls: self.tls.clone(),
            inflight: settings.inflight.max(1),
            will: presence.map(|presence| (presence.topic.clone(), presence.offline.clone())),
        })
    }

    /// Read for every connection, so that a changed password needs no restart.
    fn login(&self) -> Result<Option<(String, String)>, String> {
        let Some(username) = &self.settings.username else {
            return Ok(None);
        };
        let Some(path) = &self.settings.password_file else {
            return Ok(Some((username.clone(), String::new())));
        };
        let password = std::fs::read_to_string(path)
            .map_err(|error| format!("could not read the password file {}: {error}", path.display()))?;
        let password = password.strip_suffix('\n').unwrap_or(&password);
        let password = password.strip_suffix('\r').unwrap_or(password);
        Ok(Some((username.clone(), password.to_owned())))
    }
}

impl Sink for Broker {
    type Link = MqttLink;

    /// Connects and says online; events may follow. rumqttc bounds the connecting, `ack-timeout` the birth.
    async fn connect(&mut self) -> Result<MqttLink, String> {
        let presence = self.presence();
        let plan = self.plan(presence.as_ref())?;
        let mut connection = Connection::open(&plan);
        let (receive_max, max_packet) = loop {
            match connection.next().await {
                Signal::Connected {
                    receive_max,
                    max_packet,
                } => break (receive_max, max_packet),
                Signal::Lost(reason) => {
                    let (host, port) = (&self.settings.host, self.settings.port);
                    return Err(format!("could not connect to {host}:{port}: {reason}"));
                }
                Signal::Poisoned(reason) => return Err(describe(reason)),
                Signal::Sent(_) | Signal::Answered { .. } | Signal::Left => {}
            }
        };
        let mut link = MqttLink {
            connection,
            topic: self.settings.topic.clone(),
            form: self.settings.form,
            presence: presence.clone(),
            limit: plan.inflight.min(receive_max.max(1)),
            max_packet: usize::try_from(max_packet.min(MAX_PACKET)).unwrap_or(usize::MAX),
            handed: VecDeque::new(),
            by_pkid: HashMap::new(),
            odd_topic: None,
            verdicts: VecDeque::new(),
        };
        if let Some(presence) = presence {
            let birth = link.announce(&presence.topic, presence.online);
            let Ok(answer) = timeout(self.settings.ack_timeout, birth).await else {
                return Err(format!(
                    "no acknowledgement of the birth for {:?}",
                    self.settings.ack_timeout
                ));
            };
            let reason = answer?;
            if reason >= 0x80 && !self.birth_refused {
                self.birth_refused = true;
                tracing::warn!(
                    sink = %self.settings.terms.name, topic = presence.topic, reason = describe(reason),
                    "the broker refuses the status topic; events go on without it"
                );
            }
        }
        Ok(link)
    }
}

/// One connection that took us.
#[derive(Debug)]
pub(super) struct MqttLink {
    connection: Connection,
    topic: String,
    form: Form,
    presence: Option<Presence>,
    limit: u16,
    max_packet: usize,
    /// Handed to the client, packet id not yet known: rumqttc tells it in this order.
    handed: VecDeque<Publish>,
    by_pkid: HashMap<u16, Publish>,
    /// The last event to a topic with a dot or a space in it.
    odd_topic: Option<(Position, String)>,
    /// What is known without asking the broker.
    verdicts: VecDeque<Verdict>,
}

/// What was published.
#[derive(Clone, Copy, Debug)]
enum Publish {
    Presence,
    Event(Position),
}

impl MqttLink {
    /// Publishes a state, retained, and waits for the answer: its reason code. Nothing else may be in flight
    /// that the caller still wants to hear of.
    async fn announce(&mut self, topic: &str, payload: Vec<u8>) -> Result<u8, String> {
        let message = Message {
            content_type: STATUS_CONTENT_TYPE,
            attributes: Vec::new(),
            payload,
        };
        if !self.connection.publish(topic, message, true) {
            return Err("the status topic is not one".to_owned());
        }
        self.handed.push_back(Publish::Presence);
        loop {
            match self.connection.next().await {
                Signal::Sent(pkid) => self.number(pkid),
                Signal::Answered { pkid, reason } => {
                    if let Some(Publish::Presence) = self.by_pkid.remove(&pkid) {
                        return Ok(reason);
                    }
                }
                Signal::Lost(reason) => return Err(reason),
                Signal::Poisoned(reason) => return Err(describe(reason)),
                Signal::Connected { .. } | Signal::Left => {}
            }
        }
    }

    fn number(&mut self, pkid: u16) {
        if let Some(publish) = self.handed.pop_front() {
            self.by_pkid.insert(pkid, publish);
        }
    }

    async fn leave(&mut self) {
        if !self.connection.disconnect() {
            return;
        }
        while !matches!(
            self.connection.next().await,
            Signal::Left | Signal::Lost(_) | Signal::Poisoned(_)
        ) {}
    }

    /// The connection ended and nobody said why: a topic that not every broker takes may be it.
    fn suspecting(&self, reason: String) -> String {
        let mut events = self.by_pkid.values().chain(&self.handed);
        match &self.odd_topic {
            Some((at, topic)) if events.any(|event| matches!(event, Publish::Event(it) if it == at)) => {
                format!(
                    "{reason}; `{topic}` is on its way, and NATS ends the connection at a dot or a space in a topic: if it \
                 is this broker, write a topic without them (docs/mqtt.md)"
                )
            }
            _ => reason,
        }
    }

    /// The broker cut us for a publish and did not say which. If there is only one, we know; else the forwarder
    /// sends one at a time over the next connection.
    fn poisoned(&mut self, reason: u8) -> Verdict {
        let why = format!("the broker ends the connection: {}", describe(reason));
        let mut events = self.by_pkid.values().chain(&self.handed);
        let suspect = match (events.next(), events.next()) {
            (Some(Publish::Event(position)), None) => *position,
            _ => return Verdict::Lost(why),
        };
        self.verdicts.push_back(Verdict::Lost(why));
        Verdict::Refused(suspect, describe(reason))
    }
}

impl Link for MqttLink {
    fn limit(&self) -> usize {
        usize::from(self.limit)
    }

    fn send(&mut self, entry: &Entry, previous: Sequence) {
        let topic = cloudevents::topic(&self.topic, entry);
        let message = cloudevents::message(entry, previous, self.form);
        let size = topic.len() + size(&message) + OVERHEAD;
        if size > self.max_packet || topic.len() > usize::from(u16::MAX) {
            // Handed to the client it would end the connection, again and again.
            let reason = format!(
                "its packet of {size} bytes is over the limit of {}",
                self.max_packet
            );
            self.verdicts.push_back(Verdict::Refused(entry.position, reason));
            return;
        }
        if self.connection.publish(&topic, message, false) {
            self.handed.push_back(Publish::Event(entry.position));
            if topic.contains(['.', ' ']) {
                self.odd_topic = Some((entry.position, topic));
            }
        } else {
            self.verdicts
                .push_back(Verdict::Lost(format!("the client took no publish to `{topic}`")));
        }
    }

    async fn next(&mut self) -> Verdict {
        loop {
            // What the connection has said comes first: a publish that it no longer takes is not why it ended.
            let said = self.connection.said();
            if said.is_none()
                && let Some(verdict) = self.verdicts.pop_front()
            {
                return verdict;
            }
            let signal = match said {
                Some(signal) => signal,
                // The only wait: whatever is taken from the channel is used before the next one.
                None => self.connection.next().await,
            };
            match signal {
                Signal::Sent(pkid) => self.number(pkid),
                Signal::Answered { pkid, reason } => {
                    if let Some(Publish::Event(position)) = self.by_pkid.remove(&pkid) {
                        return verdict(position, reason);
                    }
                }
                Signal::Lost(reason) => return Verdict::Lost(self.suspecting(reason)),
                Signal::Poisoned(reason) => return self.poisoned(reason),
                Signal::Left => return Verdict::Lost("disconnected".to_owned()),
                Signal::Connected { .. } => {}
            }
        }
    }

    async fn close(mut self) {
        if let Some(presence) = self.presence.take() {
            // Not acknowledged or refused: after the clean DISCONNECT nobody could say it, so we cut instead.
            let farewell = timeout(LEAVE_WITHIN, self.announce(&presence.topic, presence.offline)).await;
            if !matches!(farewell, Ok(Ok(_))) {
                return;
            }
        }
        // Unanswered, the connection is cut all the same when `self` goes.
        timeout(LEAVE_WITHIN, self.leave()).await.unwrap_or_default();
    }
}

/// Its bytes on the wire, but for what [`OVERHEAD`] counts.
fn size(message: &Message) -> usize {
    // A user property is its identifier and two texts with their lengths.
    let property = |(name, value): &(String, String)| 5 + name.len() + value.len();
    message.payload.len() + message.attributes.iter().map(property).sum::<usize>()
}

/// 0x95 and 0x99 judge the event; every other refusal judges us, and would meet any other event as well.
fn verdict(position: Position, reason: u8) -> Verdict {
    match reason {
        0x00..0x80 => Verdict::Delivered(position),
        0x95 | 0x99 => Verdict::Refused(position, describe(reason)),
        _ => Verdict::Lost(format!("the broker refuses events: {}", describe(reason))),
    }
}

fn describe(reason: u8) -> String {
    let name = match reason {
        0x80 => "unspecified error",
        0x83 => "implementation specific error",
        0x87 => "not authorised",
        0x90 => "topic name invalid",
        0x91 => "packet identifier in use",
        0x95 => "packet too large",
        0x97 => "quota exceeded",
        0x99 => "payload format invalid",
        _ => "unknown",
    };
    format!("{name} (0x{reason:02x})")
}
