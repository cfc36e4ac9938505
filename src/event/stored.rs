//! An event as the journal keeps it: CBOR, as short as an event can be that stands for itself.
//!
//! Cards wear out by bytes, and every event is written to one. So fields have places instead of names, enumerations
//! are numbers, times count back from when the event was stored, and what follows from the rest is left out. But no
//! event leans on what stands elsewhere: a frame that is lost takes no other event with it.
//!
//! Maps with the names of the fields, which were written before, are read as well.
//!
//! Reading is by hand (`stored/cbor.rs`): a backlog is read as fast as an uplink takes it, and a decoder for any type took
//! four times as long as what is left.

use std::{borrow::Cow, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::{
    ConditionFacts, Data, Draft, EpisodeFacts, EpisodeId, Epoch, Event, Labels, Origin, Reason, RuleData,
    RuleFacts, Severity, Transition, WindowFacts, gateway,
};
use crate::{
    reading::{DeviceId, Metric, Value},
    time::{BootId, ClockQuality, EngineTime, Moment, Timestamp},
};
use cbor::Cbor;

mod cbor;

/// The first number of the array. Another form's array cannot be read: a later version wrote it. What stands in which
/// place is the form: whoever adds, removes or moves anything, at any level, gives it another number and reads this one too.
const FORM: u8 = 2;
/// What stands before the name in the type, where `type-prefix` is not set.
const RULE_PREFIX: &str = "io.tidegate.rule.";

/// What follows from other fields unless it is given: an array of it then, null otherwise.
type Unless<T> = Option<(T,)>;

fn unless<T>(follows: bool, is: T) -> Unless<T> {
    (!follows).then_some((is,))
}

fn or<T>(given: Unless<T>, follows: impl FnOnce() -> T) -> T {
    given.map_or_else(follows, |(is,)| is)
}

/// What follows from what the event is about.
struct Follows<'a> {
    data: &'a Data,
    gateway: &'a str,
}

impl<'a> Follows<'a> {
    fn kind(&self, name: &str) -> String {
        match self.data {
            Data::Rule(_) => [RULE_PREFIX, name].concat(),
            Data::Gateway(_) => [gateway::PREFIX, name].concat(),
        }
    }

    fn subject(&self) -> Cow<'a, str> {
        match self.data {
            Data::Rule(rule) => match &rule.metric {
                Some(metric) => [rule.device.as_str(), "/", metric.as_str()].concat().into(),
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

impl Event {
    /// Of what the journal stored; none: it is of a later version, or no event.
    #[must_use]
    pub fn decode(stored: &[u8]) -> Option<Self> {
        Reader::default().event(stored)
    }
}

impl<'de> Deserialize<'de> for Event {
    /// Where one is part of something else, which is seldom.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = ciborium::Value::deserialize(deserializer)?;
        let mut stored = Vec::new();
        ciborium::into_writer(&value, &mut stored).map_err(D::Error::custom)?;
        Self::decode(&stored).ok_or_else(|| D::Error::custom("no event, or one of a later version"))
    }
}

/// As it was written before.
#[derive(Deserialize)]
struct Named {
    draft: Draft,
    origin: Arc<Origin>,
    recorded: Moment,
}

/// Reads many events. Most have their gateway, their rule and their names in common with one shortly before them: such a
/// part is known by its bytes, read once, and shared.
#[derive(Debug, Default)]
pub struct Reader {
    names: Seen<Names>,
    origins: Seen<Arc<Origin>>,
    measured: Seen<(Option<Metric>, Option<Arc<str>>)>,
    rules: Seen<Arc<RuleFacts>>,
}

/// How many different parts of a kind are known.
const SEEN: usize = 8;

/// Parts of a kind, with the bytes they were read from.
#[derive(Debug)]
struct Seen<T> {
    parts: Vec<(Box<[u8]>, T)>,
    /// Which of them goes when another one comes.
    oldest: usize,
}

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Self {
            parts: Vec::new(),
            oldest: 0,
        }
    }
}

impl<T: Clone> Seen<T> {
    fn read<'b>(&mut self, bytes: &'b [u8], read: impl FnOnce(&mut Cbor<'b>) -> Option<T>) -> Option<T> {
        if let Some((_, part)) = self.parts.iter().find(|(seen, _)| **seen == *bytes) {
            return Some(part.clone());
        }
        let part = Cbor::all(bytes, read)?;
        let seen = (bytes.into(), part.clone());
        match self.parts.get_mut(self.oldest) {
            Some(oldest) => *oldest = seen,
            None => self.parts.push(seen),
        }
        self.oldest = (self.oldest + 1) % SEEN;
        Some(part)
    }
}

/// What an event is called, and what of it does not follow from the rest.
#[derive(Clone, Debug)]
struct Names {
    name: Arc<str>,
    kind: Unless<Arc<str>>,
    subject: Unless<Arc<str>>,
    about: Unless<Arc<str>>,
}

impl Reader {
    /// The same as [`Event::decode`].
    pub fn event(&mut self, stored: &[u8]) -> Option<Event> {
        if Cbor::is_array(stored) {
            return Cbor::all(stored, |cbor| self.array(cbor));
        }
        let Named {
            draft,
            origin,
            recorded,
        } = ciborium::from_reader(stored).ok()?;
        Some(Event {
            draft,
            origin,
            recorded,
        })
    }

    fn array(&mut self, cbor: &mut Cbor<'_>) -> Option<Event> {
        cbor.array(7)?;
        if cbor.u64()? != u64::from(FORM) {
            return None;
        }
        let names = self.names.read(cbor.item()?, names)?;
        cbor.array(4)?;
        let severity = number(cbor)?;
        let at = Ago(cbor.i64()?);
        let transition = cbor.option(number)?;
        let correlation = given(cbor, |cbor| cbor.option(text))?;
        let origin = self.origins.read(cbor.item()?, origin)?;
        let recorded = moment(cbor)?;
        let rule = cbor.option(|cbor| self.rule(cbor, &names.name, transition, &recorded))?;
        let own = cbor.option(|cbor| ciborium::from_reader(cbor.item()?).ok())?;
        let data = match (rule, own) {
            (Some(rule), None) => Data::Rule(Box::new(rule)),
            (None, Some(own)) => Data::Gateway(own),
            _ => return None,
        };
        let Names {
            name,
            kind,
            subject,
            about,
        } = names;
        let follows = Follows {
            data: &data,
            gateway: &origin.gateway,
        };
        let kind = or(kind, || follows.kind(&name).into());
        let subject = or(subject, || follows.subject().into());
        let about = or(about, || follows.about().into());
        let correlation = or(correlation, || follows.correlation().map(Into::into));
        Some(Event {
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
            origin,
            recorded,
        })
    }

    /// What [`Rule`] wrote.
    fn rule(
        &mut self,
        cbor: &mut Cbor<'_>,
        name: &str,
        transition: Option<Transition>,
        recorded: &Moment,
    ) -> Option<RuleData> {
        cbor.array(8)?;
        let summary = cbor.text()?.to_owned();
        cbor.array(3)?;
        let device = device(cbor)?;
        let device_name = cbor.option(text)?;
        let device_labels = Arc::new(labels(cbor)?);
        cbor.array(3)?;
        let (metric, unit) = self.measured.read(cbor.items(2)?, |cbor| {
            Some((cbor.option(metric)?, cbor.option(text)?))
        })?;
        let value = cbor.option(value)?;
        let rule = self.rules.read(cbor.item()?, facts)?;
        let episode = episode(cbor, recorded)?;
        let window = cbor.option(window)?;
        let conditions = cbor.list(condition)?;
        let raise = given(cbor, |cbor| cbor.option(text))?;
        Some(RuleData {
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
            raised_as: or(raise, || raised_as(name, transition).map(Into::into)),
        })
    }
}

fn given<'b, T>(cbor: &mut Cbor<'b>, read: impl FnOnce(&mut Cbor<'b>) -> Option<T>) -> Option<Unless<T>> {
    cbor.option(|cbor| {
        cbor.array(1)?;
        Some((read(cbor)?,))
    })
}

fn number<T: Numbered>(cbor: &mut Cbor<'_>) -> Option<T> {
    T::of(cbor.u64()?)
}

fn text(cbor: &mut Cbor<'_>) -> Option<Arc<str>> {
    cbor.text().map(Into::into)
}

fn device(cbor: &mut Cbor<'_>) -> Option<DeviceId> {
    DeviceId::new(cbor.text()?).ok()
}

fn metric(cbor: &mut Cbor<'_>) -> Option<Metric> {
    Metric::new(cbor.text()?).ok()
}

fn labels(cbor: &mut Cbor<'_>) -> Option<Labels> {
    let count = cbor.map()?;
    let mut labels = Labels::new();
    for _ in 0..count {
        labels.insert(cbor.text()?.to_owned(), cbor.text()?.to_owned());
    }
    Some(labels)
}

fn value(cbor: &mut Cbor<'_>) -> Option<Value> {
    // As it is told apart in names, too: what is neither is a text.
    if let Some(value) = cbor.bool() {
        return Some(Value::Bool(value));
    }
    let number = cbor.f64().map(Value::Number);
    number.or_else(|| Some(Value::Text(cbor.text()?.into())))
}

fn names(cbor: &mut Cbor<'_>) -> Option<Names> {
    cbor.array(4)?;
    Some(Names {
        name: text(cbor)?,
        kind: given(cbor, text)?,
        subject: given(cbor, text)?,
        about: given(cbor, text)?,
    })
}

fn origin(cbor: &mut Cbor<'_>) -> Option<Arc<Origin>> {
    cbor.array(4)?;
    let gateway = text(cbor)?;
    let from = given(cbor, text)?;
    Some(Arc::new(Origin {
        source: or(from, || source(&gateway).into()),
        gateway,
        labels: labels(cbor)?,
        version: text(cbor)?,
    }))
}

fn moment(cbor: &mut Cbor<'_>) -> Option<Moment> {
    cbor.array(4)?;
    Some(Moment {
        boot_id: BootId(cbor.u128()?),
        boot: EngineTime(cbor.i64()?),
        wall: Timestamp(cbor.i64()?),
        quality: number(cbor)?,
    })
}

fn facts(cbor: &mut Cbor<'_>) -> Option<Arc<RuleFacts>> {
    cbor.array(5)?;
    Some(Arc::new(RuleFacts {
        name: text(cbor)?,
        kind: text(cbor)?,
        params: ciborium::from_reader(cbor.item()?).ok()?,
        labels: labels(cbor)?,
        runbook: cbor.option(|cbor| cbor.text().map(str::to_owned))?,
    }))
}

fn episode(cbor: &mut Cbor<'_>, recorded: &Moment) -> Option<EpisodeFacts> {
    cbor.array(9)?;
    let id = EpisodeId {
        epoch: Epoch(cbor.u64()?),
        number: cbor.u64()?,
    };
    cbor.array(3)?;
    Some(EpisodeFacts {
        id,
        since: Ago(cbor.i64()?).at(recorded),
        raised_at: Ago(cbor.i64()?).at(recorded),
        duration_ms: cbor.u64()?,
        min: cbor.option(Cbor::f64)?,
        max: cbor.option(Cbor::f64)?,
        readings: cbor.u64()?,
        reminder: cbor.u64()?.try_into().ok()?,
        flaps: cbor.u64()?.try_into().ok()?,
        reason: cbor.option(number)?,
    })
}

fn window(cbor: &mut Cbor<'_>) -> Option<WindowFacts> {
    cbor.array(5)?;
    Some(WindowFacts {
        of: text(cbor)?,
        over_ms: cbor.u64()?,
        count: cbor.u64()?,
        span_ms: cbor.u64()?,
        approximate: cbor.bool()?,
    })
}

fn condition(cbor: &mut Cbor<'_>) -> Option<ConditionFacts> {
    cbor.array(5)?;
    Some(ConditionFacts {
        device: device(cbor)?,
        metric: metric(cbor)?,
        value: cbor.option(value)?,
        unit: cbor.option(text)?,
        holds: cbor.option(Cbor::bool)?,
    })
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

/// What a [`Number`] can be read as.
pub(crate) trait Numbered: Sized {
    fn of(number: u64) -> Option<Self>;
}

impl<'de, T: Numbered> Deserialize<'de> for Number<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = T::of(u64::deserialize(deserializer)?);
        number
            .map(Self)
            .ok_or_else(|| D::Error::custom("a number that stands for nothing"))
    }
}

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

            impl Numbered for $type {
                fn of(number: u64) -> Option<Self> {
                    match number {
                        $($number => Some(Self::$variant),)+
                        _ => None,
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
