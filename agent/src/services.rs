//! Probes of services: is the API, the web page, the database's front there, from this host's view.
//!
//! Takes `[[service]]`; gives a tick per probe (`service_up`, `service_probe_seconds`) and a state for
//! people. One task a service: one that hangs is cut off at its own time-out and delays no other. When
//! the frame stage is slow its ticks are dropped and counted like any other.

use std::sync::Arc;

use diarwatch_shared::clock::{self, UnixMicros};
use diarwatch_shared::reading::Reading;
use diarwatch_shared::schema::SeriesKey;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::board::Board;
use crate::config::service::ServiceConfig;
use crate::probe::{ProbeError, ProbeResult, Prober, Verdict};
use crate::sample::{Sink, Tick};

/// Where a service is, for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServiceStatus {
    /// Its name.
    pub service: String,
    /// Whether it works; `null` while no probe has ended.
    pub up: Option<bool>,
    /// Why not, for a person.
    pub problem: Option<String>,
    /// Time the last probe took, in milliseconds.
    pub probe_ms: Option<u64>,
    /// When it was last asked.
    pub probed_us: Option<UnixMicros>,
    /// Bad probes in a row.
    pub failures: u32,
}

/// Asks until the set is dropped.
///
/// # Errors
/// When no probes can be made.
pub fn start(configs: Vec<ServiceConfig>, sink: &Sink, board: &Board) -> Result<JoinSet<()>, ProbeError> {
    let mut tasks = JoinSet::new();
    board.update(|board| board.services = configs.iter().map(ServiceStatus::new).collect());
    for config in configs {
        let prober =
            if config.url.starts_with("https:") { Prober::with_system_roots()? } else { Prober::new()? };
        tasks.spawn(ask(config, prober, sink.clone(), board.clone()));
    }
    Ok(tasks)
}

async fn ask(config: ServiceConfig, prober: Prober, sink: Sink, board: Board) {
    let probe = config.probe();
    let group: Arc<str> = format!("service/{}", config.name).into();
    let labels = [("service", config.name.as_str())];
    let keys: Arc<[SeriesKey]> =
        ["service_up", "service_probe_seconds"].map(|metric| SeriesKey::new(metric, &labels)).into();
    let mut status = ServiceStatus::new(&config);
    let mut ticks = interval(config.interval.0);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let result = prober.probe(&probe).await;
        let now = clock::now();
        let before = status.up;
        status.took(&result, config.failures, now);
        match (before, status.up) {
            (Some(true), Some(false)) => {
                warn!(
                    service = config.name,
                    problem = status.problem,
                    "service does not answer as it should"
                );
            }
            (Some(false), Some(true)) => info!(service = config.name, "service answers again"),
            _ => {}
        }
        sink.tick(Tick {
            group: Arc::clone(&group),
            at: now,
            keys: Arc::clone(&keys),
            readings: readings(&status, &result),
        });
        board.update(|board| board.service_told(status.clone()));
    }
}

fn readings(status: &ServiceStatus, result: &ProbeResult) -> Vec<Reading> {
    let up = status.up.map(|up| if up { 1.0 } else { 0.0 });
    vec![up.ok_or(diarwatch_shared::reading::Missing::NotYet), Ok(result.took.as_secs_f64())]
}

impl ServiceStatus {
    fn new(config: &ServiceConfig) -> Self {
        let service = config.name.clone();
        Self { service, up: None, problem: None, probe_ms: None, probed_us: None, failures: 0 }
    }

    /// One bad probe of a service that works is not yet a service that is down.
    fn took(&mut self, result: &ProbeResult, failures_max: u32, now: UnixMicros) {
        self.probe_ms = Some(u64::try_from(result.took.as_millis()).unwrap_or(u64::MAX));
        self.probed_us = Some(now);
        self.problem = result.verdict.reason().map(str::to_owned);
        if result.verdict == Verdict::Ready {
            self.failures = 0;
            self.up = Some(true);
        } else {
            self.failures = self.failures.saturating_add(1);
            if self.failures >= failures_max {
                self.up = Some(false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_service_is_down_after_as_many_bad_probes_as_configured_and_up_after_one_good_one() {
        let config: ServiceConfig = toml_of("name = \"API\"\nurl = \"http://127.0.0.1:1/\"\n");
        let mut status = ServiceStatus::new(&config);
        let result = |verdict| ProbeResult { verdict, took: Duration::from_millis(3) };
        let bad = result(Verdict::NoAnswer { reason: "refused".into() });
        status.took(&bad, 2, UnixMicros(1));
        assert_eq!((status.up, readings(&status, &bad)[0].is_err()), (None, true));
        status.took(&bad, 2, UnixMicros(2));
        assert_eq!((status.up, status.problem.as_deref()), (Some(false), Some("refused")));
        status.took(&result(Verdict::Ready), 2, UnixMicros(3));
        assert_eq!((status.up, status.problem.clone(), status.failures), (Some(true), None, 0));
        status.took(&bad, 2, UnixMicros(4));
        assert_eq!(status.up, Some(true));
    }

    #[test]
    fn what_cannot_be_asked_is_refused_with_its_key() {
        let fields = |text: &str| -> Vec<String> {
            toml_of(text).validate().into_iter().map(|fault| fault.field).collect()
        };
        assert!(
            fields("name = \"Claude API\"\nurl = \"https://api.example.com/\"\nstatus = 401\n").is_empty()
        );
        let wrong = "name = \" \"\nurl = \"ftp://x/\"\ninterval = \"1ms\"\nfailures = 0\nequals = 1\n";
        assert_eq!(fields(wrong), ["name", "interval", "interval", "failures", "url", "json_pointer"]);
    }

    fn toml_of(text: &str) -> ServiceConfig {
        diarwatch_shared::config::parse(std::path::Path::new("a.toml"), text).unwrap()
    }
}
