//! Every table and key of the contract: its shape, and whether it does something yet.
//!
//! This list decides what a file may say; `docs/configuration.md` is held to it by a test. Nothing here knows
//! what a value means, only what it looks like.

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
    /// A subordinate table.
    Table(&'static Table),
    /// A list of subordinate tables.
    Tables(&'static Table),
    /// Not looked at: the key is refused anyway.
    Any,
}

use Shape::{
    Any, Duration, Flag, Labels, Number, Numbers, Place, Rate, Size, Tables, Text, Texts, Value, Whole,
};

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
        later("include"),
        later_table("modbus", Tables(&MODBUS)),
        later_table("period", Shape::Table(&PERIOD)),
        later_table("reaction", Tables(&REACTION)),
        later_table("recorder", Shape::Table(&RECORDER)),
        later_table("status", Shape::Table(&STATUS)),
    ],
};

static GATEWAY: Table = Table {
    header: "[gateway]",
    noun: "[gateway]",
    named_by: "",
    keys: &[
        live("id", Text),
        live("source", Text),
        live("labels", Labels),
        later("timezone"),
    ],
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
        later("checkpoint"),
        live("state-delay", Duration),
    ],
};

static EVENTS: Table = Table {
    header: "[events]",
    noun: "[events]",
    named_by: "",
    keys: &[
        live("type-prefix", Text),
        live("off", Texts),
        later("offline-after"),
        live("heartbeat", Duration),
        live("max-clock-skew", Duration),
    ],
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
        later("forget-after"),
        live("readings", Tables(&READINGS)),
    ],
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
};

static SERIAL_METRIC: Table = Table {
    header: "[[serial.metric]]",
    noun: "metric",
    named_by: "name",
    keys: METRIC_KEYS,
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
};

static DEVICE: Table = Table {
    header: "[[device]]",
    noun: "device",
    named_by: "id",
    keys: &[
        live("id", Text),
        live("name", Text),
        live("labels", Labels),
        live("from", Texts),
        later("expects"),
        later("password-hash"),
        later("publish"),
        later("subscribe"),
    ],
};

static RULE: Table = Table {
    header: "[[rule]]",
    noun: "rule",
    named_by: "event",
    keys: &[
        live("event", Text),
        live("name", Text),
        live("metric", Text),
        live("devices", Texts),
        live("where", Labels),
        live("above", Number),
        live("below", Number),
        live("outside", Numbers),
        live("inside", Numbers),
        live("equals", Value),
        live("not-equals", Value),
        later("rises-by"),
        later("falls-by"),
        later("within"),
        later("silent-for"),
        later("all"),
        later("any"),
        live("clear", Number),
        live("margin", Number),
        live("hold", Duration),
        live("clear-hold", Duration),
        live("severity", Text),
        later("of"),
        later("over"),
        later("window-min"),
        later("window-max"),
        later("unless"),
        later("unless-after"),
        later("during"),
        later("stale-after"),
        later("remind-every"),
        live("max-raises", Rate),
        live("cleared-event", Text),
        live("summary", Text),
        live("runbook", Text),
        live("labels", Labels),
    ],
};

static OVERRIDE: Table = Table {
    header: "[[override]]",
    noun: "override of",
    named_by: "rule",
    keys: &[
        live("rule", Text),
        live("devices", Texts),
        live("above", Number),
        live("below", Number),
        live("outside", Numbers),
        live("inside", Numbers),
        live("equals", Value),
        live("not-equals", Value),
        later("rises-by"),
        later("falls-by"),
        later("within"),
        later("silent-for"),
        live("clear", Number),
        live("margin", Number),
        live("hold", Duration),
        live("clear-hold", Duration),
        live("severity", Text),
    ],
};

static SINK: Table = Table {
    header: "[sink]",
    noun: "[sink]",
    named_by: "",
    keys: &[
        live("mqtt", Tables(&SINK_MQTT)),
        later_table("http", Tables(&SINK_HTTP)),
    ],
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
        later("events"),
        later("min-severity"),
        later("devices"),
        later("drain-rate"),
        live("partition-by", Text),
        live("schema", Whole),
    ],
};

static SINK_HTTP: Table = Table {
    header: "[[sink.http]]",
    noun: "sink",
    named_by: "name",
    keys: &[
        later("name"),
        later("url"),
        later("mode"),
        later("batch"),
        later("timeout"),
        later("bearer-file"),
        later("signing-key-file"),
        later("ca"),
        later("headers"),
        later("compression"),
        later("max-attempts"),
        later("required"),
        later("from"),
        later("events"),
        later("min-severity"),
        later("devices"),
        later("drain-rate"),
        later("partition-by"),
        later("schema"),
    ],
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
};

static PERIOD: Table = Table {
    header: "[period.*]",
    noun: "period",
    named_by: "",
    keys: &[later("from"), later("to"), later("days"), later("between")],
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
};

static RECORDER: Table = Table {
    header: "[recorder]",
    noun: "[recorder]",
    named_by: "",
    keys: &[later("max-bytes")],
};

static STATUS: Table = Table {
    header: "[status]",
    noun: "[status]",
    named_by: "",
    keys: &[later("listen")],
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
            if let Shape::Table(inner) | Tables(inner) = key.shape {
                collect(inner, into);
            }
        }
    }
    let mut all = Vec::new();
    collect(&FILE, &mut all);
    all
}
