//! What a sink refuses: tried again alone, then set aside as a dead letter, and sent again when somebody asks for it.
//!
//! The cursor passes a refused event only once its letter is on the disk. A letter that is sent again goes when nothing
//! else is waiting, alone; only when it is delivered it goes from the dead letters.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{
    Cursor, Flow, Forwarder, Judged, Link, Log, ONE, Refused, Sink, backoff::Backoff, journal, pulsing,
};
use crate::{
    event::{Entry, Position, Sequence},
    journal::DeadLetter,
};

/// A disk with room has a dead letter by then. If not, the event is tried on: a full journal has room again only when
/// its sinks take something.
const ON_ITS_WAY: Duration = Duration::from_secs(5);

/// As receivers and `tidegate journal` name it.
fn id(entry: &Entry) -> String {
    format!("{}-{}", entry.epoch, entry.sequence)
}

impl<L: Log, S: Sink> Forwarder<L, S> {
    /// Sends the oldest hole again.
    pub(super) async fn resend(
        &mut self,
        flow: &mut Flow,
        link: &mut S::Link,
        position: Position,
        previous: Sequence,
    ) -> Result<(), journal::Error> {
        match self.entry_at(position).await? {
            Some(entry) => {
                self.hand_over(link, &entry, previous);
                flow.window.resent(position);
            }
            // Discarded meanwhile, for want of room: `EventsDiscarded` tells, nothing is left to send.
            None => _ = self.passed(flow, position),
        }
        Ok(())
    }

    /// The event that stands there; none if it was discarded meanwhile, for want of room.
    async fn entry_at(&self, position: Position) -> Result<Option<Entry>, journal::Error> {
        let before = Cursor::start(Position(position.0.saturating_sub(1)));
        let found = self.log.read_after(before, ONE).await?;
        Ok(found.into_iter().find(|entry| entry.position == position))
    }

    pub(super) async fn refused(
        &mut self,
        flow: &mut Flow,
        position: Position,
        reason: &str,
    ) -> Result<(), journal::Error> {
        self.tell();
        self.status.send_modify(|status| status.refused += 1);
        if self.letter_answered(flow, position, Some(reason)) {
            return Ok(());
        }
        flow.window.refused(position);
        // Of several refused events the oldest is judged first; the others when it is their turn. One that is
        // not on its way any more, delivered or discarded, is judged no further.
        let judged = self.judged.as_ref().map(|judged| judged.position);
        if judged.is_none_or(|judged| position < judged || !flow.window.contains(judged)) {
            self.judge(position, reason).await?;
        }
        let Some(judged) = self.judged.as_mut().filter(|judged| judged.position == position) else {
            return Ok(());
        };
        judged.attempts = judged.attempts.saturating_add(1);
        flow.retry_at = Instant::now() + judged.backoff.next(fastrand::u8(..));
        let (attempts, most) = (judged.attempts, self.terms.max_attempts);
        // It answers: it is not away, and nobody shall look for a broken line.
        self.status.send_modify(|status| {
            status.connected = true;
            status.last_error = Some(format!(
                "refuses an event (attempt {attempts} of {most}): {reason}"
            ));
        });
        if attempts >= most && flow.aside.is_none() {
            self.set_aside(flow, position, reason, attempts).await?;
        }
        Ok(())
    }

    /// Begins to count an event's refusals, and says which event it is.
    async fn judge(&mut self, position: Position, reason: &str) -> Result<(), journal::Error> {
        let entry = self.entry_at(position).await?;
        if let Some(entry) = &entry
            && let Some(unsaid) = self.refusing.due(Instant::now())
        {
            tracing::warn!(
                name: "EventRefused",
                sink = %self.terms.name,
                event = id(entry),
                seq = entry.sequence.0,
                kind = %entry.event.draft.kind,
                reason,
                attempts = self.terms.max_attempts,
                unsaid,
                "the sink refuses an event: nothing new is sent to it before it takes this one, which is tried again \
                 with growing waits and set aside when it was refused so often; let the receiver take it (its limit \
                 of size, its check of the payload)"
            );
        }
        self.judged = Some(Judged {
            position,
            event: entry.as_ref().map(id),
            attempts: 0,
            backoff: Backoff::new(self.pace.base, self.pace.cap),
        });
        Ok(())
    }

    async fn set_aside(
        &mut self,
        flow: &mut Flow,
        position: Position,
        reason: &str,
        attempts: u32,
    ) -> Result<(), journal::Error> {
        let Some(entry) = self.entry_at(position).await? else {
            // Discarded meanwhile: it is told, and nothing is left to set aside.
            self.passed(flow, position);
            return Ok(());
        };
        let refused = Refused {
            sink: &self.terms.name,
            entry: &entry,
            previous: flow.window.previous(position),
            reason,
            attempts,
        };
        match self.log.set_aside(&refused) {
            Ok(commit) => {
                flow.retry_at = Instant::now() + ON_ITS_WAY;
                flow.aside = Some((position, commit, (id(&entry), entry.sequence)));
            }
            Err(full) => {
                if attempts == self.terms.max_attempts {
                    tracing::error!(
                        name: "SinkStopped",
                        sink = %self.terms.name, event = id(&entry), seq = entry.sequence.0, attempts, reason, room = %full,
                        "the sink is STOPPED at an event that it refuses and that cannot be set aside; it is tried on"
                    );
                }
                let stopped =
                    format!("stopped at an event that it refuses (attempt {attempts}): {reason}; {full}");
                self.status
                    .send_modify(|status| status.last_error = Some(stopped));
            }
        }
        Ok(())
    }

    /// Passes the event that was set aside, once that is on the disk.
    pub(super) fn finish_aside(&mut self, flow: &mut Flow, durable: Position) {
        let Some((position, _, (event, seq))) = flow.aside.take_if(|(_, commit, _)| *commit <= durable)
        else {
            return;
        };
        if !flow.window.contains(position) {
            // The sink took it in the meantime.
            if let Some(letter) = self.log.letter_of(&self.terms.name, position) {
                self.log.settle(&letter, None);
            }
            return;
        }
        if let Some(unsaid) = self.setting_aside.due(Instant::now()) {
            tracing::error!(
                name: "EventSetAside",
                sink = %self.terms.name, event, seq = seq.0, unsaid,
                "an event was set aside: `tidegate journal dead` lists, resends and drops such"
            );
        }
        self.judged.take_if(|judged| judged.position == position);
        self.status.send_modify(|status| {
            status.set_aside += 1;
            status.last_error = None;
        });
        if self.passed(flow, position) {
            self.backoff.reset();
        }
    }

    /// The connection ended, for the refused event perhaps: that it is set aside needs none.
    pub(super) async fn finish_aside_without_a_link(&mut self, flow: &mut Flow) {
        let Some((_, commit, _)) = flow.aside else { return };
        let mut durable = self.log.durable();
        let on_the_disk = timeout(ON_ITS_WAY, durable.wait_for(|durable| *durable >= commit));
        if let Ok(Ok(durable)) = pulsing(&self.status.clone(), on_the_disk).await {
            let durable = *durable;
            self.finish_aside(flow, durable);
        }
    }

    /// Sends a dead letter that somebody wants to be sent.
    pub(super) fn send_letter(&mut self, flow: &mut Flow, link: &mut S::Link) {
        let Some(letter) = self.log.letter_to_resend(&self.terms.name) else {
            return;
        };
        flow.ack_due = Instant::now() + self.pace.ack_timeout;
        link.send(&letter.entry, letter.previous);
        self.status.send_modify(|status| {
            status.sent += 1;
            status.redelivered += 1;
        });
        flow.letter = Some(letter);
    }

    /// Whether this answers the letter that is on its way.
    pub(super) fn letter_answered(
        &mut self,
        flow: &mut Flow,
        position: Position,
        refused: Option<&str>,
    ) -> bool {
        let Some(letter) = flow.letter.take_if(|letter| letter.entry.position == position) else {
            return false;
        };
        let event = id(&letter.entry);
        self.log.settle(&letter, refused);
        self.cut_at = None;
        if let Some(reason) = refused {
            tracing::warn!(sink = %self.terms.name, event, reason, "a dead letter was refused again, and stays");
        } else {
            tracing::info!(sink = %self.terms.name, event, "a dead letter was delivered");
            self.status.send_modify(|status| status.acked += 1);
        }
        // It may have come with others.
        flow.more = true;
        true
    }

    /// The connection ended while it was on its way. It may be why: so it is not tried for ever.
    pub(super) fn letter_lost(&mut self, letter: &DeadLetter, reason: &str) {
        let position = letter.entry.position;
        let before = self.cut_at.filter(|(at, _)| *at == position);
        let tries = before.map_or(0, |(_, tries)| tries) + 1;
        self.cut_at = Some((position, tries));
        if tries >= self.terms.max_attempts {
            self.log.settle(letter, Some(reason));
            self.cut_at = None;
        }
    }
}
