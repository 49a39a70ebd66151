//! `make page-test`: the page in a real browser. Takes the aggregator of this build and the Chromium
//! of this machine; gives a line for each check and, last, one line of figures; exits with 1 when a
//! check failed, after all of them were run. What it waits for is a condition, never a time.
//!
//! `check` runs the checks, `check NAME` those of one file; `screens DIRECTORY` takes the pictures of
//! the docs. Without Chromium it says SKIPPED, and under the gate that is a failure. Asked for nothing,
//! as by a runner that lists tests, it does nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a test: a fault fails it"
)]

// An agent made by hand, the same that the aggregator's own tests send with.
#[allow(dead_code, reason = "shared with the aggregator's tests; this one uses its part")]
#[path = "../../aggregator/tests/common/agent.rs"]
mod agent;
mod checks;
mod day;
mod fleet;
mod pipe;
mod relay;
mod report;
mod screens;
mod site;
mod tab;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use diarwatch_shared::{clock, daemon};

use crate::pipe::Chromium;
use crate::report::Report;
use crate::site::Site;

/// What waits longer than this has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Between looks at what is waited for.
pub(crate) const LOOK: Duration = Duration::from_millis(50);
/// The stream of events.
pub(crate) const STREAM: &str = "/api/v1/stream";
/// Set by the gate, or by a CI: a check that cannot be run is a failure there.
const GATES: [&str; 2] = ["DIARWATCH_GATE", "CI"];

/// What the command line asks for.
enum Task {
    Check(Option<String>),
    Screens(PathBuf),
}

/// Waits until something is so.
pub(crate) async fn until(mut so: impl AsyncFnMut() -> bool) -> Result<(), String> {
    let end = clock::uptime() + PATIENCE;
    while !so().await {
        if clock::uptime() > end {
            return Err(format!("waited {} s in vain", PATIENCE.as_secs()));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let task = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["check"] => Task::Check(None),
        ["check", name] => Task::Check(Some(name.to_owned())),
        ["screens", directory] => Task::Screens(PathBuf::from(directory)),
        _ => return ExitCode::SUCCESS,
    };
    let Some(program) = Chromium::find() else {
        println!(
            "page SKIPPED: Chromium is not here (try: apt-get install chromium, or set CHROMIUM to its path)"
        );
        let gate = GATES.iter().any(|name| std::env::var_os(name).is_some());
        return ExitCode::from(u8::from(gate));
    };
    // Whichever ends first, the browser and the aggregators go with what holds them.
    tokio::select! {
        code = work(program, task) => code,
        _ = daemon::stop_signal() => ExitCode::from(130),
    }
}

async fn work(program: PathBuf, task: Task) -> ExitCode {
    let chromium = match Chromium::start(&program).await {
        Ok(chromium) => Arc::new(chromium),
        Err(error) => {
            eprintln!("page-test: the browser does not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("==> page-test in {}", chromium.version);
    let good = match task {
        Task::Screens(directory) => {
            let taken = screens::take(&chromium, &directory).await;
            taken.inspect_err(|error| eprintln!("page-screens: {error}")).is_ok()
        }
        Task::Check(only) => {
            let report = Arc::new(Report::default());
            checks::all(&chromium, &report, only.as_deref()).await;
            report.end()
        }
    };
    if let Ok(chromium) = Arc::try_unwrap(chromium) {
        chromium.stop().await;
    }
    ExitCode::from(u8::from(!good))
}
