//! Events for the site: what is on the disk goes to the door's own subscribers. Best effort, never waiting for one.
//! What the gateway has lost goes to the log, too: whoever stands before it may not see the cloud.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tracing::{error, info, warn};

use crate::{
    event::{Data, Entry, Position, cloudevents},
    hub::Hub,
    journal::{Cursor, Journal, Limit},
};

/// One batch at a time: what a slow board renders in a few milliseconds.
const BATCH: Limit = Limit {
    entries: 64,
    bytes: 256 * 1024,
};

/// What the gateway's own events told that it lost since the start, for the status.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// Numbers of the events that will not come, by epoch; not those that somebody dropped, nor what a filter left out
    /// before a gap. Each sink that loses something is told for itself, so counts cannot be added up.
    discarded: Mutex<BTreeMap<String, Vec<(u64, u64)>>>,
    /// Places of the journal that hold other bytes than were written.
    pub(super) damages: AtomicU64,
}

#[derive(serde::Deserialize)]
struct Discarded {
    epoch: String,
    ranges: Vec<(u64, u64)>,
    reason: String,
}

impl Lost {
    /// How many events will not come.
    pub(super) fn events(&self) -> u64 {
        let discarded = self.discarded.lock().unwrap_or_else(PoisonError::into_inner);
        let ranges = discarded.values().flatten();
        ranges
            .map(|(from, to)| to.saturating_sub(*from).saturating_add(1))
            .sum()
    }

    fn count(&self, entry: &Entry) {
        let draft = &entry.event.draft;
        let Data::Gateway(data) = &draft.data else { return };
        match &*draft.name {
            "EventsDiscarded" => {
                let Ok(fact) = serde_json::from_value::<Discarded>(data.clone().into()) else {
                    return;
                };
                if ["dropped", "gap"].contains(&&*fact.reason) {
                    return;
                }
                let mut discarded = self.discarded.lock().unwrap_or_else(PoisonError::into_inner);
                join(discarded.entry(fact.epoch).or_default(), fact.ranges);
            }
            "StorageDamaged" => _ = self.damages.fetch_add(1, Relaxed),
            _ => {}
        }
    }
}

/// Takes `more` into `ranges`, so that each number is in one of them.
fn join(ranges: &mut Vec<(u64, u64)>, more: Vec<(u64, u64)>) {
    ranges.extend(more);
    ranges.sort_unstable();
    ranges.dedup_by(|next, kept| {
        let meets = next.0 <= kept.1.saturating_add(1);
        if meets {
            kept.1 = kept.1.max(next.1);
        }
        meets
    });
}

/// Publishes every event behind `end`: also what was durable before this began, such as a damage that opening told.
/// Ends when the journal does.
pub(super) async fn serve(journal: Journal, end: Position, hub: Hub, lost: Arc<Lost>) {
    let mut durable = journal.durable();
    let mut cursor = Cursor::start(end);
    loop {
        // Seen before the read: what becomes durable during it is told again.
        durable.borrow_and_update();
        match journal.read_after(cursor, BATCH).await {
            Ok(entries) if entries.is_empty() => {
                if durable.changed().await.is_err() {
                    return;
                }
            }
            Ok(entries) => {
                for entry in entries {
                    log(&entry);
                    lost.count(&entry);
                    let previous = crate::event::Sequence(entry.sequence.0.saturating_sub(1));
                    hub.publish_event(
                        &cloudevents::topic(cloudevents::topic::DOOR, &entry),
                        cloudevents::render(&entry, previous),
                    );
                    cursor = Cursor::behind(&entry);
                }
            }
            Err(failed) => {
                error!(reason = %failed, "could not read the journal for local subscribers");
                return;
            }
        }
    }
}

/// Those of the gateway's own events that nobody else logs when they come about: what becomes of the journal.
fn log(entry: &Entry) {
    let draft = &entry.event.draft;
    let Data::Gateway(data) = &draft.data else { return };
    let data = || serde_json::to_string(data).unwrap_or_default();
    let (event, seq) = (format!("{}-{}", entry.epoch, entry.sequence), entry.sequence.0);
    match &*draft.name {
        "StorageDamaged" => error!(name: "StorageDamaged", event, seq, "StorageDamaged: {}", data()),
        "EventsDiscarded" => error!(name: "EventsDiscarded", event, seq, "EventsDiscarded: {}", data()),
        "JournalFilling" => warn!(name: "JournalFilling", event, seq, "JournalFilling: {}", data()),
        "JournalDrained" => info!(name: "JournalDrained", event, seq, "JournalDrained: {}", data()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{
            Epoch, Event, Origin, Sequence,
            gateway::{self, EventsDiscarded, GatewayAlive, Recorded, StorageDamaged},
        },
        time::{Clock, EngineTime},
    };

    fn entry<F: Recorded>(fact: &F) -> Entry {
        let origin = Origin {
            gateway: "gw".into(),
            source: "urn:tidegate:gateway:gw".into(),
            labels: crate::event::Labels::new(),
            version: "0".into(),
        };
        Entry {
            position: Position(1),
            epoch: Epoch(42),
            sequence: Sequence(7),
            event: Arc::new(Event {
                draft: gateway::draft(fact, "gw", EngineTime(1)),
                origin: Arc::new(origin),
                recorded: Clock::system().moment(),
            }),
        }
    }

    /// What is logged of it.
    fn logged(entry: &Entry) -> String {
        #[derive(Clone, Default)]
        struct Kept(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Kept {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let kept = Kept::default();
        let into = kept.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || into.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || log(entry));
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn what_was_lost_or_damaged_is_in_the_log_with_what_and_where() {
        let said = logged(&entry(&EventsDiscarded {
            epoch: Epoch(42).to_string(),
            sinks: vec!["cloud".to_owned()],
            ranges: vec![(3, 5)],
            count: 3,
            reason: "journal-full".to_owned(),
        }));
        assert!(said.contains("ERROR") && said.contains("seq=7"), "{said}");
        let data = r#"{"count":3,"epoch":"000000000001a","ranges":[[3,5]],"reason":"journal-full","sinks":["cloud"]}"#;
        assert!(said.contains(&format!("EventsDiscarded: {data}")), "{said}");
        let said = logged(&entry(&StorageDamaged {
            file: "0001.seg".to_owned(),
            from: 10,
            to: 20,
        }));
        assert!(
            said.contains(r#"StorageDamaged: {"file":"0001.seg","from":10,"to":20}"#),
            "{said}"
        );
    }

    #[test]
    fn what_is_lost_is_counted_once_but_not_what_somebody_dropped() {
        let lost = Lost::default();
        // A full journal names again what it named before, with what was added.
        let told = [
            (4, 42, "journal-full"),
            (4, 50, "journal-full"),
            (60, 61, "damaged"),
            (48, 52, "max-age"),
            (70, 99, "dropped"),
            (100, 120, "gap"),
        ];
        for (from, to, reason) in told {
            lost.count(&entry(&EventsDiscarded {
                epoch: Epoch(42).to_string(),
                sinks: vec!["cloud".to_owned()],
                ranges: vec![(from, to)],
                count: to - from + 1,
                reason: reason.to_owned(),
            }));
        }
        lost.count(&entry(&StorageDamaged {
            file: "0001.seg".to_owned(),
            from: 10,
            to: 20,
        }));
        assert_eq!((lost.events(), lost.damages.into_inner()), (49 + 2, 1));
    }

    #[test]
    fn a_sign_of_life_is_not_in_the_log() {
        let alive = GatewayAlive {
            epoch: Epoch(42).to_string(),
            last_sequence: 1,
            active_episodes: 0,
            backlog: 0,
        };
        assert_eq!(logged(&entry(&alive)), "");
    }
}
