//! `diarwatch events` and `diarwatch worker history`: what happened on this node lately, or as it happens.
//! Takes the newest events of the agent, of which it keeps the last thousand of this run; gives rows.

use std::time::Duration;

use clap::Args;
use diarwatch_shared::clock::{self, UnixMicros};
use diarwatch_shared::exit::Exit;
use diarwatch_shared::texts::{Lang, Text};
use serde_json::{Map, Value, json};

use super::answer::{Answer, show};
use super::common::{Common, Form};
use super::output::{Cell, Column, Table, put};
use super::paint::Level;
use super::values::wait;
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
        list(common, options.worker.as_deref(), false)
    }
}

/// What happened, of one worker where one is named, of workers alone where that is asked.
pub(super) fn list(common: &Common, worker: Option<&str>, workers_only: bool) -> Exit {
    show(common, || {
        let (node, mut events) = ask(common, since(common), worker)?;
        events.retain(|event| !workers_only || event.get("worker").is_some());
        let rows = table(&events, common);
        let document = rows.to_document("events", &[("node", node)], "events");
        Ok(Answer::list(document, rows, Text::NoEvents.in_lang(common.lang())))
    })
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
    let (level, word) = word(kind, common.lang());
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
        word(kind, common.lang()).0 >= Level::Warning
    };
    let bad: Vec<Value> = events.iter().filter(bad).cloned().collect();
    let shown = bad.get(bad.len().saturating_sub(most)..).unwrap_or_default();
    let rows = table(shown, common).to_text(false, common.width());
    rows.lines().skip(1).map(str::to_owned).collect()
}

/// How bad a kind of event is, and what people call it; a kind of a later version by its name.
pub(super) fn word(kind: &str, lang: Lang) -> (Level, String) {
    let (level, text) = match kind {
        "agent_started" => (Level::Ok, Text::EventAgentStarted),
        "worker_started" => (Level::Ok, Text::EventWorkerStarted),
        "worker_ready" => (Level::Ok, Text::EventWorkerReady),
        "worker_not_ready" => (Level::Warning, Text::EventWorkerNotReady),
        "worker_start_overdue" => (Level::Warning, Text::EventWorkerStartOverdue),
        "worker_exited" => (Level::Critical, Text::EventWorkerExited),
        "gpu_driver_unresponsive" => (Level::Critical, Text::DriverUnresponsive),
        "gpu_driver_recovered" => (Level::Ok, Text::EventDriverRecovered),
        "gpu_driver_absent" => (Level::Warning, Text::NoDriver),
        "gpu_xid" => (Level::Warning, Text::EventGpuXid),
        "gpu_recovery_action" => (Level::Warning, Text::EventGpuRecoveryAction),
        other => return (Level::Unknown, other.replace('_', " ")),
    };
    (level, text.in_lang(lang).to_owned())
}

/// What else is known of an event: its reason first, then numbers with their names.
pub(super) fn say(detail: &Map<String, Value>, gpu: Option<&Value>, lang: Lang) -> String {
    let reason = detail.get("reason").and_then(Value::as_str).map(str::to_owned);
    let gpu = gpu.map(|gpu| format!("GPU {gpu}"));
    let rest = detail.iter().filter(|(key, _)| *key != "reason").map(|(key, value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let ms = value.as_f64().map(wait).unwrap_or_default();
        match key.as_str() {
            "pid" => format!("PID {text}"),
            "load_ms" => format!("{} {ms}", Text::LoadTime.in_lang(lang)),
            "down_ms" => format!("{} {ms}", Text::DownTime.in_lang(lang)),
            "waited_ms" => format!("{} {ms}", Text::WaitedTime.in_lang(lang)),
            "restart_in_ms" => format!("{} {ms}", Text::NextStart.in_lang(lang)),
            "attempt" => format!("{} {text}", Text::Restarts.in_lang(lang)),
            "agent_version" | "text" | "uuid" => text,
            "code" => format!("XID {text}"),
            "action" => action(&text, lang),
            other => format!("{other} {text}"),
        }
    });
    reason.into_iter().chain(gpu).chain(rest).collect::<Vec<_>>().join("  ")
}

/// What an XID calls for, or the driver wants; a word of a later version as it is.
pub(super) fn action(word: &str, lang: Lang) -> String {
    let text = match word {
        "restart_worker" => Text::ActionRestartWorker,
        "reset_gpu" | "gpu_reset" => Text::ActionResetGpu,
        "isolate" => Text::ActionIsolate,
        "reboot" | "node_reboot" => Text::ActionReboot,
        "drain_p2p" => Text::ActionDrain,
        "drain_and_reset" => Text::ActionDrainAndReset,
        "workflow" => Text::ActionWorkflow,
        "watch" => Text::ActionWatch,
        "ignore" | "none" => Text::ActionNone,
        "unknown" => Text::Unknown,
        other => return other.to_owned(),
    };
    text.in_lang(lang).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_a_gpu_says_what_it_calls_for() {
        let detail =
            json!({ "code": 79, "pid": 7, "action": "reboot", "text": "GPU has fallen off the bus" });
        let said = |lang| say(detail.as_object().unwrap(), Some(&json!(0)), lang);
        assert_eq!(said(Lang::En), "GPU 0  reboot the node  XID 79  PID 7  GPU has fallen off the bus");
        assert!(said(Lang::Ja).contains("ノードの再起動"), "{}", said(Lang::Ja));
        assert_eq!(action("pray", Lang::En), "pray");
    }

    #[test]
    fn an_event_is_shown_once_though_others_share_its_microsecond() {
        let event = |at: u64, kind: &str| json!({ "at": at, "kind": kind });
        let mut seen = Seen { at: UnixMicros(4), there: Vec::new() };
        assert_eq!(seen.new_of(vec![event(3, "a"), event(5, "a")]).len(), 1);
        assert_eq!(seen.new_of(vec![event(5, "a"), event(5, "b")]), vec![event(5, "b")]);
        assert_eq!(seen.new_of(vec![event(5, "a"), event(5, "b"), event(6, "c")]), vec![event(6, "c")]);
        assert!(seen.new_of(vec![event(6, "c")]).is_empty());
    }

    #[test]
    fn an_event_of_a_later_version_is_shown_by_its_name() {
        assert_eq!(word("worker_levitated", Lang::Ja), (Level::Unknown, "worker levitated".to_owned()));
        let detail = json!({ "height": 3, "reason": "magic" });
        assert_eq!(say(detail.as_object().unwrap(), None, Lang::En), "magic  height 3");
    }
}
