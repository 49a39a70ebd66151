//! A node for tests of the operator's command: an agent with GPUs, a worker and what an aggregator says,
//! all real but the HTTP answers, which are those of a real one, kept as files.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};

use serde_json::Value;

use super::{Agent, Node, diarwatch_command};

/// What the aggregator says of its nodes; taken from a running one.
const FLEET: &str = include_str!("../answers/fleet.json");
/// What it says of alerts; likewise.
const ALERTS: &str = include_str!("../answers/alerts.json");

/// GPUs whose values do not move.
pub const GPUS: &str = "gpus = 2
gpu.*.util = 42
gpu.*.mem_util = 17
gpu.*.mem_used_mib = 3000
gpu.*.mem_total_mib = 8188
gpu.*.mem_reserved_mib = 0
gpu.*.power_mw = 61500
gpu.0.temp = 55
gpu.1.temp = unsupported
gpu.0.uuid = GPU-aaaa
gpu.1.uuid = GPU-bbbb
";

/// A running agent and what answers around it.
pub struct World {
    pub node: Node,
    pub agent: Agent,
    /// Address of the HTTP answers.
    pub http: String,
}

impl World {
    /// An agent that has seen its GPUs and whose worker is ready.
    pub fn start() -> Self {
        Self::with(GPUS)
    }

    pub fn with(gpus: &str) -> Self {
        let http = serve();
        let mut node = Node::new().with_gpus(gpus);
        node.more.push_str(&format!(
            "[[worker]]\nname = \"pyannote-1\"\nservice = \"話者分離 #1\"\ndriver = \"child\"\n\
             command = [\"/bin/sleep\", \"600\"]\n\
             readiness = {{ url = \"{http}/ready\", json_pointer = \"/status\", equals = \"ready\" }}\n\
             stop = {{ take_out = {{ command = [\"/bin/true\"] }}, put_back = {{ command = [\"/bin/true\"] }} }}\n"
        ));
        let agent = node.run();
        agent.until("the worker is ready", |status| (status["workers"][0]["ready"] == true).then_some(()));
        agent.until("the GPUs are read", |status| {
            status["gpus"].as_array()?.iter().all(|gpu| gpu["power_watts"].is_f64()).then_some(())
        });
        Self { node, agent, http }
    }

    /// The operator's command, asking here.
    pub fn command(&self) -> Command {
        let mut command = diarwatch_command();
        command
            .env("DIARWATCH_SOCKET", self.node.path("agent.sock"))
            .env("DIARWATCH_AGGREGATOR", &self.http)
            .env("DIARWATCH_LANG", "en")
            .current_dir(self.node.path("."));
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().unwrap()
    }

    /// What a command prints when all is well.
    #[track_caller]
    pub fn says(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let talk = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {talk}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The one document that a command prints.
    #[track_caller]
    pub fn document(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.says(arguments)).unwrap()
    }
}

/// Answers for as long as the test runs; gives its address.
fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    address
}

fn answer(mut stream: TcpStream) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        request.extend(byte);
    }
    let request = String::from_utf8_lossy(&request);
    let path = request.split_whitespace().nth(1).unwrap_or_default();
    let (status, body) = match path.split('?').next().unwrap_or_default() {
        "/ready" => ("200 OK", "{\"status\":\"ready\"}"),
        "/api/v1/status" => ("200 OK", FLEET),
        "/api/v1/alerts" => ("200 OK", ALERTS),
        _ => ("404 Not Found", "{}"),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    drop(stream.write_all(format!("{head}{body}").as_bytes()));
}
