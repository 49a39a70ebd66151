//! `diarwatch events` and `diarwatch worker history`: what happened on this node lately, or as it happens.
//! Takes the newest events of the agent, of which it keeps the last thousand of this run; gives rows.

use std::time::Duration;

use clap::Args;
use diarwatch_shared::clock::{self, UnixMicros};
use diarwatch_shared::exit::Exit;
use diarwatch_shared::texts::Text;
use serde_json::{Map, Value, json};

use super::answer::{Answer, Screen, show};
use super::common::{Common, Form};
use super::event_words::{judged, say};
use super::output::{Cell, Column, Table, put};
use super::paint::{Level, Tone};
use crate::cli::ask::Trouble;

/// Between two looks of `--follow`.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);

/// Flags of `events`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Stay and show what happens, until Ctrl-C.
    #[arg(short, long)]
    follow: bool,
    /// Of this worker alone.
    #[arg(long, value_name = "NAME")]
    worker: Option<String>,
}

const COLUMNS: &[Column] = &[
    Column::new("at_us", Text::Time),
    Column::new("event", Text::Event),
    Column::new("worker", Text::Worker),
    Column::machine("gpu"),
    Column::new("detail", Text::Detail).rest(),
];

/// Runs the command.
pub(super) fn run(options: &Options, common: &Common) -> Exit {
    if options.follow {
        follow(options.worker.as_deref(), common)
    } else {
        list(common, options.worker.as_deref())
    }
}

/// What happened, of one worker where one is named.
fn list(common: &Common, worker: Option<&str>) -> Exit {
    show(common, || {
        let (node, events) = ask(common, since(common), worker)?;
        Ok(answer(node, &events, common))
    })
}

/// What happened to workers, or to one; with all evidence where that is asked.
pub(super) fn history(common: &Common, worker: Option<&str>, evidence: bool) -> Exit {
    show(common, || {
        let (node, mut events) = ask(common, since(common), worker)?;
        events.retain(|event| event.get("worker").is_some());
        let whole = if evidence { bundles(&events, common) } else { Vec::new() };
        let mut answer = answer(node, &events, common);
        if let (false, Some(rows)) = (whole.is_empty(), &answer.rows) {
            let table = rows.to_text(common.form() == Form::Wide, common.width());
            answer.screen = Screen::Text([vec![table], whole].concat().join("\n"));
        }
        Ok(answer)
    })
}

fn answer(node: Value, events: &[Value], common: &Common) -> Answer {
    let rows = table(events, common);
    let document = rows.to_document("events", &[("node", node)], "events");
    Answer::list(document, rows, Text::NoEvents.in_lang(common.lang()))
}

/// All that was kept of each end, under its time and worker.
fn bundles(events: &[Value], common: &Common) -> Vec<String> {
    let mut lines = Vec::new();
    for event in events {
        let Some(bundle) = event.get("bundle") else { continue };
        let at = UnixMicros(event.get("at").and_then(Value::as_u64).unwrap_or_default());
        let worker = event.get("worker").and_then(Value::as_str).unwrap_or("?");
        let title = Text::EventWorkerEvidence.in_lang(common.lang());
        lines.push(String::new());
        lines.push(Tone::Strong.mark(&format!("{title} {worker} {}", common.tz.date_time(at))));
        let whole = serde_json::to_string_pretty(bundle).unwrap_or_default();
        lines.extend(whole.lines().map(|line| Tone::Plain.mark(line)));
    }
    lines
}

fn since(common: &Common) -> UnixMicros {
    common.since.map_or(UnixMicros(0), |back| clock::now().minus(back))
}

fn ask(common: &Common, since: UnixMicros, worker: Option<&str>) -> Result<(Value, Vec<Value>), Trouble> {
    let mut question = json!({ "ask": "events", "since_us": since.0 });
    if let (Some(worker), Value::Object(question)) = (worker, &mut question) {
        question.insert("worker".into(), worker.into());
    }
    let mut document = common.ask(&question)?;
    let events = document.get_mut("events").map(Value::take).unwrap_or_default();
    let node = document.get("node").cloned().unwrap_or_default();
    Ok((node, if let Value::Array(events) = events { events } else { Vec::new() }))
}

/// Shows what is new until the reader or the person leaves. An agent that starts again is waited for.
fn follow(worker: Option<&str>, common: &Common) -> Exit {
    let mut seen = Seen { at: since(common), there: Vec::new() };
    let mut first = true;
    loop {
        match ask(common, UnixMicros(seen.at.0.saturating_sub(1)), worker) {
            Ok((_, events)) => {
                let new = seen.new_of(events);
                let old = first && common.since.is_none();
                let rows = table(if old { &[] } else { &new }, common);
                if !put(&lines(&rows, common, first)) {
                    return Exit::Ok;
                }
                first = false;
            }
            Err(trouble) if first => return trouble.tell(),
            Err(_) => {}
        }
        std::thread::sleep(FOLLOW_INTERVAL);
    }
}

fn lines(rows: &Table, common: &Common, head: bool) -> String {
    match common.form() {
        Form::Csv => rows.to_csv(head),
        Form::Json | Form::Ndjson => rows.to_documents().iter().map(|row| format!("{row}\n")).collect(),
        _ if rows.is_empty() => String::new(),
        form => {
            let text = rows.to_text(form == Form::Wide, common.width());
            let rows: Vec<&str> = text.lines().skip(1).collect();
            common.finish(&rows.join("\n")) + "\n"
        }
    }
}

/// What was shown: the time of the newest, and all that happened at that very microsecond.
struct Seen {
    at: UnixMicros,
    there: Vec<Value>,
}

impl Seen {
    fn new_of(&mut self, events: Vec<Value>) -> Vec<Value> {
        let at = |event: &Value| UnixMicros(event.get("at").and_then(Value::as_u64).unwrap_or_default());
        let new: Vec<Value> = events
            .into_iter()
            .filter(|event| at(event) > self.at || (at(event) == self.at && !self.there.contains(event)))
            .collect();
        if let Some(newest) = new.iter().map(at).max() {
            if newest > self.at {
                self.there.clear();
            }
            self.at = newest;
            self.there.extend(new.iter().filter(|event| at(event) == newest).cloned());
        }
        new
    }
}

fn table(events: &[Value], common: &Common) -> Table {
    let mut table = Table::new("event", common.lang(), COLUMNS);
    for event in events {
        table.push(row(event, common));
    }
    table
}

fn row(event: &Value, common: &Common) -> Vec<Cell> {
    let empty = Map::new();
    let fields = event.as_object().unwrap_or(&empty);
    let at = fields.get("at").and_then(Value::as_u64).unwrap_or_default();
    let kind = fields.get("kind").and_then(Value::as_str).unwrap_or("unknown");
    let named = ["at", "kind", "version", "worker", "gpu"];
    let detail: Map<String, Value> = fields
        .iter()
        .filter(|(key, _)| !named.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let of = |key: &str| match fields.get(key) {
        Some(Value::String(text)) => Cell::text(text),
        Some(value) => Cell::new(value.clone(), value.to_string()),
        None => Cell::none(),
    };
    let (level, word) = judged(kind, &detail, common.lang());
    let said = say(&detail, fields.get("gpu"), common.lang());
    vec![
        Cell::new(at, common.tz.date_time(UnixMicros(at))),
        Cell::state(kind, level, &word),
        of("worker"),
        of("gpu"),
        Cell::new(Value::Object(detail), said),
    ]
}

/// The newest of those events of so long that a person should know of, newest last, each as one line.
pub(super) fn recent_problems(common: &Common, within: Duration, most: usize) -> Vec<String> {
    let (_, events) = ask(common, clock::now().minus(within), None).unwrap_or_default();
    let bad = |event: &&Value| {
        let kind = event.get("kind").and_then(Value::as_str).unwrap_or_default();
        let empty = Map::new();
        judged(kind, event.as_object().unwrap_or(&empty), common.lang()).0 >= Level::Warning
    };
    let bad: Vec<Value> = events.iter().filter(bad).cloned().collect();
    let shown = bad.get(bad.len().saturating_sub(most)..).unwrap_or_default();
    let rows = table(shown, common).to_text(false, common.width());
    rows.lines().skip(1).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_shown_once_though_others_share_its_microsecond() {
        let event = |at: u64, kind: &str| json!({ "at": at, "kind": kind });
        let mut seen = Seen { at: UnixMicros(4), there: Vec::new() };
        assert_eq!(seen.new_of(vec![event(3, "a"), event(5, "a")]).len(), 1);
        assert_eq!(seen.new_of(vec![event(5, "a"), event(5, "b")]), vec![event(5, "b")]);
        assert_eq!(seen.new_of(vec![event(5, "a"), event(5, "b"), event(6, "c")]), vec![event(6, "c")]);
        assert!(seen.new_of(vec![event(6, "c")]).is_empty());
    }
}
