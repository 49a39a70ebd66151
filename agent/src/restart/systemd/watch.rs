//! An eye on one process, whoever its parent is. Takes a pid; tells its end as soon as the kernel knows
//! of it, without systemd, and whether the kernel ended it for want of memory. Reads a small file or two.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::restart::processes;

/// One process that is watched.
#[derive(Debug)]
pub(super) struct Watch {
    pub pid: u32,
    /// When it was started, as systemd says; a pid alone may be used again.
    started_us: i64,
    eye: Eye,
    /// Processes of its cgroup that the kernel had ended for memory before.
    oom_kills: u64,
    oom: bool,
}

#[derive(Debug)]
enum Eye {
    Open(AsyncFd<OwnedFd>),
    /// It was gone before it could be watched.
    Gone,
    /// No file descriptor can be had: its end comes from systemd alone.
    Shut,
}

impl Watch {
    pub(super) fn over(pid: u32, started_us: i64, cgroup: &str) -> Self {
        Self {
            pid,
            started_us,
            eye: Eye::on(pid),
            oom_kills: oom_kills(cgroup).unwrap_or_default(),
            oom: false,
        }
    }

    /// Which process it is.
    pub(super) fn main(&self) -> (u32, i64) {
        (self.pid, self.started_us)
    }

    /// Waits for its end; for ever where that cannot be watched.
    pub(super) async fn ended(&self) {
        match &self.eye {
            // Level-triggered: a process that has ended stays so.
            Eye::Open(fd) if fd.readable().await.is_ok() => {}
            Eye::Gone => {}
            Eye::Open(_) | Eye::Shut => std::future::pending().await,
        }
    }

    /// Whether the kernel has ended a process of its cgroup for want of memory since; to be asked at once
    /// after its end. systemd removes the cgroup within a millisecond, so a no is not certain: its own
    /// `oom-kill` is, which it tells where the memory controller is of version 2.
    pub(super) fn memory_ran_out(&mut self, cgroup: &str) -> bool {
        self.oom |= oom_kills(cgroup).is_some_and(|now| now > self.oom_kills);
        self.oom
    }
}

impl Eye {
    fn on(pid: u32) -> Self {
        let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Self::Gone };
        match pidfd_open(number, PidfdFlags::NONBLOCK) {
            Ok(fd) => Self::of(fd).map_or(Self::Shut, Self::Open),
            Err(rustix::io::Errno::SRCH) => Self::Gone,
            Err(_) => Self::Shut,
        }
    }

    #[expect(deprecated, reason = "unsound only for types that change their descriptor; an OwnedFd cannot")]
    fn of(fd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
        AsyncFd::with_interest(fd, Interest::READABLE)
    }
}

/// Processes of a cgroup that the kernel ended for memory; version 2 of cgroups, then version 1.
fn oom_kills(cgroup: &str) -> Option<u64> {
    let relative = cgroup.trim_start_matches('/');
    let unified = processes::directory_of(cgroup).map(|directory| directory.join("memory.events"));
    let first = Path::new("/sys/fs/cgroup/memory").join(relative).join("memory.oom_control");
    unified.into_iter().chain([first]).find_map(|path| {
        let text = std::fs::read_to_string(path).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_any_process_is_seen_also_of_one_that_is_gone_already() {
        let mut child = std::process::Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        let watch = Watch::over(child.id(), 0, "/no/such");
        assert!(matches!(watch.eye, Eye::Open(_)));
        child.kill().unwrap();
        watch.ended().await;
        watch.ended().await;
        child.wait().unwrap();
        Watch::over(child.id(), 0, "/no/such").ended().await;
    }
}
