//! The behaviours that the MQTT standards ask of a server, in versions 3.1.1 and 5, at a real socket. Each test
//! names the sections it reads: "3.1.1 §…", "5 §…" of the OASIS standards of those versions.
//!
//! What the door does beyond the standard (the gate) is in `tests/door.rs`; what it offers and where its limits
//! are is in `docs/mqtt.md`.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests stand outside #[test] functions and fail loudly"
)]

mod basic;
mod flow;
mod limits;
mod rig;
mod sessions;
mod subscribing;
mod v5;
mod wills;
