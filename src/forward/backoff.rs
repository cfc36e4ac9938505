//! How long to wait before the next attempt: exponential, with jitter, capped. Pure: the caller brings the chance.

use std::time::Duration;

/// The waits between attempts that fail.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// The first wait is about `base`, every further one twice the one before, none longer than `cap`.
    #[must_use]
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self {
            base,
            cap,
            failures: 0,
        }
    }

    /// The wait before the next attempt. `chance` in 0..=255 spreads it over the upper half, so that a
    /// thousand gateways that lost the same broker do not come back in the same second.
    pub fn next(&mut self, chance: u8) -> Duration {
        let whole = self
            .base
            .saturating_mul(2_u32.saturating_pow(self.failures))
            .min(self.cap);
        self.failures = self.failures.saturating_add(1);
        let half = whole / 2;
        half + whole.saturating_sub(half) * u32::from(chance) / 255
    }

    /// An attempt succeeded: the next wait is short again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The longest wait.
    #[must_use]
    pub fn cap(&self) -> Duration {
        self.cap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_secs(1);
    const CAP: Duration = Duration::from_mins(1);

    #[test]
    fn waits_double_up_to_the_cap_and_stay_there() {
        let mut backoff = Backoff::new(BASE, CAP);
        let waits: Vec<u64> = (0..8).map(|_| backoff.next(255).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn chance_spreads_over_the_upper_half_only() {
        let mut backoff = Backoff::new(BASE, CAP);
        for chance in 0..=255 {
            let wait = backoff.clone().next(chance);
            assert!((BASE / 2..=BASE).contains(&wait), "{wait:?}");
        }
        assert_eq!(backoff.next(0), BASE / 2);
    }

    #[test]
    fn a_success_makes_the_next_wait_short_again() {
        let mut backoff = Backoff::new(BASE, CAP);
        for _ in 0..10 {
            backoff.next(255);
        }
        backoff.reset();
        assert_eq!(backoff.next(255), BASE);
    }

    #[test]
    fn a_month_of_failures_overflows_nothing() {
        let mut backoff = Backoff::new(BASE, CAP);
        for _ in 0..100_000 {
            backoff.next(255);
        }
        assert_eq!(backoff.next(255), CAP);
    }
}
