//! Events for the site: what is on the disk goes to the door's own subscribers. Best effort, never waiting for one.
//! What the gateway has lost goes to the log, too: whoever stands before it may not see the cloud.

use tracing::error;

use super::at_the_end;
use crate::{
    event::{Data, Entry, Severity, cloudevents},
    hub::Hub,
    journal::{Cursor, Journal, Limit},
};

/// One batch at a time: what a slow board renders in a few milliseconds.
const BATCH: Limit = Limit {
    entries: 64,
    bytes: 256 * 1024,
};

/// Publishes every event that becomes durable from now on. Ends when the journal does.
pub(super) async fn serve(journal: Journal, hub: Hub) {
    let mut durable = journal.durable();
    let mut cursor = at_the_end(*durable.borrow_and_update());
    loop {
        match journal.read_after(cursor, BATCH).await {
            Ok(entries) if entries.is_empty() => {
                if durable.changed().await.is_err() {
                    return;
                }
            }
            Ok(entries) => {
                for entry in entries {
                    log(&entry);
                    let previous = crate::event::Sequence(entry.sequence.0.saturating_sub(1));
                    hub.publish_event(
                        &cloudevents::topic(cloudevents::topic::DOOR, &entry),
                        cloudevents::render(&entry, previous),
                    );
                    cursor = Cursor {
                        position: entry.position,
                        sequence: entry.sequence,
                    };
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
