//! What a worker writes: takes its lines from whoever reads them (its pipe, its journal, its container's
//! log); keeps the newest for evidence, knows when one was heard last, and gives what was found in them.
//! Findings that nobody takes are dropped and counted; a worker that floods costs a bounded ring.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use diarwatch_shared::clock::UnixMicros;
use tokio::sync::Notify;

use crate::findings::{self, Finding};

/// Lines that are kept.
pub const LINES_MAX: usize = 256;
/// Bytes of one line that are kept.
pub const LINE_BYTES_MAX: usize = 1_024;
/// Findings that may wait.
pub const FINDINGS_WAITING_MAX: usize = 64;

/// What one worker writes; a clone is the same.
#[derive(Clone, Debug, Default)]
pub struct Words(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    heard: Mutex<Heard>,
    found: Notify,
}

#[derive(Debug, Default)]
struct Heard {
    lines: VecDeque<(UnixMicros, String)>,
    last: Option<UnixMicros>,
    findings: VecDeque<Finding>,
    findings_dropped: u64,
}

impl Words {
    /// A line, and when it was written; what it tells of trouble is a finding.
    pub fn put(&self, line: &str, at: UnixMicros) {
        self.keep(line, at);
        let Some(finding) = findings::find(line, at) else { return };
        let mut heard = self.lock();
        if heard.findings.len() >= FINDINGS_WAITING_MAX {
            heard.findings.pop_front();
            heard.findings_dropped = heard.findings_dropped.saturating_add(1);
        }
        heard.findings.push_back(finding);
        drop(heard);
        self.0.found.notify_one();
    }

    /// A line that is too old to be a finding, for evidence only.
    pub fn keep(&self, line: &str, at: UnixMicros) {
        let mut heard = self.lock();
        heard.last = heard.last.max(Some(at));
        if heard.lines.len() >= LINES_MAX {
            heard.lines.pop_front();
        }
        let kept = line.get(..line.floor_char_boundary(LINE_BYTES_MAX)).unwrap_or_default();
        heard.lines.push_back((at, kept.to_owned()));
    }

    /// The newest lines with their times, oldest first.
    #[must_use]
    pub fn newest(&self, lines: usize) -> Vec<(UnixMicros, String)> {
        let heard = self.lock();
        heard.lines.iter().skip(heard.lines.len().saturating_sub(lines)).cloned().collect()
    }

    /// When a line was written last.
    #[must_use]
    pub fn last(&self) -> Option<UnixMicros> {
        self.lock().last
    }

    /// Findings that nobody took in time.
    #[must_use]
    pub fn findings_dropped(&self) -> u64 {
        self.lock().findings_dropped
    }

    /// The next thing that was found; dropping the future loses nothing.
    pub async fn finding(&self) -> Finding {
        loop {
            let found = self.0.found.notified();
            if let Some(finding) = self.lock().findings.pop_front() {
                return finding;
            }
            found.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
