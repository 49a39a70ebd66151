//! The document against what was fed: tiles, sums, lines, and what is not known.

use std::time::Duration;

use super::services::{Kind, Tile};
use super::*;
use crate::alerts::Alert;
use crate::dashboard::parts::{self, Parts};
use crate::dashboard::words::Words;
use crate::rules::Sample;
use crate::store::{NodeState, StoredEvent};
use crate::trend::Figure;
use diarwatch_shared::event::{Event, What};
use diarwatch_shared::frame::{Body, Group};
use diarwatch_shared::node::{NodeId, WorkerId};
use diarwatch_shared::reading::{Missing, Reading};
use diarwatch_shared::schema::{GroupDef, Labels, Schema, SeriesDef, SeriesKey};

/// 2025-12-04 14:32:15 JST.
const NOW: UnixMicros = UnixMicros(1_764_826_335_000_000);

type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], Reading);

struct Fleet {
    memory: Memory,
    kept: Kept,
    trend: Trend,
    sending: BTreeSet<String>,
    services: Vec<String>,
    zone: Zone,
}

impl Fleet {
    fn new(services: &[&str]) -> Self {
        Self {
            memory: Memory::new(Duration::from_secs(900), &[]),
            kept: Kept::default(),
            trend: Trend::default(),
            sending: BTreeSet::new(),
            services: services.iter().map(|name| (*name).to_owned()).collect(),
            zone: Zone::named("Asia/Tokyo").unwrap(),
        }
    }

    /// A node that sends these rows, a second ago.
    fn node(mut self, name: &str, rows: &[Row<'_>]) -> Self {
        self.put(name, rows);
        self.sending.insert(name.to_owned());
        self
    }

    /// A node that sent these rows and is silent now.
    fn silent(mut self, name: &str, rows: &[Row<'_>]) -> Self {
        self.put(name, rows);
        self
    }

    fn put(&mut self, name: &str, rows: &[Row<'_>]) {
        let node = NodeId::new(name).unwrap();
        let at = NOW.minus(Duration::from_secs(1));
        self.memory.nodes.insert(node.clone(), NodeState { last_arrival: Some(at), ..NodeState::default() });
        let series = rows.iter().map(|(metric, labels, _)| SeriesDef::of(SeriesKey::new(metric, labels)));
        let schema = Schema::new(vec![GroupDef { name: "g".into(), series: series.collect() }]);
        let columns = rows.iter().map(|(.., reading)| vec![*reading]).collect();
        let body = Body { groups: vec![Group { times: vec![at], columns }] };
        self.memory.head.insert(&node, &schema, &body, NOW, true);
    }

    fn event(mut self, node: &str, seconds_ago: u64, what: What) -> Self {
        let event = Event::new(NOW.minus(Duration::from_secs(seconds_ago)), what);
        self.memory.events.push_back(StoredEvent { node: NodeId::new(node).unwrap(), event });
        self
    }

    /// An alert that fires since a minute.
    fn firing(mut self, labels: &[(&str, &str)], summary: &str) -> Self {
        let alert = alert(labels, summary);
        let mut state = serde_json::to_value(&self.kept.alerts).unwrap();
        state["active"].as_array_mut().unwrap().push(serde_json::json!(["g", summary, alert]));
        self.kept.alerts = serde_json::from_value(state).unwrap();
        self
    }

    fn with<T>(&self, lang: Lang, read: impl FnOnce(&Sources<'_>) -> T) -> T {
        read(&Sources {
            memory: &self.memory,
            kept: &self.kept,
            trend: &self.trend,
            trend_problem: None,
            sending: &self.sending,
            services: &self.services,
            streams: Streams::default(),
            zone: &self.zone,
            lang,
            now: NOW,
        })
    }

    fn view(&self) -> View {
        self.with(Lang::Ja, of)
    }

    fn tile(&self, service: &str) -> Tile {
        let tiles = self.view().panels.services.tiles;
        tiles.into_iter().find(|tile| tile.service == service).unwrap()
    }

    fn stands(&self, service: &str) -> (State, String) {
        let tile = self.tile(service);
        (tile.state, tile.reason.unwrap_or_default())
    }

    fn parts(&self, lang: Lang) -> Parts {
        parts::fleet(&self.with(lang, of), Words { lang }, &self.zone)
    }
}

fn alert(labels: &[(&str, &str)], summary: &str) -> Alert {
    let at = NOW.minus(Duration::from_secs(60));
    Alert {
        labels: labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        annotations: [("summary".into(), summary.into()), ("summary_en".into(), format!("en {summary}"))]
            .into(),
        value: 0.0,
        phase: Phase::Firing,
        active_since: at,
        fired_at: Some(at),
        resolved_at: None,
        seen_at: NOW,
        keep_firing_for_us: 0,
    }
}

const GPU: &[(&str, &str)] = &[("gpu", "0"), ("uuid", "GPU-1")];
const FACTS: &[(&str, &str)] =
    &[("gpu", "0"), ("uuid", "GPU-1"), ("name", "RTX 4060"), ("simulated", "false")];
const WORKER: &[(&str, &str)] = &[("worker", "w"), ("service", "pyannote #3")];

fn host(load: f64, ready: Reading) -> Vec<Row<'static>> {
    vec![
        ("gpu_info", FACTS, Ok(1.0)),
        ("gpu_utilization_ratio", GPU, Ok(load)),
        ("gpu_memory_used_bytes", GPU, Ok(1.0)),
        ("gpu_memory_total_bytes", GPU, Ok(2.0)),
        ("worker_ready", WORKER, ready),
        ("worker_restarts_total", WORKER, Ok(0.0)),
    ]
}

#[test]
fn a_tile_says_how_its_worker_stands_and_why() {
    let of = |load, ready| Fleet::new(&[]).node("gpu-03", &host(load, ready)).stands("pyannote #3");
    assert_eq!(of(0.5, Ok(1.0)), (State::Ok, String::new()));
    assert_eq!(of(0.92, Ok(1.0)), (State::Warning, "高負荷".into()));
    assert_eq!(of(0.99, Ok(1.0)), (State::Warning, "高負荷".into()), "busy is no outage");
    assert_eq!(of(0.5, Ok(0.0)), (State::Critical, "停止・応答不良".into()));
    assert_eq!(of(0.92, Ok(0.0)), (State::Critical, "停止・応答不良".into()));
    assert_eq!(of(0.5, Err(Missing::NotYet)), (State::Warning, "起動中".into()));
    let silent = Fleet::new(&[]).silent("gpu-03", &host(0.5, Ok(1.0)));
    assert_eq!(silent.stands("pyannote #3"), (State::Critical, "応答なし".into()));
    assert_eq!(silent.stands("gpu-03"), (State::Critical, "応答なし".into()));
}

#[test]
fn an_alert_that_fires_is_seen_on_the_tile_it_is_about_and_on_no_other() {
    let calm = || Fleet::new(&[]).node("gpu-03", &host(0.5, Ok(1.0))).node("gpu-04", &[]);
    let warned = calm().firing(&[("service", "pyannote #3"), ("node", "gpu-03")], "遅い");
    assert_eq!(warned.stands("pyannote #3"), (State::Warning, "高負荷".into()));
    assert_eq!(warned.tile("pyannote #3").detail.as_deref(), Some("遅い"));
    let others = calm().firing(&[("service", "pyannote #3"), ("node", "gpu-04")], "遅い");
    assert_eq!(others.stands("pyannote #3").0, State::Ok, "the same name on another node");
    let down = calm().firing(&[("service", "gpu-04"), ("severity", "critical")], "停止: gpu-04");
    assert_eq!(down.stands("gpu-04"), (State::Critical, "停止: gpu-04".into()));
    assert_eq!(down.stands("gpu-03").0, State::Ok);
    assert_eq!(down.view().state, State::Critical, "and the page says so in one word");
    let hot = calm().firing(&[("gpu", "0"), ("node", "gpu-03")], "温度");
    assert_eq!((hot.stands("gpu-03").0, hot.stands("gpu-04").0), (State::Warning, State::Ok));
}

#[test]
fn tiles_stand_in_the_configured_order_and_what_is_not_known_is_neither_green_nor_red() {
    let up = |name: &'static str, value: f64| -> Row<'static> {
        let labels: &'static [(&str, &str)] = match name {
            "API Gateway" => &[("service", "API Gateway")],
            _ => &[("service", "PostgreSQL")],
        };
        ("service_up", labels, Ok(value))
    };
    let fleet = Fleet::new(&["iPad App", "PostgreSQL", "API Gateway", "pyannote #3"])
        .node("gpu-03", &[host(0.5, Ok(1.0)), vec![up("API Gateway", 1.0), up("PostgreSQL", 0.0)]].concat())
        .node("gpu-04", &[up("API Gateway", 0.0)]);
    let tiles = fleet.view().panels.services.tiles;
    let said: Vec<(&str, State)> = tiles.iter().map(|tile| (tile.service.as_str(), tile.state)).collect();
    let expected = [
        ("iPad App", State::Unknown),
        ("PostgreSQL", State::Critical),
        ("API Gateway", State::Warning),
        ("pyannote #3", State::Ok),
        ("gpu-03", State::Ok),
        ("gpu-04", State::Ok),
    ];
    assert_eq!(said, expected);
    assert_eq!(fleet.stands("API Gateway").1, "応答がないノード: gpu-04");
    assert_eq!((tiles[0].kind, tiles[0].since_ms), (Kind::Expected, None));
}

#[test]
fn a_tile_says_since_when_it_stands_so() {
    let mut fleet = Fleet::new(&[]).node("gpu-03", &host(0.5, Ok(1.0)));
    let tile = fleet.tile("pyannote #3");
    assert_eq!(tile.since.as_deref(), Some("14:32:15 JST"), "it is new");
    let since = NOW.minus(Duration::from_secs(3_600));
    fleet.trend.stand([(tile.key().as_str(), tile.state)], true, since);
    assert_eq!(fleet.tile("pyannote #3").since.as_deref(), Some("13:32:15 JST"));
    fleet.put("gpu-03", &host(0.5, Ok(0.0)));
    assert_eq!(fleet.tile("pyannote #3").since.as_deref(), Some("14:32:15 JST"), "it changed");
}

#[test]
fn one_service_on_two_nodes_has_two_tiles_that_name_their_nodes() {
    let fleet = Fleet::new(&[]).node("gpu-03", &host(0.5, Ok(1.0))).node("gpu-04", &host(0.5, Ok(0.0)));
    let tiles = fleet.view().panels.services.tiles;
    let named: Vec<_> = tiles.iter().filter(|tile| tile.service == "pyannote #3").collect();
    assert!(named.len() == 2 && named.iter().all(|tile| tile.shared_name));
    assert_eq!((named[0].state, named[1].state), (State::Ok, State::Critical));
}

fn queue(waiting: f64, mean: f64, per_minute: f64) -> Vec<Row<'static>> {
    const QUEUE: &[(&str, &str)] = &[("queue", "q"), ("service", "pyannote")];
    const INFO: &[(&str, &str)] =
        &[("queue", "q"), ("service", "pyannote"), ("source", "log"), ("estimated", "true")];
    vec![
        ("queue_info", INFO, Ok(1.0)),
        ("queue_waiting", QUEUE, Ok(waiting)),
        ("queue_processing", QUEUE, Ok(1.0)),
        ("queue_oldest_seconds", QUEUE, Ok(waiting * 10.0)),
        ("job_duration_mean_seconds", QUEUE, Ok(mean)),
        ("queue_completed_per_minute", QUEUE, Ok(per_minute)),
    ]
}

#[test]
fn queues_of_all_nodes_are_one_sum_against_the_lines() {
    let fleet =
        Fleet::new(&[]).node("gpu-01", &queue(3.0, 100.0, 3.0)).node("gpu-02", &queue(8.0, 200.0, 1.0));
    let panel = fleet.view().panels.queue;
    assert_eq!((panel.waiting, panel.processing, panel.oldest_seconds), (Some(11.0), Some(2.0), Some(80.0)));
    assert_eq!((panel.mean_seconds, panel.p95_seconds), (Some(125.0), None), "by what each completes");
    assert_eq!((panel.state, panel.estimated, panel.partial), (State::Warning, true, false));
    let silent =
        Fleet::new(&[]).node("gpu-01", &queue(3.0, 100.0, 0.0)).silent("gpu-02", &queue(8.0, 200.0, 0.0));
    let panel = silent.view().panels.queue;
    assert_eq!((panel.waiting, panel.mean_seconds, panel.partial), (Some(3.0), Some(100.0), true));
    assert_eq!(panel.queues, 2, "a silent node's queue is known and its numbers are not");
}

#[test]
fn a_queue_whose_source_does_not_answer_is_no_empty_queue() {
    const QUEUE: &[(&str, &str)] = &[("queue", "q")];
    let rows: &[Row<'_>] = &[("queue_up", QUEUE, Ok(0.0)), ("queue_waiting", QUEUE, Err(Missing::Lost))];
    let fleet = Fleet::new(&[]).node("gpu-01", rows);
    let panel = fleet.view().panels.queue;
    assert_eq!((panel.waiting, panel.state), (None, State::Warning));
    let (_, html) = fleet.parts(Lang::Ja).into_iter().find(|(name, _)| *name == "queue").unwrap();
    assert!(html.contains("取得元が応答しません") && !html.contains("0 タスク"), "{html}");
}

#[test]
fn a_figure_seen_from_two_nodes_is_one_figure_and_parts_of_it_are_summed() {
    const ONE: &[(&str, &str)] = &[("service", "realtime-1")];
    const TWO: &[(&str, &str)] = &[("service", "realtime-2")];
    let rows: &[Row<'_>] = &[("sessions_active", ONE, Ok(45.0)), ("sessions_max", ONE, Ok(100.0))];
    let more: &[Row<'_>] = &[("sessions_active", TWO, Ok(40.0)), ("sessions_max", TWO, Ok(0.0))];
    let mut fleet = Fleet::new(&[]).node("gpu-01", rows).node("gpu-02", rows).node("gpu-03", more);
    fleet.trend.step([(Figure::Sessions, 78.0)], NOW.minus(Duration::from_secs(1_935)), &fleet.zone);
    let panel = fleet.view().panels.sessions;
    assert_eq!((panel.active, panel.max, panel.used_ratio), (Some(85.0), Some(100.0), Some(0.85)));
    assert_eq!(panel.state, State::Warning);
    assert_eq!((panel.peak_today, panel.peak_at.as_deref()), (Some(78.0), Some("14:00:00 JST")));
}

#[test]
fn what_a_rule_records_is_a_figure_too_and_a_silent_nodes_is_none() {
    let recorded = |name: &str, node: &str, value: f64| Sample {
        labels: Labels::from([("__name__".into(), name.into()), ("node".into(), node.into())]),
        value,
    };
    let mut fleet = Fleet::new(&[]).node("gpu-01", &[]).silent("gpu-02", &[]);
    fleet.memory.recorded =
        vec![recorded("api_response_time_p95", "gpu-01", 245.0), recorded("error_rate", "gpu-02", 0.5)];
    let panels = fleet.view().panels;
    assert_eq!((panels.api_p95.value, panels.api_p95.state), (Some(0.245), State::Ok));
    assert_eq!((panels.error_rate.value, panels.error_rate.state), (None, State::Unknown));
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

#[test]
fn a_crash_that_never_became_an_alert_is_told_with_what_was_done() {
    let back = What::WorkerReady { worker: worker(), load_ms: 1, down_ms: Some(3_600) };
    let fleet = Fleet::new(&[])
        .node("gpu-03", &host(0.5, Ok(1.0)))
        .event("gpu-03", 90, exited())
        .event("gpu-03", 86, back);
    let lines = fleet.view().alerts;
    let said: Vec<(State, &str, Option<&str>)> =
        lines.iter().map(|line| (line.state, line.text.as_str(), line.action.as_deref())).collect();
    let expected = [
        (State::Ok, "pyannote #3 復旧完了", Some("3.6s")),
        (State::Critical, "pyannote #3 プロセス終了: signal 9", Some("自動再起動 #1 +1.0s")),
    ];
    assert_eq!(said, expected);
    assert_eq!(lines[1].time, "14:30:45 JST");
}

#[test]
fn a_crash_that_an_alert_tells_is_told_once() {
    let labels = [("node", "gpu-03"), ("worker", "w"), ("severity", "critical")];
    let fleet = Fleet::new(&[])
        .node("gpu-03", &host(0.5, Ok(0.0)))
        .event("gpu-03", 61, exited())
        .firing(&labels, "ヘルスチェック失敗");
    let lines = fleet.view().alerts;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0].action.as_deref(), Some("自動再起動 #1 +1.0s: signal 9"));
    let english = fleet.with(Lang::En, of).alerts;
    assert_eq!(english[0].text, "en ヘルスチェック失敗", "a rule may speak English too");
}

#[test]
fn a_panel_without_a_source_says_so_and_what_to_configure() {
    let fleet = Fleet::new(&[]);
    for (lang, none) in [(Lang::Ja, "データなし"), (Lang::En, "No data")] {
        let parts = fleet.parts(lang);
        let of = |name: &str| &parts.iter().find(|(known, _)| *known == name).unwrap().1;
        for (name, hint) in [
            ("services", "[[service]]"),
            ("services", "[page] services"),
            ("api_p95", "api_request_duration_p95_seconds"),
            ("error_rate", "api_errors_ratio"),
            ("sessions", "sessions_active"),
            ("queue", "[[queue]]"),
        ] {
            let html = of(name);
            assert!(html.contains(none) && html.contains(hint), "{name}: {html}");
            assert!(!html.contains("data-value"), "what is not known is no number: {html}");
        }
    }
    assert_eq!(fleet.view().state, State::Unknown, "an empty fleet is not well");
}

/// Rows of a worker that does not run.
fn down(held: f64, breaker: f64) -> Vec<Row<'static>> {
    vec![
        ("worker_restarts_total", WORKER, Ok(4.0)),
        ("worker_ready", WORKER, Ok(0.0)),
        ("worker_held", WORKER, Ok(held)),
        ("worker_restart_breaker_open", WORKER, Ok(breaker)),
    ]
}

#[test]
fn a_worker_that_is_left_alone_or_was_restarted_too_often_says_so_on_its_tile() {
    let worker = || WorkerId::new("w").unwrap();
    let exited = |attempt| What::WorkerExited {
        worker: worker(),
        pid: Some(7),
        reason: "exit code 0".into(),
        attempt,
        restart_in_ms: 0,
    };
    let alone = || What::WorkerLeftAlone { worker: worker(), reason: "it was stopped by hand".into() };
    let fleet = |rows: &[Row<'_>]| Fleet::new(&[]).node("gpu-03", rows).event("gpu-03", 9, exited(0));
    let said = fleet(&down(0.0, 0.0)).event("gpu-03", 9, alone()).stands("pyannote #3");
    assert_eq!(said, (State::Warning, "停止・自動復旧なし".to_owned()));
    let said = fleet(&down(0.0, 1.0)).stands("pyannote #3");
    assert_eq!(said, (State::Critical, "再起動が多すぎます".to_owned()));
    let mut ready = down(1.0, 0.0);
    ready[1].2 = Ok(1.0);
    assert_eq!(fleet(&ready).stands("pyannote #3"), (State::Warning, "保留中".to_owned()));
    // Started again: what was told before is over.
    let started = What::WorkerStarted { worker: worker(), pid: 8 };
    let back = fleet(&down(0.0, 0.0)).event("gpu-03", 9, alone()).event("gpu-03", 5, started);
    assert_eq!(back.stands("pyannote #3").0, State::Critical);
    assert_eq!(back.view().nodes[0].workers[0].pid, Some(8));
}

#[test]
fn a_part_shows_the_raw_number_beside_the_words() {
    let rows: &[Row<'_>] = &[
        ("api_request_duration_p95_seconds", &[], Ok(0.245)),
        ("api_errors_ratio", &[], Ok(0.0612)),
        ("sessions_active", &[], Ok(45.0)),
        ("sessions_max", &[], Ok(100.0)),
    ];
    let fleet = Fleet::new(&[])
        .node("gpu-01", &[rows, &queue(3.0, 150.0, 1.0)].concat())
        .node("gpu-03", &host(0.89, Ok(1.0)));
    let parts = fleet.parts(Lang::Ja);
    let whole: String = parts.iter().map(|(_, html)| html.as_str()).collect();
    for (metric, raw, said) in [
        ("api_request_duration_p95_seconds", "0.245", "245ms"),
        ("api_errors_ratio", "0.0612", "6.1%"),
        ("sessions_active", "45", "45"),
        ("sessions_max", "100", "100"),
        ("queue_waiting", "3", "3 タスク"),
        ("queue_processing", "1", "1 タスク"),
        ("job_duration_mean_seconds", "150", "2.5分"),
        ("gpu_utilization_ratio", "0.89", "89%"),
    ] {
        let place = whole.find(&format!("data-metric=\"{metric}\"")).unwrap_or_else(|| panic!("no {metric}"));
        let tail: String = whole[place..].chars().take(400).collect();
        assert!(tail.contains(&format!("data-value=\"{raw}\"")) && tail.contains(said), "{metric}: {tail}");
    }
}
