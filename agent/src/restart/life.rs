//! The life of a process that is not the agent's own. Takes a pid; tells its end as soon as the kernel
//! does, by a pidfd, which no later process of the same number can take over. Nothing is waited for
//! elsewhere.

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A process that lived when this was made.
#[derive(Debug)]
pub struct Life(AsyncFd<OwnedFd>);

impl Life {
    /// Watches a process; none when there is none of this number any more.
    ///
    /// # Errors
    /// When the kernel cannot watch it: too many open files, or a kernel before 5.3.
    pub fn of(pid: u32) -> io::Result<Option<Self>> {
        let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        match pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(fd) => registered(fd).map(Self).map(Some),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for its end; at once when it ended already. May be dropped and called again.
    pub async fn ended(&self) {
        // An error says that it can be watched no longer: the one who asks has to look for itself.
        drop(self.0.readable().await);
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe; an `OwnedFd` that nobody else has stays one descriptor"
)]
fn registered(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_a_process_is_told_and_a_number_without_one_is_none() {
        let mut child = std::process::Command::new("/bin/sh");
        let child = child.args(["-c", "read line"]).stdin(std::process::Stdio::piped()).spawn();
        let mut child = child.unwrap();
        let life = Life::of(child.id()).unwrap().unwrap();
        let soon = std::time::Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, life.ended()).await.is_err(), "it lives");
        drop(child.stdin.take());
        life.ended().await;
        child.wait().unwrap();
        assert!(Life::of(child.id()).unwrap().is_none());
        assert!(Life::of(0).unwrap().is_none());
    }
}
