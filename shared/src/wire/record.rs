//! Records on a stream: one byte of kind, four bytes of length (little endian), the body.
//!
//! Takes any async reader or writer; gives whole records, never more bytes than their kind allows.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::limits::{CONTROL_BYTES_MAX, FRAME_BYTES_MAX, SCHEMA_BYTES_MAX};

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A sealed frame.
    Frame = 1,
    /// The bytes of a schema.
    Schema = 2,
    /// A control message as JSON.
    Control = 16,
}

impl Kind {
    fn from_wire(code: u8) -> Option<(Self, usize)> {
        match code {
            1 => Some((Self::Frame, FRAME_BYTES_MAX)),
            2 => Some((Self::Schema, SCHEMA_BYTES_MAX)),
            16 => Some((Self::Control, CONTROL_BYTES_MAX)),
            _ => None,
        }
    }
}

/// Reads the next record; `None` at a clean end of the stream.
///
/// # Errors
/// When the stream fails or ends within a record, or a record has an unknown kind or passes its limit.
pub async fn read<R: AsyncRead + Unpin>(reader: &mut R) -> io::Result<Option<(Kind, Vec<u8>)>> {
    let mut head = [0_u8; 5];
    if reader.read(&mut head[..1]).await? == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut head[1..]).await?;
    let [code, length @ ..] = head;
    let refuse = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    let (kind, limit) =
        Kind::from_wire(code).ok_or_else(|| refuse(format!("record of unknown kind {code}")))?;
    let length = u32::from_le_bytes(length) as usize;
    if length > limit {
        return Err(refuse(format!(
            "{kind:?} record of {length} bytes is larger than the limit of {limit} bytes"
        )));
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).await?;
    Ok(Some((kind, body)))
}

/// Writes one record.
///
/// # Errors
/// When the stream fails or the body cannot be a record.
pub async fn write<W: AsyncWrite + Unpin>(writer: &mut W, kind: Kind, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut bytes = Vec::with_capacity(5 + body.len());
    bytes.push(kind as u8);
    bytes.extend(length.to_le_bytes());
    bytes.extend(body);
    writer.write_all(&bytes).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn records_come_back_in_order_and_the_end_is_clean() {
        let mut bytes = Vec::new();
        write(&mut bytes, Kind::Schema, b"s").await.unwrap();
        write(&mut bytes, Kind::Frame, b"").await.unwrap();
        assert_eq!(bytes, [2, 1, 0, 0, 0, b's', 1, 0, 0, 0, 0]);
        let mut reader = bytes.as_slice();
        assert_eq!(read(&mut reader).await.unwrap(), Some((Kind::Schema, b"s".to_vec())));
        assert_eq!(read(&mut reader).await.unwrap(), Some((Kind::Frame, Vec::new())));
        assert_eq!(read(&mut reader).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_record_that_claims_too_much_is_refused_before_memory_is_taken() {
        let mut reader: &[u8] = &[1, 0xFF, 0xFF, 0xFF, 0xFF];
        assert!(read(&mut reader).await.unwrap_err().to_string().contains("limit"));
        let mut cut: &[u8] = &[1, 9, 0, 0, 0, 1];
        assert_eq!(read(&mut cut).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
