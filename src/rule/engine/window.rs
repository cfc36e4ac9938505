//! A sliding window of event time: the readings of (t - over, t].
//!
//! It keeps every reading, up to `window-max`. Beyond that it keeps summaries of neighbours, a quarter of
//! `window-max` of them: mean, sum, count and delta are then approximate (the oldest summary counts in proportion
//! to how much of it is still inside), while the smallest and the largest stay exact as long as the values that may
//! yet become it are `window-max` or fewer. Everything is computed anew from what is kept, so a window that was
//! saved and read back says the same as one that never was.

use std::{collections::VecDeque, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    rule::{Aggregate, Sliding},
    time::EngineTime,
};

/// How much of a window one saved state holds: 20 bytes a reading or a step, 50 a summary.
const MOST_SAMPLES: usize = 96;
const MOST_BUCKETS: usize = 24;
const MOST_STEPS: usize = 96;
/// How many candidates for the extreme one summary keeps.
const STEPS_OF_BUCKET: usize = 64;

/// One window of one rule on one device.
#[derive(Debug, Default)]
pub(super) struct Window {
    kept: Kept,
    /// Time went on to here: it never goes back in a window.
    passed: EngineTime,
    pub(super) log: Log,
}

#[derive(Debug)]
enum Kept {
    Each(VecDeque<Sample>),
    Summed(Box<Summed>),
}

/// When and what.
pub(super) type Sample = (EngineTime, f64);

#[derive(Debug, Default)]
struct Summed {
    buckets: VecDeque<Bucket>,
    /// The values that are, or may yet become, the extreme: each is overtaken by none after it.
    steps: VecDeque<Sample>,
}

/// Neighbouring readings as one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "BucketRow", into = "BucketRow")]
pub(super) struct Bucket {
    pub from: EngineTime,
    pub to: EngineTime,
    pub count: u32,
    pub sum: f64,
    pub first: f64,
    pub last: f64,
}

/// As it is saved.
type BucketRow = (EngineTime, EngineTime, u32, f64, f64, f64);

impl From<BucketRow> for Bucket {
    fn from((from, to, count, sum, first, last): BucketRow) -> Self {
        Self {
            from,
            to,
            count,
            sum,
            first,
            last,
        }
    }
}

impl From<Bucket> for BucketRow {
    fn from(bucket: Bucket) -> Self {
        (
            bucket.from,
            bucket.to,
            bucket.count,
            bucket.sum,
            bucket.first,
            bucket.last,
        )
    }
}

/// What of it is saved, so that only what was added is written.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// The saved chunks, oldest first.
    pub chunks: VecDeque<Chunk>,
    /// How many of the newest readings or summaries are in none of them.
    pub unsaved: usize,
    /// Chunks whose readings were summed up: to be removed.
    pub void: Vec<u32>,
}

/// A saved run of readings or summaries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk {
    pub number: u32,
    pub newest: EngineTime,
    pub len: usize,
}

/// What the log writes: exactly one of the two lists, and the steps that belong to the second.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Extract {
    pub samples: Vec<Sample>,
    pub buckets: Vec<Bucket>,
    pub steps: Vec<Sample>,
    /// How far time had gone on in a window that keeps summaries: the oldest counts by it.
    pub passed: Option<EngineTime>,
}

/// What an event says about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Extent {
    pub count: u64,
    pub span: Duration,
    pub approximate: bool,
}

impl Log {
    /// The newest summary is saved, but not as it is now.
    fn reopen(&mut self) {
        if self.unsaved == 0 {
            self.unsaved = 1;
            if let Some(chunk) = self.chunks.back_mut() {
                chunk.len = chunk.len.saturating_sub(1);
            }
        }
    }

    /// Whether the disk has all of it.
    pub(super) fn is_saved(&self) -> bool {
        self.unsaved == 0 && self.void.is_empty()
    }

    /// All that is saved of it.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> {
        let chunks = self.chunks.iter().map(|chunk| chunk.number);
        self.void.iter().copied().chain(chunks)
    }
}

impl Default for Kept {
    fn default() -> Self {
        Self::Each(VecDeque::new())
    }
}

impl Window {
    /// Takes a reading.
    pub(super) fn enter(&mut self, spec: &Sliding, at: EngineTime, value: f64) {
        self.pass(spec, at);
        let at = self.newest().map_or(at, |newest| at.max(newest));
        if let Kept::Each(samples) = &self.kept
            && samples.len() >= spec.max.max(1)
        {
            self.sum_up(spec);
        }
        match &mut self.kept {
            Kept::Each(samples) => {
                samples.push_back((at, value));
                self.log.unsaved = self.log.unsaved.saturating_add(1);
            }
            Kept::Summed(summed) => {
                if summed.add(spec, at, value) {
                    self.log.unsaved = self.log.unsaved.saturating_add(1);
                } else {
                    self.log.reopen();
                }
            }
        }
    }

    /// Lets time go on: what is too old leaves.
    pub(super) fn pass(&mut self, spec: &Sliding, at: EngineTime) {
        if self.is_empty() {
            self.passed = at;
            return;
        }
        self.passed = self.passed.max(at);
        let left = |sample: EngineTime| sample.after(spec.over) <= self.passed;
        match &mut self.kept {
            Kept::Each(samples) => {
                while samples.front().is_some_and(|(at, _)| left(*at)) {
                    samples.pop_front();
                }
            }
            Kept::Summed(summed) => {
                while summed.buckets.front().is_some_and(|bucket| left(bucket.to)) {
                    summed.buckets.pop_front();
                }
                while summed.steps.front().is_some_and(|(at, _)| left(*at)) {
                    summed.steps.pop_front();
                }
                if summed.buckets.is_empty() {
                    self.kept = Kept::default();
                }
            }
        }
        self.log.unsaved = self.log.unsaved.min(self.len());
    }

    /// When something leaves next.
    pub(super) fn leaves(&self, spec: &Sliding) -> Option<EngineTime> {
        let oldest = match &self.kept {
            Kept::Each(samples) => samples.front()?.0,
            Kept::Summed(summed) => {
                let oldest = summed.buckets.front()?.to;
                summed.steps.front().map_or(oldest, |(at, _)| oldest.min(*at))
            }
        };
        Some(oldest.after(spec.over))
    }

    /// What it says; none if it has fewer readings than `window-min`, or none at all, or if they make no finite
    /// number: two readings of 1e308 have no sum.
    pub(super) fn value(&self, spec: &Sliding) -> Option<f64> {
        let count = self.extent(spec).count;
        if count == 0 || count < spec.min as u64 {
            return None;
        }
        let value = match &self.kept {
            Kept::Each(samples) => of_each(spec.of, samples),
            Kept::Summed(summed) => summed.value(spec, self.passed),
        };
        value.filter(|value| value.is_finite())
    }

    /// How much is in it.
    pub(super) fn extent(&self, spec: &Sliding) -> Extent {
        match &self.kept {
            Kept::Each(samples) => Extent {
                count: samples.len() as u64,
                span: match (samples.front(), samples.back()) {
                    (Some((oldest, _)), Some((newest, _))) => newest.since(*oldest),
                    _ => Duration::ZERO,
                },
                approximate: false,
            },
            Kept::Summed(summed) => summed.extent(spec, self.passed),
        }
    }

    /// What fits a saved state of the readings or summaries after the first `skip`.
    pub(super) fn extract(&self, skip: usize) -> Extract {
        let mut extract = Extract::default();
        match &self.kept {
            Kept::Each(samples) => extract
                .samples
                .extend(samples.iter().skip(skip).take(MOST_SAMPLES)),
            Kept::Summed(summed) => {
                extract.passed = Some(self.passed);
                for bucket in summed.buckets.iter().skip(skip).take(MOST_BUCKETS) {
                    let steps = summed.steps_within(bucket.from, bucket.to);
                    let full = extract.steps.len() + steps.len() > MOST_STEPS;
                    if full && !extract.buckets.is_empty() {
                        break;
                    }
                    extract.buckets.push(*bucket);
                    extract.steps.extend(steps);
                }
            }
        }
        extract
    }

    /// Takes back what [`Window::extract`] gave, oldest first. Nothing of it is unsaved, unless this says true: then
    /// readings have become summaries, and what was saved is not what it keeps.
    pub(super) fn take_back(&mut self, spec: &Sliding, extract: Extract) -> bool {
        let had_readings = !self.is_summed() && !self.is_empty();
        let takes_readings = !extract.samples.is_empty();
        for (at, value) in extract.samples {
            self.enter(spec, at, value);
        }
        if let Some(first) = extract.buckets.first().copied() {
            self.sum_up(spec);
            if let Kept::Summed(summed) = &mut self.kept {
                while summed
                    .buckets
                    .back()
                    .is_some_and(|bucket| bucket.from >= first.from)
                {
                    summed.buckets.pop_back();
                }
                while summed.steps.back().is_some_and(|(at, _)| *at >= first.from) {
                    summed.steps.pop_back();
                }
                summed.buckets.extend(extract.buckets);
                summed.steps.extend(extract.steps);
                if let Some(newest) = summed.buckets.back() {
                    self.passed = self.passed.max(newest.to);
                }
            }
        }
        self.passed = self.passed.max(extract.passed.unwrap_or(self.passed));
        self.log.unsaved = 0;
        self.is_summed() && (had_readings || takes_readings)
    }

    /// Nothing that is saved of it counts any more.
    pub(super) fn save_anew(&mut self) {
        self.log
            .void
            .extend(self.log.chunks.drain(..).map(|chunk| chunk.number));
        self.log.unsaved = self.len();
    }

    /// Saves with the next run what has changed without a reading.
    pub(super) fn reopen(&mut self) {
        if self.is_summed() {
            self.log.reopen();
        }
    }

    /// Readings or summaries.
    pub(super) fn len(&self) -> usize {
        match &self.kept {
            Kept::Each(samples) => samples.len(),
            Kept::Summed(summed) => summed.buckets.len(),
        }
    }

    /// Whether it keeps summaries.
    pub(super) fn is_summed(&self) -> bool {
        matches!(self.kept, Kept::Summed(_))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// When the oldest reading or summary began.
    pub(super) fn oldest(&self) -> Option<EngineTime> {
        match &self.kept {
            Kept::Each(samples) => samples.front().map(|(at, _)| *at),
            Kept::Summed(summed) => summed.buckets.front().map(|bucket| bucket.from),
        }
    }

    /// When the newest reading came.
    pub(super) fn newest(&self) -> Option<EngineTime> {
        match &self.kept {
            Kept::Each(samples) => samples.back().map(|(at, _)| *at),
            Kept::Summed(summed) => summed.buckets.back().map(|bucket| bucket.to),
        }
    }

    /// From now on it keeps summaries.
    fn sum_up(&mut self, spec: &Sliding) {
        let Kept::Each(samples) = &mut self.kept else {
            return;
        };
        let mut summed = Summed::default();
        for (at, value) in std::mem::take(samples) {
            summed.add(spec, at, value);
        }
        self.log.unsaved = summed.buckets.len();
        self.log
            .void
            .extend(self.log.chunks.drain(..).map(|chunk| chunk.number));
        self.kept = Kept::Summed(Box::new(summed));
    }
}

fn of_each(of: Aggregate, samples: &VecDeque<Sample>) -> Option<f64> {
    let values = || samples.iter().map(|(_, value)| *value);
    let newest = samples.back()?.1;
    let count = precise(samples.len());
    Some(match of {
        Aggregate::Mean => values().sum::<f64>() / count,
        Aggregate::Sum => values().sum(),
        Aggregate::Count => count,
        Aggregate::Min => values().fold(newest, f64::min),
        Aggregate::Max => values().fold(newest, f64::max),
        Aggregate::Delta => newest - samples.front()?.1,
        Aggregate::Rise => newest - values().fold(newest, f64::min),
        Aggregate::Fall => values().fold(newest, f64::max) - newest,
    })
}

impl Summed {
    /// Adds a reading; true if it began a summary.
    fn add(&mut self, spec: &Sliding, at: EngineTime, value: f64) -> bool {
        self.step(spec, at, value);
        let buckets = u32::try_from(spec.max / 4).unwrap_or(u32::MAX).max(1);
        let width = spec.over / buckets;
        if let Some(bucket) = self.buckets.back_mut()
            && at < bucket.from.after(width)
        {
            bucket.to = at;
            bucket.count = bucket.count.saturating_add(1);
            bucket.sum += value;
            bucket.last = value;
            return false;
        }
        self.buckets.push_back(Bucket {
            from: at,
            to: at,
            count: 1,
            sum: value,
            first: value,
            last: value,
        });
        true
    }

    fn step(&mut self, spec: &Sliding, at: EngineTime, value: f64) {
        let overtakes: fn(f64, f64) -> bool = match spec.of {
            Aggregate::Min | Aggregate::Rise => |new, old| new <= old,
            Aggregate::Max | Aggregate::Fall => |new, old| new >= old,
            Aggregate::Mean | Aggregate::Sum | Aggregate::Count | Aggregate::Delta => return,
        };
        while self.steps.back().is_some_and(|(_, old)| overtakes(value, *old)) {
            self.steps.pop_back();
        }
        self.steps.push_back((at, value));
        let begun = self.buckets.back().map_or(at, |bucket| bucket.from);
        let before = self.steps.partition_point(|(at, _)| *at < begun);
        if self.steps.len() - before > STEPS_OF_BUCKET {
            self.thin(before);
        }
        if self.steps.len() > spec.max.max(2) {
            self.thin(0);
        }
    }

    /// A ramp of more readings than may be kept: of two neighbours the more extreme stays, and stays as long as the
    /// other would have.
    fn thin(&mut self, from: usize) {
        let all: Vec<Sample> = self.steps.drain(from..).collect();
        let halved = all
            .chunks(2)
            .filter_map(|pair| match (pair.first(), pair.last()) {
                (Some((_, extreme)), Some((until, _))) => Some((*until, *extreme)),
                _ => None,
            });
        self.steps.extend(halved);
    }

    fn steps_within(&self, from: EngineTime, to: EngineTime) -> Vec<Sample> {
        let inside = |step: &&Sample| from <= step.0 && step.0 <= to;
        self.steps.iter().filter(inside).copied().collect()
    }

    /// How much of the oldest summary is inside: all of it, or what lies after the window's edge.
    fn share(&self, spec: &Sliding, passed: EngineTime) -> f64 {
        let Some(oldest) = self.buckets.front() else {
            return 1.0;
        };
        let whole = oldest.to.since(oldest.from);
        // The edge is as far before the oldest summary's end as its end is from leaving.
        let inside = oldest.to.after(spec.over).since(passed);
        if whole.is_zero() || inside >= whole {
            1.0
        } else {
            inside.as_secs_f64() / whole.as_secs_f64()
        }
    }

    fn count(&self, share: f64) -> f64 {
        let mut buckets = self.buckets.iter().map(|bucket| f64::from(bucket.count));
        let oldest = buckets.next().unwrap_or(0.0);
        oldest * share + buckets.sum::<f64>()
    }

    fn sum(&self, share: f64) -> f64 {
        let mut buckets = self.buckets.iter().map(|bucket| bucket.sum);
        let oldest = buckets.next().unwrap_or(0.0);
        oldest * share + buckets.sum::<f64>()
    }

    fn value(&self, spec: &Sliding, passed: EngineTime) -> Option<f64> {
        let share = self.share(spec, passed);
        let newest = self.buckets.back()?.last;
        let extreme = || self.steps.front().map(|(_, value)| *value);
        Some(match spec.of {
            Aggregate::Mean => self.sum(share) / self.count(share),
            Aggregate::Sum => self.sum(share),
            Aggregate::Count => self.count(share).round(),
            Aggregate::Min | Aggregate::Max => extreme()?,
            Aggregate::Delta => newest - self.buckets.front()?.first,
            Aggregate::Rise => newest - extreme()?,
            Aggregate::Fall => extreme()? - newest,
        })
    }

    fn extent(&self, spec: &Sliding, passed: EngineTime) -> Extent {
        let share = self.share(spec, passed);
        let whole = match (self.buckets.front(), self.buckets.back()) {
            (Some(oldest), Some(newest)) => newest.to.since(oldest.from),
            _ => Duration::ZERO,
        };
        Extent {
            count: rounded(self.count(share)),
            span: whole.min(spec.over),
            approximate: self.buckets.iter().any(|bucket| bucket.count > 1),
        }
    }
}

/// A count as a number: exact below 2^53.
fn precise(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a sum of counts is not negative, and `as` saturates"
)]
fn rounded(count: f64) -> u64 {
    count.round() as u64
}
