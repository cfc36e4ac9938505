//! Where readings come from, and the hand-over to the engine: counted, bounded, with the acknowledgement
//! travelling along.

use std::{
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use jiff::tz::{AmbiguousOffset, TimeZone};
use tokio::sync::{Notify, mpsc};

use crate::{
    decode::OwnTime,
    event::Position,
    reading::Reading,
    time::{Clock, ClockQuality, EngineTime, Moment, Timestamp},
};

pub mod framing;
pub mod mqtt;
pub mod serial;

/// Deliveries that may wait for the engine: about 20 ms of a busy door.
pub const INTAKE_LEN: usize = 1024;

/// What a source may take to stop, all its waits together; whoever stops it waits no longer.
pub const STOP_GRACE: Duration = Duration::from_secs(3);

/// Readings that arrived as one, and the ticket that waits for what they cause.
#[derive(Debug)]
pub struct Delivery {
    /// In the order of the message; may be empty for a ticket that only keeps its place in the order.
    pub readings: Vec<Reading>,
    /// Who waits.
    pub ticket: Ticket,
}

/// How sources hand over: one bounded queue to the engine. Full means: do not read the socket.
pub type Intake = mpsc::Sender<Delivery>;

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Evaluated: acknowledge when, and not before, the journal's `durable` has reached this position.
    AfterDurable(Position),
    /// Not evaluated, or the journal has no room for what it began: a bound was reached (`max-devices`, `max-metrics`,
    /// the rule state's quarter of `max-bytes`).
    OverLimit,
    /// Not evaluated and never will be: the engine has stopped. Never acknowledge.
    Dropped,
}

/// Where one connection's answers arrive. No task and no channel per message.
#[derive(Debug, Default)]
pub struct Answers {
    arrived: std::sync::Mutex<Vec<(u64, Answer)>>,
    signal: Notify,
}

impl Answers {
    /// A ticket whose answer arrives here under `token`.
    #[must_use]
    pub fn ticket(self: &Arc<Self>, token: u64) -> Ticket {
        Ticket(Some((Arc::clone(self), token)))
    }

    /// Waits until an answer may have arrived. Cancel-safe.
    pub async fn arrived(&self) {
        self.signal.notified().await;
    }

    /// Takes all that arrived, in the order answered.
    pub fn take(&self) -> Vec<(u64, Answer)> {
        std::mem::take(
            &mut *self
                .arrived
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        )
    }
}

/// The right to one answer. Dropped unanswered, it answers [`Answer::Dropped`].
#[derive(Debug)]
pub struct Ticket(Option<(Arc<Answers>, u64)>);

impl Ticket {
    /// A ticket nobody waits for: serial lines have nothing to acknowledge.
    #[must_use]
    pub fn unclaimed() -> Self {
        Self(None)
    }

    /// Answers.
    pub fn answer(mut self, answer: Answer) {
        self.send(answer);
    }

    fn send(&mut self, answer: Answer) {
        if let Some((answers, token)) = self.0.take() {
            answers
                .arrived
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .push((token, answer));
            answers.signal.notify_one();
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.send(Answer::Dropped);
    }
}

/// What a device's own time is measured by.
#[derive(Debug)]
struct Trust {
    max_clock_skew: Duration,
    zone: TimeZone,
}

/// Gives every message its time. One for the process: arrivals are strictly increasing across all sources.
#[derive(Debug)]
pub struct Stamps {
    clock: Clock,
    trust: RwLock<Trust>,
    last_arrival: AtomicI64,
}

impl Stamps {
    /// A device's own time is believed if it differs from a synchronised clock by less than `max_clock_skew`.
    #[must_use]
    pub fn new(clock: Clock, max_clock_skew: Duration) -> Self {
        Self {
            clock,
            trust: RwLock::new(Trust {
                max_clock_skew,
                zone: TimeZone::UTC,
            }),
            last_arrival: AtomicI64::new(0),
        }
    }

    /// Where local times are from; without it they are UTC.
    #[must_use]
    pub fn in_zone(self, zone: TimeZone) -> Self {
        self.trust().zone = zone;
        self
    }

    /// From now on these count.
    pub fn set(&self, max_clock_skew: Duration, zone: TimeZone) {
        *self.trust() = Trust { max_clock_skew, zone };
    }

    fn trust(&self) -> RwLockWriteGuard<'_, Trust> {
        self.trust.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn trusted(&self) -> RwLockReadGuard<'_, Trust> {
        self.trust.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time of what arrived just now, and whether it is the device's `own`. Never later than now.
    pub fn stamp(&self, own: Option<OwnTime>) -> (EngineTime, bool) {
        self.stamp_arrived(own, self.arrived())
    }

    /// When what arrives just now arrived, for [`Stamps::stamp_arrived`].
    pub fn arrived(&self) -> EngineTime {
        self.arrival(self.clock.now())
    }

    /// The time of what arrived then and has waited since.
    pub fn stamp_arrived(&self, own: Option<OwnTime>, arrived: EngineTime) -> (EngineTime, bool) {
        match own.and_then(|own| self.believed(own, &self.clock.moment())) {
            Some(at) => (at, true),
            None => (arrived, false),
        }
    }

    /// How far a device's `own` time is off, if that is why it was not believed.
    pub fn off_by(&self, own: OwnTime) -> Option<Duration> {
        let moment = self.clock.moment();
        let off = Duration::from_micros(self.instant(own, moment.wall).0.abs_diff(moment.wall.0));
        (moment.quality == ClockQuality::Synchronised && off >= self.trusted().max_clock_skew).then_some(off)
    }

    /// A local time that the night of a clock change has twice, or not at all, may mean two instants: the one nearer
    /// to `wall` counts.
    fn instant(&self, own: OwnTime, wall: Timestamp) -> Timestamp {
        let local = match own {
            OwnTime::Utc(instant) => return instant,
            OwnTime::Local(local) => local,
        };
        let offsets = match self.trusted().zone.to_ambiguous_timestamp(local).offset() {
            AmbiguousOffset::Unambiguous { offset } => [offset, offset],
            AmbiguousOffset::Gap { before, after } | AmbiguousOffset::Fold { before, after } => {
                [before, after]
            }
        };
        let instants = offsets.into_iter().filter_map(|offset| {
            let instant = offset.to_timestamp(local).ok()?;
            Some(Timestamp(instant.as_microsecond()))
        });
        // Beyond the calendar's end it is no time, and off by as much as can be.
        let nearest = instants.min_by_key(|instant| instant.0.abs_diff(wall.0));
        nearest.unwrap_or(Timestamp(i64::MIN))
    }

    fn believed(&self, own: OwnTime, moment: &Moment) -> Option<EngineTime> {
        let own = self.instant(own, moment.wall);
        let off = Duration::from_micros(own.0.abs_diff(moment.wall.0));
        if moment.quality != ClockQuality::Synchronised || off >= self.trusted().max_clock_skew {
            return None;
        }
        let age = moment.wall.0.saturating_sub(own.0).max(0);
        Some(moment.boot.shifted(-age))
    }

    fn arrival(&self, now: EngineTime) -> EngineTime {
        let next = |last: i64| last.saturating_add(1).max(now.0);
        let last = self
            .last_arrival
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
        EngineTime(next(last.unwrap_or_else(|last| last)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::BootId;

    fn stamps() -> Stamps {
        Stamps::new(Clock::system(), Duration::from_mins(10))
    }

    fn moment(quality: ClockQuality) -> Moment {
        let wall = Timestamp(1_800_000_000_000_000);
        Moment {
            boot_id: BootId(1),
            boot: EngineTime(5_000_000_000),
            wall,
            quality,
        }
    }

    fn own(seconds: i64) -> OwnTime {
        OwnTime::Utc(Timestamp(1_800_000_000_000_000 + seconds * 1_000_000))
    }

    #[test]
    fn a_local_time_is_the_instant_nearest_to_the_clock_also_where_it_comes_twice_or_not_at_all() {
        let berlin = TimeZone::get("Europe/Berlin").expect("it is bundled");
        let stamps = stamps().in_zone(berlin);
        let utc = |text: &str| Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_microsecond());
        for (local, wall, instant) in [
            (
                "2026-07-01T12:00:00",
                "2026-07-01T09:00:00Z",
                "2026-07-01T10:00:00Z",
            ),
            // The hour that comes twice, in each of its turns.
            (
                "2026-10-25T02:30:00",
                "2026-10-25T00:31:00Z",
                "2026-10-25T00:30:00Z",
            ),
            (
                "2026-10-25T02:30:00",
                "2026-10-25T01:29:00Z",
                "2026-10-25T01:30:00Z",
            ),
            (
                "2026-10-25T02:59:59",
                "2026-10-25T01:00:01Z",
                "2026-10-25T00:59:59Z",
            ),
            // The hour that is left out: this device's clock has not changed.
            (
                "2027-03-28T02:30:00",
                "2027-03-28T01:30:05Z",
                "2027-03-28T01:30:00Z",
            ),
        ] {
            let own = OwnTime::Local(local.parse().unwrap());
            assert_eq!(stamps.instant(own, utc(wall)), utc(instant), "{local} at {wall}");
        }
        let never = OwnTime::Local(jiff::civil::DateTime::MAX);
        assert!(
            stamps
                .believed(never, &moment(ClockQuality::Synchronised))
                .is_none()
        );
    }

    #[test]
    fn a_devices_own_time_is_believed_only_near_a_synchronised_clock() {
        let synchronised = moment(ClockQuality::Synchronised);
        assert_eq!(
            stamps().believed(own(-5), &synchronised),
            Some(EngineTime(4_995_000_000))
        );
        assert_eq!(stamps().believed(own(-600), &synchronised), None);
        assert_eq!(stamps().believed(own(601), &synchronised), None);
        assert_eq!(stamps().believed(own(-5), &moment(ClockQuality::Unknown)), None);
        assert_eq!(stamps().believed(own(-5), &moment(ClockQuality::Corrected)), None);
        assert_eq!(
            stamps().believed(OwnTime::Utc(Timestamp(i64::MIN)), &synchronised),
            None
        );
    }

    #[test]
    fn a_time_ahead_of_the_clock_is_now() {
        let now = moment(ClockQuality::Synchronised);
        assert_eq!(stamps().believed(own(30), &now), Some(now.boot));
    }

    #[test]
    fn arrivals_are_strictly_increasing_within_one_microsecond() {
        let stamps = stamps();
        let times: Vec<_> = (0..3).map(|_| stamps.arrival(EngineTime(7)).0).collect();
        assert_eq!(times, [7, 8, 9]);
        assert_eq!(stamps.arrival(EngineTime(100)).0, 100);
    }

    #[test]
    fn an_unanswered_ticket_answers_that_it_was_dropped() {
        let answers = Arc::new(Answers::default());
        answers.ticket(1).answer(Answer::AfterDurable(Position(3)));
        drop(answers.ticket(2));
        assert_eq!(
            answers.take(),
            [(1, Answer::AfterDurable(Position(3))), (2, Answer::Dropped)]
        );
    }
}
