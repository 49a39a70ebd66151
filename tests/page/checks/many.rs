//! Fifty nodes with eight GPUs each: all of them are there, live, and within the page's width.

use std::sync::Arc;

use super::{LIVE, Stage, looks};
use crate::fleet::{Voice, node};
use crate::relay::Relay;
use crate::report::kib;
use crate::site::Site;
use crate::tab::{Profile, Tab};

const NODES: usize = 50;
const GPUS: usize = 8;

pub(super) async fn check(stage: Arc<Stage>) -> Result<(), String> {
    let report = &stage.report;
    let names: Vec<String> = (1..=NODES).map(|number| format!("node-{number:02}")).collect();
    let site = Site::running(&names, "").await?;
    let mut voices = Vec::new();
    for (number, name) in (1..).zip(&names) {
        voices.push(Voice::start(&site, name, node(number, GPUS, 0.5), false).await);
    }
    site.until("all nodes send", "/api/v1/status", |status| {
        let live =
            |nodes: &Vec<serde_json::Value>| nodes.iter().filter(|node| node["presence"] == "live").count();
        status["nodes"].as_array().map(live) == Some(NODES)
    })
    .await?;
    let relay = Relay::to(site.page()).await.map_err(|error| error.to_string())?;
    let profile = Profile::new(&stage.chromium).await?;
    let tab = Tab::at(&profile, &format!("{}/?lang=ja", relay.url())).await?;
    report.done("a page of 50 nodes with 8 GPUs is live", &tab.until("it is live", LIVE).await);
    let bytes: usize = relay.asked().iter().map(|one| one.bytes).sum();
    println!("       50 nodes with 8 GPUs: {:.1} KiB on the wire until live", kib(bytes));
    let all = format!(
        "new Set(numbers('gpu_utilization_ratio', 'fleet').filter((one) => one.value == 0.5).map((one) => one.gpu)).size === {}",
        NODES * GPUS
    );
    report.done("each of 400 GPUs is in the fleet with its value", &tab.until("they are", &all).await);
    let links: usize =
        tab.eval("new Set([...document.querySelectorAll('[data-panel=fleet] a[href^=\"/node/\"]')].map((e) => new URL(e.href).pathname)).size").await?;
    report.same("each of 50 nodes leads to its page", &links, &NODES);
    voices[NODES - 1].set("gpu_utilization_ratio", 0.83);
    let shown = format!(
        "values('gpu_utilization_ratio', 'fleet', {{ node: 'node-50' }}).filter((one) => one === 0.83).length === {GPUS}"
    );
    report.done("the last of 50 nodes changes on the page", &tab.until("it is shown", &shown).await);
    looks::widths(report, &tab, "a page of 50 nodes").await?;
    profile.close().await;
    Ok(())
}
