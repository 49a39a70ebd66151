//! Leave to stop a live worker, for the whole fleet: (state, ask or return, fleet, now) to (state, answer).
//! Pure; nobody waits: who gets no lease is told why and when to ask again.
//!
//! - **How many.** At most `max(1, 10 %)` of the known workers at a time, and one per node. A lease ends when it
//!   is given back, and by itself after its one life, also when its node is silent; it is not made longer. It
//!   is the node's, not the connection's: an agent that comes back still has it.
//! - **The floor**, for a worker that is ready only: after the stop at least `min(80 %, all but one)` of the known
//!   workers are ready. So of three, two stay; of two, one. A fleet of one has no one else to serve in
//!   its place, so there is nothing to keep and it may be restarted. A worker that is not ready serves nobody:
//!   it is never refused because of the floor.
//! - **In turn.** Who was refused has a place in the queue while it asks again: those that are not ready first,
//!   then who asked first. So a worker that is not ready waits for those before it, not for luck.
//! - **After a start** nothing is known of leases that were given before it: for one life there is one lease at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::event::Cause;
use diarwatch_shared::node::{NodeId, WorkerId};

use crate::computed::PRESENT;
use crate::store::Memory;

/// How long a worker may be away by one lease: longer than the longest load, and a lease that nobody gives
/// back holds up the rest no longer.
pub const LIFE: Duration = Duration::from_secs(600);
/// When to ask again at the latest: a slot may be given back at any time.
pub const RETRY: Duration = Duration::from_secs(15);
/// Who has not asked again for so long has lost its place in the queue.
const PATIENCE: Duration = Duration::from_secs(45);
/// Places in the queue; who comes when it is full has none, and asks again all the same.
const WAITING_MAX: usize = 4_096;
/// The part of the known workers that may be away by lease at a time: one in so many.
const ONE_IN: usize = 10;
/// The part of the known workers that stays ready: so many of ten.
const FLOOR_OF_TEN: usize = 8;

/// A worker of the fleet.
pub type Place = (NodeId, WorkerId);

/// The question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Names the question, and the lease.
    pub id: u64,
    /// Which worker.
    pub worker: WorkerId,
    /// Why.
    pub cause: Cause,
    /// Whether it takes jobs now, as its agent sees it.
    pub ready: bool,
}

/// The workers as the store's newest values have them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    /// All of which anything was heard within the head's window, ready or not.
    pub known: BTreeSet<Place>,
    /// Those whose node sends and whose newest value says ready. No value is not ready.
    pub ready: BTreeSet<Place>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The worker may be stopped, and be away for so long.
    Granted(Duration),
    /// Not now.
    Denied {
        /// Why, for a person.
        reason: String,
        /// When to ask again.
        retry_after: Duration,
    },
}

/// What became of the questions, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Leases that are out.
    pub held: u64,
    /// Leases that were given.
    pub granted: u64,
    /// Questions that were refused.
    pub denied: u64,
    /// Leases that ended by themselves.
    pub expired: u64,
}

#[derive(Clone, Debug)]
struct Held {
    id: u64,
    worker: WorkerId,
    until: Duration,
}

#[derive(Clone, Debug)]
struct Waiting {
    /// False sorts first: who is not ready is before who is.
    rank: (bool, Duration),
    asked: Duration,
}

/// The leases that are out. Times are of a clock that never steps.
#[derive(Clone, Debug)]
pub struct Leases {
    started: Duration,
    held: BTreeMap<NodeId, Held>,
    waiting: BTreeMap<Place, Waiting>,
    counts: Counts,
}

impl Fleet {
    /// What memory says; `sending` are the nodes whose frames arrive.
    #[must_use]
    pub fn of(memory: &Memory, sending: &BTreeSet<String>, now: UnixMicros) -> Self {
        let mut fleet = Self::default();
        for node in memory.nodes.keys() {
            let place = |label: Option<&String>| Some((node.clone(), WorkerId::new(label?.as_str()).ok()?));
            for (key, _) in memory.head.newest_readings(node, "worker_ready", i64::MIN) {
                fleet.known.extend(place(key.labels.get("worker")));
            }
            let present = now.minus(PRESENT).as_millis();
            let since = if sending.contains(node.as_str()) { present } else { i64::MAX };
            let ready = memory.head.newest(node, "worker_ready", since).filter(|(_, ready)| *ready > 0.0);
            fleet.ready.extend(ready.filter_map(|(key, _)| place(key.labels.get("worker"))));
        }
        fleet
    }
}

impl Leases {
    /// Of an aggregator that starts now.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Self { started: now, held: BTreeMap::new(), waiting: BTreeMap::new(), counts: Counts::default() }
    }

    /// Answers a question of a node.
    pub fn ask(&mut self, node: &NodeId, ask: &Ask, fleet: &Fleet, now: Duration) -> Answer {
        self.expire(now);
        if let Some(held) = self.held.get_mut(node).filter(|held| held.worker == ask.worker) {
            // The agent lost the answer, or itself: the same lease, no longer than it was.
            held.id = ask.id;
            return Answer::Granted(held.until.saturating_sub(now));
        }
        let place = (node.clone(), ask.worker.clone());
        match self.obstacle(&place, ask.ready, fleet, now) {
            None => {
                self.waiting.remove(&place);
                let held = Held { id: ask.id, worker: ask.worker.clone(), until: now.saturating_add(LIFE) };
                self.held.insert(node.clone(), held);
                self.counts.granted += 1;
                Answer::Granted(LIFE)
            }
            Some(reason) => {
                self.wait(place, ask.ready, now);
                self.counts.denied += 1;
                Answer::Denied { reason, retry_after: self.retry_after(now) }
            }
        }
    }

    /// The worker is back, or was not stopped. What is not held is no fault: it may have ended by itself.
    pub fn give_back(&mut self, node: &NodeId, id: u64) {
        if self.held.get(node).is_some_and(|held| held.id == id) {
            self.held.remove(node);
        }
    }

    /// Ends what is over: leases, and places of those who do not ask any more.
    pub fn expire(&mut self, now: Duration) {
        let before = self.held.len();
        self.held.retain(|_, held| held.until > now);
        self.counts.expired += (before - self.held.len()) as u64;
        self.waiting.retain(|_, waiting| now.saturating_sub(waiting.asked) < PATIENCE);
    }

    /// What became of the questions.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts { held: self.held.len() as u64, ..self.counts }
    }

    /// Why there is no lease for it, if there is none.
    fn obstacle(&self, place: &Place, ready: bool, fleet: &Fleet, now: Duration) -> Option<String> {
        if let Some(held) = self.held.get(&place.0) {
            return Some(format!("worker `{}` of this node is being restarted", held.worker));
        }
        let mut known = fleet.known.len();
        known += usize::from(!fleet.known.contains(place));
        if ready && let Some(reason) = self.below_floor(place, known, fleet) {
            return Some(reason);
        }
        let limit = if now.saturating_sub(self.started) < LIFE { 1 } else { limit(known) };
        let free = limit.saturating_sub(self.held.len());
        if free == 0 {
            let list: Vec<String> =
                self.held.iter().map(|(node, held)| format!("{node}/{}", held.worker)).collect();
            let some = list.get(..list.len().min(3)).unwrap_or_default().join(", ");
            return Some(format!(
                "{} of {limit} restarts that may be under way in the fleet are: {some}",
                self.held.len()
            ));
        }
        let before = self.before(place, ready, now);
        (before >= free).then(|| format!("others wait to restart a worker before it: {before} nodes"))
    }

    /// Whether too few would be ready without it. What is away by a lease does not count as ready, though
    /// the newest value of it may still say so.
    fn below_floor(&self, place: &Place, known: usize, fleet: &Fleet) -> Option<String> {
        let leased = |(node, worker): &Place| self.held.get(node).is_some_and(|held| held.worker == *worker);
        let after = fleet.ready.iter().filter(|other| *other != place && !leased(other)).count();
        let floor = floor(known);
        (after < floor)
            .then(|| format!("without it {after} of {known} workers would be ready, and {floor} have to be"))
    }

    /// Nodes that come first. Only those that could have a lease now: one per node, and none twice.
    fn before(&self, place: &Place, ready: bool, now: Duration) -> usize {
        let since = self.waiting.get(place).map_or(now, |waiting| waiting.rank.1);
        let rank = (ready, since);
        let first = |(other, waiting): &(&Place, &Waiting)| {
            (waiting.rank, *other) < (rank, place) && *other != place && !self.held.contains_key(&other.0)
        };
        let nodes: BTreeSet<&NodeId> = self.waiting.iter().filter(first).map(|((node, _), _)| node).collect();
        nodes.len()
    }

    fn wait(&mut self, place: Place, ready: bool, now: Duration) {
        let room = self.waiting.len() < WAITING_MAX;
        if let Some(waiting) = self.waiting.get_mut(&place) {
            waiting.rank.0 = ready;
            waiting.asked = now;
        } else if room {
            self.waiting.insert(place, Waiting { rank: (ready, now), asked: now });
        }
    }

    /// When the first lease ends by itself, or earlier: it may be given back.
    fn retry_after(&self, now: Duration) -> Duration {
        let first = self.held.values().map(|held| held.until.saturating_sub(now)).min();
        first.unwrap_or(RETRY).clamp(Duration::from_secs(1), RETRY)
    }
}

/// How many of so many workers may be away by lease at a time.
fn limit(known: usize) -> usize {
    (known / ONE_IN).max(1)
}

/// How many of so many workers have to be ready without the one that is asked for.
fn floor(known: usize) -> usize {
    (known * FLOOR_OF_TEN).div_ceil(10).min(known.saturating_sub(1))
}

#[cfg(test)]
mod tests;
