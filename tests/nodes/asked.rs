//! An agent that is asked, as the commands for people ask it. Takes its socket, wherever the lab sees it;
//! gives its documents, and waits for what they say. Who asks is root.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::command::until;

/// How long anything of a worker may take on a machine that is busy.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(20);
/// Events that are told when something was waited for in vain.
const TOLD_MAX: usize = 12;

/// An agent by its socket.
pub(crate) struct Asked {
    pub(crate) socket: PathBuf,
}

impl Asked {
    /// Asks one question.
    pub(crate) fn ask(&self, question: &Value) -> Result<Value, String> {
        let said = |error: std::io::Error| format!("{}: {error}", self.socket.display());
        let mut stream = UnixStream::connect(&self.socket).map_err(said)?;
        stream.set_read_timeout(Some(ANSWER)).map_err(said)?;
        writeln!(stream, "{question}").map_err(said)?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map_err(said)?;
        serde_json::from_str(&text).map_err(|error| format!("{question}: {error}: {text}"))
    }

    /// What the status document says of a worker; null while there is none.
    pub(crate) fn worker(&self, name: &str) -> Value {
        let status = self.ask(&json!({ "ask": "status" })).unwrap_or_default();
        let workers = status["workers"].as_array().cloned().unwrap_or_default();
        workers.into_iter().find(|worker| worker["worker"] == name).unwrap_or_default()
    }

    /// Why a worker is as it is.
    pub(crate) fn why(&self, name: &str) -> Value {
        let answer = self.ask(&json!({ "ask": "why", "worker": name })).unwrap_or_default();
        answer["why"].clone()
    }

    /// Gives an order; its answer, or the refusal.
    pub(crate) fn order(&self, name: &str, verb: &str) -> Result<Value, String> {
        let answer =
            self.ask(&json!({ "ask": "order", "worker": name, "verb": verb, "reason": "a check" }))?;
        match answer["problem"].as_str() {
            Some(problem) => Err(problem.to_owned()),
            None => Ok(answer),
        }
    }

    /// The events of one kind of a worker, oldest first.
    pub(crate) fn events(&self, name: &str, kind: &str) -> Vec<Value> {
        self.all_events(name).into_iter().filter(|event| event["kind"] == kind).collect()
    }

    /// How often this happened to a worker.
    pub(crate) fn count(&self, name: &str, kind: &str) -> usize {
        self.events(name, kind).len()
    }

    /// The newest event of one kind, once there are so many.
    pub(crate) fn nth(&self, name: &str, kind: &str, count: usize) -> Result<Value, String> {
        self.wait(name, &format!("{count} x {kind}"), |agent| agent.count(name, kind) >= count)?;
        Ok(self.events(name, kind).pop().unwrap_or_default())
    }

    /// Waits until a worker is in this phase; gives its process.
    pub(crate) fn phase(&self, name: &str, phase: &str) -> Result<u64, String> {
        self.wait(name, phase, |agent| agent.worker(name)["phase"] == phase)?;
        Ok(self.worker(name)["pid"].as_u64().unwrap_or_default())
    }

    /// Waits until a worker is ready in a process that is not this one; gives the new one.
    pub(crate) fn another(&self, name: &str, process: u64) -> Result<u64, String> {
        self.wait(name, &format!("another process than {process} that is ready"), |agent| {
            let worker = agent.worker(name);
            worker["phase"] == "ready" && worker["pid"] != process
        })?;
        self.phase(name, "ready")
    }

    /// Waits until something is so of a worker; else tells what there is.
    pub(crate) fn wait(
        &self,
        name: &str,
        what: &str,
        mut so: impl FnMut(&Self) -> bool,
    ) -> Result<(), String> {
        until(&format!("{name}: {what}"), LIMIT, || so(self)).map_err(|error| {
            let events = self.all_events(name);
            let newest = events.iter().rev().take(TOLD_MAX).rev().map(ToString::to_string);
            let newest: Vec<String> = newest.collect();
            format!("{error}\n{}\nwhy: {}\n{}", self.worker(name), self.why(name), newest.join("\n"))
        })
    }

    fn all_events(&self, name: &str) -> Vec<Value> {
        let answer = self.ask(&json!({ "ask": "events", "worker": name })).unwrap_or_default();
        answer["events"].as_array().cloned().unwrap_or_default()
    }
}
