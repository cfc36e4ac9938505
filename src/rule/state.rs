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
        let now = (self.events.len(), self.state.len());
        if now != self.cuts.last().copied().unwrap_or_default() {
            self.cuts.push(now);
        }
    }

    /// Keeps only these events.
    pub fn retain(&mut self, keep: impl Fn(&Draft) -> bool) {
        let kept: Vec<bool> = self.events.iter().map(&keep).collect();
        for (events, _) in &mut self.cuts {
            *events = kept.iter().take(*events).filter(|kept| **kept).count();
        }
        self.events.retain(keep);
    }

    /// The same in commits of a bounded size, in order.
    pub fn pieces(self) -> impl Iterator<Item = Self> {
        self.cut(PIECE)
    }

    /// The same in the smallest commits that there may be, in order.
    pub fn smallest(self) -> impl Iterator<Item = Self> {
        self.cut(1)
    }

    /// In pieces of so many events and keys at least.
    fn cut(mut self, least: usize) -> impl Iterator<Item = Self> {
        let mut from = 0;
        let mut ends = Vec::new();
        for (index, (events, state)) in self.cuts.iter().copied().enumerate() {
            if events + state >= from + least {
                from = events + state;
                ends.push((index, events, state));
            }
        }
        let mut pieces = Vec::new();
        for (index, events, state) in ends.into_iter().rev() {
            let mut cuts = self.cuts.split_off(index + 1);
            for cut in &mut cuts {
                *cut = (cut.0 - events, cut.1 - state);
            }
            pieces.push(Self {
                events: self.events.split_off(events),
                state: self.state.split_off(state),
                cuts,
                ..Self::default()
            });
        }
        std::iter::once(self).chain(pieces.into_iter().rev())
    }
}
