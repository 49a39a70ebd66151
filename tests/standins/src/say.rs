//! Lines on stdout: takes them from the stand-ins, writes them in a thread of its own, so that a
//! reader who does not read never stops a stand-in. Lines that find the queue full are dropped and
//! their number is said with the next one.

use std::io::Write;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// Lines that wait for stdout.
const LINES_MAX: usize = 256;
/// Characters of a line; the rest is cut off.
const LINE_CHARS_MAX: usize = 1_000;
/// How often, and how long each time, a process that ends looks whether its lines are written.
const FLUSH_LOOKS: u32 = 200;
const FLUSH_STEP: Duration = Duration::from_millis(5);

static DROPPED: AtomicU64 = AtomicU64::new(0);
static UNWRITTEN: AtomicU64 = AtomicU64::new(0);
static QUEUE: LazyLock<SyncSender<String>> = LazyLock::new(|| {
    let (sender, receiver) = sync_channel(LINES_MAX);
    // Without a thread nobody receives, and every line counts as dropped.
    drop(std::thread::Builder::new().name("stdout".into()).spawn(move || write_lines(&receiver)));
    sender
});

/// Says one line; what would break the line or move the cursor is replaced.
pub(crate) fn say(text: &str) {
    UNWRITTEN.fetch_add(1, Ordering::Relaxed);
    if QUEUE.try_send(one_line(text)).is_err() {
        UNWRITTEN.fetch_sub(1, Ordering::Relaxed);
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits a while for the lines that were said: the process ends, and its writer with it.
pub(crate) fn flush() {
    for _ in 0..FLUSH_LOOKS {
        if UNWRITTEN.load(Ordering::Relaxed) == 0 {
            return;
        }
        std::thread::sleep(FLUSH_STEP);
    }
}

fn write_lines(lines: &Receiver<String>) {
    let mut stdout = std::io::stdout();
    while let Ok(line) = lines.recv() {
        let dropped = DROPPED.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            drop(writeln!(stdout, "({dropped} lines dropped)"));
        }
        drop(writeln!(stdout, "{line}").and_then(|()| stdout.flush()));
        UNWRITTEN.fetch_sub(1, Ordering::Relaxed);
    }
}

fn one_line(text: &str) -> String {
    let printable = |c: char| match c {
        '\n' => '⏎',
        c if c.is_control() => ' ',
        c => c,
    };
    text.chars().take(LINE_CHARS_MAX).map(printable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_several_lines_is_said_in_one_without_control_characters() {
        assert_eq!(one_line("異常\r\n\u{1b}[31m復旧"), "異常 ⏎ [31m復旧");
        assert_eq!(one_line(&"x".repeat(5_000)).len(), LINE_CHARS_MAX);
    }
}
