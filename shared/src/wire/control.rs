//! Messages of the control stream, as JSON: rare, small, and free to grow fields that an older
//! end ignores. Never a command line, never acted on before the peer's certificate is known.

use serde::{Deserialize, Serialize};

use crate::clock::UnixMicros;
use crate::node::{Epoch, Seq};

/// Frames of an epoch below `next` are on the aggregator's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durable {
    /// The run of the agent.
    pub epoch: Epoch,
    /// The first number that is not yet durable.
    pub next: Seq,
}

/// Frames that will never come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The run of the agent that made them.
    pub epoch: Epoch,
    /// First lost number.
    pub from: Seq,
    /// First number behind the gap.
    pub to: Seq,
    /// Why, in a word: `spool_full`, `spool_damaged`.
    pub reason: String,
}

/// From the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromAgent {
    /// The first message.
    Hello {
        /// Version of the agent.
        version: String,
        /// This run of the agent.
        epoch: Epoch,
        /// Every epoch that the spool still holds, this one included.
        epochs: Vec<Epoch>,
        /// The agent's clock.
        clock: UnixMicros,
    },
}

/// From the aggregator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromAggregator {
    /// The answer to a hello.
    Welcome {
        /// Version of the aggregator.
        version: String,
        /// What it has of each epoch in the hello.
        durable: Vec<Durable>,
        /// The aggregator's clock.
        clock: UnixMicros,
    },
    /// More frames are on disk.
    Ack {
        /// How far, per epoch.
        durable: Vec<Durable>,
    },
    /// The connection ends; the reason is for a person.
    Refused {
        /// What is wrong and what to do.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_text_of_wire_version_1_stays() {
        let hello = FromAgent::Hello {
            version: "0.1.0".into(),
            epoch: Epoch(5),
            epochs: vec![Epoch(3), Epoch(5)],
            clock: UnixMicros(9),
        };
        let text = r#"{"type":"hello","version":"0.1.0","epoch":5,"epochs":[3,5],"clock":9}"#;
        assert_eq!(serde_json::to_string(&hello).unwrap(), text);
        let ack = FromAggregator::Ack { durable: vec![Durable { epoch: Epoch(5), next: 8 }] };
        let text = r#"{"type":"ack","durable":[{"epoch":5,"next":8}]}"#;
        assert_eq!(serde_json::to_string(&ack).unwrap(), text);
    }

    #[test]
    fn a_field_of_a_later_version_is_ignored() {
        let text = r#"{"type":"ack","durable":[],"leases":[1]}"#;
        assert_eq!(
            serde_json::from_str::<FromAggregator>(text).unwrap(),
            FromAggregator::Ack { durable: vec![] }
        );
    }
}
