//! `diarwatch`: asks the agent of this node over its socket. Never opens the spool, never touches
//! the driver; an agent that is down is exit 69 and what to type.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use diarwatch_shared::daemon::say;
use diarwatch_shared::exit::Exit;
use diarwatch_shared::texts::Lang;

use serde_json::json;

use super::ask::ask;
use super::{complain, view};
use crate::config::{self, DEFAULT_PATH, DEFAULT_SOCKET};

/// For the agent to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Shows what the diarwatch agent of this node knows.
#[derive(Debug, Parser)]
#[command(name = "diarwatch", version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One screen: GPUs, workers, link and spool.
    Status {
        /// The agent's socket.
        #[arg(long, env = "DIARWATCH_SOCKET", default_value = DEFAULT_SOCKET)]
        socket: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// The agent's configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check a configuration; writes nothing and opens no network.
    Check {
        /// The file.
        #[arg(default_value = DEFAULT_PATH)]
        path: PathBuf,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Args)]
struct Output {
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
    /// Language of the text: ja or en; LANG decides otherwise.
    #[arg(long, env = "DIARWATCH_LANG", value_parser = parse_lang)]
    lang: Option<Lang>,
}

fn parse_lang(text: &str) -> Result<Lang, String> {
    Lang::of(text).ok_or_else(|| format!("`{text}` is not a language here; write ja or en"))
}

impl Output {
    fn lang(&self) -> Lang {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let locale = || variable("LC_ALL").or_else(|| variable("LC_MESSAGES")).or_else(|| variable("LANG"));
        self.lang.or_else(|| Lang::of(&locale()?)).unwrap_or(Lang::En)
    }
}

/// Runs the command.
#[must_use]
pub fn main(arguments: &Arguments) -> Exit {
    match &arguments.command {
        Command::Status { socket, output } => status(socket, output),
        Command::Config(ConfigCommand::Check { path, output }) => check(path, output),
    }
}

fn status(socket: &Path, output: &Output) -> Exit {
    match ask(socket, &json!({ "ask": "status" }), ANSWER_TIMEOUT) {
        Ok(document) if output.json => say(&document.to_string()),
        Ok(document) => say(&view::status(&document, output.lang())),
        Err(trouble) => return trouble.tell(),
    }
    Exit::Ok
}

fn check(path: &Path, output: &Output) -> Exit {
    let faults = config::load(path).err().unwrap_or_default();
    if output.json {
        let rows: Vec<_> = faults
            .iter()
            .map(|fault| {
                let (line, column) = fault.place.unzip();
                json!({ "line": line, "column": column, "problem": fault.problem, "hint": fault.hint })
            })
            .collect();
        let document = json!({ "schema": 1, "kind": "config_check", "path": path, "ok": faults.is_empty(), "faults": rows });
        say(&document.to_string());
        return if faults.is_empty() { Exit::Ok } else { Exit::BadConfig };
    }
    if faults.is_empty() {
        say(&format!("{}: ok", path.display()));
        return Exit::Ok;
    }
    complain(&faults)
}
