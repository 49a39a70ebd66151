//! The aggregator's binary: arguments in, exit number out.

use std::process::ExitCode;

use clap::Parser;
use diarwatch_aggregator::cli;

fn main() -> ExitCode {
    match cli::Arguments::try_parse() {
        Ok(arguments) => cli::main(arguments).into(),
        Err(error) => cli::usage(&error).into(),
    }
}
