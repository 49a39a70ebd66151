//! The drivers' own tests, in the places that they are made for: `agent/tests/driver_systemd` in a node,
//! `agent/tests/driver_docker` beside an engine. They are counted; one that skips itself has failed here.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::same;
use crate::command::{Output, until};
use crate::docker::{Engine, busybox};
use crate::lab::Lab;
use crate::node::{Node, Tree};

/// How long a program of tests may take.
const LIMIT: Duration = Duration::from_secs(240);
/// Where it lies in a node.
const PLACE: &str = "/usr/bin/driver-tests";
/// The tests that need a limit of memory; in their name.
const LIMITS: &str = "the_kernel_ended_for_memory";

pub(super) fn the_tests_of_the_driver_systemd_hold_in_a_node(lab: &Lab) -> Result<(), String> {
    in_node(lab, Tree::Unified, &["--skip", LIMITS])
}

pub(super) fn the_test_of_the_driver_systemd_for_memory_holds_where_it_is_limited(
    lab: &Lab,
) -> Result<(), String> {
    in_node(lab, Tree::Limits, &[LIMITS])
}

fn in_node(lab: &Lab, tree: Tree, words: &[&str]) -> Result<(), String> {
    let node = Node::boot_with(lab, "driver", tree)?;
    node.copy_in(&program("DRIVER_SYSTEMD")?, PLACE)?;
    let all = [&[PLACE, "--test-threads=1", "--show-output"], words].concat();
    counted(lab, &node.exec_within(LIMIT, &all))
}

pub(super) fn the_tests_of_the_driver_docker_hold_beside_an_engine(lab: &Lab) -> Result<(), String> {
    let mut engine = Engine::start(lab)?;
    engine.import("busybox", &[&busybox()])?;
    let (wish, log) = (engine.folder.join("restart-wanted"), engine.folder.join("tests"));
    let said = |error: std::io::Error| format!("{}: {error}", log.display());
    let file = fs::File::create(&log).map_err(said)?;
    let restart = format!("touch '{0}'; while test -e '{0}'; do sleep 0.1; done", wish.display());
    let mut command = Command::new(program("DRIVER_DOCKER")?);
    command.arg("--show-output").env("TMPDIR", &engine.folder);
    command.env("DIARWATCH_TEST_DOCKER_SOCKET", &engine.socket).env("DIARWATCH_TEST_DOCKER_RESTART", restart);
    command.stdin(Stdio::null()).stderr(file.try_clone().map_err(said)?).stdout(file);
    let mut tests = command.spawn().map_err(said)?;
    let mut code = None;
    let mut restarted = Ok(());
    let ended = until("the tests to end", LIMIT, || {
        if wish.exists() {
            restarted = engine.restart();
            drop(fs::remove_file(&wish));
        }
        code = tests.try_wait().ok().flatten().map(|status| status.code().unwrap_or(-1));
        code.is_some() || restarted.is_err()
    });
    drop(tests.kill());
    drop(tests.wait());
    let out = fs::read_to_string(&log).map_err(said)?;
    restarted?;
    ended.map_err(|error| format!("{error}\n{out}"))?;
    counted(lab, &Output { code: code.unwrap_or(-1), out, err: String::new() })
}

/// A program of tests that `.ci/nodes-test` had built.
fn program(name: &str) -> Result<PathBuf, String> {
    let variable = format!("DIARWATCH_NODES_{name}");
    std::env::var_os(&variable).map(PathBuf::from).ok_or(format!("{variable} is not set: use .ci/nodes-test"))
}

/// All passed, there was one, and none skipped itself.
fn counted(lab: &Lab, ended: &Output) -> Result<(), String> {
    let text = format!("{}{}", ended.out, ended.err);
    let passed = text.lines().find_map(|line| line.strip_prefix("test result: ok. ")?.split(' ').next());
    let passed: usize = passed.and_then(|count| count.parse().ok()).unwrap_or_default();
    let skipped = text.lines().find(|line| line.to_lowercase().starts_with("skipped"));
    if ended.code != 0 || passed == 0 {
        return Err(format!("exit {}: {text}", ended.code));
    }
    same("a test that skipped itself", &skipped, &None)?;
    lab.tests.fetch_add(passed, Ordering::Relaxed);
    Ok(())
}
