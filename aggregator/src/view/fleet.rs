//! Nodes with their GPUs and workers, as far as they are known. Pure.

use std::time::Duration;

use diarwatch_shared::event::What;
use diarwatch_shared::node::NodeId;
use diarwatch_shared::schema::SeriesKey;
use serde::Serialize;

use super::Sources;
use super::queue::{self, Queue};
use super::state::{GPU_MEMORY, GPU_UTILIZATION, State};
use crate::computed::PRESENT;
use crate::store::NodeState;

/// Over which a GPU's utilisation is averaged before it counts as high: a single kernel is no load.
const LOAD_OVER: Duration = Duration::from_secs(10);

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

impl Presence {
    /// How a node of this presence stands, as far as its presence goes.
    #[must_use]
    pub fn state(self) -> State {
        match self {
            Self::Live => State::Ok,
            Self::Stale => State::Critical,
            Self::NeverSeen => State::Unknown,
        }
    }
}

/// A node.
#[derive(Clone, Debug, Serialize)]
pub struct Node {
    /// Its name.
    pub node: String,
    /// Whether it sends.
    pub presence: Presence,
    /// The worst of its presence, driver, GPUs and workers.
    pub state: State,
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
    /// Its queues.
    pub queues: Vec<Queue>,
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
    /// Against the lines of utilisation and memory.
    pub state: State,
    /// Whether its utilisation over the last seconds is over the line.
    pub high_load: bool,
    /// Part of the last sample period in which a kernel ran.
    pub utilization_ratio: Option<f64>,
    /// Memory in use, bytes.
    pub memory_used_bytes: Option<f64>,
    /// Memory, bytes.
    pub memory_total_bytes: Option<f64>,
    /// Part of its memory in use.
    pub memory_used_ratio: Option<f64>,
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
    /// Its GPU's index, where the agent says it.
    pub gpu: Option<String>,
    /// How it stands, its alerts not counted.
    pub state: State,
    /// Whether it takes jobs; `null` while it loads, or when the node does not send.
    pub ready: Option<bool>,
    /// Restarts since the agent started.
    pub restarts: Option<f64>,
    /// Its newest process.
    pub pid: Option<u32>,
    /// Whether a person holds it: its agent leaves it alone.
    pub held: Option<bool>,
    /// Whether it was restarted too often, so that the next tries wait long.
    pub breaker_open: Option<bool>,
    /// Whether it does not run and a person wants it so, as its node told last.
    pub left_alone: bool,
}

pub(super) fn nodes(of: &Sources<'_>) -> Vec<Node> {
    let all = of.memory.nodes.iter();
    all.map(|(node, state)| one_node(of, node, state, of.sending.contains(node.as_str()))).collect()
}

/// A label's value, or nothing.
pub(super) fn label<'a>(key: &'a SeriesKey, name: &str) -> &'a str {
    key.labels.get(name).map_or("", String::as_str)
}

fn one_node(of: &Sources<'_>, node: &NodeId, known: &NodeState, sends: bool) -> Node {
    // What a silent node said last is not its present state: no value is shown, only what there is.
    let since = if sends { of.now.minus(PRESENT).as_millis() } else { i64::MAX };
    let head = &of.memory.head;
    let value = |metric| head.newest(node, metric, since).next().map(|(_, value)| value);
    let facts = head.newest(node, "gpu_info", if sends { since } else { i64::MIN });
    let facts: Vec<&SeriesKey> = facts.map(|(key, _)| key).collect();
    let presence = match known.last_arrival {
        None => Presence::NeverSeen,
        Some(_) if sends => Presence::Live,
        Some(_) => Presence::Stale,
    };
    let gpus: Vec<Gpu> = facts.iter().map(|key| gpu(of, node, key, since)).collect();
    let workers = workers(of, node, sends, since);
    let driver_up = value("gpu_driver_up").map(|up| up > 0.0);
    let driver = if driver_up == Some(false) { State::Warning } else { State::Ok };
    let parts = gpus.iter().map(|gpu| gpu.state).chain(workers.iter().map(|worker| worker.state));
    // A GPU of which nothing can be read says nothing of its node.
    let worst = parts.filter(|state| *state != State::Unknown).chain([driver, presence.state()]).max();
    Node {
        node: node.to_string(),
        presence,
        state: worst.unwrap_or(State::Unknown),
        simulated: facts.iter().any(|key| label(key, "simulated") == "true"),
        version: known.version.clone(),
        last_seen: known.last_arrival.map(|at| of.zone.date_time(at)),
        driver_up,
        cpu_utilization_ratio: value("host_cpu_utilization_ratio"),
        memory_used_bytes: value("host_memory_used_bytes"),
        memory_total_bytes: value("host_memory_total_bytes"),
        gpus,
        workers,
        queues: queue::of_node(of, node, sends),
        epoch: known.epoch.map(|epoch| epoch.0),
        epoch_frames: known.epoch_frames,
        frames_stored: known.frames_stored,
        frames_duplicate: known.frames_duplicate,
        frames_lost: known.frames_lost,
    }
}

fn gpu(of: &Sources<'_>, node: &NodeId, facts: &SeriesKey, since: i64) -> Gpu {
    let uuid = label(facts, "uuid");
    let head = &of.memory.head;
    let value = |metric| {
        head.newest(node, metric, since).find(|(key, _)| label(key, "uuid") == uuid).map(|(_, value)| value)
    };
    let mut gpu = Gpu {
        gpu: label(facts, "gpu").to_owned(),
        uuid: uuid.to_owned(),
        name: label(facts, "name").to_owned(),
        state: State::Unknown,
        high_load: false,
        utilization_ratio: value("gpu_utilization_ratio"),
        memory_used_bytes: value("gpu_memory_used_bytes"),
        memory_total_bytes: value("gpu_memory_total_bytes"),
        memory_used_ratio: None,
        power_watts: value("gpu_power_watts"),
        temperature_celsius: value("gpu_temperature_celsius"),
    };
    let memory = gpu.memory_used_bytes.zip(gpu.memory_total_bytes).filter(|(_, total)| *total > 0.0);
    gpu.memory_used_ratio = memory.map(|(used, total)| used / total);
    let load = gpu.utilization_ratio.and_then(|_| mean_load(of, node, uuid));
    gpu.high_load = load.is_some_and(|load| load >= GPU_UTILIZATION.warning);
    // A busy GPU is a batch that runs well: worth a look, never a reason to act.
    let load = if gpu.high_load { State::Warning } else { GPU_UTILIZATION.judge(load).min(State::Warning) };
    let memory = GPU_MEMORY.judge(gpu.memory_used_ratio);
    gpu.state = match (load, memory) {
        (State::Unknown, state) | (state, State::Unknown) => state,
        (load, memory) => load.max(memory),
    };
    gpu
}

#[expect(clippy::cast_precision_loss, reason = "some hundred readings")]
fn mean_load(of: &Sources<'_>, node: &NodeId, uuid: &str) -> Option<f64> {
    let since = of.now.minus(LOAD_OVER).as_millis();
    let mut series = of.memory.head.readings(node, "gpu_utilization_ratio", since);
    let (_, readings) = series.find(|(key, _)| label(key, "uuid") == uuid)?;
    let (sum, count) = readings
        .filter_map(|(_, reading)| reading.ok())
        .fold((0.0, 0_usize), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / count as f64)
}

fn workers(of: &Sources<'_>, node: &NodeId, sends: bool, since: i64) -> Vec<Worker> {
    let known = of.memory.head.newest(node, "worker_restarts_total", if sends { since } else { i64::MIN });
    known.map(|(facts, restarts)| worker(of, node, (facts, restarts), sends, since)).collect()
}

fn worker(
    of: &Sources<'_>,
    node: &NodeId,
    (facts, restarts): (&SeriesKey, f64),
    sends: bool,
    since: i64,
) -> Worker {
    let name = label(facts, "worker");
    let flag = |metric: &str| {
        let mut all = of.memory.head.newest(node, metric, since);
        all.find(|(key, _)| label(key, "worker") == name).map(|(_, value)| value > 0.0)
    };
    let ready = flag("worker_ready");
    let (pid, left_alone) = last_told(of, node, name);
    let left_alone = left_alone && sends && ready != Some(true);
    Worker {
        worker: name.to_owned(),
        service: label(facts, "service").to_owned(),
        gpu: facts.labels.get("gpu").cloned(),
        state: match ready {
            _ if !sends => State::Unknown,
            Some(true) => State::Ok,
            // A person wants it so: worth knowing, nothing to be called for.
            _ if left_alone => State::Warning,
            Some(false) => State::Critical,
            None => State::Warning,
        },
        ready,
        restarts: sends.then_some(restarts),
        pid: pid.filter(|_| sends),
        held: flag("worker_held"),
        breaker_open: flag("worker_restart_breaker_open"),
        left_alone,
    }
}

/// Its newest process, and whether its node told last that it is left alone.
fn last_told(of: &Sources<'_>, node: &NodeId, name: &str) -> (Option<u32>, bool) {
    let told = of.memory.events.iter().rev().filter(|stored| stored.node == *node);
    let of_it = told.filter(|stored| stored.event.worker().is_some_and(|worker| worker.as_str() == name));
    let mut known = of_it.filter_map(|stored| match &stored.event.what {
        What::WorkerStarted { pid, .. } | What::WorkerAdopted { pid, .. } => Some((Some(*pid), false)),
        What::WorkerExited { .. } => Some((None, false)),
        What::WorkerLeftAlone { .. } => Some((None, true)),
        _ => None,
    });
    known.next().unwrap_or_default()
}
