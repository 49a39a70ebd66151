//! How a unit is started. Takes the unit as it is; gives its main process as soon as there is one. What
//! hinders a start is put aside first: what is left of the process before, systemd's own wait, starts
//! that it counted. The caller limits the time.

use std::time::Duration;

use super::SystemdDriver;
use super::bus::{Transient, Trouble, Whom};
use crate::restart::{Exit, Process};

/// systemd's own restart of a transient unit, the floor for when the agent is dead: late enough that the
/// agent is always first.
const FLOOR_WAIT: Duration = Duration::from_secs(60);
/// From one try to the next while an earlier unit of the same name is still being put away.
const PUT_AWAY_WAIT: Duration = Duration::from_millis(5);

impl SystemdDriver {
    pub(super) async fn start_now(&mut self) -> Result<Process, String> {
        let Some(link) = &mut self.link else { return Err(super::NO_BUS.into()) };
        let before = link.unit.last_end();
        if let Err(trouble) = link.read_state().await {
            return Err(self.gone(&trouble));
        }
        // Somebody else was faster.
        if let Some(process) = self.adopt() {
            return Ok(process);
        }
        let started = match self.ask().await {
            Ok(cuts_short) => self.until_there_is_one(cuts_short).await,
            Err(trouble) => Err(trouble),
        };
        match started {
            Ok(None) => {}
            Ok(Some(result)) => return Err(self.why_not(&result, before.as_ref())),
            Err(trouble) => return Err(self.gone(&trouble)),
        }
        let link = self.link.as_mut().ok_or_else(|| String::from(super::NO_BUS))?;
        // Once more, for its cgroup: no signal tells it. Whether it still lives its watch says.
        let (main, read) = (link.unit.main(), link.read().await);
        if let Err(trouble) = read {
            return Err(self.gone(&trouble));
        }
        let gone = || String::from("it ended at once");
        self.adopt().ok_or_else(|| match (main, self.link.as_ref().and_then(|link| link.unit.last_end())) {
            (Some((pid, _)), Some(exit)) if exit.pid == pid => format!("it ended at once: {}", exit.reason),
            _ => gone(),
        })
    }

    pub(super) fn no_process_in_time(&self) -> String {
        let unit = self.link.as_ref().map(|link| format!("{} ({})", link.unit.active, link.unit.sub));
        format!(
            "there is no process after {} s, it is {}; `systemctl status` and `systemctl list-jobs` say what it waits for",
            super::START_MAX.as_secs(),
            unit.unwrap_or_default()
        )
    }

    /// Asks for the start; whether that cuts systemd's own wait short.
    async fn ask(&mut self) -> Result<bool, Trouble> {
        let Some(link) = &mut self.link else { return Ok(false) };
        if link.unit.waits_for_leftovers() {
            link.bus.kill(&self.unit, Whom::All, rustix::process::Signal::KILL.as_raw()).await?;
        }
        let make = self.config.unit.is_none() && (link.unit.load == "not-found" || link.unit.transient);
        if make && !(self.made_here && link.unit.auto_restarts()) {
            return self.make().await.map(|()| false);
        }
        if link.unit.start_limit {
            link.bus.reset_failed(&self.unit).await?;
        }
        // A unit that waits for systemd's own restart is started only by a restart.
        let cuts_short = link.unit.auto_restarts();
        let verb = if cuts_short { "RestartUnit" } else { "StartUnit" };
        let job = link.bus.job(verb, &self.unit).await?;
        link.asked(job);
        Ok(cuts_short)
    }

    /// Makes the transient unit anew, of this configuration.
    async fn make(&mut self) -> Result<(), Trouble> {
        let Some(link) = &mut self.link else { return Ok(()) };
        if link.unit.load != "not-found" {
            // It waits for systemd's own restart, or it failed: away with it.
            link.bus.job("StopUnit", &self.unit).await?;
            link.bus.reset_failed(&self.unit).await?;
        }
        let config = &self.config;
        let service = Transient {
            description: format!("{}, a worker of diarwatch", config.service()),
            command: &config.command,
            user: config.user.as_deref(),
            environment: config.environment.0.iter().map(|(name, value)| format!("{name}={value}")).collect(),
            directory: config.working_directory.as_ref().map(|path| path.display().to_string()),
            identifier: config.name.as_str(),
            restart_wait: FLOOR_WAIT,
        };
        let job = loop {
            match link.bus.start_transient(&self.unit, &service).await {
                Err(trouble) if trouble.is_there_already() => tokio::time::sleep(PUT_AWAY_WAIT).await,
                job => break job?,
            }
        };
        link.asked(job);
        self.made_here = true;
        Ok(())
    }

    /// Waits for the process; gives the result of a job that ended without one.
    async fn until_there_is_one(&mut self, mut cut_short: bool) -> Result<Option<String>, Trouble> {
        let Some(link) = &mut self.link else { return Ok(None) };
        while link.unit.main().is_none() {
            if let Some(result) = link.own_result() {
                return Ok(Some(result.to_owned()));
            }
            // A start that is asked for while the process before is put away would wait for systemd's own.
            if link.unit.auto_restarts() && !cut_short && link.unit.job == link.own_job() {
                let job = link.bus.job("RestartUnit", &self.unit).await?;
                link.asked(job);
                cut_short = true;
            }
            link.hear().await?;
        }
        Ok(None)
    }

    fn why_not(&self, result: &str, before: Option<&Exit>) -> String {
        let unit = self.link.as_ref().map(|link| &link.unit);
        let end = unit.and_then(super::unit::Unit::last_end).filter(|end| Some(end) != before);
        match (result, end) {
            ("done" | "failed", Some(end)) => format!("it ended at once: {}", end.reason),
            ("done", None) => {
                "its job is done and it has no main process; is it a service that stays?".into()
            }
            ("failed", None) => {
                let why = unit.map_or("", |unit| unit.result.as_str());
                format!("systemd says `{why}`; `systemctl status {}` says more", self.unit)
            }
            ("canceled", _) => {
                "another job of the unit came between; `systemctl list-jobs` lists them".into()
            }
            ("dependency", _) => {
                format!("a unit that it needs failed; `systemctl list-dependencies {}` lists them", self.unit)
            }
            ("skipped", _) => {
                "a condition of the unit does not hold (ConditionPathExists= and the like)".into()
            }
            (other, _) => format!("its job ended as `{other}`; `systemctl status {}` says more", self.unit),
        }
    }

    /// Words for what went wrong; a link that is lost is told as well.
    fn gone(&mut self, trouble: &Trouble) -> String {
        if matches!(trouble, Trouble::Lost(_)) {
            self.lose(trouble);
        }
        self.words(trouble)
    }
}
