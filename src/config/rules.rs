//! `[[rule]]`: what it watches, when it holds, what it says.

use std::{sync::Arc, time::Duration};

use toml::Spanned;

use super::{
    check::{Checker, Span, Words},
    condition::{self, CONDITIONS},
    names::{self, event_name, kebab},
    overrides::overriding,
    periods::Periods,
    raw,
    units::{LONGEST, RATE_FORM, rate},
    watched::{self, Seen},
};
use crate::{
    event::{Severity, is_identifier},
    reading::{Metric, Value},
    rule::{Condition, MaxRaises, Pattern, Rule, Test, Unless, Watched},
};

pub(super) const SEVERITIES: Words<'static, Severity> = Words {
    now: &[
        ("info", Severity::Info),
        ("warning", Severity::Warning),
        ("error", Severity::Error),
        ("critical", Severity::Critical),
    ],
    later: &[],
};

/// Shorter silences are a network's, and reminders oftener than this are no reminders.
pub(super) const SHORTEST_SILENCE: Duration = Duration::from_secs(1);
pub(super) const SHORTEST_REMINDER: Duration = Duration::from_secs(10);

/// A rule with where it stands, for the cross-table checks.
#[derive(Debug)]
pub(super) struct Placed {
    pub rule: Rule,
    pub who: String,
    /// What it names. Without a metric: that is wrong, and reported.
    pub seen: Seen,
    pub devices_span: Option<Span>,
    pub where_span: Option<Span>,
    pub silence_span: Option<Span>,
    /// Whether all of it is right: overrides of others would only repeat what is wrong.
    pub sound: bool,
}

pub(super) fn rules(
    file: &raw::File,
    type_prefix: &str,
    periods: &Periods,
    checker: &mut Checker<'_>,
) -> Vec<Placed> {
    let mut placed: Vec<Placed> = file
        .rule
        .iter()
        .map(|table| rule(table, type_prefix, periods, checker))
        .collect();
    names::unique(file, &placed, checker);
    for table in &file.r#override {
        overriding(table, &mut placed, checker);
    }
    placed
}

fn rule(
    table: &Spanned<raw::Rule>,
    type_prefix: &str,
    periods: &Periods,
    checker: &mut Checker<'_>,
) -> Placed {
    let before = checker.problems.len();
    let raw = table.get_ref();
    let span = table.span();
    let who = match (&raw.event, &raw.name) {
        (Some(name), _) | (None, Some(name)) => format!("rule {:?}", name.get_ref()),
        (None, None) => "[[rule]]".to_owned(),
    };
    let mut seen = Seen::default();
    let (event, cleared_event) = event(&who, raw, &span, checker);
    let condition = condition(&who, raw, &span, &mut seen, checker);
    steady(&who, raw, condition.as_ref(), &span, checker);
    let rule = Rule {
        name: name(&who, raw, &event, checker).into(),
        event,
        cleared_event,
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
        // A stand-in: a rule with a problem never leaves.
        condition: condition.unwrap_or_else(|| {
            let metric = Metric::new("unnamed").expect("a name");
            Condition::of(metric, Test::Equals(Value::Bool(true)))
        }),
        hold: checker
            .duration(&who, "hold", raw.hold.as_ref())
            .unwrap_or_default(),
        clear_hold: checker
            .duration(&who, "clear-hold", raw.clear_hold.as_ref())
            .unwrap_or_default(),
        severity: checker
            .word(&who, "severity", raw.severity.as_ref(), &SEVERITIES)
            .unwrap_or_default(),
        max_raises: max_raises(&who, raw, checker).unwrap_or_default(),
        remind_every: remind_every(&who, &raw.remind_every, checker),
        unless: unless(&who, raw, &mut seen, checker),
        during: periods.named(&who, &raw.during, checker),
        stale_after: stale_after(&who, raw, checker),
        summary: raw.summary.as_ref().map(|summary| summary.get_ref().clone()),
        runbook: raw.runbook.as_ref().map(|runbook| runbook.get_ref().clone()),
        labels: raw.labels.clone(),
        overrides: Vec::new(),
    };
    summary(&who, raw, &rule, checker);
    Placed {
        rule,
        who,
        seen,
        devices_span: raw.devices.as_ref().map(Spanned::span),
        where_span: raw.r#where.as_ref().map(Spanned::span),
        silence_span: raw.silent_for.as_ref().map(Spanned::span),
        sound: checker.problems.len() == before,
    }
}

/// What it raises, and what the end of that is called.
fn event(who: &str, raw: &raw::Rule, span: &Span, checker: &mut Checker<'_>) -> (Arc<str>, Arc<str>) {
    let form = "what happened, in CamelCase, like \"HighTemperature\"";
    let event = match checker.required(who, "event", &raw.event, span, form) {
        Some(written) => {
            event_name(who, "event", written, checker);
            written.get_ref().as_str()
        }
        None => "",
    };
    let cleared = match &raw.cleared_event {
        None => format!("{event}Cleared"),
        Some(written) => {
            event_name(who, "cleared-event", written, checker);
            if written.get_ref() == event {
                let why = "is the event itself; a raise and its end need two names";
                let message = format!("{who}: cleared-event = {:?} {why}", written.get_ref());
                checker.wrong(written.span(), message);
            }
            written.get_ref().clone()
        }
    };
    (event.into(), cleared.into())
}

fn name(who: &str, raw: &raw::Rule, event: &str, checker: &mut Checker<'_>) -> String {
    let Some(written) = &raw.name else {
        return kebab(event);
    };
    if !is_identifier(written.get_ref()) {
        let form = "must be 1 to 64 of the characters A-Z a-z 0-9 . _ -";
        let message = format!("{who}: name = {:?} {form}", written.get_ref());
        checker.wrong(written.span(), message);
    }
    written.get_ref().clone()
}

fn condition(
    who: &str,
    raw: &raw::Rule,
    span: &Span,
    seen: &mut Seen,
    checker: &mut Checker<'_>,
) -> Option<Condition> {
    let keys = raw.keys();
    let mut written = keys.written();
    written.extend(condition::in_order([
        ("silent-for", raw.silent_for.as_ref().map(Spanned::span)),
        ("all", raw.all.as_ref().map(Spanned::span)),
        ("any", raw.any.as_ref().map(Spanned::span)),
    ]));
    written.sort_by_key(|(_, span)| span.start);
    let one = condition::single(who, &written, condition::TWO_RULES, checker);
    if written.is_empty() {
        let message = format!("{who}: it has no condition; write one of {CONDITIONS}, silent-for, all, any");
        checker.wrong(span.clone(), message);
    }
    let Some(key) = written.first().filter(|_| one) else {
        if raw.all.is_none() && raw.any.is_none() {
            watched::metric(who, &raw.metric, span, seen, checker);
        }
        return None;
    };
    match (key.0, &raw.all, &raw.any) {
        ("all", Some(list), _) | ("any", _, Some(list)) => {
            let before = checker.problems.len();
            if let Some(metric) = &raw.metric {
                let message = format!(
                    "{who}: each sub-condition of `{}` names its own metric; drop this one",
                    key.0
                );
                checker.wrong(metric.span(), message);
            }
            for (further, span) in keys.further() {
                let message = format!(
                    "{who}: {further} and `{}`; {further} stands in the sub-conditions",
                    key.0
                );
                checker.wrong(span, message);
            }
            let parts = watched::parts(who, key.0, list, seen, checker)?;
            let condition = if key.0 == "all" {
                Condition::All(parts)
            } else {
                Condition::Any(parts)
            };
            (checker.problems.len() == before).then_some(condition)
        }
        ("silent-for", ..) => {
            let metric = watched::metric(who, &raw.metric, span, seen, checker);
            let before = checker.problems.len();
            for (further, span) in keys.further() {
                let message = format!(
                    "{who}: {further} and `silent-for`, which ends with the next reading; drop {further}"
                );
                checker.wrong(span, message);
            }
            let after = silence(who, raw.silent_for.as_ref(), checker)?;
            (checker.problems.len() == before).then_some(Condition::Silent {
                metric: metric?,
                after,
            })
        }
        _ => {
            let metric = watched::metric(who, &raw.metric, span, seen, checker);
            let (window, test) = watched::test(who, &keys, key, checker)?;
            Some(Condition::Value(Watched {
                metric: metric?,
                window,
                test,
            }))
        }
    }
}

pub(super) fn silence(
    who: &str,
    written: Option<&Spanned<String>>,
    checker: &mut Checker<'_>,
) -> Option<Duration> {
    checker.duration_in(who, "silent-for", written, SHORTEST_SILENCE..=LONGEST)
}

pub(super) fn remind_every(who: &str, written: &raw::Text, checker: &mut Checker<'_>) -> Option<Duration> {
    checker.duration_in(who, "remind-every", written.as_ref(), SHORTEST_REMINDER..=LONGEST)
}

fn unless(who: &str, raw: &raw::Rule, seen: &mut Seen, checker: &mut Checker<'_>) -> Option<Unless> {
    let after = checker.duration(who, "unless-after", raw.unless_after.as_ref());
    match (&raw.unless, &raw.unless_after) {
        (Some(table), _) => Some(Unless {
            part: watched::part(&format!("{who}: unless"), table, seen, checker)?,
            after: after.unwrap_or_default(),
        }),
        (None, Some(written)) => {
            let remedy = "it is how much longer than unless; write that, or drop it";
            checker.wrong(
                written.span(),
                format!("{who}: unless-after without unless; {remedy}"),
            );
            None
        }
        (None, None) => None,
    }
}

fn stale_after(who: &str, raw: &raw::Rule, checker: &mut Checker<'_>) -> Duration {
    let written = raw.stale_after.as_ref();
    if let Some(written) = written.filter(|_| raw.all.is_none() && raw.any.is_none() && raw.unless.is_none())
    {
        let remedy = "it is about all, any and unless; drop it, or write silent-for in a rule of its own";
        checker.wrong(
            written.span(),
            format!("{who}: stale-after has nothing to go with; {remedy}"),
        );
    }
    checker
        .duration_in(who, "stale-after", written, SHORTEST_SILENCE..=LONGEST)
        .unwrap_or(Duration::from_mins(15))
}

fn summary(who: &str, raw: &raw::Rule, rule: &Rule, checker: &mut Checker<'_>) {
    let known: &[&str] = match rule.condition {
        // Which of its metrics, values and thresholds nobody could say.
        Condition::All(_) | Condition::Any(_) => &["device"],
        _ => &["device", "metric", "value", "unit", "threshold"],
    };
    if let Some(summary) = &raw.summary {
        checker.placeholders(who, "summary", summary, known);
    }
}

/// Warns of a rule that nothing keeps from trembling.
fn steady(who: &str, raw: &raw::Rule, condition: Option<&Condition>, span: &Span, checker: &mut Checker<'_>) {
    if raw.clear.is_some() || raw.margin.is_some() || raw.hold.is_some() {
        return;
    }
    let trembles =
        |watched: &Watched| watched.window.is_none() && condition::margin_of(&watched.test) == Some(0.0);
    let remedy = match condition {
        // A silence is a hold by itself, and a window moves slowly.
        Some(Condition::Silent { .. }) => return,
        Some(Condition::Value(watched)) if watched.window.is_some() => return,
        Some(Condition::All(parts) | Condition::Any(parts)) => {
            if !parts.iter().any(|part| trembles(&part.watched)) {
                return;
            }
            "hold = \"30s\", or margin = ... in each sub-condition, steadies it"
        }
        Some(Condition::Value(watched)) if !trembles(watched) => "hold = \"30s\" steadies it",
        _ => "margin = ... or hold = \"30s\" steadies it",
    };
    let why = "it has neither clear, margin nor hold: a value that trembles at the threshold raises and clears again \
               and again";
    checker.warn(span.clone(), format!("{who}: {why}; {remedy}"));
}

fn max_raises(who: &str, raw: &raw::Rule, checker: &mut Checker<'_>) -> Option<MaxRaises> {
    let written = raw.max_raises.as_ref()?;
    let parsed = rate(written.get_ref());
    if parsed.is_none() {
        checker.wrong(
            written.span(),
            format!("{who}: max-raises = {:?}: {RATE_FORM}", written.get_ref()),
        );
    }
    parsed
}

/// Patterns of device ids; an empty list would match nothing.
pub(super) fn patterns(
    who: &str,
    list: &Spanned<Vec<Spanned<String>>>,
    checker: &mut Checker<'_>,
) -> Vec<Pattern> {
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
