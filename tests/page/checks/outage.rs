//! The way to the aggregator falls silent, then the aggregator is stopped: the page says that its
//! numbers are old, and is live again by itself when it is back.

use std::sync::Arc;

use super::{LIVE, Stage, looks};
use crate::fleet::{Voice, node, sources};
use crate::relay::Relay;
use crate::report::Report;
use crate::site::Site;
use crate::tab::{Profile, Source, Tab, complaint, source};

const OLD: &str = "['stale', 'off'].includes(document.querySelector('#live')?.dataset.state)";

pub(super) async fn check(stage: Arc<Stage>) -> Result<(), String> {
    let mark = stage.chromium.pipe.mark();
    let mut site = Site::running(&[String::from("gpu-01")], "").await?;
    let profile = Profile::new(&stage.chromium).await?;
    silent(&stage.report, &site, &profile).await?;
    stopped(&stage.report, &mut site, &profile).await?;
    profile.close().await;
    // That the browser could not reach it is what was done to it; a fault of the page is not.
    stage.excuse(mark, Source::Network);
    let notes = stage.chromium.pipe.since(mark);
    let own = notes.iter().filter(|note| source(note) != Source::Network);
    let faults: Vec<String> = own.filter_map(complaint).collect();
    stage.report.none("an outage makes no fault in the page", &faults);
    Ok(())
}

/// Nothing comes any more, and no connection ends.
async fn silent(report: &Report, site: &Site, profile: &Profile) -> Result<(), String> {
    let relay = Relay::to(site.page()).await.map_err(|error| error.to_string())?;
    let voice = speaking(site).await;
    let tab = Tab::at(profile, &format!("{}/?lang=ja", relay.url())).await?;
    tab.until("the page is live", LIVE).await?;
    tab.probe::<bool>(LISTEN).await?;
    relay.hold(true);
    report.done("a network that falls silent makes the page stale", &tab.until("it says so", OLD).await);
    said(report, &tab, "a silent network").await?;
    for scheme in ["light", "dark"] {
        tab.prefers(&[("prefers-color-scheme", scheme)]).await?;
        looks::contrasts(report, &tab, &format!("a stale page in {scheme}")).await?;
    }
    voice.set("queue_waiting", 8.0);
    relay.hold(false);
    report.done("the page is live when the network is back", &tab.until("it says so", LIVE).await);
    report.done("and shows what changed meanwhile", &tab.until("it is shown", &waiting(8.0)).await);
    tab.close().await
}

/// The aggregator ends, and comes back where it was.
async fn stopped(report: &Report, site: &mut Site, profile: &Profile) -> Result<(), String> {
    let voice = speaking(site).await;
    let tab = Tab::at(profile, &format!("{}/?lang=ja", site.url())).await?;
    tab.until("the page is live", LIVE).await?;
    drop(voice);
    tab.probe::<bool>(LISTEN).await?;
    site.stop().await;
    report.done("a stopped aggregator makes the page stale or off", &tab.until("it says so", OLD).await);
    said(report, &tab, "a stopped aggregator").await?;
    site.start().await?;
    let voice = speaking(site).await;
    voice.set("queue_waiting", 9.0);
    report.done("the page is live when the aggregator is back", &tab.until("it says so", LIVE).await);
    report.done("and shows what is said then", &tab.until("it is shown", &waiting(9.0)).await);
    tab.close().await
}

async fn speaking(site: &Site) -> Voice {
    let rows = node(1, 1, 0.65).into_iter().chain(sources()).collect();
    Voice::start(site, "gpu-01", rows, false).await
}

fn waiting(value: f64) -> String {
    format!("values('queue_waiting', 'queue').includes({value})")
}

/// What is read aloud is kept from now on.
const LISTEN: &str = "(() => {
    window.toldAloud = [];
    const regions = '[role=status],[role=alert],[aria-live=polite],[aria-live=assertive]';
    new MutationObserver((changes) => changes.forEach(({ target }) => {
        const region = (target.nodeType === 1 ? target : target.parentElement)?.closest(regions);
        const text = region && !region.closest('section') ? plain(region.textContent) : '';
        if (text && window.toldAloud.at(-1) !== text) window.toldAloud.push(text);
    })).observe(document.body, { subtree: true, childList: true, characterData: true });
    return true;
})()";

/// It is told in words, to the eye and to who listens: once, and not each second anew.
async fn said(report: &Report, tab: &Tab, what: &str) -> Result<(), String> {
    let text: String = tab.probe("plain(document.querySelector('#live').textContent)").await?;
    let shown: bool = tab.probe("shown(document.querySelector('#live'))").await?;
    report.check(format!("{what} is told in words"), shown && text.chars().count() > 1, "words", &text);
    tab.eval::<()>("new Promise((done) => setTimeout(done, 4000))").await?;
    let aloud: Vec<String> = tab.eval("window.toldAloud").await?;
    let good = (1..=2).contains(&aloud.len());
    report.check(
        format!("{what} is told once to who listens"),
        good,
        "one text in a role=status or aria-live",
        format!("{aloud:?}"),
    );
    Ok(())
}
