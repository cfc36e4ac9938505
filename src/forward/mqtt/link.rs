//! Events over one MQTT connection: which packet id is which event, and what an answer means.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use rustls::ClientConfig;
use serde::Serialize;
use tokio::time::timeout;

use super::{
    Settings, Tls,
    connection::{Connection, KEPT, MAX_PACKET, Plan, Signal},
    wire,
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

    /// Connects and says online; events may follow. the connecting has its own bound, `ack-timeout` is the birth's.
    async fn connect(&mut self) -> Result<MqttLink, String> {
        let presence = self.presence();
        let plan = self.plan(presence.as_ref())?;
        let (connection, welcome) = Connection::open(&plan).await.map_err(|reason| {
            let (host, port) = (&self.settings.host, self.settings.port);
            format!("could not connect to {host}:{port}: {reason}")
        })?;
        let mut link = MqttLink {
            connection,
            topic: self.settings.topic.clone(),
            form: self.settings.form,
            presence: presence.clone(),
            limit: self.settings.inflight.min(welcome.receive_max).max(1),
            max_packet: usize::try_from(welcome.max_packet.min(MAX_PACKET)).unwrap_or(usize::MAX),
            unanswered: VecDeque::new(),
            odd_topic: None,
            verdicts: VecDeque::new(),
            buffer: Vec::new(),
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
                    sink = %self.settings.terms.name, topic = presence.topic, reason = wire::reason(reason),
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
    /// By packet id, in the order published, which most are answered in.
    unanswered: VecDeque<(u16, Publish)>,
    /// The last event to a topic with a dot or a space in it.
    odd_topic: Option<(Position, String)>,
    /// What is known without asking the broker.
    verdicts: VecDeque<Verdict>,
    /// Where the last event was rendered, for the next one.
    buffer: Vec<u8>,
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
        let pkid = self.connection.publish(topic, &message, true);
        self.unanswered.push_back((pkid, Publish::Presence));
        loop {
            match self.connection.next().await {
                Signal::Answered { pkid, reason } => {
                    if let Some(Publish::Presence) = self.answered(pkid) {
                        return Ok(reason);
                    }
                }
                Signal::Lost(reason) => return Err(reason),
                Signal::Poisoned(reason) => return Err(wire::reason(reason)),
            }
        }
    }

    /// What that packet id was.
    fn answered(&mut self, pkid: u16) -> Option<Publish> {
        let at = self.unanswered.iter().position(|(id, _)| *id == pkid)?;
        self.unanswered.remove(at).map(|(_, publish)| publish)
    }

    /// The connection ended and nobody said why: a topic that not every broker takes may be it.
    fn suspecting(&self, reason: String) -> String {
        let is_under_way = |at| {
            let mut unanswered = self.unanswered.iter();
            unanswered.any(|(_, publish)| matches!(publish, Publish::Event(it) if it == at))
        };
        match &self.odd_topic {
            Some((at, topic)) if is_under_way(at) => {
                format!(
                    "{reason}; `{topic}` is on its way, and NATS ends the connection at a dot or a space in a topic: if it \
                 is this broker, write a topic without them (docs/mqtt.md)"
                )
            }
            _ => reason,
        }
    }

    /// What a signal says of an event, or of us.
    fn verdict(&mut self, signal: Signal) -> Option<Verdict> {
        Some(match signal {
            Signal::Answered { pkid, reason } => match self.answered(pkid)? {
                Publish::Event(position) => verdict(position, reason),
                Publish::Presence => return None,
            },
            Signal::Lost(reason) => Verdict::Lost(self.suspecting(reason)),
            Signal::Poisoned(reason) => self.poisoned(reason),
        })
    }

    /// The broker cut us for a publish and did not say which. If there is only one, we know; else the forwarder
    /// sends one at a time over the next connection.
    fn poisoned(&mut self, reason: u8) -> Verdict {
        let why = format!("the broker ends the connection: {}", wire::reason(reason));
        let mut unanswered = self.unanswered.iter();
        let (Some((_, Publish::Event(suspect))), None) = (unanswered.next(), unanswered.next()) else {
            return Verdict::Lost(why);
        };
        let suspect = *suspect;
        self.verdicts.push_back(Verdict::Lost(why));
        Verdict::Refused(suspect, wire::reason(reason))
    }
}

impl Link for MqttLink {
    fn limit(&self) -> usize {
        usize::from(self.limit)
    }

    fn send(&mut self, entry: &Entry, previous: Sequence) {
        let topic = cloudevents::topic(&self.topic, entry);
        let buffer = std::mem::take(&mut self.buffer);
        let message = cloudevents::message_in(buffer, entry, previous, self.form);
        let size = topic.len() + size(&message) + OVERHEAD;
        if size > self.max_packet || topic.len() > usize::from(u16::MAX) {
            // Sent, it would end the connection, again and again.
            let reason = format!(
                "its packet of {size} bytes is over the limit of {}",
                self.max_packet
            );
            self.verdicts.push_back(Verdict::Refused(entry.position, reason));
            return;
        }
        let pkid = self.connection.publish(&topic, &message, false);
        if message.payload.capacity() <= KEPT {
            self.buffer = message.payload;
        }
        self.unanswered.push_back((pkid, Publish::Event(entry.position)));
        if topic.contains(['.', ' ']) {
            self.odd_topic = Some((entry.position, topic));
        }
    }

    fn said(&mut self) -> Option<Verdict> {
        while let Some(signal) = self.connection.said() {
            if let Some(verdict) = self.verdict(signal) {
                return Some(verdict);
            }
        }
        self.verdicts.pop_front()
    }

    async fn next(&mut self) -> Verdict {
        loop {
            if let Some(verdict) = self.said() {
                return verdict;
            }
            // The only wait: what it says is used before the next one.
            let signal = self.connection.next().await;
            if let Some(verdict) = self.verdict(signal) {
                return verdict;
            }
        }
    }

    async fn close(mut self) {
        if let Some(presence) = self.presence.take() {
            // Not acknowledged or refused: after the clean DISCONNECT nobody could say it, so we cut instead.
            let farewell = timeout(LEAVE_WITHIN, self.announce(&presence.topic, presence.offline)).await;
            if !matches!(farewell, Ok(Ok(0x00..0x80))) {
                return;
            }
        }
        // It is cut all the same if that does not go out.
        drop(timeout(LEAVE_WITHIN, self.connection.leave()).await);
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
        0x95 | 0x99 => Verdict::Refused(position, wire::reason(reason)),
        _ => Verdict::Lost(format!("the broker refuses events: {}", wire::reason(reason))),
    }
}
