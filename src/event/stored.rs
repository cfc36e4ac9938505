//! An event as the journal keeps it: CBOR, as short as an event can be that stands for itself.
//!
//! Cards wear out by bytes, and every event is written to one. So fields have places instead of names, enumerations
//! are numbers, times count back from when the event was stored, and what follows from the rest is left out. But no
//! event leans on what stands elsewhere: a frame that is lost takes no other event with it.
//!
//! Maps with the names of the fields, which were written before, are read as well.

use std::{borrow::Cow, fmt, marker::PhantomData, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{
        self, Error,
        value::{MapAccessDeserializer, SeqAccessDeserializer},
    },
};

use super::{
    ConditionFacts, Data, Draft, EpisodeFacts, EpisodeId, Event, Origin, Reason, RuleData, RuleFacts,
    Severity, Transition, WindowFacts, gateway,
};
use crate::time::{ClockQuality, EngineTime, Moment};

/// The first number of the array. Another form's array cannot be read: a later version wrote it. What stands in which
/// place is the form: whoever adds, removes or moves anything, at any level, gives it another number and reads this one too.
const FORM: u8 = 2;
/// What stands before the name in the type, where `type-prefix` is not set.
const RULE_PREFIX: &str = "io.tidegate.rule.";

/// What follows from other fields unless it is given: an array of it then, null otherwise.
type Unless<T> = Option<Exactly<(T,)>>;

fn unless<T>(follows: bool, is: T) -> Unless<T> {
    (!follows).then_some(Exactly((is,)))
}

fn or<T>(given: Unless<T>, follows: impl FnOnce() -> T) -> T {
    given.map_or_else(follows, |Exactly((is,))| is)
}

/// An array that ends with the last element of the tuple. A tuple alone leaves what stands behind, and it is taken for
/// what comes after the array.
#[derive(Serialize)]
#[serde(transparent)]
struct Exactly<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Exactly<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Array<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Array<T> {
            type Value = Exactly<T>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an array")
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut elements: A) -> Result<Exactly<T>, A::Error> {
                let tuple = T::deserialize(SeqAccessDeserializer::new(&mut elements))?;
                match elements.next_element::<de::IgnoredAny>()? {
                    Some(_) => Err(A::Error::custom("more elements than this form has")),
                    None => Ok(Exactly(tuple)),
                }
            }
        }
        deserializer.deserialize_seq(Array(PhantomData))
    }
}

/// What follows from what the event is about.
struct Follows<'a> {
    data: &'a Data,
    gateway: &'a str,
}

impl<'a> Follows<'a> {
    fn kind(&self, name: &str) -> String {
        match self.data {
            Data::Rule(_) => format!("{RULE_PREFIX}{name}"),
            Data::Gateway(_) => format!("{}{name}", gateway::PREFIX),
        }
    }

    fn subject(&self) -> Cow<'a, str> {
        match self.data {
            Data::Rule(rule) => match &rule.metric {
                Some(metric) => format!("{}/{metric}", rule.device).into(),
                None => rule.device.as_str().into(),
            },
            Data::Gateway(_) => self.gateway.into(),
        }
    }

    fn about(&self) -> &'a str {
        match self.data {
            Data::Rule(rule) => rule.device.as_str(),
            Data::Gateway(_) => self.gateway,
        }
    }

    fn correlation(&self) -> Option<String> {
        match self.data {
            Data::Rule(rule) => Some(rule.episode.id.to_string()),
            Data::Gateway(_) => None,
        }
    }
}

/// The CloudEvents `source` where none is set.
fn source(gateway: &str) -> String {
    format!("urn:tidegate:gateway:{gateway}")
}

/// A clear is its raise's name and `Cleared`, unless the rule says otherwise.
fn raised_as(name: &str, transition: Option<Transition>) -> Option<&str> {
    let is_clear = transition == Some(Transition::Cleared);
    name.strip_suffix("Cleared").filter(|_| is_clear)
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self {
            draft,
            origin,
            recorded,
        } = self;
        let Draft {
            kind,
            name,
            subject,
            about,
            severity,
            at,
            transition,
            correlation,
            data,
        } = draft;
        let Origin {
            gateway,
            source: from,
            labels,
            version,
        } = &**origin;
        let Moment {
            boot_id,
            boot,
            wall,
            quality,
        } = recorded;
        let follows = Follows { data, gateway };
        let names = (
            name,
            unless(**kind == *follows.kind(name), kind),
            unless(**subject == *follows.subject(), subject),
            unless(**about == *follows.about(), about),
        );
        let happened = (
            Number(*severity),
            Ago::of(*at, recorded),
            transition.map(Number),
            unless(
                correlation.as_deref() == follows.correlation().as_deref(),
                correlation,
            ),
        );
        let origin = (gateway, unless(**from == *source(gateway), from), labels, version);
        let stored = (boot_id, boot, wall, Number(*quality));
        let (rule, own) = match data {
            Data::Rule(rule) => (Some(Rule(rule, draft, recorded)), None),
            Data::Gateway(own) => (None, Some(own)),
        };
        (FORM, names, happened, origin, stored, rule, own).serialize(serializer)
    }
}

/// What a rule tells, in an event that was stored then.
struct Rule<'a>(&'a RuleData, &'a Draft, &'a Moment);

impl Serialize for Rule<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(data, draft, recorded) = *self;
        let RuleData {
            summary,
            device,
            device_name,
            device_labels,
            metric,
            unit,
            value,
            rule,
            episode,
            window,
            conditions,
            raised_as: raise,
        } = data;
        let RuleFacts {
            name,
            kind,
            params,
            labels,
            runbook,
        } = &**rule;
        let EpisodeFacts {
            id: EpisodeId { epoch, number },
            since,
            raised_at,
            duration_ms,
            min,
            max,
            readings,
            reminder,
            flaps,
            reason,
        } = episode;
        let times = (
            Ago::of(*since, recorded),
            Ago::of(*raised_at, recorded),
            duration_ms,
        );
        let reason = reason.map(Number);
        let window = window.as_ref().map(|window| {
            let WindowFacts {
                of,
                over_ms,
                count,
                span_ms,
                approximate,
            } = window;
            (of, over_ms, count, span_ms, approximate)
        });
        let conditions: Vec<_> = conditions
            .iter()
            .map(|condition| {
                let ConditionFacts {
                    device,
                    metric,
                    value,
                    unit,
                    holds,
                } = condition;
                (device, metric, value, unit, holds)
            })
            .collect();
        (
            summary,
            (device, device_name, device_labels),
            (metric, unit, value),
            (name, kind, params, labels, runbook),
            (epoch, number, times, min, max, readings, reminder, flaps, reason),
            window,
            conditions,
            unless(
                raised_as(&draft.name, draft.transition) == raise.as_deref(),
                raise,
            ),
        )
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> de::Visitor<'de> for Either {
            type Value = Event;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an event")
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, fields: A) -> Result<Event, A::Error> {
                read(SeqAccessDeserializer::new(fields))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, fields: A) -> Result<Event, A::Error> {
                let Named {
                    draft,
                    origin,
                    recorded,
                } = Named::deserialize(MapAccessDeserializer::new(fields))?;
                Ok(Event {
                    draft,
                    origin,
                    recorded,
                })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// As it was written before.
#[derive(Deserialize)]
struct Named {
    draft: Draft,
    origin: Arc<Origin>,
    recorded: Moment,
}

fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Event, D::Error> {
    let Exactly((form, names, happened, origin, stored, rule, own)) = Deserialize::deserialize(deserializer)?;
    let (form, rule): (u8, Option<StoredRule>) = (form, rule);
    if form != FORM {
        return Err(D::Error::custom("another form"));
    }
    let Exactly((name, kind, subject, about)) = names;
    let Exactly((Number(severity), at, transition, correlation)) = happened;
    let Exactly((gateway, from, labels, version)) = origin;
    let (name, gateway, at): (Arc<str>, Arc<str>, Ago) = (name, gateway, at);
    let Exactly((boot_id, boot, wall, Number(quality))) = stored;
    let recorded = Moment {
        boot_id,
        boot,
        wall,
        quality,
    };
    let transition: Option<Number<_>> = transition;
    let transition = transition.map(|Number(transition)| transition);
    let data = match (rule, own) {
        (Some(rule), None) => Data::Rule(Box::new(rule.data(&name, transition, &recorded))),
        (None, Some(own)) => Data::Gateway(own),
        _ => return Err(D::Error::custom("a rule's event is not the gateway's own")),
    };
    let follows = Follows {
        data: &data,
        gateway: &gateway,
    };
    let kind = or(kind, || follows.kind(&name).into());
    let subject = or(subject, || follows.subject().into());
    let about = or(about, || follows.about().into());
    let correlation = or(correlation, || follows.correlation().map(Into::into));
    let source = or(from, || source(&gateway).into());
    Ok(Event {
        draft: Draft {
            kind,
            name,
            subject,
            about,
            severity,
            at: at.at(&recorded),
            transition,
            correlation,
            data,
        },
        origin: Arc::new(Origin {
            gateway,
            source,
            labels,
            version,
        }),
        recorded,
    })
}

/// What [`Rule`] wrote.
struct StoredRule {
    data: RuleData,
    since: Ago,
    raised_at: Ago,
    raised_as: Unless<Option<Arc<str>>>,
}

impl<'de> Deserialize<'de> for StoredRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Exactly((summary, device, measured, rule, episode, window, conditions, raised_as)) =
            Deserialize::deserialize(deserializer)?;
        let (window, conditions): (Option<_>, Vec<_>) = (window, conditions);
        let Exactly((device, device_name, device_labels)) = device;
        let Exactly((metric, unit, value)) = measured;
        let Exactly((name, kind, params, labels, runbook)) = rule;
        let Exactly((epoch, number, times, min, max, readings, reminder, flaps, reason)) = episode;
        let Exactly((since, raised_at, duration_ms)) = times;
        let reason: Option<Number<Reason>> = reason;
        let window = window.map(
            |Exactly((of, over_ms, count, span_ms, approximate))| WindowFacts {
                of,
                over_ms,
                count,
                span_ms,
                approximate,
            },
        );
        let conditions = conditions.into_iter();
        let conditions = conditions.map(|Exactly((device, metric, value, unit, holds))| ConditionFacts {
            device,
            metric,
            value,
            unit,
            holds,
        });
        let data = RuleData {
            summary,
            device,
            device_name,
            device_labels,
            metric,
            unit,
            value,
            rule: Arc::new(RuleFacts {
                name,
                kind,
                params,
                labels,
                runbook,
            }),
            episode: EpisodeFacts {
                id: EpisodeId { epoch, number },
                // When the event was stored is not known here.
                since: EngineTime::default(),
                raised_at: EngineTime::default(),
                duration_ms,
                min,
                max,
                readings,
                reminder,
                flaps,
                reason: reason.map(|Number(reason)| reason),
            },
            window,
            conditions: conditions.collect(),
            raised_as: None,
        };
        Ok(Self {
            data,
            since,
            raised_at,
            raised_as,
        })
    }
}

impl StoredRule {
    fn data(self, name: &str, transition: Option<Transition>, recorded: &Moment) -> RuleData {
        let mut data = self.data;
        data.episode.since = self.since.at(recorded);
        data.episode.raised_at = self.raised_at.at(recorded);
        data.raised_as = or(self.raised_as, || raised_as(name, transition).map(Into::into));
        data
    }
}

/// How long before it was stored, in microseconds; less than none if later. Round and round, so that every time has one.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Ago(i64);

impl Ago {
    pub(crate) fn of(time: EngineTime, recorded: &Moment) -> Self {
        Self(recorded.boot.0.wrapping_sub(time.0))
    }

    pub(crate) fn at(self, recorded: &Moment) -> EngineTime {
        EngineTime(recorded.boot.0.wrapping_sub(self.0))
    }
}

/// One of an enumeration, as its number.
pub(crate) struct Number<T>(pub(crate) T);

macro_rules! numbered {
    ($($type:ident { $($variant:ident = $number:literal),+ $(,)? })+) => {
        $(
            impl Serialize for Number<$type> {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.serialize_u8(match self.0 {
                        $($type::$variant => $number,)+
                    })
                }
            }

            impl<'de> Deserialize<'de> for Number<$type> {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    match u8::deserialize(deserializer)? {
                        $($number => Ok(Self($type::$variant)),)+
                        _ => Err(D::Error::custom(concat!("no ", stringify!($type)))),
                    }
                }
            }
        )+
    };
}

// Part of the format (docs/journal-format.md): added to, never renumbered.
numbered! {
    Severity { Info = 0, Warning = 1, Error = 2, Critical = 3 }
    Transition { Raised = 0, Reminded = 1, Changed = 2, Cleared = 3 }
    Reason {
        BackToNormal = 0,
        RuleChanged = 1,
        RuleRemoved = 2,
        DeviceRemoved = 3,
        OutOfPeriod = 4,
        Suppressed = 5,
        Muted = 6,
    }
    ClockQuality { Synchronised = 0, Corrected = 1, Unknown = 2 }
}

#[cfg(test)]
mod tests;
