//! What rules would say of readings that were recorded: a story that nobody wrote.

use super::{
    Act, At, Said, Story,
    parse::Rules,
    run::{Gateway, Stop},
};
use crate::{
    reading::Reading,
    time::{ClockQuality, Timestamp},
};

/// Rules that listen to recorded readings. Begins with no alarm open.
pub struct Replay {
    gateway: Gateway,
    start: Timestamp,
    now: At,
}

impl Replay {
    /// Begins at the time of the first reading.
    #[must_use]
    pub fn new(rules: Rules, start: Timestamp) -> Self {
        let story = Story {
            name: String::new(),
            line: 0,
            rules: std::sync::Arc::new(rules),
            only: Vec::new(),
            start,
            quality: ClockQuality::Synchronised,
            checkpoint: At(60_000_000),
            steps: Vec::new(),
            expected: Vec::new(),
        };
        let mut gateway = Gateway::new(&story);
        // What was recorded with a stamp was believed then.
        gateway.max_clock_skew = u64::MAX;
        Self {
            gateway,
            start,
            now: At(0),
        }
    }

    fn at(&self, wall: Timestamp) -> At {
        At(wall.0.saturating_sub(self.start.0))
    }

    /// The next reading, as it was evaluated; `wall` is its time.
    pub fn tell(&mut self, reading: &Reading, wall: Timestamp) {
        let at = self.at(wall);
        self.go_on(at);
        let act = Act::Tell {
            device: reading.device.clone(),
            metric: reading.metric.clone(),
            value: reading.value.clone(),
            unit: reading.unit.clone(),
            stamp: reading.stamped.then_some(at),
        };
        self.gateway.obey(&act, self.now);
    }

    /// The gateway was down from `down` to `up`, after a clean stop or none: its own absence is nobody's silence.
    pub fn restart(&mut self, stop: Stop, down: Timestamp, up: Timestamp) {
        let down = self.at(down);
        self.go_on(down);
        let away = self.at(up).0.saturating_sub(self.now.0).max(0);
        let act = Act::Start {
            stop,
            away,
            clock: super::ClockChange::default(),
        };
        self.now = self.gateway.obey(&act, self.now);
    }

    /// All that was said until the end, each with its time.
    #[must_use]
    pub fn done(mut self, end: Timestamp) -> Vec<(Timestamp, Said)> {
        let end = self.at(end);
        self.go_on(end);
        self.gateway.settle(self.now);
        let start = self.start.0;
        let wall = |said: &Said| Timestamp(start.saturating_add(said.at.0));
        self.gateway
            .said
            .into_iter()
            .map(|said| (wall(&said), said))
            .collect()
    }

    /// Time goes by until then; it never goes back.
    fn go_on(&mut self, at: At) {
        self.now = self.now.max(at);
        self.gateway.pass(self.now);
    }
}
