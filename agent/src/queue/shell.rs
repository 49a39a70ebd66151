//! The shell of the queue stage: one task a queue, which looks, accounts and tells.
//!
//! Takes the configuration; gives a tick and a status an `interval`, also while the source fails: then
//! without numbers, with the problem. A look that takes longer than its time-out is dropped; one that
//! failed is repeated after a growing wait. Said in the log once when it begins and once when it ends.

use std::time::Duration;

use diarwatch_shared::backoff::{self, Backoff};
use diarwatch_shared::clock;
use diarwatch_shared::reading::Missing;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use super::account::{Account, Facts};
use super::kind::Kind;
use super::series::QueueSeries;
use super::{Look, Source};
use crate::board::Board;
use crate::config::queue::QueueConfig;
use crate::probe::for_people;
use crate::sample::Sink;

/// The longest wait before a source that fails is asked again.
pub const RETRY_MAX: Duration = Duration::from_secs(15);

/// Watches all queues; ends only when one of its tasks does, which is a fault of the agent's own.
pub async fn run(configs: Vec<QueueConfig>, sink: Sink, board: Board) -> String {
    let mut tasks = JoinSet::new();
    for config in configs {
        let Some(source) = Kind::of(&config) else { continue };
        let watch = Watch::new(config, &source, sink.clone(), board.clone());
        // In the order of the configuration, before any source has answered.
        watch.tell_board();
        tasks.spawn(watch.run(source));
    }
    match tasks.join_next().await {
        Some(end) => format!("{end:?}"),
        None => std::future::pending().await,
    }
}

struct Watch {
    config: QueueConfig,
    account: Account,
    series: QueueSeries,
    retry: Retry,
    sink: Sink,
    board: Board,
}

impl Watch {
    fn new(config: QueueConfig, source: &Kind, sink: Sink, board: Board) -> Self {
        let facts = Facts {
            queue: config.name.to_string(),
            service: config.service().to_owned(),
            source: source.name(),
            estimated: source.estimated(),
        };
        let series = QueueSeries::new(&facts);
        let retry = Retry::new(config.interval.0);
        Self { config, account: Account::new(facts, clock::now()), series, retry, sink, board }
    }

    async fn run(mut self, mut source: impl Source) {
        let mut beat = interval(self.config.interval.0);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            if self.retry.due(clock::uptime()) {
                let look = timeout(self.config.timeout.0, source.look(clock::now())).await;
                match look {
                    Ok(Ok(look)) => self.looked(look),
                    Ok(Err(problem)) => self.failed(Missing::Failed, &problem),
                    Err(_) => {
                        let problem = format!("no whole answer within {}", self.config.timeout);
                        self.failed(Missing::Timeout, &problem);
                    }
                }
            }
            self.tell();
        }
    }

    fn looked(&mut self, look: Look) {
        match look.checked() {
            Ok(look) => {
                if self.retry.failures > 0 {
                    info!(queue = %self.config.name, "the queue's source answers again");
                }
                self.retry.answered();
                self.account.looked(&look, clock::now());
            }
            Err(problem) => self.failed(Missing::Failed, &problem),
        }
    }

    fn failed(&mut self, why: Missing, problem: &str) {
        let problem = for_people(problem);
        if self.retry.failures == 0 {
            warn!(queue = %self.config.name, problem, "the queue's source gives nothing; it is asked again and again");
        }
        self.retry.failed(clock::uptime(), backoff::unit(clock::now().0));
        self.account.failed(why, problem);
    }

    fn tell(&self) {
        let now = clock::now();
        self.sink.tick(self.series.tick(&self.account.told(now), now));
        self.tell_board();
    }

    fn tell_board(&self) {
        let status = self.account.status(clock::now());
        self.board.update(|board| board.queue_told(status));
    }
}

/// When a source that failed is asked again.
struct Retry {
    backoff: Backoff,
    failures: u32,
    at: Duration,
}

impl Retry {
    fn new(interval: Duration) -> Self {
        Self { backoff: Backoff::new(interval.min(RETRY_MAX), RETRY_MAX), failures: 0, at: Duration::ZERO }
    }

    fn due(&self, uptime: Duration) -> bool {
        uptime >= self.at
    }

    fn failed(&mut self, uptime: Duration, unit: f64) {
        self.at = uptime + self.backoff.wait(self.failures, unit);
        self.failures = self.failures.saturating_add(1);
    }

    fn answered(&mut self) {
        (self.failures, self.at) = (0, Duration::ZERO);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_fails_is_asked_less_and_less_often_and_never_less_than_every_fifteen_seconds() {
        let mut retry = Retry::new(Duration::from_secs(1));
        let mut now = Duration::ZERO;
        let mut waits = Vec::new();
        for _ in 0..8 {
            assert!(retry.due(now));
            retry.failed(now, 1.0);
            assert!(!retry.due(now));
            waits.push((retry.at - now).as_secs());
            now = retry.at;
        }
        assert_eq!(waits, [1, 2, 4, 8, 15, 15, 15, 15]);
        retry.answered();
        retry.failed(now, 1.0);
        assert_eq!((retry.at - now).as_secs(), 1);
    }
}
