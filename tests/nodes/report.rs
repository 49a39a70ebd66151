//! The checks, two at a time. Takes the list and a word; gives a line for each as it ends, those that
//! failed with why, and last the figures. A check that panics has failed and ends no other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use diarwatch_shared::clock;

use crate::checks::{self, Check};
use crate::install;
use crate::lab::Lab;
use crate::node::Node;
use crate::outside::{self, Stop};
use crate::{SKIPPED, docker};

/// Checks at the same time: most of them wait for something.
const AT_ONCE: usize = 2;

/// Runs the checks whose name has the word, in a lab, and tells why there were none.
pub(crate) fn outside(word: &str) -> ExitCode {
    let lacks = docker::lacks().map_or(Ok(()), |why| Err(Stop::Missing(why)));
    match lacks.and_then(|()| outside::run(word)) {
        Ok(code) => ExitCode::from(code),
        Err(Stop::Missing(why)) => {
            println!("nodes SKIPPED: {why}");
            ExitCode::from(SKIPPED)
        }
        Err(Stop::Failed(why)) => {
            eprintln!("nodes-test: {why}");
            ExitCode::FAILURE
        }
        Err(Stop::Signal) => ExitCode::from(130),
    }
}

/// Enters the lab and runs the checks whose name has the word.
pub(crate) fn run(root: &Path, name: &str, word: &str) -> ExitCode {
    let began = clock::uptime();
    // A machine on which no node boots is told from a product that fails.
    let ground = Lab::enter(root, name).and_then(|lab| Node::boot(&lab, "first").map(drop).map(|()| lab));
    let lab = match ground {
        Ok(lab) => lab,
        Err(why) => {
            println!("nodes SKIPPED: no node boots on this machine: {why}");
            return ExitCode::from(SKIPPED);
        }
    };
    if let Err(why) = install::programs(&lab.product) {
        println!("FAILED the programs of this build: {why}");
        return ExitCode::FAILURE;
    }
    let chosen: Vec<Check> = checks::all().into_iter().filter(|check| check.name.contains(word)).collect();
    let count = chosen.len();
    let waiting = Mutex::new(chosen.into_iter());
    let failed = Mutex::new(0_usize);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(check) = next(&waiting) {
                    *failed.lock().unwrap() += usize::from(!good(&lab, &check));
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap();
    if let Err(why) = checks::nothing_is_left() {
        println!("FAILED nodes_and_engines_that_end_leave_nothing: {why}");
        failed += 1;
    }
    let seconds = (clock::uptime() - began).as_secs_f64();
    let inner = lab.tests.load(Ordering::Relaxed);
    println!("nodes checks={count} driver_tests={inner} failed={failed} seconds={seconds:.1}");
    if count == 0 {
        eprintln!("nodes-test: no check has `{word}` in its name");
    }
    ExitCode::from(u8::from(failed > 0 || count == 0))
}

fn next(waiting: &Mutex<std::vec::IntoIter<Check>>) -> Option<Check> {
    waiting.lock().unwrap().next()
}

fn good(lab: &Lab, check: &Check) -> bool {
    let began = clock::uptime();
    let panicked = |_| Err("it panicked; the message is above".to_owned());
    let result = catch_unwind(AssertUnwindSafe(|| (check.run)(lab))).unwrap_or_else(panicked);
    let seconds = (clock::uptime() - began).as_secs_f64();
    match &result {
        Ok(()) => println!("ok {} ({seconds:.1} s)", check.name),
        Err(why) => println!("FAILED {}: {why}", check.name),
    }
    result.is_ok()
}
