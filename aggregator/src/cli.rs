//! `diarwatch-aggregator`: the service and the administrator's verbs. stdout is data, stderr is
//! talk; exit numbers are those of [`Exit`].

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use diarwatch_shared::clock;
use diarwatch_shared::config::ConfigError;
use diarwatch_shared::daemon::{self, say, talk};
use diarwatch_shared::exit::Exit;
use diarwatch_shared::node::NodeId;
use diarwatch_shared::settings::{self, Setting};
use serde_json::{Value, json};

use crate::config::{self, DEFAULT_PATH};
use crate::operators::{OperatorError, Operators};
use crate::rules::check::check;
use crate::{StartError, operators, pki, run};

/// Collects every node's frames, evaluates rules and tells people.
#[derive(Debug, Parser)]
#[command(name = "diarwatch-aggregator", version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the aggregator until SIGTERM.
    Run {
        /// The configuration.
        #[arg(long, env = "DIARWATCH_AGGREGATOR_CONFIG", default_value = DEFAULT_PATH)]
        config: PathBuf,
    },
    /// The configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Prometheus rule files.
    #[command(subcommand)]
    Rules(RulesCommand),
    /// The fleet's certificates.
    #[command(subcommand)]
    Pki(PkiCommand),
    /// Who may order something of workers through the aggregator.
    #[command(subcommand)]
    Operator(OperatorCommand),
}

#[derive(Debug, Subcommand)]
enum OperatorCommand {
    /// Give an operator a token; it is printed once and nobody can read it again.
    Add {
        /// Who; stands in the audit.
        name: String,
        #[command(flatten)]
        place: OperatorPlace,
    },
    /// Name the operators.
    List {
        #[command(flatten)]
        place: OperatorPlace,
    },
    /// Take an operator's token away; it is refused at once.
    Remove {
        /// Who.
        name: String,
        #[command(flatten)]
        place: OperatorPlace,
    },
}

#[derive(Debug, clap::Args)]
struct OperatorPlace {
    /// The configuration, whose `[http] operator_token_file` is meant.
    #[arg(long, env = "DIARWATCH_AGGREGATOR_CONFIG", default_value = DEFAULT_PATH)]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check a configuration; writes nothing and opens no network.
    Check {
        /// The file.
        #[arg(default_value = DEFAULT_PATH)]
        path: PathBuf,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Show every key with its value, secrets left out.
    Show {
        /// The file.
        #[arg(default_value = DEFAULT_PATH)]
        path: PathBuf,
        /// Say where each value comes from.
        #[arg(long)]
        origin: bool,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Print a configuration with every key, explained.
    Init,
}

#[derive(Debug, Subcommand)]
enum RulesCommand {
    /// Check rule files: each fault with its line and column.
    Check {
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum PkiCommand {
    /// Make a CA, the aggregator's certificate and one for each named node.
    Init {
        /// Where the files go; the CA's key stays there.
        #[arg(long)]
        directory: PathBuf,
        /// A node to make a certificate for; may be given several times.
        #[arg(long = "node", value_parser = parse_node)]
        nodes: Vec<NodeId>,
    },
    /// Make a certificate for one more node.
    Node {
        /// Where the CA is.
        #[arg(long)]
        directory: PathBuf,
        /// The node.
        #[arg(value_parser = parse_node)]
        node: NodeId,
    },
}

fn parse_node(text: &str) -> Result<NodeId, String> {
    NodeId::new(text).map_err(|error| error.to_string())
}

/// Ends a command line that clap did not take (or that asked for help).
#[must_use]
pub fn usage(error: &clap::Error) -> Exit {
    drop(error.print());
    if error.use_stderr() { Exit::Usage } else { Exit::Ok }
}

/// Runs the command.
#[must_use]
pub fn main(arguments: Arguments) -> Exit {
    match arguments.command {
        Command::Run { config } => serve(&config),
        Command::Config(ConfigCommand::Check { path, json }) => check_config(&path, json),
        Command::Config(ConfigCommand::Show { path, origin, json }) => show_config(&path, origin, json),
        Command::Config(ConfigCommand::Init) => {
            say(include_str!("../../docs/aggregator.toml").trim_end());
            Exit::Ok
        }
        Command::Rules(RulesCommand::Check { files, json }) => check_rules(&files, json),
        Command::Pki(PkiCommand::Init { directory, nodes }) => {
            made(pki::init(&directory, &nodes, clock::now()))
        }
        Command::Pki(PkiCommand::Node { directory, node }) => {
            made(pki::node(&directory, &node, clock::now()))
        }
        Command::Operator(OperatorCommand::Add { name, place }) => {
            with_operators(&place, |path, like| operators::add(path, &name, like).map(|token| vec![token]))
        }
        Command::Operator(OperatorCommand::List { place }) => {
            with_operators(&place, |path, _| Ok(Operators::read(path)?.names().map(str::to_owned).collect()))
        }
        Command::Operator(OperatorCommand::Remove { name, place }) => {
            with_operators(&place, |path, _| operators::remove(path, &name).map(|()| Vec::new()))
        }
    }
}

/// Reads or changes the file of operators and says what came of it, a line each.
fn with_operators(
    place: &OperatorPlace,
    work: impl FnOnce(&Path, &Path) -> Result<Vec<String>, OperatorError>,
) -> Exit {
    let config = match config::load(&place.config) {
        Ok(config) => config,
        Err(faults) => {
            faults.iter().for_each(|fault| talk(&format!("error: {fault}")));
            return Exit::BadConfig;
        }
    };
    let Some(path) = config.http.operator_token_file else {
        let path = place.config.display();
        talk(&format!("error: {path}: [http] operator_token_file is not set: nobody can order anything"));
        talk("try: add operator_token_file = \"/etc/diarwatch/operators\" below [http], then the same again");
        return Exit::BadConfig;
    };
    match work(&path, &config.store.directory) {
        Ok(lines) => {
            lines.iter().for_each(|line| say(line));
            Exit::Ok
        }
        Err(error) => {
            talk(&format!("error: {error}"));
            match error {
                OperatorError::Exists(_) | OperatorError::Full => Exit::Refused,
                OperatorError::Unknown { .. } => Exit::Unknown,
                OperatorError::Name(_) => Exit::Usage,
                OperatorError::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
                    Exit::NoPermission
                }
                _ => Exit::BadData,
            }
        }
    }
}

fn serve(path: &Path) -> Exit {
    daemon::start_log("diarwatch-aggregator");
    let config = match config::load(path) {
        Ok(config) => config,
        Err(faults) => {
            faults.iter().for_each(|fault| talk(&format!("error: {fault}")));
            return Exit::BadConfig;
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            talk(&format!("error: cannot start: {error}"));
            return Exit::Temporary;
        }
    };
    match runtime.block_on(run(path, config)) {
        Ok(()) => Exit::Ok,
        Err(error) => {
            talk(&format!("error: {}: {error}", path.display()));
            match error {
                StartError::Ended(_) => Exit::Critical,
                StartError::Store(error) if !error.may_pass() => Exit::BadConfig,
                StartError::Store(_) | StartError::Listen(_) | StartError::Signals(_) => Exit::Temporary,
                _ => Exit::BadConfig,
            }
        }
    }
}

fn check_config(path: &Path, json: bool) -> Exit {
    let faults = config::load(path).err().unwrap_or_default();
    if json {
        say(&config_check(path, &faults).to_string());
    } else if faults.is_empty() {
        say(&format!("{}: ok", path.display()));
    } else {
        faults.iter().for_each(|fault| talk(&format!("error: {fault}")));
    }
    if faults.is_empty() { Exit::Ok } else { Exit::BadConfig }
}

fn config_check(path: &Path, faults: &[ConfigError]) -> Value {
    let row = |fault: &ConfigError| {
        let (line, column) = fault.place.unzip();
        json!({ "line": line, "column": column, "problem": fault.problem, "hint": fault.hint })
    };
    let rows: Vec<Value> = faults.iter().map(row).collect();
    json!({ "schema": 1, "kind": "config_check", "path": path, "ok": faults.is_empty(), "faults": rows })
}

fn show_config(path: &Path, origin: bool, json: bool) -> Exit {
    let read = std::fs::read_to_string(path)
        .map_err(|error| vec![ConfigError::unreadable(path, &error, DEFAULT_PATH)])
        .and_then(|text| Ok((config::parse(path, &text)?, text)));
    let (config, text) = match read {
        Ok(read) => read,
        Err(faults) => {
            faults.iter().for_each(|fault| talk(&format!("error: {fault}")));
            return Exit::BadConfig;
        }
    };
    let settings = settings::of(serde_json::to_value(&config).unwrap_or_default(), &text);
    if json {
        let document = json!({ "schema": 1, "kind": "config", "path": path, "loaded_us": null,
            "problem": null, "restart_needed": [], "settings": settings });
        say(&document.to_string());
        return Exit::Ok;
    }
    for Setting { key, value, line, .. } in settings {
        let from =
            || line.map_or_else(|| String::from("default"), |line| format!("{}:{line}", path.display()));
        say(&format!("{key} = {value}{}", if origin { format!("   # {}", from()) } else { String::new() }));
    }
    Exit::Ok
}

fn check_rules(files: &[PathBuf], json: bool) -> Exit {
    let mut texts = Vec::new();
    for path in files {
        match std::fs::read(path) {
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => texts.push((path.clone(), text)),
                Err(error) => {
                    talk(&format!("error: {}: {}", path.display(), not_utf8(&error)));
                    return Exit::BadData;
                }
            },
            Err(error) => {
                talk(&format!("error: {}: {error}", path.display()));
                return Exit::BadData;
            }
        }
    }
    let report = check(&texts);
    if json {
        say(&serde_json::to_string(&report).unwrap_or_default());
    } else if report.is_clean() {
        say(&format!("ok: {} rules in {} files", report.rules, files.len()));
    } else {
        report.faults.iter().for_each(|fault| talk(&format!("error: {fault}")));
    }
    if report.is_clean() { Exit::Ok } else { Exit::BadData }
}

fn made(made: Result<Vec<PathBuf>, pki::PkiError>) -> Exit {
    match made {
        Ok(paths) => {
            paths.iter().for_each(|path| say(&path.display().to_string()));
            Exit::Ok
        }
        Err(error) => {
            talk(&format!("error: {error}"));
            Exit::BadData
        }
    }
}

/// Where a file stops being UTF-8, and how to mend it.
fn not_utf8(error: &std::string::FromUtf8Error) -> String {
    let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
    let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
    format!("line {line} is not UTF-8; convert the file, for example with `iconv -f SHIFT_JIS -t UTF-8`")
}
