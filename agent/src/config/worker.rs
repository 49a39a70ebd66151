//! One `[[worker]]` of the configuration: what runs, when it counts as ready, how it is restarted.
//!
//! Takes what TOML gave (unknown keys are already refused); gives a checked [`WorkerConfig`], or
//! every [`Fault`] with the key at fault and how to mend it. Looks at the disk only to see that the
//! command is there. No stage follows: this is read once, at start.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use diarwatch_shared::limits::LABEL_BYTES_MAX;
use diarwatch_shared::node::WorkerId;
use diarwatch_shared::quantity::Span;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::probe;

/// The shortest `readiness.interval`, in milliseconds: below it a probe is a load of its own.
pub const PROBE_INTERVAL_MS_MIN: u64 = 100;
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
    /// Who starts and stops it. No default; only `child` (the agent's own process) is supported yet.
    pub driver: DriverKind,
    /// The program, as an absolute path, and its arguments; no shell is involved. No default.
    pub command: Vec<String>,
    /// Variables added to the environment that the agent itself has. Default: none.
    ///
    /// What systemd gave to the agent alone (`NOTIFY_SOCKET` and its like) is not handed on.
    #[serde(default)]
    pub environment: Environment,
    /// The directory the program starts in, absolute. Default: the agent's own.
    pub working_directory: Option<PathBuf>,
    /// How its readiness is asked for.
    pub readiness: ReadinessConfig,
    /// How long a start may take, a duration; default 5 minutes. A worker that is not ready by then
    /// is told of once (`WorkerStartOverdue`) and goes on loading: a live process is not killed.
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
    /// first again, a duration; default 1 minute.
    #[serde(default = "healthy_after")]
    pub healthy_after: Span,
    /// How long a worker has between SIGTERM and SIGKILL when the agent stops, a duration; default
    /// 10 seconds. Give it the length of the longest job: a worker ends its accepted jobs first.
    #[serde(default = "stop_grace")]
    pub stop_grace: Span,
}

/// How a worker's readiness is asked for: an HTTP GET of which status and body decide.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadinessConfig {
    /// The address, `http://` only; redirects and proxies are not followed. No default.
    pub url: String,
    /// From one probe to the next, a duration of at least 100 ms; default 1 second. A probe that
    /// takes longer delays the next one.
    #[serde(default = "interval")]
    pub interval: Span,
    /// How long a probe waits for the whole answer, a duration; default 2 seconds.
    #[serde(default = "timeout")]
    pub timeout: Span,
    /// The status that a ready worker answers with, a number; default 200.
    #[serde(default = "status")]
    pub status: u16,
    /// Where in a JSON body the answer stands, an RFC 6901 pointer such as `/status`; with `equals`.
    /// Default: the body is not read as JSON.
    pub json_pointer: Option<String>,
    /// The value at `json_pointer` that means ready: text, number or boolean, such as `ready`.
    pub equals: Option<serde_json::Value>,
    /// Text that the body of a ready worker contains. Default: none is looked for.
    pub contains: Option<String>,
    /// Probes without an answer, in a row, before a ready worker counts as not ready, a number;
    /// default 2. An answer that says "not ready" counts at once. Raise it for a worker that answers
    /// nothing while it works.
    #[serde(default = "failures")]
    pub failures: u32,
}

/// Who starts and stops a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DriverKind {
    /// The agent itself; the worker ends with the agent.
    Child,
}

/// Environment variables; their values may be secrets and are not shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Environment(pub BTreeMap<String, String>);

/// What is wrong with a value, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key, from the worker's or the queue's table on: `readiness.url`.
    pub field: String,
    /// What is wrong.
    pub problem: String,
    /// How to mend it.
    pub hint: String,
}

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
        self.check_command(&mut faults);
        self.check_place(&mut faults);
        self.check_spans(&mut faults);
        faults.0.extend(self.readiness.faults(&["http"]));
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

    fn check_command(&self, faults: &mut Faults) {
        let Some(program) = self.command.first() else {
            let hint = "write the program and its arguments, such as [\"/usr/bin/python3\", \"worker.py\"]";
            return faults.add("command", "it is empty", hint);
        };
        if self.command.iter().any(|part| part.contains('\0')) {
            faults.add("command", "it holds a NUL character", "remove it");
        }
        let path = Path::new(program);
        if !path.is_absolute() {
            let hint = "write its absolute path; `command -v` prints it";
            return faults.add("command[0]", format!("`{program}` is not an absolute path"), hint);
        }
        match std::fs::metadata(path) {
            Err(error) => faults.add(
                "command[0]",
                format!("`{program}` cannot be found: {error}"),
                "install it or correct the path",
            ),
            Ok(found) if !found.is_file() || found.permissions().mode() & 0o111 == 0 => faults.add(
                "command[0]",
                format!("`{program}` is not a program"),
                "name a file that may be executed",
            ),
            Ok(_) => {}
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

impl ReadinessConfig {
    /// Everything that is wrong with a probe whose address may begin with one of `schemes`.
    pub(crate) fn faults(&self, schemes: &[&str]) -> Vec<Fault> {
        let mut faults = Faults::default();
        self.check_spans(&mut faults);
        self.check_answer(&mut faults, schemes);
        faults.0
    }

    fn check_spans(&self, faults: &mut Faults) {
        faults.at_least("readiness.interval", self.interval, PROBE_INTERVAL_MS_MIN);
        if self.timeout.0 == Duration::ZERO {
            faults.add("readiness.timeout", "0s leaves no time to answer", "write for example 2s");
        }
        if self.failures == 0 {
            faults.add("readiness.failures", "0 probes in a row decide nothing", "write 1 or more");
        }
    }

    fn check_answer(&self, faults: &mut Faults, schemes: &[&str]) {
        if let Err(problem) = probe::check_url(&self.url, schemes) {
            faults.add("readiness.url", problem, "write for example http://127.0.0.1:8000/ready");
        }
        if !(100..=599).contains(&self.status) {
            faults.add(
                "readiness.status",
                format!("{} is not an HTTP status", self.status),
                "write 100 to 599; a ready worker answers 200 as a rule",
            );
        }
        match (&self.json_pointer, &self.equals) {
            (Some(_), None) => faults.add(
                "readiness.equals",
                "it is missing beside json_pointer",
                "write the value that means ready, such as equals = \"ready\"",
            ),
            (None, Some(_)) => faults.add(
                "readiness.json_pointer",
                "it is missing beside equals",
                "write where the value stands, such as json_pointer = \"/status\"",
            ),
            (Some(pointer), Some(_)) if !pointer.is_empty() && !pointer.starts_with('/') => faults.add(
                "readiness.json_pointer",
                format!("`{pointer}` does not begin with `/`"),
                format!("write `/{}`", pointer.replace('.', "/")),
            ),
            _ => {}
        }
        if self.contains.as_ref().is_some_and(String::is_empty) {
            let hint = "write the text that a ready worker's body has, or leave it out";
            faults.add("readiness.contains", "every body contains an empty text", hint);
        }
    }
}

impl<'de> Deserialize<'de> for DriverKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        match name.as_str() {
            "child" => Ok(Self::Child),
            "systemd" | "docker" => Err(de::Error::custom(format!(
                "driver `{name}` is not supported yet; write `child`, which runs the worker as the agent's own process"
            ))),
            other => Err(de::Error::unknown_variant(other, &["child"])),
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

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.field, self.problem, self.hint)
    }
}

/// Faults as they are found.
#[derive(Default)]
pub(crate) struct Faults(pub(crate) Vec<Fault>);

impl Faults {
    pub(crate) fn add(
        &mut self,
        field: impl Into<String>,
        problem: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.0.push(Fault { field: field.into(), problem: problem.into(), hint: hint.into() });
    }

    pub(crate) fn at_least(&mut self, field: &str, span: Span, millis: u64) {
        let floor = Span::millis(millis);
        if span < floor {
            self.add(field, format!("{span} is too short"), format!("write at least {floor}"));
        }
    }
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
    Span::secs(60)
}

fn stop_grace() -> Span {
    Span::secs(10)
}

fn interval() -> Span {
    Span::secs(1)
}

fn timeout() -> Span {
    Span::secs(2)
}

fn status() -> u16 {
    200
}

fn failures() -> u32 {
    2
}

#[cfg(test)]
mod tests {
    use super::*;
    use diarwatch_shared::config::{ConfigError, parse};

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
    fn a_driver_of_a_later_version_is_refused_as_not_supported_yet() {
        for name in ["systemd", "docker"] {
            let error = read(&WORKER.replace("\"child\"", &format!("\"{name}\""))).unwrap_err();
            assert!(error.problem.contains("not supported yet"), "{error}");
            assert_eq!(error.place, Some((3, 10)), "{error}");
        }
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
