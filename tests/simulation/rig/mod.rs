//! The whole pipeline on one thread, under simulated time, from one seed.
//!
//! The engine, its task, the journal and the forwarders are the gateway's own. What is simulated is outside: the
//! disk, the clocks, the network, sinks, devices, and death.

mod check;
mod device;
mod executor;
mod gateway;
mod plan;
mod receiver;
mod reference;
mod sink;
mod story;
mod world;

pub use story::tell;
