//! Series that the aggregator makes at evaluation time, over the store's: `up`.
//!
//! `up{service=...}` is 1 while a node's frames arrive (and, for a worker, while it says it is
//! ready), 0 when not. A node that has never sent and a worker that still loads have no `up`: "no
//! data" is a state of its own, shown on the page, never green and never an alert that resolves.

use std::collections::BTreeSet;
use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::node::NodeId;
use diarwatch_shared::schema::Labels;

use crate::rules::{Point, Sample, Selector, Series, Source};
use crate::store::Memory;

/// A value that is older than this is not a node's present state.
pub const PRESENT: Duration = Duration::from_secs(10);

/// The store's series with the computed ones.
pub struct Live<'a> {
    memory: &'a Memory,
    up: Vec<Sample>,
}

/// The nodes whose frames arrive.
#[must_use]
pub fn sending(memory: &Memory, timeout: Duration, now: UnixMicros) -> BTreeSet<String> {
    let fresh = |at: UnixMicros| now.since(at) <= timeout;
    let nodes = memory.nodes.iter().filter(|(_, state)| state.last_arrival.is_some_and(fresh));
    nodes.map(|(node, _)| node.to_string()).collect()
}

/// Whether a node's GPU values come from a fake NVML.
#[must_use]
pub fn simulated(memory: &Memory, node: &str) -> bool {
    let Ok(node) = NodeId::new(node) else { return false };
    memory
        .head
        .newest(&node, "gpu_info", i64::MIN)
        .any(|(key, _)| key.labels.get("simulated").is_some_and(|word| word == "true"))
}

impl<'a> Live<'a> {
    /// The series of now.
    #[must_use]
    pub fn new(memory: &'a Memory, sending: &BTreeSet<String>, now: UnixMicros) -> Self {
        let mut up = Vec::new();
        for (node, state) in &memory.nodes {
            if state.last_arrival.is_none() {
                continue;
            }
            let sends = sending.contains(node.as_str());
            up.push(sample(&[("service", node.as_str()), ("node", node.as_str())], sends));
            let present = now.minus(PRESENT).as_millis();
            let since = if sends { present } else { i64::MIN };
            for (key, ready) in memory.head.newest(node, "worker_ready", since) {
                let label = |name: &str| key.labels.get(name).map_or("", String::as_str);
                let labels =
                    [("service", label("service")), ("node", node.as_str()), ("worker", label("worker"))];
                up.push(sample(&labels, sends && ready > 0.0));
            }
        }
        Self { memory, up }
    }
}

fn sample(labels: &[(&str, &str)], up: bool) -> Sample {
    let mut labels: Labels =
        labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    labels.insert("__name__".to_owned(), "up".to_owned());
    Sample { labels, value: if up { 1.0 } else { 0.0 } }
}

impl Source for Live<'_> {
    fn instant(&self, selector: &Selector<'_>, at_ms: i64, lookback: Duration) -> Vec<Sample> {
        let mut samples = self.memory.head.instant(selector, at_ms, lookback);
        samples.extend(self.up.iter().filter(|sample| selector.matches(&sample.labels)).cloned());
        samples
    }

    fn range(&self, selector: &Selector<'_>, at_ms: i64, range: Duration) -> Vec<Series> {
        let mut series = self.memory.head.range(selector, at_ms, range);
        // `up` has no history yet: its one point is now.
        let now = |sample: &Sample| Series {
            labels: sample.labels.clone(),
            points: vec![Point { at_ms, value: sample.value }],
        };
        series.extend(self.up.iter().filter(|sample| selector.matches(&sample.labels)).map(now));
        series
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::NodeState;

    #[test]
    fn a_silent_node_is_down_and_one_that_never_sent_has_no_up() {
        let mut memory = Memory::new(Duration::from_secs(900), &[NodeId::new("never").unwrap()]);
        let now = UnixMicros(100_000_000);
        for (name, ago) in [("live", 1), ("silent", 60)] {
            let last_arrival = Some(now.minus(Duration::from_secs(ago)));
            memory
                .nodes
                .insert(NodeId::new(name).unwrap(), NodeState { last_arrival, ..NodeState::default() });
        }
        let sending = sending(&memory, Duration::from_secs(5), now);
        let live = Live::new(&memory, &sending, now);
        let up = live.instant(&Selector::named("up"), now.as_millis(), Duration::from_secs(300));
        let said: Vec<(&str, f64)> =
            up.iter().map(|sample| (sample.labels["node"].as_str(), sample.value)).collect();
        assert_eq!(said, [("live", 1.0), ("silent", 0.0)]);
    }
}
