//! The binary: parse arguments, call, turn an error into a report and an exit code.

use std::{io::Write, process::ExitCode};

use clap::Parser;
use tidegate::cli::Arguments;

fn main() -> ExitCode {
    match Arguments::parse().execute() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_told() {
                // Nobody may listen there: the exit code says it too.
                writeln!(std::io::stderr(), "{failure}").ok();
            }
            ExitCode::from(failure.exit_code())
        }
    }
}
