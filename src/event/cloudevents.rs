//! An event as the CloudEvents 1.0 message that subscribers read (docs/events.md), and the topic it goes to.
//!
//! Rendered at send, so that times can be corrected until then. The same entry always renders to the same
//! message but for its times, their quality and `previoussequence`. Nothing here reads a clock or can fail.
//!
//! The attributes are the same in every form; only `datacontenttype` follows the encoding, because the CBOR format
//! takes `data` as it is only if that says so.

use std::{fmt, io};

use serde::{Serialize, Serializer};

use super::{Data, Entry, Epoch, Event, Sequence, Severity, Transition};
use crate::time::{ClockQuality, EngineTime, Timestamp};
use data::Body;
pub use topic::topic;

mod data;
#[cfg(test)]
mod tests;
pub mod topic;

/// `dataschema` of a rule's event.
pub const RULE_SCHEMA: &str = "urn:tidegate:schema:rule-event:1";
/// `dataschema` of the gateway's own.
pub const GATEWAY_SCHEMA: &str = "urn:tidegate:schema:gateway-event:1";

/// Bytes of most messages: room for them at once is cheaper than growing into it.
const USUAL: usize = 1536;

/// How `data` is encoded, and in structured mode the attributes with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// JSON.
    #[default]
    Json,
    /// CBOR. Its CloudEvents format is a working draft: it may change under us.
    Cbor,
}

/// Where the attributes stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// In the payload, around `data`.
    #[default]
    Structured,
    /// Beside the payload, which is `data` alone.
    Binary,
}

/// Which of the forms a sink gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// JSON or CBOR.
    pub encoding: Encoding,
    /// Structured or binary.
    pub mode: Mode,
}

/// What is sent of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The payload's media type: the event format's, or in binary mode `datacontenttype`.
    pub content_type: &'static str,
    /// In binary mode all attributes but `datacontenttype`, in their canonical string form; else none.
    pub attributes: Vec<(String, String)>,
    /// The event, or in binary mode its data.
    pub payload: Vec<u8>,
}

/// The event as a sink of this form gets it. `previous` is the sequence that this sink was given before it.
#[must_use]
pub fn message(entry: &Entry, previous: Sequence, form: Form) -> Message {
    message_in(Vec::with_capacity(USUAL), entry, previous, form)
}

/// The same, with its payload in a buffer that has been used before.
#[must_use]
pub fn message_in(mut buffer: Vec<u8>, entry: &Entry, previous: Sequence, form: Form) -> Message {
    buffer.clear();
    let Form { encoding, mode } = form;
    let mut event = attributes(entry, previous, encoding);
    let data = Body::of(&entry.event);
    match mode {
        Mode::Structured => {
            event.data = Some(data);
            Message {
                content_type: match encoding {
                    Encoding::Json => "application/cloudevents+json",
                    Encoding::Cbor => "application/cloudevents+cbor",
                },
                attributes: Vec::new(),
                payload: encoding.encode(&event, buffer),
            }
        }
        Mode::Binary => Message {
            content_type: encoding.data_content_type(),
            attributes: properties(&event),
            payload: encoding.encode(&data, buffer),
        },
    }
}

/// The event in structured JSON mode: what the gateway's own door speaks.
#[must_use]
pub fn render(entry: &Entry, previous: Sequence) -> Vec<u8> {
    message(entry, previous, Form::default()).payload
}

/// The same, for people. Maps with string keys and numbers always serialise.
#[must_use]
pub fn render_pretty(entry: &Entry, previous: Sequence) -> String {
    let mut event = attributes(entry, previous, Encoding::Json);
    event.data = Some(Body::of(&entry.event));
    serde_json::to_string_pretty(&event).unwrap_or_default()
}

impl Encoding {
    fn data_content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Cbor => "application/cbor",
        }
    }

    fn encode(self, value: &impl Serialize, mut bytes: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Json => serde_json::to_writer(Pieces(&mut bytes), value)
                .expect("maps with string keys and numbers always serialise"),
            Self::Cbor => {
                ciborium::into_writer(value, &mut bytes).expect("and memory takes all that is written");
            }
        }
        bytes
    }
}

/// What takes an encoder's pieces: most are a quote, a colon or a comma, and a copy of one byte is no call.
struct Pieces<'a>(&'a mut Vec<u8>);

impl io::Write for Pieces<'_> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.write_all(piece).map(|()| piece.len())
    }

    #[inline]
    fn write_all(&mut self, piece: &[u8]) -> io::Result<()> {
        match piece {
            [byte] => self.0.push(*byte),
            _ => self.0.extend_from_slice(piece),
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn attributes(entry: &Entry, previous: Sequence, encoding: Encoding) -> Attributes<'_> {
    let event = &*entry.event;
    let draft = &event.draft;
    let (severitytext, severitynumber) = severity(draft.severity);
    Attributes {
        specversion: "1.0",
        id: Shown(Id(entry.epoch, entry.sequence)),
        source: &event.origin.source,
        kind: &draft.kind,
        subject: &draft.subject,
        time: wall(event, draft.at),
        recordedtime: Shown(event.recorded.wall),
        clockquality: event.recorded.quality,
        datacontenttype: encoding.data_content_type(),
        dataschema: match draft.data {
            Data::Rule(_) => RULE_SCHEMA,
            Data::Gateway(_) => GATEWAY_SCHEMA,
        },
        gateway: &event.origin.gateway,
        epoch: Shown(entry.epoch),
        sequence: Shown(entry.sequence),
        previoussequence: Shown(previous),
        partitionkey: &event.origin.gateway,
        severitytext,
        severitynumber,
        transition: draft.transition,
        correlationid: draft.correlation.as_deref(),
        data: None,
    }
}

/// The attributes of binary mode: every one but `datacontenttype`, which is the message's content type.
fn properties(attributes: &Attributes<'_>) -> Vec<(String, String)> {
    let Ok(serde_json::Value::Object(all)) = serde_json::to_value(attributes) else {
        unreachable!("a struct of strings and one number is an object")
    };
    let text = |value| match value {
        serde_json::Value::String(text) => text,
        // An integer's canonical form is its JSON.
        other => other.to_string(),
    };
    all.into_iter()
        .filter(|(name, _)| name != "datacontenttype")
        .map(|(name, value)| (name, text(value)))
        .collect()
}

/// Text and number as in the CloudEvents severity extension's table.
#[must_use]
pub fn severity(severity: Severity) -> (&'static str, u8) {
    match severity {
        Severity::Info => ("INFO", 9),
        Severity::Warning => ("WARN", 13),
        Severity::Error => ("ERROR", 17),
        Severity::Critical => ("FATAL", 21),
    }
}

fn wall(event: &Event, at: EngineTime) -> Shown<Timestamp> {
    Shown(event.recorded.wall_of(at).max(Timestamp(0)))
}

/// A string in the form that it is displayed in.
struct Shown<T>(T);

impl<T: fmt::Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

struct Id(Epoch, Sequence);

impl fmt::Display for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.0, self.1)
    }
}

/// In the order of the contract's example.
#[derive(Serialize)]
struct Attributes<'a> {
    specversion: &'static str,
    id: Shown<Id>,
    source: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    subject: &'a str,
    time: Shown<Timestamp>,
    recordedtime: Shown<Timestamp>,
    clockquality: ClockQuality,
    datacontenttype: &'static str,
    dataschema: &'static str,
    gateway: &'a str,
    epoch: Shown<Epoch>,
    sequence: Shown<Sequence>,
    previoussequence: Shown<Sequence>,
    partitionkey: &'a str,
    severitytext: &'static str,
    severitynumber: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    transition: Option<Transition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlationid: Option<&'a str>,
    /// Only in structured mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Body<'a>>,
}
