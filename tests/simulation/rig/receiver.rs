//! What a receiver knows that does all that docs/subscribing.md says, and nothing else: which numbers it still waits for.

use std::collections::BTreeMap;

use tidegate::event::{Data, Entry, Event, Sequence, SinkName};

#[derive(Debug, Default)]
pub struct Receiver {
    epochs: BTreeMap<u64, Numbers>,
}

/// Of one epoch.
#[derive(Debug)]
struct Numbers {
    highest: u64,
    /// From and to, in order.
    gaps: Vec<(u64, u64)>,
}

impl Numbers {
    fn expect(&mut self, number: u64) {
        if number > self.highest {
            self.gaps.push((self.highest + 1, number));
            self.highest = number;
        }
    }

    /// Whether any of them was in a gap.
    fn close(&mut self, first: u64, last: u64) -> bool {
        let before = std::mem::take(&mut self.gaps);
        let mut closed = false;
        for (from, to) in before {
            closed |= from <= last && first <= to;
            let below = (from, to.min(first.saturating_sub(1)));
            let above = (from.max(last + 1), to);
            let kept = if first > last || to < first || last < from {
                vec![(from, to)]
            } else {
                vec![below, above]
            };
            self.gaps.extend(kept.into_iter().filter(|(from, to)| from <= to));
        }
        closed
    }
}

impl Receiver {
    /// The steps of docs/subscribing.md; answers whether it is new.
    pub fn receive(&mut self, entry: &Entry, previous: Sequence, sink: &SinkName) -> bool {
        let (number, previous) = (entry.sequence.0, previous.0);
        // Of a source that it knows from before.
        let begin = if previous == 0 { number - 1 } else { 0 };
        let epoch = self.epochs.entry(entry.epoch.0).or_insert(Numbers {
            highest: begin,
            gaps: Vec::new(),
        });
        epoch.expect(number);
        let new = epoch.close(number, number);
        if previous > 0 {
            epoch.close(previous + 1, number - 1);
        }
        if new {
            for (epoch, from, to) in told(&entry.event, sink) {
                if let Some(epoch) = self.epochs.get_mut(&epoch) {
                    epoch.expect(to);
                    epoch.close(from, to);
                }
            }
        }
        new
    }

    /// The first number that it waits for.
    pub fn awaits(&self) -> Option<u64> {
        let gaps = self.epochs.values().flat_map(|epoch| &epoch.gaps);
        gaps.map(|(from, _)| *from).next()
    }
}

/// What an event says that will not come to a sink: epoch, from, to.
pub fn told(event: &Event, sink: &SinkName) -> Vec<(u64, u64, u64)> {
    let Data::Gateway(data) = &event.draft.data else {
        return Vec::new();
    };
    let names = |name: &serde_json::Value| *name == *sink.as_str();
    if &*event.draft.name != "EventsDiscarded" || !data["sinks"].as_array().unwrap().iter().any(names) {
        return Vec::new();
    }
    let epoch: tidegate::event::Epoch = data["epoch"].as_str().unwrap().parse().unwrap();
    let ranges = data["ranges"].as_array().unwrap().iter();
    ranges
        .map(|range| (epoch.0, range[0].as_u64().unwrap(), range[1].as_u64().unwrap()))
        .collect()
}
