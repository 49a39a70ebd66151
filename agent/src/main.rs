//! The agent's service binary: arguments in, exit number out.

use std::process::ExitCode;

use clap::Parser;
use diarwatch_agent::cli::service;

fn main() -> ExitCode {
    match service::Arguments::try_parse() {
        Ok(arguments) => service::main(arguments).into(),
        Err(error) => diarwatch_agent::cli::usage(&error).into(),
    }
}
