//! `tidegate status`: everything important on one screen.

use std::io::{self, Write};

use super::{
    Failure, SOCKET, Socket, asked, counted, printed,
    table::{self, age, size},
};
use crate::control::{Request, status};

/// Which gateway, and how it is shown.
#[derive(Debug, clap::Args)]
#[command(after_help = SOCKET)]
pub(super) struct Status {
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    socket: Socket,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For scripts.
    Json,
}

impl Status {
    pub fn run(self) -> Result<(), Failure> {
        let status: status::Status = asked(&self.socket.found(), &Request::Status)?;
        let mut out = io::stdout().lock();
        printed(match self.format {
            Format::Text => tell(&status, &mut out),
            Format::Json => serde_json::to_writer_pretty(&mut out, &status)
                .map_err(io::Error::from)
                .and_then(|()| writeln!(out)),
        })?;
        if status.healthy {
            return Ok(());
        }
        let troubles = counted(status.troubles.len(), "thing needs", "things need");
        Err(Failure::Failed(format!("tidegate: {troubles} somebody")))
    }
}

fn tell(status: &status::Status, out: &mut impl Write) -> io::Result<()> {
    let clock = if status.clock == "synchronised" {
        ""
    } else {
        " (nobody vouches for the clock: an estimate)"
    };
    let journal = &status.journal;
    let full = if journal.parked {
        ", FULL: nothing is evaluated"
    } else {
        ""
    };
    let by_card = if journal.is_sized_by_card {
        " (5 % of its filesystem)"
    } else {
        ""
    };
    let mut rows = vec![
        [
            "gateway",
            &format!("{}, version {}", status.gateway, status.version),
        ]
        .map(str::to_owned),
        ["up", &age(status.uptime_s)].map(str::to_owned),
        ["time", &format!("{}{clock}", status.time)].map(str::to_owned),
        [
            "journal",
            &format!(
                "{} of {}{by_card}, {} to deliver{full}; newest event {}-{:020}",
                size(journal.used_bytes),
                size(journal.max_bytes),
                size(journal.undelivered_bytes),
                status.epoch,
                journal.last
            ),
        ]
        .map(str::to_owned),
    ];
    if let Some(written) = status.written_bytes {
        let a_day = status.written_per_day_bytes;
        let a_day = a_day.map_or_else(String::new, |bytes| format!(", {} a day", size(bytes)));
        let said = format!("{} written since the start{a_day}", size(written));
        rows.push(["card".to_owned(), said]);
    }
    if let Some(door) = &status.door {
        let connected = counted(door.connected, "device", "devices");
        let said = format!(
            "{}, {connected} connected, {} publishes",
            door.listen.join(", "),
            door.publishes
        );
        rows.push(["door".to_owned(), said]);
    }
    let last = status.last_reading_s;
    let last = last.map_or_else(String::new, |seconds| format!(", the last {} ago", age(seconds)));
    let readings = format!(
        "{} evaluated, of {}{last}",
        status.readings,
        counted(status.devices, "device", "devices")
    );
    rows.push(["readings".to_owned(), readings]);
    let alarms = format!(
        "{} open, {}",
        status.alarms,
        counted(status.mutes, "mute", "mutes")
    );
    rows.push(["alarms".to_owned(), alarms]);
    table::write(&rows, "", out)?;
    if !status.sinks.is_empty() {
        let head = [
            "SINK",
            "STATE",
            "HAS UP TO",
            "BACKLOG",
            "CONFIRMED",
            "AGAIN",
            "REFUSED",
            "DEAD",
        ]
        .map(str::to_owned);
        let rows = std::iter::once(head)
            .chain(status.sinks.iter().map(sink))
            .collect::<Vec<_>>();
        writeln!(out)?;
        table::write(&rows, "", out)?;
    }
    if !status.lines.is_empty() {
        let line = |line: &status::LineStatus| {
            let state = if line.open { "open" } else { "LOST" };
            [
                line.name.clone(),
                state.to_owned(),
                line.port.clone(),
                line.frames.to_string(),
            ]
        };
        let head = ["LINE", "STATE", "PORT", "FRAMES"].map(str::to_owned);
        let rows = std::iter::once(head)
            .chain(status.lines.iter().map(line))
            .collect::<Vec<_>>();
        writeln!(out)?;
        table::write(&rows, "", out)?;
    }
    let lost = status.losses.iter().filter(|(_, count)| **count > 0);
    let lost: Vec<String> = lost
        .map(|(name, count)| format!("{} {count}", name.replace('_', " ")))
        .collect();
    let lost = if lost.is_empty() {
        "nothing".to_owned()
    } else {
        lost.join(", ")
    };
    writeln!(out, "\nnot taken or lost since the start: {lost}")?;
    for trouble in &status.troubles {
        writeln!(out, "! {trouble}")?;
    }
    Ok(())
}

fn sink(sink: &status::SinkStatus) -> [String; 8] {
    let state = match (sink.connected, &sink.last_error) {
        (true, None) => "connected",
        (true, Some(_)) => "STOPPED",
        (false, _) => "AWAY",
    };
    [
        sink.name.clone(),
        state.to_owned(),
        sink.delivered.to_string(),
        sink.backlog.to_string(),
        sink.confirmed.to_string(),
        sink.redelivered.to_string(),
        sink.refused.to_string(),
        sink.dead_letters.to_string(),
    ]
}
