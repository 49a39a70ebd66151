//! One column: a mode byte, where values are missing a bitmap and a reason, then the values.

use super::FrameError;
use super::varint::{Cursor, put_zigzag};
use crate::reading::{Missing, Reading};

/// Set when some ticks have no value; a bitmap (bit set = value) and one reason follow.
const PARTIAL: u8 = 0x80;
/// No tick has a value; one reason follows.
const NONE: u8 = 0;
/// All values are one integer of the quantum.
const CONSTANT: u8 = 1;
/// Integers of the quantum: the first, then the differences.
const DELTAS: u8 = 2;
/// Eight bytes each.
const RAW: u8 = 3;

/// Integers up to here are exact in an f64.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

pub(super) fn encode(out: &mut Vec<u8>, quantum: (u32, u32), column: &[Reading]) {
    let values: Vec<f64> = column.iter().filter_map(|reading| reading.ok()).collect();
    let missing = column.iter().find_map(|reading| reading.err());
    if values.is_empty() {
        out.extend([NONE, missing.unwrap_or(Missing::Failed) as u8]);
        return;
    }
    let integers: Option<Vec<i64>> = values.iter().map(|value| to_integer(*value, quantum)).collect();
    let mode = match &integers {
        Some(list) if list.iter().all(|integer| list.first() == Some(integer)) => CONSTANT,
        Some(_) => DELTAS,
        None => RAW,
    };
    out.push(mode | if missing.is_some() { PARTIAL } else { 0 });
    if let Some(reason) = missing {
        put_bitmap(out, column);
        out.push(reason as u8);
    }
    match (mode, integers) {
        (CONSTANT, Some(list)) => put_zigzag(out, list.first().copied().unwrap_or(0)),
        (DELTAS, Some(list)) => {
            let mut previous = 0_i64;
            for integer in list {
                put_zigzag(out, integer.wrapping_sub(previous));
                previous = integer;
            }
        }
        _ => values.iter().for_each(|value| out.extend(value.to_bits().to_le_bytes())),
    }
}

pub(super) fn decode(
    cursor: &mut Cursor<'_>,
    quantum: (u32, u32),
    ticks: usize,
) -> Result<Vec<Reading>, FrameError> {
    let head = cursor.byte()?;
    let mode = head & !PARTIAL;
    if mode == NONE {
        return Ok(vec![Err(Missing::from_wire(cursor.byte()?)); ticks]);
    }
    let mut present = vec![true; ticks];
    let mut reason = Missing::Failed;
    if head & PARTIAL != 0 {
        let bitmap = cursor.bytes(ticks.div_ceil(8))?;
        for (tick, flag) in present.iter_mut().enumerate() {
            *flag = bitmap.get(tick / 8).is_some_and(|bits| bits >> (tick % 8) & 1 == 1);
        }
        reason = Missing::from_wire(cursor.byte()?);
    }
    let constant = if mode == CONSTANT { Some(cursor.zigzag()?) } else { None };
    let mut previous = 0_i64;
    let mut column = Vec::with_capacity(ticks);
    for flag in present {
        if !flag {
            column.push(Err(reason));
            continue;
        }
        column.push(Ok(match mode {
            CONSTANT => from_integer(constant.unwrap_or(0), quantum),
            DELTAS => {
                previous = previous.wrapping_add(cursor.zigzag()?);
                from_integer(previous, quantum)
            }
            RAW => f64::from_bits(u64::from_le_bytes(cursor.array()?)),
            _ => return Err(FrameError::Value("column mode")),
        }));
    }
    Ok(column)
}

fn put_bitmap(out: &mut Vec<u8>, column: &[Reading]) {
    for eight in column.chunks(8) {
        let bits =
            eight.iter().enumerate().fold(0_u8, |bits, (n, reading)| bits | (u8::from(reading.is_ok()) << n));
        out.push(bits);
    }
}

/// The value in steps of its quantum; `None` when the column must stay bit-exact.
fn to_integer(value: f64, quantum: (u32, u32)) -> Option<i64> {
    let steps = match quantum {
        (0, _) if value.fract() == 0.0 && value.is_sign_positive() => value,
        (0, _) => return None,
        (numerator, denominator) => (value * f64::from(denominator) / f64::from(numerator)).round(),
    };
    #[expect(clippy::cast_possible_truncation, reason = "bounded by the comparison, NaN fails it")]
    (steps.abs() < EXACT_MAX).then_some(steps as i64)
}

/// The double nearest to `steps` quanta: one rounding, so that 92 hundredths is 0.92.
fn from_integer(steps: i64, quantum: (u32, u32)) -> f64 {
    match quantum {
        (0, _) => steps as f64,
        (numerator, denominator) => steps as f64 * f64::from(numerator) / f64::from(denominator),
    }
}
