//! The parts that every rule file is made of: mappings with known keys, lists, texts, durations.
//!
//! Takes items of the YAML tree; gives their values, and keeps a fault for each that is not what it
//! should be, so that reading goes on. Pure.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use diarwatch_shared::config::nearest;
use diarwatch_shared::quantity::parse_duration;
use promql_parser::label::METRIC_NAME;

use super::fault::{RuleFault, TextFault};
use super::yaml::{self, Item, Node};

/// A file under reading.
pub(super) struct Reader<'a> {
    /// Its path, for the faults.
    pub(super) path: &'a Path,
    /// Its text.
    pub(super) text: &'a str,
    /// What was wrong so far.
    pub(super) faults: Vec<RuleFault>,
}

/// The known keys of a mapping, each with the offset of the key.
pub(super) type Fields<'i> = HashMap<&'i str, (usize, &'i Item)>;

impl Reader<'_> {
    /// The entries of a mapping of label names to texts.
    pub(super) fn pairs<'i>(&mut self, item: Option<&'i Item>, what: &str) -> Vec<(String, &'i Item)> {
        let Some(item) = item else { return Vec::new() };
        let entries = match &item.node {
            Node::Map(entries) => entries,
            Node::Null => return Vec::new(),
            _ => {
                self.fault(TextFault::new(
                    item.start,
                    format!("`{what}` is not a mapping of names to texts"),
                ));
                return Vec::new();
            }
        };
        for ((name, at), value) in entries {
            if !is_name(name, false) || what == "labels" && name == METRIC_NAME {
                let problem = format!("`{name}` cannot be a name in `{what}`");
                let hint = "use letters, digits and `_`, not a digit first, not `__name__`";
                self.fault(TextFault::new(*at, problem).hint(Some(hint.to_owned())));
            }
            if matches!(value.node, Node::List(_) | Node::Map(_)) {
                self.fault(TextFault::new(value.start, format!("value of `{name}` is not a text")));
            }
        }
        entries.iter().map(|((name, _), value)| (name.clone(), value)).collect()
    }

    pub(super) fn duration(&mut self, fields: &Fields<'_>, key: &str) -> Option<Duration> {
        let text = self.text_of(fields, key)?;
        match parse_duration(text) {
            Ok(duration) => Some(duration),
            Err(problem) => {
                let at = fields.get(key).map_or(0, |(_, item)| item.start);
                self.fault(TextFault::new(at, format!("`{key}`: {problem}")));
                None
            }
        }
    }

    /// 0 is no limit, as in Prometheus.
    pub(super) fn limit(&mut self, fields: &Fields<'_>) -> Option<usize> {
        let text = self.text_of(fields, "limit")?;
        match text.parse() {
            Ok(limit) => Some(limit).filter(|limit| *limit > 0),
            Err(_) => {
                let at = fields.get("limit").map_or(0, |(_, item)| item.start);
                self.fault(TextFault::new(at, format!("`limit` is `{text}`, not a number of series")));
                None
            }
        }
    }

    /// The text of a key; none when it is absent or null, and, with a fault, when it is no text.
    pub(super) fn text_of<'i>(&mut self, fields: &Fields<'i>, key: &str) -> Option<&'i str> {
        let (_, item) = fields.get(key)?;
        match &item.node {
            Node::Text(text) => Some(text),
            Node::Null if key == "alert" || key == "record" || key == "expr" => {
                self.fault(TextFault::new(item.start, format!("`{key}` is empty")));
                None
            }
            Node::Null => None,
            Node::List(_) | Node::Map(_) => {
                self.fault(TextFault::new(item.start, format!("`{key}` is not a text")));
                None
            }
        }
    }

    pub(super) fn list<'i>(&mut self, item: Option<&'i Item>, what: &str) -> Vec<&'i Item> {
        match item.map(|item| (&item.node, item.start)) {
            Some((Node::List(items), _)) => items.iter().collect(),
            None | Some((Node::Null, _)) => Vec::new(),
            Some((_, start)) => {
                self.fault(
                    TextFault::new(start, format!("`{what}` is not a list"))
                        .hint(Some(String::from("begin each entry with `- `"))),
                );
                Vec::new()
            }
        }
    }

    pub(super) fn fields<'i>(&mut self, item: &'i Item, what: &str, known: &[&str]) -> Fields<'i> {
        let entries = match &item.node {
            Node::Map(entries) => entries.as_slice(),
            _ => {
                let problem = format!("{what} is a mapping with the keys {}", known.join(", "));
                self.fault(TextFault::new(item.start, problem));
                &[]
            }
        };
        for ((key, at), _) in entries {
            if !known.contains(&key.as_str()) {
                let problem = format!("unknown key `{key}` in {what}");
                let hint = nearest(key, known.iter().copied()).map_or_else(
                    || format!("known keys: {}", known.join(", ")),
                    |name| format!("did you mean `{name}`?"),
                );
                self.fault(TextFault::new(*at, problem).hint(Some(hint)));
            }
        }
        entries.iter().map(|((key, at), value)| (key.as_str(), (*at, value))).collect()
    }

    /// A fault inside the text of a value.
    pub(super) fn inside(&mut self, item: &Item, mut fault: TextFault) {
        fault.offset = item.offset_of(self.text, fault.offset);
        self.fault(fault);
    }

    pub(super) fn fault(&mut self, fault: TextFault) {
        let (line, column) = yaml::place(self.text, fault.offset);
        let TextFault { problem, hint, .. } = fault;
        self.faults.push(RuleFault { path: self.path.to_owned(), line, column, problem, hint });
    }
}

/// The names of Prometheus: of a metric (with colons) or of a label.
pub(super) fn is_name(name: &str, colons: bool) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || colons && c == ':';
    name.starts_with(|c: char| allowed(c) && !c.is_ascii_digit()) && name.chars().all(allowed)
}
