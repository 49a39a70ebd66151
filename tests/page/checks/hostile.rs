//! Names that want to be more than text: markup, quotes, writing from right to left, five hundred
//! characters. They are shown as they are and break nothing, also after a live update.

use std::sync::Arc;

use super::{LIVE, Stage, looks};
use crate::fleet::{Voice, configuration, node, row, sources, worker};
use crate::site::Site;
use crate::tab::{Profile, Tab};

const MARKUP: &str = "<script>window.pwned=1</script><img src=x onerror=window.pwned=1>";
const QUOTES: &str = "\"'` onmouseover=\"window.pwned=1\" &amp; {{7*7}} </section>";
const RIGHT_TO_LEFT: &str = "\u{202e}evil \u{5e9}\u{5dc}\u{5d5}\u{5dd} name";

pub(super) async fn check(stage: Arc<Stage>) -> Result<(), String> {
    let report = &stage.report;
    let long = "long".repeat(125);
    let names = [MARKUP, QUOTES, RIGHT_TO_LEFT, long.as_str()];
    let site = Site::running(&[String::from("gpu-01")], &configuration("Asia/Tokyo")).await?;
    let mut rows = node(1, 1, 0.5);
    rows.extend(sources());
    for (number, name) in (1..).zip(names) {
        rows.extend(worker(&format!("w-{number}"), name, 1.0));
        rows.push(row("service_up", &[("service", name)], 1.0));
        rows.push(row("queue_waiting", &[("queue", name), ("service", name)], 1.0));
    }
    let facts = [("gpu", "1"), ("uuid", MARKUP), ("name", QUOTES), ("simulated", "true")];
    rows.push(row("gpu_info", &facts, 1.0));
    rows.push(row("gpu_utilization_ratio", &[("gpu", "1"), ("uuid", MARKUP)], 0.11));
    let voice = Voice::start(&site, "gpu-01", rows, false).await;
    site.until("the workers are there", "/api/v1/status", |status| {
        status["nodes"][0]["workers"].as_array().is_some_and(|workers| workers.len() == 5)
    })
    .await?;
    let profile = Profile::new(&stage.chromium).await?;
    for path in ["/?lang=ja", "/node/gpu-01?lang=ja"] {
        let tab = Tab::at(&profile, &format!("{}{path}", site.url())).await?;
        tab.until("the page is live", LIVE).await?;
        as_text(&stage, &tab, path, &names).await?;
        let temperature = if path.starts_with("/?") { 70.0 } else { 71.0 };
        voice.set("queue_waiting", temperature);
        voice.set("gpu_temperature_celsius", temperature);
        voice.set("worker_ready", 0.0);
        let changed = format!("plain(document.body.textContent).includes('{temperature}°C')");
        report.done(format!("{path} with hostile names is live"), &tab.until("it changes", &changed).await);
        if path.starts_with("/?") {
            let told = "words('alerts').includes('ヘルスチェック失敗')";
            report.done("an alert with a hostile name is told", &tab.until("it is", told).await);
        }
        as_text(&stage, &tab, &format!("{path} after an update"), &names).await?;
        looks::widths(report, &tab, &format!("hostile {path}")).await?;
        tab.close().await?;
    }
    profile.close().await;
    Ok(())
}

async fn as_text(stage: &Stage, tab: &Tab, of: &str, names: &[&str]) -> Result<(), String> {
    let report = &stage.report;
    let whole: String = tab.probe("plain(document.body.textContent)").await?;
    for (what, name) in ["markup", "quotes", "right to left", "500 characters"].iter().zip(names) {
        let wanted: String = tab.probe(&format!("plain({})", serde_json::json!(name))).await?;
        // A long name may be cut for the eye, and then ends with a mark.
        let there = whole.contains(&wanted) || (name.len() > 200 && whole.contains(&wanted[..40]));
        report.check(format!("a name of {what} is text on {of}"), there, &wanted, "not there");
    }
    let ran: bool = tab
        .eval("'pwned' in window || Boolean(document.querySelector('main script, main img[src=x]'))")
        .await?;
    report.check(format!("nothing of a name runs on {of}"), !ran, "nothing", "it ran");
    let isolated: bool = tab.probe(&format!("isolated({})", serde_json::json!(RIGHT_TO_LEFT))).await?;
    report.check(
        format!("a name from right to left stands apart on {of}"),
        isolated,
        "a bdi or unicode-bidi: isolate",
        "neither",
    );
    Ok(())
}
