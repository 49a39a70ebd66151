//! `diarwatch worker`: the workers of this node, one of them, or what happened to them. Takes the status
//! document or the newest events; gives rows.

use clap::{Args, Subcommand};
use diarwatch_shared::clock;
use diarwatch_shared::config::nearest;
use diarwatch_shared::exit::Exit;
use diarwatch_shared::texts::{Lang, Text};
use serde_json::{Value, json};

use super::answer::{Answer, show};
use super::common::Common;
use super::events;
use super::output::{Cell, Column, Table};
use super::paint::Level;
use super::values::{Place, count, span, wait};
use crate::cli::ask::Trouble;

/// What is asked about workers.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// All workers of this node; also what `diarwatch worker` does.
    List,
    /// All that is known of one worker.
    Show {
        /// Its name.
        name: String,
    },
    /// What happened to the workers: starts, ends, recoveries, since the agent started.
    History {
        /// Of this worker alone.
        name: Option<String>,
    },
}

const COLUMNS: &[Column] = &[
    Column::new("service", Text::Service),
    Column::new("worker", Text::Name),
    Column::new("phase", Text::State),
    Column::machine("ready"),
    Column::number("pid", Text::Pid).wide(),
    Column::number("restarts", Text::Restarts),
    Column::number("uptime_seconds", Text::Uptime),
    Column::machine("started_us"),
    Column::machine("since_us"),
    Column::number("next_start_in_ms", Text::NextStart).wide(),
    Column::number("probe_took_ms", Text::Probe).wide(),
    Column::new("probe_verdict", Text::ProbeVerdict).wide(),
    Column::new("last_exit", Text::LastExit).rest(),
];

/// Runs the command.
pub(super) fn run(options: &Options, common: &Common) -> Exit {
    match &options.command {
        None | Some(Command::List) => list(common, None),
        Some(Command::Show { name }) => list(common, Some(name)),
        Some(Command::History { name }) => events::list(common, name.as_deref(), true),
    }
}

fn list(common: &Common, name: Option<&str>) -> Exit {
    show(common, || {
        let document = common.ask(&json!({ "ask": "status" }))?;
        let root = Place::root(&document);
        let workers = root.items("workers");
        let lang = common.lang();
        let Some(name) = name else {
            let rows = table(&workers, lang);
            let document = rows.to_document("workers", &[("node", root.get("node").clone())], "workers");
            return Ok(Answer::list(document, rows, Text::NothingConfigured.in_lang(lang)));
        };
        let found = workers.iter().find(|worker| worker.text("worker") == Some(name));
        let found = found.ok_or_else(|| unknown(&workers, name))?;
        Ok(Answer::one(table(std::slice::from_ref(found), lang)))
    })
}

fn unknown(workers: &[Place], name: &str) -> Trouble {
    let known = workers.iter().filter_map(|worker| worker.text("worker"));
    let hint = nearest(name, known)
        .map_or_else(|| "diarwatch worker".to_owned(), |near| format!("diarwatch worker show {near}"));
    Trouble::new(Exit::Unknown, format!("no worker of this node is called `{name}`"), hint)
}

fn table(workers: &[Place], lang: Lang) -> Table {
    let now = clock::now();
    let mut table = Table::new("worker", lang, COLUMNS);
    for worker in workers {
        let probe = worker.at("last_probe");
        let uptime =
            worker.get("started_us").as_u64().map(|at| now.since(clock::UnixMicros(at)).as_secs_f64());
        table.push(vec![
            worker.word("service"),
            worker.word("worker"),
            phase(worker, lang),
            worker.word("ready"),
            worker.word("pid"),
            worker.cell("restarts", count),
            uptime.map_or_else(Cell::none, |seconds| Cell::new(seconds, span(seconds))),
            worker.word("started_us"),
            worker.word("since_us"),
            worker.cell("next_start_in_ms", wait),
            probe.cell("took_ms", wait),
            probe.word("verdict"),
            worker.word("last_exit"),
        ]);
    }
    table
}

/// Where a worker is, in a word that is right for its phase.
pub(super) fn phase(worker: &Place, lang: Lang) -> Cell {
    let (level, word) = level(worker);
    Cell::state(worker.get("phase").clone(), level, word.in_lang(lang))
}

/// How well a worker is.
pub(super) fn level(worker: &Place) -> (Level, Text) {
    match (worker.text("phase"), worker.get("ready")) {
        (Some("ready"), _) | (None, Value::Bool(true)) => (Level::Ok, Text::Ready),
        (Some("starting"), Value::Bool(false)) => (Level::Critical, Text::Loading),
        (Some("starting"), _) => (Level::Warning, Text::Loading),
        (Some("waiting"), _) => (Level::Critical, Text::WaitsForStart),
        (Some("not_ready"), _) | (None, Value::Bool(false)) => (Level::Critical, Text::NotReady),
        _ => (Level::Unknown, Text::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_loads_again_is_not_well_and_one_that_loads_first_is_only_watched() {
        let of = |document: Value| level(&Place::root(&document));
        assert_eq!(of(json!({ "phase": "starting", "ready": null })), (Level::Warning, Text::Loading));
        assert_eq!(of(json!({ "phase": "starting", "ready": false })), (Level::Critical, Text::Loading));
        assert_eq!(of(json!({ "phase": "levitating" })), (Level::Unknown, Text::Unknown));
        assert_eq!(of(json!(null)), (Level::Unknown, Text::Unknown));
    }
}
