//! One `[[service]]` of the configuration: an address that is asked whether the service behind it works.

use diarwatch_shared::limits::LABEL_BYTES_MAX;
use diarwatch_shared::quantity::Span;
use serde::{Deserialize, Serialize};

use super::worker::{Fault, ReadinessConfig};

/// Services that one agent asks; each has a group of series.
pub const SERVICES_MAX: usize = 32;
/// The shortest `interval`, in milliseconds.
pub const INTERVAL_MS_MIN: u64 = 500;
/// The longest `interval`: what is older than two minutes is shown as no data.
pub const INTERVAL_MAX: Span = Span::secs(60);

/// A service that is asked, such as an API or a web page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// What people call it, and the `service` label: `API Gateway`. No default.
    pub name: String,
    /// The address, `http://` or `https://`; redirects and proxies are not followed. No default.
    pub url: String,
    /// From one probe to the next, a duration of 500 ms to 1 minute; default 10 seconds.
    #[serde(default = "interval")]
    pub interval: Span,
    /// How long a probe waits for the whole answer, a duration; default 5 seconds.
    #[serde(default = "timeout")]
    pub timeout: Span,
    /// The status that a working service answers with, a number; default 200.
    #[serde(default = "status")]
    pub status: u16,
    /// Where in a JSON body the answer stands, an RFC 6901 pointer; with `equals`. Default: not read.
    pub json_pointer: Option<String>,
    /// The value at `json_pointer` that means that it works.
    pub equals: Option<serde_json::Value>,
    /// Text that the body of a working service contains. Default: none is looked for.
    pub contains: Option<String>,
    /// Bad probes in a row before it counts as down, a number; default 2.
    #[serde(default = "failures")]
    pub failures: u32,
}

impl ServiceConfig {
    /// The probe it asks for.
    #[must_use]
    pub fn probe(&self) -> ReadinessConfig {
        ReadinessConfig {
            url: self.url.clone(),
            interval: self.interval,
            timeout: self.timeout,
            status: self.status,
            json_pointer: self.json_pointer.clone(),
            equals: self.equals.clone(),
            contains: self.contains.clone(),
            failures: self.failures,
        }
    }

    /// Everything that is wrong with the values.
    #[must_use]
    pub fn validate(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut add = |field: &str, problem: String, hint: &str| {
            faults.push(Fault { field: field.to_owned(), problem, hint: hint.to_owned() });
        };
        if self.name.trim().is_empty() || self.name.len() > LABEL_BYTES_MAX {
            add("name", format!("it has {} bytes", self.name.len()), "write what people call the service");
        }
        if self.interval < Span::millis(INTERVAL_MS_MIN) {
            add("interval", format!("{} is too short", self.interval), "write at least 500ms");
        }
        if self.interval > INTERVAL_MAX {
            add("interval", format!("{} is too long", self.interval), "write at most 1m");
        }
        let of_probe = |fault: Fault| Fault { field: fault.field.replacen("readiness.", "", 1), ..fault };
        faults.extend(self.probe().faults(&["http", "https"]).into_iter().map(of_probe));
        faults
    }
}

fn interval() -> Span {
    Span::secs(10)
}

fn timeout() -> Span {
    Span::secs(5)
}

fn status() -> u16 {
    200
}

fn failures() -> u32 {
    2
}
