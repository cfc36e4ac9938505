//! The beat: feeds the watchdog while engine, journal and forwarders make progress, tells the service manager
//! how things stand, and records `GatewayAlive`.

use std::time::Duration;

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{announce::Announcer, evaluate, systemd, uplinks::View};
use crate::{event::Epoch, journal::Journal, reading::DeviceId, seldom::Seldom};

/// How often the status line is renewed and the heartbeat looked at, unless the heartbeat is quicker.
const EVERY: Duration = Duration::from_secs(5);

pub(super) struct Beat {
    pub(super) journal: Journal,
    pub(super) announcer: Announcer,
    pub(super) engine: watch::Receiver<evaluate::Status>,
    pub(super) uplinks: watch::Receiver<Vec<View>>,
    pub(super) epoch: Epoch,
    /// What a reload says replaces it.
    pub(super) heartbeat: watch::Receiver<Option<Duration>>,
    /// No further sign of life from then on.
    pub(super) stop: CancellationToken,
}

impl Beat {
    pub(super) async fn run(self) {
        tokio::join!(systemd::feed(|| self.pulses()), self.beat(), self.watch_room());
    }

    /// Says in the log when the journal takes nothing more, and when it does again.
    async fn watch_room(&self) {
        let mut health = self.journal.health();
        while health.wait_for(|health| health.parked).await.is_ok() {
            error!(
                name: "JournalFull",
                "the journal is full: no reading is evaluated and no publish acknowledged until there is room; let the \
                 uplink deliver, free the disk, or raise [journal] max-bytes"
            );
            if health.wait_for(|health| !health.parked).await.is_ok() {
                info!(name: "JournalHasRoom", "the journal has room again: evaluation goes on");
            }
        }
    }

    async fn beat(&self) {
        let mut heartbeat = self.heartbeat.clone();
        let ticking = |every: Option<Duration>| tokio::time::interval(every.unwrap_or(EVERY).min(EVERY));
        let mut every = *heartbeat.borrow_and_update();
        let mut ticks = ticking(every);
        let mut alive_at = every.map(|every| Instant::now() + every);
        let (mut refused, mut seldom) = (0, Seldom::once_a_minute());
        loop {
            // Both are cancel-safe. Without a sender (at a stop) the last word holds.
            tokio::select! {
                _ = ticks.tick() => {}
                Ok(()) = heartbeat.changed() => {
                    every = *heartbeat.borrow_and_update();
                    ticks = ticking(every);
                    alive_at = every.map(|every| Instant::now() + every);
                }
            }
            systemd::status(&self.line());
            let (over_limit, whose) = {
                let engine = self.engine.borrow();
                (engine.counts.over_limit, engine.refused.clone())
            };
            if over_limit > refused && seldom.due(Instant::now()).is_some() {
                warn!(
                    name: "ReadingsRefused",
                    device = whose.as_ref().map_or("", DeviceId::as_str),
                    readings = over_limit - refused,
                    "readings were not evaluated: they name more devices or metrics than [mqtt] max-devices and \
                     max-metrics allow; raise these, or find out who invents names"
                );
                refused = over_limit;
            }
            if let (Some(due), Some(every)) = (alive_at, every)
                && Instant::now() >= due
                // A full journal has no room for a sign of life; the status line gives one. GatewayStopped is the last.
                && !self.journal.health().borrow().parked
                && !self.stop.is_cancelled()
            {
                // From now, not from when it was due: after a full disk one is enough.
                alive_at = Some(Instant::now() + every);
                self.announcer
                    .alive(self.epoch, self.engine.borrow().active, self.backlog());
            }
        }
    }

    fn pulses(&self) -> Vec<systemd::Pulse> {
        let journal = self.journal.health().borrow().pulse;
        let mut pulses = vec![
            ("journal".to_owned(), journal),
            ("engine".to_owned(), self.engine.borrow().pulse),
        ];
        pulses.extend(
            self.uplinks
                .borrow()
                .iter()
                .map(|uplink| (format!("uplink {}", uplink.name), uplink.status.borrow().pulse)),
        );
        pulses
    }

    /// Events that the uplink which is furthest behind has yet to deliver.
    fn backlog(&self) -> u64 {
        let health = self.journal.health().borrow().clone();
        self.uplinks
            .borrow()
            .iter()
            .map(|uplink| health.behind(uplink.status.borrow().delivered))
            .max()
            .unwrap_or(0)
    }

    fn line(&self) -> String {
        let uplinks = self.uplinks.borrow();
        let connected = uplinks
            .iter()
            .filter(|uplink| uplink.status.borrow().connected)
            .count();
        let parked = if self.journal.health().borrow().parked {
            ", journal full: evaluation paused"
        } else {
            ""
        };
        format!(
            "{connected} of {} uplinks connected, {} alarms active, {} events to deliver{parked}",
            uplinks.len(),
            self.engine.borrow().active,
            self.backlog(),
        )
    }
}
