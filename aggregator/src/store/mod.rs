//! The store stage: one task owns what is durable and what is in memory.
//!
//! Takes checked frames from intake through a bounded queue; gives acks when they are on disk, and
//! wakes the rules. A duplicate falls before it is written. When the disk is slow the queue fills,
//! intake stops reading and QUIC flow control stops the agents. Readers share [`Memory`] behind a lock.

mod acks;
mod content;
mod cursor;
pub mod head;
mod memory;
mod schemas;
mod segments;
mod snapshot;
mod task;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::node::{Epoch, NodeId};
use diarwatch_shared::schema::{Schema, SchemaId};
use diarwatch_shared::wire::control::Durable;
use diarwatch_shared::wire::v1::{self, Header};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tracing::info;

use crate::config::StoreConfig;
pub use acks::Acks;
pub use content::Content;
use cursor::{Cursor, Verdict};
use memory::Arrived;
pub use memory::{Memory, NodeState, StoredEvent};
pub use schemas::NODE_SCHEMAS_MAX;
use schemas::Schemas;
pub use segments::StoreError;
use segments::{Record, Segments};
use snapshot::Snapshot;
use task::Task;

/// Requests that may wait for the store's task.
const REQUESTS_MAX: usize = 1_024;
/// Epochs remembered per node; the oldest are forgotten.
const NODE_EPOCHS_MAX: usize = 512;
/// Decoded values that may wait for the store's task, over all nodes: 16 bytes each. A frame of 64
/// KiB may hold 262,144 of them.
const VALUES_WAITING_MAX: usize = 4 << 20;

/// A request to the store's task.
#[derive(Debug)]
pub enum Request {
    /// A checked frame.
    Frame {
        /// From whom, by certificate.
        node: NodeId,
        /// When it arrived.
        arrived: UnixMicros,
        /// Whether it came as it was made; the backlog is history.
        live: bool,
        /// Its header.
        header: Header,
        /// What it holds.
        content: Content,
        /// As it came.
        bytes: Vec<u8>,
        /// Where its ack goes.
        ack: Acks,
        /// Its place among the values that wait.
        room: Option<OwnedSemaphorePermit>,
    },
    /// Keep a schema; answered when it is durable, or with why it is not kept.
    Schema {
        /// From whom.
        node: NodeId,
        /// Its id.
        id: SchemaId,
        /// Its bytes.
        bytes: Vec<u8>,
        /// The answer.
        done: oneshot::Sender<Result<(), String>>,
    },
    /// What is durable of these epochs.
    Durable {
        /// The node.
        node: NodeId,
        /// The epochs.
        epochs: Vec<Epoch>,
        /// The answer.
        answer: oneshot::Sender<Vec<Durable>>,
    },
}

/// The way to the store.
#[derive(Clone, Debug)]
pub struct Store {
    requests: mpsc::Sender<Request>,
    memory: Arc<RwLock<Memory>>,
    arrivals: Arc<Notify>,
    room: Arc<Semaphore>,
}

impl Store {
    /// Opens the store and starts its task.
    ///
    /// # Errors
    /// When the directory cannot be read or written.
    pub fn start(config: &StoreConfig, expected: &[NodeId], now: UnixMicros) -> Result<Self, StoreError> {
        let mut keeper = Keeper {
            config: config.clone(),
            cursors: BTreeMap::new(),
            memory: Memory::new(config.head_window.0, expected),
            begun: Snapshot::default(),
            fault: None,
        };
        let mut schemas = BTreeMap::new();
        let replay_from = now.minus(config.head_window.0);
        let segments = Segments::open(&config.directory, replay_from, now, |record| {
            keeper.replay(record, &mut schemas);
        })?;
        let Keeper { cursors, mut memory, fault, config, .. } = keeper;
        if let Some(why) = fault {
            return Err(StoreError::Cursors { path: config.directory, why });
        }
        let schemas = Schemas::open(&config.directory, schemas.into_keys().collect())?;
        memory.head.trim(now);
        info!(frames = memory.frames_stored(), "store is open");
        let memory = Arc::new(RwLock::new(memory));
        let (requests, received) = mpsc::channel(REQUESTS_MAX);
        let arrivals = Arc::new(Notify::new());
        let (shared, woken) = (Arc::clone(&memory), Arc::clone(&arrivals));
        // A thread of its own: every batch waits for the disk.
        std::thread::spawn(move || {
            Task { config, segments, schemas, cursors, memory: shared, arrivals: woken }.run(received);
        });
        Ok(Self { requests, memory, arrivals, room: Arc::new(Semaphore::new(VALUES_WAITING_MAX)) })
    }

    /// Waits until so many more decoded values may wait for the disk.
    pub async fn room(&self, values: usize) -> Option<OwnedSemaphorePermit> {
        let values = u32::try_from(values.min(VALUES_WAITING_MAX)).ok()?;
        Arc::clone(&self.room).acquire_many_owned(values).await.ok()
    }

    /// Hands a request to the store's task; waits while its queue is full. False when it has ended.
    pub async fn send(&self, request: Request) -> bool {
        self.requests.send(request).await.is_ok()
    }

    /// Reads what is in memory.
    pub fn read<T>(&self, read: impl FnOnce(&Memory) -> T) -> T {
        read(&self.memory.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes what is in memory.
    pub fn update<T>(&self, change: impl FnOnce(&mut Memory) -> T) -> T {
        change(&mut self.memory.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until the store's task has ended; only a fault ends it while anybody holds the store.
    pub async fn ended(&self) {
        self.requests.closed().await;
    }

    /// Waits until frames arrived.
    pub async fn arrival(&self) {
        self.arrivals.notified().await;
    }
}

type Cursors = BTreeMap<NodeId, BTreeMap<Epoch, Cursor>>;

/// Builds the state again from the segments.
struct Keeper {
    config: StoreConfig,
    cursors: Cursors,
    memory: Memory,
    /// What a segment begins with, as far as it was read.
    begun: Snapshot,
    /// Why a segment's beginning cannot be used: without its cursors old frames would be new again.
    fault: Option<String>,
}

impl Keeper {
    fn replay(&mut self, record: Record, schemas: &mut BTreeMap<SchemaId, Option<Arc<Schema>>>) {
        let (node, arrived, bytes) = match record {
            Record::Frame { node, arrived, bytes } => (node, arrived, bytes),
            Record::Cursors(text) => {
                let added = self.begun.add(&text);
                self.fault = self.fault.take().or(added.err());
                return;
            }
            Record::Begun => {
                let Snapshot { cursors, nodes, .. } = std::mem::take(&mut self.begun);
                self.cursors = cursors;
                return self.memory.restore(nodes);
            }
        };
        let Ok((header, payload)) = v1::open(&bytes) else { return };
        let read = || schemas::read_schema(&self.config.directory, header.schema).map(Arc::new);
        let schema = schemas.entry(header.schema).or_insert_with(read).clone();
        let content = Content::decode(&header, &payload, schema);
        let mut cursor =
            self.cursors.get(&node).and_then(|epochs| epochs.get(&header.epoch)).cloned().unwrap_or_default();
        let verdict = cursor.take(header.seq, content.behind(&header));
        put(&mut self.cursors, &node, header.epoch, cursor);
        if let Verdict::New(numbers) = verdict {
            // The backlog is whole by now: what was live no longer matters.
            self.memory.insert(&node, Arrived { header, content, arrived, live: true }, numbers);
        }
    }
}

fn put(cursors: &mut Cursors, node: &NodeId, epoch: Epoch, cursor: Cursor) {
    let epochs = cursors.entry(node.clone()).or_default();
    epochs.insert(epoch, cursor);
    if epochs.len() > NODE_EPOCHS_MAX {
        epochs.pop_first();
    }
}

fn durable(cursors: &Cursors, node: &NodeId, epochs: &[Epoch]) -> Vec<Durable> {
    let known = cursors.get(node);
    let next = |epoch: &Epoch| Some(Durable { epoch: *epoch, next: known?.get(epoch)?.next() });
    epochs.iter().filter_map(next).collect()
}

#[cfg(test)]
mod tests;
