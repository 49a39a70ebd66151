//! `diarwatch status`: one screen of 80 columns, what is wrong first. Takes the status document and the
//! last seconds of the GPUs; what is not there is shown as missing, never as 0, and nothing in a document
//! can make it panic.

use std::time::Duration;

use clap::Args;
use diarwatch_shared::clock::{self, UnixMicros};
use diarwatch_shared::exit::Exit;
use diarwatch_shared::texts::{Lang, Text};
use serde_json::{Value, json};

use super::answer::{Answer, Screen, show};
use super::common::{Common, Form};
use super::output::{Cell, Column, Table, hang};
use super::paint::{Level, Tone};
use super::values::{Place, celsius, count, memory, percent, span, sparkline, tenths, watts};
use super::{events, fleet, gpu, health, queue, worker};
use crate::cli::ask::Trouble;

/// Seconds of a sparkline, a character each.
const SPARK_SECONDS: u64 = 6;
/// Problems of the past on the screen.
const PROBLEMS_MAX: usize = 3;
/// How far back they are.
const PROBLEMS_WITHIN: Duration = Duration::from_secs(3_600);

/// Flags of `status`.
#[derive(Debug, Default, Args)]
pub(super) struct Options {
    /// End with 0 well, 1 warning, 2 critical, 3 not known yet.
    #[arg(long)]
    exit_code: bool,
}

/// Runs the command.
pub(super) fn run(options: &Options, common: &Common) -> Exit {
    show(common, || {
        let mut answer = if common.fleet { fleet::status(common)? } else { node(common)? };
        if !options.exit_code {
            answer.exit = Exit::Ok;
        }
        Ok(answer)
    })
}

fn node(common: &Common) -> Result<Answer, Trouble> {
    let document = common.ask(&json!({ "ask": "status" }))?;
    let lang = common.lang();
    let findings = health::findings(&document, lang);
    let exit = health::exit(health::level(&document, &findings));
    if !matches!(common.form(), Form::Table | Form::Wide) {
        return Ok(Answer { document, screen: Screen::Text(String::new()), rows: None, exit });
    }
    let after = clock::now().0.saturating_sub(SPARK_SECONDS * 1_000_000);
    let metrics = ["gpu_utilization_ratio", "agent_resident_bytes", "agent_cpu_seconds_total"];
    let question = json!({ "ask": "history", "metrics": metrics, "after_us": after });
    // An agent that has no history is shown without it.
    let history = common.ask(&question).unwrap_or_default();
    let mut screen = screen(&document, &history, lang, common.width());
    let problems = events::recent_problems(common, PROBLEMS_WITHIN, PROBLEMS_MAX);
    if !problems.is_empty() {
        screen.push(String::new());
        screen.push(Tone::Dim.mark(Text::RecentProblems.in_lang(lang)));
        screen.extend(problems);
    }
    Ok(Answer { document, screen: Screen::Text(screen.join("\n")), rows: None, exit })
}

/// The lines of the screen.
fn screen(document: &Value, history: &Value, lang: Lang, width: Option<u16>) -> Vec<String> {
    let root = Place::root(document);
    let findings = health::findings(document, lang);
    let mut lines = vec![head(&root, history, health::level(document, &findings), lang)];
    lines.push(link(&root, lang, width));
    if root.get("simulated").as_bool() == Some(true) {
        lines.push(Tone::Warn.mark(Text::SimulatedExplained.in_lang(lang)));
    }
    lines.extend(
        findings
            .iter()
            .map(|finding| hang(&finding.level.mark(), &finding.level.tone().mark(&finding.text), width)),
    );
    lines.push(host(&root.at("host"), lang));
    let parts = [gpus(&root, history, lang, width), workers(&root, lang, width), queues(&root, lang, width)];
    for part in parts.into_iter().filter(|part| !part.is_empty()) {
        lines.push(String::new());
        lines.extend(part);
    }
    lines
}

fn head(root: &Place, history: &Value, level: Level, lang: Lang) -> String {
    let node = Tone::Strong.mark(root.text("node").unwrap_or("?"));
    let resident = points(history, "agent_resident_bytes", None);
    let resident = resident.last().map_or_else(String::new, |(_, bytes)| {
        const MIB: f64 = 1_048_576.0;
        format!(" · {:.0} MiB", bytes / MIB)
    });
    let version = root.text("version").unwrap_or("?");
    let agent = format!("{} {version}{}{resident}", Text::Agent.in_lang(lang), load(history));
    let simulated = root.get("simulated").as_bool() == Some(true);
    let simulated = if simulated { format!("  {}", Tone::Bad.mark("■ SIMULATED")) } else { String::new() };
    format!("{node}  {}  {}{simulated}", level.say(level.word(lang)), Tone::Plain.mark(&agent))
}

fn link(root: &Place, lang: Lang, width: Option<u16>) -> String {
    let (link, spool) = (root.at("link"), root.at("spool"));
    let level = health::link(root);
    let word = if level == Level::Ok { Text::LinkUp } else { Text::LinkDown };
    let endpoint = link.text("endpoint").unwrap_or("-");
    let unsent =
        spool.get("frames_unacked").as_u64().map_or_else(|| "?".to_owned(), |frames| frames.to_string());
    let more = match (level, link.get("round_trip_ms").as_f64()) {
        (Level::Ok, Some(ms)) => format!(" · {ms:.1} ms"),
        (Level::Ok, None) => String::new(),
        _ => format!(" · {}", link.text("problem").unwrap_or("-")),
    };
    let said = format!("{}: {endpoint} {}", Text::Link.in_lang(lang), word.in_lang(lang));
    let unsent = format!(" · {} {unsent}", Text::Backlog.in_lang(lang));
    let text = level.tone().mark(&said) + &Tone::Plain.mark(&unsent) + &Tone::Plain.mark(&more);
    hang(&level.mark(), &text, width)
}

fn host(host: &Place, lang: Lang) -> String {
    let missing = |reason: String| format!("{}({reason})", Text::NoData.in_lang(lang));
    let cpu = host.number("cpu_utilization_ratio").map_or_else(missing, percent);
    let total = host.number("memory_total_bytes");
    let used = host.number("memory_used_bytes").map_or_else(missing, |used| memory(used, &total));
    let (cpu_word, memory_word) = (Text::Cpu.in_lang(lang), Text::Memory.in_lang(lang));
    Tone::Plain.mark(&format!("{cpu_word} {cpu} · {memory_word} {used}"))
}

const GPUS: &[Column] = &[
    Column::number("gpu", Text::Gpu),
    Column::number("utilization", Text::Util),
    Column::new("recent", Text::LastSeconds),
    Column::number("memory", Text::Memory),
    Column::number("memory_ratio", Text::Part),
    Column::number("temperature", Text::Temp),
    Column::number("power", Text::Power),
    Column::new("state", Text::State),
];

fn gpus(root: &Place, history: &Value, lang: Lang, width: Option<u16>) -> Vec<String> {
    let gpus = root.items("gpus");
    if gpus.is_empty() {
        return Vec::new();
    }
    let mut table = Table::new("gpu", lang, GPUS);
    let mut notes = Vec::new();
    for gpu in &gpus {
        let (word, level) = gpu::state(gpu);
        let total = gpu.number("memory_total_bytes");
        let part = gpu.number("memory_used_bytes").and_then(|used| Ok(used / total.clone()?));
        let spark = sparkline(&recent(history, gpu.text("uuid").unwrap_or_default()));
        table.push(vec![
            gpu.word("index"),
            gpu.cell("utilization_ratio", percent),
            Cell::text(spark),
            gpu.cell("memory_used_bytes", |used| memory(used, &total)),
            part.map_or_else(|reason| Cell::missing(&reason), |part| Cell::new(part, percent(part))),
            gpu.cell("temperature_celsius", celsius),
            gpu.cell("power_watts", watts),
            Cell::state(word, level, if level == Level::Ok { Text::Ok.in_lang(lang) } else { word }),
        ]);
        notes.extend(missing(gpu, level, lang));
    }
    let mut lines = vec![models(root, &gpus)];
    lines.extend(table.to_text(false, width).lines().map(str::to_owned));
    lines.extend(notes);
    lines
}

/// `2 x NVIDIA H200 · driver 550.54.15`.
fn models(root: &Place, gpus: &[Place]) -> String {
    let mut models: Vec<(&str, usize)> = Vec::new();
    for gpu in gpus {
        let name = gpu.text("name").unwrap_or("?");
        match models.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => models.push((name, 1)),
        }
    }
    let models: Vec<String> = models.iter().map(|(name, count)| format!("{count} x {name}")).collect();
    let driver =
        root.at("driver").text("version").map_or_else(String::new, |version| format!(" · {version}"));
    Tone::Dim.mark(&format!("{}{driver}", models.join(", ")))
}

/// What one GPU does not tell, though it answers.
fn missing(gpu: &Place, level: Level, lang: Lang) -> Option<String> {
    let index = gpu.get("index").as_u64().unwrap_or_default();
    let values = [
        ("utilization_ratio", Text::Utilization),
        ("memory_used_bytes", Text::Memory),
        ("temperature_celsius", Text::Temperature),
        ("power_watts", Text::Power),
    ];
    let absent: Vec<String> = values
        .iter()
        .filter_map(|(key, name)| Some(format!("{}({})", name.in_lang(lang), gpu.number(key).err()?)))
        .collect();
    let said = format!("GPU {index}  {}: {}", Text::NoData.in_lang(lang), absent.join(" "));
    (level == Level::Ok && !absent.is_empty()).then(|| Tone::Dim.mark(&said))
}

const WORKERS: &[Column] = &[
    Column::new("worker", Text::Worker),
    Column::new("state", Text::State),
    Column::number("pid", Text::Pid),
    Column::number("uptime", Text::Uptime),
    Column::number("restarts", Text::Restarts),
    Column::new("last_exit", Text::LastExit).rest(),
];

fn workers(root: &Place, lang: Lang, width: Option<u16>) -> Vec<String> {
    let workers = root.items("workers");
    if workers.is_empty() {
        return vec![Tone::Dim.mark(Text::NothingConfigured.in_lang(lang))];
    }
    let now = root.get("now_us").as_u64().map_or_else(clock::now, UnixMicros);
    let mut table = Table::new("worker", lang, WORKERS);
    for worker in &workers {
        let (service, name) = (worker.text("service").unwrap_or("?"), worker.text("worker").unwrap_or("?"));
        let named = if service == name { name.to_owned() } else { format!("{service} ({name})") };
        let started = worker.get("started_us").as_u64().map(UnixMicros);
        let uptime = started.map(|at| span(now.since(at).as_secs_f64()));
        table.push(vec![
            Cell::text(named),
            worker::phase(worker, lang),
            worker.word("pid"),
            uptime.map_or_else(Cell::none, Cell::text),
            worker.cell("restarts", count),
            worker.word("last_exit"),
        ]);
    }
    table.to_text(false, width).lines().map(str::to_owned).collect()
}

fn queues(root: &Place, lang: Lang, width: Option<u16>) -> Vec<String> {
    let mut table = Table::new("queue", lang, QUEUES);
    for queue in root.items("queues") {
        let (word, level, text) = queue::state(&queue);
        let estimated = queue.get("estimated").as_bool() == Some(true);
        let mark = if estimated { Text::Estimated.in_lang(lang) } else { "" };
        table.push(vec![
            queue.word("queue"),
            queue.cell("waiting", count),
            queue.cell("processing", count),
            queue.cell("oldest_seconds", span),
            queue.cell("job_mean_seconds", span),
            queue.cell("completed_per_minute", tenths),
            queue.cell("drain_seconds", span),
            Cell::state(word, level, format!("{} {mark}", text.in_lang(lang)).trim_end()),
        ]);
    }
    if table.is_empty() {
        Vec::new()
    } else {
        table.to_text(false, width).lines().map(str::to_owned).collect()
    }
}

const QUEUES: &[Column] = &[
    Column::new("queue", Text::Queue),
    Column::number("waiting", Text::QueueWaiting),
    Column::number("processing", Text::QueueProcessing),
    Column::number("oldest", Text::QueueOldest),
    Column::number("mean", Text::JobMean),
    Column::number("rate", Text::PerMinute),
    Column::number("drain", Text::DrainsIn),
    Column::new("state", Text::State),
];

/// The agent's own part of a CPU over the last seconds.
fn load(history: &Value) -> String {
    let points = points(history, "agent_cpu_seconds_total", None);
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return String::new() };
    let wall = UnixMicros(last.0).since(UnixMicros(first.0)).as_secs_f64();
    if wall > 0.0 { format!(" · CPU {:.1}%", (last.1 - first.1) / wall * 100.0) } else { String::new() }
}

/// The means of the last seconds of a GPU's utilisation, oldest first.
fn recent(history: &Value, uuid: &str) -> Vec<Option<f64>> {
    let now = history.get("now_us").and_then(Value::as_u64).unwrap_or_default();
    let points = points(history, "gpu_utilization_ratio", Some(uuid));
    let second = |back: u64| {
        let end = now.saturating_sub(back * 1_000_000);
        let within = points.iter().filter(|(at, _)| *at <= end && *at + 1_000_000 > end);
        let (sum, count) = within.fold((0.0, 0.0), |(sum, count), (_, value)| (sum + value, count + 1.0));
        (count > 0.0).then(|| sum / count)
    };
    (0..SPARK_SECONDS).rev().map(second).collect()
}

/// Times and values of a series, of one GPU where one is named.
fn points(history: &Value, metric: &str, uuid: Option<&str>) -> Vec<(u64, f64)> {
    let of = |one: &&Value| {
        one.get("metric").and_then(Value::as_str) == Some(metric)
            && uuid.is_none_or(|uuid| one.pointer("/labels/uuid").and_then(Value::as_str) == Some(uuid))
    };
    let Some(series) = series(history).find(of) else { return Vec::new() };
    let list = |key: &str| series.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let pairs = list("times_us").iter().zip(list("values"));
    pairs.filter_map(|(at, value)| Some((at.as_u64()?, value.as_f64()?))).collect()
}

fn series(history: &Value) -> impl Iterator<Item = &Value> {
    history.get("series").and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::super::paint::finish;
    use super::*;

    fn text(document: &Value, lang: Lang) -> String {
        finish(&screen(document, &Value::Null, lang, None).join("\n"), false)
    }

    #[test]
    fn a_missing_value_is_shown_with_its_reason_and_never_as_zero() {
        let document = json!({
            "gpus": [{ "index": 0, "name": "X", "utilization_ratio": null, "memory_used_bytes": 1.0 }],
            "reasons": { "/gpus/0/utilization_ratio": "not_supported" }
        });
        let text = text(&document, Lang::En);
        assert!(text.contains("No data: Utilisation(not_supported)"), "{text}");
        assert!(!text.contains("0%"), "{text}");
    }

    #[test]
    fn a_fake_gpu_says_so() {
        assert!(text(&json!({ "simulated": true }), Lang::Ja).contains("SIMULATED"));
        assert!(!text(&json!({ "simulated": false }), Lang::Ja).contains("SIMULATED"));
    }

    #[test]
    fn any_document_gives_some_text() {
        for document in
            [json!(null), json!([]), json!({ "workers": [1, null, {}], "gpus": "x", "queues": [[]] })]
        {
            assert!(!text(&document, Lang::Ja).is_empty());
        }
    }

    #[test]
    fn the_last_seconds_are_means_and_a_second_without_values_is_blank() {
        let history = json!({ "now_us": 10_000_000, "series": [{
            "metric": "gpu_utilization_ratio", "labels": { "uuid": "u" },
            "times_us": [5_100_000, 9_200_000, 9_800_000], "values": [1.0, 0.2, 0.4],
        }]});
        let seconds = recent(&history, "u");
        assert_eq!(seconds.len(), 6);
        assert_eq!((seconds[1], seconds[2]), (Some(1.0), None));
        assert!((seconds[5].unwrap() - 0.3).abs() < 1e-9);
        assert!(recent(&history, "v").iter().all(Option::is_none));
    }
}
