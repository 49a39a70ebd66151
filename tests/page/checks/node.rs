//! A node's own page: reached from the fleet, with its GPUs and workers as they were fed, live, in
//! both languages; and what is said of a node that there is not.

use std::sync::Arc;

use super::{LIVE, Stage, looks};
use crate::fleet::{NEVER, SILENT};
use crate::tab::{Source, Tab};

pub(super) async fn check(stage: Arc<Stage>) -> Result<(), String> {
    let report = &stage.report;
    let (profile, tab) = stage.visitor("/?lang=ja").await?;
    tab.eval::<()>("void document.querySelector('a[href^=\"/node/gpu-02\"]').click()").await?;
    let went = tab
        .until(
            "the node's page is there",
            "location.pathname === '/node/gpu-02' && document.readyState === 'complete'",
        )
        .await;
    report.done("a node of the fleet leads to its page", &went);
    said(&stage, &tab).await?;
    moving(&stage, &tab).await?;
    absent(&stage, &tab).await?;
    profile.close().await;
    Ok(())
}

/// What was fed stands there, in both languages.
async fn said(stage: &Stage, tab: &Tab) -> Result<(), String> {
    let report = &stage.report;
    for (lang, words) in [("ja", ["稼働中", "61°C", "98"]), ("en", ["ready", "61°C", "98"])] {
        tab.go(&format!("{}/node/gpu-02?lang={lang}", stage.site.url())).await?;
        let langs: [String; 2] =
            tab.eval("[document.documentElement.lang, document.body.dataset.lang ?? '']").await?;
        report.same(format!("the node's page is {lang}"), &langs, &[lang.to_owned(), lang.to_owned()]);
        let text: String = tab.probe("plain(document.body.textContent)").await?;
        let lower = text.to_lowercase();
        let common = ["gpu-02", "pyannote#2", "rtx4060", "72%", "75%", "simulated"];
        let missing: Vec<&str> =
            common.into_iter().chain(words).filter(|word| !lower.contains(&word.to_lowercase())).collect();
        report.check(
            format!("the node's page says what was fed ({lang})"),
            missing.is_empty(),
            "all of it",
            format!("{text}, which lacks {missing:?}"),
        );
    }
    Ok(())
}

/// It is live, and can be read.
async fn moving(stage: &Stage, tab: &Tab) -> Result<(), String> {
    let report = &stage.report;
    let seen: Vec<f64> = tab.probe("values('gpu_utilization_ratio')").await?;
    report.check(
        "the node's page has its GPU as a number",
        !seen.is_empty() && seen.iter().all(|one| *one == 0.72),
        "0.72",
        format!("{seen:?}"),
    );
    report.done("the node's page is live", &tab.until("it is live", LIVE).await);
    stage.voices[1].set("gpu_temperature_celsius", 77.0);
    let warmer = "document.body.textContent.replace(/\\s/g, '').includes('77°C')";
    report.done("the node's page changes without a reload", &tab.until("it is shown", warmer).await);
    stage.voices[1].set("gpu_temperature_celsius", 61.0);
    for scheme in ["light", "dark"] {
        tab.prefers(&[("prefers-color-scheme", scheme)]).await?;
        looks::contrasts(report, tab, &format!("/node/gpu-02 in {scheme}")).await?;
    }
    looks::widths(report, tab, "/node/gpu-02").await?;
    let back: bool = tab
        .eval("[...document.querySelectorAll('a[href]')].some((e) => new URL(e.href).pathname === '/')")
        .await?;
    report.check("the node's page leads back", back, "a link to /", "none");
    Ok(())
}

/// A node that is silent, one that was never seen, one that there is not.
async fn absent(stage: &Stage, tab: &Tab) -> Result<(), String> {
    let report = &stage.report;
    for (node, words) in [(SILENT, "応答なし"), (NEVER, "未接続")] {
        tab.go(&format!("{}/node/{node}?lang=ja", stage.site.url())).await?;
        let text: String = tab.probe("plain(document.body.textContent)").await?;
        report.check(format!("the page of {node} says {words}"), text.contains(words), words, &text);
    }
    let mark = stage.chromium.pipe.mark();
    let unknown = tab.go(&format!("{}/node/gpu-99?lang=ja", stage.site.url())).await;
    let status =
        tab.requests().iter().filter(|one| one.url.contains("gpu-99")).map(|one| one.status).next_back();
    let text: String = tab.eval("document.body?.textContent ?? ''").await.unwrap_or_default();
    stage.excuse(mark, Source::Network);
    report.check(
        "a node that there is not is 404, in words",
        status == Some(404) && !text.trim().is_empty(),
        "404 and some words",
        format!("{status:?} {text} {unknown:?}"),
    );
    Ok(())
}
