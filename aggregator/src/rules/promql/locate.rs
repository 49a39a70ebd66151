//! Where an expression stops being PromQL. The parser says what is wrong, not where.
//!
//! Takes the text, its tokens and the parser's message; gives a place: the name that the message
//! quotes, or the first token after which nothing can make the text whole again (found by halving,
//! a handful of parses). Pure.

use diarwatch_shared::config::nearest;
use promql_parser::parser;

use super::scan::{Kind, Token};
use super::support;
use crate::rules::fault::TextFault;

/// What the parser says of any text that does not fit its grammar.
const NOT_PROMQL: &str = "invalid promql query";
/// Texts that can follow a good beginning; one of them makes it whole, if brackets are closed. None
/// may join with the last token to another one.
const ENDINGS: &[&str] = &[
    "",
    " x",
    " 1",
    " (x)",
    " (x) x",
    " (x) (x)",
    " x(x)",
    " [1m]",
    " 1m",
    " \"s\"",
    " =\"s\"",
    " x=\"s\"",
    " by (x) (x)",
    " (",
    " x[1m]",
    " group_left x",
];
/// What people write who know other languages, and what PromQL calls it.
const HABITS: &[(&str, &str)] = &[
    ("=", "equality is `==`, at least is `>=`, at most is `<=`"),
    ("!", "there is no `!`; use `unless`, or compare with 0"),
    ("&", "write `and`"),
    ("|", "write `or`"),
];

/// The fault that the parser's message is about.
pub(super) fn locate(text: &str, tokens: &[Token<'_>], message: &str) -> TextFault {
    if !is_syntax(text, message) {
        let offset = quoted(message, tokens).unwrap_or_else(|| super::first(tokens));
        return TextFault::new(offset, format!("expression is not PromQL: {message}"))
            .hint(suggestion(message));
    }
    // All tokens before `good` are a beginning of some expression; the one at `bad` is not.
    let (mut good, mut bad) = (0, tokens.len() + 1);
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        if is_beginning(text, tokens.get(..middle).unwrap_or(tokens)) {
            good = middle;
        } else {
            bad = middle;
        }
    }
    match tokens.get(good) {
        Some(token) => {
            let problem = format!("expression is not PromQL: unexpected `{}` ({message})", token.text);
            let habit = HABITS.iter().find(|(habit, _)| *habit == token.text);
            TextFault::new(token.start, problem).hint(habit.map(|(_, hint)| String::from(*hint)))
        }
        None => {
            let end = tokens.last().map_or(0, Token::end);
            TextFault::new(end, format!("expression is not PromQL: it ends too early ({message})"))
        }
    }
}

/// Whether the fault is in the grammar, rather than in types or names.
fn is_syntax(text: &str, message: &str) -> bool {
    message == NOT_PROMQL || parser::lexer(text).is_err()
}

fn is_beginning(text: &str, tokens: &[Token<'_>]) -> bool {
    let Some(last) = tokens.last() else { return true };
    let head = text.get(..last.end()).unwrap_or(text);
    let mut open = Vec::new();
    for token in tokens {
        match token.text {
            "(" => open.push(')'),
            "[" => open.push(']'),
            "{" => open.push('}'),
            ")" | "]" | "}" => {
                open.pop();
            }
            _ => {}
        }
    }
    let closing: String = open.iter().rev().collect();
    ENDINGS.iter().any(|ending| {
        let extra = if *ending == " (" { "x)" } else { "" };
        // A keyword such as `by` needs an operand behind the bracket that it opens.
        ["", " x", "(x)"].iter().any(|tail| {
            let whole = format!("{head}{ending}{extra}{closing}{tail}");
            parser::parse(&whole).map_or_else(|message| !is_syntax(&whole, &message), |_| true)
        })
    })
}

/// The place of the first name in the message that the expression also has.
fn quoted(message: &str, tokens: &[Token<'_>]) -> Option<usize> {
    message.split(['\'', '"', '`']).skip(1).step_by(2).find_map(|word| {
        let word = word.trim();
        tokens
            .iter()
            .find(|token| {
                token.text == word || token.kind == Kind::Text && token.text.trim_matches('"') == word
            })
            .map(|token| token.start)
    })
}

fn suggestion(message: &str) -> Option<String> {
    if message.starts_with("expected type matrix") {
        return Some(String::from("give a range behind the selector, such as `[5m]`"));
    }
    if message.contains("must use BOOL modifier") {
        return Some(String::from("write `bool` behind the operator"));
    }
    let name = message.strip_prefix("unknown function with name '")?.strip_suffix('\'')?;
    nearest(name, support::names()).map(|name| format!("did you mean `{name}`?"))
}

#[cfg(test)]
mod tests {
    use super::super::scan::scan;
    use super::*;

    #[test]
    fn every_part_of_a_good_expression_is_a_good_beginning() {
        for text in [
            "up == 0",
            "sum by (a, b) (rate(x{c=\"d\",e!~\"f\"}[5m] offset 1h)) / on(a) group_left(b) y > bool 0.5",
            "max(a) without (b) unless ignoring(c) d{e=~'f'} or vector(time())",
            "-(a + b) ^ 2 and on() {__name__=\"g\"}",
            "round(a * 1000, 0.001) >= scalar(b) atan2 c",
            "count(x) by (y) * on(y) group_right(z) w",
            "a offset -5m @ 3 - {\"x.y\"}",
            "quantile(0.9, sum_over_time(a[5m:1m]))",
        ] {
            let tokens = scan(text);
            for count in 0..tokens.len() {
                assert!(is_beginning(text, &tokens[..count]), "{text}: {:?}", &tokens[..count]);
            }
        }
    }
}
