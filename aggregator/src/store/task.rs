//! The store's own thread: every batch of requests waits for the disk once.
//!
//! Takes requests; gives acks, answers and fresh memory when the batch is durable. When the disk
//! refuses, the batch is tried again: nothing of it is acknowledged meanwhile, the queue fills and the
//! agents keep what they have.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use diarwatch_shared::clock;
use diarwatch_shared::node::{Epoch, NodeId};
use tokio::sync::{Notify, mpsc};
use tracing::error;

use super::cursor::{Cursor, Verdict};
use super::memory::{Arrived, Memory};
use super::schemas::{NODE_SCHEMAS_MAX, Schemas};
use super::segments::{Segments, StoreError};
use super::snapshot::Snapshot;
use super::{Acks, Content, Cursors, Request, durable, put};
use crate::config::StoreConfig;

/// Requests that share one fdatasync.
const BATCH_MAX: usize = 256;
/// Before a disk that refused is asked again.
const DISK_RETRY: Duration = Duration::from_secs(1);

/// What became of a request on disk.
enum Written {
    Frame(Verdict),
    /// False: the node brought too many schemas.
    Schema(bool),
    Nothing,
}

pub(super) struct Task {
    pub(super) config: StoreConfig,
    pub(super) segments: Segments,
    pub(super) schemas: Schemas,
    pub(super) cursors: Cursors,
    pub(super) memory: Arc<RwLock<Memory>>,
    pub(super) arrivals: Arc<Notify>,
}

impl Task {
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while let Some(first) = requests.blocking_recv() {
            batch.push(first);
            while batch.len() < BATCH_MAX {
                match requests.try_recv() {
                    Ok(request) => batch.push(request),
                    Err(_) => break,
                }
            }
            let written = loop {
                match self.write_batch(&batch) {
                    Ok(written) => break written,
                    Err(error) => {
                        error!(%error, "frames are not stored; trying again");
                        self.change(|memory| memory.problem = Some(error.to_string()));
                        std::thread::sleep(DISK_RETRY);
                    }
                }
            };
            self.finish(&mut batch, written);
            if let Err(error) = self.rotate_when_due() {
                error!(%error, "no new segment; the old one goes on");
            }
        }
    }

    /// Puts a batch on disk. What is written twice by a second try falls when it is read.
    fn write_batch(&mut self, batch: &[Request]) -> Result<Vec<Written>, StoreError> {
        let mut moved: BTreeMap<(NodeId, Epoch), Cursor> = BTreeMap::new();
        let mut written = Vec::with_capacity(batch.len());
        let mut wrote = false;
        for request in batch {
            written.push(match request {
                Request::Schema { node, id, bytes, .. } => {
                    Written::Schema(self.schemas.keep(node, *id, bytes)?)
                }
                Request::Durable { .. } => Written::Nothing,
                Request::Frame { node, arrived, header, content, bytes, .. } => {
                    let known =
                        || self.cursors.get(node).and_then(|epochs| epochs.get(&header.epoch)).cloned();
                    let cursor = moved
                        .entry((node.clone(), header.epoch))
                        .or_insert_with(|| known().unwrap_or_default());
                    let verdict = cursor.take(header.seq, content.behind(header));
                    if let (Verdict::New(_), Content::Columns(schema, _)) = (verdict, content) {
                        self.schemas.uses(header.schema, schema)?;
                    }
                    if let Verdict::New(_) = verdict {
                        self.segments.append(node, *arrived, bytes)?;
                        wrote = true;
                    }
                    Written::Frame(verdict)
                }
            });
        }
        if wrote {
            self.segments.sync()?;
        }
        for ((node, epoch), cursor) in moved {
            put(&mut self.cursors, &node, epoch, cursor);
        }
        Ok(written)
    }

    /// Everything of the batch is durable: show it, wake the rules, answer and acknowledge.
    fn finish(&mut self, batch: &mut Vec<Request>, written: Vec<Written>) {
        let mut acks: Vec<(NodeId, Epoch, Acks)> = Vec::new();
        let mut memory = self.memory.write().unwrap_or_else(PoisonError::into_inner);
        memory.problem = None;
        for (request, written) in batch.drain(..).zip(written) {
            match request {
                // An asker that is gone needs no answer.
                Request::Schema { done, .. } => drop(done.send(kept(&written))),
                Request::Durable { node, epochs, answer } => {
                    drop(answer.send(durable(&self.cursors, &node, &epochs)));
                }
                Request::Frame { node, arrived, live, header, content, ack, .. } => {
                    match written {
                        Written::Frame(Verdict::New(numbers)) => {
                            memory.insert(&node, Arrived { header, content, arrived, live }, numbers);
                        }
                        Written::Frame(Verdict::TooFarAhead) => memory.count_refused(&node),
                        _ => memory.count_duplicate(&node),
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
            durable(&self.cursors, &node, &[epoch]).into_iter().for_each(|durable| ack.put(durable));
        }
    }

    fn rotate_when_due(&mut self) -> Result<(), StoreError> {
        let now = clock::now();
        if !self.segments.is_due(now) {
            return Ok(());
        }
        let nodes = self.memory.read().unwrap_or_else(PoisonError::into_inner).tallies();
        let begin = Snapshot::parts(&self.cursors, nodes);
        let keep_from = now.minus(self.config.retention.0);
        self.segments.rotate(&begin, keep_from, self.config.bytes_max.0, now)?;
        self.schemas.rotate(keep_from, now)
    }

    fn change(&self, change: impl FnOnce(&mut Memory)) {
        change(&mut self.memory.write().unwrap_or_else(PoisonError::into_inner));
    }
}

fn kept(written: &Written) -> Result<(), String> {
    match written {
        Written::Schema(false) => Err(format!(
            "more than {NODE_SCHEMAS_MAX} new schemas of this node within an hour; do its series change all the time?"
        )),
        _ => Ok(()),
    }
}
