//! An alert in words: the same words for every channel and for the page. Pure.

use diarwatch_shared::clock::{UnixMicros, Zone};
use diarwatch_shared::event::What;
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

/// What the agent did about it: of a firing alert the newest restart that was decided, of one that
/// is over how the worker came back.
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
    events
        .into_iter()
        .filter(of_worker)
        .filter_map(|stored| said(&stored.event.what, alert.phase, lang))
        .last()
}

fn said(what: &What, phase: Phase, lang: Lang) -> Option<String> {
    match what {
        What::WorkerExited { reason, attempt, .. } => {
            Some(format!("{} #{attempt}: {reason}", Text::AutoRestart.in_lang(lang)))
        }
        What::WorkerReady { down_ms: Some(down_ms), .. } if phase == Phase::Resolved => {
            let seconds = std::time::Duration::from_millis(*down_ms).as_secs_f64();
            Some(format!("{} {seconds:.1}s", Text::AutoRestart.in_lang(lang)))
        }
        _ => None,
    }
}

/// One line: shape, word, what happened, where.
#[must_use]
pub fn headline(alert: &Alert, lang: Lang) -> String {
    let level = Level::of(alert);
    let state = if alert.phase == Phase::Resolved { Text::Recovered } else { Text::Firing };
    let node = match alert.label("node") {
        "" => String::new(),
        node => format!(" [{node}]"),
    };
    format!("{} {} {}: {}{node}", level.shape(), level.word(lang), state.in_lang(lang), alert.summary())
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
