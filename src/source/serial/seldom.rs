//! A complaint that may come with every frame and is logged at most once a minute, with the number of times.

use std::time::Duration;

use tokio::time::Instant;

/// How long it keeps quiet.
const QUIET: Duration = Duration::from_mins(1);

/// Counts what was not said.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    said: Option<Instant>,
    times: u64,
}

impl Seldom {
    /// It happened; some: say so now, it happened so many times since it was last said.
    pub(super) fn due(&mut self, now: Instant) -> Option<u64> {
        self.times += 1;
        if self.said.is_some_and(|said| now < said + QUIET) {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_at_once_and_the_rest_are_counted() {
        let start = Instant::now();
        let mut seldom = Seldom::default();
        assert_eq!(seldom.due(start), Some(1));
        assert_eq!(seldom.due(start), None);
        assert_eq!(seldom.due(start + QUIET / 2), None);
        assert_eq!(seldom.due(start + QUIET), Some(3));
    }
}
