//! What is fed: agents made by hand that say known numbers each second, over real QUIC. Takes rows
//! and events; gives them to an aggregator until it is dropped. What is said is said again, so that
//! nothing is lost to a slow machine.

use std::time::Duration;

use diarwatch_shared::clock;
use diarwatch_shared::event::What;
use diarwatch_shared::node::WorkerId;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::agent::{Agent, Row, key};
use crate::day;
use crate::site::Site;

/// Between two frames of a node, as of a real agent.
const BEAT: Duration = Duration::from_secs(1);
/// Events that wait for their frame.
const EVENTS_MAX: usize = 64;
/// What was before: this long, a point so often.
const HISTORY: Duration = Duration::from_secs(13 * 60);
const HISTORY_STEP: Duration = Duration::from_secs(10);
const GIB: f64 = 1_073_741_824.0;

/// Nodes that send.
pub(crate) const NODES: [&str; 3] = ["gpu-01", "gpu-02", "gpu-03"];
/// A node that sent once, and one that never did.
pub(crate) const SILENT: &str = "gpu-04";
pub(crate) const NEVER: &str = "gpu-05";
/// Use of each node's GPU, as drawn in 10.1.2.
pub(crate) const UTILIZATION: [f64; 3] = [0.65, 0.72, 0.89];

/// The requirements' numbers (10.1.2), by the metric that carries them.
pub(crate) const WAITING: f64 = 3.0;
pub(crate) const PROCESSING: f64 = 2.0;
pub(crate) const JOB_MEAN_SECONDS: f64 = 150.0;
pub(crate) const API_P95_SECONDS: f64 = 0.245;
pub(crate) const ERRORS_RATIO: f64 = 0.0012;
pub(crate) const SESSIONS: f64 = 45.0;
pub(crate) const SESSIONS_MAX: f64 = 100.0;
pub(crate) const SESSIONS_PEAK: f64 = 78.0;

/// Services of the page, and what their probes say: up, down, or nothing at all.
pub(crate) const SERVICES: [(&str, Option<bool>); 8] = [
    ("iPad App", Some(true)),
    ("Web Dashboard", Some(true)),
    ("API Gateway", Some(true)),
    ("PostgreSQL", Some(true)),
    ("Realtime", Some(true)),
    ("Storage", Some(false)),
    ("Claude API", Some(true)),
    ("OpenAI API", None),
];

/// The tiles in the order of 10.1.2, workers among them, as an operator configures them.
pub(crate) const TILES: [&str; 11] = [
    "iPad App",
    "Web Dashboard",
    "API Gateway",
    "PostgreSQL",
    "Realtime",
    "Storage",
    "pyannote #1",
    "pyannote #2",
    "pyannote #3",
    "Claude API",
    "OpenAI API",
];

/// A node's agent that goes on saying what it was told last.
pub(crate) struct Voice {
    rows: watch::Sender<Vec<Row>>,
    events: mpsc::Sender<What>,
    task: JoinHandle<()>,
}

impl Voice {
    /// Joins as a node and begins, with what was before when that is wanted.
    pub(crate) async fn start(site: &Site, node: &str, rows: Vec<Row>, history: bool) -> Self {
        let mut agent = Agent::join(site, node, clock::now().0).await;
        let mut seq = agent.durable();
        if history {
            seq = past(&mut agent, seq, &rows).await;
        }
        let (sender, told) = watch::channel(rows);
        let (events, happened) = mpsc::channel(EVENTS_MAX);
        Self { rows: sender, events, task: tokio::spawn(speak(agent, seq, told, happened)) }
    }

    /// Says this from now on, and at once.
    pub(crate) fn say(&self, change: impl FnOnce(&mut Vec<Row>)) {
        self.rows.send_modify(change);
    }

    /// Another value of every series of a metric.
    pub(crate) fn set(&self, metric: &str, value: f64) {
        self.say(|rows| {
            rows.iter_mut()
                .filter(|(key, _)| key.metric == metric)
                .for_each(|(_, reading)| *reading = Ok(value));
        });
    }

    /// What the probe of a service says from now on.
    pub(crate) fn probe(&self, service: &str, up: bool) {
        self.say(|rows| {
            let (metric, up) = ("service_up", f64::from(u8::from(up)));
            let of = |row: &Row| {
                row.0.metric == metric && row.0.labels.get("service").is_some_and(|of| of == service)
            };
            match rows.iter_mut().find(|row| of(row)) {
                Some((_, reading)) => *reading = Ok(up),
                None => rows.push(row(metric, &[("service", service)], up)),
            }
        });
    }

    /// Something happened.
    pub(crate) async fn happened(&self, what: What) {
        self.events.send(what).await.expect("it speaks");
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn speak(
    mut agent: Agent,
    mut seq: u64,
    mut told: watch::Receiver<Vec<Row>>,
    mut happened: mpsc::Receiver<What>,
) {
    loop {
        if let Ok(what) = happened.try_recv() {
            agent.live.event(seq, what).await;
        } else {
            let rows = told.borrow_and_update().clone();
            agent.live.send(seq, &rows).await;
            tokio::select! {
                _ = timeout(BEAT, told.changed()) => {}
                what = happened.recv() => {
                    let Some(what) = what else { return };
                    seq += 1;
                    agent.live.event(seq, what).await;
                }
            }
        }
        seq += 1;
    }
}

/// The last minutes, as the backlog of an agent whose link was down: waves around what is said now.
async fn past(agent: &mut Agent, mut seq: u64, rows: &[Row]) -> u64 {
    // The first stream is the live one; it says once what is now, before the past follows.
    agent.live.send(seq, rows).await;
    let mut backlog = agent.backlog().await;
    let (now, steps) = (clock::now(), HISTORY.as_secs() / HISTORY_STEP.as_secs());
    for step in (1..=steps).rev() {
        let back = Duration::from_secs(step * HISTORY_STEP.as_secs());
        let rows: Vec<Row> = rows
            .iter()
            .map(|(key, reading)| (key.clone(), reading.map(|value| wave(&key.metric, value, back))))
            .collect();
        seq += 1;
        backlog.send_at(seq, now.minus(back), &rows).await;
    }
    seq + 1
}

/// A value some time ago; what is a count or a fact stays.
fn wave(metric: &str, value: f64, back: Duration) -> f64 {
    let phase = back.as_secs_f64() / 60.0;
    match metric {
        "api_request_duration_p95_seconds" | "api_errors_ratio" => {
            value * (1.0 + 0.35 * phase.sin() * phase.cos().abs())
        }
        "gpu_utilization_ratio" => (value * (1.0 + 0.1 * (phase * 2.0).sin())).clamp(0.0, 1.0),
        "sessions_active" => (value + 6.0 * phase.sin()).round(),
        _ => value,
    }
}

/// A series with its value.
pub(crate) fn row(metric: &str, labels: &[(&str, &str)], value: f64) -> Row {
    (key(metric, labels), Ok(value))
}

/// A node as the first users have it: one GPU, one worker.
pub(crate) fn node(number: usize, gpus: usize, utilization: f64) -> Vec<Row> {
    let mut rows = vec![
        row("gpu_driver_up", &[], 1.0),
        row("host_cpu_utilization_ratio", &[], 0.31),
        row("host_memory_used_bytes", &[], 12.0 * GIB),
        row("host_memory_total_bytes", &[], 32.0 * GIB),
    ];
    for index in 0..gpus {
        let (gpu, uuid) = (index.to_string(), format!("GPU-{number:02}-{index}"));
        let labels = [("gpu", gpu.as_str()), ("uuid", uuid.as_str())];
        let facts = [labels[0], labels[1], ("name", "NVIDIA GeForce RTX 4060"), ("simulated", "true")];
        rows.push(row("gpu_info", &facts, 1.0));
        rows.push(row("gpu_utilization_ratio", &labels, utilization));
        rows.push(row("gpu_memory_used_bytes", &labels, 6.0 * GIB));
        rows.push(row("gpu_memory_total_bytes", &labels, 8.0 * GIB));
        rows.push(row("gpu_power_watts", &labels, 98.5));
        rows.push(row("gpu_temperature_celsius", &labels, 61.0));
    }
    rows.extend(worker(&format!("pyannote-{number}"), &format!("pyannote #{number}"), 1.0));
    rows
}

/// A worker that is ready, or not.
pub(crate) fn worker(name: &str, service: &str, ready: f64) -> [Row; 3] {
    let labels = [("worker", name), ("service", service)];
    [
        row("worker_ready", &labels, ready),
        row("worker_restarts_total", &labels, 1.0),
        row("worker_uptime_seconds", &labels, 8_040.0),
    ]
}

/// What one node probes and scrapes for all: services, API, sessions, queue.
pub(crate) fn sources() -> Vec<Row> {
    let queue = [("queue", "diarization"), ("service", "pyannote")];
    let mut rows = vec![
        row(
            "queue_info",
            &[("queue", "diarization"), ("service", "pyannote"), ("source", "log"), ("estimated", "true")],
            1.0,
        ),
        row("queue_up", &queue, 1.0),
        row("queue_waiting", &queue, WAITING),
        row("queue_processing", &queue, PROCESSING),
        row("queue_oldest_seconds", &queue, 95.0),
        row("job_duration_mean_seconds", &queue, JOB_MEAN_SECONDS),
        row("job_duration_p95_seconds", &queue, 260.0),
        row("api_request_duration_p95_seconds", &[("service", "API Gateway")], API_P95_SECONDS),
        row("api_errors_ratio", &[("service", "API Gateway")], ERRORS_RATIO),
        row("sessions_active", &[], SESSIONS),
        row("sessions_max", &[], SESSIONS_MAX),
    ];
    for (service, up) in SERVICES {
        if let Some(up) = up {
            rows.push(row("service_up", &[("service", service)], f64::from(u8::from(up))));
            rows.push(row("service_probe_seconds", &[("service", service)], 0.031));
        }
    }
    rows
}

/// The aggregator's configuration: its tiles, its nodes, its zone.
pub(crate) fn configuration(zone: &str) -> String {
    let expected: Vec<&str> = NODES.into_iter().chain([SILENT, NEVER]).collect();
    let (tiles, expected) = (json!(TILES), json!(expected));
    format!(
        "[page]\nservices = {tiles}\n[nodes]\nexpected = {expected}\ntimeout = \"10s\"\n\
         [display]\nzone = \"{zone}\"\n"
    )
}

/// The main fleet and its aggregator: a day behind it, three nodes that send, the first with every
/// source, one that fell silent, one that never sent. `more` is put behind the configuration.
pub(crate) async fn standing(zone: &str, more: &str) -> Result<(Site, Vec<Voice>), String> {
    let nodes: Vec<String> = NODES.into_iter().chain([SILENT, NEVER]).map(str::to_owned).collect();
    let mut site = Site::new(&nodes, &format!("{}{more}", configuration(zone)))?;
    day::lived(&site, zone)?;
    site.start().await?;
    let mut voices = Vec::new();
    for (number, (name, utilization)) in (1..).zip(NODES.into_iter().zip(UTILIZATION)) {
        let mut rows = node(number, 1, utilization);
        if number == 1 {
            rows.extend(sources());
        }
        voices.push(Voice::start(&site, name, rows, true).await);
    }
    // It says something once and goes.
    let mut gone = Agent::join(&site, SILENT, clock::now().0).await;
    let seq = gone.durable();
    gone.live.send(seq, &node(4, 1, 0.5)).await;
    gone.acked(seq + 1).await;
    drop(gone);
    let settled = site.until("the silent node is seen as silent", "/api/v1/status", |status| {
        let nodes = status["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let count = |presence: &str| nodes.iter().filter(|node| node["presence"] == presence).count();
        count("live") == NODES.len() && count("stale") == 1
    });
    settled.await?;
    Ok((site, voices))
}

/// A worker's process ended and is started again.
pub(crate) fn exited(worker: &str) -> What {
    What::WorkerExited {
        worker: WorkerId::new(worker).expect("a name"),
        pid: Some(4_242),
        reason: String::from("signal 9 (SIGKILL)"),
        attempt: 1,
        restart_in_ms: 1_000,
    }
}

/// A worker is back.
pub(crate) fn back(worker: &str) -> What {
    What::WorkerReady { worker: WorkerId::new(worker).expect("a name"), load_ms: 3_200, down_ms: Some(4_200) }
}
