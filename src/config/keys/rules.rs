//! The tables that an included file may have too: `[[device]]`, `[period.*]`, `[[rule]]`, `[[override]]`.

use super::{
    Key, PLAIN,
    Shape::{Duration, Labels, Named, Number, Numbers, Part, Parts, Rate, Tables, Text, Texts, Value, Whole},
    Table, later, live,
};

/// A file that another includes.
pub(in crate::config) static INCLUDED: Table = Table {
    header: "an included file",
    noun: "an included file",
    keys: &[
        live("include", Texts),
        live("device", Tables(&DEVICE)),
        live("period", Named(&PERIOD)),
        live("rule", Tables(&RULE)),
        live("override", Tables(&OVERRIDE)),
    ],
    not_here: &[
        ("gateway", MAIN_FILE),
        ("journal", MAIN_FILE),
        ("events", MAIN_FILE),
        ("mqtt", MAIN_FILE),
        ("serial", MAIN_FILE),
        ("modbus", MAIN_FILE),
        ("sink", MAIN_FILE),
        ("reaction", MAIN_FILE),
        ("recorder", MAIN_FILE),
        ("status", MAIN_FILE),
    ],
    ..PLAIN
};

const MAIN_FILE: &str = "it belongs into the file that includes this one";

pub(super) static DEVICE: Table = Table {
    header: "[[device]]",
    noun: "device",
    named_by: "id",
    keys: &[
        live("id", Text),
        live("name", Text),
        live("labels", Labels),
        live("from", Texts),
        live("expects", Texts),
        later("password-hash"),
        later("publish"),
        later("subscribe"),
    ],
    ..PLAIN
};

pub(super) static PERIOD: Table = Table {
    header: "[period.*]",
    noun: "a period",
    keys: &[
        live("from", Text),
        live("to", Text),
        live("days", Texts),
        live("between", Texts),
    ],
    example: "[period.heating]",
    ..PLAIN
};

pub(super) static RULE: Table = Table {
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
        live("rises-by", Number),
        live("falls-by", Number),
        live("within", Duration),
        live("silent-for", Duration),
        live("all", Parts(&PART)),
        live("any", Parts(&PART)),
        live("clear", Number),
        live("margin", Number),
        live("hold", Duration),
        live("clear-hold", Duration),
        live("severity", Text),
        live("of", Text),
        live("over", Duration),
        live("window-min", Whole),
        live("window-max", Whole),
        live("unless", Part(&PART)),
        live("unless-after", Duration),
        live("during", Texts),
        live("stale-after", Duration),
        live("remind-every", Duration),
        live("max-raises", Rate),
        live("cleared-event", Text),
        live("summary", Text),
        live("runbook", Text),
        live("labels", Labels),
    ],
    ..PLAIN
};

/// What stands in `all`, `any` and `unless`.
pub(super) static PART: Table = Table {
    header: "a sub-condition",
    noun: "a sub-condition",
    named_by: "metric",
    keys: &[
        live("metric", Text),
        live("device", Text),
        live("above", Number),
        live("below", Number),
        live("outside", Numbers),
        live("inside", Numbers),
        live("equals", Value),
        live("not-equals", Value),
        live("rises-by", Number),
        live("falls-by", Number),
        live("within", Duration),
        live("clear", Number),
        live("margin", Number),
        live("of", Text),
        live("over", Duration),
        live("window-min", Whole),
        live("window-max", Whole),
    ],
    not_here: &[
        ("silent-for", "write a rule of its own for the silence"),
        ("all", NOT_NESTED),
        ("any", NOT_NESTED),
    ],
    example: "{ metric = \"valve\", above = 80 }",
};

const NOT_NESTED: &str = "they are not nested: write one list, or two rules";

pub(super) static OVERRIDE: Table = Table {
    header: "[[override]]",
    noun: "override of",
    named_by: "rule",
    keys: OVERRIDE_KEYS,
    not_here: &[
        ("all", OTHER_RULE),
        ("any", OTHER_RULE),
        ("of", OTHER_RULE),
        ("over", OTHER_RULE),
        ("window-min", OTHER_RULE),
        ("window-max", OTHER_RULE),
        ("unless", OTHER_RULE),
        ("unless-after", OTHER_RULE),
        ("during", OTHER_RULE),
        ("stale-after", OTHER_RULE),
    ],
    ..PLAIN
};

const OVERRIDE_KEYS: &[Key] = &[
    live("rule", Text),
    live("devices", Texts),
    live("above", Number),
    live("below", Number),
    live("outside", Numbers),
    live("inside", Numbers),
    live("equals", Value),
    live("not-equals", Value),
    live("rises-by", Number),
    live("falls-by", Number),
    live("within", Duration),
    live("silent-for", Duration),
    live("clear", Number),
    live("margin", Number),
    live("hold", Duration),
    live("clear-hold", Duration),
    live("severity", Text),
    live("remind-every", Duration),
];

const OTHER_RULE: &str = "it changes numbers; for the rest write a rule of its own for these devices";
