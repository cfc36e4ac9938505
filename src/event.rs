//! An event: an immutable fact, fat enough that no subscriber has to call back (docs/events.md).
//!
//! The engine writes [`Draft`]s; the journal stamps each with its origin and moment ([`Event`]) and gives it
//! its [`Sequence`] in the durable write that stores it ([`Entry`]). Nothing here reads a clock.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    reading::{DeviceId, Metric, Value},
    time::{EngineTime, Moment},
};

pub mod cloudevents;
pub mod gateway;
pub mod schema;
mod stored;

pub use stored::Reader;
pub(crate) use stored::{Ago, Number};

/// Labels of a device, a rule or the gateway.
pub type Labels = BTreeMap<String, String>;

/// Where a frame stands in the journal: grows strictly, says nothing else. `Position(0)` is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub u64);

impl Position {
    /// Of what no journal will ever have: after all others.
    pub const NEVER: Self = Self(u64::MAX);
}

/// An event's number within its epoch: 1, 2, 3, …, never assigned twice. `Sequence(0)` is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sequence(pub u64);

impl fmt::Display for Sequence {
    /// 20 digits, so that text sorts like numbers.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [b'0'; 20];
        let mut rest = self.0;
        for digit in digits.iter_mut().rev() {
            *digit += u8::try_from(rest % 10).unwrap_or_default();
            rest /= 10;
        }
        formatter.write_str(std::str::from_utf8(&digits).unwrap_or_default())
    }
}

/// A random 64-bit number made with a new journal; with the sequence it identifies an event for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

const CROCKFORD: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

impl fmt::Display for Epoch {
    /// Crockford base32, lower case, 13 characters.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [b'0'; 13];
        let mut rest = self.0;
        for digit in digits.iter_mut().rev() {
            let index = usize::try_from(rest & 31).unwrap_or(0);
            *digit = CROCKFORD.get(index).copied().unwrap_or(b'0');
            rest >>= 5;
        }
        formatter.write_str(std::str::from_utf8(&digits).unwrap_or_default())
    }
}

impl FromStr for Epoch {
    type Err = EpochError;

    /// As it is displayed.
    fn from_str(text: &str) -> Result<Self, EpochError> {
        let digit = |byte| CROCKFORD.iter().position(|digit| *digit == byte);
        if text.len() != 13 {
            return Err(EpochError);
        }
        let mut number = 0_u128;
        for byte in text.bytes() {
            number = number << 5 | digit(byte).ok_or(EpochError)? as u128;
        }
        u64::try_from(number).map(Self).map_err(|_| EpochError)
    }
}

/// Not an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an epoch has 13 digits, like 7q3k9x2m4t8vw")]
pub struct EpochError;

/// How bad it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Worth a look.
    #[default]
    Warning,
    /// Somebody should act.
    Error,
    /// Somebody must act now.
    Critical,
}

impl Severity {
    /// As the configuration and topics write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

/// Where in an episode's life an event stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transition {
    /// The alarm began.
    Raised,
    /// It goes on.
    Reminded,
    /// It goes on under other numbers.
    Changed,
    /// It ended.
    Cleared,
}

/// Why an episode was cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The value crossed the clear point.
    BackToNormal,
    /// The rule was edited and no longer holds.
    RuleChanged,
    /// The rule is no longer configured.
    RuleRemoved,
    /// The device was forgotten.
    DeviceRemoved,
    /// No period of the rule's `during` counts any more.
    OutOfPeriod,
    /// What the rule's `unless` names began to hold.
    Suppressed,
    /// Somebody muted the rule or the device.
    Muted,
}

/// Names one episode of one rule on one device, for all time: `<epoch>-e<n>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EpisodeId {
    /// The journal's epoch when it began.
    pub epoch: Epoch,
    /// The engine's own counter, from 1.
    pub number: u64,
}

impl fmt::Display for EpisodeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-e{}", self.epoch, self.number)
    }
}

/// Which gateway speaks: the same for all events of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The gateway's id.
    pub gateway: Arc<str>,
    /// The CloudEvents `source`.
    pub source: Arc<str>,
    /// The gateway's labels.
    pub labels: Labels,
    /// The version of the daemon.
    pub version: Arc<str>,
}

/// What happened, as decided: not yet stored, without a number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    /// The CloudEvents `type`, whole: `io.tidegate.rule.HighTemperature`.
    pub kind: Arc<str>,
    /// The last part of the type, as topics use it: `HighTemperature`, `HighTemperatureCleared`.
    pub name: Arc<str>,
    /// The CloudEvents `subject`: `thermostat-7/temperature`, or the gateway's id.
    pub subject: Arc<str>,
    /// `{device}` in topics: the device, source, sink or the gateway's id.
    pub about: Arc<str>,
    /// How bad.
    pub severity: Severity,
    /// When it happened.
    pub at: EngineTime,
    /// Where in the episode's life; none for the gateway's own events.
    pub transition: Option<Transition>,
    /// What ties a raise to its clear.
    pub correlation: Option<Arc<str>>,
    /// What subscribers read.
    pub data: Data,
}

/// An event's content. Times in it are on the boot clock, so that they can be corrected at send.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Data {
    /// Of a rule.
    Rule(Box<RuleData>),
    /// The gateway's own: already as JSON, its times as [`gateway::At`]. CBOR in the journal.
    Gateway(serde_json::Map<String, serde_json::Value>),
}

/// What a rule event tells (docs/events.md, `data`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleData {
    /// One line for people.
    pub summary: String,
    /// The device's id.
    pub device: DeviceId,
    /// The device's display name.
    pub device_name: Option<Arc<str>>,
    /// The device's labels.
    pub device_labels: Arc<Labels>,
    /// What was measured; none where several metrics decide.
    pub metric: Option<Metric>,
    /// In which SenML unit.
    pub unit: Option<Arc<str>>,
    /// The value that decided, if one did.
    pub value: Option<Value>,
    /// The rule that spoke, as it was.
    pub rule: Arc<RuleFacts>,
    /// The episode so far.
    pub episode: EpisodeFacts,
    /// What a windowed value was computed from.
    #[serde(default)]
    pub window: Option<WindowFacts>,
    /// The sub-conditions of `all` and `any`; else empty.
    #[serde(default)]
    pub conditions: Vec<ConditionFacts>,
    /// The name of the raise, if this is a clear: filters look at it, so that an episode's events share one fate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raised_as: Option<Arc<str>>,
}

/// What a value over a window was computed from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowFacts {
    /// Of what it is: `mean`, `rise`.
    pub of: Arc<str>,
    /// How long the window is, in milliseconds.
    pub over_ms: u64,
    /// Readings in it.
    pub count: u64,
    /// From the oldest to the newest of them, in milliseconds.
    pub span_ms: u64,
    /// Whether it had more readings than it may keep, so that some were summed up.
    pub approximate: bool,
}

/// A sub-condition as an event quotes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConditionFacts {
    /// Whose metric.
    pub device: DeviceId,
    /// Which.
    pub metric: Metric,
    /// What was looked at; none if it is unknown.
    pub value: Option<Value>,
    /// In which unit.
    pub unit: Option<Arc<str>>,
    /// Whether it holds; none if it is unknown.
    pub holds: Option<bool>,
}

/// A rule as an event quotes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleFacts {
    /// The rule's name.
    pub name: Arc<str>,
    /// The condition's configuration key: `above`, `not-equals`.
    pub kind: Arc<str>,
    /// Its numbers; durations in seconds: `{"above": 30.0, "clear": 28.0, "hold_s": 30}`.
    pub params: serde_json::Map<String, serde_json::Value>,
    /// The rule's labels.
    pub labels: Labels,
    /// Where to read what to do.
    pub runbook: Option<String>,
}

/// An episode as an event quotes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpisodeFacts {
    /// Its id.
    pub id: EpisodeId,
    /// When the condition became true.
    pub since: EngineTime,
    /// When it was raised.
    pub raised_at: EngineTime,
    /// Until the event, in milliseconds.
    pub duration_ms: u64,
    /// The smallest value since.
    pub min: Option<f64>,
    /// The largest value since.
    pub max: Option<f64>,
    /// Readings since.
    pub readings: u64,
    /// Which reminder this is, from 1; 0 for none.
    pub reminder: u32,
    /// How often it went back from clearing to active, or was raised again beyond `max-raises`.
    pub flaps: u32,
    /// Why it ended.
    pub reason: Option<Reason>,
}

/// An event as the journal stores it: complete.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What happened.
    pub draft: Draft,
    /// Who says so.
    pub origin: Arc<Origin>,
    /// When it was stored, on both clocks.
    pub recorded: Moment,
}

/// An event as a reader of the journal gets it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Where it stands.
    pub position: Position,
    /// The epoch that numbers it.
    pub epoch: Epoch,
    /// Its number.
    pub sequence: Sequence,
    /// The fact.
    pub event: Arc<Event>,
}

/// A sink's name: 1 to 64 of `A-Za-z0-9._-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SinkName(Arc<str>);

/// Not a sink's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sink's name has 1 to 64 of the characters A-Z a-z 0-9 . _ -")]
pub struct SinkNameError;

impl FromStr for SinkName {
    type Err = SinkNameError;
    fn from_str(name: &str) -> Result<Self, SinkNameError> {
        if is_identifier(name) {
            Ok(Self(name.into()))
        } else {
            Err(SinkNameError)
        }
    }
}

impl SinkName {
    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SinkName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Whether `text` has 1 to 64 of `A-Za-z0-9._-`: what gateway ids and sink names are made of.
#[must_use]
pub fn is_identifier(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}
