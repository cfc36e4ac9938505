//! A slot as it was written before: what it rests on in every slot, and names of enumerations. Read, never written.

use std::sync::Arc;

use serde::Deserialize;

use super::SavedSlot;
use crate::{
    event::Epoch,
    reading::Metric,
    rule::engine::{
        basis::{Basis, Fingerprint},
        latch::{self, Latch},
        saved::{WatchState, decode},
    },
    time::{BootId, ClockQuality, EngineTime, Moment, Timestamp},
};

/// What stands behind the array's first byte.
pub(super) const FORM: u8 = 2;

type Stored = (
    u8,
    (BootId, EngineTime, Timestamp, ClockQuality),
    (Epoch, Option<Metric>, Vec<u8>),
    (Life, EngineTime, EngineTime),
    Option<WatchState>,
    Option<EngineTime>,
    Option<(bool, EngineTime)>,
);

#[derive(Deserialize)]
enum Life {
    Normal,
    Pending(Run),
    Active(Episode, Terms),
    Clearing(Episode, Terms),
}

/// Since, smallest, largest, readings.
type Run = (EngineTime, f64, f64, u64);
/// Number, run, raised and said at, reminders, flaps, names.
type Episode = (u64, Run, EngineTime, EngineTime, u32, u32, Vec<u8>);
/// Judged by, throttled.
type Terms = (Option<Fingerprint>, bool);

/// None: it is something else.
pub(super) fn read(bytes: &[u8]) -> Option<SavedSlot> {
    let (_, at, (epoch, metric, rule), (life, paid, entered), watch, heard, unless): Stored = decode(bytes)?;
    let (boot_id, boot, wall, quality) = at;
    let latch = match life {
        Life::Normal => Latch::Normal,
        Life::Pending(since) => Latch::Pending(Box::new(run(since))),
        Life::Active(open, on) => Latch::Active(Box::new(episode(open)?), terms(on)),
        Life::Clearing(open, on) => Latch::Clearing(Box::new(episode(open)?), terms(on)),
    };
    let names = match &latch {
        Latch::Active(episode, _) | Latch::Clearing(episode, _) => Arc::clone(&episode.names),
        Latch::Normal | Latch::Pending(_) => Arc::default(),
    };
    Some(SavedSlot {
        at: Moment {
            boot_id,
            boot,
            wall,
            quality,
        },
        epoch,
        basis: Arc::new(Basis::new(metric, decode(&rule)?, names)),
        latch,
        paid,
        entered,
        watch,
        heard,
        unless,
    })
}

fn run((since, min, max, readings): Run) -> latch::Run {
    latch::Run {
        since,
        min,
        max,
        readings,
    }
}

fn episode((number, since, raised_at, said_at, reminders, flaps, names): Episode) -> Option<latch::Episode> {
    Some(latch::Episode {
        number,
        run: run(since),
        raised_at,
        said_at,
        reminders,
        flaps,
        names: Arc::new(decode(&names)?),
    })
}

fn terms((judged_by, throttled): Terms) -> latch::Terms {
    latch::Terms { judged_by, throttled }
}
