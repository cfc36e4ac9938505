//! What every sink's table says alike, whatever its protocol.

use super::{bucket::Rate, filter::Filter};
use crate::{event::SinkName, journal::SinkPlan};

/// The keys that `[[sink.mqtt]]` and `[[sink.http]]` share.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// Unique among all sinks: the cursor is kept under it.
    pub name: SinkName,
    /// Refusals of one event before it is set aside; only those that judge the event count.
    pub max_attempts: u32,
    /// Whether undelivered events may make `refuse` refuse.
    pub required: bool,
    /// A sink added later starts at the oldest event.
    pub from_oldest: bool,
    /// Which events it gets.
    pub filter: Filter,
    /// How many it is sent in a time, at most.
    pub drain_rate: Option<Rate>,
}

impl Terms {
    /// Those of a table that says nothing but its name.
    #[must_use]
    pub fn new(name: SinkName) -> Self {
        Self {
            name,
            max_attempts: 10,
            required: true,
            from_oldest: false,
            filter: Filter::default(),
            drain_rate: None,
        }
    }

    /// What the journal needs to know of it.
    #[must_use]
    pub fn plan(&self) -> SinkPlan {
        SinkPlan {
            name: self.name.clone(),
            required: self.required,
            from_oldest: self.from_oldest,
        }
    }
}
