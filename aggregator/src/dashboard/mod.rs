//! The page: server-rendered, whole without JavaScript, and live with it.
//!
//! Takes a [`View`]; gives HTML in its parts, the assets beside it, and a stream of the parts that
//! changed. Nothing is fetched from elsewhere; the policy in the header forbids it. Who reads slowly
//! loses his stream and nobody waits for him.

pub mod assets;
mod chart;
pub mod live;
pub mod parts;
pub mod stream;
pub mod words;

use askama::Template;
use diarwatch_shared::node::NodeId;
use diarwatch_shared::texts::{Lang, Text};

use crate::view::View;
use crate::view::state::State;
use parts::Parts;
use words::Words;

/// Only the page's own style sheet, scripts and stream; no frame, no form, nothing from elsewhere.
pub const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
     img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A page.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Page {
    /// The fleet.
    Fleet,
    /// One node.
    Node(NodeId),
}

impl Page {
    /// The page of a name: `fleet` or `node/NAME`.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        match name.strip_prefix("node/") {
            Some(node) => NodeId::new(node).ok().map(Self::Node),
            None => matches!(name, "fleet" | "/" | "").then_some(Self::Fleet),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Fleet => String::from("fleet"),
            Self::Node(node) => format!("node/{node}"),
        }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> String {
        match self {
            Self::Fleet => String::from("/"),
            Self::Node(node) => format!("/node/{node}"),
        }
    }
}

/// What a page and its stream have to agree on.
pub const BUILD: &str = concat!(env!("CARGO_PKG_VERSION"), " ", env!("DIARWATCH_PAGE"));

/// A panel of a page: its name, heading, parts, and whether it takes the whole width.
struct Panel {
    name: &'static str,
    title: Text,
    wide: bool,
    parts: &'static [&'static str],
}

const fn panel(name: &'static str, title: Text, wide: bool, parts: &'static [&'static str]) -> Panel {
    Panel { name, title, wide, parts }
}

/// As the requirements (10.1.2) draw them; then the fleet and the monitor itself.
const FLEET: [Panel; 8] = [
    panel("services", Text::ServiceStatus, true, &["services"]),
    panel("api_p95", Text::ApiResponseTime, false, &["api_p95-chart", "api_p95"]),
    panel("error_rate", Text::ErrorRate, false, &["error_rate-chart", "error_rate"]),
    panel("sessions", Text::Sessions, false, &["sessions"]),
    panel("queue", Text::ProcessingQueue, false, &["queue"]),
    panel("alerts", Text::RecentAlerts, true, &["alerts"]),
    panel("fleet", Text::FleetGrid, true, &["fleet"]),
    panel("self", Text::MonitorItself, true, &["self"]),
];

const NODE: [Panel; 7] = [
    panel("node", Text::State, true, &["node"]),
    panel("node-gpus", Text::Gpu, true, &["node-gpus"]),
    panel("node-workers", Text::Worker, true, &["node-workers"]),
    panel("node-queues", Text::Queue, true, &["node-queues"]),
    panel("node-charts", Text::Last15Minutes, true, &["node-charts"]),
    panel("node-alerts", Text::RecentAlerts, true, &["node-alerts"]),
    panel("node-events", Text::Events, true, &["node-events"]),
];

#[derive(Template)]
#[template(path = "fleet.html")]
struct FleetPage<'a> {
    page: String,
    path: String,
    view: &'a View,
    panels: &'static [Panel],
    parts: &'a Parts,
    zone: &'a str,
    style: &'static str,
    script: &'static str,
    plot: &'static str,
    w: Words,
}

#[derive(Template)]
#[template(path = "node.html")]
struct NodePage<'a> {
    name: &'a str,
    page: String,
    path: String,
    view: &'a View,
    panels: &'static [Panel],
    parts: &'a Parts,
    zone: &'a str,
    style: &'static str,
    script: &'static str,
    plot: &'static str,
    w: Words,
}

impl FleetPage<'_> {
    fn build(&self) -> &'static str {
        BUILD
    }

    fn state(&self) -> State {
        self.view.state
    }

    fn part(&self, name: &str) -> &str {
        part(self.parts, name)
    }
}

impl NodePage<'_> {
    fn build(&self) -> &'static str {
        BUILD
    }

    fn state(&self) -> State {
        let node = self.view.nodes.iter().find(|node| node.node == self.name);
        node.map_or(State::Unknown, |node| node.state)
    }

    fn part(&self, name: &str) -> &str {
        part(self.parts, name)
    }
}

fn part<'a>(parts: &'a Parts, name: &str) -> &'a str {
    parts.iter().find(|(known, _)| *known == name).map_or("", |(_, html)| html)
}

/// A page in a language, with its parts.
#[must_use]
pub fn render(of: &Page, view: &View, parts: &Parts, zone: &str, lang: Lang) -> String {
    let (page, path, w) = (of.name(), of.path(), Words { lang });
    let (style, script, plot) = (assets::STYLE.path, assets::SCRIPT.path, assets::PLOT.path);
    let rendered = match of {
        Page::Fleet => {
            FleetPage { page, path, view, panels: &FLEET, parts, zone, style, script, plot, w }.render()
        }
        Page::Node(node) => {
            let name = node.as_str();
            NodePage { name, page, path, view, panels: &NODE, parts, zone, style, script, plot, w }.render()
        }
    };
    rendered.unwrap_or_else(|error| format!("page cannot be rendered: {error}"))
}
