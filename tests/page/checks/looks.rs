//! How it looks: contrast in light and dark, narrow and zoomed, without motion, and no state by its
//! colour alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;

use super::{LIVE, Stage};
use crate::report::Report;
use crate::tab::Tab;

/// WCAG AA for text; asked of every text, the large one too.
const CONTRAST_MIN: f64 = 4.5;
/// A phone, a desktop at 200 %, a desktop.
const WIDTHS: [u32; 3] = [360, 640, 1280];

#[derive(Debug, Deserialize)]
struct Contrast {
    ratio: f64,
    path: String,
    text: String,
}

#[derive(Debug, Deserialize)]
struct State {
    path: String,
    state: String,
    shape: String,
    word: String,
}

pub(super) async fn check(stage: Arc<Stage>) -> Result<(), String> {
    let report = &stage.report;
    let (profile, tab) = stage.visitor("/?lang=ja").await?;
    tab.until("the page is live", LIVE).await?;
    let mut backgrounds = BTreeSet::new();
    for scheme in ["light", "dark"] {
        tab.prefers(&[("prefers-color-scheme", scheme)]).await?;
        contrasts(report, &tab, &format!("/ in {scheme}")).await?;
        backgrounds.insert(
            tab.probe::<Vec<f64>>("behind(document.body)")
                .await?
                .iter()
                .map(|part| *part as u64)
                .collect::<Vec<_>>(),
        );
    }
    report.same("light and dark have different grounds", &backgrounds.len(), &2);
    states(report, &tab).await?;
    widths(report, &tab, "/").await?;
    tab.prefers(&[("prefers-reduced-motion", "reduce")]).await?;
    let moving: usize =
        tab.eval("document.getAnimations().filter((one) => one.playState === 'running').length").await?;
    report.same("who wants no motion gets none", &moving, &0);
    let small: Vec<String> = tab
        .probe("(() => { return [...document.querySelectorAll('body *')].filter((e) => shown(e) && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) && parseFloat(getComputedStyle(e).fontSize) < 11).map(path); })()")
        .await?;
    report.none("no text is smaller than 11 px", &small);
    profile.close().await;
    Ok(())
}

/// Every text that is seen can be read.
pub(super) async fn contrasts(report: &Report, tab: &Tab, of: &str) -> Result<(), String> {
    let found: Vec<Contrast> = tab.probe("contrasts()").await?;
    let weak: Vec<String> = found
        .iter()
        .filter(|one| one.ratio < CONTRAST_MIN)
        .map(|one| format!("{} at {} ({})", one.ratio, one.path, one.text))
        .collect();
    report.none(format!("every text of {of} has a contrast of 4.5 ({} kinds of text)", found.len()), &weak);
    report.check(format!("there is text to look at on {of}"), !found.is_empty(), "some", "none");
    Ok(())
}

/// Nothing needs to be scrolled to the side.
pub(super) async fn widths(report: &Report, tab: &Tab, of: &str) -> Result<(), String> {
    for width in WIDTHS {
        tab.viewport(width, 900).await?;
        // A chart follows the width a moment later.
        let fits = tab.until("it fits", "wider() <= 0 && sticking().length === 0").await;
        let sticking: Vec<String> = tab.probe("sticking()").await?;
        let name = format!("{of} at {width} px does not scroll to the side");
        report.check(name, fits.is_ok(), "nothing that sticks out", format!("{sticking:?}"));
    }
    tab.viewport(1280, 900).await
}

async fn states(report: &Report, tab: &Tab) -> Result<(), String> {
    let states: Vec<State> = tab.probe("states()").await?;
    report.check("there are states to look at", states.len() > 8, "more than 8", states.len());
    let bare: Vec<&State> = states.iter().filter(|one| one.shape.is_empty() || one.word.is_empty()).collect();
    report.none("every state has a shape and a word beside its colour", &bare);
    // Among tiles a shape means one state.
    let mut shapes: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for one in
        states.iter().filter(|one| ["ok", "warning", "critical", "unknown"].contains(&one.state.as_str()))
    {
        shapes.entry(&one.shape).or_default().insert(&one.state);
    }
    let double: Vec<_> = shapes.iter().filter(|(_, states)| states.len() > 1).collect();
    report.none("no shape stands for two states", &double);
    let paths: BTreeSet<&str> = states.iter().map(|one| one.path.as_str()).collect();
    report.check("states are told in more than one place", !paths.is_empty(), "some", format!("{paths:?}"));
    Ok(())
}
