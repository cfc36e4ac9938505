//! `drain-rate`: how many events a sink may be sent in a time. Pure: the time is the caller's.
//!
//! What was not used is saved for a second's worth at most, so that an alarm that comes while nothing waits goes at once.

use std::time::Duration;

/// So many in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many, at least 1.
    pub count: u32,
    /// In how long.
    pub per: Duration,
}

/// What may be saved up.
const SAVED: Duration = Duration::from_secs(1);

/// What is left of a rate. Without a rate there is always something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    /// One event's time; zero: no rate.
    each: Duration,
    /// All that was sent is paid for then.
    paid: Duration,
}

impl Bucket {
    /// A full one.
    pub fn new(rate: Option<Rate>) -> Self {
        Self {
            each: rate.map_or(Duration::ZERO, |rate| rate.per / rate.count.max(1)),
            paid: Duration::ZERO,
        }
    }

    /// Whether there is no rate.
    pub fn is_free(&self) -> bool {
        self.each.is_zero()
    }

    /// How long the next event has to wait; zero: it may go.
    pub fn wait(&self, now: Duration) -> Duration {
        // One event may always be saved up, however slow the rate is.
        let ahead = SAVED.saturating_sub(self.each);
        self.paid.saturating_sub(now).saturating_sub(ahead)
    }

    /// An event goes.
    pub fn take(&mut self, now: Duration) {
        self.paid = self.paid.max(now) + self.each;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many go within a time if as many as may are sent every millisecond.
    fn goes(rate: Rate, within: Duration) -> usize {
        let mut bucket = Bucket::new(Some(rate));
        let mut gone = 0;
        for milli in 0..within.as_millis() {
            let now = Duration::from_millis(u64::try_from(milli).unwrap());
            while bucket.wait(now).is_zero() {
                bucket.take(now);
                gone += 1;
            }
        }
        gone
    }

    #[test]
    fn no_more_go_than_the_rate_says_and_a_seconds_worth_that_was_saved() {
        let rate = |count, per| Rate {
            count,
            per: Duration::from_secs(per),
        };
        assert_eq!(goes(rate(200, 1), Duration::from_millis(1)), 200);
        let ten_seconds = goes(rate(200, 1), Duration::from_secs(10));
        assert!((2190..=2200).contains(&ten_seconds), "{ten_seconds}");
        assert_eq!(goes(rate(12, 3600), Duration::from_secs(1)), 1);
        assert_eq!(goes(rate(12, 3600), Duration::from_secs(301)), 2);
    }

    #[test]
    fn without_a_rate_nothing_waits_and_a_pause_saves_no_more_than_a_second() {
        let mut free = Bucket::new(None);
        free.take(Duration::ZERO);
        assert!(free.wait(Duration::ZERO).is_zero());
        let mut bucket = Bucket::new(Some(Rate {
            count: 10,
            per: Duration::from_secs(1),
        }));
        let late = Duration::from_hours(1);
        for _ in 0..10 {
            assert!(bucket.wait(late).is_zero());
            bucket.take(late);
        }
        assert_eq!(bucket.wait(late), Duration::from_millis(100));
    }
}
