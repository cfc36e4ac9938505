//! The binary: parse arguments, call, turn an error into a report and an exit code.

fn main() {}
