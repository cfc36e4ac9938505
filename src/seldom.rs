//! How often the log is told of a fault that repeats: the first times at once, then counted.
//!
//! What repeats is never lost from sight: the next line says in `unsaid` how many like it were left out. It only
//! decides; who logs asks it first. One for each thing that is told apart (a serial line, a sink), or one for all that
//! strangers can cause.

use std::time::Duration;

use tokio::time::Instant;

const MINUTE: Duration = Duration::from_mins(1);

/// So many lines in so long, and no more.
#[derive(Debug)]
pub struct Seldom {
    most: u32,
    within: Duration,
    /// Since when it is counted, and how many were said since.
    window: Option<(Instant, u32)>,
    unsaid: u64,
}

impl Seldom {
    /// For what may come with every frame or request of one thing.
    #[must_use]
    pub const fn once_a_minute() -> Self {
        Self::new(1, MINUTE)
    }

    /// At most `most` lines `within` this.
    const fn new(most: u32, within: Duration) -> Self {
        Self {
            most,
            within,
            window: None,
            unsaid: 0,
        }
    }

    /// It happened. Some: say so now, so many before it were not said.
    pub fn due(&mut self, now: Instant) -> Option<u64> {
        match &mut self.window {
            Some((since, said)) if now < *since + self.within => {
                if *said >= self.most {
                    self.unsaid = self.unsaid.saturating_add(1);
                    return None;
                }
                *said = said.saturating_add(1);
            }
            window => *window = Some((now, 1)),
        }
        Some(std::mem::take(&mut self.unsaid))
    }
}

/// Ten a minute: for what comes and goes, and for what differs each time.
impl Default for Seldom {
    fn default() -> Self {
        Self::new(10, MINUTE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_at_once_and_the_rest_are_counted() {
        let start = Instant::now();
        let mut seldom = Seldom::once_a_minute();
        assert_eq!(seldom.due(start), Some(0));
        assert_eq!(seldom.due(start), None);
        assert_eq!(seldom.due(start + MINUTE / 2), None);
        assert_eq!(seldom.due(start + MINUTE), Some(2));
    }

    #[test]
    fn ten_that_differ_are_said_before_any_is_only_counted() {
        let start = Instant::now();
        let mut seldom = Seldom::default();
        let said = (0..1000).filter(|_| seldom.due(start).is_some()).count();
        assert_eq!(said, 10);
        assert_eq!(seldom.due(start + MINUTE), Some(990));
        assert_eq!(seldom.due(start + MINUTE), Some(0));
    }
}
