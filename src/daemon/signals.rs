//! The signals that stop: the first asks, the second insists.
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
        })
    }

    /// Cancels `stop` at the first signal and `at_once` at the second, and then ends. To be dropped when the
    /// daemon has stopped by itself.
    pub async fn watch(mut self, stop: CancellationToken, at_once: CancellationToken) {
        let signal = self.next().await;
        info!(signal, "asked to stop");
        stop.cancel();
        let signal = self.next().await;
        warn!(
            signal,
            "asked to stop again: leaving at once; the journal holds what is not delivered"
        );
        at_once.cancel();
    }

    async fn next(&mut self) -> &'static str {
        // Both are cancel-safe.
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
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
    async fn the_first_signal_asks_and_the_second_insists() {
        let (stop, at_once) = (CancellationToken::new(), CancellationToken::new());
        let signals = Signals::catch().expect("they can be caught");
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(signals.watch(stop.clone(), at_once.clone()));
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
