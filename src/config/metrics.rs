//! `format`, `time` and the metric tables of any source: how its payloads become values.

use std::sync::Arc;

use toml::{Spanned, Value};

use super::{
    check::{Checker, Span, Taken, Words},
    raw,
};
use crate::{
    decode::{Decoder, Format, MetricPlan},
    reading::Metric,
};

/// Which source asks, because not every format makes sense everywhere.
pub(super) struct Asked<'r> {
    pub who: &'r str,
    /// Where the table begins.
    pub span: Span,
    pub formats: Words<'r, Format>,
    pub format: &'r raw::Text,
    pub time: &'r raw::Text,
    pub device_at: &'r raw::Text,
    pub metrics: &'r [Spanned<raw::Metric>],
    /// The topic names the metric.
    pub captured: bool,
}

pub(super) fn decoder(asked: &Asked<'_>, checker: &mut Checker<'_>) -> Decoder {
    let who = asked.who;
    let written = checker.required(
        who,
        "format",
        asked.format,
        &asked.span,
        "say what its payloads are, like \"json\"",
    );
    let known = checker.word(who, "format", written, &asked.formats);
    let format = known.unwrap_or(Format::Json);
    if known.is_some() {
        fits(asked, format, checker);
    }
    if let Some(time) = asked.time {
        if format == Format::Json {
            pointer(who, "time", time.get_ref(), time.span(), checker);
        } else {
            checker.wrong(
                time.span(),
                format!("{who}: time needs format = \"json\"; drop it"),
            );
        }
    }
    if let Some(at) = asked.device_at {
        match format {
            Format::Json => pointer(who, "device-at", at.get_ref(), at.span(), checker),
            Format::KeyValue if !at.get_ref().is_empty() => {}
            _ => {
                let why = "device-at needs format = \"json\" or \"key-value\" and a place in it; write device = \"...\"";
                checker.wrong(at.span(), format!("{who}: {why}"));
            }
        }
    }
    let mut names = Taken::default();
    let plans = asked.metrics.iter().filter_map(|table| {
        let plan = plan(who, format, known.is_some(), table, checker)?;
        let span = table
            .get_ref()
            .name
            .as_ref()
            .map_or_else(|| table.span(), Spanned::span);
        if let Some(first) = names.take(plan.name.as_str(), span.clone()) {
            let line = checker.line(&first);
            let remedy = "a metric has one place; drop one or rename it";
            checker.wrong(
                span,
                format!(
                    "{who}: metric {:?} is already on line {line}; {remedy}",
                    plan.name.as_str()
                ),
            );
        }
        Some(plan)
    });
    let metrics = plans.collect();
    Decoder {
        format,
        time: asked.time.as_ref().map(|time| time.get_ref().clone()),
        device_at: asked.device_at.as_ref().map(|at| at.get_ref().clone()),
        metrics,
    }
}

/// Whether the number of metric tables suits the format.
fn fits(asked: &Asked<'_>, format: Format, checker: &mut Checker<'_>) {
    let who = asked.who;
    let second = asked.metrics.get(1).map(Spanned::span);
    match (format, asked.metrics.first()) {
        (_, Some(first)) if asked.captured => {
            let remedy = "drop the table, or write + in place of {metric}";
            checker.wrong(
                first.span(),
                format!("{who}: the topic's {{metric}} already names the metric; {remedy}"),
            );
        }
        (Format::Number, None) if !asked.captured => {
            let remedy = "add one metric table with a name";
            checker.wrong(
                asked.span.clone(),
                format!("{who}: format = \"number\" does not say what is measured; {remedy}"),
            );
        }
        (Format::Csv, None) => {
            let remedy = "add a metric table for each column that counts, with name and at";
            checker.wrong(
                asked.span.clone(),
                format!("{who}: format = \"csv\" does not say what is measured; {remedy}"),
            );
        }
        (Format::Number, Some(_)) => {
            if let Some(second) = second {
                checker.wrong(
                    second,
                    format!("{who}: format = \"number\" is one number; one metric table is all it can fill"),
                );
            }
        }
        (Format::Json, Some(_)) => {
            let mut whole = asked
                .metrics
                .iter()
                .filter(|metric| metric.get_ref().at.is_none());
            if let (Some(_), Some(another)) = (whole.next(), whole.next()) {
                let why = "only one metric can be the whole payload; write at = \"/...\"";
                checker.wrong(another.span(), format!("{who}: {why}"));
            }
        }
        _ => {}
    }
}

fn plan(
    who: &str,
    format: Format,
    format_known: bool,
    table: &Spanned<raw::Metric>,
    checker: &mut Checker<'_>,
) -> Option<MetricPlan> {
    let raw = table.get_ref();
    let form = "say what it is, like \"temperature\"";
    let written = checker.required(who, "a metric's name", &raw.name, &table.span(), form)?;
    let name = match Metric::new(written.get_ref()) {
        Ok(name) => name,
        Err(error) => {
            checker.wrong(
                written.span(),
                format!("{who}: metric {:?}: {error}", written.get_ref()),
            );
            return None;
        }
    };
    let who = format!("{who}: metric {:?}", name.as_str());
    let at = if format_known {
        place(&who, format, raw.at.as_ref(), &table.span(), checker)
    } else {
        None
    };
    if let Some(unit) = &raw.unit {
        let text = unit.get_ref();
        if text.is_empty() || text.len() > 32 || text.contains(|c: char| c.is_control() || c.is_whitespace())
        {
            checker.wrong(
                unit.span(),
                format!("{who}: unit = {text:?} must be a SenML unit, like \"Cel\", \"%RH\" or \"W\""),
            );
        }
    }
    let scale = checker.finite(&who, "scale", raw.scale.as_ref()).unwrap_or(1.0);
    if let Some(written) = raw.scale.as_ref().filter(|_| scale == 0.0) {
        checker.wrong(
            written.span(),
            format!("{who}: scale = 0 makes every value the same; drop it or write another"),
        );
    }
    if let Some(ignore) = raw
        .ignore
        .as_ref()
        .filter(|list| list.get_ref().iter().any(|value| !value.is_finite()))
    {
        let why = "ignore takes numbers; NaN and infinities never pass anyway";
        checker.wrong(ignore.span(), format!("{who}: {why}"));
    }
    Some(MetricPlan {
        name,
        at,
        unit: raw.unit.as_ref().map(|unit| Arc::from(unit.get_ref().as_str())),
        scale,
        offset: checker.finite(&who, "offset", raw.offset.as_ref()).unwrap_or(0.0),
        ignore: raw
            .ignore
            .as_ref()
            .map(|ignore| ignore.get_ref().clone())
            .unwrap_or_default(),
        valid: checker.pair(&who, "valid", raw.valid.as_ref(), true),
    })
}

/// Where the value stands, by format.
fn place(
    who: &str,
    format: Format,
    at: Option<&Spanned<Value>>,
    table: &Span,
    checker: &mut Checker<'_>,
) -> Option<String> {
    let Some(written) = at else {
        match format {
            Format::Csv => checker.wrong(
                table.clone(),
                format!("{who}: at is missing: the column's number, from 1"),
            ),
            Format::KeyValue => checker.wrong(
                table.clone(),
                format!("{who}: at is missing: the key before the ="),
            ),
            Format::Json | Format::Number => {}
        }
        return None;
    };
    let span = written.span();
    let text = match written.get_ref() {
        Value::Integer(column) if format == Format::Csv => column.to_string(),
        Value::String(text) => text.clone(),
        other => {
            checker.wrong(
                span,
                format!("{who}: at = {other} must be text in quotes; only csv has columns"),
            );
            return None;
        }
    };
    match format {
        Format::Json => pointer(who, "at", &text, span, checker),
        Format::Number => {
            checker.wrong(span, format!("{who}: at has no meaning here: with format = \"number\" the payload is the value; drop it"));
        }
        Format::Csv => {
            if !text.parse::<u16>().is_ok_and(|column| column > 0) {
                checker.wrong(
                    span,
                    format!("{who}: at = {text:?} must be the column's number, from 1, like at = 2"),
                );
            }
        }
        Format::KeyValue => {
            if text.is_empty() || text.contains(|c: char| c.is_whitespace() || "=,;".contains(c)) {
                checker.wrong(
                    span,
                    format!("{who}: at = {text:?} must be the key before the =, like at = \"temp\""),
                );
            }
        }
    }
    Some(text)
}

/// RFC 6901: empty, or slashes before every name; `~` only as `~0` and `~1`.
fn pointer(who: &str, key: &str, text: &str, span: Span, checker: &mut Checker<'_>) {
    let escapes = text.split('~').skip(1).all(|after| after.starts_with(['0', '1']));
    if !(text.is_empty() || text.starts_with('/')) || !escapes {
        let suggestion = format!("/{}", text.trim_start_matches("$.").replace('.', "/"));
        let form = format!("must be a JSON Pointer, like {suggestion:?}");
        checker.wrong(span, format!("{who}: {key} = {text:?} {form}"));
    }
}
