//! SIGHUP: a new configuration takes effect without a restart, touches only what changed, and a bad
//! one changes nothing and says so.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of a test"
)]

mod common;

use common::{Kept, Node, lives};
use diarwatch_shared::reading::Missing;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

fn worker(name: &str, seconds: u32) -> String {
    format!(
        "[[worker]]\nname = \"{name}\"\ndriver = \"child\"\ncommand = [\"/bin/sleep\", \"{seconds}\"]\n\
         readiness = {{ url = \"http://127.0.0.1:9/\" }}\n"
    )
}

/// The configuration in effect, as the agent says it.
fn in_effect(node: &Node) -> Value {
    ask(node, "config")
}

fn ask(node: &Node, question: &str) -> Value {
    let mut stream = UnixStream::connect(&node.socket).unwrap();
    writeln!(stream, "{{\"ask\":\"{question}\"}}").unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

fn setting(document: &Value, key: &str) -> Value {
    let settings = document["settings"].as_array().unwrap();
    settings
        .iter()
        .find(|setting| setting["key"] == key)
        .map_or(Value::Null, |setting| setting["value"].clone())
}

fn pid(status: &Value, name: &str) -> Option<u32> {
    let worker = status["workers"].as_array()?.iter().find(|worker| worker["worker"] == name)?;
    u32::try_from(worker["pid"].as_u64()?).ok()
}

#[test]
fn a_reload_touches_only_the_workers_whose_configuration_changed() {
    let mut node = Node::new();
    let base = node.more.clone();
    node.more =
        format!("{base}{}{}{}", worker("kept", 1_000), worker("changed", 1_000), worker("gone", 1_000));
    let agent = node.run();
    let at = |name: &'static str| agent.until("a worker runs", |status| pid(status, name));
    let (kept, changed, gone) = (at("kept"), at("changed"), at("gone"));

    node.more =
        format!("{base}{}{}{}", worker("kept", 1_000), worker("changed", 2_000), worker("new", 1_000));
    node.config();
    agent.signal(Signal::HUP);
    agent.until("the new worker runs", |status| pid(status, "new"));
    agent.until("the changed one runs anew", |status| pid(status, "changed").filter(|now| *now != changed));
    agent.until("the other one is gone", |status| pid(status, "gone").is_none().then_some(()));
    common::until("its process has ended", || (!lives(gone) && !lives(changed)).then_some(()));
    assert_eq!(pid(&agent.status(), "kept"), Some(kept));
    let document = in_effect(&node);
    assert_eq!((&document["problem"], &document["restart_needed"]), (&Value::Null, &json!([])));
    assert_eq!(setting(&document, "worker[1].command"), json!(["/bin/sleep", "2000"]));
    let (status, _) = agent.stop();
    assert!(status.success() && !lives(kept));
    // Nobody takes the last values of a worker that is no more for the present.
    let ended = |name: &str| {
        let label = ("worker".to_owned(), name.to_owned());
        let last = Kept::of(&node).labelled("worker_restarts_total", &label).pop().unwrap();
        last.1 == Err(Missing::NotSupported)
    };
    assert!(ended("gone") && !ended("kept") && !ended("new"));
}

#[test]
fn a_bad_configuration_changes_nothing_and_is_said_until_a_good_one_comes() {
    let mut node = Node::new();
    let base = node.more.clone();
    node.more = format!("{base}{}", worker("w", 1_000));
    let agent = node.run();
    let before = agent.until("the worker runs", |status| pid(status, "w"));
    node.put("agent.toml", "[gpu]\nenabeld = false\n");
    agent.signal(Signal::HUP);
    common::until("it is said", || {
        in_effect(&node)["problem"].as_str().filter(|why| why.contains("agent.toml:2:1")).map(drop)
    });
    assert_eq!(pid(&agent.status(), "w"), Some(before));
    assert!(agent.log().contains("the one before stays in effect"), "{}", agent.log());
    assert_eq!(setting(&in_effect(&node), "gpu.enabled"), json!(false));

    node.more.push_str("[spool]\nbytes_max = \"2GiB\"\n");
    node.more = node.more.replace("1000", "3000");
    let text = std::fs::read_to_string(node.config()).unwrap();
    let (first, rest) = text.split_once("[spool]\n").unwrap();
    node.put(
        "agent.toml",
        &format!(
            "{first}[spool]\nbytes_max = \"2GiB\"\n{}",
            rest.replace("[spool]\nbytes_max = \"2GiB\"\n", "")
        ),
    );
    agent.signal(Signal::HUP);
    common::until("the rest is in effect", || {
        let document = in_effect(&node);
        (document["problem"].is_null() && document["restart_needed"] == json!(["spool"])).then_some(())
    });
    agent.until("the worker runs anew", |status| pid(status, "w").filter(|now| *now != before));
    agent.stop();
}

#[test]
fn the_gpus_are_sampled_as_the_new_configuration_says() {
    let mut node = Node::new().with_gpus("gpus = 1\ngpu.0.util = 42\n");
    let agent = node.run();
    let sampler = common::until("the sampler runs", || agent.sampler());
    node.more = "[gpu]\nfast_interval = \"100ms\"\n".into();
    node.config();
    agent.signal(Signal::HUP);
    common::until("another sampler runs", || agent.sampler().filter(|pid| *pid != sampler));
    agent.until("its values are there", |status| {
        status["gpus"][0]["utilization_ratio"].is_f64().then_some(())
    });
    node.more = "[gpu]\nenabled = false\n".into();
    node.config();
    agent.signal(Signal::HUP);
    agent.until("GPUs are no longer sampled", |status| {
        (status["driver"]["state"] == "disabled").then_some(())
    });
    common::until("the sampler has ended", || agent.sampler().is_none().then_some(()));
    agent.stop();
}

#[test]
fn what_happened_before_a_restart_of_the_agent_can_still_be_asked_for() {
    let mut node = Node::new();
    node.more.push_str(&worker("w", 1_000));
    let agent = node.run();
    let first = agent.until("the worker runs", |status| pid(status, "w"));
    rustix::process::kill_process(common::pid_of(first), Signal::KILL).unwrap();
    agent.until("another one runs", |status| pid(status, "w").filter(|now| *now != first));
    agent.stop();
    let agent = node.run();
    let events = ask(&node, "events")["events"].as_array().unwrap().clone();
    let killed = |event: &&Value| event["kind"] == "worker_exited" && event["pid"] == first;
    assert_eq!(events.iter().filter(killed).count(), 1, "{events:#?}");
    let starts = events.iter().filter(|event| event["kind"] == "agent_started").count();
    assert_eq!(starts, 2, "{events:#?}");
    agent.stop();
}
