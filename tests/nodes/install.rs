//! The product in a node. Takes the binaries of this build, a node and what a check adds to the
//! configuration; gives an agent that runs there as a service without root, with a certificate of a CA
//! that lives as long as the lab.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::command::must;
use crate::lab::{LAB_ADDRESS, Lab};
use crate::node::Node;
use crate::root::target;

/// The agent's unit.
pub(crate) const UNIT: &str = "diarwatch-agent.service";
/// Where the agent answers.
pub(crate) const SOCKET: &str = "/run/diarwatch/agent.sock";
/// The fake GPU driver in a node.
pub(crate) const NVML: &str = "/usr/lib/diarwatch-fake-nvml/libnvidia-ml.so.1";
/// Where an aggregator of the lab would listen.
const INTAKE_PORT: u16 = 9_440;
/// What a node has of this build, and where.
const PROGRAMS: [(&str, &str); 4] = [
    ("diarwatch-agent", "/usr/bin/diarwatch-agent"),
    ("diarwatch", "/usr/bin/diarwatch"),
    ("diarwatch-standins", "/usr/bin/diarwatch-standins"),
    ("libdiarwatch_fake_nvml.so", NVML),
];

/// A CA of its own, and what it signed.
pub(crate) struct Certificates {
    pub(crate) folder: PathBuf,
}

impl Certificates {
    /// Makes a CA and the aggregator's certificate.
    pub(crate) fn make(lab: &Lab) -> Result<Self, String> {
        let folder = lab.folder(&format!("pki-{}", lab.number()))?;
        let certificates = Self { folder };
        certificates.pki(&["init"])?;
        Ok(certificates)
    }

    /// Makes a certificate of this name.
    pub(crate) fn sign(&self, name: &str) -> Result<(), String> {
        self.pki(&["node", name])
    }

    /// Puts a certificate of its name into a node.
    fn issue(&self, node: &Node) -> Result<(), String> {
        self.sign(&node.name)?;
        let names = [("ca.pem", "ca.pem"), ("node.pem", "{}.pem"), ("node.key", "{}.key")];
        for (name, file) in names {
            let path = self.folder.join(file.replace("{}", &node.name));
            let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
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

/// Puts the programs of this build where each node finds them.
pub(crate) fn programs(product: &Path) -> Result<(), String> {
    for (name, place) in PROGRAMS {
        let (from, to) = (built(name), product.join(place.trim_start_matches('/')));
        let said = |error| format!("{}: {error}", from.display());
        fs::create_dir_all(to.parent().unwrap_or(product)).map_err(said)?;
        fs::copy(&from, &to).map_err(said)?;
    }
    Ok(())
}

/// What a configuration begins with: who the agent is, by the files of a folder, and whom it tells.
pub(crate) fn configuration(folder: &str, name: &str) -> String {
    format!(
        "[identity]\nca = \"{folder}/ca.pem\"\ncertificate = \"{folder}/{name}.pem\"\n\
         key = \"{folder}/{name}.key\"\n\n[aggregator]\n\
         endpoints = [\"{LAB_ADDRESS}:{INTAKE_PORT}\"]\n\n"
    )
}

/// Sets the agent up in a node, with `more` at the end of its configuration, and starts it. Gives when the
/// agent said that it is ready.
pub(crate) fn agent(node: &Node, certificates: &Certificates, more: &str) -> Result<(), String> {
    node.sh("id -u diarwatch >/dev/null 2>&1 || useradd --system --user-group diarwatch")?;
    certificates.issue(node)?;
    let text = configuration("/etc/diarwatch", "node") + more;
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
pub(crate) fn built(name: &str) -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let folder = program.ancestors().nth(2).map_or_else(target, Path::to_owned);
    folder.join(name)
}
