//! The aggregator's own state: what it stored, lost and told, and what keeps it from its work. Pure.

use serde::Serialize;

use super::Sources;
use super::state::State;
use crate::store::NodeState;

/// The panel.
#[derive(Clone, Debug, Serialize)]
pub struct Own {
    /// Warning while something keeps the aggregator from its work, or messages were given up.
    pub state: State,
    /// Frames on disk.
    pub frames_stored: u64,
    /// Frames that will never come.
    pub frames_lost: u64,
    /// Frames that came again.
    pub frames_duplicate: u64,
    /// Frames refused because they were too far ahead of a hole.
    pub frames_refused: u64,
    /// Series in memory.
    pub series: u64,
    /// Messages on their way.
    pub notifications_waiting: u64,
    /// Messages that the channel took.
    pub notifications_accepted: u64,
    /// Messages given up because the outbox was full.
    pub notifications_dropped: u64,
    /// Messages that the channel refused for good.
    pub notifications_refused: u64,
    /// Streams that browsers hold.
    pub streams_open: u64,
    /// Streams that were cut because their reader was slow.
    pub streams_cut: u64,
    /// Streams that were refused because there were too many.
    pub streams_refused: u64,
}

/// What is known of the page's own streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    /// Open now.
    pub open: u64,
    /// Cut because their reader was slow.
    pub cut: u64,
    /// Refused because there were too many.
    pub refused: u64,
}

pub(super) fn panel(of: &Sources<'_>, problems: bool) -> Own {
    let sum = |read: fn(&NodeState) -> u64| of.memory.nodes.values().map(read).sum();
    let outbox = &of.kept.outbox;
    let bad = problems || outbox.dropped > 0 || outbox.refused > 0;
    Own {
        state: if bad { State::Warning } else { State::Ok },
        frames_stored: of.memory.frames_stored(),
        frames_lost: sum(|node| node.frames_lost),
        frames_duplicate: sum(|node| node.frames_duplicate),
        frames_refused: sum(|node| node.frames_refused),
        series: of.memory.head.series_count() as u64,
        notifications_waiting: outbox.len() as u64,
        notifications_accepted: outbox.accepted,
        notifications_dropped: outbox.dropped,
        notifications_refused: outbox.refused,
        streams_open: of.streams.open,
        streams_cut: of.streams.cut,
        streams_refused: of.streams.refused,
    }
}
