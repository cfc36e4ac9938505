//! `[[rule]]` and `[[override]]`: names, conditions, and the numbers some devices have instead.

use std::{sync::Arc, time::Duration};

use toml::Spanned;

use super::{
    check::{Checker, Span, Taken, Words},
    condition::{self, ClearPoint, Keys},
    raw,
    shape::closest,
    site::GATEWAY_EVENTS,
};
use crate::{
    event::{Severity, is_identifier},
    reading::Metric,
    rule::{Condition, MaxRaises, Override, Pattern, Rule, Test},
};

const SEVERITIES: Words<'static, Severity> = Words {
    now: &[
        ("info", Severity::Info),
        ("warning", Severity::Warning),
        ("error", Severity::Error),
        ("critical", Severity::Critical),
    ],
    later: &[],
};

/// A rule with where it stands, for the cross-table checks.
#[derive(Debug)]
pub(super) struct Placed {
    pub rule: Rule,
    pub who: String,
    /// None: the metric is wrong, and reported.
    pub metric_span: Option<Span>,
    pub devices_span: Option<Span>,
    pub where_span: Option<Span>,
    /// Whether all of it is right: overrides of others would only repeat what is wrong.
    sound: bool,
}

pub(super) fn rules(file: &raw::File, type_prefix: &str, checker: &mut Checker<'_>) -> Vec<Placed> {
    let mut placed: Vec<Placed> = file
        .rule
        .iter()
        .map(|table| rule(table, type_prefix, checker))
        .collect();
    unique(file, &placed, checker);
    for table in &file.r#override {
        overriding(table, &mut placed, checker);
    }
    placed
}

fn rule(table: &Spanned<raw::Rule>, type_prefix: &str, checker: &mut Checker<'_>) -> Placed {
    let before = checker.problems.len();
    let raw = table.get_ref();
    let span = table.span();
    let who = match (&raw.event, &raw.name) {
        (Some(name), _) | (None, Some(name)) => format!("rule {:?}", name.get_ref()),
        (None, None) => "[[rule]]".to_owned(),
    };
    let form = "what happened, in CamelCase, like \"HighTemperature\"";
    if let Some(written) = checker.required(&who, "event", &raw.event, &span, form) {
        event_name(&who, "event", written, checker);
    }
    let event: Arc<str> = raw
        .event
        .as_ref()
        .map_or("", |event| event.get_ref().as_str())
        .into();
    if let Some(name) = raw.name.as_ref().filter(|name| !is_identifier(name.get_ref())) {
        let form = "must be 1 to 64 of the characters A-Z a-z 0-9 . _ -";
        checker.wrong(name.span(), format!("{who}: name = {:?} {form}", name.get_ref()));
    }
    if let Some(written) = &raw.cleared_event {
        event_name(&who, "cleared-event", written, checker);
        if *written.get_ref() == *event {
            let why = "is the event itself; a raise and its end need two names";
            checker.wrong(
                written.span(),
                format!("{who}: cleared-event = {:?} {why}", written.get_ref()),
            );
        }
    }
    let cleared = raw
        .cleared_event
        .as_ref()
        .map_or_else(|| format!("{event}Cleared"), |name| name.get_ref().clone());
    if let Some(summary) = &raw.summary {
        let known = ["device", "metric", "value", "unit", "threshold"];
        checker.placeholders(&who, "summary", summary, &known);
    }
    let metric = metric(&who, raw, &span, checker);
    let metric_span = raw
        .metric
        .as_ref()
        .filter(|_| metric.is_some())
        .map(Spanned::span);
    let hold = checker
        .duration(&who, "hold", raw.hold.as_ref())
        .unwrap_or_default();
    let condition = condition(&who, raw, &span, checker);
    steady(&who, raw, condition.as_ref(), &span, checker);
    let hour = Duration::from_hours(1);
    let rule = Rule {
        name: raw
            .name
            .as_ref()
            .map_or_else(|| kebab(&event), |name| name.get_ref().clone())
            .into(),
        event,
        cleared_event: cleared.into(),
        type_prefix: type_prefix.into(),
        devices: match &raw.devices {
            Some(list) => patterns(&who, list, checker),
            None => vec![Pattern("*".into())],
        },
        labels_required: raw
            .r#where
            .as_ref()
            .map(|labels| labels.get_ref().clone())
            .unwrap_or_default(),
        // Stand-ins: a rule with a problem never leaves.
        condition: Condition::of(
            metric.unwrap_or_else(|| Metric::new("unnamed").expect("a name")),
            condition.unwrap_or(Test::Above {
                threshold: 0.0,
                clear: 0.0,
            }),
        ),
        hold,
        clear_hold: checker
            .duration(&who, "clear-hold", raw.clear_hold.as_ref())
            .unwrap_or_default(),
        severity: checker
            .word(&who, "severity", raw.severity.as_ref(), &SEVERITIES)
            .unwrap_or_default(),
        max_raises: max_raises(&who, raw, checker).unwrap_or(MaxRaises { count: 12, per: hour }),
        remind_every: None,
        unless: None,
        during: Vec::new(),
        stale_after: Duration::from_mins(15),
        summary: raw.summary.as_ref().map(|summary| summary.get_ref().clone()),
        runbook: raw.runbook.as_ref().map(|runbook| runbook.get_ref().clone()),
        labels: raw.labels.clone(),
        overrides: Vec::new(),
    };
    Placed {
        rule,
        who,
        metric_span,
        devices_span: raw.devices.as_ref().map(Spanned::span),
        where_span: raw.r#where.as_ref().map(Spanned::span),
        sound: checker.problems.len() == before,
    }
}

/// Warns of a rule that nothing keeps from trembling.
fn steady(who: &str, raw: &raw::Rule, condition: Option<&Test>, span: &Span, checker: &mut Checker<'_>) {
    if raw.clear.is_some() || raw.margin.is_some() || raw.hold.is_some() {
        return;
    }
    let remedy = match condition {
        Some(Test::Equals(_) | Test::NotEquals(_)) => "hold = \"30s\" steadies it",
        _ => "margin = ... or hold = \"30s\" steadies it",
    };
    let why = "it has neither clear, margin nor hold: a value that trembles at the threshold raises and clears again \
               and again";
    checker.warn(span.clone(), format!("{who}: {why}; {remedy}"));
}

fn metric(who: &str, raw: &raw::Rule, span: &Span, checker: &mut Checker<'_>) -> Option<Metric> {
    let written = checker.required(
        who,
        "metric",
        &raw.metric,
        span,
        "what to watch, like \"temperature\"",
    )?;
    match Metric::new(written.get_ref()) {
        Ok(metric) => Some(metric),
        Err(error) => {
            checker.wrong(
                written.span(),
                format!("{who}: metric {:?}: {error}", written.get_ref()),
            );
            None
        }
    }
}

fn condition(who: &str, raw: &raw::Rule, span: &Span, checker: &mut Checker<'_>) -> Option<Test> {
    let keys = Keys {
        above: &raw.above,
        below: &raw.below,
        outside: &raw.outside,
        inside: &raw.inside,
        equals: &raw.equals,
        not_equals: &raw.not_equals,
        clear: &raw.clear,
        margin: &raw.margin,
    };
    if keys.written().is_empty() {
        let remedy = "write one of above, below, outside, inside, equals, not-equals";
        checker.wrong(span.clone(), format!("{who}: it has no condition; {remedy}"));
    }
    let threshold = keys.threshold(who, checker);
    let point = keys.clear_point(who, checker);
    condition::compose(who, &threshold?.0, &point?, checker)
}

fn max_raises(who: &str, raw: &raw::Rule, checker: &mut Checker<'_>) -> Option<MaxRaises> {
    let written = raw.max_raises.as_ref()?;
    let parsed = super::units::rate(written.get_ref());
    if parsed.is_none() {
        let form = super::units::RATE_FORM;
        checker.wrong(
            written.span(),
            format!("{who}: max-raises = {:?}: {form}", written.get_ref()),
        );
    }
    parsed
}

/// CamelCase, a past fact, nobody else's.
fn event_name(who: &str, key: &str, written: &Spanned<String>, checker: &mut Checker<'_>) {
    let name = written.get_ref();
    let camel = name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.len() <= 64
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let why = if GATEWAY_EVENTS.contains(&name.as_str()) {
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
fn kebab(event: &str) -> String {
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
fn unique(file: &raw::File, placed: &[Placed], checker: &mut Checker<'_>) {
    let mut taken = Taken::default();
    for (table, rule) in file.rule.iter().zip(placed) {
        let raw = table.get_ref();
        let written = raw.name.as_ref().or(raw.event.as_ref());
        let Some(span) = written.map(Spanned::span) else {
            continue;
        };
        if let Some(first) = taken.take(&rule.rule.name, span.clone()) {
            let line = checker.line(&first);
            let remedy = "add a name of its own: name = \"...\"";
            let who = &rule.who;
            checker.wrong(
                span,
                format!(
                    "{who}: the name {:?} is already taken on line {line}; {remedy}",
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

/// Patterns of device ids; an empty list would match nothing.
fn patterns(who: &str, list: &Spanned<Vec<Spanned<String>>>, checker: &mut Checker<'_>) -> Vec<Pattern> {
    if list.get_ref().is_empty() {
        checker.wrong(
            list.span(),
            format!("{who}: devices = [] matches none; name some, or write [\"*\"] for all"),
        );
    }
    list.get_ref()
        .iter()
        .filter_map(|written| pattern(who, written, checker))
        .collect()
}

/// A pattern that some id could match.
pub(super) fn pattern(who: &str, written: &Spanned<String>, checker: &mut Checker<'_>) -> Option<Pattern> {
    let text = written.get_ref();
    // The stars stand for nothing at least, and what remains must be able to be part of a name.
    let literal = text.replace('*', "");
    if text.is_empty() || !(literal.is_empty() || crate::reading::DeviceId::new(&literal).is_ok()) {
        let form = "must be a device id or a pattern of ids, like \"thermostat-*\"";
        checker.wrong(written.span(), format!("{who}: {text:?} {form}"));
        return None;
    }
    Some(Pattern(text.as_str().into()))
}

fn overriding(table: &Spanned<raw::Override>, placed: &mut [Placed], checker: &mut Checker<'_>) {
    let raw = table.get_ref();
    let span = table.span();
    let form = "the name of the rule, like \"high-temperature\"";
    let Some(written) = checker.required("[[override]]", "rule", &raw.rule, &span, form) else {
        return;
    };
    let who = &format!("override of {:?}", written.get_ref());
    if raw.devices.is_none() {
        checker.wrong(
            span.clone(),
            format!("{who}: devices is missing: for which, like [\"server-*\"]"),
        );
    }
    let devices = raw
        .devices
        .as_ref()
        .map(|list| patterns(who, list, checker))
        .unwrap_or_default();
    let hold = checker.duration(who, "hold", raw.hold.as_ref());
    let clear_hold = checker.duration(who, "clear-hold", raw.clear_hold.as_ref());
    let severity = checker.word(who, "severity", raw.severity.as_ref(), &SEVERITIES);
    let Some(index) = placed
        .iter()
        .position(|placed| *placed.rule.name == **written.get_ref())
    else {
        let names = placed.iter().map(|placed| placed.rule.name.as_ref());
        // People name the event where the name is asked for.
        let meant = placed
            .iter()
            .find(|placed| *placed.rule.event == **written.get_ref());
        let meant = meant
            .map(|placed| placed.rule.name.as_ref())
            .or_else(|| closest(written.get_ref(), names));
        let remedy = match meant {
            Some(meant) => format!("did you mean {meant:?}?"),
            None => "the name is the rule's name key, or its event in kebab-case".to_owned(),
        };
        checker.wrong(written.span(), format!("{who}: no rule has this name; {remedy}"));
        return;
    };
    let Some(base) = placed.get_mut(index) else { return };
    if !base.sound {
        return;
    }
    let keys = Keys {
        above: &raw.above,
        below: &raw.below,
        outside: &raw.outside,
        inside: &raw.inside,
        equals: &raw.equals,
        not_equals: &raw.not_equals,
        clear: &raw.clear,
        margin: &raw.margin,
    };
    let changes = !keys.written().is_empty() || raw.clear.is_some() || raw.margin.is_some();
    if !changes && raw.hold.is_none() && raw.clear_hold.is_none() && raw.severity.is_none() {
        checker.wrong(
            span,
            format!("{who}: it changes nothing; write the number that is another"),
        );
    }
    let condition = if changes {
        merged(who, &keys, &base.rule, checker)
    } else {
        None
    };
    base.rule.overrides.push(Override {
        devices,
        condition: condition
            .zip(base.rule.metric().cloned())
            .map(|(test, metric)| Condition::of(metric, test)),
        hold,
        clear_hold,
        severity,
        remind_every: None,
    });
}

/// The rule's condition with what the override says instead.
fn merged(who: &str, keys: &Keys<'_>, rule: &Rule, checker: &mut Checker<'_>) -> Option<Test> {
    let Condition::Value(watched) = &rule.condition else {
        return None;
    };
    let before = checker.problems.len();
    let own = keys.threshold(who, checker);
    let point = keys.clear_point(who, checker);
    if checker.problems.len() > before {
        return None;
    }
    let base = condition::threshold_of(&watched.test);
    if let Some((threshold, span)) = &own
        && threshold.key() != base.key()
    {
        let (kind, wanted) = (threshold.key(), base.key());
        let remedy = "an override changes the number, not the kind";
        checker.wrong(
            span.clone(),
            format!("{who}: `{kind}` where the rule has `{wanted}`; {remedy}"),
        );
        return None;
    }
    let said = own.as_ref().map(|(_, span)| span.clone());
    let point = match (point?, said) {
        // Another threshold keeps the rule's distance to its clear point.
        (ClearPoint::Unsaid, Some(span)) => condition::margin_of(&watched.test)
            .map_or(ClearPoint::Unsaid, |margin| ClearPoint::Margin(margin, span)),
        (point, _) => point,
    };
    let threshold = own.map_or(base, |(threshold, _)| threshold);
    condition::compose(who, &threshold, &point, checker)
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
