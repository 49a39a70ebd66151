//! Recent alerts as lines: every firing, every recovery, and what happened to a worker without ever
//! becoming an alert (its node could not be heard meanwhile). Newest first. Pure and bounded.

use std::collections::BTreeMap;

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::event::What;
use diarwatch_shared::node::NodeId;
use diarwatch_shared::texts::workers::Saying;
use diarwatch_shared::texts::{Text, fill};
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
    /// The same as `state`; programs know it by this name.
    pub class: &'static str,
    /// Whether the alert is firing still.
    pub firing: bool,
    /// What happened.
    pub text: String,
    /// On which node; empty when on none.
    pub node: String,
    /// What was done.
    pub action: Option<String>,
}

/// The newest lines. Candidates are put in order by their time alone, since there may be thousands.
pub(super) fn lines(of: &Sources<'_>) -> Vec<Line> {
    let told = |alert: &&Alert| alert.phase != Phase::Pending;
    let alerts: Vec<&Alert> = of.kept.alerts.active().chain(of.kept.alerts.resolved()).filter(told).collect();
    let mut moments: Vec<(UnixMicros, bool, &Alert)> = Vec::new();
    for alert in &alerts {
        moments.extend(alert.fired_at.map(|at| (at, false, *alert)));
        moments.extend(alert.resolved_at.map(|at| (at, true, *alert)));
    }
    moments.sort_by_key(|(at, ..)| std::cmp::Reverse(*at));
    let newest = moments.into_iter().take(LINES_MAX).map(|(at, is_end, alert)| {
        if is_end {
            return of_alert(of, alert, at, false);
        }
        let fired = Alert { phase: Phase::Firing, ..alert.clone() };
        of_alert(of, &fired, at, alert.phase == Phase::Firing)
    });
    let stories = stories(&alerts);
    let events = of.memory.events.iter().rev().filter_map(|stored| of_event(of, stored, &stories));
    let mut lines: Vec<Line> = newest.chain(events.take(LINES_MAX)).collect();
    lines.sort_by_key(|line| std::cmp::Reverse(line.at_ms));
    lines.truncate(LINES_MAX);
    lines
}

/// By node and worker: from when to when its alerts tell what happened to it.
type Stories<'a> = BTreeMap<(&'a str, &'a str), Vec<(u64, u64)>>;

fn stories<'a>(alerts: &[&'a Alert]) -> Stories<'a> {
    let mut stories = Stories::new();
    for alert in alerts.iter().filter(|alert| !alert.label("worker").is_empty()) {
        let begins = alert.active_since.0.saturating_sub(OF_ALERT_US);
        let ends = alert.resolved_at.map_or(u64::MAX, |end| end.0.saturating_add(OF_ALERT_US));
        stories.entry((alert.label("node"), alert.label("worker"))).or_default().push((begins, ends));
    }
    stories
}

fn of_alert(of: &Sources<'_>, alert: &Alert, at: UnixMicros, firing: bool) -> Line {
    let state = State::from(message::Level::of(alert));
    let summary = alert.summary(of.lang);
    let text = match state {
        State::Ok => match alert.recovery(of.lang) {
            Some(recovery) => recovery.to_owned(),
            None => format!("{}: {summary}", of.text(Text::Recovered)),
        },
        _ => summary.to_owned(),
    };
    let action = message::action(alert, &of.memory.events, of.lang);
    line(of, at, state, text, alert.label("node"), action, firing)
}

/// What happened to a worker, unless an alert tells it.
fn of_event(of: &Sources<'_>, stored: &StoredEvent, stories: &Stories<'_>) -> Option<Line> {
    let worker = stored.event.worker()?;
    let restart = of.text(Text::AutoRestart);
    let seconds = |millis: u64| std::time::Duration::from_millis(millis).as_secs_f64();
    let (state, what, action) = match &stored.event.what {
        What::WorkerExited { reason, attempt: 0, .. } => {
            let left = Saying::NotStartedAgain.in_lang(of.lang).to_owned();
            (State::Warning, format!("{}: {reason}", of.text(Text::ProcessEnded)), Some(left))
        }
        What::WorkerBreakerOpen { next_try_in_ms, reason, .. } => {
            let seconds = format!("{:.0}s", seconds(*next_try_in_ms));
            let next = fill(Saying::NextTry.in_lang(of.lang), &[&seconds]);
            (State::Critical, format!("{}: {reason}", of.text(Text::EventWorkerBreakerOpen)), Some(next))
        }
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
    let told = stories.get(&(stored.node.as_str(), worker.as_str()));
    if told.into_iter().flatten().any(|(begins, ends)| (*begins..=*ends).contains(&at.0)) {
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
        class: state.word(),
        firing,
        text,
        node: node.to_owned(),
        action,
    }
}
