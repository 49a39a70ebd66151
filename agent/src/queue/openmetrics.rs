//! Figures out of the text format of Prometheus, or of OpenMetrics.
//!
//! Takes a body and a selector (`jobs_waiting{queue="x"}`); gives the values of the samples that match.
//! A name that is declared but has no sample yet is told apart from one that is not there. Pure; reads
//! what it understands and passes over the rest, as scrapers do.

use std::collections::BTreeMap;

/// A metric's name and the labels that a sample has to have, among others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    name: String,
    labels: BTreeMap<String, String>,
}

/// What a body has for a selector.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Values of the samples that match, one at least.
    Values(Vec<f64>),
    /// The metric is there, no sample matches.
    Nothing,
    /// The metric is not there.
    Unknown,
}

impl Selector {
    /// Reads a selector.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (sample, rest) = name_and_labels(text).ok_or_else(|| format!("`{text}` is no selector"))?;
        if rest.trim().is_empty() {
            Ok(sample)
        } else {
            Err(format!("`{}` follows the selector", rest.trim()))
        }
    }

    /// Looks for it in a body.
    #[must_use]
    pub fn find(&self, body: &str) -> Found {
        let mut values = Vec::new();
        let mut known = false;
        for line in body.lines().map(str::trim) {
            if let Some(comment) = line.strip_prefix('#') {
                known |= comment.split_whitespace().nth(1).is_some_and(|name| self.is_declared_as(name));
                continue;
            }
            let Some((sample, rest)) = name_and_labels(line) else { continue };
            if sample.name != self.name {
                continue;
            }
            known = true;
            let value = rest.split_whitespace().next().and_then(|value| value.parse::<f64>().ok());
            let fits = self.labels.iter().all(|(name, value)| sample.labels.get(name) == Some(value));
            values.extend(value.filter(|_| fits));
        }
        match (values.is_empty(), known) {
            (false, _) => Found::Values(values),
            (true, true) => Found::Nothing,
            (true, false) => Found::Unknown,
        }
    }

    /// OpenMetrics declares a counter without its `_total`.
    fn is_declared_as(&self, name: &str) -> bool {
        name == self.name || self.name.strip_suffix("_total") == Some(name)
    }
}

/// `name{label="value",...} rest`.
fn name_and_labels(text: &str) -> Option<(Selector, &str)> {
    let text = text.trim_start();
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let mut sample = Selector { name: name.to_owned(), labels: BTreeMap::new() };
    let Some(mut rest) = rest.trim_start().strip_prefix('{') else { return Some((sample, rest)) };
    loop {
        rest = rest.trim_start();
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((sample, rest));
        }
        let (label, after) = rest.split_once('=')?;
        let (value, after) = quoted(after.trim_start())?;
        sample.labels.insert(label.trim().to_owned(), value);
        rest = after.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest);
        if rest.is_empty() {
            return None;
        }
    }
}

/// A text in double quotes, with `\"`, `\\` and `\n` in it, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut chars = text.strip_prefix('"')?.chars();
    let mut value = String::new();
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' => match chars.next()? {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BODY: &str = r#"# HELP jobs_waiting Jobs.
# TYPE jobs_waiting gauge
jobs_waiting{queue="diarization",host="a"} 3
jobs_waiting{queue="diarization",host="b"} 4 1700000000000
jobs_waiting{queue="other, \"odd\" \\ {x}"} 1e3
# TYPE jobs_failed counter
# TYPE jobs_done counter
jobs_done_total 12 # {trace_id="x"} 1
plain 0.5
nan NaN
# EOF
"#;

    fn find(selector: &str) -> Found {
        Selector::parse(selector).unwrap().find(BODY)
    }

    #[test]
    fn samples_are_found_by_name_and_labels() {
        assert_eq!(find("jobs_waiting{queue=\"diarization\"}"), Found::Values(vec![3.0, 4.0]));
        assert_eq!(find("jobs_waiting{host=\"b\", queue=\"diarization\"}"), Found::Values(vec![4.0]));
        assert_eq!(find(r#"jobs_waiting{queue="other, \"odd\" \\ {x}"}"#), Found::Values(vec![1000.0]));
        assert_eq!(find("jobs_done_total"), Found::Values(vec![12.0]));
        assert_eq!(find(" plain "), Found::Values(vec![0.5]));
        assert!(matches!(find("nan"), Found::Values(values) if values[0].is_nan()));
    }

    #[test]
    fn a_counter_that_has_not_counted_yet_is_not_one_that_is_not_there() {
        assert_eq!(find("jobs_failed_total{queue=\"x\"}"), Found::Nothing);
        assert_eq!(find("jobs_waiting{queue=\"x\"}"), Found::Nothing);
        assert_eq!(find("jobs_wating"), Found::Unknown);
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for bad in ["", "/queue/waiting", "a{b}", "a{b=c}", "a{b=\"c\"", "a{b=\"c\"} 1", "9a"] {
            assert!(Selector::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_body_and_no_selector_makes_the_reader_panic(
            body in "(\\PC|[{}=\",\\\\# \n]|jobs){0,200}", selector in "(\\PC|[{}=\",\\\\]){0,40}"
        ) {
            let _ = Selector::parse(&selector);
            let _ = Selector::parse("jobs{a=\"b\"}").unwrap().find(&body);
        }

        #[test]
        fn any_label_value_is_found_as_it_was_written(value in "\\PC{0,30}", number in 0_u32..1000) {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
            let selector = Selector::parse(&format!("jobs{{a=\"{escaped}\"}}")).unwrap();
            let body = format!("jobs{{b=\"c\",a=\"{escaped}\",}} {number}\n");
            prop_assert_eq!(selector.find(&body), Found::Values(vec![f64::from(number)]));
        }
    }
}
