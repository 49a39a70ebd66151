//! The agent's own cost and losses, as ordinary samples: nothing hides when the watcher is sick.

use std::sync::Arc;

use diarwatch_shared::clock;
use diarwatch_shared::reading::{Missing, Reading};
use diarwatch_shared::schema::SeriesKey;

use super::{Sink, Tick};
use crate::board::Board;
use crate::proc_text;

/// Reads what this process costs and lost.
pub struct Vitals {
    sink: Sink,
    keys: Arc<[SeriesKey]>,
}

impl Vitals {
    /// Vitals that go to `sink`, whose drops they also tell.
    #[must_use]
    pub fn new(sink: Sink) -> Self {
        let names = [
            "agent_resident_bytes",
            "agent_cpu_seconds_total",
            "agent_ticks_dropped_total",
            "spool_bytes",
            "spool_frames_unacked",
            "spool_frames_lost_total",
        ];
        let mut keys: Vec<SeriesKey> = names.iter().map(|name| SeriesKey::new(name, &[])).collect();
        keys.push(SeriesKey::new("agent_info", &[("version", env!("CARGO_PKG_VERSION"))]));
        Self { sink, keys: keys.into() }
    }

    /// Tells the vitals of now.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub fn tick(&mut self, board: &Board) {
        let read = |path: &str, parse: fn(&str) -> Option<f64>| -> Reading {
            std::fs::read_to_string(path).ok().as_deref().and_then(parse).ok_or(Missing::Failed)
        };
        let (spool, rejected) = board.read(|board| (board.spool.clone(), board.ticks_rejected));
        let readings = vec![
            read("/proc/self/status", proc_text::resident_bytes),
            read("/proc/self/stat", proc_text::process_cpu_seconds),
            Ok((self.sink.dropped() + rejected) as f64),
            Ok(spool.bytes as f64),
            Ok(spool.frames_unacked as f64),
            Ok(spool.frames_lost as f64),
            Ok(1.0),
        ];
        self.sink.tick(Tick {
            group: "agent".into(),
            at: clock::now(),
            keys: Arc::clone(&self.keys),
            readings,
        });
    }
}
