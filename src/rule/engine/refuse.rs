//! What becomes of a slot whose raise or hold the journal has no room for: it is as if it had not begun, and is tried
//! again, so that nobody rests on what no disk will ever have.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Engine,
    latch::{Latch, NEVER, NO_DEADLINE},
    saved::parse_slot_key,
};
use crate::{
    event::Transition,
    rule::state::{Outcome, StateChange},
    time::EngineTime,
};

/// How long until what was refused is tried again without a reading.
const RETRY: Duration = Duration::from_mins(1);

/// The slots of what the journal refused, and whether a raise was among it.
#[derive(Debug, Default)]
pub struct Refused(BTreeMap<Vec<u8>, bool>);

impl Refused {
    /// Takes note of an outcome that was refused.
    pub fn add(&mut self, outcome: &Outcome) {
        let raised = |draft: &crate::event::Draft| draft.transition == Some(Transition::Raised);
        let raised = outcome.events.iter().any(raised);
        for change in outcome.state.iter().filter(|change| is_slot(change)) {
            *self.0.entry(change.key.clone()).or_default() |= raised;
        }
    }

    /// Whether an outcome goes on with what was refused.
    #[must_use]
    pub fn concerns(&self, outcome: &Outcome) -> bool {
        outcome
            .state
            .iter()
            .any(|change| self.0.contains_key(&change.key))
    }

    /// Whether nothing was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn is_slot(change: &StateChange) -> bool {
    change.key.starts_with(b"r/")
}

impl Engine {
    /// The journal has refused what these slots did: what began with it has not begun. It begins with the next reading
    /// or a minute later, if there is room then. What `out` gets need not be accepted.
    pub fn take_back(&mut self, refused: &Refused, out: &mut Outcome) {
        self.bases.refused();
        for (key, raised) in &refused.0 {
            let Some((rule, device)) = parse_slot_key(key) else {
                continue;
            };
            let number = self.rule_numbers.get(rule).copied();
            let device = self.devices.find(&device);
            let Some(index) = number
                .zip(device)
                .and_then(|(rule, device)| self.find(rule, device))
            else {
                continue;
            };
            let slot = &mut self.slots[index];
            match &slot.latch {
                Latch::Pending(_) => {}
                Latch::Active(..) | Latch::Clearing(..) if *raised => {
                    self.active = self.active.saturating_sub(1);
                }
                // The disk has the episode: its next commit says what this one would have.
                Latch::Normal | Latch::Active(..) | Latch::Clearing(..) => continue,
            }
            slot.latch = Latch::Normal;
            if *raised {
                let cost = self.plans[slot.plan].raise_interval();
                let cost = i64::try_from(cost.as_micros()).unwrap_or(i64::MAX);
                let paid = slot.paid.shifted(cost.saturating_neg());
                slot.paid = if paid > slot.entered { paid } else { NEVER };
            }
            // If the disk has something older of it, that is larger, unless the basis of an edited rule was refused, too.
            self.save(index, out);
            out.may_end();
            self.refused.insert(index);
            self.retry_at = self.now.after(RETRY);
            self.schedule(index, self.now);
        }
    }

    /// When [`Engine::try_again`] is due.
    pub(super) fn tries_again(&self) -> EngineTime {
        if self.refused.is_empty() {
            NO_DEADLINE
        } else {
            self.retry_at
        }
    }

    /// Looks again at what was refused.
    pub(super) fn try_again(&mut self, out: &mut Outcome) {
        for index in std::mem::take(&mut self.refused) {
            self.turn(index, self.now, out);
            out.may_end();
        }
    }
}
