//! The first job after a kill. The stand-in `pyannote` (it loads for [`LOAD`]) in the care of the driver
//! `child`, with probes and proof as they are by default; the job is posted as soon as the agent says that
//! the worker is ready. Gives the times from kill to the job's end, less the load.
//!
//! So it contains: the restart, the wait for the probe that finds the worker loaded, the further probes
//! that its proof wants, the judge, and the job itself, which takes [`JOB_SECONDS`] of audio at a hundredth.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use tokio::runtime::Builder;

use crate::kept::{self, Kept};
use crate::marks::{kill, now};
use crate::times::{Pauses, Times};

/// How long the stand-in loads.
const LOAD: Duration = Duration::from_secs(1);
/// The audio of a job; it takes a hundredth of that.
const JOB_SECONDS: u32 = 1;
/// Milliseconds that the worker is left in peace at least.
const PEACE: u64 = 300;

/// The stand-in, in a process of its own.
pub(crate) fn stand_in(address: &str) -> ExitCode {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let served = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await?;
        diarwatch_standins::worker::serve(listener, LOAD, Vec::new()).await
    });
    served.map_or(ExitCode::FAILURE, ExitCode::from)
}

/// From kill to the end of the first job, less the load.
pub(crate) fn overheads(rounds: usize) -> Times {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = free.expect("a free port");
    let program = std::env::current_exe().expect("its own path");
    let keys =
        format!("driver = \"child\"\ncommand = [\"{}\", \"pyannote\", \"{address}\"]", program.display());
    let mut kept = Kept::new(kept::config(&keys, &format!("http://{address}/ready"), "/status"));
    let mut pid = kept.ready().pid;
    let (mut ready, mut job, mut all) = (Times::default(), Times::default(), Times::default());
    let mut pauses = Pauses::new();
    for _ in 0..rounds {
        pauses.sleep(PEACE);
        let killed = kill(pid);
        pid = kept.ready().pid;
        let told = now();
        post(address);
        let done = now();
        ready.add(told.saturating_sub(killed).saturating_sub(LOAD));
        job.add(done.saturating_sub(told));
        all.add(done.saturating_sub(killed).saturating_sub(LOAD));
    }
    kept.end();
    ready.tell("first job: kill to ready, less the load");
    job.tell("first job: the job");
    all.tell("first job: kill to done, less the load");
    all
}

/// A job that is waited for.
fn post(address: SocketAddr) {
    let body = format!("{{\"audio_seconds\": {JOB_SECONDS}}}");
    let request = format!(
        "POST /diarize?wait=1 HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address).expect("a ready worker listens");
    stream.write_all(request.as_bytes()).expect("it takes a job");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
