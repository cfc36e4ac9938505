//! Sinks over a network that delays, cuts and forgets; that answer late, out of order or not at all; that are away,
//! or refuse an event a few times. Each remembers all that ever reached it.

use std::{collections::BTreeMap, time::Duration};

use tidegate::{
    event::{Entry, Position, Sequence, SinkName},
    forward::{self, Verdict, filter::Filter},
    journal::{Cursor, DeadLetter, Error, Full, Journal, Limit, Refused},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{
    gateway::sink_name,
    receiver::Receiver,
    world::{Id, World, is_same},
};

/// The longest way there and back in the end.
const CALM: Duration = Duration::from_millis(50);

/// What a sink got.
#[derive(Debug, Default)]
pub struct Endpoint {
    /// How often each event reached it.
    pub received: BTreeMap<Id, u32>,
    /// The furthest that was ever handed to a connection.
    pub sent: Option<Id>,
    /// Events that it has refused, and how often it still will.
    pub refused: BTreeMap<Id, u8>,
    /// What it gets.
    pub filter: Filter,
    /// What it makes of that.
    pub receiver: Receiver,
}

/// How bad a sink and the way to it are.
#[derive(Clone, Debug)]
pub struct Nature {
    pub window: usize,
    /// A connection comes to nothing, of 100.
    pub away: u8,
    /// A message breaks the connection, of 1000.
    pub cuts: u16,
    /// An event is refused when it first comes, of 1000.
    pub refuses: u16,
    /// The longest way there and back.
    pub delay: Duration,
    /// Answers overtake each other.
    pub reorders: bool,
    /// An answer never comes, of 1000.
    pub silent: u16,
    /// What it gets.
    pub filter: Filter,
}

/// Where the gateway connects to.
#[derive(Debug)]
pub struct Network {
    pub world: Quiet,
    pub sink: usize,
    pub nature: Nature,
    pub random: fastrand::Rng,
}

/// A world that prints nothing of itself.
#[derive(Clone)]
pub struct Quiet(pub World);

impl std::fmt::Debug for Quiet {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("World")
    }
}

impl Network {
    fn chance(&mut self, of: u16, most: u16) -> bool {
        self.random.u16(..most) < of && !self.world.0.look().calm
    }

    fn delay(&mut self) -> Duration {
        let most = if self.world.0.look().calm {
            CALM
        } else {
            Duration::MAX
        };
        self.nature.delay.min(most).mul_f64(self.random.f64())
    }
}

impl forward::Sink for Network {
    type Link = Connection;

    async fn connect(&mut self) -> Result<Connection, String> {
        let delay = self.delay();
        sleep(delay).await;
        if self.chance(self.nature.away.into(), 100) {
            return Err("nobody there".to_owned());
        }
        self.world.0.say(&format!("sink {}: connected", self.sink));
        let network = Self {
            world: self.world.clone(),
            sink: self.sink,
            nature: self.nature.clone(),
            random: self.random.fork(),
        };
        Ok(Connection {
            network,
            answers: Vec::new(),
            last: Instant::now(),
            is_cut: false,
        })
    }
}

/// One connection.
pub struct Connection {
    network: Network,
    /// What is on its way back, and when it comes.
    answers: Vec<(Instant, Verdict)>,
    last: Instant,
    is_cut: bool,
}

impl Connection {
    fn cut(&mut self) {
        self.is_cut = true;
        let when = Instant::now() + self.network.delay();
        // Some of the answers still come.
        self.answers.retain(|(at, _)| *at <= when);
        self.answers.push((when, Verdict::Lost("cut".to_owned())));
    }

    /// The endpoint has it: what it says.
    fn arrive(&mut self, entry: &Entry, previous: Sequence) -> Verdict {
        let id = (entry.epoch.0, entry.sequence.0);
        let refuses = self.network.chance(self.network.nature.refuses, 1000);
        let times = self.network.random.u8(1..6);
        let sink = self.network.sink;
        let mut guard = self.network.world.0.look();
        let world = &mut *guard;
        match world.known.get(&id) {
            None => {
                let what = format!("G3: {} reached sink {sink} before it was on the disk", id.1);
                world.accuse(what);
            }
            Some(known) if !is_same(known, &entry.event) => {
                let what = format!("G4: {} came to sink {sink} as something else", id.1);
                world.accuse(what);
            }
            Some(_) => {}
        }
        let name = sink_name(sink);
        let filter = &world.endpoints[sink].filter;
        let mut between = world.known.range((id.0, previous.0 + 1).min(id)..id);
        let passed = between.find(|(_, event)| filter.passes(&name, &event.draft));
        if !filter.passes(&name, &entry.event.draft) {
            world.accuse(format!("{} is not for sink {sink}", id.1));
        } else if let Some(((_, passed), _)) = passed
            && previous.0 > 0
        {
            let what = format!(
                "G4: sink {sink} got {} after {}: what of {passed}?",
                id.1, previous.0
            );
            world.accuse(what);
        }
        let calm = world.calm;
        let endpoint = &mut world.endpoints[sink];
        let first = !endpoint.received.contains_key(&id);
        // Not where its chain starts: that nothing before it was for the sink, no event says but this one as the first.
        if first && refuses && previous.0 > 0 {
            endpoint.refused.entry(id).or_insert(times);
        }
        if let Some(left) = endpoint.refused.get_mut(&id).filter(|left| **left > 0 && !calm) {
            *left -= 1;
            world.say(&format!("sink {sink}: refuses {}", id.1));
            return Verdict::Refused(entry.position, "not this one".to_owned());
        }
        let had_it = endpoint.received.contains_key(&id);
        *endpoint.received.entry(id).or_default() += 1;
        let new = endpoint.receiver.receive(entry, previous, &name);
        if new == had_it {
            let took_for = if new { "new" } else { "a duplicate" };
            world.accuse(format!(
                "G4: the receiver of sink {sink} took {} for {took_for}",
                id.1
            ));
        }
        world.say(&format!(
            "sink {sink}: got {} ({})",
            id.1,
            if first { "new" } else { "again" }
        ));
        Verdict::Delivered(entry.position)
    }

    fn note_first_send(&mut self, entry: &Entry) {
        let id = (entry.epoch.0, entry.sequence.0);
        let sink = self.network.sink;
        let mut guard = self.network.world.0.look();
        let world = &mut *guard;
        let sent = world.endpoints[sink].sent.unwrap_or((id.0, 0));
        if id <= sent {
            return;
        }
        world.endpoints[sink].sent = Some(id);
        let after = (sent.0, sent.1 + 1);
        if let Some(((_, passed), _)) = world.known.range(after.min(id)..id).next() {
            let passed = *passed;
            // Unless its room was needed: then it is named, and that is looked at in the end.
            world.say(&format!("sink {sink}: {passed} is passed over for {}", id.1));
        }
    }
}

impl Connection {
    /// The answer that comes next, and when.
    fn earliest(&self) -> Option<(usize, Instant)> {
        let answers = self.answers.iter().enumerate();
        let next = answers.min_by_key(|(index, (at, _))| (*at, *index));
        next.map(|(index, (at, _))| (index, *at))
    }
}

impl forward::Link for Connection {
    fn limit(&self) -> usize {
        self.network.nature.window
    }

    fn send(&mut self, entry: &Entry, previous: Sequence) {
        self.note_first_send(entry);
        if self.is_cut {
            return;
        }
        if self.network.chance(self.network.nature.cuts, 1000) {
            // This one may still have come through.
            if self.network.random.bool() {
                drop(self.arrive(entry, previous));
            }
            self.cut();
            return;
        }
        let verdict = self.arrive(entry, previous);
        if self.network.chance(self.network.nature.silent, 1000) {
            return;
        }
        let mut when = Instant::now() + self.network.delay();
        if !self.network.nature.reorders {
            when = when.max(self.last);
            self.last = when;
        }
        self.answers.push((when, verdict));
    }

    fn said(&mut self) -> Option<Verdict> {
        let (index, at) = self.earliest()?;
        (at <= Instant::now()).then(|| self.answers.remove(index).1)
    }

    async fn next(&mut self) -> Verdict {
        let Some((index, at)) = self.earliest() else {
            return std::future::pending().await;
        };
        sleep_until(at).await;
        self.answers.remove(index).1
    }

    async fn close(self) {}
}

/// The journal as a forwarder sees it, read on the one thread.
#[derive(Debug)]
pub struct Log(pub Journal);

impl forward::Log for Log {
    fn read_after(
        &self,
        cursor: Cursor,
        limit: Limit,
    ) -> impl Future<Output = Result<Vec<Entry>, Error>> + Send + 'static {
        std::future::ready(self.0.read_after_blocking(cursor, limit))
    }
    fn durable(&self) -> watch::Receiver<Position> {
        self.0.durable()
    }
    fn cursor(&self, sink: &SinkName) -> Cursor {
        self.0.cursor(sink)
    }
    fn acknowledge(&self, sink: &SinkName, through: Cursor) {
        self.0.acknowledge(sink, through);
    }
    fn came_to(&self, sink: &SinkName, before: Cursor, next: &Entry) {
        self.0.came_to(sink, before, next);
    }
    fn set_aside(&self, refused: &Refused<'_>) -> Result<Position, Full> {
        self.0.set_aside(refused)
    }
    fn letter_of(&self, sink: &SinkName, position: Position) -> Option<DeadLetter> {
        self.0.letter_of(sink, position)
    }
    fn letter_to_resend(&self, sink: &SinkName) -> Option<DeadLetter> {
        self.0.letter_to_resend(sink)
    }
    fn settle(&self, letter: &DeadLetter, refused: Option<&str>) {
        self.0.settle(letter, refused);
    }
    fn last(&self) -> Sequence {
        self.0.health().borrow().last
    }
}
