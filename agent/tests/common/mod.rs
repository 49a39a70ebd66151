//! A node for tests with real processes: its certificates, its configuration, a fake NVML, the agent
//! and the operator's command. Takes what a test changes of them; gives what the product says. Every
//! process that is started here ends with the test.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

pub mod aggregator;
pub mod doctor;
mod nvml;
pub mod operator;
pub mod pki;
pub mod tmux;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use diarwatch_agent::config::SpoolConfig;
use diarwatch_agent::spool::{Item, Spool};
use diarwatch_shared::clock::{self, UnixMicros};
use diarwatch_shared::event::{Event, What};
use diarwatch_shared::frame;
use diarwatch_shared::node::{Epoch, Seq};
use diarwatch_shared::reading::Reading;
use diarwatch_shared::schema::{Labels, Schema};
use diarwatch_shared::wire::{Codec, v1};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use serde_json::Value;

/// A test that waits longer than this has failed; nothing else depends on time but where it says so.
pub const PATIENCE: Duration = Duration::from_secs(40);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// The node's name.
pub const NODE: &str = "tokyo-1";

/// Looks until there is something to see.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = clock::uptime() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(clock::uptime() < end, "waited in vain until {what}");
        std::thread::sleep(LOOK);
    }
}

/// A node: a directory with everything an agent needs.
pub struct Node {
    directory: tempfile::TempDir,
    /// Where frames go; nobody listens there.
    pub endpoint: String,
    /// Where `diarwatch` asks.
    pub socket: PathBuf,
    /// `[gpu]` and everything else that a test adds.
    pub more: String,
    /// Set before the agent's own command, such as a shell that limits it.
    pub before: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Node {
    /// A node without GPUs, workers or aggregator.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        pki::make(directory.path());
        Self {
            socket: directory.path().join("agent.sock"),
            directory,
            endpoint: "127.0.0.1:9".into(),
            more: "[gpu]\nenabled = false\n".into(),
            before: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// A path in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file of it as a whole, so that nobody reads half.
    pub fn put(&self, name: &str, text: &str) {
        let beside = self.path(&format!("{name}.new"));
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, self.path(name)).unwrap();
    }

    /// Its configuration, written anew.
    pub fn config(&self) -> PathBuf {
        let path = |name: &str| self.path(name).display().to_string();
        let text = format!(
            "[identity]\nca = {:?}\ncertificate = {:?}\nkey = {:?}\n\n[aggregator]\nendpoints = [{:?}]\n\n\
             [spool]\ndirectory = {:?}\n\n[socket]\npath = {:?}\n\n{}",
            path("ca.pem"),
            path("node.pem"),
            path("node.key"),
            self.endpoint,
            path("spool"),
            self.socket.display().to_string(),
            self.more
        );
        self.put("agent.toml", &text);
        self.path("agent.toml")
    }

    /// Puts the fake NVML where the loader looks for the driver's library, and has it say this.
    pub fn with_gpus(mut self, scenario: &str) -> Self {
        let folder = self.path("nvml");
        nvml::put_in_place(&folder);
        self.scenario(scenario);
        self.environment = vec![
            ("LD_LIBRARY_PATH".into(), folder.display().to_string()),
            ("DIARWATCH_FAKE_NVML_SCENARIO".into(), self.path("scenario").display().to_string()),
        ];
        self.more = "[gpu]\nfast_interval = \"50ms\"\nslow_interval = \"200ms\"\n".into();
        self
    }

    /// What the fake NVML says from now on.
    pub fn scenario(&self, text: &str) {
        self.put("scenario", text);
    }

    /// Starts the agent.
    pub fn start(&self) -> Agent {
        self.start_as(Path::new(env!("CARGO_BIN_EXE_diarwatch-agent")), "agent")
    }

    /// Starts another file as the agent, its log under this name.
    pub fn start_as(&self, program: &Path, name: &str) -> Agent {
        let log = self.path(&format!("{name}.log"));
        let mut words = self.before.clone();
        words.extend([program.display().to_string(), "run".into(), "--config".into()]);
        words.push(self.config().display().to_string());
        let child = Command::new(&words[0])
            .args(&words[1..])
            .envs(self.environment.clone())
            .env("DIARWATCH_LOG", "info,quinn=error")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Agent { child, log, socket: self.socket.clone() }
    }

    /// Starts the agent and waits until it answers.
    pub fn run(&self) -> Agent {
        let mut agent = self.start();
        agent.answers();
        agent
    }
}

/// What an agent that has ended left in its spool.
pub struct Kept {
    pub epochs: Vec<Epoch>,
    /// In order.
    pub frames: Vec<(Epoch, Seq, Vec<u8>)>,
    spool: Spool,
}

impl Kept {
    pub fn of(node: &Node) -> Self {
        let config = SpoolConfig { directory: node.path("spool"), ..SpoolConfig::default() };
        let mut spool = Spool::open(&config, UnixMicros(0)).unwrap();
        let epochs = spool.epochs();
        let mut frames = Vec::new();
        for epoch in &epochs {
            for item in spool.read(*epoch, 0, usize::MAX).unwrap() {
                match item {
                    Item::Frame(seq, bytes) => frames.push((*epoch, seq, bytes)),
                    Item::Gap(gap) => panic!("{gap:?}"),
                }
            }
        }
        Self { epochs, frames, spool }
    }

    /// What happened, in order.
    pub fn events(&self) -> Vec<What> {
        let opened = self.frames.iter().map(|(_, _, bytes)| v1::open(bytes).unwrap());
        let events = opened.filter(|(header, _)| header.codec == Codec::Event);
        events.map(|(_, payload)| Event::from_bytes(&payload).unwrap().what).collect()
    }

    /// Every reading of a metric, in order of the frames.
    pub fn series(&mut self, metric: &str) -> Vec<(UnixMicros, Reading)> {
        self.all(metric, None)
    }

    /// Those that carry a label.
    pub fn labelled(&mut self, metric: &str, label: &(String, String)) -> Vec<(UnixMicros, Reading)> {
        self.all(metric, Some(label))
    }

    fn all(&mut self, metric: &str, label: Option<&(String, String)>) -> Vec<(UnixMicros, Reading)> {
        let fits = |labels: &Labels| label.is_none_or(|(name, value)| labels.get(name) == Some(value));
        let mut readings = Vec::new();
        for (_, _, bytes) in &self.frames {
            let (header, payload) = v1::open(bytes).unwrap();
            if header.codec != Codec::Columns {
                continue;
            }
            let schema = Schema::from_bytes(&self.spool.schema(header.schema).unwrap().unwrap()).unwrap();
            let body = frame::decode(&schema, header.base, &payload).unwrap();
            for (group, values) in schema.groups.iter().zip(&body.groups) {
                let columns = group.series.iter().zip(&values.columns);
                for (_, column) in
                    columns.filter(|(series, _)| series.key.metric == metric && fits(&series.key.labels))
                {
                    readings.extend(values.times.iter().copied().zip(column.iter().copied()));
                }
            }
        }
        readings
    }
}

/// A running agent; killed when it is dropped.
pub struct Agent {
    child: Child,
    log: PathBuf,
    socket: PathBuf,
}

impl Agent {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it said on stderr.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until it answers; an end before that fails the test with its words.
    #[track_caller]
    pub fn answers(&mut self) -> Value {
        until("the agent answers", || {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the agent ended with {ended:?}: {}", self.log());
            self.try_status()
        })
    }

    /// `diarwatch status --json`, when it answers.
    pub fn try_status(&self) -> Option<Value> {
        let output = diarwatch(&["status", "--json", "--socket", &self.socket.display().to_string()]);
        (output.status.code() == Some(0)).then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    #[track_caller]
    pub fn status(&self) -> Value {
        self.try_status().unwrap_or_else(|| panic!("no answer: {}", self.log()))
    }

    /// Waits for a status that gives something.
    #[track_caller]
    pub fn until<T>(&self, what: &str, mut look: impl FnMut(&Value) -> Option<T>) -> T {
        let mut last = Value::Null;
        let end = clock::uptime() + PATIENCE;
        loop {
            if let Some(status) = self.try_status() {
                if let Some(seen) = look(&status) {
                    return seen;
                }
                last = status;
            }
            assert!(clock::uptime() < end, "waited in vain until {what}: {last:#}\n{}", self.log());
            std::thread::sleep(LOOK);
        }
    }

    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(pid_of(self.pid()), signal).unwrap();
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(mut self) -> (ExitStatus, String) {
        let status = until("the agent ends", || self.child.try_wait().unwrap());
        (status, self.log())
    }

    /// Asks it to stop and waits for its end.
    #[track_caller]
    pub fn stop(self) -> (ExitStatus, String) {
        self.signal(Signal::TERM);
        self.end()
    }

    /// CPU seconds that it and the children it has waited for have used.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields.split_whitespace().skip(11).take(4).map(|field| field.parse::<f64>().unwrap()).sum::<f64>()
            / diarwatch_agent::proc_text::TICKS_PER_SECOND
    }

    /// Lets no file of it grow beyond so many bytes: what a full disk does, without a disk of its own.
    pub fn limit_files(&self, bytes: Option<u64>) {
        let limit = Rlimit { current: bytes, maximum: None };
        prlimit(Some(pid_of(self.pid())), Resource::Fsize, limit).unwrap();
    }

    /// Its sampler, when it has one.
    pub fn sampler(&self) -> Option<u32> {
        children_of(self.pid()).into_iter().find(|pid| {
            let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            arguments.split(|byte| *byte == 0).nth(1) == Some(b"sampler")
        })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs the operator's command.
pub fn diarwatch(arguments: &[&str]) -> Output {
    diarwatch_command().args(arguments).output().unwrap()
}

/// The operator's command without anything that the environment of the test says.
pub fn diarwatch_command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_diarwatch"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DIARWATCH_"))
    {
        command.env_remove(name);
    }
    for name in ["COLUMNS", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C").stdin(Stdio::null());
    command
}

pub fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

/// Whether a process runs; one that only waits to be reaped does not.
pub fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// The processes that this one has started and not yet waited for.
pub fn children_of(parent: u32) -> Vec<u32> {
    let of = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let ppid = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        ppid == Some(parent)
    };
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(of).collect()
}
