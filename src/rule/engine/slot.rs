//! A slot as the journal keeps it. It is written at every change, by rules that flap thousands of times an hour, and cards
//! wear out by bytes: fields have places instead of names, times count back from when it was saved, and what no reading
//! changes is its [`Basis`].

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    Engine,
    basis::{self, Basis, Fingerprint, Name},
    latch::{Episode, Latch, Run, Slot, Terms},
    saved::{WatchState, decode, encode, forget, move_by, shift, slot_key},
};
use crate::{
    event::{Ago, Epoch, Number},
    reading::Value,
    rule::{
        Condition,
        state::{Outcome, StateChange},
    },
    time::{BootId, ClockQuality, EngineTime, Moment, Timestamp},
};

mod form2;

/// What stands behind the array's first byte. Another form's slot cannot be read and is dropped: a later version wrote
/// it. Whoever changes what stands where gives it another number and reads this one, too.
const FORM: u8 = 3;
/// A reading may come with a stamp of its own that is so old, `max-clock-skew` by default: it asks how it was then.
const OLDEST_STAMP: Duration = Duration::from_mins(10);

/// One slot. Written complete on every change.
#[derive(Debug)]
pub(super) struct SavedSlot {
    pub at: Moment,
    pub epoch: Epoch,
    /// What it rested on when it was saved.
    pub basis: Arc<Basis>,
    pub latch: Latch,
    pub paid: EngineTime,
    pub entered: EngineTime,
    /// The last reading of its metric.
    pub watch: Option<WatchState>,
    /// What `silent-for` counts from; counts only after a clean stop.
    pub heard: Option<EngineTime>,
    /// Whether `unless` holds, and until when it counts.
    pub unless: Option<(bool, EngineTime)>,
}

/// As it is written.
#[derive(Serialize, Deserialize)]
struct Stored(
    u8,
    (BootId, EngineTime, Timestamp, Number<ClockQuality>),
    Epoch,
    /// Its name or, longer than that, all of it.
    #[serde(with = "bytes")]
    Vec<u8>,
    Life,
    Option<Since>,
    Option<Open>,
    Option<Watched>,
    Option<Ago>,
    Option<(bool, Ago)>,
);

/// Which latch, paid and entered.
type Life = (u8, Ago, Ago);
/// Since when, the smallest and the largest number unless both are the last one, how many readings.
type Since = (Ago, Option<(f64, f64)>, u64);
/// Number, raised and said at, reminders, flaps; the terms.
type Open = (u64, Ago, Ago, u32, u32, Option<Fingerprint>, bool);
/// A [`WatchState`].
type Watched = (
    Ago,
    Option<Value>,
    Option<f64>,
    Option<Arc<str>>,
    Option<(Ago, Value)>,
);

const NORMAL: u8 = 0;
const PENDING: u8 = 1;
const ACTIVE: u8 = 2;
const CLEARING: u8 = 3;

mod bytes {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        Vec::deserialize(deserializer)
    }
}

/// The bases that were read, and on which of them slots rest.
#[derive(Debug, Default)]
pub(super) struct ReadBases {
    named: BTreeMap<Name, Arc<Basis>>,
    rested: HashSet<Name>,
}

impl ReadBases {
    /// Takes note of one; none if it cannot be read.
    pub(super) fn add(&mut self, name: Name, bytes: &[u8]) -> Option<()> {
        // It is told by its name: one that was damaged has another.
        let basis = Basis::read(bytes).filter(|basis| basis.name() == name)?;
        self.named.insert(name, Arc::new(basis));
        Some(())
    }

    /// Those on which slots rest. The others are forgotten: a rule may never raise again, and writes its own if it does.
    pub(super) fn rested(mut self, out: &mut Outcome) -> HashSet<Name> {
        self.rested.retain(|name| self.named.contains_key(name));
        for name in self.named.into_keys().filter(|name| !self.rested.contains(name)) {
            out.state.push(forget(&basis::key(name)));
            out.may_end();
        }
        self.rested
    }

    fn find(
        &mut self,
        name_or_bytes: &[u8],
        of_plan: impl FnOnce() -> Option<Arc<Basis>>,
    ) -> Option<Arc<Basis>> {
        let Ok(name) = Name::try_from(name_or_bytes) else {
            return Basis::read(name_or_bytes).map(Arc::new);
        };
        self.rested.insert(name);
        // Many slots rest on one: it is not lost with a bad byte while the rule still says it.
        let named = self.named.get(&name).cloned();
        named.or_else(|| of_plan().filter(|basis| basis.name() == name))
    }
}

impl SavedSlot {
    /// As CBOR, with the name of its basis or with all of it.
    fn encoded(&self, basis: Option<Name>) -> Vec<u8> {
        let ago = |time| Ago::of(time, &self.at);
        let (state, run, open) = match &self.latch {
            Latch::Normal => (NORMAL, None, None),
            Latch::Pending(run) => (PENDING, Some(&**run), None),
            Latch::Active(episode, terms) => (ACTIVE, Some(&episode.run), Some((episode, terms))),
            Latch::Clearing(episode, terms) => (CLEARING, Some(&episode.run), Some((episode, terms))),
        };
        let last = last_number(self.watch.as_ref());
        let basis = basis.map_or_else(|| self.basis.bytes.clone(), |name| name.to_vec());
        encode(&Stored(
            FORM,
            (
                self.at.boot_id,
                self.at.boot,
                self.at.wall,
                Number(self.at.quality),
            ),
            self.epoch,
            basis,
            (state, ago(self.paid), ago(self.entered)),
            run.map(|run| {
                let is_last = [run.min, run.max]
                    .iter()
                    .all(|number| number.to_bits() == last.to_bits());
                (
                    ago(run.since),
                    (!is_last).then_some((run.min, run.max)),
                    run.readings,
                )
            }),
            open.map(|(episode, terms)| {
                (
                    episode.number,
                    ago(episode.raised_at),
                    ago(episode.said_at),
                    episode.reminders,
                    episode.flaps,
                    terms.judged_by,
                    terms.throttled,
                )
            }),
            self.watch.as_ref().map(|watch| {
                let stamp = watch.stamp.as_ref();
                (
                    ago(watch.seen),
                    watch.value.clone(),
                    watch.number,
                    watch.unit.clone(),
                    stamp.map(|(at, value)| (ago(*at), value.clone())),
                )
            }),
            self.heard.map(ago),
            self.unless.map(|(on, until)| (on, ago(until))),
        ))
    }

    /// What was written, by this version or one before. `of_plan` is what it would rest on if it were written now.
    pub(super) fn read(
        bytes: &[u8],
        bases: &mut ReadBases,
        of_plan: impl FnOnce() -> Option<Arc<Basis>>,
    ) -> Option<Self> {
        match bytes.get(1) {
            Some(&FORM) => {
                let stored: Stored = decode(bytes)?;
                let basis = bases.find(&stored.3, of_plan)?;
                Self::of(stored, basis)
            }
            Some(&form2::FORM) => form2::read(bytes),
            _ => None,
        }
    }

    fn of(stored: Stored, basis: Arc<Basis>) -> Option<Self> {
        let Stored(_, at, epoch, _, life, run, open, watch, heard, unless) = stored;
        let (boot_id, boot, wall, Number(quality)) = at;
        let at = Moment {
            boot_id,
            boot,
            wall,
            quality,
        };
        let time = |ago: Ago| ago.at(&at);
        let (state, paid, entered) = life;
        let watch = watch.map(|(seen, value, number, unit, stamp)| WatchState {
            seen: time(seen),
            value,
            number,
            unit,
            stamp: stamp.map(|(at, value)| (time(at), value)),
        });
        let last = last_number(watch.as_ref());
        let run = run.map(|(since, extremes, readings)| {
            let (min, max) = extremes.unwrap_or((last, last));
            Run {
                since: time(since),
                min,
                max,
                readings,
            }
        });
        let open = |run: Run| {
            let (number, raised_at, said_at, reminders, flaps, judged_by, throttled) = open?;
            let episode = Episode {
                number,
                run,
                raised_at: time(raised_at),
                said_at: time(said_at),
                reminders,
                flaps,
                names: Arc::clone(&basis.names),
            };
            let terms = Terms { judged_by, throttled };
            Some((Box::new(episode), terms))
        };
        let latch = match (state, run) {
            (NORMAL, None) => Latch::Normal,
            (PENDING, Some(run)) => Latch::Pending(Box::new(run)),
            (ACTIVE, Some(run)) => open(run).map(|(episode, terms)| Latch::Active(episode, terms))?,
            (CLEARING, Some(run)) => open(run).map(|(episode, terms)| Latch::Clearing(episode, terms))?,
            _ => return None,
        };
        Some(Self {
            at,
            epoch,
            basis,
            latch,
            paid: time(paid),
            entered: time(entered),
            watch,
            heard: heard.map(time),
            unless: unless.map(|(on, until)| (on, time(until))),
        })
    }

    /// Moves all times onto the boot clock of `now`; its boot is known up to `end`.
    pub(super) fn rebased(mut self, end: &Moment, now: &Moment) -> Self {
        let by = shift(end, now);
        match &mut self.latch {
            Latch::Normal => {}
            Latch::Pending(run) => move_by(&mut run.since, by),
            Latch::Active(episode, _) | Latch::Clearing(episode, _) => {
                for time in [
                    &mut episode.run.since,
                    &mut episode.raised_at,
                    &mut episode.said_at,
                ] {
                    move_by(time, by);
                }
            }
        }
        move_by(&mut self.paid, by);
        move_by(&mut self.entered, by);
        if let Some((_, until)) = &mut self.unless {
            move_by(until, by);
        }
        if let Some(watch) = &mut self.watch {
            watch.rebase(end, now);
        }
        self
    }
}

/// The number that a run of one reading has as its smallest and its largest.
fn last_number(watch: Option<&WatchState>) -> f64 {
    let number = watch.and_then(|watch| match watch.value {
        Some(Value::Number(number)) => Some(number),
        _ => watch.number,
    });
    number.unwrap_or(f64::NAN)
}

impl Slot {
    /// Whether nothing has to be remembered.
    pub(super) fn is_plain(&self, now: EngineTime) -> bool {
        let quiet = self.wide.as_ref().and_then(|wide| wide.unless.as_ref());
        let over = |time: EngineTime| time.after(OLDEST_STAMP) <= now;
        self.latch == Latch::Normal
            && over(self.paid)
            && quiet.is_none_or(|quiet| !quiet.on && over(quiet.until))
    }

    /// Whether it waits for a time, also where that is no deadline: a hold that periods stand against, a raise that is
    /// to be paid for. An open alarm that waits for nothing but a reading does not; its reminder is a deadline.
    pub(super) fn waits(&self, now: EngineTime) -> bool {
        let is_timed = match self.latch {
            Latch::Normal | Latch::Active(..) => self.paid > now,
            Latch::Pending(_) | Latch::Clearing(..) => true,
        };
        is_timed || (self.wide.is_some() && !self.is_plain(now))
    }
}

impl Engine {
    /// All that must be known of a slot.
    pub(super) fn keep_slot(&self, index: u32) -> SavedSlot {
        let slot = &self.slots[index];
        let plan = &self.plans[slot.plan];
        let wide = slot.wide.as_ref();
        SavedSlot {
            at: self.saved_at(),
            epoch: self.epoch,
            basis: match slot.episode() {
                Some(episode) if !self.rests_on_plan(slot) => Arc::new(plan.basis.with(&episode.names)),
                _ => Arc::clone(&plan.basis),
            },
            latch: slot.latch.clone(),
            paid: slot.paid,
            entered: slot.entered,
            watch: plan.condition.metric().map(|_| self.keep_watch(slot.watch)),
            heard: matches!(plan.condition, Condition::Silent { .. }).then_some(slot.heard),
            unless: wide
                .and_then(|wide| wide.unless.as_ref())
                .map(|quiet| (quiet.on, quiet.until)),
        }
    }

    /// Adds all of a slot to what is committed; whether it `begins` to be there with it.
    pub(super) fn put_slot(&mut self, index: u32, begins: bool, out: &mut Outcome) {
        let saved = self.keep_slot(index);
        let slot = &self.slots[index];
        let (plan, device) = (slot.plan, slot.device);
        let is_of_plan = Arc::ptr_eq(&saved.basis, &self.plans[plan].basis);
        let basis = is_of_plan.then(|| self.offers_basis(plan, begins, out)).flatten();
        out.state.push(StateChange {
            key: slot_key(&self.plans[plan].rule.name, &self.devices[device].about.device),
            value: Some(saved.encoded(basis)),
        });
    }
}
