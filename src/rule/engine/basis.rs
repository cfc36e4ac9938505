//! What a slot rests on and no reading changes: the rule as it decides, and as what its episodes are raised. A slot is
//! written at every change and these are most of it, so the disk has them once, in the commit of the first raise or hold
//! that rests on them or of the start that found them missing, and the slots have their name. A start forgets those on
//! which no slot rests.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    Engine,
    latch::{Names, Slot},
    plan::Plan,
    saved::{decode, encode},
};
use crate::{
    event::RuleFacts,
    reading::Metric,
    rule::{
        judged_by,
        state::{Outcome, StateChange},
    },
};

/// What stands before the name in a key, in hexadecimal digits.
const PREFIX: &str = "engine/basis/";
/// What of a basis the rule's facts take at most, in bytes: the rest is far below 1 KiB, a value at most 4.
const MAX_FACTS: usize = 3_000;

/// The first bytes of a hash: tells whether something was edited.
pub(super) type Fingerprint = [u8; 4];
/// The first bytes of the hash of its encoding: no gateway has so many that two would have the same.
pub(super) type Name = [u8; 8];

/// What a slot rests on.
#[derive(Debug)]
pub(super) struct Basis {
    /// None: several.
    pub metric: Option<Metric>,
    /// The rule as it last decided.
    pub rule: Decides,
    /// As what its episode was raised; without one, as what it would be.
    pub names: Arc<Names>,
    pub bytes: Vec<u8>,
}

impl Basis {
    pub(super) fn new(metric: Option<Metric>, rule: Decides, names: Arc<Names>) -> Self {
        Self {
            bytes: encode(&(&metric, &rule, &*names)),
            metric,
            rule,
            names,
        }
    }

    /// What was written.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (metric, rule, names): (_, _, Names) = decode(bytes)?;
        Some(Self {
            metric,
            rule,
            names: Arc::new(names),
            // As it stands there: a later version may write more.
            bytes: bytes.to_vec(),
        })
    }

    /// What tells it.
    pub(super) fn name(&self) -> Name {
        digest(&self.bytes)
    }

    /// The same of an episode that was raised as something else.
    pub(super) fn with(&self, names: &Arc<Names>) -> Self {
        Self::new(self.metric.clone(), self.rule.clone(), Arc::clone(names))
    }
}

/// A rule as it decides: tells an edited rule, and speaks for a removed one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Decides {
    /// Without what would not fit: first labels and runbook, which only decorate, then the numbers.
    pub facts: Arc<RuleFacts>,
    /// Of what it judges values by.
    pub judges: Fingerprint,
    /// Of its `unless`.
    asks: Fingerprint,
}

impl Decides {
    pub(super) fn new(facts: &Arc<RuleFacts>) -> Self {
        let unless = ["unless", "unless_after_s"].map(|key| facts.params.get(key));
        let mut decides = Self {
            facts: Arc::clone(facts),
            judges: digest(&encode(&judged_by(&facts.params))),
            asks: digest(&encode(&unless)),
        };
        if encode(&decides).len() <= MAX_FACTS {
            return decides;
        }
        let facts = Arc::make_mut(&mut decides.facts);
        facts.labels.clear();
        facts.runbook = None;
        if encode(&decides).len() > MAX_FACTS {
            Arc::make_mut(&mut decides.facts).params.clear();
        }
        decides
    }

    /// Whether its `unless` asks what the other's does.
    pub(super) fn asks_as(&self, other: &Self) -> bool {
        self.asks == other.asks
    }
}

fn digest<const LEN: usize>(bytes: &[u8]) -> [u8; LEN] {
    let whole = Sha256::digest(bytes);
    std::array::from_fn(|place| whole.get(place).copied().unwrap_or_default())
}

/// The key of the one with this name.
pub(super) fn key(name: Name) -> Vec<u8> {
    let digits = name.iter().map(|byte| format!("{byte:02x}"));
    digits.fold(PREFIX.to_owned(), |key, digits| key + &digits).into()
}

/// Which of them the disk has.
#[derive(Debug, Default)]
pub(super) struct Bases {
    /// Of each plan, by its number.
    plans: Vec<(Name, Kept)>,
    /// Plans whose basis is decided and not committed.
    offered: Vec<u32>,
    /// Of no plan that there is: slots may rest on them that nothing has changed since, or the plan is yet to come.
    others: HashSet<Name>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kept {
    #[default]
    No,
    Offered,
    Yes,
}

impl Kept {
    fn of(is_kept: bool) -> Self {
        if is_kept { Self::Yes } else { Self::No }
    }
}

impl Bases {
    /// Takes note of the next plan.
    pub(super) fn add(&mut self, plan: &Plan) {
        let name = plan.basis.name();
        let kept = Kept::of(self.others.remove(&name));
        self.plans.push((name, kept));
    }

    /// All that was decided is on its way to the disk.
    pub(super) fn committed(&mut self) {
        self.settle(Kept::Yes);
    }

    /// Nobody knows what of it is.
    pub(super) fn refused(&mut self) {
        self.settle(Kept::No);
    }

    fn settle(&mut self, is: Kept) {
        // Thousands at once are rare: their room is given back.
        for plan in std::mem::take(&mut self.offered) {
            if let Some((_, kept)) = self.plans.get_mut(plan as usize) {
                *kept = is;
            }
        }
    }
}

impl Engine {
    /// What a slot of this plan may name its basis by in this commit; none if the slot must have it whole. Where it `begins`
    /// there, the basis is added to the commit, if need be: no slot that goes on shall be refused for want of its room.
    pub(super) fn offers_basis(&mut self, plan: u32, begins: bool, out: &mut Outcome) -> Option<Name> {
        let (name, kept) = self.bases.plans.get_mut(plan as usize)?;
        if *kept == Kept::Yes {
            return Some(*name);
        }
        if !begins {
            return None;
        }
        if *kept == Kept::No {
            *kept = Kept::Offered;
            self.bases.offered.push(plan);
        }
        let (name, key) = (*name, key(*name));
        // Offered is not accepted: each commit that needs it has it.
        let (_, begun) = out.cuts.last().copied().unwrap_or_default();
        let has_it = |change: &StateChange| change.key == key && change.value.is_some();
        if !out.state.iter().skip(begun).any(has_it) {
            let value = Some(self.plans[plan].basis.bytes.clone());
            out.state.push(StateChange { key, value });
        }
        Some(name)
    }

    /// What goes on rests on bases that the disk lacks after an edit, an upgrade or damage. They are added, each apart
    /// from all else: where there is no room for one, its slots have it whole.
    pub(super) fn offer_bases(&mut self, out: &mut Outcome) {
        let goes_on = |slot: &&Slot| !slot.is_plain(self.now) && self.rests_on_plan(slot);
        let plans: BTreeSet<u32> = self.slots.iter().filter(goes_on).map(|slot| slot.plan).collect();
        out.may_end();
        for plan in plans {
            self.offers_basis(plan, true, out);
            out.may_end();
        }
    }

    /// Whether its plan's basis is the slot's: its episode, if it has one, was raised as the plan would raise it.
    pub(super) fn rests_on_plan(&self, slot: &Slot) -> bool {
        let of_plan = &self.plans[slot.plan].basis.names;
        slot.episode()
            .is_none_or(|episode| Arc::ptr_eq(&episode.names, of_plan))
    }

    /// The disk has these, and slots rest on them.
    pub(super) fn take_bases(&mut self, bases: HashSet<Name>) {
        self.bases.others = bases;
        for (name, kept) in &mut self.bases.plans {
            *kept = Kept::of(self.bases.others.remove(name));
        }
    }

    /// What the disk has of them; what is not committed yet may be missing on it, and is taken for so.
    pub(super) fn kept_bases(&mut self) -> HashSet<Name> {
        self.bases.refused();
        let mut all = std::mem::take(&mut self.bases.others);
        let kept = self.bases.plans.iter().filter(|(_, kept)| *kept == Kept::Yes);
        all.extend(kept.map(|(name, _)| *name));
        all
    }
}

/// The name in a key; none if it is another key.
pub(super) fn parse_key(key: &[u8]) -> Option<Name> {
    let digits = std::str::from_utf8(key).ok()?.strip_prefix(PREFIX)?;
    let number = u64::from_str_radix(digits, 16)
        .ok()
        .filter(|_| digits.len() == 16)?;
    Some(number.to_be_bytes())
}
