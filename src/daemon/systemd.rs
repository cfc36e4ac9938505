//! The service manager: told when the daemon is ready, what it does, and that it lives.
//!
//! [`Watchdog`] promises: the manager's watchdog is fed only if every pulse has moved since it was last fed;
//! one stage that hangs is enough to be restarted. A stage must therefore move its pulse also when it has
//! nothing to do. Without a service manager all of this does nothing.
//!
//! Absent: a change of the environment (that is unsafe once there are threads, and the daemon starts no
//! other program that could inherit it), and any failure: a manager that does not listen is told nothing.

use std::{collections::HashMap, time::Duration};

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, error, info};

/// Checks in one period of the manager's watchdog: one that comes late is not the end.
const CHECKS_PER_PERIOD: u32 = 4;

/// Longest status text: it is one line of `systemctl status`.
const MAX_STATUS: usize = 256;

/// Recovered, rules compiled, listeners bound.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
}

/// A reload has begun; [`ready`] ends it.
pub fn reloading(status: &str) {
    let Ok(now) = NotifyState::monotonic_usec_now() else {
        return;
    };
    send(&[
        NotifyState::Reloading,
        now,
        NotifyState::Status(&one_line(status)),
    ]);
}

/// Stopping has begun.
pub fn stopping(status: &str) {
    send(&[NotifyState::Stopping, NotifyState::Status(&one_line(status))]);
}

/// The line that `systemctl status` shows.
pub fn status(status: &str) {
    send(&[NotifyState::Status(&one_line(status))]);
}

/// Asks for `more` time: recovery of a large journal may take longer than the manager waits.
pub fn extend_timeout(more: Duration) {
    let micros = u32::try_from(more.as_micros()).unwrap_or(u32::MAX);
    send(&[NotifyState::ExtendTimeoutUsec(micros)]);
}

/// How long the manager waits for a sign of life; none: it does not watch.
pub fn watchdog_period() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|period| !period.is_zero())
}

/// A pulse: a stage's name, and a number that moves while it lives.
pub type Pulse = (String, u64);

/// Feeds the manager's watchdog as long as all that `pulses` reads keeps moving. Returns at once if the manager
/// does not watch, else never.
pub async fn feed(pulses: impl Fn() -> Vec<Pulse>) {
    if let Some(period) = watchdog_period() {
        feed_every(period, pulses, || send(&[NotifyState::Watchdog])).await;
    }
}

async fn feed_every(period: Duration, pulses: impl Fn() -> Vec<Pulse>, mut feed: impl FnMut()) {
    let mut ticks = interval(period / CHECKS_PER_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watchdog = Watchdog::default();
    let mut told = false;
    loop {
        ticks.tick().await;
        match watchdog.check(&pulses()) {
            Verdict::Feed => {
                feed();
                if std::mem::take(&mut told) {
                    info!(name: "StageMoves", "all stages move again");
                }
            }
            // The first check without a pulse may be bad luck; a second one is a complaint.
            Verdict::Starve { stuck, checks } if checks > 1 && !told => {
                told = true;
                error!(
                    name: "StageStuck",
                    stage = stuck.join(", "),
                    "a stage does not move: the watchdog is not fed and will restart the daemon"
                );
            }
            Verdict::Starve { .. } => {}
        }
    }
}

/// Decides whether the daemon lives. Reads no clock, tells nobody.
#[derive(Debug, Default)]
pub struct Watchdog {
    /// The pulses when it was last fed.
    fed: HashMap<String, u64>,
    starved: u32,
}

/// What [`Watchdog::check`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All moved: feed.
    Feed,
    /// Do not feed.
    Starve {
        /// Who has not moved since it was last fed.
        stuck: Vec<String>,
        /// How many checks it is that this was not fed.
        checks: u32,
    },
}

impl Watchdog {
    /// Compares with the pulses of the last feeding. A stage that is new is given until the next check.
    pub fn check(&mut self, pulses: &[Pulse]) -> Verdict {
        let stuck: Vec<_> = pulses
            .iter()
            .filter(|(stage, pulse)| self.fed.get(stage) == Some(pulse))
            .map(|(stage, _)| stage.clone())
            .collect();
        if !stuck.is_empty() {
            self.starved += 1;
            return Verdict::Starve {
                stuck,
                checks: self.starved,
            };
        }
        self.fed = pulses.iter().cloned().collect();
        self.starved = 0;
        Verdict::Feed
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(reason = %error, "the service manager does not listen");
    }
}

/// A newline would begin another assignment.
fn one_line(status: &str) -> String {
    status
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_STATUS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulses(journal: u64, engine: u64, cloud: u64) -> Vec<Pulse> {
        vec![
            ("journal".into(), journal),
            ("engine".into(), engine),
            ("forward cloud".into(), cloud),
        ]
    }

    #[test]
    fn it_is_fed_while_every_stage_moves() {
        let mut watchdog = Watchdog::default();
        for turn in 0..5 {
            assert_eq!(watchdog.check(&pulses(turn, turn * 7, turn + 3)), Verdict::Feed);
        }
    }

    #[test]
    fn one_stage_that_hangs_is_enough_to_starve_it() {
        let mut watchdog = Watchdog::default();
        watchdog.check(&pulses(1, 1, 1));
        let stuck = vec!["engine".to_owned()];
        assert_eq!(
            watchdog.check(&pulses(2, 1, 2)),
            Verdict::Starve {
                stuck: stuck.clone(),
                checks: 1
            }
        );
        assert_eq!(
            watchdog.check(&pulses(3, 1, 3)),
            Verdict::Starve { stuck, checks: 2 }
        );
    }

    #[test]
    fn a_stage_that_moved_late_is_forgiven() {
        let mut watchdog = Watchdog::default();
        watchdog.check(&pulses(1, 1, 1));
        watchdog.check(&pulses(2, 1, 2));
        assert_eq!(watchdog.check(&pulses(2, 2, 2)), Verdict::Feed);
        let stuck = vec!["journal".to_owned()];
        assert_eq!(
            watchdog.check(&pulses(2, 3, 3)),
            Verdict::Starve { stuck, checks: 1 }
        );
    }

    #[test]
    fn moving_since_the_last_feeding_is_what_counts_not_since_the_last_check() {
        let mut watchdog = Watchdog::default();
        watchdog.check(&pulses(1, 1, 1));
        // The journal moved before this check, the engine after it: together, all have moved.
        watchdog.check(&pulses(2, 1, 2));
        assert_eq!(watchdog.check(&pulses(2, 2, 2)), Verdict::Feed);
    }

    #[test]
    fn a_new_sink_is_given_time_and_a_removed_one_is_forgotten() {
        let mut watchdog = Watchdog::default();
        watchdog.check(&pulses(1, 1, 1)[..2]);
        assert_eq!(watchdog.check(&pulses(2, 2, 1)), Verdict::Feed);
        assert_eq!(watchdog.check(&pulses(3, 3, 1)[..2]), Verdict::Feed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stage_that_hangs_keeps_the_food_away_until_it_moves_again() {
        use std::cell::Cell;
        let (turn, hangs, fed) = (Cell::new(0), Cell::new(false), Cell::new(0));
        let period = Duration::from_secs(30);
        let read = || {
            turn.set(turn.get() + 1);
            pulses(
                turn.get(),
                if hangs.get() { 7 } else { turn.get() + 100 },
                turn.get(),
            )
        };
        let mut feeding = std::pin::pin!(feed_every(period, read, || fed.set(fed.get() + 1)));
        // What was fed within ten periods.
        let mut within = async |engine_hangs| {
            hangs.set(engine_hangs);
            fed.set(0);
            drop(tokio::time::timeout(period * 10, &mut feeding).await);
            fed.get()
        };
        assert!(within(false).await >= 40);
        // Its new pulse counts once.
        assert!(within(true).await <= 1);
        assert_eq!(within(true).await, 0);
        assert!(within(false).await >= 39);
    }

    #[test]
    fn a_status_cannot_smuggle_another_message() {
        assert_eq!(one_line("3 undelivered\nREADY=1"), "3 undelivered READY=1");
    }
}
