//! The parts of a page: what is painted first and what the stream replaces are the same texts, from
//! the same templates. Pure.
//!
//! Takes a [`View`]; gives each part's HTML by its name. A value that is not known reads "no data",
//! and a panel without a source says what to configure.

use askama::Template;
use diarwatch_shared::clock::Zone;
use diarwatch_shared::texts::Text;

use super::words::Words;
use super::{chart, words};
use crate::view::View;
use crate::view::figures::DayPanel;
use crate::view::fleet::{Gpu, Node, Presence, Worker};
use crate::view::lines::Line;
use crate::view::node::{NodeView, Unit};
use crate::view::services::Kind;
use crate::view::state::State;

/// Nodes that the page draws; the rest is counted, and is in the JSON.
pub const NODES_DRAWN_MAX: usize = 256;

/// The parts of a page by name.
pub type Parts = Vec<(&'static str, String)>;

/// The parts of the fleet's page.
#[must_use]
pub fn fleet(view: &View, w: Words, zone: &Zone) -> Parts {
    let panels = &view.panels;
    let p95 = |unit_said: String| {
        (unit_said, Unit::Seconds, "api_request_duration_p95_seconds", Text::ApiResponseTime)
    };
    let errors = |unit_said: String| (unit_said, Unit::Ratio, "api_errors_ratio", Text::ErrorRate);
    let api = day(&panels.api_p95, p95(w.latency(&panels.api_p95.value)), w, zone);
    let rate = day(&panels.error_rate, errors(w.rate(&panels.error_rate.value)), w, zone);
    vec![
        ("head", html(&Head { state: view.state, simulated: view.simulated, problems: &view.problems, w })),
        ("services", html(&Services { view, w })),
        ("api_p95", api.0),
        ("api_p95-chart", api.1),
        ("error_rate", rate.0),
        ("error_rate-chart", rate.1),
        ("sessions", html(&Sessions { view, w })),
        ("queue", html(&Queue { view, nodes: &view.nodes, w })),
        ("alerts", html(&Lines { lines: &view.alerts, none: Text::NoAlerts, link: true, w })),
        ("fleet", html(&Fleet { view, w })),
        ("self", html(&Own { view, w })),
    ]
}

/// The parts of a node's page.
#[must_use]
pub fn node(view: &View, of: &NodeView, w: Words, zone: &Zone) -> Parts {
    let node = &of.node;
    let charts = of.charts.iter().map(|recent| (w.t(recent.title), chart::recent(recent, w, zone))).collect();
    let queues = std::slice::from_ref(node);
    let queues = if node.queues.is_empty() { no_queues(w) } else { html(&Queues { nodes: queues, w }) };
    vec![
        ("head", html(&Head { state: node.state, simulated: node.simulated, problems: &view.problems, w })),
        ("node", html(&OneNode { node, w })),
        ("node-gpus", html(&Gpus { node, w })),
        ("node-workers", html(&Workers { node, w })),
        ("node-queues", queues),
        ("node-charts", html(&Charts { charts, w })),
        ("node-alerts", html(&Lines { lines: &of.alerts, none: Text::NoAlerts, link: false, w })),
        ("node-events", html(&Lines { lines: &of.events, none: Text::NoEvents, link: false, w })),
    ]
}

fn html(template: &impl Template) -> String {
    template.render().unwrap_or_else(|error| format!("cannot be rendered: {error}"))
}

fn no_queues(w: Words) -> String {
    format!("<p>{}</p><p class=\"hint\">{}</p>", w.t(Text::NoQueues), w.t(Text::HintQueue))
}

/// The present value of a figure, and its day.
fn day(panel: &DayPanel, of: (String, Unit, &str, Text), w: Words, zone: &Zone) -> (String, String) {
    let (said, unit, metric, title) = of;
    let warning = w.fill(Text::WarningFrom, w.axis(panel.lines.warning, unit));
    let critical = w.fill(Text::CriticalFrom, w.axis(panel.lines.critical, unit));
    let now = html(&Now { panel, metric, said, warning, critical, w });
    (now, chart::day(panel, unit, w.t(title), w, zone))
}

#[derive(Template)]
#[template(path = "parts/head.html")]
struct Head<'a> {
    state: State,
    simulated: bool,
    problems: &'a [String],
    w: Words,
}

#[derive(Template)]
#[template(path = "parts/services.html")]
struct Services<'a> {
    view: &'a View,
    w: Words,
}

impl Services<'_> {
    fn unknown_services(&self) -> bool {
        self.view.panels.services.tiles.iter().any(|tile| tile.kind == Kind::Expected)
    }
}

#[derive(Template)]
#[template(path = "parts/now.html")]
struct Now<'a> {
    panel: &'a DayPanel,
    metric: &'a str,
    said: String,
    warning: String,
    critical: String,
    w: Words,
}

#[derive(Template)]
#[template(path = "parts/sessions.html")]
struct Sessions<'a> {
    view: &'a View,
    w: Words,
}

impl Sessions<'_> {
    fn share(&self, ratio: &Option<f64>) -> String {
        share(*ratio)
    }
}

#[derive(Template)]
#[template(path = "parts/queue.html")]
struct Queue<'a> {
    view: &'a View,
    nodes: &'a [Node],
    w: Words,
}

impl Queue<'_> {
    /// Whether a queue has to be named though there is only one.
    fn queue_trouble(&self) -> bool {
        let mut queues = self.nodes.iter().flat_map(|node| &node.queues);
        queues.any(|queue| queue.up == Some(false) || queue.growing == Some(true))
    }
}

#[derive(Template)]
#[template(path = "parts/queues.html")]
struct Queues<'a> {
    nodes: &'a [Node],
    w: Words,
}

#[derive(Template)]
#[template(path = "parts/alerts.html")]
struct Lines<'a> {
    lines: &'a [Line],
    none: Text,
    link: bool,
    w: Words,
}

#[derive(Template)]
#[template(path = "parts/fleet.html")]
struct Fleet<'a> {
    view: &'a View,
    w: Words,
}

impl Fleet<'_> {
    fn worst_first(&self) -> Vec<&Node> {
        let mut nodes: Vec<&Node> = self.view.nodes.iter().collect();
        nodes.sort_by_key(|node| std::cmp::Reverse(node.state));
        nodes.truncate(NODES_DRAWN_MAX);
        nodes
    }

    fn gpus_worst_first<'n>(&self, node: &'n Node) -> Vec<&'n Gpu> {
        let mut gpus: Vec<&Gpu> = node.gpus.iter().collect();
        gpus.sort_by_key(|gpu| std::cmp::Reverse(gpu.state));
        gpus
    }

    fn left_out(&self) -> usize {
        self.view.nodes.len().saturating_sub(NODES_DRAWN_MAX)
    }

    fn share(&self, ratio: &Option<f64>) -> String {
        share(*ratio)
    }

    fn presence(&self, node: &Node) -> &'static str {
        presence(node)
    }

    fn presence_word(&self, node: &Node) -> &'static str {
        presence_word(node, self.w)
    }
}

#[derive(Template)]
#[template(path = "parts/own.html")]
struct Own<'a> {
    view: &'a View,
    w: Words,
}

impl Own<'_> {
    fn own(&self) -> [(&'static str, &'static str, u64); 9] {
        let own = &self.view.panels.own;
        let t = |text| self.w.t(text);
        [
            (t(Text::FramesStored), "frames_stored", own.frames_stored),
            (t(Text::FramesLost), "frames_lost", own.frames_lost),
            (t(Text::FramesDuplicate), "frames_duplicate", own.frames_duplicate),
            (t(Text::SeriesInMemory), "series", own.series),
            (t(Text::MessagesWaiting), "notifications_waiting", own.notifications_waiting),
            (t(Text::MessagesAccepted), "notifications_accepted", own.notifications_accepted),
            (
                t(Text::MessagesGivenUp),
                "notifications_given_up",
                own.notifications_dropped + own.notifications_refused,
            ),
            (t(Text::OpenStreams), "streams_open", own.streams_open),
            (t(Text::CutStreams), "streams_cut", own.streams_cut),
        ]
    }
}

#[derive(Template)]
#[template(path = "parts/node.html")]
struct OneNode<'a> {
    node: &'a Node,
    w: Words,
}

impl OneNode<'_> {
    fn presence(&self, node: &Node) -> &'static str {
        presence(node)
    }

    fn presence_word(&self, node: &Node) -> &'static str {
        presence_word(node, self.w)
    }
}

#[derive(Template)]
#[template(path = "parts/gpus.html")]
struct Gpus<'a> {
    node: &'a Node,
    w: Words,
}

#[derive(Template)]
#[template(path = "parts/workers.html")]
struct Workers<'a> {
    node: &'a Node,
    w: Words,
}

impl Workers<'_> {
    fn readiness(&self, worker: &Worker) -> &'static str {
        let text = match (worker.ready, worker.state) {
            (Some(true), _) => Text::Ready,
            _ if worker.left_alone => Text::LeftAlone,
            (Some(false), _) if worker.breaker_open == Some(true) => Text::RestartedTooOften,
            (Some(false), _) => Text::NotReady,
            (None, State::Unknown) => Text::NoData,
            (None, _) => Text::Loading,
        };
        self.w.t(text)
    }
}

#[derive(Template)]
#[template(path = "parts/charts.html")]
struct Charts {
    charts: Vec<(&'static str, String)>,
    w: Words,
}

/// The length of a bar of 100.
fn share(ratio: Option<f64>) -> String {
    words::short(ratio.unwrap_or(0.0).clamp(0.0, 1.0) * 100.0)
}

fn presence(node: &Node) -> &'static str {
    match node.presence {
        Presence::Live => "live",
        Presence::Stale => "stale",
        Presence::NeverSeen => "never_seen",
    }
}

fn presence_word(node: &Node, w: Words) -> &'static str {
    match node.presence {
        Presence::Live => w.t(Text::Live),
        Presence::Stale => w.t(Text::Stale),
        Presence::NeverSeen => w.t(Text::NeverSeen),
    }
}
