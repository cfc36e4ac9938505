//! What stands against raising, for whole rules and devices: periods and mutes.
//!
//! Periods follow the wall clock, which may jump. The state is looked at anew when the next change is due by what
//! the wall clock said last, and at once when a new [`Moment`] says that it no longer fits; nothing polls.

use std::{collections::BTreeMap, sync::Arc};

use super::{MuteTarget, latch::NO_DEADLINE};
use crate::{
    event::Reason,
    rule::{Period, Rule},
    time::{ClockQuality, EngineTime, Moment, Timestamp},
};

/// Periods and mutes.
#[derive(Debug, Default)]
pub(super) struct Hushes {
    periods: Vec<Timed>,
    /// By the rule's place.
    rules: Vec<OfRule>,
    pub mutes: BTreeMap<MuteTarget, Muted>,
    /// When the first of them ends.
    unmutes: EngineTime,
    /// When to look at the periods again.
    due: EngineTime,
    /// Both clocks were told last, so nothing changed before.
    told: EngineTime,
    vouched: bool,
}

/// A wall clock that is disciplined trembles: so much back is no jump.
const TREMBLE: i64 = 2_000_000;

/// A period that does not change so soon is looked at again then: 700 days, fewer than [`Period::next_change`] sees.
const LOOK_AGAIN: i64 = 700 * 86_400_000_000;

/// A period and what is known of it.
#[derive(Debug)]
struct Timed {
    period: Arc<Period>,
    inside: bool,
    /// From then until its next change this holds.
    known_from: Timestamp,
    next: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct OfRule {
    /// Into `periods`.
    during: Vec<usize>,
    out: bool,
    muted: bool,
}

/// A mute that goes on.
#[derive(Clone, Debug)]
pub(super) struct Muted {
    pub number: u64,
    pub until: EngineTime,
    pub reason: Arc<str>,
}

impl Hushes {
    pub(super) fn new(rules: &[Arc<Rule>], now: &Moment) -> Self {
        let mut hushes = Self {
            due: NO_DEADLINE,
            unmutes: NO_DEADLINE,
            told: now.boot,
            vouched: is_vouched(now),
            ..Self::default()
        };
        for rule in rules {
            let during = rule.during.iter().map(|period| hushes.place(period)).collect();
            hushes.rules.push(OfRule {
                during,
                ..OfRule::default()
            });
        }
        hushes
    }

    fn place(&mut self, period: &Arc<Period>) -> usize {
        let known = self.periods.iter().position(|timed| timed.period == *period);
        known.unwrap_or_else(|| {
            self.periods.push(Timed {
                period: Arc::clone(period),
                inside: true,
                known_from: Timestamp(i64::MAX),
                next: None,
            });
            self.periods.len() - 1
        })
    }

    /// What stands against a raise of the rule.
    pub(super) fn of_rule(&self, rule: u32) -> Option<Reason> {
        let of_rule = self.rules.get(rule as usize)?;
        if of_rule.muted {
            Some(Reason::Muted)
        } else if of_rule.out {
            Some(Reason::OutOfPeriod)
        } else {
            None
        }
    }

    /// When [`Hushes::turn`] must be called.
    pub(super) fn next(&self) -> EngineTime {
        self.due.min(self.unmutes)
    }

    /// Begins a mute, or gives it another end.
    pub(super) fn mute(&mut self, target: MuteTarget, muted: Muted) {
        self.mutes.insert(target, muted);
        self.find_first_end();
    }

    /// Ends a mute.
    pub(super) fn unmute(&mut self, target: &MuteTarget) -> Option<Muted> {
        let ended = self.mutes.remove(target);
        self.find_first_end();
        ended
    }

    /// Takes the mutes of another configuration.
    pub(super) fn inherit(&mut self, before: &mut Self) {
        self.mutes = std::mem::take(&mut before.mutes);
        self.find_first_end();
    }

    fn find_first_end(&mut self) {
        let ends = self.mutes.values().map(|muted| muted.until);
        self.unmutes = ends.min().unwrap_or(NO_DEADLINE);
    }

    /// Both clocks, now: notices a wall clock that is not where it was thought to be.
    pub(super) fn set_moment(&mut self, moment: &Moment) {
        if self.periods.is_empty() {
            return;
        }
        let went_back = |timed: &Timed| moment.wall.0 < timed.known_from.0.saturating_sub(TREMBLE);
        if self.vouched != is_vouched(moment) || (self.vouched && self.periods.iter().any(went_back)) {
            self.due = moment.boot;
        } else if self.due > self.told {
            // By a clock that jumped forward it may have been due long ago, which nobody knew then.
            self.due = self.change(moment).max(self.told);
        }
        self.told = moment.boot;
    }

    /// When the first period changes, by these clocks.
    fn change(&self, moment: &Moment) -> EngineTime {
        if !self.vouched {
            return NO_DEADLINE;
        }
        let changes = self.periods.iter().filter_map(|timed| timed.next);
        changes
            .map(|next| moment.boot.shifted(next.0.saturating_sub(moment.wall.0)))
            .min()
            .unwrap_or(NO_DEADLINE)
    }

    /// Looks at the wall clock, if that is due; says which rules are now outside, or inside again.
    pub(super) fn turn(&mut self, moment: &Moment) -> Vec<(u32, bool)> {
        if self.due > moment.boot {
            return Vec::new();
        }
        self.look(moment)
    }

    pub(super) fn look(&mut self, moment: &Moment) -> Vec<(u32, bool)> {
        self.vouched = is_vouched(moment);
        for timed in &mut self.periods {
            // Nobody knows what time it is: an alarm too many is better than one too few.
            timed.inside = !self.vouched || timed.period.contains(moment.wall);
            timed.known_from = moment.wall;
            let next = timed.period.next_change(moment.wall);
            let later = Timestamp(moment.wall.0.saturating_add(LOOK_AGAIN));
            timed.next = next.or_else(|| timed.period.season.map(|_| later));
        }
        self.due = self.change(moment);
        let mut changed = Vec::new();
        for (rule, number) in self.rules.iter_mut().zip(0..) {
            let mut inside = rule.during.iter().filter_map(|index| self.periods.get(*index));
            let out = !rule.during.is_empty() && !inside.any(|timed| timed.inside);
            if out != rule.out {
                rule.out = out;
                changed.push((number, out));
            }
        }
        changed
    }

    pub(super) fn set_muted(&mut self, rule: u32, muted: bool) {
        if let Some(rule) = self.rules.get_mut(rule as usize) {
            rule.muted = muted;
        }
    }

    /// A mute that has ended by `now`.
    pub(super) fn ended(&self, now: EngineTime) -> Option<MuteTarget> {
        let ended = self.mutes.iter().find(|(_, muted)| muted.until <= now);
        ended.map(|(target, _)| target.clone())
    }
}

fn is_vouched(moment: &Moment) -> bool {
    moment.quality != ClockQuality::Unknown
}
