//! Every table and key of the contract: its shape, and whether it does something yet.
//!
//! This list decides what a file may say; `docs/configuration.md` is held to it by a test. Nothing here knows
//! what a value means, only what it looks like.

mod rules;

pub(super) use rules::INCLUDED;
use rules::{DEVICE, OVERRIDE, PERIOD, RULE};

/// One table.
#[derive(Debug)]
pub struct Table {
    /// As its header is written: `[gateway]`, `[[mqtt.readings]]`.
    pub header: &'static str,
    /// What a person calls one of them.
    pub(super) noun: &'static str,
    /// The key whose value tells one from another; empty: there is but one.
    pub(super) named_by: &'static str,
    /// Its keys, subordinate tables among them.
    pub keys: &'static [Key],
    /// Keys that somebody might look for here, and where or why not.
    pub(super) not_here: &'static [(&'static str, &'static str)],
    /// What one looks like, where the header does not show it.
    pub(super) example: &'static str,
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// Whether it does something; else it is refused as "not supported yet".
    pub live: bool,
    /// What its value looks like.
    pub shape: Shape,
}

/// What a value looks like.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// In quotes.
    Text,
    /// In quotes: `"30s"`.
    Duration,
    /// In quotes: `"64KiB"`.
    Size,
    /// In quotes: `"12/h"`.
    Rate,
    /// `true`, `false`.
    Flag,
    /// An integer.
    Whole,
    /// An integer or a float.
    Number,
    /// Text or an integer: a column.
    Place,
    /// A number, a flag or text: what a device may send.
    Value,
    /// A list of text.
    Texts,
    /// A list of numbers.
    Numbers,
    /// A table of text.
    Labels,
    /// The same, and never shown.
    Secrets,
    /// A subordinate table.
    Table(&'static Table),
    /// A list of subordinate tables.
    Tables(&'static Table),
    /// Subordinate tables under names that the file chooses.
    Named(&'static Table),
    /// A condition, as an inline table.
    Part(&'static Table),
    /// A list of conditions.
    Parts(&'static Table),
    /// Not looked at: the key is refused anyway.
    Any,
}

use Shape::{Any, Duration, Flag, Labels, Number, Numbers, Place, Size, Tables, Text, Texts, Whole};

/// The whole file.
pub static FILE: Table = Table {
    header: "",
    noun: "the top level",
    named_by: "",
    keys: &[
        live("gateway", Shape::Table(&GATEWAY)),
        live("journal", Shape::Table(&JOURNAL)),
        live("events", Shape::Table(&EVENTS)),
        live("mqtt", Shape::Table(&MQTT)),
        live("serial", Tables(&SERIAL)),
        live("device", Tables(&DEVICE)),
        live("rule", Tables(&RULE)),
        live("override", Tables(&OVERRIDE)),
        live("sink", Shape::Table(&SINK)),
        live("include", Texts),
        later_table("modbus", Tables(&MODBUS)),
        live("period", Shape::Named(&PERIOD)),
        later_table("reaction", Tables(&REACTION)),
        live("recorder", Shape::Table(&RECORDER)),
        later_table("status", Shape::Table(&STATUS)),
    ],
    ..PLAIN
};

static GATEWAY: Table = Table {
    header: "[gateway]",
    noun: "[gateway]",
    named_by: "",
    keys: &[
        live("id", Text),
        live("source", Text),
        live("labels", Labels),
        live("timezone", Text),
    ],
    ..PLAIN
};

static JOURNAL: Table = Table {
    header: "[journal]",
    noun: "[journal]",
    named_by: "",
    keys: &[
        live("dir", Text),
        live("max-bytes", Size),
        live("max-age", Duration),
        live("when-full", Text),
        live("checkpoint", Duration),
        live("state-delay", Duration),
    ],
    ..PLAIN
};

static EVENTS: Table = Table {
    header: "[events]",
    noun: "[events]",
    named_by: "",
    keys: &[
        live("type-prefix", Text),
        live("off", Texts),
        live("offline-after", Duration),
        live("heartbeat", Duration),
        live("max-clock-skew", Duration),
    ],
    ..PLAIN
};

static MQTT: Table = Table {
    header: "[mqtt]",
    noun: "[mqtt]",
    named_by: "",
    keys: &[
        live("listen", Texts),
        later("tls-listen"),
        later("tls-cert"),
        later("tls-key"),
        later("client-ca"),
        live("allow-anonymous", Flag),
        live("max-packet", Size),
        live("max-connections", Whole),
        live("max-inflight", Whole),
        live("max-devices", Whole),
        live("max-metrics", Whole),
        live("forget-after", Duration),
        live("readings", Tables(&READINGS)),
    ],
    ..PLAIN
};

static READINGS: Table = Table {
    header: "[[mqtt.readings]]",
    noun: "mqtt.readings",
    named_by: "topic",
    keys: &[
        live("topic", Text),
        live("format", Text),
        live("time", Text),
        later("profile"),
        live("metric", Tables(&READINGS_METRIC)),
    ],
    ..PLAIN
};

const METRIC_KEYS: &[Key] = &[
    live("name", Text),
    live("at", Place),
    live("unit", Text),
    live("scale", Number),
    live("offset", Number),
    live("ignore", Numbers),
    live("valid", Numbers),
];

static READINGS_METRIC: Table = Table {
    header: "[[mqtt.readings.metric]]",
    noun: "metric",
    named_by: "name",
    keys: METRIC_KEYS,
    ..PLAIN
};

static SERIAL: Table = Table {
    header: "[[serial]]",
    noun: "serial",
    named_by: "name",
    keys: &[
        live("name", Text),
        live("port", Text),
        live("baud", Whole),
        live("data-bits", Whole),
        live("parity", Text),
        live("stop-bits", Whole),
        live("flow-control", Text),
        live("framing", Text),
        later("checksum"),
        live("max-frame", Size),
        live("format", Text),
        live("device", Text),
        live("device-at", Text),
        live("metric", Tables(&SERIAL_METRIC)),
        live("poll", Tables(&SERIAL_POLL)),
    ],
    ..PLAIN
};

static SERIAL_METRIC: Table = Table {
    header: "[[serial.metric]]",
    noun: "metric",
    named_by: "name",
    keys: METRIC_KEYS,
    ..PLAIN
};

static SERIAL_POLL: Table = Table {
    header: "[[serial.poll]]",
    noun: "poll",
    named_by: "send",
    keys: &[
        live("send", Text),
        live("every", Duration),
        live("device", Text),
        live("timeout", Duration),
    ],
    ..PLAIN
};

static SINK: Table = Table {
    header: "[sink]",
    noun: "[sink]",
    named_by: "",
    keys: &[live("mqtt", Tables(&SINK_MQTT)), live("http", Tables(&SINK_HTTP))],
    ..PLAIN
};

static SINK_MQTT: Table = Table {
    header: "[[sink.mqtt]]",
    noun: "sink",
    named_by: "name",
    keys: &[
        live("name", Text),
        live("url", Text),
        live("topic", Text),
        live("status-topic", Text),
        live("version", Text),
        live("encoding", Text),
        live("mode", Text),
        live("client-id", Text),
        live("username", Text),
        live("password-file", Text),
        live("ca", Text),
        live("cert", Text),
        live("key", Text),
        live("inflight", Whole),
        live("ack-timeout", Duration),
        live("max-attempts", Whole),
        live("required", Flag),
        live("from", Text),
        live("events", Texts),
        live("min-severity", Text),
        live("devices", Texts),
        live("drain-rate", Shape::Rate),
        live("partition-by", Text),
        live("schema", Whole),
    ],
    ..PLAIN
};

static SINK_HTTP: Table = Table {
    header: "[[sink.http]]",
    noun: "sink",
    named_by: "name",
    keys: &[
        live("name", Text),
        live("url", Text),
        live("mode", Text),
        live("batch", Whole),
        live("timeout", Duration),
        live("bearer-file", Text),
        live("signing-key-file", Text),
        live("ca", Text),
        live("headers", Shape::Secrets),
        live("compression", Text),
        live("max-attempts", Whole),
        live("required", Flag),
        live("from", Text),
        live("events", Texts),
        live("min-severity", Text),
        live("devices", Texts),
        live("drain-rate", Shape::Rate),
        live("partition-by", Text),
        live("schema", Whole),
    ],
    ..PLAIN
};

static MODBUS: Table = Table {
    header: "[[modbus]]",
    noun: "modbus",
    named_by: "name",
    keys: &[
        later("name"),
        later("port"),
        later("baud"),
        later_table("unit", Tables(&MODBUS_UNIT)),
    ],
    ..PLAIN
};

static MODBUS_UNIT: Table = Table {
    header: "[[modbus.unit]]",
    noun: "unit",
    named_by: "device",
    keys: &[
        later("unit-id"),
        later("device"),
        later("every"),
        later("timeout"),
        later_table("metric", Tables(&MODBUS_METRIC)),
    ],
    ..PLAIN
};

static MODBUS_METRIC: Table = Table {
    header: "[[modbus.unit.metric]]",
    noun: "metric",
    named_by: "name",
    keys: &[
        later("name"),
        later("table"),
        later("address"),
        later("type"),
        later("word-order"),
        later("unit"),
        later("scale"),
        later("offset"),
        later("ignore"),
        later("valid"),
    ],
    ..PLAIN
};

static REACTION: Table = Table {
    header: "[[reaction]]",
    noun: "reaction on",
    named_by: "on",
    keys: &[
        later("on"),
        later("topic"),
        later("payload"),
        later("cleared-payload"),
        later("confirm-topic"),
        later("confirm-payload"),
        later("timeout"),
    ],
    ..PLAIN
};

static RECORDER: Table = Table {
    header: "[recorder]",
    noun: "[recorder]",
    named_by: "",
    keys: &[live("max-bytes", Size)],
    ..PLAIN
};

static STATUS: Table = Table {
    header: "[status]",
    noun: "[status]",
    named_by: "",
    keys: &[later("listen")],
    ..PLAIN
};

/// What a table need not say.
const PLAIN: Table = Table {
    header: "",
    noun: "",
    named_by: "",
    keys: &[],
    not_here: &[],
    example: "",
};

const fn live(name: &'static str, shape: Shape) -> Key {
    Key {
        name,
        live: true,
        shape,
    }
}

const fn later(name: &'static str) -> Key {
    later_table(name, Any)
}

const fn later_table(name: &'static str, shape: Shape) -> Key {
    Key {
        name,
        live: false,
        shape,
    }
}

/// Every table of the contract, the file itself first.
#[must_use]
pub fn tables() -> Vec<&'static Table> {
    fn collect(table: &'static Table, into: &mut Vec<&'static Table>) {
        into.push(table);
        for key in table.keys {
            if let Shape::Table(inner)
            | Tables(inner)
            | Shape::Named(inner)
            | Shape::Part(inner)
            | Shape::Parts(inner) = key.shape
                && !into.iter().any(|known| std::ptr::eq(*known, inner))
            {
                collect(inner, into);
            }
        }
    }
    let mut all = Vec::new();
    collect(&FILE, &mut all);
    all
}
