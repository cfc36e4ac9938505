//! The tests, under a name that `--skip` can name.

mod gateway;
mod journal;
mod room;
