//! `tidegate events --active`.

use std::{
    io::{self, Write},
    path::Path,
};

use super::{Failure, asked, printed};
use crate::{
    control::{Active, Alarm, Request},
    reading::people,
};

pub(super) fn active(socket: &Path, json: bool) -> Result<(), Failure> {
    let active: Active = asked(socket, &Request::Active)?;
    let mut out = io::stdout().lock();
    printed(if json {
        serde_json::to_writer_pretty(&mut out, &active)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        table(&active, &mut out)
    })
}

/// For a person: a row an alarm, as wide as its widest text.
fn table(active: &Active, out: &mut impl Write) -> io::Result<()> {
    if active.alarms.is_empty() {
        writeln!(out, "no alarm is active")?;
    } else {
        let head = [
            "SEVERITY", "EVENT", "RULE", "DEVICE", "METRIC", "VALUE", "SINCE", "EPISODE",
        ]
        .map(str::to_owned);
        let rows: Vec<_> = std::iter::once(head)
            .chain(active.alarms.iter().map(row))
            .collect();
        let widths: Vec<usize> = (0..8)
            .map(|column| {
                rows.iter()
                    .filter_map(|row| row.get(column))
                    .map(|text| text.chars().count())
                    .max()
            })
            .map(Option::unwrap_or_default)
            .collect();
        for row in rows {
            let cells = row.iter().zip(&widths);
            let padded: Vec<String> = cells.map(|(text, width)| format!("{text:<width$}")).collect();
            writeln!(out, "{}", padded.join("  ").trim_end())?;
        }
        if !active.clock_synchronised {
            writeln!(out, "(the clock is not synchronised: times are estimates)")?;
        }
    }
    for mute in &active.mutes {
        writeln!(
            out,
            "muted until {}: {} ({})",
            mute.until, mute.target, mute.reason
        )?;
    }
    Ok(())
}

fn row(alarm: &Alarm) -> [String; 8] {
    [
        alarm.severity.clone(),
        alarm.event.clone(),
        alarm.rule.clone(),
        alarm.device.clone(),
        alarm.metric.clone().unwrap_or_else(|| "-".to_owned()),
        match &alarm.value {
            None => "-".to_owned(),
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(serde_json::Value::Number(number)) => {
                number.as_f64().map_or_else(|| number.to_string(), people)
            }
            Some(value) => value.to_string(),
        },
        alarm.since.clone(),
        alarm.id.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Mute;

    #[test]
    fn the_table_lines_up_and_ends_with_what_is_muted() {
        let alarm = |device: &str, value| Alarm {
            id: "0000-e1".to_owned(),
            rule: "too-hot".to_owned(),
            event: "TooHot".to_owned(),
            device: device.to_owned(),
            metric: Some("temperature".to_owned()),
            severity: "warning".to_owned(),
            since: "2026-11-21T10:00:00.000Z".to_owned(),
            raised_at: "2026-11-21T10:00:30.000Z".to_owned(),
            value,
        };
        let mut active = Active {
            alarms: vec![
                alarm("boiler-in-the-cellar", Some(31.500_000_000_000_004.into())),
                alarm("b", None),
            ],
            mutes: vec![Mute {
                target: "rule:too-cold".to_owned(),
                until: "2026-11-21T12:00:00.000Z".to_owned(),
                reason: "service".to_owned(),
            }],
            clock_synchronised: true,
        };
        let shown = |active: &Active| {
            let mut out = Vec::new();
            table(active, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            shown(&active),
            "SEVERITY  EVENT   RULE     DEVICE                METRIC       VALUE  SINCE                     EPISODE\n\
             warning   TooHot  too-hot  boiler-in-the-cellar  temperature  31.5   2026-11-21T10:00:00.000Z  0000-e1\n\
             warning   TooHot  too-hot  b                     temperature  -      2026-11-21T10:00:00.000Z  0000-e1\n\
             muted until 2026-11-21T12:00:00.000Z: rule:too-cold (service)\n"
        );
        active.alarms.clear();
        active.mutes.clear();
        assert_eq!(shown(&active), "no alarm is active\n");
    }
}
