//! The clock that everybody asks: the boot clock as it is, the wall clock as far as it can be believed.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use super::{BootId, ClockQuality, EARLIEST, EngineTime, KnownBoot, Moment, Simulated, Timestamp};

/// How long an answer of the kernel is good for.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Without any time source the kernel's own estimate of its error grows to this in nine hours; a clock that nobody
/// disciplines, or that was set by hand, has it from the start. Not `STA_UNSYNC`: chronyd without `rtcsync` keeps
/// that set, to keep the kernel off the hardware clock. systemd asks the same.
const UNSYNCHRONISED: Duration = Duration::from_secs(16);

/// After the kernel has ceased to vouch for it, the wall clock is believed for so long: a time daemon that is
/// restarted, or a line that is cut for a night, changes nothing. No crystal is off by half a second then.
const LOST_AFTER: Duration = Duration::from_hours(1);

/// A wall clock that has moved by more than this against the boot clock was set.
const STEP: u64 = 1_000_000;

/// What systemd-timesyncd touches each time that it adjusts the clock: asked only where the kernel may not be (the
/// unit's `ProtectClock`, a container's filter).
const TIMESYNC: &str = "/run/systemd/timesync/synchronized";

/// For so long after an adjustment the kernel would vouch for the clock: until [`UNSYNCHRONISED`], at 500 ppm.
const ADJUSTED_FOR: Duration = Duration::from_secs(32_000);

/// The machine's clocks, or simulated ones. Clones share what they know.
#[derive(Clone, Debug)]
pub struct Clock {
    boot_id: BootId,
    hands: Hands,
    belief: Arc<Mutex<Belief>>,
}

#[derive(Clone, Debug)]
enum Hands {
    Machine,
    Simulated(Simulated),
}

impl Clock {
    /// The clocks of this boot. Where the kernel names no boot, a random name is made: timers then start anew.
    #[must_use]
    pub fn system() -> Self {
        let named = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .ok()
            .and_then(|text| u128::from_str_radix(&text.trim().replace('-', ""), 16).ok());
        Self::new(
            BootId(named.unwrap_or_else(|| fastrand::u128(1..))),
            Hands::Machine,
        )
    }

    /// Clocks that only their owner moves, in the boot that they are in now.
    #[must_use]
    pub fn simulated(hands: &Simulated) -> Self {
        Self::new(hands.boot_id(), Hands::Simulated(hands.clone()))
    }

    fn new(boot_id: BootId, hands: Hands) -> Self {
        Self {
            boot_id,
            hands,
            belief: Arc::default(),
        }
    }

    /// Which boot this is.
    #[must_use]
    pub fn boot_id(&self) -> BootId {
        self.boot_id
    }

    /// The boot clock, now.
    #[must_use]
    pub fn now(&self) -> EngineTime {
        self.hands.boot()
    }

    /// Both clocks, now.
    #[must_use]
    pub fn moment(&self) -> Moment {
        let (boot, wall) = (self.hands.boot(), self.hands.wall());
        let mut belief = self.belief();
        let quality = belief.look(boot, wall, || self.hands.is_synchronised());
        Moment {
            boot_id: self.boot_id,
            boot,
            wall: Timestamp(boot.0.saturating_add(belief.offset)),
            quality,
        }
    }

    /// Nothing is estimated to be earlier than `stored`, which an earlier run has written down.
    pub fn not_before(&self, stored: Moment) {
        let offset = if stored.boot_id == self.boot_id {
            stored.wall.0.saturating_sub(stored.boot.0)
        } else {
            // This boot began after it.
            stored.wall.0
        };
        let mut belief = self.belief();
        if !belief.known {
            belief.offset = belief.offset.max(offset);
        }
    }

    /// The wall clock of this boot was right before: from then on the boot clock tells the time.
    pub fn resume(&self, known: &KnownBoot) {
        let right = known.latest;
        let mut belief = self.belief();
        if right.boot_id == self.boot_id && !belief.known {
            belief.vouch(right.boot, right.wall.0.saturating_sub(right.boot.0));
        }
    }

    /// When somebody last vouched for the wall clock, in this boot.
    #[must_use]
    pub fn vouched_at(&self) -> EngineTime {
        self.belief().vouched_at
    }

    fn belief(&self) -> std::sync::MutexGuard<'_, Belief> {
        self.belief.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hands {
    fn boot(&self) -> EngineTime {
        match self {
            Self::Machine => {
                let read = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
                let micros = read.tv_sec.saturating_mul(1_000_000);
                EngineTime(micros.saturating_add(read.tv_nsec / 1_000))
            }
            Self::Simulated(hands) => hands.boot(),
        }
    }

    fn wall(&self) -> Timestamp {
        match self {
            Self::Machine => {
                #[expect(clippy::disallowed_methods, reason = "this is the one place")]
                let now = SystemTime::now();
                // Before 1970 it is as wrong as in 1970.
                let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                Timestamp(super::micros(since))
            }
            Self::Simulated(hands) => hands.wall(),
        }
    }

    fn is_synchronised(&self) -> bool {
        match self {
            Self::Machine => match kernel_clock::max_error() {
                Ok(error) => error < UNSYNCHRONISED,
                Err(_) => {
                    let mark = std::fs::metadata(TIMESYNC).and_then(|mark| mark.modified());
                    mark.is_ok_and(|adjusted| vouches(adjusted, self.wall()))
                }
            },
            Self::Simulated(hands) => hands.is_synchronised(),
        }
    }
}

/// Whether a time daemon that adjusted the clock at `adjusted` still vouches for it. An adjustment in the future was
/// made before somebody set the clock back.
fn vouches(adjusted: SystemTime, now: Timestamp) -> bool {
    let since = adjusted
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let age = now.0.saturating_sub(super::micros(since));
    u64::try_from(age).is_ok_and(|age| Duration::from_micros(age) < ADJUSTED_FOR)
}

/// What the wall clock is held to be: so much later than the boot clock.
#[derive(Debug)]
struct Belief {
    offset: i64,
    /// It was right once in this boot: from then on it is better than a wall clock that nobody vouches for.
    known: bool,
    /// When somebody last vouched for it.
    vouched_at: EngineTime,
    asked_at: Option<EngineTime>,
    answer: bool,
}

impl Default for Belief {
    fn default() -> Self {
        Self {
            offset: EARLIEST.0,
            known: false,
            vouched_at: EngineTime::default(),
            asked_at: None,
            answer: false,
        }
    }
}

impl Belief {
    fn vouch(&mut self, at: EngineTime, offset: i64) {
        (self.offset, self.known, self.vouched_at) = (offset, true, at);
    }

    /// Looks at both clocks; asks the kernel if its last answer is old, or if the wall clock has just been set.
    fn look(&mut self, boot: EngineTime, wall: Timestamp, ask: impl FnOnce() -> bool) -> ClockQuality {
        let offset = wall.0.saturating_sub(boot.0);
        let stepped = self.known && offset.abs_diff(self.offset) > STEP;
        let fresh = self.asked_at.is_some_and(|at| boot.since(at) < ASK_EVERY);
        if !fresh || (stepped && self.answer) {
            self.answer = ask();
            self.asked_at = Some(boot);
        }
        if self.answer && wall >= EARLIEST {
            self.vouch(boot, offset);
            return ClockQuality::Synchronised;
        }
        if !self.known {
            self.offset = self.offset.max(offset);
            return ClockQuality::Unknown;
        }
        if !stepped && boot.since(self.vouched_at) < LOST_AFTER {
            return ClockQuality::Synchronised;
        }
        ClockQuality::Corrected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_800_000_000_000_000;
    const SECOND: i64 = 1_000_000;
    const HOUR: i64 = 3_600 * SECOND;

    fn machine() -> (Simulated, Clock) {
        let hands = Simulated::new(BootId(1));
        let clock = Clock::simulated(&hands);
        (hands, clock)
    }

    fn stored(boot_id: u128, boot: i64, wall: i64) -> Moment {
        Moment {
            boot_id: BootId(boot_id),
            boot: EngineTime(boot),
            wall: Timestamp(wall),
            quality: ClockQuality::Unknown,
        }
    }

    #[test]
    fn the_boot_clock_never_goes_back_and_a_boot_keeps_its_name() {
        let clock = Clock::system();
        let (first, second) = (clock.moment(), clock.moment());
        assert!(first.boot <= second.boot);
        assert_eq!(first.boot_id, Clock::system().boot_id());
        assert!(first.wall >= EARLIEST);
    }

    #[test]
    fn the_kernel_says_how_far_its_clock_can_be_wrong() {
        let error = kernel_clock::max_error().expect("this machine allows adjtimex");
        assert!(error <= UNSYNCHRONISED, "{error:?}");
    }

    #[test]
    fn an_adjustment_vouches_for_nine_hours_and_not_once_the_clock_was_set_back() {
        let adjusted = SystemTime::UNIX_EPOCH + Duration::from_micros(NOON.unsigned_abs());
        let vouches = |later: i64| vouches(adjusted, Timestamp(NOON + later));
        assert!(vouches(0) && vouches(8 * HOUR));
        assert!(!vouches(9 * HOUR));
        assert!(!vouches(-SECOND));
    }

    #[test]
    fn estimates_are_never_before_the_build_nor_before_what_was_stored_and_run_with_the_boot_clock() {
        let (hands, clock) = machine();
        hands.advance(Duration::from_secs(5));
        assert_eq!(clock.moment().wall, Timestamp(EARLIEST.0 + 5 * SECOND));
        clock.not_before(stored(7, 900 * SECOND, NOON));
        assert_eq!(
            clock.moment().wall,
            Timestamp(NOON + 5 * SECOND),
            "another boot's"
        );
        clock.not_before(stored(1, SECOND, NOON + 60 * SECOND));
        assert_eq!(clock.moment().wall, Timestamp(NOON + 64 * SECOND), "this boot's");
        clock.not_before(stored(7, 0, EARLIEST.0));
        hands.advance(Duration::from_secs(1));
        let moment = clock.moment();
        assert_eq!(
            (moment.wall.0, moment.quality),
            (NOON + 65 * SECOND, ClockQuality::Unknown)
        );
    }

    #[test]
    fn an_unsynchronised_wall_clock_that_goes_back_an_hour_takes_no_estimate_with_it() {
        let (hands, clock) = machine();
        hands.set(Timestamp(NOON));
        assert_eq!(clock.moment().wall, Timestamp(NOON));
        hands.set(Timestamp(NOON - HOUR));
        hands.advance(Duration::from_secs(2));
        assert_eq!(clock.moment().wall, Timestamp(NOON + 2 * SECOND));
        hands.set(Timestamp(NOON + HOUR));
        assert_eq!(clock.moment().wall, Timestamp(NOON + HOUR));
    }

    #[test]
    fn a_synchronised_wall_clock_is_believed_wherever_it_goes() {
        let (hands, clock) = machine();
        clock.not_before(stored(7, 0, NOON + 9 * HOUR));
        hands.set(Timestamp(NOON));
        hands.synchronise(true);
        for wall in [NOON, NOON + HOUR, NOON - HOUR] {
            hands.set(Timestamp(wall));
            let moment = clock.moment();
            assert_eq!(
                (moment.wall.0, moment.quality),
                (wall, ClockQuality::Synchronised)
            );
        }
    }

    #[test]
    fn a_clock_that_says_1970_is_not_believed_whoever_vouches_for_it() {
        let (hands, clock) = machine();
        hands.synchronise(true);
        assert_eq!(clock.moment().quality, ClockQuality::Unknown);
        assert_eq!(clock.moment().wall, EARLIEST);
    }

    #[test]
    fn a_clock_that_nobody_vouches_for_any_more_is_believed_for_an_hour() {
        let (hands, clock) = machine();
        hands.set(Timestamp(NOON));
        hands.synchronise(true);
        assert_eq!(clock.moment().quality, ClockQuality::Synchronised);
        hands.synchronise(false);
        hands.advance(Duration::from_secs(3_599));
        assert_eq!(clock.moment().quality, ClockQuality::Synchronised);
        hands.advance(Duration::from_secs(1));
        let moment = clock.moment();
        assert_eq!(
            (moment.wall.0, moment.quality),
            (NOON + HOUR, ClockQuality::Corrected)
        );
        hands.synchronise(true);
        hands.advance(Duration::from_secs(1));
        assert_eq!(clock.moment().quality, ClockQuality::Synchronised);
    }

    #[test]
    fn a_wall_clock_set_by_hand_is_not_believed_and_the_boot_clock_goes_on() {
        let (hands, clock) = machine();
        hands.set(Timestamp(NOON));
        hands.synchronise(true);
        assert_eq!(clock.moment().quality, ClockQuality::Synchronised);
        for by in [HOUR, -HOUR] {
            // As the kernel does: it vouches for nothing that was set by hand.
            hands.synchronise(false);
            hands.set(Timestamp(NOON + by));
            let moment = clock.moment();
            assert_eq!((moment.wall.0, moment.quality), (NOON, ClockQuality::Corrected));
        }
    }

    #[test]
    fn what_an_earlier_run_of_this_boot_knew_is_still_known() {
        let (hands, clock) = machine();
        let right = Moment {
            quality: ClockQuality::Synchronised,
            ..stored(1, 10 * SECOND, NOON)
        };
        clock.resume(&KnownBoot {
            first: right,
            latest: right,
        });
        hands.advance(Duration::from_secs(4_000));
        let moment = clock.moment();
        assert_eq!(
            (moment.wall.0, moment.quality),
            (NOON + 3_990 * SECOND, ClockQuality::Corrected)
        );
    }

    #[test]
    fn the_kernel_is_asked_once_a_second() {
        let mut belief = Belief::default();
        let mut asked = 0;
        for tenth in 0..25 {
            belief.look(EngineTime(tenth * 100_000), Timestamp(0), || {
                asked += 1;
                false
            });
        }
        assert_eq!(asked, 3);
    }
}
