//! How long an operator waits for `diarwatch status`: from the start of the process to its end, against a
//! running agent with eight GPUs at 20 Hz. Prints one line, last; the target is a p99 of 20 ms. The same
//! number of starts of `diarwatch --version` says what a process costs here without any answer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a bench: a fault ends it"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::Duration;

use common::operator::World;
use diarwatch_shared::clock;

/// Starts of each command.
const CALLS: usize = 200;
/// Eight GPUs whose values move.
const GPUS: &str = "gpus = 8\ngpu.*.util = sine(15,75,30)\ngpu.*.power_mw = 60000\n";

fn main() {
    let world = World::with(GPUS);
    let status = times(&world, &["status"]);
    let json = times(&world, &["status", "--json"]);
    let bare = times(&world, &["--version"]);
    println!(
        "cli calls={CALLS} status_p50_ms={:.2} status_p99_ms={:.2} status_max_ms={:.2} json_p50_ms={:.2} json_p99_ms={:.2} version_p50_ms={:.2} version_p99_ms={:.2}",
        at(&status, 50),
        at(&status, 99),
        at(&status, 100),
        at(&json, 50),
        at(&json, 99),
        at(&bare, 50),
        at(&bare, 99),
    );
}

/// The times of so many calls, sorted.
fn times(world: &World, arguments: &[&str]) -> Vec<Duration> {
    let mut times: Vec<Duration> = (0..CALLS)
        .map(|_| {
            let mut command = world.command();
            command.args(arguments);
            let start = clock::uptime();
            let output = command.output().unwrap();
            let took = clock::uptime() - start;
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            took
        })
        .collect();
    times.sort_unstable();
    times
}

/// Milliseconds at a percentile, the nearest rank.
fn at(sorted: &[Duration], percentile: usize) -> f64 {
    let rank = (sorted.len() * percentile).div_ceil(100).max(1);
    sorted[rank - 1].as_secs_f64() * 1_000.0
}
