//! Leave of the fleet to stop a live worker: takes a wish, gives the aggregator's word, or says that the
//! agent is alone. Nobody waits longer than [`ANSWER_TIMEOUT`]; starting a dead worker needs no lease.

use std::time::Duration;

use diarwatch_shared::event::Cause;
use diarwatch_shared::node::WorkerId;

/// How long an aggregator may take to answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// A wish to stop a live worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Which.
    pub worker: WorkerId,
    /// Why.
    pub cause: Cause,
    /// Whether it takes jobs now: only then does the fleet's floor of capacity speak.
    pub ready: bool,
}

/// The answer to a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lease {
    /// It may be stopped; the lease is given back by its id once the worker is ready again, and ends by
    /// itself.
    Granted {
        /// Which lease.
        id: u64,
    },
    /// Not now.
    Denied {
        /// Why, for a person.
        reason: String,
        /// When to ask again.
        retry_after: Duration,
    },
    /// No aggregator answers: the agent's own budget counts.
    Alone,
}

/// Where leases are asked for; a clone is the same.
#[derive(Clone, Debug, Default)]
pub struct Leases;

impl Leases {
    /// Asks; answers within [`ANSWER_TIMEOUT`].
    pub async fn ask(&self, _wish: Wish) -> Lease {
        Lease::Alone
    }

    /// The worker is ready again, or was not stopped after all.
    pub fn give_back(&self, _id: u64) {}
}
