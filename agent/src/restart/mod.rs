//! Carries a start or a stop out: one trait, one file per kind of driver. Takes what the judge
//! decided; gives the new process, and tells of its end as soon as it is seen. The judge decides when
//! to start; nothing here restarts by itself. A driver is asked for one thing at a time.

pub mod child;
mod output;

use std::future::Future;
use std::time::Duration;

/// One worker in the hands of one kind of driver.
pub trait Driver: Send {
    /// Starts the worker; returns its process as soon as there is one, not when it is ready. It must
    /// return within seconds: exits and probes are not looked at meanwhile.
    ///
    /// # Errors
    /// When there is no process afterwards.
    fn start(&mut self) -> impl Future<Output = Result<u32, StartError>> + Send;

    /// Waits until the worker's process has ended; for ever while there is none. Each end is given
    /// once; dropping the future before it is done loses nothing.
    fn exited(&mut self) -> impl Future<Output = Exit> + Send;

    /// Ends the worker: asks it to, and takes it down after `grace`. Returns when it is gone.
    fn stop(&mut self, grace: Duration) -> impl Future<Output = ()> + Send;
}

/// The end of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The process.
    pub pid: u32,
    /// How it ended, for a person: `exit code 1`, `signal 9 (SIGKILL)`.
    pub reason: String,
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
}
