//! Figures of the application read by a real agent over HTTP: what is a number is sent as it is scaled,
//! what is none is a reason, and a source that hangs delays no other.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of a test"
)]

mod common;

use common::{Kept, Node};
use diarwatch_shared::reading::Missing;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

fn serve(body: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 2048];
            let _ = stream.read(&mut request);
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
        }
    });
    address
}

fn figure(metric: &str, address: SocketAddr, format: &str, value: &str, more: &str) -> String {
    format!(
        "[[figure]]\nmetric = \"{metric}\"\ninterval = \"500ms\"\ntimeout = \"1s\"\n{more}\n\
         [figure.http]\nurl = \"http://{address}/x\"\nformat = \"{format}\"\nvalue = '{value}'\n"
    )
}

fn of<'a>(status: &'a Value, metric: &str) -> &'a Value {
    status["figures"].as_array().unwrap().iter().find(|figure| figure["metric"] == metric).unwrap()
}

#[test]
fn figures_are_scaled_and_what_is_no_number_says_why() {
    let api = serve("{\"p95_ms\": 245, \"errors\": \"many\"}");
    let text = serve("# TYPE sessions gauge\nsessions{kind=\"ipad\"} 40\nsessions{kind=\"web\"} 5\n# EOF\n");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut node = Node::new();
    node.more.push_str(&figure("api_request_duration_p95_seconds", api, "json", "/p95_ms", "scale = 0.001"));
    node.more.push_str(&figure("api_errors_ratio", api, "json", "/errors", ""));
    node.more.push_str(&figure("sessions_active", text, "openmetrics", "sessions", ""));
    node.more.push_str(&figure("ai_errors_ratio", silent.local_addr().unwrap(), "json", "/x", ""));
    node.more.push_str("[[figure]]\nmetric = \"sessions_max\"\nfixed = 100\ninterval = \"500ms\"\n");
    let agent = node.run();
    agent.until("all that can be read is", |status| {
        let value = |metric| of(status, metric)["value"].as_f64();
        let p95 = value("api_request_duration_p95_seconds")?;
        let all = (p95 - 0.245).abs() < 1e-9
            && value("sessions_active")? == 45.0
            && value("sessions_max")? == 100.0;
        all.then_some(())
    });
    agent.until("the rest says why it cannot", |status| {
        let problem = |metric| of(status, metric)["problem"].as_str();
        let lies =
            problem("api_errors_ratio")?.contains("many") || problem("api_errors_ratio")?.contains("/errors");
        (lies && problem("ai_errors_ratio")?.contains("no whole answer")).then_some(())
    });
    agent.stop();
    let mut kept = Kept::of(&node);
    assert!(kept.series("api_request_duration_p95_seconds").iter().any(|(_, reading)| *reading == Ok(0.245)));
    assert!(kept.series("ai_errors_ratio").iter().all(|(_, reading)| *reading == Err(Missing::Timeout)));
}

#[test]
fn a_figure_that_is_not_known_is_refused_with_the_nearest_name() {
    let mut node = Node::new();
    node.more.push_str("[[figure]]\nmetric = \"sesions_max\"\nfixed = 1\n");
    let (status, log) = node.start().end();
    assert_eq!(status.code(), Some(78));
    assert!(log.contains("did you mean `sessions_max`?"), "{log}");
}
