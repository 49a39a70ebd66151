//! One node's page: what the fleet's page has of it, its last minutes as charts, and its events. Pure.

use diarwatch_shared::event::{RecoveryAction, What, XidAction};
use diarwatch_shared::node::NodeId;
use diarwatch_shared::texts::Text;

use super::Sources;
use super::chart::{self, Point};
use super::fleet::{Node, label};
use super::lines::Line;
use super::state::State;
use super::{View, lines};

/// Events of a node that its page shows.
pub const EVENTS_MAX: usize = 50;
/// What a chart of the last minutes shows.
const RECENT_MS: i64 = 900_000;
/// Series of one chart: a node has at most some GPUs.
const SERIES_MAX: usize = 16;

/// What is drawn of a node's GPUs: metric, heading, unit, and the value where the axis ends at least.
pub const CHARTS: [(&str, Text, Unit, f64); 4] = [
    ("gpu_utilization_ratio", Text::Utilization, Unit::Ratio, 1.0),
    ("gpu_memory_used_bytes", Text::Memory, Unit::Bytes, 0.0),
    ("gpu_power_watts", Text::Power, Unit::Watts, 0.0),
    ("gpu_temperature_celsius", Text::Temperature, Unit::Celsius, 0.0),
];

/// The unit of a chart's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A part of one.
    Ratio,
    /// Bytes.
    Bytes,
    /// Watts.
    Watts,
    /// Degrees Celsius.
    Celsius,
    /// Seconds.
    Seconds,
}

/// The last minutes of a metric, a line for each GPU.
#[derive(Clone, Debug)]
pub struct Recent {
    /// The metric.
    pub metric: &'static str,
    /// Its heading.
    pub title: Text,
    /// Its unit.
    pub unit: Unit,
    /// When the chart begins, in milliseconds since 1970.
    pub begins_ms: i64,
    /// When it ends.
    pub ends_ms: i64,
    /// What a point stands for.
    pub step_ms: i64,
    /// The least value at the top of the axis.
    pub top: f64,
    /// Each GPU's index and points.
    pub series: Vec<(String, Vec<Point>)>,
}

/// A node's page.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// The node.
    pub node: Node,
    /// Its charts.
    pub charts: Vec<Recent>,
    /// Its alerts, newest first.
    pub alerts: Vec<Line>,
    /// What happened on it, newest first.
    pub events: Vec<Line>,
}

/// A node's page; none for a name that is not known.
#[must_use]
pub fn of(of: &Sources<'_>, view: &View, name: &NodeId) -> Option<NodeView> {
    let node = view.nodes.iter().find(|node| node.node == name.as_str())?.clone();
    let events = of.memory.events.iter().rev().filter(|stored| stored.node == *name).take(EVENTS_MAX);
    Some(NodeView {
        charts: CHARTS.iter().map(|chart| recent(of, name, *chart)).collect(),
        alerts: view.alerts.iter().filter(|line| line.node == node.node).cloned().collect(),
        events: events.map(|stored| told(of, stored)).collect(),
        node,
    })
}

fn recent(of: &Sources<'_>, node: &NodeId, chart: (&'static str, Text, Unit, f64)) -> Recent {
    let (metric, title, unit, top) = chart;
    let now_ms = of.now.as_millis();
    let step_ms = chart::recent_step_ms(RECENT_MS);
    let ends_ms = now_ms.div_euclid(step_ms) * step_ms;
    let begins_ms = ends_ms - RECENT_MS;
    // Memory is drawn against what there is of it.
    let total = of.memory.head.newest(node, "gpu_memory_total_bytes", begins_ms).map(|(_, value)| value);
    let top = if unit == Unit::Bytes { total.fold(top, f64::max) } else { top };
    let series = of.memory.head.readings(node, metric, begins_ms).take(SERIES_MAX);
    let series = series
        .map(|(key, readings)| (label(key, "gpu").to_owned(), chart::recent(readings, step_ms, now_ms)));
    Recent { metric, title, unit, begins_ms, ends_ms, step_ms, top, series: series.collect() }
}

/// An event in words.
fn told(of: &Sources<'_>, stored: &crate::store::StoredEvent) -> Line {
    let text = |text: Text| of.text(text).to_owned();
    let seconds = |millis: u64| std::time::Duration::from_millis(millis).as_secs_f64();
    let worker = stored.event.worker().map(|worker| format!("{worker}: ")).unwrap_or_default();
    let (state, what) = match &stored.event.what {
        What::AgentStarted { agent_version, .. } => {
            (State::Ok, format!("{} {agent_version}", text(Text::AgentStarted)))
        }
        What::WorkerStarted { pid, .. } => (State::Ok, format!("{} (PID {pid})", text(Text::ProcessStarted))),
        What::WorkerReady { load_ms, .. } => {
            (State::Ok, format!("{} ({:.1}s)", text(Text::Ready), seconds(*load_ms)))
        }
        What::WorkerNotReady { reason, .. } => {
            (State::Critical, format!("{}: {reason}", text(Text::NotReady)))
        }
        What::WorkerStartOverdue { reason, .. } => {
            (State::Warning, format!("{}: {reason}", text(Text::StartOverdue)))
        }
        What::WorkerExited { reason, attempt, restart_in_ms, .. } => {
            let restart = format!("{} #{attempt} +{:.1}s", text(Text::AutoRestart), seconds(*restart_in_ms));
            (State::Critical, format!("{}: {reason} ({restart})", text(Text::ProcessEnded)))
        }
        What::GpuDriverUnresponsive { function, .. } => {
            (State::Critical, format!("{}: {function}", text(Text::DriverUnresponsive)))
        }
        What::GpuDriverRecovered => (State::Ok, text(Text::DriverRecovered)),
        What::GpuDriverAbsent { reason } => (State::Warning, format!("{}: {reason}", text(Text::NoDriver))),
        What::GpuXid { gpu, code, action, text: said, .. } => {
            let state = if *action >= XidAction::ResetGpu { State::Critical } else { State::Warning };
            let gpu = gpu.map(|gpu| format!(" GPU {gpu}")).unwrap_or_default();
            (state, format!("{} {code}{gpu}: {said}", text(Text::EventGpuXid)))
        }
        What::GpuRecoveryAction { gpu, action, .. } => {
            let state = if *action == RecoveryAction::None { State::Ok } else { State::Critical };
            (state, format!("{} GPU {gpu}: {}", text(Text::EventGpuRecoveryAction), action.word()))
        }
        _ => (State::Unknown, text(Text::UnknownEvent)),
    };
    lines::line(of, stored.event.at, state, format!("{worker}{what}"), stored.node.as_str(), None, false)
}
