//! A worker's log in systemd's journal. Takes what `journalctl` prints of one unit, as JSON; gives each
//! message with the journal's own time, and tells when the unit ended or was started anew, which the
//! journal knows without a pattern. journalctl reads files, so a slow reader here makes it wait and
//! nothing is lost.
//!
//! The cursor of the last entry is kept: a journalctl that ends is started again behind it, so that no
//! entry is missed and none is read twice. libsystemd is not linked: its reader and the journal's
//! files have to be of one version, and `journalctl` always is.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use diarwatch_shared::backoff;
use diarwatch_shared::clock::{self, UnixMicros};
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::lines::{LINE_BYTES_MAX, Lines};
use super::sink::Take;
use super::{BEHIND_MAX, READ_BACK_TIMEOUT, RETRY};

/// Bytes of one entry as JSON; a longer one is dropped and counted. journald itself cuts a line of a
/// service at 48 KiB, which is six times as much when every byte of it has to be escaped.
pub const ENTRY_BYTES_MAX: usize = 384 * 1024;
/// Bytes of journalctl's own words that are passed on.
const WORDS_BYTES_MAX: u64 = 1_024;
/// Bytes taken from journalctl at once.
const READ_BYTES: usize = 64 * 1024;
/// A journalctl that says nothing for so long has nothing to complain of.
const QUIET: Duration = Duration::from_secs(1);
/// A journalctl that ran so long did not fail at its start.
const RAN_WELL: Duration = Duration::from_secs(60);
/// Starts of the unit that are remembered, so that a straggler of an old one is no new start.
const INVOCATIONS_MAX: usize = 16;
/// What the manager says when a unit is dead: its messages "deactivated successfully" and "failed".
const UNIT_IS_DEAD: [&str; 2] = ["7ad2d189f7e94e70a38c781354912448", "d9b373ed55a64feb8242e02dbe79a49c"];

/// How far a journal is read back at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Back {
    /// What is not older than this.
    Time(Duration),
    /// The last lines.
    Lines(usize),
}

/// Reads the journal of a unit for ever.
pub async fn follow(unit: &str, back: Back, sink: impl Take) {
    follow_by(PathBuf::from("journalctl"), unit, back, sink).await;
}

/// The same, by a journalctl that is somewhere else.
pub(crate) async fn follow_by(program: PathBuf, unit: &str, back: Back, sink: impl Take) {
    Journal::new(program, unit, back, sink).run().await;
}

struct Journal<S> {
    program: PathBuf,
    unit: String,
    sink: S,
    position: Position,
    caught_up: bool,
    invocations: VecDeque<String>,
}

/// Where to read on.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Position {
    Since(UnixMicros),
    Last(usize),
    After { cursor: String, at: UnixMicros },
}

/// Why journalctl is not read any more.
enum End {
    /// It ended, with its last words.
    Ended(String),
    /// It is too far behind: what is between is skipped.
    Behind,
}

impl<S: Take> Journal<S> {
    fn new(program: PathBuf, unit: &str, back: Back, sink: S) -> Self {
        Self {
            program,
            unit: unit.to_owned(),
            sink,
            position: match back {
                Back::Time(back) => Position::Since(clock::now().minus(back)),
                Back::Lines(lines) => Position::Last(lines),
            },
            caught_up: false,
            invocations: VecDeque::new(),
        }
    }

    async fn run(mut self) {
        let mut failures = 0;
        loop {
            let began = clock::uptime();
            let result = self.read().await;
            if clock::uptime().saturating_sub(began) > RAN_WELL {
                failures = 0;
            }
            match result {
                Ok(End::Behind) => {
                    let now = clock::now();
                    self.sink.skipped(now);
                    self.position = Position::Since(now);
                    continue;
                }
                // One end is no trouble (an upgrade of systemd, a kill): it goes on behind the cursor.
                Ok(End::Ended(_)) if failures == 0 && self.caught_up => {}
                Ok(End::Ended(words)) => self.sink.problem(self.problem(&words)),
                Err(error) => {
                    let name = self.program.display();
                    self.sink.problem(format!(
                        "run `{name}`: {error}; install systemd's journalctl, or read the worker's log as a file"
                    ));
                }
            }
            let jitter = backoff::unit(clock::now().0);
            tokio::time::sleep(RETRY.wait(failures, jitter)).await;
            failures = failures.saturating_add(1);
        }
    }

    async fn read(&mut self) -> std::io::Result<End> {
        if !self.caught_up {
            match self.read_back().await? {
                None => self.caught_up = true,
                Some(end) => return Ok(end),
            }
        }
        let (mut child, words) = self.spawn(true)?;
        let Some(mut stdout) = child.stdout.take() else { return Ok(End::Ended(String::new())) };
        let behind = self.pump(&mut stdout, true).await?;
        child.start_kill().ok();
        drop(child.wait().await);
        Ok(if behind { End::Behind } else { End::Ended(words.await.unwrap_or_default()) })
    }

    /// What was written before now; none when all of it was read.
    async fn read_back(&mut self) -> std::io::Result<Option<End>> {
        let (mut child, words) = self.spawn(false)?;
        let Some(mut stdout) = child.stdout.take() else { return Ok(None) };
        let Ok(read) = timeout(READ_BACK_TIMEOUT, self.pump(&mut stdout, false)).await else {
            self.caught_up = true;
            return Ok(Some(End::Behind));
        };
        read?;
        let status = child.wait().await?;
        let words = words.await.unwrap_or_default();
        // It succeeds and shows nothing where it may not read, and says so only here.
        let blind = words.contains("not seeing messages") || words.contains("No journal files were");
        Ok((blind || !status.success()).then_some(End::Ended(words)))
    }

    fn spawn(&self, follow: bool) -> std::io::Result<(Child, tokio::task::JoinHandle<String>)> {
        let mut command = Command::new(&self.program);
        command
            .args(arguments(&self.unit, &self.position, follow))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let stderr = child.stderr.take();
        let words = tokio::spawn(async move {
            let mut words = Vec::new();
            if let Some(mut stderr) = stderr {
                drop((&mut stderr).take(WORDS_BYTES_MAX).read_to_end(&mut words).await);
                drop(tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await);
            }
            String::from_utf8_lossy(&words).split_whitespace().collect::<Vec<_>>().join(" ")
        });
        Ok((child, words))
    }

    /// Takes entries in until journalctl ends; whether it is too far behind to go on.
    async fn pump(&mut self, from: &mut (impl AsyncRead + Unpin), follow: bool) -> std::io::Result<bool> {
        let mut buffer = vec![0; READ_BYTES];
        let mut lines = Lines::up_to(ENTRY_BYTES_MAX);
        let mut quiet = false;
        loop {
            let count = match timeout(QUIET, from.read(&mut buffer)).await {
                Ok(count) => count?,
                Err(_) if quiet || !follow => continue,
                Err(_) => {
                    quiet = true;
                    self.sink.well();
                    continue;
                }
            };
            if count == 0 {
                return Ok(false);
            }
            let now = clock::now();
            lines.take(buffer.get(..count).unwrap_or_default(), |line, cut| {
                if cut { self.sink.line_cut() } else { self.entry(line, now) }
            });
            if follow {
                self.sink.well();
            }
            let late = matches!(&self.position, Position::After { at, .. } if now.since(*at) > BEHIND_MAX);
            if self.sink.pace().await && late && follow {
                return Ok(true);
            }
        }
    }

    fn entry(&mut self, line: &str, now: UnixMicros) {
        let Some(entry) = Entry::read(line) else { return };
        if self.starts_anew(&entry) {
            self.sink.restarted(entry.at, now);
        }
        for message in &entry.messages {
            self.sink.line(message, Some(entry.at), now);
        }
        self.position = Position::After { cursor: entry.cursor, at: entry.at };
    }

    /// Whether the unit ended here, or this is the first word of its next start.
    fn starts_anew(&mut self, entry: &Entry) -> bool {
        if entry.is_of_manager_about(&self.unit) {
            return entry.unit_is_dead;
        }
        let Some(invocation) = entry.invocation_of(&self.unit) else { return false };
        if self.invocations.iter().any(|known| known == invocation) {
            return false;
        }
        self.invocations.push_back(invocation.to_owned());
        if self.invocations.len() > INVOCATIONS_MAX {
            self.invocations.pop_front();
        }
        self.invocations.len() > 1
    }

    fn problem(&self, words: &str) -> String {
        let unit = &self.unit;
        let rights = ["not seeing messages", "insufficient permissions", "Permission denied"];
        let hint = if rights.iter().any(|words_of| words.contains(words_of)) {
            "add the agent's user to the group systemd-journal"
        } else {
            "try the same with `journalctl --unit` by hand"
        };
        let words = if words.is_empty() { "it ended without a word" } else { words };
        format!("read the journal of {unit}: {words}; {hint}")
    }
}

fn arguments(unit: &str, position: &Position, follow: bool) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "--no-pager",
        "--all",
        "--output=json",
        "--output-fields=MESSAGE,MESSAGE_ID,UNIT,_PID,_SYSTEMD_UNIT,_SYSTEMD_INVOCATION_ID",
    ]
    .map(String::from)
    .into();
    arguments.push(format!("--unit={unit}"));
    arguments.push(match position {
        Position::Since(at) => format!("--since=@{}.{:06}", at.0 / 1_000_000, at.0 % 1_000_000),
        Position::Last(lines) => format!("--lines={lines}"),
        Position::After { cursor, .. } => format!("--after-cursor={cursor}"),
    });
    if follow {
        arguments.push(String::from("--follow"));
        // Without it only the last ten entries behind the cursor are shown.
        if !matches!(position, Position::Last(_)) {
            arguments.push(String::from("--no-tail"));
        }
    }
    arguments
}

/// One entry as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    cursor: String,
    at: UnixMicros,
    messages: Vec<String>,
    pid: Option<String>,
    about_unit: Option<String>,
    of_unit: Option<String>,
    invocation: Option<String>,
    unit_is_dead: bool,
}

/// A field that is there twice is a list, one that is no text is a list of its bytes, so none but the
/// two of journalctl's own is sure to be a text.
#[derive(Deserialize)]
struct Json {
    #[serde(rename = "__CURSOR")]
    cursor: String,
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    realtime: String,
    #[serde(rename = "MESSAGE", default)]
    message: Value,
    #[serde(rename = "MESSAGE_ID", default)]
    message_id: Value,
    #[serde(rename = "UNIT", default)]
    unit: Value,
    #[serde(rename = "_PID", default)]
    pid: Value,
    #[serde(rename = "_SYSTEMD_UNIT", default)]
    systemd_unit: Value,
    #[serde(rename = "_SYSTEMD_INVOCATION_ID", default)]
    invocation: Value,
}

impl Entry {
    fn read(line: &str) -> Option<Self> {
        let json: Json = serde_json::from_str(line).ok()?;
        let text = |value: Value| if let Value::String(text) = value { Some(text) } else { None };
        let id = text(json.message_id).unwrap_or_default();
        Some(Self {
            cursor: json.cursor,
            at: UnixMicros(json.realtime.parse().ok()?),
            messages: messages(&json.message),
            pid: text(json.pid),
            about_unit: text(json.unit),
            of_unit: text(json.systemd_unit),
            invocation: text(json.invocation),
            unit_is_dead: UNIT_IS_DEAD.contains(&id.as_str()),
        })
    }

    /// Fields with a leading `_` are the journal's own: no worker can say that it is the manager.
    fn is_of_manager_about(&self, unit: &str) -> bool {
        self.pid.as_deref() == Some("1") && self.about_unit.as_deref() == Some(unit)
    }

    fn invocation_of(&self, unit: &str) -> Option<&str> {
        self.invocation.as_deref().filter(|_| self.of_unit.as_deref() == Some(unit))
    }
}

/// The lines of a message, however it is written.
fn messages(value: &Value) -> Vec<String> {
    let texts: Vec<String> = match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(values) if values.iter().all(Value::is_u64) => {
            let byte = |value: &Value| value.as_u64().and_then(|byte| u8::try_from(byte).ok());
            let bytes: Vec<u8> = values.iter().filter_map(byte).collect();
            vec![String::from_utf8_lossy(&bytes).into_owned()]
        }
        Value::Array(values) => values.iter().flat_map(messages).collect(),
        _ => Vec::new(),
    };
    let cut = |line: &str| line.get(..line.floor_char_boundary(LINE_BYTES_MAX)).unwrap_or(line).to_owned();
    texts.iter().flat_map(|text| text.lines().map(cut)).collect()
}

#[cfg(test)]
mod tests;
