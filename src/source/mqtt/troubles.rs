//! What is wrong with what devices send, for the log: a line for each device and kind of trouble, at most one
//! an hour, and no more for all of them together than the log can bear. All of it is counted elsewhere.

use std::{
    collections::HashMap,
    mem::{Discriminant, discriminant},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::Quiet;
use crate::decode::DecodeError;

/// How long the same trouble of the same device is only counted.
const SILENCE: Duration = Duration::from_hours(1);
/// Troubles remembered; beyond it all are forgotten, and those that go on are said once more.
const MAX_KNOWN: usize = 1024;
/// Characters of a name that are kept and logged: topics may be as long as packets.
const MAX_SHOWN: usize = 128;

/// Why a publish was not, or not wholly, what it should be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(super) enum Trouble {
    #[error("{0}")]
    Undecodable(DecodeError),
    #[error("neither its topic nor its payload nor a user name tells a usable name of the device")]
    Nameless,
    #[error("it has no time that can be read")]
    NoTime,
    #[error("its time is {} s off the gateway's synchronised clock", .0.as_secs())]
    OffTime(Duration),
    #[error("{0}")]
    Refused(&'static str),
}

impl Trouble {
    /// What to look at.
    fn remedy(&self) -> &'static str {
        match self {
            Self::Undecodable(_) => {
                "nothing of it was taken; compare `format` of its [[mqtt.readings]] with what the device sends"
            }
            Self::Nameless => {
                "nothing of it was taken; put {device} into `topic` of its [[mqtt.readings]], or let the device send a user name"
            }
            Self::NoTime => {
                "its arrival counts instead; compare `time` of its [[mqtt.readings]] with what the device sends"
            }
            Self::OffTime(_) => {
                "its arrival counts instead; set the device's clock, or raise `max-clock-skew` of [events]"
            }
            Self::Refused(_) => "choose another topic",
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Undecodable(error) => (discriminant(self), Some(discriminant(error))),
            _ => (discriminant(self), None),
        }
    }
}

/// Troubles whose details differ are the same trouble still.
type Kind = (Discriminant<Trouble>, Option<Discriminant<DecodeError>>);

/// The troubles known, by device (else topic) and kind.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    known: Mutex<HashMap<(String, Kind), Known>>,
    quiet: Quiet,
}

#[derive(Debug, Default)]
struct Known {
    said: Option<Instant>,
    times: u64,
}

impl Troubles {
    /// It happened, and is said if it is time to. `device`: the publish's, if its name is known.
    pub(super) fn arose(&self, device: Option<&str>, topic: &str, trouble: &Trouble) {
        let key = (shown(device.unwrap_or(topic)), trouble.kind());
        let Some((times, unsaid_of_others)) = self.due(key, Instant::now()) else {
            return;
        };
        let (device, topic) = (device.map(shown), shown(topic));
        tracing::warn!(
            device,
            topic,
            reason = %trouble,
            unsaid = times.saturating_sub(1),
            unsaid_of_others,
            "a publish is not as it should be: {}",
            trouble.remedy()
        );
    }

    /// How often it happened since it was said, and how many lines about others were not; none: say nothing.
    fn due(&self, key: (String, Kind), now: Instant) -> Option<(u64, u64)> {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_KNOWN && !all.contains_key(&key) {
            all.clear();
        }
        let known = all.entry(key).or_default();
        known.times = known.times.saturating_add(1);
        if known.said.is_some_and(|said| now < said + SILENCE) {
            return None;
        }
        let unsaid = self.quiet.may_speak()?;
        known.said = Some(now);
        Some((std::mem::take(&mut known.times), unsaid))
    }
}

fn shown(name: &str) -> String {
    name.chars().take(MAX_SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(device: &str, trouble: &Trouble) -> (String, Kind) {
        (device.to_owned(), trouble.kind())
    }

    #[test]
    fn the_same_trouble_of_a_device_is_said_once_an_hour_with_the_number_of_times() {
        let (troubles, now) = (Troubles::default(), Instant::now());
        let broken = |text: &str| Trouble::Undecodable(DecodeError::NotJson(text.to_owned()));
        assert_eq!(troubles.due(key("a", &broken("line 1")), now), Some((1, 0)));
        assert_eq!(troubles.due(key("a", &broken("line 2")), now), None);
        assert_eq!(troubles.due(key("a", &Trouble::NoTime), now), Some((1, 0)));
        assert_eq!(troubles.due(key("b", &broken("line 1")), now), Some((1, 0)));
        let later = now + SILENCE;
        assert_eq!(troubles.due(key("a", &broken("line 3")), later), Some((2, 0)));
    }

    #[test]
    fn any_number_of_devices_is_remembered_in_bounded_memory_and_few_lines() {
        let (troubles, now) = (Troubles::default(), Instant::now());
        let said = (0..100_000)
            .filter(|number| {
                troubles
                    .due(key(&number.to_string(), &Trouble::NoTime), now)
                    .is_some()
            })
            .count();
        assert_eq!(said, 10);
        assert!(troubles.known.lock().unwrap().len() <= MAX_KNOWN);
        assert_eq!(shown(&"é".repeat(60_000)).chars().count(), MAX_SHOWN);
    }
}
