//! Values of a document as cells and words: a number, or the reason that `reasons` gives for its absence.
//! Pure; whatever a document holds, there is some text.

use serde_json::Value;

use super::output::Cell;

/// What stands for a reason that a document does not give.
const UNKNOWN: &str = "unknown";

/// One object of a document, with its place.
#[derive(Clone, Debug)]
pub(super) struct Place<'a> {
    document: &'a Value,
    pointer: String,
}

impl<'a> Place<'a> {
    /// The document itself.
    pub(super) fn root(document: &'a Value) -> Self {
        Self { document, pointer: String::new() }
    }

    /// What is below a key.
    pub(super) fn at(&self, key: &str) -> Self {
        Self { document: self.document, pointer: format!("{}/{key}", self.pointer) }
    }

    /// The items of a list below a key.
    pub(super) fn items(&self, key: &str) -> Vec<Self> {
        let list = self.at(key);
        let count = list.value().as_array().map_or(0, Vec::len);
        (0..count).map(|at| list.at(&at.to_string())).collect()
    }

    /// The value itself.
    pub(super) fn value(&self) -> &'a Value {
        self.document.pointer(&self.pointer).unwrap_or(&Value::Null)
    }

    /// The value below a key.
    pub(super) fn get(&self, key: &str) -> &'a Value {
        self.value().get(key).unwrap_or(&Value::Null)
    }

    /// The text below a key, when there is one.
    pub(super) fn text(&self, key: &str) -> Option<&'a str> {
        self.get(key).as_str().filter(|text| !text.is_empty())
    }

    /// The number below a key.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn number(&self, key: &str) -> Result<f64, String> {
        self.get(key).as_f64().ok_or_else(|| self.reason(key).unwrap_or(UNKNOWN).to_owned())
    }

    /// Why there is no value below a key.
    pub(super) fn reason(&self, key: &str) -> Option<&'a str> {
        self.document.get("reasons")?.get(format!("{}/{key}", self.pointer))?.as_str()
    }

    /// A number as a cell.
    pub(super) fn cell(&self, key: &str, say: impl Fn(f64) -> String) -> Cell {
        match self.get(key).as_f64() {
            Some(number) => Cell::new(self.get(key).clone(), say(number)),
            None => self.absent(key),
        }
    }

    /// Any value as a cell of words.
    pub(super) fn word(&self, key: &str) -> Cell {
        match self.get(key) {
            Value::Null => self.absent(key),
            Value::String(text) => Cell::text(text),
            other => Cell::new(other.clone(), other.to_string()),
        }
    }

    fn absent(&self, key: &str) -> Cell {
        self.reason(key).map_or_else(Cell::none, Cell::missing)
    }
}

/// `42%`.
pub(super) fn percent(ratio: f64) -> String {
    format!("{:.0}%", ratio * 100.0)
}

/// `3.1`, in GiB.
pub(super) fn gib(bytes: f64) -> String {
    const GIB: f64 = 1_073_741_824.0;
    format!("{:.1}", bytes / GIB)
}

/// `3.1/8.0 GiB`.
pub(super) fn memory(used: f64, total: &Result<f64, String>) -> String {
    let total = total.as_ref().map_or_else(|_| "-".to_owned(), |total| gib(*total));
    format!("{}/{total} GiB", gib(used))
}

/// `61 W`.
pub(super) fn watts(watts: f64) -> String {
    format!("{watts:.0} W")
}

/// `55°C`.
pub(super) fn celsius(celsius: f64) -> String {
    format!("{celsius:.0}°C")
}

/// `12`.
pub(super) fn count(number: f64) -> String {
    format!("{number:.0}")
}

/// `0.5`.
pub(super) fn tenths(number: f64) -> String {
    format!("{number:.1}")
}

/// `12ms`, `2.5s`: a wait or a probe, from milliseconds.
pub(super) fn wait(ms: f64) -> String {
    if ms < 1_000.0 { format!("{ms:.0}ms") } else { span(ms / 1_000.0) }
}

/// `0.4s`, `41s`, `2m11s`, `1h05m`, `3d04h`.
pub(super) fn span(seconds: f64) -> String {
    let [minute, hour, day] = [60.0, 3_600.0, 86_400.0];
    match seconds {
        s if !s.is_finite() || s < 0.0 => "-".to_owned(),
        s if s < 10.0 => format!("{s:.1}s"),
        s if s < minute => format!("{:.0}s", s.floor()),
        s if s < hour => format!("{:.0}m{:02.0}s", (s / minute).floor(), (s % minute).floor()),
        s if s < day => format!("{:.0}h{:02.0}m", (s / hour).floor(), (s % hour / minute).floor()),
        s => format!("{:.0}d{:02.0}h", (s / day).floor(), (s % day / hour).floor()),
    }
}

/// Eight heights for ratios of 0 to 1, a blank where there is none.
pub(super) fn sparkline(ratios: &[Option<f64>]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let bar = |ratio: f64| {
        let steps = [0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875];
        let at = steps.iter().filter(|step| ratio >= **step).count();
        BARS.get(at).copied().unwrap_or(' ')
    };
    ratios.iter().map(|ratio| ratio.map_or(' ', bar)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_value_that_is_missing_says_why_and_is_never_zero() {
        let document =
            json!({ "gpus": [{ "power_watts": null }], "reasons": { "/gpus/0/power_watts": "lost" } });
        let gpu = &Place::root(&document).items("gpus")[0];
        assert_eq!(gpu.number("power_watts"), Err("lost".to_owned()));
        assert_eq!(gpu.cell("power_watts", watts).reason(), Some("lost"));
        assert_eq!(gpu.number("other"), Err("unknown".to_owned()));
    }

    #[test]
    fn spans_are_short_and_keep_their_order_of_units() {
        let said = [0.42, 41.9, 131.0, 3_900.0, 273_600.0, f64::NAN].map(span);
        assert_eq!(said, ["0.4s", "41s", "2m11s", "1h05m", "3d04h", "-"]);
    }

    #[test]
    fn a_bar_is_as_high_as_its_ratio() {
        assert_eq!(sparkline(&[Some(0.0), Some(0.5), None, Some(1.0)]), "▁▅ █");
    }

    proptest! {
        #[test]
        fn any_number_gives_some_text(number in proptest::num::f64::ANY) {
            prop_assert!(!span(number).is_empty() && !sparkline(&[Some(number)]).is_empty());
        }
    }
}
