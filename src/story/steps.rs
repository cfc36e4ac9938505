//! The steps of a story: readings, what happens to the gateway, and what is expected of it.

use std::{collections::BTreeSet, ops::Range, time::Duration};

use toml::de::{DeTable, DeValue};

use super::{
    Act, At, ClockChange, ClockSet, Expected, Fact, Step, Stop,
    compare::FACTS,
    parse::{Item, Parsed, Reader, Rules, number},
};
use crate::{
    config::units,
    reading::{DeviceId, Value},
    rule::engine::MuteTarget,
};

/// The words that a step is recognised by.
pub(super) const WORDS: &[&str] = &[
    "expect",
    "gateway",
    "clock",
    "synchronised",
    "reload",
    "mute",
    "unmute",
    "forget",
];
/// The keys of a reading that are no metric.
const READING: &[&str] = &[
    "at", "device", "every", "times", "stamp", "unit", "metric", "value",
];
const GATEWAY: &[&str] = &["at", "gateway", "away", "clock", "synchronised"];
const CLOCK: &[&str] = &["at", "clock", "synchronised"];
const RELOAD: &[&str] = &["at", "reload"];
const MUTE: &[&str] = &["at", "mute", "for", "reason"];
const UNMUTE: &[&str] = &["at", "unmute"];
const FORGET: &[&str] = &["at", "forget"];
/// The most readings that one step stands for.
const MOST: u32 = 100_000;

/// The steps so far.
pub(super) struct Steps {
    /// Whose readings are, where a step does not say.
    device: Option<DeviceId>,
    who: String,
    /// The names of the rules.
    rules: BTreeSet<String>,
    /// The time of the step before.
    last: At,
    told: Vec<Step>,
    expected: Vec<Expected>,
    metrics: Vec<(String, Range<usize>)>,
    names: Vec<(&'static str, String, Range<usize>)>,
}

impl Steps {
    pub fn new(device: Option<DeviceId>, who: String, rules: &Rules) -> Self {
        Self {
            device,
            who,
            rules: rules.rules.iter().map(|rule| rule.name.to_string()).collect(),
            last: At(0),
            told: Vec::new(),
            expected: Vec::new(),
            metrics: Vec::new(),
            names: Vec::new(),
        }
    }

    /// All of them in order of time, every metric that was told with its place, and every name that is expected.
    pub fn done(mut self) -> Parsed {
        self.told.sort_by_key(|step| step.at);
        self.expected.sort_by_key(|expected| expected.at);
        (self.told, self.expected, self.metrics, self.names)
    }

    /// Takes the next step; what is wrong with it is remembered.
    pub fn take(&mut self, item: &Item<'_>, reader: &mut Reader<'_>) {
        let Some(table) = item.get_ref().as_table() else {
            let message = format!(
                "{}: a step is a table, like {{ at = \"30s\", temperature = 31.0 }}",
                self.who
            );
            return reader.wrong(item.span(), message);
        };
        let Some(at) = table.get("at") else {
            let message = format!(
                "{}: this step does not say when; begin it with at = \"30s\"",
                self.who
            );
            return reader.wrong(item.span(), message);
        };
        let Some(time) = reader.duration("at", at).map(At) else {
            return;
        };
        if time < self.last {
            let message = format!("this step is at {time} and the one before it at {}", self.last);
            // One that is out of order is told once: what follows is measured by it.
            self.last = time;
            return reader.wrong(at.span(), format!("{message}; write the steps in order of time"));
        }
        self.last = time;
        // Beside `metric` every other word is one, too.
        let has = |key: &str| table.contains_key(key) && (key == "expect" || !table.contains_key("metric"));
        if has("expect") {
            self.expect(time, table, reader);
        } else if has("gateway") {
            self.gateway(time, table, reader);
        } else if has("reload") {
            self.reload(time, table, reader);
        } else if has("mute") {
            self.mute(time, table, reader);
        } else if let Some(item) = table.get("unmute").filter(|_| has("unmute")) {
            known("an unmute", table, UNMUTE, reader);
            if let Some(target) = self.target("unmute", item, reader) {
                self.push(time, Act::Unmute(target));
            }
        } else if let Some(item) = table.get("forget").filter(|_| has("forget")) {
            known("a forget", table, FORGET, reader);
            if let Some(device) = reader.device(item) {
                self.push(time, Act::Forget(device));
            }
        } else if has("clock") || has("synchronised") {
            known("a clock's step", table, CLOCK, reader);
            if let Some(change) = clock_change(table, reader) {
                self.push(time, Act::Clock(change));
            }
        } else if table.len() == 1 {
            self.push(time, Act::Pass);
        } else {
            self.readings(time, table, reader);
        }
    }

    fn push(&mut self, at: At, act: Act) {
        self.told.push(Step { at, act });
    }

    fn expect(&mut self, at: At, table: &DeTable<'_>, reader: &mut Reader<'_>) {
        // Until then time must pass, even if nothing else happens.
        self.push(at, Act::Pass);
        let mut wanted = Expected {
            at,
            event: String::new(),
            device: None,
            facts: Vec::new(),
        };
        let mut names = vec!["at", "expect", "device"];
        names.extend(FACTS);
        for key in ["expect", "device", "rule", "metric"] {
            if let Some(item) = table.get(key)
                && let Some(name) = item.get_ref().as_str()
            {
                self.names.push((key, name.to_owned(), item.span()));
            }
        }
        for (key, item) in table {
            match key.get_ref().as_ref() {
                "at" => {}
                "expect" => reader
                    .text("expect", item)
                    .unwrap_or_default()
                    .clone_into(&mut wanted.event),
                "device" => wanted.device = reader.text("device", item).map(str::to_owned),
                name => match FACTS.iter().find(|fact| **fact == name) {
                    Some(fact) => wanted
                        .facts
                        .extend(fact_of(fact, item, reader).map(|value| (*fact, value))),
                    None => reader.unknown(key.span(), "an expected event", name, &names),
                },
            }
        }
        self.expected.push(wanted);
    }

    fn gateway(&mut self, at: At, table: &DeTable<'_>, reader: &mut Reader<'_>) {
        known("a gateway's step", table, GATEWAY, reader);
        let Some(item) = table.get("gateway") else { return };
        let stop = match reader.text("gateway", item) {
            Some("restart") => Stop::Restart,
            Some("kill") => Stop::Kill,
            Some("reboot") => Stop::Reboot,
            Some(other) => {
                let message = format!("gateway = {other:?} must be \"restart\", \"kill\" or \"reboot\"");
                return reader.wrong(item.span(), message);
            }
            None => return,
        };
        let away = match table.get("away") {
            Some(item) => reader.duration("away", item),
            None => Some(0),
        };
        if let (Some(away), Some(clock)) = (away, clock_change(table, reader)) {
            self.push(at, Act::Start { stop, away, clock });
            // What comes while it is away comes to nobody.
            self.last = At(at.0.saturating_add(away));
        }
    }

    fn reload(&mut self, at: At, table: &DeTable<'_>, reader: &mut Reader<'_>) {
        known("a reload", table, RELOAD, reader);
        let Some(item) = table.get("reload") else { return };
        let name = reader.text("reload", item).map(str::to_owned);
        if let Some(name) = name
            && let Some(rules) = reader.sets.rules(Some(&name), &item.span(), &mut reader.wrong)
        {
            self.push(at, Act::Reload(rules));
        }
    }

    fn mute(&mut self, at: At, table: &DeTable<'_>, reader: &mut Reader<'_>) {
        known("a mute", table, MUTE, reader);
        let Some(item) = table.get("mute") else { return };
        let target = self.target("mute", item, reader);
        let Some(length) = table.get("for") else {
            return reader.wrong(item.span(), "a mute says for how long: for = \"2h\"");
        };
        let length = reader
            .duration("for", length)
            .and_then(|micros| u64::try_from(micros).ok());
        let reason = match table.get("reason") {
            Some(item) => reader.text("reason", item),
            None => Some(""),
        };
        if let (Some(target), Some(length), Some(reason)) = (target, length, reason) {
            let (length, reason) = (Duration::from_micros(length), reason.to_owned());
            self.push(
                at,
                Act::Mute {
                    target,
                    length,
                    reason,
                },
            );
        }
    }

    /// A rule of that name, else a device: as on the command line.
    fn target(&self, key: &str, item: &Item<'_>, reader: &mut Reader<'_>) -> Option<MuteTarget> {
        let name = reader.text(key, item)?;
        if self.rules.contains(name) {
            return Some(MuteTarget::Rule(name.into()));
        }
        reader.device(item).map(MuteTarget::Device)
    }

    fn readings(&mut self, at: At, table: &DeTable<'_>, reader: &mut Reader<'_>) {
        let device = match table.get("device") {
            Some(item) => reader.device(item),
            None => self.device.clone(),
        };
        let span = table.iter().next().map_or(0..0, |(key, _)| key.span());
        if device.is_none() && !table.contains_key("device") {
            let message = format!(
                "{}: whose reading is this? write device = \"t-1\", here or for the whole story",
                self.who
            );
            reader.wrong(span.clone(), message);
        }
        let unit = table
            .get("unit")
            .and_then(|item| reader.text("unit", item))
            .map(Into::into);
        let stamp = match table.get("stamp") {
            Some(item) => match reader.duration("stamp", item) {
                Some(stamp) => Some(At(stamp)),
                None => return,
            },
            None => None,
        };
        let every = match table.get("every") {
            Some(item) => match reader.duration("every", item) {
                Some(0) => {
                    let remedy = "readings of one time are a step each, else write like every = \"10s\"";
                    return reader.wrong(item.span(), format!("every must be more than 0s; {remedy}"));
                }
                Some(every) => Some(every),
                None => return,
            },
            None => None,
        };
        let times = table
            .get("times")
            .and_then(|item| reader.whole("times", item, MOST));
        let mut told = Vec::new();
        if let Some(metric) = table.get("metric") {
            if let (Some(name), Some(value)) = (reader.text("metric", metric), table.get("value")) {
                told.push((name.to_owned(), metric.span(), value));
            } else {
                reader.wrong(
                    metric.span(),
                    "metric needs a value beside it: { metric = \"at\", value = 3 }",
                );
            }
        }
        for (key, item) in table {
            let name = key.get_ref().as_ref();
            if !READING.contains(&name) {
                told.push((name.to_owned(), key.span(), item));
            }
        }
        if told.is_empty() {
            reader.wrong(
                span,
                format!(
                    "{}: nothing happens in this step; name a metric and its value",
                    self.who
                ),
            );
        }
        for (name, span, item) in told {
            if item.get_ref().is_table() {
                let message =
                    format!("{name} is a table here; a metric with a dot stands in quotes, \"{name}.x\" = 1");
                reader.wrong(item.span(), message);
                continue;
            }
            let values = values(&name, item, reader);
            self.metrics.push((name.clone(), span.clone()));
            let (Some(device), Some(metric), Some(values)) = (&device, reader.metric(&name, span), values)
            else {
                continue;
            };
            let Some(count) = repeated(values.len(), every, times, item, reader) else {
                continue;
            };
            for (number, value) in (0..count).zip(values.iter().cycle()) {
                let act = Act::Tell {
                    device: device.clone(),
                    metric: metric.clone(),
                    value: value.clone(),
                    unit: std::option::Option::clone(&unit),
                    stamp,
                };
                self.push(At(at.0 + i64::from(number) * every.unwrap_or(0)), act);
            }
        }
    }
}

/// How many readings a step stands for.
fn repeated(
    values: usize,
    every: Option<i64>,
    times: Option<u32>,
    item: &Item<'_>,
    reader: &mut Reader<'_>,
) -> Option<u32> {
    let listed = u32::try_from(values)
        .ok()
        .filter(|count| (1..=MOST).contains(count));
    match (listed, every, times) {
        (Some(1), None, None) => Some(1),
        (Some(listed), Some(1..), times) if times.is_some() || listed > 1 => Some(times.unwrap_or(listed)),
        (None, ..) => {
            reader.wrong(item.span(), "this list of values is empty; name at least one");
            None
        }
        _ => {
            let form = "several readings are { at = \"0s\", every = \"10s\", temperature = [20, 31] }, or one value with every and times";
            reader.wrong(item.span(), form);
            None
        }
    }
}

fn values(name: &str, item: &Item<'_>, reader: &mut Reader<'_>) -> Option<Vec<Value>> {
    match item.get_ref() {
        DeValue::Array(items) => items.iter().map(|item| reader.value(name, item)).collect(),
        _ => reader.value(name, item).map(|value| vec![value]),
    }
}

fn known(who: &str, table: &DeTable<'_>, names: &[&str], reader: &mut Reader<'_>) {
    for (key, _) in table {
        if !names.contains(&key.get_ref().as_ref()) {
            reader.unknown(key.span(), who, key.get_ref(), names);
        }
    }
}

/// None, reported, if it is wrong.
fn clock_change(table: &DeTable<'_>, reader: &mut Reader<'_>) -> Option<ClockChange> {
    let mut change = ClockChange::default();
    if let Some(item) = table.get("synchronised") {
        change.quality = Some(reader.quality("synchronised", item)?);
    }
    let Some(item) = table.get("clock") else {
        return Some(change);
    };
    let by = item.get_ref().as_str().and_then(|text| {
        let (sign, length) = match text.split_at_checked(1)? {
            ("+", length) => (1, length),
            ("-", length) => (-1, length),
            _ => return None,
        };
        let micros = i64::try_from(units::duration(length)?.as_micros()).ok()?;
        Some(ClockSet::By(sign * micros))
    });
    change.set = Some(match by {
        Some(by) => by,
        None => ClockSet::To(reader.wall("clock, if it is no \"+1h\" or \"-1h\",", item)?),
    });
    Some(change)
}

fn fact_of(key: &'static str, item: &Item<'_>, reader: &mut Reader<'_>) -> Option<Fact> {
    match key {
        "since" | "duration" | "span" => reader
            .duration(key, item)
            .map(|micros| Fact::Text(At(micros).to_string())),
        "severity" | "transition" => {
            let words: &[&str] = if key == "severity" {
                &["info", "warning", "error", "critical"]
            } else {
                &["raised", "reminded", "changed", "cleared"]
            };
            let word = reader.text(key, item)?;
            if !words.contains(&word) {
                reader.wrong(
                    item.span(),
                    format!("{key} = {word:?} must be one of {}", words.join(", ")),
                );
            }
            Some(Fact::Text(word.to_owned()))
        }
        _ => match item.get_ref() {
            DeValue::Boolean(flag) => Some(Fact::Flag(*flag)),
            DeValue::String(text) => Some(Fact::Text(text.to_string())),
            value => {
                let number = number(value);
                if number.is_none() {
                    reader.wrong(
                        item.span(),
                        format!("{key} must be a number, true, false or text"),
                    );
                }
                number.map(Fact::Number)
            }
        },
    }
}
