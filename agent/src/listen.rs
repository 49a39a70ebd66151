//! What a worker writes that is no process of the agent. Takes its configuration; gives the lines of its
//! unit's journal or of its container's log to its [`Words`], from now on, and the last [`LINES_BACK`] once.
//! Lines older than [`FINDINGS_AGE_MAX`] are kept as evidence but tell of no trouble: it is over, or known.
//!
//! journalctl and the Docker Engine read files, so the worker never waits for a slow reader here. One that
//! writes more than [`LINES_PER_SECOND_MAX`] for so long that the reader is a minute behind has lines
//! skipped, and the log says so. A reader that ends is started again after a growing wait, for ever.

use std::path::Path;
use std::time::Duration;

use diarwatch_shared::backoff::{self, Backoff};
use diarwatch_shared::clock::{self, UnixMicros};
use diarwatch_shared::node::WorkerId;
use tokio::task::JoinHandle;

use crate::config::worker::{DriverKind, WorkerConfig};
use crate::engine::Engine;
use crate::queue::log::BEHIND_MAX;
use crate::queue::log::container::{DISORDER, Seen};
use crate::queue::log::frames::Frames;
use crate::queue::log::journal::{self, Back};
use crate::queue::log::sink::{Pace, Take};
use crate::queue::log::stamp::Stamp;
use crate::words::Words;

/// Lines from before the start that are read.
pub const LINES_BACK: usize = 200;
/// A line older than this is no finding.
pub const FINDINGS_AGE_MAX: Duration = Duration::from_secs(600);
/// Lines of one worker a second; more wait for the next second.
pub const LINES_PER_SECOND_MAX: u32 = 2_000;
/// From one try to the next when a container's log ends: short enough to read a container that lives
/// only for seconds.
const RETRY: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));

/// Follows what a worker writes, in a task of its own; none for a child of the agent, whose pipes are read
/// elsewhere. Aborting the task ends its reader.
pub fn follow(config: &WorkerConfig, words: Words) -> Option<JoinHandle<()>> {
    let listener = Listener::new(config.name.clone(), words);
    match config.driver {
        DriverKind::Child => None,
        DriverKind::Systemd => {
            let unit = unit(config);
            Some(tokio::spawn(async move { journal::follow(&unit, Back::Lines(LINES_BACK), listener).await }))
        }
        DriverKind::Docker => {
            let name = config.container.clone()?;
            let socket = config.docker_socket.clone();
            Some(tokio::spawn(async move { container(&name, &socket, listener).await }))
        }
    }
}

/// The worker's unit: the one that is there, or the transient one that is made of its command.
fn unit(config: &WorkerConfig) -> String {
    config.unit.clone().unwrap_or_else(|| format!("diarwatch-worker-{}.service", config.name))
}

/// Passes lines on to a worker's words.
struct Listener {
    worker: WorkerId,
    words: Words,
    pace: Pace,
    problem: Option<String>,
}

impl Listener {
    fn new(worker: WorkerId, words: Words) -> Self {
        Self { worker, words, pace: Pace::of(LINES_PER_SECOND_MAX), problem: None }
    }
}

impl Take for Listener {
    fn line(&mut self, text: &str, at: Option<UnixMicros>, now: UnixMicros) {
        self.pace.count();
        // A clock that was set back must not make a new line a line of the future.
        let at = at.unwrap_or(now).min(now);
        if now.since(at) > FINDINGS_AGE_MAX {
            self.words.keep(text, at);
        } else {
            self.words.put(text, at);
        }
    }

    fn line_cut(&mut self) {}

    fn restarted(&mut self, _: UnixMicros, _: UnixMicros) {}

    fn skipped(&mut self, now: UnixMicros) {
        let words = "lines were skipped: the worker writes more than is read";
        tracing::warn!(worker = %self.worker, "{words}");
        self.words.keep(&format!("[diarwatch: {words}]"), now);
    }

    fn well(&mut self) {
        if self.problem.take().is_some() {
            tracing::info!(worker = %self.worker, "what the worker writes is read again");
        }
    }

    fn problem(&mut self, problem: String) {
        if self.problem.as_ref() != Some(&problem) {
            tracing::warn!(worker = %self.worker, "what the worker writes is not read: {problem}");
            self.problem = Some(problem);
        }
    }

    async fn pace(&mut self) -> bool {
        let Some(rest) = self.pace.rest(clock::uptime()) else { return false };
        tokio::time::sleep(rest).await;
        true
    }
}

/// Reads the log of a container for ever, also what one that has ended wrote: its last words say why.
async fn container(name: &str, socket: &Path, mut listener: Listener) {
    let engine = match Engine::new(socket, name) {
        Ok(engine) => engine,
        Err(error) => return listener.problem(format!("prepare the client of the Docker Engine: {error}")),
    };
    let mut reader = Container { engine, listener, since: None, seen: Seen::default() };
    let mut failures = 0;
    loop {
        let before = reader.seen.newest();
        if let Err(problem) = reader.read().await {
            reader.listener.problem(problem);
        }
        if reader.seen.newest() != before {
            failures = 0;
        }
        tokio::time::sleep(RETRY.wait(failures, backoff::unit(clock::now().0))).await;
        failures = failures.saturating_add(1);
    }
}

struct Container {
    engine: Engine,
    listener: Listener,
    /// From where on it is read; none before the first time.
    since: Option<UnixMicros>,
    seen: Seen,
}

impl Container {
    /// Reads until the log ends: with the container, or with the engine.
    async fn read(&mut self) -> Result<(), String> {
        let inspected = self.engine.inspect().await?;
        let newest = self.seen.newest().map(|newest| newest.minus(DISORDER));
        let since = self.since.max(newest).unwrap_or_default();
        let tail = self.since.is_none().then_some(LINES_BACK);
        let mut stream = self.engine.logs(since, true, tail).await?;
        self.since = Some(since);
        self.listener.well();
        self.seen.again();
        let mut frames = Frames::new(inspected.has_terminal());
        while let Some(bytes) = stream.next().await? {
            let now = clock::now();
            frames.take(bytes.as_ref(), |line, _| self.line(line, now))?;
            let late = self.seen.newest().is_some_and(|newest| now.since(newest) > BEHIND_MAX);
            if self.listener.pace().await && late {
                self.listener.skipped(now);
                self.since = Some(now);
                self.seen = Seen::default();
                return Ok(());
            }
        }
        let now = clock::now();
        frames.rest(|line, _| self.line(line, now));
        Ok(())
    }

    fn line(&mut self, line: &str, now: UnixMicros) {
        let (stamp, text) = line.split_once(' ').unwrap_or((line, ""));
        match Stamp::find(stamp).and_then(|stamp| stamp.instant(None)) {
            Some(at) if self.seen.is_new(at, line) => self.listener.line(text, Some(at), now),
            Some(_) => {}
            None => self.listener.line(line, Some(now), now),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use diarwatch_shared::config::parse;

    use super::*;
    use crate::findings::FindingKind;

    fn config(more: &str) -> WorkerConfig {
        let text = format!("name = \"w-1\"\n{more}\n[readiness]\nurl = \"http://127.0.0.1/\"\n");
        parse(Path::new("agent.toml"), &text).unwrap()
    }

    #[test]
    fn a_command_of_ones_own_is_heard_under_the_name_of_its_transient_unit() {
        assert_eq!(
            unit(&config("driver = \"systemd\"\nunit = \"pyannote@1.service\"")),
            "pyannote@1.service"
        );
        assert_eq!(
            unit(&config("driver = \"systemd\"\ncommand = [\"/bin/sh\"]")),
            "diarwatch-worker-w-1.service"
        );
    }

    #[tokio::test]
    async fn a_child_is_heard_elsewhere() {
        assert!(follow(&config("driver = \"child\"\ncommand = [\"/bin/sh\"]"), Words::default()).is_none());
    }

    #[tokio::test]
    async fn an_old_line_is_evidence_and_no_finding_and_a_new_one_is_both() {
        let words = Words::default();
        let mut listener = Listener::new(WorkerId::new("w-1").unwrap(), words.clone());
        let now = clock::now();
        let old = now.minus(FINDINGS_AGE_MAX + Duration::from_secs(1));
        listener.line("OSError: [Errno 28] No space left on device", Some(old), now);
        listener.line(
            "RuntimeError: CUDA error: unspecified launch failure",
            Some(now.plus(RETRY.wait(9, 1.0))),
            now,
        );
        assert_eq!(words.newest(9).len(), 2);
        let found = words.finding().await;
        assert_eq!((found.kind, found.at), (FindingKind::CudaContextLost, now));
        assert_eq!(words.last(), Some(now));
    }

    #[tokio::test]
    async fn a_journal_is_read_back_by_lines_and_then_followed_behind_the_last_one() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("journalctl");
        let now = clock::now().0;
        let entry = |n: u64, text: &str| {
            format!(r#"{{"__CURSOR":"i={n}","__REALTIME_TIMESTAMP":"{}","MESSAGE":"{text}"}}"#, now + n)
        };
        let script = format!(
            "#!/bin/sh\necho \"$*\" >>{0}/calls\ncase \"$*\" in\n*--lines=200*) echo '{1}';;\n\
             *--after-cursor=i=1*) echo '{2}';;\n*) exec sleep 1000;;\nesac\n",
            directory.path().display(),
            entry(1, "model loaded"),
            entry(2, "torch.OutOfMemoryError: CUDA out of memory."),
        );
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        let words = Words::default();
        let listener = Listener::new(WorkerId::new("w-1").unwrap(), words.clone());
        let task = tokio::spawn(journal::follow_by(program, "w.service", Back::Lines(LINES_BACK), listener));
        let found = tokio::time::timeout(Duration::from_secs(60), words.finding()).await.unwrap();
        assert_eq!((found.kind, found.at), (FindingKind::CudaOutOfMemory, UnixMicros(now + 2)));
        assert_eq!(words.newest(1)[0].1, "torch.OutOfMemoryError: CUDA out of memory.");
        assert_eq!(words.newest(2)[0], (UnixMicros(now + 1), String::from("model loaded")));
        task.abort();
    }
}
