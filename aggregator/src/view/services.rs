//! Service tiles: everything that has an `up`, as the requirements draw it, and what is expected. Pure.
//!
//! Takes nodes, workers, probes and firing alerts; gives a tile each, in the configured order, with the
//! reason why it is not well and since when. A name that is configured and of which nothing is known
//! is there all the same: no data is a state of its own.

use std::collections::BTreeMap;

use diarwatch_shared::texts::Text;
use serde::Serialize;

use super::Sources;
use super::figures::newest;
use super::fleet::{Gpu, Node, Presence, Worker, label};
use super::state::State;
use crate::alerts::{Alert, Phase};
use crate::notify::message::Level;

/// Tiles of the document; a fleet of a hundred nodes with eight workers each has 900.
pub const TILES_MAX: usize = 1_024;

/// What stands behind a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A worker of a node.
    Worker,
    /// A service that agents look at.
    Probe,
    /// A node.
    Node,
    /// Only its name is configured.
    Expected,
}

/// A tile.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tile {
    /// What people call it.
    pub service: String,
    /// What stands behind it.
    pub kind: Kind,
    /// The node that it runs on or that looks at it.
    pub node: Option<String>,
    /// Whether another tile has the same name, so that the node has to be said.
    pub shared_name: bool,
    /// How it stands.
    pub state: State,
    /// Why it is not well.
    pub reason: Option<String>,
    /// More of the reason: what the alert says.
    pub detail: Option<String>,
    /// Since when it stands so, in milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// Since when, in the configured zone.
    pub since: Option<String>,
}

/// The panel.
#[derive(Clone, Debug, Serialize)]
pub struct Services {
    /// The worst of the tiles.
    pub state: State,
    /// The tiles.
    pub tiles: Vec<Tile>,
    /// Tiles that were left out because there were too many.
    pub left_out: usize,
}

impl Tile {
    /// What tells it from the others.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{:?}/{}/{}", self.kind, self.node.as_deref().unwrap_or_default(), self.service)
    }

    fn new(kind: Kind, service: &str, node: Option<&str>, state: State, reason: Option<String>) -> Self {
        Self {
            service: service.to_owned(),
            kind,
            node: node.map(str::to_owned),
            shared_name: false,
            state,
            reason,
            detail: None,
            since_ms: None,
            since: None,
        }
    }

    /// The worse state counts, and its reason.
    fn raise(&mut self, state: State, reason: &str, detail: Option<&str>) {
        if state > self.state || (state == self.state && self.reason.is_none()) {
            self.state = state;
            self.reason = Some(reason.to_owned());
        }
        if self.detail.is_none() {
            self.detail = detail.map(str::to_owned);
        }
    }
}

pub(super) fn panel(of: &Sources<'_>, nodes: &[Node]) -> Services {
    let mut all = probes(of);
    for node in nodes {
        all.extend(node.workers.iter().map(|worker| worker_tile(of, node, worker)));
    }
    all.sort_by(|a, b| (&a.service, &a.node).cmp(&(&b.service, &b.node)));
    all.extend(nodes.iter().map(|node| node_tile(of, node)));
    let mut tiles: Vec<Tile> = Vec::new();
    for name in of.services {
        let (named, rest): (Vec<Tile>, Vec<Tile>) = all.into_iter().partition(|tile| tile.service == *name);
        all = rest;
        if named.is_empty() && !tiles.iter().any(|tile| tile.service == *name) {
            let reason = Some(of.text(Text::NoData).to_owned());
            tiles.push(Tile::new(Kind::Expected, name, None, State::Unknown, reason));
        }
        tiles.extend(named);
    }
    tiles.extend(all);
    let left_out = tiles.len().saturating_sub(TILES_MAX);
    tiles.truncate(TILES_MAX);
    let mut names = BTreeMap::<String, usize>::new();
    tiles.iter().for_each(|tile| *names.entry(tile.service.clone()).or_default() += 1);
    let firing = Firing::of(of);
    for tile in &mut tiles {
        tile.shared_name = names.get(&tile.service).is_some_and(|count| *count > 1);
        firing.raise(of, tile);
        let since = of.trend.since(&tile.key(), tile.state).unwrap_or(of.now);
        if tile.state != State::Unknown {
            tile.since_ms = Some(since.as_millis());
            tile.since = Some(of.zone.moment(since, of.now));
        }
    }
    let known = tiles.iter().map(|tile| tile.state).filter(|state| *state != State::Unknown);
    Services { state: known.max().unwrap_or(State::Unknown), tiles, left_out }
}

/// A service that agents look at. Several of them may; what one alone cannot reach is no outage.
fn probes(of: &Sources<'_>) -> Vec<Tile> {
    let mut found: BTreeMap<&str, (Vec<&str>, Vec<&str>)> = BTreeMap::new();
    for (node, key, up) in newest(of.memory, of.sending, "service_up", of.now) {
        let (good, bad) = found.entry(label(key, "service")).or_default();
        if up > 0.0 { good.push(node) } else { bad.push(node) }
    }
    let tile = |(service, (good, bad)): (&str, (Vec<&str>, Vec<&str>))| {
        let node = bad.first().or(good.first()).copied();
        let (state, reason) = match (good.is_empty(), bad.is_empty()) {
            (_, true) => (State::Ok, None),
            (true, _) => (State::Critical, Some(of.text(Text::ServiceDown).to_owned())),
            _ => (State::Warning, Some(format!("{}: {}", of.text(Text::NotReachedFrom), bad.join(", ")))),
        };
        Tile::new(Kind::Probe, service, node, state, reason)
    };
    let mut silent: BTreeMap<&str, &str> = BTreeMap::new();
    // What a silent node looked at is not known now; it is still a service.
    for node in of.memory.nodes.keys().filter(|node| !of.sending.contains(node.as_str())) {
        for (key, _) in of.memory.head.newest(node, "service_up", i64::MIN) {
            let service = label(key, "service");
            if !found.contains_key(service) {
                silent.entry(service).or_insert(node.as_str());
            }
        }
    }
    let unknown = |(service, node): (&str, &str)| {
        let reason = format!("{}: {node} {}", of.text(Text::NoData), of.text(Text::Stale));
        Tile::new(Kind::Probe, service, Some(node), State::Unknown, Some(reason))
    };
    let unknown: Vec<Tile> = silent.into_iter().map(unknown).collect();
    found.into_iter().map(tile).chain(unknown).collect()
}

fn worker_tile(of: &Sources<'_>, node: &Node, worker: &Worker) -> Tile {
    let (state, reason) = match (node.presence, worker.ready) {
        (Presence::Stale, _) => (State::Critical, Some(Text::Stale)),
        (Presence::NeverSeen, _) => (State::Unknown, Some(Text::NeverSeen)),
        (Presence::Live, Some(true)) => (State::Ok, None),
        (Presence::Live, _) if worker.left_alone => (State::Warning, Some(Text::LeftAlone)),
        (Presence::Live, Some(false)) if worker.breaker_open == Some(true) => {
            (State::Critical, Some(Text::RestartedTooOften))
        }
        (Presence::Live, Some(false)) => (State::Critical, Some(Text::NotReady)),
        (Presence::Live, None) => (State::Warning, Some(Text::Loading)),
    };
    let name = if worker.service.is_empty() { &worker.worker } else { &worker.service };
    let reason = reason.map(|text| of.text(text).to_owned());
    let mut tile = Tile::new(Kind::Worker, name, Some(&node.node), state, reason);
    let own = |gpu: &&Gpu| match &worker.gpu {
        Some(index) => gpu.gpu == *index,
        // Which GPU a worker uses is not told: on a node with one it can be no other.
        None => node.gpus.len() == 1,
    };
    if worker.held == Some(true) {
        tile.raise(State::Warning, of.text(Text::Held), None);
    }
    node.gpus.iter().filter(own).for_each(|gpu| by_load(of, &mut tile, gpu));
    tile
}

fn node_tile(of: &Sources<'_>, node: &Node) -> Tile {
    let reason = match node.presence {
        Presence::Live => None,
        Presence::Stale => Some(of.text(Text::Stale).to_owned()),
        Presence::NeverSeen => Some(of.text(Text::NeverSeen).to_owned()),
    };
    let mut tile = Tile::new(Kind::Node, &node.node, Some(&node.node), node.presence.state(), reason);
    if node.driver_up == Some(false) {
        tile.raise(State::Warning, of.text(Text::NoDriver), None);
    }
    node.gpus.iter().for_each(|gpu| by_load(of, &mut tile, gpu));
    tile
}

fn by_load(of: &Sources<'_>, tile: &mut Tile, gpu: &Gpu) {
    if gpu.high_load {
        tile.raise(State::Warning, of.text(Text::HighLoad), None);
    } else if gpu.state >= State::Warning {
        tile.raise(State::Warning, of.text(Text::MemoryHigh), None);
    }
}

/// The alerts that fire, by the service or, where they name none, by the node they are about. There may
/// be thousands of them.
#[derive(Default)]
struct Firing<'a> {
    of_service: BTreeMap<&'a str, Vec<&'a Alert>>,
    of_node: BTreeMap<&'a str, Vec<&'a Alert>>,
}

impl<'a> Firing<'a> {
    fn of(of: &Sources<'a>) -> Self {
        let mut firing = Self::default();
        for alert in of.kept.alerts.active().filter(|alert| alert.phase == Phase::Firing) {
            match (alert.label("service"), alert.label("node")) {
                ("", node) => firing.of_node.entry(node).or_default().push(alert),
                (service, _) => firing.of_service.entry(service).or_default().push(alert),
            }
        }
        firing
    }

    /// An alert about a tile's service, worker or node says more than the tile alone can see.
    fn raise(&self, of: &Sources<'_>, tile: &mut Tile) {
        let node = tile.node.clone().unwrap_or_default();
        let here = |alert: &&&Alert| {
            let of_node = alert.label("node");
            tile.kind != Kind::Worker || of_node.is_empty() || of_node == node
        };
        let services = self.of_service.get(tile.service.as_str()).into_iter().flatten().filter(here);
        // An alert of a GPU or of the host is the node's; one of a service is that service's.
        let nodes = self.of_node.get(node.as_str()).filter(|_| tile.kind == Kind::Node);
        let all: Vec<&Alert> = services.chain(nodes.into_iter().flatten()).copied().collect();
        for alert in all {
            let summary = alert.summary(of.lang);
            match State::from(Level::of(alert)) {
                State::Critical => tile.raise(State::Critical, summary, Some(summary)),
                _ => tile.raise(State::Warning, of.text(Text::HighLoad), Some(summary)),
            }
        }
    }
}
