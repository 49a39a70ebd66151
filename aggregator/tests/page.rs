//! The page over real HTTP: what the stream sends, what it refuses, what a first load weighs, the day
//! over a restart, and the document against its schema.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of a test"
)]

mod common;

use std::collections::BTreeMap;
use std::io::Write;

use common::agent::{Agent, Beating, Row, key};
use common::{NEIGHBOUR, NODE, PATIENCE, Site, client, until, until_so};
use diarwatch_shared::event::What;
use diarwatch_shared::node::WorkerId;
use diarwatch_shared::reading::Missing;
use reqwest::{Response, StatusCode};
use serde_json::Value;

/// Streams that the aggregator takes.
const STREAMS_MAX: usize = 64;

/// A node with everything that the page shows.
fn rows(sessions: f64) -> Vec<Row> {
    let gpu = [("gpu", "0"), ("uuid", "GPU-1")];
    let facts = [("gpu", "0"), ("uuid", "GPU-1"), ("name", "NVIDIA RTX 4060"), ("simulated", "false")];
    let worker = [("worker", "pyannote-1"), ("service", "pyannote #1")];
    let queue = [("queue", "jobs"), ("service", "pyannote")];
    let info = [("queue", "jobs"), ("service", "pyannote"), ("source", "log"), ("estimated", "true")];
    vec![
        (key("gpu_info", &facts), Ok(1.0)),
        (key("gpu_utilization_ratio", &gpu), Ok(0.65)),
        (key("gpu_memory_used_bytes", &gpu), Ok(4e9)),
        (key("gpu_memory_total_bytes", &gpu), Ok(8e9)),
        (key("gpu_power_watts", &gpu), Err(Missing::NotSupported)),
        (key("worker_ready", &worker), Ok(1.0)),
        (key("worker_restarts_total", &worker), Ok(3.0)),
        (key("queue_info", &info), Ok(1.0)),
        (key("queue_waiting", &queue), Ok(3.0)),
        (key("job_duration_mean_seconds", &queue), Ok(150.0)),
        (key("api_request_duration_p95_seconds", &[]), Ok(0.245)),
        (key("api_errors_ratio", &[]), Ok(0.0012)),
        (key("sessions_active", &[]), Ok(sessions)),
        (key("sessions_max", &[]), Ok(100.0)),
        (key("service_up", &[("service", "API Gateway")]), Ok(1.0)),
    ]
}

/// A stream as a browser reads it.
struct Events {
    answer: Response,
    text: String,
}

impl Events {
    async fn open(site: &Site, query: &str) -> Self {
        let answer = client().get(format!("{}/api/v1/stream?{query}", site.page())).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{query}");
        Self { answer, text: String::new() }
    }

    /// The next message: its number and what it says.
    async fn next(&mut self) -> (u64, Value) {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field =
                    |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                let (id, data, kind) = (field("id: "), field("data: "), field("event: "));
                self.text = rest.to_owned();
                if let (Some(id), Some(data)) = (id, data) {
                    assert_eq!(kind.as_deref(), Some("panels"));
                    return (id.parse().unwrap(), serde_json::from_str(&data).unwrap());
                }
                continue;
            }
            let piece = tokio::time::timeout(PATIENCE, self.answer.chunk()).await.expect("it says something");
            self.text.push_str(std::str::from_utf8(&piece.unwrap().expect("it goes on")).unwrap());
        }
    }

    /// Messages until one has a part that is so.
    async fn until(&mut self, view: &str, part: &str, so: impl Fn(&str) -> bool) -> BTreeMap<String, String> {
        let mut parts = BTreeMap::new();
        loop {
            let (_, message) = self.next().await;
            if message["view"] != view {
                continue;
            }
            let object = message["parts"].as_object().unwrap();
            parts.extend(object.iter().map(|(name, html)| (name.clone(), html.as_str().unwrap().to_owned())));
            if object.get(part).and_then(Value::as_str).is_some_and(&so) {
                return parts;
            }
        }
    }
}

#[tokio::test]
async fn the_stream_sends_what_the_page_paints() {
    let site = Site::running("").await;
    let agent = Beating::start(&site, NODE, 7, &rows(45.0)).await;
    let mut events = Events::open(&site, "lang=ja&page=/").await;
    let header = |name: &str| events.answer.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("x-accel-buffering"), "no");
    assert!(header("content-type").starts_with("text/event-stream"));
    let parts = events.until("ja/fleet", "sessions", |html| html.contains("data-value=\"45\"")).await;
    assert_eq!(parts.len(), 11, "a reader who is new gets everything: {:?}", parts.keys());
    until_so("the page paints the same", async || {
        let (_, page) = site.get("/?lang=ja").await;
        ["head", "sessions", "queue", "api_p95", "error_rate", "alerts", "fleet"]
            .iter()
            .all(|name| page.contains(&parts[*name]))
    })
    .await;
    agent.say(&rows(78.0));
    let mut changed = BTreeMap::new();
    let mut numbers = Vec::new();
    while !changed.contains_key("sessions") {
        let (number, message) = events.next().await;
        numbers.push(number);
        let parts = message["parts"].as_object().unwrap();
        changed = parts.iter().map(|(name, html)| (name.clone(), html.clone())).collect();
        assert!(
            message["at_ms"].as_i64().unwrap() > 0 && message["updated"].as_str().unwrap().ends_with("JST")
        );
    }
    assert!(changed["sessions"].as_str().unwrap().contains("data-value=\"78\""));
    assert!(
        !changed.contains_key("queue") && !changed.contains_key("fleet"),
        "what is the same stays: {changed:?}"
    );
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
}

#[tokio::test]
async fn one_stream_carries_the_pages_of_all_tabs() {
    let site = Site::running("").await;
    let _agent = Beating::start(&site, NODE, 7, &rows(45.0)).await;
    let mut events = Events::open(&site, &format!("views=ja/fleet,en/fleet,en/node/{NODE}")).await;
    let ja = events.until("ja/fleet", "queue", |html| html.contains("推定")).await;
    assert!(ja["queue"].contains("3 タスク"), "{}", ja["queue"]);
    events.until("en/fleet", "queue", |html| html.contains("3 jobs") && html.contains("estimated")).await;
    let node = events.until(&format!("en/node/{NODE}"), "node-gpus", |html| html.contains("RTX 4060")).await;
    assert!(node["node-workers"].contains("pyannote #1") && !node.contains_key("sessions"), "{node:?}");
    // A second reader of the same page gets it whole, too.
    let mut second = Events::open(&site, "views=ja/fleet").await;
    assert_eq!(second.until("ja/fleet", "services", |_| true).await.len(), 11);
}

#[tokio::test]
async fn a_stream_of_nonsense_and_one_too_many_are_refused() {
    let site = Site::running("").await;
    for bad in
        ["views=", "views=fr/fleet", "views=ja/nothing", "page=/nothing", "views=ja/fleet,%3Cscript%3E"]
    {
        let (status, _) = site.get(&format!("/api/v1/stream?{bad}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{bad}");
    }
    let many: Vec<String> = (0..9).map(|number| format!("ja/node/n{number}")).collect();
    let (status, _) = site.get(&format!("/api/v1/stream?views={}", many.join(","))).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "more pages than a browser has tabs");
    let mut open = Vec::new();
    for _ in 0..STREAMS_MAX {
        open.push(Events::open(&site, "views=ja/fleet").await);
    }
    let answer = client().get(format!("{}/api/v1/stream?views=ja/fleet", site.page())).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers()["retry-after"], "10");
    assert_eq!(site.metric("diarwatch_page_streams").await, 64.0);
    assert_eq!(site.metric("diarwatch_page_streams_refused_total").await, 2.0);
    assert_eq!(site.get("/").await.0, StatusCode::OK, "the page itself is there");
    drop(open);
    until_so("there is room again", async || site.metric("diarwatch_page_streams").await == 0.0).await;
    Events::open(&site, "views=ja/fleet").await.next().await;
}

/// A day with a value each minute, as it lies on disk.
fn full_day() -> String {
    let now_us = u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_micros()).unwrap();
    let (hour, day) = (3_600_000_000, 86_400_000_000);
    let begins = (now_us + 9 * hour) / day * day - 9 * hour;
    let minute = |at: u64| {
        let value = 0.2 + 0.05 * f64::from(u32::try_from(at * 7_919 % 1_000).unwrap()) / 1_000.0;
        format!("[{at},{},{value},{},60]", value * 0.9, value * 1.3)
    };
    let minutes = (0..(now_us - begins) / 60_000_000).map(minute).collect::<Vec<_>>().join(",");
    let figure = |name: &str| format!("\"{name}\":{{\"minutes\":[{minutes}],\"peak\":null}}");
    format!(
        "{{\"version\":1,\"begins\":{begins},\"ends\":{},\"figures\":{{{},{}}},\"standings\":{{}}}}",
        begins + day,
        figure("api_p95"),
        figure("error_rate"),
    )
}

#[tokio::test]
async fn a_first_load_is_light_and_lighter_without_a_script() {
    let mut site = Site::new("");
    std::fs::create_dir_all(site.path("store")).unwrap();
    std::fs::write(site.path("store").join("page-day.json"), full_day()).unwrap();
    site.start().await;
    let _one = Beating::start(&site, NODE, 7, &rows(45.0)).await;
    let _two = Beating::start(&site, NEIGHBOUR, 7, &rows(45.0)).await;
    until_so("both are there", async || site.node(NEIGHBOUR).await["gpus"][0].is_object()).await;
    // As a browser gets it; the client does not unpack.
    let load = async |path: &str| {
        let request = client().get(format!("{}{path}", site.page())).header("accept-encoding", "gzip, br");
        let answer = request.send().await.unwrap();
        assert_eq!(answer.headers()["content-encoding"], "gzip", "{path}");
        assert!(answer.headers()["vary"].to_str().unwrap().contains("accept-encoding"));
        answer.bytes().await.unwrap().len()
    };
    let (_, page) = site.get("/?lang=ja").await;
    assert!(page.matches("data-points").count() == 2, "{page}");
    let path = |from: &str| {
        let (_, rest) = page.split_once(from).unwrap();
        format!("/assets/{}", rest.split_once('"').unwrap().0)
    };
    let (html, css) = (load("/?lang=ja").await, load(&path("href=\"/assets/")).await);
    let (script, plot) = (load(&path("src=\"/assets/")).await, load(&path("data-plot=\"/assets/")).await);
    let mut events = Events::open(&site, "views=ja/fleet").await;
    let (_, first) = events.next().await;
    let stream = first.to_string().len();
    println!("html {html} css {css} script {script} plot {plot} stream {stream} (the stream is not packed)");
    assert!(html + css <= 15 * 1_024, "{}", html + css);
    assert!(html + css + script + plot + stream <= 64 * 1_024, "{}", html + css + script + plot + stream);
    assert_eq!(
        page.matches("<script").count() + page.matches("stylesheet").count(),
        2,
        "nothing else is loaded"
    );
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(page.as_bytes()).unwrap();
    assert!(encoder.finish().unwrap().len().abs_diff(html) < 512, "what is packed is the page");
}

#[tokio::test]
async fn todays_peak_is_there_after_a_restart() {
    let mut site = Site::running("").await;
    let agent = Beating::start(&site, NODE, 7, &rows(78.0)).await;
    let peak = async |site: &Site| site.json("/api/v1/status").await["panels"]["sessions"].clone();
    until_so("the peak is seen", async || peak(&site).await["peak_today"] == 78.0).await;
    agent.say(&rows(45.0));
    until_so("it is over", async || peak(&site).await["active"] == 45.0).await;
    drop(agent);
    let before = peak(&site).await;
    assert_eq!(site.stop(), Some(0));
    site.start().await;
    let after = peak(&site).await;
    assert_eq!((&after["peak_today"], &after["peak_at_ms"]), (&before["peak_today"], &before["peak_at_ms"]));
    until_so("nobody sends", async || peak(&site).await["active"].is_null()).await;
    let file = site.path("store").join("page-day.json");
    assert_eq!(site.stop(), Some(0));
    std::fs::write(&file, "{\"version\":9}").unwrap();
    site.start().await;
    let status = site.json("/api/v1/status").await;
    assert!(status["problems"].to_string().contains("page-day.json"), "{status}");
    assert_eq!(site.stop(), Some(0));
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        "{\"version\":9}",
        "a later version's file is left alone"
    );
}

/// Lets no field pass that the schema does not name. As it is shipped it is open: whoever reads with it
/// has to bear what a later version adds.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(close);
            if fields.get("type").is_some_and(|kind| kind == "object") {
                fields.insert("additionalProperties".into(), false.into());
            }
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

#[tokio::test]
async fn the_document_is_what_its_schema_says() {
    let mut schema: Value =
        serde_json::from_str(include_str!("../../shared/schemas/fleet_status.json")).unwrap();
    close(&mut schema);
    let validator = jsonschema::validator_for(&schema).unwrap();
    let fits = |document: &Value| {
        let faults: Vec<String> = validator
            .iter_errors(document)
            .map(|fault| format!("{}: {fault}", fault.instance_path()))
            .collect();
        assert!(faults.is_empty(), "{faults:#?}\n{document:#}");
    };
    let page = "[nodes]\nexpected = [\"gpu-09\"]\n[page]\nservices = [\"iPad App\", \"API Gateway\"]";
    let site = Site::running(page).await;
    fits(&site.json("/api/v1/status").await);
    let mut agent = Agent::join(&site, NEIGHBOUR, 7).await;
    let (worker, reason) = (WorkerId::new("w").unwrap(), String::from("signal 9"));
    agent
        .live
        .event(0, What::WorkerExited { worker, pid: Some(7), reason, attempt: 1, restart_in_ms: 5 })
        .await;
    agent.acked(1).await;
    let _beating = Beating::start(&site, NODE, 7, &rows(45.0)).await;
    let full = until("everything is there", async || {
        let status = site.json("/api/v1/status?lang=en").await;
        let there = status["panels"]["sessions"]["peak_today"].is_number()
            && status["panels"]["api_p95"]["day"]["points"][0].is_object()
            && status["alerts"][0].is_object()
            && status["nodes"].as_array().is_some_and(|nodes| nodes.len() == 3);
        there.then_some(status)
    })
    .await;
    fits(&full);
    assert_eq!(full["nodes"][0]["gpus"][0]["power_watts"], Value::Null, "what is not known is null");
    assert_eq!(full["panels"]["queue"]["waiting"], 3.0);
    let mut more = full.clone();
    more["panels"]["queue"]["height"] = 1.into();
    assert!(!validator.is_valid(&more), "a field that the schema does not know is seen");
}
