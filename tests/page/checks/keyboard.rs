//! The page by keyboard alone: what Tab reaches, in which order, whether one sees where one is, and
//! that a live update does not take it away.

use std::sync::Arc;

use serde::Deserialize;

use super::{LIVE, Stage};
use crate::fleet::{NODES, SERVICES, WAITING};
use crate::tab::Tab;

/// Far more than the page has to stop at.
const TABS_MAX: usize = 200;
const TAB: u32 = 9;
const ENTER: u32 = 13;

/// Where the keyboard is.
#[derive(Clone, Debug, Deserialize)]
struct Focus {
    #[expect(dead_code, reason = "is read where a check that fails shows it")]
    path: String,
    href: String,
    service: String,
    visible: bool,
    name: String,
}

pub(super) async fn check(stage: Arc<Stage>) -> Result<(), String> {
    let report = &stage.report;
    let (profile, tab) = stage.visitor("/?lang=ja").await?;
    tab.until("the page is live", LIVE).await?;
    tab.probe::<bool>("rest()").await?;
    let stops = walk(&tab).await?;
    let skip = stops.first().is_some_and(|first| first.href.starts_with('#') && first.visible);
    report.check(
        "Tab stops first at a skip link that is seen",
        skip,
        "a link to #...",
        format!("{:?}", stops.first()),
    );
    let unseen: Vec<&Focus> = stops.iter().filter(|stop| !stop.visible).collect();
    report.none(format!("one sees where the keyboard is at each of {} stops", stops.len()), &unseen);
    let nameless: Vec<&Focus> = stops.iter().filter(|stop| stop.name.is_empty()).collect();
    report.none("each stop has a name", &nameless);
    let missing: Vec<&str> = SERVICES
        .iter()
        // A tile of which nothing is known leads nowhere, and is no stop.
        .filter_map(|(service, up)| up.map(|_| *service))
        .filter(|service| !stops.iter().any(|stop| stop.service == *service))
        .collect();
    report.none("Tab reaches the tile of each service", &missing);
    let missing: Vec<&str> = NODES
        .into_iter()
        .filter(|node| {
            !stops.iter().any(|stop| stop.href.split('?').next() == Some(format!("/node/{node}").as_str()))
        })
        .collect();
    report.none("Tab reaches each node", &missing);
    skipping(&stage, &tab).await?;
    kept(&stage, &tab).await?;
    profile.close().await;
    Ok(())
}

/// The stops of Tab, until it leaves the document.
async fn walk(tab: &Tab) -> Result<Vec<Focus>, String> {
    let mut stops: Vec<Focus> = Vec::new();
    for _ in 0..TABS_MAX {
        tab.press("Tab", TAB, "").await?;
        match tab.probe::<Option<Focus>>("focus()").await? {
            Some(stop) => stops.push(stop),
            None => break,
        }
    }
    Ok(stops)
}

/// Enter on the skip link goes past the head.
async fn skipping(stage: &Stage, tab: &Tab) -> Result<(), String> {
    tab.go(&format!("{}/?lang=ja", stage.site.url())).await?;
    tab.press("Tab", TAB, "").await?;
    tab.press("Enter", ENTER, "\r").await?;
    tab.press("Tab", TAB, "").await?;
    let inside: bool =
        tab.eval("document.querySelector('main')?.contains(document.activeElement) ?? false").await?;
    let at: Option<Focus> = tab.probe("focus()").await?;
    stage.report.check(
        "after the skip link Tab goes on in the main part",
        inside,
        "a stop within main",
        format!("{at:?}"),
    );
    Ok(())
}

/// A live update leaves the keyboard where it is.
async fn kept(stage: &Stage, tab: &Tab) -> Result<(), String> {
    tab.until("the page is live", LIVE).await?;
    let found: bool = tab
        .eval("(() => { const e = document.querySelector('a[href^=\"/node/gpu-02\"]'); e?.focus(); return Boolean(e) && document.activeElement === e; })()")
        .await?;
    let before: Option<Focus> = tab.probe("focus()").await?;
    for (voice, value) in stage.voices.iter().zip([0.41, 0.42, 0.43]) {
        voice.set("gpu_utilization_ratio", value);
    }
    stage.voices[0].set("queue_waiting", 5.0);
    let shown = "values('queue_waiting', 'queue').includes(5) && values('gpu_utilization_ratio', 'fleet', { node: 'gpu-02' }).includes(0.42)";
    tab.until("the update is shown", shown).await?;
    let after: Option<Focus> = tab.probe("focus()").await?;
    let href = |focus: &Option<Focus>| focus.as_ref().map(|focus| focus.href.clone());
    stage.report.check(
        "a live update leaves the keyboard where it is",
        found && href(&before) == href(&after),
        format!("{before:?}"),
        format!("{after:?}"),
    );
    for (voice, value) in stage.voices.iter().zip(crate::fleet::UTILIZATION) {
        voice.set("gpu_utilization_ratio", value);
    }
    stage.voices[0].set("queue_waiting", WAITING);
    Ok(())
}
