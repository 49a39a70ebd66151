//! `diarwatch doctor` at nodes with a fault that was really made, continued: what lies on the host. Its
//! files and who may read them, its disk, its rules, its containers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of a test"
)]

mod common;

use common::doctor::{NOBODY, close_key, doctor, doctor_behind, is_root, mode};
use common::{Node, pki};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

/// A node whose agent runs as nobody, in a directory that it may enter.
fn of_nobody() -> Node {
    let mut node = Node::new();
    mode(&node, "", 0o755);
    std::fs::create_dir(node.path("run")).unwrap();
    std::fs::create_dir(node.path("spool")).unwrap();
    node.socket = node.path("run/agent.sock");
    for name in ["run", "spool", "node.key"] {
        belongs_to(&node, name, 65_534);
    }
    close_key(&node);
    node.before = NOBODY.map(String::from).into();
    node
}

fn belongs_to(node: &Node, name: &str, user: u32) {
    std::os::unix::fs::chown(node.path(name), Some(user), Some(user)).unwrap();
}

#[test]
fn a_key_that_others_may_read_is_named_with_what_closes_it() {
    let node = Node::new();
    mode(&node, "node.key", 0o644);
    let open = doctor(&node, &["--only", "identity"]);
    open.finds("identity.key", "fail", &["open to others", "0644", "sudo chmod go-rwx"]);
    assert_eq!(open.code, 2);
    close_key(&node);
    let closed = doctor(&node, &["--only", "identity"]);
    closed.finds("identity.key", "pass", &["0600"]);
    assert_eq!(closed.code, 0);
}

#[test]
fn a_key_that_the_agent_may_not_read_is_named_with_the_user_and_what_gives_it() {
    if !is_root() {
        return;
    }
    let node = of_nobody();
    let _agent = node.run();
    doctor(&node, &[]).finds("identity.files", "pass", &["nobody"]);
    belongs_to(&node, "node.key", 0);
    let key = node.path("node.key").display().to_string();
    let words = ["nobody", &key, "root:root 0600", &format!("sudo chown nobody {key}")];
    doctor(&node, &[]).finds("identity.files", "fail", &words);
    belongs_to(&node, "node.key", 65_534);
    // What is no secret is not taken from others.
    mode(&node, "ca.pem", 0o600);
    let ca = node.path("ca.pem").display().to_string();
    doctor(&node, &[]).finds("identity.files", "fail", &["nobody", &format!("sudo chmod a+r {ca}")]);
    mode(&node, "ca.pem", 0o644);
    // The agent has to be let through the directories above, too.
    mode(&node, "", 0o700);
    let above = node.path("").display().to_string();
    let words = ["nobody", &format!("sudo chmod o+x {}", above.trim_end_matches('/'))];
    doctor(&node, &[]).finds("identity.files", "fail", &words);
    mode(&node, "", 0o755);
    doctor(&node, &[]).finds("identity.files", "pass", &[]);
    // And through those above what a link stands for.
    std::fs::create_dir(node.path("shut")).unwrap();
    std::fs::rename(node.path("ca.pem"), node.path("shut/ca.pem")).unwrap();
    std::os::unix::fs::symlink(node.path("shut/ca.pem"), node.path("ca.pem")).unwrap();
    doctor(&node, &[]).finds("identity.files", "pass", &[]);
    mode(&node, "shut", 0o700);
    doctor(&node, &[]).finds("identity.files", "fail", &["nobody", "shut (root:root 0700)"]);
}

#[test]
fn a_spool_that_the_agent_may_not_write_is_named_with_the_user_and_what_gives_it() {
    if !is_root() {
        return;
    }
    let node = of_nobody();
    let _agent = node.run();
    doctor(&node, &[]).finds("spool.directory", "pass", &["nobody"]);
    belongs_to(&node, "spool", 0);
    let spool = node.path("spool").display().to_string();
    let words = ["nobody", "root:root 0755", &format!("sudo chown -R nobody {spool}")];
    doctor(&node, &[]).finds("spool.directory", "fail", &words);
}

#[test]
fn a_socket_that_is_not_for_me_is_named_with_my_name_and_its_group() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    mode(&node, "", 0o755);
    let _agent = node.run();
    // The group `tty`, to have one that is not root's.
    std::os::unix::fs::chown(&node.socket, None, Some(5)).unwrap();
    node.config();
    let visit = doctor_behind(&NOBODY, &node, &[]);
    visit.finds(
        "agent.socket",
        "fail",
        &["nobody may not connect", "root:tty 0660", "usermod -aG tty nobody"],
    );
    assert_eq!(visit.code, 2);
    doctor(&node, &[]).finds("agent.socket", "pass", &[]);
}

#[test]
fn a_certificate_that_has_expired_or_soon_will_is_told_with_its_day() {
    let node = Node::new();
    close_key(&node);
    let look = |days| {
        pki::renew(&node.path(""), days);
        doctor(&node, &["--only", "identity.certificate"])
    };
    let ended = look(-30..-3);
    ended.finds("identity.certificate", "fail", &["has expired", "tokyo-1", "pki node", "JST"]);
    assert_eq!(ended.code, 2);
    // The agent refuses it in its own words.
    let (status, log) = node.start().end();
    assert_eq!(status.code(), Some(78));
    assert!(log.contains("expired"), "{log}");
    let soon = look(-30..20);
    soon.finds("identity.certificate", "warn", &["expires at", "in 19 days"]);
    assert_eq!(soon.code, 1);
    look(3..30).finds("identity.certificate", "fail", &["not valid before", "clock"]);
    assert_eq!(look(-30..300).code, 0);
    std::fs::copy(node.path("stranger.pem"), node.path("node.pem")).unwrap();
    let strange = doctor(&node, &["--only", "identity.certificate"]);
    strange.finds("identity.certificate", "fail", &["cannot be used", "openssl x509"]);
}

/// Runs a shell in the mount namespace of the node's agent.
fn inside(pid: u32, script: &str) {
    let words = ["-m", "-t", &pid.to_string(), "sh", "-c", script].map(str::to_owned);
    let output = Command::new("nsenter").args(words).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_full_disk_is_told_and_so_are_its_inodes() {
    if !is_root() {
        return;
    }
    let mut node = Node::new();
    close_key(&node);
    std::fs::create_dir(node.path("spool")).unwrap();
    let spool = node.path("spool").display().to_string();
    let mount = format!("mount -t tmpfs -o size=2g,nr_inodes=8000 none {spool} && exec \"$0\" \"$@\"");
    node.before = ["unshare", "-m", "sh", "-c", &mount].map(String::from).into();
    let agent = node.run();
    let pid = agent.pid().to_string();
    let look = || doctor_behind(&["nsenter", "-m", "-t", &pid], &node, &["--only", "disk"]);
    let good = look();
    good.finds("disk.space", "pass", &[&spool]);
    good.finds("disk.inodes", "pass", &[]);
    assert_eq!(good.code, 0);

    inside(agent.pid(), &format!("fallocate -l 1500m {spool}/filler"));
    look().finds("disk.space", "warn", &["cannot grow to its bound of 1.0 GiB"]);
    inside(agent.pid(), &format!("dd if=/dev/zero of={spool}/rest bs=1M 2>/dev/null; true"));
    let full = look();
    full.finds("disk.space", "fail", &["the disk is full", &spool, "df -h"]);
    assert_eq!(full.code, 2);
    inside(agent.pid(), &format!("rm {spool}/filler {spool}/rest"));
    look().finds("disk.space", "pass", &[]);

    inside(
        agent.pid(),
        &format!("cd {spool}; mkdir many; cd many; seq 7990 | xargs touch 2>/dev/null; true"),
    );
    look().finds("disk.inodes", "fail", &["runs out of inodes", "df -i"]);
    inside(agent.pid(), &format!("rm -r {spool}/many"));
    look().finds("disk.inodes", "pass", &[]);
}

/// Whether the aggregator's program lies beside ours, as after a build of the workspace.
#[expect(clippy::print_stdout, reason = "a test that does nothing says so")]
fn has_aggregator() -> bool {
    let there = Path::new(env!("CARGO_BIN_EXE_diarwatch")).with_file_name("diarwatch-aggregator").exists();
    if !there {
        println!("SKIPPED: diarwatch-aggregator is not built; `cargo build --workspace`");
    }
    there
}

#[test]
fn bad_rules_are_told_with_their_place_by_the_aggregators_own_program() {
    if !has_aggregator() {
        return;
    }
    let node = Node::new();
    let (rules, config) = (node.path("my rules.yaml"), node.path("aggregator.toml"));
    node.put(
        "aggregator.toml",
        &format!("[store]\nretention = \"1d\"\n[rules]\nfiles = [{:?}]\n", rules.display().to_string()),
    );
    let look = || doctor(&node, &["--only", "rules", "--aggregator-config", &config.display().to_string()]);
    node.put("my rules.yaml", "groups:\n  - name: g\n    rules:\n      - alert: A\n        expr: up == \n");
    let bad = look();
    bad.finds("rules.files", "fail", &["my rules.yaml:5:", "rules check '", "1 faults"]);
    assert_eq!(bad.code, 2);
    node.put("my rules.yaml", "groups:\n  - name: g\n    rules:\n      - alert: A\n        expr: up == 0\n");
    look().finds("rules.files", "pass", &["1 rules in 1 files"]);
    std::fs::remove_file(&rules).unwrap();
    look().finds("rules.files", "fail", &["No such file"]);
    std::fs::remove_file(&config).unwrap();
    look().finds("rules.files", "skip", &["no aggregator is configured"]);
}

/// Docker's Engine API as far as it is asked, on a socket of its own.
struct Docker {
    root: PathBuf,
}

const CONTAINER: &str = "4f1c0de4f1c0de";
/// What runc writes for a container whose GPUs are in its configuration; from a real host.
const NAMED: &str = "DeviceAllow=\nDeviceAllow=/dev/char/509:1 rwm\nDeviceAllow=/dev/char/195:255 rwm\nDeviceAllow=/dev/char/195:0 rwm\nDeviceAllow=/dev/char/1:3 rwm\nDeviceAllow=char-* m\n";
/// What it writes for one that got them by the hook of `--gpus`.
const HOOKED: &str =
    "DeviceAllow=\nDeviceAllow=char-136 rwm\nDeviceAllow=/dev/char/1:3 rwm\nDeviceAllow=char-* m\n";

impl Docker {
    fn start(node: &Node, driver: &str, container: &Value) -> Self {
        let root = node.path("root");
        std::fs::create_dir_all(root.join("run")).unwrap();
        let listener = UnixListener::bind(root.join("run/docker.sock")).unwrap();
        let info = json!({ "CgroupDriver": driver, "CgroupVersion": "2" });
        let (info, list) = (info.to_string(), json!([{ "Id": CONTAINER }]).to_string());
        let container = container.to_string();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut question = [0; 512];
                let length = stream.read(&mut question).unwrap_or(0);
                let question = String::from_utf8_lossy(&question[..length]).into_owned();
                let body = match question.split_whitespace().nth(1).unwrap_or_default() {
                    "/info" => &info,
                    "/containers/json" => &list,
                    _ => &container,
                };
                drop(write!(stream, "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{body}"));
            }
        });
        Self { root }
    }

    /// What systemd is told of the container's scope.
    fn scope(&self, rules: &str) {
        let directory = self.root.join(format!("run/systemd/transient/docker-{CONTAINER}.scope.d"));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("50-DeviceAllow.conf"), format!("# made by systemd\n[Scope]\n{rules}"))
            .unwrap();
    }
}

fn made_with(host: &Value) -> Value {
    json!({ "Id": CONTAINER, "Name": "/pyannote-1", "HostConfig": host, "Config": { "Env": ["PATH=/bin"] } })
}

#[test]
fn a_container_that_would_lose_its_gpus_at_a_daemon_reload_is_named() {
    let node = Node::new();
    let gpus = json!({ "DeviceRequests": [{ "Driver": "", "Count": -1, "Capabilities": [["gpu"]] }], "Runtime": "runc" });
    let docker = Docker::start(&node, "systemd", &made_with(&gpus));
    let look = || doctor(&node, &["--only", "containers", "--root", &docker.root.display().to_string()]);
    docker.scope(HOOKED);
    let risk = look();
    let words = [
        "pyannote-1",
        "daemon-reload takes the GPUs",
        "DeviceAllow",
        "nvidia-ctk cdi generate",
        "nvidia.com/gpu=all",
    ];
    risk.finds("containers.daemon_reload", "warn", &words);
    assert_eq!(risk.code, 1);
    docker.scope(NAMED);
    let safe = look();
    safe.finds("containers.daemon_reload", "pass", &["keep their GPUs"]);
    assert_eq!(safe.code, 0);
    // Without systemd's list, how it was made has to do.
    std::fs::remove_dir_all(docker.root.join("run/systemd")).unwrap();
    look().finds("containers.daemon_reload", "warn", &["pyannote-1", "may take the GPUs"]);
}

#[test]
fn cgroups_that_systemd_does_not_manage_are_no_risk_and_a_mute_docker_is_told() {
    let node = Node::new();
    let gpus = json!({ "DeviceRequests": [{ "Driver": "nvidia", "Count": 1, "Capabilities": [["gpu"]] }] });
    let docker = Docker::start(&node, "cgroupfs", &made_with(&gpus));
    docker.scope(HOOKED);
    let root = docker.root.display().to_string();
    let look = || doctor(&node, &["--only", "containers,disk", "--root", &root]);
    look().finds("containers.daemon_reload", "pass", &["cgroupfs"]);
    std::fs::remove_file(docker.root.join("run/docker.sock")).unwrap();
    look().finds("containers.daemon_reload", "skip", &["there is no Docker"]);
    let mute = UnixListener::bind(docker.root.join("run/docker.sock")).unwrap();
    let visit = look();
    visit.finds("containers.daemon_reload", "skip", &["Docker cannot be asked"]);
    assert!(visit.check("disk.space")["took_ms"].as_u64().unwrap() < 1_000, "others do not wait for it");
    let daemon = docker.root.join("etc/docker");
    std::fs::create_dir_all(&daemon).unwrap();
    let text = json!({ "runtimes": { "nvidia": { "path": "nvidia-container-runtime" } } }).to_string();
    std::fs::write(daemon.join("daemon.json"), text).unwrap();
    look().finds("containers.daemon_reload", "warn", &["nvidia runtime", "sudo diarwatch doctor"]);
    drop(mute);
}
