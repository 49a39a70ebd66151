//! Numbers as Go prints them, and the functions of Prometheus that make them readable.

/// Go's `%v` of a float64: the shortest text that reads back, an exponent from 1e21 and below 1e-4.
pub(super) fn plain(value: f64) -> String {
    if let Some(text) = special(value) {
        return text;
    }
    let scientific = format!("{value:e}");
    match exponent_of(&scientific) {
        -4..=20 => value.to_string(),
        _ => go_exponent(&scientific),
    }
}

/// Go's `%.<digits>g`: so many significant digits, no zeros at the end.
pub(super) fn general(value: f64, digits: usize) -> String {
    if let Some(text) = special(value) {
        return text;
    }
    let digits = digits.max(1);
    let scientific = format!("{value:.*e}", digits - 1);
    let exponent = exponent_of(&scientific);
    let wide = i32::try_from(digits).unwrap_or(i32::MAX);
    if (-4..wide).contains(&exponent) {
        let decimals = usize::try_from(wide - 1 - exponent).unwrap_or(0);
        trimmed(&format!("{value:.decimals$}"))
    } else {
        let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        go_exponent(&format!("{}e{exponent}", trimmed(mantissa)))
    }
}

/// Go's `%.<digits>f`.
pub(super) fn fixed(value: f64, digits: usize) -> String {
    special(value).unwrap_or_else(|| format!("{value:.digits$}"))
}

/// Go's `%.<digits>e`.
pub(super) fn exponential(value: f64, digits: usize) -> String {
    special(value).unwrap_or_else(|| go_exponent(&format!("{value:.digits$e}")))
}

/// `humanize`: 1234567 is 1.235M.
pub(super) fn humanize(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return general(value, 4);
    }
    if value.abs() < 1.0 {
        return small(value);
    }
    large(value, 1_000.0, &["k", "M", "G", "T", "P", "E", "Z", "Y"])
}

/// `humanize1024`: 1048576 is 1Mi.
pub(super) fn humanize_1024(value: f64) -> String {
    if value.abs() <= 1.0 || !value.is_finite() {
        return general(value, 4);
    }
    large(value, 1_024.0, &["ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"])
}

/// `humanizePercentage`: 0.062 is 6.2%.
pub(super) fn humanize_percentage(value: f64) -> String {
    format!("{}%", general(value * 100.0, 4))
}

/// `humanizeDuration`: 3725 is 1h 2m 5s.
#[expect(clippy::cast_possible_truncation, reason = "Go truncates here too; Rust saturates")]
pub(super) fn humanize_duration(value: f64) -> String {
    if !value.is_finite() {
        return general(value, 4);
    }
    if value == 0.0 {
        return String::from("0s");
    }
    if value.abs() < 1.0 {
        return small(value) + "s";
    }
    let sign = if value < 0.0 { "-" } else { "" };
    let whole = value.abs() as i64;
    let (days, hours, minutes, seconds) = (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60, whole % 60);
    if days != 0 {
        format!("{sign}{days}d {hours}h {minutes}m {seconds}s")
    } else if hours != 0 {
        format!("{sign}{hours}h {minutes}m {seconds}s")
    } else if minutes != 0 {
        format!("{sign}{minutes}m {seconds}s")
    } else {
        format!("{sign}{}s", general(value.abs(), 4))
    }
}

fn large(mut value: f64, step: f64, prefixes: &[&'static str]) -> String {
    let mut prefix = "";
    for next in prefixes {
        if value.abs() < step {
            break;
        }
        prefix = next;
        value /= step;
    }
    general(value, 4) + prefix
}

fn small(mut value: f64) -> String {
    let mut prefix = "";
    for next in ["m", "u", "n", "p", "f", "a", "z", "y"] {
        if value.abs() >= 1.0 {
            break;
        }
        prefix = next;
        value *= 1_000.0;
    }
    general(value, 4) + prefix
}

fn special(value: f64) -> Option<String> {
    let text = if value.is_nan() {
        "NaN"
    } else if value == f64::INFINITY {
        "+Inf"
    } else if value == f64::NEG_INFINITY {
        "-Inf"
    } else {
        return None;
    };
    Some(text.to_owned())
}

fn exponent_of(scientific: &str) -> i32 {
    scientific.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0)
}

/// Rust's `1e-7` to Go's `1e-07`.
fn go_exponent(scientific: &str) -> String {
    let (mantissa, _) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent = exponent_of(scientific);
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

fn trimmed(decimal: &str) -> String {
    if decimal.contains('.') {
        decimal.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        decimal.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_numbers_look_as_in_go() {
        for (value, text) in [
            (51.0, "51"),
            (3100.0, "3100"),
            (0.97, "0.97"),
            (1e21, "1e+21"),
            (1e20, "100000000000000000000"),
            (1.5e-7, "1.5e-07"),
            (0.0001, "0.0001"),
            (-0.00001, "-1e-05"),
            (-0.0, "-0"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(plain(value), text);
        }
    }

    #[test]
    fn humanized_numbers_look_as_in_prometheus() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (1234567.0, "1.235M"),
            (999.94, "999.9"),
            (12345.0, "12.35k"),
            (0.12, "120m"),
            (-0.00002, "-20u"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(humanize(value), text, "{value}");
        }
        for (value, text) in [(0.5, "0.5"), (1048576.0, "1Mi"), (1024.0, "1ki"), (1.2e30, "9.926e+05Yi")] {
            assert_eq!(humanize_1024(value), text, "{value}");
        }
        for (value, text) in [(0.062, "6.2%"), (0.97, "97%"), (0.999999, "100%"), (123.456, "1.235e+04%")] {
            assert_eq!(humanize_percentage(value), text, "{value}");
        }
        for (value, text) in [
            (0.0, "0s"),
            (0.1, "100ms"),
            (1.5, "1.5s"),
            (60.0, "1m 0s"),
            (3725.0, "1h 2m 5s"),
            (-90061.0, "-1d 1h 1m 1s"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(humanize_duration(value), text, "{value}");
        }
    }

    proptest! {
        #[test]
        fn a_plain_number_reads_back_as_itself(value in proptest::num::f64::NORMAL | proptest::num::f64::ZERO) {
            prop_assert_eq!(plain(value).parse::<f64>().unwrap(), value);
        }

        #[test]
        fn four_digits_are_near_the_number(value in -1e12_f64..1e12) {
            let read: f64 = general(value, 4).parse().unwrap();
            prop_assert!((read - value).abs() <= value.abs() * 0.00051);
        }
    }
}
