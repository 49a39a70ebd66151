//! The half with a real systemd: a lab with one node, and in it this program again. Takes the rounds; gives
//! times as lines. The worker's unit is the one that `systemd/examples` recommends; systemd's own is the
//! same with `Restart=always` and no wait.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::command::must;
use crate::lab::Lab;
use crate::marks::Marks;
use crate::node::Node;
use crate::{Rounds, kept, peers};

/// How long the part in the node may take.
const LIMIT: Duration = Duration::from_secs(600);
/// Where this program lies in the node.
const PROGRAM: &str = "/usr/bin/restart-bench";

/// In the lab: boots a node, runs the other part in it, and writes what it found.
pub(crate) fn lab(root: &Path, name: &str, word: &str) -> ExitCode {
    crate::told(in_lab(root, name, word))
}

fn in_lab(root: &Path, name: &str, word: &str) -> Result<(), String> {
    let (word, figures) = word.split_once(' ').ok_or("the place of the figures is missing")?;
    let lab = Lab::enter(root, name)?;
    let node = Node::boot(&lab, "bench").map_err(|why| format!("no node boots on this machine: {why}"))?;
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    node.copy_in(&own, PROGRAM)?;
    println!("{}", node.sh("systemctl --version | head -n 1")?);
    let lines = node.exec_within(LIMIT, &[PROGRAM, "node", word]).ok()?;
    lines.lines().filter(|line| line.starts_with(' ')).for_each(|line| println!("{line}"));
    std::fs::write(figures, lines).map_err(|error| format!("{figures}: {error}"))
}

/// In the node, as root.
pub(crate) fn node(rounds: &Rounds) -> ExitCode {
    crate::told(in_node(rounds))
}

fn in_node(rounds: &Rounds) -> Result<(), String> {
    let marks = unit("dwb-own", "Restart=always\nRestartSec=0")?;
    must(&["systemctl", "start", "dwb-own.service"])?;
    let own = peers::systemd_own(&marks, rounds.own);
    must(&["systemctl", "stop", "dwb-own.service"])?;
    let marks =
        unit("dwb-kept", "Restart=on-failure\nRestartSec=60\nKillMode=mixed\nTimeoutStopSec=infinity")?;
    let keys = "driver = \"systemd\"\nunit = \"dwb-kept.service\"";
    let systemd = kept::times("systemd", keys, &marks, rounds.systemd);
    must(&["systemctl", "kill", "--signal=KILL", "dwb-kept.service"])?;
    must(&["systemctl", "stop", "dwb-kept.service"])?;
    println!("{}\n{}", own.line("systemd_own"), systemd.line("systemd"));
    Ok(())
}

/// Writes a unit of the worker; gives the end of its pipe.
fn unit(name: &str, more: &str) -> Result<Marks, String> {
    let pipe = format!("/run/{name}.marks");
    let marks = Marks::at(pipe.as_ref());
    let text = format!(
        "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=exec\nExecStart={PROGRAM} worker {pipe}\nLimitCORE=0\n{more}\n"
    );
    let path = format!("/run/systemd/system/{name}.service");
    std::fs::write(&path, text).map_err(|error| format!("{path}: {error}"))?;
    must(&["systemctl", "daemon-reload"])?;
    Ok(marks)
}
