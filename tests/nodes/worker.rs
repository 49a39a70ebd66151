//! A worker of a check: the stand-in's real process with real HTTP. Takes what a check wants of it; gives the
//! agent's table, the unit that people are shown, and a way to tell it what to do.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// The unit that is shipped as an example.
const EXAMPLE: &str = include_str!("../../systemd/examples/pyannote@.service");
/// Where a node's workers and its fake driver meet.
pub(crate) const CLAIMS: &str = "/run/gpu";
/// How long a worker may take to take an order.
const ANSWER: Duration = Duration::from_secs(20);

/// One worker.
#[derive(Clone)]
pub(crate) struct Worker {
    pub(crate) name: &'static str,
    pub(crate) port: u16,
    /// `pyannote` or `pyannote-server`.
    pub(crate) kind: &'static str,
    /// Further options of the stand-in.
    pub(crate) options: String,
    /// Further lines of the unit's `[Service]`; a later line wins.
    pub(crate) service: String,
    /// Further keys of its table.
    pub(crate) keys: String,
    /// Tables within its table.
    pub(crate) tables: String,
}

impl Worker {
    /// One that is ready at once and waits shortly before a restart.
    pub(crate) fn new(name: &'static str, port: u16) -> Self {
        let text = String::new;
        let options = text();
        Self { name, port, kind: "pyannote", options, service: text(), keys: text(), tables: text() }
    }

    /// With these options of the stand-in.
    pub(crate) fn with(self, options: &str) -> Self {
        Self { options: options.to_owned(), ..self }
    }

    /// On the GPU: with its memory, its claim, and a file for what the next start is told.
    pub(crate) fn on_gpu(self, options: &str) -> Self {
        let next = format!("/run/{}.next", self.name);
        let options = format!("--gpu-claims {CLAIMS} --next-start {next} {options}");
        Self { options, keys: "gpu = \"required\"\n".to_owned(), ..self }
    }

    /// The unit of the driver `systemd`.
    pub(crate) fn unit_name(&self) -> String {
        format!("{}.service", self.name)
    }

    /// That unit: the example, with this worker in it.
    pub(crate) fn unit(&self) -> String {
        let ours = |line: &str| !line.starts_with("User=") && !line.starts_with("WorkingDirectory=");
        let lines = EXAMPLE.lines().filter(|line| ours(line)).map(|line| match line {
            "[Install]" => format!("{}{line}", self.service),
            _ if line.starts_with("ExecStart=") => {
                format!("ExecStart=/usr/bin/diarwatch-standins {}", self.arguments("0.0.0.0"))
            }
            _ => line.to_owned(),
        });
        lines.collect::<Vec<_>>().join("\n") + "\n"
    }

    /// The stand-in's arguments.
    pub(crate) fn arguments(&self, address: &str) -> String {
        format!("{} --listen {address}:{} --load 100ms {}", self.kind, self.port, self.options)
    }

    /// Its table in the agent's configuration, with the driver's keys.
    pub(crate) fn table(&self, driver: &str) -> String {
        let (path, pointer, equals) = match self.kind {
            "pyannote-server" => ("health", "/status", "ok"),
            _ => ("ready", "/status", "ready"),
        };
        format!(
            "[[worker]]\nname = \"{}\"\n{driver}\nbackoff_base = \"100ms\"\nbackoff_max = \"1s\"\n{}\
             [worker.readiness]\nurl = \"http://127.0.0.1:{}/{path}\"\ninterval = \"200ms\"\ntimeout = \"1s\"\n\
             json_pointer = \"{pointer}\"\nequals = \"{equals}\"\n{}\n",
            self.name, self.keys, self.port, self.tables
        )
    }
}

/// Tells the worker at this address what to do.
pub(crate) fn tell(address: IpAddr, port: u16, control: &Value) -> Result<(), String> {
    let answer = post(address, port, "/control", control)?;
    if answer.starts_with("HTTP/1.1 2") { Ok(()) } else { Err(format!("{control}: {answer}")) }
}

/// Posts JSON and gives the answer.
pub(crate) fn post(address: IpAddr, port: u16, path: &str, body: &Value) -> Result<String, String> {
    let said = |error: std::io::Error| format!("http://{address}:{port}{path}: {error}");
    let mut stream = TcpStream::connect_timeout(&(address, port).into(), ANSWER).map_err(said)?;
    stream.set_read_timeout(Some(ANSWER)).map_err(said)?;
    let body = body.to_string();
    let head = format!("POST {path} HTTP/1.1\r\nhost: worker\r\ncontent-type: application/json\r\n");
    write!(stream, "{head}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
        .map_err(said)?;
    let mut answer = Vec::new();
    // One that was told to end may not come to the end of its answer.
    drop(stream.read_to_end(&mut answer));
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
