//! Queues of the kinds `log` and `directory` through the real agent: a real journald, files that are
//! rotated, a stand-in for the Docker Engine, directories. What a worker logged is what the agent tells,
//! through rotations, restarts and dead services, and a source that hangs takes nothing from the others.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of a test"
)]

#[path = "../common/mod.rs"]
mod common;
mod container;
mod directory;
mod engine;
mod file;
mod journal;
mod journald;
mod listen;

use common::{Agent, Node};
use serde_json::Value;

/// The patterns of a worker that logs each step of a job. An upload has no id: a line of it that is read
/// twice counts twice.
const PATTERNS: &str = r"
accepted = '(?:job (?<id>\S+)|upload) accepted'
started = 'job (?<id>\S+) started'
finished = 'job (?<id>\S+) done in (?<seconds>[0-9.]+)s \(audio (?<audio_seconds>[0-9.]+)s\)'
failed = 'job (?<id>\S+) failed'
";

/// A `[[queue]]` that is looked at often.
fn queue(name: &str, kind: &str) -> String {
    format!("[[queue]]\nname = \"{name}\"\ninterval = \"100ms\"\ntimeout = \"1s\"\n{kind}\n")
}

/// A log whose lines are at this place.
fn log(place: &str) -> String {
    format!("[queue.log]\n{place}\n{PATTERNS}")
}

/// The queue of a name.
fn of<'a>(status: &'a Value, name: &str) -> &'a Value {
    status["queues"].as_array().unwrap().iter().find(|queue| queue["queue"] == name).unwrap()
}

/// Waits until a queue's status is so.
#[track_caller]
fn until(agent: &Agent, name: &str, what: &str, good: impl Fn(&Value) -> bool) -> Value {
    agent.until(what, |status| {
        let queue = of(status, name);
        good(queue).then(|| queue.clone())
    })
}

/// Waits until so many wait and so many are worked on, with nothing to complain of.
#[track_caller]
fn until_counts(agent: &Agent, name: &str, waiting: f64, processing: f64) -> Value {
    until(agent, name, &format!("`{name}` has {waiting} + {processing}"), |queue| {
        queue["waiting"] == waiting && queue["processing"] == processing && queue["problem"].is_null()
    })
}

/// Waits for a problem that has these words, and for all numbers to be gone with it.
#[track_caller]
fn until_problem(agent: &Agent, name: &str, words: &str) {
    let (at, status) = agent.until(&format!("`{name}` says {words:?}"), |status| {
        let queues = status["queues"].as_array().unwrap();
        let at = queues.iter().position(|queue| queue["queue"] == name).unwrap();
        let said = queues[at]["problem"].as_str().is_some_and(|problem| problem.contains(words));
        said.then(|| (at, status.clone()))
    });
    for number in ["waiting", "processing", "oldest_seconds", "completed_per_minute", "drain_seconds"] {
        assert_eq!(status["queues"][at][number], Value::Null, "{number} of {status:#}");
        assert_eq!(status["reasons"][format!("/queues/{at}/{number}")], "failed", "{number} of {status:#}");
    }
}

/// A directory beside a source that misbehaves: it has to go on being looked at.
struct Neighbour;

impl Neighbour {
    fn beside(node: &mut Node) -> Self {
        std::fs::create_dir(node.path("neighbour")).unwrap();
        let path = node.path("neighbour").display().to_string();
        node.more
            .push_str(&queue("neighbour", &format!("[queue.directory]\npath = {path:?}\nwaiting = \"*\"")));
        Self
    }

    /// A file appears and is counted, five times over.
    #[track_caller]
    fn is_looked_at(&self, node: &Node, agent: &Agent) {
        for count in 1..=5 {
            node.put(&format!("neighbour/{count}"), "");
            until(agent, "neighbour", "the neighbour's file is counted", |queue| {
                queue["waiting"] == f64::from(count)
            });
        }
        for count in 1..=5 {
            std::fs::remove_file(node.path(&format!("neighbour/{count}"))).unwrap();
        }
        until(agent, "neighbour", "the neighbour is empty", |queue| queue["waiting"] == 0.0);
    }
}

/// The most memory that the agent ever had, in bytes.
fn peak_bytes(agent: &Agent) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
