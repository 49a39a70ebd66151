//! The operator's command: arguments in, exit number out.

use std::process::ExitCode;

use diarwatch_agent::cli::operator;

fn main() -> ExitCode {
    operator::main(std::env::args_os()).into()
}
