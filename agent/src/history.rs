//! The newest events of this node over its agent's restarts, for `diarwatch events` and `worker history`.
//!
//! Takes events as they happen; gives those of former runs when the agent starts. A small log beside the
//! spool, written by a thread of its own. This is for the eye, the spool is what carries events: a disk
//! that is slow or refuses costs lines of this history, counted and said, and delays nothing.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use diarwatch_shared::event::Event;
use diarwatch_shared::log::{Log, LogError, LogKind, sync_parent};
use tracing::warn;

use crate::recent::EVENTS_MAX;

/// Events that wait for the disk.
const WAITING_MAX: usize = 256;
/// Records in the file before it is written anew with the newest [`EVENTS_MAX`].
const RECORDS_MAX: usize = 4 * EVENTS_MAX;
/// Bytes of the file before it is written anew.
const BYTES_MAX: u64 = 16 << 20;

/// Where events are handed in; the file is closed when it is gone.
pub struct History {
    ways: Option<SyncSender<Event>>,
    dropped: u64,
}

impl History {
    /// Opens the history in a directory; gives the events of former runs, oldest first. One that cannot
    /// be used is said and done without.
    #[must_use]
    pub fn open(directory: &Path) -> (Self, Vec<Event>) {
        let path = directory.join("events.log");
        match File::open(path) {
            Ok(mut file) => {
                let former = file.newest.iter().cloned().collect();
                let (ways, events) = sync_channel(WAITING_MAX);
                std::thread::spawn(move || file.keep(&events));
                (Self { ways: Some(ways), dropped: 0 }, former)
            }
            Err(error) => {
                warn!(%error, "events of former runs are not known, and those of this run will not be");
                (Self { ways: None, dropped: 0 }, Vec::new())
            }
        }
    }

    /// Takes an event; never waits.
    pub fn put(&mut self, event: &Event) {
        let Some(ways) = &self.ways else { return };
        if ways.try_send(event.clone()).is_err() {
            self.dropped += 1;
            if self.dropped.is_power_of_two() {
                warn!(dropped = self.dropped, "the disk is slow: events are missing from the local history");
            }
        }
    }
}

struct File {
    path: PathBuf,
    log: Log,
    records: usize,
    newest: VecDeque<Event>,
    refused: bool,
}

impl File {
    fn open(path: PathBuf) -> Result<Self, LogError> {
        let mut newest = VecDeque::new();
        let mut records = 0;
        let log = Log::open(&path, LogKind::Events, |body| {
            records += 1;
            remember(&mut newest, Event::from_bytes(body).ok());
        })?;
        Ok(Self { path, log, records, newest, refused: false })
    }

    fn keep(&mut self, events: &Receiver<Event>) {
        while let Ok(event) = events.recv() {
            remember(&mut self.newest, Some(event.clone()));
            let kept = self.log.append(&event.to_bytes()).and_then(|()| {
                self.records += 1;
                if self.records > RECORDS_MAX || self.log.len() > BYTES_MAX {
                    self.write_anew()
                } else {
                    Ok(())
                }
            });
            if let Err(error) = &kept
                && !self.refused
            {
                warn!(%error, "events are missing from the local history");
            }
            self.refused = kept.is_err();
        }
    }

    fn write_anew(&mut self) -> Result<(), LogError> {
        let beside = self.path.with_extension("new");
        let io = |source| LogError::Io { path: beside.clone(), source };
        if beside.exists() {
            std::fs::remove_file(&beside).map_err(io)?;
        }
        let mut log = Log::open(&beside, LogKind::Events, |_| ())?;
        for event in &self.newest {
            log.append(&event.to_bytes())?;
        }
        log.sync()?;
        std::fs::rename(&beside, &self.path).and_then(|()| sync_parent(&self.path)).map_err(io)?;
        self.log = log;
        self.records = self.newest.len();
        Ok(())
    }
}

fn remember(newest: &mut VecDeque<Event>, event: Option<Event>) {
    newest.extend(event);
    if newest.len() > EVENTS_MAX {
        newest.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use diarwatch_shared::clock::UnixMicros;
    use diarwatch_shared::event::What;

    fn event(at: u64) -> Event {
        Event::new(UnixMicros(at), What::GpuDriverRecovered)
    }

    fn file(dir: &Path, events: impl IntoIterator<Item = u64>) -> File {
        let mut file = File::open(dir.join("events.log")).unwrap();
        let (ways, received) = sync_channel(100_000);
        events.into_iter().for_each(|at| ways.send(event(at)).unwrap());
        drop(ways);
        file.keep(&received);
        file
    }

    #[test]
    fn the_newest_events_are_there_after_a_restart_and_the_file_stays_small() {
        let dir = tempfile::tempdir().unwrap();
        let last = RECORDS_MAX as u64 * 2 + 7;
        let length = file(dir.path(), 1..=last).log.len();
        assert!(length < 4 * RECORDS_MAX as u64 * 64, "{length}");
        let (_, former) = History::open(dir.path());
        assert_eq!(former.len(), EVENTS_MAX);
        assert_eq!(former.last().map(|event| event.at.0), Some(last));
        assert!(former.is_sorted_by_key(|event| event.at));
    }

    #[test]
    fn a_history_that_cannot_be_used_keeps_no_agent_from_its_work() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("events.log"), "not a log, and longer than its header").unwrap();
        let (mut history, former) = History::open(dir.path());
        history.put(&event(1));
        assert!(former.is_empty());
    }
}
