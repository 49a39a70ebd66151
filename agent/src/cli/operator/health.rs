//! What is wrong with a node, worst first, and how well it is as a whole. Takes a status document; gives
//! words. Pure; what a document does not say is not known, never well.

use diarwatch_shared::exit::Exit;
use diarwatch_shared::texts::workers::Saying;
use diarwatch_shared::texts::{Lang, Text, fill};
use serde_json::Value;

use super::paint::Level;
use super::values::{Place, wait};
use super::{event_words, gpu, queue, worker};

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// How bad it is.
    pub(super) level: Level,
    /// What it is.
    pub(super) text: String,
}

/// How well the node is as a whole.
pub(super) fn level(document: &Value, findings: &[Finding]) -> Level {
    let root = Place::root(document);
    let link = link(&root);
    let known = if root.text("kind") == Some("status") { Level::Ok } else { Level::Unknown };
    findings.iter().map(|finding| finding.level).chain([link, known]).max().unwrap_or(Level::Unknown)
}

/// The exit of `status --exit-code`.
pub(super) fn exit(level: Level) -> Exit {
    match level {
        Level::Ok => Exit::Ok,
        Level::Warning => Exit::Warning,
        Level::Critical => Exit::Critical,
        Level::Unknown => Exit::Unknown,
    }
}

/// How well the link is.
pub(super) fn link(root: &Place) -> Level {
    match root.at("link").get("connected").as_bool() {
        Some(true) => Level::Ok,
        Some(false) => Level::Warning,
        None => Level::Unknown,
    }
}

/// Everything but the link, which has a line of its own; worst first.
pub(super) fn findings(document: &Value, lang: Lang) -> Vec<Finding> {
    let root = Place::root(document);
    let mut found = Vec::new();
    found.extend(root.text("config_problem").map(|problem| Finding {
        level: Level::Warning,
        text: format!("{}: {problem}", Text::ReloadRefused.in_lang(lang)),
    }));
    found.extend(driver(&root.at("driver"), lang));
    found.extend(root.items("gpus").iter().filter_map(gpu_finding));
    found.extend(root.items("gpus").iter().filter_map(|gpu| recovery_finding(gpu, lang)));
    found.extend(spool(&root.at("spool"), lang));
    found.extend(root.items("workers").iter().flat_map(|worker| worker_findings(worker, lang)));
    found.extend(root.items("queues").iter().filter_map(|queue| queue_finding(queue, lang)));
    found.extend(root.items("services").iter().filter_map(service));
    found.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    found
}

fn driver(driver: &Place, lang: Lang) -> Option<Finding> {
    let finding = |level, text: String| Some(Finding { level, text });
    match driver.text("state")? {
        "absent" => {
            let reason = driver.text("reason").unwrap_or("-");
            finding(Level::Warning, format!("{}: {reason}", Text::NoDriver.in_lang(lang)))
        }
        "unresponsive" => {
            let gpu = driver.get("gpu").as_u64().map_or_else(String::new, |gpu| format!(" (GPU {gpu})"));
            let function = driver.text("function").unwrap_or("unknown");
            finding(Level::Critical, format!("{}: {function}{gpu}", Text::DriverUnresponsive.in_lang(lang)))
        }
        "starting" => finding(Level::Unknown, Text::DriverStarting.in_lang(lang).to_owned()),
        _ => None,
    }
}

fn gpu_finding(gpu: &Place) -> Option<Finding> {
    let (word, level) = gpu::state(gpu);
    let index = gpu.get("index").as_u64().unwrap_or_default();
    (level != Level::Ok).then(|| Finding { level, text: format!("GPU {index}: {word}") })
}

/// The driver wants a GPU to be reset, or more.
fn recovery_finding(gpu: &Place, lang: Lang) -> Option<Finding> {
    let action = gpu.text("recovery_action").filter(|action| *action != "none")?;
    let index = gpu.get("index").as_u64().unwrap_or_default();
    let title = Text::EventGpuRecoveryAction.in_lang(lang);
    let text = format!("GPU {index}: {title}: {}", event_words::action(action, lang));
    Some(Finding { level: Level::Critical, text })
}

fn spool(spool: &Place, lang: Lang) -> Vec<Finding> {
    let problem = spool.text("problem").map(|problem| Finding {
        level: Level::Critical,
        text: format!("{}: {problem}", Text::Spool.in_lang(lang)),
    });
    let lost = spool.get("frames_lost").as_u64().filter(|lost| *lost > 0).map(|lost| Finding {
        level: Level::Warning,
        text: format!("{}: {} {lost}", Text::Spool.in_lang(lang), Text::FramesLost.in_lang(lang)),
    });
    problem.into_iter().chain(lost).collect()
}

/// What is wrong with a worker, and what a person did to it.
fn worker_findings(worker: &Place, lang: Lang) -> Vec<Finding> {
    let (level, word) = worker::level(worker);
    let service = worker.text("service").or(worker.text("worker")).unwrap_or("?");
    let say = |saying: Saying, value: &str| format!("{service} {}", fill(saying.in_lang(lang), &[&value]));
    let too_often = worker.get("breaker_open").as_bool() == Some(true);
    let next = worker.get("next_start_in_ms").as_f64().filter(|_| too_often);
    let of_phase = match (worker.text("phase"), worker.text("reason"), next) {
        (Some("left_alone"), reason, _) => say(Saying::LeftAloneFor, reason.unwrap_or("-")),
        (Some("unknown"), reason, _) => say(Saying::ManagerMute, reason.unwrap_or("-")),
        (Some("waiting"), _, Some(ms)) => say(Saying::TooOften, &wait(ms)),
        _ => {
            let verdict = worker.at("last_probe").text("verdict").filter(|verdict| *verdict != "ready");
            let why = worker.text("last_exit").filter(|_| verdict.is_none()).or(verdict);
            let why = why.map_or_else(String::new, |why| format!(" ({why})"));
            format!("{service} {}{why}", word.in_lang(lang))
        }
    };
    let mut found: Vec<Finding> =
        (level != Level::Ok).then_some(Finding { level, text: of_phase }).into_iter().collect();
    for (key, saying) in [("held_by", Saying::HeldByWhom), ("drained_by", Saying::DrainedByWhom)] {
        found.extend(worker.text(key).map(|by| Finding { level: Level::Warning, text: say(saying, by) }));
    }
    found
}

fn queue_finding(queue: &Place, lang: Lang) -> Option<Finding> {
    let (_, level, word) = queue::state(queue);
    let name = queue.text("queue").unwrap_or("?");
    let why = queue.text("problem").map_or_else(String::new, |problem| format!(": {problem}"));
    let text = format!("{} {name} {}{why}", Text::Queue.in_lang(lang), word.in_lang(lang));
    (level != Level::Ok).then_some(Finding { level, text })
}

fn service(service: &Place) -> Option<Finding> {
    let name = service.text("service").unwrap_or("?");
    let why = service.text("problem").unwrap_or("-");
    let down = service.get("up").as_bool() == Some(false);
    down.then(|| Finding { level: Level::Critical, text: format!("{name}: {why}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn well() -> Value {
        json!({
            "kind": "status", "driver": { "state": "up" }, "link": { "connected": true },
            "gpus": [{ "index": 0, "utilization_ratio": 0.1 }], "spool": { "frames_lost": 0 },
            "workers": [{ "service": "p", "phase": "ready", "ready": true }],
        })
    }

    fn judged(document: &Value) -> Exit {
        exit(level(document, &findings(document, Lang::En)))
    }

    #[test]
    fn the_exit_code_says_what_was_found() {
        assert_eq!(judged(&well()), Exit::Ok);
        let with = |pointer: &str, value: Value| {
            let mut document = well();
            *document.pointer_mut(pointer).unwrap() = value;
            judged(&document)
        };
        assert_eq!(with("/link/connected", json!(false)), Exit::Warning);
        assert_eq!(with("/workers/0/phase", json!("waiting")), Exit::Critical);
        assert_eq!(with("/driver/state", json!("unresponsive")), Exit::Critical);
        assert_eq!(with("/driver/state", json!("absent")), Exit::Warning);
        assert_eq!(with("/driver/state", json!("starting")), Exit::Unknown);
        assert_eq!(with("/spool/frames_lost", json!(3)), Exit::Warning);
        assert_eq!(with("/kind", json!("poem")), Exit::Unknown);
    }

    #[test]
    fn what_a_person_did_to_a_worker_and_what_is_left_alone_is_said_with_its_reason() {
        let with = |worker: Value| {
            let mut document = well();
            document["workers"][0] = worker;
            let found = findings(&document, Lang::En);
            found.into_iter().map(|finding| (finding.level, finding.text)).collect::<Vec<_>>()
        };
        let warning = |text: &str| vec![(Level::Warning, text.to_owned())];
        let held = json!({ "service": "p", "phase": "ready", "ready": true, "held_by": "alice" });
        assert_eq!(with(held), warning("p held by alice: the agent touches it no more"));
        let alone = json!({ "service": "p", "phase": "left_alone", "ready": false, "reason": "it was stopped by hand" });
        assert_eq!(with(alone), warning("p is left alone: it was stopped by hand"));
        let mute = json!({ "service": "p", "phase": "unknown", "ready": true, "reason": "no answer" });
        assert_eq!(with(mute), warning("p manager does not answer: no answer"));
        let often = json!({ "service": "p", "phase": "waiting", "ready": false, "breaker_open": true, "next_start_in_ms": 240_000 });
        assert_eq!(with(often), [(Level::Critical, "p restarted too often, next try in 4m00s".to_owned())]);
    }

    #[test]
    fn the_worst_is_said_first() {
        let mut document = well();
        document["driver"] = json!({ "state": "absent", "reason": "no library" });
        document["workers"][0]["phase"] = json!("waiting");
        let found = findings(&document, Lang::En);
        assert_eq!(
            found.iter().map(|finding| finding.level).collect::<Vec<_>>(),
            [Level::Critical, Level::Warning]
        );
    }

    proptest! {
        #[test]
        fn a_document_without_sense_is_never_well(text in "[\\[\\]{}\":a-z0-9, ]{0,40}") {
            let document: Value = serde_json::from_str(&text).unwrap_or_default();
            prop_assert_ne!(judged(&document), Exit::Ok);
        }
    }
}
