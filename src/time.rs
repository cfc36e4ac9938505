//! The clocks: the only module that reads one.
//!
//! Timers run on the boot clock ([`EngineTime`]), which no operator and no time server can move. The wall
//! clock ([`Timestamp`]) is used only to render; a [`Moment`] carries both, so that a time can be
//! corrected once the wall clock is known to be right ([`KnownBoot`]). Boards have no battery-backed clock.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

mod clock;
mod simulated;

pub use clock::Clock;
pub use simulated::Simulated;

/// A point on the boot clock, in microseconds since boot (suspended time counts). Never goes back. What was
/// before the boot, such as the start of an episode that outlived it, lies below zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EngineTime(pub i64);

impl EngineTime {
    /// This time and `duration` more; saturates at the end of time.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }

    /// The time from `earlier` until this one; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// This time as a clock says it that is `by` microseconds ahead; saturates.
    #[must_use]
    pub fn shifted(self, by: i64) -> Self {
        Self(self.0.saturating_add(by))
    }
}

/// Whole microseconds of a duration; saturates.
fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// A point on the wall clock, in microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

/// 2026-11-01: no gateway ran before this was written, so no wall clock that says so is right.
pub const EARLIEST: Timestamp = Timestamp(1_793_491_200_000_000);

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds: `2026-11-21T10:00:30.000Z`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clamped = self.0.clamp(0, 253_402_300_799_000_000);
        let instant = jiff::Timestamp::from_microsecond(clamped).map_err(|_| fmt::Error)?;
        write!(formatter, "{instant:.3}")
    }
}

/// Names one boot of one machine (the kernel's random `boot_id`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(pub u128);

/// What is known of the wall clock at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClockQuality {
    /// The kernel says that a time source disciplines the clock.
    Synchronised,
    /// Nobody vouches for the wall clock, but somebody did at another time of this boot: computed from that.
    Corrected,
    /// Nobody vouches for the wall clock, and nobody did in this boot; times are estimates.
    Unknown,
}

/// Both clocks, read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// The boot this was read in: `boot` compares only within it.
    pub boot_id: BootId,
    /// The boot clock.
    pub boot: EngineTime,
    /// The wall clock; while nobody vouches for it an estimate, never earlier than what was stored before, nor
    /// than [`EARLIEST`].
    pub wall: Timestamp,
    /// Whether the wall clock can be believed.
    pub quality: ClockQuality,
}

impl Moment {
    /// The wall-clock time of `at`, a time of the same boot.
    #[must_use]
    pub fn wall_of(&self, at: EngineTime) -> Timestamp {
        let distance = i128::from(at.0) - i128::from(self.boot.0);
        let wall = i128::from(self.wall.0) + distance;
        Timestamp(i64::try_from(wall).unwrap_or(i64::MAX))
    }
}

/// A boot whose wall clock was right at least once: what the times of that boot are computed from that were not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownBoot {
    /// When the wall clock was first known to be right: what was stored before is computed from this.
    pub first: Moment,
    /// When it last became right after it had been lost, else as `first`: should it be lost again, the boot clock
    /// goes on from here.
    pub latest: Moment,
}

impl KnownBoot {
    /// A moment of this boot with its wall clock as it was, if nobody vouched for it then.
    #[must_use]
    pub fn corrected(&self, moment: Moment) -> Moment {
        if moment.boot_id != self.first.boot_id || moment.quality != ClockQuality::Unknown {
            return moment;
        }
        Moment {
            wall: self.first.wall_of(moment.boot),
            quality: ClockQuality::Corrected,
            ..moment
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_rendered_in_utc_with_milliseconds() {
        assert_eq!(
            Timestamp(1_795_255_230_000_000).to_string(),
            "2026-11-21T10:00:30.000Z"
        );
    }

    #[test]
    fn an_earlier_time_of_the_same_boot_is_as_much_earlier_on_the_wall() {
        let moment = Moment {
            boot_id: BootId(1),
            boot: EngineTime(10_000_000),
            wall: Timestamp(1_795_255_230_000_000),
            quality: ClockQuality::Unknown,
        };
        assert_eq!(
            moment.wall_of(EngineTime(4_000_000)),
            Timestamp(1_795_255_224_000_000)
        );
    }

    #[test]
    fn a_boot_that_learned_the_time_corrects_what_it_did_not_know_and_nothing_else() {
        let at = |boot: i64, wall: i64, quality| Moment {
            boot_id: BootId(1),
            boot: EngineTime(boot),
            wall: Timestamp(wall),
            quality,
        };
        let known = KnownBoot {
            first: at(100, 5_100, ClockQuality::Synchronised),
            latest: at(900, 6_900, ClockQuality::Synchronised),
        };
        let unknown = |boot| at(boot, 0, ClockQuality::Unknown);
        assert_eq!(
            known.corrected(unknown(40)),
            at(40, 5_040, ClockQuality::Corrected)
        );
        for other in [
            at(40, 7, ClockQuality::Synchronised),
            Moment {
                boot_id: BootId(2),
                ..unknown(40)
            },
        ] {
            assert_eq!(known.corrected(other), other);
        }
    }
}
