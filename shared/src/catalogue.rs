//! The one list of series: name, kind, help and quantum. What is not here is not sent.
//!
//! Names follow Prometheus (base units, `_bytes`, `_ratio`, `_seconds`, `_total`). The quantum is
//! the step a value is kept in, as a fraction; 0/1 means bit-exact.

/// Whether a series goes up and down or only up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only goes up, but for a restart from 0.
    Counter,
    /// Always 1; its labels carry facts.
    Info,
}

impl Kind {
    /// The word of the exposition format.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Info => "info",
        }
    }
}

/// The step a value is kept in: `numerator / denominator`; a zero numerator means bit-exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantum {
    /// Above the line.
    pub numerator: u32,
    /// Below the line, never 0.
    pub denominator: u32,
}

/// Keep the value as it is, bit by bit.
pub const EXACT: Quantum = Quantum { numerator: 0, denominator: 1 };
const WHOLE: Quantum = Quantum { numerator: 1, denominator: 1 };
const HUNDREDTH: Quantum = Quantum { numerator: 1, denominator: 100 };
const TENTH: Quantum = Quantum { numerator: 1, denominator: 10 };
const MILLI: Quantum = Quantum { numerator: 1, denominator: 1_000 };
const TEN_THOUSANDTH: Quantum = Quantum { numerator: 1, denominator: 10_000 };

/// One metric of the catalogue.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name in the Prometheus data model.
    pub name: &'static str,
    /// Gauge, counter or info.
    pub kind: Kind,
    /// One line of help, unit included.
    pub help: &'static str,
    /// The step its values are kept in.
    pub quantum: Quantum,
}

const fn gauge(name: &'static str, quantum: Quantum, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, help, quantum }
}

const fn counter(name: &'static str, quantum: Quantum, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, help, quantum }
}

const fn info(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Info, help, quantum: WHOLE }
}

/// Every metric that an agent sends.
pub const METRICS: &[Metric] = &[
    info("agent_info", "Facts of the agent: version."),
    gauge("agent_resident_bytes", WHOLE, "Resident memory of the agent, sampler child excluded, in bytes."),
    counter(
        "agent_cpu_seconds_total",
        HUNDREDTH,
        "CPU time of the agent, sampler child excluded, in seconds.",
    ),
    counter("agent_ticks_dropped_total", WHOLE, "Ticks that were dropped because the frame stage was slow."),
    gauge("spool_bytes", WHOLE, "Size of the local spool, in bytes."),
    gauge("spool_frames_unacked", WHOLE, "Frames that the aggregator has not yet acknowledged."),
    counter("spool_frames_lost_total", WHOLE, "Frames that the spool gave up to stay in its bounds."),
    info("gpu_info", "Facts of a GPU: name, driver, simulated."),
    gauge("gpu_driver_up", WHOLE, "1 while the NVIDIA driver answers, 0 when it does not or is absent."),
    gauge("gpu_driver_unresponsive", WHOLE, "1 while a driver call does not return."),
    gauge(
        "gpu_utilization_ratio",
        HUNDREDTH,
        "Part of the last sample period in which a kernel ran, 0 to 1.",
    ),
    gauge(
        "gpu_memory_utilization_ratio",
        HUNDREDTH,
        "Part of the last sample period in which memory was read or written, 0 to 1.",
    ),
    gauge("gpu_memory_used_bytes", WHOLE, "Device memory in use, driver's reserve excluded, in bytes."),
    gauge("gpu_memory_total_bytes", WHOLE, "Device memory, in bytes."),
    gauge("gpu_power_watts", MILLI, "Power draw of the board, in watts."),
    gauge("gpu_temperature_celsius", WHOLE, "Temperature of the die, in degrees Celsius."),
    gauge("gpu_sm_clock_hertz", WHOLE, "Clock of the multiprocessors, in hertz."),
    gauge(
        "gpu_action_wanted",
        WHOLE,
        "What the GPU needs to be well: 0 nothing, 1 a reset of it, 2 a reboot of the node, 3 something else.",
    ),
    counter("gpu_xid_errors_total", WHOLE, "XID errors of the GPU since the agent started."),
    gauge(
        "host_cpu_utilization_ratio",
        TEN_THOUSANDTH,
        "Part of the CPU time since the last look that was not idle, 0 to 1.",
    ),
    gauge("host_memory_used_bytes", WHOLE, "Memory that is not available for new work, in bytes."),
    gauge("host_memory_total_bytes", WHOLE, "Memory of the host, in bytes."),
    gauge("host_disk_used_bytes", WHOLE, "Bytes in use on a mounted file system."),
    gauge("host_disk_total_bytes", WHOLE, "Size of a mounted file system, in bytes."),
    counter("host_network_receive_bytes_total", WHOLE, "Bytes received by a network interface."),
    counter("host_network_transmit_bytes_total", WHOLE, "Bytes sent by a network interface."),
    counter(
        "host_pressure_seconds_total",
        MILLI,
        "Time in which some task waited for a resource (PSI), in seconds.",
    ),
    gauge("host_load1", HUNDREDTH, "Load average of the last minute."),
    counter("host_uptime_seconds", WHOLE, "Time since the host booted, in seconds."),
    gauge(
        "worker_ready",
        WHOLE,
        "1 when the worker's readiness body says so, 0 when not; no value while it first loads.",
    ),
    counter("worker_restarts_total", WHOLE, "Restarts of the worker by this run of the agent."),
    gauge("worker_uptime_seconds", TENTH, "Time since the worker's process started, in seconds."),
    gauge(
        "worker_restart_breaker_open",
        WHOLE,
        "1 while the worker was restarted too often and its next tries wait long, 0 when not.",
    ),
    gauge(
        "worker_held",
        WHOLE,
        "1 while a person holds the worker, so that its agent leaves it alone, 0 when not.",
    ),
    gauge("worker_probe_seconds", MILLI, "Time the last readiness probe took, in seconds."),
    info("queue_info", "Facts of a queue: source, and whether its numbers are estimated."),
    gauge("queue_up", WHOLE, "1 while the queue's source answers, 0 while it does not."),
    gauge("queue_waiting", WHOLE, "Jobs that wait."),
    gauge("queue_processing", WHOLE, "Jobs that are worked on."),
    gauge("queue_oldest_seconds", TENTH, "Age of the oldest waiting job, in seconds."),
    counter("queue_completed_total", WHOLE, "Jobs completed since the agent started."),
    counter("queue_failed_total", WHOLE, "Jobs failed since the agent started."),
    gauge("queue_completed_per_minute", MILLI, "Jobs completed per minute, over the last ten minutes."),
    gauge("queue_failed_per_minute", MILLI, "Jobs failed per minute, over the last ten minutes."),
    gauge("queue_drain_seconds", WHOLE, "Time until nothing waits at the present rates, in seconds."),
    gauge("queue_growing", WHOLE, "1 while the queue only grows and nothing comes out of it."),
    gauge("job_duration_mean_seconds", MILLI, "Mean processing time of the last jobs, in seconds."),
    gauge(
        "job_duration_p95_seconds",
        MILLI,
        "95th percentile of the processing time of the last jobs, in seconds.",
    ),
    gauge("job_seconds_per_audio_hour", MILLI, "Processing time per hour of audio, in seconds."),
    gauge(
        "api_request_duration_p95_seconds",
        MILLI,
        "95th percentile of the API's response time, in seconds.",
    ),
    gauge("api_errors_ratio", EXACT, "Part of the API's answers that are errors, 0 to 1."),
    gauge("sessions_active", WHOLE, "Sessions that are open."),
    gauge("sessions_max", WHOLE, "Sessions that may be open at once."),
    gauge("postgres_connections", WHOLE, "Connections to the database."),
    gauge("postgres_connections_max", WHOLE, "Connections that the database takes."),
    gauge("postgres_storage_used_bytes", WHOLE, "Storage of the database in use, in bytes."),
    gauge("postgres_storage_max_bytes", WHOLE, "Storage that the database may use, in bytes."),
    gauge("websocket_connections", WHOLE, "WebSocket connections that are open."),
    gauge("websocket_connections_max", WHOLE, "WebSocket connections that may be open at once."),
    gauge(
        "sessions_aborted_ratio",
        EXACT,
        "Part of the day's sessions that did not end as they should, 0 to 1.",
    ),
    gauge("reports_failed_ratio", EXACT, "Part of the reports that could not be made, 0 to 1."),
    gauge("ai_api_duration_seconds", MILLI, "Response time of the AI services, in seconds."),
    gauge("ai_errors_ratio", EXACT, "Part of the AI analyses that failed, 0 to 1."),
    gauge("service_up", WHOLE, "1 when the last probe of a service was good, 0 when not."),
    gauge("service_probe_seconds", MILLI, "Time the last probe of a service took, in seconds."),
];

/// Metrics that the aggregator makes at evaluation time.
pub const COMPUTED: &[Metric] = &[gauge(
    "up",
    WHOLE,
    "1 while fresh frames or good probes of a service arrive, 0 when not; no series for one never seen.",
)];

/// The metric of a name.
#[must_use]
pub fn metric(name: &str) -> Option<&'static Metric> {
    METRICS.iter().chain(COMPUTED).find(|metric| metric.name == name)
}

/// The quantum of a name; bit-exact when the catalogue does not know it.
#[must_use]
pub fn quantum(name: &str) -> Quantum {
    metric(name).map_or(EXACT, |metric| metric.quantum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_follow_prometheus() {
        let mut seen = std::collections::BTreeSet::new();
        for metric in METRICS.iter().chain(COMPUTED) {
            assert!(seen.insert(metric.name), "{} stands twice", metric.name);
            assert!(metric.name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
            assert!(metric.quantum.denominator > 0);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
            if metric.name.ends_with("_total") {
                assert_eq!(metric.kind, Kind::Counter, "{}", metric.name);
            }
        }
    }
}
