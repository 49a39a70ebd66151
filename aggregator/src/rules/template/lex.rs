//! Template text to texts and actions, and actions to words.
//!
//! Takes a template; gives its pieces with byte offsets; `{{-` and `-}}` have already eaten the
//! white space beside them, comments are gone.

use crate::rules::fault::TextFault;

/// A piece of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Text as it is.
    Text(&'a str),
    /// What stands between `{{` and `}}`, and the byte offset of its first character.
    Action(&'a str, usize),
}

/// A word of an action.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Word {
    /// `$labels.service` or `.Labels.service`: a root (`$labels`, `.`) and fields.
    Path(String, Vec<String>),
    /// The name of a function.
    Name(String),
    /// A quoted text.
    Text(String),
    /// A number without a point.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// `|`, `(`, `)` or a sign that has no place here.
    Sign(char),
}

/// Cuts a template into pieces.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece<'_>>, TextFault> {
    let mut pieces = Vec::new();
    let mut at = 0;
    let mut trim_next = false;
    while let Some(rest) = text.get(at..) {
        let open = rest.find("{{");
        let mut plain = rest.get(..open.unwrap_or(rest.len())).unwrap_or_default();
        if trim_next {
            plain = plain.trim_start_matches(is_space);
        }
        let Some(open) = open else {
            push_text(&mut pieces, plain);
            break;
        };
        let inner = at + open + 2;
        let (action, next, trim_before, trim_after) = action(text, inner)?;
        push_text(&mut pieces, if trim_before { plain.trim_end_matches(is_space) } else { plain });
        if let Some((action, start)) = action {
            pieces.push(Piece::Action(action, start));
        }
        trim_next = trim_after;
        at = next;
    }
    Ok(pieces)
}

fn push_text<'a>(pieces: &mut Vec<Piece<'a>>, text: &'a str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
}

/// The action that begins at `inner` (none for a comment), where the text goes on, and whether the
/// white space before and after it goes away.
#[expect(clippy::type_complexity, reason = "used once, named by the doc line")]
fn action(text: &str, inner: usize) -> Result<(Option<(&str, usize)>, usize, bool, bool), TextFault> {
    let body = text.get(inner..).unwrap_or_default();
    let trim_before = body.starts_with('-') && body.get(1..).is_some_and(|rest| rest.starts_with(is_space));
    let skipped = usize::from(trim_before);
    let head = body.get(skipped..).unwrap_or_default();
    let lead = head.len() - head.trim_start_matches(is_space).len();
    let start = inner + skipped + lead;
    let unclosed = || TextFault::new(inner - 2, "`{{` is not closed").hint(Some(String::from("add `}}`")));
    if let Some(comment) = text.get(start..).and_then(|rest| rest.strip_prefix("/*")) {
        let len = comment.find("*/").ok_or_else(|| TextFault::new(start, "comment is not closed"))?;
        let behind = start + 2 + len + 2;
        let rest = text.get(behind..).unwrap_or_default();
        let trimmed = rest.trim_start_matches(is_space);
        let trim_after = trimmed.len() < rest.len() && trimmed.starts_with("-}}");
        let close = if trim_after { "-}}" } else { "}}" };
        let tail = trimmed
            .strip_prefix(close)
            .ok_or_else(|| TextFault::new(behind, "a comment must fill its `{{ }}`"))?;
        return Ok((None, text.len() - tail.len(), trim_before, trim_after));
    }
    let len = closing(head).ok_or_else(unclosed)?;
    let inside = head.get(..len).unwrap_or_default();
    let trim_after = inside
        .strip_suffix('-')
        .is_some_and(|rest| rest.ends_with(is_space) || rest.is_empty() && trim_before);
    let inside = if trim_after { inside.strip_suffix('-').unwrap_or(inside) } else { inside };
    let next = inner + skipped + len + 2;
    Ok((Some((inside.trim_matches(is_space), start)), next, trim_before, trim_after))
}

/// Where `}}` stands, outside of quoted texts.
fn closing(body: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        match quote {
            Some(q) if c == q && !escaped => quote = None,
            Some(q) => escaped = !escaped && c == '\\' && q == '"',
            None if c == '"' || c == '`' => (quote, escaped) = (Some(c), false),
            None if body.get(at..).is_some_and(|rest| rest.starts_with("}}")) => return Some(at),
            None => {}
        }
    }
    None
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// Cuts an action into words; `start` is its byte offset in the template.
pub(super) fn words(action: &str, start: usize) -> Result<Vec<(Word, usize)>, TextFault> {
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(rest) = action.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(first) = rest.chars().next() else { break };
        let offset = start + at;
        let part = |belongs: fn(char) -> bool| rest.find(|c| !belongs(c)).unwrap_or(rest.len());
        let named = |c: char| c.is_alphanumeric() || c == '_';
        let (word, len) = match first {
            c if is_space(c) => {
                at += part(is_space);
                continue;
            }
            '"' | '`' => quoted(rest, first, offset)?,
            '$' | '.'
                if !rest.get(1..).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())) =>
            {
                let len = part(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '$'));
                (path(rest.get(..len).unwrap_or_default()), len)
            }
            c if c.is_ascii_digit() || matches!(c, '+' | '-' | '.') => {
                let len = part(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_'));
                (numeral(rest.get(..len).unwrap_or_default(), offset)?, len)
            }
            c if named(c) => {
                let len = part(|c| c.is_alphanumeric() || c == '_');
                (Word::Name(rest.get(..len).unwrap_or_default().to_owned()), len)
            }
            other => (Word::Sign(other), other.len_utf8()),
        };
        words.push((word, offset));
        at += len;
    }
    Ok(words)
}

fn path(text: &str) -> Word {
    let (root, fields) = match text.strip_prefix('.') {
        Some("") => (".", None),
        Some(fields) => (".", Some(fields)),
        None => text.split_once('.').map_or((text, None), |(root, fields)| (root, Some(fields))),
    };
    let fields = fields.into_iter().flat_map(|fields| fields.split('.')).map(String::from).collect();
    Word::Path(root.to_owned(), fields)
}

fn numeral(text: &str, offset: usize) -> Result<Word, TextFault> {
    if let Ok(number) = text.parse() {
        return Ok(Word::Int(number));
    }
    let number = text.parse().map_err(|_| TextFault::new(offset, format!("`{text}` is not a number")))?;
    Ok(Word::Float(number))
}

fn quoted(rest: &str, quote: char, offset: usize) -> Result<(Word, usize), TextFault> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => return Ok((Word::Text(text), at + 1)),
            '\\' if quote == '"' => match chars.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, 't')) => text.push('\t'),
                Some((_, 'r')) => text.push('\r'),
                Some((_, c @ ('"' | '\\' | '\''))) => text.push(c),
                other => {
                    let c = other.map_or(' ', |(_, c)| c);
                    return Err(TextFault::new(offset + at, format!("`\\{c}` is not a known escape")));
                }
            },
            c => text.push(c),
        }
    }
    Err(TextFault::new(offset, "quoted text is not closed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(template: &str) -> String {
        let show = |piece: Piece<'_>| match piece {
            Piece::Text(text) => text.to_owned(),
            Piece::Action(action, at) => format!("<{action}@{at}>"),
        };
        pieces(template).unwrap().into_iter().map(show).collect()
    }

    #[test]
    fn white_space_goes_away_where_a_dash_says_so() {
        assert_eq!(texts("a {{- $value -}} b"), "a<$value@6>b");
        assert_eq!(texts("a {{ $value }} b"), "a <$value@5> b");
        assert_eq!(texts("a {{-1}} b"), "a <-1@4> b");
        assert_eq!(texts("a {{- /* 監視 */ -}} b"), "ab");
        assert_eq!(texts("a {{/* x */}} b"), "a  b");
    }

    #[test]
    fn braces_in_a_quoted_text_close_nothing() {
        assert_eq!(texts(r#"{{ printf "}}" }}!"#), r#"<printf "}}"@3>!"#);
        assert_eq!(texts(r#"{{ printf "\"}}" }}!"#), r#"<printf "\"}}"@3>!"#);
    }

    #[test]
    fn what_is_not_closed_is_named_with_its_place() {
        for (template, at) in [("監視 {{ $value", 7), ("{{/* x", 2), ("a {{ \"}} b", 2)] {
            assert_eq!(pieces(template).unwrap_err().offset, at, "{template}");
        }
    }
}
