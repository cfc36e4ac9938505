//! Events for the site: what is on the disk goes to the door's own subscribers. Best effort, never waiting for one.
//! What the gateway has lost goes to the log, too: whoever stands before it may not see the cloud.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use tracing::error;

use crate::{
    event::{Data, Entry, Position, Severity, cloudevents},
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
    /// Events that will not come; not those that somebody dropped.
    pub(super) events: AtomicU64,
    /// Places of the journal that hold other bytes than were written.
    pub(super) damages: AtomicU64,
}

impl Lost {
    fn count(&self, entry: &Entry) {
        let draft = &entry.event.draft;
        let Data::Gateway(data) = &draft.data else { return };
        match &*draft.name {
            "EventsDiscarded" if data.get("reason").is_none_or(|reason| reason != "dropped") => {
                let count = data.get("count").and_then(serde_json::Value::as_u64);
                self.events.fetch_add(count.unwrap_or(0), Relaxed);
            }
            "StorageDamaged" => _ = self.damages.fetch_add(1, Relaxed),
            _ => {}
        }
    }
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
                error!("could not read the journal for local subscribers: {failed}");
                return;
            }
        }
    }
}

/// The gateway's own events from `error` on.
fn log(entry: &Entry) {
    let draft = &entry.event.draft;
    if let Data::Gateway(data) = &draft.data
        && draft.severity >= Severity::Error
    {
        let data = serde_json::to_string(data).unwrap_or_default();
        error!(epoch = %entry.epoch, sequence = entry.sequence.0, "{}: {data}", draft.name);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

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
        assert!(said.contains("ERROR") && said.contains("sequence=7"), "{said}");
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
    fn what_is_lost_is_counted_but_not_what_somebody_dropped() {
        let lost = Lost::default();
        for (count, reason) in [(3, "journal-full"), (4, "damaged"), (100, "dropped")] {
            lost.count(&entry(&EventsDiscarded {
                epoch: Epoch(42).to_string(),
                sinks: vec!["cloud".to_owned()],
                ranges: vec![(1, count)],
                count,
                reason: reason.to_owned(),
            }));
        }
        lost.count(&entry(&StorageDamaged {
            file: "0001.seg".to_owned(),
            from: 10,
            to: 20,
        }));
        assert_eq!((lost.events.into_inner(), lost.damages.into_inner()), (7, 1));
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
