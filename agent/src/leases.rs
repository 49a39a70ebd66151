//! Leave of the fleet to stop a live worker: takes a wish, gives the aggregator's word, or says that the
//! agent is alone. Nobody waits longer than [`ANSWER_TIMEOUT`]; starting a dead worker needs no lease.

use std::time::Duration;

use diarwatch_shared::event::Cause;
use diarwatch_shared::node::WorkerId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::warn;

/// How long an aggregator may take to answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Questions and returns of all workers that may wait for the link's end of the channel.
pub const TALK_MAX: usize = 64;

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

/// What is said to the link's end.
#[derive(Debug)]
pub enum Talk {
    /// A question; who asked has gone when the other end of the answer is closed.
    Ask(Wish, oneshot::Sender<Lease>),
    /// A lease is not needed any more.
    GiveBack(u64),
}

/// Where leases are asked for; a clone is the same. The default has no link: it is always alone.
#[derive(Clone, Debug, Default)]
pub struct Leases(Option<mpsc::Sender<Talk>>);

impl Leases {
    /// With a link, and that link's end.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Talk>) {
        let (sender, receiver) = mpsc::channel(TALK_MAX);
        (Self(Some(sender)), receiver)
    }

    /// Asks; answers within [`ANSWER_TIMEOUT`]. Whoever stops waiting earlier needs to do nothing: a lease
    /// that comes then is given back.
    pub async fn ask(&self, wish: Wish) -> Lease {
        let (answer, answered) = oneshot::channel();
        let sent = self.0.as_ref().is_some_and(|link| link.try_send(Talk::Ask(wish, answer)).is_ok());
        if !sent {
            return Lease::Alone;
        }
        match timeout(ANSWER_TIMEOUT, answered).await {
            Ok(Ok(lease)) => lease,
            // Too late, or the link went down meanwhile.
            Ok(Err(_)) | Err(_) => Lease::Alone,
        }
    }

    /// The worker is ready again, or was not stopped after all.
    pub fn give_back(&self, id: u64) {
        let lost = self.0.as_ref().is_some_and(|link| link.try_send(Talk::GiveBack(id)).is_err());
        if lost {
            warn!(id, "a lease is not given back, too much waits for the link; it ends by itself");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish() -> Wish {
        Wish { worker: WorkerId::new("w").unwrap(), cause: Cause::Wedged, ready: true }
    }

    #[tokio::test]
    async fn without_a_link_the_agent_is_alone_at_once() {
        assert_eq!(Leases::default().ask(wish()).await, Lease::Alone);
        Leases::default().give_back(1);
        let (leases, receiver) = Leases::new();
        drop(receiver);
        assert_eq!(leases.ask(wish()).await, Lease::Alone);
    }

    #[tokio::test]
    async fn nobody_waits_longer_than_the_answer_may_take() {
        let (leases, mut receiver) = Leases::new();
        assert_eq!(leases.ask(wish()).await, Lease::Alone);
        let Some(Talk::Ask(_, answer)) = receiver.recv().await else { panic!("no question") };
        assert!(answer.is_closed());
        for _ in 0..TALK_MAX {
            leases.give_back(1);
        }
        assert_eq!(leases.ask(wish()).await, Lease::Alone, "a full channel keeps nobody");
    }
}
