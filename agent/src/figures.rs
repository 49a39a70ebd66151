//! Figures of the application: the API's P95, error rate, sessions, connections of the database.
//!
//! Takes `[[figure]]`; gives a tick per look and a state for people. The sources are the queue stage's,
//! asked for one number. One task a figure, cut off at its own time-out. When a source fails its series
//! says why there is no value; the old one is never sent again.

use std::sync::Arc;

use diarwatch_shared::clock::{self, UnixMicros};
use diarwatch_shared::reading::{Missing, Reading};
use diarwatch_shared::schema::SeriesKey;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use crate::board::Board;
use crate::config::figure::FigureConfig;
use crate::probe::for_people;
use crate::queue::Source;
use crate::queue::http::Http;
use crate::queue::postgres::Postgres;
use crate::sample::{Sink, Tick};
use crate::status::Number;

/// Where a figure is, for people.
#[derive(Clone, Debug, Serialize)]
pub struct FigureStatus {
    /// Its metric.
    pub metric: String,
    /// Whose it is, where that is configured.
    pub service: Option<String>,
    /// Its newest value.
    pub value: Number,
    /// Why the newest look gave nothing, for a person.
    pub problem: Option<String>,
    /// When it was last looked at with success.
    pub seen_us: Option<UnixMicros>,
}

/// Reads until the set is dropped.
#[must_use]
pub fn start(configs: Vec<FigureConfig>, sink: &Sink, board: &Board) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    board.update(|board| board.figures = configs.iter().map(FigureStatus::new).collect());
    for (at, config) in configs.into_iter().enumerate() {
        let figure = Figure::new(at, config, sink.clone(), board.clone());
        if let Some(postgres) = figure.config.postgres() {
            let source = Postgres::new(postgres, figure.config.timeout.0);
            tasks.spawn(figure.run(source));
        } else if let Some(http) = figure.config.http() {
            tasks.spawn(figure.run(Http::new(http)));
        } else {
            tasks.spawn(figure.constant());
        }
    }
    tasks
}

struct Figure {
    at: usize,
    config: FigureConfig,
    group: Arc<str>,
    keys: Arc<[SeriesKey]>,
    status: FigureStatus,
    sink: Sink,
    board: Board,
}

impl Figure {
    fn new(at: usize, config: FigureConfig, sink: Sink, board: Board) -> Self {
        let labels: Vec<(&str, &str)> =
            config.service.iter().map(|service| ("service", service.as_str())).collect();
        let key = SeriesKey::new(&config.metric, &labels);
        let group = config.group().into();
        let status = FigureStatus::new(&config);
        Self { at, config, group, keys: [key].into(), status, sink, board }
    }

    async fn run(mut self, mut source: impl Source) {
        let mut beat = interval(self.config.interval.0);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            match timeout(self.config.timeout.0, source.look(clock::now())).await {
                Ok(Ok(look)) => self.tell(look.waiting.map(|value| value * self.config.scale), None),
                Ok(Err(problem)) => self.tell(Err(Missing::Failed), Some(problem)),
                Err(_) => {
                    let problem = format!("no whole answer within {}", self.config.timeout);
                    self.tell(Err(Missing::Timeout), Some(problem));
                }
            }
        }
    }

    async fn constant(mut self) {
        let mut beat = interval(self.config.interval.0);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            let value = self.config.fixed.ok_or(Missing::NotSupported);
            self.tell(value.map(|value| value * self.config.scale), None);
        }
    }

    fn tell(&mut self, reading: Reading, problem: Option<String>) {
        let now = clock::now();
        let reading =
            reading.and_then(|value| if value.is_finite() { Ok(value) } else { Err(Missing::Failed) });
        let problem = problem.map(|problem| for_people(&problem));
        let metric = &self.config.metric;
        match (&self.status.problem, &problem) {
            (None, Some(problem)) => warn!(metric, problem, "figure cannot be read"),
            (Some(_), None) => info!(metric, "figure can be read again"),
            _ => {}
        }
        self.status.value = reading.into();
        self.status.problem = problem;
        if reading.is_ok() {
            self.status.seen_us = Some(now);
        }
        let (group, keys) = (Arc::clone(&self.group), Arc::clone(&self.keys));
        self.sink.tick(Tick { group, at: now, keys, readings: vec![reading] });
        let (at, status) = (self.at, self.status.clone());
        self.board.update(|board| board.figures.get_mut(at).map(|known| *known = status));
    }
}

impl FigureStatus {
    fn new(config: &FigureConfig) -> Self {
        let (metric, service) = (config.metric.clone(), config.service.clone());
        Self { metric, service, value: Err(Missing::NotYet).into(), problem: None, seen_us: None }
    }
}
