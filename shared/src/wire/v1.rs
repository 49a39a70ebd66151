//! The envelope of wire version 1: one frozen rkyv struct of fixed-width integers and one byte
//! vector. Do not add, remove or reorder a field: a successor is a new type behind a new ALPN.
//!
//! Takes a header and a payload; gives bytes whose length and CRC32C are checked before anything
//! else is believed. rkyv 0.8 with little endian, aligned, 32-bit offsets (Cargo.toml names them).

use rkyv::rancor;
use rkyv::util::AlignedVec;

use crate::clock::UnixMicros;
use crate::limits::FRAME_BYTES_MAX;
use crate::node::{Epoch, Seq};
use crate::schema::SchemaId;
use crate::wire::Codec;

/// Bit of `flags`: the payload can be decoded without the frame before it.
pub const FLAG_KEYFRAME: u16 = 1;

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Sealed {
    seq: u64,
    base_time_us: u64,
    epoch: u64,
    schema: u64,
    crc32c: u32,
    ticks: u16,
    series: u16,
    flags: u16,
    codec: u16,
    payload: Vec<u8>,
}

/// What is known of a frame without decoding its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Place in the epoch.
    pub seq: Seq,
    /// The time that the payload's times are relative to.
    pub base: UnixMicros,
    /// Run of the agent.
    pub epoch: Epoch,
    /// Layout of the columns; 0 for an event or a gap.
    pub schema: SchemaId,
    /// Most ticks of any group.
    pub ticks: u16,
    /// Series over all groups.
    pub series: u16,
    /// [`FLAG_KEYFRAME`].
    pub flags: u16,
    /// What the payload holds.
    pub codec: Codec,
}

/// Why bytes are not an envelope.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EnvelopeError {
    /// More bytes than a frame may have.
    #[error("frame of {0} bytes is larger than the limit of {FRAME_BYTES_MAX} bytes")]
    TooLarge(usize),
    /// Not an archive of this version.
    #[error("frame is damaged: not an envelope of version 1")]
    Form,
    /// The checksum does not fit.
    #[error("frame is damaged: its CRC32C does not fit")]
    Crc,
    /// A codec of a later version.
    #[error("frame has codec {0}, which this program does not know; upgrade it")]
    Codec(u16),
}

/// Seals a payload.
///
/// # Errors
/// When the sealed frame would pass [`FRAME_BYTES_MAX`].
pub fn seal(header: &Header, payload: Vec<u8>) -> Result<Vec<u8>, EnvelopeError> {
    let mut sealed = Sealed {
        seq: header.seq,
        base_time_us: header.base.0,
        epoch: header.epoch.0,
        schema: header.schema.0,
        crc32c: 0,
        ticks: header.ticks,
        series: header.series,
        flags: header.flags,
        codec: header.codec as u16,
        payload,
    };
    sealed.crc32c = crc(&sealed);
    let bytes = rkyv::to_bytes::<rancor::Error>(&sealed).map_err(|_| EnvelopeError::Form)?;
    if bytes.len() > FRAME_BYTES_MAX {
        Err(EnvelopeError::TooLarge(bytes.len()))
    } else {
        Ok(bytes.into_vec())
    }
}

/// Opens and checks an envelope.
///
/// # Errors
/// When the bytes are too many, damaged, or of a later version.
pub fn open(bytes: &[u8]) -> Result<(Header, Vec<u8>), EnvelopeError> {
    if bytes.len() > FRAME_BYTES_MAX {
        return Err(EnvelopeError::TooLarge(bytes.len()));
    }
    let mut aligned = AlignedVec::<16>::with_capacity(bytes.len());
    aligned.extend_from_slice(bytes);
    let archived =
        rkyv::access::<ArchivedSealed, rancor::Error>(&aligned).map_err(|_| EnvelopeError::Form)?;
    let sealed: Sealed =
        rkyv::deserialize::<Sealed, rancor::Error>(archived).map_err(|_| EnvelopeError::Form)?;
    if crc(&sealed) != sealed.crc32c {
        return Err(EnvelopeError::Crc);
    }
    let codec = Codec::from_wire(sealed.codec).ok_or(EnvelopeError::Codec(sealed.codec))?;
    let header = Header {
        seq: sealed.seq,
        base: UnixMicros(sealed.base_time_us),
        epoch: Epoch(sealed.epoch),
        schema: SchemaId(sealed.schema),
        ticks: sealed.ticks,
        series: sealed.series,
        flags: sealed.flags,
        codec,
    };
    Ok((header, sealed.payload))
}

/// Over every field but itself, in order, little endian, then the payload.
fn crc(sealed: &Sealed) -> u32 {
    let mut crc = 0;
    for word in [sealed.seq, sealed.base_time_us, sealed.epoch, sealed.schema] {
        crc = crc32c::crc32c_append(crc, &word.to_le_bytes());
    }
    for half in [sealed.ticks, sealed.series, sealed.flags, sealed.codec] {
        crc = crc32c::crc32c_append(crc, &half.to_le_bytes());
    }
    crc32c::crc32c_append(crc, &sealed.payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header {
            seq: 7,
            base: UnixMicros(1_764_826_335_000_000),
            epoch: Epoch(42),
            schema: SchemaId(0x0123_4567_89AB_CDEF),
            ticks: 10,
            series: 3,
            flags: FLAG_KEYFRAME,
            codec: Codec::Columns,
        }
    }

    #[test]
    fn golden_bytes_of_version_1_stay() {
        let bytes = seal(&header(), b"payload!".to_vec()).unwrap();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "7061796c6f6164210700000000000000c0b5c9a6194506002a00000000000000efcdab8967452301a0405ba00a00030001000100ccffffff0800000000000000"
        );
        assert_eq!(open(&bytes).unwrap(), (header(), b"payload!".to_vec()));
    }

    proptest! {
        #[test]
        fn one_flipped_bit_is_always_found(bit in 0_usize..(64 * 8), payload in prop::collection::vec(any::<u8>(), 8)) {
            let mut bytes = seal(&header(), payload.clone()).unwrap();
            let bit = bit % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok((got, body)) = open(&bytes) {
                // A bit of padding is the only one that may go unseen, and then nothing changed.
                prop_assert_eq!((got, body), (header(), payload));
            }
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = open(&bytes);
        }
    }

    #[test]
    fn an_oversize_frame_is_refused_on_both_sides() {
        assert!(matches!(seal(&header(), vec![0; FRAME_BYTES_MAX]), Err(EnvelopeError::TooLarge(_))));
        assert!(matches!(open(&vec![0; FRAME_BYTES_MAX + 1]), Err(EnvelopeError::TooLarge(_))));
    }
}
