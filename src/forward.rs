//! Forwarding: the loop that every sink is driven by.

pub mod backoff;
pub mod mqtt;
pub mod window;
