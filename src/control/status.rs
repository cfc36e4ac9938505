//! How everything stands, as `tidegate status` shows it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Everything important at once. Counters count since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Nothing needs a person.
    pub healthy: bool,
    /// What does.
    pub troubles: Vec<String>,
    /// The gateway's id.
    pub gateway: String,
    /// The version that runs.
    pub version: String,
    /// The journal's epoch.
    pub epoch: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// The wall clock, RFC 3339.
    pub time: String,
    /// Whether anybody vouches for it: `synchronised`, `unknown`.
    pub clock: String,
    /// The journal.
    pub journal: JournalStatus,
    /// All sinks, by name.
    pub sinks: Vec<SinkStatus>,
    /// The MQTT door, if there is one.
    pub door: Option<DoorStatus>,
    /// Serial lines.
    pub lines: Vec<LineStatus>,
    /// Devices that were ever heard and not forgotten.
    pub devices: usize,
    /// Readings evaluated.
    pub readings: u64,
    /// Seconds since the last of them; none: there was none since the start.
    #[serde(default)]
    pub last_reading_s: Option<u64>,
    /// Bytes that this process had written to disks since its start; none: the kernel does not say.
    #[serde(default)]
    pub written_bytes: Option<u64>,
    /// As many in a day, if it goes on so; none in the first hour, when the journal makes its files.
    #[serde(default)]
    pub written_per_day_bytes: Option<u64>,
    /// Open alarms.
    pub alarms: usize,
    /// Mutes that go on.
    pub mutes: usize,
    /// What was not taken or was lost, by its name; all of them, also those that are 0.
    pub losses: BTreeMap<String, u64>,
}

/// The journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalStatus {
    /// Where.
    pub dir: String,
    /// What it may occupy.
    pub max_bytes: u64,
    /// That was not configured: it is by the filesystem's size.
    #[serde(default)]
    pub is_sized_by_card: bool,
    /// What it occupies.
    pub used_bytes: u64,
    /// Of events that some sink has yet to confirm.
    pub undelivered_bytes: u64,
    /// The newest event.
    pub last: u64,
    /// It takes nothing more until there is room.
    pub parked: bool,
}

/// A sink.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkStatus {
    /// Its name.
    pub name: String,
    /// It takes what it is sent.
    pub connected: bool,
    /// All up to this event is confirmed, or passed over by its filter.
    pub delivered: u64,
    /// Events behind that which are kept: what was discarded will not come.
    pub backlog: u64,
    /// Why it is not connected, or which event it is stopped at.
    pub last_error: Option<String>,
    /// Events handed to a connection, redeliveries included.
    pub sent: u64,
    /// Events confirmed, redeliveries included.
    pub confirmed: u64,
    /// Events sent more than once.
    pub redelivered: u64,
    /// Refusals of an event.
    pub refused: u64,
    /// Events that are set aside for it.
    pub dead_letters: usize,
}

/// The door.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorStatus {
    /// Where it listens.
    pub listen: Vec<String>,
    /// Devices that have a connection now.
    pub connected: usize,
    /// Publishes received.
    pub publishes: u64,
}

/// A serial line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineStatus {
    /// Its name.
    pub name: String,
    /// Its port.
    pub port: String,
    /// The port is open.
    pub open: bool,
    /// Why not.
    pub last_error: Option<String>,
    /// Whole frames received.
    pub frames: u64,
}
