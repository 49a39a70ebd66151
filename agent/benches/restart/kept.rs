//! A worker in the agent's care. Takes a driver's keys; gives the times from kill to running, and tells where
//! they went. The agent's loop has a thread and a runtime of its own, as in the service; nothing of it is
//! left out but the back-off and the budget of restarts, which would be the only thing measured.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use diarwatch_agent::config::worker::WorkerConfig;
use diarwatch_agent::workers::{self, Ground, WorkerOutput};
use diarwatch_shared::clock::{self, UnixMicros};
use diarwatch_shared::event::What;
use diarwatch_shared::quantity::Span;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};

use crate::marks::{Marks, kill};
use crate::times::{Pauses, Times};

/// What waits longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Outputs of the worker that wait.
const OUTPUTS_MAX: usize = 1_024;
/// From one probe to the next: shorter than a configuration may say, to come to the next kill.
const PROBE_INTERVAL: Duration = Duration::from_millis(20);
/// Milliseconds that a ready worker is left in peace at least.
const PEACE: u64 = 10;

/// An agent's loop around one worker, in a thread of its own.
pub(crate) struct Kept {
    runtime: Runtime,
    outputs: mpsc::Receiver<WorkerOutput>,
    stop: watch::Sender<bool>,
    thread: std::thread::JoinHandle<()>,
    pid: u32,
}

/// When the agent told what, by the wall clock.
#[derive(Default)]
pub(crate) struct Told {
    exited: Option<UnixMicros>,
    started: Option<UnixMicros>,
    pub(crate) pid: u32,
}

impl Kept {
    /// Takes a worker into care, without a wait before its restarts.
    pub(crate) fn new(mut config: WorkerConfig) -> Self {
        config.backoff_base = Span(Duration::ZERO);
        config.supervise.restarts_max = u32::MAX;
        let (out, outputs) = mpsc::channel(OUTPUTS_MAX);
        let (stop, stopped) = watch::channel(false);
        let thread = std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let (_, orders) = mpsc::channel(1);
                workers::start(config, Ground::bare(out), orders, stopped).expect("probes").join_all().await;
            });
        });
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { runtime, outputs, stop, thread, pid: 0 }
    }

    /// Until the worker is ready; what was told until then.
    pub(crate) fn ready(&mut self) -> Told {
        let mut told = Told::default();
        loop {
            let next =
                self.runtime.block_on(async { tokio::time::timeout(PATIENCE, self.outputs.recv()).await });
            let WorkerOutput::Event(event) = next.expect("something happens").expect("it is looked after")
            else {
                continue;
            };
            match event.what {
                What::WorkerExited { .. } if told.exited.is_none() => told.exited = Some(event.at),
                What::WorkerStarted { pid, .. } if told.started.is_none() => {
                    told.started = Some(event.at);
                    self.pid = pid;
                }
                What::WorkerReady { .. } => {
                    told.pid = self.pid;
                    return told;
                }
                // Gathered beside the restarts, a moment later.
                What::WorkerEvidence { .. } => {}
                other => panic!("this was not to happen: {other:?}"),
            }
        }
    }

    /// Ends the care.
    pub(crate) fn end(self) {
        self.stop.send(true).expect("it listens");
        self.thread.join().expect("it ends");
    }
}

/// The times of the driver `child`.
pub(crate) fn child(rounds: usize) -> Times {
    let folder = tempfile::tempdir().expect("a folder");
    let marks = folder.path().join("marks");
    let program = std::env::current_exe().expect("its own path");
    let keys = format!(
        "driver = \"child\"\ncommand = [\"{}\", \"worker\", \"{}\"]",
        program.display(),
        marks.display()
    );
    times("child", &keys, &Marks::at(&marks), rounds)
}

/// The times of a driver.
pub(crate) fn times(driver: &str, keys: &str, marks: &Marks, rounds: usize) -> Times {
    let mut config = config(keys, &always_ready(), "/status");
    config.readiness.interval = Span(PROBE_INTERVAL);
    config.proof.readiness = 1;
    let mut kept = Kept::new(config);
    let mut pid = kept.ready().pid;
    assert_eq!(marks.next().0, pid);
    let (mut all, mut judged, mut told) = (Times::default(), Times::default(), Times::default());
    let mut pauses = Pauses::new();
    for _ in 0..rounds {
        pauses.sleep(PEACE);
        let wall = clock::now();
        let at = kill(pid);
        let (next, began) = marks.next();
        all.add(began.saturating_sub(at));
        let words = kept.ready();
        assert_eq!((words.pid, words.pid == pid), (next, false), "the new process is the one looked after");
        judged.add(words.exited.expect("its end is told").since(wall));
        told.add(words.started.expect("its start is told").since(wall));
        pid = next;
    }
    kept.end();
    judged.tell(&format!("{driver}: kill to its end judged"));
    all.tell(&format!("{driver}: kill to running"));
    told.tell(&format!("{driver}: kill to its start known"));
    all
}

/// A worker's configuration of these keys.
pub(crate) fn config(keys: &str, url: &str, pointer: &str) -> WorkerConfig {
    let text = format!(
        "name = \"bench\"\n{keys}\n[readiness]\nurl = \"{url}\"\njson_pointer = \"{pointer}\"\nequals = \"ready\"\n"
    );
    diarwatch_shared::config::parse(Path::new("bench.toml"), &text).expect("a worker")
}

/// A place that says "ready" to everyone, until this program ends.
fn always_ready() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/ready", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let answer =
                "HTTP/1.1 200 OK\r\ncontent-length: 18\r\nconnection: close\r\n\r\n{\"status\":\"ready\"}";
            drop(stream.read(&mut [0; 2_048]));
            drop(stream.write_all(answer.as_bytes()));
        }
    });
    url
}
