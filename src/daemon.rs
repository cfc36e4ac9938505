//! The wiring diagram in code: build, join, stop in order.
//!
//! Who spawns, joins: every stage lives in a `JoinSet`, and a stage that ends early or panics ends the process
//! (the service manager restarts it): there is no ghost of a daemon. Sources retry inside themselves.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    config::Config,
    control::Reloaded,
    event::{Position, gateway::ConfigurationChanged},
    forward, journal,
    rule::state::Outcome,
    source,
};

pub mod absence;
pub mod announce;
mod control;
pub mod evaluate;
mod gateway;
pub mod last_good;
mod lines;
mod local;
mod pulse;
mod reload;
pub mod signals;
mod stages;
mod standing;
mod status;
pub mod systemd;
mod uplinks;
pub mod wall_clock;
mod watch;

use control::Socket;
use gateway::Gateway;
use last_good::LastGood;
use reload::{Order, Plan, Refused};
use signals::Signals;
use stages::staged;

/// How long forwarders may go on after a stop was asked for; what is left stays in the journal.
pub const GRACE: Duration = Duration::from_secs(10);

/// How long the engine and the journal may take to stop, each. The sources' own is [`source::STOP_GRACE`].
const STAGE_GRACE: Duration = Duration::from_secs(3);

/// Why a gateway does not start, or no longer runs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The journal: could not open, or stopped after a failed write.
    #[error("{0}{remedy}", remedy = remedy(.0))]
    Journal(#[from] journal::Error),
    /// The door: an address is taken, or not ours.
    #[error(transparent)]
    Door(#[from] source::mqtt::BindError),
    /// The uplink: a certificate or password file.
    #[error(transparent)]
    Uplink(#[from] forward::Error),
    /// The system refused something a daemon needs.
    #[error("could not {act}: {source}")]
    System {
        /// What, as a verb.
        act: &'static str,
        /// What it said.
        source: std::io::Error,
    },
    /// A stage ended by itself: a bug, or the stage has said why.
    #[error("the {0} ended by itself; restarting is the remedy, and the log above has the reason")]
    StageEnded(String),
}

/// One gateway, ready to run.
#[derive(Debug)]
pub struct Daemon {
    /// What to do.
    pub config: Config,
    /// The report on a configuration that was not used, if one was not.
    pub rejected: Option<String>,
    /// Where the configuration is kept once it has proven to work.
    pub last_good: Option<LastGood>,
    /// The configuration's file.
    pub source: Option<PathBuf>,
    /// Where to make the control socket; none: nobody can ask anything.
    pub socket: Option<PathBuf>,
}

/// The runtime every gateway runs on: two workers are enough.
///
/// # Errors
///
/// If the system has no more threads or descriptors.
pub fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| Error::System {
            act: "start the runtime",
            source,
        })
}

impl Daemon {
    /// Runs until SIGTERM or SIGINT.
    ///
    /// # Errors
    ///
    /// [`Error`] if it cannot start, or a stage ended by itself.
    pub async fn run_until_signal(self) -> Result<(), Error> {
        let (stop, at_once) = (CancellationToken::new(), CancellationToken::new());
        let signals = Signals::catch().map_err(|source| Error::System {
            act: "listen for signals",
            source,
        })?;
        let mut watching = JoinSet::new();
        let (orders, ordered) = mpsc::channel(1);
        watching.spawn(signals.watch(stop.clone(), at_once.clone(), {
            let orders = orders.clone();
            // Whoever sent the signal reads the log. One that comes while another waits is the same.
            move || drop(orders.try_send(Order::Reload(oneshot::channel().0)))
        }));
        // Insisting drops the orderly stop half-way, which loses nothing: the journal recovers.
        tokio::select! {
            ended = self.serve(stop, (orders, ordered), |_| ()) => ended,
            () = at_once.cancelled() => Ok(()),
        }
    }

    /// Runs until `stop` is cancelled. `ready` is called once, with the door's addresses, after recovery, with
    /// rules compiled and listeners bound: not after the uplink connects.
    ///
    /// # Errors
    ///
    /// As [`Daemon::run_until_signal`].
    pub async fn run(self, stop: CancellationToken, ready: impl FnOnce(&[SocketAddr])) -> Result<(), Error> {
        self.serve(stop, mpsc::channel(1), ready).await
    }

    async fn serve(
        mut self,
        stop: CancellationToken,
        (orders, mut ordered): (mpsc::Sender<Order>, mpsc::Receiver<Order>),
        ready: impl FnOnce(&[SocketAddr]),
    ) -> Result<(), Error> {
        // Whoever sees the door open finds the socket too: what is asked before the start is over waits for it.
        let socket = self.control_socket().await;
        let (mut gateway, beat) = Gateway::build(&self.config, self.rejected.as_deref()).await?;
        if self.rejected.is_none()
            && let Some(last_good) = &self.last_good
        {
            last_good.keep(&self.config.files);
        }
        if let Some(socket) = socket {
            let serving = socket.serve(gateway.desk(&self.config, self.rejected.is_some(), orders));
            gateway
                .others
                .spawn(staged("control socket", gateway.end.clone(), serving));
        }
        systemd::ready("ready");
        // After it: no sign of life before there is one.
        gateway
            .others
            .spawn(staged("heartbeat", gateway.end.clone(), beat.run()));
        info!(
            name: "GatewayStarted",
            rules = self.config.rules.len(),
            door = ?gateway.addresses,
            "ready"
        );
        ready(&gateway.addresses);
        loop {
            // All are cancel-safe: a token, joins, and a channel.
            tokio::select! {
                () = stop.cancelled() => break,
                early = gateway.fallen() => return Err(early),
                Some(order) = ordered.recv() => tokio::select! {
                    // Dropped half-way, a reload leaves some of the old: it ends with everything else.
                    () = stop.cancelled() => break,
                    () = self.carry_out(order, &mut gateway) => {}
                },
            }
        }
        systemd::stopping("stopping: delivering what is left");
        gateway.stop().await
    }

    /// Whoever asked by a signal, or is gone, reads the log.
    async fn carry_out(&mut self, order: Order, gateway: &mut Gateway) {
        match order {
            Order::Reload(answer) => drop(answer.send(self.reload(gateway).await)),
            Order::Replay(sink, position, answer) => drop(answer.send(gateway.replay(&sink, position).await)),
            Order::Forget(sink, answer) => drop(answer.send(gateway.forget(&sink).await)),
        }
    }

    /// The control socket. Without it everything else still runs.
    async fn control_socket(&self) -> Option<Socket> {
        let path = self.socket.as_ref()?;
        let made = Socket::make(path).await;
        if let Err(error) = &made {
            warn!(
                socket = %path.display(), reason = %error,
                "could not make the control socket: `tidegate reload`, `mute` and the like will not reach this gateway \
                 (--socket chooses another place)"
            );
        }
        made.ok()
    }

    /// Applies the configuration file as it is now, unless it is wrong.
    async fn reload(&mut self, gateway: &mut Gateway) -> Result<(Reloaded, Position), Refused> {
        let Some(path) = self.source.clone() else {
            return Err(Refused("this gateway was started without a file\n".to_owned()));
        };
        systemd::reloading("reading the configuration again");
        let running = self.config.clone();
        let planned = tokio::task::spawn_blocking(move || Plan::make(&path, &running)).await;
        let planned = planned.unwrap_or_else(|error| Err(Refused(error.to_string())));
        let reloaded = match planned {
            Err(Refused(report)) => {
                error!(name: "ConfigurationRejected", "the configuration is wrong; going on with the one that runs:\n{report}");
                gateway.rejected(&report);
                Err(Refused(report))
            }
            Ok(plan) => Ok(self.apply(gateway, plan).await),
        };
        systemd::ready("ready");
        reloaded
    }

    async fn apply(&mut self, gateway: &mut Gateway, plan: Plan) -> (Reloaded, Position) {
        let Plan {
            config,
            sinks,
            changed,
            needs_restart,
        } = plan;
        // Said already, when it was applied.
        let as_it_was = changed.is_empty() && needs_restart.is_empty();
        if !as_it_was {
            for warning in &config.warnings {
                warn!("a doubt about the configuration: {warning}");
            }
        }
        let old = std::mem::replace(&mut self.config, config);
        let config = &self.config;
        let decided = gateway.apply(config, sinks).await;
        // What waits for a restart differs each time, and is told once.
        let recorded = if config.sha256 == old.sha256 {
            None
        } else {
            gateway.announcer.record(&ConfigurationChanged {
                old_sha256: old.sha256,
                new_sha256: config.sha256.clone(),
                changed: announce::bounded_lines(&changed),
                needs_restart: needs_restart.clone(),
            })
        };
        // Without the event: an empty commit stands behind all that was decided.
        let position = recorded.unwrap_or_else(|| gateway.journal.append(Outcome::default()));
        let position = position.max(decided);
        if let Some(last_good) = self.last_good.clone() {
            let files = config.files.clone();
            // It waits for the disk, which nobody else should.
            let keeping = tokio::task::spawn_blocking(move || last_good.keep(&files)).await;
            keeping.expect("keeping a copy does not panic");
        }
        if changed.is_empty() {
            info!("the configuration was read again and is as it was");
        } else {
            info!(
                name: "ConfigurationChanged",
                changed = changed.join(", "),
                "the configuration was read again and is applied"
            );
        }
        if !needs_restart.is_empty() {
            warn!("needs a restart: {}", needs_restart.join(", "));
        }
        let reloaded = Reloaded {
            changed,
            needs_restart,
            warnings: if as_it_was {
                Vec::new()
            } else {
                config.warnings.clone()
            },
        };
        (reloaded, position)
    }
}

/// What to do about a journal that does not open, where the error itself does not say it.
fn remedy(error: &journal::Error) -> &'static str {
    use std::io::ErrorKind;
    let journal::Error::Io { source, .. } = error else {
        return "";
    };
    match source.kind() {
        ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
            "; `[journal] dir` must be a directory: move the file away, or name another"
        }
        ErrorKind::PermissionDenied => {
            "; give the directory to the user that runs tidegate (under systemd StateDirectory= does), or name another in `[journal] dir`"
        }
        ErrorKind::ReadOnlyFilesystem => {
            "; mount the filesystem writable, or name another directory in `[journal] dir`"
        }
        ErrorKind::StorageFull => "; make room on the filesystem, or lower `[journal] max-bytes`",
        _ => "",
    }
}

#[cfg(test)]
mod tests;
