//! What is shown of one serial line: the page, the metrics and the tests read it; the line writes it.

use std::sync::atomic::AtomicU64;

use tokio::sync::watch;

/// Whether the port is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// Not tried yet.
    #[default]
    New,
    /// Open and read.
    Up,
    /// Gone, or never there: why, and what to do.
    Lost(String),
}

/// What one line did, for the page and the metrics. Only grows.
#[derive(Debug, Default)]
pub struct Counters {
    /// Whole frames received.
    pub frames: AtomicU64,
    /// Readings handed over.
    pub readings: AtomicU64,
    /// Frames that the decoder could not read, or whose device is not known.
    pub rejected: AtomicU64,
    /// Values within readable frames that were not taken.
    pub rejected_values: AtomicU64,
    /// Frames over `max-frame`.
    pub oversized: AtomicU64,
    /// Frames that found the intake full.
    pub dropped_frames: AtomicU64,
    /// Bytes of all frames that were dropped: oversized, cut by a loss or an opening, intake full.
    pub dropped_bytes: AtomicU64,
    /// Times the port was opened again after it was lost.
    pub reopens: AtomicU64,
    /// Polls that got no answer in time.
    pub unanswered: AtomicU64,
    /// Whether the port is there.
    pub link: watch::Sender<Link>,
}
