//! Go's `printf` as far as templates of rules use it. A verb that does not fit its argument prints
//! Go's own complaint, `%!d(float64=51)`, and never fails.

use super::number;
use super::run::Datum;

/// Characters that width and precision may ask for.
const WIDTH_MAX: usize = 256;

/// One `%...` of a format.
#[derive(Default)]
struct Verb {
    left: bool,
    plus: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
    verb: char,
}

/// The text of a format and its arguments.
pub(super) fn printf(format: &str, args: &[Datum]) -> String {
    let mut out = String::with_capacity(format.len());
    let mut args = args.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match verb(&mut chars) {
            Some(Verb { verb: '%', .. }) => out.push('%'),
            Some(verb) => match args.next() {
                Some(arg) => out.push_str(&padded(&verb, render(&verb, arg))),
                None => out.push_str(&format!("%!{}(MISSING)", verb.verb)),
            },
            None => out.push_str("%!(NOVERB)"),
        }
    }
    let extra: Vec<String> = args.map(|arg| format!("{}={}", arg.kind(), arg.text())).collect();
    if !extra.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

fn verb(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Verb> {
    let mut verb = Verb::default();
    while let Some(flag) = chars.next_if(|c| "-+0# ".contains(*c)) {
        match flag {
            '-' => verb.left = true,
            '+' => verb.plus = true,
            '0' => verb.zero = true,
            _ => {}
        }
    }
    verb.width = digits(chars);
    if chars.next_if_eq(&'.').is_some() {
        verb.precision = Some(digits(chars));
    }
    verb.verb = chars.next()?;
    Some(verb)
}

fn digits(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> usize {
    let mut number = 0_usize;
    while let Some(digit) = chars.next_if(char::is_ascii_digit).and_then(|c| c.to_digit(10)) {
        number = (number * 10 + usize::try_from(digit).unwrap_or(0)).min(WIDTH_MAX);
    }
    number
}

fn render(verb: &Verb, arg: &Datum) -> String {
    let sign = |value: f64, text: String| {
        if verb.plus && value >= 0.0 && !text.starts_with('+') { format!("+{text}") } else { text }
    };
    match (verb.verb, arg) {
        ('v', Datum::Float(value)) => sign(*value, number::plain(*value)),
        ('v' | 's', Datum::Text(text)) => cut(text, verb.precision),
        ('v', other) => other.text(),
        ('q', Datum::Text(text)) => format!("{text:?}"),
        ('f' | 'F', Datum::Float(value)) => sign(*value, number::fixed(*value, verb.precision.unwrap_or(6))),
        ('e', Datum::Float(value)) => sign(*value, number::exponential(*value, verb.precision.unwrap_or(6))),
        ('g', Datum::Float(value)) => sign(
            *value,
            verb.precision.map_or_else(|| number::plain(*value), |digits| number::general(*value, digits)),
        ),
        ('d', Datum::Int(value)) if verb.plus => format!("{value:+}"),
        ('d', Datum::Int(value)) => value.to_string(),
        ('x', Datum::Int(value)) => format!("{value:x}"),
        (verb, other) => format!("%!{verb}({}={})", other.kind(), other.text()),
    }
}

fn cut(text: &str, precision: Option<usize>) -> String {
    precision.map_or_else(|| text.to_owned(), |count| text.chars().take(count).collect())
}

fn padded(verb: &Verb, text: String) -> String {
    let missing = verb.width.saturating_sub(text.chars().count());
    if missing == 0 {
        text
    } else if verb.left {
        text + &" ".repeat(missing)
    } else if verb.zero && "feEgdx".contains(verb.verb) {
        let (sign, digits) = text.strip_prefix('-').map_or(("", text.as_str()), |digits| ("-", digits));
        format!("{sign}{}{digits}", "0".repeat(missing))
    } else {
        " ".repeat(missing) + &text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn verbs_print_as_in_go() {
        let float = Datum::Float(51.25);
        let text = Datum::Text("監視".into());
        for (format, arg, expected) in [
            ("%.1f%%", &float, "51.2%"),
            ("%f", &float, "51.250000"),
            ("%v", &float, "51.25"),
            ("%6.0f|", &float, "    51|"),
            ("%-6.0f|", &float, "51    |"),
            ("%06.1f", &float, "0051.2"),
            ("%+.2f", &float, "+51.25"),
            ("%.3g", &float, "51.2"),
            ("%e", &float, "5.125000e+01"),
            ("%s", &text, "監視"),
            ("%4s", &text, "  監視"),
            ("%q", &text, "\"監視\""),
            ("%d", &Datum::Int(-7), "-7"),
            ("%d", &float, "%!d(float64=51.25)"),
            ("%s", &float, "%!s(float64=51.25)"),
            ("%d", &text, "%!d(string=監視)"),
            ("no verb", &text, "no verb%!(EXTRA string=監視)"),
            ("%s %s", &text, "監視 %!s(MISSING)"),
            ("%", &text, "%!(NOVERB)%!(EXTRA string=監視)"),
        ] {
            assert_eq!(printf(format, std::slice::from_ref(arg)), expected, "{format}");
        }
    }

    proptest! {
        #[test]
        fn no_format_makes_it_panic_or_grow_without_bound(format in "[%+0-9.#sdfvq 監]{0,20}", value: f64) {
            let text = printf(&format, &[Datum::Float(value), Datum::Text("x".into())]);
            prop_assert!(text.len() < 20 * 1_024);
        }
    }
}
