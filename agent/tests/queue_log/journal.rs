//! A worker's log in a real journal.

use serde_json::json;

use super::common::{Agent, Kept, children_of, pid_of};
use super::journald::{Journal, UNIT};
use super::{log, queue, until, until_counts};

fn journal_queue() -> String {
    queue("diarization", &log(&format!("journal = \"{UNIT}\"")))
}

#[test]
fn a_journal_tells_what_waits_and_an_agent_that_starts_anew_does_not_begin_from_zero() {
    let Some(journal) = Journal::start() else { return };
    let (mut worker, mut other) = (journal.worker(UNIT, 1), journal.worker("other.service", 2));
    worker.says(&["INFO model loaded"]);
    let mut node = journal.node();
    node.more.push_str(&journal_queue());
    let agent = node.run();
    until_counts(&agent, "diarization", 0.0, 0.0);
    other.says(&["job 8 accepted", "job 9 accepted"]);
    worker.says(&[
        "job 1 accepted",
        "job 2 accepted",
        "job 議事録 accepted",
        "job 4 accepted",
        "job 1 started",
    ]);
    until_counts(&agent, "diarization", 3.0, 1.0);
    worker.says(&["job 1 done in 12.5s (audio 3600.0s)", "job 2 started"]);
    let queue = until_counts(&agent, "diarization", 2.0, 1.0);
    assert_eq!((&queue["source"], &queue["estimated"]), (&json!("log"), &json!(true)));
    assert_eq!((&queue["job_mean_seconds"], &queue["job_p95_seconds"]), (&json!(12.5), &json!(12.5)));
    assert_eq!(queue["job_seconds_per_audio_hour"], 12.5);
    assert!(queue["oldest_seconds"].as_f64().is_some_and(|age| age < 100.0), "{queue:#}");
    drop(agent.stop());
    worker.says(&["job 2 done in 7.5s (audio 3600.0s)", "job 議事録 started"]);
    let agent = node.run();
    let queue = until_counts(&agent, "diarization", 1.0, 1.0);
    assert_eq!((&queue["job_mean_seconds"], &queue["job_p95_seconds"]), (&json!(10.0), &json!(12.5)));
    // The unit starts anew: what it had in memory is gone, and has failed for whoever waits for it.
    let mut second = journal.worker(UNIT, 3);
    second.says(&["INFO model loaded"]);
    until_counts(&agent, "diarization", 0.0, 0.0);
    // A straggler of the old one is no start, and the new one's jobs stay.
    second.says(&["job 5 accepted"]);
    until_counts(&agent, "diarization", 1.0, 0.0);
    drop(agent.stop());
    let mut kept = Kept::of(&node);
    assert_eq!(kept.series("queue_failed_total").last().unwrap().1, Ok(2.0));
}

#[test]
fn a_journald_that_is_killed_and_started_again_is_survived() {
    let Some(mut journal) = Journal::start() else { return };
    let mut worker = journal.worker(UNIT, 1);
    worker.says(&["job 1 accepted"]);
    let mut node = journal.node();
    node.more.push_str(&journal_queue());
    let agent = node.run();
    until_counts(&agent, "diarization", 1.0, 0.0);
    journal.kill();
    // What waited still does: only its log is not written to.
    until_counts(&agent, "diarization", 1.0, 0.0);
    journal.run();
    // systemd keeps a service's connection for the next journald; here the worker makes a new one.
    let mut worker = journal.worker(UNIT, 1);
    worker.says(&["job 2 accepted", "job 1 started"]);
    until_counts(&agent, "diarization", 1.0, 1.0);
}

#[test]
fn a_journalctl_that_is_killed_is_started_again_and_no_line_counts_twice_or_is_missed() {
    let Some(journal) = Journal::start() else { return };
    let mut worker = journal.worker(UNIT, 1);
    worker.says(&["upload accepted", "job 2 accepted"]);
    let mut node = journal.node();
    node.more.push_str(&journal_queue());
    let agent = node.run();
    until_counts(&agent, "diarization", 2.0, 0.0);
    for waiting in [3.0, 4.0, 5.0] {
        let reader = reader_of(&agent);
        rustix::process::kill_process(pid_of(reader), rustix::process::Signal::KILL).unwrap();
        worker.says(&["upload accepted"]);
        until_counts(&agent, "diarization", waiting, 0.0);
    }
    worker.says(&["job 2 failed"]);
    until(&agent, "diarization", "one has failed", |queue| queue["waiting"] == 4.0);
    drop(agent.stop());
    assert_eq!(Kept::of(&node).series("queue_failed_total").last().unwrap().1, Ok(1.0));
}

/// The journalctl of an agent.
fn reader_of(agent: &Agent) -> u32 {
    super::common::until("there is a journalctl", || {
        children_of(agent.pid()).into_iter().find(|pid| {
            let words = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.starts_with("journalctl\0") && words.contains("\0--follow\0")
        })
    })
}
