//! Jobs that are files.

use serde_json::{Value, json};

use super::common::{Kept, Node};
use super::{Neighbour, queue, until, until_counts, until_problem};

const PATTERNS: &str = r#"
waiting = "in/*.wav"
processing = "busy/*.wav"
completed = "done/*.json"
failed = "failed/*"
exclude = ["*.part.wav"]
"#;

fn node() -> Node {
    let mut node = Node::new();
    let path = node.path("jobs").display().to_string();
    node.more.push_str(&queue("diarization", &format!("[queue.directory]\npath = {path:?}{PATTERNS}")));
    node
}

fn make(node: &Node) {
    for place in ["in", "busy", "done", "failed"] {
        std::fs::create_dir_all(node.path("jobs").join(place)).unwrap();
    }
}

fn shift(node: &Node, from: &str, to: &str) {
    std::fs::rename(node.path("jobs").join(from), node.path("jobs").join(to)).unwrap();
}

#[test]
fn files_tell_how_far_their_jobs_are_as_they_appear_move_on_and_vanish() {
    let node = node();
    make(&node);
    // What was done before is not what is done now.
    for name in
        ["in/1.wav", "in/2.wav", "in/会議.wav", "in/4.part.wav", "in/.5.wav", "in/note.txt", "done/0.json"]
    {
        node.put(&format!("jobs/{name}"), "");
    }
    let agent = node.run();
    let found = until_counts(&agent, "diarization", 3.0, 0.0);
    assert_eq!((&found["source"], &found["estimated"]), (&json!("directory"), &json!(false)));
    assert!(found["oldest_seconds"].as_f64().is_some_and(|age| age < 100.0), "{found:#}");
    assert_eq!(found["job_mean_seconds"], Value::Null, "a file does not say when its job began");
    shift(&node, "in/1.wav", "busy/1.wav");
    shift(&node, "in/会議.wav", "busy/会議.wav");
    until_counts(&agent, "diarization", 1.0, 2.0);
    shift(&node, "busy/1.wav", "done/1.json");
    shift(&node, "busy/会議.wav", "failed/会議.wav");
    shift(&node, "in/4.part.wav", "in/4.wav");
    until_counts(&agent, "diarization", 2.0, 0.0);
    std::fs::remove_file(node.path("jobs/in/2.wav")).unwrap();
    std::fs::remove_file(node.path("jobs/done/1.json")).unwrap();
    std::fs::remove_file(node.path("jobs/in/4.wav")).unwrap();
    let empty = until_counts(&agent, "diarization", 0.0, 0.0);
    assert_eq!(empty["oldest_seconds"], 0.0);
    drop(agent.stop());
    let mut kept = Kept::of(&node);
    for total in ["queue_completed_total", "queue_failed_total"] {
        assert_eq!(kept.series(total).last().unwrap().1, Ok(1.0), "{total}");
    }
}

#[test]
fn a_directory_that_is_missing_is_told_and_read_when_it_is_there() {
    let mut node = node();
    let neighbour = Neighbour::beside(&mut node);
    let agent = node.run();
    until_problem(&agent, "diarization", "create it, or correct `path`");
    neighbour.is_looked_at(&node, &agent);
    make(&node);
    node.put("jobs/in/1.wav", "");
    until_counts(&agent, "diarization", 1.0, 0.0);
    std::fs::remove_dir_all(node.path("jobs/busy")).unwrap();
    until_problem(&agent, "diarization", "jobs/busy");
    std::fs::write(node.path("jobs/busy"), "").unwrap();
    until_problem(&agent, "diarization", "Not a directory");
    std::fs::remove_file(node.path("jobs/busy")).unwrap();
    make(&node);
    until_counts(&agent, "diarization", 1.0, 0.0);
}

#[test]
fn more_files_than_are_looked_at_are_told_and_cost_no_neighbour() {
    let mut node = node();
    let neighbour = Neighbour::beside(&mut node);
    make(&node);
    let first = node.path("jobs/in/0.wav");
    std::fs::write(&first, "").unwrap();
    // Links to one file: names are all that it takes, up to what a file may have of them.
    for place in 0..4 {
        let target = node.path(&format!("jobs/in/first-{place}.wav"));
        std::fs::write(&target, "").unwrap();
        for name in 0..25_500 {
            std::fs::hard_link(&target, node.path(&format!("jobs/in/{place}-{name}.wav"))).unwrap();
        }
    }
    let agent = node.run();
    let found = until(&agent, "diarization", "they are counted up to the bound", |queue| {
        queue["problem"].as_str().is_some_and(|problem| problem.contains("more than 100000 entries"))
    });
    assert_eq!(found["waiting"], 100_000.0, "{found:#}");
    neighbour.is_looked_at(&node, &agent);
}
