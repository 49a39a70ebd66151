//! The aggregator's end of the control streams: leases out of [`lease`], intents out of
//! [`intents`], each node's line while it is connected.
//!
//! Takes messages of agents and wishes of people; gives answers. An intent is signed and on disk before it
//! goes to a line. A line that is full takes no intent: the person is told, nobody waits.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use diarwatch_shared::clock::{self, UnixMicros};
use diarwatch_shared::identity::{Signer, provider};
use diarwatch_shared::node::NodeId;
use diarwatch_shared::wire::control::{FromAgent, FromAggregator, Intent};
use diarwatch_shared::wire::intent::{hex, seal};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tracing::{error, info};

use crate::effect::InEffect;
use crate::intents::audit::Audit;
use crate::intents::{self, Book, Entry, Wish};
use crate::lease::{self, Answer, Ask, Fleet, Leases};
use crate::store::Store;
use crate::{StartError, computed};

/// Messages that may wait for a connection.
pub const LINE_MESSAGES_MAX: usize = 32;
/// Random bytes of an intent's id.
const ID_BYTES: usize = 16;

/// What the control streams share; a clone is the same.
#[derive(Clone, Debug)]
pub struct Control(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    effect: watch::Receiver<Arc<InEffect>>,
    signer: Signer,
    leases: Mutex<Leases>,
    book: Mutex<Book>,
    audit: Arc<Mutex<Audit>>,
    lines: Mutex<BTreeMap<NodeId, (u64, mpsc::Sender<FromAggregator>)>>,
    serial: AtomicU64,
}

/// The way to one connected agent, until it is dropped.
#[derive(Debug)]
pub struct Line {
    control: Control,
    node: NodeId,
    serial: u64,
    sender: mpsc::Sender<FromAggregator>,
    messages: mpsc::Receiver<FromAggregator>,
}

/// Why an intent is not on its way.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// Something of it cannot be.
    #[error("{0}")]
    Wish(String),
    /// Nobody knows the node.
    #[error("no node `{0}` is known; `diarwatch nodes` lists them")]
    Unknown(NodeId),
    /// The node is not there.
    #[error("node `{0}` is not connected; what is wanted of its workers has to be said on the node itself")]
    Away(NodeId),
    /// Too many wait.
    #[error("too many intents wait for their answer; try again")]
    Full,
    /// It could not be written down or signed, so it was not sent.
    #[error("the intent was not sent: {0}")]
    Failed(String),
}

/// Numbers for `/metrics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Leases.
    pub leases: lease::Counts,
    /// Intents.
    pub intents: intents::Counts,
}

impl Control {
    /// Over the store, with the key of the aggregator's certificate and the audit in its directory.
    ///
    /// # Errors
    /// When the audit cannot be opened: what is not written down is not ordered.
    pub fn open(
        store: Store,
        effect: watch::Receiver<Arc<InEffect>>,
        signer: Signer,
        directory: &Path,
    ) -> Result<Self, StartError> {
        let audit = Audit::open(directory).map_err(|source| StartError::Read {
            key: "[store] directory",
            path: directory.join("intents.log"),
            source,
            hint: "let the aggregator's user write it",
        })?;
        Ok(Self(Arc::new(Inner {
            store,
            effect,
            signer,
            leases: Mutex::new(Leases::new(clock::uptime())),
            book: Mutex::default(),
            audit: Arc::new(Mutex::new(audit)),
            lines: Mutex::default(),
            serial: AtomicU64::new(0),
        })))
    }

    /// A node's connection was greeted: what is for it goes here from now on.
    #[must_use]
    pub fn line(&self, node: &NodeId) -> Line {
        let (sender, messages) = mpsc::channel(LINE_MESSAGES_MAX);
        let serial = self.0.serial.fetch_add(1, Ordering::Relaxed);
        lock(&self.0.lines).insert(node.clone(), (serial, sender.clone()));
        Line { control: self.clone(), node: node.clone(), serial, sender, messages }
    }

    /// Takes a message of a node; gives the answer, if it wants one.
    pub async fn heard(&self, node: &NodeId, message: FromAgent) -> Option<FromAggregator> {
        match message {
            FromAgent::LeaseAsk { id, worker, cause, ready } => {
                Some(self.lease(node, &Ask { id, worker, cause, ready }))
            }
            FromAgent::LeaseReturn { id } => {
                lock(&self.0.leases).give_back(node, id);
                None
            }
            FromAgent::IntentDone { id, done, refused } => {
                self.answered(node, &id, done, refused).await;
                None
            }
            FromAgent::Hello { .. } | FromAgent::Unknown => None,
        }
    }

    fn lease(&self, node: &NodeId, ask: &Ask) -> FromAggregator {
        let timeout = self.0.effect.borrow().config.nodes.timeout.0;
        let now = clock::now();
        let fleet =
            self.0.store.read(|memory| Fleet::of(memory, &computed::sending(memory, timeout, now), now));
        let answer = lock(&self.0.leases).ask(node, ask, &fleet, clock::uptime());
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let (id, worker, cause) = (ask.id, &ask.worker, ask.cause);
        match answer {
            Answer::Granted(life) => {
                info!(%node, %worker, ?cause, "lease granted: the worker may be restarted");
                let granted_ms = Some(millis(life));
                FromAggregator::Lease { id, granted_ms, retry_after_ms: None, reason: None }
            }
            Answer::Denied { reason, retry_after } => {
                info!(%node, %worker, ?cause, reason, "lease denied: the worker has to wait");
                let retry_after_ms = Some(millis(retry_after));
                FromAggregator::Lease { id, granted_ms: None, retry_after_ms, reason: Some(reason) }
            }
        }
    }

    async fn answered(&self, node: &NodeId, id: &str, done: Option<String>, refused: Option<String>) {
        let now = clock::now();
        let Some(entry) = lock(&self.0.book).answered(node, id, done, refused, now) else { return };
        let Entry { worker, verb, by, outcome, detail, .. } = &entry;
        info!(%node, %worker, verb, by, ?outcome, detail, "intent is answered");
        let line = json!({ "at_us": now, "id": id, "node": node, "outcome": outcome, "detail": detail });
        if let Err(error) = self.write_down(line).await {
            error!(error, "the answer to an intent is not in the audit");
        }
    }

    /// Signs what an operator wants, writes it down and sends it; gives its id.
    ///
    /// # Errors
    /// Why it is not on its way.
    pub async fn order(&self, wish: Wish, by: &str) -> Result<String, OrderError> {
        let now = clock::now();
        let intent = wish.into_intent(new_id()?, by, now).map_err(OrderError::Wish)?;
        if !self.0.store.read(|memory| memory.nodes.contains_key(&intent.node)) {
            return Err(OrderError::Unknown(intent.node));
        }
        let away = || OrderError::Away(intent.node.clone());
        let line = lock(&self.0.lines).get(&intent.node).map(|(_, line)| line.clone()).ok_or_else(away)?;
        // Its place on the line is taken before it is written down: what is in the audit leaves.
        let place = line.try_reserve().map_err(|error| match error {
            mpsc::error::TrySendError::Full(()) => OrderError::Full,
            mpsc::error::TrySendError::Closed(()) => away(),
        })?;
        let message = seal(&intent, &self.0.signer).map_err(|error| OrderError::Failed(error.to_string()))?;
        if !lock(&self.0.book).take(&intent, now) {
            return Err(OrderError::Full);
        }
        self.record(&intent, now).await?;
        let Intent { id, node, worker, verb, reason, .. } = &intent;
        info!(%node, %worker, verb, by, reason, "intent is sent");
        place.send(message);
        Ok(id.clone())
    }

    async fn record(&self, intent: &Intent, now: UnixMicros) -> Result<(), OrderError> {
        let written = self.write_down(json!({ "at_us": now, "outcome": "sent", "intent": intent })).await;
        written.map_err(|problem| {
            let refused = Some(String::from("it could not be written down"));
            drop(lock(&self.0.book).answered(&intent.node, &intent.id, None, refused, now));
            error!(problem, "an intent cannot be written down and is not sent");
            OrderError::Failed(problem)
        })
    }

    async fn write_down(&self, line: Value) -> Result<(), String> {
        let audit = Arc::clone(&self.0.audit);
        let written = tokio::task::spawn_blocking(move || lock(&audit).append(&line)).await;
        written.map_err(|error| error.to_string())?.map_err(|error| format!("intents.log: {error}"))
    }

    /// The newest intents, the newest first.
    #[must_use]
    pub fn intents(&self) -> Vec<Entry> {
        lock(&self.0.book).entries(clock::now()).collect()
    }

    /// A wish was turned away at the door.
    pub fn rejected(&self) {
        lock(&self.0.book).rejected();
    }

    /// Numbers for `/metrics`.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut leases = lock(&self.0.leases);
        leases.expire(clock::uptime());
        Counts { leases: leases.counts(), intents: lock(&self.0.book).counts() }
    }
}

impl Line {
    /// The next message for this agent.
    pub async fn next(&mut self) -> Option<FromAggregator> {
        self.messages.recv().await
    }

    /// Where answers to this agent go.
    #[must_use]
    pub fn sender(&self) -> mpsc::Sender<FromAggregator> {
        self.sender.clone()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let mut lines = lock(&self.control.0.lines);
        // The place may be a newer connection's by now.
        if lines.get(&self.node).is_some_and(|(serial, _)| *serial == self.serial) {
            lines.remove(&self.node);
        }
    }
}

fn new_id() -> Result<String, OrderError> {
    let mut bytes = [0; ID_BYTES];
    let failed = |_| OrderError::Failed(String::from("the system gives no random numbers"));
    provider().secure_random.fill(&mut bytes).map_err(failed)?;
    Ok(hex(&bytes))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
