//! Probes of services by a real agent: a service that answers, one that breaks, one that hangs and one
//! that floods; each says its own state and delays no other.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of a test"
)]

mod common;

use common::{Kept, Node};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Answers every request as `answer` says, until the test ends.
fn serve(answer: impl Fn() -> String + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 2048];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer().as_bytes());
        }
    });
    address
}

fn response(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn service(name: &str, address: SocketAddr, more: &str) -> String {
    format!(
        "[[service]]\nname = \"{name}\"\nurl = \"http://{address}/health\"\ninterval = \"500ms\"\ntimeout = \"1s\"\n{more}"
    )
}

fn of<'a>(status: &'a Value, name: &str) -> &'a Value {
    let services = status["services"].as_array().unwrap();
    services.iter().find(|service| service["service"] == name).unwrap()
}

#[test]
fn a_service_that_hangs_or_floods_is_down_and_its_neighbours_are_asked_on_time() {
    let broken = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&broken);
    let api = serve(move || {
        if seen.load(Ordering::Relaxed) { response(500, "no") } else { response(200, "{\"status\":\"ok\"}") }
    });
    // Nobody accepts: the kernel takes the connection and no answer ever comes.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let flood = serve(|| response(200, &"x".repeat(1 << 20)));
    let mut node = Node::new();
    node.more.push_str(&service("API Gateway", api, "json_pointer = \"/status\"\nequals = \"ok\"\n"));
    node.more.push_str(&service("Realtime", silent.local_addr().unwrap(), ""));
    node.more.push_str(&service("Storage", flood, ""));
    let agent = node.run();
    agent.until("the API is up", |status| of(status, "API Gateway")["up"].as_bool().filter(|up| *up));
    let reason = |name: &'static str, words: &'static str| {
        agent.until("it is down with its reason", |status| {
            let service = of(status, name);
            (service["up"] == false && service["problem"].as_str()?.contains(words)).then_some(())
        });
    };
    reason("Realtime", "no whole answer within 1s");
    reason("Storage", "larger than");
    broken.store(true, Ordering::Relaxed);
    reason("API Gateway", "status 500 instead of 200");
    broken.store(false, Ordering::Relaxed);
    agent.until("the API is up again", |status| of(status, "API Gateway")["up"].as_bool().filter(|up| *up));
    agent.stop();
    let told = Kept::of(&node).series("service_up");
    let (up, down) = (Ok(1.0), Ok(0.0));
    assert!(
        told.iter().any(|(_, reading)| *reading == up) && told.iter().any(|(_, reading)| *reading == down)
    );
}
