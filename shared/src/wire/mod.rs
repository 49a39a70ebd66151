//! What crosses the link, and in which version. A successor of a version is a new file and a new
//! ALPN; the golden bytes of each stay in its tests for ever.
//!
//! Streams of one connection: a bidirectional control stream ([`control`]), one long
//! unidirectional stream for live frames and one for the backlog. All carry [`record`]s. The live
//! stream is the first unidirectional one that the agent opens: what comes on others is history, and
//! no alert fires from it.

pub mod control;
pub mod intent;
pub mod record;
pub mod v1;

/// The protocol that both ends speak, agreed in the TLS handshake.
pub const ALPN: &[u8] = b"diarwatch/1";

/// What a sealed payload holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Codec {
    /// Columns of [`crate::frame`], first form.
    Columns = 1,
    /// One [`crate::event::Event`] as JSON: rare, small, and free to grow fields.
    Event = 2,
    /// A run of frames that will never come ([`control::Gap`] as JSON).
    Gap = 3,
}

impl Codec {
    /// The codec of a number on the wire.
    #[must_use]
    pub fn from_wire(code: u16) -> Option<Self> {
        match code {
            1 => Some(Self::Columns),
            2 => Some(Self::Event),
            3 => Some(Self::Gap),
            _ => None,
        }
    }
}
