//! How a worker or a service is asked whether it is ready: `[worker.readiness]`, `[service.probe]`.
//!
//! Takes what TOML gave; gives a checked [`ReadinessConfig`], or every fault of its values.

use std::time::Duration;

use diarwatch_shared::quantity::Span;
use serde::{Deserialize, Serialize};

use super::{Fault, Faults};
use crate::probe;

/// The shortest `readiness.interval`, in milliseconds: below it a probe is a load of its own.
pub const PROBE_INTERVAL_MS_MIN: u64 = 100;

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
