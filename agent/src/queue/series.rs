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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Look;
    use crate::queue::account::Account;
    use diarwatch_shared::catalogue;

    #[test]
    fn each_series_is_in_the_catalogue_and_has_its_reading() {
        let facts = Facts { queue: "q".into(), service: "s".into(), source: "log", estimated: true };
        let series = QueueSeries::new(&facts);
        let mut account = Account::new(facts, UnixMicros(0));
        account.looked(&Look { waiting: Ok(3.0), ..Look::default() }, UnixMicros(1));
        let tick = series.tick(&account.told(UnixMicros(1)), UnixMicros(1));
        assert_eq!((tick.group.as_ref(), tick.keys.len()), ("queue/q", tick.readings.len()));
        for key in tick.keys.iter() {
            assert!(catalogue::metric(&key.metric).is_some(), "{key}");
        }
        assert_eq!(
            tick.keys[0].to_string(),
            r#"queue_info{estimated="true",queue="q",service="s",source="log"}"#
        );
        let of = |metric: &str| tick.readings[tick.keys.iter().position(|key| key.metric == metric).unwrap()];
        assert_eq!((of("queue_up"), of("queue_waiting"), of("queue_growing")), (Ok(1.0), Ok(3.0), Ok(0.0)));
    }
}
