//! What the judge takes and gives: words alone.

use std::time::Duration;

use diarwatch_shared::event::{Cause, What};
use serde_json::Value;

use super::ladder::Deed;
use super::progress::Views;
use crate::leases::Lease;
use crate::orders::Verb;
use crate::probe::Verdict;
use crate::restart::{Exit, Found, Process};

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The agent began to look after the worker.
    AgentStarted,
    /// The driver looked.
    Found(Found),
    /// The driver could not look, or whoever runs the worker is gone; nothing is decided until it looks again.
    Blind {
        /// Why, for a person.
        reason: String,
    },
    /// The worker's process started at our wish.
    Started(Process),
    /// It started at another's wish: a person, a deploy, its manager.
    StartedByOther(Process),
    /// The driver could not start it.
    StartFailed {
        /// Why, for a person.
        reason: String,
    },
    /// The worker's process ended.
    Exited(Exit),
    /// Its manager's own check says so.
    Checked {
        /// Whether it is well.
        healthy: bool,
        /// What the check said.
        reason: String,
    },
    /// A probe came to its end.
    Probed {
        /// The process that lived when the probe began; an answer to an earlier one tells nothing.
        pid: u32,
        /// What it found.
        verdict: Verdict,
    },
    /// A look from outside; about once a second.
    Seen(Views),
    /// It wrote of trouble, or the GPU driver told of it.
    Trouble(Trouble),
    /// A deed came to its end.
    Done {
        /// Which.
        deed: Deed,
        /// How: for a job made up for it, how long that took.
        result: Result<Duration, String>,
    },
    /// The fleet's answer.
    Leased(Lease),
    /// What a person wants.
    Ordered(Wanted),
    /// Time passed.
    Tick,
}

/// What a person wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What.
    pub verb: Verb,
    /// Not even drained.
    pub now: bool,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
}

/// Trouble that somebody wrote or told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// In a word: `cuda_out_of_memory`, `token`, `xid_79`.
    pub name: String,
    /// What follows from it.
    pub calls_for: CallsFor,
    /// How long ago it was written.
    pub age: Duration,
    /// What was read, for a person.
    pub text: String,
}

/// What follows from trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallsFor {
    /// Nothing but telling.
    Telling,
    /// A restart when it comes often: the worker lives on after it.
    RestartWhenOften(Cause),
    /// A restart: nothing works in this process any more.
    Restart(Cause),
    /// It says why a start comes to nothing.
    Naming,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Have the driver look; again after a while when it cannot.
    Look,
    /// Start the worker's process.
    Start,
    /// A step of a stop or of a proof; its end is an input.
    Do(Deed),
    /// Ask the fleet for leave to stop it.
    AskLease {
        /// Why.
        cause: Cause,
    },
    /// Give a lease back.
    ReturnLease {
        /// Which.
        id: u64,
    },
    /// A process is no more: list its jobs, gather the evidence. Comes before the restart.
    Ended {
        /// The process and how it ended.
        exit: Exit,
        /// Why.
        cause: Cause,
        /// What was decided and why, for a person.
        reason: String,
    },
    /// The answer to a person.
    Answer(Result<Value, String>),
    /// Tell what happened.
    Emit(What),
    /// What outlives the agent has changed.
    Save,
}
