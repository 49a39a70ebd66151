//! The agent's documents as what is shown of them.
//!
//! Takes a `status` or `events` document of this or a neighbouring version; gives a [`View`], a list
//! of [`Event`]s. Pure. What is absent, of another type or too much is left out: no document panics,
//! and no missing number becomes 0.

use serde_json::Value;

use super::words;

/// Rows of one kind; an agent has fewer.
const ROWS_MAX: usize = 256;
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
    /// Its index, as the labels of its series say it.
    pub(super) index: String,
    pub(super) name: String,
    pub(super) utilization: Figure,
    pub(super) memory_used: Figure,
    pub(super) memory_total: Figure,
    pub(super) power: Figure,
    pub(super) temperature: Figure,
}

/// Where a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Ready,
    Loading,
    NotReady,
    /// No process; the next start waits.
    Waiting,
    Unknown,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Worker {
    pub(super) name: String,
    pub(super) service: String,
    pub(super) phase: Phase,
    pub(super) pid: Option<u64>,
    pub(super) restarts: Option<u64>,
    pub(super) next_start_in_ms: Option<u64>,
    pub(super) last_exit: Option<String>,
    pub(super) verdict: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Queue {
    pub(super) name: String,
    pub(super) estimated: bool,
    pub(super) growing: bool,
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
    pub(super) problem: Option<String>,
}

/// Something that happened, as far as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    pub(super) at_us: u64,
    /// `worker_exited`, or a kind of a later version.
    pub(super) kind: String,
    /// The worker it is about.
    pub(super) worker: Option<String>,
    /// What there is to add: a reason, a process, a function.
    pub(super) detail: String,
}

impl Default for Host {
    fn default() -> Self {
        let none = || Err(String::from(words::UNTOLD));
        Self { cpu: none(), memory_used: none(), memory_total: none() }
    }
}

/// Reads values by their place. The one reader of numbers: a missing one may be `{"missing": word}`
/// in its place, or `null` with its word under the same place in `reasons`.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a Value);

impl Reader<'_> {
    fn figure(self, place: &str) -> Figure {
        let found = self.0.pointer(place);
        if let Some(number) = found.and_then(Value::as_f64).filter(|number| number.is_finite()) {
            return Ok(number);
        }
        let in_place = found.and_then(|value| value.get("missing"));
        let aside = || self.0.get("reasons").and_then(|reasons| reasons.get(place));
        let word = in_place.or_else(aside).and_then(Value::as_str).filter(|word| !word.is_empty());
        Err(word.unwrap_or(words::UNTOLD).to_owned())
    }

    fn text(self, place: &str) -> Option<String> {
        let text = self.0.pointer(place)?.as_str()?;
        (!text.is_empty()).then(|| text.chars().take(TEXT_CHARS_MAX).collect())
    }

    fn whole(self, place: &str) -> Option<u64> {
        self.0.pointer(place)?.as_u64()
    }

    fn flag(self, place: &str) -> Option<bool> {
        self.0.pointer(place)?.as_bool()
    }

    /// One row for each element of a list, from its place.
    fn rows<T>(self, place: &str, row: impl Fn(Self, &str) -> T) -> Vec<T> {
        let count = self.0.pointer(place).and_then(Value::as_array).map_or(0, Vec::len).min(ROWS_MAX);
        (0..count).map(|at| row(self, &format!("{place}/{at}"))).collect()
    }
}

/// What a `status` document says.
pub(super) fn view(document: &Value) -> View {
    let read = Reader(document);
    View {
        node: read.text("/node").unwrap_or_else(|| String::from("?")),
        version: read.text("/version").unwrap_or_default(),
        simulated: read.flag("/simulated") == Some(true),
        driver: driver(read),
        host: Host {
            cpu: read.figure("/host/cpu_utilization_ratio"),
            memory_used: read.figure("/host/memory_used_bytes"),
            memory_total: read.figure("/host/memory_total_bytes"),
        },
        gpus: read.rows("/gpus", gpu),
        workers: read.rows("/workers", worker),
        queues: read.rows("/queues", queue),
        link: Link {
            connected: read.flag("/link/connected"),
            endpoint: read.text("/link/endpoint"),
            problem: read.text("/link/problem"),
            round_trip_ms: read.figure("/link/round_trip_ms").ok(),
        },
        spool: Spool {
            bytes: read.whole("/spool/bytes"),
            unacked: read.whole("/spool/frames_unacked"),
            problem: read.text("/spool/problem"),
        },
    }
}

fn driver(read: Reader) -> Driver {
    let text = |place: &str| read.text(place).unwrap_or_default();
    match text("/driver/state").as_str() {
        "starting" => Driver::Starting,
        "disabled" => Driver::Disabled,
        "absent" => Driver::Absent(text("/driver/reason")),
        "up" => Driver::Up(text("/driver/version")),
        "unresponsive" => {
            let on = read.whole("/driver/gpu").map_or_else(String::new, |gpu| format!(" (GPU {gpu})"));
            Driver::Unresponsive(format!("{}{on}", text("/driver/function")))
        }
        _ => Driver::Untold,
    }
}

fn gpu(read: Reader, place: &str) -> Gpu {
    let figure = |key: &str| read.figure(&format!("{place}/{key}"));
    Gpu {
        index: read
            .whole(&format!("{place}/index"))
            .map_or_else(|| String::from("?"), |index| index.to_string()),
        name: read.text(&format!("{place}/name")).unwrap_or_else(|| String::from("?")),
        utilization: figure("utilization_ratio"),
        memory_used: figure("memory_used_bytes"),
        memory_total: figure("memory_total_bytes"),
        power: figure("power_watts"),
        temperature: figure("temperature_celsius"),
    }
}

fn worker(read: Reader, place: &str) -> Worker {
    let text = |key: &str| read.text(&format!("{place}/{key}"));
    let whole = |key: &str| read.whole(&format!("{place}/{key}"));
    let name = text("worker").unwrap_or_else(|| String::from("?"));
    Worker {
        service: text("service").unwrap_or_else(|| name.clone()),
        name,
        phase: phase(text("phase").as_deref(), read.flag(&format!("{place}/ready"))),
        pid: whole("pid"),
        restarts: whole("restarts"),
        next_start_in_ms: whole("next_start_in_ms"),
        last_exit: text("last_exit"),
        verdict: text("last_probe/verdict"),
    }
}

/// The phase by its word; readiness alone when the word is of a later version.
fn phase(word: Option<&str>, ready: Option<bool>) -> Phase {
    match (word, ready) {
        (Some("ready"), _) | (_, Some(true)) => Phase::Ready,
        (Some("starting"), _) => Phase::Loading,
        (Some("waiting"), _) => Phase::Waiting,
        (Some("not_ready"), _) | (_, Some(false)) => Phase::NotReady,
        _ => Phase::Unknown,
    }
}

fn queue(read: Reader, place: &str) -> Queue {
    let figure = |key: &str| read.figure(&format!("{place}/{key}"));
    let flag = |key: &str| read.flag(&format!("{place}/{key}")) == Some(true);
    Queue {
        name: read.text(&format!("{place}/queue")).unwrap_or_else(|| String::from("?")),
        estimated: flag("estimated"),
        growing: flag("growing"),
        problem: read.text(&format!("{place}/problem")),
        waiting: figure("waiting"),
        processing: figure("processing"),
        oldest: figure("oldest_seconds"),
        mean: figure("job_mean_seconds"),
        rate: figure("completed_per_minute"),
        drain: figure("drain_seconds"),
    }
}

/// What an `events` document says, in its order.
pub(super) fn events(document: &Value) -> Vec<Event> {
    let listed = document.get("events").and_then(Value::as_array).into_iter().flatten();
    listed.take(ROWS_MAX).filter_map(event).collect()
}

fn event(event: &Value) -> Option<Event> {
    let read = Reader(event);
    let at_us = read.whole("/at")?;
    let mut detail = Vec::new();
    detail.extend(["/reason", "/function", "/agent_version"].iter().filter_map(|place| read.text(place)));
    detail.extend(read.whole("/pid").map(|pid| format!("PID {pid}")));
    detail.extend(read.whole("/gpu").map(|gpu| format!("GPU {gpu}")));
    detail.extend(read.whole("/load_ms").map(words::milliseconds));
    Some(Event {
        at_us,
        kind: read.text("/kind").unwrap_or_else(|| String::from("?")),
        worker: read.text("/worker"),
        detail: detail.join("  "),
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
            assert_eq!(view.gpus[0].temperature, Err(words::UNTOLD.into()), "absent is told too");
        }
        assert_eq!(view(&json!({ "gpus": [{ "power_watts": 0 }] })).gpus[0].power, Ok(0.0));
    }

    #[test]
    fn the_phase_is_told_by_its_word_and_by_readiness_when_the_word_is_new() {
        assert_eq!(phase(Some("waiting"), Some(false)), Phase::Waiting);
        assert_eq!(phase(Some("levitating"), Some(false)), Phase::NotReady);
        assert_eq!(phase(Some("starting"), None), Phase::Loading);
        assert_eq!(phase(None, Some(true)), Phase::Ready);
        assert_eq!(phase(None, None), Phase::Unknown);
    }

    #[test]
    fn an_event_of_a_later_version_is_kept_by_its_name() {
        let document = json!({ "events": [{ "at": 5, "kind": "worker_levitated", "worker": "w" }, 7, {}] });
        let events = events(&document);
        assert_eq!((events.len(), events[0].kind.as_str()), (1, "worker_levitated"));
        assert_eq!(events[0].worker.as_deref(), Some("w"));
    }
}
