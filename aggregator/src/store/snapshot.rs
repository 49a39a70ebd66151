//! What a segment begins with: every cursor and count, so that older segments need not be read again.
//!
//! Takes the state; gives it as records of bounded size, and takes it back from them. Pure.

use std::collections::BTreeMap;

use diarwatch_shared::node::{Epoch, NodeId};
use serde::{Deserialize, Serialize};

use super::Cursors;
use super::cursor::Cursor;
use super::memory::Tally;

/// The version that is written, and the newest that is read.
pub(super) const SNAPSHOT_VERSION: u16 = 1;
/// Cursors and counts in one record. A cursor has at most 256 runs of two numbers: some 11 KiB each,
/// and a record holds 2 MiB.
const PART_ENTRIES_MAX: usize = 128;

/// The state, or a part of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Snapshot {
    version: u16,
    pub(super) cursors: Cursors,
    pub(super) nodes: BTreeMap<NodeId, Tally>,
}

impl Snapshot {
    /// The parts as JSON.
    pub(super) fn parts(cursors: &Cursors, nodes: BTreeMap<NodeId, Tally>) -> Vec<Vec<u8>> {
        let all = cursors
            .iter()
            .flat_map(|(node, epochs)| epochs.iter().map(move |(epoch, cursor)| (node, *epoch, cursor)));
        let cursors: Vec<(&NodeId, Epoch, &Cursor)> = all.collect();
        let tallies: Vec<(NodeId, Tally)> = nodes.into_iter().collect();
        let of_cursors = cursors.chunks(PART_ENTRIES_MAX).map(|chunk| {
            let mut part = Self { version: SNAPSHOT_VERSION, ..Self::default() };
            for (node, epoch, cursor) in chunk {
                part.cursors.entry((*node).clone()).or_default().insert(*epoch, (*cursor).clone());
            }
            part
        });
        let of_nodes = tallies.chunks(PART_ENTRIES_MAX).map(|chunk| {
            let nodes = chunk.iter().cloned().collect();
            Self { version: SNAPSHOT_VERSION, cursors: Cursors::new(), nodes }
        });
        of_cursors.chain(of_nodes).map(|part| serde_json::to_vec(&part).unwrap_or_default()).collect()
    }

    /// Adds a part.
    pub(super) fn add(&mut self, text: &[u8]) -> Result<(), String> {
        #[derive(Deserialize)]
        struct Version {
            version: u16,
        }
        let hint = "move the store's directory away to start without it";
        let read = |error: serde_json::Error| format!("{error}; {hint}");
        let Version { version } = serde_json::from_slice(text).map_err(read)?;
        if version > SNAPSHOT_VERSION {
            return Err(format!(
                "version {version} is newer than this program ({SNAPSHOT_VERSION}); upgrade it"
            ));
        }
        let part: Self = serde_json::from_slice(text).map_err(read)?;
        for (node, epochs) in part.cursors {
            self.cursors.entry(node).or_default().extend(epochs);
        }
        self.nodes.extend(part.nodes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::NODE_EPOCHS_MAX;
    use diarwatch_shared::limits::RUNS_AHEAD_MAX;
    use diarwatch_shared::log::RECORD_BYTES_MAX;

    /// As many runs as there may be, with the longest numbers.
    fn worst(runs: usize) -> Cursor {
        let mut cursor = Cursor::default();
        for run in 0..runs as u64 {
            let from = u64::MAX - 4 * (run + 1);
            cursor.take(from, from + 1);
        }
        cursor
    }

    #[test]
    fn the_state_of_a_large_fleet_fits_its_records_and_comes_back() {
        let node = |number: usize| NodeId::new(format!("{number:0>63}")).unwrap();
        let epochs = |runs: usize| -> BTreeMap<Epoch, Cursor> {
            (0..NODE_EPOCHS_MAX as u64).map(|epoch| (Epoch(u64::MAX - epoch), worst(runs))).collect()
        };
        // Many nodes with many runs of their agents, and one that is hostile.
        let mut cursors: Cursors = (0..200).map(|number| (node(number), epochs(1))).collect();
        cursors.insert(node(999), epochs(RUNS_AHEAD_MAX));
        let nodes: BTreeMap<_, _> = (0..1_000).map(|number| (node(number), Tally::default())).collect();
        let parts = Snapshot::parts(&cursors, nodes.clone());
        assert!(parts.iter().map(Vec::len).sum::<usize>() > RECORD_BYTES_MAX);
        assert!(parts.iter().all(|part| part.len() < RECORD_BYTES_MAX), "a record holds each");
        let mut back = Snapshot::default();
        parts.iter().for_each(|part| back.add(part).unwrap());
        assert!(back.cursors == cursors && back.nodes == nodes);
    }

    #[test]
    fn an_empty_store_has_no_parts() {
        assert_eq!(Snapshot::parts(&Cursors::new(), BTreeMap::new()), Vec::<Vec<u8>>::new());
    }
}
