//! The gate: publishes in the order they came, each waiting for those before it and for the disk. Pure.

use std::{collections::VecDeque, sync::Arc};

use crate::{event::Position, hub::Message};

/// How a publish is to be acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `QoS` 0: it only keeps its place.
    Nothing,
    PubAck(u16),
    PubRec(u16),
}

/// What is known of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ruling {
    /// Not yet.
    Waiting,
    /// Passes when the disk has this.
    AfterDurable(Position),
    /// Was not evaluated, for this reason.
    Failed(u8),
    /// Will never be evaluated: must not be acknowledged.
    Never,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub token: u64,
    pub kind: Kind,
    /// The same `QoS` 2 publish again.
    pub duplicate: bool,
    pub ruling: Ruling,
    /// For the local subscribers; a duplicate has none.
    pub message: Option<Arc<Message>>,
}

#[derive(Debug, Default)]
pub(super) struct Gate {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Gate {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many of them wait for an acknowledgement.
    pub(super) fn acknowledgements(&self) -> usize {
        self.entries
            .iter()
            .filter(|entry| entry.kind != Kind::Nothing && !entry.duplicate)
            .count()
    }

    /// Packet ids of the `QoS` 2 publishes that wait for the first answer.
    pub(super) fn waiting_qos2(&self) -> impl Iterator<Item = u16> {
        self.entries
            .iter()
            .filter(|entry| !entry.duplicate)
            .filter_map(|entry| match entry.kind {
                Kind::PubRec(id) => Some(id),
                Kind::Nothing | Kind::PubAck(_) => None,
            })
    }

    pub(super) fn push(&mut self, entry: Entry) {
        self.bytes = self.bytes.saturating_add(size(&entry));
        self.entries.push_back(entry);
    }

    /// Its local subscribers will not get it.
    pub(super) fn forget_message(&mut self, token: u64) {
        if let Ok(index) = self.entries.binary_search_by_key(&token, |entry| entry.token)
            && let Some(entry) = self.entries.get_mut(index)
        {
            self.bytes = self.bytes.saturating_sub(size(entry));
            entry.message = None;
            self.bytes = self.bytes.saturating_add(size(entry));
        }
    }

    /// The first answer counts. A token that is not here has passed: a late answer changes nothing.
    pub(super) fn decide(&mut self, token: u64, ruling: Ruling) {
        // Tokens are given in order, so the queue is sorted by them.
        if let Ok(index) = self.entries.binary_search_by_key(&token, |entry| entry.token)
            && let Some(entry) = self.entries.get_mut(index)
            && entry.ruling == Ruling::Waiting
        {
            entry.ruling = ruling;
        }
    }

    /// The first entry, if it may pass.
    pub(super) fn pass(&mut self, durable: Position) -> Option<Entry> {
        let entry = self.entries.pop_front_if(|entry| match entry.ruling {
            Ruling::Waiting => false,
            Ruling::AfterDurable(position) => position <= durable,
            Ruling::Failed(_) | Ruling::Never => true,
        })?;
        self.bytes = self.bytes.saturating_sub(size(&entry));
        Some(entry)
    }

    /// Forgets what waits for an acknowledgement. What asked for none keeps its turn.
    pub(super) fn forget_asked(&mut self) {
        self.entries.retain(|entry| entry.kind == Kind::Nothing);
        self.bytes = self.entries.iter().map(size).sum();
    }

    /// Duplicates of a publish that failed fail with it.
    pub(super) fn fail_duplicates(&mut self, id: u16, why: u8) {
        for entry in &mut self.entries {
            if entry.duplicate && entry.kind == Kind::PubRec(id) {
                entry.ruling = Ruling::Failed(why);
            }
        }
    }
}

fn size(entry: &Entry) -> usize {
    entry.message.as_ref().map_or(64, |message| message.size())
}
