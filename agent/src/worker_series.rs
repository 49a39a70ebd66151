//! A worker's status as series, in a group of its own.
//!
//! Takes a [`WorkerStatus`]; gives a tick, and whether its readiness or its breaker changed: that is cut at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::node::WorkerId;
use diarwatch_shared::reading::{Missing, Reading};
use diarwatch_shared::schema::SeriesKey;

use crate::sample::Tick;
use crate::workers::WorkerStatus;

const METRICS: [&str; 6] = [
    "worker_ready",
    "worker_restarts_total",
    "worker_uptime_seconds",
    "worker_probe_seconds",
    "worker_restart_breaker_open",
    "worker_held",
];

struct Known {
    group: Arc<str>,
    keys: Arc<[SeriesKey]>,
    /// What an alert may depend on: readiness, and whether the breaker is open.
    told: (Option<bool>, bool),
}

/// The series of all workers.
#[derive(Default)]
pub struct WorkerSeries {
    known: BTreeMap<WorkerId, Known>,
}

impl WorkerSeries {
    /// The worker is looked after no more, or under another configuration.
    pub fn forget(&mut self, worker: &WorkerId) {
        self.known.remove(worker);
    }

    /// A status as a tick, and whether it must not wait for the second to end.
    #[expect(clippy::cast_precision_loss, reason = "counts and milliseconds are far below 2^53")]
    pub fn tick(&mut self, status: &WorkerStatus, now: UnixMicros) -> (Tick, bool) {
        let known = self.known.entry(status.worker.clone()).or_insert_with(|| Known::of(status));
        let told = (status.ready, status.breaker_open);
        let changed = known.told != told;
        known.told = told;
        let flag = |ready: bool| if ready { 1.0 } else { 0.0 };
        let readings: Vec<Reading> = vec![
            status.ready.map(flag).ok_or(Missing::NotYet),
            Ok(status.restarts as f64),
            status.started.map(|started| now.since(started).as_secs_f64()).ok_or(Missing::NotYet),
            status.last_probe.as_ref().map(|probe| probe.took_ms as f64 / 1e3).ok_or(Missing::NotYet),
            Ok(flag(status.breaker_open)),
            Ok(flag(status.held_by.is_some())),
        ];
        (Tick { group: Arc::clone(&known.group), at: now, keys: Arc::clone(&known.keys), readings }, changed)
    }
}

impl Known {
    fn of(status: &WorkerStatus) -> Self {
        let labels = [("worker", status.worker.as_str()), ("service", status.service.as_str())];
        let keys = METRICS.iter().map(|metric| SeriesKey::new(metric, &labels)).collect();
        Self { group: format!("worker/{}", status.worker).into(), keys, told: (None, false) }
    }
}
