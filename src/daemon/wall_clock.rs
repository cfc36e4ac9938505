//! Watches whether the wall clock can be believed: tells when that changes, and has the journal keep it, so that
//! what was stored while nobody knew the time is sent with the times as they were.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{announce::Announcer, standing::APART};
use crate::{
    event::gateway::{At, ClockLost, ClockSynchronised},
    journal::Journal,
    time::{Clock, ClockQuality, EngineTime, Moment},
};

/// How often it is looked at: as often as the kernel is asked at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What was seen last.
#[derive(Debug)]
pub struct WallClock {
    clock: Clock,
    journal: Journal,
    announcer: Announcer,
    /// The last look, or the newest thing that a run before this one stored in this boot. While nobody vouches for
    /// the clock, the first: time daemons may set it a moment before they vouch for it.
    last: Option<Moment>,
    /// The last loss that was told: two time daemons that fight shall fill no journal.
    lost: Option<EngineTime>,
}

impl WallClock {
    /// `unsynchronised`: when something was last stored in this boot, if nobody vouched for the wall clock then.
    #[must_use]
    pub fn new(clock: Clock, journal: Journal, announcer: Announcer, unsynchronised: Option<Moment>) -> Self {
        Self {
            clock,
            journal,
            announcer,
            last: unsynchronised,
            lost: None,
        }
    }

    /// Looks until the stop: nothing follows `GatewayStopped`.
    pub async fn watch(mut self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        loop {
            // Both are cancel-safe.
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => self.look(),
            }
        }
    }

    /// Looks once.
    pub fn look(&mut self) {
        let now = self.clock.moment();
        let is_right = now.quality == ClockQuality::Synchronised;
        let last = self.last;
        let was_right = last.is_some_and(|last| last.quality == ClockQuality::Synchronised);
        if was_right && !is_right && self.lost.is_some_and(|lost| now.boot.since(lost) < APART) {
            // It may be right again before that is told. The clock itself goes on by what was right.
            return;
        }
        if is_right || last.is_none_or(|last| last.quality == ClockQuality::Synchronised) {
            self.last = Some(now);
        }
        match last {
            Some(last) if is_right && last.quality != ClockQuality::Synchronised => self.found(last, now),
            Some(last) if !is_right && last.quality == ClockQuality::Synchronised => self.lost(now),
            // It was right from the start: nothing to tell, but should it be lost, this is what is known.
            None if is_right && self.journal.known_boot(now.boot_id).is_none() => {
                self.journal.synchronised(now, None);
            }
            None if !is_right => warn!(
                name: "ClockUnknown",
                estimate = %now.wall,
                "nobody vouches for the wall clock yet: events are sent with estimated times, and with the right ones once a time source has set it"
            ),
            _ => {}
        }
    }

    fn found(&self, last: Moment, now: Moment) {
        let moved = now.wall.0.saturating_sub(last.wall_of(now.boot).0);
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of 30 years are 40 bits")]
        let moved_s = (moved / 1_000) as f64 / 1_000.0;
        info!(name: "ClockSynchronised", moved_s, "the wall clock is synchronised");
        let event = self.announcer.draft(
            &ClockSynchronised {
                boot_id: format!("{:032x}", now.boot_id.0),
                moved_s,
            },
            Some(correlation(now)),
        );
        self.journal.synchronised(now, event);
    }

    fn lost(&mut self, now: Moment) {
        self.lost = Some(now.boot);
        warn!(
            name: "ClockLost",
            "the wall clock is no longer synchronised: no time source, or it was set by hand; times go on by the boot clock (is the time daemon running, does it reach its server?)"
        );
        let fact = ClockLost {
            boot_id: format!("{:032x}", now.boot_id.0),
            since: At(self.clock.vouched_at()),
        };
        if let Some(event) = self.announcer.draft(&fact, Some(correlation(now))) {
            self.journal.record(event);
        }
    }
}

/// All that is said of one boot's wall clock belongs together.
fn correlation(now: Moment) -> Arc<str> {
    format!("clock-{:032x}", now.boot_id.0).into()
}
