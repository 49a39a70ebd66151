//! `diarwatch doctor` at nodes with a fault that was really made: it names the cause, and without the
//! fault the same check is content. Here what the agent meets: its driver, its link, its clock, itself.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of a test"
)]

mod common;

use common::aggregator::Aggregator;
use common::doctor::{Visit, close_key, doctor, doctor_behind};
use common::{Agent, Node, diarwatch, until};
use diarwatch_shared::clock;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

const GPUS: &str = "gpus = 2\n";

fn healthy() -> Node {
    let node = Node::new().with_gpus(GPUS);
    close_key(&node);
    node
}

fn sees_gpus(agent: &Agent) {
    agent.until("GPUs are read", |status| status["gpus"][1]["memory_used_bytes"].is_f64().then_some(()));
}

fn is_linked(agent: &Agent) {
    agent.until("the link stands", |status| status["link"]["connected"].as_bool().filter(|up| *up).map(drop));
}

fn has_no_link(agent: &Agent) {
    agent.until("the link is down", |status| status["link"]["problem"].as_str().map(drop));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_node_has_no_failure_and_the_document_fits_its_schema() {
    let mut node = healthy();
    let aggregator = Aggregator::start(&node.path(""), "aggregator");
    node.endpoint = aggregator.address().to_string();
    let agent = node.run();
    sees_gpus(&agent);
    is_linked(&agent);
    let visit = doctor(&node, &["--skip", "driver.simulated,clock.synchronized,disk", "--network"]);
    for id in ["agent.config", "agent.socket", "agent.version", "agent.files", "identity.files"] {
        visit.finds(id, "pass", &[]);
    }
    for id in ["identity.key", "identity.certificate", "driver.nvidia", "driver.gpus", "spool.directory"] {
        visit.finds(id, "pass", &[]);
    }
    for id in ["spool.frames", "link.aggregator", "link.network", "clock.offset"] {
        visit.finds(id, "pass", &[]);
    }
    assert_eq!((visit.code, &visit.document["counts"]["fail"]), (0, &0.into()), "{:#}", visit.document);
    // The GPUs of a test are not real, and that is told.
    assert_eq!(doctor(&node, &["--only", "driver.simulated"]).code, 1);
    assert_eq!(doctor(&node, &[]).document["checks"].as_array().unwrap().len(), 23);
}

#[test]
fn no_nvidia_driver_is_named_with_the_library_that_is_not_there() {
    let mut node = healthy();
    node.more = "[gpu]\nlibrary = \"/no/such/libnvidia-ml.so.1\"\n".into();
    let agent = node.run();
    agent.until("no driver is found", |status| (status["driver"]["state"] == "absent").then_some(()));
    let visit = doctor(&node, &["--only", "driver"]);
    visit.finds("driver.nvidia", "fail", &["no NVIDIA driver", "/no/such/libnvidia-ml.so.1"]);
    assert_eq!(visit.code, 2);
    drop(agent);

    let node = healthy();
    let agent = node.run();
    sees_gpus(&agent);
    doctor(&node, &[]).finds("driver.nvidia", "pass", &["answers"]);
    node.scenario("gpus = 2\ngpu.1.state = lost\n");
    agent.until("GPU 1 is lost", |status| {
        status["gpus"][1]["memory_used_bytes"].is_f64().then_some(()).xor(Some(()))
    });
    doctor(&node, &[]).finds("driver.gpus", "fail", &["GPU 1 ", "reboot"]);
}

#[test]
fn a_gpu_without_a_driver_and_the_driver_that_took_it_are_seen_in_the_kernels_files() {
    let node = healthy();
    let root = node.path("root");
    let put = |name: &str, text: &str| {
        std::fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        std::fs::write(root.join(name), text).unwrap();
    };
    put("sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n");
    put("sys/bus/pci/devices/0000:01:00.0/class", "0x030000\n");
    put("sys/bus/pci/devices/0000:01:00.1/vendor", "0x10de\n");
    put("sys/bus/pci/devices/0000:01:00.1/class", "0x040300\n");
    let look = || doctor(&node, &["--root", &root.display().to_string()]);
    look().finds("driver.nvidia", "fail", &["NVIDIA GPUs on PCI: 1", "modprobe nvidia"]);
    put("sys/module/nouveau/version", "");
    look().finds("driver.nvidia", "fail", &["other driver: nouveau", "blacklist"]);
    put("proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.133.20\nGCC\n");
    look().finds("driver.nvidia", "pass", &["570.133.20"]);
}

#[test]
fn a_driver_that_hangs_is_named_with_its_function_and_holds_nothing_up() {
    let node = healthy();
    let agent = node.run();
    sees_gpus(&agent);
    node.scenario("gpus = 2\ngpu.1.call.nvmlDeviceGetUtilizationRates = hang\n");
    let stuck = agent.until("the driver hangs", |status| {
        let driver = &status["driver"];
        (driver["state"] == "unresponsive").then(|| driver["function"].as_str().unwrap().to_owned())
    });
    doctor(&node, &[]).finds("driver.nvidia", "fail", &[&stuck, "does not return", "reboot"]);
    node.scenario(GPUS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_behind_the_aggregators_is_told_with_its_seconds() {
    let mut node = healthy();
    let aggregator = Aggregator::start(&node.path(""), "aggregator");
    aggregator.set_ahead(Duration::from_secs(90));
    node.endpoint = aggregator.address().to_string();
    let agent = node.run();
    is_linked(&agent);
    doctor(&node, &[]).finds("clock.offset", "fail", &["90.", "behind", "timedatectl"]);
    aggregator.set_ahead(Duration::ZERO);
    aggregator.forget();
    drop(agent);
    let agent = node.run();
    is_linked(&agent);
    doctor(&node, &[]).finds("clock.offset", "pass", &["0.0"]);
}

/// An HTTP server whose answers have this `Date`, until the test ends.
fn dated(date: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            drop(stream.read(&mut [0; 512]));
            drop(write!(stream, "HTTP/1.1 200 OK\r\ndate: {date}\r\ncontent-length: 0\r\n\r\n"));
        }
    });
    url
}

#[test]
fn without_a_link_the_clock_is_held_against_the_aggregators_page() {
    let node = healthy();
    let old = dated("Thu, 04 Dec 2025 05:32:15 GMT");
    let look = |url: &str, more: &[&str]| doctor(&node, &[&["--aggregator", url][..], more].concat());
    look(&old, &["--network"]).finds("clock.offset", "fail", &["ahead of the aggregator"]);
    look(&old, &[]).finds("clock.offset", "skip", &["--network"]);
    look("http://127.0.0.1:9", &["--network"]).finds("clock.offset", "skip", &["refused"]);
    look(&dated("soon"), &["--network"]).finds("clock.offset", "skip", &["no Date"]);
}

#[test]
fn a_clock_that_nothing_keeps_is_what_timedatectl_says() {
    let node = healthy();
    let bin = node.path("bin");
    std::fs::create_dir(&bin).unwrap();
    let says = |answer: &str| {
        let program = bin.join("timedatectl");
        std::fs::write(&program, format!("#!/bin/sh\n{answer}\n")).unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let path = format!("PATH={}:{}", bin.display(), std::env::var("PATH").unwrap());
        doctor_behind(&["env", &path], &node, &["--only", "clock,disk"])
    };
    says("echo no").finds("clock.synchronized", "warn", &["not kept", "set-ntp"]);
    says("echo yes").finds("clock.synchronized", "pass", &[]);
    says("echo no bus >&2; exit 1").finds("clock.synchronized", "skip", &["no bus"]);
    let hung = says("exec sleep 60");
    hung.finds("clock.synchronized", "skip", &["timed out"]);
    assert!(hung.check("disk.space")["took_ms"].as_u64().unwrap() < 1_000, "others do not wait for it");
}

#[test]
fn an_aggregator_whose_name_does_not_resolve_is_told_as_that() {
    let mut node = healthy();
    node.endpoint = "no-such-host.invalid:9440".into();
    let agent = node.run();
    has_no_link(&agent);
    let words = ["does not resolve", "no-such-host.invalid", "getent ahosts"];
    doctor(&node, &[]).finds("link.aggregator", "fail", &words);
    doctor(&node, &["--network"]).finds("link.network", "fail", &words);
}

#[test]
fn an_aggregator_that_does_not_answer_is_told_as_silent_and_one_that_is_not_there_as_refused() {
    let mut node = healthy();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    node.endpoint = silent.local_addr().unwrap().to_string();
    let agent = node.run();
    has_no_link(&agent);
    let visit = doctor(&node, &["--network"]);
    visit.finds("link.aggregator", "fail", &["no answer (UDP is filtered", &node.endpoint]);
    visit.finds("link.network", "fail", &["no answer (UDP is filtered", &node.endpoint]);
    drop(silent);
    doctor(&node, &["--network"]).finds("link.network", "fail", &["nothing listens", "refused"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aggregator_of_another_ca_is_told_as_tls() {
    let mut node = healthy();
    let aggregator = Aggregator::start(&node.path(""), "stranger");
    node.endpoint = aggregator.address().to_string();
    let agent = node.run();
    has_no_link(&agent);
    let visit = doctor(&node, &["--network"]);
    visit.finds("link.aggregator", "fail", &["TLS", "invalid peer certificate", "openssl x509"]);
    visit.finds("link.network", "fail", &["TLS", "invalid peer certificate"]);
    // The same place with a good certificate, and no agent whose link could be asked.
    drop(agent);
    let aggregator = Aggregator::start(&node.path(""), "aggregator");
    node.endpoint = aggregator.address().to_string();
    let visit = doctor(&node, &["--network"]);
    visit.finds("link.network", "pass", &["answers over UDP"]);
    visit.finds("link.aggregator", "skip", &[]);
}

#[test]
fn an_agent_that_is_not_there_and_one_that_says_nothing_are_told_apart() {
    let node = healthy();
    doctor(&node, &[]).finds("agent.socket", "fail", &["does not run", "No such file", "systemctl start"]);
    drop(node.run());
    doctor(&node, &[]).finds("agent.socket", "fail", &["only its socket", "systemctl start"]);
    std::fs::remove_file(&node.socket).unwrap();
    let mute = UnixListener::bind(&node.socket).unwrap();
    doctor(&node, &["--timeout", "200ms"]).finds("agent.socket", "fail", &["does not answer", "restart"]);
    drop(mute);
}

#[test]
fn a_configuration_with_a_fault_is_told_with_its_place_and_one_that_hangs_holds_nothing_up() {
    let mut node = healthy();
    node.more = "[gpu]\nfast_intervall = \"1s\"\n".into();
    let words = ["agent.toml:16:1", "did you mean `fast_interval`?", "config check"];
    doctor(&node, &[]).finds("agent.config", "fail", &words);
    // What an agent refused once stands until it is asked again.
    node.more = "[gpu]\nenabled = false\n".into();
    let agent = node.run();
    node.put("agent.toml", "nonsense");
    agent.signal(rustix::process::Signal::HUP);
    agent.until("the reload is refused", |status| status["config_problem"].as_str().map(drop));
    doctor(&node, &[]).finds("agent.config", "warn", &["refused it at its last reload", "systemctl reload"]);
    agent.signal(rustix::process::Signal::HUP);
    agent.until("the reload is taken", |status| status["config_problem"].is_null().then_some(()));
    doctor(&node, &[]).finds("agent.config", "pass", &[]);
    drop(agent);
    node.more = String::new();
    let pipe = node.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let visit =
        Visit::of(&diarwatch(&["doctor", "--json", "--lang", "en", "--config", &pipe.display().to_string()]));
    visit.finds("agent.config", "fail", &["does not end"]);
    visit.finds("disk.space", "skip", &["agent.config"]);
    visit.finds("driver.nvidia", "fail", &[]);
}

/// Every file below a directory with its size and its time of change.
fn contents(directory: &Path) -> BTreeMap<PathBuf, (u64, std::time::SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let about = entry.metadata().unwrap();
        if about.is_dir() {
            found.extend(contents(&entry.path()));
        }
        found.insert(entry.path(), (about.len(), about.modified().unwrap()));
    }
    found
}

#[test]
fn it_writes_nothing_and_sends_nothing_unless_it_is_asked_to() {
    let mut node = healthy();
    let ear = UdpSocket::bind("127.0.0.1:0").unwrap();
    ear.set_nonblocking(true).unwrap();
    node.endpoint = ear.local_addr().unwrap().to_string();
    node.config();
    let (config, socket) = (node.path("agent.toml"), node.socket.clone());
    let before = contents(&node.path(""));
    let (config, socket) = (config.display().to_string(), socket.display().to_string());
    let run = |more: &[&str]| {
        diarwatch(&[&["doctor", "--config", &config, "--socket", &socket, "--lang", "ja"][..], more].concat())
    };
    let output = run(&[]);
    assert_eq!(contents(&node.path("")), before);
    assert!(ear.recv(&mut [0; 2_000]).is_err(), "a datagram came");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("異常") && text.lines().last().unwrap().starts_with("診断: "), "{text}");
    run(&["--network", "--only", "link.network"]);
    until("a datagram comes", || ear.recv(&mut [0; 2_000]).ok());
}

#[test]
fn checks_are_chosen_by_id_or_group_and_an_id_that_is_not_there_is_exit_64() {
    let node = healthy();
    let ids = |more: &[&str]| -> Vec<String> {
        let visit = doctor(&node, more);
        visit.document["checks"].as_array().unwrap().iter().map(|check| check["id"].to_string()).collect()
    };
    assert_eq!(ids(&["--only", "disk"]), ["\"disk.space\"", "\"disk.inodes\""]);
    assert_eq!(ids(&["--only", "disk,agent.config", "--skip", "disk.inodes"]).len(), 2);
    let output = diarwatch(&["doctor", "--only", "disks"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8(output.stderr).unwrap().contains("disk.space"));
    let began = clock::uptime();
    let lines = diarwatch(&[
        "doctor",
        "-o",
        "ndjson",
        "--only",
        "disk",
        "--config",
        &node.config().display().to_string(),
    ]);
    let lines = String::from_utf8(lines.stdout).unwrap();
    let schema = serde_json::from_str(include_str!("../../shared/schemas/doctor_check.json")).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    for line in lines.lines() {
        assert!(schema.is_valid(&serde_json::from_str(line).unwrap()), "{line}");
    }
    assert!(lines.lines().count() == 2 && lines.contains("\"doctor_check\""), "{lines}");
    assert!(clock::uptime() - began < Duration::from_secs(3));
}

#[test]
fn colours_and_csv_are_those_of_the_other_commands() {
    let node = healthy();
    let config = node.config().display().to_string();
    let run = |more: &[&str]| {
        let output = diarwatch(
            &[&["doctor", "--config", &config, "--only", "disk.space,agent.socket"], more].concat(),
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let (plain, coloured) = (run(&[]), run(&["--color", "always"]));
    assert!(!plain.contains('\u{1b}') && plain.contains("■ FAIL agent.socket"), "{plain:?}");
    assert!(coloured.contains("\u{1b}[1m\u{1b}[31m■ FAIL\u{1b}[0m agent.socket"), "{coloured:?}");
    assert!(run(&["--json", "--color", "always"]).starts_with('{'));
    let csv = run(&["-o", "csv"]);
    assert!(
        csv.starts_with("id,verdict,seen,mend\r\nagent.socket,fail,") && csv.ends_with("\r\n"),
        "{csv:?}"
    );
}
