//! `[[device]]`, and what only several tables together can get wrong.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use toml::Spanned;

use super::{
    check::{Checker, Span, Taken},
    line::device_id,
    raw,
    rules::{self, Placed},
    shape::closest,
    sinks, units,
};
use crate::{
    decode::{Decoder, Format},
    forward,
    reading::{DeviceId, Metric},
    rule::{Condition, DeviceFacts, Pattern},
    source,
};

pub(super) fn devices(tables: &[Spanned<raw::Device>], checker: &mut Checker<'_>) -> Vec<DeviceFacts> {
    let ids: HashMap<&str, Span> = tables
        .iter()
        .filter_map(|table| table.get_ref().id.as_ref())
        .map(|id| (id.get_ref().as_str(), id.span()))
        .collect();
    let (mut taken, mut wire_names) = (Taken::default(), Taken::default());
    let mut all = Vec::new();
    for table in tables {
        let raw = table.get_ref();
        let form = "the device's id, or a pattern like \"thermostat-*\"";
        let Some(id) = checker.required("[[device]]", "id", &raw.id, &table.span(), form) else {
            continue;
        };
        let who = &format!("device {:?}", id.get_ref());
        let pattern = rules::pattern(who, id, checker);
        if let Some(first) = taken.take(id.get_ref(), id.span()) {
            let place = checker.place(&first, &id.span());
            checker.wrong(
                id.span(),
                format!("{who}: the id is already on {place}; put both tables into one"),
            );
        }
        let from = raw
            .from
            .as_ref()
            .map(|from| from.get_ref().as_slice())
            .unwrap_or_default();
        if let Some(list) = raw
            .from
            .as_ref()
            .filter(|list| !list.get_ref().is_empty() && id.get_ref().contains('*'))
        {
            let why = "from needs one id to give the name to; a pattern is many";
            checker.wrong(list.span(), format!("{who}: {why}"));
        }
        let mut names = Vec::new();
        for name in from {
            let text = name.get_ref();
            if let Some(first) = wire_names.take(text, name.span()) {
                let place = checker.place(&first, &name.span());
                let why = "a name on the wire is one device's; keep one";
                checker.wrong(
                    name.span(),
                    format!("{who}: from: {text:?} is already on {place}; {why}"),
                );
            }
            if let Some(other) = ids.get(text.as_str()) {
                let place = checker.place(other, &name.span());
                let why = "its readings would be taken for this one's; drop the name here, or that table";
                checker.wrong(
                    name.span(),
                    format!("{who}: from: {text:?} is the id of the device on {place}; {why}"),
                );
            }
            names.extend(device_id(who, name, checker));
        }
        all.extend(pattern.map(|pattern| DeviceFacts {
            id: pattern,
            name: raw.name.as_ref().map(|name| name.get_ref().as_str().into()),
            labels: raw.labels.clone(),
            from: names,
            expects: expects(who, id, &raw.expects, checker),
        }));
    }
    all
}

/// The metrics that a device should send.
fn expects(who: &str, id: &Spanned<String>, written: &raw::Texts, checker: &mut Checker<'_>) -> Vec<Metric> {
    if let Some(list) = written.as_ref().filter(|_| id.get_ref().contains('*')) {
        let why = "expects needs one id: which devices a pattern will stand for, nobody knows";
        checker.wrong(list.span(), format!("{who}: {why}"));
    }
    let mut metrics = Vec::new();
    let names = written.as_ref().map(|list| list.get_ref().as_slice());
    for name in names.unwrap_or_default() {
        match Metric::new(name.get_ref()) {
            Ok(metric) => metrics.push(metric),
            Err(error) => {
                let message = format!("{who}: expects: {:?}: {error}", name.get_ref());
                checker.wrong(name.span(), message);
            }
        }
    }
    metrics
}

/// Names on the wire to device ids.
pub(super) fn renamed(devices: &[DeviceFacts]) -> HashMap<String, DeviceId> {
    let pairs = devices
        .iter()
        .filter_map(|device| Some((DeviceId::new(&device.id.0).ok()?, &device.from)));
    pairs
        .flat_map(|(id, from)| {
            from.iter()
                .map(move |name| (name.as_str().to_owned(), id.clone()))
        })
        .collect()
}

/// Whether what the rules watch can come at all.
pub(super) fn watched(
    rules: &[Placed],
    door: Option<&source::mqtt::Settings>,
    lines: &[source::serial::Settings],
    known: Option<&BTreeSet<DeviceId>>,
    checker: &mut Checker<'_>,
) {
    let topics = door.map(|door| door.readings.as_slice()).unwrap_or_default();
    let open_topic = topics
        .iter()
        .any(|table| takes_all(&table.decoder) || table.topic.contains(&source::mqtt::Level::Metric));
    let open = open_topic || lines.iter().any(|line| takes_all(&line.decoder));
    let decoders = topics
        .iter()
        .map(|table| &table.decoder)
        .chain(lines.iter().map(|line| &line.decoder));
    let named: BTreeSet<&str> = decoders
        .flat_map(|decoder| decoder.metrics.iter().map(|plan| plan.name.as_str()))
        .collect();
    for placed in rules {
        for (metric, span) in &placed.seen.metrics {
            metric_comes(&placed.who, metric.as_str(), span, &named, open, checker);
        }
        if let Some(known) = known {
            device_comes(placed, known, checker);
        }
    }
}

/// No metric tables: whatever the payload has.
fn takes_all(decoder: &Decoder) -> bool {
    decoder.metrics.is_empty() && matches!(decoder.format, Format::Json | Format::KeyValue)
}

fn metric_comes(
    who: &str,
    metric: &str,
    span: &Span,
    named: &BTreeSet<&str>,
    open: bool,
    checker: &mut Checker<'_>,
) {
    if named.contains(metric) {
        return;
    }
    let meant = closest(metric, named.iter().copied()).map(|meant| format!("; did you mean {meant:?}?"));
    if open {
        // Without a near miss there is nothing to check it against, and still nobody has promised it.
        let remedy = meant.unwrap_or_else(|| "; it must come under exactly this name".to_owned());
        let message = format!(
            "{who}: no metric table names {metric:?}, only a source that takes all it gets can yield it{remedy}"
        );
        checker.warn(span.clone(), message);
        return;
    }
    let remedy = meant.unwrap_or_else(|| {
        if named.is_empty() {
            "; there is no source yet: add [[mqtt.readings]] or [[serial]]".to_owned()
        } else {
            format!(
                "; they yield {}",
                named.iter().copied().collect::<Vec<_>>().join(", ")
            )
        }
    });
    checker.wrong(
        span.clone(),
        format!("{who}: no source yields the metric {metric:?}{remedy}"),
    );
}

/// The devices, where all are known by name.
pub(super) fn known_devices(
    door: Option<&source::mqtt::Settings>,
    lines: &[source::serial::Settings],
) -> Option<BTreeSet<DeviceId>> {
    let door = door.is_some_and(|door| !door.readings.is_empty());
    let told = |line: &source::serial::Settings| line.decoder.device_at.is_some();
    if door || lines.iter().any(told) {
        return None;
    }
    let polled = |line: &source::serial::Settings| {
        line.polls
            .iter()
            .filter_map(|poll| poll.device.clone())
            .collect::<Vec<_>>()
    };
    let known: BTreeSet<DeviceId> = lines
        .iter()
        .flat_map(|line| line.device.clone().into_iter().chain(polled(line)))
        .collect();
    (!known.is_empty()).then_some(known)
}

/// A rule, or a sub-condition, for none of the known devices is a slip.
fn device_comes(placed: &Placed, known: &BTreeSet<DeviceId>, checker: &mut Checker<'_>) {
    let who = &placed.who;
    let all = || known.iter().map(DeviceId::as_str).collect::<Vec<_>>().join(", ");
    if let Some(span) = &placed.devices_span {
        let mut patterns = placed.rule.devices.iter();
        if !patterns.any(|pattern| known.iter().any(|id| pattern.matches(id.as_str()))) {
            let all = all();
            let message = format!("{who}: devices matches none of {all}; the rule watches nothing");
            checker.warn(span.clone(), message);
        }
    }
    for (id, span) in &placed.seen.devices {
        if !known.contains(id) {
            let all = all();
            let message = format!(
                "{who}: device {:?} is none of {all}; its sub-condition stays unknown",
                id.as_str()
            );
            checker.warn(span.clone(), message);
        }
    }
}

/// Whether devices have the labels that rules ask for: those come from `[[device]]` only.
pub(super) fn labelled(rules: &[Placed], devices: &[DeviceFacts], checker: &mut Checker<'_>) {
    for placed in rules {
        labels_come(placed, devices, checker);
    }
}

fn labels_come(placed: &Placed, devices: &[DeviceFacts], checker: &mut Checker<'_>) {
    let Some(span) = &placed.where_span else { return };
    for (key, value) in &placed.rule.labels_required {
        if !devices.iter().any(|device| device.labels.get(key) == Some(value)) {
            let remedy = "the rule watches nothing until a [[device]] has it under labels";
            checker.warn(
                span.clone(),
                format!(
                    "{}: no device has the label {key} = {value:?}; {remedy}",
                    placed.who
                ),
            );
        }
    }
}

/// Whether what a device should send is missed when it does not come: only a silent-for does that.
pub(super) fn expected(
    tables: &[Spanned<raw::Device>],
    rules: &[Placed],
    devices: &[DeviceFacts],
    checker: &mut Checker<'_>,
) {
    for raw in tables.iter().map(Spanned::get_ref) {
        let (Some(id), Some(list)) = (&raw.id, &raw.expects) else {
            continue;
        };
        let id = id.get_ref().as_str();
        let labels = devices
            .iter()
            .filter(|device| device.id.matches(id))
            .flat_map(|device| device.labels.clone())
            .collect();
        let silent: BTreeSet<&str> = rules
            .iter()
            .filter(|placed| {
                matches!(placed.rule.condition, Condition::Silent { .. }) && placed.rule.watches(id, &labels)
            })
            .filter_map(|placed| Some(placed.rule.metric()?.as_str()))
            .collect();
        for name in list.get_ref() {
            let metric = name.get_ref().as_str();
            if silent.contains(metric) || id.contains('*') {
                continue;
            }
            let remedy = closest(metric, silent.iter().copied()).map_or_else(
                || "add one, or drop it here".to_owned(),
                |meant| format!("did you mean {meant:?}?"),
            );
            let why = "no rule with silent-for watches it on this device, so nobody would miss it";
            checker.warn(
                name.span(),
                format!("device {id:?}: expects {metric:?}: {why}; {remedy}"),
            );
        }
    }
}

/// A device that is forgotten is silent no more: who is to be missed for longer must be named.
pub(super) fn forgotten(
    rules: &[Placed],
    forget_after: Duration,
    devices: &[DeviceFacts],
    lines: &[source::serial::Settings],
    checker: &mut Checker<'_>,
) {
    let asked = lines.iter().flat_map(|line| &line.polls).map(|poll| &poll.device);
    let on_lines: BTreeSet<&str> = lines
        .iter()
        .map(|line| &line.device)
        .chain(asked)
        .filter_map(|device| Some(device.as_ref()?.as_str()))
        .collect();
    let is_kept = |pattern: &Pattern| {
        let id = &*pattern.0;
        !id.contains('*') && (on_lines.contains(id) || devices.iter().any(|device| *device.id.0 == *id))
    };
    for placed in rules {
        let (Condition::Silent { after, .. }, Some(span)) = (&placed.rule.condition, &placed.silence_span)
        else {
            continue;
        };
        if *after < forget_after || placed.rule.devices.iter().all(is_kept) {
            continue;
        }
        let message = format!(
            "{}: after [mqtt] forget-after = {} a silent device is forgotten and its alarms are cleared; shorten this, \
             or give each device that is to be missed a [[device]]",
            placed.who,
            units::show_duration(forget_after)
        );
        checker.warn(span.clone(), message);
    }
}

/// An uplink to one's own door would send every event back to where it came from.
pub(super) fn loops(
    sinks: &[forward::mqtt::Settings],
    tables: &[Spanned<raw::SinkMqtt>],
    door: Option<&source::mqtt::Settings>,
    checker: &mut Checker<'_>,
) {
    let Some(door) = door else { return };
    for sink in sinks {
        let host = sink.host.parse::<std::net::IpAddr>();
        let here = |address: &std::net::SocketAddr| {
            let same = match host {
                Ok(ip) => ip == address.ip() || (ip.is_loopback() && address.ip().is_unspecified()),
                Err(_) => sink.host == "localhost",
            };
            same && address.port() == sink.port && !sink.tls
        };
        let url = sinks::mqtt_table(tables, sink).and_then(|table| table.get_ref().url.as_ref());
        if let Some(url) = url.filter(|_| door.listen.iter().any(here)) {
            let why = "is this gateway's own door; name the broker that the events are for";
            checker.wrong(
                url.span(),
                format!("sink \"{}\": url = {:?} {why}", sink.terms.name, url.get_ref()),
            );
        }
    }
}
