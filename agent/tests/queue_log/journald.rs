//! A real systemd-journald, alone in a mount namespace of its own, and workers that it takes for
//! processes of a unit. Takes lines; gives a place in which an agent reads them. All of it ends with
//! the test.
//!
//! journald learns the unit of a process from `/proc/PID/cgroup` and the invocation from a link below
//! `/run/systemd/units`, which systemd makes. Here a worker lays a file over the one and makes the
//! other, so that its entries have `_SYSTEMD_UNIT` and `_SYSTEMD_INVOCATION_ID` without a booted systemd.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::common::{Node, until};

const JOURNALD: &str = "/lib/systemd/systemd-journald";
pub const UNIT: &str = "pyannote.service";

/// Makes the namespace and then only holds it.
const HOLD: &str = r"
set -eu
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journal /run/systemd/journald.conf.d /run/systemd/units /run/log
printf '[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\nForwardToSyslog=no\nRateLimitBurst=0\n' >/run/systemd/journald.conf.d/test.conf
if [ ! -s /etc/machine-id ]; then
  echo 0123456789abcdef0123456789abcdef >/run/machine-id
  mount --bind /run/machine-id /etc/machine-id
fi
echo ready
exec cat
";

/// `$1` is the unit, `$2` the invocation; what comes on stdin is logged.
const WORKER: &str = r#"
set -eu
printf '1:name=systemd:/system.slice/%s\n0::/system.slice/%s\n' "$1" "$1" >"/run/cgroup.$1"
ln -sfn "$2" "/run/systemd/units/invocation:$1"
mount --bind "/run/cgroup.$1" "/proc/$$/cgroup"
exec systemd-cat --identifier=worker cat
"#;

/// The namespace and the journald in it.
pub struct Journal {
    holder: Child,
    journald: Option<Child>,
}

impl Journal {
    /// None, said, where the machine lacks what it takes.
    pub fn start() -> Option<Self> {
        if let Some(reason) = missing() {
            println!("SKIPPED: {reason}");
            return None;
        }
        let mut command = Command::new("setpriv");
        command.args([
            "--pdeathsig=KILL",
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            HOLD,
        ]);
        let holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut journal = Self { holder, journald: None };
        let mut word = [0; 6];
        std::io::Read::read_exact(journal.holder.stdout.as_mut().unwrap(), &mut word).unwrap();
        journal.run();
        Some(journal)
    }

    /// Starts journald, also again.
    pub fn run(&mut self) {
        self.journald = Some(self.command(&[JOURNALD]).stderr(Stdio::null()).spawn().unwrap());
        until("journald answers", || self.sync().then_some(()));
    }

    pub fn kill(&mut self) {
        let Some(mut journald) = self.journald.take() else { return };
        journald.kill().unwrap();
        journald.wait().unwrap();
    }

    /// Whether journald has written what it was given.
    fn sync(&self) -> bool {
        let sync = self.command(&["journalctl", "--sync"]).stderr(Stdio::null()).status();
        sync.unwrap().success()
    }

    /// A process of a unit, in its invocation of this number.
    pub fn worker(&self, unit: &str, invocation: u32) -> Worker {
        let invocation = format!("{invocation:032x}");
        let mut command = self.command(&["sh", "-c", WORKER, "worker", unit, &invocation]);
        Worker(command.stdin(Stdio::piped()).spawn().unwrap())
    }

    /// A node whose agent runs in the namespace.
    pub fn node(&self) -> Node {
        let mut node = Node::new();
        node.before = self.words(&[]);
        node
    }

    fn words(&self, words: &[&str]) -> Vec<String> {
        let namespace = format!("--mount=/proc/{}/ns/mnt", self.holder.id());
        let enter = ["setpriv", "--pdeathsig=KILL", "nsenter", &namespace];
        enter.iter().chain(words).map(ToString::to_string).collect()
    }

    fn command(&self, words: &[&str]) -> Command {
        let words = self.words(words);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.kill();
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}

/// A worker that logs what it is told to.
pub struct Worker(Child);

impl Worker {
    pub fn says(&mut self, lines: &[&str]) {
        let stdin = self.0.stdin.as_mut().unwrap();
        for line in lines {
            writeln!(stdin, "{line}").unwrap();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn missing() -> Option<String> {
    let needs =
        [JOURNALD, "/usr/bin/systemd-cat", "/usr/bin/journalctl", "/usr/bin/nsenter", "/etc/machine-id"];
    if let Some(absent) = needs.iter().find(|path| !Path::new(path).exists()) {
        return Some(format!("no {absent} here"));
    }
    let namespace = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "mount", "-t", "tmpfs", "tmpfs", "/run"])
        .output();
    match namespace {
        Ok(output) if output.status.success() => None,
        _ => Some(String::from("no mount namespace may be made here (not root?)")),
    }
}
