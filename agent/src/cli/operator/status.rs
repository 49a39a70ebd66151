//! The status document as text for a terminal of 80 columns. Pure; what is not there is shown as
//! missing, never as 0, and nothing in the document can make it panic.

use diarwatch_shared::daemon::say;
use diarwatch_shared::exit::Exit;
use diarwatch_shared::texts::{Lang, Text};
use serde_json::{Value, json};

use super::common::{Common, Form};

/// Runs `diarwatch status`.
pub(super) fn run(common: &Common) -> Exit {
    match common.ask(&json!({ "ask": "status" })) {
        Ok(document) if common.form() == Form::Json => say(&document.to_string()),
        Ok(document) => say(&status(&document, common.lang())),
        Err(trouble) => return trouble.tell(),
    }
    Exit::Ok
}

/// One screen of a `status` document.
fn status(document: &Value, lang: Lang) -> String {
    let text = |text: Text| text.in_lang(lang);
    let mut lines = Vec::new();
    let simulated = document["simulated"].as_bool() == Some(true);
    let node = document["node"].as_str().unwrap_or("?");
    let version = document["version"].as_str().unwrap_or("?");
    lines.push(format!(
        "{node}  {} {version}{}",
        text(Text::Agent),
        if simulated { "  ■ SIMULATED" } else { "" }
    ));
    lines.push(link(document, lang));
    if simulated {
        lines.push(text(Text::SimulatedExplained).to_owned());
    }
    let host = &document["host"];
    let memory = memory(&host["memory_used_bytes"], &host["memory_total_bytes"], lang);
    lines.push(format!(
        "{} {}  {} {memory}",
        text(Text::Cpu),
        percent(&host["cpu_utilization_ratio"], lang),
        text(Text::Memory)
    ));
    lines.extend(driver(&document["driver"], lang));
    for gpu in document["gpus"].as_array().into_iter().flatten() {
        lines.push(gpu_line(gpu, lang));
    }
    let workers = document["workers"].as_array().map(Vec::as_slice).unwrap_or_default();
    if workers.is_empty() {
        lines.push(text(Text::NothingConfigured).to_owned());
    }
    lines.extend(workers.iter().map(|worker| worker_line(worker, lang)));
    lines.join("\n")
}

fn link(document: &Value, lang: Lang) -> String {
    let (link, spool) = (&document["link"], &document["spool"]);
    let endpoint = link["endpoint"].as_str().unwrap_or("-");
    let unsent = spool["frames_unacked"].as_u64().unwrap_or(0);
    let backlog = format!("{} {unsent}", Text::Backlog.in_lang(lang));
    let word = Text::Link.in_lang(lang);
    if link["connected"].as_bool() == Some(true) {
        return format!("● {word}: {endpoint} {}  {backlog}", Text::LinkUp.in_lang(lang));
    }
    let problem = link["problem"].as_str().unwrap_or("-");
    format!("■ {word}: {endpoint} {} ({problem})  {backlog}", Text::LinkDown.in_lang(lang))
}

fn driver(driver: &Value, lang: Lang) -> Option<String> {
    match driver["state"].as_str()? {
        "absent" => {
            Some(format!("▲ {}: {}", Text::NoDriver.in_lang(lang), driver["reason"].as_str().unwrap_or("-")))
        }
        "unresponsive" => {
            let function = driver["function"].as_str().unwrap_or("unknown");
            Some(format!("■ {}: {function}", Text::DriverUnresponsive.in_lang(lang)))
        }
        _ => None,
    }
}

fn gpu_line(gpu: &Value, lang: Lang) -> String {
    format!(
        "GPU {}  {}  {} {}  {}  {} W  {} °C",
        gpu["index"].as_u64().unwrap_or(0),
        gpu["name"].as_str().filter(|name| !name.is_empty()).unwrap_or("?"),
        percent(&gpu["utilization_ratio"], lang),
        Text::Memory.in_lang(lang),
        memory(&gpu["memory_used_bytes"], &gpu["memory_total_bytes"], lang),
        whole(&gpu["power_watts"], lang),
        whole(&gpu["temperature_celsius"], lang),
    )
}

fn worker_line(worker: &Value, lang: Lang) -> String {
    let (shape, word) = match worker["ready"].as_bool() {
        Some(true) => ("●", Text::Ready),
        Some(false) => ("■", Text::NotReady),
        None => ("▲", Text::Loading),
    };
    let pid = worker["pid"].as_u64().map_or_else(|| "-".to_owned(), |pid| pid.to_string());
    let mut line = format!(
        "{shape} {} ({})  {}  PID {pid}  {} {}",
        worker["service"].as_str().unwrap_or("?"),
        worker["worker"].as_str().unwrap_or("?"),
        word.in_lang(lang),
        Text::Restarts.in_lang(lang),
        worker["restarts"].as_u64().unwrap_or(0),
    );
    if let Some(reason) = worker["last_exit"].as_str() {
        line.push_str(&format!("  ({reason})"));
    }
    line
}

fn percent(value: &Value, lang: Lang) -> String {
    value.as_f64().map_or_else(|| missing(value, lang), |ratio| format!("{:.0}%", ratio * 100.0))
}

fn whole(value: &Value, lang: Lang) -> String {
    value.as_f64().map_or_else(|| missing(value, lang), |number| format!("{number:.0}"))
}

fn memory(used: &Value, total: &Value, lang: Lang) -> String {
    const GIB: f64 = 1_073_741_824.0;
    match (used.as_f64(), total.as_f64()) {
        (Some(used), Some(total)) => format!("{:.1}/{:.1} GiB", used / GIB, total / GIB),
        _ => missing(used, lang),
    }
}

fn missing(value: &Value, lang: Lang) -> String {
    format!("{}({})", Text::NoData.in_lang(lang), value["missing"].as_str().unwrap_or("?"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_missing_value_is_shown_with_its_reason_and_never_as_zero() {
        let document =
            json!({ "gpus": [{ "index": 0, "name": "X", "utilization_ratio": { "missing": "lost" } }] });
        let text = status(&document, Lang::En);
        assert!(text.contains("No data(lost)"), "{text}");
    }

    #[test]
    fn a_fake_gpu_says_so() {
        assert!(status(&json!({ "simulated": true }), Lang::Ja).contains("SIMULATED"));
        assert!(!status(&json!({ "simulated": false }), Lang::Ja).contains("SIMULATED"));
    }

    #[test]
    fn any_document_gives_some_text() {
        for document in [json!(null), json!([]), json!({ "workers": [1, null, {}], "gpus": "x" })] {
            assert!(!status(&document, Lang::Ja).is_empty());
        }
    }
}
