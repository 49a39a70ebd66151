//! `diarwatch`: asks the agent of this node over its socket, or the aggregator about all. Never opens
//! the spool, never touches the driver; an agent that is down is exit 69 and what to type.

mod common;
mod config;
mod doctor;
mod status;
mod top;

use clap::{Parser, Subcommand};
use diarwatch_shared::exit::Exit;

use common::Common;

/// Shows what the diarwatch agent of this node knows.
#[derive(Debug, Parser)]
#[command(name = "diarwatch", version)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One screen: GPUs, workers, queues, link and spool.
    Status,
    /// GPUs, workers and queues live, until `q`.
    Top(top::Options),
    /// Looks for what is wrong on this node and says how to mend it; changes nothing.
    Doctor(doctor::Options),
    /// The agent's configuration.
    #[command(subcommand)]
    Config(config::ConfigCommand),
}

/// Runs the command.
#[must_use]
pub fn main(arguments: &Arguments) -> Exit {
    let common = &arguments.common;
    match &arguments.command {
        Command::Status => status::run(common),
        Command::Top(options) => top::run(options, common),
        Command::Doctor(options) => doctor::run(options, common),
        Command::Config(command) => config::run(command, common),
    }
}
