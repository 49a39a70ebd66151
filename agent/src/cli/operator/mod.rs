//! `diarwatch`: asks the agent of this node over its socket, or the aggregator about all. Never opens
//! the spool, never touches the driver; an agent that is down is exit 69 and what to type.

mod aggregator;
mod answer;
mod common;
mod config;
mod doctor;
mod event_words;
mod events;
mod fleet;
mod gpu;
mod grammar;
mod health;
mod manual;
mod order;
mod output;
mod paint;
mod queue;
mod schema;
mod status;
mod tail;
mod top;
mod values;
mod why;
mod worker;

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use diarwatch_shared::exit::Exit;

use common::Common;

/// Shows what the diarwatch agent of this node knows.
#[derive(Debug, Parser)]
#[command(name = "diarwatch", version, args_conflicts_with_subcommands = false)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One screen: what is wrong, GPUs, workers, queues, link; also what no command does.
    Status(status::Options),
    /// GPUs, workers and queues live, until `q`.
    Top(top::Options),
    /// The GPUs of this node, or one.
    Gpu(gpu::Options),
    /// The workers of this node, one, or what happened to them.
    Worker(worker::Options),
    /// Why a worker is as it is: what is seen of it, what was decided, what comes next.
    Why(why::Options),
    /// What waits, what is worked on, when nothing waits any more.
    Queue,
    /// What happened on this node since its agent started: the last thousand events.
    Events(events::Options),
    /// Samples as they are taken.
    Tail(tail::Options),
    /// The nodes that the aggregator knows.
    Nodes,
    /// What is firing or about to, over all nodes.
    Alerts,
    /// Looks for what is wrong on this node and says how to mend it; changes nothing.
    Doctor(doctor::Options),
    /// The agent's configuration.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// A completion script for a shell.
    Completion(manual::CompletionOptions),
    /// The manual pages.
    Man(manual::ManOptions),
    /// The JSON Schemas of the documents.
    Schema(schema::Options),
}

/// Runs the command line.
#[must_use]
pub fn main(words: impl IntoIterator<Item = OsString>) -> Exit {
    let command = manual::explained(Arguments::command());
    let parsed = command.clone().try_get_matches_from(words);
    let matches = match parsed {
        Ok(matches) => matches,
        Err(error) => return super::usage(&error),
    };
    let mut arguments = match Arguments::from_arg_matches(&matches) {
        Ok(arguments) => arguments,
        Err(error) => return super::usage(&error),
    };
    if let Some(leaf) = grammar::leaf(&grammar::words(&matches))
        && let Err(trouble) = grammar::check(leaf, &matches, &mut arguments.common)
    {
        return trouble.tell();
    }
    output::arrived(run(&arguments, command))
}

fn run(arguments: &Arguments, tree: clap::Command) -> Exit {
    let common = &arguments.common;
    match &arguments.command {
        None => status::run(&status::Options::default(), common),
        Some(Command::Status(options)) => status::run(options, common),
        Some(Command::Top(options)) => top::run(options, common),
        Some(Command::Gpu(options)) => gpu::run(options, common),
        Some(Command::Worker(options)) => worker::run(options, common),
        Some(Command::Why(options)) => why::run(options, common),
        Some(Command::Queue) => queue::run(common),
        Some(Command::Events(options)) => events::run(options, common),
        Some(Command::Tail(options)) => tail::run(options, common),
        Some(Command::Nodes) => fleet::nodes(common),
        Some(Command::Alerts) => fleet::alerts(common),
        Some(Command::Doctor(options)) => doctor::run(options, common),
        Some(Command::Config(command)) => config::run(command, common),
        Some(Command::Completion(options)) => manual::completion(options, tree),
        Some(Command::Man(options)) => manual::man(options, tree),
        Some(Command::Schema(options)) => schema::run(options),
    }
}
