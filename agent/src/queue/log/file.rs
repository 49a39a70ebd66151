//! A worker's log in a file. Takes what is appended, by asking four times a second; gives lines. The
//! file is followed by its name: one that was renamed is read to its end and the new one from its
//! begin; one that was copied and truncated is read from its begin. A file on a mount that hangs
//! stops this log's thread only; one that grows faster than it is read is skipped ahead, told.
//!
//! What a copy-and-truncate drops between the last look and the truncation is gone unseen.

use std::fs::{File, Metadata, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use diarwatch_shared::clock::{self, UnixMicros};

use super::lines::Lines;
use super::sink::{Sink, Take as _};
use super::stamp::{Stamp, Zone};

/// Bytes that are read back at the start.
pub const READ_BACK_BYTES: u64 = 4 << 20;
/// Bytes that may be unread; of more all but the last [`READ_BACK_BYTES`] are skipped.
pub const BEHIND_BYTES_MAX: u64 = 64 << 20;
/// From one look at the file to the next.
const POLL: Duration = Duration::from_millis(250);
/// How long a renamed file is still read after it grew: its writer may not have opened the new one yet.
const RENAMED_FOR: Duration = Duration::from_secs(10);
/// How long the file may be missing in a rotation.
const MISSING_FOR: Duration = Duration::from_secs(10);
/// Bytes taken from a file at once.
const READ_BYTES: usize = 64 * 1024;
/// Bytes before the place of reading by which a truncated file that has grown again is known.
const MARK_BYTES: usize = 256;

/// Reads a file for ever.
pub async fn follow(path: &Path, sink: Sink) {
    let mut follower = Follower::new(path, sink);
    loop {
        follower.poll().await;
        tokio::time::sleep(POLL).await;
    }
}

struct Follower {
    path: PathBuf,
    sink: Sink,
    current: Option<Tail>,
    /// The file that had the name before, and when it last grew.
    renamed: Option<(Tail, UnixMicros)>,
    missing_since: Option<UnixMicros>,
    /// A file was opened before: the next one is new and is read from its begin.
    rotated: bool,
}

/// An open file and how far it was read.
struct Tail {
    file: File,
    id: (u64, u64),
    position: u64,
    /// The bytes just before the position.
    mark: Vec<u8>,
    lines: Lines,
    /// The line under way has lost its begin.
    torn: bool,
    /// Lines from before the agent read the file have the time that they say.
    old: Option<Old>,
}

#[derive(Clone, Copy)]
struct Old {
    zone: Option<Zone>,
}

impl Follower {
    fn new(path: &Path, sink: Sink) -> Self {
        let path = path.to_owned();
        Self { path, sink, current: None, renamed: None, missing_since: None, rotated: false }
    }

    async fn poll(&mut self) {
        let now = clock::now();
        self.sink.asks(now);
        match self.named(now) {
            Ok(Some(new)) => self.change_to(new, now).await,
            Ok(None) => {}
            Err(problem) => self.sink.problem(problem),
        }
        self.read_renamed(now).await;
        let Some(tail) = &mut self.current else { return };
        match tail.read(&mut self.sink).await {
            Ok(_) if self.missing_since.is_none() => self.sink.well(),
            Ok(_) => {}
            Err(error) => {
                self.sink.problem(problem(&self.path, &error));
                tail.open_again(&self.path);
            }
        }
    }

    /// The file that has the name now, when it is another one than before.
    fn named(&mut self, now: UnixMicros) -> Result<Option<Tail>, String> {
        let found = match std::fs::metadata(&self.path) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound && self.current.is_some() => {
                let since = *self.missing_since.get_or_insert(now);
                let patient = now.since(since) < MISSING_FOR;
                return if patient { Ok(None) } else { Err(problem(&self.path, &error)) };
            }
            Err(error) => return Err(problem(&self.path, &error)),
        };
        self.missing_since = None;
        if self.current.as_ref().is_some_and(|current| current.id == id(&found)) {
            return Ok(None);
        }
        if !found.is_file() {
            let hint = "name the file that the worker writes its lines to";
            return Err(format!("read {}: it is no regular file; {hint}", self.path.display()));
        }
        let opened = Tail::open(&self.path, !self.rotated).map_err(|error| problem(&self.path, &error))?;
        Ok(Some(opened))
    }

    async fn change_to(&mut self, new: Tail, now: UnixMicros) {
        self.rotated = true;
        let Some(before) = self.current.replace(new) else { return };
        if let Some((mut oldest, _)) = self.renamed.replace((before, now)) {
            oldest.finish(&mut self.sink);
        }
    }

    async fn read_renamed(&mut self, now: UnixMicros) {
        let Some((tail, grew)) = &mut self.renamed else { return };
        match tail.read(&mut self.sink).await {
            Ok(bytes) if bytes > 0 => *grew = now,
            Ok(_) if now.since(*grew) < RENAMED_FOR => {}
            _ => {
                tail.finish(&mut self.sink);
                self.renamed = None;
            }
        }
    }
}

impl Tail {
    /// `back`: its end is read back; else it is new and read whole.
    fn open(path: &Path, back: bool) -> std::io::Result<Self> {
        // Opening a pipe would wait for its writer.
        let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
        let file = OpenOptions::new().read(true).custom_flags(nonblock).open(path)?;
        let found = file.metadata()?;
        let position = if back { found.len().saturating_sub(READ_BACK_BYTES) } else { 0 };
        let old = if back { Some(Old { zone: zone(&file, &found) }) } else { None };
        Ok(Self {
            file,
            id: id(&found),
            position,
            mark: Vec::new(),
            lines: Lines::default(),
            torn: position > 0,
            old,
        })
    }

    /// A server that came back knows no handle from before; the place of reading stays.
    fn open_again(&mut self, path: &Path) {
        if let Ok(fresh) = Self::open(path, false)
            && fresh.id == self.id
        {
            self.file = fresh.file;
        }
    }

    /// Reads to the end as it is now; how many bytes that were.
    async fn read(&mut self, sink: &mut Sink) -> std::io::Result<u64> {
        let length = self.file.metadata()?.len();
        if length < self.position || (length > self.position && !self.is_marked()?) {
            self.jump(0);
            self.torn = false;
        }
        if length - self.position > BEHIND_BYTES_MAX {
            self.jump(length - READ_BACK_BYTES);
            sink.skipped(clock::now());
        }
        let begin = self.position;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let count = self.file.read_at(&mut buffer, self.position)?;
            let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
            self.take(bytes, sink);
            sink.pace().await;
            // A writer that never rests must not keep the next file waiting.
            if self.position - begin > BEHIND_BYTES_MAX {
                break;
            }
        }
        self.old = None;
        Ok(self.position - begin)
    }

    fn take(&mut self, bytes: &[u8], sink: &mut Sink) {
        self.position = self.position.saturating_add(bytes.len() as u64);
        self.mark.extend_from_slice(bytes.get(bytes.len().saturating_sub(MARK_BYTES)..).unwrap_or_default());
        self.mark.drain(..self.mark.len().saturating_sub(MARK_BYTES));
        let mut bytes = bytes;
        if self.torn {
            let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return };
            bytes = bytes.get(end + 1..).unwrap_or_default();
            self.torn = false;
        }
        let (now, old) = (clock::now(), self.old);
        self.lines.take(bytes, |line, cut| {
            if cut {
                sink.line_cut();
            }
            sink.line(line, written_at(line, old, now), now);
        });
    }

    /// The last line of a file that nobody writes to any more needs no end.
    fn finish(&mut self, sink: &mut Sink) {
        let now = clock::now();
        self.lines.rest(|line, _| sink.line(line, Some(now), now));
    }

    fn jump(&mut self, to: u64) {
        self.position = to;
        self.mark.clear();
        self.lines.forget();
        self.torn = to > 0;
    }

    /// Whether the bytes before the position are still those that were read.
    fn is_marked(&self) -> std::io::Result<bool> {
        let mut now = vec![0; self.mark.len()];
        let at = self.position.saturating_sub(self.mark.len() as u64);
        match self.file.read_exact_at(&mut now, at) {
            Ok(()) => Ok(now == self.mark),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A line that was there before has the time that it says, and no time where it says none.
fn written_at(line: &str, old: Option<Old>, now: UnixMicros) -> Option<UnixMicros> {
    let Some(Old { zone }) = old else { return Some(now) };
    Stamp::find(line)?.instant(zone).filter(|at| *at <= now)
}

/// The zone of a file's lines, from its newest line that says a time.
fn zone(file: &File, found: &Metadata) -> Option<Zone> {
    let mut end = vec![0; READ_BYTES];
    let at = found.len().saturating_sub(READ_BYTES as u64);
    let count = file.read_at(&mut end, at).ok()?;
    let text = String::from_utf8_lossy(end.get(..count)?);
    let newest = text.lines().rev().find_map(Stamp::find)?;
    let changed = u64::try_from(found.mtime()).ok()?.checked_mul(1_000_000)?;
    Zone::of(newest, UnixMicros(changed))
}

fn id(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

fn problem(path: &Path, error: &std::io::Error) -> String {
    let hint = match error.kind() {
        ErrorKind::NotFound => "correct `file`, or start the worker that writes it",
        ErrorKind::PermissionDenied => "let the agent's user read it, for example by the group adm",
        _ => "look at its disk",
    };
    format!("read {}: {error}; {hint}", path.display())
}
