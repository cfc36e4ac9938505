//! What a condition looks at: a metric, a window over it, the parts of `all`, `any` and `unless`.

use std::time::Duration;

use toml::Spanned;

use super::{
    check::{Checker, Span, Words},
    condition::{self, CONDITIONS, Keys, Threshold},
    line::device_id,
    raw,
};
use crate::{
    reading::{DeviceId, Metric, Value},
    rule::{Aggregate, Part, Sliding, Test, Watched},
};

/// What a window is computed to, as `of` names it. A rise and a fall have conditions of their own.
const AGGREGATES: Words<'static, Option<Aggregate>> = Words {
    now: &[
        ("last", None),
        ("mean", Some(Aggregate::Mean)),
        ("min", Some(Aggregate::Min)),
        ("max", Some(Aggregate::Max)),
        ("sum", Some(Aggregate::Sum)),
        ("count", Some(Aggregate::Count)),
        ("delta", Some(Aggregate::Delta)),
    ],
    later: &[],
};

/// A window's shortest length: a shorter one would hold single readings.
const SHORTEST_WINDOW: Duration = Duration::from_millis(100);
/// A window's longest: a year and a day.
const LONGEST_WINDOW: Duration = Duration::from_hours(366 * 24);
/// Fewer readings than this approximate nothing.
const LEAST_WINDOW: usize = 16;
/// A megabyte or so for each device: more is a slip.
const MOST_WINDOW: usize = 65_536;
/// A list is read by a person who is woken at night.
const MOST_PARTS: usize = 16;

const TWO_PARTS: &str = "a sub-condition has one condition: make two of it";

/// What the cross checks need to know of a rule: which metrics and devices it names, and where.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub metrics: Vec<(Metric, Span)>,
    pub devices: Vec<(DeviceId, Span)>,
}

/// The metric, noted for the cross checks.
pub(super) fn metric(
    who: &str,
    written: &raw::Text,
    table: &Span,
    seen: &mut Seen,
    checker: &mut Checker<'_>,
) -> Option<Metric> {
    let form = "what to watch, like \"temperature\"";
    let written = checker.required(who, "metric", written, table, form)?;
    match Metric::new(written.get_ref()) {
        Ok(metric) => {
            seen.metrics.push((metric.clone(), written.span()));
            Some(metric)
        }
        Err(error) => {
            let message = format!("{who}: metric {:?}: {error}", written.get_ref());
            checker.wrong(written.span(), message);
            None
        }
    }
}

/// The one condition under `key`, and the window it looks at.
pub(super) fn test(
    who: &str,
    keys: &Keys<'_>,
    (key, span): &(&'static str, Span),
    checker: &mut Checker<'_>,
) -> Option<(Option<Sliding>, Test)> {
    let threshold = keys.threshold(who, key, checker);
    let point = keys.clear_point(who, checker);
    let window = match *key {
        "rises-by" => Some(trend(who, key, Aggregate::Rise, keys, span, checker)?),
        "falls-by" => Some(trend(who, key, Aggregate::Fall, keys, span, checker)?),
        _ => match window(who, keys, threshold.as_ref(), span, checker) {
            Ok(window) => window,
            Err(Reported) => return None,
        },
    };
    let test = condition::compose(who, &threshold?, &point?, checker)?;
    Some((window, test))
}

/// The window of `rises-by` and `falls-by`: `within`.
fn trend(
    who: &str,
    key: &str,
    of: Aggregate,
    keys: &Keys<'_>,
    span: &Span,
    checker: &mut Checker<'_>,
) -> Option<Sliding> {
    let theirs = condition::in_order([
        ("of", keys.window.of.map(Spanned::span)),
        ("over", keys.window.over.map(Spanned::span)),
    ]);
    if let Some((first, span)) = theirs.into_iter().next() {
        let message =
            format!("{who}: {first} and {key}; `{key}` has a window of its own, within: drop of and over");
        checker.wrong(span, message);
        return None;
    }
    if keys.within.is_none() {
        let remedy = "in how long, like within = \"5m\"";
        checker.wrong(span.clone(), format!("{who}: {key} needs within: {remedy}"));
        return None;
    }
    sliding(who, of, "within", keys.within, keys, checker)
}

/// It is wrong, and the checker has it.
struct Reported;

/// The window that `of` and `over` say; none inside: each value by itself.
fn window(
    who: &str,
    keys: &Keys<'_>,
    threshold: Option<&Threshold>,
    span: &Span,
    checker: &mut Checker<'_>,
) -> Result<Option<Sliding>, Reported> {
    if let Some(within) = keys.within {
        let remedy = "rises-by and falls-by have one; for a window write of and over";
        checker.wrong(
            within.span(),
            format!("{who}: within has nothing to go with; {remedy}"),
        );
        return Err(Reported);
    }
    let of = match keys.window.of {
        Some(written) => checker
            .word(who, "of", Some(written), &AGGREGATES)
            .ok_or(Reported)?,
        None => None,
    };
    match (of, keys.window.of, keys.window.over) {
        (None, Some(last), Some(_)) => {
            let remedy = "drop over, or write of = \"mean\"";
            checker.wrong(
                last.span(),
                format!("{who}: of = \"last\" looks at one reading; {remedy}"),
            );
            Err(Reported)
        }
        (None, None, Some(over)) => {
            let remedy = "say what of it counts, like of = \"mean\"";
            checker.wrong(
                over.span(),
                format!("{who}: over is how long a window is; {remedy}"),
            );
            Err(Reported)
        }
        (None, _, None) => {
            let sizes = condition::in_order([
                ("window-min", keys.window.min.map(Spanned::span)),
                ("window-max", keys.window.max.map(Spanned::span)),
            ]);
            if let Some((key, span)) = sizes.into_iter().next() {
                let remedy = "there is no window; write of and over, or drop it";
                checker.wrong(span, format!("{who}: {key}: {remedy}"));
                return Err(Reported);
            }
            Ok(None)
        }
        (Some(_), Some(written), None) => {
            let remedy = "of how long, like over = \"5m\"";
            let message = format!("{who}: of = {:?} needs over: {remedy}", written.get_ref());
            checker.wrong(written.span(), message);
            Err(Reported)
        }
        (Some(of), _, over) => {
            let window = sliding(who, of, "over", over, keys, checker);
            if let Some(Threshold::Equals(value) | Threshold::NotEquals(value)) = threshold
                && !matches!(value, Value::Number(_))
            {
                let message = format!("{who}: of and over make a number; compare with one, or drop them");
                checker.wrong(span.clone(), message);
                return Err(Reported);
            }
            window.map(Some).ok_or(Reported)
        }
    }
}

pub(super) fn length(
    who: &str,
    key: &str,
    written: Option<&Spanned<String>>,
    checker: &mut Checker<'_>,
) -> Option<Duration> {
    checker.duration_in(who, key, written, SHORTEST_WINDOW..=LONGEST_WINDOW)
}

fn sliding(
    who: &str,
    of: Aggregate,
    key: &str,
    length: Option<&Spanned<String>>,
    keys: &Keys<'_>,
    checker: &mut Checker<'_>,
) -> Option<Sliding> {
    let over = self::length(who, key, length, checker);
    let before = checker.problems.len();
    let max = checker
        .whole_in(who, "window-max", keys.window.max, &(LEAST_WINDOW..=MOST_WINDOW))
        .unwrap_or(1024);
    let min = checker
        .whole_in(who, "window-min", keys.window.min, &(1..=MOST_WINDOW))
        .unwrap_or(1);
    if let Some(written) = keys
        .window
        .min
        .filter(|_| min > max && checker.problems.len() == before)
    {
        let message =
            format!("{who}: window-min = {min} is more than window-max = {max}; raise that, or write less");
        checker.wrong(written.span(), message);
    }
    (checker.problems.len() == before).then_some(Sliding {
        of,
        over: over?,
        min,
        max,
    })
}

/// The sub-conditions of `all` or `any`, under `key`.
pub(super) fn parts(
    who: &str,
    key: &str,
    list: &Spanned<Vec<Spanned<raw::Part>>>,
    seen: &mut Seen,
    checker: &mut Checker<'_>,
) -> Option<Vec<Part>> {
    let remedy = match list.get_ref().len() {
        0 => Some("has no sub-condition; write two or more".to_owned()),
        1 => Some("has one sub-condition; write it as the rule's own, or add another".to_owned()),
        many if many > MOST_PARTS => Some(format!(
            "has {many} sub-conditions; {MOST_PARTS} are the most: make two rules"
        )),
        _ => None,
    };
    let counted = remedy.is_none();
    if let Some(remedy) = remedy {
        checker.wrong(list.span(), format!("{who}: {key} {remedy}"));
    }
    let parts: Vec<Option<Part>> = list
        .get_ref()
        .iter()
        .map(|table| part(&format!("{who}: {key}"), table, seen, checker))
        .collect();
    let parts = parts.into_iter().collect::<Option<Vec<Part>>>();
    parts.filter(|_| counted)
}

/// One sub-condition.
pub(super) fn part(
    who: &str,
    table: &Spanned<raw::Part>,
    seen: &mut Seen,
    checker: &mut Checker<'_>,
) -> Option<Part> {
    let raw = table.get_ref();
    let who = &match &raw.metric {
        Some(metric) => format!("{who}: {:?}", metric.get_ref()),
        None => who.to_owned(),
    };
    let metric = metric(who, &raw.metric, &table.span(), seen, checker);
    let device = raw.device.as_ref().map(|written| {
        if written.get_ref().contains('*') {
            let why = "a sub-condition needs one id; without `device` it looks at the rule's own device";
            checker.wrong(
                written.span(),
                format!("{who}: device = {:?}: {why}", written.get_ref()),
            );
            return None;
        }
        let id = device_id(who, written, checker);
        seen.devices.extend(id.clone().map(|id| (id, written.span())));
        id
    });
    let keys = raw.keys();
    let written = keys.written();
    if written.is_empty() {
        let message = format!("{who}: it has no condition; write one of {CONDITIONS}");
        checker.wrong(table.span(), message);
    }
    if !condition::single(who, &written, TWO_PARTS, checker) {
        return None;
    }
    let (window, test) = test(who, &keys, written.first()?, checker)?;
    let device = match device {
        None => None,
        Some(id) => Some(id?),
    };
    Some(Part {
        device,
        watched: Watched {
            metric: metric?,
            window,
            test,
        },
    })
}
