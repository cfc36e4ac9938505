//! `[[sink.http]]`: a URL that events are posted to.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use toml::Spanned;

use crate::{
    config::{
        check::{Checker, Words},
        raw,
    },
    forward::http::{Address, Compression, Mode, Settings, is_ours},
};

const URL_FORM: &str = "where events are posted to, like \"https://hooks.example.com/events\"";

pub(super) fn sinks(tables: &[Spanned<raw::SinkHttp>], checker: &mut Checker<'_>) -> Vec<Settings> {
    tables.iter().filter_map(|table| sink(table, checker)).collect()
}

/// The table that a sink was read from.
pub(in crate::config) fn table<'t>(
    tables: &'t [Spanned<raw::SinkHttp>],
    sink: &Settings,
) -> Option<&'t Spanned<raw::SinkHttp>> {
    tables.iter().find(|table| {
        let name = table.get_ref().name.as_ref();
        name.is_some_and(|name| *name.get_ref() == sink.terms.name.to_string())
    })
}

fn sink(table: &Spanned<raw::SinkHttp>, checker: &mut Checker<'_>) -> Option<Settings> {
    let raw = table.get_ref();
    let span = table.span();
    let who = &super::who("[[sink.http]]", &raw.name);
    let terms = super::terms(who, &raw.keys(), &span, checker);
    let url = checker.required(who, "url", &raw.url, &span, URL_FORM);
    let address = url.and_then(|url| address(who, url, checker));
    if let Some(address) = &address {
        encrypted(who, raw, address, checker);
    }
    let modes = Words {
        now: &[
            ("structured", Mode::Structured),
            ("binary", Mode::Binary),
            ("batched", Mode::Batched),
        ],
        later: &[],
    };
    let compressions = Words {
        now: &[("none", Compression::None), ("gzip", Compression::Gzip)],
        later: &[],
    };
    let mode = checker.word(who, "mode", raw.mode.as_ref(), &modes);
    let batch = checker.whole_in(who, "batch", raw.batch.as_ref(), &(1..=1000));
    let one_by_one = raw.mode.is_none() || matches!(mode, Some(Mode::Structured | Mode::Binary));
    if let Some(written) = raw.batch.as_ref().filter(|_| one_by_one) {
        let why = "batch is for mode = \"batched\"; write that, or drop batch";
        checker.wrong(written.span(), format!("{who}: {why}"));
    }
    let patience = Duration::from_secs(1)..=Duration::from_mins(5);
    let timeout = checker.duration_in(who, "timeout", raw.timeout.as_ref(), patience);
    let compression = checker.word(who, "compression", raw.compression.as_ref(), &compressions);
    let headers = headers(who, raw, checker);
    let path = |value: &raw::Text| value.as_ref().map(|value| PathBuf::from(value.get_ref()));
    Some(Settings {
        terms: terms?,
        address: address?,
        mode: mode.unwrap_or_default(),
        batch: batch.unwrap_or(50),
        timeout: timeout.unwrap_or(Duration::from_secs(10)),
        bearer_file: path(&raw.bearer_file),
        signing_key_file: path(&raw.signing_key_file),
        ca: path(&raw.ca),
        headers,
        compression: compression.unwrap_or_default(),
    })
}

fn address(who: &str, written: &Spanned<String>, checker: &mut Checker<'_>) -> Option<Address> {
    match written.get_ref().parse() {
        Ok(address) => Some(address),
        Err(wrong) => {
            // A webhook's URL is often a secret.
            checker.wrong_unquoted(written.span(), format!("{who}: url {wrong}"));
            None
        }
    }
}

/// What needs TLS, and what should have it.
fn encrypted(who: &str, raw: &raw::SinkHttp, address: &Address, checker: &mut Checker<'_>) {
    if address.tls {
        return;
    }
    if let Some(ca) = &raw.ca {
        checker.wrong(
            ca.span(),
            format!("{who}: ca needs TLS; write https:// in url, or drop ca"),
        );
    }
    if let Some(bearer) = &raw.bearer_file {
        let why = "the token crosses the network unencrypted; write https:// in url if the server can";
        checker.warn(bearer.span(), format!("{who}: {why}"));
    }
}

/// Names are told, values never: they may be secrets.
fn headers(who: &str, raw: &raw::SinkHttp, checker: &mut Checker<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let Some(written) = &raw.headers else {
        return Vec::new();
    };
    let mut headers = BTreeMap::new();
    for (name, value) in written.get_ref() {
        let mut wrong = |why: &str| {
            let message = format!("{who}: headers: {name:?} {why}");
            checker.wrong_unquoted(written.span(), message);
        };
        let Ok(legal) = name.parse::<HeaderName>() else {
            wrong("is no name of a header; it has letters, digits and -");
            continue;
        };
        if is_ours(&legal) {
            wrong("is set by the sink itself; leave it out");
        } else if legal == AUTHORIZATION && raw.bearer_file.is_some() {
            wrong("is what bearer-file sets; leave one of them out");
        } else if headers.contains_key(legal.as_str()) {
            wrong("is there twice: upper and lower case are the same in a header's name");
        } else if let Ok(mut value) = HeaderValue::from_str(value) {
            value.set_sensitive(true);
            headers.insert(legal.as_str().to_owned(), (legal, value));
        } else {
            wrong("has a value that no header can have; it is text on one line");
        }
    }
    headers.into_values().collect()
}
