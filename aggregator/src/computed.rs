//! Series that the aggregator makes at evaluation time, over the store's: `up`.
//!
//! `up{service=...}` is 1 while a node's frames arrive (and, for a worker, while it says it is
//! ready; for a service that an agent looks at, while the probe is good), 0 when not. A node that has
//! never sent, a worker that still loads and a service whose agent is silent have no `up`: "no data"
//! is a state of its own, shown on the page, never green and never an alert that resolves.

use std::collections::BTreeSet;
use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::node::NodeId;
use diarwatch_shared::reading::Missing;
use diarwatch_shared::schema::Labels;

use crate::rules::{Point, Sample, Selector, Series, Source};
use crate::store::Memory;
use crate::view::figures::FIGURE_PRESENT;

/// A value that is older than this is not a node's present state.
pub const PRESENT: Duration = Duration::from_secs(10);

/// A node must have sent for so long before the absence of a series says anything: an agent that has
/// just started did not look at everything yet.
const SETTLED: Duration = Duration::from_secs(10);

/// The store's series with the computed ones.
pub struct Live<'a> {
    memory: &'a Memory,
    sending: &'a BTreeSet<String>,
    now: UnixMicros,
    up: Vec<Sample>,
}

/// The nodes whose frames arrive.
#[must_use]
pub fn sending(memory: &Memory, timeout: Duration, now: UnixMicros) -> BTreeSet<String> {
    // An arrival that lies ahead is of a clock that went back since.
    let fresh = |at: UnixMicros| now.since(at) <= timeout && at.since(now) <= timeout;
    let nodes = memory.nodes.iter().filter(|(_, state)| state.last_arrival.is_some_and(fresh));
    nodes.map(|(node, _)| node.to_string()).collect()
}

/// Whether a node's GPU values come from a fake NVML; without a name, whether any node's do.
#[must_use]
pub fn simulated(memory: &Memory, node: &str) -> bool {
    let fake = |node: &NodeId| {
        let mut facts = memory.head.newest(node, "gpu_info", i64::MIN);
        facts.any(|(key, _)| key.labels.get("simulated").is_some_and(|word| word == "true"))
    };
    memory.nodes.keys().filter(|known| node.is_empty() || known.as_str() == node).any(fake)
}

impl<'a> Live<'a> {
    /// The series of now.
    #[must_use]
    pub fn new(memory: &'a Memory, sending: &'a BTreeSet<String>, now: UnixMicros) -> Self {
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
            // What a silent node last saw of a service says nothing of the service.
            let since = if sends { now.minus(FIGURE_PRESENT).as_millis() } else { i64::MAX };
            for (key, good) in memory.head.newest(node, "service_up", since) {
                let own = key.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                let labels: Vec<(&str, &str)> = own.chain([("node", node.as_str())]).collect();
                up.push(sample(&labels, good > 0.0));
            }
        }
        Self { memory, sending, now, up }
    }

    /// Whether an alert of these labels, whose rule reads `inputs` and gave no sample, is over: what
    /// it reads is there again, or its node has been sending for a while without it. Never while its
    /// node is silent, and never while the node says that it cannot read it (a worker that loads, a
    /// GPU that is lost).
    #[must_use]
    pub fn is_over(&self, inputs: &BTreeSet<&str>, labels: &Labels, lookback: Duration) -> bool {
        let named = labels.get("node");
        let Some((node, _)) =
            self.memory.nodes.iter().find(|(node, _)| named.is_some_and(|name| node.as_str() == name))
        else {
            return self.sending.iter().any(|node| self.settled(node));
        };
        if !self.sending.contains(node.as_str()) {
            return false;
        }
        let of_alert = |series: &Labels| {
            let own = |name: &str| name != "node" && name != "__name__";
            series.iter().all(|(name, value)| !own(name) || labels.get(name) == Some(value))
        };
        let up = inputs.contains("up");
        let mut known =
            up && self.up.iter().any(|sample| of_alert(&sample.labels) && sample.labels.get("node") == named);
        let since = self.now.minus(lookback).as_millis();
        // `up` of a worker is made of its readiness, that of a service of its probe.
        let behind_up: &[&str] = if up { &["worker_ready", "service_up"] } else { &[] };
        for metric in inputs.iter().chain(behind_up).copied() {
            for (key, reading) in self.memory.head.newest_readings(node, metric, since) {
                match reading {
                    _ if !of_alert(&key.labels) => {}
                    Ok(_) | Err(Missing::NotSupported) => known = true,
                    Err(_) => return false,
                }
            }
        }
        known || self.settled(node.as_str())
    }

    fn settled(&self, node: &str) -> bool {
        let state = self.memory.nodes.iter().find(|(known, _)| known.as_str() == node);
        let since = state.and_then(|(_, state)| state.sending_since);
        since.is_some_and(|since| self.now.since(since) >= SETTLED)
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

    const NOW: UnixMicros = UnixMicros(1_000_000_000);
    const LOOKBACK: Duration = Duration::from_secs(300);

    #[test]
    fn a_service_is_up_as_far_as_an_agent_that_sends_sees_it() {
        use diarwatch_shared::frame::{Body, Group};
        use diarwatch_shared::schema::{GroupDef, Schema, SeriesDef, SeriesKey};
        let mut memory = memory(600, None);
        let node = NodeId::new("gpu-01").unwrap();
        let keys =
            ["API Gateway", "PostgreSQL"].map(|name| SeriesKey::new("service_up", &[("service", name)]));
        let group = GroupDef { name: "g".into(), series: keys.map(SeriesDef::of).into() };
        let times = vec![NOW.minus(Duration::from_secs(30))];
        let body = Body { groups: vec![Group { times, columns: vec![vec![Ok(1.0)], vec![Ok(0.0)]] }] };
        memory.head.insert(&node, &Schema::new(vec![group]), &body, NOW, true);
        let up = |memory: &Memory| -> Vec<(String, f64)> {
            let sending = sending(memory, Duration::from_secs(5), NOW);
            let all =
                Live::new(memory, &sending, NOW).instant(&Selector::named("up"), NOW.as_millis(), LOOKBACK);
            all.iter().map(|sample| (sample.labels["service"].clone(), sample.value)).collect()
        };
        assert_eq!(
            up(&memory),
            [("gpu-01".into(), 1.0), ("API Gateway".into(), 1.0), ("PostgreSQL".into(), 0.0)]
        );
        let alert = [("node", "gpu-01"), ("service", "PostgreSQL"), ("severity", "critical")];
        assert!(is_over(&memory, "up", &alert), "its rule gave no sample though its probe is there");
        for state in memory.nodes.values_mut() {
            state.last_arrival = Some(NOW.minus(Duration::from_secs(60)));
        }
        assert_eq!(up(&memory), [("gpu-01".into(), 0.0)], "a silent node's last look is no outage of others");
        assert!(!is_over(&memory, "up", &alert), "nor its end");
    }

    /// A node that sends since `since_s` seconds, with one reading of a worker a second ago.
    fn memory(since_s: u64, reading: Option<diarwatch_shared::reading::Reading>) -> Memory {
        use diarwatch_shared::frame::{Body, Group};
        use diarwatch_shared::schema::{GroupDef, Schema, SeriesDef, SeriesKey};
        let mut memory = Memory::new(Duration::from_secs(900), &[]);
        let node = NodeId::new("gpu-01").unwrap();
        let at = NOW.minus(Duration::from_secs(1));
        let sending_since = Some(NOW.minus(Duration::from_secs(since_s)));
        let state = NodeState { last_arrival: Some(at), sending_since, ..NodeState::default() };
        memory.nodes.insert(node.clone(), state);
        if let Some(reading) = reading {
            let key = SeriesKey::new("worker_ready", &[("worker", "w"), ("service", "s")]);
            let group = GroupDef { name: "g".into(), series: vec![SeriesDef::of(key)] };
            let body = Body { groups: vec![Group { times: vec![at], columns: vec![vec![reading]] }] };
            memory.head.insert(&node, &Schema::new(vec![group]), &body, NOW, true);
        }
        memory
    }

    fn is_over(memory: &Memory, input: &str, labels: &[(&str, &str)]) -> bool {
        let sending = sending(memory, Duration::from_secs(5), NOW);
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Live::new(memory, &sending, NOW).is_over(&BTreeSet::from([input]), &labels, LOOKBACK)
    }

    #[test]
    fn a_missing_reading_ends_no_alert_and_a_value_ends_it_at_once() {
        let alert = [("node", "gpu-01"), ("worker", "w"), ("service", "s"), ("severity", "critical")];
        for metric in ["worker_ready", "up"] {
            assert!(is_over(&memory(0, Some(Ok(1.0))), metric, &alert), "{metric}");
            assert!(!is_over(&memory(600, Some(Err(Missing::NotYet))), metric, &alert), "{metric} loads");
        }
        assert!(is_over(&memory(600, Some(Err(Missing::NotSupported))), "worker_ready", &alert));
        let other = [("node", "gpu-01"), ("worker", "other"), ("service", "s")];
        assert!(is_over(&memory(600, Some(Err(Missing::NotYet))), "worker_ready", &other), "it is gone");
    }

    #[test]
    fn what_a_silent_node_said_last_ends_no_alert() {
        let mut memory = memory(600, Some(Ok(1.0)));
        for state in memory.nodes.values_mut() {
            state.last_arrival = Some(NOW.minus(Duration::from_secs(60)));
        }
        assert!(!is_over(&memory, "worker_ready", &[("node", "gpu-01"), ("worker", "w"), ("service", "s")]));
    }

    #[test]
    fn a_node_that_has_just_come_back_did_not_yet_say_everything() {
        let alert = [("node", "gpu-01"), ("worker", "w"), ("service", "s")];
        assert!(!is_over(&memory(0, None), "worker_ready", &alert));
        assert!(is_over(&memory(10, None), "worker_ready", &alert), "the worker is no longer configured");
    }

    #[test]
    fn an_alert_over_the_fleet_is_not_over_because_the_fleet_is_silent() {
        let sum = [("severity", "critical")];
        assert!(is_over(&memory(600, None), "worker_ready", &sum));
        let mut silent = memory(600, None);
        for state in silent.nodes.values_mut() {
            state.last_arrival = Some(NOW.minus(Duration::from_secs(60)));
        }
        assert!(!is_over(&silent, "worker_ready", &sum));
        assert!(!is_over(&Memory::new(LOOKBACK, &[]), "worker_ready", &sum));
    }

    #[test]
    fn a_clock_that_went_back_lets_no_silent_node_live() {
        let mut memory = memory(600, None);
        for state in memory.nodes.values_mut() {
            state.last_arrival = Some(NOW.plus(Duration::from_secs(3_600)));
        }
        assert!(sending(&memory, Duration::from_secs(5), NOW).is_empty());
    }
}
