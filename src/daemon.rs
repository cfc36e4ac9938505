//! Being written.

pub mod signals;
pub mod systemd;
