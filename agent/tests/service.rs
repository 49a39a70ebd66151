//! The service from its start to its end, as its operator meets it: what is refused and in which words,
//! what is a state and mends itself, and what a restart keeps.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of a test"
)]

mod common;

use common::{Kept, NODE, Node, children_of, diarwatch, lives};
use diarwatch_shared::clock;
use diarwatch_shared::event::What;
use diarwatch_shared::node::Epoch;
use serde_json::Value;
use std::path::Path;

/// A worker that lives and never becomes ready.
const WORKER: &str = "[gpu]\nenabled = false\n[[worker]]\nname = \"w\"\ndriver = \"child\"\n\
    command = [\"/bin/sh\", \"-c\", \"exec sleep 1000\"]\nbackoff_base = \"100ms\"\nbackoff_max = \"100ms\"\n\
    [worker.readiness]\nurl = \"http://127.0.0.1:9/\"\n";

fn refused(node: &Node) -> (Option<i32>, String) {
    let (status, log) = node.start().end();
    (status.code(), log)
}

/// Every word in one text.
#[track_caller]
fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

fn number(status: &Value, pointer: &str) -> u64 {
    status.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{pointer}: {status:#}"))
}

#[test]
fn a_configuration_that_is_not_there_is_refused_with_its_path_and_how_to_name_another() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_diarwatch-agent"))
        .args(["run", "--config", "/no/such/agent.toml"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    says(&String::from_utf8(output.stderr).unwrap(), &["/no/such/agent.toml", "--config", "No such file"]);
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_key_that_was_meant() {
    let mut node = Node::new();
    node.more = "[gpu]\nfast_intervall = \"100ms\"\n".into();
    let (code, text) = refused(&node);
    assert_eq!(code, Some(78));
    says(&text, &["agent.toml:16:1: ", "unknown field `fast_intervall`", "did you mean `fast_interval`?"]);
}

#[test]
fn a_missing_certificate_key_or_ca_is_refused_by_its_key_in_the_configuration() {
    for (file, key) in [("ca.pem", "ca"), ("node.pem", "certificate"), ("node.key", "key")] {
        let node = Node::new();
        std::fs::remove_file(node.path(file)).unwrap();
        let (code, text) = refused(&node);
        assert_eq!(code, Some(78), "{text}");
        let path = node.path(file).display().to_string();
        says(&text, &["agent.toml", &format!("[identity] {key} = {path}"), "No such file", "pki"]);
        assert!(!node.path("spool").exists(), "nothing is made before the identity is known to be good");
    }
}

#[test]
fn an_identity_that_does_not_fit_is_refused_with_what_does_not() {
    let cases = [
        ("aggregator.pem", "aggregator.key", &["names no node", ".node.diarwatch.internal"][..]),
        ("node.pem", "aggregator.key", &["identity cannot be used"]),
        ("node.key", "node.key", &["certificate is not readable as PEM"]),
        ("node.pem", "node.pem", &["private key is not readable as PEM"]),
    ];
    for (certificate, key, words) in cases {
        let node = Node::new();
        for (from, to) in [(certificate, "c"), (key, "k")] {
            std::fs::copy(node.path(from), node.path(to)).unwrap();
        }
        std::fs::rename(node.path("c"), node.path("node.pem")).unwrap();
        std::fs::rename(node.path("k"), node.path("node.key")).unwrap();
        let (code, text) = refused(&node);
        assert_eq!(code, Some(78), "{text}");
        says(&text, &["[identity]"]);
        says(&text, words);
    }
}

#[test]
fn a_spool_that_cannot_be_written_is_refused_with_its_path() {
    let node = Node::new();
    std::fs::write(node.path("spool"), "a file").unwrap();
    let (code, text) = refused(&node);
    assert_eq!(code, Some(75), "{text}");
    says(&text, &["agent.toml", &node.path("spool").display().to_string()]);
}

#[test]
fn a_second_agent_on_the_same_socket_is_refused_and_the_first_lives_on() {
    let first = Node::new();
    let agent = first.run();
    let mut second = Node::new();
    second.socket = first.path("agent.sock");
    let (code, text) = refused(&second);
    assert_eq!(code, Some(75), "{text}");
    says(&text, &[&first.path("agent.sock").display().to_string(), "another agent answers on it"]);
    assert_eq!(agent.status()["node"], NODE);
}

#[test]
fn a_second_agent_on_the_same_spool_is_refused_before_it_touches_a_frame() {
    let mut node = Node::new();
    let agent = node.run();
    let frames = number(&agent.status(), "/frames_emitted");
    node.socket = node.path("other.sock");
    let (status, text) = node.start_as(Path::new(env!("CARGO_BIN_EXE_diarwatch-agent")), "second").end();
    assert_eq!(status.code(), Some(75), "{text}");
    says(&text, &["spool", "in use by another agent; stop that one first"]);
    agent.until("frames go on", |status| (number(status, "/frames_emitted") > frames + 1).then_some(()));
    let (_, log) = agent.stop();
    assert!(!log.contains("rebuilt"), "{log}");
    assert!(Kept::of(&node).frames.len() as u64 > frames, "no frame was lost to the second agent");
}

#[test]
fn the_socket_of_a_dead_agent_is_replaced_and_a_file_in_its_place_is_left_alone() {
    let node = Node::new();
    let agent = node.run();
    agent.signal(rustix::process::Signal::KILL);
    drop(agent.end());
    assert!(node.path("agent.sock").exists(), "it died without clearing up");
    let agent = node.run();
    assert_eq!(agent.stop().0.code(), Some(0));
    assert!(!node.path("agent.sock").exists());

    node.put("agent.sock", "precious");
    let (code, text) = refused(&node);
    assert_eq!(code, Some(75), "{text}");
    says(&text, &["[socket] path", "is no socket"]);
    assert_eq!(std::fs::read_to_string(node.path("agent.sock")).unwrap(), "precious");
}

#[test]
fn without_an_aggregator_the_agent_keeps_its_frames_says_why_and_costs_nothing() {
    let node = Node::new();
    let agent = node.run();
    let status = agent.until("the link is known to be down", |status| {
        status["link"]["problem"].is_string().then(|| status.clone())
    });
    assert_eq!(status["link"]["connected"], false);
    says(status["link"]["problem"].as_str().unwrap(), &["127.0.0.1:9"]);
    assert!(status["spool"]["problem"].is_null());

    let (began, used) = (clock::uptime(), agent.cpu_seconds());
    let first = number(&status, "/frames_emitted");
    agent.until("frames wait", |status| {
        assert_eq!(status["link"]["connected"], false);
        (number(status, "/spool/frames_unacked") >= first + 5).then_some(())
    });
    let share = (agent.cpu_seconds() - used) / clock::uptime().saturating_sub(began).as_secs_f64();
    assert!(share < 0.25, "the agent uses {share} of a CPU while nobody listens");
    assert_eq!(agent.stop().0.code(), Some(0));
}

#[test]
fn a_name_that_does_not_resolve_is_a_state_and_holds_up_no_stop() {
    let mut node = Node::new();
    node.endpoint = "no-such-host.invalid:9440".into();
    let agent = node.run();
    agent.until("the link is known to be down", |status| {
        status["link"]["problem"].as_str()?.contains("no-such-host.invalid").then_some(())
    });
    let (began, used) = (clock::uptime(), agent.cpu_seconds());
    let first = number(&agent.status(), "/frames_emitted");
    agent.until("frames go on", |status| (number(status, "/frames_emitted") >= first + 4).then_some(()));
    let share = (agent.cpu_seconds() - used) / clock::uptime().saturating_sub(began).as_secs_f64();
    assert!(share < 0.25, "the agent uses {share} of a CPU while a name does not resolve");
    assert_eq!(agent.stop().0.code(), Some(0));
}

#[test]
fn sigterm_ends_the_agent_with_its_workers_and_nothing_is_left() {
    let mut node = Node::new().with_gpus("gpus = 1\n");
    node.more = WORKER.replace("enabled = false", "enabled = true");
    let agent = node.run();
    let worker = agent.until("the worker runs", |status| status["workers"][0]["pid"].as_u64());
    let sampler = agent.until("the sampler runs", |_| agent.sampler());
    let began = clock::uptime();
    let pid = agent.pid();
    let (status, log) = agent.stop();
    let took = clock::uptime().saturating_sub(began);
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(took.as_secs() < 5, "a stop takes {took:?} though the worker ends at once");
    assert!(!lives(u32::try_from(worker).unwrap()), "the worker is left");
    assert!(!lives(sampler), "the sampler is left");
    assert_eq!(children_of(pid), [0; 0]);
    says(&log, &["agent stopped", "frames_emitted="]);
}

#[test]
fn a_restart_keeps_the_frames_under_their_old_epoch_and_takes_a_greater_one() {
    let node = Node::new();
    let agent = node.run();
    let first = number(&agent.status(), "/epoch");
    agent.until("frames are made", |status| (number(status, "/frames_emitted") >= 4).then_some(()));
    agent.signal(rustix::process::Signal::KILL);
    drop(agent.end());

    let agent = node.run();
    let second = number(&agent.status(), "/epoch");
    assert!(second > first);
    assert!(agent.status()["started_us"].as_u64().unwrap() > 0);
    let unacked = agent.until("the spool is looked at", |status| {
        Some(number(status, "/spool/frames_unacked")).filter(|count| *count > 0)
    });
    assert!(unacked >= 4, "the frames of before are still owed: {unacked}");
    agent.stop();

    let kept = Kept::of(&node);
    assert!(kept.epochs.contains(&Epoch(first)) && kept.epochs.contains(&Epoch(second)));
    for epoch in [first, second] {
        let seqs: Vec<u64> = kept.frames.iter().filter(|item| item.0.0 == epoch).map(|item| item.1).collect();
        assert!(!seqs.is_empty());
        assert_eq!(seqs, (0..seqs.len() as u64).collect::<Vec<_>>(), "from 0 without a hole");
    }
    let starts = |what: &What| matches!(what, What::AgentStarted { .. });
    assert_eq!(kept.events().into_iter().filter(starts).count(), 2);
}

#[test]
fn a_disk_that_refuses_costs_values_but_no_event_and_is_used_again_when_it_takes_more() {
    let mut node = Node::new();
    node.more = WORKER.into();
    // The signal of the limit would end the agent where a full disk gives an error.
    node.before = ["/bin/sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""].map(String::from).into();
    let agent = node.run();
    let worker = |status: &Value| status["workers"][0]["pid"].as_u64();
    let mut pid = agent.until("the worker runs", worker);
    agent.until("frames are made", |status| (number(status, "/frames_emitted") >= 3).then_some(()));
    agent.limit_files(Some(4_096));
    let status = agent.until("the disk's refusal is told", |status| {
        (number(status, "/spool/frames_lost") >= 2).then(|| status.clone())
    });
    says(status["spool"]["problem"].as_str().unwrap(), &["journal"]);
    for _ in 0..3 {
        rustix::process::kill_process(
            common::pid_of(u32::try_from(pid).unwrap()),
            rustix::process::Signal::KILL,
        )
        .unwrap();
        pid = agent.until("the worker is back", |status| worker(status).filter(|new| *new != pid));
    }
    let (lost, emitted) =
        (number(&agent.status(), "/spool/frames_lost"), number(&agent.status(), "/frames_emitted"));
    agent.limit_files(None);
    agent.until("the spool takes frames again", |status| {
        (number(status, "/frames_emitted") > emitted + 8 && status["spool"]["problem"].is_null())
            .then_some(())
    });
    assert!(number(&agent.status(), "/spool/frames_lost") <= lost + 1);
    let (status, log) = agent.stop();
    assert_eq!(status.code(), Some(0), "{log}");

    let kept = Kept::of(&node);
    let seqs: Vec<u64> = kept.frames.iter().map(|item| item.1).collect();
    assert_eq!(seqs, (0..seqs.len() as u64).collect::<Vec<_>>(), "numbers have no hole");
    let told = kept.events();
    let starts = told.iter().filter(|what| matches!(what, What::WorkerStarted { .. })).count();
    let exits = told.iter().filter(|what| matches!(what, What::WorkerExited { .. })).count();
    assert_eq!((starts, exits), (4, 3), "{told:?}");
}

#[test]
fn status_asks_nobody_and_answers_at_once_to_many() {
    let node = Node::new();
    let _agent = node.run();
    let socket = node.path("agent.sock").display().to_string();
    // Askers that say nothing take all places for half a second; then others are served.
    let idle: Vec<_> = (0..8).map(|_| std::os::unix::net::UnixStream::connect(&socket).unwrap()).collect();
    let output = diarwatch(&["status", "--json", "--socket", &socket]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    drop(idle);
}
