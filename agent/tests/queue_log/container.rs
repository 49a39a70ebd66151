//! A worker's log in a container, told by an engine that hangs, dies and comes back.

use serde_json::json;

use super::common::{Kept, Node};
use super::engine::{Does, Engine, NAME};
use super::{Neighbour, log, peak_bytes, queue, until_counts, until_problem};

fn node(engine: &Engine) -> Node {
    let mut node = Node::new();
    let socket = engine.socket().display().to_string();
    let place = format!("container = \"{NAME}\"\ndocker_socket = {socket:?}");
    node.more.push_str(&queue("diarization", &log(&place)));
    node
}

#[test]
fn a_container_tells_what_waits_on_both_streams_and_raw_where_it_has_a_terminal() {
    for terminal in [false, true] {
        let engine = Engine::start(terminal);
        engine.says(&["INFO model loaded", "job 1 accepted", "job 議事録 accepted", "job 1 started"]);
        let node = node(&engine);
        let agent = node.run();
        let queue = until_counts(&agent, "diarization", 1.0, 1.0);
        assert_eq!((&queue["source"], &queue["estimated"]), (&json!("log"), &json!(true)));
        engine.says(&["job 1 done in 12.5s (audio 3600.0s)", "job 3 accepted"]);
        let queue = until_counts(&agent, "diarization", 2.0, 0.0);
        assert_eq!(queue["job_mean_seconds"], 12.5);
        drop(agent.stop());
        // An agent that starts anew does not begin from zero.
        engine.says(&["job 3 started", "job 議事録 done in 7.5s (audio 3600.0s)"]);
        let agent = node.run();
        let queue = until_counts(&agent, "diarization", 0.0, 1.0);
        assert_eq!(queue["job_mean_seconds"], 10.0);
    }
}

#[test]
fn an_engine_that_dies_is_a_problem_until_it_is_back_and_each_line_counts_once() {
    let engine = Engine::start(false);
    engine.says(&["upload accepted", "upload accepted"]);
    let mut node = node(&engine);
    let neighbour = Neighbour::beside(&mut node);
    let agent = node.run();
    until_counts(&agent, "diarization", 2.0, 0.0);
    for waiting in [4.0, 6.0] {
        engine.dies();
        until_problem(&agent, "diarization", "is the Docker Engine running?");
        neighbour.is_looked_at(&node, &agent);
        // The container wrote meanwhile.
        engine.says(&["upload accepted", "upload accepted"]);
        engine.comes_back();
        until_counts(&agent, "diarization", waiting, 0.0);
    }
}

#[test]
fn an_engine_that_hangs_costs_no_neighbour_and_is_believed_again() {
    let engine = Engine::start(false);
    engine.says(&["job 1 accepted"]);
    engine.now(Does::Hangs);
    let mut node = node(&engine);
    let neighbour = Neighbour::beside(&mut node);
    let agent = node.run();
    neighbour.is_looked_at(&node, &agent);
    until_problem(&agent, "diarization", "no answer within 5 s");
    neighbour.is_looked_at(&node, &agent);
    engine.now(Does::Answers);
    until_counts(&agent, "diarization", 1.0, 0.0);
}

#[test]
fn a_container_that_the_engine_does_not_know_says_what_to_correct() {
    let engine = Engine::start(false);
    engine.now(Does::KnowsNone);
    let node = node(&engine);
    let agent = node.run();
    until_problem(&agent, "diarization", "No such container: pyannote; correct `container`");
    engine.now(Does::Answers);
    engine.says(&["job 1 accepted"]);
    until_counts(&agent, "diarization", 1.0, 0.0);
}

#[test]
fn a_container_that_stops_has_lost_its_queue_and_one_that_starts_anew_begins_without() {
    let engine = Engine::start(false);
    engine.says(&["job 1 accepted", "job 2 accepted"]);
    let node = node(&engine);
    let agent = node.run();
    until_counts(&agent, "diarization", 2.0, 0.0);
    engine.container_stops();
    until_problem(&agent, "diarization", "container pyannote does not run");
    engine.container_starts();
    engine.says(&["INFO model loaded", "job 3 accepted"]);
    until_counts(&agent, "diarization", 1.0, 0.0);
    drop(agent.stop());
    assert_eq!(Kept::of(&node).series("queue_failed_total").last().unwrap().1, Ok(2.0));
}

#[test]
fn a_log_that_is_none_and_never_ends_takes_no_memory_and_is_told() {
    for terminal in [false, true] {
        let engine = Engine::start(terminal);
        engine.now(Does::Floods);
        let mut node = node(&engine);
        let neighbour = Neighbour::beside(&mut node);
        let agent = node.run();
        if !terminal {
            until_problem(&agent, "diarization", "has a header that is none");
        }
        neighbour.is_looked_at(&node, &agent);
        assert!(peak_bytes(&agent) < 256 << 20, "{} bytes", peak_bytes(&agent));
    }
}
