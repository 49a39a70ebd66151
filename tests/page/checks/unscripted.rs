//! The page without JavaScript: every panel and number is there, in few bytes, and nothing claims to
//! be live.

use std::sync::Arc;

use super::{PANELS, Stage, panels};
use crate::relay::Relay;
use crate::report::kib;
use crate::tab::{Profile, Tab};

/// What the page may weigh without a script, heads included.
const NOJS_BYTES_MAX: usize = 15 * 1024;

pub(super) async fn check(stage: Arc<Stage>) -> Result<(), String> {
    let report = &stage.report;
    let relay = Relay::to(stage.site.page()).await.map_err(|error| error.to_string())?;
    let profile = Profile::new(&stage.chromium).await?;
    let tab = Tab::open(&profile).await?;
    tab.without_scripts().await?;
    tab.go(&format!("{}/?lang=ja", relay.url())).await?;
    let names: Vec<String> = tab.probe("panels().filter((one) => one.shown).map((one) => one.name)").await?;
    let missing: Vec<&str> =
        PANELS.into_iter().filter(|panel| !names.iter().any(|name| name == panel)).collect();
    report.none("without a script every panel is there", &missing);
    panels::numbers(report, &tab, true).await?;
    let live: String = tab.eval("document.querySelector('#live')?.dataset.state ?? ''").await?;
    report.check("without a script the page does not say that it is live", live != "live", "not live", live);
    let blank: Vec<String> = tab
        .eval("[...document.querySelectorAll('canvas')].filter((e) => e.checkVisibility() && e.getBoundingClientRect().height > 1).map((e) => e.outerHTML)")
        .await?;
    report.none("without a script no empty canvas stands there", &blank);
    for panel in ["api_p95", "error_rate"] {
        let drawn: bool = tab.probe(&format!("drawn({panel:?})")).await?;
        report.check(format!("without a script {panel} has its curve"), drawn, "a curve", "none");
    }
    let asked = relay.asked();
    let bytes: usize = asked.iter().map(|one| one.bytes).sum();
    report.figures(|figures| figures.nojs_bytes = bytes);
    let seen = format!("{:.1} KiB: {asked:?}", kib(bytes));
    report.check(
        "without a script it is at most 15 KiB on the wire",
        bytes <= NOJS_BYTES_MAX,
        "15 KiB",
        seen,
    );
    report.same("without a script no stream is opened", &relay.streams(), &0);
    profile.close().await;
    Ok(())
}
