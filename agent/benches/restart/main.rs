//! How long a worker is gone after `kill -9`: from the signal to the first instruction of the new process,
//! with the drivers `child` and `systemd` under the agent's whole loop (back-off zero), and with
//! supervisord and systemd's own `Restart=always` on the same machine in the same run. Prints one line,
//! last; the targets are a p99 of 10 ms (`child`) and of 50 ms (`systemd`). The lines before it say where
//! the time went.
//!
//! What is restarted is this program: as `worker` it tells the time of its first line and sleeps. So all
//! pay the same exec. Readiness and the judge's care come between two kills, outside the interval.
//! `first_job_overhead_ms` is the time from the kill to the end of the first job, which is posted as soon
//! as the agent calls the worker ready, less the second for which the stand-in `pyannote` loads.
//!
//! Wants root, a machine that boots nodes (as `make nodes-test`) and supervisord; says what is missing.
//! `-- quick` makes a tenth of the kills.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a bench: a fault ends it"
)]

#[path = "../../../tests/nodes/command.rs"]
mod command;
#[path = "../../../tests/nodes/lab.rs"]
#[allow(dead_code, reason = "the lab of the nodes' tests; a bench needs a part of it")]
mod lab;
#[path = "../../../tests/nodes/node.rs"]
#[allow(dead_code, reason = "as above")]
mod node;
#[path = "../../../tests/nodes/outside.rs"]
mod outside;
#[path = "../../../tests/nodes/root.rs"]
mod root;

mod first_job;
mod inside;
mod kept;
mod marks;
mod peers;
mod times;

use std::process::ExitCode;

use outside::Stop;
use times::Times;

/// Kills of each kind.
struct Rounds {
    child: usize,
    systemd: usize,
    own: usize,
    supervisord: usize,
    jobs: usize,
}

const ALL: Rounds = Rounds { child: 1_000, systemd: 300, own: 300, supervisord: 60, jobs: 10 };
const QUICK: Rounds = Rounds { child: 100, systemd: 30, own: 30, supervisord: 10, jobs: 2 };

fn main() -> ExitCode {
    let began = marks::now();
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["worker", marks] => marks::leave(marks, began),
        ["pyannote", address] => first_job::stand_in(address),
        ["inside", root, name, word] => inside::lab(root.as_ref(), name, word),
        ["node", word] => inside::node(rounds(word)),
        ["--bench"] => told(whole("all")),
        ["quick", "--bench"] => told(whole("quick")),
        _ => ExitCode::SUCCESS,
    }
}

fn rounds(word: &str) -> &'static Rounds {
    if word == "quick" { &QUICK } else { &ALL }
}

fn told(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("restart: {why}");
            ExitCode::FAILURE
        }
    }
}

fn whole(word: &str) -> Result<(), String> {
    let rounds = rounds(word);
    peers::supervisord_is_here()?;
    println!("load before: {}", load());
    // It wants most of the machine, so what is missing is told before minutes are spent.
    let of_node = in_a_node(word)?;
    let systemd = Times::find(&of_node, "systemd")?;
    let own = Times::find(&of_node, "systemd_own")?;
    let child = kept::child(rounds.child);
    let supervisord = peers::supervisord(rounds.supervisord)?;
    let jobs = first_job::overheads(rounds.jobs);
    println!("load after: {}", load());
    println!(
        "restart child_p50_ms={:.2} child_p99_ms={:.2} systemd_p50_ms={:.2} systemd_p99_ms={:.2} supervisord_p50_ms={:.2} systemd_own_p50_ms={:.2} first_job_overhead_ms={:.0}",
        child.at(50),
        child.at(99),
        systemd.at(50),
        systemd.at(99),
        supervisord.at(50),
        own.at(50),
        jobs.at(50),
    );
    Ok(())
}

/// What the half in the node found, as it wrote it.
fn in_a_node(word: &str) -> Result<String, String> {
    let folder = tempfile::tempdir().map_err(|error| format!("a folder for figures: {error}"))?;
    let figures = folder.path().join("figures");
    match outside::run(&format!("{word} {}", figures.display())) {
        Ok(0) => std::fs::read_to_string(figures).map_err(|error| format!("the node's figures: {error}")),
        Ok(code) => Err(format!("the half in the node ended with {code}; its words are above")),
        Err(Stop::Missing(why) | Stop::Failed(why)) => Err(why),
        Err(Stop::Signal) => Err("it was told to stop".into()),
    }
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}
