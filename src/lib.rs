//! Tidegate: readings become events, events become durable, and durable events reach the cloud.
//!
//! The modules are the flow, in this order: **reading → rule → event → journal → forward**.

pub mod time;

pub mod seldom;

pub mod reading;

pub mod event;

pub mod rule;

pub mod decode;

pub mod source;

pub mod journal;

pub mod forward;

pub mod hub;

pub mod config;

pub mod recorder;

pub mod story;

pub mod control;

pub mod firstboot;

pub mod catalog;

pub mod daemon;

pub mod telemetry;

pub mod cli;
