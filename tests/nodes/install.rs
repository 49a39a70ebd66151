//! The product in a node. Takes the binaries of this build, a node and what a check adds to the
//! configuration; gives an agent that runs there as a service without root, with a certificate of a CA
//! that lives as long as the lab.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::command::must;
use crate::lab::{LAB_ADDRESS, Lab};
use crate::node::Node;
use crate::root::target;

/// The agent's unit.
pub(crate) const UNIT: &str = "diarwatch-agent.service";
/// Where an aggregator of the lab would listen.
const INTAKE_PORT: u16 = 9_440;

/// A CA of its own, and what it signed.
pub(crate) struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// Makes a CA and the aggregator's certificate.
    pub(crate) fn make(lab: &Lab) -> Result<Self, String> {
        let folder = lab.folder(&format!("pki-{}", lab.number()))?;
        let certificates = Self { folder };
        certificates.pki(&["init"])?;
        Ok(certificates)
    }

    /// Puts a certificate of its name into a node.
    fn issue(&self, node: &Node) -> Result<(), String> {
        self.pki(&["node", &node.name])?;
        let names = [("ca.pem", "ca.pem"), ("node.pem", "{}.pem"), ("node.key", "{}.key")];
        for (name, file) in names {
            let path = self.folder.join(file.replace("{}", &node.name));
            let bytes = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            node.put(&format!("/etc/diarwatch/{name}"), 0o640, &bytes)?;
        }
        node.sh("chgrp diarwatch /etc/diarwatch/*").map(drop)
    }

    fn pki(&self, words: &[&str]) -> Result<(), String> {
        let program = built("diarwatch-aggregator").display().to_string();
        let folder = self.folder.display().to_string();
        must(&[&[program.as_str(), "pki"], &words[..1], &["--directory", &folder], &words[1..]].concat())
            .map(drop)
    }
}

/// Puts the agent into a node, with `more` at the end of its configuration, and starts it. Gives when the
/// agent said that it is ready.
pub(crate) fn agent(node: &Node, certificates: &Certificates, more: &str) -> Result<(), String> {
    for name in ["diarwatch-agent", "diarwatch"] {
        node.copy_in(&built(name), &format!("/usr/bin/{name}"))?;
    }
    node.sh("id -u diarwatch >/dev/null 2>&1 || useradd --system --user-group diarwatch")?;
    certificates.issue(node)?;
    let text = format!(
        "[identity]\nca = \"/etc/diarwatch/ca.pem\"\ncertificate = \"/etc/diarwatch/node.pem\"\n\
         key = \"/etc/diarwatch/node.key\"\n\n[aggregator]\n\
         endpoints = [\"{LAB_ADDRESS}:{INTAKE_PORT}\"]\n\n{more}"
    );
    node.put("/etc/diarwatch/agent.toml", 0o644, text.as_bytes())?;
    node.put(&format!("/etc/systemd/system/{UNIT}"), 0o644, include_bytes!("agent.service"))?;
    let started = node.sh(&format!("systemctl daemon-reload; systemctl restart {UNIT}"));
    started.map(drop).map_err(|error| format!("{error}\n{}", node.journal(UNIT)))
}

/// The agent's status document.
pub(crate) fn status(node: &Node) -> Result<Value, String> {
    let text = node.exec(&["diarwatch", "status", "--json"]).ok()?;
    serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
}

/// A binary of this build.
fn built(name: &str) -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let folder = program.ancestors().nth(2).map_or_else(target, Path::to_owned);
    folder.join(name)
}
