//! Expression text to a checked syntax tree.
//!
//! Takes the text of an `expr`; gives a [`Query`] that the evaluator can run, or the faults with
//! their byte offsets. What the evaluator does not know is refused here, when a file is loaded,
//! never at 3 a.m. when it is evaluated. Pure.

mod locate;
mod scan;
mod support;

use std::collections::BTreeSet;

use diarwatch_shared::quantity::parse_duration;
use promql_parser::parser::{self, Expr, value::ValueType};

use self::scan::{Kind, Token, scan};
use super::eval::Selector;
use super::fault::TextFault;

/// Bytes of one expression.
const EXPRESSION_BYTES_MAX: usize = 16 * 1024;
/// Tokens of one expression; the parser's tree is at most this deep before its depth can be checked.
const EXPRESSION_TOKENS_MAX: usize = 1_000;
/// Seconds of a range or an offset that is written without a unit (30 years).
const SECONDS_MAX: f64 = 1e9;

/// An expression that the evaluator can run.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    text: String,
    expr: Expr,
}

impl Query {
    /// Parses and checks an expression.
    ///
    /// # Errors
    /// All faults that could be found, each with its byte offset; at least one.
    pub fn parse(text: &str) -> Result<Self, Vec<TextFault>> {
        let tokens = scan(text);
        bounded(text, &tokens).map_err(|fault| vec![fault])?;
        let mut expr =
            parser::parse(text).map_err(|message| vec![locate::locate(text, &tokens, &message)])?;
        let faults = support::check(&mut expr, &tokens);
        if !faults.is_empty() {
            return Err(faults);
        }
        match expr.value_type() {
            ValueType::Vector | ValueType::Scalar => Ok(Self { text: text.to_owned(), expr }),
            other => {
                let problem =
                    format!("expression gives a {other}; a rule needs an instant vector or a number");
                Err(vec![TextFault::new(first(&tokens), problem)])
            }
        }
    }

    /// The expression as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The syntax tree.
    #[must_use]
    pub fn expr(&self) -> &Expr {
        &self.expr
    }

    /// The metrics that it reads by name.
    #[must_use]
    pub fn metrics(&self) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        metrics(&self.expr, &mut found);
        found
    }
}

fn metrics<'a>(expr: &'a Expr, found: &mut BTreeSet<&'a str>) {
    match expr {
        Expr::Aggregate(aggregate) => metrics(&aggregate.expr, found),
        Expr::Unary(unary) => metrics(&unary.expr, found),
        Expr::Binary(binary) => [&binary.lhs, &binary.rhs].into_iter().for_each(|side| metrics(side, found)),
        Expr::Paren(paren) => metrics(&paren.expr, found),
        Expr::Subquery(subquery) => metrics(&subquery.expr, found),
        Expr::VectorSelector(selector) => found.extend(Selector::of(selector).metric_name()),
        Expr::MatrixSelector(matrix) => found.extend(Selector::of(&matrix.vs).metric_name()),
        Expr::Call(call) => call.args.args.iter().for_each(|arg| metrics(arg, found)),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {}
    }
}

fn first(tokens: &[Token<'_>]) -> usize {
    tokens.first().map_or(0, |token| token.start)
}

/// Refuses what the parser would choke on: too much of it, and durations that it panics on or
/// quietly reads as something else.
fn bounded(text: &str, tokens: &[Token<'_>]) -> Result<(), TextFault> {
    if text.len() > EXPRESSION_BYTES_MAX {
        let problem = format!("expression is longer than {EXPRESSION_BYTES_MAX} bytes");
        return Err(TextFault::new(0, problem));
    }
    if let Some(token) = tokens.get(EXPRESSION_TOKENS_MAX) {
        let problem = format!("expression has more than {EXPRESSION_TOKENS_MAX} words and signs");
        return Err(
            TextFault::new(token.start, problem).hint(Some(String::from("split it with a recording rule")))
        );
    }
    let mut span_expected = false;
    for token in tokens {
        let is_special = token.is_word("inf") || token.is_word("nan");
        if token.kind == Kind::Number || span_expected && is_special {
            number(token, span_expected)?;
        }
        let sign = token.text == "+" || token.text == "-";
        span_expected = token.is_word("offset") || token.text == "[" || span_expected && sign;
        span_expected |= token.text == ":";
    }
    Ok(())
}

fn number(token: &Token<'_>, span_expected: bool) -> Result<(), TextFault> {
    let hex = token.text.starts_with("0x") || token.text.starts_with("0X");
    match token.text.parse::<f64>() {
        Ok(seconds) if span_expected && (seconds.is_nan() || seconds >= SECONDS_MAX) => {
            Err(TextFault::new(token.start, format!("`{}` is not a usable number of seconds", token.text)))
        }
        Err(_) if span_expected || !hex => {
            parse_duration(token.text).map(drop).map_err(|problem| TextFault::new(token.start, problem))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fault(text: &str) -> TextFault {
        Query::parse(text).unwrap_err().remove(0)
    }

    #[test]
    fn a_broken_expression_is_pointed_at() {
        for (text, at) in [
            ("up == == 0", 6),
            ("up ==", 5),
            ("sum(up", 6),
            ("sum by (a b) (up)", 10),
            ("up{a=}", 5),
            ("up)", 2),
            ("a / b / / c", 8),
            ("rate(up[5m) > 1", 10),
            ("監視 == 0", 0),
            ("up == 0 $", 8),
            ("up{a=\"b\" c=\"d\"}", 9),
            ("foo(up)", 0),
            ("1 + rate(up)", 4),
            ("up[5x]", 3),
            ("up = 0", 3),
            ("up => 3", 3),
            ("up && up", 3),
        ] {
            assert_eq!(fault(text).offset, at, "{text}: {:?}", fault(text));
        }
    }

    #[test]
    fn what_the_evaluator_does_not_know_is_refused_at_load_time() {
        for (text, at, name) in [
            ("1 + histogram_quantile(0.9, up)", 4, "`histogram_quantile`"),
            ("topk(3, up)", 0, "`topk`"),
            ("max_over_time(up[5m:1m])", 16, "subquery"),
            ("up @ 3", 3, "`@`"),
            ("a + fill(0) b", 4, "`fill`"),
            ("up{a=\"b\" or a=\"c\"}", 9, "`or`"),
            ("up{a=~\"x)|(?:y\"}", 6, "regular expression"),
        ] {
            let fault = fault(text);
            assert_eq!(fault.offset, at, "{text}: {fault:?}");
            assert!(fault.problem.contains(name), "{text}: {fault:?}");
        }
    }

    #[test]
    fn a_misspelt_function_gets_a_suggestion() {
        assert_eq!(fault("avg_over_tme(up[5m])").hint.as_deref(), Some("did you mean `avg_over_time`?"));
    }

    #[test]
    fn habits_from_other_languages_get_a_way_out() {
        for (text, hint) in [
            ("up = 0", "equality is `==`"),
            ("up && up", "write `and`"),
            ("rate(up)", "such as `[5m]`"),
            ("1 > 2", "write `bool`"),
        ] {
            assert!(fault(text).hint.is_some_and(|found| found.contains(hint)), "{text}: {:?}", fault(text));
        }
    }

    #[test]
    fn the_metrics_of_an_expression_are_named_wherever_they_stand() {
        let query = Query::parse(
            "-(sum by (gpu) (a) / on(gpu) {__name__=\"b\"}) > rate(c[5m]) or round(d, 0.1) == bool 1 unless {x=\"y\"}",
        );
        assert_eq!(query.unwrap().metrics(), BTreeSet::from(["a", "b", "c", "d"]));
    }

    #[test]
    fn a_rule_may_not_give_a_range_or_a_text() {
        assert!(fault("up[5m]").problem.contains("matrix"), "{:?}", fault("up[5m]"));
        assert!(fault("\"監視\"").problem.contains("string"));
    }

    #[test]
    fn durations_that_make_the_parser_panic_or_guess_are_refused() {
        for text in [
            "up offset inf",
            "up offset 1e300",
            "up[1h99999999999999s]",
            "up[1e300]",
            "up[5m:1e300]",
            "up[5m:99999999999999s]",
            "up offset -nan",
        ] {
            assert!(Query::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_tree_that_is_too_deep_is_refused_before_it_is_built() {
        let text = format!("{}1{}", "(".repeat(5_000), ")".repeat(5_000));
        assert!(fault(&text).problem.contains("more than"));
        let nested = |levels: usize| format!("{}up{}", "(".repeat(levels), ")".repeat(levels));
        for text in [nested(499), format!("{}up", "-".repeat(999)), vec!["up"; 500].join("^")] {
            assert!(fault(&text).problem.contains("deeper than 100"), "{:?}", fault(&text));
        }
        assert!(Query::parse(&nested(99)).is_ok());
        assert!(fault(&nested(100)).problem.contains("deeper than 100"));
        assert!(Query::parse(&vec!["up"; 100].join(" + ")).is_ok());
        assert!(fault(&vec!["up"; 101].join(" + ")).problem.contains("deeper than 100"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,60}") {
            let _ = Query::parse(&text);
        }

        #[test]
        fn no_string_of_tokens_makes_the_parser_panic(
            words in proptest::collection::vec(token(), 0..24),
            gap in proptest::sample::select(vec![" ", ""]),
        ) {
            let text = words.join(gap);
            if let Err(faults) = Query::parse(&text) {
                prop_assert!(!faults.is_empty());
                prop_assert!(faults.iter().all(|fault| text.is_char_boundary(fault.offset)));
            }
        }
    }

    fn token() -> impl Strategy<Value = String> {
        let words = [
            "up",
            "sum",
            "rate",
            "(",
            ")",
            "[",
            "]",
            "{",
            "}",
            ":",
            ",",
            "==",
            "=",
            "=~",
            "!=",
            "!~",
            "+",
            "-",
            "*",
            "/",
            "%",
            "^",
            "@",
            "offset",
            "by",
            "on",
            "ignoring",
            "group_left",
            "and",
            "or",
            "unless",
            "bool",
            "5m",
            "1",
            "0x1",
            "inf",
            "nan",
            "1e300",
            "\"a\"",
            "\"(\"",
            "'b'",
            "start",
            "end",
            "fill",
            "time",
            "監視",
            "\\",
            "!",
            "#",
        ];
        proptest::sample::select(words.map(String::from).to_vec())
    }
}
