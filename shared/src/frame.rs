//! The payload of a frame: columns per series, one time column per group.
//!
//! Takes a schema and what its groups read since the last frame; gives bytes, and back. Codec 1:
//! integers of the quantum as zigzag deltas, a constant as one number, what does not fit as eight
//! bytes bit by bit; a validity bitmap and a reason where values are missing. Pure.

mod column;
mod varint;

use crate::clock::UnixMicros;
use crate::limits::{FRAME_BYTES_MAX, TICKS_MAX, VALUES_MAX};
use crate::reading::Reading;
use crate::schema::Schema;
use varint::{Cursor, put_u64, put_zigzag};

/// What one group read: `columns[series][tick]`, in the order of the schema.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// When each tick was read.
    pub times: Vec<UnixMicros>,
    /// One column per series of the group, each as long as `times`.
    pub columns: Vec<Vec<Reading>>,
}

/// What all groups read since the last frame.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Body {
    /// In the order of the schema.
    pub groups: Vec<Group>,
}

impl Body {
    /// The most ticks that any group has.
    #[must_use]
    pub fn ticks(&self) -> usize {
        self.groups.iter().map(|group| group.times.len()).max().unwrap_or(0)
    }
}

/// Why a body could not be packed or bytes could not be unpacked.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    /// The body has not the shape that the schema says.
    #[error("body has not the shape of its schema")]
    Shape,
    /// More ticks or values than a frame may have.
    #[error("frame passes the limit on {0}")]
    Limit(&'static str),
    /// The bytes end early, or something follows them.
    #[error("payload is truncated or has bytes behind its end")]
    Length,
    /// A number that no encoder writes.
    #[error("payload has an impossible {0}")]
    Value(&'static str),
}

/// Packs a body. Times are relative to `base`.
///
/// # Errors
/// When the body has not the schema's shape or passes a limit.
pub fn encode(schema: &Schema, base: UnixMicros, body: &Body) -> Result<Vec<u8>, FrameError> {
    if body.groups.len() != schema.groups.len() {
        return Err(FrameError::Shape);
    }
    let mut out = Vec::with_capacity(1024);
    let mut values = 0;
    for (def, group) in schema.groups.iter().zip(&body.groups) {
        let ticks = group.times.len();
        let shaped =
            group.columns.len() == def.series.len() && group.columns.iter().all(|c| c.len() == ticks);
        if !(shaped || ticks == 0) {
            return Err(FrameError::Shape);
        }
        check_size(ticks, def.series.len(), &mut values)?;
        put_u64(&mut out, ticks as u64);
        let mut previous = base;
        for time in &group.times {
            put_zigzag(&mut out, time.0.wrapping_sub(previous.0).cast_signed());
            previous = *time;
        }
        if ticks > 0 {
            for (series, column) in def.series.iter().zip(&group.columns) {
                column::encode(&mut out, series.quantum, column);
            }
        }
    }
    if out.len() > FRAME_BYTES_MAX { Err(FrameError::Limit("bytes")) } else { Ok(out) }
}

/// Unpacks and checks a payload.
///
/// # Errors
/// When it does not follow the schema, passes a limit or is damaged; nothing panics.
pub fn decode(schema: &Schema, base: UnixMicros, payload: &[u8]) -> Result<Body, FrameError> {
    let mut cursor = Cursor::new(payload);
    let mut values = 0;
    let mut groups = Vec::with_capacity(schema.groups.len());
    for def in &schema.groups {
        let ticks = usize::try_from(cursor.u64()?).map_err(|_| FrameError::Limit("ticks"))?;
        check_size(ticks, def.series.len(), &mut values)?;
        let mut previous = base;
        let mut times = Vec::with_capacity(ticks);
        for _ in 0..ticks {
            previous = UnixMicros(previous.0.wrapping_add_signed(cursor.zigzag()?));
            times.push(previous);
        }
        let mut columns = Vec::with_capacity(def.series.len());
        for series in &def.series {
            columns.push(if ticks == 0 {
                Vec::new()
            } else {
                column::decode(&mut cursor, series.quantum, ticks)?
            });
        }
        groups.push(Group { times, columns });
    }
    if cursor.is_empty() { Ok(Body { groups }) } else { Err(FrameError::Length) }
}

fn check_size(ticks: usize, series: usize, values: &mut usize) -> Result<(), FrameError> {
    if ticks > TICKS_MAX {
        return Err(FrameError::Limit("ticks"));
    }
    *values += ticks * series;
    if *values > VALUES_MAX { Err(FrameError::Limit("values")) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
