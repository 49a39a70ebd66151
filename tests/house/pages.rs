//! Rules on what is not Rust: the commands that pages name, the manifest's comments, the gate, the
//! changelog, and nothing that ties the project to one machine.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

use crate::tree::{Finding, Source, none, page, root, sample, sources};

const GATE: &str = ".ci/run";

#[test]
fn every_make_command_of_a_page_is_a_target() {
    let makefile = page("Makefile");
    page("README.md");
    let pages: Vec<Source> = sources().into_iter().filter(|file| file.path.ends_with(".md")).collect();
    none(&pages.iter().flat_map(|page| unknown_targets(page, &makefile)).collect::<Vec<_>>());
}

#[test]
fn every_dependency_says_which_file_needs_it() {
    none(&dependencies_without_reason(&page("Cargo.toml"), |path| {
        root().join(path).exists() || root().join(format!("{path}.rs")).exists()
    }));
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    none(&sources().iter().flat_map(workplace_marks).collect::<Vec<_>>());
}

#[test]
fn the_gate_runs_the_tests_and_can_be_run() {
    let gate = page(GATE);
    let mode = root().join(GATE).metadata().map(|file| file.permissions().mode()).unwrap_or_default();
    let mut found = Vec::new();
    if mode & 0o111 == 0 {
        found.push(gate.finding(1, "is not executable", "chmod +x it"));
    }
    if !gate.lines().any(|(_, line)| !line.trim_start().starts_with('#') && line.contains("make test")) {
        found.push(gate.finding(1, "does not call `make test`", "the gate is `make test` and nothing else"));
    }
    none(&found);
}

#[test]
fn the_changelog_has_an_entry_for_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    none(&without_entry(&page("CHANGELOG.md"), version));
}

/// `make x` in a code span or a code block, where `x` is no target.
fn unknown_targets(page: &Source, makefile: &Source) -> Vec<Finding> {
    let targets: BTreeSet<&str> =
        makefile.lines().filter_map(|(_, line)| Some(line.split_once(':')?.0)).collect();
    let mut found = Vec::new();
    let mut fenced = false;
    for (at, line) in page.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        let spans: Vec<&str> = if fenced { vec![line] } else { line.split('`').skip(1).step_by(2).collect() };
        let unknown = spans.iter().filter_map(|span| made(span)).filter(|name| !targets.contains(name));
        let mend = "name a target of the Makefile (`make help` lists them)";
        found.extend(unknown.map(|name| page.finding(at, format!("`make {name}` is no target"), mend)));
    }
    found
}

/// The target of a command line that calls make.
fn made(command: &str) -> Option<&str> {
    let words = command.trim().trim_start_matches("$ ").strip_prefix("make ")?;
    words.split_whitespace().find(|word| !word.starts_with('-') && !word.contains('='))
}

fn dependencies_without_reason(manifest: &Source, exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let after = manifest.lines().skip_while(|(_, line)| *line != "[workspace.dependencies]").skip(1);
    let section = after.take_while(|(_, line)| !line.starts_with('['));
    let crates = section.filter(|(_, line)| line.starts_with(|c: char| c.is_ascii_alphabetic()));
    let mut found = Vec::new();
    for (at, line) in crates {
        let name = line.split(' ').next().unwrap_or(line);
        let Some((_, reason)) = line.rsplit_once("# ") else {
            let what = format!("{name} does not say where it is used");
            found.push(manifest.finding(at, what, "end the line with `# the file that needs it`"));
            continue;
        };
        let paths = reason.split_whitespace().map(|word| word.trim_end_matches([',', ':', ';']));
        for path in paths.filter(|word| word.contains('/') && !exists(word)) {
            let what = format!("{name} names `{path}`, which is not in the tree");
            found.push(manifest.finding(at, what, "name the file that uses it now"));
        }
    }
    found
}

/// Folders of a workplace and hosts of a registry, put together here so that this file has none.
fn workplace_marks(file: &Source) -> Vec<Finding> {
    let marks =
        [["/wo", "rk/"], ["index.crat", "es.io"], ["static.crat", "es.io"]].map(|halves| halves.concat());
    let mend = "a checkout must build anywhere: use a relative path, or leave the host to cargo";
    let with =
        file.lines().filter_map(|(at, line)| Some((at, marks.iter().find(|mark| line.contains(*mark))?)));
    with.map(|(at, mark)| file.finding(at, format!("has `{mark}`"), mend)).collect()
}

fn without_entry(changelog: &Source, version: &str) -> Vec<Finding> {
    let heading = format!("## [{version}]");
    if changelog.lines().any(|(_, line)| line.starts_with(&heading)) {
        return Vec::new();
    }
    vec![changelog.finding(1, format!("has no `{heading}`"), "say what this version brings to an operator")]
}

#[test]
fn a_make_command_that_is_no_target_is_named() {
    let makefile = sample("Makefile", "demo: build ## Runs\n");
    let text = "Run `make demo`, make sure, then\n```\n$ make X=1 demmo\n```\n";
    let found = unknown_targets(&sample("README.md", text), &makefile);
    assert_eq!(found.iter().map(|finding| finding.line).collect::<Vec<_>>(), [3]);
}

#[test]
fn a_dependency_without_its_file_is_named() {
    let text = "[workspace.dependencies]\na = \"1\"\nb = \"1\" # shared/src/gone.rs, shared/src/here.rs: x\n[profile]\nc = 1\n";
    let found = dependencies_without_reason(&sample("Cargo.toml", text), |path| path.ends_with("here.rs"));
    assert_eq!(found.iter().map(|finding| finding.line).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn a_folder_of_a_workplace_is_seen() {
    let text = ["ok\n", "cd /wo", "rk/main\n"].concat();
    assert_eq!(workplace_marks(&sample("a.sh", &text)).first().map(|finding| finding.line), Some(2));
}

#[test]
fn a_version_without_an_entry_is_seen() {
    assert_eq!(without_entry(&sample("CHANGELOG.md", "## [0.1.0]\n"), "0.2.0").len(), 1);
    assert!(without_entry(&sample("CHANGELOG.md", "## [0.2.0] - Unreleased\n"), "0.2.0").is_empty());
}
