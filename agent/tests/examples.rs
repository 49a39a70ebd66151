//! The examples that people copy: those of the README say what they say there, those of the manual pages
//! run and end well, all against a running agent.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of a test"
)]

mod common;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use common::operator::World;
use common::until;

/// Examples that need a person's terminal, or judge this machine.
const NOT_RUN: [&str; 2] = ["diarwatch top", "diarwatch doctor"];
/// Examples that run until they are ended.
const ENDLESS: [&str; 1] = ["diarwatch events --follow -o ndjson"];
/// Examples that end with what they found.
const FINDS: [(&str, i32); 1] = [("diarwatch status --exit-code", 1)];

#[test]
fn the_readme_shows_what_is_printed() {
    let world = World::start();
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    assert!(
        std::fs::read_to_string(&readme).unwrap().contains("```console\n$ diarwatch "),
        "it has examples"
    );
    trycmd::TestCases::new()
        .register_bin("diarwatch", Path::new(env!("CARGO_BIN_EXE_diarwatch")))
        .env("DIARWATCH_SOCKET", world.node.path("agent.sock").display().to_string())
        .env("DIARWATCH_AGGREGATOR", world.http.clone())
        .env("LC_ALL", "C")
        .env("NO_COLOR", "1")
        .case(readme);
}

/// The words of a command line, `'quoted'` ones as one.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().unwrap().push(c),
        }
    }
    words
}

/// Command lines of a page's EXAMPLES.
fn examples(page: &str) -> Vec<String> {
    let part = page.split(".SH EXAMPLES\n").nth(1).unwrap_or_default();
    let part = part.split(".SH ").next().unwrap();
    let line = |line: &str| {
        let text = line.strip_prefix("\\fB")?.strip_suffix("\\fR")?;
        Some(text.replace("\\-", "-").replace("\\(aq", "'").replace("\\e", "\\"))
    };
    part.lines().filter_map(line).collect()
}

/// An order of the example before is over: nobody holds the worker, and it is ready.
fn settle(world: &World) {
    for verb in ["release", "resume"] {
        world.says(&["worker", verb, "pyannote-1"]);
    }
    world.agent.until("the worker is as it was", |status| {
        let worker = &status["workers"][0];
        let apart = worker["held_by"].is_string() || worker["drained_by"].is_string();
        (worker["phase"] == "ready" && !apart).then_some(())
    });
}

#[test]
fn every_example_of_the_manual_runs() {
    let world = World::start();
    world.says(&["man", "--directory", "pages"]);
    let mut run = 0;
    for page in std::fs::read_dir(world.node.path("pages")).unwrap() {
        let page = std::fs::read_to_string(page.unwrap().path()).unwrap();
        assert!(page.contains(".SH \"EXIT STATUS\"") && page.contains(".SH SYNOPSIS"), "{page}");
        for example in examples(&page) {
            run += 1;
            if NOT_RUN.contains(&example.as_str()) {
                continue;
            }
            let config = world.node.path("agent.toml").display().to_string();
            let words = words(&example.replace("/etc/diarwatch/agent.toml", &config));
            assert_eq!(words[0], "diarwatch");
            let mut command = world.command();
            command.args(&words[1..]);
            if ENDLESS.contains(&example.as_str()) {
                let mut child = command.stdout(Stdio::null()).spawn().unwrap();
                std::thread::sleep(Duration::from_millis(500));
                assert!(child.try_wait().unwrap().is_none(), "{example} ended");
                child.kill().unwrap();
                child.wait().unwrap();
                continue;
            }
            drop(std::fs::remove_file(world.node.path("new.toml")));
            settle(&world);
            let expected = FINDS.iter().find(|(line, _)| *line == example).map_or(0, |(_, code)| *code);
            let output = until("the example ends", || Some(command.output().unwrap()));
            let talk = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(expected), "{example}: {talk}");
            let silent = example.contains(" init ") || example.contains(" --directory ");
            assert!(output.stdout.is_empty() == silent || expected > 2, "{example}: {talk}");
        }
    }
    assert!(run >= 30, "{run} examples");
}

#[test]
fn there_is_a_page_and_a_word_of_completion_for_every_command() {
    let world = World::start();
    world.says(&["man", "--directory", "pages"]);
    for name in [
        "diarwatch",
        "diarwatch-status",
        "diarwatch-gpu-show",
        "diarwatch-worker-history",
        "diarwatch-worker-restart",
        "diarwatch-why",
        "diarwatch-config-show",
    ] {
        assert!(world.node.path(&format!("pages/{name}.1")).exists(), "{name}");
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = world.says(&["completion", shell]);
        for word in ["status", "worker", "completion", "exit-code"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let help = world.says(&["--help"]);
    assert!(
        help.contains("Exit status:") && help.contains(" 69  the agent or the aggregator does not answer"),
        "{help}"
    );
}
