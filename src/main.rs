//! The binary: parse arguments, call, turn an error into a report and an exit code.

use std::process::ExitCode;

use clap::Parser;
use tidegate::cli::Arguments;

fn main() -> ExitCode {
    match Arguments::parse().execute() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
