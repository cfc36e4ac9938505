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

/// What of an outcome is kept together at least, in events and keys: far below what any journal takes in one commit.
const PIECE: usize = 64;

/// What one or more observations decided. An event and the state that goes with it are committed together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// In order.
    pub events: Vec<Draft>,
    /// In order; a later change of a key wins.
    pub state: Vec<StateChange>,
    /// The last commit that touched any state that was looked at.
    pub depends_on: Position,
    /// Where it may be cut: so many events and changes belong to what is before.
    pub cuts: Vec<(usize, usize)>,
}

impl Outcome {
    /// What was decided until now holds without what follows: a commit may end here.
    pub fn may_end(&mut self) {
        let (events, state) = self.cuts.last().copied().unwrap_or_default();
        let (now_events, now_state) = (self.events.len(), self.state.len());
        if now_events + now_state >= events + state + PIECE {
            self.cuts.push((now_events, now_state));
        }
    }

    /// The same in commits of a bounded size, in order.
    pub fn pieces(mut self) -> impl Iterator<Item = Self> {
        let mut pieces = Vec::new();
        for (events, state) in std::mem::take(&mut self.cuts).into_iter().rev() {
            pieces.push(Self {
                events: self.events.split_off(events),
                state: self.state.split_off(state),
                ..Self::default()
            });
        }
        std::iter::once(self).chain(pieces.into_iter().rev())
    }
}
