//! A node with workers under systemd and an agent without root that looks after them, as an operator sets it
//! up: the shipped unit, the shipped rule for polkit. Takes the workers; gives the node, the agent to be
//! asked, and the workers to be told.

use std::time::Duration;

use serde_json::Value;

use crate::asked::Asked;
use crate::install::{self, Certificates, NVML, SOCKET, UNIT};
use crate::lab::Lab;
use crate::node::{Node, Tree};
use crate::worker::{self, CLAIMS, Worker};

/// The rule that is shipped.
const RULES: &str = include_str!("../../systemd/polkit/50-diarwatch.rules");
/// What the fake driver does.
const SCENARIO: &str = "/run/gpu.scenario";
/// A GPU on which nothing runs but what claims it.
pub(crate) const CALM: &str = "gpus = 1\n";
/// A driver whose calls do not return.
pub(crate) const WEDGED: &str = "gpus = 1\ncall.* = hang\n";

/// How long something that must not happen is waited for, where nothing else says that it will not.
pub(crate) const QUIET: Duration = Duration::from_secs(3);
/// Lines of the agent's journal that are told when a check failed.
const JOURNAL_LINES: usize = 15;

/// The node, its agent and its workers.
pub(crate) struct Site<'lab> {
    pub(crate) node: Node<'lab>,
    pub(crate) agent: Asked,
    workers: Vec<Worker>,
}

impl<'lab> Site<'lab> {
    /// Boots a node with these workers and an agent that may start all of them; gives when they are ready.
    pub(crate) fn start(lab: &'lab Lab, name: &str, workers: &[Worker]) -> Result<Self, String> {
        let site = Self::set_up(lab, name, Tree::Unified, workers, workers)?;
        for worker in workers {
            site.agent.phase(worker.name, "ready").map_err(|error| site.told(&error))?;
        }
        Ok(site)
    }

    /// The same, and what a check does there; a failure is told with the end of the agent's journal.
    pub(crate) fn with(
        lab: &'lab Lab,
        name: &str,
        workers: &[Worker],
        check: impl FnOnce(&Self) -> Result<(), String>,
    ) -> Result<(), String> {
        let site = Self::start(lab, name, workers)?;
        check(&site).map_err(|error| site.told(&error))
    }

    /// A node with the cgroups asked for; only the units of `named` stand in the rule. Gives when the agent
    /// runs.
    pub(crate) fn set_up(
        lab: &'lab Lab,
        name: &str,
        tree: Tree,
        workers: &[Worker],
        named: &[Worker],
    ) -> Result<Self, String> {
        let node = Node::boot_with(lab, name, tree)?;
        let units: Vec<String> = named.iter().map(|worker| format!("\"{}\"", worker.unit_name())).collect();
        let rules = RULES.replace("\"pyannote.service\"", &units.join(", "));
        node.put("/etc/polkit-1/rules.d/50-diarwatch.rules", 0o644, rules.as_bytes())?;
        for worker in workers {
            let path = format!("/etc/systemd/system/{}", worker.unit_name());
            node.put(&path, 0o644, worker.unit().as_bytes())?;
        }
        node.put(&format!("/etc/systemd/system/{UNIT}.d/node.conf"), 0o644, in_a_node().as_bytes())?;
        node.put(SCENARIO, 0o644, CALM.as_bytes())?;
        let all: Vec<String> = workers.iter().map(Worker::unit_name).collect();
        node.sh(&format!("mkdir -m 755 {CLAIMS}; systemctl enable --quiet {}", all.join(" ")))?;
        let tables = workers
            .iter()
            .map(|worker| worker.table(&format!("driver = \"systemd\"\nunit = \"{}\"", worker.unit_name())));
        let text = format!(
            "[gpu]\nlibrary = \"{NVML}\"\nretry_interval = \"1s\"\n\n{}",
            tables.collect::<Vec<_>>().concat()
        );
        install::agent(&node, &Certificates::make(lab)?, &text)?;
        let agent = Asked { socket: node.place(SOCKET) };
        Ok(Self { node, agent, workers: workers.to_vec() })
    }

    /// Tells a worker what to do.
    pub(crate) fn tell(&self, name: &str, control: &Value) -> Result<(), String> {
        worker::tell(self.node.address.into(), self.worker(name)?.port, control)
    }

    /// One of the workers.
    pub(crate) fn worker(&self, name: &str) -> Result<&Worker, String> {
        self.workers.iter().find(|worker| worker.name == name).ok_or_else(|| format!("no worker {name}"))
    }

    /// Rewrites what the fake driver does.
    pub(crate) fn driver(&self, scenario: &str) -> Result<(), String> {
        self.node.put(SCENARIO, 0o644, scenario.as_bytes())
    }

    /// Ends the process of a unit as a crash does, nothing else of it.
    pub(crate) fn kill(&self, unit: &str) -> Result<(), String> {
        self.node.sh(&format!("systemctl kill --kill-whom=main --signal=KILL {unit}")).map(drop)
    }

    /// The main process of a worker's unit, as systemd says it.
    pub(crate) fn main(&self, name: &str) -> String {
        self.node.show(&format!("{name}.service"), "MainPID")
    }

    /// Kills the agent as the kernel would, and waits until systemd runs another one that answers.
    pub(crate) fn agent_dies(&self) -> Result<(), String> {
        let before = self.node.show(UNIT, "MainPID");
        self.kill(UNIT)?;
        self.node.wait("another agent", crate::asked::LIMIT, |node| {
            let now = node.show(UNIT, "MainPID");
            now != "0" && now != before && node.show(UNIT, "ActiveState") == "active"
        })
    }

    /// A failure with the end of the agent's journal.
    pub(crate) fn told(&self, error: &str) -> String {
        let journal = self.node.journal(UNIT);
        let lines: Vec<&str> = journal.lines().collect();
        format!("{error}\n{}", lines[lines.len().saturating_sub(JOURNAL_LINES)..].join("\n"))
    }
}

/// What the agent's unit needs besides: the fake driver; and no mounts of its own over /proc/sys, which would
/// uncover the machine's boot id in place of the node's, and a journal is followed by that.
fn in_a_node() -> String {
    format!(
        "[Service]\nProtectKernelTunables=no\nProtectControlGroups=no\n\
         Environment=DIARWATCH_FAKE_NVML_SCENARIO={SCENARIO} DIARWATCH_FAKE_NVML_CLAIMS={CLAIMS}\n"
    )
}
