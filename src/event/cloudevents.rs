//! Event <-> CloudEvents JSON.
