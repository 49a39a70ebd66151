//! XIDs in the kernel's log, which knows the process that was hit, and speaks also while the driver's
//! library hangs. Takes what `journalctl` prints of the kernel, as JSON; gives each XID on, and waits while
//! that is slow: journalctl reads files, so nothing is lost. What was written before the agent began is left.
//!
//! A journal that is not there or may not be read is a state that is told and mends itself.

use std::process::Stdio;
use std::time::Duration;

use diarwatch_shared::backoff::{Backoff, unit};
use diarwatch_shared::clock::{self, UnixMicros};
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::errors::Seen;
use super::kernel_line;
use crate::queue::log::lines::Lines;

/// Bytes of one entry as JSON; a longer one is no XID.
const ENTRY_BYTES_MAX: usize = 16 * 1024;
/// Bytes taken from journalctl at once.
const READ_BYTES: usize = 16 * 1024;
/// For journalctl to find the newest entry.
const NEWEST_WAIT: Duration = Duration::from_secs(10);
/// From one try to the next while the log cannot be read.
const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// A journalctl that ran so long did not fail at its start.
const RAN_WELL: Duration = Duration::from_secs(10);
/// Failures in a row after which it is read on from the end of the log.
const FAILURES_MAX: u32 = 3;
/// What is to be done when there is nothing to read.
const HINT: &str = "run journald, and add the agent's user to the group systemd-journal";

/// Reads the kernel's log for as long as anyone takes what it gives.
pub(super) async fn follow(seen: mpsc::Sender<Seen>) {
    let mut cursor = None;
    let mut failures = 0_u32;
    loop {
        let began = clock::uptime();
        let problem = match read(&mut cursor, &seen).await {
            // One that ended after it had read is started again behind its last entry.
            Ok(()) if clock::uptime().saturating_sub(began) > RAN_WELL => None,
            Ok(()) => Some(String::from("journalctl ends at once; try `journalctl --dmesg` by hand")),
            Err(problem) => Some(problem),
        };
        failures = if problem.is_some() { failures.saturating_add(1) } else { 0 };
        if failures > FAILURES_MAX {
            // Its last entry may be one that the journal has no more.
            cursor = None;
        }
        if problem.is_some() && seen.send(Seen::KernelLog { problem }).await.is_err() {
            return;
        }
        sleep(RETRY.wait(failures, unit(clock::now().0))).await;
    }
}

/// One journalctl from start to end.
async fn read(cursor: &mut Option<String>, seen: &mpsc::Sender<Seen>) -> Result<(), String> {
    let fault = |error: std::io::Error| format!("run `journalctl`: {error}; install systemd's journalctl");
    let after = match cursor.clone() {
        Some(cursor) => cursor,
        None => newest()
            .await
            .map_err(fault)?
            .ok_or_else(|| format!("the journal shows nothing of the kernel: {HINT}"))?,
    };
    let mut child =
        journalctl(&["--follow", "--no-tail", &format!("--after-cursor={after}")]).map_err(fault)?;
    *cursor = Some(after);
    let Some(mut stdout) = child.stdout.take() else { return Ok(()) };
    drop(seen.send(Seen::KernelLog { problem: None }).await);
    let pumped = pump(&mut stdout, cursor, seen).await;
    child.start_kill().ok();
    drop(child.wait().await);
    pumped.map_err(fault)
}

/// The newest entry of the kernel's: of this boot there is always one, where it may be read.
async fn newest() -> std::io::Result<Option<String>> {
    let mut child = journalctl(&["--lines=1"])?;
    let Some(stdout) = child.stdout.take() else { return Ok(None) };
    let mut text = Vec::new();
    let mut stdout = stdout.take(ENTRY_BYTES_MAX as u64);
    let read = timeout(NEWEST_WAIT, stdout.read_to_end(&mut text)).await;
    child.start_kill().ok();
    drop(child.wait().await);
    read.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().find_map(Entry::read).map(|entry| entry.cursor))
}

fn journalctl(more: &[&str]) -> std::io::Result<Child> {
    Command::new("journalctl")
        .args(["--dmesg", "--no-pager", "--all", "--quiet", "--output=json", "--output-fields=MESSAGE"])
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
}

/// Takes entries in until journalctl ends.
async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    cursor: &mut Option<String>,
    seen: &mpsc::Sender<Seen>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let mut lines = Lines::up_to(ENTRY_BYTES_MAX);
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        let mut found = Vec::new();
        lines.take(buffer.get(..count).unwrap_or_default(), |line, cut| {
            if let Some(entry) = Entry::read(line).filter(|_| !cut) {
                found.extend(kernel_line::read(&entry.message).map(|line| (entry.at, line)));
                *cursor = Some(entry.cursor);
            }
        });
        for (at, line) in found {
            drop(seen.send(Seen::Line { at, line }).await);
        }
    }
}

/// One entry as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    cursor: String,
    at: UnixMicros,
    message: String,
}

/// A message that is no text is a list of its bytes: then it is none of ours.
#[derive(Deserialize)]
struct Json {
    #[serde(rename = "__CURSOR")]
    cursor: String,
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    realtime: String,
    #[serde(rename = "MESSAGE", default)]
    message: Value,
}

impl Entry {
    fn read(line: &str) -> Option<Self> {
        let json: Json = serde_json::from_str(line).ok()?;
        let message = if let Value::String(text) = json.message { text } else { String::new() };
        Some(Self { cursor: json.cursor, at: UnixMicros(json.realtime.parse().ok()?), message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str = r#"{"_BOOT_ID":"de89","__REALTIME_TIMESTAMP":"1795489581226067","MESSAGE":"NVRM: Xid (PCI:0000:10:00): 79, pid=4242, name=python, GPU has fallen off the bus.","__MONOTONIC_TIMESTAMP":"22556776992","__CURSOR":"s=b2;i=5"}"#;

    #[tokio::test]
    async fn what_journalctl_prints_of_a_gpu_is_given_on_with_its_time() {
        let text = format!(
            "not json\n{}\n{ENTRY}\n{{\"MESSAGE\":[1,255]}}\n",
            ENTRY.replace("NVRM: Xid", "NVRM: Xi")
        );
        let (sender, mut seen) = mpsc::channel(8);
        let mut cursor = None;
        pump(&mut text.as_bytes(), &mut cursor, &sender).await.unwrap();
        let Some(Seen::Line { at, line }) = seen.recv().await else { panic!() };
        assert_eq!((at, line.code, line.pid), (UnixMicros(1_795_489_581_226_067), 79, Some(4_242)));
        assert_eq!(cursor.as_deref(), Some("s=b2;i=5"));
        assert!(seen.try_recv().is_err());
    }

    #[test]
    fn an_entry_that_is_no_text_moves_the_place_on_and_says_nothing() {
        let bytes = ENTRY.replace(
            "\"NVRM: Xid (PCI:0000:10:00): 79, pid=4242, name=python, GPU has fallen off the bus.\"",
            "[78,255]",
        );
        assert_eq!(Entry::read(&bytes).unwrap().message, "");
    }
}
