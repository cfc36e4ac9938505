//! What was said, in the words in which engine and reference are compared.

use std::fmt;

use tidegate::{
    event::{Reason, Severity, Transition},
    reading::{DeviceId, Value},
};

use super::reference::Second;

/// One event of a rule. Times are seconds of the story.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub at: Second,
    pub transition: Transition,
    pub reason: Option<Reason>,
    pub name: String,
    pub rule: String,
    pub device: DeviceId,
    pub episode: u64,
    pub severity: Severity,
    pub since: Second,
    pub raised_at: Second,
    pub reminder: u32,
    pub flaps: u32,
    /// What may lag behind after a kill.
    pub figures: Figures,
}

impl Figures {
    /// Two zeros are one number.
    pub fn plain(mut self) -> Self {
        if let Some(Value::Number(number)) = &mut self.value {
            *number += 0.0;
        }
        self.min = self.min.map(|number| number + 0.0);
        self.max = self.max.map(|number| number + 0.0);
        self
    }
}

/// Of an episode, so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    pub value: Option<Value>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub readings: u64,
}

impl fmt::Display for Told {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, rule, device, .. } = self;
        write!(
            out,
            "{at:>4} {rule} on {device}: {} {:?}",
            self.name, self.transition
        )?;
        if let Some(reason) = self.reason {
            write!(out, " ({reason:?})")?;
        }
        write!(
            out,
            ", e{} {:?} since {} raised at {}, reminder {}, flaps {}",
            self.episode, self.severity, self.since, self.raised_at, self.reminder, self.flaps,
        )?;
        let Figures {
            value,
            min,
            max,
            readings,
        } = &self.figures;
        write!(out, ", value {value:?} min {min:?} max {max:?} of {readings}")
    }
}
