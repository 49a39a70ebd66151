//! Recent alerts as lines: every firing, every recovery, and what happened to a worker without ever
//! becoming an alert (its node could not be heard meanwhile). Newest first. Pure and bounded.

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::event::What;
use diarwatch_shared::node::NodeId;
use diarwatch_shared::texts::Text;
use serde::Serialize;

use super::Sources;
use super::fleet::label;
use super::state::State;
use crate::alerts::{Alert, Phase};
use crate::notify::message;
use crate::store::StoredEvent;

/// Lines of recent alerts.
pub const LINES_MAX: usize = 30;
/// Before an alert's begin and after its end, in which what happened to its worker is its own story.
const OF_ALERT_US: u64 = 30_000_000;

/// One line of recent alerts.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// When, in the configured zone.
    pub time: String,
    /// How bad.
    pub state: State,
    /// Shape of its level.
    pub shape: &'static str,
    /// Word of its level.
    pub level: &'static str,
    /// Whether the alert is firing still.
    pub firing: bool,
    /// What happened.
    pub text: String,
    /// On which node; empty when on none.
    pub node: String,
    /// What was done.
    pub action: Option<String>,
}

/// The newest lines.
pub(super) fn lines(of: &Sources<'_>) -> Vec<Line> {
    let told = |alert: &&Alert| alert.phase != Phase::Pending;
    let alerts: Vec<&Alert> = of.kept.alerts.active().chain(of.kept.alerts.resolved()).filter(told).collect();
    let mut lines = Vec::new();
    for alert in &alerts {
        if let Some(at) = alert.fired_at {
            let fired = Alert { phase: Phase::Firing, ..(*alert).clone() };
            lines.push(of_alert(of, &fired, at, alert.phase == Phase::Firing));
        }
        if let Some(at) = alert.resolved_at {
            lines.push(of_alert(of, alert, at, false));
        }
    }
    lines.extend(of.memory.events.iter().filter_map(|stored| of_event(of, stored, &alerts)));
    lines.sort_by_key(|line| std::cmp::Reverse(line.at_ms));
    lines.truncate(LINES_MAX);
    lines
}

fn of_alert(of: &Sources<'_>, alert: &Alert, at: UnixMicros, firing: bool) -> Line {
    let state = State::from(message::Level::of(alert));
    let summary = alert.summary(of.lang);
    let text = match state {
        State::Ok => format!("{}: {summary}", of.text(Text::Recovered)),
        _ => summary.to_owned(),
    };
    let action = message::action(alert, &of.memory.events, of.lang);
    line(of, at, state, text, alert.label("node"), action, firing)
}

/// What happened to a worker, unless an alert tells it.
fn of_event(of: &Sources<'_>, stored: &StoredEvent, alerts: &[&Alert]) -> Option<Line> {
    let worker = stored.event.worker()?;
    let restart = of.text(Text::AutoRestart);
    let seconds = |millis: u64| std::time::Duration::from_millis(millis).as_secs_f64();
    let (state, what, action) = match &stored.event.what {
        What::WorkerExited { reason, attempt, restart_in_ms, .. } => {
            let action = format!("{restart} #{attempt} +{:.1}s", seconds(*restart_in_ms));
            (State::Critical, format!("{}: {reason}", of.text(Text::ProcessEnded)), Some(action))
        }
        What::WorkerStartOverdue { reason, .. } => {
            (State::Warning, format!("{}: {reason}", of.text(Text::StartOverdue)), None)
        }
        What::WorkerReady { down_ms: Some(down_ms), .. } => {
            (State::Ok, of.text(Text::Recovered).to_owned(), Some(format!("{:.1}s", seconds(*down_ms))))
        }
        _ => return None,
    };
    let at = stored.event.at;
    let told = |alert: &&Alert| {
        let ends = alert.resolved_at.map_or(u64::MAX, |end| end.0.saturating_add(OF_ALERT_US));
        alert.label("node") == stored.node.as_str()
            && alert.label("worker") == worker.as_str()
            && at.0 >= alert.active_since.0.saturating_sub(OF_ALERT_US)
            && at.0 <= ends
    };
    if alerts.iter().any(told) {
        return None;
    }
    let text = format!("{} {what}", service_of(of, &stored.node, worker.as_str()));
    Some(line(of, at, state, text, stored.node.as_str(), action, false))
}

/// What people call a worker, as far as its node told.
fn service_of(of: &Sources<'_>, node: &NodeId, worker: &str) -> String {
    let mut all = of.memory.head.newest(node, "worker_restarts_total", i64::MIN);
    let service = all.find(|(key, _)| label(key, "worker") == worker).map(|(key, _)| label(key, "service"));
    service.filter(|name| !name.is_empty()).unwrap_or(worker).to_owned()
}

pub(super) fn line(
    of: &Sources<'_>,
    at: UnixMicros,
    state: State,
    text: String,
    node: &str,
    action: Option<String>,
    firing: bool,
) -> Line {
    Line {
        at_ms: at.as_millis(),
        time: of.zone.moment(at, of.now),
        state,
        shape: state.shape(),
        level: state.label(of.lang),
        firing,
        text,
        node: node.to_owned(),
        action,
    }
}
