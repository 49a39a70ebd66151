//! What the judge of workers is told of GPUs, through a real sampler and a fake driver: who is on them,
//! their errors (XIDs), what the driver wants done; and the kernel's log through a real journald.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of a test"
)]

#[path = "../common/mod.rs"]
mod common;
mod kernel_log;
mod processes;
mod xids;

use common::Agent;
use diarwatch_shared::event::What;
use serde_json::Value;

/// Two GPUs of a driver that knows the recovery action.
const TWO: &str = "driver = 570.86.15\ngpus = 2\n\
    gpu.*.util = 42\ngpu.*.mem_total_mib = 8188\ngpu.*.mem_used_mib = 3000\n\
    gpu.*.recovery = 0\ngpu.0.uuid = GPU-aaaa\ngpu.1.uuid = GPU-bbbb\n";

/// The same with more lines.
fn with(lines: &str) -> String {
    format!("{TWO}{lines}\n")
}

fn gpu(status: &Value, index: usize) -> &Value {
    &status["gpus"][index]
}

/// Waits until the sampler has told all of both GPUs.
fn up(agent: &Agent) -> Value {
    agent.until("both GPUs are told", |status| {
        let told = |index| {
            let gpu = gpu(status, index);
            gpu["utilization_ratio"].is_f64()
                && gpu["processes"].is_array()
                && gpu["recovery_action"].is_string()
        };
        (told(0) && told(1)).then(|| status.clone())
    })
}

fn xid(what: &What) -> bool {
    matches!(what, What::GpuXid { .. })
}
