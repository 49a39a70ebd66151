//! The driver `child`: the worker is the agent's own process, for the demo and for tests. Takes a
//! worker's command; gives its pid, its end as soon as the kernel tells it, its output to the log. A
//! slow log makes it drop lines (`output.rs`), never wait.
//!
//! The worker leads a process group of its own. When its first process ends, what is left of the
//! group is killed before the end is told: a left-over would keep the port and the GPU's memory from
//! the next start. The worker ends with the agent, in any case: at a stop with its grace, at a panic
//! by `Drop`, at a SIGKILL of the agent by the death signal (its first process only).

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Pid;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use super::{Driver, Exit, Found, News, Process, Signal, StartError, output, processes};
use crate::config::worker::WorkerConfig;
use crate::words::Words;

/// How long the output of an ended worker is still read, in milliseconds: its last words are the
/// reason, but a stranger that inherited the pipe may keep it open for ever.
pub const OUTPUT_DRAIN_MS_MAX: u64 = 1_000;

/// How long a stop waits for the end of a killed worker.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// What systemd tells the agent and nobody else; a worker that answered there would speak for it.
const OWN_VARIABLES: [&str; 8] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
];

/// A worker as the agent's own process.
#[derive(Debug)]
pub struct ChildDriver {
    config: WorkerConfig,
    running: Option<Running>,
    /// Where what it writes is kept.
    words: Words,
}

impl ChildDriver {
    /// A driver of this worker; nothing runs yet.
    #[must_use]
    pub fn new(config: WorkerConfig, words: Words) -> Self {
        Self { config, running: None, words }
    }
}

impl Driver for ChildDriver {
    /// A worker of a former agent ended with it.
    async fn look(&mut self) -> Result<Found, String> {
        Ok(Found::Stopped { exit: None })
    }

    async fn start(&mut self) -> Result<Process, StartError> {
        let (program, arguments) = self.config.command.split_first().ok_or(StartError::NoCommand)?;
        let spawned = command(program, arguments, &self.config).spawn();
        let child = spawned.map_err(|source| StartError::NotRun { program: program.clone(), source })?;
        let running = Running::new(child, &self.config, &self.words);
        let running = running.ok_or_else(|| StartError::GoneAtOnce { program: program.clone() })?;
        let pid = running.pid;
        self.running = Some(running);
        Ok(Process { pid, age: Duration::ZERO })
    }

    async fn news(&mut self) -> News {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let status = running.child.wait().await;
        let mut exit = status.map_or_else(
            |error| Exit { reason: format!("its end could not be read: {error}"), ..Exit::default() },
            exit_of,
        );
        exit.pid = running.pid;
        if let Some(running) = self.running.take() {
            running.clear_up();
        }
        News::Exited(exit)
    }

    async fn signal(&mut self, signal: Signal) -> Result<(), String> {
        let Some(running) = &self.running else { return Ok(()) };
        match signal {
            Signal::Terminate => running.signal_first(rustix::process::Signal::TERM),
            Signal::Traceback(number) => {
                let named = rustix::process::Signal::from_named_raw(number);
                named
                    .ok_or_else(|| format!("signal {number} has no name"))
                    .map(|signal| running.signal_first(signal))?;
            }
            Signal::Kill => running.signal_group(rustix::process::Signal::KILL),
        }
        Ok(())
    }

    fn pids(&self) -> BTreeSet<u32> {
        self.running.as_ref().map(|running| processes::of_group(running.pid)).unwrap_or_default()
    }

    async fn leave(&mut self, grace: Duration) {
        let Some(running) = &mut self.running else { return };
        running.signal_group(rustix::process::Signal::TERM);
        if tokio::time::timeout(grace, running.child.wait()).await.is_err() {
            running.signal_group(rustix::process::Signal::KILL);
            // It cannot be caught; only a process that hangs in the kernel (a driver call) outlives it.
            let gone = tokio::time::timeout(KILL_WAIT, running.child.wait()).await;
            if gone.is_err() {
                tracing::error!(worker = %self.config.name, pid = running.pid, "SIGKILL has not ended the worker");
            }
        }
        if let Some(running) = self.running.take() {
            running.clear_up();
        }
    }

    fn outlives_the_agent(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct Running {
    pid: u32,
    child: Child,
    readers: JoinSet<()>,
}

impl Running {
    fn new(mut child: Child, config: &WorkerConfig, words: &Words) -> Option<Self> {
        let pid = child.id()?;
        let mut readers = JoinSet::new();
        if let Some(stdout) = child.stdout.take() {
            readers.spawn(output::relay(stdout, config.name.clone(), "stdout", words.clone()));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.spawn(output::relay(stderr, config.name.clone(), "stderr", words.clone()));
        }
        Some(Self { pid, child, readers })
    }

    /// To its first process, while that is not reaped; its number may be another's afterwards.
    fn signal_first(&self, signal: rustix::process::Signal) {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw) {
            rustix::process::kill_process(pid, signal).ok();
        }
    }

    /// To every process of the group; none left is as good.
    fn signal_group(&self, signal: rustix::process::Signal) {
        if let Some(group) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            rustix::process::kill_process_group(group, signal).ok();
        }
    }

    /// Kills what the first process left, and reads the last of its output.
    fn clear_up(mut self) {
        self.signal_group(rustix::process::Signal::KILL);
        let readers = std::mem::take(&mut self.readers);
        let drain = Duration::from_millis(OUTPUT_DRAIN_MS_MAX);
        tokio::spawn(tokio::time::timeout(drain, readers.join_all()));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The number of a group that was cleared up may belong to another by now.
        if self.child.id().is_some() {
            self.signal_group(rustix::process::Signal::KILL);
        }
    }
}

fn command(program: &str, arguments: &[String], config: &WorkerConfig) -> Command {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    for name in OWN_VARIABLES {
        command.env_remove(name);
    }
    command.envs(&config.environment.0);
    if let Some(directory) = &config.working_directory {
        command.current_dir(directory);
    }
    die_with_the_agent(&mut command);
    command
}

/// Has the kernel kill the worker when the agent is gone, however it went.
///
/// The death signal follows the thread that starts the worker, not the process: the agent runs its
/// tasks on its main thread (`current_thread`), whose end is the agent's end.
#[expect(unsafe_code, reason = "a death signal can only be set between fork and exec")]
fn die_with_the_agent(command: &mut Command) {
    let agent = rustix::process::getpid();
    let set = move || {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        // An agent that died before this line sends no signal any more.
        if rustix::process::getppid() == Some(agent) { Ok(()) } else { Err(rustix::io::Errno::CHILD.into()) }
    };
    // SAFETY: the closure makes two system calls and allocates nothing, which is all that may be done
    // between fork and exec.
    unsafe {
        command.pre_exec(set);
    }
}

/// An end as the kernel tells it; also of processes that others waited for.
pub(super) fn exit_of(status: ExitStatus) -> Exit {
    let reason = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => {
            format!("{}{}", signal_words(signal), if status.core_dumped() { ", core dumped" } else { "" })
        }
        (None, None) => status.to_string(),
    };
    let (code, signal, core) = (status.code(), status.signal(), status.core_dumped());
    Exit { reason, code, signal, core, ..Exit::default() }
}

/// `signal 9 (SIGKILL)`.
pub(super) fn signal_words(signal: i32) -> String {
    signal_name(signal).map_or_else(|| format!("signal {signal}"), |name| format!("signal {signal} ({name})"))
}

fn signal_name(signal: i32) -> Option<&'static str> {
    use rustix::process::Signal as S;

    [
        (S::HUP, "SIGHUP"),
        (S::INT, "SIGINT"),
        (S::QUIT, "SIGQUIT"),
        (S::ILL, "SIGILL"),
        (S::TRAP, "SIGTRAP"),
        (S::ABORT, "SIGABRT"),
        (S::BUS, "SIGBUS"),
        (S::FPE, "SIGFPE"),
        (S::KILL, "SIGKILL"),
        (S::USR1, "SIGUSR1"),
        (S::SEGV, "SIGSEGV"),
        (S::USR2, "SIGUSR2"),
        (S::PIPE, "SIGPIPE"),
        (S::ALARM, "SIGALRM"),
        (S::TERM, "SIGTERM"),
        (S::XCPU, "SIGXCPU"),
        (S::XFSZ, "SIGXFSZ"),
        (S::SYS, "SIGSYS"),
    ]
    .into_iter()
    .find_map(|(known, name)| (known.as_raw() == signal).then_some(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use diarwatch_shared::config::parse;
    use std::path::Path;

    /// A driver of a shell that runs this script.
    fn shell(script: &str) -> ChildDriver {
        let text = format!(
            "name = \"w\"\ndriver = \"child\"\ncommand = [\"/bin/sh\", \"-c\", '''{script}''']\n\
             environment = {{ GREETING = \"7\" }}\nreadiness = {{ url = \"http://127.0.0.1/\" }}\n"
        );
        ChildDriver::new(parse(Path::new("w.toml"), &text).unwrap(), Words::default())
    }

    async fn end_of(script: &str) -> String {
        let mut driver = shell(script);
        let pid = driver.start().await.unwrap().pid;
        match driver.news().await {
            News::Exited(exit) => {
                assert_eq!(exit.pid, pid);
                exit.reason
            }
            other => panic!("{other:?}"),
        }
    }

    /// Whether a process of this group still runs; one that only waits to be reaped does not.
    fn group_lives(group: u32) -> bool {
        std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            fields.get(2) == Some(&group.to_string().as_str()) && !["Z", "X"].contains(&fields[0])
        })
    }

    async fn until_group_is_gone(group: u32) {
        while group_lives(group) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn until_it_is_there(path: &Path) {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn an_end_is_told_in_words_for_people() {
        assert_eq!(end_of("exit 3").await, "exit code 3");
        assert_eq!(end_of("exit $GREETING").await, "exit code 7");
        assert_eq!(end_of("kill -9 $$").await, "signal 9 (SIGKILL)");
        assert_eq!(end_of("kill -35 $$").await, "signal 35");
        assert_eq!(end_of("read line").await, "exit code 1", "there is nothing to read");
    }

    #[test]
    fn a_worker_does_not_speak_to_systemd_in_the_agents_name() {
        let driver = shell("");
        let command = command("/bin/sh", &[], &driver.config);
        let changed: Vec<_> = command.as_std().get_envs().collect();
        assert!(changed.contains(&("NOTIFY_SOCKET".as_ref(), None)));
        assert!(changed.contains(&("GREETING".as_ref(), Some("7".as_ref()))));
    }

    #[tokio::test]
    async fn a_program_that_cannot_run_is_named_with_the_systems_words() {
        let mut driver = shell("");
        driver.config.command = vec!["/no/such/program".into()];
        let error = driver.start().await.unwrap_err().to_string();
        assert!(error.starts_with("start `/no/such/program`: No such file"), "{error}");
    }

    #[tokio::test]
    async fn what_a_killed_worker_leaves_behind_is_killed_before_the_next_start() {
        let mut driver = shell("sleep 1000 & kill -9 $$");
        let pid = driver.start().await.unwrap().pid;
        driver.news().await;
        until_group_is_gone(pid).await;
    }

    #[tokio::test]
    async fn a_worker_that_ignores_the_request_to_stop_is_killed_with_its_children_after_the_grace() {
        let directory = tempfile::tempdir().unwrap();
        let up = directory.path().join("up");
        let mut driver = shell(&format!("trap '' TERM; sleep 1000 & touch {}; sleep 1000", up.display()));
        let pid = driver.start().await.unwrap().pid;
        until_it_is_there(&up).await;
        driver.leave(Duration::from_millis(100)).await;
        until_group_is_gone(pid).await;
    }

    #[tokio::test]
    async fn a_worker_that_stops_when_asked_may_end_its_work_first() {
        let directory = tempfile::tempdir().unwrap();
        let (up, done) = (directory.path().join("up"), directory.path().join("done"));
        let script = format!(
            "trap 'echo last >{}; exit 0' TERM; touch {}; while :; do sleep 0.01; done",
            done.display(),
            up.display()
        );
        let mut driver = shell(&script);
        driver.start().await.unwrap();
        until_it_is_there(&up).await;
        driver.leave(Duration::from_secs(60)).await;
        assert_eq!(std::fs::read_to_string(done).unwrap(), "last\n");
    }

    #[tokio::test]
    async fn a_dropped_driver_leaves_nothing_running() {
        let mut driver = shell("sleep 1000 & sleep 1000");
        let pid = driver.start().await.unwrap().pid;
        drop(driver);
        until_group_is_gone(pid).await;
    }

    #[test]
    fn a_worker_dies_with_the_thread_that_started_it() {
        let starter = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let mut driver = shell("exec sleep 30");
            let pid = runtime.block_on(driver.start()).unwrap().pid;
            // Nothing of ours may end it: this is the agent that was killed.
            std::mem::forget(driver);
            std::mem::forget(runtime);
            pid
        });
        let pid = Pid::from_raw(i32::try_from(starter.join().unwrap()).unwrap());
        let (_, status) =
            rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(status.terminating_signal(), Some(9));
    }
}
