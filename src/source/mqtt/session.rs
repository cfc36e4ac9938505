//! One connection, sans I/O: bytes and answers in, bytes and steps out. No await, no clock, no socket.
//!
//! **The gate** is the promise of the door: publishes stand in a queue in the order they came, and each is
//! acknowledged (and handed to local subscribers) only when all before it are and what it caused is on the
//! disk. `QoS` 0 and publishes that no table matches stand in the same queue, for order. A duplicate of a
//! `QoS` 2 publish waits there like the first. Nothing here can acknowledge past the gate.
//!
//! **After the end** ([`Session::gone`]) what asked for no acknowledgement still gets its turn, because
//! nobody will send it again. What asked for one and was not given it is handed to no subscriber: its client
//! still has it, and handing it on now and again when it returns would make two of one.
//!
//! A session decides nothing about who may do what and holds no subscription: it says [`Step`] and is told.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;

use super::{
    topics,
    wire::{self, Connect, Filter, Packet, Publish, Version, Violation, encode, protocol_error, reason},
};
use crate::{
    event::Position,
    hub::{Arrival, Kept, Message, Outgoing},
    source::Answer,
};

mod gate;

use gate::{Entry, Gate, Kind, Ruling};

/// Unsent bytes beyond which nothing more is read from or written for a client.
pub const MAX_UNSENT: usize = 64 * 1024;
/// Topic aliases a version 5 client may use.
const TOPIC_ALIASES: u16 = 16;
/// Answered `QoS` 2 publishes that a client may leave unreleased.
const MAX_UNRELEASED: usize = 1024;
/// Bytes of publishes at the gate beyond which a connection is not read.
const MAX_GATED_BYTES: usize = 256 * 1024;

/// The door's bounds for one connection.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of one packet.
    pub max_packet: usize,
    /// Unacknowledged publishes.
    pub max_inflight: u16,
}

/// What the driver has to do. Until it has, the session decodes nothing further.
#[derive(Debug)]
pub enum Step {
    /// Decide who this is; then [`Session::accept`] or [`Session::refuse`].
    Connect(Box<Connect>),
    /// Find out what it means; then [`Session::answer`] under this token, now or later.
    Publish {
        /// Names it.
        token: u64,
        /// What came.
        message: Arc<Message>,
    },
    /// It passed the gate: hand it to local subscribers.
    Route(Arc<Message>),
    /// Subscribe; then [`Session::subscribed`]. Codes are given where it is decided already.
    Subscribe {
        /// The packet's id.
        id: u16,
        /// What is asked for.
        filters: Vec<(Filter, Option<u8>)>,
        /// The subscription identifier.
        identifier: Option<u32>,
    },
    /// Unsubscribe; then [`Session::unsubscribed`].
    Unsubscribe {
        /// The packet's id.
        id: u16,
        /// What is wanted no more.
        filters: Vec<String>,
    },
    /// A publish to a topic that is not the client's.
    Refused {
        /// Where to.
        topic: Arc<str>,
        /// Why not.
        why: &'static str,
    },
    /// Something happened that only a counter sees.
    Count(Counted),
    /// The connection is over once the output is written.
    Close(End),
}

/// What is counted beside the ends of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// A publish was acknowledged (or, `QoS` 0, passed the gate).
    Acknowledged,
    /// A message was larger than a subscriber takes.
    TooLargeForSubscriber,
}

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client said so.
    Goodbye,
    /// It said so for a reason that is no normal end: its will is published.
    GoodbyeWithWill,
    /// CONNECT was refused with this reason.
    Refused(u8),
    /// It broke the protocol.
    Violation(Violation),
    /// The gateway ends it, with this reason.
    Ours(u8),
}

/// What a connection was accepted with.
#[derive(Clone, Debug, Default)]
pub struct Accepted {
    /// Whether there was a session.
    pub present: bool,
    /// What it left behind.
    pub kept: Kept,
    /// The client id, if the door chose it.
    pub assigned: Option<String>,
    /// Seconds the session will wait for the client.
    pub session_expiry: u32,
}

/// One connection's protocol state.
#[derive(Debug)]
pub struct Session {
    bounds: Bounds,
    /// None before CONNECT.
    version: Option<Version>,
    /// Whether CONNECT was accepted.
    open: bool,
    ended: bool,
    steps: VecDeque<Step>,
    out: BytesMut,
    gate: Gate,
    durable: Position,
    next_token: u64,
    /// `QoS` 2 publishes that came and are not released: answered or still at the gate.
    received: HashSet<u16>,
    aliases: HashMap<u16, Arc<str>>,
    outgoing: VecDeque<Outgoing>,
    /// Sent on an earlier connection, not yet sent again.
    again: VecDeque<Outgoing>,
    last_id: u16,
    stopping: bool,
    client: ClientBounds,
}

/// What the client asked of us.
#[derive(Clone, Copy, Debug)]
struct ClientBounds {
    receive_maximum: u16,
    max_packet: Option<u32>,
    keep_alive: u16,
    session_expiry: u32,
}

impl Session {
    /// A connection that has said nothing yet.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            version: None,
            open: false,
            ended: false,
            steps: VecDeque::new(),
            out: BytesMut::new(),
            gate: Gate::default(),
            durable: Position::default(),
            next_token: 0,
            received: HashSet::new(),
            aliases: HashMap::new(),
            outgoing: VecDeque::new(),
            again: VecDeque::new(),
            last_id: 0,
            stopping: false,
            client: ClientBounds {
                receive_maximum: 1,
                max_packet: None,
                keep_alive: 0,
                session_expiry: 0,
            },
        }
    }

    /// What to do next: first what is pending, then the next packet at the front of `input`, if it is whole
    /// and there is room for what it asks.
    pub fn step(&mut self, input: &mut BytesMut) -> Option<Step> {
        loop {
            self.send_again();
            if let Some(step) = self.steps.pop_front() {
                return Some(step);
            }
            // A CONNECT that is being decided: nothing is taken before the answer.
            let deciding = self.version.is_some() && !self.open;
            if self.ended || deciding || !self.has_room() {
                return None;
            }
            let announced = wire::announced_version(input);
            match wire::decode(input, self.version, self.bounds.max_packet) {
                Ok(None) => return None,
                Ok(Some(packet)) => {
                    if let Err(violation) = self.take(packet) {
                        self.violated(violation);
                    }
                }
                Err(violation) => {
                    if self.version.is_none() {
                        self.refuse_connect(announced, violation);
                    }
                    self.violated(violation);
                }
            }
        }
    }

    /// Whether more bytes may be read: there is room for what they may ask.
    #[must_use]
    pub fn wants_bytes(&self) -> bool {
        !self.ended && self.steps.is_empty() && self.has_room()
    }

    fn has_room(&self) -> bool {
        let length = match self.version {
            // Version 3.1.1 knows no receive maximum: the socket is not read.
            Some(Version::V311) => usize::from(self.bounds.max_inflight),
            // Version 5 may have as many on top without acknowledgement.
            _ => usize::from(self.bounds.max_inflight).saturating_mul(2),
        };
        self.out.len() < MAX_UNSENT && self.gate.len() < length && self.gate.bytes() < MAX_GATED_BYTES
    }

    /// What to write.
    #[must_use]
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    /// The version, once known.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// How long the client may be silent; none: for ever.
    #[must_use]
    pub fn keep_alive(&self) -> Option<Duration> {
        let keep_alive = Duration::from_secs(self.client.keep_alive.into());
        Some(keep_alive.saturating_mul(3) / 2).filter(|silence| !silence.is_zero())
    }

    /// How long the session waits for its client after the connection.
    #[must_use]
    pub fn absence(&self) -> Duration {
        Duration::from_secs(self.client.session_expiry.into())
    }

    /// Whether publishes wait at the gate.
    #[must_use]
    pub fn owes(&self) -> bool {
        !self.gate.is_empty()
    }

    /// Accepts the CONNECT that was asked about.
    pub fn accept(&mut self, accepted: Accepted) {
        let Some(version) = self.version else { return };
        let asked = self.client.session_expiry;
        self.client.session_expiry = accepted.session_expiry;
        self.open = true;
        let offer = encode::Offer {
            receive_maximum: self.bounds.max_inflight,
            max_packet: u32::try_from(self.bounds.max_packet).unwrap_or(u32::MAX),
            topic_aliases: TOPIC_ALIASES,
            assigned: accepted.assigned,
            session_expiry: Some(accepted.session_expiry).filter(|seconds| *seconds != asked),
        };
        encode::accepted(&mut self.out, version, accepted.present, &offer);
        self.received = accepted.kept.received;
        self.again = accepted.kept.outgoing;
        self.last_id = self.again.back().map_or(0, |outgoing| outgoing.id);
        self.send_again();
    }

    /// Sends what an earlier connection had sent, as far as the client takes it.
    fn send_again(&mut self) {
        let Some(version) = self.version else { return };
        while self.may_send()
            && let Some(outgoing) = self.again.pop_front()
        {
            match &outgoing.arrival {
                Some(arrival) => {
                    if !self.write(version, arrival, outgoing.id, true, outgoing.expiry) {
                        continue;
                    }
                }
                None => encode::acknowledge(&mut self.out, version, encode::Ack::PubRel, outgoing.id, 0),
            }
            self.outgoing.push_back(outgoing);
        }
    }

    fn may_send(&self) -> bool {
        let window = usize::from(self.client.receive_maximum);
        self.open && !self.ended && self.out.len() < MAX_UNSENT && self.outgoing.len() < window
    }

    /// Refuses the CONNECT that was asked about.
    pub fn refuse(&mut self, why: u8) {
        if let Some(version) = self.version {
            encode::refused(&mut self.out, version, why);
        }
        self.end(End::Refused(why));
    }

    /// Ends the connection from our side: version 5 is told why.
    pub fn close(&mut self, why: u8) {
        if self.ended {
            return;
        }
        if let Some(version) = self.version.filter(|_| self.open) {
            encode::disconnect(&mut self.out, version, why);
        }
        self.end(End::Ours(why));
    }

    /// What became of a publish. Answers may come in any order; the gate keeps the publishes' own.
    pub fn answer(&mut self, token: u64, answer: Answer) {
        let ruling = match answer {
            Answer::AfterDurable(position) => Ruling::AfterDurable(position),
            Answer::OverLimit => Ruling::Failed(reason::QUOTA),
            Answer::Dropped => Ruling::Never,
        };
        self.gate.decide(token, ruling);
        self.release();
    }

    /// A publish means nothing to the gateway: version 5 hears `why`; 3.1.1, which could only send it again,
    /// is acknowledged, and the local subscribers get it.
    pub fn fail(&mut self, token: u64, why: u8) {
        self.gate.decide(token, Ruling::Failed(why));
        self.release();
    }

    /// A publish is not taken: version 5 hears `why`, and nobody gets it. With version 3.1.1 only for
    /// `QoS` 0, because an acknowledgement would be untrue.
    pub fn turn_away(&mut self, token: u64, why: u8) {
        self.gate.forget_message(token);
        self.fail(token, why);
    }

    /// The gateway stops: what is owed is still answered, then [`Session::close`].
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// The journal has this much on the disk.
    pub fn durable(&mut self, position: Position) {
        self.durable = self.durable.max(position);
        self.release();
    }

    /// Whether another message may be sent to the client now.
    #[must_use]
    pub fn can_deliver(&self) -> bool {
        self.again.is_empty() && self.may_send()
    }

    /// Sends a message to the client; `expiry`: the seconds it is worth reading.
    pub fn deliver(&mut self, arrival: Arrival, expiry: Option<u32>) {
        let Some(version) = self.version.filter(|_| self.open && !self.ended) else {
            return;
        };
        if arrival.qos == 0 {
            self.write(version, &arrival, 0, false, expiry);
            return;
        }
        let id = self.free_id();
        if self.write(version, &arrival, id, false, expiry) {
            self.outgoing.push_back(Outgoing {
                id,
                arrival: Some(arrival),
                expiry,
            });
        }
    }

    /// The answer to [`Step::Subscribe`]: a code for each filter.
    pub fn subscribed(&mut self, id: u16, codes: &[u8]) {
        if let Some(version) = self.version {
            encode::suback(&mut self.out, version, id, codes);
        }
    }

    /// The answer to [`Step::Unsubscribe`].
    pub fn unsubscribed(&mut self, id: u16, codes: &[u8]) {
        if let Some(version) = self.version {
            encode::unsuback(&mut self.out, version, id, codes);
        }
    }

    /// The connection is over. What waits for an acknowledgement is forgotten: it will be sent again and
    /// evaluated again. What asked for none ([`Session::owes`]) still passes the gate, in order.
    pub fn gone(&mut self) {
        for id in self.gate.waiting_qos2() {
            self.received.remove(&id);
        }
        self.gate.forget_asked();
        self.ended = true;
    }

    /// What waits for the client's return.
    #[must_use]
    pub fn keep(mut self) -> Kept {
        self.gone();
        self.outgoing.append(&mut self.again);
        Kept {
            outgoing: self.outgoing,
            received: self.received,
        }
    }

    fn take(&mut self, packet: Packet) -> Result<(), Violation> {
        let version = self.version.unwrap_or(Version::V311);
        match packet {
            Packet::Connect(connect) => {
                self.version = Some(connect.version);
                self.client = ClientBounds {
                    receive_maximum: connect.receive_maximum.min(self.bounds.max_inflight),
                    max_packet: connect.max_packet,
                    keep_alive: connect.keep_alive,
                    session_expiry: connect.session_expiry,
                };
                self.steps.push_back(Step::Connect(connect));
            }
            Packet::Publish(publish) => self.publish(version, publish)?,
            Packet::PubAck(id) => self
                .outgoing
                .retain(|outgoing| outgoing.id != id || outgoing.arrival.is_none()),
            Packet::PubRec(id, why) => self.received_by_client(version, id, why),
            Packet::PubRel(id) => {
                if self.gate.waiting_qos2().any(|waiting| waiting == id) {
                    return Err(protocol_error("PUBREL before PUBREC"));
                }
                let known = self.received.remove(&id);
                let why = if known {
                    reason::SUCCESS
                } else {
                    reason::ID_NOT_FOUND
                };
                encode::acknowledge(&mut self.out, version, encode::Ack::PubComp, id, why);
            }
            Packet::PubComp(id) => self
                .outgoing
                .retain(|outgoing| outgoing.id != id || outgoing.arrival.is_some()),
            Packet::Subscribe {
                id,
                filters,
                identifier,
            } => {
                let filters = filters
                    .into_iter()
                    .map(|filter| (judge(&filter), filter))
                    .map(|(code, filter)| (filter, code));
                self.steps.push_back(Step::Subscribe {
                    id,
                    filters: filters.collect(),
                    identifier,
                });
            }
            Packet::Unsubscribe { id, filters } => self.steps.push_back(Step::Unsubscribe { id, filters }),
            Packet::PingReq => encode::pong(&mut self.out),
            Packet::Disconnect { reason: why, expiry } => {
                if let Some(seconds) = expiry {
                    if self.client.session_expiry == 0 && seconds > 0 {
                        return Err(protocol_error(
                            "a session that ends with its connection cannot be prolonged",
                        ));
                    }
                    self.client.session_expiry = seconds;
                }
                self.end(if why == reason::SUCCESS {
                    End::Goodbye
                } else {
                    End::GoodbyeWithWill
                });
            }
        }
        Ok(())
    }

    fn publish(&mut self, version: Version, publish: Publish) -> Result<(), Violation> {
        let topic = self.resolve(&publish)?;
        let kind = match publish.qos {
            0 => Kind::Nothing,
            1 => Kind::PubAck(publish.id),
            _ => Kind::PubRec(publish.id),
        };
        let duplicate = publish.qos == 2 && self.received.contains(&publish.id);
        if version == Version::V5 && publish.qos > 0 && !duplicate {
            let unreleased = self
                .received
                .len()
                .saturating_sub(self.gate.waiting_qos2().count());
            let owed = self.gate.acknowledgements().saturating_add(unreleased);
            if owed >= usize::from(self.bounds.max_inflight) {
                return Err(Violation {
                    reason: reason::RECEIVE_MAXIMUM,
                    why: "more publishes than the receive maximum",
                });
            }
        }
        if publish.qos == 2 && !duplicate && self.received.len() >= MAX_UNRELEASED {
            return Err(Violation {
                reason: reason::QUOTA,
                why: "too many QoS 2 publishes without a release",
            });
        }
        let reserved = topics::reserved(&topic);
        if let Some(why) = reserved {
            let topic = Arc::clone(&topic);
            self.steps.push_back(Step::Refused { topic, why });
            if version == Version::V311 {
                return Err(Violation {
                    reason: reason::NOT_AUTHORISED,
                    why,
                });
            }
        }
        self.next_token = self.next_token.wrapping_add(1);
        let token = self.next_token;
        if duplicate {
            // The first is before it in the gate, or passed already: its answer is this one's.
            self.gate.push(Entry {
                token,
                kind,
                duplicate,
                ruling: Ruling::AfterDurable(Position(0)),
                message: None,
            });
            self.release();
            return Ok(());
        }
        if publish.qos == 2 {
            self.received.insert(publish.id);
        }
        let reserved = reserved.is_some();
        let message = Arc::new(Message {
            topic,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            properties: publish.properties,
        });
        let ruling = if reserved {
            Ruling::Failed(reason::NOT_AUTHORISED)
        } else {
            Ruling::Waiting
        };
        let routed = (!reserved).then(|| Arc::clone(&message));
        self.gate.push(Entry {
            token,
            kind,
            duplicate,
            ruling,
            message: routed,
        });
        if reserved {
            self.release();
        } else {
            self.steps.push_back(Step::Publish { token, message });
        }
        Ok(())
    }

    /// The topic that a publish names or whose alias it uses.
    fn resolve(&mut self, publish: &Publish) -> Result<Arc<str>, Violation> {
        let Some(alias) = publish.alias else {
            return Ok(publish.topic.as_str().into());
        };
        if alias == 0 || alias > TOPIC_ALIASES {
            return Err(Violation {
                reason: reason::TOPIC_ALIAS,
                why: "a topic alias beyond the maximum",
            });
        }
        if publish.topic.is_empty() {
            return self
                .aliases
                .get(&alias)
                .cloned()
                .ok_or(protocol_error("an unknown topic alias"));
        }
        let topic: Arc<str> = publish.topic.as_str().into();
        self.aliases.insert(alias, Arc::clone(&topic));
        Ok(topic)
    }

    /// Lets pass what may: the only place where a publish is acknowledged.
    fn release(&mut self) {
        let Some(version) = self.version else { return };
        while let Some(entry) = self.gate.pass(self.durable) {
            let why = match entry.ruling {
                Ruling::Failed(why) => why,
                Ruling::Never if self.ended => continue,
                Ruling::Never => {
                    if let Kind::PubRec(id) = entry.kind {
                        self.received.remove(&id);
                    }
                    self.close(if self.stopping {
                        reason::SHUTTING_DOWN
                    } else {
                        reason::UNSPECIFIED
                    });
                    return;
                }
                Ruling::AfterDurable(_) | Ruling::Waiting => reason::SUCCESS,
            };
            let failed = why >= reason::UNSPECIFIED;
            match entry.kind {
                Kind::Nothing => {}
                Kind::PubAck(id) => encode::acknowledge(&mut self.out, version, encode::Ack::PubAck, id, why),
                Kind::PubRec(id) => {
                    // Version 3.1.1 hears no reason: to it the publish was received, and PUBREL will follow.
                    if failed && version == Version::V5 {
                        self.received.remove(&id);
                        self.gate.fail_duplicates(id, why);
                    }
                    encode::acknowledge(&mut self.out, version, encode::Ack::PubRec, id, why);
                }
            }
            let told = version == Version::V5 && entry.kind != Kind::Nothing;
            if !failed || (!told && entry.message.is_some()) {
                self.steps.push_back(Step::Count(Counted::Acknowledged));
                self.steps.extend(entry.message.map(Step::Route));
            }
        }
    }

    fn received_by_client(&mut self, version: Version, id: u16, why: u8) {
        let position = self
            .outgoing
            .iter()
            .position(|outgoing| outgoing.id == id && is_qos2(outgoing));
        let known = position.is_some();
        if let Some(position) = position {
            if why >= reason::UNSPECIFIED {
                self.outgoing.remove(position);
                return;
            }
            if let Some(outgoing) = self.outgoing.get_mut(position) {
                outgoing.arrival = None;
            }
        }
        let why = if known {
            reason::SUCCESS
        } else {
            reason::ID_NOT_FOUND
        };
        encode::acknowledge(&mut self.out, version, encode::Ack::PubRel, id, why);
    }

    fn write(
        &mut self,
        version: Version,
        arrival: &Arrival,
        id: u16,
        dup: bool,
        expiry: Option<u32>,
    ) -> bool {
        let delivery = encode::Delivery {
            message: &arrival.message,
            dup: dup && arrival.qos > 0,
            qos: arrival.qos,
            retain: arrival.retain,
            id,
            expiry,
            identifiers: &arrival.identifiers,
        };
        let written = encode::publish(&mut self.out, version, &delivery, self.client.max_packet);
        if !written {
            self.steps.push_back(Step::Count(Counted::TooLargeForSubscriber));
        }
        written
    }

    fn free_id(&mut self) -> u16 {
        // Fewer than 65,535 are on their way: see `can_deliver`. So one is free.
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            let mut taken = self.outgoing.iter().chain(&self.again);
            if !taken.any(|outgoing| outgoing.id == self.last_id) {
                return self.last_id;
            }
        }
    }

    fn refuse_connect(&mut self, announced: Option<Version>, violation: Violation) {
        match announced {
            Some(Version::V5) => encode::refused(&mut self.out, Version::V5, violation.reason),
            _ if violation.reason == reason::UNSUPPORTED_VERSION => {
                encode::refused(&mut self.out, Version::V311, violation.reason);
            }
            _ => {}
        }
    }

    fn violated(&mut self, violation: Violation) {
        if let Some(version) = self.version.filter(|_| self.open) {
            encode::disconnect(&mut self.out, version, violation.reason);
        }
        self.end(End::Violation(violation));
    }

    fn end(&mut self, end: End) {
        if !self.ended {
            self.gone();
            self.steps.push_back(Step::Close(end));
        }
    }
}

fn is_qos2(outgoing: &Outgoing) -> bool {
    outgoing.arrival.as_ref().is_none_or(|arrival| arrival.qos == 2)
}

/// The code of a filter that nobody need be asked about.
fn judge(filter: &Filter) -> Option<u8> {
    if filter.filter.starts_with("$share/") {
        return Some(reason::SHARED_UNSUPPORTED);
    }
    (!topics::is_filter(&filter.filter)).then_some(reason::FILTER_INVALID)
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
