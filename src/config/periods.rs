//! `[period.*]`: when rules apply.

use std::{collections::BTreeMap, sync::Arc};

use jiff::tz::TimeZone;
use toml::Spanned;

use super::{
    check::{Checker, Span, listed},
    raw,
    shape::closest,
};
use crate::{event::is_identifier, rule::period::Period};

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// By name; none: it is wrong, and reported.
#[derive(Debug, Default)]
pub(super) struct Periods(BTreeMap<String, (Option<Arc<Period>>, Span)>);

pub(super) fn periods(
    tables: &[(String, Spanned<raw::Period>)],
    zone: &TimeZone,
    checker: &mut Checker<'_>,
) -> Periods {
    let mut all = Periods::default();
    for (name, table) in tables {
        if let Some((_, first)) = all.0.get(name) {
            let place = checker.place(first, &table.span());
            let message = format!("period {name:?}: the name is already on {place}; write another");
            checker.wrong(table.span(), message);
            continue;
        }
        let period = period(name, table, zone, checker).map(Arc::new);
        all.0.insert(name.clone(), (period, table.span()));
    }
    all
}

impl Periods {
    /// Those that a rule names.
    pub fn named(&self, who: &str, written: &raw::Texts, checker: &mut Checker<'_>) -> Vec<Arc<Period>> {
        let names = written.as_ref().map(|list| list.get_ref().as_slice());
        let mut during: Vec<Arc<Period>> = Vec::new();
        for name in names.unwrap_or_default() {
            let text = name.get_ref();
            match self.0.get(text) {
                Some((period, _)) => during.extend(period.clone()),
                None => {
                    let known = || self.0.keys().map(String::as_str);
                    let remedy = match (closest(text, known()), self.0.is_empty()) {
                        (Some(meant), _) => format!("did you mean {meant:?}?"),
                        (None, false) => format!("they are {}", listed(known())),
                        (None, true) => format!("add [period.{text}]"),
                    };
                    let message = format!("{who}: during: there is no period {text:?}; {remedy}");
                    checker.wrong(name.span(), message);
                }
            }
        }
        during
    }
}

fn period(
    name: &str,
    table: &Spanned<raw::Period>,
    zone: &TimeZone,
    checker: &mut Checker<'_>,
) -> Option<Period> {
    let raw = table.get_ref();
    let who = &format!("period {name:?}");
    let before = checker.problems.len();
    if !is_identifier(name) {
        let form = "its name must be 1 to 64 of the characters A-Z a-z 0-9 . _ -";
        checker.wrong(table.span(), format!("{who}: {form}"));
    }
    let season = match (&raw.from, &raw.to) {
        (Some(from), Some(to)) => {
            let from = parsed(who, "from", from, checker);
            from.zip(parsed(who, "to", to, checker))
        }
        (Some(alone), None) | (None, Some(alone)) => {
            let (key, missing) = if raw.from.is_some() {
                ("from", "to")
            } else {
                ("to", "from")
            };
            let message = format!(
                "{who}: {key} without {missing}; a season has both, like from = \"10-01\" and to = \"04-30\""
            );
            checker.wrong(alone.span(), message);
            None
        }
        (None, None) => None,
    };
    let days = raw.days.as_ref().and_then(|list| days(who, list, checker));
    let between = raw.between.as_ref().and_then(|list| {
        let [from, to] = list.get_ref().as_slice() else {
            let message = format!("{who}: between must be two times, like [\"06:00\", \"22:00\"]");
            checker.wrong(list.span(), message);
            return None;
        };
        let ends = parsed(who, "between", from, checker).zip(parsed(who, "between", to, checker));
        if ends.is_some_and(|(from, to)| from == to) {
            let remedy = "write two times, or leave between out for all day";
            let message = format!(
                "{who}: between {:?} and itself there is no time; {remedy}",
                from.get_ref()
            );
            checker.wrong(list.span(), message);
        }
        ends
    });
    if raw.from.is_none() && raw.to.is_none() && raw.days.is_none() && raw.between.is_none() {
        let remedy = "write from and to, days or between";
        checker.wrong(table.span(), format!("{who}: it says no time; {remedy}"));
    }
    (checker.problems.len() == before).then(|| Period {
        name: name.into(),
        season,
        days,
        between,
        zone: zone.clone(),
    })
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
    who: &str,
    key: &str,
    written: &Spanned<String>,
    checker: &mut Checker<'_>,
) -> Option<T> {
    match written.get_ref().parse() {
        Ok(value) => Some(value),
        Err(error) => {
            let message = format!("{who}: {key} = {:?}: {error}", written.get_ref());
            checker.wrong(written.span(), message);
            None
        }
    }
}

fn days(who: &str, list: &Spanned<Vec<Spanned<String>>>, checker: &mut Checker<'_>) -> Option<[bool; 7]> {
    if list.get_ref().is_empty() {
        let remedy = "name some, or leave days out for all of them";
        checker.wrong(list.span(), format!("{who}: days = [] is no day; {remedy}"));
        return None;
    }
    for written in list.get_ref() {
        if !DAYS.contains(&written.get_ref().as_str()) {
            let message = format!(
                "{who}: days: {:?} must be {}",
                written.get_ref(),
                listed(DAYS.into_iter())
            );
            checker.wrong(written.span(), message);
        }
    }
    Some(DAYS.map(|day| list.get_ref().iter().any(|written| written.get_ref() == day)))
}
