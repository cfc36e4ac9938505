//! JSON. The parser refuses more than 128 levels, so that no payload can exhaust the stack.

use serde_json::Value as Json;

use super::{DecodeError, Decoded, Decoder, value_of};
use crate::{
    reading::{MAX_NAME, Value},
    time::Timestamp,
};

/// Numbers over this are Unix milliseconds: as seconds they would lie in the year 5138.
const MILLISECONDS_FROM: f64 = 1e11;

/// The last second that RFC 3339 can write.
const LAST_SECOND: f64 = 253_402_300_799.0;

pub(super) fn decode(plan: &Decoder, payload: &[u8]) -> Result<Decoded, DecodeError> {
    if payload.trim_ascii().is_empty() {
        return Err(DecodeError::Empty);
    }
    let root: Json =
        serde_json::from_slice(payload).map_err(|error| DecodeError::NotJson(error.to_string()))?;
    let mut decoded = Decoded {
        device: plan
            .device_at
            .as_ref()
            .and_then(|at| root.pointer(at))
            .and_then(name),
        time: plan.time.as_ref().and_then(|at| root.pointer(at)).and_then(time),
        ..Decoded::default()
    };
    if plan.metrics.is_empty() {
        let said: Vec<&Json> = [&plan.device_at, &plan.time]
            .into_iter()
            .flatten()
            .filter_map(|at| root.pointer(at))
            .collect();
        everything(&root, &said, &mut String::new(), &mut decoded);
    }
    for metric in &plan.metrics {
        let found = match &metric.at {
            Some(at) => root.pointer(at),
            None => Some(&root),
        };
        match found {
            None | Some(Json::Null) => {}
            Some(json) => decoded.take(metric, value(json)),
        }
    }
    Ok(decoded)
}

/// Takes every number, boolean and text below `json`, which the payload calls `path`; what was already
/// `said` as the device or the time is no metric.
fn everything(json: &Json, said: &[&Json], path: &mut String, decoded: &mut Decoded) {
    if said.iter().any(|said| std::ptr::eq(*said, json)) {
        return;
    }
    match json {
        Json::Null => {}
        Json::Object(members) => {
            for (key, member) in members {
                below(key, member, said, path, decoded);
            }
        }
        Json::Array(members) => {
            for (index, member) in members.iter().enumerate() {
                below(&index.to_string(), member, said, path, decoded);
            }
        }
        Json::Bool(_) | Json::Number(_) | Json::String(_) if path.is_empty() => {
            decoded.take_nameless(value(json));
        }
        Json::Bool(_) | Json::Number(_) | Json::String(_) => decoded.take_named(path, value(json)),
    }
}

fn below(key: &str, member: &Json, said: &[&Json], path: &mut String, decoded: &mut Decoded) {
    let length = path.len();
    // An empty name joins to nothing that could be told from its parent; a long one is no metric's.
    if key.is_empty() || length + key.len() > MAX_NAME {
        decoded.rejected += 1;
        return;
    }
    if length > 0 {
        path.push('.');
    }
    path.push_str(key);
    everything(member, said, path, decoded);
    path.truncate(length);
}

/// A single value; none if it is an object, an array or too long.
fn value(json: &Json) -> Option<Value> {
    match json {
        Json::Bool(on) => Some(Value::Bool(*on)),
        Json::Number(number) => number
            .as_f64()
            .filter(|number| number.is_finite())
            .map(Value::Number),
        Json::String(text) => value_of(text),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

fn name(json: &Json) -> Option<String> {
    match json {
        Json::String(name) => Some(name.clone()),
        Json::Number(number) => Some(number.to_string()),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    }
}

/// RFC 3339, Unix seconds or Unix milliseconds; anything else is no time, and the arrival counts.
fn time(json: &Json) -> Option<Timestamp> {
    match json {
        Json::Number(number) => unix(number.as_f64()?),
        Json::String(text) => match text.trim().parse::<f64>() {
            Ok(number) => unix(number),
            Err(_) => text
                .trim()
                .parse::<jiff::Timestamp>()
                .ok()
                .map(|time| Timestamp(time.as_microsecond())),
        },
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "checked against the year 9999, which fits many times"
)]
fn unix(number: f64) -> Option<Timestamp> {
    let seconds = if number > MILLISECONDS_FROM {
        number / 1e3
    } else {
        number
    };
    (0.0..=LAST_SECOND)
        .contains(&seconds)
        .then(|| Timestamp((seconds * 1e6).round() as i64))
}
