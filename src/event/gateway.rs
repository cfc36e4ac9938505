//! The gateway's own events: for each its name, its severity and what its `data` holds. The one place that says so:
//! whoever records one fills the struct, the catalog reads [`FACTS`].

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value as Json};

use super::{Data, Draft, Severity};
use crate::time::EngineTime;

/// What stands before the name in the type.
pub const PREFIX: &str = "io.tidegate.gateway.";

/// Those that come in pairs, or belong together: they have a `correlationid`, and no others do.
pub const PAIRED: [&str; 12] = [
    "DeviceConnected",
    "DeviceDisconnected",
    "SourceFailed",
    "SourceRecovered",
    "JournalFilling",
    "JournalDrained",
    "UplinkLost",
    "UplinkRestored",
    "ClockSynchronised",
    "ClockLost",
    "AlarmMuted",
    "AlarmUnmuted",
];

/// One kind of gateway event, for the catalog.
#[derive(Clone, Copy, Debug)]
pub struct Fact {
    /// `GatewayStarted`.
    pub name: &'static str,
    /// How bad.
    pub severity: Severity,
    /// What it means, a sentence or two, as written (lines begin with a space).
    pub about: &'static str,
    /// What `data` holds.
    pub fields: &'static [Field],
}

/// One member of `data`.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it means.
    pub about: &'static str,
    /// What it looks like.
    pub shape: Shape,
}

/// What a value looks like.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// A string.
    Text,
    /// An integer that is not negative.
    Whole,
    /// A number.
    Number,
    /// `true`, `false`.
    Flag,
    /// RFC 3339, UTC, milliseconds.
    Time,
    /// A list of these.
    List(&'static Shape),
    /// One of these, or null.
    Maybe(&'static Shape),
    /// An object.
    Object(&'static [Field]),
}

/// What has a [`Shape`].
pub trait Shaped {
    /// It.
    const SHAPE: Shape;
}

/// What can be recorded.
pub trait Recorded: Serialize {
    /// Which.
    const FACT: Fact;
}

macro_rules! shaped {
    ($($type:ty => $shape:expr),+ $(,)?) => {
        $(impl Shaped for $type { const SHAPE: Shape = $shape; })+
    };
}
shaped! {
    String => Shape::Text,
    u64 => Shape::Whole,
    f64 => Shape::Number,
    bool => Shape::Flag,
    At => Shape::Time,
    // From and to, both in it.
    (u64, u64) => Shape::List(&Shape::Whole),
}
impl<T: Shaped> Shaped for Vec<T> {
    const SHAPE: Shape = Shape::List(&T::SHAPE);
}
impl<T: Shaped> Shaped for Option<T> {
    const SHAPE: Shape = Shape::Maybe(&T::SHAPE);
}

/// A time within `data`: kept on the boot clock until it is sent, so that it can be corrected until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At(pub EngineTime);

/// The only member of the object that stands for a time until it is sent.
const TIME: &str = "$boot_us";

impl Serialize for At {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(TIME, &self.0.0)?;
        map.end()
    }
}

/// `data` with every time in it as `wall` says it.
#[must_use]
pub fn with_times(data: &Map<String, Json>, wall: &impl Fn(EngineTime) -> String) -> Map<String, Json> {
    let members = data.iter();
    members
        .map(|(name, value)| (name.clone(), with_time(value, wall)))
        .collect()
}

fn with_time(value: &Json, wall: &impl Fn(EngineTime) -> String) -> Json {
    match value {
        Json::Object(map) => match map.get(TIME).and_then(Json::as_i64) {
            Some(micros) if map.len() == 1 => wall(EngineTime(micros)).into(),
            _ => with_times(map, wall).into(),
        },
        Json::Array(list) => list.iter().map(|value| with_time(value, wall)).collect(),
        plain => plain.clone(),
    }
}

/// The event that records `fact`. `subject` is the device, source or sink that it is about, or the gateway's id.
#[must_use]
pub fn draft<F: Recorded>(fact: &F, subject: &str, at: EngineTime) -> Draft {
    Draft {
        kind: format!("{PREFIX}{}", F::FACT.name).into(),
        name: F::FACT.name.into(),
        subject: subject.into(),
        about: subject.into(),
        severity: F::FACT.severity,
        at,
        transition: None,
        correlation: None,
        data: Data::Gateway(match serde_json::to_value(fact) {
            Ok(Json::Object(map)) => map,
            // Structs of text, numbers and times always serialise to an object.
            _ => Map::new(),
        }),
    }
}

macro_rules! objects {
    ($(
        $(#[doc = $about:literal])+
        $name:ident { $( $(#[doc = $field_about:literal])+ $field:ident: $type:ty, )* }
    )+) => {
        $(
            $(#[doc = $about])+
            #[derive(Clone, Debug, PartialEq, Serialize)]
            pub struct $name { $( $(#[doc = $field_about])+ pub $field: $type, )* }

            impl Shaped for $name {
                const SHAPE: Shape = Shape::Object(&[$(Field {
                    name: stringify!($field),
                    about: concat!($($field_about),+),
                    shape: <$type as Shaped>::SHAPE,
                }),*]);
            }
        )+
    };
}

macro_rules! facts {
    ($(
        $(#[doc = $about:literal])+
        $severity:ident $name:ident { $( $(#[doc = $field_about:literal])+ $field:ident: $type:ty, )* }
    )+) => {
        $(
            $(#[doc = $about])+
            #[derive(Clone, Debug, PartialEq, Serialize)]
            pub struct $name { $( $(#[doc = $field_about])+ pub $field: $type, )* }

            impl Recorded for $name {
                const FACT: Fact = Fact {
                    name: stringify!($name),
                    severity: Severity::$severity,
                    about: concat!($($about),+),
                    fields: &[$(Field {
                        name: stringify!($field),
                        about: concat!($($field_about),+),
                        shape: <$type as Shaped>::SHAPE,
                    }),*],
                };
            }
        )+
        /// All kinds, in the order of docs/events.md.
        pub const FACTS: &[Fact] = &[$($name::FACT),+];
    };
}

objects! {
    /// An open episode in `ActiveAlarms`.
    OpenAlarm {
        /// The episode's id: the `correlationid` of its events.
        id: String,
        /// The rule's name.
        rule: String,
        /// The name of the event that raised it.
        event: String,
        /// The device's id.
        device: String,
        /// What is measured; null where several metrics decide.
        metric: Option<String>,
        /// info, warning, error or critical.
        severity: String,
        /// When the condition became true.
        since: At,
        /// When it was raised.
        raised_at: At,
        /// The last value that was judged, if it is a number.
        value: Option<f64>,
        /// The last value that was judged, if it is on or off.
        value_bool: Option<bool>,
        /// The last value that was judged, if it is text.
        value_text: Option<String>,
    }
}

facts! {
    /// The gateway has started: recovered, its rules compiled, its door open.
    Info GatewayStarted {
        /// The epoch of its events.
        epoch: String,
        /// The oldest sequence that is kept.
        first_sequence: u64,
        /// The newest sequence before this start.
        last_sequence: u64,
        /// The kernel's id of this boot.
        boot_id: String,
        /// The daemon's version.
        version: String,
        /// Whether the last stop was none: a power cut, a crash.
        unclean: bool,
        /// What the journal's recovery found, a line each.
        found: Vec<String>,
        /// SHA-256 of the configuration.
        configuration_sha256: String,
    }
    /// The gateway was asked to stop.
    Info GatewayStopped {
        /// Why.
        reason: String,
    }
    /// A sign of life, every `heartbeat`.
    Info GatewayAlive {
        /// The epoch of its events.
        epoch: String,
        /// The newest sequence before this event.
        last_sequence: u64,
        /// Open episodes.
        active_episodes: u64,
        /// Events that the sink which is furthest behind has yet to deliver.
        backlog: u64,
    }
    /// All open episodes, after every start, daily, and when somebody asks; in several events if they do not fit one.
    Info ActiveAlarms {
        /// The epoch of these episodes: those of an older one are void.
        epoch: String,
        /// Which of the parts this is, from 1.
        part: u64,
        /// How many parts there are: together they are the whole list.
        parts: u64,
        /// Open episodes in all parts.
        count: u64,
        /// Those of this part.
        alarms: Vec<OpenAlarm>,
    }
    /// Another configuration is used, without a restart.
    Info ConfigurationChanged {
        /// SHA-256 of the one before.
        old_sha256: String,
        /// SHA-256 of the one that is used now.
        new_sha256: String,
        /// What differs, a line each.
        changed: Vec<String>,
        /// Keys whose new value counts only after a restart.
        needs_restart: Vec<String>,
    }
    /// A configuration was not used because it is wrong.
    Error ConfigurationRejected {
        /// What is wrong: file, line, remedy. Long ones are cut.
        report: String,
        /// What is used instead.
        used: String,
    }
    /// A device with a `[[device]]` entry has connected. Off by default.
    Info DeviceConnected {
        /// Its id.
        device: String,
    }
    /// It has been away for `offline-after`. Off by default.
    Info DeviceDisconnected {
        /// Its id.
        device: String,
        /// When its last connection ended.
        last_seen: At,
    }
    /// A serial port cannot be opened or has gone away.
    Error SourceFailed {
        /// The source's name.
        source: String,
        /// Its port.
        port: String,
        /// What the system said, and what to do.
        reason: String,
    }
    /// It is back.
    Error SourceRecovered {
        /// The source's name.
        source: String,
        /// Its port.
        port: String,
        /// How long it was away, in seconds.
        failed_for_s: u64,
    }
    /// Undelivered events take four fifths of the room that the journal has for them.
    Warning JournalFilling {
        /// Bytes of events that some sink has yet to deliver.
        undelivered_bytes: u64,
        /// What they can grow to; the rule state and a spare segment take the rest of `max_bytes`.
        room_bytes: u64,
        /// What the journal may occupy.
        max_bytes: u64,
        /// What happens when it is full: drop-oldest or refuse.
        when_full: String,
    }
    /// They take less than three fifths again.
    Warning JournalDrained {
        /// Bytes of events that some sink has yet to deliver.
        undelivered_bytes: u64,
        /// What they can grow to.
        room_bytes: u64,
        /// What the journal may occupy.
        max_bytes: u64,
    }
    /// A sink has not been reached for a while.
    Warning UplinkLost {
        /// The sink's name.
        sink: String,
        /// Why.
        reason: String,
        /// Events that wait for it.
        backlog: u64,
    }
    /// It is reached again.
    Warning UplinkRestored {
        /// The sink's name.
        sink: String,
        /// How long it was away, in seconds.
        lost_for_s: u64,
        /// Events that wait for it.
        backlog: u64,
    }
    /// Somebody muted a device or a rule: until the end it raises nothing.
    Info AlarmMuted {
        /// The muted device; null if it is a rule.
        device: Option<String>,
        /// The muted rule's name; null if it is a device.
        rule: Option<String>,
        /// When it ends.
        until: At,
        /// Why, as somebody said.
        reason: String,
    }
    /// It raises again.
    Info AlarmUnmuted {
        /// The device; null if it is a rule.
        device: Option<String>,
        /// The rule's name; null if it is a device.
        rule: Option<String>,
        /// Why the mute ended: its time was over, somebody ended it, the device was forgotten.
        reason: String,
    }
    /// Events that will not come to these sinks: their room was needed, they were too old, or the disk lost them.
    Error EventsDiscarded {
        /// Their epoch.
        epoch: String,
        /// The sinks that do not get them. It says nothing of other sinks.
        sinks: Vec<String>,
        /// From and to, both in it.
        ranges: Vec<(u64, u64)>,
        /// How many.
        count: u64,
        /// journal-full, max-age, damaged, torn-tail; dropped: somebody gave up dead letters; gap: what a sink came to
        /// that was not there and not named to it before, with what its filter left out right before that.
        reason: String,
    }
    /// A sink refused events for good: they are kept as its dead letters, to be sent again or dropped. At most once a
    /// minute for each sink.
    Error EventSetAside {
        /// Their epoch.
        epoch: String,
        /// The sink that refuses them.
        sink: String,
        /// From and to, both in it.
        ranges: Vec<(u64, u64)>,
        /// How many.
        count: u64,
        /// What the sink said of the last of them.
        reason: String,
    }
    /// A file of the journal holds bytes that are not what was written.
    Critical StorageDamaged {
        /// The file.
        file: String,
        /// The first damaged byte.
        from: u64,
        /// Behind the last.
        to: u64,
    }
    /// The wall clock can be believed: from now on the times of this boot's events are right, those before it too.
    Info ClockSynchronised {
        /// The kernel's id of this boot.
        boot_id: String,
        /// By how much the times were wrong before: positive if they were early, in seconds.
        moved_s: f64,
    }
    /// The wall clock can no longer be believed: an hour without anybody who vouches for it, or set by hand.
    Info ClockLost {
        /// The kernel's id of this boot.
        boot_id: String,
        /// When it was last known to be right.
        since: At,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_in_data_are_told_as_the_wall_clock_says_at_send() {
        let fact = DeviceDisconnected {
            device: "boiler".to_owned(),
            last_seen: At(EngineTime(-5)),
        };
        let draft = draft(&fact, "boiler", EngineTime(7));
        assert_eq!(&*draft.kind, "io.tidegate.gateway.DeviceDisconnected");
        assert_eq!(&*draft.about, "boiler");
        let Data::Gateway(data) = draft.data else {
            panic!("not the gateway's")
        };
        let told = with_times(&data, &|at| format!("{} us", at.0));
        assert_eq!(
            Json::from(told),
            json!({"device": "boiler", "last_seen": "-5 us"})
        );
    }

    #[test]
    fn what_a_fact_holds_is_what_the_catalog_reads() {
        let alarms = FACTS.iter().find(|fact| fact.name == "ActiveAlarms").unwrap();
        let names: Vec<_> = alarms.fields.iter().map(|field| field.name).collect();
        assert_eq!(names, ["epoch", "part", "parts", "count", "alarms"]);
        assert!(matches!(
            alarms.fields[4].shape,
            Shape::List(Shape::Object([Field { name: "id", .. }, ..]))
        ));
        let told = with_times(
            &Map::from_iter([("alarms".to_owned(), json!([{"since": {"$boot_us": 3}}]))]),
            &|at| at.0.to_string(),
        );
        assert_eq!(Json::from(told), json!({"alarms": [{"since": "3"}]}));
    }
}
