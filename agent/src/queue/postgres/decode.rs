//! PostgreSQL's bytes where the client has no type of its own for them: numbers, spans and times as the
//! server sends them, and the heads of its messages.
//!
//! Takes bytes; gives numbers, or nothing where they are none. A message that claims to be larger than
//! an answer may be is refused at its head: the client would ask for that much memory at once. Pure.

use std::io;

use crate::queue::bounded::{ANSWER_BYTES_MAX, too_large};

/// Bytes of a message's head: what it is, and how long.
const HEAD_BYTES: usize = 5;

/// A `numeric`. Digits to the base of 10,000: how many, the power of the first, the sign, how many to
/// show, the digits.
pub(super) fn numeric(raw: &[u8]) -> Option<f64> {
    let word = |two: &[u8]| two.iter().fold(0_u16, |word, byte| word << 8 | u16::from(*byte));
    let mut words = raw.chunks_exact(2).map(word);
    let count = words.next()?;
    let weight = words.next()?.cast_signed();
    let sign = words.next()?;
    words.next()?;
    let factor = match sign {
        0x0000 => 1.0,
        0x4000 => -1.0,
        0xD000 => return Some(f64::INFINITY),
        0xF000 => return Some(f64::NEG_INFINITY),
        _ => return Some(f64::NAN),
    };
    let digits: Vec<u16> = words.collect();
    if digits.len() != usize::from(count) {
        return None;
    }
    let mut power = i32::from(weight);
    let mut sum = 0.0;
    for digit in digits {
        // Divided, not multiplied by a fraction: 0.1 has to be read as 0.1.
        let unit = 10_000_f64.powi(power.abs());
        sum += if power < 0 { f64::from(digit) / unit } else { f64::from(digit) * unit };
        power -= 1;
    }
    Some(factor * sum)
}

/// An `interval` in seconds: microseconds, days, months (of thirty days).
#[expect(clippy::cast_precision_loss, reason = "an age is far below 2^53 microseconds")]
pub(super) fn interval_seconds(raw: &[u8]) -> Option<f64> {
    let micros = i64::from_be_bytes(*raw.first_chunk()?);
    let days = i32::from_be_bytes(*raw.get(8..)?.first_chunk()?);
    let months = i32::from_be_bytes(*raw.get(12..)?.first_chunk()?);
    Some(micros as f64 / 1e6 + f64::from(days) * 86_400.0 + f64::from(months) * 30.0 * 86_400.0)
}

/// A `timestamptz` in seconds since 1970: microseconds since 2000.
#[expect(clippy::cast_precision_loss, reason = "microseconds of this century fit 53 bits")]
pub(super) fn unix_seconds(raw: &[u8]) -> Option<f64> {
    match i64::from_be_bytes(*raw.first_chunk()?) {
        i64::MAX | i64::MIN => Some(f64::INFINITY),
        micros => Some(micros as f64 / 1e6 + 946_684_800.0),
    }
}

/// Follows the messages of a server.
#[derive(Default)]
pub(super) struct Heads {
    head: [u8; HEAD_BYTES],
    /// Bytes of the head that are here.
    have: usize,
    /// Bytes of the body that are still to come.
    body: usize,
}

impl Heads {
    /// Takes what came.
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while let Some((first, rest)) = bytes.split_first() {
            if self.body > 0 {
                let passed = self.body.min(bytes.len());
                self.body -= passed;
                bytes = bytes.get(passed..).unwrap_or_default();
                continue;
            }
            if let Some(place) = self.head.get_mut(self.have) {
                *place = *first;
                self.have += 1;
            }
            bytes = rest;
            if self.have == HEAD_BYTES {
                self.have = 0;
                let [_, length @ ..] = self.head;
                // The length counts itself, but not the byte before it.
                self.body =
                    usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX).saturating_sub(4);
                if self.body > ANSWER_BYTES_MAX {
                    return Err(too_large());
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(words: &[u16]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    #[test]
    fn numerics_are_read() {
        assert_eq!(numeric(&words(&[0, 0, 0, 0])), Some(0.0));
        assert_eq!(numeric(&words(&[2, 1, 0x4000, 0, 12, 3_456])), Some(-123_456.0));
        assert_eq!(numeric(&words(&[1, 0xFFFF, 0, 1, 1_000])), Some(0.1));
        assert_eq!(numeric(&words(&[1, 1, 0, 0, 5])), Some(50_000.0));
        assert!(numeric(&words(&[0, 0, 0xC000, 0])).is_some_and(f64::is_nan));
        assert_eq!(numeric(&words(&[0, 0, 0xD000, 0])), Some(f64::INFINITY));
        assert_eq!(numeric(&words(&[2, 0, 0, 0, 5])), None);
    }

    #[test]
    fn spans_and_times_are_read_in_seconds() {
        let mut span = 1_500_000_i64.to_be_bytes().to_vec();
        span.extend(2_i32.to_be_bytes());
        span.extend(1_i32.to_be_bytes());
        assert_eq!(interval_seconds(&span), Some(1.5 + 32.0 * 86_400.0));
        assert_eq!(unix_seconds(&0_i64.to_be_bytes()), Some(946_684_800.0));
        assert_eq!(unix_seconds(&i64::MAX.to_be_bytes()), Some(f64::INFINITY));
    }

    #[test]
    fn a_message_that_claims_gigabytes_is_refused_at_its_head() {
        let mut heads = Heads::default();
        assert!(heads.take(b"E\xff\xff\xff").is_ok());
        assert!(heads.take(b"\xff").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_readers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = (numeric(&bytes), interval_seconds(&bytes), unix_seconds(&bytes));
            let _ = Heads::default().take(&bytes);
        }

        #[test]
        fn messages_are_followed_however_they_are_cut(
            bodies in proptest::collection::vec(0_usize..40, 0..20), cut in 1_usize..30
        ) {
            let mut bytes = Vec::new();
            for body in &bodies {
                bytes.push(b'D');
                bytes.extend(u32::try_from(body + 4).unwrap().to_be_bytes());
                // A body is not taken for a head, whatever is in it.
                bytes.extend(std::iter::repeat_n(0xff, *body));
            }
            let mut heads = Heads::default();
            for part in bytes.chunks(cut) {
                prop_assert!(heads.take(part).is_ok());
            }
            prop_assert_eq!((heads.have, heads.body), (0, 0));
        }
    }
}
