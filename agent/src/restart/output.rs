//! What a worker writes: takes the bytes of its stdout or stderr, gives lines to the log with the
//! fields `worker` and `stream`. Lines are bounded in length and rate; what is cut or dropped is
//! counted and told, so a worker that floods its output costs neither memory nor the host's log, and
//! never waits for a reader.

use std::time::Duration;

use diarwatch_shared::clock;
use diarwatch_shared::node::WorkerId;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::masking::mask;
use crate::words::Words;

/// Bytes of one line that are kept; the rest of the line is dropped and counted.
pub(super) const LINE_BYTES_MAX: usize = 4 * 1024;
/// Lines per second and stream that are passed on; more are dropped and counted.
pub(super) const LINES_PER_SECOND_MAX: u32 = 200;
/// Bytes taken from a pipe at once.
const READ_BYTES: usize = 8 * 1024;

/// Passes a stream on to the log until it ends, and to whoever listens for findings.
pub(super) async fn relay(
    mut from: impl AsyncRead + Unpin,
    worker: WorkerId,
    stream: &'static str,
    words: Words,
) {
    let mut buffer = vec![0; READ_BYTES];
    let mut lines = Lines::default();
    let mut gate = Gate::default();
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let now = clock::uptime();
        for line in lines.take(buffer.get(..count).unwrap_or_default()) {
            words.put(&line.text, clock::now());
            write(&line, &mut gate, now, &worker, stream);
        }
    }
    if let Some(line) = lines.rest() {
        words.put(&line.text, clock::now());
        write(&line, &mut gate, clock::uptime(), &worker, stream);
    }
    tell_dropped(gate.dropped, &worker, stream);
}

fn write(line: &Line, gate: &mut Gate, now: Duration, worker: &WorkerId, stream: &'static str) {
    let (passes, dropped) = gate.admit(now);
    tell_dropped(dropped, worker, stream);
    if !passes {
        return;
    }
    if line.cut_bytes == 0 {
        tracing::info!(target: "worker", %worker, stream, "{}", mask(&line.text));
    } else {
        tracing::info!(target: "worker", %worker, stream, cut_bytes = line.cut_bytes, "{}", mask(&line.text));
    }
}

fn tell_dropped(lines: u64, worker: &WorkerId, stream: &'static str) {
    if lines > 0 {
        tracing::warn!(
            target: "worker", %worker, stream, lines_dropped = lines,
            "{lines} lines were dropped: the worker writes more than {LINES_PER_SECOND_MAX} a second"
        );
    }
}

/// One line of output.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    text: String,
    /// Bytes of it that were dropped.
    cut_bytes: usize,
}

/// Bytes to lines.
#[derive(Default)]
struct Lines {
    kept: Vec<u8>,
    cut_bytes: usize,
}

impl Lines {
    /// The lines that these bytes complete.
    fn take(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut done = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            let room = LINE_BYTES_MAX.saturating_sub(self.kept.len()).min(text.len());
            let (keep, cut) = text.split_at_checked(room).unwrap_or((text, &[]));
            self.kept.extend_from_slice(keep);
            self.cut_bytes = self.cut_bytes.saturating_add(cut.len());
            if ended {
                done.extend(self.rest());
            }
        }
        done
    }

    /// The line under way; none when it has no text.
    fn rest(&mut self) -> Option<Line> {
        let kept = std::mem::take(&mut self.kept);
        let cut_bytes = std::mem::take(&mut self.cut_bytes);
        // A worker's colours and cursor movements must not reach the terminal of who reads the log.
        let text = String::from_utf8_lossy(&kept)
            .trim_end()
            .chars()
            .map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c })
            .collect::<String>();
        (!text.is_empty()).then_some(Line { text, cut_bytes })
    }
}

/// So many a second, by whole seconds of uptime.
#[derive(Default)]
struct Gate {
    second: u64,
    passed: u32,
    dropped: u64,
}

impl Gate {
    /// Whether a line passes now, and how many the second before dropped.
    fn admit(&mut self, now: Duration) -> (bool, u64) {
        let mut dropped_before = 0;
        if now.as_secs() != self.second {
            dropped_before = self.dropped;
            *self = Self { second: now.as_secs(), passed: 0, dropped: 0 };
        }
        let passes = self.passed < LINES_PER_SECOND_MAX;
        if passes {
            self.passed += 1;
        } else {
            self.dropped = self.dropped.saturating_add(1);
        }
        (passes, dropped_before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(text: &str) -> Line {
        Line { text: text.into(), cut_bytes: 0 }
    }

    #[test]
    fn lines_are_whole_however_the_pipe_cuts_them() {
        let mut lines = Lines::default();
        assert_eq!(lines.take("話者".as_bytes().split_at(2).0), []);
        assert_eq!(lines.take("話者".as_bytes().split_at(2).1), []);
        assert_eq!(lines.take(b" A\r\n\nnext\nre"), [line("話者 A"), line("next")]);
        assert_eq!(lines.rest(), Some(line("re")));
        assert_eq!(lines.rest(), None);
    }

    #[test]
    fn colours_do_not_reach_a_terminal() {
        assert_eq!(Lines::default().take(b"\x1b[31mred\n"), [line("\u{fffd}[31mred")]);
    }

    #[test]
    fn a_flood_is_dropped_and_counted_once_its_second_is_over() {
        let mut gate = Gate::default();
        let at = Duration::from_secs(7);
        let passed = (0..1_000).filter(|_| gate.admit(at).0).count();
        assert_eq!(passed, 200);
        assert_eq!(gate.admit(Duration::from_secs(8)), (true, 800));
        assert_eq!(gate.admit(Duration::from_secs(9)), (true, 0));
    }

    proptest! {
        #[test]
        fn no_output_makes_a_line_longer_than_its_limit(
            parts in proptest::collection::vec((any::<u8>(), 0_usize..9_000), 0..8)
        ) {
            let mut lines = Lines::default();
            for (byte, count) in parts {
                for line in lines.take(&vec![byte; count]) {
                    // Lossy decoding and masking give up to three bytes for one.
                    prop_assert!(line.text.len() <= 3 * LINE_BYTES_MAX);
                }
                prop_assert!(lines.kept.len() <= LINE_BYTES_MAX);
            }
        }
    }
}
