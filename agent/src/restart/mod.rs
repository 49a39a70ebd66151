//! Carries a start or a stop out: one trait, one file per kind of driver. Takes what the judge decided;
//! gives the new process, and tells of its end as soon as it is seen. The judge decides when to start
//! and when to end; nothing here restarts by itself. A driver is asked for one thing at a time, but
//! news are waited for at the same time.
//!
//! What runs already is adopted, never touched: a worker belongs to systemd or Docker and outlives the
//! agent. Only the driver `child` has workers that end with it.

pub mod child;
pub mod docker;
pub mod life;
mod output;
pub mod processes;
pub mod systemd;

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

/// One worker in the hands of one kind of driver.
pub trait Driver: Send {
    /// What is there now. Asked first of all, and again after [`News::Lost`] as often as it fails;
    /// changes nothing.
    ///
    /// # Errors
    /// When whoever runs the worker does not answer, or does not know it: what, where, how to mend it.
    fn look(&mut self) -> impl Future<Output = Result<Found, String>> + Send;

    /// Starts the worker; returns its process as soon as there is one, not when it is ready. It must
    /// return within seconds: exits and probes are not looked at meanwhile.
    ///
    /// # Errors
    /// When there is no process afterwards.
    fn start(&mut self) -> impl Future<Output = Result<Process, StartError>> + Send;

    /// Waits until something happens to the worker; for ever while nothing does. Each thing is told
    /// once; dropping the future before it is done loses nothing.
    fn news(&mut self) -> impl Future<Output = News> + Send;

    /// Sends a signal, or has it sent. Nothing to send it to is no error.
    ///
    /// # Errors
    /// When it could not be sent: for a person.
    fn signal(&mut self, signal: Signal) -> impl Future<Output = Result<(), String>> + Send;

    /// Every process of the worker that is there now, zombies left out: of its cgroup where it has one,
    /// of its process group otherwise. At most [`PIDS_MAX`]. Reads a file or two; never waits.
    fn pids(&self) -> BTreeSet<u32>;

    /// The agent ends. A worker that lives on by itself is left alone; one that is the agent's own
    /// process is asked to end and taken down after `grace`.
    fn leave(&mut self, grace: Duration) -> impl Future<Output = ()> + Send;

    /// Whether the worker lives on when the agent ends.
    fn outlives_the_agent(&self) -> bool;
}

/// Processes of one worker that are looked at.
pub const PIDS_MAX: usize = 256;

/// What was found when the driver looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It runs.
    Running(Process),
    /// It does not.
    Stopped {
        /// How its last process ended, where that is known.
        exit: Option<Exit>,
    },
}

/// A process of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its first process.
    pub pid: u32,
    /// How long it runs already.
    pub age: Duration,
}

/// What happened to a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// It was started, by another than the agent: a person, a deploy, its own manager.
    Started(Process),
    /// Its process ended.
    Exited(Exit),
    /// Its manager's own check of it says so (a container's HEALTHCHECK).
    Health {
        /// Whether it is well.
        healthy: bool,
        /// What the check said.
        reason: String,
    },
    /// Whoever runs it does not answer any more; the judge decides nothing until `look` succeeds.
    Lost {
        /// Why, for a person.
        reason: String,
    },
}

/// The end of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// The process; 0 when it is not known any more.
    pub pid: u32,
    /// How it ended, for a person: `exit code 1`, `signal 9 (SIGKILL)`, `out of memory (cgroup limit)`.
    pub reason: String,
    /// Its exit code, if it had one.
    pub code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// Whether the kernel ended it for want of memory.
    pub oom: bool,
    /// Whether it left a core dump.
    pub core: bool,
    /// Whether a person or a deploy stopped it on purpose: it is left alone then.
    pub by_hand: bool,
    /// Whether its own manager is about to start it again by itself (`Restart=`, a restart policy);
    /// the judge may start it earlier.
    pub manager_restarts: bool,
}

/// What can be sent to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM to its first process: end your jobs, then yourself. The judge keeps the grace; whoever
    /// runs it must not kill it earlier.
    Terminate,
    /// A signal by number to its first process: write down where you are.
    Traceback(i32),
    /// SIGKILL to every process of it.
    Kill,
}

/// Why a worker could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The command is missing from the configuration.
    #[error("start: `command` is empty; write the program and its arguments")]
    NoCommand,
    /// The system did not run it.
    #[error("start `{program}`: {source}")]
    NotRun {
        /// The program.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It ended before its process could be named.
    #[error("start `{program}`: it ended at once")]
    GoneAtOnce {
        /// The program.
        program: String,
    },
    /// Whoever runs it refused, or did not answer.
    #[error("start {what}: {problem}")]
    Refused {
        /// The unit or the container.
        what: String,
        /// What is wrong and how to mend it.
        problem: String,
    },
}
