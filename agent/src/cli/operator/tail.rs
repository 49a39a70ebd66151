//! `diarwatch tail`: samples as they are taken. Takes the last moments of the agent's history, ten times a
//! second; gives each sample once, in order of its time. An agent that starts again is waited for, a reader
//! that is slow is waited for too: what is older than the agent's minute by then is not shown.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use diarwatch_shared::catalogue::METRICS;
use diarwatch_shared::clock::{self, UnixMicros};
use diarwatch_shared::config::nearest;
use diarwatch_shared::exit::Exit;
use diarwatch_shared::quantity::parse_duration;
use diarwatch_shared::texts::Text;
use serde_json::{Value, json};

use super::common::{Common, Form};
use super::output::{Cell, Column, Table, put};
use crate::cli::ask::Trouble;

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How far back each look goes: a group of series may come later than another's newer values.
const OVERLAP: Duration = Duration::from_secs(2);

/// Flags of `tail`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// `gpu_power_watts`, `gpu_*` or `gpu_power_watts{gpu="0"}`; all series without it.
    #[arg(value_name = "SERIES", value_parser = Selector::parse)]
    series: Vec<Selector>,
    /// End after this time; without it at Ctrl-C.
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    span: Option<Duration>,
    /// Show at most so many samples a second of each series.
    #[arg(long, value_name = "HERTZ", value_parser = parse_rate)]
    rate: Option<f64>,
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    (rate > 0.0 && rate <= 1_000.0)
        .then_some(rate)
        .ok_or_else(|| "write a rate above 0, such as 1 or 0.5".to_owned())
}

const COLUMNS: &[Column] = &[
    Column::new("at_us", Text::Time),
    Column::new("metric", Text::Series),
    Column::new("labels", Text::Labels),
    Column::number("value", Text::Value),
];

/// Runs the command.
pub(super) fn run(options: &Options, common: &Common) -> Exit {
    let end = options.span.map(|span| clock::uptime() + span);
    let begin = clock::now();
    let mut shown = Shown {
        begin,
        every: options.rate.map(|rate| Duration::from_secs_f64(1.0 / rate)),
        last: BTreeMap::new(),
    };
    let mut first = true;
    loop {
        match ask(common, clock::now().minus(OVERLAP), &options.series) {
            Ok(document) => {
                if first && let Err(trouble) = known(common, &options.series) {
                    return trouble.tell();
                }
                let samples = shown.new_of(&document, &options.series);
                if !put(&lines(&samples, common, first)) {
                    return Exit::Ok;
                }
                first = false;
            }
            Err(trouble) if first => return trouble.tell(),
            Err(_) => {}
        }
        if end.is_some_and(|end| clock::uptime() >= end) {
            return Exit::Ok;
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// The agent picks exact names; patterns are picked here.
fn ask(common: &Common, after: UnixMicros, series: &[Selector]) -> Result<Value, Trouble> {
    let exact = series.iter().all(|selector| !selector.name.contains('*'));
    let names: Vec<&str> =
        if exact { series.iter().map(|selector| selector.name.as_str()).collect() } else { Vec::new() };
    common.ask(&json!({ "ask": "history", "metrics": names, "after_us": after.0 }))
}

/// A name that no series of the last minute has is a slip of the finger.
fn known(common: &Common, series: &[Selector]) -> Result<(), Trouble> {
    for selector in series {
        let document = ask(common, UnixMicros(0), std::slice::from_ref(selector))?;
        let found = rows(&document).any(|row| selector.takes(row.metric, row.labels));
        if !found && !METRICS.iter().any(|metric| metric.name == selector.name) {
            let near = nearest(&selector.name, METRICS.iter().map(|metric| metric.name));
            let hint = near.map_or_else(
                || "diarwatch tail --for 1s".to_owned(),
                |near| format!("diarwatch tail {near}"),
            );
            let problem = format!("no series is called `{}`", selector.name);
            return Err(Trouble::new(Exit::Unknown, problem, hint));
        }
    }
    Ok(())
}

/// A series of an answer.
struct Row<'a> {
    metric: &'a str,
    labels: &'a Value,
    row: &'a Value,
}

fn rows(document: &Value) -> impl Iterator<Item = Row<'_>> {
    let rows = document.get("series").and_then(Value::as_array).into_iter().flatten();
    rows.filter_map(|row| Some(Row { metric: row.get("metric")?.as_str()?, labels: row.get("labels")?, row }))
}

/// One sample.
#[derive(Clone, Debug, PartialEq)]
struct Sample {
    at: UnixMicros,
    metric: String,
    labels: Value,
    value: Result<f64, String>,
}

/// What was shown of each series.
struct Shown {
    begin: UnixMicros,
    every: Option<Duration>,
    last: BTreeMap<String, UnixMicros>,
}

impl Shown {
    /// What is new in an answer, in order of time.
    fn new_of(&mut self, document: &Value, series: &[Selector]) -> Vec<Sample> {
        let wanted =
            |row: &Row| series.is_empty() || series.iter().any(|one| one.takes(row.metric, row.labels));
        let mut found = Vec::new();
        for Row { metric, labels, row } in rows(document).filter(wanted) {
            let list =
                |key: &str| row.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let missing = row.get("missing").and_then(Value::as_str).unwrap_or("unknown");
            let last = self.last.entry(format!("{metric}{labels}")).or_insert(self.begin);
            for (at, value) in list("times_us").iter().zip(list("values")) {
                let at = UnixMicros(at.as_u64().unwrap_or_default());
                let due = self.every.is_none_or(|every| *last == self.begin || at.since(*last) >= every);
                if at > *last && due {
                    *last = at;
                    let value = value.as_f64().ok_or_else(|| missing.to_owned());
                    found.push(Sample { at, metric: metric.to_owned(), labels: labels.clone(), value });
                }
            }
        }
        found.sort_by_key(|sample| sample.at);
        found
    }
}

fn lines(samples: &[Sample], common: &Common, head: bool) -> String {
    if matches!(common.form(), Form::Table | Form::Wide) {
        let line = |sample: &Sample| {
            let value = sample.value.as_ref().map_or_else(|reason| format!("- ({reason})"), f64::to_string);
            let time = common.tz.time_of_day_ms(sample.at);
            format!("{time}  {}{{{}}}  {value}\n", sample.metric, labels(&sample.labels))
        };
        return samples.iter().map(line).collect();
    }
    let mut table = Table::new("sample", common.lang(), COLUMNS);
    for sample in samples {
        table.push(vec![
            Cell::new(sample.at.0, ""),
            Cell::text(&sample.metric),
            Cell::new(sample.labels.clone(), ""),
            sample.value.as_ref().map_or_else(|reason| Cell::missing(reason), |value| Cell::new(*value, "")),
        ]);
    }
    match common.form() {
        Form::Csv => table.to_csv(head),
        _ => table.to_documents().iter().map(|row| format!("{row}\n")).collect(),
    }
}

fn labels(labels: &Value) -> String {
    let pairs = labels.as_object().into_iter().flatten();
    let pair = |(name, value): (&String, &Value)| format!("{name}=\"{}\"", value.as_str().unwrap_or("?"));
    pairs.map(pair).collect::<Vec<_>>().join(",")
}

/// Which series: a name with `*` for any part, and labels that must be so.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Selector {
    name: String,
    labels: Vec<(String, String)>,
}

impl Selector {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is no series; write for example gpu_power_watts{{gpu=\"0\"}} or 'gpu_*'");
        let (name, rest) = text.split_once('{').map_or((text, None), |(name, rest)| (name, Some(rest)));
        let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '*';
        if name.is_empty() || !name.chars().all(good) {
            return Err(wrong());
        }
        let inner = rest.map_or(Some(""), |rest| rest.strip_suffix('}')).ok_or_else(wrong)?;
        let pair = |pair: &str| {
            let (label, value) = pair.split_once('=')?;
            let value = value.trim().strip_prefix('"')?.strip_suffix('"')?;
            Some((label.trim().to_owned(), value.to_owned()))
        };
        let pairs = inner.split(',').filter(|part| !part.trim().is_empty());
        let labels = pairs.map(|part| pair(part).ok_or_else(wrong)).collect::<Result<_, _>>()?;
        Ok(Self { name: name.to_owned(), labels })
    }

    fn takes(&self, metric: &str, labels: &Value) -> bool {
        let same =
            |(label, value): &(String, String)| labels.get(label).and_then(Value::as_str) == Some(value);
        like(&self.name, metric) && self.labels.iter().all(same)
    }
}

/// Whether a text is as a pattern says, `*` being any part of it.
fn like(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let middle: Vec<&str> = parts.collect();
    let Some((last, middle)) = middle.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(times: &[u64], values: &[Option<f64>]) -> Value {
        json!({ "series": [{ "metric": "gpu_power_watts", "labels": { "gpu": "0" }, "times_us": times, "values": values, "missing": "lost" }] })
    }

    #[test]
    fn each_sample_is_shown_once_and_says_why_it_is_missing() {
        let mut shown = Shown { begin: UnixMicros(10), every: None, last: BTreeMap::new() };
        let times = |samples: Vec<Sample>| samples.iter().map(|sample| sample.at.0).collect::<Vec<_>>();
        assert_eq!(times(shown.new_of(&answer(&[5, 11, 12], &[Some(1.0); 3]), &[])), [11, 12]);
        let more = shown.new_of(&answer(&[11, 12, 13], &[Some(1.0), Some(1.0), None]), &[]);
        assert_eq!((more.len(), &more[0].value), (1, &Err("lost".to_owned())));
    }

    #[test]
    fn a_rate_thins_each_series() {
        let mut shown =
            Shown { begin: UnixMicros(0), every: Some(Duration::from_micros(10)), last: BTreeMap::new() };
        let samples = shown.new_of(&answer(&[1, 5, 11, 12, 30], &[Some(1.0); 5]), &[]);
        assert_eq!(samples.iter().map(|sample| sample.at.0).collect::<Vec<_>>(), [1, 11, 30]);
    }

    #[test]
    fn a_selector_takes_what_prometheus_would() {
        let one = Selector::parse("gpu_power_watts{gpu=\"0\"}").unwrap();
        assert!(one.takes("gpu_power_watts", &json!({ "gpu": "0", "uuid": "u" })));
        assert!(!one.takes("gpu_power_watts", &json!({ "gpu": "1" })));
        for bad in ["", "{}", "a b", "a{b}", "a{b=c}", "a{b=\"c\""] {
            assert!(Selector::parse(bad).is_err(), "{bad}");
        }
        for (pattern, text, same) in [
            ("gpu_*", "gpu_x", true),
            ("*_bytes", "a_b_bytes", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b", "ab", true),
            ("a", "ab", false),
            ("a*b", "a", false),
        ] {
            assert_eq!(like(pattern, text), same, "{pattern} {text}");
        }
    }
}
