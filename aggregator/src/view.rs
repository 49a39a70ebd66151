//! What the page and `/api/v1/status` show, as one document: built from the store and the desk,
//! numbers in base units, `null` for what is not known. Pure.

use diarwatch_shared::clock::{UnixMicros, Zone};
use diarwatch_shared::event::What;
use diarwatch_shared::node::NodeId;
use diarwatch_shared::schema::SeriesKey;
use diarwatch_shared::texts::Lang;
use serde::Serialize;

use crate::alerts::{Alert, Phase};
use crate::computed::PRESENT;
use crate::desk::Kept;
use crate::notify::message::{self, Level};
use crate::store::{Memory, NodeState};

/// Version of the document.
pub const VIEW_SCHEMA: u16 = 1;
/// Lines of recent alerts.
pub const LINES_MAX: usize = 30;

/// Everything on the page.
#[derive(Clone, Debug, Serialize)]
pub struct View {
    schema: u16,
    kind: &'static str,
    /// When it was made, in the configured zone.
    pub updated: String,
    /// The nodes, by name.
    pub nodes: Vec<Node>,
    /// Recent alerts, newest first.
    pub alerts: Vec<Line>,
    /// What keeps the aggregator from its work, for a person.
    pub problems: Vec<String>,
}

/// Whether a node sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// Frames arrive.
    Live,
    /// They did.
    Stale,
    /// They never did.
    NeverSeen,
}

/// A node.
#[derive(Clone, Debug, Serialize)]
pub struct Node {
    /// Its name.
    pub node: String,
    /// Whether it sends.
    pub presence: Presence,
    /// Whether its GPU values come from a fake NVML.
    pub simulated: bool,
    /// Version of its agent.
    pub version: Option<String>,
    /// When its newest frame arrived, in the configured zone.
    pub last_seen: Option<String>,
    /// Whether its GPU driver answers.
    pub driver_up: Option<bool>,
    /// Part of the CPU time in use.
    pub cpu_utilization_ratio: Option<f64>,
    /// Memory in use, bytes.
    pub memory_used_bytes: Option<f64>,
    /// Memory, bytes.
    pub memory_total_bytes: Option<f64>,
    /// Its GPUs.
    pub gpus: Vec<Gpu>,
    /// Its workers.
    pub workers: Vec<Worker>,
    /// Newest epoch.
    pub epoch: Option<u64>,
    /// Frames of the newest epoch that are stored.
    pub epoch_frames: u64,
    /// Frames stored.
    pub frames_stored: u64,
    /// Frames that came again.
    pub frames_duplicate: u64,
    /// Frames that will never come.
    pub frames_lost: u64,
}

/// A GPU.
#[derive(Clone, Debug, Serialize)]
pub struct Gpu {
    /// Index at the driver.
    pub gpu: String,
    /// Identity.
    pub uuid: String,
    /// Product name.
    pub name: String,
    /// Part of the last sample period in which a kernel ran.
    pub utilization_ratio: Option<f64>,
    /// Memory in use, bytes.
    pub memory_used_bytes: Option<f64>,
    /// Memory, bytes.
    pub memory_total_bytes: Option<f64>,
    /// Power draw, watts.
    pub power_watts: Option<f64>,
    /// Temperature, degrees Celsius.
    pub temperature_celsius: Option<f64>,
}

/// A worker.
#[derive(Clone, Debug, Serialize)]
pub struct Worker {
    /// Its name on the node.
    pub worker: String,
    /// What people call it.
    pub service: String,
    /// Whether it takes jobs; `null` while it loads, or when the node does not send.
    pub ready: Option<bool>,
    /// Restarts since the agent started.
    pub restarts: Option<f64>,
    /// Its newest process.
    pub pid: Option<u32>,
}

/// One line of recent alerts.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// When, as a time of day in the configured zone.
    pub time: String,
    /// Shape of its level.
    pub shape: &'static str,
    /// Word of its level.
    pub level: &'static str,
    /// Class for the style sheet.
    pub class: &'static str,
    /// Whether the alert is firing still.
    pub firing: bool,
    /// What happened.
    pub text: String,
    /// On which node.
    pub node: String,
    /// What was done.
    pub action: Option<String>,
}

/// Builds the document.
#[must_use]
pub fn of(
    memory: &Memory,
    kept: &Kept,
    sending: impl Fn(&NodeId) -> bool,
    zone: &Zone,
    lang: Lang,
    now: UnixMicros,
) -> View {
    let nodes = memory
        .nodes
        .iter()
        .map(|(node, state)| one_node(memory, node, state, sending(node), zone, now))
        .collect();
    let mut problems: Vec<String> =
        memory.problem.iter().chain(&kept.problem).chain(&kept.outbox.problem).cloned().collect();
    problems.extend(kept.faults.iter().cloned());
    View {
        schema: VIEW_SCHEMA,
        kind: "fleet_status",
        updated: zone.date_time(now),
        nodes,
        alerts: lines(memory, kept, zone, lang),
        problems,
    }
}

fn one_node(
    memory: &Memory,
    node: &NodeId,
    state: &NodeState,
    sends: bool,
    zone: &Zone,
    now: UnixMicros,
) -> Node {
    // What a silent node said last is not its present state: no value is shown, only what there is.
    let since = if sends { now.minus(PRESENT).as_millis() } else { i64::MAX };
    let value = |metric| memory.head.newest(node, metric, since).next().map(|(_, value)| value);
    let facts = memory.head.newest(node, "gpu_info", if sends { since } else { i64::MIN });
    let facts: Vec<&SeriesKey> = facts.map(|(key, _)| key).collect();
    let presence = match state.last_arrival {
        None => Presence::NeverSeen,
        Some(_) if sends => Presence::Live,
        Some(_) => Presence::Stale,
    };
    Node {
        node: node.to_string(),
        presence,
        simulated: facts.iter().any(|key| label(key, "simulated") == "true"),
        version: state.version.clone(),
        last_seen: state.last_arrival.map(|at| zone.date_time(at)),
        driver_up: value("gpu_driver_up").map(|up| up > 0.0),
        cpu_utilization_ratio: value("host_cpu_utilization_ratio"),
        memory_used_bytes: value("host_memory_used_bytes"),
        memory_total_bytes: value("host_memory_total_bytes"),
        gpus: facts.into_iter().map(|key| gpu(memory, node, key, since)).collect(),
        workers: workers(memory, node, sends, since),
        epoch: state.epoch.map(|epoch| epoch.0),
        epoch_frames: state.epoch_frames,
        frames_stored: state.frames_stored,
        frames_duplicate: state.frames_duplicate,
        frames_lost: state.frames_lost,
    }
}

fn gpu(memory: &Memory, node: &NodeId, facts: &SeriesKey, since: i64) -> Gpu {
    let uuid = label(facts, "uuid");
    let value = |metric| {
        memory
            .head
            .newest(node, metric, since)
            .find(|(key, _)| label(key, "uuid") == uuid)
            .map(|(_, value)| value)
    };
    Gpu {
        gpu: label(facts, "gpu").to_owned(),
        uuid: uuid.to_owned(),
        name: label(facts, "name").to_owned(),
        utilization_ratio: value("gpu_utilization_ratio"),
        memory_used_bytes: value("gpu_memory_used_bytes"),
        memory_total_bytes: value("gpu_memory_total_bytes"),
        power_watts: value("gpu_power_watts"),
        temperature_celsius: value("gpu_temperature_celsius"),
    }
}

fn workers(memory: &Memory, node: &NodeId, sends: bool, since: i64) -> Vec<Worker> {
    let known = memory.head.newest(node, "worker_restarts_total", if sends { since } else { i64::MIN });
    let worker = |(facts, restarts): (&SeriesKey, f64)| {
        let name = label(facts, "worker");
        let same = |key: &SeriesKey| label(key, "worker") == name;
        let ready = memory
            .head
            .newest(node, "worker_ready", since)
            .find(|(key, _)| same(key))
            .map(|(_, ready)| ready > 0.0);
        let started = memory.events.iter().rev().filter(|stored| stored.node == *node);
        let pid = started.filter_map(|stored| match &stored.event.what {
            What::WorkerStarted { worker, pid } if worker.as_str() == name => Some(Some(*pid)),
            What::WorkerExited { worker, .. } if worker.as_str() == name => Some(None),
            _ => None,
        });
        Worker {
            worker: name.to_owned(),
            service: label(facts, "service").to_owned(),
            ready,
            restarts: sends.then_some(restarts),
            pid: pid.into_iter().next().flatten().filter(|_| sends),
        }
    };
    known.map(worker).collect()
}

fn label<'a>(key: &'a SeriesKey, name: &str) -> &'a str {
    key.labels.get(name).map_or("", String::as_str)
}

/// Every firing, and every recovery as a line of its own.
fn lines(memory: &Memory, kept: &Kept, zone: &Zone, lang: Lang) -> Vec<Line> {
    let mut lines = Vec::new();
    for alert in
        kept.alerts.active().chain(kept.alerts.resolved()).filter(|alert| alert.phase != Phase::Pending)
    {
        if let Some(at) = alert.fired_at {
            let fired = Alert { phase: Phase::Firing, ..alert.clone() };
            let action = message::action(&fired, &memory.events, lang);
            lines.push(line(&fired, at, alert.phase == Phase::Firing, action, zone, lang));
        }
        if let Some(at) = alert.resolved_at {
            let action = message::action(alert, &memory.events, lang);
            lines.push(line(alert, at, false, action, zone, lang));
        }
    }
    lines.sort_by_key(|line| std::cmp::Reverse(line.at_ms));
    lines.truncate(LINES_MAX);
    lines
}

fn line(
    alert: &Alert,
    at: UnixMicros,
    firing: bool,
    action: Option<String>,
    zone: &Zone,
    lang: Lang,
) -> Line {
    let level = Level::of(alert);
    let text = match level {
        Level::Ok => {
            format!("{}: {}", diarwatch_shared::texts::Text::Recovered.in_lang(lang), alert.summary())
        }
        _ => alert.summary().to_owned(),
    };
    let class = match level {
        Level::Critical => "critical",
        Level::Warning => "warning",
        Level::Ok => "ok",
    };
    Line {
        at_ms: at.as_millis(),
        time: zone.time_of_day(at),
        shape: level.shape(),
        level: level.word(lang),
        class,
        firing,
        text,
        node: alert.label("node").to_owned(),
        action,
    }
}
