//! The two command lines of this package: the [`service`] and the [`operator`]'s. stdout is data,
//! stderr is talk; exit numbers are those of [`Exit`].

mod ask;
pub mod operator;
pub mod service;

use diarwatch_shared::config::ConfigError;
use diarwatch_shared::daemon::talk;
use diarwatch_shared::exit::Exit;

/// Ends a command line that clap did not take (or that asked for help).
#[must_use]
pub fn usage(error: &clap::Error) -> Exit {
    drop(error.print());
    if !error.use_stderr() {
        return Exit::Ok;
    }
    let program = std::env::args_os().next().unwrap_or_default();
    let name = std::path::Path::new(&program).file_name().unwrap_or_default().to_string_lossy().into_owned();
    talk(&format!("try: {name} --help"));
    Exit::Usage
}

/// Says faults of a configuration on stderr, one per line.
fn complain(faults: &[ConfigError]) -> Exit {
    for fault in faults {
        talk(&format!("error: {fault}"));
    }
    Exit::BadConfig
}
