//! A queue's state as series, in a group of its own: takes what the account told, gives a tick.

use std::sync::Arc;

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::schema::SeriesKey;

use super::account::{Facts, Told};
use crate::sample::Tick;

const METRICS: [&str; 13] = [
    "queue_up",
    "queue_waiting",
    "queue_processing",
    "queue_oldest_seconds",
    "queue_completed_total",
    "queue_failed_total",
    "queue_completed_per_minute",
    "queue_failed_per_minute",
    "queue_drain_seconds",
    "queue_growing",
    "job_duration_mean_seconds",
    "job_duration_p95_seconds",
    "job_seconds_per_audio_hour",
];

/// The series of one queue.
pub struct QueueSeries {
    group: Arc<str>,
    keys: Arc<[SeriesKey]>,
}

impl QueueSeries {
    /// The series of a queue.
    #[must_use]
    pub fn new(facts: &Facts) -> Self {
        let labels = [("queue", facts.queue.as_str()), ("service", facts.service.as_str())];
        let estimated = if facts.estimated { "true" } else { "false" };
        let info: Vec<_> =
            labels.into_iter().chain([("source", facts.source), ("estimated", estimated)]).collect();
        let mut keys = vec![SeriesKey::new("queue_info", &info)];
        keys.extend(METRICS.iter().map(|metric| SeriesKey::new(metric, &labels)));
        Self { group: format!("queue/{}", facts.queue).into(), keys: keys.into() }
    }

    /// What was told as a tick.
    #[must_use]
    pub fn tick(&self, told: &Told, now: UnixMicros) -> Tick {
        let readings = vec![
            Ok(1.0),
            told.up,
            told.waiting,
            told.processing,
            told.oldest_seconds,
            told.completed_total,
            told.failed_total,
            told.completed_per_minute,
            told.failed_per_minute,
            told.drain_seconds,
            told.growing,
            told.mean_seconds,
            told.p95_seconds,
            told.seconds_per_audio_hour,
        ];
        Tick { group: Arc::clone(&self.group), at: now, keys: Arc::clone(&self.keys), readings }
    }
}
