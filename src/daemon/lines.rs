//! The serial lines that run. A reload changes a line where it is; only another port is opened anew.

use std::{collections::BTreeMap, sync::Arc};

use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::stages::{Ended, staged};
use crate::source::{
    Intake, Stamps,
    serial::{Counters, Serial, Settings},
};

/// What can be seen of a line.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) name: String,
    pub(super) port: String,
    pub(super) counters: Arc<Counters>,
}

#[derive(Debug)]
struct Running {
    settings: watch::Sender<Settings>,
    counters: Arc<Counters>,
    stop: CancellationToken,
}

/// All of them, by name.
#[derive(Debug)]
pub(super) struct Lines {
    stamps: Arc<Stamps>,
    running: BTreeMap<String, Running>,
    views: watch::Sender<Vec<View>>,
}

impl Lines {
    /// None yet.
    pub(super) fn new(stamps: Arc<Stamps>) -> Self {
        Self {
            stamps,
            running: BTreeMap::new(),
            views: watch::Sender::default(),
        }
    }

    /// Who there is.
    pub(super) fn views(&self) -> watch::Receiver<Vec<View>> {
        self.views.subscribe()
    }

    /// From now on these and no others.
    pub(super) fn set(
        &mut self,
        lines: &[Settings],
        intake: &Intake,
        stop: &CancellationToken,
        tasks: &mut JoinSet<Ended>,
    ) {
        let is_kept = |name: &String| lines.iter().any(|line| line.name == *name);
        for (_, gone) in self.running.extract_if(.., |name, _| !is_kept(name)) {
            gone.stop.cancel();
        }
        for line in lines {
            if let Some(running) = self.running.get(&line.name) {
                running.settings.send_if_modified(|settings| {
                    let changed = settings != line;
                    settings.clone_from(line);
                    changed
                });
                continue;
            }
            let (settings, changes) = watch::channel(line.clone());
            let (stop, counters) = (stop.child_token(), Arc::<Counters>::default());
            let serial = Serial::new(
                changes,
                intake.clone(),
                Arc::clone(&self.stamps),
                Arc::clone(&counters),
            );
            tasks.spawn(staged("serial line", stop.clone(), serial.run(stop.clone())));
            let running = Running {
                settings,
                counters,
                stop,
            };
            self.running.insert(line.name.clone(), running);
        }
        let views = self.running.iter().map(|(name, running)| View {
            name: name.clone(),
            port: running.settings.borrow().port.display().to_string(),
            counters: Arc::clone(&running.counters),
        });
        self.views.send_replace(views.collect());
    }
}
