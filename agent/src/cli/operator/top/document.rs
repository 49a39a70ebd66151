//! The agent's documents as what is shown of them.
//!
//! Takes a `status` or `events` document of this or a neighbouring version; gives a [`View`], a list
//! of [`Event`]s. Pure; how well something is, and its word, are those of the other commands. What is absent, of another type or too much is left out: no document panics,
//! and no missing number becomes 0.

use diarwatch_shared::texts::{Lang, Text};
use serde_json::{Map, Value};

use crate::cli::operator::paint::Level;
use crate::cli::operator::values::Place;
use crate::cli::operator::{event_words, gpu, queue, worker};

/// Rows of one kind; an agent has fewer.
const ROWS_MAX: usize = 256;
/// Stands for a reason that was not told.
pub(super) const UNTOLD: &str = "unknown";
/// Characters of a text; a screen has fewer.
const TEXT_CHARS_MAX: usize = 500;

/// A number, or the word why there is none.
pub(super) type Figure = Result<f64, String>;

/// What is known of the node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct View {
    pub(super) node: String,
    pub(super) version: String,
    pub(super) simulated: bool,
    pub(super) driver: Driver,
    pub(super) host: Host,
    pub(super) gpus: Vec<Gpu>,
    pub(super) workers: Vec<Worker>,
    pub(super) queues: Vec<Queue>,
    pub(super) link: Link,
    pub(super) spool: Spool,
}

/// The GPU driver.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Driver {
    /// Nothing is said of it, or something of a later version.
    #[default]
    Untold,
    Starting,
    Disabled,
    Absent(String),
    Up(String),
    Unresponsive(String),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Host {
    pub(super) cpu: Figure,
    pub(super) memory_used: Figure,
    pub(super) memory_total: Figure,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Gpu {
    pub(super) level: Level,
    /// Its index, as the labels of its series say it.
    pub(super) index: String,
    pub(super) name: String,
    pub(super) utilization: Figure,
    pub(super) memory_used: Figure,
    pub(super) memory_total: Figure,
    pub(super) power: Figure,
    pub(super) temperature: Figure,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Worker {
    pub(super) name: String,
    pub(super) service: String,
    pub(super) level: Level,
    pub(super) word: Text,
    /// Whether it has no process and waits for its next start.
    pub(super) waits: bool,
    pub(super) pid: Option<u64>,
    pub(super) restarts: Option<u64>,
    pub(super) next_start_in_ms: Option<u64>,
    pub(super) last_exit: Option<String>,
    pub(super) verdict: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Queue {
    pub(super) name: String,
    pub(super) level: Level,
    pub(super) word: Text,
    pub(super) estimated: bool,
    pub(super) problem: Option<String>,
    pub(super) waiting: Figure,
    pub(super) processing: Figure,
    pub(super) oldest: Figure,
    pub(super) mean: Figure,
    pub(super) rate: Figure,
    pub(super) drain: Figure,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Link {
    pub(super) connected: Option<bool>,
    pub(super) endpoint: Option<String>,
    pub(super) problem: Option<String>,
    pub(super) round_trip_ms: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Spool {
    pub(super) bytes: Option<u64>,
    pub(super) unacked: Option<u64>,
}

/// Something that happened, in words.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    pub(super) at_us: u64,
    pub(super) level: Level,
    /// What; the name of a kind of a later version.
    pub(super) word: String,
    /// The worker it is about.
    pub(super) worker: Option<String>,
    /// What there is to add: a reason, a process, a time.
    pub(super) detail: String,
}

impl Default for Host {
    fn default() -> Self {
        let none = || Err(String::from(UNTOLD));
        Self { cpu: none(), memory_used: none(), memory_total: none() }
    }
}

/// A number. The one reader of them: a missing one may be `null` with its reason under the same place in
/// `reasons`, or `{"missing": reason}` in its place.
fn figure(place: &Place, key: &str) -> Figure {
    let in_place = || place.get(key).get("missing").and_then(Value::as_str).map(str::to_owned);
    place.number(key).map_err(|why| in_place().unwrap_or(why))
}

fn text(place: &Place, key: &str) -> Option<String> {
    place.text(key).map(|text| text.chars().take(TEXT_CHARS_MAX).collect())
}

/// What a `status` document says.
pub(super) fn view(document: &Value) -> View {
    let root = Place::root(document);
    let (host, link, spool) = (root.at("host"), root.at("link"), root.at("spool"));
    View {
        node: text(&root, "node").unwrap_or_else(|| String::from("?")),
        version: text(&root, "version").unwrap_or_default(),
        simulated: root.get("simulated").as_bool() == Some(true),
        driver: driver(&root.at("driver")),
        host: Host {
            cpu: figure(&host, "cpu_utilization_ratio"),
            memory_used: figure(&host, "memory_used_bytes"),
            memory_total: figure(&host, "memory_total_bytes"),
        },
        gpus: root.items("gpus").iter().take(ROWS_MAX).map(gpu_row).collect(),
        workers: root.items("workers").iter().take(ROWS_MAX).map(worker_row).collect(),
        queues: root.items("queues").iter().take(ROWS_MAX).map(queue_row).collect(),
        link: Link {
            connected: link.get("connected").as_bool(),
            endpoint: text(&link, "endpoint"),
            problem: text(&link, "problem"),
            round_trip_ms: link.get("round_trip_ms").as_f64(),
        },
        spool: Spool { bytes: spool.get("bytes").as_u64(), unacked: spool.get("frames_unacked").as_u64() },
    }
}

fn driver(driver: &Place) -> Driver {
    let text = |key: &str| text(driver, key).unwrap_or_default();
    match driver.text("state").unwrap_or_default() {
        "starting" => Driver::Starting,
        "disabled" => Driver::Disabled,
        "absent" => Driver::Absent(text("reason")),
        "up" => Driver::Up(text("version")),
        "unresponsive" => {
            let on = driver.get("gpu").as_u64().map_or_else(String::new, |gpu| format!(" (GPU {gpu})"));
            Driver::Unresponsive(format!("{}{on}", text("function")))
        }
        _ => Driver::Untold,
    }
}

fn gpu_row(place: &Place) -> Gpu {
    let index = place.get("index").as_u64();
    Gpu {
        level: gpu::state(place).1,
        index: index.map_or_else(|| String::from("?"), |index| index.to_string()),
        name: text(place, "name").unwrap_or_else(|| String::from("?")),
        utilization: figure(place, "utilization_ratio"),
        memory_used: figure(place, "memory_used_bytes"),
        memory_total: figure(place, "memory_total_bytes"),
        power: figure(place, "power_watts"),
        temperature: figure(place, "temperature_celsius"),
    }
}

fn worker_row(place: &Place) -> Worker {
    let (level, word) = worker::level(place);
    let name = text(place, "worker").unwrap_or_else(|| String::from("?"));
    Worker {
        level,
        word,
        waits: place.text("phase") == Some("waiting"),
        service: text(place, "service").unwrap_or_else(|| name.clone()),
        name,
        pid: place.get("pid").as_u64(),
        restarts: place.get("restarts").as_u64(),
        next_start_in_ms: place.get("next_start_in_ms").as_u64(),
        last_exit: text(place, "last_exit"),
        // Why it is left alone, or nothing is known of it, goes before what its probe saw.
        verdict: text(place, "reason").or_else(|| text(&place.at("last_probe"), "verdict")),
    }
}

fn queue_row(place: &Place) -> Queue {
    let (_, level, word) = queue::state(place);
    Queue {
        name: text(place, "queue").unwrap_or_else(|| String::from("?")),
        level,
        word,
        estimated: place.get("estimated").as_bool() == Some(true),
        problem: text(place, "problem"),
        waiting: figure(place, "waiting"),
        processing: figure(place, "processing"),
        oldest: figure(place, "oldest_seconds"),
        mean: figure(place, "job_mean_seconds"),
        rate: figure(place, "completed_per_minute"),
        drain: figure(place, "drain_seconds"),
    }
}

/// What an `events` document says, in its order.
pub(super) fn events(document: &Value, lang: Lang) -> Vec<Event> {
    let listed = document.get("events").and_then(Value::as_array).into_iter().flatten();
    listed.take(ROWS_MAX).filter_map(|event| event_row(event, lang)).collect()
}

fn event_row(event: &Value, lang: Lang) -> Option<Event> {
    let place = Place::root(event);
    let named = ["at", "kind", "version", "worker", "gpu"];
    let rest = event.as_object()?.iter().filter(|(key, _)| !named.contains(&key.as_str()));
    let rest: Map<String, Value> = rest.map(|(key, value)| (key.clone(), value.clone())).collect();
    let (level, word) = event_words::judged(place.text("kind").unwrap_or("?"), &rest, lang);
    let detail = event_words::say(&rest, event.get("gpu"), lang);
    Some(Event {
        at_us: place.get("at").as_u64()?,
        level,
        word: word.chars().take(TEXT_CHARS_MAX).collect(),
        worker: text(&place, "worker"),
        detail: detail.chars().take(TEXT_CHARS_MAX).collect(),
    })
}

impl Gpu {
    /// The reason when no value of it is known.
    pub(super) fn gone(&self) -> Option<&str> {
        let figures = [&self.utilization, &self.memory_used, &self.power, &self.temperature];
        let known = figures.iter().any(|figure| figure.is_ok());
        self.utilization.as_ref().err().filter(|_| !known).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_missing_number_keeps_its_reason_in_either_form_and_is_never_zero() {
        let in_place = json!({ "gpus": [{ "power_watts": { "missing": "lost" } }] });
        let aside =
            json!({ "gpus": [{ "power_watts": null }], "reasons": { "/gpus/0/power_watts": "lost" } });
        for document in [in_place, aside] {
            let view = view(&document);
            assert_eq!(view.gpus[0].power, Err("lost".into()));
            assert_eq!(view.gpus[0].temperature, Err(UNTOLD.into()), "absent is told too");
        }
        assert_eq!(view(&json!({ "gpus": [{ "power_watts": 0 }] })).gpus[0].power, Ok(0.0));
    }

    #[test]
    fn an_event_of_a_later_version_is_kept_by_its_name() {
        let document = json!({ "events": [{ "at": 5, "kind": "worker_levitated", "worker": "w" }, 7, {}] });
        let events = events(&document, Lang::Ja);
        assert_eq!((events.len(), events[0].word.as_str()), (1, "worker levitated"));
        assert_eq!(events[0].worker.as_deref(), Some("w"));
    }
}
