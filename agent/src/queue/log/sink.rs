//! Where the reader of a log gives its lines, and how it stands with the reading. The queue kind `log`
//! has one that matches and counts; whoever else wants a worker's lines has one of its own. Lines are
//! paced: a reader waits when a second has had its share.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use diarwatch_shared::clock::{self, UnixMicros};

use super::patterns::Patterns;
use super::tracker::{LineEvent, Step};
use super::{Board, LINES_PER_SECOND_MAX, lock};

/// Takes the lines of a log as they are read.
pub trait Take: Send {
    /// A line, with the time at which it was written where that is known.
    fn line(&mut self, text: &str, at: Option<UnixMicros>, now: UnixMicros);
    /// A line was longer than is kept; its begin was given, or nothing of it.
    fn line_cut(&mut self);
    /// The worker ended or started anew.
    fn restarted(&mut self, at: UnixMicros, now: UnixMicros);
    /// Lines were skipped.
    fn skipped(&mut self, now: UnixMicros);
    /// The log was read to its end, and it can be read.
    fn well(&mut self);
    /// The log cannot be read: what, where and how to mend it.
    fn problem(&mut self, problem: String);
    /// Waits while this second has had its lines; whether it had to.
    fn pace(&mut self) -> impl Future<Output = bool> + Send;
}

/// So many lines a second.
#[derive(Debug)]
pub struct Pace {
    lines_max: u32,
    second: u64,
    lines: u32,
}

impl Pace {
    /// At most `lines_max` a second.
    #[must_use]
    pub fn of(lines_max: u32) -> Self {
        Self { lines_max, second: 0, lines: 0 }
    }

    /// A line was taken.
    pub fn count(&mut self) {
        self.lines = self.lines.saturating_add(1);
    }

    /// How long to wait before the next; none while this second has room.
    pub fn rest(&mut self, uptime: Duration) -> Option<Duration> {
        if uptime.as_secs() != self.second {
            (self.second, self.lines) = (uptime.as_secs(), 0);
        }
        let full = self.lines >= self.lines_max;
        full.then(|| Duration::from_secs(self.second + 1).saturating_sub(uptime))
    }
}

/// The sink of the queue kind `log`: matches and counts.
pub struct Sink {
    board: Arc<Mutex<Board>>,
    patterns: Patterns,
    pace: Pace,
}

impl Sink {
    pub(super) fn new(board: Arc<Mutex<Board>>, patterns: Patterns) -> Self {
        Self { board, patterns, pace: Pace::of(LINES_PER_SECOND_MAX) }
    }

    /// The reader asks for something that may hang.
    pub fn asks(&mut self, now: UnixMicros) {
        lock(&self.board).asking_since = Some(now);
    }
}

impl Take for Sink {
    fn line(&mut self, text: &str, at: Option<UnixMicros>, now: UnixMicros) {
        self.pace.count();
        let event = self.patterns.read(text, at);
        let mut board = lock(&self.board);
        board.lines = board.lines.saturating_add(1);
        if let Some(event) = event {
            board.fits = board.fits.saturating_add(1);
            board.tracker.apply(&event, now);
        }
    }

    fn line_cut(&mut self) {
        lock(&self.board).lines_cut += 1;
    }

    fn restarted(&mut self, at: UnixMicros, now: UnixMicros) {
        let event = LineEvent {
            step: Step::Restarted,
            id: None,
            at: Some(at),
            took_seconds: None,
            audio_seconds: None,
        };
        lock(&self.board).tracker.apply(&event, now);
    }

    fn skipped(&mut self, now: UnixMicros) {
        let mut board = lock(&self.board);
        board.skips += 1;
        board.tracker.skipped(now);
    }

    fn well(&mut self) {
        let mut board = lock(&self.board);
        board.caught_up = true;
        board.problem = None;
        board.asking_since = None;
    }

    fn problem(&mut self, problem: String) {
        let mut board = lock(&self.board);
        board.asking_since = None;
        if board.problem.as_ref() != Some(&problem) {
            tracing::warn!("{problem}");
            board.problem = Some(problem);
        }
    }

    async fn pace(&mut self) -> bool {
        if let Some(since) = &mut lock(&self.board).asking_since {
            *since = clock::now();
        }
        let Some(rest) = self.pace.rest(clock::uptime()) else { return false };
        tokio::time::sleep(rest).await;
        true
    }
}
