//! Events of an agent as people read them: how bad a kind is and what it is called, and what is known
//! beside it. Pure; a kind or a field of a later version is shown by its own name.

use diarwatch_shared::texts::workers::Saying;
use diarwatch_shared::texts::{Lang, Text, fill};
use serde_json::{Map, Value};

use super::paint::Level;
use super::values::{gib, wait};
use super::why;

/// Ids of jobs that are shown in a line.
const JOBS_SHOWN: usize = 5;

/// How bad a kind of event is, and what people call it; a kind of a later version by its name.
fn word(kind: &str, lang: Lang) -> (Level, String) {
    let (level, text) = match kind {
        "agent_started" => (Level::Ok, Text::EventAgentStarted),
        "worker_started" => (Level::Ok, Text::EventWorkerStarted),
        "worker_ready" => (Level::Ok, Text::EventWorkerReady),
        "worker_not_ready" => (Level::Warning, Text::EventWorkerNotReady),
        "worker_start_overdue" => (Level::Warning, Text::EventWorkerStartOverdue),
        "worker_exited" => (Level::Critical, Text::EventWorkerExited),
        "worker_adopted" => (Level::Ok, Text::EventWorkerAdopted),
        "worker_stopping" => (Level::Warning, Text::EventWorkerStopping),
        "worker_left_alone" => (Level::Warning, Text::EventWorkerLeftAlone),
        "worker_breaker_open" => (Level::Critical, Text::EventWorkerBreakerOpen),
        "worker_stable" => (Level::Ok, Text::EventWorkerStable),
        "worker_leftover" => (Level::Critical, Text::EventWorkerLeftover),
        "worker_trouble" => (Level::Warning, Text::EventWorkerTrouble),
        "worker_jobs_lost" => (Level::Warning, Text::EventWorkerJobsLost),
        "worker_job_set_aside" => (Level::Warning, Text::EventWorkerJobSetAside),
        "worker_order" => (Level::Ok, Text::EventWorkerOrder),
        "worker_evidence" => (Level::Ok, Text::EventWorkerEvidence),
        "gpu_driver_unresponsive" => (Level::Critical, Text::DriverUnresponsive),
        "gpu_driver_recovered" => (Level::Ok, Text::EventDriverRecovered),
        "gpu_driver_absent" => (Level::Warning, Text::NoDriver),
        "gpu_xid" => (Level::Warning, Text::EventGpuXid),
        "gpu_recovery_action" => (Level::Warning, Text::EventGpuRecoveryAction),
        other => return (Level::Unknown, other.replace('_', " ")),
    };
    (level, text.in_lang(lang).to_owned())
}

/// The same of an event, whose fields may make it less bad or worse than its kind.
pub(super) fn judged(kind: &str, fields: &Map<String, Value>, lang: Lang) -> (Level, String) {
    let (level, word) = word(kind, lang);
    let refused = kind == "worker_order" && fields.get("refused").is_some_and(Value::is_string);
    // Attempt 0 is none: a person ended it.
    let by_hand = kind == "worker_exited" && fields.get("attempt").and_then(Value::as_u64) == Some(0);
    (if refused || by_hand { Level::Warning } else { level }, word)
}

/// What else is known of an event: its reason first, then numbers with their names.
pub(super) fn say(detail: &Map<String, Value>, gpu: Option<&Value>, lang: Lang) -> String {
    let reason = detail.get("reason").and_then(Value::as_str).map(str::to_owned);
    let gpu = gpu.map(|gpu| format!("GPU {gpu}"));
    // Attempt 0 of an end is none: it is left so, and there is no wait.
    let left_so = detail.get("attempt").and_then(Value::as_u64) == Some(0);
    let shown = |key: &str| key != "reason" && !(left_so && key == "restart_in_ms");
    let rest =
        detail.iter().filter(|(key, _)| shown(key)).map(|(key, value)| match (key.as_str(), left_so) {
            ("attempt", true) => Saying::NotStartedAgain.in_lang(lang).to_owned(),
            (key, _) => field(key, value, lang)
                .or_else(|| of_worker(key, value, lang))
                .unwrap_or_else(|| format!("{key} {}", plain(value))),
        });
    reason.into_iter().chain(gpu).chain(rest).filter(|said| !said.is_empty()).collect::<Vec<_>>().join("  ")
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A field that several kinds have.
fn field(key: &str, value: &Value, lang: Lang) -> Option<String> {
    let text = plain(value);
    let ms = value.as_f64().map(wait).unwrap_or_default();
    Some(match key {
        "pid" => format!("PID {text}"),
        "load_ms" => format!("{} {ms}", Text::LoadTime.in_lang(lang)),
        "down_ms" => format!("{} {ms}", Text::DownTime.in_lang(lang)),
        "waited_ms" => format!("{} {ms}", Text::WaitedTime.in_lang(lang)),
        "restart_in_ms" => format!("{} {ms}", Text::NextStart.in_lang(lang)),
        "attempt" => format!("{} {text}", Text::Restarts.in_lang(lang)),
        "agent_version" | "text" | "uuid" | "advice" | "outcome" | "verb" => text,
        "code" => format!("XID {text}"),
        "action" => action(&text, lang),
        _ => return None,
    })
}

/// A field of what happens to workers.
fn of_worker(key: &str, value: &Value, lang: Lang) -> Option<String> {
    let say = |saying: Saying| Some(fill(saying.in_lang(lang), &[&plain(value)]));
    let time =
        |saying: Saying| Some(fill(saying.in_lang(lang), &[&value.as_f64().map(wait).unwrap_or_default()]));
    match key {
        "cause" => Some(why::cause(value, lang)),
        "age_ms" => time(Saying::RunsFor),
        "ready_ms" => time(Saying::ReadyFor),
        "next_try_in_ms" => time(Saying::NextTry),
        "restarts" => say(Saying::RestartsWere),
        "restart" => say(Saying::RestartNumber),
        "trouble" => Some(plain(value).replace('_', " ")),
        "by" => say(Saying::By),
        "refused" => say(Saying::Refused),
        "job" => say(Saying::JobOf),
        "kills" => say(Saying::Kills),
        "resubmitted" => say(Saying::Resubmitted),
        "pids" if value.as_array().is_some_and(Vec::is_empty) => Some(String::new()),
        "pids" => Some(fill(Saying::LeftProcesses.in_lang(lang), &[&list(value, usize::MAX)])),
        "gpu_memory_bytes" if value.as_f64() == Some(0.0) => Some(String::new()),
        "gpu_memory_bytes" => {
            let held = format!("{} GiB", gib(value.as_f64().unwrap_or_default()));
            Some(fill(Saying::LeftMemory.in_lang(lang), &[&held]))
        }
        "count" => say(Saying::JobsWere),
        "jobs" => Some(list(value, JOBS_SHOWN)),
        "bundle" => Some(bundle(value, lang)),
        _ => None,
    }
}

fn list(value: &Value, most: usize) -> String {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let more = if items.len() > most { " ..." } else { "" };
    let shown: Vec<String> = items.iter().take(most).map(plain).collect();
    format!("{}{more}", shown.join(", "))
}

/// How a process ended and how much is known of it, in a line.
fn bundle(bundle: &Value, lang: Lang) -> String {
    let count = |key: &str| bundle.get(key).and_then(Value::as_array).map_or(0, Vec::len);
    let counts = (count("lines"), count("probes"), count("jobs"), count("gpus"));
    let has = Saying::EvidenceHas.in_lang(lang);
    let has = fill(has, &[&counts.0, &counts.1, &counts.2, &counts.3]);
    let exit = bundle.pointer("/exit/reason").and_then(Value::as_str);
    let cause = bundle.get("cause").filter(|cause| cause.is_string()).map(|cause| why::cause(cause, lang));
    exit.map(str::to_owned).into_iter().chain(cause).chain([has]).collect::<Vec<_>>().join("  ")
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
    use diarwatch_shared::clock::UnixMicros;
    use diarwatch_shared::event::{Cause, Event, What};
    use diarwatch_shared::node::WorkerId;
    use serde_json::json;

    #[test]
    fn an_error_of_a_gpu_says_what_it_calls_for() {
        let detail =
            json!({ "code": 79, "pid": 7, "action": "reboot", "text": "GPU has fallen off the bus" });
        let said = |lang| say(detail.as_object().unwrap(), Some(&json!(0)), lang);
        assert_eq!(said(Lang::En), "GPU 0  reboot the node  XID 79  PID 7  GPU has fallen off the bus");
        assert!(said(Lang::Ja).contains("ノードの再起動"), "{}", said(Lang::Ja));
        assert_eq!(action("pray", Lang::En), "pray");
    }

    /// One of each kind that is about a worker.
    fn each() -> Vec<What> {
        let worker = || WorkerId::new("w").unwrap();
        let text = |text: &str| text.to_owned();
        let bundle = json!({ "exit": { "reason": "signal 9 (SIGKILL)" }, "cause": "exited", "lines": [[1, "x"]], "jobs": [] });
        vec![
            What::WorkerStarted { worker: worker(), pid: 7 },
            What::WorkerReady { worker: worker(), load_ms: 41_000, down_ms: Some(43_000) },
            What::WorkerNotReady { worker: worker(), reason: text("loading") },
            What::WorkerStartOverdue { worker: worker(), reason: text("loading"), waited_ms: 300_000 },
            What::WorkerExited {
                worker: worker(),
                pid: Some(7),
                reason: text("exit code 1"),
                attempt: 1,
                restart_in_ms: 700,
            },
            What::WorkerAdopted { worker: worker(), pid: 7, age_ms: 3_600_000 },
            What::WorkerStopping { worker: worker(), pid: 7, cause: Cause::Wedged, reason: text("silent") },
            What::WorkerLeftAlone { worker: worker(), reason: text("it was stopped by hand") },
            What::WorkerBreakerOpen {
                worker: worker(),
                restarts: 3,
                next_try_in_ms: 300_000,
                reason: text("exit code 1"),
            },
            What::WorkerStable { worker: worker(), ready_ms: 1_800_000 },
            What::WorkerLeftover {
                worker: worker(),
                pids: vec![7, 8],
                gpu_memory_bytes: 2 << 30,
                advice: text("reboot"),
            },
            What::WorkerTrouble {
                worker: worker(),
                trouble: text("cuda_out_of_memory"),
                text: text("OutOfMemoryError"),
            },
            What::WorkerJobsLost {
                worker: worker(),
                jobs: vec![text("a"), text("b")],
                count: 3,
                resubmitted: 2,
            },
            What::WorkerJobSetAside {
                worker: worker(),
                job: text("7f3a"),
                kills: 2,
                outcome: text("set aside"),
            },
            What::WorkerOrder {
                worker: worker(),
                verb: text("restart"),
                by: text("alice (uid 1000)"),
                reason: Some(text("new model")),
                refused: None,
            },
            What::WorkerEvidence { worker: worker(), restart: 4, bundle },
        ]
    }

    fn told(what: &What, lang: Lang) -> (Level, String, String) {
        let event = serde_json::to_value(Event::new(UnixMicros(1), what.clone())).unwrap();
        let named = ["at", "kind", "version", "worker", "gpu"];
        let fields = event.as_object().unwrap();
        let detail = fields.iter().filter(|(key, _)| !named.contains(&key.as_str()));
        let detail: Map<String, Value> = detail.map(|(key, value)| (key.clone(), value.clone())).collect();
        let (level, word) = judged(event["kind"].as_str().unwrap(), &detail, lang);
        (level, word, say(&detail, None, lang))
    }

    #[test]
    fn every_kind_about_a_worker_has_a_word_and_no_field_is_shown_by_its_key() {
        for what in each() {
            for lang in [Lang::Ja, Lang::En] {
                let (level, word, said) = told(&what, lang);
                assert_ne!(level, Level::Unknown, "{what:?} has no word");
                assert!(!word.is_empty() && !said.is_empty(), "{what:?}");
                assert!(!said.contains('_') && !said.contains('{'), "{said}");
                let japanese = word.chars().any(|c| c > '\u{3000}');
                assert_eq!(japanese, lang == Lang::Ja, "{word}");
            }
        }
    }

    #[test]
    fn what_happened_to_a_worker_is_said_in_a_line() {
        let en = |what: &What| told(what, Lang::En).2;
        let worker = WorkerId::new("w").unwrap();
        let stopped = What::WorkerExited {
            worker: worker.clone(),
            pid: None,
            reason: "exit code 0".into(),
            attempt: 0,
            restart_in_ms: 0,
        };
        assert_eq!(en(&stopped), "exit code 0  not started again");
        assert_eq!(told(&stopped, Lang::En).0, Level::Warning);
        let jobs = What::WorkerJobsLost {
            worker: worker.clone(),
            jobs: vec!["a".into(), "b".into()],
            count: 3,
            resubmitted: 2,
        };
        assert_eq!(en(&jobs), "3 jobs  a, b  2 given back");
        let stopping = What::WorkerStopping { worker, pid: 7, cause: Cause::Wedged, reason: "silent".into() };
        assert_eq!(en(&stopping), "silent  it hangs  PID 7");
        let evidence = each().pop().unwrap();
        assert_eq!(
            en(&evidence),
            "signal 9 (SIGKILL)  its process ended  1 lines of output, 0 probes, 0 jobs, 0 GPUs  restart #4"
        );
    }

    #[test]
    fn an_event_of_a_later_version_is_shown_by_its_name() {
        assert_eq!(word("worker_levitated", Lang::Ja), (Level::Unknown, "worker levitated".to_owned()));
        let detail = json!({ "height": 3, "reason": "magic" });
        assert_eq!(say(detail.as_object().unwrap(), None, Lang::En), "magic  height 3");
    }
}
