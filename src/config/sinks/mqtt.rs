//! `[[sink.mqtt]]`: where events go, and how.

use std::{path::PathBuf, time::Duration};

use toml::Spanned;

use crate::{
    config::{
        check::{Checker, Words},
        raw,
    },
    event::cloudevents::{Encoding, Form, Mode},
    forward::mqtt::{Settings, Version},
};

const URL_FORM: &str = "must be like \"mqtts://broker.example.com:8883\"";

pub(super) fn sinks(
    tables: &[Spanned<raw::SinkMqtt>],
    gateway: &str,
    checker: &mut Checker<'_>,
) -> Vec<Settings> {
    let sinks: Vec<_> = tables
        .iter()
        .filter_map(|table| sink(table, gateway, checker))
        .collect();
    shared(&sinks, tables, checker);
    sinks
}

/// What two sinks to one broker may not share: it cuts the first client off when the second comes.
fn shared(sinks: &[Settings], tables: &[Spanned<raw::SinkMqtt>], checker: &mut Checker<'_>) {
    for (place, sink) in sinks.iter().enumerate() {
        let same_broker = |other: &&Settings| {
            other.host.eq_ignore_ascii_case(&sink.host)
                && other.port == sink.port
                && other.terms.name != sink.terms.name
        };
        let others = || sinks.iter().take(place).filter(same_broker);
        let Some(table) = table(tables, sink) else {
            continue;
        };
        let (raw, name) = (table.get_ref(), &sink.terms.name);
        if let Some(other) = others().find(|other| other.client_id == sink.client_id) {
            let span = raw.client_id.as_ref().map_or_else(|| table.span(), Spanned::span);
            let why = format!(
                "client-id = {:?} is that of sink \"{}\" at the same broker, where each would cut the other off; \
                 write another, like client-id = \"{}-{name}\"",
                sink.client_id, other.terms.name, sink.client_id
            );
            checker.wrong(span, format!("sink \"{name}\": {why}"));
        }
        let status = sink.status_topic.as_ref();
        if let Some(other) = others().find(|other| status.is_some() && other.status_topic.as_ref() == status)
        {
            let span = raw
                .status_topic
                .as_ref()
                .map_or_else(|| table.span(), Spanned::span);
            let why = format!(
                "status-topic is that of sink \"{}\" at the same broker: it says offline when either of them is; \
                 write status-topic = \"off\" for one of them, or two topics",
                other.terms.name
            );
            checker.warn(span, format!("sink \"{name}\": {why}"));
        }
    }
}

/// The table that a sink was read from.
pub(in crate::config) fn table<'t>(
    tables: &'t [Spanned<raw::SinkMqtt>],
    sink: &Settings,
) -> Option<&'t Spanned<raw::SinkMqtt>> {
    tables.iter().find(|table| {
        let name = table.get_ref().name.as_ref();
        name.is_some_and(|name| *name.get_ref() == sink.terms.name.to_string())
    })
}

fn sink(table: &Spanned<raw::SinkMqtt>, gateway: &str, checker: &mut Checker<'_>) -> Option<Settings> {
    let raw = table.get_ref();
    let span = table.span();
    let who = &super::who("[[sink.mqtt]]", &raw.name);
    let terms = super::terms(who, &raw.keys(), &span, checker);
    let url = checker.required(
        who,
        "url",
        &raw.url,
        &span,
        URL_FORM.trim_start_matches("must be "),
    );
    let broker = url.and_then(|url| broker(who, url, checker));
    let topic = topic(who, raw, checker);
    let status_topic = status_topic(who, raw, gateway, checker);
    let client_id = client_id(who, raw, gateway, checker);
    if let Some(broker) = &broker {
        secrets(who, raw, broker.tls, checker);
    }
    let version = Words {
        now: &[("5", Version::V5), ("3.1.1", Version::V311)],
        later: &[],
    };
    let patience = Duration::from_secs(1)..=Duration::from_hours(1);
    let version = checker
        .word(who, "version", raw.version.as_ref(), &version)
        .unwrap_or_default();
    let inflight = checker
        .whole_in(who, "inflight", raw.inflight.as_ref(), &(1..=1000))
        .unwrap_or(16);
    let ack_timeout = checker
        .duration_in(who, "ack-timeout", raw.ack_timeout.as_ref(), patience)
        .unwrap_or(Duration::from_secs(30));
    let form = form(who, raw, version, checker);
    let (terms, broker) = (terms?, broker?);
    let text = |value: &raw::Text| value.as_ref().map(|value| value.get_ref().clone());
    let path = |value: &raw::Text| value.as_ref().map(|value| PathBuf::from(value.get_ref()));
    Some(Settings {
        terms,
        host: broker.host,
        port: broker.port,
        tls: broker.tls,
        topic,
        status_topic,
        version,
        form,
        client_id,
        username: text(&raw.username),
        password_file: path(&raw.password_file),
        ca: path(&raw.ca),
        cert: path(&raw.cert),
        key: path(&raw.key),
        inflight,
        ack_timeout,
    })
}

struct Broker {
    host: String,
    port: u16,
    tls: bool,
}

fn broker(who: &str, written: &Spanned<String>, checker: &mut Checker<'_>) -> Option<Broker> {
    let url = written.get_ref();
    if url.contains('@') {
        // What stands before the @ may be a password.
        let why = format!("{who}: url names a user; that belongs into username and password-file");
        checker.wrong_unquoted(written.span(), why);
        return None;
    }
    let shown = checker.written(&written.span());
    let mut wrong = |why: &str| {
        checker.wrong(written.span(), format!("{who}: url = {shown} {why}"));
        None
    };
    let Some((scheme, rest)) = url.split_once("://") else {
        return wrong(URL_FORM);
    };
    let tls = match scheme {
        "mqtt" => false,
        "mqtts" => true,
        "ws" | "wss" => {
            return wrong("uses MQTT over WebSocket, which is not supported yet; write mqtt:// or mqtts://");
        }
        "tcp" => return wrong("has an unknown scheme; write mqtt://"),
        "ssl" | "tls" => return wrong("has an unknown scheme; write mqtts://"),
        _ => return wrong("has an unknown scheme; write mqtt:// or mqtts://"),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#']) {
        return wrong("has a path; a broker is a host and a port, the topic has its own key");
    }
    let bracketed = rest.strip_prefix('[').and_then(|inner| inner.split_once(']'));
    let (host, port) = match bracketed {
        Some((host, after)) => (
            host,
            after
                .strip_prefix(':')
                .or(if after.is_empty() { None } else { Some("?") }),
        ),
        None => match rest.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        },
    };
    let plausible = |c: char| {
        c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') || (bracketed.is_some() && c == ':')
    };
    if host.is_empty() || !host.chars().all(plausible) {
        return wrong(URL_FORM);
    }
    let port = match port.map(str::parse::<u16>) {
        None => {
            if tls {
                8883
            } else {
                1883
            }
        }
        Some(Ok(port)) if port > 0 => port,
        Some(_) => return wrong("has no port from 1 to 65535 after the host's colon"),
    };
    Some(Broker {
        host: host.to_owned(),
        port,
        tls,
    })
}

/// `encoding` and `mode`, as far as `version` has a place for them.
fn form(who: &str, raw: &raw::SinkMqtt, version: Version, checker: &mut Checker<'_>) -> Form {
    let encodings = Words {
        now: &[("json", Encoding::Json), ("cbor", Encoding::Cbor)],
        later: &[],
    };
    let modes = Words {
        now: &[("structured", Mode::Structured), ("binary", Mode::Binary)],
        later: &[],
    };
    let encoding = checker.word(who, "encoding", raw.encoding.as_ref(), &encodings);
    let mode = checker.word(who, "mode", raw.mode.as_ref(), &modes);
    if version == Version::V311 {
        if let (Some(Mode::Binary), Some(written)) = (mode, &raw.mode) {
            let why = "needs MQTT 5, which has user properties for the attributes";
            let remedy = "write version = \"5\", or mode = \"structured\"";
            checker.wrong(
                written.span(),
                format!("{who}: mode = \"binary\" {why}; {remedy}"),
            );
        } else if let (Some(Encoding::Cbor), Some(written)) = (encoding, &raw.encoding) {
            let why =
                "MQTT 3.1.1 cannot say that a payload is CBOR, and CloudEvents receivers expect JSON there";
            checker.warn(written.span(), format!("{who}: {why}; each of them must be told"));
        }
    }
    Form {
        encoding: encoding.unwrap_or_default(),
        mode: mode.unwrap_or_default(),
    }
}

/// TLS files and passwords that go together.
fn secrets(who: &str, raw: &raw::SinkMqtt, tls: bool, checker: &mut Checker<'_>) {
    match (&raw.cert, &raw.key) {
        (Some(cert), None) => checker.wrong(
            cert.span(),
            format!("{who}: cert without key; add the key's file, or drop cert"),
        ),
        (None, Some(key)) => checker.wrong(
            key.span(),
            format!("{who}: key without cert; add the certificate's file, or drop key"),
        ),
        _ => {}
    }
    if !tls {
        for (key, value) in [("ca", &raw.ca), ("cert", &raw.cert), ("key", &raw.key)] {
            if let Some(value) = value {
                checker.wrong(
                    value.span(),
                    format!("{who}: {key} needs TLS; write mqtts:// in url, or drop {key}"),
                );
            }
        }
    }
    if let Some(password) = &raw.password_file {
        if raw.username.is_none() {
            checker.wrong(
                password.span(),
                format!("{who}: password-file without username; add whose password it is"),
            );
        } else if !tls {
            let why = "the password crosses the network unencrypted; write mqtts:// in url if the broker can";
            checker.warn(password.span(), format!("{who}: {why}"));
        }
    }
}

fn topic(who: &str, raw: &raw::SinkMqtt, checker: &mut Checker<'_>) -> String {
    let known = ["gateway", "event", "device", "metric", "severity", "transition"];
    if let Some(written) = &raw.topic
        && checker.placeholders(who, "topic", written, &known)
    {
        publishable(who, "topic", written, checker);
    }
    raw.topic.as_ref().map_or_else(
        || "tidegate/{gateway}/events/{event}/{device}".to_owned(),
        |topic| topic.get_ref().clone(),
    )
}

fn status_topic(who: &str, raw: &raw::SinkMqtt, gateway: &str, checker: &mut Checker<'_>) -> Option<String> {
    let written = match &raw.status_topic {
        None => return Some(format!("tidegate/{gateway}/status")),
        Some(written) if written.get_ref() == "off" => return None,
        Some(written) => written,
    };
    if checker.placeholders(who, "status-topic", written, &["gateway"]) {
        publishable(who, "status-topic", written, checker);
    }
    Some(written.get_ref().replace("{gateway}", gateway))
}

/// A topic that a broker takes a publish to.
fn publishable(who: &str, key: &str, written: &Spanned<String>, checker: &mut Checker<'_>) {
    let topic = written.get_ref();
    if topic.is_empty() || topic.len() > 1024 || topic.contains(['+', '#', '\0']) {
        let form = "must be a topic of 1 to 1024 bytes without + and #, which are for subscribers";
        checker.wrong(written.span(), format!("{who}: {key} = {topic:?} {form}"));
    }
}

fn client_id(who: &str, raw: &raw::SinkMqtt, gateway: &str, checker: &mut Checker<'_>) -> String {
    let Some(written) = &raw.client_id else {
        return format!("tidegate-{gateway}");
    };
    if checker.placeholders(who, "client-id", written, &["gateway"]) && written.get_ref().is_empty() {
        let why = "client-id = \"\" makes the broker choose one; name it, or leave it out";
        checker.wrong(written.span(), format!("{who}: {why}"));
    }
    written.get_ref().replace("{gateway}", gateway)
}
