//! The signals: SIGHUP asks for a reload; of those that stop the first asks, the second insists.
//!
//! SIGTERM and SIGINT mean the same. After the first the daemon stops in order (journal closed, forwarders
//! given their grace period); the second asks to leave that and exit at once, which loses nothing either: the
//! journal holds the rest. This module never ends the process itself.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The signals, caught from [`Signals::catch`] on.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Catches them: call it before anything is opened, so that none ends the process half-way. From now on
    /// somebody must [`watch`](Self::watch).
    ///
    /// # Errors
    ///
    /// If the system does not let them be caught.
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Cancels `stop` at the first signal to stop and `at_once` at the second, and then ends; calls `reload` at every
    /// SIGHUP. To be dropped when the daemon has stopped by itself.
    pub async fn watch(mut self, stop: CancellationToken, at_once: CancellationToken, reload: impl Fn()) {
        let signal = self.next(&reload).await;
        info!(signal, "asked to stop");
        stop.cancel();
        let signal = self.next(&reload).await;
        warn!(
            signal,
            "asked to stop again: leaving at once; the journal holds what is not delivered"
        );
        at_once.cancel();
    }

    /// The next signal to stop.
    async fn next(&mut self, reload: &impl Fn()) -> &'static str {
        loop {
            // All are cancel-safe.
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hang_up.recv() => {
                    info!("SIGHUP: asked to read the configuration again");
                    reload();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{process::Command, time::Duration};

    use tokio::time::timeout;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn send(signal: &str) {
        let id = std::process::id().to_string();
        let sent = Command::new("/bin/kill").args(["-s", signal, &id]).status();
        assert!(sent.expect("kill is installed").success());
    }

    #[tokio::test]
    async fn a_hangup_reloads_the_first_signal_to_stop_asks_and_the_second_insists() {
        let (stop, at_once) = (CancellationToken::new(), CancellationToken::new());
        let signals = Signals::catch().expect("they can be caught");
        let mut tasks = tokio::task::JoinSet::new();
        let (reload, mut reloads) = tokio::sync::mpsc::channel(2);
        tasks.spawn(signals.watch(stop.clone(), at_once.clone(), move || {
            reload.try_send(()).expect("there is room");
        }));
        send("HUP");
        timeout(DEADLINE, reloads.recv())
            .await
            .expect("it is told in time")
            .expect("somebody tells");
        assert!(!stop.is_cancelled(), "a reload is no stop");
        send("TERM");
        timeout(DEADLINE, stop.cancelled())
            .await
            .expect("it asks in time");
        assert!(!at_once.is_cancelled());
        send("INT");
        timeout(DEADLINE, at_once.cancelled())
            .await
            .expect("it insists in time");
        timeout(DEADLINE, tasks.join_next())
            .await
            .expect("it ends")
            .expect("it ran")
            .expect("no panic");
    }
}
