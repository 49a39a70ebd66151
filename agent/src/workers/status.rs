//! Where a worker is, for the series and for people.

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::node::WorkerId;
use diarwatch_shared::reading::Missing;
use serde::{Serialize, Serializer};

use crate::config::worker::DriverKind;
use crate::judge::Phase;
use crate::judge::why::Why;
use crate::status::Number;

/// Where a worker is; sent at each change and at least each second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkerStatus {
    /// Which worker.
    pub worker: WorkerId,
    /// What people call it.
    pub service: String,
    /// Who runs it.
    pub driver: DriverKind,
    /// Where it is, in a word.
    pub phase: Phase,
    /// Whether it takes jobs; none while it first loads.
    #[serde(serialize_with = "known_or_not_yet")]
    pub ready: Option<bool>,
    /// Its live process.
    pub pid: Option<u32>,
    /// Restarts that were counted.
    pub restarts: u64,
    /// When its live process started.
    #[serde(rename = "started_us")]
    pub started: Option<UnixMicros>,
    /// The last probe of its live process.
    pub last_probe: Option<LastProbe>,
    /// How its last process ended, or why it could not be started.
    pub last_exit: Option<String>,
    /// The wait that is left before the next start, in milliseconds, while it waits for one.
    pub next_start_in_ms: Option<u64>,
    /// When its phase or its process last changed.
    #[serde(rename = "since_us")]
    pub since: UnixMicros,
    /// Who holds it: the judge touches it no more.
    pub held_by: Option<String>,
    /// Who drained it: its balancer leaves it out.
    pub drained_by: Option<String>,
    /// Restarts within the budget's window, and whether its breaker is open.
    pub restarts_in_window: usize,
    /// See above.
    pub breaker_open: bool,
    /// Statuses of this worker that the frame stage had no room for.
    pub statuses_dropped: u64,
    /// Things it wrote of trouble that nobody took in time.
    pub findings_dropped: u64,
    /// Why it is as it is; asked for by itself.
    #[serde(skip)]
    pub why: Why,
}

/// A probe that came to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LastProbe {
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// What it found, for people: `ready`, `not ready: ...`, `no answer: ...`.
    pub verdict: String,
}

/// `null` with its reason, by way of [`crate::status::with_reasons`].
fn known_or_not_yet<S: Serializer>(ready: &Option<bool>, serializer: S) -> Result<S::Ok, S::Error> {
    match ready {
        Some(ready) => serializer.serialize_bool(*ready),
        None => Number::from(Err(Missing::NotYet)).serialize(serializer),
    }
}
