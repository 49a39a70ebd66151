//! The agent's end of the control stream behind the hello: leases that are asked for, intents that come.
//!
//! Takes questions of the workers and messages of the aggregator; gives answers, and orders to the workers.
//! Knows no QUIC: the uplink lends it a [`Line`] while a connection stands. Without one a question is
//! answered at once (alone); returns and answers to intents wait, bounded, for the next. An intent is followed
//! only when `Intents` finds nothing against it, and is never a command line.

mod intents;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use diarwatch_shared::clock;
use diarwatch_shared::node::Epoch;
use diarwatch_shared::wire::control::{FromAgent, FromAggregator};
use rustls::pki_types::CertificateDer;
use serde_json::Value;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::board::{Board, FarClock};
use crate::leases::{Lease, Talk, Wish};
use crate::orders::{Order, Orders};
use intents::{Accepted, Intents, Seen};

/// Questions that may wait for an answer; one that passes its time is forgotten when there are more.
const ASKED_MAX: usize = 256;
/// Messages that may wait for the connection, or for the next one.
const OWED_MAX: usize = 128;
/// For a worker's task to answer an order after the order's own end.
const ORDER_WAIT: Duration = Duration::from_secs(10);
/// Characters of an answer that travel.
const ANSWER_CHARS_MAX: usize = 2_000;
/// An aggregator's retry is kept within this.
const RETRY_MAX: Duration = Duration::from_secs(600);

/// The agent's end; a clone is the same.
#[derive(Clone, Debug)]
pub struct Fleet(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    orders: Orders,
    board: Board,
    state: Mutex<State>,
    /// Something is owed.
    owes: Notify,
}

#[derive(Debug)]
struct State {
    /// The connection that stands, by its number.
    line: Option<u64>,
    lines: u64,
    next_id: u64,
    asked: BTreeMap<u64, oneshot::Sender<Lease>>,
    /// What is to be said; a question only while a connection stands.
    owed: VecDeque<FromAgent>,
    intents: Intents,
}

/// A connection as the fleet sees it, until it is dropped.
#[derive(Debug)]
pub struct Line {
    fleet: Fleet,
    number: u64,
    peer: CertificateDer<'static>,
    far: FarClock,
}

impl Fleet {
    /// Answers the workers' questions for as long as the agent runs. `epoch` is this run's: ids begin
    /// there, so that no former run had them.
    #[must_use]
    pub fn start(mut talk: mpsc::Receiver<Talk>, orders: Orders, board: Board, epoch: Epoch) -> Self {
        let state = State {
            line: None,
            lines: 0,
            next_id: epoch.0,
            asked: BTreeMap::new(),
            owed: VecDeque::new(),
            intents: Intents::new(clock::uptime()),
        };
        let fleet = Self(Arc::new(Inner { orders, board, state: Mutex::new(state), owes: Notify::new() }));
        let this = fleet.clone();
        tokio::spawn(async move {
            while let Some(said) = talk.recv().await {
                this.state().said(said);
                this.0.owes.notify_one();
            }
        });
        fleet
    }

    /// A connection stands, to whoever has this verified certificate and this clock.
    #[must_use]
    pub fn line(&self, peer: CertificateDer<'static>, far: FarClock) -> Line {
        let mut state = self.state();
        state.lines += 1;
        state.line = Some(state.lines);
        Line { fleet: self.clone(), number: state.lines, peer, far }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, message: FromAgent) {
        self.state().say(message);
        self.0.owes.notify_one();
    }

    fn done(&self, id: String, outcome: Result<String, String>) {
        let (done, refused) = match outcome {
            Ok(done) => (Some(cut(&done)), None),
            Err(refused) => (None, Some(cut(&refused))),
        };
        self.say(FromAgent::IntentDone { id, done, refused });
    }

    /// Puts the order and waits for its answer, not longer than it is good.
    async fn follow(self, accepted: Accepted) {
        let Accepted { intent, verb, not_after } = accepted;
        let by = format!("{} through the aggregator", intent.by);
        let (worker, now, reason) = (intent.worker.clone(), intent.now, intent.reason.clone());
        info!(%worker, ?verb, by, reason, "an order came through the aggregator");
        let (answer, answered) = oneshot::channel();
        let put = self.0.orders.put(Order { worker, verb, now, by, reason, not_after, answer });
        let wait = not_after.since(clock::now()).saturating_add(ORDER_WAIT);
        let outcome = match put {
            Err(refused) => Err(refused),
            Ok(()) => match timeout(wait, answered).await {
                Ok(Ok(answer)) => answer.map(|done| words(&done)),
                Ok(Err(_)) => Err(String::from("nobody on this node took the order")),
                Err(_) => Err(String::from("the worker's task did not answer in time; see its events")),
            },
        };
        if let Err(refused) = &outcome {
            warn!(worker = %intent.worker, ?verb, by = intent.by, refused, "the order is refused");
        }
        self.done(intent.id, outcome);
    }
}

impl Line {
    /// The next message for the aggregator, as a control record has it.
    pub async fn next(&self) -> Vec<u8> {
        loop {
            let owed = self.fleet.state().owed.pop_front();
            match owed {
                Some(message) => return serde_json::to_vec(&message).unwrap_or_default(),
                None => self.fleet.0.owes.notified().await,
            }
        }
    }

    /// Takes a message of the aggregator; what is not for the fleet is left alone. Never waits.
    pub fn heard(&self, message: FromAggregator) {
        match message {
            FromAggregator::Lease { id, granted_ms, retry_after_ms, reason } => {
                let lease = match granted_ms {
                    Some(_) => Lease::Granted { id },
                    None => Lease::Denied {
                        reason: cut(&reason.unwrap_or_default()),
                        retry_after: Duration::from_millis(retry_after_ms.unwrap_or_default())
                            .clamp(Duration::from_secs(1), RETRY_MAX),
                    },
                };
                let late = self.fleet.state().answered(id, lease);
                // Others need not wait for its end.
                if late {
                    self.fleet.say(FromAgent::LeaseReturn { id });
                }
            }
            FromAggregator::Intent { intent, signature } => self.intent(&intent, &signature),
            _ => {}
        }
    }

    fn intent(&self, text: &str, signature: &str) {
        let uptime = clock::uptime();
        let (node, known) = self.fleet.0.board.read(|board| {
            let known = board.workers.iter().map(|worker| worker.worker.clone()).collect();
            (board.node.clone(), known)
        });
        let seen = Seen { node, workers: known, uptime, now: clock::now(), far: self.far };
        let judged = self.fleet.state().intents.judge(text, signature, &self.peer, &seen);
        match judged {
            Ok(accepted) => drop(tokio::spawn(self.fleet.clone().follow(accepted))),
            Err(refused) => {
                warn!(id = refused.id, problem = refused.why, "an intent of the aggregator is refused");
                if let Some(id) = refused.id {
                    self.fleet.done(id, Err(refused.why));
                }
            }
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let mut state = self.fleet.state();
        if state.line == Some(self.number) {
            state.hung_up();
        }
    }
}

impl State {
    fn said(&mut self, said: Talk) {
        match said {
            Talk::Ask(wish, answer) => self.ask(wish, answer),
            Talk::GiveBack(id) => self.say(FromAgent::LeaseReturn { id }),
        }
    }

    fn ask(&mut self, wish: Wish, answer: oneshot::Sender<Lease>) {
        self.asked.retain(|_, answer| !answer.is_closed());
        let id = self.next_id;
        self.next_id = self.next_id.saturating_add(1);
        let message = FromAgent::LeaseAsk { id, worker: wish.worker, cause: wish.cause, ready: wish.ready };
        // A question is never kept for later: who asks is alone by then.
        if self.line.is_some() && self.asked.len() < ASKED_MAX && self.owed.len() < OWED_MAX {
            self.owed.push_back(message);
            self.asked.insert(id, answer);
        } else {
            drop(answer.send(Lease::Alone));
        }
    }

    /// Hands the answer to whoever asked; true when it is a lease that nobody waits for any more.
    fn answered(&mut self, id: u64, lease: Lease) -> bool {
        let granted = matches!(lease, Lease::Granted { .. });
        let taken = self.asked.remove(&id).is_some_and(|answer| answer.send(lease).is_ok());
        granted && !taken
    }

    fn say(&mut self, message: FromAgent) {
        if self.owed.len() >= OWED_MAX {
            self.owed.pop_front();
            warn!("too much waits for the aggregator: an answer or a lease is not given back");
        }
        self.owed.push_back(message);
    }

    /// Whoever waits for an answer of this connection is alone now, also if the answer was under way.
    fn hung_up(&mut self) {
        self.line = None;
        self.owed.retain(|message| !matches!(message, FromAgent::LeaseAsk { .. }));
        for (id, answer) in std::mem::take(&mut self.asked) {
            drop(answer.send(Lease::Alone));
            self.say(FromAgent::LeaseReturn { id });
        }
    }
}

/// What is done, for people.
fn words(done: &Value) -> String {
    done.as_str().map_or_else(|| done.to_string(), str::to_owned)
}

fn cut(text: &str) -> String {
    text.chars().take(ANSWER_CHARS_MAX).collect()
}
