//! The uplinks that run: one forward task per sink, each with its own stop.
//!
//! A reload leaves a sink that is as it was alone, connection and all. One that is removed or changed says goodbye
//! within [`LEAVE`]; what it had not delivered stays in the journal, behind its cursor.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use sha2::{Digest, Sha256};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::stages::{Ended, staged};
use crate::{
    config::Sinks,
    event::{Epoch, Origin, SinkName},
    forward::{self, Terms, Tls, http, mqtt},
    journal::Journal,
    time::Clock,
};

/// How long a sink that is removed or changed may take to say goodbye.
const LEAVE: Duration = Duration::from_secs(3);

/// A sink with all that its connections need.
#[derive(Debug)]
pub(super) struct Loaded {
    kind: Kind,
    /// Of the files that it names: another certificate under the same name is another sink.
    files: [u8; 32],
}

/// Every kind of sink there is.
#[derive(Clone, Debug)]
enum Kind {
    Mqtt(Box<mqtt::Settings>, Tls),
    Http(Box<http::Settings>, Tls),
}

impl Kind {
    fn terms(&self) -> &Terms {
        match self {
            Self::Mqtt(settings, _) => &settings.terms,
            Self::Http(settings, _) => &settings.terms,
        }
    }

    /// Whether their tables say the same.
    fn says_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Mqtt(settings, _), Self::Mqtt(others, _)) => settings == others,
            (Self::Http(settings, _), Self::Http(others, _)) => settings == others,
            _ => false,
        }
    }
}

impl Loaded {
    /// Reads the files that the sinks name. Blocking.
    pub(super) fn load_all(sinks: &Sinks) -> Result<Vec<Self>, forward::Error> {
        let mqtt = sinks.mqtt.iter().map(Self::mqtt);
        mqtt.chain(sinks.http.iter().map(Self::http)).collect()
    }

    fn mqtt(settings: &mqtt::Settings) -> Result<Self, forward::Error> {
        Ok(Self {
            files: digest(&[&settings.ca, &settings.cert, &settings.key]),
            kind: Kind::Mqtt(Box::new(settings.clone()), Tls::load(settings)?),
        })
    }

    fn http(settings: &http::Settings) -> Result<Self, forward::Error> {
        Ok(Self {
            // Token and key as well: a connection that lives on would go on with the old ones.
            files: digest(&[&settings.ca, &settings.bearer_file, &settings.signing_key_file]),
            kind: Kind::Http(Box::new(settings.clone()), Tls::load(settings)?),
        })
    }

    fn runs_as(&self, running: &Running) -> bool {
        self.kind.says_the_same(&running.kind) && self.files == running.files
    }
}

fn digest(files: &[&Option<PathBuf>]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for path in files.iter().copied().flatten() {
        digest.update(std::fs::read(path).unwrap_or_default());
    }
    digest.finalize().into()
}

/// What can be seen of an uplink.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) name: SinkName,
    pub(super) status: watch::Receiver<forward::Status>,
}

#[derive(Debug)]
struct Running {
    kind: Kind,
    files: [u8; 32],
    view: View,
    stop: CancellationToken,
    ended: CancellationToken,
    task: AbortHandle,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Uplinks {
    journal: Journal,
    origin: Arc<Origin>,
    epoch: Epoch,
    clock: Clock,
    running: BTreeMap<SinkName, Running>,
    /// Told whenever there are others.
    views: watch::Sender<Vec<View>>,
    pub(super) stop: CancellationToken,
    pub(super) tasks: JoinSet<Ended>,
}

impl Uplinks {
    /// None yet.
    pub(super) fn new(journal: Journal, origin: Arc<Origin>, epoch: Epoch, clock: Clock) -> Self {
        Self {
            journal,
            origin,
            epoch,
            clock,
            running: BTreeMap::new(),
            views: watch::Sender::default(),
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Who there is.
    pub(super) fn views(&self) -> watch::Receiver<Vec<View>> {
        self.views.subscribe()
    }

    /// From now on these and no others. Those whose files are not as they were count as changed.
    pub(super) async fn set(&mut self, sinks: Vec<Loaded>) {
        let is_kept = |running: &Running| sinks.iter().any(|sink| sink.runs_as(running));
        let leaving = self.running.extract_if(.., |_, running| !is_kept(running));
        let leaving: Vec<_> = leaving.map(|(_, running)| running).collect();
        leave(&leaving).await;
        for sink in sinks {
            if !self.running.contains_key(&sink.kind.terms().name) {
                self.start(sink);
            }
        }
        self.show();
    }

    /// Whether it is configured.
    pub(super) fn has(&self, name: &SinkName) -> bool {
        self.running.contains_key(name)
    }

    /// Stops one, as it would be if it were removed, until [`Uplinks::resume`].
    pub(super) async fn halt(&mut self, name: &SinkName) -> Option<Loaded> {
        let halted = self.running.remove(name)?;
        leave(std::slice::from_ref(&halted)).await;
        Some(Loaded {
            kind: halted.kind,
            files: halted.files,
        })
    }

    /// Lets it go on, from its cursor as it is now.
    pub(super) fn resume(&mut self, sink: Loaded) {
        self.start(sink);
        self.show();
    }

    fn show(&self) {
        let views = self.running.values().map(|running| running.view.clone());
        self.views.send_replace(views.collect());
    }

    fn start(&mut self, sink: Loaded) {
        let Loaded { kind, files } = sink;
        let name = kind.terms().name.clone();
        let (status, watched) = watch::channel(forward::Status::default());
        let (stop, ended) = (self.stop.child_token(), CancellationToken::new());
        let (told, guard) = (stop.clone(), ended.clone().drop_guard());
        let (journal, origin, epoch) = (self.journal.clone(), Arc::clone(&self.origin), self.epoch);
        let clock = self.clock.clone();
        let work = {
            let kind = kind.clone();
            async move {
                match kind {
                    Kind::Mqtt(settings, tls) => {
                        let uplink = mqtt::Uplink::new(*settings, tls, journal, origin, epoch);
                        uplink.run(told, status).await;
                    }
                    Kind::Http(settings, tls) => {
                        let uplink = http::Uplink::new(*settings, tls, journal, clock);
                        uplink.run(told, status).await;
                    }
                }
                drop(guard);
            }
        };
        let task = self.tasks.spawn(staged("uplink", stop.clone(), work));
        let view = View {
            name: name.clone(),
            status: watched,
        };
        let running = Running {
            kind,
            files,
            view,
            stop,
            ended,
            task,
        };
        self.running.insert(name, running);
    }
}

/// Each says goodbye within [`LEAVE`], all at once.
async fn leave(leaving: &[Running]) {
    for running in leaving {
        running.stop.cancel();
    }
    let left = async {
        for running in leaving {
            running.ended.cancelled().await;
        }
    };
    if timeout(LEAVE, left).await.is_err() {
        for running in leaving {
            running.task.abort();
            running.ended.cancelled().await;
        }
    }
}
