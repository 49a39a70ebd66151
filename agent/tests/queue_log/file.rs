//! A worker's log in a file that is rotated, torn, damaged and flooded.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use super::common::{Agent, Kept, Node};
use super::{Neighbour, log, peak_bytes, queue, until, until_counts, until_problem};

/// A node that reads the file `worker.log` of its directory.
fn node() -> (Node, PathBuf) {
    let mut node = Node::new();
    let path = node.path("worker.log");
    node.more.push_str(&queue("diarization", &log(&format!("file = {:?}", path.display().to_string()))));
    (node, path)
}

/// The same, running, with two jobs that wait.
fn running() -> (Node, PathBuf, File, Agent) {
    let (node, path) = node();
    let mut file = append(&path);
    file.write_all(b"job 1 accepted\nupload accepted\n").unwrap();
    let agent = node.run();
    until_counts(&agent, "diarization", 2.0, 0.0);
    (node, path, file, agent)
}

fn append(path: &PathBuf) -> File {
    OpenOptions::new().append(true).create(true).open(path).unwrap()
}

#[test]
fn a_file_that_is_renamed_is_read_to_its_end_and_the_new_one_from_its_begin() {
    let (node, path, mut old, agent) = running();
    std::fs::rename(&path, node.path("worker.log.1")).unwrap();
    old.write_all(b"job 1 started\n").unwrap();
    until_counts(&agent, "diarization", 1.0, 1.0);
    let mut new = append(&path);
    new.write_all(b"job 3 accepted\n").unwrap();
    until_counts(&agent, "diarization", 2.0, 1.0);
    // The writer has both for a while.
    old.write_all(b"job 9 started\n").unwrap();
    until_counts(&agent, "diarization", 1.0, 2.0);
    new.write_all(b"job 1 done in 2.5s (audio 10s)\njob 9 failed\n").unwrap();
    let queue = until_counts(&agent, "diarization", 1.0, 0.0);
    assert_eq!(queue["job_mean_seconds"], 2.5);
    drop(agent.stop());
    let mut kept = Kept::of(&node);
    assert_eq!(kept.series("queue_completed_total").last().unwrap().1, Ok(1.0));
    assert_eq!(kept.series("queue_failed_total").last().unwrap().1, Ok(1.0));
}

#[test]
fn a_file_that_is_copied_and_truncated_is_read_from_its_begin() {
    let (node, path, mut file, agent) = running();
    for (times, waiting) in [(0, 3.0), (20, 4.0), (40, 5.0)] {
        std::fs::copy(&path, node.path("worker.log.1")).unwrap();
        file.set_len(0).unwrap();
        // Once shorter than before, and then longer at once: its first line is where the old file was read.
        let noise = "GET /health 200\n".repeat(times);
        writeln!(file, "upload accepted\n{noise}").unwrap();
        until_counts(&agent, "diarization", waiting, 0.0);
    }
}

#[test]
fn a_line_that_is_written_in_two_halves_counts_once_it_is_whole() {
    let (_node, _path, mut file, agent) = running();
    file.write_all(b"job 3 accepted\njob 1 sta").unwrap();
    until_counts(&agent, "diarization", 3.0, 0.0);
    file.write_all(b"rted").unwrap();
    file.write_all(b"\n").unwrap();
    until_counts(&agent, "diarization", 2.0, 1.0);
}

#[test]
fn a_file_that_appears_later_is_read_and_one_that_is_gone_is_told() {
    let (mut node, path) = node();
    let neighbour = Neighbour::beside(&mut node);
    let agent = node.run();
    until_problem(&agent, "diarization", "correct `file`, or start the worker");
    neighbour.is_looked_at(&node, &agent);
    std::fs::create_dir(&path).unwrap();
    until_problem(&agent, "diarization", "it is no regular file");
    std::fs::remove_dir(&path).unwrap();
    append(&path).write_all(b"job 1 accepted\n").unwrap();
    until_counts(&agent, "diarization", 1.0, 0.0);
    std::fs::remove_file(&path).unwrap();
    until_problem(&agent, "diarization", "No such file");
    append(&path).write_all(b"job 2 accepted\n").unwrap();
    until_counts(&agent, "diarization", 2.0, 0.0);
}

#[test]
fn bytes_that_are_no_text_and_a_line_without_end_hide_no_other_line() {
    let (_node, _path, mut file, agent) = running();
    file.write_all(b"\xff\xfe\x00 job \xe3\x81 accepted\n").unwrap();
    until_counts(&agent, "diarization", 3.0, 0.0);
    file.write_all(&vec![b'x'; 1 << 20]).unwrap();
    // Its begin is all that is looked at.
    file.write_all(b" job 4 accepted\njob 5 accepted\n").unwrap();
    until_counts(&agent, "diarization", 4.0, 0.0);
    file.write_all(b"job 6 accepted\r\n").unwrap();
    until_counts(&agent, "diarization", 5.0, 0.0);
}

#[test]
fn a_flood_of_lines_costs_neither_a_job_nor_the_neighbour_nor_memory() {
    let (mut node, path) = node();
    let neighbour = Neighbour::beside(&mut node);
    append(&path).write_all(b"job 0 accepted\n").unwrap();
    let agent = node.run();
    until_counts(&agent, "diarization", 1.0, 0.0);
    let mut file = append(&path);
    for job in 1..=30 {
        let noise = "2025-12-04 14:32:15 DEBUG chunk of the audio, nothing to count\n".repeat(10_000);
        writeln!(file, "{noise}job {job} accepted").unwrap();
    }
    neighbour.is_looked_at(&node, &agent);
    until_counts(&agent, "diarization", 31.0, 0.0);
    assert!(peak_bytes(&agent) < 256 << 20, "{} bytes", peak_bytes(&agent));
}

#[test]
fn an_agent_that_starts_anew_reads_a_file_back() {
    let (node, _path, mut file, agent) = running();
    drop(agent.stop());
    file.write_all(b"job 1 started\njob 3 accepted\njob 1 done in 2s (audio 10s)\n").unwrap();
    let agent = node.run();
    let queue = until(&agent, "diarization", "it is read back", |queue| queue["waiting"] == 2.0);
    assert_eq!(queue["processing"], 0.0);
}
