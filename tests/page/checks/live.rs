//! What changes in the fleet changes on the page, without a reload: numbers, a service that goes and
//! comes back, an alert that fires and is resolved, with what was done.

use std::sync::Arc;

use super::{LIVE, Stage};
use crate::fleet::{self, API_P95_SECONDS, WAITING};
use crate::tab::Tab;

/// Metric, panel, what is said from now on, how a person reads it, and how it stands then (10.1.1).
const CHANGES: [(&str, &str, f64, &str, &str); 7] = [
    ("queue_waiting", "queue", 17.0, "17", "warning"),
    ("queue_processing", "queue", 4.0, "4", ""),
    ("job_duration_mean_seconds", "queue", 210.0, "3.5分", ""),
    ("api_request_duration_p95_seconds", "api_p95", 1.25, "1", "warning"),
    ("api_request_duration_p95_seconds", "api_p95", 3.2, "3", "critical"),
    ("api_errors_ratio", "error_rate", 0.034, "3.4%", "warning"),
    ("sessions_active", "sessions", 91.0, "91/100", "warning"),
];

pub(super) async fn check(stage: Arc<Stage>) -> Result<(), String> {
    let report = &stage.report;
    let (profile, tab) = stage.visitor("/?lang=ja").await?;
    tab.until("the page is live", LIVE).await?;
    tab.eval::<()>("void (window.sameDocument = true)").await?;
    let first = &stage.voices[0];
    for (metric, panel, value, words, state) in CHANGES {
        first.set(metric, value);
        let shown = format!(
            "numbers({metric:?}, {panel:?}).some((one) => one.value == {value} && ({state:?} === '' || one.state === {state:?})) && words({panel:?}).includes({words:?})"
        );
        report.done(
            format!("{metric} changes to {value} on the page, {state}"),
            &tab.until("it is shown", &shown).await,
        );
    }
    let peak = "values('sessions_peak_today', 'sessions').includes(91)";
    report.done("a new peak of the day changes on the page", &tab.until("it is shown", peak).await);
    stage.voices[2].set("gpu_utilization_ratio", 0.97);
    for panel in ["queue", "fleet"] {
        let shown =
            format!("values('gpu_utilization_ratio', {panel:?}, {{ node: 'gpu-03' }}).includes(0.97)");
        report.done(format!("a GPU changes in {panel}"), &tab.until("it is shown", &shown).await);
    }
    let loaded = "tile('pyannote #3').state === 'warning' && tile('pyannote #3').text.includes('高負荷')";
    report.done("a worker whose GPU is busy says high load", &tab.until("its tile says so", loaded).await);
    service(&stage, &tab).await;
    alert(&stage, &tab).await?;
    let english = Tab::at(&profile, &format!("{}/?lang=en", stage.site.url())).await?;
    let alerts: String = english.probe("words('alerts')").await?;
    let whole = ["Healthcheckfailed:pyannote#2", "automaticrestart", "pyannote#2hasrecovered"];
    let japanese = alerts.chars().any(|c| ('\u{3040}'..='\u{9fff}').contains(&c));
    report.check(
        "an alert and what was done is told in English too",
        whole.iter().all(|words| alerts.contains(words)) && !japanese,
        whole.join(", "),
        &alerts,
    );
    let same: bool = tab.eval("window.sameDocument === true").await?;
    report.check("all that without a reload", same, "the same document", "another one");
    first.set("queue_waiting", WAITING);
    first.set("api_request_duration_p95_seconds", API_P95_SECONDS);
    profile.close().await;
    Ok(())
}

async fn service(stage: &Stage, tab: &Tab) {
    let state = |state: &str| {
        format!("document.querySelector('[data-service=\"Realtime\"]')?.dataset.state === {state:?}")
    };
    stage.voices[0].probe("Realtime", false);
    stage
        .report
        .done("a service that goes is critical", &tab.until("its tile says so", &state("critical")).await);
    stage.voices[0].probe("Realtime", true);
    stage.report.done("a service that is back is ok", &tab.until("its tile says so", &state("ok")).await);
}

/// A worker is lost and comes back: the alert, what was done, the recovery, and its tile.
async fn alert(stage: &Stage, tab: &Tab) -> Result<(), String> {
    let (report, second) = (&stage.report, &stage.voices[1]);
    let says = |words: &str| {
        format!("document.querySelector('[data-panel=alerts]')?.textContent.includes({words:?})")
    };
    let tile = |state: &str| {
        format!("document.querySelector('[data-service=\"pyannote #2\"]')?.dataset.state === {state:?}")
    };
    second.happened(fleet::exited("pyannote-2")).await;
    second.set("worker_ready", 0.0);
    report.done(
        "an alert that fires is told",
        &tab.until("it is", &says("ヘルスチェック失敗: pyannote #2")).await,
    );
    report.done("an alert tells what was done", &tab.until("it does", &says("自動再起動")).await);
    report.done("a lost worker's tile is critical", &tab.until("it is", &tile("critical")).await);
    second.happened(fleet::back("pyannote-2")).await;
    second.set("worker_ready", 1.0);
    report.done("a recovery is told", &tab.until("it is", &says("復旧")).await);
    report.done("a worker that is back has an ok tile", &tab.until("it is", &tile("ok")).await);
    let order: Vec<String> = tab
        .eval("[...document.querySelectorAll('[data-panel=alerts] li')].map((e) => e.textContent.replace(/\\s+/g, ' ').trim()).filter((t) => t.includes('pyannote #2'))")
        .await?;
    let newest = order.first().is_some_and(|line| line.contains("復旧"));
    report.check(
        "the newest alert stands first, the firing below it",
        newest && order.len() >= 2,
        "復旧 first",
        format!("{order:?}"),
    );
    let times = order.iter().all(|line| {
        line.split(|c: char| !c.is_ascii_digit() && c != ':')
            .any(|word| word.len() >= 5 && word.contains(':'))
    });
    report.check("each alert has its time of day", times, "HH:MM", format!("{order:?}"));
    Ok(())
}
