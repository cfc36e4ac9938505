//! Where readings come from, and the hand-over to the engine: counted, bounded, with the acknowledgement
//! travelling along.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc};

use crate::{event::Position, reading::Reading};

pub mod framing;
pub mod mqtt;
pub mod serial;

/// Deliveries that may wait for the engine: about 20 ms of a busy door.
pub const INTAKE_LEN: usize = 1024;

/// Readings that arrived as one, and the ticket that waits for what they cause.
#[derive(Debug)]
pub struct Delivery {
    /// In the order of the message; may be empty for a ticket that only keeps its place in the order.
    pub readings: Vec<Reading>,
    /// Who waits.
    pub ticket: Ticket,
}

/// How sources hand over: one bounded queue to the engine. Full means: do not read the socket.
pub type Intake = mpsc::Sender<Delivery>;

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Evaluated: acknowledge when the journal's `durable` has reached this position.
    Safe(Position),
    /// Not evaluated, a bound was reached (`max-devices`, `max-metrics`).
    OverLimit,
    /// Not evaluated and never will be: the engine has stopped. Never acknowledge.
    Dropped,
}

/// Where one connection's answers arrive. No task and no channel per message.
#[derive(Debug, Default)]
pub struct Answers {
    arrived: std::sync::Mutex<Vec<(u64, Answer)>>,
    signal: Notify,
}

impl Answers {
    /// A ticket whose answer arrives here under `token`.
    #[must_use]
    pub fn ticket(self: &Arc<Self>, token: u64) -> Ticket {
        Ticket(Some((Arc::clone(self), token)))
    }

    /// Waits until an answer may have arrived. Cancel-safe.
    pub async fn arrived(&self) {
        self.signal.notified().await;
    }

    /// Takes all that arrived, in the order answered.
    pub fn take(&self) -> Vec<(u64, Answer)> {
        std::mem::take(&mut *self.arrived.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

/// The right to one answer. Dropped unanswered, it answers [`Answer::Dropped`].
#[derive(Debug)]
pub struct Ticket(Option<(Arc<Answers>, u64)>);

impl Ticket {
    /// A ticket nobody waits for: serial lines have nothing to acknowledge.
    #[must_use]
    pub fn unclaimed() -> Self {
        Self(None)
    }

    /// Answers.
    pub fn answer(mut self, answer: Answer) {
        self.send(answer);
    }

    fn send(&mut self, answer: Answer) {
        if let Some((answers, token)) = self.0.take() {
            answers
                .arrived
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .push((token, answer));
            answers.signal.notify_one();
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.send(Answer::Dropped);
    }
}
