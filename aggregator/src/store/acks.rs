//! Acks on their way from the store to one connection's control stream.
//!
//! Takes what is durable; gives the newest of each epoch. When the control stream is slow, a later
//! ack of an epoch takes the place of the earlier one: none is lost and nothing grows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use diarwatch_shared::node::{Epoch, Seq};
use diarwatch_shared::wire::control::Durable;
use tokio::sync::Notify;

use super::NODE_EPOCHS_MAX;

/// Acks of one connection.
#[derive(Clone, Debug, Default)]
pub struct Acks {
    waiting: Arc<Mutex<BTreeMap<Epoch, Seq>>>,
    some: Arc<Notify>,
}

impl Acks {
    /// Puts an ack on its way; never waits.
    pub fn put(&self, durable: Durable) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.insert(durable.epoch, durable.next);
        if waiting.len() > NODE_EPOCHS_MAX {
            // The store forgets such an epoch as well.
            waiting.pop_first();
        }
        drop(waiting);
        self.some.notify_one();
    }

    /// Waits for acks and takes them, the newest of each epoch.
    pub async fn take(&self) -> Vec<Durable> {
        loop {
            let taken = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            if !taken.is_empty() {
                return taken.into_iter().map(|(epoch, next)| Durable { epoch, next }).collect();
            }
            self.some.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_ack_of_every_epoch_waits_and_nothing_grows() {
        let acks = Acks::default();
        for next in 0..1_000 {
            acks.put(Durable { epoch: Epoch(5), next });
        }
        acks.put(Durable { epoch: Epoch(4), next: 1 });
        let of = |epoch, next| Durable { epoch: Epoch(epoch), next };
        assert_eq!(acks.take().await, [of(4, 1), of(5, 999)]);
        (0..10_000).for_each(|epoch| acks.put(of(epoch, 1)));
        assert_eq!(acks.take().await.len(), NODE_EPOCHS_MAX);
    }
}
