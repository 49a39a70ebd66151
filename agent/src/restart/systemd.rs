//! The driver `systemd`: not built yet.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Driver, Found, News, Process, Signal, StartError};
use crate::config::worker::WorkerConfig;

/// A worker in the hands of systemd.
#[derive(Debug)]
pub struct SystemdDriver {
    config: WorkerConfig,
}

impl SystemdDriver {
    /// A driver of this worker; nothing is asked yet.
    #[must_use]
    pub fn new(config: WorkerConfig) -> Self {
        Self { config }
    }
}

impl Driver for SystemdDriver {
    async fn look(&mut self) -> Result<Found, String> {
        Err(format!("the driver systemd of {} is not built yet", self.config.name))
    }

    async fn start(&mut self) -> Result<Process, StartError> {
        Err(StartError::NoCommand)
    }

    async fn news(&mut self) -> News {
        std::future::pending().await
    }

    async fn signal(&mut self, _signal: Signal) -> Result<(), String> {
        Ok(())
    }

    fn pids(&self) -> BTreeSet<u32> {
        BTreeSet::new()
    }

    async fn leave(&mut self, _grace: Duration) {}

    fn outlives_the_agent(&self) -> bool {
        true
    }
}
