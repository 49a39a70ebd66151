//! Entries as journalctl prints them, and a journalctl that ends, says too much, or is not there.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use diarwatch_shared::config::parse;

use super::*;
use crate::config::worker::Faults;
use crate::queue::Look;
use crate::queue::log::patterns::Patterns;
use crate::queue::log::sink::Sink;
use crate::queue::log::{Board, LogConfig, lock};

const UNIT: &str = "pyannote.service";

/// A sink, and what it gives to a look.
fn sink() -> (Sink, Arc<Mutex<Board>>) {
    let text = "journal = 'pyannote.service'\naccepted = 'job (?<id>\\S+) accepted'\nfinished = 'job (?<id>\\S+) done'\n";
    let config: LogConfig = parse(Path::new("agent.toml"), text).unwrap();
    let patterns = Patterns::new(&config, &mut Faults::default());
    let board = Arc::new(Mutex::new(Board::new(&patterns, config.forget_after.0)));
    (Sink::new(Arc::clone(&board), patterns), board)
}

fn reader(program: &Path) -> (Journal<Sink>, Arc<Mutex<Board>>) {
    let (sink, board) = sink();
    (Journal::new(program.to_owned(), UNIT, Back::Time(Duration::from_secs(3_600)), sink), board)
}

/// Entries are new, so that no job of theirs is forgotten.
fn begin() -> u64 {
    static BEGIN: OnceLock<u64> = OnceLock::new();
    *BEGIN.get_or_init(|| clock::now().0)
}

fn entry(number: u64, message: &str, more: &str) -> String {
    format!(
        r#"{{"__CURSOR":"s=1;i={number}","__REALTIME_TIMESTAMP":"{}","MESSAGE":{message}{more}}}"#,
        begin() + number
    )
}

fn from_worker(number: u64, message: &str, invocation: &str) -> String {
    let more = format!(r#","_PID":"77","_SYSTEMD_UNIT":"{UNIT}","_SYSTEMD_INVOCATION_ID":"{invocation}""#);
    entry(number, &format!("\"{message}\""), &more)
}

fn messages_of(message: &str) -> Vec<String> {
    Entry::read(&entry(1, message, "")).unwrap().messages
}

#[test]
fn a_message_is_read_as_text_as_bytes_and_as_several() {
    assert_eq!(messages_of(r#""job 議事録 accepted""#), ["job 議事録 accepted"]);
    assert_eq!(messages_of("[106,111,98,255,10,50]"), ["job\u{fffd}", "2"]);
    assert_eq!(messages_of(r#"["one",[116,119,111]]"#), ["one", "two"]);
    assert_eq!(messages_of("null"), [""; 0]);
    let long = messages_of(&format!("\"{}\"", "話".repeat(10_000)));
    assert!(long[0].len() <= LINE_BYTES_MAX && long[0].ends_with('話'));
}

#[test]
fn what_is_no_entry_is_passed_over() {
    for line in ["-- No entries --", "", "{", "[]", r#"{"MESSAGE":"x"}"#, r#"{"__CURSOR":1}"#] {
        assert_eq!(Entry::read(line), None, "{line}");
    }
}

#[test]
fn the_whole_backlog_behind_the_cursor_is_asked_for() {
    let position = Position::After { cursor: "s=1;i=2".into(), at: UnixMicros(3) };
    let arguments = arguments(UNIT, &position, true);
    for expected in ["--unit=pyannote.service", "--after-cursor=s=1;i=2", "--follow", "--no-tail", "--all"] {
        assert!(arguments.contains(&expected.to_owned()), "{arguments:?}");
    }
    let since = super::arguments(UNIT, &Position::Since(UnixMicros(1_000_007)), false);
    assert!(since.contains(&String::from("--since=@1.000007")), "{since:?}");
    let last = super::arguments(UNIT, &Position::Last(200), true);
    assert!(
        last.contains(&String::from("--lines=200")) && !last.contains(&String::from("--no-tail")),
        "{last:?}"
    );
}

#[test]
fn the_next_start_of_the_unit_and_its_end_empty_the_queue() {
    let (mut journal, board) = reader(Path::new("journalctl"));
    let waiting = |journal: &mut Journal<Sink>, line: &str| {
        journal.entry(line, UnixMicros(begin() + 5_000_000));
        lock(&board).tracker.look(UnixMicros(begin() + 5_000_000)).waiting
    };
    assert_eq!(waiting(&mut journal, &from_worker(1, "job 1 accepted", "first")), Ok(1.0));
    assert_eq!(waiting(&mut journal, &from_worker(2, "job 2 accepted", "first")), Ok(2.0));
    assert_eq!(waiting(&mut journal, &from_worker(3, "job 3 accepted", "second")), Ok(1.0));
    assert_eq!(waiting(&mut journal, &from_worker(4, "last words", "first")), Ok(1.0), "a straggler");
    let dead = r#","_PID":"1","UNIT":"pyannote.service","MESSAGE_ID":"d9b373ed55a64feb8242e02dbe79a49c""#;
    let forged = dead.replace("\"1\"", "\"77\"");
    assert_eq!(waiting(&mut journal, &entry(5, "\"Failed\"", &forged)), Ok(1.0), "not from the manager");
    let other = dead.replace("pyannote", "other");
    assert_eq!(waiting(&mut journal, &entry(6, "\"Failed\"", &other)), Ok(1.0), "of another unit");
    assert_eq!(waiting(&mut journal, &entry(7, "\"Failed\"", dead)), Ok(0.0));
    let position = Position::After { cursor: "s=1;i=7".into(), at: UnixMicros(begin() + 7) };
    assert_eq!(journal.position, position);
}

/// A stand-in for journalctl: a script that sees its arguments.
fn script(directory: &Path, text: &str) -> PathBuf {
    let path = directory.join("journalctl");
    std::fs::write(&path, format!("#!/bin/sh\ncd {}\n{text}", directory.display())).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path
}

/// Waits until a look fits; the reader runs beside.
async fn until(journal: Journal<Sink>, board: &Mutex<Board>, fits: impl Fn(&Result<Look, String>) -> bool) {
    let reading = journal.run();
    let looking = async {
        loop {
            let look = lock(board).look(clock::now());
            if fits(&look) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = reading => {}
        () = looking => {}
        () = tokio::time::sleep(Duration::from_secs(30)) => panic!("{:?}", lock(board).look(clock::now())),
    }
}

#[tokio::test]
async fn a_journalctl_that_ends_is_started_again_behind_the_last_entry() {
    let directory = tempfile::tempdir().unwrap();
    let first = from_worker(1, "job 1 accepted", "a");
    let second = from_worker(2, "job 2 accepted", "a");
    let third = from_worker(3, "job 3 accepted", "a");
    // Reading back; then two that end at once; then one that stays.
    let text = format!(
        "echo \"$*\" >>calls\ncase \"$*\" in\n\
         *--since=*) echo '{first}';;\n\
         *--after-cursor=s=1*i=1*) echo '{second}';;\n\
         *--after-cursor=s=1*i=2*) echo '{third}';;\n\
         *) exec sleep 1000;;\nesac\n"
    );
    let (journal, board) = reader(&script(directory.path(), &text));
    until(journal, &board, |look| look.as_ref().is_ok_and(|look| look.waiting == Ok(3.0))).await;
    let calls = std::fs::read_to_string(directory.path().join("calls")).unwrap();
    let cursors: Vec<&str> = calls.lines().filter_map(|call| call.split("i=").nth(1)?.get(..1)).collect();
    assert!(cursors.starts_with(&["1", "2"]), "{calls}");
}

#[tokio::test]
async fn an_entry_without_end_costs_its_bound_and_hides_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let whole = from_worker(1, "job 1 accepted", "a");
    let text = format!(
        "case \"$*\" in *--follow*) head -c 5000000 /dev/zero | tr '\\0' x; echo; echo '{whole}'; exec sleep 1000;; esac\n"
    );
    let (journal, board) = reader(&script(directory.path(), &text));
    until(journal, &board, |look| look.as_ref().is_ok_and(|look| look.waiting == Ok(1.0))).await;
    assert_eq!(lock(&board).lines_cut, 1);
}

#[tokio::test]
async fn a_journal_that_may_not_be_read_is_a_problem_with_its_mending() {
    let directory = tempfile::tempdir().unwrap();
    let text = "echo 'Hint: You are currently not seeing messages from other users and the system.' >&2\n";
    let (journal, board) = reader(&script(directory.path(), text));
    let says = |words: &'static str| {
        move |look: &Result<Look, String>| look.as_ref().is_err_and(|problem| problem.contains(words))
    };
    until(journal, &board, says("group systemd-journal")).await;
    let (journal, board) = reader(&directory.path().join("none"));
    until(journal, &board, says("install systemd's journalctl")).await;
}

#[tokio::test]
async fn a_journal_without_a_line_is_not_yet_a_queue_of_zero() {
    let directory = tempfile::tempdir().unwrap();
    let text = "case \"$*\" in *--follow*) exec sleep 1000;; esac\n";
    let (journal, board) = reader(&script(directory.path(), text));
    let doubts = |look: &Result<Look, String>| {
        look.as_ref()
            .is_ok_and(|look| look.doubt.as_ref().is_some_and(|doubt| doubt.contains("no line was seen")))
    };
    until(journal, &board, doubts).await;
    let look = lock(&board).look(clock::now()).unwrap();
    assert_eq!(look.waiting, Err(diarwatch_shared::reading::Missing::NotYet));
}
