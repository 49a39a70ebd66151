//! What is known of a unit while its connection lives. Takes what systemd answers and tells; gives the
//! unit as it is now, and how a process of it ended. Waits only as long as the caller's limit.

use std::time::Duration;

use super::bus::{Bus, Heard, Trouble};
use super::unit::{Side, Told, Unit};

/// How long the signal that tells of an end is waited for before it is asked for. It comes within a
/// millisecond or two of the end.
const SIGNAL_WAIT: Duration = Duration::from_millis(50);
/// How long systemd has to tell how a process ended. When it takes this long it answers nothing at all,
/// and nothing could be started either; to guess would be to restart what a person stopped.
const TOLD_WAIT: Duration = Duration::from_secs(2);

/// A connection and the unit it follows.
#[derive(Debug)]
pub(super) struct Link {
    pub bus: Bus,
    pub unit: Unit,
    /// The job that the agent asked for last, and its result once it is over.
    own_job: u32,
    own_result: Option<String>,
    /// Something was not heard: what is known may be old.
    stale: bool,
}

impl Link {
    /// Reaches systemd and reads the unit.
    pub(super) async fn to(name: &str, own_job: u32) -> Result<Self, Trouble> {
        let bus = Bus::follow(name).await?;
        let mut link = Self { bus, unit: Unit::default(), own_job, own_result: None, stale: false };
        link.read().await?;
        Ok(link)
    }

    /// Reads the unit anew.
    pub(super) async fn read(&mut self) -> Result<(), Trouble> {
        self.stale = true;
        for side in [Side::Service, Side::Unit] {
            self.read_side(side).await?;
        }
        self.stale = false;
        Ok(())
    }

    /// Reads where the unit stands, which passes through states on its way; its processes are told by
    /// signals. The lesser half of `read`, for a start that must not wait.
    pub(super) async fn read_state(&mut self) -> Result<(), Trouble> {
        if self.stale { self.read().await } else { self.read_side(Side::Unit).await }
    }

    async fn read_side(&mut self, side: Side) -> Result<(), Trouble> {
        let properties = self.bus.read(side).await?;
        while let Some(heard) = self.bus.heard_before() {
            self.take(heard);
        }
        self.unit.apply(side, properties, self.own_job);
        Ok(())
    }

    /// Waits for the next thing that systemd tells, and takes it. Dropping the future loses nothing.
    pub(super) async fn hear(&mut self) -> Result<(), Trouble> {
        if self.stale {
            return self.read().await;
        }
        let heard = self.bus.heard().await?;
        self.take(heard);
        Ok(())
    }

    /// How this process ended; none when systemd does not tell it in time. Dropping the future loses
    /// nothing: it can be asked again.
    pub(super) async fn end_of(&mut self, main: (u32, i64)) -> Result<Option<Told>, Trouble> {
        let told = tokio::time::timeout(TOLD_WAIT, async {
            loop {
                if let Some(told) = self.unit.end_of(main) {
                    return Ok(told);
                }
                match tokio::time::timeout(SIGNAL_WAIT, self.hear()).await {
                    Ok(heard) => heard?,
                    Err(_) => self.read().await?,
                }
            }
        });
        told.await.map_or(Ok(None), |told| told.map(Some))
    }

    /// Whether this job, which ended this process, starts the next one: a restart, not a stop.
    pub(super) async fn comes_back(&mut self, job: u32, pid: u32) -> Result<bool, Trouble> {
        let kind = if job == 0 { None } else { self.bus.job_kind(job).await? };
        match kind {
            Some(kind) => Ok(kind != "stop"),
            // It is over already: then what came of it says what it was.
            None => {
                self.read().await?;
                Ok(!self.unit.is_down() || self.unit.failed_after(pid))
            }
        }
    }

    /// Remembers the job that the agent asked for.
    pub(super) fn asked(&mut self, job: u32) {
        self.own_job = job;
        self.own_result = None;
    }

    /// What became of the job that the agent asked for; none while it is under way.
    pub(super) fn own_result(&self) -> Option<&str> {
        self.own_result.as_deref()
    }

    pub(super) fn own_job(&self) -> u32 {
        self.own_job
    }

    fn take(&mut self, heard: Heard) {
        match heard {
            Heard::Changed(side, properties) => self.unit.apply(side, properties, self.own_job),
            Heard::JobDone { job, result } if job == self.own_job => self.own_result = Some(result),
            Heard::JobDone { .. } => {}
            Heard::ReadAnew => self.stale = true,
        }
    }
}
