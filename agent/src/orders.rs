//! What a person wants of a worker, however it came: over the agent's socket or, signed, through the
//! aggregator. Takes an [`Order`]; the worker's own task answers it. Orders that find no room are refused.

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::node::WorkerId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

/// Orders of all workers that may wait.
pub const ORDERS_MAX: usize = 64;

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Stop it by the ladder and start it again; start it if it does not run.
    Restart,
    /// Take it out of the balancer and let it end its jobs; it goes on running.
    Drain,
    /// Put it back after a drain.
    Resume,
    /// The judge touches it no more, until it is released.
    Hold,
    /// The judge looks after it again.
    Release,
}

/// One order.
#[derive(Debug)]
pub struct Order {
    /// Of which worker.
    pub worker: WorkerId,
    /// What.
    pub verb: Verb,
    /// Not even drained: jobs under way are given up (only for a restart).
    pub now: bool,
    /// Who wants it, for the audit: `uid 1000 (alice)`, `alice through the aggregator`.
    pub by: String,
    /// Why, in the words of that person.
    pub reason: Option<String>,
    /// After this it is refused.
    pub not_after: UnixMicros,
    /// The answer: what is done now, or why nothing is.
    pub answer: oneshot::Sender<Result<Value, String>>,
}

/// Where orders are put; a clone is the same.
#[derive(Clone, Debug)]
pub struct Orders(mpsc::Sender<Order>);

impl Orders {
    /// A place for orders, and where the workers take them from.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Order>) {
        let (sender, receiver) = mpsc::channel(ORDERS_MAX);
        (Self(sender), receiver)
    }

    /// Puts an order; its answer comes on its own channel.
    ///
    /// # Errors
    /// When too many wait, or the agent ends.
    pub fn put(&self, order: Order) -> Result<(), String> {
        self.0.try_send(order).map_err(|_| {
            format!("more than {ORDERS_MAX} orders wait for the workers of this node; try again")
        })
    }
}
