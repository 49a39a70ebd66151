//! The aggregator's own counters as Prometheus text: what was stored, dropped, told. Pure.

use std::fmt::Write;

use crate::alerts::Phase;
use crate::control::Counts;
use crate::desk::Kept;
use crate::store::Memory;
use crate::view::own::Streams;

/// The exposition.
#[must_use]
pub fn exposition(memory: &Memory, kept: &Kept, streams: Streams, control: Counts) -> String {
    let mut out = String::new();
    let mut one = |name: &str, kind: &str, help: &str, value: u64| {
        // Writing to a string cannot fail.
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    };
    let head = memory.head.dropped();
    one("diarwatch_head_series", "gauge", "Series in memory.", memory.head.series_count() as u64);
    one(
        "diarwatch_head_samples_dropped_series_total",
        "counter",
        "Samples of series beyond the limit per node.",
        head.series,
    );
    one(
        "diarwatch_head_samples_dropped_late_total",
        "counter",
        "Samples older than the head window; they are on disk.",
        head.late,
    );
    one(
        "diarwatch_head_samples_dropped_points_total",
        "counter",
        "Oldest samples of a series or node that had too many in memory; they are on disk.",
        head.points,
    );
    let firing = kept.alerts.active().filter(|alert| alert.phase == Phase::Firing).count();
    one("diarwatch_alerts_firing", "gauge", "Alerts that are firing.", firing as u64);
    one("diarwatch_alerts_dropped_total", "counter", "Alerts beyond the limit.", kept.alerts.dropped);
    one(
        "diarwatch_rule_faults",
        "gauge",
        "Rules that could not be evaluated in the newest round.",
        kept.faults.len() as u64,
    );
    one("diarwatch_notifications_waiting", "gauge", "Messages on their way.", kept.outbox.len() as u64);
    one(
        "diarwatch_notifications_accepted_total",
        "counter",
        "Messages that the channel took.",
        kept.outbox.accepted,
    );
    one(
        "diarwatch_notifications_dropped_total",
        "counter",
        "Messages given up because the outbox was full.",
        kept.outbox.dropped,
    );
    one(
        "diarwatch_notifications_refused_total",
        "counter",
        "Messages that the channel refused for good.",
        kept.outbox.refused,
    );
    one("diarwatch_page_streams", "gauge", "Streams that browsers hold.", streams.open);
    one(
        "diarwatch_page_streams_cut_total",
        "counter",
        "Streams cut because their reader was slow.",
        streams.cut,
    );
    one(
        "diarwatch_page_streams_refused_total",
        "counter",
        "Streams refused because there were too many.",
        streams.refused,
    );
    per_node(&mut out, memory);
    orders(&mut out, control);
    out
}

fn orders(out: &mut String, control: Counts) {
    let Counts { leases, intents } = control;
    let rows = [
        ("diarwatch_leases_held", "gauge", "Restarts that may be under way in the fleet.", leases.held),
        (
            "diarwatch_leases_granted_total",
            "counter",
            "Leave that agents got to stop a worker.",
            leases.granted,
        ),
        ("diarwatch_leases_denied_total", "counter", "Times that an agent was told to wait.", leases.denied),
        ("diarwatch_leases_expired_total", "counter", "Leases that nobody gave back.", leases.expired),
        ("diarwatch_intents_sent_total", "counter", "Orders of people that went to an agent.", intents.sent),
        ("diarwatch_intents_done_total", "counter", "Orders that an agent followed.", intents.done),
        ("diarwatch_intents_refused_total", "counter", "Orders that an agent refused.", intents.refused),
        ("diarwatch_intents_rejected_total", "counter", "Orders turned away at the door.", intents.rejected),
    ];
    for (name, kind, help, value) in rows {
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    }
}

fn per_node(out: &mut String, memory: &Memory) {
    type Read = fn(&crate::store::NodeState) -> u64;
    let rows: [(&str, &str, &str, Read); 6] = [
        ("diarwatch_node_connected", "gauge", "1 while the node has a connection.", |node| {
            u64::from(node.connected)
        }),
        ("diarwatch_frames_stored_total", "counter", "Frames on disk.", |node| node.frames_stored),
        ("diarwatch_frames_duplicate_total", "counter", "Frames that came again.", |node| {
            node.frames_duplicate
        }),
        ("diarwatch_frames_refused_total", "counter", "Frames too far ahead of a hole.", |node| {
            node.frames_refused
        }),
        (
            "diarwatch_frames_opaque_total",
            "counter",
            "Frames kept though their payload cannot be read.",
            |node| node.frames_opaque,
        ),
        ("diarwatch_frames_lost_total", "counter", "Frames that will never come.", |node| node.frames_lost),
    ];
    for (name, kind, help, read) in rows {
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (node, state) in &memory.nodes {
            // A node's name is a DNS label: nothing in it needs escaping.
            let _ = writeln!(out, "{name}{{node=\"{node}\"}} {}", read(state));
        }
    }
}
