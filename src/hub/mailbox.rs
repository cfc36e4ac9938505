//! One subscriber's queue: bounded, never waited for.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::Notify, time::Instant};

use super::Message;

/// Messages that may wait for one subscriber.
pub const MAX_WAITING: usize = 1024;
/// Their bytes: a burst of the largest packets, on top of the 64 KiB that the connection itself holds.
pub const MAX_WAITING_BYTES: usize = 256 * 1024;
/// Messages that an absent subscriber may find when it comes back.
pub const MAX_ABSENT: usize = 256;

/// A message on its way to one subscriber.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Shared by all its subscribers.
    pub message: Arc<Message>,
    /// Quality of service granted to this one.
    pub qos: u8,
    /// The retain flag for this one.
    pub retain: bool,
    /// Which of its subscriptions matched, if they were numbered.
    pub identifiers: Vec<u32>,
    /// Worthless from then on.
    pub until: Option<Instant>,
}

impl Arrival {
    /// Seconds it has to live, rounded up; zero: expired; `None`: no end.
    #[must_use]
    pub fn remaining(&self, now: Instant) -> Option<u32> {
        let left = self.until?.saturating_duration_since(now);
        Some(u32::try_from(left.as_millis().div_ceil(1000)).unwrap_or(u32::MAX))
    }
}

/// What waits for one subscriber.
#[derive(Debug, Default)]
pub struct Mailbox {
    waiting: Mutex<Waiting>,
    signal: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    queue: VecDeque<Arrival>,
    /// The retained messages asked for: their bytes are shared with the store, so only their number counts.
    replay: VecDeque<Arrival>,
    bytes: usize,
    present: bool,
    overflowed: bool,
}

/// What became of a message for one subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    Taken,
    /// Its subscriber is absent and has enough to catch up with.
    Dropped,
    /// Its subscriber is present and does not keep up.
    Overflowed,
}

impl Mailbox {
    /// Takes the next message; the retained ones come first.
    pub fn take(&self) -> Option<Arrival> {
        let mut waiting = self.waiting();
        if let Some(arrival) = waiting.replay.pop_front() {
            return Some(arrival);
        }
        let arrival = waiting.queue.pop_front()?;
        waiting.bytes = waiting.bytes.saturating_sub(arrival.message.size());
        Some(arrival)
    }

    /// Whether the subscriber did not keep up: it is to be disconnected.
    pub fn overflowed(&self) -> bool {
        self.waiting().overflowed
    }

    /// Waits until something may have arrived or overflowed. Cancel-safe.
    pub async fn arrived(&self) {
        self.signal.notified().await;
    }

    pub(super) fn put(&self, arrival: Arrival) -> Put {
        let mut waiting = self.waiting();
        let size = arrival.message.size();
        if !waiting.present {
            return waiting.keep(arrival);
        } else if waiting.overflowed {
            return Put::Dropped;
        } else if waiting.queue.len() >= MAX_WAITING || waiting.bytes.saturating_add(size) > MAX_WAITING_BYTES
        {
            waiting.overflowed = true;
            self.signal.notify_one();
            return Put::Overflowed;
        }
        waiting.bytes = waiting.bytes.saturating_add(size);
        waiting.queue.push_back(arrival);
        self.signal.notify_one();
        Put::Taken
    }

    pub(super) fn replay(&self, arrivals: impl Iterator<Item = Arrival>) {
        let mut waiting = self.waiting();
        for arrival in arrivals {
            if waiting.replay.len() >= super::MAX_RETAINED {
                waiting.overflowed = true;
                break;
            }
            waiting.replay.push_back(arrival);
        }
        self.signal.notify_one();
    }

    /// Its subscriber has come.
    pub(super) fn open(&self) {
        let mut waiting = self.waiting();
        waiting.present = true;
        waiting.overflowed = false;
        self.signal.notify_one();
    }

    /// Its subscriber has gone. What waits is cut to what may wait for an absent one; returns how many messages
    /// were dropped, without those of `QoS` 0.
    pub(super) fn close(&self) -> u64 {
        let mut waiting = self.waiting();
        waiting.present = false;
        waiting.bytes = 0;
        let replay = std::mem::take(&mut waiting.replay);
        let mut live = std::mem::take(&mut waiting.queue);
        live.retain(|arrival| arrival.qos > 0);
        // What is retained can be had again: it takes only the places that the others leave.
        let places = MAX_ABSENT.saturating_sub(live.len());
        let dropped = replay.len().saturating_sub(places);
        let kept = replay.into_iter().take(places).chain(live);
        let over = kept.map(|arrival| u64::from(waiting.keep(arrival) == Put::Dropped));
        over.sum::<u64>().saturating_add(dropped as u64)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Puts a message by for an absent subscriber, if there is room. `QoS` 0 is not for the absent: no loss.
    fn keep(&mut self, arrival: Arrival) -> Put {
        let bytes = self.bytes.saturating_add(arrival.message.size());
        if arrival.qos == 0 {
            return Put::Taken;
        }
        if self.queue.len() >= MAX_ABSENT || bytes > MAX_WAITING_BYTES {
            return Put::Dropped;
        }
        self.bytes = bytes;
        self.queue.push_back(arrival);
        Put::Taken
    }
}
