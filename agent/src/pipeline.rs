//! The loop between the sources and the spool: numbers, seals and appends frames.
//!
//! Takes [`Input`]s; gives sealed frames to the spool and tells the uplink of each. An event is a
//! frame of its own, appended at once, behind the values that led to it. When the disk is slow the
//! loop waits and the ticks' queue drops; when the disk refuses, the frame is lost, counted and said.

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
use tracing::{error, info};

use crate::board::Board;
use crate::frame::{Cut, Due, Framer};
use crate::sample::Input;
use crate::spool::Handle;
use crate::worker_series::WorkerSeries;
use crate::workers::WorkerOutput;

/// How often the spool's size is looked at.
const STATS_INTERVAL: Duration = Duration::from_secs(2);

/// The loop and what it owns.
pub struct Pipeline {
    spool: Handle,
    epoch: Epoch,
    next: watch::Sender<Seq>,
    board: Board,
    framer: Framer,
    due: Due,
    workers: WorkerSeries,
}

impl Pipeline {
    /// A pipeline of a new run; `next` tells the uplink how far it got.
    #[must_use]
    pub fn new(spool: Handle, epoch: Epoch, next: watch::Sender<Seq>, board: Board) -> Self {
        let (framer, workers) = (Framer::default(), WorkerSeries::default());
        Self { spool, epoch, next, board, framer, due: Due::default(), workers }
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
        self.stats().await;
    }

    async fn take(&mut self, input: Input) {
        match input {
            Input::Tick(tick) => {
                let cut = self.framer.push(tick);
                self.append(cut).await;
            }
            Input::Event(event) => self.event(event).await,
            Input::Stop => {}
            Input::Worker(WorkerOutput::Event(event)) => self.event(event).await,
            Input::Worker(WorkerOutput::Status(status)) => {
                let (tick, changed) = self.workers.tick(&status, clock::now());
                self.board.update(|board| board.worker_told(status));
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

    async fn event(&mut self, event: Event) {
        info!(event = ?event.what, "event");
        self.cut().await;
        let header = self.header(event.at, SchemaId(0), Codec::Event);
        match v1::seal(&header, event.to_bytes()) {
            Ok(frame) => self.store(frame, None).await,
            Err(error) => error!(%error, "event is lost"),
        }
    }

    async fn cut(&mut self) {
        self.due.cut(clock::uptime());
        let cut = self.framer.cut();
        self.append(cut).await;
    }

    async fn append(&mut self, cut: Result<Option<Cut>, FrameError>) {
        let cut = match cut {
            Ok(Some(cut)) => cut,
            Ok(None) => return,
            Err(error) => return error!(%error, "frame is lost"),
        };
        let header = Header {
            ticks: cut.ticks,
            series: cut.series,
            ..self.header(cut.base, cut.schema, Codec::Columns)
        };
        match v1::seal(&header, cut.payload) {
            Ok(frame) => self.store(frame, cut.new_schema.map(|bytes| (cut.schema, bytes))).await,
            Err(error) => error!(%error, "frame is lost"),
        }
    }

    /// Appends a sealed frame durably; its number is used only if that worked.
    async fn store(&mut self, frame: Vec<u8>, schema: Option<(SchemaId, std::sync::Arc<[u8]>)>) {
        let seq = *self.next.borrow();
        let forget_schema = schema.is_some();
        let append = move |spool: &mut crate::spool::Spool| {
            spool.append(seq, schema.as_ref().map(|(id, bytes)| (*id, &**bytes)), &frame)
        };
        match self.spool.run(append).await {
            Ok(()) => {
                self.board.update(|board| {
                    board.frames_emitted = seq + 1;
                    board.spool.problem = None;
                });
                self.next.send_replace(seq + 1);
            }
            Err(error) => {
                error!(%error, "frame is lost");
                if forget_schema {
                    self.framer.announce_again();
                }
                self.board.update(|board| {
                    board.spool.frames_lost += 1;
                    board.spool.problem = Some(error.to_string());
                });
            }
        }
    }

    async fn stats(&mut self) {
        if let Ok(stats) = self.spool.run(|spool| Ok(spool.stats())).await {
            self.board.update(|board| {
                board.spool.bytes = stats.bytes;
                board.spool.frames_unacked = stats.frames_unacked;
                board.spool.frames_lost = board.spool.frames_lost.max(stats.frames_lost);
            });
        }
    }

    fn header(&self, base: clock::UnixMicros, schema: SchemaId, codec: Codec) -> Header {
        let seq = *self.next.borrow();
        Header { seq, base, epoch: self.epoch, schema, ticks: 0, series: 0, flags: FLAG_KEYFRAME, codec }
    }
}
