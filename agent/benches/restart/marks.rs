//! The worker that is killed, and the sign of life that it leaves. A worker writes its pid and the time of
//! its first line into a pipe with a name; gives both to who waits. The clock is the machine's, the same
//! for every process, also in a node. What does not come within [`PATIENCE`] fails the bench.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};

/// How long a new process may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Marks that wait to be taken.
const WAITING_MAX: usize = 64;
/// A pid and a time.
const BYTES: usize = 16;

/// The machine's time since its start.
pub(crate) fn now() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
}

/// The worker: tells when it began, and sleeps until it is killed.
pub(crate) fn leave(path: &str, began: Duration) -> ExitCode {
    let mut mark = [0; BYTES];
    mark[..4].copy_from_slice(&std::process::id().to_le_bytes());
    mark[8..].copy_from_slice(&u64::try_from(began.as_nanos()).unwrap_or_default().to_le_bytes());
    let written = OpenOptions::new().write(true).open(path).and_then(|mut pipe| pipe.write_all(&mark));
    if written.is_err() {
        return ExitCode::FAILURE;
    }
    loop {
        std::thread::park();
    }
}

/// The end of the pipe at which marks are read.
pub(crate) struct Marks(mpsc::Receiver<(u32, Duration)>);

impl Marks {
    /// Makes the pipe.
    pub(crate) fn at(path: &Path) -> Self {
        mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o622), 0).expect("a pipe with a name");
        // Open for both, so that it does not end while no worker has it open.
        let pipe = OpenOptions::new().read(true).write(true).open(path).expect("the pipe opens");
        let (marks, taken) = mpsc::sync_channel(WAITING_MAX);
        std::thread::spawn(move || read(pipe, &marks));
        Self(taken)
    }

    /// The next process and when it began.
    pub(crate) fn next(&self) -> (u32, Duration) {
        self.0.recv_timeout(PATIENCE).expect("a worker runs")
    }

    /// Kills a process; the next one, and how long that took.
    pub(crate) fn killed(&self, pid: u32) -> (u32, Duration) {
        let at = kill(pid);
        let (next, began) = self.next();
        assert_ne!(next, pid);
        (next, began.saturating_sub(at))
    }
}

fn read(mut pipe: File, marks: &mpsc::SyncSender<(u32, Duration)>) {
    let mut mark = [0; BYTES];
    while pipe.read_exact(&mut mark).is_ok() {
        let pid = u32::from_le_bytes(mark[..4].try_into().expect("4 bytes"));
        let nanos = u64::from_le_bytes(mark[8..].try_into().expect("8 bytes"));
        if marks.send((pid, Duration::from_nanos(nanos))).is_err() {
            return;
        }
    }
}

/// SIGKILL, and when it was sent.
pub(crate) fn kill(pid: u32) -> Duration {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid");
    let at = now();
    kill_process(number, Signal::KILL).expect("the worker is there to be killed");
    at
}
