//! The first look at a file: are these keys of the contract, do they work yet, do their values look right?
//!
//! All such problems are found at once. What the values mean is asked only when there is none.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    check::Checker,
    keys::{self, Shape, Table},
    units,
};

type Entry<'i, 't> = (&'t Spanned<std::borrow::Cow<'i, str>>, &'t Spanned<DeValue<'i>>);

/// Reports every key that is not known, not supported yet or of another shape.
pub(super) fn check(known: &'static Table, document: &DeTable<'_>, checker: &mut Checker<'_>) {
    table(known, document, checker);
}

fn table(known: &'static Table, found: &DeTable<'_>, checker: &mut Checker<'_>) {
    named(known, &who(known, found), found, checker);
}

fn named(known: &'static Table, who: &str, found: &DeTable<'_>, checker: &mut Checker<'_>) {
    for (key, value) in found {
        entry(known, who, (key, value), checker);
    }
}

/// A sub-condition is named after the key it stands under.
fn part(known: &'static Table, who: &str, found: &DeTable<'_>, checker: &mut Checker<'_>) {
    let metric = found
        .get(known.named_by)
        .and_then(|value| value.get_ref().as_str());
    match metric {
        Some(metric) => named(known, &format!("{who}: {metric:?}"), found, checker),
        None => named(known, who, found, checker),
    }
}

fn entry(known: &'static Table, who: &str, (key, value): Entry<'_, '_>, checker: &mut Checker<'_>) {
    let name = key.get_ref().as_ref();
    let Some(listed) = known.keys.iter().find(|listed| listed.name == name) else {
        let message = unknown(known, who, name);
        // What somebody meant for a sink may be its secret.
        if known.noun == "sink" {
            return checker.wrong_unquoted(key.span(), message);
        }
        return checker.wrong(key.span(), message);
    };
    if listed.live {
        return shape(listed.shape, who, name, value, checker);
    }
    // A header's own line says more than the first key under it.
    let header = match listed.shape {
        Shape::Table(inner) | Shape::Tables(inner) => Some(inner.header),
        _ => None,
    };
    let message = match header {
        Some(header) => format!("{header} is not supported yet; leave the table out"),
        None => format!("{who}: {name} is not supported yet; leave it out"),
    };
    checker.wrong(key.span(), message);
}

fn shape(wanted: Shape, who: &str, name: &str, found: &Spanned<DeValue<'_>>, checker: &mut Checker<'_>) {
    let value = found.get_ref();
    let every = |matches: &dyn Fn(&DeValue<'_>) -> bool| {
        value
            .as_array()
            .is_some_and(|items| items.iter().all(|item| matches(item.get_ref())))
    };
    let number = |value: &DeValue<'_>| value.is_integer() || value.is_float();
    let (right, form) = match wanted {
        Shape::Table(inner) => match value.as_table() {
            Some(found) => return table(inner, found, checker),
            None => (false, format!("a table: write {}", inner.header)),
        },
        Shape::Tables(inner) => match value.as_array() {
            Some(items) if items.iter().all(|item| item.get_ref().is_table()) => {
                return items
                    .iter()
                    .filter_map(|item| item.get_ref().as_table())
                    .for_each(|found| {
                        table(inner, found, checker);
                    });
            }
            _ => (false, format!("a list of tables: write {}", inner.header)),
        },
        Shape::Named(inner) => match value.as_table() {
            Some(found) if found.values().all(|item| item.get_ref().is_table()) => {
                return found
                    .values()
                    .filter_map(|item| item.get_ref().as_table())
                    .for_each(|found| table(inner, found, checker));
            }
            _ => (false, format!("tables with a name each: write {}", inner.example)),
        },
        Shape::Part(inner) => match value.as_table() {
            Some(found) => return part(inner, &format!("{who}: {name}"), found, checker),
            None => (false, format!("a condition, like {}", inner.example)),
        },
        Shape::Parts(inner) => match value.as_array() {
            Some(items) if items.iter().all(|item| item.get_ref().is_table()) => {
                return items
                    .iter()
                    .filter_map(|item| item.get_ref().as_table())
                    .for_each(|found| part(inner, &format!("{who}: {name}"), found, checker));
            }
            _ => (
                false,
                format!("a list of conditions, like [{}, ...]", inner.example),
            ),
        },
        Shape::Any => return,
        Shape::Text => (value.is_str(), "text in quotes".to_owned()),
        Shape::Duration => (
            value.is_str(),
            format!("text in quotes: {}", units::DURATION_FORM),
        ),
        Shape::Size => (value.is_str(), format!("text in quotes: {}", units::SIZE_FORM)),
        Shape::Rate => (value.is_str(), format!("text in quotes: {}", units::RATE_FORM)),
        Shape::Flag => (value.is_bool(), "true or false".to_owned()),
        Shape::Whole => (value.is_integer(), "a whole number".to_owned()),
        Shape::Number => (number(value), "a number, without quotes".to_owned()),
        Shape::Place => (
            value.is_str() || value.is_integer(),
            "text in quotes, or a column's number".to_owned(),
        ),
        Shape::Value => (
            value.is_str() || value.is_bool() || number(value),
            "a number, true, false or text".to_owned(),
        ),
        Shape::Texts => (
            every(&|item| item.is_str()),
            r#"a list of texts, like ["a", "b"]"#.to_owned(),
        ),
        Shape::Numbers => (
            every(&|item| item.is_integer() || item.is_float()),
            "a list of numbers, like [18, 24]".to_owned(),
        ),
        Shape::Labels => (
            texts(value),
            r#"a table of texts, like { site = "hq" }"#.to_owned(),
        ),
        Shape::Secrets => {
            if !texts(value) {
                let form = r#"must be a table of texts, like { "X-Api-Key" = "..." }"#;
                checker.wrong_unquoted(found.span(), format!("{who}: {name} {form}"));
            }
            return;
        }
    };
    if !right {
        let written = checker.written(&found.span());
        checker.wrong(found.span(), format!("{who}: {name} = {written} must be {form}"));
    }
}

fn texts(value: &DeValue<'_>) -> bool {
    let table = value.as_table();
    table.is_some_and(|table| table.values().all(|text| text.get_ref().is_str()))
}

/// `rule "HighTemperature"`, or the table's header where nothing tells it from its like.
fn who(known: &Table, found: &DeTable<'_>) -> String {
    let name = match known.named_by {
        "" => return known.noun.to_owned(),
        key => found.get(key).and_then(|value| value.get_ref().as_str()),
    };
    match name {
        Some(name) => format!("{} {name:?}", known.noun),
        None => known.header.to_owned(),
    }
}

fn unknown(known: &'static Table, who: &str, name: &str) -> String {
    let place = if known.header.is_empty() {
        "the top level"
    } else {
        known.header
    };
    let start = if who == place {
        String::new()
    } else {
        format!("{who}: ")
    };
    if let Some((_, why)) = known.not_here.iter().find(|(key, _)| *key == name) {
        return format!("{start}{place} has no key `{name}`; {why}");
    }
    let elsewhere = || {
        keys::tables()
            .into_iter()
            .find(|table| table.keys.iter().any(|key| key.name == name))
    };
    let remedy = match closest(name, known.keys.iter().map(|key| key.name)) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => match elsewhere() {
            Some(other) if !other.header.is_empty() => format!("it is a key of {}", other.header),
            _ => {
                let all: Vec<&str> = known
                    .keys
                    .iter()
                    .filter(|key| key.live)
                    .map(|key| key.name)
                    .collect();
                format!("its keys are {}", all.join(", "))
            }
        },
    };
    format!("{start}{place} has no key `{name}`; {remedy}")
}

/// The name that somebody who wrote `name` probably meant.
#[must_use]
pub fn closest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let slips = |candidate: &str| distance(&name.to_lowercase(), &candidate.to_lowercase());
    let (distance, best) = known.map(|candidate| (slips(candidate), candidate)).min()?;
    // A third of the letters wrong is another word.
    let letters = best.chars().count();
    (distance < letters && distance <= letters.max(3) / 3).then_some(best)
}

/// Insertions, deletions, replacements and swaps of neighbours (optimal string alignment).
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=to.len()).collect()];
    let at = |rows: &[Vec<usize>], row: usize, column: usize| {
        rows.get(row)
            .and_then(|row| row.get(column))
            .copied()
            .unwrap_or(usize::MAX / 2)
    };
    for (i, a) in from.iter().enumerate() {
        rows.push(vec![i + 1]);
        for (j, b) in to.iter().enumerate() {
            let replaced = at(&rows, i, j) + usize::from(a != b);
            let mut best = replaced.min(at(&rows, i, j + 1) + 1).min(at(&rows, i + 1, j) + 1);
            let swapped = i > 0 && j > 0 && from.get(i - 1) == Some(b) && to.get(j - 1) == Some(a);
            if swapped {
                best = best.min(at(&rows, i - 1, j - 1) + 1);
            }
            if let Some(row) = rows.last_mut() {
                row.push(best);
            }
        }
    }
    at(&rows, from.len(), to.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        let known = ["clear", "above", "clear-hold", "margin"];
        assert_eq!(closest("claer", known.into_iter()), Some("clear"));
        assert_eq!(closest("clear_hold", known.into_iter()), Some("clear-hold"));
        assert_eq!(closest("Margin", known.into_iter()), Some("margin"));
        assert_eq!(closest("colour", known.into_iter()), None);
    }
}
