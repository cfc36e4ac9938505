//! A small journal for unit tests, of one gateway on a simulated disk.

use std::{sync::Arc, time::Duration};

use super::{Journal, Owner, Settings, SinkPlan, Stepped, WhenFull, storage::Storage};
use crate::{
    event::{Draft, Origin, SinkName, gateway},
    time::{Clock, EngineTime},
};

/// Opens a machine's journal, with this sink if there is one.
pub(super) fn open(storage: Arc<dyn Storage>, machine: &str, sink: Option<&SinkName>) -> (Journal, Stepped) {
    let settings = Settings {
        dir: "/journal".into(),
        max_bytes: 8 * 1024 * 1024,
        max_age: None,
        when_full: WhenFull::DropOldest,
        state_delay: Duration::ZERO,
    };
    let sinks = sink.into_iter().map(|name| SinkPlan {
        name: name.clone(),
        required: true,
        from_oldest: false,
    });
    let owner = Owner {
        origin: Arc::new(Origin {
            gateway: "gw".into(),
            source: "urn:gw".into(),
            labels: [].into(),
            version: "1".into(),
        }),
        machine_id: machine.to_owned(),
        board_serial: "b".to_owned(),
        sinks: sinks.collect(),
    };
    let (journal, _, steps) = Journal::open_stepped(storage, &settings, owner, Clock::system()).unwrap();
    (journal, steps)
}

/// An event, unlike those of other numbers.
pub(super) fn event(number: u64) -> Draft {
    let alive = gateway::GatewayAlive {
        epoch: String::new(),
        last_sequence: number,
        active_episodes: 0,
        backlog: 0,
    };
    gateway::draft(&alive, "gw", EngineTime(0))
}
