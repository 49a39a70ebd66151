//! What people and programs read from the aggregator, over real HTTP: the page in two languages and
//! without a script, the query API, the metrics; and what is refused.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of a test"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::agent::{Agent, Beating, Row, key, ready};
use common::{NEIGHBOUR, NODE, Site, client, until_so};
use diarwatch_shared::event::What;
use diarwatch_shared::node::WorkerId;
use diarwatch_shared::reading::Missing;
use reqwest::StatusCode;
use serde_json::{Value, json};

const GIB: f64 = 1_073_741_824.0;

/// A node with one GPU, of which not everything can be read.
fn rows(simulated: &str) -> Vec<Row> {
    let gpu = [("gpu", "0"), ("uuid", "GPU-1")];
    let facts = [("gpu", "0"), ("uuid", "GPU-1"), ("name", "NVIDIA RTX 4060"), ("simulated", simulated)];
    let worker = [("worker", "pyannote-1"), ("service", "pyannote #1")];
    vec![
        (key("gpu_info", &facts), Ok(1.0)),
        (key("gpu_driver_up", &[]), Ok(1.0)),
        (key("gpu_utilization_ratio", &gpu), Ok(0.92)),
        (key("gpu_memory_used_bytes", &gpu), Ok(6.0 * GIB)),
        (key("gpu_memory_total_bytes", &gpu), Ok(8.0 * GIB)),
        (key("gpu_power_watts", &gpu), Err(Missing::NotSupported)),
        (key("gpu_temperature_celsius", &gpu), Ok(71.0)),
        (key("host_cpu_utilization_ratio", &[]), Ok(0.4567)),
        (key("host_memory_used_bytes", &[]), Ok(3.0 * GIB)),
        (key("worker_ready", &worker), Ok(1.0)),
        (key("worker_restarts_total", &worker), Ok(3.0)),
    ]
}

async fn seen(site: &Site) {
    until_so("the values are there", async || site.node(NODE).await["gpus"][0].is_object()).await;
}

/// The text between two others, behind a place.
fn between<'a>(page: &'a str, from: &str, to: &str) -> &'a str {
    let (_, rest) = page.split_once(from).unwrap_or_else(|| panic!("no {from} in {page}"));
    rest.split_once(to).unwrap_or_else(|| panic!("no {to} in {rest}")).0
}

#[tokio::test]
async fn the_page_shows_what_was_sent_and_says_what_is_not_known() {
    let site = Site::running(&format!("[nodes]\nexpected = [\"{NODE}\", \"{NEIGHBOUR}\", \"gpu-03\"]")).await;
    let _agent = Beating::start(&site, NODE, 7, &rows("false")).await;
    seen(&site).await;
    let (status, page) = site.get(&format!("/node/{NODE}?lang=ja")).await;
    assert_eq!(status, StatusCode::OK);
    let row = between(&page, "0 <bdi>NVIDIA RTX 4060</bdi></th>", "</tr>");
    for value in ["92%", "6.0 / 8.0 GiB (75%)", "71 °C", "データなし"] {
        assert!(row.contains(&format!(">{value}</td>")), "{value} is not in {row}");
    }
    assert!(page.contains("46%") && page.contains("9.9.9-test"), "{page}");
    assert!(
        between(&page, "host_memory_used_bytes\"", "</span>").contains("データなし"),
        "used without total is no share"
    );
    let worker = between(&page, "data-worker=\"pyannote-1\"", "</tr>");
    assert!(
        worker.contains("pyannote #1") && worker.contains("稼働中") && worker.contains(">3</td>"),
        "{worker}"
    );
    let (_, page) = site.get("/?lang=ja").await;
    let node = between(&page, &format!("<article data-node=\"{NODE}\""), "</article>");
    assert!(node.contains("受信中") && node.contains("92%") && node.contains("75%"), "{node}");
    for name in [NEIGHBOUR, "gpu-03"] {
        let node = between(&page, &format!("<article data-node=\"{name}\""), "</article>");
        assert!(node.contains("未接続") && !node.contains("受信中"), "{node}");
        let (status, page) = site.get(&format!("/node/{name}?lang=ja")).await;
        assert!(status == StatusCode::OK && page.contains("未接続") && page.contains("データなし"), "{page}");
    }
    assert!(!page.contains("SIMULATED"));
    let status = site.json("/api/v1/status").await;
    assert_eq!((&status["schema"], &status["kind"]), (&json!(1), &json!("fleet_status")));
    let gpu = &status["nodes"][0]["gpus"][0];
    assert_eq!((gpu["utilization_ratio"].as_f64(), &gpu["power_watts"]), (Some(0.92), &Value::Null));
    assert_eq!(status["nodes"][1]["presence"], "never_seen");
}

#[tokio::test]
async fn the_page_is_in_the_readers_language_and_whole_without_a_script() {
    let site = Site::running("").await;
    let _agent = Beating::start(&site, NODE, 7, &rows("true")).await;
    seen(&site).await;
    let ask = async |path: &str, accepted: &str| {
        let request = client().get(format!("{}{path}", site.page())).header("accept-language", accepted);
        request.send().await.unwrap().text().await.unwrap()
    };
    let cases = [
        ("/", "", "ja", "運用監視ダッシュボード"),
        ("/", "de-CH,en;q=0.8", "en", "Operations dashboard"),
        ("/", "de-CH", "ja", "運用監視ダッシュボード"),
        ("/?lang=en", "ja", "en", "Operations dashboard"),
        ("/?lang=ja", "en", "ja", "運用監視ダッシュボード"),
        ("/?lang=tlh", "en", "en", "Operations dashboard"),
    ];
    for (path, accepted, lang, title) in cases {
        let page = ask(path, accepted).await;
        assert!(page.contains(&format!("<html lang=\"{lang}\">")), "{path} {accepted}: {page}");
        assert!(page.contains(title), "{path} {accepted}: {page}");
        only_its_own(&page);
        assert!(page.contains("class=\"simulated\"") && page.contains("SIMULATED"), "{page}");
        let node = ask(&path.replacen('/', &format!("/node/{NODE}"), 1), accepted).await;
        only_its_own(&node);
        assert!(
            node.contains(&format!("<html lang=\"{lang}\">")) && node.contains("NVIDIA RTX 4060"),
            "{node}"
        );
    }
}

/// No inline script or style, no handler, and nothing from elsewhere.
fn only_its_own(page: &str) {
    for script in page.split("<script").skip(1) {
        assert!(script.starts_with(" src=\"/assets/page."), "{script}");
        assert!(between(script, ">", "</script>").is_empty(), "{script}");
    }
    for tag in page.split('<').filter_map(|tag| tag.split_once('>')).map(|(tag, _)| tag) {
        let mut names = tag.split(['"', ' ']).filter_map(|word| word.strip_suffix('='));
        assert!(!names.any(|name| name == "style" || name.starts_with("on")), "{tag}");
    }
    assert!(!page.contains("javascript:") && !page.contains("<style"), "{page}");
    for target in page.split("href=\"").skip(1).chain(page.split("src=\"").skip(1)) {
        let own = target.starts_with('/') && !target.starts_with("//");
        let known = own || target.starts_with("data:") || target.starts_with('#');
        assert!(known, "the page calls elsewhere: {target}");
    }
}

#[tokio::test]
async fn every_answer_forbids_what_is_not_the_pages_own() {
    let site = Site::running("").await;
    let (_, page) = site.get("/").await;
    let style = format!("/assets/page.{}", between(&page, "href=\"/assets/page.", "\""));
    for path in ["/", &style, "/api/v1/status", "/metrics", "/nothing", "/node/nobody", "/assets/nothing"] {
        let answer = client().get(format!("{}{path}", site.page())).send().await.unwrap();
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        let policy = header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{policy}");
        for part in policy.split("; ") {
            let sources = part.split(' ').skip(1).collect::<Vec<_>>();
            let known = [vec!["'none'"], vec!["'self'"], vec!["'self'", "data:"]];
            assert!(known.contains(&sources), "{part}");
        }
        assert_eq!(header("x-content-type-options"), "nosniff");
        let kept = if path == style { "public, max-age=31536000, immutable" } else { "no-store" };
        assert_eq!(header("cache-control"), kept, "{path}");
    }
    assert_eq!(site.get("/nothing").await.0, StatusCode::NOT_FOUND);
    for nobody in ["/node/nobody", "/node/NOT-A-NAME", "/node/%3Cscript%3E", "/assets/page.css"] {
        assert_eq!(site.get(nobody).await.0, StatusCode::NOT_FOUND, "{nobody}");
    }
    assert_eq!(site.get("/../../etc/passwd").await.0, StatusCode::NOT_FOUND);
    let post = client().post(format!("{}/api/v1/status", site.page())).send().await.unwrap();
    assert_eq!(post.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn labels_and_events_of_a_node_are_text_and_nothing_else() {
    let site = Site::running("").await;
    let evil = "<script>alert(1)</script>";
    let quote = "\" onmouseover=\"alert(2)";
    let mut rows = rows("false");
    rows.push((key("worker_ready", &[("worker", quote), ("service", evil)]), Ok(0.0)));
    rows.push((key("worker_restarts_total", &[("worker", quote), ("service", evil)]), Ok(1.0)));
    rows.push((
        key("gpu_info", &[("gpu", evil), ("uuid", quote), ("name", evil), ("simulated", "x")]),
        Ok(1.0),
    ));
    let mut agent = Agent::join(&site, NODE, 7).await;
    let exited = What::WorkerExited {
        worker: WorkerId::new("w").unwrap(),
        pid: None,
        reason: evil.into(),
        attempt: 1,
        restart_in_ms: 0,
    };
    rows.push(ready("w", Ok(0.0)));
    agent.live.event(0, exited).await;
    agent.live.send(1, &rows).await;
    until_so("its alerts fire", async || site.firing().await.len() == 2).await;
    for path in ["/".to_owned(), format!("/node/{NODE}")] {
        let (_, page) = site.get(&path).await;
        assert!(page.contains("&#60;script&#62;") || page.contains("&lt;script&gt;"), "{page}");
        only_its_own(&page);
        assert!(!page.contains("<script>") && !page.contains("\" onmouseover"), "{page}");
    }
    let worker = site.json("/api/v1/status").await["nodes"][0]["workers"].to_string();
    assert!(worker.contains(evil), "JSON has it as it is: {worker}");
}

#[tokio::test]
async fn only_this_machines_own_names_are_served() {
    let site =
        Site::running("[http]\nlisten = \"127.0.0.1:0\"\nallowed_hosts = [\"watch.example.com\"]").await;
    let ask = async |host: &str| {
        let request = client().get(format!("{}/api/v1/status", site.page())).header("host", host);
        request.send().await.unwrap().status()
    };
    for host in
        ["evil.example.com", "evil.example.com:9441", "127.0.0.1.evil.example.com", "127.0.0.2", ":80"]
    {
        assert_eq!(ask(host).await, StatusCode::MISDIRECTED_REQUEST, "{host}");
    }
    let hosts =
        ["localhost", "localhost:9441", "127.0.0.1", "[::1]", "[::1]:9441", "watch.example.com", "LOCALHOST"];
    for host in hosts {
        assert_eq!(ask(host).await, StatusCode::OK, "{host}");
    }
}

#[tokio::test]
async fn the_query_api_answers_as_prometheus_does() {
    let site = Site::running("").await;
    let _agent = Beating::start(&site, NODE, 7, &rows("false")).await;
    seen(&site).await;
    let ask = async |query: &str| {
        let url =
            reqwest::Url::parse_with_params(&format!("{}/api/v1/query", site.page()), [("query", query)]);
        let answer = client().get(url.unwrap()).send().await.unwrap();
        (answer.status(), answer.json::<Value>().await.unwrap())
    };
    let (status, vector) = ask("gpu_temperature_celsius > 70").await;
    assert_eq!((status, &vector["status"]), (StatusCode::OK, &json!("success")));
    assert_eq!(vector["data"]["resultType"], "vector");
    let sample = &vector["data"]["result"][0];
    let metric = json!({ "__name__": "gpu_temperature_celsius", "gpu": "0", "node": NODE, "uuid": "GPU-1" });
    assert_eq!((&sample["metric"], &sample["value"][1]), (&metric, &json!("71")));
    assert!(sample["value"][0].as_f64().unwrap() > 1.7e9);
    let (_, scalar) = ask("1 / 0").await;
    assert_eq!(
        (&scalar["data"]["resultType"], &scalar["data"]["result"][1]),
        (&json!("scalar"), &json!("+Inf"))
    );
    let (_, up) = ask("up{service=\"pyannote #1\"}").await;
    assert_eq!(up["data"]["result"][0]["value"][1], "1");
    let (_, nothing) = ask("gpu_power_watts").await;
    assert_eq!(nothing["data"]["result"], json!([]), "what cannot be read is not 0");
    let deep = format!("{}1{}", "(".repeat(5_000), ")".repeat(5_000));
    let minus = "-".repeat(5_000) + "1";
    let long = "up + ".repeat(3_000) + "up";
    for bad in ["up ==", "", "up[5m]", "topk(3, up)", "nonsense(", "監視", "\0", &deep, &minus, &long] {
        let (status, answer) = ask(bad).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        assert_eq!((&answer["status"], &answer["errorType"]), (&json!("error"), &json!("bad_data")));
        assert!(!answer["error"].as_str().unwrap().is_empty());
    }
    assert_eq!(site.get("/api/v1/query").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(ask("up").await.0, StatusCode::OK, "it still answers");
}

#[tokio::test]
async fn the_alerts_api_tells_pending_from_firing() {
    let mut site = Site::new("");
    let rules = "groups:\n- name: g\n  rules:\n  - alert: Slow\n    expr: gpu_temperature_celsius > 70\n    for: 1h\n    annotations:\n      summary: \"温度 {{ $value }}\"\n";
    let files = site.put("mine.yaml", rules);
    site.configure(&format!("[rules]\nfiles = [{files}]"));
    site.start().await;
    let mut rows = rows("false");
    rows.push(ready("w", Ok(0.0)));
    let _agent = Beating::start(&site, NODE, 7, &rows).await;
    until_so("one fires", async || site.firing().await.len() == 1).await;
    let answer = site.json("/api/v1/alerts").await;
    assert_eq!(answer["status"], "success");
    let alerts = answer["data"]["alerts"].as_array().unwrap();
    let of = |name: &str| alerts.iter().find(|alert| alert["labels"]["alertname"] == name).unwrap();
    let slow = of("Slow");
    assert_eq!((&slow["state"], &slow["value"]), (&json!("pending"), &json!("71")));
    assert_eq!(slow["annotations"]["summary"], "温度 71");
    let active = slow["activeAt"].as_str().unwrap();
    assert!(active.contains('T') && active.ends_with('Z'), "{active}");
    assert_eq!(
        (&of("WorkerNotReady")["state"], &of("WorkerNotReady")["labels"]["severity"]),
        (&json!("firing"), &json!("critical"))
    );
    let (_, page) = site.get("/").await;
    assert!(!page.contains("温度 71"), "what is pending is not told");
}

/// Families of an exposition with their samples; panics where it is none.
fn families(text: &str) -> BTreeMap<String, Vec<(String, f64)>> {
    let mut families: BTreeMap<String, Vec<(String, f64)>> = BTreeMap::new();
    let (mut helped, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(!help.is_empty() && helped.insert(name.to_owned()), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["gauge", "counter"].contains(&kind) && helped.contains(name), "{line}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            assert!(families.insert(name.to_owned(), Vec::new()).is_none(), "{line}");
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            assert!(seen.insert(series.to_owned()), "{line} stands twice");
            let family = families.get_mut(name).unwrap_or_else(|| panic!("{line} has no TYPE"));
            family.push((series.to_owned(), value.parse().unwrap()));
        }
    }
    families
}

#[tokio::test]
async fn the_metrics_are_an_exposition_and_count_what_happened() {
    let site = Site::running(&format!("[nodes]\nexpected = [\"{NEIGHBOUR}\"]")).await;
    let mut agent = Agent::join(&site, NODE, 7).await;
    for seq in [0, 1, 1] {
        agent.live.send(seq, &[ready("w", Ok(0.0))]).await;
    }
    agent.live.gap(2, 7).await;
    agent.acked(7).await;
    until_so("its alert fires", async || site.firing().await.len() == 1).await;
    let answer = client().get(format!("{}/metrics", site.page())).send().await.unwrap();
    let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    let families = families(&answer.text().await.unwrap());
    let of_node = |family: &str, node: &str| {
        let series = format!("{family}{{node=\"{node}\"}}");
        families[family].iter().find(|(name, _)| *name == series).unwrap().1
    };
    for (family, expected) in [
        ("diarwatch_frames_stored_total", 2.0),
        ("diarwatch_frames_duplicate_total", 1.0),
        ("diarwatch_frames_lost_total", 5.0),
        ("diarwatch_node_connected", 1.0),
    ] {
        assert_eq!(of_node(family, NODE), expected, "{family}");
        assert_eq!(of_node(family, NEIGHBOUR), 0.0, "{family}");
    }
    assert_eq!(families["diarwatch_alerts_firing"], [("diarwatch_alerts_firing".to_owned(), 1.0)]);
    assert_eq!(families["diarwatch_head_series"][0].1, 1.0);
}

#[tokio::test]
async fn a_node_that_falls_silent_shows_no_value_as_if_it_were_now() {
    let site = Site::running("[nodes]\ntimeout = \"3s\"").await;
    let agent = Beating::start(&site, NODE, 7, &rows("true")).await;
    seen(&site).await;
    drop(agent);
    until_so("it is seen as silent", async || site.node(NODE).await["presence"] == "stale").await;
    let (_, page) = site.get("/?lang=ja").await;
    let tile = between(&page, &format!("<li data-service=\"{NODE}\" data-state=\"critical\""), "</li>");
    let node = between(&page, &format!("<article data-node=\"{NODE}\""), "</article>");
    assert!(tile.contains("応答なし") && node.contains("応答なし"), "{tile} {node}");
    let (_, whole) = site.get(&format!("/node/{NODE}?lang=ja")).await;
    assert!(whole.contains("NVIDIA RTX 4060"), "what there is is known: {whole}");
    for shown in [node, between(&whole, "data-part=\"node\"", "data-part=\"node-charts\"")] {
        let known = ["92%", "71 °C", "稼働中", "data-value"].iter().any(|value| shown.contains(value));
        assert!(!known, "{shown}");
    }
    assert!(page.contains("SIMULATED"));
    assert_eq!(site.query(&format!("up{{service=\"{NODE}\"}}")).await[0]["value"][1], "0");
}
