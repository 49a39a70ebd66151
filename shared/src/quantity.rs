//! Quantities that people write: durations (`100ms`, `1h30m`) and sizes (`64MiB`), always with a unit.
//!
//! A bare number is refused: "3" once meant 3 ms to an exporter whose users meant 3 s.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Parses a Prometheus duration: units `ms s m h d w y`, largest first, each once; `0` needs no unit.
///
/// # Errors
/// A fragment that says what is wrong and what to write.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, u64); 7] = [
        ("y", 31_536_000_000),
        ("w", 604_800_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ];
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut millis: u64 = 0;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let (number, tail) = split_digits(rest);
        let (unit, tail) = split_letters(tail);
        let number: u64 = number.parse().map_err(|_| not_a_duration(text))?;
        if unit.is_empty() && !tail.is_empty() {
            return Err(not_a_duration(text));
        }
        if unit.is_empty() {
            return Err(format!("duration `{text}` has no unit; write `{text}s` or `{text}ms`"));
        }
        let position =
            UNITS.iter().position(|(name, _)| *name == unit).ok_or_else(|| not_a_duration(text))?;
        if position < next_unit {
            return Err(format!("duration `{text}` must have its units once each, largest first"));
        }
        next_unit = position + 1;
        let factor = UNITS.get(position).map_or(0, |(_, millis)| *millis);
        millis = number
            .checked_mul(factor)
            .and_then(|part| millis.checked_add(part))
            .ok_or_else(|| format!("duration `{text}` is too long"))?;
        rest = tail;
    }
    if text.is_empty() { Err(not_a_duration(text)) } else { Ok(Duration::from_millis(millis)) }
}

/// Parses a size in bytes: `512B`, `64KiB`, `16MiB`, `1GiB`.
///
/// # Errors
/// A fragment that says what is wrong and what to write.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split_digits(text);
    let number: u64 =
        number.parse().map_err(|_| format!("`{text}` is not a size; write for example `64MiB`"))?;
    let factor: u64 = match unit.trim() {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "" => return Err(format!("size `{text}` has no unit; write for example `{text}MiB`")),
        other => return Err(format!("`{other}` is not a unit of size; B, KiB, MiB, GiB and TiB are")),
    };
    number.checked_mul(factor).ok_or_else(|| format!("size `{text}` is too large"))
}

fn not_a_duration(text: &str) -> String {
    format!("`{text}` is not a duration; write for example `100ms`, `5s` or `1h30m`")
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn split_letters(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len()))
}

/// A duration in a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    /// A span of whole milliseconds.
    #[must_use]
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// A span of whole seconds.
    #[must_use]
    pub const fn secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }
}

impl fmt::Display for Span {
    /// The shortest form that [`parse_duration`] reads back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return f.write_str("0s");
        }
        for (unit, factor) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
            if millis >= factor {
                write!(f, "{}{unit}", millis / factor)?;
                millis %= factor;
            }
        }
        Ok(())
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(Text {
                expected: "a duration with a unit, such as \"5s\"",
                parse: parse_duration,
            })
            .map(Self)
    }
}

/// A size in a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}B", self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(Text { expected: "a size with a unit, such as \"64MiB\"", parse: parse_bytes })
            .map(Self)
    }
}

struct Text<T> {
    expected: &'static str,
    parse: fn(&str) -> Result<T, String>,
}

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        (self.parse)(&number.to_string()).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_of_prometheus_are_read() {
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(parse_duration("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        for bad in
            ["", "5", "s", "5x", "5m1h", "5m5m", "-1s", "1.5h", "99999999999999999999s", "9999999999999999y"]
        {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_bare_number_is_refused_with_what_to_write() {
        assert!(parse_duration("3").unwrap_err().contains("`3s`"));
        for odd in ["5 minutes", "1.5m"] {
            assert!(parse_duration(odd).unwrap_err().contains("`1h30m`"), "{odd}");
        }
        assert!(parse_bytes("64").unwrap_err().contains("`64MiB`"));
    }

    proptest! {
        #[test]
        fn a_span_is_read_back_as_it_was_written(millis in 0_u64..10_000_000_000) {
            let span = Span::millis(millis);
            prop_assert_eq!(parse_duration(&span.to_string()), Ok(span.0));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,40}") {
            let _ = parse_duration(&text);
            let _ = parse_bytes(&text);
        }
    }
}
