//! The checks themselves: a page with one fault of each kind is looked at, and each has to be found,
//! its sound twin not. What is told there is no complaint about the aggregator's page.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::Stage;
use crate::tab::{Profile, Source, Tab, complaint, requests};

pub(super) async fn check(stage: Arc<Stage>) -> Result<(), String> {
    let broken = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page/broken.html");
    let profile = Profile::new(&stage.chromium).await?;
    let mark = stage.chromium.pipe.mark();
    let tab = Tab::open(&profile).await?;
    tab.viewport(360, 900).await?;
    tab.go(&format!("file://{}", broken.display())).await?;
    let mut unseen = looked_at(&tab).await?;
    unseen.extend(told(&stage, mark).await);
    profile.close().await;
    for source in [Source::Network, Source::Policy, Source::Page, Source::Elsewhere] {
        stage.excuse(mark, source);
    }
    stage.report.none("each fault that was planted is found, its sound twin is not", &unseen);
    Ok(())
}

/// Faults that are seen by looking at the page.
async fn looked_at(tab: &Tab) -> Result<Vec<&'static str>, String> {
    let mut unseen = Vec::new();
    let mut has = |good: bool, fault| {
        if !good {
            unseen.push(fault);
        }
    };
    let contrasts: Vec<Value> = tab.probe("contrasts().filter((one) => one.ratio < 4.5)").await?;
    let weak: Vec<&str> = contrasts.iter().filter_map(|one| one["path"].as_str()).collect();
    has(weak == ["body > p.clear", "body > p.faint"], "contrast");
    has(tab.probe::<i64>("wider()").await? > 0, "a page that scrolls to the side");
    has(tab.probe::<Vec<String>>("sticking()").await?.len() == 1, "what sticks out");
    let bare: Vec<String> =
        tab.probe("states().filter((one) => !one.shape || !one.word).map((one) => one.path)").await?;
    has(bare == ["p > span.ok.bare"], "a state by its colour alone");
    has(!tab.probe::<bool>("isolated('\\u202eevil name')").await?, "a name that turns what is around it");
    has(tab.probe::<bool>("isolated('\\u202eapart name')").await?, "a name that stands apart");
    let moving = "document.getAnimations().filter((one) => one.playState === 'running').length";
    has(tab.eval::<usize>(moving).await? == 1, "motion");
    tab.probe::<bool>("rest()").await?;
    // A box that scrolls is a stop of the keyboard too.
    let stops = [(true, "a box"), (true, "a link that is seen"), (false, "a link whose focus is not seen")];
    for (seen, fault) in stops {
        tab.press("Tab", 9, "").await?;
        has(tab.probe::<bool>("focus().visible").await? == seen, fault);
    }
    has(!tab.eval::<bool>("window.ranInline === true").await?, "a policy that holds");
    Ok(unseen)
}

/// Faults that the browser tells of.
async fn told(stage: &Stage, mark: usize) -> Vec<&'static str> {
    let wanted = [
        ("console.error: said on purpose", "an error on the console"),
        ("exception: Error: thrown on purpose", "an exception"),
        ("Content Security Policy", "a breach of the policy"),
        ("outside.example", "a request elsewhere that failed"),
    ];
    let mut unseen = Vec::new();
    for (words, fault) in wanted {
        let told = async || {
            let notes = stage.chromium.pipe.since(mark);
            notes.iter().filter_map(complaint).any(|complaint| complaint.contains(words))
        };
        if crate::until(told).await.is_err() {
            unseen.push(fault);
        }
    }
    let asked = requests(&stage.chromium.pipe.since(mark));
    if !asked.iter().any(|request| request.url.starts_with("http://outside.example/")) {
        unseen.push("a request elsewhere");
    }
    unseen
}
