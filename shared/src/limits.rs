//! One table of the limits on what crosses a wire or a disk. Each has a unit in its name and is
//! checked before anything is allocated for it.

/// Bytes of a node's or worker's name (a DNS label).
pub const NAME_BYTES_MAX: usize = 63;
/// Bytes of one sealed frame, envelope included.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one schema.
pub const SCHEMA_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of one control message.
pub const CONTROL_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one intent as JSON.
pub const INTENT_BYTES_MAX: usize = 4 * 1024;
/// Characters of the reason that a person gives for an order.
pub const REASON_CHARS_MAX: usize = 300;
/// Bytes of one event, evidence included.
pub const EVENT_BYTES_MAX: usize = 60 * 1024;
/// Groups (sets of series read at the same instants) in a schema.
pub const GROUPS_MAX: usize = 128;
/// Series in a schema, over all groups.
pub const SERIES_MAX: usize = 4_096;
/// Ticks of one group in one frame.
pub const TICKS_MAX: usize = 1_024;
/// Values in one frame, over all groups.
pub const VALUES_MAX: usize = 262_144;
/// Labels of one series.
pub const LABELS_MAX: usize = 32;
/// Bytes of a metric name, a label name or a label value.
pub const LABEL_BYTES_MAX: usize = 512;
/// Unacknowledged epochs that a hello may name.
pub const EPOCHS_MAX: usize = 256;
/// Runs of frames that may be ahead of a hole in the sequence, per node and epoch.
pub const RUNS_AHEAD_MAX: usize = 256;
/// Nodes that one aggregator accepts.
pub const NODES_MAX: usize = 4_096;
