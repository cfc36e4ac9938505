//! What rules and their events are called.

use toml::Spanned;

use super::{
    check::{Checker, Taken},
    raw,
    rules::Placed,
    site::gateway_events,
};

/// CamelCase, a past fact, nobody else's.
pub(super) fn event_name(who: &str, key: &str, written: &Spanned<String>, checker: &mut Checker<'_>) {
    let name = written.get_ref();
    let camel = name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.len() <= 64
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let why = if gateway_events().any(|known| known == name.as_str()) {
        "is an event of the gateway's own; write another name".to_owned()
    } else if !camel {
        let suggestion = camel_case(name);
        let like = if suggestion.is_empty() {
            "HighTemperature".to_owned()
        } else {
            suggestion
        };
        format!("must be CamelCase, letters and digits, at most 64, like {like:?}")
    } else if name.ends_with("Command") {
        "names a command; an event is what happened, like \"ValveOpened\"".to_owned()
    } else if key == "event" && name.ends_with("Cleared") {
        format!(
            "is what the end of {:?} is called; name what happened, not that it ended",
            name.trim_end_matches("Cleared")
        )
    } else {
        return;
    };
    checker.wrong(written.span(), format!("{who}: {key} = {name:?} {why}"));
}

fn camel_case(name: &str) -> String {
    name.split(|c: char| !c.is_ascii_alphanumeric())
        .filter_map(|word| {
            let mut letters = word.chars();
            let first = letters.next()?;
            Some(first.to_ascii_uppercase().to_string() + letters.as_str())
        })
        .take(6)
        .collect::<String>()
        .trim_start_matches(|c: char| c.is_ascii_digit())
        .to_owned()
}

/// `HighTemperature` to `high-temperature`; digits stay with the word before them.
pub(super) fn kebab(event: &str) -> String {
    let letters: Vec<char> = event.chars().collect();
    let mut out = String::new();
    for (index, letter) in letters.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|index| letters.get(index));
        let after = letters.get(index + 1);
        let begins = letter.is_ascii_uppercase()
            && before.is_some_and(|before| {
                !before.is_ascii_uppercase() || after.is_some_and(char::is_ascii_lowercase)
            });
        if begins {
            out.push('-');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

/// Rules of one name would share their state, events of one name their meaning.
pub(super) fn unique(file: &raw::File, placed: &[Placed], checker: &mut Checker<'_>) {
    let mut taken = Taken::default();
    for (table, rule) in file.rule.iter().zip(placed) {
        let raw = table.get_ref();
        let written = raw.name.as_ref().or(raw.event.as_ref());
        let Some(span) = written.map(Spanned::span) else {
            continue;
        };
        if let Some(first) = taken.take(&rule.rule.name, span.clone()) {
            let place = checker.place(&first, &span);
            let remedy = "add a name of its own: name = \"...\"";
            let who = &rule.who;
            checker.wrong(
                span,
                format!(
                    "{who}: the name {:?} is already taken on {place}; {remedy}",
                    rule.rule.name
                ),
            );
        }
        if let Some(cleared) = &raw.cleared_event {
            let other = placed
                .iter()
                .find(|other| *other.rule.event == **cleared.get_ref() && other.who != rule.who);
            if let Some(other) = other {
                let why = format!("is what {} raises; an end needs a name of its own", other.who);
                checker.wrong(
                    cleared.span(),
                    format!("{}: cleared-event = {:?} {why}", rule.who, cleared.get_ref()),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_its_event_in_kebab_case() {
        for (event, name) in [
            ("HighTemperature", "high-temperature"),
            ("CO2High", "co2-high"),
            ("HTTPFailed", "http-failed"),
            ("Pm25High", "pm25-high"),
        ] {
            assert_eq!(kebab(event), name);
        }
    }

    #[test]
    fn a_suggested_event_is_camel_case() {
        assert_eq!(camel_case("high-temperature"), "HighTemperature");
        assert_eq!(camel_case("2 much"), "Much");
    }
}
