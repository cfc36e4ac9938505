//! `[[override]]`: the same rule, other numbers for some devices.

use toml::Spanned;

use super::{
    check::{Checker, Span},
    condition::{self, ClearPoint, TWO_RULES, in_order, single},
    raw,
    rules::{Placed, SEVERITIES, patterns, remind_every, silence},
    shape::closest,
};
use crate::rule::{Condition, Override, Sliding, Test, Watched};

pub(super) fn overriding(table: &Spanned<raw::Override>, placed: &mut [Placed], checker: &mut Checker<'_>) {
    let raw = table.get_ref();
    let span = table.span();
    let form = "the name of the rule, like \"high-temperature\"";
    let Some(written) = checker.required("[[override]]", "rule", &raw.rule, &span, form) else {
        return;
    };
    let who = &format!("override of {:?}", written.get_ref());
    if raw.devices.is_none() {
        let message = format!("{who}: devices is missing: for which, like [\"server-*\"]");
        checker.wrong(span.clone(), message);
    }
    let mut one = Override {
        devices: raw
            .devices
            .as_ref()
            .map(|list| patterns(who, list, checker))
            .unwrap_or_default(),
        condition: None,
        hold: checker.duration(who, "hold", raw.hold.as_ref()),
        clear_hold: checker.duration(who, "clear-hold", raw.clear_hold.as_ref()),
        severity: checker.word(who, "severity", raw.severity.as_ref(), &SEVERITIES),
        remind_every: remind_every(who, &raw.remind_every, checker),
    };
    let Some(base) = base(who, written, placed, checker) else {
        return;
    };
    if !base.sound {
        return;
    }
    let said = in_order([
        ("hold", raw.hold.as_ref().map(Spanned::span)),
        ("clear-hold", raw.clear_hold.as_ref().map(Spanned::span)),
        ("severity", raw.severity.as_ref().map(Spanned::span)),
        ("remind-every", raw.remind_every.as_ref().map(Spanned::span)),
    ]);
    let numbers = numbers(raw);
    if !numbers.is_empty() {
        one.condition = merged(who, raw, &numbers, &base.rule.condition, checker);
    } else if said.is_empty() {
        let remedy = "write the number that is another";
        checker.wrong(span, format!("{who}: it changes nothing; {remedy}"));
    }
    base.rule.overrides.push(one);
}

/// The rule that is meant; none, reported, if there is none of this name.
fn base<'p>(
    who: &str,
    written: &Spanned<String>,
    placed: &'p mut [Placed],
    checker: &mut Checker<'_>,
) -> Option<&'p mut Placed> {
    let name = written.get_ref().as_str();
    let found = placed.iter().position(|placed| *placed.rule.name == *name);
    if let Some(index) = found {
        return placed.get_mut(index);
    }
    // People name the event where the name is asked for.
    let meant = placed
        .iter()
        .find(|placed| *placed.rule.event == *name)
        .map(|placed| placed.rule.name.as_ref())
        .or_else(|| closest(name, placed.iter().map(|placed| placed.rule.name.as_ref())));
    let remedy = match meant {
        Some(meant) => format!("did you mean {meant:?}?"),
        None => "the name is the rule's name key, or its event in kebab-case".to_owned(),
    };
    checker.wrong(written.span(), format!("{who}: no rule has this name; {remedy}"));
    None
}

/// The keys of the condition that are there.
fn numbers(raw: &raw::Override) -> Vec<(&'static str, Span)> {
    let keys = raw.keys();
    let mut numbers = keys.written();
    numbers.extend(in_order([(
        "silent-for",
        raw.silent_for.as_ref().map(Spanned::span),
    )]));
    numbers.extend(keys.further());
    numbers.sort_by_key(|(_, span)| span.start);
    numbers
}

/// The rule's condition with what the override says instead.
fn merged(
    who: &str,
    raw: &raw::Override,
    numbers: &[(&'static str, Span)],
    base: &Condition,
    checker: &mut Checker<'_>,
) -> Option<Condition> {
    match base {
        Condition::All(_) | Condition::Any(_) => {
            let (key, span) = numbers.first()?;
            let remedy = "write a rule of its own for these devices";
            let message = format!(
                "{who}: {key}: the rule has `{}`, with a number in each sub-condition; {remedy}",
                base.kind()
            );
            checker.wrong(span.clone(), message);
            None
        }
        Condition::Silent { metric, .. } => {
            let after = silence(who, raw.silent_for.as_ref(), checker);
            if let Some((key, span)) = numbers.iter().find(|(key, _)| *key != "silent-for") {
                other_kind(who, key, span, "silent-for", checker);
                return None;
            }
            Some(Condition::Silent {
                metric: metric.clone(),
                after: after?,
            })
        }
        Condition::Value(watched) => {
            if let Some(silent) = &raw.silent_for {
                other_kind(who, "silent-for", &silent.span(), watched.test.kind(), checker);
                return None;
            }
            value(who, raw, watched, checker).map(Condition::Value)
        }
    }
}

fn other_kind(who: &str, key: &str, span: &Span, wanted: &str, checker: &mut Checker<'_>) {
    let remedy = "an override changes the number, not the kind";
    let message = format!("{who}: `{key}` where the rule has `{wanted}`; {remedy}");
    checker.wrong(span.clone(), message);
}

fn value(who: &str, raw: &raw::Override, base: &Watched, checker: &mut Checker<'_>) -> Option<Watched> {
    let before = checker.problems.len();
    let keys = raw.keys();
    let written = keys.written();
    if !single(who, &written, TWO_RULES, checker) {
        return None;
    }
    let window = window(who, raw, base, checker);
    let point = keys.clear_point(who, checker);
    let own = match written.first() {
        Some((key, span)) if *key != base.test.kind() => {
            other_kind(who, key, span, base.test.kind(), checker);
            None
        }
        Some((key, span)) => keys.threshold(who, key, checker).zip(Some(span.clone())),
        None => None,
    };
    if checker.problems.len() > before {
        return None;
    }
    let point = match (point?, &own) {
        // Another threshold keeps the rule's distance to its clear point.
        (ClearPoint::Unsaid, Some((_, span))) => condition::margin_of(&base.test)
            .map_or(ClearPoint::Unsaid, |margin| {
                ClearPoint::Margin(margin, span.clone())
            }),
        (point, _) => point,
    };
    let test = match (own, &point) {
        // Another `within`, the same numbers.
        (None, ClearPoint::Unsaid) => base.test.clone(),
        (own, _) => {
            let threshold = own.map_or_else(|| condition::threshold_of(&base.test), |(own, _)| own);
            condition::compose(who, &threshold, &point, checker)?
        }
    };
    Some(Watched {
        metric: base.metric.clone(),
        window,
        test,
    })
}

/// The rule's window, or its length as the override has it.
fn window(who: &str, raw: &raw::Override, base: &Watched, checker: &mut Checker<'_>) -> Option<Sliding> {
    let Some(within) = &raw.within else {
        return base.window;
    };
    let trend = matches!(base.test, Test::RisesBy { .. } | Test::FallsBy { .. });
    let window = base.window.filter(|_| trend);
    if window.is_none() {
        other_kind(who, "within", &within.span(), base.test.kind(), checker);
    }
    let over = super::watched::length(who, "within", Some(within), checker)?;
    Some(Sliding { over, ..window? })
}
