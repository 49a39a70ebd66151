//! The store stage: one task owns what is durable and what is in memory.
//!
//! Takes checked frames from intake through a bounded queue; gives acks when they are on disk, and
//! wakes the rules. A duplicate falls before it is written. When the disk is slow the queue fills,
//! intake stops reading and QUIC flow control stops the agents. Readers share [`Memory`] behind a lock.

mod cursor;
pub mod head;
mod memory;
mod segments;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use diarwatch_shared::clock::{self, UnixMicros};
use diarwatch_shared::event::Event;
use diarwatch_shared::frame::{self, Body};
use diarwatch_shared::node::{Epoch, NodeId, Seq};
use diarwatch_shared::schema::{Schema, SchemaId};
use diarwatch_shared::wire::Codec;
use diarwatch_shared::wire::control::{Durable, Gap};
use diarwatch_shared::wire::v1::{self, Header};
use tokio::sync::{Notify, mpsc, oneshot};
use tracing::{error, info};

use crate::config::StoreConfig;
use cursor::{Cursor, Verdict};
pub use memory::{Memory, NodeState, StoredEvent};
pub use segments::StoreError;
use segments::{Record, Segments};

/// Requests that may wait for the store's task.
const REQUESTS_MAX: usize = 1_024;
/// Requests that share one fdatasync.
const BATCH_MAX: usize = 256;
/// Before a disk that refused is asked again.
const DISK_RETRY: Duration = Duration::from_secs(1);
/// Epochs remembered per node; the oldest are forgotten.
const NODE_EPOCHS_MAX: usize = 512;

/// What a frame holds, decoded and checked.
#[derive(Clone, Debug)]
pub enum Content {
    /// Values.
    Columns(Arc<Schema>, Body),
    /// Something happened.
    Event(Event),
    /// Frames that will never come.
    Gap(Gap),
    /// A sound envelope whose payload cannot be read, and why. It is kept, counted and acknowledged:
    /// a refusal would only bring it again for ever, and a later version may read it.
    Opaque(String),
}

impl Content {
    /// Decodes a payload.
    #[must_use]
    pub fn decode(header: &Header, payload: &[u8], schema: Option<Arc<Schema>>) -> Self {
        Self::read(header, payload, schema).unwrap_or_else(Self::Opaque)
    }

    fn read(header: &Header, payload: &[u8], schema: Option<Arc<Schema>>) -> Result<Self, String> {
        match header.codec {
            Codec::Columns => {
                let schema = schema
                    .ok_or_else(|| format!("frame uses schema {}, which was never sent", header.schema))?;
                let body = frame::decode(&schema, header.base, payload).map_err(|error| error.to_string())?;
                Ok(Self::Columns(schema, body))
            }
            Codec::Event => Event::from_bytes(payload).map(Self::Event),
            Codec::Gap => {
                let gap: Gap = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
                let in_place = gap.epoch == header.epoch && gap.from == header.seq && gap.to > gap.from;
                if in_place { Ok(Self::Gap(gap)) } else { Err("gap is not in its own place".into()) }
            }
        }
    }
}

/// A request to the store's task.
#[derive(Debug)]
pub enum Request {
    /// A checked frame.
    Frame {
        /// From whom, by certificate.
        node: NodeId,
        /// When it arrived.
        arrived: UnixMicros,
        /// Its header.
        header: Header,
        /// What it holds.
        content: Content,
        /// As it came.
        bytes: Vec<u8>,
        /// Where its ack goes; acks are cumulative, so one that does not fit may be left out.
        ack: mpsc::Sender<Durable>,
    },
    /// Keep a schema; answered when it is durable.
    Schema {
        /// Its id.
        id: SchemaId,
        /// Its bytes.
        bytes: Vec<u8>,
        /// The answer.
        done: oneshot::Sender<()>,
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
        };
        let mut schemas = BTreeMap::new();
        let replay_from = now.minus(config.head_window.0);
        let segments = Segments::open(&config.directory, replay_from, now, |record| {
            keeper.replay(record, &mut schemas)
        })?;
        keeper.memory.head.trim(now);
        info!(frames = keeper.memory.frames_stored(), "store is open");
        let memory = Arc::new(RwLock::new(std::mem::replace(
            &mut keeper.memory,
            Memory::new(config.head_window.0, &[]),
        )));
        let (requests, received) = mpsc::channel(REQUESTS_MAX);
        let arrivals = Arc::new(Notify::new());
        let (shared, woken) = (Arc::clone(&memory), Arc::clone(&arrivals));
        let cursors = keeper.cursors;
        let config = config.clone();
        // A thread of its own: every batch waits for the disk.
        std::thread::spawn(move || {
            Task { config, segments, cursors, memory: shared, arrivals: woken, fresh: Vec::new() }
                .run(received)
        });
        Ok(Self { requests, memory, arrivals })
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
}

impl Keeper {
    fn replay(&mut self, record: Record, schemas: &mut BTreeMap<SchemaId, Option<Arc<Schema>>>) {
        let (node, arrived, bytes) = match record {
            Record::Frame { node, arrived, bytes } => (node, arrived, bytes),
            Record::Cursors(text) => return self.restore(&text),
        };
        let Ok((header, payload)) = v1::open(&bytes) else { return };
        let read = || segments::read_schema(&self.config.directory, header.schema).map(Arc::new);
        let schema = schemas.entry(header.schema).or_insert_with(read).clone();
        let content = Content::decode(&header, &payload, schema);
        let mut cursor =
            self.cursors.get(&node).and_then(|epochs| epochs.get(&header.epoch)).cloned().unwrap_or_default();
        let verdict = cursor.take(header.seq, behind(&header, &content));
        put(&mut self.cursors, &node, header.epoch, cursor);
        if verdict == Verdict::New {
            self.memory.insert(&node, &header, content, arrived);
        }
    }

    fn restore(&mut self, text: &[u8]) {
        match serde_json::from_slice::<Snapshot>(text) {
            Ok(snapshot) => {
                self.cursors = snapshot.cursors;
                self.memory.restore_counts(snapshot.frames);
            }
            Err(error) => error!(%error, "cursors of a segment cannot be read"),
        }
    }
}

/// What a new segment begins with.
#[derive(serde::Serialize, serde::Deserialize)]
struct Snapshot {
    version: u16,
    cursors: Cursors,
    frames: BTreeMap<NodeId, u64>,
}

struct Task {
    config: StoreConfig,
    segments: Segments,
    cursors: Cursors,
    memory: Arc<RwLock<Memory>>,
    arrivals: Arc<Notify>,
    /// The verdicts on the batch that was written last.
    fresh: Vec<Verdict>,
}

impl Task {
    fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while let Some(first) = requests.blocking_recv() {
            batch.push(first);
            while batch.len() < BATCH_MAX {
                match requests.try_recv() {
                    Ok(request) => batch.push(request),
                    Err(_) => break,
                }
            }
            // A disk that refuses is asked again: nothing of the batch is acknowledged meanwhile, the
            // queue fills and the agents keep what they have.
            while let Err(error) = self.write_batch(&batch) {
                error!(%error, "frames are not stored; trying again");
                self.change(|memory| memory.problem = Some(error.to_string()));
                std::thread::sleep(DISK_RETRY);
            }
            self.finish(&mut batch);
            if let Err(error) = self.rotate_when_due() {
                error!(%error, "no new segment; the old one goes on");
            }
        }
    }

    /// Puts a batch on disk. What is written twice by a second try falls when it is read.
    fn write_batch(&mut self, batch: &[Request]) -> Result<(), StoreError> {
        self.fresh.clear();
        let mut moved: BTreeMap<(NodeId, Epoch), Cursor> = BTreeMap::new();
        let mut wrote = false;
        for request in batch {
            let mut verdict = Verdict::Duplicate;
            match request {
                Request::Schema { id, bytes, .. } => self.segments.keep_schema(*id, bytes)?,
                Request::Durable { .. } => {}
                Request::Frame { node, arrived, header, content, bytes, .. } => {
                    let known =
                        || self.cursors.get(node).and_then(|epochs| epochs.get(&header.epoch)).cloned();
                    let cursor = moved
                        .entry((node.clone(), header.epoch))
                        .or_insert_with(|| known().unwrap_or_default());
                    verdict = cursor.take(header.seq, behind(header, content));
                    if verdict == Verdict::New {
                        self.segments.append(node, *arrived, bytes)?;
                        wrote = true;
                    }
                }
            }
            self.fresh.push(verdict);
        }
        if wrote {
            self.segments.sync()?;
        }
        for ((node, epoch), cursor) in moved {
            put(&mut self.cursors, &node, epoch, cursor);
        }
        Ok(())
    }

    /// Everything of the batch is durable: show it, wake the rules, answer and acknowledge.
    fn finish(&mut self, batch: &mut Vec<Request>) {
        let verdicts = std::mem::take(&mut self.fresh);
        let mut acks = Vec::new();
        let mut memory = self.memory.write().unwrap_or_else(PoisonError::into_inner);
        memory.problem = None;
        for (request, verdict) in batch.drain(..).zip(verdicts) {
            match (request, verdict) {
                // An asker that is gone needs no answer.
                (Request::Schema { done, .. }, _) => drop(done.send(())),
                (Request::Durable { node, epochs, answer }, _) => {
                    drop(answer.send(durable(&self.cursors, &node, &epochs)))
                }
                (Request::Frame { node, arrived, header, content, ack, .. }, verdict) => {
                    match verdict {
                        Verdict::New => memory.insert(&node, &header, content, arrived),
                        Verdict::Duplicate => memory.count_duplicate(&node),
                        Verdict::TooFarAhead => memory.count_refused(&node),
                    }
                    acks.push((node, header.epoch, ack));
                }
            }
        }
        drop(memory);
        if !acks.is_empty() {
            self.arrivals.notify_one();
        }
        for (node, epoch, ack) in acks {
            for durable in durable(&self.cursors, &node, &[epoch]) {
                // Acks are cumulative: one that does not fit is said by the next.
                let _ = ack.try_send(durable);
            }
        }
    }

    fn rotate_when_due(&mut self) -> Result<(), StoreError> {
        let now = clock::now();
        if !self.segments.is_due(now) {
            return Ok(());
        }
        let frames = self.memory.read().unwrap_or_else(PoisonError::into_inner).frames_by_node();
        let snapshot = Snapshot { version: 1, cursors: self.cursors.clone(), frames };
        let text = serde_json::to_vec(&snapshot).unwrap_or_default();
        self.segments.rotate(&text, now.minus(self.config.retention.0), self.config.bytes_max.0, now)
    }

    fn change(&self, change: impl FnOnce(&mut Memory)) {
        change(&mut self.memory.write().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The number behind a frame, or behind every frame of a gap.
fn behind(header: &Header, content: &Content) -> Seq {
    match content {
        Content::Gap(gap) => gap.to,
        _ => header.seq.saturating_add(1),
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
