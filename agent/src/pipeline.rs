//! The loop between the sources and the spool: numbers, seals and appends frames.
//!
//! Takes [`Input`]s; gives sealed frames to the spool and tells the uplink of each. An event is a
//! frame of its own, appended at once, behind the values that led to it. When the disk is slow the
//! loop waits and the ticks' queue drops; when the disk refuses, a frame of values is lost, counted
//! and said, and events wait until it takes them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use diarwatch_shared::clock;
use diarwatch_shared::event::{Event, What};
use diarwatch_shared::frame::FrameError;
use diarwatch_shared::node::{Epoch, Seq};
use diarwatch_shared::schema::SchemaId;
use diarwatch_shared::wire::Codec;
use diarwatch_shared::wire::v1::{self, FLAG_KEYFRAME, Header};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{debug, error};

use crate::board::Board;
use crate::frame::{Cut, Due, Framer};
use crate::history::History;
use crate::sample::Input;
use crate::spool::{Handle, Spool, SpoolError};
use crate::worker_series::WorkerSeries;
use crate::workers::WorkerOutput;

/// How often the spool's size is looked at.
const STATS_INTERVAL: Duration = Duration::from_secs(2);
/// Events that wait for a disk that refuses; the oldest is lost and counted when there are more.
pub const EVENTS_WAITING_MAX: usize = 1_024;

/// The loop and what it owns.
pub struct Pipeline {
    spool: Handle,
    epoch: Epoch,
    next: watch::Sender<Seq>,
    board: Board,
    framer: Framer,
    due: Due,
    workers: WorkerSeries,
    history: History,
    waiting: VecDeque<Event>,
    /// Frames and events that the disk refused.
    refused: u64,
    /// Frames that the spool gave up.
    given_up: u64,
}

impl Pipeline {
    /// A pipeline of a new run; `next` tells the uplink how far it got.
    #[must_use]
    pub fn new(
        spool: Handle,
        epoch: Epoch,
        next: watch::Sender<Seq>,
        board: Board,
        history: History,
    ) -> Self {
        let (framer, workers) = (Framer::default(), WorkerSeries::default());
        let (due, waiting) = (Due::default(), VecDeque::new());
        Self { spool, epoch, next, board, framer, due, workers, history, waiting, refused: 0, given_up: 0 }
    }

    /// Runs until it is told to stop; appends what is left.
    pub async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        let what =
            What::AgentStarted { agent_version: env!("CARGO_PKG_VERSION").to_owned(), epoch: self.epoch };
        self.event(Event::new(clock::now(), what)).await;
        let mut stats = interval(STATS_INTERVAL);
        stats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let wait = self.due.at().saturating_sub(clock::uptime());
            tokio::select! {
                input = inputs.recv() => match input {
                    Some(Input::Stop) | None => break,
                    Some(input) => self.take(input).await,
                },
                () = sleep(wait) => self.cut().await,
                _ = stats.tick() => self.stats().await,
            }
        }
        self.cut().await;
        if !self.waiting.is_empty() {
            error!(events_lost = self.waiting.len(), "the agent stops while the spool takes no events");
        }
        self.stats().await;
    }

    async fn take(&mut self, input: Input) {
        match input {
            Input::Tick(tick) => {
                self.board.update(|board| board.recent.tick(&tick));
                let cut = self.framer.push(tick);
                self.append(cut).await;
            }
            Input::Event(event) => self.event(event).await,
            Input::Stop => {}
            Input::Gone(group) => self.end(&group).await,
            Input::Worker(WorkerOutput::Gone(worker)) => {
                self.workers.forget(&worker);
                self.board.update(|board| board.workers.retain(|known| known.worker != worker));
                self.end(&format!("worker/{worker}")).await;
            }
            Input::Worker(WorkerOutput::Event(event)) => self.event(event).await,
            Input::Worker(WorkerOutput::Status(status)) => {
                let (tick, changed) = self.workers.tick(&status, clock::now());
                self.board.update(|board| {
                    board.recent.tick(&tick);
                    board.worker_told(*status);
                });
                let cut = self.framer.push(tick);
                self.append(cut).await;
                if changed {
                    self.due.hurry();
                }
            }
        }
        if self.due.at() <= clock::uptime() {
            self.cut().await;
        }
    }

    async fn end(&mut self, group: &str) {
        if let Some(tick) = self.framer.last_tick(group, clock::now()) {
            self.board.update(|board| board.recent.forget(group));
            let cut = self.framer.push(tick);
            self.append(cut).await;
            self.due.hurry();
        }
    }

    /// Behind the values that led to it, and behind the events before it.
    async fn event(&mut self, event: Event) {
        debug!(event = ?event.what, "event");
        self.board.update(|board| board.recent.event(&event));
        self.history.put(&event);
        self.cut().await;
        if self.waiting.len() >= EVENTS_WAITING_MAX {
            self.waiting.pop_front();
            self.lost("more events wait for the disk than may");
        }
        self.waiting.push_back(event);
        self.send_waiting().await;
    }

    /// Appends the events that wait, oldest first, until the disk refuses one.
    async fn send_waiting(&mut self) {
        while let Some(event) = self.waiting.front() {
            let header = self.header(event.at, SchemaId(0), Codec::Event);
            match v1::seal(&header, event.to_bytes()) {
                Ok(frame) => {
                    if let Err(error) = self.store(frame, None).await {
                        error!(%error, "an event waits for the spool");
                        return;
                    }
                }
                Err(error) => self.lost(&error.to_string()),
            }
            self.waiting.pop_front();
        }
    }

    async fn cut(&mut self) {
        self.due.cut(clock::uptime());
        self.send_waiting().await;
        let cut = self.framer.cut();
        self.append(cut).await;
    }

    async fn append(&mut self, cut: Result<Option<Cut>, FrameError>) {
        let cut = match cut {
            Ok(Some(cut)) => cut,
            Ok(None) => return,
            Err(error) => return self.lost(&error.to_string()),
        };
        let header = Header {
            ticks: cut.ticks,
            series: cut.series,
            ..self.header(cut.base, cut.schema, Codec::Columns)
        };
        let announces = cut.new_schema.is_some();
        let stored = match v1::seal(&header, cut.payload) {
            Ok(frame) => self
                .store(frame, cut.new_schema.map(|bytes| (cut.schema, bytes)))
                .await
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(why) = stored {
            if announces {
                self.framer.announce_again();
            }
            self.lost(&why);
        }
    }

    /// Appends a sealed frame durably; its number is used only if that worked.
    async fn store(
        &mut self,
        frame: Vec<u8>,
        schema: Option<(SchemaId, Arc<[u8]>)>,
    ) -> Result<(), SpoolError> {
        let seq = *self.next.borrow();
        let append = move |spool: &mut Spool| {
            spool.append(seq, schema.as_ref().map(|(id, bytes)| (*id, &**bytes)), &frame)
        };
        let appended = self.spool.run(append).await;
        self.board.update(|board| {
            board.spool.problem = appended.as_ref().err().map(ToString::to_string);
            board.frames_emitted = seq + u64::from(appended.is_ok());
        });
        if appended.is_ok() {
            self.next.send_replace(seq + 1);
        }
        appended
    }

    fn lost(&mut self, why: &str) {
        error!(why, "frame is lost");
        self.refused += 1;
        self.tell_lost();
    }

    fn tell_lost(&self) {
        let (lost, rejected) = (self.refused + self.given_up, self.framer.rejected());
        self.board.update(|board| {
            board.spool.frames_lost = lost;
            board.ticks_rejected = rejected;
        });
    }

    async fn stats(&mut self) {
        if let Ok(stats) = self.spool.run(|spool| Ok(spool.stats())).await {
            self.board.update(|board| {
                board.spool.bytes = stats.bytes;
                board.spool.frames_unacked = stats.frames_unacked;
            });
            self.given_up = stats.frames_lost;
        }
        self.tell_lost();
    }

    fn header(&self, base: clock::UnixMicros, schema: SchemaId, codec: Codec) -> Header {
        let seq = *self.next.borrow();
        Header { seq, base, epoch: self.epoch, schema, ticks: 0, series: 0, flags: FLAG_KEYFRAME, codec }
    }
}
