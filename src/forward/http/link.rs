//! Events over requests: how many go into one, and what an answer means for each of them.

use std::{
    collections::VecDeque,
    future::{Future, pending},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::time::Instant;

use super::{
    Settings, Tls,
    answer::Answer,
    connection::Connection,
    outgoing::{Item, Outgoing},
};
use crate::{
    event::{Entry, Sequence},
    forward::{Link, Sink, Verdict},
    time::Clock,
};

/// A batch's bytes before compression; one event alone may have more.
const BATCH_BYTES: usize = 256 * 1024;

/// One URL.
#[derive(Debug)]
pub(super) struct Endpoint {
    settings: Arc<Settings>,
    tls: Tls,
    clock: Clock,
    away: Away,
}

/// Until when the server has sent us away, over all connections.
#[derive(Clone, Debug, Default)]
struct Away(Arc<Mutex<Option<Instant>>>);

impl Away {
    fn until(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, until: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

impl Endpoint {
    pub fn new(settings: Settings, tls: Tls, clock: Clock) -> Self {
        Self {
            settings: Arc::new(settings),
            tls,
            clock,
            away: Away::default(),
        }
    }
}

impl Sink for Endpoint {
    type Link = HttpLink;

    async fn connect(&mut self) -> Result<HttpLink, String> {
        if let Some(until) = self.away.until() {
            let left = until.saturating_duration_since(Instant::now());
            // Refused at once and asked again by the back-off: nobody has to wait for this wait at a stop.
            if !left.is_zero() {
                return Err(format!(
                    "the server wants to be left alone for {} s more",
                    left.as_secs() + 1
                ));
            }
        }
        let mut connection = Connection::new(Arc::clone(&self.settings), &self.tls, self.clock.clone());
        connection.open().await?;
        Ok(HttpLink {
            settings: Arc::clone(&self.settings),
            away: self.away.clone(),
            waiting: VecDeque::new(),
            suspects: 0,
            room: BATCH_BYTES,
            connection: Some(connection),
            posting: None,
            posted: Vec::new(),
            verdicts: VecDeque::new(),
        })
    }
}

type Posting = Pin<Box<dyn Future<Output = (Connection, Result<Answer, String>)> + Send>>;

/// One connection after another to one URL, for as long as nothing goes wrong.
pub(super) struct HttpLink {
    settings: Arc<Settings>,
    away: Away,
    /// Not yet in a request, or in none any more.
    waiting: VecDeque<Item>,
    /// So many of the first that wait were refused together: one of them is meant.
    suspects: usize,
    /// A batch's bytes; less once the server has said that one was too large.
    room: usize,
    /// None while it is `posting`.
    connection: Option<Connection>,
    posting: Option<Posting>,
    /// What is in the request.
    posted: Vec<Item>,
    verdicts: VecDeque<Verdict>,
}

impl HttpLink {
    /// Begins the next request, if there is something to send.
    fn post(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        // Half of the suspects: so each refusal halves them, until one is alone.
        let most = match self.suspects {
            0 => self.limit(),
            suspects => suspects.div_ceil(2),
        };
        let mut bytes = 0;
        while let Some(next) = self.waiting.front()
            && self.posted.len() < most
            && (self.posted.is_empty() || bytes + next.size() <= self.room)
        {
            bytes += next.size();
            self.posted.extend(self.waiting.pop_front());
        }
        let outgoing = Outgoing::of(&self.posted, self.settings.mode, self.settings.compression);
        self.posting = Some(Box::pin(async move {
            let answer = connection.post(&outgoing).await;
            (connection, answer)
        }));
    }

    fn answered(&mut self, answer: Result<Answer, String>) {
        let posted = std::mem::take(&mut self.posted);
        match answer {
            Ok(Answer::Taken) => {
                self.away.set(None);
                self.suspects = self.suspects.saturating_sub(posted.len());
                let taken = posted.iter().map(|item| Verdict::Delivered(item.position));
                self.verdicts.extend(taken);
            }
            Ok(Answer::Refused { why, too_large }) => match posted.as_slice() {
                [alone] => {
                    self.suspects = 0;
                    self.verdicts.push_back(Verdict::Refused(alone.position, why));
                }
                _ => {
                    self.suspects = posted.len();
                    if too_large {
                        self.room = posted.iter().map(Item::size).sum::<usize>() / 2;
                    }
                    for item in posted.into_iter().rev() {
                        self.waiting.push_front(item);
                    }
                }
            },
            Ok(Answer::Rejected { why, away, .. }) => {
                self.away.set(away.map(|away| Instant::now() + away));
                self.verdicts.push_back(Verdict::Lost(why));
            }
            Err(why) => self.verdicts.push_back(Verdict::Lost(why)),
        }
    }
}

impl Link for HttpLink {
    fn limit(&self) -> usize {
        self.settings.events_a_request()
    }

    fn send(&mut self, entry: &Entry, previous: Sequence) {
        self.waiting
            .push_back(Item::of(entry, previous, self.settings.mode));
    }

    fn said(&mut self) -> Option<Verdict> {
        self.verdicts.pop_front()
    }

    async fn next(&mut self) -> Verdict {
        loop {
            // All of a batch's verdicts before the next request: the places that they free fill it.
            if let Some(verdict) = self.said() {
                return verdict;
            }
            if self.posting.is_none() {
                self.post();
            }
            // The only wait. The request stays here when it is cancelled, and goes on at the next call.
            let Some(posting) = &mut self.posting else {
                return pending().await;
            };
            let (connection, answer) = posting.await;
            self.posting = None;
            self.connection = Some(connection);
            self.answered(answer);
        }
    }

    /// Nothing is in flight that anybody still wants to hear of, and HTTP knows no farewell.
    async fn close(self) {}
}
