//! The clocks: the only module that reads one.
//!
//! Timers run on the boot clock ([`EngineTime`]), which no operator and no time server can move. The wall
//! clock ([`Timestamp`]) is used only to render; a [`Moment`] carries both, so that a time can be
//! corrected once the wall clock is known to be right. Boards have no battery-backed clock.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};

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
    /// The wall clock was wrong and the time was computed afterwards.
    Corrected,
    /// Nobody vouches for the wall clock; times are estimates.
    Unknown,
}

/// Both clocks, read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// The boot this was read in: `boot` compares only within it.
    pub boot_id: BootId,
    /// The boot clock.
    pub boot: EngineTime,
    /// What the wall clock said, never earlier than the build.
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

/// The machine's clocks. Clones share what they know.
#[derive(Clone, Debug)]
pub struct Clock {
    boot_id: BootId,
    synchronised: Arc<Synchronised>,
}

/// What the time daemon said last, and when it was asked: asking costs a system call.
#[derive(Debug, Default)]
struct Synchronised {
    asked_at: AtomicI64,
    answer: AtomicBool,
}

/// 2026-11-01: no gateway ran before this was written, so no wall clock that says so is right.
const EARLIEST: Timestamp = Timestamp(1_793_491_200_000_000);

/// systemd-timesyncd makes this file at its first synchronisation of a boot (systemd-timesyncd.service(8)).
const TIMESYNC: &str = "/run/systemd/timesync/synchronized";

/// How long an answer of the time daemon is good for.
const ASK_EVERY: Duration = Duration::from_secs(1);

impl Clock {
    /// The clocks of this boot. Where the kernel names no boot, a random name is made: timers then start anew.
    #[must_use]
    pub fn system() -> Self {
        let named = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .ok()
            .and_then(|text| u128::from_str_radix(&text.trim().replace('-', ""), 16).ok());
        Self {
            boot_id: BootId(named.unwrap_or_else(|| fastrand::u128(1..))),
            synchronised: Arc::default(),
        }
    }

    /// The boot clock, now.
    #[must_use]
    pub fn now(&self) -> EngineTime {
        let read = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let micros = read.tv_sec.saturating_mul(1_000_000);
        EngineTime(micros.saturating_add(read.tv_nsec / 1_000))
    }

    /// Both clocks, now.
    #[must_use]
    pub fn moment(&self) -> Moment {
        let read = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        let wall = Timestamp(
            read.tv_sec
                .saturating_mul(1_000_000)
                .saturating_add(read.tv_nsec / 1_000),
        );
        let boot = self.now();
        Moment {
            boot_id: self.boot_id,
            boot,
            wall: wall.max(EARLIEST),
            quality: self.quality(boot),
        }
    }

    fn quality(&self, now: EngineTime) -> ClockQuality {
        let known = &self.synchronised;
        let asked_at = EngineTime(known.asked_at.load(Ordering::Relaxed));
        if asked_at == EngineTime::default() || now.since(asked_at) >= ASK_EVERY {
            known
                .answer
                .store(std::path::Path::new(TIMESYNC).exists(), Ordering::Relaxed);
            known.asked_at.store(now.0, Ordering::Relaxed);
        }
        if known.answer.load(Ordering::Relaxed) {
            ClockQuality::Synchronised
        } else {
            ClockQuality::Unknown
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
    fn the_boot_clock_never_goes_back_and_a_boot_keeps_its_name() {
        let clock = Clock::system();
        let (first, second) = (clock.moment(), clock.moment());
        assert!(first.boot <= second.boot);
        assert_eq!(first.boot_id, Clock::system().moment().boot_id);
    }
}
