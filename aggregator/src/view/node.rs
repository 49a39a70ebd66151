//! One node's page: what the fleet's page has of it, its last minutes as charts, and its events. Pure.

use diarwatch_shared::event::{RecoveryAction, What, XidAction};
use diarwatch_shared::node::NodeId;
use diarwatch_shared::texts::workers::Saying;
use diarwatch_shared::texts::{Text, fill};

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
    let what = &stored.event.what;
    let known = of_worker(of, what).or_else(|| of_supervision(of, what)).or_else(|| of_others(of, what));
    let (state, what) = known.unwrap_or_else(|| (State::Unknown, of.text(Text::UnknownEvent).to_owned()));
    let worker = stored.event.worker().map(|worker| format!("{worker}: ")).unwrap_or_default();
    lines::line(of, stored.event.at, state, format!("{worker}{what}"), stored.node.as_str(), None, false)
}

/// What happens to a worker's process.
fn of_worker(of: &Sources<'_>, what: &What) -> Option<(State, String)> {
    let text = |text: Text| of.text(text);
    Some(match what {
        What::WorkerStarted { pid, .. } => (State::Ok, format!("{} (PID {pid})", text(Text::ProcessStarted))),
        What::WorkerAdopted { pid, .. } => {
            (State::Ok, format!("{} (PID {pid})", text(Text::EventWorkerAdopted)))
        }
        What::WorkerReady { load_ms, .. } => {
            (State::Ok, format!("{} ({:.1}s)", text(Text::Ready), seconds(*load_ms)))
        }
        What::WorkerNotReady { reason, .. } => {
            (State::Critical, format!("{}: {reason}", text(Text::NotReady)))
        }
        What::WorkerStartOverdue { reason, .. } => {
            (State::Warning, format!("{}: {reason}", text(Text::StartOverdue)))
        }
        What::WorkerExited { reason, attempt: 0, .. } => {
            let left = Saying::NotStartedAgain.in_lang(of.lang);
            (State::Warning, format!("{}: {reason} ({left})", text(Text::ProcessEnded)))
        }
        What::WorkerExited { reason, attempt, restart_in_ms, .. } => {
            let restart = format!("{} #{attempt} +{:.1}s", text(Text::AutoRestart), seconds(*restart_in_ms));
            (State::Critical, format!("{}: {reason} ({restart})", text(Text::ProcessEnded)))
        }
        What::WorkerStable { ready_ms, .. } => {
            let minutes = seconds(*ready_ms) / 60.0;
            (State::Ok, format!("{} ({minutes:.0}m)", text(Text::EventWorkerStable)))
        }
        _ => return None,
    })
}

/// What is decided about a worker, and what is left of it.
fn of_supervision(of: &Sources<'_>, what: &What) -> Option<(State, String)> {
    let text = |text: Text| of.text(text);
    let say = |saying: Saying| saying.in_lang(of.lang);
    Some(match what {
        What::WorkerStopping { cause, reason, .. } => {
            let cause = say(Saying::from(*cause));
            (State::Warning, format!("{}: {cause}: {reason}", text(Text::EventWorkerStopping)))
        }
        What::WorkerLeftAlone { reason, .. } => {
            (State::Warning, format!("{}: {reason}", text(Text::EventWorkerLeftAlone)))
        }
        What::WorkerBreakerOpen { next_try_in_ms, reason, .. } => {
            let next = fill(say(Saying::NextTry), &[&format!("{:.0}s", seconds(*next_try_in_ms))]);
            (State::Critical, format!("{} ({next}): {reason}", text(Text::EventWorkerBreakerOpen)))
        }
        What::WorkerLeftover { advice, .. } => {
            (State::Critical, format!("{}: {advice}", text(Text::EventWorkerLeftover)))
        }
        What::WorkerTrouble { trouble, text: said, .. } => {
            (State::Warning, format!("{} ({trouble}): {said}", text(Text::EventWorkerTrouble)))
        }
        What::WorkerJobsLost { count, resubmitted, .. } => {
            let jobs = fill(say(Saying::JobsWere), &[count]);
            let back = fill(say(Saying::Resubmitted), &[resubmitted]);
            (State::Warning, format!("{}: {jobs} ({back})", text(Text::EventWorkerJobsLost)))
        }
        What::WorkerJobSetAside { job, outcome, .. } => {
            (State::Warning, format!("{}: {job}: {outcome}", text(Text::EventWorkerJobSetAside)))
        }
        What::WorkerOrder { verb, by, reason, refused, .. } => {
            let by = fill(say(Saying::By), &[by]);
            let why = reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            let no = refused.as_ref().map(|no| format!(" ({})", fill(say(Saying::Refused), &[no])));
            let state = if no.is_some() { State::Warning } else { State::Ok };
            let no = no.unwrap_or_default();
            (state, format!("{} {verb} {by}{why}{no}", text(Text::EventWorkerOrder)))
        }
        What::WorkerEvidence { restart, .. } => {
            let number = fill(say(Saying::RestartNumber), &[restart]);
            (State::Ok, format!("{} ({number})", text(Text::EventWorkerEvidence)))
        }
        _ => return None,
    })
}

fn of_others(of: &Sources<'_>, what: &What) -> Option<(State, String)> {
    let text = |text: Text| of.text(text).to_owned();
    Some(match what {
        What::AgentStarted { agent_version, .. } => {
            (State::Ok, format!("{} {agent_version}", text(Text::AgentStarted)))
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
        _ => return None,
    })
}

fn seconds(millis: u64) -> f64 {
    std::time::Duration::from_millis(millis).as_secs_f64()
}
