//! The driver `docker`: not built yet.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Driver, Found, News, Process, Signal, StartError};
use crate::config::worker::WorkerConfig;

/// A worker in the hands of Docker.
#[derive(Debug)]
pub struct DockerDriver {
    config: WorkerConfig,
}

impl DockerDriver {
    /// A driver of this worker; nothing is asked yet.
    #[must_use]
    pub fn new(config: WorkerConfig) -> Self {
        Self { config }
    }
}

impl Driver for DockerDriver {
    async fn look(&mut self) -> Result<Found, String> {
        Err(format!("the driver docker of {} is not built yet", self.config.name))
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
