//! SIGHUP to a real aggregator: new rules are evaluated at once, wrong ones change nothing and are said
//! on the page until they are mended.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of a test"
)]

mod common;

use common::agent::{Beating, key};
use common::{NODE, Site, until_so};

fn rules(alert: &str, expr: &str) -> String {
    format!("groups:\n  - name: own\n    rules:\n      - alert: {alert}\n        expr: {expr}\n")
}

#[tokio::test]
async fn new_rules_and_nodes_are_in_effect_after_a_reload_and_wrong_ones_are_not() {
    let mut site = Site::new("");
    let file = site.put("own.yaml", &rules("First", "host_load1 > 5"));
    site.configure(&format!("[rules]\nfiles = [{file}]"));
    site.start().await;
    let agent = Beating::start(&site, NODE, 7, &[(key("host_load1", &[]), Ok(9.0))]).await;
    until_so("the first rule fires", async || site.firing().await == ["First/gpu-01"]).await;

    site.put("own.yaml", &rules("Second", "host_load1 > ("));
    site.hangup();
    until_so("the page says what is wrong", async || site.get("/?lang=en").await.1.contains("own.yaml:5:"))
        .await;
    assert_eq!(site.firing().await, ["First/gpu-01"]);

    site.put("own.yaml", &rules("Second", "host_load1 > 6"));
    site.configure(&format!(
        "[rules]\nfiles = [{file}]\n[nodes]\nexpected = [\"gpu-09\"]\n[page]\nservices = [\"Realtime\"]"
    ));
    site.config();
    site.hangup();
    until_so("the second rule fires", async || site.firing().await == ["Second/gpu-01"]).await;
    until_so("the page says nothing more", async || !site.get("/?lang=en").await.1.contains("own.yaml:5:"))
        .await;
    assert_eq!(site.node("gpu-09").await["presence"], "never_seen");
    assert!(site.get("/?lang=en").await.1.contains("Realtime"), "the page is the new configuration's");
    drop(agent);
}
