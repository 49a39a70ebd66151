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
use super::{order, why};
use crate::cli::ask::Trouble;
use crate::orders::Verb;

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
    /// What happened to the workers: starts, ends, recoveries, orders, with what was kept of each end.
    History {
        /// Of this worker alone.
        name: Option<String>,
        /// Show all of the evidence, not only how much there is.
        #[arg(long)]
        evidence: bool,
    },
    /// Why it is as it is; also `diarwatch why NAME`.
    Why(why::Options),
    /// Stops it, jobs first, and starts it again. Says before what would be lost.
    Restart(order::Restart),
    /// Takes it out of its balancer, so that no new job comes; it goes on running.
    Drain(order::Options),
    /// Puts it back after a drain.
    Resume(order::Options),
    /// Has the agent leave it alone until it is released.
    Hold(order::Options),
    /// Has the agent look after it again.
    Release(order::Options),
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
    Column::new("driver", Text::DriverKind).wide(),
    Column::new("held_by", Text::HeldBy).wide(),
    Column::new("drained_by", Text::DrainedBy).wide(),
    Column::number("restarts_in_window", Text::InWindow).wide(),
    Column::machine("breaker_open"),
    Column::new("reason", Text::Reason).wide(),
    Column::machine("findings_dropped"),
    Column::new("last_exit", Text::LastExit).rest(),
];

/// Runs the command.
pub(super) fn run(options: &Options, common: &Common) -> Exit {
    match &options.command {
        None | Some(Command::List) => list(common, None),
        Some(Command::Show { name }) => list(common, Some(name)),
        Some(Command::History { name, evidence }) => events::history(common, name.as_deref(), *evidence),
        Some(Command::Why(options)) => why::run(options, common),
        Some(Command::Restart(options)) => order::restart(options, common),
        Some(Command::Drain(options)) => order::plain(Verb::Drain, options, common),
        Some(Command::Resume(options)) => order::plain(Verb::Resume, options, common),
        Some(Command::Hold(options)) => order::plain(Verb::Hold, options, common),
        Some(Command::Release(options)) => order::plain(Verb::Release, options, common),
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
        let found = found.ok_or_else(|| unknown(&workers, "worker show", name))?;
        Ok(Answer::one(table(std::slice::from_ref(found), lang)))
    })
}

/// No worker has that name; the nearest one may be meant. `words` are those of the command.
pub(super) fn unknown(workers: &[Place], words: &str, name: &str) -> Trouble {
    let known = workers.iter().filter_map(|worker| worker.text("worker"));
    let hint = nearest(name, known)
        .map_or_else(|| "diarwatch worker".to_owned(), |near| format!("diarwatch {words} {near}"));
    Trouble::new(Exit::Unknown, format!("no worker of this node is called `{name}`"), hint)
}

/// The same for a worker that the agent did not find.
pub(super) fn not_found(common: &Common, words: &str, name: &str) -> Trouble {
    let document = common.ask(&json!({ "ask": "status" })).unwrap_or_default();
    unknown(&Place::root(&document).items("workers"), words, name)
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
            worker.word("driver"),
            worker.word("held_by"),
            worker.word("drained_by"),
            worker.cell("restarts_in_window", count),
            worker.word("breaker_open"),
            worker.word("reason"),
            worker.word("findings_dropped"),
            worker.word("last_exit"),
        ]);
    }
    table
}

/// Where a worker is, in a word that is right for its phase, and whether a person had a hand in it.
pub(super) fn phase(worker: &Place, lang: Lang) -> Cell {
    let (level, word) = level(worker);
    let marks = [("held_by", Text::Held), ("drained_by", Text::Drained)];
    let marks = marks.into_iter().filter(|(key, _)| worker.text(key).is_some());
    let words: Vec<&str> =
        [word].into_iter().chain(marks.map(|(_, mark)| mark)).map(|t| t.in_lang(lang)).collect();
    Cell::state(worker.get("phase").clone(), level, &words.join(" · "))
}

/// How well a worker is.
pub(super) fn level(worker: &Place) -> (Level, Text) {
    let lost = worker.get("ready") == &Value::Bool(false);
    match (worker.text("phase"), worker.get("ready")) {
        (Some("waiting"), _) if worker.get("breaker_open") == &Value::Bool(true) => {
            (Level::Critical, Text::RestartedTooOften)
        }
        (Some("ready"), _) | (None, Value::Bool(true)) => (Level::Ok, Text::Ready),
        (Some("starting"), _) if lost => (Level::Critical, Text::Loading),
        (Some("starting"), _) => (Level::Warning, Text::Loading),
        (Some("stopping"), _) if lost => (Level::Critical, Text::Stopping),
        (Some("stopping"), _) => (Level::Warning, Text::Stopping),
        // A person wants it so: worth knowing, nothing to be called for.
        (Some("left_alone"), _) => (Level::Warning, Text::LeftAlone),
        (Some("unknown"), _) => (Level::Warning, Text::ManagerSilent),
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
        assert_eq!(of(json!({ "phase": "stopping", "ready": null })), (Level::Warning, Text::Stopping));
        assert_eq!(of(json!({ "phase": "stopping", "ready": false })), (Level::Critical, Text::Stopping));
        assert_eq!(of(json!({ "phase": "left_alone", "ready": false })), (Level::Warning, Text::LeftAlone));
        assert_eq!(of(json!({ "phase": "unknown", "ready": true })), (Level::Warning, Text::ManagerSilent));
        let often = json!({ "phase": "waiting", "ready": false, "breaker_open": true });
        assert_eq!(of(often), (Level::Critical, Text::RestartedTooOften));
        assert_eq!(of(json!({ "phase": "levitating" })), (Level::Unknown, Text::Unknown));
        assert_eq!(of(json!(null)), (Level::Unknown, Text::Unknown));
    }
}
