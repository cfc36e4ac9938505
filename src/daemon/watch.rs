//! The watch over what the gateway is connected to: uplinks, sources, devices, the room in its journal; and the daily
//! list of alarms. Looks once a second, decides with [`super::standing`], records the gateway's own events.
//!
//! What was told is kept in memory: after a restart a loss that goes on is told anew, under another `correlationid`.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    announce::Announcer,
    evaluate::Asked,
    lines,
    standing::{Change, Devices, Seen, Standing},
    uplinks,
};
use crate::{
    event::{
        Epoch, SinkName,
        gateway::{
            At, DeviceConnected, DeviceDisconnected, EventSetAside, JournalDrained, JournalFilling, Recorded,
            SourceFailed, SourceRecovered, UplinkLost, UplinkRestored,
        },
    },
    journal::{self, Journal},
    reading::DeviceId,
    source::{mqtt::presence::Presence, serial::Link},
    time::{Clock, EngineTime},
};

/// How often it looks.
const EVERY: Duration = Duration::from_secs(1);
/// How often the open alarms are listed.
const DAILY: Duration = Duration::from_hours(24);
/// Of the room for events, in hundredths: from where undelivered events are filling the journal, and below which no longer.
pub(super) const FILLING: u64 = 80;
const DRAINED: u64 = 60;
/// How often it is told at most that events were set aside for a sink.
const SET_ASIDE_EVERY: Duration = Duration::from_mins(1);

/// Whom presence is told of.
#[derive(Clone, Debug, Default)]
pub(super) struct Named {
    /// Devices that have a `[[device]]` of their own.
    pub(super) devices: HashSet<DeviceId>,
    /// How long one may be away.
    pub(super) offline_after: Duration,
}

/// What comes in pairs: of uplinks, sources, devices, the room.
const PAIRS: [[&str; 2]; 4] = [
    [UplinkLost::FACT.name, UplinkRestored::FACT.name],
    [SourceFailed::FACT.name, SourceRecovered::FACT.name],
    [DeviceConnected::FACT.name, DeviceDisconnected::FACT.name],
    [JournalFilling::FACT.name, JournalDrained::FACT.name],
];

/// What was told so far.
#[derive(Debug, Default)]
struct Told {
    uplinks: HashMap<String, Standing>,
    lines: HashMap<String, Standing>,
    devices: Devices,
    filling: Option<EngineTime>,
    /// For which sink something that was set aside was told, and when.
    set_aside: HashMap<SinkName, EngineTime>,
    /// Of [`PAIRS`], at the last look.
    is_off: [[bool; 2]; 4],
}

/// All that is watched.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) announcer: Announcer,
    pub(super) clock: Clock,
    pub(super) epoch: Epoch,
    pub(super) journal: Journal,
    pub(super) settings: journal::Settings,
    pub(super) asked: mpsc::Sender<Asked>,
    pub(super) uplinks: watch::Receiver<Vec<uplinks::View>>,
    pub(super) lines: watch::Receiver<Vec<lines::View>>,
    pub(super) presence: Option<Presence>,
    pub(super) named: watch::Receiver<Named>,
    /// Nothing follows `GatewayStopped`.
    pub(super) stop: CancellationToken,
}

impl Watch {
    /// Looks until the stop.
    pub(super) async fn run(self) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = Told::default();
        let mut listed = self.clock.now();
        loop {
            // Both are cancel-safe.
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let now = self.clock.now();
            self.forget_what_was_switched(&mut told);
            self.look_at_room(now, &mut told.filling);
            if self.journal.health().borrow().parked {
                // What is told would wait in memory, however long. What is still so when there is room is told then.
                continue;
            }
            self.look_at_uplinks(now, &mut told.uplinks);
            self.look_at_dead_letters(now, &mut told.set_aside);
            self.look_at_lines(now, &mut told.lines);
            self.look_at_devices(now, &mut told.devices);
            if now.since(listed) >= DAILY {
                listed = now;
                self.list_alarms().await;
            }
        }
    }

    /// What `[events] off` has named since the last look, or no longer names, begins anew: nobody heard its first half, or
    /// nobody would hear its second.
    fn forget_what_was_switched(&self, told: &mut Told) {
        let is_off = PAIRS.map(|pair| pair.map(|name| self.announcer.is_off(name)));
        let was_off = std::mem::replace(&mut told.is_off, is_off);
        let [uplinks, lines, devices, filling] =
            std::array::from_fn(|pair| is_off.get(pair) != was_off.get(pair));
        if uplinks {
            told.uplinks.clear();
        }
        if lines {
            told.lines.clear();
        }
        if devices {
            told.devices = Devices::default();
        }
        if filling {
            told.filling = None;
        }
    }

    fn look_at_uplinks(&self, now: EngineTime, known: &mut HashMap<String, Standing>) {
        let views = self.uplinks.borrow().clone();
        known.retain(|name, _| views.iter().any(|view| view.name.to_string() == *name));
        for view in views {
            let name = view.name.to_string();
            let status = view.status.borrow().clone();
            let change = known.entry(name.clone()).or_default().look(now, status.connected);
            let backlog = self.journal.health().borrow().behind(status.delivered);
            match change {
                None => {}
                Some(Change::Lost(since)) => {
                    let fact = UplinkLost {
                        sink: name.clone(),
                        reason: status
                            .last_error
                            .unwrap_or_else(|| "not connected yet".to_owned()),
                        backlog,
                    };
                    self.tell(&fact, &name, since, since);
                }
                Some(Change::Back { lost, at }) => {
                    let fact = UplinkRestored {
                        sink: name.clone(),
                        lost_for_s: at.since(lost).as_secs(),
                        backlog,
                    };
                    self.tell(&fact, &name, lost, at);
                }
            }
        }
    }

    fn look_at_lines(&self, now: EngineTime, known: &mut HashMap<String, Standing>) {
        let views = self.lines.borrow().clone();
        known.retain(|name, _| views.iter().any(|view| view.name == *name));
        for lines::View { name, port, counters } in views {
            let link = counters.link.borrow().clone();
            let standing = known.entry(name.clone()).or_default();
            match standing.look(now, link == Link::Up) {
                None => {}
                Some(Change::Lost(since)) => {
                    let reason = match link {
                        Link::Lost(reason) => reason,
                        Link::New | Link::Up => "it does not open".to_owned(),
                    };
                    let source = name.clone();
                    let fact = SourceFailed { source, port, reason };
                    self.tell(&fact, &name, since, since);
                }
                Some(Change::Back { lost, at }) => {
                    let fact = SourceRecovered {
                        source: name.clone(),
                        port,
                        failed_for_s: at.since(lost).as_secs(),
                    };
                    self.tell(&fact, &name, lost, at);
                }
            }
        }
    }

    fn look_at_devices(&self, now: EngineTime, known: &mut Devices) {
        let Some(presence) = &self.presence else { return };
        let Named {
            devices,
            offline_after,
        } = self.named.borrow().clone();
        for (id, seen) in known.look(now, &presence.present(), &devices, offline_after) {
            let device = id.to_string();
            match seen {
                Seen::Connected(at) => self.tell(&DeviceConnected { device }, id.as_str(), at, at),
                Seen::Disconnected { connected, last } => {
                    let last_seen = At(last);
                    let fact = DeviceDisconnected { device, last_seen };
                    self.tell(&fact, id.as_str(), connected, now);
                }
            }
        }
    }

    fn look_at_room(&self, now: EngineTime, filling: &mut Option<EngineTime>) {
        let (undelivered_bytes, room_bytes) = {
            let health = self.journal.health();
            let health = health.borrow();
            (health.undelivered_bytes, health.room_bytes)
        };
        let max_bytes = self.settings.max_bytes;
        let hundredths = undelivered_bytes.saturating_mul(100) / room_bytes.max(1);
        let gateway = self.announcer.gateway();
        if filling.is_none() && hundredths >= FILLING {
            *filling = Some(now);
            let when_full = match self.settings.when_full {
                journal::WhenFull::DropOldest => "drop-oldest",
                journal::WhenFull::Refuse => "refuse",
            };
            let fact = JournalFilling {
                undelivered_bytes,
                room_bytes,
                max_bytes,
                when_full: when_full.to_owned(),
            };
            self.tell(&fact, &gateway, now, now);
        } else if hundredths < DRAINED
            && let Some(since) = filling.take()
        {
            let fact = JournalDrained {
                undelivered_bytes,
                room_bytes,
                max_bytes,
            };
            self.tell(&fact, &gateway, since, now);
        }
    }

    /// Once a minute for each sink, however many; the next time tells what has come since.
    fn look_at_dead_letters(&self, now: EngineTime, told: &mut HashMap<SinkName, EngineTime>) {
        if self.announcer.is_off(EventSetAside::FACT.name) {
            return;
        }
        told.retain(|_, at| now.since(*at) < SET_ASIDE_EVERY);
        for untold in self.journal.untold() {
            if !told.contains_key(&untold.sink) {
                told.insert(untold.sink.clone(), now);
                self.journal.tell_set_aside(untold);
            }
        }
    }

    async fn list_alarms(&self) {
        // An engine that has gone is told by its stage's end; nobody waits for the answer.
        _ = self
            .asked
            .send(Asked::List(self.epoch, oneshot::channel().0))
            .await
            .is_ok();
    }

    /// Records one of a pair. Both are named after `pair`, when the first happened: on the boot clock, which no time
    /// server moves in between.
    fn tell<F: Recorded>(&self, fact: &F, subject: &str, pair: EngineTime, at: EngineTime) {
        let correlation: Arc<str> = format!("{}-{subject}-{}", self.epoch, pair.0).into();
        self.announcer.record_about(fact, subject, at, Some(correlation));
    }
}

#[cfg(test)]
mod tests;
