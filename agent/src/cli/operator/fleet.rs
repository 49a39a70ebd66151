//! `diarwatch nodes`, `diarwatch alerts` and `status --fleet`: all nodes, through the aggregator. Takes its
//! two documents, reads what it knows of them and skips the rest; gives rows.

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::exit::Exit;
use diarwatch_shared::texts::{Lang, Text};
use serde_json::{Value, json};

use super::aggregator;
use super::answer::{Answer, Screen, show};
use super::common::Common;
use super::health;
use super::output::{Cell, Column, Table, hang};
use super::paint::{Level, Tone};
use super::values::{Place, count, memory, percent};
use crate::cli::ask::Trouble;

const NODES: &[Column] = &[
    Column::new("node", Text::Node),
    Column::new("presence", Text::State),
    Column::machine("simulated"),
    Column::number("gpus", Text::Gpu),
    Column::number("workers_ready", Text::Worker),
    Column::machine("workers"),
    Column::number("cpu_utilization_ratio", Text::Cpu),
    Column::number("memory_used_bytes", Text::Memory).wide(),
    Column::machine("memory_total_bytes"),
    Column::new("last_seen", Text::LastSeen),
    Column::new("version", Text::Agent).wide(),
    Column::number("frames_lost", Text::FramesLost).wide(),
    Column::new("note", Text::Problem).rest(),
];

const ALERTS: &[Column] = &[
    Column::new("severity", Text::Severity),
    Column::new("state", Text::State),
    Column::new("alertname", Text::Name).wide(),
    Column::new("node", Text::Node),
    Column::new("active_at_us", Text::StartedAt),
    Column::number("value", Text::Value).wide(),
    Column::new("summary", Text::Detail).rest(),
    Column::machine("labels"),
    Column::machine("annotations"),
];

/// Runs `diarwatch nodes`.
pub(super) fn nodes(common: &Common) -> Exit {
    show(common, || {
        let view = view(common)?;
        let rows = node_table(&Place::root(&view), common.lang());
        let document = rows.to_document("nodes", &[], "nodes");
        Ok(Answer::list(document, rows, Text::WaitingForNodes.in_lang(common.lang())))
    })
}

/// Runs `diarwatch alerts`.
pub(super) fn alerts(common: &Common) -> Exit {
    show(common, || {
        let rows = alert_table(&ask_alerts(common)?, common);
        let document = rows.to_document("alerts", &[], "alerts");
        Ok(Answer::list(document, rows, Text::NoAlerts.in_lang(common.lang())))
    })
}

/// `status --fleet`.
pub(super) fn status(common: &Common) -> Result<Answer, Trouble> {
    let view = view(common)?;
    let active = ask_alerts(common)?;
    let lang = common.lang();
    let root = Place::root(&view);
    let (nodes, alerts) = (node_table(&root, lang), alert_table(&active, common));
    let level = level(&root, &active);
    let mut lines = vec![format!(
        "{}  {}  {}",
        level.say(level.word(lang)),
        Tone::Strong.mark(Text::Nodes.in_lang(lang)) + &format!(" {}", root.items("nodes").len()),
        Tone::Dim.mark(&format!(
            "{} {}",
            Text::LastUpdate.in_lang(lang),
            root.text("updated").unwrap_or("-")
        )),
    )];
    let problems = root.get("problems").as_array().into_iter().flatten().filter_map(Value::as_str);
    let critical = |problem| hang(&Level::Critical.mark(), &Tone::Bad.mark(problem), common.width());
    lines.extend(problems.map(critical));
    lines.push(String::new());
    let empty = |table: &Table, text: Text| {
        if table.is_empty() {
            Tone::Dim.mark(text.in_lang(lang))
        } else {
            table.to_text(false, common.width())
        }
    };
    lines.push(empty(&nodes, Text::WaitingForNodes));
    lines.push(String::new());
    lines.push(empty(&alerts, Text::NoAlerts));
    Ok(Answer {
        screen: Screen::Text(lines.join("\n")),
        rows: None,
        exit: health::exit(level),
        document: view,
    })
}

fn view(common: &Common) -> Result<Value, Trouble> {
    aggregator::get(common, &format!("/api/v1/status?lang={}", common.lang().tag()))
}

fn ask_alerts(common: &Common) -> Result<Value, Trouble> {
    let mut document = aggregator::get(common, "/api/v1/alerts")?;
    Ok(document.get_mut("data").map(Value::take).unwrap_or_default())
}

/// Firing alerts by their severity, silent nodes, and what keeps the aggregator from its work.
fn level(root: &Place, alerts: &Value) -> Level {
    let alerts = Place::root(alerts).items("alerts");
    let firing = alerts.iter().filter(|alert| alert.text("state") == Some("firing")).map(severity);
    let nodes = root.items("nodes");
    let presence = nodes.iter().map(|node| presence(node).0);
    let problems = root.get("problems").as_array().is_some_and(|problems| !problems.is_empty());
    let own = if problems { Level::Critical } else { Level::Ok };
    let none = if nodes.is_empty() { Level::Unknown } else { Level::Ok };
    // The aggregator's own judgement, which also knows of workers, queues and loads.
    let said = nodes.iter().map(said).chain([said(root)]).flatten();
    firing.chain(presence).chain(said).chain([own, none]).max().unwrap_or(Level::Unknown)
}

/// The `state` of a place in the document, where it has one that says more than that it is not known.
fn said(place: &Place) -> Option<Level> {
    match place.text("state")? {
        "critical" => Some(Level::Critical),
        "warning" => Some(Level::Warning),
        "ok" => Some(Level::Ok),
        _ => None,
    }
}

fn severity(alert: &Place) -> Level {
    match alert.at("labels").text("severity") {
        Some("critical") => Level::Critical,
        Some("info" | "none") => Level::Ok,
        _ => Level::Warning,
    }
}

fn presence(node: &Place) -> (Level, Text) {
    match node.text("presence") {
        Some("live") => (Level::Ok, Text::Live),
        Some("stale") => (Level::Critical, Text::Stale),
        Some("never_seen") => (Level::Unknown, Text::NeverSeen),
        _ => (Level::Unknown, Text::Unknown),
    }
}

fn node_table(root: &Place, lang: Lang) -> Table {
    let mut table = Table::new("node", lang, NODES);
    for node in root.items("nodes") {
        let (level, word) = presence(&node);
        let workers = node.items("workers");
        let ready = workers.iter().filter(|worker| worker.get("ready").as_bool() == Some(true)).count();
        let simulated = node.get("simulated").as_bool() == Some(true);
        let total = node.number("memory_total_bytes");
        // What a silent node said last is not its present state.
        let why = node.text("presence").filter(|presence| *presence != "live").unwrap_or("not_yet");
        let number = |key: &str, say: &dyn Fn(f64) -> String| match node.get(key).as_f64() {
            Some(number) => Cell::new(node.get(key).clone(), say(number)),
            None => Cell::missing(why),
        };
        let gpus = node.items("gpus").len();
        table.push(vec![
            node.word("node"),
            Cell::state(node.get("presence").clone(), level, word.in_lang(lang)),
            Cell::new(simulated, ""),
            Cell::new(gpus, gpus.to_string()),
            Cell::new(ready, format!("{ready}/{}", workers.len())),
            Cell::new(workers.len(), ""),
            number("cpu_utilization_ratio", &percent),
            number("memory_used_bytes", &|used| memory(used, &total)),
            number("memory_total_bytes", &|total| total.to_string()),
            node.word("last_seen"),
            node.word("version"),
            number("frames_lost", &count),
            if simulated { Cell::text(Text::Simulated.in_lang(lang)) } else { Cell::new(Value::Null, "") },
        ]);
    }
    table
}

fn alert_table(alerts: &Value, common: &Common) -> Table {
    let lang = common.lang();
    let mut table = Table::new("alert", lang, ALERTS);
    for alert in Place::root(alerts).items("alerts") {
        let (labels, annotations) = (alert.at("labels"), alert.at("annotations"));
        let level = severity(&alert);
        let firing = alert.text("state") == Some("firing");
        let at = alert.text("activeAt").and_then(UnixMicros::from_rfc3339);
        let value =
            alert.text("value").and_then(|value| value.parse::<f64>().ok()).filter(|value| value.is_finite());
        let word = if firing { Text::Firing } else { Text::Pending };
        let shown = if firing { level } else { Level::Unknown };
        table.push(vec![
            Cell::state(labels.get("severity").clone(), level, labels.text("severity").unwrap_or("-")),
            Cell::state(alert.get("state").clone(), shown, word.in_lang(lang)),
            labels.word("alertname"),
            labels.word("node"),
            at.map_or_else(|| Cell::missing("failed"), |at| Cell::new(at.0, common.tz.date_time(at))),
            value.map_or_else(|| Cell::missing("failed"), |value| Cell::new(value, value.to_string())),
            annotations.word("summary"),
            Cell::new(object(&labels), ""),
            Cell::new(object(&annotations), ""),
        ]);
    }
    table
}

fn object(place: &Place) -> Value {
    if place.value().is_object() { place.value().clone() } else { json!({}) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fleet_is_as_well_as_its_worst_part() {
        let view = json!({ "nodes": [{ "node": "a", "presence": "live" }] });
        let alert = |severity: &str, state: &str| json!({ "alerts": [{ "state": state, "labels": { "severity": severity } }] });
        let of = |alerts: Value| level(&Place::root(&view), &alerts);
        assert_eq!(of(json!({})), Level::Ok);
        assert_eq!(of(alert("critical", "pending")), Level::Ok);
        assert_eq!(of(alert("warning", "firing")), Level::Warning);
        assert_eq!(of(alert("critical", "firing")), Level::Critical);
        let stale = json!({ "nodes": [{ "presence": "stale" }] });
        assert_eq!(level(&Place::root(&stale), &json!({})), Level::Critical);
        assert_eq!(level(&Place::root(&json!(null)), &json!(null)), Level::Unknown);
    }

    #[test]
    fn a_silent_node_has_reasons_instead_of_values() {
        let view = json!({ "nodes": [{ "node": "a", "presence": "stale", "cpu_utilization_ratio": null }] });
        let rows = node_table(&Place::root(&view), Lang::En).to_documents();
        assert_eq!(
            (&rows[0]["cpu_utilization_ratio"], &rows[0]["reasons"]["/cpu_utilization_ratio"]),
            (&Value::Null, &json!("stale"))
        );
    }
}
