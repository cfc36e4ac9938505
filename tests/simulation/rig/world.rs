//! What is outside of the gateway, and what an all-knowing observer has seen: shared by all tasks of the one thread.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard},
};

use tidegate::{
    event::{Entry, Epoch, Event, Position},
    journal::Health,
    source::{Intake, Stamps},
    time::BootId,
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    reference::{Arrival, Micros},
    sink::Endpoint,
};

/// Clones are the same world.
#[derive(Clone)]
pub struct World(Arc<Mutex<Inside>>);

/// An event's identity.
pub type Id = (u64, u64);

pub struct Inside {
    began: Instant,
    /// What happened, a line each.
    pub trace: Vec<String>,
    hash: DefaultHasher,
    /// The first promise that was seen broken.
    pub broken: Option<String>,
    /// No faults any more: all that is left to do gets done.
    pub calm: bool,
    /// Every event that was ever seen on the disk.
    pub known: BTreeMap<Id, Arc<Event>>,
    /// The story's time at which a boot's clock was zero.
    pub boots: BTreeMap<u128, Micros>,
    pub endpoints: Vec<Endpoint>,
    /// What came to the gateway in its present life, by device.
    pub arrivals: Vec<Vec<Arrival>>,
    /// How many readings each device has that are not acknowledged.
    pub owing: Vec<usize>,
    /// The gateway's door, while it is open.
    pub door: Option<Door>,
}

/// Where devices get in.
#[derive(Clone)]
pub struct Door {
    pub intake: Intake,
    pub durable: watch::Receiver<Position>,
    pub health: watch::Receiver<Health>,
    pub stamps: Arc<Stamps>,
    pub boot: BootId,
    /// The gateway is gone.
    pub gone: CancellationToken,
}

impl World {
    pub fn new(endpoints: Vec<Endpoint>, devices: usize) -> Self {
        Self(Arc::new(Mutex::new(Inside {
            began: Instant::now(),
            trace: Vec::new(),
            hash: DefaultHasher::new(),
            broken: None,
            calm: false,
            known: BTreeMap::new(),
            boots: BTreeMap::new(),
            endpoints,
            arrivals: vec![Vec::new(); devices],
            owing: vec![0; devices],
            door: None,
        })))
    }

    pub fn look(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap()
    }

    pub fn say(&self, line: &str) {
        self.look().say(line);
    }
}

impl Inside {
    pub fn now(&self) -> Micros {
        i64::try_from(self.began.elapsed().as_micros()).unwrap()
    }

    pub fn say(&mut self, line: &str) {
        let now = self.began.elapsed();
        let line = format!("{:>12.6} {line}", now.as_secs_f64());
        line.hash(&mut self.hash);
        self.trace.push(line);
    }

    /// What the whole run comes to.
    pub fn digest(&self) -> u64 {
        self.hash.finish()
    }

    pub fn add_to_digest(&mut self, bytes: &[u8]) {
        bytes.hash(&mut self.hash);
    }

    /// A promise is broken.
    pub fn accuse(&mut self, what: String) {
        self.say(&format!("BROKEN: {what}"));
        self.broken.get_or_insert(what);
    }

    /// An event was read from the disk: what an identity means never changes.
    pub fn learn(&mut self, entry: &Entry) {
        let id = (entry.epoch.0, entry.sequence.0);
        let Some(before) = self.known.get(&id) else {
            let draft = &entry.event.draft;
            self.say(&format!(
                "on the disk: {} {} about {}",
                entry.sequence.0, draft.name, draft.subject
            ));
            if matches!(&*draft.name, "StorageDamaged") {
                self.accuse(format!("a crash is no damage: {:?}", draft.data));
            }
            self.known.insert(id, Arc::clone(&entry.event));
            return;
        };
        if !is_same(before, &entry.event) {
            self.accuse(format!("G4: {} means something else now", entry.sequence.0));
        }
    }

    /// When that was, in the story.
    pub fn time_of(&self, event: &Event, at: tidegate::time::EngineTime) -> Micros {
        at.0 + self.boots.get(&event.recorded.boot_id.0).copied().unwrap_or(0)
    }

    /// The events of an epoch.
    pub fn of_epoch(&self, epoch: Epoch) -> impl Iterator<Item = (u64, &Arc<Event>)> {
        self.known
            .range((epoch.0, 0)..=(epoch.0, u64::MAX))
            .map(|((_, sequence), event)| (*sequence, event))
    }
}

/// The times of a redelivery may improve; nothing else changes.
pub fn is_same(one: &Event, other: &Event) -> bool {
    one.draft == other.draft
        && one.origin == other.origin
        && (one.recorded.boot_id, one.recorded.boot) == (other.recorded.boot_id, other.recorded.boot)
}
