//! What happened on a node, in the words of the one who reads it at 3 a.m. Events go into the same
//! spool as the frames and are cut as frames of their own, at once.

mod words;

use serde::{Deserialize, Serialize};

use crate::clock::UnixMicros;
use crate::limits::EVENT_BYTES_MAX;
use crate::node::{Epoch, WorkerId};

pub use words::{Cause, RecoveryAction, XidAction};

/// The version of the event's form; fields may be added within a version.
pub const EVENT_VERSION: u16 = 1;

/// Something that happened at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// [`EVENT_VERSION`] of the writer.
    pub version: u16,
    /// When, by the agent's clock.
    pub at: UnixMicros,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// Kinds of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// The agent started.
    AgentStarted {
        /// Its version.
        agent_version: String,
        /// Its new epoch.
        epoch: Epoch,
    },
    /// A worker's process started.
    WorkerStarted {
        /// Which worker.
        worker: WorkerId,
        /// Its process.
        pid: u32,
    },
    /// A worker said that it is ready, after its start or after it was not ready for a time.
    WorkerReady {
        /// Which worker.
        worker: WorkerId,
        /// From the start of the process to the first time it was ready, in milliseconds.
        load_ms: u64,
        /// From losing the worker to having it back, in milliseconds, when it had been lost.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        down_ms: Option<u64>,
    },
    /// A worker that was ready is not ready any more, though its process lives.
    WorkerNotReady {
        /// Which worker.
        worker: WorkerId,
        /// What the probe saw.
        reason: String,
    },
    /// A worker is not ready though it had all the time its start may take.
    WorkerStartOverdue {
        /// Which worker.
        worker: WorkerId,
        /// What the probe saw.
        reason: String,
        /// How long it has been starting, in milliseconds.
        waited_ms: u64,
    },
    /// A worker's process ended.
    WorkerExited {
        /// Which worker.
        worker: WorkerId,
        /// Its process, when there was one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pid: Option<u32>,
        /// How it ended, for a person: `exit code 1`, `signal 9 (SIGKILL)`.
        reason: String,
        /// The restart that was decided: its number since the worker last proved healthy.
        attempt: u32,
        /// The wait before that restart, in milliseconds.
        restart_in_ms: u64,
    },
    /// A worker that ran already is looked after; nothing was done to it.
    WorkerAdopted {
        /// Which worker.
        worker: WorkerId,
        /// Its process.
        pid: u32,
        /// How long it runs already, in milliseconds.
        age_ms: u64,
    },
    /// A live worker is being stopped, to be started again.
    WorkerStopping {
        /// Which worker.
        worker: WorkerId,
        /// Its process.
        pid: u32,
        /// Why.
        cause: Cause,
        /// What was seen, for a person.
        reason: String,
    },
    /// A worker does not run and is left so: a person stopped it, or holds it.
    WorkerLeftAlone {
        /// Which worker.
        worker: WorkerId,
        /// Why.
        reason: String,
    },
    /// A worker was restarted too often: the next tries come after long waits, for ever.
    WorkerBreakerOpen {
        /// Which worker.
        worker: WorkerId,
        /// Restarts within the window.
        restarts: u32,
        /// The wait before the next try, in milliseconds.
        next_try_in_ms: u64,
        /// How it ended last.
        reason: String,
    },
    /// A worker has been ready without a break for long.
    WorkerStable {
        /// Which worker.
        worker: WorkerId,
        /// For how long, in milliseconds.
        ready_ms: u64,
    },
    /// A worker ended and something of it is still there.
    WorkerLeftover {
        /// Which worker.
        worker: WorkerId,
        /// Processes that no signal ends, or that came up again.
        pids: Vec<u32>,
        /// GPU memory that nobody gave back, in bytes.
        gpu_memory_bytes: u64,
        /// What to do, for a person.
        advice: String,
    },
    /// A worker wrote of trouble, or its GPU told of it; what follows from it is told by itself.
    WorkerTrouble {
        /// Which worker.
        worker: WorkerId,
        /// What, in a word: `cuda_out_of_memory`, `xid_79`, `token`, ...
        trouble: String,
        /// What was read, masked, and what to do about it.
        text: String,
    },
    /// Jobs that were under way when a worker ended.
    WorkerJobsLost {
        /// Which worker.
        worker: WorkerId,
        /// Their ids, as far as they are known; at most a hundred.
        jobs: Vec<String>,
        /// All of them, also those without an id.
        count: u32,
        /// How many were given back to the queue.
        resubmitted: u32,
    },
    /// A job ended two workers and is not given back any more.
    WorkerJobSetAside {
        /// The worker that it ended last.
        worker: WorkerId,
        /// Which job.
        job: String,
        /// How many workers it ended.
        kills: u32,
        /// What became of it: set aside by the hook, or why that failed.
        outcome: String,
    },
    /// What a person wanted of a worker, and what became of it.
    WorkerOrder {
        /// Which worker.
        worker: WorkerId,
        /// `restart`, `drain`, `resume`, `hold`, `release`.
        verb: String,
        /// Who.
        by: String,
        /// Why, in that person's words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// Why it was refused, when it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refused: Option<String>,
    },
    /// What was seen around the end of a worker; see the agent's `evidence`.
    WorkerEvidence {
        /// Which worker.
        worker: WorkerId,
        /// The restart that followed: its number since the agent began to count.
        restart: u64,
        /// The bundle.
        bundle: serde_json::Value,
    },
    /// A driver call does not return.
    GpuDriverUnresponsive {
        /// The NVML function, or `unknown`.
        function: String,
        /// The GPU last entered, by index.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gpu: Option<u32>,
    },
    /// Driver calls return again.
    GpuDriverRecovered,
    /// No NVIDIA driver could be loaded.
    GpuDriverAbsent {
        /// Why, for a person.
        reason: String,
    },
    /// The driver reported an error of a GPU (XID).
    GpuXid {
        /// The GPU, by index; none when it cannot be told which.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gpu: Option<u32>,
        /// Its identity; empty when it is not known.
        uuid: String,
        /// The XID.
        code: u32,
        /// The process that it hit, where the kernel's log says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pid: Option<u32>,
        /// What it calls for.
        action: XidAction,
        /// What the kernel's log or the table of XIDs says of it, for a person.
        text: String,
    },
    /// What the driver wants done about a GPU changed.
    GpuRecoveryAction {
        /// The GPU, by index.
        gpu: u32,
        /// Its identity.
        uuid: String,
        /// What it wants now.
        action: RecoveryAction,
    },
    /// An event kind of a later version; kept, shown by its name only.
    #[serde(other)]
    Unknown,
}

impl Event {
    /// An event of this version.
    #[must_use]
    pub fn new(at: UnixMicros, what: What) -> Self {
        Self { version: EVENT_VERSION, at, what }
    }

    /// The worker it is about, if it is about one.
    #[must_use]
    pub fn worker(&self) -> Option<&WorkerId> {
        match &self.what {
            What::WorkerStarted { worker, .. }
            | What::WorkerReady { worker, .. }
            | What::WorkerNotReady { worker, .. }
            | What::WorkerStartOverdue { worker, .. }
            | What::WorkerExited { worker, .. }
            | What::WorkerAdopted { worker, .. }
            | What::WorkerStopping { worker, .. }
            | What::WorkerLeftAlone { worker, .. }
            | What::WorkerBreakerOpen { worker, .. }
            | What::WorkerStable { worker, .. }
            | What::WorkerLeftover { worker, .. }
            | What::WorkerTrouble { worker, .. }
            | What::WorkerJobsLost { worker, .. }
            | What::WorkerJobSetAside { worker, .. }
            | What::WorkerOrder { worker, .. }
            | What::WorkerEvidence { worker, .. } => Some(worker),
            _ => None,
        }
    }

    /// The bytes that travel: JSON.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads an event; a kind of a later version becomes [`What::Unknown`].
    ///
    /// # Errors
    /// A fragment that says why the bytes are not an event.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > EVENT_BYTES_MAX {
            return Err(format!(
                "event of {} bytes is larger than the limit of {EVENT_BYTES_MAX} bytes",
                bytes.len()
            ));
        }
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_text_of_version_1_stays() {
        let worker = WorkerId::new("pyannote-1").unwrap();
        let what = What::WorkerExited {
            worker,
            pid: Some(7),
            reason: "signal 9 (SIGKILL)".into(),
            attempt: 1,
            restart_in_ms: 1000,
        };
        let event = Event::new(UnixMicros(5), what);
        let text = br#"{"version":1,"at":5,"kind":"worker_exited","worker":"pyannote-1","pid":7,"reason":"signal 9 (SIGKILL)","attempt":1,"restart_in_ms":1000}"#;
        assert_eq!(event.to_bytes(), text);
        assert_eq!(Event::from_bytes(text).unwrap(), event);
    }

    #[test]
    fn every_kind_comes_back_as_it_was() {
        let worker = || WorkerId::new("w").unwrap();
        let reason = || String::from("理由");
        let kinds = [
            What::AgentStarted { agent_version: "0.1.0".into(), epoch: Epoch(7) },
            What::WorkerStarted { worker: worker(), pid: 7 },
            What::WorkerReady { worker: worker(), load_ms: 1, down_ms: None },
            What::WorkerReady { worker: worker(), load_ms: 1, down_ms: Some(2) },
            What::WorkerNotReady { worker: worker(), reason: reason() },
            What::WorkerStartOverdue { worker: worker(), reason: reason(), waited_ms: 3 },
            What::WorkerExited {
                worker: worker(),
                pid: None,
                reason: reason(),
                attempt: 1,
                restart_in_ms: 2,
            },
            What::GpuDriverUnresponsive { function: "nvmlInit_v2".into(), gpu: Some(1) },
            What::GpuDriverRecovered,
            What::GpuDriverAbsent { reason: reason() },
            What::GpuXid {
                gpu: None,
                uuid: String::new(),
                code: 79,
                pid: Some(7),
                action: XidAction::Reboot,
                text: reason(),
            },
            What::GpuRecoveryAction { gpu: 1, uuid: "GPU-1".into(), action: RecoveryAction::GpuReset },
        ];
        for what in kinds {
            let event = Event::new(UnixMicros(5), what);
            assert_eq!(Event::from_bytes(&event.to_bytes()), Ok(event));
        }
    }

    #[test]
    fn an_action_of_a_later_version_is_unknown_and_the_rest_is_kept() {
        let text =
            br#"{"version":2,"at":5,"kind":"gpu_xid","uuid":"GPU-1","code":9000,"action":"pray","text":"x"}"#;
        let told = Event::from_bytes(text).unwrap().what;
        assert!(matches!(told, What::GpuXid { code: 9000, action: XidAction::Unknown, .. }), "{told:?}");
    }

    #[test]
    fn an_action_is_named_by_its_word() {
        for action in XidAction::ALL {
            assert_eq!(XidAction::named(action.word()), Some(action));
            assert_eq!(serde_json::to_value(action).unwrap(), action.word());
        }
        for number in 0..words::RECOVERY_ACTIONS {
            let action = RecoveryAction::of(number);
            let word = serde_json::to_value(action).unwrap();
            assert_eq!(word, action.word());
            assert_eq!(serde_json::from_value::<RecoveryAction>(word).unwrap(), action);
        }
    }

    #[test]
    fn a_kind_of_a_later_version_is_kept_as_unknown() {
        let text = br#"{"version":2,"at":5,"kind":"worker_levitated","worker":"w","height":3}"#;
        assert_eq!(Event::from_bytes(text).unwrap().what, What::Unknown);
    }
}
