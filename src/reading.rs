//! A reading: what one metric of one device was at one time. Names are checked where they enter, never again.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::time::EngineTime;

/// A name that is not one: empty, too long or with a character that would break a topic or a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name has 1 to {MAX_NAME} bytes, none of them a control character, `/`, `+` or `#`")]
pub struct NameError;

/// The longest device or metric name, in bytes.
pub const MAX_NAME: usize = 128;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and takes a name.
            ///
            /// # Errors
            ///
            /// [`NameError`] if it is empty, longer than [`MAX_NAME`] or has a forbidden character.
            pub fn new(name: &str) -> Result<Self, NameError> {
                let forbidden = |c: char| c.is_control() || matches!(c, '/' | '+' | '#');
                if name.is_empty() || name.len() > MAX_NAME || name.chars().any(forbidden) {
                    return Err(NameError);
                }
                Ok(Self(name.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                Self::new(&name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.as_str().to_owned()
            }
        }
    };
}

name!(
    /// Names a device: the MQTT user name, or what the configuration or a topic calls it.
    DeviceId
);
name!(
    /// Names what is measured: `temperature`, or `sensor.humidity` for a nested member.
    Metric
);

/// What was measured. A number is always finite: NaN and infinities are rejected where they enter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// On or off.
    Bool(bool),
    /// A finite number.
    Number(f64),
    /// At most 64 bytes.
    Text(Arc<str>),
}

impl fmt::Display for Value {
    /// As people read it: of a number what [`people`] leaves of it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(on) => write!(formatter, "{on}"),
            Self::Number(number) => formatter.write_str(&people(*number)),
            Self::Text(text) => formatter.write_str(text),
        }
    }
}

/// A number as people read it: what is no more than the rounding of a computation is left off (31.2, not
/// 31.200000000000003), and where there would be dozens of digits stands an exponent. For lines of text; data has it whole.
#[must_use]
pub fn people(number: f64) -> String {
    let number = rounded(number);
    let size = number.abs();
    if size != 0.0 && !(1e-6..1e15).contains(&size) {
        format!("{number:e}")
    } else {
        number.to_string()
    }
}

/// To twelve digits: far more than any sensor has, and fewer than a computation gets wrong.
#[must_use]
pub fn rounded(number: f64) -> f64 {
    // What cannot be read back is no number to round.
    format!("{number:.11e}").parse().unwrap_or(number)
}

/// One value of one metric of one device at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Whose.
    pub device: DeviceId,
    /// Of what.
    pub metric: Metric,
    /// How much.
    pub value: Value,
    /// The SenML unit, if the configuration names one.
    pub unit: Option<Arc<str>>,
    /// When, on the boot clock.
    pub at: EngineTime,
    /// Whether `at` is the device's own time (else its arrival, which is strictly increasing).
    pub stamped: bool,
}
