//! The engine: readings and time in, transitions out.

use std::sync::Arc;

use super::{DeviceFacts, Rule, state::Outcome};
use crate::{
    event::{Epoch, Position},
    reading::Reading,
    time::{EngineTime, Moment},
};

/// The engine. A pure state machine.
#[derive(Debug)]
pub struct Engine {}

/// What the engine is made from.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The rules.
    pub rules: Vec<Arc<Rule>>,
    /// What is known of devices.
    pub devices: Vec<DeviceFacts>,
    /// The journal's epoch: episodes are named by it.
    pub epoch: Epoch,
    /// Device names ever seen; readings of further ones are not evaluated.
    pub max_devices: usize,
    /// Metrics of one device.
    pub max_metrics: usize,
}

/// A reading that was not evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// Its own stamp is earlier than the last one's of its metric.
    Late,
    /// Same stamp, same value.
    Duplicate,
    /// `max-devices` or `max-metrics`.
    OverLimit,
}

#[expect(clippy::todo, unused_variables, reason = "being written")]
impl Engine {
    /// Restores the state the journal kept. `saved` is what `Recovered::state` had; `now` is this boot's moment
    /// (running timers count the time that passed only if both ends were synchronised or of the same boot).
    /// What the edited or removed rules end goes into `out`.
    pub fn restore(setup: Setup, saved: &[(Vec<u8>, Vec<u8>)], now: Moment, out: &mut Outcome) -> Self {
        todo!()
    }
    /// Fires deadlines < at, then the reading, then deadlines == at.
    pub fn observe(&mut self, reading: &Reading, out: &mut Outcome) -> Result<(), Skipped> {
        todo!()
    }
    /// Fires the deadlines up to `now`.
    pub fn advance(&mut self, now: EngineTime, out: &mut Outcome) {
        todo!()
    }
    /// When `advance` must be called at the latest.
    pub fn next_deadline(&self) -> Option<EngineTime> {
        todo!()
    }
    /// The driver committed all that was decided since the last call: later observations of the same
    /// state depend on it.
    pub fn committed(&mut self, position: Position) {
        todo!()
    }
    /// Episodes that are active.
    pub fn active(&self) -> usize {
        todo!()
    }
    /// The wall clock as the saved state shall remember it: call it before commits when it has moved.
    pub fn set_moment(&mut self, moment: Moment) {
        todo!()
    }
}
