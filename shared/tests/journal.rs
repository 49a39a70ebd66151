//! The journal layer against a real systemd-journald, run alone in a mount namespace of its own.
//!
//! The test starts itself a second time inside that namespace, with stderr connected to that
//! journal as systemd connects a service's, lets it speak, and asks journalctl. Where there is no
//! root or no journald it says SKIPPED and passes: the machine is missing, not the feature.

#![expect(clippy::unwrap_used, reason = "helpers of tests: what cannot be started is a failed test")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const JOURNALD: &str = "/lib/systemd/systemd-journald";
const SPEAK: &str = "DIARWATCH_JOURNAL_PROBE";

/// Runs in the namespace; `$1` is this program, `$2` its test. What journalctl says comes last.
const SCRIPT: &str = r#"
set -eu
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journal /run/systemd/journald.conf.d /run/log
printf '[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\nForwardToSyslog=no\n' >/run/systemd/journald.conf.d/test.conf
if [ ! -s /etc/machine-id ]; then
  echo 0123456789abcdef0123456789abcdef >/run/machine-id
  mount --bind /run/machine-id /etc/machine-id
fi
/lib/systemd/systemd-journald >/dev/null 2>&1 &
trap 'kill $!; wait $! || true' EXIT
tries=0
until [ -S /run/systemd/journal/socket ] && [ -S /run/systemd/journal/stdout ]; do
  tries=$((tries + 1)); [ "$tries" -lt 200 ] || { echo "journald made no socket" >&2; exit 3; }
  sleep 0.05
done
systemd-cat --identifier=service sh -c \
  'export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2); exec "$0" --exact "$1" --nocapture' "$1" "$2"
journalctl --sync
journalctl WORKER=pyannote-1 --output=json --no-pager
"#;

/// What the second start says: an ordinary warning, and one with a text of two lines.
fn speak() {
    diarwatch_shared::daemon::start_log("diarwatch-test");
    tracing::warn!(worker = "pyannote-1", attempt = 2, "worker exited");
    tracing::info!(worker = "pyannote-1", reason = "戻った\nsecond line", "worker ready");
    tracing::debug!(worker = "pyannote-1", "below the default level");
}

#[test]
fn journalctl_finds_what_was_said_of_a_worker_by_its_field() {
    if std::env::var_os(SPEAK).is_some() {
        return speak();
    }
    if let Some(reason) = missing() {
        println!("SKIPPED: {reason}");
        return;
    }
    let output = in_namespace("journalctl_finds_what_was_said_of_a_worker_by_its_field");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    let entries: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let [warning, ready] = entries.as_slice() else { panic!("expected two entries, got:\n{text}") };
    for (entry, field, value) in [
        (warning, "MESSAGE", "worker exited"),
        (warning, "PRIORITY", "4"),
        (warning, "TARGET", "journal"),
        (warning, "WORKER", "pyannote-1"),
        (warning, "ATTEMPT", "2"),
        (warning, "SYSLOG_IDENTIFIER", "diarwatch-test"),
        (warning, "_TRANSPORT", "journal"),
        (ready, "PRIORITY", "5"),
        (ready, "REASON", "戻った\nsecond line"),
    ] {
        assert_eq!(entry.get(field).and_then(Value::as_str), Some(value), "{field} of {entry}");
    }
    let file = warning.get("CODE_FILE").and_then(Value::as_str).unwrap_or_default();
    assert!(file.ends_with("journal.rs") && warning.get("CODE_LINE").is_some(), "{warning}");
}

#[test]
fn without_a_journal_the_log_is_readable_on_stderr() {
    if std::env::var_os(SPEAK).is_some() {
        return speak();
    }
    let text = on_stderr("without_a_journal_the_log_is_readable_on_stderr", None);
    let line = text.lines().find(|line| line.contains("worker exited")).unwrap_or_default();
    assert!(line.contains("WARN") && line.contains("pyannote-1") && line.contains("attempt=2"), "{text}");
    assert!(!text.contains('\u{1b}'), "colours where stderr is no terminal: {text:?}");
    assert!(!text.contains("below the default level"), "{text}");
}

#[test]
fn a_log_level_that_is_not_understood_is_named_and_the_default_kept() {
    if std::env::var_os(SPEAK).is_some() {
        return speak();
    }
    let name = "a_log_level_that_is_not_understood_is_named_and_the_default_kept";
    let text = on_stderr(name, Some("info,a=b=c"));
    assert!(text.contains("worker ready") && !text.contains("below the default level"), "{text}");
    assert!(text.contains("DIARWATCH_LOG is not understood") && text.contains("a=b=c"), "{text}");
}

/// What this test, started a second time with no journal, writes to stderr.
fn on_stderr(test: &str, level: Option<&str>) -> String {
    let mut second = Command::new(std::env::current_exe().unwrap());
    second.args(["--exact", test, "--nocapture"]).env(SPEAK, "1");
    second.env_remove("JOURNAL_STREAM").env_remove("DIARWATCH_LOG");
    if let Some(level) = level {
        second.env("DIARWATCH_LOG", level);
    }
    String::from_utf8(second.output().unwrap().stderr).unwrap()
}

/// Why the journal cannot be tried here, if it cannot.
fn missing() -> Option<String> {
    let needs = [JOURNALD, "/usr/bin/systemd-cat", "/usr/bin/journalctl", "/usr/bin/unshare"];
    if let Some(absent) = needs.iter().find(|path| !Path::new(path).exists()) {
        return Some(format!("no {absent} here"));
    }
    if !Path::new("/etc/machine-id").exists() {
        return Some(String::from("no /etc/machine-id here"));
    }
    let namespace = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "mount", "-t", "tmpfs", "tmpfs", "/run"])
        .output();
    match namespace {
        Ok(output) if output.status.success() => None,
        _ => Some(String::from("no mount namespace may be made here (not root?)")),
    }
}

fn in_namespace(test: &str) -> Output {
    Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT, "journal"])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(SPEAK, "1")
        .env_remove("DIARWATCH_LOG")
        .output()
        .unwrap()
}
