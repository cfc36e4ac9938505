//! `[[sink.mqtt]]` and `[[sink.http]]`: what their tables share, and what no two sinks may share.

use std::{
    collections::BTreeSet,
    ops::Range,
    path::{Path, PathBuf},
};

use toml::Spanned;

use super::{
    check::{Checker, Taken, Words},
    raw, rules, units,
};
use crate::{
    event::{SinkName, gateway},
    forward::{self, Terms, bucket::Rate, filter::Filter},
    reading::DeviceId,
    rule::{MaxRaises, Pattern},
};

mod http;
mod mqtt;

pub(super) use http::table as http_table;
pub(super) use mqtt::table as mqtt_table;

/// Where events go.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sinks {
    /// `[[sink.mqtt]]`.
    pub mqtt: Vec<forward::mqtt::Settings>,
    /// `[[sink.http]]`.
    pub http: Vec<forward::http::Settings>,
}

impl Sinks {
    /// What each of them says that every sink may say.
    pub fn terms(&self) -> impl Iterator<Item = &Terms> {
        let mqtt = self.mqtt.iter().map(|sink| &sink.terms);
        mqtt.chain(self.http.iter().map(|sink| &sink.terms))
    }

    /// Names the files where they lie now, of those that are elsewhere.
    pub(super) fn move_files(&mut self, now: &dyn Fn(&Path) -> Option<PathBuf>) {
        let mqtt = self.mqtt.iter_mut().flat_map(|sink| {
            [
                &mut sink.ca,
                &mut sink.cert,
                &mut sink.key,
                &mut sink.password_file,
            ]
        });
        let http = self
            .http
            .iter_mut()
            .flat_map(|sink| [&mut sink.ca, &mut sink.bearer_file, &mut sink.signing_key_file]);
        for file in mqtt.chain(http).flatten() {
            if let Some(now) = now(file) {
                *file = now;
            }
        }
    }
}

pub(super) fn sinks(raw: &raw::Sinks, gateway: &str, checker: &mut Checker<'_>) -> Sinks {
    let mut taken = Taken::default();
    let mqtt = raw.mqtt.iter().map(|table| &table.get_ref().name);
    let http = raw.http.iter().map(|table| &table.get_ref().name);
    for name in mqtt.chain(http).flatten() {
        if let Some(first) = taken.take(name.get_ref(), name.span()) {
            let place = checker.place(&first, &name.span());
            checker.wrong(
                name.span(),
                format!(
                    "sink {:?}: the name is already taken on {place}; write another",
                    name.get_ref()
                ),
            );
        }
    }
    Sinks {
        mqtt: mqtt::sinks(&raw.mqtt, gateway, checker),
        http: http::sinks(&raw.http, checker),
    }
}

/// How a report calls the sink.
fn who(header: &str, name: &raw::Text) -> String {
    name.as_ref()
        .map_or_else(|| header.to_owned(), |name| format!("sink {:?}", name.get_ref()))
}

/// What a sink's table says that every sink's may say; none if its name is none.
fn terms(
    who: &str,
    keys: &raw::SinkKeys<'_>,
    table: &Range<usize>,
    checker: &mut Checker<'_>,
) -> Option<Terms> {
    let form = "its cursor is kept under it, like \"cloud\"";
    let name = checker
        .required(who, "name", keys.name, table, form)
        .and_then(|written| name(who, written, checker));
    let from = Words {
        now: &[("end", false), ("oldest", true)],
        later: &[],
    };
    let max_attempts = checker.whole_in(who, "max-attempts", keys.max_attempts, &(1..=1_000_000));
    let from_oldest = checker.word(who, "from", keys.from, &from);
    let filter = filter(who, keys, checker);
    let drain_rate = keys.drain_rate.and_then(|written| {
        let rate = units::rate(written.get_ref());
        if rate.is_none() {
            let why = format!("drain-rate = {:?}: {}", written.get_ref(), units::RATE_FORM);
            checker.wrong(written.span(), format!("{who}: {why}"));
        }
        rate.map(|MaxRaises { count, per }| Rate { count, per })
    });
    only_one_form(who, keys, checker);
    let default = Terms::new(name?);
    Some(Terms {
        max_attempts: max_attempts.unwrap_or(default.max_attempts),
        required: keys.required.unwrap_or(default.required),
        from_oldest: from_oldest.unwrap_or(default.from_oldest),
        filter,
        drain_rate,
        ..default
    })
}

fn name(who: &str, written: &Spanned<String>, checker: &mut Checker<'_>) -> Option<SinkName> {
    match written.get_ref().parse() {
        Ok(name) => Some(name),
        Err(error) => {
            checker.wrong(
                written.span(),
                format!("{who}: name = {:?}: {error}", written.get_ref()),
            );
            None
        }
    }
}

/// Which events the sink gets.
fn filter(who: &str, keys: &raw::SinkKeys<'_>, checker: &mut Checker<'_>) -> Filter {
    let all = Filter::default();
    let events = keys.events.as_ref().map(|list| {
        if list.get_ref().is_empty() {
            let why = "events = [] matches none; name some, or write [\"*\"] for all";
            checker.wrong(list.span(), format!("{who}: {why}"));
        }
        let each = list.get_ref().iter();
        each.filter_map(|written| event(who, written, checker)).collect()
    });
    let min_severity = checker.word(who, "min-severity", keys.min_severity, &rules::SEVERITIES);
    let devices = keys.devices.as_ref();
    let devices = devices.map(|list| rules::patterns(who, list, checker));
    Filter {
        events: events.unwrap_or(all.events),
        min_severity: min_severity.unwrap_or(all.min_severity),
        devices: devices.unwrap_or(all.devices),
    }
}

/// A pattern that the name of some event could match.
fn event(who: &str, written: &Spanned<String>, checker: &mut Checker<'_>) -> Option<Pattern> {
    let text = written.get_ref();
    if text.is_empty() || !text.chars().all(|c| c.is_ascii_alphanumeric() || c == '*') {
        let form =
            "must be an event's name or a pattern of names, like \"HighTemperature\" or \"*Temperature\"";
        checker.wrong(written.span(), format!("{who}: {text:?} {form}"));
        return None;
    }
    Some(Pattern(text.as_str().into()))
}

/// A pattern that no event of this configuration matches is a slip, and so are patterns for none of the devices, where
/// all are known.
pub(super) fn matched(
    raw: &raw::Sinks,
    rules: &[rules::Placed],
    known: Option<&BTreeSet<DeviceId>>,
    checker: &mut Checker<'_>,
) {
    let mqtt = raw.mqtt.iter().map(|table| {
        let keys = table.get_ref();
        (who("[[sink.mqtt]]", &keys.name), &keys.events, &keys.devices)
    });
    let http = raw.http.iter().map(|table| {
        let keys = table.get_ref();
        (who("[[sink.http]]", &keys.name), &keys.events, &keys.devices)
    });
    for (who, events, devices) in mqtt.chain(http) {
        if let (Some(list), Some(known)) = (devices, known) {
            let patterns = list.get_ref().iter();
            let mut patterns = patterns.map(|written| Pattern(written.get_ref().as_str().into()));
            if !patterns.any(|pattern| known.iter().any(|id| pattern.matches(id.as_str()))) {
                let all = known.iter().map(DeviceId::as_str).collect::<Vec<_>>().join(", ");
                let why = format!("devices matches none of {all}; only what is about no device passes");
                checker.warn(list.span(), format!("{who}: {why}"));
            }
        }
        for written in events.iter().flat_map(Spanned::get_ref) {
            let pattern = Pattern(written.get_ref().as_str().into());
            let mut own = gateway::FACTS.iter().map(|fact| fact.name);
            if own.any(|name| pattern.matches(name))
                || rules.iter().any(|placed| pattern.matches(&placed.rule.event))
            {
                continue;
            }
            let cleared = rules
                .iter()
                .find(|placed| pattern.matches(&placed.rule.cleared_event));
            let why = match cleared {
                Some(placed) => format!(
                    "matches only what clears; a clear goes where its raise goes: name \"{}\"",
                    placed.rule.event
                ),
                None => "matches no event: no rule raises one of this name, nor does the gateway".to_owned(),
            };
            checker.warn(written.span(), format!("{who}: {:?} {why}", written.get_ref()));
        }
    }
}

/// Keys that have one value yet.
fn only_one_form(who: &str, keys: &raw::SinkKeys<'_>, checker: &mut Checker<'_>) {
    let partition = Words {
        now: &[("gateway", ())],
        later: &["device"],
    };
    checker.word(who, "partition-by", keys.partition_by, &partition);
    if let Some(schema) = keys.schema.filter(|schema| *schema.get_ref() != 1) {
        checker.wrong(
            schema.span(),
            format!(
                "{who}: schema = {} is not supported yet; write 1",
                schema.get_ref()
            ),
        );
    }
}
