//! `make nodes-test`: what only a real systemd and a real Docker Engine can show. Takes this machine
//! (root, Debian's packages of `.ci/install`) and the binaries of this build; gives a line for each
//! check and, last, one line of figures; exits with 1 when a check failed, after all of them were run,
//! and with 77 and one line when the machine cannot carry such tests.
//!
//! `check` runs the checks, `check WORD` those with the word in their name. Asked for nothing, as by a
//! runner that lists tests, it does nothing. It is one program in two places: outside (`outside.rs`)
//! it prepares roots and starts itself again inside namespaces of its own (`lab.rs`), where the checks
//! run. All that a check starts, mounts or names lives in there and ends with it, whatever happens.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a test: a fault fails it"
)]

mod asked;
mod checks;
mod command;
mod docker;
mod install;
mod lab;
mod node;
mod outside;
mod report;
mod root;
mod site;
mod worker;

use std::process::ExitCode;

/// This machine lacks something that the checks need.
pub(crate) const SKIPPED: u8 = 77;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["check"] => report::outside(""),
        ["check", word] => report::outside(word),
        ["inside", root, name, word] => report::run(root.as_ref(), name, word),
        _ => ExitCode::SUCCESS,
    }
}
