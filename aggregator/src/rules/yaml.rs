//! YAML text to a tree in which every key and value knows its place. The only file that knows
//! serde-saphyr.
//!
//! Takes the text of a rule file; gives items with line, column and the bytes they stand on, so
//! that a later stage can point into the middle of a value. Nothing waits for it.

use std::fmt;

use diarwatch_shared::config::line_and_column;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::fault::TextFault;

/// Levels of nesting that a rule file may have; it needs six.
const DEPTH_MAX: usize = 32;

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Item {
    /// What stands there.
    pub(super) node: Node,
    /// Byte offset of its first character in the file.
    pub(super) start: usize,
    /// The text as written, quotes included; empty when the parser did not say.
    raw: String,
}

/// A value.
#[derive(Debug)]
pub(super) enum Node {
    /// Nothing, or `null`.
    Null,
    /// A scalar; numbers and booleans as they were written.
    Text(String),
    /// A sequence.
    List(Vec<Item>),
    /// A mapping, in the order of the file; a key has a text and a byte offset.
    Map(Vec<((String, usize), Item)>),
}

impl Item {
    /// The byte offset in the file of a byte offset in the scalar's value.
    ///
    /// Quotes, escapes and the folding of blocks stand between the two, so characters that are not
    /// white space are followed one by one; where that fails the start of the value is given.
    pub(super) fn offset_of(&self, text: &str, offset: usize) -> usize {
        let Node::Text(value) = &self.node else { return self.start };
        let mut raw = text.get(self.start..).unwrap_or_default().char_indices().peekable();
        if self.raw.starts_with(['|', '>']) {
            while raw.next_if(|(_, c)| *c != '\n').is_some() {}
        } else if self.raw.starts_with(['"', '\'']) {
            raw.next();
        }
        let visible = |c: &char| !c.is_whitespace();
        let target = value.get(..offset).map_or(0, |before| before.chars().filter(visible).count());
        let mut wanted = value.chars().filter(visible);
        let mut last = self.start;
        for _ in 0..target {
            let Some(next) = wanted.next() else { break };
            match raw.find(|(_, c)| *c == next) {
                Some((at, c)) => last = self.start + at + c.len_utf8(),
                None => return self.start,
            }
        }
        // At the end of the value the place behind its last character; else the next one itself.
        match wanted.next().and_then(|next| raw.find(|(_, c)| *c == next)) {
            Some((at, _)) => self.start + at,
            None => last,
        }
    }
}

/// Reads one document.
///
/// # Errors
/// When the text is not YAML, a key stands twice, or nesting passes its limit.
pub(super) fn read(text: &str) -> Result<Item, TextFault> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: DEPTH_MAX },
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(spanned) => Ok(item(text, spanned)),
        Err(error) => {
            let location = error.location().unwrap_or(Location::UNKNOWN);
            let message = error.without_snippet().to_string();
            let problem =
                message.split(" at line ").next().unwrap_or_default().trim_end_matches(':').to_owned();
            Err(TextFault::new(start_of(text, location), format!("file is not readable: {problem}")))
        }
    }
}

/// Line and column of a byte offset; the parser's own words are not needed for that.
pub(super) fn place(text: &str, offset: usize) -> (usize, usize) {
    line_and_column(text, offset.min(text.len()))
}

fn item(text: &str, spanned: Spanned<Raw>) -> Item {
    let start = start_of(text, spanned.referenced);
    let written = start_of(text, spanned.defined);
    let len = spanned.defined.span().byte_len().and_then(|len| usize::try_from(len).ok()).unwrap_or(0);
    let raw = text.get(written..written + len).unwrap_or_default().to_owned();
    let node = match spanned.value {
        Raw::Null => Node::Null,
        Raw::Text(value) => Node::Text(value),
        Raw::Bare(value) => Node::Text(if raw.is_empty() { value } else { raw.trim_end().to_owned() }),
        Raw::List(values) => Node::List(values.into_iter().map(|value| item(text, value)).collect()),
        Raw::Map(entries) => Node::Map(
            entries
                .into_iter()
                .map(|(key, value)| ((key.value, start_of(text, key.referenced)), item(text, value)))
                .collect(),
        ),
    };
    Item { node, start, raw }
}

fn start_of(text: &str, location: Location) -> usize {
    let bytes = location.span().byte_offset().and_then(|offset| usize::try_from(offset).ok());
    bytes.unwrap_or_else(|| offset_of_line(text, location)).min(text.len())
}

/// A scanner's error knows its line and column (in characters, both from 1) and no byte.
fn offset_of_line(text: &str, location: Location) -> usize {
    let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX).saturating_sub(1);
    let mut lines = text.split_inclusive('\n');
    let before: usize = lines.by_ref().take(number(location.line())).map(str::len).sum();
    let line = lines.next().unwrap_or_default();
    let column =
        line.char_indices().nth(number(location.column())).map_or(line.trim_end().len(), |(at, _)| at);
    before + column
}

/// What serde sees before the places are worked out.
enum Raw {
    Null,
    Text(String),
    Bare(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bare(value.to_string()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Bare(value.to_string()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Bare(value.to_string()))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Bare(value.to_string()))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Raw, E> {
        Ok(Raw::Bare(value.to_string()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Bare(value.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = values.next_element()? {
            list.push(value);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Raw::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar<'a>(item: &'a Item, key: &str) -> &'a Item {
        let Node::Map(entries) = &item.node else { panic!("not a map") };
        entries.iter().find(|((name, _), _)| name == key).map(|(_, item)| item).unwrap()
    }

    #[test]
    fn keys_and_values_know_their_place_behind_japanese_text() {
        let text = "a: \"監視\" # 監視\n監視: up\n";
        let root = read(text).unwrap();
        let Node::Map(entries) = &root.node else { panic!() };
        assert_eq!(place(text, entries[1].0.1), (2, 1));
        assert_eq!(place(text, entries[1].1.start), (2, 5));
    }

    #[test]
    fn numbers_and_booleans_stay_as_they_were_written() {
        for raw in ["1.50", "0x1F", "true", "5", "-3", "1e3"] {
            let root = read(&format!("a: {raw}\n")).unwrap();
            assert!(matches!(&scalar(&root, "a").node, Node::Text(text) if text == raw), "{root:?}");
        }
    }

    #[test]
    fn an_offset_in_a_value_is_found_in_every_style() {
        let styles = [
            "a: up == == 0\n",
            "a: \"up == == 0\"\n",
            "a: 'up == == 0'\n",
            "a: |\n  up ==\n    == 0\n",
            "a: >-\n  up ==\n  == 0\n",
            "a: | # up to here\n  up ==\n  == 0\n",
            "a: up ==\n  == 0\n",
        ];
        for text in styles {
            let root = read(text).unwrap();
            let value = scalar(&root, "a");
            let Node::Text(expr) = &value.node else { panic!() };
            let second = expr.rfind("==").unwrap();
            assert_eq!(value.offset_of(text, second), text.rfind("==").unwrap(), "{text:?}");
            assert_eq!(value.offset_of(text, 0), text.rfind("up").unwrap(), "{text:?}");
        }
    }

    #[test]
    fn a_key_that_stands_twice_is_refused_with_its_place() {
        let text = "a: 1\nb: 2\na: 3\n";
        let fault = read(text).unwrap_err();
        assert_eq!(place(text, fault.offset), (3, 1), "{fault:?}");
    }

    #[test]
    fn a_fault_that_only_the_scanner_sees_has_its_line() {
        for (text, line) in
            [("groups:\n  - name: g\n\t\tx: 1\n# 後\n# 後\n", 2..=3), ("a: 1\nb: c: d\ne: 2\n", 2..=2)]
        {
            let fault = read(text).unwrap_err();
            let (found, _) = place(text, fault.offset);
            assert!(line.contains(&found), "{found} is not in {line:?}: {}", fault.problem);
        }
    }
}
