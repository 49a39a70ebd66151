//! What a person does to a container, with the engine's own requests, and what a driver tells of it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use diarwatch_agent::config::worker::WorkerConfig;
use diarwatch_agent::restart::docker::DockerDriver;
use diarwatch_agent::restart::{Driver, Exit, Found, News, Process};
use rustix::process::{Pid, kill_process, test_kill_process};

/// A test that waits longer than this has failed; nothing else here depends on time.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// A worker that ends when it is asked to.
pub const POLITE: &str = "trap 'exit 0' TERM; while :; do sleep 0.05; done";
/// A worker that does not: a container's first process ignores what it does not handle.
pub const DEAF: &str = "sleep 1000";

/// What a person does, with the engine's own requests, as `docker` sends them.
pub struct Hand {
    socket: PathBuf,
    image: String,
    pub name: String,
    /// The engine is restarted by one test, alone.
    _turn: File,
}

impl Hand {
    /// A hand on a container that is not there yet; none without an engine.
    pub fn new(case: &str) -> Option<Self> {
        Self::with(case, File::lock_shared)
    }

    pub fn with(case: &str, lock: impl Fn(&File) -> std::io::Result<()>) -> Option<Self> {
        let Some(socket) = std::env::var_os("DIARWATCH_TEST_DOCKER_SOCKET") else {
            println!("SKIPPED: {case}: DIARWATCH_TEST_DOCKER_SOCKET names no Docker Engine");
            return None;
        };
        let image = std::env::var("DIARWATCH_TEST_DOCKER_IMAGE").unwrap_or_else(|_| "busybox".into());
        let turn = File::create(std::env::temp_dir().join("diarwatch-driver-docker.lock")).unwrap();
        lock(&turn).unwrap();
        let name = format!("diarwatch-{case}-{}", std::process::id());
        Some(Self { socket: socket.into(), image, name, _turn: turn })
    }

    pub fn request(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} /{path} HTTP/1.1\r\nhost: docker\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        (answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap(), answer)
    }

    #[track_caller]
    pub fn does(&self, what: &str) {
        let (status, answer) = self.request("POST", &format!("containers/{}/{what}", self.name), "");
        assert!(status < 300, "{what}: {answer}");
    }

    #[track_caller]
    pub fn makes(&self, name: &str, script: &str, host: &str, more: &str) {
        let script = serde_json::to_string(script).unwrap();
        let body = format!(
            r#"{{"Image":"{}","Cmd":["/bin/sh","-c",{script}],"HostConfig":{{"NetworkMode":"host"{host}}}{more}}}"#,
            self.image
        );
        let (status, answer) = self.request("POST", &format!("containers/create?name={name}"), &body);
        assert_eq!(status, 201, "{answer}");
    }

    /// A container that runs this.
    #[track_caller]
    pub fn runs(&self, script: &str) {
        self.makes(&self.name, script, "", "");
        self.does("start");
    }

    pub fn removes(&self) -> u16 {
        self.request("DELETE", &format!("containers/{}?force=1", self.name), "").0
    }

    pub fn driver(&self) -> DockerDriver {
        let text = format!(
            "name = \"w\"\ndriver = \"docker\"\ncontainer = \"{}\"\ndocker_socket = \"{}\"\n\
             [readiness]\nurl = \"http://127.0.0.1:9/\"\n",
            self.name,
            self.socket.display()
        );
        let config: WorkerConfig = diarwatch_shared::config::parse(Path::new("a.toml"), &text).unwrap();
        DockerDriver::new(config)
    }

    /// A driver that found the container running.
    pub async fn adopted(&self) -> (DockerDriver, u32) {
        let mut driver = self.driver();
        let pid = running(driver.look().await).pid;
        (driver, pid)
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        // A container that another test's panic left is of no harm; one of this test has to go.
        if UnixStream::connect(&self.socket).is_ok() {
            self.removes();
        }
    }
}

#[track_caller]
pub fn running(found: Result<Found, String>) -> Process {
    match found {
        Ok(Found::Running(process)) => process,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub fn stopped(found: Result<Found, String>) -> Exit {
    match found {
        Ok(Found::Stopped { exit: Some(exit) }) => exit,
        other => panic!("{other:?}"),
    }
}

pub async fn news(driver: &mut DockerDriver) -> News {
    tokio::time::timeout(PATIENCE, driver.news()).await.expect("there is news")
}

pub async fn exited(driver: &mut DockerDriver) -> Exit {
    match news(driver).await {
        News::Exited(exit) => exit,
        other => panic!("{other:?}"),
    }
}

pub async fn started(driver: &mut DockerDriver) -> u32 {
    match news(driver).await {
        News::Started(process) => process.pid,
        other => panic!("{other:?}"),
    }
}

/// Nothing more is told of what has happened so far.
pub async fn silent(driver: &mut DockerDriver) {
    let more = tokio::time::timeout(Duration::from_millis(500), driver.news()).await;
    assert!(more.is_err(), "{more:?}");
}

pub fn kill(pid: u32) {
    assert!(pid > 1);
    kill_process(pid_of(pid), rustix::process::Signal::KILL).unwrap();
}

pub fn lives(pid: u32) -> bool {
    test_kill_process(pid_of(pid)).is_ok()
}

fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

pub async fn until_gone(pid: u32) {
    while lives(pid) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
