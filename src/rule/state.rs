//! What the engine decides and what it remembers: the outcome of an observation, committed as one.

use crate::event::{Draft, Position};

/// One key of the durable state, set or (with `None`) removed. Keys are at most 512 bytes, values 4 KiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// Whose state, as bytes: `r/<rule>/<device>` for a rule's.
    pub key: Vec<u8>,
    /// CBOR, or nothing.
    pub value: Option<Vec<u8>>,
}

/// What one or more observations decided. Events and state are committed together, all or nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// In order.
    pub events: Vec<Draft>,
    /// In order; a later change of a key wins.
    pub state: Vec<StateChange>,
    /// The last commit that touched any state that was looked at.
    pub depends_on: Position,
}
