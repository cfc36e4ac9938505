//! `[[sink.mqtt]]` and `[[sink.http]]`: what their tables share, and what no two sinks may share.

use std::ops::Range;

use toml::Spanned;

use super::{
    check::{Checker, Taken, Words},
    raw,
};
use crate::{
    event::SinkName,
    forward::{self, Terms},
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
    only_one_form(who, keys, checker);
    let default = Terms::new(name?);
    Some(Terms {
        max_attempts: max_attempts.unwrap_or(default.max_attempts),
        required: keys.required.unwrap_or(default.required),
        from_oldest: from_oldest.unwrap_or(default.from_oldest),
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
