//! PromQL text to tokens with their places; the parser's tree has none.
//!
//! Takes an expression; gives words, numbers, texts and symbols. It never fails: what it does not
//! know is a symbol, and whether that is allowed the parser says.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A name or a keyword.
    Word,
    /// A number or a duration.
    Number,
    /// A quoted text, quotes included.
    Text,
    /// Anything else.
    Symbol,
}

/// A token and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    /// What it is.
    pub(super) kind: Kind,
    /// Byte offset of its first character.
    pub(super) start: usize,
    /// As written.
    pub(super) text: &'a str,
}

impl Token<'_> {
    /// Byte offset behind its last character.
    pub(super) fn end(&self) -> usize {
        self.start + self.text.len()
    }

    /// Whether it is this keyword; PromQL's keywords know no case.
    pub(super) fn is_word(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }
}

/// All tokens of a text; comments and white space are left out.
pub(super) fn scan(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut start = 0;
    let mut in_brackets = false;
    while let Some(rest) = text.get(start..).filter(|rest| !rest.is_empty()) {
        // `[5m:1m]` is a range and a step; anywhere else a colon belongs to a name.
        let (kind, len) =
            if in_brackets && rest.starts_with(':') { (Some(Kind::Symbol), 1) } else { next(rest) };
        if let (Some(kind), Some(text)) = (kind, rest.get(..len)) {
            in_brackets = text == "[" || in_brackets && text != "]";
            tokens.push(Token { kind, start, text });
        }
        start += len;
    }
    tokens
}

/// Kind (none for what is skipped) and length, at least 1, of what a text starts with.
fn next(rest: &str) -> (Option<Kind>, usize) {
    let mut chars = rest.chars();
    let Some(first) = chars.next() else { return (None, 1) };
    let second = chars.next();
    let run = |belongs: fn(char) -> bool| rest.find(|c| !belongs(c)).unwrap_or(rest.len());
    match first {
        c if c.is_whitespace() => (None, run(char::is_whitespace)),
        '#' => (None, rest.find(['\n', '\r']).unwrap_or(rest.len())),
        '"' | '\'' | '`' => (Some(Kind::Text), quoted(rest, first)),
        c if c.is_ascii_digit() || c == '.' && second.is_some_and(|c| c.is_ascii_digit()) => {
            (Some(Kind::Number), number(rest))
        }
        c if c.is_ascii_alphabetic() || c == '_' || c == ':' => {
            (Some(Kind::Word), run(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':'))
        }
        '=' | '!' | '<' | '>' if matches!(second, Some('=' | '~')) => (Some(Kind::Symbol), 2),
        other => (Some(Kind::Symbol), other.len_utf8()),
    }
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if !escaped && c == quote {
            return at + c.len_utf8();
        }
        escaped = !escaped && c == '\\';
    }
    rest.len()
}

fn number(rest: &str) -> usize {
    let hex = rest.starts_with("0x") || rest.starts_with("0X");
    let mut previous = ' ';
    for (at, c) in rest.char_indices() {
        let exponent_sign = !hex && matches!(previous, 'e' | 'E') && matches!(c, '+' | '-');
        if !(c.is_ascii_alphanumeric() || c == '.' || c == '_' || exponent_sign) {
            return at;
        }
        previous = c;
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_expression_falls_into_its_tokens() {
        let text = "rate(a:b{c=~\"x\\\"}\"}[5m:1m]) >= 1e-3 # 監視\n or up";
        let words: Vec<&str> = scan(text).iter().map(|token| token.text).collect();
        let expected = [
            "rate",
            "(",
            "a:b",
            "{",
            "c",
            "=~",
            "\"x\\\"}\"",
            "}",
            "[",
            "5m",
            ":",
            "1m",
            "]",
            ")",
            ">=",
            "1e-3",
            "or",
            "up",
        ];
        assert_eq!(words, expected);
    }

    proptest! {
        #[test]
        fn tokens_stand_where_they_say(text in "\\PC{0,60}") {
            let mut end = 0;
            for token in scan(&text) {
                prop_assert!(token.start >= end);
                end = token.end();
                prop_assert_eq!(&text[token.start..end], token.text);
            }
        }
    }
}
