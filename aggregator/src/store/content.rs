//! What a frame holds: takes its payload; gives values, an event, a gap, or why it cannot be read. Pure.

use std::sync::Arc;

use diarwatch_shared::event::Event;
use diarwatch_shared::frame::{self, Body};
use diarwatch_shared::node::Seq;
use diarwatch_shared::schema::Schema;
use diarwatch_shared::wire::Codec;
use diarwatch_shared::wire::control::Gap;
use diarwatch_shared::wire::v1::Header;

/// What a frame holds, decoded and checked.
#[derive(Clone, Debug)]
pub enum Content {
    /// Values.
    Columns(Arc<Schema>, Body),
    /// Something happened.
    Event(Box<Event>),
    /// Frames that will never come.
    Gap(Gap),
    /// A sound envelope whose payload cannot be read, and why. It is kept, counted and acknowledged:
    /// a refusal would only bring it again for ever, and a later version may read it.
    Opaque(String),
}

impl Content {
    /// Decodes a payload.
    #[must_use]
    pub fn decode(header: &Header, payload: &[u8], schema: Option<Arc<Schema>>) -> Self {
        Self::read(header, payload, schema).unwrap_or_else(Self::Opaque)
    }

    fn read(header: &Header, payload: &[u8], schema: Option<Arc<Schema>>) -> Result<Self, String> {
        match header.codec {
            Codec::Columns => {
                let schema = schema
                    .ok_or_else(|| format!("frame uses schema {}, which was never sent", header.schema))?;
                let body = frame::decode(&schema, header.base, payload).map_err(|error| error.to_string())?;
                Ok(Self::Columns(schema, body))
            }
            Codec::Event => Event::from_bytes(payload).map(|event| Self::Event(Box::new(event))),
            Codec::Gap => {
                let gap: Gap = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
                let in_place = gap.epoch == header.epoch && gap.from == header.seq && gap.to > gap.from;
                if in_place { Ok(Self::Gap(gap)) } else { Err("gap is not in its own place".into()) }
            }
        }
    }

    /// Values that it takes memory for.
    #[must_use]
    pub fn values(&self) -> usize {
        match self {
            Self::Columns(_, body) => body.groups.iter().flat_map(|group| &group.columns).map(Vec::len).sum(),
            _ => 0,
        }
    }

    /// The number behind the frame, or behind every frame of a gap.
    pub(super) fn behind(&self, header: &Header) -> Seq {
        match self {
            Self::Gap(gap) => gap.to,
            _ => header.seq.saturating_add(1),
        }
    }
}
