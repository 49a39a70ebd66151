//! Messages of the control stream, as JSON: rare, small, and free to grow fields that an older
//! end ignores. Never a command line, never acted on before the peer's certificate is known.

use serde::{Deserialize, Serialize};

use crate::clock::UnixMicros;
use crate::event::Cause;
use crate::node::{Epoch, NodeId, Seq, WorkerId};

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
    /// May a live worker be stopped, to be started again?
    LeaseAsk {
        /// Names the question and, once granted, the lease; new for each.
        id: u64,
        /// Which worker.
        worker: WorkerId,
        /// Why.
        cause: Cause,
        /// Whether it takes jobs now.
        ready: bool,
    },
    /// The worker is ready again, or was not stopped after all.
    LeaseReturn {
        /// Which lease.
        id: u64,
    },
    /// What became of an intent.
    IntentDone {
        /// Which intent.
        id: String,
        /// What is done now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        done: Option<String>,
        /// Why nothing is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refused: Option<String>,
    },
    /// A message of a later version.
    #[serde(other)]
    Unknown,
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
    /// The answer to a [`FromAgent::LeaseAsk`].
    Lease {
        /// Which question.
        id: u64,
        /// How long the worker may be away, in milliseconds; none when it must not be stopped now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        granted_ms: Option<u64>,
        /// When to ask again, in milliseconds, when it was not granted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
        /// Why it was not granted, for a person.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// What a person wants of a worker of this node.
    Intent {
        /// [`Intent`] as JSON, exactly the bytes that were signed.
        intent: String,
        /// Signature over these bytes by the key of the aggregator's certificate, base 16.
        signature: String,
    },
    /// A message of a later version.
    #[serde(other)]
    Unknown,
}

/// What a person wants of one worker; typed, never a command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Names it; used once.
    pub id: String,
    /// For which node; another one refuses it.
    pub node: NodeId,
    /// Which worker.
    pub worker: WorkerId,
    /// `restart`, `drain`, `resume`, `hold` or `release`.
    pub verb: String,
    /// Give up the jobs under way (only for a restart).
    #[serde(default)]
    pub now: bool,
    /// Who wants it.
    pub by: String,
    /// Why, in that person's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was signed, by the aggregator's clock.
    pub issued: UnixMicros,
    /// After this it is refused, by the aggregator's clock.
    pub not_after: UnixMicros,
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
    fn a_message_of_a_later_version_is_known_as_that() {
        let text = r#"{"type":"levitate","height":3}"#;
        assert_eq!(serde_json::from_str::<FromAggregator>(text).unwrap(), FromAggregator::Unknown);
        assert_eq!(serde_json::from_str::<FromAgent>(text).unwrap(), FromAgent::Unknown);
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
