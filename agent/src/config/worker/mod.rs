//! One `[[worker]]` of the configuration: what runs, when it counts as ready, how it is restarted.
//!
//! Takes what TOML gave (unknown keys are already refused); gives a checked [`WorkerConfig`], or
//! every [`Fault`] with the key at fault and how to mend it. Looks at the disk only to see that the
//! command is there. No stage follows: this is read once, at start.

mod drive;
mod fault;
pub mod hook;
mod readiness;
pub mod supervise;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use diarwatch_shared::limits::LABEL_BYTES_MAX;
use diarwatch_shared::node::{QueueId, WorkerId};
use diarwatch_shared::quantity::Span;
use serde::{Deserialize, Serialize, Serializer};

pub use drive::DriverKind;
pub use fault::Fault;
pub(crate) use fault::Faults;
pub use readiness::{PROBE_INTERVAL_MS_MIN, ReadinessConfig};
use supervise::{GpuNeed, JobsConfig, ProofConfig, StopConfig, SuperviseConfig};

/// The shortest `backoff_base`, in milliseconds: below it a restart is a busy loop.
pub const BACKOFF_BASE_MS_MIN: u64 = 100;

/// A worker on this host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerConfig {
    /// Its name: a DNS label, unique on this host, the `worker` label of its series. No default.
    pub name: WorkerId,
    /// What people call it, such as `pyannote #1`, and the `service` label. Default: the name.
    pub service: Option<String>,
    /// Who starts and stops it: `systemd`, `docker`, or `child` (the agent's own process). No default.
    pub driver: DriverKind,
    /// The unit of the driver `systemd`, such as `pyannote@1.service`. One of `unit` and `command`.
    pub unit: Option<String>,
    /// The container of the driver `docker`, by its name: the one that has the name now, whoever made it.
    pub container: Option<String>,
    /// The socket of the Docker Engine. Default: `/var/run/docker.sock`.
    #[serde(default = "drive::docker_socket")]
    pub docker_socket: PathBuf,
    /// The program, as an absolute path, and its arguments; no shell is involved. For the driver `child`,
    /// and for `systemd` without a unit: it becomes the transient unit `diarwatch-worker-NAME.service`.
    #[serde(default)]
    pub command: Vec<String>,
    /// The user of the transient unit. Default: root.
    pub user: Option<String>,
    /// Variables of the worker's environment. Default: none. A `child` also has those of the agent, but
    /// for what systemd gave to the agent alone (`NOTIFY_SOCKET` and its like).
    #[serde(default)]
    pub environment: Environment,
    /// The directory the program starts in, absolute. Default: the agent's own, `/` in a unit.
    pub working_directory: Option<PathBuf>,
    /// How its readiness is asked for.
    pub readiness: ReadinessConfig,
    /// How long a start that shows no progress may take at least, a duration; default 90 seconds. What
    /// earlier starts took (twice the p99 of the last 20) makes it longer, up to `startup_max`.
    #[serde(default = "startup_min")]
    pub startup_min: Span,
    /// How long a start may take at most, a duration; default 5 minutes. A worker that is not ready by
    /// then is stopped and started anew.
    #[serde(default = "startup_max")]
    pub startup_max: Span,
    /// The longest wait before the first restart, a duration of at least 100 ms; default 1 second.
    /// It doubles with each further restart; the wait drawn is between half of it and all of it.
    #[serde(default = "backoff_base")]
    pub backoff_base: Span,
    /// The longest wait before any restart, a duration; default 2 minutes. Restarts never end.
    #[serde(default = "backoff_max")]
    pub backoff_max: Span,
    /// How long a worker has to be ready without a break before its next restart counts as the
    /// first again, a duration; default 10 minutes. One completed job proves as much.
    #[serde(default = "healthy_after")]
    pub healthy_after: Span,
    /// How long a worker has between SIGTERM and SIGKILL, a duration. Default: the longest job seen and
    /// 30 seconds; 30 seconds while none was seen. A worker ends its accepted jobs first.
    pub stop_grace: Option<Span>,
    /// Whether it needs a GPU: `auto` (once it was seen to hold GPU memory), `required` or `none`.
    #[serde(default)]
    pub gpu: GpuNeed,
    /// The queue whose jobs this worker does, by its name. Default: nothing is known of its jobs.
    pub queue: Option<QueueId>,
    /// When the judge acts.
    #[serde(default)]
    pub supervise: SuperviseConfig,
    /// How a live worker is stopped.
    #[serde(default)]
    pub stop: StopConfig,
    /// What proves a recovery.
    #[serde(default)]
    pub proof: ProofConfig,
    /// What becomes of its jobs when it ends.
    #[serde(default)]
    pub jobs: JobsConfig,
}

/// Environment variables; their values may be secrets and are not shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Environment(pub BTreeMap<String, String>);

impl WorkerConfig {
    /// What people call the worker.
    #[must_use]
    pub fn service(&self) -> &str {
        self.service.as_deref().unwrap_or(self.name.as_str())
    }

    /// Everything that is wrong with the values; empty when the worker can be run.
    ///
    /// Two workers of one name are the caller's to find.
    #[must_use]
    pub fn validate(&self) -> Vec<Fault> {
        let mut faults = Faults::default();
        self.check_service(&mut faults);
        self.check_driver(&mut faults);
        self.check_place(&mut faults);
        self.check_spans(&mut faults);
        faults.0.extend(self.readiness.faults(&["http"]));
        self.supervise.check(&mut faults);
        self.stop.check(&mut faults);
        self.proof.check(&mut faults);
        self.jobs.check(&mut faults);
        faults.0
    }

    fn check_service(&self, faults: &mut Faults) {
        let service = self.service();
        if service.is_empty() || service.len() > LABEL_BYTES_MAX {
            faults.add(
                "service",
                format!("it has {} bytes", service.len()),
                format!("write 1 to {LABEL_BYTES_MAX} bytes, or leave it out"),
            );
        }
    }

    fn check_place(&self, faults: &mut Faults) {
        if let Some(directory) = &self.working_directory
            && !(directory.is_absolute() && directory.is_dir())
        {
            faults.add(
                "working_directory",
                format!("`{}` is not an absolute path of a directory", directory.display()),
                "create it or correct the path",
            );
        }
        for (name, value) in &self.environment.0 {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                faults.add(
                    format!("environment.{}", name.escape_debug()),
                    "it cannot be an environment variable",
                    "a name is not empty and has no `=`; neither part has a NUL character",
                );
            }
        }
    }

    fn check_spans(&self, faults: &mut Faults) {
        faults.at_least("backoff_base", self.backoff_base, BACKOFF_BASE_MS_MIN);
        if self.backoff_max < self.backoff_base {
            faults.add(
                "backoff_max",
                format!("{} is shorter than backoff_base ({})", self.backoff_max, self.backoff_base),
                format!("write at least {}", self.backoff_base),
            );
        }
        if self.startup_max.0 == Duration::ZERO {
            let hint = "write how long a start may take, such as 5m";
            faults.add("startup_max", "0s leaves no time to start", hint);
        }
    }
}

/// The names alone.
impl Serialize for Environment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.keys().map(|name| (name, super::effective::REDACTED)))
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

fn startup_min() -> Span {
    Span::secs(90)
}

fn startup_max() -> Span {
    Span::secs(300)
}

fn backoff_base() -> Span {
    Span::secs(1)
}

fn backoff_max() -> Span {
    Span::secs(120)
}

fn healthy_after() -> Span {
    Span::secs(600)
}

#[cfg(test)]
mod tests {
    use super::*;
    use diarwatch_shared::config::{ConfigError, parse};
    use std::path::Path;

    const WORKER: &str = r#"
name = "pyannote-1"
driver = "child"
command = ["/bin/sh", "-c", "sleep 1000"]
[readiness]
url = "http://127.0.0.1:8001/ready"
json_pointer = "/status"
equals = "ready"
"#;

    fn read(text: &str) -> Result<WorkerConfig, ConfigError> {
        parse(Path::new("a.toml"), text)
    }

    fn fields(text: &str) -> Vec<String> {
        read(text).unwrap().validate().into_iter().map(|fault| fault.field).collect()
    }

    #[test]
    fn a_worker_needs_a_name_a_driver_a_command_and_an_address() {
        let worker = read(WORKER).unwrap();
        assert_eq!(worker.validate(), []);
        assert_eq!(worker.service(), "pyannote-1");
        assert_eq!(worker.startup_max, Span::secs(300));
        assert_eq!(worker.readiness.failures, 2);
        assert_eq!(worker.readiness.equals, Some("ready".into()));
    }

    #[test]
    fn each_driver_says_what_it_needs_and_what_means_nothing_to_it() {
        let with = |driver: &str, more: &str| {
            let command = "command = [\"/bin/sh\", \"-c\", \"sleep 1000\"]";
            fields(&WORKER.replace("\"child\"", &format!("\"{driver}\"")).replace(command, more))
        };
        assert_eq!(with("systemd", "unit = \"pyannote@1.service\""), [""; 0]);
        assert_eq!(with("systemd", "command = [\"/bin/sh\"]\nuser = \"nobody\""), [""; 0]);
        assert_eq!(with("systemd", ""), ["unit"]);
        assert_eq!(with("systemd", "unit = \"pyannote\""), ["unit"]);
        assert_eq!(with("systemd", "unit = \"a.service\"\nuser = \"nobody\""), ["user"]);
        assert_eq!(with("docker", "container = \"pyannote-1\""), [""; 0]);
        assert_eq!(with("docker", ""), ["container"]);
        assert_eq!(with("docker", "container = \"../etc\""), ["container"]);
        assert_eq!(with("child", "command = [\"/bin/sh\"]\ncontainer = \"c\""), ["container"]);
        let error = read(&WORKER.replace("\"child\"", "\"chlid\"")).unwrap_err();
        assert_eq!(error.hint.as_deref(), Some("did you mean `child`?"), "{error}");
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_known_one() {
        let error = read(&WORKER.replace("json_pointer", "json_ponter")).unwrap_err();
        assert_eq!(error.hint.as_deref(), Some("did you mean `json_pointer`?"), "{error}");
    }

    #[test]
    fn each_value_that_cannot_work_is_named() {
        let with = |from: &str, to: &str| fields(&WORKER.replace(from, to));
        assert_eq!(with("[\"/bin/sh\", \"-c\", \"sleep 1000\"]", "[]"), ["command"]);
        assert_eq!(with("/bin/sh", "sh"), ["command[0]"]);
        assert_eq!(with("/bin/sh", "/no/such/program"), ["command[0]"]);
        assert_eq!(with("/bin/sh", "/etc/passwd"), ["command[0]"]);
        assert_eq!(with("http://", "https://"), ["readiness.url"]);
        assert_eq!(with("http://", "tcp://"), ["readiness.url"]);
        assert_eq!(with("equals = \"ready\"", ""), ["readiness.equals"]);
        assert_eq!(with("json_pointer = \"/status\"", ""), ["readiness.json_pointer"]);
        assert_eq!(with("\"/status\"", "\"status\""), ["readiness.json_pointer"]);
        assert_eq!(with("equals =", "interval = \"99ms\"\nequals ="), ["readiness.interval"]);
        assert_eq!(with("driver =", "backoff_base = \"0s\"\ndriver ="), ["backoff_base"]);
        assert_eq!(with("driver =", "backoff_max = \"1ms\"\ndriver ="), ["backoff_max"]);
        assert_eq!(with("driver =", "service = \"\"\ndriver ="), ["service"]);
        assert_eq!(with("driver =", "working_directory = \"/no/such\"\ndriver ="), ["working_directory"]);
        assert_eq!(with("driver =", "environment = { \"A=B\" = \"c\" }\ndriver ="), ["environment.A=B"]);
    }

    #[test]
    fn a_timeout_longer_than_the_interval_is_allowed() {
        assert_eq!(
            fields(&WORKER.replace("equals =", "interval = \"100ms\"\ntimeout = \"1h\"\nequals =")),
            [""; 0]
        );
    }

    #[test]
    fn the_values_of_the_environment_are_never_shown() {
        let worker =
            read(&WORKER.replace("driver =", "environment = { TOKEN = \"hunter2\" }\ndriver =")).unwrap();
        let shown = format!("{worker:?}");
        assert!(shown.contains("TOKEN") && !shown.contains("hunter2"), "{shown}");
    }
}
