//! `diarwatch doctor`: looks for what is wrong on this node and says how to mend it.
//!
//! Takes a list of checks; gives a finding of each. They run beside each other, each on a thread of its
//! own for at most [`CHECK_TIMEOUT`]: one that hangs is a finding and holds up no other. Nothing is
//! written; no network is opened without `--network`, and then only to the aggregator.

mod agent;
mod clock;
mod containers;
mod disk;
mod driver;
mod host;
mod identity;
mod link;
mod report;
mod rules;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use clap::Args;
use diarwatch_shared::clock::{UnixMicros, now, uptime};
use diarwatch_shared::exit::Exit;
use diarwatch_shared::texts::Text;
use serde_json::Value;

use super::common::{Common, Form};
use super::output::put;
use crate::config::{Config, DEFAULT_PATH, DEFAULT_SOCKET};
use agent::{Agent, ReadConfig};
use host::{Host, Who};
use report::{Finding, Row};

/// For each check, and for each of the two looks that all of them share.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);
/// For a program that a check runs, with something left to tell of it.
const PROGRAM_TIMEOUT: Duration = Duration::from_millis(2_500);
/// Bytes of each stream of such a program.
const PROGRAM_BYTES_MAX: u64 = 4 << 20;

/// Flags of `doctor`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The agent's configuration.
    #[arg(long, env = "DIARWATCH_AGENT_CONFIG", default_value = DEFAULT_PATH, value_name = "FILE")]
    config: PathBuf,
    /// The aggregator's configuration, for a host that has one.
    #[arg(
        long,
        env = "DIARWATCH_AGGREGATOR_CONFIG",
        default_value = "/etc/diarwatch/aggregator.toml",
        value_name = "FILE"
    )]
    aggregator_config: PathBuf,
    /// Only these checks, or all of a group: `driver.nvidia,disk`.
    #[arg(long, value_delimiter = ',', value_parser = known, value_name = "ID")]
    only: Vec<String>,
    /// All but these checks or groups.
    #[arg(long, value_delimiter = ',', value_parser = known, value_name = "ID")]
    skip: Vec<String>,
    /// Also try the way to the aggregator: name, UDP, TLS, and its clock at --aggregator.
    #[arg(long)]
    network: bool,
    /// Look at this host's files below another directory.
    #[arg(long, hide = true, default_value = "/", value_name = "DIR")]
    root: PathBuf,
}

/// What all checks start from.
pub(super) struct Facts {
    common: Common,
    config_path: PathBuf,
    /// None when reading it hung.
    config: Option<ReadConfig>,
    /// Where the agent was asked.
    socket: PathBuf,
    /// None when asking hung.
    agent: Option<Agent>,
    aggregator_config: PathBuf,
    network: bool,
    host: Host,
    now: UnixMicros,
}

struct Check {
    /// Stable: scripts name it.
    id: &'static str,
    look: fn(&Facts) -> Finding,
}

/// In the order of the answer: what the others rest on comes first.
const CHECKS: [Check; 23] = [
    Check { id: "agent.config", look: agent::config },
    Check { id: "agent.socket", look: agent::socket },
    Check { id: "agent.version", look: agent::version },
    Check { id: "agent.ticks", look: agent::ticks },
    Check { id: "agent.files", look: agent::files },
    Check { id: "identity.files", look: identity::files },
    Check { id: "identity.key", look: identity::key },
    Check { id: "identity.certificate", look: identity::certificate },
    Check { id: "driver.nvidia", look: driver::nvidia },
    Check { id: "driver.simulated", look: driver::simulated },
    Check { id: "driver.gpus", look: driver::gpus },
    Check { id: "spool.directory", look: disk::directory },
    Check { id: "spool.frames", look: disk::frames },
    Check { id: "disk.space", look: disk::space },
    Check { id: "disk.inodes", look: disk::inodes },
    Check { id: "link.aggregator", look: link::aggregator },
    Check { id: "link.network", look: link::network },
    Check { id: "clock.offset", look: clock::offset },
    Check { id: "clock.synchronized", look: clock::synchronized },
    Check { id: "rules.files", look: rules::files },
    Check { id: "containers.daemon_reload", look: containers::daemon_reload },
    Check { id: "workers.ready", look: agent::workers },
    Check { id: "queues.sources", look: agent::queues },
];

/// Runs the checks.
pub(super) fn run(options: &Options, common: &Common) -> Exit {
    let facts = Arc::new(Facts::gather(options, common));
    let wanted = |check: &&Check| {
        let named = |names: &[String]| names.iter().any(|name| belongs(check.id, name));
        (options.only.is_empty() || named(&options.only)) && !named(&options.skip)
    };
    let rows = look(CHECKS.iter().filter(wanted), &facts, CHECK_TIMEOUT);
    let text = report::render(&rows, common.form(), common.lang());
    // Documents are taken as they are: what colours a text may be part of a name.
    put(&if matches!(common.form(), Form::Table | Form::Wide) { common.finish(&text) } else { text });
    report::exit(&rows)
}

impl Options {
    /// Where the agent that answers has its configuration from, unless one is named.
    fn config_path(&self, common: &Common) -> PathBuf {
        if self.config != Path::new(DEFAULT_PATH) {
            return self.config.clone();
        }
        let common = common.clone();
        let told = bounded(move || common.ask(&serde_json::json!({ "ask": "config" })).ok()).flatten();
        let path = told.as_ref().and_then(|document| document.get("path")?.as_str());
        path.map_or_else(|| self.config.clone(), PathBuf::from)
    }
}

impl Facts {
    fn gather(options: &Options, common: &Common) -> Self {
        let host = Host::below(&options.root);
        let config_path = options.config_path(common);
        let path = config_path.clone();
        let config = bounded(move || ReadConfig::of(&path));
        let socket = match &config {
            // The one that was named on the command line wins.
            Some(ReadConfig::Good(config)) if common.socket == Path::new(DEFAULT_SOCKET) => {
                config.socket.path.clone()
            }
            _ => common.socket.clone(),
        };
        let (path, timeout) = (socket.clone(), common.timeout);
        let agent = bounded(move || Agent::ask(&path, timeout));
        Self {
            common: common.clone(),
            config_path,
            config,
            socket,
            agent,
            aggregator_config: options.aggregator_config.clone(),
            network: options.network,
            host,
            now: now(),
        }
    }

    /// The configuration, or why a check has to do without.
    fn config(&self) -> Result<&Config, Finding> {
        match &self.config {
            Some(ReadConfig::Good(config)) => Ok(config),
            _ => Err(Finding::skip(Text::DoctorNoConfig, &[&self.config_path.display()])),
        }
    }

    /// The agent's status, or why a check has to do without.
    fn status(&self) -> Result<&Value, Finding> {
        match &self.agent {
            Some(Agent::Answers { status, .. }) => Ok(status),
            _ => Err(Finding::skip(Text::DoctorNoStatus, &[])),
        }
    }

    /// Whom the agent runs as: who answers, who made the socket, or who the unit says.
    fn agent_user(&self) -> Who {
        agent::user(self)
    }
}

/// Whether a check is meant by a name: its own, or its group's.
fn belongs(id: &str, name: &str) -> bool {
    id.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn known(name: &str) -> Result<String, String> {
    if CHECKS.iter().any(|check| belongs(check.id, name)) {
        return Ok(name.to_owned());
    }
    let ids: Vec<&str> = CHECKS.iter().map(|check| check.id).collect();
    Err(format!("no check is called so; there are {}", ids.join(", ")))
}

/// Starts all, then hears them in order; who is late is left behind.
fn look<'a>(checks: impl Iterator<Item = &'a Check>, facts: &Arc<Facts>, limit: Duration) -> Vec<Row> {
    let start = |check: &'a Check| {
        let (facts, look) = (Arc::clone(facts), check.look);
        (check, begin(move || (look(&facts), uptime())))
    };
    let started = uptime();
    let running: Vec<_> = checks.map(start).collect();
    let hear = |(check, answer): (&Check, Receiver<(Finding, Duration)>)| {
        let left = (started + limit).saturating_sub(uptime());
        let (finding, ended) = answer.recv_timeout(left).unwrap_or_else(|_| {
            // One that ended without a word is found at once, one that hangs at the end of its time.
            (Finding::fail(Text::DoctorHung, &[&limit.as_secs()], again(check.id)), uptime())
        });
        let took = ended.saturating_sub(started).as_millis();
        Row { id: check.id, finding, took_ms: u64::try_from(took).unwrap_or(u64::MAX) }
    };
    running.into_iter().map(hear).collect()
}

/// What to type to see one check again, with the rights that it may lack.
fn again(id: &str) -> String {
    format!("sudo diarwatch doctor --only {id}")
}

/// What a program says; it is ended when it takes longer than `limit`.
fn output_of(command: &mut Command, limit: Duration) -> io::Result<Output> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let read = begin(move || (all_of(out), all_of(err)));
    match read.recv_timeout(limit) {
        Ok((stdout, stderr)) => Ok(Output { status: child.wait()?, stdout, stderr }),
        Err(_) => {
            drop(child.kill());
            child.wait()?;
            Err(io::ErrorKind::TimedOut.into())
        }
    }
}

fn all_of(pipe: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What was read before a fault is what there is to judge.
    drop(pipe.map(|pipe| pipe.take(PROGRAM_BYTES_MAX).read_to_end(&mut bytes)));
    bytes
}

fn bounded<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    begin(work).recv_timeout(CHECK_TIMEOUT).ok()
}

/// A thread that nobody waits for longer than he likes.
fn begin<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (answer, heard) = sync_channel(1);
    // One that cannot be started is one that says nothing.
    drop(thread::Builder::new().name("doctor".into()).spawn(move || answer.send(work())));
    heard
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_check_has_its_own_id_of_two_words() {
        let ids: BTreeSet<&str> = CHECKS.iter().map(|check| check.id).collect();
        assert_eq!(ids.len(), CHECKS.len());
        assert!(ids.iter().all(|id| id.split('.').count() == 2));
    }

    #[test]
    fn a_name_means_a_check_or_a_whole_group_and_nothing_else() {
        assert!(belongs("disk.space", "disk") && belongs("disk.space", "disk.space"));
        assert!(!belongs("disk.space", "dis") && !belongs("disk.space", "disk.spa"));
        assert!(known("driver").is_ok() && known("drivers").is_err());
    }
}
