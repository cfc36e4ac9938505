//! The text formats: one number, columns, pairs.

use super::{DecodeError, Decoded, Decoder, value_of};
use crate::reading::Value;

pub(super) fn number(plan: &Decoder, payload: &[u8]) -> Result<Decoded, DecodeError> {
    let number: f64 = text(payload)?.parse().map_err(|_| DecodeError::NotANumber)?;
    let value = number.is_finite().then_some(Value::Number(number));
    let mut decoded = Decoded::default();
    if plan.metrics.is_empty() {
        decoded.take_nameless(value.clone());
    }
    for metric in &plan.metrics {
        decoded.take(metric, value.clone());
    }
    Ok(decoded)
}

pub(super) fn csv(plan: &Decoder, payload: &[u8]) -> Result<Decoded, DecodeError> {
    let text = text(payload)?;
    if text.contains(['\n', '\r']) {
        return Err(DecodeError::SeveralLines);
    }
    if text.contains('"') {
        return Err(DecodeError::Quoted);
    }
    let columns: Vec<&str> = text.split(',').map(str::trim).collect();
    let column = |at: &str| columns.get(at.parse::<usize>().ok()?.checked_sub(1)?).copied();
    let device = plan
        .device_at
        .as_ref()
        .and_then(|at| column(at))
        .map(str::to_owned);
    let mut decoded = Decoded {
        device,
        ..Decoded::default()
    };
    for metric in &plan.metrics {
        match metric.at.as_deref().map_or(Some(text), column) {
            // An empty column is a sensor that says nothing.
            Some("") => {}
            Some(found) => decoded.take(metric, scalar(found)),
            // A line without the column is half a line.
            None => decoded.rejected += 1,
        }
    }
    Ok(decoded)
}

pub(super) fn key_value(plan: &Decoder, payload: &[u8]) -> Result<Decoded, DecodeError> {
    let mut decoded = Decoded::default();
    let mut pairs = Vec::new();
    let mut rest = text(payload)?;
    loop {
        rest = rest.trim_start_matches(separates);
        if rest.is_empty() {
            break;
        }
        let (pair, after) = next_pair(rest);
        rest = after;
        match pair {
            Some(pair) => pairs.push(pair),
            None => decoded.rejected += 1,
        }
    }
    if pairs.is_empty() {
        return Err(DecodeError::NoPairs);
    }
    // Said twice, the last word counts.
    let said = |key: &str| {
        pairs
            .iter()
            .rev()
            .find(|(known, _)| *known == key)
            .map(|(_, value)| *value)
    };
    decoded.device = plan
        .device_at
        .as_deref()
        .and_then(said)
        .filter(|name| !name.is_empty())
        .map(str::to_owned);
    for metric in &plan.metrics {
        let found = metric
            .at
            .as_deref()
            .map_or_else(|| said(metric.name.as_str()), said);
        match found {
            None | Some("") => {}
            Some(found) => decoded.take(metric, scalar(found)),
        }
    }
    if plan.metrics.is_empty() {
        for (key, value) in &pairs {
            if !value.is_empty() && plan.device_at.as_deref() != Some(*key) {
                decoded.take_named(key, scalar(value));
            }
        }
    }
    Ok(decoded)
}

/// Splits `k=v`, `k = v`, `k:v` or `k: v` off; a word that is no pair gives none. `rest` starts with no
/// separator and what is left is shorter, so that this ends.
fn next_pair(rest: &str) -> (Option<(&str, &str)>, &str) {
    let end = rest.find(|c| separates(c) || assigns(c)).unwrap_or(rest.len());
    let (key, after) = rest.split_at(end);
    let spaced = after.trim_start_matches([' ', '\t']);
    let Some(sign) = spaced.chars().next().filter(|c| assigns(*c)) else {
        return (None, after);
    };
    let value = spaced.get(sign.len_utf8()..).unwrap_or_default();
    // "a= b=2" has an empty a; "a = 2" and "a: 2" have blanks for people.
    let for_people = sign == ':' || spaced.len() < after.len();
    let value = if for_people {
        value.trim_start_matches([' ', '\t'])
    } else {
        value
    };
    let end = value.find(separates).unwrap_or(value.len());
    let (value, after) = value.split_at(end);
    ((!key.is_empty()).then_some((key, value)), after)
}

fn separates(c: char) -> bool {
    c.is_whitespace() || matches!(c, ',' | ';')
}

fn assigns(c: char) -> bool {
    matches!(c, '=' | ':')
}

fn scalar(text: &str) -> Option<Value> {
    match text {
        "null" => None,
        "true" => Some(Value::Bool(true)),
        "false" => Some(Value::Bool(false)),
        other => value_of(other),
    }
}

fn text(payload: &[u8]) -> Result<&str, DecodeError> {
    let text = std::str::from_utf8(payload)
        .map_err(|_| DecodeError::NotUtf8)?
        .trim();
    if text.is_empty() {
        Err(DecodeError::Empty)
    } else {
        Ok(text)
    }
}
