//! Three tabs of one browser: all live over one event stream, also after the tab that opened it is
//! closed. Streams are counted on the wire.

use std::sync::Arc;

use super::{LIVE, Stage};
use crate::fleet::WAITING;
use crate::relay::Relay;
use crate::tab::{Profile, Tab};
use crate::until;

const TABS: usize = 3;

pub(super) async fn check(stage: Arc<Stage>) -> Result<(), String> {
    let report = &stage.report;
    let relay = Relay::to(stage.site.page()).await.map_err(|error| error.to_string())?;
    let profile = Profile::new(&stage.chromium).await?;
    let mut tabs = Vec::new();
    for number in 0..TABS {
        // Also with different languages: one stream serves both.
        let lang = if number == 1 { "en" } else { "ja" };
        tabs.push(Tab::at(&profile, &format!("{}/?lang={lang}", relay.url())).await?);
    }
    for (number, tab) in (1..).zip(&tabs) {
        report.done(format!("tab {number} of three is live"), &tab.until("it is live", LIVE).await);
    }
    // The stream is opened anew when a tab shows another page: counted when all of them show it.
    shows(&stage, &tabs, 11.0, "a new value reaches").await;
    report.done("three tabs share one event stream", &one_stream(&relay).await);
    tabs.remove(0).close().await?;
    shows(&stage, &tabs, 12.0, "after the first tab is closed a new value reaches").await;
    report.done("after the first tab is closed there is one event stream", &one_stream(&relay).await);
    for tab in tabs {
        tab.close().await?;
    }
    report.done("without a tab there is no event stream", &until(async || relay.streams() == 0).await);
    stage.voices[0].set("queue_waiting", WAITING);
    profile.close().await;
    Ok(())
}

async fn shows(stage: &Stage, tabs: &[Tab], value: f64, what: &str) {
    stage.voices[0].set("queue_waiting", value);
    for (number, tab) in (1..).zip(tabs) {
        let shown = format!("values('queue_waiting', 'queue').includes({value})");
        stage
            .report
            .done(format!("{what} tab {number} of {}", tabs.len()), &tab.until("it is shown", &shown).await);
    }
}

async fn one_stream(relay: &Relay) -> Result<(), String> {
    until(async || relay.streams() == 1).await.map_err(|_| format!("{} streams", relay.streams()))
}
