//! What the store has in memory: the head, the newest events, and what is known of each node.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::event::Event;
use diarwatch_shared::node::{Epoch, NodeId};
use diarwatch_shared::wire::v1::Header;

use super::Content;
use super::head::Head;

/// Events kept in memory, over all nodes.
pub const EVENTS_MAX: usize = 1_000;

/// An event and whose it is.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredEvent {
    /// From whom.
    pub node: NodeId,
    /// What and when.
    pub event: Event,
}

/// What is known of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeState {
    /// When its newest live frame arrived; `None` while it has never sent.
    pub last_arrival: Option<UnixMicros>,
    /// The newest epoch it sent.
    pub epoch: Option<Epoch>,
    /// Frames of the newest epoch that are stored.
    pub epoch_frames: u64,
    /// Frames stored, over all epochs.
    pub frames_stored: u64,
    /// Frames that came again.
    pub frames_duplicate: u64,
    /// Frames refused because they were too far ahead of a hole.
    pub frames_refused: u64,
    /// Frames that will never come.
    pub frames_lost: u64,
    /// Frames that are kept though their payload cannot be read.
    pub frames_opaque: u64,
    /// Whether it has a connection.
    pub connected: bool,
    /// Version of its agent.
    pub version: Option<String>,
}

/// Everything the store's readers see.
#[derive(Debug)]
pub struct Memory {
    /// The recent window.
    pub head: Head,
    /// The newest events, oldest first.
    pub events: VecDeque<StoredEvent>,
    /// Every node that ever sent or is expected.
    pub nodes: BTreeMap<NodeId, NodeState>,
    /// Why frames cannot be stored, for a person.
    pub problem: Option<String>,
}

impl Memory {
    /// Memory that keeps `window` of samples; `expected` nodes are known before they send.
    #[must_use]
    pub fn new(window: Duration, expected: &[NodeId]) -> Self {
        let nodes = expected.iter().map(|node| (node.clone(), NodeState::default())).collect();
        Self { head: Head::new(window), events: VecDeque::new(), nodes, problem: None }
    }

    /// Frames stored, over all nodes.
    #[must_use]
    pub fn frames_stored(&self) -> u64 {
        self.nodes.values().map(|node| node.frames_stored).sum()
    }

    /// Frames stored, by node.
    #[must_use]
    pub fn frames_by_node(&self) -> BTreeMap<NodeId, u64> {
        self.nodes.iter().map(|(node, state)| (node.clone(), state.frames_stored)).collect()
    }

    pub(super) fn restore_counts(&mut self, frames: BTreeMap<NodeId, u64>) {
        for (node, count) in frames {
            self.nodes.entry(node).or_default().frames_stored = count;
        }
    }

    pub(super) fn count_duplicate(&mut self, node: &NodeId) {
        self.nodes.entry(node.clone()).or_default().frames_duplicate += 1;
    }

    pub(super) fn count_refused(&mut self, node: &NodeId) {
        self.nodes.entry(node.clone()).or_default().frames_refused += 1;
    }

    pub(super) fn insert(&mut self, node: &NodeId, header: &Header, content: Content, arrived: UnixMicros) {
        let state = self.nodes.entry(node.clone()).or_default();
        if state.epoch.is_none_or(|newest| header.epoch > newest) {
            state.epoch = Some(header.epoch);
            state.epoch_frames = 0;
        }
        if state.epoch == Some(header.epoch) {
            state.last_arrival = state.last_arrival.max(Some(arrived));
            state.epoch_frames += 1;
        }
        state.frames_stored += 1;
        match content {
            Content::Columns(schema, body) => self.head.insert(node, &schema, &body, arrived),
            Content::Event(event) => {
                let at = self.events.partition_point(|known| known.event.at <= event.at);
                self.events.insert(at, StoredEvent { node: node.clone(), event });
                if self.events.len() > EVENTS_MAX {
                    self.events.pop_front();
                }
            }
            Content::Gap(gap) => state.frames_lost += gap.to.saturating_sub(gap.from),
            Content::Opaque(_) => state.frames_opaque += 1,
        }
    }
}
