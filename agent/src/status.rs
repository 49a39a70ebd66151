//! The document of `diarwatch status --json`: numbers in base units with the unit in the key. A value
//! that could not be had is `null`, and `reasons` says why by its JSON pointer; a `null` without a reason
//! is what there is none of (no process, no problem). `schema` grows only when a key changes its meaning.

use std::collections::VecDeque;

use diarwatch_shared::clock::{self, UnixMicros};
use diarwatch_shared::event::RecoveryAction;
use diarwatch_shared::reading::{Missing, Reading};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::board::{Gpu, GpuProcess, Link, Snapshot, SpoolState};
use crate::figures::FigureStatus;
use crate::judge::Phase;
use crate::queue::QueueStatus;
use crate::sample::gpu::DriverState;
use crate::sample::gpu::errors::Xid;
use crate::services::ServiceStatus;
use crate::workers::WorkerStatus;

/// Version of the document.
pub const STATUS_SCHEMA: u16 = 1;

/// A number, or why there is none; [`with_reasons`] makes `null` and a reason of the latter.
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
    started_us: UnixMicros,
    now_us: UnixMicros,
    simulated: bool,
    driver: DriverState,
    host: Host,
    gpus: Vec<GpuStatus>,
    /// The newest errors of GPUs, oldest first.
    xids: VecDeque<Xid>,
    /// Why the kernel's log cannot be read for them.
    kernel_log_problem: Option<String>,
    workers: Vec<WorkerRow>,
    queues: Vec<QueueStatus>,
    services: Vec<ServiceStatus>,
    figures: Vec<FigureStatus>,
    link: Link,
    spool: SpoolState,
    frames_emitted: u64,
    ticks_rejected: u64,
    /// Why the last reload of the configuration was refused.
    config_problem: Option<String>,
}

/// A worker, and why it is left alone or nothing is known of it.
#[derive(Debug, Serialize)]
struct WorkerRow {
    #[serde(flatten)]
    status: WorkerStatus,
    reason: Option<String>,
}

impl From<&WorkerStatus> for WorkerRow {
    fn from(status: &WorkerStatus) -> Self {
        // Of a live one the last probe says why.
        let apart = matches!(status.phase, Phase::LeftAlone | Phase::Unknown);
        let reason = status.why.reason.clone().filter(|_| apart);
        Self { status: status.clone(), reason }
    }
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
    sm_clock_hertz: Number,
    /// What the driver wants done about it.
    recovery_action: Told<&'static str>,
    /// What runs on it.
    processes: Told<Vec<ProcessStatus>>,
}

#[derive(Debug, Serialize)]
struct ProcessStatus {
    pid: u32,
    memory_bytes: Number,
    sm_ratio: Number,
}

/// Something other than a number, or why there is none, in the form of [`Number`].
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Told<T> {
    Known(T),
    Missing { missing: &'static str },
}

impl<T> From<Result<T, Missing>> for Told<T> {
    fn from(told: Result<T, Missing>) -> Self {
        told.map_or_else(|missing| Self::Missing { missing: missing.word() }, Self::Known)
    }
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
        started_us: snapshot.started,
        now_us: clock::now(),
        simulated: snapshot.simulated,
        driver: snapshot.driver.clone(),
        host: Host {
            cpu_utilization_ratio: host("host_cpu_utilization_ratio"),
            memory_used_bytes: host("host_memory_used_bytes"),
            memory_total_bytes: host("host_memory_total_bytes"),
        },
        gpus: snapshot.gpus.iter().map(gpu).collect(),
        xids: snapshot.xids.clone(),
        kernel_log_problem: snapshot.kernel_log_problem.clone(),
        workers: snapshot.workers.iter().map(WorkerRow::from).collect(),
        queues: snapshot.queues.clone(),
        services: snapshot.services.clone(),
        figures: snapshot.figures.clone(),
        link: snapshot.link.clone(),
        spool: snapshot.spool.clone(),
        frames_emitted: snapshot.frames_emitted,
        ticks_rejected: snapshot.ticks_rejected,
        config_problem: snapshot.config.get("problem").and_then(Value::as_str).map(str::to_owned),
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
        sm_clock_hertz: value("gpu_sm_clock_hertz"),
        recovery_action: gpu.recovery.map(RecoveryAction::word).into(),
        processes: gpu.processes_at.map(|_| gpu.processes.iter().map(process).collect()).into(),
    }
}

fn process(process: &GpuProcess) -> ProcessStatus {
    let GpuProcess { pid, memory_bytes, sm_ratio } = *process;
    ProcessStatus { pid, memory_bytes: memory_bytes.into(), sm_ratio: sm_ratio.into() }
}

/// A document in which each value that could not be had is `null`, with its reason in `reasons` under its
/// JSON pointer. The one place where that form is made.
///
/// # Errors
/// When the value is no JSON.
pub fn with_reasons(document: &impl Serialize) -> serde_json::Result<Value> {
    let mut document = serde_json::to_value(document)?;
    let mut reasons = Map::new();
    take_reasons(&mut document, &mut String::new(), &mut reasons);
    if let Value::Object(top) = &mut document {
        top.insert("reasons".to_owned(), Value::Object(reasons));
    }
    Ok(document)
}

fn take_reasons(value: &mut Value, pointer: &mut String, reasons: &mut Map<String, Value>) {
    if let Some(reason) = missing(value) {
        *value = Value::Null;
        reasons.insert(pointer.clone(), reason);
        return;
    }
    let length = pointer.len();
    let mut inner = |token: &str, value: &mut Value| {
        pointer.push('/');
        pointer.push_str(token);
        take_reasons(value, pointer, reasons);
        pointer.truncate(length);
    };
    match value {
        Value::Object(table) => {
            for (key, value) in table {
                inner(&key.replace('~', "~0").replace('/', "~1"), value);
            }
        }
        Value::Array(items) => {
            for (at, value) in items.iter_mut().enumerate() {
                inner(&at.to_string(), value);
            }
        }
        _ => {}
    }
}

/// The reason of a [`Number::Missing`].
fn missing(value: &Value) -> Option<Value> {
    let table = value.as_object().filter(|table| table.len() == 1)?;
    table.get("missing").filter(|reason| reason.is_string()).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_missing_is_null_with_its_reason_under_its_pointer() {
        let lost = Number::from(Err(Missing::Lost));
        let document =
            json!({ "kind": "x", "gpus": [{ "a/b": lost, "b": Number::from(Ok(0.0)), "pid": null }] });
        let expected = json!({
            "kind": "x", "gpus": [{ "a/b": null, "b": 0.0, "pid": null }], "reasons": { "/gpus/0/a~1b": "lost" }
        });
        assert_eq!(with_reasons(&document).unwrap(), expected);
    }

    #[test]
    fn a_document_without_gaps_has_no_reasons() {
        assert_eq!(with_reasons(&json!({ "a": 1 })).unwrap(), json!({ "a": 1, "reasons": {} }));
    }
}
