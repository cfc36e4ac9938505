//! The hub: local subscribers. Best effort, in memory, bounded, and nobody ever waits for one.
//!
//! Events come here only after they are on the disk ([`Hub::publish_event`]); what devices publish, after the
//! door has acknowledged it. Retained messages and the sessions of absent subscribers are lost with the
//! process: what is safe is the journal. A subscriber that does not keep up is disconnected by its
//! connection and counted. The hub reads no wall clock, spawns nothing and logs nothing.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub mod mailbox;
pub mod tree;

pub use mailbox::{Arrival, Mailbox};
pub use tree::Grant;

/// Names a session, for the life of the process.
pub type SubscriberId = u64;

/// Retained messages, and their bytes.
pub const MAX_RETAINED: usize = 1000;
/// Bytes of all retained messages.
pub const MAX_RETAINED_BYTES: usize = 4 * 1024 * 1024;
/// Subscriptions of one session.
pub const MAX_SUBSCRIPTIONS: usize = 100;
/// Sessions that are kept for somebody who is absent; beyond it the one that would end first ends.
pub const MAX_ABSENT_SESSIONS: usize = 256;
/// The longest a session waits for its owner.
pub const MAX_ABSENCE: Duration = Duration::from_hours(24);

/// A message, as published.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Where.
    pub topic: Arc<str>,
    /// What.
    pub payload: Bytes,
    /// Quality of service: 0, 1 or 2.
    pub qos: u8,
    /// Keep it for later subscribers; an empty payload forgets it.
    pub retain: bool,
    /// What version 5 says of it.
    pub properties: Option<Box<Properties>>,
}

/// The properties that travel with a message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Properties {
    /// 1: the payload is UTF-8.
    pub format: Option<u8>,
    /// Seconds it is worth delivering.
    pub expiry: Option<u32>,
    /// MIME type.
    pub content_type: Option<String>,
    /// Where to answer.
    pub response_topic: Option<String>,
    /// What to send along with the answer.
    pub correlation: Option<Bytes>,
    /// The publisher's own.
    pub user: Vec<(String, String)>,
}

impl Message {
    /// Bytes it keeps in memory, about.
    #[must_use]
    pub fn size(&self) -> usize {
        let properties = self.properties.as_ref().map_or(0, |properties| {
            let texts = [&properties.content_type, &properties.response_topic];
            let texts = texts.into_iter().flatten().map(String::len);
            let correlation = properties.correlation.as_ref().map_or(0, Bytes::len);
            // A pair of empty texts costs five bytes on the wire, and here its place.
            let pairs = properties.user.iter().map(|(key, value)| {
                size_of::<(String, String)>()
                    .saturating_add(key.len())
                    .saturating_add(value.len())
            });
            texts.chain(pairs).fold(correlation, usize::saturating_add)
        });
        self.topic
            .len()
            .saturating_add(self.payload.len())
            .saturating_add(properties)
            .saturating_add(64)
    }

    fn until(&self, now: Instant) -> Option<Instant> {
        let seconds = self.properties.as_ref()?.expiry?;
        now.checked_add(Duration::from_secs(seconds.into()))
    }
}

/// Whose session: the same client id of another user is another session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The user name, if it gave one: the device's id.
    pub user: Option<Arc<str>>,
    /// The client id.
    pub client: Arc<str>,
}

/// What of a session outlives its connection, besides its subscriptions.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// Sent and not acknowledged, in the order sent.
    pub outgoing: VecDeque<Outgoing>,
    /// Packet ids of the client's `QoS` 2 publishes that were answered and not yet released.
    pub received: HashSet<u16>,
}

/// A message on its way to a client that must acknowledge it.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Its packet id.
    pub id: u16,
    /// The message; none once a `QoS` 2 message was received and only its release is left.
    pub arrival: Option<Arrival>,
    /// Seconds it was worth reading when the connection began or, later, when it was sent.
    pub expiry: Option<u32>,
}

/// A client's last words: published when its connection ends abnormally.
#[derive(Clone, Debug, PartialEq)]
pub struct Will {
    /// What to publish.
    pub message: Message,
    /// How long the client may be away before.
    pub delay: Duration,
}

/// Counted since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages not retained because the store was full.
    pub retained_refused: AtomicU64,
    /// Messages dropped because their subscriber was absent and had enough to catch up with.
    pub absent_dropped: AtomicU64,
    /// Subscribers that did not keep up.
    pub overflowed: AtomicU64,
}

/// The hub: a cheap handle, shared by all.
#[derive(Clone, Debug, Default)]
pub struct Hub {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    counters: Counters,
}

#[derive(Debug, Default)]
struct State {
    tree: tree::Tree,
    sessions: HashMap<SubscriberId, Session>,
    by_key: HashMap<Key, SubscriberId>,
    retained: HashMap<Arc<str>, (Arc<Message>, Option<Instant>)>,
    retained_bytes: usize,
    last_id: SubscriberId,
    last_turn: u64,
    /// Wills of sessions that have ended, for the next [`Hub::tick`].
    due: Vec<(Key, Message)>,
}

#[derive(Debug)]
struct Session {
    key: Key,
    mailbox: Arc<Mailbox>,
    filters: HashMap<Box<str>, Grant>,
    kept: Kept,
    connection: Option<Connection>,
    /// When the connection that has it, or had it last, asked for it.
    turn: u64,
    /// When an absent session ends.
    ends: Option<Instant>,
    will: Option<(Instant, Message)>,
}

#[derive(Clone, Debug)]
struct Connection {
    kick: CancellationToken,
    gone: CancellationToken,
}

/// What became of an attempt to attach.
#[derive(Debug)]
pub enum Attach {
    /// The session is yours.
    Attached(Attachment),
    /// Another connection had it. It was told to leave; this is cancelled when it has.
    Occupied(CancellationToken),
    /// Another connection has it that asked for it later.
    Superseded,
}

/// A connection's hold on its session. Dropped without [`Attachment::leave`], the session ends with it.
#[derive(Debug)]
pub struct Attachment {
    hub: Hub,
    id: SubscriberId,
    connection: Connection,
    left: bool,
    /// Whether there was a session already.
    pub present: bool,
    /// What waits for this subscriber.
    pub mailbox: Arc<Mailbox>,
    /// What its last connection left behind.
    pub kept: Kept,
}

impl Hub {
    /// An empty hub.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Publishes an event of the gateway's own, at least once to those who are present. Only for what is on
    /// the disk.
    pub fn publish_event(&self, topic: &str, payload: impl Into<Bytes>) {
        let message = Message {
            topic: topic.into(),
            payload: payload.into(),
            qos: 1,
            retain: false,
            properties: Some(Box::new(Properties {
                format: Some(1),
                content_type: Some("application/cloudevents+json".to_owned()),
                ..Properties::default()
            })),
        };
        self.publish(message, None);
    }

    /// Publishes for `from`: to every session that subscribed, in the order of the calls.
    pub fn publish(&self, message: Message, from: Option<SubscriberId>) {
        let now = Instant::now();
        let until = message.until(now);
        let message = Arc::new(message);
        let mut state = self.state();
        if message.retain && !state.retain(&message, until) {
            self.shared
                .counters
                .retained_refused
                .fetch_add(1, Ordering::Relaxed);
        }
        let mut wanted: Vec<(SubscriberId, Grant, Vec<u32>)> = Vec::new();
        state.tree.matches(&message.topic, |who, grant| {
            if grant.no_local && from == Some(who) {
                return;
            }
            let identifiers = grant.identifier;
            // Overlapping filters of one session make one delivery, with the best of their grants.
            match wanted.iter_mut().find(|(other, ..)| *other == who) {
                Some((_, best, numbered)) => {
                    best.qos = best.qos.max(grant.qos);
                    best.retain_as_published |= grant.retain_as_published;
                    numbered.extend(identifiers);
                }
                None => wanted.push((who, *grant, identifiers.into_iter().collect())),
            }
        });
        for (who, grant, identifiers) in wanted {
            let Some(session) = state.sessions.get(&who) else {
                continue;
            };
            let arrival = Arrival {
                message: Arc::clone(&message),
                qos: message.qos.min(grant.qos),
                retain: message.retain && grant.retain_as_published,
                identifiers,
                until,
            };
            let counter = match session.mailbox.put(arrival) {
                mailbox::Put::Taken => continue,
                mailbox::Put::Dropped => &self.shared.counters.absent_dropped,
                mailbox::Put::Overflowed => &self.shared.counters.overflowed,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The place of a connection among all that ask for sessions: to be taken once, when it first asks.
    #[must_use]
    pub fn turn(&self) -> u64 {
        let mut state = self.state();
        state.last_turn = state.last_turn.wrapping_add(1);
        state.last_turn
    }

    /// Takes the session of `key` for a connection, or tells the one that has it to leave, unless that one's
    /// `turn` is later. `clean` forgets what it was. `force`: do not wait for the other any longer; what it
    /// had in flight is lost.
    pub fn attach(&self, key: Key, clean: bool, force: bool, turn: u64) -> Attach {
        let mut state = self.state();
        let existing = state.by_key.get(&key).copied();
        if let Some(id) = existing {
            let session = state.sessions.get(&id);
            if let Some((connection, other)) =
                session.and_then(|session| Some((session.connection.clone()?, session.turn)))
            {
                if other > turn {
                    return Attach::Superseded;
                }
                connection.kick.cancel();
                if !force {
                    return Attach::Occupied(connection.gone);
                }
                state.end(id);
            } else if clean {
                state.end(id);
            }
        }
        let connection = Connection {
            kick: CancellationToken::new(),
            gone: CancellationToken::new(),
        };
        let kept_id = state.by_key.get(&key).copied();
        let id = kept_id.unwrap_or_else(|| state.begin(key));
        let Some(session) = state.sessions.get_mut(&id) else {
            unreachable!("by_key names only sessions that exist: see State::end");
        };
        session.connection = Some(connection.clone());
        session.turn = turn;
        session.ends = None;
        session.will = None;
        session.mailbox.open();
        let mut kept = std::mem::take(&mut session.kept);
        let now = Instant::now();
        for outgoing in &mut kept.outgoing {
            let arrival = outgoing.arrival.as_ref();
            outgoing.expiry = arrival.and_then(|arrival| arrival.remaining(now));
        }
        Attach::Attached(Attachment {
            id,
            connection,
            left: false,
            present: kept_id.is_some(),
            mailbox: Arc::clone(&session.mailbox),
            kept,
            hub: self.clone(),
        })
    }

    /// Ends the sessions whose time is over and forgets the retained messages that have expired; returns the
    /// wills that are due, to be published by the caller.
    pub fn tick(&self, now: Instant) -> Vec<(Key, Message)> {
        let mut state = self.state();
        state.forget_expired(now);
        let over: Vec<SubscriberId> = state
            .sessions
            .iter()
            .filter(|(_, session)| session.ends.is_some_and(|ends| ends <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            state.end(id);
        }
        let mut due = std::mem::take(&mut state.due);
        for session in state.sessions.values_mut() {
            if let Some((_, message)) = session.will.take_if(|(at, _)| *at <= now) {
                due.push((session.key.clone(), message));
            }
        }
        due
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A connection that panicked is that connection's end only: every change under the lock is complete.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attachment {
    /// Names the session.
    #[must_use]
    pub fn id(&self) -> SubscriberId {
        self.id
    }

    /// Cancelled when another connection takes the session over.
    #[must_use]
    pub fn kick(&self) -> &CancellationToken {
        &self.connection.kick
    }

    /// Adds or replaces a subscription and sends the retained messages that `retained` asks for (given
    /// whether the subscription is new). False: it has enough subscriptions.
    #[must_use]
    pub fn subscribe(&self, filter: &str, grant: Grant, retained: impl FnOnce(bool) -> bool) -> bool {
        let mut state = self.hub.state();
        let State {
            sessions,
            tree,
            retained: store,
            ..
        } = &mut *state;
        let Some(session) = sessions.get_mut(&self.id) else {
            return false;
        };
        let new = !session.filters.contains_key(filter);
        if new && session.filters.len() >= MAX_SUBSCRIPTIONS {
            return false;
        }
        session.filters.insert(filter.into(), grant);
        tree.insert(filter, self.id, grant);
        if retained(new) {
            session.mailbox.replay(
                store
                    .values()
                    .filter(|(message, _)| tree::matches(filter, &message.topic))
                    .map(|(message, until)| Arrival {
                        message: Arc::clone(message),
                        qos: message.qos.min(grant.qos),
                        retain: true,
                        identifiers: grant.identifier.into_iter().collect(),
                        until: *until,
                    }),
            );
        }
        true
    }

    /// Removes a subscription. False: there was none.
    #[must_use]
    pub fn unsubscribe(&self, filter: &str) -> bool {
        let mut state = self.hub.state();
        let State { sessions, tree, .. } = &mut *state;
        let Some(session) = sessions.get_mut(&self.id) else {
            return false;
        };
        // Only what was granted is in the tree: to it, `#/x` would be `#`.
        let held = session.filters.remove(filter).is_some();
        if held {
            tree.remove(filter, self.id);
        }
        held
    }

    /// The connection has ended; the session waits for `absence` (at most [`MAX_ABSENCE`]). A will whose
    /// delay is zero is returned, to be published at once.
    #[must_use]
    pub fn leave(mut self, kept: Kept, absence: Duration, will: Option<Will>) -> Option<Message> {
        self.left = true;
        let now = Instant::now();
        let absence = absence.min(MAX_ABSENCE);
        let (now_due, later) = match will {
            Some(will) if will.delay.min(absence).is_zero() => (Some(will.message), None),
            Some(will) => (None, Some((now + will.delay.min(absence), will.message))),
            None => (None, None),
        };
        let mut state = self.hub.state();
        if let Some(session) = state.sessions.get_mut(&self.id) {
            session.connection = None;
            session.will = later;
            if absence.is_zero() {
                state.end(self.id);
            } else {
                session.kept = kept;
                session.ends = Some(now + absence);
                let dropped = session.mailbox.close();
                state.bound_absent();
                self.hub
                    .shared
                    .counters
                    .absent_dropped
                    .fetch_add(dropped, Ordering::Relaxed);
            }
        }
        drop(state);
        self.connection.gone.cancel();
        now_due
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if !self.left {
            self.hub.state().end(self.id);
            self.connection.gone.cancel();
        }
    }
}

impl State {
    fn begin(&mut self, key: Key) -> SubscriberId {
        self.last_id = self.last_id.wrapping_add(1);
        let session = Session {
            key: key.clone(),
            mailbox: Arc::default(),
            filters: HashMap::new(),
            kept: Kept::default(),
            connection: None,
            turn: 0,
            ends: None,
            will: None,
        };
        self.by_key.insert(key, self.last_id);
        self.sessions.insert(self.last_id, session);
        self.last_id
    }

    fn end(&mut self, id: SubscriberId) {
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        for filter in session.filters.keys() {
            self.tree.remove(filter, id);
        }
        if let Some((_, message)) = session.will {
            self.due.push((session.key.clone(), message));
        }
        self.by_key.remove(&session.key);
    }

    fn bound_absent(&mut self) {
        let absent = self
            .sessions
            .iter()
            .filter_map(|(id, session)| Some((session.ends?, *id)));
        if absent.clone().count() > MAX_ABSENT_SESSIONS
            && let Some((_, first)) = absent.min()
        {
            self.end(first);
        }
    }

    /// An expired message would be sent to nobody, and keep its place in the store.
    fn forget_expired(&mut self, now: Instant) {
        let mut freed: usize = 0;
        self.retained.retain(|_, (message, until)| {
            let keeps = until.is_none_or(|until| now < until);
            if !keeps {
                freed = freed.saturating_add(message.size());
            }
            keeps
        });
        self.retained_bytes = self.retained_bytes.saturating_sub(freed);
    }

    /// False: there was no room.
    fn retain(&mut self, message: &Arc<Message>, until: Option<Instant>) -> bool {
        if let Some((old, _)) = self.retained.remove(&message.topic) {
            self.retained_bytes = self.retained_bytes.saturating_sub(old.size());
        }
        if message.payload.is_empty() {
            return true;
        }
        let bytes = self.retained_bytes.saturating_add(message.size());
        if self.retained.len() >= MAX_RETAINED || bytes > MAX_RETAINED_BYTES {
            return false;
        }
        self.retained_bytes = bytes;
        self.retained
            .insert(Arc::clone(&message.topic), (Arc::clone(message), until));
        true
    }
}

#[cfg(test)]
mod tests;
