//! The two command lines of this package: the [`service`] and the [`operator`]'s. stdout is data,
//! stderr is talk; exit numbers are those of [`Exit`].

pub mod operator;
pub mod service;
mod view;

use std::io::Write;

use diarwatch_shared::config::ConfigError;
use diarwatch_shared::exit::Exit;

/// Ends a command line that clap did not take (or that asked for help).
#[must_use]
pub fn usage(error: &clap::Error) -> Exit {
    drop(error.print());
    if error.use_stderr() { Exit::Usage } else { Exit::Ok }
}

/// Says faults of a configuration on stderr, one per line.
fn complain(faults: &[ConfigError]) -> Exit {
    for fault in faults {
        talk(&format!("error: {fault}"));
    }
    Exit::BadConfig
}

/// A line on stderr.
fn talk(line: &str) {
    // A closed stderr leaves nobody to talk to.
    drop(writeln!(std::io::stderr(), "{line}"));
}

/// Text on stdout; a closed pipe (`| head`) is no fault.
fn say(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}
