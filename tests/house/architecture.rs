//! ARCHITECTURE.md against the tree, both ways: what a table names is there, and what is there is
//! in a table.

use std::collections::BTreeSet;
use std::fs;

use crate::tree::{Finding, Source, has_word, none, page, root, rust_sources, sample};

/// Folders whose direct entries must all be in a table.
const TOLD: [&str; 3] = ["agent/src", "aggregator/src", "shared/src"];
/// What every crate has, which tells nothing of its own.
const UNTOLD: [&str; 3] = ["main.rs", "lib.rs", "bin"];

#[test]
fn every_row_of_the_architecture_page_is_in_the_tree() {
    none(&rows_without_file(&page("ARCHITECTURE.md"), |path| {
        let whole = root().join(path);
        if path.ends_with('/') { has_rust(&whole) } else { whole.is_file() }
    }));
}

#[test]
fn every_stage_in_the_tree_is_on_the_architecture_page() {
    let present: Vec<String> = TOLD.iter().flat_map(|folder| entries(folder)).collect();
    none(&entries_without_row(&page("ARCHITECTURE.md"), &present));
}

#[test]
fn every_invariant_names_tests_that_exist() {
    none(&invariants_without_test(&page("ARCHITECTURE.md"), &rust_sources()));
}

/// Line and text of each code span in the column of that name, over all tables.
fn spans(page: &Source, heading: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut column = None;
    for (at, line) in page.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if !line.trim_start().starts_with('|') {
            column = None;
        } else if let Some(place) = cells.iter().position(|cell| *cell == heading) {
            column = Some(place);
        } else if let Some(cell) = column.and_then(|place| cells.get(place)) {
            found.extend(cell.split('`').skip(1).step_by(2).map(|path| (at, path.to_owned())));
        }
    }
    found
}

/// Line and path of each file that a table names.
fn rows(page: &Source) -> Vec<(usize, String)> {
    spans(page, "file")
}

fn invariants_without_test(page: &Source, files: &[Source]) -> Vec<Finding> {
    let exists = |name: &str| {
        let declared = format!("fn {name}(");
        files.iter().any(|file| file.lines().any(|(_, line)| has_word(line, &declared)))
    };
    let named = spans(page, "held by");
    if named.is_empty() {
        return vec![page.finding(1, "has no table with a `held by` column", "write the invariants")];
    }
    let absent = named.into_iter().filter(|(_, name)| !exists(name));
    let mend = "name the test that fails when this is no longer so, or write it";
    absent.map(|(at, name)| page.finding(at, format!("no test is called `{name}`"), mend)).collect()
}

fn rows_without_file(page: &Source, exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let rows = rows(page);
    if rows.is_empty() {
        return vec![page.finding(1, "has no table with a `file` column", "write the table of stages")];
    }
    let absent = rows.into_iter().filter(|(_, path)| !exists(path));
    let mend = "mend the row or take it out; a folder ends with `/` and holds at least one .rs file";
    absent.map(|(at, path)| page.finding(at, format!("`{path}` is not in the tree"), mend)).collect()
}

fn entries_without_row(page: &Source, present: &[String]) -> Vec<Finding> {
    let told: BTreeSet<String> = rows(page).into_iter().map(|(_, path)| module(&path)).collect();
    let untold = present.iter().filter(|path| !told.contains(&module(path)));
    let mend = "give it a row in the table of stages or in the table around them";
    untold.map(|path| page.finding(1, format!("does not name `{path}`"), mend)).collect()
}

/// `spool.rs` and `spool/` are one module.
fn module(path: &str) -> String {
    path.trim_end_matches('/').trim_end_matches(".rs").to_owned()
}

/// The `.rs` files, and the folders with one in them, directly in a folder.
fn entries(folder: &str) -> Vec<String> {
    let listed = fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let told = listed.filter_map(Result::ok).filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let is_folder = entry.path().is_dir();
        let counts = if is_folder { has_rust(&entry.path()) } else { name.ends_with(".rs") };
        let path = if is_folder { format!("{folder}/{name}/") } else { format!("{folder}/{name}") };
        (counts && !UNTOLD.contains(&name.as_str())).then_some(path)
    });
    told.collect()
}

fn has_rust(folder: &std::path::Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    entries.filter_map(Result::ok).any(|entry| {
        let path = entry.path();
        if path.is_dir() { has_rust(&path) } else { path.extension().is_some_and(|kind| kind == "rs") }
    })
}

const SAMPLE: &str = "# A\n\n| stage | file | takes |\n|---|---|---|\n| spool | `agent/src/spool/` | `Frame` |\n\nText `agent/src/not.rs`.\n";

#[test]
fn only_the_file_column_of_a_table_is_read() {
    assert_eq!(rows(&sample("A.md", SAMPLE)), [(5, "agent/src/spool/".to_owned())]);
}

#[test]
fn a_row_without_its_file_is_named_with_its_line() {
    let found = rows_without_file(&sample("A.md", SAMPLE), |_| false);
    assert_eq!(found.first().map(|finding| finding.line), Some(5));
    assert!(rows_without_file(&sample("A.md", SAMPLE), |_| true).is_empty());
    assert_eq!(rows_without_file(&sample("A.md", "no table\n"), |_| true).len(), 1);
}

#[test]
fn a_file_without_a_row_is_named() {
    let present = ["agent/src/spool.rs".to_owned(), "agent/src/uplink.rs".to_owned()];
    let found = entries_without_row(&sample("A.md", SAMPLE), &present);
    assert_eq!(found.len(), 1);
    assert!(found.first().is_some_and(|finding| finding.what.contains("uplink")));
}

#[test]
fn an_invariant_whose_test_is_gone_is_named() {
    let page = sample("A.md", "| invariant | held by |\n|---|---|\n| x | `here`, `gone` |\n");
    let files = [sample("a.rs", "#[test]\nfn here() {}\nfn gone_too() {}\n")];
    let found = invariants_without_test(&page, &files);
    assert_eq!(found.len(), 1);
    assert!(found.first().is_some_and(|finding| finding.what.contains("`gone`")));
}
