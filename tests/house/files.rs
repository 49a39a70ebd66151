//! Rules on each Rust file: it opens with what it is, it is not too long, nothing is left for later.

use crate::tree::{Finding, Source, has_word, none, rust_sources, sample, sources};

/// Lines of a file before its tests.
const LINES_MAX: usize = 450;
/// Files that need no opening words, each with its reason.
const NO_OPENING: [&str; 0] = [];

#[test]
fn every_file_opens_with_what_flows_through_it() {
    none(&without_opening(&rust_sources()));
}

#[test]
fn no_file_outgrows_what_one_sentence_can_describe() {
    let files = rust_sources();
    let mut lengths: Vec<usize> = files.iter().map(|file| file.shipped().count()).collect();
    lengths.sort_unstable();
    let longest = lengths.last().copied().unwrap_or_default();
    let (count, median) = (lengths.len(), lengths.get(lengths.len() / 2).copied().unwrap_or_default());
    println!("{count} files, median {median} lines, longest {longest} (limit {LINES_MAX})");
    none(&too_long(&files));
}

#[test]
fn nothing_is_left_for_later() {
    let kept = |file: &Source| file.is_rust() || file.path.ends_with(".toml") || !file.path.contains('.');
    let files: Vec<Source> = sources().into_iter().filter(kept).collect();
    none(&left_over(&files));
}

fn without_opening(files: &[Source]) -> Vec<Finding> {
    let opens = |file: &&Source| !file.text.starts_with("//! ") && !NO_OPENING.contains(&file.path.as_str());
    let mend = "open it with `//!` lines: what it takes, what it gives, what happens when the next is slow";
    files.iter().filter(opens).map(|file| file.finding(1, "does not say what it is", mend)).collect()
}

fn too_long(files: &[Source]) -> Vec<Finding> {
    let judge = |file: &Source| {
        let lines = file.shipped().count();
        let what = format!("{lines} lines before its tests, the limit is {LINES_MAX}");
        (lines > LINES_MAX).then(|| file.finding(lines, what, "split what it does in two, then the file"))
    };
    files.iter().filter_map(judge).collect()
}

fn left_over(files: &[Source]) -> Vec<Finding> {
    // Put together here so that this file is not its own finding.
    let marks =
        [["TO", "DO"], ["FIX", "ME"], ["XX", "X"], ["db", "g!("], ["to", "do!("], ["unimpl", "emented!("]];
    let mut found = Vec::new();
    for mark in marks.map(|halves| halves.concat()) {
        for file in files {
            let lines = file.lines().filter(|(_, line)| has_word(line, &mark));
            let finding = |(at, _)| file.finding(at, format!("has `{mark}`"), "do it now or file an issue");
            found.extend(lines.map(finding));
        }
    }
    found
}

#[test]
fn a_file_without_opening_words_is_named() {
    let files = [sample("a.rs", "use std::fs;\n"), sample("b.rs", "//! Says it.\n")];
    assert_eq!(without_opening(&files).first().map(|finding| finding.path.clone()), Some("a.rs".into()));
    assert_eq!(without_opening(&files).len(), 1);
}

#[test]
fn tests_do_not_count_towards_the_length_of_a_file() {
    let code = "x\n".repeat(LINES_MAX);
    let tests = format!("{code}#[cfg(test)]\n{code}");
    assert!(too_long(&[sample("a.rs", &tests)]).is_empty());
    assert_eq!(too_long(&[sample("a.rs", &format!("{code}x\n"))]).len(), 1);
}

#[test]
fn a_leftover_is_named_with_its_line() {
    let text = ["//! A.\n// ", "TO", "DO: later\n"].concat();
    let found = left_over(&[sample("a.rs", &text)]);
    assert_eq!(found.first().map(|finding| finding.line), Some(2));
}
