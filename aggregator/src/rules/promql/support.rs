//! What the evaluator knows. Refuses the rest with its place and prepares the tree.
//!
//! Takes a parsed tree; gives faults, and in place of each matcher's regular expression one of
//! Prometheus 3 (anchored as a whole, `.` matches line breaks). Pure.

use std::str::FromStr;

use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{BinModifier, Expr, VectorSelector};

use super::scan::{Kind, Token};
use crate::rules::eval::{self, AGGREGATIONS, FUNCTIONS};
use crate::rules::fault::TextFault;

/// Levels of an expression's tree, parentheses included. The evaluator walks it by recursion, and the
/// threads that evaluate have small stacks.
pub(super) const EXPRESSION_DEPTH_MAX: usize = 100;

/// Everything that can be called.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().chain(AGGREGATIONS).copied()
}

/// Faults of a tree, in the order of the walk.
pub(super) fn check(expr: &mut Expr, tokens: &[Token<'_>]) -> Vec<TextFault> {
    let mut walk = Walk { tokens, faults: Vec::new(), depth: 0 };
    walk.expr(expr);
    walk.faults
}

struct Walk<'a> {
    tokens: &'a [Token<'a>],
    faults: Vec<TextFault>,
    depth: usize,
}

impl Walk<'_> {
    fn expr(&mut self, expr: &mut Expr) {
        if self.depth == EXPRESSION_DEPTH_MAX {
            let problem = format!("expression is nested deeper than {EXPRESSION_DEPTH_MAX} levels");
            let fault = TextFault::new(super::first(self.tokens), problem);
            self.faults.push(fault.hint(Some(String::from("split it with a recording rule"))));
            return;
        }
        self.depth += 1;
        self.known(expr);
        self.depth -= 1;
    }

    fn known(&mut self, expr: &mut Expr) {
        match expr {
            Expr::Aggregate(aggregate) => {
                let name = aggregate.op.to_string();
                if !AGGREGATIONS.contains(&name.as_str()) {
                    self.unsupported("aggregation", &name, AGGREGATIONS);
                }
                self.expr(&mut aggregate.expr);
            }
            Expr::Unary(unary) => self.expr(&mut unary.expr),
            Expr::Binary(binary) => {
                if eval::operator(binary.op).is_none() {
                    self.refuse(&binary.op.to_string(), &format!("operator `{}`", binary.op));
                }
                self.modifier(binary.modifier.as_ref());
                self.expr(&mut binary.lhs);
                self.expr(&mut binary.rhs);
            }
            Expr::Paren(paren) => self.expr(&mut paren.expr),
            Expr::Subquery(subquery) => {
                self.refuse_at(self.find(|token, _| token.text == "["), "a subquery");
                self.expr(&mut subquery.expr);
            }
            Expr::VectorSelector(selector) => self.selector(selector),
            Expr::MatrixSelector(matrix) => self.selector(&mut matrix.vs),
            Expr::Call(call) => {
                if !FUNCTIONS.contains(&call.func.name) {
                    self.unsupported("function", call.func.name, FUNCTIONS);
                }
                for arg in &mut call.args.args {
                    self.expr(arg);
                }
            }
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) => {}
            Expr::Extension(_) => self.refuse("", "an extension"),
        }
    }

    fn modifier(&mut self, modifier: Option<&BinModifier>) {
        let fill = modifier.map(|modifier| &modifier.fill_values);
        if fill.is_some_and(|fill| fill.lhs.is_some() || fill.rhs.is_some()) {
            let at = self.find(|token, next| {
                token.text.to_ascii_lowercase().starts_with("fill")
                    && next.is_some_and(|next| next.text == "(")
            });
            self.refuse_at(at, "modifier `fill`");
        }
    }

    fn selector(&mut self, selector: &mut VectorSelector) {
        if selector.at.is_some() {
            self.refuse("@", "modifier `@`");
        }
        if !selector.matchers.or_matchers.is_empty() {
            self.refuse("or", "`or` between matchers");
        }
        for matcher in &mut selector.matchers.matchers {
            if anchored(matcher).is_none() {
                let problem = format!("`{}` is not a regular expression", matcher.value);
                let value = matcher.value.clone();
                let at = self.find(|token, _| token.kind == Kind::Text && token.text.contains(&value));
                self.faults.push(TextFault::new(at, problem));
            }
        }
    }

    fn unsupported(&mut self, what: &str, name: &str, known: &[&str]) {
        let problem = format!("{what} `{name}` is not supported yet; supported: {}", known.join(", "));
        let at = self.find(|token, next| {
            token.is_word(name)
                && next.is_some_and(|next| next.text == "(" || next.is_word("by") || next.is_word("without"))
        });
        self.faults.push(TextFault::new(at, problem));
    }

    fn refuse(&mut self, word: &str, what: &str) {
        self.refuse_at(self.find(|token, _| token.text == word || token.is_word(word)), what);
    }

    fn refuse_at(&mut self, offset: usize, what: &str) {
        self.faults.push(TextFault::new(offset, format!("{what} is not supported yet")));
    }

    fn find(&self, wanted: impl Fn(&Token<'_>, Option<&Token<'_>>) -> bool) -> usize {
        self.tokens
            .iter()
            .enumerate()
            .find(|(index, token)| wanted(token, self.tokens.get(index + 1)))
            .map_or_else(|| super::first(self.tokens), |(_, token)| token.start)
    }
}

/// Puts Prometheus 3's form of a regular expression in place; none when it is not one by itself
/// (`a)|(?:b` fits between the parser's brackets and would lose its anchors).
fn anchored(matcher: &mut Matcher) -> Option<()> {
    let (MatchOp::Re(regex) | MatchOp::NotRe(regex)) = &mut matcher.op else { return Some(()) };
    // The parser has already escaped braces that Go takes as text.
    let inner = regex.as_str().strip_prefix("^(?:")?.strip_suffix(")$")?;
    compile(regex, inner)?;
    let whole = compile(regex, &format!("^(?s:{inner})$"))?;
    *regex = whole;
    Some(())
}

/// A value of the type of `_like`; the crate of regular expressions is not named here.
fn compile<R: FromStr>(_like: &R, text: &str) -> Option<R> {
    text.parse().ok()
}
