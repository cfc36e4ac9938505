//! Serial lines.

use std::{path::PathBuf, time::Duration};

use crate::{decode::Decoder, reading::DeviceId};

/// `[[serial]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Unique among the sources.
    pub name: String,
    /// The port.
    pub port: PathBuf,
    /// Bits per second.
    pub baud: u32,
    /// 5 to 8.
    pub data_bits: tokio_serial::DataBits,
    /// None, odd, even.
    pub parity: tokio_serial::Parity,
    /// 1 or 2.
    pub stop_bits: tokio_serial::StopBits,
    /// None, software, hardware.
    pub flow_control: tokio_serial::FlowControl,
    /// Bytes of one frame.
    pub max_frame: usize,
    /// What a frame holds.
    pub decoder: Decoder,
    /// Whose readings, unless the decoder's `device_at` or the poll says.
    pub device: Option<DeviceId>,
    /// Names on the wire -> device ids (`[[device]] from`).
    pub renamed: std::collections::HashMap<String, DeviceId>,
    /// Questions to ask.
    pub polls: Vec<Poll>,
}

/// `[[serial.poll]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Poll {
    /// The bytes to send.
    pub send: Vec<u8>,
    /// How often.
    pub every: Duration,
    /// Whose answer it is.
    pub device: Option<DeviceId>,
    /// How long to wait for the answer.
    pub timeout: Duration,
}
