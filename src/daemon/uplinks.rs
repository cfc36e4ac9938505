//! The uplinks that run: one forward task per sink, each with its own stop.
//!
//! A reload leaves a sink that is as it was alone, connection and all. One that is removed or changed says goodbye
//! within [`LEAVE`]; what it had not delivered stays in the journal, behind its cursor.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use sha2::{Digest, Sha256};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::stages::{Ended, staged};
use crate::{
    event::{Epoch, Origin, SinkName},
    forward::{
        self,
        mqtt::{Settings, Tls, Uplink},
    },
    journal::Journal,
};

/// How long a sink that is removed or changed may take to say goodbye.
const LEAVE: Duration = Duration::from_secs(3);

/// A sink with all that its connections need.
#[derive(Debug)]
pub(super) struct Loaded {
    settings: Settings,
    tls: Tls,
    /// Of the files that it names: another certificate under the same name is another sink.
    files: [u8; 32],
}

impl Loaded {
    /// Reads the files that the sink names.
    pub(super) fn load(settings: &Settings) -> Result<Self, forward::mqtt::Error> {
        let mut files = Sha256::new();
        for path in [&settings.ca, &settings.cert, &settings.key]
            .into_iter()
            .flatten()
        {
            files.update(std::fs::read(path).unwrap_or_default());
        }
        Ok(Self {
            settings: settings.clone(),
            tls: Tls::load(settings)?,
            files: files.finalize().into(),
        })
    }
}

/// What can be seen of an uplink.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) name: SinkName,
    pub(super) status: watch::Receiver<forward::Status>,
}

#[derive(Debug)]
struct Running {
    settings: Settings,
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
    running: BTreeMap<SinkName, Running>,
    /// Told whenever there are others.
    views: watch::Sender<Vec<View>>,
    pub(super) stop: CancellationToken,
    pub(super) tasks: JoinSet<Ended>,
}

impl Uplinks {
    /// None yet.
    pub(super) fn new(journal: Journal, origin: Arc<Origin>, epoch: Epoch) -> Self {
        Self {
            journal,
            origin,
            epoch,
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
        let is_kept = |running: &Running| {
            sinks
                .iter()
                .any(|sink| sink.settings == running.settings && sink.files == running.files)
        };
        let leaving: Vec<_> = self
            .running
            .extract_if(.., |_, running| !is_kept(running))
            .collect();
        for (_, running) in &leaving {
            running.stop.cancel();
        }
        let left = async {
            for (_, running) in &leaving {
                running.ended.cancelled().await;
            }
        };
        if timeout(LEAVE, left).await.is_err() {
            for (_, running) in &leaving {
                running.task.abort();
                running.ended.cancelled().await;
            }
        }
        for sink in sinks {
            if !self.running.contains_key(&sink.settings.name) {
                self.start(sink);
            }
        }
        let views = self.running.values().map(|running| running.view.clone());
        self.views.send_replace(views.collect());
    }

    fn start(&mut self, sink: Loaded) {
        let Loaded { settings, tls, files } = sink;
        let name = settings.name.clone();
        let uplink = Uplink::new(
            settings.clone(),
            tls,
            self.journal.clone(),
            Arc::clone(&self.origin),
            self.epoch,
        );
        let (status, watched) = watch::channel(forward::Status::default());
        let (stop, ended) = (self.stop.child_token(), CancellationToken::new());
        let (told, guard) = (stop.clone(), ended.clone().drop_guard());
        let work = async move {
            uplink.run(told, status).await;
            drop(guard);
        };
        let task = self.tasks.spawn(staged("uplink", stop.clone(), work));
        let view = View {
            name: name.clone(),
            status: watched,
        };
        let running = Running {
            settings,
            files,
            view,
            stop,
            ended,
            task,
        };
        self.running.insert(name, running);
    }
}
