//! `diarwatch config`: checks a file, shows what is in effect and where that comes from, prints a file to
//! start from. Asks the agent for `show` alone; reads and writes nothing else than the file that is named.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use diarwatch_shared::config::ConfigError;
use diarwatch_shared::daemon::{say, talk};
use diarwatch_shared::exit::Exit;
use diarwatch_shared::texts::{Lang, Text};
use serde_json::{Value, json};

use super::answer::{Answer, show};
use super::common::{Common, Form};
use super::output::{Cell, Column, Table, put};
use super::paint::Level;
use crate::cli::ask::Trouble;
use crate::cli::complain;
use crate::config::{self, DEFAULT_PATH, effective};

/// The commented configuration that `init` prints.
const EXAMPLE: &str = include_str!("../../../../docs/agent.toml");

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check a configuration; writes nothing and opens no network.
    Check {
        /// The file.
        #[arg(default_value = DEFAULT_PATH)]
        path: PathBuf,
    },
    /// The configuration in effect: every key with its value, secrets left out.
    Show {
        /// Say which line sets each key.
        #[arg(long)]
        origin: bool,
        /// What this file would bring, instead of what the agent runs with.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// A commented configuration to start from; on stdout, or into a file that is not there yet.
    Init {
        /// The file; nothing is overwritten.
        file: Option<PathBuf>,
    },
}

/// Runs the command.
pub(super) fn run(command: &ConfigCommand, common: &Common) -> Exit {
    match command {
        ConfigCommand::Check { path } => check(path, common),
        ConfigCommand::Show { origin, file } => effective(*origin, file.as_deref(), common),
        ConfigCommand::Init { file } => init(file.as_deref()),
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
    refuse(&faults)
}

fn refuse(faults: &[ConfigError]) -> Exit {
    let exit = complain(faults);
    talk("try: diarwatch config init   (every key with its default and what it means)");
    exit
}

const COLUMNS: &[Column] = &[
    Column::new("key", Text::Key),
    Column::new("value", Text::Value).rest(),
    Column::new("origin", Text::Origin).wide(),
    Column::number("line", Text::Line).wide(),
];

const WITH_ORIGIN: &[Column] = &[
    Column::new("key", Text::Key),
    Column::new("value", Text::Value).rest(),
    Column::new("origin", Text::Origin),
    Column::number("line", Text::Line),
];

fn effective(origin: bool, file: Option<&Path>, common: &Common) -> Exit {
    let document = match file {
        Some(file) => match of_file(file) {
            Ok(document) => document,
            Err(faults) => return refuse(&faults),
        },
        None => match common.ask(&json!({ "ask": "config" })) {
            Ok(document) => document,
            Err(trouble) => return trouble.tell(),
        },
    };
    if !document.get("settings").is_some_and(Value::is_array) {
        let problem = "this agent does not tell its configuration";
        return Trouble::new(Exit::BadData, problem, format!("diarwatch config show --file {DEFAULT_PATH}"))
            .tell();
    }
    if let Some(problem) = document.get("problem").and_then(Value::as_str) {
        let text = Level::Warning.say(&format!("{}: {problem}", Text::ReloadRefused.in_lang(common.lang())));
        talk(&common.finish(&text));
    }
    show(common, || Ok(answer(&document, origin, common.lang())))
}

fn answer(document: &Value, origin: bool, lang: Lang) -> Answer {
    let mut rows = Table::new("setting", lang, if origin { WITH_ORIGIN } else { COLUMNS });
    for setting in document.get("settings").and_then(Value::as_array).into_iter().flatten() {
        let of = |key: &str| match setting.get(key).unwrap_or(&Value::Null) {
            Value::Null => Cell::none(),
            Value::String(text) => Cell::text(text),
            other => Cell::new(other.clone(), other.to_string()),
        };
        rows.push(vec![of("key"), of("value"), of("origin"), of("line")]);
    }
    Answer::list(document.clone(), rows, "")
}

fn of_file(path: &Path) -> Result<Value, Vec<ConfigError>> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| vec![ConfigError::unreadable(path, &error, DEFAULT_PATH)])?;
    let settings = effective::effective(path, &text)?;
    Ok(
        json!({ "schema": 1, "kind": "config", "path": path, "loaded_us": null, "problem": null, "settings": settings }),
    )
}

fn init(file: Option<&Path>) -> Exit {
    let Some(path) = file else {
        put(EXAMPLE);
        return Exit::Ok;
    };
    let written = OpenOptions::new().write(true).create_new(true).open(path);
    match written.and_then(|mut file| file.write_all(EXAMPLE.as_bytes())) {
        Ok(()) => {
            talk(&format!(
                "{}: written; set [identity] and [aggregator], then: diarwatch config check {}",
                path.display(),
                path.display()
            ));
            Exit::Ok
        }
        Err(error) => {
            let (exit, hint) = match error.kind() {
                ErrorKind::AlreadyExists => {
                    (Exit::Refused, "another name, or move that file away; nothing is overwritten".to_owned())
                }
                ErrorKind::PermissionDenied => {
                    (Exit::NoPermission, format!("sudo diarwatch config init {}", path.display()))
                }
                _ => (Exit::Temporary, "diarwatch config init   (prints it on stdout)".to_owned()),
            };
            Trouble::new(exit, format!("{}: {error}", path.display()), hint).tell()
        }
    }
}
