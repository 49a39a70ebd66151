//! What the store has in memory: the head, the newest events, and what is known of each node.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::event::Event;
use diarwatch_shared::node::{Epoch, NodeId};
use diarwatch_shared::wire::v1::Header;
use serde::{Deserialize, Serialize};

use super::Content;
use super::head::Head;
use crate::rules::Sample;

/// Events kept in memory, over all nodes.
pub const EVENTS_MAX: usize = 1_000;
/// A node that sent nothing for so long begins anew: three frames.
const PAUSE: Duration = Duration::from_secs(3);

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
    /// When its newest frame arrived; `None` while it has never sent.
    pub last_arrival: Option<UnixMicros>,
    /// Since when its frames arrive without a pause.
    pub sending_since: Option<UnixMicros>,
    /// The newest epoch it sent.
    pub epoch: Option<Epoch>,
    /// Frames of the newest epoch that are stored; gaps are not frames.
    pub epoch_frames: u64,
    /// Frames stored, over all epochs; gaps are not frames.
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

/// What of a node a new segment begins with, since older segments may not be read again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Tally {
    last_arrival: Option<UnixMicros>,
    epoch: Option<Epoch>,
    epoch_frames: u64,
    frames_stored: u64,
    frames_lost: u64,
    frames_opaque: u64,
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
    /// What recording rules made of the page's figures in the newest round.
    pub recorded: Vec<Sample>,
    /// Why frames cannot be stored, for a person.
    pub problem: Option<String>,
}

impl Memory {
    /// Memory that keeps `window` of samples; `expected` nodes are known before they send.
    #[must_use]
    pub fn new(window: Duration, expected: &[NodeId]) -> Self {
        let nodes = expected.iter().map(|node| (node.clone(), NodeState::default())).collect();
        Self { head: Head::new(window), events: VecDeque::new(), nodes, recorded: Vec::new(), problem: None }
    }

    /// These nodes are known, though they may never have sent; others that never sent are forgotten.
    pub fn expect(&mut self, expected: &[NodeId]) {
        self.nodes
            .retain(|node, state| state.last_arrival.is_some() || state.connected || expected.contains(node));
        for node in expected {
            self.nodes.entry(node.clone()).or_default();
        }
    }

    /// Frames stored, over all nodes.
    #[must_use]
    pub fn frames_stored(&self) -> u64 {
        self.nodes.values().map(|node| node.frames_stored).sum()
    }

    pub(super) fn tallies(&self) -> BTreeMap<NodeId, Tally> {
        self.nodes.iter().map(|(node, state)| (node.clone(), state.tally())).collect()
    }

    pub(super) fn restore(&mut self, tallies: BTreeMap<NodeId, Tally>) {
        for (node, tally) in tallies {
            self.nodes.entry(node).or_default().restore(&tally);
        }
    }

    pub(super) fn count_duplicate(&mut self, node: &NodeId) {
        self.nodes.entry(node.clone()).or_default().frames_duplicate += 1;
    }

    pub(super) fn count_refused(&mut self, node: &NodeId) {
        self.nodes.entry(node.clone()).or_default().frames_refused += 1;
    }

    /// Takes what is durable. `numbers` is how many places in the sequence it fills; `live` is false
    /// for the backlog, which fills history and says nothing of now.
    pub(super) fn insert(&mut self, node: &NodeId, frame: Arrived, numbers: u64) {
        let Arrived { header, content, arrived, live } = frame;
        let state = self.nodes.entry(node.clone()).or_default();
        state.arrived(arrived, header.epoch);
        if let Content::Gap(_) = content {
            state.frames_lost = state.frames_lost.saturating_add(numbers);
            return;
        }
        state.frames_stored += 1;
        state.epoch_frames += u64::from(state.epoch == Some(header.epoch));
        match content {
            Content::Columns(schema, body) => self.head.insert(node, &schema, &body, arrived, live),
            Content::Event(event) => self.event(node, *event, arrived),
            Content::Gap(_) => {}
            Content::Opaque(_) => state.frames_opaque += 1,
        }
    }

    fn event(&mut self, node: &NodeId, mut event: Event, arrived: UnixMicros) {
        // A clock that is ahead must not keep its events the newest for ever.
        event.at = event.at.min(arrived);
        let at = self.events.partition_point(|known| known.event.at <= event.at);
        self.events.insert(at, StoredEvent { node: node.clone(), event });
        if self.events.len() > EVENTS_MAX {
            self.events.pop_front();
        }
    }
}

/// A frame on its way into memory.
pub(super) struct Arrived {
    pub(super) header: Header,
    pub(super) content: Content,
    pub(super) arrived: UnixMicros,
    pub(super) live: bool,
}

impl NodeState {
    /// Any frame is a sign of life, also one of an old epoch: only an agent that runs sends it.
    fn arrived(&mut self, at: UnixMicros, epoch: Epoch) {
        if self.epoch.is_none_or(|newest| epoch > newest) {
            self.epoch = Some(epoch);
            self.epoch_frames = 0;
        }
        let paused = self.last_arrival.is_none_or(|last| at.since(last) > PAUSE);
        let since = self.sending_since.filter(|_| !paused);
        // Taken as it is: after a clock that went back the newest arrival is not the latest.
        self.sending_since = Some(since.map_or(at, |since| since.min(at)));
        self.last_arrival = Some(at);
    }

    fn tally(&self) -> Tally {
        Tally {
            last_arrival: self.last_arrival,
            epoch: self.epoch,
            epoch_frames: self.epoch_frames,
            frames_stored: self.frames_stored,
            frames_lost: self.frames_lost,
            frames_opaque: self.frames_opaque,
        }
    }

    fn restore(&mut self, tally: &Tally) {
        self.last_arrival = tally.last_arrival;
        self.epoch = tally.epoch;
        self.epoch_frames = tally.epoch_frames;
        self.frames_stored = tally.frames_stored;
        self.frames_lost = tally.frames_lost;
        self.frames_opaque = tally.frames_opaque;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use diarwatch_shared::event::What;
    use diarwatch_shared::schema::SchemaId;
    use diarwatch_shared::wire::Codec;

    fn memory() -> Memory {
        Memory::new(Duration::from_secs(900), &[])
    }

    fn node() -> NodeId {
        NodeId::new("gpu-01").unwrap()
    }

    fn put(memory: &mut Memory, epoch: u64, content: Content, arrived: UnixMicros) {
        let header = Header {
            seq: 0,
            base: arrived,
            epoch: Epoch(epoch),
            schema: SchemaId(0),
            ticks: 0,
            series: 0,
            flags: 0,
            codec: Codec::Event,
        };
        memory.insert(&node(), Arrived { header, content, arrived, live: true }, 1);
    }

    fn event(at: u64) -> Content {
        Content::Event(Box::new(Event::new(UnixMicros(at), What::GpuDriverRecovered)))
    }

    #[test]
    fn a_clock_that_is_ahead_does_not_push_out_the_events_of_others() {
        let mut memory = memory();
        for _ in 0..EVENTS_MAX {
            put(&mut memory, 1, event(u64::MAX), UnixMicros(5));
        }
        put(&mut memory, 1, event(6), UnixMicros(7));
        assert_eq!(memory.events.back().map(|stored| stored.event.at), Some(UnixMicros(6)));
        assert_eq!(memory.events.front().map(|stored| stored.event.at), Some(UnixMicros(5)));
    }

    #[test]
    fn a_node_lives_whatever_the_number_of_its_epoch_says() {
        // A first run with a wrong clock, then a new disk: the epoch goes back.
        let mut memory = memory();
        put(&mut memory, u64::MAX, event(1), UnixMicros(1));
        put(&mut memory, 7, event(2), UnixMicros(2));
        assert_eq!(memory.nodes[&node()].last_arrival, Some(UnixMicros(2)));
    }

    #[test]
    fn a_pause_begins_anew_and_a_clock_that_went_back_does_not_hide_it() {
        let mut memory = memory();
        let mut since = |second: u64| {
            put(&mut memory, 1, event(0), UnixMicros(second * 1_000_000));
            memory.nodes[&node()].sending_since.unwrap().0 / 1_000_000
        };
        assert_eq!([since(100), since(103), since(104)], [100, 100, 100]);
        assert_eq!([since(110), since(50), since(51), since(60)], [110, 50, 50, 60]);
    }
}
