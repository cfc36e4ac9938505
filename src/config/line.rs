//! `[[serial]]`: ports, what their frames hold, what is asked on them.

use std::{path::PathBuf, time::Duration};

use tokio_serial::{DataBits, FlowControl, Parity, StopBits};
use toml::Spanned;

use super::{
    check::{Checker, Span, Taken, Words},
    metrics::{self, Asked},
    raw,
};
use crate::{
    decode::{Decoder, Format},
    event::is_identifier,
    reading::DeviceId,
    source::serial::{Poll, Settings},
};

pub(super) fn lines(tables: &[Spanned<raw::Serial>], checker: &mut Checker<'_>) -> Vec<Settings> {
    let (mut names, mut ports) = (Taken::default(), Taken::default());
    let mut all = Vec::new();
    for table in tables {
        let settings = line(table, checker);
        let raw = table.get_ref();
        if let Some(name) = &raw.name
            && let Some(first) = names.take(name.get_ref(), name.span())
        {
            let line = checker.line(&first);
            checker.wrong(
                name.span(),
                format!(
                    "serial {:?}: the name is already taken on line {line}; write another",
                    name.get_ref()
                ),
            );
        }
        if let Some(port) = &raw.port
            && let Some(first) = ports.take(port.get_ref(), port.span())
        {
            let line = checker.line(&first);
            let why = format!(
                "port {:?} already belongs to the [[serial]] of line {line}; a port has one owner",
                port.get_ref()
            );
            checker.wrong(port.span(), format!("{}: {why}", who(raw)));
        }
        all.push(settings);
    }
    all
}

fn who(raw: &raw::Serial) -> String {
    raw.name.as_ref().map_or_else(
        || "[[serial]]".to_owned(),
        |name| format!("serial {:?}", name.get_ref()),
    )
}

fn line(table: &Spanned<raw::Serial>, checker: &mut Checker<'_>) -> Settings {
    let raw = table.get_ref();
    let span = table.span();
    let who = &who(raw);
    if let Some(name) = checker.required(
        who,
        "name",
        &raw.name,
        &span,
        "say what it is called, like \"boiler\"",
    ) && !is_identifier(name.get_ref())
    {
        checker.wrong(
            name.span(),
            format!("{who}: name must be 1 to 64 of the characters A-Z a-z 0-9 . _ -"),
        );
    }
    let port = checker.required(
        who,
        "port",
        &raw.port,
        &span,
        "say which, like \"/dev/serial/by-id/...\"",
    );
    if let Some(port) = port.filter(|port| !port.get_ref().starts_with('/')) {
        checker.wrong(
            port.span(),
            format!(
                "{who}: port = {:?} must be a whole path, like \"/dev/serial/by-id/...\"",
                port.get_ref()
            ),
        );
    }
    if raw.baud.is_none() {
        checker.wrong(
            span.clone(),
            format!("{who}: baud is missing: what the device's manual says, like 9600"),
        );
    }
    let framing = Words {
        now: &[("lines", ())],
        later: &["cobs", "slip", "length-u16", "stx-etx"],
    };
    checker.word(who, "framing", raw.framing.as_ref(), &framing);
    let max_frame = checker
        .size_in(who, "max-frame", raw.max_frame.as_ref(), 16..=(1 << 20))
        .unwrap_or(4096);
    let decoder = decoder(who, table, checker);
    let device = owner(who, raw, &span, checker);
    let wire = Wire::of(who, raw, checker);
    Settings {
        name: raw
            .name
            .as_ref()
            .map(|name| name.get_ref().clone())
            .unwrap_or_default(),
        port: raw
            .port
            .as_ref()
            .map(|port| PathBuf::from(port.get_ref()))
            .unwrap_or_default(),
        baud: wire.baud,
        data_bits: wire.data_bits,
        parity: wire.parity,
        stop_bits: wire.stop_bits,
        flow_control: wire.flow_control,
        max_frame: usize::try_from(max_frame).unwrap_or(4096),
        decoder,
        device,
        renamed: std::collections::HashMap::new(),
        polls: raw
            .poll
            .iter()
            .map(|poll| self::poll(who, raw, poll, checker))
            .collect(),
    }
}

/// What the UART is set to.
struct Wire {
    baud: u32,
    data_bits: DataBits,
    parity: Parity,
    stop_bits: StopBits,
    flow_control: FlowControl,
}

impl Wire {
    fn of(who: &str, raw: &raw::Serial, checker: &mut Checker<'_>) -> Self {
        let parity = Words {
            now: &[
                ("none", Parity::None),
                ("odd", Parity::Odd),
                ("even", Parity::Even),
            ],
            later: &[],
        };
        let flow_control = Words {
            now: &[
                ("none", FlowControl::None),
                ("software", FlowControl::Software),
                ("hardware", FlowControl::Hardware),
            ],
            later: &[],
        };
        Self {
            baud: checker
                .whole_in(who, "baud", raw.baud.as_ref(), &(50..=4_000_000))
                .unwrap_or(9600),
            data_bits: match checker.whole_in(who, "data-bits", raw.data_bits.as_ref(), &(5..=8)) {
                Some(5) => DataBits::Five,
                Some(6) => DataBits::Six,
                Some(7) => DataBits::Seven,
                _ => DataBits::Eight,
            },
            parity: checker
                .word(who, "parity", raw.parity.as_ref(), &parity)
                .unwrap_or(Parity::None),
            stop_bits: match checker.whole_in(who, "stop-bits", raw.stop_bits.as_ref(), &(1..=2)) {
                Some(2) => StopBits::Two,
                _ => StopBits::One,
            },
            flow_control: checker
                .word(who, "flow-control", raw.flow_control.as_ref(), &flow_control)
                .unwrap_or(FlowControl::None),
        }
    }
}

fn decoder(who: &str, table: &Spanned<raw::Serial>, checker: &mut Checker<'_>) -> Decoder {
    let raw = table.get_ref();
    let asked = Asked {
        who,
        span: table.span(),
        formats: Words {
            now: &[
                ("json", Format::Json),
                ("number", Format::Number),
                ("csv", Format::Csv),
                ("key-value", Format::KeyValue),
            ],
            later: &["cbor"],
        },
        format: &raw.format,
        time: &None,
        device_at: &raw.device_at,
        metrics: &raw.metric,
        captured: false,
    };
    metrics::decoder(&asked, checker)
}

/// Whose readings they are: said by the table, by each frame, or by every poll.
fn owner(who: &str, raw: &raw::Serial, span: &Span, checker: &mut Checker<'_>) -> Option<DeviceId> {
    let polls_say = !raw.poll.is_empty() && raw.poll.iter().all(|poll| poll.get_ref().device.is_some());
    match (&raw.device, &raw.device_at) {
        (Some(_), Some(at)) => {
            let why = "device and device-at both say whose the readings are; keep one";
            checker.wrong(at.span(), format!("{who}: {why}"));
        }
        (None, None) if !polls_say => {
            let remedy = "write device = \"...\", or device-at where each frame says it";
            checker.wrong(
                span.clone(),
                format!("{who}: it does not say whose the readings are; {remedy}"),
            );
        }
        _ => {}
    }
    raw.device
        .as_ref()
        .and_then(|device| device_id(who, device, checker))
}

/// A device's name, reported if it is none.
pub(super) fn device_id(who: &str, written: &Spanned<String>, checker: &mut Checker<'_>) -> Option<DeviceId> {
    match DeviceId::new(written.get_ref()) {
        Ok(id) => Some(id),
        Err(error) => {
            checker.wrong(
                written.span(),
                format!("{who}: device {:?}: {error}", written.get_ref()),
            );
            None
        }
    }
}

fn poll(who: &str, line: &raw::Serial, table: &Spanned<raw::Poll>, checker: &mut Checker<'_>) -> Poll {
    let raw = table.get_ref();
    let who = &format!("{who}: poll");
    let send = checker.required(
        who,
        "send",
        &raw.send,
        &table.span(),
        "what to write to the port, like \"READ 1\\r\\n\"",
    );
    if let Some(empty) = send.filter(|send| send.get_ref().is_empty()) {
        checker.wrong(
            empty.span(),
            format!("{who}: send = \"\" asks nothing; write the question, or drop the table"),
        );
    }
    let every = checker.required(
        who,
        "every",
        &raw.every,
        &table.span(),
        "how often to ask, like \"5s\"",
    );
    let second = Duration::from_secs(1);
    let shortest = Duration::from_millis(10);
    let every = checker
        .duration_in(who, "every", every, shortest..=Duration::from_hours(24))
        .unwrap_or(second);
    let written = checker.duration_in(
        who,
        "timeout",
        raw.timeout.as_ref(),
        shortest..=Duration::from_hours(1),
    );
    if let (Some(timeout), Some(place)) = (written, &raw.timeout)
        && timeout > every
    {
        checker.wrong(
            place.span(),
            format!(
                "{who}: timeout = {:?} is longer than every; the next question would wait",
                place.get_ref()
            ),
        );
    }
    if let (Some(device), Some(_)) = (&raw.device, &line.device_at) {
        checker.wrong(
            device.span(),
            format!("{who}: device and the port's device-at both say whose the answer is; keep one"),
        );
    }
    Poll {
        send: raw
            .send
            .as_ref()
            .map(|send| send.get_ref().clone().into_bytes())
            .unwrap_or_default(),
        every,
        device: raw
            .device
            .as_ref()
            .and_then(|device| device_id(who, device, checker)),
        timeout: written.unwrap_or_else(|| second.min(every)),
    }
}
