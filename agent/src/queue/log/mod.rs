//! The queue kind `log`: a worker that keeps its jobs in memory and tells nothing else still logs
//! them. Takes the lines of a journal, a file or a container; gives what waits and is worked on, an
//! estimate (推定), and each job's end with its time.
//!
//! Each log has a thread of its own that reads, matches and counts; a look takes the numbers as they
//! are and waits for nothing. So a flood of lines, a pattern that is slow, or a file on a mount that
//! hangs costs no other queue its time. A reader that falls far behind skips lines, and the look says
//! for how long its numbers have a hole.

pub mod container;
pub mod file;
pub mod frames;
pub mod journal;
pub mod lines;
pub mod patterns;
pub mod sink;
pub mod stamp;
pub mod tracker;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use diarwatch_shared::backoff::Backoff;
use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::quantity::Span;
use diarwatch_shared::reading::Missing;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{Look, Source};
use crate::config::worker::Faults;
use patterns::Patterns;
use sink::Sink;
use tracker::{Counts, Tracker};

/// Lines a second that are looked at; a reader with more of them waits for the next second.
pub const LINES_PER_SECOND_MAX: u32 = 100_000;
/// A reader whose newest line is older than this skips what is between, counted and told.
pub const BEHIND_MAX: Duration = Duration::from_secs(60);
/// How long reading back may take before the log is followed without the rest.
pub const READ_BACK_TIMEOUT: Duration = Duration::from_secs(60);
/// From one try to the next when a journal or container does not answer.
pub(crate) const RETRY: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(15));
/// A file that was asked and has not answered for so long hangs.
const HANGS_AFTER: Duration = Duration::from_secs(5);
/// Lines of which none fits a pattern before that is told.
const LINES_WITHOUT_FIT_MAX: u64 = 1_000;
/// The shortest `forget_after`, in milliseconds.
const FORGET_AFTER_MS_MIN: u64 = 60_000;

/// A worker's log as a queue: `[queue.log]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// A systemd unit, such as `pyannote.service`. One of `journal`, `file` and `container` is needed.
    pub journal: Option<String>,
    /// A file, absolute; rotation by rename and by copy and truncate is followed.
    pub file: Option<PathBuf>,
    /// A container's name or id.
    pub container: Option<String>,
    /// The socket of the Docker Engine. Default: `/var/run/docker.sock`.
    #[serde(default = "docker_socket")]
    pub docker_socket: PathBuf,
    /// Fits the line of a job that was taken into the queue. Default: what waits is not known.
    pub accepted: Option<String>,
    /// Fits the line of a job that is begun. Default: what is worked on counts as waiting.
    pub started: Option<String>,
    /// Fits the line of a job that is done. No default.
    pub finished: String,
    /// Fits the line of a job that came to nothing. Default: none is known to fail.
    pub failed: Option<String>,
    /// Fits a line that only a worker that starts anew writes: what it had in memory is lost then, and
    /// counts as failed. Default: none; a journal and a container tell of it by themselves.
    pub restart: Option<String>,
    /// A job of which no line was seen for so long counts no more, a duration of at least a minute;
    /// default 6 hours.
    #[serde(default = "forget_after")]
    pub forget_after: Span,
    /// How far the log is read back at the start, a duration; default 1 hour. A file is read back by
    /// 4 MiB, however old they are.
    #[serde(default = "read_back")]
    pub read_back: Span,
}

impl LogConfig {
    pub(crate) fn check(&self, faults: &mut Faults) {
        Patterns::new(self, faults);
        let places = [self.journal.is_some(), self.file.is_some(), self.container.is_some()];
        if places.into_iter().filter(|given| *given).count() != 1 {
            let hint = "write one of journal, file and container: where the worker's lines are";
            faults.add("log", "it needs exactly one place to read from", hint);
        }
        if let Some(unit) = self.journal.as_ref().filter(|unit| !is_unit(unit)) {
            let hint = "write its whole name, such as pyannote.service; `systemctl list-units` prints it";
            faults.add("log.journal", format!("`{unit}` is not the name of a service or scope"), hint);
        }
        if let Some(name) = self.container.as_ref().filter(|name| !is_container(name)) {
            let hint = "write the name or id that `docker ps` prints";
            faults.add("log.container", format!("`{name}` is not the name of a container"), hint);
        }
        let paths = [("log.file", self.file.as_ref()), ("log.docker_socket", Some(&self.docker_socket))];
        for (field, path) in paths {
            if let Some(path) = path.filter(|path| !path.is_absolute()) {
                let problem = format!("`{}` is not an absolute path", path.display());
                faults.add(field, problem, "write it from / on, such as /var/log/pyannote.log");
            }
        }
        faults.at_least("log.forget_after", self.forget_after, FORGET_AFTER_MS_MIN);
    }
}

/// A worker's log, read by a thread of its own.
#[derive(Debug)]
pub struct Log {
    config: LogConfig,
    reader: Option<Reader>,
}

#[derive(Debug)]
struct Reader {
    board: Arc<Mutex<Board>>,
    thread: std::thread::JoinHandle<()>,
    /// Dropped with the source: the thread ends by it, and nobody waits for that.
    _stop: oneshot::Sender<()>,
}

impl Log {
    /// A source that reads nothing before its first look. A configuration that was not checked gives
    /// its fault with that look.
    #[must_use]
    pub fn new(config: LogConfig) -> Self {
        Self { config, reader: None }
    }

    fn reader(&mut self) -> Result<&Reader, String> {
        if self.reader.as_ref().is_some_and(|reader| reader.thread.is_finished()) {
            self.reader = None;
            tracing::error!("a reader of a log ended by a fault of the agent; it is started again");
        }
        match &mut self.reader {
            Some(reader) => Ok(reader),
            empty => Ok(empty.insert(start(&self.config)?)),
        }
    }
}

impl Source for Log {
    async fn look(&mut self, now: UnixMicros) -> Result<Look, String> {
        lock(&self.reader()?.board).look(now)
    }
}

fn start(config: &LogConfig) -> Result<Reader, String> {
    let mut faults = Faults::default();
    let patterns = Patterns::new(config, &mut faults);
    if let Some(fault) = faults.0.first() {
        return Err(fault.to_string());
    }
    let board = Arc::new(Mutex::new(Board::new(&patterns, config.forget_after.0)));
    let sink = Sink::new(Arc::clone(&board), patterns);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("start the reader of a log: {error}"))?;
    let (stop, stopped) = oneshot::channel();
    let config = config.clone();
    let read = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = stopped => {}
                () = follow(&config, sink) => {}
            }
        });
        // A read that hangs in the kernel must not hold up the end.
        runtime.shutdown_background();
    };
    let thread = std::thread::Builder::new().name(String::from("queue-log")).spawn(read);
    let thread = thread.map_err(|error| format!("start the reader of a log: {error}"))?;
    Ok(Reader { board, thread, _stop: stop })
}

/// Reads for ever, from the one place that is configured.
async fn follow(config: &LogConfig, sink: Sink) {
    if let Some(unit) = &config.journal {
        journal::follow(unit, journal::Back::Time(config.read_back.0), sink).await;
    } else if let Some(file) = &config.file {
        file::follow(file, sink).await;
    } else if let Some(name) = &config.container {
        container::follow(name, &config.docker_socket, config.read_back.0, sink).await;
    }
}

/// What the reader has found, for the next look.
#[derive(Debug)]
struct Board {
    tracker: Tracker,
    /// The log was read to its end once: before that the numbers are those of some time ago.
    caught_up: bool,
    /// Why nothing is read now.
    problem: Option<String>,
    /// When the reader asked for something that has not answered yet.
    asking_since: Option<UnixMicros>,
    lines: u64,
    /// Lines that one of the patterns fits.
    fits: u64,
    lines_cut: u64,
    skips: u64,
    /// What was last said in the log of it.
    told: (Counts, u64),
}

impl Board {
    fn new(patterns: &Patterns, forget_after: Duration) -> Self {
        let tracker = Tracker::new(patterns.sees(), forget_after);
        Self {
            tracker,
            caught_up: false,
            problem: None,
            asking_since: None,
            lines: 0,
            fits: 0,
            lines_cut: 0,
            skips: 0,
            told: Default::default(),
        }
    }

    fn look(&mut self, now: UnixMicros) -> Result<Look, String> {
        if let Some(problem) = &self.problem {
            return Err(problem.clone());
        }
        if let Some(since) = self.asking_since.filter(|since| now.since(*since) > HANGS_AFTER) {
            return Err(format!(
                "the log has not answered since {since}: is it on a mount that hangs? It is read on when it answers"
            ));
        }
        let doubt = self.doubt();
        // Before the log was read to its end, the jobs of some time ago are all that is known.
        if !self.caught_up || self.lines == 0 {
            let not_yet = Err(Missing::NotYet);
            let (waiting, processing, oldest_seconds) = (not_yet, not_yet, not_yet);
            return Ok(Look {
                waiting,
                processing,
                oldest_seconds,
                mean_seconds: not_yet,
                p95_seconds: not_yet,
                doubt,
                ..Look::default()
            });
        }
        let look = self.tracker.look(now);
        self.tell();
        Ok(Look { doubt, ..look })
    }

    /// What is doubtful about the numbers, in a sentence; none when nothing is known to be.
    fn doubt(&self) -> Option<String> {
        if !self.caught_up {
            return Some(String::from("the log is read back"));
        }
        if self.lines == 0 {
            return Some(String::from(
                "no line was seen yet: is the place right, and has the worker logged?",
            ));
        }
        if self.fits == 0 && self.lines >= LINES_WITHOUT_FIT_MAX {
            let lines = self.lines;
            return Some(format!("none of {lines} lines fits a pattern: compare the patterns with the log"));
        }
        let hole = self.tracker.hole()?;
        Some(format!(
            "at {hole} there were more lines or jobs than are taken in: a job that ended in those left out still counts"
        ))
    }

    /// Says in the log what was dropped since the last time.
    fn tell(&mut self) {
        let counts = self.tracker.counts();
        if self.told == (counts, self.skips) {
            return;
        }
        let new = |now: u64, before: u64| now.saturating_sub(before);
        let before = self.told.0;
        tracing::warn!(
            lost = new(counts.lost, before.lost),
            forgotten = new(counts.forgotten, before.forgotten),
            repeated = new(counts.repeated, before.repeated),
            not_taken = new(counts.not_taken, before.not_taken),
            ended_dropped = new(counts.ended_dropped, before.ended_dropped),
            skips = new(self.skips, self.told.1),
            "a log's queue is in doubt: jobs lost by a restart, forgotten, said twice or not taken in"
        );
        self.told = (counts, self.skips);
    }
}

fn lock(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A unit by its whole name: a pattern would mix the queues of several workers.
fn is_unit(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || ":-_.@\\".contains(c);
    let kinds = [".service", ".scope"];
    name.len() < 256
        && name.chars().all(fits)
        && kinds.iter().any(|kind| name.len() > kind.len() && name.ends_with(kind))
}

/// What stands in an address as it is.
fn is_container(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    name.len() < 256 && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(fits)
}

fn docker_socket() -> PathBuf {
    Path::new("/var/run/docker.sock").to_owned()
}

fn forget_after() -> Span {
    Span::secs(6 * 3_600)
}

fn read_back() -> Span {
    Span::secs(3_600)
}
