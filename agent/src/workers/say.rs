//! A worker's events as lines of the agent's log, and what a worker wrote as the judge takes it. Pure but for
//! the log.

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::event::{Cause, What};

use crate::findings::{Finding, FindingKind};
use crate::judge::{CallsFor, Input, Trouble};

/// What a worker wrote, as the judge takes it.
pub(super) fn trouble(finding: Finding, now: UnixMicros) -> Input {
    let calls_for = match finding.kind {
        FindingKind::CudaOutOfMemory => CallsFor::RestartWhenOften(Cause::CudaOutOfMemory),
        FindingKind::CudaContextLost => CallsFor::Restart(Cause::CudaContextLost),
        FindingKind::ModelDownload | FindingKind::Token | FindingKind::PortTaken | FindingKind::DiskFull => {
            CallsFor::Naming
        }
    };
    let name = serde_json::to_value(finding.kind).ok().and_then(|kind| kind.as_str().map(str::to_owned));
    Input::Trouble(Trouble {
        name: name.unwrap_or_default(),
        calls_for,
        age: now.since(finding.at),
        text: finding.text,
    })
}

/// An event as a line of the log.
pub(super) fn log(what: &What) {
    match what {
        What::WorkerStarted { worker, pid } => tracing::info!(%worker, pid, "worker started"),
        What::WorkerAdopted { worker, pid, age_ms } => tracing::info!(%worker, pid, age_ms, "worker adopted"),
        What::WorkerReady { worker, load_ms, down_ms } => {
            tracing::info!(%worker, load_ms, down_ms, "worker ready");
        }
        What::WorkerNotReady { worker, reason } => tracing::warn!(%worker, reason, "worker not ready"),
        What::WorkerStartOverdue { worker, reason, waited_ms } => {
            tracing::warn!(%worker, reason, waited_ms, "worker takes too long to start");
        }
        What::WorkerExited { worker, pid, reason, attempt, restart_in_ms } => {
            tracing::warn!(%worker, pid, reason, attempt, restart_in_ms, "worker exited");
        }
        What::WorkerStopping { worker, pid, cause, reason } => {
            tracing::warn!(%worker, pid, ?cause, reason, "worker is stopped");
        }
        What::WorkerTrouble { worker, trouble, text } => {
            tracing::warn!(%worker, trouble, text, "worker trouble");
        }
        What::WorkerBreakerOpen { worker, restarts, next_try_in_ms, reason } => {
            tracing::error!(%worker, restarts, next_try_in_ms, reason, "worker was restarted too often");
        }
        other => tracing::info!(event = ?other, "worker event"),
    }
}
