//! The agent as a service of a real systemd.

use super::same;
use crate::install::{self, Certificates, UNIT};
use crate::lab::Lab;
use crate::node::Node;
use crate::site::Site;
use crate::worker::Worker;

pub(super) fn an_agent_without_root_answers_in_a_node(lab: &Lab) -> Result<(), String> {
    let node = Node::boot(lab, "agent")?;
    install::agent(&node, &Certificates::make(lab)?, "[gpu]\nenabled = false\n")?;
    let status = install::status(&node)?;
    same("the document's kind", &status["kind"].as_str(), &Some("status"))?;
    let id = node.show(UNIT, "MainPID");
    let facts =
        node.sh(&format!("grep -E '^(Uid|CapEff|NoNewPrivs):' /proc/{id}/status; id -u diarwatch"))?;
    let words: Vec<&str> = facts.split_whitespace().collect();
    let user = words.last().copied().unwrap_or_default();
    same("a user that is not root", &(user != "0" && words.get(1) == Some(&user)), &true)?;
    same("no capability", &facts.contains("CapEff:\t0000000000000000"), &true)?;
    same("no new privileges", &facts.contains("NoNewPrivs:\t1"), &true)?;
    let journal = node.journal(UNIT);
    same(&format!("systemd takes each line of the unit: {journal}"), &journal.contains("Unknown"), &false)?;
    same("restarts", node.show(UNIT, "NRestarts").as_str(), "0")
}

pub(super) fn an_agent_killed_restarted_and_upgraded_touches_no_worker_and_adopts_each(
    lab: &Lab,
) -> Result<(), String> {
    let workers = [Worker::new("one", 8001), Worker::new("two", 8002)];
    Site::with(lab, "upgrade", &workers, |site| {
        let facts = || {
            ["one", "two"].map(|name| {
                let unit = format!("{name}.service");
                ["MainPID", "InvocationID", "NRestarts"].map(|property| site.node.show(&unit, property))
            })
        };
        let before = facts();
        let adopted = |count: usize| {
            ["one", "two"].iter().try_for_each(|name| {
                site.agent.nth(name, "worker_adopted", count)?;
                site.agent.phase(name, "ready").map(drop)
            })
        };
        site.agent_dies()?;
        adopted(1)?;
        same("after its SIGKILL", &facts(), &before)?;
        site.node.sh(&format!("systemctl restart {UNIT}"))?;
        adopted(2)?;
        same("after its restart", &facts(), &before)?;
        // Another file under the same name, as a package brings it.
        let old = site.node.sh("stat -c %i /usr/bin/diarwatch-agent")?;
        site.node.sh("cp /usr/bin/diarwatch-agent /usr/bin/new; echo later >>/usr/bin/new; mv /usr/bin/new /usr/bin/diarwatch-agent")?;
        site.node.sh(&format!("systemctl restart {UNIT}"))?;
        adopted(3)?;
        let pid = site.node.show(UNIT, "MainPID");
        let now = site.node.sh(&format!("stat -L -c %i /proc/{pid}/exe"))?;
        same("it is another program", &(now == old), &false)?;
        same("after its upgrade", &facts(), &before)?;
        site.node.sh(&format!("systemctl stop {UNIT}"))?;
        same("after its stop", &facts(), &before)
    })
}
