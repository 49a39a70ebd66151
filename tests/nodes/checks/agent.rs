//! The agent as a service of a real systemd.

use super::same;
use crate::install::{self, Certificates, UNIT};
use crate::lab::Lab;
use crate::node::Node;

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
