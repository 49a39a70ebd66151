//! What was seen around the end of a worker, as one document. Takes [`Parts`], whatever they hold; gives
//! a bundle that is masked and small enough for an event. Pure.
//!
//! Each list has a share of the room and its newest entries win; GPU samples are thinned before any are
//! dropped (a window keeps its highest value). Lines of output get all the room that the rest leaves.
//! What is left out is counted beside what is there.

pub mod gather;

use std::collections::BTreeMap;
use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::event::Cause;
use diarwatch_shared::limits::EVENT_BYTES_MAX;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::masking::mask;
use crate::queue::UnderWay;
use crate::restart::Exit;

/// The version of the bundle's form; keys may be added within a version.
pub const BUNDLE_VERSION: u16 = 1;
/// Bytes of an event that are not the bundle: its kind, worker, number and time.
pub const ENVELOPE_BYTES: usize = 512;
/// Bytes of a bundle as JSON.
pub const BUNDLE_BYTES_MAX: usize = EVENT_BYTES_MAX - ENVELOPE_BYTES;
/// Lines of output in a bundle.
pub const LINES_MAX: usize = 200;
/// Samples of one figure of a GPU: a minute at 10 Hz.
pub const SAMPLES_MAX: usize = 600;
/// Bytes of a text of the agent's own, or of one line.
const TEXT_BYTES_MAX: usize = 1_024;
/// Bytes of a name: of a view, a version, an id.
const NAME_BYTES_MAX: usize = 128;
/// Bytes of the views as JSON.
const VIEWS_BYTES: usize = 6 * 1024;
/// Bytes of the versions.
const VERSIONS_BYTES: usize = 1024;
/// Bytes of the XIDs.
const XIDS_BYTES: usize = 4 * 1024;
/// Bytes of the jobs.
const JOBS_BYTES: usize = 8 * 1024;
/// Bytes of the probes.
const PROBES_BYTES: usize = 4 * 1024;
/// Bytes of the GPU samples.
const GPUS_BYTES: usize = 18 * 1024;

/// What is known; all of it may be missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parts {
    /// How the process ended; none when the worker was stopped alive and has not ended yet.
    pub exit: Option<Exit>,
    /// Why it is started anew.
    pub cause: Option<Cause>,
    /// What was decided on, a view each.
    pub views: Vec<View>,
    /// What it wrote, oldest first.
    pub lines: Vec<(UnixMicros, String)>,
    /// The last minute of its GPUs.
    pub gpus: Vec<GpuTrace>,
    /// XIDs around its end, oldest first.
    pub xids: Vec<Xid>,
    /// Its jobs, those that are worked on first.
    pub jobs: Vec<UnderWay>,
    /// Its cgroup while it lived.
    pub memory_before: Option<CgroupMemory>,
    /// Its cgroup, or the one above it, afterwards.
    pub memory_after: Option<CgroupMemory>,
    /// How long the host's tasks waited for memory.
    pub host_pressure: Option<Pressure>,
    /// Its last probes, oldest first.
    pub probes: Vec<ProbeSeen>,
    /// What runs here: `agent`, `driver`, `kernel`, ... and its version.
    pub versions: BTreeMap<String, String>,
    /// Whether the GPUs are made up.
    pub simulated: bool,
}

/// One thing that was looked at, and what it said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// What was looked at: `readiness`, `gpu`, `cpu`, `queue`, ...
    pub view: String,
    /// What it said, for a person.
    pub words: String,
}

/// A minute of one GPU at even steps; `None` where there was no value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GpuTrace {
    /// Index at the driver.
    pub gpu: String,
    /// Identity.
    pub uuid: String,
    /// The time of the first sample.
    pub from: UnixMicros,
    /// From one sample to the next.
    pub step: Duration,
    /// Utilisation, 0 to 1.
    pub utilization: Vec<Option<f64>>,
    /// Used memory, in bytes.
    pub memory_used: Vec<Option<f64>>,
    /// Power, in watts.
    pub power: Vec<Option<f64>>,
}

/// An XID of a GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Xid {
    /// When it was told.
    pub at: UnixMicros,
    /// Its number.
    pub xid: u32,
    /// What was said of it.
    pub text: String,
}

/// Memory of a cgroup; what only grows counts since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct CgroupMemory {
    /// Times that its limit was reached.
    pub max: u64,
    /// Times that it was out of memory.
    pub oom: u64,
    /// Processes of it that the kernel killed for that.
    pub oom_kill: u64,
    /// Bytes in use.
    pub current_bytes: Option<u64>,
    /// The most bytes that were in use.
    pub peak_bytes: Option<u64>,
    /// Its limit in bytes, where it has one.
    pub limit_bytes: Option<u64>,
    /// How long its tasks waited for memory.
    pub pressure: Option<Pressure>,
}

/// Pressure stall information of memory, in percent of the last 10 seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Pressure {
    /// At least one task waited.
    pub some_avg10: f64,
    /// All tasks waited.
    pub full_avg10: f64,
}

/// A probe that came to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeSeen {
    /// When it ended.
    pub at: UnixMicros,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// What it found.
    pub verdict: String,
}

/// The document; its JSON has at most [`BUNDLE_BYTES_MAX`] bytes and holds nothing that [`mask`] knows.
#[must_use]
pub fn bundle(parts: &Parts) -> Value {
    let mut bundle = Bundle::default();
    bundle.put("version", json!(BUNDLE_VERSION));
    bundle.put("simulated", json!(parts.simulated));
    bundle.put("cause", json!(parts.cause));
    bundle.put("exit", parts.exit.as_ref().map_or(Value::Null, exit));
    let memory = json!({ "before": parts.memory_before, "after": parts.memory_after });
    bundle.put("memory", memory);
    bundle.put("host_memory_pressure", json!(parts.host_pressure));
    let view = |view: &View| json!({ "view": name(&view.view), "words": text(&view.words) });
    bundle.list("views", parts.views.iter().map(view), VIEWS_BYTES);
    let version = |(what, version): (&String, &String)| json!([name(what), name(version)]);
    bundle.list("versions", parts.versions.iter().map(version), VERSIONS_BYTES);
    let xid = |xid: &Xid| json!({ "at_us": xid.at, "xid": xid.xid, "text": text(&xid.text) });
    bundle.list("xids", parts.xids.iter().map(xid), XIDS_BYTES);
    // Those that are worked on come first and are the last to go.
    bundle.list("jobs", parts.jobs.iter().rev().map(job), JOBS_BYTES);
    bundle.list("probes", parts.probes.iter().map(probe), PROBES_BYTES);
    bundle.gpus(&parts.gpus);
    let line = |(at, line): &(UnixMicros, String)| json!([at, text(line)]);
    let lines = parts.lines.iter().skip(parts.lines.len().saturating_sub(LINES_MAX));
    bundle.list("lines", lines.map(line), usize::MAX);
    bundle.done()
}

/// A document that knows how many bytes it has.
#[derive(Default)]
struct Bundle {
    map: Map<String, Value>,
    bytes: usize,
}

impl Bundle {
    fn left(&self) -> usize {
        // The brackets around it all, and `_left_out` of the lists.
        BUNDLE_BYTES_MAX.saturating_sub(self.bytes).saturating_sub(64)
    }

    /// Puts a value in when there is room for it; whether there was.
    fn put(&mut self, key: &str, value: Value) -> bool {
        let bytes = bytes_of(&value).saturating_add(key.len() + 4);
        let fits = bytes <= self.left();
        if fits {
            self.bytes += bytes;
            self.map.insert(key.to_owned(), value);
        }
        fits
    }

    /// The last entries that have room in their share; how many have none stands beside them.
    fn list(&mut self, key: &str, values: impl DoubleEndedIterator<Item = Value>, share: usize) {
        let room = share.min(self.left().saturating_sub(128));
        let (mut kept, mut bytes, mut left_out) = (Vec::new(), 2_usize, 0_usize);
        for value in values.rev() {
            let more = bytes_of(&value).saturating_add(1);
            if left_out > 0 || bytes.saturating_add(more) > room {
                left_out += 1;
            } else {
                bytes += more;
                kept.push(value);
            }
        }
        kept.reverse();
        self.put(key, Value::Array(kept));
        if left_out > 0 {
            self.put(&format!("{key}_left_out"), json!(left_out));
        }
    }

    /// All GPUs, at the finest step at which they have room; the last ones go when there is none.
    fn gpus(&mut self, traces: &[GpuTrace]) {
        let room = GPUS_BYTES.min(self.left());
        for by in [1, 2, 5, 10, 20] {
            let all = Value::Array(traces.iter().map(|trace| gpu(trace, by)).collect());
            if bytes_of(&all) <= room {
                self.put("gpus", all);
                return;
            }
        }
        self.list("gpus", traces.iter().rev().map(|trace| gpu(trace, 20)), GPUS_BYTES);
    }

    fn done(self) -> Value {
        let whole = Value::Object(self.map);
        if bytes_of(&whole) <= BUNDLE_BYTES_MAX {
            return whole;
        }
        // Cannot be, as the property test shows; an event that is too large would be lost whole.
        json!({ "version": BUNDLE_VERSION, "left_out": "everything" })
    }
}

fn exit(exit: &Exit) -> Value {
    json!({
        "pid": exit.pid, "reason": text(&exit.reason), "code": exit.code, "signal": exit.signal,
        "oom": exit.oom, "core": exit.core, "by_hand": exit.by_hand,
    })
}

fn job(job: &UnderWay) -> Value {
    json!({
        "id": job.id.as_deref().map(name), "since_us": job.since, "started_us": job.started,
        "audio_seconds": job.audio_seconds.filter(|seconds| seconds.is_finite()),
    })
}

fn probe(probe: &ProbeSeen) -> Value {
    json!({ "at_us": probe.at, "took_ms": probe.took_ms, "verdict": text(&probe.verdict) })
}

/// A GPU with one sample of `by`.
fn gpu(trace: &GpuTrace, by: usize) -> Value {
    let thin = |values: &[Option<f64>], unit: f64| -> Vec<Value> {
        let skip = values.len().saturating_sub(SAMPLES_MAX);
        let values = values.get(skip..).unwrap_or_default();
        let highest = |window: &[Option<f64>]| window.iter().flatten().copied().reduce(f64::max);
        values.chunks(by).map(|window| highest(window).map_or(Value::Null, |v| whole(v * unit))).collect()
    };
    let over = trace.utilization.len().max(trace.memory_used.len()).max(trace.power.len());
    let skipped = u32::try_from(over.saturating_sub(SAMPLES_MAX)).unwrap_or(u32::MAX);
    let step = trace.step.saturating_mul(u32::try_from(by).unwrap_or(1));
    json!({
        "gpu": name(&trace.gpu),
        "uuid": name(&trace.uuid),
        "from_us": trace.from.plus(trace.step.saturating_mul(skipped)),
        "step_ms": u64::try_from(step.as_millis()).unwrap_or(u64::MAX),
        "utilization_percent": thin(&trace.utilization, 100.0),
        "memory_used_mib": thin(&trace.memory_used, 1.0 / 1_048_576.0),
        "power_watts": thin(&trace.power, 1.0),
    })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "its range is checked")]
fn whole(value: f64) -> Value {
    if (0.0..=1e12).contains(&value) { json!(value.round() as u64) } else { Value::Null }
}

fn text(text: &str) -> String {
    clean(text, TEXT_BYTES_MAX)
}

fn name(text: &str) -> String {
    clean(text, NAME_BYTES_MAX)
}

/// Masked, without what moves a terminal's cursor, and bounded: its JSON has at most twice the bytes.
fn clean(text: &str, bytes_max: usize) -> String {
    let masked = mask(text);
    let mut text: String =
        masked.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect();
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}

fn bytes_of(value: &Value) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |bytes| bytes.len())
}

#[cfg(test)]
mod tests;
