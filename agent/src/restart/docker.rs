//! The driver `docker`: the worker is a container, found by its name each time, so that one that a deploy
//! made anew under that name is the worker from then on. Takes the Docker Engine's events and answers, and
//! the kernel's word on the end of a container's first process; gives them to `book.rs`, which knows what
//! of it is news. The worker outlives the agent, and nothing here touches one that runs.
//!
//! What was found out from the engine (20.10) and is relied on:
//! - `POST /start` of a container that waits for its restart policy does nothing (304): the engine counts
//!   it as running. `POST /restart?t=0` starts it at once, so that is sent.
//! - After any `POST /kill`, of whatever signal, the restart policy is off until the next start: what the
//!   judge ends, the judge starts. A request for a traceback switches it off as well.
//! - An engine that is told to stop stops its containers as `docker stop` does, with the same events, but
//!   takes no new connection any more. So a stop counts as a person's only when the engine answers
//!   afterwards; otherwise the worker is lost, and started again when the engine is back.
//! - `POST /stop` is never sent: its time-out would cut the judge's grace, and a `stop` event is always
//!   another's doing.
//!
//! A container that was paused is told as stopped by hand, and as started when it goes on.

mod book;
mod end;

use std::collections::BTreeSet;
use std::time::Duration;

use diarwatch_shared::clock::{self, UnixMicros};
use tokio::time::timeout;

use self::book::{Book, Step, stale};
use self::end::Past;
use super::life::Life;
use super::{Driver, Exit, Found, News, Process, Signal, StartError, processes};
use crate::config::worker::WorkerConfig;
use crate::engine::{Container, Engine, Events, Trouble};

/// How long a start may take: the engine answers when the process runs, after the hooks for its GPU.
pub const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the news of a stop may be on its way when a container ended just before it was looked at.
const STOP_WAIT: Duration = Duration::from_secs(2);
/// Events that wait already and are taken together with an answer.
const EVENTS_AT_ONCE: usize = 1_024;
/// Questions of one start.
const START_STEPS_MAX: usize = 4;
const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// A worker in the hands of Docker.
#[derive(Debug)]
pub struct DockerDriver {
    /// The container.
    name: String,
    /// None when no client could be made, with the reason.
    engine: Result<Engine, String>,
    book: Book,
    events: Option<Events>,
    life: Option<Life>,
    /// The cgroup of the run, where it can be read.
    cgroup: Option<String>,
}

impl DockerDriver {
    /// A driver of this worker; nothing is asked yet.
    #[must_use]
    pub fn new(config: WorkerConfig) -> Self {
        let name = config.container.unwrap_or_else(|| config.name.to_string());
        let engine = Engine::new(&config.docker_socket, &name);
        let engine = engine.map_err(|error| format!("prepare the client of the Docker Engine: {error}"));
        Self { book: Book::new(&name), name, engine, events: None, life: None, cgroup: None }
    }
}

impl Driver for DockerDriver {
    async fn look(&mut self) -> Result<Found, String> {
        (self.events, self.life) = (None, None);
        // First the events: what happens behind the answer is not missed.
        let events = self.engine()?.events().await?;
        let container = self.engine()?.inspect().await?;
        let found = match container.process() {
            Some(pid) => {
                self.book.runs(&container, pid);
                if !self.watch(&container) {
                    return Err(stale(&self.name, pid));
                }
                Found::Running(process(pid, &container))
            }
            None => {
                let exit = self.exit_of(&container).await?;
                self.book.stopped(Some(&container), exit.clone());
                Found::Stopped { exit }
            }
        };
        self.events = Some(events);
        Ok(found)
    }

    async fn start(&mut self) -> Result<Process, StartError> {
        for _ in 0..START_STEPS_MAX {
            self.post_start("start").await?;
            let container = self.engine_to_start()?.inspect().await.map_err(|error| self.refused(error))?;
            if let Some(pid) = container.process() {
                self.book.runs(&container, pid);
                if !self.watch(&container) {
                    return Err(self.refused(stale(&self.name, pid)));
                }
                return Ok(process(pid, &container));
            }
            if container.state.paused {
                self.post_start("unpause").await?;
            } else if container.state.restarting {
                self.post_start("restart?t=0").await?;
            } else {
                let exit = end::exit(self.book.known(&container, false), Some(&container));
                let problem =
                    format!("it ended at once: {}; `docker logs {}` says why", exit.reason, self.name);
                self.book.stopped(Some(&container), Some(exit));
                return Err(self.refused(problem));
            }
        }
        Err(self.refused(String::from("it is started and ends, again and again")))
    }

    async fn news(&mut self) -> News {
        loop {
            let now = clock::uptime();
            match self.book.step(now) {
                Step::Tell => {
                    if let Some(news) = self.book.tell() {
                        return news;
                    }
                }
                Step::Ask => {
                    if let Err(reason) = self.ask().await {
                        return self.lost(reason);
                    }
                }
                Step::Wait(due) => {
                    let left = due.map(|due| due.saturating_sub(now));
                    if let Err(reason) = self.wait(left).await {
                        return self.lost(reason);
                    }
                }
            }
        }
    }

    async fn signal(&mut self, signal: Signal) -> Result<(), String> {
        // By its id: another container may have the name by now.
        let Some((_, id)) = self.book.run() else { return Ok(()) };
        let id = id.to_owned();
        let number = match signal {
            Signal::Terminate => SIGTERM,
            Signal::Traceback(number) => number,
            Signal::Kill => SIGKILL,
        };
        self.book.sends(number, clock::uptime());
        let what = format!("kill?signal={number}");
        let sent = self.engine()?.post(&id, &what, crate::engine::ANSWER_TIMEOUT).await;
        match sent {
            Ok(_) => Ok(()),
            // It ended, or is gone.
            Err(Trouble::Absent { .. } | Trouble::Refused { status: 409, .. }) => {
                self.book.not_sent(number);
                Ok(())
            }
            Err(error) => Err(format!("send signal {number} to the worker: {error}")),
        }
    }

    fn pids(&self) -> BTreeSet<u32> {
        let Some((pid, id)) = self.book.run() else { return BTreeSet::new() };
        let found = self.cgroup.as_deref().map(processes::of_cgroup).unwrap_or_default();
        if found.is_empty() && processes::stat(pid).is_some() {
            processes::of_cgroups_named(id)
        } else {
            found
        }
    }

    async fn leave(&mut self, _grace: Duration) {}

    fn outlives_the_agent(&self) -> bool {
        true
    }
}

impl DockerDriver {
    fn engine(&self) -> Result<&Engine, String> {
        self.engine.as_ref().map_err(Clone::clone)
    }

    fn engine_to_start(&self) -> Result<&Engine, StartError> {
        self.engine().map_err(|error| self.refused(error))
    }

    /// How the last run of a container ended that does not run.
    async fn exit_of(&self, container: &Container) -> Result<Option<Exit>, String> {
        let state = &container.state;
        if state.paused {
            return Ok(Some(end::set_aside(0, String::from("paused by hand"))));
        }
        let Some(began) = container.started() else {
            // It was made and never started, or could not be.
            let failed = !state.error.is_empty();
            return Ok(failed.then(|| end::exit(self.book.known(container, false), Some(container))));
        };
        if let Some(told) = self.book.told(container) {
            return Ok(Some(told.clone()));
        }
        if state.restarting {
            return Ok(Some(end::exit(self.book.known(container, false), Some(container))));
        }
        let past = self.past(container, began).await?;
        let by_hand = match past {
            Past::Stopped => true,
            Past::Died(_) => false,
            // It ran when the engine was lost, and ended with the engine.
            Past::Forgotten if self.book.knows(container) => false,
            Past::Forgotten => end::looks_stopped(container, host_started()),
        };
        Ok(Some(end::exit(self.book.known(container, by_hand), Some(container))))
    }

    /// Whose doing the end was. One that is so fresh that its `stop` event may be on its way is asked for
    /// twice.
    async fn past(&self, container: &Container, began: UnixMicros) -> Result<Past, String> {
        let mut past = Past::Forgotten;
        for _ in 0..2 {
            let events = self.engine()?.past(began, clock::now()).await?;
            past = end::past(&events, container);
            let fresh = clock::now().since(container.finished().unwrap_or_default()) < STOP_WAIT;
            if !(past == Past::Died(true) && fresh) {
                break;
            }
            tokio::time::sleep(STOP_WAIT).await;
        }
        Ok(past)
    }

    async fn post_start(&self, what: &str) -> Result<(), StartError> {
        match self.engine_to_start()?.post(&self.name, what, START_TIMEOUT).await {
            // A paused one, or one that another just started: the next look says.
            Ok(_) | Err(Trouble::Refused { status: 409, .. }) => Ok(()),
            Err(Trouble::Absent { .. }) => Err(self.refused(format!(
                "there is no such container; make it again, as by `docker compose up --detach`, or correct \
                 `container` ({})",
                self.name
            ))),
            Err(error) => Err(self.refused(error)),
        }
    }

    fn refused(&self, problem: impl Into<String>) -> StartError {
        StartError::Refused { what: format!("container {}", self.name), problem: problem.into() }
    }

    /// Waits for an event or an end.
    async fn wait(&mut self, left: Option<Duration>) -> Result<(), String> {
        let Some(events) = &mut self.events else {
            // Nothing is known until the next look.
            return std::future::pending().await;
        };
        let due = async {
            match left {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        };
        let ended = async {
            match &self.life {
                Some(life) => life.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = events.next() => self.take(event)?,
            () = ended => {
                self.life = None;
                self.book.gone(clock::uptime());
            }
            () = due => {}
        }
        Ok(())
    }

    /// Asks the engine for what an event did not say.
    async fn ask(&mut self) -> Result<(), String> {
        let container = match self.engine()?.inspect().await {
            Ok(container) => Some(container),
            Err(Trouble::Absent { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        // What came meanwhile may change what the answer means; a stream that ended says that this engine
        // is not the one that ran the worker.
        for _ in 0..EVENTS_AT_ONCE {
            let Some(events) = &mut self.events else { break };
            let Ok(event) = timeout(Duration::ZERO, events.next()).await else { break };
            self.take(event)?;
        }
        let now = clock::uptime();
        if self.book.step(now) != Step::Ask {
            return Ok(());
        }
        let said = container.as_ref().map(|container| {
            (container, container.process().map(|pid| process(pid, container).age).unwrap_or_default())
        });
        self.book.said(said, now)?;
        if let Some(container) = container
            && self.life.is_none()
            && !self.watch(&container)
        {
            self.book.gone(now);
        }
        Ok(())
    }

    fn take(&mut self, event: Result<Option<crate::engine::Event>, String>) -> Result<(), String> {
        let event =
            event.map_err(|why| format!("the Docker Engine is gone: {why}; is it being restarted?"))?;
        match event {
            Some(event) => self.book.event(&event, clock::uptime()),
            None => self.book.missed(),
        }
        Ok(())
    }

    /// Watches the process of the run; false when it is gone already.
    fn watch(&mut self, container: &Container) -> bool {
        (self.life, self.cgroup) = (None, None);
        let Some((pid, id)) = self.book.run().filter(|_| self.book.knows(container)) else { return true };
        let life = match Life::of(pid) {
            Ok(None) => return false,
            Ok(life) => life,
            Err(error) => {
                tracing::warn!(container = %self.name, pid, "its end is told by Docker alone: {error}");
                None
            }
        };
        // The number may be another process's since the engine said it; then its end is none of ours.
        let cgroup = processes::cgroup_of(pid);
        if cgroup.as_ref().is_none_or(|cgroup| cgroup.contains(id)) {
            (self.life, self.cgroup) = (life, cgroup);
        }
        true
    }

    fn lost(&mut self, reason: String) -> News {
        (self.events, self.life) = (None, None);
        self.book.lost();
        News::Lost { reason }
    }
}

fn process(pid: u32, container: &Container) -> Process {
    let said = || clock::now().since(container.started().unwrap_or_else(clock::now));
    Process { pid, age: processes::age(pid).unwrap_or_else(said) }
}

/// When this host was started.
fn host_started() -> Option<UnixMicros> {
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    Some(clock::now().minus(Duration::try_from_secs_f64(uptime).ok()?))
}
