//! What the page and `/api/v1/status` show, as one document: built from the store, the desk and the
//! day, numbers in base units, `null` for what is not known. Pure.

pub mod chart;
pub mod figures;
pub mod fleet;
pub mod lines;
pub mod node;
pub mod own;
pub mod queue;
pub mod services;
pub mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use diarwatch_shared::clock::{UnixMicros, Zone};
use diarwatch_shared::texts::{Lang, Text};
use serde::Serialize;

use crate::alerts::Phase;
use crate::desk::Kept;
use crate::engine::NO_CHANNEL;
use crate::notify::message::Level;
use crate::store::Memory;
use crate::trend::Trend;
use figures::{DayPanel, Figures, Sessions};
use fleet::Node;
use lines::Line;
use own::{Own, Streams};
use queue::QueuePanel;
use services::Services;
use state::State;

/// Version of the document.
pub const VIEW_SCHEMA: u16 = 1;

/// What the document is built from.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// What the store has in memory.
    pub memory: &'a Memory,
    /// Alerts and messages.
    pub kept: &'a Kept,
    /// The day.
    pub trend: &'a Trend,
    /// Why the day is not on disk, for a person.
    pub trend_problem: Option<&'a str>,
    /// The nodes whose frames arrive.
    pub sending: &'a BTreeSet<String>,
    /// Services that have a tile whether they are known or not.
    pub services: &'a [String],
    /// The page's streams.
    pub streams: Streams,
    /// The zone of times and of the day.
    pub zone: &'a Zone,
    /// The language of texts.
    pub lang: Lang,
    /// The present.
    pub now: UnixMicros,
}

impl Sources<'_> {
    fn text(&self, text: Text) -> &'static str {
        text.in_lang(self.lang)
    }
}

/// Everything on the page.
#[derive(Clone, Debug, Serialize)]
pub struct View {
    schema: u16,
    kind: &'static str,
    /// When it was made, in the configured zone.
    pub updated: String,
    /// When it was made, in milliseconds since 1970.
    pub updated_at_ms: i64,
    /// The worst of everything that is known.
    pub state: State,
    /// Whether any GPU value comes from a fake NVML.
    pub simulated: bool,
    /// The panels as the requirements draw them.
    pub panels: Panels,
    /// The nodes, by name.
    pub nodes: Vec<Node>,
    /// Recent alerts, newest first.
    pub alerts: Vec<Line>,
    /// What keeps the aggregator from its work, for a person.
    pub problems: Vec<String>,
}

/// The panels beside nodes and alerts.
#[derive(Clone, Debug, Serialize)]
pub struct Panels {
    /// サービスステータス.
    pub services: Services,
    /// APIレスポンスタイム (P95), seconds.
    pub api_p95: DayPanel,
    /// エラー率.
    pub error_rate: DayPanel,
    /// 同時セッション数.
    pub sessions: Sessions,
    /// 処理キュー.
    pub queue: QueuePanel,
    /// The aggregator itself.
    #[serde(rename = "self")]
    pub own: Own,
}

/// Builds the document.
#[must_use]
pub fn of(sources: &Sources<'_>) -> View {
    let Sources { memory, kept, .. } = sources;
    let nodes = fleet::nodes(sources);
    let figures = Figures::of(memory, sources.sending, sources.now);
    let outbox = kept.outbox.problem.as_ref().map(|problem| match problem.as_str() {
        NO_CHANNEL => Text::NoChannel.in_lang(sources.lang).to_owned(),
        problem => problem.to_owned(),
    });
    let mut problems: Vec<String> =
        memory.problem.iter().chain(&kept.problem).cloned().chain(outbox).collect();
    problems.extend(sources.trend_problem.map(str::to_owned));
    problems.extend(kept.faults.iter().cloned());
    let panels = Panels {
        services: services::panel(sources, &nodes),
        api_p95: figures.api_p95(sources),
        error_rate: figures.error_rate(sources),
        sessions: figures.sessions(sources),
        queue: queue::panel(&nodes),
        own: own::panel(sources, !problems.is_empty()),
    };
    View {
        schema: VIEW_SCHEMA,
        kind: "fleet_status",
        updated: sources.zone.date_time(sources.now),
        updated_at_ms: sources.now.as_millis(),
        state: worst(&panels, kept),
        simulated: nodes.iter().any(|node| node.simulated),
        panels,
        alerts: lines::lines(sources),
        nodes,
        problems,
    }
}

/// How each tile stands, by its key: what the day remembers.
#[must_use]
pub fn standing(sources: &Sources<'_>) -> Vec<(String, State)> {
    let tiles = services::panel(sources, &fleet::nodes(sources)).tiles;
    tiles.iter().map(|tile| (tile.key(), tile.state)).collect()
}

/// One word for everything. What is not known is no trouble, unless nothing is known at all.
fn worst(panels: &Panels, kept: &Kept) -> State {
    let firing = kept.alerts.active().filter(|alert| alert.phase == Phase::Firing);
    let alerts = firing.map(|alert| State::from(Level::of(alert)));
    let Panels { services, api_p95, error_rate, sessions, queue, own } = panels;
    let states = [
        services.state,
        api_p95.state,
        error_rate.state,
        sessions.state,
        queue.state,
        own.state.min(State::Warning),
    ];
    let known = states.into_iter().filter(|state| *state != State::Unknown).chain(alerts);
    let worst = known.max().unwrap_or(State::Unknown);
    // The aggregator alone being well says nothing of the fleet.
    if worst == State::Ok && services.state == State::Unknown { State::Unknown } else { worst }
}
