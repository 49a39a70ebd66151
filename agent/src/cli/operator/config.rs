//! `diarwatch config`: the agent's configuration, without an agent where that is possible.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use diarwatch_shared::daemon::say;
use diarwatch_shared::exit::Exit;
use serde_json::json;

use super::common::{Common, Form};
use crate::cli::complain;
use crate::config::{self, DEFAULT_PATH};

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check a configuration; writes nothing and opens no network.
    Check {
        /// The file.
        #[arg(default_value = DEFAULT_PATH)]
        path: PathBuf,
    },
}

/// Runs the command.
pub(super) fn run(command: &ConfigCommand, common: &Common) -> Exit {
    match command {
        ConfigCommand::Check { path } => check(path, common),
    }
}

fn check(path: &Path, common: &Common) -> Exit {
    let faults = config::load(path).err().unwrap_or_default();
    if common.form() == Form::Json {
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
