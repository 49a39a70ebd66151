//! The document of `diarwatch status --json`: numbers in base units with the unit in the key. A value
//! that could not be had is `{"missing": reason}` in its place; `null` is only what there is none of (no
//! process, no problem). `schema` grows only when a key changes its meaning.

use diarwatch_shared::clock::{self, UnixMicros};
use diarwatch_shared::reading::Reading;
use serde::{Deserialize, Serialize};

use crate::board::{Gpu, Link, Snapshot, SpoolState};
use crate::figures::FigureStatus;
use crate::queue::QueueStatus;
use crate::sample::gpu::DriverState;
use crate::services::ServiceStatus;
use crate::workers::WorkerStatus;

/// Version of the document.
pub const STATUS_SCHEMA: u16 = 1;

/// A number, or why there is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Number {
    /// The number.
    Known(f64),
    /// The reason, a word.
    Missing {
        /// One of the words of [`diarwatch_shared::reading::Missing`].
        missing: String,
    },
}

impl From<Reading> for Number {
    fn from(reading: Reading) -> Self {
        reading.map_or_else(|missing| Self::Missing { missing: missing.word().to_owned() }, Self::Known)
    }
}

/// The answer to `status`.
#[derive(Debug, Serialize)]
pub struct Status {
    schema: u16,
    kind: &'static str,
    node: String,
    version: &'static str,
    epoch: u64,
    started: UnixMicros,
    now: UnixMicros,
    simulated: bool,
    driver: DriverState,
    host: Host,
    gpus: Vec<GpuStatus>,
    workers: Vec<WorkerStatus>,
    queues: Vec<QueueStatus>,
    services: Vec<ServiceStatus>,
    figures: Vec<FigureStatus>,
    link: Link,
    spool: SpoolState,
    frames_emitted: u64,
}

#[derive(Debug, Serialize)]
struct Host {
    cpu_utilization_ratio: Number,
    memory_used_bytes: Number,
    memory_total_bytes: Number,
}

#[derive(Debug, Serialize)]
struct GpuStatus {
    index: u32,
    uuid: String,
    name: String,
    utilization_ratio: Number,
    memory_utilization_ratio: Number,
    memory_used_bytes: Number,
    memory_total_bytes: Number,
    power_watts: Number,
    temperature_celsius: Number,
}

/// The document of a snapshot.
#[must_use]
pub fn of(snapshot: &Snapshot) -> Status {
    let uptime = clock::uptime();
    let host = |metric: &str| snapshot.host.value(metric, uptime).into();
    Status {
        schema: STATUS_SCHEMA,
        kind: "status",
        node: snapshot.node.to_string(),
        version: env!("CARGO_PKG_VERSION"),
        epoch: snapshot.epoch.0,
        started: snapshot.started,
        now: clock::now(),
        simulated: snapshot.simulated,
        driver: snapshot.driver.clone(),
        host: Host {
            cpu_utilization_ratio: host("host_cpu_utilization_ratio"),
            memory_used_bytes: host("host_memory_used_bytes"),
            memory_total_bytes: host("host_memory_total_bytes"),
        },
        gpus: snapshot.gpus.iter().map(gpu).collect(),
        workers: snapshot.workers.clone(),
        queues: snapshot.queues.clone(),
        services: snapshot.services.clone(),
        figures: snapshot.figures.clone(),
        link: snapshot.link.clone(),
        spool: snapshot.spool.clone(),
        frames_emitted: snapshot.frames_emitted,
    }
}

fn gpu(gpu: &Gpu) -> GpuStatus {
    let value = |metric: &str| gpu.value(metric).into();
    GpuStatus {
        index: gpu.facts.index,
        uuid: gpu.facts.uuid.clone(),
        name: gpu.facts.name.clone(),
        utilization_ratio: value("gpu_utilization_ratio"),
        memory_utilization_ratio: value("gpu_memory_utilization_ratio"),
        memory_used_bytes: value("gpu_memory_used_bytes"),
        memory_total_bytes: value("gpu_memory_total_bytes"),
        power_watts: value("gpu_power_watts"),
        temperature_celsius: value("gpu_temperature_celsius"),
    }
}
