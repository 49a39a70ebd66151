//! One aggregator, one agent, two workers and the stand-ins around them, on loopback, as processes.
//!
//! Takes a directory; gives running processes of the real binaries with certificates of their own, and
//! the addresses to ask them at. Between agent and aggregator lies a cable that can be cut. Without an
//! NVIDIA driver the fake NVML is put in place, and everything says SIMULATED.

mod ask;
mod files;

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use diarwatch_shared::backoff::unit;
use diarwatch_shared::clock;
use tokio::process::{Child, Command};
use tokio::time::timeout;

pub use ask::Asker;
pub(crate) use ask::client;
use files::Files;

/// There while the NVIDIA kernel module is loaded.
const KERNEL_DRIVER: &str = "/proc/driver/nvidia/version";
/// For a process to end after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// Where the stand-in takes messages; the three parts are Slack's form.
pub const WEBHOOK_PATH: &str = "/services/T00000000/B00000000/standin";

/// Why the fleet does not run.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// A file or process could not be made.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A command failed.
    #[error("{0}")]
    Failed(String),
}

impl FleetError {
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }
}

/// Addresses of a fleet, all on loopback.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// The page.
    pub page: SocketAddr,
    /// Frames, behind the cable.
    pub intake: SocketAddr,
    /// Frames, as the agent sees it.
    pub cable: SocketAddr,
    /// The cable's control.
    pub cable_control: SocketAddr,
    /// The Slack stand-in.
    pub slack: SocketAddr,
    /// The workers.
    pub workers: [SocketAddr; 2],
    /// The application around them.
    pub app: SocketAddr,
}

/// A running fleet; its processes end with it.
pub struct Fleet {
    /// Where its files are.
    pub directory: PathBuf,
    /// Where to ask.
    pub ports: Ports,
    /// Whether the fake NVML is in place.
    pub simulated: bool,
    /// The operator's command of this build.
    pub command: PathBuf,
    agent: Child,
    others: Vec<(&'static str, Child)>,
}

impl Fleet {
    /// Starts everything in a new directory. `load` is how long a worker loads its model.
    ///
    /// # Errors
    /// When a binary is missing, a file cannot be written or a process does not start.
    pub fn start(directory: &Path, first_port: Option<u16>, load: Duration) -> Result<Self, FleetError> {
        let binaries = binaries()?;
        let ports = Ports::choose(first_port)?;
        let files = Files::write(directory, &ports, &binaries, load)?;
        let simulated = !Path::new(KERNEL_DRIVER).exists();
        let standins = binaries.join("diarwatch-standins");
        let on = |address: SocketAddr| address.to_string();
        let slack = ["slack", "--listen", &on(ports.slack)].map(str::to_owned);
        let cable = [
            "link",
            "--listen",
            &on(ports.cable),
            "--to",
            &on(ports.intake),
            "--control",
            &on(ports.cable_control),
        ];
        let app = ["app", "--listen", &on(ports.app), "--log", &files.jobs.display().to_string()];
        let mut others = vec![
            ("app", files.spawn(&standins, "app", &app.map(str::to_owned), &[])?),
            ("slack", files.spawn(&standins, "slack", &slack, &[])?),
            ("link", files.spawn(&standins, "link", &cable.map(str::to_owned), &[])?),
        ];
        let run = |config: &Path| ["run".to_owned(), "--config".to_owned(), config.display().to_string()];
        let aggregator = binaries.join("diarwatch-aggregator");
        others.push(("aggregator", files.spawn(&aggregator, "aggregator", &run(&files.aggregator), &[])?));
        let mut environment = Vec::new();
        if simulated {
            environment = files.put_fake_nvml_in_place(&binaries)?;
        }
        let agent =
            files.spawn(&binaries.join("diarwatch-agent"), "agent", &run(&files.agent), &environment)?;
        Ok(Self {
            directory: directory.to_owned(),
            ports,
            simulated,
            command: binaries.join("diarwatch"),
            agent,
            others,
        })
    }

    /// Asks the processes.
    #[must_use]
    pub fn asker(&self) -> Asker {
        Asker::new(self.ports, self.directory.join("agent.sock"))
    }

    /// What to say of a process that has ended by itself, if one has.
    pub fn ended(&mut self) -> Option<String> {
        let others = self.others.iter_mut().map(|(name, child)| (*name, child));
        let all = std::iter::once(("agent", &mut self.agent)).chain(others);
        let ended = all.filter_map(|(name, child)| Some((name, child.try_wait().ok()??))).next();
        ended.map(|(name, status)| {
            format!("{name} ended by itself: {status}; see {}/{name}.log", self.directory.display())
        })
    }

    /// Ends the agent by SIGTERM and gives its log.
    ///
    /// # Errors
    /// When it does not end in time or the log cannot be read.
    pub async fn stop_agent(&mut self) -> Result<String, FleetError> {
        stop(&mut self.agent).await?;
        let path = self.directory.join("agent.log");
        std::fs::read_to_string(&path).map_err(|error| FleetError::io(path.display().to_string(), error))
    }

    /// Ends everything.
    pub async fn stop(mut self) {
        // What does not end by itself is killed when it is dropped.
        drop(stop(&mut self.agent).await);
        for (_, child) in self.others.iter_mut().rev() {
            drop(stop(child).await);
        }
    }
}

async fn stop(child: &mut Child) -> Result<(), FleetError> {
    let Some(pid) =
        child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw)
    else {
        return Ok(());
    };
    // A process that has just ended needs no signal.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    match timeout(STOP_TIMEOUT, child.wait()).await {
        Ok(_) => Ok(()),
        Err(_) => Err(FleetError::Failed(format!(
            "process {pid:?} did not end in {} s after SIGTERM",
            STOP_TIMEOUT.as_secs()
        ))),
    }
}

/// The folder of this binary: the others of the build are beside it.
fn binaries() -> Result<PathBuf, FleetError> {
    let own = std::env::current_exe().map_err(|error| FleetError::io("own path", error))?;
    let folder = own.parent().map(Path::to_owned).unwrap_or_default();
    for name in ["diarwatch-agent", "diarwatch-aggregator", "diarwatch"] {
        if !folder.join(name).exists() {
            return Err(FleetError::Failed(format!(
                "{} is not built; try: make build",
                folder.join(name).display()
            )));
        }
    }
    Ok(folder)
}

/// Ports that the system gives to nobody by itself (its own range begins at 32768): one that is free
/// now is still free when a worker is started again.
const PORT_MIN: u16 = 20_000;
const PORTS: u16 = 12_000;
/// Draws for one free port.
const DRAWS_MAX: u64 = 100;

impl Ports {
    /// Eight ports from `first` on, or any that are free.
    fn choose(first: Option<u16>) -> Result<Self, FleetError> {
        let (mut next, mut drawn) = (first, Vec::new());
        let mut address = || -> Result<SocketAddr, FleetError> {
            let Some(port) = next else { return any_free(&mut drawn) };
            next = Some(port.saturating_add(1));
            free(port)
        };
        Ok(Self {
            page: address()?,
            intake: address()?,
            cable: address()?,
            cable_control: address()?,
            slack: address()?,
            workers: [address()?, address()?],
            app: address()?,
        })
    }
}

/// A port that is free for TCP and UDP now.
fn free(port: u16) -> Result<SocketAddr, FleetError> {
    let what = || format!("port {port} of 127.0.0.1 (another demo may still run; try: --port {PORT_MIN})");
    let listener = TcpListener::bind(("127.0.0.1", port)).map_err(|error| FleetError::io(what(), error))?;
    let address = listener.local_addr().map_err(|error| FleetError::io(what(), error))?;
    UdpSocket::bind(address).map_err(|error| FleetError::io(what(), error))?;
    Ok(address)
}

/// A free port that was not drawn before.
fn any_free(drawn: &mut Vec<SocketAddr>) -> Result<SocketAddr, FleetError> {
    let seed = clock::now().0;
    let draw = |number: u64| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to PORTS")]
        let offset = (unit(seed.wrapping_add(number)) * f64::from(PORTS)) as u16;
        free(PORT_MIN + offset).ok().filter(|address| !drawn.contains(address))
    };
    let found = (0..DRAWS_MAX).find_map(draw);
    let address =
        found.ok_or_else(|| FleetError::Failed(String::from("no free port was found on 127.0.0.1")))?;
    drawn.push(address);
    Ok(address)
}

/// A child whose output goes to a log of its own.
fn spawn(
    program: &Path,
    arguments: &[String],
    environment: &[(String, String)],
    log: &Path,
) -> Result<Child, FleetError> {
    let fail = |error| FleetError::io(format!("start {}", program.display()), error);
    let file = File::create(log).map_err(fail)?;
    let second = file.try_clone().map_err(fail)?;
    Command::new(program)
        .args(arguments)
        .envs(environment.iter().cloned())
        // The terminal's Ctrl-C is for the demo alone: it ends the others in order.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(second)
        .kill_on_drop(true)
        .spawn()
        .map_err(fail)
}
