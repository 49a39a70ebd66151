//! Every panel of 10.1.2 against what was fed: the number as a program reads it, and the words that
//! a person reads.

use std::sync::Arc;

use serde::Deserialize;

use super::{PANELS, Stage};
use crate::day;
use crate::fleet::{
    API_P95_SECONDS, ERRORS_RATIO, JOB_MEAN_SECONDS, NEVER, NODES, PROCESSING, SERVICES, SESSIONS,
    SESSIONS_MAX, SESSIONS_PEAK, SILENT, TILES, UTILIZATION, WAITING,
};
use crate::report::Report;
use crate::tab::Tab;

/// A panel, the metric of its number, the number, and what is read beside it: in Japanese, in English.
pub(crate) type Shown = (&'static str, &'static str, f64, &'static [&'static str], &'static [&'static str]);

/// The numbers of 10.1.2, in its words; white space does not count.
pub(crate) const NUMBERS: [Shown; 8] = [
    ("api_p95", "api_request_duration_p95_seconds", API_P95_SECONDS, &["現在", "245ms"], &["now", "245ms"]),
    ("error_rate", "api_errors_ratio", ERRORS_RATIO, &["エラー率", "0.12%"], &["error", "0.12%"]),
    ("sessions", "sessions_active", SESSIONS, &["現在", "45/100", "45%"], &["now", "45/100", "45%"]),
    ("sessions", "sessions_max", SESSIONS_MAX, &["100"], &["100"]),
    ("sessions", "sessions_peak_today", SESSIONS_PEAK, &["ピーク", "今日", "78"], &["peak", "today", "78"]),
    ("queue", "queue_waiting", WAITING, &["待機", "3"], &["waiting", "3"]),
    ("queue", "queue_processing", PROCESSING, &["処理中", "2"], &["processing", "2"]),
    ("queue", "job_duration_mean_seconds", JOB_MEAN_SECONDS, &["平均処理時間", "2.5分"], &["mean", "2.5min"]),
];

/// A panel as `probe.js` tells of it.
#[derive(Debug, Deserialize)]
struct Panel {
    name: String,
    heading: String,
    text: usize,
    shown: bool,
}

/// A tile.
#[derive(Debug, Deserialize)]
pub(crate) struct Tile {
    pub(crate) state: String,
    pub(crate) text: String,
}

pub(super) async fn check(stage: Arc<Stage>) -> Result<(), String> {
    let (profile, tab) = stage.visitor("/?lang=ja").await?;
    let report = &stage.report;
    let panels: Vec<Panel> = tab.probe("panels()").await?;
    let whole = |panel: &&Panel| panel.shown && panel.text > panel.heading.chars().count();
    report.figures(|figures| figures.panels = panels.iter().filter(whole).count());
    for name in PANELS {
        let found = panels.iter().filter(|panel| panel.name == name).collect::<Vec<_>>();
        let good =
            matches!(found.as_slice(), [panel] if panel.shown && !panel.heading.is_empty() && whole(panel));
        report.check(
            format!("the panel {name} is there once, with a heading and something in it"),
            good,
            "one panel",
            format!("{found:?}"),
        );
    }
    numbers(report, &tab, true).await?;
    tiles(report, &tab).await?;
    fleet(report, &tab).await?;
    let own: Vec<Option<f64>> = tab
        .eval("[...document.querySelectorAll('[data-panel=self] [data-value]')].map((e) => Number(e.dataset.value))")
        .await?;
    let frames = own.iter().flatten().any(|value| *value >= NODES.len() as f64);
    let told = own.len() >= 5 && own.iter().all(Option::is_some) && frames;
    report.check("the monitor tells of itself, its frames too", told, "five numbers", format!("{own:?}"));
    let all: String = tab.eval("document.body.textContent").await?;
    let simulated = all.contains("SIMULATED");
    report.check("values of a fake GPU say SIMULATED", simulated, "SIMULATED", "nothing of it");
    for panel in ["api_p95", "error_rate"] {
        let drawn = tab.until("it is drawn", &format!("drawn({panel:?})")).await;
        report.done(format!("{panel} has its curve"), &drawn);
        curve(&stage, &tab, panel).await?;
    }
    profile.close().await;
    Ok(())
}

/// The curve is the day as it was fed, from midnight on.
async fn curve(stage: &Stage, tab: &Tab, panel: &str) -> Result<(), String> {
    let points: Vec<[f64; 4]> = tab.probe(&format!("points({panel:?})")).await?;
    let near = |a: f64, b: f64| (a - b).abs() <= 0.01 * b.abs();
    let is_there = |step: u64| {
        let mean = day::fed(panel, step);
        points.iter().any(|point| {
            point[0] == step as f64
                && near(point[1], mean * 0.9)
                && near(point[2], mean)
                && near(point[3], mean * 1.1)
        })
    };
    let missing: Vec<u64> = (0..day::steps_passed(&stage.zone)).filter(|step| !is_there(*step)).collect();
    stage.report.check(
        format!("the curve of {panel} is the day that was fed"),
        missing.is_empty() && !points.is_empty(),
        "each ten minutes since midnight",
        format!("{missing:?} are missing or different in {points:?}"),
    );
    Ok(())
}

/// Every number of 10.1.2, raw and in words.
pub(crate) async fn numbers(report: &Report, tab: &Tab, japanese: bool) -> Result<(), String> {
    let lang = if japanese { "ja" } else { "en" };
    for (panel, metric, value, ja, en) in NUMBERS {
        let seen: Vec<f64> = tab.probe(&format!("values({metric:?}, {panel:?})")).await?;
        report.same(format!("{panel} has {metric} as it was fed ({lang})"), &seen, &vec![value]);
        let text: String = tab.probe(&format!("words({panel:?})")).await?;
        let lower = text.to_lowercase();
        let words = if japanese { ja } else { en };
        let missing: Vec<&str> = words.iter().copied().filter(|word| !lower.contains(word)).collect();
        report.check(
            format!("{panel} says {metric} in words ({lang})"),
            missing.is_empty(),
            words.join(", "),
            format!("{text}, which lacks {}", missing.join(", ")),
        );
    }
    let queue: String = tab.probe("words('queue')").await?;
    for (node, utilization) in NODES.into_iter().zip(UTILIZATION) {
        let seen: Vec<f64> =
            tab.probe(&format!("values('gpu_utilization_ratio', 'queue', {{ node: {node:?} }})")).await?;
        report.same(format!("queue has the GPU of {node} ({lang})"), &seen, &vec![utilization]);
        let percent = format!("{:.0}%", utilization * 100.0);
        report.check(
            format!("queue says the GPU of {node} ({lang})"),
            queue.contains(&percent),
            percent,
            &queue,
        );
    }
    Ok(())
}

async fn tiles(report: &Report, tab: &Tab) -> Result<(), String> {
    for (service, up) in SERVICES {
        let tile: Tile = tab.probe(&format!("tile({service:?})")).await?;
        let state = match up {
            Some(true) => "ok",
            Some(false) => "critical",
            None => "unknown",
        };
        report.same(format!("the tile of {service} is as its probe says"), &tile.state.as_str(), &state);
        let name: String = service.split_whitespace().collect();
        report.check(
            format!("the tile of {service} has its name"),
            tile.text.contains(&name),
            name,
            &tile.text,
        );
        if up.is_none() {
            let known = ["データなし", "未接続"].iter().any(|word| tile.text.contains(word));
            report.check(
                "a service that nobody asked for is no data",
                known,
                "データなし or 未接続",
                &tile.text,
            );
        }
    }
    let order: Vec<String> = tab.probe("tiles().map((one) => one.name)").await?;
    let configured = order.iter().take(TILES.len()).map(String::as_str).collect::<Vec<_>>() == TILES;
    report.check(
        "the tiles stand in the configured order",
        configured,
        format!("{TILES:?}"),
        format!("{order:?}"),
    );
    for number in 1..=NODES.len() {
        let service = format!("pyannote #{number}");
        let tile: Tile = tab.probe(&format!("tile({service:?})")).await?;
        report.check(format!("the worker {service} has a tile"), tile.state == "ok", "ok", &tile.state);
    }
    Ok(())
}

async fn fleet(report: &Report, tab: &Tab) -> Result<(), String> {
    let text: String = tab.probe("words('fleet')").await?;
    for node in NODES.into_iter().chain([SILENT, NEVER]) {
        report.check(format!("the fleet has {node}"), text.contains(node), node, &text);
    }
    for (node, utilization) in NODES.into_iter().zip(UTILIZATION) {
        let seen: Vec<f64> =
            tab.probe(&format!("values('gpu_utilization_ratio', 'fleet', {{ node: {node:?} }})")).await?;
        report.same(format!("the fleet has the GPU of {node}"), &seen, &vec![utilization]);
    }
    report.check("a node that fell silent says so", text.contains("応答なし"), "応答なし", &text);
    report.check("a node that never sent says so", text.contains("未接続"), "未接続", &text);
    let stale: Vec<Option<f64>> = tab
        .probe(&format!("numbers('gpu_utilization_ratio', 'fleet', {{ node: {SILENT:?} }}).map((one) => one.value === null ? null : Number(one.value))"))
        .await?;
    let old: Vec<f64> = stale.into_iter().flatten().collect();
    report.none("a silent node shows no old value as if it were now", &old);
    Ok(())
}
