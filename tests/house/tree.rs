//! The files of the checkout, as texts, and the form of a finding.
//!
//! Takes the repository's folder; gives every text file in it but build outputs (folders with a
//! `CACHEDIR.TAG`), git's own and what a demo leaves behind.

use std::fmt::{self, Write as _};
use std::fs;
use std::path::{Path, PathBuf};

const NOT_OURS: [&str; 5] = [".git", "target", "demo", "__pycache__", "node_modules"];

/// A text file, by its path from the repository's root.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// A broken rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) what: String,
    pub(crate) mend: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}; {}", self.path, self.line, self.what, self.mend)
    }
}

impl Source {
    pub(crate) fn finding(&self, line: usize, what: impl Into<String>, mend: &'static str) -> Finding {
        Finding { path: self.path.clone(), line, what: what.into(), mend }
    }

    /// Lines with their numbers, from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(at, line)| (at + 1, line))
    }

    /// Lines before the first `#[cfg(test)]`: what ships.
    pub(crate) fn shipped(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines().take_while(|(_, line)| line.trim_start() != "#[cfg(test)]")
    }

    /// Shipped lines without their comments (a `//` in a text counts as one, which only hides).
    pub(crate) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.shipped().map(|(at, line)| (at, line.split("//").next().unwrap_or(line)))
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether it is only ever compiled for tests: a `tests` folder that holds no package, `tests.rs`.
    pub(crate) fn is_test(&self) -> bool {
        let parts: Vec<&str> = self.path.split('/').collect();
        let last = |name| parts.iter().rposition(|part| *part == name);
        last("tests.rs").is_some() || last("tests") > last("src")
    }
}

/// The repository's folder.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file of the checkout, in order of path.
pub(crate) fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    collect(root(), &mut paths);
    paths.sort();
    paths.into_iter().filter_map(|path| read(&path)).collect()
}

/// The Rust files of the checkout.
pub(crate) fn rust_sources() -> Vec<Source> {
    sources().into_iter().filter(Source::is_rust).collect()
}

/// One file that has to be there.
pub(crate) fn page(path: &str) -> Source {
    read(&root().join(path)).unwrap_or_else(|| panic!("{path}:1: this file is missing; write it"))
}

/// Fails with every finding on a line of its own.
pub(crate) fn none(findings: &[Finding]) {
    let text = findings.iter().fold(String::new(), |mut text, finding| {
        let _ = writeln!(text, "{finding}");
        text
    });
    assert!(findings.is_empty(), "{} broken:\n{text}", findings.len());
}

/// A text for the tests of the rules themselves.
pub(crate) fn sample(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}

/// Whether `word` stands in `text` on its own, not as part of a longer name.
pub(crate) fn has_word(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        let open_end = !word.ends_with(part) || !after.is_some_and(part);
        !before.is_some_and(part) && open_end
    })
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        let name = entry.file_name();
        let ours = !NOT_OURS.iter().any(|other| name.to_str() == Some(other));
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && ours && !path.join("CACHEDIR.TAG").exists() => collect(&path, paths),
            Ok(kind) if kind.is_file() && ours => paths.push(path),
            _ => {}
        }
    }
}

fn read(path: &Path) -> Option<Source> {
    let text = String::from_utf8(fs::read(path).ok()?).ok()?;
    let path = path.strip_prefix(root()).unwrap_or(path).to_string_lossy().into_owned();
    Some(Source { path, text })
}

#[test]
fn a_word_is_not_found_inside_a_longer_one() {
    assert!(has_word("use sled::Db;", "sled::"));
    assert!(!has_word("use unsled::Db;", "sled::"));
    assert!(!has_word("sysinformation", "sysinfo"));
}

#[test]
fn what_is_only_compiled_for_tests_is_told_from_what_ships() {
    for path in ["tests/house/tree.rs", "agent/tests/cli.rs", "shared/src/frame/tests.rs"] {
        assert!(sample(path, "").is_test(), "{path}");
    }
    for path in ["agent/src/probe.rs", "tests/standins/src/main.rs"] {
        assert!(!sample(path, "").is_test(), "{path}");
    }
}
