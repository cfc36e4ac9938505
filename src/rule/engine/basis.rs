//! What a slot rests on and no reading changes: the rule as it decides, and as what its episodes are raised. A slot is
//! written at every change and these are most of it, so the disk has them once, in the commit of the first raise or hold
//! that rests on them, and the slots have their name.

use std::{collections::HashMap, sync::Arc};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    Engine,
    latch::Names,
    plan::Plan,
    saved::{decode, encode, forget},
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
    pub name: Name,
}

impl Basis {
    pub(super) fn new(metric: Option<Metric>, rule: Decides, names: Arc<Names>) -> Self {
        let bytes = encode(&(&metric, &rule, &*names));
        Self::of(bytes, (metric, rule, names))
    }

    fn of(bytes: Vec<u8>, (metric, rule, names): (Option<Metric>, Decides, Arc<Names>)) -> Self {
        Self {
            metric,
            rule,
            names,
            name: digest(&bytes),
            bytes,
        }
    }

    /// What was written.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (metric, rule, names): (_, _, Names) = decode(bytes)?;
        // As it stands there: a later version may write more.
        Some(Self::of(bytes.to_vec(), (metric, rule, Arc::new(names))))
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

fn key(name: Name) -> Vec<u8> {
    let digits = name.iter().map(|byte| format!("{byte:02x}"));
    digits.fold(PREFIX.to_owned(), |key, digits| key + &digits).into()
}

/// Which of them the disk has.
#[derive(Debug, Default)]
pub(super) struct Bases {
    /// Of each plan, by its number.
    plans: Vec<Kept>,
    /// Plans whose basis is decided and not committed.
    offered: Vec<u32>,
    /// Of no plan that there is: slots may rest on them that nothing has changed since, or the plan is yet to come.
    others: HashMap<Name, Vec<u8>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kept {
    #[default]
    No,
    Offered,
    Yes,
}

impl Bases {
    /// Takes note of the next plan.
    pub(super) fn add(&mut self, plan: &Plan) {
        let kept = self.claim(&plan.basis);
        self.plans.push(kept);
    }

    fn claim(&mut self, basis: &Basis) -> Kept {
        if self.others.get(&basis.name) != Some(&basis.bytes) {
            return Kept::No;
        }
        self.others.remove(&basis.name);
        Kept::Yes
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
            if let Some(kept) = self.plans.get_mut(plan as usize) {
                *kept = is;
            }
        }
    }
}

impl Engine {
    /// Whether a slot of this plan may name its basis in this commit. Where it `begins` there the basis is added to it, if
    /// need be. What goes on has it whole until then: no more room is needed than is known to be there.
    pub(super) fn offers_basis(&mut self, plan: u32, begins: bool, out: &mut Outcome) -> bool {
        let Some(kept) = self.bases.plans.get_mut(plan as usize) else {
            return false;
        };
        let basis = &self.plans[plan].basis;
        if *kept == Kept::Yes {
            return true;
        }
        // Another's, by a chance that nobody will meet.
        if !begins || self.bases.others.contains_key(&basis.name) {
            return false;
        }
        if *kept == Kept::No {
            *kept = Kept::Offered;
            self.bases.offered.push(plan);
        }
        let key = key(basis.name);
        // Offered is not accepted: each commit that needs it has it.
        let (_, begun) = out.cuts.last().copied().unwrap_or_default();
        if !out.state.iter().skip(begun).any(|change| change.key == key) {
            let value = Some(basis.bytes.clone());
            out.state.push(StateChange { key, value });
        }
        true
    }

    /// The disk has these.
    pub(super) fn take_bases(&mut self, bases: HashMap<Name, Vec<u8>>) {
        self.bases.others = bases;
        for number in 0..self.plans.len() {
            let claimed = self.bases.claim(&self.plans[number].basis);
            if let Some(kept) = self.bases.plans.get_mut(number as usize) {
                *kept = claimed;
            }
        }
    }

    /// What the disk has of them; what is not committed yet may be missing on it, and is taken for so.
    pub(super) fn kept_bases(&mut self) -> HashMap<Name, Vec<u8>> {
        self.bases.refused();
        let mut all = std::mem::take(&mut self.bases.others);
        for (plan, kept) in self.plans.iter().zip(&self.bases.plans) {
            if *kept == Kept::Yes {
                all.insert(plan.basis.name, plan.basis.bytes.clone());
            }
        }
        all
    }

    /// Forgets those that are no plan's and on which no slot rested: `rested` are the others.
    pub(super) fn drop_bases(&mut self, rested: &std::collections::HashSet<Name>, out: &mut Outcome) {
        let gone = self.bases.others.extract_if(|name, _| !rested.contains(name));
        for (name, _) in gone {
            out.state.push(forget(&key(name)));
            out.may_end();
        }
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
