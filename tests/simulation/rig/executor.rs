//! One thread, and every choice from one seed: which of the tasks that are ready goes on next is drawn.
//!
//! In which order tokio's channels wake their waiters is tokio's affair and differs from run to run: here a wake only
//! says that a task is ready. Time is tokio's, paused: it passes when nobody is ready.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Wake, Waker},
};

use tokio::{
    sync::Notify,
    task::unconstrained,
    time::{Instant, sleep_until},
};

/// Names a task: later ones have higher numbers.
pub type TaskId = u64;

/// The tasks and who is ready.
pub struct Executor {
    tasks: BTreeMap<TaskId, Task>,
    ready: Arc<Ready>,
    next: TaskId,
    random: fastrand::Rng,
}

struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    waker: Waker,
}

#[derive(Default)]
struct Ready {
    tasks: Mutex<BTreeSet<TaskId>>,
    signal: Notify,
}

struct Flag(TaskId, Arc<Ready>);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.1.tasks.lock().unwrap().insert(self.0);
        self.1.signal.notify_one();
    }
}

impl Executor {
    pub fn new(random: fastrand::Rng) -> Self {
        Self {
            tasks: BTreeMap::new(),
            ready: Arc::default(),
            next: 0,
            random,
        }
    }

    pub fn spawn(&mut self, future: impl Future<Output = ()> + 'static) -> TaskId {
        self.next += 1;
        let id = self.next;
        let waker = Waker::from(Arc::new(Flag(id, Arc::clone(&self.ready))));
        // All tasks share one poll of tokio's: its budget would stop them for good.
        let future = Box::pin(unconstrained(future));
        self.tasks.insert(id, Task { future, waker });
        self.ready.tasks.lock().unwrap().insert(id);
        id
    }

    /// Drops tasks where they stand.
    pub fn kill(&mut self, ids: &[TaskId]) {
        for id in ids {
            self.tasks.remove(id);
            self.ready.tasks.lock().unwrap().remove(id);
        }
    }

    /// Polls one of those that are ready, or answers that `other` is to go on: `Some(true)` for a poll of a task,
    /// `Some(false)` for the other, none if nobody is ready.
    pub fn step(&mut self, other: bool) -> Option<bool> {
        let id = {
            let mut ready = self.ready.tasks.lock().unwrap();
            let count = ready.len() + usize::from(other);
            if count == 0 {
                return None;
            }
            let chosen = self.random.usize(..count);
            let Some(id) = ready.iter().nth(chosen).copied() else {
                return Some(false);
            };
            ready.remove(&id);
            id
        };
        if let Some(task) = self.tasks.get_mut(&id) {
            let done = task.future.as_mut().poll(&mut Context::from_waker(&task.waker));
            if done.is_ready() {
                self.tasks.remove(&id);
            }
        }
        Some(true)
    }

    /// Until somebody is ready, at most until `until`.
    pub async fn idle(&self, until: Instant) {
        tokio::select! {
            biased;
            () = self.ready.signal.notified() => {}
            () = sleep_until(until) => {}
        }
    }
}
