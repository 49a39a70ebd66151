//! Rules on who may know what: a vendor's types stay behind one file, clocks behind one, and the
//! vocabulary crate does no I/O.

use std::collections::BTreeSet;

use crate::tree::{Finding, Source, has_word, none, rust_sources, sample};

/// A word that only some files may use.
struct Door {
    /// What must not appear elsewhere.
    word: &'static str,
    /// Where the rule looks.
    within: &'static str,
    /// Paths that may use it start with one of these.
    only: &'static [&'static str],
    /// How many files may.
    files_max: usize,
}

const VENDORS: [Door; 12] = [
    Door { word: "comfy_table", within: "", only: &["agent/src/cli/operator/output.rs"], files_max: 1 },
    Door { word: "sled::", within: "", only: &["agent/src/spool"], files_max: 1 },
    Door { word: "quinn::", within: "agent/", only: &["agent/src/uplink"], files_max: 1 },
    Door { word: "quinn::", within: "aggregator/", only: &["aggregator/src/intake"], files_max: 1 },
    Door { word: "quinn::", within: "shared/", only: &[], files_max: 0 },
    Door { word: "nvml_wrapper", within: "", only: &["agent/src/sample/gpu"], files_max: 1 },
    Door { word: "zbus", within: "", only: &["agent/src/restart/systemd/bus.rs"], files_max: 1 },
    Door { word: "sysinfo", within: "", only: &["agent/src/sample/"], files_max: 1 },
    Door { word: "tokio_postgres", within: "", only: &["agent/src/queue/postgres.rs"], files_max: 1 },
    // `redis` alone is also a name in the configuration.
    Door {
        word: "aio::MultiplexedConnection",
        within: "",
        only: &["agent/src/queue/redis.rs"],
        files_max: 1,
    },
    Door { word: "promql_parser", within: "", only: &["aggregator/src/rules"], files_max: usize::MAX },
    Door {
        word: "systemd_journal_logger",
        within: "",
        only: &["shared/src/daemon/journal.rs"],
        files_max: 1,
    },
];

const CLOCKS: [&str; 5] =
    ["Instant::now", "SystemTime::now", "Zoned::now", "Timestamp::now", "UNIX_EPOCH.elapsed"];
const INPUT_AND_OUTPUT: [&str; 5] = ["std::fs", "std::net", "Command::new", "File::", "tokio::net"];
const MAY_DO_IO: [&str; 3] = ["shared/src/log.rs", "shared/src/daemon/", "shared/src/clock.rs"];
/// A driver's stand-in keeps its own time, as a driver does.
const OWN_CLOCK: [&str; 2] = ["shared/src/clock.rs", "tests/fake-nvml/"];

#[test]
fn a_vendors_types_stay_behind_one_file() {
    let files = shipped_files();
    none(&VENDORS.iter().flat_map(|door| through(door, &files)).collect::<Vec<_>>());
}

#[test]
fn only_the_clock_module_reads_time() {
    none(&clock_readers(&shipped_files()));
}

#[test]
fn the_vocabulary_does_no_io_but_in_three_places() {
    none(&shared_io(&shipped_files()));
}

fn shipped_files() -> Vec<Source> {
    rust_sources().into_iter().filter(|file| !file.is_test()).collect()
}

fn through(door: &Door, files: &[Source]) -> Vec<Finding> {
    let mut users = BTreeSet::new();
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.path.starts_with(door.within)) {
        let Some((at, _)) = file.code().find(|(_, line)| has_word(line, door.word)) else { continue };
        users.insert(file.path.as_str());
        let at_home = door.only.iter().any(|home| file.path.starts_with(home));
        if !at_home || users.len() > door.files_max {
            let what = format!("uses `{}`, which belongs to {}", door.word, home_of(door));
            found.push(file.finding(at, what, "put a small type of our own in that file and use it here"));
        }
    }
    found
}

fn home_of(door: &Door) -> String {
    match (door.only, door.files_max) {
        ([], _) => String::from("no file here"),
        (homes, 1) => format!("one file under {}", homes.join(", ")),
        (homes, _) => homes.join(", "),
    }
}

fn clock_readers(files: &[Source]) -> Vec<Finding> {
    let allowed = |file: &&Source| !starts_with_any(&file.path, &OWN_CLOCK);
    let mend = "take `now` as an argument, or ask diarwatch_shared::clock in the shell";
    lines_with(files.iter().filter(allowed), &CLOCKS, "reads a clock", mend)
}

fn shared_io(files: &[Source]) -> Vec<Finding> {
    let pure =
        |file: &&Source| file.path.starts_with("shared/src/") && !starts_with_any(&file.path, &MAY_DO_IO);
    let mend = "let the caller read or write; this crate only knows values and bytes";
    lines_with(files.iter().filter(pure), &INPUT_AND_OUTPUT, "does I/O", mend)
}

fn lines_with<'a>(
    files: impl Iterator<Item = &'a Source>,
    words: &[&str],
    what: &str,
    mend: &'static str,
) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in files {
        for (at, line) in file.code() {
            if let Some(word) = words.iter().find(|word| has_word(line, word)) {
                found.push(file.finding(at, format!("{what} (`{word}`)"), mend));
            }
        }
    }
    found
}

fn starts_with_any(path: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| path.starts_with(prefix))
}

#[test]
fn a_second_file_behind_a_vendors_door_is_named() {
    let door = Door { word: "sled::", within: "", only: &["agent/src/spool"], files_max: 1 };
    let home = sample("agent/src/spool/a.rs", "use sled::Db;\n");
    let second = sample("agent/src/spool/b.rs", "use sled::Tree;\n");
    let outside = sample("agent/src/uplink.rs", "//! No.\nfn f(db: sled::Db) {}\n");
    assert!(through(&door, std::slice::from_ref(&home)).is_empty());
    assert_eq!(through(&door, &[home.clone(), second]).len(), 1);
    assert_eq!(through(&door, &[home, outside]).first().map(|finding| finding.line), Some(2));
}

#[test]
fn a_clock_is_seen_in_code_and_not_in_comments_or_tests() {
    let seen = sample("agent/src/a.rs", "let t = Instant::now();\n");
    let unseen = sample("agent/src/b.rs", "// Instant::now\n#[cfg(test)]\nlet t = Instant::now();\n");
    assert_eq!(clock_readers(&[seen, unseen]).len(), 1);
}

#[test]
fn a_file_opened_in_the_vocabulary_is_seen() {
    let text = "use std::fs;\n";
    let files = [sample("shared/src/schema.rs", text), sample("shared/src/log.rs", text)];
    assert_eq!(shared_io(&files).len(), 1);
}
