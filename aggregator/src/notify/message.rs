//! An alert in words: the same words for every channel and for the page. Pure.

use diarwatch_shared::clock::{UnixMicros, Zone};
use diarwatch_shared::event::What;
use diarwatch_shared::texts::workers::Saying;
use diarwatch_shared::texts::{Lang, Text};

use crate::alerts::{Alert, Phase};
use crate::store::StoredEvent;

/// Before an alert's begin, for what led to it: an exit is seen before the value that tells of it.
const LED_TO_US: u64 = 30_000_000;

/// How bad: the `severity` label, or over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Somebody has to act.
    Critical,
    /// Somebody has to look.
    Warning,
    /// It is over.
    Ok,
}

impl Level {
    /// The level of an alert.
    #[must_use]
    pub fn of(alert: &Alert) -> Self {
        match (alert.phase, alert.label("severity")) {
            (Phase::Resolved, _) => Self::Ok,
            (_, "critical") => Self::Critical,
            _ => Self::Warning,
        }
    }

    /// Its shape: colour is never the only carrier.
    #[must_use]
    pub fn shape(self) -> &'static str {
        match self {
            Self::Critical => "■",
            Self::Warning => "▲",
            Self::Ok => "●",
        }
    }

    /// Its word.
    #[must_use]
    pub fn word(self, lang: Lang) -> &'static str {
        match self {
            Self::Critical => Text::Critical.in_lang(lang),
            Self::Warning => Text::Warning.in_lang(lang),
            Self::Ok => Text::Ok.in_lang(lang),
        }
    }
}

/// What happened to the alert's worker and what the agent did about it, as far as events tell: of an
/// alert that is firing the restart that was decided or what the probe saw; of one that is over how
/// the worker came back. A worker that came back by itself was not restarted, and is not said to be.
#[must_use]
pub fn action<'a>(
    alert: &Alert,
    events: impl IntoIterator<Item = &'a StoredEvent>,
    lang: Lang,
) -> Option<String> {
    let from = UnixMicros(alert.active_since.0.saturating_sub(LED_TO_US));
    let of_worker = |stored: &&StoredEvent| {
        stored.node.as_str() == alert.label("node")
            && stored.event.worker().is_some_and(|worker| worker.as_str() == alert.label("worker"))
            && stored.event.at >= from
            && alert.resolved_at.is_none_or(|end| stored.event.at <= end)
    };
    let restart = Text::AutoRestart.in_lang(lang);
    let seconds = |millis: u64| std::time::Duration::from_millis(millis).as_secs_f64();
    let (mut exited, mut said, mut came_back) = (false, None, None);
    for stored in events.into_iter().filter(of_worker) {
        match &stored.event.what {
            // Attempt 0 is none: it is left as it is, and whoever starts it is not the agent.
            What::WorkerExited { reason, attempt: 0, .. } => {
                exited = false;
                said = Some(format!("{}: {reason}", Saying::NotStartedAgain.in_lang(lang)));
            }
            What::WorkerExited { reason, attempt, restart_in_ms, .. } => {
                exited = true;
                said = Some(format!("{restart} #{attempt} +{:.1}s: {reason}", seconds(*restart_in_ms)));
            }
            What::WorkerNotReady { reason, .. } | What::WorkerStartOverdue { reason, .. } => {
                said = Some(reason.clone());
            }
            What::WorkerReady { down_ms: Some(down_ms), .. } => {
                came_back = exited.then(|| format!("{restart} {:.1}s", seconds(*down_ms)));
                exited = false;
                // What led to an earlier trouble says nothing of this one.
                if alert.resolved_at.is_none() || stored.event.at < alert.active_since {
                    said = None;
                }
            }
            _ => {}
        }
    }
    if alert.phase == Phase::Resolved { came_back } else { said }
}

/// One line: shape, word, what happened, where.
#[must_use]
pub fn headline(alert: &Alert, lang: Lang) -> String {
    let level = Level::of(alert);
    let over = alert.phase == Phase::Resolved;
    let state = if over { Text::Recovered } else { Text::Firing };
    let node = match alert.label("node") {
        "" => String::new(),
        node => format!(" [{node}]"),
    };
    let said = match alert.recovery(lang).filter(|_| over) {
        Some(recovery) => recovery.to_owned(),
        None => format!("{}: {}", state.in_lang(lang), alert.summary(lang)),
    };
    format!("{} {} {said}{node}", level.shape(), level.word(lang))
}

/// Name and value pairs for the fields of a message.
#[must_use]
pub fn fields(alert: &Alert, action: Option<&str>, zone: &Zone, lang: Lang) -> Vec<(&'static str, String)> {
    let text = |text: Text| text.in_lang(lang);
    let target =
        ["service", "node", "gpu"].iter().map(|name| alert.label(name)).filter(|value| !value.is_empty());
    let mut fields = vec![
        (text(Text::Target), target.collect::<Vec<_>>().join(" / ")),
        (
            text(Text::Severity),
            Level::of(&Alert { phase: Phase::Firing, ..alert.clone() }).word(lang).to_owned(),
        ),
        (text(Text::StartedAt), zone.date_time(alert.active_since)),
    ];
    if let Some(end) = alert.resolved_at {
        fields.push((text(Text::ResolvedAt), zone.date_time(end)));
    }
    if let Some(action) = action {
        fields.push((text(Text::ActionTaken), action.to_owned()));
    }
    fields.retain(|(_, value)| !value.is_empty());
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use diarwatch_shared::event::Event;
    use diarwatch_shared::node::{NodeId, WorkerId};
    use diarwatch_shared::schema::Labels;

    const AT: u64 = 1_000_000_000;

    fn alert(resolved_at: Option<u64>) -> Alert {
        Alert {
            labels: [("node", "gpu-01"), ("worker", "w")]
                .map(|(name, value)| (name.into(), value.into()))
                .into(),
            annotations: Labels::new(),
            value: 0.0,
            phase: if resolved_at.is_some() { Phase::Resolved } else { Phase::Firing },
            active_since: UnixMicros(AT),
            fired_at: Some(UnixMicros(AT)),
            resolved_at: resolved_at.map(UnixMicros),
            seen_at: UnixMicros(AT),
            keep_firing_for_us: 0,
        }
    }

    fn said(alert: &Alert, events: &[(u64, What)]) -> Option<String> {
        let stored = |(at, what): &(u64, What)| StoredEvent {
            node: NodeId::new("gpu-01").unwrap(),
            event: Event::new(UnixMicros(*at), what.clone()),
        };
        action(alert, &events.iter().map(stored).collect::<Vec<_>>(), Lang::En)
    }

    fn worker() -> WorkerId {
        WorkerId::new("w").unwrap()
    }

    fn exited() -> What {
        What::WorkerExited {
            worker: worker(),
            pid: None,
            reason: "signal 9".into(),
            attempt: 1,
            restart_in_ms: 1_000,
        }
    }

    fn not_ready() -> What {
        What::WorkerNotReady { worker: worker(), reason: "CUDA out of memory".into() }
    }

    fn ready() -> What {
        What::WorkerReady { worker: worker(), load_ms: 1, down_ms: Some(3_600) }
    }

    #[test]
    fn a_restart_is_told_when_there_was_one() {
        assert_eq!(said(&alert(None), &[(AT, exited())]).unwrap(), "automatic restart #1 +1.0s: signal 9");
        let events = [(AT, exited()), (AT + 5, ready())];
        assert_eq!(said(&alert(Some(AT + 9)), &events).unwrap(), "automatic restart 3.6s");
        let its_begin = Alert { phase: Phase::Firing, ..alert(Some(AT + 9)) };
        assert_eq!(said(&its_begin, &events).unwrap(), "automatic restart #1 +1.0s: signal 9");
    }

    #[test]
    fn a_worker_that_a_person_stopped_is_not_said_to_be_restarted() {
        let stopped = What::WorkerExited {
            worker: worker(),
            pid: None,
            reason: "exit code 0".into(),
            attempt: 0,
            restart_in_ms: 0,
        };
        assert_eq!(said(&alert(None), &[(AT, stopped.clone())]).unwrap(), "not started again: exit code 0");
        assert_eq!(said(&alert(Some(AT + 9)), &[(AT, stopped), (AT + 5, ready())]), None);
    }

    #[test]
    fn a_worker_that_came_back_by_itself_was_not_restarted() {
        assert_eq!(said(&alert(None), &[(AT, not_ready())]).unwrap(), "CUDA out of memory");
        assert_eq!(said(&alert(Some(AT + 9)), &[(AT, not_ready()), (AT + 5, ready())]), None);
    }

    #[test]
    fn an_exit_that_was_over_before_is_not_this_alerts() {
        let events = [(AT - 9_000_000, exited()), (AT - 5_000_000, ready()), (AT, not_ready())];
        assert_eq!(said(&alert(None), &events).unwrap(), "CUDA out of memory");
        let events = [&events[..], &[(AT + 5, ready())]].concat();
        assert_eq!(said(&alert(Some(AT + 9)), &events), None);
    }
}
