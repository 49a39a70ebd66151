//! `diarwatch gpu`: the GPUs of this node, or one of them. Takes the status document; gives rows.

use clap::{Args, Subcommand};
use diarwatch_shared::exit::Exit;
use diarwatch_shared::texts::{Lang, Text};
use serde_json::json;

use super::answer::{Answer, show};
use super::common::Common;
use super::output::{Cell, Column, Table};
use super::paint::Level;
use super::values::{Place, celsius, gib, memory, percent, watts};
use crate::cli::ask::Trouble;

/// What is asked about GPUs.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Options {
    /// Index, or the begin of the UUID; all GPUs without it.
    id: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// All GPUs of this node.
    List,
    /// One GPU.
    Show {
        /// Index, or the begin of the UUID.
        id: String,
    },
}

const COLUMNS: &[Column] = &[
    Column::number("index", Text::Gpu),
    Column::new("name", Text::Name).rest(),
    Column::number("utilization_ratio", Text::Util),
    Column::number("memory_used_bytes", Text::Memory),
    Column::machine("memory_total_bytes"),
    Column::number("memory_utilization_ratio", Text::MemoryTraffic).wide(),
    Column::number("temperature_celsius", Text::Temp),
    Column::number("power_watts", Text::Power),
    Column::new("state", Text::State),
    Column::new("uuid", Text::Uuid).wide(),
    Column::number("sm_clock_hertz", Text::Clock).wide(),
    Column::new("recovery_action", Text::EventGpuRecoveryAction).wide(),
    Column::new("processes", Text::Processes).wide(),
];

/// Values of which at least one is there while a GPU answers.
const VALUES: [&str; 4] = ["utilization_ratio", "memory_used_bytes", "power_watts", "temperature_celsius"];

/// Runs the command.
pub(super) fn run(options: &Options, common: &Common) -> Exit {
    let id = match &options.command {
        Some(Command::Show { id }) => Some(id),
        Some(Command::List) => None,
        None => options.id.as_ref(),
    };
    show(common, || {
        let document = common.ask(&json!({ "ask": "status" }))?;
        let root = Place::root(&document);
        let gpus = root.items("gpus");
        let lang = common.lang();
        let Some(id) = id else {
            let rows = table(&gpus, lang);
            let document = rows.to_document("gpus", &[("node", root.get("node").clone())], "gpus");
            return Ok(Answer::list(document, rows, Text::NoGpus.in_lang(lang)));
        };
        Ok(Answer::one(table(&[find(&gpus, id)?], lang)))
    })
}

fn find<'a>(gpus: &[Place<'a>], id: &str) -> Result<Place<'a>, Trouble> {
    let by_uuid = |gpu: &&Place| gpu.text("uuid").is_some_and(|uuid| uuid.starts_with(id));
    let found: Vec<&Place> = match id.parse::<u64>() {
        Ok(index) => gpus.iter().filter(|gpu| gpu.get("index").as_u64() == Some(index)).collect(),
        Err(_) => gpus.iter().filter(by_uuid).collect(),
    };
    match found.as_slice() {
        [gpu] => Ok((*gpu).clone()),
        several => {
            let problem = match several.len() {
                0 => format!("no GPU of this node is called `{id}`"),
                count => format!("{count} GPUs of this node begin with `{id}`"),
            };
            Err(Trouble::new(Exit::Unknown, problem, "diarwatch gpu -o wide"))
        }
    }
}

fn table(gpus: &[Place], lang: Lang) -> Table {
    let mut table = Table::new("gpu", lang, COLUMNS);
    for gpu in gpus {
        let total = gpu.number("memory_total_bytes");
        let (word, level) = state(gpu);
        table.push(vec![
            gpu.word("index"),
            gpu.word("name"),
            gpu.cell("utilization_ratio", percent),
            gpu.cell("memory_used_bytes", |used| memory(used, &total)),
            gpu.cell("memory_total_bytes", |total| total.to_string()),
            gpu.cell("memory_utilization_ratio", percent),
            gpu.cell("temperature_celsius", celsius),
            gpu.cell("power_watts", watts),
            Cell::state(word, level, if level == Level::Ok { Text::Ok.in_lang(lang) } else { word }),
            gpu.word("uuid"),
            gpu.cell("sm_clock_hertz", |hertz| format!("{:.0} MHz", hertz / 1e6)),
            gpu.word("recovery_action"),
            processes(gpu),
        ]);
    }
    table
}

/// Who is on a GPU, for people as `PID 42 2.0 GiB 35%`.
fn processes(gpu: &Place) -> Cell {
    let Some(list) = gpu.get("processes").as_array() else { return gpu.word("processes") };
    let (mut said, mut missing) = (Vec::new(), Vec::new());
    for (at, process) in gpu.items("processes").iter().enumerate() {
        let mut of = |key: &str, say: &dyn Fn(f64) -> String| {
            process.number(key).map_or_else(
                |why| {
                    missing.push((format!("/{at}/{key}"), why));
                    "-".to_owned()
                },
                say,
            )
        };
        let size = of("memory_bytes", &|bytes| format!("{} GiB", gib(bytes)));
        said.push(format!("PID {} {size} {}", process.get("pid"), of("sm_ratio", &percent)));
    }
    Cell::new(list.clone(), if said.is_empty() { "-".to_owned() } else { said.join(", ") }).inside(missing)
}

/// A word for how a GPU is: `ok`, or why none of its values is there.
pub(super) fn state<'a>(gpu: &Place<'a>) -> (&'a str, Level) {
    let mut reasons = VALUES.iter().map(|key| match gpu.number(key) {
        Ok(_) => None,
        Err(_) => Some(gpu.reason(key).unwrap_or("unknown")),
    });
    let Some(first) = reasons.next().flatten() else { return ("ok", Level::Ok) };
    match (reasons.all(|reason| reason.is_some()), first) {
        (false, _) => ("ok", Level::Ok),
        (true, "lost" | "timeout" | "failed") => (first, Level::Critical),
        (true, "not_yet" | "unknown") => (first, Level::Unknown),
        (true, _) => (first, Level::Warning),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_well_while_any_value_is_there() {
        let known = json!({ "utilization_ratio": 0.5, "power_watts": null });
        assert_eq!(state(&Place::root(&known)), ("ok", Level::Ok));
        let lost = VALUES.map(|key| (format!("/{key}"), json!("lost")));
        let lost = json!({ "reasons": serde_json::Map::from_iter(lost) });
        assert_eq!(state(&Place::root(&lost)), ("lost", Level::Critical));
        assert_eq!(state(&Place::root(&json!(null))), ("unknown", Level::Unknown));
    }
}
