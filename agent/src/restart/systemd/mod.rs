//! The driver `systemd`: the worker is a unit, which outlives the agent. Takes a unit's name, or a
//! command of which it makes a transient unit; gives its main process, its end as soon as the kernel
//! tells it, and what systemd knows of that end. A slow bus delays no end, only its words, and those
//! for a bounded time; a lost bus is told and reached again with a back-off.
//!
//! The parts: `bus.rs` speaks D-Bus, `unit.rs` puts together what systemd says, `link.rs` keeps it
//! while the connection lives, `watch.rs` sees a process end, `start.rs` starts one.
//!
//! systemd's own `Restart=` is the floor for when the agent is dead. It is told with each end; the
//! agent starts earlier by cutting that wait short.

mod bus;
mod link;
mod start;
mod unit;
mod watch;

use std::collections::BTreeSet;
use std::time::Duration;

use self::bus::{Trouble, Whom};
use self::link::Link;
use self::watch::Watch;
use super::{Driver, Exit, Found, News, Process, Signal, StartError, processes};
use crate::config::worker::WorkerConfig;

/// How long a start may take until there is a process.
const START_MAX: Duration = Duration::from_secs(10);
/// The first wait before systemd is asked again after it did not answer; it doubles.
const RETRY_MIN: Duration = Duration::from_millis(50);
/// The longest such wait.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// A worker in the hands of systemd.
#[derive(Debug)]
pub struct SystemdDriver {
    config: WorkerConfig,
    /// The unit's name.
    unit: String,
    link: Option<Link>,
    /// Why there is no link, until it is told.
    lost: Option<String>,
    watch: Option<Watch>,
    /// The process whose end was told last.
    ended: Option<(u32, i64)>,
    /// An end was told after which somebody else starts it again.
    awaits: bool,
    /// The transient unit is this driver's own, so it is of this configuration.
    made_here: bool,
    /// The job asked for last, kept when the link is lost.
    own_job: u32,
    cgroup: String,
    invocation_id: String,
    restarts: i64,
    /// The wait before systemd is asked again.
    retry: Option<Duration>,
}

impl SystemdDriver {
    /// A driver of this worker; nothing is asked yet.
    #[must_use]
    pub fn new(config: WorkerConfig) -> Self {
        let transient = || format!("diarwatch-worker-{}.service", config.name);
        let unit = config.unit.clone().unwrap_or_else(transient);
        Self {
            config,
            unit,
            link: None,
            lost: None,
            watch: None,
            ended: None,
            awaits: false,
            made_here: false,
            own_job: 0,
            cgroup: String::new(),
            invocation_id: String::new(),
            restarts: 0,
            retry: None,
        }
    }

    /// The name of its unit.
    #[must_use]
    pub fn unit(&self) -> &str {
        &self.unit
    }

    /// The name of its last run in the journal (`_SYSTEMD_INVOCATION_ID`); empty while none is known.
    #[must_use]
    pub fn invocation_id(&self) -> &str {
        &self.invocation_id
    }
}

impl Driver for SystemdDriver {
    async fn look(&mut self) -> Result<Found, String> {
        if let Some(wait) = self.retry {
            tokio::time::sleep(wait).await;
        }
        let found = self.look_now().await;
        self.retry = match &found {
            Ok(_) => None,
            Err(_) => Some(self.retry.map_or(RETRY_MIN, |wait| (wait * 2).min(RETRY_MAX))),
        };
        found
    }

    async fn start(&mut self) -> Result<Process, StartError> {
        let what = self.unit.clone();
        let started = tokio::time::timeout(START_MAX, self.start_now()).await;
        let problem = match started {
            Ok(Ok(process)) => return Ok(process),
            Ok(Err(problem)) => problem,
            Err(_) => self.no_process_in_time(),
        };
        Err(StartError::Refused { what, problem })
    }

    async fn news(&mut self) -> News {
        loop {
            if let Some(news) = self.due() {
                return news;
            }
            let Some(link) = &mut self.link else { return std::future::pending().await };
            let watched = self.watch.as_ref();
            // An end that systemd told first, or one that only systemd can tell.
            if watched.is_some_and(|watch| link.unit.end_of(watch.main()).is_some()) {
                return self.end().await;
            }
            if self.awaits && link.unit.is_down() {
                // It passes through these states on its way to the next start: what holds is read.
                match link.read().await {
                    Ok(()) if link.unit.is_down() => return self.given_up(),
                    Ok(()) => {}
                    Err(trouble) => self.lose(&trouble),
                }
                continue;
            }
            tokio::select! {
                biased;
                () = ended(watched) => return self.end().await,
                heard = link.hear() => if let Err(trouble) = heard { self.lose(&trouble) },
            }
        }
    }

    async fn signal(&mut self, signal: Signal) -> Result<(), String> {
        let unit = self.unit.clone();
        let Some(link) = &mut self.link else { return Err(format!("signal to {unit}: {NO_BUS}")) };
        // Never StopUnit: its TimeoutStopSec= would cut the judge's grace short.
        let (whom, number) = match signal {
            Signal::Terminate => (Whom::Main, rustix::process::Signal::TERM.as_raw()),
            Signal::Traceback(number) => (Whom::Main, number),
            Signal::Kill => (Whom::All, rustix::process::Signal::KILL.as_raw()),
        };
        let sent = link.bus.kill(&unit, whom, number).await;
        sent.map_err(|trouble| format!("signal {number} to {unit}: {}", self.words(&trouble)))
    }

    fn pids(&self) -> BTreeSet<u32> {
        processes::of_cgroup(&self.cgroup)
    }

    /// A unit lives on by itself.
    async fn leave(&mut self, _grace: Duration) {
        self.link = None;
        self.watch = None;
    }

    fn outlives_the_agent(&self) -> bool {
        true
    }
}

const NO_BUS: &str = "systemd is not reached; `systemctl status dbus.service` says why";

impl SystemdDriver {
    async fn look_now(&mut self) -> Result<Found, String> {
        self.lost = None;
        let read = match &mut self.link {
            Some(link) => link.read().await,
            None => Link::to(&self.unit, self.own_job).await.map(|link| self.link = Some(link)),
        };
        if let Err(trouble) = read {
            self.link = None;
            return Err(format!("{}: systemd is not reached: {}", self.unit, self.words(&trouble)));
        }
        self.check_file()?;
        if let Some(process) = self.adopt() {
            return Ok(Found::Running(process));
        }
        self.watch = None;
        let exit = self.link.as_ref().and_then(|link| link.unit.last_end());
        Ok(Found::Stopped { exit })
    }

    fn check_file(&self) -> Result<(), String> {
        let (unit, load) = (&self.unit, self.link.as_ref().map_or("", |link| link.unit.load.as_str()));
        let mend = match load {
            "loaded" => return Ok(()),
            "not-found" if self.config.unit.is_none() => return Ok(()),
            "not-found" => {
                "there is no such unit; install it, or correct `unit` (`systemctl list-unit-files` lists them)"
            }
            "masked" => "it is masked, nobody may start it; `systemctl unmask` undoes that",
            _ => "its file is not in order; `systemctl status` says what is wrong",
        };
        Err(format!("{unit}: {mend}"))
    }

    /// Watches the main process that there is.
    fn adopt(&mut self) -> Option<Process> {
        let unit = &self.link.as_ref()?.unit;
        let (pid, started_us) = unit.main()?;
        self.cgroup.clone_from(&unit.control_group);
        self.invocation_id.clone_from(&unit.invocation_id);
        if unit.restarts > self.restarts {
            tracing::warn!(
                worker = %self.config.name, unit = %self.unit, restarts = unit.restarts,
                "systemd has restarted it by itself"
            );
        }
        self.restarts = unit.restarts;
        if self.watch.as_ref().is_none_or(|watch| watch.main() != (pid, started_us)) {
            self.watch = Some(Watch::over(pid, started_us, &self.cgroup));
        }
        self.awaits = false;
        Some(Process { pid, age: processes::age(pid).unwrap_or_default() })
    }

    /// What can be told without waiting.
    fn due(&mut self) -> Option<News> {
        if let Some(reason) = self.lost.take() {
            return Some(News::Lost { reason });
        }
        let unit = &self.link.as_ref()?.unit;
        let main = unit.main().filter(|main| Some(*main) != self.ended);
        match &self.watch {
            // Its own end is told first; one that lives has handed its place over (`MAINPID=`).
            Some(watch) => {
                let lives = processes::stat(watch.pid).is_some_and(|stat| stat.lives());
                main.filter(|main| *main != watch.main() && lives)?;
            }
            None => drop(main?),
        }
        self.adopt().map(News::Started)
    }

    /// Who was about to start it does so no more.
    fn given_up(&mut self) -> News {
        self.awaits = false;
        let unit = self.link.as_ref().map(|link| &link.unit);
        let by_hand = unit.is_some_and(|unit| unit.active == "inactive");
        let reason = if by_hand {
            String::from("its restart was called off")
        } else {
            format!("systemd has given up restarting it: {}", unit.map_or("", |unit| &unit.result))
        };
        let pid = self.ended.map_or(0, |(pid, _)| pid);
        News::Exited(Exit { pid, reason, by_hand, ..Exit::default() })
    }

    /// The end of the watched process, in systemd's words where it has any.
    async fn end(&mut self) -> News {
        let (Some(watch), Some(link)) = (&mut self.watch, &mut self.link) else {
            return std::future::pending().await;
        };
        let main @ (pid, _) = watch.main();
        let oom = watch.memory_ran_out(&self.cgroup);
        let told = match link.end_of(main).await {
            Ok(Some(mut told)) if told.exit.by_hand => {
                let comes_back = link.comes_back(told.job, pid).await;
                comes_back.map(|comes_back| {
                    told.exit.manager_restarts |= comes_back;
                    Some(told)
                })
            }
            told => told,
        };
        let mut exit = match told {
            Ok(Some(told)) => told.exit,
            Ok(None) => unknown_end(pid),
            Err(trouble) => {
                self.lose(&trouble);
                unknown_end(pid)
            }
        };
        // systemd says `signal` of it where the memory controller is of version 1.
        if oom && !exit.oom && exit.signal == Some(rustix::process::Signal::KILL.as_raw()) {
            exit.reason = format!("out of memory, {}", exit.reason);
            exit.oom = true;
        }
        self.watch = None;
        self.ended = Some(main);
        self.awaits = exit.manager_restarts;
        News::Exited(exit)
    }

    fn lose(&mut self, trouble: &Trouble) {
        self.own_job = self.link.take().map_or(self.own_job, |link| link.own_job());
        self.lost = Some(format!("{}: {trouble}", self.unit));
    }

    /// What systemd said, and how to mend it where that is known.
    fn words(&self, trouble: &Trouble) -> String {
        if !trouble.is_denied() {
            return trouble.to_string();
        }
        let unit = &self.unit;
        let mend = if self.config.unit.is_some() {
            format!("name {unit} in 50-diarwatch.rules of polkit (50-diarwatch.pkla before polkit 0.106)")
        } else {
            String::from(
                "only root may make units of a `command`; write a unit file and name it in `unit`, \
                 or run the agent as root",
            )
        };
        format!("the agent's user may not do that ({trouble}); {mend}")
    }
}

async fn ended(watch: Option<&Watch>) {
    match watch {
        Some(watch) => watch.ended().await,
        None => std::future::pending().await,
    }
}

fn unknown_end(pid: u32) -> Exit {
    Exit { pid, reason: String::from("it ended; systemd has not told how"), ..Exit::default() }
}
