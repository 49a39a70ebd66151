//! Numbers and texts as a person reads them, in a language. Pure.

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::texts::{Lang, Text};

use crate::view::node::Unit;
use crate::view::state::State;

const GIB: f64 = 1_073_741_824.0;

/// Says things in a language.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    /// The language.
    pub lang: Lang,
}

impl Words {
    /// A text.
    #[must_use]
    pub fn t(self, text: Text) -> &'static str {
        text.in_lang(self.lang)
    }

    /// A text with something at its `{}`.
    #[must_use]
    pub fn fill(self, text: Text, value: impl std::fmt::Display) -> String {
        self.t(text).replacen("{}", &value.to_string(), 1)
    }

    /// The other language.
    #[must_use]
    pub fn other(self) -> Lang {
        match self.lang {
            Lang::Ja => Lang::En,
            Lang::En => Lang::Ja,
        }
    }

    /// A text that a template holds.
    #[must_use]
    pub fn title(self, text: &Text) -> &'static str {
        self.t(*text)
    }

    /// The word of a state.
    #[must_use]
    pub fn state(self, state: &State) -> &'static str {
        state.label(self.lang)
    }

    /// A value in words, or that there is none.
    fn known(self, value: Option<f64>, say: impl FnOnce(f64) -> String) -> String {
        value.map_or_else(|| self.t(Text::NoData).to_owned(), say)
    }

    /// A part of one as `65%`.
    #[must_use]
    pub fn percent(self, ratio: &Option<f64>) -> String {
        self.known(*ratio, |ratio| format!("{:.0}%", ratio * 100.0))
    }

    /// A small part of one: `0.12%`, `3.4%`, `12%`.
    #[must_use]
    pub fn rate(self, ratio: &Option<f64>) -> String {
        self.known(*ratio, rate)
    }

    /// A time that is waited for: `245ms`, `1.25秒`.
    #[must_use]
    pub fn latency(self, seconds: &Option<f64>) -> String {
        self.known(*seconds, |seconds| self.latency_of(seconds))
    }

    fn latency_of(self, seconds: f64) -> String {
        if seconds < 0.9995 {
            return format!("{:.0}ms", seconds * 1_000.0);
        }
        // Hundredths are as much as anybody reads of a second.
        let said = short((seconds * 100.0).round() / 100.0);
        format!("{said}{}", if self.lang == Lang::Ja { "秒" } else { " s" })
    }

    /// How long something takes: `45秒`, `2.5分`, `1.2時間`.
    #[must_use]
    pub fn duration(self, seconds: &Option<f64>) -> String {
        self.known(*seconds, |seconds| {
            let (value, ja, en) = match seconds {
                seconds if seconds < 59.5 => (format!("{seconds:.0}"), "秒", " s"),
                seconds if seconds < 3_570.0 => (format!("{:.1}", seconds / 60.0), "分", " min"),
                seconds => (format!("{:.1}", seconds / 3_600.0), "時間", " h"),
            };
            let unit = if self.lang == Lang::Ja { ja } else { en };
            format!("{value}{unit}")
        })
    }

    /// A count.
    #[must_use]
    pub fn count(self, value: &Option<f64>) -> String {
        self.known(*value, |value| format!("{value:.0}"))
    }

    /// A count of jobs: `3 タスク`.
    #[must_use]
    pub fn tasks(self, value: &Option<f64>) -> String {
        self.known(*value, |value| format!("{value:.0} {}", self.t(Text::Tasks)))
    }

    /// A value with a unit that is the same in every language.
    #[must_use]
    pub fn unit(self, value: &Option<f64>, unit: &str) -> String {
        self.known(*value, |value| format!("{value:.0} {unit}"))
    }

    /// Memory in use.
    #[must_use]
    pub fn memory(self, used: &Option<f64>, total: &Option<f64>) -> String {
        let both = used.zip(*total).filter(|(_, total)| *total > 0.0);
        both.map_or_else(
            || self.t(Text::NoData).to_owned(),
            |(used, total)| {
                format!("{:.1} / {:.1} GiB ({:.0}%)", used / GIB, total / GIB, used / total * 100.0)
            },
        )
    }

    /// The raw number as a data attribute; nothing for what is not known.
    #[must_use]
    pub fn raw(self, value: &Option<f64>) -> String {
        let known = value.filter(|value| value.is_finite());
        known.map(|value| format!(" data-value=\"{value}\"")).unwrap_or_default()
    }

    /// Milliseconds since 1970 as what `datetime` takes.
    #[must_use]
    pub fn instant(self, at_ms: &i64) -> String {
        UnixMicros(u64::try_from(*at_ms).unwrap_or(0).saturating_mul(1_000)).to_string()
    }

    /// A value on an axis.
    #[must_use]
    pub fn axis(self, value: f64, unit: Unit) -> String {
        match unit {
            _ if value == 0.0 => String::from("0"),
            Unit::Ratio if value >= 0.1 => format!("{:.0}%", value * 100.0),
            Unit::Ratio => rate(value),
            Unit::Bytes => format!("{} GiB", short(value / GIB)),
            Unit::Watts => format!("{value:.0} W"),
            Unit::Celsius => format!("{value:.0} °C"),
            Unit::Seconds => self.latency_of(value),
        }
    }
}

fn rate(ratio: f64) -> String {
    let percent = ratio * 100.0;
    match percent {
        percent if percent < 0.995 => format!("{percent:.2}%"),
        percent if percent < 9.95 => format!("{percent:.1}%"),
        percent => format!("{percent:.0}%"),
    }
}

/// A number in at most four digits, without zeros that say nothing.
#[must_use]
pub fn short(value: f64) -> String {
    let digits: usize = match value.abs() {
        size if size >= 1_000.0 => 0,
        size if size >= 100.0 => 1,
        size if size >= 10.0 => 2,
        size if size >= 1.0 => 3,
        size if size >= 0.1 => 4,
        _ => 6,
    };
    let text = format!("{value:.digits$}");
    let trimmed = if digits == 0 { text.as_str() } else { text.trim_end_matches('0').trim_end_matches('.') };
    if trimmed == "-0" { String::from("0") } else { trimmed.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JA: Words = Words { lang: Lang::Ja };
    const EN: Words = Words { lang: Lang::En };

    #[test]
    fn numbers_read_as_the_requirements_draw_them() {
        assert_eq!(JA.latency(&Some(0.245)), "245ms");
        assert_eq!(JA.latency(&Some(0.9999)), "1秒");
        assert_eq!(EN.latency(&Some(3.1)), "3.1 s");
        assert_eq!(JA.rate(&Some(0.0012)), "0.12%");
        assert_eq!(JA.rate(&Some(0.05)), "5.0%");
        assert_eq!(JA.duration(&Some(150.0)), "2.5分");
        assert_eq!(JA.duration(&Some(59.9)), "1.0分");
        assert_eq!(EN.duration(&Some(4_320.0)), "1.2 h");
        assert_eq!(JA.tasks(&Some(3.0)), "3 タスク");
        assert_eq!(JA.percent(&Some(0.45)), "45%");
    }

    #[test]
    fn what_is_not_known_is_never_a_number() {
        for said in [JA.percent(&None), JA.latency(&None), JA.duration(&None), JA.memory(&Some(1.0), &None)] {
            assert_eq!(said, "データなし");
        }
        assert_eq!(JA.raw(&None), "");
        assert_eq!(JA.raw(&Some(f64::NAN)), "");
        assert_eq!(JA.raw(&Some(0.65)), " data-value=\"0.65\"");
    }

    #[test]
    fn a_number_says_no_more_digits_than_it_has() {
        for (value, said) in
            [(0.245, "0.245"), (1_234.5, "1234"), (100.0, "100"), (0.0, "0"), (-0.0, "0"), (12.5, "12.5")]
        {
            assert_eq!(short(value), said);
        }
    }
}
