//! Queues of all nodes, and their sum as the requirements draw it. Pure.

use std::collections::BTreeMap;

use diarwatch_shared::node::NodeId;
use diarwatch_shared::schema::SeriesKey;
use serde::Serialize;

use super::Sources;
use super::figures::FIGURE_PRESENT;
use super::fleet::{Node, label};
use super::state::{Lines, QUEUE, State};

/// A queue of a node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Queue {
    /// Its name.
    pub queue: String,
    /// What works it off.
    pub service: String,
    /// Where its numbers come from.
    pub source: Option<String>,
    /// Whether its source answers.
    pub up: Option<bool>,
    /// Whether its numbers are made of what can be seen, and not told by the queue itself.
    pub estimated: bool,
    /// Jobs that wait.
    pub waiting: Option<f64>,
    /// Jobs that are worked on.
    pub processing: Option<f64>,
    /// Age of the oldest waiting job.
    pub oldest_seconds: Option<f64>,
    /// Mean processing time of the last jobs.
    pub mean_seconds: Option<f64>,
    /// 95th percentile of it.
    pub p95_seconds: Option<f64>,
    /// Jobs completed per minute.
    pub completed_per_minute: Option<f64>,
    /// Time until nothing waits, at the present rates.
    pub drain_seconds: Option<f64>,
    /// Whether it only grows.
    pub growing: Option<bool>,
    /// Against the lines.
    pub state: State,
}

/// The panel: all queues together.
#[derive(Clone, Debug, Serialize)]
pub struct QueuePanel {
    /// Jobs that wait.
    pub waiting: Option<f64>,
    /// Jobs that are worked on.
    pub processing: Option<f64>,
    /// Age of the oldest waiting job.
    pub oldest_seconds: Option<f64>,
    /// Mean processing time, each queue by what it completes.
    pub mean_seconds: Option<f64>,
    /// The largest 95th percentile.
    pub p95_seconds: Option<f64>,
    /// The longest time until nothing waits.
    pub drain_seconds: Option<f64>,
    /// Whether any of it is estimated.
    pub estimated: bool,
    /// Whether a queue of which nothing is known now is left out of the sums.
    pub partial: bool,
    /// Against the lines.
    pub state: State,
    /// The lines, over what waits.
    pub lines: Lines,
    /// How busy each node's GPUs are.
    pub gpus: Vec<NodeLoad>,
    /// Queues over all nodes; which they are stands with the nodes.
    pub queues: usize,
}

/// How busy a node's GPUs are.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeLoad {
    /// The node.
    pub node: String,
    /// The mean of its GPUs.
    pub utilization_ratio: Option<f64>,
}

/// The queues of a node. Of a silent one they are known and their numbers are not.
pub(super) fn of_node(of: &Sources<'_>, node: &NodeId, sends: bool) -> Vec<Queue> {
    let head = &of.memory.head;
    let since = if sends { of.now.minus(FIGURE_PRESENT).as_millis() } else { i64::MAX };
    let known = if sends { since } else { i64::MIN };
    let mut found: BTreeMap<&str, Queue> = BTreeMap::new();
    for metric in ["queue_info", "queue_up", "queue_waiting"] {
        for (key, _) in head.newest_readings(node, metric, known) {
            let queue = found.entry(label(key, "queue")).or_insert_with(|| Queue::unknown(key));
            queue.service = Some(label(key, "service"))
                .filter(|name| !name.is_empty())
                .unwrap_or(&queue.service)
                .to_owned();
            queue.source = queue.source.take().or_else(|| key.labels.get("source").cloned());
            queue.estimated |= label(key, "estimated") == "true";
        }
    }
    for (name, queue) in &mut found {
        let value = |metric| {
            let mut all = head.newest(node, metric, since);
            all.find(|(key, _)| label(key, "queue") == *name).map(|(_, value)| value)
        };
        queue.up = value("queue_up").map(|up| up > 0.0);
        queue.waiting = value("queue_waiting");
        queue.processing = value("queue_processing");
        queue.oldest_seconds = value("queue_oldest_seconds");
        queue.mean_seconds = value("job_duration_mean_seconds");
        queue.p95_seconds = value("job_duration_p95_seconds");
        queue.completed_per_minute = value("queue_completed_per_minute");
        queue.drain_seconds = value("queue_drain_seconds");
        queue.growing = value("queue_growing").map(|growing| growing > 0.0);
        queue.state = match (QUEUE.judge(queue.waiting), queue.up, queue.growing) {
            (_, Some(false), _) => State::Warning,
            (state, _, Some(true)) => state.max(State::Warning),
            (state, ..) => state,
        };
    }
    found.into_values().collect()
}

impl Queue {
    fn unknown(key: &SeriesKey) -> Self {
        Self {
            queue: label(key, "queue").to_owned(),
            service: String::new(),
            source: None,
            up: None,
            estimated: false,
            waiting: None,
            processing: None,
            oldest_seconds: None,
            mean_seconds: None,
            p95_seconds: None,
            completed_per_minute: None,
            drain_seconds: None,
            growing: None,
            state: State::Unknown,
        }
    }
}

/// All queues together.
pub(super) fn panel(nodes: &[Node]) -> QueuePanel {
    let queues: Vec<&Queue> = nodes.iter().flat_map(|node| &node.queues).collect();
    let sum = |value: fn(&Queue) -> Option<f64>| {
        queues.iter().filter_map(|queue| value(queue)).reduce(|a, b| a + b)
    };
    let largest =
        |value: fn(&Queue) -> Option<f64>| queues.iter().filter_map(|queue| value(queue)).reduce(f64::max);
    let waiting = sum(|queue| queue.waiting);
    let troubled = queues.iter().map(|queue| queue.state).filter(|state| *state == State::Warning).max();
    let loads = nodes.iter().filter(|node| !node.gpus.is_empty());
    QueuePanel {
        waiting,
        processing: sum(|queue| queue.processing),
        oldest_seconds: largest(|queue| queue.oldest_seconds),
        mean_seconds: mean(&queues),
        p95_seconds: largest(|queue| queue.p95_seconds),
        drain_seconds: largest(|queue| queue.drain_seconds),
        estimated: queues.iter().any(|queue| queue.estimated),
        partial: waiting.is_some() && queues.iter().any(|queue| queue.waiting.is_none()),
        state: QUEUE.judge(waiting).max(troubled.unwrap_or(State::Ok)),
        lines: QUEUE,
        gpus: loads.map(|node| NodeLoad { node: node.node.clone(), utilization_ratio: load(node) }).collect(),
        queues: queues.len(),
    }
}

/// Each queue counts by what it completes; where nobody knows that, all count the same.
fn mean(queues: &[&Queue]) -> Option<f64> {
    let weighed = |weight: fn(&Queue) -> f64| {
        let (mut sum, mut weights) = (0.0, 0.0);
        for queue in queues {
            let Some(mean) = queue.mean_seconds else { continue };
            sum += mean * weight(queue);
            weights += weight(queue);
        }
        (weights > 0.0).then(|| sum / weights)
    };
    weighed(|queue| queue.completed_per_minute.unwrap_or(0.0).max(0.0)).or_else(|| weighed(|_| 1.0))
}

#[expect(clippy::cast_precision_loss, reason = "a node has some GPUs")]
fn load(node: &Node) -> Option<f64> {
    let known: Vec<f64> = node.gpus.iter().filter_map(|gpu| gpu.utilization_ratio).collect();
    (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
}
