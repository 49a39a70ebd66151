//! The operator's command: arguments in, exit number out.

use std::process::ExitCode;

use clap::Parser;
use diarwatch_agent::cli::operator;

fn main() -> ExitCode {
    match operator::Arguments::try_parse() {
        Ok(arguments) => operator::main(&arguments).into(),
        Err(error) => diarwatch_agent::cli::usage(&error).into(),
    }
}
