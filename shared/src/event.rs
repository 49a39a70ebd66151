//! What happened on a node, in the words of the one who reads it at 3 a.m. Events go into the same
//! spool as the frames and are cut as frames of their own, at once.

use serde::{Deserialize, Serialize};

use crate::clock::UnixMicros;
use crate::limits::EVENT_BYTES_MAX;
use crate::node::{Epoch, WorkerId};

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
            | What::WorkerExited { worker, .. } => Some(worker),
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
        ];
        for what in kinds {
            let event = Event::new(UnixMicros(5), what);
            assert_eq!(Event::from_bytes(&event.to_bytes()), Ok(event));
        }
    }

    #[test]
    fn a_kind_of_a_later_version_is_kept_as_unknown() {
        let text = br#"{"version":2,"at":5,"kind":"worker_levitated","worker":"w","height":3}"#;
        assert_eq!(Event::from_bytes(text).unwrap().what, What::Unknown);
    }
}
