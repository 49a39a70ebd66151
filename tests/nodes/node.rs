//! A node: a booted Debian whose first process is systemd, in a container of its own. Takes the lab and a
//! name; gives commands, files and journal of the node. It boots in a third of a second; when it is
//! dropped it is powered off, by force after [`POWER_OFF`], and nothing of it stays.
//!
//! Commands run as transient units of the node's own systemd. A bare `nsenter` would carry the machine's
//! full capabilities along: `date -s` in it moves the machine's clock.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use crate::command::{Output, PATIENCE, must, run, run_within, until};
use crate::lab::{Lab, Layout, kill, layout, processes, remove, version_2};

/// How long an orderly end may take.
const POWER_OFF: Duration = Duration::from_secs(5);
/// Lines of a node's console that are shown when it does not boot.
const CONSOLE_LINES: usize = 3;
/// The last number of the first node's address is one more.
const ADDRESSES: u8 = 10;
/// Runs a command as a unit of the node, to its end.
const TRANSIENT: [&str; 5] = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect"];

/// How a node sees cgroups.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tree {
    /// Version 2 alone, as on the hosts that people have. On a machine whose controllers are in version 1
    /// `MemoryMax=` is taken there and not enforced.
    Unified,
    /// Limits are enforced. On a machine whose controllers are in version 1 the node has version 1, and
    /// systemd says `signal` of what the kernel killed for memory, not `oom-kill`.
    Limits,
}

/// A booted node.
pub(crate) struct Node<'lab> {
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
    lab: &'lab Lab,
    tree: Tree,
    folder: PathBuf,
    nspawn: Option<Child>,
    /// The node's first process, as the lab counts.
    leader: i32,
}

impl<'lab> Node<'lab> {
    /// Boots a node with version 2 of cgroups; its name is the given one and a number.
    pub(crate) fn boot(lab: &'lab Lab, name: &str) -> Result<Self, String> {
        Self::boot_with(lab, name, Tree::Unified)
    }

    /// The same with the cgroups asked for.
    pub(crate) fn boot_with(lab: &'lab Lab, name: &str, tree: Tree) -> Result<Self, String> {
        let number = lab.number();
        let name = format!("{name}-{number}");
        let [a, b, c, _] = crate::lab::LAB_ADDRESS.octets();
        let address = Ipv4Addr::new(a, b, c, ADDRESSES + number);
        let folder = lab.folder(&name)?;
        let mut node = Self { name, address, lab, tree, folder, nspawn: None, leader: 0 };
        node.disk()?;
        node.link()?;
        node.start().map_err(|error| format!("{}: {error}: {}", node.name, node.console()))?;
        Ok(node)
    }

    /// Runs a command as root of the node, to its end.
    pub(crate) fn exec(&self, words: &[&str]) -> Output {
        self.unit(PATIENCE, &[], words)
    }

    /// The same for what may take so long.
    pub(crate) fn exec_within(&self, limit: Duration, words: &[&str]) -> Output {
        self.unit(limit, &[], words)
    }

    /// The same as another user of the node.
    pub(crate) fn exec_as(&self, user: &str, words: &[&str]) -> Output {
        self.unit(PATIENCE, &[&format!("--uid={user}")], words)
    }

    /// Runs lines of a shell as root; what it said, when it ended well.
    pub(crate) fn sh(&self, lines: &str) -> Result<String, String> {
        self.exec(&["sh", "-ec", lines]).ok().map_err(|error| format!("{}: {lines}: {error}", self.name))
    }

    /// Writes a file, and the folders above it.
    pub(crate) fn put(&self, path: &str, mode: u32, bytes: &[u8]) -> Result<(), String> {
        let lines = r#"mkdir -p "${1%/*}"; cat >"$1.new"; chmod "$2" "$1.new"; mv -f "$1.new" "$1""#;
        let written = self.enter(&["sh", "-ec", lines, "put", path, &format!("{mode:o}")], bytes);
        written.ok().map(drop).map_err(|error| format!("{}: {path}: {error}", self.name))
    }

    /// Copies a program of the lab into the node.
    pub(crate) fn copy_in(&self, from: &Path, path: &str) -> Result<(), String> {
        let bytes = fs::read(from).map_err(|error| format!("{}: {error}", from.display()))?;
        self.put(path, 0o755, &bytes)
    }

    /// Waits until something of the node is so.
    pub(crate) fn wait(
        &self,
        what: &str,
        limit: Duration,
        mut so: impl FnMut(&Self) -> bool,
    ) -> Result<(), String> {
        until(what, limit, || so(self)).map_err(|error| format!("{}: {error}", self.name))
    }

    /// One property of a unit, as `systemctl show` tells it.
    pub(crate) fn show(&self, unit: &str, property: &str) -> String {
        self.exec(&["systemctl", "show", "-P", property, unit]).out.trim().to_owned()
    }

    /// The messages of a unit, and of systemd about it.
    pub(crate) fn journal(&self, unit: &str) -> String {
        self.exec(&[
            "sh",
            "-c",
            r#"journalctl --sync; journalctl --no-pager -o cat -u "$1""#,
            "journal",
            unit,
        ])
        .out
    }

    /// Where the lab sees a file of the node.
    pub(crate) fn place(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.leader))
    }

    /// Ends a unit as `systemd-oomd` does, which marks the unit's cgroup and kills all in it: systemd says
    /// `oom-kill` of it, on every machine. Only in a node with version 2.
    pub(crate) fn kill_as_oomd(&self, unit: &str) -> Result<(), String> {
        let said = |error| format!("{}: {unit}: {error}", self.name);
        let text = fs::read_to_string(format!("/proc/{}/cgroup", self.leader))
            .map_err(|error| said(error.to_string()))?;
        let own = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
        let top = own.trim_start_matches('/').trim_end_matches("/init.scope");
        let inner = self.show(unit, "ControlGroup");
        let cgroup = version_2().join(top).join(inner.trim_start_matches('/'));
        for name in ["user.oomd_ooms", "user.oomd_kill"] {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(&cgroup, name, b"1", flags).map_err(|error| said(error.to_string()))?;
        }
        processes(&cgroup).into_iter().for_each(kill);
        Ok(())
    }

    /// The disk: the root below, the product above it, and what the node writes in memory.
    fn disk(&self) -> Result<(), String> {
        let folders = ["upper", "work", "root"].map(|name| self.folder.join(name));
        let said = |error: std::io::Error| format!("{}: {error}", self.folder.display());
        folders.iter().try_for_each(fs::create_dir).map_err(said)?;
        let [upper, work, root] = &folders.each_ref().map(|folder| folder.display().to_string());
        let (product, below) = (self.lab.product.display(), self.lab.root.display());
        let options = format!("lowerdir={product}:{below},upperdir={upper},workdir={work}");
        must(&["mount", "-t", "overlay", "overlay", "-o", &options, root])?;
        let etc = self.folder.join("root/etc");
        fs::write(etc.join("machine-id"), "").map_err(said)?;
        fs::write(etc.join("hostname"), format!("{}\n", self.name)).map_err(said)?;
        // Version 1 does not tell a container that a cgroup became empty, so a user's manager would take
        // two minutes to stop. Nodes need neither that nor a console.
        for unit in ["user@.service", "console-getty.service"] {
            let masked = etc.join("systemd/system").join(unit);
            std::os::unix::fs::symlink("/dev/null", masked).map_err(said)?;
        }
        Ok(())
    }

    /// A network of its own, with one cable to the lab's bridge.
    fn link(&self) -> Result<(), String> {
        let (name, cable) = (self.name.as_str(), self.cable());
        must(&["ip", "netns", "add", name])?;
        must(&["ip", "link", "add", &cable, "type", "veth", "peer", "name", "host0", "netns", name])?;
        must(&["ip", "link", "set", &cable, "master", "br0", "up"])?;
        must(&["ip", "-n", name, "link", "set", "lo", "up"])?;
        must(&["ip", "-n", name, "addr", "add", &format!("{}/24", self.address), "dev", "host0"])?;
        must(&["ip", "-n", name, "link", "set", "host0", "up"]).map(drop)
    }

    fn cable(&self) -> String {
        format!("v{}", self.address.octets()[3])
    }

    fn start(&mut self) -> Result<(), String> {
        let limits = self.tree == Tree::Limits;
        let version_1 = limits && layout() == Layout::Hybrid;
        let network = format!("/run/netns/{}", self.name);
        // The namespace is entered before nspawn is, too: else /sys shows the lab's links in the node.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={network}")).args(["systemd-nspawn", "--boot", "--directory"]);
        command.arg(self.folder.join("root")).arg(format!("--machine={}", self.name));
        command.arg(format!("--hostname={}", self.name)).arg(format!("--network-namespace-path={network}"));
        command.args(["--register=no", "--keep-unit", "--console=read-only", "--settings=no"]);
        command.args(["--link-journal=no", "--resolv-conf=off", "--timezone=off"]);
        // With the filter DeviceAllow= and IPAddressDeny= are enforced in the node, not only taken.
        command.args(["--capability=CAP_NET_ADMIN", "--system-call-filter=bpf"]);
        command.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", if version_1 { "0" } else { "1" });
        let nspawn = self.lab.start(&self.name, limits, &self.folder.join("console"), &mut command)?;
        let id = i32::try_from(nspawn.id()).unwrap_or_default();
        self.nspawn = Some(nspawn);
        until("its first process", PATIENCE, || {
            self.leader = leader(id).unwrap_or_default();
            self.leader > 0 || self.ended()
        })?;
        until("systemd to be up", PATIENCE, || self.ended() || self.is_up())?;
        if self.ended() {
            return Err("systemd-nspawn ended".into());
        }
        if version_1 {
            let lines = "for each in memory cpu cpuacct pids devices; do
                mount -o remount,rw,bind,nosuid,nodev,noexec /sys/fs/cgroup/$each
                done; systemctl daemon-reexec";
            self.enter(&["sh", "-ec", lines], b"").ok()?;
        }
        Ok(())
    }

    fn is_up(&self) -> bool {
        let state = self.enter(&["systemctl", "is-system-running"], b"");
        matches!(state.out.trim(), "running" | "degraded")
    }

    fn ended(&mut self) -> bool {
        self.nspawn.as_mut().is_none_or(|nspawn| !matches!(nspawn.try_wait(), Ok(None)))
    }

    fn console(&self) -> String {
        let text = fs::read_to_string(self.folder.join("console")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(CONSOLE_LINES)..].join("; ")
    }

    fn unit(&self, limit: Duration, more: &[&str], words: &[&str]) -> Output {
        self.enter_within(limit, &[&TRANSIENT[..], more, &["--"], words].concat(), b"")
    }

    /// Only for commands of this file: see above.
    fn enter(&self, words: &[&str], input: &[u8]) -> Output {
        self.enter_within(PATIENCE, words, input)
    }

    fn enter_within(&self, limit: Duration, words: &[&str], input: &[u8]) -> Output {
        let leader = self.leader.to_string();
        let all = [&["nsenter", "-t", &leader, "-a", "--"], words].concat();
        run_within(limit, &all, input).unwrap_or_else(|error| Output {
            code: -1,
            out: String::new(),
            err: error,
        })
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        if self.leader > 0 && !self.ended() {
            // SIGRTMIN+4: systemd powers off. It does not answer a node that hangs, so nothing waits here.
            drop(must(&["sh", "-c", &format!("kill -38 {}", self.leader)]));
            if until("it to be off", POWER_OFF, || self.ended()).is_err() {
                eprintln!("{}: would not power off: killed", self.name);
            }
        }
        // The node's first process goes first: nspawn alone would leave it as an orphan.
        kill(self.leader);
        self.lab.kill(&self.name);
        if let Some(mut nspawn) = self.nspawn.take() {
            drop(nspawn.kill());
            drop(nspawn.wait());
        }
        drop(run(&["ip", "netns", "del", &self.name], b""));
        drop(run(&["ip", "link", "del", &self.cable()], b""));
        remove(&self.folder);
    }
}

/// The child of nspawn that is the first in a process namespace of its own.
fn leader(nspawn: i32) -> Option<i32> {
    let entries = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let mut found = ids.filter(|id| {
        let text = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let field =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::split_whitespace);
        let parent = field("PPid:").and_then(|mut words| words.next()?.parse::<i32>().ok());
        let numbers: Vec<&str> = field("NSpid:").map(Iterator::collect).unwrap_or_default();
        parent == Some(nspawn) && numbers.len() > 1 && numbers.last() == Some(&"1")
    });
    found.next()
}
