//! JSON. The parser refuses more than 128 levels, so that no payload can exhaust the stack.

use serde_json::Value as Json;

use super::{DecodeError, Decoded, Decoder, OwnTime, value_of};
use crate::{
    reading::{MAX_NAME, Value},
    time::Timestamp,
};

mod pick;

use pick::{Found, Pick};

/// Numbers over this are Unix milliseconds: as seconds they would lie in the year 5138.
const MILLISECONDS_FROM: f64 = 1e11;

/// The last second that RFC 3339 can write.
const LAST_SECOND: f64 = 253_402_300_799.0;

pub(super) fn decode(plan: &Decoder, payload: &[u8]) -> Result<Decoded, DecodeError> {
    if payload.trim_ascii().is_empty() {
        return Err(DecodeError::Empty);
    }
    let decoded = if plan.metrics.is_empty() {
        whole(plan, payload)
    } else {
        some(plan, payload)
    };
    decoded.map_err(|error| DecodeError::NotJson(error.to_string()))
}

/// What the plan asks for.
fn some<'p>(plan: &'p Decoder, payload: &[u8]) -> Result<Decoded, serde_json::Error> {
    let at = |place: &'p Option<String>| place.as_deref().map(Pick::new);
    let metrics = plan
        .metrics
        .iter()
        .map(|metric| Pick::new(metric.at.as_deref().unwrap_or_default()));
    let mut picks: Vec<Pick<'_>> = metrics.chain(at(&plan.device_at)).chain(at(&plan.time)).collect();
    pick::pick(payload, &mut picks)?;
    let mut found = picks.into_iter().map(|pick| pick.found);
    let mut decoded = Decoded {
        values: Vec::with_capacity(plan.metrics.len()),
        ..Decoded::default()
    };
    for metric in &plan.metrics {
        match found.next().flatten() {
            None | Some(Found::Null) => {}
            Some(found) => decoded.take(metric, value(&found)),
        }
    }
    if plan.device_at.is_some() {
        decoded.device = found.next().flatten().and_then(name);
    }
    if plan.time.is_some() {
        decoded.time = found.next().flatten().as_ref().and_then(time);
    }
    Ok(decoded)
}

/// All that there is: the plan names no metrics.
fn whole(plan: &Decoder, payload: &[u8]) -> Result<Decoded, serde_json::Error> {
    let root: Json = serde_json::from_slice(payload)?;
    let at = |place: &Option<String>| place.as_ref().and_then(|at| root.pointer(at));
    let (device, own_time) = (at(&plan.device_at), at(&plan.time));
    let mut decoded = Decoded {
        device: device.map(Found::of).and_then(name),
        time: own_time.map(Found::of).as_ref().and_then(time),
        ..Decoded::default()
    };
    let said: Vec<&Json> = device.into_iter().chain(own_time).collect();
    everything(&root, &said, &mut String::new(), &mut decoded);
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
            decoded.take_nameless(value(&Found::of(json)));
        }
        Json::Bool(_) | Json::Number(_) | Json::String(_) => {
            decoded.take_named(path, value(&Found::of(json)));
        }
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
fn value(found: &Found) -> Option<Value> {
    match found {
        Found::Bool(on) => Some(Value::Bool(*on)),
        Found::Number(number) => number
            .as_f64()
            .filter(|number| number.is_finite())
            .map(Value::Number),
        Found::Text(text) => value_of(text),
        Found::Null | Found::Several => None,
    }
}

fn name(found: Found) -> Option<String> {
    match found {
        Found::Text(name) => Some(name),
        Found::Number(number) => Some(number.to_string()),
        Found::Null | Found::Bool(_) | Found::Several => None,
    }
}

/// RFC 3339 with or without a zone, Unix seconds or Unix milliseconds; anything else is no time, and the arrival
/// counts.
fn time(found: &Found) -> Option<OwnTime> {
    match found {
        Found::Number(number) => unix(number.as_f64()?).map(OwnTime::Utc),
        Found::Text(text) => match text.trim().parse::<f64>() {
            Ok(number) => unix(number).map(OwnTime::Utc),
            Err(_) => date(text.trim()),
        },
        Found::Null | Found::Bool(_) | Found::Several => None,
    }
}

fn date(text: &str) -> Option<OwnTime> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(OwnTime::Utc(Timestamp(time.as_microsecond())));
    }
    // A date alone says no time, and a zone's name in brackets would be passed over.
    let is_local = text.contains(':') && !text.contains('[');
    let local = is_local.then(|| text.parse().ok())?;
    local.map(OwnTime::Local)
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
