//! `diarwatch-agent`: the service, and the sampler child that it starts itself.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use diarwatch_shared::daemon::{self, talk};
use diarwatch_shared::exit::Exit;
use diarwatch_shared::quantity::parse_duration;

use super::complain;
use crate::config::{self, DEFAULT_PATH};
use crate::sample::gpu::child;
use crate::{StartError, run};

/// For what still runs beside the tasks (a disk, a resolver) when the agent ends.
const END_WAIT: Duration = Duration::from_secs(2);

/// Watches a GPU host and its diarization workers.
#[derive(Debug, Parser)]
#[command(name = "diarwatch-agent", version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent until SIGTERM.
    Run {
        /// The configuration.
        #[arg(long, env = "DIARWATCH_AGENT_CONFIG", default_value = DEFAULT_PATH)]
        config: PathBuf,
    },
    /// Own the NVIDIA driver for the agent; started by the agent itself.
    #[command(hide = true)]
    Sampler {
        #[arg(long)]
        library: Option<PathBuf>,
        #[arg(long, value_parser = parse_duration)]
        fast: Duration,
        #[arg(long, value_parser = parse_duration)]
        slow: Duration,
    },
}

/// Runs the command.
#[must_use]
pub fn main(arguments: Arguments) -> Exit {
    match arguments.command {
        Command::Run { config } => serve(&config),
        Command::Sampler { library, fast, slow } => child::run(&child::Options { library, fast, slow }),
    }
}

fn serve(path: &std::path::Path) -> Exit {
    daemon::start_log("diarwatch-agent");
    let (text, config) = match config::read(path) {
        Ok(read) => read,
        Err(faults) => return complain(&faults),
    };
    // One thread: a worker's death signal follows the thread that started it.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            talk(&format!("error: cannot start: {error}"));
            return Exit::Temporary;
        }
    };
    let outcome = runtime.block_on(run(path, &text, config));
    // A name that does not resolve must not hold the end up.
    runtime.shutdown_timeout(END_WAIT);
    match outcome {
        Ok(()) => Exit::Ok,
        Err(error) => {
            talk(&format!("error: {}: {error}", path.display()));
            match error {
                StartError::Read { .. } | StartError::Identity(_) => Exit::BadConfig,
                _ => Exit::Temporary,
            }
        }
    }
}
