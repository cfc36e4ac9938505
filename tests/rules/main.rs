//! What a rule means, told as stories: readings at times in, events at times out.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::float_cmp,
    reason = "a story that cannot be told fails its test"
)]

mod bases;
mod composed;
mod conditions;
#[path = "../contract/mod.rs"]
mod contract;
mod hushes;
mod memory;
mod older;
mod restarts;
mod silence;
mod stories;
mod story;
mod windows;
