//! An aggregator that nobody feeds: each panel without a source says that there is no data and what
//! to configure, in both languages.

use std::sync::Arc;

use super::{LIVE, Stage};
use crate::site::Site;
use crate::tab::{Profile, Tab};

/// Panels that need a source. The aggregator itself and its alerts are always there.
const SOURCED: [&str; 5] = ["services", "api_p95", "error_rate", "sessions", "queue"];

pub(super) async fn check(stage: Arc<Stage>) -> Result<(), String> {
    let report = &stage.report;
    let site = Site::running(&[String::from("gpu-01")], "").await?;
    let profile = Profile::new(&stage.chromium).await?;
    for (lang, no_data) in [("ja", "データなし"), ("en", "nodata")] {
        let tab = Tab::at(&profile, &format!("{}/?lang={lang}", site.url())).await?;
        report.done(
            format!("a page without any source is live ({lang})"),
            &tab.until("it is live", LIVE).await,
        );
        for panel in SOURCED {
            let text: String = tab.probe(&format!("words({panel:?})")).await?;
            let lower = text.to_lowercase();
            report.check(
                format!("{panel} without a source says no data ({lang})"),
                lower.contains(no_data),
                no_data,
                &text,
            );
            let key = text.contains(".toml") && text.contains('[');
            report.check(
                format!("{panel} without a source says what to configure ({lang})"),
                key,
                "a table and its file",
                &text,
            );
        }
        let updated: String = tab.eval("document.querySelector('time')?.textContent ?? ''").await?;
        let of_tokyo = updated.contains("JST") && updated.contains(':');
        report.check(format!("the last update is told in JST ({lang})"), of_tokyo, "a time in JST", updated);
        let fleet: String = tab.probe("words('fleet')").await?;
        report.check(
            format!("a fleet without nodes says so ({lang})"),
            !fleet.is_empty(),
            "some words",
            &fleet,
        );
        let values: Vec<String> = tab
            .eval("[...document.querySelectorAll('section:not([data-panel=self]) [data-value]')].map((e) => e.outerHTML)")
            .await?;
        report.none(format!("no number is shown that nobody said ({lang})"), &values);
        tab.close().await?;
    }
    profile.close().await;
    Ok(())
}
