//! The ground: what a real systemd does for checks of the product, and that a node is one.

use std::time::Duration;

use super::same;
use crate::lab::{LAB_ADDRESS, Lab, Layout, layout};
use crate::node::{Node, Tree};

const LIMIT: Duration = Duration::from_secs(30);
const UNIT: &str = "[Service]\nExecStart=/bin/sleep infinity\n";
/// What a role installs for an agent without root: restart of one unit, nothing else.
const RULE: &str = r#"polkit.addRule(function (action, subject) {
  if (action.id != "org.freedesktop.systemd1.manage-units" || subject.user != "watch") return;
  var may = action.lookup("unit") == "named.service" && action.lookup("verb") == "restart";
  return may ? polkit.Result.YES : polkit.Result.NO;
});
"#;

/// The manager's method over D-Bus, as the agent will call it.
fn call(node: &Node, words: &[&str]) -> Result<String, String> {
    let manager = ["busctl", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1"];
    let interface = ["org.freedesktop.systemd1.Manager"];
    node.exec_as("watch", &[&manager, &interface[..], words].concat()).ok()
}

pub(super) fn an_unprivileged_user_restarts_exactly_the_unit_that_a_rule_names(
    lab: &Lab,
) -> Result<(), String> {
    let node = Node::boot(lab, "polkit")?;
    same("systemd", node.exec(&["systemctl", "is-system-running"]).out.trim(), "running")?;
    node.put("/etc/systemd/system/named.service", 0o644, UNIT.as_bytes())?;
    node.put("/etc/systemd/system/other.service", 0o644, UNIT.as_bytes())?;
    node.put("/etc/polkit-1/rules.d/50-test.rules", 0o644, RULE.as_bytes())?;
    node.sh("useradd --system watch; systemctl daemon-reload; systemctl start named other")?;
    let ids = || ["named", "other"].map(|unit| node.show(unit, "MainPID"));
    let before = ids();
    call(&node, &["RestartUnit", "ss", "named.service", "replace"])?;
    node.wait("another process of the named unit", LIMIT, |_| {
        let now = ids();
        now[0] != before[0] && now[0] != "0"
    })?;
    let refused: [&[&str]; 4] = [
        &["RestartUnit", "ss", "other.service", "replace"],
        &["StopUnit", "ss", "named.service", "replace"],
        &["KillUnit", "ssi", "named.service", "all", "9"],
        &["RestartUnit", "ss", "dbus.service", "replace"],
    ];
    for words in refused {
        let answer = call(&node, words).err().unwrap_or_default();
        same(&format!("{words:?} is denied ({answer})"), &answer.contains("denied"), &true)?;
    }
    same("the other unit's process", &ids()[1], &before[1])
}

pub(super) fn what_oomd_kills_is_an_oom_kill(lab: &Lab) -> Result<(), String> {
    let node = Node::boot(lab, "oomd")?;
    node.put("/etc/systemd/system/fat.service", 0o644, UNIT.as_bytes())?;
    node.sh("systemctl daemon-reload; systemctl start fat")?;
    node.kill_as_oomd("fat.service")?;
    node.wait("its end", LIMIT, |node| node.show("fat", "ActiveState") == "failed")?;
    same("Result", node.show("fat", "Result").as_str(), "oom-kill")?;
    let journal = node.journal("fat");
    same(&format!("the journal tells it: {journal}"), &journal.contains("systemd-oomd killed"), &true)
}

pub(super) fn a_unit_over_its_memory_is_killed_by_the_kernel(lab: &Lab) -> Result<(), String> {
    let node = Node::boot_with(lab, "limits", Tree::Limits)?;
    let hog = "import time; kept = [bytearray(1 << 20) for _ in range(400)]; time.sleep(1000)";
    let unit =
        format!("[Service]\nMemoryMax=50M\nMemorySwapMax=0\nExecStart=/usr/bin/python3 -c \"{hog}\"\n");
    node.put("/etc/systemd/system/fat.service", 0o644, unit.as_bytes())?;
    node.sh("systemctl daemon-reload; systemctl start --no-block fat")?;
    node.wait("its end", LIMIT, |node| node.show("fat", "ActiveState") == "failed")?;
    same("the signal", node.show("fat", "ExecMainStatus").as_str(), "9")?;
    // Version 1 does not tell systemd why.
    let result = if layout() == Layout::Hybrid { "signal" } else { "oom-kill" };
    same("Result", node.show("fat", "Result").as_str(), result)
}

pub(super) fn nodes_reach_each_other_and_the_lab(lab: &Lab) -> Result<(), String> {
    let (one, two) = (Node::boot(lab, "one")?, Node::boot(lab, "two")?);
    same("links", one.sh("ls /sys/class/net | xargs")?.as_str(), "host0 lo")?;
    // A socket of systemd in the one, and in the lab; who is called accepts.
    one.sh("systemd-run --quiet --socket-property=ListenStream=0.0.0.0:9000 --unit=door sleep 1000")?;
    let reach = |node: &Node, address: std::net::Ipv4Addr, port: u16| {
        let line = format!("import socket; socket.create_connection(('{address}', {port}), 10)");
        node.exec(&["python3", "-c", &line]).ok().map(drop)
    };
    reach(&two, one.address, 9_000)?;
    let door = std::net::TcpListener::bind((LAB_ADDRESS, 0)).map_err(|error| error.to_string())?;
    reach(&two, LAB_ADDRESS, door.local_addr().map_err(|error| error.to_string())?.port())
}
