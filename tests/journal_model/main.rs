//! The journal's promises, on a disk whose power can be cut.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a journal that cannot be looked at fails its test"
)]

mod model;
mod opening;
mod parts;
mod promises;
mod space;
