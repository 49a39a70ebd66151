//! `diarwatch-standins`: takes a command line, runs one stand-in until SIGTERM, gives its exit number.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use diarwatch_standins::{app, command, demo, link, slack, smoke, worker};

#[derive(Parser)]
#[command(version, about = "Stand-ins for what diarwatch talks to: real HTTP, scriptable faults")]
struct Cli {
    #[command(subcommand)]
    stand_in: StandIn,
}

#[derive(Subcommand)]
enum StandIn {
    /// A pyannote worker: /health and /ready always answer 200, the body alone tells
    #[command(visible_alias = "worker")]
    Pyannote(worker::Args),
    /// The other one: /health only, silent while it works, finishes its jobs after SIGTERM
    PyannoteServer(worker::Args),
    /// The application around the workers: figures, health, and the lines of its jobs
    App(app::Args),
    /// A Slack incoming webhook with the documented limits, and a page that shows the channel
    Slack(slack::Args),
    /// A UDP cable that can be cut and can lose datagrams
    Link(link::Args),
    /// All of diarwatch on this machine with two workers, until Ctrl-C
    Demo(demo::Args),
    /// The demo without a person: kill a worker, cut the link, lose nothing
    Smoke(smoke::Args),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = match command::parsed(Cli::try_parse()) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    command::ended(match cli.stand_in {
        StandIn::Pyannote(args) => worker::run(worker::Kind::Pyannote, args).await,
        StandIn::PyannoteServer(args) => worker::run(worker::Kind::Server, args).await,
        StandIn::App(args) => app::run(args).await,
        StandIn::Slack(args) => slack::run(args).await,
        StandIn::Link(args) => link::run(args).await,
        StandIn::Demo(args) => demo::run(args).await,
        StandIn::Smoke(args) => smoke::run(args).await,
    })
}
