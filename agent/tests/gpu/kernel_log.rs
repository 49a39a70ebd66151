//! XIDs in the kernel's log: a real journald, alone in a mount namespace of its own, that reads a pipe in
//! the place of `/dev/kmsg`. Nothing of it reaches the machine's own log. All of it ends with the test.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use diarwatch_shared::event::{What, XidAction};
use serde_json::Value;

use super::common::{Agent, Kept, Node, until};
use super::{up, with, xid};

const JOURNALD: &str = "/lib/systemd/systemd-journald";

const HOLD: &str = r"
set -eu
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journal /run/systemd/journald.conf.d /run/log
printf '[Journal]\nStorage=volatile\nReadKMsg=yes\nAudit=no\nForwardToSyslog=no\nRateLimitBurst=0\n' >/run/systemd/journald.conf.d/test.conf
if [ ! -s /etc/machine-id ]; then
  echo 0123456789abcdef0123456789abcdef >/run/machine-id
  mount --bind /run/machine-id /etc/machine-id
fi
mkfifo /run/kmsg
mount --bind /run/kmsg /dev/kmsg
exec 3<>/run/kmsg
echo ready
exec cat
";

/// The namespace, the journald in it and the kernel's side of its log.
struct Kernel {
    holder: Child,
    journald: Child,
    sequence: u64,
}

impl Kernel {
    /// None, said, where the machine lacks what it takes.
    fn start() -> Option<Self> {
        let needs = [JOURNALD, "/usr/bin/journalctl", "/usr/bin/nsenter", "/usr/bin/mkfifo", "/dev/kmsg"];
        if let Some(absent) = needs.iter().find(|path| !Path::new(path).exists()) {
            println!("SKIPPED: no {absent} here");
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
        let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut word = [0; 6];
        if holder.stdout.as_mut().unwrap().read_exact(&mut word).is_err() {
            println!("SKIPPED: no mount namespace may be made here (not root?)");
            drop(holder.wait());
            return None;
        }
        let words = within(&holder, &[JOURNALD]);
        let journald = Command::new(&words[0]).args(&words[1..]).stderr(Stdio::null()).spawn().unwrap();
        let mut kernel = Self { holder, journald, sequence: 0 };
        kernel.says("NVRM: loading NVIDIA UNIX x86_64 Kernel Module  570.86.15");
        Some(kernel)
    }

    /// A node whose agent reads this log.
    fn node(&self, scenario: &str) -> Node {
        let mut node = Node::new().with_gpus(scenario);
        node.before = within(&self.holder, &[]);
        node
    }

    /// One record of `/dev/kmsg`.
    fn says(&mut self, text: &str) {
        self.sequence += 1;
        let path = format!("/proc/{}/root/run/kmsg", self.holder.id());
        let mut kmsg = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let record = format!("4,{},{},-;{text}\n", self.sequence, 1_000_000 * self.sequence);
        kmsg.write_all(record.as_bytes()).unwrap();
        // journald takes what one read gives for one record.
        until("journald has written it", || self.shows(text).then_some(()));
    }

    fn shows(&self, text: &str) -> bool {
        let words = within(&self.holder, &["journalctl", "--dmesg", "--no-pager", "--output=cat"]);
        let output = Command::new(&words[0]).args(&words[1..]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).contains(text)
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        for child in [&mut self.journald, &mut self.holder] {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn within(holder: &Child, words: &[&str]) -> Vec<String> {
    let namespace = format!("--mount=/proc/{}/ns/mnt", holder.id());
    let enter = ["setpriv", "--pdeathsig=KILL", "nsenter", &namespace];
    enter.iter().chain(words).map(ToString::to_string).collect()
}

fn follows(agent: &Agent) {
    let log = "the kernel's log is read";
    agent.until("the log is followed", |_| agent.log().contains(log).then_some(()));
}

#[test]
fn an_xid_of_the_kernels_log_is_told_with_its_process_and_one_that_both_saw_once() {
    let Some(mut kernel) = Kernel::start() else { return };
    kernel.says("NVRM: Xid (PCI:0000:10:00): 95, pid=1, name=old, before the agent began");
    let node = kernel.node(super::TWO);
    let agent = node.run();
    up(&agent);
    follows(&agent);
    kernel.says("NVRM: Xid (PCI:0000:11:00): 31, pid=4242, name=uvicorn, Ch 00000008, MMU Fault");
    let xids = |agent: &Agent, count: usize| {
        agent.until("the XIDs are told", |status| {
            status["xids"].as_array().filter(|xids| xids.len() >= count).cloned()
        })
    };
    let told = xids(&agent, 1).remove(0);
    assert_eq!((&told["gpu"], &told["uuid"], &told["pid"]), (&1.into(), &"GPU-bbbb".into(), &4242.into()));
    assert_eq!((&told["code"], &told["action"]), (&31.into(), &"restart_worker".into()));
    assert_eq!(told["text"], "name=uvicorn, Ch 00000008, MMU Fault");
    // The driver reports the next one, too: it is one error, and the log knows the process.
    node.scenario(&with("event.7 = 0 xid 43"));
    kernel.says("NVRM: Xid (PCI:0000:10:00): 43, pid=4343, name=python, Ch 00000010");
    agent.until("its process is known", |status| {
        status["xids"].as_array()?.iter().find(|xid| xid["code"] == 43 && xid["pid"] == 4343).map(drop)
    });
    kernel
        .says("NVRM: Xid (PCI:0000:10:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.");
    assert_eq!(xids(&agent, 3)[2]["pid"], Value::Null);
    kernel.says("NVRM: Xid (PCI:0000:99:00): 62, pid=5, name=x, of a GPU that the driver does not know");
    assert_eq!(xids(&agent, 4)[3]["uuid"], "");
    agent.stop();
    let told: Vec<(Option<u32>, u32, XidAction)> = Kept::of(&node)
        .events()
        .into_iter()
        .filter(xid)
        .map(|what| match what {
            What::GpuXid { gpu, code, action, .. } => (gpu, code, action),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told.len(), 4, "{told:?}");
    assert_eq!(told[3], (None, 62, XidAction::ResetGpu));
}

#[test]
fn the_kernels_log_speaks_while_the_driver_hangs() {
    let Some(mut kernel) = Kernel::start() else { return };
    let node = kernel.node(super::TWO);
    let agent = node.run();
    up(&agent);
    follows(&agent);
    node.scenario(&with("call.* = hang"));
    agent.until("the driver hangs", |status| (status["driver"]["state"] == "unresponsive").then_some(()));
    kernel.says("NVRM: Xid (PCI:0000:10:00): 119, pid=4242, name=python, Timeout waiting for RPC from GSP0!");
    let told = agent.until("the XID is told", |status| status["xids"].as_array()?.first().cloned());
    assert_eq!((&told["uuid"], &told["action"]), (&"GPU-aaaa".into(), &"reset_gpu".into()));
    assert_eq!(agent.status()["driver"]["state"], "unresponsive");
}
