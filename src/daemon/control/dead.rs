//! Dead letters, as somebody at the command line resends and drops them.

use std::collections::BTreeSet;

use tracing::info;

use super::{Desk, Why};
use crate::journal::DeadLetter;

impl Desk {
    pub(super) async fn resend(&self, sink: &str, events: &[String]) -> Result<String, Why> {
        self.is_open()?;
        self.is_configured(sink)?;
        let letters = self.chosen(sink, events)?;
        self.on_disk(self.journal.resend(&letters)).await?;
        info!(sink, letters = letters.len(), "dead letters are sent again");
        Ok(format!(
            "{} sent again: what is delivered goes from the list",
            counted(&letters, sink)
        ))
    }

    pub(super) async fn drop_letters(&self, sink: &str, events: &[String]) -> Result<String, Why> {
        self.is_open()?;
        let letters = self.chosen(sink, events)?;
        self.on_disk(self.journal.drop_letters(&letters)).await?;
        info!(sink, letters = letters.len(), "dead letters were dropped");
        let which = counted(&letters, sink);
        Ok(format!("{which} dropped: EventsDiscarded tells the receiver"))
    }

    /// Whether the journal has a place or letters of this sink, configured or not.
    fn is_known(&self, sink: &str) -> Result<(), Why> {
        let letters = self.journal.dead_letters();
        let mut names: BTreeSet<String> = letters.iter().map(|letter| letter.sink.to_string()).collect();
        names.extend(self.journal.sinks().iter().map(ToString::to_string));
        if names.contains(sink) {
            return Ok(());
        }
        let names: Vec<String> = names.into_iter().collect();
        Err(format!(
            "there is no sink {sink:?}; there are: {}",
            names.join(", ")
        ))
    }

    /// Those of a sink that are named; all if none is.
    fn chosen(&self, sink: &str, events: &[String]) -> Result<Vec<DeadLetter>, Why> {
        let mut letters = self.journal.dead_letters();
        letters.retain(|letter| letter.sink.as_str() == sink);
        if letters.is_empty() {
            self.is_known(sink)?;
            return Err(format!("no event is set aside for {sink}"));
        }
        let is = |letter: &DeadLetter, event: &String| id(letter) == *event;
        for event in events {
            if !letters.iter().any(|letter| is(letter, event)) {
                return Err(format!(
                    "{event:?} is no event that is set aside for {sink}; `tidegate journal dead ls` lists them"
                ));
            }
        }
        if !events.is_empty() {
            letters.retain(|letter| events.iter().any(|event| is(letter, event)));
        }
        Ok(letters)
    }
}

fn id(letter: &DeadLetter) -> String {
    format!("{}-{}", letter.entry.epoch, letter.entry.sequence)
}

fn counted(letters: &[DeadLetter], sink: &str) -> String {
    match letters.len() {
        1 => format!("1 event of {sink} is"),
        more => format!("{more} events of {sink} are"),
    }
}
