//! Which events a sink gets, and how its receiver can still prove that it has them all. Pure.
//!
//! A filter judges by rule and episode: raise, reminder, change and clear share one fate. What says that something will
//! not come to this very sink always passes.

use serde_json::{Map, Value as Json};

use crate::{
    event::{Data, Draft, Position, Sequence, Severity, SinkName, gateway},
    journal::Cursor,
    rule::Pattern,
};

/// `events`, `min-severity` and `devices` of a sink.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    /// Names of events; a clear goes by its raise's.
    pub events: Vec<Pattern>,
    /// Less bad ones do not pass.
    pub min_severity: Severity,
    /// Ids of devices; an event that is about none passes.
    pub devices: Vec<Pattern>,
}

impl Default for Filter {
    /// Everything passes.
    fn default() -> Self {
        Self {
            events: vec![Pattern("*".into())],
            min_severity: Severity::Info,
            devices: vec![Pattern("*".into())],
        }
    }
}

impl Filter {
    /// Whether `sink` gets it.
    #[must_use]
    pub fn passes(&self, sink: &SinkName, draft: &Draft) -> bool {
        let (name, device) = match &draft.data {
            Data::Rule(data) => {
                // An older version's clear does not say; its name says it unless somebody chose another.
                let older = || draft.name.strip_suffix("Cleared").unwrap_or(&draft.name);
                let name = data.raised_as.as_deref().unwrap_or_else(older);
                (name, Some(data.device.as_str()))
            }
            Data::Gateway(data) => {
                if tells_a_loss(draft, data, sink) {
                    return true;
                }
                (&*draft.name, data.get("device").and_then(Json::as_str))
            }
        };
        draft.severity >= self.min_severity
            && any(&self.events, name)
            && device.is_none_or(|device| any(&self.devices, device))
    }
}

/// Whether it says of events that they will not come to this sink, or not yet.
fn tells_a_loss(draft: &Draft, data: &Map<String, Json>, sink: &SinkName) -> bool {
    let is = |name: &Json| name.as_str() == Some(sink.as_str());
    match draft.kind.strip_prefix(gateway::PREFIX) {
        Some("EventsDiscarded") => {
            let sinks = data.get("sinks").and_then(Json::as_array);
            sinks.is_some_and(|sinks| sinks.iter().any(is))
        }
        Some("EventSetAside") => data.get("sink").is_some_and(is),
        _ => false,
    }
}

fn any(patterns: &[Pattern], name: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(name))
}

/// A sink's chain, read in order: what `previoussequence` is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain {
    /// The newest number that was read; 0 where a chain starts.
    read: Sequence,
    /// Whether it is known which number comes next: of a new sink it is not, but of one as old as the journal.
    counts: bool,
    /// The newest that passed, or was lost before the filter could judge it.
    passed: Sequence,
    /// Where it begins, while `passed` does not say: 0 with its epoch.
    began: Sequence,
}

impl Chain {
    /// As it goes on behind a cursor.
    pub fn after(cursor: Cursor) -> Self {
        Self {
            read: cursor.sequence,
            counts: cursor.sequence > Sequence(0) || cursor.position == Position(0),
            passed: cursor.passed,
            began: cursor.began,
        }
    }

    /// Whether this one is not the next.
    pub fn skips_to(&self, sequence: Sequence) -> bool {
        self.counts && sequence.0 != self.read.0.saturating_add(1)
    }

    /// Reads the next number; answers the one before it in the chain.
    pub fn read(&mut self, sequence: Sequence) -> Sequence {
        let next = Sequence(self.read.0.saturating_add(1));
        if sequence < next {
            // Numbers only grow within an epoch: this is the beginning of another one.
            (self.passed, self.began) = (Sequence(0), Sequence(0));
        } else if !self.counts {
            let is_known = self.began > Sequence(0) && self.began <= sequence;
            self.began = if is_known { self.began } else { sequence };
        } else if sequence > next {
            // What lies between was discarded or torn away, and might have been for this sink.
            self.passed = Sequence(sequence.0 - 1);
        }
        (self.read, self.counts) = (sequence, true);
        self.passed
    }

    /// What was read last is for this sink.
    pub fn pass(&mut self) {
        self.passed = self.read;
    }

    /// The cursor behind what was read last.
    pub fn cursor(&self, position: Position) -> Cursor {
        Cursor {
            position,
            sequence: self.read,
            passed: self.passed,
            began: if self.passed > Sequence(0) {
                Sequence(0)
            } else {
                self.began
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{
            EpisodeFacts, EpisodeId, Epoch, RuleData, RuleFacts, Transition,
            gateway::{EventsDiscarded, GatewayAlive, UplinkLost},
        },
        reading::DeviceId,
        time::EngineTime,
    };

    fn sink() -> SinkName {
        "cloud".parse().unwrap()
    }

    fn filter(events: &[&str], min_severity: Severity, devices: &[&str]) -> Filter {
        let patterns = |all: &[&str]| all.iter().map(|&one| Pattern(one.into())).collect();
        Filter {
            events: patterns(events),
            min_severity,
            devices: patterns(devices),
        }
    }

    fn alarm(name: &str, device: &str, raised_as: Option<&str>) -> Draft {
        let at = EngineTime(0);
        let data = RuleData {
            summary: String::new(),
            device: DeviceId::new(device).unwrap(),
            device_name: None,
            device_labels: std::sync::Arc::default(),
            metric: None,
            unit: None,
            value: None,
            rule: std::sync::Arc::new(RuleFacts {
                name: "rule".into(),
                kind: "above".into(),
                params: Map::new(),
                labels: crate::event::Labels::new(),
                runbook: None,
            }),
            episode: EpisodeFacts {
                id: EpisodeId {
                    epoch: Epoch(1),
                    number: 1,
                },
                since: at,
                raised_at: at,
                duration_ms: 0,
                min: None,
                max: None,
                readings: 1,
                reminder: 0,
                flaps: 0,
                reason: None,
            },
            window: None,
            conditions: Vec::new(),
            raised_as: raised_as.map(Into::into),
        };
        Draft {
            kind: format!("io.tidegate.rule.{name}").into(),
            name: name.into(),
            subject: device.into(),
            about: device.into(),
            severity: Severity::Warning,
            at,
            transition: Some(Transition::Raised),
            correlation: None,
            data: Data::Rule(Box::new(data)),
        }
    }

    fn discarded(sinks: &[&str]) -> Draft {
        let fact = EventsDiscarded {
            epoch: String::new(),
            sinks: sinks.iter().map(|&sink| sink.to_owned()).collect(),
            ranges: Vec::new(),
            count: 0,
            reason: String::new(),
        };
        gateway::draft(&fact, "gw", EngineTime(0))
    }

    #[test]
    fn a_clear_goes_where_its_raise_goes_whatever_it_is_called() {
        let hot = filter(&["TooHot"], Severity::Info, &["*"]);
        assert!(hot.passes(&sink(), &alarm("TooHot", "a", None)));
        assert!(hot.passes(&sink(), &alarm("TooHotCleared", "a", Some("TooHot"))));
        assert!(hot.passes(&sink(), &alarm("CoolAgain", "a", Some("TooHot"))));
        assert!(!hot.passes(&sink(), &alarm("TooCold", "a", None)));
        assert!(
            hot.passes(&sink(), &alarm("TooHotCleared", "a", None)),
            "as older versions stored it"
        );
        let cleared = filter(&["*Cleared", "CoolAgain"], Severity::Info, &["*"]);
        assert!(!cleared.passes(&sink(), &alarm("TooHotCleared", "a", Some("TooHot"))));
        assert!(!cleared.passes(&sink(), &alarm("CoolAgain", "a", Some("TooHot"))));
    }

    #[test]
    fn all_three_keys_must_match_and_what_is_about_no_device_needs_none() {
        let flat = filter(&["*"], Severity::Warning, &["flat-*", "boiler"]);
        assert!(flat.passes(&sink(), &alarm("TooHot", "flat-12", None)));
        assert!(!flat.passes(&sink(), &alarm("TooHot", "cellar", None)));
        let lost = UplinkLost {
            sink: "site".to_owned(),
            reason: String::new(),
            backlog: 0,
        };
        assert!(flat.passes(&sink(), &gateway::draft(&lost, "site", EngineTime(0))));
        let alive = GatewayAlive {
            epoch: String::new(),
            last_sequence: 0,
            active_episodes: 0,
            backlog: 0,
        };
        let alive = gateway::draft(&alive, "gw", EngineTime(0));
        assert!(!flat.passes(&sink(), &alive), "it is an info");
        let worse = filter(&["*"], Severity::Error, &["*"]);
        assert!(!worse.passes(&sink(), &alarm("TooHot", "flat-12", None)));
    }

    #[test]
    fn what_says_that_this_sink_loses_something_always_passes() {
        let nothing = filter(&["Never"], Severity::Critical, &["nowhere"]);
        assert!(nothing.passes(&sink(), &discarded(&["site", "cloud"])));
        assert!(!nothing.passes(&sink(), &discarded(&["site"])));
    }

    fn chain(position: u64, sequence: u64, passed: u64) -> Chain {
        Chain::after(Cursor {
            position: Position(position),
            sequence: Sequence(sequence),
            passed: Sequence(passed),
            ..Cursor::default()
        })
    }

    #[test]
    fn what_did_not_pass_is_left_out_of_the_chain_and_what_was_lost_is_not() {
        let mut chain = chain(90, 9, 7);
        assert_eq!(chain.read(Sequence(10)), Sequence(7));
        assert_eq!(chain.read(Sequence(11)), Sequence(7));
        chain.pass();
        assert_eq!(chain.read(Sequence(12)), Sequence(11));
        assert_eq!(
            chain.read(Sequence(15)),
            Sequence(14),
            "13 and 14 may have been for us"
        );
        assert_eq!(chain.read(Sequence(16)), Sequence(14));
        let cursor = chain.cursor(Position(160));
        assert_eq!((cursor.sequence, cursor.passed), (Sequence(16), Sequence(14)));
    }

    #[test]
    fn a_chain_starts_with_zeros_for_a_new_sink_and_with_every_epoch() {
        let mut new = chain(90, 0, 0);
        assert_eq!(new.read(Sequence(31)), Sequence(0));
        assert_eq!(new.read(Sequence(33)), Sequence(32));
        let mut old = chain(0, 0, 0);
        assert_eq!(old.read(Sequence(4)), Sequence(3), "it is as old as the journal");
        let mut next = chain(90, 500, 500);
        assert_eq!(next.read(Sequence(1)), Sequence(0));
        next.pass();
        assert_eq!(next.read(Sequence(2)), Sequence(1));
    }

    #[test]
    fn a_chain_knows_where_it_began_until_something_has_passed() {
        let began = |chain: &Chain| chain.cursor(Position(0)).began;
        let mut chain = chain(90, 0, 0);
        chain.read(Sequence(500));
        chain.read(Sequence(501));
        assert_eq!(began(&chain), Sequence(500));
        let mut chain = Chain::after(chain.cursor(Position(91)));
        chain.read(Sequence(502));
        assert_eq!(began(&chain), Sequence(500), "also after a restart");
        chain.pass();
        assert_eq!(began(&chain), Sequence(0));
        chain.read(Sequence(503));
        chain.read(Sequence(1));
        assert_eq!(began(&chain), Sequence(0), "with its epoch");
    }
}
